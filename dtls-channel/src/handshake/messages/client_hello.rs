use super::extensions;
use crate::crypto::{CipherSuite, Group, PEER_SCHEMES};
use crate::record::ConnectionId;
use crate::wire::ids::{VERSION_1_2, extension};
use crate::wire::{Malformed, NamedGroup, Reader, SignatureScheme, Write, u16_list};

/// RFC 5746 §3.3: stands for an empty `renegotiation_info`.
const EMPTY_RENEGOTIATION_INFO_SCSV: u16 = 0x00ff;
const UNCOMPRESSED_POINT: u8 = 0;
const NO_COMPRESSION: u8 = 0;

/// ClientHello (RFC 5246 §7.4.1.2 with RFC 6347 §4.2.1's cookie), borrowed from its bytes.
#[derive(Debug, Clone)]
pub(crate) struct ClientHello<'a> {
    pub(crate) version: u16,
    pub(crate) random: [u8; 32],
    pub(crate) session_id: &'a [u8],
    /// Suites and compression methods as they stand: what the cookie binds.
    pub(crate) offer: &'a [u8],
    suites: &'a [u8],
    groups: Option<&'a [u8]>,
    schemes: Option<&'a [u8]>,
    pub(crate) offers_ems: bool,
    pub(crate) offers_renegotiation_info: bool,
    /// `renegotiation_info` is not empty, as in no first handshake.
    pub(crate) renegotiates: bool,
    pub(crate) offers_point_formats: bool,
    /// The longest record content that the client takes, in bytes (RFC 8449).
    pub(crate) record_size_limit: Option<u16>,
    /// RFC 5077 §3.2: a ticket to resume with, or empty to ask for one.
    pub(crate) ticket: Option<&'a [u8]>,
    /// What the client wants to read on our records (RFC 9146 §3).
    pub(crate) connection_id: Option<&'a [u8]>,
    /// RFC 9853 §3; means nothing without a connection id.
    pub(crate) offers_return_routability: bool,
}

/// The part of a ClientHello up to its cookie: all that a first fragment need hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HelloPrefix<'a> {
    pub(crate) version: u16,
    pub(crate) random: [u8; 32],
    pub(crate) session_id: &'a [u8],
    pub(crate) cookie: &'a [u8],
}

impl<'a> HelloPrefix<'a> {
    pub(crate) fn read(r: &mut Reader<'a>) -> Result<Self, Malformed> {
        let version = r.u16()?;
        let random = r.array()?;
        let session_id = r.vec8()?;
        let cookie = r.vec8()?;
        if session_id.len() > 32 {
            return Err(r.fault());
        }
        Ok(Self { version, random, session_id, cookie })
    }
}

impl<'a> ClientHello<'a> {
    /// The prefix alone, from the first bytes of a hello that may be incomplete.
    pub(crate) fn read_prefix(body: &'a [u8]) -> Result<HelloPrefix<'a>, Malformed> {
        HelloPrefix::read(&mut Reader::new(body, "ClientHello"))
    }

    pub(crate) fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(body, "ClientHello");
        let prefix = HelloPrefix::read(&mut r)?;
        let rest = r.clone().rest();
        let suites = r.vec16()?;
        let compressions = r.vec8()?;
        let offer = rest.get(..rest.len() - r.clone().rest().len()).unwrap_or(rest);
        let valid = u16_list(suites).is_some() && compressions.contains(&NO_COMPRESSION);
        if !valid {
            return Err(r.fault());
        }
        let scsv =
            u16_list(suites).is_some_and(|mut s| s.any(|n| n == EMPTY_RENEGOTIATION_INFO_SCSV));
        let mut this = Self {
            version: prefix.version,
            random: prefix.random,
            session_id: prefix.session_id,
            offer,
            suites,
            groups: None,
            schemes: None,
            offers_ems: false,
            offers_renegotiation_info: scsv,
            renegotiates: false,
            offers_point_formats: false,
            record_size_limit: None,
            ticket: None,
            connection_id: None,
            offers_return_routability: false,
        };
        extensions(&mut r, |number, body| {
            let mut e = Reader::new(body, "ClientHello extension");
            match number {
                extension::SUPPORTED_GROUPS => this.groups = Some(e.vec16()?),
                extension::SIGNATURE_ALGORITHMS => this.schemes = Some(e.vec16()?),
                extension::EXTENDED_MASTER_SECRET => this.offers_ems = true,
                extension::RENEGOTIATION_INFO => {
                    this.offers_renegotiation_info = true;
                    this.renegotiates = !e.vec8()?.is_empty();
                }
                extension::EC_POINT_FORMATS => {
                    this.offers_point_formats = true;
                    if !e.vec8()?.contains(&UNCOMPRESSED_POINT) {
                        return Err(e.fault());
                    }
                }
                extension::RECORD_SIZE_LIMIT => this.record_size_limit = Some(e.u16()?),
                // The ticket is the whole extension, without a length of its own.
                extension::SESSION_TICKET => this.ticket = Some(e.rest()),
                extension::CONNECTION_ID => this.connection_id = Some(e.vec8()?),
                extension::RETURN_ROUTABILITY_CHECK => this.offers_return_routability = true,
                _ => return Ok(()),
            }
            e.finish()
        })?;
        for list in [this.groups, this.schemes].into_iter().flatten() {
            if u16_list(list).is_none() {
                return Err(r.fault());
            }
        }
        r.finish()?;
        Ok(this)
    }

