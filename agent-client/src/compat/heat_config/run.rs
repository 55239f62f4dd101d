//! One entry's way: looked at, taken up, run, its result kept and sent.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use openstack_client::signal;
use rustix::process::Signal;
use serde_json::Value;
use tokio::time::{Instant, sleep_until};

use super::agent::Agent;
use super::deployed::{Claim, Cut, Deployed, Found};
use super::notify::{self, EXIT_REFUSED};
use super::settings::{NOTIFY, NOTIFY_TIMEOUT, Settings, TIMEOUT};
use super::signal_data;
use super::stop::Stop;
use crate::compat::pylog::Log;
use crate::compat::{self, tool};
use crate::document::{Config, ConfigId, DATA_GROUPS, Entry, Work};
use crate::hooks::built_in::OWN_PROGRAM;
use crate::hooks::capture::shorten;
use crate::hooks::process::{Activity, Exit, Launch, Printing, Process};
use crate::hooks::{SCRIPT, built_in, external, proc};
use crate::json_text::json_text;
use crate::pipeline::unix_ms;
use crate::redact::Redactor;

/// How long a hook gets between being asked to end and being killed.
const KILL_GRACE_MS: u64 = 5_000;
/// How long the program that sends a result may take, whatever it is.
const NOTIFY_S_MAX: u64 = 900;
/// How long an earlier result may hold up a run.
const SEND_AGAIN_S_MAX: u64 = 10;
/// How long a result is worth sending: stacks have given up long before.
pub(crate) const UNSENT_MS_MAX: u64 = 24 * 3_600_000;
/// Bytes of a hook's output in the log.
const LOG_BYTES_MAX: usize = 16 << 10;

/// Runs entries.
pub struct Runner<'a> {
    settings: &'a Settings,
    deployed: &'a Deployed,
    /// The agent of this machine, which has a journal of its own.
    agent: Option<&'a Agent>,
    log: &'a mut Log,
}

/// What became of an entry.
#[derive(Debug)]
pub enum Outcome {
    /// Its result was taken, or refused for good, or waits for the next run.
    Done,
    /// There was nothing to do: it is done already, is data, or somebody else is at it.
    Nothing,
    /// It was done earlier, and its result waits to be sent ([`Runner::send_again`]).
    WaitsForSignal(Pending),
    /// This program was asked to end, by this signal. What ran is recorded as interrupted.
    Stopped(i32),
}

/// A result of an earlier run that waits to be sent.
#[derive(Debug)]
pub struct Pending {
    claim: Claim,
    id: ConfigId,
    redactor: Redactor,
    /// Whether the only way to send it says itself that it is closed.
    is_over: bool,
}

/// How a hook ended.
enum Ended {
    Result(Value),
    Stopped(i32),
}

/// How the sending of a result ended.
enum Sent {
    Taken,
    Refused,
    Later,
    Stopped(i32),
}

/// How a process ended.
enum Waited {
    Exited(Exit),
    TimedOut(Exit),
    Stopped(i32),
}

impl<'a> Runner<'a> {
    /// Runs entries as `settings` say, and keeps what was done in `deployed`. What `agent` has taken up is
    /// left to it.
    pub fn new(
        settings: &'a Settings,
        deployed: &'a Deployed,
        agent: Option<&'a Agent>,
        log: &'a mut Log,
    ) -> Self {
        Self { settings, deployed, agent, log }
    }

    /// Where it logs.
    pub fn log(&mut self) -> &mut Log {
        self.log
    }

