//! What the benches and comparison programs share: the same work done by our engine, by
//! `webrtc-dtls`, and by bare ring calls.
//!
//! Everything runs in memory on one thread, so that neither the kernel nor a scheduler is
//! measured: `webrtc-dtls` over its own in-memory transport on a current-thread runtime, with the
//! same identities, the same suite (AES-128-GCM) and mutual authentication by pinned certificates.
//!
//! | module | holds |
//! |---|---|
//! | [`ours`] | two [`Endpoint`](dtls_channel::Endpoint)s that pass datagrams to each other |
//! | [`webrtc`] | two `DTLSConn`s on a pipe |
//! | [`floor`] | the asymmetric cryptography of a handshake, on ring, with nothing around it |
//! | [`peer`] | programs that measure other engines, see `benches/peers` |
//! | [`cpu`] | CPU time of this process, and medians |

#![expect(clippy::expect_used, reason = "a measurement that cannot be made has failed")]

pub mod cpu;
pub mod floor;
pub mod ours;
pub mod peer;
pub mod webrtc;

use certs::Identity;

/// Sizes of messages: a small notice, and what fills a datagram.
pub const MESSAGE_SIZES: [usize; 2] = [128, 1_200];

/// Datagrams may be this long, so that 1,200 byte messages fit.
const MTU: usize = 1_400;

/// An identity of the kind our daemons make.
///
/// # Panics
/// If the system's random generator fails.
#[must_use]
pub fn identity() -> Identity {
    Identity::generate(certs::identity::COMMON_NAME).expect("an identity")
}
