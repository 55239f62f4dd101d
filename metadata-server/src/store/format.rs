//! The format of the tables, and how a store of an older one is brought up to date.
//!
//! | format | what it changed |
//! |---|---|
//! | 1 | the first |
//! | 2 | documents by their digest, each once: `Contents` and `ContentUses` in place of `Bodies` |
//! | 3 | rows of fixed form for what changes with each push: `Given` in place of `Heads`, `Versions` and `Bases`, and `Standing` with a part of what `Agents` had |
//!
//! All of it is one transaction: a store is of one format or of the next. A store of a newer program is refused, so one
//! that was brought up to date is not opened by an older program again.

use std::collections::BTreeMap;

use metadata_delivery::message::Hex32;

use super::backend::{Table, Transaction};
use super::contents::Uses;
use super::documents::{Given, InForce};
use super::ops::{get_number, number_of, parse};
use super::{AgentRecord, DocumentHead, StoreError, agents};

/// The format of the store this program writes. Raise it when a table changes its meaning.
pub const FORMAT: u64 = 3;

const KEY_FORMAT: &[u8] = b"format";

/// Sets the format in an empty store, brings an older one up to date, refuses one of a newer program.
pub(super) fn check(tx: &mut dyn Transaction) -> Result<(), StoreError> {
    match get_number(tx, Table::Meta, KEY_FORMAT)? {
        Some(found) if found > FORMAT => {
            return Err(StoreError::Format { found, known: FORMAT });
        }
        Some(FORMAT) => return Ok(()),
        Some(found) => {
            if found < 2 {
                share_contents(tx)?;
            }
            fix_rows(tx)?;
        }
        None => {}
    }
    tx.put(Table::Meta, KEY_FORMAT, &FORMAT.to_be_bytes())
}

/// From format 1, which had a copy of its document for each agent, to 2.
fn share_contents(tx: &mut dyn Transaction) -> Result<(), StoreError> {
    for (agent, head) in rows(tx, Table::Heads)? {
        let head: DocumentHead = parse(Table::Heads, &head)?;
        if let Some(body) = tx.get(Table::Bodies, &agent)? {
            let mut uses = Uses::default();
            uses.add(head.sha256);
            uses.settle(tx, &head.sha256.0, &body)?;
            tx.delete(Table::Bodies, &agent)?;
        }
        if let Some(entry) = tx.get(Table::Bases, &agent)?
            && let Some((sha256, body)) = entry.split_first_chunk::<32>()
        {
            let mut uses = Uses::default();
            uses.add(Hex32(*sha256));
            uses.settle(tx, sha256, body)?;
            tx.put(Table::Bases, &agent, sha256)?;
        }
    }
    Ok(())
}

/// From format 2, which had JSON in several tables, to 3.
fn fix_rows(tx: &mut dyn Transaction) -> Result<(), StoreError> {
    let mut all: BTreeMap<Vec<u8>, Given> = BTreeMap::new();
    for (agent, last) in take(tx, Table::Versions)? {
        all.entry(agent).or_default().last = number_of(Table::Versions, &last)?;
    }
    for (agent, head) in take(tx, Table::Heads)? {
        let head: DocumentHead = parse(Table::Heads, &head)?;
        let given = all.entry(agent).or_default();
        given.last = given.last.max(head.version);
        given.document = Some(InForce { head, base: None });
    }
    for (agent, base) in take(tx, Table::Bases)? {
        if let Some(document) = all.entry(agent).or_default().document.as_mut() {
            let base = base.try_into().map_err(|base: Vec<u8>| StoreError::Corrupt {
                what: format!("a digest in {} has {} bytes", Table::Bases.name(), base.len()),
            })?;
            document.base = Some(Hex32(base));
        }
    }
    for (agent, given) in all {
        given.put(tx, &agent)?;
    }
    for (_, record) in rows(tx, Table::Agents)? {
        let record: AgentRecord = parse(Table::Agents, &record)?;
        agents::save(tx, &record)?;
    }
    Ok(())
}

type Row = (Vec<u8>, Vec<u8>);

fn rows(tx: &dyn Transaction, table: Table) -> Result<Vec<Row>, StoreError> {
    let mut all = Vec::new();
    tx.scan(table, &[], &mut |key, value| {
        all.push((key.to_vec(), value.to_vec()));
        Ok(true)
    })?;
    Ok(all)
}

/// What is in a table, which is empty then.
fn take(tx: &mut dyn Transaction, table: Table) -> Result<Vec<Row>, StoreError> {
    let all = rows(tx, table)?;
    for (key, _) in &all {
        tx.delete(table, key)?;
    }
    Ok(all)
}

#[cfg(test)]
mod tests;
