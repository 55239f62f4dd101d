//! An append-only file of checksummed frames.
//!
//! ```text
//! agent-client journal 1\n
//! <checksum> <durable> <JSON list of records>\n
//! ```
//!
//! The checksum is the first 16 hex digits of the SHA-256 of the rest of the line; `durable` is how many
//! bytes of the file were known to be on disk when the frame was written. A frame is all or nothing.
//!
//! After a crash the end of the file may be torn, from the first byte that no sync had covered; that is
//! cut off at opening. A broken frame that a later, whole one declares durable is no torn end but damage,
//! and is not passed over: a lost "started" would let a config run twice.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use certs::file::{FileError, PRIVATE_FILE_MODE, write_atomic};
use thiserror::Error;

use super::states::Record;
use crate::document::{hex, sha256};

const HEADER: &[u8] = b"agent-client journal 1\n";
const CHECKSUM_HEX_DIGITS: usize = 16;

/// Why the journal could not be opened or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LogError {
    /// The file system said no.
    #[error("{doing} journal {path}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file could not be created or replaced.
    #[error(transparent)]
    File(#[from] FileError),
    /// Not a journal, or one of another format.
    #[error(
        "{path} is no journal of this version (it should begin with \"agent-client journal 1\")"
    )]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// Damaged in the middle.
    #[error(
        "journal {path} is damaged at byte {offset}, before records that are whole; \
         to go on without it move the file away, but configs may then run a second time"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the broken frame begins.
        offset: u64,
    },
    /// A record does not follow from the ones before it.
    #[error("journal {path}: {source}")]
    Illegal {
        /// The file.
        path: PathBuf,
        /// Which.
        source: super::IllegalTransition,
    },
    /// An earlier write left the file in an unknown state; only a restart can tell.
    #[error("journal {path} is closed after an earlier fault ({fault}); restart the agent")]
    Closed {
        /// The file.
        path: PathBuf,
        /// What happened.
        fault: String,
    },
    /// A record could not be written as JSON.
    #[error("a record cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// The three things the log does to its file; tests make each of them fail.
pub trait LogFile {
    /// Appends bytes.
    ///
    /// # Errors
    /// Those of the system; some of the bytes may have been written.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Forces what was appended to disk.
    ///
    /// # Errors
    /// Those of the system; what is on disk is then unknown.
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts the file to `length` bytes.
    ///
    /// # Errors
    /// Those of the system.
    fn cut(&mut self, length: u64) -> io::Result<()>;
}

impl LogFile for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)?;
        self.seek(SeekFrom::Start(length)).map(|_| ())
    }
}

/// The journal's file.
#[derive(Debug)]
pub struct Log<F = File> {
    path: PathBuf,
    file: F,
    /// Bytes of whole frames.
    length: u64,
    /// Bytes known to be on disk.
    durable: u64,
    fault: Option<String>,
}

