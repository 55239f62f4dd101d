//! Inputs to begin with, made from genuine keys and handshakes.

mod scripts;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{Config, ConnectionIdMode};
use crate::conn::Connection;
use crate::crypto::CipherSuite;
use crate::event::AssociationId;
use crate::handshake::fragments;
use crate::outbox::Sink;
use crate::record::Records;
use crate::testing::AcceptAnyone;
use crate::testing::fuzz::certificate::MESSAGE;
use crate::testing::fuzz::handshake::KINDS;
use crate::testing::fuzz::identity::Identity;
use crate::testing::fuzz::session::{CONTEXT, TICKET_KEYS, ticket_keys};
use crate::wire::{ContentType, Write};

/// An input with its name.
pub type Seed = (String, Vec<u8>);

/// The names of the targets and their inputs.
#[must_use]
pub fn all() -> Vec<(&'static str, Vec<Seed>)> {
    vec![
        ("association", scripts::associations()),
        ("certificate", certificates()),
        ("endpoint", scripts::endpoints()),
        ("handshake", messages()),
        ("reassembly", scripts::reassemblies()),
        ("record", records()),
        ("session", sessions()),
    ]
}

/// Each identity with a signature of its own, one of another, and its key.
fn certificates() -> Vec<Seed> {
    let mut seeds = Vec::new();
    let mut add = |name: String, mode: u8, first: &[u8], certificate: &[u8]| {
        let mut seed = vec![mode];
        seed.vec16(|w| w.bytes(first));
        seed.bytes(certificate);
        seeds.push((name, seed));
    };
    for who in Identity::ALL {
        let credentials = who.credentials();
        let signature = credentials.signer().sign(MESSAGE).expect("randomness");
        for mode in 0..3 {
            add(format!("signed-{mode}-{who:?}"), mode, &signature, who.certificate());
        }
        add(format!("unsupported-{who:?}"), 3, &signature, who.certificate());
        add(format!("other-{who:?}"), 0, &signature, Identity::Server.certificate());
        add(format!("key-{who:?}"), 4, who.pkcs8(), who.certificate());
        add(format!("key-other-{who:?}"), 4, who.pkcs8(), Identity::Client.certificate());
    }
    seeds
}

/// The messages of handshakes with each kind of key, and the records they came in.
fn messages() -> Vec<Seed> {
    let mut seeds = Vec::new();
    for who in Identity::ALL {
        for (number, mut datagram) in genuine_datagrams(who, 1_200).into_iter().enumerate() {
            for record in Records::new(&mut datagram) {
                if record.epoch != 0 || record.content_type != ContentType::HANDSHAKE {
                    continue;
                }
                seeds.push((format!("record-{who:?}-{number}"), prefixed(255, record.body)));
                for fragment in fragments(record.body).map_while(Result::ok) {
                    if let Some(kind) = KINDS.iter().position(|k| *k == fragment.kind) {
                        let name = format!("{:?}-{who:?}-{number}", fragment.kind);
                        seeds.push((name, prefixed(kind as u8, fragment.body)));
                    }
                }
            }
        }
    }
    // What our own handshake without a cookie does not have.
    seeds.push(("HELLO_VERIFY_REQUEST".into(), vec![1, 0xfe, 0xff, 3, 1, 2, 3]));
    seeds
}

fn prefixed(first: u8, rest: &[u8]) -> Vec<u8> {
    [&[first], rest].concat()
}

/// What is stored between associations.
fn sessions() -> Vec<Seed> {
    let suites = CipherSuite::ALL.map(CipherSuite::iana);
    let mut seeds = vec![("keys".to_owned(), prefixed(1, TICKET_KEYS))];
    for (number, suite) in suites.into_iter().enumerate() {
        for own in [&[][..], &[4; 32]] {
            let mut head = vec![1];
            head.u16(suite);
            head.bytes(&[5; 48]);
            let (mut session, mut resumable) = (prefixed(0, &head), prefixed(2, &head));
            session.bytes(&7_200u32.to_be_bytes());
            session.vec16(|w| w.bytes(b"ticket"));
            session.vec16(|w| w.bytes(Identity::Server.certificate()));
            session.vec8(|w| w.bytes(own));
            resumable.vec8(|w| w.bytes(own));
            let sealed = ticket_keys().seal(&CONTEXT, &resumable[1..]).expect("randomness");
            seeds.push((format!("session-{number}-{}", own.len()), session));
            seeds.push((format!("resumable-{number}-{}", own.len()), resumable));
            seeds.push((format!("ticket-{number}-{}", own.len()), prefixed(3, &sealed)));
        }
    }
    seeds
}

/// Genuine datagrams, and scripts that seal and open with each suite and window.
fn records() -> Vec<Seed> {
    let mut seeds = Vec::new();
    for (number, datagram) in genuine_datagrams(Identity::Client, 300).into_iter().enumerate() {
        seeds.push((format!("datagram-{number}"), datagram));
    }
    for suite in 0..3 {
        for window in [0, 1, 2, 8, 12u8] {
            let mut script = vec![suite | window << 4];
            for n in 0..6 {
                script.extend([0, 23, 3, n, n, n]); // seal three bytes
                script.extend([4, n, 4, 0]); // open it, and the first again
                script.extend([6, n, 0, n, 1]); // and bent
                script.extend([3, 0, n * 40]); // lose some
            }
            script.extend([2, 0x40, 0, 2, 0x40, 1, 4, 6, 4, 7]);
            seeds.push((format!("script-{suite}-{window}"), script));
        }
    }
    seeds
}

/// Every datagram of a handshake without loss, and one message each way.
fn genuine_datagrams(who: Identity, mtu: usize) -> Vec<Vec<u8>> {
    #[allow(clippy::disallowed_methods, reason = "a virtual clock starts somewhere")]
    let now = Instant::now();
    let config = Config::new(who.credentials(), Arc::new(AcceptAnyone))
        .with_connection_id(ConnectionIdMode::Off)
        .with_mtu(mtu)
        .with_ticket_keys(Arc::new(ticket_keys()), Duration::from_secs(3_600))
        .asking_for_tickets();
    let (config, id) = (Arc::new(config), AssociationId::STANDALONE);
    let path = SocketAddr::from(([127, 0, 0, 1], 1)).into();
    let mut sinks = [Sink::default(), Sink::default()];
    let server = Connection::server_without_cookie(now, id, path, config.clone(), &mut sinks[1]);
    let client = Connection::client(now, id, path, config, &mut sinks[0]).expect("randomness");
    let mut ends = [client, server];
    let mut all = Vec::new();
    for round in 0..8 {
        if round == 6 {
            for side in 0..2 {
                ends[side].send(b"message", &mut sinks[side]).expect("open by now");
            }
        }
        let side = round % 2;
        while let Some((transmit, bytes)) = sinks[side].outbox.front() {
            let size = transmit.segment_size.unwrap_or(bytes.len());
            let datagrams: Vec<_> = bytes.chunks(size).map(<[u8]>::to_vec).collect();
            sinks[side].outbox.pop();
            for mut datagram in datagrams {
                all.push(datagram.clone());
                let at = now + Duration::from_millis(round as u64);
                ends[1 - side].handle_datagram(at, &mut datagram, &mut sinks[1 - side]);
            }
        }
    }
    all
}
