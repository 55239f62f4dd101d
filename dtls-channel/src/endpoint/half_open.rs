use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::event::AssociationId;

/// Where a handshake comes from: an IPv4 address, or the /64 that an IPv6 address lies in. That is
/// what one host has without asking anybody (RFC 7421), and all addresses in it are free to it;
/// whoever has more of either counts as many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Source(IpAddr);

impl From<SocketAddr> for Source {
    fn from(address: SocketAddr) -> Self {
        Self(match address.ip().to_canonical() {
            IpAddr::V4(ip) => ip.into(),
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        })
    }
}

/// The incoming associations that are in their handshake, each with a cookie verified.
///
/// When there are too many, the source that has the most loses its oldest: a flood from one host
/// evicts itself. Without a flood all that come together may come from one source, such as a NAT.
#[derive(Debug, Default)]
pub(super) struct HalfOpen {
    sources: HashMap<Source, BTreeMap<u64, AssociationId>>,
    /// Sources by how many they have, then by the age of their oldest.
    ranking: BTreeSet<(usize, Reverse<u64>, Source)>,
    count: usize,
    begun: u64,
}

/// A place in [`HalfOpen`], to be given back.
#[derive(Debug)]
pub(super) struct Place {
    source: Source,
    order: u64,
}

impl HalfOpen {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn enter(&mut self, from: SocketAddr, id: AssociationId) -> Place {
        let (source, order) = (from.into(), self.begun);
        self.begun += 1;
        self.change(source, |entries| entries.insert(order, id));
        self.count += 1;
        Place { source, order }
    }

    pub(super) fn leave(&mut self, place: &Place) {
        if self.change(place.source, |entries| entries.remove(&place.order)).is_some() {
            self.count -= 1;
        }
    }

    /// Which one has to go to admit one more from this address.
    pub(super) fn victim(&self, newcomer: SocketAddr) -> Option<AssociationId> {
        let (most, _, largest) = self.ranking.last()?;
        let own = self.sources.get_key_value(&newcomer.into());
        let source = match own {
            // With the newcomer its source would have the most.
            Some((source, entries)) if entries.len() >= *most => source,
            _ => largest,
        };
        self.sources.get(source)?.first_key_value().map(|(_, id)| *id)
    }

    /// # Panics
    /// If the tables contradict each other.
    #[cfg(feature = "testing")]
    pub(super) fn check(&self) {
        let ranks: BTreeSet<_> = self.sources.iter().filter_map(|(s, all)| rank(*s, all)).collect();
        assert_eq!(ranks.len(), self.sources.len(), "a source without any");
        assert_eq!(ranks, self.ranking);
        assert_eq!(self.sources.values().map(BTreeMap::len).sum::<usize>(), self.count);
    }

    /// True if `id` holds this place.
    #[cfg(feature = "testing")]
    pub(super) fn holds(&self, place: &Place, id: AssociationId) -> bool {
        self.sources.get(&place.source).and_then(|all| all.get(&place.order)) == Some(&id)
    }

    fn change<T>(
        &mut self,
        source: Source,
        change: impl FnOnce(&mut BTreeMap<u64, AssociationId>) -> T,
    ) -> T {
        let entries = self.sources.entry(source).or_default();
        if let Some(rank) = rank(source, entries) {
            self.ranking.remove(&rank);
        }
        let changed = change(entries);
        match rank(source, entries) {
            Some(rank) => drop(self.ranking.insert(rank)),
            None => drop(self.sources.remove(&source)),
        }
        changed
    }
}

fn rank(
    source: Source,
    entries: &BTreeMap<u64, AssociationId>,
) -> Option<(usize, Reverse<u64>, Source)> {
    entries.first_key_value().map(|(oldest, _)| (entries.len(), Reverse(*oldest), source))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(index: u32) -> AssociationId {
        AssociationId { index, generation: 1 }
    }

    fn from(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_source_with_the_most_loses_its_oldest() {
        let mut half_open = HalfOpen::default();
        assert_eq!(half_open.victim(from("192.0.2.1:1")), None);
        half_open.enter(from("192.0.2.1:1"), id(1));
        half_open.enter(from("192.0.2.2:1"), id(2));
        assert_eq!(half_open.victim(from("192.0.2.3:1")), Some(id(1)), "all have one: the oldest");
        assert_eq!(half_open.victim(from("192.0.2.2:1")), Some(id(2)), "it would have two");
        let second = half_open.enter(from("192.0.2.2:2"), id(3));
        assert_eq!(half_open.victim(from("192.0.2.3:1")), Some(id(2)));
        assert_eq!(half_open.victim(from("192.0.2.1:2")), Some(id(2)));
        half_open.leave(&second);
        assert_eq!(half_open.victim(from("192.0.2.3:1")), Some(id(1)));
        half_open.leave(&second);
        assert_eq!(half_open.len(), 2, "nobody leaves twice");
    }

    #[test]
    fn a_source_is_an_ipv4_address_however_written_or_a_64_bit_prefix() {
        let source = |text| Source::from(from(text));
        assert_eq!(source("192.0.2.1:1"), source("[::ffff:192.0.2.1]:2"));
        assert_ne!(source("192.0.2.1:1"), source("192.0.2.2:1"));
        assert_eq!(source("[2001:db8::1]:1"), source("[2001:db8::ffff:0:0:1]:2"));
        assert_ne!(source("[2001:db8::1]:1"), source("[2001:db8:0:1::1]:1"));
    }

    #[test]
    fn nothing_is_kept_of_sources_that_have_none() {
        let mut half_open = HalfOpen::default();
        let places: Vec<Place> = (0..100u32)
            .map(|n| half_open.enter(SocketAddr::from(([10, 0, 0, (n / 3) as u8], 9)), id(n)))
            .collect();
        assert_eq!(
            (half_open.len(), half_open.sources.len(), half_open.ranking.len()),
            (100, 34, 34)
        );
        places.iter().for_each(|place| half_open.leave(place));
        assert_eq!((half_open.len(), half_open.sources.len(), half_open.ranking.len()), (0, 0, 0));
    }
}
