use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dtls_channel::Ecn as LinkEcn;
use dtls_channel::testing::{Link, LinkConfig, Rng};

use super::start;
use crate::wire::{self, Frame};
use crate::{Document, Ecn, Event, Form, Name, Session, SessionConfig};

/// Which end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// The one that runs in an instance.
    Agent = 0,
    /// The one that pushes.
    Server = 1,
}

impl End {
    /// The other end.
    pub fn peer(self) -> Self {
        match self {
            Self::Agent => Self::Server,
            Self::Server => Self::Agent,
        }
    }
}

/// What an application does with a document it receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Habit {
    /// Confirms it at once.
    Store,
    /// Refuses it at once, with code 0x100.
    Refuse,
    /// Nothing: the test decides.
    Wait,
}

/// One end of a [`Pair`].
#[derive(Debug)]
pub struct Side {
    /// The session itself.
    pub session: Session,
    config: SessionConfig,
    next_number: u64,
    /// What its application does.
    pub habit: Habit,
    /// Every event of the session so far.
    pub events: Vec<Event>,
    /// Version, per name, of everything received in this session.
    received: BTreeMap<Name, u64>,
    /// Versions of our own documents that the peer has stored in this session.
    pub stored: BTreeMap<Name, u64>,
}

/// Two sessions on a virtual clock, joined by a lossy link each way.
///
/// Everything that comes out is checked on the spot: nothing twice, nothing stale, nothing that
/// was not offered, not a byte changed. A run is decided by its seed; a failure prints it.
#[derive(Debug)]
pub struct Pair {
    /// Virtual time.
    pub now: Instant,
    started: Instant,
    /// The ends: agent, server.
    pub sides: [Side; 2],
    /// From the agent, from the server.
    pub links: [Link; 2],
    /// Every document ever offered, by who offered it.
    offered: BTreeMap<(End, Name, u64), Bytes>,
    rng: Rng,
    seed: u64,
    /// Packets sent, by end.
    pub packets: [u64; 2],
    /// Those of them with a part of a document, or a repair symbol for one.
    pub data_packets: [u64; 2],
}

/// One direction with this loss, and reordering and duplicates besides.
#[must_use]
pub fn lossy(loss: f64) -> LinkConfig {
    LinkConfig {
        delay: Duration::from_millis(25),
        jitter: Duration::from_millis(2),
        loss,
        duplicate: 0.05,
        reorder: 0.05,
        ..LinkConfig::default()
    }
}

/// 20 Mbit/s with a queue of one bandwidth-delay product.
#[must_use]
pub fn bottleneck(loss: f64) -> LinkConfig {
    LinkConfig {
        delay: Duration::from_millis(25),
        loss,
        rate_bytes_per_s: Some(2_500_000),
        queue_bytes: 125_000,
        ..LinkConfig::default()
    }
}

/// A name that is known to be valid.
///
/// # Panics
/// When it is not.
#[must_use]
pub fn name(text: &str) -> Name {
    Name::new(text).expect("a valid name")
}

