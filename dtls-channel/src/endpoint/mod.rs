//! Many associations behind one socket: demultiplexing, stateless cookies, limits, timers.
//!
//! A datagram belongs to the association whose connection id it carries; if it carries none, to that
//! of its source address.
//!
//! Owns no socket and no clock. Before a client has shown with a cookie that it receives at its
//! address, nothing is remembered of it and the answer is never longer than the question; but for
//! one that resumes a session from the host where that began.

#[cfg(feature = "testing")]
mod check;
mod cookie;
mod gather;
mod half_open;
mod hello;
mod ids;
mod slots;
mod tables;

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::cookie::CookieJar;
use self::gather::Gathering;
use self::half_open::{HalfOpen, Place};
pub use self::hello::CLIENT_HELLO_BYTES_MAX;
use self::hello::{FirstRecord, HelloPeek};
use self::slots::Slots;
use crate::config::Config;
use crate::conn::{Admitted, Connection, own_id};
use crate::crypto::NoRandom;
use crate::ecn::Ecn;
use crate::error::{CloseReason, ConnectError, SendError};
use crate::event::{AssociationId, Event, Path, Phase, canonical};
use crate::outbox::{Outbox, Sink};
use crate::record::ConnectionId;
use crate::resumption::{Resumable, Session};
use crate::stats::{DropCause, Stats};
use crate::wire::AlertDescription;

/// A handshake that took the place of another at its address gives way to a third no sooner than
/// this: each costs a signature. A client that starts anew is served at once.
const SUPERSEDE_INTERVAL: Duration = Duration::from_millis(250);

/// A handshake that we begin stands back for one that the peer begins at the same time after this,
/// whichever goes first by rule.
const GIVE_WAY_AFTER: Duration = Duration::from_secs(2);

/// What an [`Endpoint`] serves and how much of it.
#[derive(Debug, Clone)]
pub struct EndpointConfig {
    /// How incoming associations behave; `None` refuses them all.
    pub server: Option<Arc<Config>>,
    /// Associations that may exist at a time, half-open ones included. A client whose address has
    /// one already is let in beyond that, as its new one takes the old one's place.
    pub associations_max: usize,
    /// Incoming associations that may be in their handshake; beyond that the source (an IPv4
    /// address, an IPv6 /64) that has the most loses its oldest.
    pub half_open_max: usize,
    /// The first byte of the connection ids made here: where several endpoints share an address, it
    /// tells whose a datagram is.
    pub shard: u8,
}

impl Default for EndpointConfig {
    /// Serves nobody; 262,144 associations, 4,096 of them half-open. A half-open one holds at most
    /// 40 KiB (hello, certificate, reassembly, early records), so all of them 160 MiB at worst; an
    /// honest one holds about 5 KiB.
    fn default() -> Self {
        Self { server: None, associations_max: 1 << 18, half_open_max: 4_096, shard: 0 }
    }
}

/// All associations of one socket.
#[derive(Debug)]
pub struct Endpoint {
    config: EndpointConfig,
    slots: Slots<Slot>,
    by_address: HashMap<SocketAddr, Peers>,
    /// Where the last datagram for an open association came from, and which that is: the next one is mostly for it too.
    recent: Option<(SocketAddr, u32)>,
    /// By connection ids that were not made here, newest last; those made here need no table.
    by_given_id: Vec<(ConnectionId, u32)>,
    /// Incoming and not yet open.
    half_open: HalfOpen,
    deadlines: BTreeSet<(Instant, u32)>,
    generation: u32,
    cookies: CookieJar,
    sink: Sink,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    remote: SocketAddr,
    deadline: Option<Instant>,
    /// Present while in the handshake.
    pending: Option<Box<Pending>>,
    state: SlotState,
}

/// What is known of a handshake under way.
#[derive(Debug)]
struct Pending {
    /// Present if it is incoming.
    place: Option<Place>,
    begun_at: Instant,
    /// Whether it took the place of another handshake.
    superseded: bool,
}

