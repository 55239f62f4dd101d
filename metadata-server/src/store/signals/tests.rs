use metadata_delivery::message::WaitSignal;
use serde_json::json;

use super::super::backend::Table;
use super::super::tests::{agent, on_every_backend, save as save_only};
use super::super::{Outcome, Store, Write};
use super::*;
use crate::document::ValidDocument;

fn entry(id: &str, action: &str) -> Value {
    json!({"id": id, "inputs": [{"name": "deploy_action", "value": action}]})
}

fn put(store: &Store, deployments: &[Value], at: u64) {
    let body = json!({ "deployments": deployments }).to_string();
    let document = ValidDocument::check(body.into(), 1 << 20).unwrap();
    store.one(Write::PutDocument { agent: agent("a"), document, accepted_unix_ms: at });
}

fn save(id: &str, config_id: &str, stdout: &str, per_agent_max: u64) -> Write {
    let mut write = save_only(id, config_id, stdout, per_agent_max);
    if let Write::SaveResult { signal, .. } = &mut write {
        *signal = true;
    }
    write
}

fn wait(id: &str) -> WaitSignal {
    WaitSignal { id: id.into(), url: "http://h/?Signature=s".into(), body: "{}".into() }
}

fn queue(store: &Store, id: &str) -> SignalOutcome {
    let (agent, wait) = (agent("a"), wait(id));
    match store.one(Write::Signal(SignalWrite::QueueWait { agent, wait, now_unix_ms: 7 })) {
        Outcome::Signal(outcome) => outcome,
        other => panic!("{other:?}"),
    }
}

fn over(store: &Store, number: u64) {
    let state = SignalState::None { reason: "over".into() };
    let signal = Signal { state, attempts: 1 };
    store.one(Write::Signal(SignalWrite::Save { number, signal }));
}

#[test]
fn a_result_and_its_signal_are_stored_together_and_leave_together() {
    on_every_backend(|store| {
        store.one(save("a", "one", "x", 1));
        let waiting = store.waiting_signals().unwrap();
        assert_eq!(waiting, [(1, agent("a"), Signal::new(3))]);
        store.one(save("a", "two", "x", 1));
        let numbers = |store: &Store| {
            store.waiting_signals().unwrap().into_iter().map(|(n, ..)| n).collect::<Vec<_>>()
        };
        assert_eq!(numbers(&store), [1, 2], "a result whose signal waits makes no room");
        over(&store, 1);
        assert_eq!(numbers(&store), [2]);
        assert_eq!(store.signal(1).unwrap().unwrap().state.name(), "none");
        store.one(save("a", "three", "x", 1));
        assert_eq!(store.signal(1).unwrap(), None, "gone with its result");
        over(&store, 1);
        assert_eq!(store.signal(1).unwrap(), None, "and does not come back");
    });
}

#[test]
fn results_whose_signals_wait_are_bounded_too() {
    on_every_backend(|store| {
        for n in 0..10 {
            store.one(save("a", &n.to_string(), "x", 3));
        }
        assert!(store.waiting_signals().unwrap().len() <= 6);
    });
}

#[test]
fn the_same_result_again_is_not_signalled_again() {
    on_every_backend(|store| {
        store.one(save("a", "one", "x", 9));
        over(&store, 1);
        store.one(save("a", "one", "x", 9));
        assert!(store.waiting_signals().unwrap().is_empty());
    });
}

#[test]
fn a_deployment_of_action_delete_is_remembered_when_it_leaves_and_no_other() {
    on_every_backend(|store| {
        put(&store, &[entry("gone", "DELETE"), entry("stays", "DELETE"), entry("c", "CREATE")], 1);
        put(&store, &[entry("stays", "DELETE")], 2);
        for (number, id, remembered) in [(1, "gone", true), (2, "stays", false), (3, "c", false)] {
            store.one(save("a", id, "x", 9));
            assert_eq!(withdrawn(&store, number, 3).is_some(), remembered, "{id}");
        }
        // A day later it is forgotten as soon as another one leaves.
        put(&store, &[], 3 + WITHDRAWN_KEPT_MS);
        assert!(withdrawn(&store, 1, 3).is_none());
    });
}

/// What is remembered for the result with this number.
fn withdrawn(store: &Store, number: u64, now_unix_ms: u64) -> Option<Withdrawn> {
    match store.signal_job(number, now_unix_ms).unwrap().unwrap().what {
        SignalOf::Result { withdrawn, .. } => withdrawn,
        SignalOf::Wait(_) => panic!("no result"),
    }
}

#[test]
fn a_withdrawn_deployment_counts_for_a_day_and_then_its_passwords_are_swept_out() {
    on_every_backend(|store| {
        let count = WITHDRAWN_PER_AGENT_MAX;
        let entries: Vec<_> = (0..count).map(|n| entry(&n.to_string(), "DELETE")).collect();
        put(&store, &entries, 1);
        put(&store, &[], 2);
        store.one(save("a", "7", "x", 9));
        assert!(withdrawn(&store, 1, 2 + WITHDRAWN_KEPT_MS).is_some());
        assert!(withdrawn(&store, 1, 3 + WITHDRAWN_KEPT_MS).is_none(), "it is too old");

        let sweep = |from, now_unix_ms| {
            let write = SignalWrite::Sweep { from, now_unix_ms };
            store.one(Write::Signal(write))
        };
        let end = Outcome::Signal(SignalOutcome::Swept(None));
        assert_eq!(sweep(Vec::new(), 2 + WITHDRAWN_KEPT_MS), end);
        assert!(withdrawn(&store, 1, 2).is_some());
        assert_eq!(sweep(Vec::new(), 3 + WITHDRAWN_KEPT_MS), end);
        assert!(withdrawn(&store, 1, 2).is_none(), "it is gone");
    });
}

