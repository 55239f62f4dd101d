//! `run` and `once`: the link and the pipeline put together, signals, and the end.
//!
//! Two threads: the link (network) on this one, the pipeline (disk, hooks) on its own, each with a
//! single-threaded runtime, so that neither waits for the other's disk or network.
//!
//! On SIGTERM or SIGINT nothing more is started; a running hook has [`Settings::stop_wait`] to end, then it
//! is asked to (SIGTERM), then killed, and reported as interrupted; results are sent for two more seconds;
//! what is left is sent after the next start. A second signal ends the agent at once.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use certs::file::FileError;
use certs::{EnrolmentToken, Identity, IdentityError};
use metadata_delivery::message::Holds;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};

use crate::collect::{Bounds, Collect};
use crate::compat::cfn::on_push::OnPush;
use crate::config::Settings;
use crate::control::Control;
use crate::document::ConfigId;
use crate::enrolment::{Enrolment, EnrolmentError};
use crate::exit::{Abort, Exit};
use crate::hooks::kept::OutputStore;
use crate::hooks::proc::boot_id;
use crate::link::core::Patience;
use crate::link::failure::{Failure, Kind};
use crate::link::{Happened, Link};
use crate::lock::Lock;
use crate::pipeline::{Command, Opened, Pipeline, PipelineError, Report};
use crate::{link, pipeline};

/// How long results are still sent after the pipeline has stopped.
const FLUSH_MS_MAX: u64 = 2_000;

/// What the agent is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Work until told to stop.
    Run,
    /// Apply the newest document, see its results stored, end. The document has to come within `wait`.
    Once {
        /// How long.
        wait: Duration,
    },
    /// Prove the token, end.
    Enroll {
        /// How long.
        wait: Duration,
    },
}

/// Names in the state directory.
pub mod files {
    /// Who we are and whom we trust.
    pub const ENROLMENT: &str = "enrolment.json";
    /// Our key and certificate.
    pub const IDENTITY: &str = "identity";
    /// What was done.
    pub const JOURNAL: &str = "journal";
    /// The newest document.
    pub const DOCUMENT: &str = "document";
    /// What hooks printed: a directory, see [`OutputStore`](crate::hooks::kept::OutputStore).
    pub const OUTPUT: &str = "output";
    /// Documents before the newest.
    pub const DOCUMENTS: &str = "documents";
    /// That an operator has put one of them in force.
    pub const ROLLBACK: &str = "rollback.json";
    /// Where the agent answers its operator.
    pub const CONTROL: &str = "control.sock";
    /// The view of it all.
    pub const STATUS: &str = "status.json";
}

/// The state directory, ours alone until dropped, with who we are.
#[derive(Debug)]
pub struct Home {
    _lock: Lock,
    /// Our key.
    pub identity: Identity,
}

impl Home {
    /// Makes the directory if need be, takes its lock and loads (or makes) the identity.
    ///
    /// # Errors
    /// Held by another agent, not private, not writable, or an unusable key.
    pub fn open(settings: &Settings) -> Result<Self, Abort> {
        let directory = &settings.state_dir;
        certs::file::ensure_private_directory(directory).map_err(|e| {
            let hint = Some(remedy(&e));
            let error = anyhow::Error::from(e).context("preparing the state directory");
            Abort { exit: Exit::Config, error, hint }
        })?;
        let lock = Lock::take(directory).map_err(|e| {
            Abort::new(Exit::Failed, e).hint("stop it, or name another directory: --state-dir DIR")
        })?;
        let identity = Identity::load_or_create(&settings.state(files::IDENTITY)).map_err(|e| {
            let hint = match &e {
                IdentityError::File(e) => remedy(e),
                _ => format!(
                    "put it back from a backup; or move {} away, and enrol again: on the server metadata-server enroll ID",
                    settings.state(files::IDENTITY).display()
                ),
            };
            let error = anyhow::Error::from(e).context("loading this agent's identity");
            Abort::new(Exit::Config, error).hint(hint)
        })?;
        Ok(Self { _lock: lock, identity })
    }
}

/// What to try about a file of the state directory, or about the directory itself.
pub fn remedy(error: &FileError) -> String {
    match error {
        FileError::TooOpen { path, fix, .. } => format!("chmod {fix} {}", path.display()),
        FileError::WrongOwner { path, us, .. } => format!("chown {us} {}", path.display()),
        FileError::NotRegular(path) | FileError::NotDirectory(path) => {
            format!("look what {} is, and move it away", path.display())
        }
        _ => "run as root, or name another state directory: --state-dir DIR".into(),
    }
}

