//! HELLO: versions, limits and abilities of its sender.

use super::varint::{self, Reader};
use super::{ended, malformed};
use crate::PacketError;

/// Bit of [`Hello::encodings`] for documents sent as they are. Always set.
pub(crate) const ENCODINGS_RAW: u64 = 1;

/// Bit of [`Hello::abilities`] for a writer that counts the congestion marks of packets, and tells in its ACKs.
pub(crate) const ABILITY_ECN: u64 = 1;

/// What a side says about itself, repeated until acknowledged. A higher generation replaces a
/// lower one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hello {
    /// Newest protocol version spoken.
    pub(crate) version_max: u64,
    /// Oldest protocol version spoken.
    pub(crate) version_min: u64,
    /// Counts the HELLOs of a session from 0.
    pub(crate) generation: u64,
    /// Longest time an acknowledgement is held back, in microseconds.
    pub(crate) ack_delay_max_us: u64,
    /// Longest document accepted, in bytes.
    pub(crate) document_bytes_max: u64,
    /// Sum of the encoded lengths of the transfers that may be open, in bytes.
    pub(crate) inbound_bytes_max: u64,
    /// Transfers that may be open at once.
    pub(crate) inbound_transfers_max: u64,
    /// Bit n: encoding n is understood.
    pub(crate) encodings: u64,
    /// Source symbols that are put together from repair symbols at most; 0, as from a writer that does not know the
    /// field: no REPAIR is read.
    pub(crate) repair_symbols_max: u64,
    /// What else the writer can do, by bits; none, as from a writer that does not know the field.
    pub(crate) abilities: u64,
}

impl Hello {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        for field in [
            self.version_max,
            self.version_min,
            self.generation,
            self.ack_delay_max_us,
            self.document_bytes_max,
            self.inbound_bytes_max,
            self.inbound_transfers_max,
            self.encodings,
            self.repair_symbols_max,
            self.abilities,
        ] {
            varint::put(out, field);
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, PacketError> {
        let mut field = || reader.varint().map_err(ended("HELLO"));
        let hello = Self {
            version_max: field()?,
            version_min: field()?,
            generation: field()?,
            ack_delay_max_us: field()?,
            document_bytes_max: field()?,
            inbound_bytes_max: field()?,
            inbound_transfers_max: field()?,
            encodings: field()?,
            repair_symbols_max: 0,
            abilities: 0,
        };
        let mut later_field =
            || if reader.is_empty() { Ok(0) } else { reader.varint().map_err(ended("HELLO")) };
        let hello = Self { repair_symbols_max: later_field()?, abilities: later_field()?, ..hello };
        if hello.version_min > hello.version_max {
            return Err(malformed("HELLO", "oldest version above the newest"));
        }
        Ok(hello)
    }
}
