//! `hook-apply-config`: applies the templates to all metadata, as `os-apply-config` does. The entry itself
//! is not looked at, not even read.

use std::ffi::OsString;
use std::process::ExitCode;

use serde_json::Map;

use super::tool::{Call, Tool};
use super::{answer, log_end, new_log, respond};

/// The program.
pub fn main(_arguments: &[OsString]) -> ExitCode {
    let mut log = new_log();
    let tool = Tool::new("HEAT_APPLY_CONFIG_CMD", "os-apply-config");
    let name = tool.name();
    log.debug(format!("Running {name}"));
    let (tool, call) = tool.or_own(Call::default());
    let answer = tool.run(call).map(|exit| {
        log_end(&mut log, name, exit.code);
        answer(Map::new(), exit.stdout, exit.stderr, exit.code)
    });
    respond(answer, &mut log)
}
