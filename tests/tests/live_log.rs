//! What a hook prints while it runs, at the server.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use system_tests::documents::{document, script};
use system_tests::{Agent, Process, Server, wait_until};

const AGENT: &str = "live-log";
const SECRET: &str = "correct-horse-battery";

/// A deployment that prints a line, then one more for each file that appears.
struct Slow {
    steps: [PathBuf; 2],
    deployment: Value,
}

fn slow(agent: &Agent, id: &str) -> Slow {
    let steps = ["second", "last"].map(|step| agent.directory().join(format!("{id}-{step}")));
    let wait = steps
        .each_ref()
        .map(|step| format!("until [ -e {} ]; do sleep 0.02; done", step.display()));
    let text = format!(
        "#!/bin/sh\necho first of {id}\n{}\necho \"log in with $db_password\" >&2\n{}\nprintf 'last of {id}'\n",
        wait[0], wait[1]
    );
    let mut deployment = script(id, &text);
    let password = json!({"name": "db_password", "type": "String", "value": SECRET});
    deployment["inputs"].as_array_mut().unwrap().push(password);
    Slow { steps, deployment }
}

fn logs(server: &Server, arguments: &[&str]) -> Process {
    Process::start(&mut server.cli(&[&["logs", AGENT], arguments].concat()))
}

fn wait_for(process: &mut Process, text: &str) {
    process.wait_for_line(text, |line| line.contains(text).then_some(()));
}

#[test]
fn somebody_who_follows_sees_the_first_line_before_the_hook_has_ended() {
    let server = Server::start();
    let agent = Agent::start(&server, AGENT);
    let Slow { steps, deployment } = slow(&agent, "one");
    // From before anything runs, and then from the middle.
    let mut follow = logs(&server, &["--follow", "--deployment", "config one"]);
    wait_until("somebody to watch", || (server.metric("mds_logs_followed") == 1.0).then_some(()));
    server.accept(AGENT, &document(&[deployment]));
    wait_for(&mut follow, "==> config one (one), started ");
    wait_for(&mut follow, "first of one");
    assert!(server.results(AGENT).is_empty(), "it still runs");

    let once = server.cli(&["logs", AGENT]).output().unwrap();
    assert!(once.status.success(), "{once:?}");
    let text = String::from_utf8(once.stdout).unwrap();
    assert!(text.starts_with("==> config one (one)") && text.ends_with("first of one\n"), "{text}");
    let other = server.cli(&["logs", AGENT, "--deployment", "other"]).output().unwrap();
    assert_eq!(other.status.code(), Some(1));
    assert!(String::from_utf8(other.stderr).unwrap().contains("\"other\" runs"), "nothing of it");

    fs::write(&steps[0], "").unwrap();
    wait_for(&mut follow, "log in with (hidden)");
    fs::write(&steps[1], "").unwrap();
    // Ends with the result of the deployment that was asked for; two streams, in whatever order.
    assert!(follow.wait().success(), "{follow}");
    let text = follow.text();
    for expected in ["last of one", "result of config one (one): COMPLETE, exit status 0"] {
        assert!(text.contains(expected), "{follow}");
    }
    assert!(!text.contains(SECRET), "{follow}");
    // What counts is the result, in which the script's own words are as they were.
    let result = server.wait_for_result(AGENT, "one");
    assert_eq!(result["deploy_stdout"], "first of one\nlast of one");
    assert_eq!(result["deploy_stderr"], format!("log in with {SECRET}\n"));
    wait_until("nobody to watch any more", || {
        (server.metric("mds_logs_followed") == 0.0).then_some(())
    });
    let nothing = server.cli(&["logs", AGENT]).output().unwrap();
    assert!(nothing.status.success() && nothing.stdout.is_empty(), "{nothing:?}");
    assert!(String::from_utf8(nothing.stderr).unwrap().contains("nothing runs"));
}

#[test]
fn a_log_goes_on_after_restarts_of_the_server_and_of_the_agent() {
    let mut server = Server::start();
    let mut agent = Agent::start(&server, AGENT);
    let Slow { steps, deployment } = slow(&agent, "two");
    let mut follow = logs(&server, &["--follow", "--json"]);
    server.accept(AGENT, &document(&[deployment]));
    wait_for(&mut follow, "first of two");
    server.kill();
    assert!(!follow.wait().success(), "without a server there is nothing to follow");
    server.restart();
    let mut follow = logs(&server, &["--follow"]);
    wait_for(&mut follow, "first of two");
    fs::write(&steps[0], "").unwrap();
    wait_for(&mut follow, "(hidden)");
    agent.kill();
    agent.launch();
    // The run was interrupted with its agent, and that is its result.
    wait_for(&mut follow, "result of config two (two): FAILED");
    let away = server.cli(&["logs", "nobody"]).output().unwrap();
    assert_eq!(away.status.code(), Some(1));
    assert!(String::from_utf8(away.stderr).unwrap().contains("not known"));
}
