//! How much may be in flight: a window that follows what the path carries, and tells random loss
//! from congestion.
//!
//! A controller that takes every loss for congestion stands still at 30 % random loss; one that
//! takes none for it starves whom it meets. What tells them apart is measured on purpose: every few
//! round trips, one is sent with less than the path holds. Nothing of ours waits then, so
//!
//! - what is lost of it is lost to the path, not to us: the path's **own loss**;
//! - its round-trip time is the path's; if a queue is still there, somebody else fills it.
//!
//! Once per round trip the round is judged:
//!
//! | | slow start: doubles each round | afterwards |
//! |---|---|---|
//! | rate no longer grows, or a queue | ends, with a round of little | |
//! | more loss than the path's own | (many more: ends) | bound shrinks to 70 %, once per loss |
//! | neither | | bound grows: by 1/8, with a queue by one packet, after marks by a quarter of one |
//!
//! Marks of congestion (ECN) need no judgement: they end slow start, and shrink the bound to 85 %, at once and once per round trip.
//!
//! Afterwards the window is what the path holds (the best recent delivery rate, made good for the
//! path's own loss, times the smallest round-trip time) and a few packets more that keep the
//! bottleneck busy; or the bound, if that is lower. When others keep a queue, the bound alone
//! counts: we then grow and shrink as they do. docs/adr/0009 has the reasons.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::known_path::Start;
use crate::limits::SENT_PACKETS_MAX;
use crate::loss_share::LossShare;
use crate::repair::Loss;

/// Window of a new session, in packets (RFC 9002 §7.2).
const WINDOW_INITIAL_PACKETS: usize = 10;

/// The window does not shrink below this, in packets, while acknowledgements come in.
const WINDOW_FLOOR_PACKETS: usize = 8;

/// The window of a path that does not answer, in packets (RFC 9002 §7.6).
const WINDOW_DEAD_PACKETS: usize = 2;

/// How long the smallest round-trip time is believed, should the path have become longer.
const ROUND_TRIP_MIN_LIFE: Duration = Duration::from_secs(10);

/// From one round with little in flight to the next, in rounds.
const CYCLE_ROUNDS: u8 = 8;

/// Rounds over which the best delivery rate is remembered: a cycle and some.
const RATE_ROUNDS: usize = 10;

/// What is in flight in a round with little: this much of what arrives in a round trip.
const LITTLE: f64 = 0.9;

/// Packets that may wait at the bottleneck: the same number for every flow, which makes flows that
/// share it equal in the end (as in TCP Vegas). On a short path less.
const QUEUED_PACKETS_MAX: usize = 24;
const QUEUED_PACKETS_MIN: usize = 4;

/// Rounds with little, in a row, after which a queue that stays is somebody else's.
const CROWDED_CYCLES: u8 = 2;

/// What is left of the bound after a loss that was no chance (as CUBIC, RFC 9438 §4.6).
const SHRINK: f64 = 0.7;

/// The same after marks, which queues set while they are short (ABE, RFC 8511 §3).
const SHRINK_MARKED: f64 = 0.85;

/// After a mark the bound grows by this part of a packet in each round, as 3 × (1 − 0.85) ÷ (1 + 0.85) of one makes us equal to
/// Reno (RFC 9438 §4.3), and twice as fast after each so many rounds without another: with half as many, a flow that is dropped where
/// ours is marked was left 28 %.
const STEP_PART: usize = 4;
const UNMARKED_ROUNDS: u32 = 32;
const STEP_DOUBLINGS_MAX: u32 = 10;

/// Rounds without a rate that grew by a quarter end slow start (as BBR).
const STAGNANT_ROUNDS: u8 = 3;

/// Packets in a round before its share of loss says something.
const JUDGED_PACKETS_MIN: usize = 16;

/// Round-trip samples of a round before its smallest says something about a queue.
const SAMPLES_MIN: u32 = 8;

/// Extra round-trip time that is called a queue, at least.
const QUEUE_DELAY_MIN: Duration = Duration::from_millis(5);

/// A remembered window counts up to so many packets: larger ones are found again.
const KNOWN_WINDOW_PACKETS_MAX: usize = 128;

