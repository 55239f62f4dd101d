//! `logs`: what an agent's hooks print while they run.

use certs::AgentId;
use serde_json::Value;

use super::{ClientArgs, output};
use crate::error::{Exit, Failure};

pub(super) async fn logs(
    args: &ClientArgs,
    agent: &AgentId,
    deployment: Option<&str>,
    follow: bool,
) -> Result<(), Failure> {
    let mut path = format!("/v1/agents/{agent}/logs?follow={follow}");
    if let Some(deployment) = deployment {
        path += &format!("&deployment={}", escaped(deployment));
    }
    let mut shown = Shown { agent, deployment, follow, ..Shown::new(agent) };
    let each = |line: &str| {
        if args.json {
            output::out(&format!("{line}\n"))?;
        }
        let event: Value = serde_json::from_str(line).unwrap_or_default();
        let told = shown.tell(&event)?;
        if !args.json {
            output::out(&told.text)?;
            told.notes.iter().for_each(|note| output::note(note));
        }
        Ok(!shown.is_over)
    };
    args.client()?.lines(&path, each).await?;
    if follow && !shown.is_over {
        return Err(Failure::new(Exit::Unreachable, "the server stopped"));
    }
    shown.verdict()
}

/// What was shown.
struct Shown<'a> {
    agent: &'a AgentId,
    deployment: Option<&'a str>,
    follow: bool,
    /// Whose output was shown last.
    last: Option<(String, u64)>,
    is_line_open: bool,
    standing: String,
    was_anything: bool,
    is_over: bool,
}

/// What one line makes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    /// For standard output.
    text: String,
    /// For standard error, after that.
    notes: Vec<String>,
}

impl<'a> Shown<'a> {
    fn new(agent: &'a AgentId) -> Self {
        Self {
            agent,
            deployment: None,
            follow: false,
            last: None,
            is_line_open: false,
            standing: String::new(),
            was_anything: false,
            is_over: false,
        }
    }

    fn tell(&mut self, event: &Value) -> Result<Told, Failure> {
        let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
        Ok(match event["event"].as_str().unwrap_or_default() {
            "standing" => {
                self.standing = text("standing");
                match self.standing.as_str() {
                    "unable" => return Err(self.unable()),
                    "away" if self.follow => Told {
                        text: String::new(),
                        notes: vec![format!(
                            "agent {} is not connected; what it prints shows here once it is",
                            self.agent
                        )],
                    },
                    _ => Told::default(),
                }
            }
            "log" => self.log(event),
            "result_stored" => {
                self.is_over |= self.follow && self.deployment.is_some();
                let end = std::mem::take(&mut self.is_line_open);
                Told {
                    text: if end { "\n".into() } else { String::new() },
                    notes: vec![format!(
                        "result of {} ({}): {}, exit status {}; all of it: metadata-server results {} --output",
                        text("name"),
                        text("config_id"),
                        text("status"),
                        event["deploy_status_code"],
                        self.agent
                    )],
                }
            }
            _ => Told::default(),
        })
    }

    fn log(&mut self, event: &Value) -> Told {
        let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
        let run = event["run"].as_u64().unwrap_or_default();
        let (key, printed) = ((text("config_id"), run), text("text"));
        self.was_anything = true;
        let mut told = Told::default();
        if self.last.as_ref() != Some(&key) {
            if std::mem::take(&mut self.is_line_open) {
                told.text.push('\n');
            }
            let started = output::time(event["started_unix_ms"].as_u64().unwrap_or_default());
            let again = if run > 1 { format!(", run {run}") } else { String::new() };
            told.text +=
                &format!("==> {} ({}){again}, started {started} UTC <==\n", text("name"), key.0);
            self.last = Some(key);
        }
        if let Some(bytes) = event["left_out"].as_u64().filter(|bytes| *bytes > 0) {
            told.text += &format!("[metadata-server: {bytes} bytes left out]\n");
        }
        if !printed.is_empty() {
            self.is_line_open = !printed.ends_with('\n');
        }
        told.text += &printed;
        if event["ended"] == true {
            if std::mem::take(&mut self.is_line_open) {
                told.text.push('\n');
            }
            told.notes.push(format!("{} has ended; what counts is its result", text("name")));
        }
        told
    }

    fn unable(&self) -> Failure {
        let agent = self.agent;
        Failure::new(
            Exit::Failed,
            format!("agent {agent} is of a release that does not show what its hooks print"),
        )
        .with_hint(format!(
            "\"agent-client logs NAME --follow\" in the instance, or after the run \"metadata-server results {agent} --output\""
        ))
    }

    /// What is said at the end of one that does not follow.
    fn verdict(&self) -> Result<(), Failure> {
        let agent = self.agent;
        let results = format!("metadata-server results {agent} --output");
        match (self.standing.as_str(), self.deployment) {
            _ if self.follow => Ok(()),
            ("away", _) => {
                Err(Failure::new(Exit::Failed, format!("agent {agent} is not connected"))
                    .with_hint(format!("what has ended is in: {results}")))
            }
            ("asked", _) => {
                Err(Failure::new(Exit::Failed, format!("agent {agent} does not answer"))
                    .with_hint(format!("metadata-server agents {agent}")))
            }
            (_, Some(name)) if !self.was_anything => Err(Failure::new(
                Exit::Failed,
                format!("nothing of the name or id {name:?} runs at agent {agent}"),
            )
            .with_hint(format!("what has ended is in: {results}"))),
            _ if !self.was_anything => {
                output::note(&format!("nothing runs at agent {agent}"));
                output::next(&results);
                Ok(())
            }
            _ => {
                output::next(&format!("metadata-server logs {agent} --follow"));
                Ok(())
            }
        }
    }
}

/// A text as part of a query: letters, digits and `-._~` as they are, all else as `%XX`.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn log(id: &str, text: &str, ended: bool) -> Value {
        json!({"event": "log", "config_id": id, "name": format!("name of {id}"), "run": 1,
            "started_unix_ms": 1000, "left_out": 0, "text": text, "ended": ended})
    }

    #[test]
    fn output_is_headed_by_its_deployment_where_that_changes_and_lines_are_ended() {
        let agent: AgentId = "a".parse().unwrap();
        let mut shown = Shown { follow: true, deployment: Some("x"), ..Shown::new(&agent) };
        let mut text = String::new();
        let result = json!({"event": "result_stored", "name": "name of x", "config_id": "x",
            "status": "COMPLETE", "deploy_status_code": 0});
        for event in [
            json!({"event": "watching"}),
            json!({"event": "standing", "standing": "away"}),
            log("x", "one\ntw", false),
            log("x", "o", false),
            log("y", "other\n", false),
            log("x", " three", true),
            json!({"event": "of_the_future"}),
            result,
        ] {
            assert!(!shown.is_over);
            let told = shown.tell(&event).unwrap();
            text += &told.text;
            told.notes.iter().for_each(|note| text += &format!("note: {note}\n"));
        }
        assert!(shown.is_over, "the deployment asked for has its result");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn an_agent_that_cannot_show_it_is_said_with_what_to_try() {
        let agent: AgentId = "a".parse().unwrap();
        let mut shown = Shown::new(&agent);
        let event = json!({"event": "standing", "standing": "unable"});
        let failure = shown.tell(&event).unwrap_err();
        assert!(failure.message.contains("release") && failure.hint.is_some());
    }

    #[test]
    fn a_name_is_escaped_for_the_query() {
        assert_eq!(escaped("my config&x=1/ä"), "my%20config%26x%3D1%2F%C3%A4");
    }
}
