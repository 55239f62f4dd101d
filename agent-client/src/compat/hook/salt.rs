//! `hook-salt`: the config is a Salt state, applied by `salt-call --local`.
//!
//! The original calls Salt's Python interface. What a state sees is the same: `file_roots` is the working
//! directory, inputs are keys of `opts` beside the minion's own configuration. For that `salt-call` gets a
//! configuration directory of its own for the time of the run, in which one file includes the minion's and
//! another, read last, holds the inputs. `--metadata` gives the whole of Salt's return, where outputs are
//! looked up by name.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::entry::{Entry, bad};
use super::tool::{Call, Tool};
use super::{Answer, files, log_end, serve};
use crate::compat::pylog::Log;
use crate::compat::{yaml_dump, yaml_load};
use crate::document::{ConfigId, Input, Output, hex, sha256};
use crate::hooks::NotRun;
use crate::hooks::process::Exit;

const STATE_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// The program.
pub fn main(_arguments: &[OsString]) -> ExitCode {
    serve(run)
}

fn run(entry: &Entry, log: &mut Log) -> Result<Answer, NotRun> {
    let working = files::place("HEAT_SALT_WORKING", "/var/lib/heat-config/heat-config-salt");
    let minion = files::place("SALT_MINION_CONFIG", "/etc/salt/minion");
    let (id, inputs, outputs) = (entry.id()?, entry.inputs()?, entry.outputs()?);
    let state = match entry.config() {
        Value::Object(_) => yaml_dump::dump(entry.config()),
        _ => entry.config_text("a state")?.to_owned(),
    };
    if state.trim().is_empty() {
        return Err(bad("its config is empty: there is no state to apply"));
    }
    files::make_private(&working)?;
    let name = state_name(&id);
    files::write(&working.join(format!("{name}.sls")), state, STATE_MODE)?;
    let configuration = configuration(&working, &minion, inputs)?;

    let call = Call::new([
        "--local".into(),
        OsString::from("--config-dir"),
        configuration.path().into(),
        "--file-root".into(),
        working.clone().into(),
        "--log-file-level=quiet".into(),
        "--metadata".into(),
        "--out=json".into(),
        "--retcode-passthrough".into(),
        "state.sls".into(),
        argument(&name).into(),
    ]);
    let tool = Tool::new("HEAT_SALT_CMD", "salt-call");
    log.debug(format!("Applying Salt state {name}.sls"));
    let exit = tool.run(call.at(&working))?;
    let answer = answer(exit, &outputs);
    let code = answer.get("deploy_status_code").and_then(Value::as_i64).unwrap_or(1);
    log_end(log, format!("applying salt state {name}.sls"), code);
    Ok(answer)
}

/// The state's name; a dot in it would be a directory for Salt.
fn state_name(id: &ConfigId) -> String {
    let name = id.file_name();
    if name.contains('.') {
        format!("~{}", hex(&sha256(name.as_bytes())))
    } else {
        name.into_owned()
    }
}

/// Salt reads arguments as YAML: what would be a number is quoted.
fn argument(name: &str) -> String {
    match yaml_load::resolve(name) {
        Value::String(_) => name.to_owned(),
        _ => format!("'{name}'"),
    }
}

/// A configuration directory: the minion's configuration, then the inputs.
fn configuration(working: &Path, minion: &Path, inputs: Vec<Input>) -> Result<TempDir, NotRun> {
    let failed = |e: std::io::Error| files::io_failed("make a directory in", working, &e);
    let directory =
        tempfile::Builder::new().prefix(".salt-").tempdir_in(working).map_err(failed)?;
    let options = directory.path().join("inputs.conf");
    let mut include: Vec<PathBuf> = Vec::new();
    if minion.is_file() {
        include.push(minion.to_owned());
    }
    // Salt warns of a pattern that nothing matches.
    let more = files::parent(minion).join("minion.d");
    let is_conf = |entry: std::fs::DirEntry| entry.path().extension().is_some_and(|e| e == "conf");
    if std::fs::read_dir(&more).into_iter().flatten().flatten().any(is_conf) {
        include.push(more.join("*.conf"));
    }
    include.push(options.clone());
    let include: Vec<String> =
        include.iter().map(|path| path.to_string_lossy().into_owned()).collect();
    let main = json!({"default_include": "none.d/*.conf", "include": include});
    files::write(&directory.path().join("minion"), yaml_dump::dump(&main), FILE_MODE)?;
    let inputs: Map<_, _> = inputs.into_iter().map(|input| (input.name, input.value)).collect();
    files::write(&options, yaml_dump::dump(&Value::Object(inputs)), FILE_MODE)?;
    Ok(directory)
}

