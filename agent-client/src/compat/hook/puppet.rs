//! `hook-puppet`: the config is a manifest, inputs are facts, or Hiera data, or both.
//!
//! Puppet writes straight into log files, as with the original: should this program be killed, Puppet
//! neither loses its output nor is it ended by a closed pipe. What it writes is copied to our standard
//! error as it comes.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use jiff::Zoned;
use serde_json::{Map, Value};
use tokio::process::Command;

use super::entry::{Entry, bad};
use super::tool::{Call, Tool, runtime, until_end};
use super::{Answer, collect, files, remove_old, serve};
use crate::compat::pylog::Log;
use crate::document::{Input, plain_text};
use crate::hooks::proc::start_ticks;
use crate::hooks::{NotRun, outputs, process};
use crate::journal::ProcessMark;
use crate::json_text::json_text;

const MANIFEST_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// Where `HEAT_PUPPET_HIERA_DATADIR` points usually.
pub(super) const HIERA_DATADIR: &str = "/etc/puppet/hieradata";
/// Exit status of `--detailed-exitcodes` when something was changed and nothing failed.
const CHANGED: i64 = 2;
/// How often the logs are looked at while Puppet writes them.
const FOLLOW_MS: u64 = 100;

/// The program.
pub fn main(_arguments: &[OsString]) -> ExitCode {
    serve(run)
}

fn run(entry: &Entry, log: &mut Log) -> Result<Answer, NotRun> {
    let working = files::place("HEAT_PUPPET_WORKING", "/var/lib/heat-config/heat-config-puppet");
    let results = files::place("HEAT_PUPPET_OUTPUTS", "/var/run/heat-config/heat-config-puppet");
    let log_directory = files::place("HEAT_PUPPET_LOGDIR", "/var/run/heat-config/deployed");
    let (id, inputs, declared) = (entry.id()?, entry.inputs()?, entry.outputs()?);
    let manifest = entry.config_text("a manifest")?;
    files::make_private(&results)?;
    files::make_private(&working)?;
    remove_old(&results, &id, &declared)?;

    let mut facts: Vec<(String, OsString)> = Vec::new();
    facts.extend(full_name(log).map(|name| ("FACTER_fqdn".into(), name.into())));
    if entry.flag("enable_facter", true) {
        for input in &inputs {
            facts.push(fact(input)?);
        }
    }
    if entry.flag("enable_hiera", false) {
        let name = files::name("its name", entry.text("name").unwrap_or_default())?;
        let data: Map<_, _> = inputs.into_iter().map(|input| (input.name, input.value)).collect();
        let directory = files::place("HEAT_PUPPET_HIERA_DATADIR", HIERA_DATADIR);
        files::make(&directory)?;
        let file = directory.join(format!("heat_config_{name}.json"));
        files::write(&file, json_text(&Value::Object(data)), FILE_MODE)?;
        facts.push(("FACTER_deploy_config_name".into(), name.into()));
    }
    facts.push(("FACTER_heat_outputs_path".into(), outputs::prefix(&results, &id).into()));

    let manifest_file = working.join(format!("{}.pp", id.file_name()));
    files::write(&manifest_file, manifest, MANIFEST_MODE)?;
    let arguments = arguments(entry, &manifest_file)?;

    files::make(&log_directory)?;
    let created = match entry.text("creation_time") {
        Some(time) if !time.is_empty() => time.replace([':', 'T', '/'], "-"),
        _ => Zoned::now().strftime("%Y-%m-%d-%H-%M-%S").to_string(),
    };
    let logs = ["stdout", "stderr"]
        .map(|stream| log_directory.join(format!("{created}-{}-{stream}.log", id.file_name())));
    let tool = Tool::new("HEAT_PUPPET_CMD", "puppet");
    log.debug(format!("Running {} apply {}", tool.name(), manifest_file.display()));
    let code = run_logged(&tool, arguments, facts, &working, &logs)?;

    log.info(format!("Return code {code}"));
    let text =
        |path: &Path| outputs::read_text(path).map_err(|e| files::io_failed("read back", path, &e));
    let (stdout, stderr) = (text(&logs[0])?, text(&logs[1])?);
    let status = if code == CHANGED { 0 } else { code };
    super::log_end(log, manifest_file.display(), status);
    let mut answer = Map::new();
    answer.insert("deploy_stdout".into(), stdout.into());
    answer.insert("deploy_stderr".into(), stderr.into());
    answer.extend(collect(&results, &id, &declared, log));
    answer.insert("deploy_status_code".into(), status.into());
    Ok(answer)
}

