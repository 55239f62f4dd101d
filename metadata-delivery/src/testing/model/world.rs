//! The clock, the path between both ends, handshakes, and what disturbs them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use dtls_channel::Ecn as LinkEcn;
use dtls_channel::testing::{Link, LinkConfig, Rng};

use super::agent::Agent;
use super::server::Server;
use super::{Covered, Ledger, path};
use crate::message::{METADATA, PROGRESS, WELCOME};
use crate::testing::start;
use crate::{Document, Ecn, Event, Limits, Name, Session, SessionConfig};

const AGENT: usize = 0;
const SERVER: usize = 1;

/// In front of each packet: association, generation of the agent's address, packet number.
const HEAD_BYTES: usize = 24;

/// A peer is lost after this long without an answer.
const PEER_TIMEOUT: Duration = Duration::from_secs(30);
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// The first resend of a handshake's flight.
const HANDSHAKE_RESEND: Duration = Duration::from_millis(400);

/// How long a disturbance waits for a session, if it does.
const CONNECTED_MAX: Duration = Duration::from_secs(20);

/// Steps of a run at most: sessions that are done have nothing to do.
const STEPS_MAX: u64 = 2_000_000;

/// A session, and the association that it runs over.
#[derive(Debug)]
pub(super) struct Open {
    association: u64,
    pub(super) session: Session,
    next_number: u64,
    /// Newest version received, by name.
    received: BTreeMap<Name, u64>,
    payload_max: usize,
    inbound_bytes_max: usize,
    closing: bool,
}

impl Open {
    /// Whether goodbye was said.
    pub(super) fn is_closing(&self) -> bool {
        self.closing
    }
}

/// A handshake under way.
#[derive(Debug, Clone, Copy)]
struct Handshake {
    server_at: Instant,
    agent_at: Instant,
    /// The server has its session.
    association: Option<u64>,
}

