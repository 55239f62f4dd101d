//! `50-heat-config-docker-compose`: writes the project files of the deployments in the list, and ends the
//! containers of projects that have left it.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use serde_json::Value;

use super::docker_cmd_cleanup::{SHELL_CONFIG, lock};
use super::tool::{Call, Tool};
use super::{files, new_log};
use crate::compat::pylog::Log;
use crate::compat::yaml_dump;
use crate::document::plain_text;
use crate::hooks::NotRun;

/// Variable and usual place of the directory of projects.
pub(super) const WORKING: (&str, &str) =
    ("HEAT_DOCKER_COMPOSE_WORKING", "/var/lib/heat-config/heat-config-docker-compose");
/// What makes a directory a project.
pub(super) const PROJECT_FILE: &str = "docker-compose.yml";
/// Mode of its files.
pub(super) const FILE_MODE: u32 = 0o600;
const GROUP: &str = "docker-compose";

/// The program.
pub fn main(_arguments: &[OsString]) -> ExitCode {
    let mut log = new_log();
    match bring_up_to_date(&mut log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(not_run) => {
            log.error(not_run.reason);
            ExitCode::FAILURE
        }
    }
}

/// Does it.
pub(super) fn bring_up_to_date(log: &mut Log) -> Result<(), NotRun> {
    let list = files::place(SHELL_CONFIG.0, SHELL_CONFIG.1);
    let _lock = lock(&list)?;
    let working = files::place(WORKING.0, WORKING.1);
    files::make(&working)?;
    let text = fs::read(&list).map_err(|e| files::io_failed("read", &list, &e))?;
    let wrong =
        |why: String| NotRun::because(format!("{}: {why}; no project is touched", list.display()));
    let deployments: Vec<Value> =
        serde_json::from_slice(&text).map_err(|e| wrong(format!("no JSON list: {e}")))?;
    let mut named = Vec::with_capacity(deployments.len());
    for deployment in &deployments {
        let name = deployment.get("name").and_then(Value::as_str);
        named.push((name.ok_or_else(|| wrong("a deployment has no name".into()))?, deployment));
    }
    end_others(&working, |project| named.iter().any(|(name, _)| *name == project), log)?;
    for (name, deployment) in named {
        if deployment.get("group").and_then(Value::as_str) == Some(GROUP) {
            let project = working.join(files::name("the deployment's name", name)?);
            files::make(&project)?;
            let config = deployment.get("config").unwrap_or(&Value::Null);
            files::write(&project.join(PROJECT_FILE), project_text(config), FILE_MODE)?;
        }
    }
    Ok(())
}

/// A config as it is written: text as it is, anything else as YAML.
pub(super) fn project_text(config: &Value) -> String {
    match config {
        Value::Object(_) => yaml_dump::dump(config),
        other => plain_text(other),
    }
}

/// Ends the containers of projects that are not wanted, and makes the directories no projects.
fn end_others(
    working: &Path,
    is_wanted: impl Fn(&str) -> bool,
    log: &mut Log,
) -> Result<(), NotRun> {
    let entries = fs::read_dir(working).map_err(|e| files::io_failed("read", working, &e))?;
    let mut projects: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    projects.sort();
    let tool = Tool::new("HEAT_DOCKER_COMPOSE_CMD", "docker-compose");
    for project in projects {
        let name = project.file_name().unwrap_or_default().to_string_lossy();
        let file = project.join(PROJECT_FILE);
        if !file.is_file() || is_wanted(&name) {
            continue;
        }
        log.debug(format!("project {name} is gone: ending its containers"));
        let exit = tool.run(Call::new(["kill"]).at(&project))?;
        if exit.code != 0 {
            log.error(format!("ending project {name} failed [{}]", exit.code));
        }
        fs::remove_file(&file).map_err(|e| files::io_failed("remove", &file, &e))?;
    }
    Ok(())
}
