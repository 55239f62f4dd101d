/// Entries that are made room for at a time.
const PAGE: usize = 64;

/// Values by index, each index given anew when its value is gone.
///
/// In pages: what is there never moves, and the room taken is not up to twice what is needed, as with
/// a vector that doubles.
#[derive(Debug)]
pub(super) struct Slots<T> {
    /// All but the last are full of entries; only the first ever grows.
    pages: Vec<Vec<Entry<T>>>,
    /// The vacant entry to be used next, which names the one after it.
    vacant: Option<u32>,
    used: usize,
}

#[derive(Debug)]
enum Entry<T> {
    Used(T),
    Vacant(Option<u32>),
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { pages: Vec::new(), vacant: None, used: 0 }
    }
}

impl<T> Slots<T> {
    /// How many values there are.
    pub(super) fn len(&self) -> usize {
        self.used
    }

    /// The index that the next [`insert`](Self::insert) gives.
    pub(super) fn next_index(&self) -> u32 {
        let fresh = || match self.pages.last() {
            Some(last) => (self.pages.len() - 1) * PAGE + last.len(),
            None => 0,
        };
        self.vacant.unwrap_or_else(|| fresh() as u32)
    }

    pub(super) fn insert(&mut self, value: T) -> u32 {
        let index = self.next_index();
        self.used += 1;
        match self.entry(index) {
            Some(entry) => {
                if let Entry::Vacant(next) = std::mem::replace(entry, Entry::Used(value)) {
                    self.vacant = next;
                }
            }
            None => self.push(Entry::Used(value)),
        }
        index
    }

    fn push(&mut self, entry: Entry<T>) {
        match self.pages.last_mut().filter(|page| page.len() < PAGE) {
            Some(page) => page.push(entry),
            None => {
                // Who has one association does not pay for sixty-four.
                let room = if self.pages.is_empty() { 1 } else { PAGE };
                let mut page = Vec::with_capacity(room);
                page.push(entry);
                self.pages.push(page);
            }
        }
    }

    fn entry(&mut self, index: u32) -> Option<&mut Entry<T>> {
        let index = index as usize;
        self.pages.get_mut(index / PAGE)?.get_mut(index % PAGE)
    }

    pub(super) fn get(&self, index: u32) -> Option<&T> {
        let index = index as usize;
        match self.pages.get(index / PAGE)?.get(index % PAGE)? {
            Entry::Used(value) => Some(value),
            Entry::Vacant(_) => None,
        }
    }

    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        match self.entry(index)? {
            Entry::Used(value) => Some(value),
            Entry::Vacant(_) => None,
        }
    }

    pub(super) fn remove(&mut self, index: u32) -> Option<T> {
        let vacant = self.vacant;
        let entry = self.entry(index)?;
        if matches!(entry, Entry::Vacant(_)) {
            return None;
        }
        let Entry::Used(value) = std::mem::replace(entry, Entry::Vacant(vacant)) else {
            return None;
        };
        self.vacant = Some(index);
        self.used -= 1;
        Some(value)
    }

    /// All values with their indices.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let entries = self.pages.iter().flatten().enumerate();
        entries.filter_map(|(index, entry)| match entry {
            Entry::Used(value) => Some((index as u32, value)),
            Entry::Vacant(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn slots_agree_with_a_map(steps in prop::collection::vec((any::<bool>(), 0u32..200), 1..400)) {
            let mut slots = Slots::default();
            let mut map = BTreeMap::new();
            for (n, (inserts, index)) in steps.into_iter().enumerate() {
                if inserts {
                    let next = slots.next_index();
                    prop_assert_eq!(slots.insert(n), next);
                    prop_assert_eq!(map.insert(next, n), None);
                } else {
                    prop_assert_eq!(slots.remove(index), map.remove(&index));
                }
                prop_assert_eq!(slots.len(), map.len());
                prop_assert_eq!(slots.get(index), map.get(&index));
                prop_assert_eq!(slots.get_mut(index), map.get_mut(&index));
                prop_assert!(slots.iter().eq(map.iter().map(|(index, n)| (*index, n))));
            }
        }
    }

    #[test]
    fn room_is_taken_for_one_then_by_the_page_and_indices_come_round_again() {
        let mut slots = Slots::default();
        slots.insert(0);
        assert_eq!(slots.pages[0].capacity(), 1);
        (1..1_000).for_each(|n| assert_eq!(slots.insert(n), n));
        let room: usize = slots.pages.iter().map(Vec::capacity).sum();
        assert!(room < 1_000 + PAGE, "{room}");
        assert_eq!((slots.remove(7), slots.remove(8), slots.remove(8)), (Some(7), Some(8), None));
        assert_eq!((slots.insert(1), slots.insert(2), slots.insert(3)), (8, 7, 1_000));
    }
}
