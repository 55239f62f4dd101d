use std::net::IpAddr;

use zeroize::Zeroizing;

use crate::crypto::{CipherSuite, MasterSecret};
use crate::wire::{Malformed, Reader, Write};

const FORMAT: u8 = 2;
const CONTENT_BYTES_MAX: usize = 1 + 2 + 48 + 1 + 32 + 1 + 16;

/// What a ticket holds: all that a server needs to go on with a client it has forgotten. That there
/// was an extended master secret goes without saying, as there is no ticket without one.
#[derive(Debug)]
pub(crate) struct Resumable {
    /// With its suite.
    pub(crate) master: MasterSecret,
    /// SHA-256 of the client's certificate, whose key it has proved to hold; `None` if it was
    /// admitted without one. Not the certificate: a hello with ticket and cookie is to fit one small
    /// datagram.
    pub(crate) client: Option<[u8; 32]>,
    /// Where the client was, which it has proved with a cookie.
    pub(crate) address: IpAddr,
}

impl Resumable {
    pub(crate) fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(CONTENT_BYTES_MAX));
        out.u8(FORMAT);
        out.u16(self.master.suite().iana());
        out.bytes(self.master.as_bytes());
        out.vec8(|w| w.bytes(self.client.as_ref().map_or(&[], |client| client)));
        out.vec8(|w| match self.address.to_canonical() {
            IpAddr::V4(address) => w.bytes(&address.octets()),
            IpAddr::V6(address) => w.bytes(&address.octets()),
        });
        out
    }

    /// Authentic, and yet it may come from another version of this program.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes, "ticket");
        if r.u8()? != FORMAT {
            return Err(r.fault());
        }
        let suite = CipherSuite::from_iana(r.u16()?).ok_or_else(|| r.fault())?;
        let master = MasterSecret::from_bytes(suite, r.array()?);
        let client = optional_fingerprint(&mut r)?;
        let address = address(r.vec8()?).ok_or_else(|| r.fault())?;
        r.finish()?;
        Ok(Self { master, client, address })
    }

    /// Whether the client was at this address when it got the ticket.
    pub(crate) fn is_from(&self, address: IpAddr) -> bool {
        self.address.to_canonical() == address.to_canonical()
    }
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}

/// A vector of 32 bytes, or of none.
pub(super) fn optional_fingerprint(r: &mut Reader<'_>) -> Result<Option<[u8; 32]>, Malformed> {
    match r.vec8()? {
        [] => Ok(None),
        bytes => bytes.try_into().map(Some).map_err(|_| r.fault()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_reads_back_and_every_truncation_and_other_format_is_refused() {
        let addresses = ["192.0.2.7", "2001:db8::7"].map(|address| address.parse().unwrap());
        for (client, address) in [None, Some([3; 32])].into_iter().zip(addresses) {
            let suite = CipherSuite::Aes256GcmSha384;
            let resumable =
                Resumable { master: MasterSecret::from_bytes(suite, [9; 48]), client, address };
            let bytes = resumable.to_bytes();
            assert!(bytes.len() <= CONTENT_BYTES_MAX);
            let read = Resumable::from_bytes(&bytes).unwrap();
            assert_eq!((read.master.suite(), read.client), (suite, client));
            assert!(read.is_from(address) && !read.is_from("192.0.2.8".parse().unwrap()));
            assert_eq!(read.master.as_bytes(), &[9; 48]);
            assert!((0..bytes.len()).all(|cut| Resumable::from_bytes(&bytes[..cut]).is_err()));
            assert!(Resumable::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
            for at in [0, 1, 51] {
                let mut bent = bytes.to_vec();
                bent[at] ^= 1;
                assert!(Resumable::from_bytes(&bent).is_err(), "byte {at}");
            }
        }
    }
}
