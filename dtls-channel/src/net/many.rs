//! Datagrams to many destinations with one system call.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, RawFd};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::sys::socket::{
    ControlMessage, MsgFlags, MultiHeaders, SockaddrIn, SockaddrIn6, SockaddrLike, sendmmsg,
};

use crate::ecn::Ecn;
use crate::outbox::{Outbox, Transmit};

/// Transmissions in one call.
pub(super) const BATCH_MAX: usize = 64;

/// What the kernel wants to be given for a call. It is kept: nothing is allocated for a record.
struct Headers<S> {
    /// By what the messages say besides their bytes, see [`Extras::shape`].
    by_shape: [Option<MultiHeaders<S>>; SHAPES],
}

impl<S> Headers<S> {
    const fn new() -> Self {
        Self { by_shape: [const { None }; SHAPES] }
    }
}

// They hold pointers, which are set anew for each call, and so cannot go from thread to thread.
thread_local! {
    static V4: RefCell<Headers<SockaddrIn>> = const { RefCell::new(Headers::new()) };
    static V6: RefCell<Headers<SockaddrIn6>> = const { RefCell::new(Headers::new()) };
}

/// What all messages of a call have in common.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Extras {
    source: Option<IpAddr>,
    segment_size: Option<u16>,
    mark: Option<Mark>,
}

/// ECN in the IP header, by the version of IP.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    V4(Ecn),
    V6(Ecn),
}

impl Mark {
    /// Without one, the kernel writes [`Ecn::NotEct`].
    fn of(transmit: &Transmit) -> Option<Self> {
        let ecn = transmit.ecn;
        // An IPv4 address may come as one of IPv6.
        let v4 = transmit.destination.ip().to_canonical().is_ipv4();
        (ecn != Ecn::NotEct).then_some(if v4 { Self::V4(ecn) } else { Self::V6(ecn) })
    }
}

const SHAPES: usize = 18;

impl Extras {
    /// `None` if the kernel would have to be asked in parts.
    fn of(transmit: &Transmit, segments_max: usize) -> Option<Self> {
        let segment_size = transmit.segment_size.filter(|size| transmit.length > *size);
        if segment_size.is_some_and(|size| transmit.length.div_ceil(size) > segments_max) {
            return None;
        }
        let segment_size = segment_size.map(u16::try_from).transpose().ok()?;
        Some(Self { source: transmit.source, segment_size, mark: Mark::of(transmit) })
    }

    fn shape(&self) -> usize {
        let source = match self.source {
            None => 0,
            Some(IpAddr::V4(_)) => 1,
            Some(IpAddr::V6(_)) => 2,
        };
        let mark = match self.mark {
            None => 0,
            Some(Mark::V4(_)) => 1,
            Some(Mark::V6(_)) => 2,
        };
        6 * mark + 2 * source + usize::from(self.segment_size.is_some())
    }

    fn headers<S: SockaddrLike + Copy>(&self) -> MultiHeaders<S> {
        let source = match self.source {
            None => Vec::new(),
            Some(IpAddr::V4(_)) => cmsg_space!(in_pktinfo),
            Some(IpAddr::V6(_)) => cmsg_space!(in6_pktinfo),
        };
        let segments = if self.segment_size.is_some() { cmsg_space!(u16) } else { Vec::new() };
        let mark = match self.mark {
            None => Vec::new(),
            Some(Mark::V4(_)) => cmsg_space!(u8),
            Some(Mark::V6(_)) => cmsg_space!(i32),
        };
        let space = [source, segments, mark].concat();
        MultiHeaders::preallocate(BATCH_MAX, (!space.is_empty()).then_some(space))
    }
}