#[derive(Debug)]
pub(super) struct World {
    now: Instant,
    rng: Rng,
    paths: [LinkConfig; 2],
    links: [Link; 2],
    agent: Agent,
    server: Server,
    /// The agent tries to connect from here on; the server is back by then.
    connect_at: Instant,
    server_up_at: Instant,
    handshake: Option<Handshake>,
    associations: u64,
    /// How often the agent's address has changed, and the change that the server has last heard from.
    address: u64,
    address_known: u64,
    /// The last address change that came with another path.
    address_of_path: u64,
    ledger: Ledger,
    covered: Covered,
    outbound_documents_max: usize,
    steps: u64,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let paths = path::random(&mut rng);
        let links = [0, 1].map(|way| Link::new(rng.next_u64(), paths[way].clone()));
        let now = start();
        Self {
            now,
            outbound_documents_max: [4, 1_024][rng.below(2) as usize],
            rng,
            paths,
            links,
            agent: Agent::default(),
            server: Server::default(),
            connect_at: now,
            server_up_at: now,
            handshake: None,
            associations: 0,
            address: 0,
            address_known: 0,
            address_of_path: 0,
            ledger: Ledger::default(),
            covered: Covered::default(),
            steps: 0,
        }
    }

    pub(super) fn covered(&mut self) -> Covered {
        self.count_session(AGENT);
        self.count_session(SERVER);
        let lost = self.links.iter().map(Link::stats);
        self.covered.lost += lost.map(|stats| stats.lost + stats.overflowed).sum::<u64>();
        self.covered.milliseconds = (self.now - start()).as_millis() as u64;
        self.covered
    }

    /// Things happen, a few dozen of them.
    pub(super) fn disturb(&mut self) {
        for _ in 0..10 + self.rng.below(30) {
            self.act();
            let pause = [0, 5, 100, 1_000, 5_000][self.rng.below(5) as usize];
            let until = self.now + Duration::from_millis(self.rng.below(pause + 1));
            while self.step(until) {}
            self.now = self.now.max(until);
            // Most of the time there is a session to disturb.
            if self.rng.chance(0.6) {
                let until = self.now + CONNECTED_MAX;
                while !self.is_greeted() && self.step(until) {}
            }
        }
    }

    fn is_greeted(&self) -> bool {
        self.agent.is_greeted() && self.server.open.is_some()
    }

    fn act(&mut self) {
        let now = self.now;
        match self.rng.below(100) {
            0..37 => self.push(),
            37..42 => (0..2 + self.rng.below(9)).for_each(|_| self.push()),
            42..56 => {
                let length = [0, 10, 500, 5_000, 100_000][self.rng.below(5) as usize];
                self.agent.result(now, &mut self.rng, &mut self.ledger, length);
                self.covered.results += 1;
            }
            56..69 => {
                let length = [100, 1_000, 16_000][self.rng.below(3) as usize];
                self.agent.report(now, &mut self.rng, &mut self.ledger, length);
            }
            69..74 => self.restart_agent(),
            74..78 => self.restart_server(),
            78 => {
                self.restart_agent();
                self.restart_server();
            }
            79..83 => self.move_agent(false),
            83..88 => self.move_agent(true),
            88..92 => {
                self.covered.outages += 1;
                self.set_path(&path::dead(&self.paths.clone()));
                let length = [50, 1_000, 8_000, 60_000][self.rng.below(4) as usize];
                let until = now + Duration::from_millis(self.rng.below(length));
                while self.step(until) {}
                self.now = until;
                self.set_path(&self.paths.clone());
            }
            92..95 => {
                self.paths = path::random(&mut self.rng);
                self.set_path(&self.paths.clone());
            }
            95 | 96 => {
                self.server.hang_up(now);
                self.server.open.iter_mut().for_each(|open| open.closing = true);
            }
            97 | 98 => self.server.spoil_base(),
            _ => {
                if let Some(open) = &mut self.agent.open {
                    open.session.withdraw(now, &crate::testing::name("never/offered"));
                }
            }
        }
        self.settle();
    }

    /// The path behaves from here on; by `limit` all has to be where it belongs.
    pub(super) fn calm_down(&mut self, limit: Duration) {
        self.set_path(&path::calm(&self.paths.clone()));
        self.settle();
        let until = self.now + limit;
        while !self.is_done() {
            assert!(
                self.step(until),
                "not done after {limit:?}: the newest is v{:?}, v{} is settled, the agent holds v{:?} and {:?}, {:#?}",
                self.server.newest.as_ref().map(|(version, _)| *version),
                self.server.settled,
                self.agent.holds.as_ref().map(|(version, _)| *version),
                self.agent.outbox.keys(),
                [&self.agent.open, &self.server.open]
                    .map(|open| open.as_ref().map(|open| open.session.stats())),
            );
        }
        for ((name, version), body) in &self.ledger.0 {
            match name.as_str() {
                METADATA | PROGRESS => {}
                name if name.starts_with("result/") || name.starts_with("signal/") => {
                    let written = self.server.results.iter().find(|(n, _)| n.as_str() == name);
                    assert!(
                        written.is_some_and(|(_, v)| v >= version),
                        "{name} v{version} is lost"
                    );
                }
                name => assert!(name == "hello", "{name} of {} bytes", body.len()),
            }
        }
        let holds = self.agent.holds.as_ref();
        let refused = |body: &bytes::Bytes| body.first() == Some(&super::agent::REFUSED);
        if let Some((version, body)) = self.server.newest.as_ref().filter(|(_, b)| !refused(b)) {
            assert!(holds == Some(&(*version, body.clone())), "the agent holds something else");
        }
    }

    fn is_done(&self) -> bool {
        self.agent.open.is_some() && self.agent.is_done() && self.server.is_done()
    }

    fn push(&mut self) {
        self.server.push(self.now, &mut self.rng, &mut self.ledger, &mut self.covered);
    }

    fn set_path(&mut self, paths: &[LinkConfig; 2]) {
        for (link, config) in self.links.iter_mut().zip(paths) {
            link.reconfigure(config.clone());
        }
    }

    fn restart_agent(&mut self) {
        self.count_session(AGENT);
        self.covered.restarts += 1;
        self.agent.restart();
        self.handshake = None;
        self.connect_at = self.now + self.a_while();
    }

    fn restart_server(&mut self) {
        self.count_session(SERVER);
        self.covered.restarts += 1;
        self.server.restart();
        self.handshake = None;
        self.server_up_at = self.now + self.a_while();
        if self.rng.chance(0.5) {
            // A hint that the association is unknown gets through; otherwise silence tells the agent.
            self.disconnect_agent();
            self.connect_at = self.server_up_at + self.a_while();
        }
    }

    fn a_while(&mut self) -> Duration {
        Duration::from_millis(self.rng.below([10, 100, 3_000][self.rng.clone().below(3) as usize]))
    }

    /// Another port, or another address with a path of its own. What is on its way to the old one is lost.
    fn move_agent(&mut self, to_other_path: bool) {
        self.covered.moves += 1;
        self.address += 1;
        self.links[SERVER].clear();
        if to_other_path {
            self.address_of_path = self.address;
            self.paths = path::random(&mut self.rng);
            self.set_path(&self.paths.clone());
            // Not every program hears of it.
            if let Some(open) = self.agent.open.as_mut().filter(|_| self.rng.chance(0.5)) {
                open.session.path_changed(self.now);
            }
        }
    }

    fn disconnect_agent(&mut self) {
        self.count_session(AGENT);
        let known = self.agent.open.take().and_then(|open| open.session.known_path(self.now));
        self.agent.known_path = known;
    }

    /// Goes on to the next thing that happens. False: that is after `until`.
    fn step(&mut self, until: Instant) -> bool {
        self.steps += 1;
        assert!(self.steps < STEPS_MAX, "no end of it");
        let sessions = [&self.agent.open, &self.server.open];
        let timers = sessions.into_iter().flatten().filter_map(|open| open.session.next_timeout());
        let arrivals = self.links.iter().filter_map(Link::next_due);
        let writes = [self.agent.next_due(), self.server.next_due(), self.handshake_due()];
        let next = timers.chain(arrivals).chain(writes.into_iter().flatten()).min();
        let Some(next) = next.filter(|next| *next <= until) else { return false };
        self.now = self.now.max(next);
        self.shake_hands();
        self.deliver();
        for open in [&mut self.agent.open, &mut self.server.open].into_iter().flatten() {
            open.session.handle_timeout(self.now);
        }
        self.agent.write(self.now, &mut self.rng, &mut self.ledger, &mut self.covered);
        self.server.write(self.now, &mut self.covered);
        self.settle();
        true
    }

    fn handshake_due(&self) -> Option<Instant> {
        match &self.handshake {
            Some(Handshake { server_at, association: None, .. }) => Some(*server_at),
            Some(Handshake { agent_at, .. }) => Some(*agent_at),
            None => self.agent.open.is_none().then_some(self.connect_at.max(self.server_up_at)),
        }
    }

    /// Handshakes take their round trips, and resends where a flight is lost. The server is there first.
    fn shake_hands(&mut self) {
        if self.handshake_due().is_none_or(|at| at > self.now) {
            return;
        }
        let Some(handshake) = &mut self.handshake else {
            let delay = self.paths[AGENT].delay;
            let loss = self.paths.iter().map(|path| path.loss).fold(0.0, f64::max);
            let mut takes = delay * 5;
            let mut resend = HANDSHAKE_RESEND;
            for _ in 0..5 {
                while resend < Duration::from_secs(5) && self.rng.chance(loss) {
                    takes += resend;
                    resend *= 2;
                }
            }
            let server_at = self.now + takes;
            let agent_at = server_at + delay;
            self.handshake = Some(Handshake { server_at, agent_at, association: None });
            return;
        };
        if handshake.association.is_none() {
            self.associations += 1;
            handshake.association = Some(self.associations);
            (self.address_known, self.links[SERVER]) =
                (self.address, Link::new(self.rng.next_u64(), self.paths[SERVER].clone()));
            self.count_session(SERVER);
            if let Some(open) = self.server.open.take() {
                self.server.known_path = open.session.known_path(self.now);
            }
            let open = self.open(SERVER, self.associations);
            self.server.connected(open);
        } else {
            self.handshake = None;
            let open = self.open(AGENT, self.associations);
            self.agent.connected(self.now, open, &mut self.ledger);
            self.covered.sessions += 1;
        }
    }

    fn open(&mut self, end: usize, association: u64) -> Open {
        let payload_max = [768, 1_150, 1_163][self.rng.below(3) as usize];
        let round_trip = 2 * self.paths[AGENT].delay;
        let limits = if end == AGENT {
            Limits { outbound_documents_max: self.outbound_documents_max, ..Limits::agent() }
        } else {
            Limits {
                outbound_bytes_max: Limits::server().outbound_bytes_max,
                outbound_documents_max: Limits::server().outbound_documents_max,
                ..Limits::stranger()
            }
        };
        let config = SessionConfig {
            payload_max,
            payload_search_max: self.rng.chance(0.7).then_some(1_435),
            keep_alive: (end == AGENT).then_some(KEEP_ALIVE),
            peer_timeout: PEER_TIMEOUT,
            initial_rtt: if self.rng.chance(0.5) { round_trip } else { Duration::from_millis(333) },
            lag_max: Duration::ZERO,
            ecn: true,
            limits,
        };
        let mut session = Session::new(self.now, config);
        let known =
            if end == AGENT { &mut self.agent.known_path } else { &mut self.server.known_path };
        if let Some(known) = known.take() {
            session.begin_on(self.now, &known, Some(round_trip));
        }
        // What the server takes from an agent that it knows.
        let inbound_bytes_max = if end == AGENT {
            limits.inbound_bytes_max
        } else {
            Limits::server().inbound_bytes_max
        };
        Open {
            association,
            session,
            next_number: 1,
            received: BTreeMap::new(),
            payload_max: payload_max.max(1_435),
            inbound_bytes_max,
            closing: false,
        }
    }

    /// Brings what has arrived to those who can read it.
    fn deliver(&mut self) {
        for end in [AGENT, SERVER] {
            while let Some((ecn, datagram)) = self.links[1 - end].pop_marked(self.now) {
                let field = |n: usize| {
                    let bytes = datagram[8 * n..8 * n + 8].try_into().expect("8 bytes");
                    u64::from_be_bytes(bytes)
                };
                let (association, address, number) = (field(0), field(1), field(2));
                if end == SERVER && self.server_up_at > self.now
                    || end == AGENT && address != self.address
                {
                    continue;
                }
                let open = if end == AGENT { &mut self.agent.open } else { &mut self.server.open };
                let Some(open) = open.as_mut().filter(|open| open.association == association)
                else {
                    continue;
                };
                if end == SERVER && address > self.address_known {
                    if self.address_of_path > self.address_known {
                        open.session.path_changed(self.now);
                    }
                    self.address_known = address;
                }
                let (ecn, packet) = (Ecn::from_bits(ecn.bits()), &datagram[HEAD_BYTES..]);
                let taken = open.session.handle_marked_packet(self.now, number, ecn, packet);
                assert!(taken.is_ok(), "an honest peer breaks a rule: {taken:?}");
                let stats = open.session.stats();
                // Repair symbols come on top.
                assert!(stats.inbound_bytes <= 2 * open.inbound_bytes_max, "{stats:?}");
            }
        }
    }

    /// Lets both ends send what they have, and take their events.
    fn settle(&mut self) {
        for end in [AGENT, SERVER] {
            self.take_events(end);
            self.transmit(end);
            self.take_events(end);
            self.transmit(end);
        }
    }

    fn transmit(&mut self, end: usize) {
        let open = if end == AGENT { &mut self.agent.open } else { &mut self.server.open };
        let Some(open) = open else { return };
        let address = if end == AGENT { self.address } else { self.address_known };
        let mut packet = Vec::new();
        while open.session.poll_transmit(self.now, open.next_number, &mut packet) {
            assert!(!packet.is_empty() && packet.len() <= open.payload_max);
            if self.rng.chance(0.003) {
                // The channel has failed to send it: the number is still free, or it is not.
                open.next_number += self.rng.below(2);
                continue;
            }
            let mut datagram = Vec::with_capacity(HEAD_BYTES + packet.len());
            for field in [open.association, address, open.next_number] {
                datagram.extend_from_slice(&field.to_be_bytes());
            }
            datagram.extend_from_slice(&packet);
            let ecn = LinkEcn::from_bits(open.session.packet_ecn().bits());
            self.links[end].push_marked(self.now, ecn, datagram);
            // Now and then the channel uses a number for itself.
            open.next_number += 1 + u64::from(self.rng.chance(0.02));
        }
    }

    fn take_events(&mut self, end: usize) {
        loop {
            let open = if end == AGENT { &mut self.agent.open } else { &mut self.server.open };
            let Some(open) = open else { return };
            let Some(event) = open.session.poll_event() else { break };
            if let Event::Received(document) = &event {
                let Document { name, version, .. } = document;
                let before = open.received.insert(name.clone(), *version);
                assert!(before < Some(*version), "{name} v{version} after {before:?}");
                if name.as_str() != WELCOME {
                    self.ledger.check(document);
                }
            }
            if matches!(event, Event::PeerLost | Event::PeerClosed { .. }) {
                // What acknowledges a goodbye.
                self.transmit(end);
                self.count_session(end);
            }
            let (rng, covered) = (&mut self.rng, &mut self.covered);
            if end == AGENT {
                self.agent.on_event(self.now, event, rng, covered);
                if self.agent.open.is_none() {
                    self.connect_at = self.now + self.a_while();
                }
            } else {
                let (agent, ledger) = (&self.agent, &self.ledger);
                self.server.on_event(self.now, event, agent, ledger, rng, covered);
            }
        }
        // Goodbye was said, and heard or not.
        let open = if end == AGENT { &self.agent.open } else { &self.server.open };
        if open.as_ref().is_some_and(|open| open.session.is_closed()) {
            self.count_session(end);
            match end {
                AGENT => self.disconnect_agent(),
                _ => self.server.open = None,
            }
        }
    }

    /// Adds what a session that ends has counted.
    fn count_session(&mut self, end: usize) {
        let open = if end == AGENT { &self.agent.open } else { &self.server.open };
        if let Some(open) = open {
            let stats = open.session.stats();
            self.covered.superseded += stats.transfers_cancelled;
            self.covered.unread += stats.forms_unread;
            self.covered.repaired += stats.documents_repaired;
        }
    }
}
