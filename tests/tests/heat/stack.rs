//! A stack of the test, gone at its end.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use openstack_client::http::Method;
use serde_json::{Value, json};

use crate::cloud::Cloud;

/// How long a stack may take for anything, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

pub(crate) struct Stack<'a> {
    cloud: &'a Cloud,
    path: String,
    template: String,
    parameters: Value,
}

impl<'a> Stack<'a> {
    /// Begins to create one.
    pub(crate) fn create(cloud: &'a Cloud, name: &str, template: &str, parameters: &Value) -> Self {
        // Of a stack that is gone, Heat may go on to know the name for a moment.
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{name}-{}-{number}", std::process::id());
        let mut all = json!({"transport": "ZAQAR_MESSAGE", "signal_transport": "HEAT_SIGNAL"});
        merge(&mut all, parameters);
        let body = json!({"stack_name": name, "template": template, "parameters": all,
            "timeout_mins": 5, "disable_rollback": true});
        let response = cloud.ask(Method::Post, "/stacks", Some(&body));
        assert_eq!(response.status, 201, "{}", response.text());
        let answer: Value = serde_json::from_slice(&response.body).unwrap();
        let path = format!("/stacks/{name}/{}", answer["stack"]["id"].as_str().unwrap());
        Self { cloud, path, template: template.to_owned(), parameters: all }
    }

    /// Begins to update it, with these parameters changed.
    pub(crate) fn update(&mut self, parameters: &Value) {
        merge(&mut self.parameters, parameters);
        let body = json!({"template": self.template, "parameters": self.parameters,
            "timeout_mins": 5});
        let response = self.cloud.ask(Method::Put, &self.path, Some(&body));
        assert_eq!(response.status, 202, "{}", response.text());
    }

    /// Has a resource made anew by the next update.
    pub(crate) fn mark_unhealthy(&self, resource: &str) {
        self.cloud.openstack(&["stack", "resource", "mark", "unhealthy", &self.id(), resource]);
    }

    /// Begins to delete it.
    pub(crate) fn delete(&self) {
        let response = self.cloud.ask(Method::Delete, &self.path, None);
        assert_eq!(response.status, 204, "{}", response.text());
    }

    pub(crate) fn id(&self) -> String {
        self.path.rsplit('/').next().unwrap().to_owned()
    }

    fn show(&self) -> Option<Value> {
        let response = self.cloud.ask(Method::Get, &self.path, None);
        match response.status {
            200 => Some(serde_json::from_slice::<Value>(&response.body).unwrap()["stack"].take()),
            404 => None,
            status => panic!("{status}: {}", response.text()),
        }
    }

    /// Waits until an action has ended; its status and the reason.
    pub(crate) fn ended(&self, action: &str) -> (String, String) {
        self.wait_for(&format!("{action} to end"), || {
            let Some(stack) = self.show() else {
                return (action == "DELETE").then(|| ("DELETE_COMPLETE".into(), String::new()));
            };
            let status = stack["stack_status"].as_str().unwrap();
            let is_over = status.starts_with(action) && !status.ends_with("IN_PROGRESS");
            is_over.then(|| {
                (status.to_owned(), stack["stack_status_reason"].as_str().unwrap().to_owned())
            })
        })
    }

    /// Waits until an action has ended well.
    pub(crate) fn completed(&self, action: &str) {
        let (status, reason) = self.ended(action);
        assert_eq!(status, format!("{action}_COMPLETE"), "{reason}");
    }

    /// An output of the stack.
    pub(crate) fn output(&self, key: &str) -> Value {
        let mut answer = self.cloud.get(&format!("{}/outputs/{key}", self.path));
        answer["output"]["output_value"].take()
    }

    /// What each server says of where its metadata is to come from, as soon as `count` of them do, in the
    /// order of their names.
    pub(crate) fn os_collect_configs(&self, count: usize) -> Vec<Value> {
        self.wait_for("servers to be there", || {
            let listed = self.cloud.get(&format!("{}/resources?nested_depth=2", self.path));
            let mut servers: Vec<_> = listed["resources"]
                .as_array()?
                .iter()
                .filter(|r| r["resource_type"] == "OS::Heat::DeployedServer")
                .filter(|r| r["resource_status"].as_str().is_some_and(|s| s.ends_with("COMPLETE")))
                .collect();
            servers.sort_by_key(|server| server["resource_name"].to_string());
            let configs: Vec<Value> =
                servers.iter().filter_map(|server| self.os_collect_config(server)).collect();
            (configs.len() == count).then_some(configs)
        })
    }

    fn os_collect_config(&self, server: &Value) -> Option<Value> {
        let links = server["links"].as_array()?;
        let stack = links.iter().find(|link| link["rel"] == "stack")?["href"].as_str()?;
        let path = format!(
            "{}/resources/{}?with_attr=os_collect_config",
            &stack[stack.find("/stacks/")?..],
            server["resource_name"].as_str()?
        );
        let config = self.cloud.get(&path)["resource"]["attributes"]["os_collect_config"].take();
        let has = |section: &str, key: &str| config[section][key].is_string();
        let is_whole =
            has("zaqar", "queue_id") || has("heat", "stack_id") || has("request", "metadata_url");
        is_whole.then_some(config)
    }

    fn wait_for<T>(&self, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(answer) = ask() {
                return answer;
            }
            assert!(Instant::now() < deadline, "{what}: {:#?}", self.show());
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn merge(all: &mut Value, more: &Value) {
    for (key, value) in more.as_object().unwrap() {
        all[key] = value.clone();
    }
}

impl Drop for Stack<'_> {
    fn drop(&mut self) {
        // Also after a failure, so that the next run finds Heat as this one did.
        if self.cloud.ask(Method::Delete, &self.path, None).status == 204
            && !std::thread::panicking()
        {
            self.ended("DELETE");
        }
    }
}
