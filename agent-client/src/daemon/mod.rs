//! `run` and `once`: the link and the pipeline put together, signals, and the end.
//!
//! Two threads: the link (network) on this one, the pipeline (disk, hooks) on its own, each with a
//! single-threaded runtime, so that neither waits for the other's disk or network.
//!
//! An agent that was never enrolled has no link. With `collect_config` it works all the same: it polls, as
//! os-collect-config does, until a token comes; then it has one.
//!
//! On SIGTERM or SIGINT nothing more is started; a running hook has [`Settings::stop_wait`] to end, then it
//! is asked to (SIGTERM), then killed, and reported as interrupted; results are sent for two more seconds;
//! what is left is sent after the next start. A second signal ends the agent at once.

mod abort;
mod conductor;
mod end;
mod home;
mod reach;
mod search;
mod uplink;
mod worker;

use std::time::Duration;

use anyhow::Context;
use certs::EnrolmentToken;
use tokio::sync::{mpsc, watch};

pub use self::abort::abort_of_enrolment;
use self::conductor::{Conductor, Parts};
pub use self::home::{Home, remedy};
use self::search::Search;
use self::uplink::{Uplink, servers};
use self::worker::Worker;
use crate::collect::{self, Bounds, Collect};
use crate::compat::cfn::on_push::OnPush;
use crate::compat::heat_config;
use crate::config::Settings;
use crate::control::Control;
use crate::enrolment::{Enrolment, EnrolmentError};
use crate::exit::{Abort, Exit};
use crate::hooks::kept::OutputStore;
use crate::machine::System;
use crate::pipeline::{self, Command, Opened, Pipeline};

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
    /// Signals of wait conditions for the server.
    pub const SIGNALS: &str = "signals";
    /// Documents before the newest.
    pub const DOCUMENTS: &str = "documents";
    /// That an operator has put one of them in force.
    pub const ROLLBACK: &str = "rollback.json";
    /// Where the agent answers its operator.
    pub const CONTROL: &str = "control.sock";
    /// The view of it all.
    pub const STATUS: &str = "status.json";
}

/// Runs the agent.
///
/// # Errors
/// What kept it from doing what the mode asks for. There is no enrolment and no token: only
/// [`Mode::Run`] does without, where [`Settings::polls`].
pub fn run(settings: &Settings, token: Option<&EnrolmentToken>, mode: Mode) -> Result<Exit, Abort> {
    let home = Home::open(settings)?;
    let enrolment = match uplink::enrolment(settings, token) {
        Ok(enrolment) => Some(enrolment),
        Err(EnrolmentError::Missing(_)) if mode == Mode::Run && settings.polls() => None,
        Err(error) => return Err(abort_of_enrolment(error)),
    };
    say_hello(settings, enrolment.as_ref(), &home);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let (reports_in, reports) = mpsc::unbounded_channel();
    let (progress_in, progress) = watch::channel(None);
    let (commands, commands_out) = mpsc::unbounded_channel();
    let (found_in, found) = mpsc::unbounded_channel();
    let worker = match mode {
        Mode::Enroll { .. } => None,
        Mode::Run | Mode::Once { .. } => {
            let setup = pipeline_setup(settings, enrolment.as_ref());
            let (pipeline, opened) = Pipeline::open(setup, reports_in, progress_in)
                .context("opening the state directory's files")?;
            let control = control(settings, &commands);
            Some((Worker::start(pipeline, commands_out, control)?, opened))
        }
    };
    let (worker, opened) = worker.map_or((None, None), |(w, o)| (Some(w), Some(o)));
    let nothing = Opened { holds: None, body: None, results: Vec::new(), signals: Vec::new() };
    let mut opened = opened.unwrap_or(nothing);
    let body = opened.body.take();
    let guard = runtime.enter();
    let needs_token = mode == Mode::Run && search::is_needed(enrolment.as_ref());
    let uplink = enrolment
        .map(|enrolment| {
            Uplink::new(settings, enrolment, home.identity.clone(), opened.holds, body)
        })
        .transpose()?;
    let is_of_system = settings.is_of_system(rustix::process::geteuid().is_root());
    let on_push = (is_of_system && mode == Mode::Run).then(OnPush::of_machine).transpose();
    // Without it there is nothing to collect, but Heat may have to be told of what has ended before.
    let is_owed_to_heat = opened.results.iter().any(|w| w.for_heat && w.way.is_some());
    let collects = settings.collect_config.is_some() || is_owed_to_heat;
    let collect = (worker.is_some() && collects).then(|| {
        let bounds = Bounds {
            timeout: settings.hook_timeout,
            stop_wait: settings.stop_wait,
            kill_grace: settings.kill_grace,
        };
        let tell = collect::Tell { commands: commands.clone(), tokens: found_in.clone() };
        let has_document = opened.holds.is_some();
        let config = settings.collect_config.clone().unwrap_or_default();
        Collect::start(config, bounds, tell, has_document, is_of_system)
    });
    let collect = collect.transpose().context("starting the collect thread")?;
    let search = (needs_token && is_of_system)
        .then(|| Search::start(System::of_machine(), found_in))
        .transpose();
    let conductor = Conductor::new(Parts {
        settings,
        mode,
        identity: home.identity.clone(),
        uplink,
        opened,
        on_push: on_push.context("preparing cfn-hup")?,
        collect,
        search: search.context("starting the thread that looks for a token")?,
        found,
        commands,
        worker,
        reports,
        progress,
    });
    let ended = runtime.block_on(conductor.run());
    // A name that is still being looked up must not hold up the end.
    drop(guard);
    runtime.shutdown_background();
    ended
}

