//! The bytes of a packet: a sequence of frames, each a type, a length and a body.
//!
//! Parsers are total: any input gives a frame or a [`PacketError::Malformed`], never a panic.
//! Frames of unknown type, and bytes behind the known fields of a known one, are skipped, so that
//! later versions can add to both. `docs/protocol.md` has the diagrams.

mod ack;
mod hello;
mod offer;
mod varint;

pub(crate) use ack::{Ack, write_ack};
pub(crate) use hello::{ABILITY_ECN, ENCODINGS_RAW, Hello};
pub(crate) use offer::{ENCODING_DELTA, ENCODING_RAW, ENCODING_ZSTD, Offer};
pub(crate) use varint::VARINT_MAX;

use crate::PacketError;
use varint::{Ended, Reader};

/// Newest protocol version spoken.
pub(crate) const PROTOCOL_VERSION_MAX: u64 = 1;
/// Oldest protocol version spoken.
pub(crate) const PROTOCOL_VERSION_MIN: u64 = 1;

/// Frame types.
mod kind {
    pub(super) const PADDING: u64 = 0;
    pub(super) const PING: u64 = 1;
    pub(super) const ACK: u64 = 2;
    pub(super) const HELLO: u64 = 3;
    pub(super) const OFFER: u64 = 4;
    pub(super) const DATA: u64 = 5;
    pub(super) const STORED: u64 = 6;
    pub(super) const REFUSED: u64 = 7;
    pub(super) const CANCEL: u64 = 8;
    pub(super) const CLOSE: u64 = 9;
    pub(super) const REPAIR: u64 = 10;
}

/// Behind the transfer in a STORED that asks for no acknowledgement.
const QUIET: u64 = 1;

/// Bytes of a frame before its body, as this implementation writes it: a type below 64 and a
/// length of two bytes.
const HEADER_BYTES: usize = 3;

/// The number of a repair symbol, and an ACK that repeats the newest ranges.
const REPAIR_NUMBER_BYTES_MAX: usize = 2;
pub(crate) const SHORT_ACK_BYTES: usize = 32;

/// One frame, borrowing from its packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    /// Nothing, of any length.
    Padding,
    /// Asks for an acknowledgement.
    Ping,
    /// Which packets were received.
    Ack(Ack<'a>),
    /// Who speaks, and what it accepts.
    Hello(Hello),
    /// Opens a transfer.
    Offer(Offer<'a>),
    /// A piece of a transfer.
    Data { transfer: u64, offset: u64, bytes: &'a [u8] },
    /// The receiver of a transfer has made the document durable. `quiet`: it asks for no acknowledgement of that.
    Stored { transfer: u64, quiet: bool },
    /// The receiver of a transfer will not take the document.
    Refused { transfer: u64, code: u16, reason: &'a str },
    /// The sender gives a transfer up.
    Cancel { transfer: u64 },
    /// The sender of this frame hangs up.
    Close { code: u16, reason: &'a str },
    /// A repair symbol of a transfer's end, from `offset` on.
    Repair { transfer: u64, offset: u64, nth: u64, symbol: &'a [u8] },
    /// A frame of a later version.
    Unknown,
}

impl<'a> Frame<'a> {
    /// Whether a packet with this frame has to be acknowledged (RFC 9002 §2).
    pub(crate) fn is_ack_eliciting(&self) -> bool {
        !matches!(self, Self::Padding | Self::Ack(_) | Self::Stored { quiet: true, .. })
    }

    /// Appends the frame.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Padding => framed(out, kind::PADDING, |_| {}),
            Self::Ping => framed(out, kind::PING, |_| {}),
            Self::Ack(ack) => ack.write(out),
            Self::Hello(hello) => framed(out, kind::HELLO, |out| hello.write(out)),
            Self::Offer(offer) => framed(out, kind::OFFER, |out| offer.write(out)),
            Self::Data { transfer, offset, bytes } => framed(out, kind::DATA, |out| {
                varint::put(out, *transfer);
                varint::put(out, *offset);
                out.extend_from_slice(bytes);
            }),
            Self::Stored { transfer, quiet } => framed(out, kind::STORED, |out| {
                varint::put(out, *transfer);
                if *quiet {
                    varint::put(out, QUIET);
                }
            }),
            Self::Refused { transfer, code, reason } => framed(out, kind::REFUSED, |out| {
                varint::put(out, *transfer);
                put_reason(out, *code, reason);
            }),
            Self::Cancel { transfer } => {
                framed(out, kind::CANCEL, |out| varint::put(out, *transfer));
            }
            Self::Close { code, reason } => {
                framed(out, kind::CLOSE, |out| put_reason(out, *code, reason));
            }
            Self::Repair { transfer, offset, nth, symbol } => framed(out, kind::REPAIR, |out| {
                varint::put(out, *transfer);
                varint::put(out, *offset);
                varint::put(out, *nth);
                out.extend_from_slice(symbol);
            }),
            Self::Unknown => {}
        }
    }

    fn read(kind: u64, body: &'a [u8]) -> Result<Self, PacketError> {
        let reader = &mut Reader::new(body);
        match kind {
            kind::PADDING => Ok(Self::Padding),
            kind::PING => Ok(Self::Ping),
            kind::ACK => Ack::read(reader).map(Self::Ack),
            kind::HELLO => Hello::read(reader).map(Self::Hello),
            kind::OFFER => Offer::read(reader).map(Self::Offer),
            kind::DATA => read_data(reader).map_err(ended("DATA")),
            kind::STORED => {
                let transfer = read_transfer(reader, "STORED")?;
                Ok(Self::Stored { transfer, quiet: reader.varint() == Ok(QUIET) })
            }
            kind::REFUSED => {
                let transfer = read_transfer(reader, "REFUSED")?;
                let (code, reason) = read_reason(reader, "REFUSED")?;
                Ok(Self::Refused { transfer, code, reason })
            }
            kind::CANCEL => {
                read_transfer(reader, "CANCEL").map(|transfer| Self::Cancel { transfer })
            }
            kind::CLOSE => {
                let (code, reason) = read_reason(reader, "CLOSE")?;
                Ok(Self::Close { code, reason })
            }
            kind::REPAIR => read_repair(reader).map_err(ended("REPAIR")),
            _ => Ok(Self::Unknown),
        }
    }
}

/// Most bytes of a document that a DATA frame can hold when `room` bytes of the packet are left.
pub(crate) fn data_room(room: usize, transfer: u64, offset: u64) -> usize {
    room.saturating_sub(HEADER_BYTES + varint::len(transfer) + varint::len(offset))
}

/// Longest repair symbol that surely fits when `room` bytes of the packet are left, also beside a short ACK.
pub(crate) fn repair_room(room: usize, transfer: u64, offset: u64) -> usize {
    let fields = varint::len(transfer) + varint::len(offset) + REPAIR_NUMBER_BYTES_MAX;
    room.saturating_sub(HEADER_BYTES + fields + SHORT_ACK_BYTES)
}

/// The frames of a packet, front to back. Ends after the first error.
pub(crate) fn frames(packet: &[u8]) -> impl Iterator<Item = Result<Frame<'_>, PacketError>> {
    let mut reader = Reader::new(packet);
    std::iter::from_fn(move || {
        if reader.is_empty() {
            return None;
        }
        let frame = next_frame(&mut reader);
        if frame.is_err() {
            reader.rest();
        }
        Some(frame)
    })
}

fn next_frame<'a>(reader: &mut Reader<'a>) -> Result<Frame<'a>, PacketError> {
    let kind = reader.varint().map_err(ended("frame type"))?;
    let length = reader.varint().map_err(ended("frame length"))?;
    let body = reader.take(length).map_err(ended("frame body"))?;
    Frame::read(kind, body)
}

