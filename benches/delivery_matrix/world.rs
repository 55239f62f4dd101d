//! Flows that share one path, on a virtual clock.

use std::time::{Duration, Instant};

use bytes::Bytes;
use dtls_channel::Ecn;
use dtls_channel::testing::{Link, LinkConfig};

/// One end of a flow: a protocol with a socket's view of the network.
pub(crate) trait Peer {
    /// Whether documents can be sent.
    fn is_ready(&self) -> bool;
    /// Sends a document; they are counted from 1 in the order of these calls.
    fn send(&mut self, now: Instant, body: Bytes);
    /// How many documents the application here has received, complete.
    fn received(&self) -> u64;
    /// How many of our documents the peer's application has confirmed.
    fn confirmed(&self) -> u64;

    fn handle(&mut self, now: Instant, ecn: Ecn, datagram: &[u8]);
    fn handle_timeout(&mut self, now: Instant);
    fn next_timeout(&mut self) -> Option<Instant>;
    /// Appends the next datagram to `out`, if there is one to send now.
    fn transmit(&mut self, now: Instant, out: &mut Vec<u8>) -> bool;
    /// How the IP header of that datagram is marked.
    fn ecn(&self) -> Ecn {
        Ecn::NotEct
    }
}

/// Two ends of one protocol, server and agent, and when the server begins.
pub(crate) struct Flow {
    pub(crate) peers: [Box<dyn Peer>; 2],
    /// Bytes that have arrived from the server and from the agent.
    pub(crate) arrived: [u64; 2],
}

pub(crate) const SERVER: usize = 0;
pub(crate) const AGENT: usize = 1;

/// Flows, and the links they share: from the server, from the agent.
pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) links: [Link; 2],
    pub(crate) flows: Vec<Flow>,
    /// The longest the queue from the server was since this was reset, in bytes.
    pub(crate) queue_max: usize,
}

impl World {
    /// A path whose randomness follows from `seed`.
    pub(crate) fn new(now: Instant, seed: u64, link: &LinkConfig) -> Self {
        let links = [2 * seed, 2 * seed + 1].map(|seed| Link::new(seed, link.clone()));
        Self { now, links, flows: Vec::new(), queue_max: 0 }
    }

    pub(crate) fn add(&mut self, server: Box<dyn Peer>, agent: Box<dyn Peer>) {
        self.flows.push(Flow { peers: [server, agent], arrived: [0, 0] });
    }

    pub(crate) fn send(&mut self, flow: usize, from: usize, body: Bytes) {
        self.flows[flow].peers[from].send(self.now, body);
    }

    /// Runs until the condition holds. False: not by `deadline`, or never.
    pub(crate) fn run_until(&mut self, deadline: Instant, done: impl Fn(&Self) -> bool) -> bool {
        self.transmit();
        while !done(self) {
            if !self.step(deadline) {
                return false;
            }
        }
        true
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let deadline = self.now + time;
        self.run_until(deadline, |_| false);
        self.now = deadline;
    }

    /// Goes on to the next thing that happens. False: not before `deadline`.
    fn step(&mut self, deadline: Instant) -> bool {
        let peers = self.flows.iter_mut().flat_map(|flow| &mut flow.peers);
        let timer = peers.filter_map(|peer| peer.next_timeout()).min();
        let arrival = self.links.iter().filter_map(Link::next_due).min();
        let Some(next) = timer.into_iter().chain(arrival).min() else { return false };
        if next > deadline {
            return false;
        }
        self.now = self.now.max(next);
        for from in [SERVER, AGENT] {
            while let Some((ecn, datagram)) = self.links[from].pop_marked(self.now) {
                let Some((&flow, payload)) = datagram.split_first() else { continue };
                let flow = &mut self.flows[usize::from(flow)];
                flow.arrived[from] += payload.len() as u64;
                flow.peers[1 - from].handle(self.now, ecn, payload);
            }
        }
        for peer in self.flows.iter_mut().flat_map(|flow| &mut flow.peers) {
            if peer.next_timeout().is_some_and(|at| at <= self.now) {
                peer.handle_timeout(self.now);
            }
        }
        self.transmit();
        true
    }

    fn transmit(&mut self) {
        for (n, flow) in self.flows.iter_mut().enumerate() {
            for (from, peer) in flow.peers.iter_mut().enumerate() {
                loop {
                    // Whose datagram it is; the link counts a byte more than a socket would.
                    let mut datagram = vec![n as u8];
                    if !peer.transmit(self.now, &mut datagram) {
                        break;
                    }
                    self.links[from].push_marked(self.now, peer.ecn(), datagram);
                }
            }
        }
        self.queue_max = self.queue_max.max(self.links[SERVER].queued_bytes(self.now));
    }
}
