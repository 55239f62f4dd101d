//! What the bytes in the tables mean. No back end knows, no caller sees keys.

use std::collections::{BTreeMap, BTreeSet};

use certs::token::TokenRecord;
use certs::{AgentId, Fingerprint};
use metadata_delivery::message::DeploymentResult;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::StoreError;
use super::agents;
use super::backend::{Snapshot, Table, Transaction};
use super::documents;
use super::queues;
use super::signals;
use super::types::{
    Dropped, Enrolment, Kept, Outcome, PinOrigin, PinRecord, ResultsPage, ResultsQuery,
    SavedResult, TicketKeyRecord, Write,
};
use crate::document::config_ids;
use crate::heat::HeatSource;

const KEY_LAST_RESULT: &[u8] = b"last_result";
/// Eight bytes of time, then the keys.
const KEY_TICKET_KEYS: &[u8] = b"ticket_keys";
/// Signs the URLs of queues.
const KEY_URL_KEY: &[u8] = b"queue_url_key";

/// A page of results ends after so many bytes of them.
const RESULTS_PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Tokens are remembered for a week after they end, so that a late use is told from a forgery.
const TOKEN_REMEMBERED_S: u64 = 7 * 24 * 3600;
/// Reads something, anything.
pub(super) fn probe(view: &dyn Snapshot) -> Result<(), StoreError> {
    view.get(Table::Meta, KEY_LAST_RESULT).map(|_| ())
}

pub(super) fn pins(view: &dyn Snapshot) -> Result<Vec<PinRecord>, StoreError> {
    scan_json(view, Table::Pins)
}

pub(super) fn pinned_agents(view: &dyn Snapshot, prefix: &str) -> Result<Vec<AgentId>, StoreError> {
    let mut all: Vec<AgentId> = Vec::new();
    view.scan(Table::PinsOfAgent, prefix.as_bytes(), &mut |entry, _| {
        if !entry.starts_with(prefix.as_bytes()) {
            return Ok(false);
        }
        let id = entry.split(|byte| *byte == 0).next().unwrap_or_default();
        let id = String::from_utf8_lossy(id);
        // An agent with several pins is there as often.
        if all.last().is_none_or(|last| last.as_str() != id) {
            all.push(
                id.parse().map_err(|e| StoreError::Corrupt {
                    what: format!("key in pins_of_agent: {e}"),
                })?,
            );
        }
        Ok(true)
    })?;
    Ok(all)
}

pub(super) fn pins_of(
    view: &dyn Snapshot,
    agent: &AgentId,
) -> Result<Vec<Fingerprint>, StoreError> {
    let prefix = prefix(agent);
    let mut all = Vec::new();
    view.scan(Table::PinsOfAgent, &prefix, &mut |entry, _| {
        let Some(bytes) = entry.strip_prefix(prefix.as_slice()) else { return Ok(false) };
        let bytes = bytes.try_into().map_err(|_| StoreError::Corrupt {
            what: format!("a pin of agent {agent} has {} bytes", bytes.len()),
        })?;
        all.push(Fingerprint::from_bytes(bytes));
        Ok(true)
    })?;
    Ok(all)
}

pub(super) fn token(
    view: &dyn Snapshot,
    token_id: &str,
) -> Result<Option<TokenRecord>, StoreError> {
    get_json(view, Table::Tokens, token_id.as_bytes())
}

pub(super) fn ticket_keys(view: &dyn Snapshot) -> Result<Option<TicketKeyRecord>, StoreError> {
    let Some(value) = view.get(Table::Meta, KEY_TICKET_KEYS)?.map(Zeroizing::new) else {
        return Ok(None);
    };
    let Some((made, keys)) = value.split_first_chunk() else {
        return Err(StoreError::Corrupt { what: "ticket keys without their time".into() });
    };
    let made_unix_ms = u64::from_be_bytes(*made);
    Ok(Some(TicketKeyRecord { made_unix_ms, keys: keys.to_vec().into() }))
}

pub(super) fn heat_source(
    view: &dyn Snapshot,
    agent: &AgentId,
) -> Result<Option<HeatSource>, StoreError> {
    get_json(view, Table::HeatSources, key(agent))
}

pub(super) fn heat_sources(view: &dyn Snapshot) -> Result<Vec<AgentId>, StoreError> {
    let mut all = Vec::new();
    view.scan(Table::HeatSources, &[], &mut |agent, _| {
        all.push(agent_of_key(Table::HeatSources, agent)?);
        Ok(true)
    })?;
    Ok(all)
}

