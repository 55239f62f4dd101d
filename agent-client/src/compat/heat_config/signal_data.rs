//! What is signalled to Heat: a JSON object.

use serde_json::{Map, Value, json};

use crate::document::plain_text;
use crate::hooks::capture::{HEAD_BYTES_MAX, RESPONSE_BYTES_MAX, TAIL_BYTES_MAX, shorten};
use crate::hooks::process::Exit;

/// Bytes kept of output that is no response.
const OUTPUT_BYTES_MAX: usize = HEAD_BYTES_MAX + TAIL_BYTES_MAX;
const STDERR: &str = "deploy_stderr";
const STATUS_CODE: &str = "deploy_status_code";
/// The result of a hook that ended by itself. A JSON object on its standard output is the result, and then
/// its exit status does not count; silence and status 0 is success; anything else is output.
pub fn of_exit(exit: &Exit) -> Value {
    if exit.stdout_is_cut {
        // Whether it is a failure cannot be told any more, so it is one.
        return json!({
            "deploy_stdout": shorten(&exit.stdout, OUTPUT_BYTES_MAX),
            STDERR: format!("{}heat-config: the hook's response is longer than {RESPONSE_BYTES_MAX} bytes\n", exit.stderr),
            STATUS_CODE: if exit.code == 0 { 1 } else { exit.code },
        });
    }
    match serde_json::from_str(&exit.stdout) {
        Ok(response @ Value::Object(_)) => response,
        _ if exit.stdout.is_empty() && exit.code == 0 => json!({}),
        _ => {
            let stdout = shorten(&exit.stdout, OUTPUT_BYTES_MAX);
            json!({"deploy_stdout": stdout, STDERR: exit.stderr, STATUS_CODE: exit.code})
        }
    }
}

/// The result of a hook that was ended before its time, which is a failure whatever it says.
pub fn of_timeout(exit: &Exit, why: &str) -> Value {
    let mut result = match of_exit(exit) {
        Value::Object(result) if !exit.stdout.is_empty() || exit.code != 0 => result,
        _ => Map::new(),
    };
    let said = result.get(STDERR).and_then(Value::as_str).unwrap_or_default();
    let line_feed = if said.is_empty() || said.ends_with('\n') { "" } else { "\n" };
    let stderr = format!("{said}{line_feed}heat-config: {why}\n");
    result.insert(STDERR.into(), stderr.into());
    let is_success = match result.get(STATUS_CODE) {
        None | Some(Value::Null) => true,
        Some(code) => matches!(plain_text(code).as_str(), "" | "0"),
    };
    if is_success {
        result.insert(STATUS_CODE.into(), 1.into());
    }
    Value::Object(result)
}

/// The result of an entry that no hook ended.
pub fn of_failure(reason: &str) -> Value {
    json!({"deploy_stdout": "", STDERR: format!("heat-config: {reason}\n"), STATUS_CODE: 1})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(code: i64, stdout: &str, stderr: &str) -> Exit {
        Exit { code, stdout: stdout.into(), stdout_is_cut: false, stderr: stderr.into() }
    }

    #[test]
    fn an_object_is_the_result_as_it_is_and_the_exit_status_does_not_count() {
        let text = r#"{"z": 1, "deploy_status_code": "0", "a": null}"#;
        assert_eq!(
            of_exit(&exit(9, text, "log")).to_string(),
            text.replace(": ", ":").replace(", ", ",")
        );
    }

    #[test]
    fn silence_and_status_0_is_success() {
        assert_eq!(of_exit(&exit(0, "", "log")), json!({}));
    }

    #[test]
    fn anything_else_is_output() {
        for (code, stdout) in [(0, "\n"), (3, ""), (0, "[1]"), (0, "5"), (-9, "{"), (0, "null")] {
            let expected =
                json!({"deploy_stdout": stdout, "deploy_stderr": "e", "deploy_status_code": code});
            assert_eq!(of_exit(&exit(code, stdout, "e")), expected, "{stdout:?}");
        }
    }

    #[test]
    fn output_is_bounded() {
        let long = "x".repeat(3 << 20);
        for (is_cut, code) in [(false, 0), (true, 1)] {
            let data = of_exit(&Exit { stdout_is_cut: is_cut, ..exit(0, &long, "") });
            let kept = data["deploy_stdout"].as_str().unwrap();
            assert!(kept.len() <= OUTPUT_BYTES_MAX && kept.contains("bytes left out"));
            assert_eq!(data["deploy_status_code"], code);
        }
    }

    #[test]
    fn a_timeout_is_a_failure_whatever_the_hook_says() {
        let ended =
            |code, stdout: &str, stderr: &str| of_timeout(&exit(code, stdout, stderr), "why");
        assert_eq!(
            ended(-15, "half", "e"),
            json!({"deploy_stdout": "half", "deploy_stderr": "e\nheat-config: why\n", "deploy_status_code": -15})
        );
        assert_eq!(
            ended(0, "", "log"),
            json!({"deploy_stderr": "heat-config: why\n", "deploy_status_code": 1})
        );
        for (code, sent) in [("0", 1), ("\"0\"", 1), ("null", 1), ("7", 7)] {
            let answer =
                format!(r#"{{"deploy_stdout": "o", "deploy_status_code": {code}, "r": 1}}"#);
            let data = ended(0, &answer, "log");
            assert_eq!((&data["deploy_status_code"], &data["r"]), (&json!(sent), &json!(1)));
        }
    }
}
