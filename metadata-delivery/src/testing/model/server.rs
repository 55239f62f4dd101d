//! The server's program: what it writes down, and what it does with events.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dtls_channel::testing::Rng;

use super::agent::{Agent, REFUSAL, REFUSED};
use super::world::Open;
use super::{Covered, Ledger};
use crate::message::{
    HELLO, Hello, Hex32, Holds, METADATA, Message, PROGRESS, PROTOCOL, WELCOME, Welcome,
};
use crate::testing::{body, name};
use crate::{Base, CloseCode, Document, Event, Form, KnownPath, Limits, Name, OfferError};

/// What survives a restart, then what does not.
#[derive(Debug, Default)]
pub(super) struct Server {
    /// The newest metadata document.
    pub(super) newest: Option<(u64, Bytes)>,
    /// The newest version that the agent is known to have stored or refused.
    pub(super) settled: u64,
    /// The document that the agent is believed to hold; after a restored backup it may be another one.
    base: Option<(u64, Bytes)>,
    /// Results and signals.
    pub(super) results: BTreeMap<Name, u64>,

    pub(super) open: Option<Open>,
    pub(super) known_path: Option<KnownPath>,
    /// What is being written, and when that is done.
    writing: VecDeque<(Instant, Document)>,
    /// The agent of this session has said who it is.
    greeted: bool,
}

/// A new version of the document: much like the last one, or another one.
fn next_body(rng: &mut Rng, last: Option<&Bytes>) -> Bytes {
    if let Some(last) = last.filter(|last| last.len() > 100 && rng.chance(0.7)) {
        let mut changed = last.to_vec();
        let at = rng.below(last.len() as u64 - 64) as usize;
        let change = body(rng.next_u64(), 1 + rng.below(64) as usize);
        changed.splice(at..at + rng.below(64) as usize, change);
        changed[0] = if rng.chance(0.05) { REFUSED } else { b'{' };
        return changed.into();
    }
    let length = match rng.below(100) {
        0 => 0,
        1..50 => rng.below(1_500),
        50..85 => rng.below(10_000),
        85..98 => rng.below(66_000),
        _ => rng.below(256 << 10),
    } as usize;
    let mut bytes = body(rng.next_u64(), length).to_vec();
    if rng.chance(0.5) {
        // Half of the documents can be compressed.
        bytes
            .iter_mut()
            .enumerate()
            .for_each(|(at, byte)| *byte = b"deployment"[at / 7 % 10] ^ *byte & 1);
    }
    if let Some(first) = bytes.first_mut() {
        *first = if rng.chance(0.1) { REFUSED } else { b'{' };
    }
    bytes.into()
}

impl Server {
    pub(super) fn connected(&mut self, open: Open) {
        self.open = Some(open);
        self.greeted = false;
    }

    /// The program starts anew.
    pub(super) fn restart(&mut self) {
        *self = Self {
            newest: self.newest.take(),
            settled: self.settled,
            base: self.base.take(),
            results: std::mem::take(&mut self.results),
            ..Self::default()
        };
    }

    /// What is believed to be the agent's document is not, from here on.
    pub(super) fn spoil_base(&mut self) {
        if let Some((_, bytes)) = &mut self.base {
            let mut other = bytes.to_vec();
            other.iter_mut().take(1).for_each(|byte| *byte ^= 1);
            *bytes = other.into();
        }
    }

    /// Says goodbye.
    pub(super) fn hang_up(&mut self, now: Instant) {
        if let Some(open) = &mut self.open {
            open.session.close(now, CloseCode::Shutdown, "the model says so");
        }
    }

    /// A new version, durable at once.
    pub(super) fn push(
        &mut self,
        now: Instant,
        rng: &mut Rng,
        ledger: &mut Ledger,
        covered: &mut Covered,
    ) {
        let (last, last_body) = self.newest.clone().unzip();
        let version = last.unwrap_or(0) + 1 + rng.below(3);
        let body = next_body(rng, last_body.as_ref());
        let document = Document { name: name(METADATA), version, body: body.clone() };
        ledger.note(&document);
        self.newest = Some((version, body));
        covered.pushes += 1;
        self.offer_newest(now, rng, covered);
    }

