//! The sender's side: which repair symbols are due, under way, and there.

use std::collections::VecDeque;

use bytes::Bytes;

use super::amount::amount;
use super::{Block, Loss};
use crate::limits::REPAIR_SYMBOLS_MAX;
use crate::range_set::RangeSet;

/// One bit for each repair symbol.
type Symbols = u128;
const _: () = assert!(REPAIR_SYMBOLS_MAX <= Symbols::BITS as usize);

/// Symbols that are computed beyond those due, as computing one is computing all.
const SPARE: usize = 4;

/// The repair symbols of one transfer. Each is sent once: a further one says more than a copy. Symbols are computed
/// when they are due and held until they are sent, a few beyond them until the transfer ends.
#[derive(Debug)]
pub(crate) struct Sending {
    block: Block,
    /// All source symbols were sent once, and repair symbols for them planned.
    planned: bool,
    /// The first that was not computed.
    next: usize,
    /// Computed, by number.
    computed: VecDeque<(usize, Bytes)>,
    /// So many of them are to be sent.
    due: usize,
    in_flight: Symbols,
    acked: Symbols,
}

impl Sending {
    pub(crate) fn new(block: Block) -> Self {
        Self {
            block,
            planned: false,
            next: 0,
            computed: VecDeque::new(),
            due: 0,
            in_flight: 0,
            acked: 0,
        }
    }

    pub(crate) fn block(&self) -> &Block {
        &self.block
    }

    /// The next symbol to send.
    pub(crate) fn due(&self) -> Option<(usize, &Bytes)> {
        self.computed.front().filter(|_| self.due > 0).map(|(nth, bytes)| (*nth, bytes))
    }

    pub(crate) fn sent(&mut self) {
        if let Some((nth, _)) = self.computed.pop_front() {
            self.in_flight |= 1 << nth;
            self.due -= 1;
        }
    }

    pub(crate) fn lost(&mut self, nth: usize) {
        self.in_flight &= !(1 << nth);
    }

    pub(crate) fn acked(&mut self, nth: usize) {
        self.in_flight &= !(1 << nth);
        self.acked |= 1 << nth;
    }

    /// No further repair symbols: packets have become too short for them, or the peer has enough.
    pub(crate) fn give_up(&mut self) {
        self.computed.clear();
        self.due = 0;
        self.in_flight = 0;
        self.next = self.block.repairs();
    }

    pub(crate) fn is_planned(&self) -> bool {
        self.planned
    }

    /// Whether lost symbols are made good for by repair symbols, rather than sent again.
    pub(crate) fn stands_in(&self) -> bool {
        self.planned && self.left() > 0
    }

    /// Symbols that the peer lacks even if everything in flight arrives.
    pub(crate) fn short_of(&self, lost: &RangeSet) -> usize {
        let lost: usize = self.count(lost.iter());
        let made_good = (self.in_flight | self.acked).count_ones() as usize + self.due;
        if self.planned { lost.saturating_sub(made_good) } else { 0 }
    }

    /// Symbols, of whichever kind, that the peer is not known to have and needs.
    pub(crate) fn needed(&self, acked: &RangeSet) -> usize {
        self.missing(acked).saturating_sub(self.acked.count_ones() as usize)
    }

    /// Source symbols that are not known to have arrived.
    fn missing(&self, acked: &RangeSet) -> usize {
        self.count(acked.gaps(self.block.bytes()))
    }

    /// Symbols that these ascending ranges are part of.
    fn count(&self, ranges: impl Iterator<Item = std::ops::Range<u64>>) -> usize {
        let mut counted = 0..0;
        let mut sum = 0;
        for range in ranges {
            let symbols = self.block.symbols_of(&range);
            sum += symbols.len()
                - usize::from(counted.contains(&symbols.start) && !symbols.is_empty());
            counted = symbols;
        }
        sum
    }

    /// Everything was sent once: from here on repair symbols take the place of what is lost.
    pub(crate) fn plan(&mut self) -> bool {
        !std::mem::replace(&mut self.planned, true)
    }

    /// Makes so many due that what is on its way, `on_their_way` symbols and those due, lets the transfer end with
    /// this flight; `least` in any case.
    pub(crate) fn top_up(
        &mut self,
        form: &[u8],
        acked: &RangeSet,
        on_their_way: usize,
        least: usize,
        loss: Loss,
    ) {
        let needed = self.needed(acked);
        if needed > 0 {
            let wanted = needed + amount(needed, self.block.repairs(), loss);
            let more = wanted.saturating_sub(on_their_way + self.due).max(least);
            self.enqueue(form, more);
        }
    }

    /// Symbols sent and neither acknowledged nor lost.
    pub(crate) fn in_flight(&self, acked: &RangeSet, lost: &RangeSet) -> usize {
        let source = self.missing(acked).saturating_sub(self.count(lost.iter()));
        source + self.in_flight.count_ones() as usize
    }

    fn left(&self) -> usize {
        self.block.repairs() - self.next + self.computed.len() - self.due
    }

    fn enqueue(&mut self, form: &[u8], count: usize) {
        self.due += count.min(self.left());
        if self.due <= self.computed.len() {
            return;
        }
        let end = self.next + self.due - self.computed.len() + SPARE;
        let which = self.next..end.min(self.block.repairs());
        let symbols = self.block.encode(form, which.clone());
        if symbols.is_empty() {
            return self.give_up();
        }
        self.next = which.end;
        self.computed.extend(which.zip(symbols));
    }

    /// Bytes that are to be sent.
    pub(crate) fn due_bytes(&self) -> usize {
        self.due * self.block.symbol_bytes()
    }
}
