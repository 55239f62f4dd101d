//! The agent as a process, against a small server in this one.

mod support;

use std::os::unix::fs::PermissionsExt;

use metadata_delivery::message::{DeploymentState, ResultStatus};
use metadata_delivery::refusal;
use rustix::process::Signal;
use serde_json::{Value, json};
use support::{Home, MiniServer, data, document, is_alive, script, wait_until};

fn stderr(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_real_heat_document_is_applied_and_its_result_comes_back() {
    let (server, home) = (MiniServer::start(), Home::new());
    let token = home.token(&server);
    let _agent = home.run(&["--token-file", token.to_str().unwrap()]);
    server.wait("the agent", |seen| seen.connected == 1);
    let body = std::fs::read(data("metadata.POLL_TEMP_URL.NO_SIGNAL.json")).unwrap();
    server.push_bytes(4, &body);

    let id = "dff45350-7522-4c13-ac2f-dec358c56161";
    let result = server.wait_for_result(id);
    assert_eq!(result.status, ResultStatus::Complete);
    assert_eq!(Value::Object(result.outputs), json!({"result": "hello world"}));
    assert_eq!(result.deploy_stdout, "action CREATE on 5763b553-881b-4249-a4c0-4262a217e3d0\n");
    assert_eq!((&*result.deploy_stderr, result.deploy_status_code), ("warning text\n", 0));
    assert_eq!((&*result.action, result.document_version), ("CREATE", 4));

    let seen = server.wait("stored document and complete progress", |seen| {
        let complete = seen.progress.last().is_some_and(|progress| {
            progress.deployments.iter().all(|d| d.state == DeploymentState::Complete)
        });
        complete && seen.documents_stored == [4]
    });
    assert_eq!(seen.results.len(), 1);
    let stored = std::fs::read(home.path("state/document")).unwrap();
    assert!(stored.ends_with(&body), "byte for byte");

    let status = wait_until("status without waiting results", || {
        let output = home.output(&["status", "--json"]);
        output.status.success().then_some(output)
    });
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["running"], true);
    assert_eq!(status["status"]["schema"], 1);
    assert_eq!(status["status"]["document"]["version"], 4);
    assert_eq!(status["status"]["deployments"][0]["state"], "complete");
    assert_eq!(status["status"]["deployments"][0]["result_stored"], true);
    let waited = home.output(&["status", "--wait"]);
    assert_eq!(waited.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&waited.stdout).contains("version 4"));
    for secret in ["hello world", &server.token.encode()] {
        assert!(!home.read("log").contains(secret), "no input, output or token in the log");
    }
}

#[test]
fn every_entry_ends_in_a_result_and_bad_neighbours_stop_nothing() {
    let (server, home) = (MiniServer::start(), Home::new());
    home.enroll(&server);
    let _agent = home.run(&[]);
    let component = std::fs::read(data("metadata.component.json")).unwrap();
    let mut component: Value = serde_json::from_slice(&component).unwrap();
    let good_component = component["deployments"][0].take();
    let mut lost_component = good_component.clone();
    lost_component["id"] = "lost".into();
    lost_component["inputs"][2]["value"] = "SUSPEND".into();
    server.push(1, &document(&[
        json!({"id": "no-hook", "name": "n", "group": "chef", "inputs": []}),
        json!({"id": "no-inputs", "name": "n", "group": "script"}),
        json!({"name": "no id", "group": "script"}),
        json!("not even an object"),
        json!({"id": "data", "name": "n", "group": "Heat::Ungrouped", "config": {}, "inputs": []}),
        json!({"id": "no-shebang", "name": "n", "group": "script", "config": "x", "inputs": []}),
        lost_component,
        good_component,
        script("fails", "echo no >&2; exit 3"),
        script("last", "echo yes"),
    ]));
    let seen = server.wait("nine results", |seen| seen.results.len() == 9);
    let of = |id: &str| seen.results.iter().find(|result| result.config_id == id).unwrap();
    let reason = |id: &str| of(id).reason.clone().unwrap_or_default();
    assert!(reason("no-hook").starts_with("no such hook: \"chef\""), "{}", reason("no-hook"));
    assert_eq!(reason("no-inputs"), "bad entry: it has no inputs");
    assert!(reason("no-shebang").contains("does not begin with \"#!\""));
    assert_eq!(reason("lost"), "bad entry: the component has no config for action \"SUSPEND\"");
    let nameless = seen.results.iter().filter(|r| r.config_id.starts_with("bad-entry-")).count();
    assert_eq!(nameless, 2);
    assert_eq!((of("fails").deploy_status_code, &*of("fails").deploy_stderr), (3, "no\n"));
    assert_eq!(of("last").status, ResultStatus::Complete);
    let component = of("45399f2f-a299-422d-843a-f6ee265f7296");
    assert_eq!((component.status, &*component.group), (ResultStatus::Complete, "component"));
    for result in &seen.results {
        let good = ["last", "45399f2f-a299-422d-843a-f6ee265f7296"];
        let failed = result.status == ResultStatus::Failed;
        assert_eq!(failed, !good.contains(&&*result.config_id), "{result:?}");
    }
    assert_eq!(home.output(&["status", "--wait"]).status.code(), Some(1), "something failed");
}

