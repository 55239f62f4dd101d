//! Who may connect, what each agent is sent, and when a result counts: decisions without I/O.
//!
//! A peer goes through these phases:
//!
//! ```text
//! established ─▶ Waiting ──hello──▶ Accepted ─────────────▶ Closing ─▶ gone
//!                  │  │ unknown, with proof                    ▲
//!                  │  └──▶ LookingUp ─▶ Enrolling ─▶ Accepted  │
//!                  └── too late, wrong pin, bad token ─────────┘
//! ```
//!
//! The fingerprint alone says who a peer is. An unknown one may do one thing: present a proof of an
//! enrolment token, within [`STRANGER_TIME_MAX`]. Until `Accepted` nothing of any agent is reachable,
//! and from then on only what belongs to the one agent that the fingerprint is pinned for.

mod entry;
mod follow;
mod signals;
mod traffic;
mod types;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use certs::{AgentId, Fingerprint};
use metadata_delivery::message::{DeploymentResult, Hello, Holds, MessageError, Progress};
use metadata_delivery::{CloseCode, Document, refusal};

use self::follow::Follows;
pub use self::follow::{FOLLOWED_AGENTS_MAX, FOLLOWERS_PER_AGENT_MAX, NotFollowed};
pub use self::signals::LOOKS_MAX;
use self::signals::{Looks, Signals};
pub use self::types::{
    Action, Census, Input, LiveAgent, Loaded, LoadedDocument, Moment, NotQueued, PeerId, Settings,
};
use super::by_peer::PeerMap;
use super::pins::Pins;
use crate::notice::{Notice, Refusal, RefusalReason};
use crate::store::{AgentRecord, PinRecord, StoredDocument};

/// How long an unknown fingerprint may take to present its proof.
pub const STRANGER_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a pinned fingerprint may take to say hello.
pub const HELLO_TIME_MAX: Duration = Duration::from_secs(30);
/// How long a closed session may take to tell its peer why.
pub const CLOSE_LINGER: Duration = Duration::from_secs(1);
/// Unknown peers at once; above that the oldest is closed.
pub const STRANGERS_MAX: usize = 1024;
/// Proofs looked at per second; above that peers are told to try again.
pub const PROOFS_PER_S_MAX: u32 = 200;
/// First wait before a result that could not be stored is tried again; doubles.
pub const STORE_RETRY_MIN: Duration = Duration::from_secs(1);
/// Longest such wait.
pub const STORE_RETRY_MAX: Duration = Duration::from_secs(30);

/// Documents offered to an agent of which the digest is remembered until it has stored one.
const OFFERED_REMEMBERED_MAX: usize = 8;

/// The version of hello and welcome, which are said once.
const HELLO_VERSION: u64 = 1;

/// Code with which a result that cannot be read is refused.
pub const REFUSED_MALFORMED: u16 = refusal::APPLICATION_FIRST;
/// Refusal of a signal that this server does not send.
pub const REFUSED_NOT_RELAYED: u16 = refusal::APPLICATION_FIRST + 1;

/// The hub's decisions. After each call, drain [`Core::poll_action`] and read
/// [`Core::next_timeout`].
pub struct Core {
    settings: Settings,
    pins: Pins,
    peers: PeerMap<Peer>,
    connected: HashMap<AgentId, PeerId>,
    strangers: BTreeSet<PeerId>,
    timers: BTreeSet<(Instant, PeerId)>,
    proofs: ProofRate,
    looks: Looks,
    follows: Follows,
    draining: bool,
    actions: VecDeque<Action>,
}

struct Peer {
    remote: SocketAddr,
    fingerprint: Fingerprint,
    phase: Phase,
    /// The entry in `timers`.
    timer: Option<Instant>,
}

enum Phase {
    /// For its hello, which may carry a proof bound to this channel by `exporter`. Results of a pinned agent that
    /// overtook its hello are kept until then; the session's limits bound them.
    Waiting { exporter: Option<[u8; 32]>, early: Vec<Document> },
    /// For the record of the token that the hello names.
    LookingUp { exporter: [u8; 32], hello: Box<Hello> },
    /// For the token's use to be durable.
    Enrolling { hello: Box<Hello> },
    /// It is this agent.
    Accepted(Box<Accepted>),
    /// For the peer to be told why.
    Closing,
}

struct Accepted {
    record: AgentRecord,
    /// The document being sent, and since when.
    sending: Option<(u64, Instant)>,
    /// The newest version offered or known to be held.
    newest: u64,
    /// What it holds, durably.
    holds: Option<Holds>,
    /// What it was offered since, oldest first; at most [`OFFERED_REMEMBERED_MAX`].
    offered: VecDeque<Holds>,
    /// Whether the welcome was offered; nothing is before it.
    welcomed: bool,
    /// A document that was accepted before the store told what the agent should hold.
    overtook: Option<StoredDocument>,
    progress: Option<Progress>,
    /// Results whose writing failed, to be tried again.
    unsaved: Vec<Unsaved>,
    retry: Duration,
    signals: Signals,
}

