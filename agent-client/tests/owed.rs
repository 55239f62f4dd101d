//! Who is owed a result, and what the journal remembers of configs that were asked for by other documents.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use agent_client::document::ConfigId;
use agent_client::hooks::{Hooks, script};
use agent_client::journal::{
    COMPACT_BYTES_MIN, DONE_CONFIGS_MAX, Done, Ending, Journal, Record, State,
};
use agent_client::operator::rollback::Rollback;
use agent_client::pipeline::{Command, Pipeline, Report, RunLimits, Setup, Waiting};
use agent_client::store::{DocumentStore, StoredDocument};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

const PATIENCE: Duration = Duration::from_secs(60);

struct Machine {
    dir: tempfile::TempDir,
    agent_id: Option<&'static str>,
}

/// A pipeline at work, and what it tells.
struct Life {
    commands: mpsc::UnboundedSender<Command>,
    reports: mpsc::UnboundedReceiver<Report>,
    found: Vec<Waiting>,
}

impl Machine {
    fn new(agent_id: Option<&'static str>) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), agent_id }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn setup(&self, hold_documents: bool) -> Setup {
        let directories = script::Directories::new(self.path("work"), self.path("outputs"));
        Setup {
            journal: self.path("journal"),
            document: self.path("document"),
            documents: self.path("documents"),
            signals: self.path("signals"),
            rollback: self.path("rollback.json"),
            status: self.path("status.json"),
            hooks: Hooks::new(vec![], None, directories, self.path("").display().to_string()),
            deployed: None,
            agent_id: self.agent_id.map(str::to_owned),
            stop_wait: Duration::from_secs(1),
            limits: RunLimits::default(),
            hold_documents,
        }
    }

    /// Runs a pipeline while `work` tells it what to do.
    fn live<T>(&self, hold_documents: bool, work: impl AsyncFnOnce(&mut Life) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (reports_in, reports) = mpsc::unbounded_channel();
        let (progress, _watched) = watch::channel(None);
        let (commands, commands_out) = mpsc::unbounded_channel();
        let setup = self.setup(hold_documents);
        let (pipeline, opened) = Pipeline::open(setup, reports_in, progress).unwrap();
        let mut life = Life { commands, reports, found: opened.results };
        let work = async {
            let done = work(&mut life).await;
            life.tell(Command::Stop);
            done
        };
        let both = async { tokio::join!(pipeline.run(commands_out), work) };
        let (ended, done) =
            runtime.block_on(async { tokio::time::timeout(PATIENCE, both).await.unwrap() });
        ended.unwrap();
        done
    }

    fn entry(&self, id: &str) -> Value {
        let ran = self.path("ran").display().to_string();
        json!({"id": id, "name": id, "group": "script", "config": format!("#!/bin/sh\necho {id} >> {ran}\n"),
            "inputs": [{"name": "deploy_signal_id", "value": "http://127.0.0.1:9/?Signature=s"}]})
    }

    fn document(&self, ids: &[&str]) -> Vec<u8> {
        let entries: Vec<Value> = ids.iter().map(|id| self.entry(id)).collect();
        json!({ "deployments": entries }).to_string().into_bytes()
    }

    fn ran(&self) -> String {
        fs::read_to_string(self.path("ran")).unwrap_or_default()
    }

    fn state(&self, id: &str) -> State {
        Journal::peek(&self.path("journal")).unwrap().get(&config(id)).unwrap().clone()
    }

    /// A journal that is mostly history: "old" and more configs after it than are remembered.
    fn remember_too_much(&self) {
        let mut journal = Journal::open(&self.path("journal")).unwrap();
        for n in 0..=DONE_CONFIGS_MAX as u64 {
            let id = if n == 0 { config("old") } else { config(&format!("{n}")) };
            let name = "x".repeat(2 * COMPACT_BYTES_MIN as usize / DONE_CONFIGS_MAX);
            let done = Done {
                name,
                group: String::new(),
                action: String::new(),
                ending: Ending::Complete,
                document_version: 1,
                received_unix_ms: n,
                started_unix_ms: n,
                signalled_unix_ms: n,
                refused: None,
                heat_refused: None,
                at_unix_ms: n,
                status_code: 0,
                reason: None,
                rerun: None,
            };
            journal.stage(Record::Done { id, done }).unwrap();
        }
        journal.commit().unwrap();
        assert!(journal.is_compaction_due());
    }
}

impl Life {
    fn tell(&self, command: Command) {
        self.commands.send(command).unwrap();
    }

    async fn next<T>(&mut self, wanted: impl Fn(Report) -> Option<T>) -> T {
        loop {
            if let Some(found) = wanted(self.reports.recv().await.unwrap()) {
                return found;
            }
        }
    }

    async fn push(&mut self, version: u64, body: Vec<u8>) {
        self.tell(Command::Document { version, body: body.into() });
        self.settled().await;
    }

    async fn settled(&mut self) {
        self.next(|report| matches!(report, Report::Settled { .. }).then_some(())).await;
    }

    /// Has a document polled, and waits for its only result.
    async fn poll(&mut self, body: Vec<u8>) -> Waiting {
        self.tell(Command::Polled { body: body.into() });
        let waiting = self.next(|report| match report {
            Report::Result(waiting) => Some(*waiting),
            _ => None,
        });
        let waiting = waiting.await;
        self.settled().await;
        waiting
    }
}

fn config(id: &str) -> ConfigId {
    ConfigId::new(id).unwrap()
}

fn stored(id: &str) -> Command {
    Command::ResultStored { id: config(id), run: 1 }
}

