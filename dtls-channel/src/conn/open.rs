use std::time::{Duration, Instant};

use super::flight::Flight;
use super::handshake::Outcome;
use super::path::{self, PathMessage, PathRules, PathWatch};
use crate::ecn::Ecn;
use crate::error::{CloseReason, SendError};
use crate::event::{AssociationId, Event, Path, TimerKind};
use crate::handshake::fragments;
use crate::outbox::Sink;
use crate::record::{ConnectionId, Opened, ReadKeys, Record, WriteKeys};
use crate::stats::DropCause;
use crate::wire::{AlertDescription, ContentType, HandshakeType};

/// Alert levels (RFC 5246 §7.2).
pub(super) const WARNING: u8 = 1;
pub(super) const FATAL: u8 = 2;
/// Kept of each key for alerts.
const RECORDS_RESERVED: u64 = 16;
/// How long the last flight is kept: RFC 6347 §4.2.4 wants twice TCP's maximum segment lifetime of
/// two minutes (RFC 793).
const LAST_FLIGHT_LIFETIME: Duration = Duration::from_secs(240);
/// The last flight is repeated no more often than this.
const LAST_FLIGHT_RESEND_MIN: Duration = Duration::from_millis(50);

/// An association after its handshake: keys, window, numbers, and for a while the last flight.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Open {
    write: WriteKeys,
    read: ReadKeys,
    paths: PathWatch,
    mtu: u32,
    /// How messages are marked from here on.
    ecn: Ecn,
    refused_renegotiation: bool,
    /// The start of the client's random, at a server: tells a late copy of its hello from a new one.
    began_with: Option<[u8; 8]>,
    last_flight: Option<Box<LastFlight>>,
}

/// The flight that ended the handshake, for a peer that did not get it (RFC 6347 §4.2.4).
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct LastFlight {
    pub(super) flight: Flight,
    pub(super) sequence0: u64,
    /// The peer's Finished, whose repetition asks for it.
    pub(super) answers: u16,
    pub(super) sent_at: Instant,
    pub(super) kept_until: Instant,
}

impl LastFlight {
    pub(super) fn new(mut flight: Flight, sequence0: u64, answers: u16, now: Instant) -> Self {
        flight.shrink_to_fit();
        let kept_until = now + LAST_FLIGHT_LIFETIME;
        Self { flight, sequence0, answers, sent_at: now, kept_until }
    }
}

impl Open {
    pub(super) fn new(
        write: WriteKeys,
        read: ReadKeys,
        mtu: usize,
        paths: PathRules,
        began_with: Option<&[u8; 32]>,
        last_flight: Option<LastFlight>,
    ) -> Self {
        Self {
            write,
            read,
            paths: PathWatch::new(paths),
            mtu: mtu as u32,
            ecn: Ecn::NotEct,
            refused_renegotiation: false,
            began_with: began_with.and_then(|random| random.first_chunk().copied()),
            last_flight: last_flight.map(Box::new),
        }
    }

    pub(super) fn began_with(&self, client_random: &[u8; 32]) -> bool {
        self.began_with.as_ref() == client_random.first_chunk()
    }

    pub(super) fn set_mtu(&mut self, mtu: usize) {
        self.mtu = mtu as u32;
    }

    pub(super) fn set_ecn(&mut self, ecn: Ecn) {
        self.ecn = ecn;
    }

