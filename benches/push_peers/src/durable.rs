//! Documents in one file, synced in groups: all that wait while the disk works are in the next group.
//! What both peers' clients do before they count a document as theirs, and what `agent-client swarm` does:
//! a document is written once, and for each agent a line that says that it has it.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::mpsc;

use anyhow::Context as _;
use bytes::Bytes;
use tokio::sync::oneshot;

/// Documents of which it is known that they are in the file; more than are ever on their way at once.
const DOCUMENTS_MAX: usize = 16;

/// Hands documents to the thread that writes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Durable {
    queue: mpsc::Sender<Keep>,
}

struct Keep {
    agent: usize,
    document: Bytes,
    done: oneshot::Sender<()>,
}

impl Durable {
    /// Begins a new file.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let (queue, jobs) = mpsc::channel();
        std::thread::Builder::new().name("durable".into()).spawn(move || write(file, &jobs))?;
        Ok(Self { queue })
    }

    /// Returns when an agent's document is on the disk.
    pub(crate) async fn keep(&self, agent: usize, document: Bytes) -> anyhow::Result<()> {
        let (done, is_done) = oneshot::channel();
        self.queue.send(Keep { agent, document, done }).ok().context("the writer has ended")?;
        is_done.await.context("the disk has failed")
    }
}

/// Ends at the first failure, and with it everybody who waits.
fn write(mut file: File, jobs: &mpsc::Receiver<Keep>) {
    let mut known: HashSet<Bytes> = HashSet::new();
    let mut text = Vec::new();
    while let Ok(first) = jobs.recv() {
        let mut waiting = Vec::new();
        for Keep { agent, document, done } in std::iter::once(first).chain(jobs.try_iter()) {
            if !known.contains(&document) {
                if known.len() >= DOCUMENTS_MAX {
                    known.clear();
                }
                text.extend_from_slice(&document);
                known.insert(document);
            }
            text.extend_from_slice(format!("\n{agent}").as_bytes());
            waiting.push(done);
        }
        if file.write_all(&text).and_then(|()| file.sync_data()).is_err() {
            return;
        }
        text.clear();
        for done in waiting {
            // Nobody waits any more only when all of it is ending.
            let _ = done.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_document_is_in_the_file_once_and_who_has_it_each_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kept");
        let durable = Durable::open(&path).unwrap();
        for agent in [7, 8] {
            durable.keep(agent, Bytes::from("document")).await.unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "document\n7\n8");
    }
}
