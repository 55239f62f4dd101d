//! Where the tools find what they work on, in one place so that tests can move it.

use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::compat::pylog::{Level, Log, Style};
use crate::config::{STATE_DIR, Settings};
use crate::daemon::files;

/// Log files hold commands and what they print.
const LOG_MODE: u32 = 0o600;
/// Where metadata that was read last is kept.
const CACHE: &str = "/var/cache/heat-cfntools/last_metadata";

/// The machine that the tools work on.
#[derive(Debug, Clone)]
pub struct System {
    root: PathBuf,
    tools: Option<OsString>,
    document: PathBuf,
    metadata_service: String,
}

impl System {
    /// This machine, with the state directory that the agent's configuration names.
    pub fn of_machine() -> Self {
        let settings = Settings::load(None, |name| std::env::var(name).ok(), &[]);
        let state = settings.map_or_else(|_| STATE_DIR.into(), |settings| settings.state_dir);
        Self {
            root: "/".into(),
            tools: None,
            document: state.join(files::DOCUMENT),
            metadata_service: "http://169.254.169.254".into(),
        }
    }

    /// A tree below `root` in place of the machine. Tools are looked for in the directories of `tools`,
    /// the metadata service is at `metadata_service`.
    pub fn below(root: &Path, tools: &OsStr, metadata_service: &str) -> Self {
        Self {
            root: root.to_owned(),
            tools: Some(tools.to_owned()),
            document: root.join(STATE_DIR.trim_start_matches('/')).join(files::DOCUMENT),
            metadata_service: metadata_service.to_owned(),
        }
    }

    /// Where an absolute path is.
    pub fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// In place of `PATH`, if need be.
    pub fn tools(&self) -> Option<&OsStr> {
        self.tools.as_deref()
    }

    /// Whether a tool of this name can be started.
    pub fn has_tool(&self, name: &str) -> bool {
        let path = self.tools.clone().or_else(|| std::env::var_os("PATH")).unwrap_or_default();
        std::env::split_paths(&path).any(|directory| {
            rustix::fs::access(directory.join(name), rustix::fs::Access::EXEC_OK).is_ok()
        })
    }

    /// The agent's newest document.
    pub fn document(&self) -> &Path {
        &self.document
    }

    /// Nova's metadata service, without a path.
    pub fn metadata_service(&self) -> &str {
        &self.metadata_service
    }

    /// The metadata that was read last: of a resource if one is named, else of any.
    pub fn last_metadata(&self, resource: Option<&str>) -> PathBuf {
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
