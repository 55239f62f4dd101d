//! Is it alive, is it ready, what is it, what has it done.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use certs::Fingerprint;
use serde::{Deserialize, Serialize};

/// What program this is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VersionAnswer {
    /// Its name.
    pub(crate) program: String,
    /// Its version.
    pub(crate) version: String,
    /// Version of the messages exchanged with agents.
    pub(crate) protocol: u32,
    /// Format of the store.
    pub(crate) store_format: u64,
}

impl VersionAnswer {
    /// This program.
    pub(crate) fn own() -> Self {
        Self {
            program: "metadata-server".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            protocol: metadata_delivery::message::PROTOCOL,
            store_format: crate::store::FORMAT,
        }
    }
}

/// What server this is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ServerAnswer {
    /// What agents pin.
    pub(crate) fingerprint: Fingerprint,
    /// Where agents connect.
    pub(crate) listen: String,
    /// Program and version.
    pub(crate) software: String,
    /// When it started, in milliseconds since 1970.
    pub(crate) started_unix_ms: u64,
    /// How many agents are connected.
    pub(crate) agents_connected: usize,
}

pub(super) async fn version() -> Json<VersionAnswer> {
    Json(VersionAnswer::own())
}

pub(super) async fn server(State(state): State<super::State>) -> Json<ServerAnswer> {
    let inner = &state.inner;
    let agents_connected = inner.hub.stats().await.map_or(0, |stats| stats.census.accepted);
    Json(ServerAnswer {
        fingerprint: inner.fingerprint,
        listen: inner.udp_address.to_string(),
        software: crate::SOFTWARE.into(),
        started_unix_ms: inner.started_unix_ms,
        agents_connected,
    })
}

/// The process answers: nothing else is checked, so that a full disk does not get it restarted.
pub(super) async fn livez() -> &'static str {
    "ok\n"
}

pub(super) async fn readyz(
    State(state): State<super::State>,
    RawQuery(query): RawQuery,
) -> impl IntoResponse {
    let verbose = query.as_deref().is_some_and(|q| q.split('&').any(|p| p.starts_with("verbose")));
    let checks = checks(&state).await;
    let is_ready = checks.iter().all(|(_, fault)| fault.is_none());
    let mut text = String::new();
    for (name, fault) in &checks {
        // Writing to a string cannot fail.
        let _ = match fault {
            Some(fault) => writeln!(text, "[-] {name}: {fault}"),
            None if verbose => writeln!(text, "[+] {name}: ok"),
            None => Ok(()),
        };
    }
    text.push_str(if is_ready { "ready\n" } else { "not ready\n" });
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, text)
}

/// Each check, with what is wrong.
async fn checks(state: &super::State) -> [(&'static str, Option<String>); 3] {
    let stopping = !state.inner.ready.load(Ordering::Acquire);
    let store = state.read(|store| store.probe()).await.err();
    let hub = state.inner.hub.stats().await;
    [
        ("running", stopping.then(|| "the server is stopping".into())),
        ("store", store.map(|e| e.message().to_owned())),
        ("hub", hub.is_none().then(|| "the task that serves agents has ended".into())),
    ]
}

pub(super) async fn metrics(State(state): State<super::State>) -> impl IntoResponse {
    let is_ready = checks(&state).await.iter().all(|(_, fault)| fault.is_none());
    let stats = state.inner.hub.stats().await;
    let text = state.inner.metrics.render(stats.as_ref(), is_ready);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}
