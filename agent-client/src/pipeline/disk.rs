//! The disk that is full, the journal that is mostly history, and files of configs that are over.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::{Pipeline, PipelineError};
use crate::document::ConfigId;
use crate::journal::{LogError, State};
use crate::status::LinkState;
use crate::sweep::{self, Known};

/// How long to wait before writing to a disk that was full or refused.
const DISK_RETRY_MS: u64 = 5_000;
/// How long after the last change files of configs that are over are looked for.
const SWEEP_DELAY_MS: u64 = 1_000;

impl Pipeline {
    pub(super) fn compact(&mut self) -> Result<(), PipelineError> {
        // What is polled may name any config: nothing is forgotten before that is known.
        let may_be_polled = self.setup.hold_documents && self.polled.is_none();
        let is_known = !may_be_polled || self.link.state == LinkState::Connected;
        if !self.journal.is_compaction_due() || !is_known {
            return Ok(());
        }
        let current = self.current();
        match self.journal.compact(|id| current.contains(id)) {
            Ok(()) => Ok(()),
            Err(error) => self.disk_fault(error),
        }
    }

    /// The configs that are asked for, or may be in a moment: by the document in force, and by the newest beside
    /// it, while it is a polled one or one that an operator has put back.
    fn current(&self) -> BTreeSet<ConfigId> {
        let newest = self.newest();
        let documents = self.document.iter().chain(&newest);
        let entries = documents.flat_map(|document| &document.entries);
        entries.map(|entry| entry.id.clone()).collect()
    }

    /// A disk that is full may have room later: what is staged stays staged. A log that is closed cannot
    /// be trusted any more.
    pub(super) fn disk_fault(
        &mut self,
        error: impl std::fmt::Display,
    ) -> Result<(), PipelineError> {
        let fault = error.to_string();
        if self.journal.is_closed() {
            let path = self.setup.journal.clone();
            return Err(LogError::Closed { path, fault }.into());
        }
        tracing::error!(
            fault,
            retry_in_ms = DISK_RETRY_MS,
            "the state directory cannot be written"
        );
        self.fault = Some(fault);
        self.retry_at = Some(Instant::now() + Duration::from_millis(DISK_RETRY_MS));
        self.snapshot_due = true;
        Ok(())
    }

    /// Looks for files to be removed in a moment: not while results come in, and once for many.
    pub(super) fn sweep_soon(&mut self) {
        self.sweep_at = Some(Instant::now() + Duration::from_millis(SWEEP_DELAY_MS));
    }

    /// Only an idle agent sweeps: a run does not wait for it.
    pub(super) fn sweep_timer(&self) -> Option<Instant> {
        let idle = self.running.is_empty() && self.steps.is_empty() && !self.unsaved;
        self.sweep_at.filter(|_| idle && self.stop_at.is_none())
    }

    pub(super) fn sweep(&mut self, now: Instant) {
        if self.sweep_timer().is_none_or(|at| at > now) {
            return;
        }
        self.sweep_at = None;
        if self.document.is_none() {
            return;
        }
        let current = self.current();
        let mut known = Known::default();
        for (id, state) in self.journal.states().iter() {
            let is_over = matches!(state, State::Signalled(_)) && !current.contains(id);
            known.add(id.file_name().into_owned(), is_over);
        }
        if known.is_any_over() && sweep::sweep(&self.setup.hooks.leftovers(), &known) {
            self.sweep_soon();
        }
    }
}