/// No path is believed to lose more than this by itself.
const OWN_LOSS_MAX: f64 = 0.5;

/// The congestion window of one path.
#[derive(Debug)]
pub(crate) struct Congestion {
    packet_bytes: usize,
    window: usize,
    /// In slow start: rounds since the rate last grew.
    slow_start: Option<u8>,
    /// The window's bound after losses that were no chance.
    bound: usize,
    round: Round,
    /// Round of the cycle; in the first little is sent, which the second shows.
    cycle: u8,
    /// Rounds with little, in a row, that have found a queue.
    crowded: u8,
    /// The bound has just shrunk: losses of this round were on their way already.
    shrunk: bool,
    /// Bytes delivered per second in each recent round that used the window; the latest last.
    rates: VecDeque<f64>,
    /// Smallest round-trip time, and when it was seen.
    round_trip_min: Option<(Duration, Instant)>,
    own_loss: LossShare,
    /// The window is that of an earlier session, and was not used yet.
    unproven: bool,
    /// Loss without a queue, whatever was sent: known sooner, and less surely chance.
    recent_loss: LossShare,
    /// Until a packet above this is acknowledged, marks of congestion tell of what was heeded already.
    heeded_up_to: Option<u64>,
    /// Rounds since the last of them, if there were any.
    unmarked_rounds: Option<u32>,
    /// The path has not answered for long.
    dead: bool,
}

/// What happened since a round began. It ends when a packet sent after its begin is acknowledged.
#[derive(Debug, Default)]
struct Round {
    began_at: Option<Instant>,
    ends_after: Option<u64>,
    delivered: usize,
    lost: usize,
    packets_settled: u32,
    packets_lost: u32,
    bursts_lost: u32,
    round_trip_min: Option<Duration>,
    /// By its latest sample: a queue that overflows has built up since the round began.
    has_queue: bool,
    samples: u32,
    /// Whether the window was what held us back at some moment.
    window_used: bool,
    /// The bound has shrunk for marks of congestion.
    marked: bool,
}

impl Round {
    /// Counts the round's losses in.
    fn add_to(&self, share: &mut LossShare) {
        share.add(self.packets_lost as f32, self.bursts_lost as f32, self.packets_settled as f32);
    }
}

impl Congestion {
    pub(crate) fn new(packet_bytes: usize) -> Self {
        Self {
            packet_bytes,
            window: WINDOW_INITIAL_PACKETS * packet_bytes,
            slow_start: Some(0),
            bound: usize::MAX,
            round: Round::default(),
            cycle: 0,
            crowded: 0,
            shrunk: false,
            rates: VecDeque::new(),
            round_trip_min: None,
            own_loss: LossShare::default(),
            unproven: false,
            recent_loss: LossShare::default(),
            heeded_up_to: None,
            unmarked_rounds: None,
            dead: false,
        }
    }

    /// What an earlier session has learned of the path. The first round trip decides about its window.
    pub(crate) fn begin_on(&mut self, now: Instant, start: &Start) {
        self.own_loss = start.own_loss;
        self.recent_loss = start.recent_loss;
        if let Some(window) = start.window
            && window > self.window
        {
            self.set_window(window.min(KNOWN_WINDOW_PACKETS_MAX * self.packet_bytes));
            self.round_trip_min = Some((start.round_trip, now));
            self.unproven = true;
        }
    }

    /// What was learned of the path's loss: its own, and what was seen lately.
    pub(crate) fn losses(&self) -> (LossShare, LossShare) {
        (self.own_loss, self.recent_loss)
    }

    /// Whether the window is one that was remembered.
    pub(crate) fn is_unproven(&self) -> bool {
        self.unproven
    }

    /// Packets have another size from here on.
    pub(crate) fn set_packet_bytes(&mut self, packet_bytes: usize) {
        self.packet_bytes = packet_bytes;
        self.window = self.window.max(WINDOW_DEAD_PACKETS * packet_bytes);
    }

    /// Bytes that may be in flight.
    pub(crate) fn window(&self) -> usize {
        self.window
    }

    pub(crate) fn in_slow_start(&self) -> bool {
        self.slow_start.is_some()
    }

