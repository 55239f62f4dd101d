//! How long to sleep, and how to speak of failures that repeat.

use std::time::{Duration, Instant};

/// Pauses that double up to a longest one. What is collected does not change them.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    next: Duration,
    max: Duration,
}

impl Pace {
    /// The first pause is `min`, even if that is longer than `max`.
    pub(crate) fn new(min: Duration, max: Duration) -> Self {
        Self { next: min, max }
    }

    /// The next pause.
    pub(crate) fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = pause.saturating_mul(2).min(self.max);
        pause
    }
}

/// Failures of the command, one after the other.
#[derive(Debug, Default)]
pub(super) struct Failures {
    since: Option<Instant>,
    count: u64,
}

impl Failures {
    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// What to add to the report of a failure: nothing for the first.
    pub(super) fn failed(&mut self, now: Instant) -> String {
        self.count += 1;
        let since = *self.since.get_or_insert(now);
        if self.count == 1 {
            return String::new();
        }
        let seconds = now.saturating_duration_since(since).as_secs();
        format!(
            " It has failed {} times in a row within {seconds} seconds, and is tried again.",
            self.count
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pauses(min: u64, max: u64) -> Vec<u64> {
        let mut pace = Pace::new(Duration::from_secs(min), Duration::from_secs(max));
        (0..7).map(|_| pace.next().as_secs()).collect()
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        assert_eq!(pauses(1, 30), [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(pauses(20, 10), [20, 10, 10, 10, 10, 10, 10]);
        assert_eq!(pauses(0, 10), [0; 7]);
    }

    #[test]
    fn repeated_failures_are_counted_until_a_success() {
        let start = Instant::now();
        let mut failures = Failures::default();
        assert_eq!(failures.failed(start), "");
        let text = failures.failed(start + Duration::from_secs(90));
        assert!(text.contains("2 times in a row within 90 seconds"), "{text}");
        failures.succeeded();
        assert_eq!(failures.failed(start), "");
    }
}
