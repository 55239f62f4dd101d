//! One side of a session: ties greeting, recovery, congestion control and both directions of
//! transfers together.

mod repeat;
mod transmit;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::ack::ReceivedPackets;
use crate::congestion::{Congestion, SettledSums};
use crate::ecn::Marking;
use crate::error::tidy_reason;
use crate::greeting::Greeting;
use crate::inbound::{Inbound, Taken};
use crate::limits::{PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MIN};
use crate::outbound::{Answered, Outbound, Urgency};
use crate::pacer::Pacer;
use crate::path_mtu::PathMtu;
use crate::recovery::{Recovery, SentFrame, SentPacket, Settled, TimedOut};
use crate::stats::Counters;
use crate::wire::{self, ABILITY_ECN, Ack, Frame};
use crate::{
    Base, CloseCode, Document, Ecn, Event, Form, KnownPath, Limits, Name, OfferError, PacketError,
    Stats,
};

/// Copies of a CLOSE that are sent at most.
const CLOSE_COPIES_MAX: u8 = 5;

/// Packets in flight that are looked through for something worth sending again.
const OLDEST_MAX: usize = 64;

/// Packets in flight up to which those of a background document leave: so many are ahead of whatever comes next.
pub const BACKGROUND_PACKETS_MAX: usize = 4;

/// Longest time that a HELLO waits for something that it can go with.
const HELLO_DELAY_MAX: Duration = Duration::from_millis(10);

/// Time between two copies of a CLOSE: a probe timeout within these bounds.
const CLOSE_SPACING_MIN: Duration = Duration::from_millis(20);
const CLOSE_SPACING_MAX: Duration = Duration::from_millis(200);

/// How a session behaves.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// Longest packet written, in bytes: what fits one datagram of the channel below. Clamped to
    /// [`PAYLOAD_BYTES_MIN`]..=[`PAYLOAD_BYTES_MAX`].
    pub payload_max: usize,
    /// Longest packet that the path may turn out to carry, in bytes, at most
    /// [`PAYLOAD_BYTES_MAX`]. While there is much to send, larger packets than `payload_max` are
    /// tried (RFC 8899), and used once one has arrived. `None`: no such search.
    pub payload_search_max: Option<usize>,
    /// After this long without a packet from the peer, or one to it that asks for an acknowledgement, a PING is sent.
    /// `None`: never, the peer does it. One side is best somewhat more patient than the other, which then does it
    /// for both.
    pub keep_alive: Option<Duration>,
    /// After this long without an acknowledgement that is due, the peer is lost.
    pub peer_timeout: Duration,
    /// Round-trip time to assume until one is measured: that of the handshake below, if known.
    pub initial_rtt: Duration,
    /// How late packets may be taken from the channel, and timers be run, at most 495 ms: the peer is told that
    /// acknowledgements may be later by both.
    pub lag_max: Duration,
    /// Whether the channel tells how packets that come are marked for congestion
    /// ([`handle_marked_packet`](Session::handle_marked_packet)), and marks what it sends when asked to
    /// ([`packet_ecn`](Session::packet_ecn)).
    pub ecn: bool,
    /// What is accepted and held.
    pub limits: Limits,
}

/// 1,150-byte packets and no search for more, no keep-alive, peer lost after 60 s, no ECN, no lag, 333 ms round trip
/// (RFC 9002 §6.2.2).
impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            payload_max: 1150,
            payload_search_max: None,
            keep_alive: None,
            peer_timeout: Duration::from_secs(60),
            initial_rtt: Duration::from_millis(333),
            lag_max: Duration::ZERO,
            ecn: false,
            limits: Limits::default(),
        }
    }
}

/// One side of a session over a channel that delivers whole packets or none, in any order.
///
/// Owns no clock, socket or task: after any `&mut` call, drain
/// [`poll_transmit`](Self::poll_transmit), then [`poll_event`](Self::poll_event), then arm a timer
/// for [`next_timeout`](Self::next_timeout).
///
/// Memory: the struct itself (1.7 KiB) while nothing is under way, and at most
/// [`NAMES_REMEMBERED_MAX`](crate::NAMES_REMEMBERED_MAX) names of what came before; nothing is
/// allocated ahead of need. What the peer can make us hold is bounded by [`Limits`] and the
/// constants beside it.
#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    phase: Phase,
    greeting: Greeting,
    received: ReceivedPackets,
    recovery: Recovery,
    congestion: Congestion,
    pacer: Pacer,
    path_mtu: PathMtu,
    marking: Marking,
    /// Whether the packet written last is to be marked.
    marked: bool,
    outbound: Outbound,
    inbound: Inbound,
    /// A PING has to be sent.
    ping_due: bool,
    /// When the application last had something new to say.
    news_at: Instant,
    events: VecDeque<Event>,
    counters: Counters,
}

