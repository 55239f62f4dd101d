//! The apply pipeline: one thread that owns the state directory, runs hooks one after the other, and
//! never lets anything leave before it is durable.
//!
//! A document's way: its new entries are recorded as received and the first to run as started, in one
//! synced frame; the hook starts; then the document itself is made durable and reported as stored. So the
//! way from the push to the hook has one sync, and what a crash may cost at each point is:
//!
//! | crash | after restart |
//! |---|---|
//! | before the frame is synced | the document was not confirmed: the server sends it again |
//! | after it, before the document is on disk | the started entry is reported as interrupted; the document comes again, the other entries run |
//! | while a hook runs | what is left of it is killed, its entry is reported as interrupted |
//! | after a hook ended, before its end is synced | the same: it may have ended well, but nobody can tell |
//! | after that | the result is sent, again if need be |
//!
//! Talks by channels: [`Command`] in, [`Report`] out, [`Progress`] as a value that is always the newest.

mod recover;
mod talk;
mod view;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use metadata_delivery::message::{DeploymentState, Progress};
use rustix::process::Signal;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

pub use self::talk::{Command, Opened, PipelineError, Report, Setup};
use crate::document::{ConfigId, Document, Entry, Output, Work};
use crate::hooks::process::{Activity, Exit};
use crate::hooks::{Hook, NotRun, Response, Run, proc};
use crate::journal::{Ending, Journal, LogError, Received, Record, State};
use crate::outcome::{Times, field, result};
use crate::plan::plan;
use crate::status::{LinkState, LinkStatus};
use crate::store::{DocumentStore, StoredDocument};

/// How long to wait before writing to a disk that was full or refused.
const DISK_RETRY_MS: u64 = 5_000;
/// How long a hook gets between being asked to end and being killed, when the agent stops.
const KILL_GRACE_MS: u64 = 2_000;

/// What may happen only after the staged records are durable.
enum Effect {
    Report(Report),
    Start { document: Arc<Document>, index: usize, hook: Hook, started_unix_ms: u64 },
}

/// A hook at work.
struct Running {
    document: Arc<Document>,
    index: usize,
    run: Run,
    started_unix_ms: u64,
    /// Set when the agent stops it.
    stopped: bool,
}

/// The pipeline; see the module's text.
pub struct Pipeline {
    setup: Setup,
    journal: Journal,
    store: DocumentStore,
    boot_id: String,
    stored: Option<StoredDocument>,
    document: Option<Arc<Document>>,
    /// Whether `stored` is still to be written.
    unsaved: bool,
    /// Entries of `document` that are still to be run.
    steps: VecDeque<usize>,
    effects: Vec<Effect>,
    running: Option<Running>,
    settled: Option<u64>,
    fault: Option<String>,
    retry_at: Option<Instant>,
    link: LinkStatus,
    stopping: Option<Stopping>,
    snapshot_due: bool,
    snapshot_at: Option<Instant>,
    reports: mpsc::UnboundedSender<Report>,
    progress: watch::Sender<Option<Progress>>,
}

#[derive(Debug, Clone, Copy)]
struct Stopping {
    /// When the running hook is asked to end, or after that, killed.
    next_signal_at: Instant,
    asked: bool,
}

impl Pipeline {
    /// Opens the state directory's files and brings the journal up to date: what was running when the
    /// agent stopped is killed and recorded as interrupted.
    ///
    /// # Errors
    /// See [`PipelineError`].
    pub fn open(
        setup: Setup,
        reports: mpsc::UnboundedSender<Report>,
        progress: watch::Sender<Option<Progress>>,
    ) -> Result<(Self, Opened), PipelineError> {
        let mut journal = Journal::open(&setup.journal)?;
        setup.hooks.warm_up();
        let boot_id = proc::boot_id();
        recover::recover(&mut journal, &setup.hooks, &boot_id)?;
        let store = DocumentStore::new(setup.document.clone());
        let stored = store.load()?;
        let document = stored.as_ref().and_then(|stored| {
            Document::parse(stored.version, &stored.body)
                .inspect_err(|error| tracing::error!(%error, "the stored document is unusable"))
                .ok()
        });
        let results = journal.states().iter().filter_map(|(_, state)| match state {
            State::Finished { result, .. } => Some((**result).clone()),
            _ => None,
        });
        let opened = Opened {
            holds: document.as_ref().and(stored.as_ref()).map(StoredDocument::holds),
            results: results.collect(),
        };
        let mut pipeline = Self {
            setup,
            journal,
            store,
            boot_id,
            stored,
            document: None,
            unsaved: false,
            steps: VecDeque::new(),
            effects: Vec::new(),
            running: None,
            settled: None,
            fault: None,
            retry_at: None,
            link: LinkStatus::new(unix_ms()),
            stopping: None,
            snapshot_due: true,
            snapshot_at: None,
            reports,
            progress,
        };
        if let Some(document) = document {
            // What was received from a newer document, which a crash kept from the disk, is still asked for.
            let version = document.version;
            pipeline.withdraw(&document, |config| config.document_version < version)?;
            pipeline.adopt(document)?;
        }
        Ok((pipeline, opened))
    }

