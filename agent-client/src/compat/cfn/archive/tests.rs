use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;

use zip::write::SimpleFileOptions;

use super::*;

fn file_of(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    file
}

/// Name, content or where it links to, mode; a name that no library would write is put in by hand.
enum Entry<'a> {
    File(&'a str, &'a [u8], u32),
    Link(&'a str, &'a str),
}

fn tar_of(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for entry in entries {
        let mut header = tar::Header::new_gnu();
        let (name, content): (&str, &[u8]) = match entry {
            Entry::File(name, content, mode) => {
                header.set_mode(*mode);
                header.set_size(content.len() as u64);
                (name, content)
            }
            Entry::Link(name, to) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                header.set_link_name(to).unwrap();
                (name, b"")
            }
        };
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_uid(u64::from(rustix::process::geteuid().as_raw()));
        header.set_gid(u64::from(rustix::process::getegid().as_raw()));
        header.set_cksum();
        builder.append(&header, content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn zip_of(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for entry in entries {
        match entry {
            Entry::File(name, content, mode) => {
                writer
                    .start_file(*name, SimpleFileOptions::default().unix_permissions(*mode))
                    .unwrap();
                writer.write_all(content).unwrap();
            }
            Entry::Link(name, to) => {
                writer.add_symlink(*name, *to, SimpleFileOptions::default()).unwrap();
            }
        }
    }
    writer.finish().unwrap().into_inner()
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn bz2(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

struct Place {
    root: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { root: tempfile::tempdir().unwrap() };
        fs::create_dir(place.inside()).unwrap();
        place
    }

    fn inside(&self) -> PathBuf {
        self.root.path().join("inside")
    }

    fn unpack(&self, bytes: &[u8], kind: &Kind) -> Result<()> {
        unpack_within(file_of(bytes), kind, &self.inside(), 1 << 20)
    }

    fn outside(&self) -> Vec<String> {
        let entries = fs::read_dir(self.root.path()).unwrap().flatten();
        let names = entries.map(|entry| entry.file_name().into_string().unwrap());
        names.filter(|name| name != "inside").collect()
    }
}

#[test]
fn archives_of_all_kinds_are_unpacked() {
    let entries =
        [Entry::File("a/run", b"#!/bin/sh\n", 0o755), Entry::File("a/b/text", b"hello", 0o644)];
    let tar = tar_of(&entries);
    for (kind, bytes) in [
        (Kind::Tar, tar.clone()),
        (Kind::TarGz, gz(&tar)),
        (Kind::TarBz2, bz2(&tar)),
        (Kind::Zip, zip_of(&entries)),
    ] {
        let place = Place::new();
        place.unpack(&bytes, &kind).unwrap();
        let text = place.inside().join("a/b/text");
        assert_eq!(fs::read(&text).unwrap(), b"hello", "{kind:?}");
        let mode = fs::metadata(place.inside().join("a/run")).unwrap().permissions().mode();
        assert_eq!(mode & 0o700, 0o700, "{kind:?}");
        // Again, over what is there.
        place.unpack(&bytes, &kind).unwrap();
    }
    for (kind, bytes) in [(Kind::Gz("x".into()), gz(b"one")), (Kind::Bz2("x".into()), bz2(b"one"))]
    {
        let place = Place::new();
        place.unpack(&bytes, &kind).unwrap();
        assert_eq!(fs::read(place.inside().join("x")).unwrap(), b"one");
    }
}

#[test]
fn nothing_is_written_outside_of_the_directory() {
    for name in ["../out", "a/../../out"] {
        let entries = [Entry::File(name, b"evil", 0o644)];
        for (kind, bytes) in [(Kind::Tar, tar_of(&entries)), (Kind::Zip, zip_of(&entries))] {
            let place = Place::new();
            let error = place.unpack(&bytes, &kind).unwrap_err().to_string();
            assert!(error.contains("leads out of the directory"), "{kind:?}: {error}");
            assert_eq!(place.outside(), Vec::<String>::new(), "{kind:?}");
        }
    }
    // A leading slash is taken off, as tar does.
    let place = Place::new();
    place.unpack(&tar_of(&[Entry::File("/etc/x", b"x", 0o644)]), &Kind::Tar).unwrap();
    assert!(place.inside().join("etc/x").exists());
}

#[test]
fn a_link_that_leads_out_is_not_written_through() {
    for to in ["..", "../elsewhere"] {
        let entries = [Entry::Link("link", to), Entry::File("link/out", b"evil", 0o644)];
        for (kind, bytes) in [(Kind::Tar, tar_of(&entries)), (Kind::Zip, zip_of(&entries))] {
            let place = Place::new();
            let elsewhere = place.root.path().join("elsewhere");
            fs::create_dir(&elsewhere).unwrap();
            assert!(place.unpack(&bytes, &kind).is_err(), "{kind:?} {to}");
            assert_eq!(place.outside(), ["elsewhere"], "{kind:?} {to}");
            assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0, "{kind:?} {to}");
        }
    }
}

#[test]
fn damaged_and_endless_archives_are_errors() {
    let entries = [Entry::File("a", &[7; 5000], 0o644)];
    let tar = tar_of(&entries);
    for (kind, bytes) in [
        (Kind::Tar, tar.clone()),
        (Kind::TarGz, gz(&tar)),
        (Kind::TarBz2, bz2(&tar)),
        (Kind::Zip, zip_of(&entries)),
        (Kind::Gz("x".into()), gz(b"one")),
    ] {
        let place = Place::new();
        assert!(place.unpack(&bytes[..bytes.len() / 2], &kind).is_err(), "half of {kind:?}");
        assert!(place.unpack(b"<html>not found</html>", &kind).is_err(), "no {kind:?}");
        assert!(place.unpack(b"", &kind).is_err(), "empty {kind:?}");
        assert!(!place.inside().join("x").exists());
    }
    let zeros = vec![0; 2 << 20];
    let large = [Entry::File("a", &zeros, 0o644)];
    for (kind, bytes) in [
        (Kind::TarGz, gz(&tar_of(&large))),
        (Kind::Gz("a".into()), gz(&zeros)),
        (Kind::Zip, zip_of(&large)),
    ] {
        let error = format!("{:#}", Place::new().unpack(&bytes, &kind).unwrap_err());
        assert!(error.contains("unpacks to"), "{kind:?}: {error}");
    }
}
