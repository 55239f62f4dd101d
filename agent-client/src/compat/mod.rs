//! The programs that this one replaces, by their names.
//!
//! Called by one of these names, through a link, or as `agent-client NAME …`, the program behaves as
//! the Python program of that name did, but for what `docs/deviations.md` lists.

pub mod arguments;
pub mod cfn;
pub mod heat_config;
pub mod hook;
pub mod links;
pub mod oac;
pub mod occ;
pub mod pylog;
pub mod refresh;
pub mod run_parts;
pub mod tool;
pub(crate) mod truth;
pub mod yaml;
pub mod yaml_dump;
pub mod yaml_load;

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

/// A program; its arguments begin with its name.
type Program = fn(&[OsString]) -> ExitCode;

/// Every name with its program.
const PROGRAMS: &[(&str, Program)] = &[
    ("55-heat-config", heat_config::main),
    ("99-refresh-completed", heat_config::completed::main),
    ("cfn-create-aws-symlinks", cfn::symlinks::main),
    ("cfn-get-metadata", cfn::get_metadata::main),
    ("cfn-hup", cfn::hup::main),
    ("cfn-init", cfn::init::main),
    ("cfn-push-stats", cfn::push_stats),
    ("cfn-signal", cfn::signal::main),
    ("dib-run-parts", run_parts::main),
    ("heat-config", heat_config::main),
    ("heat-config-notify", heat_config::notify::main),
    ("heat-config-rebuild-deployed", heat_config::rebuild::main),
    ("os-apply-config", oac::cli::main),
    ("os-collect-config", occ::main),
    ("os-config-applier", oac::cli::main),
    ("os-refresh-config", refresh::main),
];

/// Where hooks are looked for has this name: a link in it is called as the group it serves.
const HOOK_DIRECTORY: &str = "hooks";

/// The names.
pub fn names() -> impl Iterator<Item = &'static str> {
    programs().map(|(name, _)| *name)
}

fn programs() -> impl Iterator<Item = &'static (&'static str, Program)> {
    PROGRAMS.iter().chain(&hook::PROGRAMS)
}

/// Runs the program that is asked for by the name of the command or by its first argument; `None` if
/// that is none of these.
#[must_use]
pub fn dispatch(arguments: &[OsString]) -> Option<ExitCode> {
    let (path, rest) = arguments.split_first()?;
    let path = Path::new(path);
    let name = path.file_name()?;
    let is_hook = path.parent().and_then(Path::file_name) == Some(OsStr::new(HOOK_DIRECTORY));
    let of_group = || is_hook.then(|| hook::of_group(name)).flatten();
    if let Some(program) = find(name).or_else(of_group) {
        return Some(program(arguments));
    }
    Some(find(rest.first()?)?(rest))
}

fn find(name: &OsStr) -> Option<Program> {
    programs().find(|(known, _)| name == *known).map(|(_, program)| *program)
}
