//! The whole server on loopback, with agents made of the public crates: enrolment, push, results,
//! and everybody who must not get in.

mod support;

use certs::Identity;
use metadata_delivery::message::{DeploymentResult, Enrol, Hex32, Holds, Message, Rerun};
use metadata_delivery::{CloseCode, Document, Name};
use support::{Running, config, document, result};

#[tokio::test]
async fn an_agent_enrols_gets_its_document_and_its_result_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(config(folder.path(), &[])).await;
    let text = document(&["c1"]);
    assert_eq!(running.put("a", &text).await, 1, "before the agent exists");
    let (_, mut agent) = running.enrolled("a").await;
    let pushed = agent.document("metadata").await;
    assert_eq!((pushed.version, pushed.body.as_ref()), (1, text.as_bytes()), "byte for byte");

    agent.say(&result("c1"), 1);
    agent.stored("result/c1").await;
    let (_, results) = running.call("GET", "/v1/agents/a/results", "").await;
    assert_eq!(results["results"][0]["result"]["deploy_stdout"], "done\n");
    assert_eq!(results["results"].as_array().unwrap().len(), 1);

    let newer = document(&["c1", "c2"]);
    assert_eq!(running.put("a", &newer).await, 2);
    assert_eq!(agent.document("metadata").await.body.as_ref(), newer.as_bytes());
    agent.settle(1).await;
    let (_, view) = running.call("GET", "/v1/agents/a", "").await;
    assert_eq!((&view["state"], &view["delivered_version"]), (&"connected".into(), &2.into()));
    running.server.stop().await;
    let ended = agent.end().await;
    assert_eq!(ended.close.unwrap().0, CloseCode::Shutdown);
}

#[tokio::test]
async fn a_document_of_sixteen_megabytes_arrives() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(config(folder.path(), &[])).await;
    let (_, mut agent) = running.enrolled("a").await;
    let mut text = "{\"deployments\": [], \"x\": \"".to_owned();
    text.push_str(&"0123456789abcdef".repeat((1 << 20) - 4));
    text.push_str("\"}");
    text.push_str(&" ".repeat((16 << 20) - text.len()));
    running.put("a", &text).await;
    let pushed = agent.document("metadata").await;
    assert_eq!(Hex32::sha256_of(&pushed.body), Hex32::sha256_of(text.as_bytes()));
    running.server.stop().await;
}

/// A document with so many deployments, all different, and a word in one of them.
fn many_deployments(count: u64, word: &str) -> String {
    let deployments: Vec<String> = (0..count)
        .map(|n| {
            let random = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let word = if n == count / 2 { word } else { "same" };
            format!("{{\"id\": \"{random:016x}\", \"config\": \"echo {random} {word}\"}}")
        })
        .collect();
    format!("{{\"deployments\": [{}]}}", deployments.join(", "))
}

#[tokio::test]
async fn a_change_travels_as_a_delta_over_reconnects_and_restarts_unless_that_is_off() {
    for compression in ["on", "off"] {
        let folder = tempfile::tempdir().unwrap();
        let settings = [("compression", compression)];
        let running = Running::start(config(folder.path(), &settings)).await;
        let (identity, mut agent) = running.enrolled("a").await;
        let text = many_deployments(1000, "first");
        running.put("a", &text).await;
        let held = agent.document("metadata").await;
        agent.settle(1).await;
        println!("{compression}: {} bytes for {}", agent.bytes_received(), text.len());
        let whole = text.len() as u64;
        assert_eq!(compression == "off", agent.bytes_received() > whole);

        // The server's record of what is held is durable, too.
        drop(agent);
        running.server.stop().await;
        let running = Running::start(config(folder.path(), &settings)).await;
        let mut agent = running.connect(&identity).await;
        agent.hold(&held);
        let holds = Holds { version: held.version, sha256: Hex32::sha256_of(&held.body) };
        agent.hello("a", Some(holds), None);
        agent.welcome().await;
        let before = agent.bytes_received();
        let text = many_deployments(1000, "second");
        running.put("a", &text).await;
        let second = agent.document("metadata").await;
        assert_eq!(second.body.as_ref(), text.as_bytes());
        let cost = agent.bytes_received() - before;
        println!("{compression}: {cost} bytes for a change");
        // Copies are among them: to a new connection the path is one that may lose packets.
        assert!(if compression == "on" { cost < whole / 4 } else { cost > whole }, "{cost}");

        // It turns out to hold something else: the document comes as it is.
        agent.hold(&Document { body: "{}".into(), ..second });
        agent.settle(2).await;
        let before = agent.bytes_received();
        let text = many_deployments(1000, "third");
        running.put("a", &text).await;
        assert_eq!(agent.document("metadata").await.body.as_ref(), text.as_bytes());
        assert!(agent.bytes_received() - before > whole);
        running.server.stop().await;
    }
}

