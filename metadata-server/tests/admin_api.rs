//! The admin API: what it takes, what it refuses and how it says so, and that nothing is lost.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use metadata_server::boot::Server;
use metadata_server::store::backend::{Backend, ReadJob, Table, WriteJob};
use metadata_server::store::{MemoryBackend, StoreError};
use serde_json::{Value, json};
use support::{Running, config, document, http, result};

async fn running() -> (tempfile::TempDir, Running) {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(config(folder.path(), &[])).await;
    (folder, running)
}

fn code(answer: &Value) -> &str {
    answer["error"]["code"].as_str().unwrap_or("none")
}

#[tokio::test]
async fn only_the_token_opens_the_api_and_health_needs_none() {
    let (_folder, running) = running().await;
    for path in ["/v1/agents", "/v1/agents/a/metadata", "/v1/watch", "/v1/results", "/v1/pins"] {
        let wrong = format!("authorization: Bearer {}x\r\n", running.token);
        let bare = format!("authorization: {}\r\n", running.token);
        for headers in ["", wrong.as_str(), bare.as_str(), "authorization: Bearer \r\n"] {
            let (status, body) = http(running.admin, "GET", path, headers, b"").await;
            assert_eq!(status, 401, "{path} {headers:?}");
            let body: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(code(&body), "unauthorized");
            assert!(!body.to_string().contains(&running.token), "tells no secret");
        }
    }
    for path in ["/livez", "/readyz", "/metrics", "/v1/version"] {
        assert_eq!(http(running.admin, "GET", path, "", b"").await.0, 200, "{path}");
    }
    running.server.stop().await;
}

#[tokio::test]
async fn a_new_document_is_created_and_the_same_one_again_changes_nothing() {
    let (_folder, running) = running().await;
    let text = document(&["c1"]);
    let (status, first) = running.call("PUT", "/v1/agents/a/metadata", &text).await;
    assert_eq!(status, 201);
    assert_eq!(
        (&first["version"], &first["is_new"], &first["connected"], &first["deployments"]),
        (&json!(1), &json!(true), &json!(false), &json!(1))
    );
    let (status, second) = running.call("PUT", "/v1/agents/a/metadata", &text).await;
    assert_eq!((status, &second["version"], &second["is_new"]), (200, &json!(1), &json!(false)));
    assert_eq!(second["accepted_unix_ms"], first["accepted_unix_ms"]);
    let (status, third) = running.call("PUT", "/v1/agents/a/metadata", &document(&["c2"])).await;
    assert_eq!((status, &third["version"]), (201, &json!(2)));
    running.server.stop().await;
}

#[tokio::test]
async fn a_bad_document_is_refused_with_its_place_and_the_last_good_one_stays() {
    let (_folder, running) = running().await;
    let good = document(&["c1"]);
    running.put("a", &good).await;
    let huge = format!("{{\"deployments\": [], \"x\": \"{}\"}}", "y".repeat(17 << 20));
    let cases: Vec<(&str, u16, &str, &str)> = vec![
        ("{\"deployments\": [\n}", 400, "document_not_json", "not JSON: line 2, column 1: "),
        ("", 400, "document_not_json", "not JSON: line 1, column 0: "),
        ("[]", 422, "document_invalid", "the document is a list, must be an object"),
        (
            "{\"deployments\": {\"id\": \"a\"}}",
            422,
            "document_invalid",
            "/deployments: is an object, must be a list of objects",
        ),
        (
            "{\"deployments\": [{\"id\": \"a\"}, {\"name\": \"b\"}]}",
            422,
            "document_invalid",
            "/deployments/1: has no \"id\"",
        ),
        (
            &huge,
            413,
            "document_too_large",
            "the document has 17825820 bytes, the limit is 16777216",
        ),
    ];
    for (body, status, expected, message) in cases {
        let shown: String = body.chars().take(60).collect();
        let (answered, answer) = running.call("PUT", "/v1/agents/a/metadata", body).await;
        assert_eq!((answered, code(&answer)), (status, expected), "{shown}");
        let said = answer["error"]["message"].as_str().unwrap();
        assert!(said.starts_with(message), "{shown}: {said}");
        assert!(answer["error"]["hint"].is_string(), "{shown}");
        let headers = format!("authorization: Bearer {}\r\n", running.token);
        let (status, body) =
            http(running.admin, "GET", "/v1/agents/a/metadata", &headers, b"").await;
        assert_eq!((status, body.as_slice()), (200, good.as_bytes()), "after {shown}");
    }
    running.server.stop().await;
}