fn say_hello(settings: &Settings, enrolment: Option<&Enrolment>, home: &Home) {
    let version = env!("CARGO_PKG_VERSION");
    let (fingerprint, state_dir) = (home.identity.fingerprint(), settings.state_dir.display());
    match enrolment {
        Some(enrolment) => tracing::info!(
            version,
            agent_id = %enrolment.agent_id,
            %fingerprint,
            servers = servers(settings, enrolment).join(","),
            %state_dir,
            "agent-client starts"
        ),
        None => tracing::info!(
            version,
            %fingerprint,
            collect_config = %settings.collect_config.as_deref().unwrap_or_else(|| "".as_ref()).display(),
            %state_dir,
            "agent-client starts without an enrolment: it polls until a token comes"
        ),
    }
}

fn pipeline_setup(settings: &Settings, enrolment: Option<&Enrolment>) -> pipeline::Setup {
    let is_root = rustix::process::geteuid().is_root();
    pipeline::Setup {
        journal: settings.state(files::JOURNAL),
        document: settings.state(files::DOCUMENT),
        documents: settings.state(files::DOCUMENTS),
        rollback: settings.state(files::ROLLBACK),
        signals: settings.state(files::SIGNALS),
        status: settings.state(files::STATUS),
        deployed: heat_config::settings::deployed(
            |name| std::env::var_os(name),
            settings.is_of_system(is_root),
        ),
        hooks: settings
            .hooks(|name| std::env::var(name).ok(), is_root)
            .with_cgroups(settings.cgroup.find())
            .with_output(OutputStore::new(settings.state(files::OUTPUT))),
        agent_id: enrolment.map(|enrolment| enrolment.agent_id.to_string()),
        stop_wait: settings.stop_wait,
        limits: pipeline::RunLimits {
            timeout: settings.hook_timeout,
            kill_grace: settings.kill_grace,
            lanes_max: settings.lanes_max,
        },
        hold_documents: settings.collect_config.is_some(),
    }
}

/// An agent that cannot be asked works all the same.
fn control(settings: &Settings, commands: &mpsc::UnboundedSender<Command>) -> Option<Control> {
    let place = settings.state(files::CONTROL);
    let control = Control::start(&place, commands.clone());
    let control = control.inspect_err(|error| {
        tracing::warn!(%error, socket = %place.display(), "no control socket: why, rerun and rollback will not reach this agent; a shorter state_dir may help");
    });
    control.ok()
}
