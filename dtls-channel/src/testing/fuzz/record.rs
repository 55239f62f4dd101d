use std::collections::BTreeSet;

use arbitrary::Unstructured;
use ring::digest;

use super::{byte, bytes, word};
use crate::crypto::{CipherSuite, TrafficKey};
use crate::record::{
    CONTENT_BYTES_MAX, ConnectionId, HEADER_LEN, ID_AT, ReadKeys, Record, Records, WriteKeys,
};
use crate::stats::DropCause;
use crate::wire::ContentType;

/// Records as they come from the network, and one direction of a protected association whose
/// records are lost, repeated, reordered and bent. A record is opened exactly if it is genuine, not
/// opened before and within the window, and then to what was sealed.
///
/// Layout: suite, window, size limit and connection id 1; then operations, see the source.
///
/// # Panics
/// When a rule is broken.
pub fn record(input: &[u8]) {
    split(input, 0);
    split(input, ID.len());
    // Each input has its own key: a fuzzer remembers what it saw compared, so that with one key for
    // all it soon knows genuine records by heart.
    let secret = digest::digest(&digest::SHA256, input);
    let mut input = Unstructured::new(input);
    let mut channel = Channel::new(byte(&mut input), secret.as_ref());
    while !input.is_empty() {
        let tag = byte(&mut input);
        match tag % 8 {
            0 | 1 => {
                let kind = ContentType(byte(&mut input));
                let length = usize::from(byte(&mut input));
                channel.seal(kind, bytes(&mut input, length));
            }
            // Long records from little input.
            2 => channel.seal(ContentType::APPLICATION_DATA, &vec![tag; word(&mut input).into()]),
            3 => channel.skip(word(&mut input)),
            4 | 5 => channel.open_genuine(byte(&mut input).into()),
            6 => {
                let (which, at) = (byte(&mut input), word(&mut input));
                channel.open_bent(which.into(), at.into(), byte(&mut input));
            }
            _ => {
                let length = usize::from(byte(&mut input));
                channel.open_stranger(bytes(&mut input, length));
            }
        }
    }
}

/// The records of a datagram are its beginning, and what is left is no record.
fn split(datagram: &[u8], id_length: usize) {
    let mut copy = datagram.to_vec();
    let mut records = Records::with_id_length(&mut copy, id_length);
    let mut again = Vec::new();
    for record in records.by_ref() {
        assert!(record.sequence < 1 << 48);
        again.extend(record.to_bytes());
    }
    assert!(datagram.starts_with(&again));
    let rest = &datagram[again.len()..];
    assert_eq!(records.has_rest(), !rest.is_empty());
    let id_length = if rest.first() == Some(&ContentType::TLS12_CID.0) { id_length } else { 0 };
    if let Some(&[l0, l1]) = rest.get(ID_AT + id_length..).and_then(|rest| rest.first_chunk()) {
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        assert!(HEADER_LEN + id_length + length > rest.len(), "a whole record was left");
    }
}

/// The connection id, where there is one.
const ID: [u8; 8] = *b"fuzzed!!";
/// Sealed records kept for later.
const RECORDS_KEPT_MAX: usize = 64;

/// One direction, and what its reader has to do by the book.
struct Channel {
    write: WriteKeys,
    read: ReadKeys,
    window: u64,
    /// The longest content that the reader takes.
    content_max: u16,
    /// What every record carries; empty for nothing.
    id: ConnectionId,
    sealed: Vec<Sealed>,
    opened: BTreeSet<u64>,
}

#[derive(Clone)]
struct Sealed {
    bytes: Vec<u8>,
    kind: ContentType,
    sequence: u64,
    content: Vec<u8>,
}

impl Channel {
    fn new(choice: u8, secret: &[u8]) -> Self {
        let suite = CipherSuite::ALL[usize::from(choice) % CipherSuite::ALL.len()];
        let window = [64, 128, 1_024][usize::from(choice >> 4 & 3) % 3];
        let content_max = if choice & 0x40 == 0 { CONTENT_BYTES_MAX } else { 200 };
        let id = if choice & 0x80 == 0 {
            ConnectionId::EMPTY
        } else {
            ConnectionId::new(&ID).unwrap_or_default()
        };
        let key = || {
            let (key, iv) = (&secret[..suite.key_len()], &secret[..suite.fixed_iv_len()]);
            TrafficKey::new(suite, key, iv)
        };
        Self {
            write: WriteKeys::new(key(), id.clone(), CONTENT_BYTES_MAX),
            read: ReadKeys::new(key(), id.clone(), window, content_max),
            window: window.into(),
            content_max,
            id,
            sealed: Vec::new(),
            opened: BTreeSet::new(),
        }
    }

