//! The same tests for every back end, then what only the file has: restarts, full disks, modes.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use certs::EnrolmentToken;
use metadata_delivery::message::{DeploymentResult, Hex32, ResultStatus};

use super::writer::Writer;
use super::*;
use crate::document::{DOCUMENT_BYTES_MAX, ValidDocument};

pub(super) fn agent(id: &str) -> AgentId {
    id.parse().unwrap()
}

fn fingerprint(byte: u8) -> Fingerprint {
    Fingerprint::from_bytes([byte; 32])
}

fn document(text: &str) -> ValidDocument {
    let body = format!("{{\"deployments\": [], \"x\": \"{text}\"}}");
    ValidDocument::check(Bytes::from(body), DOCUMENT_BYTES_MAX).unwrap()
}

fn put(id: &str, text: &str) -> Write {
    Write::PutDocument { agent: agent(id), document: document(text), accepted_unix_ms: 1 }
}

/// The agent has this version.
fn delivered(id: &str, version: u64) -> Write {
    Write::SaveAgent(AgentRecord {
        agent_id: agent(id),
        software: String::new(),
        boot_id: String::new(),
        remote: String::new(),
        connected_unix_ms: 0,
        seen_unix_ms: 0,
        delivered_version: Some(version),
        applied_version: None,
    })
}

/// A document that lists these configs.
fn put_listing(id: &str, configs: &[&str]) -> Write {
    let entries: Vec<String> = configs.iter().map(|c| format!("{{\"id\": \"{c}\"}}")).collect();
    let body = format!("{{\"deployments\": [{}]}}", entries.join(", "));
    let document = ValidDocument::check(Bytes::from(body), DOCUMENT_BYTES_MAX).unwrap();
    Write::PutDocument { agent: agent(id), document, accepted_unix_ms: 1 }
}

fn kept(number: u64, is_new: bool, dropped: &[(u64, &str)]) -> Outcome {
    let dropped = dropped
        .iter()
        .map(|(number, config_id)| Dropped { number: *number, config_id: (*config_id).into() })
        .collect();
    Outcome::Result(Kept { number, is_new, dropped })
}

fn result(config_id: &str, stdout: &str) -> DeploymentResult {
    DeploymentResult {
        config_id: config_id.into(),
        name: "n".into(),
        group: "script".into(),
        action: "CREATE".into(),
        document_version: 1,
        status: ResultStatus::Complete,
        deploy_stdout: stdout.into(),
        deploy_stderr: String::new(),
        deploy_status_code: 0,
        outputs: serde_json::Map::new(),
        reason: None,
        started_unix_ms: 1,
        finished_unix_ms: 2,
        rerun: None,
    }
}

pub(super) fn save(id: &str, config_id: &str, stdout: &str, per_agent_max: u64) -> Write {
    let result = Arc::new(result(config_id, stdout));
    let sha256 = crate::document::sha256(&serde_json::to_vec(&*result).unwrap());
    Write::SaveResult {
        agent: agent(id),
        bytes: stdout.len(),
        result,
        sha256,
        stored_unix_ms: 3,
        per_agent_max,
        signal: false,
    }
}

fn token(id: &str, expires_unix: u64) -> (String, Write) {
    let (token, record) =
        EnrolmentToken::issue(vec!["a.example:1".into()], fingerprint(0), agent(id), expires_unix)
            .unwrap();
    (token.token_id.to_string(), Write::IssueToken { record, now_unix_s: 0 })
}

fn enrol(token_id: &str, seen: u8, now_unix_ms: u64) -> Write {
    let fingerprint = fingerprint(seen);
    Write::Enrol { token_id: token_id.into(), fingerprint, asker: 1, now_unix_ms }
}

impl Store {
    pub(super) fn one(&self, write: Write) -> Outcome {
        self.commit(std::slice::from_ref(&write)).unwrap().pop().unwrap()
    }

    fn version(&self, write: Write) -> (u64, bool) {
        match self.one(write) {
            Outcome::Document { document, is_new } => (document.head.version, is_new),
            other => panic!("{other:?}"),
        }
    }

