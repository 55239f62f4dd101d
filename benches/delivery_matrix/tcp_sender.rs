//! The sending half of a TCP: RACK-TLP (RFC 8985) on SACK, RTO as Linux sets it (RFC 6298, 200 ms at least), CUBIC
//! (RFC 9438) with HyStart's delay rule. A model to measure against, not a TCP: receive windows never fill, and
//! recovery sends whatever the window has room for, which is kinder than proportional rate reduction.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Longest segment on a path of 1,500 bytes, with timestamps.
pub(crate) const SEGMENT_BYTES: u64 = 1_448;
/// Linux's: added to the smoothed round trip at least.
const RTO_VARIATION_MIN: Duration = Duration::from_millis(200);
const RTO_MAX: Duration = Duration::from_secs(120);
/// Until a round trip is known (RFC 6298 §2.1).
const RTO_INITIAL: Duration = Duration::from_secs(1);
/// How long the peer may hold back the acknowledgement of a single segment.
pub(crate) const ACK_DELAY_MAX: Duration = Duration::from_millis(40);
/// Window of a new connection, and after a pause (RFC 6928).
const WINDOW_INITIAL: f64 = 10.0;
/// RFC 9438 §4.
const BETA: f64 = 0.7;
const C: f64 = 0.4;
/// SACKed segments after which order proves a loss.
const DUPLICATES: usize = 3;

#[derive(Debug)]
struct Segment {
    end: u64,
    sent_at: Instant,
    again: bool,
    sacked: bool,
    lost: bool,
}

#[derive(Debug)]
pub(crate) struct Sender {
    /// Segments sent and not acknowledged cumulatively, by first byte.
    segments: BTreeMap<u64, Segment>,
    next: u64,
    /// Bytes that the application has written.
    pub(crate) written: u64,
    pub(crate) acked: u64,
    srtt: Option<(Duration, Duration)>,
    rtt_min: Duration,
    /// Of the segment sent last among those that arrived: when it was sent, and its round trip.
    rack: Option<(Instant, Duration)>,
    reorder_at: Option<Instant>,
    timeouts: u32,
    /// The timer runs since then.
    armed_at: Instant,
    probe_sent: bool,
    probe_due: bool,
    /// Segments, as CUBIC counts.
    window: f64,
    threshold: f64,
    window_max: f64,
    epoch: Option<Instant>,
    epoch_window: f64,
    recovery_until: Option<u64>,
    /// Of the round that ends with this byte: the smallest round trip, and how many there were.
    round_end: u64,
    round_rtt: Option<Duration>,
    round_samples: u32,
}

