use std::time::Instant;

use super::hello::HelloPeek;
use crate::event::{Path, Phase};
use crate::handshake::{Message, Reassembler, Taken, fragments};
use crate::outbox::Sink;
use crate::record::Records;
use crate::stats::DropCause;
use crate::wire::{ContentType, HandshakeType};

/// A ClientHello in pieces, from an address that a cookie has verified.
#[derive(Debug)]
pub(super) struct Gathering {
    path: Path,
    incoming: Reassembler,
    message_seq: u16,
    length: usize,
    record_sequence: u64,
    deadline: Instant,
    over: bool,
}

impl Gathering {
    pub(super) fn new(first: &HelloPeek, path: Path, deadline: Instant) -> Self {
        Self {
            path,
            incoming: Reassembler::starting_at(first.message_seq),
            message_seq: first.message_seq,
            length: first.length,
            record_sequence: first.record_sequence,
            deadline,
            over: false,
        }
    }

    /// True if `hello` is a piece of the same message.
    pub(super) fn continues(&self, hello: &HelloPeek) -> bool {
        hello.message_seq == self.message_seq && hello.length == self.length
    }

    /// Where the first piece came from.
    pub(super) fn path(&self) -> Path {
        self.path
    }

    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The highest record number seen, which ours continue from.
    pub(super) fn record_sequence(&self) -> u64 {
        self.record_sequence
    }

    pub(super) fn abandon(&mut self) {
        self.over = true;
    }

    pub(super) fn phase(&self) -> Phase {
        if self.over { Phase::Closed } else { Phase::Handshaking }
    }

    /// Takes the pieces in a datagram; the message once it is whole.
    pub(super) fn take(&mut self, datagram: &mut [u8], sink: &mut Sink) -> Option<Message> {
        for record in Records::new(datagram) {
            if record.epoch != 0 || record.content_type != ContentType::HANDSHAKE {
                sink.stats.drops.count(DropCause::UnexpectedRecord);
                continue;
            }
            for fragment in fragments(record.body) {
                let taken = match fragment {
                    Ok(f) if f.kind == HandshakeType::CLIENT_HELLO => self.incoming.take(&f),
                    _ => Taken::Dropped(DropCause::BadFragment),
                };
                if let Taken::Dropped(cause) = taken {
                    sink.stats.drops.count(cause);
                }
            }
        }
        self.incoming.next_message()
    }
}
