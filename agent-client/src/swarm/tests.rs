//! A swarm and a server of it in one thread, on a virtual clock, without sockets.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use certs::{Identity, PinSet};
use dtls_channel::{
    AssociationId, Config, Credentials, Endpoint, EndpointConfig, Event, Path, PeerRefused,
    PeerVerifier, TicketKeys,
};
use metadata_delivery::message::{
    HELLO, Hello, Hex32, Holds, Message, PROTOCOL, Welcome, metadata_name,
};
use metadata_delivery::{Document, Event as SessionEvent, Limits, Session, SessionConfig};

use super::fleet::{Action, Census, Fleet, Plan, agent_id};
use super::keys::Key;
use crate::link::core::Patience;

const AGENTS: usize = 20;

struct Anybody;

impl PeerVerifier for Anybody {
    fn verify(&self, _certificate_der: &[u8]) -> Result<(), PeerRefused> {
        Ok(())
    }

    fn verify_resumed(&self, _fingerprint: &[u8; 32]) -> Result<(), PeerRefused> {
        Ok(())
    }
}

/// One run of a server.
struct Server {
    endpoint: Endpoint,
    sessions: HashMap<AssociationId, Session>,
    /// Who has said hello, and what they said they hold.
    hellos: BTreeMap<String, (AssociationId, Option<Holds>)>,
    stored: usize,
    results: usize,
}

struct World {
    now: Instant,
    fleet: Fleet,
    config: Arc<Config>,
    server: Option<Server>,
    newest: Option<(Holds, Bytes)>,
    /// What the fleet's log would hold.
    kept: HashMap<u32, (Holds, Bytes)>,
}

fn key() -> Key {
    let identity = Identity::generate("metadata").unwrap();
    Key {
        certificate_der: identity.certificate_der().to_vec(),
        pkcs8: identity.pkcs8().to_vec().into(),
    }
}

fn fleet(now: Instant, server: &Identity, held: HashMap<u32, (Holds, Bytes)>) -> Fleet {
    let plan = Plan {
        name: "s-".into(),
        server: "server:1".into(),
        pins: PinSet::new(server.fingerprint()),
        boot_id: "boot".into(),
        rate: 100.0,
        keep_alive: Duration::from_secs(8),
        peer_timeout: Duration::from_secs(12),
        patience: Patience::default(),
        results: true,
        seed: 7,
    };
    Fleet::new(now, plan, (0..AGENTS).map(|_| key()).collect(), held).unwrap()
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let identity = Identity::generate("metadata").unwrap();
        let credentials =
            Credentials::from_der(identity.certificate_der().to_vec(), identity.pkcs8()).unwrap();
        let keys = Arc::new(TicketKeys::random().unwrap());
        let config = Config::new(credentials, Arc::new(Anybody))
            .with_ticket_keys(keys, Duration::from_secs(3_600));
        let fleet = fleet(now, &identity, HashMap::new());
        let config = Arc::new(config);
        Self { now, fleet, config, server: None, newest: None, kept: HashMap::new() }
    }

    fn start_server(&mut self) {
        let config = EndpointConfig { server: Some(self.config.clone()), ..Default::default() };
        self.server = Some(Server {
            endpoint: Endpoint::new(self.now, config).unwrap(),
            sessions: HashMap::new(),
            hellos: BTreeMap::new(),
            stored: 0,
            results: 0,
        });
    }

    /// Puts a document in force for all, and offers it to those who are there.
    fn push(&mut self, version: u64, body: &'static str) {
        let holds = Holds { version, sha256: Hex32::sha256_of(body.as_bytes()) };
        self.newest = Some((holds, Bytes::from_static(body.as_bytes())));
        let Some(server) = &mut self.server else { return };
        for (association, _) in server.hellos.values() {
            let body = Bytes::from_static(body.as_bytes());
            let document = Document { name: metadata_name(), version, body };
            server.sessions.get_mut(association).unwrap().offer(self.now, document).unwrap();
        }
    }

    /// Lets time pass and datagrams go to and fro until `done`, for 100 s at most.
    fn run_until(&mut self, done: impl Fn(&Self) -> bool) {
        let end = self.now + Duration::from_secs(100);
        while !done(self) {
            assert!(self.now < end, "{:?} {:?}", self.fleet.census(), self.fleet.tally);
            self.now += Duration::from_millis(1);
            self.step();
        }
    }

    fn step(&mut self) {
        let now = self.now;
        self.fleet.handle_timeout(now);
        while let Some((number, bytes, size)) = self.fleet.transmit() {
            let from = (SocketAddr::from(([10, 0, 0, 1], number as u16 + 1)), bytes.to_vec(), size);
            self.fleet.sent();
            if let Some(server) = &mut self.server {
                for datagram in from.1.chunks(from.2) {
                    let path = Path::from(from.0);
                    server.endpoint.handle_datagram(now, path, &mut datagram.to_vec());
                }
            }
        }
        while let Some(action) = self.fleet.poll_action() {
            if let Action::Keep { agent, holds, body } = action {
                self.kept.insert(agent, (holds, body));
                self.fleet.kept(now, 1, agent, holds);
            }
        }
        let Some(server) = &mut self.server else { return };
        server.work(now, self.newest.as_ref());
        while let Some((transmit, bytes)) = server.endpoint.outbox().front() {
            let size = transmit.segment_size.unwrap_or(bytes.len());
            let number = u32::from(transmit.destination.port()) - 1;
            self.fleet.handle_run(now, number, &mut bytes.to_vec(), size);
            server.endpoint.outbox().pop();
        }
    }

    fn in_sync(&self) -> bool {
        let all = Census { connected: AGENTS, in_sync: AGENTS, connecting: 0, results_owed: 0 };
        self.fleet.census() == all
    }
}

