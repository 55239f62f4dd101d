//! What both roles' handshakes share: records in, flights out, timers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::flight::{Flight, Item};
use super::ids::Ids;
use super::open::{FATAL, LastFlight, Open};
use super::path::{self, PathRules};
use super::record_limits::RecordLimits;
use super::{Admitted, client, server};
use crate::config::{Config, RESEND_MIN, WAIT_MAX};
use crate::crypto::{Exporter, Group, MasterSecret, NoRandom, Randoms};
use crate::ecn::Ecn;
use crate::error::{CloseReason, Fault, PeerFault};
use crate::event::{Established, Path, TimerKind};
use crate::handshake::{Fragment, Message, Reassembler, Taken, fragments};
use crate::outbox::Sink;
#[cfg(feature = "testing")]
use crate::record::HEADER_LEN as RECORD_HEADER_LEN;
use crate::record::{ConnectionId, ReadKeys, Record, Records, WriteKeys, plaintext};
use crate::resumption::Session;
use crate::stats::DropCause;
use crate::wire::ids::{VERSION_1_0, VERSION_1_2};
use crate::wire::{AlertDescription, ContentType, HandshakeType};

/// Bytes of protected records that may wait for the keys or for Finished.
pub const EARLY_BYTES_MAX: usize = 8 * 1024;
/// How many of them.
const EARLY_RECORDS_MAX: usize = 8;
/// A repeated flight of the peer makes us repeat ours at most this often, as a share of the first
/// resend interval. The pause doubles with each answer.
const ANSWER_INTERVAL_SHARE: u32 = 4;
/// After this many resends without an answer datagrams may be too large for the path (RFC 6347
/// §4.1.1.1), so smaller ones are sent.
const RESENDS_BEFORE_SMALLER: u32 = 3;
/// Below every path MTU that is in use with IPv6 (1,280 bytes) even inside several tunnels, and still
/// enough for what is sent afterwards.
const SMALL_MTU: usize = 820;

/// What a full handshake says in all, with a short chain of small certificates.
pub(super) const TRANSCRIPT_BYTES_USUAL: usize = 2_048;
/// What the server and the client say in one that resumes a session, after the hello.
pub(super) const RESUMED_TRANSCRIPT_BYTES: usize = 256;

/// What handling a record led to.
pub(super) enum Outcome {
    Continue,
    Opened(Box<Opened>),
    Closed(CloseReason),
}

/// A finished handshake.
pub(super) struct Opened {
    pub(super) open: Open,
    pub(super) established: Established,
    /// Messages that came before the peer's Finished.
    pub(super) early: Vec<(u64, Bytes, Ecn)>,
}

/// What a role's step leads to.
pub(super) enum Next<S> {
    /// Another state, which waits for another message.
    State(S),
    /// The handshake is complete; the role says how it ended.
    Done(Summary),
}

