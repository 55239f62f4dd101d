//! The rows, and which of them change.

use std::sync::Arc;

use super::*;
use crate::store::backend::Backend;
use crate::store::tests::{agent, on_every_backend};
use crate::store::{MemoryBackend, Store, Write};

fn known(remote: &str, delivered_version: Option<u64>) -> AgentRecord {
    AgentRecord {
        agent_id: agent("a"),
        software: "agent-client \"x\" 0.1.0".into(),
        boot_id: "a boot".into(),
        remote: remote.into(),
        connected_unix_ms: 5,
        seen_unix_ms: 6,
        delivered_version,
        applied_version: Some(u64::MAX),
    }
}

#[test]
fn an_agent_is_read_as_it_was_saved_last() {
    on_every_backend(|store| {
        for record in [known("1", None), known("1", Some(3)), known("2", Some(3))] {
            store.one(Write::SaveAgent(record.clone()));
            assert_eq!(store.agent(&agent("a")).unwrap().as_ref(), Some(&record));
            assert_eq!(store.agents().unwrap(), [record]);
        }
        assert_eq!(store.agent(&agent("b")).unwrap(), None);
    });
}

#[test]
fn where_an_agent_stands_is_saved_without_the_rest() {
    on_every_backend(|store| {
        store.one(Write::SaveAgent(known("1", None)));
        let now = AgentRecord { seen_unix_ms: 7, ..known("1", Some(3)) };
        store.one(Write::SaveStanding(agent("a"), now.standing()));
        assert_eq!(store.agents().unwrap(), [now]);
        store.one(Write::SaveStanding(agent("b"), known("1", None).standing()));
        assert_eq!(store.agent(&agent("b")).unwrap(), None, "it was never saved");
        assert_eq!(store.agents().unwrap().len(), 1);
    });
}

#[test]
fn half_an_agent_is_damage_and_said_to_be() {
    let backend = Arc::new(MemoryBackend::default());
    let store = Store::new(backend.clone()).unwrap();
    store.one(Write::SaveAgent(known("1", None)));
    let saying = |what: &str| {
        let error = store.agents().unwrap_err();
        assert_eq!(error.to_string(), format!("the store is damaged: {what}"));
        assert_eq!(store.agent(&agent("a")).unwrap_err(), error);
    };
    backend.write(0, &mut |tx| tx.put(Table::Standing, b"a", &[1; 31])).unwrap();
    saying("a record in standing has 31 bytes");
    backend.write(0, &mut |tx| tx.put(Table::Standing, b"a", &[1; 40])).unwrap();
    saying("a record in standing has 40 bytes");
    backend.write(0, &mut |tx| tx.delete(Table::Standing, b"a")).unwrap();
    saying("agent a is in agents but not in standing");
}
