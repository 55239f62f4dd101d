//! A session of ours as a [`Peer`]: without DTLS, whose bytes and round trip are there all the same.

use std::time::{Duration, Instant};

use bytes::Bytes;
use metadata_delivery::{Document, Ecn, Event, Session, SessionConfig, testing::name};

use crate::world::Peer;

/// What DTLS puts around a packet: record header, explicit nonce, tag. The first eight bytes of it
/// are used for the packet number.
pub(crate) const RECORD_BYTES: usize = 13 + 8 + 16;
/// Largest UDP payload on a path of 1,500 bytes, and what handshakes get through at first.
const DATAGRAM_BYTES_MAX: usize = 1_472;
const DATAGRAM_BYTES: usize = 1_200;

pub(crate) struct Ours {
    session: Session,
    number: u64,
    packet: Vec<u8>,
    sent: u64,
    received: u64,
    confirmed: u64,
}

impl Ours {
    /// A session right after the handshake, which has measured the round trip.
    pub(crate) fn new(now: Instant, round_trip: Duration) -> Self {
        let config = SessionConfig {
            payload_max: DATAGRAM_BYTES - RECORD_BYTES,
            payload_search_max: Some(DATAGRAM_BYTES_MAX - RECORD_BYTES),
            initial_rtt: round_trip,
            ecn: true,
            ..SessionConfig::default()
        };
        Self {
            session: Session::new(now, config),
            number: 1,
            packet: Vec::new(),
            sent: 0,
            received: 0,
            confirmed: 0,
        }
    }

    fn take_events(&mut self, now: Instant) {
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Received(document) => {
                    self.received += 1;
                    self.session.stored(now, &document.name, document.version);
                }
                Event::Stored { .. } => self.confirmed += 1,
                other => panic!("{other:?}"),
            }
        }
    }
}

impl Peer for Ours {
    fn is_ready(&self) -> bool {
        true
    }

    fn send(&mut self, now: Instant, body: Bytes) {
        self.sent += 1;
        // Names of their own: none supersedes another.
        let name = name(&format!("document/{}", self.sent));
        let offered = self.session.offer(now, Document { name, version: 1, body });
        offered.expect("the offer is taken");
    }

    fn received(&self) -> u64 {
        self.received
    }

    fn confirmed(&self) -> u64 {
        self.confirmed
    }

    fn handle(&mut self, now: Instant, ecn: dtls_channel::Ecn, datagram: &[u8]) {
        let (record, payload) = datagram.split_at(RECORD_BYTES);
        let number = u64::from_be_bytes(record[..8].try_into().expect("8 bytes"));
        let ecn = Ecn::from_bits(ecn.bits());
        let taken = self.session.handle_marked_packet(now, number, ecn, payload);
        taken.expect("an honest peer");
        self.take_events(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.session.handle_timeout(now);
        self.take_events(now);
    }

    fn next_timeout(&mut self) -> Option<Instant> {
        self.session.next_timeout()
    }

    fn transmit(&mut self, now: Instant, out: &mut Vec<u8>) -> bool {
        if !self.session.poll_transmit(now, self.number, &mut self.packet) {
            return false;
        }
        out.extend_from_slice(&self.number.to_be_bytes());
        out.resize(out.len() + RECORD_BYTES - 8, 0);
        out.extend_from_slice(&self.packet);
        self.number += 1;
        true
    }

    fn ecn(&self) -> dtls_channel::Ecn {
        dtls_channel::Ecn::from_bits(self.session.packet_ecn().bits())
    }
}
