//! How many documents are begun at a time, so that a push to a fleet goes as fast as the fleet answers.
//!
//! Ten thousand documents that leave at once are answered at once: by agents that share hypervisors, over links and
//! into a socket buffer that they share. Answers are late then, and what is late is asked for again. So a document
//! is begun when one before it was answered; one that is not answered soon holds nobody up.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::by_peer::PeerSet;
use super::core::PeerId;

/// Documents begun and not answered.
const OPENINGS_MAX: usize = 1000;
/// A document is waited for so long: with the other, ten thousand documents a second are begun however far away
/// the agents are.
const OPENING_TIME_MAX: Duration = Duration::from_millis(100);

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Openings {
    /// In the order of their beginning; also those that were answered since.
    begun: VecDeque<(Instant, PeerId)>,
    /// Those that were not.
    unanswered: PeerSet,
}

impl Openings {
    /// Whether another document may be begun.
    pub(super) fn has_room(&mut self, now: Instant) -> bool {
        while let Some((at, peer)) = self.begun.front().copied() {
            let is_answered = !self.unanswered.contains(&peer);
            if !is_answered && now < at + OPENING_TIME_MAX {
                break;
            }
            self.unanswered.remove(&peer);
            self.begun.pop_front();
        }
        self.unanswered.len() < OPENINGS_MAX
    }

    /// A document was begun.
    pub(super) fn begin(&mut self, now: Instant, peer: PeerId) {
        if self.unanswered.insert(peer) {
            self.begun.push_back((now, peer));
        }
    }

    /// Its agent has answered, or is gone.
    pub(super) fn end(&mut self, peer: PeerId) {
        self.unanswered.remove(&peer);
    }

    /// When there is room although nobody answers, if there is none.
    pub(super) fn room_at(&self) -> Option<Instant> {
        let is_full = self.unanswered.len() >= OPENINGS_MAX;
        self.begun.front().filter(|_| is_full).map(|(at, _)| *at + OPENING_TIME_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_begun_for_each_that_was_answered_and_silence_holds_nobody_up_for_long() {
        let start = Instant::now();
        let mut openings = Openings::default();
        let fill = |openings: &mut Openings, now, from: u64| {
            let mut begun = 0;
            while openings.has_room(now) {
                openings.begin(now, PeerId(from + begun));
                begun += 1;
            }
            begun
        };
        assert_eq!(openings.room_at(), None);
        assert_eq!(fill(&mut openings, start, 0), OPENINGS_MAX as u64);
        assert_eq!(openings.room_at(), Some(start + OPENING_TIME_MAX));
        // Answers come in any order.
        for peer in [999, 3, 3, 500] {
            openings.end(PeerId(peer));
        }
        assert_eq!(openings.room_at(), None);
        let soon = start + OPENING_TIME_MAX / 2;
        assert_eq!(fill(&mut openings, soon, 1000), 3);
        // Nobody else answers: those begun at the start are given up for the others.
        let late = start + OPENING_TIME_MAX;
        assert_eq!(fill(&mut openings, late, 2000), OPENINGS_MAX as u64 - 3);
        assert_eq!(openings.room_at(), Some(soon + OPENING_TIME_MAX));
        assert!(openings.begun.len() <= OPENINGS_MAX);
    }

    #[test]
    fn a_second_document_to_one_agent_takes_no_second_place() {
        let now = Instant::now();
        let mut openings = Openings::default();
        (0..3 * OPENINGS_MAX).for_each(|_| openings.begin(now, PeerId(1)));
        assert!(openings.has_room(now));
        assert_eq!(openings.begun.len(), 1);
        openings.end(PeerId(1));
        assert!(openings.has_room(now) && openings.begun.is_empty());
    }
}
