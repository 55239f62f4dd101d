//! The cache directory: for each piece of metadata `K.json` (the newest), `K.json.orig` (the first ever)
//! and `K.json.last` (the last for which the command succeeded), and the list of the newest.

use std::fs::{self, DirBuilder, File, FileTimes, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use certs::file::{PRIVATE_FILE_MODE, read_public, write_atomic};
use serde_json::Value;

use super::items::LIST_KEY;
use crate::json_text::{json_text, json_text_indented};

/// Largest file that is read back: more than what any source may send.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Deepest tree that is copied.
const COPY_DEPTH_MAX: usize = 20;
const DIRECTORY_MODE: u32 = 0o700;

/// A cache directory.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    directory: PathBuf,
}

impl Cache {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// The file of the newest content.
    pub(crate) fn path(&self, key: &str) -> PathBuf {
        self.directory.join(format!("{key}.json"))
    }

    fn sibling(&self, key: &str, suffix: &str) -> PathBuf {
        self.directory.join(format!("{key}.json.{suffix}"))
    }

    /// The newest content, if there is one that is JSON.
    pub(crate) fn load(&self, key: &str) -> Option<Value> {
        read_json(&self.path(key))
    }

    /// Makes this the newest content; whether it is news to the command.
    ///
    /// # Errors
    /// The directory or a file cannot be written.
    pub(crate) fn store(&self, key: &str, content: &Value) -> Result<bool> {
        DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(&self.directory)
            .with_context(|| format!("could not make {}", self.directory.display()))?;
        let bytes = json_text_indented(content, 1).into_bytes();
        let (path, first) = (self.path(key), self.sibling(key, "orig"));
        let is_news = self.is_news(key, content);
        if !first.exists() {
            write_atomic(&first, &bytes, PRIVATE_FILE_MODE)?;
        }
        if !holds(&path, &bytes) {
            write_atomic(&path, &bytes, PRIVATE_FILE_MODE)?;
        }
        Ok(is_news)
    }

    /// Whether this would be news to the command.
    pub(crate) fn is_news(&self, key: &str, content: &Value) -> bool {
        !self.sibling(key, "orig").exists()
            || read_json(&self.sibling(key, "last")).as_ref() != Some(content)
    }

    /// The command succeeded with the newest content.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub(crate) fn commit(&self, key: &str) -> Result<()> {
        let bytes = match fs::read(self.path(key)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).context("could not read back"),
        };
        Ok(write_atomic(&self.sibling(key, "last"), &bytes, PRIVATE_FILE_MODE)?)
    }

    /// Writes the list of the newest files, for programs that are not started by us.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn store_list(&self, keys: &[String]) -> Result<()> {
        let paths: Vec<String> =
            keys.iter().map(|key| self.path(key).to_string_lossy().into_owned()).collect();
        let text = json_text(&Value::from(paths));
        Ok(write_atomic(&self.path(LIST_KEY), text.as_bytes(), PRIVATE_FILE_MODE)?)
    }

    /// The keys of the list as it was written last; none if there is no list.
    pub(crate) fn listed(&self) -> Vec<String> {
        let Some(Value::Array(paths)) = read_json(&self.path(LIST_KEY)) else { return Vec::new() };
        let keys = paths.iter().filter_map(|path| {
            let path = Path::new(path.as_str()?);
            let own = path.parent() == Some(&self.directory);
            own.then(|| path.file_name()?.to_str()?.strip_suffix(".json").map(str::to_owned))?
        });
        keys.collect()
    }

    /// Puts a copy of the whole directory in the place of `to`.
    ///
    /// # Errors
    /// `to` is the directory itself, in it or around it, or cannot be replaced.
    pub(crate) fn back_up(&self, to: &Path) -> Result<()> {
        let shown = to.display();
        let place = resolved(to).with_context(|| format!("could not resolve {shown}"))?;
        let own = resolved(&self.directory)?;
        if place.starts_with(&own) || own.starts_with(&place) {
            bail!("{shown} and {} lie within each other", self.directory.display());
        }
        match fs::symlink_metadata(to) {
            Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(to)
                .with_context(|| format!("could not remove the old {shown}"))?,
            Ok(_) => bail!("{shown} is no directory"),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("could not examine {shown}")),
        }
        if self.directory.exists() {
            copy_tree(&self.directory, to, 0)
                .with_context(|| format!("could not copy to {shown}"))?;
        }
        Ok(())
    }
}

