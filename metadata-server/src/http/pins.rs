//! Pins by hand.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use certs::Fingerprint;
use serde::{Deserialize, Serialize};

use super::{ApiError, agent_id};
use crate::clock;
use crate::store::{Outcome, PinOrigin, PinRecord, Write};

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
