//! The machine that the agent works on, in one place so that tests can have one of their own.

pub(crate) mod program;
pub(crate) mod run;
#[cfg(test)]
pub(crate) mod testing;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::config::{STATE_DIR, Settings};
use crate::daemon::files;

/// Nova's metadata service, on every machine of the cloud.
const METADATA_SERVICE: &str = "http://169.254.169.254";

/// A machine: its files, its tools, its metadata service.
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
            metadata_service: METADATA_SERVICE.into(),
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
        let path = self.tools.clone().or_else(|| std::env::var_os("PATH"));
        program::on_path(name, path.as_deref()).is_some()
    }

    /// The agent's newest document.
    pub fn document(&self) -> &Path {
        &self.document
    }

    /// Where the running agent answers.
    pub fn control_socket(&self) -> PathBuf {
        self.document.with_file_name(files::CONTROL)
    }

    /// Nova's metadata service, without a path.
    pub fn metadata_service(&self) -> &str {
        &self.metadata_service
    }
}