    /// Runs one entry if it was not run before, and sends its result. Its id is added to `listed`; an entry
    /// whose id is there already is left alone.
    ///
    /// # Errors
    /// What was done cannot be kept; then nothing is run.
    pub async fn run(
        &mut self,
        entry: Value,
        listed: &mut BTreeSet<ConfigId>,
        stop: &mut Stop,
    ) -> Result<Outcome> {
        if !entry.is_object() {
            self.log.error("An entry is no object: there is nobody to signal that to");
            return Ok(Outcome::Nothing);
        }
        let Some(Read { id, group, text, work, redactor }) = read(entry) else {
            return Ok(Outcome::Nothing);
        };
        if !listed.insert(id.clone()) {
            self.log.warning(format!("Skipping config {id}, it is in the list twice"));
            return Ok(Outcome::Nothing);
        }
        let hook = work.as_ref().ok().map(|config| self.find(&config.hook));
        if DATA_GROUPS.contains(&group.as_str()) && !matches!(hook, Some(Some(_))) {
            return Ok(Outcome::Nothing);
        }
        if let Some(why) = self.agent.and_then(|agent| agent.has(&id)) {
            self.log.warning(format!("Skipping config {id}, {why}"));
            return Ok(Outcome::Nothing);
        }
        let mut claim = match self.deployed.claim(&id, &text)? {
            Found::New(claim) => claim,
            Found::Done => {
                let record = self.deployed.record_of(&id);
                self.log.warning(format!("Skipping config {id}, already deployed"));
                self.log.warning(format!("To force-deploy, rm {}", record.display()));
                return Ok(Outcome::Nothing);
            }
            Found::Busy(pid) => {
                self.log.warning(format!("Skipping config {id}, process {pid} is at it"));
                return Ok(Outcome::Nothing);
            }
            Found::Unsent(claim) => {
                return Ok(Outcome::WaitsForSignal(pending(claim, id, redactor, &text)));
            }
            Found::Interrupted(claim, cut) => {
                let why = interrupted(cut);
                self.log.error(format!("Config {id}: {why}"));
                let result = signal_data::of_failure(why);
                return self.finish(claim, &result, &redactor, stop).await;
            }
        };
        let result = match (&work, hook.flatten()) {
            (Err(why), _) => Err(format!("bad entry: {why}")),
            (Ok(config), None) => Err(self.no_such_hook(&config.hook)),
            (Ok(config), Some(launch)) => {
                match self.run_hook(&id, config, launch, &mut claim, &redactor, stop).await {
                    Ok(Ended::Result(result)) => Ok(result),
                    Ok(Ended::Stopped(signal)) => {
                        let why = "interrupted: heat-config was stopped while the hook ran; it is not run again";
                        self.deployed.finished(&claim, &signal_data::of_failure(why))?;
                        self.deployed.not_sent(&claim)?;
                        return Ok(Outcome::Stopped(signal));
                    }
                    Err(why) => Err(why),
                }
            }
        };
        let result = result.unwrap_or_else(|why| {
            let why = redactor.redact(&why);
            self.log.error(format!("Config {id}: {why}"));
            signal_data::of_failure(&why)
        });
        self.finish(claim, &result, &redactor, stop).await
    }

