//! The documents that a swarm's agents hold: one log for all, synced once for all that came meanwhile.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use anyhow::Context;
use bytes::Bytes;
use certs::file::{PRIVATE_FILE_MODE, check_private, write_atomic};
use metadata_delivery::message::{Hex32, Holds};
use serde::{Deserialize, Serialize};

const LOG_FILE: &str = "documents.log";

/// What agents hold, by their numbers.
pub(super) type Held = HashMap<u32, (Holds, Bytes)>;

/// A line of the log.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    /// A document, before the first agent that holds it.
    Body { body: String },
    /// An agent holds a document.
    Held { agent: u32, version: u64, sha256: Hex32 },
}

/// A document to be made durable for an agent.
pub(super) struct Keep {
    pub(super) agent: u32,
    pub(super) holds: Holds,
    pub(super) body: Bytes,
}

/// The way to the log's thread.
pub(super) struct Log {
    keeps: Sender<Keep>,
    kept: Receiver<io::Result<Vec<(u32, Holds)>>>,
}

impl Log {
    /// Opens the log in a directory, without what is no longer held, and says who holds what. `sync`:
    /// whether it is synced. `wake` is called when [`kept`](Self::kept) has something.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub(super) fn open(
        directory: &Path,
        sync: bool,
        wake: impl Fn() + Send + 'static,
    ) -> anyhow::Result<(Self, Held)> {
        let path = directory.join(LOG_FILE);
        let context = || format!("the documents' log {}", path.display());
        let held = read(&path).with_context(context)?;
        let mut bodies = HashSet::new();
        let mut text = Vec::new();
        for (agent, (holds, body)) in &held {
            add(&mut text, &mut bodies, *agent, *holds, body).with_context(context)?;
        }
        write_atomic(&path, &text, PRIVATE_FILE_MODE)?;
        let file = OpenOptions::new().append(true).open(&path).with_context(context)?;
        let (keeps, to_keep) = channel();
        let (answers, kept) = channel();
        let writer = Writer { file, sync, bodies, path };
        thread::Builder::new()
            .name("documents-log".into())
            .spawn(move || writer.run(&to_keep, &answers, &wake))?;
        Ok((Self { keeps, kept }, held.into_iter().collect()))
    }

    /// Has a document made durable.
    pub(super) fn keep(&self, keep: Keep) {
        // An error means that the thread has failed, and said so.
        drop(self.keeps.send(keep));
    }

    /// What has become durable, or why nothing will any more.
    pub(super) fn kept(&self) -> Option<io::Result<Vec<(u32, Holds)>>> {
        self.kept.try_recv().ok()
    }
}

struct Writer {
    file: File,
    sync: bool,
    /// Documents that are in the log.
    bodies: HashSet<[u8; 32]>,
    path: PathBuf,
}

impl Writer {
    fn run(
        mut self,
        keeps: &Receiver<Keep>,
        answers: &Sender<io::Result<Vec<(u32, Holds)>>>,
        wake: &impl Fn(),
    ) {
        while let Ok(first) = keeps.recv() {
            let written = self.write(std::iter::once(first).chain(keeps.try_iter()));
            let failed = written.is_err();
            let written = written.map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", self.path.display()))
            });
            if answers.send(written).is_err() || failed {
                break;
            }
            wake();
        }
        wake();
    }

    fn write(&mut self, keeps: impl Iterator<Item = Keep>) -> io::Result<Vec<(u32, Holds)>> {
        let mut text = Vec::new();
        let mut kept = Vec::new();
        for Keep { agent, holds, body } in keeps {
            add(&mut text, &mut self.bodies, agent, holds, &body)?;
            kept.push((agent, holds));
        }
        self.file.write_all(&text)?;
        if self.sync {
            self.file.sync_data()?;
        }
        Ok(kept)
    }
}

/// Appends what says that an agent holds a document.
fn add(
    text: &mut Vec<u8>,
    bodies: &mut HashSet<[u8; 32]>,
    agent: u32,
    holds: Holds,
    body: &[u8],
) -> io::Result<()> {
    let mut line = |line: &Line| -> io::Result<()> {
        serde_json::to_writer(&mut *text, line)?;
        text.push(b'\n');
        Ok(())
    };
    if bodies.insert(holds.sha256.0) {
        // JSON is UTF-8, which the server has checked.
        let body = String::from_utf8_lossy(body).into_owned();
        line(&Line::Body { body })?;
    }
    line(&Line::Held { agent, version: holds.version, sha256: holds.sha256 })
}

/// Who holds what. Ends at the first line that is not whole: the system stopped while it was written.
fn read(path: &Path) -> anyhow::Result<BTreeMap<u32, (Holds, Bytes)>> {
    let mut held = BTreeMap::new();
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(held),
        Err(error) => return Err(error.into()),
    };
    check_private(path)?;
    let mut bodies: HashMap<[u8; 32], Bytes> = HashMap::new();
    for line in BufReader::new(file).split(b'\n') {
        match serde_json::from_slice(&line?) {
            Ok(Line::Body { body }) => {
                bodies.insert(Hex32::sha256_of(body.as_bytes()).0, body.into());
            }
            Ok(Line::Held { agent, version, sha256 }) => {
                // Without its body, the agent does not hold it.
                if let Some(body) = bodies.get(&sha256.0) {
                    held.insert(agent, (Holds { version, sha256 }, body.clone()));
                }
            }
            Err(_) => break,
        }
    }
    Ok(held)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(agent: u32, version: u64, body: &'static str) -> Keep {
        let holds = Holds { version, sha256: Hex32::sha256_of(body.as_bytes()) };
        Keep { agent, holds, body: Bytes::from_static(body.as_bytes()) }
    }

    /// Keeps these, and waits until all are durable.
    fn keep_all(directory: &Path, keeps: Vec<Keep>) -> Held {
        let (waker, woken) = channel();
        let (log, held) = Log::open(directory, true, move || waker.send(()).unwrap()).unwrap();
        let mut missing = keeps.len();
        keeps.into_iter().for_each(|keep| log.keep(keep));
        while missing > 0 {
            woken.recv().unwrap();
            while let Some(kept) = log.kept() {
                missing -= kept.unwrap().len();
            }
        }
        held
    }

    #[test]
    fn what_agents_held_is_held_after_a_restart_and_each_document_is_there_once() {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = (r#"{"deployments":[]}"#, r#"{"a":1}"#);
        let keeps = vec![keep(0, 1, one), keep(1, 1, one), keep(1, 2, two), keep(2, 1, one)];
        assert!(keep_all(directory.path(), keeps).is_empty());
        let log = std::fs::read_to_string(directory.path().join(LOG_FILE)).unwrap();
        assert_eq!(log.matches("deployments").count(), 1);
        for _ in 0..2 {
            let held = keep_all(directory.path(), vec![]);
            assert_eq!(held.len(), 3);
            assert_eq!((held[&1].0.version, &held[&1].1[..]), (2, two.as_bytes()));
            assert_eq!((held[&2].0.version, &held[&2].1[..]), (1, one.as_bytes()));
        }
    }

    #[test]
    fn a_log_that_was_cut_holds_what_was_whole() {
        let directory = tempfile::tempdir().unwrap();
        keep_all(directory.path(), vec![keep(0, 1, "{}"), keep(1, 1, "{}")]);
        let path = directory.path().join(LOG_FILE);
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let held = read(&path).unwrap();
            assert!(held.values().all(|(_, body)| &body[..] == b"{}"));
            assert!(held.len() < 2 || cut == whole.len() - 1);
        }
    }
}
