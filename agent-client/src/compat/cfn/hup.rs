//! `cfn-hup`: runs hooks when a resource's metadata has changed or a service had to be restarted.
//!
//! One call is one pass. It is made for cron, and the agent makes one by itself after each push.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use clap::Parser;
use nix::unistd::{Uid, User};
use rustix::fs::{FlockOperation, flock};

use super::ini::{Ini, IniError};
use super::init::SECTION;
use super::metadata::{Keys, Wanted, retrieve};
use super::services;
use super::work::Work;
use crate::compat::arguments;
use crate::compat::pylog::{Level, Log};
use crate::machine::System;
use crate::machine::run::Call;
use openstack_client::http::Client;

pub(super) const CONFIG: &str = "/etc/cfn/cfn-hup.conf";
const HOOKS: &str = "/etc/cfn/hooks.conf";
const HOOKS_DIRECTORY: &str = "/etc/cfn/hooks.d";
/// How long a pass waits for one that is under way.
const LOCK_WAIT_S_MAX: u64 = 120;
const LOCK_POLL_MS: u64 = 100;
const POST_UPDATE: &str = "post.update";
const SERVICE_RESTARTED: &str = "service.restarted";

/// Looks for changes of metadata and runs the hooks for them.
#[derive(Debug, Parser)]
#[command(name = "cfn-hup", version, infer_long_args = true)]
struct Cli {
    /// Hook config directory [default: /etc/cfn/hooks.d]
    #[arg(short, long = "config")]
    config: Option<PathBuf>,
    /// Do not run as a daemon (it never does)
    #[arg(short = 'f', long)]
    no_daemon: bool,
    /// Verbose logging
    #[arg(short, long)]
    verbose: bool,
}

/// Runs the command; `arguments` begin with its name.
pub fn main(arguments: &[OsString]) -> ExitCode {
    run(arguments, &System::of_machine())
}

/// Runs the command on `system`.
pub fn run(arguments: &[OsString], system: &System) -> ExitCode {
    let cli: Cli = match arguments::parse(arguments) {
        Ok(cli) => cli,
        Err(exit) => return exit,
    };
    let least = if cli.verbose { Level::Debug } else { Level::Info };
    let mut log = system.log("cfn-hup", least, Level::Error);
    let hooks = cli.config.unwrap_or_else(|| system.at(HOOKS_DIRECTORY));
    match pass(system, &hooks, &mut log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log.error(format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn pass(system: &System, hooks: &Path, log: &mut Log) -> Result<()> {
    let main = system.at(CONFIG);
    let lock = File::open(&main)
        .with_context(|| format!("Could not open main configuration at {}", main.display()))?;
    take(&lock)?;
    let config = Config::read(system, &main, hooks, log).context("Cannot load configuration")?;
    let client = Client::default();
    let mut failures = Vec::new();
    for resource in config.resources() {
        log.debug(format!("Checking resource {resource}"));
        let keys = match Keys::read(&config.credential_file) {
            Ok(keys) => keys,
            // What was pushed needs none.
            Err(_) if system.document().exists() => None,
            Err(error) => return Err(error.context("invalid credentials file")),
        };
        let wanted = Wanted {
            stack: Some(&config.stack),
            resource: Some(resource),
            keys,
            is_pushed_enough: true,
            needs: None,
        };
        let found = retrieve(system, log, &wanted)?;
        let found = found.ok_or_else(|| anyhow!("there is no metadata of {resource}"))?;
        let section =
            found.value.get(SECTION).filter(|s| s.as_object().is_some_and(|s| !s.is_empty()));
        if section.is_none() {
            log.debug(format!("Metadata does not contain a {SECTION} section"));
        }
        let services =
            section.unwrap_or(&found.value).get("config").and_then(|c| c.get("services"));
        let mut work = Work { system, log, client: &client, failures: Vec::new() };
        services::restart_stopped(&mut work, services, |work, _| {
            config.fire(work, SERVICE_RESTARTED, resource);
        });
        if found.has_changed {
            config.fire(&mut work, POST_UPDATE, resource);
        }
        failures.append(&mut work.failures);
    }
    match failures.len() {
        0 => Ok(()),
        1 => bail!("1 step has failed"),
        count => bail!("{count} steps have failed"),
    }
}

/// One pass at a time: two at once would see the same change.
fn take(lock: &File) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(LOCK_WAIT_S_MAX);
    loop {
        match flock(lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::AGAIN) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(LOCK_POLL_MS));
            }
            Err(rustix::io::Errno::AGAIN) => {
                bail!("another pass has been under way for {LOCK_WAIT_S_MAX} s; its hooks may hang")
            }
            Err(error) => return Err(error).context("locking the main configuration"),
        }
    }
}

