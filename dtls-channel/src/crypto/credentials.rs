use std::sync::Arc;

use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
};
use rustls_pki_types::CertificateDer;
use webpki::EndEntityCert;

use super::{Group, NoRandom, fingerprint, verify};
use crate::wire::SignatureScheme;

/// The largest certificate we send or take, in bytes of DER.
pub const CERTIFICATE_BYTES_MAX: usize = 4_096;

/// Signed once to see whether key and certificate belong together.
const PROBE: &[u8] = b"a key that belongs to its certificate";

/// Why a certificate and key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// The certificate is not X.509 version 3 in DER, or holds an unknown critical extension.
    #[error("the certificate cannot be used: {0}")]
    Certificate(String),
    /// The certificate is larger than a handshake message may be.
    #[error("the certificate has {0} bytes, more than the {CERTIFICATE_BYTES_MAX} that fit")]
    TooLarge(usize),
    /// The key is no PKCS#8 document of a kind we sign with.
    #[error("the private key is not a PKCS#8 key for ECDSA P-256, ECDSA P-384 or Ed25519")]
    Key,
    /// The key is not the one in the certificate.
    #[error("the private key does not belong to the certificate")]
    Mismatch,
    /// The key could not be tried.
    #[error(transparent)]
    NoRandom(#[from] NoRandom),
}

/// Our certificate and the key that belongs to it. Cheap to clone.
#[derive(Clone)]
pub struct Credentials(Arc<Inner>);

struct Inner {
    certificate: Vec<u8>,
    fingerprint: [u8; 32],
    signer: Signer,
}

impl Credentials {
    /// Takes a certificate in DER and its private key in PKCS#8 DER.
    ///
    /// # Errors
    /// See [`CredentialsError`]. Nothing but form is checked: names, dates and usages have no
    /// meaning where both sides pin.
    pub fn from_der(certificate: Vec<u8>, pkcs8: &[u8]) -> Result<Self, CredentialsError> {
        if certificate.len() > CERTIFICATE_BYTES_MAX {
            return Err(CredentialsError::TooLarge(certificate.len()));
        }
        let signer = Signer::from_pkcs8(pkcs8).ok_or(CredentialsError::Key)?;
        let der = CertificateDer::from(certificate.as_slice());
        EndEntityCert::try_from(&der).map_err(|e| CredentialsError::Certificate(e.to_string()))?;
        // The way a peer will find out; equal key bytes would not do, as the certificate may name
        // another algorithm or curve for them.
        let signature = signer.sign(PROBE)?;
        verify(&certificate, signer.scheme(), PROBE, &signature)
            .map_err(|_| CredentialsError::Mismatch)?;
        let fingerprint = fingerprint(&certificate);
        Ok(Self(Arc::new(Inner { certificate, fingerprint, signer })))
    }

    /// The certificate in DER.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        &self.0.certificate
    }

    /// SHA-256 of the certificate.
    pub(crate) fn fingerprint(&self) -> &[u8; 32] {
        &self.0.fingerprint
    }

    pub(crate) fn signer(&self) -> &Signer {
        &self.0.signer
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({} byte certificate, key hidden)", self.0.certificate.len())
    }
}

/// Signs with our long-term key.
pub(crate) enum Signer {
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl Signer {
    fn from_pkcs8(pkcs8: &[u8]) -> Option<Self> {
        let rng = SystemRandom::new();
        let ecdsa = |algorithm| EcdsaKeyPair::from_pkcs8(algorithm, pkcs8, &rng).ok();
        ecdsa(&ECDSA_P256_SHA256_ASN1_SIGNING)
            .map(Self::P256)
            .or_else(|| ecdsa(&ECDSA_P384_SHA384_ASN1_SIGNING).map(Self::P384))
            .or_else(|| Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).ok().map(Self::Ed25519))
    }

    /// The one scheme this key signs with.
    pub(crate) fn scheme(&self) -> SignatureScheme {
        match self {
            Self::P256(_) => SignatureScheme::ECDSA_SHA256,
            Self::P384(_) => SignatureScheme::ECDSA_SHA384,
            Self::Ed25519(_) => SignatureScheme::ED25519,
        }
    }

    /// The curve that peers must have listed to verify it (RFC 8422 §5.1.1); Ed25519 is listed as a
    /// scheme only.
    pub(crate) fn curve(&self) -> Option<Group> {
        match self {
            Self::P256(_) => Some(Group::P256),
            Self::P384(_) => Some(Group::P384),
            Self::Ed25519(_) => None,
        }
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, NoRandom> {
        match self {
            Self::P256(key) | Self::P384(key) => key
                .sign(&SystemRandom::new(), message)
                .map(|s| s.as_ref().to_vec())
                .map_err(|_| NoRandom),
            Self::Ed25519(key) => Ok(key.sign(message).as_ref().to_vec()),
        }
    }
}
