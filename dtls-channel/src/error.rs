use std::net::SocketAddr;

use crate::crypto::NoRandom;
use crate::wire::{AlertDescription, HandshakeType, Malformed};

/// Why [`PeerVerifier`](crate::PeerVerifier) does not want a peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PeerRefused(pub String);

/// A rule of the protocol that the peer broke.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerFault {
    /// A message that does not parse.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// A message that has no place at this point.
    #[error("{got} where {expected} was due")]
    UnexpectedMessage {
        /// What came.
        got: String,
        /// What the state waits for.
        expected: &'static str,
    },
    /// A choice we did not offer.
    #[error("the peer chose {0}, which was not offered")]
    NotOffered(String),
    /// An extension in the answer that the question did not have (RFC 5246 §7.4.1.4).
    #[error("extension {0} was not offered")]
    UnsolicitedExtension(u16),
    /// A record size limit below 64 bytes, or one beside a maximum fragment length (RFC 8449).
    #[error("the record size limit is below 64 bytes, or not the only one")]
    BadRecordSizeLimit,
    /// A public point that is not on its curve, or a shared secret of zeros.
    #[error("the key exchange's public value is invalid")]
    BadPoint,
    /// A `renegotiation_info` that is not empty, in a first handshake (RFC 5746 §3.4, §3.6).
    #[error("the peer takes a first handshake for a renegotiation")]
    Renegotiation,
    /// An empty certificate list.
    #[error("the peer presented no certificate")]
    NoCertificate,
    /// A certificate that cannot be parsed, is too large, or does not fit its signature.
    #[error("the peer's certificate is unusable: {0}")]
    BadCertificate(String),
    /// A signature that the certificate's key did not make.
    #[error("the signature in {0} is wrong")]
    BadSignature(&'static str),
    /// The two sides do not see the same handshake.
    #[error("the peer's Finished does not fit the handshake")]
    BadFinished,
}

/// Nothing both sides support, or something one side requires is missing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Mismatch {
    /// The peer speaks no DTLS 1.2.
    #[error("the peer speaks version {0:#06x}, not DTLS 1.2 (0xfefd)")]
    Version(u16),
    /// No shared cipher suite.
    #[error("no cipher suite in common")]
    Suite,
    /// No shared group.
    #[error("no key exchange group in common")]
    Group,
    /// The client does not list the curve of our certificate's key (RFC 8422 §5.1.1).
    #[error("the peer does not support the curve of our certificate's key")]
    CertificateCurve,
    /// The peer cannot verify our key's signatures.
    #[error("the peer does not verify signatures of our key's kind")]
    SignatureScheme,
    /// The peer lacks the extended master secret (RFC 7627).
    #[error("the peer does not support the extended master secret, which is required")]
    ExtendedMasterSecret,
    /// The server lacks secure renegotiation (RFC 5746).
    #[error("the server does not answer renegotiation_info, which is required")]
    RenegotiationInfo,
    /// The server asks for no certificate, so it cannot tell who we are.
    #[error("the server asks for no client certificate; mutual authentication is required")]
    NoCertificateRequest,
}

/// Why a handshake failed, before it becomes a [`CloseReason`] and an alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    Peer(PeerFault),
    Mismatch(Mismatch),
    Refused(PeerRefused, AlertDescription),
    NoRandom,
}

impl Fault {
    pub(crate) fn unexpected(got: HandshakeType, expected: &'static str) -> Self {
        Self::Peer(PeerFault::UnexpectedMessage { got: format!("{got:?}"), expected })
    }

