//! What outlives an association so that the next one costs one round trip and no signature: tickets
//! (RFC 5077) that the server seals and forgets, and the client's side of them.
//!
//! Only handshakes with the extended master secret leave anything behind (RFC 7627 §5.4).

mod resumable;
mod session;
mod ticket_keys;

pub(crate) use resumable::Resumable;
pub use session::Session;
pub use ticket_keys::{TICKET_KEYS_MAX, TicketKeys};

use crate::wire::Malformed;

/// Why stored bytes cannot be taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Of a format that this version does not read.
    #[error("format {found}, where {known} is known: written by another version")]
    Format {
        /// The first byte.
        found: u8,
        /// What it should be.
        known: u8,
    },
    /// Cut off, damaged, or something else altogether.
    #[error("malformed {0}")]
    Malformed(&'static str),
}

impl From<Malformed> for DecodeError {
    fn from(Malformed(what): Malformed) -> Self {
        Self::Malformed(what)
    }
}
