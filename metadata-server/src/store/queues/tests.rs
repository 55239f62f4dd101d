use serde_json::json;

use super::*;
use crate::document::{DOCUMENT_BYTES_MAX, ValidDocument};
use crate::heat::Source;
use crate::store::backend::Table;
use crate::store::{MemoryBackend, Outcome, Store, Write};

fn key(text: &str) -> QueueKey {
    text.parse().unwrap()
}

fn agent(id: &str) -> AgentId {
    id.parse().unwrap()
}

fn store() -> Store {
    Store::new(std::sync::Arc::new(MemoryBackend::default())).unwrap()
}

fn apply(store: &Store, write: QueueWrite) -> QueueOutcome {
    match store.commit(&[Write::Queue(write)]).unwrap().remove(0) {
        Outcome::Queue(outcome) => outcome,
        other => panic!("{other:?}"),
    }
}

/// A document with deployments of these names, ids and seconds of creation.
fn document(entries: &[(&str, &str, u32)]) -> ValidDocument {
    let deployments: Vec<_> = entries
        .iter()
        .map(|(name, id, second)| {
            json!({"id": id, "name": name, "creation_time": format!("2026-11-22T03:58:{second:02}Z"),
                "inputs": [{"name": "deploy_server_id", "value": "server"}]})
        })
        .collect();
    let body = json!({ "deployments": deployments }).to_string();
    ValidDocument::check(Bytes::from(body), DOCUMENT_BYTES_MAX).unwrap()
}

fn push_as(user: &str, queue: &str, document: &ValidDocument, now_unix_ms: u64) -> QueueWrite {
    let message = NewMessage {
        body: document.body().clone(),
        ttl_s: 3_600,
        document: Some(document.clone().into()),
    };
    let (user, messages) = (Some(user.to_owned()), vec![message]);
    QueueWrite::Post { queue: key(queue), user, client: "c".into(), messages, now_unix_ms }
}

fn push(queue: &str, document: &ValidDocument, now_unix_ms: u64) -> QueueWrite {
    push_as("heat", queue, document, now_unix_ms)
}

fn signal(queue: &str, text: &str, ttl_s: u64, now_unix_ms: u64) -> QueueWrite {
    let body = Bytes::from(json!({"deploy_stdout": text}).to_string());
    let messages = vec![NewMessage { body, ttl_s, document: None }];
    QueueWrite::Post { queue: key(queue), user: None, client: "c".into(), messages, now_unix_ms }
}

fn bind(queue: &str, id: &str) -> QueueWrite {
    QueueWrite::Bind { queue: key(queue), agent: agent(id), owner: None, now_unix_ms: 1 }
}

