//! How much may be in flight.
//!
//! Provisional, and small on purpose. A controller that takes every loss for congestion stands
//! still at 30 % random loss, so loss alone says little here: what counts is whether it comes
//! with a queue. Once per round trip the round is judged by its smallest round-trip time and its
//! share of lost bytes:
//!
//! | round | slow start | afterwards |
//! |---|---|---|
//! | most bytes lost | end it, fall to what arrived | fall to what arrived |
//! | a queue, and loss | end it, shrink to 70 % | shrink to 70 % |
//! | a queue | end it | hold |
//! | neither, or loss without a queue | (grows with every acknowledgement) | grow by 1/16 |
//!
//! Two bounds hold besides: after slow start never more than twice what recently arrived in one
//! round trip, which limits the harm where a short queue hides, and never less than a floor of
//! [`WINDOW_FLOOR_PACKETS`], unless several probe timeouts in a row say that the path is dead.
//! It measures no rate, does not look for spare capacity at intervals and knows no fairness to
//! other flows; all that belongs to the controller that takes its place.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::limits::SENT_PACKETS_MAX;

/// Window of a new session, in packets (RFC 9002 §7.2).
const WINDOW_INITIAL_PACKETS: usize = 10;

/// The window does not shrink below this, in packets, while acknowledgements come in.
const WINDOW_FLOOR_PACKETS: usize = 8;

/// The window of a path that does not answer, in packets (RFC 9002 §7.6).
const WINDOW_DEAD_PACKETS: usize = 2;

/// Probe timeouts in a row after which a path counts as dead.
const DEAD_TIMEOUTS: u32 = 3;

/// How long the smallest round-trip time is believed, should the path have become longer.
const ROUND_TRIP_MIN_LIFE: Duration = Duration::from_secs(10);

/// Rounds over which the best amount delivered is remembered.
const DELIVERED_ROUNDS: usize = 8;

/// Packets in a round before its share of loss says something.
const JUDGED_PACKETS_MIN: usize = 8;

/// Round-trip samples of a round before its smallest says something about a queue.
const SAMPLES_MIN: u32 = 8;

/// Extra round-trip time that is called a queue, at least.
const QUEUE_DELAY_MIN: Duration = Duration::from_millis(5);

/// The congestion window of one path.
#[derive(Debug)]
pub(crate) struct Congestion {
    packet_bytes: usize,
    window: usize,
    slow_start: bool,
    round: Round,
    /// Bytes delivered in each recent round that used the window; the latest last.
    delivered: VecDeque<usize>,
    /// Smallest round-trip time, and when it was seen.
    round_trip_min: Option<(Duration, Instant)>,
}

/// What happened since a round began. It ends when a packet sent after its begin is acknowledged.
#[derive(Debug, Default)]
struct Round {
    ends_after: Option<u64>,
    delivered: usize,
    lost: usize,
    round_trip_min: Option<Duration>,
    samples: u32,
    /// Whether the window was what held us back at some moment.
    window_used: bool,
}

impl Congestion {
    pub(crate) fn new(packet_bytes: usize) -> Self {
        Self {
            packet_bytes,
            window: WINDOW_INITIAL_PACKETS * packet_bytes,
            slow_start: true,
            round: Round::default(),
            delivered: VecDeque::new(),
            round_trip_min: None,
        }
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
        self.slow_start
    }

    /// Whether another full packet may be sent.
    pub(crate) fn has_room(&self, in_flight: usize) -> bool {
        in_flight + self.packet_bytes <= self.window
    }

