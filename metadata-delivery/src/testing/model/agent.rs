//! The agent's program: what it writes down, and what it does with events.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dtls_channel::testing::Rng;

use super::world::Open;
use super::{Covered, Ledger};
use crate::message::{HELLO, Hello, Hex32, Holds, METADATA, Message, PROGRESS, PROTOCOL, WELCOME};
use crate::testing::{body, name};
use crate::{Base, Document, Event, KnownPath, Name, OfferError};

/// The code with which a document is refused.
pub(super) const REFUSAL: u16 = 0x100;
/// What a document begins with that the agent refuses.
pub(super) const REFUSED: u8 = b'!';

/// What survives a restart, then what does not.
#[derive(Debug, Default)]
pub(super) struct Agent {
    /// The metadata document, and the versions that were made durable, in order.
    pub(super) holds: Option<(u64, Bytes)>,
    /// Newest version that was refused.
    refused: u64,
    /// Results and signals that the server is not known to have, and the next one's number.
    pub(super) outbox: BTreeMap<Name, (u64, Bytes)>,
    next_result: u64,

    pub(super) open: Option<Open>,
    pub(super) known_path: Option<KnownPath>,
    /// What is being written, and when that is done.
    writing: VecDeque<(Instant, Document)>,
    welcome: bool,
    /// Of the newest progress in this session, and of the newest that the server has confirmed.
    progress: u64,
    progress_stored: u64,
}

impl Agent {
    /// A session is there.
    pub(super) fn connected(&mut self, now: Instant, mut open: Open, ledger: &mut Ledger) {
        if let Some((_, body)) = &self.holds {
            open.session.hold(name(METADATA), Base::new(body.clone()));
        }
        (self.welcome, self.progress, self.progress_stored) = (false, 0, 0);
        ledger.0.retain(|(name, _), _| name.as_str() != HELLO && name.as_str() != PROGRESS);
        let holds = self
            .holds
            .as_ref()
            .map(|(version, body)| Holds { version: *version, sha256: Hex32::sha256_of(body) });
        let hello = Hello {
            protocol: PROTOCOL,
            agent_id: "agent".to_owned(),
            software: "model".to_owned(),
            boot_id: "boot".to_owned(),
            enrol: None,
            holds,
        };
        let hello = hello.to_document(1).expect("a hello");
        ledger.note(&hello);
        open.session.offer(now, hello).expect("there is room for a hello");
        self.open = Some(open);
    }

    /// The program starts anew.
    pub(super) fn restart(&mut self) {
        *self = Self {
            holds: self.holds.take(),
            refused: self.refused,
            outbox: std::mem::take(&mut self.outbox),
            next_result: self.next_result,
            ..Self::default()
        };
    }

    /// A new result, or the result of another run, is made durable and offered.
    pub(super) fn result(
        &mut self,
        now: Instant,
        rng: &mut Rng,
        ledger: &mut Ledger,
        length: usize,
    ) {
        let (name, version) = match self.outbox.iter().next_back() {
            // The newer result of the same config takes the place of one that is still here.
            Some((name, (version, _))) if rng.chance(0.2) => (name.clone(), version + 1),
            _ => {
                self.next_result += 1;
                let kind = ["result", "signal"][rng.below(2) as usize];
                (name(&format!("{kind}/{}", self.next_result)), 1)
            }
        };
        let document = Document { name, version, body: body(rng.next_u64(), length) };
        ledger.note(&document);
        self.outbox.insert(document.name.clone(), (version, document.body.clone()));
        self.offer_outbox(now);
    }

    /// A snapshot of where it stands: nobody waits for it, and only the newest counts.
    pub(super) fn report(
        &mut self,
        now: Instant,
        rng: &mut Rng,
        ledger: &mut Ledger,
        length: usize,
    ) {
        let Some(open) = self.open.as_mut().filter(|_| self.welcome) else { return };
        let version = self.progress + 1;
        let document =
            Document { name: name(PROGRESS), version, body: body(rng.next_u64(), length) };
        if open.session.offer(now, document.clone()).is_ok() {
            ledger.note(&document);
            self.progress = version;
        }
    }

