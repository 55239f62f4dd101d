use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Room is taken in pieces of this size.
const PIECE_BYTES: usize = 64 * 1024;
/// Pieces remembered while somebody holds messages in them: as much as a driver receives before the
/// application gets its turn.
const SPENT_MAX: usize = 64;

/// Storage for incoming messages: many in one allocation, which is used again when the application
/// has let go of them all.
#[derive(Default)]
pub(crate) struct Arena {
    current: BytesMut,
    /// Full ones, the oldest first.
    spent: VecDeque<BytesMut>,
}

impl Arena {
    /// A copy of `content`.
    pub(crate) fn keep(&mut self, content: &[u8]) -> Bytes {
        if self.current.capacity() < content.len() {
            self.turn_over(content.len());
        }
        self.current.extend_from_slice(content);
        self.current.split().freeze()
    }

    /// Takes up a piece with room.
    fn turn_over(&mut self, length: usize) {
        let bytes = PIECE_BYTES.max(length);
        if self.current.try_reclaim(bytes) {
            return;
        }
        let fresh = self.reclaim(bytes).unwrap_or_else(|| BytesMut::with_capacity(bytes));
        let full = std::mem::replace(&mut self.current, fresh);
        if self.spent.len() >= SPENT_MAX {
            // Who still holds messages in it keeps it alive.
            self.spent.pop_front();
        }
        self.spent.push_back(full);
    }

    fn reclaim(&mut self, bytes: usize) -> Option<BytesMut> {
        let at = self.spent.iter_mut().position(|piece| piece.try_reclaim(bytes))?;
        self.spent.remove(at)
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
            held.push_back(arena.keep(&[n as u8; MESSAGE.len()]));
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
    fn who_holds_everything_gets_fresh_room_and_little_is_remembered() {
        let mut arena = Arena::default();
        let held: Vec<_> = (0..20_000).map(|_| arena.keep(&MESSAGE)).collect();
        assert_eq!(arena.spent.len(), SPENT_MAX);
        assert!(held.iter().all(|bytes| bytes[..] == MESSAGE));
        assert_eq!(arena.keep(&[1; 2 * PIECE_BYTES]).len(), 2 * PIECE_BYTES);
    }
}
