//! What the core is told and what it wants done.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use certs::token::TokenRecord;
use certs::{AgentId, Fingerprint};
use metadata_delivery::message::{DeploymentResult, Hex32, Holds, Progress, WaitSignal};
use metadata_delivery::{CloseCode, Document, Name};

use crate::hub::agent_log::AgentLog;
use crate::notice::Notice;
use crate::store::{AgentRecord, Enrolment, Kept, PinRecord, Standing, StoreError, StoredDocument};

/// The time, as both clocks have it.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// For timers.
    pub now: Instant,
    /// Milliseconds since 1970, for records and tokens.
    pub unix_ms: u64,
}

/// An association, by a number that is never given twice, so that a late answer for one that is
/// gone cannot meet another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u64);

/// What the hub is told.
pub enum Input {
    /// A handshake is complete: the peer has proven the key of its certificate, nothing else.
    Established {
        /// The new association.
        peer: PeerId,
        /// Of the certificate the peer has proven.
        fingerprint: Fingerprint,
        /// The channel's export under [`certs::proof::EXPORTER_LABEL`], which those need who are not
        /// [pinned](super::Core::is_pinned).
        exporter: Option<[u8; 32]>,
        /// Its address.
        remote: SocketAddr,
    },
    /// The peer has shown that it is at another address now.
    Moved(PeerId, SocketAddr),
    /// A document from the peer is complete.
    Received(PeerId, Document),
    /// The peer has made a document of ours durable.
    PeerStored(PeerId, Name, u64),
    /// The peer will not take a document of ours.
    PeerRefused {
        /// Which peer.
        peer: PeerId,
        /// Which document.
        name: Name,
        /// Its version.
        version: u64,
        /// The protocol's code.
        code: u16,
        /// The peer's words.
        reason: String,
    },
    /// The peer broke a rule of the protocol: close it with this code and reason.
    Misbehaved(PeerId, CloseCode, String),
    /// The peer said goodbye or was lost: hang up.
    Ended(PeerId, String),
    /// The association is no more.
    Gone(PeerId, String),
    /// Answer to [`Action::LookUpToken`].
    TokenFound(PeerId, Result<Option<TokenRecord>, StoreError>),
    /// Answer to [`Action::Enrol`].
    Enrolled {
        /// Who asked.
        peer: PeerId,
        /// What was to be pinned.
        fingerprint: Fingerprint,
        /// What became of it.
        enrolled: Result<Enrolment, StoreError>,
    },
    /// Answer to [`Action::Load`] and [`Action::RaiseVersion`].
    Loaded(PeerId, Result<Loaded, StoreError>),
    /// The document to be pushed cannot be read.
    Unreadable(PeerId, StoreError),
    /// Answer to [`Action::SaveResult`].
    ResultSaved {
        /// Who sent it.
        peer: PeerId,
        /// Whose result it is.
        agent: AgentId,
        /// The document it came as.
        document: Document,
        /// What it says.
        result: Arc<DeploymentResult>,
        /// What became of it.
        saved: Result<Kept, StoreError>,
    },
    /// Answer to [`Action::LookAtSignal`].
    SignalLookedAt(PeerId, Result<(), NotQueued>),
    /// Answer to [`Action::QueueSignal`].
    SignalQueued(PeerId, Result<(), NotQueued>),
    /// A new document is durable.
    DocumentAccepted(AgentId, StoredDocument),
    /// One new document is durable for each of these.
    DocumentsAccepted(Vec<(AgentId, StoredDocument)>),
    /// Pins were added.
    PinsAdded(Vec<PinRecord>),
    /// Somebody watches an agent's log; [`Core::may_follow`](super::Core::may_follow) has been asked.
    Followed(AgentId),
    /// One who watched an agent's log has gone.
    Unfollowed(AgentId),
    /// A pin was removed.
    PinRemoved(Fingerprint),
    /// The server stops: say goodbye to everybody, take nobody in.
    Drain,
}

/// Why a signal of a wait condition is not queued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotQueued {
    /// The agent may not have that URL asked, or nothing is relayed here.
    Refused(String),
    /// Not now: the store failed, or too many wait.
    Later,
}

