//! One association with one peer: handshake, then records. Owns no socket, clock or task.
//!
//! After any `&mut` call, drain the [`Sink`](crate::Sink) and read
//! [`next_timeout`](Connection::next_timeout).

mod client;
mod ending;
mod flight;
mod handshake;
mod ids;
mod keys;
mod open;
#[cfg(all(test, feature = "testing"))]
mod orders;
mod path;
mod record_limits;
pub(crate) mod resume;
mod server;
#[cfg(all(test, feature = "testing"))]
mod transitions;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use handshake::EARLY_BYTES_MAX;
use handshake::{Handshake, Outcome};
pub(crate) use ids::{MADE_ID_BYTES, own_id};
use open::{FATAL, Open};

use crate::config::{Config, MTU_MAX, MTU_MIN};
use crate::crypto::NoRandom;
use crate::ecn::Ecn;
use crate::error::{CloseReason, SendError};
use crate::event::{AssociationId, Event, Path, Phase, TimerKind};
use crate::handshake::Message;
use crate::outbox::Sink;
use crate::record::{ConnectionId, Records};
use crate::resumption::{Resumable, Session};
use crate::stats::DropCause;
use crate::wire::AlertDescription;

/// One DTLS 1.2 association.
///
/// Memory: about 300 bytes when open; during the handshake at most
/// [`ASSOCIATION_REASSEMBLY_BYTES_MAX`](crate::ASSOCIATION_REASSEMBLY_BYTES_MAX) and
/// [`EARLY_BYTES_MAX`] on top of the messages themselves.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub struct Connection {
    id: AssociationId,
    path: Path,
    state: State,
}

/// A hello whose cookie was good, or that needs none.
pub(crate) struct Admitted {
    pub(crate) hello: Message,
    /// Of the record that it came in, or that its first piece did.
    pub(crate) record_sequence: u64,
    /// What its ticket holds, if that was looked at already.
    pub(crate) opened: Option<Resumable>,
}

#[expect(clippy::large_enum_variant, reason = "almost all of them are open")]
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
enum State {
    Handshake(Box<Handshake>),
    Open(Open),
    Closed,
}

impl Connection {
    /// Begins a handshake as client; the first flight goes to `sink` at once.
    ///
    /// # Errors
    /// Only if the system's random generator fails.
    pub fn client(
        now: Instant,
        id: AssociationId,
        path: Path,
        config: Arc<Config>,
        sink: &mut Sink,
    ) -> Result<Self, NoRandom> {
        let own_id = own_id(&config, false, ids::random_id);
        Self::client_with_id(now, id, path, config, own_id, None, sink)
    }

    /// Begins a handshake as client that resumes a session, if both sides still like it; otherwise
    /// it becomes a full one.
    ///
    /// # Errors
    /// Only if the system's random generator fails.
    pub fn resume(
        now: Instant,
        id: AssociationId,
        path: Path,
        config: Arc<Config>,
        session: Session,
        sink: &mut Sink,
    ) -> Result<Self, NoRandom> {
        let own_id = own_id(&config, false, ids::random_id);
        Self::client_with_id(now, id, path, config, own_id, Some(session), sink)
    }

    /// Like [`client`](Self::client) or [`resume`](Self::resume), with an id by which the caller will
    /// know the records.
    pub(crate) fn client_with_id(
        now: Instant,
        id: AssociationId,
        path: Path,
        config: Arc<Config>,
        own_id: Option<ConnectionId>,
        session: Option<Session>,
        sink: &mut Sink,
    ) -> Result<Self, NoRandom> {
        let handshake = Handshake::client(now, path, config, own_id, session, sink)?;
        Ok(Self { id, path, state: State::Handshake(Box::new(handshake)) })
    }

    /// Begins a handshake as server.
    pub(crate) fn server(
        now: Instant,
        id: AssociationId,
        path: Path,
        config: Arc<Config>,
        own_id: Option<ConnectionId>,
        admitted: Admitted,
        sink: &mut Sink,
    ) -> Self {
        let (handshake, outcome) = Handshake::server(now, path, config, own_id, admitted, sink);
        let mut this = Self { id, path, state: State::Handshake(Box::new(handshake)) };
        this.settle(outcome, sink);
        this
    }

