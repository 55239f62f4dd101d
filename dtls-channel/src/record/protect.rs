use super::Record;
use super::connection_id::ConnectionId;
use super::header::{AdditionalDataWithId, HEADER_LEN, additional_data, number, write_header};
use super::replay::ReplayWindow;
use crate::crypto::{HotKey, TrafficKey};
use crate::stats::DropCause;
use crate::wire::ContentType;
use crate::wire::ids::VERSION_1_2;

/// The only protected epoch of an association: there is no renegotiation.
const PROTECTED_EPOCH: u16 = 1;
/// The largest plaintext of a record (RFC 5246 §6.2.1), with a connection id its inner plaintext
/// (RFC 9146 §5).
pub(crate) const CONTENT_BYTES_MAX: u16 = 1 << 14;

/// Appends an unprotected record of epoch 0.
pub(crate) fn plaintext(
    out: &mut Vec<u8>,
    content_type: ContentType,
    version: u16,
    sequence: &mut u64,
    body: &[u8],
) {
    write_header(out, content_type, version, number(0, *sequence), &[], body.len());
    out.extend_from_slice(body);
    *sequence += 1;
}

/// Seals our records of epoch 1, each under a sequence number that is never used again.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct WriteKeys {
    key: TrafficKey,
    next: u64,
    plaintext_max: u16,
    /// What the peer wants to read on our records; empty for nothing.
    id: ConnectionId,
}

impl WriteKeys {
    /// `plaintext_max` is the longest plaintext to seal, in bytes: what the peer takes (RFC 8449).
    pub(crate) fn new(key: TrafficKey, id: ConnectionId, plaintext_max: u16) -> Self {
        Self { key, next: 0, plaintext_max, id }
    }

    /// The longest content of a record, in bytes.
    pub(crate) fn content_max(&self) -> usize {
        usize::from(self.plaintext_max).saturating_sub(self.inner_overhead())
    }

    pub(crate) fn next_sequence(&self) -> u64 {
        self.next
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn preset_sequence(&mut self, next: u64) {
        self.next = next;
    }

    /// Records left under this key.
    pub(crate) fn remaining(&self) -> u64 {
        self.key.suite().records_max().saturating_sub(self.next)
    }

    /// How much longer a record is than its content, header included.
    pub(crate) fn overhead(&self) -> usize {
        HEADER_LEN + self.key.suite().seal_overhead() + self.id.len() + self.inner_overhead()
    }

    /// The real type of a record with an id is part of its plaintext.
    fn inner_overhead(&self) -> usize {
        usize::from(!self.id.is_empty())
    }

    /// Appends one sealed record and returns its sequence number; `None` when the key is used up.
    pub(crate) fn seal(
        &mut self,
        content_type: ContentType,
        content: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<u64> {
        self.seal_hot(&mut HotKey::default(), content_type, content, out)
    }

    /// [`seal`](Self::seal) with the key that was used last.
    pub(crate) fn seal_hot(
        &mut self,
        hot: &mut HotKey,
        content_type: ContentType,
        content: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<u64> {
        if self.remaining() == 0 || content.len() > self.content_max() {
            return None;
        }
        let sequence = self.next;
        self.next += 1;
        let number = number(PROTECTED_EPOCH, sequence);
        let inner_len = content.len() + self.inner_overhead();
        let sealed_len = inner_len + self.key.suite().seal_overhead();
        let id = self.id.as_bytes();
        if id.is_empty() {
            write_header(out, content_type, VERSION_1_2, number, id, sealed_len);
            let aad = additional_data(number, content_type, inner_len as u16);
            self.key.seal_hot(hot, number, aad, content, &[], out);
        } else {
            write_header(out, ContentType::TLS12_CID, VERSION_1_2, number, id, sealed_len);
            let aad = AdditionalDataWithId::new(number, id, inner_len as u16);
            self.key.seal_hot(hot, number, aad, content, &[content_type.0], out);
        }
        Some(sequence)
    }
}

/// Opens the peer's records of epoch 1 and refuses replays.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct ReadKeys {
    key: TrafficKey,
    window: ReplayWindow,
    content_max: u16,
    /// What we want to read on the peer's records; empty for nothing.
    id: ConnectionId,
}

/// An authentic record.
#[derive(Debug)]
pub(crate) struct Opened<'a> {
    pub(crate) content_type: ContentType,
    pub(crate) sequence: u64,
    pub(crate) content: &'a [u8],
    /// No record with a higher number was authentic so far.
    pub(crate) is_newest: bool,
    /// It carried our connection id.
    pub(crate) has_id: bool,
}

impl ReadKeys {
    /// `content_max` is the longest content to take, in bytes: what the peer was told (RFC 8449).
    pub(crate) fn new(
        key: TrafficKey,
        id: ConnectionId,
        window_records: u16,
        content_max: u16,
    ) -> Self {
        Self { key, window: ReplayWindow::new(window_records), content_max, id }
    }

