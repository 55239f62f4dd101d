//! The directory of what was deployed: made, or moved from where it once was.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::Path;

use anyhow::{Context, Result};
use certs::file::PRIVATE_DIRECTORY_MODE;

use crate::compat::pylog::Log;

/// Makes the directory if it is not there: from the old one if there is one, else anew, private.
pub(super) fn make_ready(directory: &Path, old: &Path, log: &mut Log) -> Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    match make(directory, old, log) {
        // Another process was first.
        Err(_) if directory.is_dir() => Ok(()),
        made => made,
    }
}

fn make(directory: &Path, old: &Path, log: &mut Log) -> Result<()> {
    let parent = directory.parent().unwrap_or(directory);
    fs::create_dir_all(parent).with_context(|| format!("could not make {}", parent.display()))?;
    if directory != old && old.is_dir() {
        let (from, to) = (old.display(), directory.display());
        log.debug(format!("Migrating deployed state from {from} to {to}"));
        return move_directory(old, directory)
            .with_context(|| format!("could not move {from} to {to}"));
    }
    DirBuilder::new()
        .mode(PRIVATE_DIRECTORY_MODE)
        .create(directory)
        .with_context(|| format!("could not make {}", directory.display()))
}

/// /var/run is in memory as a rule: there is no renaming from there to a disk.
fn move_directory(old: &Path, new: &Path) -> io::Result<()> {
    match fs::rename(old, new) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => copy_and_remove(old, new),
        renamed => renamed,
    }
}

/// Nothing is seen under the new name before everything is there.
fn copy_and_remove(old: &Path, new: &Path) -> io::Result<()> {
    let parent = new.parent().unwrap_or(new);
    let beside = tempfile::Builder::new().prefix(".moving.").tempdir_in(parent)?;
    let copy = beside.path().join("copy");
    copy_directory(old, &copy)?;
    fs::rename(&copy, new)?;
    fs::File::open(parent)?.sync_all()?;
    fs::remove_dir_all(old)
}

fn copy_directory(from: &Path, to: &Path) -> io::Result<()> {
    DirBuilder::new().mode(PRIVATE_DIRECTORY_MODE).create(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy_directory(&entry.path(), &target)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(entry.path())?, &target)?;
        } else if kind.is_file() {
            // With its mode.
            fs::copy(entry.path(), &target)?;
            fs::File::open(&target)?.sync_all()?;
        }
    }
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    fs::File::open(to)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::compat::pylog::{Level, Style};

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn old_directory(place: &Path) -> std::path::PathBuf {
        let old = place.join("old");
        fs::create_dir_all(old.join("inner")).unwrap();
        fs::write(old.join("a.json"), "{}").unwrap();
        fs::write(old.join("inner/log"), "text").unwrap();
        symlink("a.json", old.join("link")).unwrap();
        fs::set_permissions(old.join("a.json"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(&old, fs::Permissions::from_mode(0o750)).unwrap();
        old
    }

    #[test]
    fn the_old_directory_becomes_the_new_one_once() {
        let place = tempfile::tempdir().unwrap();
        let (old, new) = (old_directory(place.path()), place.path().join("var/lib/deployed"));
        let mut log = Log::new(Style::Named("test"), Level::Critical);
        make_ready(&new, &old, &mut log).unwrap();
        assert!(!old.exists());
        assert_eq!(fs::read_to_string(new.join("a.json")).unwrap(), "{}");
        fs::create_dir(&old).unwrap();
        fs::write(old.join("b.json"), "{}").unwrap();
        make_ready(&new, &old, &mut log).unwrap();
        assert!(old.join("b.json").exists() && !new.join("b.json").exists());
    }

    #[test]
    fn a_directory_that_another_process_makes_meanwhile_is_fine() {
        let place = tempfile::tempdir().unwrap();
        let (old, new) = (place.path().join("old"), place.path().join("new"));
        let racers: Vec<_> = (0..8)
            .map(|_| {
                let (old, new) = (old.clone(), new.clone());
                std::thread::spawn(move || {
                    let mut log = Log::new(Style::Named("test"), Level::Critical);
                    make_ready(&new, &old, &mut log).unwrap();
                })
            })
            .collect();
        for racer in racers {
            racer.join().unwrap();
        }
        let mut log = Log::new(Style::Named("test"), Level::Critical);
        assert!(make(&new, &old, &mut log).is_err(), "what the slower ones met");
    }

    #[test]
    fn a_new_directory_is_private() {
        let place = tempfile::tempdir().unwrap();
        let new = place.path().join("a/b/deployed");
        let mut log = Log::new(Style::Named("test"), Level::Critical);
        make_ready(&new, &place.path().join("none"), &mut log).unwrap();
        assert_eq!(mode(&new), 0o700);
        let same = place.path().join("same");
        make_ready(&same, &same, &mut log).unwrap();
        assert!(same.is_dir());
    }

    #[test]
    fn from_another_file_system_all_is_copied_with_its_modes() {
        let place = tempfile::tempdir().unwrap();
        let (old, new) = (old_directory(place.path()), place.path().join("new"));
        copy_and_remove(&old, &new).unwrap();
        assert!(!old.exists());
        assert_eq!((mode(&new), mode(&new.join("a.json"))), (0o750, 0o600));
        assert_eq!(fs::read_to_string(new.join("inner/log")).unwrap(), "text");
        assert_eq!(fs::read_link(new.join("link")).unwrap(), Path::new("a.json"));
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1, "nothing else is left");
    }
}
