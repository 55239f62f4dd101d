//! Hooks of others: programs named after a group, in the hook directories.
//!
//! The entry goes in as JSON on standard input. On standard output a JSON object is the response:
//! `deploy_stdout`, `deploy_stderr`, `deploy_status_code` and outputs by name, and then the program's own
//! exit status does not count. Nothing on standard output and status 0 is success without outputs. Any
//! other output is not a response but output: stdout, stderr and exit status are reported as they are.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::capture::{HEAD_BYTES_MAX, RESPONSE_BYTES_MAX, shorten};
use super::process::{Exit, Launch, Printing};
use super::{NotRun, Response};
use crate::document::{Config, plain_text};
use crate::json_text::json_text;

/// The first file of this name in the directories.
pub fn find(directories: &[PathBuf], name: &str) -> Option<PathBuf> {
    if name.is_empty() {
        return None;
    }
    directories.iter().map(|directory| directory.join(name)).find(|path| path.is_file())
}

/// How to start it.
pub fn prepare(program: &Path, config: &Config) -> Launch {
    // As Python writes it: a hook may look at the text.
    let input = json_text(&Value::Object(config.json.clone())).into_bytes();
    Launch {
        program: program.to_owned(),
        arguments: Vec::new(),
        directory: None,
        environment: Vec::new(),
        input: Some(input),
        printing: Printing::Response,
    }
}

/// What the system's refusal to start a hook means.
pub fn not_started(program: &Path, error: &io::Error) -> NotRun {
    let program = program.display();
    let hint = match error.kind() {
        io::ErrorKind::PermissionDenied => format!("; try: chmod +x {program}"),
        io::ErrorKind::NotFound => "; the interpreter in its first line does not exist".into(),
        _ => String::new(),
    };
    NotRun::because(format!("hook {program} could not be started: {error}{hint}"))
}

/// The response in what it printed.
pub fn respond(exit: Exit) -> Response {
    if exit.stdout_is_cut {
        // Whether it is a failure cannot be told any more, so it is one.
        let reason = format!("the hook's response is longer than {RESPONSE_BYTES_MAX} bytes");
        let stdout = shorten(&exit.stdout, HEAD_BYTES_MAX);
        let code = if exit.code == 0 { 1 } else { exit.code };
        let outputs = Map::new();
        let (stderr, reason) = (exit.stderr, Some(reason));
        return Response { stdout, stderr, status_code: code, outputs, reason };
    }
    match serde_json::from_str::<Value>(&exit.stdout) {
        Ok(Value::Object(response)) => of_object(response),
        _ => Response {
            stdout: exit.stdout,
            stderr: exit.stderr,
            status_code: exit.code,
            outputs: Map::new(),
            reason: None,
        },
    }
}

fn of_object(mut object: Map<String, Value>) -> Response {
    let mut text = |key: &str| object.remove(key).map(|v| plain_text(&v)).unwrap_or_default();
    let (stdout, stderr) = (text("deploy_stdout"), text("deploy_stderr"));
    let (status_code, reason) = status_code(object.remove("deploy_status_code"));
    Response { stdout, stderr, status_code, outputs: object, reason }
}

/// As Heat reads it: absent, null, empty, 0 and "0" are success.
fn status_code(value: Option<Value>) -> (i64, Option<String>) {
    let text = value.as_ref().map(plain_text).unwrap_or_default();
    if text.is_empty() {
        return (0, None);
    }
    match text.trim().parse() {
        Ok(code) => (code, None),
        Err(_) => (1, Some(format!("the hook's deploy_status_code is no number: {text:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use serde_json::json;

    use super::super::{Hook, Hooks, script};
    use super::*;
    use crate::document::{Document, Work};

    fn exit(code: i64, stdout: &str) -> Exit {
        Exit { code, stdout: stdout.into(), stdout_is_cut: false, stderr: "log".into() }
    }

    #[test]
    fn a_json_object_is_the_response_and_the_exit_status_does_not_count() {
        let response = respond(exit(
            9,
            r#"{"deploy_stdout": "o", "deploy_stderr": "e", "deploy_status_code": 0, "r": [1]}"#,
        ));
        assert_eq!((response.status_code, &*response.stdout, &*response.stderr), (0, "o", "e"));
        assert_eq!(Value::Object(response.outputs), json!({"r": [1]}));
    }

    #[test]
    fn silence_and_status_0_is_success_without_outputs() {
        let response = respond(exit(0, ""));
        assert_eq!((response.status_code, response.reason), (0, None));
        assert!(response.outputs.is_empty());
    }

    #[test]
    fn anything_else_is_plain_output() {
        for text in ["hello", "[1]", "5", "{\"a\":"] {
            let response = respond(exit(3, text));
            assert_eq!(
                (response.status_code, &*response.stdout, &*response.stderr),
                (3, text, "log")
            );
        }
        assert_eq!(respond(exit(-15, "")).status_code, -15);
    }

    #[test]
    fn a_response_that_is_too_long_to_be_read_is_a_failure() {
        let cut =
            Exit { stdout_is_cut: true, ..exit(0, "{\"deploy_status_code\": 3, \"r\": \"xx") };
        let response = respond(cut);
        assert_eq!(response.status_code, 1);
        assert!(response.reason.unwrap().contains("longer than"));
    }

    #[test]
    fn status_codes_are_read_as_heat_reads_them() {
        for (value, code) in [
            (json!(null), 0),
            (json!(""), 0),
            (json!("0"), 0),
            (json!(7), 7),
            (json!("7"), 7),
            (json!(-9), -9),
            (json!("oops"), 1),
            (json!(true), 1),
        ] {
            assert_eq!(status_code(Some(value.clone())).0, code, "{value}");
        }
        assert_eq!(status_code(None).0, 0);
    }

    #[tokio::test]
    async fn a_hook_reads_the_entry_and_answers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("echo-hook");
        let hook = "#!/bin/sh\nentry=$(cat)\necho note >&2\n\
                    printf '{\"deploy_status_code\": 2, \"entry\": %s}' \"$entry\"\n";
        fs::write(&path, hook).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let body = json!({"deployments": [{"id": "a", "group": "echo.-hook!", "config": {"k": 1},
            "inputs": [{"name": "i", "type": "String", "value": 5}]}]});
        let document = Document::parse(1, body.to_string().as_bytes()).unwrap();
        let Work::Run(config) = &document.entries[0].work else { panic!() };
        let directories = script::Directories::new("/w".into(), "/o".into());
        let hooks = Hooks::new(vec![dir.path().into()], None, directories, "test".into());
        let hook = hooks.find(&config.hook).unwrap();
        assert_eq!(hook, Hook::External(path.clone()));
        let response = hooks.run(&hook, &document.entries[0].id, config).await;
        assert_eq!(response.status_code, 2);
        assert_eq!(response.outputs["entry"]["inputs"][0]["value"], "5");
        assert_eq!(response.outputs["entry"]["config"], json!({"k": 1}));

        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let response = hooks.run(&hook, &document.entries[0].id, config).await;
        assert_ne!(response.status_code, 0);
        assert!(response.reason.unwrap().contains("try: chmod +x"));
    }
}
