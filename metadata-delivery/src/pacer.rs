//! When the next packet may leave, so that a window is not sent as one burst (RFC 9002 §7.7).

use std::time::{Duration, Instant};

/// Packets that may leave back to back.
const BURST_PACKETS: u32 = 10;

/// What a timer of the host may be late by: that much may leave back to back as well.
const BURST_TIME_MIN: Duration = Duration::from_millis(2);

/// Spreads packets over the round trip. Until one is measured, nothing is held back: the initial
/// window is a burst that RFC 9002 allows.
#[derive(Debug)]
pub(crate) struct Pacer {
    packet_bytes: usize,
    /// When everything sent so far would have left at the even rate.
    spent_until: Option<Instant>,
    /// How far ahead of the even rate we may be.
    burst: Duration,
}

impl Pacer {
    /// `packet_bytes`: length of a full packet.
    pub(crate) fn new(packet_bytes: usize) -> Self {
        Self { packet_bytes, spent_until: None, burst: Duration::ZERO }
    }

    /// Full packets have another length from here on.
    pub(crate) fn set_packet_bytes(&mut self, packet_bytes: usize) {
        self.packet_bytes = packet_bytes;
    }

    /// When the next packet may leave; `None`: at once.
    pub(crate) fn ready_at(&self) -> Option<Instant> {
        self.spent_until?.checked_sub(self.burst)
    }

    pub(crate) fn is_ready(&self, now: Instant) -> bool {
        self.ready_at().is_none_or(|at| at <= now)
    }

    /// Notes a packet. `round_trip` is `None` until it is measured.
    pub(crate) fn on_sent(
        &mut self,
        now: Instant,
        bytes: usize,
        window: usize,
        round_trip: Option<Duration>,
        slow_start: bool,
    ) {
        let Some(round_trip) = round_trip else { return };
        // A window's worth takes less than a round trip, so that pacing never is the bottleneck.
        let window_time = if slow_start { round_trip / 2 } else { round_trip * 4 / 5 };
        let cost = |bytes: usize| window_time.mul_f64(bytes as f64 / window.max(1) as f64);
        self.burst = (cost(self.packet_bytes) * BURST_PACKETS).max(BURST_TIME_MIN);
        self.spent_until = Some(self.spent_until.map_or(now, |until| until.max(now)) + cost(bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    const RTT: Option<Duration> = Some(Duration::from_millis(100));

    #[test]
    fn nothing_is_held_back_before_a_round_trip_is_known() {
        let mut pacer = Pacer::new(1000);
        for _ in 0..100 {
            pacer.on_sent(start(), 1000, 10_000, None, true);
        }
        assert!(pacer.is_ready(start()));
    }

    #[test]
    fn after_a_burst_packets_leave_at_an_even_rate() {
        let mut pacer = Pacer::new(1000);
        let mut now = start();
        let mut at_once = 0;
        while pacer.is_ready(now) {
            pacer.on_sent(now, 1000, 100_000, RTT, false);
            at_once += 1;
        }
        assert_eq!(at_once, BURST_PACKETS + 1);
        for _ in 0..50 {
            let ready = pacer.ready_at().unwrap();
            assert_eq!(ready - now, Duration::from_micros(800), "100 packets in 80 ms");
            now = ready;
            assert!(pacer.is_ready(now));
            pacer.on_sent(now, 1000, 100_000, RTT, false);
            assert!(!pacer.is_ready(now));
        }
    }

    #[test]
    fn a_pause_is_not_saved_up() {
        let mut pacer = Pacer::new(1000);
        pacer.on_sent(start(), 1000, 100_000, RTT, false);
        let later = start() + Duration::from_secs(10);
        let mut at_once = 0;
        while pacer.is_ready(later) {
            pacer.on_sent(later, 1000, 100_000, RTT, false);
            at_once += 1;
        }
        assert_eq!(at_once, BURST_PACKETS + 1);
    }
}
