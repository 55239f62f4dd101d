//! Pins by hand.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use certs::{AgentId, Fingerprint};
use serde::{Deserialize, Serialize};

use super::{ApiError, agent_id, body};
use crate::clock;
use crate::store::{Outcome, PinOrigin, PinRecord, StoreError, Write};

/// All pins.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PinList {
    /// By fingerprint.
    pub(crate) pins: Vec<PinRecord>,
}

fn fingerprint(text: &str) -> Result<Fingerprint, ApiError> {
    text.parse().map_err(|e: certs::fingerprint::FingerprintParseError| {
        ApiError::bad_request("bad_fingerprint", e.to_string())
    })
}

pub(super) async fn list(State(state): State<super::State>) -> Result<Json<PinList>, ApiError> {
    let pins = state.read(|store| store.pins()).await?;
    Ok(Json(PinList { pins }))
}

pub(super) async fn add(
    State(state): State<super::State>,
    Path((agent, pin)): Path<(String, String)>,
) -> Result<(StatusCode, Json<PinRecord>), ApiError> {
    let record = PinRecord {
        fingerprint: fingerprint(&pin)?,
        agent_id: agent_id(&agent)?,
        origin: PinOrigin::Admin,
        added_unix_ms: clock::unix_ms(),
    };
    match state.write(Write::AddPin(record.clone())).await? {
        Outcome::Pin { taken_by: None } => Ok((StatusCode::CREATED, Json(record))),
        Outcome::Pin { taken_by: Some(other) } => Err(ApiError::new(
            StatusCode::CONFLICT,
            "pin_taken",
            format!("{} is pinned for agent {other} already", record.fingerprint),
        )
        .with_hint(format!("a key belongs to one agent; \"pins remove {other} …\" frees it"))),
        other => Err(other.unexpected().into()),
    }
}

/// Longest list of pins.
const IMPORT_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Pins to be added.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PinImport {
    /// All of them, or none.
    pub(crate) pins: Vec<NewPin>,
}

/// One of them.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewPin {
    /// Whose key.
    pub(crate) agent_id: AgentId,
    /// Its certificate's.
    pub(crate) fingerprint: Fingerprint,
}

/// What became of them.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PinsAdded {
    /// How many were not there before.
    pub(crate) added: usize,
    /// How many were.
    pub(crate) known: usize,
}

pub(super) async fn import(
    State(state): State<super::State>,
    body: Body,
) -> Result<Json<PinsAdded>, ApiError> {
    let body = body::read(body, IMPORT_BYTES_MAX).await?;
    let added_unix_ms = clock::unix_ms();
    let parse = move || -> Result<Vec<PinRecord>, serde_json::Error> {
        let PinImport { pins } = serde_json::from_slice(&body)?;
        let record = |NewPin { agent_id, fingerprint }| {
            let origin = PinOrigin::Admin;
            PinRecord { fingerprint, agent_id, origin, added_unix_ms }
        };
        Ok(pins.into_iter().map(record).collect())
    };
    let pins = tokio::task::spawn_blocking(parse)
        .await
        .map_err(|_| ApiError::from(StoreError::Closed))?
        .map_err(|e| ApiError::bad_request("bad_request", e.to_string()))?;
    let all = pins.len();
    match state.write(Write::AddPins(pins)).await? {
        Outcome::Pins { added, taken: None } => Ok(Json(PinsAdded { added, known: all - added })),
        Outcome::Pins { taken: Some((fingerprint, other)), .. } => Err(ApiError::new(
            StatusCode::CONFLICT,
            "pin_taken",
            format!("{fingerprint} is pinned for agent {other}; nothing was changed"),
        )
        .with_hint(format!("a key belongs to one agent; \"pins remove {other} …\" frees it"))),
        other => Err(other.unexpected().into()),
    }
}

pub(super) async fn remove(
    State(state): State<super::State>,
    Path((agent, pin)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let (agent, fingerprint) = (agent_id(&agent)?, fingerprint(&pin)?);
    match state.write(Write::RemovePin { agent: agent.clone(), fingerprint }).await? {
        Outcome::Unpin { removed: true } => Ok(StatusCode::NO_CONTENT),
        Outcome::Unpin { removed: false } => Err(ApiError::not_found(
            "no_pin",
            format!("{fingerprint} is not pinned for agent {agent}"),
        )
        .with_hint("\"metadata-server pins list\" shows what is")),
        other => Err(other.unexpected().into()),
    }
}
