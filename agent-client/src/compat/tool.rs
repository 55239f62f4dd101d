//! Programs that are called by name: the one on PATH, so that an image may have its own; else ours.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use crate::hooks::built_in::OWN_PROGRAM;
use crate::machine::program::on_path;

/// What to start for `name`, and with which arguments before any others.
#[must_use]
pub fn find(name: &str) -> (PathBuf, Vec<OsString>) {
    match on_path(name, env::var_os("PATH").as_deref()) {
        Some(path) => (path, Vec::new()),
        None => (OWN_PROGRAM.into(), vec![name.into()]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_not_on_path_is_ours() {
        let name = "no-such-tool-anywhere";
        assert_eq!(find(name), (OWN_PROGRAM.into(), vec![name.into()]));
    }
}
