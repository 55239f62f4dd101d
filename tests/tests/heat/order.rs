//! Many deployments of one server at a time: Heat pushes at each, and not always the newest last.

use serde_json::{Value, json};
use system_tests::wait_until;

use crate::cloud::template;
use crate::stack::Stack;
use crate::world::{World, queue};

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
