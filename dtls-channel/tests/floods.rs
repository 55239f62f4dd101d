//! Floods on a virtual clock: 100,000 sources against one endpoint, every allocated byte and every
//! byte on the wire counted. The same over loopback is in the system tests.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;
#[path = "attacks/stage.rs"]
#[allow(dead_code, reason = "the attacks use all of it")]
mod stage;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use allocation_counter::measure;
use dtls_channel::testing::forge::{Piece, record};
use dtls_channel::testing::{LinkConfig, Net, Rng, Rogue, Side};
use dtls_channel::{
    ASSOCIATION_REASSEMBLY_BYTES_MAX, DropCause, EARLY_BYTES_MAX, Endpoint, EndpointConfig,
    MESSAGE_BYTES_MAX, OUTBOX_BYTES_MAX, Stats,
};

use common::config;
use stage::*;

const SOURCES: u32 = 100_000;

/// One address after the other, none twice.
fn source(n: u32) -> SocketAddr {
    let [_, b, c, d] = n.to_be_bytes();
    ([10, b, c, d], 1_000 + (n % 50_000) as u16).into()
}

fn drain(endpoint: &mut Endpoint) {
    while endpoint.outbox().front().is_some() {
        endpoint.outbox().pop();
    }
}

/// What came in and went out since `before`.
fn bytes_since(before: &Stats, endpoint: &Endpoint) -> (u64, u64) {
    let now = endpoint.stats();
    (now.bytes_in - before.bytes_in, now.bytes_out - before.bytes_out)
}

/// Hellos of our own shape, each with a random of its own.
struct Hellos {
    datagram: Vec<u8>,
    rng: Rng,
}

impl Hellos {
    fn new(seed: u64) -> Self {
        let rogue = Rogue::client(credentials());
        let datagram = Piece::whole(CLIENT_HELLO, 0, &rogue.hello().body()).datagram(0);
        Self { datagram, rng: Rng::new(seed) }
    }

    fn next(&mut self) -> &mut [u8] {
        for chunk in self.datagram[27..59].chunks_exact_mut(8) {
            chunk.copy_from_slice(&self.rng.next_u64().to_be_bytes());
        }
        &mut self.datagram
    }
}

#[test]
fn a_hundred_thousand_sources_without_a_cookie_leave_not_one_byte_behind() {
    let (mut victim, mut rogue, id) = open_server();
    let mut hellos = Hellos::new(1);
    let mut hit = |victim: &mut Victim, n| {
        victim.endpoint.handle_datagram(victim.now, source(n).into(), hellos.next());
        drain(&mut victim.endpoint);
    };
    // The first makes room in the outbox, which is kept for all that follow.
    hit(&mut victim, SOURCES);
    let before = *victim.endpoint.stats();
    let memory = measure(|| (0..SOURCES).for_each(|n| hit(&mut victim, n)));
    assert_eq!((memory.bytes_current, memory.count_current), (0, 0), "{memory:?}");
    assert!(memory.bytes_max < 1_024, "at no time more than one hello's worth: {memory:?}");
    let (bytes_in, bytes_out) = bytes_since(&before, &victim.endpoint);
    assert!(bytes_out <= bytes_in, "{bytes_in} in, {bytes_out} out");
    assert_eq!(victim.endpoint.stats().cookies_sent - before.cookies_sent, u64::from(SOURCES));
    assert_eq!((victim.endpoint.associations(), victim.all_drops()), (1, 0));
    carries(&mut victim, &mut rogue, id);
}

