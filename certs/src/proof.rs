//! How an agent proves that it holds a token's secret, without sending the secret.
//!
//! The proof is an HMAC-SHA-256 over everything that the enrolment is about, so that a proof made
//! for one channel, one pair of keys, one agent or one token is worth nothing for any other:
//!
//! ```text
//! proof = HMAC-SHA-256(proof key, field(label) ‖ field(exporter) ‖ field(server fingerprint)
//!                                 ‖ field(agent fingerprint) ‖ field(agent id) ‖ field(token id))
//! field(x)  = length of x as 4 bytes, big endian ‖ x
//! proof key = HMAC-SHA-256(token secret, "metadata-enrolment-proof-key-v1")
//! ```
//!
//! The exporter (RFC 5705) differs for every handshake and is known only to its two ends: a proof
//! cannot be replayed, and a man in the middle, who has two handshakes, cannot forward one. The
//! length prefixes keep two different sets of fields from ever giving the same bytes.
//!
//! The server stores the proof key, not the secret. That is enough to check proofs, and by the
//! nature of a MAC also enough to make them: whoever reads the store can take an unused token's
//! place until it expires, but cannot print the token again. `docs/threat-model.md` weighs this.

use std::fmt;

use data_encoding::HEXLOWER;
use ring::hmac;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use zeroize::Zeroizing;

use crate::Fingerprint;

/// The RFC 5705 label under which both ends export the channel's binding, with an empty context.
pub const EXPORTER_LABEL: &str = "EXPORTER-metadata-enrolment-v1";

/// Bytes taken from the exporter.
pub const EXPORTER_BYTES: usize = 32;

/// Bytes of a proof: one HMAC-SHA-256.
pub const PROOF_BYTES: usize = 32;

/// Bytes of a token's secret.
pub const SECRET_BYTES: usize = 32;

const PROOF_LABEL: &[u8] = b"metadata-enrolment-proof-v1";
const PROOF_KEY_LABEL: &[u8] = b"metadata-enrolment-proof-key-v1";

/// The key that proofs are made and checked with, derived from a token's secret.
///
/// Serialises to hex, for the server's store. Zeroised when dropped, hidden from `Debug`.
#[derive(Clone)]
pub struct ProofKey(Zeroizing<[u8; 32]>);

impl ProofKey {
    /// Derives the key from a token's secret. The secret is 32 uniformly random bytes, so one
    /// application of the PRF is a sound derivation (it is the expand step of RFC 5869).
    pub fn derive(secret: &[u8; SECRET_BYTES]) -> Self {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), PROOF_KEY_LABEL);
        let mut key = Zeroizing::new([0; 32]);
        key.copy_from_slice(tag.as_ref());
        Self(key)
    }

    fn hmac(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, self.0.as_slice())
    }
}

impl fmt::Debug for ProofKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProofKey(hidden)")
    }
}

impl Serialize for ProofKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(HEXLOWER.encode(self.0.as_slice())))
    }
}

impl<'de> Deserialize<'de> for ProofKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        // Fixed words: the decoder's own error would quote key material.
        let malformed = || de::Error::custom("proof key is not 64 lower-case hex digits");
        let bytes = Zeroizing::new(HEXLOWER.decode(text.as_bytes()).map_err(|_| malformed())?);
        let key = <[u8; 32]>::try_from(bytes.as_slice()).map_err(|_| malformed())?;
        Ok(Self(Zeroizing::new(key)))
    }
}

/// Makes the proof for one enrolment. Agents use [`crate::EnrolmentToken::prove`], which fills in
/// the token's own fields.
///
/// `exporter` is the channel's export under [`EXPORTER_LABEL`]; `server` and `agent` are the
/// fingerprints of the certificates of *this* channel, as each end has seen them.
pub fn compute(
    key: &ProofKey,
    exporter: &[u8; EXPORTER_BYTES],
    server: &Fingerprint,
    agent: &Fingerprint,
    agent_id: &str,
    token_id: &str,
) -> [u8; PROOF_BYTES] {
    let input = proof_input(exporter, server, agent, agent_id, token_id);
    let mut proof = [0; PROOF_BYTES];
    proof.copy_from_slice(hmac::sign(&key.hmac(), &input).as_ref());
    proof
}

/// Whether `proof` is the proof for these inputs; the comparison runs in constant time. Servers
/// use [`crate::TokenRecord::check`], which also looks at expiry and earlier use.
pub fn verify(
    key: &ProofKey,
    exporter: &[u8; EXPORTER_BYTES],
    server: &Fingerprint,
    agent: &Fingerprint,
    agent_id: &str,
    token_id: &str,
    proof: &[u8],
) -> bool {
    let input = proof_input(exporter, server, agent, agent_id, token_id);
    hmac::verify(&key.hmac(), &input, proof).is_ok()
}

