//! Which packets came in, and when to say so (RFC 9000 §13.2).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::ecn::{Ecn, EcnCounts};
use crate::limits::ACK_RANGES_MAX;

/// Longest time an acknowledgement is held back in the hope of more packets.
pub(crate) const ACK_DELAY_MAX: Duration = Duration::from_millis(10);

/// Every this many ack-eliciting packets are acknowledged at once (RFC 9000 §13.2.2).
const ACK_EVERY: u32 = 2;

/// The first packets after a pause are acknowledged at once, each of them, while no report is known to have arrived: they
/// may be probes of a peer that has heard nothing.
const ACK_AT_ONCE: u8 = 2;
const PAUSE: Duration = Duration::from_millis(40);

/// After this many ack-eliciting packets that were only acknowledged, a PING goes with the ACK.
const ASK_EVERY: u16 = 32;

/// Ranges this far below what the peer knows we received are forgotten. Packets that late are
/// dropped; a record layer with a replay window of 64 drops them anyway.
const REORDER_PACKETS_MAX: u64 = 128;

/// Packet numbers received, newest range first, and the acknowledgement they are owed.
#[derive(Debug, Default)]
pub(crate) struct ReceivedPackets {
    /// (lowest, highest), descending, neither overlapping nor touching.
    ranges: VecDeque<(u64, u64)>,
    /// Packets below this are too old to be told from duplicates.
    floor: u64,
    /// When the packet with the largest number came.
    largest_at: Option<Instant>,
    /// Ack-eliciting packets not reported yet.
    unreported: u32,
    /// Largest number of an ack-eliciting packet, and the largest that the peer is known to have
    /// a report of.
    largest_eliciting: Option<u64>,
    largest_confirmed: Option<u64>,
    /// Ack-eliciting packets since the peer last had to acknowledge something.
    since_asked: u16,
    /// How many more of them are acknowledged at once.
    at_once: u8,
    /// Whether a report is due, and is even if an answer is about to be given.
    due: bool,
    pressing: bool,
    /// When the first of those came that were not reported yet.
    owed_since: Option<Instant>,
    /// A packet came that asks for no report, and whose sender would like to have one with whatever is sent next.
    untold: bool,
    /// Congestion marks of all packets received.
    ecn: EcnCounts,
}

impl ReceivedPackets {
    /// Whether a packet was received before, or is too old to tell.
    pub(crate) fn is_duplicate(&self, number: u64) -> bool {
        number < self.floor || self.ranges.iter().any(|&(low, high)| (low..=high).contains(&number))
    }

    /// Notes a packet that is no duplicate.
    pub(crate) fn record(&mut self, now: Instant, number: u64, ack_eliciting: bool) {
        let largest = self.ranges.front().map(|&(_, high)| high);
        let in_order = largest.is_none_or(|largest| number == largest + 1);
        if self.is_unconfirmed() && self.largest_at.is_some_and(|at| now > at + PAUSE) {
            self.at_once = ACK_AT_ONCE;
        }
        if largest.is_none_or(|largest| number > largest) {
            self.largest_at = Some(now);
        }
        self.insert(number);
        while self.ranges.len() > ACK_RANGES_MAX {
            self.drop_oldest();
        }
        if !ack_eliciting {
            return;
        }
        self.unreported += 1;
        self.since_asked = self.since_asked.saturating_add(1);
        self.largest_eliciting = self.largest_eliciting.max(Some(number));
        // A gap is news that the sender can act on: say so at once (RFC 9000 §13.2.1).
        let at_once = self.at_once > 0;
        self.at_once = self.at_once.saturating_sub(1);
        self.pressing |= !in_order || at_once;
        self.due |= self.pressing || self.unreported >= ACK_EVERY;
        self.owed_since.get_or_insert(now);
    }

    /// Notes how a packet that was recorded was marked. Congestion is told at once (RFC 9000 §13.2.1).
    pub(crate) fn count(&mut self, ecn: Ecn) {
        self.ecn.add(ecn);
        if ecn == Ecn::Ce {
            self.hurry();
        }
    }

    /// What is to be told of marks, if there were any.
    pub(crate) fn ecn(&self) -> Option<EcnCounts> {
        self.ecn.told()
    }

