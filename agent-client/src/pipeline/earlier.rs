//! Entries that `heat-config` has worked on: before there was an agent on this machine, or by hand while the
//! agent did not run. They are not run a second time, unless somebody asks for it by name (`rerun`).

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::{Pipeline, PipelineError, unix_ms};
use crate::compat::heat_config::deployed::{Earlier, earlier};
use crate::document::{Document, Entry, Work};
use crate::hooks::{NotRun, Response};
use crate::outcome::Times;

/// How long to wait until it is looked again whether heat-config is done with an entry.
const LOOK_AGAIN_MS: u64 = 1_000;

/// What is to be done about an entry.
pub(super) enum Taken {
    /// It is to be run.
    Nothing,
    /// It has its result.
    Ended,
    /// It runs, and its result is waited for.
    AtIt,
}

impl Pipeline {
    /// Takes over what heat-config has done about an entry.
    pub(super) fn of_heat_config(
        &mut self,
        document: &Document,
        entry: &Entry,
    ) -> Result<Taken, PipelineError> {
        let (Work::Run(config), Some(directory)) = (&entry.work, &self.setup.deployed) else {
            return Ok(Taken::Nothing);
        };
        let now = unix_ms();
        let asked = self.asked(document, entry, now);
        if asked.rerun.is_some() {
            return Ok(Taken::Nothing);
        }
        let result = match earlier(directory, &entry.id) {
            Earlier::Nothing => return Ok(Taken::Nothing),
            Earlier::AtIt(pid) => {
                tracing::debug!(id = %entry.id, pid, "heat-config runs it: waiting");
                self.look_again_at = Some(Instant::now() + Duration::from_millis(LOOK_AGAIN_MS));
                return Ok(Taken::AtIt);
            }
            Earlier::Done(result) => result,
        };
        tracing::info!(id = %entry.id, name = entry.name, "heat-config has run it: not run again");
        let response = match result {
            Some(Value::Object(result)) => response(result),
            _ => NotRun::because(
                "heat-config has taken it up before, and left no result; it is not run again",
            )
            .into(),
        };
        let times = Times { started_unix_ms: now, finished_unix_ms: now };
        self.end(&asked, &config.outputs, response, times, None)?;
        Ok(Taken::Ended)
    }
}

/// From what heat-config has signalled.
fn response(mut result: serde_json::Map<String, Value>) -> Response {
    let mut text = |key: &str| match result.remove(key) {
        Some(Value::String(text)) => text,
        None | Some(Value::Null) => String::new(),
        Some(other) => other.to_string(),
    };
    let (stdout, stderr) = (text("deploy_stdout"), text("deploy_stderr"));
    // Heat takes none, and an empty one, as success.
    let status = text("deploy_status_code");
    let status_code = if status.is_empty() { 0 } else { status.parse().unwrap_or(1) };
    Response { stdout, stderr, status_code, outputs: result, reason: None }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_signal_is_read_as_heat_reads_it() {
        let read = |value: Value| match value {
            Value::Object(result) => response(result),
            _ => unreachable!(),
        };
        for (code, expected) in [
            (json!(0), 0),
            (json!("0"), 0),
            (json!(3), 3),
            (json!(null), 0),
            (json!(""), 0),
            (json!("x"), 1),
        ] {
            let response = read(json!({"deploy_status_code": code, "deploy_stdout": "o", "r": 1}));
            assert_eq!(response.status_code, expected, "{code}");
            assert_eq!((response.stdout.as_str(), response.stderr.as_str()), ("o", ""));
            assert_eq!(response.outputs["r"], 1);
        }
        assert_eq!(read(json!({})).status_code, 0);
    }
}
