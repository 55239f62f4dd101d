//! Who is measured, and what one measurement is.

use std::time::{Duration, Instant};

use bytes::Bytes;
use dtls_channel::testing::LinkConfig;
use metadata_delivery::testing::{body, start};

use crate::ours::Ours;
use crate::quinn_peer::{self, Controller};
use crate::world::{AGENT, SERVER, World};
use crate::{sctp_peer, tcp_peer};

/// A measurement that is not over by then counts as longer.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// Nothing that comes before is measured; timeouts that double may take their time.
const HOUR: Duration = Duration::from_secs(3_600);
/// Documents, and how long after each other, that a connection in use has carried.
pub(crate) const EARLIER_DOCUMENTS: u64 = 20;
pub(crate) const EARLIER_BYTES: usize = 1 << 10;
pub(crate) const EARLIER_SPACING: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    Ours,
    Quinn(Controller),
    Sctp,
    Tcp,
}

impl Engine {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "metadata-delivery",
            Self::Quinn(Controller::Cubic) => "quinn, Cubic",
            Self::Quinn(Controller::Bbr) => "quinn, BBR",
            Self::Sctp => "sctp-proto over DTLS",
            Self::Tcp => "TCP model with TLS, Cubic",
        }
    }

    /// A flow of this engine joins.
    pub(crate) fn join(self, world: &mut World, round_trip: Duration, seed: u64) {
        match self {
            Self::Ours => {
                let [server, agent] = [0, 1].map(|_| Box::new(Ours::new(world.now, round_trip)));
                world.add(server, agent);
            }
            Self::Quinn(controller) => {
                let [server, agent] = quinn_peer::pair(world.now, controller, seed).map(Box::new);
                world.add(server, agent);
            }
            Self::Sctp => {
                let [server, agent] = sctp_peer::pair().map(Box::new);
                world.add(server, agent);
            }
            Self::Tcp => {
                let [server, agent] = tcp_peer::pair(world.now).map(Box::new);
                world.add(server, agent);
            }
        }
    }
}

/// What a connection has done before it is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Past {
    /// The handshake.
    None,
    /// It has carried small documents for a while.
    InUse,
}

/// When a document was there, and when the sender knew.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) delivered: Option<Duration>,
    pub(crate) confirmed: Option<Duration>,
    /// Bytes that the server has sent for it, over those of the document.
    pub(crate) sent_ratio: f64,
}

/// One document of this many bytes from server to agent.
pub(crate) fn measure(
    engine: Engine,
    past: Past,
    link: &LinkConfig,
    seed: u64,
    bytes: usize,
) -> Times {
    let mut world = World::new(start(), seed, link);
    engine.join(&mut world, 2 * link.delay, seed);
    if !prepare(&mut world, past) {
        return Times { delivered: None, confirmed: None, sent_ratio: 0.0 };
    }
    let before = world.flows[0].peers[AGENT].received();
    let sent_before = world.links[SERVER].stats().pushed_bytes;
    let began = world.now;
    world.send(0, SERVER, body(seed, bytes));
    let deadline = began + LIMIT;
    let since = |now: Instant| now - began;
    let there = world.run_until(deadline, |world| world.flows[0].peers[AGENT].received() > before);
    let delivered = there.then(|| since(world.now));
    let known =
        world.run_until(deadline, |world| world.flows[0].peers[SERVER].confirmed() > before);
    let confirmed = known.then(|| since(world.now));
    let sent = world.links[SERVER].stats().pushed_bytes - sent_before;
    Times { delivered, confirmed, sent_ratio: sent as f64 / bytes as f64 }
}

/// False when that has not come to an end in an hour, as where timeouts double for ever.
fn prepare(world: &mut World, past: Past) -> bool {
    let ready = |world: &World| world.flows[0].peers.iter().all(|peer| peer.is_ready());
    if !world.run_until(world.now + HOUR, ready) {
        return false;
    }
    world.run_for(Duration::from_secs(1));
    let documents = if past == Past::InUse { EARLIER_DOCUMENTS } else { 0 };
    for n in 1..=documents {
        world.send(0, SERVER, Bytes::from(vec![0; EARLIER_BYTES]));
        let done = |world: &World| world.flows[0].peers[SERVER].confirmed() >= n;
        if !world.run_until(world.now + HOUR, done) {
            return false;
        }
        world.run_for(EARLIER_SPACING);
    }
    true
}
