//! `rollback`: an earlier document in force again, as if it had been pushed just now.
//!
//! That has these effects, and no others:
//!
//! - The document in force is the earlier one: for `status`, for the server (which is told its version), and
//!   for whatever reads the document, such as templates.
//! - No config that ever ran runs again: ids run once. With `--rerun`, those that the earlier document asks
//!   for and the one in force before does not are run once more ([`super::rerun`]); they are what the newer
//!   document had put others in the place of.
//! - What only the newer document asked for is not undone. Nobody knows how.
//! - What was never started, because the newer document came first, has its result and is not started.
//! - The next document that the server pushes is in force as always. Until then the agent tells the server
//!   that it holds the newest, so that it is not sent again at each connection, and remembers the rollback
//!   across restarts.
//!
//! `rollback --to` the newest version ends it.

use std::collections::BTreeSet;
use std::path::Path;

use certs::file::{FileError, PRIVATE_FILE_MODE, read_private, write_atomic};
use metadata_delivery::message::Holds;
use serde::{Deserialize, Serialize};

use crate::control::message::{Refusal, RefusalCode};
use crate::document::{ConfigId, Document, Entry, Work};
use crate::history::History;
use crate::journal::{State, States};
use crate::store::StoredDocument;

/// Version of the file's form.
const SCHEMA: u32 = 1;
const FILE_BYTES_MAX: u64 = 64 << 10;

/// That an operator put an earlier document in force. It holds as long as the newest document is the one
/// it names, so that a newer one ends it without another file to be written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollback {
    /// Version of the form.
    pub schema: u32,
    /// The newest document, which is not in force.
    pub from: Holds,
    /// The one in force.
    pub to: Holds,
    /// Who asked.
    pub asked_by: String,
    /// When, in milliseconds since 1970.
    pub at_unix_ms: u64,
}

impl Rollback {
    /// That `to` is in force in the place of `from`; if they are the same, that a rollback is over.
    pub fn new(from: Holds, to: Holds, asked_by: &str, at_unix_ms: u64) -> Self {
        Self { schema: SCHEMA, from, to, asked_by: asked_by.to_owned(), at_unix_ms }
    }

    /// The rollback recorded at `path` that holds while `newest` is the newest document.
    ///
    /// # Errors
    /// The file cannot be read, or others have access to it.
    pub fn load(path: &Path, newest: Holds) -> Result<Option<Self>, FileError> {
        let bytes = match read_private(path, FILE_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let read = serde_json::from_slice::<Self>(&bytes);
        let read = read.inspect_err(
            |error| tracing::error!(%error, file = %path.display(), "unreadable rollback: left out"),
        );
        Ok(read.ok().filter(|rollback| rollback.from == newest && rollback.to != newest))
    }

    /// Makes it durable.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), FileError> {
        let bytes = serde_json::to_vec(self).map_err(|e| FileError::Io {
            action: "write",
            path: path.to_owned(),
            source: e.into(),
        })?;
        write_atomic(path, &bytes, PRIVATE_FILE_MODE)
    }
}

/// The document that a rollback has put in force in the place of `newest`; none if none has, or if it is no
/// longer kept.
pub fn in_force(path: &Path, history: &History, newest: &StoredDocument) -> Option<StoredDocument> {
    let warn = |error: &FileError| tracing::error!(%error, "a rollback is left out");
    let rollback = Rollback::load(path, newest.holds()).inspect_err(warn).ok()??;
    let to = history.load(rollback.to.version).inspect_err(warn).ok()?;
    let to = to.filter(|document| document.holds() == rollback.to);
    if to.is_none() {
        let version = rollback.to.version;
        tracing::error!(version, "a rollback is left out: its document is no longer kept");
    }
    to
}

/// What a rollback does, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollbackPlan {
    /// Whether it was only asked about.
    pub dry_run: bool,
    /// The document in force before.
    pub from_version: u64,
    /// The document in force after.
    pub to_version: u64,
    /// The newest document.
    pub newest_version: u64,
    /// What is run once more, in this order.
    pub run_again: Vec<Named>,
    /// What differs and is not run once more: it was not asked for, or cannot be run.
    pub not_run_again: Vec<Named>,
    /// What is run for the first time.
    pub run_first: Vec<Named>,
    /// What both documents ask for: stays as it is.
    pub unchanged: usize,
    /// What only the document in force before asks for, and what has been done by it: it is not undone.
    pub not_undone: Vec<Named>,
    /// Whether an agent runs that does it now.
    pub agent_runs: bool,
}

