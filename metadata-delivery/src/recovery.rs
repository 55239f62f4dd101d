//! Packets in flight: acknowledged, lost, or probed for (RFC 9002 §5 and §6).
//!
//! Only ack-eliciting packets are tracked. What a packet carried is remembered as [`SentFrame`]s;
//! their owners decide what a loss means, so a lost packet is never sent again as it was.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::PacketError;
use crate::limits::SENT_PACKETS_MAX;
use crate::rtt::Rtt;
use crate::wire::Ack;

/// A packet is lost when one this many numbers higher is acknowledged (RFC 9002 §6.1.1), until
/// that turns out wrong on this path.
const PACKET_THRESHOLD: u64 = 3;

/// Lost packets that are remembered, should they turn out to be late.
const LOST_REMEMBERED_MAX: usize = 512;

/// Probe timeouts do not grow beyond this: past it, patience costs more than packets.
pub(crate) const PROBE_TIMEOUT_MAX: Duration = Duration::from_secs(3);

/// Probe timeouts in a row before they double: on a path that is known to lose nothing by chance, and
/// on any other, where silence says less.
const PATIENCE: u32 = 2;
const PATIENCE_SUSPECT: u32 = 8;

/// Packets with numbers no further apart were sent one after the other: acknowledgements take numbers too.
const BURST_GAP: u64 = 2;

/// Below this, a probe timeout has the peer's delay in it.
const SHORT_PATH_TIMEOUT: Duration = Duration::from_millis(40);

/// With so many packets in flight or fewer, none of them waits long for the others.
const SHORT_FLIGHT_PACKETS: usize = 24;

/// Packets sent at each probe timeout (RFC 9002 §6.2.4).
const PROBES: u8 = 2;

/// The shortest probe timeout where a path is short and loses next to nothing. An answer that takes longer is that of
/// a busy peer: ten thousand agents on a few hypervisors do not become faster by being asked again.
const PROBE_TIMEOUT_NEAR_MIN: Duration = Duration::from_millis(100);

/// Packets without frames whose sending time is remembered: when one of them is the largest
/// acknowledged, it gives the round-trip sample (RFC 9002 §5.1).
const UNTRACKED_REMEMBERED_MAX: usize = 32;

/// Places kept free for probes when everything else has to wait for [`SENT_PACKETS_MAX`].
const PROBES_RESERVED: usize = 64;

/// What a packet carried, by reference to whoever can send it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SentFrame {
    Ping,
    /// A packet of this size, for nothing but to see whether it arrives.
    MtuProbe {
        bytes: usize,
    },
    Ack {
        largest: u64,
    },
    Hello {
        generation: u64,
    },
    Offer {
        transfer: u64,
    },
    Data {
        transfer: u64,
        start: u64,
        end: u64,
    },
    /// A repair symbol.
    Repair {
        transfer: u64,
        nth: usize,
    },
    Answer {
        transfer: u64,
    },
    Cancel {
        transfer: u64,
    },
    Close,
}

/// A packet in flight.
#[derive(Debug, Clone)]
pub(crate) struct SentPacket {
    pub(crate) sent_at: Instant,
    pub(crate) bytes: usize,
    pub(crate) frames: Vec<SentFrame>,
    /// What it carried was made due again while it was in flight: a later packet answers for it.
    pub(crate) repeated: bool,
    /// It is marked as one whose sender understands congestion marks.
    pub(crate) marked: bool,
    /// It has left the path by now, one way or the other, and counts as in flight no more.
    gone: bool,
}

impl SentPacket {
    /// One that carries nothing.
    #[cfg(test)]
    pub(crate) fn empty(sent_at: Instant) -> Self {
        Self { sent_at, bytes: 0, frames: Vec::new(), repeated: false, marked: false, gone: false }
    }

    /// The size, if this was a probe of the path MTU.
    pub(crate) fn mtu_probe(&self) -> Option<usize> {
        match self.frames.first() {
            Some(SentFrame::MtuProbe { bytes }) => Some(*bytes),
            _ => None,
        }
    }
}

/// What an acknowledgement, or time, has settled.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    pub(crate) acked: Vec<SentPacket>,
    pub(crate) lost: Vec<SentPacket>,
    /// Packets that were called lost before, and are acknowledged now.
    pub(crate) late: Vec<SentPacket>,
    /// A new round-trip sample, without the time that the peer took to answer.
    pub(crate) sample: Option<Duration>,
}

