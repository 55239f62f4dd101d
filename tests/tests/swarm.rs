//! A swarm of agents and the real server: connect, one push for all, a restart of either.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use system_tests::documents::{document, script};
use system_tests::{Process, Server, agent_binary, wait_until_ok};

const AGENTS: u64 = 50;

fn swarm(directory: &Path) -> Command {
    let mut command = Command::new(agent_binary());
    command.args(["swarm", "--agents", &AGENTS.to_string(), "--dir"]).arg(directory);
    command
}

fn run(mut command: Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    output
}

/// Starts the swarm, and waits until all are connected and in sync.
fn start(directory: &Path, server: &Server) -> Process {
    let mut command = swarm(directory);
    command.args(["--server", &server.listen.to_string(), "--json", "--results"]);
    command.args(["--pin", server.get("/v1/server")["fingerprint"].as_str().unwrap()]);
    let mut swarm = Process::start(&mut command);
    swarm.wait_for_line("that all are in sync", |line| {
        let line: Value = serde_json::from_str(line).ok()?;
        (line["in_sync"] == AGENTS).then_some(())
    });
    swarm
}

fn stop(mut swarm: Process) -> Value {
    swarm.terminate();
    let summary = swarm.wait_for_line("its summary", |line| {
        let line: Value = serde_json::from_str(line).ok()?;
        (line["event"] == "summary").then_some(line)
    });
    assert!(swarm.wait().success(), "{swarm}");
    summary
}

/// Waits until the server has connected agents that hold this version, and so many results.
fn wait_for(server: &Server, version: u64, results: usize) {
    wait_until_ok("all agents and results", || {
        let agents = server.get("/v1/agents")["agents"].clone();
        let agents = agents.as_array().unwrap().iter();
        let there = agents
            .filter(|a| a["state"] == "connected" && a["delivered_version"] == version)
            .count() as u64;
        let stored = server.get("/v1/results?limit=1000")["results"].as_array().unwrap().len();
        let whole = (there, stored) == (AGENTS, results);
        whole.then_some(()).ok_or_else(|| format!("{there} agents, {stored} results"))
    });
}

#[test]
fn a_swarm_takes_one_push_for_all_and_is_back_in_sync_after_a_restart_of_either_side() {
    let mut server = Server::start();
    let directory = server.directory().join("swarm");
    run(swarm(&directory));
    let pins = directory.join("pins.txt");
    for expected in ["50 pins added, 0 were there", "0 pins added, 50 were there"] {
        let mut import = server.cli(&["pins", "import"]);
        import.arg(&pins);
        let said = run(import).stdout;
        assert_eq!(String::from_utf8_lossy(&said).trim(), expected);
    }
    let running = start(&directory, &server);

    let file = server.directory().join("document.json");
    let pushed = document(&[script("one", "true"), script("two", "true")]).to_string();
    std::fs::write(&file, &pushed).unwrap();
    let push = || {
        let mut push = server.cli(&["push", "--prefix", "swarm-", "--json"]);
        push.arg(&file);
        let said = run(push).stdout;
        serde_json::from_slice::<Value>(&said).unwrap()
    };
    let first = push();
    assert_eq!((&first["agents"], &first["new"]), (&AGENTS.into(), &AGENTS.into()));
    assert_eq!(push()["new"], 0, "it is in force");
    let stored = server.request("GET", "/v1/agents/swarm-000007/metadata", &[]).unwrap();
    assert_eq!(stored.body, pushed.as_bytes(), "byte for byte");
    wait_for(&server, 1, 2 * AGENTS as usize);

    server.stop();
    server.restart();
    wait_for(&server, 1, 2 * AGENTS as usize);
    let summary = stop(running);
    assert_eq!(summary["handshakes"]["full"]["count"], AGENTS, "{summary}");
    assert_eq!(summary["handshakes"]["resumed"]["count"], AGENTS, "{summary}");
    assert_eq!(summary["documents"][0]["durable"]["count"], AGENTS, "{summary}");
    assert_eq!(summary["results"]["stored"], 2 * AGENTS, "{summary}");

    let summary = stop(start(&directory, &server));
    assert_eq!(summary["documents"], Value::Array(vec![]), "they hold it from before: {summary}");
}