/// A hook: what to run on which event.
#[derive(Debug, PartialEq, Eq)]
struct Hook {
    name: String,
    triggers: Vec<String>,
    resource: String,
    runas: String,
    action: String,
}

#[derive(Debug)]
struct Config {
    stack: String,
    credential_file: PathBuf,
    hooks: Vec<Hook>,
}

impl Config {
    fn read(system: &System, main: &Path, directory: &Path, log: &mut Log) -> Result<Self> {
        let mut paths = vec![system.at(HOOKS)];
        paths.retain(|path| path.exists());
        let mut more: Vec<PathBuf> = fs::read_dir(directory)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        more.retain(|path| path.is_file());
        more.sort();
        paths.append(&mut more);
        let where_hooks_are =
            || format!("{} or {}", system.at(HOOKS).display(), directory.display());
        if paths.is_empty() {
            bail!("No hook files found at {}", where_hooks_are());
        }
        let mut ini = Ini::default();
        for path in [main.to_owned()].iter().chain(&paths) {
            let text =
                fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
            ini.read(&text).with_context(|| format!("reading {}", path.display()))?;
        }
        let config = Self::of(&ini)?;
        if config.hooks.is_empty() {
            bail!("No hooks were found. Add some to {}", where_hooks_are());
        }
        log.debug(format!("{} hooks for stack {}", config.hooks.len(), config.stack));
        let credential_file = system.at(&config.credential_file.to_string_lossy());
        Ok(Self { credential_file, ..config })
    }

    fn of(ini: &Ini) -> Result<Self> {
        let stack = ini.get("main", "stack")?;
        let credential_file = ini.get("main", "credential-file")?.into();
        match ini.get("main", "interval") {
            Ok(text) => {
                text.trim().parse::<i64>().with_context(|| format!("interval is {text:?}"))?;
            }
            Err(IniError::NoOption { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let mut hooks = Vec::new();
        for name in ini.sections().filter(|name| *name != "main") {
            let path = ini.get(name, "path")?;
            let resource = path.split('.').nth(1).filter(|resource| !resource.is_empty());
            let resource = resource.ok_or_else(|| {
                anyhow!("hook [{name}]: path is {path:?}, must be like Resources.NAME.Metadata")
            })?;
            let triggers = ini.get(name, "triggers")?;
            let triggers =
                triggers.split([',', ' ', '\t', '\n']).filter(|trigger| !trigger.is_empty());
            hooks.push(Hook {
                name: name.to_owned(),
                triggers: triggers.map(str::to_owned).collect(),
                resource: resource.to_owned(),
                runas: ini.get(name, "runas")?,
                action: ini.get(name, "action")?,
            });
        }
        Ok(Self { stack, credential_file, hooks })
    }

    /// The resources that hooks are about, each once.
    fn resources(&self) -> Vec<&str> {
        let mut resources: Vec<&str> = Vec::new();
        for hook in &self.hooks {
            if !resources.contains(&hook.resource.as_str()) {
                resources.push(&hook.resource);
            }
        }
        resources
    }

    /// Runs the hooks for an event of a resource.
    fn fire(&self, work: &mut Work<'_>, event: &str, resource: &str) {
        for hook in &self.hooks {
            if hook.resource != resource || !hook.triggers.iter().any(|trigger| trigger == event) {
                continue;
            }
            let (name, runas) = (&hook.name, &hook.runas);
            let user = match User::from_name(runas) {
                Ok(Some(user)) => user,
                Ok(None) => {
                    work.fail(format!("hook [{name}]: runas is {runas:?}, which is no user here"));
                    continue;
                }
                Err(error) => {
                    work.fail(format!("hook [{name}]: looking up user {runas:?}: {error}"));
                    continue;
                }
            };
            work.log.info(format!("{event} of {resource}: running hook [{name}]"));
            let is_other = user.uid != Uid::effective();
            let call = Call::shell(&hook.action).user(is_other.then_some(user));
            work.do_or_fail(&format!("hook [{name}]"), &call);
        }
    }
}

#[cfg(test)]
mod tests;