#[tokio::test]
async fn the_largest_document_is_taken() {
    let (_folder, running) = running().await;
    let mut text = document(&["c1"]);
    text.push_str(&" ".repeat((16 << 20) - text.len()));
    assert_eq!(running.put("a", &text).await, 1);
    running.server.stop().await;
}

#[tokio::test]
async fn whatever_does_not_exist_is_said_to_in_json() {
    let (_folder, running) = running().await;
    let cases = [
        ("GET", "/v1/nothing", 404, "no_such_path"),
        ("POST", "/v1/agents", 405, "method_not_allowed"),
        ("GET", "/v1/agents/a", 404, "no_agent"),
        ("GET", "/v1/agents/a/metadata", 404, "no_document"),
        ("GET", "/v1/agents/.a/metadata", 400, "bad_agent_id"),
        ("GET", "/v1/agents/a%2Fb/metadata", 400, "bad_agent_id"),
        ("GET", "/v1/results?limit=x", 400, "bad_query"),
        ("GET", "/v1/results?colour=x", 400, "bad_query"),
        ("DELETE", "/v1/agents/a/pins/zz", 400, "bad_fingerprint"),
    ];
    for (method, path, status, expected) in cases {
        let (answered, answer) = running.call(method, path, "").await;
        assert_eq!((answered, code(&answer)), (status, expected), "{method} {path}: {answer}");
    }
    running.server.stop().await;
}

