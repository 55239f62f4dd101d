//! The admin API: JSON over HTTP/1.1, on loopback, with a bearer token.
//!
//! | method, path | answer |
//! |---|---|
//! | `PUT /v1/agents/{id}/metadata` | 201 new, 200 unchanged: version and digest |
//! | `GET /v1/agents/{id}/metadata` | the document, byte for byte |
//! | `GET /v1/agents`, `GET /v1/agents/{id}` | who is known, connected, and where each stands |
//! | `GET /v1/results`, `GET /v1/agents/{id}/results` | results in pages, `?after=&limit=` |
//! | `POST /v1/agents/{id}/enrolment` | a new enrolment token |
//! | `GET`, `POST /v1/pins`; `PUT`, `DELETE /v1/agents/{id}/pins/{fingerprint}` | pins, many at once with `POST` |
//! | `POST /v1/push` | one document for many agents, in one transaction |
//! | `GET /v1/agents/{id}/logs` | what its hooks print while they run, one JSON object per line, `?deployment=&follow=` |
//! | `GET /v1/watch` | what happens, one JSON object per line, `?agent=` |
//! | `GET /v1/server` | the server's fingerprint and addresses |
//! | `GET /v1/version`, `/livez`, `/readyz`, `/metrics` | without the token |
//!
//! Every error is `{"error": {"code", "message", "hint"}}`; the codes are stable.

mod agents;
mod auth;
mod body;
mod documents;
mod enrol;
mod error;
mod health;
mod lines;
mod logs;
mod pins;
mod push;
mod results;
mod watch;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::http::Method;
use axum::middleware;
use axum::routing::{get, post, put};
use certs::{AgentId, Fingerprint};
use tokio::net::TcpListener;
use tokio::sync::watch as signal;

pub(crate) use self::agents::{AgentList, AgentState, AgentView};
pub use self::auth::AdminToken;
pub(crate) use self::auth::read as read_admin_token;
pub(crate) use self::body::{Pace, read_at as read_body};
pub(crate) use self::documents::PutAnswer;
pub(crate) use self::enrol::{EnrolmentAnswer, EnrolmentRequest};
pub use self::error::ApiError;
pub(crate) use self::error::ErrorBody;
pub(crate) use self::health::{ServerAnswer, VersionAnswer};
pub(crate) use self::pins::{NewPin, PinImport, PinList, PinsAdded};
pub(crate) use self::push::PushAnswer;
pub(crate) use self::results::{ResultList, WaitList, WaitView};
use crate::config::Config;
use crate::heat::poll::PollHandle;
use crate::hub::HubHandle;
use crate::metrics::Metrics;
use crate::store::writer::Writer;
use crate::store::{Outcome, Store, StoreError, Write};
use crate::zaqar::settle::SettleHandle;

/// What the handlers work with.
#[derive(Clone)]
pub struct State {
    inner: Arc<Inner>,
}

/// What [`State`] is made of.
pub struct Inner {
    /// The configuration in force.
    pub config: Config,
    /// For reading.
    pub store: Store,
    /// For writing.
    pub writer: Writer,
    /// Who is connected.
    pub hub: HubHandle,
    /// What `/metrics` shows.
    pub metrics: Arc<Metrics>,
    /// What callers must know.
    pub token: AdminToken,
    /// The server's own fingerprint.
    pub fingerprint: Fingerprint,
    /// Where agents connect, as bound.
    pub udp_address: SocketAddr,
    /// When the server started, in milliseconds since 1970.
    pub started_unix_ms: u64,
    /// Whom to tell of queues whose order is doubtful.
    pub settle: SettleHandle,
    /// Whom to tell of agents for which Heat is polled.
    pub poll: PollHandle,
    /// Cleared when a stop begins.
    pub ready: AtomicBool,
}

impl State {
    /// Wraps the parts.
    pub fn new(inner: Inner) -> Self {
        Self { inner: Arc::new(inner) }
    }

