//! Hooks: what runs a config, by the name of its group.

pub mod built_in;
pub mod capture;
pub mod cgroup;
pub mod containers;
pub mod external;
pub mod kept;
pub mod outputs;
pub mod proc;
pub mod process;
pub mod script;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::document::{Config, ConfigId, Document, hex, sha256};
use crate::journal::ProcessMark;
use containers::Containers;
use kept::{OutputStore, Stream};
use process::{Activity, Process};

/// How often what a hook has started is looked for before it is in its control group: once is enough unless
/// it starts processes all the time, and those are born in the group.
const STRAGGLER_ROUNDS_MAX: u32 = 4;
/// Name of the built-in hook.
pub(crate) const SCRIPT: &str = "script";

/// What a hook answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    /// `deploy_stdout`.
    pub stdout: String,
    /// `deploy_stderr`.
    pub stderr: String,
    /// `deploy_status_code`: 0 is success.
    pub status_code: i64,
    /// Outputs by name, declared or not.
    pub outputs: Map<String, Value>,
    /// Why the agent, rather than the hook, calls it failed.
    pub reason: Option<String>,
}

/// A failure that the agent found before a hook could run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotRun {
    /// `deploy_status_code`, never 0.
    pub status_code: i64,
    /// What is wrong, for the user.
    pub reason: String,
}

impl NotRun {
    /// With a status code other than 0.
    pub fn new(status_code: i64, reason: impl Into<String>) -> Self {
        Self { status_code, reason: reason.into() }
    }

    /// With status code 1.
    pub fn because(reason: impl Into<String>) -> Self {
        Self::new(1, reason)
    }
}

/// The user reads the reason as `deploy_stderr` too: Heat knows no other place for it.
impl From<NotRun> for Response {
    fn from(NotRun { status_code, reason }: NotRun) -> Self {
        Self {
            stdout: String::new(),
            stderr: format!("{reason}\n"),
            status_code,
            outputs: Map::new(),
            reason: Some(reason),
        }
    }
}

/// A hook that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hook {
    /// The built-in one for scripts.
    Script,
    /// A program of our own binary, by the name of its group.
    BuiltIn(&'static str),
    /// A program in a hook directory.
    External(PathBuf),
}

/// The hooks of this machine.
#[derive(Debug)]
pub struct Hooks {
    directories: Vec<PathBuf>,
    preferred: Option<PathBuf>,
    script: script::Directories,
    instance: String,
    cgroups: Option<cgroup::Parent>,
    output: Option<OutputStore>,
    environment: Vec<(String, OsString)>,
    containers: Vec<Containers>,
    leftovers: Vec<PathBuf>,
}

/// A config whose hook runs.
#[derive(Debug)]
pub struct Run {
    process: Process,
    hook: Hook,
    name: String,
    group: Option<cgroup::Group>,
}

impl Hooks {
    /// `preferred` (`HEAT_CONFIG_HOOKS`) is searched first and may replace even a built-in hook; then come
    /// the built-in ones, then `directories`. `instance` tells runs of this agent from those of others on
    /// the same machine.
    pub fn new(
        directories: Vec<PathBuf>,
        preferred: Option<PathBuf>,
        script: script::Directories,
        instance: String,
    ) -> Self {
        Self {
            directories,
            preferred,
            script,
            instance,
            cgroups: None,
            output: None,
            environment: Vec::new(),
            containers: Vec::new(),
            leftovers: Vec::new(),
        }
    }

    /// Gives each run a control group in this one.
    #[must_use]
    pub fn with_cgroups(mut self, parent: Option<cgroup::Parent>) -> Self {
        self.cgroups = parent;
        self
    }

    /// Names directories, besides those of scripts and of kept output, in which hooks leave files of configs.
    #[must_use]
    pub fn with_leftovers(mut self, directories: Vec<PathBuf>) -> Self {
        self.leftovers = directories;
        self
    }

    /// Where files of configs are that are over.
    pub fn leftovers(&self) -> Vec<PathBuf> {
        let script = self.script.both().map(Path::to_owned);
        let kept = self.output.iter().map(|store| store.directory().to_owned());
        script.into_iter().chain(kept).chain(self.leftovers.iter().cloned()).collect()
    }

