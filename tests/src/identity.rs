use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use certs::Identity;
use dtls_channel::{Config, Credentials, Timers};
use tempfile::TempDir;

use crate::Pin;

/// A fresh identity of the kind our daemons make, with the PEM file that other programs read.
#[derive(Debug)]
pub struct PemIdentity {
    identity: Identity,
    directory: TempDir,
}

impl PemIdentity {
    /// Makes key, certificate and file.
    ///
    /// # Panics
    /// If there is no room for them.
    #[must_use]
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let identity = Identity::load_or_create(directory.path()).expect("a new identity");
        Self { identity, directory }
    }

    /// The file with certificate and private key.
    #[must_use]
    pub fn pem(&self) -> PathBuf {
        self.directory.path().join(certs::identity::IDENTITY_FILE)
    }

    /// A directory for this peer's other files.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The certificate in DER.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        self.identity.certificate_der()
    }

    /// The private key in PKCS#8 DER.
    #[must_use]
    pub fn pkcs8(&self) -> &[u8] {
        self.identity.pkcs8()
    }

    /// The configuration of an end that is this one and wants only `peer` at the other.
    ///
    /// # Panics
    /// If the engine does not take what `certs` makes.
    #[must_use]
    pub fn config(&self, peer: &Self) -> Config {
        let credentials = Credentials::from_der(self.certificate().to_vec(), self.pkcs8())
            .expect("our own identity is usable");
        // An alert in clear may be forged, so it is believed late; no test waits that long.
        let timers = Timers { alert_grace: Duration::from_millis(200), ..Timers::default() };
        Config::new(credentials, Arc::new(Pin(peer.certificate().to_vec()))).with_timers(timers)
    }
}

impl Default for PemIdentity {
    fn default() -> Self {
        Self::new()
    }
}