    /// What we want to read on the peer's records.
    pub(crate) fn id(&self) -> &ConnectionId {
        &self.id
    }

    /// The other end of these keys.
    #[cfg(test)]
    pub(crate) fn peers_write_keys(&self) -> WriteKeys {
        WriteKeys::new(self.key.clone(), self.id.clone(), CONTENT_BYTES_MAX)
    }

    /// Opens a record in place; one that is refused leaves nothing behind but a cause.
    pub(crate) fn open<'a>(&mut self, record: Record<'a>) -> Result<Opened<'a>, DropCause> {
        self.open_hot(&mut HotKey::default(), record)
    }

    /// [`open`](Self::open) with the key that was used last.
    pub(crate) fn open_hot<'a>(
        &mut self,
        hot: &mut HotKey,
        record: Record<'a>,
    ) -> Result<Opened<'a>, DropCause> {
        if record.epoch != PROTECTED_EPOCH {
            return Err(DropCause::WrongEpoch);
        }
        if record.version != VERSION_1_2 {
            return Err(DropCause::WrongVersion);
        }
        check_id(&record, self.id.as_bytes())?;
        if !self.window.check(record.sequence) {
            return Err(DropCause::Replayed);
        }
        let (number, sequence, kind, id) =
            (record.number(), record.sequence, record.content_type, record.id);
        let has_id = kind == ContentType::TLS12_CID;
        let content = if has_id {
            let aad = |length| AdditionalDataWithId::new(number, id, length);
            self.key.open_hot(hot, number, aad, record.body)
        } else {
            let aad = |length| additional_data(number, kind, length);
            self.key.open_hot(hot, number, aad, record.body)
        };
        let content = content.ok_or(DropCause::BadTag)?;
        let is_newest = self.window.mark(sequence);
        if content.len() > usize::from(CONTENT_BYTES_MAX) {
            return Err(DropCause::TooLong);
        }
        let (content_type, content) =
            if has_id { split_inner(content)? } else { (kind, &*content) };
        // RFC 8449 §4 lets DTLS discard it; the association is worth more than the sender's mistake.
        // Whether the type and padding within count is not said there, so they do not.
        if content.len() > usize::from(self.content_max) {
            return Err(DropCause::TooLong);
        }
        Ok(Opened { content_type, sequence, content, is_newest, has_id })
    }
}

/// RFC 9146 §3: once an id is agreed on, nothing without it, and nothing with another one, is of
/// this association. Without one, the type that promises one has no meaning.
fn check_id(record: &Record<'_>, expected: &[u8]) -> Result<(), DropCause> {
    match (record.content_type == ContentType::TLS12_CID, expected.is_empty()) {
        (false, true) => Ok(()),
        (true, false) if record.id == expected => Ok(()),
        (true, _) => Err(DropCause::WrongConnectionId),
        (false, false) => Err(DropCause::MissingConnectionId),
    }
}

/// The real type is the last byte that is not zero; what follows is padding (RFC 9146 §4).
fn split_inner(inner: &[u8]) -> Result<(ContentType, &[u8]), DropCause> {
    let at = inner.iter().rposition(|byte| *byte != 0).ok_or(DropCause::NoContentType)?;
    Ok((ContentType(inner[at]), &inner[..at]))
}

#[cfg(test)]
mod tests {
    use super::super::Records;
    use super::*;
    use crate::crypto::CipherSuite;

    fn pair() -> (WriteKeys, ReadKeys) {
        pair_with_id(&[])
    }

    fn pair_with_id(id: &[u8]) -> (WriteKeys, ReadKeys) {
        let key = || TrafficKey::new(CipherSuite::Aes128GcmSha256, &[1; 16], &[2; 4]);
        let (id, max) = (ConnectionId::new(id).unwrap(), CONTENT_BYTES_MAX);
        (WriteKeys::new(key(), id.clone(), max), ReadKeys::new(key(), id, 64, max))
    }

