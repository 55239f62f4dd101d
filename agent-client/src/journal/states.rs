//! Where every config stands: the journal's state machine, without its file.
//!
//! ```text
//! (new) ─ received ─▶ Received ─ started ─▶ Started ─ finished ─▶ Finished ─ signalled ─▶ Signalled
//!                        └──────── finished (not run) ───────────────▲
//! ```
//!
//! A result that the server refuses for good leads from Finished to Signalled by `refused`: nothing more is
//! sent, and what is kept says why. `spawned` adds the process to Started; `done` (written by compaction) leads straight to Signalled.
//! A config of a polled document brings a way to Heat, which the server may not know: its result is owed there,
//! so that it stays Finished, whatever the server says, until `heat` has come. What Heat has taken is over; what
//! Heat refuses is still owed to the server.
//! One path leads back to a run: `rerun`, from Finished or Signalled to Received, which a person asked for,
//! and which names the number of the run that follows. Anything else is refused.

use std::collections::BTreeMap;

use metadata_delivery::message::{DeploymentResult, DeploymentState, Rerun, ResultStatus};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::finished::{Finished, Heard};
use crate::document::ConfigId;
use crate::signal_way::SignalWay;

/// One fact about one config. Times are wall clock, in milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Record {
    /// A document asked for it.
    Received(Received),
    /// A person asked for one more run of what has ended.
    Rerun(Received),
    /// Its hook is about to be started: written, and durable, before the process exists.
    Started {
        /// Which config.
        id: ConfigId,
        /// When.
        at_unix_ms: u64,
        /// Kernel boot id: after a reboot no process of ours is left.
        boot_id: String,
    },
    /// Its process exists. Not forced to disk: should power fail, the process is gone too.
    Spawned {
        /// Which config.
        id: ConfigId,
        /// The process.
        process: ProcessMark,
    },
    /// It ended, well or badly, or was never run.
    Finished {
        /// Which config.
        id: ConfigId,
        /// How.
        ending: Ending,
        /// What the server gets to know.
        result: Box<DeploymentResult>,
    },
    /// The server has stored the result; or there is no server, and who is to know the result does.
    Signalled {
        /// Which config.
        id: ConfigId,
        /// When we heard; 0 in journals of older releases.
        #[serde(default)]
        at_unix_ms: u64,
    },
    /// The server will never take the result.
    Refused {
        /// Which config.
        id: ConfigId,
        /// When we heard.
        at_unix_ms: u64,
        /// The server's words.
        reason: String,
    },
    /// Heat was told of the result by the agent itself, or need not be any more.
    Heat {
        /// Which config.
        id: ConfigId,
        /// When.
        at_unix_ms: u64,
        /// Why it never will be.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        refused: Option<String>,
    },
    /// The short form of a signalled config, after compaction.
    Done {
        /// Which config.
        id: ConfigId,
        /// What is left of it.
        #[serde(flatten)]
        done: Done,
    },
}

/// What is known of a config before it runs: enough to report it should the document be gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// Which config.
    pub id: ConfigId,
    /// Its name.
    pub name: String,
    /// Its group.
    pub group: String,
    /// Its action.
    pub action: String,
    /// The document that brought it.
    pub document_version: u64,
    /// When.
    pub at_unix_ms: u64,
    /// Who asked, if this is not its first run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerun: Option<Rerun>,
    /// Whom the agent itself has to tell of its end, if its document was polled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub way: Option<SignalWay>,
}

/// A process, told apart from a later one with the same number by its start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessMark {
    /// Process id, and id of the process group that it leads.
    pub pid: u32,
    /// Field 22 of `/proc/PID/stat`: clock ticks from boot to its start.
    pub start_ticks: u64,
}

/// How a config ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// COMPLETE.
    Complete,
    /// FAILED, by its hook or because it could not be run.
    Failed,
    /// FAILED, because the agent or the machine stopped while its hook ran.
    Interrupted,
}

/// What is kept of a config once the server has its result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Its name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its group.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Its action.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub action: String,
    /// How it ended.
    pub ending: Ending,
    /// The document that brought it.
    pub document_version: u64,
    /// When it came; this and the next two are 0 in journals of older releases.
    #[serde(default)]
    pub received_unix_ms: u64,
    /// When its hook was started.
    #[serde(default)]
    pub started_unix_ms: u64,
    /// When we heard that the server has stored its result, or refused it.
    #[serde(default)]
    pub signalled_unix_ms: u64,
    /// Why the server will never take its result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Why Heat was never told of its result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heat_refused: Option<String>,
    /// When it ended.
    pub at_unix_ms: u64,
    /// Exit status of the hook; negative for a signal.
    pub status_code: i64,
    /// Why the agent called it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who asked, if this was not its first run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerun: Option<Rerun>,
}

