use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::http::{Reply, request};
use crate::{Process, server_binary, wait_until};

/// Ports for daemons that come back at the same place: below those that the system gives to
/// clients, which would otherwise take them while the daemon is away.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A `metadata-server` process with its state, which outlives the process.
#[derive(Debug)]
pub struct Server {
    directory: TempDir,
    flags: Vec<String>,
    /// Where agents connect.
    pub listen: SocketAddr,
    /// Where the admin API is.
    pub admin: SocketAddr,
    process: Option<Process>,
    token_file: Option<PathBuf>,
}

impl Server {
    /// Starts one with fresh state on free ports, and waits until it is ready.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with more flags.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start_with(flags: &[&str]) -> Self {
        loop {
            let mut server = Self::prepare(flags);
            server.launch();
            if server.is_ready() {
                return server;
            }
            let process = server.process();
            // Another test of another process was quicker to take the port.
            assert!(process.text().contains("in use"), "the server does not start\n{process}");
        }
    }

    /// Finds a place for one, and does not start it.
    ///
    /// # Panics
    /// If there is no room for its state.
    #[must_use]
    pub fn prepare(flags: &[&str]) -> Self {
        Self {
            directory: tempfile::tempdir().expect("a temporary directory"),
            flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
            listen: free_port(|address| UdpSocket::bind(address).is_ok()),
            admin: free_port(|address| TcpListener::bind(address).is_ok()),
            process: None,
            token_file: None,
        }
    }

    /// The command that runs it.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(server_binary());
        command.arg("run").args(self.settings()).args(&self.flags);
        command
    }

    fn settings(&self) -> [String; 6] {
        let [listen, admin] = [self.listen, self.admin].map(|address| address.to_string());
        let state = self.state_dir().display().to_string();
        ["--listen".into(), listen, "--admin-listen".into(), admin, "--state-dir".into(), state]
    }

    /// Starts it again with its old state, and waits until it is ready.
    pub fn restart(&mut self) {
        self.launch();
        self.wait_until_ready();
    }

    /// Starts it again without waiting.
    pub fn launch(&mut self) {
        self.launch_as(self.command());
    }

    /// The same by a command around its own, that restricts it.
    pub fn launch_as(&mut self, mut command: Command) {
        self.process = Some(Process::start(&mut command));
    }

    /// Where the admin token is, if not in the state directory.
    pub fn take_token_from(&mut self, file: &Path) {
        self.token_file = Some(file.to_owned());
    }

    fn token_file(&self) -> PathBuf {
        self.token_file.clone().unwrap_or_else(|| self.state_dir().join("admin-token"))
    }

    /// Waits until `/readyz` says yes.
    ///
    /// # Panics
    /// If it never does.
    pub fn wait_until_ready(&mut self) {
        let ready = self.is_ready();
        assert!(ready, "the server has ended\n{}", self.process());
    }

    /// Waits until it is ready or has ended.
    fn is_ready(&mut self) -> bool {
        let api = self.api();
        let process = self.process.as_mut().expect("started");
        wait_until("the server to be ready", || {
            // With the token, to be sure that it is this one.
            let says_yes =
                |path| api.request("GET", path, &[]).is_ok_and(|reply| reply.status == 200);
            if !process.is_running() {
                return Some(false);
            }
            (says_yes("/readyz") && says_yes("/v1/server")).then_some(true)
        })
    }

    /// Its process.
    ///
    /// # Panics
    /// If it does not run.
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

    /// A directory for the files of a test, gone with the server.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A command of the same program that asks this server: `put`, `get`, `agents` …
    #[must_use]
    pub fn cli(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(server_binary());
        command.args(arguments);
        command.arg("--admin").arg(self.admin.to_string());
        command.arg("--admin-token-file").arg(self.token_file());
        command
    }

    /// The admin API, for another thread than the one that stops and starts the server.
    #[must_use]
    pub fn api(&self) -> Api {
        Api { admin: self.admin, token_file: self.token_file() }
    }

    /// A request to the admin API.
    ///
    /// # Errors
    /// No whole answer came.
    pub fn request(&self, method: &str, path: &str, body: &[u8]) -> io::Result<Reply> {
        self.api().request(method, path, body)
    }

    /// What the admin API says at `path`.
    ///
    /// # Panics
    /// If it does not say 200.
    #[must_use]
    pub fn get(&self, path: &str) -> Value {
        let reply = self.request("GET", path, &[]).expect("an answer");
        assert_eq!(reply.status, 200, "{path}: {reply}");
        reply.json()
    }

    /// Puts a document for an agent.
    ///
    /// # Errors
    /// No whole answer came.
    pub fn put(&self, agent: &str, document: &[u8]) -> io::Result<Reply> {
        self.api().put(agent, document)
    }

    /// Puts a document that must be new; returns its version.
    ///
    /// # Panics
    /// If it is not accepted.
    pub fn accept(&self, agent: &str, document: &Value) -> u64 {
        let reply = self.put(agent, document.to_string().as_bytes()).expect("an answer");
        assert_eq!(reply.status, 201, "{reply}");
        reply.json()["version"].as_u64().expect("a version")
    }

    /// Makes an enrolment token.
    ///
    /// # Panics
    /// If the server does not.
    #[must_use]
    pub fn token(&self, agent: &str, ttl: Duration) -> String {
        let body = format!("{{\"ttl_s\":{}}}", ttl.as_secs());
        let path = format!("/v1/agents/{agent}/enrolment");
        let reply = self.request("POST", &path, body.as_bytes()).expect("an answer");
        assert_eq!(reply.status, 201, "{reply}");
        reply.json()["token"].as_str().expect("a token").to_owned()
    }

    /// Every result of an agent, in the order of storing.
    ///
    /// # Panics
    /// If the server does not say.
    #[must_use]
    pub fn results(&self, agent: &str) -> Vec<Value> {
        let mut results = Vec::new();
        let mut after = 0;
        loop {
            let page = self.get(&format!("/v1/agents/{agent}/results?after={after}&limit=1000"));
            results.extend(page["results"].as_array().expect("a list").iter().cloned());
            match page["next_after"].as_u64() {
                Some(next) => after = next,
                None => return results,
            }
        }
    }

    /// Waits for the result of a config and returns it.
    pub fn wait_for_result(&self, agent: &str, config_id: &str) -> Value {
        wait_until(&format!("the result of {config_id}"), || {
            self.results(agent).into_iter().find_map(|saved| {
                (saved["result"]["config_id"] == config_id).then(|| saved["result"].clone())
            })
        })
    }

    /// Waits until an agent is in a state: "connected", "disconnected" …
    pub fn wait_for_agent(&self, agent: &str, state: &str) -> Value {
        wait_until(&format!("agent {agent} to be {state}"), || {
            let reply = self.request("GET", &format!("/v1/agents/{agent}"), &[]).ok()?;
            let view = (reply.status == 200).then(|| reply.json())?;
            (view["state"] == state).then_some(view)
        })
    }

    /// Waits until an agent has applied a version.
    pub fn wait_until_applied(&self, agent: &str, version: u64) -> Value {
        wait_until(&format!("agent {agent} to have applied version {version}"), || {
            let reply = self.request("GET", &format!("/v1/agents/{agent}"), &[]).ok()?;
            let view = (reply.status == 200).then(|| reply.json())?;
            (view["applied_version"] == version).then_some(view)
        })
    }

    /// A metric without labels, or with them in `name`.
    ///
    /// # Panics
    /// If it is not there.
    #[must_use]
    pub fn metric(&self, name: &str) -> f64 {
        let reply = self.request("GET", "/metrics", &[]).expect("an answer");
        let page = String::from_utf8(reply.body).expect("text");
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no metric {name}")).parse().expect("a number")
    }
}

