//! A crash at every point: the journal cut after every frame and within frames, with every document that
//! may be on disk at that time. No id runs twice, every id ends in a result.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use agent_client::control::Ask;
use agent_client::control::message::{Answer, Question};
use agent_client::document::ConfigId;
use agent_client::hooks::{Hooks, script};
use agent_client::journal::{Journal, Log, Record, State};
use agent_client::pipeline::{Command, Pipeline, Report, RunLimits, Setup};
use agent_client::store::{DocumentStore, StoredDocument};
use bytes::Bytes;
use metadata_delivery::message::DeploymentResult;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};

const PATIENCE: Duration = Duration::from_secs(60);

/// A machine: its state directory and the file into which scripts write their id.
struct Machine {
    dir: tempfile::TempDir,
    lanes_max: usize,
}

impl Machine {
    fn new(lanes_max: usize) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), lanes_max }
    }

    fn setup(&self) -> Setup {
        let path = |name: &str| self.dir.path().join(name);
        let directories = script::Directories::new(path("work"), path("outputs"));
        Setup {
            journal: path("journal"),
            document: path("document"),
            documents: path("documents"),
            signals: path("signals"),
            rollback: path("rollback.json"),
            status: path("status.json"),
            hooks: Hooks::new(vec![], None, directories, path("").display().to_string()),
            deployed: None,
            agent_id: Some("vm-1".into()),
            stop_wait: Duration::from_secs(1),
            limits: RunLimits { lanes_max: self.lanes_max, ..RunLimits::default() },
            hold_documents: false,
        }
    }

    fn ran(&self) -> Vec<String> {
        let text = fs::read_to_string(self.dir.path().join("ran")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// An agent's life: it gets these documents one after the other, each when the last has settled, and
    /// the server stores all results. Returns the results.
    fn live(&self, documents: &[(u64, Value)]) -> Vec<DeploymentResult> {
        self.live_with_rerun(documents, None)
    }

    /// As [`live`](Self::live), and then an operator has this config run once more.
    fn live_with_rerun(
        &self,
        documents: &[(u64, Value)],
        rerun: Option<&str>,
    ) -> Vec<DeploymentResult> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (reports_in, mut reports) = mpsc::unbounded_channel();
        let (progress, _watched) = watch::channel(None);
        let (commands, commands_out) = mpsc::unbounded_channel();
        let (pipeline, opened) = Pipeline::open(self.setup(), reports_in, progress).unwrap();
        let stored = |result: &DeploymentResult| {
            let id = ConfigId::new(&result.config_id).unwrap();
            Command::ResultStored { id, run: result.run() }
        };
        let found = opened.results.into_iter().map(|waiting| waiting.result);
        let mut results: Vec<DeploymentResult> = found.collect();
        for result in &results {
            commands.send(stored(result)).unwrap();
        }
        let server = async {
            for (version, document) in documents {
                let body = Bytes::from(self.with_paths(document));
                commands.send(Command::Document { version: *version, body }).unwrap();
                let (mut confirmed, mut settled) = (false, false);
                while !(confirmed && settled) {
                    match reports.recv().await.unwrap() {
                        Report::Held { .. }
                        | Report::Signal(_)
                        | Report::Log(_)
                        | Report::ResultOver { .. } => {}
                        Report::DocumentStored(holds) => confirmed |= holds.version == *version,
                        Report::Settled { version: v, .. } => settled |= v == *version,
                        Report::DocumentRefused { reason, .. } => panic!("refused: {reason}"),
                        Report::Result(waiting) => {
                            commands.send(stored(&waiting.result)).unwrap();
                            results.push(waiting.result);
                        }
                    }
                }
            }
            if let Some(name) = rerun {
                let question = Question::Rerun { name: name.into() };
                let (answer, answered) = oneshot::channel();
                let asked_by = "an operator".into();
                commands.send(Command::Ask(Ask { question, asked_by, answer })).unwrap();
                let answer = answered.await.unwrap();
                assert!(matches!(answer, Answer::Rerun(_)), "{answer:?}");
                let result = loop {
                    if let Report::Result(waiting) = reports.recv().await.unwrap() {
                        break waiting.result;
                    }
                };
                commands.send(stored(&result)).unwrap();
                results.push(result);
            }
            commands.send(Command::Stop).unwrap();
        };
        let life = async { tokio::join!(pipeline.run(commands_out), server).0.unwrap() };
        runtime.block_on(async { tokio::time::timeout(PATIENCE, life).await }).unwrap();
        results
    }

    /// The document with the path of this machine's file in its scripts.
    fn with_paths(&self, document: &Value) -> Vec<u8> {
        let ran = self.dir.path().join("ran").display().to_string();
        document.to_string().replace("RAN", &ran).into_bytes()
    }

    fn store(&self, version: u64, document: &Value) {
        let stored = StoredDocument::new(version, self.with_paths(document).into(), 1);
        DocumentStore::new(self.dir.path().join("document")).save(&stored).unwrap();
    }

    fn states(&self) -> BTreeMap<String, State> {
        let journal = Journal::open(&self.dir.path().join("journal")).unwrap();
        journal.states().iter().map(|(id, state)| (id.to_string(), state.clone())).collect()
    }
}

