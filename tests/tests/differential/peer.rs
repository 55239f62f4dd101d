//! What every implementation is driven by, and what is seen of it.

use std::path::PathBuf;
use std::time::Instant;

use data_encoding::BASE64;
use dtls_channel::{CipherSuite, Group};

use crate::script::{KeyKind, Side};

/// With which both ends export a key.
pub(crate) const EXPORTER_LABEL: &str = "EXPORTER-differential";
/// The context it is exported with.
pub(crate) const EXPORTER_CONTEXT: &[u8] = b"context";

/// One end of an association, without a socket and without a clock.
pub(crate) trait Peer {
    /// Takes a datagram.
    fn receive(&mut self, now: Instant, datagram: Vec<u8>);
    /// When [`handle_timeout`](Self::handle_timeout) is due.
    fn next_timeout(&self) -> Option<Instant>;
    /// Does what is due.
    fn handle_timeout(&mut self, now: Instant);
    /// Sends a message.
    fn send(&mut self, now: Instant, message: &[u8]);
    /// Says goodbye.
    fn close(&mut self, now: Instant);
    /// Takes the datagrams that are to be sent.
    fn take_datagrams(&mut self) -> Vec<Vec<u8>>;
    /// What it has reported so far.
    fn seen(&self) -> &Seen;
}

/// What an end has reported.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) is_open: bool,
    pub(crate) peer_certificate: Option<Vec<u8>>,
    /// `None` where an implementation does not say.
    pub(crate) exported: Option<[u8; 32]>,
    /// `None` where an implementation does not say.
    pub(crate) extended_master_secret: Option<bool>,
    pub(crate) messages: Vec<Vec<u8>>,
    pub(crate) end: Option<End>,
}

/// How an end's association ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// The peer said goodbye.
    PeerClosed,
    /// We did.
    Closed,
    /// Something else, in the implementation's own words.
    Failed(String),
}

/// The implementations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Ours,
    OpenSsl,
    Dimpl,
}

/// All that an end is told before it begins.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) side: Side,
    pub(crate) suites: Vec<CipherSuite>,
    pub(crate) groups: Vec<Group>,
    /// Bytes of a datagram.
    pub(crate) mtu: usize,
    pub(crate) identity: Identity,
    /// The certificate that the peer has to show.
    pub(crate) pinned: Identity,
    pub(crate) has_ems: bool,
}

/// A key with its certificate, and the file that has both.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) certificate: Vec<u8>,
    pub(crate) pkcs8: Vec<u8>,
    pub(crate) file: PathBuf,
}

impl Identity {
    /// A fresh one, in a file in `directory`.
    pub(crate) fn new(directory: &std::path::Path, name: &str, kind: KeyKind) -> Self {
        let algorithm = match kind {
            KeyKind::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            KeyKind::P384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            KeyKind::Ed25519 => &rcgen::PKCS_ED25519,
        };
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let parameters = rcgen::CertificateParams::new(vec![name.into()]).unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        let mut pkcs8 = key.serialize_der();
        if kind == KeyKind::Ed25519 {
            // OpenSSL reads PKCS#8's first version only (RFC 8410 §7): without the public key.
            pkcs8 = [ED25519_PKCS8_HEAD, &pkcs8[ED25519_PKCS8_HEAD.len()..][..32]].concat();
        }
        let file = directory.join(format!("{name}-{kind:?}.pem"));
        let key = format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            BASE64.encode(&pkcs8)
        );
        std::fs::write(&file, certificate.pem() + &key).unwrap();
        Self { certificate: certificate.der().to_vec(), pkcs8, file }
    }
}

/// What stands before the 32 bytes of an Ed25519 key.
const ED25519_PKCS8_HEAD: &[u8] =
    b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
