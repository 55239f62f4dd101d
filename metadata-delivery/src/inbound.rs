//! The peer's documents on their way to us.
//!
//! A transfer begins with its OFFER and is settled by our answer (STORED or REFUSED), by the
//! peer's CANCEL, or by the OFFER of a newer version of the same name. Frames about a settled
//! transfer are ignored, however late they come. Per name, the newest version handed to the
//! application is remembered, so that it comes once and nothing older comes after it.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::assembly::{Assembly, NoRoom};
use crate::error::tidy_reason;
use crate::form;
use crate::limits::{ANSWERS_MAX, Limits, NAMES_REMEMBERED_MAX, TRANSFERS_CEILING};
use crate::message::Hex32;
use crate::packet::Packet;
use crate::range_set::RangeSet;
use crate::recovery::SentFrame;
use crate::repair::{Block, Received, Recovered};
use crate::sorted::Sorted;
use crate::wire::{ENCODING_RAW, ENCODING_ZSTD, Frame, Offer};
use crate::{Base, Document, Name, PacketError, refusal};

/// What the peer sends us.
#[derive(Debug, Default)]
pub(crate) struct Inbound {
    open: Sorted<u64, Open>,
    /// Numbers of transfers that are over. Gaps are few: see [`PacketError::TransferGaps`].
    settled: RangeSet,
    answers: Sorted<u64, Answer>,
    names: Sorted<Name, NameState>,
    /// What the application holds, for deltas to build on. Few sessions have any.
    #[expect(clippy::box_collection, reason = "a server has many sessions, none of which has any")]
    bases: Option<Box<BTreeMap<Name, Base>>>,
    /// Orders names by when they were settled.
    clock: u64,
    /// Times that the rest of a document was computed.
    pub(crate) repaired: u64,
}

/// A transfer that is not settled.
#[derive(Debug)]
enum Open {
    /// Its bytes are coming in.
    Receiving(Box<Receiving>),
    /// Handed to the application, whose verdict is awaited.
    Delivered,
}

#[derive(Debug)]
struct Receiving {
    name: Name,
    version: u64,
    /// Bytes that DATA frames carry.
    length: u64,
    plain_length: usize,
    sha256: [u8; 32],
    coding: Coding,
    assembly: Assembly,
    repairs: Option<Box<Received>>,
}

/// How the bytes of a transfer become the document.
#[derive(Debug)]
enum Coding {
    Raw,
    Zstd,
    /// The base is kept until then, whatever the application comes to hold meanwhile.
    Delta(Base),
}

/// What the peer has to be told about a settled transfer, until it acknowledges that.
#[derive(Debug)]
struct Answer {
    /// `None`: stored.
    refusal: Option<(u16, String)>,
    due: bool,
    quiet_in: Option<Quiet>,
}

/// The packet of an answer that asked for no acknowledgement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quiet {
    /// Its number.
    pub(crate) number: u64,
    /// The largest number of the peer's that it acknowledged.
    pub(crate) reported: u64,
}

/// At least one of the two is there.
#[derive(Debug, Default)]
struct NameState {
    /// Newest version handed to the application.
    delivered: Option<Delivered>,
    /// The transfer of a newer version.
    receiving: Option<u64>,
}

#[derive(Debug)]
struct Delivered {
    version: u64,
    verdict: Verdict,
    /// When that was, by [`Inbound::clock`].
    settled_at: u64,
}

/// What the application thinks of a document.
#[derive(Debug)]
enum Verdict {
    /// Nothing yet. The transfer to answer, unless the peer has given it up.
    Awaited(Option<u64>),
    Stored,
    Refused(u16, String),
}

/// What became of a frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Done, nothing to report.
    Quietly,
    /// A document is complete.
    Document(Document),
    /// There is no room: the packet must not be acknowledged, so that it is sent again.
    NoRoom,
}

impl Inbound {
    /// Bytes held of unfinished documents.
    pub(crate) fn held_bytes(&self) -> usize {
        self.receiving().map(Receiving::held_bytes).sum()
    }

    fn receiving(&self) -> impl Iterator<Item = &Receiving> {
        self.open.values().filter_map(|open| match open {
            Open::Receiving(receiving) => Some(&**receiving),
            Open::Delivered => None,
        })
    }

    pub(crate) fn hold(&mut self, name: Name, base: Base) {
        self.bases.get_or_insert_default().insert(name, base);
    }

