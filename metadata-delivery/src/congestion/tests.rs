use super::*;
use crate::testing::start;

const PACKET: usize = 1000;
const MS: Duration = Duration::from_millis(1);

/// A path with a round trip of 50 ms.
#[derive(Clone, Copy)]
struct Path {
    /// Packets that it holds in a round trip, which says how fast it is.
    holds: u32,
    /// Packets that may wait, and how many of others always do.
    queue: u32,
    others: u32,
    /// How many of a hundred it loses by itself.
    loses_percent: u64,
}

impl Path {
    const WIDE: Self = Self { holds: 1_000_000, queue: 1_000_000, others: 0, loses_percent: 0 };
}

/// A sender that always has more to send than the window lets go.
struct Sender {
    congestion: Congestion,
    now: Instant,
    sent: u64,
    in_flight: VecDeque<InFlight>,
    free_at: Instant,
}

struct InFlight {
    number: u64,
    sent_at: Instant,
    /// When it, or the gap it left, is noticed.
    settled_at: Instant,
    lost: bool,
}

impl Sender {
    fn new() -> Self {
        let (now, in_flight) = (start(), VecDeque::new());
        Self { congestion: Congestion::new(PACKET), now, sent: 0, in_flight, free_at: now }
    }

    fn send(&mut self, path: Path) {
        while self.congestion.has_room(self.in_flight.len() * PACKET) {
            self.sent += 1;
            let each = 50 * MS / path.holds;
            let waits = self.free_at.saturating_duration_since(self.now) + each * path.others;
            let overflows = waits > each * path.queue;
            if !overflows {
                self.free_at = self.free_at.max(self.now) + each;
            }
            // Well mixed, and the same in every run.
            let lost = self.sent * 37 % 100 < path.loses_percent;
            self.in_flight.push_back(InFlight {
                number: self.sent,
                sent_at: self.now,
                settled_at: self.now + waits + each + 50 * MS,
                lost: overflows || lost,
            });
        }
    }

    /// Goes on until everything is settled that is in flight. Returns the window then, in packets.
    fn round(&mut self, path: Path) -> usize {
        self.send(path);
        let last = self.sent;
        while let Some(packet) = self.in_flight.pop_front_if(|packet| packet.number <= last) {
            let in_flight = (self.in_flight.len() + 1) * PACKET;
            self.now = self.now.max(packet.settled_at);
            let (acked, lost) = if packet.lost { (0, PACKET) } else { (PACKET, 0) };
            self.congestion.on_settled(
                self.now,
                SettledSums {
                    acked,
                    lost,
                    late: 0,
                    packets_acked: u32::from(!packet.lost),
                    packets_lost: u32::from(packet.lost),
                    bursts_lost: u32::from(packet.lost),
                    in_flight,
                    sample: (!packet.lost).then(|| self.now - packet.sent_at),
                    largest_acked: packet.number,
                    largest_sent: self.sent,
                },
            );
            self.send(path);
        }
        self.congestion.window() / PACKET
    }

    fn rounds(&mut self, count: usize, path: Path) -> Vec<usize> {
        (0..count).map(|_| self.round(path)).collect()
    }
}

fn mean(windows: &[usize]) -> usize {
    windows.iter().sum::<usize>() / windows.len()
}

#[test]
fn without_loss_or_queue_the_window_doubles_each_round() {
    let windows = Sender::new().rounds(4, Path::WIDE);
    assert_eq!(windows, [20, 40, 80, 160]);
}

#[test]
fn a_queue_ends_slow_start_and_the_window_comes_to_what_the_path_holds_and_a_little_more() {
    let path = Path { holds: 100, queue: 100, ..Path::WIDE };
    let mut sender = Sender::new();
    let windows = sender.rounds(60, path);
    assert!(*windows.iter().max().unwrap() <= 320, "{windows:?}");
    assert!(!sender.congestion.in_slow_start());
    let settled = &windows[20..];
    assert!(settled.iter().all(|window| (85..=130).contains(window)), "{windows:?}");
    assert!((100..=125).contains(&mean(settled)), "{windows:?}");
    assert!(settled.iter().any(|window| *window < 100), "it drains now and then: {windows:?}");
}

#[test]
fn what_a_path_loses_by_itself_is_learned_and_made_good() {
    for loses_percent in [3, 10, 20, 30, 40] {
        let path = Path { holds: 100, queue: 100, loses_percent, ..Path::WIDE };
        let windows = Sender::new().rounds(80, path);
        let settled = &windows[40..];
        assert!((95..=135).contains(&mean(settled)), "{loses_percent} %: {windows:?}");
    }
}

#[test]
fn losses_that_begin_in_mid_transfer_do_not_stop_it() {
    let path = Path { holds: 100, queue: 100, ..Path::WIDE };
    let mut sender = Sender::new();
    sender.rounds(30, path);
    let windows = sender.rounds(60, Path { loses_percent: 30, ..path });
    assert!(windows.iter().all(|window| *window >= 40), "{windows:?}");
    assert!((95..=135).contains(&mean(&windows[30..])), "{windows:?}");
}

#[test]
fn a_queue_too_short_to_be_seen_is_not_flooded() {
    for loses_percent in [0, 10] {
        let path = Path { holds: 100, queue: 3, loses_percent, ..Path::WIDE };
        let windows = Sender::new().rounds(120, path);
        let settled = &windows[40..];
        assert!((70..=125).contains(&mean(settled)), "{loses_percent} %: {windows:?}");
    }
}

