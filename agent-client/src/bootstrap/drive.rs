//! The config drive: a small disk that the cloud attaches, known by its label.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::machine::System;
use crate::machine::run::Call;

/// What it is called; a FAT file system may have it in capitals.
const LABELS: [&str; 2] = ["config-2", "CONFIG-2"];

/// Does something with the config drive's files, mounted read-only for that time unless it is mounted
/// anyway. `None` if there is no config drive.
///
/// # Errors
/// It cannot be mounted.
pub(super) fn with_mounted<T>(system: &System, read: impl FnOnce(&Path) -> T) -> Result<Option<T>> {
    let Some(device) = device(system) else { return Ok(None) };
    let mounts = std::fs::read_to_string(system.at("/proc/mounts")).unwrap_or_default();
    if let Some(place) = mounted_at(&mounts, &device) {
        return Ok(Some(read(&place)));
    }
    let place =
        tempfile::Builder::new().prefix("config-2.").tempdir().context("making a mount point")?;
    let options = "ro,nosuid,nodev,noexec";
    let mount = Call::new([
        "mount".as_ref(),
        "-o".as_ref(),
        options.as_ref(),
        device.as_os_str(),
        place.path().as_os_str(),
    ]);
    must(system, &mount)?;
    let result = read(place.path());
    let umount = Call::new(["umount".as_ref(), place.path().as_os_str()]);
    if let Err(error) = must(system, &umount) {
        // What is still mounted must not be deleted with the mount point.
        tracing::warn!(place = %place.keep().display(), "the config drive stays mounted: {error:#}");
    }
    Ok(Some(result))
}

fn must(system: &System, call: &Call) -> Result<()> {
    let ran = call.run(system).with_context(|| format!("{call} could not be started"))?;
    if ran.is_success() { Ok(()) } else { bail!("{call}: {}", ran.why()) }
}

/// Its device, as udev or else blkid knows it.
fn device(system: &System) -> Option<PathBuf> {
    let by_label = |label: &&str| system.at(&format!("/dev/disk/by-label/{label}"));
    if let Some(device) = LABELS.iter().map(by_label).find_map(|path| path.canonicalize().ok()) {
        return Some(device);
    }
    LABELS.iter().find_map(|label| {
        let label = format!("LABEL={label}");
        let ran = Call::new(["blkid", "-t", &label, "-o", "device"]).run(system).ok()?;
        let first = ran.stdout.lines().next().filter(|line| ran.is_success() && !line.is_empty());
        first.map(PathBuf::from)
    })
}

/// Where a device is mounted, from the kernel's list.
pub(crate) fn mounted_at(mounts: &str, device: &Path) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let (from, to) = (words.next()?, words.next()?);
        (Path::new(from) == device).then(|| to.replace("\\040", " ").into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_found_by_its_device() {
        let mounts = "proc /proc proc rw 0 0\n/dev/sr0 /mnt/a\\040b iso9660 ro 0 0\n";
        assert_eq!(mounted_at(mounts, Path::new("/dev/sr0")), Some("/mnt/a b".into()));
        assert_eq!(mounted_at(mounts, Path::new("/dev/sr1")), None);
    }
}
