//! Runs a script with a pair of implementations, on a virtual clock.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use dtls_channel::testing::{Link, Rng};
use tempfile::TempDir;

use crate::dimpl_peer::Dimpl;
use crate::openssl::{OpenSsl, OpenSslPeer};
use crate::ours::Ours;
use crate::peer::{End, Identity, Kind, Peer, Setup};
use crate::script::{Fate, KeyKind, Script, Side};
use crate::wire::{Agreed, Observer, Offered, describe};

/// Virtual time after which a handshake counts as failed. All implementations are set to resend
/// after 400 ms, doubling to 4 s.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(75);
/// Virtual time between two messages.
const STEP: Duration = Duration::from_millis(10);
/// Datagrams that may follow from one; more would be a storm.
const CONSEQUENCES_MAX: usize = 100;

/// What all runs share: identities, and OpenSSL's process.
pub(crate) struct World {
    identities: HashMap<(Side, KeyKind), Identity>,
    stranger: Identity,
    openssl: Rc<RefCell<OpenSsl>>,
    now: Instant,
    _directory: TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let both = Side::BOTH.into_iter().flat_map(|s| KeyKind::ALL.map(|k| (s, k)));
        Self {
            identities: both
                .map(|(side, kind)| ((side, kind), Identity::new(path, &format!("{side:?}"), kind)))
                .collect(),
            stranger: Identity::new(path, "stranger", KeyKind::P256),
            openssl: OpenSsl::start(path, now),
            now,
            _directory: directory,
        }
    }

    /// When every run begins.
    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    pub(crate) fn openssl(&self) -> &Rc<RefCell<OpenSsl>> {
        &self.openssl
    }

    pub(crate) fn setup(&self, script: &Script, side: Side) -> Setup {
        let (own, other) = (script.choices(side), script.choices(side.other()));
        let pinned = &self.identities[&(side.other(), other.key)];
        Setup {
            side,
            suites: own.suites.clone(),
            groups: own.groups.clone(),
            mtu: own.mtu,
            identity: self.identities[&(side, own.key)].clone(),
            pinned: if own.pins_the_peer { pinned } else { &self.stranger }.clone(),
            has_ems: own.has_ems,
        }
    }

    fn peer(&self, kind: Kind, setup: &Setup) -> Box<dyn Peer> {
        match kind {
            Kind::Ours => Box::new(Ours::new(self.now, setup)),
            Kind::OpenSsl => Box::new(OpenSslPeer::new(self.now, setup, &self.openssl)),
            Kind::Dimpl => Box::new(Dimpl::new(self.now, setup)),
        }
    }
}

/// What can be compared between runs of one script. Pairs are client's and server's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) opened: [bool; 2],
    /// As read off the wire; only of handshakes that both ends call open.
    pub(crate) agreed: Option<Agreed>,
    /// What the client offered, on the wire.
    pub(crate) offered: Option<Offered>,
    /// Which end sent a message again in other pieces.
    pub(crate) cuts_anew: [bool; 2],
    /// False if an end saw another certificate than its peer's.
    pub(crate) right_certificates: bool,
    /// `None` unless both ends export.
    pub(crate) same_exported_key: Option<bool>,
    /// False if an end says otherwise than the wire.
    pub(crate) ems_as_agreed: bool,
    /// Which steps' messages came out, in order.
    pub(crate) delivered: [Vec<usize>; 2],
    pub(crate) ends: [Option<End>; 2],
}

/// Two ends and what is between them.
struct Pair<'a> {
    script: &'a Script,
    peers: [Box<dyn Peer>; 2],
    /// To the client, to the server.
    links: [Link; 2],
    observer: Observer,
    now: Instant,
    started: Instant,
    /// One line per datagram to stderr.
    traces: bool,
}

pub(crate) fn run(world: &World, script: &Script, kinds: [Kind; 2]) -> Outcome {
    let setups = Side::BOTH.map(|side| world.setup(script, side));
    let [client, server] = [0, 1].map(|i| world.peer(kinds[i], &setups[i]));
    let link = |n| Link::new(script.seed.wrapping_mul(2).wrapping_add(n), script.link.clone());
    let mut pair = Pair {
        script,
        peers: [client, server],
        links: [link(0), link(1)],
        observer: Observer::default(),
        now: world.now,
        started: world.now,
        traces: std::env::var_os("DIFFERENTIAL_TRACE").is_some(),
    };
    if pair.traces {
        eprintln!("seed {}, {kinds:?}", script.seed);
    }
    pair.shake_hands();
    let both_open = pair.peers.iter().all(|peer| peer.seen().is_open);
    if both_open {
        pair.talk();
        pair.peers[script.closes as usize].close(pair.now);
        pair.deliver_all();
    }
    pair.outcome(&setups)
}

