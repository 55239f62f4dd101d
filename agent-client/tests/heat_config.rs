//! `heat-config` as a program: what it leaves on disk, what hooks and Heat get to see, and what becomes of
//! an entry when something goes wrong.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use agent_client::document::ConfigId;
use agent_client::journal::{Journal, Received, Record};
use openstack_client::testing::{Answer, Asked, HttpServer};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// A machine: its list of entries, its hooks, what was deployed.
struct Place {
    directory: tempfile::TempDir,
}

/// Keeps what it reads, and answers with what the input `answer` says.
const HOOK: &str = r#"#!/bin/sh
cat > "$0.stdin"
echo "a log line" >&2
printf '%s' "${ANSWER:-}"
exit "${STATUS:-0}"
"#;

impl Place {
    fn new() -> Self {
        let place = Self { directory: tempfile::tempdir().unwrap() };
        for name in ["hooks", "bin"] {
            fs::create_dir(place.path(name)).unwrap();
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn program(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn hook(&self, name: &str, text: &str) {
        self.program(&format!("hooks/{name}"), text);
    }

    fn list(&self, entries: Value) {
        fs::write(self.path("list"), entries.to_string()).unwrap();
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_agent-client"));
        command.arg(name).env_clear();
        command.env("PATH", format!("{}:/usr/bin:/bin", self.path("bin").display()));
        command.env("HEAT_SHELL_CONFIG", self.path("list"));
        command.env("HEAT_CONFIG_HOOKS", self.path("hooks"));
        command.env("HEAT_CONFIG_DEPLOYED", self.path("deployed"));
        command.env("HEAT_CONFIG_DEPLOYED_OLD", self.path("deployed-old"));
        command.env("HEAT_CONFIG_NOTIFY_TIMEOUT", "0").env("PLACE", self.directory.path());
        command.stdin(Stdio::null()).current_dir(self.directory.path());
        command
    }

    fn run(&self) -> Output {
        let output = self.command("heat-config").output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        output
    }

    /// The names there; those that begin with a dot are on their way.
    fn deployed(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("deployed")).into_iter().flatten();
        let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| !name.starts_with('.')).collect();
        names.sort();
        names
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_str(&self.read(name)).unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn entry(id: &str, group: &str) -> Value {
    json!({"id": id, "group": group, "config": "c", "inputs": []})
}

fn signalled(id: &str, group: &str, server: &HttpServer) -> Value {
    let url = server.url(&format!("/{id}?Signature=very-secret"));
    let input = json!({"name": "deploy_signal_id", "value": url, "type": "String"});
    json!({"id": id, "group": group, "config": "c", "inputs": [input]})
}

/// Heat, which answers with the status of the moment.
fn heat(status: u16) -> (HttpServer, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(status));
    let now = Arc::clone(&status);
    let server = HttpServer::start(move |_: &Asked| Answer::new(now.load(Ordering::SeqCst), ""));
    (server, status)
}

fn sent(server: &HttpServer) -> Vec<(String, Value)> {
    let asked = server.asked();
    asked
        .iter()
        .map(|asked| {
            let path = asked.target.split('?').next().unwrap().to_owned();
            (path, serde_json::from_slice(&asked.body).unwrap())
        })
        .collect()
}

#[test]
fn a_hook_runs_once_and_leaves_the_files_that_python_leaves() {
    let place = Place::new();
    place.hook("a-hook", HOOK);
    let inputs = json!([
        {"name": "n", "type": "String", "value": 5}, {"name": "z", "type": "String", "value": null},
        {"name": "o", "type": "String", "value": {"ü": [true]}}, {"name": "j", "type": "Json", "value": {"a": 1.0}}]);
    place.list(json!([{"id": "1111", "group": "a-.ho/ok", "inputs": inputs, "config": "é"}]));
    let answer = r#"{"deploy_status_code": "0", "deploy_stdout": "ü", "extra": [1, {}]}"#;
    let run = || place.command("heat-config").env("ANSWER", answer).env("STATUS", "9").output();
    let output = run().unwrap();
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), ""));

    let seen = r#"{"id": "1111", "group": "a-.ho/ok", "inputs": [{"name": "n", "type": "String", "value": "5"}, {"name": "z", "type": "String", "value": ""}, {"name": "o", "type": "String", "value": "{\"\\u00fc\": [true]}"}, {"name": "j", "type": "Json", "value": {"a": 1.0}}], "config": "\u00e9"}"#;
    assert_eq!(place.read("hooks/a-hook.stdin"), seen);
    let parsed: Value = serde_json::from_str(seen).unwrap();
    assert_eq!(place.json("deployed/1111.json"), parsed);
    assert!(place.read("deployed/1111.json").starts_with("{\n  \"id\": \"1111\",\n  \"group\""));
    let notify = "{\n  \"deploy_status_code\": \"0\",\n  \"deploy_stdout\": \"\\u00fc\",\n  \"extra\": [\n    1,\n    {}\n  ]\n}";
    assert_eq!(place.read("deployed/1111.notify.json"), notify);
    assert_eq!(place.deployed(), ["1111.json", "1111.notify.json"]);
    for (name, mode) in [
        ("deployed", 0o700),
        ("deployed/1111.json", 0o600),
        ("deployed/1111.notify.json", 0o600),
        ("list", 0o600),
    ] {
        assert_eq!(fs::metadata(place.path(name)).unwrap().mode() & 0o777, mode, "{name}");
    }

    fs::remove_file(place.path("hooks/a-hook.stdin")).unwrap();
    let again = run().unwrap();
    assert!(!place.path("hooks/a-hook.stdin").exists(), "it is not run again");
    assert!(text(&again.stderr).contains("Skipping config 1111, already deployed"));
    assert!(text(&again.stderr).contains("To force-deploy, rm "));
    fs::remove_file(place.path("deployed/1111.json")).unwrap();
    run().unwrap();
    assert!(place.path("hooks/a-hook.stdin").exists(), "without the file it is");
}

