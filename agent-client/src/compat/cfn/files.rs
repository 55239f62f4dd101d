//! Files: text, JSON or what a URL leads to; each is replaced as a whole, with its owner and mode.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use nix::unistd::{Gid, Group, Uid, User};
use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};
use serde_json::{Map, Value};

use super::work::{Work, text_of};
use openstack_client::http::{Client, Request, without_secrets};

/// Largest file that a URL may lead to.
pub(super) const FETCH_BYTES_MAX: u64 = 4 << 30;

/// Writes the files.
pub(super) fn apply(work: &mut Work<'_>, files: Option<&Value>) {
    let Some(files) = work.map("files", files) else { return };
    for (path, properties) in files {
        let Some(properties) = work.map(&format!("file {path}"), Some(properties)) else {
            work.fail(format!("file {path}: it has neither \"content\" nor \"source\""));
            continue;
        };
        match write(work.client, Path::new(path), properties) {
            Ok(()) => work.log.debug(format!("file {path} is written")),
            Err(error) => work.fail(format!("file {path}: {error:#}")),
        }
    }
}

fn write(client: &Client, path: &Path, properties: &Map<String, Value>) -> Result<()> {
    let (Some(directory), Some(name), true) = (path.parent(), path.file_name(), path.is_absolute())
    else {
        bail!("it is no absolute path of a file");
    };
    let old = fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file);
    let mode =
        mode(properties.get("mode"))?.or_else(|| old.as_ref().map(|old| old.mode() & 0o7777));
    let owner = owner(properties.get("owner"))?.or_else(|| old.as_ref().map(MetadataExt::uid));
    let group = group(properties.get("group"))?.or_else(|| old.as_ref().map(MetadataExt::gid));

    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o777)
        .create(directory)
        .context("making its directory")?;
    let mut temporary = temporary(directory, name, mode.is_none())?;
    match (properties.get("content"), properties.get("source").and_then(Value::as_str)) {
        (Some(Value::String(text)), _) => temporary.write_all(text.as_bytes())?,
        (Some(value), _) => temporary.write_all(&json(value)?)?,
        (None, Some(url)) => fetch(client, url, temporary.as_file_mut())?,
        (None, None) => bail!("it has neither \"content\" nor \"source\""),
    }
    let file = temporary.as_file();
    // The owner first: a change of owner takes set-id bits away.
    std::os::unix::fs::fchown(file, owner, group).context("setting its owner")?;
    if let Some(mode) = mode {
        file.set_permissions(Permissions::from_mode(mode)).context("setting its mode")?;
    }
    file.sync_all()?;
    temporary.persist(path).context("replacing it")?;
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .context("syncing its directory")
}

/// A file beside the one to be: private until its mode is set, or with the mode that the umask leaves.
fn temporary(
    directory: &Path,
    name: &OsStr,
    is_umask_mode: bool,
) -> Result<tempfile::NamedTempFile> {
    let mut prefix = OsStr::new(".").to_owned();
    prefix.push(OsStr::from_bytes(&name.as_bytes()[..name.len().min(64)]));
    let mode = if is_umask_mode { 0o666 } else { 0o600 };
    tempfile::Builder::new()
        .prefix(&prefix)
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(directory)
        .with_context(|| format!("making a file in {}", directory.display()))
}

/// Copies what `url` leads to.
pub(super) fn fetch(client: &Client, url: &str, out: &mut File) -> Result<()> {
    if let Some(path) = url.strip_prefix("file://") {
        let path = PathBuf::from(path);
        let mut from = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        io::copy(&mut from, out).with_context(|| format!("copying {}", path.display()))?;
        return Ok(());
    }
    let request = Request::get(url).response_bytes_max(FETCH_BYTES_MAX);
    let response = client.download(&request, out)?;
    if !response.is_success() {
        bail!("{} answered with status {}", without_secrets(url), response.status);
    }
    Ok(())
}

/// JSON as Python writes it with an indent of 4.
fn json(value: &Value) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let formatter = PrettyFormatter::with_indent(b"    ");
    value.serialize(&mut Serializer::with_formatter(&mut out, formatter))?;
    let mut ascii = Vec::with_capacity(out.len());
    let mut units = [0; 2];
    for c in String::from_utf8_lossy(&out).chars() {
        if matches!(c, ' '..='~' | '\n') {
            ascii.push(c as u8);
        } else {
            for unit in c.encode_utf16(&mut units) {
                write!(ascii, "\\u{unit:04x}")?;
            }
        }
    }
    Ok(ascii)
}

/// A mode in octal digits, as text.
fn mode(value: Option<&Value>) -> Result<Option<u32>> {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(None) };
    let digits = value.as_str().map(|text| text.trim().trim_start_matches("0o"));
    let mode = digits.and_then(|digits| u32::from_str_radix(digits, 8).ok());
    // The kind of file, as in "100644", was always passed over.
    mode.map(|mode| Some(mode & 0o7777)).ok_or_else(|| {
        anyhow!("its mode is {value}, must be octal digits in quotes, like \"000644\"")
    })
}

fn owner(value: Option<&Value>) -> Result<Option<u32>> {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(None) };
    let name = text_of(value);
    let known = User::from_name(&name).context("looking its owner up")?.map(|user| user.uid);
    let id = known.or_else(|| name.parse().ok().map(Uid::from_raw));
    id.map(|id| Some(id.as_raw())).ok_or_else(|| anyhow!("its owner {name:?} is no user here"))
}

fn group(value: Option<&Value>) -> Result<Option<u32>> {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(None) };
    let name = text_of(value);
    let known = Group::from_name(&name).context("looking its group up")?.map(|group| group.gid);
    let id = known.or_else(|| name.parse().ok().map(Gid::from_raw));
    id.map(|id| Some(id.as_raw())).ok_or_else(|| anyhow!("its group {name:?} is no group here"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn modes_are_octal_text_and_nothing_else() {
        for (text, expected) in [
            ("000644", 0o644),
            ("0755", 0o755),
            ("600", 0o600),
            ("100640", 0o640),
            ("4755", 0o4755),
        ] {
            assert_eq!(mode(Some(&json!(text))).unwrap(), Some(expected));
        }
        assert_eq!(mode(None).unwrap(), None);
        for bad in [json!(420), json!("rw"), json!("689"), json!(""), json!("-1")] {
            assert!(mode(Some(&bad)).unwrap_err().to_string().contains("octal digits"), "{bad}");
        }
    }

    #[test]
    fn json_is_as_python_writes_it() {
        // json.dumps(…, indent=4) of Python.
        let value = json!({"a": [1, "ü"], "b": {}, "c": []});
        let expected = "{\n    \"a\": [\n        1,\n        \"\\u00fc\"\n    ],\n    \"b\": {},\n    \"c\": []\n}";
        assert_eq!(String::from_utf8(json(&value).unwrap()).unwrap(), expected);
    }

    #[test]
    fn owners_are_names_or_numbers_that_exist() {
        assert_eq!(owner(Some(&json!("root"))).unwrap(), Some(0));
        assert_eq!(owner(Some(&json!("12345"))).unwrap(), Some(12345));
        assert_eq!(group(Some(&json!("root"))).unwrap(), Some(0));
        let error = owner(Some(&json!("no-such-user"))).unwrap_err().to_string();
        assert_eq!(error, "its owner \"no-such-user\" is no user here");
        assert!(group(Some(&json!("no-such-group"))).is_err());
    }
}
