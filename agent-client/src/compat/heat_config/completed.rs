//! `99-refresh-completed`: once everything is configured, signals the deployments that are only data for
//! templates (groups `os-apply-config` and `Heat::Ungrouped`), which no hook does, and the wait conditions
//! that the metadata names.
//!
//! A deployment is signalled once: an empty file of its id in [`DEPLOYED`] says so. Exit status 1 has
//! os-collect-config run everything again, which is what is wanted as long as Heat cannot be reached.

use std::env;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use certs::file::PRIVATE_FILE_MODE;
use serde_json::{Value, json};

use super::agent::Agent;
use super::deployed::stem;
use super::notify::deliver;
use super::rebuild::metadata;
use super::settings::{NOTIFY_TIMEOUT, NOTIFY_TIMEOUT_DEFAULT, seconds};
use crate::collect::RUNS_DEPLOYMENTS;
use crate::compat::pylog::{Level, Log, Style};
use crate::document::{ConfigId, DATA_GROUPS};
use openstack_client::http::Client;
use openstack_client::signal::{Failed, Transport, of_config};

/// Where it is kept what was signalled; OS_APPLY_CONFIG_DEPLOYED names another place.
pub const DEPLOYED: &str = "/var/lib/os-apply-config-deployments/deployed";

/// Runs the command; it takes no arguments.
pub fn main(_arguments: &[OsString]) -> ExitCode {
    let mut log = Log::new(Style::Named("99-refresh-completed"), Level::Info);
    match execute(&mut log) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            log.error(format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Whether all is well.
fn execute(log: &mut Log) -> Result<bool> {
    let client = Client::default();
    let mut all_well = true;
    // Wait conditions take a PUT, signals a POST.
    for (key, put) in [("completion-handle", true), ("completion-signal", false)] {
        let Some(url) = text(key)? else { continue };
        let transport = Transport::Presigned { url, put };
        let data = json!({
            "Status": "SUCCESS",
            "Reason": "Configuration Complete",
            "UniqueId": unique_id()?,
            "Data": "Finished os-refresh-config.",
        });
        all_well &= signal(&client, &transport, &data, log).is_ok();
    }
    if env::var_os(RUNS_DEPLOYMENTS).is_some() {
        log.info("the agent answers for the deployments, after the command that it has started");
        return Ok(all_well);
    }
    let agent = Agent::of_machine(log);
    if let Some(pid) = agent.as_ref().and_then(Agent::runs_all) {
        log.info(format!("agent-client (pid {pid}) answers for the deployments of this machine"));
        return Ok(all_well);
    }
    let deployments = match metadata("deployments")? {
        Some(Value::Array(deployments)) => deployments,
        None => return Ok(all_well),
        Some(_) => bail!("deployments in the metadata are no list"),
    };
    let deployed = env::var_os("OS_APPLY_CONFIG_DEPLOYED").filter(|path| !path.is_empty());
    let deployed = deployed.map_or_else(|| DEPLOYED.into(), PathBuf::from);
    fs::create_dir_all(&deployed)
        .with_context(|| format!("could not make {}", deployed.display()))?;
    for deployment in &deployments {
        let group = deployment.get("group").and_then(Value::as_str).unwrap_or_default();
        if !DATA_GROUPS.contains(&group) {
            continue;
        }
        let id = deployment.get("id").and_then(Value::as_str).unwrap_or_default();
        let read = ConfigId::new(id).and_then(|id| Ok((id, of_config(deployment)?)));
        let (id, transports) = match read {
            Ok(read) => read,
            Err(why) => {
                log.error(format!("Deployment {id:?} of group {group}: {why}"));
                all_well = false;
                continue;
            }
        };
        if transports.is_empty() {
            continue;
        }
        if let Some(why) = agent.as_ref().and_then(|agent| agent.has(&id)) {
            println!("Skipping {id}, {why}");
            continue;
        }
        let marker = deployed.join(stem(&id));
        if marker.is_file() {
            println!("Skipping {id}, already deployed");
            continue;
        }
        let data = json!({
            "deploy_stdout": format!("os-apply-config deployment {id} completed"),
            "deploy_status_code": "0",
        });
        let mut is_over = true;
        for transport in &transports {
            println!("Signalling os-apply-config deployment {id} {transport}");
            let sent = signal(&client, transport, &data, log);
            all_well &= sent.is_ok();
            is_over &= !matches!(sent, Err(Failed::Later(_)));
        }
        // What was refused is refused the next time too: it is said once.
        if is_over {
            OpenOptions::new()
                .append(true)
                .create(true)
                .mode(PRIVATE_FILE_MODE)
                .open(&marker)
                .with_context(|| format!("could not make {}", marker.display()))?;
        }
    }
    Ok(all_well)
}

fn signal(
    client: &Client,
    transport: &Transport,
    data: &Value,
    log: &mut Log,
) -> Result<u16, Failed> {
    let patience = seconds(NOTIFY_TIMEOUT, env::var_os(NOTIFY_TIMEOUT)).ok().flatten();
    let deadline = Instant::now().checked_add(patience.unwrap_or(NOTIFY_TIMEOUT_DEFAULT));
    let sent = deliver(client, transport, data, deadline, log);
    if let Err(Failed::Later(why) | Failed::Refused(why)) = &sent {
        log.error(format!("The signal to {transport} was not taken: {why}"));
    }
    sent
}

fn text(key: &str) -> Result<Option<String>> {
    let value = metadata(key)?;
    Ok(value.as_ref().and_then(Value::as_str).map(str::to_owned))
}

/// Tells this server from others: the instance's id, else its name.
fn unique_id() -> Result<String> {
    if let Some(id) = text("instance-id")? {
        return Ok(id);
    }
    let name = fs::read_to_string("/proc/sys/kernel/hostname")
        .context("the metadata has no instance-id, and this machine no name")?;
    Ok(name.trim().to_owned())
}
