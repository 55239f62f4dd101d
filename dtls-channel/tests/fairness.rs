//! What peers with good cookies may take from each other: nothing.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::config;
use dtls_channel::testing::{LinkConfig, Net, Side};
use dtls_channel::{CloseReason, Config, DropCause, Endpoint, EndpointConfig, Event};

const MINUTE: Duration = Duration::from_secs(60);
const SERVER: ([u8; 4], u16) = ([192, 0, 2, 1], 4_433);

fn now() -> Instant {
    Net::new(0, &LinkConfig::default(), Arc::new(config())).now()
}

fn serving(limit: impl FnOnce(&mut EndpointConfig)) -> EndpointConfig {
    let server = Some(Arc::new(config()));
    let mut config = EndpointConfig { server, ..EndpointConfig::default() };
    limit(&mut config);
    config
}

fn first_datagram(endpoint: &mut Endpoint) -> Vec<u8> {
    let (transmit, bytes) = endpoint.outbox().front().unwrap();
    let datagram = bytes[..transmit.segment_size.unwrap_or(bytes.len())].to_vec();
    endpoint.outbox().advance(datagram.len());
    datagram
}

fn empty(endpoint: &mut Endpoint) {
    while endpoint.outbox().front().is_some() {
        endpoint.outbox().pop();
    }
}

/// A client's hello with a good cookie, and the client.
fn good_hello(
    now: Instant,
    server: &mut Endpoint,
    from: SocketAddr,
    config: &Arc<Config>,
) -> (Vec<u8>, Endpoint) {
    let mut client = Endpoint::new(now, EndpointConfig::default()).unwrap();
    client.connect(now, SERVER.into(), config.clone()).unwrap();
    server.handle_datagram(now, from.into(), &mut first_datagram(&mut client));
    let request: SocketAddr = SERVER.into();
    client.handle_datagram(now, request.into(), &mut first_datagram(server));
    (first_datagram(&mut client), client)
}

#[test]
fn attack_18_a_flood_of_handshakes_from_one_host_evicts_itself_and_nobody_else() {
    let (now, client) = (now(), Arc::new(config()));
    let mut server = Endpoint::new(now, serving(|c| c.half_open_max = 8)).unwrap();
    let honest: Vec<SocketAddr> =
        (1..=6).map(|n| SocketAddr::from(([198, 51, 100, n], 5_000))).collect();
    let mut waiting = Vec::new();
    for from in &honest {
        let (mut hello, endpoint) = good_hello(now, &mut server, *from, &client);
        server.handle_datagram(now, (*from).into(), &mut hello);
        let flight = first_datagram(&mut server);
        empty(&mut server);
        waiting.push((*from, flight, endpoint));
    }
    for n in 0..100u16 {
        // All the addresses of one /64 are one source.
        let ip = std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 7, n, 0, 0, n);
        let from = SocketAddr::from((ip, 1_000 + n));
        let (mut hello, _) = good_hello(now, &mut server, from, &client);
        server.handle_datagram(now, from.into(), &mut hello);
        empty(&mut server);
        assert!(server.half_open() <= 8);
    }
    assert_eq!(server.stats().half_open_evicted, 98);
    for (from, mut flight, mut client) in waiting {
        let to: SocketAddr = SERVER.into();
        client.handle_datagram(now, to.into(), &mut flight);
        while !client.outbox().is_empty() {
            server.handle_datagram(now, from.into(), &mut first_datagram(&mut client));
        }
    }
    assert_eq!(server.stats().handshakes_completed, 6);
}

#[test]
fn hellos_from_one_address_supersede_each_other_at_a_pace() {
    let (start, client) = (now(), Arc::new(config()));
    let mut server = Endpoint::new(start, serving(|_| {})).unwrap();
    let from = SocketAddr::from(([198, 51, 100, 1], 5_000));
    let hellos: Vec<Vec<u8>> =
        (0..2).map(|_| good_hello(start, &mut server, from, &client).0).collect();
    for n in 0..1_000u32 {
        let at = start + Duration::from_millis(1) * n;
        server.handle_datagram(at, from.into(), &mut hellos[n as usize % 2].clone());
        empty(&mut server);
    }
    assert_eq!(server.stats().handshakes_started, 5, "two, then one every 250 ms");
    assert!(server.stats().drops.get(DropCause::TooSoon) > 400);
    assert_eq!((server.associations(), server.half_open()), (1, 1));
}