struct Unsaved {
    due: Instant,
    document: Document,
    result: Arc<DeploymentResult>,
}

impl Core {
    /// A hub that knows these pins.
    pub fn new(settings: Settings, pins: impl IntoIterator<Item = PinRecord>) -> Self {
        let mut core = Self {
            settings,
            pins: Pins::default(),
            peers: PeerMap::default(),
            connected: HashMap::new(),
            strangers: BTreeSet::new(),
            timers: BTreeSet::new(),
            proofs: ProofRate::default(),
            looks: Looks::default(),
            follows: Follows::default(),
            draining: false,
            actions: VecDeque::new(),
        };
        for pin in pins {
            core.pins.add(pin.fingerprint, &pin.agent_id);
        }
        core
    }

    /// What to do next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Core::handle_timeout`] is due.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Whether a stop was asked for and everybody is gone.
    pub fn is_drained(&self) -> bool {
        self.draining && self.peers.is_empty()
    }

    /// Whether this fingerprint is pinned, so that whoever has it need not enrol.
    pub fn is_pinned(&self, fingerprint: &Fingerprint) -> bool {
        self.pins.owner(fingerprint).is_some()
    }

    /// How many peers are in which phase.
    pub fn census(&self) -> Census {
        let mut census = Census::default();
        for peer in self.peers.values() {
            match peer.phase {
                Phase::Waiting { .. } | Phase::LookingUp { .. } | Phase::Enrolling { .. } => {
                    census.waiting += 1;
                }
                Phase::Accepted(_) => census.accepted += 1,
                Phase::Closing => census.closing += 1,
            }
        }
        census
    }

    /// The agents that are connected, by id.
    pub fn live(&self) -> Vec<LiveAgent> {
        let mut live: Vec<_> =
            self.connected.values().filter_map(|peer| self.live_peer(peer)).collect();
        live.sort_unstable_by(|a, b| a.record.agent_id.cmp(&b.record.agent_id));
        live
    }

    /// One agent, if it is connected.
    pub fn live_agent(&self, agent: &AgentId) -> Option<LiveAgent> {
        self.connected.get(agent).and_then(|peer| self.live_peer(peer))
    }

    fn live_peer(&self, peer: &PeerId) -> Option<LiveAgent> {
        let peer = self.peers.get(peer)?;
        let Phase::Accepted(accepted) = &peer.phase else { return None };
        Some(LiveAgent {
            record: accepted.record.clone(),
            fingerprint: peer.fingerprint,
            sending_version: accepted.sending.map(|(version, _)| version),
            progress: accepted.progress.clone(),
        })
    }

    /// Takes in what happened.
    pub fn handle(&mut self, moment: Moment, input: Input) {
        match input {
            Input::Established { peer, fingerprint, exporter, remote } => {
                self.on_established(moment, peer, fingerprint, exporter, remote);
            }
            Input::Moved(peer, remote) => {
                if let Some(peer) = self.peers.get_mut(&peer) {
                    peer.remote = remote;
                    if let Phase::Accepted(accepted) = &mut peer.phase {
                        accepted.record.remote = remote.to_string();
                    }
                }
            }
            Input::Received(peer, document) => self.on_received(moment, peer, document),
            Input::PeerStored(peer, name, version) => {
                self.on_peer_stored(moment, peer, &name, version);
            }
            Input::PeerRefused { peer, name, version, code, reason } => {
                self.on_peer_refused(peer, &name, version, code, reason);
            }
            Input::Misbehaved(peer, code, reason) => self.close(moment, peer, code, reason),
            Input::Ended(peer, reason) => {
                if self.peers.contains_key(&peer) {
                    self.retire(moment, peer, &reason);
                    self.actions.push_back(Action::Hangup(peer));
                }
            }
            Input::Gone(peer, reason) => {
                self.retire(moment, peer, &reason);
                self.disarm(peer);
                self.peers.remove(&peer);
            }
            Input::TokenFound(peer, found) => self.on_token(moment, peer, found),
            Input::Enrolled { peer, fingerprint, enrolled } => {
                self.on_enrolled(moment, peer, fingerprint, enrolled);
            }
            Input::Loaded(peer, loaded) => self.on_loaded(moment, peer, loaded),
            Input::Unreadable(peer, error) => {
                let reason = format!("the agent's document cannot be read: {error}");
                self.close(moment, peer, CloseCode::Internal, reason);
            }
            Input::ResultSaved { peer, agent, document, result, saved } => {
                self.on_result_saved(moment, peer, agent, document, result, saved);
            }
            Input::SignalLookedAt(peer, looked) => self.on_signal_looked_at(moment, peer, looked),
            Input::SignalQueued(peer, queued) => self.on_signal_queued(moment, peer, queued),
            Input::DocumentAccepted(agent, document) => self.on_document(moment, agent, document),
            Input::DocumentsAccepted(documents) => {
                for (agent, document) in documents {
                    self.on_document(moment, agent, document);
                }
            }
            Input::PinsAdded(pins) => {
                for pin in pins {
                    self.pins.add(pin.fingerprint, &pin.agent_id);
                }
            }
            Input::Followed(agent) => self.on_followed(agent),
            Input::Unfollowed(agent) => self.on_unfollowed(&agent),
            Input::PinRemoved(fingerprint) => self.on_pin_removed(moment, fingerprint),
            Input::Drain => {
                self.draining = true;
                let mut peers: Vec<PeerId> = self.peers.keys().copied().collect();
                peers.sort_unstable();
                for peer in peers {
                    self.close(moment, peer, CloseCode::Shutdown, "the server stops".into());
                }
            }
        }
    }

