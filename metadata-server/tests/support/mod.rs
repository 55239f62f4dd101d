//! A server on loopback in this process, an agent made of the public crates, and bare HTTP.

#![allow(dead_code, reason = "each test program uses its own part of this")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on stops")]

pub(crate) mod cloud;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use certs::proof::{EXPORTER_BYTES, EXPORTER_LABEL};
use certs::{EnrolmentToken, Fingerprint, Identity};
use dtls_channel::{
    AssociationId, Config as DtlsConfig, Credentials, Driver, EndpointConfig, Event as DtlsEvent,
    PeerRefused, PeerVerifier,
};
use metadata_delivery::message::{
    DeploymentResult, Enrol, Hello, Hex32, Holds, Message, PROTOCOL, ResultStatus,
};
use metadata_delivery::{CloseCode, Document, Event, Limits, Session, SessionConfig};
use metadata_server::boot::Server;
use metadata_server::config::{Config, ConfigFile, Origin, Override, Value};
use metadata_server::store::Backend;
use serde_json::Value as Json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest time anything here may take. Only a failing test waits so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The configuration of a server on free ports of loopback with its state in `folder`.
pub(crate) fn config(folder: &Path, more: &[(&'static str, &str)]) -> Config {
    let folder = folder.join("state").display().to_string();
    let settings = [
        ("listen", "127.0.0.1:0"),
        ("admin_listen", "127.0.0.1:0"),
        ("state_dir", folder.as_str()),
        ("drain_timeout", "2s"),
    ];
    let overrides: Vec<Override> = settings
        .iter()
        .chain(more)
        .map(|(key, text)| Override {
            key,
            value: Value::Text((*text).into()),
            origin: Origin::Together,
        })
        .collect();
    Config::load(&ConfigFile::None, &overrides).unwrap()
}

/// A server and what is needed to talk to it.
pub(crate) struct Running {
    pub(crate) server: Server,
    pub(crate) udp: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) token: String,
}

impl Running {
    pub(crate) async fn start(config: Config) -> Self {
        let token_file = config.admin_token_file();
        Self::around(Server::start(config).await.unwrap(), &token_file)
    }

    pub(crate) async fn start_with(config: Config, backend: Arc<dyn Backend>) -> Self {
        let token_file = config.admin_token_file();
        Self::around(Server::start_with(config, backend).await.unwrap(), &token_file)
    }

    fn around(server: Server, token_file: &Path) -> Self {
        Self {
            udp: server.udp_address,
            admin: server.admin_address,
            fingerprint: server.fingerprint,
            token: std::fs::read_to_string(token_file).unwrap().trim().to_owned(),
            server,
        }
    }

    /// A request with the token; the status and the body as JSON (null if it is none).
    pub(crate) async fn call(&self, method: &str, path: &str, body: &str) -> (u16, Json) {
        let headers = format!("authorization: Bearer {}\r\n", self.token);
        let (status, body) = http(self.admin, method, path, &headers, body.as_bytes()).await;
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    /// A new enrolment token.
    pub(crate) async fn enrol(&self, agent: &str) -> EnrolmentToken {
        let (status, answer) =
            self.call("POST", &format!("/v1/agents/{agent}/enrolment"), "").await;
        assert_eq!(status, 201, "{answer}");
        answer["token"].as_str().unwrap().parse().unwrap()
    }

    pub(crate) async fn put(&self, agent: &str, body: &str) -> u64 {
        let (status, answer) =
            self.call("PUT", &format!("/v1/agents/{agent}/metadata"), body).await;
        assert!(status == 201 || status == 200, "{answer}");
        answer["version"].as_u64().unwrap()
    }

    /// Connects with this identity.
    pub(crate) async fn connect(&self, identity: &Identity) -> Agent {
        Agent::connect(self.udp, identity, self.fingerprint).await
    }

    /// Connects a new identity by a new token, up to the welcome.
    pub(crate) async fn enrolled(&self, agent: &str) -> (Identity, Agent) {
        let identity = Identity::generate("test").unwrap();
        let token = self.enrol(agent).await;
        let mut connected = self.connect(&identity).await;
        connected.hello_with(agent, &token);
        connected.welcome().await;
        (identity, connected)
    }
}

/// A bare HTTP/1.1 request.
pub(crate) async fn http(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
    body: &[u8],
) -> (u16, Vec<u8>) {
    let (status, _, body) = exchange(address, method, path, headers, body).await;
    (status, body)
}

/// One request; status, head and body of the answer.
pub(crate) async fn exchange(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
    body: &[u8],
) -> (u16, String, Vec<u8>) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // A server that answers early may not read it all.
    let _ = stream.write_all(body).await;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").expect("a whole head");
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head, answer[end + 4..].to_vec())
}

