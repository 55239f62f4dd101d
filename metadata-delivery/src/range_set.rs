//! A set of numbers, kept as ranges.

use std::collections::BTreeMap;
use std::ops::Range;

/// Numbers in half-open ranges that neither overlap nor touch. Empty sets hold no memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RangeSet {
    /// Start to end.
    ranges: BTreeMap<u64, u64>,
    /// Numbers in all ranges.
    total: u64,
}

impl RangeSet {
    /// How many ranges there are.
    pub(crate) fn range_count(&self) -> usize {
        self.ranges.len()
    }

    /// How many numbers are in the set.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    pub(crate) fn contains(&self, number: u64) -> bool {
        self.ranges.range(..=number).next_back().is_some_and(|(_, end)| number < *end)
    }

    /// Adds a range, merging what it overlaps or touches.
    pub(crate) fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let Range { mut start, mut end } = range;
        if let Some((&before, &before_end)) = self.ranges.range(..=start).next_back()
            && before_end >= start
        {
            start = before;
        }
        while let Some((&inner, &inner_end)) = self.ranges.range(start..=end).next() {
            self.ranges.remove(&inner);
            self.total -= inner_end - inner;
            end = end.max(inner_end);
        }
        self.ranges.insert(start, end);
        self.total += end - start;
    }

    /// Takes a range out, splitting what it cuts.
    pub(crate) fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        if let Some((&start, &end)) = self.ranges.range(..range.start).next_back()
            && end > range.start
        {
            self.ranges.insert(start, range.start);
            self.total -= end - range.start;
            if end > range.end {
                self.ranges.insert(range.end, end);
                self.total += end - range.end;
            }
        }
        while let Some((&start, &end)) = self.ranges.range(range.clone()).next() {
            self.ranges.remove(&start);
            self.total -= end - start;
            if end > range.end {
                self.ranges.insert(range.end, end);
                self.total += end - range.end;
            }
        }
    }

    /// The parts of `range` that are not in the set.
    pub(crate) fn gaps(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let before = self.ranges.range(..range.start).next_back();
        let mut at = before.map_or(range.start, |(_, &end)| end.max(range.start));
        let mut inner = self.ranges.range(range.start..range.end);
        std::iter::from_fn(move || {
            loop {
                let (start, end) =
                    inner.next().map_or((range.end, range.end), |(&start, &end)| (start, end));
                let gap = at..start;
                at = at.max(end);
                if !gap.is_empty() {
                    return Some(gap);
                }
                if start >= range.end {
                    return None;
                }
            }
        })
    }

    /// The ranges, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.ranges.iter().map(|(&start, &end)| start..end)
    }

    /// The first range.
    pub(crate) fn first(&self) -> Option<Range<u64>> {
        self.ranges.first_key_value().map(|(&start, &end)| start..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    proptest::proptest! {
        #[test]
        fn it_holds_what_a_plain_set_of_numbers_holds(
            steps in proptest::collection::vec((0u8..2, 0u64..60, 0u64..20), 0..60),
        ) {
            let mut set = RangeSet::default();
            let mut model = BTreeSet::new();
            for (what, start, length) in steps {
                if what == 0 {
                    set.insert(start..start + length);
                    model.extend(start..start + length);
                } else {
                    set.remove(start..start + length);
                    model.retain(|n| !(start..start + length).contains(n));
                }
                for n in 0..90 {
                    assert_eq!(set.contains(n), model.contains(&n), "{n} in {set:?}");
                }
                assert_eq!(set.total(), model.len() as u64);
                assert_eq!(set.first().map(|r| r.start), model.first().copied());
                let apart = set.ranges.iter().zip(set.ranges.iter().skip(1));
                assert!(apart.clone().all(|((_, end), (start, _))| end < start), "{set:?} touches");
                assert!(set.ranges.iter().all(|(start, end)| start < end));
                let gaps: Vec<u64> = set.gaps(start..start + length).flatten().collect();
                let model = (start..start + length).filter(|n| !model.contains(n));
                assert_eq!(gaps, model.collect::<Vec<_>>());
            }
        }
    }
}