    fn numbers(&self, id: Option<&str>, after: u64, limit: usize) -> (Vec<u64>, Option<u64>) {
        let page = self.results(&ResultsQuery { agent: id.map(agent), after, limit }).unwrap();
        (page.results.iter().map(|r| r.number).collect(), page.next_after)
    }
}

pub(super) fn on_every_backend(test: impl Fn(Store)) {
    test(Store::new(Arc::new(MemoryBackend::default())).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let backend = RedbBackend::open(&folder.path().join("store.redb")).unwrap();
    test(Store::new(Arc::new(backend)).unwrap());
}

#[test]
fn versions_rise_per_agent_and_the_same_document_keeps_its_version() {
    on_every_backend(|store| {
        assert_eq!(store.version(put("a", "one")), (1, true));
        assert_eq!(store.version(put("a", "one")), (1, false));
        assert_eq!(store.version(put("a", "two")), (2, true));
        assert_eq!(store.version(put("b", "one")), (1, true));
        assert_eq!(store.version(put("a", "one")), (3, true), "back to an older text");
        let stored = store.document(&agent("a")).unwrap().unwrap();
        assert_eq!(stored.body, document("one").body());
        assert_eq!(stored.head.sha256, Hex32(document("one").sha256()));
        let heads = store.document_heads().unwrap();
        let heads: Vec<_> = heads.iter().map(|(a, h)| (a.as_str(), h.version)).collect();
        assert_eq!(heads, [("a", 3), ("b", 1)]);
        assert_eq!(store.document(&agent("c")).unwrap(), None);
    });
}

#[test]
fn the_document_that_an_agent_holds_is_kept_when_it_is_replaced() {
    on_every_backend(|store| {
        let base = |text| store.base(&agent("a"), Hex32(document(text).sha256())).unwrap();
        let delivered = |version| store.one(delivered("a", version));
        store.one(put("a", "one"));
        assert_eq!(base("one").as_ref(), Some(document("one").body()), "the present one");
        delivered(1);
        // Two come before the agent has the next: what it holds is what counts.
        store.one(put("a", "two"));
        store.one(put("a", "three"));
        assert_eq!(base("one").as_ref(), Some(document("one").body()));
        assert_eq!(base("two"), None);
        delivered(3);
        store.one(put("a", "four"));
        assert_eq!(base("three").as_ref(), Some(document("three").body()));
        assert_eq!(base("one"), None, "one per agent");
        assert_eq!(store.base(&agent("b"), Hex32(document("three").sha256())).unwrap(), None);
    });
}

#[test]
fn versions_go_on_above_what_an_agent_already_holds() {
    on_every_backend(|store| {
        store.one(put("a", "one"));
        let raise = |held, text| Write::RaiseVersion {
            agent: agent("a"),
            held,
            held_sha256: Hex32(document(text).sha256()),
        };
        assert_eq!(store.version(raise(7, "lost")), (8, true), "differs: given a newer version");
        assert_eq!(store.version(raise(12, "one")), (8, false), "the same: nothing to send");
        assert_eq!(store.version(put("a", "two")), (13, true));
        assert_eq!(store.one(raise(u64::MAX, "lost")), Outcome::Done, "not believed");
        assert_eq!(store.version(put("a", "three")), (14, true));
    });
}

#[test]
fn a_token_pins_once_and_in_place_of_older_pins() {
    on_every_backend(|store| {
        let (first, issue) = token("a", 100);
        store.one(issue);
        assert_eq!(
            store.one(enrol(&first, 1, 99_000)),
            Outcome::Enrolment(Enrolment::Done { agent: agent("a"), replaced: vec![] })
        );
        assert_eq!(store.one(enrol(&first, 2, 99_000)), Outcome::Enrolment(Enrolment::Used));
        let again = Enrolment::Done { agent: agent("a"), replaced: vec![] };
        assert_eq!(
            store.one(enrol(&first, 1, 99_000)),
            Outcome::Enrolment(again),
            "an agent that was cut off may ask again"
        );
        assert_eq!(store.one(enrol("none", 2, 99_000)), Outcome::Enrolment(Enrolment::Unknown));
        let (late, issue) = token("a", 100);
        store.one(issue);
        assert_eq!(store.one(enrol(&late, 2, 100_000)), Outcome::Enrolment(Enrolment::Expired));
        let (other, issue) = token("b", 100);
        store.one(issue);
        assert_eq!(
            store.one(enrol(&other, 1, 5)),
            Outcome::Enrolment(Enrolment::FingerprintTaken { by: agent("a") })
        );
        let (again, issue) = token("a", 100);
        store.one(issue);
        assert_eq!(
            store.one(enrol(&again, 3, 5)),
            Outcome::Enrolment(Enrolment::Done {
                agent: agent("a"),
                replaced: vec![fingerprint(1)]
            })
        );
        assert_eq!(store.pins_of(&agent("a")).unwrap(), [fingerprint(3)]);
    });
}

#[test]
fn tokens_that_ended_long_ago_are_forgotten() {
    on_every_backend(|store| {
        let (old, issue) = token("a", 100);
        store.one(issue);
        let (new, issue) = token("a", 2_000_000);
        let Write::IssueToken { record, .. } = issue else { unreachable!() };
        store.one(Write::IssueToken { record, now_unix_s: 1_000_000 });
        assert!(store.token(&old).unwrap().is_none());
        assert!(store.token(&new).unwrap().is_some());
    });
}

#[test]
fn a_pin_belongs_to_one_agent() {
    on_every_backend(|store| {
        let pin = |id, seen| {
            Write::AddPin(PinRecord {
                fingerprint: fingerprint(seen),
                agent_id: agent(id),
                origin: PinOrigin::Admin,
                added_unix_ms: 1,
            })
        };
        assert_eq!(store.one(pin("a", 1)), Outcome::Pin { taken_by: None });
        assert_eq!(store.one(pin("a", 2)), Outcome::Pin { taken_by: None });
        assert_eq!(store.one(pin("b", 1)), Outcome::Pin { taken_by: Some(agent("a")) });
        assert_eq!(store.pins_of(&agent("a")).unwrap().len(), 2);
        let unpin = |id| Write::RemovePin { agent: agent(id), fingerprint: fingerprint(1) };
        assert_eq!(store.one(unpin("b")), Outcome::Unpin { removed: false }, "not its own");
        assert_eq!(store.one(unpin("a")), Outcome::Unpin { removed: true });
        assert_eq!(store.one(unpin("a")), Outcome::Unpin { removed: false });
    });
}

#[test]
fn of_many_pins_all_are_added_or_none() {
    on_every_backend(|store| {
        fn pin(&(id, seen): &(&str, u8)) -> PinRecord {
            PinRecord {
                fingerprint: fingerprint(seen),
                agent_id: agent(id),
                origin: PinOrigin::Admin,
                added_unix_ms: 1,
            }
        }
        let add = |pins: &[(&str, u8)]| store.one(Write::AddPins(pins.iter().map(pin).collect()));
        let added = |added| Outcome::Pins { added, taken: None };
        assert_eq!(add(&[("web-1", 1), ("web-1", 2), ("web-2", 3), ("web-2", 3)]), added(3));
        assert_eq!(add(&[("web-1", 1), ("db-1", 4)]), added(1));
        let taken =
            |seen, by| Outcome::Pins { added: 0, taken: Some((fingerprint(seen), agent(by))) };
        assert_eq!(add(&[("c", 5), ("c", 3)]), taken(3, "web-2"));
        assert_eq!(add(&[("c", 5), ("d", 5)]), taken(5, "c"), "within the list");
        assert!(store.pins_of(&agent("c")).unwrap().is_empty());
        let ids = |prefix| {
            let agents = store.pinned_agents(prefix).unwrap();
            agents.iter().map(AgentId::to_string).collect::<Vec<_>>()
        };
        assert_eq!(ids("web-"), ["web-1", "web-2"], "each once, however many pins it has");
        assert_eq!(ids(""), ["db-1", "web-1", "web-2"]);
        assert!(ids("web-3").is_empty());
    });
}

#[test]
fn one_document_for_many_is_new_for_those_alone_who_did_not_have_it() {
    on_every_backend(|store| {
        store.one(put("a", "one"));
        store.one(put("b", "two"));
        let agents = ["a", "b", "c"].map(agent).to_vec();
        let document = document("two");
        let write = Write::PutDocuments { agents, document: document.clone(), accepted_unix_ms: 2 };
        let Outcome::Documents(new) = store.one(write.clone()) else { panic!() };
        let versions: Vec<(String, u64)> =
            new.iter().map(|(agent, new)| (agent.to_string(), new.head.version)).collect();
        assert_eq!(versions, [("a".into(), 2), ("c".into(), 1)]);
        for id in ["a", "b", "c"] {
            assert_eq!(store.document(&agent(id)).unwrap().unwrap().body, document.body());
        }
        assert_eq!(store.one(write), Outcome::Documents(vec![]));
    });
}

#[test]
fn results_are_kept_once_per_agent_and_listed_in_pages() {
    on_every_backend(|store| {
        for (id, config_id) in [("a", "x"), ("ab", "x"), ("a", "y"), ("a", "x")] {
            store.one(save(id, config_id, "out", 100));
        }
        assert_eq!(store.one(save("a", "y", "out", 100)), kept(3, false, &[]));
        assert_eq!(
            store.one(save("a", "y", "other", 100)),
            kept(4, true, &[]),
            "another run of the same config is another result"
        );
        assert_eq!(store.numbers(None, 0, 10), (vec![1, 2, 3, 4], None));
        assert_eq!(store.numbers(None, 0, 2), (vec![1, 2], Some(2)));
        assert_eq!(store.numbers(None, 2, 2), (vec![3, 4], None));
        assert_eq!(store.numbers(Some("a"), 0, 2), (vec![1, 3], Some(3)));
        assert_eq!(store.numbers(Some("a"), 3, 2), (vec![4], None));
        assert_eq!(store.numbers(Some("ab"), 0, 2), (vec![2], None), "not those of \"a\"");
        assert_eq!(store.numbers(Some("c"), 0, 2), (vec![], None));
    });
}

#[test]
fn the_oldest_results_of_an_agent_make_room_for_its_newest() {
    on_every_backend(|store| {
        for n in 0..5 {
            store.one(save("a", &format!("c{n}"), "", 3));
            store.one(save("b", &format!("c{n}"), "", 100));
        }
        assert_eq!(store.numbers(Some("a"), 0, 10).0, [5, 7, 9]);
        assert_eq!(store.numbers(Some("b"), 0, 10).0, [2, 4, 6, 8, 10]);
        assert_eq!(
            store.one(save("a", "c0", "", 3)),
            kept(11, true, &[(5, "c2")]),
            "a forgotten result is new again"
        );
    });
}

#[test]
fn the_newest_result_of_a_listed_config_is_kept_however_many_come_after_it() {
    on_every_backend(|store| {
        store.one(put_listing("a", &["c1", "c2"]));
        store.one(save("a", "c1", "first", 2));
        store.one(save("a", "c1", "second", 2));
        assert_eq!(store.one(save("a", "c2", "", 2)), kept(3, true, &[(1, "c1")]));
        for n in 4..8 {
            let dropped: &[_] = if n == 4 { &[] } else { &[(n - 1, "gone")] };
            let result = store.one(save("a", "gone", &n.to_string(), 2));
            assert_eq!(result, kept(n, true, dropped), "the one just saved stays");
        }
        assert_eq!(store.numbers(Some("a"), 0, 10).0, [2, 3, 7]);
        // Once they are listed no more, they make room like all others.
        store.one(put_listing("a", &["gone"]));
        let result = store.one(save("a", "gone", "last", 2));
        assert_eq!(result, kept(8, true, &[(2, "c1"), (3, "c2")]));
        assert_eq!(store.numbers(Some("a"), 0, 10).0, [7, 8]);
    });
}

#[test]
fn a_page_of_results_ends_after_a_few_megabytes() {
    on_every_backend(|store| {
        for n in 0..6 {
            store.one(save("a", &format!("c{n}"), &"x".repeat(1_000_000), 100));
        }
        assert_eq!(store.numbers(Some("a"), 0, 100), (vec![1, 2, 3, 4, 5], Some(5)));
        assert_eq!(store.numbers(None, 5, 100), (vec![6], None));
    });
}

#[test]
fn a_file_holds_everything_after_a_restart_and_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state/store.redb");
    let open = || Store::new(Arc::new(RedbBackend::open(&path).unwrap())).unwrap();
    let store = open();
    store.one(put("a", "one"));
    store.one(save("a", "x", "out", 9));
    drop(store);
    let store = open();
    assert_eq!(store.version(put("a", "one")), (1, false));
    assert_eq!(store.version(put("a", "two")), (2, true));
    assert_eq!(store.numbers(Some("a"), 0, 9).0, [1]);
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
}

