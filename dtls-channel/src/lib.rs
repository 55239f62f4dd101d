//! DTLS 1.2 (RFC 6347) for a fleet of peers behind one UDP socket.
//!
//! **Goals.** A small profile done strictly: ECDHE_ECDSA with an AEAD, certificates on both sides,
//! extended master secret, stateless cookies, resumption by tickets, timers at both ends, bounded memory, nothing acted on
//! before it is authenticated once keys exist. All cryptography is ring's.
//!
//! **Non-goals.** Certificate chains, names and dates (the application pins), RSA, PSK, CBC,
//! compression, renegotiation, DTLS 1.0.
//!
//! # Map
//!
//! - [`Connection`]: one association, sans-IO. [`Endpoint`]: many of them behind one address,
//!   sans-IO: demultiplexing, cookies, limits, timers.
//! - [`Driver`] (feature `net`): an [`Endpoint`] on a UDP socket, with segmentation offload.
//! - [`testing`] (feature `testing`): the same endpoints on a virtual network.
//! - inside: `wire` (bytes), `record` (protection, replay), `handshake` (messages, reassembly),
//!   `conn` (states and flights), `resumption` (tickets and sessions), `crypto` (ring).
//!
//! # Use
//!
//! ```no_run
//! # use std::{sync::Arc, time::Instant};
//! # use dtls_channel::{Config, Credentials, Driver, EndpointConfig, Event, PeerRefused, PeerVerifier};
//! # struct Pins; impl PeerVerifier for Pins {
//! #     fn verify(&self, _: &[u8]) -> Result<(), PeerRefused> { Ok(()) } }
//! # async fn example(certificate: Vec<u8>, key: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
//! let credentials = Credentials::from_der(certificate, key)?;
//! let config = Arc::new(Config::new(credentials, Arc::new(Pins)));
//! let mut driver = Driver::bind("0.0.0.0:0".parse()?, EndpointConfig::default())?;
//! let server = driver.connect(Instant::now(), "192.0.2.1:4433".parse()?, config)?;
//! loop {
//!     driver.wait(None).await?;
//!     while let Some((id, event)) = driver.poll_event() {
//!         match event {
//!             Event::Established(_) => drop(driver.send(Instant::now(), id, b"hello")?),
//!             Event::Message { data, .. } => println!("{data:?}"),
//!             Event::Closed(reason) => return Err(reason.into()),
//!             _ => {}
//!         }
//!     }
//! }
//! # }
//! ```

mod arena;
mod config;
mod conn;
mod crypto;
mod ecn;
mod endpoint;
mod error;
mod event;
mod handshake;
#[cfg(feature = "net")]
mod net;
mod outbox;
mod record;
mod resumption;
mod stats;
#[cfg(feature = "testing")]
pub mod testing;
mod wire;

pub use config::{
    AddressChange, ClientCertificate, Config, ConnectionIdMode, KeyLog, MTU_DEFAULT, MTU_MAX,
    MTU_MIN, PeerVerifier, RECORD_SIZE_LIMIT_MIN, RESEND_MIN, Timers, WAIT_MAX,
};
pub use conn::{Connection, EARLY_BYTES_MAX};
pub use crypto::{
    CERTIFICATE_BYTES_MAX, CipherSuite, Credentials, CredentialsError, Exporter, Group, NoRandom,
};
pub use ecn::Ecn;
pub use endpoint::{CLIENT_HELLO_BYTES_MAX, Endpoint, EndpointConfig};
pub use error::{CloseReason, ConnectError, Mismatch, PeerFault, PeerRefused, SendError};
pub use event::{AssociationId, ConnectionIds, Established, Event, Path, Phase, TimerKind};
pub use handshake::{ASSOCIATION_REASSEMBLY_BYTES_MAX, MESSAGE_BYTES_MAX};
#[cfg(feature = "net")]
pub use net::Driver;
pub use outbox::{OUTBOX_BYTES_MAX, Outbox, Sink, Transmit};
pub use record::{CONNECTION_ID_BYTES_MAX, ConnectionId, REPLAY_WINDOW_RECORDS_MAX};
pub use resumption::{DecodeError, Session, TICKET_KEYS_MAX, TicketKeys};
pub use stats::{DropCause, Drops, Stats};
pub use wire::AlertDescription;