    fn base(&self, name: &Name, sha256: [u8; 32]) -> Option<Base> {
        let base = self.bases.as_ref()?.get(name)?;
        (base.sha256().0 == sha256).then(|| base.clone())
    }

    /// Takes in an OFFER.
    pub(crate) fn on_offer(
        &mut self,
        offer: &Offer<'_>,
        limits: &Limits,
    ) -> Result<Taken, PacketError> {
        let transfer = offer.transfer;
        if self.settled.contains(transfer) {
            return Ok(Taken::Quietly);
        }
        match self.open.get(&transfer) {
            Some(Open::Receiving(known)) if !known.matches(offer) => {
                return Err(PacketError::OfferChanged { transfer });
            }
            Some(_) => return Ok(Taken::Quietly),
            None => {}
        }
        // Every open transfer may need an answer, and there has to be a place for it.
        if self.answers.len() + self.open.len() >= ANSWERS_MAX {
            return Ok(Taken::NoRoom);
        }
        let Ok(name) = Name::new(offer.name) else {
            return Err(PacketError::Malformed { frame: "OFFER", what: "name is not allowed" });
        };
        if let Some((code, reason)) = objection(offer, limits) {
            self.answer(transfer, Some((code, reason)))?;
            return Ok(Taken::Quietly);
        }
        if self.names.get(&name).is_some() && self.compare(&name, offer)? == Newer::No {
            return Ok(Taken::Quietly);
        }
        let coding = match offer.base {
            None if offer.encoding == ENCODING_RAW => Coding::Raw,
            None => Coding::Zstd,
            Some(sha256) => match self.base(&name, sha256) {
                Some(base) => Coding::Delta(base),
                None => {
                    let reason = "the base of this delta is not held here".to_owned();
                    self.answer(transfer, Some((refusal::BASE, reason)))?;
                    return Ok(Taken::Quietly);
                }
            },
        };
        let announced: u64 = self.receiving().map(|receiving| receiving.length).sum();
        if self.open.len() >= limits.inbound_transfers_max
            || announced + offer.encoded_length > limits.inbound_bytes_max as u64
        {
            let reason = format!(
                "at most {} transfers and {} bytes at once",
                limits.inbound_transfers_max, limits.inbound_bytes_max
            );
            self.answer(transfer, Some((refusal::TOO_MANY, reason)))?;
            return Ok(Taken::Quietly);
        }
        let receiving = Receiving {
            name: name.clone(),
            version: offer.version,
            length: offer.encoded_length,
            // Within a limit that is a usize.
            plain_length: usize::try_from(offer.plain_length).unwrap_or(usize::MAX),
            sha256: offer.sha256,
            coding,
            assembly: Assembly::new(offer.encoded_length),
            repairs: None,
        };
        self.open.insert(transfer, Open::Receiving(Box::new(receiving)));
        self.names.or_default(name).receiving = Some(transfer);
        self.complete_if_possible(transfer)
    }

    /// Whether an OFFER of a known name is newer than what we have of it. If so, the older
    /// transfer is settled; if not, the offered one is answered.
    fn compare(&mut self, name: &Name, offer: &Offer<'_>) -> Result<Newer, PacketError> {
        let transfer = offer.transfer;
        let Some(state) = self.names.get_mut(name) else { return Ok(Newer::Yes) };
        let receiving = state.receiving.and_then(|open| match self.open.get(&open) {
            Some(Open::Receiving(receiving)) => Some((open, receiving.version)),
            _ => None,
        });
        let delivered = state.delivered.as_mut();
        let newest_delivered = delivered.as_ref().map(|delivered| delivered.version);
        let newest = newest_delivered.max(receiving.map(|(_, version)| version));
        if let Some(newest) = newest
            && offer.version < newest
        {
            let reason = format!("version {newest} came before");
            self.answer(transfer, Some((refusal::SUPERSEDED, reason)))?;
            return Ok(Newer::No);
        }
        if let Some(delivered) = delivered {
            let same = delivered.version == offer.version;
            match &mut delivered.verdict {
                Verdict::Stored if same => {
                    self.answer(transfer, None)?;
                    return Ok(Newer::No);
                }
                Verdict::Refused(code, reason) if same => {
                    let refusal = (*code, reason.clone());
                    self.answer(transfer, Some(refusal))?;
                    return Ok(Newer::No);
                }
                Verdict::Awaited(open) if same => {
                    // The peer began anew while the application still thinks: answer the new one.
                    let before = open.replace(transfer);
                    self.open.insert(transfer, Open::Delivered);
                    self.settle_all(before)?;
                    return Ok(Newer::No);
                }
                Verdict::Awaited(open) => {
                    let before = open.take();
                    self.settle_all(before)?;
                }
                Verdict::Stored | Verdict::Refused(..) => {}
            }
        }
        if let Some((open, _)) = receiving {
            self.stop_receiving(name);
            self.settle(open)?;
        }
        Ok(Newer::Yes)
    }

