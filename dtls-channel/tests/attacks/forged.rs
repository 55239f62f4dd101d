//! Rows 6, 7, 13, 14, 19 and 23: what anybody can send who knows, or guesses, the addresses.

use std::sync::Arc;
use std::time::Duration;

use dtls_channel::testing::forge::{Piece, record};
use dtls_channel::testing::{LinkConfig, Net, Rogue};
use dtls_channel::{CloseReason, DropCause, Mismatch};

use crate::common::config;
use crate::stage::*;

#[test]
fn attack_06_unprotected_data_is_never_delivered_at_any_time() {
    let data = record(DATA, 0, 5, b"believe me");
    // A server: before it knows the peer, during the handshake, afterwards.
    let (mut victim, mut rogue) = (Victim::server(), Rogue::client(credentials()));
    assert!(victim.hit(&data).is_empty());
    assert_eq!(victim.drops(DropCause::Unknown), 1);
    greet(&mut victim, &mut rogue);
    for datagram in unfinished_flight(&mut rogue) {
        assert!(victim.hit(&data).is_empty());
        victim.hit(&datagram);
    }
    assert!(victim.hit(&data).is_empty());
    assert_eq!(victim.drops(DropCause::UnexpectedRecord), 5);
    let last = finished(&mut rogue);
    victim.hit(&last);
    assert!(victim.hit(&data).is_empty());
    assert_eq!((victim.is_open(), victim.messages().len()), (true, 0));
    assert_eq!((victim.drops(DropCause::Unprotected), victim.all_drops()), (1, 7));
    // A client.
    let (mut victim, mut rogue, id) = connecting();
    assert!(victim.hit(&data).is_empty());
    answer(&mut victim, &mut rogue);
    assert!(victim.hit(&data).is_empty());
    let last = finished(&mut rogue);
    victim.hit(&last);
    assert!(victim.hit(&data).is_empty());
    assert_eq!((victim.is_open(), victim.messages().len()), (true, 0));
    assert_eq!(victim.drops(DropCause::UnexpectedRecord), 2);
    assert_eq!(victim.drops(DropCause::Unprotected), 1);
    carries(&mut victim, &mut rogue, id);
}

#[test]
fn attack_07_data_ahead_of_finished_waits_until_finished_was_verified() {
    for good in [true, false] {
        // To a server; the first record even before it has keys.
        let (mut victim, mut rogue) = (Victim::server(), Rogue::client(credentials()));
        greet(&mut victim, &mut rogue);
        let flight = unfinished_flight(&mut rogue);
        let before_keys = rogue.seal(DATA, b"one");
        assert!(victim.hit(&before_keys).is_empty());
        deliver(&mut victim, &mut rogue, &flight);
        let with_keys = rogue.seal(DATA, b"two");
        assert!(victim.hit(&with_keys).is_empty());
        assert!(victim.events.is_empty(), "{:?}", victim.events);
        let mut body = rogue.finished();
        body[0] ^= u8::from(!good);
        let last = rogue.say_sealed(FINISHED, &body);
        victim.hit(&last);
        let expected: &[&[u8]] = if good { &[b"one", b"two"] } else { &[] };
        assert_eq!((victim.is_open(), &victim.messages()[..]), (good, expected));
        assert_eq!(victim.all_drops(), 0);

        // To a client.
        let (mut victim, mut rogue, _) = connecting();
        answer(&mut victim, &mut rogue);
        let early = rogue.seal(DATA, b"three");
        assert!(victim.hit(&early).is_empty() && victim.events.is_empty());
        let mut body = rogue.finished();
        body[0] ^= u8::from(!good);
        let last = rogue.say_sealed(FINISHED, &body);
        victim.hit(&last);
        let expected: &[&[u8]] = if good { &[b"three"] } else { &[] };
        assert_eq!((victim.is_open(), &victim.messages()[..]), (good, expected));
    }
}

#[test]
fn attack_07_early_records_have_little_room() {
    let (mut victim, mut rogue) = (Victim::server(), Rogue::client(credentials()));
    greet(&mut victim, &mut rogue);
    for n in 0..100 {
        victim.hit(&record(DATA, 1, n, &[0; 1_000]));
    }
    assert_eq!(victim.drops(DropCause::EarlyFull), 92);
    victim.hit(&record(DATA, 1, 0, &[0; 16_000]));
    assert_eq!(victim.drops(DropCause::EarlyFull), 93);
    // They were forged: once there are keys they go, and the handshake with its Finished goes on.
    finish(&mut victim, &mut rogue);
    assert_eq!(victim.drops(DropCause::BadTag), 8);
}