    /// Waits for a client's hello, without asking for a cookie.
    ///
    /// For callers that know by other means that the peer receives at its address: whoever can
    /// spoof one makes this answer with more bytes than it was sent, and keep what it sent. An
    /// [`Endpoint`](crate::Endpoint) does this only for a session that is resumed where it began.
    #[must_use]
    pub fn server_without_cookie(
        now: Instant,
        id: AssociationId,
        path: Path,
        config: Arc<Config>,
        sink: &mut Sink,
    ) -> Self {
        let own_id = own_id(&config, true, ids::random_id);
        let handshake = Handshake::server_without_cookie(now, path, config, own_id, sink);
        Self { id, path, state: State::Handshake(Box::new(handshake)) }
    }

    /// Between which addresses it runs.
    #[must_use]
    pub fn path(&self) -> Path {
        self.path
    }

    /// How far it is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match &self.state {
            State::Handshake(_) => Phase::Handshaking,
            State::Open(_) => Phase::Open,
            State::Closed => Phase::Closed,
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due, and what for. An open association
    /// has a timer only for the first four minutes, and only on the side that spoke last, or while
    /// the peer seems to have another address.
    #[must_use]
    pub fn next_timeout(&self) -> Option<(Instant, TimerKind)> {
        match &self.state {
            State::Handshake(handshake) => handshake.next_timeout(),
            State::Open(open) => open.next_timeout(),
            State::Closed => None,
        }
    }

    /// Takes a datagram from the peer, decrypting it in place. True if any record of it was used;
    /// what was not is counted in the sink's [`Drops`](crate::Drops).
    pub fn handle_datagram(&mut self, now: Instant, datagram: &mut [u8], sink: &mut Sink) -> bool {
        self.handle_datagram_from(now, self.path, datagram, sink)
    }

    /// Like [`handle_datagram`](Self::handle_datagram), for a caller who knows that the datagram is
    /// for this association although it may come from another address than the peer's: by the
    /// connection id in it. [`AddressChange`](crate::AddressChange) says what follows from that.
    pub fn handle_datagram_from(
        &mut self,
        now: Instant,
        from: Path,
        datagram: &mut [u8],
        sink: &mut Sink,
    ) -> bool {
        let mut used = false;
        let mut records = Records::with_id_length(datagram, self.own_connection_id().len());
        for record in records.by_ref() {
            let outcome = match &mut self.state {
                State::Handshake(handshake) => handshake.handle_record(now, record, sink),
                State::Open(open) => {
                    open.handle_record(now, from, &mut self.path, record, self.id, sink)
                }
                State::Closed => Err(DropCause::Closed),
            };
            match outcome {
                Ok(outcome) => {
                    used = true;
                    self.settle(outcome, sink);
                }
                Err(cause) => sink.stats.drops.count(cause),
            }
        }
        if records.has_rest() {
            sink.stats.drops.count(DropCause::Malformed);
        }
        if let State::Handshake(handshake) = &mut self.state {
            handshake.end_of_datagram(now, sink);
        }
        used
    }

    /// Does what is due: resends the flight, gives up, forgets what is not asked for any more, or
    /// goes on with a check of the peer's address.
    pub fn handle_timeout(&mut self, now: Instant, sink: &mut Sink) {
        match &mut self.state {
            State::Handshake(handshake) => {
                let outcome = handshake.handle_timeout(now, sink);
                self.settle(outcome, sink);
            }
            State::Open(open) => open.handle_timeout(now, self.path, sink),
            State::Closed => {}
        }
    }

    /// What the peer is to put on its protected records; empty for nothing.
    pub(crate) fn own_connection_id(&self) -> &ConnectionId {
        const NOBODY: &ConnectionId = &ConnectionId::EMPTY;
        match &self.state {
            State::Handshake(handshake) => handshake.core.ids.own(),
            State::Open(open) => open.own_id(),
            State::Closed => NOBODY,
        }
    }