    /// Takes in a DATA frame.
    pub(crate) fn on_data(
        &mut self,
        transfer: u64,
        offset: u64,
        bytes: &[u8],
    ) -> Result<Taken, PacketError> {
        // Settled, or its OFFER is in a packet that was lost and will come again with the data.
        let Some(Open::Receiving(receiving)) = self.open.get_mut(&transfer) else {
            return Ok(Taken::Quietly);
        };
        let length = receiving.length;
        // Varints have 62 bits: the sum cannot overflow.
        let end = offset + bytes.len() as u64;
        if end > length {
            return Err(PacketError::DataBeyondEnd { transfer, end, length });
        }
        match receiving.assembly.insert(offset, bytes) {
            Ok(()) => self.recover(transfer),
            Err(NoRoom) => Ok(Taken::NoRoom),
        }
    }

    /// Takes in a REPAIR frame.
    pub(crate) fn on_repair(
        &mut self,
        transfer: u64,
        offset: u64,
        nth: u64,
        symbol: &[u8],
    ) -> Result<Taken, PacketError> {
        // As with DATA.
        let Some(Open::Receiving(receiving)) = self.open.get_mut(&transfer) else {
            return Ok(Taken::Quietly);
        };
        let misfit = |what| PacketError::RepairMisfit { transfer, offset, nth, what };
        let block = Block::new(offset, receiving.length, symbol.len());
        let block = block.ok_or_else(|| misfit("beyond the limits"))?;
        let nth = usize::try_from(nth).ok().filter(|nth| *nth < block.repairs());
        let nth = nth.ok_or_else(|| misfit("one too many"))?;
        let repairs = receiving.repairs.get_or_insert_with(|| Box::new(Received::new(block)));
        if *repairs.block() != block {
            return Err(misfit("of other symbols than the one before"));
        }
        repairs.insert(nth, symbol);
        self.recover(transfer)
    }

    /// Computes what is missing of a transfer, if it can, and goes on with what is complete.
    fn recover(&mut self, transfer: u64) -> Result<Taken, PacketError> {
        if let Some(Open::Receiving(receiving)) = self.open.get_mut(&transfer)
            && let Some(repairs) = &mut receiving.repairs
        {
            match repairs.recover(&mut receiving.assembly) {
                Ok(Recovered::Nothing) => {}
                Ok(Recovered::All) => self.repaired += 1,
                // The sender believes that we have it all. It tries again without repair.
                Ok(Recovered::Failed) => {
                    let name = receiving.name.clone();
                    self.stop_receiving(&name);
                    let reason = "the repair symbols give no document".to_owned();
                    self.answer(transfer, Some((refusal::DIGEST, reason)))?;
                    return Ok(Taken::Quietly);
                }
                Err(NoRoom) => return Ok(Taken::NoRoom),
            }
        }
        self.complete_if_possible(transfer)
    }

    /// Hands a complete document over, if its digest is right.
    fn complete_if_possible(&mut self, transfer: u64) -> Result<Taken, PacketError> {
        match self.open.get(&transfer) {
            Some(Open::Receiving(receiving)) if receiving.assembly.is_complete() => {}
            _ => return Ok(Taken::Quietly),
        }
        let Some(Open::Receiving(receiving)) = self.open.remove(&transfer) else {
            return Ok(Taken::Quietly);
        };
        let Receiving { name, version, sha256, coding, plain_length, assembly, .. } = *receiving;
        let state = self.names.or_default(name.clone());
        state.receiving = None;
        let Some(body) = finish(assembly, &coding, plain_length, sha256) else {
            if state.delivered.is_none() {
                self.names.remove(&name);
            }
            let reason = "the bytes do not have the announced SHA-256".to_owned();
            self.answer(transfer, Some((refusal::DIGEST, reason)))?;
            return Ok(Taken::Quietly);
        };
        let verdict = Verdict::Awaited(Some(transfer));
        state.delivered = Some(Delivered { version, verdict, settled_at: self.clock });
        self.open.insert(transfer, Open::Delivered);
        self.forget_names();
        Ok(Taken::Document(Document { name, version, body }))
    }

