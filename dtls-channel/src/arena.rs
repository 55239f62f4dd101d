use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Room is taken in pieces of this size.
const PIECE_BYTES: usize = 64 * 1024;
/// Pieces remembered while somebody holds messages in them: as much as a driver receives before the
/// application gets its turn.
const SPENT_MAX: usize = 64;

/// Storage for incoming messages until the application takes them, in their order: many in one allocation, which is used
/// again when it has let go of them all.
///
/// A message becomes one that counts who holds it only when it is taken. Right after it was written, the processor would
/// have to wait for that.
#[derive(Default)]
pub(crate) struct Arena {
    /// With messages that were not taken, the oldest first, and no room for more.
    full: VecDeque<BytesMut>,
    current: BytesMut,
    /// All taken, the oldest first.
    spent: VecDeque<BytesMut>,
}

impl Arena {
    /// Keeps a copy of `content`, which is not empty.
    pub(crate) fn push(&mut self, content: &[u8]) {
        if self.current.is_empty() {
            // From the front again if the application has let go of everything: so little memory, which the processor has
            // at hand, serves one burst after the other.
            let _ = self.current.try_reclaim(PIECE_BYTES);
        }
        if self.current.capacity() - self.current.len() < content.len() {
            self.turn_over(content.len());
        }
        self.current.extend_from_slice(content);
    }

    /// The oldest of what was kept and not taken, which has so many bytes.
    pub(crate) fn take(&mut self, length: usize) -> Bytes {
        let Some(oldest) = self.full.front_mut() else {
            return self.current.split_to(length).freeze();
        };
        let content = oldest.split_to(length).freeze();
        if oldest.is_empty()
            && let Some(spent) = self.full.pop_front()
        {
            self.spend(spent);
        }
        content
    }

    /// Takes up a piece with room.
    fn turn_over(&mut self, length: usize) {
        let bytes = PIECE_BYTES.max(length);
        let at = self.spent.iter_mut().position(|piece| piece.try_reclaim(bytes));
        let fresh = at.and_then(|at| self.spent.remove(at));
        let fresh = fresh.unwrap_or_else(|| BytesMut::with_capacity(bytes));
        let before = std::mem::replace(&mut self.current, fresh);
        if before.is_empty() {
            self.spend(before);
        } else {
            self.full.push_back(before);
        }
    }

    /// Remembers a piece of which everything was taken; who still holds messages in it keeps it alive.
    fn spend(&mut self, piece: BytesMut) {
        if self.spent.len() >= SPENT_MAX {
            self.spent.pop_front();
        }
        self.spent.push_back(piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use allocation_counter::measure;

    const MESSAGE: [u8; 1_000] = [7; 1_000];

    #[test]
    fn pieces_come_round_again_once_nobody_holds_them() {
        let mut arena = Arena::default();
        let mut held = VecDeque::with_capacity(1_000);
        let mut keep = |n: usize, held: &mut VecDeque<Bytes>| {
            arena.push(&[n as u8; MESSAGE.len()]);
            held.push_back(arena.take(MESSAGE.len()));
            if held.len() > 200 {
                held.pop_front();
            }
        };
        (0..1_000).for_each(|n| keep(n, &mut held));
        let memory = measure(|| (1_000..10_000).for_each(|n| keep(n, &mut held)));
        assert_eq!(memory.count_total, 0, "{memory:?}");
        for (bytes, n) in held.iter().zip(10_000 - held.len()..) {
            assert!(bytes.iter().all(|byte| *byte == n as u8));
        }
    }

    #[test]
    fn messages_are_taken_in_their_order_whenever_that_is() {
        let mut arena = Arena::default();
        let mut waiting = VecDeque::new();
        let mut held = Vec::new();
        for n in 0..5_000usize {
            let content = vec![n as u8; 1 + n * 37 % 3_000];
            arena.push(&content);
            waiting.push_back(content);
            // Now all, now none, now some.
            let takes = [0, 1, 2, 0, usize::MAX][n / 100 % 5].min(waiting.len());
            for content in waiting.drain(..takes) {
                held.push((arena.take(content.len()), content));
            }
            if n % 700 == 0 {
                held.clear();
            }
            assert!(held.iter().all(|(taken, content)| taken[..] == content[..]));
        }
        for content in waiting {
            assert_eq!(arena.take(content.len())[..], content[..]);
        }
    }

    #[test]
    fn bursts_that_are_let_go_are_written_over_each_other() {
        let mut arena = Arena::default();
        let mut places = std::collections::BTreeSet::new();
        for _ in 0..100 {
            (0..30).for_each(|_| arena.push(&MESSAGE));
            places.extend((0..30).map(|_| arena.take(MESSAGE.len()).as_ptr() as usize));
        }
        assert_eq!(places.len(), 30);
    }

    #[test]
    fn who_holds_everything_gets_fresh_room_and_little_is_remembered() {
        let mut arena = Arena::default();
        (0..20_000).for_each(|_| arena.push(&MESSAGE));
        let held: Vec<_> = (0..20_000).map(|_| arena.take(MESSAGE.len())).collect();
        assert_eq!((arena.full.len(), arena.spent.len()), (0, SPENT_MAX));
        assert!(held.iter().all(|bytes| bytes[..] == MESSAGE));
        arena.push(&[1; 2 * PIECE_BYTES]);
        assert_eq!(arena.take(2 * PIECE_BYTES)[..], [1; 2 * PIECE_BYTES]);
    }
}
