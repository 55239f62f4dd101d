//! A small metadata-server in this process, and agents as real processes beside it.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "helpers of tests; each test program uses its part"
)]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use certs::token::{Claim, TokenRecord};
use certs::{EnrolmentToken, Fingerprint, Identity, proof};
use dtls_channel::{
    AssociationId, Config, Credentials, Driver, EndpointConfig, Event, PeerRefused, PeerVerifier,
};
use metadata_delivery::message::{
    DeploymentResult, Hello, Hex32, Holds, Message, PROTOCOL, Progress, Welcome,
};
use metadata_delivery::{
    Base, CloseCode, Document, Event as SessionEvent, Form, Limits, Name, Session, SessionConfig,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// A test that waits longer has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const AGENT: &str = "vm-1";

/// What the server has seen.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    pub hellos: Vec<Hello>,
    pub results: Vec<DeploymentResult>,
    pub progress: Vec<Progress>,
    pub documents_offered: usize,
    pub documents_stored: Vec<u64>,
    pub documents_refused: Vec<(u64, String)>,
    pub connected: usize,
    pub results_refused: usize,
    /// Of the session that said hello last: bytes of documents written to the agent, and forms that
    /// it could not read.
    pub document_bytes_sent: u64,
    pub forms_unread: u64,
}

enum Order {
    Push(u64, Bytes),
    /// Whether results are acknowledged from now on.
    TakeResults(bool),
    /// With this code from now on.
    RefuseResults(u16),
    SayNewest(bool),
    /// Close all connections as a stopping server does.
    HangUp,
}

/// A server with one token for [`AGENT`].
pub struct MiniServer {
    pub address: SocketAddr,
    pub token: EnrolmentToken,
    pub fingerprint: Fingerprint,
    orders: Option<mpsc::UnboundedSender<Order>>,
    shared: Arc<(Mutex<Seen>, Condvar)>,
    thread: Option<JoinHandle<Memory>>,
}

/// What outlives a server's restart.
pub struct Memory {
    identity: Identity,
    record: TokenRecord,
    token: EnrolmentToken,
    document: Option<Document>,
}

struct Anybody;

impl PeerVerifier for Anybody {
    fn verify(&self, _certificate_der: &[u8]) -> Result<(), PeerRefused> {
        Ok(())
    }
}

/// A socket whose port stays free while its server is down: outside the range from which the kernel
/// gives ports to those who ask for any, as the agents of other tests do at the same time, and no
/// port is tried twice.
fn lasting_socket() -> UdpSocket {
    static TRIED: AtomicU32 = AtomicU32::new(0);

    std::iter::repeat_with(|| TRIED.fetch_add(1, Ordering::Relaxed))
        .take(10_000)
        .map(|n| 10_000 + (std::process::id() * 97 + n) % 20_000)
        .find_map(|port| UdpSocket::bind((Ipv4Addr::LOCALHOST, port as u16)).ok())
        .unwrap()
}

impl MiniServer {
    pub fn start() -> Self {
        let identity = Identity::generate("mini-server").unwrap();
        Self::bind(lasting_socket(), |address| {
            let servers = vec![address.to_string()];
            let expires = unix_s() + 600;
            let fingerprint = identity.fingerprint();
            let (token, record) =
                EnrolmentToken::issue(servers, fingerprint, AGENT.parse().unwrap(), expires)
                    .unwrap();
            Memory { identity, record, token, document: None }
        })
    }

    /// Starts anew where the last one was, with what it knew.
    pub fn restart(memory: Memory, address: SocketAddr) -> Self {
        // A process that another test starts at this moment has our sockets until it becomes its program.
        let socket = wait_until("its port", || UdpSocket::bind(address).ok());
        Self::bind(socket, |_| memory)
    }

