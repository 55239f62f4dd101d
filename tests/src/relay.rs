use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dtls_channel::testing::{Link, LinkConfig, Rng};
use tokio::net::UdpSocket;
use tokio::sync::mpsc as channel;

/// Datagrams of each direction that may be replayed.
const REMEMBERED_DATAGRAMS: usize = 32;
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// What a [`Relay`] does to the datagrams that pass. Probabilities are 0.0 to 1.0.
#[derive(Debug, Clone)]
pub struct Disturbance {
    /// Loss, duplicates, delay, order and size, each way.
    pub link: LinkConfig,
    /// Probability that one bit of a datagram is flipped.
    pub flip: f64,
    /// Probability that a datagram loses its end.
    pub cut: f64,
    /// Probability that a datagram is followed by an older one.
    pub replay: f64,
    /// So many datagrams of each direction are neither flipped nor cut, so that a handshake passes.
    pub skip: u64,
    /// After every so many datagrams of a client the server sees it at another port, and what is
    /// sent to the old one is lost.
    pub rebind_every: Option<u64>,
}

impl Disturbance {
    /// Passes everything on at once.
    #[must_use]
    pub fn none() -> Self {
        Self {
            link: LinkConfig {
                delay: Duration::ZERO,
                mtu: DATAGRAM_BYTES_MAX,
                ..LinkConfig::default()
            },
            flip: 0.0,
            cut: 0.0,
            replay: 0.0,
            skip: 0,
            rebind_every: None,
        }
    }

    /// 15 % lost, 15 % twice, 15 % held back for 15 ms, up to 10 ms of delay.
    #[must_use]
    pub fn lossy() -> Self {
        let mut disturbance = Self::none();
        disturbance.link.loss = 0.15;
        disturbance.link.duplicate = 0.15;
        disturbance.link.reorder = 0.15;
        disturbance.link.jitter = Duration::from_millis(10);
        disturbance
    }

    /// Another port for the client after every `datagrams` of its datagrams.
    #[must_use]
    pub fn rebinding(datagrams: u64) -> Self {
        Self { rebind_every: Some(datagrams), ..Self::none() }
    }
}

/// What a [`Relay`] saw.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RelayStats {
    /// Datagrams that clients sent.
    pub from_clients: u64,
    /// Datagrams that the server sent.
    pub from_server: u64,
    /// Length in bytes of the longest datagram that a client sent.
    pub from_clients_bytes_max: usize,
    /// Length in bytes of the longest datagram that the server sent.
    pub from_server_bytes_max: usize,
    /// Datagrams with a flipped bit.
    pub flipped: u64,
    /// Datagrams without their end.
    pub cut: u64,
    /// Old datagrams sent again.
    pub replayed: u64,
    /// Times that a client got another port.
    pub rebound: u64,
}

/// A UDP relay on loopback between any number of clients and one server, on a thread of its own. A
/// seed decides what becomes of the nth datagram of each client and direction; only the real
/// programs' pace is not in its hands.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    orders: channel::UnboundedSender<Order>,
    stats: Arc<Mutex<RelayStats>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Order {
    /// Answered once it is so.
    Calm(mpsc::Sender<()>),
    Stop,
}

impl Relay {
    /// A relay to `server`.
    ///
    /// # Panics
    /// If there is no free port.
    #[must_use]
    pub fn start(server: SocketAddr, seed: u64, disturbance: Disturbance) -> Self {
        let (orders, inbox) = channel::unbounded_channel();
        let (bound, address) = mpsc::channel();
        let stats = Arc::<Mutex<RelayStats>>::default();
        let shared = stats.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let front = loopback_socket().await.expect("a free port");
                bound.send(front.local_addr().expect("its address")).expect("listened to");
                Relaying::new(front, server, seed, disturbance, shared).run(inbox).await;
            });
        });
        let address = address.recv().expect("the relay's thread has bound its socket");
        Self { address, orders, stats, thread: Some(thread) }
    }

    /// Where clients find it.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Passes on everything unharmed that comes from now on, so that a goodbye, which nobody
    /// repeats, arrives. The client keeps its port.
    ///
    /// # Panics
    /// If the relay's thread has died.
    pub fn calm(&self) {
        let (calmed, wait) = mpsc::channel();
        let _ = self.orders.send(Order::Calm(calmed));
        wait.recv().expect("the relay's thread");
    }

    /// What it has seen and done so far.
    #[must_use]
    pub fn stats(&self) -> RelayStats {
        *lock(&self.stats)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.orders.send(Order::Stop);
        if let Some(thread) = self.thread.take() {
            let died = thread.join().is_err();
            assert!(!died || std::thread::panicking(), "the relay's thread panicked");
        }
    }
}

