//! What goes into the store and what comes out.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use certs::token::TokenRecord;
use certs::{AgentId, Fingerprint};
use metadata_delivery::message::{DeploymentResult, Hex32};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::StoreError;
use super::queues::{QueueOutcome, QueueWrite};
use super::signals::{Signal, SignalOutcome, SignalWrite};
use crate::document::ValidDocument;
use crate::heat::HeatSource;

/// A document without its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentHead {
    /// Ascending for one agent, never given twice, also not after a restart.
    pub version: u64,
    /// SHA-256 of the bytes.
    pub sha256: Hex32,
    /// Length in bytes.
    pub bytes: u64,
    /// How many deployments it lists.
    pub deployments: u64,
    /// When it was accepted, in milliseconds since 1970.
    pub accepted_unix_ms: u64,
}

/// A document as it was accepted.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredDocument {
    /// Version, digest and size.
    pub head: DocumentHead,
    /// Its bytes.
    pub body: Bytes,
}

/// Documents carry secrets: only the head is shown.
impl fmt::Debug for StoredDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.head.fmt(f)
    }
}

/// What is remembered of an agent between its connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentRecord {
    /// Who it is.
    pub agent_id: AgentId,
    /// Its program's name and version, in its own words.
    pub software: String,
    /// Its kernel's boot id, in its own words.
    pub boot_id: String,
    /// The address it was last seen at.
    pub remote: String,
    /// When it last connected, in milliseconds since 1970.
    pub connected_unix_ms: u64,
    /// When this record was last written because of it, in milliseconds since 1970.
    pub seen_unix_ms: u64,
    /// The newest version it has confirmed to hold.
    pub delivered_version: Option<u64>,
    /// The newest version of which every deployment has ended.
    pub applied_version: Option<u64>,
}

impl AgentRecord {
    /// Of the record what changes while the agent stays connected.
    pub fn standing(&self) -> Standing {
        Standing {
            connected_unix_ms: self.connected_unix_ms,
            seen_unix_ms: self.seen_unix_ms,
            delivered_version: self.delivered_version,
            applied_version: self.applied_version,
        }
    }
}

/// Where an agent stands, as in [`AgentRecord`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// When it last connected, in milliseconds since 1970.
    pub connected_unix_ms: u64,
    /// When this was last written because of it, in milliseconds since 1970.
    pub seen_unix_ms: u64,
    /// The newest version it has confirmed to hold. No document has version 0.
    pub delivered_version: Option<u64>,
    /// The newest version of which every deployment has ended. The same.
    pub applied_version: Option<u64>,
}

/// A fingerprint that an agent may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinRecord {
    /// Of the agent's certificate.
    pub fingerprint: Fingerprint,
    /// Whose it is. A fingerprint belongs to one agent; an agent may have several.
    pub agent_id: AgentId,
    /// How it came to be pinned.
    pub origin: PinOrigin,
    /// When it was pinned, in milliseconds since 1970.
    pub added_unix_ms: u64,
}

/// How a fingerprint came to be pinned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PinOrigin {
    /// The agent proved an enrolment token.
    Token,
    /// Somebody with the admin token said so.
    Admin,
}

/// A result as it was stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SavedResult {
    /// Ascending over all agents, in the order of storing, from 1.
    pub number: u64,
    /// Who sent it.
    pub agent_id: AgentId,
    /// When it was stored, in milliseconds since 1970.
    pub stored_unix_ms: u64,
    /// The result.
    pub result: DeploymentResult,
    /// Where its signal to Heat stands; none if none was queued with it. Kept apart from the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<Signal>,
}

/// The keys of session tickets.
#[derive(Clone, PartialEq, Eq)]
pub struct TicketKeyRecord {
    /// When the newest of them was made, in milliseconds since 1970.
    pub made_unix_ms: u64,
    /// As [`TicketKeys::to_bytes`](dtls_channel::TicketKeys::to_bytes) writes them.
    pub keys: Zeroizing<Vec<u8>>,
}

/// They open every ticket.
impl fmt::Debug for TicketKeyRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketKeyRecord")
            .field("made_unix_ms", &self.made_unix_ms)
            .finish_non_exhaustive()
    }
}

/// Which results are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultsQuery {
    /// Of this agent only.
    pub agent: Option<AgentId>,
    /// With numbers above this one.
    pub after: u64,
    /// At most so many. The page may be shorter, to stay below a few megabytes.
    pub limit: usize,
}

/// Some results, in the order of storing.
#[derive(Debug, Clone, PartialEq)]
pub struct ResultsPage {
    /// The results.
    pub results: Vec<SavedResult>,
    /// Ask again with this `after` for more; `None` when these were the last.
    pub next_after: Option<u64>,
}

