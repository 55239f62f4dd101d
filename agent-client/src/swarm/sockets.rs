//! The agents' sockets, one each. A run of datagrams comes, and leaves, with one system call: otherwise the kernel
//! takes runs apart at their receiver, which on one machine is at the server's expense.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use anyhow::anyhow;
use nix::cmsg_space;
use nix::sys::socket::sockopt::UdpGroSegment;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg, setsockopt,
};
use rustix::event::epoll::{self, EventData, EventFlags};

/// What a run may be long.
const RUN_BYTES_MAX: usize = 65_536;

/// The agents' sockets.
pub(super) struct Sockets {
    epoll: OwnedFd,
    sockets: Vec<Option<UdpSocket>>,
    server: SocketAddr,
    locals: Vec<IpAddr>,
    /// Why a socket could not be had.
    refusal: Option<io::Error>,
    buffer: Vec<u8>,
    control: Vec<u8>,
}

/// Datagrams that came one after the other.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Run<'a> {
    pub(super) bytes: &'a mut [u8],
    /// How long each of them is; the last may be shorter.
    pub(super) size: usize,
}

impl Run<'_> {
    /// Whether it may go on: a run ends with a shorter datagram, as what is sent in several does.
    pub(super) fn may_go_on(&self, large: usize) -> bool {
        self.size >= large && self.bytes.len().is_multiple_of(self.size)
    }
}

impl Sockets {
    /// None yet. `epoll` is told of each, with the agent's number.
    pub(super) fn new(
        epoll: OwnedFd,
        agents: usize,
        server: SocketAddr,
        locals: Vec<IpAddr>,
    ) -> Self {
        Self {
            epoll,
            sockets: (0..agents).map(|_| None).collect(),
            server,
            locals,
            refusal: None,
            buffer: vec![0; RUN_BYTES_MAX],
            control: cmsg_space!(i32),
        }
    }

    pub(super) fn epoll(&self) -> &OwnedFd {
        &self.epoll
    }

    /// What has come by an agent's socket, if anything has.
    pub(super) fn receive(&mut self, agent: u32) -> Option<Run<'_>> {
        let socket = self.sockets.get(agent as usize)?.as_ref()?;
        let mut slices = [IoSliceMut::new(&mut self.buffer)];
        let control = Some(&mut self.control[..]);
        let received = recvmsg::<()>(socket.as_raw_fd(), &mut slices, control, MsgFlags::empty());
        // An error is one about what was sent, such as that nobody listens; the next call tells more.
        let received = received.ok()?;
        let told = received.cmsgs().ok().and_then(|mut told| {
            told.find_map(|message| match message {
                ControlMessageOwned::UdpGroSegments(bytes) => usize::try_from(bytes).ok(),
                _ => None,
            })
        });
        let length = received.bytes;
        let size = told.unwrap_or(length).max(1);
        Some(Run { bytes: self.buffer.get_mut(..length)?, size })
    }

    /// Sends datagrams of an agent, each of `size` bytes but for the last, which may be shorter; by a new socket if it
    /// has none.
    pub(super) fn send(&mut self, agent: u32, run: &[u8], size: usize) {
        let Some(slot) = self.sockets.get_mut(agent as usize) else { return };
        let socket = match slot {
            Some(socket) => socket,
            None => match open(&self.epoll, self.server, &self.locals, agent) {
                Ok(socket) => slot.insert(socket),
                Err(error) => {
                    self.refusal = Some(error);
                    return;
                }
            },
        };
        // Where the kernel cannot take a run, it takes its datagrams.
        if run.len() <= size || !send_run(socket, run, size) {
            run.chunks(size).for_each(|datagram| send(socket, datagram));
        }
    }

    pub(super) fn close(&mut self, agent: u32) {
        if let Some(slot) = self.sockets.get_mut(agent as usize) {
            *slot = None;
        }
    }

    /// # Errors
    /// A socket could not be had: what follows would be no measurement.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        let Some(error) = self.refusal.take() else { return Ok(()) };
        let hint = match error.kind() {
            ErrorKind::AddrInUse | ErrorKind::AddrNotAvailable => {
                "; an address has some 28,000 ports: give several, such as --local 127.0.0.1-127.0.0.8"
            }
            _ => "",
        };
        Err(anyhow!(error).context(format!("opening a socket for an agent failed{hint}")))
    }
}

