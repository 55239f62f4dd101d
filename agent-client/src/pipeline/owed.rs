//! To whom results are owed, and what they have said: the server stores them, and tells Heat; of a polled
//! document, which it may not know, the agent tells Heat itself. Until Heat has such a result, whatever the server
//! says, it is offered again, also after a restart.

use std::sync::Arc;

use super::{Pipeline, PipelineError, Report, Waiting, unix_ms};
use crate::document::{ConfigId, Document};
use crate::journal::{Finished, Record, State, States};
use crate::outcome::field;

impl Pipeline {
    /// The server has stored the result of this run, or will never take it.
    pub(super) fn server_said(
        &mut self,
        id: &ConfigId,
        run: u64,
        refused: Option<String>,
    ) -> Result<(), PipelineError> {
        let Some(finished) = finished(self.journal.states(), id, run) else { return Ok(()) };
        if finished.server.is_some() {
            return Ok(());
        }
        let at_unix_ms = unix_ms();
        // A server tells Heat of what it has itself pushed.
        let tells = finished.is_owed_to_heat() && refused.is_none() && self.is_pushed(id);
        self.journal.stage(match refused {
            Some(reason) => Record::Refused { id: id.clone(), at_unix_ms, reason: field(&reason) },
            None => Record::Signalled { id: id.clone(), at_unix_ms },
        })?;
        if tells {
            self.journal.stage(Record::Heat { id: id.clone(), at_unix_ms, refused: None })?;
        }
        self.is_over(id, run);
        Ok(())
    }

    /// Heat has taken the result of this run from the agent itself, or never will.
    pub(super) fn heat_said(
        &mut self,
        id: &ConfigId,
        run: u64,
        refused: Option<String>,
    ) -> Result<(), PipelineError> {
        let Some(finished) = finished(self.journal.states(), id, run) else { return Ok(()) };
        let at_unix_ms = unix_ms();
        let is_alone = self.setup.agent_id.is_none();
        let is_only_its_word = is_alone || finished.way.is_some();
        let waits_for_server = finished.server.is_none();
        let is_refused = refused.is_some();
        // Where a server tells Heat too, a refusal is not the last word.
        if finished.heat.is_none() && (!is_refused || is_only_its_word) {
            let refused = refused.as_deref().map(field);
            self.journal.stage(Record::Heat { id: id.clone(), at_unix_ms, refused })?;
        }
        if is_refused && is_alone && waits_for_server {
            self.journal.stage(Record::Signalled { id: id.clone(), at_unix_ms })?;
        }
        self.is_over(id, run);
        Ok(())
    }

    /// Tells that nobody waits for a result any more, once that is so.
    fn is_over(&mut self, id: &ConfigId, run: u64) {
        let Some(State::Signalled(done)) = self.journal.states().get(id) else { return };
        // What the server refuses, Heat may still take while the server is away.
        if done.refused.is_none() {
            self.report(Report::ResultOver { id: id.clone(), run });
        }
        self.sweep_soon();
    }

    /// Whether the newest document that a server has pushed names this config.
    fn is_pushed(&self, id: &ConfigId) -> bool {
        self.newest().is_some_and(|newest| newest.entries.iter().any(|entry| entry.id == *id))
    }

    /// The newest document that a server has pushed, whatever is in force.
    pub(super) fn newest(&self) -> Option<Arc<Document>> {
        let stored = self.stored.as_ref()?;
        // A polled one goes by the version of the newest.
        let is_newest = |d: &&Arc<Document>| self.polled.is_none() && d.version == stored.version;
        match self.document.as_ref().filter(is_newest) {
            Some(document) => Some(Arc::clone(document)),
            None => Document::parse(stored.version, &stored.body).ok().map(Arc::new),
        }
    }
}

/// What has ended with this run and is still owed to somebody.
fn finished<'a>(states: &'a States, id: &ConfigId, run: u64) -> Option<&'a Finished> {
    match states.get(id) {
        Some(state @ State::Finished(finished)) if state.run() == run => Some(finished),
        _ => None,
    }
}

/// Results that somebody still waits for.
pub(super) fn waiting(states: &States) -> impl Iterator<Item = Waiting> {
    states.iter().filter_map(|(_, state)| match state {
        State::Finished(finished) => Some(Waiting {
            result: (*finished.result).clone(),
            for_server: finished.server.is_none(),
            for_heat: finished.heat.is_none(),
            way: finished.way.clone(),
        }),
        _ => None,
    })
}