pub(super) fn url_key(view: &dyn Snapshot) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
    Ok(view.get(Table::Meta, KEY_URL_KEY)?.map(Zeroizing::new))
}

pub(super) fn results(
    view: &dyn Snapshot,
    query: &ResultsQuery,
) -> Result<ResultsPage, StoreError> {
    let mut page = ResultsPage { results: Vec::new(), next_after: None };
    let mut bytes = 0;
    let from = query.after.saturating_add(1).to_be_bytes();
    let mut take = |value: &[u8]| -> Result<bool, StoreError> {
        if page.results.len() >= query.limit || bytes >= RESULTS_PAGE_BYTES_MAX {
            page.next_after = page.results.last().map(|r: &SavedResult| r.number);
            return Ok(false);
        }
        bytes += value.len();
        let mut saved: SavedResult = parse(Table::Results, value)?;
        saved.signal = signals::ops::get(view, saved.number)?;
        page.results.push(saved);
        Ok(true)
    };
    match &query.agent {
        None => view.scan(Table::Results, &from, &mut |_, value| take(value))?,
        Some(agent) => {
            let prefix = prefix(agent);
            let start = joined(&prefix, &from);
            view.scan(Table::ResultsOfAgent, &start, &mut |entry, _| {
                let Some(number) = entry.strip_prefix(prefix.as_slice()) else { return Ok(false) };
                match view.get(Table::Results, number)? {
                    Some(value) => take(&value),
                    None => Err(missing_result(agent)),
                }
            })?;
        }
    }
    Ok(page)
}

/// Does one write inside a transaction.
pub(super) fn apply(tx: &mut dyn Transaction, write: &Write) -> Result<Outcome, StoreError> {
    match write {
        Write::PutDocument { agent, document, accepted_unix_ms } => {
            let (document, is_new) = documents::put(tx, agent, document, *accepted_unix_ms)?;
            Ok(Outcome::Document { document, is_new })
        }
        Write::RaiseVersion { agent, held, held_sha256 } => {
            documents::raise_version(tx, agent, *held, *held_sha256)
        }
        Write::SaveAgent(record) => {
            agents::save(tx, record)?;
            Ok(Outcome::Done)
        }
        Write::SaveStanding(agent, standing) => {
            agents::save_standing(tx, agent, *standing)?;
            Ok(Outcome::Done)
        }
        Write::SaveTicketKeys(TicketKeyRecord { made_unix_ms, keys }) => {
            let value = Zeroizing::new(joined(&made_unix_ms.to_be_bytes(), keys));
            tx.put(Table::Meta, KEY_TICKET_KEYS, &value)?;
            Ok(Outcome::Done)
        }
        Write::IssueToken { record, now_unix_s } => {
            forget_old_tokens(tx, *now_unix_s)?;
            let token_id = record.token_id.as_str().as_bytes();
            put_json(tx, Table::Tokens, token_id, record)?;
            let by_expiry = joined(&record.expires_unix.to_be_bytes(), token_id);
            tx.put(Table::TokensByExpiry, &by_expiry, &[])?;
            Ok(Outcome::Done)
        }
        Write::Enrol { token_id, fingerprint, now_unix_ms, .. } => {
            enrol(tx, token_id, *fingerprint, *now_unix_ms).map(Outcome::Enrolment)
        }
        Write::AddPin(pin) => {
            let owner = pin_of(tx, &pin.fingerprint)?.map(|p| p.agent_id);
            match owner {
                Some(owner) if owner != pin.agent_id => Ok(Outcome::Pin { taken_by: Some(owner) }),
                Some(_) => Ok(Outcome::Pin { taken_by: None }),
                None => {
                    pin_down(tx, pin)?;
                    Ok(Outcome::Pin { taken_by: None })
                }
            }
        }
        Write::AddPins(pins) => add_pins(tx, pins),
        Write::PutDocuments { agents, document, accepted_unix_ms } => {
            documents::put_for(tx, agents, document, *accepted_unix_ms).map(Outcome::Documents)
        }
        Write::RemovePin { agent, fingerprint } => {
            let removed = pin_of(tx, fingerprint)?.is_some_and(|p| p.agent_id == *agent);
            if removed {
                unpin(tx, agent, fingerprint)?;
            }
            Ok(Outcome::Unpin { removed })
        }
        Write::SaveResult {
            agent, result, sha256, stored_unix_ms, per_agent_max, signal, ..
        } => {
            let saved = save_result(tx, agent, result, sha256, *stored_unix_ms, *per_agent_max)?;
            if *signal && saved.is_new {
                signals::ops::queue(tx, saved.number, agent, *stored_unix_ms)?;
            }
            Ok(Outcome::Result(saved))
        }
        Write::Signal(write) => signals::ops::apply(tx, write).map(Outcome::Signal),
        Write::Queue(write) => queues::ops::apply(tx, write).map(Outcome::Queue),
        Write::SaveHeatSource { agent, source } => {
            match source {
                Some(source) => {
                    queues::ops::unbind(tx, agent)?;
                    put_json(tx, Table::HeatSources, key(agent), source)?;
                }
                None => tx.delete(Table::HeatSources, key(agent))?,
            }
            Ok(Outcome::Done)
        }
        Write::SaveUrlKey(key) => {
            tx.put(Table::Meta, KEY_URL_KEY, key.as_slice())?;
            Ok(Outcome::Done)
        }
    }
}

