//! The messaging service as Heat uses it, with a Keystone and a Heat made of a few lines.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use metadata_server::config::{Config, ConfigFile, Origin, Override, Value};
use serde_json::{Value as Json, json};
use support::cloud::Cloud;
use support::{PATIENCE, Running, config, http};

const QUEUE: &str = "stack-server-p5ql2x37etgt";

struct Messaging {
    running: Running,
    address: SocketAddr,
}

impl Messaging {
    async fn start(config: Config) -> Self {
        let running = Running::start(config).await;
        let address = running.server.zaqar_address.unwrap();
        Self { running, address }
    }

    async fn call(&self, token: &str, method: &str, path: &str, body: &str) -> (u16, Json) {
        let headers = format!("x-auth-token: {token}\r\nclient-id: c0ea\r\n");
        self.call_with(&headers, method, path, body).await
    }

    async fn call_with(&self, headers: &str, method: &str, path: &str, body: &str) -> (u16, Json) {
        let (status, body) = http(self.address, method, path, headers, body.as_bytes()).await;
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    /// Posts a document as Heat does.
    async fn push(&self, token: &str, document: &str) -> (u16, Json) {
        let body = format!("{{\"messages\": [{{\"body\": {document}, \"ttl\": 3600}}]}}");
        self.call(token, "POST", &format!("/v2/queues/{QUEUE}/messages"), &body).await
    }

    async fn bind(&self, agent: &str) -> (u16, Json) {
        let body = json!({"os_collect_config": occ()}).to_string();
        self.running.call("POST", &format!("/v1/agents/{agent}/enrolment"), &body).await
    }

    /// The document in force for an agent.
    async fn in_force(&self, agent: &str) -> Json {
        self.running.call("GET", &format!("/v1/agents/{agent}/metadata"), "").await.1
    }
}

fn settings(cloud: &Cloud, folder: &tempfile::TempDir) -> Config {
    let url = format!("http://{}/v3", cloud.server.address);
    let heat = cloud.server.url("/");
    let settings =
        [("zaqar_listen", "127.0.0.1:0"), ("keystone_url", &*url), ("relay_signals_to", &heat)];
    config(folder.path(), &settings)
}

const HEAT: &str = "heat-user@project:heat_stack_user";

fn occ() -> Json {
    json!({"collectors": ["zaqar", "local"], "zaqar": {
        "user_id": "heat-user", "password": "secret", "auth_url": "http://127.0.0.1:9/v3/",
        "project_id": "project", "queue_id": QUEUE, "region_name": "RegionOne",
    }})
}

fn deployment(id: &str, second: u32) -> Json {
    json!({"id": id, "name": "d", "group": "script",
        "creation_time": format!("2026-11-22T03:58:{second:02}Z"),
        "inputs": [{"name": "deploy_server_id", "value": "the-server"}, {"name": "x", "value": 1.50}]})
}

fn document(deployments: &[Json]) -> String {
    json!({"deployments": deployments, "os-collect-config": occ()}).to_string()
}

#[tokio::test]
async fn what_heat_posts_reaches_its_agent_byte_for_byte() {
    let (cloud, folder) = (Cloud::start(), tempfile::tempdir().unwrap());
    let messaging = Messaging::start(settings(&cloud, &folder)).await;
    let (status, answer) = messaging.push(HEAT, &document(&[])).await;
    assert_eq!(status, 201, "{answer}");
    let path = answer["resources"][0].as_str().unwrap();
    assert!(path.starts_with(&format!("/v2/queues/{QUEUE}/messages/")), "{path}");

    let (_, mut agent) = messaging.running.enrolled("vm").await;
    let (status, answer) = messaging.bind("vm").await;
    assert_eq!((status, &answer["queue"]), (201, &format!("project/{QUEUE}").into()), "{answer}");
    assert_eq!(agent.document("metadata").await.body, document(&[]).as_bytes());
    // Also what JSON's readers change when they write: spaces, numbers, escapes.
    let body = document(&[deployment("a1", 1)]).replace("1.5", " 1.50 ");
    let (status, answer) = messaging.push(HEAT, &body).await;
    assert_eq!(status, 201, "{answer}");
    assert_eq!(agent.document("metadata").await.body, body.as_bytes());
    assert_eq!(cloud.validations(), 1, "one token, asked about once");
    messaging.running.server.stop().await;
}

#[tokio::test]
async fn a_push_before_enrolment_survives_a_restart_and_so_do_signed_urls() {
    let (cloud, folder) = (Cloud::start(), tempfile::tempdir().unwrap());
    let messaging = Messaging::start(settings(&cloud, &folder)).await;
    let body = document(&[deployment("a1", 1)]);
    assert_eq!(messaging.push(HEAT, &body).await.0, 201);
    let share = json!({"paths": ["messages"], "methods": ["GET", "DELETE"]}).to_string();
    let (status, shared) = messaging.call(HEAT, "POST", "/v2/queues/signals/share", &share).await;
    assert_eq!(status, 200, "{shared}");
    messaging.running.server.stop().await;

    let messaging = Messaging::start(settings(&cloud, &folder)).await;
    assert_eq!(messaging.bind("vm").await.0, 201);
    assert_eq!(messaging.in_force("vm").await, serde_json::from_str::<Json>(&body).unwrap());
    let (status, taken) = pop(&messaging, &signed(&shared), "signals").await;
    assert_eq!((status, taken), (200, json!({"messages": []})));
    messaging.running.server.stop().await;
}

fn signed(shared: &Json) -> String {
    let list = |key: &str| {
        let entries: Vec<_> =
            shared[key].as_array().unwrap().iter().map(|e| e.as_str().unwrap()).collect();
        entries.join(",")
    };
    format!(
        "x-project-id: {}\r\nurl-signature: {}\r\nurl-expires: {}\r\nurl-methods: {}\r\nurl-paths: {}\r\n",
        shared["project"].as_str().unwrap(),
        shared["signature"].as_str().unwrap(),
        shared["expires"].as_str().unwrap(),
        list("methods"),
        list("paths"),
    )
}

async fn pop(messaging: &Messaging, headers: &str, queue: &str) -> (u16, Json) {
    let path = format!("/v2/queues/{queue}/messages?pop=1");
    messaging.call_with(headers, "DELETE", &path, "").await
}

#[tokio::test]
async fn a_signal_is_posted_by_the_instance_and_taken_once_by_a_signed_url() {
    let (cloud, folder) = (Cloud::start(), tempfile::tempdir().unwrap());
    let messaging = Messaging::start(settings(&cloud, &folder)).await;
    let share = json!({"paths": ["messages"], "methods": ["GET", "DELETE"]}).to_string();
    let (_, shared) = messaging.call(HEAT, "POST", "/v2/queues/signals/share", &share).await;
    let headers = signed(&shared);
    assert_eq!(pop(&messaging, &headers, "signals").await, (200, json!({"messages": []})));
    let signal = json!({"deploy_stdout": "", "deploy_status_code": 0, "result": "x"});
    let body = json!({"messages": [{"body": signal, "ttl": 600}]}).to_string();
    let path = "/v2/queues/signals/messages";
    assert_eq!(messaging.call(HEAT, "POST", path, &body).await.0, 201);
    // Its own messages a client is not shown, unless it asks.
    assert_eq!(messaging.call(HEAT, "GET", path, "").await.1["messages"], json!([]));
    let echoed = messaging.call(HEAT, "GET", &format!("{path}?echo=true"), "").await.1;
    assert_eq!(echoed["messages"][0]["body"], signal);
    let one = echoed["messages"][0]["href"].as_str().unwrap();
    let shown = messaging.call(HEAT, "GET", one, "").await.1;
    assert_eq!((&shown["href"], &shown["body"]), (&one.into(), &signal));

    for (bent, queue) in [
        (headers.replace("DELETE", "DELETE,POST"), "signals"),
        (headers.replace("project", "other"), "signals"),
        (headers.replace("20", "21"), "signals"),
        (headers.clone(), "other-queue"),
    ] {
        assert_eq!(pop(&messaging, &bent, queue).await.0, 403, "{bent}");
    }
    let (status, taken) = pop(&messaging, &headers, "signals").await;
    assert_eq!((status, &taken["messages"][0]["body"]), (200, &signal), "{taken}");
    assert_eq!(taken["messages"][0]["ttl"], 600);
    assert_eq!(pop(&messaging, &headers, "signals").await, (200, json!({"messages": []})));
    assert_eq!(messaging.call_with(&headers, "POST", path, &body).await.0, 403);
    assert_eq!(messaging.call(HEAT, "DELETE", "/v2/queues/signals", "").await.0, 204);
    assert_eq!(messaging.call(HEAT, "GET", "/v2/queues/signals", "").await.0, 404);
    messaging.running.server.stop().await;
}

#[tokio::test]
async fn a_signed_url_ends_with_its_signers_hold_on_the_queue() {
    let (cloud, folder) = (Cloud::start(), tempfile::tempdir().unwrap());
    let messaging = Messaging::start(settings(&cloud, &folder)).await;
    let mallory = "mallory@project:heat_stack_user";
    let share = json!({"paths": ["messages"], "methods": ["GET", "POST", "DELETE"]}).to_string();
    let path = format!("/v2/queues/{QUEUE}/share");
    let (status, shared) = messaging.call(mallory, "POST", &path, &share).await;
    assert_eq!(status, 200, "{shared}");
    let url = signed(&shared);
    assert_eq!(pop(&messaging, &url, QUEUE).await.0, 200);
    // The server's own user is known from here on.
    assert_eq!(messaging.bind("vm").await.0, 201);
    assert_eq!(pop(&messaging, &url, QUEUE).await.0, 403);
    let forged =
        format!("{{\"messages\": [{{\"body\": {}}}]}}", document(&[deployment("evil", 9)]));
    let path = format!("/v2/queues/{QUEUE}/messages");
    assert_eq!(messaging.call_with(&url, "POST", &path, &forged).await.0, 403);
    let as_another = url.replace("mallory", "heat-user");
    assert_eq!(pop(&messaging, &as_another, QUEUE).await.0, 403);
    messaging.running.server.stop().await;
}

#[tokio::test]
async fn a_message_is_shown_byte_for_byte_as_it_was_posted() {
    let (cloud, folder) = (Cloud::start(), tempfile::tempdir().unwrap());
    let messaging = Messaging::start(settings(&cloud, &folder)).await;
    let signal = r#"{"b": 1.50, "a" :[ 1e2, "\u0041" ], "a": 12345678901234567890123}"#;
    let body = format!("{{\"messages\": [{{\"body\": {signal}}}]}}");
    let path = "/v2/queues/signals/messages";
    assert_eq!(messaging.call(HEAT, "POST", path, &body).await.0, 201);
    let headers = format!("x-auth-token: {HEAT}\r\n");
    for (method, query) in [("GET", "?limit=3"), ("DELETE", "?pop=1")] {
        let target = format!("{path}{query}");
        let (status, shown) = http(messaging.address, method, &target, &headers, b"").await;
        let shown = String::from_utf8(shown).unwrap();
        assert!(status == 200 && shown.contains(signal), "{shown}");
    }
    messaging.running.server.stop().await;
}

#[tokio::test]
async fn only_who_has_a_token_role_and_the_queue_may_post() {
    let (cloud, folder) = (Cloud::start(), tempfile::tempdir().unwrap());
    let messaging = Messaging::start(settings(&cloud, &folder)).await;
    assert_eq!(messaging.bind("vm").await.0, 201);
    let mine = document(&[deployment("a1", 1)]);
    let forged = document(&[deployment("evil", 9)]);
    assert_eq!(messaging.push(HEAT, &mine).await.0, 201);
    for (token, wanted) in [
        ("unknown", 401),
        ("", 401),
        ("heat-user@project:member", 403),
        ("neighbour@project:heat_stack_user", 403),
    ] {
        let (status, answer) = messaging.push(token, &forged).await;
        assert_eq!(status, wanted, "{token}: {answer}");
        assert!(answer["title"].is_string() && answer["description"].is_string(), "{answer}");
    }
    // Another project's queue of the same name is another one, whatever project a header claims.
    let headers = "x-auth-token: heat-user@other:heat_stack_user\r\nx-project-id: project\r\n";
    let body = format!("{{\"messages\": [{{\"body\": {forged}}}]}}");
    let path = format!("/v2/queues/{QUEUE}/messages");
    assert_eq!(messaging.call_with(headers, "POST", &path, &body).await.0, 201);
    let (status, _) = messaging.call_with("", "POST", &path, &body).await;
    assert_eq!(status, 401);
    assert_eq!(messaging.in_force("vm").await, serde_json::from_str::<Json>(&mine).unwrap());
    // A name alone does not say whose queue it is.
    let bare = json!({"queue": QUEUE}).to_string();
    let (status, answer) = messaging.running.call("POST", "/v1/agents/x/enrolment", &bare).await;
    assert_eq!((status, &answer["error"]["code"]), (400, &"bad_queue".into()), "{answer}");
    messaging.running.server.stop().await;
}

#[tokio::test]
async fn while_keystone_is_away_known_tokens_go_on_and_others_are_told_to_come_back() {
    let (cloud, folder) = (Cloud::start(), tempfile::tempdir().unwrap());
    let messaging = Messaging::start(settings(&cloud, &folder)).await;
    assert_eq!(messaging.push(HEAT, &document(&[])).await.0, 201);
    cloud.broken.store(500, Ordering::Release);
    assert_eq!(messaging.push(HEAT, &document(&[deployment("a1", 1)])).await.0, 201);
    let (status, answer) = messaging.push("new@project:heat_stack_user", &document(&[])).await;
    assert_eq!(status, 503, "{answer}");
    assert!(answer["description"].as_str().unwrap().contains("Keystone"), "{answer}");
    cloud.broken.store(0, Ordering::Release);
    // That it could not be asked about is not remembered of a token.
    let (status, _) = messaging.push("new@project:heat_stack_user", &document(&[])).await;
    assert_eq!(status, 403, "known again, and not the queue's owner");
    messaging.running.server.stop().await;
}

#[tokio::test]
async fn bad_input_is_refused_with_words_for_the_stacks_owner() {
    let (cloud, folder) = (Cloud::start(), tempfile::tempdir().unwrap());
    let messaging = Messaging::start(settings(&cloud, &folder)).await;
    let twice = document(&[deployment("a1", 1), deployment("a1", 1)]);
    let (status, answer) = messaging.push(HEAT, &twice).await;
    assert_eq!((status, &answer["title"]), (400, &"Metadata not accepted".into()));
    assert!(answer["description"].as_str().unwrap().contains("/deployments/1/id"), "{answer}");
    let path = format!("/v2/queues/{QUEUE}/messages");
    for body in ["", "{}", "[]", "{\"messages\": []}", "{\"messages\": [{\"ttl\": 3}]}"] {
        assert_eq!(messaging.call(HEAT, "POST", &path, body).await.0, 400, "{body}");
    }
    for (method, path, wanted) in [
        ("PUT", "/v2/queues/a%20b", 400),
        ("PATCH", "/v2/queues/q", 405),
        ("GET", "/v2/flavors", 404),
        ("DELETE", "/v2/queues/q/messages", 400),
        ("DELETE", "/v2/queues/q/messages?pop=0", 400),
        ("GET", "/v2/queues/q/messages/xyz", 404),
        ("PUT", "/v2/queues/q", 201),
        ("PUT", "/v2/queues/q", 204),
        ("GET", "/v1.1/ping", 204),
    ] {
        let (status, answer) = messaging.call(HEAT, method, path, "").await;
        assert_eq!(status, wanted, "{method} {path}: {answer}");
    }
    messaging.running.server.stop().await;
}

#[tokio::test]
async fn after_a_burst_in_the_wrong_order_heat_is_asked_once_and_its_word_counts() {
    let (cloud, folder) = (Cloud::start(), tempfile::tempdir().unwrap());
    let messaging = Messaging::start(settings(&cloud, &folder)).await;
    assert_eq!(messaging.bind("vm").await.0, 201);
    // What Heat has in force is in none of its pushes.
    *cloud.deployments.lock().unwrap() = json!([deployment("a3", 30)]);
    for (id, second) in [("a2", 20), ("a1", 10)] {
        let (status, _) = messaging.push(HEAT, &document(&[deployment(id, second)])).await;
        assert_eq!(status, 201);
        let held = messaging.in_force("vm").await;
        assert_eq!(held["deployments"][0]["id"], "a2", "no older one after a newer one");
    }
    let settled = tokio::time::timeout(PATIENCE, async {
        loop {
            let held = messaging.in_force("vm").await;
            if held["deployments"][0]["id"] == "a3" {
                return held;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
    let held = settled.await.unwrap();
    assert_eq!(held["os-collect-config"], occ(), "all but the deployments stays");
    assert_eq!(cloud.questions().len(), 1, "{:?}", cloud.questions());
    messaging.running.server.stop().await;
}

#[test]
fn the_service_does_not_start_without_keystone_and_a_wall_unless_told_so_on_loopback() {
    let load = |settings: &[(&'static str, &str)]| {
        let overrides: Vec<_> = settings
            .iter()
            .map(|(key, text)| Override {
                key,
                value: Value::Text((*text).into()),
                origin: Origin::Together,
            })
            .collect();
        Config::load(&ConfigFile::None, &overrides).map(drop).map_err(|error| error.to_string())
    };
    let error = load(&[("zaqar_listen", "127.0.0.1:8888")]).unwrap_err();
    assert!(error.contains("zaqar_listen needs keystone_url"), "{error}");
    load(&[("zaqar_listen", "127.0.0.1:8888"), ("zaqar_any_token", "true")]).unwrap();
    let error = load(&[("zaqar_listen", "0.0.0.0:8888"), ("zaqar_any_token", "true")]).unwrap_err();
    assert!(error.contains("beyond loopback"), "{error}");
    let service =
        [("zaqar_listen", "127.0.0.1:8888"), ("keystone_url", "https://keystone.example:5000/v3")];
    let with = |more| load(&[service[0], service[1], more]);
    let error = load(&service).unwrap_err();
    assert!(error.contains("zaqar_listen needs relay_signals_to"), "{error}");
    assert!(with(("relay_signals_to", "https://heat.example:8004/v1/")).is_ok());
    assert!(with(("signal", "off")).is_ok(), "then nobody is signalled");
    let error = load(&[("keystone_url", "cloud.example")]).unwrap_err();
    assert!(error.contains("must be a URL"), "{error}");
    let error = load(&[("keystone_user_id", "abc")]).unwrap_err();
    assert!(error.contains("belong together"), "{error}");
}
