//! ACK: which packets were received, as in RFC 9000 §19.3.

use super::varint::{self, Reader};
use super::{HEADER_BYTES, ended, framed, kind, malformed};
use crate::PacketError;
use crate::ecn::EcnCounts;

/// Received packet numbers, in ranges from the newest to the oldest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ack<'a> {
    /// Largest packet number received.
    pub(crate) largest: u64,
    /// How long that packet waited for this acknowledgement, in microseconds.
    pub(crate) delay_us: u64,
    /// How many numbers below the largest were received without a gap.
    first: u64,
    /// Number of (gap, length) pairs that follow.
    count: u64,
    /// The pairs, checked: walking them never goes below 0.
    pairs: &'a [u8],
    /// How many packets came with which congestion mark, if any did.
    pub(crate) ecn: Option<EcnCounts>,
}

impl<'a> Ack<'a> {
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, PacketError> {
        let mut field = || reader.varint().map_err(ended("ACK"));
        let largest = field()?;
        let delay_us = field()?;
        let count = field()?;
        let first = field()?;
        let pairs = reader.rest();
        let below = || malformed("ACK", "a range below packet number 0");
        let mut lowest = largest.checked_sub(first).ok_or_else(below)?;
        let mut rest = Reader::new(pairs);
        for _ in 0..count {
            let gap = rest.varint().map_err(ended("ACK"))?;
            let length = rest.varint().map_err(ended("ACK"))?;
            // Varints have 62 bits: the sum cannot overflow.
            lowest = lowest.checked_sub(gap + 2 + length).ok_or_else(below)?;
        }
        let mut ecn = None;
        let behind = rest;
        if !rest.is_empty() {
            let mut field = || rest.varint().map_err(ended("ACK"));
            ecn = Some(EcnCounts { ect0: field()?, ect1: field()?, ce: field()? });
        }
        let pairs = &pairs[..pairs.len() - behind.len()];
        Ok(Self { largest, delay_us, first, count, pairs, ecn })
    }

    /// The ranges as (lowest, highest), newest first.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = (u64, u64)> + Clone + use<'a> {
        let first = (self.largest.saturating_sub(self.first), self.largest);
        let mut pairs = Reader::new(self.pairs);
        let mut lowest = first.0;
        let rest = (0..self.count).map_while(move |_| {
            let gap = pairs.varint().ok()?;
            let length = pairs.varint().ok()?;
            let high = lowest.checked_sub(gap + 2)?;
            lowest = high.checked_sub(length)?;
            Some((lowest, high))
        });
        std::iter::once(first).chain(rest)
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        write_ack(out, usize::MAX, self.delay_us, self.ecn, self.ranges());
    }
}

/// Appends an ACK of `ranges` (lowest, highest; newest first, not touching) that is at most
/// `room` bytes long, leaving out the oldest ranges when there are too many, but never the counts: without them, a
/// sender that marks would think that they are not there. Returns the largest number acknowledged, or `None` when not
/// even one range fits or there is none.
pub(crate) fn write_ack(
    out: &mut Vec<u8>,
    room: usize,
    delay_us: u64,
    ecn: Option<EcnCounts>,
    ranges: impl Iterator<Item = (u64, u64)> + Clone,
) -> Option<u64> {
    let mut counted = ranges.clone();
    let (mut lowest, largest) = counted.next()?;
    let counts = ecn.map(|ecn| [ecn.ect0, ecn.ect1, ecn.ce]);
    let counts = counts.as_ref().map_or(&[][..], |counts| counts);
    // The pair count is taken for two bytes: a packet has no room for 2^14 pairs.
    let mut length = HEADER_BYTES
        + varint::len(largest)
        + varint::len(delay_us)
        + 2
        + varint::len(largest - lowest)
        + counts.iter().map(|count| varint::len(*count)).sum::<usize>();
    if length > room {
        return None;
    }
    let mut count = 0;
    for (low, high) in counted {
        length += varint::len(lowest - high - 2) + varint::len(high - low);
        if length > room {
            break;
        }
        count += 1;
        lowest = low;
    }
    framed(out, kind::ACK, |out| {
        varint::put(out, largest);
        varint::put(out, delay_us);
        varint::put(out, count as u64);
        let mut lowest = largest + 2;
        for (at, (low, high)) in ranges.take(count + 1).enumerate() {
            if at > 0 {
                varint::put(out, lowest - high - 2);
            }
            varint::put(out, high - low);
            lowest = low;
        }
        counts.iter().for_each(|count| varint::put(out, *count));
    });
    Some(largest)
}