fn arguments(entry: &Entry, manifest: &Path) -> Result<Vec<OsString>, NotRun> {
    let mut all: Vec<OsString> =
        ["apply", "--color", "false", "--detailed-exitcodes", "--logdest", "console"]
            .map(Into::into)
            .into();
    for (option, flag) in [("modulepath", "--modulepath"), ("tags", "--tags")] {
        if let Some(value) = entry.option(option)? {
            all.extend([flag.into(), value.into()]);
        }
    }
    for (option, flag, file) in [
        ("enable_debug", "--debug", "/var/log/puppet/heat-debug.log"),
        ("enable_verbose", "--verbose", "/var/log/puppet/heat-verbose.log"),
    ] {
        if entry.flag(option, false) {
            all.extend([flag, "--logdest", file].map(Into::into));
        }
    }
    all.push(manifest.into());
    Ok(all)
}

/// An input as a fact; one that is no text is JSON.
fn fact(input: &Input) -> Result<(String, OsString), NotRun> {
    let value = plain_text(&input.value);
    if input.name.contains(['=', '\0']) || value.contains('\0') {
        return Err(bad(format!(
            "input {:?} cannot be a fact: its name has \"=\", or there is a zero byte in it",
            input.name
        )));
    }
    Ok((format!("FACTER_{}", input.name), value.into()))
}

/// What `hostname -f` says.
fn full_name(log: &mut Log) -> Option<String> {
    match Tool::fixed("hostname").ask(Call::new(["-f"])) {
        Ok(exit) if exit.code == 0 => Some(exit.stdout.trim().to_owned()),
        Ok(exit) => {
            log.warning(format!("'hostname -f' failed with status {}", exit.code));
            None
        }
        Err(not_run) => {
            log.warning(not_run.reason);
            None
        }
    }
    .filter(|name| !name.is_empty())
}

/// Runs Puppet with its output in files, whose growth is copied to our standard error.
fn run_logged(
    tool: &Tool,
    arguments: Vec<OsString>,
    facts: Vec<(String, OsString)>,
    working: &Path,
    logs: &[PathBuf; 2],
) -> Result<i64, NotRun> {
    let open = |path: &PathBuf| {
        let opened = outputs::remove(path).and_then(|()| {
            let written =
                OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path)?;
            Ok((written, File::open(path)?))
        });
        opened.map_err(|e| files::io_failed("open log", path, &e))
    };
    let (stdout, out_reader) = open(&logs[0])?;
    let (stderr, err_reader) = open(&logs[1])?;
    let mut command = Command::new(tool.program());
    command.args(arguments).envs(facts).current_dir(working);
    command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
    let mut readers = [out_reader, err_reader];
    let run = async {
        let mut child = command.spawn()?;
        // It is not reaped before we wait for it.
        let pid = child.id().unwrap_or_default();
        let mark = ProcessMark { pid, start_ticks: start_ticks(pid).unwrap_or(0) };
        let end = async {
            let mut again = tokio::time::interval(Duration::from_millis(FOLLOW_MS));
            loop {
                tokio::select! {
                    status = child.wait() => return status,
                    _ = again.tick() => readers.iter_mut().for_each(copy_new),
                }
            }
        };
        until_end(mark, end).await?
    };
    let status = runtime().and_then(|runtime| runtime.block_on(run));
    readers.iter_mut().for_each(copy_new);
    status.map(process::code).map_err(|error| tool.not_started(&error))
}

/// Copies what has been added to a log; nobody reading is no reason to stop.
fn copy_new(log: &mut File) {
    let mut buffer = [0; 8192];
    while let Ok(n @ 1..) = log.read(&mut buffer) {
        let _ = io::stderr().write_all(&buffer[..n]);
    }
}
