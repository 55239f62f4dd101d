//! Putting the pieces of one transfer together.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use ring::digest;

use crate::limits::{PENDING_PIECE_BYTES, PENDING_PIECES_MAX};

/// First allocation for the bytes of a document; grows by doubling, never beyond its length.
const FRONT_BYTES_MIN: usize = 4 << 10;

/// The pieces of a document that have arrived. Holds memory for what came, not for what was
/// announced: at most twice the bytes received, and a fixed overhead per piece that waits.
pub(crate) struct Assembly {
    length: u64,
    /// Everything from the begin to the first gap.
    front: Vec<u8>,
    /// Pieces behind that gap by offset; they neither overlap nor reach into `front`.
    pending: BTreeMap<u64, Box<[u8]>>,
    pending_bytes: usize,
    /// Digest of `front`, so that completing a large document costs no second pass.
    digest: digest::Context,
}

/// A piece could not be taken: too many wait already. It has to be sent again.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoRoom;

impl Assembly {
    pub(crate) fn new(length: u64) -> Self {
        Self {
            length,
            front: Vec::new(),
            pending: BTreeMap::new(),
            pending_bytes: 0,
            digest: digest::Context::new(&digest::SHA256),
        }
    }

    /// Bytes held.
    pub(crate) fn held_bytes(&self) -> usize {
        self.front.len() + self.pending_bytes
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.front.len() as u64 == self.length
    }

    /// Takes a piece that lies within the length. What came before is not replaced.
    pub(crate) fn insert(&mut self, offset: u64, piece: &[u8]) -> Result<(), NoRoom> {
        let end = offset + piece.len() as u64;
        debug_assert!(end <= self.length);
        let front = self.front.len() as u64;
        if end <= front {
            return Ok(());
        }
        if offset <= front {
            self.extend_front(&piece[(front - offset) as usize..]);
            self.join_pending();
            return Ok(());
        }
        self.insert_pending(offset, piece)
    }

    /// Whether all of these bytes are there.
    pub(crate) fn has(&self, bytes: Range<u64>) -> bool {
        self.parts(bytes, |_| {})
    }

    /// These bytes, if all of them are there.
    pub(crate) fn read(&self, bytes: Range<u64>) -> Option<Vec<u8>> {
        let mut read = Vec::new();
        self.parts(bytes, |part| read.extend_from_slice(part)).then_some(read)
    }

    /// Shows the parts of these bytes in order, up to the first gap. Whether there is none.
    fn parts(&self, bytes: Range<u64>, mut show: impl FnMut(&[u8])) -> bool {
        let Range { start: mut at, end } = bytes;
        let front = self.front.len() as u64;
        if at < front && at < end {
            let part_end = front.min(end);
            show(&self.front[at as usize..part_end as usize]);
            at = part_end;
        }
        while at < end {
            let Some((&offset, piece)) = self.pending.range(..=at).next_back() else {
                return false;
            };
            let piece_end = offset + piece.len() as u64;
            if piece_end <= at {
                return false;
            }
            let part_end = piece_end.min(end);
            show(&piece[(at - offset) as usize..(part_end - offset) as usize]);
            at = part_end;
        }
        true
    }

    /// The document and its SHA-256.
    pub(crate) fn finish(self) -> (Bytes, [u8; 32]) {
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(self.digest.finish().as_ref());
        (Bytes::from(self.front), sha256)
    }

    fn extend_front(&mut self, bytes: &[u8]) {
        let needed = self.front.len() + bytes.len();
        if needed > self.front.capacity() {
            let length = usize::try_from(self.length).unwrap_or(usize::MAX);
            let target = (2 * self.front.capacity()).max(FRONT_BYTES_MIN).max(needed).min(length);
            self.front.reserve_exact(target - self.front.len());
        }
        self.front.extend_from_slice(bytes);
        self.digest.update(bytes);
    }

    /// Moves pending pieces that have become contiguous to the front.
    fn join_pending(&mut self) {
        while let Some(entry) = self.pending.first_entry() {
            let front = self.front.len() as u64;
            if *entry.key() > front {
                break;
            }
            let (offset, piece) = entry.remove_entry();
            self.pending_bytes -= piece.len();
            let known = (front - offset) as usize;
            if let Some(new) = piece.get(known..) {
                self.extend_front(new);
            }
        }
    }

