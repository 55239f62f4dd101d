//! A map of few entries, in the order of their keys.

/// Entries side by side; what comes or goes in between moves others. Holds no memory while it is empty, and for one
/// entry that of one: a node of a tree has room for eleven.
#[derive(Debug)]
pub(crate) struct Sorted<K, V> {
    entries: Vec<(K, V)>,
}

impl<K, V> Default for Sorted<K, V> {
    fn default() -> Self {
        Self { entries: Vec::new() }
    }
}

impl<K: Ord, V> Sorted<K, V> {
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many keys are below this one.
    fn below(&self, key: &K) -> usize {
        match self.entries.last() {
            Some((last, _)) if last >= key => self.entries.partition_point(|(k, _)| k < key),
            _ => self.entries.len(),
        }
    }

    fn position(&self, key: &K) -> Option<usize> {
        let at = self.below(key);
        self.entries.get(at).filter(|(k, _)| k == key).map(|_| at)
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        let at = self.position(key)?;
        self.entries.get(at).map(|(_, value)| value)
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let at = self.position(key)?;
        self.entries.get_mut(at).map(|(_, value)| value)
    }

    /// Replaces what was there.
    pub(crate) fn insert(&mut self, key: K, value: V) {
        let at = self.below(&key);
        match self.entries.get_mut(at) {
            Some(entry) if entry.0 == key => entry.1 = value,
            _ => self.insert_at(at, key, value),
        }
    }

    fn insert_at(&mut self, at: usize, key: K, value: V) {
        if self.entries.len() == self.entries.capacity() {
            self.entries.reserve_exact(self.entries.len().max(1));
        }
        self.entries.insert(at, (key, value));
    }

    /// What is there, or the default, which is put there.
    pub(crate) fn or_default(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        let at = self.below(&key);
        if self.entries.get(at).is_none_or(|(k, _)| *k != key) {
            self.insert_at(at, key, V::default());
        }
        &mut self.entries[at].1
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let at = self.position(key)?;
        let (_, removed) = self.entries.remove(at);
        self.tidy();
        Some(removed)
    }

    fn tidy(&mut self) {
        if self.entries.is_empty() {
            self.entries = Vec::new();
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, value)| (key, value))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.entries.iter_mut().map(|(key, value)| (&*key, value))
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.entries.iter_mut().map(|(_, value)| value)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.entries.iter().map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    proptest::proptest! {
        #[test]
        fn it_holds_what_a_map_holds(
            steps in proptest::collection::vec((0u8..4, 0u64..30), 0..60),
        ) {
            let mut sorted = Sorted::default();
            let mut model = BTreeMap::new();
            for (nth, (what, key)) in steps.into_iter().enumerate() {
                match what {
                    0 | 1 => {
                        sorted.insert(key, nth);
                        model.insert(key, nth);
                    }
                    2 => assert_eq!(sorted.or_default(key), model.entry(key).or_default()),
                    _ => assert_eq!(sorted.remove(&key), model.remove(&key)),
                }
                assert!(sorted.iter().eq(model.iter()) && sorted.values().eq(model.values()));
                assert_eq!((sorted.len(), sorted.is_empty()), (model.len(), model.is_empty()));
                assert_eq!(sorted.get(&key), model.get(&key));
                assert_eq!(sorted.get_mut(&key), model.get_mut(&key));
                assert!(!sorted.is_empty() || sorted.entries.capacity() == 0);
            }
        }
    }

    #[test]
    fn one_entry_takes_the_room_of_one() {
        let mut sorted = Sorted::default();
        sorted.insert(7, [0u8; 300]);
        assert_eq!(sorted.entries.capacity(), 1);
        sorted.insert(3, [0; 300]);
        assert_eq!(sorted.entries.capacity(), 2);
    }
}
