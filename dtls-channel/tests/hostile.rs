//! Hand-made datagrams against an endpoint: what strangers may and may not cause.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use common::config;
use dtls_channel::testing::{LinkConfig, Net, Rng, Side};
use dtls_channel::{DropCause, Path};

const MINUTE: Duration = Duration::from_secs(60);

fn record(kind: u8, epoch: u16, sequence: u64, body: &[u8]) -> Vec<u8> {
    let mut out = vec![kind, 0xfe, 0xfd];
    out.extend(epoch.to_be_bytes());
    out.extend(&sequence.to_be_bytes()[2..]);
    out.extend((body.len() as u16).to_be_bytes());
    out.extend(body);
    out
}

/// The path on which the simulated client's datagrams arrive.
fn clients_path() -> Path {
    SocketAddr::from(([198, 51, 100, 1], 50_000)).into()
}

#[test]
fn garbage_never_panics_and_never_opens_anything() {
    let mut rng = Rng::new(77);
    let mut net = Net::new(1, &LinkConfig::default(), Arc::new(config()));
    net.connect(Arc::new(config()));
    let mut hello = net.client.outbox().front().unwrap().1.to_vec();
    let now = net.now();
    for _ in 0..20_000 {
        let mut bent = hello.clone();
        for _ in 0..1 + rng.below(4) {
            let at = rng.below(bent.len() as u64) as usize;
            bent[at] = rng.next_u64() as u8;
        }
        net.server.handle_datagram(now, clients_path(), &mut bent);
        let server = net.server_address();
        net.client.handle_datagram(now, server.into(), &mut bent);
        while net.server.outbox().front().is_some() {
            net.server.outbox().pop();
        }
        while net.client.outbox().front().is_some() {
            net.client.outbox().pop();
        }
    }
    hello.clear();
    assert_eq!(net.established(Side::Server) + net.established(Side::Client), 0);
}

/// Splits a datagram that holds one ClientHello into datagrams with one fragment each.
fn split_hello(datagram: &[u8], size: usize) -> Vec<Vec<u8>> {
    let (header, body) = datagram[13..].split_at(12);
    let sequence = u64::from_be_bytes([&[0, 0][..], &datagram[5..11]].concat().try_into().unwrap());
    body.chunks(size)
        .enumerate()
        .map(|(n, piece)| {
            let mut fragment = header[..6].to_vec();
            fragment.extend(&((n * size) as u32).to_be_bytes()[1..]);
            fragment.extend(&(piece.len() as u32).to_be_bytes()[1..]);
            fragment.extend(piece);
            record(22, 0, sequence + n as u64, &fragment)
        })
        .collect()
}

#[test]
fn a_client_hello_in_pieces_is_taken_once_its_cookie_is_good() {
    // The first piece must hold the cookie: 68 bytes of our hello.
    for size in [68, 80, 100] {
        let mut net = Net::new(1, &LinkConfig::default(), Arc::new(config()));
        net.connect(Arc::new(config()));
        let now = net.now();
        let deliver = |net: &mut Net| {
            let hello = net.client.outbox().front().unwrap().1.to_vec();
            net.client.outbox().pop();
            for mut piece in split_hello(&hello, size) {
                net.server.handle_datagram(now, clients_path(), &mut piece);
            }
        };
        deliver(&mut net);
        assert_eq!((net.server.stats().cookies_sent, net.server.associations()), (1, 0));
        let mut request = net.server.outbox().front().unwrap().1.to_vec();
        net.server.outbox().pop();
        let server = net.server_address();
        net.client.handle_datagram(now, server.into(), &mut request);
        deliver(&mut net);
        assert_eq!((net.server.stats().cookies_sent, net.server.associations()), (1, 1));
        assert!(net.run_until(MINUTE, |n| n.both_open()), "{:?}", net.server.stats());
    }
}

#[test]
fn later_pieces_of_an_unverified_hello_leave_no_trace() {
    let mut source = Net::new(9, &LinkConfig::default(), Arc::new(config()));
    source.connect(Arc::new(config()));
    let hello = source.client.outbox().front().unwrap().1.to_vec();
    let mut net = Net::new(1, &LinkConfig::default(), Arc::new(config()));
    let now = net.now();
    for piece in &split_hello(&hello, 40)[1..] {
        net.server.handle_datagram(now, clients_path(), &mut piece.clone());
    }
    assert_eq!((net.server.associations(), net.server.stats().datagrams_out), (0, 0));
    assert_eq!(net.server.stats().drops.get(DropCause::Unknown), 2);
}