/// What [`Recovery::on_timeout`] found to be due.
#[derive(Debug)]
pub(crate) enum TimedOut {
    Nothing,
    /// Packets that are lost by now.
    Lost(Vec<SentPacket>),
    /// Nothing was acknowledged for a probe timeout.
    Probe {
        /// So often in a row that the path seems dead.
        dead: bool,
    },
}

/// Patience with packets that arrive out of order, learned from losses that were none, as in
/// RFC 8985 §4.
#[derive(Debug, Default)]
struct Reordering {
    /// Extra time a packet gets, in eighths of a round trip. Above 1, numbers prove nothing.
    eighths: u32,
    /// No more is learned before a packet sent after this number was acknowledged.
    learned_at: Option<u64>,
}

impl Reordering {
    /// Most patience: an extra round trip.
    const EIGHTHS_MAX: u32 = 8;

    /// A packet called lost has arrived; at most one step per round trip.
    fn learn(&mut self, number: u64, largest_sent: u64) {
        if self.learned_at.is_none_or(|learned_at| number > learned_at) {
            self.learned_at = Some(largest_sent);
            self.eighths = (self.eighths.max(1) + 1).min(Self::EIGHTHS_MAX);
        }
    }

    /// How far below an acknowledged number a packet is lost, if that says anything.
    fn packet_threshold(&self) -> u64 {
        if self.eighths > 1 { u64::MAX } else { PACKET_THRESHOLD }
    }

    /// `short`: so little is in flight that it cannot have built up a queue.
    fn loss_delay(&self, rtt: &Rtt, short: bool) -> Duration {
        if short && self.eighths == 0 {
            rtt.overdue_after()
        } else {
            rtt.loss_delay(self.eighths.max(1))
        }
    }
}

/// Everything that is in flight.
#[derive(Debug)]
pub(crate) struct Recovery {
    sent: BTreeMap<u64, SentPacket>,
    /// The newest packets called lost.
    lost: BTreeMap<u64, SentPacket>,
    /// The newest packets that asked for no acknowledgement: number and sending time.
    untracked: VecDeque<(u64, Instant)>,
    /// How much the path reorders.
    reordering: Reordering,
    rtt: Rtt,
    bytes_in_flight: usize,
    /// Numbers of the first and last packet sent, ack-eliciting or not.
    numbers: Option<(u64, u64)>,
    largest_acked: Option<u64>,
    /// Packets below this have been repeated, if they were worth it.
    repeat_from: u64,
    /// Those below this are gone.
    gone_from: u64,
    /// The last packet called lost, and how often since asked for one was lost whose predecessor was not.
    last_lost: Option<u64>,
    bursts_lost: u32,
    /// When the next packet is lost unless acknowledged before.
    loss_at: Option<Instant>,
    last_sent_at: Instant,
    /// Probe timeouts since the last acknowledgement.
    timeouts: u32,
    /// How many of them there are before they double.
    patience: u32,
    /// Silence means a busy peer rather than a loss.
    near: bool,
    /// Probes owed for the last timeout.
    probes: u8,
    /// Since when an acknowledgement is due that has not come.
    unanswered_since: Option<Instant>,
}

impl Recovery {
    pub(crate) fn new(now: Instant, initial_rtt: Duration) -> Self {
        Self {
            sent: BTreeMap::new(),
            lost: BTreeMap::new(),
            untracked: VecDeque::new(),
            reordering: Reordering::default(),
            rtt: Rtt::new(initial_rtt),
            bytes_in_flight: 0,
            numbers: None,
            largest_acked: None,
            repeat_from: 0,
            gone_from: 0,
            last_lost: None,
            bursts_lost: 0,
            loss_at: None,
            last_sent_at: now,
            timeouts: 0,
            patience: PATIENCE_SUSPECT,
            near: false,
            probes: 0,
            unanswered_since: None,
        }
    }

    /// Whether the path may lose packets by chance: so it is taken until more is known. `near`: it does not, and is
    /// short.
    pub(crate) fn set_suspect(&mut self, suspect: bool, near: bool) {
        self.patience = if suspect { PATIENCE_SUSPECT } else { PATIENCE };
        self.near = near;
    }

    /// Probe timeouts begin to double only after the usual number of them from here on.
    pub(crate) fn be_patient(&mut self) {
        self.timeouts = self.timeouts.min(1);
    }

