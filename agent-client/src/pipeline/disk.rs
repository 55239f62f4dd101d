//! The disk that is full, the journal that is mostly history, and files of configs that are over.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::{Pipeline, PipelineError};
use crate::document::{ConfigId, Document};
use crate::journal::{LogError, State};
use crate::sweep::{self, Known};

/// How long to wait before writing to a disk that was full or refused.
const DISK_RETRY_MS: u64 = 5_000;
/// How long after the last change files of configs that are over are looked for.
const SWEEP_DELAY_MS: u64 = 1_000;

impl Pipeline {
    pub(super) fn compact(&mut self) -> Result<(), PipelineError> {
        if !self.journal.is_compaction_due() {
            return Ok(());
        }
        let entries = self.document.iter().flat_map(|document| &document.entries);
        let current: BTreeSet<&ConfigId> = entries.map(|entry| &entry.id).collect();
        match self.journal.compact(|id| current.contains(id)) {
            Ok(()) => Ok(()),
            Err(error) => self.disk_fault(error),
        }
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
        let Some(document) = &self.document else { return };
        // A polled one goes by the version of the newest.
        let is_newest = |version| self.polled.is_none() && version == document.version;
        let newest = self.stored.as_ref().filter(|stored| !is_newest(stored.version));
        let newest = newest.and_then(|n| Document::parse(n.version, &n.body).ok());
        let documents = newest.iter().chain([&**document]);
        let current: BTreeSet<&ConfigId> =
            documents.flat_map(|document| document.entries.iter().map(|entry| &entry.id)).collect();
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
