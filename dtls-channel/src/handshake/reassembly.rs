use super::{Fragment, HEADER_LEN, Message};
use crate::stats::DropCause;
use crate::wire::HandshakeType;

/// The largest handshake message taken, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 8 * 1024;
/// All bytes that one association's unfinished handshake messages may hold.
pub const ASSOCIATION_REASSEMBLY_BYTES_MAX: usize = 16 * 1024;
/// How many messages ahead of the next one are kept; a flight has at most five.
const MESSAGES_AHEAD_MAX: u16 = 8;
/// Separate ranges of one message; a peer that fragments more finely than this gets holes refilled
/// by its own retransmission.
const RANGES_MAX: usize = 64;

/// Puts handshake messages together, in order of `message_seq` (RFC 6347 §4.2.3).
///
/// The key is the sequence number; fragments that contradict each other in type or length drop each
/// other. Of overlapping bytes the first to come stay, but a message in one piece beats one in
/// pieces.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Reassembler {
    next: u16,
    partial: Vec<Partial>,
    held_bytes: usize,
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
struct Partial {
    kind: HandshakeType,
    message_seq: u16,
    /// Room for the header, then the body.
    bytes: Vec<u8>,
    /// Disjoint, sorted, not touching: `start..end`.
    have: Vec<(usize, usize)>,
}

/// What became of a fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It belongs to a message that is still to be processed.
    Kept,
    /// It repeats a message that was processed before.
    Repeated(HandshakeType, u16),
    /// It was not used.
    Dropped(DropCause),
}

impl Reassembler {
    /// Expects `next` first.
    pub(crate) fn starting_at(next: u16) -> Self {
        Self { next, ..Self::default() }
    }

    /// The sequence number of the message that comes next.
    pub(crate) fn next_seq(&self) -> u16 {
        self.next
    }

    /// Expects `next` from here on, whatever was expected before; what is older is forgotten.
    pub(crate) fn rebase(&mut self, next: u16) {
        self.next = next;
        self.partial.retain(|p| p.message_seq >= next);
        self.held_bytes = self.partial.iter().map(|p| p.bytes.len()).sum();
    }

    /// Drops what has begun to come in: from here on only protected fragments count.
    pub(crate) fn forget_unfinished(&mut self) {
        self.partial.clear();
        self.held_bytes = 0;
    }

    pub(crate) fn take(&mut self, fragment: &Fragment<'_>) -> Taken {
        if fragment.message_seq < self.next {
            return Taken::Repeated(fragment.kind, fragment.message_seq);
        }
        if fragment.message_seq - self.next >= MESSAGES_AHEAD_MAX {
            return Taken::Dropped(DropCause::StaleMessage);
        }
        if fragment.length > MESSAGE_BYTES_MAX {
            return Taken::Dropped(DropCause::ReassemblyFull);
        }
        if fragment.is_whole() {
            self.make_way_for(fragment);
        }
        let found = self.partial.iter().position(|p| p.message_seq == fragment.message_seq);
        let index = match found {
            Some(index) => index,
            None => {
                let size = HEADER_LEN + fragment.length;
                if self.held_bytes + size > ASSOCIATION_REASSEMBLY_BYTES_MAX {
                    return Taken::Dropped(DropCause::ReassemblyFull);
                }
                self.held_bytes += size;
                self.partial.push(Partial {
                    kind: fragment.kind,
                    message_seq: fragment.message_seq,
                    bytes: vec![0; size],
                    have: Vec::new(),
                });
                self.partial.len() - 1
            }
        };
        let partial = &mut self.partial[index];
        if partial.kind != fragment.kind || partial.bytes.len() - HEADER_LEN != fragment.length {
            // One of the two is forged, and nothing tells which: both go, and the peer's next
            // resend begins anew.
            let contradicted = self.partial.swap_remove(index);
            self.held_bytes -= contradicted.bytes.len();
            return Taken::Dropped(DropCause::BadFragment);
        }
        partial.fill(fragment.offset, fragment.body)
    }