#[test]
fn a_client_that_starts_anew_in_the_middle_of_a_handshake_is_served_at_once() {
    let mut net = Net::new(1, &LinkConfig::default(), Arc::new(config()));
    net.connect(Arc::new(config()));
    assert!(net.run_until(MINUTE, |n| n.server.half_open() == 1));
    // It lost everything in the middle of the handshake, with what was on its way.
    net.collect();
    net.down.clear();
    net.client = Endpoint::new(net.now(), EndpointConfig::default()).unwrap();
    net.connect(Arc::new(config()));
    assert!(net.run_until(Duration::from_millis(120), |n| n.both_open()), "{:?}", net.events);
}

#[test]
fn a_full_endpoint_lets_a_client_in_that_comes_back_and_nobody_else() {
    let mut net = Net::new(1, &LinkConfig::default(), Arc::new(config()));
    net.server = Endpoint::new(net.now(), serving(|c| c.associations_max = 1)).unwrap();
    net.connect(Arc::new(config()));
    assert!(net.run_until(MINUTE, |n| n.both_open()));
    net.events.clear();
    let (now, from) = (net.now(), SocketAddr::from(([203, 0, 113, 9], 9)));
    let (mut hello, _) = good_hello(now, &mut net.server, from, &Arc::new(config()));
    net.server.handle_datagram(now, from.into(), &mut hello);
    assert_eq!(net.server.stats().drops.get(DropCause::NoRoom), 1);
    // The client restarts, at the same address.
    net.client = Endpoint::new(now, EndpointConfig::default()).unwrap();
    net.connect(Arc::new(config()));
    assert!(net.run_until(MINUTE, |n| n.both_open()), "{:?}", net.events);
    let closed = net.events.iter().find_map(|(_, side, _, event)| match event {
        Event::Closed(reason) if *side == Side::Server => Some(reason.clone()),
        _ => None,
    });
    assert_eq!(closed, Some(CloseReason::Superseded));
    assert_eq!(net.server.associations(), 1);
}

#[test]
fn two_endpoints_that_connect_to_each_other_at_once_agree_on_one_association() {
    let client: SocketAddr = ([198, 51, 100, 1], 50_000).into();
    // Who goes first is decided by the randoms.
    for seed in 0..8 {
        for loss in [0.0, 0.3] {
            let link = LinkConfig { loss, ..LinkConfig::default() };
            let mut net = Net::new(seed, &link, Arc::new(config()));
            net.client = Endpoint::new(net.now(), serving(|_| {})).unwrap();
            net.connect(Arc::new(config()));
            net.server.connect(net.now(), client, Arc::new(config())).unwrap();
            let open = net.run_until(MINUTE, |n| n.both_open());
            assert!(open, "seed {seed}, loss {loss}: {:?}", net.events);
            assert!(loss > 0.0 || net.elapsed() <= Duration::from_millis(120));
            assert_eq!((net.client.associations(), net.server.associations()), (1, 1));
            let closed = |e: &&(_, _, _, Event)| matches!(e.3, Event::Closed(_));
            assert_eq!(net.events.iter().filter(closed).count(), 1, "the one that gave way");
        }
    }
}

#[test]
fn who_connects_to_a_client_that_serves_nobody_is_not_in_its_way_for_long() {
    let client: SocketAddr = ([198, 51, 100, 1], 50_000).into();
    for seed in 0..8 {
        let mut net = Net::new(seed, &LinkConfig::default(), Arc::new(config()));
        net.connect(Arc::new(config()));
        net.server.connect(net.now(), client, Arc::new(config())).unwrap();
        assert!(net.run_until(Duration::from_secs(4), |n| n.both_open()), "{:?}", net.events);
    }
}
