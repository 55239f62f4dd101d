use std::time::Duration;

use arbitrary::{Arbitrary, Result, Unstructured};

use crate::config::{MTU_DEFAULT, MTU_MIN};
use crate::handshake::HEADER_LEN;
use crate::testing::forge;
use crate::testing::fuzz::{byte, bytes, word};
use crate::wire::Write;

/// One of the two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Server,
}

impl Side {
    pub(super) fn index(self) -> usize {
        self as usize
    }

    pub(super) fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// Which of several; counted modulo what there is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choice(pub(super) u8);

/// What can happen. Sides name who receives, or who acts.
#[derive(Debug)]
pub(super) enum Operation {
    Deliver(Side, Choice),
    DeliverAll(Side),
    /// Everything arrives, both ways, until nothing is left to say.
    Exchange,
    /// Delivers a copy; the original is still on its way.
    Duplicate(Side, Choice),
    /// Loses one of what this side has sent.
    Lose(Side, Choice),
    /// Delivers again what arrived before, perhaps in another association.
    Replay(Side, Choice),
    /// One record of a datagram comes first, alone.
    OneRecord(Side, Choice, Choice),
    Bend {
        to: Side,
        choice: Choice,
        at: u16,
        flip: u8,
    },
    Truncate {
        to: Side,
        choice: Choice,
        at: u16,
    },
    Forge(Side, Vec<u8>),
    Advance(Duration),
    NextTimer,
    Send(Side, usize),
    SetPathMtu(Side, usize),
    Close(Side),
    BeginAnew,
}

impl<'a> Arbitrary<'a> for Operation {
    /// The first byte has the side in its highest bit and the kind in its four lowest.
    fn arbitrary(input: &mut Unstructured<'a>) -> Result<Self> {
        let tag = byte(input);
        let side = if tag & 0x80 == 0 { Side::Client } else { Side::Server };
        let choice = |input: &mut Unstructured<'a>| Choice(byte(input));
        Ok(match tag & 15 {
            0 => Self::Exchange,
            1 => Self::Deliver(side, Choice(0)),
            2 => Self::Deliver(side, choice(input)),
            3 => Self::DeliverAll(side),
            4 => Self::Duplicate(side, choice(input)),
            5 => Self::Lose(side, choice(input)),
            6 => Self::Replay(side, choice(input)),
            7 => Self::Bend { to: side, choice: choice(input), at: word(input), flip: byte(input) },
            8 if tag & 0x40 == 0 => Self::OneRecord(side, choice(input), choice(input)),
            8 => Self::Truncate { to: side, choice: choice(input), at: word(input) },
            9 => {
                let length = byte(input).into();
                Self::Forge(side, bytes(input, length).to_vec())
            }
            10 if tag & 0x40 == 0 => Self::Forge(side, forged_record(input)),
            10 => Self::Forge(side, forged_message(input)),
            // Milliseconds to minutes.
            11 => Self::Advance(Duration::from_millis(u64::from(byte(input)).pow(2) * 2)),
            12 => Self::NextTimer,
            13 => Self::Send(side, usize::from(byte(input)) * 6),
            14 if tag & 0x40 == 0 => {
                let smaller = usize::from(byte(input)) * 4;
                Self::SetPathMtu(side, MTU_DEFAULT.saturating_sub(smaller).max(MTU_MIN))
            }
            14 => Self::Close(side),
            _ => Self::BeginAnew,
        })
    }
}

/// A record with a sound header.
fn forged_record(input: &mut Unstructured<'_>) -> Vec<u8> {
    let (kind, epoch, sequence, length) = (byte(input), byte(input), byte(input), byte(input));
    record(20 + kind % 8, epoch % 3, sequence, bytes(input, length.into()))
}

/// A handshake fragment with sound headers.
fn forged_message(input: &mut Unstructured<'_>) -> Vec<u8> {
    let (kind, sequence, message_seq) = (byte(input), byte(input), byte(input));
    let (length, offset, taken) = (word(input), byte(input), byte(input));
    let body = bytes(input, taken.into());
    let mut fragment = Vec::with_capacity(HEADER_LEN + body.len());
    fragment.u8(kind % 24);
    // Mostly whole messages.
    let whole = offset < 0x80;
    fragment.u24(if whole { body.len() as u32 } else { length.into() });
    fragment.u16((message_seq % 16).into());
    fragment.u24(if whole { 0 } else { u32::from(offset - 0x80) });
    fragment.vec24(|w| w.bytes(body));
    record(22, 0, sequence, &fragment)
}

fn record(kind: u8, epoch: u8, sequence: u8, body: &[u8]) -> Vec<u8> {
    let version = if sequence & 1 == 0 { forge::DTLS_1_2 } else { forge::DTLS_1_0 };
    forge::record_of_version(version, kind, epoch.into(), sequence.into(), body)
}
