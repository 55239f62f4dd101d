//! Outputs of a hook: files `<outputs>/<id>.<name>` that its tool writes.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::capture::Capture;
use crate::document::{ConfigId, Output};

/// Bytes kept of an output file, half from either end.
pub const OUTPUT_BYTES_MAX: usize = 256 << 10;
const READ_BYTES: usize = 64 << 10;

/// What the tool gets to know: the beginning of the paths of its output files.
pub fn prefix(directory: &Path, id: &ConfigId) -> PathBuf {
    directory.join(&*id.file_name())
}

/// Removes what an earlier run has left, which would be reported again.
///
/// # Errors
/// A file that cannot be removed, with its path.
pub fn remove_old(
    directory: &Path,
    id: &ConfigId,
    outputs: &[Output],
) -> Result<(), (PathBuf, io::Error)> {
    for path in outputs.iter().filter_map(|output| path(directory, id, &output.name)) {
        remove(&path).map_err(|error| (path, error))?;
    }
    Ok(())
}

/// Removes a file; one that is not there is fine.
///
/// # Errors
/// It is there and cannot be removed.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The outputs that are there. Of one that cannot be read `complain` hears.
pub fn collect(
    directory: &Path,
    id: &ConfigId,
    outputs: &[Output],
    mut complain: impl FnMut(String),
) -> Map<String, Value> {
    let mut found = Map::new();
    for output in outputs {
        let Some(path) = path(directory, id, &output.name) else { continue };
        match read_text(&path) {
            Ok(text) => {
                found.insert(output.name.clone(), Value::String(text));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => complain(format!("output {} is unreadable: {error}", output.name)),
        }
    }
    found
}

/// A file as text: bounded, valid UTF-8, line ends as Python reads them (CR LF and CR become LF).
///
/// # Errors
/// It is not there, no regular file, or cannot be read.
pub fn read_text(path: &Path) -> io::Result<String> {
    // Opening a pipe would wait for a writer.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut file = File::open(path)?;
    let mut capture = Capture::new(OUTPUT_BYTES_MAX / 2, OUTPUT_BYTES_MAX / 2);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            n => capture.push(&buffer[..n]),
        }
    }
    let text = capture.into_text();
    Ok(if text.contains('\r') { text.replace("\r\n", "\n").replace('\r', "\n") } else { text })
}

/// `<outputs>/<id>.<name>`; none for a name that would leave the directory.
fn path(directory: &Path, id: &ConfigId, name: &str) -> Option<PathBuf> {
    let fits = !name.contains(['/', '\0']);
    fits.then(|| directory.join(format!("{}.{name}", id.file_name())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_are_read_as_python_reads_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("o");
        fs::write(&path, "a\r\nb\rc\n").unwrap();
        assert_eq!(read_text(&path).unwrap(), "a\nb\nc\n");
    }

    #[test]
    fn no_name_of_an_output_leaves_the_directory() {
        let id = ConfigId::new("the-id").unwrap();
        assert_eq!(path(Path::new("/o"), &id, "../x"), None);
        assert_eq!(path(Path::new("/o"), &id, "x"), Some("/o/the-id.x".into()));
    }
}