/// A document with these config ids.
pub(crate) fn document(ids: &[&str]) -> String {
    let deployments: Vec<Json> = ids
        .iter()
        .map(|id| serde_json::json!({"id": id, "name": "n", "group": "script", "inputs": []}))
        .collect();
    serde_json::json!({ "deployments": deployments }).to_string()
}

/// A result of this config.
pub(crate) fn result(config_id: &str) -> DeploymentResult {
    DeploymentResult {
        config_id: config_id.into(),
        name: "n".into(),
        group: "script".into(),
        action: "CREATE".into(),
        document_version: 1,
        status: ResultStatus::Complete,
        deploy_stdout: "done\n".into(),
        deploy_stderr: String::new(),
        deploy_status_code: 0,
        outputs: serde_json::Map::new(),
        reason: None,
        started_unix_ms: 1,
        finished_unix_ms: 2,
        rerun: None,
    }
}

struct Pin(Fingerprint);

impl PeerVerifier for Pin {
    fn verify(&self, certificate_der: &[u8]) -> Result<(), PeerRefused> {
        let seen = Fingerprint::of_der(certificate_der);
        if seen == self.0 { Ok(()) } else { Err(PeerRefused(format!("seen {seen}"))) }
    }
}

/// One association of an agent.
pub(crate) struct Agent {
    driver: Driver,
    association: AssociationId,
    session: Session,
    exporter: [u8; EXPORTER_BYTES],
    fingerprint: Fingerprint,
    is_over: bool,
    bytes_received: u64,
    /// Came while another one was waited for.
    early: Vec<Document>,
}

/// How an association ended, as the agent has seen it.
#[derive(Debug)]
pub(crate) struct Ended {
    /// What the server said, if it said something.
    pub(crate) close: Option<(CloseCode, String)>,
    /// Documents that came before.
    pub(crate) received: Vec<Document>,
}

