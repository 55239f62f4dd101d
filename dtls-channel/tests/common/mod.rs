//! Shared by the integration tests.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test file uses its part, and fails by panicking"
)]

use std::sync::Arc;

use dtls_channel::testing::{AcceptAnyone, credentials};
use dtls_channel::{Config, Credentials, PeerVerifier};

/// A fresh self-signed certificate with its key.
pub(crate) fn identity(algorithm: &'static rcgen::SignatureAlgorithm) -> Credentials {
    let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["test".into()]).unwrap().self_signed(&key).unwrap();
    credentials(certificate.der(), &key.serialize_der())
}

pub(crate) fn config() -> Config {
    config_with(Arc::new(AcceptAnyone))
}

pub(crate) fn config_with(verifier: Arc<dyn PeerVerifier>) -> Config {
    Config::new(identity(&rcgen::PKCS_ECDSA_P256_SHA256), verifier)
}
