//! What a fuzzer runs: bytes from anywhere, and arbitrary schedules of operations.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{body, name, start};
use crate::form::decode;
use crate::inbound::{Inbound, Taken};
use crate::message::{Hex32, LOG_BYTES_MAX, LOG_RUNS_MAX, Log, LogRequest, Message};
use crate::repair::Block;
use crate::wire::{ENCODING_RAW, Offer};
use crate::{
    Base, Document, Ecn, Event, Form, Limits, Name, NamePolicy, PacketError, Session, SessionConfig,
};

/// Reads the input of a fuzzer front to back; zero when it is used up.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        self.next().unwrap_or(0)
    }

    fn next(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    fn take(&mut self, count: usize) -> &'a [u8] {
        let (head, tail) = self.0.split_at(count.min(self.0.len()));
        self.0 = tail;
        head
    }
}

fn limits() -> Limits {
    Limits {
        names: NamePolicy::AnyOf(&["a", "b", "c/*"]),
        document_bytes_max: 8 << 10,
        compressed: true,
        inbound_bytes_max: 10 << 10,
        inbound_transfers_max: 2,
        outbound_bytes_max: 24 << 10,
        outbound_documents_max: 3,
    }
}

fn session(now: Instant) -> Session {
    Session::new(
        now,
        SessionConfig {
            payload_max: 768,
            keep_alive: Some(Duration::from_secs(5)),
            peer_timeout: Duration::from_secs(600),
            ecn: true,
            limits: limits(),
            ..SessionConfig::default()
        },
    )
}

/// A peer that sends anything at all: no panic, no more memory than the limits say, and every
/// packet we answer with is one that the parser takes.
///
/// # Panics
/// When a rule is broken.
pub fn packets(input: &[u8]) {
    let mut input = Input(input);
    let mut now = start();
    let mut session = session(now);
    let (mut number_in, mut number_out) = (0, 0);
    let mut out = Vec::new();
    let waiting = Document { name: name("a"), version: 3, body: body(3, 3000) };
    let _ = session.offer(now, waiting);
    while let Some(tag) = input.next() {
        match tag {
            0..200 => {
                let length = usize::from(tag) + usize::from(input.byte()) * 8;
                number_in += 1;
                let ecn = Ecn::from_bits(tag);
                let _ = session.handle_marked_packet(now, number_in, ecn, input.take(length));
            }
            200..230 => {
                now += Duration::from_millis(u64::from(input.byte()) * 10);
                session.handle_timeout(now);
            }
            _ => number_in = u64::from(input.byte()) * 3,
        }
        while session.poll_transmit(now, number_out, &mut out) {
            assert!(out.len() <= 768, "{} bytes", out.len());
            assert!(crate::wire::frames(&out).all(|frame| frame.is_ok()), "{out:02x?}");
            number_out += 1;
        }
        while let Some(event) = session.poll_event() {
            if let Event::Received(document) = event {
                assert!(limits().names.admits(document.name.as_str()));
                assert!(document.body.len() <= limits().document_bytes_max);
                if document.version % 2 == 0 {
                    session.stored(now, &document.name, document.version);
                }
            }
        }
        let stats = session.stats();
        // Repair symbols come on top.
        assert!(stats.inbound_bytes <= 2 * limits().inbound_bytes_max, "{stats:?}");
    }
}

/// What an agent says that its hooks print, and what a server asks for: whatever is taken is within the bounds, and
/// is written in a form that reads the same.
///
/// # Panics
/// When a rule is broken.
pub fn logs(input: &[u8]) {
    if let Ok(log) = Log::from_body(input) {
        assert!(log.runs.len() <= LOG_RUNS_MAX);
        assert!(log.runs.iter().all(|piece| piece.from <= piece.to));
        let bytes: usize = log.runs.iter().map(|piece| piece.text.len()).sum();
        assert!(bytes <= LOG_BYTES_MAX, "{bytes} bytes of text");
        assert!(reads_the_same(&log), "{log:?}");
    }
    if let Ok(request) = LogRequest::from_body(input) {
        assert!(request.has.len() <= LOG_RUNS_MAX);
        assert!(reads_the_same(&request), "{request:?}");
    }
}

fn reads_the_same<M: Message + PartialEq>(message: &M) -> bool {
    let document = message.to_document(1).expect("what was taken can be written");
    M::from_body(&document.body).is_ok_and(|again| again == *message)
}

