//! Rows 15 to 18 and 20: what a server does for an address that has not proved itself, and after.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dtls_channel::testing::forge::{HelloFields, Piece, record, record_of_version, records};
use dtls_channel::testing::{Rng, Rogue};
use dtls_channel::{
    CLIENT_HELLO_BYTES_MAX, CloseReason, DropCause, EndpointConfig, Event, SendError,
};

use crate::common::config;
use crate::stage::*;

/// One address after the other, none twice.
fn stranger(n: u32) -> SocketAddr {
    let [_, b, c, d] = n.to_be_bytes();
    ([10, b, c, d], 1_000 + (n % 50_000) as u16).into()
}

fn sum(datagrams: &[Vec<u8>]) -> usize {
    datagrams.iter().map(Vec::len).sum()
}

/// Answers of a server, each to one datagram of a stranger's, are HelloVerifyRequests no longer than
/// what they answer; nothing is kept. How many there were.
fn only_cookies(victim: &mut Victim, datagrams: impl IntoIterator<Item = Vec<u8>>) -> u64 {
    let before = victim.endpoint.stats().cookies_sent;
    for (n, datagram) in datagrams.into_iter().enumerate() {
        let answers = victim.hit_from(stranger(n as u32), &datagram);
        assert!(answers.len() <= 1 && sum(&answers) <= datagram.len(), "{datagram:02x?}");
        for seen in answers.iter().flat_map(|a| records(a)) {
            assert_eq!((seen.content_type, seen.epoch), (HANDSHAKE, 0));
            assert_eq!(seen.body[0], HELLO_VERIFY_REQUEST);
        }
        assert_eq!((victim.endpoint.associations(), victim.endpoint.half_open()), (0, 0));
        assert!(victim.endpoint.next_timeout().is_none() && victim.events.is_empty());
    }
    victim.endpoint.stats().cookies_sent - before
}

#[test]
fn attack_15_no_answer_is_longer_than_a_hello_of_any_length_in_pieces_of_any_size() {
    let mut victim = Victim::server();
    let rogue = Rogue::client(credentials());
    // Whole hellos from the shortest to beyond the longest that is read.
    let whole = (0..=CLIENT_HELLO_BYTES_MAX + 100).step_by(3).map(|padding| {
        let mut hello = rogue.hello();
        hello.extensions.push((21, vec![0; padding]));
        Piece::whole(CLIENT_HELLO, 0, &hello.body()).datagram(0)
    });
    let answered = only_cookies(&mut victim, whole);
    assert!((1_200..1_500).contains(&answered), "{answered}");
    // The least that can be read: no extensions, no suites, no more than the prefix.
    let least = rogue.hello().body();
    let cut = (0..least.len()).map(|n| Piece::whole(CLIENT_HELLO, 0, &least[..n]).datagram(0));
    assert!(only_cookies(&mut victim, cut) > 0);
    // A first piece of every length, of a hello said to be long.
    let first = (0..least.len())
        .map(|n| Piece::part(CLIENT_HELLO, 0, CLIENT_HELLO_BYTES_MAX, 0, &least[..n]).datagram(0));
    assert!(only_cookies(&mut victim, first) > 0);
    // Later pieces have no first one to belong to.
    let later =
        (1..least.len()).map(|n| Piece::part(CLIENT_HELLO, 0, 200, n, &least[n..]).datagram(0));
    assert_eq!(only_cookies(&mut victim, later), 0);
    // Many hellos in one datagram are one question.
    let hello = Piece::whole(CLIENT_HELLO, 0, &least);
    let several = [hello.datagram(0), hello.datagram(1), hello.datagram(2)].concat();
    let in_one_record = record(HANDSHAKE, 0, 0, &[hello.bytes(), hello.bytes()].concat());
    assert_eq!(only_cookies(&mut victim, [several, in_one_record]), 2);
    // Datagrams of every other kind, and a hello of any record version.
    let others = (0..=255u8).flat_map(|kind| [0u16, 1, 2, 0xffff].map(|epoch| (kind, epoch)));
    let others = others.filter(|(kind, epoch)| (*kind, *epoch) != (HANDSHAKE, 0));
    let others = others.map(|(kind, epoch)| record(kind, epoch, 0, &hello.bytes()));
    assert_eq!(only_cookies(&mut victim, others), 0);
    let versions = [0xfeff, 0xfefd, 0xfefc, 0x0303, 0]
        .map(|version: u16| record_of_version(version, HANDSHAKE, 0, 0, &hello.bytes()));
    only_cookies(&mut victim, versions);
    let stats = victim.endpoint.stats();
    assert!(stats.bytes_out < stats.bytes_in, "{stats:?}");
    assert_eq!(stats.datagrams_out, stats.cookies_sent);
}

