//! Which fingerprints a peer may show: the whole of the trust policy.
//!
//! Rotation is overlap. The new key is pinned beside the old one, the old one is retired, at once
//! or after a window. A set never retires its last pin: that would lock the peer out, and cutting
//! a peer off is done by forgetting the set.

use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};

use crate::Fingerprint;

/// Most fingerprints pinned for one peer at a time. Two are enough for a rotation, the rest is
/// room for a rotation that is begun again before the last one has ended.
pub const PINS_PER_PEER_MAX: usize = 4;

/// One pinned fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// What the peer's certificate must hash to.
    pub fingerprint: Fingerprint,
    /// First second (Unix time) at which this pin no longer counts; `None`: until retired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_unix: Option<u64>,
}

impl Pin {
    fn holds(&self, now_unix: u64) -> bool {
        self.until_unix.is_none_or(|until| now_unix < until)
    }
}

/// The fingerprints one peer may show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Pin>", into = "Vec<Pin>")]
pub struct PinSet(Vec<Pin>);

impl PinSet {
    /// A set with one pin that holds until it is retired.
    pub fn new(fingerprint: Fingerprint) -> Self {
        Self(vec![Pin { fingerprint, until_unix: None }])
    }

    /// Every pin, oldest first, those past their window included.
    pub fn pins(&self) -> &[Pin] {
        &self.0
    }

    /// Decides about the certificate a peer has shown, at `now_unix` (Unix time, seconds).
    ///
    /// # Errors
    ///
    /// [`PinMismatch`] with the fingerprint seen and those expected.
    pub fn check(&self, now_unix: u64, seen: Fingerprint) -> Result<(), PinMismatch> {
        let holding = self.0.iter().filter(|pin| pin.holds(now_unix));
        if holding.clone().any(|pin| pin.fingerprint == seen) {
            return Ok(());
        }
        Err(PinMismatch {
            seen,
            expected: holding.map(|pin| pin.fingerprint).collect(),
            retired: self.0.iter().any(|pin| pin.fingerprint == seen),
        })
    }

    /// Pins one more fingerprint, until it is retired. A fingerprint that is already there loses
    /// its end, so a retirement can be taken back. Pins past their window are dropped for room.
    ///
    /// # Errors
    ///
    /// [`PinSetError::TooMany`] when [`PINS_PER_PEER_MAX`] hold already.
    pub fn add(&mut self, now_unix: u64, fingerprint: Fingerprint) -> Result<(), PinSetError> {
        if let Some(pin) = self.0.iter_mut().find(|pin| pin.fingerprint == fingerprint) {
            pin.until_unix = None;
            return Ok(());
        }
        if self.0.len() == PINS_PER_PEER_MAX {
            self.0.retain(|pin| pin.holds(now_unix));
        }
        if self.0.len() == PINS_PER_PEER_MAX {
            return Err(PinSetError::TooMany);
        }
        self.0.push(Pin { fingerprint, until_unix: None });
        Ok(())
    }

    /// Retires a fingerprint: it no longer counts from `until_unix` on.
    ///
    /// # Errors
    ///
    /// [`PinSetError::NotPinned`], or [`PinSetError::LastPin`] when no other pin holds without an
    /// end; the set is then unchanged.
    pub fn retire(&mut self, fingerprint: Fingerprint, until_unix: u64) -> Result<(), PinSetError> {
        let stays = |pin: &Pin| pin.fingerprint != fingerprint && pin.until_unix.is_none();
        if !self.0.iter().any(|pin| pin.fingerprint == fingerprint) {
            return Err(PinSetError::NotPinned(fingerprint));
        }
        if !self.0.iter().any(stays) {
            return Err(PinSetError::LastPin(fingerprint));
        }
        for pin in self.0.iter_mut().filter(|pin| pin.fingerprint == fingerprint) {
            pin.until_unix = Some(until_unix);
        }
        Ok(())
    }
}

impl TryFrom<Vec<Pin>> for PinSet {
    type Error = PinSetError;

    fn try_from(pins: Vec<Pin>) -> Result<Self, Self::Error> {
        match pins.len() {
            0 => Err(PinSetError::Empty),
            1..=PINS_PER_PEER_MAX => Ok(Self(pins)),
            _ => Err(PinSetError::TooMany),
        }
    }
}

impl From<PinSet> for Vec<Pin> {
    fn from(set: PinSet) -> Self {
        set.0
    }
}

/// Why a set of pins cannot be changed or read this way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PinSetError {
    /// Stored pins without a single fingerprint.
    #[error("no fingerprint is pinned")]
    Empty,
    /// [`PINS_PER_PEER_MAX`] reached.
    #[error("{PINS_PER_PEER_MAX} fingerprints are pinned already; retire one first")]
    TooMany,
    /// Nothing to retire.
    #[error("{0} is not pinned")]
    NotPinned(Fingerprint),
    /// Retiring it would lock the peer out.
    #[error("{0} is the last pin that has no end; pin the new key first")]
    LastPin(Fingerprint),
}