impl Server {
    fn work(&mut self, now: Instant, newest: Option<&(Holds, Bytes)>) {
        self.endpoint.handle_timeout(now);
        while let Some((association, event)) = self.endpoint.poll_event() {
            match event {
                Event::Established(_) => {
                    let limits = Limits::server();
                    let config = SessionConfig { limits, ..SessionConfig::default() };
                    self.sessions.insert(association, Session::new(now, config));
                }
                Event::Message { sequence, data, .. } => {
                    let session = self.sessions.get_mut(&association).unwrap();
                    session.handle_packet(now, sequence, &data).unwrap();
                }
                Event::Closed(_) => {
                    self.sessions.remove(&association);
                    self.hellos.retain(|_, (of, _)| *of != association);
                }
                _ => {}
            }
        }
        for (association, session) in &mut self.sessions {
            while let Some(event) = session.poll_event() {
                match event {
                    SessionEvent::Received(document) => {
                        session.stored(now, &document.name, document.version);
                        if document.name.as_str() != HELLO {
                            self.results += 1;
                            continue;
                        }
                        let Hello { agent_id, holds, .. } =
                            Hello::from_body(&document.body).unwrap();
                        let newest = newest.filter(|(newest, _)| Some(*newest) != holds);
                        let welcome = Welcome {
                            protocol: PROTOCOL,
                            software: "test".into(),
                            agent_id: agent_id.clone(),
                            keep_alive_s: 8,
                            newest: newest.map(|(newest, _)| *newest).or(holds),
                            return_within_ms: None,
                        };
                        session.offer(now, welcome.to_document(1).unwrap()).unwrap();
                        if let Some((newest, body)) = newest {
                            let (name, body) = (metadata_name(), body.clone());
                            let version = newest.version;
                            session.offer(now, Document { name, version, body }).unwrap();
                        }
                        self.hellos.insert(agent_id, (*association, holds));
                    }
                    SessionEvent::Stored { name, .. } => {
                        self.stored += usize::from(name == metadata_name());
                    }
                    _ => {}
                }
            }
            if session.next_timeout().is_some_and(|at| at <= now) {
                session.handle_timeout(now);
            }
            let mut packet = Vec::new();
            while let Some(number) = self.endpoint.next_sequence(*association)
                && session.poll_transmit(now, number, &mut packet)
            {
                self.endpoint.send(*association, &packet).unwrap();
            }
        }
    }
}

