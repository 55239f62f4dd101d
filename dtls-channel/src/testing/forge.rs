//! Datagrams made by hand: every field as the test wants it, whatever the rules say.

use crate::conn::MADE_ID_BYTES;
use crate::record::ID_AT;
use crate::wire::ContentType;

/// A record's version on the wire, DTLS 1.2.
pub const DTLS_1_2: u16 = 0xfefd;
/// DTLS 1.0's, which hellos and their answers may carry.
pub const DTLS_1_0: u16 = 0xfeff;

/// A record with any header; its body as it stands, sealed or not. The length field says the truth.
#[must_use]
pub fn record(content_type: u8, epoch: u16, sequence: u64, body: &[u8]) -> Vec<u8> {
    record_of_version(DTLS_1_2, content_type, epoch, sequence, body)
}

/// As [`record`], with any version.
#[must_use]
pub fn record_of_version(
    version: u16,
    content_type: u8,
    epoch: u16,
    sequence: u64,
    body: &[u8],
) -> Vec<u8> {
    let mut out = vec![content_type];
    out.extend(version.to_be_bytes());
    out.extend(epoch.to_be_bytes());
    out.extend(&sequence.to_be_bytes()[2..]);
    out.extend((body.len() as u16).to_be_bytes());
    out.extend(body);
    out
}

/// One handshake fragment (RFC 6347 §4.2.2) with any header.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    /// Message type.
    pub kind: u8,
    /// What the header says of the whole message's length, in bytes; 24 bits are written.
    pub length: usize,
    /// The message's number.
    pub message_seq: u16,
    /// Where the piece begins in the message, in bytes; 24 bits are written.
    pub offset: usize,
    /// What the header says of the piece's length, in bytes; 24 bits are written.
    pub piece_length: usize,
    /// What it carries.
    pub body: &'a [u8],
}

impl<'a> Piece<'a> {
    /// A whole message.
    #[must_use]
    pub fn whole(kind: u8, message_seq: u16, body: &'a [u8]) -> Self {
        Self::part(kind, message_seq, body.len(), 0, body)
    }

    /// A part of a message of `length` bytes.
    #[must_use]
    pub fn part(kind: u8, message_seq: u16, length: usize, offset: usize, body: &'a [u8]) -> Self {
        Self { kind, length, message_seq, offset, piece_length: body.len(), body }
    }

    /// Header and body.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let u24 = |n: usize| (n as u32).to_be_bytes();
        let mut out = vec![self.kind];
        out.extend(&u24(self.length)[1..]);
        out.extend(self.message_seq.to_be_bytes());
        out.extend(&u24(self.offset)[1..]);
        out.extend(&u24(self.piece_length)[1..]);
        out.extend(self.body);
        out
    }

    /// The piece alone in an unprotected record alone in a datagram.
    #[must_use]
    pub fn datagram(&self, record_sequence: u64) -> Vec<u8> {
        record(22, 0, record_sequence, &self.bytes())
    }
}

/// A record as seen on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenRecord {
    /// Content type.
    pub content_type: u8,
    /// Version.
    pub version: u16,
    /// Epoch.
    pub epoch: u16,
    /// Sequence number, 48 bits.
    pub sequence: u64,
    /// The connection id (RFC 9146), taken to be one that our endpoints make; mostly there is none.
    pub id: Vec<u8>,
    /// Everything behind the header.
    pub body: Vec<u8>,
}

/// The records of a datagram; a torn tail is left out.
#[must_use]
pub fn records(mut datagram: &[u8]) -> Vec<SeenRecord> {
    let mut seen = Vec::new();
    while let Some((header, rest)) = datagram.split_first_chunk::<ID_AT>() {
        let &[content_type, v0, v1, e0, e1, s0, s1, s2, s3, s4, s5] = header;
        let id_length = if content_type == ContentType::TLS12_CID.0 { MADE_ID_BYTES } else { 0 };
        let Some((id, rest)) = rest.split_at_checked(id_length) else { break };
        let Some((length, rest)) = rest.split_first_chunk() else { break };
        let length = usize::from(u16::from_be_bytes(*length));
        let Some((body, rest)) = rest.split_at_checked(length) else { break };
        seen.push(SeenRecord {
            content_type,
            version: u16::from_be_bytes([v0, v1]),
            epoch: u16::from_be_bytes([e0, e1]),
            sequence: u64::from_be_bytes([0, 0, s0, s1, s2, s3, s4, s5]),
            id: id.to_vec(),
            body: body.to_vec(),
        });
        datagram = rest;
    }
    seen
}

/// A ClientHello with any content; [`Default`] is empty and valid for nobody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HelloFields {
    /// The version inside the hello.
    pub version: u16,
    /// The random.
    pub random: [u8; 32],
    /// The session id.
    pub session_id: Vec<u8>,
    /// The cookie (RFC 6347 §4.2.1).
    pub cookie: Vec<u8>,
    /// Cipher suites by number.
    pub suites: Vec<u16>,
    /// Compression methods.
    pub compressions: Vec<u8>,
    /// Extensions: number and content.
    pub extensions: Vec<(u16, Vec<u8>)>,
}

impl HelloFields {
    /// The message's body.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        let mut out = self.version.to_be_bytes().to_vec();
        out.extend(self.random);
        for short in [&self.session_id, &self.cookie] {
            out.push(short.len() as u8);
            out.extend(short);
        }
        out.extend((2 * self.suites.len() as u16).to_be_bytes());
        out.extend(self.suites.iter().flat_map(|s| s.to_be_bytes()));
        out.push(self.compressions.len() as u8);
        out.extend(&self.compressions);
        write_extensions(&self.extensions, &mut out);
        out
    }

    /// Takes an extension away.
    #[must_use]
    pub fn without(mut self, extension: u16) -> Self {
        self.extensions.retain(|(number, _)| *number != extension);
        self
    }
}

/// A ServerHello with any content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AnswerFields {
    /// The version chosen.
    pub version: u16,
    /// The random.
    pub random: [u8; 32],
    /// The session id.
    pub session_id: Vec<u8>,
    /// The suite chosen.
    pub suite: u16,
    /// The compression method chosen.
    pub compression: u8,
    /// Extensions: number and content.
    pub extensions: Vec<(u16, Vec<u8>)>,
}

impl AnswerFields {
    /// The message's body.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        let mut out = self.version.to_be_bytes().to_vec();
        out.extend(self.random);
        out.push(self.session_id.len() as u8);
        out.extend(&self.session_id);
        out.extend(self.suite.to_be_bytes());
        out.push(self.compression);
        write_extensions(&self.extensions, &mut out);
        out
    }

    /// Takes an extension away.
    #[must_use]
    pub fn without(mut self, extension: u16) -> Self {
        self.extensions.retain(|(number, _)| *number != extension);
        self
    }
}

fn write_extensions(extensions: &[(u16, Vec<u8>)], out: &mut Vec<u8>) {
    let length: usize = extensions.iter().map(|(_, content)| 4 + content.len()).sum();
    out.extend((length as u16).to_be_bytes());
    for (number, content) in extensions {
        out.extend(number.to_be_bytes());
        out.extend((content.len() as u16).to_be_bytes());
        out.extend(content);
    }
}
