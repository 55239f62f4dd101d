//! The cloud's `messaging` service, as far as Heat uses it: an unmodified Heat pushes to us.
//!
//! Heat with `software_config_transport: ZAQAR_MESSAGE` posts the whole metadata of a server into a queue
//! at every change, and fails the stack when that fails, so an answer of 201 means durable. `ZAQAR_SIGNAL`
//! is the way back: the instance posts, Heat takes the message away by a signed URL. The shapes are those of
//! Zaqar's API, version 2 (and 1.1, which differs in nothing used here).
//!
//! | method, path below `/v2` | answer |
//! |---|---|
//! | `PUT /queues/{q}` | 201 new, 204 there |
//! | `GET`, `DELETE /queues/{q}` | 200 or 404, 204 |
//! | `POST /queues/{q}/share` | 200: a signed URL's parts |
//! | `POST /queues/{q}/messages` | 201, durable |
//! | `GET /queues/{q}/messages` | 200, `?marker=&limit=&echo=` |
//! | `DELETE /queues/{q}/messages` | `?pop=N` 200, `?ids=a,b` 204 |
//! | `GET`, `DELETE /queues/{q}/messages/{id}` | 200 or 404, 204 |
//! | `GET /ping` | 204 without a token, 503 when stopping |
//!
//! Every error is Zaqar's `{"title", "description"}`: Heat shows both as the reason of the failed stack.
//!
//! | module | what it knows |
//! |---|---|
//! | `auth` | who asks: a token, or a signed URL |
//! | `token`, [`keystone`] | what Keystone said of a token, remembered; asking it |
//! | `signed` | signatures of URLs |
//! | `messages`, `queues` | the paths |
//! | `turns` | whose body is read |
//! | `objects`, `temp_url` | the same as an object store, for `POLL_TEMP_URL` |
//! | [`settle`] | what is in force when pushes came out of order |

mod auth;
mod error;
pub mod keystone;
mod messages;
mod objects;
mod queues;
pub mod settle;
mod signed;
mod temp_url;
mod token;
mod turns;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::routing::{any, get, post, put};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch as signal};

pub use self::error::ZaqarError;
use self::keystone::Keystone;
use self::settle::SettleHandle;
use self::signed::Signer;
use self::token::TokenCache;
use self::turns::Turns;
use crate::clock;
use crate::http::Pace;
use crate::metrics::Metrics;
use crate::store::queues::{QueueOutcome, QueueWrite};
use crate::store::writer::Writer;
use crate::store::{Outcome, Store, StoreError, Write};

/// Requests whose body is held at a time; more wait.
const BODIES_MAX: usize = 16;
/// Of one project at most; one tenant must not keep others waiting.
const BODIES_OF_PROJECT_MAX: usize = 2;
/// How slowly a body may come: the largest document in half a minute.
const BODY_PACE: Pace = Pace { grace: Duration::from_secs(3), bytes_per_s_min: 512 * 1024 };
/// For how long a write is tried again while the store has no room for it: Heat does not try again.
const BUSY_TIME_MAX: Duration = Duration::from_secs(5);
/// The wait between two tries.
const BUSY_RETRY_AFTER: Duration = Duration::from_millis(100);
/// Reads of queues under way at a time, each of a few megabytes; more wait, and leave threads to the rest of
/// the server.
const READS_MAX: usize = 8;
/// Questions to Keystone under way at a time; more wait, and leave threads to the rest of the server.
const TOKEN_QUESTIONS_MAX: usize = 8;
/// Bytes of a request around a document.
const ENVELOPE_BYTES_MAX: usize = 64 * 1024;

/// What the handlers work with.
#[derive(Clone)]
pub struct Zaqar {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    writer: Writer,
    metrics: Arc<Metrics>,
    admission: Admission,
    roles: Vec<String>,
    object_roles: Vec<String>,
    tokens: TokenCache,
    signer: Signer,
    settle: SettleHandle,
    document_bytes_max: usize,
    bodies: Turns,
    reads: Arc<Semaphore>,
    token_questions: Semaphore,
    ready: AtomicBool,
}

/// Who is let in.
pub enum Admission {
    /// Whom Keystone knows.
    Keystone(Arc<Keystone>),
    /// Everybody who says a project: for trying out, on loopback only.
    Anybody,
}

/// What [`Zaqar`] is made of.
pub struct Parts {
    /// For reading.
    pub store: Store,
    /// For writing.
    pub writer: Writer,
    /// What `/metrics` shows.
    pub metrics: Arc<Metrics>,
    /// Who is let in.
    pub admission: Admission,
    /// Of these roles a caller must have one.
    pub roles: Vec<String>,
    /// Of these roles a caller of the object store must have one; without any there is none.
    pub object_roles: Vec<String>,
    /// Whom to tell of doubtful order.
    pub settle: SettleHandle,
    /// Largest document, in bytes.
    pub document_bytes_max: usize,
}

