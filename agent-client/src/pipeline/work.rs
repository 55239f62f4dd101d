//! Runs: entries are started, watched, and brought to their ends.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use serde_json::Map;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::earlier::Taken;
use super::lanes::{Lane, Wait, waits};
use super::stop::Asked;
use super::{Pipeline, PipelineError, Report, Waiting, unix_ms};
use crate::control::message::Answer;
use crate::document::{Document, Entry, Output, Work};
use crate::hooks::process::{Activity, Exit};
use crate::hooks::{Hook, NotRun, Response, Run};
use crate::journal::{Ending, Received, Record, State};
use crate::outcome::{Times, field, result};
use crate::redact::Redactor;

/// What may happen only after the staged records are durable.
pub(super) enum Effect {
    Report(Report),
    /// To an operator who asked for a change.
    Answer(oneshot::Sender<Answer>, Box<Answer>),
    Start {
        document: Arc<Document>,
        index: usize,
        hook: Hook,
        started_unix_ms: u64,
    },
}

/// A hook at work.
pub(super) struct Running {
    pub(super) document: Arc<Document>,
    pub(super) index: usize,
    pub(super) run: Run,
    pub(super) started_unix_ms: u64,
    /// Hides the secrets of its inputs in what we say about it.
    pub(super) redactor: Redactor,
    /// When it has taken too long, and how long that is.
    pub(super) timeout: Option<(Instant, Duration)>,
    /// Set once it was asked to end.
    pub(super) asked: Option<Asked>,
}

impl Running {
    /// Which entry it is of.
    pub(super) fn entry(&self) -> &Entry {
        &self.document.entries[self.index]
    }
}

/// The lane of an entry.
pub(super) fn lane(entry: &Entry) -> Lane<'_> {
    match &entry.work {
        Work::Run(config) => config.options.lane.as_deref(),
        Work::Data | Work::Bad(_) => None,
    }
}