#[test]
fn a_file_in_use_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let _first = RedbBackend::open(&path).unwrap();
    let error = RedbBackend::open(&path).err().unwrap();
    assert_eq!(error, StoreError::InUse { path });
}

#[test]
fn a_file_that_is_no_store_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    std::fs::write(&path, "something else, longer than a header".repeat(100)).unwrap();
    let error = RedbBackend::open(&path).err().unwrap();
    assert_eq!(error.code(), "store_damaged", "{error}");
    assert!(std::fs::read_to_string(&path).unwrap().starts_with("something else"));
}

#[test]
fn a_store_of_a_newer_program_is_refused() {
    let backend = Arc::new(MemoryBackend::default());
    backend
        .write(0, &mut |tx| tx.put(backend::Table::Meta, b"format", &3u64.to_be_bytes()))
        .unwrap();
    let error = Store::new(backend).err().unwrap();
    assert_eq!(error, StoreError::Format { found: 3, known: 2 });
}

/// What documents are stored, with how often they are used.
fn contents(backend: &MemoryBackend) -> Vec<(Vec<u8>, u64)> {
    use backend::{Backend, Table};
    let mut all = Vec::new();
    backend
        .read(&mut |view| {
            view.scan(Table::Contents, &[], &mut |digest, body| {
                let uses = view.get(Table::ContentUses, digest)?.unwrap();
                all.push((body.to_vec(), u64::from_be_bytes(uses.try_into().unwrap())));
                Ok(true)
            })
        })
        .unwrap();
    all.sort();
    all
}

