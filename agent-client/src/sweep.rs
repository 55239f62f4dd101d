//! Removes what hooks have left of configs that are over: scripts, outputs, playbooks, logs.
//!
//! A config is over when its result is stored by the server and no document in force names it. The
//! directories may be shared with the Python agents and with people, so a file goes only if its name is
//! that of a config which our journal knows to be over, with one of the endings that hooks give to it.
//! Directories are not entered, links are removed and not followed, and a directory in which others may
//! write is left alone altogether.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};

use crate::hooks::built_in;

/// Names looked at per directory and pass.
pub const NAMES_MAX: usize = 100_000;
/// Files removed per pass.
pub const REMOVALS_MAX: usize = 1_000;

/// Directories of hooks: the variable that names it, and where it is by default for the system's agent.
const PLACES: [(&str, &str); 7] = [
    ("HEAT_ANSIBLE_WORKING", "/var/lib/heat-config/heat-config-ansible"),
    ("HEAT_ANSIBLE_OUTPUTS", "/var/run/heat-config/heat-config-ansible"),
    ("HEAT_PUPPET_WORKING", "/var/lib/heat-config/heat-config-puppet"),
    ("HEAT_PUPPET_OUTPUTS", "/var/run/heat-config/heat-config-puppet"),
    ("HEAT_PUPPET_LOGDIR", "/var/run/heat-config/deployed"),
    ("HEAT_SALT_WORKING", "/var/lib/heat-config/heat-config-salt"),
    ("HEAT_CONFIG_DEPLOYED", "/var/lib/heat-config/deployed"),
];

/// Endings that are not those of an output or a record (which begin with a dot).
const ENDINGS: [&str; 2] = ["_playbook.yaml", "_variables.json"];
/// Endings of logs, whose names begin with a time.
const LOG_ENDINGS: [&str; 2] = ["-stdout.log", "-stderr.log"];

/// Where hooks of other groups than `script` leave files.
pub fn directories(
    state_dir: &Path,
    of_system: bool,
    environment: impl Fn(&str) -> Option<String>,
) -> Vec<PathBuf> {
    let named = |variable: &str| environment(variable).filter(|path| !path.is_empty());
    let system = PLACES.into_iter().filter_map(|(variable, usual)| {
        named(variable).or_else(|| of_system.then(|| usual.to_owned())).map(PathBuf::from)
    });
    let own = built_in::places(state_dir, |variable| of_system || named(variable).is_some());
    system.chain(own.map(|(_, place)| place.into())).collect()
}

/// Which configs the journal knows, by the names of their files, and which of them are over.
#[derive(Debug, Default)]
pub struct Known(BTreeMap<String, bool>);

impl Known {
    /// Adds a config by the name of its files.
    pub fn add(&mut self, file_name: String, is_over: bool) {
        self.0.insert(file_name, is_over);
    }

    /// Whether there is anything to remove.
    pub fn is_any_over(&self) -> bool {
        self.0.values().any(|over| *over)
    }

    /// Whether a file of this name belongs to a config that is over. Where the name fits several configs
    /// ("a" and "a.b"), the longest is its owner.
    fn is_garbage(&self, name: &str) -> bool {
        let dots = name.match_indices('.').map(|(at, _)| &name[..at]);
        let endings = ENDINGS.iter().filter_map(|ending| name.strip_suffix(ending));
        let logs = LOG_ENDINGS.iter().filter_map(|ending| name.strip_suffix(ending));
        let logs = logs.flat_map(|stem| {
            let parts = stem.match_indices('-').map(|(at, _)| stem.split_at(at));
            let timed = parts.filter(|(time, _)| time.chars().all(is_of_time));
            timed.map(|(_, id)| &id[1..])
        });
        let owners = dots.chain(endings).chain(logs).chain([name]);
        let known = owners.filter_map(|owner| Some((owner.len(), *self.0.get(owner)?)));
        known.max().is_some_and(|(_, over)| over)
    }
}

fn is_of_time(c: char) -> bool {
    c.is_ascii_digit() || matches!(c, '-' | '.' | '+' | 'Z')
}

/// Removes the files of configs that are over. Returns whether there may be more of them.
pub fn sweep(directories: &[PathBuf], known: &Known) -> bool {
    let mut removed = 0;
    for directory in directories {
        match sweep_one(directory, known, REMOVALS_MAX - removed) {
            Ok(count) => removed += count,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let directory = directory.display();
                tracing::warn!(%directory, %error, "old files of hooks are not removed");
            }
        }
    }
    if removed > 0 {
        tracing::info!(files = removed, "files of configs that left the document removed");
    }
    removed >= REMOVALS_MAX
}