    /// Takes in a CANCEL.
    pub(crate) fn on_cancel(&mut self, transfer: u64) -> Result<(), PacketError> {
        let awaits = |state: &&mut NameState| {
            matches!(&state.delivered, Some(Delivered { verdict: Verdict::Awaited(open), .. })
                if *open == Some(transfer))
        };
        match self.open.get(&transfer) {
            Some(Open::Receiving(receiving)) => {
                let name = receiving.name.clone();
                self.stop_receiving(&name);
            }
            Some(Open::Delivered) => {
                if let Some(state) = self.names.values_mut().find(awaits)
                    && let Some(delivered) = &mut state.delivered
                {
                    delivered.verdict = Verdict::Awaited(None);
                }
            }
            None => {}
        }
        self.settle(transfer)
    }

    fn stop_receiving(&mut self, name: &Name) {
        if let Some(state) = self.names.get_mut(name) {
            state.receiving = None;
            if state.delivered.is_none() {
                self.names.remove(name);
            }
        }
    }

    /// The application's verdict: `None` is stored. Ignored unless that very version was handed
    /// over and has no verdict yet: false.
    pub(crate) fn decide(
        &mut self,
        name: &Name,
        version: u64,
        refusal: Option<(u16, String)>,
    ) -> bool {
        self.clock += 1;
        let Some(state) = self.names.get_mut(name) else { return false };
        let Some(delivered) = &mut state.delivered else { return false };
        let Verdict::Awaited(open) = delivered.verdict else { return false };
        if delivered.version != version {
            return false;
        }
        delivered.settled_at = self.clock;
        delivered.verdict = match &refusal {
            None => Verdict::Stored,
            Some((code, reason)) => Verdict::Refused(*code, reason.clone()),
        };
        if let Some(transfer) = open {
            // An open transfer fills no gap in the numbers by being settled.
            let _ = self.answer(transfer, refusal);
        }
        true
    }

    fn answer(&mut self, transfer: u64, refusal: Option<(u16, String)>) -> Result<(), PacketError> {
        let refusal = refusal.map(|(code, reason)| (code, tidy_reason(&reason)));
        self.answers.insert(transfer, Answer { refusal, due: true, quiet_in: None });
        self.settle(transfer)
    }

    fn settle_all(&mut self, transfers: Option<u64>) -> Result<(), PacketError> {
        transfers.map_or(Ok(()), |transfer| self.settle(transfer))
    }

    fn settle(&mut self, transfer: u64) -> Result<(), PacketError> {
        self.open.remove(&transfer);
        self.settled.insert(transfer..transfer + 1);
        if self.settled.range_count() > TRANSFERS_CEILING + 1 {
            return Err(PacketError::TransferGaps { transfer, max: TRANSFERS_CEILING });
        }
        Ok(())
    }

    /// Forgets names until few enough are left: those settled longest ago, of which nothing is
    /// open.
    fn forget_names(&mut self) {
        while self.names.len() > NAMES_REMEMBERED_MAX + self.open.len() {
            let idle = self.names.iter().filter_map(|(name, state)| match state {
                NameState {
                    delivered: Some(Delivered { verdict: Verdict::Awaited(Some(_)), .. }),
                    ..
                } => None,
                NameState { delivered: Some(delivered), receiving: None } => {
                    Some((delivered.settled_at, name))
                }
                _ => None,
            });
            let Some(oldest) = idle.min().map(|(_, name)| name.clone()) else { return };
            self.names.remove(&oldest);
        }
    }

    /// Whether there is an answer to send.
    pub(crate) fn has_something(&self) -> bool {
        self.answers.values().any(|answer| answer.due)
    }

    /// Puts as many answers as fit into a packet.
    pub(crate) fn fill(&mut self, packet: &mut Packet<'_>) {
        for (&transfer, answer) in self.answers.iter_mut().filter(|(_, answer)| answer.due) {
            let frame = match &answer.refusal {
                None => Frame::Stored { transfer, quiet: false },
                Some((code, reason)) => Frame::Refused { transfer, code: *code, reason },
            };
            if !packet.push(&frame, SentFrame::Answer { transfer }) {
                return;
            }
            answer.due = false;
        }
    }

    /// Whether every answer to send says that a document is stored.
    pub(crate) fn has_only_stored(&self) -> bool {
        self.answers.values().all(|answer| !answer.due || answer.refusal.is_none())
    }

