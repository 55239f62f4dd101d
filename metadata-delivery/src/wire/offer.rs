//! OFFER: everything about a transfer but its bytes.

use super::varint::{self, Reader};
use super::{ended, malformed};
use crate::{PacketError, name};

/// The document's bytes as they are.
pub(crate) const ENCODING_RAW: u64 = 0;
/// One or more zstd frames (RFC 8878).
pub(crate) const ENCODING_ZSTD: u64 = 1;
/// The same, with the base as the prefix of what is decompressed.
pub(crate) const ENCODING_DELTA: u64 = 2;

/// A field that was to hold the base's version. The digest says more, and is the same for all
/// receivers.
const RESERVED: u64 = 0;

/// Opens a transfer; in every packet with DATA of the transfer until acknowledged.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Offer<'a> {
    /// The transfer, counted by its sender from 0.
    pub(crate) transfer: u64,
    /// The document's version.
    pub(crate) version: u64,
    /// How the document is encoded.
    pub(crate) encoding: u64,
    /// Bytes of the document.
    pub(crate) plain_length: u64,
    /// Bytes of the encoded document: what DATA frames carry.
    pub(crate) encoded_length: u64,
    /// SHA-256 of the document.
    pub(crate) sha256: [u8; 32],
    /// The document's name, checked.
    pub(crate) name: &'a str,
    /// SHA-256 of the document that a delta builds on; there is one just when the encoding is
    /// [`ENCODING_DELTA`].
    pub(crate) base: Option<[u8; 32]>,
}

impl<'a> Offer<'a> {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        for field in [
            self.transfer,
            self.version,
            RESERVED,
            self.encoding,
            self.plain_length,
            self.encoded_length,
        ] {
            varint::put(out, field);
        }
        out.extend_from_slice(&self.sha256);
        varint::put(out, self.name.len() as u64);
        out.extend_from_slice(self.name.as_bytes());
        if let Some(base) = &self.base {
            out.extend_from_slice(base);
        }
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, PacketError> {
        let mut field = || reader.varint().map_err(ended("OFFER"));
        let transfer = field()?;
        let version = field()?;
        let _reserved = field()?;
        let encoding = field()?;
        let plain_length = field()?;
        let encoded_length = field()?;
        let sha256 = digest(reader)?;
        let name_length = reader.varint().map_err(ended("OFFER"))?;
        let name = reader.take(name_length).map_err(ended("OFFER"))?;
        let name = name::check(name).map_err(|_| malformed("OFFER", "name is not allowed"))?;
        let base = if encoding == ENCODING_DELTA { Some(digest(reader)?) } else { None };
        Ok(Self { transfer, version, encoding, plain_length, encoded_length, sha256, name, base })
    }
}

fn digest(reader: &mut Reader<'_>) -> Result<[u8; 32], PacketError> {
    let mut digest = [0; 32];
    digest.copy_from_slice(reader.take(32).map_err(ended("OFFER"))?);
    Ok(digest)
}

impl std::fmt::Debug for Offer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Offer {{ transfer {}, {} v{}, encoding {}, {} of {} bytes, sha256 {:02x}{:02x}… }}",
            self.transfer,
            self.name,
            self.version,
            self.encoding,
            self.encoded_length,
            self.plain_length,
            self.sha256[0],
            self.sha256[1],
        )
    }
}
