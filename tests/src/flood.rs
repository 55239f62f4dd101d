//! Floods of a server's UDP port from tens of thousands of loopback addresses: all of 127.0.0.0/8 is
//! ours, and every address of it can be bound without privileges.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dtls_channel::testing::forge::{Piece, record};
use dtls_channel::testing::{AcceptAnyone, Rng, Rogue, credentials};
use dtls_channel::{Config, Endpoint, EndpointConfig, Event};

use crate::{PATIENCE, PemIdentity};

/// Sources that wait for their answers at a time.
const WINDOW: usize = 256;
/// How long an answer is waited for; on loopback it comes at once, or the kernel had no room.
const ANSWER_WAIT: Duration = Duration::from_millis(20);
/// Addresses there are; then they come again.
const ADDRESSES: u32 = 50_000;
const CLIENT_HELLO: u8 = 1;

/// Whether a flood waits for what it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// No more is sent than is answered, so that everything is heard and can be counted.
    Answered,
    /// As fast as one thread sends; what the kernel has no room for is lost.
    Full,
}

/// What a flood has sent and been sent.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    /// Addresses that sent.
    pub sources: u64,
    /// Datagrams sent.
    pub sent: u64,
    /// Bytes of UDP payload sent.
    pub sent_bytes: u64,
    /// Datagrams received.
    pub received: u64,
    /// Bytes of UDP payload received.
    pub received_bytes: u64,
    /// Answers that were waited for in vain.
    pub missed: u64,
    /// Addresses that received more bytes than they sent.
    pub amplified: u64,
    /// From the first datagram to the last.
    pub took: Duration,
}

/// One address of a flood.
#[derive(Debug)]
pub struct Source {
    socket: UdpSocket,
    target: SocketAddr,
    tally: Tally,
    /// Answers that are still to come.
    expected: usize,
}

impl Source {
    /// The address with this number, on a free port.
    fn new(number: u32, target: SocketAddr) -> Self {
        let [_, b, c, d] = (number % ADDRESSES).to_be_bytes();
        let socket =
            UdpSocket::bind((Ipv4Addr::new(127, 64 + b, c, d), 0)).expect("a loopback address");
        socket.set_read_timeout(Some(ANSWER_WAIT)).expect("a timeout");
        Self { socket, target, tally: Tally::default(), expected: 0 }
    }

    /// Sends a datagram that draws an answer, or none.
    pub fn send(&mut self, datagram: &[u8], is_answered: bool) {
        // A full buffer is the kernel's business; that is what a flood fills.
        if self.socket.send_to(datagram, self.target).is_ok() {
            self.tally.sent += 1;
            self.tally.sent_bytes += datagram.len() as u64;
            self.expected += usize::from(is_answered);
        }
    }

    /// Waits for an answer.
    pub fn receive(&mut self) -> Option<Vec<u8>> {
        self.expected = self.expected.saturating_sub(1);
        let mut buffer = [0; 2_048];
        let Ok(length) = self.socket.recv(&mut buffer) else {
            self.tally.missed += 1;
            return None;
        };
        self.tally.received += 1;
        self.tally.received_bytes += length as u64;
        Some(buffer[..length].to_vec())
    }

    fn finish(mut self, pace: Pace, sum: &mut Tally) {
        if pace == Pace::Full {
            self.socket.set_nonblocking(true).expect("a socket");
        }
        while self.expected > 0 && self.receive().is_some() {}
        sum.sources += 1;
        sum.sent += self.tally.sent;
        sum.sent_bytes += self.tally.sent_bytes;
        sum.received += self.tally.received;
        sum.received_bytes += self.tally.received_bytes;
        sum.missed += self.tally.missed + self.expected as u64;
        sum.amplified += u64::from(self.tally.received_bytes > self.tally.sent_bytes);
    }
}

/// A flood on a thread of its own.
#[derive(Debug)]
pub struct Flood {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Tally>,
}

impl Flood {
    /// Lets `sources` sockets, each on the next of 50,000 addresses, do what `act` does with them.
    #[must_use]
    pub fn start(
        target: SocketAddr,
        sources: u32,
        pace: Pace,
        mut act: impl FnMut(u32, &mut Source) + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let begun = Instant::now();
            let (mut sum, mut waiting) = (Tally::default(), VecDeque::with_capacity(WINDOW));
            for number in 0..sources {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let mut source = Source::new(number, target);
                act(number, &mut source);
                waiting.push_back(source);
                if waiting.len() == WINDOW
                    && let Some(oldest) = waiting.pop_front()
                {
                    oldest.finish(pace, &mut sum);
                }
            }
            waiting.into_iter().for_each(|source| source.finish(pace, &mut sum));
            sum.took = begun.elapsed();
            sum
        });
        Self { stop, thread }
    }

    /// True when it has sent everything.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends it early.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// What it has done, when it is over.
    ///
    /// # Panics
    /// If it has failed.
    #[must_use]
    pub fn tally(self) -> Tally {
        self.thread.join().expect("the flood's thread")
    }
}