    /// The result of this entry, if it waits to be sent and nobody else is at it.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn unsent(&self, entry: Value) -> Result<Option<Pending>> {
        let Some(Read { id, text, redactor, .. }) = read(entry) else { return Ok(None) };
        let claim = self.deployed.claim_unsent(&id)?;
        Ok(claim.map(|claim| pending(claim, id, redactor, &text)))
    }

    /// Sends a result of an earlier run, without much patience. Comes back with a signal if one asked this
    /// program to end meanwhile.
    ///
    /// # Errors
    /// What became of it cannot be kept: it will be sent again.
    pub async fn send_again(&mut self, pending: Pending, stop: &mut Stop) -> Result<Option<i32>> {
        let Pending { claim, id, redactor, is_over } = pending;
        if is_over {
            self.log.error(format!(
                "Config {id}: the time of the URL for its result is over; it is not sent any more"
            ));
            self.deployed.sent(&claim)?;
            return Ok(None);
        }
        if claim.age_ms() > UNSENT_MS_MAX {
            self.log.error(format!(
                "Config {id}: nobody took its result for {} hours; it is not sent any more",
                UNSENT_MS_MAX / 3_600_000
            ));
            self.deployed.sent(&claim)?;
            return Ok(None);
        }
        let result = self.deployed.read_result(&claim).unwrap_or_else(|error| {
            self.log.error(format!("{error:#}"));
            signal_data::of_failure("the result of this run was lost")
        });
        self.log.info(format!("Config {id}: trying again to send its result"));
        let patience = self.settings.notify_timeout.min(Duration::from_secs(SEND_AGAIN_S_MAX));
        match self.send(claim, &result, &redactor, Some(patience), stop).await? {
            Outcome::Stopped(signal) => Ok(Some(signal)),
            _ => Ok(None),
        }
    }

    /// Forgets what is unfinished of entries that left the list.
    ///
    /// # Errors
    /// The directory cannot be read or changed.
    pub fn forget_all_but(&mut self, listed: &BTreeSet<ConfigId>) -> Result<()> {
        for name in self.deployed.forget_all_but(listed)? {
            self.log.warning(format!("{name}: nobody asks for this config any more"));
        }
        Ok(())
    }

    async fn finish(
        &mut self,
        claim: Claim,
        result: &Value,
        redactor: &Redactor,
        stop: &mut Stop,
    ) -> Result<Outcome> {
        self.deployed.finished(&claim, result)?;
        self.send(claim, result, redactor, None, stop).await
    }

    async fn send(
        &mut self,
        claim: Claim,
        result: &Value,
        redactor: &Redactor,
        patience: Option<Duration>,
        stop: &mut Stop,
    ) -> Result<Outcome> {
        match self.notify(&claim, result, redactor, patience, stop).await {
            Sent::Taken | Sent::Refused => self.deployed.sent(&claim)?,
            Sent::Later => {
                self.log.warning("The result is kept, and sent again by the next run");
                self.deployed.not_sent(&claim)?;
            }
            Sent::Stopped(signal) => {
                self.deployed.not_sent(&claim)?;
                return Ok(Outcome::Stopped(signal));
            }
        }
        Ok(Outcome::Done)
    }

    /// The hook of this name: a file in the preferred directory, a program of ours, a file elsewhere; last
    /// a program of ours that says why it does not serve.
    fn find(&self, name: &str) -> Option<Start> {
        let file = |program: PathBuf| Start { program, argument: None };
        let own = format!("{}{name}", built_in::PREFIX);
        let ours = || Start { program: OWN_PROGRAM.into(), argument: Some(own.clone()) };
        if let Some(path) = external::find(self.settings.hooks.as_slice(), name) {
            Some(file(path))
        } else if name == SCRIPT || built_in::find(name).is_some() {
            Some(ours())
        } else if let Some(path) = external::find(&self.settings.hook_directories, name) {
            Some(file(path))
        } else {
            compat::names().any(|known| known == own).then(ours)
        }
    }

    fn no_such_hook(&self, name: &str) -> String {
        let places = self.settings.hooks.iter().chain(&self.settings.hook_directories);
        let places: Vec<_> = places.map(|path| path.display().to_string()).collect();
        let places = places.join(", ");
        format!("no such hook: {name:?} is not built in and not in {places}")
    }

    async fn run_hook(
        &mut self,
        id: &ConfigId,
        config: &Config,
        start: Start,
        claim: &mut Claim,
        redactor: &Redactor,
        stop: &mut Stop,
    ) -> Result<Ended, String> {
        let record = self.deployed.record(claim);
        self.log.debug(format!("Running {start} < {}", record.display()));
        let mut launch = external::prepare(&start.program, config);
        launch.arguments.extend(start.argument.iter().map(Into::into));
        launch.environment.push((proc::RUN_VARIABLE.into(), self.deployed.run_name(id).into()));
        let mut process = Process::spawn(launch)
            .await
            .map_err(|error| external::not_started(&start.program, &error).reason)?;
        self.deployed.started(claim, process.mark());
        let limit = config.options.timeout_or(self.settings.timeout);
        let run_name = self.deployed.run_name(id);
        let (exit, result) = match wait(&mut process, limit, Some(&run_name), stop).await {
            Waited::Stopped(signal) => return Ok(Ended::Stopped(signal)),
            Waited::Exited(exit) => {
                let result = signal_data::of_exit(&exit);
                (exit, result)
            }
            Waited::TimedOut(exit) => {
                let seconds = limit.unwrap_or_default().as_secs_f64();
                let why = format!(
                    "timed out after {seconds} s: it was ended; options.timeout of the deployment, or {TIMEOUT}, allow more"
                );
                self.log.error(format!("{start}: {why}"));
                let result = signal_data::of_timeout(&exit, &why);
                (exit, result)
            }
        };
        self.log_output(&result, &exit.stderr, redactor);
        if exit.code == 0 {
            self.log.info(format!("Completed {start}"));
        } else {
            self.log.error(format!("Error running {start}. [{}]", exit.code));
        }
        Ok(Ended::Result(result))
    }

    /// What people read, without what is secret.
    fn log_output(&mut self, result: &Value, stderr: &str, redactor: &Redactor) {
        let shown = |text: &str| shorten(&redactor.redact(text.trim_end()), LOG_BYTES_MAX);
        for key in ["deploy_stdout", "deploy_stderr"] {
            if let Some(text) = result.get(key).and_then(Value::as_str).filter(|t| !t.is_empty()) {
                self.log.info(format!("{key}: {}", shown(text)));
            }
        }
        if !stderr.is_empty() && result.get("deploy_stderr").and_then(Value::as_str) != Some(stderr)
        {
            self.log.debug(shown(stderr));
        }
    }

    async fn notify(
        &mut self,
        claim: &Claim,
        result: &Value,
        redactor: &Redactor,
        patience: Option<Duration>,
        stop: &mut Stop,
    ) -> Sent {
        let record = self.deployed.record(claim);
        let (program, mut arguments) = match self.settings.notify.to_str() {
            Some(NOTIFY) => tool::find(NOTIFY),
            _ => (self.settings.notify.clone(), Vec::new()),
        };
        let shown = self.settings.notify.display();
        let data = self.deployed.result(claim);
        self.log.debug(format!("Running {shown} {} < {}", record.display(), data.display()));
        arguments.push(record.into());
        let patience = patience.map(|patience| patience.as_secs().to_string());
        let launch = Launch {
            program,
            arguments,
            directory: None,
            environment: patience.map(|s| (NOTIFY_TIMEOUT.into(), s.into())).into_iter().collect(),
            input: Some(json_text(result).into_bytes()),
            printing: Printing::Log,
        };
        let mut process = match Process::spawn(launch).await {
            Ok(process) => process,
            Err(error) => {
                self.log.error(format!("{shown} could not be started: {error}"));
                return Sent::Later;
            }
        };
        let limit = Duration::from_secs(NOTIFY_S_MAX);
        let exit = match wait(&mut process, Some(limit), None, stop).await {
            Waited::Stopped(signal) => return Sent::Stopped(signal),
            Waited::TimedOut(_) => {
                self.log.error(format!("{shown} was ended: it took longer than {NOTIFY_S_MAX} s"));
                return Sent::Later;
            }
            Waited::Exited(exit) => exit,
        };
        if !exit.stdout.is_empty() {
            self.log.info(shorten(&redactor.redact(exit.stdout.trim_end()), LOG_BYTES_MAX));
        }
        let stderr = shorten(&redactor.redact(exit.stderr.trim_end()), LOG_BYTES_MAX);
        if exit.code == 0 {
            if !stderr.is_empty() {
                self.log.debug(stderr);
            }
            return Sent::Taken;
        }
        self.log.error(format!("Error running heat-config-notify. [{}]\n{stderr}", exit.code));
        if exit.code == i64::from(EXIT_REFUSED) { Sent::Refused } else { Sent::Later }
    }
}