    /// Whether another full packet may be sent.
    pub(crate) fn has_room(&self, in_flight: usize) -> bool {
        in_flight + self.packet_bytes <= self.window
    }

    /// Whether the path loses packets by chance, or may do so.
    pub(crate) fn is_suspect(&self) -> bool {
        self.loss_so_far().is_suspect()
    }

    /// How, if so. `overdue`: packets that are on the path no longer, of which nothing was heard.
    pub(crate) fn feared_loss(&self, overdue: usize) -> Option<Loss> {
        let loss = self.loss_so_far();
        if overdue > 0 { Some(loss.feared_in_burst(overdue)) } else { loss.feared() }
    }

    /// Whether a loss was seen lately, rather than feared.
    pub(crate) fn has_lost(&self) -> bool {
        self.loss_so_far().has_lost()
    }

    /// With what the round has seen until now: a burst of losses should not have to wait for its end, which may be
    /// lost as well.
    fn loss_so_far(&self) -> LossShare {
        let mut share = self.recent_loss;
        if self.round.packets_lost > 0 && !self.round.has_queue {
            self.round.add_to(&mut share);
        }
        share
    }

    /// Takes in what one acknowledgement, or the loss timer, has settled.
    pub(crate) fn on_settled(&mut self, now: Instant, settled: SettledSums) {
        match self.round.ends_after {
            Some(end) if settled.largest_acked <= end => {}
            Some(_) => {
                self.end_round(now);
                self.begin_round(now, settled.largest_sent);
            }
            None => self.begin_round(now, settled.largest_sent),
        }
        if settled.acked > 0 && std::mem::take(&mut self.dead) {
            // As on a new path.
            self.set_window(self.window.max(WINDOW_INITIAL_PACKETS * self.packet_bytes));
        }
        self.round.delivered += settled.acked + settled.late;
        self.round.lost = (self.round.lost + settled.lost).saturating_sub(settled.late);
        self.round.packets_settled += settled.packets_acked + settled.packets_lost;
        self.round.packets_lost += settled.packets_lost;
        self.round.bursts_lost += settled.bursts_lost;
        self.round.window_used |= settled.in_flight + 2 * self.packet_bytes > self.window;
        if let Some(sample) = settled.sample {
            let smallest = self.round.round_trip_min.map_or(sample, |min| min.min(sample));
            self.round.round_trip_min = Some(smallest);
            self.round.has_queue = self.has_queue(sample);
            self.round.samples += 1;
            // A queue that builds up fast should not have to wait for the end of the round.
            if self.in_slow_start() && self.round.samples >= SAMPLES_MIN && self.has_queue(smallest)
            {
                self.end_slow_start();
            }
        }
        if self.in_slow_start() && self.round.window_used {
            // What is lost by chance does not slow the search down.
            let settled = settled.acked + settled.lost.min(settled.acked);
            self.set_window(
                (self.window + settled).max(WINDOW_INITIAL_PACKETS * self.packet_bytes),
            );
        }
    }

    /// A queue has marked packets of ours: that is congestion, whatever else is lost. As a loss that was no chance, it
    /// counts once per round trip (RFC 9002 §7.3.2), but at once.
    pub(crate) fn on_marks(&mut self, largest_acked: u64, largest_sent: u64) {
        if self.heeded_up_to.is_some_and(|last| largest_acked <= last) {
            return;
        }
        self.heeded_up_to = Some(largest_sent);
        self.unmarked_rounds = Some(0);
        let before = self.window.min(self.bound);
        self.unproven = false;
        if self.in_slow_start() {
            self.end_slow_start();
        }
        self.shrink(before, SHRINK_MARKED);
        self.round.marked = true;
        self.set_window(self.window.min(self.bound));
    }

    fn shrink(&mut self, before: usize, left: f64) {
        let bound = (before as f64 * left) as usize;
        self.bound = bound.max(WINDOW_FLOOR_PACKETS * self.packet_bytes);
        self.shrunk = true;
    }

    /// The path does not answer: stop flooding, and begin anew when it does.
    pub(crate) fn on_dead_path(&mut self) {
        self.window = WINDOW_DEAD_PACKETS * self.packet_bytes;
        self.dead = true;
        self.unproven = false;
        self.slow_start = Some(0);
        self.bound = usize::MAX;
        self.unmarked_rounds = None;
        self.rates.clear();
        self.round_trip_min = None;
    }

