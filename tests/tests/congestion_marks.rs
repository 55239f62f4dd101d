//! Congestion marks (ECN) from one session to the other, through DTLS and real sockets.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dtls_channel::testing::AcceptAnyone;
use dtls_channel::{
    AssociationId, Config, Credentials, Driver, Ecn as ChannelEcn, EndpointConfig,
    Event as ChannelEvent,
};
use metadata_delivery::{Document, Ecn, Event, Name, Session, SessionConfig};
use system_tests::PemIdentity;

const PATIENCE: Duration = Duration::from_secs(20);
const DOCUMENT_BYTES: usize = 1 << 20;

/// One end: a socket and, once it is open, an association with its session.
struct End {
    driver: Driver,
    open: Option<(AssociationId, Session)>,
    /// What it asks the kernel to write in place of what its session asks for.
    lie: Option<Ecn>,
    received: usize,
    stored: usize,
}

fn config() -> Arc<Config> {
    let identity = PemIdentity::new();
    let certificate = identity.certificate().to_vec();
    let credentials = Credentials::from_der(certificate, identity.pkcs8()).unwrap();
    Arc::new(Config::new(credentials, Arc::new(AcceptAnyone)))
}

impl End {
    fn new(at: SocketAddr, server: Option<Arc<Config>>, lie: Option<Ecn>) -> Self {
        let config = EndpointConfig { server, ..EndpointConfig::default() };
        let driver = Driver::bind(at, config).unwrap();
        Self { driver, open: None, lie, received: 0, stored: 0 }
    }

    fn work(&mut self) {
        let now = Instant::now();
        while let Some((id, event)) = self.driver.poll_event() {
            match event {
                ChannelEvent::Established(_) => {
                    let config = SessionConfig {
                        payload_max: self.driver.message_size_max(id),
                        ecn: true,
                        ..SessionConfig::default()
                    };
                    self.open = Some((id, Session::new(now, config)));
                }
                ChannelEvent::Message { sequence, data, ecn } => {
                    let (_, session) = self.open.as_mut().unwrap();
                    let ecn = Ecn::from_bits(ecn.bits());
                    session.handle_marked_packet(now, sequence, ecn, &data).unwrap();
                }
                other => panic!("{other:?}"),
            }
        }
        let Some((id, session)) = &mut self.open else { return };
        session.handle_timeout(now);
        while let Some(event) = session.poll_event() {
            match event {
                Event::Received(document) => {
                    self.received += document.body.len();
                    session.stored(now, &document.name, document.version);
                }
                Event::Stored { .. } => self.stored += 1,
                other => panic!("{other:?}"),
            }
        }
        let mut packet = Vec::new();
        while self.driver.has_room()
            && let Some(number) = self.driver.next_sequence(*id)
            && session.poll_transmit(now, number, &mut packet)
        {
            let ecn = match session.packet_ecn() {
                Ecn::Ect0 => self.lie.unwrap_or(Ecn::Ect0),
                unmarked => unmarked,
            };
            self.driver.set_ecn(*id, ChannelEcn::from_bits(ecn.bits()));
            self.driver.send(now, *id, &packet).unwrap();
        }
        self.driver.flush();
    }

    fn wake(&self) -> Option<Instant> {
        self.open.as_ref().and_then(|(_, session)| session.next_timeout())
    }
}

/// Pushes documents one way until all of them are stored, over loopback sockets bound to `at`; the pushing end.
async fn push(at: &str, documents: usize, lie: Option<Ecn>) -> [End; 2] {
    let at: SocketAddr = at.parse().unwrap();
    let mut server = End::new(at, Some(config()), lie);
    let mut agent = End::new(at, None, None);
    let remote = server.driver.local_addr().unwrap();
    agent.driver.connect(Instant::now(), remote, config()).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let mut offered = 0;
    while server.stored < documents {
        assert!(Instant::now() < deadline, "{} of {documents} stored", server.stored);
        if let Some((_, session)) = &mut server.open
            && offered == server.stored
        {
            let name = Name::new("metadata").unwrap();
            let body = vec![offered as u8; DOCUMENT_BYTES].into();
            offered += 1;
            let document = Document { name, version: offered as u64, body };
            session.offer(Instant::now(), document).unwrap();
        }
        server.work();
        agent.work();
        // Then the next is offered: nothing else may happen, as a confirmation need not be acknowledged.
        if offered > 0 && offered == server.stored {
            continue;
        }
        let wake = [server.wake(), agent.wake(), Some(deadline)].into_iter().flatten().min();
        tokio::select! {
            done = server.driver.wait(wake) => done.unwrap(),
            done = agent.driver.wait(wake) => done.unwrap(),
        }
    }
    assert_eq!(agent.received, documents * DOCUMENT_BYTES);
    [server, agent]
}

#[tokio::test]
async fn a_document_travels_with_marks_that_arrive_and_are_believed() {
    for at in ["127.0.0.1:0", "[::1]:0"] {
        let [server, agent] = push(at, 2, None).await;
        let stats = server.open.unwrap().1.stats();
        assert!(stats.ecn_capable && stats.packets_marked > 1_000, "{at}: {stats:?}");
        assert_eq!(stats.congestion_told, 0, "{at}");
        assert_eq!(agent.open.unwrap().1.stats().packets_congested, 0, "{at}");
    }
}

#[tokio::test]
async fn marks_that_do_not_arrive_as_they_were_sent_are_given_up_and_the_document_comes_all_the_same()
 {
    for at in ["127.0.0.1:0", "[::1]:0"] {
        for lie in [Ecn::NotEct, Ecn::Ect1, Ecn::Ce] {
            let [server, _] = push(at, 2, Some(lie)).await;
            let stats = server.open.unwrap().1.stats();
            assert!(!stats.ecn_capable && stats.packets_marked <= 10, "{at}, {lie:?}: {stats:?}");
        }
    }
}