/// Encoded forms: arbitrary bytes that claim to be one, and honest ones, of which some are then changed on
/// their way. What comes out is the document or nothing.
///
/// # Panics
/// When a rule is broken.
pub fn forms(input: &[u8]) {
    let mut input = Input(input);
    let tag = input.byte();
    let length = usize::from(input.byte()) << 8 | usize::from(input.byte());
    let shared = usize::from(input.byte()) * 16;
    let base = Base::new(input.take(shared).to_vec().into());
    let held = (tag & 1 != 0).then_some(&base);
    let rest = input.0;
    if let Ok(plain) = decode(rest, held, length) {
        assert_eq!(plain.len(), length);
    }
    // A document that shares something with the base, as long as to be worth encoding.
    let plain = [base.body(), rest, base.body(), &[tag; 1000]].concat();
    let form = Form::plain(plain.clone().into()).encoded(held);
    let chosen = form.chosen(u64::MAX);
    let mut bytes = chosen.bytes.to_vec();
    let changed = tag & 2 != 0 && !bytes.is_empty();
    if changed {
        let at = length % bytes.len();
        bytes[at] ^= (tag | 4) & 0xfc;
    }
    let mut inbound = Inbound::default();
    inbound.hold(name("a"), base.clone());
    let offer = Offer {
        transfer: 0,
        version: 1,
        encoding: chosen.encoding,
        plain_length: plain.len() as u64,
        encoded_length: bytes.len() as u64,
        sha256: form.sha256().0,
        name: "a",
        base: chosen.base,
    };
    let limits = Limits { document_bytes_max: 1 << 20, ..Limits::default() };
    assert_eq!(inbound.on_offer(&offer, &limits), Ok(Taken::Quietly));
    match inbound.on_data(0, 0, &bytes) {
        Ok(Taken::Document(document)) => assert!(document.body == plain, "it was changed"),
        other => assert!(changed, "{other:?}"),
    }
}

/// The end of a transfer: source symbols, pieces of them and repair symbols in any order, some of them changed or
/// with numbers that make no sense. What comes out is the document or nothing, and little is held until then.
///
/// # Panics
/// When a rule is broken.
pub fn repairs(input: &[u8]) {
    let mut input = Input(input);
    let length = 1 + usize::from(input.byte()) * 16 + usize::from(input.byte());
    let symbol_bytes = 1 + usize::from(input.byte()) * 2;
    let offset = usize::from(input.byte()) * 8 % length;
    let document = body(length as u64, length);
    let block = Block::new(offset as u64, length as u64, symbol_bytes);
    let symbols = block.map_or_else(Vec::new, |block| block.encode(&document, 0..block.repairs()));
    let mut inbound = Inbound::default();
    let offer = Offer {
        transfer: 0,
        version: 1,
        encoding: ENCODING_RAW,
        plain_length: length as u64,
        encoded_length: length as u64,
        sha256: Hex32::sha256_of(&document).0,
        name: "a",
        base: None,
    };
    let mut taken = inbound.on_offer(&offer, &Limits { document_bytes_max: 8 << 10, ..limits() });
    let mut changed = false;
    let mut there = false;
    while let Some(tag) = input.next() {
        let choice = usize::from(input.byte());
        taken = match (tag & 7, block) {
            (0..=2, Some(block)) => {
                let bytes = block.symbol(choice % block.count());
                let piece = &document[bytes.start as usize..bytes.end as usize];
                inbound.on_data(0, bytes.start, piece)
            }
            (3..=5, Some(block)) => {
                let nth = choice % block.repairs();
                let mut symbol = symbols[nth].to_vec();
                if tag & 0xf0 == 0xf0 {
                    symbol[choice % symbol_bytes] ^= tag;
                    changed = true;
                }
                inbound.on_repair(0, offset as u64, nth as u64, &symbol)
            }
            (6, _) => {
                let start = choice * 16 % length;
                let end = length.min(start + usize::from(tag));
                inbound.on_data(0, start as u64, &document[start..end])
            }
            _ => {
                let symbol = vec![tag; usize::from(input.byte()) * 16];
                let at = u64::from(input.byte()) << (tag & 0x18);
                changed = true;
                inbound.on_repair(0, at, choice as u64, &symbol)
            }
        };
        assert!(inbound.held_bytes() <= 2 * length, "{inbound:?}");
        match &taken {
            Ok(Taken::Document(received)) => {
                assert!(received.body == document && !there, "it was changed");
                there = true;
            }
            Ok(Taken::Quietly) => {}
            Ok(Taken::NoRoom) => panic!("there is room for {length} bytes"),
            Err(error) => {
                assert!(matches!(error, PacketError::RepairMisfit { .. }) && changed, "{error}");
                return;
            }
        }
    }
    drop(taken);
    if !there {
        let whole = inbound.on_data(0, 0, &document);
        let arrived = matches!(&whole, Ok(Taken::Document(received)) if received.body == document);
        assert!(arrived || changed, "{whole:?}");
    }
}

