use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use certs::Identity;
use data_encoding::BASE64;
use dtls_channel::{Config, Credentials, Timers};
use tempfile::TempDir;

use crate::Pin;

/// A fresh identity of the kind our daemons make, with the PEM file that other programs read.
#[derive(Debug)]
pub struct PemIdentity {
    certificate: Vec<u8>,
    pkcs8: Vec<u8>,
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
        let (certificate, pkcs8) = (identity.certificate_der(), identity.pkcs8());
        Self::in_files(certificate.to_vec(), pkcs8.to_vec(), directory)
    }

    /// The same with a certificate that ends in 2099: ours have no end, which is a date that some
    /// libraries do not read. [`pem`](Self::pem) does not exist.
    ///
    /// # Panics
    /// If there is no room for its files.
    #[must_use]
    pub fn until_2099() -> Self {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, certs::identity::COMMON_NAME);
        params.not_after = rcgen::date_time_ymd(2099, 12, 31);
        params.key_usages =
            vec![rcgen::KeyUsagePurpose::DigitalSignature, rcgen::KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).expect("a certificate");
        let directory = tempfile::tempdir().expect("a temporary directory");
        Self::in_files(certificate.der().to_vec(), key.serialize_der(), directory)
    }

    fn in_files(certificate: Vec<u8>, pkcs8: Vec<u8>, directory: TempDir) -> Self {
        let new = Self { certificate, pkcs8, directory };
        write_pem(&new.certificate_pem(), "CERTIFICATE", new.certificate());
        write_pem(&new.key_pem(), "PRIVATE KEY", new.pkcs8());
        new
    }

    /// The file with certificate and private key.
    #[must_use]
    pub fn pem(&self) -> PathBuf {
        self.directory.path().join(certs::identity::IDENTITY_FILE)
    }

    /// The file with the certificate alone.
    #[must_use]
    pub fn certificate_pem(&self) -> PathBuf {
        self.directory.path().join("certificate.pem")
    }

    /// The file with the private key alone.
    #[must_use]
    pub fn key_pem(&self) -> PathBuf {
        self.directory.path().join("key.pem")
    }

    /// A directory for this peer's other files.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The certificate in DER.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// The private key in PKCS#8 DER.
    #[must_use]
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
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

fn write_pem(path: &Path, label: &str, der: &[u8]) {
    let body = BASE64.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in body.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    options.open(path).and_then(|mut file| file.write_all(pem.as_bytes())).expect("a file");
}

impl Default for PemIdentity {
    fn default() -> Self {
        Self::new()
    }
}
