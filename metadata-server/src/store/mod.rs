//! What the server must not forget: documents, agents, pins, enrolment tokens, results.
//!
//! Three layers. [`backend`] is an ordered map with durable transactions ([`RedbBackend`] in one
//! file, [`MemoryBackend`] for tests, later etcd for several servers). `ops` is what the bytes mean,
//! written once, with `documents`, `agents` and others for parts of it. [`Store`] is the face: reads run on the caller's thread, writes go through the one
//! thread of [`writer`], which commits all that waits in a single transaction and answers after the
//! fsync. Nothing is acknowledged before it is durable.

mod agents;
mod at_hand;
pub mod backend;
mod contents;
mod documents;
mod format;
mod memory;
mod ops;
pub mod queues;
mod redb;
pub mod signals;
mod types;
mod view;
pub mod writer;

use std::borrow::Borrow;
use std::path::PathBuf;
use std::sync::Arc;

use certs::{AgentId, Fingerprint};
use metadata_delivery::message::Hex32;
use thiserror::Error;

use self::signals::{SavedWait, Signal, SignalJob};

pub use self::at_hand::AtHand;
use self::at_hand::{AllAtHand, Noting};
pub use self::backend::Backend;
pub use self::format::FORMAT;
pub use self::memory::MemoryBackend;
use self::queues::{MessagesQuery, QueueKey, QueueRecord, StoredMessage, StoredObject};
pub use self::redb::RedbBackend;
pub use self::types::{
    AgentRecord, DocumentHead, Dropped, Enrolment, Kept, Outcome, PinOrigin, PinRecord,
    ResultsPage, ResultsQuery, SavedResult, Standing, StoredDocument, TicketKeyRecord, Write,
};
pub use self::view::View;

/// Why the store did not do what it was asked. Nothing of the request was done.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No room on the disk, quota or file size limit.
    #[error("the store is full: {what}")]
    Full {
        /// Which file, and how much is missing where that is known.
        what: String,
    },
    /// More writes wait than the server is willing to hold in memory.
    #[error("the store has {queued_bytes} bytes waiting to be written, the limit is {bytes_max}")]
    Busy {
        /// Bytes waiting.
        queued_bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The file or its folder may not be used by this user.
    #[error("the store cannot be used: {what}")]
    Denied {
        /// What was tried, and what the system answered.
        what: String,
    },
    /// The system failed to read or write.
    #[error("the store failed: {what}")]
    Io {
        /// What was tried, and what the system answered.
        what: String,
    },
    /// The file does not hold what was written to it.
    #[error("the store is damaged: {what}")]
    Corrupt {
        /// What was found where.
        what: String,
    },
    /// Written by a newer program.
    #[error("the store has format {found}, this program knows up to {known}")]
    Format {
        /// The format in the file.
        found: u64,
        /// The newest format known.
        known: u64,
    },
    /// Another process has the file open.
    #[error("the store {} is in use by another process", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The server is stopping.
    #[error("the store is closed: the server is stopping")]
    Closed,
}

impl StoreError {
    /// The stable name of the error in API answers.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Full { .. } => "store_full",
            Self::Busy { .. } => "store_busy",
            Self::Denied { .. } => "store_denied",
            Self::Io { .. } => "store_failed",
            Self::Corrupt { .. } => "store_damaged",
            Self::Format { .. } => "store_format",
            Self::InUse { .. } => "store_in_use",
            Self::Closed => "stopping",
        }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Full { .. } => {
                "free space on that file system; nothing was lost, what was stored before is in force"
            }
            Self::Busy { .. } => "send it again in a moment",
            Self::Denied { .. } => {
                "give the folder to the user that runs metadata-server, mode 0700"
            }
            Self::Io { .. } => "look at the disk (dmesg) and at the server's log",
            Self::Corrupt { .. } => {
                "restore the file from a backup; keep the damaged one for a report"
            }
            Self::Format { .. } => {
                "use the newer metadata-server, or restore a backup made by this one"
            }
            Self::InUse { .. } => {
                "stop the other metadata-server, or give this one its own --state-dir"
            }
            Self::Closed => "send it again once the server is back",
        }
    }
}

/// The store's face for reading. Cheap to clone; reads block, so call from a thread that may.
#[derive(Clone)]
pub struct Store {
    // An Arc of its own, so that it can be told when the last user of this store is gone.
    backend: Arc<Arc<dyn Backend>>,
    at_hand: Arc<AllAtHand>,
}

