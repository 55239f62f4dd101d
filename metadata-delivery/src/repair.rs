//! Repair of the end of a transfer: an erasure code in place of waiting for what was lost.
//!
//! The last bytes of an encoded form are cut into symbols of one length, which DATA carries as before. Repair
//! symbols are computed from them by a Reed–Solomon code: of all symbols, source and repair, any as many as there
//! are source symbols give the source. docs/adr/0012 has the reasons, `docs/protocol.md` §4.4 the code.

mod amount;
mod received;
mod sending;

use std::ops::Range;

use bytes::Bytes;

pub(crate) use received::{Received, Recovered};
pub(crate) use sending::Sending;

use crate::limits::{REPAIR_SYMBOL_BYTES_MAX, REPAIR_SYMBOLS_MAX};

/// The code has no fewer repair symbols than this: the fewer source symbols, the more bad luck there can be.
const REPAIR_SYMBOLS_MIN: usize = 32;

/// The library wants symbols in multiples of this. Every byte of a symbol is coded by itself, so that the zeros
/// behind a shorter one stay zeros, and are not sent.
const GRAIN_BYTES: usize = 64;

/// How a path loses packets, and what that allows a sender to do about it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Lossy {
    /// The share lost, and how many in a row in the mean. `None`: repair does not pay.
    pub(crate) loss: Option<Loss>,
    /// Bytes that may be in flight.
    pub(crate) window: usize,
    /// Symbols that the peer puts together at most; 0 when it cannot.
    pub(crate) symbols_max: u16,
    /// Losses were seen, or there is no answer: they are not only feared.
    pub(crate) seen: bool,
}

/// A loss process with two states (Gilbert's).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Loss {
    /// Share of packets lost.
    pub(crate) share: f32,
    /// Packets lost in a row, in the mean.
    pub(crate) burst: f32,
    /// The last packets were lost, as far as one can tell.
    pub(crate) in_burst: bool,
}

/// The part of an encoded form that can be repaired: from an offset to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Block {
    offset: u64,
    end: u64,
    symbol_bytes: usize,
}

impl Block {
    /// `None` beyond the limits: there is at least one symbol and at most [`REPAIR_SYMBOLS_MAX`], of 1 to
    /// [`REPAIR_SYMBOL_BYTES_MAX`] bytes.
    pub(crate) fn new(offset: u64, end: u64, symbol_bytes: usize) -> Option<Self> {
        let bytes = end.checked_sub(offset).filter(|bytes| *bytes > 0)?;
        if !(1..=REPAIR_SYMBOL_BYTES_MAX).contains(&symbol_bytes) {
            return None;
        }
        let block = Self { offset, end, symbol_bytes };
        (bytes.div_ceil(symbol_bytes as u64) <= REPAIR_SYMBOLS_MAX as u64).then_some(block)
    }

    /// The same bytes in as many symbols of equal length, none longer than `room`.
    pub(crate) fn even(offset: u64, end: u64, room: usize) -> Option<Self> {
        let room = room.min(REPAIR_SYMBOL_BYTES_MAX);
        let count = Self::new(offset, end, room)?.count() as u64;
        Self::new(offset, end, (end - offset).div_ceil(count) as usize)
    }

    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    pub(crate) fn bytes(&self) -> Range<u64> {
        self.offset..self.end
    }

    pub(crate) fn symbol_bytes(&self) -> usize {
        self.symbol_bytes
    }

    /// Source symbols.
    pub(crate) fn count(&self) -> usize {
        (self.end - self.offset).div_ceil(self.symbol_bytes as u64) as usize
    }

    /// Repair symbols that there can be. As many are source symbols to the code: those that are missing are zeros.
    pub(crate) fn repairs(&self) -> usize {
        self.count().next_power_of_two().max(REPAIR_SYMBOLS_MIN)
    }

    /// The bytes of a source symbol; the last may be shorter than the others.
    pub(crate) fn symbol(&self, nth: usize) -> Range<u64> {
        let start = self.offset + (nth * self.symbol_bytes) as u64;
        start..self.end.min(start + self.symbol_bytes as u64)
    }

    /// The symbols that these bytes are part of.
    fn symbols_of(&self, bytes: &Range<u64>) -> Range<usize> {
        if bytes.end <= self.offset || bytes.is_empty() {
            return 0..0;
        }
        let size = self.symbol_bytes as u64;
        let first = (bytes.start.max(self.offset) - self.offset) / size;
        let end = (bytes.end.min(self.end) - self.offset).div_ceil(size);
        first as usize..end as usize
    }

    /// Where a piece that starts here has to end, so that no packet holds parts of two symbols.
    pub(crate) fn boundary(&self, at: u64) -> u64 {
        if at < self.offset {
            return self.offset;
        }
        let nth = (at - self.offset) / self.symbol_bytes as u64;
        self.symbol(nth as usize).end
    }

    fn padded_bytes(&self) -> usize {
        self.symbol_bytes.next_multiple_of(GRAIN_BYTES)
    }

    /// A source symbol as the code takes it.
    fn shard(&self, bytes: &[u8]) -> Vec<u8> {
        let mut shard = Vec::with_capacity(self.padded_bytes());
        shard.extend_from_slice(bytes);
        shard.resize(self.padded_bytes(), 0);
        shard
    }

    fn zeros(&self) -> Vec<u8> {
        vec![0; self.padded_bytes()]
    }

    /// Computes some of the repair symbols of a form. Empty if the library fails: then nothing is repaired.
    pub(crate) fn encode(&self, form: &[u8], which: Range<usize>) -> Vec<Bytes> {
        let repairs = self.repairs();
        let mut shards: Vec<Vec<u8>> = (0..self.count())
            .map(|nth| {
                let Range { start, end } = self.symbol(nth);
                self.shard(form.get(start as usize..end as usize).unwrap_or_default())
            })
            .collect();
        shards.resize_with(2 * repairs, || self.zeros());
        if leopard_codec::encode(&mut shards, repairs).is_err() {
            return Vec::new();
        }
        let symbols = shards.iter().skip(repairs + which.start).take(which.len());
        symbols.map(|shard| Bytes::copy_from_slice(&shard[..self.symbol_bytes])).collect()
    }

    /// Computes the source symbols that are missing. `source` and `repair` say what is there, by number. `None` if
    /// that is too little.
    fn decode<'a>(
        &self,
        source: impl Fn(usize) -> Option<Vec<u8>>,
        repair: impl Fn(usize) -> Option<&'a [u8]>,
    ) -> Option<Vec<(u64, Vec<u8>)>> {
        let (count, repairs) = (self.count(), self.repairs());
        let mut shards: Vec<Vec<u8>> = (0..count)
            .map(|nth| source(nth).map_or_else(Vec::new, |bytes| self.shard(&bytes)))
            .collect();
        let missing: Vec<usize> = (0..count).filter(|nth| shards[*nth].is_empty()).collect();
        shards.resize_with(repairs, || self.zeros());
        let repaired =
            (0..repairs).map(|nth| repair(nth).map_or_else(Vec::new, |bytes| self.shard(bytes)));
        shards.extend(repaired);
        leopard_codec::reconstruct(&mut shards, repairs).ok()?;
        let recovered = missing.into_iter().map(|nth| {
            let Range { start, end } = self.symbol(nth);
            let mut bytes = std::mem::take(&mut shards[nth]);
            bytes.truncate((end - start) as usize);
            (start, bytes)
        });
        Some(recovered.collect())
    }
}

#[cfg(test)]
mod tests;
