use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt::ReceiveTimestampns};
use quinn_udp::{EcnCodepoint, RecvMeta, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;

use super::many;
use crate::config::Config;
use crate::ecn::Ecn;
use crate::endpoint::{Endpoint, EndpointConfig};
use crate::error::{ConnectError, SendError};
use crate::event::{AssociationId, Event, Path};
use crate::resumption::Session;
use crate::stats::Stats;

/// Datagram runs taken from the kernel in one call.
const RECEIVE_RUNS_MAX: usize = 16;
/// Room for one run: the kernel joins at most 64 KiB.
const RUN_BYTES: usize = 64 * 1024;
/// Receive calls before the application gets its turn: when thousands of peers answer at once, the kernel's
/// buffer must empty faster than it fills.
const RECEIVE_ROUNDS_MAX: usize = 32;
/// How long datagrams that wait in the kernel may hold timers up.
const HEARD_LAG_MAX: Duration = Duration::from_secs(1);
/// What we ask of the kernel's buffers; it gives what it may.
const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// An [`Endpoint`] with its socket, driven by one task: no task, timer or lock per association.
///
/// Call [`wait`](Self::wait) in a loop and drain [`poll_event`](Self::poll_event) after it.
pub struct Driver {
    socket: tokio::net::UdpSocket,
    state: UdpSocketState,
    endpoint: Endpoint,
    buffers: Vec<u8>,
    heard_until: Instant,
    holds_last_flight: bool,
    send_errors: u64,
    oversized: u64,
    receive_errors: u64,
}

/// A datagram is larger than the interface's MTU, and must not be fragmented.
const EMSGSIZE: i32 = 90;
/// The errors after which a socket can no longer be read.
const EBADF: i32 = 9;
const ENOTSOCK: i32 = 88;

impl Driver {
    /// Binds a UDP socket; port 0 takes a free one. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// What the system says of the address, or a failure of its random generator.
    pub fn bind(address: SocketAddr, config: EndpointConfig) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        Self::from_socket(socket.into(), config)
    }

    /// Takes a bound socket.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    #[expect(clippy::disallowed_methods, reason = "the driver is where the clock is read")]
    pub fn from_socket(socket: UdpSocket, config: EndpointConfig) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        // quinn-udp 0.6.3 asks for the time of each datagram, and then has no room for the codepoint of a run.
        setsockopt(&socket, ReceiveTimestampns, &false)?;
        // Best effort: bursts are lost with small buffers, nothing else.
        let _ = state.set_send_buffer_size(UdpSockRef::from(&socket), SOCKET_BUFFER_BYTES);
        let _ = state.set_recv_buffer_size(UdpSockRef::from(&socket), SOCKET_BUFFER_BYTES);
        let now = Instant::now();
        Ok(Self {
            socket: tokio::net::UdpSocket::from_std(socket)?,
            state,
            endpoint: Endpoint::new(now, config).map_err(io::Error::other)?,
            buffers: vec![0; RECEIVE_RUNS_MAX * RUN_BYTES],
            heard_until: now,
            send_errors: 0,
            holds_last_flight: false,
            oversized: 0,
            receive_errors: 0,
        })
    }

    /// The address the socket is bound to.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The endpoint, for its counters.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The endpoint's counters.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        self.endpoint.stats()
    }

    /// False if the system sets "don't fragment" on what is sent, without which no path MTU can be
    /// found; true on systems that cannot.
    #[must_use]
    pub fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }

    /// Datagrams, or runs of them, that exceed what the interface can send. They count as lost.
    #[must_use]
    pub fn oversized(&self) -> u64 {
        self.oversized
    }

    /// Datagram runs that the kernel refused to send, for other reasons than a full buffer or their
    /// size.
    #[must_use]
    pub fn send_errors(&self) -> u64 {
        self.send_errors
    }

    /// Times that reading the socket failed, mostly for ICMP errors about what was sent.
    #[must_use]
    pub fn receive_errors(&self) -> u64 {
        self.receive_errors
    }

    /// See [`Endpoint::connect`]; the first flight leaves with the next [`flush`](Self::flush) or
    /// [`wait`](Self::wait).
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub fn connect(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        config: Arc<Config>,
    ) -> Result<AssociationId, ConnectError> {
        self.endpoint.connect(now, remote, config)
    }

    /// See [`Endpoint::resume`]; the first flight leaves as with [`connect`](Self::connect).
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub fn resume(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        config: Arc<Config>,
        session: Session,
    ) -> Result<AssociationId, ConnectError> {
        self.endpoint.resume(now, remote, config, session)
    }

    /// See [`Endpoint::send`]; records leave, batched, with the next [`flush`](Self::flush) or
    /// [`wait`](Self::wait).
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn send(
        &mut self,
        _now: Instant,
        id: AssociationId,
        message: &[u8],
    ) -> Result<u64, SendError> {
        self.endpoint.send(id, message)
    }

    /// See [`Endpoint::send_on_path`]; records leave as after [`send`](Self::send). The kernel does
    /// not fragment them ([`may_fragment`](Self::may_fragment)).
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn send_on_path(
        &mut self,
        _now: Instant,
        id: AssociationId,
        message: &[u8],
        fits: usize,
    ) -> Result<u64, SendError> {
        self.endpoint.send_on_path(id, message, fits)
    }

    /// Whether [`wait`](Self::wait) leaves the end of a handshake, and what waits before it, to the next
    /// [`flush`](Self::flush) or `wait` when it returns with events, so that what the application says to
    /// [`Event::Established`] goes with it: one datagram fewer to send and to lose. Not unless this is called; only for who
    /// always goes on to `flush` or `wait`, and soon.
    pub fn hold_last_flight(&mut self, holds: bool) {
        self.holds_last_flight = holds;
    }

    /// See [`Endpoint::set_ecn`].
    pub fn set_ecn(&mut self, id: AssociationId, ecn: Ecn) {
        self.endpoint.set_ecn(id, ecn);
    }

    /// See [`Endpoint::message_size_for`].
    #[must_use]
    pub fn message_size_for(&self, id: AssociationId, datagram_bytes: usize) -> usize {
        self.endpoint.message_size_for(id, datagram_bytes)
    }

    /// See [`Endpoint::next_sequence`].
    #[must_use]
    pub fn next_sequence(&self, id: AssociationId) -> Option<u64> {
        self.endpoint.next_sequence(id)
    }

    /// See [`Endpoint::message_size_max`].
    #[must_use]
    pub fn message_size_max(&self, id: AssociationId) -> usize {
        self.endpoint.message_size_max(id)
    }

    /// See [`Endpoint::set_path_mtu`].
    pub fn set_path_mtu(&mut self, id: AssociationId, bytes: usize) {
        self.endpoint.set_path_mtu(id, bytes);
    }

    /// See [`Endpoint::close`].
    pub fn close(&mut self, _now: Instant, id: AssociationId) {
        self.endpoint.close(id);
    }

    /// See [`Endpoint::stop_serving`].
    pub fn stop_serving(&mut self) {
        self.endpoint.stop_serving();
    }

    /// Closes all associations; [`flush`](Self::flush) sends what they say.
    pub fn shutdown(&mut self, _now: Instant) {
        self.endpoint.close_all();
    }

    /// The oldest event not yet taken.
    pub fn poll_event(&mut self) -> Option<(AssociationId, Event)> {
        self.endpoint.poll_event()
    }

    /// Sends what waits, as far as the kernel takes it at once; the rest leaves in
    /// [`wait`](Self::wait).
    pub fn flush(&mut self) {
        let segments_max = self.state.max_gso_segments().max(1);
        loop {
            // To several at once; whatever is the matter with one, sending it alone tells.
            let outbox = &*self.endpoint.outbox();
            let (socket, send) = (&self.socket, || many::send(&self.socket, outbox, segments_max));
            if let Ok(sent @ 1..) = socket.try_io(Interest::WRITABLE, send) {
                (0..sent).for_each(|_| self.endpoint.outbox().pop());
                continue;
            }
            let Some((transmit, bytes)) = self.endpoint.outbox().front() else { return };
            let segment = transmit.segment_size.unwrap_or(bytes.len());
            let (destination, src_ip) = (transmit.destination, transmit.source);
            let ecn = EcnCodepoint::from_bits(transmit.ecn.bits());
            let run = segment * segments_max;
            let (socket, state) = (&self.socket, &self.state);
            let contents = &bytes[..run.min(bytes.len())];
            let length = contents.len();
            let segment_size = (length > segment).then_some(segment);
            let transmit = quinn_udp::Transmit { destination, ecn, contents, segment_size, src_ip };
            let sent = socket
                .try_io(Interest::WRITABLE, || state.try_send(UdpSockRef::from(socket), &transmit));
            match sent {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                // As on any narrower link of the path, where nobody would say so.
                Err(e) if e.raw_os_error() == Some(EMSGSIZE) => self.oversized += 1,
                Err(error) => {
                    self.send_errors += 1;
                    tracing::debug!(%destination, %error, "datagrams not sent");
                }
            }
            self.endpoint.outbox().advance(length);
        }
    }

    /// True while [`send`](Self::send) does not answer [`SendError::Full`].
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.endpoint.has_room()
    }

    /// Everything that came before this moment was handled, and is in the events. Timers that wait for an answer are
    /// to be run up to here, not up to now: in a burst the answer may be waiting in the kernel. At most
    /// one second ago after [`wait`](Self::wait), however much comes in.
    #[must_use]
    pub fn heard_until(&self) -> Instant {
        self.heard_until
    }

    /// Sends what waits, then sleeps until datagrams came in, a timer ran off or `until` passed,
    /// and handles what there is. Returns at once if events are waiting, and when there is room to
    /// send again. Cancel safe.
    ///
    /// # Errors
    /// What the system says of the socket.
    #[expect(clippy::disallowed_methods, reason = "the driver is where the clock is read")]
    pub async fn wait(&mut self, until: Option<Instant>) -> io::Result<()> {
        let had_room = self.has_room();
        loop {
            // A socket that is always ready must not keep the other tasks from running.
            tokio::task::coop::consume_budget().await;
            self.flush();
            if self.endpoint.has_events() || self.has_room() != had_room {
                return Ok(());
            }
            let timeout = self.endpoint.next_timeout();
            let wake = [timeout, until].into_iter().flatten().min();
            // Who does not want to sleep is not made to ask the runtime, which looks now and then only.
            if wake.is_none_or(|at| at > Instant::now()) {
                let interest = if self.endpoint.outbox().is_empty() {
                    Interest::READABLE
                } else {
                    Interest::READABLE | Interest::WRITABLE
                };
                let ready = self.socket.ready(interest);
                match wake {
                    None => drop(ready.await?),
                    Some(at) => {
                        if let Ok(ready) = tokio::time::timeout_at(at.into(), ready).await {
                            ready?;
                        }
                    }
                }
            }
            let received = self.receive()?;
            let heard = self.heard_until;
            let due = timeout.is_some_and(|at| at <= heard);
            if due {
                self.endpoint.handle_timeout(heard);
            }
            if received || due || until.is_some_and(|at| at <= Instant::now()) {
                let is_held = self.holds_last_flight
                    && self.endpoint.has_events()
                    && self.endpoint.outbox().leaves_room();
                if !is_held {
                    self.flush();
                }
                return Ok(());
            }
        }
    }

    /// Takes what the kernel has, up to a bound; true if there was anything.
    #[expect(clippy::disallowed_methods, reason = "the driver is where the clock is read")]
    fn receive(&mut self) -> io::Result<bool> {
        let mut any = false;
        let mut before = Instant::now();
        for _ in 0..RECEIVE_ROUNDS_MAX {
            let mut metas = [RecvMeta::default(); RECEIVE_RUNS_MAX];
            let mut runs = self.buffers.chunks_exact_mut(RUN_BYTES);
            let mut slices: [IoSliceMut<'_>; RECEIVE_RUNS_MAX] =
                std::array::from_fn(|_| IoSliceMut::new(runs.next().unwrap_or_default()));
            let received = receive_runs(&self.socket, &self.state, &mut slices, &mut metas);
            let count = match received {
                Ok(count) => count,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.heard_until = before;
                    break;
                }
                // The socket itself is unusable.
                Err(e) if matches!(e.raw_os_error(), Some(EBADF | ENOTSOCK)) => return Err(e),
                // An ICMP error for something sent earlier, or want of memory: it passes.
                Err(error) => {
                    self.receive_errors += 1;
                    tracing::debug!(%error, "nothing received");
                    break;
                }
            };
            any = true;
            let now = Instant::now();
            for (meta, run) in
                metas.iter().zip(self.buffers.chunks_exact_mut(RUN_BYTES)).take(count)
            {
                let path = Path { remote: meta.addr, local: meta.dst_ip };
                // The kernel joins only what is marked alike.
                let ecn = meta.ecn.map_or(Ecn::NotEct, |ecn| Ecn::from_bits(ecn as u8));
                for datagram in run[..meta.len].chunks_mut(meta.stride.max(1)) {
                    self.endpoint.handle_marked_datagram(now, path, ecn, datagram);
                }
            }
            if count < RECEIVE_RUNS_MAX {
                self.heard_until = before;
                break;
            }
            before = now;
        }
        if let Some(longest_ago) = before.checked_sub(HEARD_LAG_MAX) {
            self.heard_until = self.heard_until.max(longest_ago);
        }
        Ok(any)
    }
}

/// One call to the kernel, whether or not the runtime has heard already that there is something: it looks now and then
/// only while tasks are busy.
fn receive_runs(
    socket: &tokio::net::UdpSocket,
    state: &UdpSocketState,
    slices: &mut [IoSliceMut<'_>],
    metas: &mut [RecvMeta],
) -> io::Result<usize> {
    let mut is_asked = false;
    let received = socket.try_io(Interest::READABLE, || {
        is_asked = true;
        state.recv(UdpSockRef::from(socket), slices, metas)
    });
    match received {
        Err(e) if e.kind() == io::ErrorKind::WouldBlock && !is_asked => {
            state.recv(UdpSockRef::from(socket), slices, metas)
        }
        received => received,
    }
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver")
            .field("socket", &self.socket)
            .field("associations", &self.endpoint.associations())
            .finish_non_exhaustive()
    }
}
