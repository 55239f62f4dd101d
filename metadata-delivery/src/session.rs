//! One side of a session.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::{CloseCode, Document, Event, Limits, Name, OfferError, PacketError, Stats};

/// How a session behaves.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// Longest packet written, in bytes: what fits one datagram of the channel below. Clamped to
    /// [`PAYLOAD_BYTES_MIN`](crate::PAYLOAD_BYTES_MIN)..=[`PAYLOAD_BYTES_MAX`](crate::PAYLOAD_BYTES_MAX).
    pub payload_max: usize,
    /// After this long without a packet that asks for an acknowledgement, a PING is sent.
    pub keep_alive: Option<Duration>,
    /// After this long without an acknowledgement that is due, the peer is lost.
    pub peer_timeout: Duration,
    /// Round-trip time to assume until one is measured: that of the handshake below, if known.
    pub initial_rtt: Duration,
    /// What is accepted and held.
    pub limits: Limits,
}

/// 1,150-byte packets, no keep-alive, peer lost after 60 s, 333 ms round trip (RFC 9002 §6.2.2).
impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            payload_max: 1150,
            keep_alive: None,
            peer_timeout: Duration::from_secs(60),
            initial_rtt: Duration::from_millis(333),
            limits: Limits::default(),
        }
    }
}

/// One side of a session.
#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    events: VecDeque<Event>,
}

impl Session {
    /// A new session over a channel that was just established.
    pub fn new(_now: Instant, config: SessionConfig) -> Self {
        Self { config, events: VecDeque::new() }
    }

    /// Offers a document to the peer; sent and resent until the peer has stored or refused it.
    /// A newer version of the same name takes the place of one that is not stored yet.
    ///
    /// # Errors
    /// [`OfferError`]
    pub fn offer(&mut self, _now: Instant, _document: Document) -> Result<(), OfferError> {
        Ok(())
    }

    /// Gives up sending a document.
    pub fn withdraw(&mut self, _now: Instant, _name: &Name) {}

    /// Confirms to the peer that a received document is durable.
    pub fn stored(&mut self, _now: Instant, _name: &Name, _version: u64) {}

    /// Tells the peer that a received document will not be taken.
    pub fn refuse(
        &mut self,
        _now: Instant,
        _name: &Name,
        _version: u64,
        _code: u16,
        _reason: &str,
    ) {
    }

    /// Tells the peer why we hang up, and stops everything else. Drive on until
    /// [`is_closed`](Self::is_closed), at most about a second, then close the channel.
    pub fn close(&mut self, _now: Instant, _code: CloseCode, _reason: &str) {}

    /// Replaces the limits and tells the peer: how a stranger becomes known.
    pub fn set_limits(&mut self, _now: Instant, limits: Limits) {
        self.config.limits = limits;
    }

    /// Takes in a packet.
    ///
    /// # Errors
    /// [`PacketError`] when the peer broke a rule: close the session with its code.
    pub fn handle_packet(
        &mut self,
        _now: Instant,
        _packet_number: u64,
        _payload: &[u8],
    ) -> Result<(), PacketError> {
        Ok(())
    }

    /// Does what time has made due.
    pub fn handle_timeout(&mut self, _now: Instant) {}

    /// When [`handle_timeout`](Self::handle_timeout) is due next.
    pub fn next_timeout(&self) -> Option<Instant> {
        None
    }

    /// Writes the next packet into `out`, which is cleared first. False: nothing to send now.
    pub fn poll_transmit(
        &mut self,
        _now: Instant,
        _packet_number: u64,
        _out: &mut Vec<u8>,
    ) -> bool {
        false
    }

    /// The next thing the application has to know.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether nothing more will be sent or received.
    pub fn is_closed(&self) -> bool {
        false
    }

    /// Counters and gauges.
    pub fn stats(&self) -> Stats {
        Stats::default()
    }
}
