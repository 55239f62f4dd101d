use crate::crypto::PEER_SCHEMES;
use crate::wire::{Malformed, Reader, SignatureScheme, Write, u16_list};

/// RFC 8422 §5.5: `ecdsa_sign`, which covers Ed25519 as well.
const ECDSA_SIGN: u8 = 64;

/// Certificate (RFC 5246 §7.4.2). Only the first one counts: nobody builds chains here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Certificate<'a> {
    /// The end entity's DER; `None` if the list is empty.
    pub(crate) leaf: Option<&'a [u8]>,
}

impl<'a> Certificate<'a> {
    pub(crate) fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(body, "Certificate");
        let mut list = Reader::new(r.vec24()?, "Certificate list");
        r.finish()?;
        let mut leaf = None;
        while !list.is_empty() {
            let certificate = list.vec24()?;
            if certificate.is_empty() {
                return Err(list.fault());
            }
            leaf.get_or_insert(certificate);
        }
        Ok(Self { leaf })
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.vec24(|w| {
            if let Some(leaf) = self.leaf {
                w.vec24(|w| w.bytes(leaf));
            }
        });
    }
}

/// CertificateRequest (RFC 5246 §7.4.4); its authorities are not read, everything is self-signed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CertificateRequest<'a> {
    types: &'a [u8],
    schemes: &'a [u8],
}

impl<'a> CertificateRequest<'a> {
    pub(crate) fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(body, "CertificateRequest");
        let (types, schemes, _authorities) = (r.vec8()?, r.vec16()?, r.vec16()?);
        if u16_list(schemes).is_none() {
            return Err(r.fault());
        }
        r.finish()?;
        Ok(Self { types, schemes })
    }

    /// True if the server verifies `scheme`.
    pub(crate) fn verifies(&self, scheme: SignatureScheme) -> bool {
        self.types.contains(&ECDSA_SIGN)
            && u16_list(self.schemes).is_some_and(|mut list| list.any(|s| s == scheme.0))
    }

    /// Our request: any key we can verify, no authorities named.
    pub(crate) fn write(out: &mut Vec<u8>) {
        out.vec8(|w| w.u8(ECDSA_SIGN));
        out.vec16(|w| PEER_SCHEMES.iter().for_each(|s| w.u16(s.0)));
        out.vec16(|_| {});
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_read_back_and_truncations_are_malformed() {
        let mut bytes = Vec::new();
        Certificate { leaf: Some(b"DER") }.write(&mut bytes);
        assert_eq!(bytes, [0, 0, 6, 0, 0, 3, b'D', b'E', b'R']);
        assert_eq!(Certificate::read(&bytes), Ok(Certificate { leaf: Some(b"DER") }));
        assert!((0..bytes.len()).all(|cut| Certificate::read(&bytes[..cut]).is_err()));
        assert_eq!(Certificate::read(&[0, 0, 0]), Ok(Certificate { leaf: None }));
        assert!(Certificate::read(&[0, 0, 3, 0, 0, 0]).is_err(), "an empty certificate");
    }

    #[test]
    fn our_request_asks_for_what_we_verify() {
        let mut bytes = Vec::new();
        CertificateRequest::write(&mut bytes);
        assert_eq!(bytes, [1, 64, 0, 6, 4, 3, 5, 3, 8, 7, 0, 0]);
        let request = CertificateRequest::read(&bytes).unwrap();
        assert!(request.verifies(SignatureScheme::ECDSA_SHA256));
        assert!(!request.verifies(SignatureScheme(0x0603)));
        assert!((0..bytes.len()).all(|cut| CertificateRequest::read(&bytes[..cut]).is_err()));
    }
}