#[test]
fn strays_and_replays_from_a_hundred_thousand_sources_leave_not_one_byte_behind() {
    let (mut victim, mut rogue, id) = open_server();
    // A good hello with its good cookie, of an address that has gone since; records of an
    // association that is open.
    let mut gone = Rogue::client(credentials());
    for _ in 0..2 {
        let hello = gone.hello().body();
        let hello = gone.say_plain(CLIENT_HELLO, &hello);
        let answers = victim.hit_from(([203, 0, 113, 99], 9).into(), &hello);
        hear(&mut gone, &answers);
    }
    let with_cookie = Piece::whole(CLIENT_HELLO, 1, &gone.hello().body()).datagram(1);
    victim.pass(MINUTE * 3);
    assert_eq!((victim.endpoint.associations(), victim.endpoint.half_open()), (1, 0));
    let said: Vec<_> = (0..64).map(|_| rogue.seal(DATA, b"said before")).collect();
    for datagram in &said {
        victim.hit(datagram);
    }
    victim.events.clear();
    let mut rng = Rng::new(2);
    let peer = victim.peer;
    let before = *victim.endpoint.stats();
    let mut expected = [0u64; 4];
    let memory = measure(|| {
        for n in 0..SOURCES {
            let (from, mut datagram, cause) = match n % 5 {
                0 => (source(n), with_cookie.clone(), 0),
                1 => (source(n), said[n as usize % 64].clone(), 1),
                2 => (peer, said[n as usize % 64].clone(), 2),
                3 => {
                    // Every content type in several epochs, but no hello.
                    let epoch = [0, 1, 2, u16::MAX][n as usize / 5 % 4];
                    let kind = (n / 20) as u8;
                    (source(n), record(kind, epoch, n.into(), &[n as u8 | 0x80; 40]), 1)
                }
                _ => {
                    let length = 1 + rng.below(12);
                    (source(n), (0..length).map(|_| rng.next_u64() as u8).collect(), 3)
                }
            };
            expected[cause] += 1;
            victim.endpoint.handle_datagram(victim.now, from.into(), &mut datagram);
            drain(&mut victim.endpoint);
        }
    });
    assert_eq!((memory.bytes_current, memory.count_current), (0, 0), "{memory:?}");
    assert!(memory.bytes_max < 4 * 1_024, "{memory:?}");
    let causes =
        [DropCause::BadCookie, DropCause::Unknown, DropCause::Replayed, DropCause::Malformed];
    let counted = causes.map(|c| victim.drops(c) - before.drops.get(c));
    assert_eq!(counted, expected, "{:?}", victim.endpoint.stats());
    let (bytes_in, bytes_out) = bytes_since(&before, &victim.endpoint);
    assert!(bytes_out <= bytes_in, "{bytes_in} in, {bytes_out} out");
    // Only the hellos were answered, each by a cookie for its own address.
    let sent = victim.endpoint.stats().datagrams_out - before.datagrams_out;
    assert_eq!((sent, victim.endpoint.associations()), (expected[0], 1));
    assert!(victim.events.is_empty() && victim.endpoint.poll_event().is_none());
    carries(&mut victim, &mut rogue, id);
}

#[test]
fn answers_that_cannot_be_sent_are_dropped_and_not_piled_up() {
    let (mut victim, mut rogue, id) = open_server();
    let mut hellos = Hellos::new(3);
    let memory = measure(|| {
        for n in 0..SOURCES {
            victim.endpoint.handle_datagram(victim.now, source(n).into(), hellos.next());
        }
    });
    // The outbox holds so many bytes, and a note for each of its datagrams.
    assert!(memory.bytes_current < 4 * OUTBOX_BYTES_MAX as i64, "{memory:?}");
    let stats = *victim.endpoint.stats();
    assert!(stats.drops.get(DropCause::NotSent) > 10_000, "{stats:?}");
    assert_eq!(stats.drops.get(DropCause::NotSent), stats.drops.total());
    drain(&mut victim.endpoint);
    carries(&mut victim, &mut rogue, id);
}

/// A server with little room for half-open associations.
fn small(half_open_max: usize) -> Victim {
    Victim::with(EndpointConfig {
        server: Some(Arc::new(config())),
        half_open_max,
        ..EndpointConfig::default()
    })
}

