//! `hook-json-file`: the config maps paths to what is written there as JSON.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::process::ExitCode;

use serde_json::Value;

use super::entry::{Entry, bad};
use super::{Answer, files, serve, silence};
use crate::compat::pylog::Log;
use crate::hooks::NotRun;
use crate::json_text::json_text_indented;

/// Spaces of an indent.
const INDENT: usize = 4;
/// Mode of a new file. One that is there keeps mode and owner.
const NEW_FILE_MODE: u32 = 0o600;

/// The program.
pub fn main(_arguments: &[OsString]) -> ExitCode {
    serve(run)
}

fn run(entry: &Entry, log: &mut Log) -> Result<Answer, NotRun> {
    let Value::Object(all) = entry.config() else {
        return Err(bad("its config must be a map of paths to what is written there"));
    };
    if let Some(path) = all.keys().find(|path| path.is_empty() || path.contains('\0')) {
        return Err(bad(format!("{path:?} in its config is no path")));
    }
    for (path, data) in all {
        let path = Path::new(path);
        log.info(format!("Writing {}", path.display()));
        files::make(files::parent(path))?;
        replace(path, &pretty(data))?;
    }
    Ok(silence())
}

/// As Python writes it with sorted keys, an indent of 4 and nothing at the end.
pub(super) fn pretty(data: &Value) -> String {
    json_text_indented(&sorted(data), INDENT)
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(sorted).collect(),
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| key.as_str());
            Value::Object(entries.into_iter().map(|(k, v)| (k.clone(), sorted(v))).collect())
        }
        other => other.clone(),
    }
}

fn replace(path: &Path, text: &str) -> Result<(), NotRun> {
    let before = fs::metadata(path).ok().filter(|metadata| metadata.is_file());
    let mode = before.as_ref().map_or(NEW_FILE_MODE, |before| before.mode() & 0o7777);
    files::write(path, text, mode)?;
    if let Some(before) = before {
        let now = fs::metadata(path).map_err(|e| files::io_failed("examine", path, &e))?;
        if (now.uid(), now.gid()) != (before.uid(), before.gid()) {
            chown(path, Some(before.uid()), Some(before.gid()))
                .map_err(|e| files::io_failed("give back to its owner", path, &e))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_are_sorted_at_every_depth() {
        let text = pretty(&json!({"b": [{"z": 1, "a": "\u{fc}"}], "a": {}, "B": []}));
        let expected = "{\n    \"B\": [],\n    \"a\": {},\n    \"b\": [\n        {\n            \
                        \"a\": \"\\u00fc\",\n            \"z\": 1\n        }\n    ]\n}";
        assert_eq!(text, expected);
    }
}
