//! When the collectors of `collect_config` are asked: from the start where there is no server to wait for,
//! else once none has been reached for `poll_after`; until one is reached.

use std::time::{Duration, Instant};

use crate::collect::Poll;

/// How it stands with the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// There is none: never enrolled.
    None,
    /// It refuses the token, so it never sends anything.
    Refused,
    /// It is not reached.
    Away,
    /// It is.
    Connected,
}

/// Decides, on the caller's clock.
#[derive(Debug)]
pub(super) struct Reach {
    /// None: nothing is ever polled.
    after: Option<Duration>,
    unreached_since: Option<Instant>,
    poll: Poll,
}

impl Reach {
    pub(super) fn new(after: Option<Duration>) -> Self {
        Self { after, unreached_since: None, poll: Poll::Off }
    }

    /// What to do from now on, if that is something else than before.
    pub(super) fn look(&mut self, now: Instant, way: Way) -> Option<Poll> {
        let after = self.after?;
        let poll = match way {
            Way::Connected => {
                self.unreached_since = None;
                Poll::Off
            }
            Way::None => Poll::Alone,
            Way::Refused => Poll::Meanwhile,
            Way::Away => {
                let since = *self.unreached_since.get_or_insert(now);
                let is_due = self.poll != Poll::Off || since + after <= now;
                if is_due { Poll::Meanwhile } else { Poll::Off }
            }
        };
        let is_news = poll != self.poll;
        self.poll = poll;
        is_news.then_some(poll)
    }

    /// When polling begins if no server is reached until then.
    pub(super) fn polls_at(&self) -> Option<Instant> {
        let since = self.unreached_since.filter(|_| self.poll == Poll::Off)?;
        Some(since + self.after?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_secs(600);

    #[test]
    fn a_server_that_is_away_is_waited_for_and_polling_ends_when_one_is_reached() {
        let start = Instant::now();
        let mut reach = Reach::new(Some(AFTER));
        assert_eq!(reach.look(start, Way::Away), None);
        assert_eq!(reach.polls_at(), Some(start + AFTER));
        assert_eq!(reach.look(start + AFTER, Way::Away), Some(Poll::Meanwhile));
        assert_eq!((reach.look(start + AFTER, Way::Away), reach.polls_at()), (None, None));
        assert_eq!(reach.look(start + AFTER, Way::Connected), Some(Poll::Off));
        assert_eq!(reach.look(start + AFTER, Way::Connected), None);
        let later = start + 10 * AFTER;
        assert_eq!(reach.look(later, Way::Away), None, "the time counts anew");
        assert_eq!(reach.polls_at(), Some(later + AFTER));
    }

    #[test]
    fn without_a_server_nothing_is_waited_for_and_a_token_that_comes_changes_that_once_it_is_good()
    {
        let now = Instant::now();
        let mut reach = Reach::new(Some(AFTER));
        assert_eq!(reach.look(now, Way::None), Some(Poll::Alone));
        assert_eq!(reach.look(now, Way::None), None);
        assert_eq!(reach.look(now, Way::Away), Some(Poll::Meanwhile), "there is one to be reached");
        assert_eq!(reach.look(now, Way::Refused), None);
        assert_eq!(reach.look(now, Way::Connected), Some(Poll::Off));
    }

    #[test]
    fn a_refused_token_is_not_waited_for_either() {
        let now = Instant::now();
        let mut reach = Reach::new(Some(AFTER));
        assert_eq!(reach.look(now, Way::Away), None);
        assert_eq!(reach.look(now, Way::Refused), Some(Poll::Meanwhile));
        assert_eq!(reach.look(now, Way::Away), None, "the next attempt changes nothing");
    }

    #[test]
    fn never_is_never() {
        let now = Instant::now();
        let mut reach = Reach::new(None);
        for way in [Way::None, Way::Refused, Way::Away, Way::Connected] {
            assert_eq!((reach.look(now, way), reach.polls_at()), (None, None), "{way:?}");
        }
    }
}
