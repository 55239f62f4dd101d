//! RFC 8449: how long the content of protected records may be. The clauses are in `docs/rfc8449.md`.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use dtls_channel::testing::{LinkConfig, Net, Side};
use dtls_channel::{
    AlertDescription, AssociationId, CloseReason, Config, Connection, ConnectionIdMode, Event,
    PeerFault, SendError, Sink,
};

const MINUTE: Duration = Duration::from_secs(60);

/// Without connection ids, which take room of their own.
fn config() -> Config {
    common::config().with_connection_id(ConnectionIdMode::Off)
}

/// What client and server may send at most, over datagrams of 1,200 bytes.
fn agreed(client: Config, server: Config) -> (usize, usize) {
    let mut net = Net::new(1, &LinkConfig::default(), Arc::new(server));
    net.connect(Arc::new(client));
    assert!(net.run_until(MINUTE, |n| n.both_open()), "{:?}", net.events);
    let id = |side| net.events.iter().find(|e| e.1 == side).unwrap().2;
    let (client, server) = (id(Side::Client), id(Side::Server));
    let sizes = (net.client.message_size_max(client), net.server.message_size_max(server));
    for (side, size) in [(Side::Client, sizes.0), (Side::Server, sizes.1)] {
        net.events.clear();
        let (endpoint, id) = match side {
            Side::Client => (&mut net.client, client),
            Side::Server => (&mut net.server, server),
        };
        let too_large = SendError::TooLarge { length: size + 1, limit: size };
        assert_eq!(endpoint.send(id, &vec![1; size + 1]), Err(too_large));
        endpoint.send(id, &vec![1; size]).unwrap();
        assert!(net.run_until(MINUTE, |n| !n.events.is_empty()));
        let Event::Message { data, .. } = &net.events[0].3 else { panic!("{:?}", net.events) };
        assert_eq!(data.len(), size);
    }
    assert_eq!(net.client.stats().drops.total() + net.server.stats().drops.total(), 0);
    sizes
}

#[test]
fn each_side_keeps_to_the_limit_of_the_other_and_to_the_datagram_size() {
    let whole = agreed(config(), config());
    assert!((1_100..1_200).contains(&whole.0));
    assert_eq!(whole.0, whole.1);
    let limited = |bytes| config().with_record_size_limit(bytes);
    assert_eq!(agreed(limited(64), config()), (whole.0, 64));
    assert_eq!(agreed(config(), limited(64)), (64, whole.1));
    assert_eq!(agreed(limited(100), limited(700)), (700, 100));
    assert_eq!(agreed(limited(0), limited(u16::MAX)), (whole.0, 64), "brought into the range");
}

#[test]
fn a_wide_datagram_holds_no_longer_a_record_than_the_protocol_and_the_peer_allow() {
    let wide = || config().with_mtu(65_507);
    let link = LinkConfig { mtu: 65_507, ..LinkConfig::default() };
    for (limit, expected) in [(u16::MAX, 1 << 14), (9_000, 9_000)] {
        let server = wide().with_record_size_limit(limit);
        let mut net = Net::new(1, &link, Arc::new(server));
        let id = net.connect(Arc::new(wide()));
        assert!(net.run_until(MINUTE, |n| n.both_open()));
        assert_eq!(net.client.message_size_max(id), expected);
    }
}

fn now() -> Instant {
    Net::new(0, &LinkConfig::default(), Arc::new(config())).now()
}

fn path() -> dtls_channel::Path {
    std::net::SocketAddr::from(([127, 0, 0, 1], 1)).into()
}

/// The first datagram that waits.
fn datagram(sink: &mut Sink) -> Vec<u8> {
    let (transmit, bytes) = sink.outbox.front().unwrap();
    let datagram = bytes[..transmit.segment_size.unwrap_or(bytes.len())].to_vec();
    sink.outbox.pop();
    datagram
}

/// Replaces the one place where `from` stands.
fn replace(bytes: &mut [u8], from: &[u8], to: &[u8]) {
    let at: Vec<usize> = bytes
        .windows(from.len())
        .enumerate()
        .filter(|(_, w)| *w == from)
        .map(|(at, _)| at)
        .collect();
    let [at] = at[..] else { panic!("{at:?}") };
    bytes[at..at + to.len()].copy_from_slice(to);
}

