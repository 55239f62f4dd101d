use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use ring::{aead, hkdf};
use zeroize::Zeroizing;

use super::DecodeError;
use crate::crypto::{NoRandom, random};
use crate::wire::{Reader, Write};

/// Keys that may be held at a time, the newest included.
pub const TICKET_KEYS_MAX: usize = 16;

const FORMAT: u8 = 1;
const NAME_LEN: usize = 16;
const SECRET_LEN: usize = 32;
const SEED_LEN: usize = 32;
const TAG_LEN: usize = 16;
/// What is derived from a ticket key serves this one purpose.
const PURPOSE: &[u8] = b"dtls-channel session ticket 1";

/// The keys that seal a server's tickets. The newest seals, all of them open.
///
/// Shared by all configurations, endpoints and servers that are to take each other's tickets, and
/// rotated while in use. Servers that share keys must have the same certificate: a ticket is good
/// under the certificate under which it was made, and no other.
///
/// **A ticket lives exactly as long as its key**: this crate reads no clock, so whoever holds the
/// keys rotates them on a clock of its own. Tickets are never renewed, so a session that is resumed
/// over and over ends with its key too. Whoever learns a key can decrypt every association that
/// was begun or resumed with a ticket under it, until the day it is forgotten by all: keep keys for
/// hours or days, and store them like private keys.
pub struct TicketKeys(RwLock<Keys>);

/// Never empty, by its shape.
struct Keys {
    newest: Key,
    /// Newest first.
    older: Vec<Key>,
}

struct Key {
    /// Tells a ticket's key without trying them all. Not secret.
    name: [u8; NAME_LEN],
    secret: Zeroizing<[u8; SECRET_LEN]>,
}

impl TicketKeys {
    /// One fresh key.
    ///
    /// # Errors
    /// Only if the system's random generator fails.
    pub fn random() -> Result<Self, NoRandom> {
        Ok(Self(RwLock::new(Keys { newest: Key::random()?, older: Vec::new() })))
    }

    /// Takes what [`to_bytes`](Self::to_bytes) wrote.
    ///
    /// # Errors
    /// [`DecodeError`]; every bit of the input is checked for form, none for being secret.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes, "ticket keys");
        let found = r.u8()?;
        if found != FORMAT {
            return Err(DecodeError::Format { found, known: FORMAT });
        }
        let count = usize::from(r.u8()?);
        if !(1..=TICKET_KEYS_MAX).contains(&count) {
            return Err(r.fault().into());
        }
        let newest = Key::read(&mut r)?;
        let older = (1..count).map(|_| Key::read(&mut r)).collect::<Result<_, _>>()?;
        r.finish()?;
        Ok(Self(RwLock::new(Keys { newest, older })))
    }

    /// The keys, to be kept where only this server, and those that share its work, can read them.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let keys = self.read();
        let count = 1 + keys.older.len();
        // Of the right size at once, so that no copy is left behind.
        let mut out = Zeroizing::new(Vec::with_capacity(2 + count * (NAME_LEN + SECRET_LEN)));
        out.u8(FORMAT);
        out.u8(count as u8);
        for key in std::iter::once(&keys.newest).chain(&keys.older) {
            out.bytes(&key.name);
            out.bytes(&key.secret[..]);
        }
        out
    }

    /// Seals with a fresh key from here on. The newest `keep` of the keys so far, at most
    /// [`TICKET_KEYS_MAX`]` - 1`, still open what they have sealed; the others are wiped, and their
    /// tickets lead to full handshakes.
    ///
    /// # Errors
    /// Only if the system's random generator fails; nothing has changed then.
    pub fn rotate(&self, keep: usize) -> Result<(), NoRandom> {
        let fresh = Key::random()?;
        let mut keys = self.write();
        let before = std::mem::replace(&mut keys.newest, fresh);
        keys.older.insert(0, before);
        keys.older.truncate(keep.min(TICKET_KEYS_MAX - 1));
        Ok(())
    }

    /// Takes the place of the keys so far: for a server that shares them with the one that rotates
    /// them.
    pub fn replace_with(&self, other: Self) {
        *self.write() = other.0.into_inner().unwrap_or_else(PoisonError::into_inner);
    }

    /// Nothing panics while it holds the lock, so what is behind it is whole.
    fn read(&self) -> RwLockReadGuard<'_, Keys> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Keys> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// A ticket: key name, seed, sealed content, tag. `context` is not in it, and must be the same
    /// when it is opened.
    pub(crate) fn seal(&self, context: &[u8; 32], content: &[u8]) -> Result<Vec<u8>, NoRandom> {
        let seed = random::<SEED_LEN>()?;
        let keys = self.read();
        let Key { name, secret } = &keys.newest;
        let mut ticket = Vec::with_capacity(NAME_LEN + SEED_LEN + content.len() + TAG_LEN);
        ticket.extend_from_slice(name);
        ticket.extend_from_slice(&seed);
        let mut sealed = Zeroizing::new(content.to_vec());
        let tag = one_time_key(secret, &seed)
            .and_then(|key| {
                let aad = aead::Aad::from(bound(name, &seed, context));
                key.seal_in_place_separate_tag(nonce(), aad, &mut sealed).ok()
            })
            // ring refuses only lengths that do not occur; whatever it is, nothing readable leaves.
            .ok_or(NoRandom)?;
        ticket.extend_from_slice(&sealed);
        ticket.extend_from_slice(tag.as_ref());
        Ok(ticket)
    }

    /// What was sealed, if one of our keys sealed it under the same context.
    pub(crate) fn open(&self, context: &[u8; 32], ticket: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (name, rest) = ticket.split_first_chunk::<NAME_LEN>()?;
        let (seed, sealed) = rest.split_first_chunk::<SEED_LEN>()?;
        let keys = self.read();
        let mut all = std::iter::once(&keys.newest).chain(&keys.older);
        let key = one_time_key(&all.find(|key| key.name == *name)?.secret, seed)?;
        let mut content = Zeroizing::new(sealed.to_vec());
        let aad = aead::Aad::from(bound(name, seed, context));
        let length = key.open_in_place(nonce(), aad, &mut content).ok()?.len();
        content.truncate(length);
        Some(content)
    }
}

