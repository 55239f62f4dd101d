use crate::wire::{Malformed, Reader, Write};

/// NewSessionTicket (RFC 5077 §3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NewSessionTicket<'a> {
    /// For how long the server means to take it, in seconds; 0 does not say.
    pub(crate) lifetime_s: u32,
    /// Empty if the server has none to give after all.
    pub(crate) ticket: &'a [u8],
}

impl<'a> NewSessionTicket<'a> {
    pub(crate) fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(body, "NewSessionTicket");
        let lifetime_s = u32::from_be_bytes(r.array()?);
        let ticket = r.vec16()?;
        r.finish()?;
        Ok(Self { lifetime_s, ticket })
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.bytes(&self.lifetime_s.to_be_bytes());
        out.vec16(|w| w.bytes(self.ticket));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_message_reads_back_and_truncations_are_malformed() {
        for ticket in [&b"ticket"[..], b""] {
            let message = NewSessionTicket { lifetime_s: 0x0102_0304, ticket };
            let mut bytes = Vec::new();
            message.write(&mut bytes);
            assert_eq!(bytes[..6], [1, 2, 3, 4, 0, ticket.len() as u8]);
            assert_eq!(NewSessionTicket::read(&bytes), Ok(message));
            assert!((0..bytes.len()).all(|cut| NewSessionTicket::read(&bytes[..cut]).is_err()));
            bytes.push(0);
            assert!(NewSessionTicket::read(&bytes).is_err());
        }
    }
}
