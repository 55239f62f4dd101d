//! Errors and codes, one enum per operation.

use std::fmt;

use thiserror::Error;

use crate::Name;
use crate::limits::REASON_BYTES_MAX;

/// Why a document of ours was not taken for sending.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OfferError {
    /// A newer version of this name is being sent already.
    #[error("version {version} of {name} is older than version {newest}, which is being sent")]
    Stale {
        /// The document's name.
        name: Name,
        /// The version offered.
        version: u64,
        /// The version being sent.
        newest: u64,
    },
    /// The same version is being sent with other bytes.
    #[error("version {version} of {name} is being sent with other bytes; raise the version")]
    Conflict {
        /// The document's name.
        name: Name,
        /// The version offered twice.
        version: u64,
    },
    /// [`Limits::outbound_bytes_max`](crate::Limits::outbound_bytes_max) would be exceeded.
    #[error("{name} has {bytes} bytes, and only {free} more can wait to be stored by the peer")]
    NoBytesLeft {
        /// The document's name.
        name: Name,
        /// Its length in bytes.
        bytes: usize,
        /// What is left of the limit, in bytes.
        free: usize,
    },
    /// [`Limits::outbound_documents_max`](crate::Limits::outbound_documents_max) is reached.
    #[error("{max} documents already wait to be stored by the peer")]
    TooMany {
        /// The limit.
        max: usize,
    },
    /// A version on the wire has at most 62 bits.
    #[error("version {version} of {name} is above the largest, 2^62 - 1")]
    VersionTooLarge {
        /// The document's name.
        name: Name,
        /// The version offered.
        version: u64,
    },
    /// The session is closed or the peer is lost.
    #[error("the session is closed")]
    Closed,
}

/// The peer broke a rule of the protocol. The channel below is authenticated, so this is the
/// peer's fault and not the network's: close the session with [`PacketError::close_code`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PacketError {
    /// A frame could not be parsed.
    #[error("malformed {frame}: {what}")]
    Malformed {
        /// Which frame.
        frame: &'static str,
        /// What is wrong with it.
        what: &'static str,
    },
    /// An acknowledgement of a packet that was never sent.
    #[error("packet {acked} was acknowledged, but never sent (the last one was {largest_sent:?})")]
    AckOfUnsent {
        /// The packet number acknowledged.
        acked: u64,
        /// The last packet number used, if any.
        largest_sent: Option<u64>,
    },
    /// Two OFFER frames of one transfer differ.
    #[error("transfer {transfer} was offered twice with different parameters")]
    OfferChanged {
        /// The transfer.
        transfer: u64,
    },
    /// DATA reaches beyond the announced length.
    #[error("data of transfer {transfer} ends at {end}, but {length} bytes were announced")]
    DataBeyondEnd {
        /// The transfer.
        transfer: u64,
        /// First offset after the data.
        end: u64,
        /// The announced length.
        length: u64,
    },
    /// A REPAIR frame beyond the limits, or one that contradicts another.
    #[error("repair symbol {nth} of transfer {transfer}, from {offset} on, is {what}")]
    RepairMisfit {
        /// The transfer.
        transfer: u64,
        /// The offset that it names.
        offset: u64,
        /// Its number.
        nth: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Transfer numbers leave more gaps than transfers may be open.
    #[error("transfer {transfer} leaves more transfers open than {max}")]
    TransferGaps {
        /// The transfer that went too far.
        transfer: u64,
        /// The most that may be open.
        max: usize,
    },
    /// An answer to a transfer that was never opened.
    #[error("transfer {transfer} was answered, but never opened")]
    UnknownTransfer {
        /// The transfer.
        transfer: u64,
    },
    /// A HELLO repeats a generation with other values.
    #[error("hello generation {generation} came twice with different values")]
    HelloChanged {
        /// The generation.
        generation: u64,
    },
    /// No protocol version is spoken by both.
    #[error(
        "the peer speaks protocol versions {peer_min}..={peer_max}, we speak {own_min}..={own_max}"
    )]
    ProtocolVersion {
        /// The peer's oldest version.
        peer_min: u64,
        /// The peer's newest version.
        peer_max: u64,
        /// Our oldest version.
        own_min: u64,
        /// Our newest version.
        own_max: u64,
    },
}

impl PacketError {
    /// The code to close the session with.
    pub fn close_code(&self) -> CloseCode {
        match self {
            Self::ProtocolVersion { .. } => CloseCode::ProtocolVersion,
            _ => CloseCode::PeerFault,
        }
    }
}

/// A reason fit for the wire and for a terminal: one line, at most
/// [`REASON_BYTES_MAX`] bytes, cut at a character.
pub(crate) fn tidy_reason(reason: &str) -> String {
    let mut tidy = String::new();
    for character in reason.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if tidy.len() + character.len_utf8() > REASON_BYTES_MAX {
            break;
        }
        tidy.push(character);
    }
    tidy
}