#[test]
fn what_a_hook_answers_becomes_the_signal() {
    for (answer, status, expected) in [
        ("", "0", json!({})),
        (
            "",
            "3",
            json!({"deploy_stdout": "", "deploy_stderr": "a log line\n", "deploy_status_code": 3}),
        ),
        (
            "text",
            "0",
            json!({"deploy_stdout": "text", "deploy_stderr": "a log line\n", "deploy_status_code": 0}),
        ),
        ("{\"r\": 1}", "9", json!({"r": 1})),
    ] {
        let place = Place::new();
        let (server, _) = heat(200);
        place.hook("h", HOOK);
        place.list(json!([signalled("a", "h", &server)]));
        let output =
            place.command("heat-config").env("ANSWER", answer).env("STATUS", status).output();
        assert_eq!(output.unwrap().status.code(), Some(0), "a failing hook is no failure of ours");
        assert_eq!(place.json("deployed/a.notify.json"), expected);
        assert_eq!(sent(&server), [("/a".into(), expected)]);
    }
}

#[test]
fn every_entry_ends_in_a_signal_and_none_stops_the_next() {
    let place = Place::new();
    let (server, _) = heat(200);
    place.hook("good", HOOK);
    place.hook("plain", "no program");
    fs::set_permissions(place.path("hooks/plain"), fs::Permissions::from_mode(0o644)).unwrap();
    place.hook("no-interpreter", "#!/no/such/program\n");
    let mut no_value = signalled("no-value", "good", &server);
    no_value["inputs"].as_array_mut().unwrap().push(json!({"name": "x"}));
    let mut no_group = signalled("no-group", "good", &server);
    no_group.as_object_mut().unwrap().remove("group");
    let mut no_id = signalled("no-id", "good", &server);
    no_id.as_object_mut().unwrap().remove("id");
    let mut component = signalled("component", "component", &server);
    component["config"] =
        json!({"configs": [{"actions": ["DELETE"], "tool": "good", "config": ""}]});
    place.list(json!([
        signalled("no-hook", "nothing", &server),
        signalled("plain", "plain", &server),
        signalled("no-interpreter", "no-interpreter", &server),
        no_value,
        no_group,
        no_id,
        component,
        5,
        entry("data", "os-apply-config"),
        signalled("../escape", "good", &server),
        signalled("good", "good", &server),
    ]));
    let output = place.run();
    let sent = sent(&server);
    let why = |path: &str| {
        let (_, data) = sent.iter().find(|(sent, _)| sent == path).unwrap();
        assert_eq!(data["deploy_status_code"], 1, "{path}");
        data["deploy_stderr"].as_str().unwrap().to_owned()
    };
    for (path, reason) in [
        ("/no-hook", "no such hook: \"nothing\""),
        ("/plain", "try: chmod +x"),
        ("/no-interpreter", "interpreter"),
        ("/no-value", "bad entry: input \"x\" has no value"),
        ("/no-group", "bad entry: it has no group"),
        ("/no-id", "bad entry: it has no id"),
        ("/component", "no config for action"),
    ] {
        assert!(why(path).contains(reason), "{path}: {}", why(path));
    }
    assert_eq!(sent.len(), 9, "{sent:?}");
    assert_eq!(sent.last().unwrap(), &("/good".to_owned(), json!({})));
    assert!(text(&output.stderr).contains("An entry is no object"));
    assert!(!place.path("escape.json").exists() && !place.path("deployed/data.json").exists());
    assert!(!text(&output.stderr).contains("very-secret"), "{}", text(&output.stderr));
    place.run();
    assert_eq!(self::sent(&server).len(), 9, "and once only");
}

