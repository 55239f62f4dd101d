//! A hook that tells when it has started: the shell's own printf, its first instruction, into a pipe.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::fs::{CWD, FileType, Mode, mknodat};

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Hook {
    pipe: PathBuf,
    starts: mpsc::Receiver<Instant>,
}

impl Hook {
    /// Makes the pipe in a directory.
    pub(crate) fn new(directory: &Path) -> anyhow::Result<Self> {
        let pipe = directory.join("pipe");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        // With a writer of our own it never ends.
        let mut reader = OpenOptions::new().read(true).write(true).open(&pipe)?;
        let (sender, starts) = mpsc::channel();
        std::thread::spawn(move || {
            let mut byte = [0];
            while reader.read_exact(&mut byte).is_ok() && sender.send(Instant::now()).is_ok() {}
        });
        Ok(Self { pipe, starts })
    }

    /// What a shell is to do.
    pub(crate) fn command(&self) -> String {
        format!("printf . > {}", self.pipe.display())
    }

    /// Waits until it has started once more.
    pub(crate) fn started(&mut self, patience: Duration) -> anyhow::Result<Instant> {
        self.starts.recv_timeout(patience).context("the hook did not start")
    }
}