    /// Puts as many answers as fit into a packet without asking for an acknowledgement.
    pub(crate) fn fill_quietly(&mut self, quiet: Quiet, packet: &mut Packet<'_>) {
        for (&transfer, answer) in self.answers.iter_mut().filter(|(_, answer)| answer.due) {
            if !packet.push_quietly(&Frame::Stored { transfer, quiet: true }) {
                return;
            }
            (answer.due, answer.quiet_in) = (false, Some(quiet));
        }
    }

    /// The peer has told which packets it has: `arrived`, up to `largest`. Of those between the others are lost. Says what
    /// those have reported that arrived.
    pub(crate) fn quiet_settled(
        &mut self,
        largest: u64,
        arrived: impl Fn(u64) -> bool,
    ) -> Option<u64> {
        let quiet = self.answers.iter().filter_map(|(t, answer)| Some((*t, answer.quiet_in?)));
        let told: Vec<(u64, Quiet)> = quiet.filter(|(_, quiet)| quiet.number <= largest).collect();
        let mut reported = None;
        for (transfer, quiet) in told {
            if arrived(quiet.number) {
                reported = reported.max(Some(quiet.reported));
                self.answer_acked(transfer);
            } else {
                self.answer_lost(transfer);
            }
        }
        reported
    }

    /// The peer asks for something, and has not said that it has those answers: perhaps it asks for them.
    pub(crate) fn doubt_quiet(&mut self) {
        for (_, answer) in self.answers.iter_mut() {
            answer.due |= answer.quiet_in.take().is_some();
        }
    }

    pub(crate) fn answer_acked(&mut self, transfer: u64) {
        self.answers.remove(&transfer);
    }

    pub(crate) fn answer_lost(&mut self, transfer: u64) {
        if let Some(answer) = self.answers.get_mut(&transfer) {
            answer.due = true;
            answer.quiet_in = None;
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Newer {
    Yes,
    No,
}

impl Receiving {
    fn held_bytes(&self) -> usize {
        let repairs = self.repairs.as_ref().map_or(0, |repairs| repairs.held_bytes());
        self.assembly.held_bytes() + repairs
    }

    fn matches(&self, offer: &Offer<'_>) -> bool {
        self.version == offer.version
            && self.length == offer.encoded_length
            && self.plain_length as u64 == offer.plain_length
            && self.sha256 == offer.sha256
            && self.name.as_str() == offer.name
            && match &self.coding {
                Coding::Raw => offer.encoding == ENCODING_RAW,
                Coding::Zstd => offer.encoding == ENCODING_ZSTD,
                Coding::Delta(base) => offer.base == Some(base.sha256().0),
            }
    }
}

/// The document, if its bytes have the announced digest.
fn finish(
    assembly: Assembly,
    coding: &Coding,
    plain_length: usize,
    sha256: [u8; 32],
) -> Option<Bytes> {
    let (bytes, actual) = assembly.finish();
    let base = match coding {
        Coding::Raw => return (actual == sha256).then_some(bytes),
        Coding::Zstd => None,
        Coding::Delta(base) => Some(base),
    };
    let plain = form::decode(&bytes, base, plain_length).ok()?;
    (Hex32::sha256_of(&plain).0 == sha256).then(|| plain.into())
}

/// Why an OFFER is refused whatever else is going on.
fn objection(offer: &Offer<'_>, limits: &Limits) -> Option<(u16, String)> {
    if !limits.names.admits(offer.name) {
        return Some((refusal::NAME, format!("documents named {} are not accepted", offer.name)));
    }
    let known = form::encodings(limits.compressed);
    if offer.encoding >= u64::from(u64::BITS) || known & (1 << offer.encoding) == 0 {
        let reason = format!("encoding {} is not understood", offer.encoding);
        return Some((refusal::ENCODING, reason));
    }
    let raw = offer.encoding == ENCODING_RAW;
    if raw && offer.encoded_length != offer.plain_length {
        let reason = "raw documents have one length".to_owned();
        return Some((refusal::ENCODING, reason));
    }
    if offer.encoded_length > offer.plain_length {
        let reason = "the encoded form is longer than the document".to_owned();
        return Some((refusal::ENCODING, reason));
    }
    let max = limits.document_bytes_max;
    if offer.plain_length > max as u64 {
        let reason = format!("{} bytes, at most {max} are accepted", offer.plain_length);
        return Some((refusal::TOO_LARGE, reason));
    }
    None
}

#[cfg(test)]
mod tests;