    /// The first of `ours` that the client offers.
    pub(crate) fn choose_suite(&self, ours: &[CipherSuite]) -> Option<CipherSuite> {
        ours.iter().copied().find(|suite| self.offers(*suite))
    }

    pub(crate) fn offers(&self, suite: CipherSuite) -> bool {
        u16_list(self.suites).is_some_and(|mut list| list.any(|n| n == suite.iana()))
    }

    /// The first of `ours` that the client supports; without a list any will do (RFC 8422 §4).
    pub(crate) fn choose_group(&self, ours: &[Group]) -> Option<Group> {
        match self.groups.map(u16_list) {
            None => ours.first().copied(),
            Some(list) => {
                let offered = |n| list.clone().is_some_and(|mut list| list.any(|g| g == n));
                ours.iter().copied().find(|g| offered(g.wire().0))
            }
        }
    }

    /// True if a certificate's key may be on this curve; without a list any may.
    pub(crate) fn supports_curve(&self, curve: Group) -> bool {
        self.choose_group(&[curve]).is_some()
    }

    /// True if the client verifies `scheme`. Without the extension RFC 5246 means SHA-1, which we
    /// do not do.
    pub(crate) fn verifies(&self, scheme: SignatureScheme) -> bool {
        self.schemes.and_then(u16_list).is_some_and(|mut list| list.any(|s| s == scheme.0))
    }
}

/// What our own ClientHello says.
#[derive(Debug, Clone)]
pub(crate) struct ClientOffer {
    pub(crate) random: [u8; 32],
    pub(crate) suites: Vec<CipherSuite>,
    pub(crate) groups: Vec<Group>,
    pub(crate) record_size_limit: u16,
    /// With a ticket random, so that the server's echo shows that it resumes (RFC 5077 §3.4);
    /// otherwise empty.
    pub(crate) session_id: Vec<u8>,
    /// Empty asks for one.
    pub(crate) ticket: Option<Vec<u8>>,
    /// What we want to read on the server's records, if we are to use ids at all.
    pub(crate) connection_id: Option<ConnectionId>,
}

impl ClientOffer {
    pub(crate) fn write(&self, cookie: &[u8], out: &mut Vec<u8>) {
        out.u16(VERSION_1_2);
        out.bytes(&self.random);
        out.vec8(|w| w.bytes(&self.session_id));
        out.vec8(|w| w.bytes(cookie));
        out.vec16(|w| self.suites.iter().for_each(|s| w.u16(s.iana())));
        out.vec8(|w| w.u8(NO_COMPRESSION));
        out.vec16(|w| {
            write_extension(w, extension::EXTENDED_MASTER_SECRET, |_| {});
            write_extension(w, extension::RENEGOTIATION_INFO, |w| w.u8(0));
            write_extension(w, extension::SUPPORTED_GROUPS, |w| {
                // The list is also that of the curves that a certificate may have.
                let others = Group::OF_SIGNATURES.iter().filter(|g| !self.groups.contains(g));
                let all = self.groups.iter().chain(others);
                w.vec16(|w| all.for_each(|g| w.u16(NamedGroup::from(*g).0)));
            });
            write_extension(w, extension::EC_POINT_FORMATS, |w| {
                w.vec8(|w| w.u8(UNCOMPRESSED_POINT));
            });
            write_extension(w, extension::SIGNATURE_ALGORITHMS, |w| {
                w.vec16(|w| PEER_SCHEMES.iter().for_each(|s| w.u16(s.0)));
            });
            write_extension(w, extension::RECORD_SIZE_LIMIT, |w| w.u16(self.record_size_limit));
            if let Some(id) = &self.connection_id {
                write_connection_id(w, id);
                // RFC 9853 §3: who offers the one should offer the other.
                write_extension(w, extension::RETURN_ROUTABILITY_CHECK, |_| {});
            }
            // Last, as its length is the server's choice.
            if let Some(ticket) = &self.ticket {
                write_extension(w, extension::SESSION_TICKET, |w| w.bytes(ticket));
            }
        });
    }
}

impl From<Group> for NamedGroup {
    fn from(group: Group) -> Self {
        group.wire()
    }
}

/// RFC 9146 §3.
pub(super) fn write_connection_id(out: &mut Vec<u8>, id: &ConnectionId) {
    write_extension(out, extension::CONNECTION_ID, |w| w.vec8(|w| w.bytes(id.as_bytes())));
}