    fn insert(&mut self, number: u64) {
        let at = self.ranges.iter().position(|&(_, high)| high < number);
        let at = at.unwrap_or(self.ranges.len());
        let joins_above = at > 0 && self.ranges[at - 1].0 == number + 1;
        let joins_below = self.ranges.get(at).is_some_and(|&(_, high)| high + 1 == number);
        match (joins_above, joins_below) {
            (true, true) => {
                self.ranges[at - 1].0 = self.ranges[at].0;
                self.ranges.remove(at);
            }
            (true, false) => self.ranges[at - 1].0 = number,
            (false, true) => self.ranges[at].1 = number,
            (false, false) => self.ranges.insert(at, (number, number)),
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((_, high)) = self.ranges.pop_back() {
            self.floor = high + 1;
        }
    }

    /// Goes with whatever is sent next, as news of a packet that was recorded and asked for none.
    pub(crate) fn tell(&mut self) {
        self.untold = true;
    }

    /// Whether a report that is sent now is one the peer misses if it is lost: all packets came, in their order, and the
    /// last were not reported yet. So they are in flight to it, and it will ask.
    pub(crate) fn is_missed(&self) -> bool {
        self.owed_since.is_some() && !self.pressing && self.ranges.len() == 1
    }

    /// Does not hold back the acknowledgement that is owed.
    pub(crate) fn hurry(&mut self) {
        self.due = self.owed_since.is_some();
        self.pressing = self.due;
    }

    /// Holds back the acknowledgement that is owed, however many packets it is for, as the next packet that carries
    /// anything is close. Not where it has news of what did not arrive, or may have.
    pub(crate) fn wait_for_answer(&mut self) {
        self.due = self.pressing || self.ranges.len() > 1;
    }

    /// When the acknowledgement is due; may lie in the past.
    pub(crate) fn ack_at(&self) -> Option<Instant> {
        let delay = if self.due { Duration::ZERO } else { ACK_DELAY_MAX };
        Some(self.owed_since? + delay)
    }

    /// When the newest packet came.
    pub(crate) fn last_at(&self) -> Option<Instant> {
        self.largest_at
    }

    /// Whether there is something to report, due or not.
    pub(crate) fn has_news(&self) -> bool {
        self.unreported > 0 || self.untold
    }

    /// Whether a report may have been lost. It is repeated in packets that are sent anyway: the
    /// peer has nothing else to tell it that its packets arrived.
    pub(crate) fn is_unconfirmed(&self) -> bool {
        self.largest_eliciting > self.largest_confirmed
    }

    /// The ranges for an ACK, and how long the largest number has waited.
    pub(crate) fn report(
        &self,
        now: Instant,
    ) -> (Duration, impl Iterator<Item = (u64, u64)> + Clone + '_) {
        let waited = self.largest_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        (waited, self.ranges.iter().copied())
    }

    /// Notes that everything was reported.
    pub(crate) fn reported(&mut self) {
        self.unreported = 0;
        self.untold = false;
        (self.due, self.pressing) = (false, false);
        self.owed_since = None;
    }

    /// Whether we have long only acknowledged. Asking now and then for an acknowledgement keeps
    /// our round-trip time known and the ranges few (RFC 9000 §13.2.4). Two sides that both have
    /// nothing else to say never get here.
    pub(crate) fn should_ask(&self) -> bool {
        self.since_asked >= ASK_EVERY
    }

    /// Notes that a packet asks the peer for an acknowledgement.
    pub(crate) fn asked(&mut self) {
        self.since_asked = 0;
    }

    /// The peer has our report up to `largest`: what lies far below need not be repeated.
    pub(crate) fn report_arrived(&mut self, largest: u64) {
        self.largest_confirmed = self.largest_confirmed.max(Some(largest));
        let keep_from = largest.saturating_sub(REORDER_PACKETS_MAX);
        while self.ranges.len() > 1 && self.ranges.back().is_some_and(|&(_, high)| high < keep_from)
        {
            self.drop_oldest();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    fn numbers(received: &ReceivedPackets) -> Vec<(u64, u64)> {
        received.report(start()).1.collect()
    }

    #[test]
    fn the_second_packet_and_any_gap_are_acknowledged_at_once_others_after_the_delay() {
        let now = start();
        let mut received = ReceivedPackets::default();
        received.record(now, 5, true);
        assert_eq!(received.ack_at(), Some(now + ACK_DELAY_MAX));
        received.record(now, 6, true);
        assert_eq!(received.ack_at(), Some(now));
        received.reported();
        assert_eq!(received.ack_at(), None);
        received.record(now, 8, true);
        assert_eq!(received.ack_at(), Some(now), "7 is missing");
        received.reported();
        received.record(now, 7, true);
        assert_eq!(received.ack_at(), Some(now), "7 came late");
        assert_eq!(numbers(&received), [(5, 8)]);
    }

    #[test]
    fn what_an_answer_follows_is_acknowledged_with_it_unless_something_is_amiss() {
        let now = start();
        let of = |numbers: &[u64]| {
            let mut received = ReceivedPackets::default();
            numbers.iter().for_each(|number| received.record(now, *number, true));
            received
        };
        let mut received = of(&[1, 2, 3]);
        received.wait_for_answer();
        assert_eq!(received.ack_at(), Some(now + ACK_DELAY_MAX), "from the first of them on");
        received.record(now + Duration::from_millis(1), 4, true);
        assert_eq!(received.ack_at(), Some(now), "nobody said that one follows on this one");
        for numbers in [&[1, 3][..], &[2, 1], &[1, 3, 4]] {
            let mut received = of(numbers);
            received.wait_for_answer();
            assert_eq!(received.ack_at(), Some(now), "{numbers:?}");
        }
        let mut told = of(&[1, 3]);
        told.reported();
        told.record(now, 4, true);
        told.wait_for_answer();
        assert_eq!(told.ack_at(), Some(now), "the report may have been lost");
        let mut marked = of(&[1, 2]);
        marked.count(Ecn::Ce);
        marked.wait_for_answer();
        assert_eq!(marked.ack_at(), Some(now));
    }

    #[test]
    fn what_may_be_a_probe_is_acknowledged_at_once() {
        let mut received = ReceivedPackets::default();
        let at_once = |received: &mut ReceivedPackets, at_ms: u64, number| {
            let now = start() + Duration::from_millis(at_ms);
            received.record(now, number, true);
            let at_once = received.ack_at() == Some(now);
            received.reported();
            at_once
        };
        assert!(!at_once(&mut received, 0, 1), "nothing was reported yet");
        assert!(!at_once(&mut received, 40, 2), "no pause yet");
        assert_eq!([3, 4, 5].map(|n| at_once(&mut received, 81, n)), [true, true, false]);
        received.report_arrived(5);
        assert!(!at_once(&mut received, 200, 6), "the last report has arrived");
    }

    #[test]
    fn packets_that_ask_for_nothing_are_reported_only_with_others() {
        let now = start();
        let mut received = ReceivedPackets::default();
        received.record(now, 1, false);
        received.record(now, 3, false);
        assert!(!received.has_news());
        assert_eq!(received.ack_at(), None);
        received.record(now, 4, true);
        assert_eq!(numbers(&received), [(3, 4), (1, 1)]);
    }

    #[test]
    fn the_delay_reported_is_that_of_the_largest_number() {
        let now = start();
        let mut received = ReceivedPackets::default();
        received.record(now, 9, true);
        received.record(now + Duration::from_millis(3), 4, true);
        let (delay, _) = received.report(now + Duration::from_millis(5));
        assert_eq!(delay, Duration::from_millis(5));
    }

    #[test]
    fn a_report_stays_unconfirmed_until_one_that_covers_it_has_arrived() {
        let mut received = ReceivedPackets::default();
        assert!(!received.is_unconfirmed());
        received.record(start(), 4, false);
        assert!(!received.is_unconfirmed(), "nobody waits for a report");
        received.record(start(), 5, true);
        received.reported();
        assert!(received.is_unconfirmed());
        received.report_arrived(4);
        assert!(received.is_unconfirmed());
        received.report_arrived(5);
        assert!(!received.is_unconfirmed());
    }

    #[test]
    fn ranges_are_bounded_and_what_falls_off_counts_as_seen() {
        let now = start();
        let mut received = ReceivedPackets::default();
        for n in 0..2 * ACK_RANGES_MAX as u64 {
            received.record(now, 2 * n, true);
        }
        assert_eq!(numbers(&received).len(), ACK_RANGES_MAX);
        assert!(received.is_duplicate(1), "never received, but too old to tell");
        let newest = 2 * (2 * ACK_RANGES_MAX as u64 - 1);
        assert!(received.is_duplicate(newest));
        assert!(!received.is_duplicate(newest - 1));
        assert!(!received.is_duplicate(newest + 1));
    }

    #[test]
    fn a_report_that_arrived_need_not_repeat_what_is_far_below() {
        let now = start();
        let mut received = ReceivedPackets::default();
        for n in [1, 3, 500, 700] {
            received.record(now, n, true);
        }
        received.report_arrived(500);
        assert_eq!(numbers(&received), [(700, 700), (500, 500)]);
        assert!(received.is_duplicate(2), "older than anything remembered");
        received.report_arrived(5000);
        assert_eq!(numbers(&received), [(700, 700)], "the newest range always stays");
    }

    proptest::proptest! {
        #[test]
        fn it_remembers_what_a_plain_set_remembers(order in proptest::collection::vec(0u64..60, 0..80)) {
            let mut received = ReceivedPackets::default();
            let mut model = std::collections::BTreeSet::new();
            for number in order {
                assert_eq!(received.is_duplicate(number), model.contains(&number));
                if model.insert(number) {
                    received.record(start(), number, true);
                }
                let told: Vec<u64> = numbers(&received).iter().rev().flat_map(|&(l, h)| l..=h).collect();
                assert_eq!(told, model.iter().copied().collect::<Vec<_>>());
            }
        }
    }
}