impl Slot {
    /// An open association of which the tables say what is so.
    fn is_settled(&self) -> bool {
        let SlotState::Association(conn) = &self.state else { return false };
        conn.phase() == Phase::Open
            && self.pending.is_none()
            && conn.next_timeout().map(|(at, _)| at) == self.deadline
            && conn.path().remote == self.remote
    }

    /// The place of one that is incoming and in its handshake.
    fn half_open(&self) -> Option<&Place> {
        self.pending.as_ref()?.place.as_ref()
    }
}

#[expect(clippy::large_enum_variant, reason = "almost all of them are associations")]
#[derive(Debug)]
enum SlotState {
    /// A hello with a good cookie that came in pieces.
    Gathering(Box<Gathering>),
    Association(Connection),
}

/// The associations to be found by one address: at most one that is open, and one that may take its
/// place.
#[derive(Debug, Clone, Copy, Default)]
struct Peers {
    open: Option<u32>,
    pending: Option<u32>,
}

impl Endpoint {
    /// An endpoint without associations.
    ///
    /// # Errors
    /// Only if the system's random generator fails.
    pub fn new(now: Instant, config: EndpointConfig) -> Result<Self, NoRandom> {
        Ok(Self {
            config,
            slots: Slots::default(),
            by_address: HashMap::new(),
            recent: None,
            by_given_id: Vec::new(),
            half_open: HalfOpen::default(),
            deadlines: BTreeSet::new(),
            generation: 0,
            cookies: CookieJar::new(now)?,
            sink: Sink::default(),
        })
    }

