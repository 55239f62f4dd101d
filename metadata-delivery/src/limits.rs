//! Every limit of a session: the settable ones in [`Limits`], the fixed ones as constants.

use crate::message::{
    HELLO, LOG, LOG_REQUEST, METADATA, PROGRESS, RESULT_PREFIX, SIGNAL_PREFIX, WELCOME,
};

/// Longest document, in bytes, by default: what Heat's own limits allow, with room.
pub const DOCUMENT_BYTES_MAX: usize = 16 << 20;

/// Longest document a stranger may send: enough for a "hello" with a proof.
pub const STRANGER_DOCUMENT_BYTES_MAX: usize = 4 << 10;

/// Most transfers a peer may be allowed to keep open at once; the ceiling of
/// [`Limits::inbound_transfers_max`].
pub const TRANSFERS_CEILING: usize = 256;

/// What may be sent before the peer's HELLO has told its limits: one transfer of this many bytes.
pub(crate) const EARLY_DOCUMENT_BYTES_MAX: u64 = 4 << 10;

/// Longest reason text in REFUSED and CLOSE, in bytes; longer ones are cut at a character.
pub const REASON_BYTES_MAX: usize = 512;

/// Ack-eliciting packets in flight whose contents are remembered. A packet costs about 150 bytes
/// here, so the bookkeeping of a busy session stays below 640 KiB.
pub const SENT_PACKETS_MAX: usize = 4096;

/// Ranges of received packet numbers that are remembered and reported in one ACK.
pub const ACK_RANGES_MAX: usize = 64;

/// Pieces of one document that may wait for an earlier piece, besides one for every
/// [`PENDING_PIECE_BYTES`] that wait. Pieces of an honest peer are longer than that; one that
/// sends a byte here and a byte there runs into this before the bookkeeping outgrows the bytes.
pub const PENDING_PIECES_MAX: usize = 1024;

/// See [`PENDING_PIECES_MAX`].
pub const PENDING_PIECE_BYTES: usize = 256;

/// Source symbols of a transfer's end that are put together from repair symbols at most: what the code has room
/// for. Told in HELLO.
pub const REPAIR_SYMBOLS_MAX: usize = 128;

/// Longest repair symbol, in bytes. With [`REPAIR_SYMBOLS_MAX`], putting a document together takes 1 MiB for a
/// millisecond.
pub const REPAIR_SYMBOL_BYTES_MAX: usize = 2048;

/// STORED and REFUSED answers that wait for their acknowledgement.
pub const ANSWERS_MAX: usize = 1024;

/// Names whose newest version is remembered after it was stored or refused. Past this the name
/// settled longest ago is forgotten; should the peer's application offer that same version again
/// in the same session, it is delivered a second time.
pub const NAMES_REMEMBERED_MAX: usize = 256;

/// Smallest `payload_max` a session works with: the longest REFUSED beside an ACK has to fit one
/// packet, and so have a HELLO, the longest OFFER and a useful piece of DATA.
pub const PAYLOAD_BYTES_MIN: usize = 768;

/// Largest `payload_max` a session uses: one DTLS record, 2^14 bytes (RFC 6347 §4.1), and what a
/// two-byte frame length can say.
pub const PAYLOAD_BYTES_MAX: usize = 16_383;

/// Which names are accepted from the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamePolicy {
    /// Every name.
    Any,
    /// The names listed. An entry that ends in `/*` admits every name below that folder.
    AnyOf(&'static [&'static str]),
}

impl NamePolicy {
    /// Whether a document of this name is accepted.
    pub fn admits(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::AnyOf(patterns) => {
                patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
                    Some(folder) if folder.ends_with('/') => {
                        name.len() > folder.len() && name.starts_with(folder)
                    }
                    _ => name == *pattern,
                })
            }
        }
    }
}

/// What a session accepts and holds at most. The inbound ones are told to the peer, which keeps
/// within them; they are enforced all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Which documents are accepted. Others are answered REFUSED ([`refusal::NAME`](crate::refusal::NAME)).
    pub names: NamePolicy,
    /// Longest document accepted, in bytes. Longer ones are answered REFUSED
    /// ([`refusal::TOO_LARGE`](crate::refusal::TOO_LARGE)) before a byte of them is held.
    pub document_bytes_max: usize,
    /// Whether compressed documents and deltas are accepted. Otherwise they are answered REFUSED
    /// ([`refusal::ENCODING`](crate::refusal::ENCODING)), and nothing of them is decompressed.
    pub compressed: bool,
    /// Bytes of unfinished documents held, over all transfers. At least `document_bytes_max`;
    /// a smaller value is read as that. Repair symbols that wait for others come on top: fewer bytes
    /// than those documents have, and [`REPAIR_SYMBOLS_MAX`] of them for each.
    pub inbound_bytes_max: usize,
    /// Transfers from the peer that may be open (not stored, refused or cancelled) at once:
    /// 1..=[`TRANSFERS_CEILING`], other values are clamped.
    pub inbound_transfers_max: usize,
    /// Bytes of our own documents held until the peer has stored them. Encoded forms, which are
    /// shorter than their documents, come on top.
    pub outbound_bytes_max: usize,
    /// Our own documents held until the peer has stored them.
    pub outbound_documents_max: usize,
}