fn script(id: &str) -> Value {
    json!({"id": id, "name": id, "group": "script", "config": format!("#!/bin/sh\necho {id} >> RAN\n"),
        "inputs": [], "outputs": [], "options": {"lane": id}})
}

fn documents() -> [(u64, Value); 2] {
    let bad = json!({"id": "bad", "name": "bad", "group": "script"});
    let no_hook = json!({"id": "no-hook", "name": "n", "group": "chef", "inputs": []});
    let failing = json!({"id": "failing", "name": "f", "group": "script",
        "config": "#!/bin/sh\necho failing >> RAN\nexit 1\n", "inputs": []});
    [
        (1, json!({"deployments": [script("a"), bad, script("b"), no_hook, failing.clone()]})),
        (2, json!({"deployments": [script("b"), script("c"), failing]})),
    ]
}

/// Ids that the records say were started: they may have run.
fn started(records: &[Record]) -> Vec<String> {
    let started = records.iter().filter(|record| matches!(record, Record::Started { .. }));
    started.map(|record| record.id().to_string()).collect()
}

/// Where a journal may be cut by a crash: after each frame, and within each.
fn cuts(journal: &[u8]) -> Vec<usize> {
    let header = journal.iter().position(|&b| b == b'\n').unwrap() + 1;
    let ends: Vec<usize> =
        (header..=journal.len()).filter(|&end| journal[end - 1] == b'\n').collect();
    let torn = ends.windows(2).map(|pair| (pair[0] + pair[1]) / 2);
    ends.iter().copied().chain(torn).collect()
}

fn read_log(path: &Path) -> Vec<Record> {
    Log::open(path).unwrap().1
}

#[test]
fn whatever_the_crash_no_id_runs_twice_and_every_id_ends_in_a_result() {
    crash_everywhere(1);
}

/// One frame then starts several entries.
#[test]
fn nor_if_entries_run_side_by_side() {
    crash_everywhere(3);
}