#[test]
fn attack_07_an_early_change_of_cipher_spec_changes_nothing() {
    let ccs = record(CHANGE_CIPHER_SPEC, 0, 7, &[1]);
    let (mut victim, mut rogue) = (Victim::server(), Rogue::client(credentials()));
    assert!(victim.hit(&ccs).is_empty());
    greet(&mut victim, &mut rogue);
    for datagram in unfinished_flight(&mut rogue) {
        assert!(victim.hit(&ccs).is_empty());
        // Sealed under no key, or one that could be guessed (CVE-2014-0224): it never opens.
        assert!(victim.hit(&record(HANDSHAKE, 1, 0, &[0; 48])).is_empty());
        victim.hit(&datagram);
    }
    assert!(victim.events.is_empty());
    let last = finished(&mut rogue);
    let answers = victim.hit(&last);
    assert!(victim.is_open(), "{:?}", victim.endpoint.stats());
    assert_eq!(victim.drops(DropCause::BadTag), 4);
    assert!(hear(&mut rogue, &answers).iter().any(|h| h.sealed && h.message == FINISHED));

    let (mut victim, mut rogue, id) = connecting();
    let flight = rogue.flight();
    for datagram in say_all(&mut rogue, &flight) {
        assert!(victim.hit(&ccs).is_empty());
        deliver(&mut victim, &mut rogue, &[datagram]);
    }
    let last = finished(&mut rogue);
    victim.hit(&last);
    carries(&mut victim, &mut rogue, id);
}

/// What a stranger may throw in, whole datagrams.
fn forgeries(strangers_hello: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let empty = |kind, seq| Piece::whole(kind, seq, &[]).datagram(70);
    let verify_data = [7; 12];
    vec![
        ("fatal alert", record(ALERT, 0, 70, &[2, 40])),
        ("close_notify", record(ALERT, 0, 70, &[1, 0])),
        ("alert of an unknown kind", record(ALERT, 0, 70, &[9, 9])),
        ("sealed alert", record(ALERT, 1, 0, &[3; 26])),
        ("a stranger's hello", strangers_hello.to_vec()),
        ("empty hello", empty(CLIENT_HELLO, 0)),
        ("change of cipher spec", record(CHANGE_CIPHER_SPEC, 0, 70, &[1])),
        ("sealed change of cipher spec", record(CHANGE_CIPHER_SPEC, 1, 70, &[1])),
        ("Finished in clear", Piece::whole(FINISHED, 2, &verify_data).datagram(70)),
        ("Finished, later", Piece::whole(FINISHED, 5, &verify_data).datagram(70)),
        ("Finished under no key", record(HANDSHAKE, 1, 0, &[3; 48])),
        ("HelloRequest", empty(HELLO_REQUEST, 1)),
        ("ServerHelloDone", empty(SERVER_HELLO_DONE, 1)),
        ("NewSessionTicket", empty(4, 2)),
        ("a type nobody knows", empty(99, 2)),
        ("data", record(DATA, 0, 70, b"data")),
        ("data of a later epoch", record(DATA, 2, 70, &[3; 48])),
        ("no record", b"\x16\xfe\xfd".to_vec()),
    ]
}

#[test]
fn attack_13_one_forged_datagram_at_any_moment_does_not_end_a_handshake() {
    let (server, client) = (Arc::new(config()), Arc::new(config()));
    let mut stranger = Rogue::client(credentials());
    let hello = stranger.hello().body();
    let hello = stranger.say_plain(CLIENT_HELLO, &hello);
    for (what, forged) in forgeries(&hello) {
        for moment in 0..7 {
            let mut net = Net::new(1, &LinkConfig::default(), server.clone());
            net.connect(client.clone());
            net.collect();
            for _ in 0..moment {
                if let Some(at) = net.next_due() {
                    net.advance_to(at);
                }
            }
            let (now, from) = (net.now(), net.server_address());
            net.server.handle_datagram(now, clients_path(), &mut forged.clone());
            net.client.handle_datagram(now, from.into(), &mut forged.clone());
            let opened = net.run_until(MINUTE, |n| n.both_open());
            assert!(opened, "{what} at moment {moment}: {:?}", net.events);
            assert_eq!(net.events.len(), 2, "{what} at moment {moment}: {:?}", net.events);
            // No repetition was needed: what was forged did not even take a real one's place.
            assert!(net.elapsed() < Duration::from_millis(200), "{what} at moment {moment}");
        }
    }
}

