#[cfg(test)]
use copies::{EphemeralPrivateKey, agree_ephemeral};
use ring::agreement::{self, UnparsedPublicKey};
#[cfg(not(test))]
use ring::agreement::{EphemeralPrivateKey, agree_ephemeral};
use ring::rand::SystemRandom;
use zeroize::Zeroizing;

use super::NoRandom;
use crate::wire::NamedGroup;

/// Groups for the ephemeral key exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Group {
    /// NIST P-256: first, because it is the cheapest on ring.
    P256,
    /// X25519 (RFC 7748).
    X25519,
    /// NIST P-384.
    P384,
}

impl Group {
    /// All of them, best first.
    pub const ALL: [Self; 3] = [Self::P256, Self::X25519, Self::P384];
    /// The curves of ECDSA keys whose signatures we verify.
    pub(crate) const OF_SIGNATURES: [Self; 2] = [Self::P256, Self::P384];

    pub(crate) fn wire(self) -> NamedGroup {
        match self {
            Self::P256 => NamedGroup::SECP256R1,
            Self::X25519 => NamedGroup::X25519,
            Self::P384 => NamedGroup::SECP384R1,
        }
    }

    pub(crate) fn from_wire(id: NamedGroup) -> Option<Self> {
        Self::ALL.into_iter().find(|g| g.wire() == id)
    }

    fn algorithm(self) -> &'static agreement::Algorithm {
        match self {
            Self::P256 => &agreement::ECDH_P256,
            Self::X25519 => &agreement::X25519,
            Self::P384 => &agreement::ECDH_P384,
        }
    }
}

/// The shared secret of one key exchange.
pub(crate) struct PremasterSecret(Zeroizing<Vec<u8>>);

impl PremasterSecret {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Our ephemeral key for one handshake; used once.
#[cfg_attr(test, derive(Clone))]
pub(crate) struct KeyShare {
    group: Group,
    private: EphemeralPrivateKey,
    public: agreement::PublicKey,
}

impl KeyShare {
    pub(crate) fn generate(group: Group) -> Result<Self, NoRandom> {
        let private = EphemeralPrivateKey::generate(group.algorithm(), &SystemRandom::new())
            .map_err(|_| NoRandom)?;
        let public = private.compute_public_key().map_err(|_| NoRandom)?;
        Ok(Self { group, private, public })
    }

    /// The point to send: uncompressed, or X25519's 32 bytes.
    pub(crate) fn public(&self) -> &[u8] {
        self.public.as_ref()
    }

    /// `None` if the peer's point is not on the curve, is not uncompressed, or X25519's result is
    /// all zero: ring checks all three.
    pub(crate) fn agree(self, theirs: &[u8]) -> Option<PremasterSecret> {
        let theirs = UnparsedPublicKey::new(self.group.algorithm(), theirs);
        agree_ephemeral(self.private, &theirs, |shared| {
            PremasterSecret(Zeroizing::new(shared.to_vec()))
        })
        .ok()
    }
}

impl std::fmt::Debug for KeyShare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyShare({:?})", self.group)
    }
}

/// ring's keys are used up by one agreement and cannot be copied. Tests walk through the states of a
/// handshake by copying them, so there copies share a key, and what was agreed with it.
#[cfg(test)]
mod copies {
    use std::sync::{Arc, Mutex};

    use ring::agreement::{self, Algorithm, PublicKey, UnparsedPublicKey};
    use ring::error::Unspecified;
    use ring::rand::SecureRandom;

    #[derive(Clone)]
    pub(super) struct EphemeralPrivateKey(Arc<Mutex<Shared>>);

    enum Shared {
        Fresh(agreement::EphemeralPrivateKey),
        Agreed { theirs: Vec<u8>, secret: Vec<u8> },
        Spent,
    }

    impl EphemeralPrivateKey {
        pub(super) fn generate(
            algorithm: &'static Algorithm,
            random: &dyn SecureRandom,
        ) -> Result<Self, Unspecified> {
            let key = agreement::EphemeralPrivateKey::generate(algorithm, random)?;
            Ok(Self(Arc::new(Mutex::new(Shared::Fresh(key)))))
        }

        pub(super) fn compute_public_key(&self) -> Result<PublicKey, Unspecified> {
            match &*self.0.lock().unwrap() {
                Shared::Fresh(key) => key.compute_public_key(),
                Shared::Agreed { .. } | Shared::Spent => Err(Unspecified),
            }
        }
    }

    pub(super) fn agree_ephemeral<R>(
        private: EphemeralPrivateKey,
        peer: &UnparsedPublicKey<&[u8]>,
        take: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, Unspecified> {
        let mut shared = private.0.lock().unwrap();
        *shared = match std::mem::replace(&mut *shared, Shared::Spent) {
            Shared::Fresh(key) => agreement::agree_ephemeral(key, peer, |secret| Shared::Agreed {
                theirs: peer.bytes().to_vec(),
                secret: secret.to_vec(),
            })?,
            used => used,
        };
        match &*shared {
            Shared::Agreed { theirs, secret } if theirs == peer.bytes() => Ok(take(secret)),
            _ => Err(Unspecified),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_agree_and_bad_points_are_refused() {
        for group in Group::ALL {
            let (a, b) = (KeyShare::generate(group).unwrap(), KeyShare::generate(group).unwrap());
            let (a_public, b_public) = (a.public().to_vec(), b.public().to_vec());
            assert_ne!(a_public, b_public);
            let (ab, ba) = (a.agree(&b_public).unwrap(), b.agree(&a_public).unwrap());
            assert_eq!(ab.as_bytes(), ba.as_bytes());
            let fresh = || KeyShare::generate(group).unwrap();
            assert!(fresh().agree(&[]).is_none());
            assert!(fresh().agree(&vec![0; a_public.len()]).is_none(), "{group:?}: zero point");
            if group != Group::X25519 {
                let mut off_curve = a_public.clone();
                *off_curve.last_mut().unwrap() ^= 1;
                assert!(fresh().agree(&off_curve).is_none());
                let mut compressed = a_public[..a_public.len() / 2 + 1].to_vec();
                compressed[0] = 2;
                assert!(fresh().agree(&compressed).is_none());
            }
        }
    }
}
