//! The store in one file, by redb: copy on write, checksummed, one fsync per transaction.
//!
//! redb stops for good at the first failed read or write of its file. A full disk must not stop the
//! server, so this back end (1) looks for room before a transaction starts, and (2) after a failure
//! drops the database and opens the file again, which is as the last commit left it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::RwLock;

use redb::{
    CommitError, Database, DatabaseError, Durability, ReadOnlyTable, ReadTransaction,
    ReadableDatabase, ReadableTable, SetDurabilityError, StorageError, TableDefinition, TableError,
    TransactionError, WriteTransaction,
};

use super::StoreError;
use super::backend::{Backend, ReadJob, Snapshot, Table, Transaction, Visit, WriteJob};

/// Memory for cached pages.
const CACHE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Free space to leave on the file system besides what a transaction needs: the room copy on write
/// takes for pages that are not data, and for repair.
const FREE_BYTES_MIN: u64 = 2 * 1024 * 1024;

type Open = Box<dyn Fn() -> Result<Database, DatabaseError> + Send + Sync>;
type FreeBytes = Box<dyn Fn() -> io::Result<u64> + Send + Sync>;

/// Tables in one file.
pub struct RedbBackend {
    path: PathBuf,
    open: Open,
    free_bytes: FreeBytes,
    /// `None` while the file cannot be opened.
    database: RwLock<Option<Database>>,
}

impl RedbBackend {
    /// Opens the file at `path`, or creates it (0600) and its folder (0700).
    ///
    /// # Errors
    /// The folder or file cannot be made or read, another process has it open, or it is no redb file.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        if let Some(folder) = path.parent() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .map_err(|e| io_error(&format!("creating {}", folder.display()), &e))?;
        }
        let file = path.to_owned();
        let folder = path.parent().unwrap_or_else(|| Path::new(".")).to_owned();
        Self::with(
            path,
            Box::new(move || open_private(&file)),
            Box::new(move || free_bytes(&folder)),
        )
    }

    /// A store whose file is opened by `open`: tests hand in one that fails.
    fn with(path: &Path, open: Open, free_bytes: FreeBytes) -> Result<Self, StoreError> {
        let store = Self { path: path.to_owned(), open, free_bytes, database: RwLock::new(None) };
        store.reopen()?;
        Ok(store)
    }

    fn reopen(&self) -> Result<(), StoreError> {
        let mut database = self.database.write().map_err(|_| StoreError::Closed)?;
        // The old one holds the file's lock until it is dropped.
        *database = None;
        let opened = (self.open)().map_err(|e| self.database_error(e))?;
        *database = Some(opened);
        Ok(())
    }

    /// Runs `job` on the database, opening it first if an earlier failure closed it.
    fn with_database(
        &self,
        job: &mut dyn FnMut(&Database) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let is_open = self.database.read().map_err(|_| StoreError::Closed)?.is_some();
        if !is_open {
            self.reopen()?;
        }
        let outcome = match self.database.read().map_err(|_| StoreError::Closed)?.as_ref() {
            Some(database) => job(database),
            None => Err(StoreError::Closed),
        };
        if let Err(error) = &outcome {
            // Which errors redb latches is its own affair; opening again is cheap and failures rare.
            if let Err(again) = self.reopen() {
                tracing::error!(%error, %again, "store failed and cannot be opened again yet");
            }
        }
        outcome
    }

    fn database_error(&self, error: DatabaseError) -> StoreError {
        match error {
            DatabaseError::DatabaseAlreadyOpen => StoreError::InUse { path: self.path.clone() },
            DatabaseError::Storage(StorageError::Io(e))
                if e.kind() == io::ErrorKind::InvalidData =>
            {
                StoreError::Corrupt { what: format!("{}: {e}", self.path.display()) }
            }
            DatabaseError::Storage(error) => error.into(),
            other => StoreError::Io { what: format!("store {}: {other}", self.path.display()) },
        }
    }

    fn check_room(&self, bytes: usize) -> Result<(), StoreError> {
        // Copy on write: the new value lies beside the old one until the commit.
        let needed = FREE_BYTES_MIN + 2 * bytes as u64;
        match (self.free_bytes)() {
            Ok(free) if free < needed => Err(StoreError::Full {
                what: format!(
                    "{}: {free} bytes free on its file system, {needed} needed",
                    self.path.display()
                ),
            }),
            // Not being able to tell is no reason not to try.
            _ => Ok(()),
        }
    }
}

impl Backend for RedbBackend {
    fn read(&self, job: &mut ReadJob<'_>) -> Result<(), StoreError> {
        self.with_database(&mut |database| {
            job(&View { transaction: database.begin_read()?, open: RefCell::default() })
        })
    }