impl Log {
    /// Opens the journal at `path`, made if absent, and reads it. A torn end is cut off.
    ///
    /// # Errors
    /// I/O, a file of another format, damage in the middle.
    pub fn open(path: &Path) -> Result<(Self, Vec<Record>), LogError> {
        let io = |doing| move |source| LogError::Io { doing, path: path.to_owned(), source };
        if !path.try_exists().map_err(io("finding"))? {
            write_atomic(path, HEADER, PRIVATE_FILE_MODE)?;
        }
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(path)
            .map_err(io("opening"))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io("reading"))?;
        let (records, length) = read(&bytes, path)?;
        if length < bytes.len() as u64 {
            tracing::warn!(
                bytes = bytes.len() as u64 - length,
                "cutting off the torn end of the journal"
            );
            file.cut(length).map_err(io("cutting"))?;
            file.sync().map_err(io("syncing"))?;
        }
        Ok((Self::over(file, path, length), records))
    }

    /// The records of the journal at `path`, which is only read; none if there is no such file. A torn end
    /// is left out: it may be a frame that is being written.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn peek(path: &Path) -> Result<Vec<Record>, LogError> {
        match std::fs::read(path) {
            Ok(bytes) => Ok(read(&bytes, path)?.0),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(source) => Err(LogError::Io { doing: "reading", path: path.to_owned(), source }),
        }
    }

    /// Replaces the file by one with only these records, atomically.
    ///
    /// # Errors
    /// I/O; the old file stays in use, unless the new one is in place and cannot be opened.
    pub fn rewrite(&mut self, records: &[Record]) -> Result<(), LogError> {
        let mut bytes = HEADER.to_vec();
        bytes.extend_from_slice(&frame(0, records)?);
        let path = self.path.clone();
        if let Err(error) = write_atomic(&path, &bytes, PRIVATE_FILE_MODE) {
            // The new file may be in place although its directory could not be synced. What went to
            // the old one then would be lost.
            if !is_at(&self.file, &path) {
                self.fault = Some(error.to_string());
            }
            return Err(error.into());
        }
        // From here on the old file is no longer the journal: not a byte may go there.
        match OpenOptions::new().append(true).open(&path) {
            Ok(file) => {
                *self = Self::over(file, &path, bytes.len() as u64);
                Ok(())
            }
            Err(error) => {
                self.fault = Some(error.to_string());
                Err(LogError::Io { doing: "opening", path, source: error })
            }
        }
    }
}

impl<F: LogFile> Log<F> {
    fn over(file: F, path: &Path, length: u64) -> Self {
        Self { path: path.to_owned(), file, length, durable: length, fault: None }
    }

    /// Bytes in the file.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends one frame; with `sync` it is on disk when this returns.
    ///
    /// # Errors
    /// After a failed write the file is as before and the call can be repeated. After a failed sync the
    /// log is closed: what the disk holds is then unknown, and trying again would not tell.
    pub fn append(&mut self, records: &[Record], sync: bool) -> Result<(), LogError> {
        if let Some(fault) = &self.fault {
            return Err(LogError::Closed { path: self.path.clone(), fault: fault.clone() });
        }
        let frame = frame(self.durable, records)?;
        let path = &self.path;
        let io = |doing| move |source| LogError::Io { doing, path: path.clone(), source };
        if let Err(error) = self.file.append(&frame) {
            if let Err(cut) = self.file.cut(self.length) {
                self.fault = Some(cut.to_string());
            }
            return Err(io("writing")(error));
        }
        if sync && let Err(error) = self.file.sync() {
            self.fault = Some(error.to_string());
            return Err(io("syncing")(error));
        }
        self.length += frame.len() as u64;
        if sync {
            self.durable = self.length;
        }
        Ok(())
    }

    /// Whether it was closed by a fault.
    pub fn is_closed(&self) -> bool {
        self.fault.is_some()
    }
}

