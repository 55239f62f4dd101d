//! Our documents on their way to the peer.
//!
//! A document waits until the peer's limits leave room, then becomes a transfer with a number of
//! its own. A transfer ends in one of three ways: the peer answers (STORED or REFUSED), or we
//! give it up and the peer acknowledges our CANCEL. Until then its number occupies one of the
//! places that the peer grants, so that the numbers open at the peer stay few.

mod repairs;

use bytes::Bytes;

use crate::form::Chosen;
use crate::limits::Limits;
use crate::packet::Packet;
use crate::range_set::RangeSet;
use crate::recovery::SentFrame;
use crate::repair::{Lossy, Sending};
use crate::sorted::Sorted;
use crate::wire::{self, ENCODING_RAW, Frame, Offer, VARINT_MAX};
use crate::{Form, Name, OfferError, refusal};

/// One DATA frame of this many goes to the transfer that waited longest, the others to the one
/// with the least left: a result overtakes a large document, and the large one still moves.
const TURNS: u64 = 8;

/// A rest of a packet too small for this many bytes of a longer piece stays empty.
const PIECE_BYTES_MIN: u64 = 32;

/// What the peer accepts, as far as it has said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PeerLimits {
    pub(crate) document_bytes_max: u64,
    pub(crate) inbound_bytes_max: u64,
    pub(crate) inbound_transfers_max: u64,
    /// Bit n: the peer reads encoding n.
    pub(crate) encodings: u64,
    /// Symbols that the peer puts together at most; 0: it reads no REPAIR.
    pub(crate) repair_symbols_max: u64,
    /// Whether the peer has said so, or this is the assumption made before.
    pub(crate) told: bool,
}

/// Our documents that the peer has not stored, refused or been spared.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    /// Not offered on the wire yet. At most one version per name, here and in `open` together.
    waiting: Sorted<Name, Waiting>,
    open: Sorted<u64, Transfer>,
    cancels: Sorted<u64, Cancel>,
    next_transfer: u64,
    /// Bytes in `waiting` and `open`.
    bytes: usize,
    /// What the path loses, and whether that is worth repair.
    lossy: Lossy,
    /// Counts DATA frames, for fairness.
    turn: u64,
    pub(crate) data_bytes_sent: u64,
    pub(crate) data_bytes_resent: u64,
    pub(crate) repair_bytes_sent: u64,
    pub(crate) cancelled: u64,
}

#[derive(Debug)]
struct Waiting {
    version: u64,
    form: Form,
    /// It came out wrong at the peer once: now it goes as it is, and without repair.
    again: bool,
    urgency: Urgency,
}

/// Whether a document may keep others waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Urgency {
    /// As any other.
    Usual,
    /// It goes when nothing else is to be sent, a little at a time.
    Background,
}

#[derive(Debug)]
struct Transfer {
    name: Name,
    version: u64,
    form: Form,
    /// What of it is sent.
    chosen: Chosen,
    /// Sent a second time.
    again: bool,
    urgency: Urgency,
    /// Its end is repaired, since the last flight of it began.
    repairs: Option<Box<Sending>>,
    offer: Delivery,
    /// Everything from here on was never sent.
    next: u64,
    /// What has to be sent again.
    lost: RangeSet,
    /// What the peer has, whatever becomes of other copies of it.
    acked: RangeSet,
    /// Turn of its last DATA frame.
    last_turn: u64,
}

/// A transfer given up.
#[derive(Debug)]
struct Cancel {
    name: Name,
    bytes: u64,
    due: bool,
}

/// Where something stands that is repeated until acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Delivery {
    Due,
    InFlight,
    Acknowledged,
}

/// What the peer's answer means for us.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answered {
    /// The document's way ends here.
    Over(Name, u64),
    /// It is sent once more, as it is: the peer could not read its other form.
    Again,
    /// We had given it up.
    Nothing,
}

impl Transfer {
    /// Bytes that DATA frames carry.
    fn length(&self) -> u64 {
        self.chosen.bytes.len() as u64
    }

    fn unsent(&self) -> u64 {
        let lost = if self.is_repaired() { 0 } else { self.lost.total() };
        self.length() - self.next + lost
    }