    /// Works until told to stop (or until nobody is left to tell).
    ///
    /// # Errors
    /// The journal failed in a way that only a restart can mend.
    pub async fn run(
        mut self,
        mut commands: mpsc::UnboundedReceiver<Command>,
    ) -> Result<(), PipelineError> {
        let mut somebody_tells = true;
        loop {
            self.advance().await?;
            self.publish();
            if self.stopping.is_some() && self.running.is_none() {
                break;
            }
            let timer = [self.retry_at, self.snapshot_timer(), self.stop_timer()];
            let timer = timer.into_iter().flatten().min();
            tokio::select! {
                command = commands.recv(), if somebody_tells => {
                    somebody_tells = command.is_some();
                    self.command(command.unwrap_or(Command::Stop))?;
                }
                activity = activity(&mut self.running) => self.active(activity)?,
                () = sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() => {
                    self.on_time();
                }
            }
        }
        self.link.state = LinkState::Stopped;
        self.snapshot_at = None;
        self.snapshot_due = true;
        self.publish();
        Ok(())
    }

    fn command(&mut self, command: Command) -> Result<(), PipelineError> {
        self.snapshot_due = true;
        match command {
            Command::Document { version, body } => self.document(version, body)?,
            Command::ResultStored(id) => {
                if matches!(self.journal.states().get(&id), Some(State::Finished { .. })) {
                    self.journal.stage(Record::Signalled { id })?;
                }
            }
            Command::Link(link) => self.link = link,
            Command::Stop => {
                let next_signal_at = Instant::now() + self.setup.stop_wait;
                self.stopping.get_or_insert(Stopping { next_signal_at, asked: false });
            }
        }
        Ok(())
    }

    fn document(&mut self, version: u64, body: Bytes) -> Result<(), PipelineError> {
        let stored = StoredDocument::new(version, body, unix_ms());
        let holds = stored.holds();
        if self.stored.as_ref().is_some_and(|held| held.holds() == holds) {
            if !self.unsaved {
                self.report(Report::DocumentStored(holds));
            }
            return Ok(());
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
        self.stored = Some(stored);
        self.unsaved = true;
        self.adopt(document)
    }

    /// Makes `document` the one in force: its new entries are recorded, its steps planned.
    fn adopt(&mut self, document: Document) -> Result<(), PipelineError> {
        let now = unix_ms();
        let plan = plan(&document, self.journal.states());
        for index in plan.new {
            let received = received(&document, &document.entries[index], now);
            self.journal.stage(Record::Received(received))?;
        }
        self.steps = plan.steps;
        self.document = Some(Arc::new(document));
        self.settled = None;
        Ok(())
    }

    /// Ends what waited to be run and is not asked for by `document`, which came after it.
    fn withdraw(
        &mut self,
        document: &Document,
        came_after: impl Fn(&Received) -> bool,
    ) -> Result<(), PipelineError> {
        for id in plan(document, self.journal.states()).withdrawn {
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

    /// Does everything that can be done at once.
    async fn advance(&mut self) -> Result<(), PipelineError> {
        loop {
            if self.retry_at.is_some() {
                return Ok(());
            }
            self.next_step()?;
            let signalled_only = self.effects.is_empty();
            let written = if signalled_only && !self.unsaved {
                self.journal.write()
            } else {
                self.journal.commit()
            };
            if let Err(error) = written {
                return self.disk_fault(error);
            }
            let effects = std::mem::take(&mut self.effects);
            if effects.is_empty() {
                break;
            }
            for effect in effects {
                match effect {
                    Effect::Report(report) => self.report(report),
                    Effect::Start { document, index, hook, started_unix_ms } => {
                        self.start(document, index, hook, started_unix_ms).await?;
                    }
                }
            }
        }
        self.save_document()?;
        self.settle();
        self.compact()
    }

    /// Stages the start of the next entry, and the end of those before it that cannot be run.
    fn next_step(&mut self) -> Result<(), PipelineError> {
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
            let config = received(&document, entry, now);
            self.not_run(&config, not_run, times)?;
        }
        Ok(())
    }

    async fn start(
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
                let config = received(&document, entry, started_unix_ms);
                self.not_run(&config, not_run, times)?;
            }
        }
        Ok(())
    }

