//! Hand-made datagrams against an endpoint: what strangers may and may not cause.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use common::config;
use dtls_channel::testing::{LinkConfig, Net, Rng, Side};
use dtls_channel::{AssociationId, DropCause, Event, Path};

const MINUTE: Duration = Duration::from_secs(60);

fn open() -> (Net, AssociationId, AssociationId) {
    let mut net = Net::new(1, &LinkConfig::default(), Arc::new(config()));
    net.connect(Arc::new(config()));
    assert!(net.run_until(MINUTE, |n| n.both_open()));
    let id = |net: &Net, side| net.events.iter().find(|e| e.1 == side).unwrap().2;
    let (client, server) = (id(&net, Side::Client), id(&net, Side::Server));
    net.events.clear();
    (net, client, server)
}

fn still_carries_messages(net: &mut Net, client: AssociationId) {
    net.events.clear();
    net.client.send(client, b"still here").unwrap();
    assert!(net.run_until(MINUTE, |n| !n.events.is_empty()), "{:?}", net.server.stats());
    assert!(matches!(&net.events[0].3, Event::Message { data, .. } if data == "still here"));
}

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
fn attack_13_forged_plaintext_does_not_touch_an_open_association() {
    let (mut net, client, _) = open();
    let forgeries = [
        record(21, 0, 99, &[2, 40]),
        record(21, 0, 99, &[1, 0]),
        record(20, 0, 99, &[1]),
        record(20, 1, 99, &[1]),
        record(23, 0, 99, b"data"),
        record(
            22,
            0,
            99,
            &[20, 0, 0, 12, 0, 5, 0, 0, 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ),
        record(99, 0, 99, b"?"),
        record(23, 1, 0x7fff_ffff_ffff, &[0; 64]),
        record(21, 1, 5, &[0; 26]),
        record(23, 2, 5, &[0; 64]),
        b"not DTLS at all".to_vec(),
        vec![],
    ];
    let now = net.now();
    for mut forgery in forgeries {
        net.server.handle_datagram(now, clients_path(), &mut forgery);
        assert!(net.server.outbox().is_empty() && net.server.poll_event().is_none());
    }
    assert_eq!(net.server.stats().drops.total(), 12);
    still_carries_messages(&mut net, client);
}

#[test]
fn attack_11_and_12_replayed_and_bent_records_are_dropped_in_silence() {
    let (mut net, client, _) = open();
    net.client.send(client, b"once").unwrap();
    let (_, bytes) = net.client.outbox().front().unwrap();
    let sealed = bytes.to_vec();
    let now = net.now();
    for i in 0..sealed.len() {
        let mut bent = sealed.clone();
        bent[i] ^= 0x40;
        net.server.handle_datagram(now, clients_path(), &mut bent);
        assert!(net.server.poll_event().is_none(), "byte {i}");
    }
    for _ in 0..3 {
        net.server.handle_datagram(now, clients_path(), &mut sealed.clone());
    }
    assert!(matches!(net.server.poll_event(), Some((_, Event::Message { .. }))));
    assert!(net.server.poll_event().is_none(), "delivered twice");
    assert_eq!(net.server.stats().drops.get(DropCause::Replayed), 2);
    assert!(net.server.outbox().is_empty());
    still_carries_messages(&mut net, client);
}

#[test]
fn attack_14_a_strangers_hello_from_the_clients_address_only_draws_a_cookie() {
    let (mut net, client, _) = open();
    let mut other = Net::new(9, &LinkConfig::default(), Arc::new(config()));
    other.connect(Arc::new(config()));
    let mut hello = other.client.outbox().front().unwrap().1.to_vec();
    let now = net.now();
    net.server.handle_datagram(now, clients_path(), &mut hello);
    assert_eq!(net.server.associations(), 1);
    net.server.outbox().pop();
    still_carries_messages(&mut net, client);
}

#[test]
fn attack_15_and_16_before_a_cookie_nothing_is_kept_and_no_more_bytes_leave_than_came() {
    let mut source = Net::new(9, &LinkConfig::default(), Arc::new(config()));
    source.connect(Arc::new(config()));
    let hello = source.client.outbox().front().unwrap().1.to_vec();
    let mut net = Net::new(1, &LinkConfig::default(), Arc::new(config()));
    let now = net.now();
    let mut rng = Rng::new(5);
    for n in 0..20_000u32 {
        let [_, b, c, d] = n.to_be_bytes();
        let from = SocketAddr::from(([10, b, c, d], 1_000 + (n % 50_000) as u16));
        let mut datagram = hello.clone();
        if n % 3 == 1 {
            // With a cookie made up.
            datagram = with_cookie(&hello, &rng.next_u64().to_be_bytes().repeat(4));
        }
        if n % 3 == 2 {
            datagram.truncate(rng.below(hello.len() as u64) as usize);
        }
        net.server.handle_datagram(now, from.into(), &mut datagram);
        while net.server.outbox().front().is_some() {
            net.server.outbox().pop();
        }
    }
    let stats = net.server.stats();
    assert_eq!((net.server.associations(), net.server.half_open()), (0, 0));
    assert!(stats.bytes_out <= stats.bytes_in, "{stats:?}");
    assert!(stats.cookies_sent > 13_000, "{stats:?}");
    assert_eq!(stats.drops.get(DropCause::BadCookie), 6_667);
}

/// Puts a cookie into one of our own first hellos.
fn with_cookie(hello: &[u8], cookie: &[u8]) -> Vec<u8> {
    let at = 13 + 12 + 2 + 32 + 1;
    let mut out = hello.to_vec();
    out[at] = cookie.len() as u8;
    out.splice(at + 1..at + 1, cookie.iter().copied());
    for (offset, header) in [(11, 13), (14, 25), (22, 25)] {
        // Record length (16 bits); message and fragment length (their low 16 bits).
        let length = (out.len() - header) as u16;
        let at = if offset == 11 { 11 } else { offset + 1 };
        out[at..at + 2].copy_from_slice(&length.to_be_bytes());
    }
    out
}

#[test]
fn attack_18_half_open_associations_are_capped_and_the_oldest_goes_first() {
    use dtls_channel::{Endpoint, EndpointConfig};

    let start = Net::new(0, &LinkConfig::default(), Arc::new(config())).now();
    let serving = EndpointConfig {
        server: Some(Arc::new(config())),
        half_open_max: 8,
        ..EndpointConfig::default()
    };
    let mut server = Endpoint::new(start, serving).unwrap();
    let mut client = Endpoint::new(start, EndpointConfig::default()).unwrap();
    let client_config = Arc::new(config());
    let mut opened = None;
    for n in 0..40u16 {
        let from = SocketAddr::from(([127, 0, 0, 1], 2_000 + n));
        let to = SocketAddr::from(([127, 0, 0, 1], 10_000 + n));
        client.connect(start, to, client_config.clone()).unwrap();
        // Hello, cookie, hello with cookie: then the stranger stops.
        for _ in 0..2 {
            let mut up = client.outbox().front().unwrap().1.to_vec();
            client.outbox().pop();
            server.handle_datagram(start, from.into(), &mut up);
            let mut down = server.outbox().front().unwrap().1.to_vec();
            server.outbox().pop();
            client.handle_datagram(start, to.into(), &mut down);
        }
        client.outbox().pop();
        assert!(server.half_open() <= 8);
        opened = Some(n);
    }
    assert_eq!(opened, Some(39));
    assert_eq!((server.associations(), server.stats().half_open_evicted), (8, 32));
    // Left alone they end by themselves.
    while let Some(at) = server.next_timeout() {
        server.handle_timeout(at);
        while server.outbox().front().is_some() {
            server.outbox().pop();
        }
    }
    assert_eq!((server.associations(), server.half_open()), (0, 0));
}

#[test]
fn attack_3_spoofed_fragments_at_a_pending_handshake_neither_kill_nor_fill_it() {
    let mut net = Net::new(1, &LinkConfig::default(), Arc::new(config()));
    net.connect(Arc::new(config()));
    assert!(net.run_until(MINUTE, |n| n.server.half_open() == 1));
    let now = net.now();
    for n in 0..500u16 {
        // Certificates of announced 16 MB, of 8 KiB far ahead, empty ones, contradictions.
        let fragments: [&[u8]; 4] = [
            &[11, 0xff, 0xff, 0xff, 0, 9, 0, 0, 0, 0, 0, 1, 0],
            &[11, 0, 0x1f, 0xff, 0, (n % 9) as u8 + 3, 0, 0, 0, 0, 0, 1, 0],
            &[11, 0, 0, 9, 0, 5, 0, 0, 0, 0, 0, 0],
            &[16, 0, 0, 9, 0, 5, 0, 0, 8, 0, 0, 5, 0, 0, 0, 0, 0],
        ];
        let mut datagram = record(22, 0, u64::from(n), fragments[usize::from(n) % 4]);
        net.server.handle_datagram(now, clients_path(), &mut datagram);
    }
    assert!(net.run_until(MINUTE, |n| n.both_open()), "{:?}", net.server.stats());
}

#[test]
fn attack_13_a_forged_alert_during_the_handshake_does_not_end_it() {
    let mut net = Net::new(1, &LinkConfig::default(), Arc::new(config()));
    net.connect(Arc::new(config()));
    for _ in 0..4 {
        let now = net.now();
        for (kind, body) in [(21, &[2u8, 40][..]), (20, &[1]), (23, b"early"), (22, &[20, 0])] {
            let mut forged = record(kind, 0, 50, body);
            net.server.handle_datagram(now, clients_path(), &mut forged);
            let server = net.server_address();
            net.client.handle_datagram(now, server.into(), &mut record(kind, 0, 50, body));
        }
        if let Some(at) = net.next_due() {
            net.advance_to(at);
        }
    }
    assert!(net.run_until(MINUTE, |n| n.both_open()), "{:?}", net.events);
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