fn lock(stats: &Mutex<RelayStats>) -> std::sync::MutexGuard<'_, RelayStats> {
    stats.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn loopback_socket() -> io::Result<UdpSocket> {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await
}

/// One direction of one client's path.
#[derive(Debug)]
struct Direction {
    link: Link,
    mangler: Mangler,
}

impl Direction {
    fn new(seed: u64, disturbance: &Disturbance) -> Self {
        Self {
            link: Link::new(seed, disturbance.link.clone()),
            mangler: Mangler::new(seed, disturbance.clone()),
        }
    }

    fn push(&mut self, now: Instant, datagram: Vec<u8>, stats: &mut RelayStats) {
        for datagram in self.mangler.pass(datagram, stats) {
            self.link.push(now, datagram);
        }
    }

    fn calm(&mut self) {
        self.link.reconfigure(Disturbance::none().link);
        self.mangler.disturbance = Disturbance::none();
    }
}

/// Decides what becomes of the bytes.
#[derive(Debug)]
struct Mangler {
    rng: Rng,
    disturbance: Disturbance,
    seen: u64,
    older: VecDeque<Vec<u8>>,
}

impl Mangler {
    fn new(seed: u64, disturbance: Disturbance) -> Self {
        Self { rng: Rng::new(!seed), disturbance, seen: 0, older: VecDeque::new() }
    }

    fn pass(&mut self, mut datagram: Vec<u8>, stats: &mut RelayStats) -> Vec<Vec<u8>> {
        self.seen += 1;
        let original = datagram.clone();
        if self.seen > self.disturbance.skip && !datagram.is_empty() {
            if self.rng.chance(self.disturbance.flip) {
                let bit = self.rng.below(8 * datagram.len() as u64);
                datagram[(bit / 8) as usize] ^= 1 << (bit % 8);
                stats.flipped += 1;
            }
            if self.rng.chance(self.disturbance.cut) {
                datagram.truncate(self.rng.below(datagram.len() as u64) as usize);
                stats.cut += 1;
            }
        }
        let mut out = vec![datagram];
        if !self.older.is_empty() && self.rng.chance(self.disturbance.replay) {
            let nth = self.rng.below(self.older.len() as u64) as usize;
            out.extend(self.older.get(nth).cloned());
            stats.replayed += 1;
        }
        if self.disturbance.replay > 0.0 {
            if self.older.len() == REMEMBERED_DATAGRAMS {
                self.older.pop_front();
            }
            self.older.push_back(original);
        }
        out
    }
}

/// One client of the relay.
#[derive(Debug)]
struct Session {
    client: SocketAddr,
    /// Where the server sees the client.
    upstream: Arc<UdpSocket>,
    reader: tokio::task::JoinHandle<()>,
    to_server: Direction,
    to_client: Direction,
    since_rebind: u64,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

type FromServer = (SocketAddr, Vec<u8>);

struct Relaying {
    front: UdpSocket,
    server: SocketAddr,
    seed: u64,
    disturbance: Disturbance,
    stats: Arc<Mutex<RelayStats>>,
    sessions: HashMap<SocketAddr, Session>,
    answers: (channel::UnboundedSender<FromServer>, channel::UnboundedReceiver<FromServer>),
}

impl Relaying {
    fn new(
        front: UdpSocket,
        server: SocketAddr,
        seed: u64,
        disturbance: Disturbance,
        stats: Arc<Mutex<RelayStats>>,
    ) -> Self {
        let answers = channel::unbounded_channel();
        let sessions = HashMap::new();
        Self { front, server, seed, disturbance, stats, sessions, answers }
    }