fn proof_input(
    exporter: &[u8; EXPORTER_BYTES],
    server: &Fingerprint,
    agent: &Fingerprint,
    agent_id: &str,
    token_id: &str,
) -> Vec<u8> {
    let fields = [
        PROOF_LABEL,
        exporter,
        server.as_bytes(),
        agent.as_bytes(),
        agent_id.as_bytes(),
        token_id.as_bytes(),
    ];
    let mut input = Vec::with_capacity(fields.iter().map(|field| 4 + field.len()).sum());
    for field in fields {
        // Ids are far below 4 GiB; a longer one would wrap here and still be MACed in full.
        input.extend_from_slice(&(field.len() as u32).to_be_bytes());
        input.extend_from_slice(field);
    }
    input
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone)]
    struct Inputs {
        secret: [u8; 32],
        exporter: [u8; 32],
        server: Fingerprint,
        agent: Fingerprint,
        agent_id: String,
        token_id: String,
    }

    impl Inputs {
        fn example() -> Self {
            Self {
                secret: [1; 32],
                exporter: [2; 32],
                server: Fingerprint::from_bytes([3; 32]),
                agent: Fingerprint::from_bytes([4; 32]),
                agent_id: "web-1".into(),
                token_id: "00112233".into(),
            }
        }

        fn proof(&self) -> [u8; 32] {
            let key = ProofKey::derive(&self.secret);
            let Self { exporter, server, agent, agent_id, token_id, .. } = self;
            compute(&key, exporter, server, agent, agent_id, token_id)
        }

        fn accepts(&self, proof: &[u8]) -> bool {
            let key = ProofKey::derive(&self.secret);
            let Self { exporter, server, agent, agent_id, token_id, .. } = self;
            verify(&key, exporter, server, agent, agent_id, token_id, proof)
        }
    }

    #[test]
    fn the_proof_equals_an_independent_computation() {
        // Python: hmac.new(hmac.new(b"\1"*32, b"metadata-enrolment-proof-key-v1", "sha256")
        //   .digest(), b"".join(struct.pack(">I", len(f)) + f for f in [...]), "sha256")
        assert_eq!(
            HEXLOWER.encode(&Inputs::example().proof()),
            "fafce46a3d824e83c55a5bfca3454b67c9b14b1d80edf0aa51acca2f244bc3a9"
        );
    }

    #[test]
    fn two_proofs_differ_when_any_single_input_differs() {
        let base = Inputs::example();
        let variants = [
            Inputs { secret: [9; 32], ..base.clone() },
            Inputs { exporter: [9; 32], ..base.clone() },
            Inputs { server: Fingerprint::from_bytes([9; 32]), ..base.clone() },
            Inputs { agent: Fingerprint::from_bytes([9; 32]), ..base.clone() },
            Inputs { agent_id: "web-2".into(), ..base.clone() },
            Inputs { token_id: "00112234".into(), ..base.clone() },
            Inputs { server: base.agent, agent: base.server, ..base.clone() },
            // The boundary between two fields moved by one byte.
            Inputs { agent_id: "web-10".into(), token_id: "0112233".into(), ..base.clone() },
        ];
        let proof = base.proof();
        assert!(base.accepts(&proof));
        for (index, variant) in variants.iter().enumerate() {
            assert_ne!(variant.proof(), proof, "variant {index}");
            assert!(!variant.accepts(&proof), "variant {index}");
        }
    }

    #[test]
    fn a_cut_lengthened_or_flipped_proof_is_refused() {
        let inputs = Inputs::example();
        let proof = inputs.proof();
        for length in 0..proof.len() {
            assert!(!inputs.accepts(&proof[..length]), "{length} bytes");
        }
        assert!(!inputs.accepts(&[proof.as_slice(), &[0]].concat()));
        for bit in 0..proof.len() * 8 {
            let mut flipped = proof;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!inputs.accepts(&flipped), "bit {bit}");
        }
    }

    #[test]
    fn the_stored_key_checks_proofs_and_is_not_the_secret() {
        let inputs = Inputs::example();
        let key = ProofKey::derive(&inputs.secret);
        let json = serde_json::to_string(&key).unwrap();
        assert!(!json.contains(&HEXLOWER.encode(&inputs.secret)));
        let stored: ProofKey = serde_json::from_str(&json).unwrap();
        let Inputs { exporter, server, agent, agent_id, token_id, .. } = &inputs;
        assert!(verify(&stored, exporter, server, agent, agent_id, token_id, &inputs.proof()));
    }

    #[test]
    fn a_damaged_stored_key_is_refused_without_quoting_it() {
        for text in ["", "abc", &"0".repeat(63), &"g".repeat(64), &"0".repeat(66)] {
            let json = serde_json::to_string(text).unwrap();
            let error = serde_json::from_str::<ProofKey>(&json).unwrap_err().to_string();
            assert!(error.contains("not 64 lower-case hex digits"), "{error}");
        }
    }

    #[test]
    fn debug_shows_no_key() {
        assert_eq!(format!("{:?}", ProofKey::derive(&[1; 32])), "ProofKey(hidden)");
    }

    proptest! {
        #[test]
        fn different_ids_never_share_their_bytes(
            a in ("[a-z.]{1,6}", "[a-z0-9]{1,6}"), b in ("[a-z.]{1,6}", "[a-z0-9]{1,6}"),
        ) {
            let zero = Fingerprint::from_bytes([0; 32]);
            let input = |ids: &(String, String)| proof_input(&[0; 32], &zero, &zero, &ids.0, &ids.1);
            prop_assert_eq!(input(&a) == input(&b), a == b);
        }
    }
}