    /// Keeps what hooks print in this store.
    #[must_use]
    pub fn with_output(mut self, store: OutputStore) -> Self {
        self.output = Some(store);
        self
    }

    /// Keeps lists by which containers of deployments that have left go.
    #[must_use]
    pub fn with_containers(mut self, containers: Vec<Containers>) -> Self {
        self.containers = containers;
        self
    }

    /// A document was taken up; its hooks come now.
    pub fn adopted(&self, document: &Document) {
        self.containers().for_each(|containers| containers.adopted(document));
    }

    /// All of its deployments have ended.
    pub fn settled(&self) {
        self.containers().for_each(|containers| containers.settled(&self.environment));
    }

    /// Of groups whose hooks are ours.
    fn containers(&self) -> impl Iterator<Item = &Containers> {
        let ours = |group| matches!(self.find(group), Some(Hook::BuiltIn(_)));
        self.containers.iter().filter(move |containers| ours(containers.group()))
    }

    /// Gives the built-in hooks that are processes of their own these variables.
    #[must_use]
    pub fn with_environment(mut self, environment: Vec<(String, OsString)>) -> Self {
        self.environment = environment;
        self
    }

    /// Does beforehand what the first hook would have to wait for.
    pub fn warm_up(&self) {
        if let Err(error) = self.script.make_ready() {
            tracing::warn!(%error, "scripts will fail");
        }
        if let Some(Err(error)) = self.output.as_ref().map(OutputStore::make_ready) {
            tracing::warn!(%error, "what hooks print is not kept");
        }
    }

    /// The hook of this name.
    pub fn find(&self, name: &str) -> Option<Hook> {
        if let Some(path) = external::find(self.preferred.as_slice(), name) {
            return Some(Hook::External(path));
        }
        if name == SCRIPT {
            return Some(Hook::Script);
        }
        if let Some(name) = built_in::find(name) {
            return Some(Hook::BuiltIn(name));
        }
        external::find(&self.directories, name).map(Hook::External)
    }

    /// What to say when there is none.
    pub fn no_such_hook(&self, name: &str) -> NotRun {
        let places = self.preferred.iter().chain(&self.directories);
        let places: Vec<String> = places.map(|path| path.display().to_string()).collect();
        NotRun::because(format!(
            "no such hook: {name:?} is not built in and not in {}",
            places.join(", ")
        ))
    }

    /// The value of [`proc::RUN_VARIABLE`] for a run of a config, counted from 1. What one run leaves behind
    /// on purpose is none of the next one's.
    pub fn run_name(&self, id: &ConfigId, run: u64) -> String {
        hex(&sha256(format!("{}\n{id}\n{run}", self.instance).as_bytes())[..16])
    }

