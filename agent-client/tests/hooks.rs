//! The built-in hooks as programs, with fake tools: what they do better than the originals. What they do
//! alike is in `originals`.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use metadata_delivery::message::ResultStatus;
use serde_json::{Value, json};
use support::{Home, MiniServer, document};

const AGENT: &str = env!("CARGO_BIN_EXE_agent-client");
/// Hooks that call a tool, with the variable that names it and a config that they take.
const CALLERS: [(&str, &str, &str); 7] = [
    ("hook-ansible", "HEAT_ANSIBLE_CMD", "---"),
    ("hook-puppet", "HEAT_PUPPET_CMD", "notice('x')"),
    ("hook-salt", "HEAT_SALT_CMD", "x: test.nop"),
    ("hook-cfn-init", "HEAT_CFN_INIT_CMD", "{}"),
    ("hook-apply-config", "HEAT_APPLY_CONFIG_CMD", ""),
    ("hook-docker-cmd", "HEAT_DOCKER_CMD", "{a: {image: x}}"),
    ("hook-docker-compose", "HEAT_DOCKER_COMPOSE_CMD", "{a: {image: x}}"),
];

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn mode(&self, name: &str) -> u32 {
        fs::symlink_metadata(self.path(name)).unwrap().permissions().mode() & 0o7777
    }

    /// A tool of which `body` is the script.
    fn tool(&self, body: &str) -> PathBuf {
        let path = self.path("tool");
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// The hook, all of whose directories are here and whose tool is `tool`.
    fn command(&self, hook: &str) -> Command {
        let mut command = Command::new(AGENT);
        command.arg(hook).current_dir(self.0.path()).env_clear().env("PATH", "/usr/bin:/bin");
        for name in ["SCRIPT", "ANSIBLE", "PUPPET", "SALT", "DOCKER_COMPOSE"] {
            command.env(format!("HEAT_{name}_WORKING"), self.path("w"));
            command.env(format!("HEAT_{name}_OUTPUTS"), self.path("o"));
        }
        for (_, variable, _) in CALLERS {
            command.env(variable, self.path("tool"));
        }
        command.env("HEAT_PUPPET_LOGDIR", self.path("log"));
        command.env("HEAT_PUPPET_HIERA_DATADIR", self.path("hiera"));
        command.env("HEAT_HIERA_CONFIG", self.path("hiera.yaml"));
        command.env("HEAT_HIERA_ELEMENT_CHECK_CMD", "/no/such/check");
        command.env("HEAT_CFN_INIT_LAST_METADATA_DIR", self.path("cfn"));
        command.env("SALT_MINION_CONFIG", self.path("etc/minion"));
        command.env("HEAT_SHELL_CONFIG", self.path("list"));
        command
    }

    fn start(&self, hook: &str, entry: &Value) -> Child {
        let pipes = || Stdio::piped();
        let mut command = self.command(hook);
        let mut child = command.stdin(pipes()).stdout(pipes()).stderr(pipes()).spawn().unwrap();
        // A hook that does not read it is free to.
        let _ = child.stdin.take().unwrap().write_all(entry.to_string().as_bytes());
        child
    }

    fn run(&self, hook: &str, entry: &Value) -> Output {
        self.start(hook, entry).wait_with_output().unwrap()
    }

    /// The response; there must be one.
    #[track_caller]
    fn response(&self, hook: &str, entry: &Value) -> Value {
        let output = self.run(hook, entry);
        assert_eq!(output.status.code(), Some(0), "{hook}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{hook}: {e}: {output:?}"))
    }
}

fn entry(config: impl Into<Value>) -> Value {
    json!({"id": "the-id", "name": "the-name", "creation_time": "2026-11-22T10:20:30",
        "inputs": [], "outputs": [{"name": "r"}], "options": null, "config": config.into()})
}

fn stderr_of(response: &Value) -> &str {
    response["deploy_stderr"].as_str().unwrap()
}

#[test]
fn a_tool_that_is_missing_or_cannot_be_run_is_a_failed_response_that_names_it() {
    for (hook, variable, config) in CALLERS {
        let place = Place::new();
        let response = place.response(hook, &entry(config));
        assert_eq!(response["deploy_status_code"], 127, "{hook}: {response}");
        let said = stderr_of(&response);
        assert!(said.contains("tool is not installed") && said.contains(variable), "{said}");

        fs::write(place.path("tool"), "#!/bin/sh\n").unwrap();
        let response = place.response(hook, &entry(config));
        assert_eq!(response["deploy_status_code"], 126, "{hook}: {response}");
    }
}

