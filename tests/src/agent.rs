use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::{Process, Server, agent_binary, wait_until};

/// How long the enrolment tokens of tests are good for.
const TOKEN_TTL: Duration = Duration::from_secs(600);

/// An `agent-client` process with its state, which outlives the process.
#[derive(Debug)]
pub struct Agent {
    directory: TempDir,
    flags: Vec<String>,
    process: Option<Process>,
}

impl Agent {
    /// Enrols an agent, starts it, and waits until the server shows it as connected.
    #[must_use]
    pub fn start(server: &Server, id: &str) -> Self {
        let mut agent = Self::prepare(&[]);
        agent.save_token(&server.token(id, TOKEN_TTL));
        agent.launch();
        server.wait_for_agent(id, "connected");
        agent
    }

    /// Finds a place for one, and does not start it. It notices within a second that the server is
    /// gone, and is quick to connect again.
    ///
    /// # Panics
    /// If there is no room for its state.
    #[must_use]
    pub fn prepare(flags: &[&str]) -> Self {
        let quick = ["--keep-alive", "200ms", "--peer-timeout", "1s", "--reconnect-max", "200ms"];
        Self::prepare_patient(&[&quick, flags].concat())
    }

    /// The same with the times of the program's own, for paths that lose datagrams.
    ///
    /// # Panics
    /// If there is no room for its state.
    #[must_use]
    pub fn prepare_patient(flags: &[&str]) -> Self {
        Self {
            directory: tempfile::tempdir().expect("a temporary directory"),
            flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
            process: None,
        }
    }

    /// Puts a token where [`launch`](Self::launch) and [`enroll`](Self::enroll) take it from.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn save_token(&self, token: &str) {
        std::fs::write(self.token_file(), token).expect("written");
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(self.token_file(), private).expect("made private");
    }

    fn token_file(&self) -> PathBuf {
        self.directory.path().join("token")
    }

    /// A command of the program with this agent's state: `status`, `once` …
    #[must_use]
    pub fn cli(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(agent_binary());
        command.arg("--state-dir").arg(self.state_dir()).args(arguments);
        command
    }

    /// The command that runs it.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = self.cli(&["run"]);
        command.args(&self.flags);
        if self.token_file().exists() {
            command.arg("--token-file").arg(self.token_file());
        }
        command
    }

    /// The command that enrols it with its token and proves that at once.
    #[must_use]
    pub fn enroll(&self) -> Command {
        let mut command = self.cli(&["enroll", "--now", "--token-file"]);
        command.arg(self.token_file());
        command
    }

    /// Starts it, with the state it has.
    pub fn launch(&mut self) {
        self.launch_as(self.command());
    }

    /// The same by a command around its own, that restricts it.
    pub fn launch_as(&mut self, mut command: Command) {
        self.process = Some(Process::start(&mut command));
    }

    /// Its process.
    ///
    /// # Panics
    /// If it was not started.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("started")
    }

    /// Kills it without a warning.
    pub fn kill(&mut self) {
        self.process().kill();
    }

    /// Stops it as an operator does.
    ///
    /// # Panics
    /// If it ends with an error.
    pub fn stop(&mut self) {
        let process = self.process();
        process.terminate();
        let status = process.wait();
        assert!(status.success(), "{status}\n{process}");
    }

    /// Its state directory.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// A directory for the files of a test, gone with the agent.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Waits until its status, as JSON, gives something.
    pub fn wait_for_status<T>(&self, what: &str, wanted: impl Fn(&Value) -> Option<T>) -> T {
        wait_until(what, || {
            let output = self.cli(&["status", "--json"]).output().ok()?;
            wanted(&serde_json::from_slice(&output.stdout).ok()?)
        })
    }
}
