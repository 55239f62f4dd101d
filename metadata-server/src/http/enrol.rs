//! Making enrolment tokens.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use certs::token::IssueError;
use certs::{AgentId, EnrolmentToken, Fingerprint};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Agent, ApiError, body};
use crate::clock;
use crate::heat::{HeatSource, Source};
use crate::store::queues::{QueueKey, QueueNameError, QueueOutcome, QueueWrite};
use crate::store::{Outcome, Write};

/// Longest request.
const REQUEST_BYTES_MAX: usize = 16 * 1024;
/// Shortest and longest life of a token, in seconds.
const TTL_S: std::ops::RangeInclusive<u64> = 10..=30 * 24 * 3600;

/// What is asked for; an empty body asks for the defaults.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EnrolmentRequest {
    /// Life of the token, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ttl_s: Option<u64>,
    /// Where the agent finds the server.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) addresses: Vec<String>,
    /// The queue into which Heat posts the agent's metadata: `PROJECT_ID/QUEUE_ID`, or `QUEUE_ID` if only
    /// one project has such a queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) queue: Option<String>,
    /// The attribute `os_collect_config` of the agent's server in Heat, in place of `queue`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) os_collect_config: Option<Value>,
}

/// The token. Its secret is in it: neither logged nor kept.
#[derive(Serialize, Deserialize)]
pub(crate) struct EnrolmentAnswer {
    /// Whom it enrols.
    pub(crate) agent_id: AgentId,
    /// One line.
    pub(crate) token: String,
    /// Its public name.
    pub(crate) token_id: String,
    /// First second at which it is refused, since 1970.
    pub(crate) expires_unix: u64,
    /// Where the agent finds the server.
    pub(crate) addresses: Vec<String>,
    /// What the agent will pin.
    pub(crate) server_fingerprint: Fingerprint,
    /// What is pinned for that agent now, and will not be once the token is used.
    pub(crate) replaces: Vec<Fingerprint>,
    /// The queue whose newest document is the agent's, `PROJECT_ID/QUEUE_ID`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) queue: Option<String>,
    /// The agent that had this queue until here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) queue_moved_from: Option<AgentId>,
}

pub(super) async fn enrol(
    State(state): State<super::State>,
    Agent(agent): Agent,
    body: Body,
) -> Result<Response, ApiError> {
    let body = body::read(body, REQUEST_BYTES_MAX).await?;
    let request: EnrolmentRequest = if body.iter().all(u8::is_ascii_whitespace) {
        EnrolmentRequest::default()
    } else {
        serde_json::from_slice(&body)
            .map_err(|e| ApiError::bad_request("bad_request", e.to_string()))?
    };
    let config = &state.inner.config;
    let ttl = match request.ttl_s {
        None => config.token_ttl,
        Some(ttl_s) if TTL_S.contains(&ttl_s) => Duration::from_secs(ttl_s),
        Some(ttl_s) => {
            let message =
                format!("ttl_s is {ttl_s}, must be from {} to {}", TTL_S.start(), TTL_S.end());
            return Err(ApiError::bad_request("bad_ttl", message));
        }
    };
    let addresses = addresses(&state, request.addresses.clone())?;
    let source = source(&state, &request).await?;
    if let Some(Source::Queue { queue, .. }) = &source
        && queue.is_object()
        && state.inner.config.swift_roles.is_empty()
    {
        return Err(ApiError::bad_request(
            "no_object_store",
            "the server's metadata is put into an object, and this server is no object store",
        )
        .with_hint(
            "set swift_roles, or software_config_transport: ZAQAR_MESSAGE in the template",
        ));
    }
    let now_unix_s = clock::unix_ms() / 1000;
    let (token, record) = EnrolmentToken::issue(
        addresses,
        state.inner.fingerprint,
        agent.clone(),
        now_unix_s + ttl.as_secs(),
    )
    .map_err(|e| match e {
        IssueError::Random => {
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "no_random", e.to_string())
        }
        _ => ApiError::bad_request("bad_address", e.to_string()),
    })?;
    let id = agent.clone();
    let replaces = state.read(move |store| store.pins_of(&id)).await?;
    state.write(Write::IssueToken { record, now_unix_s }).await?;
    tracing::info!(agent = %agent, token = %token.token_id, ttl_s = ttl.as_secs(), "enrolment token issued");
    let (queue, queue_moved_from) = match source {
        Some(Source::Queue { queue, user }) => {
            let moved_from = bind(&state, &agent, &queue, user).await?;
            state.inner.poll.changed(agent.clone());
            (Some(queue.to_string()), moved_from)
        }
        Some(Source::Poll(source)) => {
            poll(&state, &agent, source).await?;
            (None, None)
        }
        None => (None, None),
    };
    let answer = EnrolmentAnswer {
        agent_id: agent,
        token: token.encode(),
        token_id: token.token_id.to_string(),
        expires_unix: token.expires_unix,
        addresses: token.servers.clone(),
        server_fingerprint: token.server_fingerprint,
        replaces,
        queue,
        queue_moved_from,
    };
    Ok((StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], Json(answer)).into_response())
}