/// A deployment, by id and name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Id of its config.
    pub id: String,
    /// Its name.
    pub name: String,
}

impl Named {
    fn of(entry: &Entry) -> Self {
        Self { id: entry.id.to_string(), name: entry.name.clone() }
    }
}

/// What putting `to` in force in the place of `from` means.
pub fn plan(
    from: &Document,
    to: &Document,
    newest_version: u64,
    states: &States,
    rerun: bool,
) -> RollbackPlan {
    let ids = |document: &Document| -> BTreeSet<ConfigId> {
        document.entries.iter().map(|entry| entry.id.clone()).collect()
    };
    let (ids_from, ids_to) = (ids(from), ids(to));
    let mut plan = RollbackPlan {
        dry_run: false,
        from_version: from.version,
        to_version: to.version,
        newest_version,
        run_again: Vec::new(),
        not_run_again: Vec::new(),
        run_first: Vec::new(),
        unchanged: 0,
        not_undone: Vec::new(),
        agent_runs: false,
    };
    for entry in &to.entries {
        let in_both = ids_from.contains(&entry.id);
        match (&entry.work, states.get(&entry.id)) {
            _ if in_both => plan.unchanged += 1,
            (Work::Data, _) => {}
            (_, None | Some(State::Received(_))) => plan.run_first.push(Named::of(entry)),
            (Work::Run(_), Some(State::Finished(_) | State::Signalled(_))) if rerun => {
                plan.run_again.push(Named::of(entry));
            }
            _ => plan.not_run_again.push(Named::of(entry)),
        }
    }
    let done = |entry: &&Entry| {
        let state = states.get(&entry.id);
        !ids_to.contains(&entry.id) && !matches!(state, None | Some(State::Received(_)))
    };
    plan.not_undone = from.entries.iter().filter(done).map(Named::of).collect();
    plan
}

/// The document to roll back to: of version `to`, or the one that came before the one in force.
///
/// # Errors
/// There is none, or it is in force already.
pub fn target(
    newest: &StoredDocument,
    in_force: u64,
    to: Option<u64>,
    history: &History,
) -> Result<StoredDocument, Refusal> {
    let kept = history.list().into_iter().filter(|kept| kept.version != newest.version);
    let versions: Vec<u64> = kept.map(|kept| kept.version).collect();
    let before = || match versions.iter().position(|version| *version == in_force) {
        Some(at) => at.checked_sub(1).map(|at| versions[at]),
        None => versions.last().copied(),
    };
    let hint = "agent-client diff --list shows what is kept";
    let Some(to) = to.or_else(before) else {
        let text = format!("no document from before version {in_force} is kept");
        return Err(Refusal::new(RefusalCode::NotKept, text, hint));
    };
    if to == in_force {
        let text = format!("document {to} is in force already");
        return Err(Refusal::new(RefusalCode::NotNow, text, hint));
    }
    if to == newest.version {
        return Ok(newest.clone());
    }
    match history.load(to) {
        Ok(Some(document)) => Ok(document),
        Ok(None) => {
            let text = format!("document {to} is not kept, the kept ones are {versions:?}");
            Err(Refusal::new(RefusalCode::NotKept, text, hint))
        }
        Err(error) => Err(unusable(to, &error)),
    }
}

/// What to say of a document that cannot be put in force.
pub fn unusable(version: u64, error: &dyn std::fmt::Display) -> Refusal {
    let text = format!("document {version} is unusable: {error}");
    Refusal::new(RefusalCode::Failed, text, "agent-client diff --list")
}

#[cfg(test)]
mod tests {
    use metadata_delivery::message::Hex32;
    use serde_json::json;

    use super::*;
    use crate::journal::tests_support::{finished, received, signalled, started};
    use crate::store::DocumentStore;