    /// Makes `/readyz` say no.
    pub fn not_ready(&self) {
        self.inner.ready.store(false, Ordering::Release);
    }

    /// Reads the store off the event loop.
    async fn read<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let store = self.inner.store.clone();
        match tokio::task::spawn_blocking(move || job(&store)).await {
            Ok(read) => Ok(read?),
            Err(_) => Err(StoreError::Closed.into()),
        }
    }

    /// Writes, and returns when it is durable.
    async fn write(&self, write: Write) -> Result<Outcome, ApiError> {
        let outcome = self.inner.writer.write(write).await;
        if outcome.is_err() {
            self.inner.metrics.count_store_failure();
        }
        Ok(outcome?)
    }
}

/// All routes.
pub fn router(state: State, stopping: signal::Receiver<bool>) -> Router {
    let protected = Router::new()
        .route("/v1/agents", get(agents::list))
        .route("/v1/agents/{id}", get(agents::show))
        .route("/v1/agents/{id}/metadata", put(documents::put).get(documents::get))
        .route("/v1/agents/{id}/results", get(results::of_agent))
        .route("/v1/agents/{id}/wait-signals", get(results::waits))
        .route(
            "/v1/agents/{id}/logs",
            get({
                let stopping = stopping.clone();
                move |state, agent, query| logs::logs(state, agent, query, stopping)
            }),
        )
        .route("/v1/agents/{id}/enrolment", post(enrol::enrol))
        .route("/v1/agents/{id}/pins/{fingerprint}", put(pins::add).delete(pins::remove))
        .route("/v1/pins", get(pins::list).post(pins::import))
        .route("/v1/push", post(push::push))
        .route("/v1/results", get(results::all))
        .route("/v1/server", get(health::server))
        .route("/v1/watch", get(move |state, query| watch::watch(state, query, stopping)))
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(state.clone(), auth::require));
    let open = Router::new()
        .route("/v1/version", get(health::version))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .method_not_allowed_fallback(method_not_allowed);
    protected.merge(open).fallback(not_found).with_state(state)
}

/// Serves until `stopping` turns true, then lets requests finish, for `drain_timeout` at most.
///
/// # Errors
/// The listener failed.
pub async fn serve(
    listener: TcpListener,
    state: State,
    mut stopping: signal::Receiver<bool>,
    drain_timeout: Duration,
) -> std::io::Result<()> {
    let mut stop = stopping.clone();
    let stopped = async move {
        // An error means that nobody can ask for a stop any more, which is as good as being asked.
        drop(stop.wait_for(|stop| *stop).await);
    };
    let app = router(state, stopping.clone());
    let serving = axum::serve(listener, app).with_graceful_shutdown(stopped).into_future();
    tokio::select! {
        served = serving => served,
        () = async {
            drop(stopping.wait_for(|stop| *stop).await);
            tokio::time::sleep(drain_timeout).await;
        } => Ok(()),
    }
}

async fn not_found(uri: axum::http::Uri) -> ApiError {
    ApiError::not_found("no_such_path", format!("there is nothing at {}", uri.path()))
        .with_hint("the paths are in the documentation of the admin API; all begin with /v1/")
}

async fn method_not_allowed(method: Method, uri: axum::http::Uri) -> ApiError {
    ApiError::new(
        axum::http::StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        format!("{method} is not possible at {}", uri.path()),
    )
}

/// The agent id of a path.
fn agent_id(id: &str) -> Result<AgentId, ApiError> {
    id.parse().map_err(|e: certs::agent_id::AgentIdError| {
        ApiError::bad_request("bad_agent_id", e.to_string())
    })
}

/// The id in the path, checked.
struct Agent(AgentId);

impl<S: Send + Sync> axum::extract::FromRequestParts<S> for Agent {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut axum::http::request::Parts,
        state: &S,
    ) -> Result<Self, ApiError> {
        let Path(id) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|e| ApiError::bad_request("bad_path", e.to_string()))?;
        agent_id(&id).map(Self)
    }
}