/// An entry that was understood as far as possible.
struct Read {
    id: ConfigId,
    group: String,
    /// As it is recorded.
    text: Value,
    /// What to run, or why that is not possible.
    work: Result<Box<Config>, String>,
    redactor: Redactor,
}

fn read(entry: Value) -> Option<Read> {
    let Entry { id, group, work, .. } = Entry::read_with(entry.clone(), &[]);
    match work {
        Work::Run(config) => Some(Read {
            id,
            group,
            text: Value::Object(config.json.clone()),
            redactor: Redactor::of_config(&config),
            work: Ok(config),
        }),
        Work::Bad(why) => {
            let redactor = Redactor::new(signal::inputs(&entry));
            Some(Read { id, group, text: entry, work: Err(why), redactor })
        }
        // Not without groups of data.
        Work::Data => None,
    }
}

fn pending(claim: Claim, id: ConfigId, redactor: Redactor, entry: &Value) -> Pending {
    let ways = signal::of_config(entry).unwrap_or_default();
    let now_unix = unix_ms() / 1_000;
    let is_over = !ways.is_empty() && ways.iter().all(|way| notify::is_over(way, now_unix));
    Pending { claim, id, redactor, is_over }
}

/// A hook's program.
struct Start {
    program: PathBuf,
    /// The name by which it is ours.
    argument: Option<String>,
}

