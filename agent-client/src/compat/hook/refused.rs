//! Hooks of heat-agents that this program knows and does not serve. They say so, and what to do.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use super::{new_log, serve};
use crate::hooks::{NotRun, built_in};

/// The program: a failed response.
pub fn main(arguments: &[OsString]) -> ExitCode {
    let name = arguments.first().map(Path::new).and_then(Path::file_name).unwrap_or_default();
    let name = name.to_string_lossy();
    let group = name.strip_prefix(built_in::PREFIX).unwrap_or(&name).to_owned();
    serve(|_, _| {
        Err(NotRun::because(format!(
            "agent-client has no hook for group {group:?}: install one in /usr/libexec/heat-config/hooks, or use another group ({})",
            instead(&group)
        )))
    })
}

/// Which group does the like.
fn instead(group: &str) -> &'static str {
    match group {
        "chef" => "script, with a script that calls chef-client",
        _ => "docker-cmd, docker-compose or script",
    }
}

/// `50-heat-config-kubelet`: says that it leaves pods alone. (The original deletes all manifests before it
/// reads which to write.)
pub fn configure(_arguments: &[OsString]) -> ExitCode {
    new_log().warning(
        "agent-client does not write kubelet manifests; those that are there are left alone",
    );
    ExitCode::SUCCESS
}
