//! `hook-docker-cmd`: the config maps names of containers to what they are, as docker-compose's first
//! format does; each is started, or a command is run in one, in the order of `start_order`.

use std::ffi::OsString;
use std::process::ExitCode;

use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Map, Value};

use super::docker_cmd_cleanup::tidy_up;
use super::entry::{Entry, bad};
use super::tool::{Call, Tool, is_asked_to_end};
use super::{Answer, answer, serve, silence};
use crate::compat::pylog::Log;
use crate::compat::truth::is_true;
use crate::compat::yaml_load;
use crate::document::plain_text;
use crate::hooks::NotRun;
use crate::hooks::capture::{HEAD_BYTES_MAX, shorten};
use crate::hooks::containers::TIDY_VARIABLE;

/// Letters of which the end of a new name is made.
const SUFFIX_LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
const SUFFIX_BYTES: usize = 8;
/// Status when not all was done because somebody asked for the end.
const INTERRUPTED: i64 = -15;
/// How many names are tried. With 36^8 of them the second is free unless Docker answers nonsense.
const NAMES_MAX: usize = 20;

/// The program.
pub fn main(_arguments: &[OsString]) -> ExitCode {
    serve(run)
}

fn run(entry: &Entry, log: &mut Log) -> Result<Answer, NotRun> {
    if super::variable(TIDY_VARIABLE).is_some() {
        // What it could not do is in the log, and no reason to start nothing.
        let _ = tidy_up(log);
    }
    let inputs = entry.any_inputs()?;
    let input = |name: &str| inputs.iter().rfind(|i| i.name == name).map(|i| plain_text(&i.value));
    if input("deploy_action").as_deref() == Some("DELETE") {
        return Ok(silence());
    }
    let config = match entry.config() {
        config if !is_true(config) => {
            log.debug("No config: nothing to do.");
            return Ok(silence());
        }
        Value::String(text) => yaml_load::load(text)
            .map_err(|error| bad(format!("its config must be a map, or YAML of one: {error}")))?,
        config => config.clone(),
    };
    let Value::Object(containers) = &config else {
        return Err(bad("its config must be a map of containers"));
    };
    let id = entry.id()?;
    // What the original shows for a missing input.
    let label = |name: &str| input(name).unwrap_or_else(|| "None".into());
    let docker = Docker {
        tool: Tool::new("HEAT_DOCKER_CMD", "docker"),
        labels: [
            format!("deploy_stack_id={}", label("deploy_stack_id")),
            format!("deploy_resource_name={}", label("deploy_resource_name")),
            format!("config_id={id}"),
        ],
        id: id.as_str(),
    };
    let (mut stdouts, mut stderrs, mut status) = (Vec::new(), Vec::new(), 0);
    for (name, container) in in_order(containers)? {
        let (what, arguments) = docker.arguments(name, container)?;
        // Not the arguments: they may hold passwords.
        log.debug(format!("Running {what} {name}"));
        let exit = docker.tool.run(Call::new(arguments))?;
        stdouts.extend(Some(exit.stdout).filter(|text| !text.is_empty()));
        stderrs.extend(Some(exit.stderr).filter(|text| !text.is_empty()));
        if is_expected(container, exit.code)? {
            log.debug(format!("Completed {what} {name}"));
        } else {
            log.error(format!("Error running {what} {name}. [{}]", exit.code));
            status = exit.code;
        }
        if is_asked_to_end() {
            status = if status == 0 { INTERRUPTED } else { status };
            break;
        }
    }
    let text = |all: Vec<String>| shorten(&all.join("\n"), 2 * HEAD_BYTES_MAX);
    Ok(answer(Map::new(), text(stdouts), text(stderrs), status))
}

/// A container's name and what it is.
type Container<'c> = (&'c str, &'c Map<String, Value>);

/// By `start_order`; those with the same stay as they are written.
fn in_order(containers: &Map<String, Value>) -> Result<Vec<Container<'_>>, NotRun> {
    let mut all = Vec::with_capacity(containers.len());
    for (name, container) in containers {
        let Value::Object(container) = container else {
            return Err(bad(format!("container {name:?} must be a map")));
        };
        let order = match container.get("start_order") {
            None => 0.0,
            Some(order) => order.as_f64().ok_or_else(|| {
                bad(format!("start_order of container {name:?} must be a number"))
            })?,
        };
        all.push((order, name.as_str(), container));
    }
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    Ok(all.into_iter().map(|(_, name, container)| (name, container)).collect())
}

fn is_expected(container: &Map<String, Value>, code: i64) -> Result<bool, NotRun> {
    match container.get("exit_codes") {
        None => Ok(code == 0),
        Some(Value::Array(codes)) => Ok(codes.iter().any(|c| c.as_i64() == Some(code))),
        Some(_) => Err(bad("\"exit_codes\" must be a list of numbers")),
    }
}

struct Docker<'e> {
    tool: Tool,
    labels: [String; 3],
    id: &'e str,
}

