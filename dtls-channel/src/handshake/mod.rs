//! Handshake messages (RFC 6347 §4.2, RFC 5246 §7.4): framing, reassembly, contents.

mod header;
pub(crate) mod messages;
mod reassembly;

pub(crate) use header::{Fragment, HEADER_LEN, Message, fragments, write_fragment};
pub use reassembly::{ASSOCIATION_REASSEMBLY_BYTES_MAX, MESSAGE_BYTES_MAX};
pub(crate) use reassembly::{Reassembler, Taken};