/// Two sessions, a network that does what the input says, and applications that do, too. A naive
/// reference model knows what was offered; every event is held against it. At last the network
/// behaves, and everything has to come to an end.
///
/// # Panics
/// When something is delivered twice, stale, changed or not at all.
pub fn operations(input: &[u8]) {
    let mut input = Input(input);
    let mut world = World::new();
    while let Some(tag) = input.next() {
        let side = usize::from(tag >> 7);
        match tag & 15 {
            0 | 1 => world.offer(side, input.byte()),
            2 => world.withdraw(side, input.byte()),
            3..=5 => world.transmit(side),
            6..=8 => world.deliver(side, 0, false),
            9 => world.deliver(side, input.byte(), false),
            10 => world.deliver(side, input.byte(), true),
            11 => world.lose(side, input.byte()),
            12 => world.decide(side, input.byte()),
            13 => world.wait_for_timer(),
            14 if tag & 0x70 == 0x70 => world.restart(),
            14 => world.change_limits(side, input.byte()),
            _ => world.transmit(side),
        }
    }
    world.heal();
}

/// Both ends, by index; a bag holds packets that a side has sent.
struct World {
    now: Instant,
    sessions: [Session; 2],
    numbers: [u64; 2],
    bags: [VecDeque<(u64, Vec<u8>)>; 2],
    /// The model: newest version of each document of a side that is still wanted at the peer.
    wanted: [BTreeMap<Name, u64>; 2],
    /// Versions grow for ever, over restarts as well.
    versions: u64,
    /// Newest version that a side has received, by name.
    received: [BTreeMap<Name, u64>; 2],
    /// Documents whose verdict a side still owes.
    undecided: [Vec<(Name, u64)>; 2],
}

const NAMES: [&str; 4] = ["a", "b", "c/1", "forbidden"];

fn length(version: u64) -> usize {
    [0, 1, 100, 700, 2000, 5000, 8192, 8193][version as usize % 8]
}

/// Versions of one length differ in a few bytes, so that deltas pay.
fn content(version: u64) -> Bytes {
    let length = length(version);
    let mut bytes = body(length as u64, length).to_vec();
    for (byte, own) in bytes.iter_mut().zip(version.to_be_bytes()) {
        *byte ^= own;
    }
    bytes.into()
}

impl World {
    fn new() -> Self {
        let now = start();
        Self {
            now,
            sessions: [session(now), session(now)],
            numbers: [0, 0],
            bags: Default::default(),
            wanted: Default::default(),
            versions: 0,
            received: Default::default(),
            undecided: Default::default(),
        }
    }

    fn offer(&mut self, side: usize, choice: u8) {
        let document_name = name(NAMES[usize::from(choice) % NAMES.len()]);
        self.versions += 1 + u64::from(choice >> 5);
        let version = self.versions;
        let mut form = Form::plain(content(version));
        if choice & 0x10 != 0 {
            // The peer may hold it, or another one, or none.
            let base = Base::new(content(version.saturating_sub(8)));
            form = form.encoded(Some(&base));
        }
        let session = &mut self.sessions[side];
        let offered = if choice & 0x18 == 0x08 {
            let body = content(version);
            let document = Document { name: document_name.clone(), version, body };
            session.offer_background(self.now, document)
        } else {
            session.offer_form(self.now, document_name.clone(), version, form)
        };
        if offered.is_ok() {
            self.wanted[side].insert(document_name, version);
        }
        self.take_events(side);
    }

    fn withdraw(&mut self, side: usize, choice: u8) {
        let document_name = name(NAMES[usize::from(choice) % NAMES.len()]);
        self.sessions[side].withdraw(self.now, &document_name);
        self.wanted[side].remove(&document_name);
    }

    fn transmit(&mut self, side: usize) {
        let mut packet = Vec::new();
        while self.sessions[side].poll_transmit(self.now, self.numbers[side], &mut packet) {
            self.bags[side].push_back((self.numbers[side], packet.clone()));
            self.numbers[side] += 1;
        }
        self.take_events(side);
    }