    /// The one place where a fault becomes an alert (RFC 5246 §7.2.2).
    pub(crate) fn alert(&self) -> AlertDescription {
        match self {
            Self::Peer(fault) => match fault {
                PeerFault::Malformed(_) => AlertDescription::DECODE_ERROR,
                PeerFault::UnexpectedMessage { .. } => AlertDescription::UNEXPECTED_MESSAGE,
                PeerFault::NotOffered(_) | PeerFault::BadPoint | PeerFault::BadRecordSizeLimit => {
                    AlertDescription::ILLEGAL_PARAMETER
                }
                PeerFault::UnsolicitedExtension(_) => AlertDescription::UNSUPPORTED_EXTENSION,
                PeerFault::NoCertificate | PeerFault::Renegotiation => {
                    AlertDescription::HANDSHAKE_FAILURE
                }
                PeerFault::BadCertificate(_) => AlertDescription::BAD_CERTIFICATE,
                PeerFault::BadSignature(_) | PeerFault::BadFinished => {
                    AlertDescription::DECRYPT_ERROR
                }
            },
            Self::Mismatch(Mismatch::Version(_)) => AlertDescription::PROTOCOL_VERSION,
            Self::Mismatch(_) => AlertDescription::HANDSHAKE_FAILURE,
            Self::Refused(_, alert) => *alert,
            Self::NoRandom => AlertDescription::INTERNAL_ERROR,
        }
    }
}

impl From<Malformed> for Fault {
    fn from(Malformed(what): Malformed) -> Self {
        Self::Peer(PeerFault::Malformed(what))
    }
}

impl From<PeerFault> for Fault {
    fn from(fault: PeerFault) -> Self {
        Self::Peer(fault)
    }
}

impl From<Mismatch> for Fault {
    fn from(mismatch: Mismatch) -> Self {
        Self::Mismatch(mismatch)
    }
}

impl From<NoRandom> for Fault {
    fn from(NoRandom: NoRandom) -> Self {
        Self::NoRandom
    }
}

/// Why an association ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer said goodbye.
    #[error("the peer closed the association")]
    CloseNotify,
    /// We closed it.
    #[error("closed by us")]
    Local,
    /// The peer sent a fatal alert. During a handshake this may be forged, and is believed only
    /// when nothing else comes for [`Timers::alert_grace`](crate::Timers::alert_grace).
    #[error("the peer reported {0}")]
    PeerAlert(AlertDescription),
    /// Our [`PeerVerifier`](crate::PeerVerifier) did not want the peer.
    #[error("peer refused: {0}")]
    PeerRefused(PeerRefused),
    /// The peer broke the protocol.
    #[error("handshake failed: {0}")]
    PeerFault(PeerFault),
    /// Nothing in common.
    #[error("handshake failed: {0}")]
    Mismatch(Mismatch),
    /// The handshake was not finished in time.
    #[error("the handshake was not finished in time; the peer may be down or filtered")]
    TimedOut,
    /// A newer association with the same address took its place.
    #[error("replaced by a newer association from the same address")]
    Superseded,
    /// Evicted half-open, to admit newer ones.
    #[error("evicted: too many half-open associations")]
    Evicted,
    /// As many records were sent as one key may protect; connect again.
    #[error("the key has protected as many records as it may; connect again")]
    KeysExhausted,
    /// The system's random generator failed.
    #[error("the system's random generator failed")]
    NoRandom,
}

impl From<Fault> for CloseReason {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Peer(fault) => Self::PeerFault(fault),
            Fault::Mismatch(mismatch) => Self::Mismatch(mismatch),
            Fault::Refused(refused, _) => Self::PeerRefused(refused),
            Fault::NoRandom => Self::NoRandom,
        }
    }
}

/// Why a message was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// No such association, or it has ended.
    #[error("the association does not exist or has ended")]
    Closed,
    /// The handshake is still going on.
    #[error("the handshake is not finished")]
    NotOpen,
    /// It does not fit one datagram.
    #[error("a message of {length} bytes exceeds the {limit} that fit one datagram")]
    TooLarge {
        /// The message's length in bytes.
        length: usize,
        /// The longest that fits, in bytes.
        limit: usize,
    },
    /// Too much waits to be sent already; try again after [`Driver::wait`](crate::Driver::wait).
    #[error("{} bytes wait to be sent already", crate::OUTBOX_BYTES_MAX)]
    Full,
    /// The key is used up; the association closes.
    #[error("the key has protected as many records as it may")]
    KeysExhausted,
}

/// Why no association was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// As many associations as allowed exist.
    #[error("{0} associations exist, which is the limit")]
    NoRoom(usize),
    /// Nobody can be reached there.
    #[error("{0} is no address to connect to")]
    BadAddress(SocketAddr),
    /// The system's random generator failed.
    #[error(transparent)]
    NoRandom(#[from] NoRandom),
}