/// What the store knows of an agent that says hello.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The version that it applied last.
    pub applied_version: Option<u64>,
    /// Its document.
    pub document: LoadedDocument,
}

/// What is to be done about an agent's document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadedDocument {
    /// It has none.
    None,
    /// It holds the newest already.
    Held,
    /// It holds a version that the store has not given yet.
    Ahead,
    /// It is to get this one.
    Push(StoredDocument),
}

/// What the hub wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Grant the session an agent's limits in place of a stranger's.
    Open(PeerId),
    /// Offer a document.
    Offer(PeerId, Document),
    /// Offer the metadata document in the form that costs least.
    Push {
        /// To whom.
        peer: PeerId,
        /// Whose document.
        agent: AgentId,
        /// The document.
        document: StoredDocument,
        /// SHA-256 of the document that the agent holds.
        held: Option<Hex32>,
    },
    /// Confirm a document.
    Confirm(PeerId, Name, u64),
    /// Refuse a document.
    Refuse {
        /// Whose.
        peer: PeerId,
        /// Which.
        name: Name,
        /// Its version.
        version: u64,
        /// The protocol's code.
        code: u16,
        /// For people.
        reason: String,
    },
    /// Close the session with a reason.
    Close(PeerId, CloseCode, String),
    /// Close the association.
    Hangup(PeerId),
    /// Find a token. → [`Input::TokenFound`]
    LookUpToken(PeerId, String),
    /// Use a token and pin. → [`Input::Enrolled`]
    Enrol {
        /// For whom.
        peer: PeerId,
        /// Which token.
        token_id: String,
        /// What to pin.
        fingerprint: Fingerprint,
    },
    /// Find out what to send an agent. → [`Input::Loaded`]
    Load(PeerId, AgentId, Option<Holds>),
    /// Go on above what the agent holds. → [`Input::Loaded`]
    RaiseVersion(PeerId, AgentId, Holds),
    /// Make a result durable. → [`Input::ResultSaved`]
    SaveResult {
        /// Who sent it.
        peer: PeerId,
        /// Whose result it is.
        agent: AgentId,
        /// The document it came as.
        document: Document,
        /// What it says.
        result: Arc<DeploymentResult>,
    },
    /// See whether a wait condition's signal may be sent. → [`Input::SignalLookedAt`]
    LookAtSignal {
        /// Who sent it.
        peer: PeerId,
        /// Whose signal it is.
        agent: AgentId,
        /// What it says.
        signal: WaitSignal,
    },
    /// Make a wait condition's signal durable. → [`Input::SignalQueued`]
    QueueSignal {
        /// Who sent it.
        peer: PeerId,
        /// Whose signal it is.
        agent: AgentId,
        /// What it says.
        signal: WaitSignal,
    },
    /// Show those who watch an agent's log what there is.
    ShowLog(AgentId, Arc<AgentLog>),
    /// Nobody watches an agent's log any more.
    HideLog(AgentId),
    /// Remember an agent; nobody waits for it.
    SaveAgent(AgentRecord),
    /// The same of one that was saved since it connected: where it stands.
    SaveStanding(AgentId, Standing),
    /// Tell whoever watches.
    Tell(Notice),
}

/// An agent that is connected, for the API.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveAgent {
    /// What is remembered of it, up to date.
    pub record: AgentRecord,
    /// Its certificate's.
    pub fingerprint: Fingerprint,
    /// The version being sent, if one is.
    pub sending_version: Option<u64>,
    /// Where it stands, if it has said so.
    pub progress: Option<Progress>,
}

/// How many peers are in which phase.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Census {
    /// Not known yet, or not heard yet.
    pub waiting: usize,
    /// Accepted.
    pub accepted: usize,
    /// Being closed.
    pub closing: usize,
}

/// What the core has to know about its server.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The server's certificate's.
    pub server: Fingerprint,
    /// Name and version of this program, for the welcome.
    pub software: String,
    /// How often agents should give a sign of life.
    pub keep_alive: Duration,
    /// Peers at once.
    pub agents_max: usize,
}
