//! What `os-collect-config` did at a change of metadata, done upon a push: the document lands in the cache
//! of the configuration `collect_config` names, and the command there (as a rule `os-refresh-config`) is
//! run with it. The document's deployments wait until the command has succeeded, so that templates are
//! applied before any hook runs; a command that fails is run again, at longer and longer intervals.
//!
//! The document takes the place of whatever polls Heat (`cfn`, `heat`, `request`, `zaqar`), under the key
//! `push`; `ec2`, `heat_local` and `local` are read as well, in the order of the `collectors`. The
//! configuration is read anew each time, since the command may have written it.
//!
//! While no server has been reached for `poll_after`, or none is known, those are asked after all. Their
//! document comes in force as a pushed one does, in the same journal, so that nothing runs twice, until a
//! document is pushed or the server says that the stored one is the newest; its results go back by the
//! transports in its inputs. An agent that was never enrolled so does what os-collect-config does: what the machine has of its own counts where no transport has
//! anything, and whatever changes has the command run again. A token in a polled document enrols it.
//!
//! What runs deployments below the command on its own must leave that to the agent: it is told by
//! [`RUNS_DEPLOYMENTS`] in its environment.

mod poll;
mod results;
mod sources;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Map, Value};
use tokio::join;
use tokio::process::Child;
use tokio::sync::mpsc;
use tokio::time::{sleep_until, timeout};

use crate::bootstrap::Found;
use crate::compat::heat_config::stop::Stop;
use crate::compat::heat_config::unsent::Unsent;
use crate::compat::occ::cache::Cache;
use crate::compat::occ::config::{Config, NoConfig, load};
use crate::compat::occ::gather::store;
use crate::document::ConfigId;
use crate::pipeline::{self, Command};

use self::poll::Polling;
use self::results::Results;
use self::sources::Origin;

/// Set in the environment of the command: the agent runs the deployments, nobody else may.
pub const RUNS_DEPLOYMENTS: &str = "AGENT_CLIENT_RUNS_DEPLOYMENTS";
/// The key of a pushed document in the cache.
const PUSH: &str = "push";
/// Collectors that a push makes needless.
const TRANSPORTS: [&str; 4] = ["cfn", "heat", "request", "zaqar"];
/// How long a metadata service that did not answer is not asked again: each push would wait for it.
const EC2_PAUSE: Duration = Duration::from_secs(600);

/// Whether the collectors are asked that a push makes needless.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Poll {
    /// A server is reached, or may be in a moment.
    Off,
    /// None is reached. Results that nobody else takes wait for it.
    Meanwhile,
    /// There is none.
    Alone,
}

/// Who is told what is found.
#[derive(Debug, Clone)]
pub struct Tell {
    /// The pipeline: documents, and which deployments may run.
    pub commands: mpsc::UnboundedSender<Command>,
    /// Tokens in polled documents.
    pub tokens: mpsc::UnboundedSender<Found>,
}

/// How long the command may take, and what happens to one that must end.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// After which it counts as failed and is ended; zero: never.
    pub timeout: Duration,
    /// How long it may go on when the agent stops.
    pub stop_wait: Duration,
    /// How long it has between being asked to end and being killed.
    pub kill_grace: Duration,
}

/// The thread that does it; ends with what runs when dropped.
#[derive(Debug)]
pub struct Collect {
    tell: Option<mpsc::UnboundedSender<Told>>,
    thread: Option<JoinHandle<()>>,
}

/// A document whose deployments wait.
#[derive(Debug)]
struct Held {
    /// For [`Command::Release`].
    hold: u64,
    body: Bytes,
}

/// What the thread is told.
#[derive(Debug)]
enum Told {
    Held(Held),
    /// Whether to poll.
    Poll(Poll),
    /// A result that Heat may have to be told of.
    Ended(Box<pipeline::Waiting>),
    /// Nobody waits for the result of this config's run any more.
    Over(ConfigId, u64),
}