/// Whether `file` is the one at `path`.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::symlink_metadata(path)) {
        (Ok(open), Ok(there)) => (open.dev(), open.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

fn frame(durable: u64, records: &[Record]) -> Result<Vec<u8>, LogError> {
    let mut text = format!("{durable} ").into_bytes();
    serde_json::to_writer(&mut text, records)?;
    let mut frame = format!("{} ", checksum(&text)).into_bytes();
    frame.append(&mut text);
    frame.push(b'\n');
    Ok(frame)
}

fn checksum(text: &[u8]) -> String {
    hex(&sha256(text)[..CHECKSUM_HEX_DIGITS / 2])
}

/// All records, and how many bytes at the front of the file are whole.
fn read(bytes: &[u8], path: &Path) -> Result<(Vec<Record>, u64), LogError> {
    if !bytes.starts_with(HEADER) {
        return Err(LogError::Format { path: path.to_owned() });
    }
    let mut records = Vec::new();
    let mut good = HEADER.len();
    let mut at = good;
    while at < bytes.len() {
        let end = bytes[at..].iter().position(|&b| b == b'\n').map(|n| at + n);
        let frame = end.and_then(|end| read_frame(&bytes[at..end]));
        let next = end.map_or(bytes.len(), |end| end + 1);
        match frame {
            Some((_, frame)) if good == at => {
                records.extend(frame);
                good = next;
            }
            Some((durable, _)) if durable > good as u64 => {
                return Err(LogError::Damaged { path: path.to_owned(), offset: good as u64 });
            }
            // Broken, or whole but behind something broken and never known to be durable.
            Some(_) | None => {}
        }
        at = next;
    }
    Ok((records, good as u64))
}

fn read_frame(line: &[u8]) -> Option<(u64, Vec<Record>)> {
    let (sum, text) = line.split_at_checked(CHECKSUM_HEX_DIGITS)?;
    let text = text.strip_prefix(b" ")?;
    if sum != checksum(text).as_bytes() {
        return None;
    }
    let (durable, json) = std::str::from_utf8(text).ok()?.split_once(' ')?;
    Some((durable.parse().ok()?, serde_json::from_str(json).ok()?))
}

#[cfg(test)]
mod tests {
    use super::super::states::tests::{finished, received, signalled, started};
    use super::*;

    fn journal() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        (dir, path)
    }

    #[test]
    fn a_journal_that_was_replaced_is_told_from_the_one_that_is_open() {
        let (dir, path) = journal();
        let (log, _) = Log::open(&path).unwrap();
        assert!(is_at(&log.file, &path));
        std::fs::write(dir.path().join("other"), HEADER).unwrap();
        std::fs::rename(dir.path().join("other"), &path).unwrap();
        assert!(!is_at(&log.file, &path));
    }

    fn fs_len(path: &Path) -> usize {
        std::fs::metadata(path).unwrap().len() as usize
    }

    fn some_frames() -> [Vec<Record>; 3] {
        [
            vec![received("a"), received("b")],
            vec![started("a")],
            vec![finished("a"), signalled("a")],
        ]
    }

    #[test]
    fn what_was_appended_is_read_back_in_order() {
        let (_dir, path) = journal();
        let (mut log, empty) = Log::open(&path).unwrap();
        assert!(empty.is_empty());
        for frame in some_frames() {
            log.append(&frame, true).unwrap();
        }
        let (again, records) = Log::open(&path).unwrap();
        assert_eq!(records, some_frames().concat());
        assert_eq!(again.length(), log.length());
    }

    #[test]
    fn a_journal_cut_at_any_byte_opens_with_the_whole_frames_before_it() {
        let (_dir, path) = journal();
        let (mut log, _) = Log::open(&path).unwrap();
        let mut ends = vec![log.length()];
        for frame in some_frames() {
            log.append(&frame, true).unwrap();
            ends.push(log.length());
        }
        let bytes = std::fs::read(&path).unwrap();
        for cut in HEADER.len()..=bytes.len() {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            let peeked = Log::peek(&path).unwrap();
            assert_eq!(fs_len(&path), cut, "peeking cuts nothing off");
            let (mut log, records) = Log::open(&path).unwrap();
            assert_eq!(peeked, records);
            let whole = ends.iter().filter(|&&end| end <= cut as u64).count() - 1;
            assert_eq!(records, some_frames()[..whole].concat(), "cut at {cut}");
            assert_eq!(log.length(), ends[whole]);
            log.append(&[received("z")], true).unwrap();
            let (_, records) = Log::open(&path).unwrap();
            assert_eq!(records.last(), Some(&received("z")), "appends after a cut at {cut}");
        }
    }

    #[test]
    fn a_tail_of_zeros_is_torn_too() {
        let (_dir, path) = journal();
        let (mut log, _) = Log::open(&path).unwrap();
        log.append(&[received("a")], true).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend([0; 4096]);
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(Log::open(&path).unwrap().1, [received("a")]);
    }

    #[test]
    fn damage_before_a_whole_frame_is_not_passed_over() {
        let (_dir, path) = journal();
        let (mut log, _) = Log::open(&path).unwrap();
        for frame in some_frames() {
            log.append(&frame, true).unwrap();
        }
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[HEADER.len() + 30] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let error = Log::open(&path).unwrap_err().to_string();
        assert!(error.contains("damaged at byte 23"), "{error}");
    }

    #[test]
    fn frames_that_no_sync_covered_may_be_torn_in_any_order() {
        let (_dir, path) = journal();
        let (mut log, _) = Log::open(&path).unwrap();
        log.append(&[received("a")], true).unwrap();
        let durable = log.length() as usize;
        log.append(&[started("a")], false).unwrap();
        log.append(&[received("b")], false).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[durable + 20] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(Log::open(&path).unwrap().1, [received("a")], "cut where durability ended");
        assert_eq!(std::fs::metadata(&path).unwrap().len() as usize, durable);
    }

    #[test]
    fn a_file_of_another_kind_is_left_alone() {
        let (_dir, path) = journal();
        std::fs::write(&path, "hello\n").unwrap();
        assert!(matches!(Log::open(&path), Err(LogError::Format { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), b"hello\n");
    }

    #[test]
    fn compaction_leaves_only_the_given_records_and_appends_go_to_the_new_file() {
        let (_dir, path) = journal();
        let (mut log, _) = Log::open(&path).unwrap();
        for frame in some_frames() {
            log.append(&frame, true).unwrap();
        }
        let before = log.length();
        log.rewrite(&[received("b")]).unwrap();
        assert!(log.length() < before);
        log.append(&[started("b")], true).unwrap();
        assert_eq!(Log::open(&path).unwrap().1, [received("b"), started("b")]);
    }

    /// A file whose operations fail when told to.
    #[derive(Default)]
    struct Faulty {
        bytes: Vec<u8>,
        /// The append after this many more bytes fails, having written them.
        room: Option<usize>,
        sync_fails: bool,
        cut_fails: bool,
    }

    impl LogFile for Faulty {
        fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
            let fits = self.room.map_or(bytes.len(), |room| room.min(bytes.len()));
            self.bytes.extend_from_slice(&bytes[..fits]);
            if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        }

        fn sync(&mut self) -> io::Result<()> {
            if self.sync_fails { Err(io::Error::other("input/output error")) } else { Ok(()) }
        }

        fn cut(&mut self, length: u64) -> io::Result<()> {
            if self.cut_fails {
                return Err(io::Error::other("input/output error"));
            }
            self.bytes.truncate(length as usize);
            Ok(())
        }
    }

    fn faulty() -> Log<Faulty> {
        let file = Faulty { bytes: HEADER.to_vec(), ..Faulty::default() };
        Log::over(file, Path::new("journal"), HEADER.len() as u64)
    }

    #[test]
    fn a_full_disk_leaves_the_file_whole_and_the_append_can_be_repeated() {
        let mut log = faulty();
        log.append(&[received("a")], true).unwrap();
        log.file.room = Some(10);
        let error = log.append(&[started("a")], true).unwrap_err();
        assert!(matches!(error, LogError::Io { doing: "writing", .. }), "{error}");
        let (records, whole) = read(&log.file.bytes, Path::new("journal")).unwrap();
        assert_eq!((records, whole as usize), (vec![received("a")], log.file.bytes.len()));
        log.file.room = None;
        log.append(&[started("a")], true).unwrap();
        let (records, _) = read(&log.file.bytes, Path::new("journal")).unwrap();
        assert_eq!(records, [received("a"), started("a")]);
    }

    #[test]
    fn a_failed_sync_closes_the_log_for_good() {
        let mut log = faulty();
        log.file.sync_fails = true;
        assert!(log.append(&[received("a")], true).is_err());
        log.file.sync_fails = false;
        assert!(matches!(log.append(&[received("b")], true), Err(LogError::Closed { .. })));
        assert!(log.is_closed());
    }

    #[test]
    fn a_torn_write_that_cannot_be_cut_off_closes_the_log() {
        let mut log = faulty();
        log.file.room = Some(3);
        log.file.cut_fails = true;
        assert!(matches!(log.append(&[received("a")], true), Err(LogError::Io { .. })));
        assert!(matches!(log.append(&[received("a")], true), Err(LogError::Closed { .. })));
    }
}
