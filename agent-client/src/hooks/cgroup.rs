//! One control group (cgroup v2) per run, where the agent was given a group of its own to divide.
//!
//! A process cannot leave its control group by itself, however often it forks, starts sessions or loses
//! its parent; so writing to `cgroup.kill` ends everything that a run has started, at once. Without a
//! delegated group [`super::proc`] does what can be done by process groups, parents and names.
//!
//! Whose group may be divided: systemd marks what it delegated (`Delegate=yes`) by an extended attribute.
//! No controllers are enabled, so it does not matter that the agent's own process is in the same group.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Names of the groups of runs begin so.
const PREFIX: &str = "run-";
/// How systemd marks a delegated group; which of the two depends on its version and on ours being root.
const DELEGATE_MARKS: [&str; 2] = ["user.delegate", "trusted.delegate"];

/// Which control group to divide: the setting `cgroup`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Choice {
    /// The one that systemd has delegated to us, if it has.
    #[default]
    Auto,
    /// None.
    Never,
    /// This one, a directory of a cgroup v2 file system.
    At(PathBuf),
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Never => f.write_str("none"),
            Self::At(path) => path.display().fmt(f),
        }
    }
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "none" => Ok(Self::Never),
            path if path.starts_with('/') => Ok(Self::At(path.into())),
            _ => Err(format!(
                "is {text:?}, must be \"auto\", \"none\" or the path of a control group"
            )),
        }
    }
}

impl Choice {
    /// The group to divide, if there is one. One that was named and is of no use is said in the log.
    pub fn find(&self) -> Option<Parent> {
        match self {
            Self::Never => None,
            Self::At(path) => match Parent::at(path) {
                Ok(parent) => Some(parent),
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "no control group for runs there");
                    None
                }
            },
            Self::Auto => {
                let own = own_group(
                    &fs::read_to_string("/proc/self/cgroup").ok()?,
                    &fs::read_to_string("/proc/self/mountinfo").ok()?,
                )?;
                // With DelegateSubgroup= we are in a part of what was delegated.
                let delegated = own.ancestors().take(2).find(|path| is_delegated(path))?;
                Parent::at(delegated).ok()
            }
        }
    }
}

/// A control group in which groups for runs are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent(PathBuf);

impl Parent {
    /// # Errors
    /// Not a group of cgroup v2 in which we can make others that can be killed.
    fn at(path: &Path) -> io::Result<Self> {
        let parent = Self(path.to_owned());
        let probe = parent.group("probe");
        probe.make()?;
        let fits = probe.0.join("cgroup.kill").exists();
        probe.remove();
        if fits {
            Ok(parent)
        } else {
            Err(io::Error::other("not of cgroup v2, or its kernel is older than 5.14"))
        }
    }

    /// The group of the run of this name, made or not.
    pub fn group(&self, run_name: &str) -> Group {
        Group(self.0.join(format!("{PREFIX}{run_name}")))
    }

    /// Removes groups of runs in which nothing is left.
    pub fn remove_empty(&self) {
        for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX)) {
                Group(entry.path()).remove();
            }
        }
    }
}

/// The control group of one run.
#[derive(Debug)]
pub struct Group(PathBuf);

impl Group {
    /// Makes it, unless it is there.
    ///
    /// # Errors
    /// Those of the system.
    pub fn make(&self) -> io::Result<()> {
        match fs::create_dir(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    /// Takes a process in; what it starts from now on is born there.
    ///
    /// # Errors
    /// Those of the system.
    pub fn take(&self, pid: u32) -> io::Result<()> {
        fs::write(self.0.join("cgroup.procs"), pid.to_string())
    }

    /// Kills everything in it. Returns whether there was something.
    pub fn kill(&self) -> bool {
        let some = self.is_populated();
        if some && let Err(error) = fs::write(self.0.join("cgroup.kill"), "1") {
            tracing::warn!(group = %self.0.display(), %error, "a control group could not be killed");
        }
        some
    }

    /// Whether a live process is in it.
    pub fn is_populated(&self) -> bool {
        fs::read_to_string(self.0.join("cgroup.events"))
            .is_ok_and(|events| events.lines().any(|line| line == "populated 1"))
    }

    /// Removes it if nothing is in it; a group with processes cannot be removed.
    pub fn remove(&self) {
        let _ = fs::remove_dir(&self.0);
    }
}

fn is_delegated(path: &Path) -> bool {
    let mut value = [0; 8];
    DELEGATE_MARKS.iter().any(|mark| {
        rustix::fs::getxattr(path, *mark, &mut value[..]).is_ok_and(|n| value[..n] == *b"1")
    })
}

/// Where our own group of cgroup v2 is in the file system, by the texts of `/proc/self/cgroup` and
/// `/proc/self/mountinfo`.
fn own_group(cgroup: &str, mountinfo: &str) -> Option<PathBuf> {
    let own = cgroup.lines().find_map(|line| line.strip_prefix("0::"))?;
    mountinfo.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        if kind.split(' ').next() != Some("cgroup2") {
            return None;
        }
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let below = Path::new(own).strip_prefix(root).ok()?;
        Some(Path::new(point).join(below))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_group_is_found_in_each_kind_of_mount() {
        let of = |own: &str, mount: &str| own_group(own, mount).map(|p| p.display().to_string());
        let unified = "29 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        let service = "0::/system.slice/agent-client.service\n";
        assert_eq!(
            of(service, unified).as_deref(),
            Some("/sys/fs/cgroup/system.slice/agent-client.service")
        );
        let hybrid = "30 23 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        let with_v1 = "8:pids:/\n4:memory:/x\n0::/\n";
        assert_eq!(of(with_v1, hybrid).as_deref(), Some("/sys/fs/cgroup/unified/"));
        let part = "29 23 0:26 /system.slice /mnt rw shared:4 - cgroup2 cgroup2 rw\n";
        assert_eq!(of(service, part).as_deref(), Some("/mnt/agent-client.service"));
        assert_eq!(of("8:pids:/\n", unified), None, "version 1 only");
        assert_eq!(of(service, "1 2 0:3 / / rw - ext4 /dev/vda rw\n"), None);
    }

    #[test]
    fn the_setting_is_auto_none_or_a_path() {
        assert_eq!("auto".parse(), Ok(Choice::Auto));
        assert_eq!("none".parse(), Ok(Choice::Never));
        assert_eq!("/sys/fs/cgroup/x".parse(), Ok(Choice::At("/sys/fs/cgroup/x".into())));
        assert!("x".parse::<Choice>().unwrap_err().contains("must be \"auto\""));
    }

    #[test]
    fn a_directory_that_is_no_control_group_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Choice::At(dir.path().into()).find(), None);
        assert!(fs::read_dir(dir.path()).unwrap().next().is_none(), "and nothing is left in it");
        assert_eq!(Choice::Never.find(), None);
    }
}
