//! `hook-ansible`: the config is a playbook, inputs are its variables.

use std::ffi::OsString;
use std::process::ExitCode;

use serde_json::{Map, Value};

use super::entry::{Entry, bad};
use super::tool::{Call, Tool};
use super::{Answer, answer, collect, files, log_end, remove_old, serve};
use crate::compat::pylog::Log;
use crate::hooks::{NotRun, outputs};
use crate::json_text::json_text;

const FILE_MODE: u32 = 0o600;

/// The program.
pub fn main(_arguments: &[OsString]) -> ExitCode {
    serve(run)
}

fn run(entry: &Entry, log: &mut Log) -> Result<Answer, NotRun> {
    let working = files::place("HEAT_ANSIBLE_WORKING", "/var/lib/heat-config/heat-config-ansible");
    let results = files::place("HEAT_ANSIBLE_OUTPUTS", "/var/run/heat-config/heat-config-ansible");
    let (id, inputs, declared) = (entry.id()?, entry.inputs()?, entry.outputs()?);
    let playbook = entry.config_text("a playbook")?;
    if playbook.is_empty() {
        return Err(bad("its config is empty: there is no playbook to run"));
    }
    let prefix = outputs::prefix(&results, &id);
    let mut variables = Map::new();
    variables.insert("heat_config_id".into(), id.as_str().into());
    variables.extend(inputs.into_iter().map(|input| (input.name, input.value)));
    variables.insert("heat_outputs_path".into(), prefix.to_string_lossy().into());

    files::make_private(&results)?;
    files::make_private(&working)?;
    remove_old(&results, &id, &declared)?;
    let playbook_file = working.join(format!("{}_playbook.yaml", id.file_name()));
    let variables_file = working.join(format!("{}_variables.json", id.file_name()));
    files::write(&variables_file, json_text(&Value::Object(variables)), FILE_MODE)?;
    files::write(&playbook_file, playbook, FILE_MODE)?;

    let inventory = match entry.option("inventory")? {
        Some(below) => working.join(below).into_os_string(),
        None => super::variable("HEAT_ANSIBLE_INVENTORY").unwrap_or_else(|| "localhost,".into()),
    };
    let mut call = Call::new(["-i".into(), inventory]).at(&working);
    for (option, flag) in
        [("modulepath", "--module-path"), ("skip_tags", "--skip-tags"), ("tags", "--tags")]
    {
        if let Some(value) = entry.option(option)? {
            call.arguments.extend([flag.into(), value.into()]);
        }
    }
    let mut at_variables = OsString::from("@");
    at_variables.push(&variables_file);
    call.arguments.extend([playbook_file.clone().into(), "--extra-vars".into(), at_variables]);
    if let Some(plugins) = entry.option("callback_plugins")? {
        call.environment.push(("ANSIBLE_CALLBACK_PLUGINS".into(), plugins.into()));
    }
    let tool = Tool::new("HEAT_ANSIBLE_CMD", "ansible-playbook");
    log.debug(format!("Running {} {}", tool.name(), playbook_file.display()));
    let exit = tool.run(call)?;
    log.info(format!("Return code {}", exit.code));
    log_end(log, playbook_file.display(), exit.code);
    Ok(answer(collect(&results, &id, &declared, log), exit.stdout, exit.stderr, exit.code))
}
