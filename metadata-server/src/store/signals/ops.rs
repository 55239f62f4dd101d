//! What the bytes of signals mean.

use std::collections::BTreeSet;

use certs::AgentId;
use serde::Deserialize;
use serde_json::Value;

use super::super::StoreError;
use super::super::backend::{Snapshot, Table, Transaction};
use super::super::documents;
use super::super::ops::{get_json, get_number, joined, next_number, prefix, put_json, to_json};
use super::{
    SavedWait, Signal, SignalJob, SignalOf, SignalOutcome, SignalWrite, WAITS_OVER_PER_AGENT_MAX,
    WAITS_PER_AGENT_MAX, WITHDRAWN_INPUTS_BYTES_MAX, WITHDRAWN_KEPT_MS, WITHDRAWN_PER_AGENT_MAX,
    WITHDRAWN_SWEPT_PER_WRITE_MAX, Withdrawn,
};
use crate::document::config_ids;

/// What a document with a deployment of action DELETE holds somewhere.
const DELETE_TEXT: &[u8] = b"\"DELETE\"";

/// Queues the signal of an agent's result that is stored in the same transaction.
pub(in super::super) fn queue(
    tx: &mut dyn Transaction,
    number: u64,
    agent: &AgentId,
    now_unix_ms: u64,
) -> Result<(), StoreError> {
    put_json(tx, Table::Signals, &number.to_be_bytes(), &Signal::new(now_unix_ms))?;
    tx.put(Table::SignalsWaiting, &number.to_be_bytes(), agent.as_str().as_bytes())
}

pub(in super::super) fn get(
    view: &dyn Snapshot,
    number: u64,
) -> Result<Option<Signal>, StoreError> {
    get_json(view, Table::Signals, &number.to_be_bytes())
}

/// Whether a signal is still to be sent.
pub(in super::super) fn is_waiting(view: &dyn Snapshot, number: &[u8]) -> Result<bool, StoreError> {
    Ok(view.get(Table::SignalsWaiting, number)?.is_some())
}

/// The result that it tells of is gone.
pub(in super::super) fn forget(tx: &mut dyn Transaction, number: &[u8]) -> Result<(), StoreError> {
    tx.delete(Table::Signals, number)?;
    tx.delete(Table::SignalsWaiting, number)
}

/// All that wait, each with its number and whose it is.
pub(in super::super) fn waiting(
    view: &dyn Snapshot,
) -> Result<Vec<(u64, AgentId, Signal)>, StoreError> {
    let mut rows = Vec::new();
    view.scan(Table::SignalsWaiting, &[], &mut |number, agent| {
        let agent = std::str::from_utf8(agent).ok().and_then(|agent| agent.parse().ok());
        rows.extend(<[u8; 8]>::try_from(number).map(|number| (number, agent)));
        Ok(true)
    })?;
    let mut signals = Vec::new();
    for (row, agent) in rows {
        let number = u64::from_be_bytes(row);
        let Some(signal) = get(view, number)? else { continue };
        // Earlier builds wrote no agent there.
        let agent = match agent {
            Some(agent) => Some(agent),
            None => agent_of(view, &row)?,
        };
        signals.extend(agent.map(|agent| (number, agent, signal)));
    }
    Ok(signals)
}

/// Whose signal it is, as what it tells says.
fn agent_of(view: &dyn Snapshot, row: &[u8]) -> Result<Option<AgentId>, StoreError> {
    if let Some(saved) = get_json::<super::SavedResult>(view, Table::Results, row)? {
        return Ok(Some(saved.agent_id));
    }
    let wait: Option<SavedWait> = get_json(view, Table::Waits, row)?;
    Ok(wait.map(|wait| wait.agent_id))
}

/// What it takes to send a signal; `None` if it is gone.
pub(in super::super) fn job(
    view: &dyn Snapshot,
    number: u64,
    now_unix_ms: u64,
) -> Result<Option<SignalJob>, StoreError> {
    let row = number.to_be_bytes();
    let Some(signal) = get(view, number)? else { return Ok(None) };
    if let Some(saved) = get_json::<super::SavedResult>(view, Table::Results, &row)? {
        let agent = saved.agent_id.clone();
        let of_config = joined(&prefix(&agent), saved.result.config_id.as_bytes());
        let newest = get_number(view, Table::NewestResults, &of_config)?.unwrap_or(number);
        let withdrawn: Option<Withdrawn> = get_json(view, Table::Withdrawn, &of_config)?;
        let withdrawn = withdrawn.filter(|withdrawn| is_kept(withdrawn.at_unix_ms, now_unix_ms));
        let document = documents::document(view, &agent)?;
        let what = SignalOf::Result { saved: Box::new(saved), newest, withdrawn };
        return Ok(Some(SignalJob { signal, what, document }));
    }
    let Some(wait) = get_json::<SavedWait>(view, Table::Waits, &row)? else { return Ok(None) };
    let document = documents::document(view, &wait.agent_id)?;
    Ok(Some(SignalJob { signal, what: SignalOf::Wait(Box::new(wait)), document }))
}

