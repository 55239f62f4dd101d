//! A store that forgets: for tests of what is above it.

use std::collections::BTreeMap;
use std::sync::RwLock;

use super::StoreError;
use super::backend::{Backend, ReadJob, Snapshot, Table, Transaction, Visit, WriteJob};

type Tables = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

/// Tables in memory. Transactions are atomic; nothing is durable.
#[derive(Debug, Default)]
pub struct MemoryBackend {
    tables: RwLock<Tables>,
}

impl Backend for MemoryBackend {
    fn read(&self, job: &mut ReadJob<'_>) -> Result<(), StoreError> {
        let tables = self.tables.read().map_err(|_| StoreError::Closed)?;
        job(&View { tables: &tables })
    }

    fn write(&self, _bytes: usize, job: &mut WriteJob<'_>) -> Result<(), StoreError> {
        let mut tables = self.tables.write().map_err(|_| StoreError::Closed)?;
        let mut changes = Changes { tables: &tables, changed: BTreeMap::new() };
        job(&mut changes)?;
        for (key, value) in changes.changed {
            match value {
                Some(value) => tables.insert(key, value),
                None => tables.remove(&key),
            };
        }
        Ok(())
    }
}

struct View<'a> {
    tables: &'a Tables,
}

impl Snapshot for View<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.tables.get(&(table, key.to_vec())).cloned())
    }

    fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        for ((_, key), value) in
            self.tables.range((table, from.to_vec())..).take_while(|((t, _), _)| *t == table)
        {
            if !visit(key, value)? {
                break;
            }
        }
        Ok(())
    }
}

struct Changes<'a> {
    tables: &'a Tables,
    /// `None`: deleted.
    changed: BTreeMap<(Table, Vec<u8>), Option<Vec<u8>>>,
}

impl Snapshot for Changes<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.changed.get(&(table, key.to_vec())) {
            Some(changed) => Ok(changed.clone()),
            None => View { tables: self.tables }.get(table, key),
        }
    }

    fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let range = (table, from.to_vec())..;
        let mut merged: Tables =
            self.tables.range(range.clone()).map(|(k, v)| (k.clone(), v.clone())).collect();
        for (key, value) in self.changed.range(range) {
            match value {
                Some(value) => merged.insert(key.clone(), value.clone()),
                None => merged.remove(key),
            };
        }
        View { tables: &merged }.scan(table, from, visit)
    }
}

impl Transaction for Changes<'_> {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.changed.insert((table, key.to_vec()), Some(value.to_vec()));
        Ok(())
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), StoreError> {
        self.changed.insert((table, key.to_vec()), None);
        Ok(())
    }
}