#[tokio::test]
async fn a_small_document_does_not_wait_for_a_large_one_to_another_agent() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(config(folder.path(), &[("compression", "off")])).await;
    let (_, mut slow) = running.enrolled("slow").await;
    let (_, mut quick) = running.enrolled("quick").await;
    let large = format!("{{\"deployments\": [], \"x\": \"{}\"}}", "large".repeat(3 << 20));
    running.put("slow", &large).await;
    while slow.bytes_received() < 100_000 {
        slow.step().await;
    }
    // The rest waits until this agent listens again.
    for version in 1..=5_u64 {
        let small = document(&[&format!("c{version}")]);
        assert_eq!(running.put("quick", &small).await, version);
        assert_eq!(quick.document("metadata").await.body.as_ref(), small.as_bytes());
    }
    assert!(slow.bytes_received() < large.len() as u64, "it is still under way");
    let pushed = slow.document("metadata").await;
    assert_eq!(Hex32::sha256_of(&pushed.body), Hex32::sha256_of(large.as_bytes()));
    running.server.stop().await;
}

#[tokio::test]
async fn everything_is_there_after_a_restart_and_what_is_held_is_not_sent_again() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(config(folder.path(), &[])).await;
    let (identity, mut agent) = running.enrolled("a").await;
    let text = document(&["c1"]);
    running.put("a", &text).await;
    let held = agent.document("metadata").await;
    agent.say(&result("c1"), 1);
    agent.stored("result/c1").await;
    let fingerprint = running.fingerprint;
    running.server.stop().await;

    let running = Running::start(config(folder.path(), &[])).await;
    assert_eq!(running.fingerprint, fingerprint);
    let mut agent = running.connect(&identity).await;
    let holds = Holds { version: held.version, sha256: Hex32::sha256_of(&held.body) };
    agent.hello("a", Some(holds), None);
    agent.welcome().await;
    // The result again, as an agent does that never saw the confirmation.
    agent.say(&result("c1"), 1);
    agent.stored("result/c1").await;
    let (_, results) = running.call("GET", "/v1/results", "").await;
    assert_eq!(results["results"].as_array().unwrap().len(), 1, "stored once");
    assert_eq!(running.put("a", &document(&["c2"])).await, 2, "versions go on");
    assert_eq!(agent.document("metadata").await.version, 2, "the first was not sent again");
    running.server.stop().await;
}

#[tokio::test]
async fn two_agents_never_see_each_others_documents_nor_answer_for_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(config(folder.path(), &[])).await;
    let (identity_a, mut a) = running.enrolled("a").await;
    let (_, mut b) = running.enrolled("b").await;
    let (for_a, for_b) = (document(&["of-a"]), document(&["of-b"]));
    running.put("a", &for_a).await;
    running.put("b", &for_b).await;
    assert_eq!(a.document("metadata").await.body.as_ref(), for_a.as_bytes());
    assert_eq!(b.document("metadata").await.body.as_ref(), for_b.as_bytes());

    // b answers for a's config: it counts as b's.
    b.say(&result("of-a"), 1);
    b.stored("result/of-a").await;
    let (_, results) = running.call("GET", "/v1/agents/a/results", "").await;
    assert_eq!(results["results"].as_array().unwrap().len(), 0);

    // a, with its own key, says it is b.
    let mut liar = running.connect(&identity_a).await;
    liar.hello("b", None, None);
    let ended = liar.end().await;
    let (code, reason) = ended.close.unwrap();
    assert_eq!(code, CloseCode::PinMismatch);
    assert!(reason.contains(&identity_a.fingerprint().to_string()), "names the key seen: {reason}");
    let (_, view) = running.call("GET", "/v1/agents/b", "").await;
    assert!(
        reason.contains(view["fingerprints"][0].as_str().unwrap()),
        "and the expected: {reason}"
    );
    assert!(ended.received.is_empty());
    running.server.stop().await;
}

