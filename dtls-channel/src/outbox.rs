use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use bytes::{Bytes, BytesMut};

use crate::event::{AssociationId, Event, Path};
use crate::stats::Stats;

/// Datagrams in one run of the outbox that the kernel may be asked to split (UDP_SEGMENT).
const SEGMENTS_MAX: usize = 64;
/// Bytes in one such run; a UDP send cannot be longer.
const RUN_BYTES_MAX: usize = 65_000;
/// Room for incoming messages is taken in pieces of this size.
const ARENA_BYTES: usize = 64 * 1024;

/// One or more datagrams of equal size (the last may be shorter) for one destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub destination: SocketAddr,
    /// From which of our addresses; `None` leaves it to the kernel.
    pub source: Option<IpAddr>,
    /// Where its bytes are in [`Outbox::bytes`].
    pub range: Range<usize>,
    /// Size of each datagram in bytes, if there are several.
    pub segment_size: Option<usize>,
}

/// Datagrams that wait to be sent, in one buffer that is reused.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    transmits: VecDeque<Transmit>,
}

impl Outbox {
    /// True if nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.transmits.is_empty()
    }

    /// The next transmission and its bytes; it stays until [`pop`](Self::pop).
    #[must_use]
    pub fn front(&self) -> Option<(&Transmit, &[u8])> {
        self.transmits.front().map(|t| (t, &self.bytes[t.range.clone()]))
    }

    /// Forgets the next transmission: it was sent, or cannot be.
    pub fn pop(&mut self) {
        self.transmits.pop_front();
        if self.transmits.is_empty() {
            self.bytes.clear();
        }
    }

    /// Appends the datagram that `write` puts at the end of the buffer; an empty one is none.
    pub(crate) fn datagram<T>(&mut self, path: Path, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let start = self.bytes.len();
        let result = write(&mut self.bytes);
        let length = self.bytes.len() - start;
        if length > 0 && !self.extend_run(path, start, length) {
            let range = start..start + length;
            let (destination, source) = (path.remote, path.local);
            let transmit = Transmit { destination, source, range, segment_size: None };
            self.transmits.push_back(transmit);
        }
        result
    }

    /// Adds a datagram to the last run if destination and size allow.
    fn extend_run(&mut self, path: Path, start: usize, length: usize) -> bool {
        let Some(last) = self.transmits.back_mut() else { return false };
        let run = last.range.len();
        let segment = last.segment_size.unwrap_or(run);
        // A shorter datagram ends a run.
        let fits = (last.destination, last.source) == (path.remote, path.local)
            && last.range.end == start
            && run % segment == 0
            && length <= segment
            && run / segment < SEGMENTS_MAX
            && run + length <= RUN_BYTES_MAX;
        if fits {
            last.range.end = start + length;
            last.segment_size = Some(segment);
        }
        fits
    }
}

/// Where associations put what they produce: datagrams, events, counts.
#[derive(Debug, Default)]
pub struct Sink {
    /// Datagrams to be sent.
    pub outbox: Outbox,
    /// What has happened so far.
    pub stats: Stats,
    events: VecDeque<(AssociationId, Event)>,
    arena: BytesMut,
}

impl Sink {
    /// The oldest event not yet taken.
    pub fn poll_event(&mut self) -> Option<(AssociationId, Event)> {
        self.events.pop_front()
    }

    /// True if [`poll_event`](Self::poll_event) has something.
    #[must_use]
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    pub(crate) fn event(&mut self, id: AssociationId, event: Event) {
        self.events.push_back((id, event));
    }

    pub(crate) fn message(&mut self, id: AssociationId, sequence: u64, content: &[u8]) {
        let data = self.keep(content);
        self.event(id, Event::Message { sequence, data });
    }

    /// Copies bytes into shared storage: one allocation for many messages, reused when the
    /// application has let go of them.
    pub(crate) fn keep(&mut self, content: &[u8]) -> Bytes {
        if self.arena.capacity() < content.len() {
            self.arena.reserve(ARENA_BYTES.max(content.len()));
        }
        self.arena.extend_from_slice(content);
        self.arena.split().freeze()
    }

    pub(crate) fn datagram<T>(&mut self, path: Path, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let before = self.outbox.bytes.len();
        let result = self.outbox.datagram(path, write);
        let length = (self.outbox.bytes.len() - before) as u64;
        self.stats.datagrams_out += u64::from(length > 0);
        self.stats.bytes_out += length;
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> Path {
        SocketAddr::from(([127, 0, 0, 1], port)).into()
    }

    fn runs(sizes: &[(u16, usize)]) -> Vec<(u16, usize, Option<usize>)> {
        let mut outbox = Outbox::default();
        for (port, size) in sizes {
            outbox.datagram(address(*port), |b| b.extend(std::iter::repeat_n(0, *size)));
        }
        let mut got = Vec::new();
        while let Some((t, bytes)) = outbox.front() {
            got.push((t.destination.port(), bytes.len(), t.segment_size));
            outbox.pop();
        }
        assert!(outbox.bytes.is_empty());
        got
    }

    #[test]
    fn equal_datagrams_to_one_destination_become_one_run() {
        assert_eq!(
            runs(&[(1, 10), (1, 10), (1, 10), (1, 4), (1, 4), (2, 4), (1, 20)]),
            [(1, 34, Some(10)), (1, 4, None), (2, 4, None), (1, 20, None)]
        );
        assert_eq!(runs(&[(1, 10), (1, 20)]), [(1, 10, None), (1, 20, None)]);
        let many = runs(&[(1, 1_200); 100]);
        assert_eq!(many[0], (1, 54 * 1_200, Some(1_200)));
        assert_eq!(many.iter().map(|m| m.1).sum::<usize>(), 120_000);
        assert_eq!(runs(&[(1, 0)]), []);
    }
}