    fn bind(socket: UdpSocket, memory: impl FnOnce(SocketAddr) -> Memory) -> Self {
        let address = socket.local_addr().unwrap();
        let memory = memory(address);
        let (orders, orders_out) = mpsc::unbounded_channel();
        let shared = Arc::new((Mutex::new(Seen::default()), Condvar::new()));
        let (token, fingerprint) = (memory.token.clone(), memory.identity.fingerprint());
        let seen = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime
                .block_on(async move { Serving::new(socket, memory, seen).run(orders_out).await })
        });
        Self { address, token, fingerprint, orders: Some(orders), shared, thread: Some(thread) }
    }

    pub fn push(&self, version: u64, document: &Value) {
        self.push_bytes(version, document.to_string().as_bytes());
    }

    pub fn push_bytes(&self, version: u64, body: &[u8]) {
        self.order(Order::Push(version, Bytes::copy_from_slice(body)));
    }

    pub fn take_results(&self, take: bool) {
        self.order(Order::TakeResults(take));
    }

    pub fn refuse_results(&self, code: u16) {
        self.order(Order::RefuseResults(code));
    }

    /// Whether the welcome names the newest document; an older server's does not.
    pub fn say_newest(&self, says: bool) {
        self.order(Order::SayNewest(says));
    }

    pub fn hang_up(&self) {
        self.order(Order::HangUp);
    }

    fn order(&self, order: Order) {
        self.orders.as_ref().unwrap().send(order).ok().unwrap();
    }

    /// Vanishes without a word, as if killed.
    pub fn kill(mut self) -> Memory {
        self.orders = None;
        self.thread.take().unwrap().join().unwrap()
    }

    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.shared.0.lock().unwrap()
    }

    /// Waits until what was seen fits.
    #[track_caller]
    pub fn wait(&self, what: &str, fits: impl Fn(&Seen) -> bool) -> Seen {
        let (seen, timeout) =
            self.shared.1.wait_timeout_while(self.seen(), PATIENCE, |seen| !fits(seen)).unwrap();
        assert!(!timeout.timed_out(), "still waiting for {what}: {seen:#?}");
        seen.clone()
    }

    #[track_caller]
    pub fn wait_for_result(&self, id: &str) -> DeploymentResult {
        let seen = self.wait(&format!("the result of {id}"), |seen| {
            seen.results.iter().any(|result| result.config_id == id)
        });
        seen.results.into_iter().find(|result| result.config_id == id).unwrap()
    }
}

struct Serving {
    driver: Driver,
    memory: Memory,
    peers: BTreeMap<AssociationId, Peer>,
    seen: Arc<(Mutex<Seen>, Condvar)>,
    take_results: bool,
    refuse_results: Option<u16>,
    says_newest: bool,
}

struct Peer {
    session: Session,
    fingerprint: Fingerprint,
    exported: [u8; proof::EXPORTER_BYTES],
    known: bool,
    closing: bool,
    /// Which of all hellos was its own, counted from 1.
    hello: usize,
}

impl Serving {
    fn new(socket: std::net::UdpSocket, memory: Memory, seen: Arc<(Mutex<Seen>, Condvar)>) -> Self {
        let identity = &memory.identity;
        let credentials =
            Credentials::from_der(identity.certificate_der().to_vec(), identity.pkcs8()).unwrap();
        let config = Arc::new(Config::new(credentials, Arc::new(Anybody)));
        let config = EndpointConfig { server: Some(config), ..EndpointConfig::default() };
        let driver = Driver::from_socket(socket, config).unwrap();
        Self {
            driver,
            memory,
            peers: BTreeMap::new(),
            seen,
            take_results: true,
            refuse_results: None,
            says_newest: true,
        }
    }

