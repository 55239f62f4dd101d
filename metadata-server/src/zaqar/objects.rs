//! The cloud's `object-store` service, as far as Heat uses it: for Heats with `POLL_TEMP_URL`.
//!
//! Heat makes a container and an object for each server, puts the whole metadata there at every change by a
//! temporary URL, and gives the instance another to read it. `TEMP_URL_SIGNAL` is the way back. An object is
//! a queue that keeps only its newest message; of an object that an agent is bound to, that is the agent's
//! document. Containers are the first part of objects' names: all of them exist.
//!
//! | method, path below `/v1/AUTH_{project}` | answer |
//! |---|---|
//! | `GET`, `HEAD` the account | 204, with the key of temporary URLs |
//! | `PUT`, `POST /{container}` | 201, 204 |
//! | `GET`, `HEAD /{container}` | 200 with its objects, 204 with their number |
//! | `DELETE /{container}` | 204, or 409 if there are objects |
//! | `PUT /{container}/{object}` | 201, durable |
//! | `GET`, `HEAD`, `DELETE /{container}/{object}` | 200, 200, 204, or 404 |
//!
//! Heat's pushes come in order here, so that the last one counts. One that is refused is lost without a
//! word, which is why `ZAQAR_MESSAGE` is the better transport.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;

use super::auth::by_token;
use super::messages::{content, receive};
use super::temp_url::TempUrl;
use super::{Admission, Zaqar, ZaqarError};
use crate::clock;
use crate::store::queues::{QueueKey, QueueOutcome, QueueWrite, StoredObject, is_keystone_id};

/// Before the project's id in the name of an account.
const ACCOUNT_PREFIX: &str = "AUTH_";
/// Objects do not expire; an object that nobody is bound to and nobody writes is forgotten as queues are.
const TTL_S: u64 = u64::MAX / 1000;
/// Objects in an answer unless asked otherwise, and at most; Swift's.
const LISTED_MAX: usize = 10_000;
const TEMP_URL_KEY: HeaderName = HeaderName::from_static("x-account-meta-temp-url-key");

/// A [`ZaqarError`] as plain text: Heat shows the first characters of the answer.
#[derive(Debug)]
pub(super) struct ObjectError(ZaqarError);

impl<E: Into<ZaqarError>> From<E> for ObjectError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for ObjectError {
    fn into_response(self) -> Response {
        (self.0.status(), format!("{}\n", self.0.text())).into_response()
    }
}

pub(super) async fn account(
    State(zaqar): State<Zaqar>,
    Path(account): Path<String>,
    request: Request,
) -> Result<Response, ObjectError> {
    let (parts, _) = request.into_parts();
    let project = project(&account)?;
    admit(&zaqar, &parts, project, false).await?;
    let key = zaqar.inner.signer.account_key(project);
    match parts.method {
        Method::GET | Method::HEAD => {
            Ok((StatusCode::NO_CONTENT, [(TEMP_URL_KEY, key)]).into_response())
        }
        Method::POST if parts.headers.contains_key(&TEMP_URL_KEY) => Err(ZaqarError::new(
            StatusCode::FORBIDDEN,
            "Key not changed",
            "metadata-server has a key of temporary URLs for each account, which cannot be changed",
        )
        .into()),
        Method::POST => Ok(StatusCode::NO_CONTENT.into_response()),
        _ => Err(not_allowed(&parts)),
    }
}

/// Which objects of a container are to be listed, and how.
#[derive(Debug, Default, Deserialize)]
struct Listing {
    #[serde(default)]
    format: Option<String>,
    #[serde(default)]
    marker: Option<String>,
    #[serde(default)]
    prefix: Option<String>,
    #[serde(default)]
    limit: Option<usize>,
}

