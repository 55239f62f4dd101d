//! The apply pipeline: one thread that owns the state directory, runs hooks, and never lets anything leave
//! before it is durable.
//!
//! Hooks run one after the other in document order; with a setting, one per lane ([`RunLimits::lanes_max`]).
//! A run that takes too long, or that a newer document does not name, is ended (`stop`).
//!
//! A document's way: its new entries are recorded as received and the first to run (one of each lane) as
//! started, in one synced frame; their hooks start; then the document itself is made durable and reported
//! as stored. So the way from the push to the hook has one sync, and what a crash may cost at each point is:
//!
//! | crash | after restart |
//! |---|---|
//! | before the frame is synced | the document was not confirmed: the server sends it again |
//! | after it, before the document is on disk | the entries started in it are reported as interrupted, whether their hooks were started or not; the document comes again, the other entries run |
//! | while hooks run | what is left of each is killed, its entry is reported as interrupted |
//! | while a run is being ended (timeout, cancel) | the same: it is killed and reported as interrupted |
//! | after a hook ended, before its end is synced | the same: it may have ended well, but nobody can tell |
//! | after that | the result is sent, again if need be |
//!
//! Talks by channels: [`Command`] in, [`Report`] out, [`Progress`] as a value that is always the newest.

mod asked;
mod disk;
mod earlier;
mod follow;
mod hold;
mod lanes;
mod log;
mod operator;
mod outbox;
mod owed;
mod recover;
mod stop;
mod talk;
mod view;
mod work;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use metadata_delivery::message::{DeploymentState, Progress};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use self::owed::waiting;
pub use self::talk::{Command, Opened, PipelineError, Report, RunLimits, Setup, Waiting};
use self::work::{Effect, Running, activity, received};
use crate::document::Document;
use crate::history::History;
use crate::hooks::proc;
use crate::journal::Journal;
use crate::operator::rollback;
use crate::status::{LinkState, LinkStatus, PollStatus};
use crate::store::{DocumentStore, StoredDocument};

