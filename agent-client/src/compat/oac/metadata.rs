//! The metadata: JSON files, merged in order.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Map, Value};

/// Where the list of metadata files is, unless something else is said.
pub const LIST: &str = "/var/lib/os-collect-config/os_config_files.json";
/// Where older releases of os-collect-config put it.
pub const LIST_OLD: &str = "/var/run/os-collect-config/os_config_files.json";
/// Always read, before the list.
pub const FALLBACK: [&str; 3] = [
    "/var/cache/heat-cfntools/last_metadata",
    "/var/lib/heat-cfntools/cfn-init-data",
    "/var/lib/cloud/data/cfn-init-data",
];

/// Reads and merges the files that exist; one whose root is no object counts as empty.
///
/// # Errors
/// A file is there and cannot be read, or is no JSON.
pub fn read<'a>(files: impl IntoIterator<Item = &'a Path>) -> Result<Map<String, Value>> {
    let mut merged = Map::new();
    for file in files {
        if file.as_os_str().is_empty() {
            continue;
        }
        let Some(bytes) = read_if_there(file)? else { continue };
        let value = serde_json::from_slice(&bytes)
            .map_err(|e| anyhow!("could not parse metadata file {}: {e}", file.display()))?;
        if let Value::Object(members) = value {
            merge(&mut merged, members);
        }
    }
    Ok(merged)
}

/// Reads a JSON list of paths; a file that is not there is an empty one.
///
/// # Errors
/// It cannot be read, or is no list of strings.
pub fn read_list(file: &Path) -> Result<Vec<PathBuf>> {
    let Some(bytes) = read_if_there(file)? else { return Ok(Vec::new()) };
    let shown = file.display();
    let Ok(Value::Array(items)) = serde_json::from_slice(&bytes) else {
        bail!("{shown} holds no JSON list of metadata files; try --metadata FILE")
    };
    let path = |item: &Value| {
        item.as_str().map(PathBuf::from).ok_or_else(|| anyhow!("{shown}: {item} is no path"))
    };
    items.iter().map(path).collect()
}

fn read_if_there(file: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(file) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        Err(error) => Err(error).with_context(|| format!("could not read {}", file.display())),
    }
}

/// Objects are merged member by member; everything else replaces what was there, null too.
fn merge(into: &mut Map<String, Value>, members: Map<String, Value>) {
    for (key, value) in members {
        match (into.get_mut(&key), value) {
            (Some(Value::Object(old)), Value::Object(new)) => merge(old, new),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

/// The object at `a.b.c`.
///
/// # Errors
/// There is none.
pub fn subhash(mut data: Map<String, Value>, path: &str) -> Result<Map<String, Value>> {
    for key in path.split('.') {
        match data.remove(key) {
            Some(Value::Object(inner)) => data = inner,
            _ => bail!("key {path:?} does not lead to an object in the metadata"),
        }
    }
    Ok(data)
}

/// The value at `a.b.0.c`; null counts as missing. Lists take an index, counted from the end if it is
/// negative.
#[must_use]
pub fn lookup<'a>(data: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    let mut parts = path.split('.');
    let mut value = data.get(parts.next()?)?;
    for part in parts {
        value = match value {
            Value::Object(members) => members.get(part)?,
            Value::Array(items) => items.get(index(part, items.len())?)?,
            _ => return None,
        };
    }
    (!value.is_null()).then_some(value)
}

fn index(text: &str, length: usize) -> Option<usize> {
    let index: i64 = text.trim().parse().ok()?;
    match usize::try_from(index) {
        Ok(index) => Some(index),
        Err(_) => length.checked_sub(usize::try_from(index.unsigned_abs()).ok()?),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        let Value::Object(members) = value else { panic!("{value}") };
        members
    }

    #[test]
    fn objects_merge_deep_and_everything_else_replaces() {
        let mut merged = object(json!({"a": {"x": 1, "y": {"z": 1}}, "l": [1, 2], "s": "old"}));
        let later = json!({"a": {"y": {"w": 2}, "x": null}, "l": [3], "s": {"now": 1}, "n": 0});
        merge(&mut merged, object(later));
        let expected =
            json!({"a": {"x": null, "y": {"z": 1, "w": 2}}, "l": [3], "s": {"now": 1}, "n": 0});
        assert_eq!(Value::Object(merged).to_string(), expected.to_string(), "order counts");
    }

    #[test]
    fn files_that_are_missing_or_hold_no_object_are_empty_and_bad_ones_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let files = [
            file("a", "{\"a\": 1}"),
            directory.path().join("none"),
            file("l", "[1]"),
            file("n", "null"),
        ];
        let read_all = |files: &[PathBuf]| read(files.iter().map(PathBuf::as_path));
        assert_eq!(Value::Object(read_all(&files).unwrap()), json!({"a": 1}));
        let bad = file("bad", "{");
        let error = read_all(&[bad]).unwrap_err().to_string();
        assert!(
            error.contains("could not parse metadata file") && error.contains("bad"),
            "{error}"
        );
        let list = file("list", "[\"/a\", \"/b\"]");
        assert_eq!(read_list(&list).unwrap(), [Path::new("/a"), Path::new("/b")]);
        assert_eq!(read_list(&directory.path().join("none")).unwrap(), Vec::<PathBuf>::new());
        assert!(read_list(&file("o", "{}")).is_err());
    }

    #[test]
    fn a_path_leads_through_objects_and_lists() {
        let data = object(json!({"a": {"l": [1, {"k": "v"}, null]}, "": 1, "s": "text"}));
        let at = |path| lookup(&data, path).map(ToString::to_string);
        assert_eq!(at("a.l.0").as_deref(), Some("1"));
        assert_eq!(at("a.l.1.k").as_deref(), Some("\"v\""));
        assert_eq!(at("a.l.-2.k").as_deref(), Some("\"v\""));
        for missing in ["a.l.2", "a.l.3", "a.l.-4", "a.l.x", "a.b", "s.0", "x", "a.l.1.k.z"] {
            assert_eq!(at(missing), None, "{missing}");
        }
        assert!(subhash(data.clone(), "a").unwrap().contains_key("l"));
        assert!(subhash(data, "a.l").is_err());
    }
}
