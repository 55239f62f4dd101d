//! Clauses of RFC 6347 that no other test shows; `docs/rfc6347.md` has them all.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;

use common::{config, identity};
use dtls_channel::testing::{LinkConfig, Net, Rogue};
use dtls_channel::{Endpoint, EndpointConfig};

/// DTLS 1.0 and 1.2 on the wire.
const VERSION_1_0: [u8; 2] = [0xfe, 0xff];
const VERSION_1_2: [u8; 2] = [0xfe, 0xfd];
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const HELLO_VERIFY_REQUEST: u8 = 3;

/// What stands at the front of a record that begins with a handshake message.
#[derive(Debug, PartialEq, Eq)]
struct Front {
    record_version: [u8; 2],
    record_sequence: u64,
    message: u8,
    message_seq: u16,
    /// The version inside.
    body_version: [u8; 2],
}

fn front(datagram: &[u8]) -> Front {
    let number = |bytes: &[u8]| bytes.iter().fold(0, |n, b| n << 8 | u64::from(*b));
    Front {
        record_version: [datagram[1], datagram[2]],
        record_sequence: number(&datagram[5..11]),
        message: datagram[13],
        message_seq: number(&datagram[17..19]) as u16,
        body_version: [datagram[25], datagram[26]],
    }
}

/// The first datagram that waits; the others are forgotten.
fn first_datagram(endpoint: &mut Endpoint) -> Vec<u8> {
    let (transmit, bytes) = endpoint.outbox().front().unwrap();
    let first = bytes[..transmit.segment_size.unwrap_or(bytes.len())].to_vec();
    while endpoint.outbox().front().is_some() {
        endpoint.outbox().pop();
    }
    first
}

/// §4.2.1: the request to verify has version 1.0 and the record number of the hello that it answers,
/// and so has the ServerHello the one of its hello, with the message number that follows.
#[test]
fn the_answers_to_hellos_take_over_their_record_numbers() {
    let now = Net::new(0, &LinkConfig::default(), Arc::new(config())).now();
    let server = Some(Arc::new(config()));
    let serving = EndpointConfig { server, ..EndpointConfig::default() };
    let mut endpoint = Endpoint::new(now, serving).unwrap();
    let mut rogue = Rogue::client(identity(&rcgen::PKCS_ECDSA_P256_SHA256));
    let mut answer_to = |rogue: &mut Rogue, record_sequence| {
        rogue.record_sequence = record_sequence;
        let hello = rogue.hello().body();
        let mut hello = rogue.say_plain(CLIENT_HELLO, &hello);
        let path = SocketAddr::from(([203, 0, 113, 7], 40_000)).into();
        endpoint.handle_datagram(now, path, &mut hello);
        first_datagram(&mut endpoint)
    };
    let request = answer_to(&mut rogue, 41);
    rogue.hear(&request);
    let front_of_request = Front {
        record_version: VERSION_1_0,
        record_sequence: 41,
        message: HELLO_VERIFY_REQUEST,
        message_seq: 0,
        body_version: VERSION_1_0,
    };
    assert_eq!(front(&request), front_of_request);
    let answer = answer_to(&mut rogue, 0x0102_0304_0506);
    let front_of_answer = Front {
        record_version: VERSION_1_2,
        record_sequence: 0x0102_0304_0506,
        message: SERVER_HELLO,
        message_seq: 1,
        body_version: VERSION_1_2,
    };
    assert_eq!(front(&answer), front_of_answer);
}

/// §4.1 and RFC 5246 §E.1: a server that negotiates down must be able to read the record.
#[test]
fn our_hello_offers_1_2_in_a_record_of_1_0() {
    let mut net = Net::new(0, &LinkConfig::default(), Arc::new(config()));
    net.connect(Arc::new(config()));
    let hello = Front {
        record_version: VERSION_1_0,
        record_sequence: 0,
        message: CLIENT_HELLO,
        message_seq: 0,
        body_version: VERSION_1_2,
    };
    assert_eq!(front(&first_datagram(&mut net.client)), hello);
}
