//! The main job with the real programs: Heat's document in, script run, result out.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use system_tests::documents::{captured, config_ids, document, heat, script};
use system_tests::{Agent, Process, Server, wait_until};

const AGENT: &str = "5763b553-881b-4249-a4c0-4262a217e3d0";

/// Puts a document byte for byte and waits for its first deployment's result.
fn push(server: &Server, body: &[u8]) -> Value {
    assert_eq!(server.put(AGENT, body).unwrap().status, 201);
    server.wait_for_result(AGENT, &config_ids(body)[0])
}

#[test]
fn a_heat_document_is_run_and_its_result_comes_back_complete() {
    let server = Server::start();
    let _agent = Agent::start(&server, AGENT);
    let result = push(&server, &heat("metadata.POLL_TEMP_URL.NO_SIGNAL.json"));
    assert_eq!(result["status"], "COMPLETE");
    assert_eq!(result["deploy_status_code"], 0);
    assert_eq!(result["deploy_stdout"], format!("action CREATE on {AGENT}\n"));
    assert_eq!(result["deploy_stderr"], "warning text\n");
    assert_eq!(result["outputs"], json!({ "result": "hello world" }));

    let update = push(&server, &heat("metadata.POLL_TEMP_URL.NO_SIGNAL.after-update.json"));
    assert_eq!(update["status"], "COMPLETE");
    assert_eq!(update["action"], "UPDATE");
    assert_ne!(update["config_id"], result["config_id"]);
    let view = server.wait_until_applied(AGENT, 2);
    assert_eq!(view["delivered_version"], 2);
    assert_eq!(server.results(AGENT).len(), 2);
}

#[test]
fn every_document_captured_from_heat_ends_in_a_result_for_each_of_its_deployments() {
    let server = Server::start();
    let agent = Agent::start(&server, AGENT);
    install_hook(&agent, "json-file");
    for path in captured() {
        let body = fs::read(&path).unwrap();
        let reply = server.put(AGENT, &body).unwrap();
        assert_eq!(reply.status, 201, "{}: {reply}", path.display());
        let version = reply.json()["version"].as_u64().unwrap();
        let view = server.wait_until_applied(AGENT, version);
        assert_eq!(view["document"]["bytes"], body.len());
        for id in config_ids(&body) {
            let result = server.wait_for_result(AGENT, &id);
            assert_eq!(result["status"], "COMPLETE", "{}: {result}", path.display());
        }
        let fetched = server.request("GET", &format!("/v1/agents/{AGENT}/metadata"), &[]);
        assert_eq!(fetched.unwrap().body, body, "not byte for byte");
    }
}

