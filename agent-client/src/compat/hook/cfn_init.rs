//! `hook-cfn-init`: the config is the content of `AWS::CloudFormation::Init`, for `cfn-init` to apply.

use std::borrow::Cow;
use std::ffi::OsString;
use std::process::ExitCode;

use serde_json::{Map, Value, json};

use super::entry::{Entry, bad};
use super::tool::{Call, Tool};
use super::{Answer, answer, files, log_end, serve};
use crate::compat::pylog::Log;
use crate::hooks::NotRun;
use crate::json_text::json_text;

const FILE_MODE: u32 = 0o700;

/// The program.
pub fn main(_arguments: &[OsString]) -> ExitCode {
    serve(run)
}

fn run(entry: &Entry, log: &mut Log) -> Result<Answer, NotRun> {
    let config = match entry.config() {
        Value::Null => Cow::Owned(json!({})),
        Value::String(text) => Cow::Owned(serde_json::from_str(text).map_err(|error| {
            bad(format!("its config must be a map, or JSON text of one: {error}"))
        })?),
        config => Cow::Borrowed(config),
    };
    if !config.is_object() {
        return Err(bad("its config must be a map, or JSON text of one"));
    }
    let directory = files::place("HEAT_CFN_INIT_LAST_METADATA_DIR", "/var/cache/heat-cfntools");
    files::make(&directory)?;
    let metadata = json_text(&json!({"AWS::CloudFormation::Init": config}));
    files::write(&directory.join("last_metadata"), metadata, FILE_MODE)?;

    let tool = Tool::new("HEAT_CFN_INIT_CMD", "cfn-init");
    let name = tool.name();
    log.debug(format!("Running {name}"));
    let (tool, call) = tool.or_own(Call::default());
    let exit = tool.run(call)?;
    log_end(log, name, exit.code);
    Ok(answer(Map::new(), exit.stdout, exit.stderr, exit.code))
}
