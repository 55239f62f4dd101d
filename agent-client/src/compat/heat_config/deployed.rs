//! What was done, in files that the Python version wrote too, and beside them what is unfinished.
//!
//! | file | means |
//! |---|---|
//! | `<id>.json` | the entry was taken up; it is not run again while this file is there |
//! | `<id>.notify.json` | its result |
//! | `<id>.running` | its hook runs, or was cut off; the file says by whom and in which boot |
//! | `<id>.unsent` | its result is there and nobody has taken it yet |
//!
//! Without one of the last two an entry is finished, so a directory left by the Python version means what
//! it meant. The order of writing is what makes it last: `running` before `json` before the hook starts;
//! `notify.json`, then `running` becomes `unsent` in one step; `unsent` goes once the result was taken.
//! Each is on disk before the next.
//!
//! Looking and taking up is one step, under a lock on the directory that is held for no longer than that.
//! While a process is at an entry the marker names it, so that another one leaves the entry alone.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use certs::file::{PRIVATE_FILE_MODE, write_atomic};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::document::{ConfigId, hex, sha256};
use crate::hooks::proc;
use crate::journal::ProcessMark;
use crate::json_text::json_text_indented;
use crate::pipeline::unix_ms;

/// As the Python version writes its files.
const INDENT: usize = 2;
/// Largest result that is read back.
const RESULT_BYTES_MAX: u64 = 64 << 20;

/// The directory.
#[derive(Debug)]
pub struct Deployed {
    /// As it was named: others are told so.
    directory: PathBuf,
    /// Whatever it is called.
    canonical: PathBuf,
    boot_id: String,
    us: ProcessMark,
}

/// The right to work on an entry, which no other process has.
#[derive(Debug)]
pub struct Claim {
    stem: String,
    marker: Marker,
}

/// Where an entry stands.
#[derive(Debug)]
pub enum Found {
    /// It was never taken up, or is to be done again: it is ours, and recorded.
    New(Claim),
    /// It is done.
    Done,
    /// The process of this number is at it.
    Busy(u32),
    /// Its hook was cut off. Nothing is left of it.
    Interrupted(Claim, Cut),
    /// Its result waits to be taken.
    Unsent(Claim),
}

/// What cut a hook off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The machine was restarted.
    Reboot,
    /// The process that ran it ended.
    Crash {
        /// Whether something of the hook was left, and is killed.
        killed: bool,
    },
}

/// What was done about an entry, for a program with a journal of its own that might do it again.
#[derive(Debug, Clone, PartialEq)]
pub enum Earlier {
    /// Nothing.
    Nothing,
    /// The process of this number runs its hook.
    AtIt(u32),
    /// It was taken up. Its result, if that is known.
    Done(Option<Value>),
}

/// The content of `running` and `unsent`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Marker {
    /// The boot in which the processes below live.
    boot_id: String,
    /// Who is at it; nobody between two attempts to send the result.
    owner: Option<ProcessMark>,
    /// The hook.
    hook: Option<ProcessMark>,
    /// When the entry was taken up, in milliseconds since 1970.
    since_unix_ms: u64,
}

impl Claim {
    /// For how long the entry has been unfinished, in milliseconds.
    pub fn age_ms(&self) -> u64 {
        unix_ms().saturating_sub(self.marker.since_unix_ms)
    }
}

impl Deployed {
    /// The directory, which exists.
    ///
    /// # Errors
    /// It has no name on this system.
    pub fn open(directory: &Path) -> Result<Self> {
        let canonical = fs::canonicalize(directory)
            .with_context(|| format!("could not open {}", directory.display()))?;
        let pid = std::process::id();
        let us = ProcessMark { pid, start_ticks: proc::start_ticks(pid).unwrap_or(0) };
        Ok(Self { directory: directory.into(), canonical, boot_id: proc::boot_id(), us })
    }

