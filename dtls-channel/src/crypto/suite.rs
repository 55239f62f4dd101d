use ring::aead::{self, LessSafeKey, UnboundKey};
use ring::{digest, hmac};
use zeroize::{Zeroize, Zeroizing};

use super::HotKey;

/// The cipher suites of our profile, all ECDHE_ECDSA with an AEAD.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CipherSuite {
    /// `TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256` (RFC 5289), our first choice.
    Aes128GcmSha256,
    /// `TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384` (RFC 5289).
    Aes256GcmSha384,
    /// `TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256` (RFC 7905).
    Chacha20Poly1305Sha256,
}

/// RFC 5288 §3: the part of the nonce that travels.
const GCM_EXPLICIT_NONCE_LEN: usize = 8;
const TAG_LEN: usize = 16;
/// Records sealed under one GCM key. RFC 9147 §4.5.3 allows 2^24.5; we stop well before.
const GCM_RECORDS_PER_KEY_MAX: u64 = 1 << 24;
/// The sequence number has 48 bits; the last 2^16 are never used.
const RECORDS_PER_EPOCH_MAX: u64 = (1 << 48) - (1 << 16);

impl CipherSuite {
    /// All of them, best first.
    pub const ALL: [Self; 3] =
        [Self::Aes128GcmSha256, Self::Aes256GcmSha384, Self::Chacha20Poly1305Sha256];

    /// The number in IANA's registry.
    #[must_use]
    pub const fn iana(self) -> u16 {
        match self {
            Self::Aes128GcmSha256 => 0xc02b,
            Self::Aes256GcmSha384 => 0xc02c,
            Self::Chacha20Poly1305Sha256 => 0xcca9,
        }
    }

    /// IANA's name without the leading `TLS_`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aes128GcmSha256 => "ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
            Self::Aes256GcmSha384 => "ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
            Self::Chacha20Poly1305Sha256 => "ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        }
    }

    /// The suite with this number, if the profile has it.
    #[must_use]
    pub fn from_iana(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.iana() == number)
    }

    pub(crate) fn hash(self) -> &'static digest::Algorithm {
        match self {
            Self::Aes256GcmSha384 => &digest::SHA384,
            Self::Aes128GcmSha256 | Self::Chacha20Poly1305Sha256 => &digest::SHA256,
        }
    }

    pub(crate) fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Aes256GcmSha384 => hmac::HMAC_SHA384,
            Self::Aes128GcmSha256 | Self::Chacha20Poly1305Sha256 => hmac::HMAC_SHA256,
        }
    }

    fn aead(self) -> &'static aead::Algorithm {
        match self {
            Self::Aes128GcmSha256 => &aead::AES_128_GCM,
            Self::Aes256GcmSha384 => &aead::AES_256_GCM,
            Self::Chacha20Poly1305Sha256 => &aead::CHACHA20_POLY1305,
        }
    }

    pub(crate) const fn key_len(self) -> usize {
        match self {
            Self::Aes128GcmSha256 => 16,
            Self::Aes256GcmSha384 | Self::Chacha20Poly1305Sha256 => 32,
        }
    }

    pub(crate) const fn fixed_iv_len(self) -> usize {
        match self {
            Self::Aes128GcmSha256 | Self::Aes256GcmSha384 => 4,
            Self::Chacha20Poly1305Sha256 => 12,
        }
    }

    const fn explicit_nonce_len(self) -> usize {
        match self {
            Self::Aes128GcmSha256 | Self::Aes256GcmSha384 => GCM_EXPLICIT_NONCE_LEN,
            Self::Chacha20Poly1305Sha256 => 0,
        }
    }

    /// How much longer a sealed record is than its content, in bytes.
    pub(crate) const fn seal_overhead(self) -> usize {
        self.explicit_nonce_len() + TAG_LEN
    }

    /// How many records may be sealed under one key.
    pub(crate) const fn records_max(self) -> u64 {
        match self {
            Self::Aes128GcmSha256 | Self::Aes256GcmSha384 => GCM_RECORDS_PER_KEY_MAX,
            Self::Chacha20Poly1305Sha256 => RECORDS_PER_EPOCH_MAX,
        }
    }
}

/// The key and fixed nonce part of one direction.
///
/// Raw bytes, not ring's expanded key (544 bytes), so that an idle association stays small; the
/// expansion costs about 0.15 µs, see [`HotKey`].
#[derive(Clone)]
pub(crate) struct TrafficKey {
    suite: CipherSuite,
    key: Zeroizing<[u8; 32]>,
    iv: Zeroizing<[u8; 12]>,
}

impl TrafficKey {
    /// Takes `suite`'s key and fixed nonce from the front of two parts of the key block.
    pub(crate) fn new(suite: CipherSuite, key: &[u8], iv: &[u8]) -> Self {
        let mut this = Self { suite, key: Zeroizing::new([0; 32]), iv: Zeroizing::new([0; 12]) };
        this.key[..suite.key_len()].copy_from_slice(key);
        this.iv[..suite.fixed_iv_len()].copy_from_slice(iv);
        this
    }

    pub(crate) fn suite(&self) -> CipherSuite {
        self.suite
    }

    /// The key, padded with zeros.
    pub(super) fn raw(&self) -> &Zeroizing<[u8; 32]> {
        &self.key
    }

    #[inline(never)]
    pub(super) fn expand(&self) -> Option<LessSafeKey> {
        let raw = &self.key[..self.suite.key_len()];
        UnboundKey::new(self.suite.aead(), raw).ok().map(LessSafeKey::new)
    }

