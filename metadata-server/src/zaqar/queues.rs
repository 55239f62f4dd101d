//! Queues themselves, and sharing them.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::Caller;
use super::signed::Grant;
use super::{BODY_PACE, Zaqar, ZaqarError};
use crate::clock;
use crate::http::read_body;
use crate::store::queues::{QueueKey, QueueOutcome, QueueWrite};

/// Longest request to share.
const REQUEST_BYTES_MAX: usize = 4 * 1024;
/// For how long a shared URL is good unless asked otherwise, in seconds. Zaqar's is a day; Heat asks once
/// and uses it as long as the stack lives.
const SHARED_S: u64 = 10 * 365 * 24 * 3600;

/// The queue of a path, in the caller's project.
pub(super) fn key(caller: &Caller, name: &str) -> Result<QueueKey, ZaqarError> {
    Ok(QueueKey::new(&caller.project, name)?)
}

/// A time as Zaqar writes it, UTC.
pub(super) fn time(unix_s: u64) -> String {
    let second = i64::try_from(unix_s).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(second)
        .unwrap_or(jiff::Timestamp::MAX)
        .strftime("%Y-%m-%dT%H:%M:%S")
        .to_string()
}

pub(super) async fn make(
    State(zaqar): State<Zaqar>,
    caller: Caller,
    Path(name): Path<String>,
    uri: Uri,
) -> Result<Response, ZaqarError> {
    let queue = key(&caller, &name)?;
    let now_unix_ms = clock::unix_ms();
    let made = zaqar.write(QueueWrite::Make { queue, user: caller.user, now_unix_ms }).await?;
    if made != (QueueOutcome::Made { is_new: true }) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let mut response = StatusCode::CREATED.into_response();
    if let Ok(location) = HeaderValue::from_str(uri.path()) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

pub(super) async fn show(
    State(zaqar): State<Zaqar>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Value>, ZaqarError> {
    let queue = key(&caller, &name)?;
    match zaqar.read(move |store| store.queue(&queue)).await? {
        Some(_) => Ok(Json(json!({
            "_max_messages_post_size": zaqar.inner.document_bytes_max,
            "_default_message_ttl": super::messages::TTL_DEFAULT_S,
        }))),
        None => {
            let what = format!("queue {name} does not exist in project {}", caller.project);
            Err(ZaqarError::new(StatusCode::NOT_FOUND, "Queue does not exist", what))
        }
    }
}

pub(super) async fn remove(
    State(zaqar): State<Zaqar>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<StatusCode, ZaqarError> {
    let queue = key(&caller, &name)?;
    zaqar.write(QueueWrite::Remove { queue, user: caller.user }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What is to be shared.
#[derive(Debug, Default, Deserialize)]
struct Share {
    #[serde(default)]
    paths: Option<Vec<String>>,
    #[serde(default)]
    methods: Option<Vec<String>>,
    #[serde(default)]
    expires: Option<String>,
}

pub(super) async fn share(
    State(zaqar): State<Zaqar>,
    caller: Caller,
    Path(name): Path<String>,
    uri: Uri,
    body: Body,
) -> Result<Json<Value>, ZaqarError> {
    let queue = key(&caller, &name)?;
    let body = read_body(body, REQUEST_BYTES_MAX, Some(BODY_PACE)).await?;
    let share: Share = if body.is_empty() {
        Share::default()
    } else {
        serde_json::from_slice(&body).map_err(|e| ZaqarError::bad_request(e.to_string()))?
    };
    let paths = share.paths.unwrap_or_else(|| vec!["messages".into()]);
    if paths.is_empty() || paths.iter().any(|path| path != "messages") {
        return Err(ZaqarError::bad_request("of a queue only its messages can be shared"));
    }
    let methods = share.methods.unwrap_or_else(|| vec!["GET".into()]);
    if let Some(bad) = methods.iter().find(|m| !matches!(m.as_str(), "GET" | "POST" | "DELETE")) {
        let what = format!("method {bad:?} cannot be shared; GET, POST and DELETE can");
        return Err(ZaqarError::bad_request(what));
    }
    let now_unix_ms = clock::unix_ms();
    let latest = time(now_unix_ms / 1000 + SHARED_S);
    let expires = match share.expires {
        None => latest,
        Some(text) if is_time(&text) => text.min(latest),
        Some(text) => {
            let what = format!("expires is {text:?}, must be like 2026-11-22T03:59:30, in UTC");
            return Err(ZaqarError::bad_request(what));
        }
    };
    // Whoever shares a queue uses it: from here on it is this user's.
    zaqar.write(QueueWrite::Make { queue, user: caller.user.clone(), now_unix_ms }).await?;
    let base = uri.path().trim_end_matches("share");
    let grant = Grant {
        project: caller.project,
        paths: format!("{base}messages"),
        methods: methods.join(","),
        expires,
        user: caller.user,
    };
    let signature = zaqar.inner.signer.sign(&grant);
    Ok(Json(json!({
        "project": grant.project,
        "paths": [grant.paths],
        "expires": grant.expires,
        "methods": methods,
        "signature": signature,
    })))
}

fn is_time(text: &str) -> bool {
    text.len() == 19 && jiff::civil::DateTime::strptime("%Y-%m-%dT%H:%M:%S", text).is_ok()
}