const OFFER: [u8; 6] = [0, 28, 0, 2, 0x40, 0];
const RENEGOTIATION_INFO: [u8; 5] = [0xff, 1, 0, 1, 0];
const MAX_FRAGMENT_LENGTH: [u8; 5] = [0, 1, 0, 1, 4];

/// What a side makes of the other's hello in which `from` became `to`: the end, and the alert.
fn outcome(server: bool, from: &[u8], to: &[u8]) -> (Option<CloseReason>, Option<u8>) {
    let (id, mut to_server, mut to_client) =
        (AssociationId::STANDALONE, Sink::default(), Sink::default());
    let (now, config) = (now(), Arc::new(config()));
    let mut client = Connection::client(now, id, path(), config.clone(), &mut to_server).unwrap();
    let mut serving = Connection::server_without_cookie(now, id, path(), config, &mut to_client);
    let mut hello = datagram(&mut to_server);
    if server {
        replace(&mut hello, from, to);
    }
    serving.handle_datagram(now, &mut hello, &mut to_client);
    let sink = if server {
        &mut to_client
    } else {
        let mut answer = datagram(&mut to_client);
        replace(&mut answer, from, to);
        client.handle_datagram(now, &mut answer, &mut to_server);
        &mut to_server
    };
    let closed = std::iter::from_fn(|| sink.poll_event()).find_map(|(_, event)| match event {
        Event::Closed(reason) => Some(reason),
        _ => None,
    });
    let alert = closed.as_ref().map(|_| *datagram(sink).last().unwrap());
    (closed, alert)
}

#[test]
fn a_limit_below_64_bytes_is_an_illegal_parameter_from_either_side() {
    let expected = || {
        let fault = CloseReason::PeerFault(PeerFault::BadRecordSizeLimit);
        (Some(fault), Some(AlertDescription::ILLEGAL_PARAMETER.0))
    };
    for server in [false, true] {
        for limit in [0u16, 1, 63] {
            let [high, low] = limit.to_be_bytes();
            let bent = outcome(server, &OFFER, &[0, 28, 0, 2, high, low]);
            assert_eq!(bent, expected(), "server {server}, limit {limit}");
        }
        for limit in [64u16, u16::MAX] {
            let [high, low] = limit.to_be_bytes();
            let fine = outcome(server, &OFFER, &[0, 28, 0, 2, high, low]);
            assert_eq!(fine, (None, None), "server {server}, limit {limit}");
        }
    }
}

#[test]
fn a_server_that_limits_records_twice_is_refused_and_a_client_that_offers_both_is_not() {
    let (closed, alert) = outcome(false, &RENEGOTIATION_INFO, &MAX_FRAGMENT_LENGTH);
    assert_eq!(closed, Some(CloseReason::PeerFault(PeerFault::BadRecordSizeLimit)));
    assert_eq!(alert, Some(AlertDescription::ILLEGAL_PARAMETER.0));
    assert_eq!(outcome(true, &RENEGOTIATION_INFO, &MAX_FRAGMENT_LENGTH), (None, None));
}

#[test]
fn a_limit_of_another_length_than_two_bytes_is_malformed() {
    // One byte more, taken from the extension list's end: the hello as a whole still adds up.
    for server in [false, true] {
        let (closed, alert) = outcome(server, &OFFER, &[0, 28, 0, 1, 0x40, 0]);
        assert!(matches!(closed, Some(CloseReason::PeerFault(PeerFault::Malformed(_)))));
        assert_eq!(alert, Some(AlertDescription::DECODE_ERROR.0));
    }
}

#[test]
fn a_peer_without_the_extension_is_bound_by_the_protocol_alone() {
    // An unknown extension of the same length in its place.
    let unknown = [0xaa, 0xaa, 0, 2, 0, 64];
    assert_eq!(outcome(true, &OFFER, &unknown), (None, None));
    // In a server's answer nothing may come that was not offered.
    let (closed, _) = outcome(false, &OFFER, &unknown);
    let unsolicited = PeerFault::UnsolicitedExtension(0xaaaa);
    assert_eq!(closed, Some(CloseReason::PeerFault(unsolicited)));
}