impl Limits {
    /// What a server grants somebody it does not know yet: one "hello", nothing else.
    pub const fn stranger() -> Self {
        Self {
            names: NamePolicy::AnyOf(&[HELLO]),
            document_bytes_max: STRANGER_DOCUMENT_BYTES_MAX,
            compressed: false,
            inbound_bytes_max: STRANGER_DOCUMENT_BYTES_MAX,
            inbound_transfers_max: 1,
            outbound_bytes_max: STRANGER_DOCUMENT_BYTES_MAX,
            outbound_documents_max: 1,
        }
    }

    /// What a server grants an agent it knows: results, signals, progress and log up to 1 MiB each,
    /// uncompressed. A few bytes from an instance, which its tenant controls, are not to become a
    /// megabyte here.
    pub const fn server() -> Self {
        Self {
            names: NamePolicy::AnyOf(&[HELLO, PROGRESS, LOG, "result/*", "signal/*"]),
            document_bytes_max: 1 << 20,
            compressed: false,
            inbound_bytes_max: 4 << 20,
            inbound_transfers_max: 16,
            // The newest metadata document, the welcome and a request for the log.
            outbound_bytes_max: DOCUMENT_BYTES_MAX + (64 << 10),
            outbound_documents_max: 8,
        }
    }

    /// What an agent grants its server: the welcome, the metadata document, and to ask for its log.
    pub const fn agent() -> Self {
        Self {
            names: NamePolicy::AnyOf(&[WELCOME, METADATA, LOG_REQUEST]),
            document_bytes_max: DOCUMENT_BYTES_MAX,
            compressed: true,
            inbound_bytes_max: DOCUMENT_BYTES_MAX + (64 << 10),
            inbound_transfers_max: 4,
            // A backlog of results after a long time without a server.
            outbound_bytes_max: 64 << 20,
            outbound_documents_max: 1024,
        }
    }

    /// The limits with values out of range moved to the nearest allowed one.
    pub(crate) fn clamped(self) -> Self {
        Self {
            inbound_bytes_max: self.inbound_bytes_max.max(self.document_bytes_max),
            inbound_transfers_max: self.inbound_transfers_max.clamp(1, TRANSFERS_CEILING),
            ..self
        }
    }
}

/// No restriction on names, 16 MiB documents: for tests, benches and other applications.
impl Default for Limits {
    fn default() -> Self {
        Self {
            names: NamePolicy::Any,
            document_bytes_max: DOCUMENT_BYTES_MAX,
            compressed: true,
            inbound_bytes_max: 2 * DOCUMENT_BYTES_MAX,
            inbound_transfers_max: 16,
            outbound_bytes_max: 4 * DOCUMENT_BYTES_MAX,
            outbound_documents_max: 1024,
        }
    }
}

const _: () = assert!(RESULT_PREFIX.len() == "result/".len());
const _: () = assert!(SIGNAL_PREFIX.len() == "signal/".len());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_admits_exactly_what_it_lists() {
        let policy = NamePolicy::AnyOf(&["progress", "result/*", "signal/*"]);
        assert!(policy.admits("progress"));
        assert!(policy.admits("result/1"));
        assert!(policy.admits("result/a/b"));
        for refused in ["result/", "result", "results/1", "progress2", "hello", "*"] {
            assert!(!policy.admits(refused), "{refused}");
        }
        assert!(NamePolicy::Any.admits("anything"));
    }

    #[test]
    fn a_star_without_a_folder_is_only_a_star() {
        let policy = NamePolicy::AnyOf(&["*", "log*"]);
        assert!(policy.admits("*"));
        assert!(!policy.admits("x"));
        assert!(!policy.admits("logs"));
    }

    #[test]
    fn a_stranger_gets_a_hello_and_nothing_else() {
        let limits = Limits::stranger();
        assert!(limits.names.admits(HELLO));
        assert!(!limits.compressed && !Limits::server().compressed);
        for name in [PROGRESS, METADATA, WELCOME, "result/1"] {
            assert!(!limits.names.admits(name), "{name}");
        }
        assert_eq!(limits.clamped(), limits);
    }

    #[test]
    fn values_out_of_range_are_clamped() {
        let limits = Limits {
            document_bytes_max: 10,
            inbound_bytes_max: 1,
            inbound_transfers_max: 0,
            ..Limits::default()
        };
        assert_eq!(limits.clamped().inbound_bytes_max, 10);
        assert_eq!(limits.clamped().inbound_transfers_max, 1);
        let limits = Limits { inbound_transfers_max: 1000, ..Limits::default() };
        assert_eq!(limits.clamped().inbound_transfers_max, TRANSFERS_CEILING);
    }
}