    async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) -> Memory {
        loop {
            self.pump();
            let wake = self.peers.values().filter_map(|peer| peer.session.next_timeout()).min();
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.obey(order),
                    None => return self.memory,
                },
                waited = self.driver.wait(wake) => waited.unwrap(),
            }
        }
    }

    fn obey(&mut self, order: Order) {
        let now = Instant::now();
        match order {
            Order::Push(version, body) => {
                // As a delta to the document before, whether or not the agent holds that.
                let base = self.memory.document.take().map(|before| Base::new(before.body));
                let document = Document { name: Name::new("metadata").unwrap(), version, body };
                let form = Form::plain(document.body.clone()).encoded(base.as_ref());
                for peer in self.peers.values_mut().filter(|peer| peer.known) {
                    let name = document.name.clone();
                    peer.session.offer_form(now, name, version, form.clone()).unwrap();
                }
                self.memory.document = Some(document);
            }
            Order::TakeResults(take) => {
                self.take_results = take;
                self.refuse_results = None;
            }
            Order::RefuseResults(code) => self.refuse_results = Some(code),
            Order::SayNewest(says) => self.says_newest = says,
            Order::HangUp => {
                for peer in self.peers.values_mut() {
                    peer.session.close(now, CloseCode::Shutdown, "the mini server stops");
                    peer.closing = true;
                }
            }
        }
    }

    fn see(&self, look: impl FnOnce(&mut Seen)) {
        look(&mut self.seen.0.lock().unwrap());
        self.seen.1.notify_all();
    }

    fn pump(&mut self) {
        let now = Instant::now();
        while let Some((id, event)) = self.driver.poll_event() {
            match event {
                Event::Established(established) => {
                    let mut exported = [0; proof::EXPORTER_BYTES];
                    established.exporter.export(proof::EXPORTER_LABEL, b"", &mut exported);
                    let config = SessionConfig {
                        payload_max: self.driver.message_size_max(id),
                        limits: Limits::stranger(),
                        ..SessionConfig::default()
                    };
                    let peer = Peer {
                        session: Session::new(now, config),
                        fingerprint: Fingerprint::from_bytes(established.peer_fingerprint.unwrap()),
                        exported,
                        known: false,
                        closing: false,
                        hello: 0,
                    };
                    self.peers.insert(id, peer);
                }
                Event::Message { sequence, data, .. } => {
                    if let Some(peer) = self.peers.get_mut(&id) {
                        peer.session.handle_packet(now, sequence, &data).unwrap();
                    }
                }
                Event::Closed(_) => {
                    let known = self.peers.remove(&id).is_some_and(|peer| peer.known);
                    self.see(|seen| seen.connected -= usize::from(known));
                }
                _ => {}
            }
        }
        let ids: Vec<AssociationId> = self.peers.keys().copied().collect();
        for id in ids {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.session.handle_timeout(now);
            }
            while let Some(event) =
                self.peers.get_mut(&id).and_then(|peer| peer.session.poll_event())
            {
                self.on_event(now, id, event);
            }
            self.exchange(id);
        }
        self.driver.flush();
    }

    fn exchange(&mut self, id: AssociationId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let mut packet = Vec::new();
        while let Some(number) = self.driver.next_sequence(id) {
            if !peer.session.poll_transmit(Instant::now(), number, &mut packet) {
                break;
            }
            self.driver.send(Instant::now(), id, &packet).unwrap();
        }
        if peer.closing && peer.session.is_closed() {
            self.driver.close(Instant::now(), id);
        }
        let (stats, hello) = (peer.session.stats(), peer.hello);
        self.see(|seen| {
            if hello < seen.hellos.len() {
                return;
            }
            seen.document_bytes_sent = stats.data_bytes_sent - stats.data_bytes_resent;
            seen.forms_unread = stats.forms_unread;
        });
    }

    fn on_event(&mut self, now: Instant, id: AssociationId, event: SessionEvent) {
        match event {
            SessionEvent::Received(document) => self.on_document(now, id, &document),
            SessionEvent::Stored { name, version } if name.as_str() == "metadata" => {
                self.see(|seen| seen.documents_stored.push(version));
            }
            SessionEvent::Refused { name, version, reason, .. } if name.as_str() == "metadata" => {
                self.see(|seen| seen.documents_refused.push((version, reason)));
            }
            SessionEvent::PeerClosed { .. } | SessionEvent::PeerLost => {
                self.driver.close(now, id);
            }
            _ => {}
        }
    }

    fn on_document(&mut self, now: Instant, id: AssociationId, document: &Document) {
        let is_result = !matches!(document.name.as_str(), "hello" | "progress");
        if let (true, Some(code)) = (is_result, self.refuse_results) {
            self.see(|seen| seen.results_refused += 1);
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.session.refuse(now, &document.name, document.version, code, "not like this");
            }
            return;
        }
        let stored = match document.name.as_str() {
            "hello" => return self.on_hello(now, id, document),
            "progress" => {
                let progress = Progress::from_body(&document.body).unwrap();
                self.see(|seen| seen.progress.push(progress));
                true
            }
            _ if self.take_results => {
                let result = DeploymentResult::from_body(&document.body).unwrap();
                assert_eq!(document.name, result.name());
                self.see(|seen| seen.results.push(result));
                true
            }
            _ => false,
        };
        if let (true, Some(peer)) = (stored, self.peers.get_mut(&id)) {
            peer.session.stored(now, &document.name, document.version);
        }
    }

    fn on_hello(&mut self, now: Instant, id: AssociationId, document: &Document) {
        let hello = Hello::from_body(&document.body).unwrap();
        self.see(|seen| seen.hellos.push(hello.clone()));
        let server = self.memory.identity.fingerprint();
        let record = &mut self.memory.record;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let refused = if record.used_by == Some(peer.fingerprint) {
            (hello.agent_id != AGENT).then(|| (CloseCode::PinMismatch, "another agent".to_owned()))
        } else if let Some(enrol) = &hello.enrol {
            let claim = Claim {
                exporter: &peer.exported,
                server: &server,
                agent: &peer.fingerprint,
                agent_id: &hello.agent_id,
                proof: &enrol.proof.0,
            };
            match record.check(unix_s(), &claim) {
                Ok(()) => {
                    record.used_by = Some(peer.fingerprint);
                    None
                }
                Err(refused) => Some((CloseCode::TokenForged, refused.to_string())),
            }
        } else {
            Some((CloseCode::UnknownAgent, format!("key {} is not pinned", peer.fingerprint)))
        };
        if let Some((code, reason)) = refused {
            peer.session.close(now, code, &reason);
            peer.closing = true;
            return;
        }
        peer.known = true;
        peer.hello = self.seen.0.lock().unwrap().hellos.len();
        peer.session.stored(now, &document.name, document.version);
        peer.session.set_limits(now, Limits::server());
        let newest = self.memory.document.as_ref().map(|document| Holds {
            version: document.version,
            sha256: Hex32::sha256_of(&document.body),
        });
        let welcome = Welcome {
            protocol: PROTOCOL,
            software: "mini-server".into(),
            agent_id: AGENT.into(),
            keep_alive_s: 15,
            newest: newest.filter(|_| self.says_newest),
            return_within_ms: None,
        };
        peer.session.offer(now, welcome.to_document(1).unwrap()).unwrap();
        if let Some(document) = self.memory.document.clone().filter(|_| hello.holds != newest) {
            peer.session.offer(now, document).unwrap();
            self.see(|seen| seen.documents_offered += 1);
        }
        self.see(|seen| seen.connected += 1);
    }
}

