//! Which document each agent has: its row in [`Table::Given`], and what a new document does to it.
//!
//! A row has a fixed form, so that a push to a fleet costs an agent one lookup and one change of bytes in their place.

use std::collections::BTreeMap;

use bytes::Bytes;
use certs::AgentId;
use metadata_delivery::message::Hex32;

use super::backend::{Snapshot, Table, Transaction};
use super::contents::{self, Uses};
use super::ops::{agent_of_key, key};
use super::signals::ops::{Leaving, leaving, retain};
use super::{DocumentHead, Outcome, StoreError, StoredDocument, agents};
use crate::document::ValidDocument;

/// A version from an agent above this is not believed: it would leave no room to go on.
const VERSION_BELIEVED_MAX: u64 = 1 << 53;
/// Replaced documents of which one write remembers what leaves with them.
const LEAVING_REMEMBERED_MAX: usize = 64;

const LAST_BYTES: usize = 8;
const HEAD_BYTES: usize = 4 * 8 + 32;
const BASE_BYTES: usize = 32;

/// A row: the last version in 8 bytes; then, if there is a document, its version, SHA-256, length, deployments and
/// time of acceptance, in 8, 32, 8, 8 and 8 bytes; then, if there is a base, its SHA-256. Numbers are big endian, and
/// the length says what is there.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Given {
    /// The last version ever given to a document of the agent.
    pub(super) last: u64,
    /// The document in force.
    pub(super) document: Option<InForce>,
}

/// A document in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InForce {
    pub(super) head: DocumentHead,
    /// The document before it that the agent held when it was replaced: a delta can build on it.
    pub(super) base: Option<Hex32>,
}

impl Given {
    pub(super) fn of(view: &dyn Snapshot, agent: &AgentId) -> Result<Self, StoreError> {
        let row = view.get(Table::Given, key(agent))?;
        row.map_or_else(|| Ok(Self::default()), |row| Self::parse(&row))
    }

    pub(super) fn parse(row: &[u8]) -> Result<Self, StoreError> {
        Self::read(row).ok_or_else(|| StoreError::Corrupt {
            what: format!("a record in {} has {} bytes", Table::Given.name(), row.len()),
        })
    }

    fn read(row: &[u8]) -> Option<Self> {
        let (last, row) = number(row)?;
        if row.is_empty() {
            return Some(Self { last, document: None });
        }
        let (version, row) = number(row)?;
        let (sha256, row) = row.split_first_chunk()?;
        let (bytes, row) = number(row)?;
        let (deployments, row) = number(row)?;
        let (accepted_unix_ms, row) = number(row)?;
        let sha256 = Hex32(*sha256);
        let head = DocumentHead { version, sha256, bytes, deployments, accepted_unix_ms };
        let base = match row {
            [] => None,
            base => Some(Hex32(base.try_into().ok()?)),
        };
        Some(Self { last, document: Some(InForce { head, base }) })
    }

    pub(super) fn put(&self, tx: &mut dyn Transaction, agent: &[u8]) -> Result<(), StoreError> {
        let mut row = Vec::with_capacity(LAST_BYTES + HEAD_BYTES + BASE_BYTES);
        row.extend(self.last.to_be_bytes());
        if let Some(InForce { head, base }) = &self.document {
            let DocumentHead { version, sha256, bytes, deployments, accepted_unix_ms } = head;
            row.extend(version.to_be_bytes());
            row.extend(sha256.0);
            for number in [bytes, deployments, accepted_unix_ms] {
                row.extend(number.to_be_bytes());
            }
            row.extend(base.iter().flat_map(|base| base.0));
        }
        tx.put(Table::Given, agent, &row)
    }
}

fn number(row: &[u8]) -> Option<(u64, &[u8])> {
    row.split_first_chunk().map(|(number, rest)| (u64::from_be_bytes(*number), rest))
}

pub(super) fn document_head(
    view: &dyn Snapshot,
    agent: &AgentId,
) -> Result<Option<DocumentHead>, StoreError> {
    Ok(Given::of(view, agent)?.document.map(|document| document.head))
}

pub(super) fn document(
    view: &dyn Snapshot,
    agent: &AgentId,
) -> Result<Option<StoredDocument>, StoreError> {
    let Some(head) = document_head(view, agent)? else { return Ok(None) };
    let body = Bytes::from(contents::of(view, agent, &head)?);
    Ok(Some(StoredDocument { head, body }))
}

pub(super) fn document_heads(
    view: &dyn Snapshot,
) -> Result<Vec<(AgentId, DocumentHead)>, StoreError> {
    let mut all = Vec::new();
    view.scan(Table::Given, &[], &mut |agent, row| {
        if let Some(InForce { head, .. }) = Given::parse(row)?.document {
            all.push((agent_of_key(Table::Given, agent)?, head));
        }
        Ok(true)
    })?;
    Ok(all)
}

/// A document of the agent with this digest, as far as one is remembered: the present one, or its base.
pub(super) fn base(
    view: &dyn Snapshot,
    agent: &AgentId,
    sha256: Hex32,
) -> Result<Option<Bytes>, StoreError> {
    match Given::of(view, agent)?.document {
        Some(InForce { head, base }) if head.sha256 == sha256 || base == Some(sha256) => {
            Ok(contents::get(view, &sha256)?.map(Bytes::from))
        }
        _ => Ok(None),
    }
}

