//! Runs: one entry after the other is started, watched, and brought to its end.

use std::sync::Arc;

use super::{Pipeline, PipelineError, Report, unix_ms};
use crate::document::{Document, Entry, Output, Work};
use crate::hooks::process::{Activity, Exit};
use crate::hooks::{Hook, NotRun, Response, Run};
use crate::journal::{Ending, Received, Record, State};
use crate::outcome::{Times, field, result};

/// What may happen only after the staged records are durable.
pub(super) enum Effect {
    Report(Report),
    Start { document: Arc<Document>, index: usize, hook: Hook, started_unix_ms: u64 },
}

/// A hook at work.
pub(super) struct Running {
    pub(super) document: Arc<Document>,
    pub(super) index: usize,
    pub(super) run: Run,
    pub(super) started_unix_ms: u64,
    /// Set when the agent stops it.
    pub(super) stopped: bool,
}

impl Pipeline {
    /// Stages the start of the next entry, and the end of those before it that cannot be run.
    pub(super) fn next_step(&mut self) -> Result<(), PipelineError> {
        let starting =
            |effects: &[Effect]| effects.iter().any(|e| matches!(e, Effect::Start { .. }));
        while self.running.is_none() && self.stopping.is_none() && !starting(&self.effects) {
            let Some(document) = self.document.clone() else { return Ok(()) };
            let Some(index) = self.steps.pop_front() else { return Ok(()) };
            self.snapshot_due = true;
            let entry = &document.entries[index];
            let not_run = match &entry.work {
                Work::Data => continue,
                Work::Bad(reason) => NotRun::because(format!("bad entry: {reason}")),
                Work::Run(config) => match self.setup.hooks.find(&config.hook) {
                    None => self.setup.hooks.no_such_hook(&config.hook),
                    Some(hook) => {
                        let started_unix_ms = unix_ms();
                        self.journal.stage(Record::Started {
                            id: entry.id.clone(),
                            at_unix_ms: started_unix_ms,
                            boot_id: self.boot_id.clone(),
                        })?;
                        self.effects.push(Effect::Start {
                            document: Arc::clone(&document),
                            index,
                            hook,
                            started_unix_ms,
                        });
                        return Ok(());
                    }
                },
            };
            let now = unix_ms();
            let times = Times { started_unix_ms: now, finished_unix_ms: now };
            let config = self.asked(&document, entry, now);
            self.not_run(&config, not_run, times)?;
        }
        Ok(())
    }

    pub(super) async fn start(
        &mut self,
        document: Arc<Document>,
        index: usize,
        hook: Hook,
        started_unix_ms: u64,
    ) -> Result<(), PipelineError> {
        let entry = &document.entries[index];
        let Work::Run(config) = &entry.work else { return Ok(()) };
        match self.setup.hooks.start(&hook, &entry.id, config).await {
            Ok(run) => {
                tracing::info!(id = %entry.id, name = entry.name, hook = config.hook, pid = run.mark().pid, "hook started");
                self.journal
                    .stage(Record::Spawned { id: entry.id.clone(), process: run.mark() })?;
                // Best effort, and without a sync: it only helps to find the process should we be killed
                // while the kernel lives on, and the run's name finds it without.
                let _ = self.journal.write();
                self.running =
                    Some(Running { document, index, run, started_unix_ms, stopped: false });
            }
            Err(not_run) => {
                let times = Times { started_unix_ms, finished_unix_ms: unix_ms() };
                let config = self.asked(&document, entry, started_unix_ms);
                self.not_run(&config, not_run, times)?;
            }
        }
        Ok(())
    }

    pub(super) fn active(&mut self, activity: Activity) -> Result<(), PipelineError> {
        self.snapshot_due = true;
        match activity {
            Activity::Printed => Ok(()),
            Activity::Exited(exit) => match self.running.take() {
                Some(running) => self.exited(&running, exit),
                None => Ok(()),
            },
        }
    }

    pub(super) fn exited(&mut self, running: &Running, exit: Exit) -> Result<(), PipelineError> {
        let entry = &running.document.entries[running.index];
        let Work::Run(config) = &entry.work else { return Ok(()) };
        let mut response = self.setup.hooks.respond(running.run.hook(), &entry.id, config, exit);
        let mut ending = None;
        if running.stopped {
            ending = Some(Ending::Interrupted);
            let reason =
                "interrupted: the agent was stopped while the hook ran; it is not run again";
            response.stderr.push_str(&format!("agent-client: {reason}\n"));
            response.reason = Some(reason.into());
        }
        let times = Times { started_unix_ms: running.started_unix_ms, finished_unix_ms: unix_ms() };
        let received = self.asked(&running.document, entry, running.started_unix_ms);
        self.end(&received, &config.outputs, response, times, ending)
    }

    /// What asked for the run of an entry: as the journal has it, which knows of reruns.
    fn asked(&self, document: &Document, entry: &Entry, at_unix_ms: u64) -> Received {
        match self.journal.states().get(&entry.id) {
            Some(State::Received(asked) | State::Started { received: asked, .. }) => {
                Received { document_version: document.version, ..asked.clone() }
            }
            _ => received(document, entry, at_unix_ms),
        }
    }

    /// Stages the end of a config that was not run.
    pub(super) fn not_run(
        &mut self,
        config: &Received,
        not_run: NotRun,
        times: Times,
    ) -> Result<(), PipelineError> {
        self.end(config, &[], not_run.into(), times, None)
    }

    /// Stages the end of a config and, once that is durable, the sending of its result.
    pub(super) fn end(
        &mut self,
        config: &Received,
        declared: &[Output],
        response: Response,
        times: Times,
        ending: Option<Ending>,
    ) -> Result<(), PipelineError> {
        let result = result(config, declared, response, times);
        let ending = ending.unwrap_or_else(|| result.status.into());
        tracing::info!(
            id = %config.id,
            name = config.name,
            status = %result.status,
            code = result.deploy_status_code,
            reason = result.reason.as_deref().unwrap_or_default(),
            "deployment ended"
        );
        self.journal.stage(Record::Finished {
            id: config.id.clone(),
            ending,
            result: Box::new(result.clone()),
        })?;
        self.effects.push(Effect::Report(Report::Result(Box::new(result))));
        Ok(())
    }
}

pub(super) async fn activity(running: &mut Option<Running>) -> Activity {
    match running {
        Some(running) => running.run.next().await,
        None => std::future::pending().await,
    }
}

pub(super) fn received(document: &Document, entry: &Entry, at_unix_ms: u64) -> Received {
    Received {
        id: entry.id.clone(),
        name: field(&entry.name),
        group: field(&entry.group),
        action: field(&entry.action),
        document_version: document.version,
        at_unix_ms,
        rerun: None,
    }
}
