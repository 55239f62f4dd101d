use super::client_hello::{write_connection_id, write_extension};
use super::extensions;
use crate::crypto::CipherSuite;
use crate::record::ConnectionId;
use crate::wire::ids::{VERSION_1_0, VERSION_1_2, extension};
use crate::wire::{Malformed, Reader, Write};

/// Our extensions have no more than this, unless our connection ids are longer than most.
const EXTENSIONS_BYTES_USUAL: usize = 64;

/// HelloVerifyRequest (RFC 6347 §4.2.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HelloVerifyRequest<'a> {
    pub(crate) cookie: &'a [u8],
}

impl<'a> HelloVerifyRequest<'a> {
    pub(crate) fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(body, "HelloVerifyRequest");
        // The version in it says nothing about the version to come.
        r.u16()?;
        let cookie = r.vec8()?;
        r.finish()?;
        Ok(Self { cookie })
    }

    /// RFC 6347 §4.2.1: version 1.0 whatever follows, so that a client does not take it as a choice.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.u16(VERSION_1_0);
        out.vec8(|w| w.bytes(self.cookie));
    }
}

/// ServerHello (RFC 5246 §7.4.1.3), reduced to what the profile can contain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerHello {
    pub(crate) version: u16,
    pub(crate) random: [u8; 32],
    /// At most 32 bytes. What the client sent if its session is resumed, otherwise empty or of no
    /// meaning to us.
    pub(crate) session_id: Vec<u8>,
    /// The suite's number, whether or not the profile has it.
    pub(crate) suite: u16,
    pub(crate) ems: bool,
    pub(crate) renegotiation_info: bool,
    /// `renegotiation_info` is not empty, as in no first handshake.
    pub(crate) renegotiates: bool,
    pub(crate) point_formats: bool,
    /// The longest record content that the server takes, in bytes (RFC 8449).
    pub(crate) record_size_limit: Option<u16>,
    /// RFC 6066 §4, which nobody offers us or is offered by us.
    pub(crate) has_max_fragment_length: bool,
    /// RFC 5077 §3.2: NewSessionTicket will come.
    pub(crate) announces_ticket: bool,
    /// What the server wants to read on our records (RFC 9146 §3).
    pub(crate) connection_id: Option<ConnectionId>,
    /// RFC 9853 §3.
    pub(crate) return_routability: bool,
    /// An extension that our hello does not offer.
    pub(crate) unsolicited: Option<u16>,
}

impl ServerHello {
    pub(crate) fn new(random: [u8; 32], suite: CipherSuite) -> Self {
        Self {
            version: VERSION_1_2,
            random,
            session_id: Vec::new(),
            suite: suite.iana(),
            ems: false,
            renegotiation_info: false,
            renegotiates: false,
            point_formats: false,
            record_size_limit: None,
            has_max_fragment_length: false,
            announces_ticket: false,
            connection_id: None,
            return_routability: false,
            unsolicited: None,
        }
    }

    /// True if the server sets the length of records twice (RFC 8449 §5).
    pub(crate) fn limits_records_twice(&self) -> bool {
        self.has_max_fragment_length && self.record_size_limit.is_some()
    }