#[tokio::test]
async fn an_unknown_key_is_refused_and_the_keys_seen_and_expected_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(config(folder.path(), &[])).await;
    let (known, _agent) = running.enrolled("a").await;
    running.put("a", &document(&["c1"])).await;
    let stranger = Identity::generate("test").unwrap();
    let mut agent = running.connect(&stranger).await;
    agent.hello("a", None, None);
    let ended = agent.end().await;
    let (code, reason) = ended.close.unwrap();
    assert_eq!(code, CloseCode::PinMismatch);
    assert_eq!(
        reason,
        format!(
            "{} is not pinned for agent a; expected {}",
            stranger.fingerprint(),
            known.fingerprint()
        )
    );
    assert!(ended.received.is_empty(), "no document: {:?}", ended.received);
    running.server.stop().await;
}

#[tokio::test]
async fn a_silent_stranger_is_closed_and_reaches_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(config(folder.path(), &[])).await;
    let stranger = Identity::generate("test").unwrap();
    let mut silent = running.connect(&stranger).await;
    // That it takes five seconds, the hub's own tests show on a virtual clock.
    let ended = silent.end().await;
    let (code, reason) = ended.close.unwrap();
    assert_eq!(code, CloseCode::UnknownAgent);
    assert!(reason.contains(&stranger.fingerprint().to_string()), "{reason}");
    assert!(ended.received.is_empty());
    running.server.stop().await;
}

/// A number on the page of metrics.
async fn metric(running: &Running, name: &str) -> String {
    let (_, page) = support::http(running.admin, "GET", "/metrics", "", b"").await;
    let page = String::from_utf8_lossy(&page);
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_default().to_owned()
}

#[tokio::test]
async fn the_paths_of_strangers_are_not_remembered_and_those_of_agents_are() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(config(folder.path(), &[])).await;
    for _ in 0..3 {
        let mut stranger = running.connect(&Identity::generate("test").unwrap()).await;
        stranger.hello("a", None, None);
        assert_eq!(stranger.end().await.close.unwrap().0, CloseCode::UnknownAgent);
    }
    let (identity, mut first) = running.enrolled("a").await;
    let mut second = running.connect(&identity).await;
    second.hello("a", None, None);
    second.welcome().await;
    assert_eq!(first.end().await.close.unwrap().0, CloseCode::Superseded);
    // The strangers have gone before it, and it is remembered last.
    let deadline = std::time::Instant::now() + support::PATIENCE;
    while metric(&running, "mds_peers{phase=\"closing\"}").await != "0" {
        assert!(std::time::Instant::now() < deadline, "they do not go");
        second.settle(1).await;
    }
    assert_eq!(metric(&running, "mds_paths_remembered").await, "1");
    running.server.stop().await;
}

#[tokio::test]
async fn a_stranger_can_send_no_result() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(config(folder.path(), &[])).await;
    let stranger = Identity::generate("test").unwrap();
    let mut agent = running.connect(&stranger).await;
    agent.say(&result("c1"), 1);
    let ended = agent.end().await;
    assert_eq!(ended.close.unwrap().0, CloseCode::UnknownAgent);
    let (_, results) = running.call("GET", "/v1/results", "").await;
    assert_eq!(results["results"].as_array().unwrap().len(), 0);
    running.server.stop().await;
}

#[tokio::test]
async fn a_token_is_good_once() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(config(folder.path(), &[])).await;
    let token = running.enrol("a").await;
    let first = Identity::generate("test").unwrap();
    let mut agent = running.connect(&first).await;
    agent.hello_with("a", &token);
    agent.welcome().await;

    // The same key with the same token: it is pinned already, and welcome.
    let mut again = running.connect(&first).await;
    again.hello_with("a", &token);
    again.welcome().await;

    let second = Identity::generate("test").unwrap();
    let mut thief = running.connect(&second).await;
    thief.hello_with("a", &token);
    let (code, reason) = thief.end().await.close.unwrap();
    assert_eq!(code, CloseCode::TokenUsed);
    assert!(reason.contains(&second.fingerprint().to_string()), "names the key seen: {reason}");
    assert!(reason.contains(&first.fingerprint().to_string()), "and the expected: {reason}");
    running.server.stop().await;
}

