//! What a session has learned of its path, as a start for the next one on the same path.
//!
//! A new session knows nothing: it begins with ten packets, and takes the path for one that may lose some. After a
//! reconnect that is forgetting what was true a moment ago. RFC 9040 and RFC 9000 §8.1 allow to
//! remember, with caution: what is remembered ages, is bounded, and is used as a window only where the handshake
//! has just measured a round trip like the one remembered; then it is paced, and given up at the first sign that the path
//! carries less.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::loss_share::LossShare;

/// What is remembered of a path is believed for so long.
pub const KNOWN_PATH_LIFE: Duration = Duration::from_secs(600);

/// After so long half of the window counts, after twice that a quarter.
const WINDOW_HALF_LIFE: Duration = Duration::from_secs(120);

/// No more of a path's loss is remembered than so many packets tell, so that new ones soon count for more.
const PACKETS_REMEMBERED_MAX: f32 = 64.0;

/// What was learned of a path; see the module's text.
#[derive(Debug, Clone, Copy)]
pub struct KnownPath {
    pub(crate) learned_at: Instant,
    pub(crate) round_trip: Duration,
    /// Bytes that may be in flight.
    pub(crate) window: usize,
    pub(crate) own_loss: LossShare,
    pub(crate) recent_loss: LossShare,
}

/// What a new session begins with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start {
    pub(crate) round_trip: Duration,
    /// Bytes that may be in flight, if that can be trusted.
    pub(crate) window: Option<usize>,
    pub(crate) own_loss: LossShare,
    pub(crate) recent_loss: LossShare,
}

impl KnownPath {
    /// Smoothed round-trip time.
    pub fn round_trip(&self) -> Duration {
        self.round_trip
    }

    /// What is left of it by now. `measured`: the round-trip time of the handshake. One that is far from what is
    /// remembered belongs to another path.
    pub(crate) fn start(&self, now: Instant, measured: Option<Duration>) -> Option<Start> {
        let age = now.saturating_duration_since(self.learned_at);
        if age >= KNOWN_PATH_LIFE {
            return None;
        }
        let like =
            |measured: Duration| measured <= self.round_trip * 2 && self.round_trip <= measured * 2;
        if measured.is_some_and(|measured| !like(measured)) {
            return None;
        }
        let halves = age.as_secs_f64() / WINDOW_HALF_LIFE.as_secs_f64();
        let window = (self.window as f64 * 0.5_f64.powf(halves)) as usize;
        Some(Start {
            round_trip: measured.unwrap_or(self.round_trip),
            window: measured.map(|_| window),
            own_loss: self.own_loss.at_most(PACKETS_REMEMBERED_MAX),
            recent_loss: self.recent_loss.at_most(PACKETS_REMEMBERED_MAX),
        })
    }
}

/// Paths by whom they lead to. Bounded: past its size, what was learned longest ago is forgotten.
#[derive(Debug)]
pub struct KnownPaths<K> {
    max: usize,
    paths: BTreeMap<K, KnownPath>,
    /// In the order of learning.
    order: BTreeSet<(Instant, K)>,
}

impl<K: Ord + Copy> KnownPaths<K> {
    /// Remembers `max` paths at most.
    pub fn new(max: usize) -> Self {
        Self { max, paths: BTreeMap::new(), order: BTreeSet::new() }
    }

    /// Remembers a path, in place of what was known of it.
    pub fn learn(&mut self, key: K, path: KnownPath) {
        self.take(&key);
        self.order.insert((path.learned_at, key));
        self.paths.insert(key, path);
        while let Some(&(learned_at, oldest)) = self.order.first() {
            let expired = learned_at + KNOWN_PATH_LIFE <= path.learned_at;
            if !expired && self.paths.len() <= self.max {
                break;
            }
            self.take(&oldest);
        }
    }

    /// What is known of a path. It is used once: the session that takes it learns anew.
    pub fn take(&mut self, key: &K) -> Option<KnownPath> {
        let path = self.paths.remove(key)?;
        self.order.remove(&(path.learned_at, *key));
        Some(path)
    }

    /// Paths remembered.
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    const MS: Duration = Duration::from_millis(1);

    fn path(learned_at: Instant) -> KnownPath {
        KnownPath {
            learned_at,
            round_trip: 50 * MS,
            window: 80_000,
            own_loss: LossShare::default(),
            recent_loss: LossShare::default(),
        }
    }

    #[test]
    fn a_window_ages_and_ends() {
        let path = path(start());
        let window = |age| path.start(start() + age, Some(50 * MS)).map(|s| s.window.unwrap());
        assert_eq!(window(Duration::ZERO), Some(80_000));
        assert_eq!(window(WINDOW_HALF_LIFE), Some(40_000));
        assert_eq!(window(WINDOW_HALF_LIFE * 2), Some(20_000));
        assert_eq!(window(KNOWN_PATH_LIFE - MS).map(|w| w < 3_000), Some(true));
        assert_eq!(window(KNOWN_PATH_LIFE), None);
    }

    #[test]
    fn another_round_trip_is_another_path_and_without_one_no_window_counts() {
        let path = path(start());
        for (measured, usable) in [(24, false), (25, true), (100, true), (101, false)] {
            assert_eq!(path.start(start(), Some(measured * MS)).is_some(), usable, "{measured}");
        }
        let start = path.start(start(), None).unwrap();
        assert_eq!((start.window, start.round_trip), (None, 50 * MS));
    }

    #[test]
    fn no_more_paths_are_remembered_than_allowed_nor_for_longer() {
        let mut paths = KnownPaths::new(100);
        for n in 0..1_000_u64 {
            paths.learn(n, path(start() + MS * n as u32));
            // One of them again and again.
            paths.learn(5_000, path(start() + MS * n as u32));
            assert!(paths.len() <= 100 && paths.order.len() == paths.len());
        }
        assert!(paths.take(&999).is_some() && paths.take(&999).is_none());
        assert!(paths.take(&5_000).is_some() && paths.take(&10).is_none());
        paths.learn(1, path(start() + KNOWN_PATH_LIFE * 2));
        assert_eq!(paths.len(), 1);
    }
}