#[derive(Debug)]
enum Phase {
    Open,
    /// We hang up, and say so.
    Closing(Closing),
    /// Nothing is sent but acknowledgements of the peer's CLOSE.
    Over,
}

#[derive(Debug)]
struct Closing {
    code: CloseCode,
    reason: String,
    /// Copies of CLOSE still to be sent.
    copies: u8,
    /// When the next one is due, or after the last, when we stop waiting.
    next_at: Instant,
}

impl Session {
    /// A new session over a channel that was just established.
    pub fn new(now: Instant, config: SessionConfig) -> Self {
        let payload_max = config.payload_max.clamp(PAYLOAD_BYTES_MIN, PAYLOAD_BYTES_MAX);
        let search_max = config.payload_search_max.unwrap_or(0).min(PAYLOAD_BYTES_MAX);
        let config = SessionConfig { payload_max, limits: config.limits.clamped(), ..config };
        let mut session = Self {
            phase: Phase::Open,
            greeting: Greeting::new(if config.ecn { ABILITY_ECN } else { 0 }),
            received: ReceivedPackets::default(),
            recovery: Recovery::new(now, config.initial_rtt),
            congestion: Congestion::new(payload_max),
            pacer: Pacer::new(payload_max),
            path_mtu: PathMtu::new(PAYLOAD_BYTES_MIN, payload_max, search_max),
            marking: Marking::default(),
            marked: false,
            outbound: Outbound::default(),
            inbound: Inbound::default(),
            ping_due: false,
            news_at: now,
            events: VecDeque::new(),
            counters: Counters::default(),
            config,
        };
        session.greet(now);
        session
    }

    /// Where round trips are short, what follows on a new association, and on new limits, is close: HELLO goes with it.
    fn greet(&mut self, now: Instant) {
        if !self.is_far() {
            self.greeting.wait(now + HELLO_DELAY_MAX);
        }
    }

    /// Offers a document to the peer; it is sent and resent until [`Event::Stored`] or
    /// [`Event::Refused`]. A newer version takes the place of one of the same name that is under
    /// way, of which no event comes any more. Offering the same version with the same bytes again
    /// changes nothing.
    ///
    /// # Errors
    /// [`OfferError`] for a version older than the one under way, or the same with other bytes,
    /// when a limit of ours is reached, and after the end of the session.
    pub fn offer(&mut self, now: Instant, document: Document) -> Result<(), OfferError> {
        let Document { name, version, body } = document;
        self.offer_form(now, name, version, Form::plain(body))
    }

    /// The same for a document that is to keep no other waiting: it is sent while there is nothing else to send, and
    /// then so that never more than [`BACKGROUND_PACKETS_MAX`] packets of it are in flight.
    ///
    /// # Errors
    /// As [`offer`](Self::offer).
    pub fn offer_background(&mut self, now: Instant, document: Document) -> Result<(), OfferError> {
        let Document { name, version, body } = document;
        self.take_offer(now, name, version, Form::plain(body), Urgency::Background)
    }

    /// The same, with another form of the document for a peer that can read it: a compressed one, or a
    /// delta. A peer that turns out to be unable to gets the document as it is, once; no event tells of
    /// that.
    ///
    /// # Errors
    /// As [`offer`](Self::offer).
    pub fn offer_form(
        &mut self,
        now: Instant,
        name: Name,
        version: u64,
        form: Form,
    ) -> Result<(), OfferError> {
        self.take_offer(now, name, version, form, Urgency::Usual)
    }

    fn take_offer(
        &mut self,
        now: Instant,
        name: Name,
        version: u64,
        form: Form,
        urgency: Urgency,
    ) -> Result<(), OfferError> {
        if !matches!(self.phase, Phase::Open) {
            return Err(OfferError::Closed);
        }
        if self.outbound.offer(name, version, form, urgency, &self.config.limits)? {
            self.has_news(now);
        }
        Ok(())
    }

