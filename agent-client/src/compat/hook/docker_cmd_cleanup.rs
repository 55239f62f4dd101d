//! `50-heat-config-docker-cmd`: removes containers whose deployment has left the list, and gives those
//! that had to take another name the one they were asked for under, if it is free by now.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::Path;
use std::process::ExitCode;

use serde_json::Value;

use super::tool::{Call, Tool};
use super::{files, new_log};
use crate::compat::pylog::Log;
use crate::hooks::NotRun;
use crate::hooks::containers::{LIST_VARIABLE, TIDY_VARIABLE};

/// Where the list of deployments is.
pub(super) const SHELL_CONFIG: (&str, &str) = (LIST_VARIABLE, "/var/run/heat-config/heat-config");
const GROUP: &str = "docker-cmd";

/// The program.
pub fn main(_arguments: &[OsString]) -> ExitCode {
    if tidy_up(&mut new_log()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Brings the containers up to date with the list. Without a list nothing is done; `false` if it is there
/// and no list of deployments.
pub(super) fn tidy_up(log: &mut Log) -> bool {
    let path = files::place(SHELL_CONFIG.0, SHELL_CONFIG.1);
    let _lock = match lock(&path) {
        Ok(lock) => lock,
        Err(not_run) => {
            log.error(not_run.reason);
            return false;
        }
    };
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) => {
            log.warning(format!("No config file {}: {error}", path.display()));
            return true;
        }
    };
    let deployments: Value = match serde_json::from_slice(&text) {
        Ok(deployments) => deployments,
        Err(error) => {
            log.warning(format!("{} is no JSON: {error}", path.display()));
            return true;
        }
    };
    let Some(wanted) = wanted(&deployments) else {
        log.error(format!(
            "{} must be a list of deployments, each with id and group; no container is touched",
            path.display()
        ));
        return false;
    };
    let docker = Tool::new("HEAT_DOCKER_CMD", "docker");
    for step in [remove_unwanted(&docker, &wanted, log), rename(&docker, log)] {
        if let Err(not_run) = step {
            log.error(not_run.reason);
        }
    }
    true
}

/// Held while the containers are compared with a list of the agent's own.
pub(super) fn lock(list: &Path) -> Result<Option<File>, NotRun> {
    super::variable(TIDY_VARIABLE).map(|_| files::lock_beside(list)).transpose()
}

/// Ids of the deployments that may have containers; `None` if that cannot be told.
fn wanted(deployments: &Value) -> Option<Vec<&str>> {
    let mut wanted = Vec::new();
    for deployment in deployments.as_array()? {
        let group = deployment.get("group")?.as_str()?;
        if group == GROUP || (group == "component" && has_part(deployment)) {
            wanted.push(deployment.get("id")?.as_str()?);
        }
    }
    Some(wanted)
}

/// Whether a component has a part for docker-cmd.
fn has_part(deployment: &Value) -> bool {
    let parts = deployment.pointer("/config/configs").and_then(Value::as_array);
    parts.is_some_and(|parts| {
        parts.iter().any(|part| part.get("tool").and_then(Value::as_str) == Some(GROUP))
    })
}

fn remove_unwanted(docker: &Tool, wanted: &[&str], log: &mut Log) -> Result<(), NotRun> {
    let managed = "label=managed_by=docker-cmd";
    let ids = ["ps", "-a", "--filter", managed, "--format", "{{.Label \"config_id\"}}"];
    let listed = docker.ask(Call::new(ids))?;
    if listed.code != 0 {
        return Ok(());
    }
    let mut seen = Vec::new();
    for id in listed.stdout.split_whitespace() {
        if wanted.contains(&id) || seen.contains(&id) {
            continue;
        }
        seen.push(id);
        log.debug(format!("{id} no longer exists, deleting containers"));
        let of_config = format!("label=config_id={id}");
        let containers = docker
            .ask(Call::new(["ps", "-q", "-a", "--filter", managed, "--filter", &of_config]))?;
        if containers.code != 0 {
            continue;
        }
        for container in containers.stdout.split_whitespace() {
            let removed = docker.ask(Call::new(["rm", "-f", container]))?;
            if removed.code != 0 {
                let why = removed.stderr.trim_end();
                log.error(format!("Error removing container: {container}: {why}"));
            }
        }
    }
    Ok(())
}

fn rename(docker: &Tool, log: &mut Log) -> Result<(), NotRun> {
    let names = ["ps", "-a", "--format", "{{.Names}} {{.Label \"container_name\"}}"];
    let listed = docker.ask(Call::new(names))?;
    if listed.code != 0 {
        return Ok(());
    }
    let lines = || listed.stdout.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let current: Vec<&str> = lines().filter_map(|line| line.first().copied()).collect();
    let renamed: BTreeMap<&str, &str> = lines()
        .filter_map(|line| match line[..] {
            [name, .., wanted] if name != wanted => Some((name, wanted)),
            _ => None,
        })
        .collect();
    for (name, wanted) in renamed {
        if current.contains(&wanted) {
            log.info(format!("Cannot rename {name:?} since {wanted:?} still exists"));
        } else {
            let exit = docker.ask(Call::new(["rename", name, wanted]))?;
            if exit.code != 0 {
                log.error(format!("Error renaming {name} to {wanted}: {}", exit.stderr.trim_end()));
            }
        }
    }
    Ok(())
}