    /// A message that came in one piece needs nothing of what others, perhaps forgers, have begun:
    /// unfinished pieces under its number go, and if room is short, those that come after it.
    fn make_way_for(&mut self, fragment: &Fragment<'_>) {
        let seq = fragment.message_seq;
        self.partial.retain(|p| p.message_seq != seq || p.is_complete());
        self.held_bytes = self.partial.iter().map(|p| p.bytes.len()).sum();
        if self.held_bytes + HEADER_LEN + fragment.length > ASSOCIATION_REASSEMBLY_BYTES_MAX {
            self.partial.retain(|p| p.message_seq <= seq);
            self.held_bytes = self.partial.iter().map(|p| p.bytes.len()).sum();
        }
    }

    /// The next message, once it is whole.
    pub(crate) fn next_message(&mut self) -> Option<Message> {
        let index =
            self.partial.iter().position(|p| p.message_seq == self.next && p.is_complete())?;
        let partial = self.partial.swap_remove(index);
        self.held_bytes -= partial.bytes.len();
        self.next = self.next.saturating_add(1);
        Some(Message::finish(partial.kind, partial.message_seq, partial.bytes))
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn held_bytes(&self) -> usize {
        self.held_bytes
    }
}

impl Partial {
    fn is_complete(&self) -> bool {
        let length = self.bytes.len() - HEADER_LEN;
        length == 0 || self.have == [(0, length)]
    }

    fn fill(&mut self, offset: usize, body: &[u8]) -> Taken {
        let (start, end) = (offset, offset + body.len());
        if start == end {
            return Taken::Kept;
        }
        if self.have.len() >= RANGES_MAX && !self.have.iter().any(|r| r.0 <= end && start <= r.1) {
            return Taken::Dropped(DropCause::ReassemblyFull);
        }
        // Copy only what lies between the ranges already there.
        let mut from = start;
        let holes = self.have.iter().map(|r| (r.0, r.1)).chain([(end, end)]);
        for (have_start, have_end) in holes {
            if from >= end {
                break;
            }
            let to = have_start.min(end);
            if from < to {
                let target = HEADER_LEN + from..HEADER_LEN + to;
                self.bytes[target].copy_from_slice(&body[from - offset..to - offset]);
            }
            from = from.max(have_end);
        }
        self.have.push((start, end));
        self.have.sort_unstable();
        self.have.dedup_by(|later, earlier| {
            let touches = later.0 <= earlier.1;
            if touches {
                earlier.1 = earlier.1.max(later.1);
            }
            touches
        });
        Taken::Kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fragment(seq: u16, length: usize, offset: usize, body: &[u8]) -> Fragment<'_> {
        Fragment { kind: HandshakeType::CERTIFICATE, length, message_seq: seq, offset, body }
    }

    #[test]
    fn messages_come_out_in_order_whatever_order_they_came_in() {
        let mut r = Reassembler::default();
        assert_eq!(r.take(&fragment(1, 2, 0, b"cd")), Taken::Kept);
        assert_eq!(r.take(&fragment(0, 2, 1, b"b")), Taken::Kept);
        assert!(r.next_message().is_none());
        assert_eq!(r.take(&fragment(0, 2, 0, b"a")), Taken::Kept);
        assert_eq!(r.next_message().unwrap().body(), b"ab");
        assert_eq!(r.next_message().unwrap().body(), b"cd");
        assert_eq!(r.held_bytes(), 0);
        let repeated = Taken::Repeated(HandshakeType::CERTIFICATE, 1);
        assert_eq!(r.take(&fragment(1, 2, 0, b"cd")), repeated);
    }

