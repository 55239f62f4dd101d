//! Versioned documents and results, delivered over an unreliable datagram channel: sans-IO.

mod document;
mod error;
mod limits;
pub mod message;
mod name;
mod session;
mod stats;

pub use document::{Document, Event};
pub use error::{CloseCode, OfferError, PacketError, refusal};
pub use limits::*;
pub use name::{NAME_BYTES_MAX, Name, NameError};
pub use session::{Session, SessionConfig};
pub use stats::Stats;
