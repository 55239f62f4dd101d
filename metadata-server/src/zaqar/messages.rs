//! Messages: posting, looking, taking.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::auth::Caller;
use super::queues::key;
use super::{BODY_TIME_MAX, ENVELOPE_BYTES_MAX, Zaqar, ZaqarError};
use crate::clock;
use crate::document::ValidDocument;
use crate::http::read_body;
use crate::store::queues::{
    MESSAGES_PER_POST_MAX, NewMessage, QueueKey, QueueOutcome, QueueWrite, StoredMessage,
};

/// For how long a message is kept unless its sender says, in seconds.
pub(super) const TTL_DEFAULT_S: u64 = 3_600;
/// Shortest and longest time; Zaqar's.
const TTL_S: std::ops::RangeInclusive<u64> = 60..=1_209_600;
/// Largest message that is no document, in bytes: a result of the largest size, and its envelope.
const MESSAGE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Messages in an answer unless asked otherwise, and at most.
const PAGE_DEFAULT: usize = 10;
const PAGE_MAX: usize = 20;
/// Longest id of a client, in characters.
const CLIENT_CHARS_MAX: usize = 64;

#[derive(Deserialize)]
struct Post<'a> {
    #[serde(borrow)]
    messages: Vec<Posted<'a>>,
}

#[derive(Deserialize)]
struct Posted<'a> {
    #[serde(borrow)]
    body: &'a RawValue,
    #[serde(default)]
    ttl: Option<u64>,
}

/// Whether a body is meant as a metadata document.
#[derive(Deserialize)]
struct Probe {
    #[serde(default)]
    deployments: Option<IgnoredAny>,
}

pub(super) async fn post(
    State(zaqar): State<Zaqar>,
    caller: Caller,
    Path(name): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ZaqarError> {
    let posted = store(&zaqar, caller, &name, client(&headers), body).await;
    let (numbers, queue) = match posted {
        Ok(posted) => posted,
        Err(error) => {
            zaqar.inner.metrics.count_messaging_refusal();
            tracing::warn!(queue = name, ?error, "messages refused");
            return Err(error);
        }
    };
    zaqar.inner.metrics.count_messages(numbers.len() as u64);
    tracing::debug!(%queue, messages = numbers.len(), "messages stored");
    let resources: Vec<String> =
        numbers.iter().map(|number| format!("{}/{}", uri.path(), id(*number))).collect();
    let mut answer = Json(json!({"resources": resources})).into_response();
    *answer.status_mut() = StatusCode::CREATED;
    if let Some(Ok(location)) = resources.first().map(|first| HeaderValue::from_str(first)) {
        answer.headers_mut().insert(header::LOCATION, location);
    }
    Ok(answer)
}

async fn store(
    zaqar: &Zaqar,
    caller: Caller,
    name: &str,
    client: String,
    body: Body,
) -> Result<(Vec<u64>, QueueKey), ZaqarError> {
    let queue = key(&caller, name)?;
    // An error would mean that the semaphore was closed, which nobody does.
    let _permit = zaqar.inner.bodies.acquire().await;
    let bytes_max = zaqar.inner.document_bytes_max;
    let read = read_body(body, bytes_max + ENVELOPE_BYTES_MAX);
    let body = tokio::time::timeout(BODY_TIME_MAX, read).await.map_err(|_| {
        let what = format!("the body did not come within {} s", BODY_TIME_MAX.as_secs());
        ZaqarError::new(StatusCode::REQUEST_TIMEOUT, "Request timeout", what)
    })??;
    // Megabytes of JSON take a while: not on the event loop.
    let messages = tokio::task::spawn_blocking(move || parse(&body, bytes_max))
        .await
        .map_err(|_| ZaqarError::from(crate::store::StoreError::Closed))??;
    let write = QueueWrite::Post {
        queue: queue.clone(),
        user: caller.user,
        client,
        messages,
        now_unix_ms: clock::unix_ms(),
    };
    match zaqar.write(write).await? {
        QueueOutcome::Posted { numbers, is_unsettled, .. } => {
            if is_unsettled {
                zaqar.inner.settle.note(queue.clone());
            }
            Ok((numbers, queue))
        }
        other => Err(crate::store::Outcome::Queue(other).unexpected().into()),
    }
}

fn parse(body: &Bytes, document_bytes_max: usize) -> Result<Vec<NewMessage>, ZaqarError> {
    let post: Post<'_> = serde_json::from_slice(body).map_err(|e| {
        // What stands there may be a secret; the place and kind of the mistake are none.
        ZaqarError::bad_request(format!(
            "the body must be {{\"messages\": [{{\"body\": …, \"ttl\": seconds}}]}}: {:?} error at line {}, column {}",
            e.classify(),
            e.line(),
            e.column()
        ))
    })?;
    if post.messages.is_empty() || post.messages.len() > MESSAGES_PER_POST_MAX {
        return Err(ZaqarError::bad_request(format!(
            "the request has {} messages, must have 1 to {MESSAGES_PER_POST_MAX}",
            post.messages.len()
        )));
    }
    post.messages.iter().map(|posted| message(body, posted, document_bytes_max)).collect()
}