    async fn run(mut self, mut orders: channel::UnboundedReceiver<Order>) {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            self.deliver().await;
            let due = self.next_due();
            let wake = due.unwrap_or_else(|| Instant::now() + Duration::from_secs(3_600));
            tokio::select! {
                received = self.front.recv_from(&mut buffer) => {
                    // An error here is an ICMP answer to something sent earlier.
                    if let Ok((length, client)) = received {
                        self.take_from_client(client, buffer[..length].to_vec()).await;
                    }
                }
                Some((client, datagram)) = self.answers.1.recv() => {
                    self.take_from_server(client, datagram);
                }
                () = tokio::time::sleep_until(wake.into()) => {}
                order = orders.recv() => match order {
                    Some(Order::Calm(calmed)) => {
                        self.calm();
                        let _ = calmed.send(());
                    }
                    Some(Order::Stop) | None => return,
                },
            }
        }
    }

    fn calm(&mut self) {
        self.disturbance = Disturbance::none();
        for session in self.sessions.values_mut() {
            session.to_server.calm();
            session.to_client.calm();
        }
    }

    async fn take_from_client(&mut self, client: SocketAddr, datagram: Vec<u8>) {
        if !self.sessions.contains_key(&client) {
            let (upstream, reader) = self.open_upstream(client).await;
            let seed = self.seed.wrapping_mul(1_000).wrapping_add(2 * self.sessions.len() as u64);
            let session = Session {
                client,
                upstream,
                reader,
                to_server: Direction::new(seed, &self.disturbance),
                to_client: Direction::new(seed + 1, &self.disturbance),
                since_rebind: 0,
            };
            self.sessions.insert(client, session);
        }
        if let Some(every) = self.disturbance.rebind_every
            && self.sessions.get(&client).is_some_and(|session| session.since_rebind >= every)
        {
            let (upstream, reader) = self.open_upstream(client).await;
            if let Some(session) = self.sessions.get_mut(&client) {
                session.reader.abort();
                session.upstream = upstream;
                session.reader = reader;
                session.since_rebind = 0;
            }
            lock(&self.stats).rebound += 1;
        }
        if let Some(session) = self.sessions.get_mut(&client) {
            session.since_rebind += 1;
            let mut stats = lock(&self.stats);
            stats.from_clients += 1;
            stats.from_clients_bytes_max = stats.from_clients_bytes_max.max(datagram.len());
            session.to_server.push(Instant::now(), datagram, &mut stats);
        }
    }

    fn take_from_server(&mut self, client: SocketAddr, datagram: Vec<u8>) {
        if let Some(session) = self.sessions.get_mut(&client) {
            let mut stats = lock(&self.stats);
            stats.from_server += 1;
            stats.from_server_bytes_max = stats.from_server_bytes_max.max(datagram.len());
            session.to_client.push(Instant::now(), datagram, &mut stats);
        }
    }

    /// A socket towards the server, and the task that reads it.
    async fn open_upstream(
        &self,
        client: SocketAddr,
    ) -> (Arc<UdpSocket>, tokio::task::JoinHandle<()>) {
        let upstream = Arc::new(loopback_socket().await.expect("a free port"));
        let (socket, answers, server) = (upstream.clone(), self.answers.0.clone(), self.server);
        let reader = tokio::spawn(async move {
            let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
            loop {
                match socket.recv_from(&mut buffer).await {
                    Ok((length, from)) if from == server => {
                        let _ = answers.send((client, buffer[..length].to_vec()));
                    }
                    _ => {}
                }
            }
        });
        (upstream, reader)
    }

    fn next_due(&self) -> Option<Instant> {
        let sessions = self.sessions.values();
        sessions
            .flat_map(|session| {
                [session.to_server.link.next_due(), session.to_client.link.next_due()]
            })
            .flatten()
            .min()
    }

