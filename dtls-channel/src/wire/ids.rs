//! Numbers from the IANA registries. Unknown values are kept, never an error in themselves.

macro_rules! wire_id {
    ($(#[$doc:meta])* $vis:vis $name:ident($int:ty) { $($id:ident = $value:expr),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        $vis struct $name(pub $int);

        #[allow(missing_docs, reason = "the registries' own names")]
        #[allow(unreachable_pub, reason = "one macro for public and private numbers")]
        #[allow(dead_code, reason = "the registry is listed whole where that is short")]
        impl $name {
            $(pub const $id: Self = Self($value);)*
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match *self {
                    $(Self::$id => f.write_str(stringify!($id)),)*
                    Self(other) => write!(f, concat!(stringify!($name), "({})"), other),
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match *self {
                    $(Self::$id => f.write_str(&stringify!($id).to_ascii_lowercase()),)*
                    Self(other) => write!(f, "{}", other),
                }
            }
        }
    };
}

wire_id! {
    /// Record content type (RFC 5246 §6.2.1).
    pub(crate) ContentType(u8) {
        CHANGE_CIPHER_SPEC = 20, ALERT = 21, HANDSHAKE = 22, APPLICATION_DATA = 23,
        // RFC 9146 §4: a protected record with an id, its own type inside. RFC 9853 §4.
        TLS12_CID = 25, RETURN_ROUTABILITY_CHECK = 27,
    }
}

wire_id! {
    /// Handshake message type (RFC 5246 §7.4, RFC 6347 §4.3.2).
    pub(crate) HandshakeType(u8) {
        HELLO_REQUEST = 0, CLIENT_HELLO = 1, SERVER_HELLO = 2, HELLO_VERIFY_REQUEST = 3,
        NEW_SESSION_TICKET = 4, CERTIFICATE = 11, SERVER_KEY_EXCHANGE = 12,
        CERTIFICATE_REQUEST = 13, SERVER_HELLO_DONE = 14, CERTIFICATE_VERIFY = 15,
        CLIENT_KEY_EXCHANGE = 16, FINISHED = 20,
    }
}

wire_id! {
    /// Alert description (RFC 5246 §7.2).
    pub AlertDescription(u8) {
        CLOSE_NOTIFY = 0, UNEXPECTED_MESSAGE = 10, BAD_RECORD_MAC = 20, RECORD_OVERFLOW = 22,
        DECOMPRESSION_FAILURE = 30, HANDSHAKE_FAILURE = 40, BAD_CERTIFICATE = 42, UNSUPPORTED_CERTIFICATE = 43,
        CERTIFICATE_REVOKED = 44, CERTIFICATE_EXPIRED = 45, CERTIFICATE_UNKNOWN = 46,
        ILLEGAL_PARAMETER = 47, UNKNOWN_CA = 48, ACCESS_DENIED = 49, DECODE_ERROR = 50,
        DECRYPT_ERROR = 51, PROTOCOL_VERSION = 70, INSUFFICIENT_SECURITY = 71,
        INTERNAL_ERROR = 80, USER_CANCELED = 90, NO_RENEGOTIATION = 100,
        UNSUPPORTED_EXTENSION = 110, CERTIFICATE_REQUIRED = 116,
    }
}

wire_id! {
    /// Key exchange group (RFC 8422 §5.1.1).
    pub(crate) NamedGroup(u16) { SECP256R1 = 23, SECP384R1 = 24, X25519 = 29 }
}

wire_id! {
    /// Signature scheme: in TLS 1.2 the hash and the signature algorithm, but for ECDSA not the
    /// curve (RFC 5246 §7.4.1.4.1, RFC 8422 §5.1.3).
    pub(crate) SignatureScheme(u16) {
        ECDSA_SHA256 = 0x0403, ECDSA_SHA384 = 0x0503, ED25519 = 0x0807,
    }
}

/// Extension numbers.
pub(crate) mod extension {
    pub(crate) const MAX_FRAGMENT_LENGTH: u16 = 1;
    pub(crate) const SUPPORTED_GROUPS: u16 = 10;
    pub(crate) const EC_POINT_FORMATS: u16 = 11;
    pub(crate) const SIGNATURE_ALGORITHMS: u16 = 13;
    pub(crate) const EXTENDED_MASTER_SECRET: u16 = 23;
    pub(crate) const RECORD_SIZE_LIMIT: u16 = 28;
    pub(crate) const SESSION_TICKET: u16 = 35;
    /// RFC 9146 §3.
    pub(crate) const CONNECTION_ID: u16 = 54;
    /// RFC 9853 §3.
    pub(crate) const RETURN_ROUTABILITY_CHECK: u16 = 61;
    pub(crate) const RENEGOTIATION_INFO: u16 = 0xff01;
}

/// DTLS 1.0 on the wire; some peers put it on early records (RFC 6347 §4.2.1).
pub(crate) const VERSION_1_0: u16 = 0xfeff;
/// DTLS 1.2 on the wire.
pub(crate) const VERSION_1_2: u16 = 0xfefd;
