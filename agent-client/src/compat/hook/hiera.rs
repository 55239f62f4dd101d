//! `hook-hiera`: writes Hiera's configuration and data files.

use std::ffi::OsString;
use std::process::ExitCode;

use serde_json::Value;

use super::entry::{Entry, bad};
use super::json_file::pretty;
use super::puppet::HIERA_DATADIR;
use super::tool::{Call, Tool};
use super::{Answer, answer, files, serve, silence};
use crate::compat::pylog::Log;
use crate::document::plain_text;
use crate::hooks::NotRun;

const FILE_MODE: u32 = 0o600;
/// Prints `empty` unless os-apply-config's own Hiera data is in use, which this hook would fight with.
const CHECK: &str = "os-apply-config --key hiera.datafiles --type raw --key-default empty";
const CHECK_VARIABLE: &str = "HEAT_HIERA_ELEMENT_CHECK_CMD";

/// The program.
pub fn main(_arguments: &[OsString]) -> ExitCode {
    serve(run)
}

fn run(entry: &Entry, log: &mut Log) -> Result<Answer, NotRun> {
    let Value::Object(config) = entry.config() else {
        return Err(bad("its config must be a map with \"hierarchy\" and \"datafiles\""));
    };
    if let Some(found) = legacy_data(log) {
        let reason = format!(
            "os-apply-config's own hiera data is in use ({}); move all of it to this hook first",
            found.trim_end()
        );
        log.error(&reason);
        return Ok(answer(serde_json::Map::new(), found, reason, 1));
    }
    let directory = files::place("HEAT_PUPPET_HIERA_DATADIR", HIERA_DATADIR);
    // All is checked before anything is written.
    let hierarchy = config.get("hierarchy").map(hierarchy).transpose()?;
    let mut data_files = Vec::new();
    match config.get("datafiles") {
        None => {}
        Some(Value::Object(all)) => {
            for (name, data) in all {
                let file = format!("{name}.json");
                data_files.push((directory.join(files::relative("datafile", &file)?), data));
            }
        }
        Some(_) => return Err(bad("\"datafiles\" in its config must be a map of names to data")),
    }
    files::make(&directory)?;
    if let Some(items) = hierarchy {
        let path = files::place("HEAT_HIERA_CONFIG", "/etc/puppet/hiera.yaml");
        log.info(format!("Writing {}", path.display()));
        files::make(files::parent(&path))?;
        let shown = directory.display();
        let head =
            format!("\n---\n:backends:\n  - json\n:json:\n  :datadir: {shown}\n:hierarchy:\n");
        files::write(&path, head + &items, FILE_MODE)?;
    }
    for (path, data) in data_files {
        log.info(format!("Writing {}", path.display()));
        files::make(files::parent(&path))?;
        files::write(&path, pretty(data), FILE_MODE)?;
    }
    Ok(silence())
}

/// The levels as lines of YAML.
fn hierarchy(levels: &Value) -> Result<String, NotRun> {
    let Value::Array(levels) = levels else {
        return Err(bad("\"hierarchy\" in its config must be a list"));
    };
    let mut lines = String::new();
    for level in levels {
        let level = plain_text(level);
        if level.contains('\n') {
            return Err(bad(format!("{level:?} in \"hierarchy\" has more than one line")));
        }
        lines.push_str(&format!("  - {level}\n"));
    }
    Ok(lines)
}

/// What the check prints if that is not `empty`. Without os-apply-config there is no such data.
fn legacy_data(log: &mut Log) -> Option<String> {
    let check = super::variable(CHECK_VARIABLE);
    let check = check.map_or_else(|| CHECK.into(), |check| check.to_string_lossy().into_owned());
    let mut words = check.split(' ').map(str::to_owned);
    let tool = Tool::fixed(words.next().unwrap_or_default());
    match tool.ask(Call::new(words)) {
        Ok(exit) if exit.stdout.trim_end() == "empty" => None,
        Ok(exit) => Some(exit.stdout),
        Err(not_run) => {
            log.debug(format!("no check for other hiera data: {}", not_run.reason));
            None
        }
    }
}
