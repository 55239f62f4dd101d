use crate::wire::{Malformed, NamedGroup, Reader, SignatureScheme, Write};

const NAMED_CURVE: u8 = 3;

/// A signature with its scheme (RFC 5246 §4.7); also the whole of CertificateVerify.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Signed<'a> {
    pub(crate) scheme: SignatureScheme,
    pub(crate) signature: &'a [u8],
}

impl<'a> Signed<'a> {
    fn read_from(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok(Self { scheme: SignatureScheme(r.u16()?), signature: r.vec16()? })
    }

    /// CertificateVerify (RFC 5246 §7.4.8).
    pub(crate) fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(body, "CertificateVerify");
        let this = Self::read_from(&mut r)?;
        r.finish()?;
        Ok(this)
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.u16(self.scheme.0);
        out.vec16(|w| w.bytes(self.signature));
    }
}

/// ServerKeyExchange for ECDHE (RFC 8422 §5.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ServerKeyExchange<'a> {
    pub(crate) group: NamedGroup,
    pub(crate) point: &'a [u8],
    /// The bytes that are signed, behind both randoms.
    pub(crate) parameters: &'a [u8],
    pub(crate) signed: Signed<'a>,
}

impl<'a> ServerKeyExchange<'a> {
    pub(crate) fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(body, "ServerKeyExchange");
        if r.u8()? != NAMED_CURVE {
            return Err(r.fault());
        }
        let group = NamedGroup(r.u16()?);
        let point = r.vec8()?;
        let parameters = &body[..4 + point.len()];
        let signed = Signed::read_from(&mut r)?;
        r.finish()?;
        Ok(Self { group, point, parameters, signed })
    }

    /// The signed part.
    pub(crate) fn write_parameters(group: NamedGroup, point: &[u8], out: &mut Vec<u8>) {
        out.u8(NAMED_CURVE);
        out.u16(group.0);
        out.vec8(|w| w.bytes(point));
    }
}

/// ClientKeyExchange for ECDHE (RFC 8422 §5.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClientKeyExchange<'a> {
    pub(crate) point: &'a [u8],
}

impl<'a> ClientKeyExchange<'a> {
    pub(crate) fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(body, "ClientKeyExchange");
        let point = r.vec8()?;
        r.finish()?;
        Ok(Self { point })
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.vec8(|w| w.bytes(self.point));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_exchanges_read_back_and_truncations_are_malformed() {
        let mut bytes = Vec::new();
        ServerKeyExchange::write_parameters(NamedGroup::SECP256R1, b"\x04xy", &mut bytes);
        Signed { scheme: SignatureScheme::ECDSA_SHA256, signature: b"sig" }.write(&mut bytes);
        assert_eq!(bytes, [3, 0, 23, 3, 4, b'x', b'y', 4, 3, 0, 3, b's', b'i', b'g']);
        let read = ServerKeyExchange::read(&bytes).unwrap();
        assert_eq!((read.group, read.point), (NamedGroup::SECP256R1, &b"\x04xy"[..]));
        assert_eq!(read.parameters, &bytes[..7]);
        assert_eq!(read.signed.signature, b"sig");
        assert!((0..bytes.len()).all(|cut| ServerKeyExchange::read(&bytes[..cut]).is_err()));
        let mut explicit_curve = bytes;
        explicit_curve[0] = 1;
        assert!(ServerKeyExchange::read(&explicit_curve).is_err());

        let mut bytes = Vec::new();
        ClientKeyExchange { point: b"abc" }.write(&mut bytes);
        assert_eq!(ClientKeyExchange::read(&bytes).unwrap().point, b"abc");
        assert!((0..bytes.len()).all(|cut| ClientKeyExchange::read(&bytes[..cut]).is_err()));
        assert!(ClientKeyExchange::read(&[1, 2, 3]).is_err(), "bytes behind the point");
    }
}
