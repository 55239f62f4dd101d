use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm};
use webpki::{EndEntityCert, ring as algorithms};

use crate::wire::SignatureScheme;

/// What we can verify, best first. P-521 and SHA-512 with ECDSA are not in ring and so not offered.
pub(crate) const PEER_SCHEMES: [SignatureScheme; 3] =
    [SignatureScheme::ECDSA_SHA256, SignatureScheme::ECDSA_SHA384, SignatureScheme::ED25519];

/// Why a peer's signature was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum VerifyError {
    #[error("the certificate cannot be parsed")]
    Certificate,
    #[error("the certificate's key does not fit the signature scheme")]
    KeyMismatch,
    #[error("the signature is wrong")]
    Signature,
}

/// Checks that the key in `certificate` made `signature` over `message`.
pub(crate) fn verify(
    certificate: &[u8],
    scheme: SignatureScheme,
    message: &[u8],
    signature: &[u8],
) -> Result<(), VerifyError> {
    let der = CertificateDer::from(certificate);
    let certificate = EndEntityCert::try_from(&der).map_err(|_| VerifyError::Certificate)?;
    // In TLS 1.2 an ECDSA scheme names the hash only, so both curves are possible.
    let candidates: &[&dyn SignatureVerificationAlgorithm] = match scheme {
        SignatureScheme::ECDSA_SHA256 => {
            &[algorithms::ECDSA_P256_SHA256, algorithms::ECDSA_P384_SHA256]
        }
        SignatureScheme::ECDSA_SHA384 => {
            &[algorithms::ECDSA_P256_SHA384, algorithms::ECDSA_P384_SHA384]
        }
        SignatureScheme::ED25519 => &[algorithms::ED25519],
        _ => return Err(VerifyError::KeyMismatch),
    };
    for candidate in candidates {
        match certificate.verify_signature(*candidate, message, signature) {
            Ok(()) => return Ok(()),
            Err(webpki::Error::InvalidSignatureForPublicKey) => return Err(VerifyError::Signature),
            Err(_) => {}
        }
    }
    Err(VerifyError::KeyMismatch)
}
