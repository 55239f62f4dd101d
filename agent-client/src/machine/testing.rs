//! Fake tools, which write down how they are called.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Makes a tool that runs these lines of shell.
pub(crate) fn tool(directory: &Path, name: &str, lines: &str) {
    fs::create_dir_all(directory).unwrap();
    let path = directory.join(name);
    fs::write(&path, format!("#!/bin/sh\n{lines}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Makes a tool that notes its name and arguments, one line per call, in `calls`, then runs these lines.
pub(crate) fn recorder(directory: &Path, name: &str, calls: &Path, lines: &str) {
    let note = format!("echo \"${{0##*/}} $*\" >> {}\n{lines}", calls.display());
    tool(directory, name, &note);
}

/// What recorders noted since the last time.
pub(crate) fn taken(calls: &Path) -> Vec<String> {
    let text = fs::read_to_string(calls).unwrap_or_default();
    let _ = fs::remove_file(calls);
    text.lines().map(str::to_owned).collect()
}

/// A root with the directories of a machine, and one for tools.
pub(crate) fn root() -> (tempfile::TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let tools = root.path().join("tools");
    for directory in ["var/log", "tools"] {
        fs::create_dir_all(root.path().join(directory)).unwrap();
    }
    (root, tools)
}
