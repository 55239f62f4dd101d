//! Programs: where they are, and how they are started.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use rustix::fs::{Access, access};

/// Another thread that forks while a program is written holds it open for a moment: `ETXTBSY`, tried again.
const BUSY_RETRIES_MAX: u32 = 50;
const BUSY_RETRY_MS: u64 = 2;

/// The first executable file of this name in the directories of `path`, which is a `PATH`.
pub(crate) fn on_path(name: impl AsRef<Path>, path: Option<&OsStr>) -> Option<PathBuf> {
    let is_program = |path: &Path| path.is_file() && access(path, Access::EXEC_OK).is_ok();
    let mut places = env::split_paths(path?).map(|directory| directory.join(&name));
    places.find(|path| is_program(path))
}

/// Starts a program that may have been written a moment ago: waits at most a tenth of a second for whoever
/// still has it open.
///
/// # Errors
/// Those of `spawn`.
pub(crate) fn start<C>(mut spawn: impl FnMut() -> io::Result<C>) -> io::Result<C> {
    for _ in 0..BUSY_RETRIES_MAX {
        match spawn() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {
                sleep(Duration::from_millis(BUSY_RETRY_MS));
            }
            ended => return ended,
        }
    }
    spawn()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_first_executable_file_on_path_is_it() {
        let place = tempfile::tempdir().unwrap();
        let directories =
            ["none", "plain", "directory", "good", "later"].map(|name| place.path().join(name));
        for (directory, mode) in directories.iter().zip([0, 0o644, 0, 0o755, 0o755]).skip(1) {
            fs::create_dir(directory).unwrap();
            let tool = directory.join("tool");
            if mode == 0 {
                fs::create_dir(tool).unwrap();
                continue;
            }
            fs::write(&tool, "").unwrap();
            fs::set_permissions(&tool, fs::Permissions::from_mode(mode)).unwrap();
        }
        let path = env::join_paths(&directories).unwrap();
        assert_eq!(on_path("tool", Some(&path)), Some(directories[3].join("tool")));
        assert_eq!(on_path("other", Some(&path)), None);
        assert_eq!(on_path("tool", None), None);
    }

    #[test]
    fn a_busy_program_is_tried_again_and_any_other_error_is_not() {
        let mut errors = vec![io::ErrorKind::NotFound, io::ErrorKind::ExecutableFileBusy];
        let ended = start(|| errors.pop().map_or(Ok(()), |kind| Err(kind.into())));
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::NotFound);
        let mut tries = 0;
        let always = start(|| {
            tries += 1;
            Err::<(), _>(io::ErrorKind::ExecutableFileBusy.into())
        });
        assert_eq!(always.unwrap_err().kind(), io::ErrorKind::ExecutableFileBusy);
        assert_eq!(tries, BUSY_RETRIES_MAX + 1);
    }
}