#[test]
fn a_result_that_nobody_takes_is_kept_and_sent_by_a_later_run() {
    let place = Place::new();
    let (server, status) = heat(503);
    place.hook("h", HOOK);
    place.list(json!([signalled("a", "h", &server), signalled("b", "h", &server)]));
    let output = place.run();
    assert!(text(&output.stderr).contains("sent again by the next run"));
    let unfinished = ["a.json", "a.notify.json", "a.unsent", "b.json", "b.notify.json", "b.unsent"];
    assert_eq!(place.deployed(), unfinished);
    place.run();
    assert_eq!(place.deployed(), unfinished);
    fs::remove_file(place.path("hooks/h.stdin")).unwrap();

    status.store(200, Ordering::SeqCst);
    place.list(json!([signalled("b", "h", &server)]));
    let before = server.asked().len();
    let output = place.run();
    assert_eq!(sent(&server)[before..], [("/b".to_owned(), json!({}))]);
    assert!(text(&output.stderr).contains("a.unsent: nobody asks for this config any more"));
    assert_eq!(place.deployed(), ["a.json", "a.notify.json", "b.json", "b.notify.json"]);
    assert!(!place.path("hooks/h.stdin").exists(), "no hook ran again");
}

#[test]
fn a_result_that_is_refused_is_not_sent_again() {
    let place = Place::new();
    let (server, _) = heat(403);
    place.hook("h", HOOK);
    place.list(json!([signalled("a", "h", &server)]));
    let output = place.run();
    assert!(text(&output.stderr).contains("refused"), "{}", text(&output.stderr));
    assert_eq!(place.deployed(), ["a.json", "a.notify.json"]);
    place.run();
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn another_program_may_send_the_result() {
    let place = Place::new();
    place.hook("h", HOOK);
    let notify =
        "#!/bin/sh\n{ echo \"$# $1\"; cat; } > \"$PLACE/told\"\nexit \"${NOTIFY_STATUS:-0}\"\n";
    place.program("bin/heat-config-notify", notify);
    place.program("another", notify);
    let told = |record: &str| {
        format!("1 {}/{record}\n{{\"r\": \"\\u00fc\"}}", place.path("deployed").display())
    };
    for (id, another, status, files) in
        [("a", false, "0", 2), ("b", true, "0", 2), ("c", true, "1", 3)]
    {
        place.list(json!([entry(id, "h")]));
        let mut command = place.command("heat-config");
        command.env("ANSWER", "{\"r\":\"ü\"}").env("NOTIFY_STATUS", status);
        if another {
            command.env("HEAT_CONFIG_NOTIFY", place.path("another"));
        }
        assert_eq!(command.output().unwrap().status.code(), Some(0));
        assert_eq!(place.read("told"), told(&format!("{id}.json")));
        assert_eq!(place.deployed().iter().filter(|name| name.starts_with(id)).count(), files);
        fs::remove_file(place.path("told")).unwrap();
    }
    place.list(json!([entry("d", "h")]));
    let missing = place.command("heat-config").env("HEAT_CONFIG_NOTIFY", "/no/such").output();
    assert_eq!(missing.unwrap().status.code(), Some(0));
    assert!(place.path("deployed/d.unsent").exists());
}

/// Says that it runs, and goes on for a minute, itself and what it has started.
const SLEEPER: &str = "#!/bin/sh\ncat > /dev/null\nsleep 60 &\necho $! > \"$PLACE/child\"\n\
                       echo up > \"$PLACE/up\"\nsleep 60\n";

impl Place {
    /// Starts heat-config and waits until [`SLEEPER`] runs.
    fn start_sleeper(&self) -> Child {
        self.hook("sleeper", SLEEPER);
        let status = Command::new("mkfifo").arg(self.path("up")).status().unwrap();
        assert!(status.success());
        let mut command = self.command("heat-config");
        let child = command.stderr(Stdio::null()).spawn().unwrap();
        let mut word = String::new();
        fs::File::open(self.path("up")).unwrap().read_to_string(&mut word).unwrap();
        assert_eq!(word, "up\n");
        child
    }

    fn assert_nothing_is_left(&self) {
        let pid = self.read("child").trim().to_owned();
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let dead = state.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']));
        assert!(dead, "what the hook started is gone: {state}");
    }
}

#[test]
fn a_hook_that_was_cut_off_is_reported_as_interrupted_and_not_run_again() {
    let place = Place::new();
    let (server, _) = heat(200);
    place.list(json!([signalled("a", "sleeper", &server), signalled("b", "h", &server)]));
    place.hook("h", HOOK);
    let mut child = place.start_sleeper();
    assert_eq!(place.deployed(), ["a.json", "a.running"]);
    let busy = place.run();
    assert!(text(&busy.stderr).contains(&format!("process {} is at it", child.id())));
    assert_eq!(sent(&server), [("/b".to_owned(), json!({}))], "the other goes on with the next");

    child.kill().unwrap();
    child.wait().unwrap();
    place.run();
    let (path, data) = sent(&server).pop().unwrap();
    assert_eq!((path.as_str(), &data["deploy_status_code"]), ("/a", &json!(1)));
    let why = data["deploy_stderr"].as_str().unwrap();
    assert!(why.contains("interrupted") && why.contains("was killed"), "{why}");
    place.assert_nothing_is_left();
    assert_eq!(place.json("deployed/a.notify.json"), data);
    place.run();
    assert_eq!(server.asked().len(), 2);
}

#[test]
fn asked_to_end_it_ends_the_hook_and_the_next_run_reports_it() {
    let place = Place::new();
    let (server, _) = heat(200);
    place.list(json!([signalled("a", "sleeper", &server)]));
    let mut child = place.start_sleeper();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(128 + 15));
    place.assert_nothing_is_left();
    assert_eq!(place.deployed(), ["a.json", "a.notify.json", "a.unsent"]);
    assert!(server.asked().is_empty());
    place.run();
    let (_, data) = sent(&server).pop().unwrap();
    assert!(data["deploy_stderr"].as_str().unwrap().contains("heat-config was stopped"));
}