fn unix_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

/// A state directory and the agents that work in it.
pub struct Home {
    pub dir: tempfile::TempDir,
}

/// An agent at work, killed when dropped.
pub struct Agent {
    pub child: Child,
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Home {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// A file with the server's token.
    pub fn token(&self, server: &MiniServer) -> PathBuf {
        let path = self.path("token");
        certs::file::write_atomic(&path, server.token.encode().as_bytes(), 0o600).unwrap();
        path
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_agent-client"));
        command.args(args).arg("--state-dir").arg(self.state());
        for name in ["HEAT_CONFIG_HOOKS", "HEAT_SCRIPT_WORKING", "HEAT_SCRIPT_OUTPUTS"] {
            command.env_remove(name);
        }
        command.env("AGENT_CLIENT_RECONNECT_MAX", "200ms");
        command.env("AGENT_CLIENT_LOG_FILTER", "debug");
        command
    }

    pub fn output(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Enrols without a connection.
    pub fn enroll(&self, server: &MiniServer) {
        let token = self.token(server);
        let output = self.output(&["enroll", "--token-file", token.to_str().unwrap()]);
        assert!(output.status.success(), "{output:?}");
    }

    /// Runs the daemon; its log goes to the file `log`.
    pub fn run(&self, args: &[&str]) -> Agent {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.path("log"));
        let mut command = self.command(&[&["run"], args].concat());
        let child = command.stdin(Stdio::null()).stderr(log.unwrap()).spawn().unwrap();
        Agent { child }
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    #[track_caller]
    pub fn wait_for_file(&self, name: &str) -> String {
        wait_until(&format!("file {name}; log: {}", self.read("log")), || {
            let text = self.read(name);
            (!text.is_empty()).then_some(text)
        })
    }
}

/// Polls for something that no channel tells.
#[track_caller]
pub fn wait_until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "still waiting for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

impl Agent {
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.child.id().cast_signed()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub fn kill_9(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn wait(mut self) -> std::process::ExitStatus {
        wait_until("the agent's end", || self.child.try_wait().unwrap())
    }
}

/// A script deployment.
pub fn script(id: &str, script: &str) -> Value {
    json!({"id": id, "name": format!("name-of-{id}"), "group": "script",
        "config": format!("#!/bin/sh\n{script}\n"), "inputs": [], "outputs": []})
}

pub fn document(deployments: &[Value]) -> Value {
    json!({"deployments": deployments})
}

pub fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(") ").unwrap().1.starts_with('Z'))
}

pub fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}
