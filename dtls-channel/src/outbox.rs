use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use crate::arena::Arena;
use crate::crypto::HotKey;
use crate::ecn::Ecn;
use crate::event::{AssociationId, Event, Path};
use crate::stats::Stats;

/// Datagrams in one run of the outbox that the kernel may be asked to split (UDP_SEGMENT).
const SEGMENTS_MAX: usize = 64;
/// Bytes in one such run; a UDP send cannot be longer.
const RUN_BYTES_MAX: usize = 65_000;
/// Bytes that may wait to be sent. Beyond that messages are refused, and what the protocol itself
/// would send is dropped as if lost.
pub const OUTBOX_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The part of the buffer that was sent is given back when it is larger than this and than the rest.
const COMPACT_BYTES_MIN: usize = 64 * 1024;

/// One or more datagrams of equal size (the last may be shorter) for one destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub destination: SocketAddr,
    /// From which of our addresses; `None` leaves it to the kernel.
    pub source: Option<IpAddr>,
    /// How many bytes there are in all.
    pub length: usize,
    /// Size of each datagram in bytes, if there are several.
    pub segment_size: Option<usize>,
    /// What the IP header of each of them says.
    pub ecn: Ecn,
}

/// Datagrams that wait to be sent, in one buffer that is reused.
#[derive(Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    /// Where the bytes of the first transmission begin; the others follow without gaps.
    start: usize,
    transmits: VecDeque<Transmit>,
    /// How many datagrams were joined to the last transmission, itself included.
    run_datagrams: usize,
    /// Nothing more is joined to it.
    run_ended: bool,
    /// So many bytes more may go with the last datagram, which ended a handshake.
    room: usize,
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
        self.transmits.front().map(|t| (t, &self.bytes[self.start..self.start + t.length]))
    }

    /// All of them with their bytes, the next one first.
    #[cfg(feature = "net")]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Transmit, &[u8])> {
        let mut start = self.start;
        self.transmits.iter().map(move |transmit| {
            let bytes = &self.bytes[start..start + transmit.length];
            start += transmit.length;
            (transmit, bytes)
        })
    }

    /// True if [`OUTBOX_BYTES_MAX`] bytes or more wait.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.bytes.len() - self.start >= OUTBOX_BYTES_MAX
    }

    /// Forgets the next transmission: it was sent, or cannot be.
    pub fn pop(&mut self) {
        let length = self.transmits.front().map_or(0, |t| t.length);
        self.advance(length);
    }

    /// Forgets the first `length` bytes of the next transmission, which must be whole datagrams.
    pub fn advance(&mut self, length: usize) {
        let Some(front) = self.transmits.front_mut() else { return };
        self.start += length.min(front.length);
        front.length = front.length.saturating_sub(length);
        if front.length == 0 {
            self.transmits.pop_front();
        }
        if self.transmits.is_empty() {
            self.room = 0;
            self.bytes.clear();
            self.bytes.shrink_to(OUTBOX_BYTES_MAX / 4);
            self.start = 0;
        } else if self.start >= COMPACT_BYTES_MIN.max(self.bytes.len() / 2) {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }

    /// Keeps what comes from being sent in one call with what was there before: one datagram that is
    /// too large would take the others with it.
    pub(crate) fn end_run(&mut self) {
        self.run_ended = true;
        self.room = 0;
    }

    /// Lets what comes next go with the last datagram, which may have `bytes_max` bytes then: what follows the end of a
    /// handshake at once need not be a second datagram, to be sent and to be lost.
    pub(crate) fn leave_room(&mut self, bytes_max: usize) {
        let alone = self.transmits.back().filter(|last| last.segment_size.is_none());
        self.room = alone.map_or(0, |last| bytes_max.saturating_sub(last.length));
    }

    /// Holds to what has become of the path's MTU since room was left.
    pub(crate) fn limit_room(&mut self, bytes_max: usize) {
        if self.room > 0 {
            let length = self.transmits.back().map_or(0, |last| last.length);
            self.room = self.room.min(bytes_max.saturating_sub(length));
        }
    }

    /// True while the last datagram waits for what may go with it.
    #[cfg(feature = "net")]
    pub(crate) fn leaves_room(&self) -> bool {
        self.room > 0
    }

    /// Appends the datagram that `write` puts at the end of the buffer; an empty one is none. Says whether there is one
    /// more by that.
    pub(crate) fn datagram<T>(
        &mut self,
        path: Path,
        ecn: Ecn,
        write: impl FnOnce(&mut Vec<u8>) -> T,
    ) -> (T, bool) {
        let start = self.bytes.len();
        let result = write(&mut self.bytes);
        let length = self.bytes.len() - start;
        if length == 0 || self.join_last(path, ecn, length) {
            return (result, false);
        }
        if !self.extend_run(path, ecn, length) {
            let (destination, source) = (path.remote, path.local);
            let transmit = Transmit { destination, source, length, segment_size: None, ecn };
            self.transmits.push_back(transmit);
            (self.run_datagrams, self.run_ended) = (1, false);
        }
        (result, true)
    }

    /// Makes the last datagram longer if room was left for that. It is marked as what is added asks for.
    fn join_last(&mut self, path: Path, ecn: Ecn, length: usize) -> bool {
        let fits = length <= std::mem::take(&mut self.room);
        let last = self
            .transmits
            .back_mut()
            .filter(|last| fits && (last.destination, last.source) == (path.remote, path.local));
        let Some(last) = last else { return false };
        last.length += length;
        last.ecn = ecn;
        true
    }

    /// Adds a datagram to the last run if destination, size and codepoint allow: a run has one IP header.
    fn extend_run(&mut self, path: Path, ecn: Ecn, length: usize) -> bool {
        let Some(last) = self.transmits.back_mut() else { return false };
        let segment = last.segment_size.unwrap_or(last.length);
        let fits = !self.run_ended
            && (last.destination, last.source) == (path.remote, path.local)
            && last.ecn == ecn
            && length <= segment
            && self.run_datagrams < SEGMENTS_MAX
            && last.length + length <= RUN_BYTES_MAX;
        if fits {
            last.length += length;
            last.segment_size = Some(segment);
            self.run_datagrams += 1;
            // A shorter datagram ends a run.
            self.run_ended = length < segment;
        }
        fits
    }
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Outbox({} bytes wait)", self.bytes.len() - self.start)
    }
}

