//! Records from server to client over loopback sockets, both ends on one thread.

use std::io::IoSliceMut;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Instant;

use channel_benches::{identity, ours};
use dtls_channel::{AssociationId, Driver, EndpointConfig, Event};
use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use tokio::runtime::{Builder, Runtime};

/// Of a record on the wire: header and explicit nonce before its content, the tag after it.
const HEAD_BYTES: usize = 13 + 8;
const TAG_BYTES: usize = 16;
/// What the kernel takes in one segmented send.
const RUN_BYTES_MAX: usize = 65_000;
const RECEIVE_RUNS_MAX: usize = 16;
const RECEIVE_RUN_BYTES: usize = 64 * 1024;

/// An address of loopback that is this process's own, as one address has no ports for everybody.
pub(crate) fn loopback() -> SocketAddr {
    let [.., high, low] = std::process::id().to_be_bytes();
    (Ipv4Addr::new(127, high, low, 1), 0).into()
}

/// Two of our drivers with an association.
pub(crate) struct Stream {
    runtime: Runtime,
    client: Driver,
    server: Driver,
    to_client: AssociationId,
    message: Vec<u8>,
}

impl Stream {
    pub(crate) fn new(bytes: usize) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let entered = runtime.enter();
        let (at_client, at_server) = (identity(), identity());
        let serving = Some(Arc::new(ours::config(&at_server, None)));
        let serving = EndpointConfig { server: serving, ..EndpointConfig::default() };
        let mut server = Driver::bind(loopback(), serving).expect("a socket");
        let mut client = Driver::bind(loopback(), EndpointConfig::default()).expect("a socket");
        let remote = server.local_addr().expect("bound");
        let config = Arc::new(ours::config(&at_client, Some(&at_server)));
        client.connect(Instant::now(), remote, config).expect("room");
        drop(entered);
        let mut to_client = None;
        let mut is_open = false;
        runtime.block_on(async {
            client.flush();
            while to_client.is_none() || !is_open {
                tokio::select! {
                    done = client.wait(None) => done.expect("a socket"),
                    done = server.wait(None) => done.expect("a socket"),
                }
                while let Some((_, event)) = client.poll_event() {
                    is_open |= matches!(event, Event::Established(_));
                }
                while let Some((id, _)) = server.poll_event() {
                    to_client = Some(id);
                }
            }
        });
        let to_client = to_client.expect("open");
        Self { runtime, client, server, to_client, message: vec![7; bytes] }
    }

    /// `burst` at a time.
    pub(crate) fn pass(&mut self, count: u32, burst: u32) {
        let Self { runtime, client, server, to_client, message } = self;
        runtime.block_on(async {
            let (mut sent, mut received) = (0, 0);
            while received < count {
                let now = Instant::now();
                while sent < count && sent - received < burst {
                    server.send(now, *to_client, message).expect("open, and fits");
                    sent += 1;
                }
                server.flush();
                while received < sent {
                    client.wait(None).await.expect("a socket");
                    while let Some((_, event)) = client.poll_event() {
                        match event {
                            Event::Message { data, .. } if data.len() == message.len() => {
                                received += 1;
                            }
                            other => panic!("{other:?}"),
                        }
                    }
                }
            }
        });
    }
}

/// Sealing, sending, receiving and opening, and nothing else.
pub(crate) struct Floor {
    key: LessSafeKey,
    sockets: [(UdpSocket, UdpSocketState); 2],
    to: SocketAddr,
    next: u64,
    message: Vec<u8>,
    out: Vec<u8>,
    buffers: Vec<u8>,
}

impl Floor {
    pub(crate) fn new(bytes: usize) -> Self {
        let socket = || {
            let socket = UdpSocket::bind(loopback()).expect("a socket");
            let state = UdpSocketState::new(UdpSockRef::from(&socket)).expect("its options");
            let _ = state.set_recv_buffer_size(UdpSockRef::from(&socket), 4 << 20);
            (socket, state)
        };
        let sockets = [socket(), socket()];
        Self {
            key: LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &[7; 16]).expect("16 bytes")),
            to: sockets[1].0.local_addr().expect("bound"),
            sockets,
            next: 0,
            message: vec![7; bytes],
            out: Vec::new(),
            buffers: vec![0; RECEIVE_RUNS_MAX * RECEIVE_RUN_BYTES],
        }
    }

    fn nonce(number: u64) -> Nonce {
        let mut nonce = [9; 12];
        nonce[4..].copy_from_slice(&number.to_be_bytes());
        Nonce::assume_unique_for_key(nonce)
    }

    pub(crate) fn pass(&mut self, count: u32, burst: u32) {
        let record = HEAD_BYTES + self.message.len() + TAG_BYTES;
        let mut left = count;
        while left > 0 {
            let now = left.min(burst);
            left -= now;
            self.out.clear();
            for _ in 0..now {
                let start = self.out.len();
                self.out.extend_from_slice(&[0; HEAD_BYTES]);
                self.out[start + 13..].copy_from_slice(&self.next.to_be_bytes());
                self.out.extend_from_slice(&self.message);
                let (nonce, aad) = (Self::nonce(self.next), Aad::from([7; 13]));
                let content = &mut self.out[start + HEAD_BYTES..];
                let tag = self.key.seal_in_place_separate_tag(nonce, aad, content);
                self.out.extend_from_slice(tag.expect("sealed").as_ref());
                self.next += 1;
            }
            let (socket, state) = &self.sockets[0];
            let run = record * state.max_gso_segments().min(RUN_BYTES_MAX / record).max(1);
            for contents in self.out.chunks(run) {
                let segment_size = (contents.len() > record).then_some(record);
                let (destination, src_ip) = (self.to, None);
                let transmit = Transmit { destination, ecn: None, contents, segment_size, src_ip };
                state.try_send(UdpSockRef::from(socket), &transmit).expect("sent");
            }
            self.receive(now, record);
        }
    }

    fn receive(&mut self, count: u32, record: usize) {
        let (socket, state) = &self.sockets[1];
        let mut left = count;
        while left > 0 {
            let mut metas = [RecvMeta::default(); RECEIVE_RUNS_MAX];
            let mut runs = self.buffers.chunks_exact_mut(RECEIVE_RUN_BYTES);
            let mut slices: [IoSliceMut<'_>; RECEIVE_RUNS_MAX] =
                std::array::from_fn(|_| IoSliceMut::new(runs.next().unwrap_or_default()));
            let got =
                state.recv(UdpSockRef::from(socket), &mut slices, &mut metas).expect("datagrams");
            let runs = self.buffers.chunks_exact_mut(RECEIVE_RUN_BYTES);
            for (meta, run) in metas.iter().zip(runs).take(got) {
                for datagram in run[..meta.len].chunks_exact_mut(meta.stride) {
                    assert_eq!(datagram.len(), record);
                    let (head, sealed) = datagram.split_at_mut(HEAD_BYTES);
                    let number = u64::from_be_bytes(head[13..].try_into().expect("eight bytes"));
                    let (nonce, aad) = (Self::nonce(number), Aad::from([7; 13]));
                    let plain = self.key.open_in_place(nonce, aad, sealed).expect("authentic");
                    assert_eq!(plain.len(), self.message.len());
                    left -= 1;
                }
            }
        }
    }
}
