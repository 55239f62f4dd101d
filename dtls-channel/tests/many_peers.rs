//! A driver with more peers than go into one system call, over both families and bound to any address.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]
#![expect(clippy::disallowed_methods, reason = "real sockets, real clock")]

mod common;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::config;
use dtls_channel::{AssociationId, Driver, EndpointConfig, Event};

/// More than one call takes.
const PEERS: usize = 70;
/// For what comes over loopback.
const PATIENCE: Duration = Duration::from_secs(20);
/// Equal ones and a shorter last one, as a document is cut; and one by itself.
const LENGTHS: [&[usize]; 3] = [&[900, 900, 900, 40], &[300], &[500, 500]];

/// A server and its clients, each with the server's name of it.
async fn connected(listen: &str, reach: &str) -> (Driver, Vec<(Driver, AssociationId)>) {
    let serving = EndpointConfig { server: Some(Arc::new(config())), ..EndpointConfig::default() };
    let mut server = Driver::bind(listen.parse().unwrap(), serving).unwrap();
    let reach: IpAddr = reach.parse().unwrap();
    let remote = SocketAddr::new(reach, server.local_addr().unwrap().port());
    let (shared, deadline) = (Arc::new(config()), Instant::now() + PATIENCE);
    let mut clients = Vec::new();
    while clients.len() < PEERS {
        let mut client =
            Driver::bind(SocketAddr::new(reach, 0), EndpointConfig::default()).unwrap();
        client.connect(Instant::now(), remote, shared.clone()).unwrap();
        let (mut id, mut is_open) = (None, false);
        while id.is_none() || !is_open {
            assert!(Instant::now() < deadline, "{} are open", clients.len());
            tokio::select! {
                done = client.wait(Some(deadline)) => done.unwrap(),
                done = server.wait(Some(deadline)) => done.unwrap(),
            }
            while let Some((opened, event)) = server.poll_event() {
                assert!(matches!(event, Event::Established(_)), "{event:?}");
                id = Some(opened);
            }
            while let Some((_, event)) = client.poll_event() {
                is_open |= matches!(event, Event::Established(_));
            }
        }
        clients.push((client, id.unwrap()));
    }
    (server, clients)
}

/// What is said to one peer in one round.
fn message(peer: usize, round: usize, at: usize, length: usize) -> Vec<u8> {
    let mut bytes = vec![(peer + round + at) as u8; length];
    bytes[..3].copy_from_slice(&[peer as u8, round as u8, at as u8]);
    bytes
}

async fn every_peer_gets_what_was_said_to_it(listen: &str, reach: &str) {
    let (mut server, mut clients) = connected(listen, reach).await;
    for (round, lengths) in LENGTHS.into_iter().enumerate() {
        for (peer, (_, id)) in clients.iter().enumerate() {
            for (at, length) in lengths.iter().enumerate() {
                server.send(Instant::now(), *id, &message(peer, round, at, *length)).unwrap();
            }
        }
        server.flush();
        let deadline = Instant::now() + PATIENCE;
        for (peer, (client, _)) in clients.iter_mut().enumerate() {
            for (at, length) in lengths.iter().enumerate() {
                let data = loop {
                    match client.poll_event() {
                        Some((_, Event::Message { data, .. })) => break data,
                        Some((_, other)) => panic!("{other:?}"),
                        None => client.wait(Some(deadline)).await.unwrap(),
                    }
                    assert!(Instant::now() < deadline, "peer {peer} of {listen}, round {round}");
                };
                assert_eq!(data, message(peer, round, at, *length));
            }
        }
    }
    assert_eq!((server.send_errors(), server.oversized()), (0, 0));
}

#[tokio::test]
async fn every_peer_gets_what_was_said_to_it_over_ipv4() {
    every_peer_gets_what_was_said_to_it("127.0.0.1:0", "127.0.0.1").await;
}

/// Answers come from the address that was asked, or the clients would not take them.
#[tokio::test]
async fn every_peer_gets_what_was_said_to_it_from_a_socket_of_any_address() {
    every_peer_gets_what_was_said_to_it("0.0.0.0:0", "127.0.0.2").await;
}

#[tokio::test]
async fn every_peer_gets_what_was_said_to_it_over_ipv6() {
    every_peer_gets_what_was_said_to_it("[::1]:0", "::1").await;
}

#[tokio::test]
async fn every_ipv4_peer_gets_what_was_said_to_it_from_a_socket_of_both_families() {
    every_peer_gets_what_was_said_to_it("[::]:0", "127.0.0.1").await;
}
