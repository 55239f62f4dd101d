//! What happens, line by line, for as long as the caller listens.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::response::Response;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch as signal};

use super::ApiError;
use super::lines::{LineSource, line, response};
use crate::clock;
use crate::notice::Stamped;

/// What is wanted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WatchQuery {
    agent: Option<String>,
}

pub(super) async fn watch(
    State(state): State<super::State>,
    query: Result<Query<WatchQuery>, axum::extract::rejection::QueryRejection>,
    stopping: signal::Receiver<bool>,
) -> Result<Response, ApiError> {
    let agent = query?.0.agent;
    if let Some(agent) = &agent {
        super::agent_id(agent)?;
    }
    // Subscribed before the first line is sent: whoever has read it misses nothing.
    let source = Source { notices: state.inner.hub.watch(), stopping, agent };
    Ok(response(line(&json!({"unix_ms": clock::unix_ms(), "event": "watching"})), source))
}

struct Source {
    notices: broadcast::Receiver<Arc<Stamped>>,
    stopping: signal::Receiver<bool>,
    agent: Option<String>,
}

impl LineSource for Source {
    /// The next line, or `None` when the server stops.
    async fn next(mut self) -> Option<(Bytes, Self)> {
        loop {
            let received = tokio::select! {
                received = self.notices.recv() => received,
                _ = self.stopping.wait_for(|stop| *stop) => return None,
            };
            match received {
                Ok(stamped) if self.wants(&stamped) => return Some((line(&*stamped), self)),
                Ok(_) => {}
                Err(RecvError::Lagged(missed)) => {
                    let lagged =
                        json!({"unix_ms": clock::unix_ms(), "event": "lagged", "missed": missed});
                    return Some((line(&lagged), self));
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

impl Source {
    fn wants(&self, stamped: &Stamped) -> bool {
        self.agent.as_deref().is_none_or(|agent| stamped.notice.agent_id() == Some(agent))
    }
}