fn enrol(
    tx: &mut dyn Transaction,
    token_id: &str,
    fingerprint: Fingerprint,
    now_unix_ms: u64,
) -> Result<Enrolment, StoreError> {
    let Some(mut record) = token(tx, token_id)? else { return Ok(Enrolment::Unknown) };
    if let Some(used_by) = record.used_by {
        // The same key again: its agent was cut off before it heard of its success.
        let agent = record.agent_id;
        let pinned = pin_of(tx, &fingerprint)?.is_some_and(|pin| pin.agent_id == agent);
        return Ok(if used_by == fingerprint && pinned {
            Enrolment::Done { agent, replaced: Vec::new() }
        } else {
            Enrolment::Used
        });
    }
    if now_unix_ms / 1000 >= record.expires_unix {
        return Ok(Enrolment::Expired);
    }
    let agent = record.agent_id.clone();
    if let Some(pin) = pin_of(tx, &fingerprint)?
        && pin.agent_id != agent
    {
        return Ok(Enrolment::FingerprintTaken { by: pin.agent_id });
    }
    let mut replaced = Vec::new();
    for old in pins_of(tx, &agent)? {
        if old != fingerprint {
            unpin(tx, &agent, &old)?;
            replaced.push(old);
        }
    }
    let pin = PinRecord {
        fingerprint,
        agent_id: agent.clone(),
        origin: PinOrigin::Token,
        added_unix_ms: now_unix_ms,
    };
    pin_down(tx, &pin)?;
    record.used_by = Some(fingerprint);
    put_json(tx, Table::Tokens, token_id.as_bytes(), &record)?;
    Ok(Enrolment::Done { agent, replaced })
}

fn pin_down(tx: &mut dyn Transaction, pin: &PinRecord) -> Result<(), StoreError> {
    put_json(tx, Table::Pins, pin.fingerprint.as_bytes(), pin)?;
    let of_agent = joined(&prefix(&pin.agent_id), pin.fingerprint.as_bytes());
    tx.put(Table::PinsOfAgent, &of_agent, &[])
}

fn add_pins(tx: &mut dyn Transaction, pins: &[PinRecord]) -> Result<Outcome, StoreError> {
    let mut new = Vec::new();
    for pin in pins {
        match pin_of(tx, &pin.fingerprint)?.map(|p| p.agent_id) {
            Some(owner) if owner != pin.agent_id => {
                let taken = Some((pin.fingerprint, owner));
                return Ok(Outcome::Pins { added: 0, taken });
            }
            Some(_) => {}
            None => new.push(pin),
        }
    }
    // The list itself may name one fingerprint for two agents.
    let mut owners = BTreeMap::new();
    for pin in &new {
        let owner = *owners.entry(pin.fingerprint).or_insert(&pin.agent_id);
        if *owner != pin.agent_id {
            let taken = Some((pin.fingerprint, owner.clone()));
            return Ok(Outcome::Pins { added: 0, taken });
        }
    }
    for pin in &new {
        pin_down(tx, pin)?;
    }
    Ok(Outcome::Pins { added: owners.len(), taken: None })
}