/// The AES-256-GCM key of one ticket: HKDF-SHA256 over the ticket key, salted with the ticket's
/// random seed.
///
/// A ticket key seals at many servers, before and after restarts, with no counter between them, and
/// 96-bit random nonces under it would run out at 2^32 tickets (NIST SP 800-38D §8.3). So each ticket
/// has a key of its own: two are the same only if two seeds of 256 bits are, which after 2^64
/// tickets under one ticket key has a probability below 2^-128.
fn one_time_key(secret: &[u8; SECRET_LEN], seed: &[u8; SEED_LEN]) -> Option<aead::LessSafeKey> {
    let ticket_key = hkdf::Salt::new(hkdf::HKDF_SHA256, seed).extract(secret);
    let key = ticket_key.expand(&[PURPOSE], &aead::AES_256_GCM).ok()?;
    Some(aead::LessSafeKey::new(key.into()))
}

/// A key that seals once needs no more than one nonce.
fn nonce() -> aead::Nonce {
    aead::Nonce::assume_unique_for_key([0; aead::NONCE_LEN])
}

fn bound(
    name: &[u8; NAME_LEN],
    seed: &[u8; SEED_LEN],
    context: &[u8; 32],
) -> [u8; NAME_LEN + SEED_LEN + 32] {
    let mut all = [0; NAME_LEN + SEED_LEN + 32];
    all[..NAME_LEN].copy_from_slice(name);
    all[NAME_LEN..NAME_LEN + SEED_LEN].copy_from_slice(seed);
    all[NAME_LEN + SEED_LEN..].copy_from_slice(context);
    all
}

impl Key {
    fn random() -> Result<Self, NoRandom> {
        Ok(Self { name: random()?, secret: Zeroizing::new(random()?) })
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { name: r.array()?, secret: Zeroizing::new(r.array()?) })
    }
}