    /// Takes in what one acknowledgement, or the loss timer, has settled.
    pub(crate) fn on_settled(&mut self, now: Instant, settled: SettledBytes) {
        match self.round.ends_after {
            Some(end) if settled.largest_acked <= end => {}
            Some(_) => {
                self.end_round(now);
                self.round.ends_after = Some(settled.largest_sent);
            }
            None => self.round.ends_after = Some(settled.largest_sent),
        }
        self.round.delivered += settled.acked + settled.late;
        self.round.lost = (self.round.lost + settled.lost).saturating_sub(settled.late);
        self.round.window_used |= settled.in_flight + 2 * self.packet_bytes > self.window;
        if let Some(sample) = settled.sample {
            let smallest = self.round.round_trip_min.map_or(sample, |min| min.min(sample));
            self.round.round_trip_min = Some(smallest);
            self.round.samples += 1;
            // A queue that builds up fast should not have to wait for the end of the round.
            if self.slow_start && self.round.samples >= SAMPLES_MIN {
                self.slow_start = !self.has_queue(now, smallest);
            }
        }
        if self.slow_start && self.round.window_used {
            self.set_window(self.window + settled.acked);
        }
    }

    /// Several probe timeouts in a row: stop flooding, and begin anew when the path answers.
    pub(crate) fn on_probe_timeout(&mut self, in_a_row: u32) {
        if in_a_row >= DEAD_TIMEOUTS {
            self.window = WINDOW_DEAD_PACKETS * self.packet_bytes;
            self.slow_start = true;
            self.delivered.clear();
            self.round_trip_min = None;
        }
    }

    fn end_round(&mut self, now: Instant) {
        let round = std::mem::take(&mut self.round);
        let queue = round.round_trip_min.is_some_and(|latest| self.has_queue(now, latest));
        if round.window_used {
            if self.delivered.len() == DELIVERED_ROUNDS {
                self.delivered.pop_front();
            }
            self.delivered.push_back(round.delivered);
        }
        let judged = round.lost + round.delivered >= JUDGED_PACKETS_MIN * self.packet_bytes;
        if judged && round.lost > round.delivered {
            self.slow_start = false;
            self.set_window(round.delivered);
        } else if queue && round.lost > 0 {
            self.slow_start = false;
            self.set_window(self.window / 10 * 7);
        } else if queue {
            self.slow_start = false;
        } else if !self.slow_start && round.window_used {
            self.set_window(self.window + (self.window / 16).max(self.packet_bytes));
        }
    }

    /// Whether even the fastest packet of a round took longer than the path alone explains.
    fn has_queue(&mut self, now: Instant, latest: Duration) -> bool {
        match self.round_trip_min {
            Some((min, since)) if min < latest && now < since + ROUND_TRIP_MIN_LIFE => {
                latest > min + (min / 4).max(QUEUE_DELAY_MIN)
            }
            _ => {
                self.round_trip_min = Some((latest, now));
                false
            }
        }
    }

    fn set_window(&mut self, window: usize) {
        let delivered = self.delivered.iter().copied().max().filter(|_| !self.slow_start);
        let arrived = delivered
            .map_or(usize::MAX, |bytes| 2 * bytes + WINDOW_INITIAL_PACKETS * self.packet_bytes);
        let remembered = SENT_PACKETS_MAX / 2 * self.packet_bytes;
        self.window =
            window.min(arrived).min(remembered).max(WINDOW_FLOOR_PACKETS * self.packet_bytes);
    }
}

/// Input of [`Congestion::on_settled`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct SettledBytes {
    /// Bytes acknowledged.
    pub(crate) acked: usize,
    /// Bytes lost.
    pub(crate) lost: usize,
    /// Bytes called lost before that have arrived.
    pub(crate) late: usize,
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
mod tests {
    use super::*;
    use crate::testing::start;

    const PACKET: usize = 1000;
    const MS: Duration = Duration::from_millis(1);

    /// A sender that always has more to send, in rounds of one window each.
    struct Rounds {
        congestion: Congestion,
        now: Instant,
        sent: u64,
    }

    impl Rounds {
        fn new() -> Self {
            Self { congestion: Congestion::new(PACKET), now: start(), sent: 0 }
        }