/// Where one config stands.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// Known, not run.
    Received(Received),
    /// Its hook runs, or ran when the agent stopped.
    Started {
        /// What it is.
        received: Received,
        /// When its hook was started.
        at_unix_ms: u64,
        /// During which boot.
        boot_id: String,
        /// As which process, if that was written.
        process: Option<ProcessMark>,
    },
    /// Ended; somebody does not have its result yet.
    Finished(Finished),
    /// Ended, and nothing is left to be sent: all to whom its result is owed have it, or have refused it for good.
    Signalled(Done),
}

impl Done {
    /// Why somebody will never take the result.
    pub fn is_refused(&self) -> bool {
        self.refused.is_some() || self.heat_refused.is_some()
    }
}

impl State {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Received(_) => "received",
            Self::Started { .. } => "started",
            Self::Finished(_) => "finished",
            Self::Signalled(done) if done.is_refused() => "refused",
            Self::Signalled(_) => "signalled",
        }
    }

    /// The state as users and servers see it, and since when.
    pub fn shown(&self) -> (DeploymentState, u64) {
        let ended = |ending: &Ending| match ending {
            Ending::Complete => DeploymentState::Complete,
            Ending::Failed => DeploymentState::Failed,
            Ending::Interrupted => DeploymentState::Interrupted,
        };
        match self {
            Self::Received(received) => (DeploymentState::Received, received.at_unix_ms),
            Self::Started { at_unix_ms, .. } => (DeploymentState::Running, *at_unix_ms),
            Self::Finished(finished) => (ended(&finished.ending), finished.result.finished_unix_ms),
            Self::Signalled(done) => (ended(&done.ending), done.at_unix_ms),
        }
    }

    /// Which run of the config it is about, from 1.
    pub fn run(&self) -> u64 {
        let rerun = match self {
            Self::Received(received) | Self::Started { received, .. } => &received.rerun,
            Self::Finished(finished) => &finished.result.rerun,
            Self::Signalled(done) => &done.rerun,
        };
        rerun.as_ref().map_or(1, |rerun| rerun.run)
    }
}

impl Received {
    /// Which run of the config it asks for, from 1.
    pub fn run(&self) -> u64 {
        self.rerun.as_ref().map_or(1, |rerun| rerun.run)
    }
}

impl Record {
    /// The config it is about.
    pub fn id(&self) -> &ConfigId {
        match self {
            Self::Received(received) | Self::Rerun(received) => &received.id,
            Self::Started { id, .. }
            | Self::Spawned { id, .. }
            | Self::Finished { id, .. }
            | Self::Signalled { id, .. }
            | Self::Refused { id, .. }
            | Self::Heat { id, .. }
            | Self::Done { id, .. } => id,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Received(_) => "received",
            Self::Rerun(_) => "rerun",
            Self::Started { .. } => "started",
            Self::Spawned { .. } => "spawned",
            Self::Finished { .. } => "finished",
            Self::Signalled { .. } => "signalled",
            Self::Refused { .. } => "refused",
            Self::Heat { .. } => "heat",
            Self::Done { .. } => "done",
        }
    }
}

/// A record that does not follow from the state: a broken journal, or a fault of ours.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("config {id} is {state}, which \"{record}\" cannot follow")]
pub struct IllegalTransition {
    /// Which config.
    pub id: ConfigId,
    /// Where it stands.
    pub state: &'static str,
    /// What was to be recorded.
    pub record: &'static str,
}

/// Where all configs stand.
#[derive(Debug, Default)]
pub struct States(BTreeMap<ConfigId, State>);

impl States {
    /// Where one config stands; `None`: never heard of.
    pub fn get(&self, id: &ConfigId) -> Option<&State> {
        self.0.get(id)
    }

    /// All configs, by id.
    pub fn iter(&self) -> impl Iterator<Item = (&ConfigId, &State)> {
        self.0.iter()
    }

