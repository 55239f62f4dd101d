//! One hook as a process: its own process group, bounded output, and no waiting for what it leaves behind.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::time::{Instant, sleep_until};

use super::capture::{
    Capture, HEAD_BYTES_MAX, LIVE_BYTES_MAX, RESPONSE_BYTES_MAX, TAIL_BYTES_MAX, Tail,
    WATCHED_BYTES_MAX,
};
use super::kept::Kept;
use super::proc::start_ticks;
use crate::journal::ProcessMark;
use crate::machine::program;

/// How long output is read after the hook itself has exited: what it printed is in the pipe by then,
/// and a process it left in the background must not be waited for.
const DRAIN_MS_MAX: u64 = 200;
/// What a pipe can hold at most, unless root has said otherwise (`/proc/sys/fs/pipe-max-size`).
const PIPE_BYTES_MAX: usize = 1 << 20;
/// What to start.
pub struct Launch {
    /// The program.
    pub program: PathBuf,
    /// Its arguments, without its name.
    pub arguments: Vec<OsString>,
    /// Its working directory; `None`: the agent's.
    pub directory: Option<PathBuf>,
    /// Variables added to the agent's own environment; later ones win.
    pub environment: Vec<(String, OsString)>,
    /// What it reads; `None`: nothing.
    pub input: Option<Vec<u8>>,
    /// What it prints, and for whom.
    pub printing: Printing,
}

/// What a process prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Printing {
    /// A hook that prints what people read: both streams are in the live view.
    Log,
    /// A hook that answers with JSON on standard output and logs on standard error.
    Response,
    /// A hook's own tool: as [`Log`](Self::Log), and copied to our standard error as it comes. The tool
    /// stays in our process group, so that it ends with the hook.
    Copied,
    /// A hook's own tool whose output is data, in our process group.
    Data,
}

/// A running hook.
#[derive(Debug)]
pub struct Process {
    child: Child,
    mark: ProcessMark,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    printed: Printed,
    exit: Option<(ExitStatus, Instant)>,
    /// Until when what it started is waited for, as long as that holds the output open.
    linger_until: Option<Instant>,
}

#[derive(Debug)]
struct Printed {
    stdout: Capture,
    stderr: Capture,
    live: Tail,
    /// Bytes that went through `live`.
    shown: u64,
    printing: Printing,
    /// Files of both streams.
    kept: Option<(Kept, Kept)>,
}

impl Printed {
    /// Takes in what came on standard output. Returns whether that changes the live view.
    fn stdout(&mut self, bytes: &[u8]) -> bool {
        self.stdout.push(bytes);
        if let Some((stdout, _)) = &mut self.kept {
            stdout.push(bytes);
        }
        let is_log = matches!(self.printing, Printing::Log | Printing::Copied);
        if is_log {
            self.show(bytes);
        }
        is_log
    }

    fn stderr(&mut self, bytes: &[u8]) {
        self.stderr.push(bytes);
        if let Some((_, stderr)) = &mut self.kept {
            stderr.push(bytes);
        }
        self.show(bytes);
    }

    fn show(&mut self, bytes: &[u8]) {
        self.live.push(bytes);
        self.shown += bytes.len() as u64;
        if self.printing == Printing::Copied {
            // Nobody reading is no reason to end the tool.
            let _ = io::stderr().write_all(bytes);
        }
    }
}

/// What happened to a running hook.
#[derive(Debug)]
pub enum Activity {
    /// It printed something.
    Printed,
    /// It ended.
    Exited(Exit),
}

/// How a hook ended.
#[derive(Debug)]
pub struct Exit {
    /// Exit status, or the negative number of the signal that ended it.
    pub code: i64,
    /// What it printed on standard output, bounded.
    pub stdout: String,
    /// Whether that is not all of it.
    pub stdout_is_cut: bool,
    /// What it printed on standard error, bounded.
    pub stderr: String,
}

