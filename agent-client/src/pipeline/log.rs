//! What running hooks have printed, on its way to somebody who watches; when and what, [`follow`](super::follow) says.

use tokio::time::Instant;

use super::Pipeline;
use super::follow::{Key, Printed};
use super::work::Running;
use crate::journal::State;
use crate::outcome::field;

impl Pipeline {
    pub(super) fn send_log(&mut self) {
        let now = Instant::now();
        if self.follow.next_at(now).is_none_or(|at| at > now) {
            return;
        }
        let running = self.running.iter().map(|running| self.printed(running)).collect();
        if let Some(log) = self.follow.make(now, running) {
            self.report(super::Report::Log(log));
        }
    }

    /// A run has ended, and is not among the running ones any more.
    pub(super) fn end_log(&mut self, running: &Running) {
        if self.follow.is_on() {
            let printed = self.printed(running);
            self.follow.ended(printed);
        }
    }

    fn printed<'r>(&self, running: &'r Running) -> Printed<'r> {
        let entry = running.entry();
        let run = self.journal.states().get(&entry.id).map_or(1, State::run);
        let key: Key = (entry.id.to_string(), run);
        let (from, bytes) = running.run.printed_since(self.follow.position(&key));
        Printed {
            key,
            name: field(&entry.name),
            started_unix_ms: running.started_unix_ms,
            from,
            bytes,
            redactor: &running.redactor,
        }
    }
}
