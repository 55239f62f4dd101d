//! A config drive: a small disk with the label `config-2` that the cloud attached.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::read_json;
use crate::bootstrap::drive::mounted_at;

const MOUNTS: &str = "/proc/mounts";
const LABEL: &str = "config-2";
const TYPES: [&str; 2] = ["vfat", "iso9660"];
const METADATA: &str = "ec2/latest/meta-data.json";

/// The EC2 metadata of the config drive, if there is one.
pub(super) fn metadata(warnings: &mut Vec<String>) -> Option<Value> {
    let listed = match output(&["blkid", "-o", "export"]) {
        Ok(listed) => listed,
        Err(error) => {
            warnings.push(error);
            return None;
        }
    };
    let device = device(&listed)?;
    match read(&device) {
        Ok(value) => Some(value),
        Err(error) => {
            warnings.push(format!("Problem getting metadata: {error}"));
            None
        }
    }
}

/// The device of the config drive in the output of `blkid -o export`.
fn device(listed: &str) -> Option<String> {
    listed.split("\n\n").find_map(|block| {
        let field = |name: &str| {
            let mut lines = block.lines().rev().filter_map(|line| line.split_once('='));
            lines.find(|(key, _)| *key == name).map(|(_, value)| value.replace("\\ ", " "))
        };
        let is_it = field("LABEL").as_deref() == Some(LABEL)
            && field("TYPE").is_some_and(|kind| TYPES.contains(&kind.as_str()));
        is_it.then(|| field("DEVNAME"))?
    })
}

fn read(device: &str) -> Result<Value, String> {
    let mounts = fs::read_to_string(MOUNTS).map_err(|error| format!("{MOUNTS}: {error}"))?;
    if let Some(place) = mounted_at(&mounts, Path::new(device)) {
        return metadata_in(&place);
    }
    let place = tempfile::Builder::new()
        .prefix("config-2-")
        .tempdir()
        .map_err(|error| format!("no directory to mount at: {error}"))?;
    let path = place.path().to_string_lossy().into_owned();
    output(&["mount", device, &path, "-o", "ro"])?;
    let found = metadata_in(place.path());
    if let Err(error) = output(&["umount", "-l", &path]) {
        // What is still mounted must not be deleted with the directory.
        let _ = place.keep();
        return Err(error);
    }
    found
}

fn metadata_in(place: &Path) -> Result<Value, String> {
    let path = place.join(METADATA);
    if !path.is_file() {
        return Err(format!("No expected file at path: {}", path.display()));
    }
    read_json(&path)
}

/// What a program prints, if it ends well.
fn output(command: &[&str]) -> Result<String, String> {
    let problem = |why: String| format!("Problem running \"{}\": {why}", command.join(" "));
    let ended = Command::new(command[0])
        .args(&command[1..])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| problem(error.to_string()))?;
    match ended.status.success() {
        true => Ok(String::from_utf8_lossy(&ended.stdout).into_owned()),
        false => Err(problem(ended.status.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drive_is_known_by_label_and_type() {
        let listed = "DEVNAME=/dev/sda1\nUUID=1\nTYPE=ext4\n\nDEVNAME=/dev/sr\\ 0\nLABEL=config-2\n\
                      TYPE=iso9660\n\nDEVNAME=/dev/sdb\nLABEL=config-2\nTYPE=vfat\n";
        assert_eq!(device(listed).as_deref(), Some("/dev/sr 0"));
        for other in [
            "",
            "DEVNAME=/dev/sdb\nLABEL=config-2\nTYPE=ext4\n",
            "DEVNAME=/dev/sdb\nLABEL=config\nTYPE=vfat\n",
            "LABEL=config-2\nTYPE=vfat\n",
            "nonsense\n",
        ] {
            assert_eq!(device(other), None, "{other}");
        }
    }
}
