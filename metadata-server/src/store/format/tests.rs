//! What older programs wrote, and newer ones may have written.

use std::sync::Arc;

use certs::AgentId;

use super::*;
use crate::document::ValidDocument;
use crate::store::backend::Backend;
use crate::store::tests::{agent, contents, document, put};
use crate::store::{MemoryBackend, Outcome, Store};

fn head(of: &ValidDocument, version: u64) -> Vec<u8> {
    serde_json::to_vec(&DocumentHead {
        version,
        sha256: Hex32(of.sha256()),
        bytes: of.body().len() as u64,
        deployments: 1,
        accepted_unix_ms: 1,
    })
    .unwrap()
}

fn rows_of(backend: &MemoryBackend, table: Table) -> Vec<Row> {
    let mut all = Vec::new();
    backend
        .read(&mut |view| {
            view.scan(table, &[], &mut |key, value| {
                all.push((key.to_vec(), value.to_vec()));
                Ok(true)
            })
        })
        .unwrap();
    all
}

#[test]
fn a_store_of_a_newer_program_is_refused() {
    let backend = Arc::new(MemoryBackend::default());
    backend.write(0, &mut |tx| tx.put(Table::Meta, b"format", &4u64.to_be_bytes())).unwrap();
    let error = Store::new(backend.clone()).err().unwrap();
    assert_eq!(error, StoreError::Format { found: 4, known: 3 });
    let left = rows_of(&backend, Table::Meta);
    assert_eq!(left, [(b"format".to_vec(), 4u64.to_be_bytes().to_vec())], "not touched");
}

#[test]
fn a_store_of_format_1_is_brought_up_to_date() {
    let backend = Arc::new(MemoryBackend::default());
    let (one, two) = (document("one"), document("two"));
    backend
        .write(0, &mut |tx| {
            tx.put(Table::Meta, b"format", &1u64.to_be_bytes())?;
            for (agent, present, version) in [(b"a", &two, 2u64), (b"b", &two, 1), (b"c", &one, 1)]
            {
                tx.put(Table::Heads, agent, &head(present, version))?;
                tx.put(Table::Bodies, agent, present.body())?;
                tx.put(Table::Versions, agent, &version.to_be_bytes())?;
            }
            tx.put(Table::Bases, b"a", &[&one.sha256()[..], one.body()].concat())
        })
        .unwrap();
    for _ in 0..2 {
        let store = Store::new(backend.clone()).unwrap();
        for (id, present) in [("a", &two), ("b", &two), ("c", &one)] {
            assert_eq!(store.document(&agent(id)).unwrap().unwrap().body, present.body());
        }
        let base = store.base(&agent("a"), Hex32(one.sha256())).unwrap();
        assert_eq!(base.as_ref(), Some(one.body()));
        let expected = [(one.body().to_vec(), 2), (two.body().to_vec(), 2)];
        assert_eq!(contents(&backend), expected);
    }
}

#[test]
fn a_store_of_format_2_is_brought_up_to_date() {
    let backend = Arc::new(MemoryBackend::default());
    let (one, two) = (document("one"), document("two"));
    let known = AgentRecord {
        agent_id: agent("b"),
        software: "agent-client 0.1.0".into(),
        boot_id: "a boot".into(),
        remote: "127.0.0.1:1".into(),
        connected_unix_ms: 5,
        seen_unix_ms: 6,
        delivered_version: Some(2),
        applied_version: None,
    };
    backend
        .write(0, &mut |tx| {
            tx.put(Table::Meta, b"format", &2u64.to_be_bytes())?;
            // A version was raised for "a", which has no document; "b" has had another before.
            for (agent, last) in [(b"a", 7u64), (b"b", 4), (b"c", 1)] {
                tx.put(Table::Versions, agent, &last.to_be_bytes())?;
            }
            tx.put(Table::Heads, b"b", &head(&two, 4))?;
            tx.put(Table::Heads, b"c", &head(&one, 1))?;
            tx.put(Table::Bases, b"b", &one.sha256())?;
            for (of, uses) in [(&one, 2u64), (&two, 1)] {
                tx.put(Table::Contents, &of.sha256(), of.body())?;
                tx.put(Table::ContentUses, &of.sha256(), &uses.to_be_bytes())?;
            }
            tx.put(Table::Agents, b"b", &serde_json::to_vec(&known).unwrap())
        })
        .unwrap();
    for _ in 0..2 {
        let store = Store::new(backend.clone()).unwrap();
        let heads = store.document_heads().unwrap();
        let versions: Vec<_> =
            heads.iter().map(|(agent, head)| (AgentId::as_str(agent), head.version)).collect();
        assert_eq!(versions, [("b", 4), ("c", 1)]);
        assert_eq!(store.document(&agent("b")).unwrap().unwrap().body, two.body());
        let base = store.base(&agent("b"), Hex32(one.sha256())).unwrap();
        assert_eq!(base.as_ref(), Some(one.body()));
        assert_eq!(store.agents().unwrap(), std::slice::from_ref(&known));
        let expected = [(one.body().to_vec(), 2), (two.body().to_vec(), 1)];
        assert_eq!(contents(&backend), expected);
        for old in [Table::Heads, Table::Versions, Table::Bases] {
            assert_eq!(rows_of(&backend, old), []);
        }
    }
    let store = Store::new(backend).unwrap();
    let Outcome::Document { document, .. } = store.one(put("a", "one")) else { panic!() };
    assert_eq!(document.head.version, 8, "no version is given twice");
}

#[test]
fn a_store_that_cannot_be_brought_up_to_date_stays_as_it_is() {
    let backend = Arc::new(MemoryBackend::default());
    backend
        .write(0, &mut |tx| {
            tx.put(Table::Meta, b"format", &2u64.to_be_bytes())?;
            tx.put(Table::Heads, b"a", &head(&document("one"), 1))?;
            tx.put(Table::Heads, b"b", b"{")
        })
        .unwrap();
    let error = Store::new(backend.clone()).err().unwrap();
    assert_eq!(error.code(), "store_damaged", "{error}");
    assert_eq!(rows_of(&backend, Table::Heads).len(), 2);
    assert_eq!(rows_of(&backend, Table::Given), []);
    assert_eq!(rows_of(&backend, Table::Meta)[0].1, 2u64.to_be_bytes());
}