    /// How long earlier packets were not answered says little about what is going to be sent now.
    fn has_news(&mut self, now: Instant) {
        self.news_at = now;
        self.recovery.be_patient();
    }

    /// Tells what we hold of a name, so that deltas from the peer can build on it: what is durable, since
    /// that is what the peer is told as well. Replaces what was told before.
    pub fn hold(&mut self, name: Name, base: Base) {
        self.inbound.hold(name, base);
    }

    /// Gives up sending a document. No event follows.
    pub fn withdraw(&mut self, _now: Instant, name: &Name) {
        self.outbound.withdraw(name);
    }

    /// Confirms to the peer that a document from [`Event::Received`] is durable. Without effect
    /// for any other name and version, and when it was decided before.
    pub fn stored(&mut self, now: Instant, name: &Name, version: u64) {
        if self.inbound.decide(name, version, None) {
            self.has_news(now);
        }
    }

    /// Tells the peer that a document from [`Event::Received`] will not be taken. The peer does
    /// not send this version again; codes are those of [`refusal`](crate::refusal), or the
    /// application's from [`APPLICATION_FIRST`](crate::refusal::APPLICATION_FIRST) on.
    pub fn refuse(&mut self, now: Instant, name: &Name, version: u64, code: u16, reason: &str) {
        if self.inbound.decide(name, version, Some((code, reason.to_owned()))) {
            self.has_news(now);
        }
    }

    /// Tells the peer why we hang up, and stops everything else. Drive on until
    /// [`is_closed`](Self::is_closed), at most a second, then close the channel.
    pub fn close(&mut self, now: Instant, code: CloseCode, reason: &str) {
        if !matches!(self.phase, Phase::Open) {
            return;
        }
        self.outbound.clear();
        self.inbound = Inbound::default();
        self.phase = Phase::Closing(Closing {
            code,
            reason: tidy_reason(reason),
            copies: CLOSE_COPIES_MAX,
            next_at: now,
        });
    }

    /// Replaces the limits and tells the peer: how a stranger becomes known. The peer learns the
    /// new ones no later than any document offered afterwards. Transfers accepted under the
    /// former limits go on.
    pub fn set_limits(&mut self, now: Instant, limits: Limits) {
        self.config.limits = limits.clamped();
        self.greeting.renew();
        self.greet(now);
    }

    /// Takes in a packet. Duplicates and late packets do no harm.
    ///
    /// # Errors
    /// [`PacketError`] when the peer broke a rule: [`close`](Self::close) the session with
    /// [`PacketError::close_code`].
    pub fn handle_packet(
        &mut self,
        now: Instant,
        packet_number: u64,
        payload: &[u8],
    ) -> Result<(), PacketError> {
        self.handle_marked_packet(now, packet_number, Ecn::NotEct, payload)
    }

    /// The same for a packet of which is known how it is marked for congestion.
    ///
    /// # Errors
    /// As [`handle_packet`](Self::handle_packet).
    pub fn handle_marked_packet(
        &mut self,
        now: Instant,
        packet_number: u64,
        ecn: Ecn,
        payload: &[u8],
    ) -> Result<(), PacketError> {
        if self.received.is_duplicate(packet_number) {
            self.counters.packets_duplicate += 1;
            return Ok(());
        }
        let mut ack_eliciting = false;
        let mut room = true;
        let (mut hurry, mut answered, mut quiet) = (false, false, false);
        let documents_before = self.counters.documents_received;
        for frame in wire::frames(payload) {
            let frame = frame?;
            ack_eliciting |= frame.is_ack_eliciting();
            hurry |= matches!(frame, Frame::Close { .. });
            quiet |= matches!(frame, Frame::Stored { quiet: true, .. });
            answered |= matches!(frame, Frame::Stored { .. } | Frame::Refused { .. } | Frame::Ping);
            room &= self.handle_frame(now, frame)?;
        }
        if !room {
            // Every frame may be handled twice, so the packet may come again as if it were new.
            self.counters.packets_without_room += 1;
            return Ok(());
        }
        self.counters.packets_received += 1;
        self.received.record(now, packet_number, ack_eliciting);
        self.received.count(ecn);
        if ack_eliciting {
            self.inbound.doubt_quiet();
        } else if quiet {
            self.received.tell();
        }
        // A document is answered as soon as it is durable. Where round trips are long, or packets get lost, its sender
        // had better hear before.
        let whole = self.counters.documents_received > documents_before;
        let answer_is_close = whole && !self.is_far() && !self.congestion.has_lost();
        // After the last answer, and a sign of life, nothing else is going to be sent soon that an acknowledgement could
        // go with.
        if hurry || answered && !answer_is_close && self.outbound.is_empty() {
            self.received.hurry();
        }
        if answer_is_close {
            self.received.wait_for_answer();
        }
        Ok(())
    }