const FIRST: &str =
    r#"{"deployments":[{"id":"a","name":"n","group":"script","config":"true","inputs":[]}]}"#;

#[test]
fn agents_connect_take_documents_answer_them_and_come_back_by_ticket_after_a_restart() {
    let mut world = World::new();
    world.start_server();
    world.run_until(World::in_sync);
    let json = |world: &World| world.fleet.tally.json(world.now, 0, AGENTS, Census::default());
    assert_eq!(json(&world)["handshakes"]["full"]["count"], AGENTS);

    world.push(1, FIRST);
    world.run_until(|world| world.server.as_ref().unwrap().stored == AGENTS && world.in_sync());
    assert_eq!(world.server.as_ref().unwrap().results, AGENTS);
    assert_eq!(json(&world)["documents"][0]["durable"]["count"], AGENTS);

    // The server is gone without a word, and a document comes while it is.
    world.server = None;
    world.run_until(|world| world.fleet.census().connected == 0);
    world.push(2, r#"{"deployments":[]}"#);
    world.start_server();
    world.run_until(World::in_sync);
    let json = json(&world);
    assert_eq!(json["handshakes"]["resumed"]["count"], AGENTS, "{json}");
    assert_eq!(json["handshakes"]["full"]["count"], AGENTS, "{json}");
    assert!(world.kept.values().all(|(holds, _)| holds.version == 2));
    let held = world.server.as_ref().unwrap().hellos.values();
    assert!(held.map(|(_, holds)| holds.unwrap().version).all(|version| version == 1));
}

#[test]
fn agents_of_an_earlier_run_tell_what_they_hold() {
    let mut world = World::new();
    let holds = Holds { version: 3, sha256: Hex32::sha256_of(FIRST.as_bytes()) };
    let body = Bytes::from_static(FIRST.as_bytes());
    let held = (0..AGENTS as u32).map(|number| (number, (holds, body.clone()))).collect();
    let identity = Identity::generate("metadata").unwrap();
    let credentials =
        Credentials::from_der(identity.certificate_der().to_vec(), identity.pkcs8()).unwrap();
    world.config = Arc::new(Config::new(credentials, Arc::new(Anybody)));
    world.fleet = fleet(world.now, &identity, held);
    world.newest = Some((holds, body));
    world.start_server();
    world.run_until(World::in_sync);
    let hellos = &world.server.as_ref().unwrap().hellos;
    assert_eq!(hellos.len(), AGENTS);
    assert_eq!(hellos[&agent_id("s-", 7)].1, Some(holds));
    assert!(world.kept.is_empty(), "nothing was sent again");
}

#[test]
fn a_server_with_another_key_is_refused_and_tried_again_rarely() {
    let mut world = World::new();
    world.fleet = fleet(world.now, &Identity::generate("other").unwrap(), HashMap::new());
    world.start_server();
    let until = world.now + Duration::from_secs(5);
    world.run_until(|world| world.now >= until);
    let json = world.fleet.tally.json(world.now, 0, AGENTS, world.fleet.census());
    assert_eq!(json["connected"], 0);
    let count = json["failures"]["server_not_pinned"]["count"].as_u64().unwrap();
    assert!((AGENTS as u64..=2 * AGENTS as u64).contains(&count), "{json}");
}

#[test]
fn a_swarm_that_stops_says_goodbye_and_stays_away() {
    let mut world = World::new();
    world.start_server();
    world.run_until(World::in_sync);
    world.fleet.stop(world.now);
    world.run_until(|world| world.fleet.is_gone());
    let until = world.now + Duration::from_secs(3);
    world.run_until(|world| world.now >= until);
    assert_eq!(world.fleet.census(), Census::default());
    assert!(world.server.as_ref().unwrap().sessions.is_empty());
    let json = world.fleet.tally.json(world.now, 0, AGENTS, Census::default());
    assert_eq!(json["handshakes"]["full"]["count"], AGENTS);
}
