//! What stands for a document on the wire: the document itself, compressed, or a delta.
//!
//! A delta is the document compressed by zstd with the version before it as its prefix, so that
//! what has not changed costs a reference. Forms are cheap to clone: agents that get the same
//! document, and hold the same one before it, share one. Making one takes time, at 16 MiB
//! some 40 ms; a session only reads them, so that whoever offers one decides where that time is spent.

use std::fmt;

use bytes::Bytes;
use zstd_safe::{CCtx, CParameter, DCtx};

use crate::message::Hex32;
use crate::wire::{ENCODING_DELTA, ENCODING_RAW, ENCODING_ZSTD, ENCODINGS_RAW};

/// A document shorter than this is sent as it is: it takes one datagram either way.
pub const ENCODED_BYTES_MIN: usize = 1000;

/// zstd's level. Higher ones take up to ten times as long with documents of deployments, and a delta
/// is no smaller; docs/benchmarks.md has the figures.
const LEVEL: i32 = 1;

/// From so many bytes of base and document together on, what they share is searched with zstd's
/// long-distance matcher: the tables of a low level do not remember that much.
const LONG_DISTANCE_BYTES_MIN: usize = 512 << 10;

/// A document that the receiver is known to hold.
#[derive(Clone, PartialEq, Eq)]
pub struct Base {
    sha256: Hex32,
    body: Bytes,
}

impl Base {
    /// The digest is taken from the bytes, so that it cannot be another document's.
    pub fn new(body: Bytes) -> Self {
        Self { sha256: Hex32::sha256_of(&body), body }
    }

    /// With a digest that was taken from these bytes before. With a wrong one, deltas to it come out as
    /// no document.
    pub fn with_digest(body: Bytes, sha256: Hex32) -> Self {
        Self { sha256, body }
    }

    /// Of its bytes.
    pub fn sha256(&self) -> Hex32 {
        self.sha256
    }

    pub(crate) fn body(&self) -> &[u8] {
        &self.body
    }
}

/// Documents may hold secrets: only the length is shown.
impl fmt::Debug for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Base({} bytes)", self.body.len())
    }
}

/// A document's bytes, and what is sent in their place to a peer that can read it.
#[derive(Clone)]
pub struct Form {
    plain: Bytes,
    sha256: Hex32,
    encoded: Option<Encoded>,
}

#[derive(Clone)]
struct Encoded {
    /// Digest of the document it builds on, if it is a delta.
    base: Option<Hex32>,
    bytes: Bytes,
}

/// Documents may hold secrets: only lengths are shown.
impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Form({} bytes", self.plain.len())?;
        match &self.encoded {
            Some(Encoded { base: Some(_), bytes }) => write!(f, ", delta of {})", bytes.len()),
            Some(Encoded { base: None, bytes }) => write!(f, ", compressed {})", bytes.len()),
            None => write!(f, ")"),
        }
    }
}

impl Form {
    /// The document as it is.
    pub fn plain(body: Bytes) -> Self {
        let sha256 = Hex32::sha256_of(&body);
        Self::with_digest(body, sha256)
    }

    /// The document as it is, whose digest somebody has taken before. With a wrong one no peer
    /// ever takes the document.
    pub fn with_digest(body: Bytes, sha256: Hex32) -> Self {
        Self { plain: body, sha256, encoded: None }
    }

    /// Also as a delta to `base`, or compressed when there is none. As it is if that does not pay.
    #[must_use]
    pub fn encoded(self, base: Option<&Base>) -> Self {
        let bytes = encode(&self.plain, base.map(Base::body));
        let base = base.map(Base::sha256);
        Self { encoded: bytes.map(|bytes| Encoded { base, bytes: bytes.into() }), ..self }
    }

    /// The document.
    pub fn body(&self) -> &Bytes {
        &self.plain
    }

    /// Its digest.
    pub fn sha256(&self) -> Hex32 {
        self.sha256
    }

    /// Bytes in memory: those of the document and those sent in their place.
    pub fn held_bytes(&self) -> usize {
        self.plain.len() + self.encoded.as_ref().map_or(0, |encoded| encoded.bytes.len())
    }

    /// Bytes of the delta or the compressed document, if there is one.
    pub fn encoded_bytes(&self) -> Option<usize> {
        self.encoded.as_ref().map(|encoded| encoded.bytes.len())
    }

    /// What to send to a peer that reads these encodings.
    pub(crate) fn chosen(&self, encodings: u64) -> Chosen {
        if let Some(Encoded { base, bytes }) = &self.encoded {
            let encoding = if base.is_some() { ENCODING_DELTA } else { ENCODING_ZSTD };
            if encodings & (1 << encoding) != 0 {
                return Chosen { encoding, base: base.map(|base| base.0), bytes: bytes.clone() };
            }
        }
        Chosen { encoding: ENCODING_RAW, base: None, bytes: self.plain.clone() }
    }

    /// The same without anything but the document itself.
    pub(crate) fn stripped(self) -> Self {
        Self { encoded: None, ..self }
    }
}

/// One way to send a document.
#[derive(Clone)]
pub(crate) struct Chosen {
    pub(crate) encoding: u64,
    pub(crate) base: Option<[u8; 32]>,
    pub(crate) bytes: Bytes,
}

impl fmt::Debug for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chosen(encoding {}, {} bytes)", self.encoding, self.bytes.len())
    }
}

/// Bits for HELLO: what is read.
pub(crate) fn encodings(compressed: bool) -> u64 {
    if compressed {
        ENCODINGS_RAW | 1 << ENCODING_ZSTD | 1 << ENCODING_DELTA
    } else {
        ENCODINGS_RAW
    }
}

/// Compresses a document; `None` if that saves less than an eighth.
fn encode(plain: &[u8], base: Option<&[u8]>) -> Option<Vec<u8>> {
    if plain.len() < ENCODED_BYTES_MIN {
        return None;
    }
    // A failure of the library costs bytes, not the document.
    let mut context = CCtx::try_create()?;
    context.set_parameter(CParameter::CompressionLevel(LEVEL)).ok()?;
    // The OFFER says how long it is, and its digest whether it is right.
    context.set_parameter(CParameter::ContentSizeFlag(false)).ok()?;
    if let Some(base) = base {
        let reach = plain.len() + base.len();
        context.set_parameter(CParameter::WindowLog(reach.next_power_of_two().ilog2())).ok()?;
        let far = reach >= LONG_DISTANCE_BYTES_MIN;
        context.set_parameter(CParameter::EnableLongDistanceMatching(far)).ok()?;
        context.ref_prefix(base).ok()?;
    }
    let mut out = Vec::with_capacity(plain.len() - plain.len() / 8);
    // What does not fit is not worth sending.
    context.compress2(&mut out, plain).ok()?;
    out.shrink_to_fit();
    Some(out)
}

/// Why encoded bytes stand for no document of the announced length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Undecodable;

/// The document of `length` bytes that `encoded` stands for. Never writes a byte beyond that length,
/// whatever the encoded bytes say, and needs no memory besides: in one call into a buffer that holds
/// it all, zstd keeps no window.
pub(crate) fn decode(
    encoded: &[u8],
    base: Option<&Base>,
    length: usize,
) -> Result<Vec<u8>, Undecodable> {
    let mut context = DCtx::try_create().ok_or(Undecodable)?;
    if let Some(base) = base {
        context.ref_prefix(base.body()).map_err(|_| Undecodable)?;
    }
    let mut out = vec![0; length];
    match context.decompress(&mut out[..], encoded) {
        Ok(written) if written == length => Ok(out),
        _ => Err(Undecodable),
    }
}

#[cfg(test)]
mod tests;