/// An event that was not taken yet.
enum Waiting {
    /// A message of so many bytes, which is in the arena.
    Message {
        sequence: u64,
        bytes: usize,
        ecn: Ecn,
    },
    Other(Event),
}

/// Where associations put what they produce: datagrams, events, counts.
#[derive(Default)]
pub struct Sink {
    /// Datagrams to be sent.
    pub outbox: Outbox,
    /// What has happened so far.
    pub stats: Stats,
    events: VecDeque<(AssociationId, Waiting)>,
    /// The messages among them.
    arena: Arena,
    sealing: HotKey,
    pub(crate) opening: HotKey,
    /// For a datagram that is not whole yet; empty in between.
    pub(crate) scratch: Vec<u8>,
    /// What the IP header of the datagram that is being handled said.
    pub(crate) incoming_ecn: Ecn,
}

impl Sink {
    /// The oldest event not yet taken.
    pub fn poll_event(&mut self) -> Option<(AssociationId, Event)> {
        let (id, waiting) = self.events.pop_front()?;
        let event = match waiting {
            Waiting::Message { sequence, bytes, ecn } => {
                Event::Message { sequence, data: self.arena.take(bytes), ecn }
            }
            Waiting::Other(event) => event,
        };
        Some((id, event))
    }

    /// True if [`poll_event`](Self::poll_event) has something.
    #[must_use]
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    pub(crate) fn event(&mut self, id: AssociationId, event: Event) {
        self.events.push_back((id, Waiting::Other(event)));
    }

    /// Forgets the keys that were used last.
    pub(crate) fn forget_keys(&mut self) {
        self.sealing.forget();
        self.opening.forget();
    }

    pub(crate) fn message(&mut self, id: AssociationId, sequence: u64, content: &[u8]) {
        self.arena.push(content);
        let (bytes, ecn) = (content.len(), self.incoming_ecn);
        self.events.push_back((id, Waiting::Message { sequence, bytes, ecn }));
    }

    pub(crate) fn datagram<T>(&mut self, path: Path, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        self.sealed_datagram(path, Ecn::NotEct, |_, out| write(out))
    }

    /// [`datagram`](Self::datagram) for one that is sealed, perhaps under the same key as the last.
    pub(crate) fn sealed_datagram<T>(
        &mut self,
        path: Path,
        ecn: Ecn,
        write: impl FnOnce(&mut HotKey, &mut Vec<u8>) -> T,
    ) -> T {
        let before = self.outbox.bytes.len();
        let sealing = &mut self.sealing;
        let (result, is_one_more) = self.outbox.datagram(path, ecn, |out| write(sealing, out));
        self.stats.datagrams_out += u64::from(is_one_more);
        self.stats.bytes_out += (self.outbox.bytes.len() - before) as u64;
        result
    }
}

