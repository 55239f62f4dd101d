//! Signalling a result to Heat, as heat-config-notify does it on the wire.
//!
//! [`of_config`] reads from a config's inputs whom to tell and how, [`attempt`] tells them once. When to try
//! again is the caller's business, and what was signed for how long is said by [`Presigned`].

mod fit;
mod presigned;
mod send;
mod transport;

pub use fit::{HEAT_BYTES_MAX, ZAQAR_BYTES_MAX};
pub use presigned::{KEYSTONE_TTL_S, Presigned};
pub use send::{Failed, Why, attempt};
pub use transport::{Account, INPUTS, Transport, inputs, of_config};