impl std::fmt::Display for Start {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.argument {
            Some(name) => f.write_str(name),
            None => write!(f, "{}", self.program.display()),
        }
    }
}

fn interrupted(cut: Cut) -> &'static str {
    match cut {
        Cut::Reboot => {
            "interrupted: the machine was restarted while the hook ran; it is not run again"
        }
        Cut::Crash { killed: true } => {
            "interrupted: heat-config was stopped while the hook ran; what was left of it was killed, it is not run again"
        }
        Cut::Crash { killed: false } => {
            "interrupted: heat-config was stopped while the hook ran, or before its end was recorded; it is not run again"
        }
    }
}

/// Waits for the end of a process. At the limit, or when we are to end, it is asked to end; what is left of it
/// and of what it started is killed when the grace is over.
async fn wait(
    process: &mut Process,
    limit: Option<Duration>,
    run_name: Option<&str>,
    stop: &mut Stop,
) -> Waited {
    let mut end_at = limit.and_then(|limit| Instant::now().checked_add(limit));
    let mut kill_at = None;
    let mut has_timed_out = false;
    let mut stopped = None;
    loop {
        let next = kill_at.or(end_at);
        tokio::select! {
            activity = process.next() => {
                let Activity::Exited(exit) = activity else { continue };
                if stopped.is_none() && !has_timed_out {
                    // What it leaves behind it means to.
                    return Waited::Exited(exit);
                }
                kill(process, run_name);
                return stopped.map_or(Waited::TimedOut(exit), Waited::Stopped);
            }
            signal = stop.asked(), if stopped.is_none() => {
                stopped = Some(signal);
                kill_at = Some(ask_to_end(process));
            }
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                if kill_at.take().is_some() {
                    kill(process, run_name);
                    process.linger(Instant::now());
                } else {
                    has_timed_out = true;
                    kill_at = Some(ask_to_end(process));
                }
                end_at = None;
            }
        }
    }
}

fn ask_to_end(process: &mut Process) -> Instant {
    let kill_at = Instant::now() + Duration::from_millis(KILL_GRACE_MS);
    process.linger(kill_at);
    process.signal(Signal::TERM);
    kill_at
}

fn kill(process: &Process, run_name: Option<&str>) {
    process.kill();
    if let Some(run_name) = run_name {
        proc::kill_named(run_name);
    }
}
