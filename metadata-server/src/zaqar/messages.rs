//! Messages: posting, looking, taking.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use super::auth::Caller;
use super::queues::key;
use super::turns::Turn;
use super::{BODY_PACE, ENVELOPE_BYTES_MAX, Zaqar, ZaqarError};
use crate::clock;
use crate::document::ValidDocument;
use crate::http::read_body;
use crate::store::queues::{
    MESSAGES_PER_POST_MAX, MessagesQuery, NewMessage, QueueKey, QueueOutcome, QueueWrite,
    StoredMessage,
};
use crate::store::{Store, StoreError};

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

/// What tells whether a body is meant as a metadata document.
#[derive(Deserialize)]
struct Probe {
    #[serde(default)]
    deployments: Option<IgnoredAny>,
    /// With one of these it is the signal of a deployment, whose outputs may have any name.
    #[serde(default)]
    deploy_status_code: Option<IgnoredAny>,
    #[serde(default)]
    deploy_stdout: Option<IgnoredAny>,
    #[serde(default)]
    deploy_stderr: Option<IgnoredAny>,
}

impl Probe {
    fn is_document(&self) -> bool {
        let of_signal = [&self.deploy_status_code, &self.deploy_stdout, &self.deploy_stderr];
        self.deployments.is_some() && of_signal.iter().all(|member| member.is_none())
    }
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
    let bytes_max = zaqar.inner.document_bytes_max;
    let (messages, _turn) =
        receive(zaqar, &caller.project, body, move |body| parse(body, bytes_max)).await?;
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

/// Reads a body of this project's that may be a document, and what it says. The turn is to be held until that
/// is stored.
pub(super) async fn receive<T: Send + 'static>(
    zaqar: &Zaqar,
    project: &str,
    body: Body,
    parse: impl FnOnce(&Bytes) -> Result<T, ZaqarError> + Send + 'static,
) -> Result<(T, Turn), ZaqarError> {
    let turn = zaqar.inner.bodies.take(project).await;
    let bytes_max = zaqar.inner.document_bytes_max + ENVELOPE_BYTES_MAX;
    let body = read_body(body, bytes_max, Some(BODY_PACE)).await?;
    // Megabytes of JSON take a while: not on the event loop. The turn goes along: the work goes on where
    // nobody waits for it any more.
    let parsing = tokio::task::spawn_blocking(move || (parse(&body), turn));
    let (parsed, turn) = parsing.await.map_err(|_| ZaqarError::from(StoreError::Closed))?;
    Ok((parsed?, turn))
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
    let ttl_s = posted.ttl.unwrap_or(TTL_DEFAULT_S).clamp(*TTL_S.start(), *TTL_S.end());
    content(bytes, ttl_s, document_bytes_max)
}

/// What was sent: a metadata document, or something else.
pub(super) fn content(
    bytes: Bytes,
    ttl_s: u64,
    document_bytes_max: usize,
) -> Result<NewMessage, ZaqarError> {
    // A list would be read as the members in their order.
    let is_document = bytes.trim_ascii_start().starts_with(b"{")
        && serde_json::from_slice::<Probe>(&bytes).is_ok_and(|probe| probe.is_document());
    if is_document {
        // Owned, so that what is kept does not keep the whole request.
        let own = Bytes::copy_from_slice(&bytes);
        let valid = ValidDocument::check(own, document_bytes_max)?;
        return Ok(NewMessage { body: valid.body().clone(), ttl_s, document: Some(valid.into()) });
    }
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(ZaqarError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "Message too large",
            format!("it has {} bytes, the limit is {MESSAGE_BYTES_MAX}", bytes.len()),
        ));
    }
    Ok(NewMessage { body: bytes, ttl_s, document: None })
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
) -> Result<Response, ZaqarError> {
    let query = query.map_err(|e| ZaqarError::bad_request(e.body_text()))?.0;
    let after = query.marker.as_deref().and_then(number).unwrap_or(0);
    let limit = query.limit.unwrap_or(PAGE_DEFAULT).clamp(1, PAGE_MAX);
    let client = client(&headers);
    let with_own = query.echo.as_deref() == Some("true") || client.is_empty();
    let now_unix_ms = clock::unix_ms();
    let not_of_client = (!with_own).then_some(client);
    let wanted = MessagesQuery { after, limit, not_of_client, now_unix_ms };
    let base = uri.path().to_owned();
    visible(&zaqar, &caller, &name, move |store, queue| {
        let messages = store.queue_messages(queue, &wanted)?;
        let marker = messages.last().map_or(after, |message| message.number);
        let href = format!("{base}?marker={}&limit={limit}", id(marker));
        Ok(page(&messages, &base, now_unix_ms, Some(href)))
    })
    .await
}

