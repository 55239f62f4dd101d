//! Who is known, and where each stands.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use certs::{AgentId, Fingerprint};
use metadata_delivery::message::Progress;
use serde::{Deserialize, Serialize};

use super::{Agent, ApiError};
use crate::hub::core::LiveAgent;
use crate::store::{AgentRecord, DocumentHead, Store, StoreError};

/// The answer to a list.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AgentList {
    /// By id.
    pub(crate) agents: Vec<AgentView>,
}

/// One agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct AgentView {
    /// Who.
    pub(crate) agent_id: AgentId,
    /// Whether it is here.
    pub(crate) state: AgentState,
    /// The fingerprints pinned for it.
    pub(crate) fingerprints: Vec<Fingerprint>,
    /// The document in force for it.
    pub(crate) document: Option<DocumentHead>,
    /// The version being sent.
    pub(crate) sending_version: Option<u64>,
    /// The newest version it holds.
    pub(crate) delivered_version: Option<u64>,
    /// The newest version of which every deployment has ended.
    pub(crate) applied_version: Option<u64>,
    /// Its address, now or last.
    pub(crate) remote: Option<String>,
    /// Its program.
    pub(crate) software: Option<String>,
    /// When it last connected, in milliseconds since 1970.
    pub(crate) connected_unix_ms: Option<u64>,
    /// When it was last heard of, in milliseconds since 1970.
    pub(crate) seen_unix_ms: Option<u64>,
    /// Where it says it stands, while it is connected.
    pub(crate) progress: Option<Progress>,
}

/// Whether an agent is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AgentState {
    /// Connected.
    Connected,
    /// Was connected, is not.
    Disconnected,
    /// Pinned, but was never connected.
    NeverConnected,
    /// Not pinned: it must be enrolled before it can connect.
    NotEnrolled,
}

impl AgentState {
    /// As in JSON, with spaces.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
            Self::NeverConnected => "never connected",
            Self::NotEnrolled => "not enrolled",
        }
    }
}

/// What the store knows of an agent.
#[derive(Default)]
pub(super) struct Known {
    fingerprints: Vec<Fingerprint>,
    document: Option<DocumentHead>,
    record: Option<AgentRecord>,
}

fn view(agent_id: AgentId, known: Known, live: Option<LiveAgent>) -> AgentView {
    let Known { fingerprints, document, record } = known;
    let state = if live.is_some() {
        AgentState::Connected
    } else if fingerprints.is_empty() {
        AgentState::NotEnrolled
    } else if record.is_some() {
        AgentState::Disconnected
    } else {
        AgentState::NeverConnected
    };
    let (sending_version, progress, now) = match live {
        Some(live) => (live.sending_version, live.progress, Some(live.record)),
        None => (None, None, None),
    };
    let record = now.or(record);
    let record = record.as_ref();
    AgentView {
        agent_id,
        state,
        fingerprints,
        document,
        sending_version,
        delivered_version: record.and_then(|r| r.delivered_version),
        applied_version: record.and_then(|r| r.applied_version),
        remote: record.map(|r| r.remote.clone()),
        software: record.map(|r| r.software.clone()),
        connected_unix_ms: record.map(|r| r.connected_unix_ms),
        seen_unix_ms: record.map(|r| r.seen_unix_ms),
        progress,
    }
}

fn all(store: &Store) -> Result<BTreeMap<AgentId, Known>, StoreError> {
    let mut all: BTreeMap<AgentId, Known> = BTreeMap::new();
    for pin in store.pins()? {
        all.entry(pin.agent_id).or_default().fingerprints.push(pin.fingerprint);
    }
    for (agent, head) in store.document_heads()? {
        all.entry(agent).or_default().document = Some(head);
    }
    for record in store.agents()? {
        let known = all.entry(record.agent_id.clone()).or_default();
        known.record = Some(record);
    }
    Ok(all)
}

pub(super) async fn list(State(state): State<super::State>) -> Result<Json<AgentList>, ApiError> {
    let known = state.read(all).await?;
    let live = state.inner.hub.live().await;
    let mut live: BTreeMap<AgentId, LiveAgent> =
        live.into_iter().map(|live| (live.record.agent_id.clone(), live)).collect();
    let agents = known
        .into_iter()
        .map(|(agent, known)| {
            let live = live.remove(&agent);
            view(agent, known, live)
        })
        .collect();
    Ok(Json(AgentList { agents }))
}

pub(super) async fn show(
    State(state): State<super::State>,
    Agent(agent): Agent,
) -> Result<Json<AgentView>, ApiError> {
    let known = known(&state, &agent).await?;
    let live = state.inner.hub.live_agent(&agent).await;
    Ok(Json(view(agent, known, live)))
}

/// What is known of an agent.
pub(super) async fn known(state: &super::State, agent: &AgentId) -> Result<Known, ApiError> {
    let id = agent.clone();
    let known = state
        .read(move |store| {
            Ok(Known {
                fingerprints: store.pins_of(&id)?,
                document: store.document_head(&id)?,
                record: store.agent(&id)?,
            })
        })
        .await?;
    if known.fingerprints.is_empty() && known.document.is_none() && known.record.is_none() {
        return Err(ApiError::not_found("no_agent", format!("agent {agent} is not known"))
            .with_hint(format!("enrol it with: metadata-server enroll {agent}")));
    }
    Ok(known)
}
