//! A tool or command as a process: its output bounded, and no waiting for what it leaves behind.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::unistd::User;

use super::{System, program};
use crate::hooks::capture::{Capture, HEAD_BYTES_MAX, TAIL_BYTES_MAX};

/// How soon it is seen that a process has ended whose output a service in the background holds open.
const EXIT_SEEN_MS_MAX: u8 = 20;
/// What a pipe can hold at most, unless root has said otherwise (`/proc/sys/fs/pipe-max-size`).
const PIPE_BYTES_MAX: usize = 1 << 20;
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
        let (name, arguments) = self
            .words
            .split_first()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "there is no command"))?;
        let mut command = Command::new(name);
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
        let mut child = program::start(|| command.spawn())?;
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
    thread: JoinHandle<Capture>,
    exited: Arc<AtomicBool>,
}

impl Reading {
    fn start(stream: impl Read + AsFd + Send + 'static) -> Self {
        let exited = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&exited);
        Self { thread: std::thread::spawn(move || read(stream, &seen)), exited }
    }

    /// What was printed, once the process itself has ended.
    fn text(self) -> String {
        self.exited.store(true, Ordering::Release);
        self.thread.join().map(Capture::into_text).unwrap_or_default()
    }
}

/// Reads until the end of the stream, or until the process has ended and what it printed is read: a service
/// that it left in the background holds the stream for ever, and may print for ever.
fn read(mut stream: impl Read + AsFd, exited: &AtomicBool) -> Capture {
    let mut captured = Capture::new(HEAD_BYTES_MAX, TAIL_BYTES_MAX);
    let mut buffer = [0; 8192];
    let mut left = PIPE_BYTES_MAX;
    while left > 0 {
        // Asked before the stream is: what is not in it by then was not printed by the process.
        let is_over = exited.load(Ordering::Acquire);
        let mut streams = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
        let patience_ms = if is_over { 0 } else { EXIT_SEEN_MS_MAX };
        match poll(&mut streams, patience_ms) {
            Ok(0) if is_over => break,
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => match stream.read(&mut buffer) {
                Ok(count @ 1..) => {
                    captured.push(&buffer[..count]);
                    if is_over {
                        left = left.saturating_sub(count);
                    }
                }
                _ => break,
            },
            Err(_) => break,
        }
    }
    captured
}

#[cfg(test)]
mod tests {
    use std::io::Write;

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

    /// It once got 200 ms, which a busy machine did not always have for it.
    #[test]
    fn what_was_printed_is_read_however_late() {
        let (reader, writer) = std::io::pipe().unwrap();
        // Its other end stays open, as in a service's hands.
        (&writer).write_all(&[b'x'; 60_000]).unwrap();
        assert_eq!(read(reader, &AtomicBool::new(true)).into_text().len(), 60_000);
        drop(writer);
    }

    #[test]
    fn what_prints_in_the_background_for_ever_is_not_read_for_ever() {
        let (root, system) = here();
        let pid = root.path().join("pid");
        let ran = Call::shell(&format!("yes & echo $! > {}", pid.display())).run(&system).unwrap();
        assert_eq!(ran.status, 0);
        let pid = std::fs::read_to_string(pid).unwrap().trim().parse().unwrap();
        let pid = nix::unistd::Pid::from_raw(pid);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
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