    /// Keeps those parts of a piece that fall into gaps.
    fn insert_pending(&mut self, offset: u64, piece: &[u8]) -> Result<(), NoRoom> {
        let end = offset + piece.len() as u64;
        let mut at = offset;
        if let Some((&before, known)) = self.pending.range(..=at).next_back() {
            at = at.max(before + known.len() as u64);
        }
        while at < end {
            let next = self.pending.range(at..end).next();
            let (gap_end, resume) =
                next.map_or((end, end), |(&next, known)| (next, next + known.len() as u64));
            if gap_end > at {
                let allowed = PENDING_PIECES_MAX + self.pending_bytes / PENDING_PIECE_BYTES;
                if self.pending.len() >= allowed {
                    return Err(NoRoom);
                }
                let part = &piece[(at - offset) as usize..(gap_end - offset) as usize];
                self.pending.insert(at, part.into());
                self.pending_bytes += part.len();
            }
            at = resume;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Assembly {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { length, front, pending, .. } = self;
        write!(f, "Assembly({} of {length} bytes, {} pieces wait)", front.len(), pending.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(length: usize) -> Vec<u8> {
        (0..length).map(|n| (n * 7 + n / 256) as u8).collect()
    }

    fn sha256(bytes: &[u8]) -> [u8; 32] {
        crate::message::Hex32::sha256_of(bytes).0
    }

    #[test]
    fn an_empty_document_is_complete_at_once() {
        let assembly = Assembly::new(0);
        assert!(assembly.is_complete());
        assert_eq!(assembly.finish(), (Bytes::new(), sha256(b"")));
    }

    #[test]
    fn memory_follows_what_arrived_and_not_what_was_announced() {
        let mut assembly = Assembly::new(16 << 20);
        assembly.insert(0, &[1; 1000]).unwrap();
        assembly.insert(15 << 20, &[2; 1000]).unwrap();
        assert_eq!(assembly.held_bytes(), 2000);
        assert_eq!(assembly.front.capacity(), FRONT_BYTES_MIN);
        for offset in (1000..200_000).step_by(1000) {
            assembly.insert(offset, &[1; 1000]).unwrap();
            assert!(assembly.front.capacity() <= (2 * assembly.front.len()).max(FRONT_BYTES_MIN));
        }
    }

    #[test]
    fn a_finished_document_has_no_spare_capacity() {
        let bytes = document(100_000);
        let mut assembly = Assembly::new(bytes.len() as u64);
        for (at, piece) in bytes.chunks(1111).enumerate() {
            assembly.insert(at as u64 * 1111, piece).unwrap();
        }
        assert_eq!(assembly.front.capacity(), bytes.len());
    }

    #[test]
    fn single_bytes_spread_out_run_into_the_limit_and_filling_gaps_helps() {
        let mut assembly = Assembly::new(16 << 20);
        let mut taken = 0;
        while assembly.insert(1 + 2 * taken, &[0]).is_ok() {
            taken += 1;
        }
        // 4 more for the 1,024 bytes that wait by then.
        assert_eq!(taken as usize, PENDING_PIECES_MAX + PENDING_PIECES_MAX / PENDING_PIECE_BYTES);
        assert_eq!(assembly.insert(0, &[0]), Ok(()));
        assert_eq!(assembly.insert(1 + 2 * taken, &[0]), Ok(()), "one piece moved to the front");
        assert_eq!(assembly.insert(5 + 2 * taken, &[0]), Err(NoRoom));
    }

    #[test]
    fn a_whole_document_may_wait_for_its_first_piece() {
        let mut assembly = Assembly::new(16 << 20);
        for offset in (1000..(16 << 20) - 1000).step_by(1000) {
            assembly.insert(offset, &[1; 1000]).unwrap();
        }
        assert!(!assembly.is_complete());
    }

    proptest::proptest! {
        #[test]
        fn pieces_in_any_order_overlapping_and_repeated_give_the_document(
            length in 1usize..2000,
            cuts in proptest::collection::vec((0usize..2000, 1usize..300), 0..60),
        ) {
            let bytes = document(length);
            let mut assembly = Assembly::new(length as u64);
            let mut known = vec![false; length];
            let tail = (0..length).step_by(97).rev().map(|at| (at, 97));
            for (offset, size) in cuts.into_iter().chain(tail) {
                let offset = offset % length;
                let end = (offset + size).min(length);
                assembly.insert(offset as u64, &bytes[offset..end]).unwrap();
                known[offset..end].fill(true);
                assert_eq!(assembly.held_bytes(), known.iter().filter(|known| **known).count());
                assert_eq!(assembly.is_complete(), known.iter().all(|known| *known));
                for (start, end) in [(offset, end), (offset / 2, end), (offset, length), (0, length)] {
                    let there = known[start..end].iter().all(|known| *known);
                    let range = start as u64..end as u64;
                    assert_eq!(assembly.has(range.clone()), there);
                    let read = assembly.read(range);
                    assert_eq!(read.as_deref(), there.then_some(&bytes[start..end]));
                }
            }
            assert!(assembly.is_complete() && assembly.pending.is_empty());
            assert_eq!(assembly.finish(), (Bytes::from(bytes.clone()), sha256(&bytes)));
        }
    }
}
