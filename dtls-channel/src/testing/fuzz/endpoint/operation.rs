use std::time::Duration;

use arbitrary::{Arbitrary, Result, Unstructured};

use crate::handshake::{HEADER_LEN, fragments};
use crate::record::{HEADER_LEN as RECORD_HEADER_LEN, Records};
use crate::testing::fuzz::{byte, bytes, word};
use crate::wire::{ContentType, HandshakeType, Write};

/// What can happen. Numbers count modulo what there is.
#[derive(Debug)]
pub(super) enum Operation {
    /// A client begins, with the session of the one before it if that got one.
    Connect(usize),
    /// A datagram arrives at the server.
    Up(u8),
    /// A datagram arrives at an address.
    Down(u8),
    /// Everything arrives, until nothing is left to say.
    Exchange,
    /// A datagram arrives at the server and is still on its way.
    Repeat(u8),
    /// A copy arrives from another address.
    Spoof(u8, usize),
    Bend {
        choice: u8,
        from: u8,
        at: u16,
        flip: u8,
    },
    /// A hello goes on in pieces of that many bytes.
    Split(u8, usize),
    Lose(u8),
    Raw(usize, Vec<u8>),
    Advance(Duration),
    NextTimer,
    ClientSends(usize, usize),
    ServerSends(u8, usize),
    ClientCloses(usize),
    ServerCloses(u8),
    /// A client's datagrams come from another address.
    Move(usize, usize),
}

impl<'a> Arbitrary<'a> for Operation {
    fn arbitrary(input: &mut Unstructured<'a>) -> Result<Self> {
        let number = |input: &mut Unstructured<'a>| usize::from(byte(input));
        let tag = byte(input);
        Ok(match tag & 31 {
            0 | 1 => Self::Connect(number(input)),
            2 => Self::Up(byte(input)),
            3 | 4 => Self::Up(0),
            5 => Self::Down(byte(input)),
            6 | 7 => Self::Down(0),
            8 => Self::Exchange,
            9 => Self::Repeat(byte(input)),
            10 | 11 => Self::Spoof(byte(input), number(input)),
            12 | 13 => {
                let (choice, from) = (byte(input), byte(input));
                Self::Bend { choice, from, at: word(input), flip: byte(input) }
            }
            14 | 15 => Self::Split(byte(input), number(input)),
            16 => Self::Lose(byte(input)),
            17 => {
                let (from, length) = (number(input), number(input));
                Self::Raw(from, bytes(input, length).to_vec())
            }
            18 => Self::Advance(Duration::from_millis((number(input) as u64).pow(2) * 2)),
            19 | 20 => Self::NextTimer,
            21 | 22 => Self::ClientSends(number(input), number(input) * 6),
            23 => Self::ServerSends(byte(input), number(input) * 6),
            24 => Self::ClientCloses(number(input)),
            25 => Self::ServerCloses(byte(input)),
            26 | 27 => Self::Move(number(input), number(input)),
            _ => Self::Up(tag >> 5),
        })
    }
}

/// A datagram with one ClientHello as datagrams with one fragment each; any other as it is.
pub(super) fn split_hello(datagram: &[u8], size: usize) -> Vec<Vec<u8>> {
    let mut copy = datagram.to_vec();
    let Some(record) = Records::new(&mut copy).next() else { return vec![datagram.to_vec()] };
    let (epoch, kind, sequence) = (record.epoch, record.content_type, record.sequence);
    let fragment = fragments(record.body).next().and_then(|fragment| fragment.ok());
    let Some(fragment) = fragment.filter(|f| {
        f.kind == HandshakeType::CLIENT_HELLO
            && f.is_whole()
            && (epoch, kind) == (0, ContentType::HANDSHAKE)
            && RECORD_HEADER_LEN + HEADER_LEN + f.length == datagram.len()
    }) else {
        return vec![datagram.to_vec()];
    };
    let size = size.max(16);
    let pieces = fragment.body.chunks(size).zip(0u16..);
    let pieces = pieces.map(|(piece, number)| {
        let mut out = datagram[..RECORD_HEADER_LEN - 2].to_vec();
        let sequence = sequence + u64::from(number);
        out[5..RECORD_HEADER_LEN - 2].copy_from_slice(&sequence.to_be_bytes()[2..]);
        out.vec16(|w| {
            w.u8(fragment.kind.0);
            w.u24(fragment.length as u32);
            w.u16(fragment.message_seq);
            w.u24((usize::from(number) * size) as u32);
            w.vec24(|w| w.bytes(piece));
        });
        out
    });
    pieces.collect()
}
