//! Until when everything was heard that came: timers run off up to there, not up to now.
//!
//! A swarm that cannot keep up has answers waiting in the kernel. What it asks for again meanwhile makes more work for
//! itself and for the server, which then answer later still.

use std::time::{Duration, Instant};

/// However much comes in, timers are this much behind at most.
const LAG_MAX: Duration = Duration::from_secs(1);

/// See the module's text.
#[derive(Debug)]
pub(super) struct Heard {
    until: Instant,
}

impl Heard {
    pub(super) fn new(now: Instant) -> Self {
        Self { until: now }
    }

    /// The kernel was asked at this moment, and what it told of was heard. `all`: that it had no more.
    pub(super) fn asked(&mut self, at: Instant, all: bool) -> Instant {
        let least = if all { Some(at) } else { at.checked_sub(LAG_MAX) };
        self.until = least.map_or(self.until, |least| least.max(self.until));
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_stands_still_while_there_is_more_to_hear_but_not_for_long() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut heard = Heard::new(start);
        assert_eq!(heard.asked(at(10), true), at(10));
        assert_eq!(heard.asked(at(20), false), at(10));
        assert_eq!(heard.asked(at(900), false), at(10));
        assert_eq!(heard.asked(at(1_500), false), at(500));
        assert_eq!(heard.asked(at(1_510), true), at(1_510));
        assert_eq!(heard.asked(at(1_520), false), at(1_510), "it never goes back");
    }
}