    fn open(read: &mut ReadKeys, mut datagram: Vec<u8>) -> Result<(u64, Vec<u8>), DropCause> {
        let record = Records::with_id_length(&mut datagram, read.id.len()).next().unwrap();
        read.open(record).map(|o| (o.sequence, o.content.to_vec()))
    }

    #[test]
    fn a_record_opens_once_and_a_forgery_does_not_move_the_window() {
        let (mut write, mut read) = pair();
        let (mut first, mut second) = (Vec::new(), Vec::new());
        write.seal(ContentType::APPLICATION_DATA, b"one", &mut first).unwrap();
        write.seal(ContentType::APPLICATION_DATA, b"two", &mut second).unwrap();
        // Far ahead and forged: must not push the real ones out of the window.
        let mut forged = second.clone();
        forged[5..11].copy_from_slice(&[0x7f; 6]);
        assert_eq!(open(&mut read, forged), Err(DropCause::BadTag));
        assert_eq!(open(&mut read, second.clone()), Ok((1, b"two".to_vec())));
        assert_eq!(open(&mut read, second), Err(DropCause::Replayed));
        assert_eq!(open(&mut read, first), Ok((0, b"one".to_vec())));
    }

    #[test]
    fn a_key_is_not_used_beyond_its_limit() {
        let (mut write, _) = pair();
        write.preset_sequence(CipherSuite::Aes128GcmSha256.records_max() - 1);
        let mut out = Vec::new();
        assert!(write.seal(ContentType::APPLICATION_DATA, b"last", &mut out).is_some());
        let length = out.len();
        assert!(write.seal(ContentType::APPLICATION_DATA, b"one more", &mut out).is_none());
        assert_eq!(out.len(), length);
    }

    #[test]
    fn no_record_is_longer_than_its_reader_takes_and_a_longer_one_is_discarded() {
        let (mut write, mut read) = pair();
        write.plaintext_max = 64;
        let mut out = Vec::new();
        assert!(write.seal(ContentType::APPLICATION_DATA, &[1; 65], &mut out).is_none());
        assert_eq!((out.len(), write.next_sequence()), (0, 0));
        write.seal(ContentType::APPLICATION_DATA, &[1; 64], &mut out).unwrap();
        read.content_max = 63;
        assert_eq!(open(&mut read, out), Err(DropCause::TooLong));
    }

    #[test]
    fn only_epoch_one_and_version_1_2_are_opened() {
        let (mut write, mut read) = pair();
        let mut sealed = Vec::new();
        write.seal(ContentType::APPLICATION_DATA, b"x", &mut sealed).unwrap();
        let mut other_epoch = sealed.clone();
        other_epoch[4] = 2;
        assert_eq!(open(&mut read, other_epoch), Err(DropCause::WrongEpoch));
        let mut other_version = sealed;
        other_version[2] = 0xff;
        assert_eq!(open(&mut read, other_version), Err(DropCause::WrongVersion));
    }

    /// Made by another program, from the text of RFC 9146 §4 and §5.3 and with other primitives.
    #[test]
    fn records_with_an_id_are_byte_for_byte_what_the_rfc_says() {
        let raw: Vec<u8> = (0..32).collect();
        let iv: Vec<u8> = (0xa0..0xac).collect();
        let id = [0xc0, 0xff, 0xee, 1, 2, 3, 4, 5];
        let cases = [
            (
                CipherSuite::Aes128GcmSha256,
                "19fefd0001000000000007c0ffee0102030405002900010000000000076a3cd10b5b8a72b623a177\
                 d119e7629ee1d5ad178a27905c084879461ca056cc9a",
            ),
            (
                CipherSuite::Aes256GcmSha384,
                "19fefd0001000000000007c0ffee010203040500290001000000000007392c76e91a9a5739037ea7\
                 b2de9bd0f7e0d2c358fcddfcd6ed57ccdd3d9b2d27f9",
            ),
            (
                CipherSuite::Chacha20Poly1305Sha256,
                "19fefd0001000000000007c0ffee01020304050021d9d342e096a5e83271e933e2b6f3b4fb619886\
                 7d4fb30296788cd36b7543eca04d",
            ),
        ];
        for (suite, expected) in cases {
            let key =
                || TrafficKey::new(suite, &raw[..suite.key_len()], &iv[..suite.fixed_iv_len()]);
            let mut write = WriteKeys::new(key(), id.into(), CONTENT_BYTES_MAX);
            write.preset_sequence(7);
            let mut sealed = Vec::new();
            write.seal(ContentType::APPLICATION_DATA, b"return to sender", &mut sealed).unwrap();
            assert_eq!(data_encoding::HEXLOWER.encode(&sealed), expected, "{suite:?}");
            assert_eq!(sealed.len(), 16 + write.overhead());
            let mut read = ReadKeys::new(key(), id.into(), 64, CONTENT_BYTES_MAX);
            assert_eq!(open(&mut read, sealed), Ok((7, b"return to sender".to_vec())));
        }
    }

