//! A network that can be replayed: seeded links on a virtual clock.
//!
//! [`Link`] is one direction of one path and knows nothing of DTLS. [`Net`] joins two
//! [`Endpoint`](crate::Endpoint)s with a link each way and drives both to a goal.

mod link;
mod net;
mod rng;

pub use link::{Link, LinkConfig, LinkStats};
pub use net::{AcceptAnyone, Net, Side, credentials};
pub use rng::Rng;
