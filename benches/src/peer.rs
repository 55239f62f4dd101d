//! Programs that measure other engines; `benches/peers/README.md` says what they understand.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::identity;
use tempfile::TempDir;

/// All there are.
pub const NAMES: [&str; 7] =
    ["openssl-3.0", "openssl-3.6", "gnutls", "mbedtls", "wolfssl-5.5", "wolfssl-5.9", "dimpl"];

/// Where they are, and their identities.
#[derive(Debug)]
pub struct Home {
    programs: PathBuf,
    identities: TempDir,
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

impl Home {
    /// Fresh identities for both ends.
    ///
    /// # Panics
    /// If there is no room for them.
    #[must_use]
    pub fn new() -> Self {
        let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/engine-peers");
        let identities = TempDir::new().expect("a folder for identities");
        for who in ["client", "server"] {
            let identity = identity();
            let file = |what: &str| identities.path().join(format!("{who}.{what}"));
            fs::write(file("crt"), identity.certificate_pem()).expect("a certificate");
            fs::write(file("key"), identity.to_pem().as_bytes()).expect("a key");
        }
        Self { programs, identities }
    }
}

/// One of them, running.
#[derive(Debug)]
pub struct Peer {
    /// What its library calls itself.
    pub version: String,
    process: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts it.
    ///
    /// # Errors
    /// Why it cannot be measured.
    pub fn start(home: &Home, name: &str) -> Result<Self, String> {
        let program = home.programs.join("bin").join(name);
        if !program.exists() {
            let log = home.programs.join(format!("{name}.failed"));
            let why = if log.exists() { "could not be built" } else { "is not built" };
            return Err(format!("it {why}: benches/peers/build {name}"));
        }
        let file = |name: &str| home.identities.path().join(name);
        let mut process = Command::new(program)
            .args(["client.crt", "client.key", "server.crt", "server.key"].map(file))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        let commands = process.stdin.take().ok_or("no standard input")?;
        let answers = BufReader::new(process.stdout.take().ok_or("no standard output")?);
        let mut this = Self { version: String::new(), process, commands, answers };
        this.version = this.ask("version")?;
        Ok(this)
    }

    /// Its answer to a command, one line.
    ///
    /// # Errors
    /// Why there is none.
    pub fn ask(&mut self, command: &str) -> Result<String, String> {
        writeln!(self.commands, "{command}").map_err(|error| error.to_string())?;
        let mut line = String::new();
        self.answers.read_line(&mut line).map_err(|error| error.to_string())?;
        if line.is_empty() {
            return Err(format!("it ended at `{command}`"));
        }
        match line.trim_end().strip_prefix("none: ") {
            Some(reason) => Err(reason.into()),
            None => Ok(line.trim_end().into()),
        }
    }

    /// The CPU time that a command took it.
    ///
    /// # Errors
    /// Why it cannot be measured.
    pub fn measure(&mut self, command: &str) -> Result<Duration, String> {
        let answer = self.ask(command)?;
        answer.parse().map(Duration::from_nanos).map_err(|_| format!("it answered {answer:?}"))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It is ours, and has nothing to lose.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
