use std::net::IpAddr;

use crate::config::Config;
use crate::conn::resume;
use crate::handshake::messages::ClientHello;
use crate::handshake::messages::HelloVerifyRequest;
use crate::handshake::messages::client_hello::HelloPrefix;
use crate::handshake::{Fragment, HEADER_LEN, Message, write_fragment};
use crate::record::{HEADER_LEN as RECORD_HEADER_LEN, plaintext};
use crate::resumption::Resumable;
use crate::wire::ids::VERSION_1_0;
use crate::wire::{ContentType, HandshakeType, Reader};

/// The largest ClientHello taken, in bytes. The biggest seen, with every extension and a long
/// cookie, has about 1 KiB.
pub const CLIENT_HELLO_BYTES_MAX: usize = 4_096;
/// Hellos are numbered from 0 and each is an answer to a HelloVerifyRequest.
const CLIENT_HELLO_SEQ_MAX: u16 = 16;
/// Our records continue the numbering of the hello's, so that has to leave room.
const RECORD_SEQUENCE_MAX: u64 = (1 << 48) - (1 << 16);

/// What the first record of a datagram tells about where it belongs.
#[derive(Debug)]
pub(super) enum FirstRecord {
    /// No whole record, or a hello out of all bounds.
    None,
    /// Epoch 0: (part of) a ClientHello.
    Hello(HelloPeek),
    /// Epoch 0: anything else.
    Plain,
    /// A later epoch.
    Protected,
}

/// The ClientHello, or the piece of it, that a datagram begins with.
#[derive(Debug)]
pub(super) struct HelloPeek {
    pub(super) record_sequence: u64,
    pub(super) message_seq: u16,
    pub(super) length: usize,
    offset: usize,
    body_len: usize,
    /// Owned, as it is small; `None` if this is not the first piece, or too short a one.
    pub(super) prefix: Option<Prefix>,
}

/// The fields of a ClientHello that come before its offer, but for the session id.
#[derive(Debug, Clone)]
pub(super) struct Prefix {
    pub(super) version: u16,
    pub(super) random: [u8; 32],
    pub(super) cookie: Vec<u8>,
}

impl From<HelloPrefix<'_>> for Prefix {
    fn from(prefix: HelloPrefix<'_>) -> Self {
        Self { version: prefix.version, random: prefix.random, cookie: prefix.cookie.to_vec() }
    }
}

/// Looks at a datagram without touching it.
pub(super) fn peek(datagram: &[u8]) -> FirstRecord {
    let Some((header, rest)) = datagram.split_first_chunk::<RECORD_HEADER_LEN>() else {
        return FirstRecord::None;
    };
    let &[kind, _, _, e0, e1, s0, s1, s2, s3, s4, s5, l0, l1] = header;
    if ContentType(kind) == ContentType::TLS12_CID {
        // Its length stands elsewhere.
        return FirstRecord::Protected;
    }
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    let Some(body) = rest.get(..length) else { return FirstRecord::None };
    if [e0, e1] != [0, 0] {
        return FirstRecord::Protected;
    }
    let record_sequence = u64::from_be_bytes([0, 0, s0, s1, s2, s3, s4, s5]);
    if ContentType(kind) != ContentType::HANDSHAKE {
        return FirstRecord::Plain;
    }
    match Fragment::read(&mut Reader::new(body, "handshake fragment")) {
        Ok(fragment) if fragment.kind == HandshakeType::CLIENT_HELLO => {
            if fragment.length > CLIENT_HELLO_BYTES_MAX
                || fragment.message_seq > CLIENT_HELLO_SEQ_MAX
                || record_sequence > RECORD_SEQUENCE_MAX
            {
                return FirstRecord::None;
            }
            let first = fragment.offset == 0;
            let prefix = first.then(|| ClientHello::read_prefix(fragment.body).ok()).flatten();
            FirstRecord::Hello(HelloPeek {
                record_sequence,
                message_seq: fragment.message_seq,
                length: fragment.length,
                offset: fragment.offset,
                body_len: fragment.body.len(),
                prefix: prefix.map(Prefix::from),
            })
        }
        _ => FirstRecord::Plain,
    }
}

/// Whether a datagram begins with a record of the application's, which says itself nothing of whose it is.
pub(super) fn begins_with_data(datagram: &[u8]) -> bool {
    matches!(datagram, [kind, _, _, e0, e1, ..]
        if ContentType(*kind) == ContentType::APPLICATION_DATA && [*e0, *e1] != [0, 0])
}

impl HelloPeek {
    pub(super) fn is_whole(&self) -> bool {
        self.offset == 0 && self.body_len == self.length
    }

    fn body<'a>(&self, datagram: &'a [u8]) -> Option<&'a [u8]> {
        datagram.get(RECORD_HEADER_LEN + HEADER_LEN..)?.get(..self.body_len)
    }

    /// Cipher suites and compression methods, if the whole hello is here.
    pub(super) fn offer<'a>(&self, datagram: &'a [u8]) -> Option<&'a [u8]> {
        let body = self.body(datagram).filter(|_| self.is_whole())?;
        ClientHello::read(body).ok().map(|hello| hello.offer)
    }

    /// What its ticket is worth, if it is whole and from where that was given.
    pub(super) fn resumable_from(
        &self,
        config: &Config,
        address: IpAddr,
        datagram: &[u8],
    ) -> Option<Resumable> {
        let body = self.body(datagram).filter(|_| self.is_whole())?;
        resume::resumable_from(config, &ClientHello::read(body).ok()?, address)
    }

    /// The whole hello as a message.
    pub(super) fn message(&self, datagram: &[u8]) -> Option<Message> {
        let body = self.body(datagram).filter(|_| self.is_whole())?;
        Some(Message::with_body(HandshakeType::CLIENT_HELLO, self.message_seq, body))
    }

    /// Appends the HelloVerifyRequest that answers this hello. It takes over both sequence numbers
    /// (RFC 6347 §4.2.1), so nothing need be remembered.
    pub(super) fn write_verify_request(&self, cookie: &[u8], out: &mut Vec<u8>) {
        let kind = HandshakeType::HELLO_VERIFY_REQUEST;
        let request = HelloVerifyRequest { cookie };
        let message = Message::build(kind, self.message_seq, |out| request.write(out));
        let mut body = Vec::with_capacity(message.bytes().len());
        write_fragment(&mut body, &message, 0, message.body().len());
        let mut sequence = self.record_sequence;
        plaintext(out, ContentType::HANDSHAKE, VERSION_1_0, &mut sequence, &body);
    }
}

/// Both parts of a whole hello that a cookie covers.
pub(super) fn prefix_and_offer(body: &[u8]) -> Option<(Prefix, &[u8])> {
    let prefix = ClientHello::read_prefix(body).ok()?;
    let hello = ClientHello::read(body).ok()?;
    Some((prefix.into(), hello.offer))
}