fn message(
    body: &Bytes,
    posted: &Posted<'_>,
    document_bytes_max: usize,
) -> Result<NewMessage, ZaqarError> {
    let bytes = body.slice_ref(posted.body.get().as_bytes());
    let probe = serde_json::from_slice::<Probe>(&bytes);
    let document = match probe {
        Ok(Probe { deployments: Some(_) }) => {
            // Owned, so that what is kept does not keep the whole request.
            let own = Bytes::copy_from_slice(&bytes);
            Some(ValidDocument::check(own, document_bytes_max)?)
        }
        _ if bytes.len() > MESSAGE_BYTES_MAX => {
            return Err(ZaqarError::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "Message too large",
                format!("it has {} bytes, the limit is {MESSAGE_BYTES_MAX}", bytes.len()),
            ));
        }
        _ => None,
    };
    let body = document.as_ref().map_or(bytes, |document| document.body().clone());
    let ttl_s = posted.ttl.unwrap_or(TTL_DEFAULT_S).clamp(*TTL_S.start(), *TTL_S.end());
    Ok(NewMessage { body, ttl_s, document })
}

/// Which page of messages.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ListQuery {
    marker: Option<String>,
    limit: Option<usize>,
    echo: Option<String>,
}

pub(super) async fn list(
    State(zaqar): State<Zaqar>,
    caller: Caller,
    Path(name): Path<String>,
    uri: Uri,
    query: Result<Query<ListQuery>, axum::extract::rejection::QueryRejection>,
    headers: HeaderMap,
) -> Result<Json<Value>, ZaqarError> {
    let query = query.map_err(|e| ZaqarError::bad_request(e.body_text()))?.0;
    let after = query.marker.as_deref().and_then(number).unwrap_or(0);
    let limit = query.limit.unwrap_or(PAGE_DEFAULT).clamp(1, PAGE_MAX);
    let client = client(&headers);
    let with_own = query.echo.as_deref() == Some("true");
    let now_unix_ms = clock::unix_ms();
    let mut messages = visible(&zaqar, &caller, &name, after, now_unix_ms).await?;
    if !with_own && !client.is_empty() {
        messages.retain(|message| message.client != client);
    }
    messages.truncate(limit);
    let marker = messages.last().map_or(after, |message| message.number);
    let base = uri.path();
    Ok(Json(json!({
        "messages": messages.iter().map(|m| shown(m, base, now_unix_ms)).collect::<Vec<_>>(),
        "links": [{"rel": "next", "href": format!("{base}?marker={}&limit={limit}", id(marker))}],
    })))
}

pub(super) async fn show(
    State(zaqar): State<Zaqar>,
    caller: Caller,
    Path((name, wanted)): Path<(String, String)>,
    uri: Uri,
) -> Result<Json<Value>, ZaqarError> {
    let now_unix_ms = clock::unix_ms();
    let messages = visible(&zaqar, &caller, &name, 0, now_unix_ms).await?;
    let found = messages.iter().find(|message| id(message.number) == wanted).ok_or_else(|| {
        let what = format!("message {wanted} does not exist in queue {name}");
        ZaqarError::new(StatusCode::NOT_FOUND, "Message does not exist", what)
    })?;
    let base = uri.path().rsplit_once('/').map_or("", |(base, _)| base);
    Ok(Json(shown(found, base, now_unix_ms)))
}

