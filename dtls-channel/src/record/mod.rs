//! The record layer (RFC 6347 §4.1): headers, protection, replay.

mod header;
mod protect;
mod replay;

pub(crate) use header::{HEADER_LEN, Record, Records};
pub(crate) use protect::{CONTENT_BYTES_MAX, ReadKeys, WriteKeys, plaintext};
pub use replay::REPLAY_WINDOW_RECORDS_MAX;
