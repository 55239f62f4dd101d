//! Whose turn it is to send, while the channel has room for some only.
//!
//! Sessions with little to send go before those with much, so that what a few packets carry never waits for megabytes
//! to others. Each kind goes round robin; and every eighth turn those with much go first, so that they move
//! however many of the others there are.

use std::collections::VecDeque;

use super::core::PeerId;

/// A session with more bytes than this to send has much.
pub(super) const LITTLE_BYTES_MAX: u64 = 64 << 10;
/// One turn of so many begins with those that have much.
const TURNS: u64 = 8;

/// See the module's text. A session is in it once at most, which is for its owner to see to.
#[derive(Debug, Default)]
pub(super) struct Turns {
    turn: u64,
    little: VecDeque<PeerId>,
    much: VecDeque<PeerId>,
}

impl Turns {
    /// A session has something to send, `unsent` bytes of documents among it: its turn comes after the others'.
    pub(super) fn push(&mut self, peer: PeerId, unsent: u64) {
        let queue = if unsent <= LITTLE_BYTES_MAX { &mut self.little } else { &mut self.much };
        queue.push_back(peer);
    }

    /// A turn begins.
    pub(super) fn begin(&mut self) {
        self.turn += 1;
    }

    /// Who sends next in this turn.
    pub(super) fn next(&mut self) -> Option<PeerId> {
        if self.turn.is_multiple_of(TURNS) {
            self.much.pop_front().or_else(|| self.little.pop_front())
        } else {
            self.little.pop_front().or_else(|| self.much.pop_front())
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.little.is_empty() && self.much.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Packets of a full channel, and of one session in a turn.
    const ROOM: u64 = 1000;
    const BURST: u64 = 64;
    const PACKET: u64 = 1100;

    /// Sessions with bytes to send, over a channel that empties once a turn.
    #[derive(Default)]
    struct World {
        turns: Turns,
        unsent: BTreeMap<PeerId, u64>,
        /// Packets sent, by session.
        sent: BTreeMap<PeerId, u64>,
    }

    impl World {
        /// A session gets something to send.
        fn offer(&mut self, peer: PeerId, bytes: u64) {
            let before = self.unsent.insert(peer, bytes);
            if before.is_none_or(|bytes| bytes == 0) {
                self.turns.push(peer, bytes);
            }
        }

        fn turn(&mut self) {
            self.turns.begin();
            let mut room = ROOM;
            while room > 0
                && let Some(peer) = self.turns.next()
            {
                let bytes = self.unsent.get_mut(&peer).unwrap();
                let packets = bytes.div_ceil(PACKET).min(BURST).min(room);
                room -= packets;
                *bytes = bytes.saturating_sub(packets * PACKET);
                if *bytes > 0 {
                    self.turns.push(peer, *bytes);
                }
                *self.sent.entry(peer).or_default() += packets;
            }
        }
    }

    fn busy_with(large: u64) -> World {
        let mut world = World::default();
        for peer in 0..large {
            world.offer(PeerId(2 * peer), 16 << 20);
        }
        for _ in 0..7 {
            world.turn();
        }
        world
    }

    #[test]
    fn a_small_document_is_sent_within_two_turns_however_many_large_ones_there_are() {
        for large in [1, 10, 100, 10_000] {
            for place in [1, large, 2 * large + 1] {
                // Whatever the turn.
                for wait in 0..TURNS {
                    let mut world = busy_with(large);
                    (0..wait).for_each(|_| world.turn());
                    let peer = PeerId(place | 1);
                    world.offer(peer, 2 << 10);
                    world.turn();
                    world.turn();
                    assert_eq!(world.unsent[&peer], 0, "{large} large ones, {wait}");
                }
            }
        }
    }

    #[test]
    fn large_documents_move_beside_any_number_of_small_ones_and_all_alike() {
        let mut world = busy_with(20);
        world.sent.clear();
        for _ in 0..800 {
            for peer in 0..2_000 {
                world.offer(PeerId(2 * peer + 1), 2 << 10);
            }
            world.turn();
        }
        let large: Vec<u64> = (0..20).map(|peer| world.sent[&PeerId(2 * peer)]).collect();
        let (least, most) = (large.iter().min().unwrap(), large.iter().max().unwrap());
        assert!(*least > 800 / TURNS * ROOM / 20 / 2, "{large:?}");
        // Who finds the channel nearly full has a shorter turn.
        assert!(most - least <= most / 5, "{large:?}");
    }

    #[test]
    fn those_with_little_take_turns() {
        let mut world = World::default();
        for _ in 0..100 {
            for peer in 0..3_000 {
                world.offer(PeerId(peer), PACKET);
            }
            world.turn();
        }
        let (least, most) =
            (world.sent.values().min().unwrap(), world.sent.values().max().unwrap());
        assert!(most - least <= 1 && world.sent.len() == 3_000, "{least} to {most}");
    }
}
