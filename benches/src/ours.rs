//! Two of our endpoints in memory.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use certs::Identity;
use dtls_channel::testing::AcceptAnyone;
use dtls_channel::{
    AssociationId, CipherSuite, Config, Credentials, Endpoint, EndpointConfig, Event, PeerRefused,
    PeerVerifier, Session, TicketKeys,
};

use crate::{MTU, identity};

const SERVER: ([u8; 4], u16) = ([192, 0, 2, 1], 4_433);
const CLIENT: ([u8; 4], u16) = ([198, 51, 100, 1], 50_000);

/// A client's and a server's endpoint that pass datagrams to each other.
#[derive(Debug)]
pub struct Pair {
    client: Endpoint,
    server: Endpoint,
    config: Arc<Config>,
    /// As `config`, but it asks for a ticket.
    asking: Arc<Config>,
    buffer: Vec<u8>,
    now: Instant,
}

/// An open association, as its two ends name it.
#[derive(Debug, Clone, Copy)]
pub struct Open {
    /// At the client.
    pub client: AssociationId,
    /// At the server.
    pub server: AssociationId,
}

struct Pin(Vec<u8>);

impl PeerVerifier for Pin {
    fn verify(&self, certificate_der: &[u8]) -> Result<(), PeerRefused> {
        if certificate_der == self.0 {
            return Ok(());
        }
        Err(PeerRefused("not pinned".into()))
    }
}

/// The configuration of `own`'s end, AES-128-GCM only; with `peer` it talks to that one alone.
///
/// # Panics
/// If an identity is not one of ours.
#[must_use]
pub fn config(own: &Identity, peer: Option<&Identity>) -> Config {
    let credentials = Credentials::from_der(own.certificate_der().to_vec(), own.pkcs8());
    let verifier: Arc<dyn PeerVerifier> = match peer {
        Some(peer) => Arc::new(Pin(peer.certificate_der().to_vec())),
        // As in our server, which looks the fingerprint up afterwards.
        None => Arc::new(AcceptAnyone),
    };
    let config = Config::new(credentials.expect("our own identity"), verifier);
    config.with_suites(&[CipherSuite::Aes128GcmSha256]).with_mtu(MTU)
}

impl Default for Pair {
    fn default() -> Self {
        Self::new()
    }
}

impl Pair {
    /// Two endpoints with fresh identities.
    ///
    /// # Panics
    /// If the system's random generator fails.
    #[must_use]
    pub fn new() -> Self {
        let (client, server) = (identity(), identity());
        let now = Instant::now();
        let endpoint = |config| Endpoint::new(now, config).expect("randomness");
        let keys = Arc::new(TicketKeys::random().expect("randomness"));
        let serving = config(&server, None).with_ticket_keys(keys, Duration::from_secs(3_600));
        let serving = Some(Arc::new(serving));
        let config = config(&client, Some(&server));
        Self {
            client: endpoint(EndpointConfig::default()),
            server: endpoint(EndpointConfig { server: serving, ..EndpointConfig::default() }),
            asking: Arc::new(config.clone().asking_for_tickets()),
            config: Arc::new(config),
            buffer: Vec::with_capacity(2 * MTU),
            now,
        }
    }

    /// A whole handshake, cookie exchange and mutual authentication included.
    ///
    /// # Panics
    /// If it fails.
    pub fn handshake(&mut self) -> Open {
        self.now = Instant::now();
        let config = self.config.clone();
        let client = self.client.connect(self.now, SERVER.into(), config).expect("room");
        self.finish(client).0
    }

    /// What a full handshake leaves behind to be resumed.
    ///
    /// # Panics
    /// If it fails.
    pub fn session(&mut self) -> Session {
        self.now = Instant::now();
        let config = self.asking.clone();
        let client = self.client.connect(self.now, SERVER.into(), config).expect("room");
        let (open, session) = self.finish(client);
        self.close(open);
        session.expect("the server gives tickets")
    }

    /// A handshake that resumes a session, cookie exchange included.
    ///
    /// # Panics
    /// If it fails, or becomes a full one.
    pub fn resumed_handshake(&mut self, session: &Session) -> Open {
        self.now = Instant::now();
        let (config, session) = (self.config.clone(), session.clone());
        let before = self.server.stats().handshakes_resumed;
        let client = self.client.resume(self.now, SERVER.into(), config, session).expect("room");
        let (open, _) = self.finish(client);
        assert_eq!(self.server.stats().handshakes_resumed, before + 1, "resumed");
        open
    }

    fn finish(&mut self, client: AssociationId) -> (Open, Option<Session>) {
        while self.pass_to_server() | self.pass_to_client() {}
        let mut server = None;
        while let Some((id, event)) = self.server.poll_event() {
            assert!(matches!(event, Event::Established(_)), "{event:?}");
            server = Some(id);
        }
        let session = match self.client.poll_event() {
            Some((_, Event::Established(established))) => established.session,
            other => panic!("{other:?}"),
        };
        (Open { client, server: server.expect("both ends are open") }, session)
    }

    /// Ends an association on both sides.
    pub fn close(&mut self, open: Open) {
        self.client.close(open.client);
        while self.pass_to_server() | self.pass_to_client() {}
        while self.server.poll_event().is_some() || self.client.poll_event().is_some() {}
    }

    /// Sends `count` copies of a message from server to client; returns the bytes that arrived.
    ///
    /// # Panics
    /// If the association is not open or the message does not fit one datagram.
    pub fn push(&mut self, open: Open, message: &[u8], count: usize) -> usize {
        for _ in 0..count {
            self.server.send(open.server, message).expect("open, and fits");
        }
        self.pass_to_client();
        let mut bytes = 0;
        while let Some((_, event)) = self.client.poll_event() {
            if let Event::Message { data, .. } = event {
                bytes += data.len();
            }
        }
        bytes
    }

    fn pass_to_server(&mut self) -> bool {
        pass(&mut self.client, &mut self.server, CLIENT.into(), self.now, &mut self.buffer)
    }

    fn pass_to_client(&mut self) -> bool {
        pass(&mut self.server, &mut self.client, SERVER.into(), self.now, &mut self.buffer)
    }
}

/// Hands all datagrams that wait at `from` to `to`; false if there were none.
fn pass(
    from: &mut Endpoint,
    to: &mut Endpoint,
    address: SocketAddr,
    now: Instant,
    buffer: &mut Vec<u8>,
) -> bool {
    let mut any = false;
    while let Some((transmit, bytes)) = from.outbox().front() {
        any = true;
        // The copy that a kernel makes as well; decryption is in place.
        buffer.clear();
        buffer.extend_from_slice(bytes);
        let segment = transmit.segment_size.unwrap_or(bytes.len());
        from.outbox().pop();
        for datagram in buffer.chunks_mut(segment) {
            to.handle_datagram(now, address.into(), datagram);
        }
    }
    any
}
