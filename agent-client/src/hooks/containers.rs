//! Containers of deployments that have left the document.
//!
//! With heat-agents, os-refresh-config runs `50-heat-config-docker-cmd` and
//! `50-heat-config-docker-compose` before the hooks, with the list of deployments in a file. The daemon
//! has no such phases: it writes the list when it takes up a document, the built-in hooks tidy up by it
//! before they start a container, and once the document has settled the two programs are run, for
//! documents that have no such hook any more. Nothing of this happens before a document has asked for
//! containers.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use certs::file::{PRIVATE_FILE_MODE, write_atomic};
use serde_json::{Value, json};

use super::built_in::OWN_PROGRAM;
use crate::document::{Document, Entry, Work};

/// Where the programs find the list.
pub const LIST_VARIABLE: &str = "HEAT_SHELL_CONFIG";
/// Set for a hook that is to tidy up first, and for whom the list is the agent's own.
pub const TIDY_VARIABLE: &str = "AGENT_CLIENT_TIDY";
/// Groups whose hooks make containers.
pub const GROUPS: [&str; 2] = ["docker-cmd", "docker-compose"];

/// What one group has in the document in force.
#[derive(Debug)]
pub struct Containers {
    group: &'static str,
    list: PathBuf,
    /// By another document's list containers would go that are asked for.
    is_current: AtomicBool,
}

impl Containers {
    /// The lists of all groups in a directory of the agent's own.
    pub fn of_groups(directory: &Path) -> Vec<Self> {
        let of_group = |group| Self {
            group,
            list: directory.join(format!("{group}.json")),
            is_current: AtomicBool::new(false),
        };
        GROUPS.map(of_group).into()
    }

    /// Which group.
    pub fn group(&self) -> &'static str {
        self.group
    }

    /// A document was taken up.
    pub fn adopted(&self, document: &Document) {
        let entries = &document.entries;
        let asked = entries.iter().any(|entry| group(entry) == Some(self.group));
        if !asked && !self.list.exists() {
            return;
        }
        let list: Value = entries.iter().map(|entry| self.listed(entry)).collect();
        let written = write_atomic(&self.list, list.to_string().as_bytes(), PRIVATE_FILE_MODE);
        if let Err(error) = &written {
            tracing::error!(%error, group = self.group, "old containers stay: no list for them");
        }
        self.is_current.store(written.is_ok(), Ordering::Relaxed);
    }

    /// What the programs need to know of a deployment. Of one that cannot be read it is not known whether
    /// it has containers: it keeps them.
    fn listed(&self, entry: &Entry) -> Value {
        let group = match &entry.work {
            Work::Bad(_) => self.group,
            Work::Data => &entry.group,
            Work::Run(_) => group(entry).unwrap_or(&entry.group),
        };
        let mut listed = json!({"id": entry.id, "name": entry.name, "group": group});
        if let Work::Run(config) = &entry.work
            && group == self.group
        {
            listed["config"] = config.config.clone();
        }
        listed
    }

    /// Variables for the group's hook.
    pub fn environment(&self) -> impl Iterator<Item = (String, OsString)> {
        let is_current = self.is_current.load(Ordering::Relaxed);
        let list = is_current.then(|| (LIST_VARIABLE.into(), self.list.clone().into()));
        let tidy = is_current.then(|| (TIDY_VARIABLE.into(), "1".into()));
        list.into_iter().chain(tidy)
    }

    /// All of the document's deployments have ended: what is left of others goes, in the background.
    pub fn settled(&self, environment: &[(String, OsString)]) {
        if !self.is_current.load(Ordering::Relaxed) {
            return;
        }
        let program = format!("50-heat-config-{}", self.group);
        let mut command = Command::new(OWN_PROGRAM);
        command.arg(&program).envs(environment.iter().cloned()).envs(self.environment());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let run = move || match command.status() {
            Ok(status) if status.success() => tracing::debug!(program, "tidied up"),
            Ok(status) => tracing::warn!(program, %status, "tidying up failed"),
            Err(error) => tracing::warn!(program, %error, "tidying up could not be started"),
        };
        if let Err(error) = thread::Builder::new().name("tidy".into()).spawn(run) {
            tracing::warn!(%error, "no thread for tidying up");
        }
    }
}

/// The group whose hook runs an entry, of a component that of its part.
fn group(entry: &Entry) -> Option<&str> {
    match &entry.work {
        Work::Run(config) => Some(&config.hook),
        Work::Data | Work::Bad(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(deployments: Value) -> Document {
        let body = json!({"deployments": deployments}).to_string();
        Document::parse(1, body.as_bytes()).unwrap()
    }

    #[test]
    fn a_list_is_made_once_containers_are_asked_for_and_kept_up_to_date() {
        let directory = tempfile::tempdir().unwrap();
        let [cmd, compose] = &Containers::of_groups(directory.path())[..] else { panic!() };
        let adopted = |deployments: Value| {
            let document = document(deployments);
            [cmd, compose].map(|containers| {
                containers.adopted(&document);
                let text = std::fs::read(&containers.list).unwrap_or_default();
                serde_json::from_slice::<Value>(&text).ok()
            })
        };
        assert_eq!(adopted(json!([{"id": "s", "group": "script", "inputs": []}])), [None, None]);
        assert_eq!(cmd.environment().count(), 0);
        let component = json!({"id": "c", "name": "n", "group": "component",
            "inputs": [{"name": "deploy_action", "value": "CREATE"}],
            "config": {"configs": [{"actions": ["CREATE"], "tool": "docker-cmd", "config": {"a": {}}}]}});
        let bad = json!({"id": "b", "name": "n", "group": "docker-cmd"});
        let listed = json!([
            {"id": "c", "name": "n", "group": "docker-cmd", "config": {"a": {}}},
            {"id": "b", "name": "n", "group": "docker-cmd"}]);
        assert_eq!(adopted(json!([component, bad])), [Some(listed), None]);
        assert_eq!((cmd.environment().count(), compose.environment().count()), (2, 0));
        assert_eq!(adopted(json!([])), [Some(json!([])), None], "all may go");
    }
}