impl Pipeline {
    /// What each of the steps waits for.
    pub(super) fn waits<'a>(&'a self, document: &'a Document) -> impl Iterator<Item = Wait> {
        let starting = self.effects.iter().filter_map(|effect| match effect {
            Effect::Start { document, index, .. } => Some(lane(&document.entries[*index])),
            Effect::Report(_) | Effect::Answer(..) => None,
        });
        let running = self.running.iter().map(|running| lane(running.entry()));
        let queue = self.steps.iter().map(|index| lane(&document.entries[*index]));
        waits(queue, running.chain(starting), self.setup.limits.lanes_max)
    }

    /// Stages the start of the next entries, and the end of those before them that cannot be run.
    pub(super) fn next_steps(&mut self) -> Result<(), PipelineError> {
        let Some(document) = self.document.clone() else { return Ok(()) };
        while self.stop_at.is_none() && !self.is_held() {
            let next = self.waits(&document).position(|wait| wait == Wait::None);
            let next = next.and_then(|place| Some((place, self.steps.remove(place)?)));
            let Some((place, index)) = next else { break };
            self.snapshot_due = true;
            let entry = &document.entries[index];
            match self.of_heat_config(&document, entry)? {
                Taken::Nothing => {}
                Taken::Ended => continue,
                Taken::AtIt => {
                    self.steps.insert(place, index);
                    break;
                }
            }
            let not_run = match &entry.work {
                Work::Data => {
                    self.answer_data(&document, entry)?;
                    continue;
                }
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
                        let document = Arc::clone(&document);
                        self.effects.push(Effect::Start { document, index, hook, started_unix_ms });
                        continue;
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

    /// Data for templates are effective once the command is done, without which nothing gets here: Heat
    /// waits for a signal of these deployments too, and no hook gives one.
    fn answer_data(&mut self, document: &Document, entry: &Entry) -> Result<(), PipelineError> {
        let now = unix_ms();
        let config = self.asked(document, entry, now);
        let response = Response {
            stdout: format!("{} deployment {} completed", entry.group, entry.id),
            stderr: String::new(),
            status_code: 0,
            outputs: Map::new(),
            reason: None,
        };
        let times = Times { started_unix_ms: now, finished_unix_ms: now };
        self.end(&config, &[], response, times, None)
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
        let run = self.journal.states().get(&entry.id).map_or(1, State::run);
        let started = match self.cancelled_meanwhile(entry) {
            Some(cancelled) => Err(cancelled),
            None => self.setup.hooks.start(&hook, &entry.id, run, config).await,
        };
        match started {
            Ok(run) => {
                tracing::info!(id = %entry.id, name = entry.name, hook = config.hook, pid = run.mark().pid, "hook started");
                self.journal
                    .stage(Record::Spawned { id: entry.id.clone(), process: run.mark() })?;
                // Best effort, and without a sync: it only helps to find the process should we be killed
                // while the kernel lives on, and the run's name finds it without.
                let _ = self.journal.write();
                let timeout = config.options.timeout_or(self.setup.limits.timeout);
                let redactor = Redactor::of_config(config);
                self.running.push(Running {
                    index,
                    run,
                    started_unix_ms,
                    redactor,
                    timeout: timeout.map(|timeout| (Instant::now() + timeout, timeout)),
                    asked: None,
                    document,
                });
                self.follow.news();
            }
            Err(not_run) => {
                let times = Times { started_unix_ms, finished_unix_ms: unix_ms() };
                let received = self.asked(&document, entry, started_unix_ms);
                let reason = Redactor::of_config(config).redact(&not_run.reason).into_owned();
                self.not_run(&received, NotRun { reason, ..not_run }, times)?;
            }
        }
        Ok(())
    }

    /// Between the decision to start an entry and its start a full disk may have taken any time.
    fn cancelled_meanwhile(&self, entry: &Entry) -> Option<NotRun> {
        let document = self.document.as_ref()?;
        let named = document.entries.iter().any(|other| other.id == entry.id);
        (!named).then(|| {
            NotRun::because(format!(
                "cancelled: document {} no longer asks for it, its hook had not been started",
                document.version
            ))
        })
    }

    /// Takes in what the run at this place did.
    pub(super) fn active(&mut self, which: usize, activity: Activity) -> Result<(), PipelineError> {
        self.snapshot_due = true;
        self.turn = which + 1;
        match activity {
            Activity::Printed => {
                self.follow.news();
                Ok(())
            }
            Activity::Exited(exit) => {
                let running = self.running.remove(which);
                self.exited(running, exit)
            }
        }
    }

    fn exited(&mut self, mut running: Running, exit: Exit) -> Result<(), PipelineError> {
        running.kill_rest("killing what a hook has left that was asked to end");
        self.setup.hooks.tidy();
        self.end_log(&running);
        let entry = running.entry();
        let Work::Run(config) = &entry.work else { return Ok(()) };
        let mut response = self.setup.hooks.respond(running.run.hook(), &entry.id, config, exit);
        if let Some(asked) = running.asked {
            let reason = asked.why.to_string();
            response.stderr.push_str(&format!("agent-client: {reason}\n"));
            response.reason = Some(reason);
        }
        let redact = |reason: String| running.redactor.redact(&reason).into_owned();
        response.reason = response.reason.map(redact);
        let times = Times { started_unix_ms: running.started_unix_ms, finished_unix_ms: unix_ms() };
        let received = self.asked(&running.document, entry, running.started_unix_ms);
        let ending = running.asked.map(|asked| asked.why.ending());
        self.end(&received, &config.outputs, response, times, ending)
    }

    /// What asked for the run of an entry: as the journal has it, which knows of reruns.
    pub(super) fn asked(&self, document: &Document, entry: &Entry, at_unix_ms: u64) -> Received {
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
        let way = config.way.clone();
        let result = Waiting { result, for_server: true, for_heat: true, way };
        self.effects.push(Effect::Report(Report::Result(Box::new(result))));
        Ok(())
    }
}

/// Waits until one of the runs does something, and tells which. The one at `turn` is asked first, so that
/// one that prints without end does not silence the others.
pub(super) async fn activity(running: &mut [Running], turn: usize) -> (usize, Activity) {
    let mut waiting: Vec<(usize, Pin<Box<_>>)> = running
        .iter_mut()
        .enumerate()
        .map(|(which, running)| (which, Box::pin(running.run.next())))
        .collect();
    let first = turn.checked_rem(waiting.len()).unwrap_or(0);
    waiting.rotate_left(first);
    poll_fn(|context| {
        for (which, next) in &mut waiting {
            if let Poll::Ready(activity) = next.as_mut().poll(context) {
                return Poll::Ready((*which, activity));
            }
        }
        Poll::Pending
    })
    .await
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
        way: entry.way.clone(),
    }
}
