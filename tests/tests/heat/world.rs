//! A server of ours beside Heat, and agents.

use std::net::TcpListener;

use serde_json::{Value, json};
use system_tests::{Agent, Server};

use crate::cloud::Cloud;
use crate::front::Front;

pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) front: Front,
    pub(crate) cloud: Cloud,
}

impl World {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// With more settings of the server.
    pub(crate) fn start_with(flags: &[&str]) -> Self {
        let cloud = Cloud::enter();
        // Free a moment ago, and from a range that nobody else of these tests uses.
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let listen = free.to_string();
        let own = [
            "--zaqar-listen",
            &listen,
            "--keystone-url",
            &cloud.keystone_url,
            "--relay-signals-to",
            &cloud.signals_to(),
        ];
        let server = Server::start_with(&[&own, flags].concat());
        let front = Front::start(cloud.messaging, free);
        Self { server, front, cloud }
    }

    /// Makes an enrolment token for an agent whose metadata Heat posts.
    pub(crate) fn token(&self, agent: &str, os_collect_config: &Value) -> String {
        let body = json!({ "os_collect_config": os_collect_config }).to_string();
        let path = format!("/v1/agents/{agent}/enrolment");
        let reply = self.server.request("POST", &path, body.as_bytes()).unwrap();
        assert_eq!(reply.status, 201, "{reply}");
        reply.json()["token"].as_str().unwrap().to_owned()
    }

    /// Enrols and starts an agent.
    pub(crate) fn agent(&self, id: &str, os_collect_config: &Value) -> Agent {
        let mut agent = Agent::prepare(&[]);
        agent.save_token(&self.token(id, os_collect_config));
        agent.launch();
        self.server.wait_for_agent(id, "connected");
        agent
    }

    /// The results of an agent, by action.
    pub(crate) fn actions(&self, agent: &str) -> Vec<String> {
        let results = self.server.results(agent);
        results.iter().map(|r| r["result"]["action"].as_str().unwrap().to_owned()).collect()
    }
}

/// The name of the queue in an `os_collect_config`.
pub(crate) fn queue(os_collect_config: &Value) -> &str {
    os_collect_config["zaqar"]["queue_id"].as_str().unwrap()
}