pub(super) async fn container(
    State(zaqar): State<Zaqar>,
    Path((account, container)): Path<(String, String)>,
    request: Request,
) -> Result<Response, ObjectError> {
    let (parts, _) = request.into_parts();
    let project = project(&account)?.to_owned();
    admit(&zaqar, &parts, &project, false).await?;
    // Of its objects' names it is the first part, and must be good for that.
    let first = QueueKey::object(&project, &container, "x")?;
    if parts.method == Method::PUT {
        return Ok(StatusCode::CREATED.into_response());
    }
    if parts.method == Method::POST {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let objects = zaqar.read(move |store| store.objects(&first)).await?;
    match parts.method {
        Method::DELETE if objects.is_empty() => Ok(StatusCode::NO_CONTENT.into_response()),
        Method::DELETE => Err(ZaqarError::new(
            StatusCode::CONFLICT,
            "Container not empty",
            format!("{container} has {} objects", objects.len()),
        )
        .into()),
        Method::GET | Method::HEAD => {
            let bytes: u64 = objects.iter().map(|object| object.bytes).sum();
            let headers = [
                ("x-container-object-count", objects.len().to_string()),
                ("x-container-bytes-used", bytes.to_string()),
            ];
            let query = Query::<Listing>::try_from_uri(&parts.uri)
                .map_err(|e| ZaqarError::bad_request(e.body_text()))?;
            Ok((headers, listed(&objects, &query.0)).into_response())
        }
        _ => Err(not_allowed(&parts)),
    }
}

/// The objects that were asked for, in the form that was asked for.
fn listed(objects: &[StoredObject], query: &Listing) -> Response {
    let marker = query.marker.as_deref().unwrap_or_default();
    let prefix = query.prefix.as_deref().unwrap_or_default();
    let shown: Vec<_> = objects
        .iter()
        .filter(|object| object.name.as_str() > marker && object.name.starts_with(prefix))
        .take(query.limit.unwrap_or(LISTED_MAX).min(LISTED_MAX))
        .collect();
    if query.format.as_deref() == Some("json") {
        let entry = |object: &&StoredObject| {
            json!({
                "name": object.name,
                "bytes": object.bytes,
                "last_modified": super::queues::time(object.modified_unix_ms / 1000),
                "content_type": "application/octet-stream",
            })
        };
        return Json(shown.iter().map(entry).collect::<Vec<_>>()).into_response();
    }
    if shown.is_empty() {
        return StatusCode::NO_CONTENT.into_response();
    }
    shown.iter().map(|object| format!("{}\n", object.name)).collect::<String>().into_response()
}

pub(super) async fn object(
    State(zaqar): State<Zaqar>,
    Path((account, container, object)): Path<(String, String, String)>,
    request: Request,
) -> Result<Response, ObjectError> {
    let (parts, body) = request.into_parts();
    let project = project(&account)?;
    admit(&zaqar, &parts, project, true).await?;
    let queue = QueueKey::object(project, &container, &object)?;
    match parts.method {
        Method::PUT => {
            let put = put(&zaqar, queue.clone(), body).await;
            match &put {
                Ok(_) => zaqar.inner.metrics.count_messages(1),
                Err(error) => {
                    zaqar.inner.metrics.count_messaging_refusal();
                    tracing::warn!(%queue, ?error, "object refused; Heat may not notice");
                }
            }
            put
        }
        Method::GET | Method::HEAD => {
            let key = queue.clone();
            let found = zaqar.read(move |store| store.object(&key)).await?;
            let (body, modified_unix_ms) = found.ok_or_else(|| missing(&queue))?;
            let headers = [
                (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
                (header::LAST_MODIFIED, last_modified(modified_unix_ms)),
                (header::CACHE_CONTROL, "no-store".to_owned()),
            ];
            Ok((headers, body).into_response())
        }
        Method::DELETE => {
            let key = queue.clone();
            if zaqar.read(move |store| store.queue(&key)).await?.is_none() {
                return Err(missing(&queue));
            }
            zaqar.write(QueueWrite::Remove { queue, user: None }).await?;
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        _ => Err(not_allowed(&parts)),
    }
}

async fn put(zaqar: &Zaqar, queue: QueueKey, body: Body) -> Result<Response, ObjectError> {
    let bytes_max = zaqar.inner.document_bytes_max;
    let parse = move |body: &Bytes| content(body.clone(), TTL_S, bytes_max);
    let (message, _turn) = receive(zaqar, queue.project(), body, parse).await?;
    let now_unix_ms = clock::unix_ms();
    let write = QueueWrite::Post {
        queue: queue.clone(),
        user: None,
        client: String::new(),
        messages: vec![message],
        now_unix_ms,
    };
    match zaqar.write(write).await? {
        QueueOutcome::Posted { .. } => {
            tracing::debug!(%queue, "object stored");
            let modified = [(header::LAST_MODIFIED, last_modified(now_unix_ms))];
            Ok((StatusCode::CREATED, modified).into_response())
        }
        other => Err(crate::store::Outcome::Queue(other).unexpected().into()),
    }
}

/// Whether this may be done in an account: by a temporary URL (of an object only), or by a token of the
/// project.
async fn admit(
    zaqar: &Zaqar,
    parts: &Parts,
    project: &str,
    is_object: bool,
) -> Result<(), ZaqarError> {
    let admitted = admitted(zaqar, parts, project, is_object).await;
    if admitted.is_err() {
        zaqar.inner.metrics.count_messaging_refusal();
    }
    admitted
}

async fn admitted(
    zaqar: &Zaqar,
    parts: &Parts,
    project: &str,
    is_object: bool,
) -> Result<(), ZaqarError> {
    let refused = |what: &str| ZaqarError::new(StatusCode::UNAUTHORIZED, "Not admitted", what);
    let temporary = Query::<TempUrl>::try_from_uri(&parts.uri).unwrap_or_default().0;
    if is_object && temporary.is_any() {
        let key = zaqar.inner.signer.account_key(project);
        let now_unix_s = clock::unix_ms() / 1000;
        return temporary
            .check(&key, parts.method.as_str(), parts.uri.path(), now_unix_s)
            .map_err(|error| refused(&error.to_string()));
    }
    let Admission::Keystone(keystone) = &zaqar.inner.admission else { return Ok(()) };
    let caller = by_token(parts, zaqar, keystone, &zaqar.inner.object_roles).await?;
    if caller.project == project {
        return Ok(());
    }
    let what = format!("the X-Auth-Token is of project {}, the account is not", caller.project);
    Err(ZaqarError::new(StatusCode::FORBIDDEN, "Not your account", what))
}

/// The project of an account.
fn project(account: &str) -> Result<&str, ZaqarError> {
    let project = account.strip_prefix(ACCOUNT_PREFIX).filter(|project| is_keystone_id(project));
    project.ok_or_else(|| {
        let what = format!("an account is {ACCOUNT_PREFIX} and the id of a project");
        ZaqarError::new(StatusCode::NOT_FOUND, "Account does not exist", what)
    })
}

fn missing(queue: &QueueKey) -> ObjectError {
    let what = format!("object {queue} does not exist");
    ZaqarError::new(StatusCode::NOT_FOUND, "Object does not exist", what).into()
}

fn not_allowed(parts: &Parts) -> ObjectError {
    let what = format!("{} is not possible at {}", parts.method, parts.uri.path());
    ZaqarError::new(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed", what).into()
}

/// `Last-Modified` of something written then (RFC 9110, 5.6.7): the second that begins after the next one.
///
/// Swift rounds up, too. Heat takes a signal only if it is later than the second in which Heat wrote the
/// deployment, which its database may have rounded up as well, and ours may be there in the same second.
fn last_modified(unix_ms: u64) -> String {
    let second = i64::try_from(unix_ms.div_ceil(1000) + 1).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(second)
        .unwrap_or(jiff::Timestamp::MAX)
        .strftime("%a, %d %b %Y %H:%M:%S GMT")
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_later_than_the_second_in_which_heat_wrote_its_deployment() {
        // Written by Heat at …956.6, rounded by its database to …957, signalled at once.
        assert_eq!(last_modified(1_795_319_956_601), "Sun, 22 Nov 2026 03:59:18 GMT");
        assert_eq!(last_modified(1_795_319_957_000), "Sun, 22 Nov 2026 03:59:18 GMT");
        assert!(last_modified(u64::MAX - 999).ends_with(" GMT"));
    }
}