impl std::fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TicketKeys({} keys, hidden)", 1 + self.read().older.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CONTEXT: [u8; 32] = [7; 32];

    #[test]
    fn a_ticket_opens_only_whole_and_unchanged_under_its_context() {
        let keys = TicketKeys::random().unwrap();
        let ticket = keys.seal(&CONTEXT, b"content").unwrap();
        assert_eq!(ticket.len(), 16 + 32 + 7 + 16);
        assert_eq!(keys.open(&CONTEXT, &ticket).unwrap()[..], *b"content");
        assert!(keys.open(&[8; 32], &ticket).is_none());
        for i in 0..ticket.len() {
            let mut bent = ticket.clone();
            bent[i] ^= 1;
            assert!(keys.open(&CONTEXT, &bent).is_none(), "byte {i}");
            assert!(keys.open(&CONTEXT, &ticket[..i]).is_none(), "cut at {i}");
        }
        assert!(TicketKeys::random().unwrap().open(&CONTEXT, &ticket).is_none());
    }

    #[test]
    fn no_two_tickets_share_seed_or_ciphertext() {
        let keys = TicketKeys::random().unwrap();
        let again = TicketKeys::from_bytes(&keys.to_bytes()).unwrap();
        let mut seen = std::collections::HashSet::new();
        for n in 0..200 {
            let sealing = if n % 2 == 0 { &keys } else { &again };
            let ticket = sealing.seal(&CONTEXT, b"content").unwrap();
            assert!(seen.insert(ticket[16..48].to_vec()) && seen.insert(ticket[48..].to_vec()));
        }
    }

    #[test]
    fn rotated_keys_open_what_they_sealed_until_they_are_dropped() {
        let keys = TicketKeys::random().unwrap();
        let tickets: Vec<_> = (0..3)
            .map(|_| {
                let ticket = keys.seal(&CONTEXT, b"content").unwrap();
                keys.rotate(2).unwrap();
                ticket
            })
            .collect();
        let opens = |ticket: &Vec<u8>| keys.open(&CONTEXT, ticket).is_some();
        assert_eq!(tickets.iter().map(opens).collect::<Vec<_>>(), [false, true, true]);
        keys.rotate(0).unwrap();
        assert!(!tickets.iter().any(opens));
        for _ in 0..2 * TICKET_KEYS_MAX {
            keys.rotate(usize::MAX).unwrap();
        }
        assert_eq!(keys.to_bytes().len(), 2 + TICKET_KEYS_MAX * 48);
    }

    #[test]
    fn another_server_opens_with_exported_keys_and_follows_a_rotation() {
        let first = TicketKeys::random().unwrap();
        let second = TicketKeys::from_bytes(&first.to_bytes()).unwrap();
        first.rotate(1).unwrap();
        let ticket = first.seal(&CONTEXT, b"content").unwrap();
        assert!(second.open(&CONTEXT, &ticket).is_none());
        second.replace_with(TicketKeys::from_bytes(&first.to_bytes()).unwrap());
        assert!(second.open(&CONTEXT, &ticket).is_some());
    }

    #[test]
    fn stored_keys_are_checked_for_format_length_and_number() {
        let bytes = TicketKeys::random().unwrap().to_bytes();
        assert!((0..bytes.len()).all(|cut| TicketKeys::from_bytes(&bytes[..cut]).is_err()));
        let bent = |at: usize, value| {
            let mut bent = bytes.to_vec();
            bent[at] = value;
            TicketKeys::from_bytes(&bent).map(drop)
        };
        assert_eq!(bent(0, 2), Err(DecodeError::Format { found: 2, known: 1 }));
        for count in [0, 2, TICKET_KEYS_MAX as u8 + 1, 255] {
            assert_eq!(bent(1, count), Err(DecodeError::Malformed("ticket keys")), "{count} keys");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(TicketKeys::from_bytes(&longer).is_err());
    }

    #[test]
    fn debug_output_shows_no_ticket_key() {
        let keys = TicketKeys::random().unwrap();
        keys.rotate(1).unwrap();
        assert_eq!(format!("{keys:?}"), "TicketKeys(2 keys, hidden)");
    }

    proptest! {
        #[test]
        fn any_bytes_are_no_ticket_and_no_keys_and_do_no_harm(bytes: Vec<u8>) {
            let keys = TicketKeys::random().unwrap();
            prop_assert!(keys.open(&CONTEXT, &bytes).is_none());
            let _ = TicketKeys::from_bytes(&bytes);
        }
    }
}
