//! Tests of the whole system: with foreign DTLS implementations, and with the real binaries.
//!
//! The tests are in `tests/`; this library is what they share. Everything runs on loopback, waits
//! for what it wants to see instead of sleeping, and stops only what it started.
//!
//! - [`Process`]: a child with its output, for peers and daemons.
//! - [`Node`]: our own end of one association, on a thread.
//! - [`Relay`]: a bad network between two programs.
//! - [`PemIdentity`]: one of our identities as the files that other programs read.
//! - [`Server`], [`Agent`]: the two daemons with their state, to be stopped, killed and restarted.
//! - [`Puppet`]: a peer of the server that says what no real agent would.
//! - [`documents`]: what is pushed.
//! - [`Pcap`]: a capture file for other programs.
//! - [`flood`]: datagrams by the hundred thousand, from as many addresses as there are.

#![expect(clippy::expect_used, reason = "all of this is test code, which fails by panicking")]

mod agent;
mod binaries;
pub mod documents;
pub mod flood;
mod http;
mod identity;
mod node;
mod pcap;
mod process;
mod puppet;
mod relay;
mod server;

pub use agent::Agent;
pub use binaries::{agent_binary, echo_binary, server_binary};
pub use http::{Reply, request};
pub use identity::PemIdentity;
pub use node::{Node, Pin};
pub use pcap::Pcap;
pub use process::{Process, udp_port};
pub use puppet::{Puppet, Seen, hello};
pub use relay::{Disturbance, Relay, RelayStats};
pub use server::{Api, Server};

use std::time::Duration;
use std::time::Instant;

use dtls_channel::CipherSuite;

/// How long anything may take before a test gives up on it. Far more than anything needs, also on
/// a busy machine: no test measures time.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Datagram sizes the ends are set to, in bytes: from where every flight is in pieces to where each
/// is one datagram.
pub const MTUS: [usize; 3] = [256, 512, 1_200];

/// The label with which both ends export a key, to see that they have the same secrets.
pub const EXPORTER_LABEL: &str = "EXPORTER-interoperation";

/// Which end of an association we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The one that begins.
    Client,
    /// The one that answers.
    Server,
}

/// Every suite with every datagram size.
pub fn suites_and_mtus() -> impl Iterator<Item = (CipherSuite, usize)> {
    CipherSuite::ALL.into_iter().flat_map(|suite| MTUS.map(|mtu| (suite, mtu)))
}

/// Lines to be echoed; each fits one datagram of ours. None begins with a letter that `openssl`
/// takes for a command.
#[must_use]
pub fn lines(mtu: usize) -> Vec<String> {
    let long = "0123456789".repeat((mtu - 100) / 10);
    vec!["message 1".into(), format!("message 2 {long}"), "message 3, ümläute".into()]
}

/// Asks again and again until there is an answer.
///
/// # Panics
/// If there is none within [`PATIENCE`].
pub fn wait_until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    wait_until_ok(what, || ask().ok_or_else(String::new))
}

/// The same for questions whose answer says what is still missing.
///
/// # Panics
/// If it is still missing after [`PATIENCE`], with what that is.
pub fn wait_until_ok<T>(what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let missing = match ask() {
            Ok(answer) => return answer,
            Err(missing) => missing,
        };
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}\n{missing}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
