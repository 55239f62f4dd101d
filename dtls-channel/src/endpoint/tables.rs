//! What is found by address, by time and by slot, kept in line with what becomes of associations.

use std::net::SocketAddr;
use std::time::Instant;

use super::{Endpoint, Pending, Slot, SlotState};
use crate::error::CloseReason;
use crate::event::{AssociationId, Path, Phase, canonical};

impl Endpoint {
    /// The id that [`insert_pending`](Self::insert_pending) will use.
    pub(super) fn next_id(&mut self) -> AssociationId {
        self.generation = self.generation.wrapping_add(1);
        AssociationId { index: self.slots.next_index(), generation: self.generation }
    }

    pub(super) fn insert_pending(
        &mut self,
        begun_at: Instant,
        path: Path,
        id: AssociationId,
        state: SlotState,
        incoming: bool,
    ) {
        let place = incoming.then(|| self.half_open.enter(path.remote, id));
        let generation = id.generation;
        self.recent = None;
        let peers = self.by_address.entry(canonical(path.remote)).or_default();
        let before = peers.pending.replace(id.index);
        let superseded = before.is_some();
        let pending = Some(Box::new(Pending { place, begun_at, superseded }));
        let remote = path.remote;
        let slot = Slot { generation, remote, deadline: None, pending, state };
        let index = self.slots.insert(slot);
        debug_assert_eq!(index, id.index);
        self.register_given_id(index);
        if let Some(before) = before {
            self.discard(before, CloseReason::Superseded);
        }
    }

    pub(super) fn discard(&mut self, index: u32, reason: CloseReason) {
        if let Some(slot) = self.slots.get_mut(index) {
            if let SlotState::Association(conn) = &mut slot.state {
                conn.abandon(reason, &mut self.sink);
            }
            self.remove(index);
        }
    }

    /// Brings the tables in line with what became of a slot.
    pub(super) fn settle(&mut self, index: u32) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        let (phase, next) = match &slot.state {
            SlotState::Association(conn) => (conn.phase(), conn.next_timeout().map(|(at, _)| at)),
            SlotState::Gathering(gathering) => (gathering.phase(), Some(gathering.deadline())),
        };
        match phase {
            Phase::Closed => self.remove(index),
            Phase::Handshaking | Phase::Open => {
                if slot.deadline != next {
                    let old = std::mem::replace(&mut slot.deadline, next);
                    old.map(|at| self.deadlines.remove(&(at, index)));
                    next.map(|at| self.deadlines.insert((at, index)));
                }
                if phase == Phase::Open {
                    self.promote(index);
                    self.follow(index);
                }
            }
        }
    }

    pub(super) fn forget_address(&mut self, remote: SocketAddr, index: u32) {
        let address = canonical(remote);
        self.recent = None;
        if let Some(peers) = self.by_address.get_mut(&address) {
            peers.open.take_if(|i| *i == index);
            peers.pending.take_if(|i| *i == index);
            if peers.open.is_none() && peers.pending.is_none() {
                self.by_address.remove(&address);
            }
        }
    }

    /// A pending association has opened: it takes the place of the one before it.
    fn promote(&mut self, index: u32) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        let Some(pending) = slot.pending.take() else { return };
        if let Some(place) = &pending.place {
            self.half_open.leave(place);
        }
        let address = canonical(slot.remote);
        let Some(peers) = self.by_address.get_mut(&address) else { return };
        if peers.pending == Some(index) {
            peers.pending = None;
            let before = peers.open.replace(index);
            // An address may pass on to another peer, and who has an id is found without it.
            if let Some(before) = before
                && (!self.has_id(before) || self.slots.len() > self.config.associations_max)
            {
                self.discard(before, CloseReason::Superseded);
            }
        }
    }

    pub(super) fn remove(&mut self, index: u32) {
        let Some(slot) = self.slots.remove(index) else { return };
        if let Some(at) = slot.deadline {
            self.deadlines.remove(&(at, index));
        }
        if let Some(place) = slot.half_open() {
            self.half_open.leave(place);
        }
        self.forget_address(slot.remote, index);
        self.by_given_id.retain(|(_, given)| *given != index);
    }
}