impl Docker<'_> {
    /// What is done, and how docker is told.
    fn arguments(
        &self,
        name: &str,
        container: &Map<String, Value>,
    ) -> Result<(&'static str, Vec<String>), NotRun> {
        match container.get("action").map_or_else(|| "run".into(), plain_text).as_str() {
            "run" => {
                let mut arguments = vec!["run".into(), "--name".into(), self.free_name(name)?];
                let own = [format!("container_name={name}"), "managed_by=docker-cmd".into()];
                for label in self.labels.iter().cloned().chain(own) {
                    arguments.extend(["--label".into(), label]);
                }
                run_options(container, &mut arguments)?;
                arguments.push(container.get("image").map(plain_text).unwrap_or_default());
                arguments.extend(command(name, container)?);
                Ok(("docker run", arguments))
            }
            "exec" => {
                let mut arguments = vec!["exec".into()];
                options(container, &["privileged", "user"], &mut arguments);
                let mut command = command(name, container)?.into_iter();
                let within = command.next().ok_or_else(|| {
                    bad(format!("exec {name:?} has no command, which begins with a container"))
                })?;
                arguments.push(self.name_of(&within)?);
                arguments.extend(command);
                Ok(("docker exec", arguments))
            }
            other => Err(bad(format!("{name:?} has the action {other:?}, must be run or exec"))),
        }
    }

    /// The name itself, or one like it, that no container has.
    fn free_name(&self, name: &str) -> Result<String, NotRun> {
        let mut candidate = name.to_owned();
        for _ in 0..NAMES_MAX {
            let exit = self.tool.ask(Call::new(["inspect", "--format", "exists", &candidate]))?;
            if exit.code != 0 || exit.stdout.is_empty() {
                return Ok(candidate);
            }
            candidate = format!("{name}-{}", suffix()?);
        }
        Err(NotRun::because(format!(
            "docker says of {NAMES_MAX} names like {name:?} that they are taken"
        )))
    }

    /// What the container of this config that was asked for by this name is called.
    fn name_of(&self, name: &str) -> Result<String, NotRun> {
        let of_name = format!("label=container_name={name}");
        let of_config = format!("label=config_id={}", self.id);
        let exit = self.tool.ask(Call::new([
            "ps",
            "-a",
            "--filter",
            &of_name,
            "--filter",
            &of_config,
            "--format",
            "{{.Names}}",
        ]))?;
        let found = exit.stdout.split_whitespace().next().filter(|_| exit.code == 0);
        Ok(found.unwrap_or(name).to_owned())
    }
}

fn run_options(container: &Map<String, Value>, to: &mut Vec<String>) -> Result<(), NotRun> {
    if container.get("detach").is_none_or(is_true) {
        to.push("--detach=true".into());
    }
    if let Some(files) = container.get("env_file") {
        to.extend(list("env_file", files)?.map(|file| format!("--env-file={file}")));
    }
    if let Some(variables) = container.get("environment") {
        to.extend(environment(variables)?.map(|variable| format!("--env={variable}")));
    }
    options(container, &["net", "pid", "privileged", "restart", "user"], to);
    for (key, flag) in [("volumes", "--volume"), ("volumes_from", "--volumes-from")] {
        if let Some(all) = container.get(key) {
            to.extend(list(key, all)?.map(|one| format!("{flag}={one}")));
        }
    }
    Ok(())
}

/// Options of one value each.
fn options(container: &Map<String, Value>, keys: &[&str], to: &mut Vec<String>) {
    for key in keys {
        if let Some(value) = container.get(*key) {
            to.push(format!("--{key}={}", word(key, value)));
        }
    }
}

fn word(key: &str, value: &Value) -> String {
    match value {
        // YAML reads the policy `no` as a truth value.
        Value::Bool(false) if key == "restart" => "no".into(),
        Value::String(text) if key == "privileged" => text.to_lowercase(),
        other => plain_text(other),
    }
}

/// The items that are not empty; one text is a list of one.
fn list<'v>(key: &str, value: &'v Value) -> Result<Box<dyn Iterator<Item = String> + 'v>, NotRun> {
    match value {
        Value::Array(items) => Ok(Box::new(items.iter().filter(|i| is_true(i)).map(plain_text))),
        Value::String(_) | Value::Null => {
            Ok(Box::new(Some(plain_text(value)).into_iter().filter(|text| !text.is_empty())))
        }
        _ => Err(bad(format!("{key:?} of a container must be a list"))),
    }
}

/// `NAME=VALUE` each; a map's entry without value takes that of the caller, as docker has it.
fn environment<'v>(value: &'v Value) -> Result<Box<dyn Iterator<Item = String> + 'v>, NotRun> {
    match value {
        Value::Object(map) => Ok(Box::new(map.iter().map(|(name, value)| match value {
            Value::Null => name.clone(),
            value => format!("{name}={}", plain_text(value)),
        }))),
        other => list("environment", other),
    }
}

fn command(name: &str, container: &Map<String, Value>) -> Result<Vec<String>, NotRun> {
    match container.get("command") {
        Some(Value::String(text)) => Ok(text.split_whitespace().map(str::to_owned).collect()),
        Some(Value::Array(words)) => Ok(words.iter().map(plain_text).collect()),
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(_) => Err(bad(format!("command of container {name:?} must be text or a list"))),
    }
}

fn suffix() -> Result<String, NotRun> {
    let mut bytes = [0; SUFFIX_BYTES];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| NotRun::because("the system gives no random numbers"))?;
    // Not quite even, and nobody minds.
    let letter = |byte: &u8| char::from(SUFFIX_LETTERS[usize::from(*byte) % SUFFIX_LETTERS.len()]);
    Ok(bytes.iter().map(letter).collect())
}