impl Process {
    /// Starts it: a hook as leader of its own process group, a tool within ours.
    ///
    /// # Errors
    /// Those of fork and exec: no such file (or interpreter), not executable, arguments too large …
    pub async fn spawn(launch: Launch) -> io::Result<Self> {
        let mut command = Command::new(&launch.program);
        command
            .args(launch.arguments)
            .envs(launch.environment)
            .stdin(launch.input.map_or_else(|| Ok(Stdio::null()), |input| whole(&input))?)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A hook may have been told to go on; the journal knows of it and recovery ends it.
            .kill_on_drop(false);
        if matches!(launch.printing, Printing::Log | Printing::Response) {
            command.process_group(0);
        }
        if let Some(directory) = launch.directory {
            command.current_dir(directory);
        }
        let mut child = program::start(|| command.spawn())?;
        let pid = child.id().ok_or_else(|| io::Error::other("a child without process id"))?;
        Ok(Self {
            // The child is not reaped before we wait for it, so the number still is its own.
            mark: ProcessMark { pid, start_ticks: start_ticks(pid).unwrap_or(0) },
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
            child,
            printed: Printed {
                stdout: match launch.printing {
                    // Half a response is none.
                    Printing::Response => Capture::new(RESPONSE_BYTES_MAX, 0),
                    _ => Capture::new(HEAD_BYTES_MAX, TAIL_BYTES_MAX),
                },
                stderr: Capture::new(HEAD_BYTES_MAX, TAIL_BYTES_MAX),
                live: Tail::new(WATCHED_BYTES_MAX),
                shown: 0,
                printing: launch.printing,
                kept: None,
            },
            exit: None,
            linger_until: None,
        })
    }

    /// Writes what it prints into these files too, standard output and standard error.
    pub(super) fn keep(&mut self, stdout: Kept, stderr: Kept) {
        self.printed.kept = Some((stdout, stderr));
    }

    /// Which process it is.
    pub fn mark(&self) -> ProcessMark {
        self.mark
    }

    /// The end of what it has printed so far.
    pub fn live(&self) -> String {
        self.printed.live.text(LIVE_BYTES_MAX)
    }

    /// What it has printed from this position on, and where that begins: later, if so much is not kept. A
    /// position that was not reached yet is one of another process: all that is kept.
    pub fn printed_since(&self, position: u64) -> (u64, Vec<u8>) {
        let Printed { live, shown, .. } = &self.printed;
        let missing = shown.checked_sub(position).unwrap_or(u64::MAX);
        let bytes = live.last(usize::try_from(missing).unwrap_or(usize::MAX));
        (shown - bytes.len() as u64, bytes)
    }

    /// Signals the whole process group. One that is gone already is fine.
    pub fn signal(&self, signal: Signal) {
        if let Some(group) = i32::try_from(self.mark.pid).ok().and_then(Pid::from_raw)
            && let Err(error) = kill_process_group(group, signal)
            && error != rustix::io::Errno::SRCH
        {
            tracing::warn!(pid = self.mark.pid, %error, "signalling a hook's process group failed");
        }
    }

    /// Whether the hook itself has ended, seen by [`next`](Self::next) or not.
    pub fn has_exited(&self) -> bool {
        self.exit.is_some() || super::proc::is_zombie(self.mark.pid)
    }

    /// From now on waits up to `until` for what it started, beyond its own end, and reads what that prints.
    pub fn linger(&mut self, until: Instant) {
        self.linger_until = Some(until);
    }

    /// Kills its process group and all that descends from it, as far as that can be found by parents.
    pub fn kill(&self) {
        if self.exit.is_some() {
            super::proc::kill_orphaned_group(self.mark.pid);
        } else if let Some(pid) = i32::try_from(self.mark.pid).ok().and_then(Pid::from_raw) {
            super::proc::kill_tree(pid);
            self.signal(Signal::KILL);
        }
    }

    /// Waits for the next thing to happen. May be dropped while waiting without losing anything.
    pub async fn next(&mut self) -> Activity {
        let (mut out, mut err) = ([0; 8192], [0; 8192]);
        loop {
            let give_up = match self.exit {
                Some((status, _)) if self.stdout.is_none() && self.stderr.is_none() => {
                    return self.exited(status);
                }
                Some((_, at)) => {
                    let drained = at + Duration::from_millis(DRAIN_MS_MAX);
                    Some(self.linger_until.map_or(drained, |until| until.max(drained)))
                }
                None => None,
            };
            tokio::select! {
                read = read(&mut self.stdout, &mut out) => match read {
                    Some(n) => {
                        if self.printed.stdout(&out[..n]) {
                            return Activity::Printed;
                        }
                    }
                    None => self.stdout = None,
                },
                read = read(&mut self.stderr, &mut err) => match read {
                    Some(n) => {
                        self.printed.stderr(&err[..n]);
                        return Activity::Printed;
                    }
                    None => self.stderr = None,
                },
                status = self.child.wait(), if self.exit.is_none() => {
                    // Waiting fails only if someone else has reaped the child: its status is lost.
                    let status = status.unwrap_or_else(|_| ExitStatus::from_raw(1 << 8));
                    self.exit = Some((status, Instant::now()));
                }
                () = sleep_until(give_up.unwrap_or_else(Instant::now)), if give_up.is_some() => {
                    // The time may have passed while a slow disk held us up, with the pipes still full.
                    let (stdout, stderr) = (self.stdout.take(), self.stderr.take());
                    read_rest(stdout.as_ref(), |bytes| {
                        self.printed.stdout(bytes);
                    });
                    read_rest(stderr.as_ref(), |bytes| self.printed.stderr(bytes));
                    discard(stdout);
                    discard(stderr);
                }
            }
        }
    }