    fn begin_round(&mut self, now: Instant, largest_sent: u64) {
        self.round =
            Round { began_at: Some(now), ends_after: Some(largest_sent), ..Round::default() };
    }

    fn end_round(&mut self, now: Instant) {
        let round = std::mem::take(&mut self.round);
        let showed_little = self.slow_start.is_none() && self.cycle == 1;
        self.note_round_trip(now, &round, showed_little);
        let queue = round.round_trip_min.is_some_and(|latest| self.has_queue(latest));
        self.note_loss(&round, queue, showed_little);
        let grew = self.note_rate(now, &round);
        if self.unproven && round.window_used {
            self.unproven = false;
            let queue = queue && round.samples >= SAMPLES_MIN;
            if queue || self.loses_more_than_known(&round) {
                // The path carries less than it did: what has arrived is what it carries.
                self.set_window(round.delivered.max(WINDOW_INITIAL_PACKETS * self.packet_bytes));
                return self.end_slow_start();
            }
        }
        match self.slow_start {
            Some(stagnant) => {
                if !round.window_used {
                    return;
                }
                let stagnant = if grew { 0 } else { stagnant + 1 };
                self.slow_start = Some(stagnant);
                let judged = round.lost + round.delivered >= JUDGED_PACKETS_MIN * self.packet_bytes;
                let flooded = judged && round.lost > 3 * round.delivered;
                if stagnant == STAGNANT_ROUNDS || flooded {
                    self.end_slow_start();
                }
            }
            None => self.steer(&round, queue, showed_little),
        }
    }

    /// Whether a round has lost more than its path was known to lose, chance allowed for.
    fn loses_more_than_known(&self, round: &Round) -> bool {
        let expected =
            self.own_loss.share().max(self.recent_loss.share()) * f64::from(round.packets_settled);
        f64::from(round.packets_lost) > 2.0 * expected + 4.0
    }

    /// A round with little in flight comes first: the queue drains, and the path's own loss shows.
    fn end_slow_start(&mut self) {
        self.slow_start = None;
        self.cycle = 0;
        self.crowded = 0;
        self.bound = self.window;
        self.set_window(self.little());
    }

    /// The window of the next round.
    fn steer(&mut self, round: &Round, queue: bool, showed_little: bool) {
        if showed_little {
            self.crowded = if queue { self.crowded.saturating_add(1) } else { 0 };
            if self.crowded == CROWDED_CYCLES {
                self.bound = self.window;
            }
        }
        let packets = |bytes: usize| bytes as f64 / self.packet_bytes as f64;
        let lost = packets(round.lost);
        let expected = self.own_loss.share() * packets(round.lost + round.delivered);
        // With a queue, little more than chance explains is enough; without, it has to be plain.
        let chance = if queue {
            expected * 1.25 + 2.0 * expected.sqrt()
        } else {
            2.0 * expected
                + 4.0 * (expected + 1.0).sqrt()
                + packets(round.lost + round.delivered) / 8.0
        };
        if self.cycle > 1 && lost > chance && !self.shrunk {
            self.shrink(self.window.min(self.bound), SHRINK);
        } else if !round.marked {
            self.shrunk = false;
            if round.window_used {
                let step = self.step(queue);
                self.bound = self.bound.saturating_add(step);
            }
        }
        self.bound = self.bound.max(WINDOW_FLOOR_PACKETS * self.packet_bytes);
        if round.window_used || self.cycle > 0 {
            self.cycle = (self.cycle + 1) % CYCLE_ROUNDS;
        }
        let window = if self.cycle == 0 {
            self.little()
        } else if self.crowded >= CROWDED_CYCLES {
            self.bound
        } else {
            self.held_by_path() + self.queue_allowed()
        };
        self.set_window(window.min(self.bound));
    }