/// Sends from the front of the outbox what goes into one call; says how many transmissions left.
/// 0 if the first is to be sent alone. `segments_max` is how many datagrams the kernel takes as one
/// run.
///
/// # Errors
/// What the system says of the first one.
pub(super) fn send(
    socket: &impl AsRawFd,
    outbox: &Outbox,
    segments_max: usize,
) -> io::Result<usize> {
    let mut waiting = outbox.iter();
    let Some((first, _)) = waiting.next() else { return Ok(0) };
    let Some(extras) = Extras::of(first, segments_max) else { return Ok(0) };
    if waiting.next().is_none_or(|(next, _)| Extras::of(next, segments_max) != Some(extras)) {
        return Ok(0);
    }
    let batch = || {
        let like_first = move |transmit: &Transmit| {
            Extras::of(transmit, segments_max) == Some(extras)
                && transmit.destination.is_ipv4() == first.destination.is_ipv4()
        };
        outbox.iter().take(BATCH_MAX).take_while(move |(transmit, _)| like_first(transmit))
    };
    let fd = socket.as_raw_fd();
    let sent = match first.destination {
        SocketAddr::V4(_) => V4.with_borrow_mut(|headers| {
            let address = |address: &SocketAddr| match address {
                SocketAddr::V4(v4) => Some(v4_address(*v4)),
                SocketAddr::V6(_) => None,
            };
            send_batch(fd, headers, extras, batch(), address)
        }),
        SocketAddr::V6(_) => V6.with_borrow_mut(|headers| {
            let address = |address: &SocketAddr| match address {
                SocketAddr::V6(v6) => Some(v6_address(*v6)),
                SocketAddr::V4(_) => None,
            };
            send_batch(fd, headers, extras, batch(), address)
        }),
    };
    sent.map_err(io::Error::from)
}

fn v4_address(address: SocketAddrV4) -> SockaddrIn {
    address.into()
}

fn v6_address(address: SocketAddrV6) -> SockaddrIn6 {
    address.into()
}