/// Runs the agent.
///
/// # Errors
/// What kept it from doing what the mode asks for.
pub fn run(settings: &Settings, token: Option<&EnrolmentToken>, mode: Mode) -> Result<Exit, Abort> {
    let home = Home::open(settings)?;
    let enrolment = enrolment(settings, token)?;
    let agent_id = enrolment.agent_id.to_string();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        agent_id,
        fingerprint = %home.identity.fingerprint(),
        servers = servers(settings, &enrolment).join(","),
        state_dir = %settings.state_dir.display(),
        "agent-client starts"
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let (reports_in, reports) = mpsc::unbounded_channel();
    let (progress_in, progress) = watch::channel(None);
    let (commands, commands_out) = mpsc::unbounded_channel();
    let worker = match mode {
        Mode::Enroll { .. } => None,
        Mode::Run | Mode::Once { .. } => {
            let setup = pipeline::Setup {
                journal: settings.state(files::JOURNAL),
                document: settings.state(files::DOCUMENT),
                documents: settings.state(files::DOCUMENTS),
                rollback: settings.state(files::ROLLBACK),
                status: settings.state(files::STATUS),
                hooks: settings
                    .hooks(|name| std::env::var(name).ok(), rustix::process::geteuid().is_root())
                    .with_cgroups(settings.cgroup.find())
                    .with_output(OutputStore::new(settings.state(files::OUTPUT))),
                agent_id: agent_id.clone(),
                stop_wait: settings.stop_wait,
                limits: pipeline::RunLimits {
                    timeout: settings.hook_timeout,
                    kill_grace: settings.kill_grace,
                    lanes_max: settings.lanes_max,
                },
                hold_documents: settings.collect_config.is_some(),
            };
            let (pipeline, opened) = Pipeline::open(setup, reports_in, progress_in)
                .context("opening the state directory's files")?;
            let control = Control::start(&settings.state(files::CONTROL), commands.clone());
            let control = control.inspect_err(|error| {
                let place = settings.state(files::CONTROL);
                tracing::warn!(%error, socket = %place.display(), "no control socket: why, rerun and rollback will not reach this agent; a shorter state_dir may help");
            });
            Some((Worker::start(pipeline, commands_out, control.ok())?, opened))
        }
    };
    let (worker, opened) = worker.map_or((None, None), |(w, o)| (Some(w), Some(o)));
    let opened = opened.unwrap_or(Opened { holds: None, results: Vec::new() });
    let setup = link_setup(settings, &enrolment, home.identity)?;
    let guard = runtime.enter();
    let mut link = Link::new(setup, opened.holds).map_err(|e| Abort::new(Exit::Config, e))?;
    for result in &opened.results {
        link.send_result(result);
    }
    let is_of_system = settings.is_of_system(rustix::process::geteuid().is_root());
    let on_push = (is_of_system && mode == Mode::Run).then(OnPush::of_machine).transpose();
    let collect = settings.collect_config.as_ref().filter(|_| worker.is_some()).map(|config| {
        let bounds = Bounds {
            timeout: settings.hook_timeout,
            stop_wait: settings.stop_wait,
            kill_grace: settings.kill_grace,
        };
        Collect::start(config.clone(), bounds, commands.clone())
    });
    let collect = collect.transpose().context("starting the collect thread")?;
    for (collect, result) in collect.iter().flat_map(|c| opened.results.iter().map(move |r| (c, r)))
    {
        collect.ended(result);
    }
    let conductor = Conductor {
        settings,
        collect,
        unreached_since: None,
        polling: false,
        on_push: on_push.context("preparing cfn-hup")?,
        mode,
        enrolment,
        link,
        commands,
        worker,
        reports,
        progress,
        started: Instant::now(),
        welcomed: false,
        came: None,
        settled: None,
        refused_results: BTreeSet::new(),
        refused_for_good: false,
        failure: None,
        stopping: false,
        flush_until: None,
    };
    let ended = runtime.block_on(conductor.run());
    // A name that is still being looked up must not hold up the end.
    drop(guard);
    runtime.shutdown_background();
    ended
}

fn enrolment(settings: &Settings, token: Option<&EnrolmentToken>) -> Result<Enrolment, Abort> {
    let path = settings.state(files::ENROLMENT);
    let enrolment = match token {
        Some(token) => Enrolment::take(&path, token, false).map(|(enrolment, _)| enrolment),
        None => Enrolment::load(&path),
    };
    enrolment.map_err(abort_of_enrolment)
}