/// Type and length of a frame, as we write them.
const FRAME_HEADER_BYTES: usize = 3;

/// Writes a frame whose body comes from `body`; its length is filled in afterwards.
fn framed(out: &mut Vec<u8>, kind: u64, body: impl FnOnce(&mut Vec<u8>)) {
    varint::put(out, kind);
    let length_at = out.len();
    out.extend_from_slice(&[0, 0]);
    body(out);
    let length = out.len() - length_at - 2;
    debug_assert!(length <= 0x3fff, "a frame body of {length} bytes");
    let [high, low] = (length as u16 | 0x4000).to_be_bytes();
    out[length_at] = high;
    out[length_at + 1] = low;
}

/// Appends one PADDING frame of `bytes` bytes in all, if there can be one.
pub(crate) fn write_padding(out: &mut Vec<u8>, bytes: usize) {
    if let Some(body) = bytes.checked_sub(FRAME_HEADER_BYTES) {
        framed(out, kind::PADDING, |out| out.resize(out.len() + body, 0));
    }
}

fn malformed(frame: &'static str, what: &'static str) -> PacketError {
    PacketError::Malformed { frame, what }
}

fn ended(frame: &'static str) -> impl Fn(Ended) -> PacketError {
    move |Ended| malformed(frame, "ends inside a field")
}

fn read_data<'a>(reader: &mut Reader<'a>) -> Result<Frame<'a>, Ended> {
    let transfer = reader.varint()?;
    let offset = reader.varint()?;
    Ok(Frame::Data { transfer, offset, bytes: reader.rest() })
}

fn read_repair<'a>(reader: &mut Reader<'a>) -> Result<Frame<'a>, Ended> {
    let transfer = reader.varint()?;
    let offset = reader.varint()?;
    let nth = reader.varint()?;
    Ok(Frame::Repair { transfer, offset, nth, symbol: reader.rest() })
}

fn read_transfer(reader: &mut Reader<'_>, frame: &'static str) -> Result<u64, PacketError> {
    reader.varint().map_err(ended(frame))
}

fn put_reason(out: &mut Vec<u8>, code: u16, reason: &str) {
    varint::put(out, u64::from(code));
    varint::put(out, reason.len() as u64);
    out.extend_from_slice(reason.as_bytes());
}

fn read_reason<'a>(
    reader: &mut Reader<'a>,
    frame: &'static str,
) -> Result<(u16, &'a str), PacketError> {
    let code = reader.varint().map_err(ended(frame))?;
    let code = u16::try_from(code).map_err(|_| malformed(frame, "code above 65535"))?;
    let length = reader.varint().map_err(ended(frame))?;
    let bytes = reader.take(length).map_err(ended(frame))?;
    let reason = std::str::from_utf8(bytes).map_err(|_| malformed(frame, "reason is not UTF-8"))?;
    Ok((code, reason))
}

#[cfg(test)]
mod tests;