    /// The path is another one: what was learned of the old one says nothing of it. What is in
    /// flight stays so, and is judged by the new path's times.
    pub(crate) fn begin_path(&mut self, initial_rtt: Duration) {
        self.rtt = Rtt::new(initial_rtt);
        self.reordering = Reordering::default();
        self.timeouts = 0;
        self.patience = PATIENCE_SUSPECT;
        self.near = false;
    }

    pub(crate) fn rtt(&self) -> &Rtt {
        &self.rtt
    }

    /// See [`Rtt::may_be`].
    pub(crate) fn may_be(&mut self, round_trip: Duration) {
        self.rtt.may_be(round_trip);
    }

    pub(crate) fn bytes_in_flight(&self) -> usize {
        self.bytes_in_flight
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.sent.is_empty()
    }

    pub(crate) fn largest_sent(&self) -> Option<u64> {
        self.numbers.map(|(_, last)| last)
    }

    pub(crate) fn largest_acked(&self) -> Option<u64> {
        self.largest_acked
    }

    /// When an ack-eliciting packet was sent last.
    pub(crate) fn last_sent_at(&self) -> Instant {
        self.last_sent_at
    }

    pub(crate) fn unanswered_since(&self) -> Option<Instant> {
        self.unanswered_since
    }

    /// Whether a packet may be sent regardless of the congestion window.
    pub(crate) fn probe_owed(&self) -> bool {
        self.probes > 0 && self.sent.len() < SENT_PACKETS_MAX
    }

    /// Packets that may be sent so.
    pub(crate) fn probes(&self) -> u8 {
        self.probes
    }

    /// Probe timeouts since the last acknowledgement.
    pub(crate) fn timeouts(&self) -> u32 {
        self.timeouts
    }

    /// Whether no more packets can be remembered.
    pub(crate) fn is_full(&self) -> bool {
        self.sent.len() >= SENT_PACKETS_MAX - PROBES_RESERVED
    }

    /// What the oldest packets in flight carried, for probes.
    pub(crate) fn oldest(&self) -> impl Iterator<Item = &[SentFrame]> {
        self.sent.values().map(|packet| packet.frames.as_slice())
    }

    /// How often packets were lost since this was asked last, those in a row counted once.
    pub(crate) fn take_bursts_lost(&mut self) -> u32 {
        std::mem::take(&mut self.bursts_lost)
    }

    /// When the oldest packet in flight that was not repeated had been on its way for `age`.
    pub(crate) fn repeat_at(&self, age: Duration) -> Option<Instant> {
        self.sent.range(self.repeat_from..).next().map(|(_, packet)| packet.sent_at + age)
    }

    /// What those packets carried that were sent by then and not repeated. They stay in flight. Of packets with a
    /// frame that is `repaired`, nothing is repeated: their loss will be told.
    pub(crate) fn take_repeats(
        &mut self,
        sent_by: Instant,
        repaired: impl Fn(&SentFrame) -> bool,
    ) -> Vec<SentFrame> {
        let mut frames = Vec::new();
        for (&number, packet) in self.sent.range_mut(self.repeat_from..) {
            if packet.sent_at > sent_by {
                break;
            }
            self.repeat_from = number + 1;
            if packet.mtu_probe().is_none() {
                packet.repeated = !packet.frames.iter().any(&repaired);
                frames.extend(packet.frames.iter().cloned());
            }
        }
        frames
    }

    /// When the next of the repeated packets will have been on its way for `age`.
    pub(crate) fn gone_at(&self, age: Duration) -> Option<Instant> {
        let (_, packet) = self.sent.range(self.gone_from..self.repeat_from).next()?;
        Some(packet.sent_at + age)
    }

    /// Repeated packets that were sent by then are on the path no longer.
    pub(crate) fn take_gone(&mut self, sent_by: Instant) {
        for (&number, packet) in self.sent.range_mut(self.gone_from..self.repeat_from) {
            if packet.sent_at > sent_by {
                break;
            }
            self.gone_from = number + 1;
            packet.gone = true;
            self.bytes_in_flight -= packet.bytes;
        }
    }

    /// Packets that are on the path no longer, of which nothing was heard.
    pub(crate) fn overdue(&self) -> usize {
        self.sent.range(..self.gone_from).count()
    }

    /// Whether little is in flight, as of a small document: then a round trip tells what has become of it.
    pub(crate) fn is_short(&self) -> bool {
        self.sent.len() <= SHORT_FLIGHT_PACKETS
    }

