//! One test per bug that was found and fixed; each is named for what went wrong.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use common::{config, identity};
use dtls_channel::testing::forge::{HelloFields, Piece};
use dtls_channel::testing::{LinkConfig, Net, Rogue, Side};
use dtls_channel::{
    CLIENT_HELLO_BYTES_MAX, ConnectionIdMode, Credentials, CredentialsError, DropCause, Endpoint,
    EndpointConfig, Event, OUTBOX_BYTES_MAX, SendError, Timers,
};

const MINUTE: Duration = Duration::from_secs(60);

fn net() -> Net {
    let mut net = Net::new(1, &LinkConfig::default(), Arc::new(config()));
    net.connect(Arc::new(config()));
    net
}

fn clients_path() -> dtls_channel::Path {
    SocketAddr::from(([198, 51, 100, 1], 50_000)).into()
}

fn record(kind: u8, epoch: u16, sequence: u64, body: &[u8]) -> Vec<u8> {
    let mut out = vec![kind, 0xfe, 0xfd];
    out.extend(epoch.to_be_bytes());
    out.extend(&sequence.to_be_bytes()[2..]);
    out.extend((body.len() as u16).to_be_bytes());
    out.extend(body);
    out
}

/// An empty handshake message.
fn empty_message(kind: u8, message_seq: u16) -> Vec<u8> {
    let [s0, s1] = message_seq.to_be_bytes();
    record(22, 0, 70, &[kind, 0, 0, 0, s0, s1, 0, 0, 0, 0, 0, 0])
}

fn first_datagram(endpoint: &mut Endpoint) -> Vec<u8> {
    let (transmit, bytes) = endpoint.outbox().front().unwrap();
    let datagram = bytes[..transmit.segment_size.unwrap_or(bytes.len())].to_vec();
    endpoint.outbox().pop();
    datagram
}

#[test]
fn a_hello_that_is_too_long_or_numbered_too_high_is_not_even_answered() {
    let mut net = net();
    let hello = first_datagram(&mut net.client);
    let now = net.now();
    let mut long = hello.clone();
    long.resize(13 + 12 + CLIENT_HELLO_BYTES_MAX + 1, 0);
    let body = ((long.len() - 25) as u32).to_be_bytes();
    let length = (long.len() - 13) as u16;
    long[11..13].copy_from_slice(&length.to_be_bytes());
    long[14..17].copy_from_slice(&body[1..]);
    long[22..25].copy_from_slice(&body[1..]);
    let mut late_message = hello.clone();
    late_message[17..19].copy_from_slice(&65_531u16.to_be_bytes());
    let mut late_record = hello.clone();
    late_record[5..11].fill(0xff);
    for mut bad in [long, late_message, late_record] {
        net.server.handle_datagram(now, clients_path(), &mut bad);
        assert!(net.server.outbox().is_empty());
    }
    assert_eq!(net.server.stats().drops.get(DropCause::Malformed), 3);
    net.server.handle_datagram(now, clients_path(), &mut hello.clone());
    assert!(!net.server.outbox().is_empty(), "the original is fine");
}

#[test]
fn forged_alerts_and_messages_do_not_end_a_handshake_on_a_lossy_link() {
    let link = LinkConfig { loss: 0.2, ..LinkConfig::default() };
    let (server, client) = (Arc::new(config()), Arc::new(config()));
    let mut opened = 0;
    for seed in 0..60 {
        let mut net = Net::new(seed, &link, server.clone());
        net.connect(client.clone());
        // Before anything else, and again half-way: an alert, and messages that are not due.
        for _ in 0..2 {
            let (now, address) = (net.now(), net.server_address());
            for forged in [record(21, 0, 80, &[2, 40]), empty_message(20, 0), empty_message(14, 1)]
            {
                net.client.handle_datagram(now, address.into(), &mut forged.clone());
                net.server.handle_datagram(now, clients_path(), &mut forged.clone());
            }
            for seq in 2..6 {
                let mut forged = empty_message(20, seq);
                net.server.handle_datagram(now, clients_path(), &mut forged);
            }
            net.run_until(Duration::from_millis(70), |n| n.both_open());
        }
        opened += u32::from(net.run_until(MINUTE, |n| n.both_open()));
    }
    assert!(opened >= 59, "{opened} of 60");
}

#[test]
fn a_forged_fragment_does_not_block_a_message_that_comes_in_pieces() {
    let small = || config().with_mtu(256);
    let mut net = Net::new(1, &LinkConfig::default(), Arc::new(small()));
    net.connect(Arc::new(small()));
    assert!(net.run_until(MINUTE, |n| n.server.half_open() == 1));
    let now = net.now();
    for seq in 2..5 {
        let forged = [11, 0, 0, 9, 0, seq, 0, 0, 0, 0, 0, 1, 7];
        net.server.handle_datagram(now, clients_path(), &mut record(22, 0, 60, &forged));
    }
    assert!(net.run_until(MINUTE, |n| n.both_open()), "{:?}", net.server.stats());
}