/// The pipeline; see the module's text.
pub struct Pipeline {
    setup: Setup,
    journal: Journal,
    store: DocumentStore,
    boot_id: String,
    /// When this pipeline was opened.
    since_unix_ms: u64,
    history: History,
    outbox: outbox::Outbox,
    /// The newest document.
    stored: Option<StoredDocument>,
    /// The one that an operator has put in force in its place.
    rolled_back_to: Option<StoredDocument>,
    /// The document in force.
    document: Option<Arc<Document>>,
    /// Whether `stored` is still to be written.
    unsaved: bool,
    /// Entries of `document` that are still to be run.
    steps: VecDeque<usize>,
    effects: Vec<Effect>,
    running: Vec<Running>,
    /// Whose turn it is to be listened to first.
    turn: usize,
    settled: Option<u64>,
    /// What running hooks print, for somebody who watches at the server.
    follow: follow::Follow,
    /// Set while the entries of the document in force wait for its data to be effective.
    hold: Option<hold::Hold>,
    /// How many there were.
    holds: u64,
    /// In force in place of all others, while no server is reached.
    polled: Option<StoredDocument>,
    fault: Option<String>,
    retry_at: Option<Instant>,
    link: LinkStatus,
    polling: Option<PollStatus>,
    /// Set when the agent is to stop: when what runs is asked to end.
    stop_at: Option<Instant>,
    /// When it is looked whether `heat-config` is done with an entry.
    look_again_at: Option<Instant>,
    /// When files of configs that are over are looked for.
    sweep_at: Option<Instant>,
    snapshot_due: bool,
    snapshot_at: Option<Instant>,
    reports: mpsc::UnboundedSender<Report>,
    progress: watch::Sender<Option<Progress>>,
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
        let history = History::new(setup.documents.clone());
        let rolled_back_to = stored
            .as_ref()
            .and_then(|newest| rollback::in_force(&setup.rollback, &history, newest));
        let document = rolled_back_to.as_ref().or(stored.as_ref()).and_then(|stored| {
            Document::parse(stored.version, &stored.body)
                .inspect_err(|error| tracing::error!(%error, "the stored document is unusable"))
                .ok()
        });
        let (outbox, signals) = outbox::Outbox::open(setup.signals.clone())?;
        let opened = Opened {
            signals,
            holds: document.as_ref().and(stored.as_ref()).map(StoredDocument::holds),
            body: document.as_ref().and(stored.as_ref()).map(|stored| stored.body.clone()),
            results: waiting(journal.states()).collect(),
        };
        let mut pipeline = Self {
            setup,
            journal,
            store,
            boot_id,
            since_unix_ms: unix_ms(),
            history,
            outbox,
            stored,
            rolled_back_to,
            document: None,
            unsaved: false,
            steps: VecDeque::new(),
            effects: Vec::new(),
            running: Vec::new(),
            turn: 0,
            settled: None,
            follow: follow::Follow::new(),
            hold: None,
            holds: 0,
            polled: None,
            fault: None,
            retry_at: None,
            link: LinkStatus::new(unix_ms()),
            polling: None,
            stop_at: None,
            look_again_at: None,
            sweep_at: None,
            snapshot_due: true,
            snapshot_at: None,
            reports,
            progress,
        };
        if let Some(document) = document {
            // What was received from a newer document, which a crash kept from the disk, is still asked for.
            // After a rollback, what a crash kept from being withdrawn is not.
            let version = match pipeline.rolled_back_from() {
                Some(newest) => newest.saturating_add(1),
                None => document.version,
            };
            pipeline.withdraw(&document, |config| config.document_version < version)?;
            pipeline.adopt(Arc::new(document))?;
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
            self.send_log();
            if self.stop_at.is_some() && self.running.is_empty() {
                break;
            }
            let timer = [
                self.retry_at,
                self.snapshot_timer(),
                self.run_timer(),
                self.sweep_timer(),
                self.look_again_at,
                self.signal_timer(),
                self.follow.next_at(Instant::now()),
            ];
            let timer = timer.into_iter().flatten().min();
            tokio::select! {
                command = commands.recv(), if somebody_tells => {
                    somebody_tells = command.is_some();
                    self.command(command.unwrap_or(Command::Stop))?;
                }
                (which, activity) = activity(&mut self.running, self.turn) => {
                    self.active(which, activity)?;
                }
                () = sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() => {
                    self.on_time();
                }
            }
        }
        self.leave_signals();
        self.link.state = LinkState::Stopped;
        self.snapshot_at = None;
        self.snapshot_due = true;
        self.publish();
        Ok(())
    }

    fn command(&mut self, command: Command) -> Result<(), PipelineError> {
        let changes_what_is_shown = !matches!(
            command,
            Command::LogRequest(_) | Command::LogTaken { .. } | Command::LogCutOff
        );
        self.snapshot_due |= changes_what_is_shown;
        match command {
            Command::Document { version, body } => self.document(version, body)?,
            Command::ResultStored { id, run } => self.server_said(&id, run, None)?,
            Command::ResultRefused { id, run, reason } => {
                self.server_said(&id, run, Some(reason))?;
            }
            Command::HeatSaid { id, run, refused } => self.heat_said(&id, run, refused)?,
            Command::Ask(ask) => self.ask(ask)?,
            Command::SignalStored { id } => self.signal_stored(&id),
            Command::SignalRefused { id, reason } => self.signal_refused(&id, &reason),
            Command::LogRequest(request) => self.follow.asked(&request),
            Command::LogTaken { request } => self.follow.taken(request),
            Command::LogCutOff => self.follow.cut_off(),
            Command::Release { hold } => self.release(hold),
            Command::Polled { body } => self.polled(body)?,
            Command::StoredIsNewest => self.stored_is_newest()?,
            Command::Link(link) => self.link = link,
            Command::Polling(polling) => self.polling = polling,
            Command::Enrolled { agent_id } => self.enrolled(agent_id),
            Command::Stop => {
                let stop_at = Instant::now() + self.setup.stop_wait;
                self.stop_at.get_or_insert(stop_at);
            }
        }
        Ok(())
    }

    /// There is a server from now on.
    fn enrolled(&mut self, agent_id: String) {
        self.setup.agent_id = Some(agent_id);
        self.send_signals();
        // With the next commit, as all of them.
        let results = waiting(self.journal.states());
        self.effects.extend(results.map(|result| Effect::Report(Report::Result(Box::new(result)))));
    }

    /// Does everything that can be done at once.
    async fn advance(&mut self) -> Result<(), PipelineError> {
        loop {
            if self.retry_at.is_some() {
                return Ok(());
            }
            self.next_steps()?;
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
                    Effect::Answer(asker, answer) => drop(asker.send(*answer)),
                    Effect::Start { document, index, hook, started_unix_ms } => {
                        self.start(document, index, hook, started_unix_ms).await?;
                    }
                }
            }
        }
        self.save_document()?;
        self.announce_hold();
        self.settle();
        self.compact()
    }

    fn settle(&mut self) {
        let newest = self.stored.as_ref().or(self.polled.as_ref());
        let (Some(_), Some(newest)) = (&self.document, newest) else { return };
        let version = newest.version;
        let idle = self.steps.is_empty() && self.running.is_empty();
        let done = idle && !self.unsaved && !self.is_held();
        if done && self.settled != Some(version) {
            self.settled = Some(version);
            self.setup.hooks.settled();
            let failed = self.deployments().iter().any(|(_, state)| {
                matches!(state, DeploymentState::Failed | DeploymentState::Interrupted)
            });
            self.report(Report::Settled { version, failed });
        }
    }

    fn on_time(&mut self) {
        let now = Instant::now();
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.fault = None;
            self.snapshot_due = true;
        }
        self.look_again_at = self.look_again_at.filter(|at| *at > now);
        self.end_runs(now);
        self.tell_of_signals(now);
        self.sweep(now);
    }

    fn report(&self, report: Report) {
        // Nobody listens only when the agent is ending.
        let _ = self.reports.send(report);
    }
}

/// Wall clock, in milliseconds since 1970.
pub fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
