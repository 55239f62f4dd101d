//! The associations as the shell knows them: a session each, found without a search.

use std::net::IpAddr;
use std::time::Instant;

use dtls_channel::AssociationId;
use metadata_delivery::Session;

use super::core::PeerId;

/// Whose path it is, and where it led.
pub(super) type PathKey = ([u8; 32], IpAddr);

/// One association.
pub(super) struct Link {
    pub(super) peer: PeerId,
    pub(super) association: AssociationId,
    pub(super) path: PathKey,
    pub(super) session: Session,
    /// The entry in the shell's timers: when its time comes at the earliest.
    pub(super) armed: Option<Instant>,
    /// It is among those that may have something to say.
    pub(super) stirred: bool,
    /// It waits for its turn to send.
    pub(super) queued: bool,
    /// It is an agent's, as its certificate says.
    pub(super) known: bool,
    pub(super) closing: bool,
}

/// By the number that the engine gives an association, which is small and not another's at the same time. A peer's
/// name holds it, beside a count that makes it one that was never given before.
#[derive(Default)]
pub(super) struct Links {
    slots: Vec<Option<Box<Link>>>,
    given: u32,
}

impl Links {
    /// Takes in an association that has just come to be; `link` makes it of its name.
    pub(super) fn add(
        &mut self,
        association: AssociationId,
        link: impl FnOnce(PeerId) -> Link,
    ) -> &mut Link {
        let index = association.index();
        self.given = self.given.wrapping_add(1);
        let peer = PeerId(u64::from(self.given) << 32 | index as u64);
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, || None);
        }
        self.slots[index].insert(Box::new(link(peer)))
    }

    pub(super) fn get(&self, peer: PeerId) -> Option<&Link> {
        self.slots.get(index(peer))?.as_deref().filter(|link| link.peer == peer)
    }

    pub(super) fn get_mut(&mut self, peer: PeerId) -> Option<&mut Link> {
        self.slots.get_mut(index(peer))?.as_deref_mut().filter(|link| link.peer == peer)
    }

    /// The one of an association, unless it was removed.
    pub(super) fn of(&mut self, association: AssociationId) -> Option<&mut Link> {
        let link = self.slots.get_mut(association.index())?.as_deref_mut();
        link.filter(|link| link.association == association)
    }

    pub(super) fn remove(&mut self, peer: PeerId) -> Option<Box<Link>> {
        self.get(peer)?;
        self.slots.get_mut(index(peer))?.take()
    }
}

fn index(peer: PeerId) -> usize {
    peer.0 as u32 as usize
}