#[test]
fn a_hook_that_takes_too_long_is_ended_with_all_that_it_started() {
    for (options, default) in
        [(json!({"timeout": 0.5}), ""), (json!(null), "0.5"), (json!({"timeout": "0.5"}), "600")]
    {
        let place = Place::new();
        place.hook("sleeper", &SLEEPER.replace("echo up > \"$PLACE/up\"\n", "echo begun\n"));
        let mut entry = entry("a", "sleeper");
        entry["options"] = options;
        place.list(json!([entry]));
        let output = place.command("heat-config").env("HEAT_CONFIG_TIMEOUT", default).output();
        assert_eq!(output.unwrap().status.code(), Some(0));
        let data = place.json("deployed/a.notify.json");
        assert_eq!(
            (&data["deploy_stdout"], &data["deploy_status_code"]),
            (&json!("begun\n"), &json!(-15))
        );
        assert!(
            data["deploy_stderr"].as_str().unwrap().contains("timed out after 0.5 s"),
            "{data}"
        );
        place.assert_nothing_is_left();
    }
}

/// Tells that it was started, and what for.
const COUNTED: &str = "#!/bin/sh\nid=$(grep -o '\"id\": \"[^\"]*\"' | head -1)\n\
                       echo \"$id\" >> \"$PLACE/started\"\nprintf '{\"said\": 1}'\n";