    async fn deliver(&mut self) {
        let now = Instant::now();
        for session in self.sessions.values_mut() {
            while let Some(datagram) = session.to_server.link.pop(now) {
                // A peer that is gone is no matter of the relay.
                let _ = session.upstream.send_to(&datagram, self.server).await;
            }
            while let Some(datagram) = session.to_client.link.pop(now) {
                let _ = self.front.send_to(&datagram, session.client).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket as Socket;

    use super::*;
    use crate::PATIENCE;

    fn socket() -> Socket {
        let socket = Socket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        socket
    }

    fn receive(socket: &Socket) -> (Vec<u8>, SocketAddr) {
        let mut buffer = [0; 2_048];
        let (length, from) = socket.recv_from(&mut buffer).expect("a datagram");
        (buffer[..length].to_vec(), from)
    }

    #[test]
    fn datagrams_pass_both_ways_and_every_client_has_its_own_port() {
        let (server, clients) = (socket(), [socket(), socket()]);
        let relay = Relay::start(server.local_addr().unwrap(), 1, Disturbance::none());
        let mut ports = Vec::new();
        for (n, client) in clients.iter().enumerate() {
            client.send_to(&[n as u8; 700], relay.address()).unwrap();
            let (datagram, from) = receive(&server);
            assert_eq!(datagram, [n as u8; 700]);
            server.send_to(&[n as u8, 9], from).unwrap();
            assert_eq!(receive(client), (vec![n as u8, 9], relay.address()));
            ports.push(from.port());
        }
        assert_ne!(ports[0], ports[1]);
        let stats = relay.stats();
        assert_eq!((stats.from_clients, stats.from_clients_bytes_max), (2, 700));
        assert_eq!((stats.from_server, stats.from_server_bytes_max), (2, 2));
    }

    #[test]
    fn a_client_comes_back_from_another_port_after_so_many_datagrams() {
        let (server, client) = (socket(), socket());
        let relay = Relay::start(server.local_addr().unwrap(), 1, Disturbance::rebinding(2));
        let ports: Vec<u16> = (0..6u8)
            .map(|n| {
                client.send_to(&[n], relay.address()).unwrap();
                let (datagram, from) = receive(&server);
                assert_eq!(datagram, [n]);
                from.port()
            })
            .collect();
        assert_eq!(ports[0], ports[1]);
        assert_ne!(ports[1], ports[2]);
        assert_eq!(ports[2], ports[3]);
        assert_ne!(ports[3], ports[4]);
        assert_eq!(relay.stats().rebound, 2);
    }

    #[test]
    fn nothing_is_lost_once_it_is_calm() {
        let (server, client) = (socket(), socket());
        let mut everything_lost = Disturbance::none();
        everything_lost.link.loss = 1.0;
        let relay = Relay::start(server.local_addr().unwrap(), 1, everything_lost);
        client.send_to(b"lost", relay.address()).unwrap();
        while relay.stats().from_clients == 0 {
            std::thread::yield_now();
        }
        relay.calm();
        client.send_to(b"arrives", relay.address()).unwrap();
        assert_eq!(receive(&server).0, b"arrives");
    }

    #[test]
    fn flips_cuts_and_replays_follow_from_the_seed_and_spare_the_first() {
        let disturbance =
            Disturbance { flip: 0.5, cut: 0.3, replay: 0.3, skip: 20, ..Disturbance::none() };
        let run = |seed| {
            let mut mangler = Mangler::new(seed, disturbance.clone());
            let mut stats = RelayStats::default();
            let out: Vec<_> = (0..100u8).map(|n| mangler.pass(vec![n; 100], &mut stats)).collect();
            (out, stats)
        };
        let (out, stats) = run(7);
        assert_eq!((out.clone(), stats), run(7));
        assert_ne!(out, run(8).0);
        assert!(out[..20].iter().enumerate().all(|(n, sent)| sent[0] == vec![n as u8; 100]));
        let harmed = out.iter().enumerate().filter(|(n, sent)| sent[0] != vec![*n as u8; 100]);
        assert!(harmed.count() as u64 <= stats.flipped + stats.cut);
        assert!((20..60).contains(&stats.flipped), "{stats:?}");
        assert!((10..40).contains(&stats.cut), "{stats:?}");
        assert!((10..50).contains(&stats.replayed), "{stats:?}");
        assert_eq!(out.iter().flatten().count() as u64, 100 + stats.replayed);
    }
}
