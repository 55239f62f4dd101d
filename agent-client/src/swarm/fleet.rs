//! All agents of a swarm, without sockets, files and clocks.
//!
//! One [`Endpoint`] has all their associations. To it every agent's server is at an address of its own, made
//! of the agent's number and attempt: what comes in by the agent's socket is from there, and what is to go
//! there leaves by that socket. The addresses are in no packet.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::{Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use certs::PinSet;
use dtls_channel::{
    AssociationId, CloseReason, Config, Endpoint, EndpointConfig, Established, Event, Path,
    Session as DtlsSession,
};
use metadata_delivery::message::{
    DeploymentResult, Hex32, Holds, METADATA, Message, WELCOME, Welcome, metadata_name,
};
use metadata_delivery::{
    Base, CloseCode, Document, Event as SessionEvent, KnownPath, Name, OfferError, Session,
};

use super::keys::Key;
use super::log::Held;
use super::report::Tally;
use super::results;
use crate::link::core::{Core, Due, Patience};
use crate::link::failure::Failure;
use crate::link::opening::{self, DATAGRAM_BYTES_MAX, Pinned};
use crate::status::LinkState;

/// Documents that agents hold and that are shared between those who hold the same.
const SHARED_DOCUMENTS_MAX: usize = 1024;

/// How a swarm behaves.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// What agents' ids begin with; their numbers follow.
    pub(super) name: String,
    /// The server, for messages.
    pub(super) server: String,
    /// What certificate it may show.
    pub(super) pins: PinSet,
    /// The kernel's boot id.
    pub(super) boot_id: String,
    /// Agents that begin per second.
    pub(super) rate: f64,
    /// As of real agents.
    pub(super) keep_alive: Duration,
    /// As of real agents.
    pub(super) peer_timeout: Duration,
    /// As of real agents.
    pub(super) patience: Patience,
    /// Whether deployments are answered.
    pub(super) results: bool,
    /// For jitter.
    pub(super) seed: u64,
}

/// The id of one agent.
pub(super) fn agent_id(name: &str, number: usize) -> String {
    format!("{name}{number:06}")
}

/// What the shell has to do.
#[derive(Debug)]
pub(super) enum Action {
    /// Make this durable, then call [`Fleet::kept`].
    Keep {
        /// Whose document.
        agent: u32,
        /// Which.
        holds: Holds,
        /// Its bytes.
        body: Bytes,
    },
    /// The agent's socket is done with.
    HangUp(u32),
}

/// All agents; after each call send what [`transmit`](Self::transmit) has, then do what
/// [`poll_action`](Self::poll_action) says.
pub(super) struct Fleet {
    plan: Plan,
    verifier: Arc<Pinned>,
    keys: Vec<Key>,
    endpoint: Endpoint,
    agents: Vec<Agent>,
    by_association: HashMap<AssociationId, u32>,
    timers: BTreeSet<(Instant, u32)>,
    /// Who may have something to say.
    awake: Vec<u32>,
    documents: HashMap<[u8; 32], Bytes>,
    answers: HashMap<(Option<Hex32>, Hex32), Rc<Vec<DeploymentResult>>>,
    actions: VecDeque<Action>,
    packet: Vec<u8>,
    stopping: bool,
    /// Counts and times.
    pub(super) tally: Tally,
}

struct Agent {
    link: Core,
    connection: Option<Connection>,
    config: Option<Arc<Config>>,
    ticket: Option<DtlsSession>,
    path: Option<KnownPath>,
    attempts: u16,
    holds: Option<Holds>,
    /// The document that `holds` names, or the one before it.
    body: Option<(Hex32, Bytes)>,
    /// A document that came and is not durable yet.
    came: Option<(u64, Bytes)>,
    /// The version that the server wants it to hold, as far as it knows.
    newest: u64,
    /// Results that the server does not have yet.
    owed: VecDeque<Document>,
    owed_due: bool,
    /// The entry in `Fleet::timers`.
    timer: Option<Instant>,
}

