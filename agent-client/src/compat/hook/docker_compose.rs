//! `hook-docker-compose`: starts the containers of a project in its directory, `<working>/<name>`.

use std::ffi::OsString;
use std::process::ExitCode;

use serde_json::{Map, Value};

use super::docker_compose_projects::{
    FILE_MODE, PROJECT_FILE, WORKING, bring_up_to_date, project_text,
};
use super::entry::{Entry, bad};
use super::tool::{Call, Tool};
use super::{Answer, answer, compose_env, files, log_end, serve, silence};
use crate::compat::pylog::Log;
use crate::compat::truth::is_true;
use crate::compat::yaml_load;
use crate::document::plain_text;
use crate::hooks::NotRun;
use crate::hooks::containers::TIDY_VARIABLE;

/// The program.
pub fn main(_arguments: &[OsString]) -> ExitCode {
    serve(run)
}

fn run(entry: &Entry, log: &mut Log) -> Result<Answer, NotRun> {
    if super::variable(TIDY_VARIABLE).is_some()
        && let Err(not_run) = bring_up_to_date(log)
    {
        log.error(not_run.reason);
    }
    let inputs = entry.inputs()?;
    let input = |name: &str| inputs.iter().rfind(|input| input.name == name).map(|i| &i.value);
    let name = files::name("its name", entry.text("name").unwrap_or_default())?;
    let working = files::place(WORKING.0, WORKING.1);
    files::make_private(&working)?;
    let project = working.join(name);
    files::make(&project)?;
    if input("deploy_action").map(plain_text).as_deref() == Some("DELETE") {
        // 50-heat-config-docker-compose ends the containers once the deployment has left the list.
        return Ok(silence());
    }
    if !is_true(entry.config()) {
        log.debug("No config: nothing to do.");
        return Ok(silence());
    }
    let config = match entry.config() {
        Value::String(text) => yaml_load::load(text)
            .map_err(|error| bad(format!("its config must be a map, or YAML of one: {error}")))?,
        config => config.clone(),
    };
    let Value::Object(config) = config else {
        return Err(bad("its config must be a map of services"));
    };
    let given = input("env_files").map_or_else(|| Ok(Vec::new()), compose_env::files)?;
    for file in env_files(&config) {
        // Of two with one name the last counts.
        if let Some((_, content)) = given.iter().rfind(|(name, _)| *name == file) {
            let path = project.join(&file);
            files::make(files::parent(&path))?;
            files::write(&path, content, FILE_MODE)?;
        }
    }
    files::write(&project.join(PROJECT_FILE), project_text(entry.config()), FILE_MODE)?;

    let tool = Tool::new("HEAT_DOCKER_COMPOSE_CMD", "docker-compose");
    let what = format!("{} up of project {name}", tool.name());
    log.debug(format!("Running {what}"));
    let exit = tool.run(Call::new(["up", "-d", "--no-build"]).at(&project))?;
    log_end(log, what, exit.code);
    Ok(answer(Map::new(), exit.stdout, exit.stderr, exit.code))
}

/// The files that services ask for; services stand at the top, or under `services` in later formats.
fn env_files(config: &Map<String, Value>) -> Vec<String> {
    let services = config.get("services").and_then(Value::as_object).unwrap_or(config);
    let asked = services.values().filter_map(|service| service.get("env_file"));
    asked
        .flat_map(|files| match files {
            Value::Array(files) => files.iter().collect(),
            file => vec![file],
        })
        .filter_map(|file| file.as_str().map(str::to_owned))
        .collect()
}
