//! What hooks printed, kept on this machine: the server gets a bounded part of it, `logs` shows the rest.
//!
//! For the last run of each config there are two files, `<directory>/<id>.stdout` and `<id>.stderr` (for
//! the id see [`ConfigId::file_name`]), mode 0600, written while the hook prints, so they can be read of a
//! run that goes on. A stream that prints nothing leaves no file. Of a stream longer than
//! [`KEPT_BYTES_MAX`] the beginning is kept, and once the run has ended, after a line that says how much
//! is left out, its end. Standard output of a hook whose output is its response is that response (JSON).
//!
//! The bytes are as the hook printed them: they may hold secrets, and are no valid UTF-8 perhaps.
//!
//! All files together stay below [`KEPT_TOTAL_BYTES_MAX`], the oldest make room; those of configs that left
//! the list are removed. Losing one costs a look at an old log and nothing else, so
//! nothing is synced, and a file that cannot be written is said once and does not disturb the run.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use certs::file::{FileError, PRIVATE_FILE_MODE, ensure_private_directory};

use super::capture::{Tail, marker};
use crate::document::ConfigId;

/// Bytes kept from the beginning of one stream of one run.
pub const KEPT_BYTES_MAX: u64 = 16 << 20;
/// Bytes kept from the end of a stream that is longer.
pub const KEPT_TAIL_BYTES_MAX: usize = 64 << 10;
/// Bytes of all files together, checked after each run.
pub const KEPT_TOTAL_BYTES_MAX: u64 = 256 << 20;
/// Number of all files together, checked after each run.
pub const KEPT_FILES_MAX: usize = 4_096;

/// One of the two streams of a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    fn suffix(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// The directory of kept output.
#[derive(Debug, Clone)]
pub struct OutputStore(PathBuf);

impl OutputStore {
    /// In this directory, made by [`make_ready`](Self::make_ready).
    pub fn new(directory: PathBuf) -> Self {
        Self(directory)
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.0
    }

    /// The file of a stream of a config's last run; not there if it printed nothing, or never ran.
    pub fn path(&self, id: &ConfigId, stream: Stream) -> PathBuf {
        self.0.join(format!("{}.{}", id.file_name(), stream.suffix()))
    }