    /// Never random (RFC 6347 §4.1, RFC 5288 §3, RFC 7905 §2): epoch and sequence are unique per key.
    fn nonce(&self, epoch_and_sequence: u64) -> aead::Nonce {
        let counter = epoch_and_sequence.to_be_bytes();
        let mut nonce = *self.iv;
        for (n, c) in nonce[4..].iter_mut().zip(counter) {
            *n ^= c;
        }
        aead::Nonce::assume_unique_for_key(nonce)
    }

    /// Appends what was sealed to `out`: explicit nonce, ciphertext, tag. The plaintext is `content`
    /// and `trailer`, which is the type of a record with a connection id.
    ///
    /// `aad` is the additional data of RFC 5246 §6.2.3.3 or RFC 9146 §5.3.
    pub(crate) fn seal_hot(
        &self,
        hot: &mut HotKey,
        epoch_and_sequence: u64,
        aad: impl AsRef<[u8]>,
        content: &[u8],
        trailer: &[u8],
        out: &mut Vec<u8>,
    ) {
        out.reserve(content.len() + trailer.len() + self.suite.seal_overhead());
        if self.suite.explicit_nonce_len() > 0 {
            out.extend_from_slice(&epoch_and_sequence.to_be_bytes());
        }
        let start = out.len();
        out.extend_from_slice(content);
        out.extend_from_slice(trailer);
        let sealed = hot.of(self).and_then(|key| {
            let nonce = self.nonce(epoch_and_sequence);
            key.seal_in_place_separate_tag(nonce, aead::Aad::from(aad), &mut out[start..]).ok()
        });
        match sealed {
            Some(tag) => out.extend_from_slice(tag.as_ref()),
            // ring refuses only keys of a wrong length and contents of 2^36 bytes; neither exists.
            // Should it ever, nothing readable may leave.
            None => out[start..].zeroize(),
        }
    }

    /// [`seal_hot`](Self::seal_hot) with nothing held.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn seal(
        &self,
        epoch_and_sequence: u64,
        aad: impl AsRef<[u8]>,
        content: &[u8],
        trailer: &[u8],
        out: &mut Vec<u8>,
    ) {
        self.seal_hot(&mut HotKey::default(), epoch_and_sequence, aad, content, trailer, out);
    }

    /// [`open_hot`](Self::open_hot) with nothing held.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn open<'a, A: AsRef<[u8]>>(
        &self,
        epoch_and_sequence: u64,
        aad: impl FnOnce(u16) -> A,
        body: &'a mut [u8],
    ) -> Option<&'a mut [u8]> {
        self.open_hot(&mut HotKey::default(), epoch_and_sequence, aad, body)
    }

    /// Opens `body` (explicit nonce, ciphertext, tag) in place. On failure its bytes are garbage.
    pub(crate) fn open_hot<'a, A: AsRef<[u8]>>(
        &self,
        hot: &mut HotKey,
        epoch_and_sequence: u64,
        aad: impl FnOnce(u16) -> A,
        body: &'a mut [u8],
    ) -> Option<&'a mut [u8]> {
        let overhead = self.suite.seal_overhead();
        let content_len = u16::try_from(body.len().checked_sub(overhead)?).ok()?;
        let (explicit, sealed) = body.split_at_mut(self.suite.explicit_nonce_len());
        let nonce = match <[u8; 8]>::try_from(&*explicit) {
            // The peer chooses its explicit nonce; ours equals epoch and sequence.
            Ok(theirs) => self.nonce(u64::from_be_bytes(theirs)),
            Err(_) => self.nonce(epoch_and_sequence),
        };
        hot.of(self)?.open_in_place(nonce, aead::Aad::from(aad(content_len)), sealed).ok()
    }
}

impl std::fmt::Debug for TrafficKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TrafficKey({})", self.suite.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_records_open_only_unchanged_and_under_the_same_number_and_header() {
        for suite in CipherSuite::ALL {
            let key =
                TrafficKey::new(suite, &vec![7; suite.key_len()], &vec![9; suite.fixed_iv_len()]);
            let aad = [3; 13];
            let mut sealed = Vec::new();
            key.seal(0x0001_0000_0000_0005, aad, b"hel", b"lo", &mut sealed);
            assert_eq!(sealed.len(), 5 + suite.seal_overhead());
            let open = |n, aad, mut body: Vec<u8>| {
                key.open(n, |_| aad, &mut body).map(|plain| plain.to_vec())
            };
            assert_eq!(
                open(0x0001_0000_0000_0005, aad, sealed.clone()).as_deref(),
                Some(&b"hello"[..])
            );
            assert_eq!(open(0x0001_0000_0000_0005, [4; 13], sealed.clone()), None);
            for i in 0..sealed.len() {
                let mut bent = sealed.clone();
                bent[i] ^= 1;
                assert_eq!(open(0x0001_0000_0000_0005, aad, bent), None, "{suite:?} byte {i}");
                assert_eq!(open(0x0001_0000_0000_0005, aad, sealed[..i].to_vec()), None);
            }
        }
    }

    #[test]
    fn the_explicit_nonce_is_epoch_and_sequence() {
        let key = TrafficKey::new(CipherSuite::Aes128GcmSha256, &[7; 16], &[9; 4]);
        let mut sealed = Vec::new();
        key.seal(0x0001_0000_0000_0102, [0; 13], b"x", b"", &mut sealed);
        assert_eq!(sealed[..8], [0, 1, 0, 0, 0, 0, 1, 2]);
    }

    #[test]
    fn debug_output_shows_no_key_bytes() {
        let key = TrafficKey::new(CipherSuite::Aes128GcmSha256, &[0xab; 16], &[0xcd; 4]);
        let text = format!("{key:?}");
        assert_eq!(text, "TrafficKey(ECDHE_ECDSA_WITH_AES_128_GCM_SHA256)");
    }
}
