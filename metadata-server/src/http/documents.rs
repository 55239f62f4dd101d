//! Putting and getting documents.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};

use super::{Agent, ApiError, body};
use crate::clock;
use crate::document::ValidDocument;
use crate::store::{DocumentHead, Outcome, Write};

/// The answer to a put.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PutAnswer {
    /// Whose document.
    pub(crate) agent_id: String,
    /// The document in force.
    #[serde(flatten)]
    pub(crate) head: DocumentHead,
    /// False when it was in force before.
    pub(crate) is_new: bool,
    /// Whether the agent is connected, so that it is being sent.
    pub(crate) connected: bool,
}

pub(super) async fn put(
    State(state): State<super::State>,
    Agent(agent): Agent,
    body: Body,
) -> Result<(StatusCode, Json<PutAnswer>), ApiError> {
    let bytes_max = state.inner.config.document_bytes_max;
    let body = body::read(body, bytes_max).await?;
    // Megabytes of JSON take a while: not on the event loop.
    let document = tokio::task::spawn_blocking(move || ValidDocument::check(body, bytes_max))
        .await
        .map_err(|_| ApiError::from(crate::store::StoreError::Closed))??;
    let accepted_unix_ms = clock::unix_ms();
    let write = Write::PutDocument { agent: agent.clone(), document, accepted_unix_ms };
    let (head, is_new) = match state.write(write).await? {
        Outcome::Document { document, is_new } => (document.head, is_new),
        other => return Err(other.unexpected().into()),
    };
    let connected = state.inner.hub.live_agent(&agent).await.is_some();
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    let agent_id = agent.to_string();
    Ok((status, Json(PutAnswer { agent_id, head, is_new, connected })))
}

pub(super) async fn get(
    State(state): State<super::State>,
    Agent(agent): Agent,
) -> Result<impl IntoResponse, ApiError> {
    let id = agent.clone();
    let document = state.read(move |store| store.document(&id)).await?.ok_or_else(|| {
        ApiError::not_found("no_document", format!("agent {agent} has no document"))
            .with_hint(format!("put one with: metadata-server put {agent} FILE"))
    })?;
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert("x-metadata-version", HeaderValue::from(document.head.version));
    if let Ok(etag) = HeaderValue::from_str(&format!("\"{}\"", document.head.sha256)) {
        headers.insert(header::ETAG, etag);
    }
    Ok((headers, document.body))
}
