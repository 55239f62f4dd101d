//! When the hub rests for a moment, so that what comes thick and fast is taken many at a time.
//!
//! A thread that is woken for each datagram pays more for waking up, for asking the kernel and for a turn of its own than
//! for the datagram. So network cards gather before they interrupt, and so does the hub: while datagrams come
//! faster than [`DENSE_MIN`] in [`WINDOW`], turns are some milliseconds apart. A server with little to do rests never.

use std::time::{Duration, Instant};

/// Time over which datagrams are counted.
const WINDOW: Duration = Duration::from_millis(20);
/// So many in it are many.
const DENSE_MIN: u64 = 20;

/// So many are expected at most until the next turn: they are to fit the socket's buffer. As far as Linux lets one grow
/// by default it has room for 184 datagrams of 1,200 bytes, or 512 of 150.
const GATHERED_MAX: u32 = 128;

/// The longest time from one turn to the next that is meant.
pub(super) const REST_MAX: Duration = Rush::SignsOfLife.turn_time_min();

/// What the datagrams that come are for, at their most urgent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rush {
    /// Documents go out as fast as they are answered.
    Documents,
    /// Agents connect, in two round trips and a look into the store.
    Arrivals,
    /// Little waits for them: the next sign of life is a keep-alive interval away. A result may be among them.
    SignsOfLife,
}

impl Rush {
    /// From one turn to the next while there are many, and so much it adds to a round trip. An agent that connects takes it
    /// for a long one from 10 ms on, and so long waits the acknowledgement of its hello for the welcome.
    const fn turn_time_min(self) -> Duration {
        Duration::from_millis(match self {
            Self::Documents => 2,
            Self::Arrivals => 6,
            Self::SignsOfLife => 15,
        })
    }
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Gathering {
    /// When the present window began, and how many had come until then.
    window: (Instant, u64),
    /// The mean time from one datagram to the next in the last window, if there were many.
    spacing: Option<Duration>,
    turn_at: Instant,
    lag: Duration,
}

impl Gathering {
    pub(super) fn new(now: Instant) -> Self {
        Self { window: (now, 0), spacing: None, turn_at: now, lag: Duration::ZERO }
    }

    /// How long to rest before the next turn, after one that ends now. `came`: datagrams since the start.
    pub(super) fn rest(&mut self, now: Instant, came: u64, rush: Rush) -> Option<Duration> {
        let (began, before) = self.window;
        let passed = now.saturating_duration_since(began);
        if passed >= WINDOW {
            let count = (came - before) as f64;
            let is_dense = count >= DENSE_MIN as f64 * passed.as_secs_f64() / WINDOW.as_secs_f64();
            self.spacing = is_dense.then(|| passed.div_f64(count));
            self.window = (now, came);
        }
        let turn_time = rush.turn_time_min().min(self.spacing? * GATHERED_MAX);
        let rest = (self.turn_at + turn_time).saturating_duration_since(now);
        (!rest.is_zero()).then_some(rest)
    }

    /// A turn begins. `heard_until`: what had come by then was handled.
    pub(super) fn begin(&mut self, now: Instant, heard_until: Instant) {
        self.turn_at = now;
        let unheard = now.saturating_duration_since(heard_until).min(REST_MAX);
        self.lag = self.spacing.map_or(Duration::ZERO, |_| unheard);
    }

    /// What is handled in this turn may have come so long before, as it was nobody's turn. Who does not rest hears what
    /// comes when it comes.
    pub(super) fn lag(&self) -> Duration {
        self.lag
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs turns for a second, and again when what comes is known to be dense, each of which hears what has come at so
    /// many a second; says how many there were in the second second, and how long ago at most what was heard had come.
    fn turns(per_s: u32, rush: Rush) -> (u32, Duration) {
        let start = crate::clock::now();
        let mut gathering = Gathering::new(start);
        let (mut now, mut turns, mut lag) = (start, 0, Duration::ZERO);
        let spacing = Duration::from_secs(1) / per_s;
        while now < start + 2 * Duration::from_secs(1) {
            let came = now.saturating_duration_since(start).as_nanos() / spacing.as_nanos();
            let heard_until = now;
            match gathering.rest(now, came as u64, rush) {
                Some(rest) => now += rest.max(spacing),
                None => now += spacing,
            }
            gathering.begin(now, heard_until);
            if now > start + Duration::from_secs(1) {
                (turns, lag) = (turns + 1, lag.max(gathering.lag()));
            }
        }
        (turns, lag)
    }

    #[test]
    fn what_comes_thick_and_fast_is_taken_many_at_a_time() {
        let ms = Duration::from_millis;
        for (rush, expected, lag) in [
            (Rush::Documents, 495..=505, ms(2)),
            (Rush::Arrivals, 165..=168, ms(6)),
            (Rush::SignsOfLife, 66..=68, ms(15)),
        ] {
            let (turns, lag_max) = turns(5_000, rush);
            assert!(expected.contains(&turns), "{rush:?}: {turns}");
            assert_eq!(lag_max, lag, "{rush:?}");
        }
    }

    #[test]
    fn not_more_is_waited_for_than_the_socket_holds() {
        for rush in [Rush::Documents, Rush::Arrivals, Rush::SignsOfLife] {
            let (turns, _) = turns(100_000, rush);
            assert!(turns >= 100_000 / GATHERED_MAX, "{rush:?}: {turns}");
        }
    }

    #[test]
    fn few_datagrams_are_never_waited_for() {
        for rush in [Rush::Documents, Rush::Arrivals, Rush::SignsOfLife] {
            assert_eq!(turns(500, rush), (500, Duration::ZERO));
        }
    }

    #[test]
    fn a_turn_that_took_long_is_followed_by_the_next_at_once() {
        let start = crate::clock::now();
        let mut gathering = Gathering::new(start);
        let later = start + WINDOW;
        let turn_time = Rush::Documents.turn_time_min();
        gathering.begin(later, later);
        assert!(gathering.rest(later, 1_000, Rush::Documents).is_some());
        gathering.begin(later, later);
        assert_eq!(gathering.rest(later + turn_time, 1_000, Rush::Documents), None);
    }

    #[test]
    fn after_a_silence_nothing_is_waited_for() {
        let start = crate::clock::now();
        let mut gathering = Gathering::new(start);
        let at = |ms| start + Duration::from_millis(ms);
        gathering.begin(at(20), at(20));
        assert!(gathering.rest(at(20), 1_000, Rush::SignsOfLife).is_some());
        gathering.begin(at(1_000), at(20));
        assert_eq!(gathering.rest(at(1_000), 1_001, Rush::SignsOfLife), None);
    }
}
