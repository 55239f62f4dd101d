//! An agent that polls a stand-in for Heat's API until the metadata there bring a token for a real
//! metadata-server.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openstack_client::testing::{Answer, Asked, HttpServer};
use serde_json::{Value, json};
use system_tests::documents::{document, script};
use system_tests::{Agent, Server, wait_until};

#[test]
fn an_agent_that_polls_becomes_one_that_is_pushed_to_when_a_token_comes() {
    let metadata = Arc::new(Mutex::new(json!({})));
    let shared = Arc::clone(&metadata);
    let heat = HttpServer::start(move |asked: &Asked| match asked.target.as_str() {
        "/metadata" => Answer::new(200, shared.lock().unwrap().to_string()),
        _ => Answer::new(200, ""),
    });
    let place = tempfile::tempdir().unwrap();
    let here = place.path().display();
    let (conf, refresh, log) =
        (place.path().join("conf"), place.path().join("refresh"), place.path().join("log"));
    fs::write(&refresh, format!("#!/bin/sh\necho command >> {here}/log\n")).unwrap();
    fs::set_permissions(&refresh, fs::Permissions::from_mode(0o755)).unwrap();
    let url = heat.url("/metadata");
    fs::write(
        &conf,
        format!(
            "[DEFAULT]\ncachedir={here}/cache\nbackup_cachedir={here}/backup\ncommand={here}/refresh\n\
             collectors=request\nmin_polling_interval=0.05\npolling_interval=0.05\n\
             [request]\nmetadata_url={url}\n"
        ),
    )
    .unwrap();
    let line = |id: &str| script(id, &format!("#!/bin/sh\necho {id} >> {here}/log\n"));
    let signalled = |id: &str| {
        let mut entry = line(id);
        entry["inputs"] = json!([{"name": "deploy_signal_id", "value": heat.url("/signal")}]);
        entry
    };
    *metadata.lock().unwrap() = document(&[signalled("polled")]);
    let mut agent = Agent::prepare(&["--collect-config", conf.to_str().unwrap()]);
    agent.launch();
    wait_until("the signal", || heat.asked().into_iter().find(|asked| asked.target == "/signal"));
    assert_eq!(fs::read_to_string(&log).unwrap(), "command\npolled\n");

    let server = Server::start();
    let token = server.token("vm-1", Duration::from_secs(600));
    let mut with_token: Value = document(&[signalled("polled")]);
    with_token["agent-client"] = json!({"token": token});
    *metadata.lock().unwrap() = with_token;
    server.wait_for_agent("vm-1", "connected");
    let version = server.accept("vm-1", &document(&[line("polled"), line("pushed")]));
    server.wait_until_applied("vm-1", version);
    assert_eq!(server.wait_for_result("vm-1", "pushed")["status"], "COMPLETE");
    let text = fs::read_to_string(&log).unwrap();
    assert_eq!(text.matches("polled").count(), 1, "{text}");
    assert!(text.ends_with("command\npushed\n"), "{text}");
    agent.wait_for_status("the end of polling", |shown| {
        shown["status"].get("polling").is_none().then_some(())
    });
    agent.stop();
}
