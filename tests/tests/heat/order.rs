//! Many deployments of one server at a time: Heat pushes at each, and not always the newest last.

use serde_json::{Value, json};
use system_tests::wait_until;

use crate::cloud::template;
use crate::stack::Stack;
use crate::world::{World, queue};

#[test]
fn a_heat_that_does_not_push_is_polled_and_only_changes_become_pushes() {
    let world = World::start_with(&["--heat-poll-interval", "1s"]);
    let parameters = json!({"transport": "POLL_SERVER_HEAT"});
    let mut stack = Stack::create(&world.cloud, "polled", &template("script"), &parameters);
    let config = stack.os_collect_configs(1).remove(0);
    let _agent = world.agent("vm", &config);
    stack.completed("CREATE");
    stack.update(&json!({"greeting": "polled"}));
    stack.completed("UPDATE");
    assert_eq!(stack.output("result"), "polled world");
    let (polls, held) = (world.server.metric("mds_heat_polls_answered_total"), version(&world));
    wait_until("two more polls", || {
        (world.server.metric("mds_heat_polls_answered_total") >= polls + 2.0).then_some(())
    });
    assert_eq!(version(&world), held, "what is in force is not pushed again");
    assert_eq!(world.actions("vm"), ["CREATE", "UPDATE"]);
}

fn version(world: &World) -> u64 {
    world.server.get("/v1/agents/vm")["document"]["version"].as_u64().unwrap()
}

#[test]
fn after_many_pushes_an_agent_has_what_heat_has() {
    let world = World::start();
    let stack = Stack::create(
        &world.cloud,
        "many",
        &template("many"),
        &json!({"signal_transport": "NO_SIGNAL"}),
    );
    let config = stack.os_collect_configs(1).remove(0);
    let _agent = world.agent("vm", &config);
    stack.completed("CREATE");
    let ids = |deployments: &Value| {
        let mut ids: Vec<String> =
            deployments.as_array().unwrap().iter().map(|d| d["id"].to_string()).collect();
        ids.sort();
        ids
    };
    let server = stack.output("server_id");
    let path = format!("/software_deployments/metadata/{}", server.as_str().unwrap());
    let in_heat = ids(&world.cloud.get(&path)["metadata"]);
    assert!(world.front.posts(queue(&config)).len() >= in_heat.len(), "a push for each");
    wait_until("the agent to have what Heat has", || {
        let held = world.server.get("/v1/agents/vm/metadata");
        (ids(&held["deployments"]) == in_heat).then_some(())
    });
    wait_until("each to have run once", || {
        let mut ran: Vec<String> = world
            .server
            .results("vm")
            .iter()
            .map(|r| r["result"]["config_id"].to_string())
            .collect();
        ran.sort();
        (ran == in_heat).then_some(())
    });
}
