//! The hooks of heat-agents as programs: `hook-NAME`, or a link NAME in a directory named `hooks`.
//!
//! Standard input is the entry as JSON, standard output the response, standard error the log, into which
//! what the tool prints is copied while it runs. A failed tool, a missing one and a config that cannot be
//! used are failed responses, and the program ends with 0; only an entry that is no JSON ends it with 1.

pub mod ansible;
pub mod apply_config;
pub mod cfn_init;
mod compose_env;
pub mod docker_cmd;
pub mod docker_cmd_cleanup;
pub mod docker_compose;
pub mod docker_compose_projects;
mod entry;
mod files;
pub mod hiera;
pub mod json_file;
pub mod puppet;
pub mod refused;
pub mod salt;
pub mod script;
mod tool;

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::process::ExitCode;

use serde_json::{Map, Value};

use self::entry::Entry;
use super::pylog::{Level, Log, Style};
use crate::document::Output;
use crate::hooks::capture::{RESPONSE_BYTES_MAX, shorten};
use crate::hooks::{NotRun, Response, built_in};
use crate::json_text::json_text;

/// Every program of this kind.
pub(super) const PROGRAMS: [(&str, super::Program); 16] = [
    ("50-heat-config-docker-cmd", docker_cmd_cleanup::main),
    ("50-heat-config-docker-compose", docker_compose_projects::main),
    ("50-heat-config-kubelet", refused::configure),
    ("hook-ansible", ansible::main),
    ("hook-apply-config", apply_config::main),
    ("hook-atomic", refused::main),
    ("hook-cfn-init", cfn_init::main),
    ("hook-chef", refused::main),
    ("hook-docker-cmd", docker_cmd::main),
    ("hook-docker-compose", docker_compose::main),
    ("hook-hiera", hiera::main),
    ("hook-json-file", json_file::main),
    ("hook-kubelet", refused::main),
    ("hook-puppet", puppet::main),
    ("hook-salt", salt::main),
    ("hook-script", script::main),
];

/// The hook of a group.
pub(super) fn of_group(group: &OsStr) -> Option<super::Program> {
    let name = format!("{}{}", built_in::PREFIX, group.to_str()?);
    PROGRAMS.iter().find(|(known, _)| *known == name).map(|(_, program)| *program)
}

/// Bytes that one byte of text may become in JSON: `\u0001`.
const ESCAPED_BYTES_MAX: usize = 6;

/// A response as it is printed.
type Answer = Map<String, Value>;

/// Outputs, and what became of the tool.
fn answer(
    outputs: Map<String, Value>,
    stdout: impl Into<Value>,
    stderr: impl Into<Value>,
    status_code: i64,
) -> Answer {
    let mut answer = outputs;
    answer.insert("deploy_stdout".into(), stdout.into());
    answer.insert("deploy_stderr".into(), stderr.into());
    answer.insert("deploy_status_code".into(), status_code.into());
    answer
}

impl From<Response> for Answer {
    fn from(response: Response) -> Self {
        answer(response.outputs, response.stdout, response.stderr, response.status_code)
    }
}

/// Nothing to say, and nothing went wrong.
fn silence() -> Answer {
    answer(Map::new(), "", "", 0)
}

fn new_log() -> Log {
    Log::new(Style::Named("heat-config"), Level::Debug)
}

/// Reads the entry from standard input and prints what `work` answers.
fn serve(work: impl FnOnce(&Entry, &mut Log) -> Result<Answer, NotRun>) -> ExitCode {
    let mut log = new_log();
    match Entry::read(&mut io::stdin().lock()) {
        Ok(entry) => {
            let answer = work(&entry, &mut log);
            respond(answer, &mut log)
        }
        Err(error) => {
            log.error(format!("standard input must be one deployment in JSON: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Prints the response, or the failed one that says why there is no other.
fn respond(answer: Result<Answer, NotRun>, log: &mut Log) -> ExitCode {
    let mut answer = answer.unwrap_or_else(|not_run| {
        log.error(&not_run.reason);
        Response::from(not_run).into()
    });
    fit(&mut answer);
    let text = json_text(&Value::Object(answer));
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log.error(format!("the response could not be written: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Shortens what is long until the response is one that is read.
fn fit(answer: &mut Answer) {
    let bytes = |answer: &Answer| serde_json::to_vec(answer).map_or(0, |json| json.len());
    if bytes(answer) <= RESPONSE_BYTES_MAX / ESCAPED_BYTES_MAX {
        return;
    }
    // Each gets an equal share, so that one pass is enough whatever they hold.
    let share = RESPONSE_BYTES_MAX / ESCAPED_BYTES_MAX / (answer.len() + 1);
    for value in answer.values_mut() {
        if let Value::String(text) = value {
            *text = shorten(text, share);
        }
    }
    if bytes(answer) > RESPONSE_BYTES_MAX {
        let reason = format!("the outputs are left out: they have over {RESPONSE_BYTES_MAX} bytes");
        *answer = Response::from(NotRun::because(reason)).into();
    }
}

/// The outputs in a directory, and what is to be said about them.
fn collect(
    directory: &std::path::Path,
    id: &crate::document::ConfigId,
    outputs: &[Output],
    log: &mut Log,
) -> Map<String, Value> {
    crate::hooks::outputs::collect(directory, id, outputs, |complaint| log.warning(complaint))
}

/// Removes outputs of an earlier run.
fn remove_old(
    directory: &std::path::Path,
    id: &crate::document::ConfigId,
    outputs: &[Output],
) -> Result<(), NotRun> {
    crate::hooks::outputs::remove_old(directory, id, outputs).map_err(|(path, error)| {
        NotRun::because(format!("removing old output {}: {error}", path.display()))
    })
}

/// Says how a tool ended, as the original does.
fn log_end(log: &mut Log, what: impl std::fmt::Display, code: i64) {
    if code == 0 {
        log.info(format!("Completed {what}"));
    } else {
        log.error(format!("Error running {what}. [{code}]"));
    }
}

/// An environment variable that is not empty.
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_group_that_the_agent_calls_built_in_has_a_program() {
        for group in built_in::NAMES.iter().chain(&["script", "chef"]) {
            assert!(of_group(OsStr::new(group)).is_some(), "{group}");
        }
        assert!(of_group(OsStr::new("heat-config")).is_none());
    }

    #[test]
    fn a_response_keeps_the_order_of_the_original() {
        let outputs = json!({"deploy_stderr": "mine", "r": "x"});
        let Value::Object(outputs) = outputs else { panic!() };
        assert_eq!(
            json_text(&Value::Object(answer(outputs, "o\u{fc}", "e", -9))),
            r#"{"deploy_stderr": "e", "r": "x", "deploy_stdout": "o\u00fc", "deploy_status_code": -9}"#
        );
    }

    #[test]
    fn a_response_of_many_large_outputs_still_can_be_read() {
        let many = (0..60).map(|n| (format!("o{n}"), Value::from("\u{1}".repeat(256 << 10))));
        let mut large = answer(many.collect(), "out", "err", 4);
        fit(&mut large);
        assert!(json_text(&Value::Object(large.clone())).len() < RESPONSE_BYTES_MAX);
        assert_eq!(large["deploy_status_code"], 4);
        assert_eq!(large["deploy_stdout"], "out");
    }
}