    fn write(&self, bytes: usize, job: &mut WriteJob<'_>) -> Result<(), StoreError> {
        self.check_room(bytes)?;
        self.with_database(&mut |database| {
            let mut transaction = database.begin_write()?;
            transaction.set_durability(Durability::Immediate)?;
            job(&mut Changes { transaction: &transaction, open: RefCell::default() })?;
            Ok(transaction.commit()?)
        })
    }
}

fn definition(table: Table) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(table.name())
}

type ReadOnly = ReadOnlyTable<Bytes, Bytes>;

/// A snapshot, and the tables that were looked into so far: opening one costs as much as a lookup.
struct View {
    transaction: ReadTransaction,
    /// `None`: nothing was ever written to it.
    open: RefCell<BTreeMap<Table, Option<Rc<ReadOnly>>>>,
}

impl View {
    fn table(&self, table: Table) -> Result<Option<Rc<ReadOnly>>, StoreError> {
        if let Some(open) = self.open.borrow().get(&table) {
            return Ok(open.clone());
        }
        let open = match self.transaction.open_table(definition(table)) {
            Ok(open) => Some(Rc::new(open)),
            Err(TableError::TableDoesNotExist(_)) => None,
            Err(error) => return Err(error.into()),
        };
        self.open.borrow_mut().insert(table, open.clone());
        Ok(open)
    }
}

impl Snapshot for View {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.table(table)?.map_or(Ok(None), |table| get(&*table, key))
    }

    fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.table(table)?.map_or(Ok(()), |table| scan(&*table, from, visit))
    }
}

type Writable<'t> = Rc<RefCell<redb::Table<'t, Bytes, Bytes>>>;

/// A transaction, and the tables that it has opened so far.
struct Changes<'t> {
    transaction: &'t WriteTransaction,
    open: RefCell<BTreeMap<Table, Writable<'t>>>,
}

impl<'t> Changes<'t> {
    // Visitors of a scan may look into other tables, and into the same one.
    fn table(&self, table: Table) -> Result<Writable<'t>, StoreError> {
        if let Some(open) = self.open.borrow().get(&table) {
            return Ok(open.clone());
        }
        let open = Rc::new(RefCell::new(self.transaction.open_table(definition(table))?));
        self.open.borrow_mut().insert(table, open.clone());
        Ok(open)
    }
}

impl Snapshot for Changes<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        get(&*self.table(table)?.borrow(), key)
    }

    fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        scan(&*self.table(table)?.borrow(), from, visit)
    }
}

impl Transaction for Changes<'_> {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.table(table)?.borrow_mut().insert(key, value)?;
        Ok(())
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), StoreError> {
        self.table(table)?.borrow_mut().remove(key)?;
        Ok(())
    }
}

type Bytes = &'static [u8];

fn get(
    table: &impl ReadableTable<Bytes, Bytes>,
    key: &[u8],
) -> Result<Option<Vec<u8>>, StoreError> {
    Ok(table.get(key)?.map(|value| value.value().to_vec()))
}

fn scan(
    table: &impl ReadableTable<Bytes, Bytes>,
    from: &[u8],
    visit: &mut Visit<'_>,
) -> Result<(), StoreError> {
    for entry in table.range(from..)? {
        let (key, value) = entry?;
        if !visit(key.value(), value.value())? {
            break;
        }
    }
    Ok(())
}

impl From<StorageError> for StoreError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Io(e) => io_error("store", &e),
            StorageError::Corrupted(what) => Self::Corrupt { what },
            other => Self::Io { what: format!("store: {other}") },
        }
    }
}

impl From<TableError> for StoreError {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Storage(error) => error.into(),
            other => Self::Corrupt { what: other.to_string() },
        }
    }
}

impl From<TransactionError> for StoreError {
    fn from(error: TransactionError) -> Self {
        match error {
            TransactionError::Storage(error) => error.into(),
            other => Self::Io { what: format!("store: {other}") },
        }
    }
}

impl From<CommitError> for StoreError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Storage(error) => error.into(),
            other => Self::Io { what: format!("store: {other}") },
        }
    }
}

impl From<SetDurabilityError> for StoreError {
    fn from(error: SetDurabilityError) -> Self {
        Self::Io { what: format!("store: {error}") }
    }
}

fn io_error(what: &str, error: &io::Error) -> StoreError {
    let what = format!("{what}: {error}");
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            StoreError::Full { what }
        }
        io::ErrorKind::PermissionDenied => StoreError::Denied { what },
        _ => StoreError::Io { what },
    }
}

/// Opens or creates the file, readable by its owner only.
fn open_private(path: &Path) -> Result<Database, DatabaseError> {
    let file: File = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(StorageError::from)?;
    let backend = redb::backends::FileBackend::new(file)?;
    Database::builder().set_cache_size(CACHE_BYTES_MAX).create_with_backend(backend)
}

/// Bytes that an unprivileged process may still use on the file system of `folder`.
fn free_bytes(folder: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(folder)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests;