#[test]
fn a_store_of_format_1_is_brought_up_to_date() {
    use backend::{Backend, Table};
    let backend = Arc::new(MemoryBackend::default());
    let (one, two) = (document("one"), document("two"));
    let head = |of: &ValidDocument, version| {
        serde_json::to_vec(&DocumentHead {
            version,
            sha256: Hex32(of.sha256()),
            bytes: of.body().len() as u64,
            deployments: 1,
            accepted_unix_ms: 1,
        })
        .unwrap()
    };
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
fn a_document_is_stored_once_and_until_nobody_has_it() {
    let backend = Arc::new(MemoryBackend::default());
    let store = Store::new(backend.clone()).unwrap();
    let stored = || -> Vec<(String, u64)> {
        let names = |body: Vec<u8>| {
            let known = ["one", "two"].into_iter().find(|name| document(name).body()[..] == body);
            known.unwrap().to_owned()
        };
        contents(&backend).into_iter().map(|(body, uses)| (names(body), uses)).collect()
    };
    let is = |name: &str, uses| (name.to_owned(), uses);
    store.one(put("a", "one"));
    store.one(put("b", "one"));
    store.one(put("b", "one"));
    assert_eq!(stored(), [is("one", 2)]);
    // "a" is known to hold it, so a delta can build on it; "b" is not.
    store.one(delivered("a", 1));
    store.one(put("a", "two"));
    store.one(put("b", "two"));
    assert_eq!(stored(), [is("one", 1), is("two", 2)]);
    store.one(delivered("a", 2));
    store.one(put("a", "one"));
    assert_eq!(stored(), [is("one", 1), is("two", 2)], "the one before the last is forgotten");
    let agents = ["a", "b"].map(agent).to_vec();
    let document = document("one");
    store.one(Write::PutDocuments { agents, document, accepted_unix_ms: 2 });
    assert_eq!(stored(), [is("one", 2), is("two", 1)]);
}

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
