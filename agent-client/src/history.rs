//! The documents before the newest one: for `diff` and `rollback`.
//!
//! A document that is replaced is not copied: its file gets a second name in the history's directory just
//! before the new one takes the first. The history is bounded in number and bytes; losing it costs an
//! operator's convenience, and nothing else.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use certs::file::{FileError, ensure_private_directory};

use crate::store::{StoredDocument, read_outline, read_stored};

/// Documents kept beside the newest.
pub const DOCUMENTS_MAX: usize = 10;
/// Bytes of them together: four of the largest that are delivered.
pub const DOCUMENTS_BYTES_MAX: u64 = 4 * metadata_delivery::DOCUMENT_BYTES_MAX as u64;

/// A kept document, without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its version.
    pub version: u64,
    /// When it came, in milliseconds since 1970.
    pub received_unix_ms: u64,
    /// Bytes of its file.
    pub bytes: u64,
    path: PathBuf,
}

/// The history's directory.
#[derive(Debug, Clone)]
pub struct History {
    directory: PathBuf,
}

impl History {
    /// A history in `directory`, which is made when it is needed.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Keeps the document in the file `current`, of this version, and drops the oldest if there are too many,
    /// but not the version `needed`.
    ///
    /// # Errors
    /// It is not kept; those kept before are.
    pub fn keep(&self, current: &Path, version: u64, needed: Option<u64>) -> Result<(), FileError> {
        ensure_private_directory(&self.directory)?;
        let path = self.path(version);
        let io = |source| FileError::Io {
            action: "keep the last document as",
            path: path.clone(),
            source,
        };
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
            _ => {}
        }
        match fs::hard_link(current, &path) {
            Ok(()) => {}
            // The first document, or one that was set aside as damaged.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(io(error)),
        }
        self.prune(needed);
        Ok(())
    }

    /// Keeps the document in the file `current`, which is about to be replaced. That it cannot be kept is no
    /// reason not to replace it.
    pub fn keep_replaced(&self, current: &Path) {
        let Ok(Some(last)) = read_outline(current) else { return };
        if let Err(error) = self.keep(current, last.version, None) {
            tracing::warn!(%error, version = last.version, "a replaced document is not kept");
        }
    }

    /// What is kept, oldest first.
    pub fn list(&self) -> Vec<Kept> {
        let Ok(entries) = fs::read_dir(&self.directory) else { return Vec::new() };
        let mut kept: Vec<Kept> = entries
            .flatten()
            .filter_map(|entry| {
                let version = version_of(&entry.file_name())?;
                let path = entry.path();
                let bytes = entry.metadata().ok().filter(fs::Metadata::is_file)?.len();
                let received_unix_ms = read_outline(&path).ok().flatten()?.received_unix_ms;
                Some(Kept { version, received_unix_ms, bytes, path })
            })
            .collect();
        kept.sort_by_key(|kept| (kept.received_unix_ms, kept.version));
        kept
    }

    /// A kept document; `None` if it is not kept, or damaged.
    ///
    /// # Errors
    /// The file cannot be read, or others have access to it.
    pub fn load(&self, version: u64) -> Result<Option<StoredDocument>, FileError> {
        let document = read_stored(&self.path(version))?;
        Ok(document.filter(|document| document.version == version))
    }

    fn path(&self, version: u64) -> PathBuf {
        self.directory.join(format!("v{version}"))
    }

    fn prune(&self, needed: Option<u64>) {
        let mut kept = self.list();
        let newest = kept.last().map(|kept| kept.version);
        kept.retain(|kept| Some(kept.version) != needed && Some(kept.version) != newest);
        let mut count = kept.len() + 1;
        let mut bytes: u64 = kept.iter().map(|kept| kept.bytes).sum();
        for old in kept {
            if count <= DOCUMENTS_MAX && bytes <= DOCUMENTS_BYTES_MAX {
                return;
            }
            if let Err(error) = fs::remove_file(&old.path) {
                tracing::warn!(%error, file = %old.path.display(), "old document not removed");
            }
            count -= 1;
            bytes -= old.bytes;
        }
    }
}

fn version_of(name: &OsStr) -> Option<u64> {
    name.to_str()?.strip_prefix('v')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use bytes::Bytes;

    use super::*;
    use crate::store::DocumentStore;

    struct Bench {
        dir: tempfile::TempDir,
        store: DocumentStore,
        history: History,
    }

    impl Bench {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let store = DocumentStore::new(dir.path().join("document"));
            let history = History::new(dir.path().join("documents"));
            Self { dir, store, history }
        }

        /// A document comes in the place of the one before.
        fn push(&self, version: u64, body: &[u8], needed: Option<u64>) {
            if let Some(last) = self.store.load().unwrap() {
                let current = self.dir.path().join("document");
                self.history.keep(&current, last.version, needed).unwrap();
            }
            let body = Bytes::copy_from_slice(body);
            self.store.save(&StoredDocument::new(version, body, 1_000 + version)).unwrap();
        }

        fn versions(&self) -> Vec<u64> {
            self.history.list().iter().map(|kept| kept.version).collect()
        }
    }

    #[test]
    fn what_is_replaced_is_kept_byte_for_byte_private_and_the_newest_is_not_in_it() {
        let bench = Bench::new();
        bench.push(3, b"{\"a\": 3}", None);
        bench.push(4, b"{\"a\": 4}", None);
        bench.push(9, b"{\"a\": 9}", None);
        assert_eq!(bench.versions(), [3, 4]);
        let kept = bench.history.load(3).unwrap().unwrap();
        assert_eq!((kept.version, &kept.body[..]), (3, &b"{\"a\": 3}"[..]));
        assert_eq!(bench.history.load(9).unwrap(), None);
        let directory = bench.dir.path().join("documents");
        for (path, mode) in [(directory.clone(), 0o700), (directory.join("v3"), 0o600)] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, mode);
        }
    }

    #[test]
    fn a_version_that_comes_twice_is_kept_as_it_came_last() {
        let bench = Bench::new();
        bench.push(1, b"{\"a\": 1}", None);
        bench.push(2, b"{}", None);
        bench.push(1, b"{\"a\": 2}", None);
        bench.push(2, b"{\"a\": 3}", None);
        assert_eq!(&bench.history.load(1).unwrap().unwrap().body[..], b"{\"a\": 2}");
    }

    #[test]
    fn the_oldest_are_dropped_but_not_the_one_that_is_needed() {
        let bench = Bench::new();
        for version in 1..20 {
            bench.push(version, b"{}", Some(2));
        }
        let expected: Vec<u64> = std::iter::once(2).chain(9..19).collect();
        assert_eq!(bench.versions(), expected);
        assert_eq!(expected.len(), DOCUMENTS_MAX + 1);
    }

    #[test]
    fn large_documents_are_dropped_by_their_bytes() {
        let bench = Bench::new();
        bench.push(1, b"{}", None);
        bench.push(2, b"{}", None);
        let large = fs::OpenOptions::new().append(true).open(bench.dir.path().join("documents/v1"));
        large.unwrap().set_len(DOCUMENTS_BYTES_MAX + 1).unwrap();
        bench.push(3, b"{}", None);
        assert_eq!(bench.versions(), [2], "what was kept last stays");
    }

    #[test]
    fn a_damaged_one_counts_as_not_kept() {
        let bench = Bench::new();
        bench.push(1, b"{\"a\": 1}", None);
        bench.push(2, b"{}", None);
        let path = bench.dir.path().join("documents/v1");
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(bench.history.load(1).unwrap(), None);
    }
}