/// The end of a command that needs an enrolment.
pub fn abort_of_enrolment(error: EnrolmentError) -> Abort {
    let hint = match &error {
        EnrolmentError::Missing(_) => Some(
            "on the server run: metadata-server enroll ID; then here: agent-client enroll --token-file FILE",
        ),
        EnrolmentError::Other { .. } => {
            Some("to become the other one: agent-client enroll --replace --token-file FILE")
        }
        _ => None,
    };
    let abort = Abort::new(Exit::Config, error);
    match hint {
        Some(hint) => abort.hint(hint),
        None => abort,
    }
}

fn servers(settings: &Settings, enrolment: &Enrolment) -> Vec<String> {
    if settings.servers.is_empty() { enrolment.servers.clone() } else { settings.servers.clone() }
}

fn link_setup(
    settings: &Settings,
    enrolment: &Enrolment,
    identity: Identity,
) -> Result<link::Setup, Abort> {
    let mut seed = [0; 8];
    SystemRandom::new()
        .fill(&mut seed)
        .map_err(|_| anyhow!("the system's random generator failed"))?;
    let patience = Patience::default();
    Ok(link::Setup {
        agent_id: enrolment.agent_id.to_string(),
        identity,
        servers: servers(settings, enrolment),
        pins: enrolment.pins.clone(),
        token: enrolment.token(),
        boot_id: boot_id(),
        keep_alive: settings.keep_alive,
        peer_timeout: settings.peer_timeout,
        patience: Patience {
            pause_min: patience.pause_min.min(settings.reconnect_max),
            pause_max: settings.reconnect_max,
        },
        seed: u64::from_le_bytes(seed),
    })
}

/// The pipeline's thread.
struct Worker {
    ended: oneshot::Receiver<Result<(), PipelineError>>,
    /// Whatever an operator asks goes to the pipeline, and ends with it.
    _control: Option<Control>,
}

impl Worker {
    fn start(
        pipeline: Pipeline,
        commands: mpsc::UnboundedReceiver<Command>,
        control: Option<Control>,
    ) -> Result<Self, Abort> {
        let (ended_in, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("starting the pipeline's runtime")?;
        thread::Builder::new()
            .name("pipeline".into())
            .spawn(move || {
                let _ = ended_in.send(runtime.block_on(pipeline.run(commands)));
            })
            .context("starting the pipeline's thread")?;
        Ok(Self { ended, _control: control })
    }
}

/// What goes on between the link, the pipeline and the outside.
struct Conductor<'a> {
    settings: &'a Settings,
    on_push: Option<OnPush>,
    collect: Option<Collect>,
    /// Since when no server is reached.
    unreached_since: Option<Instant>,
    polling: bool,
    mode: Mode,
    enrolment: Enrolment,
    link: Link,
    commands: mpsc::UnboundedSender<Command>,
    worker: Option<Worker>,
    reports: mpsc::UnboundedReceiver<Report>,
    progress: watch::Receiver<Option<metadata_delivery::message::Progress>>,
    started: Instant,
    /// Whether the server has known us.
    welcomed: bool,
    /// Version of the newest document, once it came over this link or the server said that we hold it.
    came: Option<u64>,
    settled: Option<(u64, bool)>,
    /// Results that the server has not taken, and may take another time.
    refused_results: BTreeSet<ConfigId>,
    /// Whether there was one that it never will.
    refused_for_good: bool,
    failure: Option<Failure>,
    stopping: bool,
    flush_until: Option<Instant>,
}

/// What woke the conductor.
enum Woken {
    Link(Happened),
    Report(Report),
    Progress,
    Signal,
    WorkerEnded(anyhow::Result<()>),
    Time,
}

