//! The object store as Heat uses it with `POLL_TEMP_URL` and `TEMP_URL_SIGNAL`, with a Keystone made of a
//! few lines.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::net::SocketAddr;

use data_encoding::HEXLOWER;
use ring::hmac;
use serde_json::{Value as Json, json};
use support::cloud::Cloud;
use support::{Running, config, exchange};

const ACCOUNT: &str = "/v1/AUTH_project";
const METADATA: &str = "/v1/AUTH_project/server-fo55r6yxxtx2/a70cde92-19bc-4f42-a4ab-4428aa85469f";
const SIGNAL: &str =
    "/v1/AUTH_project/11773fc9-29a0-45f3-a35a-80f53bf3bd7b/deployment-rl4xoqk3deyq";
const HEAT: &str = "somebody@project:member";
const END: u64 = 2_147_483_586;

struct Objects {
    running: Running,
    address: SocketAddr,
}

impl Objects {
    async fn start(cloud: &Cloud, folder: &tempfile::TempDir) -> Self {
        let url = format!("http://{}/v3", cloud.server.address);
        let more = [
            ("zaqar_listen", "127.0.0.1:0"),
            ("keystone_url", url.as_str()),
            ("swift_roles", "member,admin"),
            ("relay_signals_to", url.as_str()),
        ];
        let running = Running::start(config(folder.path(), &more)).await;
        let address = running.server.zaqar_address.unwrap();
        Self { running, address }
    }

    async fn call(
        &self,
        token: &str,
        method: &str,
        path: &str,
        body: &str,
    ) -> (u16, String, String) {
        let header = match token {
            "" => String::new(),
            token => format!("x-auth-token: {token}\r\n"),
        };
        let (status, head, body) =
            exchange(self.address, method, path, &header, body.as_bytes()).await;
        (status, head.to_lowercase(), String::from_utf8(body).unwrap())
    }

    async fn status(&self, token: &str, method: &str, path: &str, body: &str) -> u16 {
        self.call(token, method, path, body).await.0
    }

    /// The key of temporary URLs, as Heat asks for it.
    async fn key(&self) -> String {
        let (status, head, _) = self.call(HEAT, "HEAD", ACCOUNT, "").await;
        assert_eq!(status, 204, "{head}");
        let line = head.lines().find_map(|line| line.strip_prefix("x-account-meta-temp-url-key: "));
        line.unwrap().to_owned()
    }
}

/// As python-swiftclient makes a temporary URL.
fn temp_url(key: &str, method: &str, path: &str, end: u64) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    let tag = hmac::sign(&key, format!("{method}\n{end}\n{path}").as_bytes());
    let signature = HEXLOWER.encode(tag.as_ref());
    format!("{path}?temp_url_sig={signature}&temp_url_expires={end}")
}

fn document(ids: &[&str]) -> String {
    let deployments: Vec<Json> = ids
        .iter()
        .map(|id| json!({"id": id, "name": id, "group": "script", "inputs": []}))
        .collect();
    let request = json!({"metadata_url": format!("http://127.0.0.1:9{METADATA}?temp_url_sig=0")});
    let occ = json!({"collectors": ["request", "local"], "request": request});
    json!({"deployments": deployments, "os-collect-config": occ}).to_string()
}

