use ring::aead::LessSafeKey;
use zeroize::Zeroizing;

use super::{CipherSuite, TrafficKey};

/// The expanded key that was used last.
///
/// An association holds raw keys, so that it stays small when idle; expanding one costs half as much
/// as sealing 1,200 bytes under it. Of a run of records under one key only the first pays for that.
/// A key is known by its bytes, so what is held here cannot be another's.
#[derive(Default)]
pub(crate) struct HotKey(Option<Held>);

struct Held {
    suite: CipherSuite,
    raw: Zeroizing<[u8; 32]>,
    expanded: LessSafeKey,
}

impl HotKey {
    /// `key`, expanded.
    pub(super) fn of(&mut self, key: &TrafficKey) -> Option<&LessSafeKey> {
        if !self.0.as_ref().is_some_and(|held| held.is(key)) {
            let expanded = key.expand()?;
            self.0 = Some(Held { suite: key.suite(), raw: key.raw().clone(), expanded });
        }
        self.0.as_ref().map(|held| &held.expanded)
    }

    /// No key outlives its association here.
    pub(crate) fn forget(&mut self) {
        self.0 = None;
    }
}

impl Held {
    fn is(&self, key: &TrafficKey) -> bool {
        // Both are secret and neither is anybody's guess, so the time this takes tells nothing.
        let differ = self.raw.iter().zip(key.raw().iter()).fold(0, |all, (a, b)| all | (a ^ b));
        self.suite == key.suite() && differ == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(suite: CipherSuite, byte: u8) -> TrafficKey {
        TrafficKey::new(suite, &vec![byte; suite.key_len()], &vec![1; suite.fixed_iv_len()])
    }

    #[test]
    fn what_is_sealed_under_a_held_key_is_what_is_sealed_under_a_fresh_one() {
        let mut hot = HotKey::default();
        let suites = CipherSuite::ALL.into_iter();
        let keys: Vec<_> = suites.flat_map(|suite| [1, 2].map(|byte| key(suite, byte))).collect();
        // Each after each, itself included.
        for (number, (first, second)) in
            keys.iter().flat_map(|a| keys.iter().map(move |b| (a, b))).enumerate()
        {
            for key in [first, second] {
                let (mut held, mut fresh) = (Vec::new(), Vec::new());
                key.seal_hot(&mut hot, number as u64, [3; 13], b"content", &[], &mut held);
                key.seal(number as u64, [3; 13], b"content", &[], &mut fresh);
                assert_eq!(held, fresh);
                let opened = key.open_hot(&mut hot, number as u64, |_| [3; 13], &mut held);
                assert_eq!(opened.as_deref(), Some(&b"content"[..]));
            }
        }
        hot.forget();
        assert!(hot.0.is_none());
    }
}