/// An external hook for a group: tells what config it was given.
fn install_hook(agent: &Agent, group: &str) {
    let hooks = agent.state_dir().join("hooks");
    fs::create_dir_all(&hooks).unwrap();
    let tell =
        "#!/bin/sh\nread -r entry\nprintf '{\"deploy_status_code\": 0, \"result\": \"done\"}'\n";
    fs::write(hooks.join(group), tell).unwrap();
    fs::set_permissions(hooks.join(group), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_group_without_a_hook_fails_with_the_places_that_were_searched() {
    let server = Server::start();
    let agent = Agent::start(&server, AGENT);
    let structured = String::from_utf8(heat("metadata.structured.json")).unwrap();
    let result = push(&server, structured.replace("json-file", "no-such-hook").as_bytes());
    assert_eq!(result["status"], "FAILED");
    let reason = result["reason"].as_str().unwrap();
    let hooks = agent.state_dir().join("hooks");
    for part in ["no-such-hook", hooks.to_str().unwrap(), "/usr/libexec/heat-config/hooks"] {
        assert!(reason.contains(part), "{reason}");
    }
}

/// A document of some size, whose script leaves a line in a file. What makes it large looks random: it must
/// not become small on its way, nor as a change to another one.
fn large_document(id: &str, log: &Path) -> Value {
    let append = format!("#!/bin/sh\necho {id} >> {}\n", log.display());
    let mut document = document(&[script(id, &append)]);
    let mut state = id.bytes().fold(1u64, |state, byte| state.wrapping_mul(256) + u64::from(byte));
    let padding = std::iter::repeat_with(|| {
        // Knuth's linear congruential generator.
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b' ' + (state >> 58) as u8 + 3)
    });
    document["padding"] = padding.take(LARGE_BYTES).collect::<String>().into();
    document
}

const LARGE_BYTES: usize = 200_000;

#[test]
fn what_the_agent_holds_is_neither_sent_nor_run_again_after_restarts_of_either_side() {
    let mut server = Server::start();
    let mut agent = Agent::start(&server, AGENT);
    let log = agent.directory().join("log");
    let version = server.accept(AGENT, &large_document("first", &log));
    server.wait_until_applied(AGENT, version);
    assert_eq!(server.metric("mds_push_latency_seconds_count"), 1.0);

    let sent = server.metric("mds_sent_bytes_total");
    agent.stop();
    server.wait_for_agent(AGENT, "disconnected");
    agent.launch();
    server.wait_for_agent(AGENT, "connected");
    server.stop();
    agent.process().wait_for_line("that the server has gone", |line| {
        line.contains("no connection").then_some(())
    });
    // What was sent until then was little; the counters begin anew with the server.
    server.restart();
    server.wait_for_agent(AGENT, "connected");
    let third = large_document("second", &log);
    let version = server.accept(AGENT, &third);
    server.wait_until_applied(AGENT, version);
    assert_eq!(server.metric("mds_push_latency_seconds_count"), 1.0, "only the new one");
    let sent_anew = server.metric("mds_sent_bytes_total");
    // Each character is one of 64: compression makes three quarters of it.
    let once = 0.7 * LARGE_BYTES as f64..1.3 * LARGE_BYTES as f64;
    assert!(once.contains(&sent), "{sent}");
    assert!(once.contains(&sent_anew), "{sent_anew}");
    server.wait_for_result(AGENT, "second");
    assert_eq!(fs::read_to_string(&log).unwrap(), "first\nsecond\n");
    assert_eq!(server.results(AGENT).len(), 2);
}

#[test]
fn a_restarted_agent_is_not_sent_what_it_holds() {
    let server = Server::start();
    let mut agent = Agent::start(&server, AGENT);
    let log = agent.directory().join("log");
    let version = server.accept(AGENT, &large_document("only", &log));
    server.wait_until_applied(AGENT, version);
    let sent = server.metric("mds_sent_bytes_total");
    for stop in [Agent::stop, Agent::kill] {
        stop(&mut agent);
        agent.launch();
        agent.process().wait_for_line("that it is connected", |line| {
            line.contains(" connected").then_some(())
        });
        agent.wait_for_status("the agent's own view", |status| {
            (status["exit_code"] == 0).then_some(())
        });
    }
    let sent_again = server.metric("mds_sent_bytes_total") - sent;
    assert!(sent_again < LARGE_BYTES as f64 / 10.0, "{sent_again} bytes sent again");
    assert_eq!(server.metric("mds_push_latency_seconds_count"), 1.0);
    assert_eq!(fs::read_to_string(&log).unwrap(), "only\n");
    assert_eq!(server.results(AGENT).len(), 1);
}

#[test]
fn an_agent_resumes_its_session_with_a_restarted_server() {
    for stop in [Server::stop, Server::kill] {
        let mut server = Server::start();
        let _agent = Agent::start(&server, AGENT);
        assert_eq!(server.metric("mds_resumptions_total{result=\"resumed\"}"), 0.0);
        stop(&mut server);
        server.restart();
        let version = server.accept(AGENT, &document(&[script("x", "#!/bin/sh\necho here\n")]));
        server.wait_until_applied(AGENT, version);
        assert_eq!(server.metric("mds_resumptions_total{result=\"resumed\"}"), 1.0);
        assert_eq!(server.metric("mds_resumptions_total{result=\"declined\"}"), 0.0);
        assert_eq!(server.metric("mds_handshakes_total{result=\"completed\"}"), 1.0);
    }
}

#[test]
fn a_document_put_while_the_agent_is_away_reaches_it_when_it_returns() {
    let server = Server::start();
    let mut agent = Agent::start(&server, AGENT);
    agent.stop();
    server.wait_for_agent(AGENT, "disconnected");
    let version = server.accept(AGENT, &document(&[script("away", "#!/bin/sh\necho here\n")]));
    agent.launch();
    server.wait_until_applied(AGENT, version);
    assert_eq!(server.wait_for_result(AGENT, "away")["deploy_stdout"], "here\n");
}

#[test]
fn a_result_made_while_the_server_is_away_reaches_it_when_it_returns() {
    for stop in [Server::stop, Server::kill] {
        let mut server = Server::start();
        let agent = Agent::start(&server, AGENT);
        let [started, go, done] =
            ["started", "go", "done"].map(|name| agent.directory().join(name));
        let waits = format!(
            "#!/bin/sh\ntouch {}\nwhile [ ! -e {} ]; do sleep 0.01; done\necho ended\ntouch {}\n",
            started.display(),
            go.display(),
            done.display()
        );
        server.accept(AGENT, &document(&[script("long", &waits)]));
        wait_until("the script to start", || started.exists().then_some(()));
        stop(&mut server);
        fs::write(&go, "").unwrap();
        wait_until("the script to end", || done.exists().then_some(()));
        server.restart();
        let result = server.wait_for_result(AGENT, "long");
        assert_eq!(
            (&result["status"], &result["deploy_stdout"]),
            (&"COMPLETE".into(), &"ended\n".into())
        );
    }
}

#[test]
fn the_command_lines_of_both_programs_show_the_same_job() {
    let server = Server::start();
    let mut watch = Process::start(&mut server.cli(&["watch", "--until", "result_stored"]));
    watch.wait_for_line("that it watches", |line| line.contains("watching").then_some(()));
    let agent = Agent::start(&server, AGENT);
    let file = agent.directory().join("metadata.json");
    let body = heat("metadata.POLL_TEMP_URL.NO_SIGNAL.json");
    fs::write(&file, &body).unwrap();

    let put = server.cli(&["put", AGENT, file.to_str().unwrap()]).output().unwrap();
    assert!(put.status.success(), "{put:?}");
    assert!(String::from_utf8(put.stderr).unwrap().contains("next: "));
    assert!(watch.wait().success(), "{watch}");
    assert!(watch.text().contains("COMPLETE"), "{watch}");

    let status = agent.cli(&["status", "--wait=30s"]).output().unwrap();
    assert!(status.status.success(), "{status:?}");
    let got = server.cli(&["get", AGENT]).output().unwrap();
    assert_eq!(got.stdout, body);
    let results = server.cli(&["results", AGENT, "--output"]).output().unwrap();
    let results = String::from_utf8(results.stdout).unwrap();
    for text in ["COMPLETE", "hello world", "warning text"] {
        assert!(results.contains(text), "{results}");
    }
    let agents = server.cli(&["agents"]).output().unwrap();
    let agents = String::from_utf8(agents.stdout).unwrap();
    assert!(agents.contains(AGENT) && agents.contains("connected"), "{agents}");
}
