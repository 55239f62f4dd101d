//! What every section of a config needs while it is applied.

use serde_json::{Map, Value};

use crate::compat::pylog::Log;
use crate::json_text::json_text;
use crate::machine::System;
use crate::machine::run::{Call, Ran};
use openstack_client::http::Client;

/// The work on one config: what goes wrong is logged, collected, and does not stop the rest.
pub(super) struct Work<'a> {
    /// What it is done on.
    pub(super) system: &'a System,
    /// Where it is told.
    pub(super) log: &'a mut Log,
    /// For what has to be fetched.
    pub(super) client: &'a Client,
    /// What has gone wrong.
    pub(super) failures: Vec<String>,
}

impl Work<'_> {
    /// Something has gone wrong.
    pub(super) fn fail(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.log.error(&what);
        self.failures.push(what);
    }

    /// Runs a tool or command to its end. That it cannot be started is a way to end.
    pub(super) fn run(&mut self, call: &Call) -> Ran {
        self.log.debug(format!("Running command: {call}"));
        let ran = call.run(self.system).unwrap_or_else(|error| Ran {
            // What a shell says of a command that it does not find.
            status: 127,
            stdout: String::new(),
            stderr: format!("could not be started: {error}"),
        });
        if !ran.is_success() {
            self.log.debug(format!(
                "Return code of {} after executing: {call}\nstdout: {}\nstderr: {}",
                ran.status, ran.stdout, ran.stderr
            ));
        }
        ran
    }

    /// Runs a tool whose failure is one of the config.
    pub(super) fn do_or_fail(&mut self, what: &str, call: &Call) -> bool {
        let ran = self.run(call);
        if !ran.is_success() {
            self.fail(format!("{what}: {call}: {}", ran.why()));
        }
        ran.is_success()
    }

    /// A section of a config, or an entry of one, that has to be a map; nothing and `{}` are the same.
    pub(super) fn map<'v>(
        &mut self,
        what: &str,
        value: Option<&'v Value>,
    ) -> Option<&'v Map<String, Value>> {
        match value {
            None | Some(Value::Null) => None,
            Some(Value::Object(map)) => (!map.is_empty()).then_some(map),
            Some(other) if is_empty(other) => None,
            Some(_) => {
                self.fail(format!("{what} must be a map of names"));
                None
            }
        }
    }

    /// A name that becomes an argument of a tool must not be taken for an option.
    pub(super) fn is_name(&mut self, what: &str, name: &str) -> bool {
        let fits = !name.is_empty() && !name.starts_with('-') && !name.contains(['\0', '\n']);
        if !fits {
            self.fail(format!("{name:?} is no name of a {what}"));
        }
        fits
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Bool(value) => !value,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Null | Value::Object(_) => false,
    }
}

/// What counts as yes: `true`, 1, and the words "true", "yes", "1".
pub(super) fn is_true(value: &Value) -> bool {
    match value {
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() == Some(1.0),
        Value::String(text) => matches!(text.to_lowercase().trim(), "true" | "yes" | "1"),
        _ => false,
    }
}

/// A scalar as a word of a command line or a value of a variable.
pub(super) fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| json_text(value), str::to_owned)
}

/// A list of words, or a single one.
pub(super) fn words_of(value: &Value) -> Vec<String> {
    match value {
        Value::Array(list) => list.iter().map(text_of).collect(),
        Value::Null => Vec::new(),
        Value::String(text) if text.is_empty() => Vec::new(),
        other => vec![text_of(other)],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn yes_and_no_are_what_they_were() {
        for yes in [json!(true), json!("true"), json!(" Yes "), json!("1"), json!(1)] {
            assert!(is_true(&yes), "{yes}");
        }
        for no in [
            json!(false),
            json!("false"),
            json!("no"),
            json!("0"),
            json!(0),
            json!(null),
            json!("x"),
        ] {
            assert!(!is_true(&no), "{no}");
        }
    }
}