pub(super) async fn show(
    State(zaqar): State<Zaqar>,
    caller: Caller,
    Path((name, wanted)): Path<(String, String)>,
    uri: Uri,
) -> Result<Response, ZaqarError> {
    let now_unix_ms = clock::unix_ms();
    let base = uri.path().rsplit_once('/').map_or("", |(base, _)| base).to_owned();
    let number = number(&wanted);
    let found = visible(&zaqar, &caller, &name, move |store, queue| {
        let Some(number) = number else { return Ok(None) };
        let after = number.saturating_sub(1);
        let query = MessagesQuery { after, limit: 1, not_of_client: None, now_unix_ms };
        let found = store.queue_messages(queue, &query)?.pop();
        let found = found.filter(|message| message.number == number);
        Ok(found.map(|message| json_response(&shown(&message, &base, now_unix_ms))))
    });
    found.await?.ok_or_else(|| {
        let what = format!("message {wanted} does not exist in queue {name}");
        ZaqarError::new(StatusCode::NOT_FOUND, "Message does not exist", what)
    })
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
            let any = MessagesQuery { after: 0, limit: 1, not_of_client: None, now_unix_ms };
            let is_empty = visible(&zaqar, &caller, &name, move |store, queue| {
                Ok(store.queue_messages(queue, &any)?.is_empty())
            });
            let taken = if is_empty.await? {
                Vec::new()
            } else {
                let queue = key(&caller, &name)?;
                let write = QueueWrite::Take { queue, user: caller.user, count, now_unix_ms };
                match zaqar.write(write).await? {
                    QueueOutcome::Taken(taken) => taken,
                    other => return Err(crate::store::Outcome::Queue(other).unexpected().into()),
                }
            };
            let base = uri.path().to_owned();
            zaqar.read(move |_| Ok(page(&taken, &base, now_unix_ms, None))).await
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

/// Reads a queue that the caller may see. One that does not exist is empty.
async fn visible<T: Send + 'static>(
    zaqar: &Zaqar,
    caller: &Caller,
    name: &str,
    job: impl FnOnce(&Store, &QueueKey) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, ZaqarError> {
    let queue = key(caller, name)?;
    let user = caller.user.clone();
    zaqar
        .read(move |store| {
            let owner = store.queue(&queue)?.and_then(|record| record.owner);
            let is_foreign = user.is_some() && owner.is_some() && owner != user;
            if is_foreign { Ok(None) } else { job(store, &queue).map(Some) }
        })
        .await?
        .ok_or_else(|| {
            ZaqarError::refusal(&QueueOutcome::NotYours)
                .unwrap_or_else(|| ZaqarError::bad_request("not your queue"))
        })
}

/// A message as it is shown.
#[derive(Serialize)]
struct Shown<'a> {
    id: String,
    href: String,
    ttl: u64,
    age: u64,
    body: &'a RawValue,
}

/// Messages, and where there are more.
#[derive(Serialize)]
struct Page<'a> {
    messages: Vec<Shown<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    links: Option<[Link; 1]>,
}

#[derive(Serialize)]
struct Link {
    rel: &'static str,
    href: String,
}

/// Megabytes: not on the event loop.
fn page(
    messages: &[StoredMessage],
    base: &str,
    now_unix_ms: u64,
    next: Option<String>,
) -> Response {
    json_response(&Page {
        messages: messages.iter().map(|message| shown(message, base, now_unix_ms)).collect(),
        links: next.map(|href| [Link { rel: "next", href }]),
    })
}

fn json_response(value: &impl Serialize) -> Response {
    Json(value).into_response()
}

/// A message, its body as it was posted.
fn shown<'a>(message: &'a StoredMessage, base: &str, now_unix_ms: u64) -> Shown<'a> {
    let id = id(message.number);
    Shown {
        href: format!("{base}/{id}"),
        id,
        ttl: message.ttl_s,
        age: now_unix_ms.saturating_sub(message.posted_unix_ms) / 1000,
        // It was JSON when it came.
        body: serde_json::from_slice(&message.body).unwrap_or(RawValue::NULL),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_named_deployments_makes_no_document_of_a_signal() {
        let is_document = |text: &str| {
            let body = Bytes::from(format!("{{\"messages\": [{{\"body\": {text}}}]}}"));
            parse(&body, 1_000).unwrap().remove(0).document.is_some()
        };
        assert!(is_document(r#"{"deployments": []}"#));
        for part in ["status_code", "stdout", "stderr"] {
            let signal = format!(r#"{{"deployments": "three", "deploy_{part}": 0}}"#);
            assert!(!is_document(&signal), "{part}");
        }
        assert!(!is_document(r#"{"deploy_status_code": 0}"#) && !is_document("[1]"));
    }
}