    fn seal(&mut self, kind: ContentType, content: &[u8]) {
        // Inside a record with an id the type ends the content, so it cannot be zero.
        let kind = if self.id.is_empty() { kind } else { ContentType(kind.0.max(1)) };
        let mut bytes = Vec::new();
        let sequence = self.write.next_sequence();
        let inner = content.len() + usize::from(!self.id.is_empty());
        let refused = inner > CONTENT_BYTES_MAX.into() || self.write.remaining() == 0;
        let sealed = self.write.seal(kind, content, &mut bytes);
        if refused {
            assert!(sealed.is_none() && bytes.is_empty(), "{} bytes", content.len());
            return;
        }
        assert_eq!(sealed, Some(sequence), "numbers have no gaps");
        assert_eq!(bytes.len(), content.len() + self.write.overhead());
        let content = content.to_vec();
        self.sealed.push(Sealed { bytes, kind, sequence, content });
        if self.sealed.len() > RECORDS_KEPT_MAX {
            self.sealed.remove(0);
        }
    }

    /// As if so many records had been sealed and lost.
    fn skip(&mut self, count: u16) {
        self.write.preset_sequence(self.write.next_sequence() + u64::from(count));
    }

    fn pick(&self, which: usize) -> Option<Sealed> {
        (!self.sealed.is_empty()).then(|| self.sealed[which % self.sealed.len()].clone())
    }

    fn may_open(&self, sequence: u64) -> bool {
        let newest = self.opened.last().copied();
        !self.opened.contains(&sequence) && newest.is_none_or(|n| sequence + self.window > n)
    }

    fn first_record<'a>(&self, datagram: &'a mut [u8]) -> Option<Record<'a>> {
        Records::with_id_length(datagram, self.id.len()).next()
    }

    fn open_genuine(&mut self, which: usize) {
        let Some(Sealed { mut bytes, kind, sequence, content }) = self.pick(which) else { return };
        let may_open = self.may_open(sequence);
        let record = self.first_record(&mut bytes).expect("a sealed record is a record");
        assert_eq!(record.id, self.id.as_bytes());
        assert_eq!((record.epoch, record.sequence), (1, sequence));
        match self.read.open(record) {
            Ok(opened) => {
                assert!(may_open, "record {sequence} was opened twice or is too old");
                assert_eq!((opened.content_type, opened.sequence), (kind, sequence));
                assert_eq!(opened.content, content);
                assert!(content.len() <= self.content_max.into());
                self.opened.insert(sequence);
            }
            // Authentic, and as good as opened.
            Err(DropCause::TooLong) => {
                assert!(may_open && content.len() > self.content_max.into());
                self.opened.insert(sequence);
            }
            // The one type that means something else where no id is agreed on.
            Err(DropCause::WrongConnectionId) => {
                assert!(self.id.is_empty() && kind == ContentType::TLS12_CID);
            }
            Err(cause) => {
                assert_eq!((cause, may_open), (DropCause::Replayed, false), "record {sequence}");
            }
        }
    }

    fn open_bent(&mut self, which: usize, at: usize, flip: u8) {
        let Some(Sealed { mut bytes, .. }) = self.pick(which) else { return };
        let at = at % bytes.len();
        bytes[at] ^= flip.max(1);
        self.refuse(&mut bytes);
    }

    fn open_stranger(&mut self, datagram: &[u8]) {
        let mut bytes = datagram.to_vec();
        if !self.sealed.iter().any(|s| bytes.starts_with(&s.bytes)) {
            self.refuse(&mut bytes);
        }
    }

    /// The first record of `bytes` is not genuine, so nothing comes of it; least of all does it
    /// move the window, which would show at the next genuine one.
    fn refuse(&mut self, bytes: &mut [u8]) {
        if let Some(record) = self.first_record(bytes) {
            let sequence = record.sequence;
            assert!(self.read.open(record).is_err(), "a forged record {sequence} was opened");
        }
    }
}