#[tokio::test]
async fn a_token_names_an_address_that_an_agent_can_use() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(config(folder.path(), &[("listen", "0.0.0.0:0")])).await;
    let path = "/v1/agents/a/enrolment";
    let (status, answer) = running.call("POST", path, "").await;
    assert_eq!((status, code(&answer)), (400, "no_address"));
    let asked = r#"{"addresses": ["metadata.example:7843"], "ttl_s": 60}"#;
    let (status, answer) = running.call("POST", path, asked).await;
    assert_eq!(status, 201);
    let token: certs::EnrolmentToken = answer["token"].as_str().unwrap().parse().unwrap();
    assert_eq!(token.servers, ["metadata.example:7843"]);
    assert_eq!(token.server_fingerprint, running.fingerprint);
    assert_eq!(token.agent_id.as_str(), "a");
    for (body, expected) in [
        (r#"{"addresses": ["nowhere"]}"#, "bad_address"),
        (r#"{"ttl_s": 5}"#, "bad_ttl"),
        (r#"{"colour": 5}"#, "bad_request"),
        ("[", "bad_request"),
    ] {
        let (status, answer) = running.call("POST", path, body).await;
        assert_eq!((status, code(&answer)), (400, expected), "{body}");
    }
    running.server.stop().await;

    let config = config(folder.path(), &[("advertise", "one.example:1, two.example:2")]);
    let running = Running::start(config).await;
    assert_eq!(running.enrol("a").await.servers, ["one.example:1", "two.example:2"]);
    running.server.stop().await;
}

#[tokio::test]
async fn a_key_can_be_pinned_for_one_agent_only() {
    let (_folder, running) = running().await;
    let hex = "ab".repeat(32);
    let pin = |agent: &str| format!("/v1/agents/{agent}/pins/{hex}");
    assert_eq!(running.call("PUT", &pin("a"), "").await.0, 201);
    let (status, answer) = running.call("PUT", &pin("b"), "").await;
    assert_eq!((status, code(&answer)), (409, "pin_taken"));
    let (_, pins) = running.call("GET", "/v1/pins", "").await;
    assert_eq!(
        (&pins["pins"][0]["agent_id"], &pins["pins"][0]["origin"]),
        (&json!("a"), &json!("admin"))
    );
    assert_eq!(running.call("DELETE", &pin("b"), "").await.0, 404);
    assert_eq!(running.call("DELETE", &pin("a"), "").await.0, 204);
    running.server.stop().await;
}

/// A store whose disk can be filled up.
#[derive(Default)]
struct Fillable {
    memory: MemoryBackend,
    is_full: AtomicBool,
}

impl Backend for Fillable {
    fn read(&self, job: &mut ReadJob<'_>) -> Result<(), StoreError> {
        self.memory.read(job)
    }

    fn write(&self, bytes: usize, job: &mut WriteJob<'_>) -> Result<(), StoreError> {
        if self.is_full.load(Ordering::SeqCst) {
            return Err(StoreError::Full { what: "the test's disk".into() });
        }
        self.memory.write(bytes, job)
    }
}

#[tokio::test]
async fn a_start_that_fails_late_leaves_nothing_running() {
    let folder = tempfile::tempdir().unwrap();
    let memory = Arc::new(MemoryBackend::default());
    // What settles the order of pushes reads this, after almost all is started.
    memory.write(0, &mut |tx| tx.put(Table::Queues, b"no queue", b"no record")).unwrap();
    let failure = Server::start_with(config(folder.path(), &[]), memory.clone()).await;
    assert!(failure.is_err_and(|failure| failure.to_string().contains("queue")));
    let deadline = Instant::now() + support::PATIENCE;
    while Arc::strong_count(&memory) > 1 {
        assert!(Instant::now() < deadline, "somebody still uses the store");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_full_disk_is_said_and_costs_nothing_that_was_stored() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(Fillable::default());
    let running = Running::start_with(config(folder.path(), &[]), disk.clone()).await;
    let (identity, mut agent) = running.enrolled("a").await;
    let good = document(&["c1"]);
    running.put("a", &good).await;
    agent.document("metadata").await;
    agent.settle(1).await;

    disk.is_full.store(true, Ordering::SeqCst);
    let (status, answer) = running.call("PUT", "/v1/agents/a/metadata", &document(&["c2"])).await;
    assert_eq!((status, code(&answer)), (507, "store_full"));
    assert_eq!(answer["error"]["message"], "the store is full: the test's disk");
    let headers = format!("authorization: Bearer {}\r\n", running.token);
    let (_, body) = http(running.admin, "GET", "/v1/agents/a/metadata", &headers, b"").await;
    assert_eq!(body, good.as_bytes(), "the last good document stays");
    assert_eq!(http(running.admin, "GET", "/readyz", "", b"").await.0, 200, "and is served");
    let mut again = running.connect(&identity).await;
    again.hello("a", None, None);
    again.welcome().await;
    assert_eq!(again.document("metadata").await.body.as_ref(), good.as_bytes());
    // A result waits, unconfirmed, until there is room.
    again.say(&result("c1"), 1);
    again.settle(1).await;
    let (_, results) = running.call("GET", "/v1/results", "").await;
    assert_eq!(results["results"], json!([]));
    let (_, metrics) = http(running.admin, "GET", "/metrics", "", b"").await;
    assert!(!String::from_utf8(metrics).unwrap().contains("mds_store_failures_total 0\n"));

    disk.is_full.store(false, Ordering::SeqCst);
    again.stored("result/c1").await;
    let (_, results) = running.call("GET", "/v1/results", "").await;
    assert_eq!(results["results"][0]["result"]["config_id"], "c1");
    assert_eq!(running.put("a", &document(&["c2"])).await, 2);
    running.server.stop().await;
}

#[tokio::test]
async fn results_come_in_pages() {
    let (_folder, running) = running().await;
    let (_, mut agent) = running.enrolled("a").await;
    for id in ["c1", "c2", "c3"] {
        agent.say(&result(id), 1);
        agent.stored(&format!("result/{id}")).await;
    }
    let (_, page) = running.call("GET", "/v1/results?limit=2", "").await;
    assert_eq!((page["results"].as_array().unwrap().len(), &page["next_after"]), (2, &json!(2)));
    let (_, page) = running.call("GET", "/v1/agents/a/results?after=2", "").await;
    assert_eq!(page["results"][0]["result"]["config_id"], "c3");
    assert_eq!(page["next_after"], Value::Null);
    running.server.stop().await;
}

#[tokio::test]
async fn a_stopping_server_is_not_ready_and_ends_its_watchers() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(config(folder.path(), &[])).await;
    let (status, body) = http(running.admin, "GET", "/readyz?verbose", "", b"").await;
    assert_eq!(status, 200);
    assert_eq!(
        String::from_utf8(body).unwrap(),
        "[+] running: ok\n[+] store: ok\n[+] hub: ok\nready\n"
    );
    let client = metadata_server::client::Client::new(
        running.admin,
        folder.path().join("state/admin-token"),
    );
    let (told, mut lines) = tokio::sync::mpsc::unbounded_channel();
    let watcher = tokio::spawn(async move {
        client.lines("/v1/watch?agent=b", |line| Ok(told.send(line.to_owned()).is_ok())).await
    });
    assert!(lines.recv().await.unwrap().contains("\"watching\""));
    running.put("a", &document(&["c1"])).await;
    running.put("b", &document(&["c1"])).await;
    let line: Value = serde_json::from_str(&lines.recv().await.unwrap()).unwrap();
    assert_eq!((&line["event"], &line["agent_id"]), (&json!("document_accepted"), &json!("b")));
    running.server.stop().await;
    watcher.await.unwrap().unwrap();
    assert!(lines.recv().await.is_none(), "nothing about others");
}
