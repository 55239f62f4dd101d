use std::io::{BufRead as _, BufReader, ErrorKind, Read, Write as _};
use std::net::UdpSocket;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::PATIENCE;

/// Which Debian package has a program that tests need.
const DEBIAN_PACKAGES: [(&str, &str); 3] =
    [("openssl", "openssl"), ("gnutls-cli", "gnutls-bin"), ("gnutls-serv", "gnutls-bin")];

/// A child process with all it has written so far. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    output: Arc<Output>,
}

#[derive(Debug, Default)]
struct Output {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<String>,
    /// Where [`Process::wait_for_line`] goes on.
    next: usize,
    open_pipes: usize,
}

impl Output {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn collect(self: &Arc<Self>, pipe: impl Read + Send + 'static) {
        self.lock().open_pipes += 1;
        let output = self.clone();
        std::thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while let Ok(1..) = pipe.read_until(b'\n', &mut line) {
                let text = String::from_utf8_lossy(&line);
                output.lock().lines.push(text.trim_end_matches('\n').into());
                output.changed.notify_all();
                line.clear();
            }
            output.lock().open_pipes -= 1;
            output.changed.notify_all();
        });
    }
}

impl Process {
    /// Starts it with all three streams as pipes.
    ///
    /// # Panics
    /// If it cannot be started; says which Debian package to install where it is not there.
    #[must_use]
    pub fn start(command: &mut Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let started =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = started.unwrap_or_else(|error| {
            let package = DEBIAN_PACKAGES.iter().find(|(program, _)| *program == name);
            match package {
                Some((_, package)) if error.kind() == ErrorKind::NotFound => panic!(
                    "{name} is not installed, so nothing was tested; \
                     install it: sudo apt-get install {package}"
                ),
                _ => panic!("cannot start {name}: {error}"),
            }
        });
        let output = Arc::<Output>::default();
        output.collect(child.stdout.take().expect("a pipe"));
        output.collect(child.stderr.take().expect("a pipe"));
        Self { name, stdin: child.stdin.take(), child, output }
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Writes a line to its stdin, in one piece: some programs send what each read gives.
    ///
    /// # Panics
    /// If it has closed it.
    pub fn write_line(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("stdin is open");
        let written = stdin.write_all(format!("{line}\n").as_bytes());
        written.unwrap_or_else(|error| panic!("{} reads no more: {error}\n{self}", self.name));
    }

    /// Ends its input.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Waits for the next line of either output stream for which `wanted` gives something, and
    /// returns that. Lines before it are passed over.
    ///
    /// # Panics
    /// If it does not come, with all output so far.
    pub fn wait_for_line<T>(&mut self, what: &str, wanted: impl Fn(&str) -> Option<T>) -> T {
        let found = self.find_line(Instant::now() + PATIENCE, wanted);
        found.unwrap_or_else(|| panic!("{} did not say {what}\n{self}", self.name))
    }

    /// The same, if it comes before `deadline` and before the program ends.
    pub fn find_line<T>(
        &mut self,
        deadline: Instant,
        wanted: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let output = self.output.clone();
        let mut state = output.lock();
        loop {
            while let Some(line) = state.lines.get(state.next) {
                let found = wanted(line);
                state.next += 1;
                if found.is_some() {
                    return found;
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || state.open_pipes == 0 {
                return None;
            }
            (state, _) =
                output.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it does not end, with all output so far.
    pub fn wait(&mut self) -> ExitStatus {
        let status = self.ended(Instant::now() + PATIENCE);
        status.unwrap_or_else(|| panic!("{} does not end\n{self}", self.name))
    }

    /// How it ended, if it did before `deadline`.
    ///
    /// # Panics
    /// If the system does not say.
    pub fn ended(&mut self, deadline: Instant) -> Option<ExitStatus> {
        // There is no portable wait with a timeout; the exit closes the pipes, which wakes us.
        loop {
            if let Some(status) = self.child.try_wait().expect("our own child") {
                self.drain(deadline);
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            let state = self.output.lock();
            let nap = Duration::from_millis(if state.open_pipes == 0 { 1 } else { 20 });
            drop(self.output.changed.wait_timeout(state, nap));
        }
    }

    /// Lets the readers catch up with what the ended child has written.
    fn drain(&self, deadline: Instant) {
        let mut state = self.output.lock();
        while state.open_pipes > 0 && Instant::now() < deadline {
            let nap = Duration::from_millis(100);
            (state, _) = self
                .output
                .changed
                .wait_timeout(state, nap)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Asks it to stop, as an operator does.
    ///
    /// # Panics
    /// If it is gone already.
    pub fn terminate(&self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a pid");
        rustix::process::kill_process(pid, Signal::TERM).expect("our own child");
    }

    /// Kills it without a warning and waits until it is gone.
    ///
    /// # Panics
    /// If it cannot be killed.
    pub fn kill(&mut self) {
        self.child.kill().expect("our own child");
        self.child.wait().expect("our own child");
    }

    /// True while it runs.
    ///
    /// # Panics
    /// If the system does not say.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("our own child").is_none()
    }

    /// All it has written so far.
    #[must_use]
    pub fn text(&self) -> String {
        self.output.lock().lines.join("\n")
    }
}

impl std::fmt::Display for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "--- output of {}:\n{}\n---", self.name, self.text())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A UDP port on loopback that was free a moment ago, for programs that cannot pick one.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn udp_port() -> u16 {
    let socket = UdpSocket::bind(("127.0.0.1", 0)).expect("a free port");
    socket.local_addr().expect("its address").port()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "sudo apt-get install gnutls-bin")]
    fn a_peer_that_is_not_installed_is_named_with_its_package() {
        drop(Process::start(Command::new("gnutls-cli").env("PATH", "/nonexistent")));
    }

    #[test]
    #[should_panic(expected = "did not say the answer")]
    fn waiting_for_a_line_ends_with_the_program() {
        let mut program = Process::start(Command::new("sh").args(["-c", "echo something else"]));
        program.wait_for_line("the answer", |line| (line == "42").then_some(()));
    }
}
