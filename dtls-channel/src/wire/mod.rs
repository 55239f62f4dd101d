//! Reading and writing of TLS presentation language: total, without panics or allocation on read.

pub(crate) mod ids;

pub use ids::AlertDescription;
pub(crate) use ids::{ContentType, HandshakeType, NamedGroup, SignatureScheme};

/// The bytes do not form what they should; the caller decides whether that is a drop or an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed {0}")]
pub(crate) struct Malformed(pub(crate) &'static str);

/// A cursor that only ever hands out bytes that exist.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// Reads `bytes`; errors name `what`.
    pub(crate) fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    pub(crate) fn fault(&self) -> Malformed {
        Malformed(self.what)
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.rest.split_at_checked(length).ok_or(Malformed(self.what))?;
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed(self.what))?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[b]| b)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u24(&mut self) -> Result<u32, Malformed> {
        self.array::<3>().map(|[a, b, c]| u32::from_be_bytes([0, a, b, c]))
    }

    /// A vector with a one-byte length.
    pub(crate) fn vec8(&mut self) -> Result<&'a [u8], Malformed> {
        let length = usize::from(self.u8()?);
        self.take(length)
    }

    /// A vector with a two-byte length.
    pub(crate) fn vec16(&mut self) -> Result<&'a [u8], Malformed> {
        let length = usize::from(self.u16()?);
        self.take(length)
    }

    /// A vector with a three-byte length.
    pub(crate) fn vec24(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.u24()? as usize;
        self.take(length)
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Everything must have been read.
    pub(crate) fn finish(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed(self.what)) }
    }
}

/// The two-byte values of a vector whose length must be even and not zero.
pub(crate) fn u16_list(bytes: &[u8]) -> Option<impl Iterator<Item = u16> + Clone + '_> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    (rest.is_empty() && !pairs.is_empty()).then(|| pairs.iter().map(|p| u16::from_be_bytes(*p)))
}

/// Appends big-endian integers and length-prefixed vectors.
pub(crate) trait Write {
    fn u8(&mut self, value: u8);
    fn u16(&mut self, value: u16);
    fn u24(&mut self, value: u32);
    fn bytes(&mut self, value: &[u8]);
    /// Writes what `body` writes, behind its length in one byte.
    fn vec8(&mut self, body: impl FnOnce(&mut Self));
    /// Writes what `body` writes, behind its length in two bytes.
    fn vec16(&mut self, body: impl FnOnce(&mut Self));
    /// Writes what `body` writes, behind its length in three bytes.
    fn vec24(&mut self, body: impl FnOnce(&mut Self));
}

impl Write for Vec<u8> {
    fn u8(&mut self, value: u8) {
        self.push(value);
    }

    fn u16(&mut self, value: u16) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn u24(&mut self, value: u32) {
        self.extend_from_slice(&value.to_be_bytes()[1..]);
    }

    fn bytes(&mut self, value: &[u8]) {
        self.extend_from_slice(value);
    }

    fn vec8(&mut self, body: impl FnOnce(&mut Self)) {
        prefixed::<1>(self, body);
    }

    fn vec16(&mut self, body: impl FnOnce(&mut Self)) {
        prefixed::<2>(self, body);
    }

    fn vec24(&mut self, body: impl FnOnce(&mut Self)) {
        prefixed::<3>(self, body);
    }
}

/// All our own messages are far below 2^16 bytes, so the length always fits its prefix.
fn prefixed<const N: usize>(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; N]);
    body(out);
    let length = (out.len() - at - N) as u64;
    debug_assert!(length < 1 << (8 * N));
    out[at..at + N].copy_from_slice(&length.to_be_bytes()[8 - N..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_with_a_prefix_is_read_back() {
        let mut out = Vec::new();
        out.vec8(|w| w.bytes(b"ab"));
        out.vec16(|w| w.vec24(|w| w.u16(0x0102)));
        out.u24(0x01_0203);
        assert_eq!(out, [2, b'a', b'b', 0, 5, 0, 0, 2, 1, 2, 1, 2, 3]);
        let mut r = Reader::new(&out, "test");
        assert_eq!(r.vec8(), Ok(&b"ab"[..]));
        assert_eq!(r.vec16(), Ok(&[0, 0, 2, 1, 2][..]));
        assert_eq!(r.u24(), Ok(0x01_0203));
        assert_eq!(r.finish(), Ok(()));
    }

    #[test]
    fn a_length_beyond_the_end_is_malformed() {
        assert_eq!(Reader::new(&[3, 1, 2], "x").vec8(), Err(Malformed("x")));
        assert_eq!(Reader::new(&[0, 0], "x").u24(), Err(Malformed("x")));
        assert!(u16_list(&[1, 2, 3]).is_none() && u16_list(&[]).is_none());
    }
}
