//! Signals to Heat: where each stands, and what it takes to send those that wait.
//!
//! A signal has the number of the result it tells of, or, for a wait condition, a number from the same
//! sequence. Queued in the transaction that stores the result; so a result and its signal are never apart.

pub(super) mod ops;

use std::fmt;

use certs::AgentId;
use metadata_delivery::message::WaitSignal;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{SavedResult, StoredDocument};

/// Deployments of action DELETE that have left an agent's document are remembered so long, in milliseconds:
/// Heat withdraws them before they can have ended, and a result may still come.
pub const WITHDRAWN_KEPT_MS: u64 = 24 * 3_600_000;
/// Of them, so many are looked at by one sweep.
pub const WITHDRAWN_SWEPT_PER_WRITE_MAX: usize = 1_000;
/// As many of them are remembered per agent.
pub const WITHDRAWN_PER_AGENT_MAX: usize = 256;
/// Bytes, as JSON, of what is remembered of one of them: its inputs from Heat.
pub const WITHDRAWN_INPUTS_BYTES_MAX: usize = 64 << 10;
/// Signals of wait conditions that may wait per agent; one more is refused.
pub const WAITS_PER_AGENT_MAX: usize = 64;
/// Signals of wait conditions that are over and remembered per agent.
pub const WAITS_OVER_PER_AGENT_MAX: usize = 100;

/// How it stands with a signal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal {
    /// Where it stands.
    #[serde(flatten)]
    pub state: SignalState,
    /// How often it was tried.
    pub attempts: u32,
}

/// Where a signal stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum SignalState {
    /// Not taken yet.
    Waiting {
        /// When it is tried next, in milliseconds since 1970.
        next_unix_ms: u64,
        /// Why the last attempt failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// The other side has taken it.
    Sent {
        /// When, in milliseconds since 1970.
        at_unix_ms: u64,
        /// The answer, 2xx.
        status: u16,
        /// Which way it went, without secrets.
        by: String,
    },
    /// It was refused, or cannot be sent; it is not tried again.
    Refused {
        /// When, in milliseconds since 1970.
        at_unix_ms: u64,
        /// The answer, if there was one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<u16>,
        /// What was answered, or what is wrong.
        reason: String,
    },
    /// Nobody waits for it any more; it is not tried again.
    TooLate {
        /// When, in milliseconds since 1970.
        at_unix_ms: u64,
        /// The answer, if there was one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<u16>,
        /// What was answered, or what has expired.
        reason: String,
    },
    /// Nobody wants it.
    None {
        /// Why.
        reason: String,
    },
}

impl Signal {
    /// One that is to be tried at once.
    pub fn new(now_unix_ms: u64) -> Self {
        Self {
            state: SignalState::Waiting { next_unix_ms: now_unix_ms, reason: None },
            attempts: 0,
        }
    }

    /// Whether it is still to be sent.
    pub fn is_waiting(&self) -> bool {
        matches!(self.state, SignalState::Waiting { .. })
    }
}

impl SignalState {
    /// The state's name, as in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Waiting { .. } => "waiting",
            Self::Sent { .. } => "sent",
            Self::Refused { .. } => "refused",
            Self::TooLate { .. } => "too_late",
            Self::None { .. } => "none",
        }
    }
}

/// A signal of a wait condition, as an agent handed it over.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedWait {
    /// Its number.
    pub number: u64,
    /// Who handed it over.
    pub agent_id: AgentId,
    /// When it was stored, in milliseconds since 1970.
    pub stored_unix_ms: u64,
    /// What is sent where.
    pub wait: WaitSignal,
}

/// The URL opens the wait condition.
impl fmt::Debug for SavedWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SavedWait")
            .field("number", &self.number)
            .field("agent_id", &self.agent_id)
            .finish_non_exhaustive()
    }
}

/// A deployment that has left its agent's document.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdrawn {
    /// When, in milliseconds since 1970.
    pub at_unix_ms: u64,
    /// Its `inputs`, as the document had them.
    pub inputs: Value,
}

/// What it takes to send a signal.
#[derive(Clone)]
pub struct SignalJob {
    /// How it stands.
    pub signal: Signal,
    /// What it tells.
    pub what: SignalOf,
    /// The agent's document in force.
    pub document: Option<StoredDocument>,
}

/// What a signal tells.
#[derive(Clone)]
pub enum SignalOf {
    /// How a deployment ended.
    Result {
        /// The result.
        saved: Box<SavedResult>,
        /// The number of the newest result of that config.
        newest: u64,
        /// Its entry, if that was of action DELETE and has left the document.
        withdrawn: Option<Withdrawn>,
    },
    /// How something in the instance ended.
    Wait(Box<SavedWait>),
}

/// A change of signals.
#[derive(Clone)]
pub enum SignalWrite {
    /// Where a signal stands; nothing if it is gone. → [`SignalOutcome::Saved`]
    Save {
        /// Which.
        number: u64,
        /// From now on.
        signal: Signal,
    },
    /// A wait condition's signal of an agent. The same one again changes nothing. →
    /// [`SignalOutcome::Queued`], [`SignalOutcome::TooMany`]
    QueueWait {
        /// Whose.
        agent: AgentId,
        /// The signal.
        wait: WaitSignal,
        /// Now, in milliseconds since 1970.
        now_unix_ms: u64,
    },
    /// Forgets the deployments of action DELETE that left their document more than [`WITHDRAWN_KEPT_MS`] ago:
    /// their inputs hold passwords. → [`SignalOutcome::Swept`]
    Sweep {
        /// The key to begin with, as the sweep before said; none: at the beginning.
        from: Vec<u8>,
        /// Now, in milliseconds since 1970.
        now_unix_ms: u64,
    },
}

impl fmt::Debug for SignalWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Save { number, signal } => {
                f.debug_struct("Save").field("number", number).field("signal", signal).finish()
            }
            Self::QueueWait { agent, .. } => {
                f.debug_struct("QueueWait").field("agent", agent).finish_non_exhaustive()
            }
            Self::Sweep { .. } => f.debug_struct("Sweep").finish_non_exhaustive(),
        }
    }
}

/// What a [`SignalWrite`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignalOutcome {
    /// It is saved.
    Saved,
    /// It is queued.
    Queued {
        /// Its number.
        number: u64,
        /// False when it was queued before.
        is_new: bool,
    },
    /// [`WAITS_PER_AGENT_MAX`] of this agent wait already; nothing was done.
    TooMany,
    /// Where to go on; `None` at the end.
    Swept(Option<Vec<u8>>),
}

#[cfg(test)]
mod tests;
