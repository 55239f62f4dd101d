//! Files that somebody put on this machine.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{Collectors, Found, Missing, read_json};
use crate::compat::occ::items::Item;

const WRITABLE_BY_OTHERS: u32 = 0o002;

/// Each file of each directory by its name, in the order of the names' bytes. One bad file fails all.
pub(super) fn collect(all: &mut Collectors<'_>) -> Found {
    let mut items = Vec::new();
    for directory in all.config.local_paths.iter().map(Path::new) {
        let shown = directory.display();
        let Ok(metadata) = fs::metadata(directory) else {
            all.warnings.push(format!("{shown} not found. Skipping"));
            continue;
        };
        if metadata.uid() != rustix::process::getuid().as_raw() {
            let why = format!("{shown} is owned by another user. This is a security risk.");
            return Err(Missing::Unavailable(why));
        }
        check_mode(directory, &metadata)?;
        let entries = fs::read_dir(directory).map_err(|error| format!("{shown}: {error}"))?;
        for entry in entries.flatten() {
            let path = entry.path();
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
                all.warnings.push(format!("{} has a name that is no UTF-8", path.display()));
                continue;
            };
            if name.starts_with('.') || path.is_dir() {
                continue;
            }
            let metadata =
                fs::metadata(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            check_mode(&path, &metadata)?;
            items.push(Item { name, is_main: false, content: read_json(&path)? });
        }
    }
    items.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(items)
}

fn check_mode(path: &Path, metadata: &fs::Metadata) -> Result<(), String> {
    match metadata.mode() & WRITABLE_BY_OTHERS {
        0 => Ok(()),
        _ => Err(format!("{} is world writable. This is a security risk.", path.display())),
    }
}
