//! The connection ids that an endpoint makes, and where they stand in a datagram.
//!
//! An id is the shard, the slot and random bytes. The slot is looked up without a table, and the
//! random bytes tell its association from those that had the slot before.

use super::{Endpoint, Slot, SlotState};
use crate::config::Config;
use crate::conn::{MADE_ID_BYTES, own_id};
use crate::crypto::random;
use crate::event::canonical;
use crate::record::{ConnectionId, HEADER_LEN, ID_AT};
use crate::wire::ContentType;

/// Slots beyond this have no id.
const SLOTS_MAX: u32 = 1 << 24;
/// Records without an id that may stand before the first that has one, as those of a handshake's
/// flight do.
const RECORDS_BEFORE_MAX: usize = 64;

/// A fresh id for what will be in `slot`; an empty one if there can be none.
pub(super) fn make(shard: u8, slot: u32) -> ConnectionId {
    let [0, s0, s1, s2] = slot.to_be_bytes() else { return ConnectionId::EMPTY };
    let Ok([r0, r1, r2, r3]) = random() else { return ConnectionId::EMPTY };
    debug_assert!(slot < SLOTS_MAX);
    ConnectionId::from([shard, s0, s1, s2, r0, r1, r2, r3])
}

/// The slot that an id of ours at the front of `bytes` names, with the id.
pub(super) fn slot(shard: u8, bytes: &[u8]) -> Option<(u32, &[u8; MADE_ID_BYTES])> {
    let id = bytes.first_chunk::<MADE_ID_BYTES>()?;
    let &[of, s0, s1, s2, ..] = id;
    (of == shard).then_some((u32::from_be_bytes([0, s0, s1, s2]), id))
}

/// What follows where the id of a datagram's first protected record stands; `None` if that record
/// has none. How long the id is only its owner knows.
pub(super) fn find(datagram: &[u8]) -> Option<&[u8]> {
    let mut rest = datagram;
    for _ in 0..RECORDS_BEFORE_MAX {
        let &[kind, _, _, e0, e1, ..] = rest.first_chunk::<HEADER_LEN>()?;
        if ContentType(kind) == ContentType::TLS12_CID {
            return rest.get(ID_AT..);
        }
        if [e0, e1] != [0, 0] {
            return None;
        }
        let length = rest.get(ID_AT..)?.first_chunk().copied().map(u16::from_be_bytes)?;
        rest = rest.get(HEADER_LEN + usize::from(length)..)?;
    }
    None
}

impl Endpoint {
    /// What an association in this slot says of connection ids.
    pub(super) fn own_id(
        &self,
        config: &Config,
        is_server: bool,
        index: u32,
    ) -> Option<ConnectionId> {
        own_id(config, is_server, || make(self.config.shard, index))
    }

    /// The association whose connection id is in a datagram.
    pub(super) fn find_by_id(&self, datagram: &[u8]) -> Option<u32> {
        let bytes = find(datagram)?;
        let has_id = |index: u32, id: &[u8]| match self.slots.get(index) {
            Some(Slot { state: SlotState::Association(conn), .. }) => {
                conn.own_connection_id().as_bytes() == id
            }
            _ => false,
        };
        if let Some((index, id)) = slot(self.config.shard, bytes)
            && has_id(index, id)
        {
            return Some(index);
        }
        let mut given = self.by_given_id.iter().rev();
        given.find(|(id, _)| bytes.starts_with(id.as_bytes())).map(|(_, index)| *index)
    }

    /// Remembers an id that was not made here, which takes a table to find.
    pub(super) fn register_given_id(&mut self, index: u32) {
        let Some(Slot { state: SlotState::Association(conn), .. }) = self.slots.get(index) else {
            return;
        };
        let id = conn.own_connection_id();
        let made = slot(self.config.shard, id.as_bytes());
        if !id.is_empty() && made.is_none_or(|(made, _)| made != index) {
            self.by_given_id.push((id.clone(), index));
        }
    }

    pub(super) fn has_id(&self, index: u32) -> bool {
        match self.slots.get(index) {
            Some(Slot { state: SlotState::Association(conn), .. }) => {
                !conn.own_connection_id().is_empty()
            }
            _ => false,
        }
    }

    /// An association whose peer has moved is found by its connection id, which is how we know that
    /// the peer has moved. The address it had is free for others.
    pub(super) fn follow(&mut self, index: u32) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        let SlotState::Association(conn) = &slot.state else { return };
        let remote = conn.path().remote;
        if canonical(remote) != canonical(slot.remote) {
            let old = std::mem::replace(&mut slot.remote, remote);
            self.forget_address(old, index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_names_its_shard_and_its_slot_and_no_two_are_alike() {
        let (one, other) = (make(7, 0x01_0203), make(7, 0x01_0203));
        assert_ne!(one, other);
        assert_eq!(one.as_bytes()[..4], [7, 1, 2, 3]);
        let longer = [one.as_bytes(), b"more"].concat();
        let (found, id) = slot(7, &longer).unwrap();
        assert_eq!((found, &id[..]), (0x01_0203, one.as_bytes()));
        assert!(slot(8, &longer).is_none() && slot(7, &longer[..7]).is_none());
        assert!(make(7, SLOTS_MAX).is_empty());
    }

    #[test]
    fn the_id_is_found_behind_the_clear_records_of_a_flight() {
        let clear = [22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 9, 9];
        let named = [25, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 0, b'i', b'd'];
        let sealed = [23, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(find(&named), Some(&b"id"[..]));
        assert_eq!(find(&[&clear[..], &clear, &named].concat()), Some(&b"id"[..]));
        assert_eq!(find(&[&sealed[..], &named].concat()), None);
        assert_eq!(find(&clear), None);
        let many = [&clear.repeat(RECORDS_BEFORE_MAX)[..], &named].concat();
        assert_eq!(find(&many), None);
        for cut in 0..28 {
            assert_eq!(find(&[&clear[..], &named].concat()[..cut]), None, "cut at {cut}");
        }
    }
}