    fn active(&mut self, activity: Activity) -> Result<(), PipelineError> {
        self.snapshot_due = true;
        match activity {
            Activity::Printed => Ok(()),
            Activity::Exited(exit) => match self.running.take() {
                Some(running) => self.exited(&running, exit),
                None => Ok(()),
            },
        }
    }

    fn exited(&mut self, running: &Running, exit: Exit) -> Result<(), PipelineError> {
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
        let received = received(&running.document, entry, running.started_unix_ms);
        self.end(&received, &config.outputs, response, times, ending)
    }

    /// Stages the end of a config that was not run.
    fn not_run(
        &mut self,
        config: &Received,
        not_run: NotRun,
        times: Times,
    ) -> Result<(), PipelineError> {
        self.end(config, &[], not_run.into(), times, None)
    }

    /// Stages the end of a config and, once that is durable, the sending of its result.
    fn end(
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

    fn save_document(&mut self) -> Result<(), PipelineError> {
        let (true, Some(stored)) = (self.unsaved, &self.stored) else { return Ok(()) };
        if let Err(error) = self.store.save(stored) {
            return self.disk_fault(with_source(&error));
        }
        let holds = stored.holds();
        self.unsaved = false;
        self.fault = None;
        self.report(Report::DocumentStored(holds));
        Ok(())
    }

    fn settle(&mut self) {
        let Some(document) = &self.document else { return };
        let done = self.steps.is_empty() && self.running.is_none() && !self.unsaved;
        if done && self.settled != Some(document.version) {
            self.settled = Some(document.version);
            let failed = self.deployments().iter().any(|(_, state)| {
                matches!(state, DeploymentState::Failed | DeploymentState::Interrupted)
            });
            self.report(Report::Settled { version: document.version, failed });
        }
    }

    fn compact(&mut self) -> Result<(), PipelineError> {
        if !self.journal.is_compaction_due() {
            return Ok(());
        }
        let entries = self.document.iter().flat_map(|document| &document.entries);
        let current: BTreeSet<&ConfigId> = entries.map(|entry| &entry.id).collect();
        match self.journal.compact(|id| current.contains(id)) {
            Ok(()) => Ok(()),
            Err(error) => self.disk_fault(error),
        }
    }

    /// A disk that is full may have room later: what is staged stays staged. A log that is closed cannot
    /// be trusted any more.
    fn disk_fault(&mut self, error: impl std::fmt::Display) -> Result<(), PipelineError> {
        let fault = error.to_string();
        if self.journal.is_closed() {
            let path = self.setup.journal.clone();
            return Err(LogError::Closed { path, fault }.into());
        }
        tracing::error!(
            fault,
            retry_in_ms = DISK_RETRY_MS,
            "the state directory cannot be written"
        );
        self.fault = Some(fault);
        self.retry_at = Some(Instant::now() + Duration::from_millis(DISK_RETRY_MS));
        self.snapshot_due = true;
        Ok(())
    }

    fn on_time(&mut self) {
        let now = Instant::now();
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.fault = None;
            self.snapshot_due = true;
        }
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

    fn stop_timer(&self) -> Option<Instant> {
        self.running.as_ref().and(self.stopping).map(|stopping| stopping.next_signal_at)
    }

    fn report(&self, report: Report) {
        // Nobody listens only when the agent is ending.
        let _ = self.reports.send(report);
    }
}

async fn activity(running: &mut Option<Running>) -> Activity {
    match running {
        Some(running) => running.run.next().await,
        None => std::future::pending().await,
    }
}

fn received(document: &Document, entry: &Entry, at_unix_ms: u64) -> Received {
    Received {
        id: entry.id.clone(),
        name: field(&entry.name),
        group: field(&entry.group),
        action: field(&entry.action),
        document_version: document.version,
        at_unix_ms,
    }
}

fn with_source(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Wall clock, in milliseconds since 1970.
pub fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