/// How messages are to be removed.
#[derive(Debug, Default, Deserialize)]
pub(super) struct DeleteQuery {
    pop: Option<usize>,
    ids: Option<String>,
}

pub(super) async fn delete(
    State(zaqar): State<Zaqar>,
    caller: Caller,
    Path(name): Path<String>,
    uri: Uri,
    query: Result<Query<DeleteQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, ZaqarError> {
    let query = query.map_err(|e| ZaqarError::bad_request(e.body_text()))?.0;
    let now_unix_ms = clock::unix_ms();
    match (query.pop, query.ids) {
        (Some(count @ 1..=PAGE_MAX), None) => {
            // Heat asks several times a second as long as it waits: what changes nothing is no write.
            let there = visible(&zaqar, &caller, &name, 0, now_unix_ms).await?;
            let taken = if there.is_empty() {
                Vec::new()
            } else {
                let queue = key(&caller, &name)?;
                let write = QueueWrite::Take { queue, user: caller.user, count, now_unix_ms };
                match zaqar.write(write).await? {
                    QueueOutcome::Taken(taken) => taken,
                    other => return Err(crate::store::Outcome::Queue(other).unexpected().into()),
                }
            };
            let base = uri.path();
            let taken: Vec<_> = taken.iter().map(|m| shown(m, base, now_unix_ms)).collect();
            Ok(Json(json!({"messages": taken})).into_response())
        }
        (None, Some(ids)) => {
            let numbers = ids.split(',').take(PAGE_MAX).filter_map(number).collect();
            drop_numbers(&zaqar, caller, &name, numbers).await.map(IntoResponse::into_response)
        }
        _ => Err(ZaqarError::bad_request(format!(
            "either pop=N, with N from 1 to {PAGE_MAX}, or ids=ID,ID… says what to remove"
        ))),
    }
}

pub(super) async fn delete_one(
    State(zaqar): State<Zaqar>,
    caller: Caller,
    Path((name, wanted)): Path<(String, String)>,
) -> Result<StatusCode, ZaqarError> {
    drop_numbers(&zaqar, caller, &name, number(&wanted).into_iter().collect()).await
}

async fn drop_numbers(
    zaqar: &Zaqar,
    caller: Caller,
    name: &str,
    numbers: Vec<u64>,
) -> Result<StatusCode, ZaqarError> {
    let queue = key(&caller, name)?;
    zaqar.write(QueueWrite::Drop { queue, user: caller.user, numbers }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The messages that a caller may see. A queue that does not exist is empty.
async fn visible(
    zaqar: &Zaqar,
    caller: &Caller,
    name: &str,
    after: u64,
    now_unix_ms: u64,
) -> Result<Vec<StoredMessage>, ZaqarError> {
    let queue = key(caller, name)?;
    let user = caller.user.clone();
    zaqar
        .read(move |store| {
            let owner = store.queue(&queue)?.and_then(|record| record.owner);
            let is_foreign = user.is_some() && owner.is_some() && owner != user;
            Ok(match is_foreign {
                true => None,
                false => Some(store.queue_messages(&queue, after, now_unix_ms)?),
            })
        })
        .await?
        .ok_or_else(|| {
            ZaqarError::refusal(&QueueOutcome::NotYours)
                .unwrap_or_else(|| ZaqarError::bad_request("not your queue"))
        })
}

fn shown(message: &StoredMessage, base: &str, now_unix_ms: u64) -> Value {
    let id = id(message.number);
    // It was JSON when it came.
    let body: Value = serde_json::from_slice(&message.body).unwrap_or_default();
    json!({
        "id": id,
        "href": format!("{base}/{id}"),
        "ttl": message.ttl_s,
        "age": now_unix_ms.saturating_sub(message.posted_unix_ms) / 1000,
        "body": body,
    })
}

fn id(number: u64) -> String {
    format!("{number:024x}")
}

fn number(id: &str) -> Option<u64> {
    u64::from_str_radix(id, 16).ok().filter(|_| id.len() == 24)
}

fn client(headers: &HeaderMap) -> String {
    let value = headers.get("client-id").and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.chars().take(CLIENT_CHARS_MAX).collect()
}