    fn offer_newest(&mut self, now: Instant, rng: &mut Rng, covered: &mut Covered) {
        let Some(open) = self.open.as_mut().filter(|open| self.greeted && !open.is_closing())
        else {
            return;
        };
        let Some((version, body)) = self.newest.clone() else { return };
        let base = self.base.as_ref().map(|(_, body)| Base::new(body.clone()));
        let plain = Form::plain(body);
        let form = match rng.below(4) {
            0 => plain,
            1 => plain.encoded(None),
            _ => plain.encoded(base.as_ref()),
        };
        covered.encoded += u64::from(form.encoded_bytes().is_some());
        let offered = open.session.offer_form(now, name(METADATA), version, form);
        offered.expect("there is room for the newest document");
    }

    /// The agent says who it is and what it holds.
    fn greet(&mut self, now: Instant, hello: &Document, rng: &mut Rng, covered: &mut Covered) {
        let Some(open) = &mut self.open else { return };
        let holds = Hello::from_body(&hello.body).expect("a hello").holds;
        open.session.stored(now, &hello.name, hello.version);
        open.session.set_limits(now, Limits::server());
        self.greeted = true;
        let newest = self
            .newest
            .as_ref()
            .map(|(version, body)| Holds { version: *version, sha256: Hex32::sha256_of(body) });
        let welcome = Welcome {
            protocol: PROTOCOL,
            software: "model".to_owned(),
            agent_id: "agent".to_owned(),
            keep_alive_s: 5,
            newest,
            return_within_ms: None,
        };
        let welcome = welcome.to_document(1).expect("a welcome");
        match open.session.offer(now, welcome) {
            Ok(()) => {}
            // The agent has hung up meanwhile.
            Err(OfferError::Closed) => return,
            Err(error) => panic!("no room for a welcome: {error}"),
        }
        // The agent's word counts: it may have written something whose confirmation was lost.
        let held = holds.map_or(0, |holds| holds.version);
        assert!(held <= newest.map_or(0, |newest| newest.version), "nobody has pushed v{held}");
        if holds.is_some() && holds == newest {
            self.settled = held;
            return;
        }
        if self.base.as_ref().is_none_or(|(version, _)| *version != held) {
            self.base = None;
        }
        self.offer_newest(now, rng, covered);
    }

    /// When a write is done.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.writing.front().map(|(at, _)| *at)
    }

    /// Writes that are done by now.
    pub(super) fn write(&mut self, now: Instant, covered: &mut Covered) {
        while self.next_due().is_some_and(|at| at <= now) {
            let Some((_, Document { name, version, .. })) = self.writing.pop_front() else {
                return;
            };
            let before = self.results.get(&name).copied().unwrap_or(0);
            if before < version {
                self.results.insert(name.clone(), version);
            } else {
                covered.recognised += 1;
            }
            if let Some(open) = &mut self.open {
                open.session.stored(now, &name, version);
            }
        }
    }

    pub(super) fn on_event(
        &mut self,
        now: Instant,
        event: Event,
        agent: &Agent,
        ledger: &Ledger,
        rng: &mut Rng,
        covered: &mut Covered,
    ) {
        let Some(open) = &mut self.open else { return };
        match event {
            Event::Received(document) if document.name.as_str() == HELLO => {
                self.greet(now, &document, rng, covered);
            }
            Event::Received(document) if document.name.as_str() == PROGRESS => {
                open.session.stored(now, &document.name, document.version);
            }
            Event::Received(document) => {
                let last = self.writing.back().map_or(now, |(at, _)| *at);
                let takes = Duration::from_millis([0, 1, 40][rng.below(3) as usize]);
                self.writing.push_back((last.max(now) + takes, document));
            }
            Event::Stored { name, .. } if name.as_str() == WELCOME => {}
            Event::Stored { name, version } => {
                let holds = agent.holds.as_ref().map_or(0, |(version, _)| *version);
                assert!(holds >= version, "{name} v{version} is said to be stored, v{holds} is");
                self.settled = self.settled.max(version);
                let body = ledger.0.get(&(name, version)).expect("it was offered");
                self.base = Some((version, body.clone()));
            }
            Event::Refused { name, version, code, reason } => {
                let body = ledger.0.get(&(name.clone(), version)).expect("it was offered");
                let asked_for = code == REFUSAL && body.first() == Some(&REFUSED);
                assert!(asked_for, "{name} v{version} is refused: {code:#x} {reason}");
                self.settled = self.settled.max(version);
            }
            Event::PeerClosed { .. } | Event::PeerLost => {
                self.known_path = open.session.known_path(now);
                self.open = None;
            }
        }
    }

    /// Whether the agent has the newest document, or has refused it, and everything of its was written.
    pub(super) fn is_done(&self) -> bool {
        self.writing.is_empty()
            && self.newest.as_ref().is_none_or(|(version, _)| *version == self.settled)
    }
}