impl Conductor<'_> {
    async fn run(mut self) -> Result<Exit, Abort> {
        let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
        loop {
            self.watch_reach();
            if let Some(end) = self.end() {
                self.link.close("the agent stops").await;
                self.stop_worker().await?;
                return end;
            }
            match self.woken(&mut terminate, &mut interrupt).await {
                Woken::Link(happened) => self.happened(happened)?,
                Woken::Report(report) => self.report(report),
                Woken::Progress => {
                    let progress = self.progress.borrow_and_update().clone();
                    if let Some(progress) = progress {
                        self.link.send_progress(progress);
                    }
                }
                Woken::Signal if self.stopping => {
                    tracing::warn!("second signal: ending at once");
                    return Ok(Exit::Failed);
                }
                Woken::Signal => {
                    tracing::info!("stopping");
                    self.stopping = true;
                    self.tell(Command::Stop);
                    if self.worker.is_none() {
                        self.flush_until = Some(Instant::now());
                    }
                }
                Woken::WorkerEnded(ended) => {
                    self.worker = None;
                    ended?;
                    self.drain_reports();
                    self.stopping = true;
                    self.flush_until = Some(Instant::now() + Duration::from_millis(FLUSH_MS_MAX));
                }
                Woken::Time => {}
            }
        }
    }

    async fn woken(&mut self, terminate: &mut Signal, interrupt: &mut Signal) -> Woken {
        let deadline = self.deadline();
        tokio::select! {
            // Results first: they are what somebody waits for.
            biased;
            Some(report) = self.reports.recv() => Woken::Report(report),
            ended = ended(&mut self.worker) => Woken::WorkerEnded(ended),
            _ = terminate.recv() => Woken::Signal,
            _ = interrupt.recv() => Woken::Signal,
            Ok(()) = self.progress.changed() => Woken::Progress,
            happened = self.link.next() => Woken::Link(happened),
            () = tokio::time::sleep_until(deadline.unwrap_or_else(Instant::now).into()), if deadline.is_some() => {
                Woken::Time
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let polls_at = self.polls_at().filter(|_| !self.polling);
        [self.patience_ends(), self.flush_until, polls_at].into_iter().flatten().min()
    }

    /// Has polling begun when no server was reached for long enough, and end when one is.
    fn watch_reach(&mut self) {
        if self.link.is_connected() {
            self.unreached_since = None;
        } else {
            self.unreached_since.get_or_insert_with(Instant::now);
        }
        let due = self.polls_at().is_some_and(|at| at <= Instant::now());
        if due != self.polling && (due || self.unreached_since.is_none()) {
            self.polling = due;
            if due {
                let after_s = self.settings.poll_after.as_secs();
                tracing::warn!(after_s, "no server is reached: asking the collectors");
            } else {
                tracing::info!("a server is reached again: the collectors are not asked any more");
            }
            self.collect.iter().for_each(|collect| collect.poll(due));
        }
    }

    /// When polling begins, if no server is reached until then.
    fn polls_at(&self) -> Option<Instant> {
        let after = self.settings.poll_after;
        let wanted = self.mode == Mode::Run && self.collect.is_some() && !after.is_zero();
        self.unreached_since.filter(|_| wanted).map(|since| since + after)
    }

    /// Until when what the mode waits for has to come; none once it has come.
    fn patience_ends(&self) -> Option<Instant> {
        match self.mode {
            Mode::Once { wait } if self.came.is_none() => Some(self.started + wait),
            Mode::Enroll { wait } if !self.welcomed => Some(self.started + wait),
            Mode::Run | Mode::Once { .. } | Mode::Enroll { .. } => None,
        }
    }

    /// Whether the work is done, or cannot be.
    fn end(&self) -> Option<Result<Exit, Abort>> {
        let now = Instant::now();
        if let Some(until) = self.flush_until {
            let sent = self.link.results_waiting() == 0 || !self.link.is_connected();
            return (sent || until <= now).then(|| Ok(self.verdict()));
        }
        if self.mode == Mode::Run {
            return None;
        }
        if let Some(failure) = self.failure.as_ref().filter(|f| f.kind == Kind::Refused) {
            return Some(Err(abort_of_failure(Exit::Refused, failure)));
        }
        if self.is_done() {
            return Some(Ok(self.verdict()));
        }
        self.patience_ends().filter(|at| *at <= now).map(|_| Err(self.out_of_patience()))
    }

    fn is_done(&self) -> bool {
        match (self.mode, self.came, self.settled) {
            (Mode::Enroll { .. }, _, _) => self.welcomed,
            (Mode::Once { .. }, Some(came), Some((settled, _))) => {
                came == settled && self.link.results_waiting() <= self.refused_results.len()
            }
            _ => false,
        }
    }

    fn verdict(&self) -> Exit {
        let well = match self.mode {
            Mode::Run => true,
            Mode::Enroll { .. } => self.welcomed,
            Mode::Once { .. } => {
                self.is_done()
                    && self.refused_results.is_empty()
                    && !self.refused_for_good
                    && self.settled.is_some_and(|(_, f)| !f)
            }
        };
        if well { Exit::Ok } else { Exit::Failed }
    }

    fn out_of_patience(&self) -> Abort {
        let waited = self.started.elapsed().as_secs();
        if self.link.is_connected() {
            let error = anyhow!("the server has sent no document within {waited} s");
            return Abort::new(Exit::Unreachable, error).hint(format!(
                "on the server run: metadata-server put {} FILE",
                self.enrolment.agent_id
            ));
        }
        match &self.failure {
            Some(failure) => abort_of_failure(Exit::Unreachable, failure),
            None => {
                let server = servers(self.settings, &self.enrolment).join(", ");
                let why = format!("no answer within {waited} s");
                abort_of_failure(Exit::Unreachable, &Failure::unreachable(&server, why))
            }
        }
    }

    fn happened(&mut self, happened: Happened) -> Result<(), Abort> {
        match happened {
            Happened::Status(status) => self.tell(Command::Link(status)),
            Happened::Welcomed { newest } => {
                self.failure = None;
                self.welcomed = true;
                self.redeem()?;
                self.compare(newest);
            }
            Happened::Document { version, body } => {
                self.came = Some(version);
                self.tell(Command::Document { version, body });
            }
            Happened::ResultStored { id, run } => {
                self.collect.iter().for_each(|collect| collect.stored(&id));
                self.tell(Command::ResultStored { id, run });
            }
            Happened::ResultRefused { id, run, for_good: true, reason } => {
                self.refused_for_good = true;
                self.tell(Command::ResultRefused { id, run, reason });
            }
            // On each connection again; it counts once.
            Happened::ResultRefused { id, .. } => {
                self.refused_results.insert(id);
            }
            Happened::Failed(failure) => self.failure = Some(failure),
        }
        Ok(())
    }

    /// Once: finds out whether the document that we hold is the newest.
    fn compare(&mut self, newest: Option<Holds>) {
        let (Mode::Once { .. }, None, Some(holds)) = (self.mode, self.came, self.link.holds())
        else {
            return;
        };
        match newest {
            Some(newest) if newest == holds => self.came = Some(holds.version),
            // It is on its way.
            Some(_) => {}
            // An older server does not say, and would send nothing if this is the newest.
            None => self.link.ask_anew(),
        }
    }

    fn report(&mut self, report: Report) {
        match report {
            Report::DocumentStored(holds) => self.link.document_stored(holds),
            Report::DocumentRefused { version, reason } => {
                self.link.document_refused(version, &reason);
                self.settled = Some((version, true));
            }
            Report::Held { hold, body } => {
                self.collect.iter().for_each(|collect| collect.held(hold, body.clone()));
            }
            Report::Result(result) => {
                self.collect.iter().for_each(|collect| collect.ended(&result));
                self.link.send_result(&result);
            }
            Report::Settled { version, failed } => {
                self.settled = Some((version, failed));
                self.on_push.iter().for_each(OnPush::applied);
            }
        }
    }

    fn drain_reports(&mut self) {
        while let Ok(report) = self.reports.try_recv() {
            self.report(report);
        }
    }

    /// The server has taken the token. Forgetting it waits for the disk, once in an agent's life.
    fn redeem(&mut self) -> Result<(), Abort> {
        if self.enrolment.token().is_some() {
            let path = self.settings.state(files::ENROLMENT);
            self.enrolment.redeemed(&path).map_err(abort_of_enrolment)?;
            self.link.forget_token();
            tracing::info!(agent_id = %self.enrolment.agent_id, "enrolled");
        }
        Ok(())
    }

    fn tell(&self, command: Command) {
        // Nobody listens when there is no pipeline or it has ended; its end is noticed elsewhere.
        let _ = self.commands.send(command);
    }

    async fn stop_worker(&mut self) -> Result<(), Abort> {
        self.tell(Command::Stop);
        if self.worker.is_some() {
            ended(&mut self.worker).await?;
        }
        Ok(())
    }
}

async fn ended(worker: &mut Option<Worker>) -> anyhow::Result<()> {
    match worker {
        Some(worker) => match (&mut worker.ended).await {
            Ok(ended) => ended.context("the pipeline has stopped"),
            Err(_) => Err(anyhow!("the pipeline's thread has panicked")),
        },
        None => std::future::pending().await,
    }
}

fn abort_of_failure(exit: Exit, failure: &Failure) -> Abort {
    let abort = Abort::new(exit, anyhow!("{failure}"));
    match &failure.hint {
        Some(hint) => abort.hint(hint),
        None => abort,
    }
}
