//! Which entries may run side by side.
//!
//! With one lane, as by default, entries run strictly one after the other in document order. With more, an
//! entry's `options.lane` names its lane; entries of one lane run in document order, one at a time, and
//! those without a lane are a lane of their own. An entry does not wait for anything in another lane: an
//! author who names lanes says that the order between them does not matter. At most so many lanes are at
//! work at a time.

use std::collections::BTreeMap;

/// A lane: its name; `None` for the entries without.
pub(super) type Lane<'a> = Option<&'a str>;

/// What an entry waits for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Nothing: it may start.
    None,
    /// The end of the run in its lane.
    Run,
    /// The entry at this place of the queue, which is before it in its lane.
    Step(usize),
    /// The end of any run.
    Slot,
}

/// What each entry of the queue waits for, in order, given the lanes of the entries and those at work.
pub(super) fn waits<'a>(
    queue: impl IntoIterator<Item = Lane<'a>>,
    at_work: impl IntoIterator<Item = Lane<'a>>,
    lanes_max: usize,
) -> impl Iterator<Item = Wait> {
    let in_force = move |lane: Lane<'a>| lane.filter(|_| lanes_max > 1);
    let at_work: Vec<Lane<'a>> = at_work.into_iter().map(in_force).collect();
    let mut free = lanes_max.max(1).saturating_sub(at_work.len());
    let mut newest = BTreeMap::new();
    queue.into_iter().enumerate().map(move |(place, lane)| {
        let lane = in_force(lane);
        if let Some(ahead) = newest.insert(lane, place) {
            Wait::Step(ahead)
        } else if at_work.contains(&lane) {
            Wait::Run
        } else if free == 0 {
            Wait::Slot
        } else {
            free -= 1;
            Wait::None
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn waits(queue: &[Lane<'_>], at_work: &[Lane<'_>], lanes_max: usize) -> Vec<Wait> {
        super::waits(queue.iter().copied(), at_work.iter().copied(), lanes_max).collect()
    }

    #[test]
    fn with_one_lane_everything_is_in_order_whatever_the_entries_say() {
        let queue = [Some("a"), None, Some("b")];
        assert_eq!(waits(&queue, &[], 1), [Wait::None, Wait::Step(0), Wait::Step(1)]);
        assert_eq!(waits(&queue, &[Some("c")], 1), [Wait::Run, Wait::Step(0), Wait::Step(1)]);
    }

    #[test]
    fn different_lanes_run_side_by_side_and_one_lane_in_order() {
        let queue = [Some("a"), None, Some("a"), Some("b"), None, Some("c")];
        let expected =
            [Wait::None, Wait::None, Wait::Step(0), Wait::None, Wait::Step(1), Wait::Slot];
        assert_eq!(waits(&queue, &[], 3), expected);
        let expected =
            [Wait::Run, Wait::None, Wait::Step(0), Wait::Slot, Wait::Step(1), Wait::Slot];
        assert_eq!(waits(&queue, &[Some("a"), Some("z")], 3), expected);
    }

    proptest! {
        #[test]
        fn no_lane_is_used_twice_no_limit_is_passed_and_something_always_goes_on(
            queue in prop::collection::vec(prop::option::of("[abc]"), 0..12),
            at_work in prop::collection::btree_set(prop::option::of("[abcd]"), 0..4),
            lanes_max in 1usize..5,
        ) {
            let queue: Vec<Lane<'_>> = queue.iter().map(Option::as_deref).collect();
            let at_work: Vec<Lane<'_>> =
                at_work.iter().map(Option::as_deref).take(lanes_max).collect();
            let waits = waits(&queue, &at_work, lanes_max);
            let start: Vec<Lane<'_>> =
                queue.iter().zip(&waits).filter(|(_, w)| **w == Wait::None).map(|(l, _)| *l).collect();
            prop_assert!(start.len() + at_work.len() <= lanes_max);
            let mut used: Vec<Lane<'_>> = start.iter().chain(&at_work).copied().collect();
            let total = used.len();
            used.sort_unstable();
            used.dedup();
            prop_assert!(used.len() == total || lanes_max == 1);
            prop_assert!(!start.is_empty() || queue.is_empty() || !at_work.is_empty());
            for (place, wait) in waits.iter().enumerate() {
                if let Wait::Step(ahead) = wait {
                    prop_assert!(*ahead < place);
                }
            }
        }
    }
}
