//! What happens, line by line, for as long as the caller listens.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::body::Frame;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch as signal};

use super::ApiError;
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
    let first = line(&json!({"unix_ms": clock::unix_ms(), "event": "watching"}));
    let next = Box::pin(std::future::ready(Some((first, source))));
    let body = Body::new(Lines { next });
    let headers =
        [(header::CONTENT_TYPE, "application/jsonl"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, body).into_response())
}

struct Source {
    notices: broadcast::Receiver<Arc<Stamped>>,
    stopping: signal::Receiver<bool>,
    agent: Option<String>,
}

impl Source {
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

    fn wants(&self, stamped: &Stamped) -> bool {
        self.agent.as_deref().is_none_or(|agent| stamped.notice.agent_id() == Some(agent))
    }
}

fn line(value: &impl serde::Serialize) -> Bytes {
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    Bytes::from(line)
}

type Next = dyn Future<Output = Option<(Bytes, Source)>> + Send;

/// A body without end, made of lines. It has no task: it is dropped with its connection.
struct Lines {
    next: Pin<Box<Next>>,
}

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.next.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => {
                // Polled again, it has still ended.
                self.next = Box::pin(std::future::ready(None));
                Poll::Ready(None)
            }
            Poll::Ready(Some((line, source))) => {
                self.next = Box::pin(source.next());
                Poll::Ready(Some(Ok(Frame::data(line))))
            }
        }
    }
}