#[test]
fn what_half_open_associations_hold_is_bounded_however_they_are_stuffed() {
    const ROOM: usize = 64;
    let mut victim = small(ROOM);
    let mut honest = 0;
    let memory = measure(|| {
        for n in 0..500 {
            victim.peer = source(n);
            let mut rogue = Rogue::client(credentials());
            greet(&mut victim, &mut rogue);
            victim.events = Vec::new();
        }
    });
    assert_eq!((victim.endpoint.half_open(), victim.endpoint.associations()), (ROOM, ROOM));
    honest += memory.bytes_current;
    assert!(honest / (ROOM as i64) < 8 * 1_024, "{honest} bytes for {ROOM}");

    let stuffed = measure(|| {
        for n in 500 - ROOM as u32..500 {
            // Pieces of ten messages, of which two fit; records that come too early.
            for message_seq in 2..12 {
                let length = MESSAGE_BYTES_MAX - 12;
                let piece = Piece::part(CERTIFICATE, message_seq, length, 0, &[1]);
                victim.hit_from(source(n), &piece.datagram(9));
            }
            for number in 0..20 {
                victim.hit_from(source(n), &record(DATA, 1, number, &[0; 1_000]));
            }
        }
    });
    let limit = (ASSOCIATION_REASSEMBLY_BYTES_MAX + EARLY_BYTES_MAX) as i64 + 1_024;
    let each = stuffed.bytes_current / ROOM as i64;
    assert!(each > 16 * 1_024, "{each}: the stuffing did not get in");
    assert!(each < limit, "{each} bytes each on top of {}", honest / ROOM as i64);
    assert!(victim.drops(DropCause::ReassemblyFull) > 0 && victim.drops(DropCause::EarlyFull) > 0);

    // When they are given up, all of it goes; the tables keep the room they once had.
    let left = measure(|| {
        victim.pass(MINUTE * 3);
        victim.events = Vec::new();
    });
    assert_eq!((victim.endpoint.associations(), victim.endpoint.half_open()), (0, 0));
    let rest = honest + stuffed.bytes_current + left.bytes_current;
    assert!(rest < 256 * 1_024, "{rest} bytes remain");
}

#[test]
fn clients_open_while_thousands_of_others_complete_their_cookie_and_stop() {
    // 5,000 a second, room for 1,024: each stays for a fifth of a second, five round trips.
    let flood_gap = Duration::from_micros(200);
    let serving = EndpointConfig {
        server: Some(Arc::new(config())),
        half_open_max: 1_024,
        ..EndpointConfig::default()
    };
    let mut net = Net::new(7, &LinkConfig::default(), Arc::new(config()));
    net.server = Endpoint::new(net.now(), serving).unwrap();
    let client = Arc::new(config());
    let mut flooder = 0;
    for attempt in 1..=3 {
        net.connect(client.clone());
        let begun = net.now();
        while net.established(Side::Client) < attempt {
            flooder += 1;
            half_open(&mut net, source(flooder));
            let next = net.now() + flood_gap;
            net.run_until(flood_gap, |_| false);
            assert!(net.now() >= next && net.now() < begun + Duration::from_secs(2));
        }
        assert_eq!(net.now().duration_since(begun).as_millis(), 120, "not even a repetition");
        // From another port next time, so that nothing is replaced.
        net.rebind();
    }
    let stats = net.server.stats();
    assert_eq!((net.established(Side::Server), stats.handshakes_completed), (3, 3));
    assert!(stats.half_open_evicted > 700, "{stats:?}");
    assert_eq!(net.server.half_open(), 1_024);
}

/// One that completes its cookie and stops, without a network in between.
fn half_open(net: &mut Net, from: SocketAddr) {
    let now = net.now();
    net.collect();
    let mut rogue = Rogue::client(credentials());
    for _ in 0..2 {
        let hello = rogue.hello().body();
        let mut hello = rogue.say_plain(CLIENT_HELLO, &hello);
        net.server.handle_datagram(now, from.into(), &mut hello);
        while let Some((_, bytes)) = net.server.outbox().front() {
            rogue.hear(bytes);
            net.server.outbox().pop();
        }
    }
}
