//! What Heat hears of results: stand-ins on loopback that take, refuse, fail, hang and hang up.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use metadata_delivery::message::WaitSignal;
use metadata_server::relay::THREADS;
use metadata_server::relay::core::PER_AGENT_MAX;
use metadata_server::store::signals::WAITS_PER_AGENT_MAX;
use openstack_client::testing::{Answer, Asked, HttpServer};
use serde_json::{Value, json};
use support::{PATIENCE, Running, config, result};

const AGENT: &str = "vm";

/// A document with one deployment for each of these, signalled by a signed URL.
fn signed(ids: &[&str], action: &str, url: &str) -> String {
    let deployments: Vec<Value> = ids
        .iter()
        .map(|id| {
            json!({"id": id, "name": "n", "group": "script", "inputs": [
                {"name": "deploy_action", "value": action},
                {"name": "deploy_signal_transport", "value": "CFN_SIGNAL"},
                {"name": "deploy_signal_id", "value": format!("{url}?Signature=hush&config={id}")},
                {"name": "deploy_signal_verb", "value": "POST"},
            ]})
        })
        .collect();
    json!({ "deployments": deployments }).to_string()
}

/// Waits until the signal of a config is in one of these states.
async fn signal(running: &Running, config_id: &str, states: &[&str]) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (_, page) = running.call("GET", &format!("/v1/agents/{AGENT}/results"), "").await;
        let results = page["results"].as_array().unwrap();
        let signal = results
            .iter()
            .find(|saved| saved["result"]["config_id"] == config_id)
            .map(|saved| saved["signal"].clone());
        if let Some(signal) = signal
            && states.iter().any(|state| signal["state"] == **state)
        {
            assert!(!page.to_string().contains("hush"), "{page}");
            return signal;
        }
        assert!(Instant::now() < deadline, "not {states:?}: {page}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Puts a document for one config, and lets its agent say that it has ended.
async fn end_of_one(running: &Running, document: &str, config_id: &str) {
    running.put(AGENT, document).await;
    let (_, mut agent) = running.enrolled(AGENT).await;
    agent.say(&result(config_id), 1);
    agent.stored(&format!("result/{config_id}")).await;
}

/// Answers with these statuses, the last of them again and again; 0 hangs up.
fn scripted(statuses: &'static [u16]) -> HttpServer {
    let (taken, given) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let connections = Arc::clone(&given);
    let of = |n: usize| statuses[n.min(statuses.len() - 1)];
    HttpServer::start_wrapped(
        move |_| {
            let _ = taken.fetch_add(1, Ordering::SeqCst);
            Answer::new(of(connections.load(Ordering::SeqCst) - 1), "an answer")
        },
        move |stream| {
            let n = given.fetch_add(1, Ordering::SeqCst);
            (of(n) != 0).then(|| Box::new(stream) as _)
        },
    )
}

#[tokio::test]
async fn a_result_is_signalled_as_the_document_says_and_shows_as_sent() {
    let folder = tempfile::tempdir().unwrap();
    let heat = HttpServer::start(|_| Answer::new(200, ""));
    let running = Running::start(config(folder.path(), &[])).await;
    end_of_one(&running, &signed(&["c1"], "CREATE", &heat.url("/v1/signal/x")), "c1").await;
    let sent = signal(&running, "c1", &["sent"]).await;
    assert_eq!((&sent["status"], &sent["attempts"]), (&json!(200), &json!(1)), "{sent}");
    let [asked] = &heat.asked()[..] else { panic!("{:?}", heat.asked()) };
    assert_eq!(
        (asked.method.as_str(), asked.target.as_str()),
        ("POST", "/v1/signal/x?Signature=hush&config=c1")
    );
    assert_eq!(asked.header("content-type"), Some("application/json"));
    let told = r#"{"deploy_stdout": "done\n", "deploy_stderr": "", "deploy_status_code": 0}"#;
    assert_eq!(asked.text(), told);
    let (_, page) = support::http(running.admin, "GET", "/metrics", "", b"").await;
    let page = String::from_utf8(page).unwrap();
    assert!(page.contains("mds_signals_total{result=\"sent\"} 1"), "{page}");
    running.server.stop().await;
}

#[tokio::test]
async fn a_heat_in_trouble_is_asked_until_it_takes_the_signal() {
    let folder = tempfile::tempdir().unwrap();
    let heat = scripted(&[503, 0, 200]);
    let running = Running::start(config(folder.path(), &[])).await;
    end_of_one(&running, &signed(&["c1"], "CREATE", &heat.url("/")), "c1").await;
    let waiting = signal(&running, "c1", &["waiting"]).await;
    assert!(waiting["next_unix_ms"].as_u64().unwrap() > 0, "{waiting}");
    let sent = signal(&running, "c1", &["sent"]).await;
    assert_eq!(sent["attempts"], 3, "{sent}");
    running.server.stop().await;
}

#[tokio::test]
async fn a_refusal_is_final_and_a_deployment_that_is_gone_is_too_late() {
    for (status, state) in [(400, "refused"), (403, "refused"), (404, "too_late"), (409, "refused")]
    {
        let folder = tempfile::tempdir().unwrap();
        let heat = HttpServer::start(move |_| Answer::new(status, "the reason"));
        let running = Running::start(config(folder.path(), &[])).await;
        end_of_one(&running, &signed(&["c1"], "CREATE", &heat.url("/")), "c1").await;
        let over = signal(&running, "c1", &["refused", "too_late"]).await;
        assert_eq!((&over["state"], &over["status"]), (&json!(state), &json!(status)), "{over}");
        assert!(over["reason"].as_str().unwrap().contains("the reason"), "{over}");
        running.server.stop().await;
        assert_eq!(heat.asked().len(), 1);
    }
}

#[tokio::test]
async fn what_waits_is_sent_after_a_restart_and_once_only_what_was_taken() {
    let folder = tempfile::tempdir().unwrap();
    let is_up = Arc::new(AtomicBool::new(false));
    let up = Arc::clone(&is_up);
    let heat = HttpServer::start(move |asked| match asked.target.contains("config=c1") {
        true => Answer::new(200, ""),
        false if up.load(Ordering::SeqCst) => Answer::new(200, ""),
        false => Answer::new(500, ""),
    });
    let running = Running::start(config(folder.path(), &[])).await;
    running.put(AGENT, &signed(&["c1", "c2"], "CREATE", &heat.url("/"))).await;
    let (_, mut agent) = running.enrolled(AGENT).await;
    for id in ["c1", "c2"] {
        agent.say(&result(id), 1);
        agent.stored(&format!("result/{id}")).await;
    }
    signal(&running, "c1", &["sent"]).await;
    while signal(&running, "c2", &["waiting"]).await["attempts"] == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    running.server.stop().await;
    let asked_of_one = |heat: &HttpServer| {
        heat.asked().iter().filter(|asked| asked.target.contains("config=c1")).count()
    };
    is_up.store(true, Ordering::SeqCst);
    let running = Running::start(config(folder.path(), &[])).await;
    signal(&running, "c2", &["sent"]).await;
    assert_eq!(asked_of_one(&heat), 1);
    running.server.stop().await;
}

#[tokio::test]
async fn a_deployment_at_delete_is_signalled_although_heat_has_withdrawn_it() {
    for (status, state) in [(200, "sent"), (401, "too_late")] {
        let folder = tempfile::tempdir().unwrap();
        let heat = HttpServer::start(move |_| Answer::new(status, ""));
        let running = Running::start(config(folder.path(), &[])).await;
        running.put(AGENT, &signed(&["c1"], "DELETE", &heat.url("/"))).await;
        running.put(AGENT, &signed(&[], "DELETE", "")).await;
        let (_, mut agent) = running.enrolled(AGENT).await;
        agent.say(&result("c1"), 1);
        agent.stored("result/c1").await;
        signal(&running, "c1", &[state]).await;
        // What was asked for and withdrawn otherwise is nobody's business any more.
        agent.say(&result("never-asked-for"), 1);
        agent.stored("result/never-asked-for").await;
        let waiting = signal(&running, "never-asked-for", &["waiting"]).await;
        assert!(
            waiting.get("reason").is_none_or(|reason| reason.to_string().contains("does not list"))
        );
        running.server.stop().await;
        assert_eq!(heat.asked().len(), 1);
    }
}

#[tokio::test]
async fn a_result_that_comes_during_a_document_in_the_wrong_order_is_signalled_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let heat = HttpServer::start(|_| Answer::new(200, ""));
    let running = Running::start(config(folder.path(), &[])).await;
    let right = signed(&["c1", "c2"], "CREATE", &heat.url("/"));
    running.put(AGENT, &right).await;
    running.put(AGENT, &signed(&["c1"], "CREATE", &heat.url("/"))).await;
    let (_, mut agent) = running.enrolled(AGENT).await;
    agent.say(&result("c2"), 1);
    agent.stored("result/c2").await;
    let deadline = Instant::now() + PATIENCE;
    while signal(&running, "c2", &["waiting"]).await["attempts"] == 0 {
        assert!(Instant::now() < deadline, "it is not looked at");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(heat.asked().is_empty());
    running.put(AGENT, &right).await;
    signal(&running, "c2", &["sent"]).await;
    running.server.stop().await;
}

#[tokio::test]
async fn the_server_asks_nobody_whom_it_may_not_ask() {
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = HttpServer::start(|_| Answer::new(200, ""));
    let there = elsewhere.url("/");
    let heat = HttpServer::start(move |_| Answer::new(307, "").header("Location", there.clone()));
    let allowed = heat.url("/v1/");
    let running = Running::start(config(folder.path(), &[("relay_signals_to", &allowed)])).await;
    for (n, url) in [heat.url("/v2/"), elsewhere.url("/"), heat.url("/v1/x")].iter().enumerate() {
        let id = format!("c{n}");
        end_of_one(&running, &signed(&[&id], "CREATE", url), &id).await;
        let refused = signal(&running, &id, &["refused"]).await;
        let reason = refused["reason"].as_str().unwrap();
        let expected = if n == 2 { "answered with 307" } else { "may be asked" };
        assert!(reason.contains(expected), "{url}: {reason}");
    }
    assert!(elsewhere.asked().is_empty());
    assert_eq!(heat.asked().len(), 1);
    running.server.stop().await;
}

#[tokio::test]
async fn nothing_is_signalled_where_that_is_turned_off() {
    let folder = tempfile::tempdir().unwrap();
    let heat = HttpServer::start(|_| Answer::new(200, ""));
    let running = Running::start(config(folder.path(), &[("signal", "off")])).await;
    end_of_one(&running, &signed(&["c1"], "CREATE", &heat.url("/")), "c1").await;
    let (_, page) = running.call("GET", "/v1/agents/vm/results", "").await;
    assert_eq!(page["results"][0].get("signal"), None, "{page}");
    running.server.stop().await;
    // Nor later: it was not queued.
    let running = Running::start(config(folder.path(), &[])).await;
    end_of_one(&running, &signed(&["c1", "c2"], "CREATE", &heat.url("/")), "c2").await;
    signal(&running, "c2", &["sent"]).await;
    assert!(heat.asked().iter().all(|asked| asked.target.contains("config=c2")));
    running.server.stop().await;
}

#[tokio::test]
async fn a_heat_that_hangs_holds_up_neither_agents_nor_other_signals() {
    let folder = tempfile::tempdir().unwrap();
    let (release, hangs) = mpsc::channel::<()>();
    let hangs = Mutex::new(hangs);
    let slow = HttpServer::start(move |_| {
        let _ = hangs.lock().unwrap().recv();
        Answer::new(200, "")
    });
    let quick = HttpServer::start(|_: &Asked| Answer::new(200, ""));
    let running = Running::start(config(folder.path(), &[])).await;
    // More than there are threads.
    let ids: Vec<String> = (0..2 * THREADS).map(|n| format!("c{n}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    running.put(AGENT, &signed(&ids, "CREATE", &slow.url("/"))).await;
    let (_, mut agent) = running.enrolled(AGENT).await;
    for id in &ids {
        agent.say(&result(id), 1);
        agent.stored(&format!("result/{id}")).await;
    }
    while slow.asked().len() < PER_AGENT_MAX {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    running.put("other", &signed(&["quick"], "CREATE", &quick.url("/"))).await;
    let (_, mut other) = running.enrolled("other").await;
    other.say(&result("quick"), 1);
    other.stored("result/quick").await;
    let deadline = Instant::now() + PATIENCE;
    while quick.asked().is_empty() {
        assert!(Instant::now() < deadline, "the other signal was not sent");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(slow.asked().len(), PER_AGENT_MAX, "the threads are there for others");
    assert_eq!(signal(&running, "c0", &["waiting"]).await["attempts"], 0);
    drop(release);
    for id in &ids {
        signal(&running, id, &["sent"]).await;
    }
    running.server.stop().await;
}

fn wait(id: &str, url: &str) -> WaitSignal {
    WaitSignal { id: id.into(), url: url.into(), body: r#"{"Status": "SUCCESS"}"#.into() }
}

/// Waits until the signal of a wait condition is over.
async fn over(running: &Running) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (_, list) = running.call("GET", &format!("/v1/agents/{AGENT}/wait-signals"), "").await;
        assert!(!list.to_string().contains("hush"), "{list}");
        let waits = list["signals"].as_array().unwrap();
        if !waits.is_empty() && waits.iter().all(|wait| wait["signal"]["state"] != "waiting") {
            return list["signals"].clone();
        }
        assert!(Instant::now() < deadline, "{list}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_wait_conditions_signal_goes_where_the_agents_own_document_says_and_nowhere_else() {
    let folder = tempfile::tempdir().unwrap();
    let heat = HttpServer::start(|_| Answer::new(200, ""));
    let url = heat.url("/v1/waitcondition/x?Signature=hush");
    let running = Running::start(config(folder.path(), &[])).await;
    running
        .put(
            AGENT,
            &json!({"deployments": [{"id": "c", "config": format!("cfn-signal '{url}'")}]})
                .to_string(),
        )
        .await;
    let elsewhere = heat.url("/elsewhere?Signature=hush");
    running.put("other", &json!({"deployments": [], "x": elsewhere}).to_string()).await;
    let (_, mut agent) = running.enrolled(AGENT).await;
    agent.say(&wait("a1", &url), 1);
    agent.stored("signal/a1").await;
    agent.say(&wait("a2", &elsewhere), 1);
    let (code, reason) = agent.refused("signal/a2").await;
    assert_eq!(code, 257);
    assert!(reason.contains("is not in this agent's document"), "{reason}");
    assert!(!reason.contains("hush"), "{reason}");
    let waits = over(&running).await;
    assert_eq!(
        (&waits[0]["signal"]["state"], waits.as_array().unwrap().len()),
        (&json!("sent"), 1)
    );
    let [asked] = &heat.asked()[..] else { panic!("{:?}", heat.asked()) };
    assert_eq!(
        (asked.method.as_str(), asked.target.as_str()),
        ("PUT", "/v1/waitcondition/x?Signature=hush")
    );
    assert_eq!(
        (asked.text().as_str(), asked.header("content-type")),
        (r#"{"Status": "SUCCESS"}"#, None)
    );
    running.server.stop().await;
}

#[tokio::test]
async fn an_operator_says_where_signals_of_wait_conditions_may_go() {
    let heat = HttpServer::start(|_| Answer::new(200, ""));
    let (url, prefix) = (heat.url("/v1/waitcondition/x"), heat.url("/v1/waitcondition"));
    for (settings, code) in [
        (vec![("relay_signals_to", prefix.as_str())], None),
        (vec![("relay_signals_to", "http://127.0.0.1:1/")], Some(257)),
        (vec![("signal", "off")], Some(257)),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let running = Running::start(config(folder.path(), &settings)).await;
        let (_, mut agent) = running.enrolled(AGENT).await;
        agent.say(&wait("a1", &url), 1);
        match code {
            None => {
                agent.stored("signal/a1").await;
                assert_eq!(over(&running).await[0]["signal"]["state"], "sent");
            }
            Some(code) => assert_eq!(agent.refused("signal/a1").await.0, code),
        }
        running.server.stop().await;
    }
    assert_eq!(heat.asked().len(), 1);
}

#[tokio::test]
async fn a_wait_conditions_signal_that_finds_no_room_is_taken_once_heat_has_answered() {
    let folder = tempfile::tempdir().unwrap();
    let (release, hangs) = mpsc::channel::<()>();
    let hangs = Mutex::new(hangs);
    let heat = HttpServer::start(move |_| {
        let _ = hangs.lock().unwrap().recv();
        Answer::new(200, "")
    });
    let (url, prefix) = (heat.url("/v1/waitcondition/x"), heat.url("/"));
    let running = Running::start(config(folder.path(), &[("relay_signals_to", &prefix)])).await;
    let (_, mut agent) = running.enrolled(AGENT).await;
    for n in 0..WAITS_PER_AGENT_MAX {
        agent.say(&wait(&format!("a{n}"), &url), 1);
        agent.stored(&format!("signal/a{n}")).await;
    }
    agent.say(&wait("one-more", &url), 1);
    agent.settle(1).await;
    drop(release);
    agent.stored("signal/one-more").await;
    assert_eq!(over(&running).await.as_array().unwrap().len(), WAITS_PER_AGENT_MAX + 1);
    running.server.stop().await;
}