#[test]
fn the_server_sees_the_end_of_the_output_while_a_hook_runs() {
    let (server, home) = (MiniServer::start(), Home::new());
    home.enroll(&server);
    let _agent = home.run(&[]);
    let go = home.path("go");
    server.push(
        1,
        &document(&[script(
            "slow",
            &format!(
                "echo half way; until [ -e {} ]; do sleep 0.02; done; echo done",
                go.display()
            ),
        )]),
    );
    server.wait("the live tail", |seen| {
        seen.progress.iter().flat_map(|p| &p.deployments).any(|d| {
            d.state == DeploymentState::Running && d.output_tail.as_deref() == Some("half way\n")
        })
    });
    std::fs::write(go, "").unwrap();
    assert_eq!(server.wait_for_result("slow").deploy_stdout, "half way\ndone\n");
}

#[test]
fn a_killed_agents_run_is_reported_as_interrupted_its_leftover_killed_and_nothing_run_twice() {
    let (server, home) = (MiniServer::start(), Home::new());
    home.enroll(&server);
    let agent = home.run(&[]);
    let ran = home.path("ran").display().to_string();
    server.push(
        1,
        &document(&[
            script("first", &format!("echo first >> {ran}")),
            script(
                "endless",
                &format!("echo endless >> {ran}; sleep 600 & echo $$ $! > {ran}.pids; wait"),
            ),
            script("last", &format!("echo last >> {ran}")),
        ]),
    );
    let pids = home.wait_for_file("ran.pids");
    let pids: Vec<u32> = pids.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    agent.kill_9();
    assert!(pids.iter().all(|pid| is_alive(*pid)), "the hook outlives the agent");

    let _agent = home.run(&[]);
    let interrupted = server.wait_for_result("endless");
    assert_eq!(interrupted.status, ResultStatus::Failed);
    assert!(interrupted.reason.unwrap().starts_with("interrupted: "));
    assert!(pids.iter().all(|pid| !is_alive(*pid)), "what was left of it is gone");
    assert_eq!(server.wait_for_result("last").status, ResultStatus::Complete);
    assert_eq!(home.read("ran"), "first\nendless\nlast\n", "nothing ran twice");
    let output = home.output(&["status", "--json"]);
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(status["status"]["deployments"][1]["state"], "interrupted");
}

#[test]
fn what_the_agent_holds_is_told_and_not_run_again_after_a_restart_of_either_side() {
    let (server, home) = (MiniServer::start(), Home::new());
    home.enroll(&server);
    let agent = home.run(&["--keep-alive=100ms", "--peer-timeout=300ms"]);
    let ran = home.path("ran").display().to_string();
    server.push(7, &document(&[script("once", &format!("echo once >> {ran}"))]));
    server.wait_for_result("once");
    server.wait("the document's confirmation", |seen| seen.documents_stored == [7]);

    let address = server.address;
    let server = MiniServer::restart(server.kill(), address);
    let seen = server.wait("the agent's return", |seen| seen.connected == 1);
    assert_eq!(seen.hellos[0].holds.unwrap().version, 7);
    assert!(seen.hellos[0].enrol.is_none(), "the token is used up and not shown again");

    agent.kill_9();
    let _agent = home.run(&[]);
    let seen = server.wait("the new agent", |seen| seen.hellos.len() == 2);
    assert_eq!(seen.hellos[1].holds.unwrap().version, 7);
    server.push(
        8,
        &document(&[
            script("once", &format!("echo twice >> {ran}")),
            script("new", &format!("echo new >> {ran}")),
        ]),
    );
    server.wait_for_result("new");
    assert_eq!(home.read("ran"), "once\nnew\n");
    assert_eq!(server.seen().documents_stored, [8]);
    let again = server.seen().results.iter().filter(|r| r.config_id == "once").count();
    assert_eq!(again, 0, "a stored result is not sent again");
}

