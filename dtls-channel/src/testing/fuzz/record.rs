use std::collections::BTreeSet;

use arbitrary::Unstructured;
use ring::digest;

use super::{byte, bytes, word};
use crate::crypto::{CipherSuite, TrafficKey};
use crate::record::{CONTENT_BYTES_MAX, ConnectionId, HEADER_LEN, ReadKeys, Records, WriteKeys};
use crate::stats::DropCause;
use crate::wire::ContentType;

/// Records as they come from the network, and one direction of a protected association whose
/// records are lost, repeated, reordered and bent. A record is opened exactly if it is genuine, not
/// opened before and within the window, and then to what was sealed.
///
/// Layout: suite, window and size limit 1; then operations, see the source.
///
/// # Panics
/// When a rule is broken.
pub fn record(input: &[u8]) {
    split(input);
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
fn split(datagram: &[u8]) {
    let mut copy = datagram.to_vec();
    let mut records = Records::new(&mut copy);
    let mut again = Vec::new();
    for record in records.by_ref() {
        assert!(record.sequence < 1 << 48);
        again.extend(record.to_bytes());
    }
    assert!(datagram.starts_with(&again));
    let rest = &datagram[again.len()..];
    assert_eq!(records.has_rest(), !rest.is_empty());
    if let Some(header) = rest.first_chunk::<HEADER_LEN>() {
        let length = usize::from(u16::from_be_bytes([header[11], header[12]]));
        assert!(HEADER_LEN + length > rest.len(), "a whole record was left");
    }
}

/// Sealed records kept for later.
const RECORDS_KEPT_MAX: usize = 64;

/// One direction, and what its reader has to do by the book.
struct Channel {
    write: WriteKeys,
    read: ReadKeys,
    window: u64,
    /// The longest content that the reader takes.
    content_max: u16,
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
        let key = || {
            let (key, iv) = (&secret[..suite.key_len()], &secret[..suite.fixed_iv_len()]);
            TrafficKey::new(suite, key, iv)
        };
        Self {
            write: WriteKeys::new(key(), ConnectionId::EMPTY, CONTENT_BYTES_MAX),
            read: ReadKeys::new(key(), ConnectionId::EMPTY, window, content_max),
            window: window.into(),
            content_max,
            sealed: Vec::new(),
            opened: BTreeSet::new(),
        }
    }

    fn seal(&mut self, kind: ContentType, content: &[u8]) {
        let mut bytes = Vec::new();
        let sequence = self.write.next_sequence();
        let refused = content.len() > CONTENT_BYTES_MAX.into() || self.write.remaining() == 0;
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

    fn open_genuine(&mut self, which: usize) {
        let Some(Sealed { mut bytes, kind, sequence, content }) = self.pick(which) else { return };
        let may_open = self.may_open(sequence);
        let record = Records::new(&mut bytes).next().expect("a sealed record is a record");
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
            // The one type that means something else, as no id is agreed on here.
            Err(DropCause::WrongConnectionId) => assert_eq!(kind, ContentType::TLS12_CID),
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
        if let Some(record) = Records::new(bytes).next() {
            let sequence = record.sequence;
            assert!(self.read.open(record).is_err(), "a forged record {sequence} was opened");
        }
    }
}