    /// Offers what the server does not have, as far as the session takes it.
    fn offer_outbox(&mut self, now: Instant) {
        let Some(open) = self.open.as_mut().filter(|_| self.welcome) else { return };
        for (name, (version, body)) in &self.outbox {
            let document = Document { name: name.clone(), version: *version, body: body.clone() };
            match open.session.offer(now, document) {
                Ok(()) => {}
                // Later, when others have gone, or in the next session.
                Err(OfferError::TooMany { .. } | OfferError::Closed) => return,
                Err(error) => panic!("{name} v{version} is not taken: {error}"),
            }
        }
    }

    /// When a write is done.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.writing.front().map(|(at, _)| *at)
    }

    /// Writes that are done by now: durable, applied, confirmed; and what comes of it.
    pub(super) fn write(
        &mut self,
        now: Instant,
        rng: &mut Rng,
        ledger: &mut Ledger,
        covered: &mut Covered,
    ) {
        while self.next_due().is_some_and(|at| at <= now) {
            let Some((_, document)) = self.writing.pop_front() else { return };
            let Document { name, version, body } = document;
            let before = self.holds.as_ref().map_or(0, |(version, _)| *version);
            assert!(before <= version, "v{version} would replace v{before}");
            if before < version {
                covered.applied += 1;
                self.holds = Some((version, body.clone()));
            } else {
                covered.recognised += 1;
            }
            if let Some(open) = &mut self.open {
                // Perhaps not the session that has brought it.
                open.session.stored(now, &name, version);
                open.session.hold(name, Base::new(body));
            }
            for _ in 0..rng.below(3) {
                let length = [10, 300, 3_000, 40_000][rng.below(4) as usize];
                self.result(now, rng, ledger, length);
                covered.results += 1;
            }
        }
    }

    pub(super) fn on_event(
        &mut self,
        now: Instant,
        event: Event,
        rng: &mut Rng,
        covered: &mut Covered,
    ) {
        let Some(open) = &mut self.open else { return };
        match event {
            Event::Received(document) if document.name.as_str() == WELCOME => {
                open.session.stored(now, &document.name, document.version);
                self.welcome = true;
                self.offer_outbox(now);
            }
            Event::Received(document) => {
                assert_eq!(document.name.as_str(), METADATA);
                let holds = self.holds.as_ref().map_or(0, |(version, _)| *version);
                assert!(holds <= document.version, "v{} after v{holds}", document.version);
                if document.body.first() == Some(&REFUSED) {
                    assert!(self.refused <= document.version);
                    covered.refused += u64::from(self.refused < document.version);
                    self.refused = document.version;
                    let version = document.version;
                    return open.session.refuse(now, &document.name, version, REFUSAL, "no");
                }
                if holds == document.version {
                    covered.recognised += 1;
                    return open.session.stored(now, &document.name, document.version);
                }
                // A newer one takes the place of what waits, but not of what is being written.
                if rng.chance(0.5) {
                    self.writing.truncate(1);
                }
                let last = self.writing.back().map_or(now, |(at, _)| *at);
                let takes = Duration::from_millis([0, 1, 40, 400][rng.below(4) as usize]);
                self.writing.push_back((last.max(now) + takes, document));
            }
            Event::Stored { name, version } if name.as_str() == PROGRESS => {
                assert!(self.progress_stored < version && version <= self.progress);
                self.progress_stored = version;
            }
            Event::Stored { name, version } => {
                // A newer one may have taken its place meanwhile.
                if self.outbox.get(&name).is_some_and(|(kept, _)| *kept == version) {
                    self.outbox.remove(&name);
                }
                self.offer_outbox(now);
            }
            Event::Refused { name, version, code, reason } => {
                panic!("the server refuses {name} v{version}: {code:#x} {reason}")
            }
            Event::PeerClosed { .. } | Event::PeerLost => {
                self.known_path = open.session.known_path(now);
                self.open = None;
            }
        }
    }

    /// Whether the server has let it in.
    pub(super) fn is_greeted(&self) -> bool {
        self.open.is_some() && self.welcome
    }

    /// Whether the server has all there is.
    pub(super) fn is_done(&self) -> bool {
        self.welcome
            && self.writing.is_empty()
            && self.outbox.is_empty()
            && self.progress == self.progress_stored
    }
}
