//! One agent per state directory.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use thiserror::Error;

/// Why the state directory is not ours.
#[derive(Debug, Error)]
pub enum LockError {
    /// Somebody else has it.
    #[error("agent-client {holder} is using {}", .directory.display())]
    Held {
        /// "(pid N)", as far as known.
        holder: String,
        /// The state directory.
        directory: PathBuf,
    },
    /// The file system said no.
    #[error("cannot lock {}: {source}", .path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The exclusive right to a state directory; given up when dropped, or when the process ends in any way.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes it, or fails at once.
    ///
    /// # Errors
    /// Held by another process, or I/O.
    pub fn take(directory: &Path) -> Result<Self, LockError> {
        let path = path(directory);
        let io = |source| LockError::Io { path: path.clone(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(io)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let holder = match read_pid(&mut file) {
                    Some(pid) => format!("(pid {pid})"),
                    None => "(another process)".into(),
                };
                return Err(LockError::Held { holder, directory: directory.to_owned() });
            }
            Err(error) => return Err(io(error.into())),
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(io)?;
        writeln!(file, "{}", std::process::id()).map_err(io)?;
        Ok(Self { _file: file })
    }
}

/// The process that holds the directory, if one does. Takes nothing.
pub fn holder(directory: &Path) -> Option<u32> {
    let mut file = File::open(path(directory)).ok()?;
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        // Nobody has it; the shared lock ends with `file`.
        Ok(()) => None,
        Err(_) => read_pid(&mut file),
    }
}

fn path(directory: &Path) -> PathBuf {
    directory.join("lock")
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_copy_is_refused_and_told_who_has_it() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(holder(dir.path()), None);
        let lock = Lock::take(dir.path()).unwrap();
        let pid = std::process::id();
        assert_eq!(holder(dir.path()), Some(pid));
        let refused = Lock::take(dir.path()).unwrap_err().to_string();
        assert_eq!(refused, format!("agent-client (pid {pid}) is using {}", dir.path().display()));
        drop(lock);
        assert_eq!(holder(dir.path()), None);
        Lock::take(dir.path()).unwrap();
    }
}
