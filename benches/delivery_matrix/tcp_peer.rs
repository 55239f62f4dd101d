//! A model of TCP with TLS 1.3 over it as a [`Peer`]: `tcp_sender` sends; this half opens the connection,
//! acknowledges, puts the stream together and cuts it into messages. No user-space TCP in Rust recovers by what SACK
//! tells it (smoltcp 0.13 does not, and begins with 2 KiB), hence a model.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dtls_channel::Ecn;

use crate::tcp_sender::{ACK_DELAY_MAX, Sender};
use crate::world::Peer;

/// TCP header with timestamps, less the header of UDP, which no engine here is charged for.
const HEADER_BYTES: usize = 32 - 8;
/// Around each record of TLS 1.3: header, type, tag.
const RECORD_BYTES: usize = 5 + 1 + 16;
const RECORD_BYTES_MAX: usize = 1 << 14;
/// Flights of a handshake with a certificate each, P-256.
const CLIENT_HELLO_BYTES: usize = 250;
const SERVER_FLIGHT_BYTES: usize = 900;
const CLIENT_FLIGHT_BYTES: usize = 700;
/// First resend of a SYN (RFC 6298 §2.1).
const SYN_RESEND: Duration = Duration::from_secs(1);
/// So many segments are acknowledged at once when a connection begins, as Linux does.
const QUICK_ACKS: u32 = 16;
/// Ranges that fit beside timestamps.
const SACKS_MAX: usize = 3;
/// What the application puts in front of each message: its length.
const LENGTH_BYTES: usize = 8;

const SYN: u8 = 1;
const ACK: u8 = 2;

pub(crate) struct Tcp {
    is_agent: bool,
    sender: Sender,
    outgoing: Vec<u8>,
    /// The peer has answered our SYN.
    open: bool,
    syn_at: Instant,
    syn_sent_at: Option<Instant>,
    syns: u32,
    heard_syn: bool,
    /// Of the peer's stream: bytes in order that are no whole message yet, their end, and pieces beyond it.
    stream: Vec<u8>,
    in_order: u64,
    pieces: BTreeMap<u64, Vec<u8>>,
    /// Where the latest piece begins: its range is told first.
    latest: u64,
    unacked: u32,
    segments: u32,
    ack_at: Option<Instant>,
    messages: u64,
}

/// Server and agent; the agent connects.
pub(crate) fn pair(now: Instant) -> [Tcp; 2] {
    [false, true].map(|is_agent| Tcp {
        is_agent,
        sender: Sender::new(now),
        outgoing: Vec::new(),
        open: false,
        syn_at: now,
        syn_sent_at: None,
        syns: 0,
        heard_syn: false,
        stream: Vec::new(),
        in_order: 0,
        pieces: BTreeMap::new(),
        latest: 0,
        unacked: 0,
        segments: 0,
        ack_at: None,
        messages: 0,
    })
}

impl Tcp {
    /// Messages of the handshake that this end receives.
    fn handshake_messages(&self) -> u64 {
        if self.is_agent { 1 } else { 2 }
    }

    fn write(&mut self, body: &[u8]) {
        let length = (LENGTH_BYTES + body.len()) as u64;
        self.outgoing.extend_from_slice(&(body.len() as u64).to_be_bytes());
        self.outgoing.extend_from_slice(body);
        // Its records' bytes come at the end rather than between.
        let records = (length as usize).div_ceil(RECORD_BYTES_MAX) * RECORD_BYTES;
        self.outgoing.resize(self.outgoing.len() + records, 0);
        self.sender.written = self.outgoing.len() as u64;
    }

    fn opened(&mut self, now: Instant) {
        self.open = true;
        // Karn: only a SYN that was sent once says how long it took.
        if let Some(sent_at) = self.syn_sent_at.filter(|_| self.syns == 1) {
            self.sender.sample(now - sent_at);
        }
        if self.is_agent {
            self.write(&[0; CLIENT_HELLO_BYTES]);
        }
    }

    fn take_piece(&mut self, now: Instant, start: u64, bytes: &[u8]) {
        let end = start + bytes.len() as u64;
        self.segments += 1;
        self.unacked += 1;
        let expected = start == self.in_order && self.pieces.is_empty();
        if end > self.in_order && !self.pieces.contains_key(&start) {
            self.pieces.insert(start, bytes.to_vec());
            self.latest = start;
        }
        while let Some(entry) = self.pieces.first_entry().filter(|e| *e.key() <= self.in_order) {
            let (start, piece) = entry.remove_entry();
            let known = (self.in_order - start) as usize;
            if known < piece.len() {
                self.stream.extend_from_slice(&piece[known..]);
                self.in_order += (piece.len() - known) as u64;
            }
        }
        let at_once = !expected || self.unacked >= 2 || self.segments <= QUICK_ACKS;
        let due = if at_once { now } else { now + ACK_DELAY_MAX };
        self.ack_at = Some(self.ack_at.map_or(due, |at| at.min(due)));
        self.take_messages();
    }