    /// Where the entry itself is.
    pub fn record(&self, claim: &Claim) -> PathBuf {
        self.path(&claim.stem, "json")
    }

    /// Where its result is.
    pub fn result(&self, claim: &Claim) -> PathBuf {
        self.path(&claim.stem, "notify.json")
    }

    /// Where the entry of this id would be.
    pub fn record_of(&self, id: &ConfigId) -> PathBuf {
        self.path(&stem(id), "json")
    }

    /// A name for the runs of this entry that no other one on this machine has.
    pub fn run_name(&self, id: &ConfigId) -> String {
        self.run_name_of(&stem(id))
    }

    fn run_name_of(&self, stem: &str) -> String {
        let mut text = b"heat-config\n".to_vec();
        text.extend_from_slice(self.canonical.as_os_str().as_bytes());
        text.extend_from_slice(format!("\n{stem}").as_bytes());
        hex(&sha256(&text)[..16])
    }

    /// Finds out where an entry stands and takes it up if somebody has to: a new one is then recorded, with
    /// `entry` as its text.
    ///
    /// # Errors
    /// A file cannot be read or written. Nothing is run then.
    pub fn claim(&self, id: &ConfigId, entry: &Value) -> Result<Found> {
        let stem = stem(id);
        let _lock = self.lock()?;
        let (running, unsent) = (self.marker(&stem, "running")?, self.marker(&stem, "unsent")?);
        let at_it = [&running, &unsent].into_iter().flatten().find_map(|m| self.owner_alive(m));
        if let Some(pid) = at_it {
            return Ok(Found::Busy(pid));
        }
        let fresh = Marker {
            boot_id: self.boot_id.clone(),
            owner: Some(self.us),
            hook: None,
            since_unix_ms: unix_ms(),
        };
        if !self.path(&stem, "json").exists() {
            // Somebody removed it to have the entry done again, whatever became of it.
            if let Some(marker) = &running {
                self.end_leftover(&stem, marker);
            }
            let claim = Claim { stem, marker: fresh };
            self.remove(&claim.stem, "unsent")?;
            self.remove(&claim.stem, "notify.json")?;
            self.write_marker(&claim, "running")?;
            self.write(&claim.stem, "json", entry)?;
            return Ok(Found::New(claim));
        }
        let ours =
            |marker: &Marker| Marker { since_unix_ms: marker.since_unix_ms, ..fresh.clone() };
        match (running, unsent) {
            (Some(marker), _) => {
                let has_result = self.path(&stem, "notify.json").exists();
                let cut = match self.end_leftover(&stem, &marker) {
                    None => Cut::Reboot,
                    Some(killed) => Cut::Crash { killed },
                };
                let claim = Claim { stem, marker: ours(&marker) };
                self.write_marker(&claim, "running")?;
                if has_result {
                    self.running_to_unsent(&claim.stem)?;
                    return Ok(Found::Unsent(claim));
                }
                Ok(Found::Interrupted(claim, cut))
            }
            (None, Some(marker)) => {
                let claim = Claim { stem, marker: ours(&marker) };
                self.write_marker(&claim, "unsent")?;
                Ok(Found::Unsent(claim))
            }
            (None, None) => Ok(Found::Done),
        }
    }