    /// Counters since the beginning.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.sink.stats
    }

    /// How many associations exist, half-open ones included.
    #[must_use]
    pub fn associations(&self) -> usize {
        self.slots.len()
    }

    /// How many incoming associations are in their handshake.
    #[must_use]
    pub fn half_open(&self) -> usize {
        self.half_open.len()
    }

    /// Datagrams that wait to be sent.
    pub fn outbox(&mut self) -> &mut Outbox {
        &mut self.sink.outbox
    }

    /// The oldest event not yet taken.
    pub fn poll_event(&mut self) -> Option<(AssociationId, Event)> {
        self.sink.poll_event()
    }

    /// True while [`send`](Self::send) does not answer [`SendError::Full`].
    #[must_use]
    pub fn has_room(&self) -> bool {
        !self.sink.outbox.is_full()
    }

    /// True if [`poll_event`](Self::poll_event) has something.
    #[must_use]
    pub fn has_events(&self) -> bool {
        self.sink.has_events()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Begins an association with a server.
    ///
    /// # Errors
    /// If there is no room, no such address, or no randomness.
    pub fn connect(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        config: Arc<Config>,
    ) -> Result<AssociationId, ConnectError> {
        self.begin(now, remote, config, None)
    }

    /// Begins an association with a server by the session of an earlier one: a single round trip
    /// after the cookie, and no signature. Where the session cannot be used any more, by the
    /// server's or our own judgement, the handshake is a full one, as with
    /// [`connect`](Self::connect).
    ///
    /// A ticket makes the hello longer, and several servers take none that comes in pieces: if this
    /// fails where the ticket does not fit one datagram, connect without it.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn resume(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        config: Arc<Config>,
        session: Session,
    ) -> Result<AssociationId, ConnectError> {
        self.begin(now, remote, config, Some(session))
    }

    fn begin(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        config: Arc<Config>,
        session: Option<Session>,
    ) -> Result<AssociationId, ConnectError> {
        if remote.port() == 0 || remote.ip().is_unspecified() || remote.ip().is_multicast() {
            return Err(ConnectError::BadAddress(remote));
        }
        if self.slots.len() >= self.config.associations_max {
            return Err(ConnectError::NoRoom(self.config.associations_max));
        }
        let id = self.next_id();
        let path = Path::from(remote);
        let own_id = self.own_id(&config, false, id.index);
        let sink = &mut self.sink;
        let conn = Connection::client_with_id(now, id, path, config, own_id, session, sink)?;
        self.insert_pending(now, path, id, SlotState::Association(conn), false);
        self.settle(id.index);
        Ok(id)
    }

    /// Seals `message` into one record of its own datagram, but for one that goes with the end of a handshake that waits
    /// to be sent, and returns the record's number.
    ///
    /// # Errors
    /// See [`SendError`]; nothing was sent.
    pub fn send(&mut self, id: AssociationId, message: &[u8]) -> Result<u64, SendError> {
        let Some((conn, sink)) = self.lookup(id) else { return Err(SendError::Closed) };
        let sent = conn.send(message, sink);
        self.after_sending(id, sent)
    }

    /// For a caller that searches for the path MTU; see [`Connection::send_on_path`].
    ///
    /// # Errors
    /// See [`SendError`]; nothing was sent.
    pub fn send_on_path(
        &mut self,
        id: AssociationId,
        message: &[u8],
        fits: usize,
    ) -> Result<u64, SendError> {
        let Some((conn, sink)) = self.lookup(id) else { return Err(SendError::Closed) };
        let sent = conn.send_on_path(message, fits, sink);
        self.after_sending(id, sent)
    }

    fn after_sending(
        &mut self,
        id: AssociationId,
        sent: Result<u64, SendError>,
    ) -> Result<u64, SendError> {
        if sent == Err(SendError::KeysExhausted) {
            self.settle(id.index);
        }
        sent
    }

    /// The number that the association's next message will have; `None` unless it is open.
    #[must_use]
    pub fn next_sequence(&self, id: AssociationId) -> Option<u64> {
        self.connection(id)?.next_sequence()
    }

    /// For tests of what happens when numbers run out: the association's next record has this one,
    /// as if so many had been sent. To go back would use a nonce twice.
    #[cfg(feature = "testing")]
    pub fn preset_sequence(&mut self, id: AssociationId, next: u64) {
        if let Some((conn, _)) = self.lookup(id) {
            conn.preset_sequence(next);
        }
    }

    /// The longest message that fits one datagram, in bytes; 0 unless the association is open.
    #[must_use]
    pub fn message_size_max(&self, id: AssociationId) -> usize {
        self.connection(id).map_or(0, Connection::message_size_max)
    }

    /// The longest message that fits a datagram of so many bytes; see
    /// [`Connection::message_size_for`].
    #[must_use]
    pub fn message_size_for(&self, id: AssociationId, datagram_bytes: usize) -> usize {
        self.connection(id).map_or(0, |conn| conn.message_size_for(datagram_bytes))
    }

    /// Sets the largest datagram to send to one peer; see [`Connection::set_path_mtu`].
    pub fn set_path_mtu(&mut self, id: AssociationId, bytes: usize) {
        if let Some((conn, _)) = self.lookup(id) {
            conn.set_path_mtu(bytes);
        }
    }

    /// Marks the datagrams of an association's messages sent from here on; see [`Connection::set_ecn`].
    pub fn set_ecn(&mut self, id: AssociationId, ecn: Ecn) {
        if let Some((conn, _)) = self.lookup(id) {
            conn.set_ecn(ecn);
        }
    }

    /// The peer's address, while the association exists.
    #[must_use]
    pub fn remote(&self, id: AssociationId) -> Option<SocketAddr> {
        self.connection(id).map(|conn| conn.path().remote)
    }

    /// Sets the first resend interval of one handshake; see [`Connection::set_first_resend`].
    pub fn set_first_resend(&mut self, id: AssociationId, first: Duration) {
        if let Some((conn, _)) = self.lookup(id) {
            conn.set_first_resend(first);
            self.settle(id.index);
        }
    }

    /// Ends an association by a fatal alert; its `Closed` event follows.
    pub fn close_with_alert(&mut self, id: AssociationId, what: AlertDescription) {
        if let Some((conn, sink)) = self.lookup(id) {
            conn.close_with_alert(what, sink);
            self.settle(id.index);
        }
    }

    /// Ends an association; the peer is told once. Its `Closed` event follows.
    pub fn close(&mut self, id: AssociationId) {
        if let Some((conn, sink)) = self.lookup(id) {
            conn.close(CloseReason::Local, sink);
            self.settle(id.index);
        }
    }

    /// Answers no more hellos. Associations that are open or being opened go on; who wants a new one tries again, and
    /// finds whoever serves at this address by then.
    pub fn stop_serving(&mut self) {
        self.config.server = None;
    }

    /// Ends every association.
    pub fn close_all(&mut self) {
        let all: Vec<u32> = self.slots.iter().map(|(index, _)| index).collect();
        for index in all {
            if let Some(slot) = self.slots.get_mut(index) {
                match &mut slot.state {
                    SlotState::Association(conn) => conn.close(CloseReason::Local, &mut self.sink),
                    SlotState::Gathering(gathering) => gathering.abandon(),
                }
                self.settle(index);
            }
        }
    }

    /// Takes a datagram from the network, decrypting it in place.
    pub fn handle_datagram(&mut self, now: Instant, path: Path, datagram: &mut [u8]) {
        self.handle_marked_datagram(now, path, Ecn::NotEct, datagram);
    }

    /// The same for a datagram of which is known what its IP header said.
    pub fn handle_marked_datagram(
        &mut self,
        now: Instant,
        path: Path,
        ecn: Ecn,
        datagram: &mut [u8],
    ) {
        self.sink.incoming_ecn = ecn;
        self.sink.stats.datagrams_in += 1;
        self.sink.stats.bytes_in += datagram.len() as u64;
        if let Some((remote, index)) = self.recent
            && remote == path.remote
            && hello::begins_with_data(datagram)
        {
            self.deliver(now, index, path, datagram);
            return;
        }
        self.route(now, path, datagram);
    }

    /// Finds out whose a datagram is.
    fn route(&mut self, now: Instant, path: Path, datagram: &mut [u8]) {
        let first = hello::peek(datagram);
        if matches!(first, FirstRecord::Plain | FirstRecord::Protected)
            && let Some(index) = self.find_by_id(datagram)
        {
            self.deliver(now, index, path, datagram);
            return;
        }
        let peers = self.by_address.get(&canonical(path.remote)).copied().unwrap_or_default();
        match first {
            FirstRecord::None => self.drop_one(DropCause::Malformed),
            FirstRecord::Hello(hello) => self.handle_hello(now, path, peers, &hello, datagram),
            FirstRecord::Plain | FirstRecord::Protected => match (peers.open, peers.pending) {
                (Some(open), Some(pending)) => {
                    // Rare: opening destroys what it cannot authenticate. A datagram may begin with
                    // clear records and still be about the open association: a repeated flight.
                    let mut copy = datagram.to_vec();
                    if !self.deliver(now, open, path, datagram) {
                        self.deliver(now, pending, path, &mut copy);
                    }
                }
                (Some(open), None) => {
                    self.recent = Some((path.remote, open));
                    self.deliver(now, open, path, datagram);
                }
                (None, Some(pending)) => {
                    self.deliver(now, pending, path, datagram);
                }
                (None, None) => self.drop_one(DropCause::Unknown),
            },
        }
    }

    /// Does everything that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, index)) = self.deadlines.first().copied() {
            if at > now {
                return;
            }
            let Some(slot) = self.slots.get_mut(index) else {
                self.deadlines.pop_first();
                continue;
            };
            match &mut slot.state {
                SlotState::Association(conn) => conn.handle_timeout(now, &mut self.sink),
                SlotState::Gathering(gathering) => gathering.abandon(),
            }
            self.settle(index);
        }
    }

    fn drop_one(&mut self, cause: DropCause) {
        self.sink.stats.drops.count(cause);
    }

    fn handle_hello(
        &mut self,
        now: Instant,
        path: Path,
        peers: Peers,
        hello: &HelloPeek,
        datagram: &mut [u8],
    ) {
        // A late copy of the hello that began what is open by now.
        if let (Some(open), Some(prefix)) = (peers.open, &hello.prefix)
            && let Some(Slot { state: SlotState::Association(conn), .. }) = self.slots.get(open)
            && conn.began_with(&prefix.random, hello.message_seq)
        {
            return self.drop_one(DropCause::StaleMessage);
        }
        // More of a hello that is being put together, or a repetition of one that was answered.
        if let Some(index) = peers.pending
            && let Some(slot) = self.slots.get_mut(index)
        {
            match &mut slot.state {
                SlotState::Gathering(gathering) if gathering.continues(hello) => {
                    return self.gather(now, index, datagram);
                }
                SlotState::Association(conn)
                    if hello
                        .prefix
                        .as_ref()
                        .is_some_and(|p| conn.began_with(&p.random, hello.message_seq)) =>
                {
                    self.deliver(now, index, path, datagram);
                    return;
                }
                _ => {}
            }
        }
        let Some(config) = self.config.server.clone() else {
            return self.drop_one(DropCause::NotServing);
        };
        let Some(prefix) = &hello.prefix else {
            // A later piece of a hello whose first piece we have not verified.
            return self.drop_one(DropCause::Unknown);
        };
        let opened = self.spares_cookie(&config, path, peers, hello, datagram);
        if opened.is_some() {
            self.sink.stats.cookies_spared += 1;
        } else if !self.cookies.verify(now, path.remote, prefix, hello.offer(datagram)) {
            if !prefix.cookie.is_empty() {
                self.drop_one(DropCause::BadCookie);
            }
            let cookie = self.cookies.make(now, path.remote, prefix, hello.offer(datagram));
            if self.sink.outbox.is_full() {
                return self.drop_one(DropCause::NotSent);
            }
            let sink = &mut self.sink;
            sink.stats.cookies_sent += 1;
            sink.datagram(path, |out| hello.write_verify_request(&cookie, out));
            return;
        }
        if let Some(cause) = self.stays(now, peers.pending, &prefix.random) {
            return self.drop_one(cause);
        }
        if !self.make_room(path, peers) {
            return self.drop_one(DropCause::NoRoom);
        }
        let id = self.next_id();
        if hello.is_whole() {
            let record_sequence = hello.record_sequence;
            match hello.message(datagram) {
                Some(hello) => {
                    let admitted = Admitted { hello, record_sequence, opened };
                    self.admit(now, id, path, config, admitted);
                }
                None => self.drop_one(DropCause::Malformed),
            }
        } else {
            let deadline = now + config.timers.give_up;
            let gathering = Gathering::new(hello, path, deadline);
            self.insert_pending(now, path, id, SlotState::Gathering(Box::new(gathering)), true);
            self.gather(now, id.index, datagram);
        }
    }

    /// What the ticket holds of a hello that may begin a handshake without a cookie: it resumes a session from the
    /// address where that began, takes no other handshake's place, and there is room to spare.
    fn spares_cookie(
        &self,
        config: &Config,
        path: Path,
        peers: Peers,
        hello: &HelloPeek,
        datagram: &[u8],
    ) -> Option<Resumable> {
        let may = hello.prefix.as_ref().is_some_and(|prefix| prefix.cookie.is_empty())
            && peers.pending.is_none()
            && self.half_open.len() < self.config.half_open_max / 2;
        may.then(|| hello.resumable_from(config, path.remote.ip(), datagram)).flatten()
    }

    fn gather(&mut self, now: Instant, index: u32, datagram: &mut [u8]) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        let SlotState::Gathering(gathering) = &mut slot.state else { return };
        let message = gathering.take(datagram, &mut self.sink);
        let (path, sequence) = (gathering.path(), gathering.record_sequence());
        let Some(message) = message else { return self.settle(index) };
        let Some(config) = self.config.server.clone() else { return };
        // The whole is there now, so the part of the cookie that covers the offer can be checked.
        let good = hello::prefix_and_offer(message.body()).is_some_and(|(prefix, offer)| {
            self.cookies.verify(now, path.remote, &prefix, Some(offer))
        });
        if !good {
            self.remove(index);
            return self.drop_one(DropCause::BadCookie);
        }
        let id = AssociationId { index, generation: slot.generation };
        let (own_id, sink) =
            (own_id(&config, true, || ids::make(self.config.shard, index)), &mut self.sink);
        let admitted = Admitted { hello: message, record_sequence: sequence, opened: None };
        let conn = Connection::server(now, id, path, config, own_id, admitted, sink);
        slot.state = SlotState::Association(conn);
        self.register_given_id(index);
        self.settle(index);
    }

    fn admit(
        &mut self,
        now: Instant,
        id: AssociationId,
        path: Path,
        config: Arc<Config>,
        admitted: Admitted,
    ) {
        let own_id = self.own_id(&config, true, id.index);
        let sink = &mut self.sink;
        let conn = Connection::server(now, id, path, config, own_id, admitted, sink);
        self.insert_pending(now, path, id, SlotState::Association(conn), true);
        self.settle(id.index);
    }

    /// Whether the handshake under way at an address stays in spite of a good hello from there, and
    /// what that hello is then.
    fn stays(
        &self,
        now: Instant,
        pending: Option<u32>,
        client_random: &[u8; 32],
    ) -> Option<DropCause> {
        let slot = self.slots.get(pending?)?;
        let pending = slot.pending.as_ref()?;
        if pending.place.is_some() {
            let soon = pending.superseded && now < pending.begun_at + SUPERSEDE_INTERVAL;
            return soon.then_some(DropCause::TooSoon);
        }
        // Both sides connect at once. They have the same two hellos to compare, so one goes on as
        // client and the other gives way; but not for long to a peer that does not answer.
        let SlotState::Association(conn) = &slot.state else { return None };
        let ours_goes_first =
            conn.goes_before(client_random) && now < pending.begun_at + GIVE_WAY_AFTER;
        ours_goes_first.then_some(DropCause::Crossed)
    }

    fn is_half_open(&self, index: Option<u32>) -> bool {
        let slot = index.and_then(|index| self.slots.get(index));
        slot.is_some_and(|slot| slot.half_open().is_some())
    }

    /// Makes room for an incoming association, by evicting a half-open one where the cap asks for
    /// it. One that is to take another's place needs none.
    fn make_room(&mut self, path: Path, peers: Peers) -> bool {
        if !self.is_half_open(peers.pending) {
            while self.half_open.len() >= self.config.half_open_max {
                let Some(victim) = self.half_open.victim(path.remote) else { return false };
                let Some(slot) = self.slots.get_mut(victim.index) else { return false };
                self.sink.stats.half_open_evicted += 1;
                match &mut slot.state {
                    SlotState::Association(conn) => {
                        conn.abandon(CloseReason::Evicted, &mut self.sink);
                    }
                    SlotState::Gathering(gathering) => gathering.abandon(),
                }
                self.settle(victim.index);
            }
        }
        let replaces = peers.open.is_some() || peers.pending.is_some();
        replaces || self.slots.len() < self.config.associations_max
    }

    /// Gives a datagram to an association; true if it used any record of it.
    fn deliver(&mut self, now: Instant, index: u32, from: Path, datagram: &mut [u8]) -> bool {
        let Some(slot) = self.slots.get_mut(index) else { return false };
        let SlotState::Association(conn) = &mut slot.state else {
            self.sink.stats.drops.count(DropCause::Unknown);
            return false;
        };
        let used = conn.handle_datagram_from(now, from, datagram, &mut self.sink);
        if !slot.is_settled() {
            self.settle(index);
        }
        used
    }

    fn connection(&self, id: AssociationId) -> Option<&Connection> {
        let slot = self.slots.get(id.index).filter(|s| s.generation == id.generation)?;
        match &slot.state {
            SlotState::Association(conn) => Some(conn),
            SlotState::Gathering(_) => None,
        }
    }

    fn lookup(&mut self, id: AssociationId) -> Option<(&mut Connection, &mut Sink)> {
        let slot = self.slots.get_mut(id.index).filter(|s| s.generation == id.generation)?;
        match &mut slot.state {
            SlotState::Association(conn) => Some((conn, &mut self.sink)),
            SlotState::Gathering(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Design goal: an idle association is under 1 KiB. Address table and timers included it is far
    /// below; a field that is added thoughtlessly shows here.
    #[test]
    fn an_idle_association_takes_less_than_half_a_kibibyte() {
        let tables = size_of::<(SocketAddr, Peers)>() + size_of::<AssociationId>();
        let bytes = size_of::<Slot>() + 2 * tables;
        assert!(bytes <= 512, "{bytes} bytes, the slot alone {}", size_of::<Slot>());
    }
}
