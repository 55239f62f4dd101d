//! `watch`: what happens, as lines.

use certs::AgentId;
use serde_json::Value;

use super::{ClientArgs, output};
use crate::error::{Exit, Failure};

pub(super) async fn watch(
    args: &ClientArgs,
    agent: Option<&AgentId>,
    until: Option<&str>,
) -> Result<(), Failure> {
    let path = match agent {
        Some(agent) => format!("/v1/watch?agent={agent}"),
        None => "/v1/watch".to_owned(),
    };
    let mut is_found = until.is_none();
    let each = |line: &str| {
        let event: Value = serde_json::from_str(line).unwrap_or_default();
        if args.json {
            output::out(&format!("{line}\n"))?;
        } else {
            output::out(&format!("{}\n", describe(&event)))?;
        }
        let is_last = until.is_some() && event["event"].as_str() == until;
        is_found |= is_last;
        Ok(!is_last)
    };
    args.client()?.lines(&path, each).await?;
    if is_found { Ok(()) } else { Err(Failure::new(Exit::Unreachable, "the server stopped")) }
}

/// One line for people. Fields of a newer server that are not known here are left out.
fn describe(event: &Value) -> String {
    let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
    let number = |key: &str| event[key].to_string();
    let agent = text("agent_id");
    let what = match event["event"].as_str().unwrap_or_default() {
        "watching" => "watching; ^C ends".to_owned(),
        "lagged" => format!("missed {} events: this terminal is too slow", number("missed")),
        "document_accepted" => format!(
            "{agent}: document version {} accepted (bytes: {}, deployments: {})",
            number("version"),
            number("bytes"),
            number("deployments")
        ),
        "agent_connected" => {
            let how =
                if event["enrolled"] == true { "enrolled and connected" } else { "connected" };
            format!("{agent}: {how} from {} ({})", text("remote"), text("software"))
        }
        "agent_refused" => {
            format!("refused {}: {}: {}", text("remote"), text("reason"), text("message"))
        }
        "agent_disconnected" => format!("{agent}: disconnected: {}", text("reason")),
        "document_delivered" => format!(
            "{agent}: document version {} delivered after {} ms",
            number("version"),
            number("after_ms")
        ),
        "document_refused" => {
            format!("{agent}: refuses document version {}: {}", number("version"), text("reason"))
        }
        "document_applied" => format!("{agent}: document version {} applied", number("version")),
        "progress" => format!("{agent}: {}", progress(&event["deployments"])),
        "result_stored" => format!(
            "{agent}: result of {} ({}): {}, exit status {}",
            text("name"),
            text("config_id"),
            text("status"),
            number("deploy_status_code")
        ),
        "result_refused" => format!("{agent}: {} refused: {}", text("name"), text("reason")),
        other => format!("{agent}: {other}"),
    };
    let time = output::clock_time(event["unix_ms"].as_u64().unwrap_or_default());
    // What agents say may hold anything, and this goes to a terminal.
    let what: String = what.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("{time} {what}")
}

/// What is not over yet, with the last line it printed; or that all is.
fn progress(deployments: &Value) -> String {
    let all = deployments.as_array().map(Vec::as_slice).unwrap_or_default();
    let parts: Vec<String> = all
        .iter()
        .map(|deployment| {
            let name = deployment["name"].as_str().unwrap_or_default();
            let state = deployment["state"].as_str().unwrap_or_default();
            let last = deployment["output_tail"].as_str().and_then(|tail| tail.lines().last());
            match last.filter(|_| state == "running") {
                Some(last) => format!("{name} {state} ({last})"),
                None => format!("{name} {state}"),
            }
        })
        .collect();
    if parts.is_empty() { "nothing to do".into() } else { parts.join(", ") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_are_told_in_one_line_without_control_characters() {
        let event = json!({"unix_ms": 1000, "event": "progress", "agent_id": "a", "deployments": [
            {"name": "first\u{1b}[2J", "state": "complete"},
            {"name": "second", "state": "running", "output_tail": "line 1\nline 2"},
        ]});
        assert_eq!(describe(&event), "00:00:01 a: first [2J complete, second running (line 2)");
        let event = json!({"unix_ms": 0, "event": "of_the_future", "agent_id": "a"});
        assert_eq!(describe(&event), "00:00:00 a: of_the_future");
    }
}
