//! Reading a request's body up to a limit.

use axum::body::Body;
use axum::http::StatusCode;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;

use super::ApiError;
use crate::document::DocumentError;

/// How many times the limit is read and thrown away so that the caller, who may not look at the
/// answer before everything is sent, gets the answer.
const DISCARD_FACTOR: u64 = 4;

/// Reads a body of at most `bytes_max`.
///
/// # Errors
/// 413 with the size, as far as it is known, or 400 if the caller stopped in between.
pub(crate) async fn read(mut body: Body, bytes_max: usize) -> Result<Bytes, ApiError> {
    let announced = axum::body::HttpBody::size_hint(&body).exact();
    let discard_max = bytes_max as u64 * DISCARD_FACTOR;
    let too_large = |bytes| ApiError::from(DocumentError::TooLarge { bytes, bytes_max });
    if let Some(bytes) = announced.filter(|bytes| *bytes > discard_max) {
        return Err(too_large(bytes));
    }
    let mut read =
        BytesMut::with_capacity(announced.map_or(0, |bytes| bytes.min(bytes_max as u64) as usize));
    let mut total: u64 = 0;
    while let Some(frame) = body.frame().await {
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