fn told(id: &str, refused: Option<&str>) -> Command {
    Command::HeatSaid { id: config(id), run: 1, refused: refused.map(str::to_owned) }
}

#[test]
fn the_result_of_a_polled_document_is_owed_until_heat_has_it_whatever_the_server_says() {
    let machine = Machine::new(Some("vm-1"));
    machine.live(false, async |life| {
        let waiting = life.poll(machine.document(&["a"])).await;
        assert!(waiting.for_server && waiting.for_heat && waiting.way.is_some());
        life.tell(stored("a"));
    });
    machine.live(false, async |life| {
        let [waiting] = &life.found[..] else { panic!("{:?}", life.found) };
        assert_eq!((waiting.for_server, waiting.for_heat), (false, true));
        assert!(waiting.way.is_some(), "after a restart too");
        life.tell(told("a", None));
        life.next(|report| matches!(report, Report::ResultOver { .. }).then_some(())).await;
    });
    assert!(matches!(machine.state("a"), State::Signalled(_)));
    machine.live(false, async |life| assert!(life.found.is_empty()));
    assert_eq!(machine.ran(), "a\n");
}

#[test]
fn what_heat_has_taken_is_over_and_what_it_refuses_the_server_gets() {
    for refused in [None, Some("403")] {
        let machine = Machine::new(Some("vm-1"));
        machine.live(false, async |life| {
            life.poll(machine.document(&["a"])).await;
            life.tell(told("a", refused));
        });
        machine.live(false, async |life| {
            if refused.is_none() {
                assert!(life.found.is_empty());
                return;
            }
            let [waiting] = &life.found[..] else { panic!("{:?}", life.found) };
            assert_eq!((waiting.for_server, waiting.for_heat), (true, false), "it is final");
            life.tell(stored("a"));
        });
        let State::Signalled(done) = machine.state("a") else { panic!() };
        assert_eq!(done.heat_refused.as_deref(), refused);
    }
}

#[test]
fn a_server_that_has_pushed_the_config_itself_tells_heat_of_it() {
    let machine = Machine::new(Some("vm-1"));
    machine.live(false, async |life| {
        life.poll(machine.document(&["a"])).await;
        life.push(1, machine.document(&["a"])).await;
        life.tell(stored("a"));
        life.next(|report| matches!(report, Report::ResultOver { .. }).then_some(())).await;
    });
    assert!(matches!(machine.state("a"), State::Signalled(_)));
    assert_eq!(machine.ran(), "a\n");
}

#[test]
fn the_result_of_a_pushed_document_is_owed_to_the_server_only() {
    let machine = Machine::new(Some("vm-1"));
    machine.live(false, async |life| {
        life.push(1, machine.document(&["a", "b"])).await;
        life.tell(stored("a"));
        // As it was polled while the server was away: what Heat refuses the server tells another way.
        life.tell(told("b", Some("403")));
    });
    assert!(matches!(machine.state("a"), State::Signalled(_)));
    machine.live(false, async |life| {
        let [waiting] = &life.found[..] else { panic!("{:?}", life.found) };
        assert!(waiting.for_server && waiting.for_heat && waiting.way.is_none());
        life.tell(told("b", None));
    });
    machine.live(false, async |life| assert!(life.found.is_empty(), "Heat is not told again"));
}

#[test]
fn without_a_server_the_word_of_heat_is_the_last() {
    for refused in [None, Some("403")] {
        let machine = Machine::new(None);
        machine.live(false, async |life| {
            life.poll(machine.document(&["a"])).await;
            life.tell(told("a", refused));
        });
        let State::Signalled(done) = machine.state("a") else { panic!() };
        assert_eq!((done.refused.as_deref(), done.heat_refused.as_deref()), (None, refused));
    }
}

#[test]
fn a_config_of_the_newest_document_is_remembered_while_an_earlier_one_is_in_force() {
    let machine = Machine::new(Some("vm-1"));
    let before = StoredDocument::new(1, machine.document(&[]).into(), 1);
    let newest = StoredDocument::new(2, machine.document(&["old"]).into(), 2);
    fs::create_dir(machine.path("documents")).unwrap();
    DocumentStore::new(machine.path("documents/v1")).save(&before).unwrap();
    DocumentStore::new(machine.path("document")).save(&newest).unwrap();
    let rollback = Rollback::new(newest.holds(), before.holds(), "a test", 3);
    rollback.save(&machine.path("rollback.json")).unwrap();
    machine.remember_too_much();
    let length = || fs::metadata(machine.path("journal")).unwrap().len();
    let long = length();
    machine.live(false, async |life| {
        life.settled().await;
        life.push(3, machine.document(&["old"])).await;
    });
    assert!(length() < long, "it was compacted");
    assert_eq!(machine.ran(), "", "it has run before");
}

#[test]
fn nothing_is_forgotten_before_it_is_known_what_is_polled() {
    let machine = Machine::new(None);
    machine.remember_too_much();
    machine.live(true, async |life| {
        life.tell(Command::Polled { body: machine.document(&["old"]).into() });
        let hold = life.next(|report| match report {
            Report::Held { hold, .. } => Some(hold),
            _ => None,
        });
        let hold = hold.await;
        life.tell(Command::Release { hold });
        life.settled().await;
    });
    assert_eq!(machine.ran(), "", "it has run before");
    let states = Journal::peek(&machine.path("journal")).unwrap();
    assert!(states.get(&config("old")).is_some() && states.get(&config("1")).is_some());
}
