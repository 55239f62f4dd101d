//! Counters and gauges of a session.

use std::time::Duration;

/// What a session did so far, and where it stands. Counters never go down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Packets written.
    pub packets_sent: u64,
    /// Bytes written.
    pub bytes_sent: u64,
    /// Packets taken in, without duplicates.
    pub packets_received: u64,
    /// Packets that had been taken in before, or came too late to be told from those.
    pub packets_duplicate: u64,
    /// Packets for which there was no room, treated as if they had never come.
    pub packets_without_room: u64,
    /// Packets taken for lost.
    pub packets_lost: u64,
    /// Packets written that were to be marked as ones whose sender understands congestion marks.
    pub packets_marked: u64,
    /// Packets taken in that were marked for congestion.
    pub packets_congested: u64,
    /// Times that the peer told of such marks on packets of ours, and was believed.
    pub congestion_told: u64,
    /// Probes of the path MTU written; their loss is not counted with that of packets.
    pub mtu_probes_sent: u64,
    /// Packets taken for lost that were only late.
    pub packets_late: u64,
    /// Times the probe timer fired.
    pub probe_timeouts: u64,
    /// Document bytes written, including what was sent again.
    pub data_bytes_sent: u64,
    /// Document bytes that were sent again.
    pub data_bytes_resent: u64,
    /// Bytes of repair symbols written.
    pub repair_bytes_sent: u64,
    /// Times that the rest of a document was computed from repair symbols.
    pub documents_repaired: u64,
    /// Documents handed to the application.
    pub documents_received: u64,
    /// Our documents that the peer has stored.
    pub documents_stored: u64,
    /// Our documents that the peer has refused.
    pub documents_refused: u64,
    /// Deltas and compressed documents of ours that the peer could not read, and got plain.
    pub forms_unread: u64,
    /// Our transfers given up because a newer version came or the document was withdrawn.
    pub transfers_cancelled: u64,
    /// Smoothed round-trip time, once measured.
    pub rtt: Option<Duration>,
    /// Longest packet written, probes of the path MTU apart, in bytes.
    pub payload_max: usize,
    /// Whether path and peer were found to do with congestion marks what they should.
    pub ecn_capable: bool,
    /// Congestion window, in bytes.
    pub window_bytes: usize,
    /// Bytes sent and neither acknowledged nor lost.
    pub in_flight_bytes: usize,
    /// Bytes of unfinished documents held for the peer.
    pub inbound_bytes: usize,
    /// Bytes of our documents that wait to be stored by the peer.
    pub outbound_bytes: usize,
}

/// Of those, what a session counts itself.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counters {
    pub(crate) packets_sent: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) packets_received: u64,
    pub(crate) packets_duplicate: u64,
    pub(crate) packets_without_room: u64,
    pub(crate) packets_lost: u64,
    pub(crate) congestion_told: u64,
    pub(crate) mtu_probes_sent: u64,
    pub(crate) packets_late: u64,
    pub(crate) probe_timeouts: u64,
    pub(crate) documents_received: u64,
    pub(crate) documents_stored: u64,
    pub(crate) documents_refused: u64,
    pub(crate) forms_unread: u64,
}

impl Counters {
    pub(crate) fn told(&self) -> Stats {
        let Self {
            packets_sent,
            bytes_sent,
            packets_received,
            packets_duplicate,
            packets_without_room,
            packets_lost,
            congestion_told,
            mtu_probes_sent,
            packets_late,
            probe_timeouts,
            documents_received,
            documents_stored,
            documents_refused,
            forms_unread,
        } = *self;
        Stats {
            packets_sent,
            bytes_sent,
            packets_received,
            packets_duplicate,
            packets_without_room,
            packets_lost,
            congestion_told,
            mtu_probes_sent,
            packets_late,
            probe_timeouts,
            documents_received,
            documents_stored,
            documents_refused,
            forms_unread,
            ..Stats::default()
        }
    }
}
