//! What shares a transaction, what waits, and how it ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use bytes::Bytes;

use super::*;
use crate::document::{DOCUMENT_BYTES_MAX, ValidDocument};
use crate::store::tests::{agent, delivered, put};
use crate::store::{Backend, MemoryBackend, backend};

#[test]
fn writes_that_wait_share_a_transaction_and_one_that_fails_fails_alone() {
    /// A back end that counts its transactions, holds the first one until told, and has no room
    /// for the word "huge".
    struct Picky {
        memory: MemoryBackend,
        transactions: Mutex<usize>,
        gate: Mutex<std::sync::mpsc::Receiver<()>>,
    }
    struct PickyTx<'a>(&'a mut dyn backend::Transaction);
    impl backend::Snapshot for PickyTx<'_> {
        fn get(&self, t: backend::Table, k: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
            self.0.get(t, k)
        }
        fn scan(
            &self,
            t: backend::Table,
            from: &[u8],
            visit: &mut backend::Visit<'_>,
        ) -> Result<(), StoreError> {
            self.0.scan(t, from, visit)
        }
    }
    impl backend::Transaction for PickyTx<'_> {
        fn put(&mut self, t: backend::Table, k: &[u8], v: &[u8]) -> Result<(), StoreError> {
            if v.windows(4).any(|w| w == b"huge") {
                return Err(StoreError::Full { what: "test".into() });
            }
            self.0.put(t, k, v)
        }
        fn delete(&mut self, t: backend::Table, k: &[u8]) -> Result<(), StoreError> {
            self.0.delete(t, k)
        }
    }
    impl Backend for Picky {
        fn read(&self, job: &mut backend::ReadJob<'_>) -> Result<(), StoreError> {
            self.memory.read(job)
        }
        fn write(&self, bytes: usize, job: &mut backend::WriteJob<'_>) -> Result<(), StoreError> {
            let nth = {
                let mut transactions = self.transactions.lock().unwrap();
                *transactions += 1;
                *transactions
            };
            // 1 is the format; 2 the first write, during which the others queue up.
            if nth == 2 {
                self.gate.lock().unwrap().recv().unwrap();
            }
            self.memory.write(bytes, &mut |tx| job(&mut PickyTx(tx)))
        }
    }

    let (open_gate, gate) = std::sync::mpsc::channel();
    let backend = Arc::new(Picky {
        memory: MemoryBackend::default(),
        transactions: Mutex::new(0),
        gate: Mutex::new(gate),
    });
    let store = Store::new(backend.clone()).unwrap();
    let observed = Arc::new(Mutex::new(Vec::new()));
    let seen = observed.clone();
    let (writer, thread) = Writer::start(
        store.clone(),
        Box::new(move |write, _| {
            if let Write::PutDocument { agent, .. } = write {
                seen.lock().unwrap().push(agent.to_string());
            }
        }),
    )
    .unwrap();
    let (answer, answers) = std::sync::mpsc::channel();
    for (id, text) in [("a", "1"), ("b", "2"), ("c", "huge"), ("d", "4")] {
        let answer = answer.clone();
        writer.submit(put(id, text), move |outcome| answer.send((id, outcome)).unwrap());
    }
    open_gate.send(()).unwrap();
    thread.stop();
    drop(answer);
    let answers: Vec<_> = answers.iter().map(|(id, outcome)| (id, outcome.is_ok())).collect();
    assert_eq!(answers, [("a", true), ("b", true), ("c", false), ("d", true)]);
    assert_eq!(*observed.lock().unwrap(), ["a", "b", "d"], "told in the order of the writes");
    // format, "a", "b c d" which fails as one, then each of them alone.
    assert_eq!(*backend.transactions.lock().unwrap(), 6);
    assert!(store.document(&agent("c")).unwrap().is_none());

    let (answer, answers) = std::sync::mpsc::channel();
    writer.submit(put("e", "5"), move |outcome| answer.send(outcome).unwrap());
    assert_eq!(answers.recv().unwrap(), Err(StoreError::Closed), "after the stop");
}

