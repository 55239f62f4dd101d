//! The record layer (RFC 6347 §4.1): headers, protection, replay.

mod connection_id;
mod header;
mod protect;
mod replay;

pub use connection_id::{CONNECTION_ID_BYTES_MAX, ConnectionId};
pub(crate) use header::{HEADER_LEN, ID_AT, Record, Records};
pub(crate) use protect::{CONTENT_BYTES_MAX, Opened, ReadKeys, WriteKeys, plaintext};
pub use replay::REPLAY_WINDOW_RECORDS_MAX;