/// A path without links, whose last part need not exist.
fn resolved(path: &Path) -> io::Result<PathBuf> {
    match (fs::canonicalize(path), path.parent(), path.file_name()) {
        (Ok(path), _, _) => Ok(path),
        (Err(_), Some(parent), Some(name)) if !parent.as_os_str().is_empty() => {
            Ok(resolved(parent)?.join(name))
        }
        (Err(_), _, Some(name)) => Ok(std::env::current_dir()?.join(name)),
        (Err(error), _, _) => Err(error),
    }
}

fn read_json(path: &Path) -> Option<Value> {
    serde_json::from_slice(&read_public(path, FILE_BYTES_MAX).ok()?).ok()
}

/// Whether this is a private file of ours with these bytes.
fn holds(path: &Path, bytes: &[u8]) -> bool {
    let is_private = fs::symlink_metadata(path)
        .is_ok_and(|metadata| metadata.is_file() && metadata.mode() & 0o7777 == PRIVATE_FILE_MODE);
    is_private && fs::read(path).is_ok_and(|held| held == bytes)
}

/// Copies a directory with its modes and times; links become what they lead to.
fn copy_tree(from: &Path, to: &Path, depth: usize) -> Result<()> {
    if depth > COPY_DEPTH_MAX {
        bail!("{} is more than {COPY_DEPTH_MAX} directories deep", from.display());
    }
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let Ok(metadata) = fs::metadata(entry.path()) else { continue };
        if metadata.is_dir() {
            copy_tree(&entry.path(), &target, depth + 1)?;
        } else if metadata.is_file() {
            copy_file(&entry.path(), &target, &metadata)?;
        }
    }
    fs::set_permissions(to, fs::Permissions::from_mode(fs::metadata(from)?.mode() & 0o7777))?;
    Ok(())
}

