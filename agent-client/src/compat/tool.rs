//! Programs that are called by name: the one on PATH, so that an image may have its own; else ours.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use crate::hooks::built_in::OWN_PROGRAM;

/// What to start for `name`, and with which arguments before any others.
#[must_use]
pub fn find(name: &str) -> (PathBuf, Vec<OsString>) {
    match on_path(name, env::var_os("PATH").as_deref()) {
        Some(path) => (path, Vec::new()),
        None => (OWN_PROGRAM.into(), vec![name.into()]),
    }
}

fn on_path(name: &str, path: Option<&std::ffi::OsStr>) -> Option<PathBuf> {
    let is_program = |path: &Path| path.is_file() && access(path, Access::EXEC_OK).is_ok();
    env::split_paths(path?).map(|directory| directory.join(name)).find(|path| is_program(path))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_first_executable_file_on_path_is_it() {
        let place = tempfile::tempdir().unwrap();
        let directories = ["none", "plain", "good", "later"].map(|name| place.path().join(name));
        for (directory, mode) in directories.iter().zip([0, 0o644, 0o755, 0o755]).skip(1) {
            fs::create_dir(directory).unwrap();
            fs::write(directory.join("tool"), "").unwrap();
            fs::set_permissions(directory.join("tool"), fs::Permissions::from_mode(mode)).unwrap();
        }
        let path = env::join_paths(&directories).unwrap();
        assert_eq!(on_path("tool", Some(&path)), Some(directories[2].join("tool")));
        assert_eq!(on_path("other", Some(&path)), None);
        assert_eq!(on_path("tool", None), None);
    }

    #[test]
    fn a_name_that_is_not_on_path_is_ours() {
        let name = "no-such-tool-anywhere";
        assert_eq!(find(name), (OWN_PROGRAM.into(), vec![name.into()]));
    }
}