#[test]
fn a_change_comes_as_a_delta_to_what_was_stored_also_after_a_restart() {
    let (server, home) = (MiniServer::start(), Home::new());
    home.enroll(&server);
    let agent = home.run(&[]);
    let many = |changed: &str| {
        let scripts = (0..200).map(|n| script(&format!("c{n}"), "true")).collect::<Vec<_>>();
        let mut document = document(&scripts);
        document["deployments"][100]["config"] = format!("echo {changed}").into();
        document
    };
    // It is in force; what becomes of its deployments does not matter here.
    let stored = |version| {
        server.wait("the document's confirmation", |seen| seen.documents_stored.contains(&version))
    };
    server.push(1, &many("first"));
    stored(1);
    let before = server.seen().document_bytes_sent;
    server.push(2, &many("second"));
    let seen = stored(2);
    assert!(seen.document_bytes_sent - before < 1_000, "{seen:#?}");

    agent.kill_9();
    let _agent = home.run(&[]);
    let seen = server.wait("the new agent", |seen| seen.hellos.len() == 2);
    assert_eq!(seen.hellos[1].holds.unwrap().version, 2);
    server.push(3, &many("third"));
    let seen = stored(3);
    assert!(seen.document_bytes_sent < 3_000, "the welcome, and a delta: {seen:#?}");
    assert_eq!(seen.forms_unread, 0);
}

#[test]
fn a_result_is_sent_until_the_server_has_stored_it() {
    let (server, home) = (MiniServer::start(), Home::new());
    home.enroll(&server);
    let agent = home.run(&["--keep-alive=100ms", "--peer-timeout=300ms"]);
    server.take_results(false);
    server.push(1, &document(&[script("a", "echo a")]));
    server.wait("its end", |seen| {
        seen.progress
            .iter()
            .flat_map(|p| &p.deployments)
            .any(|d| d.state == DeploymentState::Complete)
    });
    let address = server.address;
    let memory = server.kill();
    agent.kill_9();

    let _agent = home.run(&[]);
    let server = MiniServer::restart(memory, address);
    assert_eq!(server.wait_for_result("a").deploy_stdout, "a\n");
}

#[test]
fn a_stopping_server_is_found_again() {
    let (server, home) = (MiniServer::start(), Home::new());
    home.enroll(&server);
    let _agent = home.run(&[]);
    server.wait("the agent", |seen| seen.connected == 1);
    server.hang_up();
    server.wait("the agent again", |seen| seen.hellos.len() == 2 && seen.connected == 1);
}

#[test]
fn told_to_stop_the_agent_lets_a_hook_finish_and_sends_its_result() {
    let (server, home) = (MiniServer::start(), Home::new());
    home.enroll(&server);
    let agent = home.run(&[]);
    let (ran, go) = (home.path("ran").display().to_string(), home.path("go"));
    server.push(
        1,
        &document(&[
            script(
                "a",
                &format!("echo a >> {ran}; until [ -e {} ]; do sleep 0.02; done", go.display()),
            ),
            script("b", &format!("echo b >> {ran}")),
        ]),
    );
    home.wait_for_file("ran");
    agent.signal(Signal::TERM);
    wait_until("the stop", || home.read("log").contains("stopping").then_some(()));
    std::fs::write(go, "").unwrap();
    assert_eq!(agent.wait().code(), Some(0));
    assert_eq!(server.wait_for_result("a").status, ResultStatus::Complete);
    assert_eq!(home.read("ran"), "a\n", "nothing new is started");

    let _agent = home.run(&[]);
    server.wait_for_result("b");
    assert_eq!(home.read("ran"), "a\nb\n");
}

