//! Repair symbols among what we send: when they begin, what they stand for, when more are due.

use std::collections::{BTreeMap, BTreeSet};

use super::{Delivery, Outbound, Transfer, Urgency};
use crate::packet::Packet;
use crate::recovery::SentFrame;
use crate::repair::{Block, Loss, Lossy, Sending};
use crate::wire::{self, Frame};

impl Transfer {
    /// Whether repair symbols take the place of what was lost.
    pub(super) fn is_repaired(&self) -> bool {
        self.repairs.as_ref().is_some_and(|repairs| {
            repairs.stands_in() || repairs.is_planned() && repairs.short_of(&self.lost) == 0
        })
    }

    /// Symbols that the peer lacks, of which there are more to send.
    pub(super) fn short_of(&self, repairs: &Sending) -> usize {
        if repairs.stands_in() { repairs.short_of(&self.lost) } else { 0 }
    }

    /// Whether nothing but repair symbols is to be sent. One more of them in a packet that has a part of the transfer
    /// would be lost with it.
    pub(super) fn only_repairs(&self) -> bool {
        self.offer != Delivery::Due && self.unsent() == 0
    }

    /// With the last flight the end begins that can be repaired: with what the peer is not known to have. Symbols
    /// are as long as fits this packet, which therefore has to be a rather empty one.
    pub(super) fn begin_repairs(&mut self, transfer: u64, packet: &Packet<'_>, lossy: &Lossy) {
        if self.repairs.is_some()
            || self.again
            || self.urgency == Urgency::Background
            || lossy.loss.is_none()
            || packet.is_half_full()
            || self.unsent() > lossy.window as u64
        {
            return;
        }
        let room = wire::repair_room(packet.room(), transfer, self.length());
        let Some(missing) = self.acked.gaps(0..self.length()).next() else { return };
        let block = Block::even(missing.start, self.length(), room);
        let block = block.filter(|block| block.count() <= usize::from(lossy.symbols_max));
        self.repairs = block.map(|block| Box::new(Sending::new(block)));
    }

    /// Once everything was sent: so many repair symbols that the transfer ends with this flight.
    pub(super) fn plan_repairs(&mut self, lossy: &Lossy) {
        if self.unsent() == 0
            && let (Some(repairs), Some(loss)) = (&mut self.repairs, lossy.loss)
        {
            let in_flight = repairs.in_flight(&self.acked, &self.lost);
            if repairs.plan() {
                // A single datagram: one more at once, others when that long was no answer.
                let slight = repairs.block().count() == 1 && !lossy.seen;
                let (loss, least) = if slight { (Loss::default(), 1) } else { (loss, 0) };
                repairs.top_up(&self.chosen.bytes, &self.acked, in_flight, least, loss);
            }
        }
    }

    /// The peer can compute the rest: as if all of it had arrived.
    pub(super) fn complete_repairs(&mut self) {
        if let Some(repairs) = &mut self.repairs
            && self.next == self.chosen.bytes.len() as u64
            && repairs.needed(&self.acked) == 0
        {
            repairs.give_up();
            let bytes = repairs.block().bytes();
            self.lost.remove(bytes.clone());
            self.acked.insert(bytes);
        }
    }
}

impl Outbound {
    /// One REPAIR frame, if one is due. False: the packet is full.
    pub(super) fn fill_repair(&mut self, transfer: u64, packet: &mut Packet<'_>) -> bool {
        let Some(open) = self.open.get_mut(&transfer) else { return false };
        let Some(repairs) = &mut open.repairs else { return true };
        let short = if repairs.stands_in() { repairs.short_of(&open.lost) } else { 0 };
        if repairs.due().is_none() && short > 0 {
            let in_flight = repairs.in_flight(&open.acked, &open.lost);
            let loss = self.lossy.loss.unwrap_or_default();
            repairs.top_up(&open.chosen.bytes, &open.acked, in_flight, short, loss);
        }
        let Some((nth, symbol)) = repairs.due() else { return true };
        let bytes = symbol.len();
        let frame =
            Frame::Repair { transfer, offset: repairs.block().offset(), nth: nth as u64, symbol };
        if !packet.push(&frame, SentFrame::Repair { transfer, nth }) {
            // Nothing else will make room for it: packets have become shorter.
            if !packet.is_half_full() {
                repairs.give_up();
            }
            return false;
        }
        repairs.sent();
        self.repair_bytes_sent += bytes as u64;
        true
    }

    /// Whether the loss of this is made good for by repair symbols.
    pub(crate) fn is_repaired(&self, frame: &SentFrame) -> bool {
        let (SentFrame::Data { transfer, .. } | SentFrame::Repair { transfer, .. }) = frame else {
            return false;
        };
        let repairs = self.open.get(transfer).and_then(|open| open.repairs.as_ref());
        repairs.is_some_and(|repairs| repairs.stands_in())
    }

    /// Whether all there is are documents that were sent with repair symbols, on a path on which losses are only
    /// feared. What is sent of them next waits for an answer that may be on its way.
    pub(crate) fn is_provided_for(&self) -> bool {
        let repaired = |open: &Transfer| open.repairs.as_ref().is_some_and(|r| r.is_planned());
        !self.lossy.seen && !self.open.is_empty() && self.open.values().all(repaired)
    }

    /// The same of documents of a single datagram, each sent twice.
    pub(crate) fn is_slight(&self) -> bool {
        let single =
            |open: &Transfer| open.repairs.as_ref().is_some_and(|r| r.block().count() == 1);
        self.is_provided_for() && self.open.values().all(single)
    }

    pub(crate) fn has_repairs(&self) -> bool {
        self.open.values().any(|open| open.repairs.is_some())
    }

    /// Some time has passed without an answer: more repair symbols, where too few are on their way, and one where
    /// parts of the transfer were not acknowledged for a while.
    pub(crate) fn repeat(&mut self, waited: &BTreeSet<u64>, on_their_way: &BTreeMap<u64, usize>) {
        let Some(loss) = self.lossy.loss else { return };
        for (transfer, open) in self.open.iter_mut() {
            if let Some(repairs) = &mut open.repairs {
                let on_their_way = on_their_way.get(transfer).copied().unwrap_or(0);
                if repairs.stands_in() {
                    let least = usize::from(waited.contains(transfer));
                    let form = &open.chosen.bytes;
                    repairs.top_up(form, &open.acked, on_their_way, least, loss);
                } else if repairs.is_planned() && repairs.needed(&open.acked) > on_their_way {
                    // All symbols that there are were of no avail: copies.
                    repairs.give_up();
                    let bytes = repairs.block().bytes();
                    open.acked.gaps(bytes).for_each(|gap| open.lost.insert(gap));
                }
            }
        }
    }

    pub(crate) fn repair_acked(&mut self, transfer: u64, nth: usize) {
        if let Some(open) = self.open.get_mut(&transfer)
            && let Some(repairs) = &mut open.repairs
        {
            repairs.acked(nth);
            open.complete_repairs();
        }
    }

    pub(crate) fn repair_lost(&mut self, transfer: u64, nth: usize) {
        if let Some(open) = self.open.get_mut(&transfer)
            && let Some(repairs) = &mut open.repairs
        {
            repairs.lost(nth);
        }
    }
}