#[test]
fn attack_13_forged_plaintext_does_not_touch_an_open_association() {
    let (mut net, client, _) = open_pair();
    let mut stranger = Rogue::client(credentials());
    let hello = stranger.hello().body();
    let hello = stranger.say_plain(CLIENT_HELLO, &hello);
    let mut quiet = 0;
    for (what, mut forged) in forgeries(&hello) {
        let now = net.now();
        net.server.handle_datagram(now, clients_path(), &mut forged);
        assert!(net.server.poll_event().is_none(), "{what}");
        if what.contains("hello") {
            assert_eq!(net.server.associations(), 1, "{what}");
            net.server.outbox().pop();
        } else {
            assert!(net.server.outbox().is_empty(), "{what}");
            quiet += 1;
        }
    }
    let stats = net.server.stats();
    assert_eq!((stats.drops.total(), quiet, stats.cookies_sent), (17, 16, 2), "{stats:?}");
    assert_eq!(stats.drops.get(DropCause::Unprotected), 11, "{stats:?}");
    pair_carries(&mut net, client);
}

#[test]
fn attack_13_a_refusal_that_nobody_contradicts_is_believed_in_the_end() {
    let (mut victim, _, _) = connecting();
    victim.hit(&record(ALERT, 0, 1, &[2, 40]));
    victim.pass(Duration::from_secs(9));
    assert_eq!(victim.closed(), None);
    victim.pass(Duration::from_secs(2));
    assert!(matches!(victim.closed(), Some(CloseReason::PeerAlert(_))));
}

#[test]
fn attack_14_a_strangers_hello_from_the_clients_address_only_draws_a_cookie() {
    let (mut net, client, _) = open_pair();
    let mut stranger = Rogue::client(credentials());
    let hello = stranger.hello().body();
    let mut hello = stranger.say_plain(CLIENT_HELLO, &hello);
    let now = net.now();
    net.server.handle_datagram(now, clients_path(), &mut hello);
    assert_eq!((net.server.associations(), net.server.half_open()), (1, 0));
    assert_eq!((net.server.stats().cookies_sent, net.server.stats().drops.total()), (2, 0));
    net.server.outbox().pop();
    pair_carries(&mut net, client);
}

#[test]
fn attack_14_an_attempt_that_fails_leaves_the_association_of_its_address_alone() {
    let (mut victim, mut rogue, id) = open_server();
    // It even receives at the address, has the cookie, and nothing in common.
    let mut stranger = Rogue::client(credentials());
    for _ in 0..2 {
        let mut hello = stranger.hello();
        hello.suites = vec![0x002f];
        let hello = stranger.say_plain(CLIENT_HELLO, &hello.body());
        let answers = victim.hit(&hello);
        let heard = hear(&mut stranger, &answers);
        assert!(heard.iter().all(|h| !h.sealed));
    }
    assert_eq!(victim.closed(), Some(&CloseReason::Mismatch(Mismatch::Suite)));
    assert_eq!((victim.endpoint.associations(), victim.endpoint.half_open()), (1, 0));
    carries(&mut victim, &mut rogue, id);
    // With everything in common but without the proof of its key: the same.
    let mut stranger = Rogue::client(credentials());
    greet(&mut victim, &mut stranger);
    assert_eq!(victim.endpoint.associations(), 2);
    carries(&mut victim, &mut rogue, id);
    victim.pass(MINUTE * 2);
    assert_eq!(victim.endpoint.associations(), 1);
    carries(&mut victim, &mut rogue, id);
    // Only a whole handshake takes the place.
    let mut returned = Rogue::client(credentials());
    greet(&mut victim, &mut returned);
    victim.events.clear();
    finish(&mut victim, &mut returned);
    assert_eq!(victim.closed(), Some(&CloseReason::Superseded));
    assert_eq!(victim.endpoint.associations(), 1);
}

#[test]
fn attack_19_messages_of_the_wrong_direction_or_said_twice_are_put_aside() {
    // To a client, before each message of the server's flight, under that message's number.
    let (mut victim, mut rogue, id) = connecting();
    let flight = rogue.flight();
    let mut aside = 0;
    for (kind, body) in &flight {
        let others = [CLIENT_HELLO, CLIENT_KEY_EXCHANGE, CERTIFICATE_VERIFY, SERVER_HELLO];
        for wrong in others.into_iter().chain([HELLO_REQUEST]) {
            if wrong == *kind {
                continue;
            }
            let forged = Piece::whole(wrong, rogue.message_seq, &[0; 40]).datagram(50);
            assert!(victim.hit(&forged).is_empty());
            aside += 1;
        }
        let datagram = rogue.say_plain(*kind, body);
        deliver(&mut victim, &mut rogue, &[datagram]);
    }
    // Hellos do not even reach the association of one who serves nobody.
    assert_eq!((aside, victim.drops(DropCause::NotServing)), (24, 5));
    assert_eq!((victim.drops(DropCause::UnexpectedMessage), victim.all_drops()), (19, 24));
    let last = finished(&mut rogue);
    victim.hit(&last);
    carries(&mut victim, &mut rogue, id);

    // To a server, the server's own messages.
    let (mut victim, mut rogue) = (Victim::server(), Rogue::client(credentials()));
    greet(&mut victim, &mut rogue);
    let mut aside = 0;
    for datagram in unfinished_flight(&mut rogue) {
        if datagram[0] == HANDSHAKE {
            let seq = u16::from_be_bytes([datagram[17], datagram[18]]);
            for wrong in [HELLO_REQUEST, SERVER_HELLO, SERVER_KEY_EXCHANGE, SERVER_HELLO_DONE, 4] {
                assert!(victim.hit(&Piece::whole(wrong, seq, &[]).datagram(50)).is_empty());
                aside += 1;
            }
        }
        victim.hit(&datagram);
    }
    assert_eq!((victim.drops(DropCause::UnexpectedMessage), aside), (15, 15));
    let last = finished(&mut rogue);
    victim.hit(&last);
    assert!(victim.is_open());
}