#[test]
fn a_result_that_the_server_refused_for_good_is_not_offered_again() {
    let (server, home) = (MiniServer::start(), Home::new());
    home.enroll(&server);
    let agent = home.run(&[]);
    server.refuse_results(refusal::APPLICATION_FIRST);
    server.push(1, &document(&[script("a", "true")]));
    server.wait("the refusal", |seen| seen.results_refused == 1);
    let status = wait_until("the refusal in the status", || {
        let output = home.output(&["status"]);
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        shown.contains("the server refused its result: not like this").then_some((output, shown))
    });
    assert!(status.1.contains("refused") && status.1.contains("all stored"), "{}", status.1);
    assert_eq!(status.0.status.code(), Some(1), "somebody should look");

    // Neither over a new connection nor by a new agent; a transient refusal is another matter.
    server.refuse_results(refusal::TOO_MANY);
    server.push(2, &document(&[script("a", "true"), script("b", "true")]));
    server.wait("the refusal of b", |seen| seen.results_refused == 2);
    agent.kill_9();
    server.take_results(true);
    let _agent = home.run(&[]);
    server.wait_for_result("b");
    assert_eq!(server.seen().results.len(), 1);
    assert_eq!(server.seen().results_refused, 2);
}

#[test]
fn told_to_stop_the_agent_ends_a_hook_that_does_not() {
    let (server, home) = (MiniServer::start(), Home::new());
    home.enroll(&server);
    let agent = home.run(&["--stop-wait=100ms"]);
    let ran = home.path("ran").display().to_string();
    server.push(1, &document(&[script("a", &format!("echo $$ > {ran}; sleep 600"))]));
    let pid = home.wait_for_file("ran").trim().parse().unwrap();
    agent.signal(Signal::TERM);
    assert_eq!(agent.wait().code(), Some(0));
    assert!(!is_alive(pid));
    let reason = server.wait_for_result("a").reason.unwrap();
    assert!(reason.starts_with("interrupted: the agent was stopped"), "{reason}");
}

#[test]
fn a_bad_document_is_refused_and_the_last_good_one_stays() {
    let (server, home) = (MiniServer::start(), Home::new());
    home.enroll(&server);
    let _agent = home.run(&[]);
    server.push(1, &document(&[script("a", "true")]));
    server.wait_for_result("a");
    server.push_bytes(2, b"{\"deployments\": {}}");
    let seen = server.wait("a refusal", |seen| !seen.documents_refused.is_empty());
    assert_eq!(
        seen.documents_refused,
        [(2, "\"deployments\" is an object, it must be a list of objects".to_owned())]
    );
    assert!(home.read("state/document").starts_with("{\"schema\":1,\"version\":1,"));
    server.push(3, &document(&[script("b", "true")]));
    server.wait_for_result("b");
}

#[test]
fn what_a_newer_document_withdraws_before_it_started_ends_in_a_result_too() {
    let (server, home) = (MiniServer::start(), Home::new());
    home.enroll(&server);
    let _agent = home.run(&[]);
    let (ran, go) = (home.path("ran").display().to_string(), home.path("go"));
    let slow = script(
        "slow",
        &format!("echo slow >> {ran}; until [ -e {} ]; do sleep 0.02; done", go.display()),
    );
    server.push(1, &document(&[slow.clone(), script("gone", &format!("echo gone >> {ran}"))]));
    home.wait_for_file("ran");
    server.push(2, &document(&[slow, script("new", &format!("echo new >> {ran}"))]));
    let reason = server.wait_for_result("gone").reason.unwrap();
    assert!(reason.starts_with("withdrawn: document 2"), "{reason}");
    std::fs::write(go, "").unwrap();
    assert_eq!(server.wait_for_result("slow").status, ResultStatus::Complete);
    server.wait_for_result("new");
    assert_eq!(home.read("ran"), "slow\nnew\n");
}

