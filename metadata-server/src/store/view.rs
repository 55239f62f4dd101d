//! Many lookups under one snapshot: what thousands of agents need at once costs one transaction.

use std::cell::RefCell;

use bytes::Bytes;
use certs::AgentId;
use metadata_delivery::message::Hex32;

use super::backend::Snapshot;
use super::{
    DocumentHead, Standing, Store, StoreError, StoredDocument, agents, contents, documents,
};

/// The store as it was at one moment. It keeps pages from being used again: look up, then let go.
pub struct View<'v> {
    snapshot: &'v dyn Snapshot,
    /// The document that was read last: most agents of a fleet have the same.
    last: RefCell<Option<(Hex32, Bytes)>>,
}

impl Store {
    /// Looks up as much as wanted under one snapshot. Blocks, so call from a thread that may.
    ///
    /// An error that `job` hands on counts as one of the store, which is opened anew; one lookup that must
    /// not fail the others returns its error as a part of `T`.
    ///
    /// # Errors
    /// The store cannot be read, or the job's own.
    pub fn view<T>(
        &self,
        mut job: impl FnMut(&View<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.read(|snapshot| job(&View { snapshot, last: RefCell::default() }))
    }
}

impl View<'_> {
    /// Where an agent stands that has connected before.
    ///
    /// # Errors
    /// Reading failed.
    pub fn standing(&self, agent: &AgentId) -> Result<Option<Standing>, StoreError> {
        agents::standing(self.snapshot, agent)
    }

    /// The head of an agent's document.
    ///
    /// # Errors
    /// Reading failed.
    pub fn document_head(&self, agent: &AgentId) -> Result<Option<DocumentHead>, StoreError> {
        documents::document_head(self.snapshot, agent)
    }

    /// An agent's document. Agents with the same one share its bytes as long as they follow each other.
    ///
    /// # Errors
    /// Reading failed, or the head is there without its bytes.
    pub fn document(&self, agent: &AgentId) -> Result<Option<StoredDocument>, StoreError> {
        let Some(head) = self.document_head(agent)? else { return Ok(None) };
        self.body(agent, head).map(Some)
    }

    /// The document of an agent with this head, as [`View::document_head`] told it.
    ///
    /// # Errors
    /// Reading failed, or the bytes are not there.
    pub fn body(&self, agent: &AgentId, head: DocumentHead) -> Result<StoredDocument, StoreError> {
        if let Some((sha256, body)) = &*self.last.borrow()
            && *sha256 == head.sha256
        {
            return Ok(StoredDocument { head, body: body.clone() });
        }
        let body = Bytes::from(contents::of(self.snapshot, agent, &head)?);
        self.last.replace(Some((head.sha256, body.clone())));
        Ok(StoredDocument { head, body })
    }
}
