use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Link, LinkConfig};
use crate::config::{Config, PeerVerifier};
use crate::crypto::Credentials;
use crate::endpoint::{Endpoint, EndpointConfig};
use crate::error::PeerRefused;
use crate::event::{AssociationId, Event, Path};
use crate::resumption::Session;

/// A verifier that takes every peer, for tests whose subject is not authentication.
#[derive(Debug, Clone, Copy, Default)]
pub struct AcceptAnyone;

impl PeerVerifier for AcceptAnyone {
    fn verify(&self, _certificate_der: &[u8]) -> Result<(), PeerRefused> {
        Ok(())
    }

    fn verify_resumed(&self, _fingerprint: &[u8; 32]) -> Result<(), PeerRefused> {
        Ok(())
    }
}

/// Builds credentials from what rcgen makes: certificate and PKCS#8 key in DER.
///
/// # Panics
/// If they do not belong together: a test's own mistake.
#[must_use]
#[expect(clippy::expect_used, reason = "for tests, which fail by panicking")]
pub fn credentials(certificate_der: &[u8], pkcs8_der: &[u8]) -> Credentials {
    Credentials::from_der(certificate_der.to_vec(), pkcs8_der).expect("credentials fit")
}

/// One of the two ends of a [`Net`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The one that connects.
    Client,
    /// The one that serves.
    Server,
}

/// A client's and a server's endpoint with a link each way, on a virtual clock.
#[derive(Debug)]
pub struct Net {
    /// The client's endpoint.
    pub client: Endpoint,
    /// The server's endpoint.
    pub server: Endpoint,
    /// From client to server.
    pub up: Link,
    /// From server to client.
    pub down: Link,
    /// What happened, in order; drain it as the test goes.
    pub events: Vec<(Instant, Side, AssociationId, Event)>,
    now: Instant,
    start: Instant,
    client_address: SocketAddr,
    transcript: Option<Vec<String>>,
}

/// Where the server is.
const SERVER: ([u8; 4], u16) = ([192, 0, 2, 1], 4_433);
/// Where the client is until it rebinds.
const CLIENT: ([u8; 4], u16) = ([198, 51, 100, 1], 50_000);

impl Net {
    /// Two endpoints joined by links that behave like `link`, each way with its own randomness.
    ///
    /// # Panics
    /// If the system has no randomness.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "a virtual clock starts somewhere")]
    #[expect(clippy::expect_used, reason = "for tests, which fail by panicking")]
    pub fn new(seed: u64, link: &LinkConfig, server: Arc<Config>) -> Self {
        let start = Instant::now();
        let serving = EndpointConfig { server: Some(server), ..EndpointConfig::default() };
        let endpoint = |config| Endpoint::new(start, config).expect("randomness");
        Self {
            client: endpoint(EndpointConfig::default()),
            server: endpoint(serving),
            up: Link::new(seed.wrapping_mul(2), link.clone()),
            down: Link::new(seed.wrapping_mul(2).wrapping_add(1), link.clone()),
            events: Vec::new(),
            now: start,
            start,
            client_address: CLIENT.into(),
            transcript: None,
        }
    }

    /// The virtual time.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Virtual time since the beginning.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// Where the server is.
    #[must_use]
    pub fn server_address(&self) -> SocketAddr {
        SERVER.into()
    }

    /// Where the server sees the client.
    #[must_use]
    pub fn client_address(&self) -> SocketAddr {
        self.client_address
    }

    /// Lets the client's datagrams come from another port, as a NAT that has forgotten does.
    pub fn rebind(&mut self) {
        self.client_address.set_port(self.client_address.port() + 1);
    }

    /// Begins to keep one line per datagram.
    pub fn keep_transcript(&mut self) {
        self.transcript = Some(Vec::new());
    }

    /// The lines kept so far.
    #[must_use]
    pub fn transcript(&self) -> String {
        self.transcript.as_deref().unwrap_or_default().join("\n")
    }

    /// Connects the client to the server.
    ///
    /// # Panics
    /// If the endpoint has no room.
    #[expect(clippy::expect_used, reason = "for tests, which fail by panicking")]
    pub fn connect(&mut self, config: Arc<Config>) -> AssociationId {
        self.client.connect(self.now, SERVER.into(), config).expect("room to connect")
    }

