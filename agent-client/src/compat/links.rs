//! Links by which the programs are called: `agent-client install-links DIR`.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why links could not be made. Those before it in the order of names are there.
#[derive(Debug, Error)]
pub enum LinkError {
    /// Something else has the name.
    #[error("{} is there and no link to this program", path.display())]
    Taken {
        /// Where.
        path: PathBuf,
    },
    /// The system refused.
    #[error("could not make {}", path.display())]
    System {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Makes a link to `program` for each name in `directory`, which is made if it does not exist. A link
/// that leads to a program of the same name as ours is replaced, so an upgrade that moves the program
/// can run it again; anything else is replaced only with `force`.
///
/// # Errors
/// See [`LinkError`].
pub fn install(
    directory: &Path,
    program: &Path,
    names: impl Iterator<Item = &'static str>,
    force: bool,
) -> Result<Vec<PathBuf>, LinkError> {
    let system = |path: &Path| {
        let path = path.to_owned();
        move |source| LinkError::System { path, source }
    };
    fs::create_dir_all(directory).map_err(system(directory))?;
    let mut made = Vec::new();
    for name in names {
        let path = directory.join(name);
        if path.symlink_metadata().is_ok() {
            let is_ours =
                fs::read_link(&path).is_ok_and(|to| to.file_name() == program.file_name());
            if !is_ours && !force {
                return Err(LinkError::Taken { path });
            }
        }
        // Beside it first, so that there is no moment without the name.
        let beside = directory.join(format!(".{name}.{}", std::process::id()));
        symlink(program, &beside).map_err(system(&path))?;
        fs::rename(&beside, &path).map_err(|error| {
            // What is left would only be in the way.
            let _ = fs::remove_file(&beside);
            system(&path)(error)
        })?;
        made.push(path);
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 2] = ["a-tool", "b-tool"];

    #[test]
    fn every_name_becomes_a_link_and_an_upgrade_replaces_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let bin = directory.path().join("usr/bin");
        for program in ["/opt/1/agent-client", "/opt/2/agent-client"] {
            let made = install(&bin, Path::new(program), NAMES.into_iter(), false).unwrap();
            assert_eq!(made, NAMES.map(|name| bin.join(name)));
            for path in made {
                assert_eq!(fs::read_link(path).unwrap(), Path::new(program));
            }
        }
        assert_eq!(fs::read_dir(&bin).unwrap().count(), NAMES.len(), "nothing else is left");
    }

    #[test]
    fn a_program_of_somebody_else_is_left_alone_unless_forced() {
        let directory = tempfile::tempdir().unwrap();
        let theirs = directory.path().join("b-tool");
        fs::write(&theirs, "#!/usr/bin/python3\n").unwrap();
        let program = Path::new("/usr/bin/agent-client");
        let refused = install(directory.path(), program, NAMES.into_iter(), false).unwrap_err();
        assert!(refused.to_string().contains("b-tool is there"), "{refused}");
        assert!(fs::read_link(&theirs).is_err());
        install(directory.path(), program, NAMES.into_iter(), true).unwrap();
        assert_eq!(fs::read_link(&theirs).unwrap(), program);
    }
}
