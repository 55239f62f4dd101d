//! Errors in Zaqar's form.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::document::DocumentError;
use crate::http::ApiError;
use crate::store::StoreError;
use crate::store::queues::{QueueNameError, QueueOutcome};

/// An error answer. Heat writes title and description into the reason of the failed stack, where its owner
/// reads them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZaqarError {
    status: StatusCode,
    title: &'static str,
    description: String,
    /// After so many seconds the same request may do better.
    retry_after_s: Option<u64>,
}

/// When to come back while the server is busy or starts again, in seconds.
const RETRY_AFTER_S: u64 = 1;

impl ZaqarError {
    /// An error.
    pub fn new(status: StatusCode, title: &'static str, description: impl Into<String>) -> Self {
        Self { status, title, description: description.into(), retry_after_s: None }
    }

    /// The status.
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// Title and description, for people.
    pub(super) fn text(&self) -> String {
        format!("{}: {}", self.title, self.description)
    }

    /// 400.
    pub(super) fn bad_request(description: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "Invalid API request", description)
    }

    /// The error for an outcome that says that nothing was done.
    pub(super) fn refusal(outcome: &QueueOutcome) -> Option<Self> {
        match outcome {
            QueueOutcome::NotYours => Some(Self::new(
                StatusCode::FORBIDDEN,
                "Not your queue",
                "another user of this project has used the queue first, and only that user may",
            )),
            QueueOutcome::Full { what, max } => Some(Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "Queue limit reached",
                format!("metadata-server keeps at most {max} {what}; the messages were not stored"),
            )),
            _ => None,
        }
    }
}

impl IntoResponse for ZaqarError {
    fn into_response(self) -> Response {
        let body = json!({"title": self.title, "description": self.description});
        let mut response = (self.status, Json(body)).into_response();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<StoreError> for ZaqarError {
    fn from(error: StoreError) -> Self {
        // Its words may hold paths, which are the operator's business: they are in the log.
        let description = format!("metadata-server could not store it ({})", error.code());
        let title = "Service temporarily unavailable";
        let is_short = matches!(error, StoreError::Busy { .. } | StoreError::Closed);
        Self {
            retry_after_s: is_short.then_some(RETRY_AFTER_S),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, title, description)
        }
    }
}

impl From<DocumentError> for ZaqarError {
    fn from(error: DocumentError) -> Self {
        let status = match error {
            DocumentError::TooLarge { .. } | DocumentError::TooManyValues => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            _ => StatusCode::BAD_REQUEST,
        };
        Self::new(status, "Metadata not accepted", error.to_string())
    }
}

impl From<ApiError> for ZaqarError {
    fn from(error: ApiError) -> Self {
        Self::new(error.status(), "Invalid API request", error.message())
    }
}

impl From<QueueNameError> for ZaqarError {
    fn from(error: QueueNameError) -> Self {
        Self::bad_request(error.to_string())
    }
}