    fn has_something(&self) -> bool {
        let repair = |repairs: &Sending| repairs.due().is_some() || self.short_of(repairs) > 0;
        self.offer == Delivery::Due
            || self.unsent() > 0
            || self.repairs.as_deref().is_some_and(repair)
    }

    fn offer_frame(&self, transfer: u64) -> Offer<'_> {
        Offer {
            transfer,
            version: self.version,
            encoding: self.chosen.encoding,
            plain_length: self.form.body().len() as u64,
            encoded_length: self.length(),
            sha256: self.form.sha256().0,
            name: self.name.as_str(),
            base: self.chosen.base,
        }
    }
}

impl Outbound {
    /// Takes a document for sending; a newer version replaces an older one. False: it was there already.
    pub(crate) fn offer(
        &mut self,
        name: Name,
        version: u64,
        form: Form,
        urgency: Urgency,
        limits: &Limits,
    ) -> Result<bool, OfferError> {
        let body = form.body();
        if version > VARINT_MAX {
            return Err(OfferError::VersionTooLarge { name, version });
        }
        let mut replaced = 0;
        if let Some((newest, newest_body)) = self.find(&name) {
            if version < newest {
                return Err(OfferError::Stale { name, version, newest });
            }
            if version == newest {
                let same = body == newest_body;
                return if same { Ok(false) } else { Err(OfferError::Conflict { name, version }) };
            }
            replaced = newest_body.len();
        } else if self.waiting.len() + self.open.len() >= limits.outbound_documents_max {
            return Err(OfferError::TooMany { max: limits.outbound_documents_max });
        }
        let free = limits.outbound_bytes_max.saturating_sub(self.bytes - replaced);
        if body.len() > free {
            return Err(OfferError::NoBytesLeft { name, bytes: body.len(), free });
        }
        self.withdraw(&name);
        self.bytes += form.body().len();
        self.waiting.insert(name, Waiting { version, form, again: false, urgency });
        Ok(true)
    }

    /// Gives a document up, wherever it stands.
    pub(crate) fn withdraw(&mut self, name: &Name) {
        if let Some(waiting) = self.waiting.remove(name) {
            self.bytes -= waiting.form.body().len();
        }
        let Some((&transfer, _)) = self.open.iter().find(|(_, open)| open.name == *name) else {
            return;
        };
        if let Some(open) = self.close(transfer) {
            let bytes = open.length();
            self.cancels.insert(transfer, Cancel { name: open.name, bytes, due: true });
            self.cancelled += 1;
        }
    }

    fn find(&self, name: &Name) -> Option<(u64, &Bytes)> {
        let waiting = self.waiting.get(name).map(|waiting| (waiting.version, waiting.form.body()));
        waiting.or_else(|| {
            let open = self.open.values().find(|open| open.name == *name)?;
            Some((open.version, open.form.body()))
        })
    }

    fn close(&mut self, transfer: u64) -> Option<Transfer> {
        let open = self.open.remove(&transfer)?;
        self.bytes -= open.form.body().len();
        Some(open)
    }

    /// Opens transfers while the peer has room, smallest document first, background last. Documents that the peer
    /// will never take are returned with the reason.
    pub(crate) fn promote(&mut self, peer: &PeerLimits) -> Vec<(Name, u64, u16, String)> {
        let mut refused = Vec::new();
        while !self.waiting.is_empty()
            && ((self.open.len() + self.cancels.len()) as u64) < peer.inbound_transfers_max
        {
            let length = |form: &Form| form.chosen(peer.encodings).bytes.len();
            let first = self.waiting.iter();
            let first = first.min_by_key(|(_, waiting)| (waiting.urgency, length(&waiting.form)));
            let Some((name, waiting)) = first else { break };
            let bytes = waiting.form.body().len() as u64;
            if bytes > peer.document_bytes_max {
                if !peer.told {
                    break;
                }
                let reason = format!(
                    "{bytes} bytes, the peer accepts documents of at most {}",
                    peer.document_bytes_max
                );
                let (name, version) = (name.clone(), waiting.version);
                self.withdraw(&name);
                refused.push((name, version, refusal::TOO_LARGE, reason));
                continue;
            }
            let chosen = waiting.form.chosen(peer.encodings);
            if self.bytes_open_besides(name) + chosen.bytes.len() as u64 > peer.inbound_bytes_max {
                break;
            }
            let name = name.clone();
            if let Some(waiting) = self.waiting.remove(&name) {
                self.start(name, waiting, chosen);
            }
        }
        refused
    }

