//! Which document is in force: taken in, recorded, made durable, and what it no longer asks for.

use std::sync::Arc;

use bytes::Bytes;

use super::{Pipeline, PipelineError, Report, received, unix_ms};
use crate::document::Document;
use crate::hooks::NotRun;
use crate::journal::{Received, Record, State};
use crate::outcome::Times;
use crate::plan::plan;
use crate::store::StoredDocument;

impl Pipeline {
    pub(super) fn document(&mut self, version: u64, body: Bytes) -> Result<(), PipelineError> {
        let stored = StoredDocument::new(version, body, unix_ms());
        let holds = stored.holds();
        if self.stored.as_ref().is_some_and(|held| held.holds() == holds) {
            if !self.unsaved {
                self.report(Report::DocumentStored(holds));
            }
            return self.stored_is_newest();
        }
        let document = match Document::parse(version, &stored.body) {
            Ok(document) => document,
            Err(error) => {
                let reason = error.to_string();
                tracing::error!(version, reason, "document refused; the last one stays in force");
                self.report(Report::DocumentRefused { version, reason });
                return Ok(());
            }
        };
        tracing::info!(version, deployments = document.entries.len(), "document received");
        self.withdraw(&document, |_| true)?;
        self.cancel(&document);
        self.stored = Some(stored);
        self.rolled_back_to = None;
        self.polled = None;
        self.unsaved = true;
        self.adopt(Arc::new(document))
    }

    /// Makes `document` the one in force: its new entries are recorded, its steps planned.
    pub(super) fn adopt(&mut self, document: Arc<Document>) -> Result<(), PipelineError> {
        let now = unix_ms();
        let plan = plan(&document, self.journal.states(), self.setup.hold_documents);
        for index in plan.new {
            let received = received(&document, &document.entries[index], now);
            self.journal.stage(Record::Received(received))?;
        }
        self.setup.hooks.adopted(&document);
        self.steps = plan.steps;
        self.document = Some(document);
        self.settled = None;
        self.sweep_soon();
        self.hold();
        Ok(())
    }

    /// Ends what waited to be run and is not asked for by `document`, which came after it.
    pub(super) fn withdraw(
        &mut self,
        document: &Document,
        came_after: impl Fn(&Received) -> bool,
    ) -> Result<(), PipelineError> {
        for id in plan(document, self.journal.states(), self.setup.hold_documents).withdrawn {
            let config = match self.journal.states().get(&id) {
                Some(State::Received(config)) if came_after(config) => config.clone(),
                _ => continue,
            };
            let reason = format!(
                "withdrawn: document {} no longer asks for it, it had not been started",
                document.version
            );
            let times = Times { started_unix_ms: config.at_unix_ms, finished_unix_ms: unix_ms() };
            self.not_run(&config, NotRun::because(reason), times)?;
        }
        Ok(())
    }

    pub(super) fn save_document(&mut self) -> Result<(), PipelineError> {
        let (true, Some(stored)) = (self.unsaved, &self.stored) else { return Ok(()) };
        self.history.keep_replaced(&self.setup.document);
        if let Err(error) = self.store.save(stored) {
            return self.disk_fault(with_source(&error));
        }
        let holds = stored.holds();
        self.unsaved = false;
        self.fault = None;
        self.report(Report::DocumentStored(holds));
        Ok(())
    }
}

fn with_source(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
