//! The rows, and what a push to a fleet may cost.

use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::*;
use crate::document::DOCUMENT_BYTES_MAX;
use crate::store::backend::{Backend, ReadJob, Visit, WriteJob};
use crate::store::tests::{agent, delivered, document as text};
use crate::store::{MemoryBackend, Standing, Store, Write};

proptest! {
    #[test]
    fn a_row_is_read_as_it_was_written(
        last: u64,
        head in proptest::option::of(any::<(u64, [u8; 32], u64, u64, u64)>()),
        base in proptest::option::of(any::<[u8; 32]>()),
    ) {
        let document = head.map(|(version, sha256, bytes, deployments, accepted_unix_ms)| {
            let sha256 = Hex32(sha256);
            let head = DocumentHead { version, sha256, bytes, deployments, accepted_unix_ms };
            InForce { head, base: base.map(Hex32) }
        });
        let given = Given { last, document };
        let backend = MemoryBackend::default();
        backend.write(0, &mut |tx| {
            given.put(tx, b"a")?;
            assert_eq!(Given::of(tx, &agent("a"))?, given);
            Ok(())
        }).unwrap();
    }
}

#[test]
fn a_row_of_another_length_is_damaged_and_said_to_be() {
    let lengths = (0..200).filter(|bytes| Given::parse(&vec![7; *bytes]).is_ok());
    assert_eq!(lengths.collect::<Vec<_>>(), [8, 72, 104]);
    let error = Given::parse(&[7; 9]).unwrap_err();
    assert_eq!(error.to_string(), "the store is damaged: a record in given has 9 bytes");
}

/// Counts what is looked up and what is changed, by table.
#[derive(Default)]
struct Counting {
    memory: MemoryBackend,
    counts: Mutex<BTreeMap<(&'static str, Table), usize>>,
}

struct CountingTx<'a>(&'a mut dyn Transaction, &'a Counting);

impl CountingTx<'_> {
    fn count(&self, what: &'static str, table: Table) {
        *self.1.counts.lock().unwrap().entry((what, table)).or_default() += 1;
    }
}

impl Snapshot for CountingTx<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.count("get", table);
        self.0.get(table, key)
    }
    fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.count("scan", table);
        self.0.scan(table, from, visit)
    }
}

impl Transaction for CountingTx<'_> {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.count("put", table);
        self.0.put(table, key, value)
    }
    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), StoreError> {
        self.count("delete", table);
        self.0.delete(table, key)
    }
}

impl Backend for Counting {
    fn read(&self, job: &mut ReadJob<'_>) -> Result<(), StoreError> {
        self.memory.read(job)
    }
    fn write(&self, bytes: usize, job: &mut WriteJob<'_>) -> Result<(), StoreError> {
        self.memory.write(bytes, &mut |tx| job(&mut CountingTx(tx, self)))
    }
}

#[test]
fn a_push_to_a_fleet_costs_an_agent_two_lookups_and_one_change_and_the_document_one_look() {
    const AGENTS: usize = 100;
    let backend = Arc::new(Counting::default());
    let store = Store::new(backend.clone()).unwrap();
    let agents: Vec<AgentId> = (0..AGENTS).map(|n| agent(&format!("a{n}"))).collect();
    let push = |document| {
        let agents = agents.clone();
        store.one(Write::PutDocuments { agents, document, accepted_unix_ms: 1 })
    };
    push(text("one"));
    for agent in &agents {
        store.one(delivered(agent.as_str(), 1));
    }
    backend.counts.lock().unwrap().clear();
    let Outcome::Documents(new) = push(text("two")) else { panic!() };
    assert_eq!(new.len(), AGENTS);
    let counts: Vec<_> = backend.counts.lock().unwrap().clone().into_iter().collect();
    let expected = [
        (("get", Table::Given), AGENTS),
        (("get", Table::Contents), 1),
        // Each of the two documents is counted once, whoever has it.
        (("get", Table::ContentUses), 2),
        (("get", Table::Standing), AGENTS),
        (("put", Table::Given), AGENTS),
        (("put", Table::Contents), 1),
        (("put", Table::ContentUses), 2),
    ];
    assert_eq!(counts, expected);
    backend.counts.lock().unwrap().clear();
    for agent in &agents {
        let standing = store.agent(agent).unwrap().unwrap().standing();
        let confirmed = Standing { delivered_version: Some(2), ..standing };
        store.one(Write::SaveStanding(agent.clone(), confirmed));
    }
    let counts: Vec<_> = backend.counts.lock().unwrap().clone().into_iter().collect();
    assert_eq!(counts, [(("put", Table::Standing), AGENTS)], "to confirm it is one change");
    for agent in &agents {
        let base = store.base(agent, Hex32(text("one").sha256())).unwrap();
        assert_eq!(base.as_ref(), Some(text("one").body()));
    }
}

fn listing(ids: &[&str]) -> ValidDocument {
    let inputs = r#"[{"name": "deploy_action", "value": "DELETE"}]"#;
    let entries: Vec<_> =
        ids.iter().map(|id| format!(r#"{{"id": "{id}", "inputs": {inputs}}}"#)).collect();
    let body = format!(r#"{{"deployments": [{}]}}"#, entries.join(", "));
    ValidDocument::check(Bytes::from(body), DOCUMENT_BYTES_MAX).unwrap()
}

#[test]
fn each_agent_of_a_push_keeps_what_leaves_its_own_document() {
    let backend = Arc::new(MemoryBackend::default());
    let store = Store::new(backend.clone()).unwrap();
    let push = |agents: &[&str], document| {
        let agents = agents.iter().map(|id| agent(id)).collect();
        store.one(Write::PutDocuments { agents, document, accepted_unix_ms: 1 });
    };
    push(&["a", "b"], listing(&["x", "y"]));
    push(&["c"], listing(&["y", "z"]));
    // More different documents than are remembered in one write, before and after those of "a".
    for n in 0..LEAVING_REMEMBERED_MAX {
        push(&[&format!("b{n}")], listing(&[&format!("of-{n}"), "y"]));
    }
    let agents = store.document_heads().unwrap().into_iter().map(|(agent, _)| agent);
    let agents: Vec<AgentId> = agents.collect();
    let document = listing(&["y"]);
    store.one(Write::PutDocuments { agents, document, accepted_unix_ms: 2 });
    let mut kept = Vec::new();
    let read = &mut |view: &dyn Snapshot| {
        view.scan(Table::Withdrawn, &[], &mut |key, _| {
            kept.push(String::from_utf8(key.to_vec()).unwrap());
            Ok(true)
        })
    };
    backend.read(read).unwrap();
    let mut expected: Vec<String> =
        (0..LEAVING_REMEMBERED_MAX).map(|n| format!("b{n}\0of-{n}")).collect();
    expected.extend(["a\0x", "b\0x", "c\0z"].map(str::to_owned));
    expected.sort();
    assert_eq!(kept, expected);
}