/// How to reach a server's admin API.
#[derive(Debug, Clone)]
pub struct Api {
    admin: SocketAddr,
    token_file: PathBuf,
}

impl Api {
    /// A request with the admin token.
    ///
    /// # Errors
    /// No whole answer came.
    pub fn request(&self, method: &str, path: &str, body: &[u8]) -> io::Result<Reply> {
        let token = std::fs::read_to_string(&self.token_file)?;
        request(self.admin, Some(token.trim()), method, path, body)
    }

    /// Puts a document for an agent.
    ///
    /// # Errors
    /// No whole answer came.
    pub fn put(&self, agent: &str, document: &[u8]) -> io::Result<Reply> {
        self.request("PUT", &format!("/v1/agents/{agent}/metadata"), document)
    }
}

/// A free port on loopback from [`PORTS`].
fn free_port(is_free: impl Fn(SocketAddr) -> bool) -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let range = PORTS.end - PORTS.start;
    // Different processes begin far from each other.
    let start = u64::from(std::process::id()) * 7_919 % u64::from(range);
    let start = u16::try_from(start).unwrap_or(0);
    for _ in PORTS {
        let offset = (start + NEXT.fetch_add(1, Ordering::Relaxed) % range) % range;
        let address = ([127, 0, 0, 1], PORTS.start + offset).into();
        if is_free(address) {
            return address;
        }
    }
    panic!("no free port in {PORTS:?}");
}