/// What the roles know when they are done.
pub(super) struct Summary {
    pub(super) master: MasterSecret,
    pub(super) peer_certificate: Option<Vec<u8>>,
    pub(super) peer_fingerprint: Option<[u8; 32]>,
    /// `None` if the session was resumed.
    pub(super) group: Option<Group>,
    pub(super) ems: bool,
    /// True at a server.
    pub(super) incoming: bool,
    /// From the server's ticket, at a client.
    pub(super) session: Option<Box<Session>>,
    /// Present if our flight was the last one.
    pub(super) last_flight: Option<Flight>,
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) enum Role {
    Client(client::State),
    Server(server::State),
    /// Only while a step runs, and after a fault.
    Moving,
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Handshake {
    pub(super) core: Core,
    pub(super) role: Role,
}

/// A handshake's common part, which the roles' states work with.
#[cfg_attr(test, derive(Clone))]
pub(super) struct Core {
    pub(super) config: Arc<Config>,
    pub(super) path: Path,
    /// Every message so far, as if unfragmented, without the cookie exchange (RFC 6347 §4.2.6).
    /// Kept whole because ring signs and verifies messages, not hashes.
    pub(super) transcript: Vec<u8>,
    pub(super) incoming: Reassembler,
    pub(super) client_random: [u8; 32],
    pub(super) server_random: [u8; 32],
    pub(super) ids: Ids,
    pub(super) write: Option<WriteKeys>,
    /// Present exactly while the peer's Finished is awaited.
    pub(super) read: Option<ReadKeys>,
    pub(super) record_limits: RecordLimits,
    next_message_seq: u16,
    /// Largest datagram, in bytes; less than configured if the path seems to need it.
    mtu: usize,
    sequence0: u64,
    flight: Flight,
    /// The last message of the peer's flight that ours answers; its repetition asks for ours.
    answers: Option<(HandshakeType, u16)>,
    /// The message that was processed last.
    heard: Option<(HandshakeType, u16)>,
    /// When the flight was first sent, when last, and how often in between.
    pub(super) started_at: Instant,
    sent_at: Instant,
    resends: u32,
    /// From our last unrepeated flight to its answer.
    round_trip: Option<Duration>,
    /// True once any message of the answer was there.
    is_answered: bool,
    /// How long after sending a repetition of the peer is answered.
    answer_pause: Duration,
    resend_at: Instant,
    interval: Duration,
    /// What the interval begins with; as configured unless it was set for this handshake.
    first_resend: Duration,
    /// When the newest flight has waited long enough for its answer.
    give_up_at: Instant,
    /// When the handshake ends whatever progress it makes.
    ends_at: Instant,
    /// What seems to be wrong, and when that is believed unless the handshake goes on.
    doubt: Option<(Instant, Doubt)>,
    peer_repeats: bool,
    early: Early,
}

/// A reason to give up that anybody could have forged.
#[derive(Debug, Clone)]
enum Doubt {
    Alert(AlertDescription),
    Fault(Fault),
}

/// Protected records that came too early.
#[derive(Default)]
#[cfg_attr(test, derive(Clone))]
struct Early {
    records: Vec<(Vec<u8>, Ecn)>,
    messages: Vec<(u64, Bytes, Ecn)>,
    bytes: usize,
}

impl Early {
    fn has_room(&mut self, length: usize) -> bool {
        let count = self.records.len() + self.messages.len();
        let fits = count < EARLY_RECORDS_MAX && self.bytes + length <= EARLY_BYTES_MAX;
        if fits {
            self.bytes += length;
        }
        fits
    }
}

impl Core {
    fn new(
        now: Instant,
        path: Path,
        config: Arc<Config>,
        own_id: Option<ConnectionId>,
        incoming: Reassembler,
    ) -> Self {
        let timers = config.timers;
        let ends_at = now + timers.give_up_in_all;
        Self {
            path,
            transcript: Vec::new(),
            incoming,
            client_random: [0; 32],
            server_random: [0; 32],
            ids: Ids::new(own_id),
            write: None,
            read: None,
            record_limits: RecordLimits::default(),
            next_message_seq: 0,
            mtu: config.mtu,
            sequence0: 0,
            flight: Flight::default(),
            answers: None,
            heard: None,
            started_at: now,
            sent_at: now,
            resends: 0,
            round_trip: None,
            is_answered: false,
            answer_pause: timers.first_resend / ANSWER_INTERVAL_SHARE,
            resend_at: now + timers.first_resend,
            interval: timers.first_resend,
            first_resend: timers.first_resend,
            give_up_at: ends_at.min(now + timers.give_up),
            ends_at,
            doubt: None,
            peer_repeats: false,
            early: Early::default(),
            config,
        }
    }

    /// Our next message, not yet in the transcript.
    pub(super) fn message(
        &mut self,
        kind: HandshakeType,
        body: impl FnOnce(&mut Vec<u8>),
    ) -> Message {
        let message = Message::build(kind, self.next_message_seq, body);
        self.next_message_seq += 1;
        message
    }

    /// Our next message, added to the transcript.
    pub(super) fn say(&mut self, kind: HandshakeType, body: impl FnOnce(&mut Vec<u8>)) -> Message {
        let message = self.message(kind, body);
        self.hear(&message);
        message
    }

    /// Adds a message to the transcript.
    pub(super) fn hear(&mut self, message: &Message) {
        self.transcript.extend_from_slice(message.bytes());
    }

    pub(super) fn randoms(&self) -> Randoms {
        Randoms { client: self.client_random, server: self.server_random }
    }

    /// Sends a new flight and starts its timer afresh.
    pub(super) fn start_flight(&mut self, now: Instant, items: Vec<Item>, sink: &mut Sink) {
        self.flight = Flight::new(items);
        self.answers = self.heard;
        self.interval = self.first_resend;
        self.answer_pause = self.interval / ANSWER_INTERVAL_SHARE;
        self.started_at = now;
        self.resends = 0;
        self.is_answered = false;
        self.doubt = None;
        self.give_up_at = self.ends_at.min(now + self.config.timers.give_up);
        self.send_flight(now, sink);
    }

    fn resend_flight(&mut self, now: Instant, sink: &mut Sink) {
        self.resends += 1;
        if self.resends >= RESENDS_BEFORE_SMALLER {
            self.mtu = self.mtu.min(SMALL_MTU);
        }
        sink.stats.flights_resent += 1;
        self.send_flight(now, sink);
    }

    fn send_flight(&mut self, now: Instant, sink: &mut Sink) {
        self.sent_at = now;
        self.resend_at = now + self.interval;
        let (mtu, keys) = (self.mtu, self.write.as_mut());
        self.flight.send(self.path, mtu, &mut self.sequence0, keys, sink);
    }

    /// Lets flights be sent again as if the handshake had begun with this interval.
    pub(super) fn set_first_resend(&mut self, first: Duration) {
        let first = first.clamp(RESEND_MIN, WAIT_MAX);
        // As often doubled as the old one.
        let scaled =
            self.interval.as_nanos() * first.as_nanos() / self.first_resend.as_nanos().max(1);
        let interval = Duration::from_nanos(u64::try_from(scaled).unwrap_or(u64::MAX));
        self.interval = interval.min(self.config.timers.resend_cap.max(first));
        self.first_resend = first;
        self.resend_at = self.sent_at + self.interval;
    }

    /// Lets datagrams be of at most `mtu` bytes from here on.
    pub(super) fn set_mtu(&mut self, mtu: usize) {
        self.mtu = mtu;
    }

    /// Sends the flight that ends the handshake; it has no timer (RFC 6347 §4.2.4). What the application has to say at
    /// once goes with it.
    pub(super) fn send_last(&mut self, flight: &Flight, sink: &mut Sink) {
        let (mtu, keys) = (self.mtu, self.write.as_mut());
        if flight.send(self.path, mtu, &mut self.sequence0, keys, sink) {
            sink.outbox.leave_room(mtu);
        }
    }

    /// The pin check, once the peer has proved that it holds the key.
    pub(super) fn check_peer(&self, certificate: &[u8]) -> Result<(), Fault> {
        let verifier = &self.config.verifier;
        verifier.verify(certificate).map_err(|refused| Fault::Refused(refused, verifier.alert()))
    }

    pub(super) fn alert(&mut self, what: AlertDescription, sink: &mut Sink) {
        let body = [FATAL, what.0];
        match &mut self.write {
            // A server that waits for Finished has keys, but has not yet changed over to them.
            Some(keys) if keys.next_sequence() > 0 => {
                sink.datagram(self.path, |out| keys.seal(ContentType::ALERT, &body, out));
            }
            _ => {
                let sequence = &mut self.sequence0;
                sink.datagram(self.path, |out| {
                    plaintext(out, ContentType::ALERT, VERSION_1_2, sequence, &body);
                });
            }
        }
    }
}

impl Handshake {
    pub(super) fn client(
        now: Instant,
        path: Path,
        config: Arc<Config>,
        own_id: Option<ConnectionId>,
        session: Option<Session>,
        sink: &mut Sink,
    ) -> Result<Self, NoRandom> {
        sink.stats.handshakes_started += 1;
        let mut core = Core::new(now, path, config, own_id, Reassembler::default());
        let state = client::start(now, &mut core, session, sink)?;
        Ok(Self { core, role: Role::Client(state) })
    }

    pub(super) fn server(
        now: Instant,
        path: Path,
        config: Arc<Config>,
        own_id: Option<ConnectionId>,
        admitted: Admitted,
        sink: &mut Sink,
    ) -> (Self, Outcome) {
        let Admitted { hello, record_sequence, opened } = admitted;
        sink.stats.handshakes_started += 1;
        let incoming = Reassembler::starting_at(hello.message_seq.saturating_add(1));
        let mut core = Core::new(now, path, config, own_id, incoming);
        // RFC 6347 §4.2.1: ServerHello takes up the numbers of the hello that had the cookie.
        core.sequence0 = record_sequence;
        core.next_message_seq = hello.message_seq;
        core.heard = Some((hello.kind, hello.message_seq));
        let mut this = Self { core, role: Role::Moving };
        let outcome = match server::start(now, &mut this.core, &hello, opened, sink) {
            Ok(state) => {
                this.role = Role::Server(state);
                Outcome::Continue
            }
            Err(fault) => this.fail(fault, sink),
        };
        (this, outcome)
    }

    pub(super) fn server_without_cookie(
        now: Instant,
        path: Path,
        config: Arc<Config>,
        own_id: Option<ConnectionId>,
        sink: &mut Sink,
    ) -> Self {
        sink.stats.handshakes_started += 1;
        let core = Core::new(now, path, config, own_id, Reassembler::default());
        Self { core, role: Role::Server(server::State::AwaitClientHello) }
    }

    #[cfg(feature = "testing")]
    pub(super) fn held_bytes(&self) -> [usize; 2] {
        let early = &self.core.early;
        let records = early.records.iter().map(|(record, _)| record.len() - RECORD_HEADER_LEN);
        let messages = early.messages.iter().map(|(_, content, _)| content.len());
        [self.core.incoming.held_bytes(), records.chain(messages).sum()]
    }

    pub(super) fn began_with(&self, client_random: &[u8; 32], message_seq: u16) -> bool {
        !matches!(self.role, Role::Client(_))
            && self.core.client_random == *client_random
            && message_seq < self.core.incoming.next_seq()
    }

    pub(super) fn goes_before(&self, client_random: &[u8; 32]) -> bool {
        matches!(self.role, Role::Client(_)) && self.core.client_random > *client_random
    }

    pub(super) fn next_timeout(&self) -> Option<(Instant, TimerKind)> {
        let core = &self.core;
        let doubt = core.doubt.as_ref().map(|(at, _)| (*at, TimerKind::AlertGrace));
        let resend = (!core.flight.is_empty()).then_some((core.resend_at, TimerKind::FlightResend));
        [Some((core.give_up_at, TimerKind::HandshakeGiveUp)), resend, doubt]
            .into_iter()
            .flatten()
            .min_by_key(|(at, _)| *at)
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, sink: &mut Sink) -> Outcome {
        let core = &mut self.core;
        if let Some((_, doubt)) = core.doubt.take_if(|(at, _)| *at <= now) {
            return match doubt {
                Doubt::Alert(what) => Outcome::Closed(CloseReason::PeerAlert(what)),
                Doubt::Fault(fault) => self.fail(fault, sink),
            };
        }
        if core.give_up_at <= now {
            return Outcome::Closed(CloseReason::TimedOut);
        }
        if core.resend_at <= now && !core.flight.is_empty() {
            core.interval = (core.interval * 2).min(core.config.timers.resend_cap);
            core.resend_flight(now, sink);
        }
        Outcome::Continue
    }

    /// A repeated flight of the peer is answered once per datagram, not once per record.
    pub(super) fn end_of_datagram(&mut self, now: Instant, sink: &mut Sink) {
        let core = &mut self.core;
        if std::mem::take(&mut core.peer_repeats) && now >= core.sent_at + core.answer_pause {
            core.answer_pause = (core.answer_pause * 2).min(core.config.timers.resend_cap);
            core.resend_flight(now, sink);
        }
    }

    pub(super) fn say_goodbye(&mut self, sink: &mut Sink) {
        self.core.alert(AlertDescription::USER_CANCELED, sink);
    }

    pub(super) fn handle_record(
        &mut self,
        now: Instant,
        record: Record<'_>,
        sink: &mut Sink,
    ) -> Result<Outcome, DropCause> {
        match record.epoch {
            0 => self.handle_plain(now, record, sink),
            1 if self.core.read.is_some() => self.handle_sealed(now, record, sink),
            1 => self.keep_for_later(&record, sink.incoming_ecn),
            _ => Err(DropCause::WrongEpoch),
        }
    }

    fn handle_plain(
        &mut self,
        now: Instant,
        record: Record<'_>,
        sink: &mut Sink,
    ) -> Result<Outcome, DropCause> {
        if record.version != VERSION_1_2 && record.version != VERSION_1_0 {
            return Err(DropCause::WrongVersion);
        }
        match record.content_type {
            ContentType::HANDSHAKE => {
                self.take_fragments(now, record.body, self.core.read.is_some(), sink)
            }
            // The change of epoch is read off the records themselves.
            ContentType::CHANGE_CIPHER_SPEC => Ok(Outcome::Continue),
            ContentType::ALERT => self.note_alert(now, record.body),
            _ => Err(DropCause::UnexpectedRecord),
        }
    }

    /// Anybody can forge an alert here, so it only shortens the wait for something better.
    fn note_alert(&mut self, now: Instant, body: &[u8]) -> Result<Outcome, DropCause> {
        let &[level, what] = body else { return Err(DropCause::UnexpectedRecord) };
        let what = AlertDescription(what);
        if matches!(&self.role, Role::Server(state) if state.clients_keys_are_up()) {
            return Err(DropCause::Unprotected);
        }
        if level == FATAL || what == AlertDescription::CLOSE_NOTIFY {
            let at = now + self.core.config.timers.alert_grace;
            self.core.doubt.get_or_insert((at, Doubt::Alert(what)));
        }
        Ok(Outcome::Continue)
    }

    /// Takes the fragments of one record and steps as far as they lead, whatever comes behind them.
    fn take_fragments(
        &mut self,
        now: Instant,
        body: &[u8],
        repetitions_only: bool,
        sink: &mut Sink,
    ) -> Result<Outcome, DropCause> {
        let mut refused = None;
        for fragment in fragments(body) {
            let taken = match fragment {
                Ok(fragment) => self.take_fragment(&fragment, repetitions_only),
                Err(_) => Err(DropCause::BadFragment),
            };
            refused = taken.err().or(refused);
        }
        match (self.process(now, sink), refused) {
            (Outcome::Continue, Some(cause)) => Err(cause),
            (outcome, _) => Ok(outcome),
        }
    }

    /// Takes one fragment; `repetitions_only` once the peer's next message must be protected.
    fn take_fragment(
        &mut self,
        fragment: &Fragment<'_>,
        repetitions_only: bool,
    ) -> Result<(), DropCause> {
        // Finished is never unprotected; a forged one must not take the real one's place.
        if repetitions_only && fragment.message_seq >= self.core.incoming.next_seq() {
            return Err(DropCause::Unprotected);
        }
        if let Role::Client(state) = &self.role
            && let Some(seq) = state.rebase_to(fragment)
        {
            self.core.incoming.rebase(seq);
        }
        match self.core.incoming.take(fragment) {
            Taken::Kept => Ok(()),
            Taken::Repeated(kind, seq) => {
                self.core.peer_repeats |= self.core.answers == Some((kind, seq));
                Ok(())
            }
            Taken::Dropped(cause) => Err(cause),
        }
    }

    fn keep_for_later(&mut self, record: &Record<'_>, ecn: Ecn) -> Result<Outcome, DropCause> {
        // Nothing is agreed on yet at times, so the want of an id is for later.
        let named = record.content_type == ContentType::TLS12_CID;
        if named && record.id != self.core.ids.own().as_bytes() {
            return Err(DropCause::WrongConnectionId);
        }
        if !self.core.early.has_room(record.body.len()) {
            return Err(DropCause::EarlyFull);
        }
        self.core.early.records.push((record.to_bytes(), ecn));
        Ok(Outcome::Continue)
    }

    fn handle_sealed(
        &mut self,
        now: Instant,
        record: Record<'_>,
        sink: &mut Sink,
    ) -> Result<Outcome, DropCause> {
        let Some(read) = &mut self.core.read else { return Err(DropCause::WrongEpoch) };
        let opened = read.open(record)?;
        match opened.content_type {
            ContentType::HANDSHAKE => self.take_fragments(now, opened.content, false, sink),
            ContentType::APPLICATION_DATA => {
                if !self.core.early.has_room(opened.content.len()) {
                    return Err(DropCause::EarlyFull);
                }
                let kept = Bytes::copy_from_slice(opened.content);
                self.core.early.messages.push((opened.sequence, kept, sink.incoming_ecn));
                Ok(Outcome::Continue)
            }
            ContentType::ALERT => match opened.content {
                [_, what] if AlertDescription(*what) == AlertDescription::CLOSE_NOTIFY => {
                    Ok(Outcome::Closed(CloseReason::CloseNotify))
                }
                [FATAL, what] => {
                    Ok(Outcome::Closed(CloseReason::PeerAlert(AlertDescription(*what))))
                }
                _ => Ok(Outcome::Continue),
            },
            // The server is done, and wants to know where its last flight should go.
            ContentType::RETURN_ROUTABILITY_CHECK if self.core.ids.return_routability() => {
                let answer = path::answer(opened.content).ok_or(DropCause::BadPathMessage)?;
                let kind = ContentType::RETURN_ROUTABILITY_CHECK;
                // Not before our own change of keys.
                if let Some(keys) = self.core.write.as_mut().filter(|k| k.next_sequence() > 0) {
                    sink.datagram(self.core.path, |out| keys.seal(kind, &answer, out));
                }
                Ok(Outcome::Continue)
            }
            _ => Err(DropCause::UnexpectedRecord),
        }
    }

    /// Steps through every message that is complete.
    fn process(&mut self, now: Instant, sink: &mut Sink) -> Outcome {
        while let Some(message) = self.core.incoming.next_message() {
            if message.kind == HandshakeType::HELLO_REQUEST && self.ignores_hello_request() {
                // Anybody may have sent it: it does not take the number of the message that is due.
                sink.stats.drops.count(DropCause::UnexpectedMessage);
                self.core.incoming.rebase(message.message_seq);
                continue;
            }
            if let Some(outcome) = self.doubt_message(now, &message, sink) {
                return outcome;
            }
            self.core.doubt = None;
            if self.core.resends == 0 && !self.core.flight.is_empty() && !self.core.is_answered {
                self.core.round_trip = Some(now - self.core.started_at);
            }
            self.core.is_answered = true;
            self.core.heard = Some((message.kind, message.message_seq));
            let core = &mut self.core;
            let next = match std::mem::replace(&mut self.role, Role::Moving) {
                Role::Client(state) => {
                    state.step(now, core, &message, sink).map(|next| match next {
                        Next::State(state) => Next::State(Role::Client(state)),
                        Next::Done(summary) => Next::Done(summary),
                    })
                }
                Role::Server(state) => {
                    state.step(now, core, &message, sink).map(|next| match next {
                        Next::State(state) => Next::State(Role::Server(state)),
                        Next::Done(summary) => Next::Done(summary),
                    })
                }
                Role::Moving => return Outcome::Continue,
            };
            match next {
                Err(fault) => return self.fail(fault, sink),
                Ok(Next::State(role)) => self.role = role,
                Ok(Next::Done(summary)) => return self.complete(now, summary),
            }
            if self.core.read.is_some()
                && let Some(outcome) = self.replay_early(now, sink)
            {
                return outcome;
            }
        }
        Outcome::Continue
    }

    /// RFC 5246 §7.4.1.1: a client passes over a HelloRequest while a handshake is going on.
    fn ignores_hello_request(&self) -> bool {
        matches!(self.role, Role::Client(_)) && self.core.read.is_none()
    }

    /// A message that has no place here, while anybody could have forged it: it is put aside as if it
    /// had not come, and only believed if nothing better comes.
    fn doubt_message(
        &mut self,
        now: Instant,
        message: &Message,
        sink: &mut Sink,
    ) -> Option<Outcome> {
        let expected = match &self.role {
            Role::Client(state) if !state.takes(message.kind) => state.expects(),
            Role::Server(state) if !state.takes(message.kind) => state.expects(),
            _ => return None,
        };
        let fault = Fault::unexpected(message.kind, expected);
        let grace = self.core.config.timers.alert_grace;
        if self.core.read.is_some() || grace.is_zero() {
            return Some(self.fail(fault, sink));
        }
        sink.stats.drops.count(DropCause::UnexpectedMessage);
        self.core.incoming.rebase(message.message_seq);
        self.core.doubt.get_or_insert((now + grace, Doubt::Fault(fault)));
        Some(Outcome::Continue)
    }

    /// The records that waited for keys.
    fn replay_early(&mut self, now: Instant, sink: &mut Sink) -> Option<Outcome> {
        let ecn = sink.incoming_ecn;
        let outcome = self.replay_each(now, sink);
        sink.incoming_ecn = ecn;
        outcome
    }

    fn replay_each(&mut self, now: Instant, sink: &mut Sink) -> Option<Outcome> {
        self.core.early.bytes = 0;
        for (mut kept, ecn) in std::mem::take(&mut self.core.early.records) {
            sink.incoming_ecn = ecn;
            for record in Records::with_id_length(&mut kept, self.core.ids.own().len()) {
                match self.handle_sealed(now, record, sink) {
                    Ok(Outcome::Continue) => {}
                    Ok(outcome) => return Some(outcome),
                    Err(cause) => sink.stats.drops.count(cause),
                }
            }
        }
        None
    }

    fn fail(&mut self, fault: Fault, sink: &mut Sink) -> Outcome {
        self.core.alert(fault.alert(), sink);
        Outcome::Closed(fault.into())
    }

    fn complete(&mut self, now: Instant, summary: Summary) -> Outcome {
        let core = &mut self.core;
        let (Some(write), Some(read)) = (core.write.take(), core.read.take()) else {
            // Both roles set both before they wait for Finished.
            return Outcome::Closed(CloseReason::PeerFault(PeerFault::BadFinished));
        };
        let answers = core.incoming.next_seq().saturating_sub(1);
        let last_flight =
            summary.last_flight.map(|flight| LastFlight::new(flight, core.sequence0, answers, now));
        let established = Established {
            peer_certificate: summary.peer_certificate,
            peer_fingerprint: summary.peer_fingerprint,
            suite: summary.master.suite(),
            exporter: Exporter::new(summary.master, core.randoms()),
            remote: core.path.remote,
            incoming: summary.incoming,
            group: summary.group,
            resumed: summary.group.is_none(),
            session: summary.session.map(|session| *session),
            round_trip: core.round_trip,
            extended_master_secret: summary.ems,
            connection_id: core.ids.agreed(),
        };
        let began_with = summary.incoming.then_some(&core.client_random);
        let paths = PathRules {
            address_change: core.config.address_change,
            return_routability: core.ids.return_routability(),
            round_trip: core.round_trip,
        };
        let open = Open::new(write, read, core.mtu, paths, began_with, last_flight);
        let early = std::mem::take(&mut core.early.messages);
        Outcome::Opened(Box::new(Opened { open, established, early }))
    }
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core")
            .field("path", &self.path)
            .field("next_in", &self.incoming.next_seq())
            .field("next_out", &self.next_message_seq)
            .finish_non_exhaustive()
    }
}