struct Connection {
    association: AssociationId,
    begun: Instant,
    session: Option<Box<Session>>,
}

/// How many agents are where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Census {
    /// Connected, as the server has said.
    pub(super) connected: usize,
    /// Connected, and holding what the server wants them to hold.
    pub(super) in_sync: usize,
    /// In a handshake, or before the welcome.
    pub(super) connecting: usize,
    /// Results that the server does not have yet.
    pub(super) results_owed: usize,
}

impl Fleet {
    /// Agents that hold these documents; the first connects at once, the others at the plan's rate.
    ///
    /// # Errors
    /// The system's random generator fails.
    pub(super) fn new(
        now: Instant,
        plan: Plan,
        keys: Vec<Key>,
        mut held: Held,
    ) -> anyhow::Result<Self> {
        let associations_max = keys.len().saturating_mul(2).max(16);
        let config = EndpointConfig { associations_max, ..EndpointConfig::default() };
        let mut fleet = Self {
            verifier: Arc::new(Pinned(plan.pins.clone())),
            endpoint: Endpoint::new(now, config).map_err(|e| anyhow::anyhow!("{e}"))?,
            agents: Vec::with_capacity(keys.len()),
            by_association: HashMap::new(),
            timers: BTreeSet::new(),
            awake: Vec::new(),
            documents: HashMap::new(),
            answers: HashMap::new(),
            actions: VecDeque::new(),
            packet: Vec::new(),
            stopping: false,
            tally: Tally::default(),
            keys,
            plan,
        };
        let numbers = 0..u32::try_from(fleet.keys.len()).unwrap_or(u32::MAX);
        for number in numbers {
            let begin = now + Duration::from_secs_f64(f64::from(number) / fleet.plan.rate);
            let seed = fleet.plan.seed ^ (u64::from(number) << 32);
            let held = held.remove(&number);
            let holds = held.as_ref().map(|(holds, _)| *holds);
            let body = held.map(|(holds, body)| (holds.sha256, fleet.shared(holds.sha256, body)));
            fleet.agents.push(Agent {
                link: Core::new(begin, 1, fleet.plan.patience, seed),
                connection: None,
                config: None,
                ticket: None,
                path: None,
                attempts: 0,
                holds,
                body,
                came: None,
                newest: 0,
                owed: VecDeque::new(),
                owed_due: false,
                timer: Some(begin),
            });
            fleet.timers.insert((begin, number));
        }
        Ok(fleet)
    }