#[test]
fn a_sweep_of_many_withdrawn_deployments_goes_on_where_it_stopped() {
    on_every_backend(|store| {
        store
            .backend
            .write(0, &mut |tx| {
                for n in 0..2 * WITHDRAWN_SWEPT_PER_WRITE_MAX as u32 + 1 {
                    tx.put(Table::Withdrawn, &n.to_be_bytes(), b"{\"at_unix_ms\": 1}")?;
                }
                Ok(())
            })
            .unwrap();
        let (mut from, mut sweeps) = (Vec::new(), 0);
        loop {
            let write = SignalWrite::Sweep { from, now_unix_ms: 2 + WITHDRAWN_KEPT_MS };
            sweeps += 1;
            match store.one(Write::Signal(write)) {
                Outcome::Signal(SignalOutcome::Swept(Some(next))) => from = next,
                Outcome::Signal(SignalOutcome::Swept(None)) => break,
                other => panic!("{other:?}"),
            }
        }
        let mut left = 0;
        let mut count = |_: &[u8], _: &[u8]| {
            left += 1;
            Ok(true)
        };
        store.backend.read(&mut |view| view.scan(Table::Withdrawn, &[], &mut count)).unwrap();
        assert_eq!((left, sweeps), (0, 3));
    });
}

#[test]
fn of_a_withdrawn_deployment_only_heats_own_inputs_are_remembered_and_not_without_bound() {
    on_every_backend(|store| {
        let with = |id: &str, name: &str, bytes: usize| {
            let mut entry = entry(id, "DELETE");
            let input = json!({"name": name, "value": "x".repeat(bytes)});
            entry["inputs"].as_array_mut().unwrap().push(input);
            entry
        };
        let entries = [
            with("large", "data", 500_000),
            with("full", "deploy_data", WITHDRAWN_INPUTS_BYTES_MAX),
        ];
        put(&store, &entries, 1);
        put(&store, &[], 2);
        store.one(save("a", "large", "x", 9));
        store.one(save("a", "full", "x", 9));
        assert!(withdrawn(&store, 1, 3).unwrap().inputs.to_string().len() < 1_000);
        assert!(withdrawn(&store, 2, 3).is_none());
    });
}

#[test]
fn as_many_withdrawn_deployments_are_remembered_as_allowed() {
    on_every_backend(|store| {
        for round in 0..3u64 {
            let entries: Vec<_> =
                (0..200).map(|n| entry(&format!("{round}-{n}"), "DELETE")).collect();
            put(&store, &entries, round * 2);
            put(&store, &[], round * 2 + 1);
        }
        let mut kept = 0;
        for round in 0..3 {
            for n in 0..200 {
                store.one(save("a", &format!("{round}-{n}"), "x", 1000));
                let number = round * 200 + n + 1;
                kept += usize::from(withdrawn(&store, number, 7).is_some());
            }
        }
        assert_eq!(kept, WITHDRAWN_PER_AGENT_MAX);
    });
}

#[test]
fn signals_of_wait_conditions_are_queued_once_each_and_bounded_per_agent() {
    on_every_backend(|store| {
        assert_eq!(queue(&store, "x"), SignalOutcome::Queued { number: 1, is_new: true });
        assert_eq!(queue(&store, "x"), SignalOutcome::Queued { number: 1, is_new: false });
        for n in 1..WAITS_PER_AGENT_MAX {
            assert!(matches!(queue(&store, &n.to_string()), SignalOutcome::Queued { .. }));
        }
        assert_eq!(queue(&store, "one more"), SignalOutcome::TooMany);
        over(&store, 1);
        let queued = queue(&store, "one more");
        assert!(matches!(queued, SignalOutcome::Queued { is_new: true, .. }));
        let SignalOf::Wait(saved) = store.signal_job(2, 7).unwrap().unwrap().what else { panic!() };
        assert_eq!((saved.number, saved.wait), (2, wait("1")));
    });
}

#[test]
fn signals_of_wait_conditions_that_are_over_are_forgotten_in_time() {
    on_every_backend(|store| {
        for n in 0..WAITS_OVER_PER_AGENT_MAX + 20 {
            let SignalOutcome::Queued { number, .. } = queue(&store, &n.to_string()) else {
                panic!()
            };
            over(&store, number);
        }
        let known = store.wait_signals(&agent("a")).unwrap();
        assert_eq!(known.len(), WAITS_OVER_PER_AGENT_MAX);
        assert_eq!(known.last().unwrap().0.wait.id, (WAITS_OVER_PER_AGENT_MAX + 19).to_string());
        assert!(!format!("{:?}", known[0].0).contains("Signature"));
    });
}