    /// False when there was no room for it.
    fn handle_frame(&mut self, now: Instant, frame: Frame<'_>) -> Result<bool, PacketError> {
        match (&self.phase, frame) {
            (Phase::Open | Phase::Closing(_), Frame::Ack(ack)) => {
                self.on_ack(now, &ack)?;
            }
            (Phase::Open, Frame::Hello(hello)) => {
                self.greeting.on_hello(hello)?;
                self.marking.set_possible(self.config.ecn && self.greeting.peer_counts_ecn());
            }
            (Phase::Open, Frame::Offer(offer)) => {
                let taken = self.inbound.on_offer(&offer, &self.config.limits)?;
                return Ok(self.take(taken));
            }
            (Phase::Open, Frame::Data { transfer, offset, bytes }) => {
                let taken = self.inbound.on_data(transfer, offset, bytes)?;
                return Ok(self.take(taken));
            }
            (Phase::Open, Frame::Repair { transfer, offset, nth, symbol }) => {
                let taken = self.inbound.on_repair(transfer, offset, nth, symbol)?;
                return Ok(self.take(taken));
            }
            (Phase::Open, Frame::Stored { transfer, .. }) => {
                if let Answered::Over(name, version) = self.answered(transfer, None)? {
                    self.counters.documents_stored += 1;
                    self.events.push_back(Event::Stored { name, version });
                }
            }
            (Phase::Open, Frame::Refused { transfer, code, reason }) => {
                match self.answered(transfer, Some(code))? {
                    Answered::Over(name, version) => {
                        self.refused(name, version, code, tidy_reason(reason));
                    }
                    Answered::Again => self.counters.forms_unread += 1,
                    Answered::Nothing => {}
                }
            }
            (Phase::Open, Frame::Cancel { transfer }) => self.inbound.on_cancel(transfer)?,
            (Phase::Open, Frame::Close { code, reason }) => {
                let code = CloseCode::from_wire(code);
                self.end(Event::PeerClosed { code, reason: tidy_reason(reason) });
            }
            (Phase::Closing(_), Frame::Close { .. }) => self.phase = Phase::Over,
            (_, _) => {}
        }
        Ok(true)
    }

    fn take(&mut self, taken: Taken) -> bool {
        match taken {
            Taken::Quietly => true,
            Taken::NoRoom => false,
            Taken::Document(document) => {
                self.counters.documents_received += 1;
                self.events.push_back(Event::Received(document));
                true
            }
        }
    }

    fn answered(&mut self, transfer: u64, refusal: Option<u16>) -> Result<Answered, PacketError> {
        if !self.outbound.was_opened(transfer) {
            return Err(PacketError::UnknownTransfer { transfer });
        }
        Ok(self.outbound.answered(transfer, refusal))
    }

    fn refused(&mut self, name: Name, version: u64, code: u16, reason: String) {
        self.counters.documents_refused += 1;
        self.events.push_back(Event::Refused { name, version, code, reason });
    }

    fn end(&mut self, event: Event) {
        self.phase = Phase::Over;
        self.outbound.clear();
        self.inbound = Inbound::default();
        self.events.push_back(event);
    }