    /// What to do next.
    pub(super) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let own = self.timers.first().map(|(at, _)| *at);
        [self.endpoint.next_timeout(), own].into_iter().flatten().min()
    }

    /// Datagrams of equal size (the last may be shorter) that an agent sends, and that size. They stay
    /// until [`sent`](Self::sent).
    pub(super) fn transmit(&mut self) -> Option<(u32, &[u8], usize)> {
        let (transmit, bytes) = self.endpoint.outbox().front()?;
        let size = transmit.segment_size.unwrap_or(bytes.len()).max(1);
        Some((number_of(transmit.destination), bytes, size))
    }

    /// What [`transmit`](Self::transmit) returned was sent, or cannot be.
    pub(super) fn sent(&mut self) {
        self.endpoint.outbox().pop();
    }

    /// Takes in what came by an agent's socket: datagrams of `size` bytes, of which the last may be shorter.
    pub(super) fn handle_run(&mut self, now: Instant, number: u32, run: &mut [u8], size: usize) {
        let Some(agent) = self.agents.get(number as usize) else { return };
        let path = Path::from(address(number, agent.attempts));
        for datagram in run.chunks_mut(size.max(1)) {
            self.endpoint.handle_datagram(now, path, datagram);
        }
        self.settle(now);
    }

    /// Does what time has made due.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.endpoint.handle_timeout(now);
        while let Some(&(at, number)) = self.timers.first() {
            if at > now {
                break;
            }
            self.timers.pop_first();
            let Some(agent) = self.agents.get_mut(number as usize) else { continue };
            agent.timer = None;
            match agent.link.handle_timeout(now) {
                Some(Due::Connect(_)) if !self.stopping => self.connect(now, number),
                Some(Due::GiveUp) => {
                    let failure =
                        Failure::unreachable(&self.plan.server, "it does not say welcome");
                    self.fail(now, number, &failure);
                }
                _ => {}
            }
            if let Some(session) = self.session(number)
                && session.next_timeout().is_some_and(|at| at <= now)
            {
                session.handle_timeout(now);
            }
            self.awake.push(number);
        }
        self.settle(now);
    }

    /// A document from [`Action::Keep`] is durable.
    pub(super) fn kept(&mut self, now: Instant, unix_ms: u64, number: u32, holds: Holds) {
        let Some(agent) = self.agents.get_mut(number as usize) else { return };
        agent.holds = Some(holds);
        let came = agent.came.take_if(|(version, _)| *version == holds.version);
        self.tally.kept(now, holds.sha256);
        if let Some((_, body)) = came {
            let body = (holds.sha256, self.shared(holds.sha256, body));
            if self.plan.results {
                self.answer(number, &body, holds.version, unix_ms);
            }
            if let Some(agent) = self.agents.get_mut(number as usize) {
                agent.body = Some(body);
            }
        }
        let Some(agent) = self.agents.get_mut(number as usize) else { return };
        let base = agent.base();
        if let Some(session) = agent.session() {
            if let Some(base) = base {
                session.hold(metadata_name(), base);
            }
            session.stored(now, &metadata_name(), holds.version);
        }
        self.awake.push(number);
        self.settle(now);
    }

    /// Lets all agents say goodbye; none connects again.
    pub(super) fn stop(&mut self, now: Instant) {
        self.stopping = true;
        for number in 0..self.agents.len() as u32 {
            match self.session(number) {
                Some(session) => session.close(now, CloseCode::Shutdown, "the swarm stops"),
                None => self.hang_up(now, number),
            }
            self.awake.push(number);
        }
        self.settle(now);
    }

    /// Whether nobody is connected any more.
    pub(super) fn is_gone(&self) -> bool {
        self.by_association.is_empty()
    }

    /// Ends what is left after [`stop`](Self::stop).
    pub(super) fn end(&mut self) {
        self.endpoint.close_all();
    }

    /// Where everybody is. Looks at each.
    pub(super) fn census(&self) -> Census {
        let mut census = Census::default();
        for agent in &self.agents {
            census.results_owed += agent.owed.len();
            match agent.link.state() {
                _ if agent.connection.is_none() => {}
                LinkState::Connected => {
                    census.connected += 1;
                    let held = agent.holds.map_or(0, |holds| holds.version);
                    census.in_sync += usize::from(agent.came.is_none() && held >= agent.newest);
                }
                LinkState::Connecting | LinkState::Greeting => census.connecting += 1,
                _ => {}
            }
        }
        census
    }

    /// Lets channels and sessions work until they have nothing more to say.
    fn settle(&mut self, now: Instant) {
        loop {
            while let Some((association, event)) = self.endpoint.poll_event() {
                self.on_event(now, association, event);
            }
            if self.awake.is_empty() {
                return;
            }
            for number in std::mem::take(&mut self.awake) {
                self.work(now, number);
            }
        }
    }

    fn on_event(&mut self, now: Instant, association: AssociationId, event: Event) {
        let Some(number) = self.by_association.get(&association).copied() else { return };
        // One after the other they are of one agent, mostly.
        if self.awake.last() != Some(&number) {
            self.awake.push(number);
        }
        match event {
            Event::Established(established) => self.established(now, number, &established),
            Event::Message { sequence, data, .. } => {
                let Some(session) = self.session(number) else { return };
                if let Err(error) = session.handle_packet(now, sequence, &data) {
                    session.close(now, error.close_code(), &error.to_string());
                    self.exchange(now, number);
                    let failure = Failure::broken(&self.plan.server, &error);
                    self.fail(now, number, &failure);
                }
            }
            Event::Closed(reason) => {
                if let Some(agent) = self.agents.get_mut(number as usize)
                    && agent.link.state() == LinkState::Connecting
                    && reason != CloseReason::TimedOut
                {
                    agent.ticket = None;
                }
                let failure = Failure::of_channel(&self.plan.server, &reason);
                self.fail(now, number, &failure);
            }
            _ => {}
        }
    }

    fn connect(&mut self, now: Instant, number: u32) {
        match self.begin(now, number) {
            Ok(association) => {
                self.by_association.insert(association, number);
                if let Some(agent) = self.agents.get_mut(number as usize) {
                    agent.connection = Some(Connection { association, begun: now, session: None });
                }
            }
            Err(error) => {
                let failure = Failure::unreachable(&self.plan.server, error);
                self.fail(now, number, &failure);
            }
        }
    }

    fn begin(&mut self, now: Instant, number: u32) -> anyhow::Result<AssociationId> {
        let index = number as usize;
        let (Some(agent), Some(key)) = (self.agents.get_mut(index), self.keys.get(index)) else {
            anyhow::bail!("there is no agent {number}");
        };
        let config = match &agent.config {
            Some(config) => Arc::clone(config),
            None => {
                let verifier = Arc::clone(&self.verifier);
                let config = opening::channel(key.certificate_der.clone(), &key.pkcs8, verifier)?;
                Arc::clone(agent.config.insert(Arc::new(config)))
            }
        };
        agent.attempts = agent.attempts.checked_add(1).unwrap_or(1);
        let server = address(number, agent.attempts);
        Ok(match agent.ticket.clone() {
            Some(ticket) => self.endpoint.resume(now, server, config, ticket)?,
            None => self.endpoint.connect(now, server, config)?,
        })
    }

    fn established(&mut self, now: Instant, number: u32, established: &Established) {
        let Some(agent) = self.agents.get_mut(number as usize) else { return };
        let base = agent.base();
        let Some(connection) = &mut agent.connection else { return };
        self.tally.handshake(now - connection.begun, established.resumed);
        if let Some(ticket) = &established.session {
            agent.ticket = Some(ticket.clone());
        }
        agent.link.established(now);
        agent.owed_due = true;
        let sizes = (
            self.endpoint.message_size_max(connection.association),
            self.endpoint.message_size_for(connection.association, DATAGRAM_BYTES_MAX),
        );
        let (keep_alive, peer_timeout) = (self.plan.keep_alive, self.plan.peer_timeout);
        let mut session =
            opening::session(now, sizes, established, keep_alive, peer_timeout, false);
        if let Some(base) = base {
            session.hold(metadata_name(), base);
        }
        if let Some(path) = agent.path.take() {
            session.begin_on(now, &path, established.round_trip);
        }
        let id = agent_id(&self.plan.name, number as usize);
        let boot_id = self.plan.boot_id.clone();
        let hello = opening::hello(id, boot_id, agent.holds, None, established);
        let offered = hello.to_document(1).map_err(|e| e.to_string());
        let offered =
            offered.and_then(|hello| session.offer(now, hello).map_err(|e| e.to_string()));
        connection.session = Some(Box::new(session));
        if let Err(error) = offered {
            let failure = Failure::unreachable(&self.plan.server, error);
            self.fail(now, number, &failure);
        }
    }

    /// Lets one agent's session say what it has to say.
    fn work(&mut self, now: Instant, number: u32) {
        while let Some(event) = self.session(number).and_then(Session::poll_event) {
            self.on_session_event(now, number, event);
        }
        self.pay(now, number);
        self.exchange(now, number);
        let Some(agent) = self.agents.get_mut(number as usize) else { return };
        if self.stopping && agent.session().is_some_and(|session| session.is_closed()) {
            return self.hang_up(now, number);
        }
        let session = agent.session().and_then(|session| session.next_timeout());
        let link = agent.link.next_timeout().filter(|_| !self.stopping);
        let next = [session, link].into_iter().flatten().min();
        if next != agent.timer {
            if let Some(at) = agent.timer {
                self.timers.remove(&(at, number));
            }
            agent.timer = next;
            if let Some(at) = next {
                self.timers.insert((at, number));
            }
        }
    }

    fn on_session_event(&mut self, now: Instant, number: u32, event: SessionEvent) {
        let Some(agent) = self.agents.get_mut(number as usize) else { return };
        match event {
            SessionEvent::Received(document) => match document.name.as_str() {
                WELCOME => self.welcome(now, number, &document),
                METADATA => {
                    let Document { version, body, .. } = document;
                    let holds = Holds { version, sha256: self.tally.came(now, &body) };
                    agent.newest = agent.newest.max(version);
                    agent.came = Some((version, body.clone()));
                    self.actions.push_back(Action::Keep { agent: number, holds, body });
                }
                // The limits of an agent's session admit no other name.
                _ => {}
            },
            SessionEvent::Stored { name, version } => {
                self.tally.results_stored += u64::from(agent.settled(&name, version));
            }
            SessionEvent::Refused { name, version, .. } => {
                self.tally.results_refused += u64::from(agent.settled(&name, version));
            }
            SessionEvent::PeerClosed { code, reason } => {
                let id = agent_id(&self.plan.name, number as usize);
                let failure = Failure::of_close(&self.plan.server, &id, code, &reason);
                self.fail(now, number, &failure);
            }
            SessionEvent::PeerLost => {
                let failure = Failure::lost(&self.plan.server);
                self.fail(now, number, &failure);
            }
        }
    }

    fn welcome(&mut self, now: Instant, number: u32, document: &Document) {
        let welcome = match Welcome::from_body(&document.body) {
            Ok(welcome) if welcome.agent_id == agent_id(&self.plan.name, number as usize) => {
                welcome
            }
            Ok(welcome) => {
                let what = format!("it takes us for agent {}", welcome.agent_id);
                let failure = Failure::broken(&self.plan.server, what);
                return self.fail(now, number, &failure);
            }
            Err(error) => {
                let failure = Failure::broken(&self.plan.server, &error);
                return self.fail(now, number, &failure);
            }
        };
        let Some(agent) = self.agents.get_mut(number as usize) else { return };
        agent.newest = welcome.newest.map_or(0, |newest| newest.version);
        agent.link.welcomed(welcome.return_within_ms);
        if let Some(connection) = &mut agent.connection
            && let Some(session) = &mut connection.session
        {
            self.tally.welcomed(now - connection.begun);
            session.stored(now, &document.name, document.version);
        }
    }

    /// Prepares the results of what is new in a document, beside the one that the agent has held.
    fn answer(&mut self, number: u32, new: &(Hex32, Bytes), version: u64, unix_ms: u64) {
        if self.answers.len() >= SHARED_DOCUMENTS_MAX {
            self.answers.clear();
        }
        let Some(agent) = self.agents.get_mut(number as usize) else { return };
        let before = agent.body.as_ref();
        let answers = self
            .answers
            .entry((before.map(|(sha256, _)| *sha256), new.0))
            .or_insert_with(|| Rc::new(results::of(before.map(|(_, body)| &body[..]), &new.1)));
        for answer in answers.iter() {
            let mut result = answer.clone();
            result.document_version = version;
            result.started_unix_ms = unix_ms;
            result.finished_unix_ms = unix_ms;
            if let Ok(document) = result.to_document(result.run()) {
                agent.owed.push_back(document);
            }
        }
        agent.owed_due = true;
    }

    /// Offers the results that wait, as far as the session's limits admit them.
    fn pay(&mut self, now: Instant, number: u32) {
        let Some(agent) = self.agents.get_mut(number as usize) else { return };
        if !agent.owed_due || agent.link.state() != LinkState::Connected {
            return;
        }
        agent.owed_due = false;
        let Some(connection) = &mut agent.connection else { return };
        let Some(session) = &mut connection.session else { return };
        for document in &agent.owed {
            // Nothing else is wrong with a result of ours that another try could mend.
            if let Err(OfferError::TooMany { .. } | OfferError::NoBytesLeft { .. }) =
                session.offer(now, document.clone())
            {
                break;
            }
        }
    }

    /// Moves packets from an agent's session to the channel.
    fn exchange(&mut self, now: Instant, number: u32) {
        let Some(agent) = self.agents.get_mut(number as usize) else { return };
        let Some(connection) = &mut agent.connection else { return };
        let Some(session) = &mut connection.session else { return };
        while self.endpoint.has_room()
            && let Some(sequence) = self.endpoint.next_sequence(connection.association)
            && session.poll_transmit(now, sequence, &mut self.packet)
        {
            let fits = session.payload_max();
            let sent = self.endpoint.send_on_path(connection.association, &self.packet, fits);
            if sent.is_err() {
                break;
            }
        }
    }

    fn fail(&mut self, now: Instant, number: u32, failure: &Failure) {
        if self.stopping {
            return self.hang_up(now, number);
        }
        self.tally.failed(failure);
        self.hang_up(now, number);
        if let Some(agent) = self.agents.get_mut(number as usize) {
            agent.link.failed(now, failure);
        }
    }

    fn hang_up(&mut self, now: Instant, number: u32) {
        let Some(agent) = self.agents.get_mut(number as usize) else { return };
        let Some(connection) = agent.connection.take() else { return };
        if let Some(session) = &connection.session {
            agent.path = session.known_path(now);
        }
        self.by_association.remove(&connection.association);
        self.endpoint.close(connection.association);
        self.actions.push_back(Action::HangUp(number));
        self.awake.push(number);
    }

    /// The one copy of a document that several agents hold.
    fn shared(&mut self, sha256: Hex32, body: Bytes) -> Bytes {
        if self.documents.len() >= SHARED_DOCUMENTS_MAX {
            self.documents.clear();
        }
        // A copy, as what came may be a part of something larger.
        let copy = || Bytes::copy_from_slice(&body);
        self.documents.entry(sha256.0).or_insert_with(copy).clone()
    }

    fn session(&mut self, number: u32) -> Option<&mut Session> {
        self.agents.get_mut(number as usize)?.session()
    }
}

impl Agent {
    /// What deltas to it may build on.
    fn base(&self) -> Option<Base> {
        let (sha256, body) = self.body.as_ref()?;
        Some(Base::with_digest(body.clone(), *sha256))
    }

    /// The server is done with a document of ours; true if that was a result.
    fn settled(&mut self, name: &Name, version: u64) -> bool {
        let before = self.owed.len();
        self.owed.retain(|owed| (&owed.name, owed.version) != (name, version));
        self.owed_due = true;
        self.owed.len() < before
    }

    fn session(&mut self) -> Option<&mut Session> {
        self.connection.as_mut()?.session.as_deref_mut()
    }
}

/// Where an agent's server is, to the endpoint.
fn address(number: u32, attempt: u16) -> SocketAddr {
    let [high, low] = [(number >> 16) as u16, number as u16];
    (Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, high, low), attempt.max(1)).into()
}

/// Whose server is there.
fn number_of(address: SocketAddr) -> u32 {
    match address {
        SocketAddr::V6(address) => {
            let segments = address.ip().segments();
            u32::from(segments[6]) << 16 | u32::from(segments[7])
        }
        SocketAddr::V4(_) => u32::MAX,
    }
}
