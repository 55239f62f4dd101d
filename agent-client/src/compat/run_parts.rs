//! `dib-run-parts DIR`: runs a directory's programs in order, and stops at the first that fails.

use std::cmp::Ordering;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use jiff::Zoned;
use regex::bytes::Regex;
use rustix::fs::{Access, access};
use rustix::io::Errno;

/// Names of programs, unless `RUN_PARTS_REGEX` says otherwise.
const PROGRAM_NAMES: &str = "^[0-9A-Za-z_-]+$";
/// Names of environment files.
const ENVIRONMENT_NAMES: &str = r"^[0-9A-Za-z_\.-]+$";
/// Set for the run that follows the sourcing of environment files.
const SOURCED: &str = "--after-environment";
/// What a shell says of a program that cannot be run, and of one that is not there.
const EXIT_NOT_EXECUTABLE: u8 = 126;
const EXIT_NOT_FOUND: u8 = 127;

/// Runs the command; `arguments` begin with its name.
pub fn main(arguments: &[OsString]) -> ExitCode {
    let name = arguments.first().map_or_else(|| OsStr::new("dib-run-parts"), OsString::as_os_str);
    let run = Run { name: Path::new(name).file_name().unwrap_or(name).to_string_lossy().into() };
    let mut rest = arguments.get(1..).unwrap_or_default();
    let mut list = false;
    match rest {
        [flag, more @ ..] if flag == "--list" => (list, rest) = (true, more),
        [flag, directory, targets @ ..] if flag == SOURCED => {
            return run.all(Path::new(directory), targets);
        }
        _ => {}
    }
    let Some(directory) = rest.first().map(Path::new) else {
        if list {
            run.say("Scripts directory [] must exist and be a directory");
        }
        return run.usage();
    };
    if !directory.is_dir() {
        let shown = directory.display();
        run.say(&format!("Scripts directory [{shown}] must exist and be a directory"));
        return run.usage();
    }
    let targets = match targets(directory) {
        Ok(targets) => targets,
        Err(error) => {
            run.say(&error);
            return ExitCode::FAILURE;
        }
    };
    if list {
        let mut out = Vec::new();
        for target in &targets {
            out.extend([directory.as_os_str().as_bytes(), b"/", target.as_bytes(), b"\n"].concat());
        }
        // A reader that has gone wants no more.
        let _ = io::stdout().write_all(&out);
        return ExitCode::SUCCESS;
    }
    if let Some(exit) = run.with_environment(directory, &targets) {
        return exit;
    }
    run.all(directory, &targets)
}

struct Run {
    name: String,
}

impl Run {
    fn say(&self, text: &str) {
        let now = Zoned::now().strftime("%a %b %e %H:%M:%S %Z %Y").to_string();
        let _ = writeln!(io::stderr(), "{} {now} {text}", self.name);
    }

    fn usage(&self) -> ExitCode {
        let name = &self.name;
        let _ = write!(
            io::stderr(),
            "Usage: {name} [OPTION] scripts_directory\n\
             Option:\n      --list  print names of all valid files\n\n\
             Examples:\n      {name} --list /usr/libexec/os-refresh-config/configure.d/\n      \
             {name} /usr/libexec/os-refresh-config/configure.d/\n"
        );
        ExitCode::FAILURE
    }

    /// Lets bash source the files of `environment.d`, if there are any, and become this program again, with
    /// the same targets: whatever they do to their shell holds for the programs. Their values are not logged.
    fn with_environment(&self, directory: &Path, targets: &[OsString]) -> Option<ExitCode> {
        let files = environment_files(&directory.join("../environment.d"));
        if files.is_empty() {
            return None;
        }
        for file in &files {
            self.say(&format!("Sourcing environment file {}", file.display()));
        }
        let this = match env::current_exe() {
            Ok(this) => this,
            Err(error) => {
                self.say(&format!("cannot find this program: {error}"));
                return Some(ExitCode::FAILURE);
            }
        };
        // What the files may change by accident has names that they do not use.
        let script = "set -ue -o pipefail; __run_parts=$1 __files=(\"${@:4:$3}\"); \
                      __again=(\"$0\" \"$2\" \"${@:4+$3}\"); set -- \"$2\"; \
                      for __file in \"${__files[@]}\"; do source \"$__file\"; done; \
                      set +ue; exec \"$__run_parts\" dib-run-parts \"${__again[@]}\"";
        let error = Command::new("bash")
            .arg("-c")
            .arg(script)
            .arg(SOURCED)
            .arg(this)
            .arg(directory)
            .arg(files.len().to_string())
            .args(&files)
            .args(targets)
            .exec();
        self.say(&format!("environment files need bash: {error}"));
        Some(ExitCode::from(EXIT_NOT_FOUND))
    }