impl Zaqar {
    /// Puts the parts together; makes the key of signed URLs at the first start.
    ///
    /// # Errors
    /// The store cannot be read or written, or there is no randomness.
    pub async fn new(parts: Parts) -> anyhow::Result<Self> {
        let signer = Signer::open(&parts.store, &parts.writer).await?;
        let inner = Inner {
            store: parts.store,
            writer: parts.writer,
            metrics: parts.metrics,
            admission: parts.admission,
            roles: parts.roles,
            object_roles: parts.object_roles,
            tokens: TokenCache::default(),
            signer,
            settle: parts.settle,
            document_bytes_max: parts.document_bytes_max,
            bodies: Turns::new(BODIES_MAX, BODIES_OF_PROJECT_MAX),
            reads: Arc::new(Semaphore::new(READS_MAX)),
            token_questions: Semaphore::new(TOKEN_QUESTIONS_MAX),
            ready: AtomicBool::new(true),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Makes `ping` say no.
    pub fn not_ready(&self) {
        self.inner.ready.store(false, Ordering::Release);
    }

    /// Reads the store off the event loop, [`READS_MAX`] at a time.
    async fn read<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, ZaqarError> {
        // An error would mean that the semaphore was closed, which nobody does.
        let permit = self.inner.reads.clone().acquire_owned().await;
        let store = self.inner.store.clone();
        let reading = tokio::task::spawn_blocking(move || {
            // Held for as long as it works, also if nobody waits for it any more.
            let _permit = permit;
            job(&store)
        });
        match reading.await {
            Ok(read) => Ok(read?),
            Err(_) => Err(StoreError::Closed.into()),
        }
    }

    /// Writes, and returns when it is durable.
    async fn write(&self, write: QueueWrite) -> Result<QueueOutcome, ZaqarError> {
        let began = clock::now();
        let written = loop {
            // What it carries is shared, not copied.
            let written = self.inner.writer.write(Write::Queue(write.clone())).await;
            let is_busy = matches!(written, Err(StoreError::Busy { .. }));
            if !is_busy || began.elapsed() >= BUSY_TIME_MAX {
                break written;
            }
            tokio::time::sleep(BUSY_RETRY_AFTER).await;
        };
        match written {
            Ok(Outcome::Queue(outcome)) => match ZaqarError::refusal(&outcome) {
                Some(error) => Err(error),
                None => Ok(outcome),
            },
            Ok(other) => Err(other.unexpected().into()),
            Err(error) => {
                self.inner.metrics.count_store_failure();
                Err(error.into())
            }
        }
    }
}

/// All routes.
pub fn router(zaqar: Zaqar) -> Router {
    let mut router = Router::new();
    for version in ["/v2", "/v1.1"] {
        let at = |path: &str| format!("{version}{path}");
        router = router
            .route(&at("/ping"), get(ping))
            .route(
                &at("/queues/{queue}"),
                put(queues::make).get(queues::show).delete(queues::remove),
            )
            .route(&at("/queues/{queue}/share"), post(queues::share))
            .route(
                &at("/queues/{queue}/messages"),
                post(messages::post).get(messages::list).delete(messages::delete),
            )
            .route(
                &at("/queues/{queue}/messages/{id}"),
                get(messages::show).delete(messages::delete_one),
            );
    }
    if !zaqar.inner.object_roles.is_empty() {
        router = router
            .route("/v1/{account}", any(objects::account))
            .route("/v1/{account}/{container}", any(objects::container))
            .route("/v1/{account}/{container}/{object}", any(objects::object));
    }
    router.method_not_allowed_fallback(method_not_allowed).fallback(not_found).with_state(zaqar)
}

/// Serves until `stopping` turns true, then lets requests finish, for `drain_timeout` at most.
///
/// # Errors
/// The listener failed.
pub async fn serve(
    listener: TcpListener,
    zaqar: Zaqar,
    mut stopping: signal::Receiver<bool>,
    drain_timeout: Duration,
) -> std::io::Result<()> {
    let mut stop = stopping.clone();
    let stopped = async move {
        // An error means that nobody can ask for a stop any more, which is as good as being asked.
        drop(stop.wait_for(|stop| *stop).await);
    };
    let serving =
        axum::serve(listener, router(zaqar)).with_graceful_shutdown(stopped).into_future();
    tokio::select! {
        served = serving => served,
        () = async {
            drop(stopping.wait_for(|stop| *stop).await);
            tokio::time::sleep(drain_timeout).await;
        } => Ok(()),
    }
}

async fn ping(State(zaqar): State<Zaqar>) -> StatusCode {
    if zaqar.inner.ready.load(Ordering::Acquire) {
        StatusCode::NO_CONTENT
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

async fn not_found(uri: Uri) -> ZaqarError {
    let what = format!(
        "metadata-server serves what Heat uses of Zaqar's API, below /v2/queues, and with swift_roles of \
         Swift's, below /v1/AUTH_PROJECT; there is nothing at {}",
        uri.path()
    );
    ZaqarError::new(StatusCode::NOT_FOUND, "Not found", what)
}

async fn method_not_allowed(method: Method, uri: Uri) -> ZaqarError {
    let what = format!("{method} is not possible at {}", uri.path());
    ZaqarError::new(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed", what)
}

#[cfg(test)]
mod tests;
