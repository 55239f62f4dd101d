//! Questions to Heat: the most overdue first, so many at a time, none about the same twice at a time.
//!
//! Who asks polls the ends of questions in the loop that begins them: nothing waits for a loop that waits for
//! it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use tokio::task::{JoinError, JoinSet};

/// When what is due.
#[derive(Debug)]
pub(crate) struct Timetable<K> {
    at: BTreeMap<K, Instant>,
    /// Those of `at` that are not taken.
    order: BTreeSet<(Instant, K)>,
    taken: BTreeSet<K>,
}

impl<K> Default for Timetable<K> {
    fn default() -> Self {
        Self { at: BTreeMap::new(), order: BTreeSet::new(), taken: BTreeSet::new() }
    }
}

impl<K: Ord + Clone> Timetable<K> {
    /// From here on `key` is due at this time; if it is taken, not before it has ended.
    pub(crate) fn set(&mut self, key: K, at: Instant) {
        self.remove(&key);
        self.at.insert(key.clone(), at);
        if !self.taken.contains(&key) {
            self.order.insert((at, key));
        }
    }

    /// From here on it is not due.
    pub(crate) fn remove(&mut self, key: &K) {
        if let Some(at) = self.at.remove(key) {
            self.order.remove(&(at, key.clone()));
        }
    }

    /// Whether it is to be due some time.
    pub(crate) fn has(&self, key: &K) -> bool {
        self.at.contains_key(key)
    }

    /// When [`Self::take`] has something.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    /// What has been due for the longest time; it is not due again before it is set, and has ended.
    pub(crate) fn take(&mut self, now: Instant) -> Option<K> {
        self.next().filter(|at| *at <= now)?;
        let (_, key) = self.order.pop_first()?;
        self.at.remove(&key);
        self.taken.insert(key.clone());
        Some(key)
    }

    /// What was taken has ended.
    pub(crate) fn ended(&mut self, key: &K) {
        self.taken.remove(key);
        if let Some(at) = self.at.get(key) {
            self.order.insert((*at, key.clone()));
        }
    }
}

/// Questions under way.
pub(crate) struct Questions<T> {
    under_way: JoinSet<T>,
    at_once_max: usize,
}

impl<T: Send + 'static> Questions<T> {
    /// So many at a time.
    pub(crate) fn new(at_once_max: usize) -> Self {
        Self { under_way: JoinSet::new(), at_once_max }
    }

    /// Whether another one may begin.
    pub(crate) fn has_room(&self) -> bool {
        self.under_way.len() < self.at_once_max
    }

    /// Begins one; its end comes from [`Self::ended`].
    pub(crate) fn begin(&mut self, question: impl Future<Output = T> + Send + 'static) {
        self.under_way.spawn(question);
    }

    /// The next one that ends. Never, while there is none.
    ///
    /// # Errors
    /// It panicked.
    pub(crate) async fn ended(&mut self) -> Result<T, JoinError> {
        match self.under_way.join_next().await {
            Some(ended) => ended,
            None => std::future::pending().await,
        }
    }
}

/// Returns at this time, or never.
pub(crate) async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// From 0 to 1.
pub(crate) fn jitter() -> f64 {
    let mut byte = [0];
    // Without randomness all ask at once, which is bad luck and no fault.
    let filled = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut byte);
    if filled.is_ok() { f64::from(byte[0]) / 255.0 } else { 0.5 }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_most_overdue_comes_first_and_nothing_twice_before_it_has_ended() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut table = Timetable::default();
        for (key, s) in [("a", 3), ("b", 1), ("c", 2), ("d", 9)] {
            table.set(key, at(s));
        }
        table.set("b", at(4));
        table.remove(&"d");
        assert_eq!(table.take(at(1)), None);
        assert_eq!(table.next(), Some(at(2)));
        assert_eq!(
            [table.take(at(5)), table.take(at(5)), table.take(at(5))],
            [Some("c"), Some("a"), Some("b")]
        );
        assert_eq!((table.take(at(5)), table.next()), (None, None));
        // Set while it is taken: due once it has ended.
        table.set("a", at(1));
        assert_eq!((table.take(at(5)), table.has(&"a")), (None, true));
        table.ended(&"a");
        assert_eq!(table.take(at(5)), Some("a"));
        table.ended(&"a");
        assert_eq!((table.take(at(5)), table.has(&"a")), (None, false));
    }

    #[tokio::test]
    async fn only_so_many_questions_are_under_way_and_a_panic_of_one_is_seen() {
        let mut questions = Questions::new(2);
        questions.begin(async { 1 });
        assert!(questions.has_room());
        questions.begin(async { panic!("on purpose") });
        assert!(!questions.has_room());
        let mut ended = [questions.ended().await.ok(), questions.ended().await.ok()];
        ended.sort();
        assert_eq!(ended, [None, Some(1)]);
        assert!(questions.has_room());
    }
}