#[test]
fn more_than_may_wait_is_refused_as_busy() {
    let store = Store::new(Arc::new(MemoryBackend::default())).unwrap();
    let blocked = Arc::new(AtomicBool::new(true));
    let hold = blocked.clone();
    let (writer, thread) = Writer::start(
        store,
        Box::new(move |_, _| {
            while hold.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
        }),
    )
    .unwrap();
    let big = ValidDocument::check(
        Bytes::from(format!("{{\"deployments\": [], \"x\": \"{}\"}}", "y".repeat(15 << 20))),
        DOCUMENT_BYTES_MAX,
    )
    .unwrap();
    let (answer, answers) = std::sync::mpsc::channel();
    for _ in 0..20 {
        let write =
            Write::PutDocument { agent: agent("a"), document: big.clone(), accepted_unix_ms: 1 };
        let answer = answer.clone();
        writer.submit(write, move |outcome| answer.send(outcome.map_err(|e| e.code())).unwrap());
    }
    // The refusals come at once, on this thread; the others wait for the observer.
    assert_eq!(answers.try_recv().unwrap(), Err("store_busy"));
    blocked.store(false, Ordering::Release);
    thread.stop();
    drop(answer);
    assert!(answers.iter().any(|a| a.is_ok()), "what was taken is done");
}

fn started() -> (Store, Writer, WriterThread) {
    let store = Store::new(Arc::new(MemoryBackend::default())).unwrap();
    let (writer, thread) = Writer::start(store.clone(), Box::new(|_, _| {})).unwrap();
    (store, writer, thread)
}

#[test]
fn what_nobody_waits_for_is_done_with_what_somebody_waits_for_and_in_each_agents_order() {
    let (store, writer, thread) = started();
    let ids = ["c", "a", "b"];
    for version in 1..=3 {
        for id in ids {
            writer.submit(delivered(id, version), drop);
        }
    }
    let (answer, answers) = mpsc::channel();
    writer.submit(put("d", "1"), move |outcome| answer.send(outcome).unwrap());
    answers.recv().unwrap().unwrap();
    for id in ids {
        assert_eq!(store.agent(&agent(id)).unwrap().unwrap().delivered_version, Some(3), "{id}");
    }
    thread.stop();
}

#[test]
fn what_nobody_waits_for_wakes_nobody_until_it_is_much() {
    let queue = Queue::default();
    let rests = |rest| queue.state().rest = rest;
    let is_woken = || queue.state().rest == Rest::Awake;
    rests(Rest::Lingering);
    for version in 1..BATCH_WRITES_MAX as u64 {
        queue.push(delivered("a", version), Box::new(drop));
        assert!(!is_woken());
    }
    queue.push(delivered("a", 1), Box::new(drop));
    assert!(is_woken(), "a transaction is full");
    let mut backlog = VecDeque::new();
    assert!(queue.take(&mut backlog));
    assert_eq!(backlog.len(), BATCH_WRITES_MAX);
    rests(Rest::Lingering);
    queue.push(delivered("a", 1), Box::new(drop));
    assert!(!is_woken());
    queue.push(put("a", "1"), Box::new(drop));
    assert!(is_woken(), "somebody waits");
    assert!(queue.take(&mut VecDeque::new()));
    rests(Rest::Idle);
    queue.push(delivered("a", 1), Box::new(drop));
    assert!(is_woken(), "or it would wait for ever");
}

#[test]
fn a_batch_of_what_nobody_waits_for_leaves_each_agent_at_its_last_write() {
    let (store, writer, thread) = started();
    for version in 1..=100 {
        for id in ["c", "a", "b"] {
            writer.submit(delivered(id, version), drop);
        }
    }
    thread.stop();
    for id in ["a", "b", "c"] {
        assert_eq!(store.agent(&agent(id)).unwrap().unwrap().delivered_version, Some(100));
    }
}

#[test]
fn the_thread_ends_with_the_last_who_could_hand_in_a_write_and_does_what_waits() {
    let (store, writer, thread) = started();
    let WriterThread { queue, thread } = thread;
    drop(queue);
    writer.clone().submit(delivered("a", 1), drop);
    drop(writer);
    thread.join().unwrap();
    assert!(store.agent(&agent("a")).unwrap().is_some());
}

#[test]
fn who_waits_for_a_thread_that_panicked_is_told() {
    let store = Store::new(Arc::new(MemoryBackend::default())).unwrap();
    let observer: Observer = Box::new(|_, _| panic!("as an observer should not"));
    let (writer, thread) = Writer::start(store, observer).unwrap();
    let (answer, answers) = mpsc::channel();
    writer.submit(put("a", "1"), drop);
    // Behind the one that panics, or after it.
    writer.submit(put("b", "1"), move |outcome| answer.send(outcome).unwrap());
    assert!(matches!(answers.recv(), Ok(Err(StoreError::Closed)) | Err(mpsc::RecvError)));
    thread.stop();
    let (answer, answers) = mpsc::channel();
    writer.submit(put("c", "1"), move |outcome| answer.send(outcome).unwrap());
    assert_eq!(answers.recv().unwrap(), Err(StoreError::Closed));
}