    /// How many packets with parts of each transfer may still arrive.
    pub(crate) fn symbols_on_their_way(&self) -> BTreeMap<u64, usize> {
        let mut symbols = BTreeMap::new();
        let packets = self.sent.values().filter(|packet| !packet.gone);
        for frame in packets.flat_map(|packet| &packet.frames) {
            if let SentFrame::Data { transfer, .. } | SentFrame::Repair { transfer, .. } = frame {
                *symbols.entry(*transfer).or_default() += 1;
            }
        }
        symbols
    }

    /// Notes a packet. One without frames asks for no acknowledgement and is not tracked.
    pub(crate) fn on_sent(
        &mut self,
        now: Instant,
        number: u64,
        bytes: usize,
        frames: Vec<SentFrame>,
    ) {
        let first = self.numbers.map_or(number, |(first, _)| first);
        self.numbers = Some((first, number));
        if frames.is_empty() {
            // Nothing in flight: no sample will be taken.
            if !self.sent.is_empty() {
                if self.untracked.len() == UNTRACKED_REMEMBERED_MAX {
                    self.untracked.pop_front();
                }
                self.untracked.push_back((number, now));
            }
            return;
        }
        self.probes = self.probes.saturating_sub(1);
        self.bytes_in_flight += bytes;
        self.last_sent_at = now;
        self.unanswered_since.get_or_insert(now);
        self.sent.insert(
            number,
            SentPacket { sent_at: now, bytes, frames, repeated: false, marked: false, gone: false },
        );
    }

    /// Notes that the last packet, which asks for an acknowledgement, is marked.
    pub(crate) fn mark_last(&mut self) {
        if let Some(mut last) = self.sent.last_entry() {
            last.get_mut().marked = true;
        }
    }

    /// Takes back the last packet, which the channel did not send: what it carried.
    pub(crate) fn retract(&mut self, number: u64) -> Vec<SentFrame> {
        self.untracked.retain(|(untracked, _)| *untracked != number);
        self.take(number).map(|packet| packet.frames).unwrap_or_default()
    }

    /// Takes in an acknowledgement. `delay_max` is how long the peer holds one back.
    ///
    /// # Errors
    /// [`PacketError::AckOfUnsent`] for numbers outside what was sent.
    pub(crate) fn on_ack(
        &mut self,
        now: Instant,
        ack: &Ack<'_>,
        delay_max: Duration,
    ) -> Result<Settled, PacketError> {
        let unsent = |acked| PacketError::AckOfUnsent { acked, largest_sent: self.largest_sent() };
        let Some((first_sent, largest_sent)) = self.numbers else {
            return Err(unsent(ack.largest));
        };
        if ack.largest > largest_sent {
            return Err(unsent(ack.largest));
        }
        let lowest = ack.ranges().last().map_or(ack.largest, |(low, _)| low);
        if lowest < first_sent {
            return Err(unsent(lowest));
        }
        let mut settled = Settled::default();
        let largest_sent_at = self.sent_at(ack.largest);
        for (low, high) in ack.ranges() {
            while let Some((&number, _)) = self.sent.range(low..=high).next_back() {
                let Some(packet) = self.take(number) else { break };
                settled.acked.push(packet);
            }
            while let Some((&number, _)) = self.lost.range(low..=high).next_back() {
                settled.late.extend(self.lost.remove(&number));
                self.reordering.learn(number, largest_sent);
            }
        }
        self.largest_acked = self.largest_acked.max(Some(ack.largest));
        if settled.acked.is_empty() && settled.late.is_empty() {
            return Ok(settled);
        }
        if let Some(sent_at) = largest_sent_at.filter(|_| !settled.acked.is_empty()) {
            let sample = now.saturating_duration_since(sent_at);
            let wait = Duration::from_micros(ack.delay_us);
            settled.sample = Some(self.rtt.sample(sample, wait, delay_max));
        }
        self.untracked.retain(|(number, _)| *number > ack.largest);
        self.timeouts = 0;
        self.probes = 0;
        self.unanswered_since = Some(now);
        settled.lost = self.take_lost(now);
        self.rest_if_idle();
        Ok(settled)
    }

