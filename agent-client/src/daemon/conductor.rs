//! What goes on between the link, the pipeline, the collect thread and the outside.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Context;
use certs::{Identity, TokenId};
use metadata_delivery::message::{Holds, Progress};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};

use super::reach::{Reach, Way};
use super::search::Search;
use super::uplink::{Uplink, next, servers};
use super::worker::{Worker, ended};
use super::{Mode, files};
use crate::bootstrap::Found;
use crate::collect::{Collect, Poll};
use crate::compat::cfn::on_push::OnPush;
use crate::config::Settings;
use crate::document::ConfigId;
use crate::enrolment::Enrolment;
use crate::exit::{Abort, Exit};
use crate::link::Happened;
use crate::link::failure::{Failure, Kind};
use crate::pipeline::{Command, Opened, Report, unix_ms};
use crate::status::{LinkState, LinkStatus};

/// How long results are still sent after the pipeline has stopped.
const FLUSH_MS_MAX: u64 = 2_000;

/// What it works with.
pub(super) struct Parts<'a> {
    pub(super) settings: &'a Settings,
    pub(super) mode: Mode,
    pub(super) identity: Identity,
    /// None: never enrolled.
    pub(super) uplink: Option<Uplink>,
    /// What was found in the state directory.
    pub(super) opened: Opened,
    pub(super) on_push: Option<OnPush>,
    pub(super) collect: Option<Collect>,
    pub(super) search: Option<Search>,
    /// Tokens that were found.
    pub(super) found: mpsc::UnboundedReceiver<Found>,
    pub(super) commands: mpsc::UnboundedSender<Command>,
    pub(super) worker: Option<Worker>,
    pub(super) reports: mpsc::UnboundedReceiver<Report>,
    pub(super) progress: watch::Receiver<Option<Progress>>,
}

/// See the module's text.
pub(super) struct Conductor<'a> {
    pub(super) parts: Parts<'a>,
    reach: Reach,
    pub(super) started: Instant,
    /// Whether the server has known us.
    pub(super) welcomed: bool,
    /// Version of the newest document, once it came over this link or the server said that we hold it.
    pub(super) came: Option<u64>,
    pub(super) settled: Option<(u64, bool)>,
    /// Results that the server has not taken, and may take another time.
    pub(super) refused_results: BTreeSet<ConfigId>,
    /// Whether there was one that it never will.
    pub(super) refused_for_good: bool,
    pub(super) failure: Option<Failure>,
    /// Tokens that came too late; said once each.
    expired: BTreeSet<TokenId>,
    /// Tokens that a server has refused: they are not taken again, and another one may take their place.
    refused_tokens: BTreeSet<TokenId>,
    stopping: bool,
    pub(super) flush_until: Option<Instant>,
}

/// What woke the conductor.
enum Woken {
    Link(Happened),
    Report(Report),
    Found(Found),
    Progress,
    Signal,
    WorkerEnded(anyhow::Result<()>),
    Time,
}

impl<'a> Conductor<'a> {
    pub(super) fn new(parts: Parts<'a>) -> Self {
        let polls = parts.mode == Mode::Run && parts.collect.is_some() && parts.settings.polls();
        let mut conductor = Self {
            reach: Reach::new(polls.then_some(parts.settings.poll_after)),
            parts,
            started: Instant::now(),
            welcomed: false,
            came: None,
            settled: None,
            refused_results: BTreeSet::new(),
            refused_for_good: false,
            failure: None,
            expired: BTreeSet::new(),
            refused_tokens: BTreeSet::new(),
            stopping: false,
            flush_until: None,
        };
        for result in std::mem::take(&mut conductor.parts.opened.results) {
            conductor.report(Report::Result(Box::new(result)));
        }
        let signals = std::mem::take(&mut conductor.parts.opened.signals);
        if let Some(uplink) = &mut conductor.parts.uplink {
            signals.iter().for_each(|signal| uplink.link.send_signal(signal));
        }
        if conductor.parts.uplink.is_none() {
            let status = LinkStatus { state: LinkState::Unenrolled, ..LinkStatus::new(unix_ms()) };
            conductor.tell(Command::Link(status));
        }
        conductor
    }