/// Bytes that do not repeat and differ by seed.
#[must_use]
pub fn body(seed: u64, length: usize) -> Bytes {
    let mut rng = Rng::new(seed ^ 0x5eed);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&rng.next_u64().to_be_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

/// A document of `length` bytes that follow from its version.
///
/// # Panics
/// When the name is not valid.
#[must_use]
pub fn document(text: &str, version: u64, length: usize) -> Document {
    let seed = version.wrapping_mul(31).wrapping_add(length as u64);
    Document { name: name(text), version, body: body(seed, length) }
}

impl Side {
    fn new(now: Instant, config: SessionConfig) -> Self {
        Self {
            session: Session::new(now, config.clone()),
            config,
            // A channel's own records take numbers too.
            next_number: 1,
            habit: Habit::Store,
            events: Vec::new(),
            received: BTreeMap::new(),
            stored: BTreeMap::new(),
        }
    }
}

impl Pair {
    /// Two sessions of default configuration.
    #[must_use]
    pub fn new(seed: u64, link: LinkConfig) -> Self {
        Self::with(seed, link, [SessionConfig::default(), SessionConfig::default()])
    }

    /// Two sessions with the configurations of agent and server.
    #[must_use]
    pub fn with(seed: u64, link: LinkConfig, configs: [SessionConfig; 2]) -> Self {
        let now = start();
        Self {
            now,
            started: now,
            sides: configs.map(|config| Side::new(now, config)),
            links: [Link::new(seed, link.clone()), Link::new(seed ^ 0xffff, link)],
            offered: BTreeMap::new(),
            rng: Rng::new(seed),
            seed,
            packets: [0, 0],
            data_packets: [0, 0],
        }
    }

    /// One end.
    pub fn side(&mut self, end: End) -> &mut Side {
        &mut self.sides[end as usize]
    }

    /// Virtual time since the begin.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.now - self.started
    }

    /// Has one end offer a document.
    ///
    /// # Panics
    /// When the session does not take it.
    pub fn offer(&mut self, end: End, document: Document) {
        let key = (end, document.name.clone(), document.version);
        self.offered.insert(key, document.body.clone());
        let now = self.now;
        self.side(end).session.offer(now, document).expect("the offer is taken");
    }

    /// Has one end offer a document that is to keep no other waiting.
    ///
    /// # Panics
    /// When the session does not take it.
    pub fn offer_background(&mut self, end: End, document: Document) {
        let key = (end, document.name.clone(), document.version);
        self.offered.insert(key, document.body.clone());
        let now = self.now;
        self.side(end).session.offer_background(now, document).expect("the offer is taken");
    }

    /// Has one end offer a document in another form.
    ///
    /// # Panics
    /// When the session does not take it.
    pub fn offer_form(&mut self, end: End, document_name: &Name, version: u64, form: Form) {
        self.offered.insert((end, document_name.clone(), version), form.body().clone());
        let (now, document_name) = (self.now, document_name.clone());
        let session = &mut self.side(end).session;
        session.offer_form(now, document_name, version, form).expect("the offer is taken");
    }

    /// A new association: both sessions start anew, what was in flight is gone.
    pub fn reconnect(&mut self) {
        for side in &mut self.sides {
            let habit = side.habit;
            *side = Side::new(self.now, side.config.clone());
            side.habit = habit;
        }
        self.links.iter_mut().for_each(Link::clear);
    }

    /// Whether a side has made this version of the peer's document durable, as the peer knows.
    #[must_use]
    pub fn is_stored(&self, offered_by: End, document_name: &Name, version: u64) -> bool {
        self.sides[offered_by as usize].stored.get(document_name) == Some(&version)
    }

    /// Runs until the condition holds.
    ///
    /// # Panics
    /// When that takes longer than `limit` of virtual time, or a rule is broken on the way.
    pub fn run_until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) {
        let deadline = self.now + limit;
        self.settle();
        while !done(self) {
            assert!(
                self.step(deadline),
                "seed {}: not done after {:?}, {:#?}",
                self.seed,
                self.elapsed(),
                self.sides.each_ref().map(|side| side.session.stats()),
            );
        }
    }

    /// Runs for a while.
    pub fn run_for(&mut self, time: Duration) {
        let deadline = self.now + time;
        self.settle();
        while self.step(deadline) {}
        self.now = deadline;
    }

    /// Goes on to the next thing that happens. False: that is after `deadline`.
    fn step(&mut self, deadline: Instant) -> bool {
        let timers = self.sides.iter().filter_map(|side| side.session.next_timeout());
        let arrivals = self.links.iter().filter_map(Link::next_due);
        let Some(next) = timers.chain(arrivals).min() else { return false };
        if next > deadline {
            return false;
        }
        self.now = self.now.max(next);
        for end in [End::Agent, End::Server] {
            while let Some((ecn, datagram)) = self.links[end.peer() as usize].pop_marked(self.now) {
                let (number, payload) = datagram.split_at(8);
                let number = u64::from_be_bytes(number.try_into().expect("8 bytes"));
                let session = &mut self.sides[end as usize].session;
                let ecn = Ecn::from_bits(ecn.bits());
                if let Err(error) = session.handle_marked_packet(self.now, number, ecn, payload) {
                    panic!("seed {}: {end:?} finds a fault: {error}", self.seed);
                }
            }
            self.sides[end as usize].session.handle_timeout(self.now);
        }
        self.settle();
        true
    }

    /// Lets both sides send what they have, and takes their events.
    pub fn settle(&mut self) {
        for end in [End::Agent, End::Server] {
            self.take_events(end);
            self.transmit(end);
            self.take_events(end);
        }
    }

    fn transmit(&mut self, end: End) {
        let side = &mut self.sides[end as usize];
        let mut packet = Vec::new();
        while side.session.poll_transmit(self.now, side.next_number, &mut packet) {
            let SessionConfig { payload_max, payload_search_max, .. } = side.config;
            let limit = payload_search_max.unwrap_or(payload_max).max(payload_max);
            assert!(!packet.is_empty() && packet.len() <= limit);
            let mut datagram = side.next_number.to_be_bytes().to_vec();
            datagram.extend_from_slice(&packet);
            let ecn = LinkEcn::from_bits(side.session.packet_ecn().bits());
            self.links[end as usize].push_marked(self.now, ecn, datagram);
            self.packets[end as usize] += 1;
            let is_data = |frame| matches!(frame, Ok(Frame::Data { .. } | Frame::Repair { .. }));
            self.data_packets[end as usize] += u64::from(wire::frames(&packet).any(is_data));
            // Now and then the channel uses a number for itself.
            side.next_number += 1 + u64::from(self.rng.chance(0.02));
        }
    }

    fn take_events(&mut self, end: End) {
        while let Some(event) = self.sides[end as usize].session.poll_event() {
            self.check(end, &event);
            self.sides[end as usize].events.push(event);
        }
    }

    fn check(&mut self, end: End, event: &Event) {
        let seed = self.seed;
        let side = &mut self.sides[end as usize];
        match event {
            Event::Received(Document { name, version, body }) => {
                let offered = self.offered.get(&(end.peer(), name.clone(), *version));
                let offered =
                    offered.unwrap_or_else(|| panic!("seed {seed}: never offered: {event:?}"));
                assert!(body == offered, "seed {seed}: {event:?} is corrupted");
                let before = side.received.insert(name.clone(), *version);
                assert!(before < Some(*version), "seed {seed}: {event:?} after {before:?}");
                match side.habit {
                    Habit::Store => side.session.stored(self.now, name, *version),
                    Habit::Refuse => side.session.refuse(self.now, name, *version, 0x100, "no"),
                    Habit::Wait => {}
                }
            }
            Event::Stored { name, version } => {
                assert!(
                    self.offered.contains_key(&(end, name.clone(), *version)),
                    "seed {seed}: stored what was never offered: {event:?}"
                );
                let before = side.stored.insert(name.clone(), *version);
                assert!(before <= Some(*version), "seed {seed}: {event:?} after {before:?}");
            }
            Event::Refused { .. } | Event::PeerClosed { .. } | Event::PeerLost => {}
        }
    }

    /// The documents that a side has received, in order.
    #[must_use]
    pub fn received(&self, end: End) -> Vec<(Name, u64)> {
        let events = self.sides[end as usize].events.iter();
        events
            .filter_map(|event| match event {
                Event::Received(document) => Some((document.name.clone(), document.version)),
                _ => None,
            })
            .collect()
    }
}
