//! A tool or command as a process: its output bounded, and no waiting for what it leaves behind.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use nix::unistd::User;

use super::System;
use crate::hooks::capture::{Capture, HEAD_BYTES_MAX, TAIL_BYTES_MAX};

/// How long output is read after the process itself has ended: a service that it left in the background
/// holds the pipe for ever.
const DRAIN_MS_MAX: u64 = 200;
/// Another thread that forks while a program is written holds it open for a moment: `ETXTBSY`.
const BUSY_RETRIES_MAX: u32 = 50;
const BUSY_RETRY_MS: u64 = 2;
/// A shell's word for "not executable".
const STATUS_NOT_RUN: i32 = 126;

/// What to run.
#[derive(Debug)]
pub(crate) struct Call {
    words: Vec<OsString>,
    directory: Option<PathBuf>,
    added: Vec<(&'static str, &'static str)>,
    replaced: Option<Vec<(String, String)>>,
    user: Option<User>,
}

impl Call {
    /// A program with its arguments.
    pub(crate) fn new<W: AsRef<OsStr>>(words: impl IntoIterator<Item = W>) -> Self {
        let words = words.into_iter().map(|word| word.as_ref().to_owned()).collect();
        Self { words, directory: None, added: Vec::new(), replaced: None, user: None }
    }

    /// A line for the shell.
    pub(crate) fn shell(line: &str) -> Self {
        Self::new(["/bin/sh", "-c", line])
    }

    /// Where it runs.
    pub(crate) fn directory(mut self, directory: Option<PathBuf>) -> Self {
        self.directory = directory;
        self
    }

    /// A variable beside those of this process.
    pub(crate) fn variable(mut self, name: &'static str, value: &'static str) -> Self {
        self.added.push((name, value));
        self
    }

    /// Its whole environment, if it is not the one of this process.
    pub(crate) fn environment(mut self, all: Option<Vec<(String, String)>>) -> Self {
        self.replaced = all;
        self
    }

    /// As whom it runs, if not as whoever we are.
    pub(crate) fn user(mut self, user: Option<User>) -> Self {
        self.user = user;
        self
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// It could not be started.
    pub(crate) fn run(&self, system: &System) -> io::Result<Ran> {
        let (program, arguments) = self
            .words
            .split_first()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "there is no command"))?;
        let mut command = Command::new(program);
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(tools) = system.tools() {
            command.env("PATH", tools);
        }
        command.envs(self.added.iter().copied());
        if let Some(all) = &self.replaced {
            command.env_clear().envs(all.iter().map(|(name, value)| (name, value)));
        }
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        if let Some(user) = &self.user {
            // The group first: afterwards there is no right to.
            command.gid(user.gid.as_raw()).uid(user.uid.as_raw());
        }
        let mut retries = 0;
        let mut child = loop {
            match command.spawn() {
                Err(error)
                    if error.kind() == io::ErrorKind::ExecutableFileBusy
                        && retries < BUSY_RETRIES_MAX =>
                {
                    retries += 1;
                    std::thread::sleep(Duration::from_millis(BUSY_RETRY_MS));
                }
                spawned => break spawned?,
            }
        };
        let stdout = child.stdout.take().map(Reading::start);
        let stderr = child.stderr.take().map(Reading::start);
        let status = child.wait()?;
        let status = status.code().unwrap_or_else(|| -status.signal().unwrap_or(STATUS_NOT_RUN));
        let text = |reading: Option<Reading>| reading.map(Reading::text).unwrap_or_default();
        Ok(Ran { status, stdout: text(stdout), stderr: text(stderr) })
    }
}

/// How a shell would have it written, more or less.
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = self.words.iter().map(|word| word.to_string_lossy()).collect();
        f.write_str(&words.join(" "))
    }
}

/// How it ended.
#[derive(Debug)]
pub(crate) struct Ran {
    /// Exit status, or the negative number of the signal that ended it.
    pub(crate) status: i32,
    /// What it printed, bounded.
    pub(crate) stdout: String,
    /// What it said, bounded.
    pub(crate) stderr: String,
}

impl Ran {
    /// Whether it says that all is well.
    pub(crate) fn is_success(&self) -> bool {
        self.status == 0
    }

    /// Status, and the last line of what it said.
    pub(crate) fn why(&self) -> String {
        let last = |text: &str| text.trim_end().rsplit('\n').next().unwrap_or("").trim().to_owned();
        let said =
            if self.stderr.trim().is_empty() { last(&self.stdout) } else { last(&self.stderr) };
        let ended = match self.status {
            status if status < 0 => format!("ended by signal {}", -status),
            status => format!("exit status {status}"),
        };
        if said.is_empty() { ended } else { format!("{ended}: {said}") }
    }
}

/// A stream being read beside the wait.
struct Reading {
    captured: Arc<Mutex<Capture>>,
    ended: mpsc::Receiver<()>,
}

impl Reading {
    fn start(mut stream: impl Read + Send + 'static) -> Self {
        let captured = Arc::new(Mutex::new(Capture::new(HEAD_BYTES_MAX, TAIL_BYTES_MAX)));
        let (tell, ended) = mpsc::channel();
        let into = Arc::clone(&captured);
        std::thread::spawn(move || {
            let mut buffer = [0; 8192];
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                into.lock().unwrap_or_else(PoisonError::into_inner).push(&buffer[..count]);
            }
            // Nobody may be waiting any more.
            let _ = tell.send(());
        });
        Self { captured, ended }
    }

    fn text(self) -> String {
        let _ = self.ended.recv_timeout(Duration::from_millis(DRAIN_MS_MAX));
        let mut captured = self.captured.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *captured, Capture::new(0, 0)).into_text()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> (tempfile::TempDir, System) {
        let root = tempfile::tempdir().unwrap();
        let system = System::below(root.path(), OsStr::new("/usr/bin:/bin"), "");
        (root, system)
    }

    #[test]
    fn output_status_directory_and_environment_are_as_asked() {
        let (root, system) = here();
        let ran = Call::shell("pwd; echo \"$A ${HOME-none}\"; echo no >&2; exit 7")
            .directory(Some(root.path().to_owned()))
            .environment(Some(vec![("A".into(), "b".into())]))
            .run(&system)
            .unwrap();
        let place = root.path().canonicalize().unwrap();
        assert_eq!(ran.stdout, format!("{}\nb none\n", place.display()));
        assert_eq!((ran.status, ran.why().as_str()), (7, "exit status 7: no"));
        let killed = Call::shell("kill -9 $$").run(&system).unwrap();
        assert_eq!(killed.why(), "ended by signal 9");
        assert!(Call::new(["no-such-tool"]).run(&system).is_err());
    }

    #[test]
    fn what_stays_in_the_background_is_not_waited_for() {
        let (root, system) = here();
        // It ends with the directory: nobody would stop it after this.
        let line = format!(
            "echo started; (while [ -d {} ]; do sleep 0.05; done) &",
            root.path().display()
        );
        let ran = Call::shell(&line).run(&system).unwrap();
        assert_eq!((ran.status, ran.stdout.as_str()), (0, "started\n"));
    }

    #[test]
    fn a_flood_of_output_is_cut_in_the_middle() {
        let (_root, system) = here();
        let ran =
            Call::shell("head -c 2000000 /dev/zero | tr '\\0' x; echo end").run(&system).unwrap();
        assert!(ran.stdout.len() < HEAD_BYTES_MAX + TAIL_BYTES_MAX + 100);
        assert!(ran.stdout.contains("bytes left out") && ran.stdout.ends_with("end\n"));
    }
}