impl Collect {
    /// With this configuration of os-collect-config. `has_document`: there was a pushed one before, which is in
    /// force; `is_of_system`: results that `heat-config` has left in its usual place are sent too.
    ///
    /// # Errors
    /// There can be no further thread.
    pub fn start(
        config: PathBuf,
        bounds: Bounds,
        tell: Tell,
        has_document: bool,
        is_of_system: bool,
    ) -> io::Result<Self> {
        let Tell { commands, tokens } = tell;
        let (tell, told) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let worker = Worker {
            config,
            bounds,
            commands,
            tokens,
            told,
            held: None,
            in_force: None,
            has_document,
            polling: Polling::default(),
            results: Results::default(),
            ec2_failed: None,
        };
        let unsent = Unsent::of_environment(|name| std::env::var_os(name), is_of_system);
        // Beside each other: what nobody takes holds up neither documents nor the end.
        let (serving, stop) = Stop::when_dropped();
        let serve = async move {
            worker.serve().await;
            drop(serving);
        };
        let work = move || {
            runtime.block_on(async { join!(serve, unsent.keep_sending(stop)) });
        };
        let thread = thread::Builder::new().name("collect".into()).spawn(work)?;
        Ok(Self { tell: Some(tell), thread: Some(thread) })
    }

    /// This document is durable, and its deployments wait for the release of this hold.
    pub fn held(&self, hold: u64, body: Bytes) {
        self.tell(Told::Held(Held { hold, body }));
    }

    /// Whether to poll from now on.
    pub fn poll(&self, poll: Poll) {
        self.tell(Told::Poll(poll));
    }

    /// A deployment has ended with this result.
    pub fn ended(&self, result: &pipeline::Waiting) {
        self.tell(Told::Ended(Box::new(result.clone())));
    }

    /// Nobody waits for the result of this config's run any more.
    pub fn over(&self, id: ConfigId, run: u64) {
        self.tell(Told::Over(id, run));
    }

    fn tell(&self, told: Told) {
        if let Some(tell) = &self.tell {
            // The thread lives as long as this does.
            let _ = tell.send(told);
        }
    }
}