#[tokio::test]
async fn forged_unknown_and_borrowed_tokens_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(config(folder.path(), &[])).await;
    let token = running.enrol("a").await;
    let identity = Identity::generate("test").unwrap();
    let zeros = Hex32([0; 32]);
    let cases = [
        (token.token_id.to_string(), CloseCode::TokenForged),
        ("0123456789abcdef".to_owned(), CloseCode::TokenUnknown),
    ];
    for (token_id, expected) in cases {
        let mut agent = running.connect(&identity).await;
        agent.hello("a", None, Some(Enrol { token_id, proof: zeros }));
        let (code, reason) = agent.end().await.close.unwrap();
        assert_eq!(code, expected);
        assert!(reason.contains(&identity.fingerprint().to_string()), "{reason}");
    }
    // A good proof, under another agent's name.
    let mut agent = running.connect(&identity).await;
    agent.hello_with("b", &token);
    assert_eq!(agent.end().await.close.unwrap().0, CloseCode::TokenForged);
    let (_, pins) = running.call("GET", "/v1/pins", "").await;
    assert_eq!(pins["pins"].as_array().unwrap().len(), 0, "nobody got in");
    // None of that used the token up.
    let mut agent = running.connect(&identity).await;
    agent.hello_with("a", &token);
    agent.welcome().await;
    running.server.stop().await;
}

#[tokio::test]
async fn an_expired_token_is_refused() {
    use metadata_server::store::backend::{Backend, Table};
    let folder = tempfile::tempdir().unwrap();
    let backend = std::sync::Arc::new(metadata_server::store::MemoryBackend::default());
    let running = Running::start_with(config(folder.path(), &[]), backend.clone()).await;
    let token = running.enrol("a").await;
    // Let it have expired long ago.
    let key = token.token_id.as_str().as_bytes();
    backend
        .write(0, &mut |tx| {
            let record = tx.get(Table::Tokens, key)?.unwrap();
            let mut record: serde_json::Value = serde_json::from_slice(&record).unwrap();
            record["expires_unix"] = 1.into();
            tx.put(Table::Tokens, key, &serde_json::to_vec(&record).unwrap())
        })
        .unwrap();
    let identity = Identity::generate("test").unwrap();
    let mut agent = running.connect(&identity).await;
    agent.hello_with("a", &token);
    let (code, reason) = agent.end().await.close.unwrap();
    assert_eq!(code, CloseCode::TokenExpired);
    assert!(reason.contains(&identity.fingerprint().to_string()), "{reason}");
    running.server.stop().await;
}

#[tokio::test]
async fn the_same_agent_again_takes_the_place_of_its_older_connection() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(config(folder.path(), &[])).await;
    let (identity, mut older) = running.enrolled("a").await;
    let mut newer = running.connect(&identity).await;
    newer.hello("a", None, None);
    newer.welcome().await;
    assert_eq!(older.end().await.close.unwrap().0, CloseCode::Superseded);
    running.put("a", &document(&["c1"])).await;
    assert_eq!(newer.document("metadata").await.version, 1);
    running.server.stop().await;
}

#[tokio::test]
async fn an_unpinned_agent_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(config(folder.path(), &[])).await;
    let (identity, mut agent) = running.enrolled("a").await;
    let hex: String =
        identity.fingerprint().as_bytes().iter().map(|b| format!("{b:02x}")).collect();
    let (status, _) = running.call("DELETE", &format!("/v1/agents/a/pins/{hex}"), "").await;
    assert_eq!(status, 204);
    assert_eq!(agent.end().await.close.unwrap().0, CloseCode::UnknownAgent);
    let (status, _) = running.call("PUT", &format!("/v1/agents/a/pins/{hex}"), "").await;
    assert_eq!(status, 201);
    let mut agent = running.connect(&identity).await;
    agent.hello("a", None, None);
    agent.welcome().await;
    running.server.stop().await;
}

