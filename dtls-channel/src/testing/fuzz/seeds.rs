//! Inputs to begin with, made from genuine keys and handshakes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::certificate::MESSAGE;
use super::handshake::KINDS;
use super::identity::Identity;
use super::session::{CONTEXT, TICKET_KEYS, ticket_keys};
use crate::config::Config;
use crate::conn::Connection;
use crate::crypto::CipherSuite;
use crate::event::AssociationId;
use crate::handshake::fragments;
use crate::outbox::Sink;
use crate::record::Records;
use crate::testing::AcceptAnyone;
use crate::wire::{ContentType, Write};

/// An input with its name.
pub type Seed = (String, Vec<u8>);

/// The names of the targets and their inputs.
#[must_use]
pub fn all() -> Vec<(&'static str, Vec<Seed>)> {
    vec![
        ("association", associations()),
        ("certificate", certificates()),
        ("endpoint", endpoints()),
        ("handshake", messages()),
        ("reassembly", reassemblies()),
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

/// Whole, in pieces, out of order, overlapping, contradicting, forgotten.
fn reassemblies() -> Vec<Seed> {
    // Tags: 5.. a whole message, 8.. a piece (sequence, length, offset, taken), 2 the next message.
    let (whole, piece, next, forget, rebase) = (5, 8, 2, 1, 0);
    let scripts: [(&str, &[u8]); 8] = [
        ("whole", &[whole, 2, 20, next, whole, 2, 0, next, whole, 3, 5, whole, 2, 5, next, next]),
        ("pieces", &[piece, 2, 40, 0, 10, piece, 2, 40, 20, 20, piece, 2, 40, 10, 10, next]),
        ("overlap", &[piece, 2, 40, 5, 20, piece, 2, 40, 0, 30, piece, 2, 40, 10, 30, next]),
        ("contradiction", &[piece, 2, 40, 5, 20, piece, 2, 41, 0, 30, piece | 0x80, 2, 41, 0, 30]),
        ("large", &[piece, 2, 250, 0, 250, piece, 3, 250, 9, 9, whole, 2, 250, whole, 2, 255]),
        ("whole-after-pieces", &[piece, 2, 40, 5, 20, whole, 2, 40, next, piece, 1, 40, 5, 20]),
        ("forgotten", &[piece, 2, 40, 5, 20, forget, piece, 2, 40, 0, 30, rebase, 9, next]),
        ("far", &[piece, 9, 40, 5, 20, piece, 10, 40, 5, 20, piece, 0, 4, 1, 2]),
    ];
    let mut seeds: Vec<Seed> = Vec::new();
    for (name, script) in scripts {
        seeds.push((name.into(), [&[0, 0], script].concat()));
        seeds.push((format!("{name}-last"), [&[0xff, 0xfe], script].concat()));
    }
    let mut sparse = vec![0, 0];
    for offset in (0..160).step_by(2) {
        sparse.extend([piece, 2, 200, offset, 1]);
    }
    seeds.push(("sparse".into(), sparse));
    seeds
}

/// Genuine datagrams, and scripts that seal and open with each suite and window.
fn records() -> Vec<Seed> {
    let mut seeds = Vec::new();
    for (number, datagram) in genuine_datagrams(Identity::Client, 300).into_iter().enumerate() {
        seeds.push((format!("datagram-{number}"), datagram));
    }
    for suite in 0..3 {
        for window in 0..3u8 {
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

/// Handshakes under many settings, with losses, repetitions and forgeries, resumed ones too.
fn associations() -> Vec<Seed> {
    // Tags of `Operation`; with 0x80 they are about the server.
    let (exchange, deliver, nth, all, again, lose, replay) = (0, 1, 2, 3, 4, 5, 6);
    let (bend, part, raw, forge, wait, timer, send, close, anew) =
        (7, 8, 9, 10, 11, 12, 13, 14, 15);
    let server = 0x80;
    let scripts: [(&str, Vec<u8>); 12] = [
        ("open", vec![exchange, send, 9, server | send, 200, exchange, close | 0x40, exchange]),
        (
            "resume",
            vec![exchange, anew, exchange, send, 9, server | send, 1, exchange, anew, timer],
        ),
        (
            "loss",
            vec![
                lose,
                0,
                timer,
                server | all,
                server | lose,
                0,
                timer,
                timer,
                all,
                server | lose,
                1,
            ],
        ),
        (
            "repeats",
            vec![server | again, 0, server | all, again, 1, again, 0, all, server | replay, 0],
        ),
        (
            "orders",
            vec![server | all, nth, 3, nth, 2, nth, 1, server | nth, 2, server | nth, 1, deliver],
        ),
        (
            "pieces",
            vec![server | all, part, 0, 1, part, 0, 0, part, 1, 0, all, server | part, 0, 3],
        ),
        ("early-data", vec![server | all, all, server | deliver, send, 3, server | all, timer]),
        (
            "bent",
            vec![
                server | bend,
                0,
                0,
                30,
                1,
                exchange,
                bend,
                0,
                0,
                99,
                4,
                send,
                1,
                server | bend,
                0,
                0,
                20,
                1,
            ],
        ),
        (
            "alert",
            vec![
                forge,
                1,
                0,
                7,
                2,
                2,
                40,
                wait,
                100,
                exchange,
                timer,
                server | forge,
                1,
                0,
                0,
                2,
                1,
                0,
            ],
        ),
        (
            "forged-message",
            vec![
                forge | 0x40,
                2,
                0,
                1,
                0,
                0,
                0,
                4,
                1,
                2,
                3,
                4,
                exchange,
                server | forge | 0x40,
                20,
                2,
                5,
                0,
                0,
                0,
                12,
            ],
        ),
        (
            "raw",
            vec![
                raw,
                14,
                22,
                0xfe,
                0xfd,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                1,
                0,
                1,
                0,
                exchange,
                server | close,
                250,
                exchange,
            ],
        ),
        (
            "old-replayed",
            vec![
                exchange,
                send,
                5,
                exchange,
                anew,
                replay,
                1,
                server | replay,
                0,
                exchange,
                replay,
                3,
            ],
        ),
    ];
    let settings = [[0, 0], [0, 13], [0x90, 13], [0x4a, 14], [0xff, 15], [5, 0x8c], [0x20, 0xcd]];
    let mut seeds = Vec::new();
    for (name, script) in &scripts {
        for (number, setting) in settings.iter().enumerate() {
            seeds.push((format!("{name}-{number}"), [&setting[..], script].concat()));
        }
    }
    seeds
}

/// Clients that come, go, move and resume, among strangers.
fn endpoints() -> Vec<Seed> {
    // Tags of `Operation`.
    let (connect, up, down, exchange, again, spoof, bend, split) = (0, 3, 6, 8, 9, 10, 12, 14);
    let (lose, raw, wait, timer, send, answer, close, end, moved) =
        (16, 17, 18, 19, 21, 23, 24, 25, 26);
    let all = |tag: u8| (0..5).flat_map(move |n| [tag, n]);
    let scripts: [(&str, Vec<u8>); 13] = [
        ("one", vec![connect, 0, exchange, send, 0, 9, answer, 0, 3, exchange, close, 0, exchange]),
        ("many", all(connect).chain([exchange, send, 2, 4, exchange, end, 1, exchange]).collect()),
        ("half-open", all(connect).chain([up; 5]).chain([down; 5]).chain([up; 5]).collect()),
        (
            "spoofed",
            vec![connect, 0, spoof, 0, 8, spoof, 0, 9, up, down, spoof, 0, 8, spoof, 0, 1, up],
        ),
        (
            "bent",
            vec![connect, 0, up, down, bend, 0, 0, 0, 60, 1, bend, 0, 0x88, 0, 70, 2, exchange],
        ),
        (
            "pieces",
            vec![connect, 0, split, 0, 80, up, up, up, down, split, 0, 80, up, up, up, exchange],
        ),
        (
            "pieces-lost",
            vec![connect, 0, up, down, split, 0, 90, up, lose, 0, up, timer, wait, 255],
        ),
        (
            "pieces-of-others",
            vec![
                connect, 0, connect, 1, up, up, down, down, split, 0, 99, split, 0, 99, spoof, 1,
                1, up, up, up,
            ],
        ),
        (
            "again",
            vec![
                connect, 0, exchange, connect, 0, up, down, again, 0, up, exchange, send, 0, 1,
                exchange,
            ],
        ),
        (
            "resumed",
            vec![
                connect, 0, exchange, connect, 0, exchange, connect, 0, exchange, send, 0, 8,
                exchange,
            ],
        ),
        (
            "moved",
            vec![connect, 0, exchange, moved, 0, 5, send, 0, 4, exchange, answer, 0, 7, exchange],
        ),
        (
            "raw",
            vec![raw, 1, 3, 1, 2, 3, raw, 9, 14, 22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1],
        ),
        (
            "old-cookie",
            vec![connect, 0, up, down, wait, 255, wait, 255, up, exchange, timer, exchange],
        ),
    ];
    scripts.into_iter().map(|(name, script)| (name.into(), script)).collect()
}

/// Every datagram of a handshake without loss, and one message each way.
fn genuine_datagrams(who: Identity, mtu: usize) -> Vec<Vec<u8>> {
    #[allow(clippy::disallowed_methods, reason = "a virtual clock starts somewhere")]
    let now = Instant::now();
    let config = Config::new(who.credentials(), Arc::new(AcceptAnyone))
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