impl Sender {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            segments: BTreeMap::new(),
            next: 0,
            written: 0,
            acked: 0,
            srtt: None,
            rtt_min: Duration::MAX,
            rack: None,
            reorder_at: None,
            timeouts: 0,
            armed_at: now,
            probe_sent: false,
            probe_due: false,
            window: WINDOW_INITIAL,
            threshold: f64::INFINITY,
            window_max: 0.0,
            epoch: None,
            epoch_window: 0.0,
            recovery_until: None,
            round_end: 0,
            round_rtt: None,
            round_samples: 0,
        }
    }

    /// A round trip that the connection's opening has shown.
    pub(crate) fn sample(&mut self, rtt: Duration) {
        self.rtt_min = self.rtt_min.min(rtt);
        self.srtt = Some(match self.srtt {
            None => (rtt, rtt / 2),
            Some((srtt, variation)) => {
                ((srtt * 7 + rtt) / 8, (variation * 3 + srtt.abs_diff(rtt)) / 4)
            }
        });
        self.round_samples += 1;
        self.round_rtt = Some(self.round_rtt.map_or(rtt, |least| least.min(rtt)));
    }

    fn rto(&self) -> Duration {
        let base = self
            .srtt
            .map_or(RTO_INITIAL, |(srtt, variation)| srtt + (variation * 4).max(RTO_VARIATION_MIN));
        base.saturating_mul(1 << self.timeouts.min(10)).min(RTO_MAX)
    }

    /// When the tail is probed, or the oldest segment times out.
    fn timer(&self) -> Option<Instant> {
        if self.segments.is_empty() {
            return None;
        }
        let rto = self.rto();
        let after = match self.srtt {
            Some((srtt, _))
                if !self.probe_sent && self.timeouts == 0 && self.recovery_until.is_none() =>
            {
                let alone = if self.segments.len() == 1 { ACK_DELAY_MAX } else { Duration::ZERO };
                (srtt * 2 + alone).min(rto)
            }
            _ => rto,
        };
        Some(self.armed_at + after)
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.reorder_at.into_iter().chain(self.timer()).min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.reorder_at.is_some_and(|at| at <= now) {
            self.detect_losses(now);
        }
        if self.timer().is_none_or(|at| at > now) {
            return;
        }
        self.armed_at = now;
        let probing = !self.probe_sent && self.timeouts == 0 && self.recovery_until.is_none();
        if probing && self.srtt.is_some() {
            self.probe_sent = true;
            self.probe_due = true;
            return;
        }
        self.timeouts += 1;
        self.reduce(now);
        self.window = 1.0;
        self.recovery_until = Some(self.next);
        self.segments.values_mut().filter(|s| !s.sacked).for_each(|s| s.lost = true);
    }

    /// Takes in an acknowledgement: everything below `ack`, and the ranges.
    pub(crate) fn on_ack(&mut self, now: Instant, ack: u64, sacks: &[(u64, u64)]) {
        let mut newest: Option<(Instant, bool)> = None;
        let mut arrived = 0;
        let limited = self.in_flight() as f64 + 2.0 > self.window;
        for (start, segment) in &mut self.segments {
            let cumulative = segment.end <= ack;
            let selective = sacks.iter().any(|(low, high)| low <= start && segment.end <= *high);
            if segment.sacked || !(cumulative || selective) {
                continue;
            }
            segment.sacked = true;
            segment.lost = false;
            arrived += 1;
            if newest.is_none_or(|(at, _)| segment.sent_at >= at) {
                newest = Some((segment.sent_at, segment.again));
            }
        }
        self.segments.retain(|_, segment| segment.end > ack);
        let advanced = ack > self.acked;
        self.acked = self.acked.max(ack);
        if let Some((sent_at, again)) = newest {
            let rtt = now - sent_at;
            // Karn: a copy may answer for its original, unless that is impossible.
            if !again || rtt >= self.rtt_min {
                if !again {
                    self.sample(rtt);
                }
                if self.rack.is_none_or(|(at, _)| sent_at >= at) {
                    self.rack = Some((sent_at, rtt));
                }
            }
            self.armed_at = now;
            self.probe_sent = false;
        }
        if advanced {
            self.timeouts = 0;
        }
        if self.recovery_until.is_some_and(|until| self.acked >= until) {
            self.recovery_until = None;
        }
        self.detect_losses(now);
        if arrived > 0 && limited {
            self.grow(now, f64::from(arrived));
        }
        if self.acked >= self.round_end {
            self.round_end = self.next;
            (self.round_rtt, self.round_samples) = (None, 0);
        }
    }

    fn detect_losses(&mut self, now: Instant) {
        self.reorder_at = None;
        let Some((rack_sent_at, rack_rtt)) = self.rack else { return };
        let sacked = self.segments.values().filter(|s| s.sacked).count();
        let patience = if self.recovery_until.is_some() || sacked >= DUPLICATES {
            Duration::ZERO
        } else {
            self.rtt_min / 4
        };
        let mut any = false;
        for segment in self.segments.values_mut().filter(|s| !s.sacked && !s.lost) {
            if segment.sent_at >= rack_sent_at {
                continue;
            }
            let lost_at = segment.sent_at + rack_rtt + patience;
            if lost_at <= now {
                segment.lost = true;
                any = true;
            } else {
                self.reorder_at = Some(self.reorder_at.map_or(lost_at, |at| at.min(lost_at)));
            }
        }
        if any && self.recovery_until.is_none() {
            self.recovery_until = Some(self.next);
            self.reduce(now);
        }
    }

    /// A congestion event.
    fn reduce(&mut self, now: Instant) {
        if self.recovery_until.is_some() && self.timeouts > 1 {
            return;
        }
        let fast = self.window < self.window_max;
        self.window_max = if fast { self.window * (1.0 + BETA) / 2.0 } else { self.window };
        self.window = (self.window * BETA).max(2.0);
        self.threshold = self.window;
        self.epoch = Some(now);
        self.epoch_window = self.window;
    }

    fn grow(&mut self, now: Instant, arrived: f64) {
        if self.recovery_until.is_some() && self.timeouts == 0 && self.window >= self.threshold {
            return;
        }
        if self.window < self.threshold {
            self.window += arrived;
            let queue = self.round_rtt.is_some_and(|rtt| {
                let extra =
                    (self.rtt_min / 8).clamp(Duration::from_millis(4), Duration::from_millis(16));
                self.round_samples >= 8 && rtt > self.rtt_min + extra
            });
            if queue && self.threshold.is_infinite() {
                self.threshold = self.window;
                (self.window_max, self.epoch, self.epoch_window) =
                    (self.window, Some(now), self.window);
            }
            return;
        }
        let epoch = *self.epoch.get_or_insert(now);
        let srtt = self.srtt.map_or(0.0, |(srtt, _)| srtt.as_secs_f64());
        let t = (now - epoch).as_secs_f64();
        let k = ((self.window_max - self.epoch_window).max(0.0) / C).cbrt();
        let cubic = C * (t + srtt - k).powi(3) + self.window_max;
        let friendly = self.epoch_window + 3.0 * (1.0 - BETA) / (1.0 + BETA) * t / srtt.max(0.001);
        let target = cubic.max(friendly).min(self.window * 1.5);
        if target > self.window {
            self.window += (target - self.window) / self.window * arrived;
        }
    }

    fn in_flight(&self) -> usize {
        self.segments.values().filter(|s| !s.sacked && !s.lost).count()
    }

    /// The next segment to send: first and last byte.
    pub(crate) fn transmit(&mut self, now: Instant) -> Option<(u64, u64)> {
        if self.segments.is_empty() && self.next < self.written && now > self.armed_at + self.rto()
        {
            self.window = self.window.min(WINDOW_INITIAL);
            self.epoch = None;
        }
        let probe = std::mem::take(&mut self.probe_due);
        if !probe && self.in_flight() as f64 >= self.window.floor() {
            return None;
        }
        let lost = self.segments.iter().find(|(_, s)| s.lost).map(|(start, _)| *start);
        let again = if probe && self.next == self.written {
            self.segments.iter().next_back().map(|(start, _)| *start)
        } else {
            lost
        };
        if let Some(start) = again {
            let segment = self.segments.get_mut(&start)?;
            (segment.sent_at, segment.again, segment.lost) = (now, true, false);
            return Some((start, segment.end));
        }
        if self.next == self.written {
            return None;
        }
        let (start, end) = (self.next, self.written.min(self.next + SEGMENT_BYTES));
        self.next = end;
        if self.segments.is_empty() {
            self.armed_at = now;
        }
        let segment = Segment { end, sent_at: now, again: false, sacked: false, lost: false };
        self.segments.insert(start, segment);
        self.armed_at = now;
        Some((start, end))
    }
}