/// The document in force from here on; false if it was before.
pub(super) fn put(
    tx: &mut dyn Transaction,
    agent: &AgentId,
    document: &ValidDocument,
    accepted_unix_ms: u64,
) -> Result<(StoredDocument, bool), StoreError> {
    let mut push = Push::new(document, accepted_unix_ms);
    let stored = push.to(tx, agent)?;
    push.settle(tx)?;
    Ok(stored)
}

/// The same for many agents; those for whom it is new.
pub(super) fn put_for(
    tx: &mut dyn Transaction,
    agents: &[AgentId],
    document: &ValidDocument,
    accepted_unix_ms: u64,
) -> Result<Vec<(AgentId, StoredDocument)>, StoreError> {
    let mut push = Push::new(document, accepted_unix_ms);
    let mut new = Vec::with_capacity(agents.len());
    for agent in agents {
        let (stored, is_new) = push.to(tx, agent)?;
        if is_new {
            new.push((agent.clone(), stored));
        }
    }
    push.settle(tx)?;
    Ok(new)
}

/// One document on its way to agents, and what has to be found out once only.
struct Push<'d> {
    document: &'d ValidDocument,
    sha256: Hex32,
    accepted_unix_ms: u64,
    uses: Uses,
    /// By the digest of the document that is replaced: most agents of a fleet have the same.
    leaving: BTreeMap<[u8; 32], Vec<Leaving>>,
}

impl<'d> Push<'d> {
    fn new(document: &'d ValidDocument, accepted_unix_ms: u64) -> Self {
        let sha256 = Hex32(document.sha256());
        let (uses, leaving) = (Uses::default(), BTreeMap::new());
        Self { document, sha256, accepted_unix_ms, uses, leaving }
    }

    fn to(
        &mut self,
        tx: &mut dyn Transaction,
        agent: &AgentId,
    ) -> Result<(StoredDocument, bool), StoreError> {
        let body = self.document.body().clone();
        let given = Given::of(tx, agent)?;
        let base = match given.document {
            Some(InForce { head, .. }) if head.sha256 == self.sha256 => {
                return Ok((StoredDocument { head, body }, false));
            }
            Some(before) => {
                self.retain(tx, agent, &before.head)?;
                self.uses.remove(before.head.sha256);
                self.base(tx, agent, before)?
            }
            None => None,
        };
        let version = given.last + 1;
        let head = DocumentHead {
            version,
            sha256: self.sha256,
            bytes: body.len() as u64,
            deployments: self.document.deployments() as u64,
            accepted_unix_ms: self.accepted_unix_ms,
        };
        let document = Some(InForce { head: head.clone(), base });
        Given { last: version, document }.put(tx, key(agent))?;
        self.uses.add(self.sha256);
        Ok((StoredDocument { head, body }, true))
    }

    /// What the agent holds, as far as it is known.
    fn base(
        &mut self,
        tx: &dyn Snapshot,
        agent: &AgentId,
        before: InForce,
    ) -> Result<Option<Hex32>, StoreError> {
        let InForce { head, base } = before;
        if agents::delivered_version(tx, agent)? != Some(head.version) {
            return Ok(base);
        }
        if let Some(base) = base {
            self.uses.remove(base);
        }
        self.uses.add(head.sha256);
        Ok(Some(head.sha256))
    }

    /// Remembers what leaves with the document that is replaced.
    fn retain(
        &mut self,
        tx: &mut dyn Transaction,
        agent: &AgentId,
        before: &DocumentHead,
    ) -> Result<(), StoreError> {
        if !self.leaving.contains_key(&before.sha256.0) {
            if self.leaving.len() == LEAVING_REMEMBERED_MAX {
                self.leaving.clear();
            }
            let old = contents::get(tx, &before.sha256)?.unwrap_or_default();
            let left = leaving(&old, self.document.body(), self.accepted_unix_ms)?;
            self.leaving.insert(before.sha256.0, left);
        }
        match self.leaving.get(&before.sha256.0) {
            Some(left) if !left.is_empty() => retain(tx, agent, left, self.accepted_unix_ms),
            _ => Ok(()),
        }
    }

    fn settle(self, tx: &mut dyn Transaction) -> Result<(), StoreError> {
        self.uses.settle(tx, &self.sha256.0, self.document.body())
    }
}

pub(super) fn raise_version(
    tx: &mut dyn Transaction,
    agent: &AgentId,
    held: u64,
    held_sha256: Hex32,
) -> Result<Outcome, StoreError> {
    if held > VERSION_BELIEVED_MAX {
        return Ok(Outcome::Done);
    }
    let mut given = Given::of(tx, agent)?;
    let before = given.last;
    given.last = before.max(held);
    let Some(InForce { head, .. }) = &mut given.document else {
        if given.last != before {
            given.put(tx, key(agent))?;
        }
        return Ok(Outcome::Done);
    };
    let is_new = head.sha256 != held_sha256 && head.version <= held;
    if is_new {
        given.last += 1;
        head.version = given.last;
    }
    let head = head.clone();
    if given.last != before {
        given.put(tx, key(agent))?;
    }
    let body = Bytes::from(contents::of(tx, agent, &head)?);
    Ok(Outcome::Document { document: StoredDocument { head, body }, is_new })
}

#[cfg(test)]
mod tests;
