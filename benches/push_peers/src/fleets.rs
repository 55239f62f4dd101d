//! Many agents of each kind, to whom one document is pushed at a time.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use serde_json::{Value, json};
use system_tests::agent_binary;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::client::Kind;
use crate::peers::{Daemon, Saves, Server};
use crate::{TOPIC, cpu, etcd, mqtt};

/// How long the connecting of all, or one push, may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// How often the swarm's log is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);
/// Signs of life are not what is measured.
const QUIET: [&str; 4] = ["--keep-alive", "10m", "--peer-timeout", "30m"];
/// Agents of the swarm that connect per second.
const CONNECTS_PER_S: &str = "300";

/// Agents that have connected to their server.
pub(crate) trait Fleet {
    /// What the table says.
    fn name(&self) -> String;
    /// Process ids of the server and of all agents.
    fn processes(&self) -> (u32, u32);
    /// Pushes a document and returns when the last agent has it durably.
    fn push(&mut self, document: &[u8]) -> anyhow::Result<()>;
}

/// CPU time of the server and of the agents so far.
pub(crate) fn used(fleet: &dyn Fleet) -> anyhow::Result<(Duration, Duration)> {
    let (server, agents) = fleet.processes();
    Ok((cpu::of(server)?, cpu::of(agents)?))
}

/// `metadata-server` and `agent-client swarm`.
pub(crate) struct Ours {
    server: system_tests::Server,
    server_pid: u32,
    swarm: Daemon,
    agents: usize,
    log: File,
    _directory: TempDir,
}

impl Ours {
    /// Starts both, returns when all agents are connected.
    pub(crate) fn start(agents: usize) -> anyhow::Result<Self> {
        let mut server = system_tests::Server::start_with(&QUIET);
        let directory = tempfile::tempdir()?;
        let home = directory.path().join("swarm");
        let swarm = || {
            let mut swarm = Command::new(agent_binary());
            swarm.args(["swarm", "--json", "--agents", &agents.to_string(), "--dir"]).arg(&home);
            swarm
        };
        let made: Value = serde_json::from_slice(&output(&mut swarm())?)?;
        let pins = made["pins_file"].as_str().context("a file of pins")?;
        output(&mut server.cli(&["pins", "import", pins]))?;
        let pin = server.get("/v1/server")["fingerprint"].as_str().context("a pin")?.to_owned();
        let mut child = swarm()
            .args(["--server", &server.listen.to_string(), "--pin", &pin])
            .args(["--rate", CONNECTS_PER_S])
            .args(QUIET)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("a pipe")?).lines();
        let swarm = Daemon(child);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let line = lines.next().context("the swarm has ended")??;
            let connected = serde_json::from_str::<Value>(&line)?["connected"].as_u64();
            if connected == Some(agents as u64) {
                break;
            }
            ensure!(Instant::now() < deadline, "not all agents connect: {line}");
        }
        // Its pipe must not fill.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        let mut log = File::open(home.join("documents.log"))?;
        log.read_to_end(&mut Vec::new())?;
        let server_pid = server.process().id();
        Ok(Self { server, server_pid, swarm, agents, log, _directory: directory })
    }
}

impl Fleet for Ours {
    fn name(&self) -> String {
        "**metadata-server**".into()
    }

    fn processes(&self) -> (u32, u32) {
        (self.server_pid, self.swarm.0.id())
    }

    fn push(&mut self, document: &[u8]) -> anyhow::Result<()> {
        let head = json!({ "prefix": "swarm-" }).to_string();
        let mut request = head.trim_end_matches('}').as_bytes().to_vec();
        request.extend_from_slice(br#","metadata":"#);
        request.extend_from_slice(document);
        request.push(b'}');
        let reply = self.server.request("POST", "/v1/push", &request)?;
        ensure!(reply.status == 200 && reply.json()["new"] == self.agents, "{reply}");
        let deadline = Instant::now() + PATIENCE;
        let (mut text, mut durable) = (Vec::new(), 0);
        while durable < self.agents {
            self.log.read_to_end(&mut text)?;
            let whole = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
            let lines = text[..whole].split(|&byte| byte == b'\n');
            durable += lines.filter(|line| line.starts_with(br#"{"agent""#)).count();
            text.drain(..whole);
            ensure!(Instant::now() < deadline, "durable at {durable} agents of {}", self.agents);
            std::thread::sleep(LOOK_INTERVAL);
        }
        Ok(())
    }
}

/// Runs a command to its end.
fn output(command: &mut Command) -> anyhow::Result<Vec<u8>> {
    let output = command.stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "{command:?} ends with {}", output.status);
    Ok(output.stdout)
}

/// A peer's server, and its agents in a process of their own.
pub(crate) struct Peer {
    server: Server,
    agents: Daemon,
    said: std::io::Lines<BufReader<ChildStdout>>,
    runtime: Runtime,
    publisher: Publisher,
    pushes: usize,
    name: String,
    _directory: TempDir,
}

enum Publisher {
    Mqtt(Box<mqtt::Connection>),
    Etcd(etcd::Client),
}

impl Peer {
    /// Starts both, returns when all agents are connected.
    pub(crate) fn start(kind: Kind, agents: usize) -> anyhow::Result<Self> {
        let server = match kind {
            Kind::Mqtt => Server::mosquitto(Saves::Seldom)?,
            Kind::Etcd => Server::etcd()?,
        };
        let directory = tempfile::tempdir()?;
        let mut child = Command::new(std::env::current_exe()?)
            .args(["client", kind.word(), &server.port.to_string()])
            .arg(server.pki.directory())
            .arg(agents.to_string())
            .arg(directory.path().join("documents"))
            .stdout(Stdio::piped())
            .spawn()?;
        let mut said = BufReader::new(child.stdout.take().context("a pipe")?).lines();
        let agents = Daemon(child);
        expect(&mut said, "connected")?;
        let runtime = Runtime::new()?;
        let publisher = runtime.block_on(async {
            anyhow::Ok(match kind {
                Kind::Mqtt => {
                    let tls = server.pki.connector(None)?;
                    let opened = mqtt::Connection::open(&tls, server.port, "publisher").await?;
                    Publisher::Mqtt(Box::new(opened))
                }
                Kind::Etcd => {
                    let tls = server.pki.connector(Some("h2"))?;
                    Publisher::Etcd(etcd::Client::open(&tls, server.port).await?)
                }
            })
        })?;
        let name = server.version.clone();
        let pushes = 0;
        Ok(Self { server, agents, said, runtime, publisher, pushes, name, _directory: directory })
    }
}

impl Fleet for Peer {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn processes(&self) -> (u32, u32) {
        (self.server.pid(), self.agents.0.id())
    }

    fn push(&mut self, document: &[u8]) -> anyhow::Result<()> {
        self.pushes += 1;
        match &mut self.publisher {
            Publisher::Mqtt(publisher) => self.runtime.block_on(async {
                let id = publisher.publish(TOPIC, document).await?;
                let answer = publisher.next().await?;
                ensure!(answer == mqtt::Packet::Acknowledged(id), "{answer:?}");
                Ok(())
            })?,
            Publisher::Etcd(client) => {
                let document = Bytes::copy_from_slice(document);
                self.runtime.block_on(client.put(TOPIC, document))?;
            }
        }
        expect(&mut self.said, &format!("durable {}", self.pushes))
    }
}

/// Reads the next line, which must be this.
fn expect(said: &mut std::io::Lines<BufReader<ChildStdout>>, line: &str) -> anyhow::Result<()> {
    let next = said.next().context("the agents have ended")??;
    ensure!(next == line, "{next:?} in place of {line:?}");
    Ok(())
}