fn crash_everywhere(lanes_max: usize) {
    let documents = documents();
    let undisturbed = Machine::new(lanes_max);
    undisturbed.live(&documents);
    let ran = undisturbed.ran();
    if lanes_max == 1 {
        assert_eq!(ran, ["a", "b", "failing", "c"]);
    } else {
        assert_eq!(ran.iter().map(String::as_str).collect::<BTreeSet<_>>().len(), 4);
    }
    let journal = fs::read(undisturbed.dir.path().join("journal")).unwrap();
    let cuts = cuts(&journal);
    assert!(cuts.len() > 20, "{} cuts", cuts.len());

    let mut interruptions = 0;
    for cut in cuts {
        for on_disk in [None, Some(0), Some(1)] {
            let case = format!("journal cut at {cut} of {}, document {on_disk:?}", journal.len());
            let machine = Machine::new(lanes_max);
            let path = machine.dir.path().join("journal");
            fs::write(&path, &journal[..cut]).unwrap();
            let before = read_log(&path);
            if let Some(n) = on_disk {
                let (version, document) = &documents[n];
                machine.store(*version, document);
            }

            // The server has the newest document, and does not know how far the agent came.
            let results = machine.live(&documents[1..]);

            let mut ran = started(&before);
            ran.extend(machine.ran());
            let once: BTreeSet<&String> = ran.iter().collect();
            assert_eq!(once.len(), ran.len(), "{case}: something ran twice: {ran:?}");

            let states = machine.states();
            for (id, state) in &states {
                assert!(matches!(state, State::Signalled(_)), "{case}: {id} is {state:?}");
            }
            for id in ["b", "c", "failing"] {
                assert!(states.contains_key(id), "{case}: {id} has no end");
            }
            for record in &before {
                let id = record.id().to_string();
                let signalled =
                    |r: &Record| matches!(r, Record::Signalled { .. }) && r.id() == record.id();
                let reported = results.iter().filter(|result| result.config_id == id).count();
                let expected = usize::from(!before.iter().any(signalled));
                assert_eq!(reported, expected, "{case}: results of {id}");
            }
            for id in started(&before) {
                let ended = before
                    .iter()
                    .any(|r| matches!(r, Record::Finished { .. }) && r.id().as_str() == id);
                if !ended {
                    let result = results.iter().find(|result| result.config_id == id).unwrap();
                    let reason = result.reason.as_deref().unwrap_or_default();
                    assert!(reason.starts_with("interrupted"), "{case}: {id}: {result:?}");
                    interruptions += 1;
                }
            }

            let ran_before = machine.ran();
            assert!(machine.live(&documents[1..]).is_empty(), "{case}: results sent again");
            assert_eq!(machine.ran(), ran_before, "{case}: run again by one more start");
        }
    }
    assert!(interruptions >= 12, "the cuts have met {interruptions} running hooks");
}

#[test]
fn whatever_the_crash_a_rerun_happens_once_if_it_was_promised_and_never_twice() {
    let documents = [(1, json!({"deployments": [script("a"), script("b")]}))];
    let undisturbed = Machine::new(1);
    undisturbed.live(&documents);
    let first = fs::read(undisturbed.dir.path().join("journal")).unwrap().len();
    let results = undisturbed.live_with_rerun(&documents, Some("a"));
    assert_eq!(undisturbed.ran(), ["a", "b", "a"]);
    let runs: Vec<u64> = results.iter().map(DeploymentResult::run).collect();
    assert_eq!(runs, [2]);
    let journal = fs::read(undisturbed.dir.path().join("journal")).unwrap();

    let (mut promised, mut interrupted) = (0, 0);
    for cut in cuts(&journal).into_iter().filter(|cut| *cut >= first) {
        let case = format!("journal cut at {cut} of {}", journal.len());
        let machine = Machine::new(1);
        let path = machine.dir.path().join("journal");
        fs::write(&path, &journal[..cut]).unwrap();
        let (version, document) = &documents[0];
        machine.store(*version, document);
        let before = read_log(&path);
        let has = |what: fn(&Record) -> bool| before.iter().filter(|r| what(r)).count();
        let asked = has(|r| matches!(r, Record::Rerun(_)));
        let of_a = |ids: Vec<String>| ids.iter().filter(|id| *id == "a").count();

        let results = machine.live(&documents);

        let runs = of_a(started(&before)) + of_a(machine.ran());
        assert_eq!(runs, 1 + asked, "{case}");
        let ended = has(|r| matches!(r, Record::Finished { id, .. } if id.as_str() == "a"));
        let signalled = has(|r| matches!(r, Record::Signalled { id, .. } if id.as_str() == "a"));
        let sent: Vec<&DeploymentResult> = results.iter().filter(|r| r.config_id == "a").collect();
        assert_eq!(sent.len(), 1 + asked - signalled, "{case}: {sent:?}");
        for result in &sent {
            assert_eq!(result.run(), 1 + asked as u64, "{case}");
            let reason = result.reason.as_deref().unwrap_or_default();
            let was_running = of_a(started(&before)) > ended;
            assert_eq!(reason.starts_with("interrupted"), was_running, "{case}: {result:?}");
            interrupted += usize::from(was_running);
        }
        promised += asked;
        assert!(machine.live(&documents).is_empty(), "{case}: results sent again");
        assert_eq!(of_a(started(&before)) + of_a(machine.ran()), 1 + asked, "{case}: run again");
    }
    assert!(promised >= 6 && interrupted >= 2, "{promised} promised, {interrupted} interrupted");
}