    pub(super) async fn run(mut self) -> Result<Exit, Abort> {
        let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
        loop {
            self.watch_reach();
            if let Some(end) = self.end() {
                if let Some(uplink) = &mut self.parts.uplink {
                    uplink.link.close("the agent stops").await;
                }
                self.stop_worker().await?;
                return end;
            }
            match self.woken(&mut terminate, &mut interrupt).await {
                Woken::Link(happened) => self.happened(happened)?,
                Woken::Report(report) => self.report(report),
                Woken::Found(found) => self.enrol(&found),
                Woken::Progress => {
                    let progress = self.parts.progress.borrow_and_update().clone();
                    if let (Some(uplink), Some(progress)) = (&mut self.parts.uplink, progress) {
                        uplink.link.send_progress(progress);
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
                    if self.parts.worker.is_none() {
                        self.flush_until = Some(Instant::now());
                    }
                }
                Woken::WorkerEnded(ended) => {
                    self.parts.worker = None;
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
        let parts = &mut self.parts;
        tokio::select! {
            // Results first: they are what somebody waits for.
            biased;
            Some(report) = parts.reports.recv() => Woken::Report(report),
            ended = ended(&mut parts.worker) => Woken::WorkerEnded(ended),
            _ = terminate.recv() => Woken::Signal,
            _ = interrupt.recv() => Woken::Signal,
            Some(found) = parts.found.recv() => Woken::Found(found),
            Ok(()) = parts.progress.changed() => Woken::Progress,
            happened = next(&mut parts.uplink) => Woken::Link(happened),
            () = tokio::time::sleep_until(deadline.unwrap_or_else(Instant::now).into()), if deadline.is_some() => {
                Woken::Time
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let all = [self.patience_ends(), self.flush_until, self.reach.polls_at()];
        all.into_iter().flatten().min()
    }

    pub(super) fn is_connected(&self) -> bool {
        self.parts.uplink.as_ref().is_some_and(|uplink| uplink.link.is_connected())
    }

    /// Has polling begin and end.
    fn watch_reach(&mut self) {
        let way = match &self.parts.uplink {
            None => Way::None,
            Some(uplink) if uplink.link.is_connected() => Way::Connected,
            Some(uplink) if !uplink.is_proven() && self.is_refused() => Way::Refused,
            Some(_) => Way::Away,
        };
        let Some(poll) = self.reach.look(Instant::now(), way) else { return };
        match (poll, way) {
            (Poll::Off, _) => {
                tracing::info!("a server is reached: the collectors are not asked any more");
            }
            (Poll::Alone, _) => tracing::info!("not enrolled: asking the collectors"),
            (Poll::Meanwhile, Way::Refused) => {
                tracing::warn!("the server refuses the token: asking the collectors");
            }
            (Poll::Meanwhile, _) => {
                let after_s = self.parts.settings.poll_after.as_secs();
                tracing::warn!(after_s, "no server is reached: asking the collectors");
            }
        }
        self.parts.collect.iter().for_each(|collect| collect.poll(poll));
    }

    pub(super) fn is_refused(&self) -> bool {
        self.failure.as_ref().is_some_and(|failure| failure.kind == Kind::Refused)
    }

    fn happened(&mut self, happened: Happened) -> Result<(), Abort> {
        match happened {
            Happened::Status(status) => self.tell(Command::Link(status)),
            Happened::Welcomed { newest } => {
                self.failure = None;
                self.welcomed = true;
                self.parts.search = None;
                if let Some(uplink) = &mut self.parts.uplink {
                    uplink.redeem(self.parts.settings)?;
                    if newest.is_some() && newest == uplink.link.holds() {
                        self.tell(Command::StoredIsNewest);
                    }
                }
                self.compare(newest);
            }
            Happened::Document { version, body } => {
                self.came = Some(version);
                self.tell(Command::Document { version, body });
            }
            Happened::ResultStored { id, run } => self.tell(Command::ResultStored { id, run }),
            Happened::ResultRefused { id, run, for_good: true, reason } => {
                self.refused_for_good = true;
                self.tell(Command::ResultRefused { id, run, reason });
            }
            // On each connection again; it counts once.
            Happened::ResultRefused { id, .. } => {
                self.refused_results.insert(id);
            }
            Happened::SignalStored { id } => self.tell(Command::SignalStored { id }),
            Happened::SignalRefused { id, reason } => {
                self.tell(Command::SignalRefused { id, reason });
            }
            Happened::LogRequested(request) => self.tell(Command::LogRequest(request)),
            Happened::LogTaken { request } => self.tell(Command::LogTaken { request }),
            Happened::LogCutOff => self.tell(Command::LogCutOff),
            Happened::Failed(failure) => {
                self.failure = Some(failure);
                if self.is_refused() {
                    let unproven = self.parts.uplink.iter().filter(|uplink| !uplink.is_proven());
                    self.refused_tokens.extend(unproven.map(|u| u.enrolment.token_id.clone()));
                }
            }
        }
        Ok(())
    }

    /// Once: finds out whether the document that we hold is the newest.
    fn compare(&mut self, newest: Option<Holds>) {
        let Some(uplink) = &mut self.parts.uplink else { return };
        let (Mode::Once { .. }, None, Some(holds)) =
            (self.parts.mode, self.came, uplink.link.holds())
        else {
            return;
        };
        match newest {
            Some(newest) if newest == holds => self.came = Some(holds.version),
            // It is on its way.
            Some(_) => {}
            // An older server does not say, and would send nothing if this is the newest.
            None => uplink.link.ask_anew(),
        }
    }

    fn report(&mut self, report: Report) {
        let link = self.parts.uplink.as_mut().map(|uplink| &mut uplink.link);
        let collect = &self.parts.collect;
        match report {
            Report::DocumentStored(holds) => {
                self.parts.opened.holds = Some(holds);
                link.into_iter().for_each(|link| link.document_stored(holds));
            }
            Report::DocumentRefused { version, reason } => {
                link.into_iter().for_each(|link| link.document_refused(version, &reason));
                self.settled = Some((version, true));
            }
            Report::Held { hold, body } => {
                collect.iter().for_each(|collect| collect.held(hold, body.clone()));
            }
            Report::Result(waiting) => {
                let collect = collect.iter().filter(|_| waiting.for_heat);
                collect.for_each(|collect| collect.ended(&waiting));
                let link = link.into_iter().filter(|_| waiting.for_server);
                link.for_each(|link| link.send_result(&waiting.result));
            }
            Report::ResultOver { id, run } => {
                collect.iter().for_each(|collect| collect.over(id.clone(), run));
            }
            Report::Signal(signal) => match link {
                Some(link) => link.send_signal(&signal),
                None => {
                    let reason = "this agent has no server yet".into();
                    self.tell(Command::SignalRefused { id: signal.id, reason });
                }
            },
            Report::Log(log) => link.into_iter().for_each(|link| link.send_log(&log)),
            Report::Settled { version, failed } => {
                self.settled = Some((version, failed));
                self.parts.on_push.iter().for_each(OnPush::applied);
            }
        }
    }

    fn drain_reports(&mut self) {
        while let Ok(report) = self.parts.reports.try_recv() {
            self.report(report);
        }
    }

    /// Becomes an agent of the server that the token names, unless a server has taken one before, or may still
    /// take the one there is: which of two is newer nobody says. It is tried again as often as it is found.
    fn enrol(&mut self, found: &Found) {
        let (token, place) = (&found.token, &found.place);
        let now_unix = unix_ms() / 1_000;
        let was_refused = |id: &TokenId| self.refused_tokens.contains(id);
        let settled = self.parts.uplink.as_ref().is_some_and(|uplink| {
            let known = &uplink.enrolment;
            known.token_id == token.token_id
                || known.token().is_none_or(|known| {
                    !was_refused(&known.token_id) && !known.is_expired(now_unix)
                })
        });
        if settled || was_refused(&token.token_id) || self.stopping {
            return;
        }
        let (agent_id, token_id) = (&token.agent_id, &token.token_id);
        if token.is_expired(now_unix) {
            if self.expired.insert(token_id.clone()) {
                tracing::warn!(place, %agent_id, %token_id, "a token was found that has expired");
            }
            return;
        }
        if let Err(abort) = self.take(found) {
            tracing::error!(place, %agent_id, "not enrolled: {:#}", abort.error);
        }
    }

    fn take(&mut self, found: &Found) -> Result<(), Abort> {
        let parts = &mut self.parts;
        let path = parts.settings.state(files::ENROLMENT);
        let (enrolment, _) = Enrolment::take(&path, &found.token, true)
            .map_err(|error| Abort::new(Exit::Config, error))?;
        tracing::info!(
            place = found.place,
            agent_id = %enrolment.agent_id,
            token_id = %enrolment.token_id,
            servers = servers(parts.settings, &enrolment).join(","),
            pinned = enrolment.pins_text(),
            "a token has come: connecting"
        );
        let agent_id = enrolment.agent_id.to_string();
        let holds = parts.opened.holds;
        let mut uplink =
            Uplink::new(parts.settings, enrolment, parts.identity.clone(), holds, None)?;
        if let Some(progress) = parts.progress.borrow().clone() {
            uplink.link.send_progress(progress);
        }
        parts.uplink = Some(uplink);
        self.failure = None;
        // With it come the results that wait.
        self.tell(Command::Enrolled { agent_id });
        Ok(())
    }

    fn tell(&self, command: Command) {
        // Nobody listens when there is no pipeline or it has ended; its end is noticed elsewhere.
        let _ = self.parts.commands.send(command);
    }

    async fn stop_worker(&mut self) -> Result<(), Abort> {
        self.tell(Command::Stop);
        if self.parts.worker.is_some() {
            ended(&mut self.parts.worker).await?;
        }
        Ok(())
    }
}