    fn exited(&mut self, status: ExitStatus) -> Activity {
        self.printed.kept = None;
        let take =
            |capture: &mut Capture| std::mem::replace(capture, Capture::new(0, 0)).into_text();
        Activity::Exited(Exit {
            code: code(status),
            stdout_is_cut: self.printed.stdout.is_cut(),
            stdout: take(&mut self.printed.stdout),
            stderr: take(&mut self.printed.stderr),
        })
    }
}

/// A file in memory with all that a process is to read. From a pipe it would read half of it, or nothing, if
/// we died meanwhile: to the program that sends a result, nothing is the result of a success.
fn whole(input: &[u8]) -> io::Result<Stdio> {
    let mut file = File::from(memfd_create("input", MemfdFlags::CLOEXEC)?);
    file.write_all(input)?;
    file.rewind()?;
    Ok(file.into())
}

/// Some bytes; `None` at the end of the stream. Waits for ever if there is no stream.
async fn read<R: AsyncRead + Unpin>(stream: &mut Option<R>, buffer: &mut [u8]) -> Option<usize> {
    match stream {
        Some(stream) => stream.read(buffer).await.ok().filter(|&n| n > 0),
        None => std::future::pending().await,
    }
}

/// Reads what is in the pipe, without waiting.
fn read_rest<F: AsFd>(stream: Option<&F>, mut each: impl FnMut(&[u8])) {
    let Some(stream) = stream else { return };
    let mut buffer = [0; 8192];
    let mut left = PIPE_BYTES_MAX;
    // tokio's pipes do not block: an empty one ends the loop with EAGAIN.
    while left > 0
        && let Ok(count @ 1..) = rustix::io::read(stream, &mut buffer)
    {
        each(&buffer[..count]);
        left = left.saturating_sub(count);
    }
}

/// Goes on reading what a background process prints, so that it is not ended by a closed pipe.
fn discard<R: AsyncRead + Unpin + Send + 'static>(stream: Option<R>) {
    if let Some(mut stream) = stream {
        tokio::spawn(async move {
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        });
    }
}