#[tokio::test]
async fn a_result_that_cannot_be_read_is_refused_and_others_still_count() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(config(folder.path(), &[])).await;
    let (_, mut agent) = running.enrolled("a").await;
    let name = Name::new("result/bad").unwrap();
    agent.offer(Document { name, version: 1, body: "{}".into() });
    agent.say(&result("good"), 1);
    let mut refused = None;
    let mut is_stored = false;
    while refused.is_none() || !is_stored {
        match agent.event().await.unwrap() {
            metadata_delivery::Event::Refused { name, reason, .. } => {
                refused = Some((name, reason));
            }
            metadata_delivery::Event::Stored { name, .. } => {
                is_stored |= name.as_str() == "result/good";
            }
            _ => {}
        }
    }
    let (name, reason) = refused.unwrap();
    assert_eq!(name.as_str(), "result/bad");
    assert!(reason.contains("this is no result"), "{reason}");
    let parsed = DeploymentResult::from_body(b"{}").unwrap_err().to_string();
    assert_eq!(reason, parsed, "the agent reads what is wrong");
    running.server.stop().await;
}

#[tokio::test]
async fn the_result_of_a_rerun_is_stored_beside_the_first_and_says_who_asked() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(config(folder.path(), &[])).await;
    let (_, mut agent) = running.enrolled("a").await;
    running.put("a", &document(&["c1"])).await;
    agent.document("metadata").await;
    agent.say(&result("c1"), 1);
    agent.stored("result/c1").await;
    let asked_by = "user root (uid 0)".to_owned();
    let rerun = Some(Rerun { run: 2, asked_by, asked_unix_ms: 3 });
    let again = DeploymentResult { rerun, ..result("c1") };
    agent.say(&again, again.run());
    agent.stored("result/c1").await;
    let (_, results) = running.call("GET", "/v1/agents/a/results", "").await;
    let results = results["results"].as_array().unwrap();
    assert_eq!(results.len(), 2);
    assert!(results[0]["result"].get("rerun").is_none());
    assert_eq!(results[1]["result"]["rerun"]["run"], 2, "the newest comes last");
    assert_eq!(results[1]["result"]["rerun"]["asked_by"], "user root (uid 0)");
    running.server.stop().await;
}

#[tokio::test]
async fn refusals_are_told_to_whoever_watches_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(config(folder.path(), &[])).await;
    let token_file = folder.path().join("state/admin-token");
    let client = metadata_server::client::Client::new(running.admin, token_file);
    let (told, mut lines) = tokio::sync::mpsc::unbounded_channel();
    let watcher = tokio::spawn(async move {
        client.lines("/v1/watch", |line| Ok(told.send(line.to_owned()).is_ok())).await
    });
    assert!(lines.recv().await.unwrap().contains("\"watching\""));
    let stranger = Identity::generate("test").unwrap();
    let mut agent = running.connect(&stranger).await;
    agent.hello("a", None, None);
    agent.end().await;
    let line: serde_json::Value = serde_json::from_str(&lines.recv().await.unwrap()).unwrap();
    assert_eq!(line["event"], "agent_refused");
    assert_eq!(line["reason"], "unknown_agent");
    assert_eq!(line["fingerprint_seen"], stranger.fingerprint().to_string());
    assert_eq!(line["fingerprints_expected"], serde_json::json!([]));
    let (_, metrics) = support::http(running.admin, "GET", "/metrics", "", b"").await;
    let metrics = String::from_utf8(metrics).unwrap();
    assert!(metrics.contains("mds_refusals_total{reason=\"unknown_agent\"} 1\n"), "{metrics}");
    assert!(metrics.contains("mds_handshakes_total{result=\"completed\"} 1\n"), "{metrics}");
    running.server.stop().await;
    watcher.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_server_set_back_to_an_older_store_goes_on_above_what_its_agent_holds() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(config(folder.path(), &[])).await;
    let (identity, mut agent) = running.enrolled("a").await;
    running.put("a", &document(&["c1"])).await;
    agent.document("metadata").await;
    let mut agent = running.connect(&identity).await;
    agent.hello("a", Some(Holds { version: 41, sha256: Hex32([1; 32]) }), None);
    agent.welcome().await;
    assert_eq!(agent.document("metadata").await.version, 42);
    assert_eq!(running.put("a", &document(&["c2"])).await, 43);
    assert_eq!(agent.document("metadata").await.version, 43);
    running.server.stop().await;
}
