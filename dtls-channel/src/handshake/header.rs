use crate::wire::{HandshakeType, Malformed, Reader, Write};

/// RFC 6347 §4.2.2: type 1, length 3, message_seq 2, fragment_offset 3, fragment_length 3.
pub(crate) const HEADER_LEN: usize = 12;
/// Most messages of ours have no more than this, the header included.
const USUAL_BYTES: usize = 128;

/// A piece of a handshake message as it came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fragment<'a> {
    pub(crate) kind: HandshakeType,
    /// Length of the whole message, in bytes.
    pub(crate) length: usize,
    pub(crate) message_seq: u16,
    pub(crate) offset: usize,
    pub(crate) body: &'a [u8],
}

impl<'a> Fragment<'a> {
    pub(crate) fn read(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        let kind = HandshakeType(r.u8()?);
        let length = r.u24()? as usize;
        let message_seq = r.u16()?;
        let offset = r.u24()? as usize;
        let body = r.vec24()?;
        if offset + body.len() > length {
            return Err(r.fault());
        }
        Ok(Self { kind, length, message_seq, offset, body })
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.body.len() == self.length
    }
}

/// The fragments of one record; a malformed one ends the iteration with an error.
pub(crate) fn fragments(body: &[u8]) -> impl Iterator<Item = Result<Fragment<'_>, Malformed>> {
    let mut reader = Reader::new(body, "handshake fragment");
    let mut failed = false;
    std::iter::from_fn(move || {
        if failed || reader.is_empty() {
            return None;
        }
        let fragment = Fragment::read(&mut reader);
        failed = fragment.is_err();
        Some(fragment)
    })
}

/// Appends a fragment of `message`'s body with its header.
pub(crate) fn write_fragment(out: &mut Vec<u8>, message: &Message, offset: usize, length: usize) {
    out.u8(message.kind.0);
    out.u24(message.body().len() as u32);
    out.u16(message.message_seq);
    out.u24(offset as u32);
    out.vec24(|w| w.bytes(&message.body()[offset..offset + length]));
}

/// A whole handshake message. Its bytes begin with a header as if it were unfragmented, which is
/// the form that enters the transcript (RFC 6347 §4.2.6).
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) kind: HandshakeType,
    pub(crate) message_seq: u16,
    bytes: Vec<u8>,
}

impl Message {
    /// Builds a message from what `body` writes.
    pub(crate) fn build(
        kind: HandshakeType,
        message_seq: u16,
        body: impl FnOnce(&mut Vec<u8>),
    ) -> Self {
        let mut bytes = Vec::with_capacity(USUAL_BYTES);
        bytes.resize(HEADER_LEN, 0);
        body(&mut bytes);
        Self::finish(kind, message_seq, bytes)
    }

    /// A message of which the body is there.
    pub(crate) fn with_body(kind: HandshakeType, message_seq: u16, body: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(HEADER_LEN + body.len());
        bytes.resize(HEADER_LEN, 0);
        bytes.extend_from_slice(body);
        Self::finish(kind, message_seq, bytes)
    }

    /// A message from a buffer that begins with room for the header.
    pub(crate) fn finish(kind: HandshakeType, message_seq: u16, mut bytes: Vec<u8>) -> Self {
        let length = ((bytes.len() - HEADER_LEN) as u32).to_be_bytes();
        bytes[0] = kind.0;
        bytes[1..4].copy_from_slice(&length[1..]);
        bytes[4..6].copy_from_slice(&message_seq.to_be_bytes());
        bytes[6..9].fill(0);
        bytes[9..12].copy_from_slice(&length[1..]);
        Self { kind, message_seq, bytes }
    }

    /// Gives back the room that it does not need.
    pub(crate) fn shrink_to_fit(&mut self) {
        self.bytes.shrink_to_fit();
    }

    pub(crate) fn body(&self) -> &[u8] {
        &self.bytes[HEADER_LEN..]
    }

    /// Header and body.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}#{} ({} bytes)", self.kind, self.message_seq, self.body().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_written_in_fragments_that_read_back_and_never_beyond_its_length() {
        let message = Message::build(HandshakeType::CERTIFICATE, 3, |w| w.bytes(b"0123456789"));
        assert_eq!(message.bytes()[..12], [11, 0, 0, 10, 0, 3, 0, 0, 0, 0, 0, 10]);
        let mut record = Vec::new();
        write_fragment(&mut record, &message, 0, 4);
        write_fragment(&mut record, &message, 4, 6);
        let read: Vec<_> = fragments(&record).collect::<Result<_, _>>().unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!((read[1].offset, read[1].body, read[1].length), (4, &b"456789"[..], 10));
        for cut in 1..record.len() {
            let whole = fragments(&record[..cut]).filter(Result::is_ok).count();
            assert_eq!(whole, usize::from(cut >= 16));
        }
        // Offset and length that reach beyond the message.
        record[8] = 7;
        assert!(fragments(&record).next().unwrap().is_err());
    }
}
