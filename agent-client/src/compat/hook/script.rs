//! `hook-script`: runs the config as a program. What it is and does: [`crate::hooks::script`].

use std::ffi::OsString;
use std::process::ExitCode;

use super::entry::Entry;
use super::{Answer, files, log_end, serve, tool};
use crate::compat::pylog::Log;
use crate::config::{SCRIPT_OUTPUTS, SCRIPT_WORKING};
use crate::hooks::NotRun;
use crate::hooks::process::{Launch, Printing};
use crate::hooks::script::{Directories, Job, not_started, prepare, respond};

/// The program.
pub fn main(_arguments: &[OsString]) -> ExitCode {
    serve(run)
}

fn run(entry: &Entry, log: &mut Log) -> Result<Answer, NotRun> {
    let working = files::place("HEAT_SCRIPT_WORKING", SCRIPT_WORKING);
    let directories =
        Directories::new(working, files::place("HEAT_SCRIPT_OUTPUTS", SCRIPT_OUTPUTS));
    let (id, inputs, outputs) = (entry.id()?, entry.inputs()?, entry.outputs()?);
    let job = Job { config: entry.config(), inputs: &inputs, outputs: &outputs };
    let launch = Launch { printing: Printing::Copied, ..prepare(&directories, &id, job)? };
    let program = launch.program.clone();
    log.debug(format!("Running {}", program.display()));
    let exit = tool::wait(launch).map_err(|error| not_started(&program, &error))?;
    log_end(log, program.display(), exit.code);
    Ok(respond(&directories, &id, job, exit).into())
}
