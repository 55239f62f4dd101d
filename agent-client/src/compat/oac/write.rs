//! Writing the files: all of them, or none.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::{Builder, TempPath};

use super::templates::Rendered;

/// Mode of a new file, whatever the umask says.
const NEW_FILE_MODE: u32 = 0o644;

/// What happens to one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It is written.
    Write,
    /// It is empty and must not be: it is removed.
    Delete,
    /// The same, and it does not exist.
    LeaveOut,
}

/// What happens to a file, given what is there now.
#[must_use]
pub fn action(file: &Rendered, target: &Path) -> Action {
    match (file.control.allow_empty || !file.body.is_empty(), target.exists()) {
        (true, _) => Action::Write,
        (false, true) => Action::Delete,
        (false, false) => Action::LeaveOut,
    }
}

/// A file that is ready to take its place.
struct Staged {
    target: PathBuf,
    /// What takes the place; nothing for a file to be removed.
    new: Option<TempPath>,
}

/// A step that was taken.
struct Done {
    target: PathBuf,
    /// What was there before.
    old: Option<TempPath>,
}

/// Writes all files below `output`. If one cannot be written everything is left, or put back, as it was.
///
/// # Errors
/// The first file that cannot be written.
pub fn write_all(files: &[Rendered], output: &Path, log: &mut dyn FnMut(String)) -> Result<()> {
    let mut made = Vec::new();
    let written = stage(files, output, &mut made, log).and_then(|staged| {
        let directories: BTreeSet<PathBuf> = staged.iter().map(|s| parent(&s.target)).collect();
        commit(staged)?;
        for directory in directories {
            // The renames are done; that they survive a power cut is a bonus some file systems refuse.
            let _ = File::open(directory).and_then(|directory| directory.sync_all());
        }
        Ok(())
    });
    if written.is_err() {
        for directory in made.iter().rev() {
            let _ = fs::remove_dir(directory);
        }
    }
    written
}

fn stage(
    files: &[Rendered],
    output: &Path,
    made: &mut Vec<PathBuf>,
    log: &mut dyn FnMut(String),
) -> Result<Vec<Staged>> {
    let mut staged = Vec::with_capacity(files.len());
    for file in files {
        let target = output.join(&file.path);
        let shown = target.display();
        let new = match action(file, &target) {
            Action::LeaveOut => {
                log(format!("not creating empty {shown}"));
                continue;
            }
            Action::Delete => {
                log(format!("deleting {shown}"));
                None
            }
            Action::Write => {
                log(format!("writing {shown}"));
                make_directories(&parent(&target), made)?;
                let new = prepare(file, &target);
                Some(new.with_context(|| format!("could not prepare {shown}"))?)
            }
        };
        staged.push(Staged { target, new });
    }
    Ok(staged)
}

/// Puts the content beside the target, with mode and owner.
fn prepare(file: &Rendered, target: &Path) -> io::Result<TempPath> {
    let before = fs::metadata(target).ok();
    let mut new = Builder::new().prefix(".os-apply-config.").tempfile_in(parent(target))?;
    new.write_all(&file.body)?;
    let owner = file.control.owner.or_else(|| before.as_ref().map(MetadataExt::uid));
    let group = file.control.group.or_else(|| before.as_ref().map(MetadataExt::gid));
    if owner.is_some() || group.is_some() {
        chown(new.path(), owner, group)?;
    }
    // After the owner, since a change of owner takes bits away.
    let bits = before.map_or(NEW_FILE_MODE, |before| before.mode() & 0o7777);
    let mode = Permissions::from_mode(file.control.mode.unwrap_or(bits));
    new.as_file().set_permissions(mode)?;
    new.as_file().sync_data()?;
    Ok(new.into_temp_path())
}

fn commit(staged: Vec<Staged>) -> Result<()> {
    let mut done: Vec<Done> = Vec::with_capacity(staged.len());
    for Staged { target, new } in staged {
        let step = keep_old(&target).and_then(|old| {
            match new {
                Some(new) => new.persist(&target).map_err(|failed| failed.error)?,
                None => fs::remove_file(&target)?,
            }
            Ok(old)
        });
        match step {
            Ok(old) => done.push(Done { target, old }),
            Err(error) => {
                let mut error = anyhow::Error::from(error)
                    .context(format!("could not write {}", target.display()));
                for Done { target, old } in done.into_iter().rev() {
                    let undone = match old {
                        Some(old) => old.persist(&target).map_err(|failed| failed.error),
                        None => fs::remove_file(&target),
                    };
                    if let Err(why) = undone {
                        error =
                            error.context(format!("could not undo {} ({why})", target.display()));
                    }
                }
                return Err(error);
            }
        }
    }
    Ok(())
}