/// Where the agent's metadata comes from, if that was said.
async fn source(
    state: &super::State,
    request: &EnrolmentRequest,
) -> Result<Option<Source>, ApiError> {
    let bad_queue = |words: String| ApiError::bad_request("bad_queue", words);
    match (&request.queue, &request.os_collect_config) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => {
            Err(bad_queue("queue and os_collect_config both say where metadata comes from".into())
                .with_hint("give one of them; os_collect_config also says who may post"))
        }
        (None, Some(value)) => Source::read(value).map(Some).map_err(|error| {
            bad_queue(error.to_string()).with_hint(
                "set software_config_transport: ZAQAR_MESSAGE on the server in the template",
            )
        }),
        (Some(text), None) if text.contains('/') => {
            let queue = text.parse().map_err(|e: QueueNameError| bad_queue(e.to_string()))?;
            Ok(Some(Source::Queue { queue, user: None }))
        }
        (Some(name), None) => {
            let wanted = name.clone();
            let mut found =
                state.read(move |store| store.find_queues(|q, _| q.name() == wanted)).await?;
            let words = match (found.pop(), found.is_empty()) {
                (Some((queue, _)), true) => return Ok(Some(Source::Queue { queue, user: None })),
                (Some(_), false) => format!("several projects have a queue {name}"),
                (None, _) => format!("nobody has posted to a queue {name} yet"),
            };
            Err(bad_queue(words).with_hint(
                "say whose it is: PROJECT_ID/QUEUE_ID, both are in os_collect_config of the server",
            ))
        }
    }
}

/// Polls Heat for the agent from here on.
async fn poll(state: &super::State, agent: &AgentId, source: HeatSource) -> Result<(), ApiError> {
    if state.inner.config.keystone_url.is_none() {
        return Err(ApiError::bad_request(
            "no_keystone",
            "the server's metadata is to be polled, and keystone_url is not set",
        )
        .with_hint(
            "set keystone_url, or software_config_transport: ZAQAR_MESSAGE in the template",
        ));
    }
    let source = Some(source);
    state.write(Write::SaveHeatSource { agent: agent.clone(), source }).await?;
    state.inner.poll.changed(agent.clone());
    Ok(())
}

/// Makes the queue's newest document the agent's.
async fn bind(
    state: &super::State,
    agent: &AgentId,
    queue: &QueueKey,
    user: Option<String>,
) -> Result<Option<AgentId>, ApiError> {
    let write = QueueWrite::Bind {
        queue: queue.clone(),
        agent: agent.clone(),
        owner: user,
        now_unix_ms: clock::unix_ms(),
    };
    match state.write(Write::Queue(write)).await? {
        Outcome::Queue(QueueOutcome::Bound { moved_from, .. }) => {
            tracing::info!(%agent, %queue, "queue bound");
            state.inner.settle.note(queue.clone());
            Ok(moved_from)
        }
        Outcome::Queue(QueueOutcome::Full { what, max }) => Err(ApiError::new(
            StatusCode::INSUFFICIENT_STORAGE,
            "queue_limit",
            format!("there are {max} {what} already, which is the limit"),
        )),
        other => Err(other.unexpected().into()),
    }
}

/// What was asked for, else what is configured, else where we listen.
fn addresses(state: &super::State, asked: Vec<String>) -> Result<Vec<String>, ApiError> {
    let inner = &state.inner;
    if !asked.is_empty() {
        return Ok(asked);
    }
    if !inner.config.advertise.is_empty() {
        return Ok(inner.config.advertise.clone());
    }
    if inner.udp_address.ip().is_unspecified() {
        return Err(ApiError::bad_request(
            "no_address",
            format!(
                "the server listens on {}, which is no address that an agent could connect to",
                inner.udp_address
            ),
        )
        .with_hint("give --address HOST:PORT, or set advertise in the configuration"));
    }
    Ok(vec![inner.udp_address.to_string()])
}
