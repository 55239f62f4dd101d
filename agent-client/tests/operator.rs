//! The operator's commands, against an agent that runs and one that does not.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use metadata_delivery::message::{DeploymentResult, ResultStatus};
use serde_json::{Value, json};
use support::{Home, MiniServer, document, script, wait_until};

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a command that succeeds, and returns its standard output as JSON.
#[track_caller]
fn json_of(home: &Home, args: &[&str]) -> Value {
    let output = home.output(&[args, &["--json"]].concat());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{args:?}: {e}: {output:?}"))
}

/// Waits until `why` says this.
#[track_caller]
fn wait_for_why(home: &Home, id: &str, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    wait_until(&format!("{what}; log: {}", home.read("log")), || {
        Some(json_of(home, &["why", id])).filter(&fits)
    })
}

#[track_caller]
fn wait_until_stored(home: &Home, id: &str) -> Value {
    wait_for_why(home, id, "a stored result", |why| why["result_stored"] == true)
}

/// The result of a later run.
#[track_caller]
fn result_of_run(server: &MiniServer, id: &str, run: u64) -> DeploymentResult {
    let is_it = |r: &DeploymentResult| r.config_id == id && r.run() == run;
    let seen = server
        .wait(&format!("the result of run {run} of {id}"), |seen| seen.results.iter().any(is_it));
    seen.results.into_iter().find(is_it).unwrap()
}

/// A script that goes on when the file is there.
fn waiting_for(path: &std::path::Path) -> String {
    format!("until [ -e {} ]; do sleep 0.02; done", path.display())
}

#[test]
fn why_follows_a_deployment_from_its_start_to_the_servers_and_beyond_the_document() {
    let (server, home) = (MiniServer::start(), Home::new());
    home.enroll(&server);
    let agent = home.run(&[]);
    let go = home.path("go");
    server.push(
        4,
        &document(&[
            script("11-slow", &format!("echo on; {}", waiting_for(&go))),
            script("12-fails", "exit 3"),
            json!({"id": "13-data", "name": "files", "group": "os-apply-config", "config": {}}),
        ]),
    );
    let running = wait_for_why(&home, "name-of-11-slow", "the run", |w| w["state"] == "running");
    assert_eq!((&running["schema"], &running["answer"]), (&json!(1), &json!("why")));
    assert_eq!(running["hook"], json!({"name": "script", "place": "built in"}));
    assert!(running["pid"].as_u64().unwrap() > 1);
    assert!(running["timeout_unix_ms"].as_u64() > running["started_unix_ms"].as_u64());
    assert_eq!((&running["document_version"], &running["place"]), (&json!(4), &json!([1, 3])));
    let status = wait_until("the run in the status", || {
        let status = json_of(&home, &["status"])["status"].take();
        (status["deployments"][0]["pid"] == running["pid"]).then_some(status)
    });
    assert!(
        status["deployments"][0]["timeout_unix_ms"].as_u64() > status["updated_unix_ms"].as_u64()
    );
    assert!(status["running_since_unix_ms"].as_u64().is_some());
    let waiting = json_of(&home, &["why", "12"]);
    assert_eq!(waiting["state"], "received");
    assert_eq!(waiting["next"], "waits for name-of-11-slow (11-slow)");
    assert_eq!(home.output(&["why", "12"]).status.code(), Some(2));

    std::fs::write(go, "").unwrap();
    let failed = wait_until_stored(&home, "12-fails");
    assert_eq!((&failed["state"], &failed["status_code"]), (&json!("failed"), &json!(3)));
    assert!(failed["signalled_unix_ms"].as_u64() >= failed["finished_unix_ms"].as_u64());
    let shown = home.output(&["why", "12-fails"]);
    assert_eq!(shown.status.code(), Some(1));
    assert!(stdout(&shown).contains("  try: agent-client rerun 12-fails"), "{}", stdout(&shown));
    assert_eq!(home.output(&["why", "11-slow"]).status.code(), Some(0));
    let data = home.output(&["why", "files"]);
    assert_eq!(data.status.code(), Some(0));
    assert!(stdout(&data).contains("it is data for templates"), "{}", stdout(&data));

    let ambiguous = home.output(&["why", "1"]);
    assert_eq!(ambiguous.status.code(), Some(64));
    let text = stderr(&ambiguous);
    assert!(text.contains("any of 3 deployments") && text.contains("12-fails (name-of-12-fails)"));
    let unknown = home.output(&["why", "nobody", "--json"]);
    assert_eq!(unknown.status.code(), Some(64));
    assert!(stderr(&unknown).contains("never heard of \"nobody\""), "{}", stderr(&unknown));
    assert!(stderr(&unknown).contains("  try: "));
    let refused: Value = serde_json::from_slice(&unknown.stdout).unwrap();
    assert_eq!(
        (&refused["answer"], &refused["code"]),
        (&json!("refused"), &json!("never_heard_of"))
    );

    server.push(5, &document(&[]));
    let gone = wait_for_why(&home, "12-fails", "another document", |w| w["in_force"] == false);
    assert_eq!((&gone["name"], &gone["status_code"]), (&json!("name-of-12-fails"), &json!(3)));
    agent.kill_9();
    let offline = json_of(&home, &["why", "name-of-12-fails"]);
    assert_eq!(offline, gone, "the same without an agent");
}