    pub(crate) fn read(body: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(body, "ServerHello");
        let version = r.u16()?;
        let random = r.array()?;
        let session_id = r.vec8()?;
        let suite = r.u16()?;
        if session_id.len() > 32 || r.u8()? != 0 {
            return Err(r.fault());
        }
        let mut this = Self {
            version,
            random,
            session_id: session_id.to_vec(),
            suite,
            ems: false,
            renegotiation_info: false,
            renegotiates: false,
            point_formats: false,
            record_size_limit: None,
            has_max_fragment_length: false,
            announces_ticket: false,
            connection_id: None,
            return_routability: false,
            unsolicited: None,
        };
        extensions(&mut r, |number, body| {
            let mut e = Reader::new(body, "ServerHello extension");
            match number {
                extension::EXTENDED_MASTER_SECRET => this.ems = true,
                extension::RENEGOTIATION_INFO => {
                    this.renegotiation_info = true;
                    this.renegotiates = !e.vec8()?.is_empty();
                }
                extension::EC_POINT_FORMATS => {
                    this.point_formats = true;
                    if !e.vec8()?.contains(&0) {
                        return Err(e.fault());
                    }
                }
                extension::RECORD_SIZE_LIMIT => this.record_size_limit = Some(e.u16()?),
                extension::SESSION_TICKET => this.announces_ticket = true,
                extension::CONNECTION_ID => {
                    this.connection_id = ConnectionId::new(e.vec8()?);
                }
                extension::RETURN_ROUTABILITY_CHECK => this.return_routability = true,
                // Some servers echo this one though it is the client's alone (RFC 8422 §5.1).
                extension::SUPPORTED_GROUPS => return Ok(()),
                other => {
                    this.has_max_fragment_length |= other == extension::MAX_FRAGMENT_LENGTH;
                    this.unsolicited = Some(other);
                    return Ok(());
                }
            }
            e.finish()
        })?;
        r.finish()?;
        Ok(this)
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.u16(self.version);
        out.bytes(&self.random);
        out.vec8(|w| w.bytes(&self.session_id));
        out.u16(self.suite);
        out.u8(0);
        let mut extensions = Vec::with_capacity(EXTENSIONS_BYTES_USUAL);
        let w = &mut extensions;
        if self.ems {
            write_extension(w, extension::EXTENDED_MASTER_SECRET, |_| {});
        }
        if self.renegotiation_info {
            write_extension(w, extension::RENEGOTIATION_INFO, |w| w.u8(0));
        }
        if self.point_formats {
            write_extension(w, extension::EC_POINT_FORMATS, |w| w.vec8(|w| w.u8(0)));
        }
        if let Some(limit) = self.record_size_limit {
            write_extension(w, extension::RECORD_SIZE_LIMIT, |w| w.u16(limit));
        }
        if let Some(id) = &self.connection_id {
            write_connection_id(w, id);
        }
        if self.return_routability {
            write_extension(w, extension::RETURN_ROUTABILITY_CHECK, |_| {});
        }
        if self.announces_ticket {
            write_extension(w, extension::SESSION_TICKET, |_| {});
        }
        // RFC 5246 §7.4.1.3: no extensions, no list of them.
        if !extensions.is_empty() {
            out.vec16(|w| w.bytes(&extensions));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hellos_of_the_server_read_back_and_truncations_are_malformed() {
        let hello = ServerHello {
            ems: true,
            renegotiation_info: true,
            point_formats: true,
            record_size_limit: Some(64),
            connection_id: ConnectionId::new(&[3; 8]),
            return_routability: true,
            ..ServerHello::new([7; 32], CipherSuite::Aes256GcmSha384)
        };
        let mut bytes = Vec::new();
        hello.write(&mut bytes);
        assert_eq!(bytes[..2], [0xfe, 0xfd]);
        assert_eq!(bytes[34..38], [0, 0xc0, 0x2c, 0]);
        assert_eq!(ServerHello::read(&bytes), Ok(hello));
        for cut in 0..bytes.len() {
            assert_eq!(ServerHello::read(&bytes[..cut]).is_ok(), cut == 38, "cut at {cut}");
        }
        let request = HelloVerifyRequest { cookie: b"abc" };
        let mut bytes = Vec::new();
        request.write(&mut bytes);
        assert_eq!(bytes, [0xfe, 0xff, 3, b'a', b'b', b'c']);
        assert_eq!(HelloVerifyRequest::read(&bytes), Ok(request));
        assert!((0..bytes.len()).all(|cut| HelloVerifyRequest::read(&bytes[..cut]).is_err()));
    }

    #[test]
    fn a_session_id_and_an_announced_ticket_read_back() {
        let suite = CipherSuite::Aes128GcmSha256;
        let (session_id, announces_ticket) = (vec![8; 32], true);
        let hello =
            ServerHello { session_id, announces_ticket, ..ServerHello::new([7; 32], suite) };
        let mut bytes = Vec::new();
        hello.write(&mut bytes);
        assert_eq!(ServerHello::read(&bytes), Ok(hello));
        let last = bytes.len() - 1;
        bytes[last] = 1;
        bytes.push(0);
        let extensions = bytes.len() - 6;
        bytes[extensions] += 1;
        assert!(ServerHello::read(&bytes).is_err(), "a ticket where there is none");
    }

    #[test]
    fn an_extension_we_never_offer_is_reported() {
        let mut bytes = Vec::new();
        ServerHello::new([7; 32], CipherSuite::Aes128GcmSha256).write(&mut bytes);
        bytes.vec16(|w| write_extension(w, 14, |w| w.u8(0)));
        assert_eq!(ServerHello::read(&bytes).unwrap().unsolicited, Some(14));
    }
}