fn sweep_one(directory: &Path, known: &Known, removals_max: usize) -> io::Result<usize> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::open(directory, flags, Mode::empty())?;
    let metadata = rustix::fs::fstat(&directory)?;
    if metadata.st_uid != rustix::process::geteuid().as_raw() {
        return Err(io::Error::other("it belongs to another user"));
    }
    if metadata.st_mode & 0o022 != 0 {
        return Err(io::Error::other("others can write to it; try: chmod go-w"));
    }
    let mut removed = 0;
    for entry in Dir::read_from(&directory)?.take(NAMES_MAX) {
        if removed >= removals_max {
            break;
        }
        let entry = entry?;
        let name = entry.file_name();
        if !name.to_str().is_ok_and(|name| known.is_garbage(name)) {
            continue;
        }
        let metadata = rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(metadata.st_mode) != FileType::Directory {
            rustix::fs::unlinkat(&directory, name, AtFlags::empty())?;
            removed += 1;
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::slice;

    use super::*;

    const OVER: &str = "0c7b8a0e-over";
    const CURRENT: &str = "1d2e-current";

    fn known() -> Known {
        let mut known = Known::default();
        known.add(OVER.into(), true);
        known.add(CURRENT.into(), false);
        known
    }

    fn directory(names: &[String]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d");
        fs::create_dir(&path).unwrap();
        for name in names {
            fs::write(path.join(name), "x").unwrap();
        }
        (dir, path)
    }

    fn left(path: &Path) -> Vec<String> {
        let names = fs::read_dir(path).unwrap();
        let mut names: Vec<String> =
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn all_that_hooks_name_after_a_config_that_is_over_goes_and_nothing_else() {
        let of = |id: &str| {
            [
                id.to_owned(),
                format!("{id}.result"),
                format!("{id}.json"),
                format!("{id}.notify.json"),
                format!("{id}.stdout"),
                format!("{id}.pp"),
                format!("{id}_playbook.yaml"),
                format!("{id}_variables.json"),
                format!("2026-11-22-04-00-15Z-{id}-stdout.log"),
                format!("2026-11-22-04-00-15.123456-{id}-stderr.log"),
            ]
        };
        let foreign = [
            "notes.txt".to_owned(),
            format!("my-{OVER}"),
            format!("backup-{OVER}-stdout.log"),
            format!("{OVER}2"),
            format!("{OVER}_mine"),
            ".hidden".into(),
        ];
        let all =
            [of(OVER).to_vec(), of(CURRENT).to_vec(), of("unknown").to_vec(), foreign.to_vec()];
        let (_dir, path) = directory(&all.concat());
        assert!(!sweep(&[path.clone(), "/nonexistent".into()], &known()), "there is no more");
        let mut expected = all[1..].concat();
        expected.sort_unstable();
        assert_eq!(left(&path), expected);
    }

    #[test]
    fn a_config_whose_id_begins_like_that_of_another_keeps_its_files() {
        let mut known = Known::default();
        known.add("a".into(), true);
        known.add("a.b".into(), false);
        let (_dir, path) =
            directory(&["a".into(), "a.b".into(), "a.b.result".into(), "a.c".into()]);
        sweep(slice::from_ref(&path), &known);
        assert_eq!(left(&path), ["a.b", "a.b.result"]);
    }

    #[test]
    fn a_link_goes_and_what_it_points_to_stays_and_directories_stay() {
        let (dir, path) = directory(&[]);
        let target = dir.path().join("target");
        fs::write(&target, "keep").unwrap();
        std::os::unix::fs::symlink(&target, path.join(OVER)).unwrap();
        fs::create_dir(path.join(format!("{OVER}.d"))).unwrap();
        sweep(slice::from_ref(&path), &known());
        assert_eq!(left(&path), [format!("{OVER}.d")]);
        assert_eq!(fs::read_to_string(target).unwrap(), "keep");
    }

    #[test]
    fn a_directory_that_is_a_link_or_that_others_can_write_to_is_left_alone() {
        let (dir, path) = directory(&[OVER.into()]);
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        sweep(&[link], &known());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        sweep(slice::from_ref(&path), &known());
        assert_eq!(left(&path), [OVER]);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        sweep(slice::from_ref(&path), &known());
        assert!(left(&path).is_empty());
    }

    #[test]
    fn one_pass_removes_a_bounded_number_and_says_that_there_is_more() {
        let names: Vec<String> = (0..=REMOVALS_MAX).map(|n| format!("{OVER}.{n}")).collect();
        let (_dir, path) = directory(&names);
        assert!(sweep(slice::from_ref(&path), &known()));
        assert_eq!(left(&path).len(), 1);
        assert!(!sweep(slice::from_ref(&path), &known()));
        assert!(left(&path).is_empty());
    }

    #[test]
    fn the_places_are_those_of_the_hooks() {
        let variable = |name: &str| (name == "HEAT_SALT_WORKING").then(|| "/salt".to_owned());
        let own = directories(Path::new("/s"), false, variable);
        assert!(
            own.contains(&"/s/heat-config-ansible/work".into()) && own.contains(&"/salt".into())
        );
        let system = directories(Path::new("/s"), true, |_| None);
        assert!(system.contains(&"/var/lib/heat-config/heat-config-salt".into()));
    }
}