    fn on_ack(&mut self, now: Instant, ack: &Ack<'_>) -> Result<(), PacketError> {
        let in_flight = self.recovery.bytes_in_flight();
        let before = self.recovery.largest_acked();
        let settled = self.recovery.on_ack(now, ack, self.greeting.peer_ack_delay_max())?;
        let arrived = |number| ack.ranges().any(|(low, high)| (low..=high).contains(&number));
        if let Some(reported) = self.inbound.quiet_settled(ack.largest, arrived) {
            self.received.report_arrived(reported);
        }
        let in_order = Some(ack.largest) > before;
        let arrived = (&settled.acked[..], &settled.late[..]);
        let congested = self.marking.on_ack(now, arrived, in_order, ack.ecn);
        self.on_settled(now, in_flight, settled);
        if congested {
            self.counters.congestion_told += 1;
            let largest_sent = self.recovery.largest_sent().unwrap_or(ack.largest);
            self.congestion.on_marks(ack.largest, largest_sent);
        }
        Ok(())
    }

    /// Tells everybody what became of the packets they had a part in.
    fn on_settled(&mut self, now: Instant, in_flight: usize, settled: Settled) {
        let Settled { acked, lost, late, sample } = settled;
        if acked.is_empty() && lost.is_empty() && late.is_empty() {
            return;
        }
        self.marking.on_lost(now, lost.iter());
        self.judge_path(now, &acked, &late, &lost);
        let sum = |packets: &[SentPacket]| packets.iter().map(|packet| packet.bytes).sum();
        let count = |packets: usize| u32::try_from(packets).unwrap_or(u32::MAX);
        // RFC 8899 §3: that a probe is lost says nothing about congestion.
        let (probes, lost): (Vec<_>, Vec<_>) =
            lost.into_iter().partition(|packet| packet.mtu_probe().is_some());
        probes.iter().for_each(|_| self.path_mtu.probe_failed());
        self.congestion.on_settled(
            now,
            SettledSums {
                acked: sum(&acked),
                lost: sum(&lost),
                late: sum(&late),
                packets_acked: count(acked.len() + late.len()),
                packets_lost: count(lost.len().saturating_sub(late.len())),
                bursts_lost: self.recovery.take_bursts_lost(),
                in_flight,
                sample,
                largest_acked: self.recovery.largest_acked().unwrap_or(0),
                largest_sent: self.recovery.largest_sent().unwrap_or(0),
            },
        );
        self.judge_losses();
        self.counters.packets_lost += lost.len() as u64;
        self.counters.packets_late += late.len() as u64;
        for frame in acked.into_iter().chain(late).flat_map(|packet| packet.frames) {
            self.frame_acked(frame);
        }
        let lost = lost.into_iter().filter(|packet| !packet.repeated);
        for frame in lost.flat_map(|packet| packet.frames) {
            self.frame_lost(frame);
        }
    }

    /// What became of packets says how large they may be.
    fn judge_path(
        &mut self,
        now: Instant,
        acked: &[SentPacket],
        late: &[SentPacket],
        lost: &[SentPacket],
    ) {
        for packet in acked.iter().chain(late) {
            match packet.mtu_probe() {
                Some(bytes) => self.path_mtu.probe_acked(bytes),
                None => self.path_mtu.packet_acked(packet.sent_at, packet.bytes),
            }
        }
        for packet in lost.iter().filter(|packet| packet.mtu_probe().is_none()) {
            self.path_mtu.packet_lost(now, packet.sent_at, packet.bytes);
        }
        self.congestion.set_packet_bytes(self.path_mtu.payload_max());
        self.pacer.set_packet_bytes(self.path_mtu.payload_max());
    }

    /// The channel runs over another path from here on: round-trip time, congestion window and packet
    /// size are learned anew (RFC 9000 §9.4). Not needed where only a port has changed, which is a
    /// NAT that forgot, on the same path.
    pub fn path_changed(&mut self, now: Instant) {
        self.marking.begin_path(now);
        self.recovery.begin_path(self.config.initial_rtt);
        self.congestion = Congestion::new(self.config.payload_max);
        self.pacer = Pacer::new(self.config.payload_max);
        let search_max = self.config.payload_search_max.unwrap_or(0).min(PAYLOAD_BYTES_MAX);
        self.path_mtu = PathMtu::new(PAYLOAD_BYTES_MIN, self.config.payload_max, search_max);
    }

    /// Begins with what an earlier session has learned of this path, as far as it can still be true: to be called
    /// right after [`new`](Self::new). `round_trip`: as the handshake below has just measured it, if it has; one
    /// that differs much means that it is another path. Returns whether anything was taken over.
    pub fn begin_on(
        &mut self,
        now: Instant,
        known: &KnownPath,
        round_trip: Option<Duration>,
    ) -> bool {
        let Some(start) = known.start(now, round_trip) else { return false };
        self.config.initial_rtt = start.round_trip;
        self.recovery.begin_path(start.round_trip);
        self.congestion.begin_on(now, &start);
        self.judge_losses();
        true
    }

