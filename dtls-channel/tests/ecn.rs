//! Congestion marks (RFC 3168) in the IP header, on real loopback sockets.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]
#![expect(clippy::disallowed_methods, reason = "real sockets, real clock")]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::config;
use dtls_channel::{AssociationId, Driver, Ecn, EndpointConfig, Event};

const PATIENCE: Duration = Duration::from_secs(10);
const LONG: [u8; 1_000] = [7; 1_000];

/// A server with some clients of its own, each of which it knows by the id.
struct Crowd {
    server: Driver,
    clients: Vec<(Driver, AssociationId, AssociationId)>,
}

impl Crowd {
    async fn connected(bound: &str, from: &str, count: usize) -> Self {
        let serving =
            EndpointConfig { server: Some(Arc::new(config())), ..EndpointConfig::default() };
        let mut server = Driver::bind(bound.parse().unwrap(), serving).unwrap();
        let from: SocketAddr = from.parse().unwrap();
        let address = SocketAddr::new(from.ip(), server.local_addr().unwrap().port());
        let mut clients = Vec::new();
        for _ in 0..count {
            let mut client = Driver::bind(from, EndpointConfig::default()).unwrap();
            let to_server = client.connect(Instant::now(), address, Arc::new(config())).unwrap();
            let (mut to_client, mut open) = (None, false);
            while to_client.is_none() || !open {
                tokio::select! {
                    done = client.wait(None) => done.unwrap(),
                    done = server.wait(None) => done.unwrap(),
                }
                while let Some((id, event)) = server.poll_event() {
                    assert!(matches!(event, Event::Established(_)), "{event:?}");
                    to_client = Some(id);
                }
                while let Some((_, event)) = client.poll_event() {
                    open |= matches!(event, Event::Established(_));
                }
            }
            clients.push((client, to_client.unwrap(), to_server));
        }
        Self { server, clients }
    }
}

/// The next messages' codepoints and lengths.
async fn take(driver: &mut Driver, count: usize) -> Vec<(Ecn, usize)> {
    let (mut taken, deadline) = (Vec::new(), Instant::now() + PATIENCE);
    while taken.len() < count {
        driver.wait(Some(deadline)).await.unwrap();
        assert!(Instant::now() < deadline, "{taken:?} came");
        while let Some((_, event)) = driver.poll_event() {
            let Event::Message { data, ecn, .. } = event else { panic!("{event:?}") };
            taken.push((ecn, data.len()));
        }
    }
    taken
}

/// The server is bound to the first, its clients to the second address.
const FAMILIES: [(&str, &str); 4] = [
    ("127.0.0.1:0", "127.0.0.1:0"),
    ("[::1]:0", "[::1]:0"),
    // Answers leave from the address that was asked, which is one more thing to say to the kernel.
    ("0.0.0.0:0", "127.0.0.1:0"),
    // IPv4 on a socket of IPv6.
    ("[::]:0", "127.0.0.1:0"),
];

#[tokio::test]
async fn a_codepoint_that_is_asked_for_arrives_and_without_asking_there_is_none() {
    for (bound, from) in FAMILIES {
        let mut crowd = Crowd::connected(bound, from, 1).await;
        let (client, to_client, to_server) = &mut crowd.clients[0];
        for ecn in [Ecn::NotEct, Ecn::Ect0, Ecn::Ect1, Ecn::Ce, Ecn::NotEct] {
            let now = Instant::now();
            client.set_ecn(*to_server, ecn);
            client.send(now, *to_server, b"up").unwrap();
            client.flush();
            assert_eq!(take(&mut crowd.server, 1).await, [(ecn, 2)], "{bound}");
            assert_eq!(crowd.server.stats().drops, Default::default());
            crowd.server.send(now, *to_client, b"not asked for").unwrap();
            crowd.server.flush();
            assert_eq!(take(client, 1).await, [(Ecn::NotEct, 13)], "{bound}");
        }
    }
}

/// Runs that the kernel cuts (GSO) and joins (GRO).
#[tokio::test]
async fn each_datagram_of_a_long_run_arrives_with_its_own_codepoint() {
    for (bound, from) in FAMILIES {
        let mut crowd = Crowd::connected(bound, from, 1).await;
        let (client, to_client, _) = &mut crowd.clients[0];
        let mut sent = Vec::new();
        for n in 0..100 {
            let ecn = if n / 20 % 2 == 0 { Ecn::Ect0 } else { Ecn::NotEct };
            crowd.server.set_ecn(*to_client, ecn);
            crowd.server.send(Instant::now(), *to_client, &LONG).unwrap();
            sent.push((ecn, LONG.len()));
        }
        crowd.server.flush();
        assert_eq!(take(client, 100).await, sent, "{bound}");
    }
}

/// One system call carries what goes to several peers.
#[tokio::test]
async fn of_many_peers_each_gets_its_own_codepoint() {
    const PEERS: usize = 8;
    for (bound, from) in FAMILIES {
        let mut crowd = Crowd::connected(bound, from, PEERS).await;
        let ecn = |n: usize| [Ecn::NotEct, Ecn::NotEct, Ecn::Ect0, Ecn::Ect0][n % 4];
        for pieces in [1, 3] {
            for (n, (_, to_client, _)) in crowd.clients.iter().enumerate() {
                crowd.server.set_ecn(*to_client, ecn(n));
                for _ in 0..pieces {
                    crowd.server.send(Instant::now(), *to_client, &LONG).unwrap();
                }
            }
            crowd.server.flush();
            for (n, (client, ..)) in crowd.clients.iter_mut().enumerate() {
                let expected = vec![(ecn(n), LONG.len()); pieces];
                assert_eq!(take(client, pieces).await, expected, "{bound}, peer {n}");
            }
        }
        assert_eq!(crowd.server.send_errors(), 0);
    }
}