#[test]
fn attack_15_and_16_before_a_cookie_nothing_is_kept_and_no_more_bytes_leave_than_came() {
    let mut victim = Victim::server();
    let mut rogue = Rogue::client(credentials());
    let mut rng = Rng::new(5);
    let datagrams: Vec<_> = (0..20_000u32)
        .map(|n| {
            // Without a cookie, with one made up, cut short.
            rogue.cookie.clear();
            if n % 3 == 1 {
                rogue.cookie = rng.next_u64().to_be_bytes().repeat(4);
            }
            let mut datagram = Piece::whole(CLIENT_HELLO, 0, &rogue.hello().body()).datagram(0);
            if n % 3 == 2 {
                datagram.truncate(rng.below(datagram.len() as u64) as usize);
            }
            datagram
        })
        .collect();
    assert_eq!(only_cookies(&mut victim, datagrams), 13_334);
    assert_eq!(victim.drops(DropCause::BadCookie), 6_667);
    assert_eq!(victim.all_drops(), 6_667 + 6_666);
}

/// A client that has been given a cookie.
fn with_cookie(victim: &mut Victim) -> Rogue {
    let mut rogue = Rogue::client(credentials());
    let hello = rogue.hello().body();
    let hello = rogue.say_plain(CLIENT_HELLO, &hello);
    let request = victim.hit(&hello);
    hear(&mut rogue, &request);
    assert_eq!(rogue.cookie.len(), 32);
    rogue
}

#[test]
fn attack_16_a_cookie_is_good_for_its_address_and_hello_only_and_a_wrong_one_draws_a_new_one() {
    let mut victim = Victim::server();
    let rogue = with_cookie(&mut victim);
    let good = rogue.hello();
    let mut wrong = Vec::new();
    for i in 0..32 {
        for bit in [1, 0x80] {
            let mut bent = good.clone();
            bent.cookie[i] ^= bit;
            wrong.push(bent);
        }
    }
    for length in (0..32).chain([33, 255]) {
        let mut resized = good.clone();
        resized.cookie.resize(length, 0);
        wrong.push(resized);
    }
    let mut other = good.clone();
    other.random[31] ^= 1;
    wrong.push(other);
    wrong.push(HelloFields { version: 0xfeff, ..good.clone() });
    let mut other = good.clone();
    other.suites.reverse();
    wrong.push(other);
    wrong.push(HelloFields { compressions: vec![0, 1], ..good.clone() });
    let (mut bad, mut cookies) = (0, HashSet::new());
    for hello in &wrong {
        bad += u64::from(!hello.cookie.is_empty());
        let answers = victim.hit(&Piece::whole(CLIENT_HELLO, 1, &hello.body()).datagram(1));
        let mut ear = Rogue::client(credentials());
        let heard = hear(&mut ear, &answers);
        assert_eq!(heard.len(), 1, "{hello:?}");
        assert_eq!((heard[0].content_type, heard[0].message), (HANDSHAKE, HELLO_VERIFY_REQUEST));
        cookies.insert(ear.cookie);
    }
    assert_eq!(victim.drops(DropCause::BadCookie), bad);
    assert!(cookies.contains(&rogue.cookie), "the same hello has the same cookie for a while");
    // The right one from another address or port.
    let datagram = Piece::whole(CLIENT_HELLO, 1, &good.body()).datagram(1);
    for from in [([203, 0, 113, 7], 40_001), ([203, 0, 113, 8], 40_000)] {
        let answers = victim.hit_from(from.into(), &datagram);
        assert_eq!(records(&answers[0])[0].body[0], HELLO_VERIFY_REQUEST);
    }
    assert_eq!(victim.drops(DropCause::BadCookie), bad + 2);
    assert_eq!((victim.endpoint.associations(), victim.events.len()), (0, 0));
    // And it is still good where it belongs, for a minute at least and for two at most.
    victim.now += Duration::from_secs(59);
    victim.hit(&datagram);
    assert_eq!(victim.endpoint.half_open(), 1);
}