    /// Takes in a record.
    ///
    /// # Errors
    /// The record does not follow from the config's state; nothing is changed.
    pub fn apply(&mut self, record: &Record) -> Result<(), IllegalTransition> {
        let id = record.id();
        let next = match (self.0.get(id), record) {
            (None, Record::Received(received)) => State::Received(received.clone()),
            (None, Record::Done { done, .. }) => State::Signalled(done.clone()),
            (Some(State::Received(received)), Record::Started { at_unix_ms, boot_id, .. }) => {
                State::Started {
                    received: received.clone(),
                    at_unix_ms: *at_unix_ms,
                    boot_id: boot_id.clone(),
                    process: None,
                }
            }
            (
                Some(State::Started { received, at_unix_ms, boot_id, process: None }),
                Record::Spawned { process, .. },
            ) => State::Started {
                received: received.clone(),
                at_unix_ms: *at_unix_ms,
                boot_id: boot_id.clone(),
                process: Some(*process),
            },
            (
                Some(State::Received(received) | State::Started { received, .. }),
                Record::Finished { ending, result, .. },
            ) => State::Finished(Finished {
                ending: *ending,
                result: result.clone(),
                received_unix_ms: received.at_unix_ms,
                way: received.way.clone(),
                server: None,
                heat: None,
            }),
            (
                Some(State::Finished(finished)),
                Record::Signalled { at_unix_ms, .. } | Record::Refused { at_unix_ms, .. },
            ) if finished.server.is_none() => {
                let refused = match record {
                    Record::Refused { reason, .. } => Some(reason.clone()),
                    _ => None,
                };
                let server = Some(Heard { at_unix_ms: *at_unix_ms, refused });
                Finished { server, ..finished.clone() }.heard()
            }
            (Some(State::Finished(finished)), Record::Heat { at_unix_ms, refused, .. })
                if finished.heat.is_none() =>
            {
                let heat = Some(Heard { at_unix_ms: *at_unix_ms, refused: refused.clone() });
                Finished { heat, ..finished.clone() }.heard()
            }
            (Some(ended @ (State::Finished(_) | State::Signalled(_))), Record::Rerun(received))
                if received.run() == ended.run() + 1 =>
            {
                State::Received(received.clone())
            }
            (state, _) => {
                return Err(IllegalTransition {
                    id: id.clone(),
                    state: state.map_or("unknown", State::name),
                    record: record.name(),
                });
            }
        };
        self.0.insert(id.clone(), next);
        Ok(())
    }

    /// Forgets all but the newest `keep_max` signalled configs that `current` does not name.
    pub fn forget(&mut self, current: impl Fn(&ConfigId) -> bool, keep_max: usize) {
        let mut old: Vec<(u64, ConfigId)> = self
            .0
            .iter()
            .filter_map(|(id, state)| match state {
                State::Signalled(done) if !current(id) => Some((done.at_unix_ms, id.clone())),
                _ => None,
            })
            .collect();
        old.sort_unstable();
        let surplus = old.len().saturating_sub(keep_max);
        for (_, id) in &old[..surplus] {
            self.0.remove(id);
        }
    }

    /// The shortest records that lead to these states.
    pub fn records(&self) -> impl Iterator<Item = Record> {
        self.0.iter().flat_map(|(id, state)| {
            let id = id.clone();
            match state {
                State::Received(received) => vec![Record::Received(received.clone())],
                State::Started { received, at_unix_ms, boot_id, process } => {
                    let mut records = vec![
                        Record::Received(received.clone()),
                        Record::Started {
                            id: id.clone(),
                            at_unix_ms: *at_unix_ms,
                            boot_id: boot_id.clone(),
                        },
                    ];
                    records.extend(process.map(|process| Record::Spawned { id, process }));
                    records
                }
                State::Finished(finished) => finished.records(id),
                State::Signalled(done) => vec![Record::Done { id, done: done.clone() }],
            }
        })
    }
}