    fn all(&self, directory: &Path, targets: &[OsString]) -> ExitCode {
        let mut profile: Vec<(String, Duration)> = Vec::new();
        for target in targets {
            let shown = target.to_string_lossy();
            self.say(&format!("Running {}/{shown}", directory.display()));
            let start = Instant::now();
            // As it is said: a program can see by which name it was called.
            let program = [directory.as_os_str(), target.as_os_str()].join(OsStr::new("/"));
            if let Some(exit) = self.one(Path::new(&program)) {
                return exit;
            }
            profile.push((shown.clone().into_owned(), start.elapsed()));
            self.say(&format!("{shown} completed"));
        }
        profile.sort();
        let of = directory.file_name().unwrap_or(directory.as_os_str()).to_string_lossy();
        self.say("----------------------- PROFILING -----------------------");
        self.say("");
        self.say(&format!("Target: {of}"));
        self.say("");
        self.say(&format!("{:<40} {:>9}", "Script", "Seconds"));
        self.say(&format!("{:<40} {:>9}", "-".repeat(39), "-".repeat(10)));
        self.say("");
        for (name, time) in profile {
            self.say(&format!("{name:<40} {:>10.3}", time.as_secs_f64()));
        }
        self.say("");
        self.say("--------------------- END PROFILING ---------------------");
        ExitCode::SUCCESS
    }

    /// Runs one program; what to exit with if it fails.
    fn one(&self, program: &Path) -> Option<ExitCode> {
        let status = Command::new(program).status().or_else(|error| {
            if error.raw_os_error() == Some(Errno::NOEXEC.raw_os_error()) {
                // Without a #! line a program is one for the shell.
                return Command::new("bash").arg(program).status();
            }
            Err(error)
        });
        match status {
            Ok(status) if status.success() => None,
            Ok(status) => Some(exit_of(status)),
            Err(error) => {
                self.say(&format!("{}: {error}", program.display()));
                Some(ExitCode::from(match error.kind() {
                    io::ErrorKind::NotFound => EXIT_NOT_FOUND,
                    _ => EXIT_NOT_EXECUTABLE,
                }))
            }
        }
    }
}

/// As a shell reports it: the exit status, or 128 and the signal.
fn exit_of(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

/// The programs of a directory in the order in which they run.
fn targets(directory: &Path) -> Result<Vec<OsString>, String> {
    let pattern = match env::var("RUN_PARTS_REGEX") {
        Ok(pattern) if !pattern.is_empty() => pattern,
        _ => PROGRAM_NAMES.into(),
    };
    let names = Regex::new(&pattern).map_err(|e| format!("RUN_PARTS_REGEX {pattern:?}: {e}"))?;
    let mut targets: Vec<OsString> = files(directory)
        .filter(|path| access(path.as_path(), Access::EXEC_OK).is_ok())
        .filter_map(|path| path.file_name().map(OsStr::to_owned))
        .filter(|name| names.is_match(name.as_bytes()))
        .collect();
    targets.sort_by(|a, b| by_number(a.as_bytes(), b.as_bytes()));
    Ok(targets)
}

fn environment_files(directory: &Path) -> Vec<PathBuf> {
    // A fixed pattern.
    let Ok(names) = Regex::new(ENVIRONMENT_NAMES) else { return Vec::new() };
    let mut found: Vec<PathBuf> = files(directory)
        .filter(|path| path.file_name().is_some_and(|name| names.is_match(name.as_bytes())))
        .collect();
    found.sort();
    found
}

/// The files of a directory, links to files among them.
fn files(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_file())
}

/// `LANG=C sort -n`: by the number at the start, then by bytes.
fn by_number(a: &[u8], b: &[u8]) -> Ordering {
    number(a).cmp_to(&number(b)).then_with(|| a.cmp(b))
}

/// A decimal number of any length.
struct Number<'a> {
    negative: bool,
    whole: &'a [u8],
    fraction: &'a [u8],
}

fn number(text: &[u8]) -> Number<'_> {
    let text = text.trim_ascii_start();
    let (negative, text) = text.strip_prefix(b"-").map_or((false, text), |rest| (true, rest));
    let digits = |text: &[u8]| text.iter().take_while(|c| c.is_ascii_digit()).count();
    let (whole, rest) = text.split_at(digits(text));
    let fraction = rest.strip_prefix(b".").map_or(&[][..], |rest| &rest[..digits(rest)]);
    let zeros = whole.iter().take_while(|c| **c == b'0').count();
    let end = fraction.iter().rposition(|c| *c != b'0').map_or(0, |last| last + 1);
    Number { negative, whole: &whole[zeros..], fraction: &fraction[..end] }
}

impl Number<'_> {
    fn cmp_to(&self, other: &Self) -> Ordering {
        let size = |n: &Self| (n.whole.len(), n.whole.to_vec(), n.fraction.to_vec());
        let (mine, theirs) = (size(self), size(other));
        let zero = (0, Vec::new(), Vec::new());
        match (self.negative && mine != zero, other.negative && theirs != zero) {
            (false, false) => mine.cmp(&theirs),
            (true, true) => theirs.cmp(&mine),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_as_sort_n_does() {
        let mut names = vec![
            "10-x",
            "9-x",
            "b",
            "a",
            "010-y",
            "-1",
            "1.5",
            "1.10",
            "0",
            "Z",
            "99999999999999999999999",
        ];
        names.sort_by(|a, b| by_number(a.as_bytes(), b.as_bytes()));
        // The output of `printf '%s\n' … | LC_ALL=C sort -n`.
        let expected = [
            "-1",
            "0",
            "Z",
            "a",
            "b",
            "1.10",
            "1.5",
            "9-x",
            "010-y",
            "10-x",
            "99999999999999999999999",
        ];
        assert_eq!(names, expected);
    }
}