#[test]
fn attack_16_a_cookie_grows_old_and_an_endpoint_does_not_take_anothers() {
    let mut victim = Victim::server();
    let rogue = with_cookie(&mut victim);
    let datagram = Piece::whole(CLIENT_HELLO, 1, &rogue.hello().body()).datagram(1);
    victim.now += Duration::from_secs(121);
    assert_eq!(victim.hit(&datagram).len(), 1);
    let mut other = Victim::server();
    assert_eq!(other.hit(&datagram).len(), 1);
    for victim in [victim, other] {
        assert_eq!(victim.drops(DropCause::BadCookie), 1);
        assert_eq!(victim.endpoint.associations(), 0);
    }
}

#[test]
fn attack_17_a_hello_repeated_from_one_address_begins_one_handshake() {
    let mut victim = Victim::server();
    let mut rogue = with_cookie(&mut victim);
    let hello = rogue.hello().body();
    let hello = rogue.say_plain(CLIENT_HELLO, &hello);
    let flight = victim.hit(&hello);
    hear(&mut rogue, &flight);
    let mut sent = 0;
    for n in 0..1_000 {
        sent += victim.hit(&hello).len();
        // Interleaved with what others say.
        victim.hit_from(stranger(n), &hello);
        victim.now += Duration::from_millis(1);
    }
    // The pause between two answers doubles: 100, 200, 400 ms.
    assert!((1..=3).contains(&sent), "{sent}");
    assert_eq!(victim.endpoint.stats().handshakes_started, 1);
    assert_eq!((victim.endpoint.associations(), victim.endpoint.half_open()), (1, 1));
    assert_eq!(victim.drops(DropCause::BadCookie), 1_000);
    // Others are served meanwhile, and so is the repeater.
    let address = victim.peer;
    victim.peer = stranger(77);
    let mut other = Rogue::client(credentials());
    greet(&mut victim, &mut other);
    finish(&mut victim, &mut other);
    victim.peer = address;
    finish(&mut victim, &mut rogue);
    assert_eq!(victim.endpoint.associations(), 2);
    // Late copies come to nothing.
    for _ in 0..100 {
        assert!(victim.hit(&hello).is_empty());
    }
    assert_eq!(victim.drops(DropCause::StaleMessage), 100);
}

#[test]
fn attack_18_a_thousand_half_open_handshakes_are_capped_evicted_and_forgotten() {
    let serving = EndpointConfig {
        server: Some(Arc::new(config())),
        half_open_max: 64,
        ..EndpointConfig::default()
    };
    let mut victim = Victim::with(serving);
    let identity = credentials();
    let mut rogue = Rogue::client(identity.clone());
    for n in 0..1_000 {
        victim.peer = stranger(n);
        rogue = Rogue::client(identity.clone());
        greet(&mut victim, &mut rogue);
        assert!(victim.endpoint.half_open() <= 64);
    }
    let stats = victim.endpoint.stats();
    assert_eq!((stats.handshakes_started, stats.half_open_evicted), (1_000, 936));
    assert_eq!(victim.endpoint.associations(), 64);
    let evicted = |event: &Event| matches!(event, Event::Closed(CloseReason::Evicted));
    assert_eq!(victim.events.iter().filter(|(_, e)| evicted(e)).count(), 936);
    // The newest is served; the others end by themselves.
    finish(&mut victim, &mut rogue);
    victim.pass(MINUTE * 4);
    let stats = victim.endpoint.stats();
    assert_eq!((victim.endpoint.associations(), victim.endpoint.half_open()), (1, 0));
    assert_eq!((stats.handshakes_completed, stats.handshakes_failed), (1, 999));
    assert!(victim.endpoint.next_timeout().is_none());
}

