//! Private files: written whole or not at all, read only when nobody else could have.
//!
//! A write goes to a new file beside the target (created exclusively, so a planted symbolic link
//! is never followed), is synced, renamed over the target (which replaces a link instead of
//! writing through it), and made durable by syncing the directory. A process killed on the way
//! leaves the old content in force and at most one stray `.NAME.….tmp`.
//!
//! A read checks what it has *opened*, not what a path named a moment earlier.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use zeroize::Zeroizing;

/// Mode of files that hold secrets or state.
pub const PRIVATE_FILE_MODE: u32 = 0o600;

/// Mode of directories that hold such files.
pub const PRIVATE_DIRECTORY_MODE: u32 = 0o700;

/// Largest private file that [`read_private`]'s callers in this crate read: keys and tokens.
pub const PRIVATE_FILE_BYTES_MAX: u64 = 64 * 1024;

/// Bytes of a file's name that the temporary file beside it repeats.
const TEMPORARY_NAME_BYTES_MAX: usize = 64;

/// What went wrong with a file, and which one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The system refused; the reason is the error's source.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, a verb.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A directory, device, socket or pipe where a file should be.
    #[error("{} is not a regular file", .0.display())]
    NotRegular(PathBuf),
    /// Something else where a directory should be.
    #[error("{} is not a directory", .0.display())]
    NotDirectory(PathBuf),
    /// Group or others have a right to it.
    #[error(
        "{path} has mode {mode:04o}, so others than its owner have access; run: chmod {fix} {path}",
        path = path.display()
    )]
    TooOpen {
        /// The file or directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// What to give to chmod.
        fix: &'static str,
    },
    /// Owned by a user who is neither this process's nor root.
    #[error(
        "{path} belongs to user {owner}, expected {us} (this process) or 0 (root); run: chown {us} {path}",
        path = path.display()
    )]
    WrongOwner {
        /// The file or directory.
        path: PathBuf,
        /// Its owner's user id.
        owner: u32,
        /// This process's effective user id.
        us: u32,
    },
    /// Larger than the reader takes.
    #[error("{} is larger than the {bytes_max} bytes that are read", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit, in bytes.
        bytes_max: u64,
    },
}

impl FileError {
    /// Whether the file just is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    move |source| FileError::Io { action, path: path.to_owned(), source }
}

/// Replaces `path` by a file with these bytes and this mode: all of it or nothing, and durable
/// when this returns.
///
/// # Errors
///
/// [`FileError::Io`]; the old file, if any, is then unchanged.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let temporary = write_temporary(path, bytes, mode)?;
    temporary.persist(path).map_err(|error| io_error("replace", path)(error.error))?;
    sync_directory(path)
}

/// As [`write_atomic`], but never replaces: `false` if there is such a file already.
///
/// # Errors
///
/// [`FileError::Io`].
pub fn create_atomic(path: &Path, bytes: &[u8], mode: u32) -> Result<bool, FileError> {
    let temporary = write_temporary(path, bytes, mode)?;
    match temporary.persist_noclobber(path) {
        Ok(_) => sync_directory(path).map(|()| true),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(io_error("create", path)(error.error)),
    }
}