/// A change, done whole or not at all.
#[derive(Debug, Clone)]
pub enum Write {
    /// A new document for an agent, unless it is the one it has. → [`Outcome::Document`]
    PutDocument {
        /// Whose document.
        agent: AgentId,
        /// The document.
        document: ValidDocument,
        /// Now, in milliseconds since 1970.
        accepted_unix_ms: u64,
    },
    /// An agent holds a version that this store has not given yet, so the store was set back (a
    /// restored backup): go on above it, and give a differing document a version the agent will take.
    /// → [`Outcome::Document`], or [`Outcome::Done`] without a document.
    RaiseVersion {
        /// Whose versions.
        agent: AgentId,
        /// What the agent holds.
        held: u64,
        /// SHA-256 of what the agent holds.
        held_sha256: Hex32,
    },
    /// What is known of an agent. → [`Outcome::Done`]
    SaveAgent(AgentRecord),
    /// Where an agent stands that was saved when it connected. → [`Outcome::Done`]
    SaveStanding(AgentId, Standing),
    /// The keys of session tickets, in place of those before. → [`Outcome::Done`]
    SaveTicketKeys(TicketKeyRecord),
    /// A new enrolment token; forgets those that ended long ago. → [`Outcome::Done`]
    IssueToken {
        /// The token's record.
        record: TokenRecord,
        /// Now, in seconds since 1970.
        now_unix_s: u64,
    },
    /// Uses a token whose proof was checked: pins the fingerprint in place of all others of that
    /// agent. The same fingerprint may do so again while it is pinned. → [`Outcome::Enrolment`]
    Enrol {
        /// The token.
        token_id: String,
        /// The fingerprint to pin.
        fingerprint: Fingerprint,
        /// Who asked, for whoever is told of the outcome; the store makes nothing of it.
        asker: u64,
        /// Now, in milliseconds since 1970.
        now_unix_ms: u64,
    },
    /// Pins a fingerprint, in addition to others of that agent. → [`Outcome::Pin`]
    AddPin(PinRecord),
    /// Unpins a fingerprint of an agent. → [`Outcome::Unpin`]
    RemovePin {
        /// Whose pin.
        agent: AgentId,
        /// Which.
        fingerprint: Fingerprint,
    },
    /// A result. The same one again changes nothing. → [`Outcome::Result`]
    SaveResult {
        /// Who sent it.
        agent: AgentId,
        /// The result.
        result: Arc<DeploymentResult>,
        /// Its length as sent.
        bytes: usize,
        /// SHA-256 of its bytes as sent, by which a repetition is known.
        sha256: [u8; 32],
        /// Now, in milliseconds since 1970.
        stored_unix_ms: u64,
        /// Keep so many results of one agent; the oldest make room, but not the newest result of a
        /// config that the agent's document lists.
        per_agent_max: u64,
        /// Whether Heat is to be told.
        signal: bool,
    },
    /// Something about signals. → [`Outcome::Signal`]
    Signal(SignalWrite),
    /// A change to a queue of messages. → [`Outcome::Queue`]
    Queue(QueueWrite),
    /// The server resource of which Heat is polled for an agent's metadata, in place of a queue; `None`: it
    /// is not. → [`Outcome::Done`]
    SaveHeatSource {
        /// Whose metadata.
        agent: AgentId,
        /// Where it is.
        source: Option<HeatSource>,
    },
    /// Several pins, all of them or none. → [`Outcome::Pins`]
    AddPins(Vec<PinRecord>),
    /// One document for several agents. → [`Outcome::Documents`]
    PutDocuments {
        /// Whose.
        agents: Vec<AgentId>,
        /// The document.
        document: ValidDocument,
        /// When it was accepted, in milliseconds since 1970.
        accepted_unix_ms: u64,
    },
    /// The key that signs the URLs of queues. → [`Outcome::Done`]
    SaveUrlKey(Zeroizing<Vec<u8>>),
}

impl Write {
    /// About how many bytes it adds to the store.
    pub fn bytes(&self) -> usize {
        const RECORD_BYTES: usize = 1024;
        RECORD_BYTES
            + match self {
                Self::PutDocument { document, .. } => document.body().len(),
                Self::PutDocuments { agents, document, .. } => {
                    agents.len() * RECORD_BYTES + document.body().len()
                }
                Self::AddPins(pins) => pins.len() * RECORD_BYTES,
                Self::SaveResult { bytes, .. } => *bytes,
                Self::Queue(write) => write.bytes(),
                _ => 0,
            }
    }
}

/// What a write did.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Nothing to tell.
    Done,
    /// The document in force.
    Document {
        /// Head and bytes.
        document: StoredDocument,
        /// False when it was in force before.
        is_new: bool,
    },
    /// The documents in force that were not before, each with its agent.
    Documents(Vec<(AgentId, StoredDocument)>),
    /// The pins were added, but for those that were there.
    Pins {
        /// How many were not there.
        added: usize,
        /// The first fingerprint that another agent had, and that agent; then nothing was changed.
        taken: Option<(Fingerprint, AgentId)>,
    },
    /// What became of the token.
    Enrolment(Enrolment),
    /// The pin was added (or was there).
    Pin {
        /// The agent that had this fingerprint; then nothing was changed.
        taken_by: Option<AgentId>,
    },
    /// Whether the pin was there.
    Unpin {
        /// True if it was there and is gone.
        removed: bool,
    },
    /// The result is kept.
    Result(Kept),
    /// What became of a signal.
    Signal(SignalOutcome),
    /// What became of a queue.
    Queue(QueueOutcome),
}

impl Outcome {
    /// The error for an answer that does not belong to its question: a fault of this program.
    pub(crate) fn unexpected(&self) -> StoreError {
        StoreError::Io { what: format!("the store answered another question: {self:?}") }
    }
}

/// A result that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its number.
    pub number: u64,
    /// False when it was stored before.
    pub is_new: bool,
    /// Those that made room for it.
    pub dropped: Vec<Dropped>,
}

/// A result that is not kept any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// Its number.
    pub number: u64,
    /// Of which config.
    pub config_id: String,
}

/// What became of an enrolment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Enrolment {
    /// The fingerprint is pinned.
    Done {
        /// For this agent.
        agent: AgentId,
        /// These were pinned for it before, and are not any more.
        replaced: Vec<Fingerprint>,
    },
    /// No such token.
    Unknown,
    /// The token has expired.
    Expired,
    /// The token was used.
    Used,
    /// The fingerprint is pinned for another agent.
    FingerprintTaken {
        /// That one.
        by: AgentId,
    },
}
