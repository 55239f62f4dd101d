use std::sync::LazyLock;

use ring::{digest, hmac};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use super::{CipherSuite, PremasterSecret, TrafficKey};

/// Length of the Finished message's content (RFC 5246 §7.4.9).
pub(crate) const VERIFY_DATA_LEN: usize = 12;

/// RFC 5246 §5: P_hash over label and seeds, as long as `out`.
fn prf(algorithm: hmac::Algorithm, secret: &[u8], label: &[u8], seeds: &[&[u8]], out: &mut [u8]) {
    let key = hmac::Key::new(algorithm, secret);
    let with_seed = |first: Option<&[u8]>| {
        let mut context = hmac::Context::with_key(&key);
        first.into_iter().for_each(|a| context.update(a));
        context.update(label);
        seeds.iter().for_each(|seed| context.update(seed));
        context.sign()
    };
    let blank = blank(algorithm);
    let wipe = |tag: &mut hmac::Tag| {
        *tag = blank;
        std::hint::black_box(tag);
    };
    let mut a = with_seed(None);
    let mut chunks = out.chunks_mut(algorithm.digest_algorithm().output_len()).peekable();
    while let Some(chunk) = chunks.next() {
        let mut block = with_seed(Some(a.as_ref()));
        chunk.copy_from_slice(&block.as_ref()[..chunk.len()]);
        wipe(&mut block);
        if chunks.peek().is_some() {
            a = hmac::sign(&key, a.as_ref());
        }
    }
    wipe(&mut a);
}

/// What leads to the output is overwritten with this, as ring does not. Its own copies stay out of reach.
fn blank(algorithm: hmac::Algorithm) -> hmac::Tag {
    static BLANKS: LazyLock<[hmac::Tag; 2]> = LazyLock::new(|| {
        [hmac::HMAC_SHA256, hmac::HMAC_SHA384]
            .map(|algorithm| hmac::sign(&hmac::Key::new(algorithm, &[]), &[]))
    });
    BLANKS[usize::from(algorithm != hmac::HMAC_SHA256)]
}

/// Constant-time comparison.
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// The 48 bytes everything else derives from.
#[derive(Clone)]
pub(crate) struct MasterSecret {
    suite: CipherSuite,
    bytes: Zeroizing<[u8; 48]>,
}

/// Both hello randoms, client's first.
pub(crate) struct Randoms {
    pub(crate) client: [u8; 32],
    pub(crate) server: [u8; 32],
}

impl MasterSecret {
    /// RFC 7627 §4: bound to everything said up to and including ClientKeyExchange.
    pub(crate) fn extended(
        suite: CipherSuite,
        premaster: &PremasterSecret,
        transcript: &[u8],
    ) -> Self {
        let session_hash = digest::digest(suite.hash(), transcript);
        Self::derive(suite, premaster, b"extended master secret", &[session_hash.as_ref()])
    }

    /// RFC 5246 §8.1, for peers without the extension where a setting admits them.
    pub(crate) fn classic(
        suite: CipherSuite,
        premaster: &PremasterSecret,
        randoms: &Randoms,
    ) -> Self {
        Self::derive(suite, premaster, b"master secret", &[&randoms.client, &randoms.server])
    }

    /// The secret of an earlier handshake, to resume it.
    pub(crate) fn from_bytes(suite: CipherSuite, bytes: [u8; 48]) -> Self {
        Self { suite, bytes: Zeroizing::new(bytes) }
    }

    fn derive(
        suite: CipherSuite,
        premaster: &PremasterSecret,
        label: &[u8],
        seeds: &[&[u8]],
    ) -> Self {
        let mut bytes = Zeroizing::new([0; 48]);
        prf(suite.hmac(), premaster.as_bytes(), label, seeds, &mut bytes[..]);
        Self { suite, bytes }
    }

    pub(crate) fn suite(&self) -> CipherSuite {
        self.suite
    }

    pub(crate) fn as_bytes(&self) -> &[u8; 48] {
        &self.bytes
    }

