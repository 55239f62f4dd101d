//! The programs of the old names beside the Python originals: the same input, and what both make of it.
//!
//! `tests/originals/setup` installs the originals. A test without them fails: it would prove nothing.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod apply;
mod cfn;
mod collect;
mod deployed;
mod generate;
mod heat_config;
mod hooks;
mod refresh;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Where an original is.
fn original(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let path = root.join(".cache/originals/bin").join(name);
    assert!(path.exists(), "{} is not there; run tests/originals/setup", path.display());
    path
}

/// Which of the two programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Original,
    Ours,
}

/// A place of its own for each side, with the same files.
struct Place {
    directory: tempfile::TempDir,
    side: Side,
}

/// Python's stevedore keeps a cache in `~/.cache`, unless its Python is below /tmp; here it cannot.
const NO_CACHE: &str = "/dev/null";

impl Place {
    fn new(side: Side) -> Self {
        Self { directory: tempfile::tempdir().unwrap(), side }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>, mode: u32) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// The program, in this place, with a small environment.
    fn command(&self, name: &str) -> Command {
        let bin = self.path("bin");
        fs::create_dir_all(&bin).unwrap();
        let link = bin.join(name);
        if !link.exists() {
            let target = match self.side {
                Side::Original => original(name),
                Side::Ours => env!("CARGO_BIN_EXE_agent-client").into(),
            };
            std::os::unix::fs::symlink(target, &link).unwrap();
        }
        let mut command = Command::new(&link);
        command.env_clear().env("PATH", format!("{}:/usr/bin:/bin", bin.display()));
        command.env("TZ", "UTC").env("LC_ALL", "C.UTF-8").current_dir(self.directory.path());
        command.env("XDG_CACHE_HOME", NO_CACHE);
        command.stdin(Stdio::null());
        command
    }

    /// Every file below a directory: its bytes, its mode, and where it leads if it is a link.
    fn tree(&self, below: &str) -> BTreeMap<PathBuf, (Vec<u8>, u32)> {
        let mut all = BTreeMap::new();
        let mut open = vec![self.directory.path().join(below)];
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
                let path = entry.path();
                if path == self.path("bin") {
                    continue;
                }
                let metadata = path.symlink_metadata().unwrap();
                let content = if metadata.is_dir() {
                    open.push(path.clone());
                    b"directory".to_vec()
                } else if metadata.is_symlink() {
                    fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
                } else {
                    self.without_own_name(fs::read(&path).unwrap())
                };
                let name = path.strip_prefix(self.directory.path()).unwrap().to_owned();
                all.insert(name, (content, metadata.mode()));
            }
        }
        all
    }

    /// The content of a file, without the place's own name.
    fn without_own_name(&self, content: Vec<u8>) -> Vec<u8> {
        let own = self.directory.path().as_os_str().as_encoded_bytes();
        let has_it = content.windows(own.len()).any(|window| window == own);
        if has_it { self.text(&content).into_bytes() } else { content }
    }

    /// What was printed, without the place's own name.
    fn text(&self, bytes: &[u8]) -> String {
        let own = self.directory.path().display().to_string();
        String::from_utf8_lossy(bytes).replace(&own, "PLACE")
    }
}

/// Prepares and runs the same on both sides; what a caller sees must be equal.
fn both(
    what: &str,
    prepare: impl Fn(&Place),
    run: impl Fn(&Place) -> Command,
    compare_below: &str,
) -> Output {
    let [original, ours] = [Side::Original, Side::Ours].map(|side| {
        let place = Place::new(side);
        prepare(&place);
        let output = run(&place).output().unwrap();
        (place, output)
    });
    let told = |(place, output): &(Place, Output)| {
        format!("{:?} stderr: {}", place.side, place.text(&output.stderr))
    };
    let context = || format!("{what}\n{}\n{}", told(&original), told(&ours));
    assert_eq!(ours.1.status.code(), original.1.status.code(), "exit code of {}", context());
    let stdout = |(place, output): &(Place, Output)| place.text(&output.stdout);
    assert_eq!(stdout(&ours), stdout(&original), "stdout of {}", context());
    let (mine, theirs) = (ours.0.tree(compare_below), original.0.tree(compare_below));
    for (path, (content, mode)) in &theirs {
        let Some((my_content, my_mode)) = mine.get(path) else {
            panic!("no {} after {}", path.display(), context())
        };
        let shown = String::from_utf8_lossy;
        assert_eq!(shown(my_content), shown(content), "{} after {}", path.display(), context());
        assert_eq!(
            format!("{my_mode:o}"),
            format!("{mode:o}"),
            "{} after {}",
            path.display(),
            context()
        );
    }
    assert_eq!(mine.len(), theirs.len(), "more files than before after {}", context());
    ours.1
}
