//! The newest document, on disk.
//!
//! One file, replaced atomically: a line of JSON with version, digest and length, then the document byte
//! for byte. A file that does not hold what its first line promises is set aside, and the server sends
//! the document again.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use certs::file::{FileError, PRIVATE_FILE_MODE, read_private, write_atomic};
use metadata_delivery::message::{Hex32, Holds};
use serde::{Deserialize, Serialize};

/// Largest file read back: the largest document that is delivered, and its first line.
const FILE_BYTES_MAX: u64 = metadata_delivery::DOCUMENT_BYTES_MAX as u64 + FIRST_LINE_BYTES_MAX;
const FIRST_LINE_BYTES_MAX: u64 = 4096;

/// A document as it was delivered.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredDocument {
    /// Its version.
    pub version: u64,
    /// SHA-256 of its bytes.
    pub sha256: Hex32,
    /// When it came, in milliseconds since 1970.
    pub received_unix_ms: u64,
    /// Its bytes.
    pub body: Bytes,
}

impl StoredDocument {
    /// A document that has just come.
    pub fn new(version: u64, body: Bytes, received_unix_ms: u64) -> Self {
        Self { version, sha256: Hex32::sha256_of(&body), received_unix_ms, body }
    }

    /// What to tell the server about it.
    pub fn holds(&self) -> Holds {
        Holds { version: self.version, sha256: self.sha256 }
    }
}

/// Documents hold passwords: only the outline is shown.
impl std::fmt::Debug for StoredDocument {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "document v{} ({} bytes)", self.version, self.body.len())
    }
}

#[derive(Serialize, Deserialize)]
struct FirstLine {
    schema: u32,
    version: u64,
    sha256: Hex32,
    bytes: u64,
    received_unix_ms: u64,
}

const SCHEMA: u32 = 1;

/// Where the newest document is kept.
#[derive(Debug)]
pub struct DocumentStore {
    path: PathBuf,
}

impl DocumentStore {
    /// A store in the file `path`.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The stored document, if there is one. A damaged file is renamed to `….damaged` and counts as none.
    ///
    /// # Errors
    /// The file cannot be read, or others have access to it.
    pub fn load(&self) -> Result<Option<StoredDocument>, FileError> {
        let document = read_stored(&self.path)?;
        if document.is_none() && self.path.exists() {
            let aside = aside(&self.path);
            tracing::error!(
                file = %self.path.display(),
                aside = %aside.display(),
                "the stored document is damaged: set aside, the server will send it again"
            );
            std::fs::rename(&self.path, &aside).map_err(|source| FileError::Io {
                action: "set aside",
                path: self.path.clone(),
                source,
            })?;
        }
        Ok(document)
    }

    /// The stored document for another process than the agent: as [`Self::load`], but a damaged file is left
    /// where it is.
    ///
    /// # Errors
    /// The file cannot be read, or others have access to it.
    pub fn peek(&self) -> Result<Option<StoredDocument>, FileError> {
        match read_private(&self.path, FILE_BYTES_MAX) {
            Ok(bytes) => Ok(read(&bytes)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes this the stored document; durable when it returns.
    ///
    /// # Errors
    /// The file cannot be written; the old one stays.
    pub fn save(&self, document: &StoredDocument) -> Result<(), FileError> {
        let first = FirstLine {
            schema: SCHEMA,
            version: document.version,
            sha256: document.sha256,
            bytes: document.body.len() as u64,
            received_unix_ms: document.received_unix_ms,
        };
        let mut bytes = Vec::with_capacity(document.body.len() + 256);
        serde_json::to_writer(&mut bytes, &first).map_err(|e| FileError::Io {
            action: "write",
            path: self.path.clone(),
            source: e.into(),
        })?;
        bytes.push(b'\n');
        bytes.extend_from_slice(&document.body);
        write_atomic(&self.path, &bytes, PRIVATE_FILE_MODE)
    }
}

/// The document in a file; `None` if there is none, or it is damaged.
///
/// # Errors
/// The file cannot be read, or others have access to it.
pub fn read_stored(path: &Path) -> Result<Option<StoredDocument>, FileError> {
    match read_private(path, FILE_BYTES_MAX) {
        Ok(bytes) => Ok(read(&bytes)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// As [`read_stored`], without the body, which is not checked.
///
/// # Errors
/// The file cannot be read.
pub fn read_outline(path: &Path) -> io::Result<Option<StoredDocument>> {
    let mut line = Vec::new();
    BufReader::new(File::open(path)?).take(FIRST_LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
    Ok(serde_json::from_slice(&line).ok().map(|first: FirstLine| StoredDocument {
        version: first.version,
        sha256: first.sha256,
        received_unix_ms: first.received_unix_ms,
        body: Bytes::new(),
    }))
}

fn read(bytes: &[u8]) -> Option<StoredDocument> {
    let end = bytes.iter().position(|&b| b == b'\n')?;
    let first: FirstLine = serde_json::from_slice(&bytes[..end]).ok()?;
    let body = &bytes[end + 1..];
    let whole = first.schema == SCHEMA
        && first.bytes == body.len() as u64
        && first.sha256 == Hex32::sha256_of(body);
    whole.then(|| StoredDocument {
        version: first.version,
        sha256: first.sha256,
        received_unix_ms: first.received_unix_ms,
        body: Bytes::copy_from_slice(body),
    })
}

fn aside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".damaged");
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_saved_document_is_loaded_byte_for_byte_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let store = DocumentStore::new(dir.path().join("document"));
        assert_eq!(store.load().unwrap(), None);
        for (version, body) in [(3, &b"{\n \"deployments\": []}\n"[..]), (9, b"{}")] {
            let document = StoredDocument::new(version, Bytes::from_static(body), 5);
            store.save(&document).unwrap();
            assert_eq!(store.peek().unwrap().as_ref(), Some(&document));
            assert_eq!(store.load().unwrap(), Some(document));
        }
        let mode = std::fs::metadata(dir.path().join("document")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_document_damaged_at_any_byte_counts_as_none_and_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("document");
        let store = DocumentStore::new(path.clone());
        store.save(&StoredDocument::new(3, Bytes::from_static(b"{\"a\":1}"), 5)).unwrap();
        let good = std::fs::read(&path).unwrap();
        let body_at = good.len() - 7;
        for at in [0, 12, body_at - 1, body_at, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&path, &bad).unwrap();
            assert_eq!(store.peek().unwrap(), None, "byte {at}");
            assert_eq!(store.load().unwrap(), None, "byte {at}");
            assert_eq!(std::fs::read(dir.path().join("document.damaged")).unwrap(), bad);
            std::fs::write(&path, &good).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        std::fs::write(&path, &good[..body_at + 3]).unwrap();
        assert_eq!(store.load().unwrap(), None, "truncated");
    }
}