#[test]
fn where_others_keep_a_queue_it_grows_by_a_packet_and_shrinks_at_each_loss() {
    let alone = Path { holds: 100, queue: 100, ..Path::WIDE };
    let crowded = Path { others: 60, ..alone };
    let mut sender = Sender::new();
    sender.rounds(30, alone);
    let windows = sender.rounds(200, crowded);
    // 140 fit.
    let settled = &windows[60..];
    assert!((90..=130).contains(&mean(settled)), "{windows:?}");
    let cuts = settled.windows(2).filter(|pair| pair[1] * 4 < pair[0] * 3).count();
    assert!((3..=20).contains(&cuts), "{cuts} times it shrank: {windows:?}");
    let windows = sender.rounds(60, alone);
    assert!((95..=135).contains(&mean(&windows[40..])), "alone again: {windows:?}");
}

#[test]
fn a_path_that_becomes_wider_is_found_out() {
    let mut sender = Sender::new();
    sender.rounds(40, Path { holds: 50, queue: 50, ..Path::WIDE });
    let windows = sender.rounds(40, Path { holds: 400, queue: 400, ..Path::WIDE });
    assert!(mean(&windows[30..]) >= 380, "{windows:?}");
}

#[test]
fn a_path_that_does_not_answer_gets_two_packets_and_begins_anew() {
    let mut sender = Sender::new();
    sender.rounds(30, Path { holds: 100, queue: 100, ..Path::WIDE });
    sender.congestion.on_dead_path();
    assert_eq!(sender.congestion.window() / PACKET, WINDOW_DEAD_PACKETS);
    let windows = sender.rounds(3, Path::WIDE);
    assert!(windows[0] >= WINDOW_INITIAL_PACKETS && windows[2] >= 4 * WINDOW_INITIAL_PACKETS);
}

#[test]
fn a_burst_of_losses_is_reckoned_with_before_its_round_ends() {
    let mut congestion = Congestion::new(PACKET);
    let settled = |acked: u32, lost: u32, sent: u64| SettledSums {
        acked: acked as usize * PACKET,
        lost: lost as usize * PACKET,
        late: 0,
        packets_acked: acked,
        packets_lost: lost,
        bursts_lost: lost.min(1),
        in_flight: 0,
        sample: Some(50 * MS),
        largest_acked: sent,
        largest_sent: sent + 10,
    };
    for n in 0..100 {
        congestion.on_settled(start() + 50 * MS * n, settled(1, 0, 11 * u64::from(n)));
    }
    assert!(!congestion.is_suspect());
    congestion.on_settled(start() + 50 * MS * 100, settled(1, 4, 1_095));
    assert!(congestion.is_suspect());
    assert!(congestion.feared_loss(0).is_some_and(|loss| loss.burst > 2.0));
}

#[test]
fn a_sender_with_little_to_say_does_not_grow_its_window() {
    let mut congestion = Congestion::new(PACKET);
    for number in 1..100 {
        congestion.on_settled(
            start(),
            SettledSums {
                acked: PACKET,
                lost: 0,
                late: 0,
                packets_acked: 1,
                packets_lost: 0,
                bursts_lost: 0,
                in_flight: PACKET,
                sample: Some(50 * MS),
                largest_acked: number,
                largest_sent: number,
            },
        );
    }
    assert_eq!(congestion.window(), WINDOW_INITIAL_PACKETS * PACKET);
    assert!(!congestion.is_suspect(), "but it knows the path");
}

#[test]
fn the_window_never_exceeds_what_can_be_remembered() {
    let windows = Sender::new().rounds(12, Path::WIDE);
    assert_eq!(windows[11], SENT_PACKETS_MAX / 2);
}

#[test]
fn marks_end_slow_start_and_shrink_the_window_at_once_but_once_per_round_trip() {
    let path = Path { holds: 100, queue: 100, ..Path::WIDE };
    let mut sender = Sender::new();
    sender.rounds(2, path);
    let before = sender.congestion.window();
    let heeded_up_to = sender.sent;
    sender.congestion.on_marks(30, heeded_up_to);
    assert!(!sender.congestion.in_slow_start());
    let after = sender.congestion.window();
    assert!(after <= (before as f64 * SHRINK_MARKED) as usize, "{before}, {after}");
    sender.congestion.on_marks(heeded_up_to, heeded_up_to + 10);
    assert_eq!(sender.congestion.window(), after, "of the same round trip");
    sender.congestion.on_marks(heeded_up_to + 1, heeded_up_to + 10);
    assert!(sender.congestion.window() < after);
}

#[test]
fn a_window_that_was_shrunk_for_marks_finds_back_when_there_are_no_more() {
    let path = Path { holds: 100, queue: 100, ..Path::WIDE };
    let mut sender = Sender::new();
    sender.rounds(30, path);
    for _ in 0..30 {
        let acked = sender.sent;
        sender.congestion.on_marks(acked, acked);
        sender.sent += 1;
    }
    assert_eq!(sender.congestion.window(), WINDOW_FLOOR_PACKETS * PACKET);
    let windows = sender.rounds(240, path);
    assert!((95..=130).contains(&mean(&windows[160..])), "{windows:?}");
}