fn unpin(
    tx: &mut dyn Transaction,
    agent: &AgentId,
    fingerprint: &Fingerprint,
) -> Result<(), StoreError> {
    tx.delete(Table::Pins, fingerprint.as_bytes())?;
    tx.delete(Table::PinsOfAgent, &joined(&prefix(agent), fingerprint.as_bytes()))
}

fn forget_old_tokens(tx: &mut dyn Transaction, now_unix_s: u64) -> Result<(), StoreError> {
    let limit = now_unix_s.saturating_sub(TOKEN_REMEMBERED_S).to_be_bytes();
    let mut old = Vec::new();
    tx.scan(Table::TokensByExpiry, &[], &mut |entry, _| {
        let is_old = entry < limit.as_slice();
        if is_old {
            old.push(entry.to_vec());
        }
        Ok(is_old)
    })?;
    for entry in old {
        tx.delete(Table::Tokens, entry.get(limit.len()..).unwrap_or_default())?;
        tx.delete(Table::TokensByExpiry, &entry)?;
    }
    Ok(())
}

fn save_result(
    tx: &mut dyn Transaction,
    agent: &AgentId,
    result: &DeploymentResult,
    sha256: &[u8; 32],
    stored_unix_ms: u64,
    per_agent_max: u64,
) -> Result<Kept, StoreError> {
    let prefix = prefix(agent);
    let seen = joined(&prefix, sha256);
    if let Some(number) = get_number(tx, Table::ResultsSeen, &seen)? {
        return Ok(Kept { number, is_new: false, dropped: Vec::new() });
    }
    let number = next_number(tx)?;
    let saved = SavedResult {
        number,
        agent_id: agent.clone(),
        stored_unix_ms,
        result: result.clone(),
        signal: None,
    };
    put_json(tx, Table::Results, &number.to_be_bytes(), &saved)?;
    tx.put(Table::ResultsOfAgent, &joined(&prefix, &number.to_be_bytes()), sha256)?;
    tx.put(Table::ResultsSeen, &seen, &number.to_be_bytes())?;
    let of_config = joined(&prefix, result.config_id.as_bytes());
    tx.put(Table::NewestResults, &of_config, &number.to_be_bytes())?;
    let count = get_number(tx, Table::ResultCounts, key(agent))?.unwrap_or(0) + 1;
    let excess = count.saturating_sub(per_agent_max);
    let dropped = if excess > 0 {
        let needed = needed_results(tx, agent, number)?;
        drop_oldest(tx, &prefix, excess, &needed, count <= 2 * per_agent_max)?
    } else {
        Vec::new()
    };
    let count = count - dropped.len() as u64;
    tx.put(Table::ResultCounts, key(agent), &count.to_be_bytes())?;
    Ok(Kept { number, is_new: true, dropped })
}

/// The next number of results and signals.
pub(super) fn next_number(tx: &mut dyn Transaction) -> Result<u64, StoreError> {
    let number = get_number(tx, Table::Meta, KEY_LAST_RESULT)?.unwrap_or(0) + 1;
    tx.put(Table::Meta, KEY_LAST_RESULT, &number.to_be_bytes())?;
    Ok(number)
}

/// The results of an agent that are not dropped to make room: the one that was just saved, and the
/// newest of each config in the document in force. So one agent keeps at most its limit and as many
/// as its document lists; or twice its limit, when signals wait.
fn needed_results(
    view: &dyn Snapshot,
    agent: &AgentId,
    saved: u64,
) -> Result<BTreeSet<u64>, StoreError> {
    let mut needed = BTreeSet::from([saved]);
    let body = documents::document(view, agent)?.map(|document| document.body).unwrap_or_default();
    for id in config_ids(&body) {
        let of_config = joined(&prefix(agent), id.as_bytes());
        needed.extend(get_number(view, Table::NewestResults, &of_config)?);
    }
    Ok(needed)
}

