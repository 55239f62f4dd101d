//! What the agent of this machine runs, so that nobody runs it a second time: `os-refresh-config` by hand, with
//! `55-heat-config` in its phases, works on the same deployments.
//!
//! What the agent has taken up is in its journal, which is only read here. What it is about to take up is
//! not: a document on its way, one that waits until os-refresh-config is done. So where an agent is at
//! work that applies documents through os-refresh-config (`collect_config`), all deployments are left to
//! it. Any other agent does not work with heat-config on one list; then its journal is asked before each
//! entry, and what both begin at the same moment is run twice.

use std::cell::RefCell;
use std::env;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use metadata_delivery::message::DeploymentState;

use crate::compat::pylog::Log;
use crate::config::Settings;
use crate::daemon::files;
use crate::document::ConfigId;
use crate::journal::{Journal, LogError, States};
use crate::lock;

/// The agent of this machine, running or not.
#[derive(Debug)]
pub struct Agent {
    state_dir: PathBuf,
    journal: PathBuf,
    /// Whether it applies documents through os-refresh-config.
    collects: bool,
    read: RefCell<Read>,
}

/// The journal as it was read last.
#[derive(Debug, Default)]
struct Read {
    /// What the file was like.
    stamp: Option<(u64, SystemTime)>,
    states: States,
}

impl Agent {
    /// The one whose settings are this machine's, whether it was ever started or not; `None` if it has a journal
    /// that cannot be read.
    pub fn of_machine(log: &mut Log) -> Option<Self> {
        let file = env::var_os("AGENT_CLIENT_CONFIG").map(PathBuf::from);
        let settings = Settings::load(file.as_deref(), |name| env::var(name).ok(), &[]);
        let settings = settings.unwrap_or_else(|errors| {
            log.warning(format!("agent-client's configuration is wrong: {errors}"));
            Settings::default()
        });
        match Self::of(&settings) {
            Ok(agent) => Some(agent),
            Err(error) => {
                log.warning(format!("What agent-client has run is not known: {error}"));
                None
            }
        }
    }

    fn of(settings: &Settings) -> Result<Self, LogError> {
        let journal = settings.state(files::JOURNAL);
        let stamp = stamp(&journal);
        // It may come: the agent may be started for the first time while we are at work.
        let states = if journal.is_file() { Journal::peek(&journal)? } else { States::default() };
        Ok(Self {
            state_dir: settings.state_dir.clone(),
            collects: settings.collect_config.is_some(),
            read: RefCell::new(Read { stamp, states }),
            journal,
        })
    }

    /// Its process, if all deployments are to be left to it.
    pub fn runs_all(&self) -> Option<u32> {
        lock::holder(&self.state_dir).filter(|_| self.collects)
    }

    /// Why this config is to be left to it, for people; `None` if it is not. It is looked at anew each time.
    pub fn has(&self, id: &ConfigId) -> Option<String> {
        if let Some(pid) = self.runs_all() {
            return Some(format!(
                "agent-client (pid {pid}) runs the deployments of this machine; see agent-client status"
            ));
        }
        let mut read = self.read.borrow_mut();
        let now = stamp(&self.journal);
        if now != read.stamp {
            // One that cannot be read any more said enough before.
            if let Ok(states) = Journal::peek(&self.journal) {
                *read = Read { stamp: now, states };
            }
        }
        let what = match read.states.get(id)?.shown().0 {
            DeploymentState::Received => "will run it",
            DeploymentState::Running => "runs it",
            _ => "has run it",
        };
        Some(format!("agent-client {what}; see agent-client why {id}"))
    }
}

fn stamp(path: &Path) -> Option<(u64, SystemTime)> {
    let metadata = path.metadata().ok()?;
    Some((metadata.len(), metadata.modified().ok()?))
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::journal::tests_support::{finished, id, received, signalled, started};

    #[test]
    fn what_the_journal_has_is_the_agents_also_what_it_takes_up_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings { state_dir: dir.path().to_owned(), ..Settings::default() };
        let agent = Agent::of(&settings).unwrap();
        assert_eq!(agent.has(&id("a")), None, "it was never started");
        let mut journal = Journal::open(&settings.state(files::JOURNAL)).unwrap();
        for record in [received("a"), received("b"), started("b"), received("c"), started("c")] {
            journal.stage(record).unwrap();
        }
        for record in [finished("c"), received("d"), started("d"), finished("d"), signalled("d")] {
            journal.stage(record).unwrap();
        }
        journal.commit().unwrap();
        let says = |name: &str| agent.has(&id(name)).unwrap_or_default();
        assert!(says("a").starts_with("agent-client will run it;"), "{}", says("a"));
        assert!(says("b").starts_with("agent-client runs it;"), "{}", says("b"));
        for name in ["c", "d"] {
            assert!(says(name).starts_with("agent-client has run it;"), "{}", says(name));
        }
        assert_eq!(agent.has(&id("e")), None);
        journal.stage(received("e")).unwrap();
        journal.commit().unwrap();
        assert!(says("e").starts_with("agent-client will run it;"));
        assert_eq!(agent.runs_all(), None);
    }

    #[test]
    fn a_journal_that_cannot_be_understood_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings { state_dir: dir.path().to_owned(), ..Settings::default() };
        std::fs::write(settings.state(files::JOURNAL), "something else altogether").unwrap();
        assert!(Agent::of(&settings).is_err());
    }

    #[test]
    fn a_config_is_left_to_an_agent_that_collects_and_starts_while_the_list_is_worked_on() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings {
            state_dir: dir.path().to_owned(),
            collect_config: Some("/x".into()),
            ..Settings::default()
        };
        let agent = Agent::of(&settings).unwrap();
        assert_eq!(agent.has(&id("a")), None, "nobody is at work");
        let lock = lock::Lock::take(dir.path()).unwrap();
        let says = agent.has(&id("a")).unwrap_or_default();
        assert!(
            says.contains(&format!("(pid {}) runs the deployments", std::process::id())),
            "{says}"
        );
        drop(lock);
        wait_until(|| agent.has(&id("a")).is_none());
    }

    #[test]
    fn everything_is_left_to_an_agent_at_work_that_collects() {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = Settings { state_dir: dir.path().to_owned(), ..Settings::default() };
        drop(Journal::open(&settings.state(files::JOURNAL)).unwrap());
        let runs_all = |settings: &Settings| Agent::of(settings).unwrap().runs_all();
        let lock = lock::Lock::take(dir.path()).unwrap();
        assert_eq!(runs_all(&settings), None, "it may work on another list");
        settings.collect_config = Some("/x".into());
        assert_eq!(runs_all(&settings), Some(std::process::id()));
        drop(lock);
        wait_until(|| runs_all(&settings).is_none());
    }

    /// Of an agent that has gone: a process that another test starts at this moment has its lock too, until
    /// it becomes its program.
    #[track_caller]
    fn wait_until(nobody_is_at_work: impl Fn() -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        while !nobody_is_at_work() {
            assert!(Instant::now() < end, "somebody is at work");
            thread::sleep(Duration::from_millis(5));
        }
    }
}
