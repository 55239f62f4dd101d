use std::time::{Duration, Instant};

use super::flight::Flight;
use super::handshake::Outcome;
use crate::error::{CloseReason, SendError};
use crate::event::{AssociationId, Path};
use crate::handshake::fragments;
use crate::outbox::Sink;
use crate::record::{ReadKeys, Record, WriteKeys};
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
    mtu: u32,
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
    pub(super) fn new(flight: Flight, sequence0: u64, answers: u16, now: Instant) -> Self {
        let kept_until = now + LAST_FLIGHT_LIFETIME;
        Self { flight, sequence0, answers, sent_at: now, kept_until }
    }
}

impl Open {
    pub(super) fn new(
        write: WriteKeys,
        read: ReadKeys,
        mtu: usize,
        began_with: Option<&[u8; 32]>,
        last_flight: Option<LastFlight>,
    ) -> Self {
        Self {
            write,
            read,
            mtu: mtu as u32,
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

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.last_flight.as_ref().map(|last| last.kept_until)
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.last_flight.take_if(|last| last.kept_until <= now);
    }

    pub(super) fn next_sequence(&self) -> u64 {
        self.write.next_sequence()
    }

    #[cfg(feature = "testing")]
    pub(super) fn preset_sequence(&mut self, next: u64) {
        self.write.preset_sequence(next);
    }

    pub(super) fn message_size_max(&self) -> usize {
        (self.mtu as usize).saturating_sub(self.write.overhead()).min(self.write.content_max())
    }

    pub(super) fn send(
        &mut self,
        path: Path,
        message: &[u8],
        sink: &mut Sink,
    ) -> Result<u64, SendError> {
        let limit = self.message_size_max();
        if message.len() > limit {
            return Err(SendError::TooLarge { length: message.len(), limit });
        }
        if sink.outbox.is_full() {
            return Err(SendError::Full);
        }
        if self.write.remaining() <= RECORDS_RESERVED {
            return Err(SendError::KeysExhausted);
        }
        let kind = ContentType::APPLICATION_DATA;
        sink.datagram(path, |out| self.write.seal(kind, message, out))
            .ok_or(SendError::KeysExhausted)
    }

    pub(super) fn say_goodbye(&mut self, path: Path, sink: &mut Sink) {
        self.alert(path, WARNING, AlertDescription::CLOSE_NOTIFY, sink);
    }

    fn alert(&mut self, path: Path, level: u8, what: AlertDescription, sink: &mut Sink) {
        sink.datagram(path, |out| self.write.seal(ContentType::ALERT, &[level, what.0], out));
    }

    pub(super) fn handle_record(
        &mut self,
        now: Instant,
        path: Path,
        record: Record<'_>,
        id: AssociationId,
        sink: &mut Sink,
    ) -> Result<Outcome, DropCause> {
        if record.epoch == 0 {
            return Err(DropCause::Unprotected);
        }
        let opened = self.read.open(record)?;
        match opened.content_type {
            ContentType::APPLICATION_DATA => {
                if !opened.content.is_empty() {
                    sink.message(id, opened.sequence, opened.content);
                }
                Ok(Outcome::Continue)
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conn::flight::Item;
    use crate::crypto::{CipherSuite, TrafficKey};
    use crate::handshake::{Message, write_fragment};
    use crate::record::{CONTENT_BYTES_MAX, Records};

    /// The runner's `DTLS-RetransmitFinished-Fragmented`.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "a virtual clock starts somewhere")]
    fn a_repeated_finished_in_many_pieces_asks_for_our_last_flight_once() {
        let key = || TrafficKey::new(CipherSuite::Aes128GcmSha256, &[1; 16], &[2; 4]);
        let write = || WriteKeys::new(key(), CONTENT_BYTES_MAX);
        let (mut peer, read) = (write(), ReadKeys::new(key(), 64, CONTENT_BYTES_MAX));
        let mut now = Instant::now();
        let flight = Flight::new(vec![Item::ChangeCipherSpec]);
        let last_flight = LastFlight::new(flight, 0, 5, now);
        let mut open = Open::new(write(), read, 1_200, None, Some(last_flight));
        let finished = Message::build(HandshakeType::FINISHED, 5, |w| w.extend([0; 12]));
        let path = std::net::SocketAddr::from(([127, 0, 0, 1], 1)).into();
        let mut sink = Sink::default();
        for repetition in 1..4 {
            for offset in (0..12).step_by(2) {
                let (mut body, mut datagram) = (Vec::new(), Vec::new());
                write_fragment(&mut body, &finished, offset, 2);
                peer.seal(ContentType::HANDSHAKE, &body, &mut datagram).unwrap();
                let record = Records::new(&mut datagram).next().unwrap();
                now += LAST_FLIGHT_RESEND_MIN;
                let outcome =
                    open.handle_record(now, path, record, AssociationId::STANDALONE, &mut sink);
                assert!(matches!(outcome, Ok(Outcome::Continue)));
            }
            assert_eq!(sink.stats.flights_resent, repetition);
        }
    }
}
