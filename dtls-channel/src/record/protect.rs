use super::Record;
use super::header::{HEADER_LEN, additional_data, number, write_header};
use super::replay::ReplayWindow;
use crate::crypto::TrafficKey;
use crate::stats::DropCause;
use crate::wire::ContentType;
use crate::wire::ids::VERSION_1_2;

/// The only protected epoch of an association: there is no renegotiation.
const PROTECTED_EPOCH: u16 = 1;
/// The largest plaintext of a record (RFC 5246 §6.2.1).
pub(crate) const CONTENT_BYTES_MAX: u16 = 1 << 14;

/// Appends an unprotected record of epoch 0.
pub(crate) fn plaintext(
    out: &mut Vec<u8>,
    content_type: ContentType,
    version: u16,
    sequence: &mut u64,
    body: &[u8],
) {
    write_header(out, content_type, version, number(0, *sequence), body.len());
    out.extend_from_slice(body);
    *sequence += 1;
}

/// Seals our records of epoch 1, each under a sequence number that is never used again.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct WriteKeys {
    key: TrafficKey,
    next: u64,
    content_max: u16,
}

impl WriteKeys {
    /// `content_max` is the longest content to seal, in bytes: what the peer takes (RFC 8449).
    pub(crate) fn new(key: TrafficKey, content_max: u16) -> Self {
        Self { key, next: 0, content_max }
    }

    /// The longest content of a record, in bytes.
    pub(crate) fn content_max(&self) -> usize {
        usize::from(self.content_max)
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
        HEADER_LEN + self.key.suite().seal_overhead()
    }

    /// Appends one sealed record and returns its sequence number; `None` when the key is used up.
    pub(crate) fn seal(
        &mut self,
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
        let sealed_len = content.len() + self.key.suite().seal_overhead();
        write_header(out, content_type, VERSION_1_2, number, sealed_len);
        let aad = additional_data(number, content_type, content.len() as u16);
        self.key.seal(number, aad, content, out);
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
}

/// An authentic record.
#[derive(Debug)]
pub(crate) struct Opened<'a> {
    pub(crate) content_type: ContentType,
    pub(crate) sequence: u64,
    pub(crate) content: &'a [u8],
}

impl ReadKeys {
    /// `content_max` is the longest content to take, in bytes: what the peer was told (RFC 8449).
    pub(crate) fn new(key: TrafficKey, window_records: u16, content_max: u16) -> Self {
        Self { key, window: ReplayWindow::new(window_records), content_max }
    }

    /// The other end of these keys.
    #[cfg(test)]
    pub(crate) fn peers_write_keys(&self) -> WriteKeys {
        WriteKeys::new(self.key.clone(), CONTENT_BYTES_MAX)
    }

    /// Opens a record in place; one that is refused leaves nothing behind but a cause.
    pub(crate) fn open<'a>(&mut self, record: Record<'a>) -> Result<Opened<'a>, DropCause> {
        if record.epoch != PROTECTED_EPOCH {
            return Err(DropCause::WrongEpoch);
        }
        if record.version != VERSION_1_2 {
            return Err(DropCause::WrongVersion);
        }
        if !self.window.check(record.sequence) {
            return Err(DropCause::Replayed);
        }
        let (number, sequence, content_type) =
            (record.number(), record.sequence, record.content_type);
        let aad = |length| additional_data(number, content_type, length);
        let content = self.key.open(number, aad, record.body).ok_or(DropCause::BadTag)?;
        self.window.mark(sequence);
        // RFC 8449 §4 lets DTLS discard it; the association is worth more than the sender's mistake.
        if content.len() > usize::from(self.content_max) {
            return Err(DropCause::TooLong);
        }
        Ok(Opened { content_type, sequence, content })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Records;
    use super::*;
    use crate::crypto::CipherSuite;

    fn pair() -> (WriteKeys, ReadKeys) {
        let key = || TrafficKey::new(CipherSuite::Aes128GcmSha256, &[1; 16], &[2; 4]);
        (WriteKeys::new(key(), CONTENT_BYTES_MAX), ReadKeys::new(key(), 64, CONTENT_BYTES_MAX))
    }

    fn open(read: &mut ReadKeys, mut datagram: Vec<u8>) -> Result<(u64, Vec<u8>), DropCause> {
        let record = Records::new(&mut datagram).next().unwrap();
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
        write.content_max = 64;
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
}