/// As the original answers: the return in YAML is the output if all went well, else the error.
fn answer(exit: Exit, outputs: &[Output]) -> Answer {
    let returned = serde_json::from_str::<Value>(&exit.stdout).ok();
    let returned = returned.as_ref().and_then(|all| all.get("local")?.as_object());
    let mut answer = Map::new();
    let Some(returned) = returned else {
        // Not run at all: what it printed is all there is.
        answer.insert("deploy_stdout".into(), exit.stdout.into());
        answer.insert("deploy_stderr".into(), exit.stderr.into());
        let code = if exit.code == 0 { 1 } else { exit.code };
        answer.insert("deploy_status_code".into(), code.into());
        return answer;
    };
    let result = returned.get("return").unwrap_or(&Value::Null);
    let code = returned.get("retcode").and_then(Value::as_i64).unwrap_or(exit.code);
    let code = if code != 0 && all_succeeded(result) { 0 } else { code };
    for output in outputs {
        if let Some(value) = returned.get(&output.name).filter(|value| !value.is_null()) {
            answer.insert(output.name.clone(), value.clone());
        }
    }
    let text = Value::from(yaml_dump::dump(result));
    let (stdout, stderr) = if code == 0 { (text, Value::Null) } else { (Value::Null, text) };
    answer.insert("deploy_stdout".into(), stdout);
    answer.insert("deploy_stderr".into(), stderr);
    answer.insert("deploy_status_code".into(), code.into());
    answer
}

/// Salt's own status is not 0 for some states that have succeeded.
fn all_succeeded(result: &Value) -> bool {
    let states = result.as_object();
    states.is_some_and(|states| {
        states.values().all(|state| state.get("result").is_some_and(crate::compat::truth::is_true))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(stdout: &str, code: i64) -> Answer {
        let exit = Exit { code, stdout: stdout.into(), stdout_is_cut: false, stderr: "log".into() };
        let output = |name: &str| Output { name: name.into(), error_output: false };
        answer(exit, &[output("jid"), output("none")])
    }

    #[test]
    fn success_is_output_and_failure_is_error() {
        let good = r#"{"local": {"jid": "2", "retcode": 0, "return": {"s": {"result": true}}}}"#;
        let expected = json!({"jid": "2", "deploy_stdout": "s:\n  result: true\n",
            "deploy_stderr": null, "deploy_status_code": 0});
        assert_eq!(Value::Object(answered(good, 0)), expected);
        let failed = good.replace("true", "false").replace("\"retcode\": 0", "\"retcode\": 2");
        let answer = answered(&failed, 2);
        assert_eq!(answer["deploy_status_code"], 2);
        assert_eq!(answer["deploy_stderr"], "s:\n  result: false\n");
        assert!(answer["deploy_stdout"].is_null());
    }

    #[test]
    fn a_status_of_salt_does_not_count_when_every_state_has_succeeded() {
        let odd = r#"{"local": {"retcode": 2, "return": {"s": {"result": true}}}}"#;
        assert_eq!(answered(odd, 2)["deploy_status_code"], 0);
        let none = r#"{"local": {"retcode": 1, "return": ["No matching sls found"]}}"#;
        let answer = answered(none, 1);
        assert_eq!(answer["deploy_status_code"], 1);
        assert_eq!(answer["deploy_stderr"], "- No matching sls found\n");
    }

    #[test]
    fn what_is_no_return_is_a_failure() {
        for (text, code) in [("", 64), ("Traceback", 1), ("", 0)] {
            let answer = answered(text, code);
            assert_ne!(answer["deploy_status_code"], 0);
            assert_eq!(
                (&answer["deploy_stdout"], &answer["deploy_stderr"]),
                (&json!(text), &json!("log"))
            );
        }
    }

    #[test]
    fn names_that_salt_would_misread_are_made_harmless() {
        assert_eq!(argument("12345"), "'12345'");
        assert_eq!(
            argument("dff45350-7522-4c13-ac2f-dec358c56161"),
            "dff45350-7522-4c13-ac2f-dec358c56161"
        );
        assert!(!state_name(&ConfigId::new("a.b").unwrap()).contains('.'));
    }
}