    fn document(version: u64, ids: &[&str]) -> Document {
        let entry = |id: &&str| match *id {
            "bad" => json!({"id": id, "group": "script"}),
            "data" => json!({"id": id, "group": "os-apply-config"}),
            _ => json!({"id": id, "name": id, "group": "script", "inputs": []}),
        };
        let entries: Vec<_> = ids.iter().map(entry).collect();
        Document::parse(version, json!({"deployments": entries}).to_string().as_bytes()).unwrap()
    }

    fn ids(named: &[Named]) -> Vec<&str> {
        named.iter().map(|named| named.id.as_str()).collect()
    }

    #[test]
    fn only_what_differs_is_run_again_and_only_if_asked_for() {
        let older = document(3, &["both", "old", "bad", "data", "waiting", "runs"]);
        let newer = document(5, &["both", "new", "never-ran"]);
        let mut states = States::default();
        for id in ["both", "old", "bad", "new"] {
            for record in [received(id), finished(id), signalled(id)] {
                states.apply(&record).unwrap();
            }
        }
        for record in
            [received("waiting"), received("runs"), started("runs"), received("never-ran")]
        {
            states.apply(&record).unwrap();
        }
        let plain = plan(&newer, &older, 5, &states, false);
        assert_eq!((plain.from_version, plain.to_version, plain.unchanged), (5, 3, 1));
        assert!(plain.run_again.is_empty());
        assert_eq!(ids(&plain.not_run_again), ["old", "bad", "runs"]);
        assert_eq!(ids(&plain.run_first), ["waiting"]);
        assert_eq!(ids(&plain.not_undone), ["new"], "what never ran needs no undoing");

        let again = plan(&newer, &older, 5, &states, true);
        assert_eq!(ids(&again.run_again), ["old"]);
        assert_eq!(ids(&again.not_run_again), ["bad", "runs"], "what cannot be run is said so");

        let back = plan(&older, &newer, 5, &states, true);
        assert_eq!(ids(&back.run_again), ["new"], "and forward again in the same way");
        assert_eq!(ids(&back.run_first), ["never-ran"]);
    }

    #[test]
    fn without_a_version_the_one_before_the_one_in_force_is_meant() {
        let dir = tempfile::tempdir().unwrap();
        let (current, history) = (dir.path().join("document"), History::new(dir.path().join("d")));
        let store = DocumentStore::new(current.clone());
        let stored = |version| {
            StoredDocument::new(version, bytes::Bytes::from_static(b"{}"), 1_000 + version)
        };
        for version in [2, 3, 5] {
            store.save(&stored(version)).unwrap();
            history.keep(&current, version, None).unwrap();
        }
        // As after a crash between keeping version 5 and replacing it: it is the newest, and kept.
        let version = |in_force, to| target(&stored(5), in_force, to, &history).map(|d| d.version);
        assert_eq!(version(5, None), Ok(3));
        assert_eq!(version(3, None), Ok(2));
        assert_eq!(version(3, Some(5)), Ok(5), "the newest again");
        let code = |in_force, to| version(in_force, to).unwrap_err().code;
        assert_eq!(code(2, None), RefusalCode::NotKept);
        assert_eq!(code(5, Some(4)), RefusalCode::NotKept);
        assert_eq!(code(3, Some(3)), RefusalCode::NotNow);
    }

    #[test]
    fn a_rollback_holds_until_another_document_is_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rollback.json");
        let holds = |version| Holds { version, sha256: Hex32([version as u8; 32]) };
        assert_eq!(Rollback::load(&path, holds(5)).unwrap(), None);
        let rollback = Rollback::new(holds(5), holds(3), "user root (uid 0)", 1);
        rollback.save(&path).unwrap();
        assert_eq!(Rollback::load(&path, holds(5)).unwrap(), Some(rollback));
        assert_eq!(Rollback::load(&path, holds(6)).unwrap(), None);
        Rollback::new(holds(5), holds(5), "x", 2).save(&path).unwrap();
        assert_eq!(Rollback::load(&path, holds(5)).unwrap(), None, "it is over");
        write_atomic(&path, b"{", PRIVATE_FILE_MODE).unwrap();
        assert_eq!(
            Rollback::load(&path, holds(5)).unwrap(),
            None,
            "damaged: the newest is in force"
        );
    }
}