#[tokio::test]
async fn what_heat_puts_into_an_object_is_its_agents_document() {
    let (cloud, folder) = (Cloud::start(), tempfile::tempdir().unwrap());
    let objects = Objects::start(&cloud, &folder).await;
    let (container, _) = METADATA.rsplit_once('/').unwrap();
    assert_eq!(objects.status(HEAT, "PUT", container, "").await, 201);
    let key = objects.key().await;
    assert_eq!(objects.status(HEAT, "PUT", METADATA, &document(&[])).await, 201);

    let occ: Json = serde_json::from_str(&document(&[])).unwrap();
    let body = json!({"os_collect_config": occ["os-collect-config"]}).to_string();
    let (status, answer) = objects.running.call("POST", "/v1/agents/vm/enrolment", &body).await;
    assert_eq!(status, 201, "{answer}");
    assert_eq!(answer["queue"], METADATA.replace(ACCOUNT, "project"));

    let put = temp_url(&key, "PUT", METADATA, END);
    for ids in [&["a"][..], &["a", "b"], &["b"], &[]] {
        let wanted = document(ids);
        assert_eq!(objects.status("", "PUT", &put, &wanted).await, 201);
        let (_, in_force) = objects.running.call("GET", "/v1/agents/vm/metadata", "").await;
        assert_eq!(in_force, serde_json::from_str::<Json>(&wanted).unwrap());
        // As os-collect-config's collector "request" reads it.
        let get = temp_url(&key, "GET", METADATA, END);
        let (status, head, body) = objects.call("", "HEAD", &get, "").await;
        assert_eq!((status, body.as_str()), (200, ""));
        assert!(head.contains(&format!("content-length: {}", wanted.len())), "{head}");
        assert!(head.contains("last-modified: ") && head.contains(" gmt"), "{head}");
        assert_eq!(objects.call("", "GET", &get, "").await.2, wanted);
    }
    assert_eq!(objects.status(HEAT, "DELETE", METADATA, "").await, 204);
    let (_, in_force) = objects.running.call("GET", "/v1/agents/vm/metadata", "").await;
    assert_eq!(in_force["deployments"], json!([]), "what an agent has stays in force");
}

/// Every request of a deployment with `TEMP_URL_SIGNAL`, as a real Heat makes them.
#[tokio::test]
async fn heat_finds_the_signal_in_its_object_and_clears_up() {
    let (cloud, folder) = (Cloud::start(), tempfile::tempdir().unwrap());
    let objects = Objects::start(&cloud, &folder).await;
    let (container, name) = SIGNAL.rsplit_once('/').unwrap();
    assert_eq!(objects.status(HEAT, "PUT", container, "").await, 201);
    assert_eq!(objects.status(HEAT, "PUT", SIGNAL, "").await, 201);
    let put = temp_url(&objects.key().await, "PUT", SIGNAL, END);
    assert_eq!(objects.call(HEAT, "GET", SIGNAL, "").await.2, "");

    for signal in [r#"{"deploy_status_code": 0, "result": "hello"}"#, "{}"] {
        assert_eq!(objects.status("", "PUT", &put, signal).await, 201);
        let (status, head, _) = objects.call(HEAT, "HEAD", SIGNAL, "").await;
        assert_eq!(status, 200);
        assert!(head.contains("last-modified: "), "{head}");
        assert_eq!(objects.call(HEAT, "GET", SIGNAL, "").await.2, signal);
    }
    let (status, _, listed) =
        objects.call(HEAT, "GET", &format!("{container}?format=json"), "").await;
    let listed: Json = serde_json::from_str(&listed).unwrap();
    assert_eq!((status, &listed[0]["name"], &listed[0]["bytes"]), (200, &name.into(), &2.into()));
    assert_eq!(listed.as_array().unwrap().len(), 1);
    let after = format!("{container}?format=json&marker={name}");
    assert_eq!(objects.call(HEAT, "GET", &after, "").await.2, "[]");

    assert_eq!(objects.status(HEAT, "DELETE", container, "").await, 409);
    assert_eq!(objects.status(HEAT, "DELETE", SIGNAL, "").await, 204);
    for method in ["DELETE", "GET", "HEAD"] {
        assert_eq!(objects.status(HEAT, method, SIGNAL, "").await, 404, "{method}");
    }
    let (status, head, _) = objects.call(HEAT, "HEAD", container, "").await;
    assert_eq!(status, 204);
    assert!(head.contains("x-container-object-count: 0"), "{head}");
    assert_eq!(objects.status(HEAT, "DELETE", container, "").await, 204);
}

