//! What ends a run before it ends by itself, and when.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::Instant;

use super::Pipeline;

/// How long a hook gets between being asked to end and being killed, when the agent stops.
const KILL_GRACE_MS: u64 = 2_000;

#[derive(Debug, Clone, Copy)]
pub(super) struct Stopping {
    /// When the running hook is asked to end, or after that, killed.
    pub(super) next_signal_at: Instant,
    pub(super) asked: bool,
}

impl Pipeline {
    /// Does what is due.
    pub(super) fn end_runs(&mut self, now: Instant) {
        if let (Some(stopping), Some(running)) = (&mut self.stopping, &mut self.running)
            && stopping.next_signal_at <= now
        {
            let signal = if stopping.asked { Signal::KILL } else { Signal::TERM };
            tracing::warn!(
                pid = running.run.mark().pid,
                ?signal,
                "the agent stops: ending the running hook"
            );
            running.stopped = true;
            running.run.signal(signal);
            *stopping = Stopping {
                next_signal_at: now + Duration::from_millis(KILL_GRACE_MS),
                asked: true,
            };
        }
    }

    /// When something is due.
    pub(super) fn stop_timer(&self) -> Option<Instant> {
        self.running.as_ref().and(self.stopping).map(|stopping| stopping.next_signal_at)
    }
}
