use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, PoisonError};

use openstack_client::http::Trust;
use openstack_client::testing::{Answer, HttpServer};
use serde_json::json;

use super::*;
use crate::document::{DOCUMENT_BYTES_MAX, ValidDocument};
use crate::store::MemoryBackend;
use crate::store::queues::NewMessage;
use crate::zaqar::keystone::Keystone;

fn queue(name: &str) -> QueueKey {
    QueueKey::new("p", name).unwrap()
}

/// All that is due; it stays under way.
fn due(agenda: &mut Agenda, now: Instant) -> Vec<(QueueKey, u32)> {
    std::iter::from_fn(|| agenda.take_due(now)).collect()
}

#[test]
fn a_burst_is_asked_about_once_when_it_is_over() {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let mut agenda = Agenda::default();
    for ms in [0, 200, 400] {
        agenda.note(queue("a"), at(ms), 0.0);
        assert_eq!(due(&mut agenda, at(ms)), []);
    }
    assert_eq!(agenda.next(), Some(at(900)));
    assert_eq!(due(&mut agenda, at(899)), []);
    assert_eq!(due(&mut agenda, at(900)), [(queue("a"), 0)]);
    assert_eq!(agenda.next(), None);
}

#[test]
fn pushes_without_end_put_the_question_off_for_a_while_only() {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let mut agenda = Agenda::default();
    for step in 0..50 {
        agenda.note(queue("a"), at(step * 100), 1.0);
    }
    assert_eq!(agenda.next(), Some(at(5_000)));
}

#[test]
fn questions_are_spread_and_repeated_with_back_off() {
    let start = Instant::now();
    let mut agenda = Agenda::default();
    agenda.note(queue("a"), start, 0.0);
    agenda.note(queue("b"), start, 1.0);
    assert_eq!(due(&mut agenda, start + QUIET), [(queue("a"), 0)]);
    assert_eq!(due(&mut agenda, start + QUIET * 2), [(queue("b"), 0)]);
    let mut waits = Vec::new();
    for tries in 1..TRIES_MAX {
        agenda.ended(queue("a"), End::Failed { tries }, start, 0.0);
        waits.push((agenda.next().unwrap() - start).as_secs());
        assert_eq!(due(&mut agenda, start + Duration::from_secs(60)), [(queue("a"), tries)]);
    }
    assert_eq!(waits, [2, 4, 8]);
    agenda.ended(queue("a"), End::Over, start, 0.0);
    assert_eq!(agenda.next(), None);
}

#[test]
fn a_push_during_the_question_is_asked_about_at_its_end_and_anew() {
    let start = Instant::now();
    let later = start + Duration::from_secs(9);
    for end in [End::Over, End::Outdated, End::Failed { tries: 3 }] {
        let mut agenda = Agenda::default();
        agenda.note(queue("a"), start, 0.0);
        assert_eq!(due(&mut agenda, start + QUIET), [(queue("a"), 0)]);
        agenda.note(queue("a"), start + QUIET, 0.0);
        assert_eq!(due(&mut agenda, later), [], "one question at a time");
        agenda.ended(queue("a"), end, later, 0.0);
        assert_eq!(due(&mut agenda, later + QUIET), [(queue("a"), 0)], "{end:?}");
    }
}

/// Makes the order doubtful in so many queues.
async fn make_doubtful(queues: usize, writer: &Writer) {
    for number in 0..queues {
        let queue = queue(&number.to_string());
        let section = json!({"user_id": "heat", "password": "x", "project_id": "p"});
        let inputs = json!([{"name": "deploy_server_id", "value": "server"}]);
        let body = json!({
            "deployments": [{"id": "a", "inputs": inputs}],
            "os-collect-config": {"zaqar": section},
        });
        let document = ValidDocument::check(body.to_string().into(), DOCUMENT_BYTES_MAX).unwrap();
        let message = NewMessage {
            body: document.body().clone(),
            ttl_s: 60,
            document: Some(document.into()),
        };
        let agent = format!("vm-{number}").parse().unwrap();
        let (user, client) = (Some("heat".to_owned()), String::new());
        let post = QueueWrite::Post {
            queue: queue.clone(),
            user,
            client,
            messages: vec![message],
            now_unix_ms: 1,
        };
        let bind = QueueWrite::Bind { queue, agent, owner: None, now_unix_ms: 1 };
        for write in [post, bind] {
            writer.write(Write::Queue(write)).await.unwrap();
        }
    }
}

/// A Keystone that does not answer before it is told to, or all who may tell it are gone.
fn hanging(go: Receiver<()>) -> HttpServer {
    let go = Mutex::new(go);
    HttpServer::start(move |_| {
        let _ = go.lock().unwrap_or_else(PoisonError::into_inner).recv();
        Answer::new(503, "")
    })
}

#[tokio::test]
async fn notes_are_taken_in_while_every_question_hangs() {
    let (go, wait) = channel();
    let keystone = hanging(wait);
    let store = Store::new(Arc::new(MemoryBackend::default())).unwrap();
    let (writer, thread) = Writer::start(store.clone(), Box::new(|_, _| {})).unwrap();
    make_doubtful(QUESTIONS_MAX + 2, &writer).await;
    let cloud = Keystone::new(&keystone.url("/v3"), Trust::Machine, None);
    let cloud = Some(Arc::new(Cloud::new(Arc::new(cloud), DOCUMENT_BYTES_MAX)));
    let (handle, task) = Settler::start(store, writer, Arc::default(), cloud).unwrap();
    let patience = Duration::from_secs(30);
    let deadline = Instant::now() + patience;
    while keystone.asked().len() < QUESTIONS_MAX {
        assert!(Instant::now() < deadline, "nobody is asked");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // The two that are left are due as well.
    tokio::time::sleep(QUIET * 2).await;
    for _ in 0..NOTES_MAX {
        handle.note(queue("0"));
    }
    while handle.0.capacity() < NOTES_MAX {
        assert!(Instant::now() < deadline, "the notes stay where they are");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(keystone.asked().len(), QUESTIONS_MAX, "no more than may be");
    drop(go);
    drop(handle);
    tokio::time::timeout(patience, task).await.unwrap().unwrap();
    thread.stop();
}