    /// RFC 5246 §6.3: (client's write key, server's write key).
    pub(crate) fn traffic_keys(&self, randoms: &Randoms) -> (TrafficKey, TrafficKey) {
        let (key_len, iv_len) = (self.suite.key_len(), self.suite.fixed_iv_len());
        let mut block = Zeroizing::new([0u8; 2 * (32 + 12)]);
        let used = 2 * (key_len + iv_len);
        let seeds: [&[u8]; 2] = [&randoms.server, &randoms.client];
        prf(self.suite.hmac(), &self.bytes[..], b"key expansion", &seeds, &mut block[..used]);
        let (keys, ivs) = block[..used].split_at(2 * key_len);
        let (client_key, server_key) = keys.split_at(key_len);
        let (client_iv, server_iv) = ivs.split_at(iv_len);
        (
            TrafficKey::new(self.suite, client_key, client_iv),
            TrafficKey::new(self.suite, server_key, server_iv),
        )
    }

    /// RFC 5246 §7.4.9 over the transcript so far.
    pub(crate) fn verify_data(
        &self,
        from_client: bool,
        transcript: &[u8],
    ) -> [u8; VERIFY_DATA_LEN] {
        self.verify_data_of(from_client, TranscriptHash::new(self.suite, transcript))
    }

    /// The same over a transcript that was hashed already.
    pub(crate) fn verify_data_of(
        &self,
        from_client: bool,
        said: TranscriptHash,
    ) -> [u8; VERIFY_DATA_LEN] {
        let label: &[u8] = if from_client { b"client finished" } else { b"server finished" };
        let mut out = [0; VERIFY_DATA_LEN];
        prf(self.suite.hmac(), &self.bytes[..], label, &[said.0.finish().as_ref()], &mut out);
        out
    }

    /// RFC 5705 §4 with a context.
    pub(crate) fn export(
        &self,
        randoms: &Randoms,
        label: &str,
        context: Option<&[u8]>,
        out: &mut [u8],
    ) {
        let length = context.map(|c| (c.len() as u16).to_be_bytes());
        let mut seeds: Vec<&[u8]> = vec![&randoms.client, &randoms.server];
        if let (Some(length), Some(context)) = (&length, context) {
            seeds.extend([&length[..], context]);
        }
        prf(self.suite.hmac(), &self.bytes[..], label.as_bytes(), &seeds, out);
    }
}

/// The hash of a transcript that goes on.
#[derive(Clone)]
pub(crate) struct TranscriptHash(digest::Context);

impl TranscriptHash {
    pub(crate) fn new(suite: CipherSuite, transcript: &[u8]) -> Self {
        let mut said = Self(digest::Context::new(suite.hash()));
        said.hear(transcript);
        said
    }

    pub(crate) fn hear(&mut self, message: &[u8]) {
        self.0.update(message);
    }
}

impl std::fmt::Debug for MasterSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MasterSecret(hidden)")
    }
}

impl Drop for Randoms {
    fn drop(&mut self) {
        self.client.zeroize();
        self.server.zeroize();
    }
}

#[cfg(test)]
mod vectors;

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::HEXLOWER;

    fn hex(text: &str) -> Vec<u8> {
        HEXLOWER.decode(text.replace(' ', "").as_bytes()).unwrap()
    }

    /// The vectors that the IETF TLS list settled on for the TLS 1.2 PRF (P_SHA256).
    #[test]
    fn the_prf_matches_the_published_sha256_vector() {
        let mut out = [0; 100];
        prf(
            hmac::HMAC_SHA256,
            &hex("9bbe436ba940f017b17652849a71db35"),
            b"test label",
            &[&hex("a0ba9f936cda311827a6f796ffd5198c")],
            &mut out,
        );
        assert_eq!(
            out.to_vec(),
            hex(concat!(
                "e3f229ba727be17b8d122620557cd453c2aab21d07c3d495329b52d4e61edb5a",
                "6b301791e90d35c9c9a46b4e14baf9af0fa022f7077def17abfd3797c0564bab",
                "4fbc91666e9def9b97fce34f796789baa48082d122ee42c5a72e5a5110fff701",
                "87347b66"
            ))
        );
    }

    #[test]
    fn comparison_sees_every_bit_and_the_length() {
        assert!(same(b"abc", b"abc"));
        assert!(!same(b"abc", b"abd") && !same(b"abc", b"ab") && same(b"", b""));
    }
}
