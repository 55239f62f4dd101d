//! What is known of agents that have connected: how each presented itself ([`Table::Agents`]), which seldom changes,
//! and where it stands ([`Table::Standing`]), which changes with each document and each connection.

use std::borrow::Cow;

use certs::AgentId;
use serde::{Deserialize, Serialize};

use super::backend::{Snapshot, Table, Transaction};
use super::ops::{agent_of_key, key, parse, to_json};
use super::{AgentRecord, Standing, StoreError};

/// A row of [`Table::Agents`].
#[derive(Serialize, Deserialize)]
struct Presented<'a> {
    software: Cow<'a, str>,
    boot_id: Cow<'a, str>,
    remote: Cow<'a, str>,
}

/// A row of [`Table::Standing`]: four numbers of 8 bytes, big endian; 0 stands for no version. Small and of one size,
/// because those of a whole fleet are changed in one second.
pub(super) fn standing(
    view: &dyn Snapshot,
    agent: &AgentId,
) -> Result<Option<Standing>, StoreError> {
    view.get(Table::Standing, key(agent))?.map(|row| parse_standing(&row)).transpose()
}

pub(super) fn parse_standing(row: &[u8]) -> Result<Standing, StoreError> {
    let (numbers, []) = row.as_chunks::<8>() else { return Err(corrupt(row)) };
    let &[connected, seen, delivered, applied] = numbers else { return Err(corrupt(row)) };
    let version = |bytes| Some(u64::from_be_bytes(bytes)).filter(|version| *version != 0);
    Ok(Standing {
        connected_unix_ms: u64::from_be_bytes(connected),
        seen_unix_ms: u64::from_be_bytes(seen),
        delivered_version: version(delivered),
        applied_version: version(applied),
    })
}

fn corrupt(row: &[u8]) -> StoreError {
    let what = format!("a record in {} has {} bytes", Table::Standing.name(), row.len());
    StoreError::Corrupt { what }
}

fn record(view: &dyn Snapshot, agent_id: AgentId, row: &[u8]) -> Result<AgentRecord, StoreError> {
    let Presented { software, boot_id, remote } = parse(Table::Agents, row)?;
    let standing = standing(view, &agent_id)?.ok_or_else(|| StoreError::Corrupt {
        what: format!("agent {agent_id} is in agents but not in standing"),
    })?;
    Ok(AgentRecord {
        agent_id,
        software: software.into_owned(),
        boot_id: boot_id.into_owned(),
        remote: remote.into_owned(),
        connected_unix_ms: standing.connected_unix_ms,
        seen_unix_ms: standing.seen_unix_ms,
        delivered_version: standing.delivered_version,
        applied_version: standing.applied_version,
    })
}

pub(super) fn agent(
    view: &dyn Snapshot,
    agent: &AgentId,
) -> Result<Option<AgentRecord>, StoreError> {
    let row = view.get(Table::Agents, key(agent))?;
    row.map(|row| record(view, agent.clone(), &row)).transpose()
}

pub(super) fn agents(view: &dyn Snapshot) -> Result<Vec<AgentRecord>, StoreError> {
    let mut all = Vec::new();
    view.scan(Table::Agents, &[], &mut |agent, row| {
        all.push(record(view, agent_of_key(Table::Agents, agent)?, row)?);
        Ok(true)
    })?;
    Ok(all)
}

/// The newest version that an agent has confirmed to hold.
pub(super) fn delivered_version(
    view: &dyn Snapshot,
    agent: &AgentId,
) -> Result<Option<u64>, StoreError> {
    Ok(standing(view, agent)?.and_then(|standing| standing.delivered_version))
}

pub(super) fn save(tx: &mut dyn Transaction, record: &AgentRecord) -> Result<(), StoreError> {
    let agent = key(&record.agent_id);
    let presented = Presented {
        software: record.software.as_str().into(),
        boot_id: record.boot_id.as_str().into(),
        remote: record.remote.as_str().into(),
    };
    let presented = to_json(Table::Agents, &presented)?;
    // Mostly it is what it was, and a lookup costs less than a change.
    if tx.get(Table::Agents, agent)?.is_none_or(|before| before != presented) {
        tx.put(Table::Agents, agent, &presented)?;
    }
    save_standing(tx, &record.agent_id, record.standing())
}

pub(super) fn save_standing(
    tx: &mut dyn Transaction,
    agent: &AgentId,
    standing: Standing,
) -> Result<(), StoreError> {
    let numbers = [
        standing.connected_unix_ms,
        standing.seen_unix_ms,
        standing.delivered_version.unwrap_or(0),
        standing.applied_version.unwrap_or(0),
    ];
    tx.put(Table::Standing, key(agent), numbers.map(u64::to_be_bytes).as_flattened())
}

#[cfg(test)]
mod tests;