/// Exit status, or the negative number of the signal.
pub(crate) fn code(status: ExitStatus) -> i64 {
    match (status.code(), status.signal()) {
        (Some(code), _) => code.into(),
        (None, Some(signal)) => -i64::from(signal),
        (None, None) => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Launch {
        Launch {
            program: "/bin/sh".into(),
            arguments: Vec::new(),
            directory: None,
            environment: vec![("SCRIPT".into(), script.into())],
            input: Some(b"eval \"$SCRIPT\"\n".to_vec()),
            printing: Printing::Log,
        }
    }

    async fn run(launch: Launch) -> Exit {
        let mut process = Process::spawn(launch).await.unwrap();
        loop {
            if let Activity::Exited(exit) = process.next().await {
                return exit;
            }
        }
    }

    #[tokio::test]
    async fn output_and_status_are_taken() {
        let exit = run(shell("echo out; echo err >&2; exit 3")).await;
        assert_eq!((exit.code, &*exit.stdout, &*exit.stderr), (3, "out\n", "err\n"));
    }

    #[tokio::test]
    async fn a_signal_shows_as_a_negative_status() {
        assert_eq!(run(shell("kill -9 $$")).await.code, -9);
    }

    #[tokio::test]
    async fn a_background_child_that_holds_the_output_is_not_waited_for_and_lives_on() {
        let exit = run(shell("sleep 30 & echo $!")).await;
        let pid: u32 = exit.stdout.trim().parse().unwrap();
        assert!(start_ticks(pid).is_some(), "the background child is alive");
        let pid = Pid::from_raw(pid.cast_signed()).unwrap();
        rustix::process::kill_process(pid, Signal::KILL).unwrap();
    }

    /// A slow disk between the end of a hook and our next look at its pipes once lost what was in them.
    #[tokio::test]
    async fn output_is_not_lost_when_we_come_late_after_the_end() {
        for _ in 0..8 {
            let script = "sleep 30 & echo $!; head -c 30000 /dev/zero | tr '\\0' x; echo end >&2";
            let mut process = Process::spawn(shell(script)).await.unwrap();
            while !process.has_exited() {
                std::thread::sleep(Duration::from_millis(1));
            }
            let long_ago = Instant::now() - Duration::from_secs(1);
            process.exit = Some((ExitStatus::from_raw(0), long_ago));
            let exit = loop {
                if let Activity::Exited(exit) = process.next().await {
                    break exit;
                }
            };
            assert_eq!(exit.stderr, "end\n");
            let (pid, printed) = exit.stdout.split_once('\n').unwrap();
            assert_eq!(printed.len(), 30_000);
            let pid = Pid::from_raw(pid.parse().unwrap()).unwrap();
            rustix::process::kill_process(pid, Signal::KILL).unwrap();
        }
    }

    #[tokio::test]
    async fn endless_output_is_bounded() {
        let exit = run(shell("head -c 3000000 /dev/zero | tr '\\0' x; printf end")).await;
        assert_eq!(exit.code, 0);
        assert!(exit.stdout.len() < HEAD_BYTES_MAX + TAIL_BYTES_MAX + 100);
        assert!(exit.stdout.ends_with("xend") && exit.stdout.contains("bytes left out"));
    }

    #[tokio::test]
    async fn a_response_is_kept_whole_where_a_log_is_cut() {
        let script = "head -c 900000 /dev/zero | tr '\\0' x";
        let exit = run(Launch { printing: Printing::Response, ..shell(script) }).await;
        assert_eq!(exit.stdout.len(), 900_000);
        let script = "head -c 6000000 /dev/zero | tr '\\0' x";
        let exit = run(Launch { printing: Printing::Response, ..shell(script) }).await;
        assert!(exit.stdout.len() < RESPONSE_BYTES_MAX + TAIL_BYTES_MAX + 100);
    }

    #[tokio::test]
    async fn what_a_hook_reads_is_all_there_even_if_we_do_nothing_more() {
        let place = tempfile::tempdir().unwrap();
        let count = place.path().join("count");
        assert!(Command::new("mkfifo").arg(&count).status().await.unwrap().success());
        let launch = Launch {
            arguments: vec!["-c".into(), "wc -c > \"$COUNT\"".into()],
            environment: vec![("COUNT".into(), count.clone().into())],
            input: Some(vec![b'x'; 1 << 20]),
            ..shell("")
        };
        let _process = Process::spawn(launch).await.unwrap();
        // Holds up this thread, and with it everything else that we do.
        assert_eq!(std::fs::read_to_string(count).unwrap().trim(), "1048576");
    }

    #[tokio::test]
    async fn a_hook_that_never_reads_its_input_does_not_block() {
        let launch = Launch { input: Some(vec![b'x'; 1 << 20]), ..shell("") };
        let launch = Launch { program: "/bin/true".into(), ..launch };
        assert_eq!(run(launch).await.code, 0);
    }

    #[tokio::test]
    async fn the_live_view_is_the_end_of_both_streams() {
        let mut process = Process::spawn(shell("echo one; echo two >&2; sleep 60")).await.unwrap();
        while process.live().len() < 8 {
            process.next().await;
        }
        let live = process.live();
        assert!(live.contains("one\n") && live.contains("two\n"), "{live:?}");
        process.signal(Signal::KILL);
        while !matches!(process.next().await, Activity::Exited(Exit { code: -9, .. })) {}
    }

    #[tokio::test]
    async fn what_was_printed_is_there_from_a_position_on_as_far_as_it_is_kept() {
        let place = tempfile::tempdir().unwrap();
        let go = place.path().join("go");
        let script = format!(
            "printf 0123456789; until [ -e {} ]; do sleep 0.01; done; head -c 40000 /dev/zero; printf end; sleep 60",
            go.display()
        );
        let mut process = Process::spawn(shell(&script)).await.unwrap();
        while process.printed.shown < 10 {
            process.next().await;
        }
        assert_eq!(process.printed_since(0), (0, b"0123456789".to_vec()));
        assert_eq!(process.printed_since(7), (7, b"789".to_vec()));
        assert_eq!(process.printed_since(10), (10, vec![]));
        assert_eq!(process.printed_since(11), (0, b"0123456789".to_vec()), "of another process");
        std::fs::write(go, "").unwrap();
        while process.printed.shown < 40_013 {
            process.next().await;
        }
        let (from, bytes) = process.printed_since(10);
        assert_eq!((from, bytes.len()), (40_013 - WATCHED_BYTES_MAX as u64, WATCHED_BYTES_MAX));
        assert!(bytes.ends_with(b"\0end"));
        process.signal(Signal::KILL);
        while !matches!(process.next().await, Activity::Exited(_)) {}
    }

    #[tokio::test]
    async fn a_missing_program_is_an_error() {
        let launch = Launch { program: "/nonexistent/hook".into(), ..shell("") };
        let error = Process::spawn(launch).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