#[test]
fn of_many_at_a_time_one_runs_an_entry() {
    let place = Place::new();
    let (server, _) = heat(200);
    place.hook("h", COUNTED);
    let ids: Vec<_> = (0..8).map(|n| format!("e{n}")).collect();
    place.list(ids.iter().map(|id| signalled(id, "h", &server)).collect());
    let mut children: Vec<_> = (0..5)
        .map(|_| place.command("heat-config").stderr(Stdio::piped()).spawn().unwrap())
        .collect();
    for child in children.drain(..) {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    place.run();
    assert_eq!(place.read("started").lines().count(), ids.len());
    let mut paths: Vec<_> = sent(&server).into_iter().map(|(path, _)| path).collect();
    paths.sort();
    assert_eq!(paths, ids.iter().map(|id| format!("/{id}")).collect::<Vec<_>>());
}

#[test]
fn killed_at_any_moment_each_entry_ends_in_a_signal_and_no_hook_runs_twice() {
    let place = Place::new();
    let (server, _) = heat(200);
    place.hook("h", COUNTED);
    let ids: Vec<_> = (0..12).map(|n| format!("e{n}")).collect();
    place.list(ids.iter().map(|id| signalled(id, "h", &server)).collect());
    let mut moment = 3;
    for _ in 0..25 {
        let mut child = place.command("heat-config").stderr(Stdio::null()).spawn().unwrap();
        // Spread over what a run takes; whatever it hits has to be right.
        moment = (moment * 7 + 5) % 61;
        std::thread::sleep(std::time::Duration::from_millis(moment));
        // It may have ended already.
        let _ = child.kill();
        child.wait().unwrap();
    }
    place.run();
    place.run();
    let mut started: Vec<_> = place.read("started").lines().map(str::to_owned).collect();
    started.sort();
    let runs = started.len();
    started.dedup();
    assert_eq!(started.len(), runs, "no hook ran twice");
    let sent = sent(&server);
    for id in &ids {
        let of_id: Vec<_> = sent.iter().filter(|(path, _)| *path == format!("/{id}")).collect();
        assert!(!of_id.is_empty(), "{id} ends in a signal");
        for (_, data) in &of_id {
            assert_eq!(data, &of_id[0].1, "{id} has one result, however often it is sent");
            let interrupted =
                data["deploy_stderr"].as_str().is_some_and(|e| e.contains("interrupted"));
            assert!(interrupted || data["said"] == 1, "{data}");
        }
    }
    assert!(place.deployed().iter().all(|name| name.ends_with(".json")));
}

#[test]
fn secrets_of_the_inputs_are_not_in_the_log() {
    let place = Place::new();
    place.hook("h", "#!/bin/sh\necho read:\ncat | tee /dev/stderr\nexit 3\n");
    let mut entry = entry("a", "h");
    entry["inputs"] = json!([{"name": "db_password", "value": "hunter22-secret"}, {"name": "plain", "value": "shown-value"}]);
    place.list(json!([entry]));
    let log = text(&place.run().stderr);
    assert!(log.contains("shown-value") && !log.contains("hunter22"), "{log}");
    let stdout = place.json("deployed/a.notify.json")["deploy_stdout"].to_string();
    assert!(stdout.contains("hunter22"), "Heat gets what the hook printed");
}

#[test]
fn the_component_config_of_the_action_is_run() {
    let place = Place::new();
    place.hook("tool", HOOK);
    let parts = json!([
        {"actions": ["DELETE"], "tool": "other", "config": "no"},
        {"actions": ["CREATE", "UPDATE"], "tool": "tool", "config": "yes"}]);
    place.list(json!([{"id": "a", "group": "component", "config": {"configs": parts},
        "inputs": [{"name": "deploy_action", "value": "UPDATE"}]}]));
    place.run();
    let seen = place.json("hooks/tool.stdin");
    assert_eq!((&seen["group"], &seen["config"]), (&json!("tool"), &json!("yes")));
    assert_eq!(place.json("deployed/a.json"), seen);
}

#[test]
fn a_group_of_data_is_run_only_where_there_is_such_a_hook() {
    let place = Place::new();
    place.list(json!([entry("a", "Heat::Ungrouped"), entry("b", "os-apply-config")]));
    place.run();
    assert!(place.deployed().is_empty());
    place.hook("HeatUngrouped", HOOK);
    place.run();
    assert_eq!(place.deployed(), ["a.json", "a.notify.json"]);
}

#[test]
fn lists_that_are_missing_or_no_lists_end_as_before() {
    let place = Place::new();
    let output = place.command("55-heat-config").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("No config file"));
    for (list, code, says) in [
        ("", 0, ""),
        ("\n", 0, ""),
        ("[]", 0, ""),
        ("[{\"secret\": ", 0, "is no JSON"),
        ("\u{0}\u{1}", 0, "is no JSON"),
        ("{}", 0, "is no list"),
        ("null", 1, "is no list"),
        ("5", 1, "is no list"),
    ] {
        fs::write(place.path("list"), list).unwrap();
        let output = place.command("55-heat-config").output().unwrap();
        let log = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{list:?}: {log}");
        assert!(log.contains(says) && says.is_empty() == log.is_empty(), "{list:?}: {log}");
        assert!(!log.contains("secret"));
    }
}

