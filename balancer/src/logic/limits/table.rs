//! Values by key within a bound of memory; knows which key was used longest ago.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// What an entry costs beside its key; about what nginx's nodes take.
const ENTRY_LEN: usize = 96;

#[derive(Debug)]
pub struct Table<T> {
    entries: HashMap<Arc<[u8]>, Entry<T>>,
    /// Keys by their last use.
    by_use: BTreeMap<u64, Arc<[u8]>>,
    uses: u64,
    len: usize,
    len_max: usize,
}

#[derive(Debug)]
struct Entry<T> {
    value: T,
    used: u64,
}

impl<T> Table<T> {
    pub fn new(len_max: usize) -> Table<T> {
        Table { entries: HashMap::new(), by_use: BTreeMap::new(), uses: 0, len: 0, len_max }
    }

    pub fn get(&self, key: &[u8]) -> Option<&T> {
        self.entries.get(key).map(|entry| &entry.value)
    }

    /// The value, which is now the one used last.
    pub fn touch(&mut self, key: &[u8]) -> Option<&mut T> {
        let entry = self.entries.get_mut(key)?;
        if let Some(key) = self.by_use.remove(&entry.used) {
            self.uses += 1;
            entry.used = self.uses;
            self.by_use.insert(self.uses, key);
        }
        Some(&mut entry.value)
    }

    pub fn has_room(&self, key: &[u8]) -> bool {
        self.len + ENTRY_LEN + key.len() <= self.len_max
    }

    /// A new key. Where memory is short the keys used longest ago make room.
    pub fn insert(&mut self, key: &[u8], value: T) {
        while !self.has_room(key) && self.drop_oldest() {}
        self.uses += 1;
        let key: Arc<[u8]> = key.into();
        self.len += ENTRY_LEN + key.len();
        self.by_use.insert(self.uses, key.clone());
        self.entries.insert(key, Entry { value, used: self.uses });
    }

    pub fn remove(&mut self, key: &[u8]) {
        if let Some(entry) = self.entries.remove(key) {
            self.by_use.remove(&entry.used);
            self.len -= ENTRY_LEN + key.len();
        }
    }

    /// Drops up to `count_max` of those used longest ago, as long as they may go.
    pub fn drop_oldest_while(&mut self, count_max: usize, may_go: impl Fn(&T) -> bool) {
        for _ in 0..count_max {
            let oldest = self.by_use.first_key_value().and_then(|(_, key)| self.entries.get(key));
            if !oldest.is_some_and(|entry| may_go(&entry.value)) {
                return;
            }
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) -> bool {
        let Some(key) = self.by_use.first_key_value().map(|(_, key)| key.clone()) else { return false };
        self.remove(&key);
        true
    }

    #[cfg(test)]
    pub fn count(&self) -> usize {
        debug_assert_eq!(self.entries.len(), self.by_use.len(), "both know the same keys");
        self.entries.len()
    }
}