#[test]
fn an_empty_config_is_a_failed_response_where_there_is_nothing_to_run() {
    for hook in ["hook-script", "hook-ansible", "hook-salt"] {
        for config in [json!(""), json!(null)] {
            let place = Place::new();
            place.tool("true");
            let response = place.response(hook, &entry(config));
            assert_ne!(response["deploy_status_code"], 0, "{hook}");
            assert!(stderr_of(&response).contains("config is empty"), "{hook}: {response}");
        }
    }
}

#[test]
fn an_entry_that_lacks_something_is_a_failed_response_that_says_what() {
    let place = Place::new();
    place.tool("true");
    for (hook, missing) in [
        ("hook-script", "id"),
        ("hook-script", "inputs"),
        ("hook-ansible", "id"),
        ("hook-ansible", "inputs"),
        ("hook-puppet", "inputs"),
        ("hook-salt", "id"),
        ("hook-docker-cmd", "id"),
        ("hook-docker-compose", "inputs"),
    ] {
        let mut entry = entry("{a: {image: x}}");
        entry.as_object_mut().unwrap().remove(missing);
        let response = place.response(hook, &entry);
        assert_eq!(response["deploy_status_code"], 1, "{hook}");
        assert!(stderr_of(&response).contains(&format!("no {missing}")), "{hook}: {response}");
    }
    for hook in ["hook-json-file", "hook-hiera", "hook-cfn-init", "hook-docker-cmd"] {
        let response = place.response(hook, &entry("text"));
        assert_eq!(response["deploy_status_code"], 1, "{hook}");
        assert!(stderr_of(&response).contains("must be a map"), "{hook}: {response}");
    }
}

#[test]
fn output_is_copied_while_the_tool_runs() {
    for (hook, _, config) in CALLERS {
        let place = Place::new();
        // Nothing but what the test has read lets the tool end.
        let go = place.path("go");
        let mkfifo = Command::new("mkfifo").arg(&go).status().unwrap();
        assert!(mkfifo.success());
        let body = format!(
            "case $1 in inspect) exit 1;; esac; echo to-out; echo to-err >&2; cat {}",
            go.display()
        );
        place.tool(&body);
        let mut child = place.start(hook, &entry(config));
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let (mut seen, mut line) = (Vec::new(), String::new());
        while !(seen.iter().any(|l| l == "to-out\n") && seen.iter().any(|l| l == "to-err\n")) {
            line.clear();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "{hook}: {seen:?}");
            seen.push(line.clone());
        }
        fs::write(&go, "last").unwrap();
        let mut rest = String::new();
        log.read_to_string(&mut rest).unwrap();
        let output = child.wait_with_output().unwrap();
        let response: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(response["deploy_stdout"], "to-out\nlast", "{hook}: {response}");
        assert_eq!(response["deploy_stderr"], "to-err\n", "{hook}");
    }
}

#[test]
fn a_hook_that_is_asked_to_end_asks_its_tool_and_still_answers() {
    for (hook, _, config) in CALLERS {
        let place = Place::new();
        let body = "case $1 in inspect) exit 1;; esac; trap 'echo ended; exit 9' TERM; echo begun >&2\n\
                    sleep 600 >/dev/null 2>&1 & child=$!; wait; kill $child; exit 9";
        place.tool(body);
        let mut child = place.start(hook, &entry(config));
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while line != "begun\n" {
            line.clear();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "{hook}");
        }
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        std::io::copy(&mut log, &mut std::io::sink()).unwrap();
        let output = child.wait_with_output().unwrap();
        let response: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(response["deploy_stdout"], "ended\n", "{hook}: {response}");
        assert_eq!(response["deploy_status_code"], 9, "{hook}: {response}");
    }
}

