//! From a hook's response to the result that the server gets.

use metadata_delivery::message::{
    DeploymentResult, FIELD_BYTES_MAX, RESULT_BYTES_MAX, ResultStatus,
};
use serde_json::{Map, Value};

use crate::document::Output;
use crate::hooks::Response;
use crate::hooks::capture::shorten;
use crate::journal::Received;

/// A text is not shortened below this; if that is not enough the outputs are what is too large.
const SHORTENED_BYTES_MIN: usize = 4 << 10;

/// When something began and ended, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// The start.
    pub started_unix_ms: u64,
    /// The end.
    pub finished_unix_ms: u64,
}

/// The result of a config. FAILED when the status code is not 0, when the agent has a reason, or when an
/// output declared as `error_output` is there; undeclared outputs are left out. Never larger than
/// [`RESULT_BYTES_MAX`].
pub fn result(
    config: &Received,
    declared: &[Output],
    response: Response,
    times: Times,
) -> DeploymentResult {
    let Response { stdout, stderr, status_code, outputs, reason } = response;
    let mut kept = Map::new();
    let mut failed = status_code != 0 || reason.is_some();
    // Heat looks at the code: with 0 it would show what the agent calls failed as complete.
    let status_code = if status_code == 0 && reason.is_some() { 1 } else { status_code };
    for output in declared {
        if let Some(value) = outputs.get(&output.name) {
            failed |= output.error_output;
            kept.insert(output.name.clone(), value.clone());
        }
    }
    let mut result = DeploymentResult {
        config_id: config.id.to_string(),
        name: field(&config.name),
        group: field(&config.group),
        action: field(&config.action),
        document_version: config.document_version,
        status: if failed { ResultStatus::Failed } else { ResultStatus::Complete },
        deploy_stdout: stdout,
        deploy_stderr: stderr,
        deploy_status_code: status_code,
        outputs: kept,
        reason: reason.map(|reason| shorten(&reason, SHORTENED_BYTES_MIN)),
        started_unix_ms: times.started_unix_ms,
        finished_unix_ms: times.finished_unix_ms,
        rerun: config.rerun.clone(),
    };
    fit(&mut result);
    result
}

/// `text` within what a field of a message may have.
pub fn field(text: &str) -> String {
    shorten(text, FIELD_BYTES_MAX)
}

fn fit(result: &mut DeploymentResult) {
    loop {
        let bytes = serde_json::to_vec(result).map_or(0, |json| json.len());
        if bytes <= RESULT_BYTES_MAX {
            return;
        }
        let texts = result.outputs.values_mut().filter_map(|value| match value {
            Value::String(text) => Some(text),
            _ => None,
        });
        let texts = texts.chain([&mut result.deploy_stdout, &mut result.deploy_stderr]);
        match texts.max_by_key(|text| text.len()) {
            Some(text) if text.len() > SHORTENED_BYTES_MIN => *text = shorten(text, text.len() / 2),
            _ => {
                let reason = format!(
                    "the result has {bytes} bytes because of its outputs, the limit is {RESULT_BYTES_MAX}; the outputs are left out"
                );
                result.outputs.clear();
                result.status = ResultStatus::Failed;
                result.reason = Some(reason);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use metadata_delivery::message::Message;
    use serde_json::json;

    use super::*;
    use crate::document::ConfigId;
    use crate::hooks::NotRun;

    fn received() -> Received {
        Received {
            id: ConfigId::new("a").unwrap(),
            name: "n".into(),
            group: "script".into(),
            action: "CREATE".into(),
            document_version: 3,
            at_unix_ms: 1,
            rerun: None,
            way: None,
        }
    }

    fn response(status_code: i64, outputs: Value) -> Response {
        let Value::Object(outputs) = outputs else { panic!() };
        Response { stdout: "o".into(), stderr: "e".into(), status_code, outputs, reason: None }
    }

    fn declared(error_output: bool) -> [Output; 1] {
        [Output { name: "r".into(), error_output }]
    }

    const TIMES: Times = Times { started_unix_ms: 2, finished_unix_ms: 3 };

    #[test]
    fn the_verdict_is_heats() {
        let verdict = |code, outputs, error| {
            result(&received(), &declared(error), response(code, outputs), TIMES).status
        };
        assert_eq!(verdict(0, json!({}), false), ResultStatus::Complete);
        assert_eq!(verdict(1, json!({}), false), ResultStatus::Failed);
        assert_eq!(verdict(0, json!({"r": "x"}), false), ResultStatus::Complete);
        assert_eq!(verdict(0, json!({"r": ""}), true), ResultStatus::Failed, "present is enough");
        assert_eq!(verdict(0, json!({}), true), ResultStatus::Complete);
    }

    #[test]
    fn only_declared_outputs_are_reported() {
        let outputs = json!({"r": {"deep": [1]}, "other": 1});
        let result = result(&received(), &declared(false), response(0, outputs), TIMES);
        assert_eq!(Value::Object(result.outputs), json!({"r": {"deep": [1]}}));
    }

    #[test]
    fn a_reason_of_the_agent_is_a_failure() {
        let result = result(&received(), &[], NotRun::because("no such hook: \"x\"").into(), TIMES);
        assert_eq!(result.status, ResultStatus::Failed);
        assert_eq!(result.reason.as_deref(), Some("no such hook: \"x\""));
    }

    #[test]
    fn what_the_agent_calls_failed_never_has_heats_code_of_success() {
        let mut ended = response(0, json!({}));
        ended.reason = Some("timed out after 5 s".into());
        let result = result(&received(), &[], ended, TIMES);
        assert_eq!((result.status, result.deploy_status_code), (ResultStatus::Failed, 1));
    }

    #[test]
    fn any_result_fits_a_message() {
        let control = "\u{1}".repeat(400_000);
        let mut texts = response(0, json!({"r": control.clone()}));
        (texts.stdout, texts.stderr) = (control.clone(), control);
        let mut config = received();
        config.name = "é".repeat(2000);
        let shortened = result(&config, &declared(false), texts, TIMES);
        assert!(shortened.to_document(1).is_ok());
        assert!(shortened.deploy_stdout.contains("bytes left out"));
        assert_eq!(shortened.status, ResultStatus::Complete);

        let structure = json!({"r": vec![0; 600_000]});
        let failed = result(&received(), &declared(false), response(0, structure), TIMES);
        assert!(failed.to_document(1).is_ok());
        assert_eq!(failed.status, ResultStatus::Failed);
        assert!(failed.reason.unwrap().contains("because of its outputs"));
    }
}
