//! Deployments that wait until the document's data are effective: until the command that collects made is
//! done ([`crate::collect`]). Nothing is started meanwhile, and the command is not asked for before what
//! runs has ended.

use super::{Pipeline, Report};

/// A document whose entries wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hold {
    version: u64,
    announced: bool,
}

impl Pipeline {
    /// Whether entries may be started.
    pub(super) fn is_held(&self) -> bool {
        self.hold.is_some()
    }

    /// Holds the document that has just come in force, if that is wanted.
    pub(super) fn hold(&mut self) {
        if let (true, Some(document)) = (self.setup.hold_documents, &self.document) {
            self.hold = Some(Hold { version: document.version, announced: false });
        }
    }

    /// Tells that a document waits, once it is durable and nothing runs.
    pub(super) fn announce_hold(&mut self) {
        let Some(hold) = self.hold.filter(|hold| !hold.announced) else { return };
        if self.unsaved || !self.running.is_empty() || self.stop_at.is_some() {
            return;
        }
        // An operator may have put an earlier one in force.
        let Some(stored) = self.rolled_back_to.as_ref().or(self.stored.as_ref()) else { return };
        let (version, body) = (hold.version, stored.body.clone());
        self.hold = Some(Hold { announced: true, ..hold });
        self.report(Report::Held { version, body });
    }

    /// The document's entries may be started, if it is still the one in force.
    pub(super) fn release(&mut self, version: u64) {
        if self.hold.is_some_and(|hold| hold.version == version) {
            self.hold = None;
        }
    }
}