    /// Opens what a stream of a config's last run has printed, to be read; `None` if that is nothing. Open
    /// it before reading: a new run replaces the file rather than writing into it.
    ///
    /// # Errors
    /// Those of the system.
    pub fn open(&self, id: &ConfigId, stream: Stream) -> io::Result<Option<File>> {
        let path = self.path(id, stream);
        let no_link = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        match OpenOptions::new().read(true).custom_flags(no_link).open(path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes the directory.
    ///
    /// # Errors
    /// It cannot be made, or others could write there.
    pub fn make_ready(&self) -> Result<(), FileError> {
        ensure_private_directory(&self.0)
    }

    /// Begins to keep what a run of this config prints on a stream, and forgets what its last run printed.
    pub(super) fn keep(&self, id: &ConfigId, stream: Stream) -> Kept {
        let path = self.path(id, stream);
        let _ = fs::remove_file(&path);
        Kept {
            path,
            file: Sink::NotYet,
            written: 0,
            left_out: 0,
            tail: Tail::new(KEPT_TAIL_BYTES_MAX),
        }
    }

    /// Removes the oldest files until the rest is within the bounds.
    pub fn bound(&self) {
        self.bound_to(KEPT_TOTAL_BYTES_MAX, KEPT_FILES_MAX);
    }

    fn bound_to(&self, bytes_max: u64, files_max: usize) {
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        let mut files: Vec<(SystemTime, u64, PathBuf)> = entries
            .filter_map(|entry| {
                let metadata = entry.metadata().ok().filter(fs::Metadata::is_file)?;
                // What it takes of the disk: a file of one byte takes a block.
                let bytes = metadata.len().max(metadata.blocks() * 512);
                Some((metadata.modified().ok()?, bytes, entry.path()))
            })
            .collect();
        files.sort_unstable();
        let mut bytes: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        let mut count = files.len();
        for (_, size, path) in files {
            if bytes <= bytes_max && count <= files_max {
                break;
            }
            tracing::info!(file = %path.display(), "old output makes room");
            let _ = fs::remove_file(path);
            bytes -= size;
            count -= 1;
        }
    }
}

/// The file of one stream of one run.
#[derive(Debug)]
pub(super) struct Kept {
    path: PathBuf,
    file: Sink,
    written: u64,
    left_out: u64,
    tail: Tail,
}

#[derive(Debug)]
enum Sink {
    /// Nothing was printed.
    NotYet,
    Open(File),
    /// It could not be written; that was said.
    Broken,
}

impl Kept {
    /// Takes in more bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let room = usize::try_from(KEPT_BYTES_MAX - self.written).unwrap_or(usize::MAX);
        let (kept, rest) = bytes.split_at(bytes.len().min(room));
        self.write(kept);
        self.written += kept.len() as u64;
        self.left_out += rest.len() as u64;
        self.tail.push(rest);
    }

    fn write(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if let Sink::NotYet = self.file {
            let mut options = OpenOptions::new();
            let options = options.write(true).create_new(true).mode(PRIVATE_FILE_MODE);
            self.file = match options.open(&self.path) {
                Ok(file) => Sink::Open(file),
                Err(error) => self.broken(&error),
            };
        }
        if let Sink::Open(file) = &mut self.file
            && let Err(error) = file.write_all(bytes)
        {
            self.file = self.broken(&error);
        }
    }

    fn broken(&self, error: &io::Error) -> Sink {
        tracing::warn!(file = %self.path.display(), %error, "a hook's output is not kept");
        Sink::Broken
    }
}

/// The end of a long stream is written when the run has ended.
impl Drop for Kept {
    fn drop(&mut self) {
        if self.left_out > 0 {
            let tail = std::mem::replace(&mut self.tail, Tail::new(0)).into_bytes();
            let missing = self.left_out - tail.len() as u64;
            if missing > 0 {
                self.write(marker(missing).as_bytes());
            }
            self.write(&tail);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn store() -> (tempfile::TempDir, OutputStore, ConfigId) {
        let dir = tempfile::tempdir().unwrap();
        let store = OutputStore::new(dir.path().join("output"));
        store.make_ready().unwrap();
        (dir, store, ConfigId::new("a").unwrap())
    }

    fn read(store: &OutputStore, id: &ConfigId) -> Option<Vec<u8>> {
        let mut file = store.open(id, Stream::Stdout).unwrap()?;
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut file, &mut bytes).unwrap();
        Some(bytes)
    }

    #[test]
    fn what_is_printed_can_be_read_at_once_and_by_nobody_else() {
        let (_dir, store, id) = store();
        let mut kept = store.keep(&id, Stream::Stdout);
        assert_eq!(read(&store, &id), None, "silence leaves no file");
        kept.push(b"one \xff");
        assert_eq!(read(&store, &id).unwrap(), b"one \xff");
        kept.push(b" two");
        drop(kept);
        assert_eq!(read(&store, &id).unwrap(), b"one \xff two");
        let mode = fs::metadata(store.path(&id, Stream::Stdout)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
    }

    #[test]
    fn a_new_run_replaces_what_the_last_one_printed() {
        let (_dir, store, id) = store();
        store.keep(&id, Stream::Stdout).push(b"first run, long");
        let mut reader = store.open(&id, Stream::Stdout).unwrap().unwrap();
        store.keep(&id, Stream::Stdout).push(b"second");
        assert_eq!(read(&store, &id).unwrap(), b"second");
        let mut first = String::new();
        io::Read::read_to_string(&mut reader, &mut first).unwrap();
        assert_eq!(first, "first run, long", "who reads goes on reading");
    }

    #[test]
    fn of_an_endless_stream_both_ends_are_kept_and_the_gap_is_named() {
        let (_dir, store, id) = store();
        let mut kept = store.keep(&id, Stream::Stdout);
        kept.push(b"beginning");
        let block = vec![b'x'; 1 << 20];
        for _ in 0..18 {
            kept.push(&block);
        }
        kept.push(b"end");
        drop(kept);
        let bytes = read(&store, &id).unwrap();
        let total = 9 + (18 << 20) + 3;
        let missing = total - KEPT_BYTES_MAX - KEPT_TAIL_BYTES_MAX as u64;
        let marker = marker(missing);
        assert!(bytes.starts_with(b"beginningx") && bytes.ends_with(b"xend"));
        assert_eq!(bytes.len() as u64, total - missing + marker.len() as u64);
        let at = usize::try_from(KEPT_BYTES_MAX).unwrap();
        assert_eq!(&bytes[at..at + marker.len()], marker.as_bytes());
    }

    #[test]
    fn a_file_that_cannot_be_written_disturbs_nothing() {
        let (_dir, store, id) = store();
        let mut kept = store.keep(&id, Stream::Stdout);
        fs::remove_dir(store.directory()).unwrap();
        kept.push(b"lost");
        kept.push(b"lost");
    }

    #[test]
    fn a_link_in_the_place_of_a_file_is_not_followed() {
        let (dir, store, id) = store();
        let other = dir.path().join("other");
        fs::write(&other, "other").unwrap();
        std::os::unix::fs::symlink(&other, store.path(&id, Stream::Stdout)).unwrap();
        assert!(store.open(&id, Stream::Stdout).is_err());
        store.keep(&id, Stream::Stdout).push(b"mine");
        assert_eq!(fs::read(&other).unwrap(), b"other");
        assert_eq!(read(&store, &id).unwrap(), b"mine");
    }

    #[test]
    fn the_oldest_files_make_room() {
        let (_dir, store, _) = store();
        for (n, name) in ["old", "middle", "new"].into_iter().enumerate() {
            let id = ConfigId::new(name).unwrap();
            store.keep(&id, Stream::Stdout).push(&[b'x'; 8192]);
            let file = File::options().append(true).open(store.path(&id, Stream::Stdout)).unwrap();
            let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(n as u64 * 1000);
            file.set_modified(at).unwrap();
        }
        let left = || {
            let mut names: Vec<String> = fs::read_dir(store.directory())
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort_unstable();
            names
        };
        store.bound_to(16384, 3);
        assert_eq!(left(), ["middle.stdout", "new.stdout"]);
        store.bound_to(16384, 1);
        assert_eq!(left(), ["new.stdout"]);
        store.bound();
        assert_eq!(left(), ["new.stdout"]);
    }
}
