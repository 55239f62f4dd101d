//! What is in memory against what the store says.

use std::sync::Arc;

use metadata_delivery::message::Hex32;

use super::*;
use crate::store::backend::Backend;
use crate::store::tests::{agent, delivered, document, on_every_backend, put};
use crate::store::{MemoryBackend, RedbBackend, Standing, Store, Write};

const AGENTS: [&str; 4] = ["a", "b", "c", "nobody"];

fn applied(id: &str, version: u64) -> Write {
    let standing = Standing {
        connected_unix_ms: 1,
        seen_unix_ms: 2,
        delivered_version: Some(version),
        applied_version: Some(version),
    };
    Write::SaveStanding(agent(id), standing)
}

fn in_the_store(store: &Store, id: &str) -> AtHand {
    let head = store.document_head(&agent(id)).unwrap();
    let standing = store.view(|view| view.standing(&agent(id))).unwrap();
    AtHand {
        document: head.map(|head| Holds { version: head.version, sha256: head.sha256 }),
        applied_version: standing.and_then(|standing| standing.applied_version),
    }
}

#[track_caller]
fn assert_same(store: &Store) {
    for id in AGENTS {
        assert_eq!(store.at_hand(&agent(id)), Some(in_the_store(store, id)), "{id}");
    }
}

fn everything() -> Vec<Write> {
    vec![
        put("a", "one"),
        delivered("a", 1),
        applied("a", 1),
        put("a", "two"),
        put("a", "two"),
        Write::PutDocuments {
            agents: ["a", "b", "c"].map(agent).to_vec(),
            document: document("three"),
            accepted_unix_ms: 2,
        },
        Write::RaiseVersion { agent: agent("b"), held: 9, held_sha256: Hex32([7; 32]) },
        Write::RaiseVersion { agent: agent("nobody"), held: 9, held_sha256: Hex32([7; 32]) },
        applied("b", 10),
        delivered("b", 10),
    ]
}

#[test]
fn what_is_at_hand_is_what_the_store_says_after_each_write() {
    on_every_backend(|store| {
        assert_same(&store);
        for write in everything() {
            store.one(write);
            assert_same(&store);
        }
        let now = store.at_hand(&agent("b")).unwrap();
        assert_eq!((now.document.unwrap().version, now.applied_version), (10, None));
        assert_eq!(store.at_hand(&agent("nobody")), Some(AtHand::default()));
    });
}

#[test]
fn what_is_at_hand_is_read_when_the_store_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let open = || {
        let backend = RedbBackend::open(&folder.path().join("store.redb")).unwrap();
        Store::new(Arc::new(backend)).unwrap()
    };
    let store = open();
    everything().into_iter().for_each(|write| drop(store.one(write)));
    let before = AGENTS.map(|id| store.at_hand(&agent(id)));
    drop(store);
    let store = open();
    assert_eq!(AGENTS.map(|id| store.at_hand(&agent(id))), before);
    assert_same(&store);
}

#[test]
fn what_is_not_committed_is_not_at_hand() {
    let backend = Arc::new(MemoryBackend::default());
    backend.write(0, &mut |tx| tx.put(Table::Given, b"b", &[1; 9])).unwrap();
    let store = Store::new(backend).unwrap();
    store.one(put("a", "one"));
    let before = store.at_hand(&agent("a"));
    assert!(store.commit(&[put("a", "two"), put("b", "two")]).is_err());
    assert_eq!(store.at_hand(&agent("a")), before);
    assert_eq!(before, Some(in_the_store(&store, "a")));
}

#[test]
fn of_a_damaged_row_nothing_is_at_hand() {
    let backend = Arc::new(MemoryBackend::default());
    backend
        .write(0, &mut |tx| {
            tx.put(Table::Given, b"a", &[1; 9])?;
            tx.put(Table::Standing, b"b", &[1; 31])?;
            tx.put(Table::Given, b"no agent's id", &[1; 9])
        })
        .unwrap();
    let store = Store::new(backend).unwrap();
    for id in ["a", "b"] {
        assert_eq!(store.at_hand(&agent(id)), None, "{id}");
    }
    store.one(put("b", "one"));
    assert_eq!(store.at_hand(&agent("b")), None, "the other row is still damaged");
    assert_eq!(store.at_hand(&agent("c")), Some(AtHand::default()));
}