/// A synced file with the content, beside `path`; removed again when dropped.
fn write_temporary(
    path: &Path,
    bytes: &[u8],
    mode: u32,
) -> Result<tempfile::NamedTempFile, FileError> {
    // Enough of the name to know it by; all of a long one would leave no room for the suffix.
    let name = path.file_name().unwrap_or_default().as_bytes();
    let mut prefix = OsStr::new(".").to_owned();
    prefix.push(OsStr::from_bytes(&name[..name.len().min(TEMPORARY_NAME_BYTES_MAX)]));
    prefix.push(".");
    let permissions = Permissions::from_mode(mode);
    let mut temporary = tempfile::Builder::new()
        .prefix(&prefix)
        .suffix(".tmp")
        .permissions(Permissions::from_mode(PRIVATE_FILE_MODE))
        .tempfile_in(directory_of(path))
        .map_err(io_error("create a file beside", path))?;
    // Set on the open file, since the mode given at creation is cut by the umask.
    temporary
        .as_file()
        .set_permissions(permissions)
        .and_then(|()| temporary.write_all(bytes))
        .and_then(|()| temporary.as_file().sync_all())
        .map_err(io_error("write", path))?;
    Ok(temporary)
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes a rename or a creation in the directory of `path` durable.
fn sync_directory(path: &Path) -> Result<(), FileError> {
    let directory = directory_of(path);
    File::open(directory)
        .and_then(|opened| opened.sync_all())
        .map_err(io_error("sync directory", directory))
}

/// Checks that a file is a regular one that only its owner can read or write, and that the owner
/// is this process's user or root. A symbolic link is followed, its target is what counts.
///
/// # Errors
///
/// [`FileError`] names the mode or owner found and the command that repairs it.
pub fn check_private(path: &Path) -> Result<(), FileError> {
    open_private(path).map(|_| ())
}

/// Reads a whole file after the checks of [`check_private`], made on the opened file.
///
/// # Errors
///
/// As [`check_private`], and [`FileError::TooLarge`] above `bytes_max`.
pub fn read_private(path: &Path, bytes_max: u64) -> Result<Zeroizing<Vec<u8>>, FileError> {
    read_bounded(&open_private(path)?, path, bytes_max)
}

/// Reads a whole file that need not be private, a certificate for one.
///
/// # Errors
///
/// [`FileError::Io`], [`FileError::NotRegular`], and [`FileError::TooLarge`] above `bytes_max`.
pub fn read_public(path: &Path, bytes_max: u64) -> Result<Vec<u8>, FileError> {
    let (file, _) = open_regular(path)?;
    read_bounded(&file, path, bytes_max).map(|mut bytes| std::mem::take(&mut *bytes))
}

fn open_private(path: &Path) -> Result<File, FileError> {
    let (file, metadata) = open_regular(path)?;
    check_owner(path, &metadata)?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(FileError::TooOpen { path: path.to_owned(), mode, fix: "600" });
    }
    Ok(file)
}

fn open_regular(path: &Path) -> Result<(File, Metadata), FileError> {
    // Without NONBLOCK, opening a pipe that was put in the file's place would hang.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.cast_signed())
        .open(path)
        .map_err(io_error("open", path))?;
    let metadata = file.metadata().map_err(io_error("examine", path))?;
    if !metadata.is_file() {
        return Err(FileError::NotRegular(path.to_owned()));
    }
    Ok((file, metadata))
}

fn read_bounded(file: &File, path: &Path, bytes_max: u64) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let mut bytes = Zeroizing::new(Vec::new());
    let too_large = || FileError::TooLarge { path: path.to_owned(), bytes_max };
    let size = file.metadata().map_err(io_error("examine", path))?.len();
    if size > bytes_max {
        return Err(too_large());
    }
    // Enough from the start: a growing vector would leave copies of a secret behind.
    bytes.reserve_exact(size as usize + 1);
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(io_error("read", path))?;
    if bytes.len() as u64 > bytes_max {
        return Err(too_large());
    }
    Ok(bytes)
}

fn check_owner(path: &Path, metadata: &Metadata) -> Result<(), FileError> {
    let us = rustix::process::geteuid().as_raw();
    match metadata.uid() {
        owner if owner == us || owner == 0 => Ok(()),
        owner => Err(FileError::WrongOwner { path: path.to_owned(), owner, us }),
    }
}

