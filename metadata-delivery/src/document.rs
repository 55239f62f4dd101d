//! What a session carries and what it reports.

use std::fmt;

use bytes::Bytes;

use crate::{CloseCode, Name};

/// One version of a named document.
#[derive(Clone, PartialEq, Eq)]
pub struct Document {
    /// Its name.
    pub name: Name,
    /// Its version: below 2^62, ascending for one name.
    pub version: u64,
    /// Its bytes; may be empty.
    pub body: Bytes,
}

/// Documents may hold secrets: only the length is shown.
impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} v{} ({} bytes)", self.name, self.version, self.body.len())
    }
}

/// Something the application has to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The peer sent a document, its digest is right. Make it durable, then call
    /// [`Session::stored`](crate::Session::stored), or [`Session::refuse`](crate::Session::refuse)
    /// it. Comes once per name and version, and never after a newer version of that name.
    Received(Document),
    /// The peer has made our document durable.
    Stored {
        /// The document's name.
        name: Name,
        /// Its version.
        version: u64,
    },
    /// The peer will not take our document; it is not sent again.
    Refused {
        /// The document's name.
        name: Name,
        /// Its version.
        version: u64,
        /// One of [`refusal`](crate::refusal), or the application's.
        code: u16,
        /// The peer's words.
        reason: String,
    },
    /// The peer closed the session. Nothing follows.
    PeerClosed {
        /// Why.
        code: CloseCode,
        /// The peer's words.
        reason: String,
    },
    /// The peer has not acknowledged anything for
    /// [`SessionConfig::peer_timeout`](crate::SessionConfig::peer_timeout). Nothing follows.
    PeerLost,
}