impl Agent {
    pub(crate) async fn connect(server: SocketAddr, identity: &Identity, pin: Fingerprint) -> Self {
        let credentials =
            Credentials::from_der(identity.certificate_der().to_vec(), identity.pkcs8()).unwrap();
        let config = Arc::new(DtlsConfig::new(credentials, Arc::new(Pin(pin))));
        let mut driver =
            Driver::bind("127.0.0.1:0".parse().unwrap(), EndpointConfig::default()).unwrap();
        let association = driver.connect(Instant::now(), server, config).unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            driver.wait(Some(deadline)).await.unwrap();
            match driver.poll_event() {
                Some((_, DtlsEvent::Established(established))) => {
                    let mut exporter = [0; EXPORTER_BYTES];
                    established.exporter.export(EXPORTER_LABEL, &[], &mut exporter);
                    let session_config = SessionConfig {
                        payload_max: driver.message_size_max(association),
                        limits: Limits::agent(),
                        ..SessionConfig::default()
                    };
                    return Self {
                        session: Session::new(Instant::now(), session_config),
                        driver,
                        association,
                        exporter,
                        fingerprint: identity.fingerprint(),
                        is_over: false,
                        bytes_received: 0,
                        early: Vec::new(),
                    };
                }
                Some((_, event)) => panic!("not established: {event:?}"),
                None => assert!(Instant::now() < deadline, "no handshake"),
            }
        }
    }

    pub(crate) fn say(&mut self, message: &impl Message, version: u64) {
        self.session.offer(Instant::now(), message.to_document(version).unwrap()).unwrap();
    }

    pub(crate) fn offer(&mut self, document: Document) {
        self.session.offer(Instant::now(), document).unwrap();
    }

    pub(crate) fn hello(&mut self, agent: &str, holds: Option<Holds>, enrol: Option<Enrol>) {
        let hello = Hello {
            protocol: PROTOCOL,
            agent_id: agent.into(),
            software: "test-agent/1".into(),
            boot_id: "boot".into(),
            enrol,
            holds,
        };
        self.say(&hello, 1);
    }

    /// Says hello with the proof of a token.
    pub(crate) fn hello_with(&mut self, agent: &str, token: &EnrolmentToken) {
        let proof = Hex32(token.prove(&self.exporter, &self.fingerprint));
        let enrol = Enrol { token_id: token.token_id.to_string(), proof };
        self.hello(agent, None, Some(enrol));
    }

    /// From here on deltas can build on this document.
    pub(crate) fn hold(&mut self, document: &Document) {
        let base = metadata_delivery::Base::new(document.body.clone());
        self.session.hold(document.name.clone(), base);
    }

    /// Bytes of packets that came from the server.
    pub(crate) fn bytes_received(&self) -> u64 {
        self.bytes_received
    }

    /// Waits for the session's next event; `None` when the association has ended.
    pub(crate) async fn event(&mut self) -> Option<Event> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "nothing happens");
            self.transmit();
            if let Some(event) = self.session.poll_event() {
                return Some(event);
            }
            if self.is_over {
                return None;
            }
            self.listen(deadline).await;
        }
    }

    /// Sends what there is, and takes in what comes next.
    pub(crate) async fn step(&mut self) {
        self.transmit();
        self.listen(Instant::now() + PATIENCE).await;
    }

    fn transmit(&mut self) {
        let mut packet = Vec::new();
        let now = Instant::now();
        while let Some(number) = self.driver.next_sequence(self.association) {
            if !self.session.poll_transmit(now, number, &mut packet) {
                break;
            }
            self.driver.send(now, self.association, &packet).unwrap();
        }
        self.driver.flush();
    }

    async fn listen(&mut self, deadline: Instant) {
        let until = self.session.next_timeout().map_or(deadline, |at| at.min(deadline));
        self.driver.wait(Some(until)).await.unwrap();
        while let Some((_, event)) = self.driver.poll_event() {
            match event {
                DtlsEvent::Message { sequence, data, .. } => {
                    self.bytes_received += data.len() as u64;
                    self.session.handle_packet(Instant::now(), sequence, &data).unwrap();
                }
                DtlsEvent::Closed(_) => self.is_over = true,
                _ => {}
            }
        }
        if self.session.next_timeout().is_some_and(|at| at <= Instant::now()) {
            self.session.handle_timeout(Instant::now());
        }
    }

    /// Waits for a document of this name, confirming what comes.
    pub(crate) async fn document(&mut self, name: &str) -> Document {
        if let Some(at) = self.early.iter().position(|d| d.name.as_str() == name) {
            return self.early.remove(at);
        }
        loop {
            match self.event().await {
                Some(Event::Received(document)) => {
                    self.session.stored(Instant::now(), &document.name, document.version);
                    if document.name.as_str() == name {
                        return document;
                    }
                    self.early.push(document);
                }
                Some(Event::Stored { .. }) => {}
                other => panic!("waiting for {name}: {other:?}"),
            }
        }
    }

    pub(crate) async fn welcome(&mut self) {
        self.document("welcome").await;
    }

    /// Waits until the server has stored our document of this name.
    pub(crate) async fn stored(&mut self, name: &str) {
        loop {
            match self.event().await {
                Some(Event::Stored { name: stored, .. }) if stored.as_str() == name => return,
                Some(Event::Stored { .. }) => {}
                Some(Event::Received(document)) => {
                    self.session.stored(Instant::now(), &document.name, document.version);
                }
                other => panic!("waiting for {name} to be stored: {other:?}"),
            }
        }
    }

    /// Waits until the server has refused our document of this name; code and reason.
    pub(crate) async fn refused(&mut self, name: &str) -> (u16, String) {
        loop {
            match self.event().await {
                Some(Event::Refused { name: refused, code, reason, .. })
                    if refused.as_str() == name =>
                {
                    return (code, reason);
                }
                Some(Event::Received(document)) => {
                    self.session.stored(Instant::now(), &document.name, document.version);
                }
                Some(Event::Stored { .. }) => {}
                other => panic!("waiting for {name} to be refused: {other:?}"),
            }
        }
    }

    /// Waits for the end.
    pub(crate) async fn end(&mut self) -> Ended {
        let mut ended = Ended { close: None, received: Vec::new() };
        while let Some(event) = self.event().await {
            match event {
                Event::PeerClosed { code, reason } => ended.close = Some((code, reason)),
                Event::Received(document) => ended.received.push(document),
                _ => {}
            }
        }
        ended
    }

    /// Lets everything that waits go out and come in, until the server has answered something said
    /// after it: a progress report.
    pub(crate) async fn settle(&mut self, version: u64) {
        let progress =
            metadata_delivery::message::Progress { document_version: 0, deployments: vec![] };
        self.say(&progress, version);
        self.stored("progress").await;
    }
}
