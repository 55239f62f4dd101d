//! The same tests for every back end, then what only the file has: restarts, full disks, modes.

use bytes::Bytes;
use certs::EnrolmentToken;
use metadata_delivery::message::{DeploymentResult, Hex32, ResultStatus};

use super::*;
use crate::document::{DOCUMENT_BYTES_MAX, ValidDocument};

pub(super) fn agent(id: &str) -> AgentId {
    id.parse().unwrap()
}

fn fingerprint(byte: u8) -> Fingerprint {
    Fingerprint::from_bytes([byte; 32])
}

pub(super) fn document(text: &str) -> ValidDocument {
    let body = format!("{{\"deployments\": [], \"x\": \"{text}\"}}");
    ValidDocument::check(Bytes::from(body), DOCUMENT_BYTES_MAX).unwrap()
}

pub(super) fn put(id: &str, text: &str) -> Write {
    Write::PutDocument { agent: agent(id), document: document(text), accepted_unix_ms: 1 }
}

/// The agent has this version.
pub(super) fn delivered(id: &str, version: u64) -> Write {
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
        self.commit(&[write]).unwrap().pop().unwrap()
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
fn lookups_under_one_snapshot_see_nothing_that_is_written_meanwhile_and_share_a_document() {
    on_every_backend(|store| {
        let agents = ["a", "b", "c"].map(agent);
        let write = |text| Write::PutDocuments {
            agents: agents.to_vec(),
            document: document(text),
            accepted_unix_ms: 1,
        };
        store.one(write("one"));
        store.one(delivered("b", 1));
        let bodies: Vec<Bytes> = store
            .view(|view| {
                assert_eq!(view.standing(&agents[0])?, None);
                assert_eq!(view.standing(&agents[1])?.unwrap().delivered_version, Some(1));
                assert_eq!(view.document_head(&agents[2])?.unwrap().version, 1);
                assert_eq!(view.document(&agent("none"))?, None);
                agents.iter().map(|id| Ok(view.document(id)?.unwrap().body)).collect()
            })
            .unwrap();
        for body in &bodies {
            assert_eq!(body, document("one").body());
            assert_eq!(body.as_ptr(), bodies[0].as_ptr(), "read once");
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let backend = RedbBackend::open(&folder.path().join("store.redb")).unwrap();
    let store = Store::new(Arc::new(backend)).unwrap();
    store.one(put("a", "one"));
    store
        .view(|view| {
            assert_eq!(view.document_head(&agent("a"))?.unwrap().version, 1);
            store.one(put("a", "two"));
            store.one(put("b", "one"));
            assert_eq!(view.document(&agent("a"))?.unwrap().body, document("one").body());
            assert_eq!(view.document_head(&agent("b"))?, None);
            Ok(())
        })
        .unwrap();
    assert_eq!(store.document_head(&agent("a")).unwrap().unwrap().version, 2);
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

/// What documents are stored, with how often they are used.
pub(super) fn contents(backend: &MemoryBackend) -> Vec<(Vec<u8>, u64)> {
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