#[test]
fn attack_19_hello_requests_by_the_thousand_are_passed_over_without_recursion() {
    let (mut victim, mut rogue, id) = connecting();
    let flight = rogue.flight();
    let datagrams = say_all(&mut rogue, &flight);
    victim.hit(&datagrams[0]);
    // Under the number that is due next and those after it, again and again.
    let next = rogue.message_seq - 4;
    let many: Vec<u8> =
        (0..5_000).flat_map(|n| Piece::whole(HELLO_REQUEST, next + n % 8, &[]).bytes()).collect();
    assert!(victim.hit(&record(HANDSHAKE, 0, 60, &many)).is_empty());
    assert_eq!((victim.closed(), victim.drops(DropCause::UnexpectedMessage)), (None, 1));
    // Those that wait are passed over when their turn comes, and none takes it.
    deliver(&mut victim, &mut rogue, &datagrams[1..]);
    assert_eq!(victim.drops(DropCause::UnexpectedMessage), 4);
    let last = finished(&mut rogue);
    victim.hit(&last);
    carries(&mut victim, &mut rogue, id);
    // Once open they draw one warning, and no more.
    let (mut open, mut rogue_open, id_open) = open_client();
    for n in 0..1_000 {
        let request = rogue_open.seal(HANDSHAKE, &Piece::whole(HELLO_REQUEST, n, &[]).bytes());
        let answers = open.hit(&request);
        assert_eq!(answers.len(), usize::from(n == 0));
        assert_eq!(alert(&hear(&mut rogue_open, &answers)), (n == 0).then_some(100));
    }
    carries(&mut open, &mut rogue_open, id_open);
}

#[test]
fn attack_23_a_record_counts_only_in_the_epoch_that_is_due() {
    let (mut victim, mut rogue) = (Victim::server(), Rogue::client(credentials()));
    greet(&mut victim, &mut rogue);
    let mut wrong = 0;
    for datagram in unfinished_flight(&mut rogue) {
        for epoch in [2u16, 3, 0x8000, 0xffff] {
            let mut elsewhere = datagram.clone();
            elsewhere[3..5].copy_from_slice(&epoch.to_be_bytes());
            assert!(victim.hit(&elsewhere).is_empty());
            wrong += 1;
        }
        assert_eq!(victim.drops(DropCause::WrongEpoch), wrong);
        victim.hit(&datagram);
    }
    // Finished: under the right key, but for another epoch, or in clear.
    let body = rogue.finished();
    let message = rogue.say(FINISHED, &body);
    for epoch in [2, 0xffff] {
        assert!(victim.hit(&rogue.seal_as(HANDSHAKE, epoch, 0, &message)).is_empty());
    }
    assert_eq!(victim.drops(DropCause::WrongEpoch), wrong + 2);
    assert!(victim.hit(&record(HANDSHAKE, 0, 50, &message)).is_empty());
    assert_eq!(victim.drops(DropCause::Unprotected), 1);
    assert!(!victim.is_open());
    let last = rogue.seal(HANDSHAKE, &message);
    let answers = victim.hit(&last);
    assert!(victim.is_open() && hear(&mut rogue, &answers).iter().any(|h| h.message == FINISHED));
    // And data.
    for epoch in [0u16, 2, 0xffff] {
        assert!(victim.hit(&rogue.seal_as(DATA, epoch, 40, b"x")).is_empty());
    }
    assert_eq!(victim.drops(DropCause::WrongEpoch), wrong + 4);
    assert_eq!((victim.drops(DropCause::Unprotected), victim.messages().len()), (2, 0));
}

#[test]
fn attack_23_a_number_that_was_used_counts_only_once() {
    let (mut victim, rogue, _) = open_server();
    let first = rogue.seal_as(DATA, 1, 70, b"first");
    let second = rogue.seal_as(DATA, 1, 70, b"second");
    victim.hit(&first);
    victim.hit(&second);
    assert_eq!(victim.messages(), [b"first"]);
    assert_eq!(victim.drops(DropCause::Replayed), 1);
}
