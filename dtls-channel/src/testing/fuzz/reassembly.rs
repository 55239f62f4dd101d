use std::collections::BTreeMap;

use arbitrary::Unstructured;

use super::{byte, word};
use crate::handshake::{
    ASSOCIATION_REASSEMBLY_BYTES_MAX, Fragment, HEADER_LEN, MESSAGE_BYTES_MAX, Message,
    Reassembler, Taken,
};
use crate::stats::DropCause;
use crate::wire::HandshakeType;

/// Fragments that lie, overlap, repeat and contradict each other, against a model that keeps every
/// byte by itself. Verdicts, messages and memory agree at every step.
///
/// Layout: first number 2; then operations, see the source.
///
/// # Panics
/// When a rule is broken.
pub fn reassembly(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let first = word(&mut input);
    let mut real = Reassembler::starting_at(first);
    let mut model = Model { next: first, partial: BTreeMap::new() };
    let mut count = 0u8;
    while !input.is_empty() {
        let tag = byte(&mut input);
        match tag % 16 {
            0 => {
                let seq = model.next.wrapping_add(u16::from(byte(&mut input)) % 16).wrapping_sub(4);
                real.rebase(seq);
                model.rebase(seq);
            }
            1 => {
                real.forget_unfinished();
                model.partial.clear();
            }
            2..=4 => {
                let message = real.next_message();
                assert_eq!(message, model.next_message());
            }
            _ => {
                // Each has bytes of its own, so that mixed-up ones show.
                count = count.wrapping_add(1);
                let content = vec![count; MESSAGE_BYTES_MAX + 64];
                let fragment = fragment(tag, model.next, &mut input, &content);
                assert_eq!(real.take(&fragment), model.take(&fragment), "{}", brief(&fragment));
            }
        }
        assert_eq!(real.next_seq(), model.next);
        assert_eq!(real.held_bytes(), model.held_bytes());
        assert!(real.held_bytes() <= ASSOCIATION_REASSEMBLY_BYTES_MAX);
    }
    while let Some(message) = model.next_message() {
        assert_eq!(real.next_message(), Some(message));
    }
    assert_eq!(real.next_message(), None);
}

/// Lengths and places that matter come from one byte, all others from two.
fn fragment<'a>(
    tag: u8,
    next: u16,
    input: &mut Unstructured<'_>,
    content: &'a [u8],
) -> Fragment<'a> {
    let size = |input: &mut Unstructured<'_>| match byte(input) {
        small @ 0..240 => usize::from(small),
        240..250 => usize::from(word(input)) % (MESSAGE_BYTES_MAX + 64),
        250..253 => MESSAGE_BYTES_MAX,
        _ => MESSAGE_BYTES_MAX + 1,
    };
    let seq = byte(input);
    let length = size(input);
    let whole = tag % 16 < 8;
    let offset = if whole { 0 } else { size(input).min(length) };
    let taken = if whole { length } else { size(input).min(length - offset) };
    Fragment {
        kind: if tag & 0x80 == 0 { HandshakeType::CERTIFICATE } else { HandshakeType::FINISHED },
        length,
        message_seq: next.wrapping_add(u16::from(seq) % 12).wrapping_sub(2),
        offset,
        body: &content[..taken],
    }
}

fn brief(fragment: &Fragment<'_>) -> String {
    let Fragment { kind, length, message_seq, offset, body } = fragment;
    format!("{kind:?}#{message_seq} {offset}+{} of {length}", body.len())
}

/// Reassembly in its simplest form: one cell for each byte.
struct Model {
    next: u16,
    partial: BTreeMap<u16, (HandshakeType, Vec<Option<u8>>)>,
}

/// As documented at the reassembler.
const MESSAGES_AHEAD_MAX: usize = 8;
const RANGES_MAX: usize = 64;

impl Model {
    fn held_bytes(&self) -> usize {
        self.partial.values().map(|(_, cells)| HEADER_LEN + cells.len()).sum()
    }

    fn is_complete(cells: &[Option<u8>]) -> bool {
        cells.iter().all(Option::is_some)
    }

    fn rebase(&mut self, seq: u16) {
        self.next = seq;
        self.partial.retain(|s, _| *s >= seq);
    }

    fn next_message(&mut self) -> Option<Message> {
        let (_, cells) = self.partial.get(&self.next)?;
        let body: Vec<u8> = cells.iter().copied().collect::<Option<_>>()?;
        let (kind, _) = self.partial.remove(&self.next)?;
        let message = Message::build(kind, self.next, |w| w.extend(body));
        self.next = self.next.saturating_add(1);
        Some(message)
    }

    fn take(&mut self, fragment: &Fragment<'_>) -> Taken {
        let &Fragment { kind, length, message_seq: seq, offset, body } = fragment;
        if seq < self.next {
            return Taken::Repeated(kind, seq);
        }
        if usize::from(seq - self.next) >= MESSAGES_AHEAD_MAX {
            return Taken::Dropped(DropCause::StaleMessage);
        }
        if length > MESSAGE_BYTES_MAX {
            return Taken::Dropped(DropCause::ReassemblyFull);
        }
        let size = HEADER_LEN + length;
        if body.len() == length {
            // A whole message displaces pieces of itself, and if room is short, later messages.
            self.partial.retain(|s, (_, cells)| *s != seq || Self::is_complete(cells));
            if self.held_bytes() + size > ASSOCIATION_REASSEMBLY_BYTES_MAX {
                self.partial.retain(|s, _| *s <= seq);
            }
        }
        let held = self.held_bytes();
        let (known_kind, cells) = match self.partial.entry(seq) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(place) => {
                if held + size > ASSOCIATION_REASSEMBLY_BYTES_MAX {
                    return Taken::Dropped(DropCause::ReassemblyFull);
                }
                place.insert((kind, vec![None; length]))
            }
        };
        if (*known_kind, cells.len()) != (kind, length) {
            self.partial.remove(&seq);
            return Taken::Dropped(DropCause::BadFragment);
        }
        if body.is_empty() {
            return Taken::Kept;
        }
        let ranges = cells.chunk_by(|a, b| a.is_some() == b.is_some());
        let ranges = ranges.filter(|run| run[0].is_some()).count();
        let end = offset + body.len();
        let around = offset.saturating_sub(1)..(end + 1).min(length);
        if ranges >= RANGES_MAX && cells[around].iter().all(Option::is_none) {
            return Taken::Dropped(DropCause::ReassemblyFull);
        }
        for (cell, byte) in cells[offset..end].iter_mut().zip(body) {
            cell.get_or_insert(*byte);
        }
        Taken::Kept
    }
}