pub(super) fn write_extension(out: &mut Vec<u8>, number: u16, body: impl FnOnce(&mut Vec<u8>)) {
    out.u16(number);
    out.vec16(body);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer() -> ClientOffer {
        ClientOffer {
            random: [5; 32],
            suites: CipherSuite::ALL.into(),
            groups: Group::ALL.into(),
            record_size_limit: 0x4000,
            session_id: vec![],
            ticket: None,
            connection_id: ConnectionId::new(&[0xab, 0xcd]),
        }
    }

    fn written(cookie: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        offer().write(cookie, &mut out);
        out
    }

    #[test]
    fn our_hello_is_laid_out_as_the_rfcs_say_and_reads_back() {
        let bytes = written(&[9, 9]);
        let mut expected = vec![0xfe, 0xfd];
        expected.extend([5; 32]); // random
        expected.extend([0]); // session id
        expected.extend([2, 9, 9]); // cookie
        expected.extend([0, 6, 0xc0, 0x2b, 0xc0, 0x2c, 0xcc, 0xa9]); // suites
        expected.extend([1, 0]); // compression
        expected.extend([0, 60]); // extensions
        expected.extend([0, 23, 0, 0]); // extended master secret
        expected.extend([0xff, 1, 0, 1, 0]); // renegotiation_info
        expected.extend([0, 10, 0, 8, 0, 6, 0, 23, 0, 29, 0, 24]); // groups
        expected.extend([0, 11, 0, 2, 1, 0]); // point formats
        expected.extend([0, 13, 0, 8, 0, 6, 4, 3, 5, 3, 8, 7]); // signature algorithms
        expected.extend([0, 28, 0, 2, 0x40, 0]); // record size limit
        expected.extend([0, 54, 0, 3, 2, 0xab, 0xcd]); // connection id
        expected.extend([0, 61, 0, 0]); // return routability check
        let extensions = expected.len() - (2 + 32 + 1 + 3 + 8 + 2 + 2);
        expected[2 + 32 + 1 + 3 + 8 + 2 + 1] = extensions as u8;
        assert_eq!(bytes, expected);
        let hello = ClientHello::read(&bytes).unwrap();
        assert_eq!(hello.random, [5; 32]);
        assert_eq!(ClientHello::read_prefix(&bytes).unwrap().cookie, [9, 9]);
        assert_eq!(hello.record_size_limit, Some(0x4000));
        assert!(hello.offers_ems && hello.offers_renegotiation_info && hello.offers_point_formats);
        assert_eq!(hello.connection_id, Some(&[0xab, 0xcd][..]));
        assert!(hello.offers_return_routability);
        assert_eq!(hello.choose_suite(&CipherSuite::ALL), Some(CipherSuite::Aes128GcmSha256));
        assert_eq!(hello.choose_group(&[Group::X25519]), Some(Group::X25519));
        assert!(
            hello.verifies(SignatureScheme::ED25519) && !hello.verifies(SignatureScheme(0x0201))
        );
        assert_eq!((hello.session_id, hello.ticket), (&[][..], None));
    }

    #[test]
    fn a_ticket_travels_as_an_extension_with_a_session_id() {
        let plain = written(&[]);
        for ticket in [vec![], vec![6; 148]] {
            let session_id = vec![7; 32];
            let offer = ClientOffer { session_id, ticket: Some(ticket.clone()), ..offer() };
            let mut bytes = Vec::new();
            offer.write(&[], &mut bytes);
            assert_eq!(bytes.len(), plain.len() + 32 + 4 + ticket.len());
            let hello = ClientHello::read(&bytes).unwrap();
            assert_eq!((hello.session_id, hello.ticket), (&[7; 32][..], Some(&ticket[..])));
        }
    }

    #[test]
    fn the_curves_of_signatures_are_listed_behind_the_groups_for_the_key_exchange() {
        let mut bytes = Vec::new();
        ClientOffer { groups: vec![Group::X25519], ..offer() }.write(&[], &mut bytes);
        let hello = ClientHello::read(&bytes).unwrap();
        assert_eq!(hello.groups, Some(&[0, 29, 0, 23, 0, 24][..]));
        assert!(hello.supports_curve(Group::P384));
        let other = ClientHello { groups: Some(&[0, 29]), ..hello };
        assert!(!other.supports_curve(Group::P256));
        assert!(ClientHello { groups: None, ..other }.supports_curve(Group::P256));
    }

    #[test]
    fn every_truncation_is_malformed_and_no_flipped_byte_panics() {
        let bytes = written(&[1; 32]);
        for cut in 0..bytes.len() {
            // Cut right behind the compression methods it is a valid hello without extensions.
            let bare = cut == 2 + 32 + 1 + 33 + 8 + 2;
            assert_eq!(ClientHello::read(&bytes[..cut]).is_ok(), bare, "cut at {cut}");
        }
        for i in 0..bytes.len() {
            for flip in [1, 0x80, 0xff] {
                let mut bent = bytes.clone();
                bent[i] ^= flip;
                let _ = ClientHello::read(&bent);
            }
        }
    }

    #[test]
    fn an_extension_that_comes_twice_is_refused() {
        let mut bytes = written(&[]);
        let at = 2 + 32 + 1 + 1 + 8 + 2;
        let length = u16::from_be_bytes([bytes[at], bytes[at + 1]]) + 4;
        bytes[at..at + 2].copy_from_slice(&length.to_be_bytes());
        bytes.extend([0, 23, 0, 0]);
        assert!(ClientHello::read(&bytes).is_err());
    }
}
