//! What happens, as the lines of `watch`. Part of the stable API: fields are added, never renamed.

use certs::{AgentId, Fingerprint};
use metadata_delivery::CloseCode;
use metadata_delivery::message::{DeploymentProgress, Hex32, ResultStatus};
use serde::Serialize;

use crate::store::signals::Signal;

/// Something that happened, with its time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stamped {
    /// When, in milliseconds since 1970.
    pub unix_ms: u64,
    /// What.
    #[serde(flatten)]
    pub notice: Notice,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Notice {
    /// A new document is durable.
    DocumentAccepted {
        /// Whose.
        agent_id: AgentId,
        /// Its version.
        version: u64,
        /// SHA-256 of its bytes.
        sha256: Hex32,
        /// Its length.
        bytes: u64,
        /// How many deployments it lists.
        deployments: u64,
    },
    /// An agent was accepted.
    AgentConnected {
        /// Which.
        agent_id: AgentId,
        /// Its certificate's.
        fingerprint: Fingerprint,
        /// Its address.
        remote: String,
        /// Its program, in its own words.
        software: String,
        /// Whether a token has just pinned it.
        enrolled: bool,
    },
    /// Somebody was not accepted, or is not any more.
    AgentRefused(Refusal),
    /// An accepted agent is gone.
    AgentDisconnected {
        /// Which.
        agent_id: AgentId,
        /// The address it had.
        remote: String,
        /// Why.
        reason: String,
    },
    /// An agent has made its document durable.
    DocumentDelivered {
        /// Which agent.
        agent_id: AgentId,
        /// Which version.
        version: u64,
        /// Milliseconds since the push began.
        after_ms: f64,
    },
    /// An agent will not take its document.
    DocumentRefused {
        /// Which agent.
        agent_id: AgentId,
        /// Which version.
        version: u64,
        /// The delivery protocol's code.
        code: u16,
        /// The agent's words.
        reason: String,
    },
    /// Where an agent stands with its document.
    Progress {
        /// Which agent.
        agent_id: AgentId,
        /// Which version.
        document_version: u64,
        /// Every deployment of it.
        deployments: Vec<DeploymentProgress>,
    },
    /// Every deployment of a document has ended.
    DocumentApplied {
        /// Which agent.
        agent_id: AgentId,
        /// Which version.
        version: u64,
    },
    /// A result is durable.
    ResultStored {
        /// Which agent sent it.
        agent_id: AgentId,
        /// The result's number.
        number: u64,
        /// Of which config.
        config_id: String,
        /// The config's name.
        name: String,
        /// How it ended.
        status: ResultStatus,
        /// The hook's exit status.
        deploy_status_code: i64,
        /// The version that asked for it.
        document_version: u64,
    },
    /// A result made room for a newer one: its agent has more than `results_per_agent_max`.
    ResultDropped {
        /// Which agent had sent it.
        agent_id: AgentId,
        /// The result's number.
        number: u64,
        /// Of which config.
        config_id: String,
    },
    /// A signal to Heat was tried, or is not wanted.
    Signal {
        /// Whose.
        agent_id: AgentId,
        /// Its number: that of its result.
        number: u64,
        /// Of which config; empty: of a wait condition.
        config_id: String,
        /// Where it stands.
        signal: Signal,
    },
    /// An agent sent a result or a signal that is not taken.
    ResultRefused {
        /// Which agent.
        agent_id: AgentId,
        /// The result's name in the delivery protocol.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Notice {
    /// Whom it is about, or who the refused said it was.
    pub fn agent_id(&self) -> Option<&str> {
        match self {
            Self::AgentRefused(refusal) => refusal.agent_id.as_deref(),
            Self::DocumentAccepted { agent_id, .. }
            | Self::AgentConnected { agent_id, .. }
            | Self::AgentDisconnected { agent_id, .. }
            | Self::DocumentDelivered { agent_id, .. }
            | Self::DocumentRefused { agent_id, .. }
            | Self::Progress { agent_id, .. }
            | Self::DocumentApplied { agent_id, .. }
            | Self::ResultStored { agent_id, .. }
            | Self::ResultDropped { agent_id, .. }
            | Self::Signal { agent_id, .. }
            | Self::ResultRefused { agent_id, .. } => Some(agent_id.as_str()),
        }
    }
}

/// Why somebody was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// The kind of reason.
    pub reason: RefusalReason,
    /// The peer's address.
    pub remote: String,
    /// Who it said it was, if it said so.
    pub agent_id: Option<String>,
    /// Its certificate's fingerprint.
    pub fingerprint_seen: Fingerprint,
    /// The fingerprints pinned for that agent id.
    pub fingerprints_expected: Vec<Fingerprint>,
    /// The same in words, as the peer was told.
    pub message: String,
}

/// Kinds of reasons, as they appear in `watch` and in metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RefusalReason {
    /// An unknown fingerprint without proof of a token.
    UnknownAgent,
    /// An unknown fingerprint that said nothing in time.
    Silent,
    /// A known fingerprint with another agent's id, or the other way round.
    PinMismatch,
    /// The token has expired.
    TokenExpired,
    /// The token was used.
    TokenUsed,
    /// The proof does not fit the token.
    TokenForged,
    /// No such token.
    TokenUnknown,
    /// A rule of the protocol was not kept.
    Protocol,
    /// Another version of the protocol.
    ProtocolVersion,
    /// A limit of this server.
    Busy,
    /// The store could not be asked.
    Store,
}

impl RefusalReason {
    /// All of them, for the metrics.
    pub const ALL: [Self; 11] = [
        Self::UnknownAgent,
        Self::Silent,
        Self::PinMismatch,
        Self::TokenExpired,
        Self::TokenUsed,
        Self::TokenForged,
        Self::TokenUnknown,
        Self::Protocol,
        Self::ProtocolVersion,
        Self::Busy,
        Self::Store,
    ];

    /// As in `watch`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownAgent => "unknown_agent",
            Self::Silent => "silent",
            Self::PinMismatch => "pin_mismatch",
            Self::TokenExpired => "token_expired",
            Self::TokenUsed => "token_used",
            Self::TokenForged => "token_forged",
            Self::TokenUnknown => "token_unknown",
            Self::Protocol => "protocol",
            Self::ProtocolVersion => "protocol_version",
            Self::Busy => "busy",
            Self::Store => "store",
        }
    }

    /// What the peer is told.
    pub const fn close_code(self) -> CloseCode {
        match self {
            Self::UnknownAgent | Self::Silent => CloseCode::UnknownAgent,
            Self::PinMismatch => CloseCode::PinMismatch,
            Self::TokenExpired => CloseCode::TokenExpired,
            Self::TokenUsed => CloseCode::TokenUsed,
            Self::TokenForged => CloseCode::TokenForged,
            Self::TokenUnknown => CloseCode::TokenUnknown,
            Self::Protocol => CloseCode::PeerFault,
            Self::ProtocolVersion => CloseCode::ProtocolVersion,
            Self::Busy | Self::Store => CloseCode::Internal,
        }
    }
}