/// A second name for what is there, to put it back; links are kept as links.
fn keep_old(target: &Path) -> io::Result<Option<TempPath>> {
    if target.symlink_metadata().is_err() {
        return Ok(None);
    }
    let mut names = Builder::new();
    let names = names.prefix(".os-apply-config.");
    let kept = names.make_in(parent(target), |name| fs::hard_link(target, name));
    // Some file systems have one name for each file.
    let kept =
        kept.or_else(|_| names.make_in(parent(target), |name| fs::copy(target, name).map(drop)));
    kept.map(|kept| Some(kept.into_temp_path()))
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => ".".into(),
    }
}

fn make_directories(directory: &Path, made: &mut Vec<PathBuf>) -> Result<()> {
    let missing: Vec<&Path> = directory.ancestors().take_while(|path| !path.exists()).collect();
    for path in missing.into_iter().rev().filter(|path| !path.as_os_str().is_empty()) {
        fs::create_dir(path).with_context(|| format!("could not make {}", path.display()))?;
        made.push(path.to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::compat::oac::control::Control;

    fn file(path: &str, body: &str) -> Rendered {
        Rendered { path: path.into(), body: body.into(), control: Control::default() }
    }

    fn write(files: &[Rendered], output: &Path) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        write_all(files, output, &mut |line| lines.push(line))?;
        Ok(lines)
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    /// Every path below a directory with its content.
    fn tree(directory: &Path) -> Vec<(PathBuf, String)> {
        let mut all = Vec::new();
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                all.push((path.clone(), "directory".into()));
                all.extend(tree(&path));
            } else {
                all.push((path.clone(), fs::read_to_string(&path).unwrap()));
            }
        }
        all.sort();
        all
    }

    #[test]
    fn modes_come_from_control_file_then_from_the_old_file_then_0644() {
        let directory = tempfile::tempdir().unwrap();
        let output = directory.path();
        let mut controlled = file("deep/er/c", "c");
        controlled.control.mode = Some(0o640);
        fs::write(output.join("old"), "before").unwrap();
        fs::set_permissions(output.join("old"), Permissions::from_mode(0o4750)).unwrap();
        write(&[controlled, file("old", "after"), file("new", "n")], output).unwrap();
        assert_eq!(mode(&output.join("deep/er/c")), 0o640);
        assert_eq!(mode(&output.join("old")), 0o4750);
        assert_eq!(mode(&output.join("new")), 0o644);
        assert_eq!(fs::read_to_string(output.join("old")).unwrap(), "after");
        assert_eq!(tree(output).len(), 5, "nothing is left behind: {:?}", tree(output));
    }

    #[test]
    fn a_link_is_replaced_and_its_target_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let output = directory.path();
        fs::write(output.join("target"), "keep").unwrap();
        symlink("target", output.join("link")).unwrap();
        write(&[file("link", "new")], output).unwrap();
        assert!(output.join("link").symlink_metadata().unwrap().is_file());
        assert_eq!(fs::read_to_string(output.join("target")).unwrap(), "keep");
    }

    #[test]
    fn an_empty_file_that_must_not_be_is_removed_or_not_made() {
        let directory = tempfile::tempdir().unwrap();
        let output = directory.path();
        fs::write(output.join("there"), "old").unwrap();
        let mut files = [file("there", ""), file("none/at/all", ""), file("allowed", "")];
        files[0].control.allow_empty = false;
        files[1].control.allow_empty = false;
        let lines = write(&files, output).unwrap();
        assert_eq!(tree(output), [(output.join("allowed"), String::new())]);
        assert!(lines[0].starts_with("deleting ") && lines[1].starts_with("not creating empty "));
    }

    #[test]
    fn if_one_file_cannot_be_written_all_are_as_before() {
        let directory = tempfile::tempdir().unwrap();
        let output = directory.path();
        fs::write(output.join("a"), "old a").unwrap();
        fs::write(output.join("b"), "old b").unwrap();
        symlink("a", output.join("c")).unwrap();
        // In the place of a file there is a directory with something in it.
        fs::create_dir_all(output.join("z/inside")).unwrap();
        let before = tree(output);
        let mut gone = file("b", "");
        gone.control.allow_empty = false;
        let files =
            [file("a", "new a"), gone, file("c", "new c"), file("d/e/f", "new"), file("z", "!")];
        let error = write(&files, output).unwrap_err();
        assert!(format!("{error:#}").contains("/z"), "{error:#}");
        assert_eq!(tree(output), before);
        assert!(output.join("c").symlink_metadata().unwrap().is_symlink());
    }
}
