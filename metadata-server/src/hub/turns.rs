//! Whose turn it is to send, while the channel has room for some only.
//!
//! Sessions with little to send go before those with much, so that what a few packets carry never waits for megabytes
//! to others. Each kind goes round robin; and every eighth turn those with much go first, so that they move
//! however many of the others there are.

use std::collections::BTreeSet;

use super::core::PeerId;

/// A session with more bytes than this to send has much.
pub(super) const LITTLE_BYTES_MAX: u64 = 64 << 10;
/// One turn of so many begins with those that have much.
const TURNS: u64 = 8;

/// How much a session has to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Little,
    Much,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Turns {
    turn: u64,
    /// With whom each kind begins: who found the channel full.
    next: [PeerId; 2],
}

impl Default for Turns {
    fn default() -> Self {
        Self { turn: 0, next: [PeerId(0); 2] }
    }
}

impl Turns {
    /// The order of a turn. `unsent`: bytes that a session has to send.
    pub(super) fn order(
        &mut self,
        awake: BTreeSet<PeerId>,
        unsent: impl Fn(PeerId) -> u64,
    ) -> Vec<(PeerId, Kind)> {
        self.turn += 1;
        let (little, much): (Vec<_>, Vec<_>) = awake
            .into_iter()
            .map(|peer| match unsent(peer) {
                0..=LITTLE_BYTES_MAX => (peer, Kind::Little),
                _ => (peer, Kind::Much),
            })
            .partition(|(_, kind)| *kind == Kind::Little);
        let [little, much] = [little, much].map(|mut peers| {
            if let Some((_, kind)) = peers.first() {
                let next = self.next[*kind as usize];
                let begin = peers.partition_point(|(peer, _)| *peer < next);
                peers.rotate_left(begin);
            }
            peers
        });
        let (mut first, second) =
            if self.turn.is_multiple_of(TURNS) { (much, little) } else { (little, much) };
        first.extend(second);
        first
    }

    /// The channel was full when it came to this one.
    pub(super) fn stopped_at(&mut self, (peer, kind): (PeerId, Kind)) {
        self.next[kind as usize] = peer;
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
        fn turn(&mut self) {
            let awake: BTreeSet<PeerId> = self
                .unsent
                .iter()
                .filter(|(_, bytes)| **bytes > 0)
                .map(|(peer, _)| *peer)
                .collect();
            let unsent = &self.unsent;
            let order = self.turns.order(awake, |peer| unsent[&peer]);
            let mut room = ROOM;
            for (peer, kind) in order {
                if room == 0 {
                    return self.turns.stopped_at((peer, kind));
                }
                let bytes = self.unsent.get_mut(&peer).unwrap();
                let packets = bytes.div_ceil(PACKET).min(BURST).min(room);
                room -= packets;
                *bytes = bytes.saturating_sub(packets * PACKET);
                *self.sent.entry(peer).or_default() += packets;
            }
        }
    }

    fn busy_with(large: u64) -> World {
        let mut world = World::default();
        for peer in 0..large {
            world.unsent.insert(PeerId(2 * peer), 16 << 20);
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
                    world.unsent.insert(peer, 2 << 10);
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
                world.unsent.insert(PeerId(2 * peer + 1), 2 << 10);
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
                world.unsent.insert(PeerId(peer), PACKET);
            }
            world.turn();
        }
        let (least, most) =
            (world.sent.values().min().unwrap(), world.sent.values().max().unwrap());
        assert!(most - least <= 1 && world.sent.len() == 3_000, "{least} to {most}");
    }
}
