//! The bytes of documents, by their digest: a document that many agents have, or had before, is stored once.

use std::collections::BTreeMap;

use certs::AgentId;
use metadata_delivery::message::Hex32;

use super::backend::{Snapshot, Table, Transaction};
use super::ops::{get_number, put_number};
use super::{DocumentHead, StoreError};

/// The document with this digest, if an agent has it or had it before.
pub(super) fn get(view: &dyn Snapshot, sha256: &Hex32) -> Result<Option<Vec<u8>>, StoreError> {
    view.get(Table::Contents, &sha256.0)
}

/// The document that an agent's head tells of.
pub(super) fn of(
    view: &dyn Snapshot,
    agent: &AgentId,
    head: &DocumentHead,
) -> Result<Vec<u8>, StoreError> {
    get(view, &head.sha256)?.ok_or_else(|| StoreError::Corrupt {
        what: format!("agent {agent} has a head but no body"),
    })
}

/// How the uses of documents change in one write. They are counted together, so that a write for ten thousand agents
/// changes one count.
#[derive(Default)]
#[must_use]
pub(super) struct Uses {
    more: BTreeMap<[u8; 32], u64>,
    fewer: BTreeMap<[u8; 32], u64>,
}

impl Uses {
    /// One more use of a document.
    pub(super) fn add(&mut self, sha256: Hex32) {
        *self.more.entry(sha256.0).or_default() += 1;
    }

    /// One use less.
    pub(super) fn remove(&mut self, sha256: Hex32) {
        *self.fewer.entry(sha256.0).or_default() += 1;
    }

    /// Counts, stores `body` if it is used from here on, and forgets what is not used any more.
    pub(super) fn settle(
        self,
        tx: &mut dyn Transaction,
        sha256: &[u8; 32],
        body: &[u8],
    ) -> Result<(), StoreError> {
        let Self { more, mut fewer } = self;
        for (digest, more) in more {
            let before = get_number(tx, Table::ContentUses, &digest)?.unwrap_or(0);
            let after = (before + more).saturating_sub(fewer.remove(&digest).unwrap_or(0));
            if before == 0 && after > 0 && digest == *sha256 {
                tx.put(Table::Contents, &digest, body)?;
            }
            set(tx, &digest, after)?;
        }
        for (digest, fewer) in fewer {
            let before = get_number(tx, Table::ContentUses, &digest)?.unwrap_or(0);
            set(tx, &digest, before.saturating_sub(fewer))?;
        }
        Ok(())
    }
}

fn set(tx: &mut dyn Transaction, digest: &[u8; 32], uses: u64) -> Result<(), StoreError> {
    if uses > 0 {
        return put_number(tx, Table::ContentUses, digest, uses);
    }
    tx.delete(Table::ContentUses, digest)?;
    tx.delete(Table::Contents, digest)
}