#[test]
fn the_old_directory_is_moved_once() {
    let place = Place::new();
    place.hook("h", HOOK);
    place.list(json!([entry("a", "h"), entry("b", "h")]));
    fs::create_dir(place.path("deployed-old")).unwrap();
    fs::write(place.path("deployed-old/a.json"), "{}").unwrap();
    place.run();
    assert_eq!(place.deployed(), ["a.json", "b.json", "b.notify.json"]);
    assert!(!place.path("deployed-old").exists());
}

#[test]
fn notify_tells_what_is_final_from_what_is_not() {
    let place = Place::new();
    let (server, status) = heat(200);
    fs::write(place.path("config"), signalled("a", "h", &server).to_string()).unwrap();
    fs::write(place.path("no-signal"), entry("a", "h").to_string()).unwrap();
    fs::write(place.path("no-inputs"), "{}").unwrap();
    fs::write(place.path("no-json"), "{\"secret").unwrap();
    fs::write(place.path("data"), "{\"r\": \"ü\"}").unwrap();
    fs::write(place.path("bad-data"), "{\"r\": \"ü\"}{\"r\"").unwrap();
    let notify = |arguments: &[&str], stdin: Option<&str>| {
        let mut command = place.command("heat-config-notify");
        command.args(arguments);
        if let Some(stdin) = stdin {
            command.stdin(fs::File::open(place.path(stdin)).unwrap());
        }
        let output = command.output().unwrap();
        let log = text(&output.stderr);
        assert!(!log.contains("secret") && output.stdout.is_empty(), "{log}");
        (output.status.code().unwrap(), log)
    };
    assert_eq!(notify(&["config"], Some("data")).0, 0);
    assert_eq!(notify(&["config"], Some("bad-data")).0, 0);
    assert_eq!(notify(&["config"], None).0, 0);
    let bodies: Vec<_> = server.asked().iter().map(Asked::text).collect();
    assert_eq!(bodies, ["{\"r\": \"\\u00fc\"}", "{}", "{}"]);
    for (answer, code) in [(503, 69), (403, 77), (304, 77), (429, 69)] {
        status.store(answer, Ordering::SeqCst);
        assert_eq!(notify(&["config"], Some("data")).0, code, "{answer}");
    }
    assert_eq!(notify(&["no-signal"], Some("data")).0, 0);
    for arguments in [&[][..], &["missing"], &["no-inputs"], &["no-json"]] {
        let (code, log) = notify(arguments, Some("data"));
        assert_eq!(code, 1, "{arguments:?}: {log}");
        assert_eq!(log.contains("Usage:"), arguments.is_empty() || arguments == ["missing"]);
    }
}