    #[test]
    fn an_empty_message_is_whole_at_once_and_empty_fragments_make_no_progress() {
        let mut r = Reassembler::default();
        for _ in 0..1_000 {
            assert_eq!(r.take(&fragment(1, 5, 0, b"")), Taken::Kept);
        }
        assert!(r.next_message().is_none());
        assert_eq!(r.take(&fragment(0, 0, 0, b"")), Taken::Kept);
        assert_eq!(r.next_message().unwrap().body(), b"");
    }

    #[test]
    fn a_fragment_that_contradicts_the_first_is_dropped() {
        let mut r = Reassembler::default();
        r.take(&fragment(0, 4, 0, b"ab"));
        let bad = Taken::Dropped(DropCause::BadFragment);
        assert_eq!(r.take(&fragment(0, 5, 2, b"cd")), bad);
        assert_eq!(r.held_bytes(), 0, "and so is the first");
        r.take(&fragment(0, 4, 0, b"ab"));
        let other = Fragment { kind: HandshakeType::FINISHED, ..fragment(0, 4, 2, b"cd") };
        assert_eq!(r.take(&other), bad);
        r.take(&fragment(0, 4, 0, b"ab"));
        r.take(&fragment(0, 4, 2, b"cd"));
        assert_eq!(r.next_message().unwrap().body(), b"abcd");
    }

    #[test]
    fn of_overlapping_bytes_the_first_stay() {
        let mut r = Reassembler::default();
        r.take(&fragment(0, 6, 2, b"CD"));
        r.take(&fragment(0, 6, 1, b"bxxe"));
        r.take(&fragment(0, 6, 0, b"axxxx"));
        r.take(&fragment(0, 6, 4, b"xf"));
        assert_eq!(r.next_message().unwrap().body(), b"abCDef");
    }

    #[test]
    fn a_message_in_one_piece_displaces_forged_beginnings() {
        let mut r = Reassembler::default();
        for seq in 0..8 {
            r.take(&fragment(seq, MESSAGE_BYTES_MAX / 2, 0, b"forged"));
        }
        assert_eq!(r.take(&fragment(1, 3, 0, b"two")), Taken::Kept);
        assert_eq!(r.take(&fragment(0, 3, 0, b"one")), Taken::Kept);
        assert_eq!(r.next_message().unwrap().body(), b"one");
        assert_eq!(r.next_message().unwrap().body(), b"two");
    }

    #[test]
    fn memory_is_bounded_per_message_and_in_all() {
        let mut r = Reassembler::default();
        let full = Taken::Dropped(DropCause::ReassemblyFull);
        assert_eq!(r.take(&fragment(0, MESSAGE_BYTES_MAX + 1, 0, b"x")), full);
        for seq in 0..u16::MAX {
            r.take(&fragment(seq, MESSAGE_BYTES_MAX / 2, 0, b"x"));
            assert!(r.held_bytes() <= ASSOCIATION_REASSEMBLY_BYTES_MAX);
        }
        // One byte in every second place: the ranges are bounded too.
        let mut r = Reassembler::default();
        for offset in (0..4_000).step_by(2) {
            r.take(&fragment(0, 4_000, offset, b"x"));
        }
        assert!(r.partial[0].have.len() <= RANGES_MAX);
    }

    proptest! {
        #[test]
        fn any_cover_of_a_message_in_any_order_gives_the_message(
            length in 1usize..400,
            cuts in prop::collection::vec((0usize..400, 1usize..400), 0..30),
            step in 7usize..100,
        ) {
            let content: Vec<u8> = (0..length).map(|i| i as u8).collect();
            let mut r = Reassembler::default();
            let whole = (0..length).step_by(step).map(|start| (start, step));
            for (start, len) in cuts.into_iter().chain(whole) {
                let start = start.min(length - 1);
                let end = (start + len).min(length);
                r.take(&fragment(0, length, start, &content[start..end]));
            }
            prop_assert_eq!(r.next_message().unwrap().body().to_vec(), content);
        }
    }
}