#[test]
fn two_cookies_for_one_hello_do_not_end_the_handshake() {
    // With 500 ms of round trip the first hello and its resend may meet different cookie secrets.
    let link = LinkConfig { delay: Duration::from_millis(250), ..LinkConfig::default() };
    let (server, client) = (Arc::new(config()), Arc::new(config()));
    for offset_ms in (59_000..60_200).step_by(50) {
        let mut net = Net::new(1, &link, server.clone());
        net.advance_to(net.now() + Duration::from_millis(offset_ms));
        net.connect(client.clone());
        let opened = net.run_until(Duration::from_secs(10), |n| n.both_open());
        assert!(opened, "begun at {offset_ms} ms: {:?}", net.events);
    }
}

#[test]
fn a_late_copy_of_the_hello_begins_no_second_association() {
    let mut net = net();
    let (now, server) = (net.now(), net.server_address());
    net.server.handle_datagram(now, clients_path(), &mut first_datagram(&mut net.client));
    let mut request = first_datagram(&mut net.server);
    net.client.handle_datagram(now, server.into(), &mut request);
    let hello_with_cookie = first_datagram(&mut net.client);
    net.up.push(now, hello_with_cookie.clone());
    assert!(net.run_until(MINUTE, |n| n.both_open()));
    let sent = net.server.stats().datagrams_out;
    for _ in 0..10 {
        let now = net.now();
        net.server.handle_datagram(now, clients_path(), &mut hello_with_cookie.clone());
    }
    assert_eq!((net.server.associations(), net.server.half_open()), (1, 0));
    assert_eq!(net.server.stats().datagrams_out, sent);
}

#[test]
fn a_client_with_other_session_id_and_extensions_beside_its_cookie_is_served() {
    let mut net = net();
    let rogue = Rogue::client(identity(&rcgen::PKCS_ECDSA_P256_SHA256));
    let mut hello = HelloFields { session_id: vec![1; 32], ..rogue.hello() };
    let now = net.now();
    let mut first = Piece::whole(1, 0, &hello.body()).datagram(0);
    net.server.handle_datagram(now, clients_path(), &mut first);
    // The cookie of the request to verify: behind both headers, version and length.
    hello.cookie = first_datagram(&mut net.server)[13 + 12 + 3..].to_vec();
    hello.session_id = vec![2; 32];
    hello.extensions.reverse();
    let mut second = Piece::whole(1, 1, &hello.body()).datagram(1);
    net.server.handle_datagram(now, clients_path(), &mut second);
    assert_eq!(net.server.half_open(), 1, "{:?}", net.server.stats());
}

#[test]
fn spoofed_repetitions_draw_ever_fewer_flights() {
    let mut net = net();
    assert!(net.run_until(MINUTE, |n| n.server.half_open() == 1));
    // The client falls silent; somebody spoofs what looks like a repeated hello, without its random.
    net.up.clear();
    net.down.clear();
    let before = net.server.stats().bytes_out;
    let (mut bytes_in, end) = (0, net.now() + Duration::from_secs(50));
    while net.now() < end {
        let at = net.now() + Duration::from_millis(20);
        let mut spoof = record(20, 0, 9, &[1]);
        spoof.extend(record(22, 0, 10, &[1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]));
        bytes_in += spoof.len() as u64;
        net.server.handle_datagram(at, clients_path(), &mut spoof);
        net.advance_to(at);
        net.down.clear();
        net.up.clear();
    }
    let bytes_out = net.server.stats().bytes_out - before;
    assert!(bytes_out < bytes_in / 2, "{bytes_in} in, {bytes_out} out");
}

#[test]
fn the_largest_message_fits_a_record_whatever_the_mtu() {
    // With a connection id the record's real type takes one byte of it.
    for (mode, largest) in
        [(ConnectionIdMode::Off, 1 << 14), (ConnectionIdMode::Made, (1 << 14) - 1)]
    {
        let wide = || config().with_mtu(65_507).with_connection_id(mode.clone());
        let link = LinkConfig { mtu: 65_507, ..LinkConfig::default() };
        let mut net = Net::new(1, &link, Arc::new(wide()));
        net.connect(Arc::new(wide()));
        assert!(net.run_until(MINUTE, |n| n.both_open()));
        let id = net.events.iter().find(|e| e.1 == Side::Client).unwrap().2;
        let size = net.client.message_size_max(id);
        assert_eq!(size, largest);
        assert!(matches!(net.client.send(id, &vec![1; size + 1]), Err(SendError::TooLarge { .. })));
        net.client.send(id, &vec![7; size]).unwrap();
        net.events.clear();
        assert!(net.run_until(MINUTE, |n| !n.events.is_empty()));
        assert!(matches!(&net.events[0].3, Event::Message { data, .. } if data.len() == size));
    }
}

