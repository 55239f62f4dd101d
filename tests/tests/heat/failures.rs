//! What fails, and what is restarted in the middle of it.

use std::path::Path;

use serde_json::json;
use system_tests::{Agent, Disturbance, Relay, wait_until};

use crate::cloud::template;
use crate::stack::Stack;
use crate::world::{World, queue};

#[test]
fn a_failing_deployment_fails_the_stack_with_the_scripts_own_words() {
    for mode in ["exit_code", "error_output"] {
        let world = World::start();
        let stack =
            Stack::create(&world.cloud, "failing", &template("failing"), &json!({"mode": mode}));
        let config = stack.os_collect_configs(1).remove(0);
        let _agent = world.agent("vm", &config);
        let (status, reason) = stack.ended("CREATE");
        assert_eq!(status, "CREATE_FAILED");
        let words = if mode == "exit_code" { "non-zero status code: 3" } else { "disk full" };
        assert!(reason.contains(words), "{reason}");
    }
}

/// A script that says that it runs, and goes on when it is let.
fn waiting(folder: &Path) -> String {
    let (from, to) = ("echo \"warning text\" >&2", folder.display());
    let wait = format!("touch {to}/running; until [ -e {to}/go ]; do sleep 0.05; done");
    let text = template("script");
    assert!(text.contains(from));
    text.replace(from, &wait)
}

#[test]
fn the_server_may_be_killed_and_restarted_in_the_middle() {
    let mut world = World::start();
    let folder = tempfile::tempdir().unwrap();
    let mut stack = Stack::create(&world.cloud, "killed", &waiting(folder.path()), &json!({}));
    let config = stack.os_collect_configs(1).remove(0);
    let _agent = world.agent("vm", &config);
    wait_until("the script to run", || folder.path().join("running").exists().then_some(()));
    world.server.kill();
    world.server.restart();
    std::fs::write(folder.path().join("go"), "").unwrap();
    stack.completed("CREATE");
    assert_eq!(stack.output("result"), "hello world");
    assert_eq!(world.actions("vm"), ["CREATE"], "ran once");
    world.server.kill();
    world.server.restart();
    stack.update(&json!({"greeting": "again"}));
    stack.completed("UPDATE");
    assert_eq!(stack.output("result"), "again world");
}

#[test]
fn heat_may_be_away_when_a_script_ends_and_gets_the_result_when_it_is_back() {
    let world = World::start();
    let folder = tempfile::tempdir().unwrap();
    let stack = Stack::create(&world.cloud, "heat-killed", &waiting(folder.path()), &json!({}));
    let config = stack.os_collect_configs(1).remove(0);
    let _agent = world.agent("vm", &config);
    wait_until("the script to run", || folder.path().join("running").exists().then_some(()));
    let server = stack.output("server_id");
    world.cloud.kill_heat();
    std::fs::write(folder.path().join("go"), "").unwrap();
    wait_until("the result", || (world.actions("vm") == ["CREATE"]).then_some(()));
    world.cloud.start_heat();
    // The stack itself waits for its timeout: a Heat that was killed has forgotten that it was waiting. What
    // is ours to do is done when the deployment has its result.
    let path = format!("/software_deployments?server_id={}", server.as_str().unwrap());
    let output = wait_until("Heat to have the result", || {
        let deployment = world.cloud.get(&path)["software_deployments"][0].take();
        (deployment["status"] == "COMPLETE").then(|| deployment["output_values"]["result"].clone())
    });
    assert_eq!(output, "hello world");
    assert_eq!(world.actions("vm"), ["CREATE"], "ran once");
}

#[test]
fn a_server_that_is_replaced_has_another_queue_and_the_same_agent() {
    let world = World::start();
    let mut stack = Stack::create(&world.cloud, "replaced", &template("script"), &json!({}));
    let before = stack.os_collect_configs(1).remove(0);
    let mut agent = world.agent("vm", &before);
    stack.completed("CREATE");
    stack.mark_unhealthy("server");
    stack.update(&json!({"greeting": "new"}));
    let after = wait_until("another server", || {
        let config = stack.os_collect_configs(1).remove(0);
        (queue(&config) != queue(&before)).then_some(config)
    });
    agent.stop();
    let _same = world.agent("vm", &after);
    stack.completed("UPDATE");
    assert_eq!(stack.output("result"), "new world");
}

#[test]
fn thirty_percent_loss_between_server_and_agent_costs_time_and_nothing_else() {
    let world = World::start();
    let mut loss = Disturbance::none();
    loss.link.loss = 0.3;
    let relay = Relay::start(world.server.listen, 7, loss);
    let mut stack = Stack::create(&world.cloud, "lossy", &template("script"), &json!({}));
    let config = stack.os_collect_configs(1).remove(0);
    let between = relay.address().to_string();
    let mut agent = Agent::prepare_patient(&["--servers", &between]);
    agent.save_token(&world.token("vm", &config));
    agent.launch();
    stack.completed("CREATE");
    for greeting in ["one", "two", "three"] {
        stack.update(&json!({"greeting": greeting}));
        stack.completed("UPDATE");
        assert_eq!(stack.output("result"), format!("{greeting} world"));
    }
    assert_eq!(world.actions("vm").len(), 4, "each ran once");
    assert!(relay.stats().from_clients > 0, "it passed the relay: {:?}", relay.stats());
}
