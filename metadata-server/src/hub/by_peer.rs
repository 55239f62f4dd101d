//! Maps by [`PeerId`]. The hub gives these numbers itself, one after the other: nobody can choose them so that they
//! fall on each other, so a multiplication scatters them well enough, and costs less than a keyed hash.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use super::core::PeerId;

/// A map by association.
pub(super) type PeerMap<V> = HashMap<PeerId, V, BuildHasherDefault<PeerHasher>>;
/// A set of associations.
pub(super) type PeerSet = HashSet<PeerId, BuildHasherDefault<PeerHasher>>;

/// 2^64 divided by the golden ratio (Knuth, The Art of Computer Programming, volume 3, section 6.4).
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// See the module's text.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct PeerHasher(u64);

impl Hasher for PeerHasher {
    fn finish(&self) -> u64 {
        // A table looks at both ends of it, and only the upper one is scattered.
        self.0 ^ self.0 >> 32
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(GOLDEN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_the_hub_gives_them_are_scattered_over_both_ends_of_a_hash() {
        let hash = |id: u64| {
            let mut hasher = PeerHasher::default();
            hasher.write_u64(id);
            hasher.finish()
        };
        let ids: Vec<u64> = (0..4_096).map(|n| n << 32 | n).collect();
        for (what, part) in [("lower", 0), ("upper", 52)] {
            let mut met = vec![0; 4_096];
            ids.iter().for_each(|id| met[(hash(*id) >> part & 4_095) as usize] += 1);
            let used = met.iter().filter(|count| **count > 0).count();
            assert!(used > 2_000 && met.iter().all(|count| *count <= 12), "{what}: {used}");
        }
    }
}
