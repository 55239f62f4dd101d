//! Row 30: what is sent again, how often, and when it ends.

use std::time::Duration;

use dtls_channel::testing::Rogue;
use dtls_channel::testing::forge::{Piece, record};
use dtls_channel::{CloseReason, DropCause};

use crate::common::config;
use crate::stage::*;

#[test]
fn attack_30_a_dead_peer_is_sent_to_ever_more_seldom_and_then_no_more() {
    // 0.4, 0.8, 1.6, 3.2, then every 4 s until 60 s have passed.
    let resends = 4 + (60 - 6) / 4;
    let (mut victim, _, _) = Victim::client(config());
    let mut gaps = Vec::new();
    let mut last = victim.now;
    while victim.closed().is_none() {
        let at = victim.endpoint.next_timeout().unwrap();
        let sent = victim.pass(at - victim.now);
        if !sent.is_empty() {
            assert_eq!(sent.len(), 1, "a hello is one datagram");
            gaps.push(at - last);
            last = at;
        }
    }
    assert_eq!(victim.closed(), Some(&CloseReason::TimedOut));
    assert_eq!(gaps.len(), resends, "{gaps:?}");
    assert_eq!(gaps[..4], [400, 800, 1_600, 3_200].map(Duration::from_millis));
    assert!(gaps[4..].iter().all(|gap| *gap == Duration::from_secs(4)));
    // Nothing is left that could send (CVE-2013-6450: a retransmission after the state was freed).
    assert!(victim.endpoint.next_timeout().is_none());
    assert!(victim.pass(MINUTE * 60).is_empty());
    assert_eq!(victim.endpoint.associations(), 0);
    // What comes late finds nobody, and is not answered.
    let mut rogue = Rogue::server(credentials());
    let flight = rogue.flight();
    for datagram in say_all(&mut rogue, &flight) {
        assert!(victim.hit(&datagram).is_empty());
    }
    assert_eq!(victim.drops(DropCause::Unknown), 5);
}

#[test]
fn attack_30_a_server_whose_client_vanished_stops_as_well() {
    let (mut victim, mut rogue) = (Victim::server(), Rogue::client(credentials()));
    greet(&mut victim, &mut rogue);
    let before = victim.endpoint.stats().bytes_out;
    let sent = victim.pass(MINUTE * 60);
    assert_eq!(victim.endpoint.stats().flights_resent, 4 + (60 - 6) / 4);
    // One datagram each, two once they are made smaller: never more than 20 kB to a silent address.
    assert!(sent.len() <= 40, "{}", sent.len());
    assert!(victim.endpoint.stats().bytes_out - before < 20_000);
    assert_eq!(victim.closed(), Some(&CloseReason::TimedOut));
    assert!(victim.endpoint.next_timeout().is_none());
}

#[test]
fn attack_30_repetitions_of_the_peer_draw_fewer_answers_than_there_are() {
    // Each repeated flight asks for ours; in a storm of them the pauses double up to 4 s.
    let (mut victim, mut rogue) = (Victim::server(), Rogue::client(credentials()));
    greet(&mut victim, &mut rogue);
    let hello = rogue.hello().body();
    let hello = Piece::whole(CLIENT_HELLO, 1, &hello).datagram(1);
    let (mut received, mut sent) = (0, 0);
    while victim.closed().is_none() {
        received += hello.len();
        sent += victim.hit(&hello).iter().map(Vec::len).sum::<usize>();
        sent += victim.pass(Duration::from_millis(20)).iter().map(Vec::len).sum::<usize>();
    }
    assert_eq!(victim.closed(), Some(&CloseReason::TimedOut));
    assert!(sent * 10 < received, "{received} bytes in, {sent} out");
}

#[test]
fn attack_30_the_last_flight_is_repeated_for_a_peer_that_asks_and_at_a_limited_rate() {
    let (mut victim, mut rogue) = (Victim::server(), Rogue::client(credentials()));
    greet(&mut victim, &mut rogue);
    finish(&mut victim, &mut rogue);
    let id = victim.events[0].0;
    // No timer sends it (RFC 6347 §4.2.4): silence costs nothing.
    assert!(victim.pass(MINUTE).is_empty());
    // The client's Finished again, under new record numbers, as a client does that heard nothing.
    let repeated = &rogue.transcript[rogue.transcript.len() - 48..][..24].to_vec();
    assert_eq!(repeated[0], FINISHED);
    let mut answers = 0;
    for _ in 0..1_000 {
        let again = rogue.seal(HANDSHAKE, repeated);
        let sent = victim.hit(&again);
        let heard = hear(&mut rogue, &sent);
        assert!(
            heard.iter().filter(|h| h.content_type == HANDSHAKE).all(|h| h.message == FINISHED)
        );
        answers += sent.len();
        victim.now += Duration::from_millis(1);
    }
    assert_eq!(answers, 20, "every 50 ms at most");
    assert_eq!(victim.endpoint.stats().flights_resent, 20);
    // Somebody else's repetition, without the keys, asks for nothing.
    let forged = record(HANDSHAKE, 0, 50, repeated);
    assert!(victim.hit(&forged).is_empty());
    assert_eq!(victim.drops(DropCause::Unprotected), 1);
    // A late copy is answered after data too, for twice the maximum segment lifetime and no longer.
    carries(&mut victim, &mut rogue, id);
    victim.pass(MINUTE * 2);
    let again = rogue.seal(HANDSHAKE, repeated);
    assert_eq!(victim.hit(&again).len(), 1);
    victim.pass(MINUTE);
    assert_eq!(victim.endpoint.next_timeout(), None, "nothing is kept any more");
    let again = rogue.seal(HANDSHAKE, repeated);
    assert!(victim.hit(&again).is_empty());
    carries(&mut victim, &mut rogue, id);
}

#[test]
fn attack_30_a_last_flight_that_comes_twice_is_taken_in_silence() {
    // As JSSE's server sends it, at once and again after data.
    let (mut victim, mut rogue, _) = connecting();
    answer(&mut victim, &mut rogue);
    let body = rogue.finished();
    let message = rogue.say(FINISHED, &body);
    let mut twice = Vec::new();
    for _ in 0..2 {
        twice.push(rogue.plain(CHANGE_CIPHER_SPEC, &[1]));
        twice.push(rogue.seal(HANDSHAKE, &message));
    }
    for datagram in &twice {
        assert!(victim.hit(datagram).is_empty());
    }
    let id = victim.events[0].0;
    assert!(victim.is_open() && victim.events.len() == 1);
    assert_eq!((victim.drops(DropCause::Unprotected), victim.all_drops()), (1, 1));
    carries(&mut victim, &mut rogue, id);
    let again = rogue.seal(HANDSHAKE, &message);
    assert!(victim.hit(&again).is_empty());
    carries(&mut victim, &mut rogue, id);
    assert_eq!(victim.closed(), None);
}