    /// The round trip may be as short as this, longer though it was measured by a side that was late to look at what had
    /// come: a path is not far, on which losses are feared before one is seen, because its end was busy. What is taken for
    /// the round trip is not changed. To be called right after [`new`](Self::new) and [`begin_on`](Self::begin_on).
    pub fn may_be_as_near_as(&mut self, now: Instant, round_trip: Duration) {
        self.recovery.may_be(round_trip);
        self.judge_losses();
        self.greet(now);
    }

    /// What was learned of the path, for the next session on it. `None` if that is nothing.
    pub fn known_path(&self, now: Instant) -> Option<KnownPath> {
        let round_trip = self.recovery.rtt().measured()?;
        let (own_loss, recent_loss) = self.congestion.losses();
        let window = self.congestion.window();
        Some(KnownPath { learned_at: now, round_trip, window, own_loss, recent_loss })
    }

    /// How far a document of ours is: bytes that the peer has acknowledged, and all of them, in the form in
    /// which they are sent. `None` once the peer has answered, and for a document that was not offered.
    pub fn progress(&self, name: &Name) -> Option<(u64, u64)> {
        self.outbound.progress(name)
    }

    /// Bytes of documents, in the form in which they are sent, that were not sent yet or are to be sent again.
    pub fn unsent_bytes(&self) -> u64 {
        self.outbound.unsent_bytes()
    }

    /// The longest packet, probes apart, that [`poll_transmit`](Self::poll_transmit) writes at
    /// present, in bytes. A longer one is a probe: a channel that sends no packet above the path
    /// MTU it knows has to send it all the same, in one datagram that is not fragmented.
    pub fn payload_max(&self) -> usize {
        self.path_mtu.payload_max()
    }

    /// How the packet that [`poll_transmit`](Self::poll_transmit) wrote last is to be marked: [`Ecn::Ect0`], or not at all.
    /// Never without [`SessionConfig::ecn`], and only while path and peer do with such marks what they should.
    pub fn packet_ecn(&self) -> Ecn {
        if self.marked { Ecn::Ect0 } else { Ecn::NotEct }
    }

    fn frame_acked(&mut self, frame: SentFrame) {
        match frame {
            SentFrame::Ping | SentFrame::MtuProbe { .. } => {}
            SentFrame::Ack { largest } => self.received.report_arrived(largest),
            SentFrame::Hello { generation } => self.greeting.acked(generation),
            SentFrame::Offer { transfer } => self.outbound.offer_acked(transfer),
            SentFrame::Data { transfer, start, end } => {
                self.outbound.data_acked(transfer, start, end);
            }
            SentFrame::Repair { transfer, nth } => self.outbound.repair_acked(transfer, nth),
            SentFrame::Answer { transfer } => self.inbound.answer_acked(transfer),
            SentFrame::Cancel { transfer } => self.outbound.cancel_acked(transfer),
            SentFrame::Close => self.phase = Phase::Over,
        }
    }

    /// Makes what a packet carried due again, where it still matters.
    fn frame_lost(&mut self, frame: SentFrame) {
        match frame {
            // Acknowledgements and probes are only worth sending fresh; CLOSE has its own clock.
            SentFrame::Ping | SentFrame::Ack { .. } | SentFrame::Close => {}
            // Taken back: the channel could not send it.
            SentFrame::MtuProbe { .. } => self.path_mtu.probe_failed(),
            SentFrame::Hello { generation } => self.greeting.lost(generation),
            SentFrame::Offer { transfer } => self.outbound.offer_lost(transfer),
            SentFrame::Data { transfer, start, end } => {
                self.outbound.data_lost(transfer, start, end);
            }
            SentFrame::Repair { transfer, nth } => self.outbound.repair_lost(transfer, nth),
            SentFrame::Answer { transfer } => self.inbound.answer_lost(transfer),
            SentFrame::Cancel { transfer } => self.outbound.cancel_lost(transfer),
        }
    }

