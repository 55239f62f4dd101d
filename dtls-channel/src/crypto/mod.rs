//! What the profile takes from ring: hashes, PRF, key exchange, signatures, AEADs.

mod credentials;
mod exporter;
mod group;
mod hot;
mod prf;
mod signature;
mod suite;
#[cfg(test)]
mod wycheproof;

pub use credentials::{CERTIFICATE_BYTES_MAX, Credentials, CredentialsError};
pub use exporter::Exporter;
pub use group::Group;
pub(crate) use group::{KeyShare, PremasterSecret};
pub(crate) use hot::HotKey;
pub(crate) use prf::{MasterSecret, Randoms, TranscriptHash, VERIFY_DATA_LEN, same};
pub(crate) use signature::{PEER_SCHEMES, VerifyError, verify};
pub use suite::CipherSuite;
pub(crate) use suite::TrafficKey;

use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};

/// The system's generator gave nothing. Nothing can be done without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system's random generator failed")]
pub struct NoRandom;

/// By what a certificate is known: SHA-256 over its DER (RFC 8122 §5).
pub(crate) fn fingerprint(certificate: &[u8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest::digest(&digest::SHA256, certificate).as_ref());
    bytes
}

/// Fresh bytes from the system's generator.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], NoRandom> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandom)?;
    Ok(bytes)
}