#[test]
fn old_outputs_are_not_reported_and_large_ones_are_bounded() {
    for hook in ["hook-script", "hook-ansible", "hook-puppet"] {
        let place = Place::new();
        place.tool("true");
        fs::create_dir(place.path("o")).unwrap();
        fs::write(place.path("o/the-id.r"), "old").unwrap();
        let response = place.response(hook, &entry("#!/bin/sh\n"));
        assert_eq!(response.get("r"), None, "{hook}: {response}");

        let noise = "head -c 3000000 /dev/zero | tr '\\0' x";
        place.tool(&format!("{noise} >{}; {noise}", place.path("o/the-id.r").display()));
        let script = format!("#!/bin/sh\n{}", place.path("tool").display());
        let response = place.response(hook, &entry(script));
        for key in ["r", "deploy_stdout"] {
            let text = response[key].as_str().unwrap();
            assert!(text.len() < 300_000 && text.contains("bytes left out"), "{hook}: {key}");
        }
        assert_eq!(response["deploy_status_code"], 0);
    }
}

#[test]
fn a_service_that_holds_the_output_open_is_not_waited_for() {
    for (hook, _, config) in CALLERS {
        let place = Place::new();
        let pid = place.path("pid");
        place.tool(&format!(
            "case $1 in inspect) exit 1;; esac; sleep 600 & echo $! >{}; echo started",
            pid.display()
        ));
        // Standard error of the test's own pipes is not what the service holds: the tool's is.
        let response = place.response(hook, &entry(config));
        assert_eq!(response["deploy_stdout"], "started\n", "{hook}");
        let pid: i32 = place.read("pid").trim().parse().unwrap();
        assert!(support::is_alive(pid.cast_unsigned()), "{hook}");
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
}

#[test]
fn no_input_is_logged() {
    for (hook, _, config) in CALLERS.into_iter().chain([("hook-script", "", "#!/bin/sh\n")]) {
        let place = Place::new();
        place.tool("case $1 in inspect) exit 1;; esac");
        let mut entry = entry(config);
        entry["inputs"] = json!([{"name": "db_password", "value": "hunter2"}]);
        let output = place.run(hook, &entry);
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(!log.contains("hunter2"), "{hook}: {log}");
        assert!(output.status.success() && !output.stdout.is_empty(), "{hook}: {log}");
    }
}

#[test]
fn ids_and_names_do_not_lead_out_of_their_directory() {
    let place = Place::new();
    place.tool("case $1 in inspect) exit 1;; esac");
    for (hook, _, config) in CALLERS.into_iter().chain([("hook-script", "", "#!/bin/sh\n")]) {
        let mut entry = entry(config);
        entry["id"] = "../../escaped".into();
        entry["name"] = "../escaped".into();
        entry["options"] = json!({"enable_hiera": true});
        place.response(hook, &entry);
    }
    let config = json!({"datafiles": {"../escaped": {}}, "hierarchy": []});
    assert_eq!(place.response("hook-hiera", &entry(config))["deploy_status_code"], 1);
    assert!(!place.path("hiera.yaml").exists(), "all is checked before anything is written");
    for path in ["escaped", "../escaped", "escaped.json", "hiera/../escaped.json"] {
        assert!(!place.path(path).exists(), "{path}");
    }
}

#[test]
fn a_working_directory_in_which_others_can_write_is_refused() {
    let place = Place::new();
    place.tool("true");
    fs::create_dir(place.path("w")).unwrap();
    fs::set_permissions(place.path("w"), fs::Permissions::from_mode(0o777)).unwrap();
    for hook in ["hook-script", "hook-ansible", "hook-puppet", "hook-salt", "hook-docker-compose"] {
        let response = place.response(hook, &entry("#!/bin/sh\n"));
        assert_ne!(response["deploy_status_code"], 0, "{hook}");
        assert!(stderr_of(&response).contains("chmod go-w"), "{hook}: {response}");
    }
}

#[test]
fn facts_may_be_of_any_type_and_logs_are_private() {
    let place = Place::new();
    place.tool("env | grep '^FACTER_[a-z]=' | sort");
    let mut entry = entry("");
    entry["inputs"] = json!([{"name": "n", "value": 5}, {"name": "b", "value": true},
        {"name": "z", "value": null}, {"name": "l", "value": [1, "\u{fc}"]}]);
    entry.as_object_mut().unwrap().remove("creation_time");
    let response = place.response("hook-puppet", &entry);
    let expected = "FACTER_b=true\nFACTER_l=[1, \"\\u00fc\"]\nFACTER_n=5\nFACTER_z=\n";
    assert_eq!(response["deploy_stdout"], expected);
    let logs: Vec<_> = fs::read_dir(place.path("log")).unwrap().flatten().collect();
    assert_eq!(logs.len(), 2, "named by the time of the run");
    for log in logs {
        assert_eq!(log.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
    }
}

#[test]
fn json_files_keep_their_mode_and_new_ones_are_private() {
    let place = Place::new();
    fs::write(place.path("shared"), "a long old text that leaves no tail").unwrap();
    fs::set_permissions(place.path("shared"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(place.path("target"), "untouched").unwrap();
    symlink(place.path("target"), place.path("link")).unwrap();
    let absolute = |name: &str| place.path(name).display().to_string();
    let config = json!({absolute("new"): 1, absolute("shared"): 2, absolute("link"): 3, "bare": 4});
    assert_eq!(place.response("hook-json-file", &entry(config))["deploy_status_code"], 0);
    assert_eq!([place.read("new"), place.read("shared"), place.read("bare")], ["1", "2", "4"]);
    assert_eq!([place.mode("new"), place.mode("shared")], [0o600, 0o644]);
    assert_eq!([place.read("target"), place.read("link")], ["untouched", "3"]);

    fs::create_dir(place.path("directory")).unwrap();
    let config = json!({absolute("directory"): 1});
    let response = place.response("hook-json-file", &entry(config));
    assert_eq!(response["deploy_status_code"], 1);
    assert!(stderr_of(&response).contains("directory"), "{response}");
}

#[test]
fn templates_are_applied_where_no_other_program_does_it() {
    let place = Place::new();
    // Templates lie as what becomes of them does below /: here.
    let below = place.0.path().strip_prefix("/").unwrap();
    let template = place.path("templates").join(below).join("out");
    fs::create_dir_all(template.parent().unwrap()).unwrap();
    fs::write(template, "{{a}}").unwrap();
    fs::write(place.path("m.json"), "{\"a\": \"applied\"}").unwrap();
    let mut command = place.command("hook-apply-config");
    command.env_remove("HEAT_APPLY_CONFIG_CMD").env("PATH", place.path("none"));
    command.env("OS_CONFIG_FILES", place.path("m.json"));
    command.env("OS_CONFIG_APPLIER_TEMPLATES", place.path("templates"));
    let output = command.stdin(Stdio::null()).output().unwrap();
    let response: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(response["deploy_status_code"], 0, "{response}");
    assert!(stderr_of(&response).contains("writing"), "its log is the tool's: {response}");
    assert_eq!(place.read("out"), "applied");
}

#[test]
fn other_hiera_data_is_a_failed_response_and_nothing_is_written() {
    let place = Place::new();
    let check = place.tool("echo '[\"a\"]'");
    let mut command = place.command("hook-hiera");
    command.env("HEAT_HIERA_ELEMENT_CHECK_CMD", check);
    let file = place.path("entry");
    fs::write(&file, entry(json!({"datafiles": {"a": {}}})).to_string()).unwrap();
    let output = command.stdin(fs::File::open(file).unwrap()).output().unwrap();
    let response: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(response["deploy_status_code"], 1);
    assert!(stderr_of(&response).contains("hiera data is in use ([\"a\"])"), "{response}");
    assert!(!place.path("hiera").exists());
}

#[test]
fn docker_is_told_what_it_understands_and_only_the_response_is_printed() {
    let place = Place::new();
    let body = "case $1 in inspect) exit 1;; esac; printf '%s\\n' \"$@\"; exit 5";
    place.tool(body);
    let config = json!({"a": {"image": "x", "environment": {"A": "b", "C": null, "N": 5},
        "volumes_from": ["v"], "volumes": "one:/one", "restart": false}});
    let response = place.response("hook-docker-cmd", &entry(config));
    assert_eq!(response["deploy_status_code"], 5, "a failed container is a failure");
    let arguments: Vec<&str> = response["deploy_stdout"].as_str().unwrap().lines().collect();
    let expected = [
        "--detach=true",
        "--env=A=b",
        "--env=C",
        "--env=N=5",
        "--restart=no",
        "--volume=one:/one",
        "--volumes-from=v",
        "x",
    ];
    assert_eq!(arguments[13..], expected);
    for (config, why) in [
        (json!({"a": {"action": "rnu"}}), "must be run or exec"),
        (json!({"a": {"action": "exec"}}), "no command"),
        (json!({"a": "x"}), "must be a map"),
        (json!({"a": {"start_order": "first"}}), "must be a number"),
        (json!("a: [b"), "YAML"),
    ] {
        let response = place.response("hook-docker-cmd", &entry(config));
        assert_eq!(response["deploy_status_code"], 1, "{why}");
        assert!(stderr_of(&response).contains(why), "{response}");
    }
}

#[test]
fn a_container_whose_name_is_taken_gets_another_one() {
    let place = Place::new();
    place.tool("case $1 in inspect) [ \"$4\" = web ] && echo exists;; run) echo $3;; esac");
    let config = json!({"web": {"image": "x"}});
    let response = place.response("hook-docker-cmd", &entry(config.clone()));
    let name = response["deploy_stdout"].as_str().unwrap().trim();
    let suffix = name.strip_prefix("web-").unwrap();
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    assert!(suffix.len() == 8 && suffix.chars().all(fits), "{name}");

    place.tool("echo exists");
    let response = place.response("hook-docker-cmd", &entry(config));
    assert!(stderr_of(&response).contains("are taken"), "{response}");
}

#[test]
fn containers_of_components_are_not_removed() {
    let place = Place::new();
    place
        .tool("case \"$*\" in *config_id\\\"*) echo part;; rm*|*-q*) echo \"$@\" >>removed;; esac");
    let list = json!([{"id": "part", "group": "component",
        "config": {"configs": [{"tool": "docker-cmd", "actions": ["CREATE"]}]}}]);
    fs::write(place.path("list"), list.to_string()).unwrap();
    assert!(place.run("50-heat-config-docker-cmd", &Value::Null).status.success());
    assert!(!place.path("removed").exists());
    fs::write(place.path("list"), "[]").unwrap();
    assert!(place.run("50-heat-config-docker-cmd", &Value::Null).status.success());
    assert!(place.read("removed").contains("config_id=part"), "without it they are");
}

#[test]
fn projects_have_all_they_need_and_their_end_is_a_success() {
    let place = Place::new();
    place.tool("pwd; cat docker-compose.yml common.env");
    let mut entry = entry(json!({"services": {"web": {"image": "x", "env_file": "common.env"}}}));
    entry["inputs"] =
        json!([{"name": "env_files", "value": [{"file_name": "common.env", "content": "A=1\n"}]}]);
    let response = place.response("hook-docker-compose", &entry);
    let directory = place.path("w/the-name").canonicalize().unwrap();
    let expected = format!(
        "{}\nservices:\n  web:\n    env_file: common.env\n    image: x\nA=1\n",
        directory.display()
    );
    assert_eq!(response["deploy_stdout"], expected);
    assert_eq!([place.mode("w/the-name"), place.mode("w/the-name/common.env")], [0o700, 0o600]);
    for (action, config) in [("DELETE", json!({"a": {}})), ("CREATE", json!(""))] {
        entry["inputs"] = json!([{"name": "deploy_action", "value": action}]);
        entry["config"] = config;
        let silence = json!({"deploy_stdout": "", "deploy_stderr": "", "deploy_status_code": 0});
        assert_eq!(place.response("hook-docker-compose", &entry), silence);
    }
}

/// What `salt-call` is given, and the configuration that it reads, which is gone afterwards.
#[test]
fn salt_gets_the_inputs_beside_the_minions_configuration() {
    let place = Place::new();
    fs::create_dir(place.path("etc")).unwrap();
    fs::write(place.path("etc/minion"), "cachedir: /c\n").unwrap();
    fs::create_dir(place.path("etc/minion.d")).unwrap();
    fs::write(place.path("etc/minion.d/a.conf"), "").unwrap();
    let returned = include_str!("data/salt-call.succeeded.json");
    fs::write(place.path("returned"), returned).unwrap();
    let returned = place.path("returned");
    place.tool(&format!(
        "printf '%s\\n' \"$@\" >arguments; cp -r \"$3\" configuration; cat {}",
        returned.display()
    ));
    let mut entry = entry(json!({"s": {"test.nop": []}}));
    entry["inputs"] =
        json!([{"name": "fooval", "value": "bar"}, {"name": "n", "value": [1, null]}]);
    entry["outputs"] = json!([{"name": "fun"}, {"name": "none"}]);
    let response = place.response("hook-salt", &entry);
    assert_eq!(response["deploy_status_code"], 0, "{response}");
    assert_eq!((&response["deploy_stderr"], &response["fun"]), (&Value::Null, &"state.sls".into()));
    assert_eq!(response.get("none"), None);
    assert_eq!(response["deploy_stdout"], include_str!("data/salt-call.succeeded.yaml"));

    let (working, etc) = (place.path("w"), place.path("etc"));
    assert_eq!(place.read("w/the-id.sls"), "s:\n  test.nop: []\n");
    assert_eq!(place.mode("w/the-id.sls"), 0o700);
    assert_eq!(place.read("w/configuration/inputs.conf"), "fooval: bar\nn:\n- 1\n- null\n");
    let arguments = place.read("w/arguments");
    let lines: Vec<&str> = arguments.lines().collect();
    let of_run = Path::new(lines[2]);
    assert!(of_run.starts_with(&working) && !of_run.exists(), "{arguments}");
    let include = format!(
        "default_include: none.d/*.conf\ninclude:\n- {0}/minion\n- {0}/minion.d/*.conf\n- {1}/inputs.conf\n",
        etc.display(),
        of_run.display()
    );
    assert_eq!(place.read("w/configuration/minion"), include);
    assert_eq!(lines[..2], ["--local", "--config-dir"]);
    assert_eq!(
        lines[3..],
        [
            "--file-root",
            working.to_str().unwrap(),
            "--log-file-level=quiet",
            "--metadata",
            "--out=json",
            "--retcode-passthrough",
            "state.sls",
            "the-id"
        ]
    );
}

#[test]
fn salts_failures_are_failed_responses() {
    let place = Place::new();
    let returned = place.path("returned");
    place.tool(&format!("cat {}; echo log >&2; exit 1", returned.display()));
    fs::write(&returned, include_str!("data/salt-call.failed.json")).unwrap();
    let response = place.response("hook-salt", &entry("x: y"));
    assert_eq!(response["deploy_status_code"], 2);
    assert_eq!(response["deploy_stdout"], Value::Null);
    assert!(stderr_of(&response).contains("was not found in SLS"), "{response}");
    fs::write(&returned, "Traceback").unwrap();
    let response = place.response("hook-salt", &entry("x: y"));
    assert_eq!(response["deploy_status_code"], 1);
    assert_eq!(
        (response["deploy_stdout"].as_str(), stderr_of(&response)),
        (Some("Traceback"), "log\n")
    );
}

/// Salt warns of patterns in `include` that nothing matches.
#[test]
fn salt_is_told_of_no_configuration_that_is_not_there() {
    let place = Place::new();
    place.tool("cp -r \"$3\" configuration; echo '{}'");
    place.response("hook-salt", &entry("x: y"));
    let main = place.read("w/configuration/minion");
    let included: Vec<&str> = main.lines().filter(|line| line.starts_with("- ")).collect();
    assert!(matches!(included[..], [only] if only.ends_with("/inputs.conf")), "{main}");
}

#[test]
fn hooks_that_are_not_served_say_so() {
    for name in ["chef", "kubelet", "atomic"] {
        let response = Place::new().response(&format!("hook-{name}"), &entry("x"));
        assert_eq!(response["deploy_status_code"], 1);
        assert!(stderr_of(&response).contains(&format!("no hook for group \"{name}\"")));
    }
    let output = Place::new().run("50-heat-config-kubelet", &Value::Null);
    assert!(output.status.success() && !output.stderr.is_empty());
}

#[test]
fn a_link_in_a_directory_of_hooks_is_the_hook_and_elsewhere_it_is_not() {
    let place = Place::new();
    place.tool("echo applied");
    let hooks = place.path("heat-config/hooks");
    fs::create_dir_all(&hooks).unwrap();
    for name in ["ansible", "script"] {
        symlink(AGENT, hooks.join(name)).unwrap();
    }
    symlink(AGENT, place.path("ansible")).unwrap();
    symlink(AGENT, place.path("hook-ansible")).unwrap();
    fs::write(place.path("entry"), entry("#!/bin/sh\necho applied\n").to_string()).unwrap();
    for (link, is_hook) in [
        ("heat-config/hooks/ansible", true),
        ("heat-config/hooks/script", true),
        ("hook-ansible", true),
        ("ansible", false),
    ] {
        let mut command = Command::new(place.path(link));
        for (name, value) in place.command("x").get_envs() {
            command.env(name, value.unwrap());
        }
        let output = command.stdin(fs::File::open(place.path("entry")).unwrap()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(
            text.contains("\"deploy_stdout\": \"applied\\n\""),
            is_hook,
            "{link}: {output:?}"
        );
    }
    let bin = place.path("bin");
    let made = Command::new(AGENT).arg("install-links").arg(&bin).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    for name in ["hook-ansible", "hook-docker-compose", "50-heat-config-docker-cmd"] {
        assert!(bin.join(name).exists(), "{name}");
    }
}

#[test]
fn the_agent_runs_built_in_hooks_in_its_own_directories_and_sees_their_live_output() {
    let (server, home) = (MiniServer::start(), Home::new());
    home.enroll(&server);
    let tool = home.path("fake-ansible");
    let go = home.path("go");
    let body = format!(
        "#!/bin/sh\necho playing\nwhile [ ! -e {} ]; do sleep 0.02; done\n\
         vars=${{7#@}}; test -f \"$vars\" && printf '%s' \"$4\" >\"$(dirname \"$(dirname \"$vars\")\")/outputs/play.r\"\nexit 4\n",
        go.display()
    );
    fs::write(&tool, body).unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = home.command(&["run"]);
    command.env("HEAT_ANSIBLE_CMD", &tool).stdin(Stdio::null()).stderr(Stdio::null());
    let _agent = support::Agent { child: command.spawn().unwrap() };
    let play = json!({"id": "play", "name": "n", "group": "ansible", "config": "---\n",
        "inputs": [{"name": "i", "value": 1}], "outputs": [{"name": "r"}], "options": {"tags": "t"}});
    server.push(1, &document(&[play]));
    server.wait("the live output", |seen| {
        let tails = seen.progress.iter().flat_map(|p| &p.deployments).map(|d| &d.output_tail);
        tails.flatten().any(|tail| tail.contains("playing\n"))
    });
    fs::write(go, "").unwrap();
    let result = server.wait_for_result("play");
    assert_eq!((result.status, result.deploy_status_code), (ResultStatus::Failed, 4));
    assert_eq!((&*result.deploy_stdout, &result.outputs["r"]), ("playing\n", &json!("t")));
    assert!(home.state().join("heat-config-ansible/work/play_playbook.yaml").exists());
}

/// A docker with a file for each container, in which is the id of its config.
const DOCKER: &str = r#"#!/bin/sh
cd "$(dirname "$0")"; mkdir -p containers; echo "$1 $3" >>calls
config=; for word in "$@"; do case $word in config_id=*) config=${word#*=};; *=config_id=*) config=${word##*=};; esac; done
case "$*" in
  inspect*) [ -e "containers/$4" ] && echo exists;;
  run*) echo "$config" >"containers/$3";;
  ps*-q*) cd containers; grep -lx "$config" *;;
  ps*config_id*) cat containers/*;;
  ps*) cd containers; for name in *; do echo "$name ${name%-*}"; done;;
  rename*) mv "containers/$2" "containers/$3";;
  rm*) rm "containers/$3";;
esac 2>/dev/null
"#;

#[test]
fn containers_of_deployments_that_have_left_go_before_others_start_and_when_none_do() {
    let (server, home) = (MiniServer::start(), Home::new());
    home.enroll(&server);
    let tool = home.path("docker");
    fs::write(&tool, DOCKER).unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = home.command(&["run"]);
    command.env("HEAT_DOCKER_CMD", &tool).stdin(Stdio::null()).stderr(Stdio::null());
    let _agent = support::Agent { child: command.spawn().unwrap() };
    let containers = |id: &str| {
        json!({"id": id, "name": "n", "group": "docker-cmd", "inputs": [],
            "config": {"web": {"image": "x"}}})
    };
    server.push(1, &document(&[containers("one"), support::script("other", "true")]));
    assert_eq!(server.wait_for_result("one").status, ResultStatus::Complete);
    assert_eq!(home.read("containers/web"), "one\n");
    // The name is free when the new one is started: the old one went before.
    server.push(2, &document(&[containers("two")]));
    assert_eq!(server.wait_for_result("two").status, ResultStatus::Complete);
    assert_eq!(home.read("containers/web"), "two\n");
    assert!(home.read("calls").contains("rm web\n"), "{}", home.read("calls"));
    server.push(3, &document(&[support::script("last", "true")]));
    support::wait_until("the end of the last container", || {
        (!home.path("containers/web").exists()).then_some(())
    });
}
