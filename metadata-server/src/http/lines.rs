//! Answers without end, made of lines of JSON.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::body::Frame;

/// Where lines come from.
pub(super) trait LineSource: Send + Sized + 'static {
    /// The next line, or `None` at the end.
    fn next(self) -> impl Future<Output = Option<(Bytes, Self)>> + Send;
}

/// An answer that begins with this line.
pub(super) fn response(first: Bytes, source: impl LineSource) -> Response {
    let next = Box::pin(std::future::ready(Some((first, source))));
    let headers =
        [(header::CONTENT_TYPE, "application/jsonl"), (header::CACHE_CONTROL, "no-store")];
    (headers, Body::new(Lines { next })).into_response()
}

/// A value as a line.
pub(super) fn line(value: &impl serde::Serialize) -> Bytes {
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    Bytes::from(line)
}

type Next<S> = dyn Future<Output = Option<(Bytes, S)>> + Send;

/// A body without end, made of lines. It has no task: it is dropped with its connection.
struct Lines<S> {
    next: Pin<Box<Next<S>>>,
}

impl<S: LineSource> hyper::body::Body for Lines<S> {
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