#[test]
fn rebuilding_marks_everything_as_done_but_data() {
    for count in [0, 1, 3] {
        let place = Place::new();
        let mut deployments: Vec<_> = (0..count).map(|n| entry(&format!("id-{n}"), "h")).collect();
        deployments.push(entry("data", "os-apply-config"));
        deployments.push(entry("none", "Heat::Ungrouped"));
        let metadata = json!({"deployments": deployments});
        fs::write(place.path("metadata"), metadata.to_string()).unwrap();
        let output = place
            .command("heat-config-rebuild-deployed")
            .env("OS_CONFIG_FILES", place.path("metadata"))
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let names: Vec<_> = (0..count).map(|n| format!("id-{n}.json")).collect();
        assert_eq!(place.deployed(), names);
        let said = text(&output.stdout);
        assert!(said.contains(&format!("Found {} deployments.", count + 2)), "{said}");
        assert!(said.contains("Skipping creating deployed file for deployment data"), "{said}");
    }
}

#[test]
fn deployments_that_are_data_are_signalled_once_when_all_is_configured() {
    let place = Place::new();
    let (server, status) = heat(200);
    let metadata = json!({
        "instance-id": "i-1",
        "completion-handle": server.url("/handle?Signature=very-secret"),
        "completion-signal": server.url("/signal"),
        "deployments": [
            signalled("a", "os-apply-config", &server), signalled("b", "script", &server),
            signalled("c", "Heat::Ungrouped", &server), entry("d", "os-apply-config")],
    });
    fs::write(place.path("metadata"), metadata.to_string()).unwrap();
    let run = || {
        let mut command = place.command("99-refresh-completed");
        command.env("OS_CONFIG_FILES", place.path("metadata"));
        let output = command.env("OS_APPLY_CONFIG_DEPLOYED", place.path("oac")).output().unwrap();
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(!said.contains("very-secret"), "{said}");
        (output.status.code().unwrap(), said)
    };
    status.store(503, Ordering::SeqCst);
    assert_eq!(run().0, 1, "os-collect-config tries again");
    assert_eq!(fs::read_dir(place.path("oac")).unwrap().count(), 0);
    status.store(200, Ordering::SeqCst);
    let before = server.asked().len();
    let (code, said) = run();
    assert_eq!(code, 0, "{said}");
    let asked = &server.asked()[before..];
    let methods: Vec<_> = asked.iter().map(|asked| asked.method.as_str()).collect();
    assert_eq!(methods, ["PUT", "POST", "POST", "POST"]);
    let condition = json!({"Status": "SUCCESS", "Reason": "Configuration Complete", "UniqueId": "i-1", "Data": "Finished os-refresh-config."});
    let deployment = |id| json!({"deploy_stdout": format!("os-apply-config deployment {id} completed"), "deploy_status_code": "0"});
    assert_eq!(
        sent(&server)[before..],
        [
            ("/handle".to_owned(), condition.clone()),
            ("/signal".to_owned(), condition),
            ("/a".to_owned(), deployment("a")),
            ("/c".to_owned(), deployment("c")),
        ]
    );
    let (code, said) = run();
    assert_eq!((code, said.contains("Skipping a, already deployed")), (0, true), "{said}");
    assert_eq!(server.asked().len(), before + 6, "conditions again, deployments not");
}

/// An agent's journal in which these were received, and the second was started too.
fn journal_of_agent(place: &Place, received: &str, started: &str) {
    let state = place.path("agent");
    fs::create_dir(&state).unwrap();
    let mut journal = Journal::open(&state.join("journal")).unwrap();
    let record = |id: &str| Received {
        id: ConfigId::new(id).unwrap(),
        name: String::new(),
        group: String::new(),
        action: String::new(),
        document_version: 1,
        at_unix_ms: 1,
        rerun: None,
        way: None,
    };
    for id in [received, started] {
        journal.stage(Record::Received(record(id))).unwrap();
    }
    let id = ConfigId::new(started).unwrap();
    let boot_id = "boot".into();
    journal.stage(Record::Started { id, at_unix_ms: 2, boot_id }).unwrap();
    journal.commit().unwrap();
}

