//! A network that can be replayed: seeded links on a virtual clock.
//!
//! [`Link`] is one direction of one path and knows nothing of DTLS. [`Net`] joins two
//! [`Endpoint`](crate::Endpoint)s with a link each way and drives both to a goal. [`forge`] makes
//! datagrams that nobody honest sends, [`Rogue`] is a peer that sends them. [`fuzz`] holds bodies
//! that a fuzzer, random tests and the replay of a corpus share.

pub mod forge;
pub mod fuzz;
mod link;
mod net;
mod rng;
mod rogue;

pub use link::{Link, LinkConfig, LinkStats, Mangle};
pub use net::{AcceptAnyone, Net, Side, credentials};
pub use rng::Rng;
pub use rogue::{Heard, Rogue};
