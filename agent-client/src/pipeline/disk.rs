//! The disk that is full, and the journal that is mostly history.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::{Pipeline, PipelineError};
use crate::document::ConfigId;
use crate::journal::LogError;

/// How long to wait before writing to a disk that was full or refused.
const DISK_RETRY_MS: u64 = 5_000;

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
}