#[test]
fn once_applies_the_newest_document_and_says_how_it_went() {
    let (server, home) = (MiniServer::start(), Home::new());
    server.push(1, &document(&[script("a", "true")]));
    let token = home.token(&server);
    let output = home.output(&["once", "--token-file", token.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(server.seen().results.len(), 1, "all results are stored when it ends");

    let output = home.output(&["once"]);
    assert_eq!(output.status.code(), Some(0), "again: {}", stderr(&output));
    assert_eq!(server.seen().results.len(), 1, "nothing ran again");
    assert_eq!(server.seen().documents_offered, 1, "the document was not sent again");

    server.push(2, &document(&[script("b", "exit 1")]));
    assert_eq!(home.output(&["once"]).status.code(), Some(1));
}

#[test]
fn once_has_the_document_sent_again_by_a_server_that_does_not_say_which_is_the_newest() {
    let (server, home) = (MiniServer::start(), Home::new());
    server.say_newest(false);
    server.push(1, &document(&[script("a", "true")]));
    let token = home.token(&server);
    let output = home.output(&["once", "--token-file", token.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let output = home.output(&["once"]);
    assert_eq!(output.status.code(), Some(0), "again: {}", stderr(&output));
    let seen = server.seen();
    assert_eq!((seen.documents_offered, seen.results.len()), (2, 1));
    let held: Vec<bool> = seen.hellos.iter().map(|hello| hello.holds.is_some()).collect();
    assert_eq!(held, [false, true, false]);
}

#[test]
fn once_tells_an_absent_server_from_one_without_a_document() {
    let (server, home) = (MiniServer::start(), Home::new());
    home.enroll(&server);
    let output = home.output(&["once", "--wait=500ms"]);
    assert_eq!(output.status.code(), Some(69));
    assert!(stderr(&output).contains("has sent no document"), "{}", stderr(&output));
    server.kill();
    let output = home.output(&["once", "--wait=300ms"]);
    assert_eq!(output.status.code(), Some(69));
    assert!(stderr(&output).contains("was not reached"), "{}", stderr(&output));
}

#[test]
fn a_server_with_another_key_is_refused_and_both_fingerprints_are_named() {
    let (server, impostor, home) = (MiniServer::start(), MiniServer::start(), Home::new());
    impostor.push(1, &document(&[script("evil", "true")]));
    home.enroll(&server);
    let output = home.output(&["once", "--servers", &impostor.address.to_string()]);
    assert_eq!(output.status.code(), Some(77));
    let error = stderr(&output);
    assert!(error.contains(&format!("key {} is not pinned", impostor.fingerprint)), "{error}");
    assert!(error.contains(&format!("expected {}", server.fingerprint)), "{error}");
    assert!(error.contains("  try: "), "{error}");
    assert!(impostor.seen().hellos.is_empty(), "it learns nothing");
}

#[test]
fn a_stranger_and_a_token_used_by_another_are_refused_with_what_to_do() {
    let (server, first, second) = (MiniServer::start(), Home::new(), Home::new());
    first.enroll(&server);
    let token = first.path("token");
    let enrolled = first.output(&["enroll", "--now", "--token-file", token.to_str().unwrap()]);
    assert_eq!(enrolled.status.code(), Some(0), "{}", stderr(&enrolled));
    assert!(String::from_utf8_lossy(&enrolled.stdout).contains("the server has pinned"));
    assert!(!first.read("state/enrolment.json").contains("mdt1."), "the token is forgotten");

    let refused = second.output(&["enroll", "--now", "--token-file", token.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(77), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("try: on the server run: metadata-server enroll vm-1"));

    // The first agent's enrolment with another key.
    std::fs::remove_dir_all(first.path("state/identity")).unwrap();
    let stranger = first.output(&["once", "--wait=5s"]);
    assert_eq!(stranger.status.code(), Some(77), "{}", stderr(&stranger));
    assert!(stderr(&stranger).contains("unknown agent"), "{}", stderr(&stranger));
}

#[test]
fn a_refused_agent_goes_on_trying_and_its_status_says_why() {
    let (server, impostor, home) = (MiniServer::start(), MiniServer::start(), Home::new());
    home.enroll(&server);
    let _agent = home.run(&["--servers", &impostor.address.to_string()]);
    let output = wait_until("the refusal in the status", || {
        let output = home.output(&["status"]);
        (output.status.code() == Some(77)).then_some(output)
    });
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(shown.contains(&impostor.fingerprint.to_string()), "{shown}");
    assert!(shown.contains("next in "), "{shown}");
}

#[test]
fn a_second_agent_in_one_state_directory_is_refused_and_told_which_runs() {
    let (server, home) = (MiniServer::start(), Home::new());
    home.enroll(&server);
    let agent = home.run(&[]);
    server.wait("the agent", |seen| seen.connected == 1);
    let output = home.output(&["once"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(&format!("agent-client (pid {}) is using", agent.child.id())));
}

#[test]
fn a_key_that_others_can_read_is_refused_with_the_command_that_mends_it() {
    let (server, home) = (MiniServer::start(), Home::new());
    home.enroll(&server);
    let key = home.path("state/identity/identity.pem");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let output = home.output(&["run"]);
    assert_eq!(output.status.code(), Some(78));
    let hint = format!("  try: chmod 600 {}", key.display());
    assert!(stderr(&output).contains(&hint), "{}", stderr(&output));
}

#[test]
fn wrong_usage_configuration_and_tokens_have_their_exit_codes_and_hints() {
    let home = Home::new();
    assert_eq!(home.output(&["enroll", "mdt1.token"]).status.code(), Some(64));
    assert_eq!(home.output(&["enroll"]).status.code(), Some(64));
    let output = home.output(&["run"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(stderr(&output).contains("not enrolled"), "{}", stderr(&output));
    assert!(stderr(&output).contains("try: on the server run: metadata-server enroll ID"));

    std::fs::write(home.path("config.toml"), "keep_alvie = \"3s\"\n").unwrap();
    let config = home.path("config.toml");
    let output = home.output(&["run", "--config", config.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(78));
    assert!(
        stderr(&output)
            .contains("config.toml:1: unknown key \"keep_alvie\"; did you mean \"keep_alive\"?")
    );

    std::fs::write(home.path("token"), "mdt1.nonsense\n").unwrap();
    let token = home.path("token");
    let output = home.output(&["enroll", "--token-file", token.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(78));
    assert!(stderr(&output).contains("no usable token in"), "{}", stderr(&output));
    assert!(!stderr(&output).contains("mdt1.nonsense"));

    let fresh = Home::new();
    let output = fresh.output(&[]);
    assert_eq!(output.status.code(), Some(2), "no arguments: the status, and nothing is started");
    assert!(String::from_utf8_lossy(&output.stdout).contains("has not run yet"));
    assert!(!fresh.state().exists());
}

#[test]
fn the_packaged_unit_leaves_hooks_the_umask_of_the_system() {
    let unit = include_str!("../../packaging/systemd/agent-client.service");
    let is_setting = |line: &&str| line.trim_start().to_lowercase().starts_with("umask");
    assert_eq!(unit.lines().find(is_setting), None, "what hooks make for others would be 0600");
    assert!(unit.contains("StateDirectoryMode=0700"));
}

#[test]
fn the_cfn_tools_answer_by_their_links() {
    let home = Home::new();
    let (bin, target) = (home.path("bin"), home.path("opt/aws/bin"));
    assert!(home.output(&["install-links", bin.to_str().unwrap()]).status.success());
    let by_link = |name: &str, arguments: &[&str]| {
        std::process::Command::new(bin.join(name)).args(arguments).output().unwrap()
    };
    let target_text = target.to_str().unwrap();
    let source = ["--source", bin.to_str().unwrap(), "--target", target_text];
    let made = by_link("cfn-create-aws-symlinks", &source);
    assert!(made.status.success(), "{made:?}");
    for name in ["cfn-init", "cfn-signal", "cfn-hup", "cfn-get-metadata", "cfn-create-aws-symlinks"]
    {
        let help = std::process::Command::new(target.join(name)).arg("--help").output().unwrap();
        let text = String::from_utf8(help.stdout).unwrap();
        assert!(help.status.success() && text.contains(&format!("Usage: {name}")), "{text}");
        let wrong = by_link(name, &["--no-such-option"]);
        assert_eq!(wrong.status.code(), Some(2), "{name}");
    }
    let gone = by_link("cfn-push-stats", &["--mem-util"]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(stderr(&gone).contains("Heat has no CloudWatch API any more"), "{}", stderr(&gone));
}