impl Store {
    /// Takes a back end into use, which nobody else may write meanwhile: checks the format, or sets it in
    /// an empty one.
    ///
    /// # Errors
    /// It cannot be read or written, or is of a newer format.
    pub fn new(backend: Arc<dyn Backend>) -> Result<Self, StoreError> {
        backend.write(0, &mut |tx| format::check(tx))?;
        let mut store = Self { backend: Arc::new(backend), at_hand: Arc::default() };
        store.at_hand = Arc::new(store.read(AllAtHand::read)?);
        Ok(store)
    }

    /// What an agent should hold and has applied. From memory, so this never blocks; `None` if that was
    /// damaged when it was read.
    pub fn at_hand(&self, agent: &AgentId) -> Option<AtHand> {
        self.at_hand.of(agent)
    }

    /// Whether nobody else uses the store: who drops it then, closes it.
    pub(crate) fn is_last_user(&self) -> bool {
        Arc::strong_count(&self.backend) == 1
    }

    /// The head of an agent's document.
    ///
    /// # Errors
    /// Reading failed.
    pub fn document_head(&self, agent: &AgentId) -> Result<Option<DocumentHead>, StoreError> {
        self.read(|view| documents::document_head(view, agent))
    }

    /// An agent's document.
    ///
    /// # Errors
    /// Reading failed.
    pub fn document(&self, agent: &AgentId) -> Result<Option<StoredDocument>, StoreError> {
        self.read(|view| documents::document(view, agent))
    }

    /// The bytes of a document of an agent with this digest: the present one, or the one that the agent
    /// held when that came. What is returned may be damaged: compare its digest.
    ///
    /// # Errors
    /// Reading failed.
    pub fn base(&self, agent: &AgentId, sha256: Hex32) -> Result<Option<bytes::Bytes>, StoreError> {
        self.read(|view| documents::base(view, agent, sha256))
    }

    /// The heads of all documents, by agent.
    ///
    /// # Errors
    /// Reading failed.
    pub fn document_heads(&self) -> Result<Vec<(AgentId, DocumentHead)>, StoreError> {
        self.read(documents::document_heads)
    }

    /// What is known of one agent that has connected before.
    ///
    /// # Errors
    /// Reading failed.
    pub fn agent(&self, agent: &AgentId) -> Result<Option<AgentRecord>, StoreError> {
        self.read(|view| agents::agent(view, agent))
    }

    /// What is known of all agents that have ever connected.
    ///
    /// # Errors
    /// Reading failed.
    pub fn agents(&self) -> Result<Vec<AgentRecord>, StoreError> {
        self.read(agents::agents)
    }

    /// All pins.
    ///
    /// # Errors
    /// Reading failed.
    pub fn pins(&self) -> Result<Vec<PinRecord>, StoreError> {
        self.read(ops::pins)
    }

    /// The agents with a pin whose ids begin so, in their order.
    ///
    /// # Errors
    /// Reading failed.
    pub fn pinned_agents(&self, prefix: &str) -> Result<Vec<AgentId>, StoreError> {
        self.read(|view| ops::pinned_agents(view, prefix))
    }

    /// The pins of one agent.
    ///
    /// # Errors
    /// Reading failed.
    pub fn pins_of(&self, agent: &AgentId) -> Result<Vec<Fingerprint>, StoreError> {
        self.read(|view| ops::pins_of(view, agent))
    }

    /// The record of an enrolment token.
    ///
    /// # Errors
    /// Reading failed.
    pub fn token(&self, token_id: &str) -> Result<Option<certs::token::TokenRecord>, StoreError> {
        self.read(|view| ops::token(view, token_id))
    }

    /// The keys of session tickets.
    ///
    /// # Errors
    /// Reading failed.
    pub fn ticket_keys(&self) -> Result<Option<TicketKeyRecord>, StoreError> {
        self.read(ops::ticket_keys)
    }

    /// The server resource of which Heat is polled for an agent's metadata.
    ///
    /// # Errors
    /// Reading failed.
    pub fn heat_source(
        &self,
        agent: &AgentId,
    ) -> Result<Option<crate::heat::HeatSource>, StoreError> {
        self.read(|view| ops::heat_source(view, agent))
    }

    /// The agents for which Heat is polled.
    ///
    /// # Errors
    /// Reading failed.
    pub fn heat_sources(&self) -> Result<Vec<AgentId>, StoreError> {
        self.read(ops::heat_sources)
    }

    /// The key that signs the URLs of queues.
    ///
    /// # Errors
    /// Reading failed.
    pub fn url_key(&self) -> Result<Option<zeroize::Zeroizing<Vec<u8>>>, StoreError> {
        self.read(ops::url_key)
    }

    /// What is known of a queue.
    ///
    /// # Errors
    /// Reading failed.
    pub fn queue(&self, queue: &QueueKey) -> Result<Option<QueueRecord>, StoreError> {
        self.read(|view| queues::ops::get(view, queue))
    }