#[test]
fn a_rerun_runs_once_more_and_its_result_replaces_the_first_at_the_server() {
    let (server, home) = (MiniServer::start(), Home::new());
    home.enroll(&server);
    let _agent = home.run(&[]);
    let (ran, go) = (home.path("ran").display().to_string(), home.path("go"));
    let body = format!("echo run >> {ran}; {}; wc -l < {ran}", waiting_for(&go));
    server.push(
        1,
        &document(&[
            script("a", &body),
            json!({"id": "data", "name": "d", "group": "Heat::Ungrouped"}),
            json!({"id": "bad", "name": "b", "group": "script"}),
        ]),
    );
    wait_for_why(&home, "a", "the run", |w| w["state"] == "running");
    let early = home.output(&["rerun", "a"]);
    assert_eq!(early.status.code(), Some(1));
    assert!(stderr(&early).contains("runs at the moment"), "{}", stderr(&early));
    assert!(stderr(&early).contains("  try: agent-client logs a --follow"));
    std::fs::write(&go, "").unwrap();
    wait_until_stored(&home, "a");
    wait_until_stored(&home, "bad");
    for (id, words) in [("data", "data for templates"), ("bad", "bad entry: it has no inputs")] {
        let refused = home.output(&["rerun", id]);
        assert_eq!(refused.status.code(), Some(1));
        assert!(stderr(&refused).contains(words), "{}", stderr(&refused));
        assert!(stderr(&refused).contains("  try: "), "{}", stderr(&refused));
    }

    let rerun = home.output(&["rerun", "name-of-a"]);
    assert_eq!(rerun.status.code(), Some(0), "{}", stderr(&rerun));
    assert!(stdout(&rerun).contains("run 2"), "{}", stdout(&rerun));
    assert!(stderr(&rerun).contains("next: agent-client logs a --follow"));
    let second = result_of_run(&server, "a", 2);
    assert_eq!((second.status, &*second.deploy_stdout), (ResultStatus::Complete, "2\n"));
    let asked_by = second.rerun.unwrap().asked_by;
    assert!(
        asked_by.contains(&format!("uid {}", rustix::process::geteuid().as_raw())),
        "{asked_by}"
    );
    let known = wait_until_stored(&home, "a");
    assert_eq!((&known["run"], &known["rerun_by"]), (&json!(2), &json!(asked_by)));
    let waited = home.output(&["rerun", "a", "--wait"]);
    assert_eq!(waited.status.code(), Some(0), "{}", stderr(&waited));
    assert_eq!(result_of_run(&server, "a", 3).deploy_stdout, "3\n");
    assert_eq!(server.seen().results.iter().filter(|r| r.config_id == "a").count(), 3);
}

#[test]
fn a_rerun_asked_for_without_an_agent_runs_once_at_its_start_and_a_crash_in_it_is_an_interruption()
{
    let (server, home) = (MiniServer::start(), Home::new());
    home.enroll(&server);
    let agent = home.run(&[]);
    let (ran, stay) = (home.path("ran").display().to_string(), home.path("stay"));
    let body = format!("echo run >> {ran}; while [ -e {} ]; do sleep 0.02; done", stay.display());
    server.push(1, &document(&[script("a", &body)]));
    wait_until_stored(&home, "a");
    server.wait("the stored document", |seen| seen.documents_stored == [1]);
    agent.kill_9();
    let noted = home.output(&["rerun", "a"]);
    assert_eq!(noted.status.code(), Some(0), "{}", stderr(&noted));
    assert!(stdout(&noted).contains("when the agent runs"), "{}", stdout(&noted));
    let twice = home.output(&["rerun", "a"]);
    assert_eq!(twice.status.code(), Some(1), "asked for already");

    std::fs::write(&stay, "").unwrap();
    let agent = home.run(&[]);
    wait_until("the second run", || (home.read("ran") == "run\nrun\n").then_some(()));
    agent.kill_9();
    let _agent = home.run(&[]);
    let second = result_of_run(&server, "a", 2);
    assert!(second.reason.as_deref().unwrap().starts_with("interrupted"), "{second:?}");
    assert!(second.rerun.is_some());
    wait_until_stored(&home, "a");
    assert_eq!(home.read("ran"), "run\nrun\n", "and it is not run again");
    std::fs::remove_file(stay).unwrap();
}

