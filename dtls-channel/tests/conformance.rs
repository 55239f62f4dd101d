//! What BoringSSL's protocol tests found, one test per finding, named after the runner's.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use common::config;
use dtls_channel::testing::{LinkConfig, Net};
use dtls_channel::{AssociationId, Connection, Path, Sink};

fn now() -> Instant {
    Net::new(0, &LinkConfig::default(), Arc::new(config())).now()
}

fn path() -> Path {
    SocketAddr::from(([127, 0, 0, 1], 1)).into()
}

/// The first datagram that waits.
fn datagram(sink: &mut Sink) -> Vec<u8> {
    let (transmit, bytes) = sink.outbox.front().unwrap();
    let first = bytes[..transmit.segment_size.unwrap_or(bytes.len())].to_vec();
    sink.outbox.pop();
    first
}

fn client(now: Instant, sink: &mut Sink) -> Connection {
    Connection::client(now, AssociationId::STANDALONE, path(), Arc::new(config()), sink).unwrap()
}

/// `DTLS-HelloVerifyRequest-0`: RFC 6347 §4.2.1 allows a cookie of no bytes.
#[test]
fn a_request_to_verify_with_an_empty_cookie_is_answered_once() {
    let (now, mut sink) = (now(), Sink::default());
    let mut client = client(now, &mut sink);
    let first = datagram(&mut sink);
    let request = [3, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 3, 0xfe, 0xff, 0];
    let record = [&[22, 0xfe, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 15][..], &request].concat();
    client.handle_datagram(now, &mut record.clone(), &mut sink);
    let second = datagram(&mut sink);
    assert_eq!((first[17..19].to_vec(), second[17..19].to_vec()), (vec![0, 0], vec![0, 1]));
    assert_eq!(first[25..], second[25..], "the same hello");
    client.handle_datagram(now, &mut record.clone(), &mut sink);
    assert!(sink.outbox.is_empty());
}

/// What a server first says to a hello of this version: the record's type and first body byte.
fn answer_to_version(version: u16) -> (u8, u8) {
    let (now, mut sink) = (now(), Sink::default());
    drop(client(now, &mut sink));
    let mut hello = datagram(&mut sink);
    hello[25..27].copy_from_slice(&version.to_be_bytes());
    let (id, config) = (AssociationId::STANDALONE, Arc::new(config()));
    let mut server = Connection::server_without_cookie(now, id, path(), config, &mut sink);
    server.handle_datagram(now, &mut hello, &mut sink);
    let answer = datagram(&mut sink);
    (answer[0], answer[13])
}

/// `MajorVersionTolerance` and `VersionTooLow`: RFC 5246 §E.1, versions counting downwards.
#[test]
fn a_client_of_a_later_version_is_answered_with_ours_and_one_of_an_earlier_refused() {
    let (server_hello, alert) = ((22, 2), (21, 2));
    for later in [0xfefd, 0xfefc, 0xfdff, 0x0000] {
        assert_eq!(answer_to_version(later), server_hello, "{later:#06x}");
    }
    for earlier in [0xfefe, 0xfeff, 0xffff] {
        assert_eq!(answer_to_version(earlier), alert, "{earlier:#06x}");
    }
}