impl From<ResultStatus> for Ending {
    fn from(status: ResultStatus) -> Self {
        match status {
            ResultStatus::Complete => Self::Complete,
            ResultStatus::Failed => Self::Failed,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Map, json};

    use super::*;

    /// Makes a record about the config of this id.
    type Make = fn(&str) -> Record;

    pub(crate) fn id(text: &str) -> ConfigId {
        ConfigId::new(text).unwrap()
    }

    pub(crate) fn received(text: &str) -> Record {
        Record::Received(Received {
            id: id(text),
            name: "n".into(),
            group: "script".into(),
            action: "CREATE".into(),
            document_version: 1,
            at_unix_ms: 10,
            rerun: None,
            way: None,
        })
    }

    /// Of a polled document.
    pub(crate) fn polled(text: &str) -> Record {
        let Record::Received(received) = received(text) else { panic!() };
        let way = json!({"inputs": [{"name": "deploy_signal_id", "value": "http://h/?s"}]});
        let way = SignalWay::of_entry(&way);
        assert!(way.is_some());
        Record::Received(Received { way, ..received })
    }

    pub(crate) fn rerun(text: &str, run: u64) -> Record {
        let Record::Received(received) = received(text) else { panic!() };
        let rerun = Rerun { run, asked_by: "user root (uid 0)".into(), asked_unix_ms: 40 };
        Record::Rerun(Received { at_unix_ms: 40, rerun: Some(rerun), ..received })
    }

    pub(crate) fn started(text: &str) -> Record {
        Record::Started { id: id(text), at_unix_ms: 20, boot_id: "boot".into() }
    }

    pub(crate) fn spawned(text: &str) -> Record {
        Record::Spawned { id: id(text), process: ProcessMark { pid: 7, start_ticks: 8 } }
    }

    pub(crate) fn finished(text: &str) -> Record {
        Record::Finished {
            id: id(text),
            ending: Ending::Complete,
            result: Box::new(DeploymentResult {
                config_id: text.into(),
                name: "n".into(),
                group: "script".into(),
                action: "CREATE".into(),
                document_version: 1,
                status: ResultStatus::Complete,
                deploy_stdout: "out".into(),
                deploy_stderr: String::new(),
                deploy_status_code: 0,
                outputs: Map::new(),
                reason: None,
                started_unix_ms: 20,
                finished_unix_ms: 30,
                rerun: None,
            }),
        }
    }

    pub(crate) fn signalled(text: &str) -> Record {
        Record::Signalled { id: id(text), at_unix_ms: 35 }
    }

    pub(crate) fn refused(text: &str) -> Record {
        Record::Refused { id: id(text), at_unix_ms: 35, reason: "malformed".into() }
    }

    pub(crate) fn heat(text: &str) -> Record {
        Record::Heat { id: id(text), at_unix_ms: 36, refused: None }
    }

    pub(crate) fn heat_refused(text: &str) -> Record {
        Record::Heat { id: id(text), at_unix_ms: 36, refused: Some("403".into()) }
    }

    fn done(text: &str) -> Record {
        let done = Done {
            name: "n".into(),
            group: "script".into(),
            action: "CREATE".into(),
            ending: Ending::Complete,
            document_version: 1,
            received_unix_ms: 10,
            started_unix_ms: 20,
            signalled_unix_ms: 35,
            refused: None,
            heat_refused: None,
            at_unix_ms: 30,
            status_code: 0,
            reason: None,
            rerun: None,
        };
        Record::Done { id: id(text), done }
    }

    /// The state, with what else decides on what may follow.
    fn shown(state: &State) -> String {
        let mut shown = state.name().to_owned();
        match state {
            State::Started { process: Some(_), .. } => shown += "+process",
            State::Finished(Finished { way, server, heat, .. }) => {
                let word = |who: &str, heard: &Option<Heard>| match heard {
                    None => String::new(),
                    Some(Heard { refused: None, .. }) => format!("+{who}"),
                    Some(_) => format!("+{who} refused"),
                };
                shown += if way.is_some() { "+way" } else { "" };
                shown += &word("server", server);
                shown += &word("heat", heat);
            }
            _ => {}
        }
        shown
    }

    #[test]
    fn every_transition_is_as_drawn() {
        let paths: [&[Make]; 12] = [
            &[],
            &[received],
            &[received, started],
            &[received, started, spawned],
            &[received, finished],
            &[received, finished, signalled],
            &[received, finished, refused],
            &[received, finished, heat_refused],
            &[polled, finished],
            &[polled, finished, signalled],
            &[polled, finished, refused],
            &[polled, finished, heat_refused],
        ];
        let second: Make = |text| rerun(text, 2);
        let records: [Make; 10] = [
            received,
            started,
            spawned,
            finished,
            signalled,
            refused,
            heat,
            heat_refused,
            done,
            second,
        ];
        let mut table = String::new();
        for path in paths {
            for record in records {
                let mut states = States::default();
                for step in path {
                    states.apply(&step("a")).unwrap();
                }
                let from = states.get(&id("a")).map_or_else(|| "(new)".into(), shown);
                let record = record("a");
                let to = match states.apply(&record) {
                    Ok(()) => shown(states.get(&id("a")).unwrap()),
                    Err(_) => "-".into(),
                };
                let name = match &record {
                    Record::Heat { refused: Some(_), .. } => "heat refused",
                    record => record.name(),
                };
                table.push_str(&format!("{from:<30} {name:<12} {to}\n"));
            }
        }
        insta::assert_snapshot!(table);
    }

    #[test]
    fn a_rerun_is_received_anew_with_its_number_and_none_is_left_out_or_repeated() {
        let mut states = States::default();
        for step in [received, started, finished] {
            states.apply(&step("a")).unwrap();
        }
        assert!(states.apply(&rerun("a", 1)).is_err(), "the first run is no rerun");
        assert!(states.apply(&rerun("a", 3)).is_err());
        states.apply(&rerun("a", 2)).unwrap();
        assert!(states.apply(&rerun("a", 3)).is_err(), "it waits to be run");
        let waiting = states.get(&id("a")).unwrap();
        assert_eq!((waiting.name(), waiting.run()), ("received", 2));
        states.apply(&started("a")).unwrap();
        assert_eq!(states.get(&id("a")).unwrap().run(), 2);
        assert!(states.apply(&rerun("a", 3)).is_err(), "it runs");
    }

    #[test]
    fn the_state_of_a_rerun_outlives_a_compaction() {
        let mut states = States::default();
        for step in [received("a"), started("a"), finished("a"), signalled("a"), rerun("a", 2)] {
            states.apply(&step).unwrap();
        }
        let mut again = States::default();
        for record in states.records() {
            again.apply(&record).unwrap();
        }
        assert_eq!(again.0, states.0);
        assert_eq!(again.get(&id("a")).unwrap().run(), 2);
    }

    #[test]
    fn a_journal_of_an_older_release_is_read() {
        let old = r#"[{"record":"signalled","id":"a"},
            {"record":"done","id":"b","ending":"complete","document_version":1,"at_unix_ms":5,"status_code":0}]"#;
        let records: Vec<Record> = serde_json::from_str(old).unwrap();
        let mut states = States::default();
        states.apply(&records[1]).unwrap();
        assert_eq!(states.get(&id("b")).unwrap().run(), 1);
    }