impl std::fmt::Debug for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sink")
            .field("outbox", &self.outbox)
            .field("events", &self.events.len())
            .field("stats", &self.stats)
            .finish_non_exhaustive()
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
            outbox
                .datagram(address(*port), Ecn::NotEct, |b| b.extend(std::iter::repeat_n(0, *size)));
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
    fn a_buffer_that_is_never_empty_does_not_grow() {
        let mut outbox = Outbox::default();
        let push = |outbox: &mut Outbox, n: usize| {
            outbox.datagram(address(n as u16 % 7 + 1), Ecn::NotEct, |b| {
                b.extend((0..1_000).map(|i| (i + n) as u8));
            });
        };
        push(&mut outbox, 0);
        for n in 1..10_000 {
            push(&mut outbox, n);
            let (transmit, bytes) = outbox.front().unwrap();
            assert_eq!((transmit.length, bytes[5]), (1_000, (5 + n - 1) as u8));
            outbox.pop();
            assert!(outbox.bytes.capacity() < 1_000_000);
        }
    }

    #[test]
    fn a_run_can_be_sent_in_parts() {
        let mut outbox = Outbox::default();
        for n in 0..5u8 {
            outbox.datagram(address(1), Ecn::NotEct, |b| b.extend([n; 10]));
        }
        outbox.advance(20);
        let (transmit, bytes) = outbox.front().unwrap();
        assert_eq!((transmit.segment_size, bytes.len(), bytes[0]), (Some(10), 30, 2));
        outbox.pop();
        assert!(outbox.is_empty() && outbox.bytes.is_empty());
    }

    #[test]
    fn a_datagram_that_may_be_too_large_is_sent_alone() {
        let mut outbox = Outbox::default();
        for size in [1_000, 1_400, 900, 900] {
            let probe = size == 1_400;
            if probe {
                outbox.end_run();
            }
            outbox.datagram(address(1), Ecn::NotEct, |b| b.resize(b.len() + size, 0));
            if probe {
                outbox.end_run();
            }
        }
        let lengths: Vec<usize> = std::iter::from_fn(|| {
            let length = outbox.front().map(|(t, _)| t.length)?;
            outbox.pop();
            Some(length)
        })
        .collect();
        assert_eq!(lengths, [1_000, 1_400, 1_800]);
    }

    #[test]
    fn what_follows_the_end_of_a_handshake_goes_with_it_if_it_fits() {
        let lengths = |steps: &[(u16, usize)], room| {
            let mut outbox = Outbox::default();
            outbox.datagram(address(1), Ecn::NotEct, |b| b.extend([0; 100]));
            outbox.leave_room(room);
            for (port, size) in steps {
                outbox.datagram(address(*port), Ecn::Ect0, |b| b.resize(b.len() + size, 1));
            }
            let size = |t: &Transmit| t.segment_size.unwrap_or(t.length);
            outbox.transmits.iter().map(|t| (size(t), t.length, t.ecn)).collect::<Vec<_>>()
        };
        let (plain, marked) = (Ecn::NotEct, Ecn::Ect0);
        let [flight, fifty] = [(100, 100, plain), (50, 50, marked)];
        assert_eq!(lengths(&[(1, 50), (1, 50)], 200), [(150, 200, marked)], "once");
        assert_eq!(lengths(&[(1, 101)], 200), [flight, (101, 101, marked)], "too long");
        assert_eq!(lengths(&[(2, 50)], 200), [flight, fifty], "to another");
        assert_eq!(lengths(&[(1, 50)], 90), [flight, fifty], "no room");

        let mut outbox = Outbox::default();
        outbox.datagram(address(1), Ecn::NotEct, |b| b.extend([0; 100]));
        outbox.leave_room(1_000);
        outbox.limit_room(140);
        outbox.datagram(address(1), Ecn::Ect0, |b| b.extend([0; 50]));
        assert_eq!(outbox.front().map(|(t, _)| t.length), Some(100), "narrower than it was");

        outbox.pop();
        outbox.leave_room(1_000);
        outbox.pop();
        assert_eq!(outbox.room, 0, "it has left");
    }

    #[test]
    fn datagrams_that_are_marked_differently_are_not_joined() {
        let mut outbox = Outbox::default();
        for ecn in [Ecn::NotEct, Ecn::NotEct, Ecn::Ect0, Ecn::Ect0, Ecn::Ect0, Ecn::Ce, Ecn::NotEct]
        {
            outbox.datagram(address(1), ecn, |b| b.extend([0; 10]));
        }
        let runs: Vec<(Ecn, usize)> = outbox.transmits.iter().map(|t| (t.ecn, t.length)).collect();
        assert_eq!(runs, [(Ecn::NotEct, 20), (Ecn::Ect0, 30), (Ecn::Ce, 10), (Ecn::NotEct, 10)]);
    }

    #[test]
    fn debug_output_shows_no_content() {
        let mut sink = Sink::default();
        sink.datagram(address(1), |b| b.extend(b"hunter2"));
        sink.message(AssociationId::STANDALONE, 1, b"hunter2");
        assert!(!format!("{sink:?}").contains("hunter2"));
        assert!(!format!("{:?}", sink.poll_event()).contains("hunter2"));
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
