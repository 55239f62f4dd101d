//! The durable record of what was done: one entry per config id, written before it is acted upon.
//!
//! [`Journal::stage`] moves the state machine ahead in memory, [`Journal::commit`] makes all staged
//! records durable as one frame. Whatever a record permits (starting a hook, sending a result) is done
//! only after the commit.

mod finished;
mod log;
mod states;

use std::path::Path;

pub use finished::{Finished, Heard};
pub use log::{Log, LogError, LogFile};
pub use states::{Done, Ending, IllegalTransition, ProcessMark, Received, Record, State, States};

#[cfg(test)]
pub(crate) use states::tests as tests_support;

use crate::document::ConfigId;

/// The journal is rewritten when it is this long and mostly history.
pub const COMPACT_BYTES_MIN: u64 = 1 << 20;
/// Configs that are done and in no current document, remembered so that they never run again.
pub const DONE_CONFIGS_MAX: usize = 10_000;

/// States, and the file that makes them last.
#[derive(Debug)]
pub struct Journal {
    states: States,
    log: Log,
    staged: Vec<Record>,
    /// Length after the last compaction: the next is due at twice that.
    compacted_bytes: u64,
}

impl Journal {
    /// Opens the journal file, made if absent.
    ///
    /// # Errors
    /// See [`LogError`].
    pub fn open(path: &Path) -> Result<Self, LogError> {
        let (log, records) = Log::open(path)?;
        let states = replay(&records, path)?;
        Ok(Self { states, log, staged: Vec::new(), compacted_bytes: 0 })
    }

    /// Where all configs stand by the file at `path`, which is only read: any process may do so at any time.
    ///
    /// # Errors
    /// See [`LogError`].
    pub fn peek(path: &Path) -> Result<States, LogError> {
        replay(&Log::peek(path)?, path)
    }

    /// Where all configs stand, staged records included.
    pub fn states(&self) -> &States {
        &self.states
    }

    /// Takes in a record; durable with the next [`commit`](Self::commit).
    ///
    /// # Errors
    /// The record does not follow from the config's state.
    pub fn stage(&mut self, record: Record) -> Result<(), IllegalTransition> {
        self.states.apply(&record)?;
        self.staged.push(record);
        Ok(())
    }

    /// Makes everything staged durable; one sync, none if nothing is staged.
    ///
    /// # Errors
    /// What is staged stays staged; see [`Log::append`] for whether trying again makes sense.
    pub fn commit(&mut self) -> Result<(), LogError> {
        if self.staged.is_empty() {
            return Ok(());
        }
        self.log.append(&self.staged, true)?;
        self.staged.clear();
        Ok(())
    }

    /// Writes everything staged without waiting for the disk: for records whose loss in a power cut does no harm.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    pub fn write(&mut self) -> Result<(), LogError> {
        if !self.staged.is_empty() {
            self.log.append(&self.staged, false)?;
            self.staged.clear();
        }
        Ok(())
    }

    /// Whether only a restart can help; see [`LogError::Closed`].
    pub fn is_closed(&self) -> bool {
        self.log.is_closed()
    }

    /// Whether most of the file is history.
    pub fn is_compaction_due(&self) -> bool {
        let due = COMPACT_BYTES_MIN.max(2 * self.compacted_bytes);
        self.log.length() >= due && self.staged.is_empty()
    }

    /// Rewrites the file without its history. `current` tells which configs the document in force names.
    ///
    /// # Errors
    /// I/O.
    pub fn compact(&mut self, current: impl Fn(&ConfigId) -> bool) -> Result<(), LogError> {
        self.states.forget(current, DONE_CONFIGS_MAX);
        let records: Vec<Record> = self.states.records().collect();
        self.log.rewrite(&records)?;
        self.compacted_bytes = self.log.length();
        Ok(())
    }
}

fn replay(records: &[Record], path: &Path) -> Result<States, LogError> {
    let mut states = States::default();
    for record in records {
        let illegal = |source| LogError::Illegal { path: path.to_owned(), source };
        states.apply(record).map_err(illegal)?;
    }
    Ok(states)
}

#[cfg(test)]
mod tests {
    use super::states::tests::{finished, id, received, signalled, started};
    use super::*;

    #[test]
    fn staged_records_are_one_frame_and_lost_together() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut journal = Journal::open(&path).unwrap();
        journal.stage(received("a")).unwrap();
        journal.stage(received("b")).unwrap();
        journal.stage(started("a")).unwrap();
        assert!(Journal::open(&path).unwrap().states().iter().next().is_none(), "nothing yet");
        journal.commit().unwrap();
        let again = Journal::open(&path).unwrap();
        let peeked = Journal::peek(&path).unwrap();
        assert!(matches!(peeked.get(&id("a")), Some(State::Started { .. })));
        assert!(matches!(again.states().get(&id("a")), Some(State::Started { .. })));
        assert!(matches!(again.states().get(&id("b")), Some(State::Received(_))));
    }

    #[test]
    fn a_journal_of_an_older_release_opens_and_goes_on_where_it_ended() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        std::fs::write(&path, include_bytes!("../../tests/data/journal-of-0.1")).unwrap();
        let mut journal = Journal::open(&path).unwrap();
        let shown = |journal: &Journal| -> Vec<String> {
            let states = journal.states().iter();
            states.map(|(id, state)| format!("{id} {} {}", state.name(), state.run())).collect()
        };
        let expected = [
            "again received 2",
            "done signalled 1",
            "refused refused 1",
            "runs started 1",
            "taken signalled 1",
            "waits finished 1",
        ];
        assert_eq!(shown(&journal), expected);
        journal.compact(|_| false).unwrap();
        let mut journal = Journal::open(&path).unwrap();
        assert_eq!(shown(&journal), expected);
        journal.stage(signalled("waits")).unwrap();
        assert!(matches!(journal.states().get(&id("waits")), Some(State::Signalled(_))));
    }

    #[test]
    fn a_long_history_is_compacted_and_nothing_in_force_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut journal = Journal::open(&path).unwrap();
        journal.stage(received("waiting")).unwrap();
        let mut n = 0;
        while journal.log.length() < COMPACT_BYTES_MIN {
            for _ in 0..100 {
                let id = format!("done-{n}");
                for record in [received(&id), started(&id), finished(&id), signalled(&id)] {
                    journal.stage(record).unwrap();
                }
                n += 1;
            }
            journal.commit().unwrap();
        }
        assert!(journal.is_compaction_due());
        journal.compact(|_| false).unwrap();
        assert!(journal.log.length() < COMPACT_BYTES_MIN / 2, "{} bytes", journal.log.length());
        assert!(!journal.is_compaction_due(), "not again at once");
        let again = Journal::open(&path).unwrap();
        assert!(matches!(again.states().get(&id("waiting")), Some(State::Received(_))));
        assert!(matches!(again.states().get(&id("done-0")), Some(State::Signalled(_))));
    }
}