/// ClientHellos like our own, each with a random of its own.
#[derive(Debug)]
pub struct Hellos {
    datagram: Vec<u8>,
    rng: Rng,
}

impl Hellos {
    /// Those that follow from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let hello = rogue().hello().body();
        let datagram = Piece::whole(CLIENT_HELLO, 0, &hello).datagram(0);
        Self { datagram, rng: Rng::new(seed) }
    }

    /// The next one.
    pub fn next_hello(&mut self) -> &[u8] {
        // Behind the headers of record and message, and the version.
        for chunk in self.datagram[13 + 12 + 2..][..32].chunks_exact_mut(8) {
            chunk.copy_from_slice(&self.rng.next_u64().to_be_bytes());
        }
        &self.datagram
    }
}

/// A client that can do anything, with an identity of its own.
#[must_use]
pub fn rogue() -> Rogue {
    let identity = PemIdentity::new();
    Rogue::client(credentials(identity.certificate(), identity.pkcs8()))
}

/// A client with an identity of its own, to which every server is right.
#[must_use]
pub fn anybody() -> Config {
    let identity = PemIdentity::new();
    let own = credentials(identity.certificate(), identity.pkcs8());
    Config::new(own, Arc::new(AcceptAnyone))
}

/// Completes the cookie exchange and stops, so that the server waits for the rest.
pub fn leave_half_open(rogue: &mut Rogue, source: &mut Source) {
    (rogue.message_seq, rogue.record_sequence) = (0, 0);
    rogue.cookie.clear();
    let hello = rogue.hello().body();
    source.send(&rogue.say_plain(CLIENT_HELLO, &hello), true);
    if let Some(request) = source.receive() {
        rogue.hear(&request);
        let hello = rogue.hello().body();
        source.send(&rogue.say_plain(CLIENT_HELLO, &hello), true);
    }
}

/// A datagram that is no hello: every content type, in several epochs.
#[must_use]
pub fn stray(number: u32) -> Vec<u8> {
    let epoch = [0, 1, 2, u16::MAX][number as usize / 256 % 4];
    // The first byte is a handshake message's type, and none that exists.
    record(number as u8, epoch, number.into(), &[0xee; 60])
}

/// What a real association has sent, to be replayed; it stays open while this exists.
#[derive(Debug)]
pub struct Captured {
    socket: UdpSocket,
    server: SocketAddr,
    /// Its hello with a cookie that is good for it.
    pub hello: Vec<u8>,
    /// Its last flight, with a sealed record at its end.
    pub flight: Vec<u8>,
}

impl Captured {
    /// Does a handshake with a server, and keeps what was sent.
    ///
    /// # Panics
    /// If it fails.
    #[must_use]
    pub fn from(server: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
        let begun = Instant::now();
        let mut endpoint = Endpoint::new(begun, EndpointConfig::default()).expect("randomness");
        let config = anybody();
        endpoint.connect(begun, server, Arc::new(config)).expect("room");
        let (mut sent, mut buffer) = (Vec::new(), [0; 2_048]);
        loop {
            assert!(begun.elapsed() < PATIENCE, "no handshake: {:?}", endpoint.stats());
            while let Some((transmit, bytes)) = endpoint.outbox().front() {
                for datagram in bytes.chunks(transmit.segment_size.unwrap_or(bytes.len())) {
                    socket.send_to(datagram, server).expect("sent");
                    sent.push(datagram.to_vec());
                }
                endpoint.outbox().pop();
            }
            if let Some((_, event)) = endpoint.poll_event() {
                assert!(matches!(event, Event::Established(_)), "instead of an opening: {event:?}");
                // Hello, hello with its cookie, flight; each perhaps several times.
                let hello = sent.iter().find(|d| d[13] == CLIENT_HELLO && d[59] == 0 && d[60] > 0);
                let hello = hello.expect("a hello with a cookie").clone();
                let flight = sent.pop().expect("a flight");
                return Self { socket, server, hello, flight };
            }
            if let Ok(length) = socket.recv(&mut buffer) {
                let path = server.into();
                endpoint.handle_datagram(Instant::now(), path, &mut buffer[..length]);
            }
            endpoint.handle_timeout(Instant::now());
        }
    }

    /// Replays from the address that it came from.
    pub fn replay(&self) {
        let _ = self.socket.send_to(&self.flight, self.server);
    }
}

/// What a process has used so far.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// CPU time of its threads.
    pub cpu: Duration,
    /// Memory that is resident, in bytes.
    pub resident_bytes: u64,
}

impl Usage {
    /// That of a running process.
    ///
    /// # Panics
    /// If there is no such process.
    #[must_use]
    pub fn of(process: u32) -> Self {
        let tasks = std::fs::read_dir(format!("/proc/{process}/task")).expect("a process");
        let ns = tasks.filter_map(|task| {
            let times = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            times.split(' ').next()?.parse::<u64>().ok()
        });
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("a process");
        let kib =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next());
        let kib: u64 = kib.and_then(|kib| kib.parse().ok()).expect("a size");
        Self { cpu: Duration::from_nanos(ns.sum()), resident_bytes: kib * 1_024 }
    }
}
