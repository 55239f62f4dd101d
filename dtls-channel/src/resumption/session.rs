use std::time::Duration;

use zeroize::Zeroizing;

use super::DecodeError;
use super::resumable::optional_fingerprint;
use crate::crypto::{CERTIFICATE_BYTES_MAX, CipherSuite, MasterSecret};
use crate::wire::{Reader, Write};

const FORMAT: u8 = 1;
const FIXED_LEN: usize = 1 + 2 + 48 + 4 + 2 + 2 + 1;

/// What a client keeps of an association to resume it: the server's ticket, the master secret, and
/// the certificates between which it was made.
///
/// Whoever has it can resume in the client's place and decrypt what is sent then: keep it in
/// memory, or in a file with mode 0600.
#[derive(Clone)]
pub struct Session {
    pub(crate) master: MasterSecret,
    pub(crate) ticket: Vec<u8>,
    pub(crate) lifetime_s: u32,
    pub(crate) server_certificate: Vec<u8>,
    /// SHA-256 of the certificate that we presented, if we did.
    pub(crate) own: Option<[u8; 32]>,
}

impl Session {
    /// The server's certificate, in DER.
    #[must_use]
    pub fn server_certificate(&self) -> &[u8] {
        &self.server_certificate
    }

    /// The cipher suite, which a resumed association has as well.
    #[must_use]
    pub fn suite(&self) -> CipherSuite {
        self.master.suite()
    }

    /// For how long the server means to take the ticket (RFC 5077 §3.3), counted from the handshake;
    /// `None` if it did not say. A hint: an outdated ticket costs nothing but a full handshake.
    #[must_use]
    pub fn lifetime(&self) -> Option<Duration> {
        (self.lifetime_s > 0).then(|| Duration::from_secs(self.lifetime_s.into()))
    }

    /// The session as bytes, secrets included.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let own = self.own.as_ref().map_or(&[][..], |own| own);
        let length = FIXED_LEN + self.ticket.len() + self.server_certificate.len() + own.len();
        // Of the right size at once, so that no copy is left behind.
        let mut out = Zeroizing::new(Vec::with_capacity(length));
        out.u8(FORMAT);
        out.u16(self.suite().iana());
        out.bytes(self.master.as_bytes());
        out.bytes(&self.lifetime_s.to_be_bytes());
        out.vec16(|w| w.bytes(&self.ticket));
        out.vec16(|w| w.bytes(&self.server_certificate));
        out.vec8(|w| w.bytes(own));
        out
    }

    /// Takes what [`to_bytes`](Self::to_bytes) wrote.
    ///
    /// # Errors
    /// [`DecodeError`]. Without the session, connect as if there had been none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes, "session");
        let found = r.u8()?;
        if found != FORMAT {
            return Err(DecodeError::Format { found, known: FORMAT });
        }
        let suite = CipherSuite::from_iana(r.u16()?).ok_or_else(|| r.fault())?;
        let master = MasterSecret::from_bytes(suite, r.array()?);
        let lifetime_s = u32::from_be_bytes(r.array()?);
        let (ticket, certificate) = (r.vec16()?, r.vec16()?);
        let own = optional_fingerprint(&mut r)?;
        if ticket.is_empty() || certificate.is_empty() || certificate.len() > CERTIFICATE_BYTES_MAX
        {
            return Err(r.fault().into());
        }
        r.finish()?;
        let (ticket, server_certificate) = (ticket.to_vec(), certificate.to_vec());
        Ok(Self { master, ticket, lifetime_s, server_certificate, own })
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("suite", &self.suite())
            .field("ticket_bytes", &self.ticket.len())
            .field("lifetime", &self.lifetime())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn session(own: Option<[u8; 32]>) -> Session {
        Session {
            master: MasterSecret::from_bytes(CipherSuite::Chacha20Poly1305Sha256, [0xab; 48]),
            ticket: vec![1; 148],
            lifetime_s: 7_200,
            server_certificate: vec![2; 300],
            own,
        }
    }

    #[test]
    fn a_session_reads_back_and_every_truncation_is_refused() {
        for own in [None, Some([3; 32])] {
            let bytes = session(own).to_bytes();
            let read = Session::from_bytes(&bytes).unwrap();
            assert_eq!(read.to_bytes(), bytes);
            assert_eq!((read.own, read.lifetime()), (own, Some(Duration::from_secs(7_200))));
            assert!((0..bytes.len()).all(|cut| Session::from_bytes(&bytes[..cut]).is_err()));
            assert!(Session::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
        }
    }

    #[test]
    fn a_session_of_another_format_suite_or_size_is_refused() {
        let good = session(None);
        let bent = |at: usize| {
            let mut bytes = good.to_bytes();
            bytes[at] ^= 0x40;
            Session::from_bytes(&bytes).map(drop)
        };
        assert_eq!(bent(0), Err(DecodeError::Format { found: 0x41, known: 1 }));
        assert_eq!(bent(1), Err(DecodeError::Malformed("session")));
        let huge =
            Session { server_certificate: vec![0; CERTIFICATE_BYTES_MAX + 1], ..good.clone() };
        let bare = Session { ticket: vec![], ..good };
        for session in [huge, bare] {
            assert!(Session::from_bytes(&session.to_bytes()).is_err());
        }
    }

    #[test]
    fn debug_output_of_a_session_shows_neither_secret_nor_ticket() {
        let text = format!("{:?}", session(None));
        assert_eq!(
            text,
            "Session { suite: Chacha20Poly1305Sha256, ticket_bytes: 148, lifetime: Some(7200s), .. }"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_behind_a_good_beginning_are_survived(
            keep in 0usize..500,
            tail: Vec<u8>,
        ) {
            let bytes = session(Some([3; 32])).to_bytes();
            let bent = [&bytes[..keep.min(bytes.len())], &tail].concat();
            if let Ok(read) = Session::from_bytes(&bent) {
                prop_assert_eq!(&read.to_bytes()[..], &bent[..]);
            }
        }
    }
}