    #[test]
    fn padding_is_taken_off_and_nothing_but_padding_is_refused() {
        let raw: Vec<u8> = (0..16).collect();
        let key = TrafficKey::new(CipherSuite::Aes128GcmSha256, &raw, &[0xa0, 0xa1, 0xa2, 0xa3]);
        let id = [0xc0, 0xff, 0xee, 1, 2, 3, 4, 5];
        let mut read = ReadKeys::new(key, id.into(), 64, CONTENT_BYTES_MAX);
        let mut take = |hex: &str| {
            let record = data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap();
            open(&mut read, record)
        };
        // Eleven zeros behind the type.
        let padded = "19fefd0001000000000008c0ffee0102030405002a0001000000000008ab0974f452e18fb8d9fa\
                      21ecd79cf90756580db1238713616fd1f1f1e08ebe9641eb";
        assert_eq!(take(padded), Ok((8, b"padded".to_vec())));
        // Six zeros in all: neither content nor type.
        let zeros = "19fefd0001000000000009c0ffee0102030405001e0001000000000009c1d0121c6342e46ad0b4\
                     0d9cf5cbf0203cf3ca6b16a8";
        assert_eq!(take(zeros), Err(DropCause::NoContentType));
        assert_eq!(take(zeros), Err(DropCause::Replayed), "it was authentic");
    }

    #[test]
    fn with_an_id_agreed_on_no_record_without_it_or_with_another_is_opened() {
        let (mut write, mut read) = pair_with_id(b"name");
        let mut sealed = Vec::new();
        write.seal(ContentType::APPLICATION_DATA, b"x", &mut sealed).unwrap();
        let mut renamed = sealed.clone();
        renamed[11] ^= 1;
        assert_eq!(open(&mut read, renamed), Err(DropCause::WrongConnectionId));
        let mut stripped = sealed.clone();
        stripped.drain(11..15);
        for kind in 20..28u8 {
            stripped[0] = kind;
            let expected = match kind {
                // Its first bytes are taken for the id, which leaves no whole record.
                25 => continue,
                _ => DropCause::MissingConnectionId,
            };
            assert_eq!(open(&mut read, stripped.clone()), Err(expected), "type {kind}");
        }
        let (mut write, mut nameless) = pair();
        let mut plain = Vec::new();
        write.seal(ContentType::APPLICATION_DATA, b"x", &mut plain).unwrap();
        plain[0] = 25;
        assert_eq!(open(&mut nameless, plain), Err(DropCause::WrongConnectionId));
        assert_eq!(open(&mut read, sealed), Ok((0, b"x".to_vec())));
    }

    #[test]
    fn every_byte_of_a_record_with_an_id_counts() {
        let (mut write, mut read) = pair_with_id(b"name");
        let mut sealed = Vec::new();
        write.seal(ContentType::APPLICATION_DATA, b"hello", &mut sealed).unwrap();
        for i in 0..sealed.len() {
            let mut bent = sealed.clone();
            bent[i] ^= 1;
            let mut records = Records::with_id_length(&mut bent, 4);
            if let Some(record) = records.next() {
                assert!(read.open(record).is_err(), "byte {i}");
            }
        }
        assert_eq!(open(&mut read, sealed), Ok((0, b"hello".to_vec())));
    }

    #[test]
    fn the_largest_content_leaves_room_for_its_type() {
        let (mut write, mut read) = pair_with_id(b"name");
        let mut sealed = Vec::new();
        let kind = ContentType::APPLICATION_DATA;
        let largest = usize::from(CONTENT_BYTES_MAX) - 1;
        assert_eq!(write.seal(kind, &vec![1; largest + 1], &mut sealed), None);
        write.seal(kind, &vec![1; largest], &mut sealed).unwrap();
        assert_eq!(open(&mut read, sealed).map(|(_, c)| c.len()), Ok(largest));
    }
}