    /// Brings one of the packets that the peer of `side` has sent; keeping it makes a duplicate.
    fn deliver(&mut self, side: usize, choice: u8, keep: bool) {
        let bag = &mut self.bags[1 - side];
        if bag.is_empty() {
            return;
        }
        let at = usize::from(choice) % bag.len();
        let Some((number, packet)) = bag.get(at).cloned() else { return };
        if !keep {
            bag.remove(at);
        }
        // The network marks as it likes.
        let ecn = Ecn::from_bits(choice);
        let handled = self.sessions[side].handle_marked_packet(self.now, number, ecn, &packet);
        handled.expect("an honest peer breaks no rule");
        self.take_events(side);
    }

    fn lose(&mut self, side: usize, choice: u8) {
        let bag = &mut self.bags[side];
        if !bag.is_empty() {
            bag.remove(usize::from(choice) % bag.len());
        }
    }

    fn decide(&mut self, side: usize, choice: u8) {
        let undecided = &mut self.undecided[side];
        if undecided.is_empty() {
            return;
        }
        let (document_name, version) = undecided.remove(usize::from(choice) % undecided.len());
        if choice & 0x80 == 0 {
            self.sessions[side].stored(self.now, &document_name, version);
            if choice & 0x40 != 0 {
                self.sessions[side].hold(document_name, Base::new(content(version)));
            }
        } else {
            self.sessions[side].refuse(self.now, &document_name, version, 0x100, "no");
        }
    }

    fn change_limits(&mut self, side: usize, choice: u8) {
        let inbound_transfers_max = 2 + usize::from(choice % 3);
        let limits = Limits { inbound_transfers_max, ..limits() };
        self.sessions[side].set_limits(self.now, limits);
    }

    fn restart(&mut self) {
        self.sessions = [session(self.now), session(self.now)];
        self.numbers = [0, 0];
        self.bags = Default::default();
        self.received = Default::default();
        self.undecided = Default::default();
        // The applications offer again what they still want.
        for side in 0..2 {
            for (document_name, version) in self.wanted[side].clone() {
                let document = Document { name: document_name, version, body: content(version) };
                self.sessions[side].offer(self.now, document).expect("it was taken before");
            }
        }
    }

    fn wait_for_timer(&mut self) {
        let timers = self.sessions.iter().filter_map(Session::next_timeout);
        let Some(next) = timers.min() else { return };
        self.now = self.now.max(next);
        for side in 0..2 {
            self.sessions[side].handle_timeout(self.now);
            self.take_events(side);
        }
    }

    fn take_events(&mut self, side: usize) {
        while let Some(event) = self.sessions[side].poll_event() {
            match event {
                Event::Received(Document { name, version, body }) => {
                    assert!(name.as_str() != "forbidden", "{name} was to be refused");
                    assert!(body == content(version), "{name} v{version} is corrupted");
                    let before = self.received[side].insert(name.clone(), version);
                    assert!(before < Some(version), "{name} v{version} came after {before:?}");
                    self.undecided[side].push((name, version));
                }
                Event::Stored { name, version } => {
                    let peer = 1 - side;
                    assert!(
                        self.received[peer].get(&name) >= Some(&version),
                        "{name} v{version} is said to be stored, but was never received"
                    );
                    self.done(side, &name, version);
                }
                Event::Refused { name, version, .. } => self.done(side, &name, version),
                event @ (Event::PeerClosed { .. } | Event::PeerLost) => {
                    assert!(matches!(event, Event::PeerLost), "nobody closed: {event:?}");
                    self.restart();
                    return;
                }
            }
        }
        let stats = self.sessions[side].stats();
        assert!(stats.inbound_bytes <= 2 * limits().inbound_bytes_max, "{stats:?}");
    }

    fn done(&mut self, side: usize, name: &Name, version: u64) {
        let wanted = self.wanted[side].remove(name);
        assert_eq!(wanted, Some(version), "{name} v{version} was answered");
    }

    /// From here on nothing is lost: everything that is wanted has to be answered.
    fn heal(&mut self) {
        for _ in 0..10_000 {
            for side in 0..2 {
                self.transmit(side);
                while !self.bags[1 - side].is_empty() {
                    self.deliver(side, 0, false);
                }
                while !self.undecided[side].is_empty() {
                    self.decide(side, 0);
                }
                self.transmit(side);
            }
            let quiet = self.bags.iter().all(VecDeque::is_empty);
            if quiet && self.wanted.iter().all(BTreeMap::is_empty) {
                return;
            }
            if quiet {
                self.wait_for_timer();
            }
        }
        panic!(
            "still wanted: {:?}, {:?}",
            self.wanted,
            self.sessions.each_ref().map(Session::stats)
        );
    }
}
