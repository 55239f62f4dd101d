//! When sessions are to be looked at: many timers, most of which are put off or not needed any more when they run off.
//!
//! Setting one is pushing a name to a list, as those of one tick share it; taking one back is forgetting it, so
//! whoever is named is asked whether it still means that time. What is far away may wait somewhat longer and
//! so shares its wake-up with many others.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::core::PeerId;

/// What runs off at the same time, in milliseconds.
const TICK_MS: u64 = 1;
/// What is so far away …
const FAR: Duration = Duration::from_secs(1);
/// … runs off together with all others of this time, in milliseconds.
const FAR_TICK_MS: u64 = 64;
/// Whoever wants to be looked at later than this is looked at then.
const LATEST: Duration = Duration::from_secs(24 * 3600);

/// See the module's text.
#[derive(Debug)]
pub(super) struct Timers {
    began: Instant,
    /// By milliseconds since the beginning.
    ticks: BTreeMap<u64, Vec<PeerId>>,
}

impl Timers {
    pub(super) fn new(now: Instant) -> Self {
        Self { began: now, ticks: BTreeMap::new() }
    }

    /// Has a peer named when `at` has passed, or soon after, unless that is going to be done by `armed`. Says when it is.
    pub(super) fn arm(
        &mut self,
        now: Instant,
        at: Instant,
        armed: Option<Instant>,
        peer: PeerId,
    ) -> Instant {
        let left = at.saturating_duration_since(now).min(LATEST);
        let tick_ms = if left < FAR { TICK_MS } else { FAR_TICK_MS };
        let after = (now + left).saturating_duration_since(self.began);
        let whole = after.as_nanos().div_ceil(u128::from(tick_ms) * 1_000_000);
        let tick = u64::try_from(whole).unwrap_or(u64::MAX / FAR_TICK_MS) * tick_ms;
        let rounded = self.time_of(tick);
        match armed {
            Some(armed) if armed <= rounded => armed,
            _ => {
                self.ticks.entry(tick).or_default().push(peer);
                rounded
            }
        }
    }

    /// When somebody is named next.
    pub(super) fn next(&self) -> Option<Instant> {
        self.ticks.first_key_value().map(|(tick, _)| self.time_of(*tick))
    }

    /// The next that were to be named at one time which has passed by `now`, and that time.
    pub(super) fn take(&mut self, now: Instant) -> Option<(Instant, Vec<PeerId>)> {
        let at = self.next().filter(|at| *at <= now)?;
        self.ticks.pop_first().map(|(_, peers)| (at, peers))
    }

    fn time_of(&self, tick: u64) -> Instant {
        self.began.checked_add(Duration::from_millis(tick)).unwrap_or(self.began)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Arms one timer; says when somebody is named after that.
    fn named_after(left: Duration) -> Duration {
        let now = crate::clock::now();
        let mut timers = Timers::new(now);
        let at = timers.arm(now, now + left, None, PeerId(7));
        assert_eq!(timers.next(), Some(at));
        assert_eq!(timers.take(at - Duration::from_nanos(1)), None);
        assert_eq!(timers.take(at), Some((at, vec![PeerId(7)])));
        assert_eq!(timers.next(), None);
        at - now
    }

    #[test]
    fn nobody_is_named_early_and_late_only_by_a_tick() {
        assert_eq!(named_after(ms(0)), ms(0));
        assert_eq!(named_after(Duration::from_nanos(1)), ms(1));
        assert_eq!(named_after(ms(999)), ms(999));
        assert_eq!(named_after(ms(1_000)), ms(1_024), "what is far away may wait longer");
        assert_eq!(named_after(ms(64_000)), ms(64_000));
        let days = Duration::from_secs(365 * 24 * 3600);
        assert!(named_after(days) >= LATEST && named_after(days) < LATEST + ms(FAR_TICK_MS));
    }

    #[test]
    fn what_is_far_away_shares_its_wake_up() {
        let now = crate::clock::now();
        let mut timers = Timers::new(now);
        for n in 0..10_000 {
            timers.arm(now, now + ms(60_000 + n / 100), None, PeerId(n));
        }
        let mut wakes = 0;
        while timers.take(now + ms(70_000)).is_some() {
            wakes += 1;
        }
        assert!(wakes <= 3, "{wakes}");
    }

    #[test]
    fn what_is_put_off_is_not_armed_again_and_what_is_brought_forward_is() {
        let now = crate::clock::now();
        let mut timers = Timers::new(now);
        let first = timers.arm(now, now + ms(50), None, PeerId(1));
        assert_eq!(timers.arm(now, now + ms(90), Some(first), PeerId(1)), first);
        assert_eq!(timers.arm(now, now + ms(50), Some(first), PeerId(1)), first);
        let sooner = timers.arm(now, now + ms(20), Some(first), PeerId(1));
        assert_eq!(sooner, now + ms(20));
        assert_eq!(timers.take(now + ms(90)), Some((sooner, vec![PeerId(1)])));
        assert_eq!(timers.take(now + ms(90)), Some((first, vec![PeerId(1)])), "who is asked");
    }
}
