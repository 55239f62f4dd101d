//! What a handshake cannot cost less than: its asymmetric operations, on ring.

use certs::Identity;
use ring::agreement::{ECDH_P256, EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral};
use ring::rand::SystemRandom;
use ring::signature::{
    self, ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _,
};

use crate::identity;

/// About as many bytes as a CertificateVerify signs.
const TRANSCRIPT_BYTES: usize = 1_000;

/// The keys of both ends.
pub struct Floor {
    keys: [EcdsaKeyPair; 2],
    random: SystemRandom,
}

impl Default for Floor {
    fn default() -> Self {
        Self::new()
    }
}

impl Floor {
    /// Fresh keys.
    ///
    /// # Panics
    /// If the system's random generator fails.
    #[must_use]
    pub fn new() -> Self {
        let random = SystemRandom::new();
        let key = |identity: Identity| {
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, identity.pkcs8(), &random)
                .expect("our own identity")
        };
        Self { keys: [key(identity()), key(identity())], random }
    }

    /// Both ends: two ephemeral P-256 keys, two agreements, two signatures, two verifications.
    ///
    /// # Panics
    /// If the system's random generator fails.
    pub fn handshake(&self) {
        let ephemeral = || {
            let private = EphemeralPrivateKey::generate(&ECDH_P256, &self.random);
            let private = private.expect("randomness");
            let public = private.compute_public_key().expect("a public key");
            (private, public)
        };
        let ((a, a_public), (b, b_public)) = (ephemeral(), ephemeral());
        for (private, public) in [(a, b_public), (b, a_public)] {
            let peer = UnparsedPublicKey::new(&ECDH_P256, public);
            agree_ephemeral(private, &peer, |secret| {
                std::hint::black_box(secret);
            })
            .expect("agreed");
        }
        let transcript = [7; TRANSCRIPT_BYTES];
        for key in &self.keys {
            let signed = key.sign(&self.random, &transcript).expect("signed");
            signature::UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key.public_key())
                .verify(&transcript, signed.as_ref())
                .expect("verified");
        }
    }
}