    pub(super) fn next_timeout(&self) -> Option<(Instant, TimerKind)> {
        let kept_until =
            self.last_flight.as_ref().map(|last| (last.kept_until, TimerKind::LastFlight));
        let check = self.paths.next_timeout().map(|at| (at, TimerKind::PathCheck));
        match (kept_until, check) {
            (Some(kept_until), Some(check)) if check.0 < kept_until.0 => Some(check),
            (kept_until, check) => kept_until.or(check),
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, path: Path, sink: &mut Sink) {
        self.last_flight.take_if(|last| last.kept_until <= now);
        self.send_challenges(now, path, sink);
    }

    pub(super) fn next_sequence(&self) -> u64 {
        self.write.next_sequence()
    }

    #[cfg(feature = "testing")]
    pub(super) fn preset_sequence(&mut self, next: u64) {
        self.write.preset_sequence(next);
    }

    pub(super) fn message_size_max(&self) -> usize {
        self.message_size_for(self.mtu as usize)
    }

    pub(super) fn message_size_for(&self, datagram: usize) -> usize {
        datagram.saturating_sub(self.write.overhead()).min(self.write.content_max())
    }

    /// The size of a datagram with a message of this many bytes.
    pub(super) fn datagram_size(&self, message: usize) -> usize {
        message + self.write.overhead()
    }

    pub(super) fn send(
        &mut self,
        path: Path,
        message: &[u8],
        limit: usize,
        sink: &mut Sink,
    ) -> Result<u64, SendError> {
        if message.len() > limit {
            return Err(SendError::TooLarge { length: message.len(), limit });
        }
        if sink.outbox.is_full() {
            return Err(SendError::Full);
        }
        if self.write.remaining() <= RECORDS_RESERVED {
            return Err(SendError::KeysExhausted);
        }
        sink.outbox.limit_room(self.mtu as usize);
        let kind = ContentType::APPLICATION_DATA;
        sink.sealed_datagram(path, self.ecn, |hot, out| {
            self.write.seal_hot(hot, kind, message, out)
        })
        .ok_or(SendError::KeysExhausted)
    }

    pub(super) fn say_goodbye(&mut self, path: Path, sink: &mut Sink) {
        self.alert(path, WARNING, AlertDescription::CLOSE_NOTIFY, sink);
    }

    pub(super) fn alert(&mut self, path: Path, level: u8, what: AlertDescription, sink: &mut Sink) {
        sink.datagram(path, |out| self.write.seal(ContentType::ALERT, &[level, what.0], out));
    }

    /// Takes a record that came from `from`; `path` is where the peer is, and may change.
    pub(super) fn handle_record(
        &mut self,
        now: Instant,
        from: Path,
        path: &mut Path,
        record: Record<'_>,
        id: AssociationId,
        sink: &mut Sink,
    ) -> Result<Outcome, DropCause> {
        if record.epoch == 0 {
            return Err(DropCause::Unprotected);
        }
        let bytes = record.len();
        let opened = self.read.open_hot(&mut sink.opening, record)?;
        // What a message of the check at the old address means, only its content tells.
        let is_answer = opened.content_type == ContentType::RETURN_ROUTABILITY_CHECK
            && from.has_same_remote(path);
        let stats = &mut sink.stats;
        if opened.has_id
            && !is_answer
            && self.paths.saw(now, from, *path, bytes, opened.is_newest, stats)
        {
            follow(from, path, id, sink);
        }
        if opened.content_type == ContentType::APPLICATION_DATA {
            if !opened.content.is_empty() {
                sink.message(id, opened.sequence, opened.content);
            }
            self.send_challenges(now, *path, sink);
            return Ok(Outcome::Continue);
        }
        let outcome = match opened.content_type {
            ContentType::RETURN_ROUTABILITY_CHECK if self.paths.checks() => {
                self.handle_path_message(now, from, path, bytes, opened.content, id, sink)
            }
            _ => self.handle_control(now, *path, &opened, sink),
        };
        self.send_challenges(now, *path, sink);
        outcome
    }

    /// Takes what is the protocol's own.
    fn handle_control(
        &mut self,
        now: Instant,
        path: Path,
        opened: &Opened<'_>,
        sink: &mut Sink,
    ) -> Result<Outcome, DropCause> {
        match opened.content_type {
            ContentType::ALERT => {
                let &[level, what] = opened.content else {
                    return Err(DropCause::UnexpectedRecord);
                };
                let what = AlertDescription(what);
                if what == AlertDescription::CLOSE_NOTIFY {
                    self.say_goodbye(path, sink);
                    return Ok(Outcome::Closed(CloseReason::CloseNotify));
                }
                if level == FATAL {
                    return Ok(Outcome::Closed(CloseReason::PeerAlert(what)));
                }
                Ok(Outcome::Continue)
            }
            ContentType::HANDSHAKE => {
                let Some(Ok(fragment)) = fragments(opened.content).next() else {
                    return Err(DropCause::BadFragment);
                };
                match fragment.kind {
                    // Once per repetition, in however many pieces that comes.
                    HandshakeType::FINISHED if fragment.offset > 0 => {}
                    HandshakeType::FINISHED => {
                        self.repeat_last_flight(now, path, fragment.message_seq, sink);
                    }
                    HandshakeType::CLIENT_HELLO | HandshakeType::HELLO_REQUEST => {
                        self.refuse_renegotiation(path, sink);
                    }
                    _ => return Err(DropCause::StaleMessage),
                }
                Ok(Outcome::Continue)
            }
            _ => Err(DropCause::UnexpectedRecord),
        }
    }

    /// RFC 9853: answers a challenge, or draws the consequence of an answer to ours.
    #[expect(clippy::too_many_arguments, reason = "what came, where from, and what it may change")]
    fn handle_path_message(
        &mut self,
        now: Instant,
        from: Path,
        path: &mut Path,
        bytes: usize,
        content: &[u8],
        id: AssociationId,
        sink: &mut Sink,
    ) -> Result<Outcome, DropCause> {
        if let Some(answer) = path::answer(content) {
            let verified = from.has_same_remote(path);
            let length = self.write.overhead() + answer.len();
            if !verified && !path::is_no_amplification(bytes, length) {
                return Err(DropCause::NotSent);
            }
            self.send_path_message(from, &answer, sink);
        } else if self.paths.handle_answer(now, from, content, &mut sink.stats)? {
            follow(from, path, id, sink);
        }
        Ok(Outcome::Continue)
    }

    /// What is due of a check.
    fn send_challenges(&mut self, now: Instant, path: Path, sink: &mut Sink) {
        let length = self.write.overhead() + size_of::<PathMessage>();
        while let Some((to, message)) =
            self.paths.next_challenge(now, path, length, &mut sink.stats)
        {
            self.send_path_message(to, &message, sink);
        }
    }

    fn send_path_message(&mut self, to: Path, message: &PathMessage, sink: &mut Sink) {
        if sink.outbox.is_full() || self.write.remaining() <= RECORDS_RESERVED {
            sink.stats.drops.count(DropCause::NotSent);
            return;
        }
        let kind = ContentType::RETURN_ROUTABILITY_CHECK;
        sink.datagram(to, |out| self.write.seal(kind, message, out));
    }

    /// What the peer puts on its records; empty for nothing.
    pub(super) fn own_id(&self) -> &ConnectionId {
        self.read.id()
    }

    fn repeat_last_flight(&mut self, now: Instant, path: Path, finished_seq: u16, sink: &mut Sink) {
        let Some(last) = &mut self.last_flight else { return };
        if last.answers == finished_seq && now >= last.sent_at + LAST_FLIGHT_RESEND_MIN {
            last.sent_at = now;
            sink.stats.flights_resent += 1;
            let (sequence0, keys) = (&mut last.sequence0, Some(&mut self.write));
            last.flight.send(path, self.mtu as usize, sequence0, keys, sink);
        }
    }

    /// There is no renegotiation (RFC 5746 §4.5 allows the warning); said once.
    fn refuse_renegotiation(&mut self, path: Path, sink: &mut Sink) {
        if !std::mem::replace(&mut self.refused_renegotiation, true) {
            self.alert(path, WARNING, AlertDescription::NO_RENEGOTIATION, sink);
        }
    }
}

/// The peer is elsewhere from here on.
fn follow(to: Path, path: &mut Path, id: AssociationId, sink: &mut Sink) {
    let old = std::mem::replace(path, to);
    sink.stats.path_changes += 1;
    sink.event(id, Event::PathChanged { old: old.remote, new: to.remote });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::AddressChange;
    use crate::conn::flight::Item;
    use crate::crypto::{CipherSuite, TrafficKey};
    use crate::handshake::{Message, write_fragment};
    use crate::record::{CONTENT_BYTES_MAX, Records};

    /// The runner's `DTLS-RetransmitFinished-Fragmented`.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "a virtual clock starts somewhere")]
    fn a_repeated_finished_in_many_pieces_asks_for_our_last_flight_once() {
        let key = || TrafficKey::new(CipherSuite::Aes128GcmSha256, &[1; 16], &[2; 4]);
        let write = || WriteKeys::new(key(), ConnectionId::EMPTY, CONTENT_BYTES_MAX);
        let read = ReadKeys::new(key(), ConnectionId::EMPTY, 64, CONTENT_BYTES_MAX);
        let mut peer = write();
        let mut now = Instant::now();
        let flight = Flight::new(vec![Item::ChangeCipherSpec]);
        let last_flight = LastFlight::new(flight, 0, 5, now);
        let rules = PathRules {
            address_change: AddressChange::Never,
            return_routability: false,
            round_trip: None,
        };
        let mut open = Open::new(write(), read, 1_200, rules, None, Some(last_flight));
        let finished = Message::build(HandshakeType::FINISHED, 5, |w| w.extend([0; 12]));
        let mut path = Path::from(std::net::SocketAddr::from(([127, 0, 0, 1], 1)));
        let mut sink = Sink::default();
        for repetition in 1..4 {
            for offset in (0..12).step_by(2) {
                let (mut body, mut datagram) = (Vec::new(), Vec::new());
                write_fragment(&mut body, &finished, offset, 2);
                peer.seal(ContentType::HANDSHAKE, &body, &mut datagram).unwrap();
                let record = Records::new(&mut datagram).next().unwrap();
                now += LAST_FLIGHT_RESEND_MIN;
                let id = AssociationId::STANDALONE;
                let outcome = open.handle_record(now, path, &mut path, record, id, &mut sink);
                assert!(matches!(outcome, Ok(Outcome::Continue)));
            }
            assert_eq!(sink.stats.flights_resent, repetition);
        }
    }
}
