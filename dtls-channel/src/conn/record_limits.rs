use crate::config::{Config, RECORD_SIZE_LIMIT_MIN};
use crate::error::PeerFault;
use crate::record::CONTENT_BYTES_MAX;

/// How long the content of protected records may be each way, in bytes (RFC 8449).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordLimits {
    /// What the peer takes.
    pub(super) sent: u16,
    /// What we take.
    pub(super) received: u16,
}

impl Default for RecordLimits {
    /// RFC 8449 §4: without the extension only the protocol's own limit holds.
    fn default() -> Self {
        Self { sent: CONTENT_BYTES_MAX, received: CONTENT_BYTES_MAX }
    }
}

impl RecordLimits {
    /// Takes up the peer's limit; if it has none, ours does not bind it either. A client offers
    /// always, and a server answers whoever offers, so both hellos have it or none.
    pub(super) fn agree(&mut self, config: &Config, peers: Option<u16>) -> Result<(), PeerFault> {
        let Some(peers) = peers else { return Ok(()) };
        if peers < RECORD_SIZE_LIMIT_MIN {
            return Err(PeerFault::BadRecordSizeLimit);
        }
        // More than the protocol has is taken for the protocol's own: the peer may know of versions
        // that have more.
        self.sent = peers.min(CONTENT_BYTES_MAX);
        self.received = config.record_size_limit;
        Ok(())
    }
}