    fn settle(&mut self, outcome: Outcome, sink: &mut Sink) {
        match outcome {
            Outcome::Continue => {}
            Outcome::Opened(opened) => {
                sink.stats.handshakes_completed += 1;
                sink.stats.handshakes_resumed += u64::from(opened.established.resumed);
                self.state = State::Open(opened.open);
                sink.event(self.id, Event::Established(Box::new(opened.established)));
                for (sequence, data, ecn) in opened.early {
                    sink.event(self.id, Event::Message { sequence, data, ecn });
                }
            }
            Outcome::Closed(reason) => self.end(reason, sink),
        }
    }

    /// Seals `message` into one record and returns its sequence number.
    ///
    /// # Errors
    /// See [`SendError`]; nothing was sent.
    pub fn send(&mut self, message: &[u8], sink: &mut Sink) -> Result<u64, SendError> {
        let limit = self.message_size_max();
        self.send_up_to(limit, message, sink)
    }

    /// [`send`](Self::send) for a caller that searches for the path MTU itself: messages of up to
    /// `fits` bytes are believed to fit a datagram from here on, and a longer one is a probe that
    /// is sent all the same, in a datagram that no other is joined to.
    ///
    /// # Errors
    /// See [`SendError`]; nothing was sent. `TooLarge` is what exceeds a datagram of [`MTU_MAX`] or
    /// what the peer takes (RFC 8449).
    pub fn send_on_path(
        &mut self,
        message: &[u8],
        fits: usize,
        sink: &mut Sink,
    ) -> Result<u64, SendError> {
        if let State::Open(open) = &mut self.state {
            open.set_mtu(open.datagram_size(fits).clamp(MTU_MIN, MTU_MAX));
        }
        if message.len() <= fits {
            return self.send(message, sink);
        }
        sink.outbox.end_run();
        let sent = self.send_up_to(self.message_size_for(MTU_MAX), message, sink);
        sink.outbox.end_run();
        sent
    }

    fn send_up_to(
        &mut self,
        limit: usize,
        message: &[u8],
        sink: &mut Sink,
    ) -> Result<u64, SendError> {
        match &mut self.state {
            State::Handshake(_) => Err(SendError::NotOpen),
            State::Closed => Err(SendError::Closed),
            State::Open(open) => {
                let sent = open.send(self.path, message, limit, sink);
                if sent == Err(SendError::KeysExhausted) {
                    open.say_goodbye(self.path, sink);
                    self.end(CloseReason::KeysExhausted, sink);
                }
                sent
            }
        }
    }

    /// The sequence number that the next message will have; `None` unless open.
    #[must_use]
    pub fn next_sequence(&self) -> Option<u64> {
        match &self.state {
            State::Open(open) => Some(open.next_sequence()),
            State::Handshake(_) | State::Closed => None,
        }
    }

    /// Lets the next record have this number, as if so many had been sent.
    #[cfg(feature = "testing")]
    pub(crate) fn preset_sequence(&mut self, next: u64) {
        if let State::Open(open) = &mut self.state {
            open.preset_sequence(next);
        }
    }

    /// The longest message that fits one datagram, in bytes; 0 unless open.
    #[must_use]
    pub fn message_size_max(&self) -> usize {
        match &self.state {
            State::Open(open) => open.message_size_max(),
            State::Handshake(_) | State::Closed => 0,
        }
    }

    /// The longest message that fits a datagram of so many bytes, and that the peer takes; 0 unless
    /// open.
    #[must_use]
    pub fn message_size_for(&self, datagram_bytes: usize) -> usize {
        match &self.state {
            State::Open(open) => open.message_size_for(datagram_bytes),
            State::Handshake(_) | State::Closed => 0,
        }
    }

