//! What ends a run before it ends by itself: its timeout, a newer document, the end of the agent.
//!
//! Each way is the same: the run is asked to end (SIGTERM to its process group), and what is left of it and
//! of everything that it started when the grace is over is killed. What it printed until then is kept.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use super::Pipeline;
use super::work::Running;
use crate::document::Document;
use crate::journal::Ending;

/// The action of deployments that are withdrawn while they run.
const DELETE: &str = "DELETE";

/// Why a run was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// It took longer than this.
    TimedOut(Duration),
    /// The document of this version does not name it.
    Cancelled(u64),
    /// The agent stops.
    Stopped,
}

/// The reason in its result.
impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut(timeout) => write!(
                f,
                "timed out after {} s: it was ended; options.timeout of the deployment, or the agent's hook_timeout, allow more",
                timeout.as_secs_f64()
            ),
            Self::Cancelled(version) => {
                write!(f, "cancelled: document {version} no longer asks for it, it was ended")
            }
            Self::Stopped => f.write_str(
                "interrupted: the agent was stopped while the hook ran; it is not run again",
            ),
        }
    }
}

impl Why {
    pub(super) fn ending(self) -> Ending {
        match self {
            Self::TimedOut(_) | Self::Cancelled(_) => Ending::Failed,
            Self::Stopped => Ending::Interrupted,
        }
    }
}

/// A run that was asked to end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) why: Why,
    /// When it is killed; `None`: it was.
    kill_at: Option<Instant>,
}

impl Running {
    /// Asks the run to end, unless it was asked before, or has ended and is about to say so.
    fn ask_to_end(&mut self, why: Why, now: Instant, grace: Duration) {
        if self.asked.is_some() || self.run.has_exited() {
            return;
        }
        let id = &self.entry().id;
        tracing::warn!(%id, pid = self.run.mark().pid, %why, "asking a hook to end");
        let kill_at = now + grace;
        self.run.ask_to_end(kill_at);
        self.asked = Some(Asked { why, kill_at: Some(kill_at) });
    }

    fn timer(&self) -> Option<Instant> {
        match self.asked {
            Some(asked) => asked.kill_at,
            None => self.timeout.map(|(at, _)| at),
        }
    }

    fn on_time(&mut self, now: Instant, grace: Duration) {
        if let Some((at, timeout)) = self.timeout.take_if(|(at, _)| *at <= now) {
            self.ask_to_end(Why::TimedOut(timeout), at.max(now), grace);
        }
        if self.asked.and_then(|asked| asked.kill_at).is_some_and(|at| at <= now) {
            self.kill_rest("the grace is over: killing a hook and all that it started");
        }
    }

    /// Kills what is left of a run that was asked to end. One that ended in its own time may leave
    /// processes behind: it means to.
    pub(super) fn kill_rest(&mut self, what: &'static str) {
        if self.asked.as_mut().is_some_and(|asked| asked.kill_at.take().is_some()) {
            let id = &self.entry().id;
            tracing::debug!(%id, pid = self.run.mark().pid, "{what}");
            self.run.kill();
        }
    }
}

impl Pipeline {
    /// Asks runs to end that `document`, which has just come, does not name. A run that it names goes on,
    /// and so does one for a DELETE: of a server that Nova does not know, Heat withdraws that half a second
    /// after the push and waits for nobody, which is no reason to stop a drain.
    pub(super) fn cancel(&mut self, document: &Document) {
        let (now, grace) = (Instant::now(), self.setup.limits.kill_grace);
        for running in &mut self.running {
            let (id, action) = (&running.entry().id, &running.entry().action);
            if action != DELETE && !document.entries.iter().any(|entry| entry.id == *id) {
                running.ask_to_end(Why::Cancelled(document.version), now, grace);
            }
        }
    }

    /// Ends what has had its time.
    pub(super) fn end_runs(&mut self, now: Instant) {
        let grace = self.setup.limits.kill_grace;
        let stop = self.stop_at.is_some_and(|at| at <= now);
        for running in &mut self.running {
            if stop {
                running.ask_to_end(Why::Stopped, now, grace);
            }
            running.on_time(now, grace);
        }
    }

    /// When a run has had its time.
    pub(super) fn run_timer(&self) -> Option<Instant> {
        let unasked = |r: &Running| r.asked.is_none() && !r.run.has_exited();
        let stop = self.stop_at.filter(|_| self.running.iter().any(unasked));
        self.running.iter().filter_map(Running::timer).chain(stop).min()
    }
}
