//! What a hook prints while it runs, for somebody who watches: on request, and never in the way of anything else.
//!
//! The server says what it wants and what it has ([`LogRequest`]); the agent answers with what was printed since
//! ([`Log`]), in the background, one document at a time. Positions count bytes as the hook printed them, standard
//! output and standard error together, so they are the same for both ends whatever is hidden in the text.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Message, MessageError, bad, field, known_name};
use crate::Name;

/// Name of [`LogRequest`].
pub const LOG_REQUEST: &str = "log-request";
/// Name of [`Log`].
pub const LOG: &str = "log";

/// Longest [`LogRequest`] as JSON, in bytes.
pub const LOG_REQUEST_BYTES_MAX: usize = 16 << 10;
/// Longest [`Log`] as JSON, in bytes.
pub const LOG_BYTES_MAX: usize = 64 << 10;
/// Most runs in one [`Log`], and in one [`LogRequest`].
pub const LOG_RUNS_MAX: usize = 64;

/// Whether the server wants to see what hooks print. The newest request of an association counts; none is as one
/// that wants nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRequest {
    /// Which request this is, ascending; each [`Log`] names the one that it answers.
    pub request: u64,
    /// Somebody watches.
    pub wanted: bool,
    /// What the server has, of runs that may go on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub has: Vec<LogPosition>,
}

/// How much of a run's output the server has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPosition {
    /// Id of the config.
    pub config_id: String,
    /// Which of its runs, from 1.
    pub run: u64,
    /// The position after the last byte.
    pub to: u64,
}

/// What hooks have printed since the last one of these that answers the same request. One without runs says that
/// nothing runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// The request that it answers.
    pub request: u64,
    /// Whatever runs, and what has ended since.
    pub runs: Vec<LogPiece>,
}

/// A piece of what one run has printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPiece {
    /// Id of the config.
    pub config_id: String,
    /// Name of the config.
    pub name: String,
    /// Which of its runs, from 1.
    pub run: u64,
    /// When it was started, in milliseconds since 1970.
    pub started_unix_ms: u64,
    /// Position of the first byte. Above what the server has: what lies between is left out.
    pub from: u64,
    /// Position after the last byte.
    pub to: u64,
    /// The bytes in between as text, with secrets hidden.
    pub text: String,
    /// The run has ended: nothing follows but its result, which is what counts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ended: bool,
}

/// Output of a hook may hold secrets: only its size is shown.
impl fmt::Debug for LogPiece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogPiece")
            .field("config_id", &self.config_id)
            .field("name", &self.name)
            .field("run", &self.run)
            .field("started_unix_ms", &self.started_unix_ms)
            .field("from", &self.from)
            .field("to", &self.to)
            .field("text_bytes", &self.text.len())
            .field("ended", &self.ended)
            .finish()
    }
}

impl Message for LogRequest {
    const KIND: &'static str = "log request";
    const BYTES_MAX: usize = LOG_REQUEST_BYTES_MAX;

    fn name(&self) -> Name {
        known_name(LOG_REQUEST)
    }

    fn validate(&self) -> Result<(), MessageError> {
        bounded::<Self>("has", self.has.len())?;
        self.has.iter().try_for_each(|has| field::<Self>("has[].config_id", &has.config_id, 0))
    }
}

impl Message for Log {
    const KIND: &'static str = "log";
    const BYTES_MAX: usize = LOG_BYTES_MAX;

    fn name(&self) -> Name {
        known_name(LOG)
    }

    fn validate(&self) -> Result<(), MessageError> {
        bounded::<Self>("runs", self.runs.len())?;
        for piece in &self.runs {
            field::<Self>("runs[].config_id", &piece.config_id, 0)?;
            field::<Self>("runs[].name", &piece.name, 0)?;
            if piece.to < piece.from {
                let what = format!("is {}, before its from, {}", piece.to, piece.from);
                return Err(bad::<Self>("runs[].to", what));
            }
        }
        Ok(())
    }
}

fn bounded<M: Message>(field: &'static str, count: usize) -> Result<(), MessageError> {
    if count > LOG_RUNS_MAX {
        let what = format!("has {count} entries, at most {LOG_RUNS_MAX} are allowed");
        return Err(bad::<M>(field, what));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece() -> LogPiece {
        LogPiece {
            config_id: "51d3".into(),
            name: "deploy".into(),
            run: 1,
            started_unix_ms: 2,
            from: 100,
            to: 106,
            text: "hello\n".into(),
            ended: false,
        }
    }

    #[test]
    fn requests_and_logs_are_the_json_of_the_protocol_document() {
        let has = vec![LogPosition { config_id: "51d3".into(), run: 1, to: 100 }];
        let request = LogRequest { request: 7, wanted: true, has };
        let document = request.to_document(7).unwrap();
        assert_eq!(document.name.as_str(), "log-request");
        assert_eq!(
            document.body,
            r#"{"request":7,"wanted":true,"has":[{"config_id":"51d3","run":1,"to":100}]}"#
        );
        assert_eq!(LogRequest::from_body(&document.body).unwrap(), request);
        let stop = LogRequest::from_body(br#"{"request":8,"wanted":false,"more":1}"#).unwrap();
        assert!(!stop.wanted && stop.has.is_empty());

        let log = Log { request: 7, runs: vec![piece(), LogPiece { ended: true, ..piece() }] };
        let document = log.to_document(3).unwrap();
        assert_eq!((document.name.as_str(), document.version), ("log", 3));
        let text = std::str::from_utf8(&document.body).unwrap();
        assert!(text.starts_with(
            r#"{"request":7,"runs":[{"config_id":"51d3","name":"deploy","run":1,"started_unix_ms":2,"from":100,"to":106,"text":"hello\n"},"#
        ));
        assert!(text.ends_with(r#""ended":true}]}"#));
        assert_eq!(Log::from_body(&document.body).unwrap(), log);
    }

    #[test]
    fn what_goes_beyond_the_bounds_is_no_log() {
        let backwards = Log { request: 1, runs: vec![LogPiece { from: 107, ..piece() }] };
        assert!(matches!(backwards.validate(), Err(MessageError::Field { .. })));
        let many = Log { request: 1, runs: vec![piece(); LOG_RUNS_MAX + 1] };
        assert!(matches!(many.validate(), Err(MessageError::Field { .. })));
        let long = LogPiece { text: "x".repeat(LOG_BYTES_MAX), ..piece() };
        let long = Log { request: 1, runs: vec![long] };
        assert!(matches!(long.to_document(1), Err(MessageError::TooLong { .. })));
        let position = LogPosition { config_id: "x".repeat(1025), run: 1, to: 1 };
        let request = LogRequest { request: 1, wanted: true, has: vec![position] };
        assert!(matches!(request.validate(), Err(MessageError::Field { .. })));
    }

    #[test]
    fn the_debug_form_of_a_piece_shows_no_output() {
        let text = format!("{:?}", LogPiece { text: "hunter2".into(), ..piece() });
        assert!(!text.contains("hunter2") && text.contains("text_bytes: 7"), "{text}");
    }
}