/// A peer has shown a certificate that is not pinned for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinMismatch {
    /// The fingerprint of the certificate that the peer has shown, key possession proven.
    pub seen: Fingerprint,
    /// The fingerprints that would have been accepted.
    pub expected: Vec<Fingerprint>,
    /// Whether `seen` was pinned once and its window has ended.
    pub retired: bool,
}

impl fmt::Display for PinMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.retired { "was retired" } else { "is not pinned" };
        let mut expected = String::new();
        for (index, fingerprint) in self.expected.iter().enumerate() {
            write!(expected, "{}{fingerprint}", if index == 0 { "" } else { " or " })?;
        }
        if expected.is_empty() {
            expected.push_str("none");
        }
        write!(f, "key {} {state}; expected {expected}", self.seen)
    }
}

impl std::error::Error for PinMismatch {}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn key(name: &str) -> Fingerprint {
        Fingerprint::of_der(name.as_bytes())
    }

    #[test]
    fn only_the_pinned_key_passes_and_the_refusal_names_both() {
        let pins = PinSet::new(key("a"));
        assert_eq!(pins.check(NOW, key("a")), Ok(()));
        let refusal = pins.check(NOW, key("b")).unwrap_err();
        assert_eq!(
            refusal.to_string(),
            format!("key {} is not pinned; expected {}", key("b"), key("a"))
        );
    }

    #[test]
    fn in_a_rotation_both_keys_pass_until_the_window_ends() {
        let mut pins = PinSet::new(key("old"));
        pins.add(NOW, key("new")).unwrap();
        pins.retire(key("old"), NOW + 60).unwrap();
        for at in [NOW, NOW + 59] {
            assert_eq!(pins.check(at, key("old")), Ok(()));
            assert_eq!(pins.check(at, key("new")), Ok(()));
        }
        assert_eq!(pins.check(NOW + 60, key("new")), Ok(()));
        let refusal = pins.check(NOW + 60, key("old")).unwrap_err();
        assert!(refusal.retired);
        assert_eq!(
            refusal.to_string(),
            format!("key {} was retired; expected {}", key("old"), key("new"))
        );
    }

    #[test]
    fn the_refusal_in_a_rotation_names_every_key_that_would_pass() {
        let mut pins = PinSet::new(key("a"));
        pins.add(NOW, key("b")).unwrap();
        let refusal = pins.check(NOW, key("c")).unwrap_err().to_string();
        assert!(refusal.ends_with(&format!("expected {} or {}", key("a"), key("b"))), "{refusal}");
    }

    #[test]
    fn the_last_endless_pin_cannot_be_retired() {
        let mut pins = PinSet::new(key("a"));
        assert_eq!(pins.retire(key("a"), NOW), Err(PinSetError::LastPin(key("a"))));
        assert_eq!(pins.retire(key("b"), NOW), Err(PinSetError::NotPinned(key("b"))));
        pins.add(NOW, key("b")).unwrap();
        pins.retire(key("a"), NOW + 60).unwrap();
        assert_eq!(pins.retire(key("b"), NOW), Err(PinSetError::LastPin(key("b"))));
        assert_eq!(pins.check(NOW + 100, key("b")), Ok(()));
    }

    #[test]
    fn a_retirement_can_be_taken_back() {
        let mut pins = PinSet::new(key("a"));
        pins.add(NOW, key("b")).unwrap();
        pins.retire(key("a"), NOW).unwrap();
        assert!(pins.check(NOW, key("a")).is_err());
        pins.add(NOW, key("a")).unwrap();
        assert_eq!(pins.check(NOW, key("a")), Ok(()));
    }

    #[test]
    fn the_set_is_bounded_and_ended_pins_make_room() {
        let mut pins = PinSet::new(key("0"));
        for name in ["1", "2", "3"] {
            pins.add(NOW, key(name)).unwrap();
        }
        assert_eq!(pins.add(NOW, key("4")), Err(PinSetError::TooMany));
        pins.retire(key("0"), NOW + 10).unwrap();
        assert_eq!(pins.add(NOW, key("4")), Err(PinSetError::TooMany));
        pins.add(NOW + 10, key("4")).unwrap();
        assert_eq!(pins.pins().len(), PINS_PER_PEER_MAX);
        assert!(!pins.check(NOW + 10, key("0")).unwrap_err().retired);
    }

    #[test]
    fn stored_as_json_it_comes_back_and_an_empty_set_does_not() {
        let mut pins = PinSet::new(key("a"));
        pins.add(NOW, key("b")).unwrap();
        pins.retire(key("a"), NOW + 5).unwrap();
        let json = serde_json::to_string(&pins).unwrap();
        assert_eq!(serde_json::from_str::<PinSet>(&json).unwrap(), pins);
        let error = serde_json::from_str::<PinSet>("[]").unwrap_err().to_string();
        assert!(error.contains("no fingerprint is pinned"), "{error}");
    }
}
