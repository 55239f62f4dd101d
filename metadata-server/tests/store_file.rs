//! A store that an earlier build has written; `data/README.md` says how.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use metadata_delivery::message::Hex32;
use metadata_server::store::queues::{MessagesQuery, QueueKey};
use metadata_server::store::{AgentRecord, RedbBackend, ResultsQuery, Store};
use serde_json::Value as Json;
use support::{Running, config, http};

const SHARED: &str = "x-project-id: project\r\n\
    url-signature: adee04115c90a9b6e4b4304fcf4ab014a9d7b07e9e5610c4e04b274563710d9f\r\n\
    url-expires: 2036-11-19T19:13:12\r\n\
    url-methods: GET,DELETE\r\n\
    url-paths: /v2/queues/signals/messages\r\n";

/// Puts the store where a server with this folder looks for it.
fn unpack(packed: &str, folder: &Path) -> std::path::PathBuf {
    let packed = std::fs::File::open(Path::new("tests/data").join(packed)).unwrap();
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(packed).read_to_end(&mut bytes).unwrap();
    let state = folder.join("state");
    std::fs::DirBuilder::new().mode(0o700).create(&state).unwrap();
    let path = state.join("store.redb");
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).unwrap();
    std::io::Write::write_all(&mut file, &bytes).unwrap();
    path
}

/// The id of the only deployment.
fn deployment(body: &[u8]) -> String {
    let document: Json = serde_json::from_slice(body).unwrap();
    assert_eq!(document["deployments"].as_array().unwrap().len(), 1);
    document["deployments"][0]["id"].as_str().unwrap().to_owned()
}

#[test]
fn what_an_earlier_build_has_stored_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = unpack("store.redb.gz", folder.path());
    let store = Store::new(Arc::new(RedbBackend::open(&path).unwrap())).unwrap();
    let (vm, polled) = ("vm".parse().unwrap(), "polled".parse().unwrap());
    let key = |name| QueueKey::new("project", name).unwrap();

    let document = store.document(&vm).unwrap().unwrap();
    assert_eq!((document.head.version, deployment(&document.body)), (2, "a2".into()));
    let agents = store.agents().unwrap();
    assert_eq!((agents.len(), agents[0].delivered_version), (1, Some(2)));
    assert_eq!((store.pins().unwrap().len(), store.pins_of(&vm).unwrap().len()), (1, 1));
    assert!(store.ticket_keys().unwrap().is_some() && store.url_key().unwrap().is_some());

    let query = ResultsQuery { agent: Some(vm.clone()), after: 0, limit: 10 };
    let results = store.results(&query).unwrap().results;
    let ids: Vec<_> = results.iter().map(|saved| saved.result.config_id.as_str()).collect();
    assert_eq!(ids, ["a1", "a2"]);
    assert_eq!(store.waiting_signals().unwrap().len(), 2);
    assert_eq!(results[0].signal, store.signal(1).unwrap());

    let queue = store.queue(&key("server-queue")).unwrap().unwrap();
    assert_eq!((queue.owner.as_deref(), queue.pushes), (Some("heatuser"), 3));
    assert_eq!((&queue.agent, queue.server_id.as_deref()), (&Some(vm.clone()), Some("the-server")));
    assert!(queue.unsettled_since_unix_ms.is_some());
    assert_eq!(store.queue_of(&vm).unwrap(), Some(key("server-queue")));
    let held = store.waiting_document(&key("server-queue")).unwrap().unwrap();
    assert_eq!((held.number, deployment(&held.body)), (3, "a1".into()));

    let now_unix_ms = queue.used_unix_ms;
    let all = MessagesQuery { after: 0, limit: 10, not_of_client: None, now_unix_ms };
    let unbound = store.queue_messages(&key("unbound"), &all).unwrap();
    assert_eq!(deployment(&unbound[0].body), "w1");
    let signals = store.queue_messages(&key("signals"), &all).unwrap();
    assert_eq!(signals[0].body, r#"{"deploy_stdout":"", "n": 1.50}"#);
    assert_eq!((signals[0].ttl_s, signals[0].client.as_str()), (1_209_600, "c0ea"));
    assert_eq!(store.heat_sources().unwrap(), [polled]);
}

#[test]
fn what_a_build_of_format_2_has_stored_is_read_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = unpack("store-2.redb.gz", folder.path());
    let (vm, new) = ("vm".parse().unwrap(), "new".parse().unwrap());
    for _ in 0..2 {
        let store = Store::new(Arc::new(RedbBackend::open(&path).unwrap())).unwrap();
        let heads = store.document_heads().unwrap();
        let heads: Vec<_> = heads.iter().map(|(id, head)| (id.as_str(), head.version)).collect();
        assert_eq!(heads, [("new", 1), ("vm", 3)]);
        for id in [&vm, &new] {
            assert_eq!(deployment(&store.document(id).unwrap().unwrap().body), "a3");
        }
        let held: Hex32 =
            "24f6fe6ad5557cc01a901895f5f62c6d0f0555314ca3839923c36b22db75a8db".parse().unwrap();
        assert_eq!(deployment(&store.base(&vm, held).unwrap().unwrap()), "a2");
        assert_eq!(store.base(&new, held).unwrap(), None);
        let agents = store.agents().unwrap();
        assert_eq!(agents.len(), 1);
        assert_eq!(store.agent(&vm).unwrap().as_ref(), agents.first());
        assert_eq!(store.agent(&new).unwrap(), None);
        let AgentRecord { agent_id, software, boot_id, remote, .. } = &agents[0];
        assert_eq!((agent_id, software.as_str()), (&vm, "agent-client 0.1.0"));
        assert_eq!((remote.as_str(), boot_id.is_empty()), ("127.0.0.1:39297", false));
        let times = (agents[0].connected_unix_ms, agents[0].seen_unix_ms);
        assert_eq!(times, (1_795_374_821_846, 1_795_374_827_155));
        assert_eq!((agents[0].delivered_version, agents[0].applied_version), (Some(2), Some(1)));
    }
}

#[tokio::test]
async fn a_server_goes_on_with_the_store_of_an_earlier_build() {
    let folder = tempfile::tempdir().unwrap();
    unpack("store.redb.gz", folder.path());
    let settings =
        [("zaqar_listen", "127.0.0.1:0"), ("zaqar_any_token", "true"), ("signal", "off")];
    let running = Running::start(config(folder.path(), &settings)).await;
    let service = running.server.zaqar_address.unwrap();
    // A signed URL of then; whether its message has expired by now is another matter.
    let path = "/v2/queues/signals/messages?pop=1";
    let (status, answer) = http(service, "DELETE", path, SHARED, b"").await;
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
    let body = br#"{"messages": [{"body": {"deployments": [{"id": "a3"}]}}]}"#;
    let headers = "x-project-id: project\r\n";
    let (status, _) =
        http(service, "POST", "/v2/queues/server-queue/messages", headers, body).await;
    assert_eq!(status, 201);
    let (_, document) = running.call("GET", "/v1/agents/vm/metadata", "").await;
    assert_eq!(document["deployments"][0]["id"], "a3");
    running.server.stop().await;
}