    #[test]
    fn a_refused_record_changes_nothing_and_says_why() {
        let mut states = States::default();
        states.apply(&received("a")).unwrap();
        let error = states.apply(&signalled("a")).unwrap_err();
        assert_eq!(error.to_string(), "config a is received, which \"signalled\" cannot follow");
        assert!(matches!(states.get(&id("a")), Some(State::Received(_))));
    }

    #[test]
    fn the_shortest_records_lead_to_the_same_states() {
        let mut states = States::default();
        let paths: [(&str, &[Make]); 12] = [
            ("a", &[received]),
            ("b", &[received, started]),
            ("c", &[received, started, spawned]),
            ("d", &[received, started, spawned, finished]),
            ("e", &[received, started, spawned, finished, signalled]),
            ("f", &[received, started, spawned, finished, refused]),
            ("g", &[polled, started]),
            ("h", &[polled, finished]),
            ("i", &[polled, finished, signalled]),
            ("j", &[polled, finished, refused]),
            ("k", &[polled, finished, heat_refused]),
            ("l", &[polled, finished, signalled, heat_refused]),
        ];
        for (name, path) in paths {
            for step in path {
                states.apply(&step(name)).unwrap();
            }
        }
        let mut again = States::default();
        for record in states.records() {
            again.apply(&record).unwrap();
        }
        assert_eq!(again.0, states.0);
    }

    #[test]
    fn only_signalled_configs_of_no_current_document_are_forgotten_oldest_first() {
        let mut states = States::default();
        for name in ["a", "b", "c", "d"] {
            states.apply(&received(name)).unwrap();
        }
        for (name, at) in [("a", 30), ("b", 20), ("c", 10)] {
            let Record::Finished { id, ending, mut result } = finished(name) else { panic!() };
            result.finished_unix_ms = at;
            states.apply(&Record::Finished { id, ending, result }).unwrap();
            states.apply(&signalled(name)).unwrap();
        }
        states.forget(|id| id.as_str() == "c", 1);
        let left: Vec<&str> = states.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(left, ["a", "c", "d"]);
    }
}