#[test]
fn what_the_agent_of_this_machine_runs_is_left_to_it_and_not_marked() {
    let place = Place::new();
    place.hook("h", HOOK);
    place.program(
        "bin/heat-config-notify",
        "#!/bin/sh\ncat > /dev/null\necho \"$1\" >> $PLACE/notified\n",
    );
    journal_of_agent(&place, "waits", "runs");
    place.list(json!([entry("waits", "h"), entry("runs", "no-such-hook"), entry("other", "h")]));
    let output = place
        .command("heat-config")
        .env("AGENT_CLIENT_STATE_DIR", place.path("agent"))
        .output()
        .unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(
        said.contains(
            "[WARNING] Skipping config waits, agent-client will run it; see agent-client why waits"
        ),
        "{said}"
    );
    assert!(said.contains("[WARNING] Skipping config runs, agent-client runs it; see"), "{said}");
    assert_eq!(place.deployed(), ["other.json", "other.notify.json"]);
    assert_eq!(place.read("notified").lines().count(), 1);
    // Without that agent as before.
    place.run();
    assert!(place.deployed().contains(&"waits.json".to_owned()));
    assert!(place.deployed().contains(&"runs.notify.json".to_owned()));
}

#[test]
fn the_loop_of_os_collect_config_sends_what_could_not_be_sent() {
    let place = Place::new();
    place.hook("h", HOOK);
    let (server, status) = heat(503);
    place.list(json!([signalled("a", "h", &server)]));
    place.run();
    assert_eq!(place.deployed(), ["a.json", "a.notify.json", "a.unsent"]);
    // A result of an entry that has left the list is nobody's.
    fs::copy(place.path("deployed/a.json"), place.path("deployed/gone.json")).unwrap();
    fs::copy(place.path("deployed/a.notify.json"), place.path("deployed/gone.notify.json"))
        .unwrap();
    fs::copy(place.path("deployed/a.unsent"), place.path("deployed/gone.unsent")).unwrap();
    let before = sent(&server).len();
    status.store(200, Ordering::SeqCst);
    let conf = format!(
        "[DEFAULT]\ncommand=true\ncachedir={0}/cache\nbackup_cachedir={0}/backup\ncollectors=local\n\
         min_polling_interval=0.05\npolling_interval=0.05\n[local]\npath={0}/hooks\n",
        place.directory.path().display()
    );
    fs::write(place.path("conf"), conf).unwrap();
    let mut command = place.command("os-collect-config");
    let mut child = command.args(["--config-file", "conf"]).stderr(Stdio::null()).spawn().unwrap();
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(15);
    while place.deployed().contains(&"a.unsent".to_owned()) {
        assert!(std::time::Instant::now() < patience, "{:?}", place.deployed());
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(sent(&server).len(), before + 1);
    assert!(place.deployed().contains(&"gone.unsent".to_owned()));
}

#[test]
fn a_result_whose_url_is_over_is_not_sent_again() {
    let place = Place::new();
    place.hook("h", HOOK);
    let (server, _) = heat(503);
    let mut temporary = signalled("a", "h", &server);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let url = |expires: u64| server.url(&format!("/a?temp_url_sig=x&temp_url_expires={expires}"));
    temporary["inputs"][0]["value"] = url(now + 600).into();
    place.list(json!([temporary]));
    place.run();
    assert!(place.deployed().contains(&"a.unsent".to_owned()));
    let before = sent(&server).len();
    temporary["inputs"][0]["value"] = url(now - 1).into();
    place.list(json!([temporary]));
    let said = text(&place.run().stderr);
    assert!(said.contains("the time of the URL for its result is over"), "{said}");
    assert_eq!(place.deployed(), ["a.json", "a.notify.json"]);
    assert_eq!(sent(&server).len(), before);
}
