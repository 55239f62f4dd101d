//! After a crash: what was running is interrupted, and nothing is left of it.

use super::{PipelineError, unix_ms};
use crate::hooks::{Hooks, NotRun};
use crate::journal::{Ending, Journal, Record, State};
use crate::outcome::{Times, result};

/// Records what was running when the agent stopped as interrupted, after killing what is left of it.
pub(super) fn recover(
    journal: &mut Journal,
    hooks: &Hooks,
    boot_id: &str,
) -> Result<(), PipelineError> {
    let started = journal.states().iter().filter_map(|(id, state)| match state {
        State::Started { received, at_unix_ms, boot_id, process } => {
            Some((id.clone(), received.clone(), *at_unix_ms, boot_id.clone(), *process))
        }
        _ => None,
    });
    for (id, config, started_unix_ms, started_in, process) in started.collect::<Vec<_>>() {
        let same_boot = started_in == boot_id;
        let killed = same_boot && hooks.kill_leftover(&id, config.run(), process);
        let why = match (same_boot, killed) {
            (false, _) => "the machine was restarted while the hook ran",
            (true, true) => {
                "the agent was stopped while the hook ran; what was left of it was killed"
            }
            (true, false) => {
                "the agent was stopped while the hook ran, or before its end was recorded"
            }
        };
        tracing::warn!(%id, name = config.name, why, "deployment interrupted");
        let not_run = NotRun::because(format!("interrupted: {why}; it is not run again"));
        let times = Times { started_unix_ms, finished_unix_ms: unix_ms() };
        let result = Box::new(result(&config, &[], not_run.into(), times));
        journal.stage(Record::Finished { id, ending: Ending::Interrupted, result })?;
    }
    Ok(journal.commit()?)
}
