use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;

use crate::crypto::{CipherSuite, Exporter, Group};
use crate::ecn::Ecn;
use crate::error::CloseReason;
use crate::record::ConnectionId;
use crate::resumption::Session;

/// Names one association of an [`Endpoint`](crate::Endpoint); never given out twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AssociationId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl AssociationId {
    /// The name of a [`Connection`](crate::Connection) that is driven by itself, outside any
    /// [`Endpoint`](crate::Endpoint).
    pub const STANDALONE: Self = Self { index: 0, generation: 0 };

    /// A small number that no two associations have at the same time, fit to index a table.
    #[must_use]
    pub fn index(self) -> usize {
        self.index as usize
    }
}

impl std::fmt::Display for AssociationId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.index, self.generation)
    }
}

/// Between which addresses datagrams travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Path {
    /// The peer's address.
    pub remote: SocketAddr,
    /// Our own address, where the socket has several and the kernel told: answers must leave from
    /// the address that was asked.
    pub local: Option<IpAddr>,
}

impl Path {
    /// True if both lead to the same address of the peer.
    pub(crate) fn has_same_remote(&self, other: &Self) -> bool {
        canonical(self.remote) == canonical(other.remote)
    }
}

/// One name for each address: a dual-stack socket shows IPv4 peers as mapped IPv6 ones, and flow
/// labels and scopes come and go.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

impl From<SocketAddr> for Path {
    fn from(remote: SocketAddr) -> Self {
        Self { remote, local: None }
    }
}

/// Something that happened to an association.
#[non_exhaustive]
pub enum Event {
    /// Both sides have proved their keys and agree on the handshake.
    Established(Box<Established>),
    /// A message from the peer, authenticated and never delivered twice; order is not kept.
    Message {
        /// The record's sequence number.
        sequence: u64,
        /// What the peer sent. It shares its storage with its neighbours: copy what is kept for long.
        data: Bytes,
        /// What the IP header of its datagram said, which nothing protects.
        ecn: Ecn,
    },
    /// The peer has another address from here on (RFC 9146 §6): what is known of the path to it may
    /// no longer hold.
    PathChanged {
        /// Where it was.
        old: SocketAddr,
        /// Where it is.
        new: SocketAddr,
    },
    /// The association has ended; its id means nothing any more.
    Closed(CloseReason),
}

impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Established(established) => {
                f.debug_tuple("Established").field(established).finish()
            }
            Self::Message { sequence, data, ecn } => {
                write!(f, "Message {{ sequence: {sequence}, {} bytes, {ecn:?} }}", data.len())
            }
            Self::PathChanged { old, new } => write!(f, "PathChanged {{ {old} to {new} }}"),
            Self::Closed(reason) => f.debug_tuple("Closed").field(reason).finish(),
        }
    }
}

/// What was agreed when an association opened.
#[derive(Debug)]
#[non_exhaustive]
pub struct Established {
    /// The peer's certificate, in DER, as far as it is known here: its key's possession is proved,
    /// nothing else. `None` at a server if the association was resumed (the ticket holds the
    /// fingerprint alone), and wherever `peer_fingerprint` is `None`.
    pub peer_certificate: Option<Vec<u8>>,
    /// SHA-256 of the peer's certificate: who it is, in every kind of handshake. `None` only at a
    /// server whose [`ClientCertificate`](crate::ClientCertificate) admits a client without one.
    pub peer_fingerprint: Option<[u8; 32]>,
    /// Derives keys bound to this association; use it, then drop it. Without the
    /// [`extended_master_secret`](Self::extended_master_secret), which only a setting brings about,
    /// what it derives must not serve to authenticate anybody (RFC 7627 §5.4).
    pub exporter: Exporter,
    /// The peer's address.
    pub remote: SocketAddr,
    /// True if the peer connected to us.
    pub incoming: bool,
    /// The cipher suite.
    pub suite: CipherSuite,
    /// The key exchange group; `None` if the association was resumed, which takes no key exchange.
    pub group: Option<Group>,
    /// One round trip of the handshake, the peer's computing included; `None` if every flight had to
    /// be repeated, so that nothing can be told.
    pub round_trip: Option<Duration>,
    /// True if the handshake resumed an earlier association's session.
    pub resumed: bool,
    /// At a client to which the server gave a ticket: what the next association can begin with. It
    /// takes the place of an older one. `None` after a resumption that brought no new ticket; the one
    /// that was used can then be used again.
    pub session: Option<Session>,
    /// True unless a setting admitted a peer without the extended master secret.
    pub extended_master_secret: bool,
    /// The connection ids that records carry; `None` if they were not agreed on.
    pub connection_id: Option<ConnectionIds>,
}

/// The connection ids of an association (RFC 9146), one for each direction. An empty one means that
/// records of that direction carry none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionIds {
    /// On the peer's records, to us.
    pub ours: ConnectionId,
    /// On our records, to the peer.
    pub theirs: ConnectionId,
    /// True if both sides can check whether the other is where its records come from (RFC 9853).
    pub return_routability: bool,
}

/// How far an association is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Keys are being agreed on.
    Handshaking,
    /// Messages can flow.
    Open,
    /// Over.
    Closed,
}

/// What an association waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimerKind {
    /// The flight is sent again.
    FlightResend,
    /// The handshake is given up.
    HandshakeGiveUp,
    /// The peer's unauthenticated alert is believed.
    AlertGrace,
    /// The flight that ended the handshake is forgotten.
    LastFlight,
    /// A return routability check goes on or ends.
    PathCheck,
}
