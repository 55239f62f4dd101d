//! `cfn-create-aws-symlinks`: links the `cfn-…` commands to where templates for AWS look for them. Heat's
//! boot hook calls it at each boot.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use crate::compat::arguments;
use crate::machine::program::on_path;

const SOURCE: &str = "/usr/bin";
const TARGET: &str = "/opt/aws/bin";

/// Creates symlinks for the cfn-* commands to /opt/aws/bin.
#[derive(Debug, Parser)]
#[command(name = "cfn-create-aws-symlinks", version, infer_long_args = true)]
struct Cli {
    /// Target directory to create symlinks
    #[arg(short, long, default_value = TARGET)]
    target: PathBuf,
    /// Source directory to create symlinks from [default: /usr/bin, or where this command is if none is
    /// there]
    #[arg(short, long)]
    source: Option<PathBuf>,
    /// Create symlinks even if there is already a target file
    #[arg(short, long)]
    force: bool,
}

/// Runs the command; `arguments` begin with its name.
pub fn main(arguments: &[OsString]) -> ExitCode {
    run(arguments, &mut io::stdout().lock())
}

/// Runs the command, printing to `out`.
pub fn run(arguments: &[OsString], out: &mut dyn Write) -> ExitCode {
    let cli: Cli = match arguments::parse(arguments) {
        Ok(cli) => cli,
        Err(exit) => return exit,
    };
    let source = cli.source.unwrap_or_else(|| {
        let usual = PathBuf::from(SOURCE);
        if !commands_in(&usual).is_empty() {
            return usual;
        }
        own_directory(arguments.first().map(OsString::as_os_str)).unwrap_or(usual)
    });
    match link_all(&source, &cli.target, cli.force, out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where the original says it.
            let _ = writeln!(out, "{error}");
            ExitCode::FAILURE
        }
    }
}

/// Where the link is by which this command was called.
fn own_directory(name: Option<&OsStr>) -> Option<PathBuf> {
    let name = Path::new(name?);
    let path = if name.as_os_str().as_bytes().contains(&b'/') {
        name.to_owned()
    } else {
        on_path(name, std::env::var_os("PATH").as_deref())?
    };
    let directory = path.parent()?;
    (!commands_in(directory).is_empty()).then(|| directory.to_owned())
}

fn commands_in(directory: &Path) -> Vec<OsString> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<OsString> = entries
        .map(|entry| entry.file_name())
        .filter(|name| name.as_bytes().starts_with(b"cfn-"))
        .collect();
    names.sort();
    names
}

fn link_all(source: &Path, target: &Path, force: bool, out: &mut dyn Write) -> Result<(), String> {
    let failed = |what: &Path| {
        let what = what.display().to_string();
        move |error: io::Error| format!("Could not create {what}: {error}")
    };
    // Nobody reading is no reason to stop.
    let _ = writeln!(out, "{} -> {}", source.display(), target.display());
    if source == target {
        return Err(format!("Source and target are the same {}", target.display()));
    }
    fs::create_dir_all(target).map_err(|error| {
        format!("Could not create target directory {}: {error}", target.display())
    })?;
    for name in commands_in(source) {
        let (from, to) = (source.join(&name), target.join(&name));
        if to.exists() && !force {
            let _ = writeln!(out, "{} already exists, will not replace with symlink", to.display());
            continue;
        }
        if to.symlink_metadata().is_ok() {
            fs::remove_file(&to).map_err(failed(&to))?;
        }
        let _ = writeln!(out, "{} -> {}", from.display(), to.display());
        symlink(&from, &to).map_err(failed(&to))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(source: &Path, target: &Path, force: bool) -> (Result<(), String>, String) {
        let mut out = Vec::new();
        let done = link_all(source, target, force, &mut out);
        (done, String::from_utf8(out).unwrap())
    }

    #[test]
    fn each_command_is_linked_once_and_again_only_if_forced_or_broken() {
        let root = tempfile::tempdir().unwrap();
        let (source, target) = (root.path().join("bin"), root.path().join("opt/aws/bin"));
        fs::create_dir(&source).unwrap();
        for name in ["cfn-init", "cfn-hup", "other"] {
            fs::write(source.join(name), "").unwrap();
        }
        let (s, t) = (source.display(), target.display());
        let (done, text) = said(&source, &target, false);
        assert_eq!(done, Ok(()));
        assert_eq!(
            text,
            format!("{s} -> {t}\n{s}/cfn-hup -> {t}/cfn-hup\n{s}/cfn-init -> {t}/cfn-init\n")
        );
        assert_eq!(fs::read_link(target.join("cfn-init")).unwrap(), source.join("cfn-init"));
        assert_eq!(fs::read_dir(&target).unwrap().count(), 2);

        fs::remove_file(target.join("cfn-init")).unwrap();
        symlink("/gone", target.join("cfn-init")).unwrap();
        let (done, text) = said(&source, &target, false);
        assert_eq!(done, Ok(()));
        assert!(text.contains("cfn-hup already exists, will not replace"), "{text}");
        assert!(text.contains(&format!("{s}/cfn-init -> ")), "a broken link is replaced: {text}");
        let (_, text) = said(&source, &target, true);
        assert!(!text.contains("already exists"), "{text}");
    }

    #[test]
    fn a_target_that_cannot_be_is_said_and_fails() {
        let root = tempfile::tempdir().unwrap();
        let (done, _) = said(root.path(), root.path(), false);
        assert!(done.unwrap_err().starts_with("Source and target are the same"));
        fs::write(root.path().join("file"), "").unwrap();
        let (done, _) = said(root.path(), &root.path().join("file/bin"), false);
        assert!(done.unwrap_err().starts_with("Could not create target directory"));
    }
}