fn copy_file(from: &Path, to: &Path, metadata: &fs::Metadata) -> io::Result<()> {
    let mut copy =
        OpenOptions::new().write(true).create_new(true).mode(PRIVATE_FILE_MODE).open(to)?;
    io::copy(&mut File::open(from)?, &mut copy)?;
    copy.set_permissions(fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
    let times = FileTimes::new().set_accessed(metadata.accessed()?);
    copy.set_times(times.set_modified(metadata.modified()?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use serde_json::json;

    use super::*;

    fn cache() -> (tempfile::TempDir, Cache) {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::new(directory.path().join("new/cache"));
        (directory, cache)
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn content_is_news_until_it_is_committed() {
        let (_directory, cache) = cache();
        assert!(cache.store("k", &json!({"a": 1.0})).unwrap());
        assert!(cache.store("k", &json!({"a": 1.0})).unwrap(), "not committed");
        cache.commit("k").unwrap();
        assert!(!cache.store("k", &json!({"a": 1.0})).unwrap());
        assert!(cache.store("k", &json!({"a": 2})).unwrap());
        assert_eq!(fs::read_to_string(cache.path("k")).unwrap(), "{\n \"a\": 2\n}");
        assert_eq!(fs::read_to_string(cache.sibling("k", "orig")).unwrap(), "{\n \"a\": 1.0\n}");
        assert_eq!(fs::read_to_string(cache.sibling("k", "last")).unwrap(), "{\n \"a\": 1.0\n}");
        assert!(!cache.store("k", &json!({"a": 1.0})).unwrap(), "back to what was committed");
        for file in ["k.json", "k.json.orig", "k.json.last"] {
            assert_eq!(mode(&cache.directory.join(file)), 0o600);
        }
        assert_eq!(mode(&cache.directory), 0o700);
        fs::write(cache.sibling("k", "last"), "damaged").unwrap();
        assert!(cache.store("k", &json!({"a": 1.0})).unwrap());
        fs::remove_file(cache.sibling("k", "orig")).unwrap();
        cache.commit("k").unwrap();
        assert!(cache.store("k", &json!({"a": 1.0})).unwrap(), "no first content");
        cache.commit("none").unwrap();
    }

    #[test]
    fn an_open_file_or_a_link_is_replaced_by_a_private_one() {
        let (directory, cache) = cache();
        cache.store("k", &json!(1)).unwrap();
        fs::set_permissions(cache.path("k"), fs::Permissions::from_mode(0o644)).unwrap();
        cache.store("k", &json!(1)).unwrap();
        assert_eq!(mode(&cache.path("k")), 0o600);
        let target = directory.path().join("target");
        fs::write(&target, "1").unwrap();
        fs::remove_file(cache.path("k")).unwrap();
        symlink(&target, cache.path("k")).unwrap();
        cache.store("k", &json!(1)).unwrap();
        assert!(fs::symlink_metadata(cache.path("k")).unwrap().is_file());
    }

    #[test]
    fn the_list_names_the_files_in_order_and_is_read_back() {
        let (_directory, cache) = cache();
        assert!(cache.listed().is_empty());
        cache.store("b", &json!(1)).unwrap();
        let keys = ["b".to_owned(), "a ü".to_owned()];
        cache.store_list(&keys).unwrap();
        let text = fs::read_to_string(cache.path(LIST_KEY)).unwrap();
        let directory = cache.directory.display();
        assert_eq!(text, format!("[\"{directory}/b.json\", \"{directory}/a \\u00fc.json\"]"));
        assert_eq!(cache.listed(), keys);
        assert_eq!(mode(&cache.path(LIST_KEY)), 0o600);
    }

    #[test]
    fn the_copy_is_whole_and_takes_the_place_of_the_old_one() {
        let (directory, cache) = cache();
        cache.store("k", &json!({"a": 1})).unwrap();
        let local = cache.directory.join("local-data");
        fs::create_dir(&local).unwrap();
        fs::write(local.join("one"), "1").unwrap();
        fs::set_permissions(local.join("one"), fs::Permissions::from_mode(0o640)).unwrap();
        symlink(local.join("one"), cache.directory.join("link")).unwrap();
        symlink("/no/such", cache.directory.join("broken")).unwrap();
        let to = directory.path().join("run/backup");
        fs::create_dir_all(to.join("old")).unwrap();
        cache.back_up(&to).unwrap();
        assert!(!to.join("old").exists() && !to.join("broken").exists());
        assert_eq!(fs::read(to.join("k.json")).unwrap(), fs::read(cache.path("k")).unwrap());
        assert_eq!(mode(&to.join("local-data/one")), 0o640);
        assert_eq!(fs::read(to.join("link")).unwrap(), b"1");
        assert!(fs::symlink_metadata(to.join("link")).unwrap().is_file());
        assert_eq!(mode(&to), mode(&cache.directory));
    }

    #[test]
    fn a_copy_never_harms_the_cache_itself() {
        let (directory, cache) = cache();
        cache.store("k", &json!(1)).unwrap();
        let inside = cache.directory.join("backup");
        let link = directory.path().join("link");
        symlink(&cache.directory, &link).unwrap();
        for to in [cache.directory.clone(), inside, directory.path().to_owned(), link] {
            let error = cache.back_up(&to).unwrap_err();
            assert!(error.to_string().contains("lie within each other"), "{error}");
        }
        let file = directory.path().join("file");
        fs::write(&file, "kept").unwrap();
        assert!(cache.back_up(&file).unwrap_err().to_string().contains("is no directory"));
        assert!(cache.path("k").exists());
        assert_eq!(fs::read(file).unwrap(), b"kept");
    }
}