#[test]
fn attack_18_a_handshake_that_failed_leaves_nothing_that_counts_or_can_be_used() {
    let mut victim = Victim::with(EndpointConfig {
        server: Some(Arc::new(config())),
        associations_max: 8,
        half_open_max: 8,
        ..EndpointConfig::default()
    });
    // More failures than there is room: were one not given back, the last would find none.
    for n in 0..100 {
        victim.peer = stranger(n);
        let mut rogue = Rogue::client(credentials());
        greet(&mut victim, &mut rogue);
        let mut flight = unfinished_flight(&mut rogue);
        match n % 4 {
            // Fails at its certificate, its point, its proof, its Finished.
            0 => flight = vec![Piece::whole(CERTIFICATE, 2, b"nonsense").datagram(9)],
            1 => flight[1] = Piece::whole(CLIENT_KEY_EXCHANGE, 3, &[1, 4]).datagram(9),
            2 => *flight[2].last_mut().unwrap() ^= 1,
            _ => flight.push(rogue.say_sealed(FINISHED, &[0; 12])),
        }
        victim.events.clear();
        deliver(&mut victim, &mut rogue, &flight);
        assert!(!victim.is_open() && victim.closed().is_some(), "{n}: {:?}", victim.events);
        let id = victim.events[0].0;
        assert_eq!(victim.endpoint.send(id, b"x"), Err(SendError::Closed));
        assert_eq!((victim.endpoint.associations(), victim.endpoint.half_open()), (0, 0));
        // What comes after finds nobody.
        let unknown = victim.drops(DropCause::Unknown);
        assert!(victim.hit(&record(DATA, 1, 5, &[0; 40])).is_empty());
        assert_eq!(victim.drops(DropCause::Unknown), unknown + 1);
    }
    let stats = victim.endpoint.stats();
    assert_eq!((stats.handshakes_failed, stats.half_open_evicted), (100, 0));
    assert!(victim.endpoint.next_timeout().is_none());
}

#[test]
fn attack_18_without_room_a_hello_is_counted_and_costs_nobody_else() {
    let (mut victim, mut rogue, id) = {
        let mut victim = Victim::with(EndpointConfig {
            server: Some(Arc::new(config())),
            associations_max: 1,
            half_open_max: 1,
            ..EndpointConfig::default()
        });
        let mut rogue = Rogue::client(credentials());
        greet(&mut victim, &mut rogue);
        finish(&mut victim, &mut rogue);
        let id = victim.events[0].0;
        (victim, rogue, id)
    };
    let home = victim.peer;
    victim.peer = stranger(1);
    let mut late = with_cookie(&mut victim);
    let hello = late.hello().body();
    let hello = late.say_plain(CLIENT_HELLO, &hello);
    assert!(victim.hit(&hello).is_empty());
    assert_eq!(victim.drops(DropCause::NoRoom), 1);
    victim.peer = home;
    carries(&mut victim, &mut rogue, id);
}

#[test]
fn attack_20_randoms_are_fresh_and_repeated_only_with_the_cookie() {
    let mut seen = HashSet::new();
    for _ in 0..20 {
        let (mut victim, _, hello) = Victim::client(config());
        let random = |datagram: &[u8]| records(datagram)[0].body[14..46].to_vec();
        let request = [&[0xfe, 0xff, 4][..], b"cook"].concat();
        let again = victim.hit(&Piece::whole(HELLO_VERIFY_REQUEST, 0, &request).datagram(0));
        assert_eq!(random(&again[0]), random(&hello));
        assert!(seen.insert(random(&hello)) && random(&hello) != [0; 32]);
        let (mut victim, mut rogue) = (Victim::server(), Rogue::client(credentials()));
        rogue.random = [7; 32];
        let hello = rogue.hello().body();
        let first = rogue.say_plain(CLIENT_HELLO, &hello);
        let request = victim.hit(&first);
        hear(&mut rogue, &request);
        let hello = rogue.hello().body();
        let second = rogue.say_plain(CLIENT_HELLO, &hello);
        let flight = victim.hit(&second);
        assert!(seen.insert(random(&flight[0])) && random(&flight[0]) != [0; 32]);
    }
    assert_eq!(seen.len(), 40);
}
