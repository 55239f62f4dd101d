//! Hooks that are programs of our own binary, `hook-NAME` (`crate::compat::hook`): a child that reads the
//! entry and answers with JSON, as the hooks of others are.

use std::ffi::OsString;
use std::path::Path;

use super::external;
use super::process::{Launch, Printing};
use crate::document::Config;

/// Ourselves, even after an upgrade has replaced the file.
pub const OWN_PROGRAM: &str = "/proc/self/exe";
/// What the names of the programs begin with.
pub const PREFIX: &str = "hook-";
/// Groups with a hook of our own, besides `script`, which needs no process of its own here.
pub const NAMES: [&str; 9] = [
    "ansible",
    "apply-config",
    "cfn-init",
    "docker-cmd",
    "docker-compose",
    "hiera",
    "json-file",
    "puppet",
    "salt",
];

/// Directories that hooks use as root, and where in a state directory they are for anybody else.
const PLACES: [(&str, &str); 7] = [
    ("HEAT_ANSIBLE_WORKING", "heat-config-ansible/work"),
    ("HEAT_ANSIBLE_OUTPUTS", "heat-config-ansible/outputs"),
    ("HEAT_DOCKER_COMPOSE_WORKING", "heat-config-docker-compose"),
    ("HEAT_PUPPET_WORKING", "heat-config-puppet/work"),
    ("HEAT_PUPPET_OUTPUTS", "heat-config-puppet/outputs"),
    ("HEAT_PUPPET_LOGDIR", "heat-config-puppet/log"),
    ("HEAT_SALT_WORKING", "heat-config-salt"),
];

/// Which of [`NAMES`] this is.
pub fn find(name: &str) -> Option<&'static str> {
    NAMES.iter().find(|known| **known == name).copied()
}

/// Variables that let hooks work within a state directory, unless they are set already.
pub fn places(
    state_dir: &Path,
    is_set: impl Fn(&str) -> bool,
) -> impl Iterator<Item = (String, OsString)> {
    let unset = PLACES.into_iter().filter(move |(variable, _)| !is_set(variable));
    unset.map(|(variable, place)| (variable.into(), state_dir.join(place).into()))
}

/// How to start it.
pub fn prepare(name: &str, environment: &[(String, OsString)], config: &Config) -> Launch {
    Launch {
        arguments: vec![format!("{PREFIX}{name}").into()],
        environment: environment.to_vec(),
        printing: Printing::Response,
        ..external::prepare(Path::new(OWN_PROGRAM), config)
    }
}
