//! What must hold of the tables between any two calls; for fuzz bodies.

use super::{Endpoint, SlotState};
use crate::conn::EARLY_BYTES_MAX;
use crate::event::{AssociationId, Phase, canonical};
use crate::handshake::ASSOCIATION_REASSEMBLY_BYTES_MAX;

impl Endpoint {
    /// # Panics
    /// If the tables contradict each other or a limit.
    pub(crate) fn check_tables(&self) {
        // Beyond the cap there are only those that take another's place at its address.
        assert!(self.by_address.len() <= self.config.associations_max);
        assert!(self.half_open.len() <= self.config.half_open_max);
        self.half_open.check();
        let (mut half_open, mut deadlines, mut by_id_only) = (0, 0, 0);
        for (index, slot) in self.slots.iter() {
            let peers = self.by_address.get(&canonical(slot.remote));
            let peers = peers.copied().unwrap_or_default();
            let phase = match &slot.state {
                SlotState::Association(conn) => {
                    assert_eq!(canonical(conn.path().remote), canonical(slot.remote));
                    assert_eq!(conn.next_timeout().map(|(at, _)| at), slot.deadline);
                    let [incoming, early] = conn.held_bytes();
                    assert!(incoming <= ASSOCIATION_REASSEMBLY_BYTES_MAX);
                    assert!(early <= EARLY_BYTES_MAX);
                    conn.phase()
                }
                SlotState::Gathering(gathering) => {
                    assert!(slot.half_open().is_some() && slot.deadline.is_some());
                    gathering.phase()
                }
            };
            // Its address leads to each association, to one that is open as such; unless its
            // connection id does, as its peer has moved or its address has passed to another.
            match phase {
                Phase::Handshaking => assert_eq!(peers.pending, Some(index)),
                Phase::Open if peers.open == Some(index) => assert!(slot.half_open().is_none()),
                Phase::Open => {
                    assert!(self.has_id(index) && slot.half_open().is_none());
                    by_id_only += 1;
                }
                Phase::Closed => panic!("an association that has ended is still there"),
            }
            if let Some(place) = slot.half_open() {
                half_open += 1;
                let id = AssociationId { index, generation: slot.generation };
                assert!(self.half_open.holds(place, id));
            }
            if let Some(at) = slot.deadline {
                deadlines += 1;
                assert!(self.deadlines.contains(&(at, index)));
            }
        }
        assert_eq!(half_open, self.half_open.len(), "a half-open association of nobody");
        assert_eq!(deadlines, self.deadlines.len(), "a deadline of nobody");
        // And nothing but associations is in the tables.
        let entries = self.by_address.values();
        let known: usize = entries.map(|p| [p.open, p.pending].iter().flatten().count()).sum();
        assert_eq!(known + by_id_only, self.slots.len(), "an address of nobody");
        assert!(self.by_address.values().all(|p| p.open.is_some() || p.pending.is_some()));
        if let Some((remote, index)) = self.recent {
            let peers = self.by_address.get(&canonical(remote)).map(|p| (p.open, p.pending));
            assert_eq!(peers, Some((Some(index), None)), "what was found before is no more so");
        }
    }

    /// True if anything is remembered of an address.
    pub(crate) fn remembers(&self, address: std::net::SocketAddr) -> bool {
        self.by_address.contains_key(&canonical(address))
            || self.slots.iter().any(|(_, slot)| canonical(slot.remote) == canonical(address))
    }
}
