use crate::event::Path;
use crate::handshake::{HEADER_LEN as MESSAGE_HEADER_LEN, Message, write_fragment};
use crate::outbox::Sink;
use crate::record::{CONTENT_BYTES_MAX, HEADER_LEN as RECORD_HEADER_LEN, WriteKeys, plaintext};
use crate::stats::DropCause;
use crate::wire::ids::{VERSION_1_0, VERSION_1_2};
use crate::wire::{ContentType, HandshakeType};

/// One piece of a flight.
#[derive(Debug, Clone)]
pub(super) enum Item {
    /// Epoch 0.
    Plain(Message),
    /// RFC 5246 §7.1; marks the change to epoch 1 for peers that look at it.
    ChangeCipherSpec,
    /// Epoch 1.
    Sealed(Message),
}

/// The messages that go out together and are repeated together (RFC 6347 §4.2.4).
#[derive(Debug, Clone, Default)]
pub(super) struct Flight {
    items: Vec<Item>,
}

impl Flight {
    pub(super) fn new(items: Vec<Item>) -> Self {
        Self { items }
    }

    /// Gives back the room that nothing of it needs: for one that is kept.
    pub(super) fn shrink_to_fit(&mut self) {
        self.items.shrink_to_fit();
        for item in &mut self.items {
            match item {
                Item::Plain(message) | Item::Sealed(message) => message.shrink_to_fit(),
                Item::ChangeCipherSpec => {}
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Sends everything, packed into as few datagrams of at most `mtu` bytes as it takes. Records
    /// get fresh sequence numbers each time, messages keep theirs. False if there is no room for them, as if they were lost.
    pub(super) fn send(
        &self,
        path: Path,
        mtu: usize,
        sequence0: &mut u64,
        keys: Option<&mut WriteKeys>,
        sink: &mut Sink,
    ) -> bool {
        if sink.outbox.is_full() {
            sink.stats.drops.count(DropCause::NotSent);
            return false;
        }
        let datagram = std::mem::take(&mut sink.scratch);
        let mut packer = Packer { path, mtu, datagram, sequence0, keys, sink };
        for item in &self.items {
            match item {
                Item::Plain(message) => packer.message(message, false),
                Item::Sealed(message) => packer.message(message, true),
                Item::ChangeCipherSpec => packer.change_cipher_spec(),
            }
        }
        packer.flush();
        packer.sink.scratch = packer.datagram;
        true
    }
}

struct Packer<'a> {
    path: Path,
    mtu: usize,
    datagram: Vec<u8>,
    sequence0: &'a mut u64,
    keys: Option<&'a mut WriteKeys>,
    sink: &'a mut Sink,
}

impl Packer<'_> {
    fn flush(&mut self) {
        if !self.datagram.is_empty() {
            self.sink.datagram(self.path, |out| out.extend_from_slice(&self.datagram));
            self.datagram.clear();
        }
    }

    fn change_cipher_spec(&mut self) {
        if self.datagram.len() + RECORD_HEADER_LEN + 1 > self.mtu {
            self.flush();
        }
        let kind = ContentType::CHANGE_CIPHER_SPEC;
        plaintext(&mut self.datagram, kind, VERSION_1_2, self.sequence0, &[1]);
    }

    fn message(&mut self, message: &Message, sealed: bool) {
        let (overhead, record_max) = match &self.keys {
            // RFC 8449 §4: the peer's limit is for protected records.
            Some(keys) if sealed => (keys.overhead(), keys.content_max()),
            _ => (RECORD_HEADER_LEN, usize::from(CONTENT_BYTES_MAX)),
        };
        let overhead = overhead + MESSAGE_HEADER_LEN;
        let piece_max = record_max - MESSAGE_HEADER_LEN;
        let length = message.body().len();
        // Several servers do not take a ClientHello in pieces, so it is not spread over a datagram
        // and the next if it fits one. None of ours is longer without a ticket or a huge cookie.
        let whole = message.kind == HandshakeType::CLIENT_HELLO && overhead + length <= self.mtu;
        let mut offset = 0;
        loop {
            let left = length - offset;
            let used = self.datagram.len() + overhead;
            // What is left of a datagram is used down to the last byte: the rest of the message
            // needs a header of its own in the next one either way.
            let wanted = if whole { left } else { left.min(1) };
            if used + wanted > self.mtu && !self.datagram.is_empty() {
                self.flush();
                continue;
            }
            let room = self.mtu.saturating_sub(used).max(1);
            let piece = if whole { left } else { left.min(room).min(piece_max) };
            self.fragment(message, offset, piece, sealed);
            offset += piece;
            if offset == length {
                return;
            }
        }
    }

    fn fragment(&mut self, message: &Message, offset: usize, length: usize, sealed: bool) {
        let mut piece = Vec::new();
        let body = if length == message.body().len() {
            message.bytes()
        } else {
            write_fragment(&mut piece, message, offset, length);
            &piece
        };
        match &mut self.keys {
            Some(keys) if sealed => {
                // A handshake never comes near the key's limit.
                keys.seal(ContentType::HANDSHAKE, body, &mut self.datagram);
            }
            _ => {
                // RFC 6347 §4.2.1: what a server that negotiates down can read.
                let hello = message.kind == HandshakeType::CLIENT_HELLO;
                let version = if hello { VERSION_1_0 } else { VERSION_1_2 };
                let kind = ContentType::HANDSHAKE;
                plaintext(&mut self.datagram, kind, version, self.sequence0, body);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    #[test]
    fn a_flight_fills_datagrams_up_to_the_mtu_and_reassembles() {
        use crate::handshake::{Reassembler, fragments};
        use crate::record::Records;

        let lengths = [90usize, 0, 700, 33, 1, 0, 100, 0];
        let items = (0u16..).zip(lengths).map(|(seq, n)| {
            Item::Plain(Message::build(HandshakeType::CERTIFICATE, seq, |w| {
                w.extend((0..n).map(|i| i as u8));
            }))
        });
        let flight = Flight::new(items.collect());
        for mtu in (228..420).chain([1_300]) {
            let mut sink = Sink::default();
            let mut sequence = 0;
            let path = SocketAddr::from(([127, 0, 0, 1], 1)).into();
            flight.send(path, mtu, &mut sequence, None, &mut sink);
            let mut incoming = Reassembler::default();
            while let Some((transmit, bytes)) = sink.outbox.front() {
                let size = transmit.segment_size.unwrap_or(bytes.len());
                assert!(size <= mtu);
                for datagram in bytes.to_vec().chunks_mut(size) {
                    for record in Records::new(datagram) {
                        for fragment in fragments(record.body) {
                            incoming.take(&fragment.unwrap());
                        }
                    }
                }
                sink.outbox.pop();
            }
            for length in lengths {
                assert_eq!(incoming.next_message().unwrap().body().len(), length, "mtu {mtu}");
            }
            assert!(mtu < 1_300 || sink.stats.datagrams_out == 1);
        }
    }
}
