//! What the tools keep on a machine beside what they are asked to make.

use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::compat::pylog::{Level, Log, Style};
use crate::machine::System;

/// Log files hold commands and what they print.
const LOG_MODE: u32 = 0o600;
/// Where metadata that was read last is kept.
const CACHE: &str = "/var/cache/heat-cfntools/last_metadata";

impl System {
    /// The metadata that was read last: of a resource if one is named, else of any.
    pub(super) fn last_metadata(&self, resource: Option<&str>) -> PathBuf {
        let cache = self.at(CACHE);
        match resource {
            Some(resource) => {
                let mut name = cache.into_os_string();
                name.push("_");
                name.push(resource);
                name.into()
            }
            None => cache,
        }
    }

    /// A log of this tool. Everything from `least` on is in its file, everything from `told` on is also
    /// said on stderr.
    pub(super) fn log(&self, tool: &str, least: Level, told: Level) -> Log {
        let path = self.at(&format!("/var/log/{tool}.log"));
        let mut log = Log::new(Style::CfnTools, least).saying_from(told);
        // Made before it is opened, so that it is private from the start.
        let _ = OpenOptions::new().append(true).create(true).mode(LOG_MODE).open(&path);
        log.also_to(&path);
        log
    }
}

/// Makes a private directory, with those above it.
pub(super) fn make_private(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)
}