    /// Does what time has made due. Harmless when nothing is.
    pub fn handle_timeout(&mut self, now: Instant) {
        match &self.phase {
            Phase::Over => return,
            Phase::Closing(closing) => {
                if closing.copies == 0 && closing.next_at <= now {
                    self.phase = Phase::Over;
                }
                return;
            }
            Phase::Open => {}
        }
        if self.peer_lost_at().is_some_and(|at| at <= now) {
            return self.end(Event::PeerLost);
        }
        self.greeting.handle_timeout(now);
        let in_flight = self.recovery.bytes_in_flight();
        match self.recovery.on_timeout(now, self.greeting.peer_ack_delay_max()) {
            TimedOut::Nothing => {}
            TimedOut::Lost(lost) => {
                self.on_settled(now, in_flight, Settled { lost, ..Settled::default() });
            }
            TimedOut::Probe { dead } => {
                self.counters.probe_timeouts += 1;
                self.marking.timed_out(now);
                if dead {
                    self.congestion.on_dead_path();
                }
                self.resend_oldest();
            }
        }
        if self.repeat_at().is_some_and(|at| at <= now) {
            self.repeat(now);
        }
        if self.keep_alive_at().is_some_and(|at| at <= now) {
            self.ping_due = true;
        }
    }

    /// Makes due again what the oldest packets in flight carried, of those that still matter.
    fn resend_oldest(&mut self) {
        let oldest = self.recovery.oldest().take(OLDEST_MAX).map(<[SentFrame]>::to_vec);
        let mut left = u32::from(self.recovery.probes()).max(1);
        for frames in oldest.collect::<Vec<_>>() {
            let is_probe = |frame: &SentFrame| matches!(frame, SentFrame::MtuProbe { .. });
            frames.into_iter().filter(|frame| !is_probe(frame)).for_each(|f| self.frame_lost(f));
            left -= u32::from(self.has_content());
            if left == 0 {
                return;
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due next; may lie in the past.
    pub fn next_timeout(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Over => None,
            Phase::Closing(closing) => Some(closing.next_at),
            Phase::Open => {
                let timers = [
                    self.received.ack_at(),
                    self.greeting.due_at(),
                    self.recovery.next_timeout(self.greeting.peer_ack_delay_max()),
                    self.peer_lost_at(),
                    self.keep_alive_at(),
                    self.repeat_at(),
                    self.paced_until(),
                ];
                timers.into_iter().flatten().min()
            }
        }
    }

    fn peer_lost_at(&self) -> Option<Instant> {
        Some(self.recovery.unanswered_since()? + self.config.peer_timeout)
    }

    /// While packets are in flight, probes keep the path alive.
    fn keep_alive_at(&self) -> Option<Instant> {
        let last = self.received.last_at().max(Some(self.recovery.last_sent_at()))?;
        let due = last + self.config.keep_alive?;
        (self.recovery.is_idle() && !self.ping_due).then_some(due)
    }

    /// The next thing the application has to know.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front();
        if self.events.is_empty() {
            self.events = VecDeque::new();
        }
        event
    }

    /// Whether [`poll_event`](Self::poll_event) has something.
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Whether the session is over: closed by either side, or the peer is lost. After
    /// [`Event::PeerClosed`], drain [`poll_transmit`](Self::poll_transmit) once more, which
    /// acknowledges it, then close the channel.
    pub fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    /// Counters and gauges.
    pub fn stats(&self) -> Stats {
        Stats {
            data_bytes_sent: self.outbound.data_bytes_sent,
            data_bytes_resent: self.outbound.data_bytes_resent,
            repair_bytes_sent: self.outbound.repair_bytes_sent,
            transfers_cancelled: self.outbound.cancelled,
            documents_repaired: self.inbound.repaired,
            rtt: self.recovery.rtt().measured(),
            payload_max: self.path_mtu.payload_max(),
            packets_marked: self.marking.packets(),
            packets_congested: self.received.ecn().map_or(0, |ecn| ecn.ce),
            ecn_capable: self.marking.is_capable(),
            window_bytes: self.congestion.window(),
            in_flight_bytes: self.recovery.bytes_in_flight(),
            inbound_bytes: self.inbound.held_bytes(),
            outbound_bytes: self.outbound.bytes(),
            ..self.counters.told()
        }
    }
}

#[cfg(test)]
mod tests;
