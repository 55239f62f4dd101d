use std::sync::OnceLock;

use crate::crypto::Credentials;

/// Who somebody is in a fuzz body. The keys are fixed, so that a script means the same again; they
/// protect nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Identity {
    Client,
    Server,
    P384,
    Ed25519,
}

impl Identity {
    pub(super) const ALL: [Self; 4] = [Self::Client, Self::Server, Self::P384, Self::Ed25519];

    pub(super) fn certificate(self) -> &'static [u8] {
        match self {
            Self::Client => include_bytes!("identities/p256-client.cert.der"),
            Self::Server => include_bytes!("identities/p256-server.cert.der"),
            Self::P384 => include_bytes!("identities/p384.cert.der"),
            Self::Ed25519 => include_bytes!("identities/ed25519.cert.der"),
        }
    }

    pub(super) fn pkcs8(self) -> &'static [u8] {
        match self {
            Self::Client => include_bytes!("identities/p256-client.key.der"),
            Self::Server => include_bytes!("identities/p256-server.key.der"),
            Self::P384 => include_bytes!("identities/p384.key.der"),
            Self::Ed25519 => include_bytes!("identities/ed25519.key.der"),
        }
    }

    /// Made once: that takes as long as a handshake.
    pub(super) fn credentials(self) -> Credentials {
        static ALL: [OnceLock<Credentials>; 4] = [const { OnceLock::new() }; 4];
        let make = || crate::testing::credentials(self.certificate(), self.pkcs8());
        ALL[self as usize].get_or_init(make).clone()
    }
}