    /// Does what the time has come for.
    pub fn handle_timeout(&mut self, moment: Moment) {
        while let Some(&(at, id)) = self.timers.first() {
            if at > moment.now {
                break;
            }
            self.disarm(id);
            let Some(peer) = self.peers.get(&id) else { continue };
            match peer.phase {
                Phase::Waiting { .. } => self.on_silence(moment, id),
                Phase::Accepted(_) => self.retry(moment, id),
                Phase::Closing => self.actions.push_back(Action::Hangup(id)),
                Phase::LookingUp { .. } | Phase::Enrolling { .. } => {}
            }
        }
    }

    // Getting out.

    /// Tells a peer why it is not accepted, and whoever watches. `claimed`: who it said it was.
    fn refuse(
        &mut self,
        moment: Moment,
        id: PeerId,
        reason: RefusalReason,
        claimed: Option<&str>,
        message: String,
    ) {
        let Some(peer) = self.peers.get(&id) else { return };
        self.actions.push_back(Action::Tell(Notice::AgentRefused(Refusal {
            reason,
            remote: peer.remote.to_string(),
            agent_id: claimed.map(str::to_owned),
            fingerprint_seen: peer.fingerprint,
            fingerprints_expected: claimed.map(|id| self.pins.expected(id)).unwrap_or_default(),
            message: message.clone(),
        })));
        self.close(moment, id, reason.close_code(), message);
    }

    /// Tells a peer why it is hung up on; the association ends soon after.
    fn close(&mut self, moment: Moment, id: PeerId, code: CloseCode, reason: String) {
        let Some(peer) = self.peers.get(&id) else { return };
        if matches!(peer.phase, Phase::Closing) {
            return;
        }
        let why = if code == CloseCode::Superseded { "superseded" } else { reason.as_str() };
        self.retire(moment, id, why);
        self.actions.push_back(Action::Close(id, code, reason));
        self.arm(id, moment.now + CLOSE_LINGER);
    }

    /// Ends whatever the peer was; it stays as one that is closing.
    fn retire(&mut self, moment: Moment, id: PeerId, reason: &str) {
        self.strangers.remove(&id);
        self.disarm(id);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if let Phase::Accepted(accepted) = std::mem::replace(&mut peer.phase, Phase::Closing) {
            let mut record = accepted.record;
            record.seen_unix_ms = moment.unix_ms;
            self.actions.push_back(Action::Tell(Notice::AgentDisconnected {
                agent_id: record.agent_id.clone(),
                remote: record.remote.clone(),
                reason: reason.to_owned(),
            }));
            if self.connected.get(&record.agent_id) == Some(&id) {
                self.connected.remove(&record.agent_id);
                self.log_cut_off(&record.agent_id);
            }
            self.actions.push_back(Action::SaveAgent(record));
        }
    }

    fn on_pin_removed(&mut self, moment: Moment, fingerprint: Fingerprint) {
        self.pins.remove(&fingerprint);
        let mut shown: Vec<PeerId> = self
            .peers
            .iter()
            .filter(|(_, p)| p.fingerprint == fingerprint)
            .filter(|(_, p)| matches!(p.phase, Phase::Waiting { .. } | Phase::Accepted(_)))
            .map(|(id, _)| *id)
            .collect();
        shown.sort_unstable();
        for id in shown {
            let reason = format!("{fingerprint} is not pinned any more");
            self.close(moment, id, CloseCode::UnknownAgent, reason);
        }
    }

    // Small things.

    fn accepted(&mut self, id: PeerId) -> Option<&mut Accepted> {
        match &mut self.peers.get_mut(&id)?.phase {
            Phase::Accepted(accepted) => Some(accepted),
            _ => None,
        }
    }

    fn arm(&mut self, id: PeerId, at: Instant) {
        self.disarm(id);
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.timer = Some(at);
            self.timers.insert((at, id));
        }
    }

    fn disarm(&mut self, id: PeerId) {
        if let Some(at) = self.peers.get_mut(&id).and_then(|peer| peer.timer.take()) {
            self.timers.remove(&(at, id));
        }
    }
}

/// Counts proofs per second.
#[derive(Debug, Default)]
struct ProofRate {
    second: Option<Instant>,
    count: u32,
}

impl ProofRate {
    fn admit(&mut self, now: Instant) -> bool {
        match self.second {
            Some(second) if now.duration_since(second) < Duration::from_secs(1) => self.count += 1,
            _ => {
                self.second = Some(now);
                self.count = 1;
            }
        }
        self.count <= PROOFS_PER_S_MAX
    }
}

#[cfg(test)]
mod tests;