#[test]
fn logs_follow_a_run_and_are_there_after_the_server_has_its_result() {
    let (server, home) = (MiniServer::start(), Home::new());
    home.enroll(&server);
    let _agent = home.run(&[]);
    let go = home.path("go");
    let mut talkative = script(
        "talks",
        &format!("echo one; echo oh >&2; echo \"pw $db_password\"; {}; echo two", waiting_for(&go)),
    );
    talkative["inputs"] = json!([{"name": "db_password", "value": "correct horse"}]);
    server.push(1, &document(&[talkative, script("next", "echo next")]));
    wait_until("some output", || {
        let output = home.output(&["logs", "talks"]);
        stdout(&output).contains("pw").then_some(())
    });
    let so_far = home.output(&["logs", "talks"]);
    assert_eq!(stdout(&so_far), "one\npw (hidden)\n");
    assert!(stderr(&so_far).starts_with("oh\n"), "{}", stderr(&so_far));
    assert!(stderr(&so_far).contains("next: agent-client logs talks --follow"));
    let waiting = home.output(&["logs", "next"]);
    assert!(stderr(&waiting).contains("note: it has not been started yet"), "{}", stderr(&waiting));

    let mut follow = home.command(&["logs", "talks", "--follow"]);
    let follower = follow.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let follower = follower.spawn().unwrap();
    let mut of_next = home.command(&["logs", "next", "-f", "--stdout"]);
    let of_next = of_next.stdout(std::process::Stdio::piped()).spawn().unwrap();
    std::fs::write(go, "").unwrap();
    let followed = follower.wait_with_output().unwrap();
    assert_eq!(stdout(&followed), "one\npw (hidden)\ntwo\n");
    assert!(followed.status.success());
    assert_eq!(stdout(&of_next.wait_with_output().unwrap()), "next\n", "it was waited for");

    wait_until_stored(&home, "talks");
    let kept = json_of(&home, &["logs", "talks"]);
    assert_eq!((&kept["schema"], &kept["state"]), (&json!(1), &json!("complete")));
    assert_eq!(
        (&kept["stdout"], &kept["stderr"]),
        (&json!("one\npw (hidden)\ntwo\n"), &json!("oh\n"))
    );
    assert_eq!(stdout(&home.output(&["logs", "talks", "--stderr"])), "oh\n");
}

#[test]
fn the_output_of_a_hook_that_answers_in_json_is_taken_out_of_its_answer() {
    let (server, home) = (MiniServer::start(), Home::new());
    home.enroll(&server);
    let hooks = home.path("hooks");
    std::fs::create_dir(&hooks).unwrap();
    let hook = "#!/bin/sh\ncat >/dev/null\necho working >&2\n\
        printf '%s' '{\"deploy_stdout\": \"said\\n\", \"deploy_stderr\": \"reported\\n\", \"deploy_status_code\": 0}'\n";
    certs::file::write_atomic(&hooks.join("odd"), hook.as_bytes(), 0o755).unwrap();
    let mut command = home.command(&["run"]);
    command.env("HEAT_CONFIG_HOOKS", &hooks);
    let log = std::fs::File::create(home.path("log")).unwrap();
    let child = command.stdin(std::process::Stdio::null()).stderr(log).spawn().unwrap();
    let _agent = support::Agent { child };
    server.push(1, &document(&[json!({"id": "a", "name": "n", "group": "odd", "inputs": []})]));
    wait_until_stored(&home, "a");
    let mut logs = home.command(&["logs", "a", "--json"]);
    let logs: Value =
        serde_json::from_slice(&logs.env("HEAT_CONFIG_HOOKS", &hooks).output().unwrap().stdout)
            .unwrap();
    assert_eq!(
        (&logs["stdout"], &logs["stderr"]),
        (&json!("said\n"), &json!("working\nreported\n"))
    );
}

