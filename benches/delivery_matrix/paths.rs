//! Paths between real sockets: what the simulated link does to datagrams, done by a relay in user space.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dtls_channel::testing::{Link, LinkConfig};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The relay looks this often whether anything was asked of it.
const PATIENCE: Duration = Duration::from_millis(5);
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// Paths, each with sockets and links of its own, on one thread.
pub(crate) struct Paths {
    /// Where each agent finds its server.
    pub(crate) addresses: Vec<SocketAddr>,
    shared: Arc<Shared>,
    thread: JoinHandle<Vec<Duration>>,
}

struct Shared {
    /// Whether a path loses datagrams by now.
    lossy: Vec<AtomicBool>,
    /// Bytes from each server.
    sent: Vec<AtomicU64>,
    over: AtomicBool,
}

struct Path {
    /// Towards the agent, and towards the server.
    sockets: [UdpSocket; 2],
    /// From the agent, from the server.
    links: [Link; 2],
    lossy: bool,
}

impl Paths {
    /// Ends are agent and server of each path. Until it is told to begin, a path loses nothing by chance.
    pub(crate) fn new(ends: &[[SocketAddr; 2]], first_seed: u64, config: &LinkConfig) -> Self {
        let calm = LinkConfig { loss: 0.0, ..config.clone() };
        let path = |(seed, [agent, server]): (u64, &[SocketAddr; 2])| Path {
            sockets: [agent, server].map(|end| towards(*end).expect("a socket")),
            links: [2 * seed + 1, 2 * seed].map(|seed| Link::new(seed, calm.clone())),
            lossy: false,
        };
        let paths: Vec<Path> = (first_seed..).zip(ends).map(path).collect();
        let addresses = paths.iter().map(|path| path.sockets[0].local_addr().expect("bound"));
        let shared = Arc::new(Shared {
            lossy: ends.iter().map(|_| AtomicBool::new(false)).collect(),
            sent: ends.iter().map(|_| AtomicU64::new(0)).collect(),
            over: AtomicBool::new(false),
        });
        let (addresses, config, told) = (addresses.collect(), config.clone(), shared.clone());
        let thread = std::thread::spawn(move || relay(paths, &config, &told));
        Self { addresses, shared, thread }
    }

    /// From now on, or a moment later, this path loses what it is to lose.
    pub(crate) fn begin(&self, nth: usize) {
        self.shared.lossy[nth].store(true, Ordering::Relaxed);
    }

    /// Bytes that the server of this path has sent.
    pub(crate) fn sent(&self, nth: usize) -> u64 {
        self.shared.sent[nth].load(Ordering::Relaxed)
    }

    /// Ends them. How much later than due each datagram left.
    pub(crate) fn end(self) -> Vec<Duration> {
        self.shared.over.store(true, Ordering::Relaxed);
        self.thread.join().expect("the relay does not panic")
    }
}

fn towards(end: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(end)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn relay(mut paths: Vec<Path>, config: &LinkConfig, shared: &Shared) -> Vec<Duration> {
    let copies: Vec<[UdpSocket; 2]> = paths
        .iter()
        .map(|path| path.sockets.each_ref().map(|socket| socket.try_clone().expect("a handle")))
        .collect();
    let mut waiting: Vec<PollFd<'_>> =
        copies.iter().flatten().map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    let mut late = Vec::new();
    while !shared.over.load(Ordering::Relaxed) {
        for (path, lossy) in paths.iter_mut().zip(&shared.lossy) {
            if !path.lossy && lossy.load(Ordering::Relaxed) {
                path.lossy = true;
                path.links.iter_mut().for_each(|link| link.reconfigure(config.clone()));
            }
            for from in 0..2 {
                while let Some(due) = path.links[from].next_due()
                    && let now = Instant::now()
                    && let Some(datagram) = path.links[from].pop(now)
                {
                    late.push(now.saturating_duration_since(due));
                    // An end that is gone is no matter of the path.
                    let _ = path.sockets[1 - from].send(&datagram);
                }
            }
        }
        let due = paths.iter().flat_map(|path| &path.links).filter_map(Link::next_due).min();
        let wait = due.map_or(PATIENCE, |due| due.saturating_duration_since(Instant::now()));
        let wait = Timespec::try_from(wait.min(PATIENCE)).expect("a short time");
        if poll(&mut waiting, Some(&wait)).expect("the sockets work") == 0 {
            continue;
        }
        for (nth, ready) in waiting.iter().enumerate() {
            let (path, from) = (&mut paths[nth / 2], nth % 2);
            while !ready.revents().is_empty()
                && let Ok(length) = path.sockets[from].recv(&mut buffer)
            {
                if from == 1 {
                    shared.sent[nth / 2].fetch_add(length as u64, Ordering::Relaxed);
                }
                path.links[from].push(Instant::now(), buffer[..length].to_vec());
            }
        }
    }
    late
}
