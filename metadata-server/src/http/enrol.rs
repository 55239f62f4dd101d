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

use super::{Agent, ApiError, body};
use crate::clock;
use crate::store::Write;

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
    let addresses = addresses(&state, request.addresses)?;
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
    let answer = EnrolmentAnswer {
        agent_id: agent,
        token: token.encode(),
        token_id: token.token_id.to_string(),
        expires_unix: token.expires_unix,
        addresses: token.servers.clone(),
        server_fingerprint: token.server_fingerprint,
        replaces,
    };
    Ok((StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], Json(answer)).into_response())
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