fn send_batch<'a, S: SockaddrLike + Copy>(
    fd: RawFd,
    headers: &mut Headers<S>,
    extras: Extras,
    batch: impl Iterator<Item = (&'a Transmit, &'a [u8])>,
    address: impl Fn(&SocketAddr) -> Option<S>,
) -> Result<usize, Errno> {
    let mut slices = [[IoSlice::new(&[])]; BATCH_MAX];
    let mut addresses: [Option<S>; BATCH_MAX] = [None; BATCH_MAX];
    let mut count = 0;
    for (n, (transmit, bytes)) in batch.enumerate() {
        slices[n] = [IoSlice::new(bytes)];
        addresses[n] = address(&transmit.destination);
        count = n + 1;
    }
    let (slices, addresses) = (&slices[..count], &addresses[..count]);
    let data = headers.by_shape[extras.shape()].get_or_insert_with(|| extras.headers());
    let segment_size = extras.segment_size.unwrap_or_default();
    let segments = ControlMessage::UdpGsoSegments(&segment_size);
    // An interface of 0 leaves that to the kernel.
    let mut from_v4 = in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: in_addr { s_addr: 0 },
        ipi_addr: in_addr { s_addr: 0 },
    };
    let mut from_v6 = in6_pktinfo { ipi6_addr: in6_addr { s6_addr: [0; 16] }, ipi6_ifindex: 0 };
    match extras.source {
        Some(IpAddr::V4(v4)) => from_v4.ipi_spec_dst.s_addr = u32::from_ne_bytes(v4.octets()),
        Some(IpAddr::V6(v6)) => from_v6.ipi6_addr.s6_addr = v6.octets(),
        None => {}
    }
    let from = match extras.source {
        Some(IpAddr::V6(_)) => ControlMessage::Ipv6PacketInfo(&from_v6),
        Some(IpAddr::V4(_)) | None => ControlMessage::Ipv4PacketInfo(&from_v4),
    };
    let (ecn_v4, ecn_v6) = match extras.mark {
        Some(Mark::V4(ecn) | Mark::V6(ecn)) => (ecn.bits(), i32::from(ecn.bits())),
        None => (0, 0),
    };
    let mark = match extras.mark {
        Some(Mark::V6(_)) => ControlMessage::Ipv6TClass(&ecn_v6),
        Some(Mark::V4(_)) | None => ControlMessage::Ipv4Tos(&ecn_v4),
    };
    let all = [
        extras.source.map(|_| from),
        extras.segment_size.map(|_| segments),
        extras.mark.map(|_| mark),
    ];
    let mut messages = [segments; 3];
    let mut count = 0;
    for message in all.into_iter().flatten() {
        messages[count] = message;
        count += 1;
    }
    let sent = sendmmsg(fd, data, slices, addresses, &messages[..count], MsgFlags::empty());
    sent.map(Iterator::count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Path;
    use std::net::UdpSocket;
    use std::time::Duration;

    /// As [`super::send`] with as many segments as the kernel takes.
    fn sent(socket: &UdpSocket, outbox: &Outbox) -> usize {
        send(socket, outbox, 64).unwrap()
    }

    fn receivers(at: &str, count: usize) -> Vec<UdpSocket> {
        let receiver = |_| {
            let socket = UdpSocket::bind(at).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            socket
        };
        (0..count).map(receiver).collect()
    }

    fn path(to: &UdpSocket, from: Option<&str>) -> Path {
        Path { remote: to.local_addr().unwrap(), local: from.map(|ip| ip.parse().unwrap()) }
    }

    #[test]
    fn messages_of_every_shape_leave_in_one_call_and_arrive_from_where_they_should() {
        let cases = [
            ("127.0.0.1:0", "127.0.0.1:0", None),
            ("127.0.0.1:0", "127.0.0.1:0", Some("127.0.0.1")),
            ("0.0.0.0:0", "127.0.0.1:0", Some("127.0.0.3")),
            ("[::1]:0", "[::1]:0", None),
            ("[::]:0", "[::1]:0", Some("::1")),
        ];
        for (bound, at, from) in cases {
            for (pieces, ecn) in
                [(1, Ecn::NotEct), (1, Ecn::Ect0), (3, Ecn::NotEct), (3, Ecn::Ect0)]
            {
                let socket = UdpSocket::bind(bound).unwrap();
                let receivers = receivers(at, BATCH_MAX);
                let mut outbox = Outbox::default();
                for (n, receiver) in receivers.iter().enumerate() {
                    for _ in 0..pieces {
                        let write = |out: &mut Vec<u8>| out.extend([n as u8; 100]);
                        outbox.datagram(path(receiver, from), ecn, write);
                    }
                }
                assert_eq!(sent(&socket, &outbox), BATCH_MAX, "{bound} {from:?} {pieces}");
                for (n, receiver) in receivers.iter().enumerate() {
                    for _ in 0..pieces {
                        let mut buffer = [0; 200];
                        let (length, source) = receiver.recv_from(&mut buffer).unwrap();
                        assert_eq!(buffer[..length], [n as u8; 100]);
                        assert!(from.is_none_or(|ip| source.ip().to_string() == ip));
                    }
                }
            }
        }
    }

    #[test]
    fn what_differs_from_the_first_waits_for_another_call() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = receivers("127.0.0.1:0", 4);
        let fill = |outbox: &mut Outbox, n: usize, from| {
            outbox.datagram(path(&to[n], from), Ecn::NotEct, |out| out.extend([7; 10]));
        };
        let local = Some("127.0.0.1");
        let mut outbox = Outbox::default();
        assert_eq!(sent(&socket, &outbox), 0);
        fill(&mut outbox, 0, None);
        assert_eq!(sent(&socket, &outbox), 0, "one alone");
        fill(&mut outbox, 1, None);
        fill(&mut outbox, 2, local);
        fill(&mut outbox, 3, local);
        assert_eq!(sent(&socket, &outbox), 2, "from elsewhere");
        (0..2).for_each(|_| outbox.pop());
        // The last becomes a run of two, and is cut from the one before it.
        fill(&mut outbox, 3, local);
        assert_eq!(sent(&socket, &outbox), 0, "one, then a run");
    }

    #[test]
    fn what_is_marked_otherwise_than_the_first_waits_for_another_call() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = receivers("127.0.0.1:0", 4);
        let mut outbox = Outbox::default();
        for (to, ecn) in to.iter().zip([Ecn::NotEct, Ecn::NotEct, Ecn::Ect0, Ecn::Ect0]) {
            outbox.datagram(path(to, None), ecn, |out| out.extend([7; 10]));
        }
        assert_eq!(sent(&socket, &outbox), 2);
        (0..2).for_each(|_| outbox.pop());
        assert_eq!(sent(&socket, &outbox), 2);
    }
}
