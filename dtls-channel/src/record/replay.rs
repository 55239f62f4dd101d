/// The widest replay window, in records.
pub const REPLAY_WINDOW_RECORDS_MAX: u16 = 1_024;

const WORD_BITS: u64 = 64;

/// Which sequence numbers of an epoch have been seen (RFC 6347 §4.1.2.6).
///
/// [`check`](Self::check) before the AEAD, [`mark`](Self::mark) only after it accepted: a forged
/// record never moves the window.
#[derive(Debug, Clone)]
pub(crate) struct ReplayWindow {
    /// One more than the highest number seen.
    next: u64,
    /// Bit `n % width` stands for number n, for the last `width` numbers; a power of two.
    seen: Bits,
}

#[derive(Debug, Clone)]
enum Bits {
    /// 64 records, the default, without an allocation.
    Word(u64),
    Wide(Box<[u64]>),
}

impl ReplayWindow {
    /// A window of `records`, rounded up to a power of two, at least 64 and at most
    /// [`REPLAY_WINDOW_RECORDS_MAX`].
    pub(crate) fn new(records: u16) -> Self {
        let words = records.min(REPLAY_WINDOW_RECORDS_MAX).div_ceil(WORD_BITS as u16);
        let words = words.next_power_of_two();
        let seen = match words {
            0 | 1 => Bits::Word(0),
            _ => Bits::Wide(vec![0; usize::from(words)].into()),
        };
        Self { next: 0, seen }
    }

    fn words(&mut self) -> &mut [u64] {
        match &mut self.seen {
            Bits::Word(word) => std::slice::from_mut(word),
            Bits::Wide(words) => words,
        }
    }

    fn width(&self) -> u64 {
        match &self.seen {
            Bits::Word(_) => WORD_BITS,
            Bits::Wide(words) => words.len() as u64 * WORD_BITS,
        }
    }

    fn bit(&self, sequence: u64) -> u64 {
        sequence & (self.width() - 1)
    }

    fn is_set(&self, sequence: u64) -> bool {
        let bit = self.bit(sequence);
        let word = match &self.seen {
            Bits::Word(word) => *word,
            Bits::Wide(words) => words[(bit / WORD_BITS) as usize],
        };
        word >> (bit % WORD_BITS) & 1 == 1
    }

    /// True if `sequence` is neither seen before nor too old to tell.
    pub(crate) fn check(&self, sequence: u64) -> bool {
        sequence >= self.next || (sequence + self.width() >= self.next && !self.is_set(sequence))
    }

    /// Notes an authenticated `sequence`; true if it is the newest so far.
    pub(crate) fn mark(&mut self, sequence: u64) -> bool {
        let width = self.width();
        let newest = sequence >= self.next;
        if newest {
            if sequence - self.next >= width {
                self.words().fill(0);
            } else {
                for skipped in self.next..sequence {
                    let bit = self.bit(skipped);
                    self.words()[(bit / WORD_BITS) as usize] &= !(1 << (bit % WORD_BITS));
                }
            }
            self.next = sequence + 1;
        }
        let bit = self.bit(sequence);
        self.words()[(bit / WORD_BITS) as usize] |= 1 << (bit % WORD_BITS);
        newest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn replays_and_ancient_numbers_are_refused_and_gaps_are_filled() {
        let mut window = ReplayWindow::new(64);
        assert!(window.mark(0) && !window.check(0));
        assert!(window.mark(100) && window.check(99) && window.check(37) && !window.check(36));
        assert!(!window.mark(99) && !window.check(99) && window.check(98));
        assert!(window.mark(10_000) && !window.check(100) && window.check(9_999));
    }

    proptest! {
        #[test]
        fn the_window_agrees_with_a_set(
            width in 1u16..1_100,
            jumps in prop::collection::vec((-200i64..300, any::<bool>()), 1..300),
        ) {
            let mut window = ReplayWindow::new(width);
            let real_width = window.width();
            prop_assert!((64..=1_024).contains(&real_width));
            let (mut seen, mut top) = (HashSet::new(), 0u64);
            for (jump, authentic) in jumps {
                let sequence = top.saturating_add_signed(jump);
                let expected = !seen.contains(&sequence)
                    && (seen.is_empty() || sequence + real_width > top || sequence > top);
                prop_assert_eq!(window.check(sequence), expected, "{} at {}", sequence, top);
                // What the AEAD refuses leaves no trace.
                if expected && authentic {
                    let newest = window.mark(sequence);
                    prop_assert_eq!(newest, seen.is_empty() || sequence > top);
                    seen.insert(sequence);
                    top = top.max(sequence);
                }
            }
        }
    }
}
