//! Deployments that wait until the document's data are effective: until the command that collects made is
//! done ([`crate::collect`]). Nothing is started meanwhile, and the command is not asked for before what
//! runs has ended.

use std::sync::Arc;

use bytes::Bytes;

use super::{Pipeline, PipelineError, Report, unix_ms};
use crate::document::Document;
use crate::status::LinkState;
use crate::store::StoredDocument;

/// A document whose entries wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hold {
    /// Which hold this is: documents may come again.
    number: u64,
    announced: bool,
}

impl Pipeline {
    /// Whether entries must wait.
    pub(super) fn is_held(&self) -> bool {
        self.hold.is_some()
    }

    /// Holds the document that has just come in force, if that is wanted.
    pub(super) fn hold(&mut self) {
        if self.setup.hold_documents {
            self.holds += 1;
            self.hold = Some(Hold { number: self.holds, announced: false });
        }
    }

    /// Tells that a document waits, once it is durable and nothing runs.
    pub(super) fn announce_hold(&mut self) {
        let Some(hold) = self.hold.filter(|hold| !hold.announced) else { return };
        if self.unsaved || !self.running.is_empty() || self.stop_at.is_some() {
            return;
        }
        // An operator may have put an earlier one in force, or the servers may be out of reach.
        let in_force = self.polled.as_ref().or(self.rolled_back_to.as_ref());
        let Some(stored) = in_force.or(self.stored.as_ref()) else { return };
        let (hold, body) = (hold.number, stored.body.clone());
        self.hold = Some(Hold { number: hold, announced: true });
        self.report(Report::Held { hold, body });
    }

    /// The entries may be started, if it is still this hold.
    pub(super) fn release(&mut self, number: u64) {
        if self.hold.is_some_and(|hold| hold.number == number) {
            self.hold = None;
        }
    }

    /// Puts a document in force that was polled, since no server is reached, until one is pushed or polled
    /// again, or the stored one is known to be the newest. It is not kept: after a restart it is polled anew, and the journal knows what of it was run.
    pub(super) fn polled(&mut self, body: Bytes) -> Result<(), PipelineError> {
        if self.link.state == LinkState::Connected && self.stored.is_some() {
            tracing::debug!("document polled while a server was reached: left out");
            return Ok(());
        }
        let version = self.stored.as_ref().map_or(0, |newest| newest.version);
        let document = match Document::polled(version, &body) {
            Ok(document) => document,
            Err(error) => {
                tracing::error!(%error, "polled document refused; the last one stays in force");
                return Ok(());
            }
        };
        tracing::info!(deployments = document.entries.len(), "document polled");
        self.withdraw(&document, |_| true)?;
        self.cancel(&document);
        self.polled = Some(StoredDocument::new(version, body, unix_ms()));
        self.adopt(Arc::new(document))
    }

    /// A server is reached, and has nothing newer than what is stored: a polled document is over.
    pub(super) fn stored_is_newest(&mut self) -> Result<(), PipelineError> {
        let (Some(_), Some(newest)) = (&self.polled, &self.stored) else { return Ok(()) };
        let stored = self.rolled_back_to.as_ref().unwrap_or(newest);
        let document = match Document::parse(stored.version, &stored.body) {
            Ok(document) => document,
            Err(error) => {
                tracing::error!(%error, "the stored document is unusable");
                return Ok(());
            }
        };
        tracing::info!(version = document.version, "the polled document is over");
        self.withdraw(&document, |_| true)?;
        self.cancel(&document);
        self.polled = None;
        self.adopt(Arc::new(document))
    }
}