#[test]
fn what_waits_to_be_sent_is_bounded() {
    let mut net = net();
    assert!(net.run_until(MINUTE, |n| n.both_open()));
    let id = net.events.iter().find(|e| e.1 == Side::Client).unwrap().2;
    let mut accepted = 0;
    let refused = loop {
        match net.client.send(id, &[7; 1_000]) {
            Ok(_) => accepted += 1_000,
            Err(error) => break error,
        }
        assert!(accepted <= OUTBOX_BYTES_MAX);
    };
    assert_eq!(refused, SendError::Full);
    assert!(!net.client.has_room());
    let number = net.client.next_sequence(id);
    net.client.outbox().pop();
    assert!(net.client.has_room());
    assert_eq!(net.client.send(id, b"again").ok(), number, "no number was skipped");
}

#[test]
fn an_ipv4_peer_on_a_dual_stack_socket_is_one_peer() {
    let mut server = Net::new(2, &LinkConfig::default(), Arc::new(config()));
    let now = server.now();
    let mut client = Endpoint::new(now, EndpointConfig::default()).unwrap();
    let plain: SocketAddr = ([127, 0, 0, 1], 4_433).into();
    let mapped: SocketAddr = "[::ffff:127.0.0.1]:4433".parse().unwrap();
    client.connect(now, plain, Arc::new(config())).unwrap();
    let mut hello = first_datagram(&mut client);
    server.server.handle_datagram(now, clients_path(), &mut hello);
    let mut request = first_datagram(&mut server.server);
    // As the dual-stack socket shows where it came from.
    client.handle_datagram(now, mapped.into(), &mut request);
    assert_eq!(client.stats().drops.total(), 0);
    assert!(!client.outbox().is_empty(), "the request was answered");
}

#[test]
fn a_path_for_small_datagrams_only_is_found_out() {
    let link = LinkConfig { mtu: 900, ..LinkConfig::default() };
    let mut net = Net::new(1, &link, Arc::new(config()));
    net.connect(Arc::new(config()));
    assert!(net.run_until(MINUTE, |n| n.both_open()), "{:?}", net.server.stats());
    // And what is sent afterwards fits as well.
    for (_, side, id, _) in std::mem::take(&mut net.events) {
        let endpoint = match side {
            Side::Client => &mut net.client,
            Side::Server => &mut net.server,
        };
        let size = endpoint.message_size_max(id);
        if size < 900 {
            endpoint.send(id, &vec![1; size]).unwrap();
            assert!(net.run_until(MINUTE, |n| !n.events.is_empty()));
        }
    }
}

#[test]
fn timers_of_zero_neither_hang_nor_flood() {
    let zero = Timers {
        first_resend: Duration::ZERO,
        resend_cap: Duration::ZERO,
        give_up: Duration::MAX,
        give_up_in_all: Duration::MAX,
        alert_grace: Duration::MAX,
    };
    let link = LinkConfig { loss: 1.0, ..LinkConfig::default() };
    let mut net = Net::new(1, &link, Arc::new(config().with_timers(zero)));
    net.connect(Arc::new(config().with_timers(zero)));
    net.run_until(Duration::from_secs(1), |_| false);
    assert!(net.up.stats().pushed <= 101, "{:?}", net.up.stats());
}

#[test]
fn a_hello_request_does_not_take_the_number_of_the_message_that_is_due() {
    // The server's flight needs several datagrams; after each, somebody throws in HelloRequests.
    let small = || config().with_mtu(256);
    let mut net = Net::new(1, &LinkConfig::default(), Arc::new(small()));
    net.connect(Arc::new(small()));
    assert!(net.run_until(MINUTE, |n| n.server.half_open() == 1));
    let (arrival, from) = (net.down.next_due().unwrap(), net.server_address());
    let mut pieces = 0;
    while let Some(mut datagram) = net.down.pop(arrival) {
        net.client.handle_datagram(arrival, from.into(), &mut datagram);
        for seq in 1..6 {
            net.client.handle_datagram(arrival, from.into(), &mut empty_message(0, seq));
        }
        pieces += 1;
    }
    assert!(pieces > 2, "{pieces}");
    assert!(net.run_until(MINUTE, |n| n.both_open()), "{:?}", net.client.stats());
}

#[test]
fn a_certificate_that_names_another_curve_for_our_key_is_not_ours() {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let params = rcgen::CertificateParams::new(vec!["test".into()]).unwrap();
    let mut certificate = params.self_signed(&key).unwrap().der().to_vec();
    let taken = Credentials::from_der(certificate.clone(), &key.serialize_der());
    assert!(taken.is_ok());
    // id-prime256v1 of the key becomes an unknown curve; the key's own bytes stay.
    let curve = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    let at = certificate.windows(8).position(|bytes| bytes == curve).unwrap();
    certificate[at + 7] = 0x21;
    let refused = Credentials::from_der(certificate, &key.serialize_der());
    assert_eq!(refused.err(), Some(CredentialsError::Mismatch));
}