    /// By how much the bound grows in a round. A queue that marks is kept so short that it does not show: there we grow as
    /// slowly as who shares it, the more so as we shrink less; and faster the longer nothing was marked.
    fn step(&mut self, queue: bool) -> usize {
        match &mut self.unmarked_rounds {
            Some(rounds) => {
                *rounds += 1;
                let doublings = (*rounds / UNMARKED_ROUNDS).min(STEP_DOUBLINGS_MAX);
                ((self.packet_bytes / STEP_PART) << doublings).min(self.bound / 8)
            }
            None if queue => self.packet_bytes,
            None => self.bound / 8,
        }
    }

    /// Bytes that arrive in a round trip when nothing waits.
    fn arriving(&self) -> usize {
        let best = self.rates.iter().copied().fold(0.0, f64::max);
        match self.round_trip_min {
            Some((round_trip, _)) if best > 0.0 => (best * round_trip.as_secs_f64()) as usize,
            _ => self.window,
        }
    }

    /// Bytes that the path holds when nothing waits, those included that it will lose.
    fn held_by_path(&self) -> usize {
        (self.arriving() as f64 / (1.0 - self.own_loss.share().min(OWN_LOSS_MAX))) as usize
    }

    fn queue_allowed(&self) -> usize {
        let most = QUEUED_PACKETS_MAX * self.packet_bytes;
        let least = QUEUED_PACKETS_MIN * self.packet_bytes;
        (self.held_by_path() / 2).clamp(least, most)
    }

    /// Less than what arrives, so that none of it waits and all that is missing is lost by chance.
    fn little(&self) -> usize {
        (self.arriving() as f64 * LITTLE) as usize
    }

    /// Only a round with little in flight, or with nothing to send, may show a longer path.
    fn note_round_trip(&mut self, now: Instant, round: &Round, showed_little: bool) {
        let Some(latest) = round.round_trip_min else { return };
        let known = self.round_trip_min;
        let expired = known.is_some_and(|(_, since)| now >= since + ROUND_TRIP_MIN_LIFE)
            && (showed_little || !round.window_used);
        if known.is_none_or(|(min, _)| latest <= min) || expired {
            self.round_trip_min = Some((latest, now));
        }
    }

    fn note_loss(&mut self, round: &Round, queue: bool, showed_little: bool) {
        if showed_little || !round.window_used {
            round.add_to(&mut self.own_loss);
        }
        if !queue {
            round.add_to(&mut self.recent_loss);
        }
    }

    /// Whether the rate has grown by a quarter.
    fn note_rate(&mut self, now: Instant, round: &Round) -> bool {
        let best = self.rates.iter().copied().fold(0.0, f64::max);
        let Some(began_at) = round.began_at.filter(|_| round.window_used) else { return false };
        let took = now.saturating_duration_since(began_at).as_secs_f64();
        if took <= 0.0 {
            return false;
        }
        let rate = round.delivered as f64 / took;
        if self.rates.len() == RATE_ROUNDS {
            self.rates.pop_front();
        }
        self.rates.push_back(rate);
        rate > best * 1.25
    }

    /// Whether even the fastest packet of a round took longer than the path alone explains.
    fn has_queue(&self, latest: Duration) -> bool {
        self.round_trip_min.is_some_and(|(min, _)| latest > min + (min / 8).max(QUEUE_DELAY_MIN))
    }

    fn set_window(&mut self, window: usize) {
        let remembered = SENT_PACKETS_MAX / 2 * self.packet_bytes;
        self.window = window.min(remembered).max(WINDOW_FLOOR_PACKETS * self.packet_bytes);
    }
}

/// Input of [`Congestion::on_settled`]: bytes, unless said otherwise.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SettledSums {
    /// Bytes acknowledged.
    pub(crate) acked: usize,
    /// Bytes lost.
    pub(crate) lost: usize,
    /// Bytes called lost before that have arrived.
    pub(crate) late: usize,
    /// Packets acknowledged, and lost.
    pub(crate) packets_acked: u32,
    pub(crate) packets_lost: u32,
    /// How often packets were lost, those in a row counted once.
    pub(crate) bursts_lost: u32,
    /// Bytes in flight before.
    pub(crate) in_flight: usize,
    /// A round-trip sample.
    pub(crate) sample: Option<Duration>,
    /// Largest packet number acknowledged.
    pub(crate) largest_acked: u64,
    /// Largest packet number sent.
    pub(crate) largest_sent: u64,
}

#[cfg(test)]
mod tests;