        /// One window is sent and settled after `round_trip`; `lost_percent` of it is lost.
        fn round(&mut self, round_trip: Duration, lost_percent: usize) -> usize {
            let packets = self.congestion.window() / PACKET;
            let first = self.sent + 1;
            self.sent += packets as u64;
            self.now += round_trip;
            for at in 0..packets {
                let lost = (at + 1) * lost_percent / 100 > at * lost_percent / 100;
                self.congestion.on_settled(
                    self.now,
                    SettledBytes {
                        acked: if lost { 0 } else { PACKET },
                        lost: if lost { PACKET } else { 0 },
                        late: 0,
                        in_flight: packets * PACKET,
                        sample: (!lost).then_some(round_trip),
                        largest_acked: first + at as u64,
                        largest_sent: self.sent,
                    },
                );
            }
            self.congestion.window() / PACKET
        }
    }

    #[test]
    fn without_loss_or_queue_the_window_doubles_each_round() {
        let mut rounds = Rounds::new();
        let windows: Vec<usize> = (0..4).map(|_| rounds.round(50 * MS, 0)).collect();
        assert_eq!(windows, [20, 40, 80, 160]);
    }

    #[test]
    fn a_queue_ends_slow_start_and_a_queue_with_loss_shrinks_the_window() {
        let mut rounds = Rounds::new();
        rounds.round(50 * MS, 0);
        rounds.round(50 * MS, 0);
        rounds.round(70 * MS, 0);
        rounds.round(70 * MS, 0);
        assert!(!rounds.congestion.in_slow_start());
        let before = rounds.congestion.window() / PACKET;
        assert_eq!(rounds.round(70 * MS, 0), before, "a queue alone holds it");
        rounds.round(70 * MS, 5);
        let after = rounds.round(50 * MS, 0);
        assert!(after < before * 4 / 5, "{before} to {after}");
    }

    #[test]
    fn thirty_percent_random_loss_does_not_stop_growth() {
        let mut rounds = Rounds::new();
        for _ in 0..20 {
            rounds.round(50 * MS, 30);
        }
        assert!(rounds.congestion.window() / PACKET > 200);
    }

    #[test]
    fn losing_most_of_a_round_falls_to_what_arrived_but_not_below_the_floor() {
        let mut rounds = Rounds::new();
        for _ in 0..5 {
            rounds.round(50 * MS, 0);
        }
        let before = rounds.congestion.window() / PACKET;
        rounds.round(50 * MS, 80);
        let after = rounds.round(50 * MS, 80);
        assert!(after <= before / 4, "{before} to {after}");
        for _ in 0..20 {
            rounds.round(50 * MS, 95);
        }
        assert_eq!(rounds.congestion.window() / PACKET, WINDOW_FLOOR_PACKETS);
    }

    #[test]
    fn a_path_that_does_not_answer_gets_two_packets() {
        let mut rounds = Rounds::new();
        rounds.round(50 * MS, 0);
        rounds.congestion.on_probe_timeout(DEAD_TIMEOUTS - 1);
        assert_eq!(rounds.congestion.window() / PACKET, 20);
        rounds.congestion.on_probe_timeout(DEAD_TIMEOUTS);
        assert_eq!(rounds.congestion.window() / PACKET, WINDOW_DEAD_PACKETS);
        rounds.round(50 * MS, 0);
        assert!(rounds.congestion.window() / PACKET >= WINDOW_FLOOR_PACKETS);
    }

    #[test]
    fn a_sender_with_little_to_say_does_not_grow_its_window() {
        let mut congestion = Congestion::new(PACKET);
        for number in 1..100 {
            congestion.on_settled(
                start(),
                SettledBytes {
                    acked: PACKET,
                    lost: 0,
                    late: 0,
                    in_flight: PACKET,
                    sample: Some(50 * MS),
                    largest_acked: number,
                    largest_sent: number,
                },
            );
        }
        assert_eq!(congestion.window(), WINDOW_INITIAL_PACKETS * PACKET);
    }

    #[test]
    fn the_window_never_exceeds_what_can_be_remembered() {
        let mut rounds = Rounds::new();
        for _ in 0..12 {
            rounds.round(50 * MS, 0);
        }
        assert_eq!(rounds.congestion.window() / PACKET, SENT_PACKETS_MAX / 2);
    }
}