impl Pair<'_> {
    /// Takes what the ends want to send.
    fn collect(&mut self) -> Vec<(usize, Vec<u8>)> {
        let mut all = Vec::new();
        for from in 0..2 {
            for datagram in self.peers[from].take_datagrams() {
                self.observer.see(from, &datagram);
                if self.traces {
                    let (at, way) = (self.now - self.started, ["->", "<-"][from]);
                    eprintln!("{:>8.3} {way} {}", at.as_secs_f32(), describe(&datagram));
                }
                all.push((1 - from, datagram));
            }
        }
        all
    }

    /// Goes on until both ends are open or over and nothing is under way.
    fn shake_hands(&mut self) {
        let limit = self.now + HANDSHAKE_LIMIT;
        loop {
            for (to, datagram) in self.collect() {
                self.links[to].push(self.now, datagram);
            }
            let settled = self.peers.iter().all(|p| p.seen().is_open || p.seen().end.is_some());
            let in_flight = self.links.iter().filter_map(Link::next_due).min();
            let timeout = self.peers.iter().filter_map(|p| p.next_timeout()).min();
            let next = if settled { in_flight } else { in_flight.into_iter().chain(timeout).min() };
            let Some(next) = next.filter(|at| *at <= limit) else { return };
            self.now = self.now.max(next);
            for to in 0..2 {
                while let Some(datagram) = self.links[to].pop(self.now) {
                    if self.traces {
                        eprintln!(
                            "         {} {}",
                            ["to client", "to server"][to],
                            describe(&datagram)
                        );
                    }
                    self.peers[to].receive(self.now, datagram);
                }
                if self.peers[to].next_timeout().is_some_and(|at| at <= self.now) {
                    self.peers[to].handle_timeout(self.now);
                }
            }
        }
    }

    /// Brings everything over that the ends send, and what follows from it.
    fn deliver_all(&mut self) {
        for _ in 0..CONSEQUENCES_MAX {
            let all = self.collect();
            if all.is_empty() {
                return;
            }
            for (to, datagram) in all {
                self.peers[to].receive(self.now, datagram);
            }
        }
        panic!("seed {}: no end of datagrams", self.script.seed);
    }

    fn receive(&mut self, to: usize, datagram: Vec<u8>) {
        self.peers[to].receive(self.now, datagram);
        self.deliver_all();
    }

    /// Sends all messages, each with its fate.
    fn talk(&mut self) {
        let script = self.script;
        let mut rng = Rng::new(script.seed ^ 0x7461_6c6b);
        let mut later: Vec<(usize, usize, Vec<u8>)> = Vec::new();
        for (n, step) in script.steps.iter().enumerate() {
            self.now += STEP;
            for (_, to, datagram) in later.extract_if(.., |(at, ..)| *at <= n).collect::<Vec<_>>() {
                self.receive(to, datagram);
            }
            let (from, to) = (step.from as usize, step.from.other() as usize);
            self.peers[from].send(self.now, &step.message);
            for mut datagram in self.peers[from].take_datagrams() {
                match step.fate {
                    Fate::Arrives => self.receive(to, datagram),
                    Fate::Lost => {}
                    Fate::Repeated(times) => {
                        (0..times).for_each(|_| self.receive(to, datagram.clone()));
                    }
                    Fate::Late(steps) => later.push((n + usize::from(steps), to, datagram)),
                    Fate::Replayed(steps) => {
                        later.push((n + usize::from(steps), to, datagram.clone()));
                        self.receive(to, datagram);
                    }
                    Fate::Bent(which) => {
                        // Not in its header, which may send it elsewhere.
                        let bit = which as usize % ((datagram.len() - 13) * 8);
                        datagram[13 + bit / 8] ^= 1 << (bit % 8);
                        self.receive(to, datagram);
                    }
                    Fate::Cut(bytes) => {
                        datagram.truncate(datagram.len() - usize::from(bytes).min(datagram.len()));
                        self.receive(to, datagram);
                    }
                    Fate::Forged => {
                        forgeries(&mut rng).into_iter().for_each(|f| self.receive(to, f));
                        self.receive(to, datagram);
                    }
                }
            }
        }
        for (_, to, datagram) in later {
            self.receive(to, datagram);
        }
    }

    fn outcome(self, setups: &[Setup; 2]) -> Outcome {
        let seen = self.peers.each_ref().map(|p| p.seen());
        let opened = seen.map(|s| s.is_open);
        let agreed = if opened == [true; 2] { self.observer.agreed() } else { None };
        let ems_as_agreed = seen.iter().all(|s| {
            agreed.is_none()
                || s.extended_master_secret.is_none_or(|e| Some(e) == agreed.map(|a| a.ems))
        });
        let right_certificates = (0..2).all(|i| {
            let shown = seen[i].peer_certificate.as_ref();
            shown.is_none_or(|c| *c == setups[1 - i].identity.certificate)
        });
        let delivered = [0, 1].map(|i| {
            let sent = |message: &Vec<u8>| {
                let steps = &self.script.steps;
                let step = steps.iter().position(|s| s.message == *message && s.from as usize != i);
                step.unwrap_or_else(|| panic!("seed {}: not a message sent", self.script.seed))
            };
            seen[i].messages.iter().map(sent).collect()
        });
        Outcome {
            opened,
            agreed,
            offered: self.observer.offered(),
            cuts_anew: self.observer.cuts_anew,
            right_certificates,
            same_exported_key: seen[0].exported.zip(seen[1].exported).map(|(a, b)| a == b),
            ems_as_agreed,
            delivered,
            ends: seen.map(|s| s.end.clone()),
        }
    }
}

/// Records that need no keys: a fatal alert, a goodbye, a change of keys, a hello request, data,
/// and noise.
fn forgeries(rng: &mut Rng) -> Vec<Vec<u8>> {
    let record = |kind: u8, epoch: u8, body: &[u8]| {
        let head = [kind, 0xfe, 0xfd, 0, epoch, 0, 0, 0, 0, 1, 0, 0, body.len() as u8];
        [&head[..], body].concat()
    };
    vec![
        record(21, 0, &[2, 40]),
        record(21, 0, &[1, 0]),
        record(20, 0, &[1]),
        record(22, 0, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        record(23, 0, b"in clear"),
        record(23, 1, &rng.next_u64().to_be_bytes().repeat(8)),
        record(23, 2, &rng.next_u64().to_be_bytes().repeat(8)),
        rng.next_u64().to_be_bytes().repeat(4),
    ]
}
