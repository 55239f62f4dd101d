//! What the store asks of the place where its bytes lie: ordered tables and durable transactions.
//!
//! What the bytes mean is in `ops`, once for all back ends.

use super::StoreError;

/// The tables, each an ordered map from bytes to bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Facts about the store itself: the format, the last result's number.
    Meta,
    /// Agent id → the last version given to a document of it, the head of its document, its base; see `documents`.
    Given,
    /// Of formats 1 and 2: agent id → head of its document (JSON).
    Heads,
    /// SHA-256 → document with it, as accepted.
    Contents,
    /// SHA-256 → in how many places of `Given` it is (u64, big endian).
    ContentUses,
    /// Of format 1: agent id → its document.
    Bodies,
    /// Of formats 1 and 2: agent id → SHA-256 of its base, in format 1 followed by that document.
    Bases,
    /// Of formats 1 and 2: agent id → the last version ever given to a document of it (u64, big endian).
    Versions,
    /// Agent id → how it presented itself (JSON); in formats 1 and 2 with what is in `Standing` now.
    Agents,
    /// Agent id → when it came and was seen, what it holds and has applied; see `agents`.
    Standing,
    /// Fingerprint (32 bytes) → pin (JSON).
    Pins,
    /// Agent id, 0, fingerprint → nothing.
    PinsOfAgent,
    /// Token id → enrolment token's record (JSON).
    Tokens,
    /// Second of expiry since 1970 (u64, big endian), token id → nothing.
    TokensByExpiry,
    /// Number (u64, big endian) → result (JSON).
    Results,
    /// Agent id, 0, number → SHA-256 of the result.
    ResultsOfAgent,
    /// Agent id → how many results are kept of it (u64, big endian).
    ResultCounts,
    /// Agent id, 0, SHA-256 of the result → number.
    ResultsSeen,
    /// Agent id, 0, config id → number of the newest result of that config.
    NewestResults,
    /// Number (u64, big endian) → where its signal stands (JSON).
    Signals,
    /// Number of a signal that is to be sent → nothing.
    SignalsWaiting,
    /// Agent id, 0, config id → inputs of a deployment that has left the document (JSON).
    Withdrawn,
    /// Number → signal of a wait condition (JSON).
    Waits,
    /// Agent id, 0, number → nothing.
    WaitsOfAgent,
    /// Agent id, 0, id of a wait condition's signal → number.
    WaitsSeen,
    /// Project id, 0, queue → what is known of the queue (JSON).
    Queues,
    /// Project id, 0, queue, 0, number (u64, big endian) → message.
    QueueMessages,
    /// Project id, 0, queue → the document that came last, while it is no agent's.
    QueueDocuments,
    /// Agent id → the queue whose newest document is the agent's.
    QueueOfAgent,
    /// Agent id → the server resource of which Heat is polled for its metadata (JSON).
    HeatSources,
    /// Project id → how many queues it has (u64, big endian).
    QueueCounts,
}

impl Table {
    /// All tables, so that a back end can create them.
    pub const ALL: [Self; 31] = [
        Self::Meta,
        Self::Given,
        Self::Heads,
        Self::Contents,
        Self::ContentUses,
        Self::Bodies,
        Self::Bases,
        Self::Versions,
        Self::Agents,
        Self::Standing,
        Self::Pins,
        Self::PinsOfAgent,
        Self::Tokens,
        Self::TokensByExpiry,
        Self::Results,
        Self::ResultsOfAgent,
        Self::ResultCounts,
        Self::ResultsSeen,
        Self::NewestResults,
        Self::Signals,
        Self::SignalsWaiting,
        Self::Withdrawn,
        Self::Waits,
        Self::WaitsOfAgent,
        Self::WaitsSeen,
        Self::Queues,
        Self::QueueMessages,
        Self::QueueDocuments,
        Self::QueueOfAgent,
        Self::QueueCounts,
        Self::HeatSources,
    ];

    /// The name of the table on disk: never change one.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Given => "given",
            Self::Heads => "heads",
            Self::Contents => "contents",
            Self::ContentUses => "content_uses",
            Self::Bodies => "bodies",
            Self::Bases => "bases",
            Self::Versions => "versions",
            Self::Agents => "agents",
            Self::Standing => "standing",
            Self::Pins => "pins",
            Self::PinsOfAgent => "pins_of_agent",
            Self::Tokens => "tokens",
            Self::TokensByExpiry => "tokens_by_expiry",
            Self::Results => "results",
            Self::ResultsOfAgent => "results_of_agent",
            Self::ResultCounts => "result_counts",
            Self::ResultsSeen => "results_seen",
            Self::NewestResults => "newest_results",
            Self::Signals => "signals",
            Self::SignalsWaiting => "signals_waiting",
            Self::Withdrawn => "withdrawn",
            Self::Waits => "waits",
            Self::WaitsOfAgent => "waits_of_agent",
            Self::WaitsSeen => "waits_seen",
            Self::Queues => "queues",
            Self::QueueMessages => "queue_messages",
            Self::QueueDocuments => "queue_documents",
            Self::QueueOfAgent => "queue_of_agent",
            Self::QueueCounts => "queue_counts",
            Self::HeatSources => "heat_sources",
        }
    }
}

/// Told each entry of a scan; `false` ends the scan.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<bool, StoreError> + 'a;

/// A consistent view of all tables.
pub trait Snapshot {
    /// The value of `key`.
    ///
    /// # Errors
    /// Reading failed.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Visits the entries with `from` ≤ key, in the keys' order.
    ///
    /// # Errors
    /// Reading failed, or the visitor's own error.
    fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError>;
}

/// A view that can be changed; what it changes is visible to it at once, to others when committed.
pub trait Transaction: Snapshot {
    /// Sets `key` to `value`.
    ///
    /// # Errors
    /// Writing failed; the transaction will not be committed.
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError>;

    /// Removes `key`, if it is there.
    ///
    /// # Errors
    /// Writing failed; the transaction will not be committed.
    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), StoreError>;
}

/// The work of a read.
pub type ReadJob<'a> = dyn FnMut(&dyn Snapshot) -> Result<(), StoreError> + 'a;
/// The work of a transaction.
pub type WriteJob<'a> = dyn FnMut(&mut dyn Transaction) -> Result<(), StoreError> + 'a;

/// A place for the tables.
pub trait Backend: Send + Sync + 'static {
    /// Runs `job` on one consistent view.
    ///
    /// # Errors
    /// The view could not be had, or the job's own error.
    fn read(&self, job: &mut ReadJob<'_>) -> Result<(), StoreError>;

    /// Runs `job` and, if it returns `Ok`, makes all its changes durable, or none of them.
    ///
    /// `bytes` says about how much the job will write, for back ends that check for room first.
    ///
    /// # Errors
    /// Nothing was changed: [`StoreError::Full`] if there is no room, the job's own error otherwise.
    fn write(&self, bytes: usize, job: &mut WriteJob<'_>) -> Result<(), StoreError>;
}