#[tokio::test]
async fn only_the_project_and_holders_of_temporary_urls_reach_an_object() {
    let (cloud, folder) = (Cloud::start(), tempfile::tempdir().unwrap());
    let objects = Objects::start(&cloud, &folder).await;
    assert_eq!(objects.status(HEAT, "PUT", SIGNAL, "mine").await, 201);
    let key = objects.key().await;
    let own = "other@project2:member";
    let (_, head, _) = objects.call(own, "HEAD", "/v1/AUTH_project2", "").await;
    assert!(!head.contains(&key), "every account has a key of its own");

    let refused = [
        ("", "GET", SIGNAL.to_owned(), 401),
        ("bad", "GET", SIGNAL.to_owned(), 401),
        (own, "GET", SIGNAL.to_owned(), 403),
        (own, "HEAD", ACCOUNT.to_owned(), 403),
        (own, "DELETE", SIGNAL.to_owned(), 403),
        ("somebody@project:heat_stack_user", "GET", SIGNAL.to_owned(), 403),
        ("", "GET", temp_url(&key, "PUT", SIGNAL, END), 401),
        ("", "DELETE", temp_url(&key, "PUT", SIGNAL, END), 401),
        ("", "GET", temp_url("another", "GET", SIGNAL, END), 401),
        ("", "GET", temp_url(&key, "GET", SIGNAL, 1_700_000_000), 401),
        ("", "GET", temp_url(&key, "GET", METADATA, END).replace(METADATA, SIGNAL), 401),
        ("", "HEAD", temp_url(&key, "HEAD", ACCOUNT, END), 401),
        (HEAT, "GET", "/v1/project/c/o".to_owned(), 404),
        (HEAT, "GET", "/v1/AUTH_project/c/a%2Fb".to_owned(), 400),
        (HEAT, "PATCH", SIGNAL.to_owned(), 405),
    ];
    for (token, method, path, wanted) in refused {
        let (status, _, body) = objects.call(token, method, &path, "").await;
        assert_eq!(status, wanted, "{token:?} {method} {path}: {body}");
    }
    let header = "x-account-meta-temp-url-key: theirs\r\nx-auth-token: ";
    let headers = format!("{header}{HEAT}\r\n");
    let (status, ..) = exchange(objects.address, "POST", ACCOUNT, &headers, b"").await;
    assert_eq!(status, 403);
    assert_eq!(objects.key().await, key);
    assert_eq!(objects.call(HEAT, "GET", SIGNAL, "").await.2, "mine");
    // A bad document is refused, and what was there stays.
    let (status, _, why) = objects.call(HEAT, "PUT", SIGNAL, r#"{"deployments": 3}"#).await;
    assert_eq!(status, 400, "{why}");
    assert_eq!(objects.call(HEAT, "GET", SIGNAL, "").await.2, "mine");
}

#[tokio::test]
async fn a_server_without_swift_roles_is_no_object_store() {
    let (cloud, folder) = (Cloud::start(), tempfile::tempdir().unwrap());
    let url = format!("http://{}/v3", cloud.server.address);
    let more = [
        ("zaqar_listen", "127.0.0.1:0"),
        ("keystone_url", url.as_str()),
        ("relay_signals_to", url.as_str()),
    ];
    let running = Running::start(config(folder.path(), &more)).await;
    let headers = format!("x-auth-token: {HEAT}\r\n");
    let address = running.server.zaqar_address.unwrap();
    let (status, _, body) = exchange(address, "HEAD", ACCOUNT, &headers, b"").await;
    assert_eq!((status, body.len()), (404, 0));
    let request = json!({"metadata_url": format!("http://127.0.0.1:9{METADATA}?temp_url_sig=0")});
    let body = json!({"os_collect_config": {"request": request}}).to_string();
    let (status, answer) = running.call("POST", "/v1/agents/vm/enrolment", &body).await;
    assert_eq!((status, &answer["error"]["code"]), (400, &"no_object_store".into()), "{answer}");
}