/// The wait conditions' signals of an agent, in the order of storing.
pub(in super::super) fn waits(
    view: &dyn Snapshot,
    agent: &AgentId,
) -> Result<Vec<(SavedWait, Signal)>, StoreError> {
    let mut all = Vec::new();
    for number in wait_numbers(view, agent)? {
        let wait = get_json(view, Table::Waits, &number)?;
        let signal = get_json(view, Table::Signals, &number)?;
        all.extend(wait.zip(signal));
    }
    Ok(all)
}

fn wait_numbers(view: &dyn Snapshot, agent: &AgentId) -> Result<Vec<Vec<u8>>, StoreError> {
    let prefix = prefix(agent);
    let mut numbers = Vec::new();
    view.scan(Table::WaitsOfAgent, &prefix, &mut |entry, _| {
        let Some(number) = entry.strip_prefix(prefix.as_slice()) else { return Ok(false) };
        numbers.push(number.to_vec());
        Ok(true)
    })?;
    Ok(numbers)
}

pub(in super::super) fn apply(
    tx: &mut dyn Transaction,
    write: &SignalWrite,
) -> Result<SignalOutcome, StoreError> {
    match write {
        SignalWrite::Save { number, signal } => save(tx, *number, signal),
        SignalWrite::QueueWait { agent, wait, now_unix_ms } => {
            let prefix = prefix(agent);
            let seen = joined(&prefix, wait.id.as_bytes());
            if let Some(number) = get_number(tx, Table::WaitsSeen, &seen)? {
                return Ok(SignalOutcome::Queued { number, is_new: false });
            }
            let (mut waiting, mut over) = (0, Vec::new());
            for number in wait_numbers(tx, agent)? {
                match is_waiting(tx, &number)? {
                    true => waiting += 1,
                    false => over.push(number),
                }
            }
            if waiting >= WAITS_PER_AGENT_MAX {
                return Ok(SignalOutcome::TooMany);
            }
            for number in &over[..over.len().saturating_sub(WAITS_OVER_PER_AGENT_MAX - 1)] {
                forget_wait(tx, &prefix, number)?;
            }
            let number = next_number(tx)?;
            let row = number.to_be_bytes();
            let saved = SavedWait {
                number,
                agent_id: agent.clone(),
                stored_unix_ms: *now_unix_ms,
                wait: wait.clone(),
            };
            put_json(tx, Table::Waits, &row, &saved)?;
            tx.put(Table::WaitsOfAgent, &joined(&prefix, &row), &[])?;
            tx.put(Table::WaitsSeen, &seen, &row)?;
            queue(tx, number, agent, *now_unix_ms)?;
            Ok(SignalOutcome::Queued { number, is_new: true })
        }
        SignalWrite::Sweep { from, now_unix_ms } => sweep(tx, from, *now_unix_ms),
    }
}

fn forget_wait(tx: &mut dyn Transaction, prefix: &[u8], number: &[u8]) -> Result<(), StoreError> {
    if let Some(wait) = get_json::<SavedWait>(tx, Table::Waits, number)? {
        tx.delete(Table::WaitsSeen, &joined(prefix, wait.wait.id.as_bytes()))?;
    }
    tx.delete(Table::Waits, number)?;
    tx.delete(Table::WaitsOfAgent, &joined(prefix, number))?;
    forget(tx, number)
}

fn save(
    tx: &mut dyn Transaction,
    number: u64,
    signal: &Signal,
) -> Result<SignalOutcome, StoreError> {
    let row = number.to_be_bytes();
    // Its result may have made room for others meanwhile.
    if tx.get(Table::Signals, &row)?.is_some() {
        put_json(tx, Table::Signals, &row, signal)?;
        if !signal.is_waiting() {
            tx.delete(Table::SignalsWaiting, &row)?;
        }
    }
    Ok(SignalOutcome::Saved)
}

/// Of a [`Withdrawn`] what is needed to forget it.
#[derive(Deserialize)]
struct At {
    at_unix_ms: u64,
}