#[test]
fn a_rollback_puts_an_earlier_document_in_force_until_the_next_push() {
    let (server, home) = (MiniServer::start(), Home::new());
    home.enroll(&server);
    let agent = home.run(&[]);
    let ran = home.path("ran").display().to_string();
    let run = |id: &str, name: &str| {
        let mut entry = script(id, &format!("echo {id} >> {ran}"));
        entry["name"] = name.into();
        entry
    };
    for (version, id) in [(1, "web-1"), (2, "web-2")] {
        server.push(version, &document(&[run("same", "db"), run(id, "web")]));
        wait_until_stored(&home, id);
        server.wait("the document's confirmation", |s| s.documents_stored.contains(&version));
    }
    assert_eq!(home.read("ran"), "same\nweb-1\nweb-2\n");
    let diff = json_of(&home, &["diff"]);
    assert_eq!((&diff["from"]["version"], &diff["to"]["version"]), (&json!(1), &json!(2)));
    assert_eq!((&diff["unchanged"], diff["deployments"].as_array().unwrap().len()), (&json!(1), 1));
    let shown = stdout(&home.output(&["diff", "1", "2"]));
    assert!(shown.contains("changed   web (web-1 -> web-2)"), "{shown}");
    assert!(shown.contains(&format!("+echo web-2 >> {ran}")), "{shown}");

    let planned = home.output(&["rollback", "--dry-run", "--rerun"]);
    assert_eq!(planned.status.code(), Some(0), "{}", stderr(&planned));
    assert!(stdout(&planned).contains("document 1 would be in force"), "{}", stdout(&planned));
    assert!(stdout(&planned).contains("run once more:\n    web (web-1)"), "{}", stdout(&planned));
    assert_eq!(json_of(&home, &["why", "web"])["document_in_force"], 2, "nothing is done");

    let plain = home.output(&["rollback"]);
    assert_eq!(plain.status.code(), Some(0), "{}", stderr(&plain));
    assert!(stdout(&plain).contains("not run again, as ids run once"), "{}", stdout(&plain));
    assert!(stdout(&plain).contains("what these have done is not undone:\n    web (web-2)"));
    server.wait("progress of the earlier document", |seen| {
        seen.progress.last().is_some_and(|progress| progress.document_version == 1)
    });
    let status = wait_until("the status", || {
        let status = json_of(&home, &["status"]);
        (status["status"]["document"]["version"] == 1).then_some(status)
    });
    assert_eq!(status["status"]["document"]["rolled_back_from"], 2);
    assert_eq!(home.output(&["rollback"]).status.code(), Some(1), "nothing earlier is kept");

    // Neither a restart of the agent nor a connection undoes it.
    agent.kill_9();
    let agent = home.run(&[]);
    let seen = server.wait("the agent's return", |seen| seen.hellos.len() == 2);
    assert_eq!(seen.hellos[1].holds.unwrap().version, 2, "the server need not send it again");
    assert_eq!(json_of(&home, &["why", "web"])["id"], "web-1");
    assert_eq!(json_of(&home, &["why", "web"])["rolled_back_from"], 2);
    assert_eq!(home.read("ran"), "same\nweb-1\nweb-2\n", "nothing ran again");

    // To the newest and back again, this time with a rerun; and back without an agent.
    let forward = home.output(&["rollback", "--to", "2"]);
    assert!(stdout(&forward).contains("the rollback is over"), "{}", stdout(&forward));
    let again = json_of(&home, &["rollback", "--rerun"]);
    assert_eq!(again["run_again"], json!([{"id": "web-1", "name": "web"}]));
    assert_eq!(result_of_run(&server, "web-1", 2).status, ResultStatus::Complete);
    wait_until_stored(&home, "web-1");
    assert_eq!(home.read("ran"), "same\nweb-1\nweb-2\nweb-1\n");
    agent.kill_9();
    let offline = home.output(&["rollback", "--to", "2", "--rerun"]);
    assert_eq!(offline.status.code(), Some(0), "{}", stderr(&offline));
    assert!(stderr(&offline).contains("next: systemctl start agent-client"));
    let _agent = home.run(&[]);
    assert_eq!(result_of_run(&server, "web-2", 2).status, ResultStatus::Complete);
    assert_eq!(home.read("ran"), "same\nweb-1\nweb-2\nweb-1\nweb-2\n");

    home.output(&["rollback"]);
    server.push(3, &document(&[run("web-3", "web")]));
    wait_until_stored(&home, "web-3");
    wait_until("a push to win", || {
        (json_of(&home, &["status"])["status"]["document"]["version"] == 3).then_some(())
    });
    let listed = json_of(&home, &["diff", "--list"]);
    let versions: Vec<u64> = listed["documents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["version"].as_u64().unwrap())
        .collect();
    assert_eq!(versions, [1, 2, 3]);
    let kept = home.output(&["rollback", "--to", "7"]);
    assert_eq!(kept.status.code(), Some(1));
    assert!(stderr(&kept).contains("document 7 is not kept, the kept ones are [1, 2]"));
}

#[test]
fn once_is_done_although_an_earlier_document_is_in_force() {
    let (server, home) = (MiniServer::start(), Home::new());
    home.enroll(&server);
    for (version, id) in [(1, "a"), (2, "b")] {
        server.push(version, &document(&[script(id, "true")]));
        let output = home.output(&["once"]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    }
    assert_eq!(home.output(&["rollback"]).status.code(), Some(0));
    let output = home.output(&["once"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(json_of(&home, &["status"])["status"]["document"]["version"], 1);
}

#[test]
fn an_agent_that_has_nothing_yet_says_so_with_what_to_try() {
    let (server, home) = (MiniServer::start(), Home::new());
    for args in [&["why", "a"][..], &["logs", "a"], &["rerun", "a"], &["rollback"], &["diff"]] {
        let output = home.output(args);
        assert!([Some(1), Some(64)].contains(&output.status.code()), "{args:?}: {output:?}");
        assert!(stderr(&output).contains("  try: "), "{args:?}: {}", stderr(&output));
    }
    home.enroll(&server);
    let _agent = home.run(&[]);
    server.wait("the agent", |seen| seen.connected == 1);
    for args in [&["why", "a"][..], &["rerun", "a"], &["rollback"]] {
        let output = home.output(args);
        assert!([Some(1), Some(64)].contains(&output.status.code()), "{args:?}: {output:?}");
        assert!(stderr(&output).contains("  try: "), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn a_doctor_finds_nothing_with_a_healthy_agent_and_names_what_ails_another() {
    let (server, home) = (MiniServer::start(), Home::new());
    let fresh = home.output(&["doctor"]);
    assert_eq!(fresh.status.code(), Some(1));
    assert!(stdout(&fresh).contains("was never enrolled here"), "{}", stdout(&fresh));
    assert!(stdout(&fresh).contains("  try: agent-client enroll --token-file FILE"));

    home.enroll(&server);
    let agent = home.run(&[]);
    server.push(1, &document(&[script("a", "true")]));
    wait_until_stored(&home, "a");
    let verdict = |report: &Value, name: &str| {
        let checks = report["checks"].as_array().unwrap();
        checks.iter().find(|check| check["name"] == name).map(|check| check["verdict"].clone())
    };
    let report = wait_until("a connection in the status", || {
        let report = json_of(&home, &["doctor"]);
        (verdict(&report, "connection") == Some(json!("ok"))).then_some(report)
    });
    for check in report["checks"].as_array().unwrap() {
        // How full this machine's disk is, is not ours to say.
        assert!(check["verdict"] == "ok" || check["name"] == "disk", "{check}");
    }
    assert_eq!(report["schema"], 1);

    server.push(2, &document(&[json!({"id": "b", "name": "cook", "group": "chef", "inputs": []})]));
    wait_until_stored(&home, "b");
    agent.kill_9();
    let key = home.path("state/identity/identity.pem");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).unwrap();
    server.kill();
    let sick = home.output(&["doctor"]);
    assert_eq!(sick.status.code(), Some(1));
    let text = stdout(&sick);
    for words in [
        &format!("  try: chmod 600 {}", key.display()),
        "warning  agent            does not run",
        "cook (b): no such hook: \"chef\"",
        "  try: is metadata-server running there",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn the_settings_in_force_are_shown_with_their_origins() {
    let home = Home::new();
    let shown = json_of(&home, &["config", "show"]);
    let of = |name: &str| (&shown["settings"][name]["value"], &shown["settings"][name]["from"]);
    assert_eq!(of("keep_alive"), (&json!("8s"), &json!("default")));
    let variable = json!("environment variable AGENT_CLIENT_RECONNECT_MAX");
    assert_eq!(of("reconnect_max"), (&json!("200ms"), &variable));
    assert_eq!(of("state_dir").1, "--state-dir");
    let text = stdout(&home.output(&["config", "show"]));
    assert!(text.lines().any(|line| line.starts_with("keep_alive") && line.ends_with("default")));
}