    /// Does what is due: packets lost by time, or a probe. `peer_delay_max` is how long the peer
    /// may hold an acknowledgement back.
    pub(crate) fn on_timeout(&mut self, now: Instant, peer_delay_max: Duration) -> TimedOut {
        if self.loss_at.is_some_and(|at| at <= now) {
            let lost = self.take_lost(now);
            self.rest_if_idle();
            return TimedOut::Lost(lost);
        }
        if self.probe_at(peer_delay_max).is_some_and(|at| at <= now) {
            self.timeouts += 1;
            // Where losses are seldom, one packet asks as well as two.
            self.probes = if self.patience == PATIENCE_SUSPECT { PROBES } else { 1 };
            // The next timeout counts from here, whether or not a probe can be sent at once.
            self.last_sent_at = now;
            return TimedOut::Probe { dead: self.timeouts > self.patience };
        }
        TimedOut::Nothing
    }

    /// When [`on_timeout`](Self::on_timeout) has something to do.
    pub(crate) fn next_timeout(&self, peer_delay_max: Duration) -> Option<Instant> {
        self.loss_at.or_else(|| self.probe_at(peer_delay_max))
    }

    fn probe_at(&self, peer_delay_max: Duration) -> Option<Instant> {
        if self.sent.is_empty() || self.loss_at.is_some() {
            return None;
        }
        let near = if self.near { PROBE_TIMEOUT_NEAR_MIN } else { Duration::ZERO };
        let base = self.probe_timeout(peer_delay_max).max(near);
        // The first one is a tail loss probe, after two round trips at most (RFC 8985 §7.2);
        // doubling begins after the second.
        let timeout = match self.timeouts {
            0 => base.min((self.rtt.tail_loss_timeout() + peer_delay_max).max(near)),
            before => base.saturating_mul(1 << (before + 1).saturating_sub(self.patience).min(16)),
        };
        // A path slower than the cap keeps its own pace.
        Some(self.last_sent_at + timeout.min(PROBE_TIMEOUT_MAX.max(base)))
    }

    /// Before back-off. A peer answers a second packet at once: where one is in flight, its delay does not count, but
    /// on short paths, where it is the peer that takes its time.
    fn probe_timeout(&self, peer_delay_max: Duration) -> Duration {
        let patient = self.rtt.probe_timeout() + peer_delay_max;
        if self.sent.len() < 2 {
            return patient;
        }
        self.rtt.probe_timeout().max(self.rtt.overdue_after()).max(patient.min(SHORT_PATH_TIMEOUT))
    }

    /// With nothing in flight, nothing is expected, and nothing has to be remembered.
    fn rest_if_idle(&mut self) {
        if self.sent.is_empty() {
            self.unanswered_since = None;
            // A map keeps the room of its first entries, which is more than all the rest of a session that is idle.
            self.sent = BTreeMap::new();
            self.lost = BTreeMap::new();
            self.untracked = VecDeque::new();
        }
    }

    /// When a packet was sent that no acknowledgement has covered yet.
    fn sent_at(&self, number: u64) -> Option<Instant> {
        let tracked = self.sent.get(&number).map(|packet| packet.sent_at);
        tracked.or_else(|| {
            let mut untracked = self.untracked.iter();
            untracked.find(|(untracked, _)| *untracked == number).map(|(_, sent_at)| *sent_at)
        })
    }

    fn take(&mut self, number: u64) -> Option<SentPacket> {
        let packet = self.sent.remove(&number)?;
        if !packet.gone {
            self.bytes_in_flight -= packet.bytes;
        }
        Some(packet)
    }

    /// Removes what is lost by number or by time, and sets the timer for the rest.
    fn take_lost(&mut self, now: Instant) -> Vec<SentPacket> {
        self.loss_at = None;
        let mut lost = Vec::new();
        let Some(largest_acked) = self.largest_acked else { return lost };
        let loss_delay = self.reordering.loss_delay(&self.rtt, self.is_short());
        while let Some((&number, packet)) = self.sent.first_key_value() {
            if number >= largest_acked {
                break;
            }
            let lost_at = packet.sent_at + loss_delay;
            if largest_acked - number < self.reordering.packet_threshold() && lost_at > now {
                // Later packets were sent later: the first that is not lost ends the search.
                self.loss_at = Some(lost_at);
                break;
            }
            if let Some(packet) = self.take(number) {
                if self.last_lost.is_none_or(|last| number > last + BURST_GAP) {
                    self.bursts_lost += 1;
                }
                self.last_lost = Some(number);
                self.lost.insert(number, packet.clone());
                lost.push(packet);
            }
        }
        while self.lost.len() > LOST_REMEMBERED_MAX {
            self.lost.pop_first();
        }
        lost
    }
}

#[cfg(test)]
mod tests;