    /// Starts a hook, for this run of the config.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn start(
        &self,
        hook: &Hook,
        id: &ConfigId,
        run: u64,
        config: &Config,
    ) -> Result<Run, NotRun> {
        let mut launch = match hook {
            Hook::Script => script::prepare(&self.script, id, config.into())?,
            Hook::BuiltIn(name) => built_in::prepare(name, &self.environment, config),
            Hook::External(program) => external::prepare(program, config),
        };
        let name = self.run_name(id, run);
        if let Hook::BuiltIn(name) = hook {
            let of_group = self.containers.iter().filter(|containers| containers.group() == *name);
            launch.environment.extend(of_group.flat_map(Containers::environment));
        }
        launch.environment.push((proc::RUN_VARIABLE.into(), name.clone().into()));
        let program = launch.program.clone();
        match Process::spawn(launch).await {
            Ok(mut process) => {
                if let Some(store) = &self.output {
                    let keep = |stream| store.keep(id, stream);
                    process.keep(keep(Stream::Stdout), keep(Stream::Stderr));
                }
                let group = self.group_for(&name, &process);
                Ok(Run { process, hook: hook.clone(), name, group })
            }
            Err(error) => Err(match hook {
                Hook::Script => script::not_started(&program, &error),
                Hook::BuiltIn(_) | Hook::External(_) => external::not_started(&program, &error),
            }),
        }
    }

    /// Moving a process takes the kernel up to some 15 ms, so the hook is not held up for it. What it starts
    /// afterwards is born in the group; what it has started before is looked for and moved as well, which
    /// misses only what has left session, environment and parent within that time.
    fn group_for(&self, name: &str, process: &Process) -> Option<cgroup::Group> {
        let group = self.cgroups.as_ref()?.group(name);
        let hook = process.mark();
        if let Err(error) = group.make().and_then(|()| group.take(hook.pid))
            && !process.has_exited()
        {
            tracing::warn!(%error, "a hook runs without a control group of its own");
            group.remove();
            return None;
        }
        let mut taken = BTreeSet::from([hook.pid]);
        for _ in 0..STRAGGLER_ROUNDS_MAX {
            let stragglers: Vec<u32> =
                proc::started_by(hook, name).into_iter().filter(|pid| taken.insert(*pid)).collect();
            if stragglers.is_empty() {
                break;
            }
            for pid in stragglers {
                // One that has ended meanwhile cannot be moved.
                let _ = group.take(pid);
            }
        }
        Some(group)
    }

    /// Kills what an earlier life of the agent has left of a run. Returns whether there was anything.
    ///
    /// Only call it during the boot in which the run was started.
    pub fn kill_leftover(&self, id: &ConfigId, run: u64, process: Option<ProcessMark>) -> bool {
        let name = self.run_name(id, run);
        let grouped = self.cgroups.as_ref().is_some_and(|parent| parent.group(&name).kill());
        let leftover = proc::kill_leftover(process, &name);
        let named = proc::kill_named(&name);
        grouped || leftover || named
    }

    /// Removes control groups in which nothing runs any more, and output beyond the store's bounds.
    pub fn tidy(&self) {
        if let Some(store) = &self.output {
            store.bound();
        }
        if let Some(parent) = &self.cgroups {
            parent.remove_empty();
        }
    }

    /// The response of a hook that exited.
    pub fn respond(
        &self,
        hook: &Hook,
        id: &ConfigId,
        config: &Config,
        exit: process::Exit,
    ) -> Response {
        match hook {
            Hook::Script => script::respond(&self.script, id, config.into(), exit),
            Hook::BuiltIn(_) | Hook::External(_) => external::respond(exit),
        }
    }

    /// Starts a hook and waits for its response.
    #[cfg(test)]
    pub async fn run(&self, hook: &Hook, id: &ConfigId, config: &Config) -> Response {
        let mut run = match self.start(hook, id, 1, config).await {
            Ok(run) => run,
            Err(not_run) => return not_run.into(),
        };
        loop {
            if let Activity::Exited(exit) = run.next().await {
                return self.respond(hook, id, config, exit);
            }
        }
    }
}

impl Run {
    /// Which process it is.
    pub fn mark(&self) -> ProcessMark {
        self.process.mark()
    }

    /// Which hook it is.
    pub fn hook(&self) -> &Hook {
        &self.hook
    }

    /// The end of what it has printed so far.
    pub fn live(&self) -> String {
        self.process.live()
    }

    /// What it has printed from a position on, and where that begins; see [`Process::printed_since`].
    pub fn printed_since(&self, position: u64) -> (u64, Vec<u8>) {
        self.process.printed_since(position)
    }

    /// Waits for the next thing to happen. May be dropped while waiting without losing anything.
    pub async fn next(&mut self) -> Activity {
        self.process.next().await
    }

    /// Whether the hook itself has ended, told or not.
    pub fn has_exited(&self) -> bool {
        self.process.has_exited()
    }

    /// Asks it to end; it and what it started have until `kill_at`, then comes [`kill`](Self::kill).
    pub fn ask_to_end(&mut self, kill_at: Instant) {
        self.process.linger(kill_at);
        self.process.signal(Signal::TERM);
    }

    /// Kills it and everything that it started, wherever that went.
    pub fn kill(&mut self) {
        if let Some(group) = &self.group {
            group.kill();
        }
        self.process.kill();
        proc::kill_named(&self.name);
        self.process.linger(Instant::now());
    }
}
