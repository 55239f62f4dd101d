//! A disk with a limit, under the real database.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use redb::StorageBackend;

use super::*;

const PAGE: usize = 4096;

/// A sparse file on a disk of `pages_max` pages: like a file system, it takes what overwrites and
/// refuses what needs a page more.
#[derive(Debug)]
struct Disk {
    bytes: Mutex<Vec<u8>>,
    used: Mutex<BTreeSet<usize>>,
    pages_max: AtomicUsize,
    refused: AtomicU64,
}

#[derive(Debug, Clone)]
struct DiskFile(Arc<Disk>);

impl Disk {
    fn roomy() -> Arc<Self> {
        Arc::new(Self {
            bytes: Mutex::default(),
            used: Mutex::default(),
            pages_max: AtomicUsize::new(usize::MAX),
            refused: AtomicU64::new(0),
        })
    }

    fn fill(&self) {
        self.pages_max.store(self.used.lock().unwrap().len(), Ordering::SeqCst);
    }
}

impl StorageBackend for DiskFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.bytes.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap();
        out.copy_from_slice(&self.0.bytes.lock().unwrap()[start..start + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.bytes.lock().unwrap().resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap();
        let mut used = self.0.used.lock().unwrap();
        for page in start / PAGE..(start + data.len()).div_ceil(PAGE) {
            if !used.contains(&page) {
                if used.len() >= self.0.pages_max.load(Ordering::SeqCst) {
                    self.0.refused.fetch_add(1, Ordering::SeqCst);
                    return Err(io::Error::from(io::ErrorKind::StorageFull));
                }
                used.insert(page);
            }
        }
        self.0.bytes.lock().unwrap()[start..start + data.len()].copy_from_slice(data);
        Ok(())
    }
}

fn on(disk: &Arc<Disk>, free_bytes: FreeBytes) -> Arc<RedbBackend> {
    let disk = disk.clone();
    let open: Open = Box::new(move || {
        Database::builder().set_cache_size(1 << 20).create_with_backend(DiskFile(disk.clone()))
    });
    Arc::new(RedbBackend::with(Path::new("test.redb"), open, free_bytes).unwrap())
}

fn put(backend: &RedbBackend, key: &[u8], bytes: usize) -> Result<(), StoreError> {
    backend.write(bytes, &mut |tx| tx.put(Table::Contents, key, &vec![7; bytes]))
}

fn size(backend: &RedbBackend, key: &[u8]) -> Option<usize> {
    let mut size = None;
    backend
        .read(&mut |view| {
            size = view.get(Table::Contents, key)?.map(|v| v.len());
            Ok(())
        })
        .unwrap();
    size
}

#[test]
fn a_disk_that_fills_up_in_a_transaction_costs_that_transaction_only() {
    let disk = Disk::roomy();
    let backend = on(&disk, Box::new(|| Ok(u64::MAX)));
    put(&backend, b"small", 100).unwrap();
    disk.fill();
    for _ in 0..3 {
        let error = put(&backend, b"big", 5 << 20).unwrap_err();
        assert_eq!(error.code(), "store_full", "{error}");
        assert_eq!(size(&backend, b"small"), Some(100), "what was stored is served");
        assert_eq!(size(&backend, b"big"), None);
    }
    assert!(disk.refused.load(Ordering::SeqCst) >= 3, "the disk was asked");
    disk.pages_max.store(usize::MAX, Ordering::SeqCst);
    put(&backend, b"big", 5 << 20).unwrap();
    assert_eq!(size(&backend, b"big"), Some(5 << 20), "goes on when there is room again");
}

#[test]
fn a_disk_without_room_is_noticed_before_the_transaction() {
    let disk = Disk::roomy();
    let free = Arc::new(AtomicU64::new(u64::MAX));
    let now_free = free.clone();
    let backend = on(&disk, Box::new(move || Ok(now_free.load(Ordering::SeqCst))));
    free.store(3 << 20, Ordering::SeqCst);
    put(&backend, b"small", 100).unwrap();
    let error = put(&backend, b"big", 1 << 20).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the store is full: test.redb: 3145728 bytes free on its file system, 4194304 needed"
    );
    free.store(u64::MAX, Ordering::SeqCst);
    put(&backend, b"big", 1 << 20).unwrap();
}

#[test]
fn the_free_space_of_a_real_file_system_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    assert!(free_bytes(folder.path()).unwrap() > 0);
}