fn take(store: &Store, queue: &str, now_unix_ms: u64) -> Vec<String> {
    let write = QueueWrite::Take { queue: key(queue), user: None, count: 10, now_unix_ms };
    match apply(store, write) {
        QueueOutcome::Taken(taken) => {
            taken.iter().map(|m| String::from_utf8(m.body.to_vec()).unwrap()).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn after(after: u64, now_unix_ms: u64) -> MessagesQuery {
    MessagesQuery { after, limit: 10, not_of_client: None, now_unix_ms }
}

fn has(store: &Store, id: &str, document: &ValidDocument) -> bool {
    store.document(&agent(id)).unwrap().is_some_and(|held| held.body == *document.body())
}

fn unsettled(store: &Store, queue: &str) -> bool {
    store.queue(&key(queue)).unwrap().unwrap().unsettled_since_unix_ms.is_some()
}

fn bytes_kept(store: &Store) -> u64 {
    let of_queues: u64 =
        store.find_queues(|_, _| true).unwrap().iter().map(|(_, record)| record.bytes).sum();
    let in_all = store.read(ops::total_bytes).unwrap();
    assert_eq!(in_all, of_queues, "what the limit is compared with");
    in_all
}

#[test]
fn a_push_before_enrolment_waits_and_one_after_it_is_in_force_at_once() {
    let store = store();
    let first = document(&[("a", "a1", 1)]);
    let QueueOutcome::Posted { pushed, .. } = apply(&store, push("p/q", &first, 1)) else {
        panic!()
    };
    assert_eq!(pushed, None);
    assert_eq!(bytes_kept(&store), first.body().len() as u64);
    let QueueOutcome::Bound { pushed, moved_from: None } = apply(&store, bind("p/q", "vm")) else {
        panic!()
    };
    assert_eq!(pushed.unwrap().agent, agent("vm"));
    assert!(has(&store, "vm", &first));
    assert_eq!(bytes_kept(&store), 0, "it is the agent's");
    assert_eq!(store.queue_of(&agent("vm")).unwrap(), Some(key("p/q")));

    let second = document(&[("a", "a1", 1), ("b", "b1", 2)]);
    let outcome = apply(&store, push("p/q", &second, 100_000));
    assert_eq!(outcome.pushed().unwrap().document.head.version, 2);
    assert!(has(&store, "vm", &second));
    // The same again is no new version.
    assert!(apply(&store, push("p/q", &second, 200_000)).pushed().is_none());
}

#[test]
fn a_queue_is_its_first_users_and_a_projects_own() {
    let store = store();
    let real = document(&[("a", "a1", 1)]);
    let forged = document(&[("a", "evil", 9)]);
    apply(&store, push("p/q", &real, 1));
    apply(&store, bind("p/q", "vm"));
    assert_eq!(apply(&store, push_as("mallory", "p/q", &forged, 2)), QueueOutcome::NotYours);
    let mallory = || Some("mallory".to_owned());
    let writes = [
        QueueWrite::Remove { queue: key("p/q"), user: mallory() },
        QueueWrite::Make { queue: key("p/q"), user: mallory(), now_unix_ms: 1 },
        QueueWrite::Take { queue: key("p/q"), user: mallory(), count: 1, now_unix_ms: 1 },
        QueueWrite::Drop { queue: key("p/q"), user: mallory(), numbers: vec![1] },
    ];
    for write in writes {
        assert_eq!(apply(&store, write), QueueOutcome::NotYours);
    }
    // A queue of the same name in another project is another queue.
    apply(&store, push_as("mallory", "other/q", &forged, 3));
    assert!(has(&store, "vm", &real));
}

#[test]
fn what_somebody_else_put_under_a_name_is_dropped_when_the_owner_is_known() {
    let store = store();
    let forged = document(&[("a", "evil", 9)]);
    apply(&store, push_as("mallory", "p/q", &forged, 1));
    let owner = Some("heat".to_owned());
    let write = QueueWrite::Bind { queue: key("p/q"), agent: agent("vm"), owner, now_unix_ms: 2 };
    assert!(apply(&store, write).pushed().is_none());
    assert_eq!(store.document(&agent("vm")).unwrap(), None);
    assert_eq!(bytes_kept(&store), 0);
    let real = document(&[("a", "a1", 1)]);
    assert_eq!(apply(&store, push_as("mallory", "p/q", &forged, 3)), QueueOutcome::NotYours);
    assert!(apply(&store, push("p/q", &real, 4)).pushed().is_some());
}

#[test]
fn what_somebody_else_put_in_force_is_not_passed_on_when_the_owner_is_known() {
    let store = store();
    let forged = document(&[("a", "evil", 59)]);
    apply(&store, bind("p/q", "vm"));
    assert!(apply(&store, push_as("mallory", "p/q", &forged, 1)).pushed().is_some());
    let pushes = store.queue(&key("p/q")).unwrap().unwrap().pushes;
    let owner = Some("heat".to_owned());
    let write = QueueWrite::Bind { queue: key("p/q"), agent: agent("new"), owner, now_unix_ms: 2 };
    let QueueOutcome::Bound { pushed: None, moved_from } = apply(&store, write) else { panic!() };
    assert_eq!(moved_from, Some(agent("vm")));
    assert_eq!(store.document(&agent("new")).unwrap(), None);
    // Heat may be asked at this moment about the server that it named.
    let late =
        QueueWrite::Settle { queue: key("p/q"), pushes, document: Some(forged), now_unix_ms: 3 };
    let outdated = QueueOutcome::Settled { pushed: None, is_done: false };
    assert_eq!(apply(&store, late), outdated);
    assert_eq!(store.queue(&key("p/q")).unwrap().unwrap().server_id, None);
    let real = document(&[("a", "a1", 1)]);
    apply(&store, push("p/q", &real, 100_000));
    assert!(has(&store, "new", &real));
}

#[test]
fn enrolling_again_does_not_put_a_held_older_document_in_force() {
    let old = document(&[("a", "a1", 1)]);
    let new = document(&[("a", "a2", 5)]);
    let held = || {
        let store = store();
        apply(&store, bind("p/q", "vm"));
        apply(&store, push("p/q", &new, 100_000));
        apply(&store, push("p/q", &old, 100_500));
        store
    };
    let is_held = |store: &Store, id| {
        let waiting = store.waiting_document(&key("p/q")).unwrap().unwrap();
        has(store, id, &new) && waiting.body == *old.body() && unsettled(store, "p/q")
    };
    let store = held();
    assert!(apply(&store, bind("p/q", "vm")).pushed().is_none());
    assert!(is_held(&store, "vm"), "Heat is asked about it, as before");
    // Nor does another agent that takes the queue over get it,
    assert!(apply(&store, bind("p/q", "other")).pushed().is_some());
    assert!(is_held(&store, "other"));
    // nor one that had another queue for a while.
    let store = held();
    apply(&store, bind("p/q2", "vm"));
    assert!(apply(&store, bind("p/q", "vm")).pushed().is_none());
    assert!(is_held(&store, "vm"));
}

#[test]
fn an_older_document_is_held_and_the_last_word_is_heats() {
    let store = store();
    let old = document(&[("a", "a1", 1)]);
    let new = document(&[("a", "a2", 5)]);
    apply(&store, bind("p/q", "vm"));
    apply(&store, push("p/q", &new, 100_000));
    assert!(!unsettled(&store, "p/q"), "one push alone is in no doubt");
    let QueueOutcome::Posted { pushed: None, is_unsettled: true, .. } =
        apply(&store, push("p/q", &old, 100_500))
    else {
        panic!()
    };
    assert!(has(&store, "vm", &new), "never an older one after a newer one");
    // Heat's answer is outdated when something has come meanwhile.
    let settle = |pushes, document: Option<&ValidDocument>| QueueWrite::Settle {
        queue: key("p/q"),
        pushes,
        document: document.cloned(),
        now_unix_ms: 2,
    };
    assert_eq!(
        apply(&store, settle(1, Some(&old))),
        QueueOutcome::Settled { pushed: None, is_done: false }
    );
    assert_eq!(
        apply(&store, settle(2, Some(&new))),
        QueueOutcome::Settled { pushed: None, is_done: true }
    );
    assert!(has(&store, "vm", &new) && !unsettled(&store, "p/q"));
    assert_eq!(store.waiting_document(&key("p/q")).unwrap(), None);
    // Without an answer the last push counts.
    apply(&store, push("p/q", &old, 101_000));
    assert!(has(&store, "vm", &new));
    assert!(apply(&store, settle(3, None)).pushed().is_some());
    assert!(has(&store, "vm", &old));
}

#[test]
fn in_a_burst_what_brings_something_goes_at_once_and_what_only_lacks_waits() {
    let store = store();
    let one = document(&[("a", "a1", 1)]);
    let three = document(&[("a", "a1", 1), ("b", "b1", 2), ("c", "c1", 2)]);
    apply(&store, bind("p/q", "vm"));
    apply(&store, push("p/q", &one, 100_000));
    apply(&store, push("p/q", &three, 100_100));
    assert!(has(&store, "vm", &three) && unsettled(&store, "p/q"));
    apply(&store, push("p/q", &one, 100_200));
    assert!(has(&store, "vm", &three));
    // Long after a burst, what lacks something was removed.
    apply(&store, push("p/q", &one, 100_200 + BURST_MS));
    assert!(has(&store, "vm", &one));
}

#[test]
fn signals_are_taken_once_in_order_and_end_with_their_time() {
    let store = store();
    assert_eq!(take(&store, "p/s", 0), Vec::<String>::new(), "no queue is an empty one");
    apply(&store, signal("p/s", "first", 600, 1_000));
    apply(&store, signal("p/s", "second", 60, 1_000));
    assert_eq!(store.queue_messages(&key("p/s"), &after(1, 1_000)).unwrap().len(), 1);
    assert_eq!(take(&store, "p/s", 61_000), ["{\"deploy_stdout\":\"first\"}"]);
    assert_eq!(take(&store, "p/s", 61_000), Vec::<String>::new());
    assert_eq!(bytes_kept(&store), 0);
    let record = store.queue(&key("p/s")).unwrap().unwrap();
    assert_eq!((record.messages, record.last_message), (0, 2), "no number is given twice");
}

#[test]
fn a_page_of_messages_is_bounded_in_number_and_bytes_and_in_order() {
    let store = store();
    let large = "x".repeat(PAGE_BYTES_MAX / 2);
    let lengths = |query: &MessagesQuery| -> Vec<_> {
        let messages = store.queue_messages(&key("p/s"), query).unwrap();
        messages.iter().map(|m| (m.number, m.body.len() >= large.len())).collect()
    };
    apply(&store, signal("p/s", "small", 600, 1));
    let pushed = document(&[("a", "a1", 1)]);
    apply(&store, push("p/s", &pushed, 1));
    for _ in 0..3 {
        apply(&store, signal("p/s", &large, 600, 1));
    }
    let all = after(0, 1);
    assert_eq!(lengths(&all), [(1, false), (2, false), (3, true), (4, true)], "the document is #2");
    assert_eq!(lengths(&after(4, 1)), [(5, true)]);
    assert_eq!(lengths(&MessagesQuery { limit: 2, ..all.clone() }), [(1, false), (2, false)]);
    // What is not wanted takes no room.
    let other = QueueWrite::Post {
        queue: key("p/s"),
        user: None,
        client: "other".into(),
        messages: vec![NewMessage { body: "1".into(), ttl_s: 600, document: None }],
        now_unix_ms: 1,
    };
    apply(&store, other);
    let not_of_client = Some("c".to_owned());
    assert_eq!(lengths(&MessagesQuery { not_of_client, limit: 1, ..all }), [(6, false)]);
    // So is what a page takes away.
    assert_eq!(take(&store, "p/s", 1).len(), 4);
    assert_eq!(take(&store, "p/s", 1).len(), 2);
    assert_eq!(bytes_kept(&store), pushed.body().len() as u64, "for the agent that will be bound");
}

#[test]
fn a_document_taken_as_a_message_is_still_there_for_its_agent() {
    let store = store();
    let pushed = document(&[("a", "a1", 1)]);
    apply(&store, push("p/q", &document(&[]), 1));
    apply(&store, push("p/q", &pushed, 2));
    let text = String::from_utf8(pushed.body().to_vec()).unwrap();
    assert_eq!(take(&store, "p/q", 3), [text], "the newest state supersedes the one before");
    assert_eq!(take(&store, "p/q", 4), Vec::<String>::new());
    apply(&store, bind("p/q", "vm"));
    assert!(has(&store, "vm", &pushed));
}

#[test]
fn a_queue_moves_with_its_document_and_an_agent_has_one_queue() {
    let store = store();
    let first = document(&[("a", "a1", 1)]);
    apply(&store, push("p/q", &first, 1));
    apply(&store, bind("p/q", "old"));
    let QueueOutcome::Bound { moved_from, .. } = apply(&store, bind("p/q", "new")) else {
        panic!()
    };
    assert_eq!(moved_from, Some(agent("old")));
    assert!(has(&store, "new", &first));
    assert_eq!(store.queue_of(&agent("old")).unwrap(), None);
    // The agent's server was replaced: another queue.
    apply(&store, bind("p/q2", "new"));
    let second = document(&[("a", "a9", 30)]);
    apply(&store, push("p/q", &document(&[("x", "x1", 40)]), 100_000));
    apply(&store, push("p/q2", &second, 100_000));
    assert!(has(&store, "new", &second));
    assert!(has(&store, "old", &first), "nobody gets a queue that is nobody's");
}

#[test]
fn an_agent_is_pushed_for_or_polled_for_and_not_both() {
    let store = store();
    let pushed = document(&[("a", "a1", 1)]);
    apply(&store, push("p/q", &pushed, 1));
    apply(&store, bind("p/q", "vm"));
    let section = json!({"user_id": "u", "password": "x", "project_id": "p", "stack_id": "s/1",
        "resource_name": "server"});
    let Ok(Source::Poll(source)) = Source::read(&json!({"heat": section})) else { panic!() };
    let source = Some(source);
    store.commit(&[Write::SaveHeatSource { agent: agent("vm"), source }]).unwrap();
    assert_eq!(store.queue_of(&agent("vm")).unwrap(), None);
    assert!(!unsettled(&store, "p/q"));
    apply(&store, push("p/q", &document(&[("x", "x1", 40)]), 100_000));
    assert!(has(&store, "vm", &pushed), "the queue is nobody's");
    apply(&store, bind("p/q", "vm"));
    assert_eq!(store.heat_sources().unwrap(), []);
}

#[test]
fn queues_messages_and_bytes_are_limited_and_a_refusal_changes_nothing() {
    let store = store();
    for number in 0..QUEUE_MESSAGES_MAX {
        let outcome = apply(&store, signal("p/s", &number.to_string(), 600, 1_000));
        assert!(matches!(outcome, QueueOutcome::Posted { .. }));
    }
    let full = apply(&store, signal("p/s", "more", 600, 2_000));
    assert!(matches!(full, QueueOutcome::Full { max: QUEUE_MESSAGES_MAX, .. }), "{full:?}");
    // What has expired makes room.
    let outcome = apply(&store, signal("p/s", "later", 600, 700_000));
    assert!(matches!(outcome, QueueOutcome::Posted { .. }));
    let writes: Vec<_> = (1..QUEUES_PER_PROJECT_MAX)
        .map(|number| {
            let queue = key(&format!("p/{number}"));
            Write::Queue(QueueWrite::Make { queue, user: None, now_unix_ms: 1 })
        })
        .collect();
    store.commit(&writes).unwrap();
    let full = apply(&store, signal("p/one-more", "x", 600, 1_000));
    assert!(matches!(full, QueueOutcome::Full { max: QUEUES_PER_PROJECT_MAX, .. }), "{full:?}");
    assert_eq!(store.queue(&key("p/one-more")).unwrap(), None);
    assert!(matches!(apply(&store, signal("q/s", "x", 600, 1)), QueueOutcome::Posted { .. }));
    apply(&store, QueueWrite::Remove { queue: key("p/1"), user: None });
    let made = apply(&store, signal("p/one-more", "x", 600, 1_000));
    assert!(matches!(made, QueueOutcome::Posted { .. }), "one gone, one more");
}

#[test]
fn when_there_is_no_room_left_agents_still_get_their_documents() {
    let store = store();
    apply(&store, bind("p/q", "vm"));
    store
        .backend
        .write(0, &mut |tx| {
            crate::store::ops::put_number(tx, Table::Meta, b"queues_bytes", QUEUES_BYTES_MAX)
        })
        .unwrap();
    let pushed = document(&[("a", "a1", 1)]);
    let full = apply(&store, push("p/unbound", &pushed, 1));
    assert!(matches!(full, QueueOutcome::Full { max: QUEUES_BYTES_MAX, .. }), "{full:?}");
    assert_eq!(store.queue(&key("p/unbound")).unwrap(), None, "a refused post makes no queue");
    let full = apply(&store, signal("p/s", "x", 600, 1));
    assert!(matches!(full, QueueOutcome::Full { .. }), "{full:?}");
    assert!(apply(&store, push("p/q", &pushed, 1)).pushed().is_some());
}

#[test]
fn a_sweep_forgets_what_has_expired_and_what_nobody_uses_but_no_agents_queue() {
    let store = store();
    let pushed = document(&[("a", "a1", 1)]);
    apply(&store, push("p/bound", &pushed, 1));
    apply(&store, bind("p/bound", "vm"));
    apply(&store, push("p/forgotten", &pushed, 1));
    apply(&store, signal("p/signals", "x", 60, UNUSED_MS_MAX));
    let sweep = |from| QueueWrite::Sweep { from, now_unix_ms: UNUSED_MS_MAX + 60_000 };
    assert_eq!(apply(&store, sweep(None)), QueueOutcome::Swept(None));
    let left: Vec<_> = store.find_queues(|_, _| true).unwrap();
    let names: Vec<_> = left.iter().map(|(queue, _)| queue.to_string()).collect();
    assert_eq!(names, ["p/bound", "p/signals"]);
    assert_eq!(bytes_kept(&store), 0);
}

#[test]
fn names_are_checked_and_read_back() {
    for good in ["p/q", "0af/cap-server-p5ql2x37etgt", "p/a.b_c-D", "p/container/object"] {
        let queue = key(good);
        assert_eq!(queue.to_string(), good);
        assert_eq!(QueueKey::from_bytes(&queue.bytes()), Some(queue));
    }
    let long = format!("p/{}", "q".repeat(QUEUE_NAME_CHARS_MAX + 1));
    for bad in ["", "q", "/q", "p/", "p/a b", "p/a/", "p/a/b/c", "p/a\0b", "p q/a", "p/ä", &long] {
        assert!(bad.parse::<QueueKey>().is_err(), "{bad:?}");
    }
}

#[test]
fn messages_show_no_body_when_printed() {
    let store = store();
    apply(&store, signal("p/s", "secret", 600, 1));
    let messages = store.queue_messages(&key("p/s"), &after(0, 1)).unwrap();
    assert!(!format!("{messages:?}").contains("secret"));
    assert!(!format!("{:?}", signal("p/s", "secret", 1, 1)).contains("secret"));
}

fn put(object: &str, text: &str, now_unix_ms: u64) -> QueueWrite {
    let body = Bytes::copy_from_slice(text.as_bytes());
    let document = ValidDocument::check(body.clone(), DOCUMENT_BYTES_MAX).ok().map(Into::into);
    let messages = vec![NewMessage { body, ttl_s: u64::MAX / 1000, document }];
    QueueWrite::Post {
        queue: key(object),
        user: None,
        client: String::new(),
        messages,
        now_unix_ms,
    }
}

#[test]
fn an_object_is_what_was_put_last_whether_it_is_a_document_or_not() {
    let store = store();
    let object = key("p/stack/deployment");
    assert!(object.is_object() && !key("p/stack").is_object());
    assert_eq!(store.object(&object).unwrap(), None);
    let document = r#"{"deployments": []}"#;
    for (ms, text) in
        [(1, ""), (2, "{\"deploy_status_code\": 0}"), (3, document), (4, "x"), (5, "")]
    {
        apply(&store, put("p/stack/deployment", text, ms));
        assert_eq!(store.object(&object).unwrap(), Some((Bytes::from(text), ms)), "{text:?}");
        let length = text.len() as u64;
        assert_eq!(store.queue(&object).unwrap().unwrap().bytes, length, "nothing else is kept");
        let listed = store.objects(&key("p/stack/any")).unwrap();
        let wanted =
            StoredObject { name: "deployment".into(), bytes: length, modified_unix_ms: ms };
        assert_eq!(listed, [wanted]);
    }
    for other in ["p/other/x", "q/stack/x", "p/stac/x"] {
        assert_eq!(store.objects(&key(other)).unwrap(), [], "{other}");
    }
    apply(&store, QueueWrite::Remove { queue: object.clone(), user: None });
    assert_eq!(store.object(&object).unwrap(), None);
    assert_eq!(bytes_kept(&store), 0);
}

#[test]
fn an_objects_document_is_its_agents_at_once_also_in_a_burst_and_with_fewer_deployments() {
    let store = store();
    let object = key("p/server/object");
    apply(&store, put("p/server/object", r#"{"deployments": []}"#, 1));
    let bound = apply(&store, bind("p/server/object", "vm"));
    assert!(bound.pushed().is_some(), "{bound:?}");
    let newer = document(&[("a", "1", 1), ("b", "2", 5)]);
    let older = document(&[("a", "1", 1)]);
    for (ms, document) in [(10, &newer), (20, &older)] {
        let text = std::str::from_utf8(document.body()).unwrap();
        let posted = apply(&store, put("p/server/object", text, ms));
        let QueueOutcome::Posted { pushed: Some(pushed), is_unsettled: false, .. } = posted else {
            panic!("{posted:?}")
        };
        assert_eq!(&pushed.document.body, document.body());
        assert_eq!(store.object(&object).unwrap(), Some((document.body().clone(), ms)));
        let listed = store.objects(&object).unwrap();
        assert_eq!(listed[0].bytes, text.len() as u64);
    }
}

#[test]
fn names_of_objects_have_two_parts_and_queues_one() {
    for bad in ["p/a/b/c", "p//b", "p/a/", "p/a b/c", "p/a/\0"] {
        assert!(bad.parse::<QueueKey>().is_err(), "{bad:?}");
    }
    assert!(QueueKey::new("p", "a/b").is_err(), "not by Zaqar's API");
    assert_eq!(key("p/a/b").to_string(), "p/a/b");
    let long = "x".repeat(QUEUE_NAME_CHARS_MAX + 1);
    assert!(
        QueueKey::object("p", &long, "x").is_err() && QueueKey::object("p", "x", &long).is_err()
    );
}
