//! OFFER: everything about a transfer but its bytes.

use super::varint::{self, Reader};
use super::{ended, malformed};
use crate::{PacketError, name};

/// The document's bytes as they are.
pub(crate) const ENCODING_RAW: u64 = 0;

/// Opens a transfer; in every packet with DATA of the transfer until acknowledged.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Offer<'a> {
    /// The transfer, counted by its sender from 0.
    pub(crate) transfer: u64,
    /// The document's version.
    pub(crate) version: u64,
    /// The version that a delta builds on; 0 when the encoding needs none.
    pub(crate) base: u64,
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
}

impl<'a> Offer<'a> {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        for field in [
            self.transfer,
            self.version,
            self.base,
            self.encoding,
            self.plain_length,
            self.encoded_length,
        ] {
            varint::put(out, field);
        }
        out.extend_from_slice(&self.sha256);
        varint::put(out, self.name.len() as u64);
        out.extend_from_slice(self.name.as_bytes());
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, PacketError> {
        let mut field = || reader.varint().map_err(ended("OFFER"));
        let transfer = field()?;
        let version = field()?;
        let base = field()?;
        let encoding = field()?;
        let plain_length = field()?;
        let encoded_length = field()?;
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(reader.take(32).map_err(ended("OFFER"))?);
        let name_length = reader.varint().map_err(ended("OFFER"))?;
        let name = reader.take(name_length).map_err(ended("OFFER"))?;
        let name = name::check(name).map_err(|_| malformed("OFFER", "name is not allowed"))?;
        Ok(Self { transfer, version, base, encoding, plain_length, encoded_length, sha256, name })
    }
}

impl std::fmt::Debug for Offer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Offer {{ transfer {}, {} v{} base {}, encoding {}, {} of {} bytes, sha256 {:02x}{:02x}… }}",
            self.transfer,
            self.name,
            self.version,
            self.base,
            self.encoding,
            self.encoded_length,
            self.plain_length,
            self.sha256[0],
            self.sha256[1],
        )
    }
}
