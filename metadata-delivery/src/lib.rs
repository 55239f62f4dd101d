//! Versioned documents and results, delivered over an unreliable datagram channel: sans-IO.
//!
//! What counts is that the other side holds the *newest* version of a document, made durable
//! there, not that it saw every version. A [`Session`] therefore synchronises state, both ways:
//! each side offers named, versioned documents; they are fragmented, acknowledged and resent until
//! the other side says *stored* or *refused*; a newer version takes the place of an unfinished
//! older one, so a slow peer never causes a queue.
//!
//! # Goals
//!
//! - Each version is handed over once, complete, its SHA-256 checked, and never after a newer one.
//! - It works at 30 % loss each way with duplicates and reordering, from 0 bytes to 16 MiB.
//! - Whatever the peer sends, memory stays within limits that have names.
//! - No clock, socket, task or random number of its own: time comes in as `now`, packets go in and
//!   out as bytes, so a simulator can run it.
//!
//! # Non-goals
//!
//! - Secrecy, integrity and identity: the channel below provides them, and its packet numbers,
//!   which must ascend and never repeat (DTLS: the record sequence number).
//! - Durability: the application makes a document durable, then calls [`Session::stored`].
//! - Every version: whoever wants a log offers documents under different names.
//! - Memory across sessions: after a reconnect the application offers again what it still wants,
//!   recognises what it already has, and may hand on what was learned of the path ([`KnownPath`]).
//!
//! # Driving a session
//!
//! After anything that takes `&mut`: send what there is, take the events, arm the timer.
//!
//! ```
//! use std::time::Instant;
//! use metadata_delivery::{Document, Event, Name, Session, SessionConfig};
//!
//! /// Stands in for the channel: numbers packets, and would send them.
//! struct Channel(u64);
//! impl Channel {
//!     fn next_number(&self) -> u64 { self.0 }
//!     fn send(&mut self, _packet: &[u8]) { self.0 += 1; }
//! }
//!
//! fn drive(now: Instant, session: &mut Session, channel: &mut Channel) -> Option<Instant> {
//!     let mut packet = Vec::new();
//!     loop {
//!         while session.poll_transmit(now, channel.next_number(), &mut packet) {
//!             channel.send(&packet);
//!         }
//!         // Events may make more to send: confirmations, for one.
//!         let Some(event) = session.poll_event() else { break };
//!         if let Event::Received(document) = event {
//!             // … make it durable, then:
//!             session.stored(now, &document.name, document.version);
//!         }
//!     }
//!     session.next_timeout() // when to call `handle_timeout`, unless a packet comes before
//! }
//!
//! let now = Instant::now();
//! let (mut here, mut there) = (Session::new(now, SessionConfig::default()), Channel(1));
//! let document = Document { name: Name::new("metadata")?, version: 7, body: "{}".into() };
//! here.offer(now, document)?;
//! assert!(drive(now, &mut here, &mut there).is_some());
//! assert_eq!(there.0, 2, "one packet carries it all");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Code map
//!
//! | module | what it knows |
//! |---|---|
//! | `session` | the public face: ties the others together, writes packets (`session::transmit`) |
//! | `outbound` | our documents: waiting, transfers, cancels, whose turn it is |
//! | `inbound`, `assembly` | the peer's documents: transfers, pieces, verdicts, what was seen before |
//! | `form` | documents compressed, or as deltas to what the peer holds |
//! | `greeting` | HELLO both ways: versions and limits |
//! | `repair` | the end of a transfer in symbols of an erasure code |
//! | `recovery`, `rtt` | packets in flight, loss, probes (RFC 9002) |
//! | `congestion`, `loss_share`, `pacer` | how much may be in flight, and when |
//! | `known_path` | what one session hands on to the next on the same path |
//! | `path_mtu` | how large packets may be (RFC 8899) |
//! | `ack` | packets received, and when to say so |
//! | `ecn` | congestion marks: counted, told, and whether our packets bear them (RFC 9000 §13.4) |
//! | `wire`, `packet` | frames as bytes: `docs/protocol.md` |
//! | [`message`] | the JSON documents of this product; the rest of the crate does not know them |
//! | `testing` | two sessions in a simulator, and what a fuzzer runs (feature `testing`) |

mod ack;
mod assembly;
mod congestion;
mod document;
mod ecn;
mod error;
mod form;
mod greeting;
mod inbound;
mod known_path;
mod limits;
mod loss_share;
pub mod message;
mod name;
mod outbound;
mod pacer;
mod packet;
mod path_mtu;
mod range_set;
mod recovery;
mod repair;
mod rtt;
mod session;
mod sorted;
mod stats;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod wire;

pub use document::{Document, Event};
pub use ecn::Ecn;
pub use error::{CloseCode, OfferError, PacketError, refusal};
pub use form::{Base, ENCODED_BYTES_MIN, Form};
pub use known_path::{KNOWN_PATH_LIFE, KnownPath, KnownPaths};
pub use limits::{
    ACK_RANGES_MAX, ANSWERS_MAX, DOCUMENT_BYTES_MAX, Limits, NAMES_REMEMBERED_MAX, NamePolicy,
    PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MIN, PENDING_PIECE_BYTES, PENDING_PIECES_MAX,
    REASON_BYTES_MAX, REPAIR_SYMBOL_BYTES_MAX, REPAIR_SYMBOLS_MAX, SENT_PACKETS_MAX,
    STRANGER_DOCUMENT_BYTES_MAX, TRANSFERS_CEILING,
};
pub use name::{NAME_BYTES_MAX, Name, NameError};
pub use session::{BACKGROUND_PACKETS_MAX, Session, SessionConfig};
pub use stats::Stats;
