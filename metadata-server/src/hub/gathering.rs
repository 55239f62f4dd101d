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

/// The longest time from one turn to the next that is meant.
pub(super) const REST_MAX: Duration = Rush::SignsOfLife.turn_time_min();

/// What the datagrams that come are for, at their most urgent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rush {
    /// Documents go out as fast as they are answered.
    Documents,
    /// Agents connect, in two round trips and a look into the store.
    Arrivals,
    /// Nothing waits for them: the next is a keep-alive interval away.
    SignsOfLife,
}

impl Rush {
    /// From one turn to the next while there are many, and so much it adds to a round trip. An agent that connects takes it
    /// for a long one from 10 ms on, and so long waits the acknowledgement of its hello for the welcome.
    const fn turn_time_min(self) -> Duration {
        Duration::from_millis(match self {
            Self::Documents => 2,
            Self::Arrivals => 6,
            Self::SignsOfLife => 20,
        })
    }
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Gathering {
    /// When the present window began, and how many had come until then.
    window: (Instant, u64),
    is_dense: bool,
    turn_at: Instant,
}

impl Gathering {
    pub(super) fn new(now: Instant) -> Self {
        Self { window: (now, 0), is_dense: false, turn_at: now }
    }

    /// How long to rest before the next turn, after one that ends now. `came`: datagrams since the start.
    pub(super) fn rest(&mut self, now: Instant, came: u64, rush: Rush) -> Option<Duration> {
        let (began, before) = self.window;
        let passed = now.saturating_duration_since(began);
        if passed >= WINDOW {
            let expected = DENSE_MIN as f64 * passed.as_secs_f64() / WINDOW.as_secs_f64();
            self.is_dense = (came - before) as f64 >= expected;
            self.window = (now, came);
        }
        let next_at = self.turn_at + rush.turn_time_min();
        self.is_dense.then(|| next_at.saturating_duration_since(now)).filter(|rest| !rest.is_zero())
    }

    /// A turn begins.
    pub(super) fn begin(&mut self, now: Instant) {
        self.turn_at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs turns for a second, each of which hears what has come at so many a second; says how many there were.
    fn turns(per_s: u32, rush: Rush) -> u32 {
        let start = crate::clock::now();
        let mut gathering = Gathering::new(start);
        let (mut now, mut turns) = (start, 0);
        let spacing = Duration::from_secs(1) / per_s;
        while now < start + Duration::from_secs(1) {
            turns += 1;
            gathering.begin(now);
            let came = now.saturating_duration_since(start).as_nanos() / spacing.as_nanos();
            match gathering.rest(now, came as u64, rush) {
                Some(rest) => now += rest.max(spacing),
                None => now += spacing,
            }
        }
        turns
    }

    #[test]
    fn what_comes_thick_and_fast_is_taken_many_at_a_time() {
        let turns_for = |rush| turns(20_000, rush);
        let documents = turns_for(Rush::Documents);
        assert!((500..1_000).contains(&documents), "{documents}");
        let arrivals = turns_for(Rush::Arrivals);
        assert!((167..documents).contains(&arrivals), "{arrivals}");
        let signs_of_life = turns_for(Rush::SignsOfLife);
        assert!((50..arrivals).contains(&signs_of_life), "{signs_of_life}");
    }

    #[test]
    fn few_datagrams_are_never_waited_for() {
        for rush in [Rush::Documents, Rush::Arrivals, Rush::SignsOfLife] {
            assert_eq!(turns(500, rush), 500);
        }
    }

    #[test]
    fn a_turn_that_took_long_is_followed_by_the_next_at_once() {
        let start = crate::clock::now();
        let mut gathering = Gathering::new(start);
        let later = start + WINDOW;
        let turn_time = Rush::Documents.turn_time_min();
        gathering.begin(later);
        assert!(gathering.rest(later, 1_000, Rush::Documents).is_some());
        gathering.begin(later);
        assert_eq!(gathering.rest(later + turn_time, 1_000, Rush::Documents), None);
    }

    #[test]
    fn after_a_silence_nothing_is_waited_for() {
        let start = crate::clock::now();
        let mut gathering = Gathering::new(start);
        let at = |ms| start + Duration::from_millis(ms);
        gathering.begin(at(20));
        assert!(gathering.rest(at(20), 1_000, Rush::SignsOfLife).is_some());
        gathering.begin(at(1_000));
        assert_eq!(gathering.rest(at(1_000), 1_001, Rush::SignsOfLife), None);
    }
}