    /// Sets the largest datagram to send, in bytes of UDP payload, brought into
    /// [`MTU_MIN`]`..=`[`MTU_MAX`]: what the caller has learned of the path. Flights that are
    /// repeated are cut anew.
    pub fn set_path_mtu(&mut self, bytes: usize) {
        let bytes = bytes.clamp(MTU_MIN, MTU_MAX);
        match &mut self.state {
            State::Handshake(handshake) => handshake.core.set_mtu(bytes),
            State::Open(open) => open.set_mtu(bytes),
            State::Closed => {}
        }
    }

    /// Marks the datagrams of messages sent from here on: only for a caller who learns what arrives how, and slows down
    /// for [`Ecn::Ce`] (RFC 8085 §3.1.7). They are [`Ecn::NotEct`] until this is called on an open association; whatever the
    /// engine itself sends always is, but for the end of a handshake, which the first message goes with.
    pub fn set_ecn(&mut self, ecn: Ecn) {
        if let State::Open(open) = &mut self.state {
            open.set_ecn(ecn);
        }
    }

    /// Sets the first resend interval of a handshake under way, kept between
    /// [`RESEND_MIN`](crate::RESEND_MIN) and [`WAIT_MAX`](crate::WAIT_MAX): what the caller has learned
    /// of the path's round-trip time. Its doublings so far hold for the new interval too, and the
    /// running timer counts from when the flight was sent, so it may be due at once.
    pub fn set_first_resend(&mut self, first: Duration) {
        if let State::Handshake(handshake) = &mut self.state {
            handshake.core.set_first_resend(first);
        }
    }

    /// Ends the association by a fatal alert: the application has found that the peer breaks a rule of
    /// its own. The peer is told, once, and unacknowledged.
    pub fn close_with_alert(&mut self, what: AlertDescription, sink: &mut Sink) {
        match &mut self.state {
            State::Closed => return,
            State::Open(open) => open.alert(self.path, FATAL, what, sink),
            State::Handshake(handshake) => handshake.core.alert(what, sink),
        }
        self.end(CloseReason::Local, sink);
    }

    /// Ends the association: the peer is told, once, and unacknowledged.
    pub fn close(&mut self, reason: CloseReason, sink: &mut Sink) {
        match &mut self.state {
            State::Closed => return,
            State::Open(open) => open.say_goodbye(self.path, sink),
            State::Handshake(handshake) => handshake.say_goodbye(sink),
        }
        self.end(reason, sink);
    }

    /// Ends the association without a word to the peer.
    pub(crate) fn abandon(&mut self, reason: CloseReason, sink: &mut Sink) {
        if !matches!(self.state, State::Closed) {
            self.end(reason, sink);
        }
    }

    fn end(&mut self, reason: CloseReason, sink: &mut Sink) {
        if matches!(self.state, State::Handshake(_)) {
            sink.stats.handshakes_failed += 1;
        }
        self.state = State::Closed;
        sink.forget_keys();
        sink.event(self.id, Event::Closed(reason));
    }

    /// Of two clients that connect to each other at once, the one with the greater random goes
    /// first: true if this is a client's handshake, and goes before the peer's.
    pub(crate) fn goes_before(&self, client_random: &[u8; 32]) -> bool {
        match &self.state {
            State::Handshake(handshake) => handshake.goes_before(client_random),
            State::Open(_) | State::Closed => false,
        }
    }

    /// Bytes that wait in unfinished handshake messages, and in records that came too early.
    #[cfg(feature = "testing")]
    pub(crate) fn held_bytes(&self) -> [usize; 2] {
        match &self.state {
            State::Handshake(handshake) => handshake.held_bytes(),
            State::Open(_) | State::Closed => [0, 0],
        }
    }

    /// True if this is a server's association, and this hello, or one before it in the same cookie
    /// exchange, is what began it.
    pub(crate) fn began_with(&self, client_random: &[u8; 32], message_seq: u16) -> bool {
        match &self.state {
            State::Handshake(handshake) => handshake.began_with(client_random, message_seq),
            State::Open(open) => open.began_with(client_random),
            State::Closed => false,
        }
    }
}