/// When a [`Withdrawn`] was stored; what cannot be read is as old as can be.
fn stored_at(value: &[u8]) -> u64 {
    serde_json::from_slice::<At>(value).map_or(0, |known| known.at_unix_ms)
}

fn is_kept(at_unix_ms: u64, now_unix_ms: u64) -> bool {
    now_unix_ms.saturating_sub(at_unix_ms) <= WITHDRAWN_KEPT_MS
}

fn sweep(
    tx: &mut dyn Transaction,
    from: &[u8],
    now_unix_ms: u64,
) -> Result<SignalOutcome, StoreError> {
    let (mut seen, mut over, mut next) = (0, Vec::new(), None);
    tx.scan(Table::Withdrawn, from, &mut |entry, value| {
        if seen == WITHDRAWN_SWEPT_PER_WRITE_MAX {
            next = Some(entry.to_vec());
            return Ok(false);
        }
        seen += 1;
        if !is_kept(stored_at(value), now_unix_ms) {
            over.push(entry.to_vec());
        }
        Ok(true)
    })?;
    for entry in over {
        tx.delete(Table::Withdrawn, &entry)?;
    }
    Ok(SignalOutcome::Swept(next))
}

/// A deployment of action DELETE that leaves an agent's document with a new one.
pub(in super::super) struct Leaving {
    config_id: String,
    /// The [`Withdrawn`] to store; `None`: it is too large.
    row: Option<Vec<u8>>,
}

/// What leaves when a document is replaced by another; the same for all agents that had the one and get the other.
pub(in super::super) fn leaving(
    old: &[u8],
    new: &[u8],
    now_unix_ms: u64,
) -> Result<Vec<Leaving>, StoreError> {
    #[derive(Deserialize)]
    struct Body {
        deployments: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        id: String,
        #[serde(default)]
        inputs: Value,
    }

    if !old.windows(DELETE_TEXT.len()).any(|text| text == DELETE_TEXT) {
        return Ok(Vec::new());
    }
    // What was accepted can be read.
    let Ok(old) = serde_json::from_slice::<Body>(old) else { return Ok(Vec::new()) };
    let listed: BTreeSet<String> = config_ids(new).into_iter().collect();
    let mut left = Vec::new();
    for Entry { id, inputs } in old.deployments {
        if listed.contains(&id) || !is_delete(&inputs) {
            continue;
        }
        let inputs = of_heat(inputs);
        let fits = inputs.to_string().len() <= WITHDRAWN_INPUTS_BYTES_MAX;
        let withdrawn = Withdrawn { at_unix_ms: now_unix_ms, inputs };
        let row = fits.then(|| to_json(Table::Withdrawn, &withdrawn)).transpose()?;
        left.push(Leaving { config_id: id, row });
    }
    Ok(left)
}

/// Remembers what leaves an agent's document.
pub(in super::super) fn retain(
    tx: &mut dyn Transaction,
    agent: &AgentId,
    left: &[Leaving],
    now_unix_ms: u64,
) -> Result<(), StoreError> {
    let prefix = prefix(agent);
    let mut known = Vec::new();
    tx.scan(Table::Withdrawn, &prefix, &mut |entry, value| {
        if !entry.starts_with(&prefix) {
            return Ok(false);
        }
        known.push((stored_at(value), entry.to_vec()));
        Ok(true)
    })?;
    known.sort();
    let surplus = (known.len() + left.len()).saturating_sub(WITHDRAWN_PER_AGENT_MAX);
    for (index, (at, entry)) in known.iter().enumerate() {
        if index < surplus || !is_kept(*at, now_unix_ms) {
            tx.delete(Table::Withdrawn, entry)?;
        }
    }
    for Leaving { config_id, row } in left.iter().take(WITHDRAWN_PER_AGENT_MAX) {
        match row {
            Some(row) => tx.put(Table::Withdrawn, &joined(&prefix, config_id.as_bytes()), row)?,
            None => {
                tracing::warn!(%agent, config = config_id, "a DELETE deployment's inputs are too large to be remembered: its result will not be signalled");
            }
        }
    }
    Ok(())
}

/// The inputs that say where a signal goes; the others are the hook's, and may be large.
fn of_heat(inputs: Value) -> Value {
    let Value::Array(mut inputs) = inputs else { return inputs };
    inputs.retain(|input| input["name"].as_str().is_some_and(|name| name.starts_with("deploy_")));
    Value::Array(inputs)
}

fn is_delete(inputs: &Value) -> bool {
    let inputs = inputs.as_array().into_iter().flatten();
    let mut actions = inputs.filter(|input| input["name"] == "deploy_action");
    actions.next_back().is_some_and(|input| input["value"] == "DELETE")
}