    fn take_messages(&mut self) {
        let mut taken = 0;
        while let Some(head) = self.stream.get(taken..taken + LENGTH_BYTES) {
            let length =
                LENGTH_BYTES + u64::from_be_bytes(head.try_into().expect("8 bytes")) as usize;
            let whole = length + length.div_ceil(RECORD_BYTES_MAX) * RECORD_BYTES;
            if self.stream.len() - taken < whole {
                break;
            }
            taken += whole;
            self.messages += 1;
            match (self.is_agent, self.messages) {
                (false, 1) => self.write(&[0; SERVER_FLIGHT_BYTES]),
                (true, 1) => self.write(&[0; CLIENT_FLIGHT_BYTES]),
                (false, _) => {}
                // The application confirms a document.
                (true, _) => self.write(&[]),
            }
        }
        self.stream.drain(..taken);
    }

    /// Ranges beyond what is in order, the latest first.
    fn sacks(&self) -> Vec<(u64, u64)> {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for (start, piece) in &self.pieces {
            let end = start + piece.len() as u64;
            match ranges.last_mut() {
                Some((_, last)) if *last >= *start => *last = end.max(*last),
                _ => ranges.push((*start, end)),
            }
        }
        ranges.sort_by_key(|(low, high)| !(*low..*high).contains(&self.latest));
        ranges.truncate(SACKS_MAX);
        ranges
    }

    fn write_segment(&mut self, flags: u8, piece: Option<(u64, u64)>, out: &mut Vec<u8>) {
        let begin = out.len();
        let sacks = self.sacks();
        out.push(flags);
        out.push(sacks.len() as u8);
        out.extend_from_slice(&(piece.map_or(0, |(start, _)| start) as u32).to_be_bytes());
        out.extend_from_slice(&(self.in_order as u32).to_be_bytes());
        out.resize(begin + HEADER_BYTES, 0);
        for (low, high) in &sacks {
            out.extend_from_slice(&(*low as u32).to_be_bytes());
            out.extend_from_slice(&(*high as u32).to_be_bytes());
        }
        if let Some((start, end)) = piece {
            out.extend_from_slice(&self.outgoing[start as usize..end as usize]);
        }
        (self.unacked, self.ack_at) = (0, None);
    }
}

impl Peer for Tcp {
    fn is_ready(&self) -> bool {
        self.open && self.messages >= self.handshake_messages()
    }

    fn send(&mut self, _now: Instant, body: Bytes) {
        self.write(&body);
    }

    fn received(&self) -> u64 {
        if self.is_agent { self.messages.saturating_sub(1) } else { 0 }
    }

    fn confirmed(&self) -> u64 {
        if self.is_agent { 0 } else { self.messages.saturating_sub(2) }
    }

    fn handle(&mut self, now: Instant, _ecn: Ecn, datagram: &[u8]) {
        let field = |at: usize| {
            u64::from(u32::from_be_bytes(datagram[at..at + 4].try_into().expect("4 bytes")))
        };
        let (flags, count) = (datagram[0], usize::from(datagram[1]));
        if flags & SYN != 0 {
            self.heard_syn = true;
            // Answered, or answered again, at once.
            self.syn_at = now;
            if self.is_agent && !self.open {
                self.opened(now);
            }
            self.ack_at = self.is_agent.then_some(now);
            return;
        }
        if !self.open && !self.is_agent && self.heard_syn {
            self.opened(now);
        }
        let sacks: Vec<(u64, u64)> = (0..count)
            .map(|n| (field(HEADER_BYTES + 8 * n), field(HEADER_BYTES + 8 * n + 4)))
            .collect();
        if flags & ACK != 0 {
            self.sender.on_ack(now, field(6), &sacks);
        }
        let bytes = &datagram[HEADER_BYTES + 8 * count..];
        if !bytes.is_empty() {
            self.take_piece(now, field(2), bytes);
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.sender.handle_timeout(now);
    }

    fn next_timeout(&mut self) -> Option<Instant> {
        let syn = (!self.open && (self.is_agent || self.heard_syn)).then_some(self.syn_at);
        [syn, self.ack_at, self.sender.next_timeout()].into_iter().flatten().min()
    }

    fn transmit(&mut self, now: Instant, out: &mut Vec<u8>) -> bool {
        if !self.open {
            if self.syn_at > now || !(self.is_agent || self.heard_syn) {
                return false;
            }
            self.syn_at = now + SYN_RESEND * (1 << self.syns.min(6));
            self.syns += 1;
            self.syn_sent_at = Some(now);
            self.write_segment(SYN, None, out);
            return true;
        }
        if let Some(piece) = self.sender.transmit(now) {
            self.write_segment(ACK, Some(piece), out);
            return true;
        }
        if self.ack_at.is_some_and(|at| at <= now) {
            self.write_segment(ACK, None, out);
            return true;
        }
        false
    }
}
