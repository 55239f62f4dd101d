//! What each agent should hold and has applied, in memory: most agents that connect hold just that, and then nothing
//! has to be looked up for them.
//!
//! It is what the rows of [`Table::Given`] and [`Table::Standing`] say. These are read when the store is opened, and each
//! transaction notes those that it changes (see [`Noting`]), which count once they are durable. So the process that
//! has the store open must be the only one that writes it, as it is with a file.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use certs::AgentId;
use metadata_delivery::message::Holds;

use super::StoreError;
use super::agents::parse_standing;
use super::backend::{Snapshot, Table, Transaction, Visit};
use super::documents::{Given, InForce};
use super::ops::agent_of_key;

/// What is known of an agent.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct AtHand {
    /// Its document.
    pub document: Option<Holds>,
    /// The version that it applied last.
    pub applied_version: Option<u64>,
}

/// All agents with a document or a record.
#[derive(Debug, Default)]
pub(super) struct AllAtHand {
    /// None for one of which a row cannot be read: whoever reads it in the store is told why.
    agents: RwLock<HashMap<AgentId, Option<AtHand>>>,
}

/// What a row says.
#[derive(Debug)]
enum Said {
    Document(Option<Holds>),
    Applied(Option<u64>),
    Nonsense,
}

/// A row that was changed.
#[derive(Debug)]
pub(super) struct Noted {
    agent: AgentId,
    said: Said,
}

fn noted(table: Table, key: &[u8], row: Option<&[u8]>) -> Option<Noted> {
    let said = match table {
        Table::Given => row.map_or_else(|| Ok(Given::default()), Given::parse).map(|given| {
            let holds = |InForce { head, .. }| Holds { version: head.version, sha256: head.sha256 };
            Said::Document(given.document.map(holds))
        }),
        Table::Standing => row
            .map(parse_standing)
            .transpose()
            .map(|standing| Said::Applied(standing.and_then(|standing| standing.applied_version))),
        _ => return None,
    };
    // Nobody can ask for what is no agent's.
    let agent = agent_of_key(table, key).ok()?;
    Some(Noted { agent, said: said.unwrap_or(Said::Nonsense) })
}

impl AllAtHand {
    pub(super) fn read(view: &dyn Snapshot) -> Result<Self, StoreError> {
        let all = Self::default();
        for table in [Table::Given, Table::Standing] {
            view.scan(table, &[], &mut |key, row| {
                all.take(noted(table, key, Some(row)));
                Ok(true)
            })?;
        }
        Ok(all)
    }

    /// What was noted is durable.
    pub(super) fn take(&self, noted: impl IntoIterator<Item = Noted>) {
        for Noted { agent, said } in noted {
            // One at a time, so that nobody waits for a whole fleet.
            let mut agents = self.agents.write().unwrap_or_else(PoisonError::into_inner);
            let known = agents.entry(agent).or_insert_with(|| Some(AtHand::default()));
            match (said, known) {
                (Said::Document(document), Some(known)) => known.document = document,
                (Said::Applied(version), Some(known)) => known.applied_version = version,
                (_, unreadable) => *unreadable = None,
            }
        }
    }

    pub(super) fn of(&self, agent: &AgentId) -> Option<AtHand> {
        let agents = self.agents.read().unwrap_or_else(PoisonError::into_inner);
        agents.get(agent).map_or_else(|| Some(AtHand::default()), |known| *known)
    }
}

/// A transaction that notes what it changes of what is at hand.
pub(super) struct Noting<'t> {
    pub(super) tx: &'t mut dyn Transaction,
    pub(super) noted: &'t mut Vec<Noted>,
}

impl Snapshot for Noting<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.tx.get(table, key)
    }

    fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.tx.scan(table, from, visit)
    }
}

impl Transaction for Noting<'_> {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.noted.extend(noted(table, key, Some(value)));
        self.tx.put(table, key, value)
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), StoreError> {
        self.noted.extend(noted(table, key, None));
        self.tx.delete(table, key)
    }
}

#[cfg(test)]
mod tests;