/// Makes the directory (0700) and those above it if missing, and checks that nobody but its owner,
/// this process's user or root, can put files into it.
///
/// # Errors
///
/// [`FileError`] names the mode or owner found and the command that repairs it.
pub fn ensure_private_directory(path: &Path) -> Result<(), FileError> {
    DirBuilder::new()
        .recursive(true)
        .mode(PRIVATE_DIRECTORY_MODE)
        .create(path)
        .map_err(io_error("create directory", path))?;
    let metadata = std::fs::metadata(path).map_err(io_error("examine", path))?;
    if !metadata.is_dir() {
        return Err(FileError::NotDirectory(path.to_owned()));
    }
    check_owner(path, &metadata)?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o022 != 0 {
        return Err(FileError::TooOpen { path: path.to_owned(), mode, fix: "go-w" });
    }
    sync_directory(path)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn mode_of(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_written_file_has_the_bytes_the_mode_and_no_leftovers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        for (bytes, mode) in [(&b"one"[..], 0o600), (b"", 0o600), (b"public", 0o644)] {
            write_atomic(&path, bytes, mode).unwrap();
            assert_eq!(fs::read(&path).unwrap(), bytes);
            assert_eq!(mode_of(&path), mode);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_symbolic_link_is_replaced_and_its_target_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (victim, path) = (dir.path().join("victim"), dir.path().join("state"));
        fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, &path).unwrap();
        write_atomic(&path, b"new", 0o600).unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_names_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("taken");
        fs::create_dir(&target).unwrap();
        fs::write(target.join("inside"), "kept").unwrap();
        let error = write_atomic(&target, b"new", 0o600).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot replace {}", target.display()));
        assert_eq!(fs::read(target.join("inside")).unwrap(), b"kept");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);

        let nowhere = dir.path().join("missing/state");
        let error = write_atomic(&nowhere, b"new", 0o600).unwrap_err();
        assert!(error.is_not_found() && error.to_string().contains("missing/state"), "{error}");
    }

    #[test]
    fn the_longest_name_a_file_system_takes_can_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x".repeat(255));
        write_atomic(&path, b"one", 0o600).unwrap();
        write_atomic(&path, b"two", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
    }

    #[test]
    fn creating_never_replaces() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity");
        assert!(create_atomic(&path, b"first", 0o600).unwrap());
        assert!(!create_atomic(&path, b"second", 0o600).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_others_can_touch_is_refused_with_its_mode_and_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        write_atomic(&path, b"secret", 0o600).unwrap();
        for mode in [0o600, 0o400, 0o700] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            check_private(&path).unwrap();
            assert_eq!(*read_private(&path, 100).unwrap(), b"secret");
        }
        for mode in [0o640, 0o604, 0o620, 0o602, 0o610, 0o644, 0o666, 0o777] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            for error in [check_private(&path).unwrap_err(), read_private(&path, 100).unwrap_err()]
            {
                let expected = format!(
                    "{path} has mode {mode:04o}, so others than its owner have access; \
                     run: chmod 600 {path}",
                    path = path.display()
                );
                assert_eq!(error.to_string(), expected);
            }
        }
    }

    #[test]
    fn through_a_link_the_target_is_what_is_checked() {
        let dir = tempfile::tempdir().unwrap();
        let (target, link) = (dir.path().join("..data"), dir.path().join("key"));
        write_atomic(&target, b"secret", 0o600).unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        check_private(&link).unwrap();
        fs::set_permissions(&target, Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(check_private(&link), Err(FileError::TooOpen { mode: 0o644, .. })));
    }

    #[test]
    fn what_is_no_regular_file_is_refused_without_hanging() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(check_private(dir.path()), Err(FileError::NotRegular(_))));
        let pipe = dir.path().join("pipe");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert!(matches!(read_private(&pipe, 100), Err(FileError::NotRegular(_))));
        assert!(matches!(read_public(Path::new("/dev/null"), 100), Err(FileError::NotRegular(_))));
    }

    #[test]
    fn a_file_of_another_user_is_refused() {
        // Only root can give files away; elsewhere there is nothing to test with.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        write_atomic(&path, b"secret", 0o600).unwrap();
        if std::os::unix::fs::chown(&path, Some(12_345), None).is_ok() {
            let error = check_private(&path).unwrap_err().to_string();
            assert!(error.contains("belongs to user 12345"), "{error}");
        }
    }

    #[test]
    fn reading_stops_at_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        write_atomic(&path, &[7; 100], 0o600).unwrap();
        assert_eq!(read_private(&path, 100).unwrap().len(), 100);
        assert!(matches!(read_private(&path, 99), Err(FileError::TooLarge { bytes_max: 99, .. })));
        assert!(read_private(&dir.path().join("none"), 9).unwrap_err().is_not_found());
    }

    #[test]
    fn a_state_directory_is_made_private_and_refused_when_others_can_write_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("a/b");
        ensure_private_directory(&state).unwrap();
        assert_eq!(mode_of(&state), 0o700);
        fs::set_permissions(&state, Permissions::from_mode(0o755)).unwrap();
        ensure_private_directory(&state).unwrap();
        fs::set_permissions(&state, Permissions::from_mode(0o777)).unwrap();
        let error = ensure_private_directory(&state).unwrap_err().to_string();
        assert!(error.contains("mode 0777") && error.contains("chmod go-w"), "{error}");

        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(ensure_private_directory(&file).is_err());
    }
}
