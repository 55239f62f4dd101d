//! One agent per state directory.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use thiserror::Error;

use crate::hooks::proc::{is_zombie, start_ticks};

/// How long a lock is waited for whose holder has ended.
const GONE_MS_MAX: u64 = 5_000;
const GONE_POLL_MS: u64 = 10;

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
    /// Takes it, or fails at once if a live agent has it.
    ///
    /// The lock of an agent that was killed lives on for a moment in a child that it had begun to start, and
    /// `status` takes it for an instant to look: neither is an agent, so that is waited for.
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
        let until = Instant::now() + Duration::from_millis(GONE_MS_MAX);
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    let holder = file.rewind().ok().and_then(|()| read_pid(&mut file));
                    if holder.is_some_and(is_alive) || Instant::now() >= until {
                        let holder = holder.map_or_else(
                            || "(another process)".into(),
                            |pid| format!("(pid {pid})"),
                        );
                        return Err(LockError::Held { holder, directory: directory.to_owned() });
                    }
                    std::thread::sleep(Duration::from_millis(GONE_POLL_MS));
                }
                Err(error) => return Err(io(error.into())),
            }
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

fn is_alive(pid: u32) -> bool {
    start_ticks(pid).is_some() && !is_zombie(pid)
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
    fn the_lock_of_a_killed_agent_that_a_child_of_it_still_holds_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let mut gone = std::process::Command::new("/bin/true").spawn().unwrap();
        gone.wait().unwrap();
        std::fs::write(path(dir.path()), format!("{}\n", gone.id())).unwrap();
        let held = File::open(path(dir.path())).unwrap();
        flock(&held, FlockOperation::LockExclusive).unwrap();
        let mut heir =
            std::process::Command::new("/bin/sleep").arg("0.2").stdin(held).spawn().unwrap();
        Lock::take(dir.path()).unwrap();
        heir.wait().unwrap();
    }

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
