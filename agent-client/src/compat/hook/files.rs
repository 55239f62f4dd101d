//! Directories and files of hooks.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use certs::file::{ensure_private_directory, write_atomic};
use rustix::fs::{FlockOperation, flock};

use super::entry::bad;
use crate::hooks::NotRun;

/// Mode of directories that are made.
const DIRECTORY_MODE: u32 = 0o700;
const LOCK_MODE: u32 = 0o600;
/// Longest name of a file that is made from a name in metadata, leaving room for what is added to it.
const NAME_BYTES_MAX: usize = 200;

/// The directory that a variable names, else the usual one; absolute.
pub(super) fn place(variable: &str, usual: &str) -> PathBuf {
    let path = super::variable(variable).map_or_else(|| PathBuf::from(usual), PathBuf::from);
    std::path::absolute(&path).unwrap_or(path)
}

/// Makes a directory of our own, and makes sure that others cannot write there.
pub(super) fn make_private(path: &Path) -> Result<(), NotRun> {
    ensure_private_directory(path).map_err(|error| failed(&error))
}

/// Makes a directory (0700) unless it is there, whoever it belongs to.
pub(super) fn make(path: &Path) -> Result<(), NotRun> {
    if path.is_dir() || path.as_os_str().is_empty() {
        return Ok(());
    }
    let made = DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path);
    made.map_err(|e| NotRun::because(format!("could not make directory {}: {e}", path.display())))
}

/// Writes a file: all of it or nothing.
pub(super) fn write(path: &Path, content: impl AsRef<[u8]>, mode: u32) -> Result<(), NotRun> {
    write_atomic(path, content.as_ref(), mode).map_err(|error| failed(&error))
}

/// A name from metadata that becomes a part of a file's name.
pub(super) fn name<'n>(what: &str, name: &'n str) -> Result<&'n str, NotRun> {
    let fits = !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !name.contains(['/', '\0', '\n'])
        && name != "."
        && name != "..";
    if fits {
        Ok(name)
    } else {
        Err(bad(format!(
            "{what} {name:?} cannot be part of a file's name: it is empty, longer than {NAME_BYTES_MAX} bytes, or has \"/\" or a line feed"
        )))
    }
}

/// A relative path from metadata that stays below where it is put.
pub(super) fn relative<'n>(what: &str, path: &'n str) -> Result<&'n Path, NotRun> {
    let stays = |part: Component<'_>| matches!(part, Component::Normal(_));
    let fits = !path.is_empty() && !path.contains('\0') && Path::new(path).components().all(stays);
    if fits {
        Ok(Path::new(path))
    } else {
        Err(bad(format!("{what} {path:?} must be a path below its directory, without \"..\"")))
    }
}

/// The directory of a path; `.` for a bare name.
pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != OsStr::new("") => parent,
        _ => Path::new("."),
    }
}

fn failed(error: &dyn std::error::Error) -> NotRun {
    let why = error.source().map(|source| format!(": {source}")).unwrap_or_default();
    NotRun::because(format!("{error}{why}"))
}

/// Waits until nobody else tidies up by this list: who read an older one must not remove what is started
/// by a newer one. Let go when dropped.
pub(super) fn lock_beside(list: &Path) -> Result<File, NotRun> {
    let mut name = list.as_os_str().to_owned();
    name.push(".lock");
    let path = Path::new(&name);
    let lock = File::options().create(true).append(true).mode(LOCK_MODE).open(path);
    let locked = lock.and_then(|lock| {
        flock(&lock, FlockOperation::LockExclusive)?;
        Ok(lock)
    });
    locked.map_err(|e| io_failed("lock", path, &e))
}

/// What the system said about a path.
pub(super) fn io_failed(what: &str, path: &Path, error: &io::Error) -> NotRun {
    NotRun::because(format!("could not {what} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_metadata_do_not_lead_elsewhere() {
        for bad in ["", ".", "..", "a/b", "../x", "a\0b", &"x".repeat(201)] {
            assert!(name("name", bad).is_err(), "{bad:?}");
        }
        assert_eq!(name("name", "server-1 config.x").unwrap(), "server-1 config.x");
        for bad in ["", "/etc/passwd", "../x", "a/../../x", "./x", "a\0"] {
            assert!(relative("name", bad).is_err(), "{bad:?}");
        }
        assert_eq!(relative("name", "nodes/one").unwrap(), Path::new("nodes/one"));
    }
}
