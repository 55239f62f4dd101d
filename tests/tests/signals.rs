//! Heat hears what became of deployments, and wait conditions of what instances say, by the server alone:
//! with the real daemons, a stand-in for Heat on loopback, and `kill -9` at the worst moments.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use openstack_client::testing::{Answer, HttpServer};
use serde_json::{Value, json};
use system_tests::documents::{document, script};
use system_tests::{Agent, Server, wait_until};

const AGENT: &str = "vm";

/// A deployment with a signed URL.
fn signed(id: &str, url: &str) -> Value {
    let mut deployment = script(id, "#!/bin/sh\necho ran\nprintf 42 > $heat_outputs_path.result\n");
    deployment["inputs"] = json!([
        {"name": "deploy_action", "value": "CREATE"},
        {"name": "deploy_signal_transport", "value": "CFN_SIGNAL"},
        {"name": "deploy_signal_id", "value": url},
        {"name": "deploy_signal_verb", "value": "POST"},
    ]);
    deployment
}

fn wait_for_signal(server: &Server, config_id: &str, state: &str) -> Value {
    wait_until(&format!("the signal of {config_id} to be {state}"), || {
        let results = server.results(AGENT);
        let saved = results.iter().find(|saved| saved["result"]["config_id"] == config_id)?;
        (saved["signal"]["state"] == state).then(|| saved["signal"].clone())
    })
}

#[test]
fn a_deployments_end_reaches_heat_without_a_way_from_the_instance() {
    let heat = HttpServer::start(|_| Answer::new(200, ""));
    let server = Server::start();
    let mut agent = Agent::start(&server, AGENT);
    server.accept(AGENT, &document(&[signed("c1", &heat.url("/v1/signal/x?Signature=hush"))]));
    let sent = wait_for_signal(&server, "c1", "sent");
    assert_eq!(sent["attempts"], 1, "{sent}");
    let [asked] = &heat.asked()[..] else { panic!("{:?}", heat.asked()) };
    assert_eq!(asked.target, "/v1/signal/x?Signature=hush");
    let told: Value = serde_json::from_slice(&asked.body).unwrap();
    let expected = json!({"result": "42", "deploy_stdout": "ran\n", "deploy_stderr": "", "deploy_status_code": 0});
    assert_eq!(told, expected);
    let output = server.cli(&["results", AGENT]).output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("sent ") && table.contains("(200)"), "{table}");
    agent.stop();
}

#[test]
fn a_server_killed_before_heat_has_answered_or_before_it_has_noted_the_answer_sends_again() {
    for answers_first in [false, true] {
        let (here, arrived) = mpsc::channel();
        let (go_on, wait) = mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let count = AtomicUsize::new(0);
        let heat = HttpServer::start(move |_| {
            if count.fetch_add(1, Ordering::SeqCst) == 0 {
                here.send(()).unwrap();
                if !answers_first {
                    // Until the server is dead.
                    let _ = wait.lock().unwrap().recv();
                }
            }
            Answer::new(200, "")
        });
        let mut server = Server::start();
        let mut agent = Agent::start(&server, AGENT);
        server.accept(AGENT, &document(&[signed("c1", &heat.url("/x"))]));
        arrived.recv().unwrap();
        server.kill();
        drop(go_on);
        server.restart();
        wait_for_signal(&server, "c1", "sent");
        let results = server.results(AGENT);
        assert_eq!(results.len(), 1, "{results:?}");
        let asked = heat.asked();
        // With an answer it depends on who was quicker whether the note of it was written.
        let times = if answers_first { 1..=2 } else { 2..=2 };
        assert!(times.contains(&asked.len()), "{} times", asked.len());
        assert!(asked.iter().all(|one| one.body == asked[0].body), "{asked:?}");
        agent.stop();
    }
}

#[test]
fn a_result_stored_while_heat_is_away_is_signalled_by_the_servers_next_life() {
    let is_up = Arc::new(AtomicUsize::new(0));
    let up = Arc::clone(&is_up);
    let heat = HttpServer::start(move |_| {
        Answer::new(if up.load(Ordering::SeqCst) == 0 { 503 } else { 200 }, "")
    });
    let mut server = Server::start();
    let mut agent = Agent::start(&server, AGENT);
    let ids = ["c1", "c2", "c3"];
    let deployments: Vec<_> =
        ids.iter().map(|id| signed(id, &heat.url(&format!("/{id}")))).collect();
    server.accept(AGENT, &document(&deployments));
    server.wait_for_result(AGENT, "c3");
    server.kill();
    is_up.store(1, Ordering::SeqCst);
    server.restart();
    for id in ids {
        wait_for_signal(&server, id, "sent");
    }
    agent.stop();
}

/// Asks the running agent as `cfn-signal` does.
fn ask(agent: &Agent, url: &str) -> Value {
    let mut socket = UnixStream::connect(agent.state_dir().join("control.sock")).unwrap();
    let question =
        json!({"schema": 1, "ask": "signal", "url": url, "body": r#"{"Status": "SUCCESS"}"#});
    writeln!(socket, "{question}").unwrap();
    let mut line = String::new();
    BufReader::new(socket).read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap()
}

#[test]
fn a_wait_condition_hears_of_an_instance_without_a_way_there() {
    let heat = HttpServer::start(|_| Answer::new(200, ""));
    let url = heat.url("/v1/waitcondition/x?Signature=hush");
    let mut server = Server::start();
    let mut agent = Agent::start(&server, AGENT);
    let mut with_url = document(&[]);
    with_url["wait"] = json!(url);
    let version = server.accept(AGENT, &with_url);
    server.wait_until_applied(AGENT, version);
    let stored = ask(&agent, &url);
    assert_eq!(
        (&stored["answer"], &stored["signal"]),
        (&json!("signal"), &json!("stored")),
        "{stored}"
    );
    let asked = || heat.asked().into_iter().filter(|asked| asked.method == "PUT").count();
    wait_until("the wait condition to be signalled", || (asked() == 1).then_some(()));
    let refused = ask(&agent, &heat.url("/elsewhere"));
    assert_eq!(refused["answer"], "refused");
    assert!(
        refused["text"].as_str().unwrap().contains("is not in this agent's document"),
        "{refused}"
    );

    // Without a server it is kept, over a restart of the agent, too.
    server.kill();
    let kept = ask(&agent, &url);
    assert_eq!(kept["signal"], "kept", "{kept}");
    agent.kill();
    agent.launch();
    server.restart();
    wait_until("what was kept to be signalled", || (asked() == 2).then_some(()));
    let empty = || std::fs::read_dir(agent.state_dir().join("signals")).unwrap().next().is_none();
    wait_until("the agent to forget it", || empty().then_some(()));
    assert_eq!(heat.asked().len(), 2);
    let shown = server.cli(&["results", AGENT]).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("WAIT CONDITION") && !shown.contains("hush"), "{shown}");
    agent.stop();
}