/// Drops some of an agent's results, so that one agent cannot fill the store.
fn drop_oldest(
    tx: &mut dyn Transaction,
    prefix: &[u8],
    excess: u64,
    needed: &BTreeSet<u64>,
    spare_waiting: bool,
) -> Result<Vec<Dropped>, StoreError> {
    let mut oldest = Vec::new();
    tx.scan(Table::ResultsOfAgent, prefix, &mut |entry, sha256| {
        let Some(number) = entry.strip_prefix(prefix) else { return Ok(false) };
        let is_spared = spare_waiting && signals::ops::is_waiting(tx, number)?;
        let number = number_of(Table::ResultsOfAgent, number)?;
        if !needed.contains(&number) && !is_spared {
            oldest.push((number, sha256.to_vec()));
        }
        Ok((oldest.len() as u64) < excess)
    })?;
    let mut dropped = Vec::new();
    for (number, sha256) in oldest {
        let row = number.to_be_bytes();
        let saved: Option<SavedResult> = get_json(tx, Table::Results, &row)?;
        let config_id = saved.map(|saved| saved.result.config_id).unwrap_or_default();
        let of_config = joined(prefix, config_id.as_bytes());
        if get_number(tx, Table::NewestResults, &of_config)? == Some(number) {
            tx.delete(Table::NewestResults, &of_config)?;
        }
        tx.delete(Table::Results, &row)?;
        tx.delete(Table::ResultsOfAgent, &joined(prefix, &row))?;
        tx.delete(Table::ResultsSeen, &joined(prefix, &sha256))?;
        signals::ops::forget(tx, &row)?;
        dropped.push(Dropped { number, config_id });
    }
    Ok(dropped)
}

fn pin_of(view: &dyn Snapshot, fingerprint: &Fingerprint) -> Result<Option<PinRecord>, StoreError> {
    get_json(view, Table::Pins, fingerprint.as_bytes())
}

fn missing_result(agent: &AgentId) -> StoreError {
    StoreError::Corrupt { what: format!("a result of agent {agent} is listed but not there") }
}

pub(super) fn key(agent: &AgentId) -> &[u8] {
    agent.as_str().as_bytes()
}

/// The agent of a key that is nothing but its id.
pub(super) fn agent_of_key(table: Table, key: &[u8]) -> Result<AgentId, StoreError> {
    AgentId::try_from(String::from_utf8_lossy(key).into_owned())
        .map_err(|e| StoreError::Corrupt { what: format!("key in {}: {e}", table.name()) })
}

/// Agent ids hold no zero byte, so no agent's prefix starts another's.
pub(super) fn prefix(agent: &AgentId) -> Vec<u8> {
    joined(key(agent), &[0])
}

pub(super) fn joined(a: &[u8], b: &[u8]) -> Vec<u8> {
    [a, b].concat()
}

pub(super) fn get_number(
    view: &dyn Snapshot,
    table: Table,
    key: &[u8],
) -> Result<Option<u64>, StoreError> {
    view.get(table, key)?.map(|bytes| number_of(table, &bytes)).transpose()
}

pub(super) fn put_number(
    tx: &mut dyn Transaction,
    table: Table,
    key: &[u8],
    number: u64,
) -> Result<(), StoreError> {
    tx.put(table, key, &number.to_be_bytes())
}

pub(super) fn number_of(table: Table, bytes: &[u8]) -> Result<u64, StoreError> {
    let bytes = bytes.try_into().map_err(|_| StoreError::Corrupt {
        what: format!("a number in {} has {} bytes", table.name(), bytes.len()),
    })?;
    Ok(u64::from_be_bytes(bytes))
}

pub(super) fn get_json<T: DeserializeOwned>(
    view: &dyn Snapshot,
    table: Table,
    key: &[u8],
) -> Result<Option<T>, StoreError> {
    view.get(table, key)?.map(|bytes| parse(table, &bytes)).transpose()
}

fn scan_json<T: DeserializeOwned>(view: &dyn Snapshot, table: Table) -> Result<Vec<T>, StoreError> {
    let mut all = Vec::new();
    view.scan(table, &[], &mut |_, value| {
        all.push(parse(table, value)?);
        Ok(true)
    })?;
    Ok(all)
}

pub(super) fn parse<'b, T: Deserialize<'b>>(
    table: Table,
    bytes: &'b [u8],
) -> Result<T, StoreError> {
    // The message names the place, never the content.
    serde_json::from_slice(bytes).map_err(|e| StoreError::Corrupt {
        what: format!("a record in {}: {:?} at {}", table.name(), e.classify(), e.column()),
    })
}

pub(super) fn put_json(
    tx: &mut dyn Transaction,
    table: Table,
    key: &[u8],
    value: &impl Serialize,
) -> Result<(), StoreError> {
    tx.put(table, key, &to_json(table, value)?)
}

pub(super) fn to_json(table: Table, value: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value)
        .map_err(|e| StoreError::Io { what: format!("writing a record of {}: {e}", table.name()) })
}
