//! `heat-config`: runs what Heat asks of this instance, an entry of the list after the other, and signals
//! each result; and the programs around it.
//!
//! It works alone, without the daemon, below `os-refresh-config`. What it has done is in the files of
//! [`deployed`]; [`run`] is one entry's way through them.

pub mod agent;
pub mod completed;
pub mod deployed;
mod migrate;
pub mod notify;
pub mod rebuild;
pub mod run;
pub mod settings;
pub mod signal_data;
pub mod stop;
pub mod unsent;

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde_json::Value;

use self::agent::Agent;
use self::deployed::Deployed;
use self::run::{Outcome, Runner};
use self::settings::Settings;
use self::stop::Stop;
use super::pylog::{Level, Log, Style};

/// Largest list that is read: a whole document is not larger.
const LIST_BYTES_MAX: u64 = metadata_delivery::DOCUMENT_BYTES_MAX as u64;
const LIST_MODE: u32 = 0o600;
/// What a shell adds to the number of the signal that ended a program.
const EXIT_SIGNAL: i32 = 128;

/// Runs the command; it takes no arguments.
pub fn main(_arguments: &[OsString]) -> ExitCode {
    let mut log = Log::new(Style::Named("heat-config"), Level::Debug);
    if env::var_os(crate::collect::RUNS_DEPLOYMENTS).is_some() {
        log.info("the agent runs the deployments, after the command that it has started");
        return ExitCode::SUCCESS;
    }
    let agent = Agent::of_machine(&mut log);
    if let Some(pid) = agent.as_ref().and_then(Agent::runs_all) {
        log.info(format!(
            "agent-client (pid {pid}) runs the deployments of this machine; see agent-client status"
        ));
        return ExitCode::SUCCESS;
    }
    let (settings, complaints) = Settings::of_environment(|name| env::var_os(name));
    for complaint in complaints {
        log.error(complaint);
    }
    if !settings.list.exists() {
        log.error(format!("No config file {}", settings.list.display()));
        return ExitCode::FAILURE;
    }
    match execute(settings, agent.as_ref(), &mut log) {
        Ok(exit) => exit,
        Err(error) => {
            log.error(format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn execute(settings: Settings, agent: Option<&Agent>, log: &mut Log) -> Result<ExitCode> {
    make_private(&settings.list)?;
    migrate::make_ready(&settings.deployed, &settings.deployed_old, log)?;
    let entries = match read_list(&settings.list)? {
        List::Entries(entries) => entries,
        List::Nothing => return Ok(ExitCode::SUCCESS),
        List::Unusable { why, exit } => {
            log.error(format!("{}: {why}; nothing is run", settings.list.display()));
            return Ok(exit);
        }
    };
    let deployed = Deployed::open(&settings.deployed)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut stop = Stop::listen()?;
        let mut runner = Runner::new(&settings, &deployed, agent, log);
        run_all(&mut runner, entries, &mut stop).await
    })
}

/// Runs all entries in order, then tries once more to send the results that earlier runs could not send.
async fn run_all(
    runner: &mut Runner<'_>,
    entries: Vec<Value>,
    stop: &mut Stop,
) -> Result<ExitCode> {
    let mut listed = BTreeSet::new();
    let mut unsent = Vec::new();
    for entry in entries {
        match runner.run(entry, &mut listed, stop).await {
            Ok(Outcome::Stopped(signal)) => return Ok(exit_of_signal(signal)),
            Ok(Outcome::WaitsForSignal(pending)) => unsent.push(pending),
            Ok(Outcome::Done | Outcome::Nothing) => {}
            // The next one may fare better.
            Err(error) => runner.log().error(format!("{error:#}")),
        }
    }
    for pending in unsent {
        match runner.send_again(pending, stop).await {
            Ok(Some(signal)) => return Ok(exit_of_signal(signal)),
            Ok(None) => {}
            Err(error) => runner.log().error(format!("{error:#}")),
        }
    }
    if let Err(error) = runner.forget_all_but(&listed) {
        runner.log().error(format!("{error:#}"));
    }
    Ok(ExitCode::SUCCESS)
}

fn exit_of_signal(signal: i32) -> ExitCode {
    ExitCode::from(u8::try_from(EXIT_SIGNAL + signal).unwrap_or(1))
}

/// The list holds passwords.
fn make_private(list: &Path) -> Result<()> {
    let mode = fs::metadata(list).map(|metadata| metadata.permissions().mode() & 0o7777);
    let what = || format!("could not give {} mode 0600", list.display());
    if mode.with_context(what)? != LIST_MODE {
        fs::set_permissions(list, Permissions::from_mode(LIST_MODE)).with_context(what)?;
    }
    Ok(())
}

enum List {
    Entries(Vec<Value>),
    /// Metadata without deployments leaves an empty file.
    Nothing,
    Unusable {
        why: String,
        exit: ExitCode,
    },
}

fn read_list(path: &Path) -> Result<List> {
    let read = |path: &Path| -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(LIST_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read(path).with_context(|| format!("could not read {}", path.display()))?;
    Ok(parse_list(&bytes))
}

fn parse_list(bytes: &[u8]) -> List {
    if bytes.len() as u64 > LIST_BYTES_MAX {
        let why = format!("is larger than {LIST_BYTES_MAX} bytes");
        return List::Unusable { why, exit: ExitCode::FAILURE };
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return List::Nothing;
    }
    let unusable = |why: &str, exit| List::Unusable { why: why.into(), exit };
    match serde_json::from_slice(bytes) {
        Ok(Value::Array(entries)) => List::Entries(entries),
        // The text of such an error may quote the list, and that is a secret.
        Err(error) => {
            let why = format!("is no JSON, see line {}", error.line());
            List::Unusable { why, exit: ExitCode::SUCCESS }
        }
        Ok(Value::Object(_) | Value::String(_)) => unusable("is no list", ExitCode::SUCCESS),
        Ok(_) => unusable("is no list", ExitCode::FAILURE),
    }
}
