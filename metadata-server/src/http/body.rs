//! Reading a request's body up to a limit, and as slowly as it may come.

use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;

use super::ApiError;
use crate::clock;
use crate::document::DocumentError;

/// How many times the limit is read and thrown away so that the caller, who may not look at the
/// answer before everything is sent, gets the answer.
const DISCARD_FACTOR: u64 = 4;

/// How slowly a body may come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Time for the first byte, and for pauses.
    pub(crate) grace: Duration,
    /// Of all that has come, on average after that.
    pub(crate) bytes_per_s_min: u32,
}

impl Pace {
    /// By when there has to be more than so many bytes.
    fn time_max(&self, bytes: u64) -> Duration {
        self.grace + Duration::from_secs_f64(bytes as f64 / f64::from(self.bytes_per_s_min))
    }
}

/// Reads a body of at most `bytes_max`.
///
/// # Errors
/// 413 with the size, as far as it is known, or 400 if the caller stopped in between.
pub(crate) async fn read(body: Body, bytes_max: usize) -> Result<Bytes, ApiError> {
    read_at(body, bytes_max, None).await
}

/// Reads a body of at most `bytes_max` that comes at this pace or quicker.
///
/// # Errors
/// As [`read`], and 408 where it comes too slowly.
pub(crate) async fn read_at(
    mut body: Body,
    bytes_max: usize,
    pace: Option<Pace>,
) -> Result<Bytes, ApiError> {
    let began = clock::now();
    let announced = axum::body::HttpBody::size_hint(&body).exact();
    let discard_max = bytes_max as u64 * DISCARD_FACTOR;
    let too_large = |bytes| ApiError::from(DocumentError::TooLarge { bytes, bytes_max });
    if let Some(bytes) = announced.filter(|bytes| *bytes > discard_max) {
        return Err(too_large(bytes));
    }
    let mut read =
        BytesMut::with_capacity(announced.map_or(0, |bytes| bytes.min(bytes_max as u64) as usize));
    let mut total: u64 = 0;
    loop {
        let frame = match pace {
            None => body.frame().await,
            Some(pace) => {
                let by = began + pace.time_max(total);
                let came = tokio::time::timeout_at(by.into(), body.frame()).await;
                came.map_err(|_| too_slow(total, began.elapsed()))?
            }
        };
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|e| {
            ApiError::new(
                StatusCode::BAD_REQUEST,
                "body_incomplete",
                format!("the body ended after {total} bytes: {e}"),
            )
        })?;
        let Ok(data) = frame.into_data() else { continue };
        total += data.len() as u64;
        if total > discard_max {
            return Err(too_large(total));
        }
        if total <= bytes_max as u64 {
            read.extend_from_slice(&data);
        }
    }
    if total > bytes_max as u64 { Err(too_large(total)) } else { Ok(read.freeze()) }
}

fn too_slow(bytes: u64, time: Duration) -> ApiError {
    let what =
        format!("of the body {bytes} bytes came in {:.1} s, which is too slow", time.as_secs_f64());
    ApiError::new(StatusCode::REQUEST_TIMEOUT, "body_too_slow", what)
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use hyper::body::Frame;

    use super::*;

    /// Some bytes, and then nothing for ever.
    struct Stalls(Option<&'static [u8]>);

    impl hyper::body::Body for Stalls {
        type Data = Bytes;
        type Error = std::io::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
            match self.0.take() {
                Some(bytes) => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(bytes))))),
                None => Poll::Pending,
            }
        }
    }

    #[tokio::test]
    async fn a_body_that_stalls_is_given_up() {
        let pace = Pace { grace: Duration::from_millis(20), bytes_per_s_min: 1_000 };
        let body = Body::new(Stalls(Some(b"12345")));
        let error = read_at(body, 100, Some(pace)).await.unwrap_err();
        assert_eq!(error.status(), StatusCode::REQUEST_TIMEOUT);
        assert!(error.message().contains("5 bytes"), "{}", error.message());
        let whole = read_at(Body::from("12345"), 100, Some(pace)).await;
        assert_eq!(whole.unwrap(), "12345");
    }

    #[test]
    fn the_time_for_a_body_grows_with_what_has_come_of_it() {
        let pace = Pace { grace: Duration::from_secs(3), bytes_per_s_min: 512 * 1024 };
        assert_eq!(pace.time_max(0), Duration::from_secs(3));
        assert_eq!(pace.time_max(16 * 1024 * 1024), Duration::from_secs(35));
    }
}