    /// Connects the client to the server with a session of an earlier association.
    ///
    /// # Panics
    /// If the endpoint has no room.
    #[expect(clippy::expect_used, reason = "for tests, which fail by panicking")]
    pub fn resume(&mut self, config: Arc<Config>, session: Session) -> AssociationId {
        self.client.resume(self.now, SERVER.into(), config, session).expect("room to connect")
    }

    /// Moves what waits in the outboxes into the links.
    pub fn collect(&mut self) {
        for side in [Side::Client, Side::Server] {
            let (endpoint, link, mark) = match side {
                Side::Client => (&mut self.client, &mut self.up, "->"),
                Side::Server => (&mut self.server, &mut self.down, "<-"),
            };
            while let Some((transmit, bytes)) = endpoint.outbox().front() {
                // What goes to an address that the client no longer has is lost.
                let lost = side == Side::Server && transmit.destination != self.client_address;
                for datagram in bytes.chunks(transmit.segment_size.unwrap_or(bytes.len()).max(1)) {
                    if let Some(lines) = &mut self.transcript {
                        let at = (self.now - self.start).as_millis();
                        lines.push(format!("{at:>6} ms {mark} {}", describe(datagram)));
                    }
                    if !lost {
                        link.push(self.now, datagram.to_vec());
                    }
                }
                endpoint.outbox().pop();
            }
        }
    }

    fn take_events(&mut self) {
        while let Some((id, event)) = self.client.poll_event() {
            self.events.push((self.now, Side::Client, id, event));
        }
        while let Some((id, event)) = self.server.poll_event() {
            self.events.push((self.now, Side::Server, id, event));
        }
    }

    /// When something is due next, if anything is.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        [
            self.up.next_due(),
            self.down.next_due(),
            self.client.next_timeout(),
            self.server.next_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Goes on to `at`, which must not be in the past, and does what is due then.
    pub fn advance_to(&mut self, at: Instant) {
        self.collect();
        self.now = self.now.max(at);
        while let Some(mut datagram) = self.up.pop(self.now) {
            self.server.handle_datagram(self.now, self.client_address.into(), &mut datagram);
        }
        while let Some(mut datagram) = self.down.pop(self.now) {
            let path = Path::from(SocketAddr::from(SERVER));
            self.client.handle_datagram(self.now, path, &mut datagram);
        }
        self.client.handle_timeout(self.now);
        self.server.handle_timeout(self.now);
        self.collect();
        self.take_events();
    }

    /// Runs until `done` holds; false if nothing is left to happen or `limit` has passed.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.now + limit;
        loop {
            self.collect();
            self.take_events();
            if done(self) {
                return true;
            }
            match self.next_due() {
                Some(at) if at <= end => self.advance_to(at),
                _ => {
                    self.now = self.now.max(end);
                    return false;
                }
            }
        }
    }

    /// How many `Established` events one side has had.
    #[must_use]
    pub fn established(&self, side: Side) -> usize {
        let established = |e: &Event| matches!(e, Event::Established(_));
        self.events.iter().filter(|(_, s, _, e)| *s == side && established(e)).count()
    }

    /// True once both sides are open.
    #[must_use]
    pub fn both_open(&self) -> bool {
        self.established(Side::Client) > 0 && self.established(Side::Server) > 0
    }
}

/// One line about a datagram: its records' types, epochs and numbers.
fn describe(datagram: &[u8]) -> String {
    let mut copy = datagram.to_vec();
    let id_length = crate::conn::MADE_ID_BYTES;
    let records: Vec<String> = crate::record::Records::with_id_length(&mut copy, id_length)
        .map(|record| {
            let name = match (record.epoch, record.content_type) {
                (0, crate::wire::ContentType::HANDSHAKE) => {
                    crate::handshake::fragments(record.body)
                        .map(|f| match f {
                            Ok(f) if f.is_whole() => format!("{:?}", f.kind),
                            Ok(f) => {
                                format!("{:?}[{}..{}]", f.kind, f.offset, f.offset + f.body.len())
                            }
                            Err(_) => "malformed".into(),
                        })
                        .collect::<Vec<_>>()
                        .join("+")
                }
                (_, kind) => format!("{kind:?}"),
            };
            format!("{}.{} {name}", record.epoch, record.sequence)
        })
        .collect();
    records.join(", ")
}
