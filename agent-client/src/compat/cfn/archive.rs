//! Unpacks archives. Nothing in them is written outside of the directory they are unpacked into, neither by
//! a path nor through a link.

use std::fs::{File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use bzip2::read::MultiBzDecoder;
use flate2::read::MultiGzDecoder;

/// Most bytes that one archive may unpack to.
pub(super) const UNPACKED_BYTES_MAX: u64 = 16 << 30;

/// What is to be unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// Files.
    Tar,
    /// Files, compressed by gzip.
    TarGz,
    /// Files, compressed by bzip2.
    TarBz2,
    /// Files.
    Zip,
    /// One file of this name, compressed by gzip.
    Gz(String),
    /// One file of this name, compressed by bzip2.
    Bz2(String),
}

/// Unpacks what is in `file` into `directory`.
///
/// # Errors
/// It is damaged, leads out of the directory, is too large, or cannot be written.
pub(super) fn unpack(file: File, kind: &Kind, directory: &Path) -> Result<()> {
    unpack_within(file, kind, directory, UNPACKED_BYTES_MAX)
}

fn unpack_within(file: File, kind: &Kind, directory: &Path, bytes_max: u64) -> Result<()> {
    let limited = |reader: Box<dyn Read>| Limited { reader, left: bytes_max };
    match kind {
        Kind::Tar => tar(limited(Box::new(file)), directory),
        Kind::TarGz => tar(limited(Box::new(MultiGzDecoder::new(file))), directory),
        Kind::TarBz2 => tar(limited(Box::new(MultiBzDecoder::new(file))), directory),
        Kind::Gz(name) => one(limited(Box::new(MultiGzDecoder::new(file))), directory, name),
        Kind::Bz2(name) => one(limited(Box::new(MultiBzDecoder::new(file))), directory, name),
        Kind::Zip => zip(file, directory, bytes_max),
    }
}

fn tar(reader: impl Read, directory: &Path) -> Result<()> {
    let mut archive = tar::Archive::new(reader);
    // As tar does for root and for others.
    let is_root = rustix::process::geteuid().is_root();
    archive.set_preserve_permissions(is_root);
    archive.set_preserve_ownerships(is_root);
    let mut count = 0u64;
    for entry in archive.entries().context("reading the archive")? {
        let mut entry = entry.context("reading the archive")?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let is_inside =
            entry.unpack_in(directory).with_context(|| format!("unpacking {name:?}"))?;
        if !is_inside {
            bail!("{name:?} in the archive leads out of the directory");
        }
        count += 1;
    }
    if count == 0 {
        bail!("the archive is empty or no tar archive");
    }
    Ok(())
}

fn one(mut reader: impl Read, directory: &Path, name: &str) -> Result<()> {
    let mut temporary = tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(directory)
        .context("making a file")?;
    io::copy(&mut reader, temporary.as_file_mut())
        .with_context(|| format!("unpacking {name:?}"))?;
    temporary.as_file().sync_all()?;
    temporary.persist(directory.join(name)).with_context(|| format!("replacing {name:?}"))?;
    Ok(())
}

fn zip(file: File, directory: &Path, bytes_max: u64) -> Result<()> {
    let mut archive = zip::ZipArchive::new(file).context("reading the archive")?;
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).context("reading the archive")?;
        if entry.enclosed_name().is_none() {
            bail!("{:?} in the archive leads out of the directory", entry.name());
        }
    }
    // What the entries promise is what the library lets them have.
    let total = archive.decompressed_size().unwrap_or(u128::MAX);
    if total > u128::from(bytes_max) {
        bail!("the archive unpacks to more than {bytes_max} bytes");
    }
    archive.extract(directory).context("unpacking")
}

/// A reader that fails where an archive goes on too long.
struct Limited {
    reader: Box<dyn Read>,
    left: u64,
}

impl Read for Limited {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| {
            io::Error::new(io::ErrorKind::FileTooLarge, "the archive unpacks to too many bytes")
        })?;
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