    /// The queue whose newest document is an agent's.
    ///
    /// # Errors
    /// Reading failed.
    pub fn queue_of(&self, agent: &AgentId) -> Result<Option<QueueKey>, StoreError> {
        self.read(|view| queues::ops::of_agent(view, agent))
    }

    /// The queues of which `wanted` says yes. Looks at all of them.
    ///
    /// # Errors
    /// Reading failed.
    pub fn find_queues(
        &self,
        wanted: impl Fn(&QueueKey, &QueueRecord) -> bool,
    ) -> Result<Vec<(QueueKey, QueueRecord)>, StoreError> {
        self.read(|view| queues::ops::find(view, &wanted))
    }

    /// Messages of a queue, the oldest first.
    ///
    /// # Errors
    /// Reading failed.
    pub fn queue_messages(
        &self,
        queue: &QueueKey,
        query: &MessagesQuery,
    ) -> Result<Vec<StoredMessage>, StoreError> {
        self.read(|view| queues::ops::messages(view, queue, query))
    }

    /// The document that came last into a queue, while it is no agent's.
    ///
    /// # Errors
    /// Reading failed.
    pub fn waiting_document(&self, queue: &QueueKey) -> Result<Option<StoredMessage>, StoreError> {
        self.read(|view| queues::ops::waiting_document(view, queue))
    }

    /// What an object holds, and since when, in milliseconds since 1970.
    ///
    /// # Errors
    /// Reading failed.
    pub fn object(&self, object: &QueueKey) -> Result<Option<(bytes::Bytes, u64)>, StoreError> {
        self.read(|view| queues::ops::object(view, object))
    }

    /// The objects in the container of this one, in the order of their names.
    ///
    /// # Errors
    /// Reading failed.
    pub fn objects(&self, any: &QueueKey) -> Result<Vec<StoredObject>, StoreError> {
        self.read(|view| queues::ops::objects(view, any))
    }

    /// Results in the order they were stored.
    ///
    /// # Errors
    /// Reading failed.
    pub fn results(&self, query: &ResultsQuery) -> Result<ResultsPage, StoreError> {
        self.read(|view| ops::results(view, query))
    }

    /// Where a signal stands.
    ///
    /// # Errors
    /// Reading failed.
    pub fn signal(&self, number: u64) -> Result<Option<Signal>, StoreError> {
        self.read(|view| signals::ops::get(view, number))
    }

    /// The signals that are to be sent, by number.
    ///
    /// # Errors
    /// Reading failed.
    pub fn waiting_signals(&self) -> Result<Vec<(u64, AgentId, Signal)>, StoreError> {
        self.read(signals::ops::waiting)
    }

    /// What it takes to send a signal; `None` if it is gone.
    ///
    /// # Errors
    /// Reading failed.
    pub fn signal_job(
        &self,
        number: u64,
        now_unix_ms: u64,
    ) -> Result<Option<SignalJob>, StoreError> {
        self.read(|view| signals::ops::job(view, number, now_unix_ms))
    }

    /// The wait conditions' signals of an agent, in the order of storing.
    ///
    /// # Errors
    /// Reading failed.
    pub fn wait_signals(&self, agent: &AgentId) -> Result<Vec<(SavedWait, Signal)>, StoreError> {
        self.read(|view| signals::ops::waits(view, agent))
    }

    /// Whether the store can be read.
    ///
    /// # Errors
    /// It cannot.
    pub fn probe(&self) -> Result<(), StoreError> {
        self.read(ops::probe)
    }

    fn read<T>(
        &self,
        mut job: impl FnMut(&dyn backend::Snapshot) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut answer = None;
        self.backend.read(&mut |view| {
            answer = Some(job(view)?);
            Ok(())
        })?;
        answer.ok_or(StoreError::Closed)
    }

    /// Does all writes in one durable transaction.
    ///
    /// # Errors
    /// None of them was done.
    fn commit<W: Borrow<Write>>(&self, writes: &[W]) -> Result<Vec<Outcome>, StoreError> {
        let bytes = writes.iter().map(|write| write.borrow().bytes()).sum();
        let mut outcomes = Vec::with_capacity(writes.len());
        let mut noted = Vec::new();
        self.backend.write(bytes, &mut |tx| {
            outcomes.clear();
            noted.clear();
            let mut tx = Noting { tx, noted: &mut noted };
            for write in writes {
                outcomes.push(ops::apply(&mut tx, write.borrow())?);
            }
            Ok(())
        })?;
        self.at_hand.take(noted);
        Ok(outcomes)
    }
}

#[cfg(test)]
mod tests;
