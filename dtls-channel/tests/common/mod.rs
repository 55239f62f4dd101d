//! Shared by the integration tests.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test file uses its part, and fails by panicking"
)]

use std::sync::Arc;
use std::time::Duration;

use dtls_channel::testing::{AcceptAnyone, Net, credentials};
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

/// Loses those of the first eight datagrams whose bit in `mask` is set; panics unless both sides open
/// within a minute all the same.
pub(crate) fn opens_under_mask(mut net: Net, mask: u32) -> Net {
    let mut seen = 0;
    let opened = net.run_until(Duration::from_secs(60), |n| {
        // Before each step, decide the fate of what was just sent.
        let pushed = n.up.stats().pushed + n.down.stats().pushed;
        for nth in seen..pushed {
            if nth < 8 && mask >> nth & 1 == 1 {
                // What is in flight is the newest of the direction that sent last.
                n.up.clear();
                n.down.clear();
            }
        }
        seen = pushed;
        n.both_open()
    });
    assert!(opened, "mask {mask:08b}\n{}", net.transcript());
    net
}