impl Drop for Collect {
    fn drop(&mut self) {
        self.tell = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Worker {
    config: PathBuf,
    bounds: Bounds,
    commands: mpsc::UnboundedSender<Command>,
    tokens: mpsc::UnboundedSender<Found>,
    told: mpsc::UnboundedReceiver<Told>,
    /// The newest document that waits and was not attempted yet.
    held: Option<Held>,
    /// The content of the last one, and where it came from.
    in_force: Option<(Origin, Map<String, Value>)>,
    /// Whether a server or a transport has ever had a document. What this machine has of its own does not
    /// take its place.
    has_document: bool,
    polling: Polling,
    results: Results,
    /// When the metadata service had no answer.
    ec2_failed: Option<Instant>,
}

/// Whether the agent goes on.
enum Ended {
    Done,
    Stopping,
}

impl Worker {
    async fn serve(mut self) {
        let mut failures = 0_u32;
        loop {
            let Some(held) = self.held.take() else {
                failures = 0;
                let (polls_at, sends_at) = (self.polls_at(), self.sends_at());
                tokio::select! {
                    told = self.told.recv() => match told {
                        Some(told) => self.take_in(told),
                        None => return,
                    },
                    () = at(polls_at) => self.poll(true),
                    () = at(sends_at) => self.send_results(),
                }
                continue;
            };
            let error = match self.attempt(&held).await {
                Ok(Ended::Stopping) => return,
                Ok(Ended::Done) => {
                    let _ = self.commands.send(Command::Release { hold: held.hold });
                    continue;
                }
                Err(error) => error,
            };
            failures = failures.saturating_add(1);
            let pause = pause_after(failures);
            tracing::error!(
                failures,
                retry_in_s = pause.as_secs(),
                "the document is not in effect, its deployments wait: {error:#}"
            );
            let until = tokio::time::Instant::now() + pause;
            while self.held.is_none() {
                tokio::select! {
                    told = self.told.recv() => match told {
                        Some(told) => self.take_in(told),
                        None => return,
                    },
                    () = sleep_until(until) => break,
                }
            }
            if self.held.is_none() {
                if self.polls_at().is_some() {
                    // The machine's own sources are read again with the attempt.
                    self.poll(false);
                }
                self.held = Some(held);
            } else {
                failures = 0;
            }
        }
    }

    fn take_in(&mut self, told: Told) {
        match told {
            Told::Held(held) => self.held = Some(held),
            Told::Poll(poll) => self.polls(poll),
            Told::Ended(result) => {
                self.results.ended(*result);
                if self.sends_at().is_some_and(|at| at <= tokio::time::Instant::now()) {
                    self.send_results();
                }
            }
            Told::Over(id, run) => self.results.over(&id, run),
        }
    }

    /// Puts the document into the cache and runs the command, if anything is news to it.
    async fn attempt(&mut self, held: &Held) -> Result<Ended> {
        let config = read(&self.config)?;
        let cache = Cache::new(config.cachedir.clone());
        let Value::Object(content) = serde_json::from_slice(&held.body)? else {
            bail!("the document is no object");
        };
        let origin = self.polling.origin_of(&held.body);
        self.has_document |= origin != Origin::Machine;
        self.in_force = Some((origin, content.clone()));
        self.polling.is_on_its_way = false;
        let (items, names) = self.sources(&config, &cache, origin, content)?;
        let stored = store(&cache, &items, &names, &config.backup_cachedir, |problem| {
            tracing::error!(problem, "collect");
        })?;
        if stored.changed.is_empty() {
            return Ok(Ended::Done);
        }
        if let Some(command) = &config.command {
            let paths: Vec<String> = stored
                .keys
                .iter()
                .map(|key| cache.path(key).to_string_lossy().into_owned())
                .collect();
            tracing::info!(source = origin.name(), command, "running the command");
            if let Ended::Stopping = self.run(command, &paths.join(":")).await? {
                return Ok(Ended::Stopping);
            }
        }
        for key in &stored.changed {
            cache.commit(key)?;
        }
        Ok(Ended::Done)
    }

    /// Runs the command in a process group of its own.
    async fn run(&mut self, command: &str, files: &str) -> Result<Ended> {
        let mut child = tokio::process::Command::new("/bin/sh")
            .args(["-c", command])
            .env("OS_CONFIG_FILES", files)
            .env(RUNS_DEPLOYMENTS, "1")
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .context("could not run /bin/sh")?;
        let limit = match self.bounds.timeout {
            Duration::ZERO => None,
            limit => Some(tokio::time::Instant::now() + limit),
        };
        let status = loop {
            tokio::select! {
                status = child.wait() => break status.context("could not wait for the command")?,
                told = self.told.recv() => match told {
                    Some(told) => self.take_in(told),
                    None => {
                        // The agent stops.
                        if timeout(self.bounds.stop_wait, child.wait()).await.is_err() {
                            self.end(&mut child).await;
                        }
                        return Ok(Ended::Stopping);
                    }
                },
                () = sleep_until(limit.unwrap_or_else(tokio::time::Instant::now)), if limit.is_some() => {
                    self.end(&mut child).await;
                    let seconds = self.bounds.timeout.as_secs();
                    return Err(anyhow!("{command:?} was ended after {seconds} s (hook_timeout)"));
                }
            }
        };
        match status.success() {
            true => Ok(Ended::Done),
            false => Err(anyhow!("{command:?} failed: {status}")),
        }
    }

    /// Asks the command and what it has started to end, then kills them.
    async fn end(&self, child: &mut Child) {
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let Some(group) = group else { return };
        let _ = kill_process_group(group, Signal::TERM);
        let _ = timeout(self.bounds.kill_grace, child.wait()).await;
        let _ = kill_process_group(group, Signal::KILL);
        let _ = child.wait().await;
    }
}

fn read(path: &Path) -> Result<Config> {
    read_config(path).map_err(anyhow::Error::msg)
}

/// The configuration of os-collect-config in this file.
pub(crate) fn read_config(path: &Path) -> Result<Config, String> {
    let arguments = ["--config-file".into(), OsString::from(path)];
    load(&arguments, |name| std::env::var(name).ok()).map_err(|error| match error {
        NoConfig::Wrong(what) => what,
        NoConfig::Instead(_) => format!("{} cannot be named so", path.display()),
    })
}

/// Waits until then; for ever if there is no time.
async fn at(time: Option<tokio::time::Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// 1, 2, 4 … 64 seconds.
fn pause_after(failures: u32) -> Duration {
    Duration::from_secs(1 << failures.saturating_sub(1).min(6))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_about_a_minute() {
        let pauses: Vec<u64> = (1..=9).map(|failures| pause_after(failures).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 64, 64]);
        assert_eq!(pause_after(u32::MAX).as_secs(), 64);
    }
}
