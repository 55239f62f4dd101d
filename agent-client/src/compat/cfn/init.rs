//! `cfn-init`: brings the machine into the state that a resource's metadata describes.
//!
//! Per config: packages, sources, groups, users, files, commands, services. What fails is collected while
//! the rest is still done, as the original goes on; only a failing command stops. In the end one failure is
//! enough to exit with 1.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Result, anyhow, bail};
use clap::Parser;
use serde_json::Value;

use super::metadata::{Keys, Wanted, retrieve};
use super::work::Work;
use super::{accounts, commands, configsets, files, packages, services, sources};
use crate::compat::arguments;
use crate::compat::pylog::{Level, Log};
use crate::machine::System;
use openstack_client::http::Client;

/// The part of a resource's metadata that is for us.
pub(super) const SECTION: &str = "AWS::CloudFormation::Init";

/// Applies the configs in a resource's metadata.
#[derive(Debug, Parser)]
#[command(name = "cfn-init", version, infer_long_args = true)]
struct Cli {
    /// A Heat stack name
    #[arg(short, long)]
    stack: Option<String>,
    /// A Heat logical resource ID
    #[arg(short, long)]
    resource: Option<String>,
    /// A Keystone access key
    #[arg(long)]
    access_key: Option<String>,
    /// A Keystone secret key
    #[arg(long)]
    secret_key: Option<String>,
    /// OpenStack region (not used)
    #[arg(long)]
    region: Option<String>,
    /// ConfigSets to apply, with commas between [default: default]
    #[arg(short, long)]
    configsets: Option<String>,
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
    let mut log = system.log("cfn-init", Level::Debug, Level::Error);
    match execute(cli, system, &mut log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log.error(format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn execute(cli: Cli, system: &System, log: &mut Log) -> Result<()> {
    let wanted = Wanted {
        stack: cli.stack.as_deref(),
        resource: cli.resource.as_deref(),
        keys: Keys::new(cli.access_key, cli.secret_key),
        needs: Some(SECTION),
        ..Wanted::default()
    };
    let found = retrieve(system, log, &wanted)?;
    let found = found.ok_or_else(|| anyhow!("there is no metadata to apply"))?;
    let section = found.value.get(SECTION).and_then(Value::as_object).filter(|s| !s.is_empty());
    let section = section.ok_or_else(|| anyhow!("invalid metadata: it has no {SECTION:?}"))?;
    let names = configsets::configs(section.get("configSets"), cli.configsets.as_deref())?;
    let client = Client::default();
    let mut failures = Vec::new();
    for name in names {
        let config = section.get(&name).ok_or_else(|| {
            anyhow!("the metadata has no config {name:?}; another configSet may be meant")
        })?;
        log.debug(format!("config {name}"));
        let mut work = Work { system, log, client: &client, failures: Vec::new() };
        let applied = apply(&mut work, config);
        failures.append(&mut work.failures);
        applied?;
    }
    match failures.len() {
        0 => Ok(()),
        1 => bail!("1 step has failed"),
        count => bail!("{count} steps have failed"),
    }
}

fn apply(work: &mut Work<'_>, config: &Value) -> Result<()> {
    packages::apply(work, config.get("packages"));
    sources::apply(work, config.get("sources"));
    accounts::apply_groups(work, config.get("groups"));
    accounts::apply_users(work, config.get("users"));
    files::apply(work, config.get("files"));
    commands::apply(work, config.get("commands"))?;
    services::apply(work, config.get("services"));
    Ok(())
}

#[cfg(test)]
mod tests;
