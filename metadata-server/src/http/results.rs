//! Results, in pages.

use axum::Json;
use axum::extract::{Query, State};
use certs::AgentId;
use serde::{Deserialize, Serialize};

use super::{Agent, ApiError};
use crate::store::signals::{SavedWait, Signal};
use crate::store::{ResultsQuery, SavedResult};

/// Results in a page unless asked otherwise.
const PAGE_RESULTS_DEFAULT: usize = 100;
/// Results in a page at most.
const PAGE_RESULTS_MAX: usize = 1000;

/// Which page.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PageQuery {
    after: Option<u64>,
    limit: Option<usize>,
}

/// A page of results.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ResultList {
    /// In the order of storing.
    pub(crate) results: Vec<SavedResult>,
    /// The `after` of the next page; null at the end.
    pub(crate) next_after: Option<u64>,
}

pub(super) async fn all(
    State(state): State<super::State>,
    query: Result<Query<PageQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<ResultList>, ApiError> {
    page(state, None, query?.0).await
}

pub(super) async fn of_agent(
    State(state): State<super::State>,
    Agent(agent): Agent,
    query: Result<Query<PageQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<ResultList>, ApiError> {
    page(state, Some(agent), query?.0).await
}

/// The wait conditions' signals of an agent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WaitList {
    /// In the order of storing.
    pub(crate) signals: Vec<WaitView>,
}

/// The signal of a wait condition.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WaitView {
    /// Its number, from the same sequence as those of results.
    pub(crate) number: u64,
    /// Who handed it over.
    pub(crate) agent_id: AgentId,
    /// When it was stored, in milliseconds since 1970.
    pub(crate) stored_unix_ms: u64,
    /// Where it goes, without query: that is a secret.
    pub(crate) url: String,
    /// Where it stands.
    pub(crate) signal: Signal,
}

pub(super) async fn waits(
    State(state): State<super::State>,
    Agent(agent): Agent,
) -> Result<Json<WaitList>, ApiError> {
    let waits = state.read(move |store| store.wait_signals(&agent)).await?;
    let view = |(saved, signal): (SavedWait, Signal)| WaitView {
        number: saved.number,
        agent_id: saved.agent_id,
        stored_unix_ms: saved.stored_unix_ms,
        url: openstack_client::http::without_secrets(&saved.wait.url),
        signal,
    };
    Ok(Json(WaitList { signals: waits.into_iter().map(view).collect() }))
}

async fn page(
    state: super::State,
    agent: Option<AgentId>,
    query: PageQuery,
) -> Result<Json<ResultList>, ApiError> {
    let limit = query.limit.unwrap_or(PAGE_RESULTS_DEFAULT).clamp(1, PAGE_RESULTS_MAX);
    let query = ResultsQuery { agent, after: query.after.unwrap_or(0), limit };
    let page = state.read(move |store| store.results(&query)).await?;
    Ok(Json(ResultList { results: page.results, next_after: page.next_after }))
}

impl From<axum::extract::rejection::QueryRejection> for ApiError {
    fn from(rejection: axum::extract::rejection::QueryRejection) -> Self {
        Self::bad_request("bad_query", rejection.body_text())
    }
}
