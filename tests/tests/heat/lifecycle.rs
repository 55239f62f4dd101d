//! Stacks from their beginning to their end.

use serde_json::{Value, json};
use system_tests::wait_until;

use crate::cloud::template;
use crate::stack::Stack;
use crate::world::World;

fn outputs(world: &World, stack: &Stack<'_>) -> Value {
    let shown =
        world.cloud.openstack(&["stack", "output", "show", "--all", "-f", "json", &stack.id()]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let mut outputs = json!({});
    for (key, value) in shown.as_object().unwrap() {
        // The client prints each output as JSON within JSON.
        let entry: Value = value
            .as_str()
            .map_or_else(|| value.clone(), |text| serde_json::from_str(text).unwrap());
        outputs[key] = entry["output_value"].clone();
    }
    outputs
}

#[test]
fn a_script_is_run_updated_in_place_and_withdrawn_and_its_outputs_are_shown() {
    let world = World::start();
    let mut stack = Stack::create(&world.cloud, "script", &template("script"), &json!({}));
    let config = stack.os_collect_configs(1).remove(0);
    let _agent = world.agent("vm", &config);
    stack.completed("CREATE");
    let shown = outputs(&world, &stack);
    let server = shown["server_id"].as_str().unwrap();
    assert_eq!(shown["result"], "hello world");
    assert_eq!(shown["stdout"], format!("action CREATE on {server}\n"));
    assert_eq!((&shown["stderr"], &shown["status_code"]), (&json!("warning text\n"), &json!(0)));

    stack.update(&json!({"greeting": "goodbye"}));
    stack.completed("UPDATE");
    assert_eq!(stack.output("result"), "goodbye world");
    assert_eq!(world.actions("vm"), ["CREATE", "UPDATE"], "each ran once");

    stack.delete();
    stack.completed("DELETE");
    wait_until("the agent to have nothing left to do", || {
        let document = world.server.get("/v1/agents/vm/metadata");
        (document["deployments"] == json!([])).then_some(())
    });
    assert_eq!(world.actions("vm"), ["CREATE", "UPDATE"]);
}

#[test]
fn each_transport_of_signals_reaches_heat() {
    for transport in ["CFN_SIGNAL", "ZAQAR_SIGNAL", "NO_SIGNAL"] {
        let world = World::start();
        let parameters = json!({"signal_transport": transport});
        let stack = Stack::create(&world.cloud, "signal", &template("script"), &parameters);
        let config = stack.os_collect_configs(1).remove(0);
        let _agent = world.agent("vm", &config);
        stack.completed("CREATE");
        wait_until("the script to have run", || (world.actions("vm") == ["CREATE"]).then_some(()));
        if transport != "NO_SIGNAL" {
            assert_eq!(stack.output("result"), "hello world", "{transport}");
        }
    }
}

#[test]
fn a_server_with_a_temporary_url_is_pushed_to_and_its_signals_are_found_in_objects() {
    for signal in ["TEMP_URL_SIGNAL", "CFN_SIGNAL"] {
        let world = World::start_with(&["--swift-roles", "member"]);
        let parameters = json!({"transport": "POLL_TEMP_URL", "signal_transport": signal});
        let mut stack = Stack::create(&world.cloud, "temp", &template("script"), &parameters);
        let config = stack.os_collect_configs(1).remove(0);
        assert_eq!(config["collectors"], json!(["request", "local"]));
        let _agent = world.agent("vm", &config);
        stack.completed("CREATE");
        assert_eq!(stack.output("result"), "hello world", "{signal}");
        stack.update(&json!({"greeting": "goodbye"}));
        stack.completed("UPDATE");
        assert_eq!(stack.output("result"), "goodbye world", "{signal}");
        assert_eq!(world.actions("vm"), ["CREATE", "UPDATE"], "each ran once");
        stack.delete();
        stack.completed("DELETE");
        wait_until("the agent to have nothing left to do", || {
            let document = world.server.get("/v1/agents/vm/metadata");
            (document["deployments"] == json!([])).then_some(())
        });
    }
}

#[test]
fn a_structured_config_reaches_its_hook_as_heat_has_filled_it_in() {
    let world = World::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.json");
    let text = template("structured").replace("/tmp/app.json", &file.display().to_string());
    let mut stack = Stack::create(&world.cloud, "structured", &text, &json!({}));
    let config = stack.os_collect_configs(1).remove(0);
    let _agent = world.agent("vm", &config);
    stack.completed("CREATE");
    let written = |port: u64| {
        let read: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        assert_eq!(read["port"], port, "{read}");
        assert_eq!(read["hosts"]["b.example"], "192.0.2.2", "{read}");
        assert_eq!(read["nested"], json!({"list": [1, 2.5, true, null, "x"]}));
    };
    written(8080);
    stack.update(&json!({"listen_port": 9090}));
    stack.completed("UPDATE");
    written(9090);
}

#[test]
fn a_component_runs_the_config_of_each_action() {
    let world = World::start();
    let mut stack = Stack::create(&world.cloud, "component", &template("component"), &json!({}));
    let config = stack.os_collect_configs(1).remove(0);
    let _agent = world.agent("vm", &config);
    stack.completed("CREATE");
    assert_eq!(stack.output("result"), "created v1");
    stack.update(&json!({"version": "v2"}));
    stack.completed("UPDATE");
    assert_eq!(stack.output("result"), "updated v2");
}

#[test]
fn a_group_runs_on_three_agents_and_each_answers_for_itself() {
    let world = World::start();
    let stack = Stack::create(&world.cloud, "group", &template("group"), &json!({}));
    let configs = stack.os_collect_configs(3);
    let _agents: Vec<_> = configs
        .iter()
        .enumerate()
        .map(|(index, config)| world.agent(&format!("vm{index}"), config))
        .collect();
    stack.completed("CREATE");
    let (ids, results) = (stack.output("server_ids"), stack.output("results"));
    assert_eq!(ids.as_object().unwrap().len(), 3);
    assert_eq!(results, ids, "each has said its own server's id");
    assert_eq!(stack.output("status_codes"), json!({"0": 0, "1": 0, "2": 0}));
}

#[test]
fn a_delete_deployment_has_run_before_heat_withdraws_it() {
    let world = World::start();
    let stack = Stack::create(&world.cloud, "actions", &template("actions"), &json!({}));
    let config = stack.os_collect_configs(1).remove(0);
    let _agent = world.agent("vm", &config);
    stack.completed("CREATE");
    assert_eq!(world.actions("vm"), ["CREATE", "CREATE"]);
    // Nova does not know the server, so Heat waits for nobody.
    stack.delete();
    stack.completed("DELETE");
    wait_until("both DELETE deployments to have run", || {
        let deletes = world.actions("vm").iter().filter(|action| *action == "DELETE").count();
        (deletes == 2).then_some(())
    });
}