/// Codes of a refused document. Below [`APPLICATION_FIRST`](refusal::APPLICATION_FIRST) they are
/// this crate's, from there on the application's.
pub mod refusal {
    /// Longer than the receiver accepts.
    pub const TOO_LARGE: u16 = 1;
    /// A name that the receiver does not accept.
    pub const NAME: u16 = 2;
    /// More transfers at once than the receiver accepts.
    pub const TOO_MANY: u16 = 3;
    /// An encoding that the receiver did not announce, or lengths that contradict it.
    pub const ENCODING: u16 = 4;
    /// The bytes received do not have the announced SHA-256.
    pub const DIGEST: u16 = 5;
    /// The receiver has a newer version of this name.
    pub const SUPERSEDED: u16 = 6;
    /// The receiver does not hold the base version of a delta.
    pub const BASE: u16 = 7;
    /// First code that belongs to the application.
    pub const APPLICATION_FIRST: u16 = 0x100;
}

/// Why a session was closed. Told to the peer, so that its operator reads the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseCode {
    /// Nothing wrong: the program stops and will be back.
    Shutdown,
    /// The program met an error of its own.
    Internal,
    /// The peer broke a rule of the protocol.
    PeerFault,
    /// No common protocol version.
    ProtocolVersion,
    /// The same agent connected again; the newer association lives on.
    Superseded,
    /// The certificate is pinned for no agent, and no proof of enrolment was given in time.
    UnknownAgent,
    /// The agent id is pinned to another fingerprint, or the fingerprint to another id.
    PinMismatch,
    /// The enrolment token has expired.
    TokenExpired,
    /// The enrolment token was used before.
    TokenUsed,
    /// The proof does not fit the enrolment token.
    TokenForged,
    /// No such enrolment token.
    TokenUnknown,
    /// A code that this version does not know.
    Other(u16),
}

impl CloseCode {
    /// The code on the wire.
    pub fn to_wire(self) -> u16 {
        match self {
            Self::Shutdown => 0,
            Self::Internal => 1,
            Self::PeerFault => 2,
            Self::ProtocolVersion => 3,
            Self::Superseded => 4,
            Self::UnknownAgent => 16,
            Self::PinMismatch => 17,
            Self::TokenExpired => 18,
            Self::TokenUsed => 19,
            Self::TokenForged => 20,
            Self::TokenUnknown => 21,
            Self::Other(code) => code,
        }
    }

    /// The meaning of a code from the wire.
    pub fn from_wire(code: u16) -> Self {
        match code {
            0 => Self::Shutdown,
            1 => Self::Internal,
            2 => Self::PeerFault,
            3 => Self::ProtocolVersion,
            4 => Self::Superseded,
            16 => Self::UnknownAgent,
            17 => Self::PinMismatch,
            18 => Self::TokenExpired,
            19 => Self::TokenUsed,
            20 => Self::TokenForged,
            21 => Self::TokenUnknown,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Shutdown => "shutdown",
            Self::Internal => "internal error",
            Self::PeerFault => "protocol rule broken",
            Self::ProtocolVersion => "no common protocol version",
            Self::Superseded => "superseded by a newer connection",
            Self::UnknownAgent => "unknown agent",
            Self::PinMismatch => "pin mismatch",
            Self::TokenExpired => "enrolment token expired",
            Self::TokenUsed => "enrolment token already used",
            Self::TokenForged => "enrolment proof does not fit the token",
            Self::TokenUnknown => "unknown enrolment token",
            Self::Other(code) => return write!(f, "code {code}"),
        };
        f.write_str(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_close_code_survives_the_wire() {
        for code in 0..=u16::MAX {
            assert_eq!(CloseCode::from_wire(code).to_wire(), code);
        }
    }

    #[test]
    fn a_reason_is_one_line_of_bounded_length() {
        assert_eq!(tidy_reason("disk\nfull\x1b[31m"), "disk full [31m");
        assert_eq!(tidy_reason(&"ü".repeat(1000)), "ü".repeat(REASON_BYTES_MAX / 2));
    }

    #[test]
    fn a_version_mismatch_is_told_apart_from_a_broken_rule() {
        let mismatch =
            PacketError::ProtocolVersion { peer_min: 3, peer_max: 4, own_min: 1, own_max: 1 };
        assert_eq!(mismatch.close_code(), CloseCode::ProtocolVersion);
        let broken = PacketError::AckOfUnsent { acked: 7, largest_sent: Some(3) };
        assert_eq!(broken.close_code(), CloseCode::PeerFault);
        assert_eq!(mismatch.to_string(), "the peer speaks protocol versions 3..=4, we speak 1..=1");
    }
}
