//! A packet that is being filled.

use crate::recovery::SentFrame;
use crate::wire::{self, Frame};

/// Collects frames up to a limit, and what recovery has to know about them.
pub(crate) struct Packet<'a> {
    out: &'a mut Vec<u8>,
    limit: usize,
    sent: Vec<SentFrame>,
}

impl<'a> Packet<'a> {
    pub(crate) fn new(out: &'a mut Vec<u8>, limit: usize) -> Self {
        out.clear();
        Self { out, limit, sent: Vec::new() }
    }

    /// Bytes that are left.
    pub(crate) fn room(&self) -> usize {
        self.limit - self.out.len()
    }

    /// Whether a symbol of this transfer is in the packet.
    pub(crate) fn has_part_of(&self, of: u64) -> bool {
        self.sent.iter().any(|sent| match sent {
            SentFrame::Data { transfer, .. } | SentFrame::Repair { transfer, .. } => {
                *transfer == of
            }
            _ => false,
        })
    }

    pub(crate) fn is_half_full(&self) -> bool {
        self.out.len() > self.limit / 2
    }

    /// Adds a frame if it fits.
    #[must_use]
    pub(crate) fn push(&mut self, frame: &Frame<'_>, sent: SentFrame) -> bool {
        let before = self.out.len();
        frame.write(self.out);
        if self.out.len() > self.limit {
            self.out.truncate(before);
            return false;
        }
        self.sent.push(sent);
        true
    }

    /// Adds a frame that asks for nothing, if it fits.
    #[must_use]
    pub(crate) fn push_quietly(&mut self, frame: &Frame<'_>) -> bool {
        let before = self.out.len();
        frame.write(self.out);
        let fits = self.out.len() <= self.limit;
        if !fits {
            self.out.truncate(before);
        }
        fits
    }

    /// Fills what is left, if that is enough for a frame.
    pub(crate) fn pad(&mut self) {
        wire::write_padding(self.out, self.limit - self.out.len());
    }

    /// Whether anything is in the packet that asks for an acknowledgement.
    pub(crate) fn is_ack_eliciting(&self) -> bool {
        !self.sent.is_empty()
    }

    /// Whether this is in the packet already.
    pub(crate) fn has(&self, sent: &SentFrame) -> bool {
        self.sent.contains(sent)
    }

    /// The place for an ACK, which asks for no acknowledgement itself.
    pub(crate) fn out(&mut self) -> &mut Vec<u8> {
        self.out
    }

    /// Ends the packet: its length, and what it carries.
    pub(crate) fn finish(self) -> (usize, Vec<SentFrame>) {
        (self.out.len(), self.sent)
    }
}