/// The first error may be one about what was sent before. What is not sent is lost, as on any link.
fn send(socket: &UdpSocket, datagram: &[u8]) {
    if socket.send(datagram).is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused) {
        let _ = socket.send(datagram);
    }
}

/// Whether that was possible.
fn send_run(socket: &UdpSocket, run: &[u8], size: usize) -> bool {
    let Ok(size) = u16::try_from(size) else { return false };
    let segments = [ControlMessage::UdpGsoSegments(&size)];
    let slices = [IoSlice::new(run)];
    let to_server: Option<&()> = None;
    sendmsg(socket.as_raw_fd(), &slices, &segments, MsgFlags::empty(), to_server).is_ok()
}

fn open(
    epoll: &OwnedFd,
    server: SocketAddr,
    locals: &[IpAddr],
    agent: u32,
) -> io::Result<UdpSocket> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let local = locals.get(agent as usize % locals.len().max(1)).copied().unwrap_or(any);
    let socket = UdpSocket::bind((local, 0))?;
    socket.connect(server)?;
    socket.set_nonblocking(true)?;
    // Kernels before 5.0 hand out datagrams one by one.
    let _ = setsockopt(&socket, UdpGroSegment, &true);
    epoll::add(epoll, socket.as_fd(), EventData::new_u64(agent.into()), EventFlags::IN)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::event::epoll::CreateFlags;

    use super::*;

    /// A server's socket, and those of one agent that has said `hello` to it, by an address that is the second.
    fn pair() -> (UdpSocket, SocketAddr, Sockets) {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let epoll = epoll::create(CreateFlags::CLOEXEC).unwrap();
        let mut agents = Sockets::new(epoll, 1, server.local_addr().unwrap(), Vec::new());
        agents.send(0, b"hello", 5);
        let (length, agent) = server.recv_from(&mut [0; 16]).unwrap();
        assert_eq!(length, 5);
        (server, agent, agents)
    }

    #[test]
    fn a_run_of_datagrams_comes_as_one_with_the_size_of_each() {
        let (server, agent, mut agents) = pair();
        assert_eq!(agents.receive(0), None);
        server.connect(agent).unwrap();
        let sent: Vec<u8> = (0..2_500u32).map(|n| n as u8).collect();
        assert!(send_run(&server, &sent, 1_200), "the kernel takes runs");
        let run = agents.receive(0).unwrap();
        assert_eq!((&*run.bytes, run.size), (&sent[..], 1_200));
        assert!(!run.may_go_on(1_000), "its last datagram is short");
        server.send(&sent[..1_300]).unwrap();
        let run = agents.receive(0).unwrap();
        assert_eq!((&*run.bytes, run.size), (&sent[..1_300], 1_300));
        assert!(run.may_go_on(1_000));
        assert_eq!(agents.receive(0), None);
    }

    #[test]
    fn what_an_agent_sends_as_a_run_arrives_as_datagrams() {
        let (server, agent, mut agents) = pair();
        let sent: Vec<u8> = (0..2_500u32).map(|n| n as u8).collect();
        agents.send(0, &sent, 1_000);
        for datagram in sent.chunks(1_000) {
            let mut came = [0; 2_000];
            let (length, from) = server.recv_from(&mut came).unwrap();
            assert_eq!((&came[..length], from), (datagram, agent));
        }
        // More of them than a run may have.
        agents.send(0, &sent, 10);
        for datagram in sent.chunks(10) {
            let mut came = [0; 20];
            let length = server.recv(&mut came).unwrap();
            assert_eq!(&came[..length], datagram);
        }
    }
}
