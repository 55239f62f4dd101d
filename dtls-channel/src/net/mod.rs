//! The only place with sockets and a clock: an [`Endpoint`](crate::Endpoint) on a UDP socket.

mod driver;
mod many;

pub use driver::Driver;
