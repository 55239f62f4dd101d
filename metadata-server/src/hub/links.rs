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
    /// Pages of [`PAGE`] places, each made when the first of its places is taken, and kept.
    pages: Vec<Vec<Option<Link>>>,
    given: u32,
}

/// Places that are made at a time. What a thread takes from the system in pieces of a place's size costs a system call
/// for each.
const PAGE: usize = 32;

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
        let (page, place) = (index / PAGE, index % PAGE);
        if self.pages.len() <= page {
            self.pages.resize_with(page + 1, Vec::new);
        }
        let page = &mut self.pages[page];
        if page.is_empty() {
            page.resize_with(PAGE, || None);
        }
        page[place].insert(link(peer))
    }

    pub(super) fn get(&self, peer: PeerId) -> Option<&Link> {
        let index = index(peer);
        let link = self.pages.get(index / PAGE)?.get(index % PAGE)?.as_ref();
        link.filter(|link| link.peer == peer)
    }

    pub(super) fn get_mut(&mut self, peer: PeerId) -> Option<&mut Link> {
        self.place(index(peer))?.as_mut().filter(|link| link.peer == peer)
    }

    /// The one of an association, unless it was removed.
    pub(super) fn of(&mut self, association: AssociationId) -> Option<&mut Link> {
        let link = self.place(association.index())?.as_mut();
        link.filter(|link| link.association == association)
    }

    pub(super) fn remove(&mut self, peer: PeerId) -> Option<Link> {
        self.get(peer)?;
        self.place(index(peer))?.take()
    }

    fn place(&mut self, index: usize) -> Option<&mut Option<Link>> {
        self.pages.get_mut(index / PAGE)?.get_mut(index % PAGE)
    }
}

fn index(peer: PeerId) -> usize {
    peer.0 as u32 as usize
}