    /// Names of entries whose results wait to be taken, the one first that was tried least lately.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn unsent(&self) -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let stem = name.to_str().and_then(|name| name.strip_suffix(".unsent"));
            let Some(stem) = stem.filter(|stem| !stem.starts_with('.')) else { continue };
            // Each attempt writes it anew. One that has gone meanwhile was taken.
            let Ok(tried) = entry.metadata().and_then(|metadata| metadata.modified()) else {
                continue;
            };
            found.push((tried, stem.to_owned()));
        }
        found.sort();
        Ok(found.into_iter().map(|(_, stem)| stem).collect())
    }

    /// Takes up the result of an entry that waits to be taken; `None` if there is none, or somebody is at it.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn claim_unsent(&self, id: &ConfigId) -> Result<Option<Claim>> {
        let stem = stem(id);
        let _lock = self.lock()?;
        let (running, unsent) = (self.marker(&stem, "running")?, self.marker(&stem, "unsent")?);
        let Some(marker) = unsent.filter(|_| running.is_none()) else { return Ok(None) };
        if self.owner_alive(&marker).is_some() || !self.path(&stem, "json").exists() {
            return Ok(None);
        }
        let marker = Marker { boot_id: self.boot_id.clone(), owner: Some(self.us), ..marker };
        let claim = Claim { stem, marker };
        self.write_marker(&claim, "unsent")?;
        Ok(Some(claim))
    }

    /// Notes which process the hook is. It is found without the note too, so a failure is no harm.
    pub fn started(&self, claim: &mut Claim, hook: ProcessMark) {
        claim.marker.hook = Some(hook);
        let _ = self.write_marker(claim, "running");
    }

    /// Keeps the result; from now on it waits to be taken.
    ///
    /// # Errors
    /// It cannot be written: the entry then counts as cut off.
    pub fn finished(&self, claim: &Claim, result: &Value) -> Result<()> {
        self.write(&claim.stem, "notify.json", result)?;
        self.running_to_unsent(&claim.stem)
    }

    /// The result that waits.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read_result(&self, claim: &Claim) -> Result<Value> {
        let path = self.result(claim);
        let bytes = certs::file::read_public(&path, RESULT_BYTES_MAX)
            .with_context(|| format!("could not read {}", path.display()))?;
        serde_json::from_slice(&bytes)
            .map_err(|_| anyhow::anyhow!("{} holds no JSON", path.display()))
    }

    /// The result was taken, or nobody ever will: the entry is done.
    ///
    /// # Errors
    /// The marker cannot be removed; the result will be sent again.
    pub fn sent(&self, claim: &Claim) -> Result<()> {
        self.remove(&claim.stem, "unsent")
    }

    /// The result was not taken this time. It is nobody's until the next attempt.
    ///
    /// # Errors
    /// The marker cannot be written.
    pub fn not_sent(&self, claim: &Claim) -> Result<()> {
        let marker = Marker { owner: None, ..claim.marker.clone() };
        self.write_marker(&Claim { stem: claim.stem.clone(), marker }, "unsent")
    }

    /// Forgets what is unfinished of entries that are asked for no more: a result of theirs would count for
    /// the entry that has taken their place. What is left of their hooks is killed. Their names come back.
    ///
    /// # Errors
    /// The directory cannot be read or changed.
    pub fn forget_all_but<'i>(
        &self,
        listed: impl IntoIterator<Item = &'i ConfigId>,
    ) -> Result<Vec<String>> {
        let listed: Vec<String> = listed.into_iter().map(stem).collect();
        let _lock = self.lock()?;
        let mut forgotten = Vec::new();
        let here = || format!("could not read {}", self.directory.display());
        for entry in fs::read_dir(&self.directory).with_context(here)? {
            let name = entry.with_context(here)?.file_name();
            let Some((stem, suffix)) = name.to_str().and_then(|name| name.rsplit_once('.')) else {
                continue;
            };
            let is_marker = matches!(suffix, "running" | "unsent") && !stem.starts_with('.');
            if !is_marker || listed.iter().any(|listed| listed == stem) {
                continue;
            }
            let Some(marker) = self.marker(stem, suffix)? else { continue };
            if self.owner_alive(&marker).is_some() {
                continue;
            }
            if suffix == "running" {
                self.end_leftover(stem, &marker);
            }
            self.remove(stem, suffix)?;
            forgotten.push(format!("{stem}.{suffix}"));
        }
        forgotten.sort();
        Ok(forgotten)
    }

    /// The process that is at it, if it lives; ourselves not counted.
    fn owner_alive(&self, marker: &Marker) -> Option<u32> {
        let owner = marker.owner.filter(|owner| *owner != self.us)?;
        let lives = marker.boot_id == self.boot_id
            && proc::start_ticks(owner.pid) == Some(owner.start_ticks);
        lives.then_some(owner.pid)
    }

    /// Kills what is left of a hook; whether there was anything. `None`: it was of another boot.
    fn end_leftover(&self, stem: &str, marker: &Marker) -> Option<bool> {
        (marker.boot_id == self.boot_id)
            .then(|| proc::kill_leftover(marker.hook, &self.run_name_of(stem)))
    }

    fn lock(&self) -> Result<File> {
        let what = || format!("could not lock {}", self.directory.display());
        let directory = File::open(&self.directory).with_context(what)?;
        loop {
            match flock(&directory, FlockOperation::LockExclusive) {
                Ok(()) => return Ok(directory),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(io::Error::from(error)).with_context(what),
            }
        }
    }

    fn path(&self, stem: &str, suffix: &str) -> PathBuf {
        self.directory.join(format!("{stem}.{suffix}"))
    }

    fn write(&self, stem: &str, suffix: &str, value: &Value) -> Result<()> {
        let text = json_text_indented(value, INDENT);
        Ok(write_atomic(&self.path(stem, suffix), text.as_bytes(), PRIVATE_FILE_MODE)?)
    }

    fn write_marker(&self, claim: &Claim, suffix: &str) -> Result<()> {
        let text = serde_json::to_vec(&claim.marker)?;
        Ok(write_atomic(&self.path(&claim.stem, suffix), &text, PRIVATE_FILE_MODE)?)
    }

    /// A marker that cannot be understood (cut short, or by a later version) still marks.
    fn marker(&self, stem: &str, suffix: &str) -> Result<Option<Marker>> {
        let path = self.path(stem, suffix);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("could not read {}", path.display()));
            }
        };
        let unknown = || Marker {
            boot_id: self.boot_id.clone(),
            owner: None,
            hook: None,
            since_unix_ms: unix_ms(),
        };
        Ok(Some(serde_json::from_slice(&text).unwrap_or_else(|_| unknown())))
    }

    fn remove(&self, stem: &str, suffix: &str) -> Result<()> {
        let path = self.path(stem, suffix);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("could not remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    fn running_to_unsent(&self, stem: &str) -> Result<()> {
        let what = || format!("could not keep {stem}.unsent in {}", self.directory.display());
        fs::rename(self.path(stem, "running"), self.path(stem, "unsent")).with_context(what)?;
        File::open(&self.directory).and_then(|directory| directory.sync_all()).with_context(what)
    }
}

/// Looks what was done about an entry in this directory, if there is one. What is left of a hook that was cut
/// off is killed.
pub fn earlier(directory: &Path, id: &ConfigId) -> Earlier {
    let stem = stem(id);
    if !directory.join(format!("{stem}.json")).exists() {
        return Earlier::Nothing;
    }
    let Ok(deployed) = Deployed::open(directory) else { return Earlier::Done(None) };
    if let Ok(Some(marker)) = deployed.marker(&stem, "running") {
        if let Some(pid) = deployed.owner_alive(&marker) {
            return Earlier::AtIt(pid);
        }
        deployed.end_leftover(&stem, &marker);
    }
    let result = certs::file::read_public(&deployed.path(&stem, "notify.json"), RESULT_BYTES_MAX);
    Earlier::Done(result.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

/// What the names of an entry's files begin with.
pub(super) fn stem(id: &ConfigId) -> String {
    let name = id.file_name();
    // The result of "a" must not be the record of "a.notify".
    if Path::new(&*name).extension() == Some(OsStr::new("notify")) {
        return format!("~{}", hex(&sha256(id.as_str().as_bytes())));
    }
    name.into_owned()
}

#[cfg(test)]
mod tests;