    /// What the peer may have reserved for transfers of other names. One of the same name is
    /// replaced there as soon as the new OFFER arrives.
    fn bytes_open_besides(&self, name: &Name) -> u64 {
        let open = self.open.values().map(Transfer::length);
        let cancels =
            self.cancels.values().filter(|cancel| cancel.name != *name).map(|cancel| cancel.bytes);
        open.chain(cancels).sum()
    }

    fn start(&mut self, name: Name, waiting: Waiting, chosen: Chosen) {
        let Waiting { version, form, again, urgency } = waiting;
        let transfer = Transfer {
            name,
            version,
            form,
            chosen,
            again,
            urgency,
            repairs: None,
            offer: Delivery::Due,
            next: 0,
            lost: RangeSet::default(),
            acked: RangeSet::default(),
            last_turn: self.turn,
        };
        self.open.insert(self.next_transfer, transfer);
        self.next_transfer += 1;
    }

    /// What is known of the path, for the next packets.
    pub(crate) fn set_lossy(&mut self, lossy: Lossy) {
        self.lossy = lossy;
    }

    /// Forgets every document, at the end of a session.
    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
        self.open.clear();
        self.cancels.clear();
        self.bytes = 0;
    }

    /// Whether there is something to send, of documents of this urgency or a higher one.
    pub(crate) fn has_something(&self, lowest: Urgency) -> bool {
        self.cancels.values().any(|cancel| cancel.due)
            || self.open.values().any(|open| open.urgency <= lowest && open.has_something())
    }

    /// Whether no document is on its way.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.open.is_empty()
    }

    /// Bytes of documents held.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes under way, as they are sent.
    pub(crate) fn wire_bytes(&self) -> u64 {
        self.open.values().map(Transfer::length).sum()
    }

    /// Bytes under way that are to be sent.
    pub(crate) fn unsent_bytes(&self) -> u64 {
        let due = |open: &Transfer| open.repairs.as_ref().map_or(0, |repairs| repairs.due_bytes());
        self.open.values().map(|open| open.unsent() + due(open) as u64).sum()
    }

    /// Of a document of this name, the bytes that the peer has acknowledged, and all of them, as they are
    /// sent.
    pub(crate) fn progress(&self, name: &Name) -> Option<(u64, u64)> {
        let open = self.open.values().find(|open| open.name == *name);
        let waiting = || Some((0, self.waiting.get(name)?.form.body().len() as u64));
        open.map(|open| (open.acked.total(), open.length())).or_else(waiting)
    }

    /// Puts as much as fits into a packet, of documents of this urgency or a higher one.
    pub(crate) fn fill(&mut self, packet: &mut Packet<'_>, lowest: Urgency) {
        for (&transfer, cancel) in self.cancels.iter_mut().filter(|(_, cancel)| cancel.due) {
            if !packet.push(&Frame::Cancel { transfer }, SentFrame::Cancel { transfer }) {
                return;
            }
            cancel.due = false;
        }
        while let Some(transfer) = self.pick(packet, lowest) {
            if !self.fill_from(transfer, packet) {
                return;
            }
        }
    }

    /// The transfer whose turn it is.
    fn pick(&self, packet: &Packet<'_>, lowest: Urgency) -> Option<u64> {
        let ready = self.open.iter().filter(|(transfer, open)| {
            open.urgency <= lowest
                && open.has_something()
                && !(open.only_repairs() && packet.has_part_of(**transfer))
        });
        let picked = if self.turn % TURNS == TURNS - 1 {
            ready.min_by_key(|(_, open)| (open.urgency, open.last_turn))
        } else {
            ready.min_by_key(|(_, open)| (open.urgency, open.unsent()))
        };
        picked.map(|(&transfer, _)| transfer)
    }

    /// One OFFER and DATA frame, as needed. False: the packet is full.
    fn fill_from(&mut self, transfer: u64, packet: &mut Packet<'_>) -> bool {
        let Some(open) = self.open.get_mut(&transfer) else { return false };
        // DATA is of no use to a peer that missed the OFFER: they travel together until it is
        // known to have arrived.
        if open.offer != Delivery::Acknowledged {
            let sent = SentFrame::Offer { transfer };
            if !packet.has(&sent) && !packet.push(&Frame::Offer(open.offer_frame(transfer)), sent) {
                return false;
            }
            open.offer = Delivery::InFlight;
        }
        open.begin_repairs(transfer, packet, &self.lossy);
        let again = open.lost.first().filter(|_| !open.is_repaired());
        let range = again.clone().unwrap_or_else(|| open.next..open.length());
        if range.is_empty() {
            return self.fill_repair(transfer, packet);
        }
        let room = wire::data_room(packet.room(), transfer, range.start) as u64;
        let boundary = open.repairs.as_ref().map(|repairs| repairs.block().boundary(range.start));
        let whole = boundary.unwrap_or(range.end).min(range.end);
        let end = whole.min(range.start + room);
        let piece = range.start..end;
        if end < whole && end - range.start < PIECE_BYTES_MIN {
            return false;
        }
        let bytes = &open.chosen.bytes[piece.start as usize..piece.end as usize];
        let sent = SentFrame::Data { transfer, start: piece.start, end };
        if !packet.push(&Frame::Data { transfer, offset: piece.start, bytes }, sent) {
            return false;
        }
        self.data_bytes_sent += bytes.len() as u64;
        if again.is_some() {
            self.data_bytes_resent += bytes.len() as u64;
            open.lost.remove(piece);
        } else {
            open.next = end;
        }
        open.last_turn = self.turn;
        self.turn += 1;
        open.plan_repairs(&self.lossy);
        end == range.end
    }

    pub(crate) fn offer_acked(&mut self, transfer: u64) {
        if let Some(open) = self.open.get_mut(&transfer) {
            open.offer = Delivery::Acknowledged;
        }
    }

    pub(crate) fn offer_lost(&mut self, transfer: u64) {
        if let Some(open) = self.open.get_mut(&transfer)
            && open.offer == Delivery::InFlight
        {
            open.offer = Delivery::Due;
        }
    }

    /// An earlier copy may have been called lost, or sent for a probe: it need not go again.
    pub(crate) fn data_acked(&mut self, transfer: u64, start: u64, end: u64) {
        if let Some(open) = self.open.get_mut(&transfer) {
            open.lost.remove(start..end);
            open.acked.insert(start..end);
            open.complete_repairs();
        }
    }

    /// What another copy has brought need not go again.
    pub(crate) fn data_lost(&mut self, transfer: u64, start: u64, end: u64) {
        if let Some(open) = self.open.get_mut(&transfer) {
            for gap in open.acked.gaps(start..end) {
                open.lost.insert(gap);
            }
        }
    }

    pub(crate) fn cancel_acked(&mut self, transfer: u64) {
        self.cancels.remove(&transfer);
    }

    pub(crate) fn cancel_lost(&mut self, transfer: u64) {
        if let Some(cancel) = self.cancels.get_mut(&transfer) {
            cancel.due = true;
        }
    }

    /// Whether a transfer of this number was ever opened.
    pub(crate) fn was_opened(&self, transfer: u64) -> bool {
        transfer < self.next_transfer
    }

    /// The peer has answered a transfer: it is over. `refusal`: the code, if it did not store it.
    pub(crate) fn answered(&mut self, transfer: u64, refusal: Option<u16>) -> Answered {
        self.cancels.remove(&transfer);
        let Some(open) = self.close(transfer) else { return Answered::Nothing };
        let unread = matches!(refusal, Some(refusal::ENCODING | refusal::BASE | refusal::DIGEST));
        if unread && !open.again && (open.chosen.encoding != ENCODING_RAW || open.repairs.is_some())
        {
            // Once: what goes now has no other form.
            self.bytes += open.form.body().len();
            let Transfer { version, urgency, .. } = open;
            let waiting = Waiting { version, form: open.form.stripped(), again: true, urgency };
            self.waiting.insert(open.name, waiting);
            return Answered::Again;
        }
        Answered::Over(open.name, open.version)
    }
}

#[cfg(test)]
mod tests;
