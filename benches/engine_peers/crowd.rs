//! One record to each of many peers: what the sender spends.

use std::cell::RefCell;
use std::io::IoSlice;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use channel_benches::{cpu, identity, ours};
use dtls_channel::{AssociationId, Driver, Endpoint, EndpointConfig, Event};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrIn, sendmmsg};
use tokio::runtime::{Builder, Runtime};

use crate::stream::loopback;

/// Records that the application seals before it sends: what a hub does with a push to many.
const SEALED_AT_A_TIME: usize = 64;
/// Datagrams in one raw call.
const RAW_BATCH: usize = 64;
const DATAGRAM_BYTES_MAX: usize = 2_048;

/// A peer of its own socket.
pub(crate) struct Receiver {
    socket: UdpSocket,
    endpoint: Endpoint,
}

/// All of them; the raw sender has the same.
pub(crate) type Receivers = Rc<RefCell<Vec<Receiver>>>;

/// A driver with many associations.
pub(crate) struct Crowd {
    _runtime: Runtime,
    driver: Driver,
    open: Vec<AssociationId>,
    receivers: Receivers,
    message: Vec<u8>,
}

impl Crowd {
    pub(crate) fn new(size: u32, bytes: usize) -> Self {
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
        setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("as many files as allowed");
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let entered = runtime.enter();
        let (at_client, at_server) = (identity(), identity());
        let serving = Some(Arc::new(ours::config(&at_server, None)));
        let serving = EndpointConfig { server: serving, ..EndpointConfig::default() };
        let mut driver = Driver::bind(loopback(), serving).expect("a socket");
        drop(entered);
        let remote = driver.local_addr().expect("bound");
        let config = Arc::new(ours::config(&at_client, Some(&at_server)));
        let (mut open, mut receivers) = (Vec::new(), Vec::new());
        for n in 0..size {
            if n % 500 == 0 {
                eprint!("\r{n} of {size} handshakes ");
            }
            let socket = UdpSocket::bind(loopback()).expect("a socket");
            socket.set_nonblocking(true).expect("an option");
            let now = Instant::now();
            let mut endpoint = Endpoint::new(now, EndpointConfig::default()).expect("randomness");
            endpoint.connect(now, remote, config.clone()).expect("room");
            let mut receiver = Receiver { socket, endpoint };
            let id = loop {
                receiver.speak(remote);
                let waited = driver.wait(Some(Instant::now() + Duration::from_millis(100)));
                runtime.block_on(waited).expect("a socket");
                receiver.listen(Some(remote));
                if let Some((id, Event::Established(_))) = driver.poll_event() {
                    break id;
                }
            };
            receiver.listen(Some(remote));
            let event = receiver.endpoint.poll_event();
            assert!(matches!(event, Some((_, Event::Established(_)))), "{event:?}");
            open.push(id);
            receivers.push(receiver);
        }
        eprintln!();
        let receivers = Rc::new(RefCell::new(receivers));
        Self { _runtime: runtime, driver, open, receivers, message: vec![7; bytes] }
    }

    pub(crate) fn receivers(&self) -> Receivers {
        self.receivers.clone()
    }

    /// One record to each; its CPU time.
    pub(crate) fn send(&mut self) -> Duration {
        let Self { driver, open, message, .. } = self;
        warm(&self.receivers);
        let took = cpu::time(|| {
            for some in open.chunks(SEALED_AT_A_TIME) {
                let now = Instant::now();
                for id in some {
                    driver.send(now, *id, message).expect("open, and fits");
                }
                driver.flush();
            }
        });
        assert_eq!(driver.send_errors(), 0);
        for receiver in self.receivers.borrow_mut().iter_mut() {
            receiver.listen(None);
            let event = receiver.endpoint.poll_event();
            let Some((_, Event::Message { data, .. })) = event else { panic!("{event:?}") };
            assert_eq!(data, *self.message);
        }
        took
    }
}

/// Everyone's sockets are in the kernel's caches when his turn begins, whoever was before him.
fn warm(receivers: &Receivers) {
    let mut buffer = [0; DATAGRAM_BYTES_MAX];
    for receiver in receivers.borrow().iter() {
        assert!(receiver.socket.recv(&mut buffer).is_err(), "nothing was sent");
    }
}

impl Receiver {
    fn speak(&mut self, to: SocketAddr) {
        while let Some((_, bytes)) = self.endpoint.outbox().front() {
            self.socket.send_to(bytes, to).expect("sent");
            self.endpoint.outbox().pop();
        }
    }

    fn listen(&mut self, from: Option<SocketAddr>) {
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        while let Ok((length, remote)) = self.socket.recv_from(&mut buffer) {
            assert!(from.is_none_or(|from| remote == from));
            self.endpoint.handle_datagram(Instant::now(), remote.into(), &mut buffer[..length]);
        }
    }
}

/// The same datagrams, with nothing but the system call.
pub(crate) struct Raw {
    socket: UdpSocket,
    addresses: Vec<Option<SockaddrIn>>,
    bytes: Vec<u8>,
    length: usize,
    headers: MultiHeaders<SockaddrIn>,
}

impl Raw {
    pub(crate) fn new(crowd: &Crowd) -> Self {
        let overhead = 13 + 8 + 16;
        let length = crowd.message.len() + overhead;
        let receivers = crowd.receivers.borrow();
        let address = |receiver: &Receiver| match receiver.socket.local_addr().expect("bound") {
            SocketAddr::V4(address) => Some(address.into()),
            SocketAddr::V6(_) => None,
        };
        Self {
            socket: UdpSocket::bind(loopback()).expect("a socket"),
            addresses: receivers.iter().map(address).collect(),
            bytes: vec![7; length * receivers.len()],
            length,
            headers: MultiHeaders::preallocate(RAW_BATCH, None),
        }
    }

    pub(crate) fn send(&mut self, receivers: &Receivers) -> Duration {
        let Self { socket, addresses, bytes, length, headers } = self;
        warm(receivers);
        let took = cpu::time(|| {
            let batches = addresses.chunks(RAW_BATCH).zip(bytes.chunks(RAW_BATCH * *length));
            for (to, bytes) in batches {
                let mut datagrams = bytes.chunks(*length);
                let slices: [[IoSlice<'_>; 1]; RAW_BATCH] =
                    std::array::from_fn(|_| [IoSlice::new(datagrams.next().unwrap_or_default())]);
                let none: [ControlMessage<'_>; 0] = [];
                let sent = sendmmsg(
                    socket.as_raw_fd(),
                    headers,
                    &slices[..to.len()],
                    to,
                    none,
                    MsgFlags::empty(),
                );
                assert_eq!(sent.expect("sent").count(), to.len());
            }
        });
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        for receiver in receivers.borrow_mut().iter_mut() {
            let got = receiver.socket.recv(&mut buffer).expect("a datagram");
            assert_eq!(got, *length);
        }
        took
    }
}
