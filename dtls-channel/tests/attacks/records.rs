//! Rows 11, 12, 21, 22 and 26: records of an association that has keys.

use std::collections::HashSet;

use dtls_channel::testing::forge::{Piece, record, records};
use dtls_channel::testing::{Rng, Rogue};
use dtls_channel::{CipherSuite, CloseReason, ConnectionIdMode, DropCause, Event, SendError};

use crate::common::config;
use crate::stage::*;

#[test]
fn attack_11_and_12_replayed_and_bent_records_are_dropped_in_silence() {
    let (mut net, client, _) = open_pair();
    net.client.send(client, b"once").unwrap();
    let (_, bytes) = net.client.outbox().front().unwrap();
    let sealed = bytes.to_vec();
    let now = net.now();
    for i in 0..sealed.len() {
        let mut bent = sealed.clone();
        bent[i] ^= 0x40;
        net.server.handle_datagram(now, clients_path(), &mut bent);
        assert!(net.server.poll_event().is_none(), "byte {i}");
    }
    for cut in 0..sealed.len() {
        net.server.handle_datagram(now, clients_path(), &mut sealed[..cut].to_vec());
        assert!(net.server.poll_event().is_none(), "cut at {cut}");
    }
    let stats = net.server.stats();
    // Bent where its type or length stands it may look like several records.
    assert!(stats.drops.total() >= 2 * sealed.len() as u64, "each counted: {stats:?}");
    for _ in 0..3 {
        net.server.handle_datagram(now, clients_path(), &mut sealed.clone());
    }
    assert!(matches!(net.server.poll_event(), Some((_, Event::Message { .. }))));
    assert!(net.server.poll_event().is_none(), "delivered twice");
    assert_eq!(net.server.stats().drops.get(DropCause::Replayed), 2);
    assert!(net.server.outbox().is_empty());
    pair_carries(&mut net, client);
}

#[test]
fn attack_11_only_what_the_tag_accepts_moves_the_window() {
    let (mut victim, mut rogue, id) = open_server();
    let waiting: Vec<_> = (0..5).map(|n| rogue.seal(DATA, &[n])).collect();
    // Spoofed: as high as numbers go, and of the next epoch.
    for n in 0..64 {
        assert!(victim.hit(&record(DATA, 1, (1 << 48) - 1 - n, &[5; 40])).is_empty());
        assert!(victim.hit(&record(DATA, 2, n, &[5; 40])).is_empty());
    }
    assert_eq!((victim.drops(DropCause::BadTag), victim.drops(DropCause::WrongEpoch)), (64, 64));
    // Backwards, then all again: each once.
    for datagram in waiting.iter().rev().chain(&waiting) {
        victim.hit(datagram);
    }
    assert_eq!(victim.messages(), [[4], [3], [2], [1], [0]]);
    assert_eq!(victim.drops(DropCause::Replayed), 5);
    // The window is 64 wide: what is 64 behind the newest is too old, what is 63 behind is not.
    for (number, used) in [(1_000, true), (936, false), (937, true), (937, false), (999, true)] {
        victim.events.clear();
        victim.hit(&rogue.seal_as(DATA, 1, number, b"x"));
        assert_eq!(victim.messages().len(), usize::from(used), "{number}");
    }
    rogue.sealed_sequence = 1_001;
    carries(&mut victim, &mut rogue, id);
}

#[test]
fn attack_12_a_stream_gets_through_a_path_that_bends_cuts_and_repeats() {
    let mut rng = Rng::new(12);
    let (mut victim, mut rogue, id) = open_server();
    let (mut bent, mut cut, mut repeated) = (0, 0, 0);
    for n in 0..2_000u32 {
        let sealed = rogue.seal(DATA, &n.to_be_bytes());
        if rng.chance(0.3) {
            let mut copy = sealed.clone();
            // Behind the header, so that it is the tag which refuses it.
            let at = 13 + rng.below(copy.len() as u64 - 13) as usize;
            copy[at] ^= 1 << rng.below(8);
            victim.hit(&copy);
            bent += 1;
        }
        if rng.chance(0.3) {
            victim.hit(&sealed[..1 + rng.below(sealed.len() as u64 - 1) as usize]);
            cut += 1;
        }
        victim.hit(&sealed);
        if rng.chance(0.3) {
            victim.hit(&sealed);
            repeated += 1;
        }
    }
    assert_eq!(victim.messages().len(), 2_000);
    assert_eq!(victim.drops(DropCause::BadTag), bent);
    assert_eq!(victim.drops(DropCause::Malformed), cut);
    assert_eq!(victim.drops(DropCause::Replayed), repeated);
    assert_eq!(victim.all_drops(), bent + cut + repeated);
    carries(&mut victim, &mut rogue, id);
}

#[test]
fn attack_12_an_authentic_record_that_makes_no_sense_is_dropped_too() {
    let (mut victim, mut rogue, id) = open_server();
    for (kind, content) in [
        (CHANGE_CIPHER_SPEC, &[1u8][..]),
        (ALERT, &[]),
        (ALERT, &[2]),
        (ALERT, &[2, 40, 0]),
        (24, b"heartbeat"),
        (99, b"?"),
    ] {
        let sealed = rogue.seal(kind, content);
        assert!(victim.hit(&sealed).is_empty() && victim.closed().is_none());
    }
    assert_eq!(victim.drops(DropCause::UnexpectedRecord), 6);
    let nonsense = rogue.seal(HANDSHAKE, b"?");
    victim.hit(&nonsense);
    assert_eq!(victim.drops(DropCause::BadFragment), 1);
    let empty = rogue.seal(DATA, b"");
    victim.hit(&empty);
    assert_eq!((victim.messages().len(), victim.all_drops()), (0, 7));
    carries(&mut victim, &mut rogue, id);
}

#[test]
fn attack_21_no_nonce_is_used_twice_not_even_for_a_flight_sent_again() {
    for suite in [CipherSuite::Aes128GcmSha256, CipherSuite::Aes256GcmSha384] {
        // Without ids, so that the records show their types.
        let config = || config().with_connection_id(ConnectionIdMode::Off);
        let mut server = Victim::server_with(config());
        let (mut client, client_id, hello) = Victim::client(config().with_suites(&[suite]));
        let mut seen = [HashSet::new(), HashSet::new()];
        let mut finished = [0, 0];
        // The first sealed flights are lost, two of the client's and one of the server's.
        let mut to_lose = [2, 1];
        let mut on_the_way = vec![(0, hello)];
        let mut data = 100;
        while data > 0 {
            while let Some((from, datagram)) = on_the_way.pop() {
                let sealed: Vec<_> =
                    records(&datagram).into_iter().filter(|record| record.epoch > 0).collect();
                for record in &sealed {
                    let number = 1 << 48 | record.sequence;
                    let explicit = record.body.first_chunk().copied();
                    assert_eq!(explicit.map(u64::from_be_bytes), Some(number));
                    assert!(seen[from].insert(number), "{from} used {number:#x} twice");
                    finished[from] += u32::from(record.content_type == HANDSHAKE);
                }
                if !sealed.is_empty() && to_lose[from] > 0 {
                    to_lose[from] -= 1;
                    continue;
                }
                let other = if from == 0 { &mut server } else { &mut client };
                on_the_way.extend(other.hit(&datagram).into_iter().map(|d| (1 - from, d)));
            }
            if client.is_open() {
                let server_id = server.events[0].0;
                client.endpoint.send(client_id, b"data").unwrap();
                server.endpoint.send(server_id, b"data").unwrap();
                data -= 1;
            } else {
                let wait = client.endpoint.next_timeout().unwrap() - client.now;
                server.now += wait;
                on_the_way.extend(client.pass(wait).into_iter().map(|d| (0, d)));
            }
            on_the_way.extend(client.answers().into_iter().map(|d| (0, d)));
            on_the_way.extend(server.answers().into_iter().map(|d| (1, d)));
        }
        // Twice lost and once unanswered; once lost.
        assert_eq!(finished, [4, 2], "Finished was sent so often");
        assert!(seen.iter().all(|s| s.len() > 100), "{}, {}", seen[0].len(), seen[1].len());
    }
}

#[test]
fn attack_22_numbers_run_out_before_they_wrap_and_the_association_ends_in_good_order() {
    for (suite, last) in [
        (CipherSuite::Aes128GcmSha256, 1u64 << 24),
        (CipherSuite::Aes256GcmSha384, 1 << 24),
        (CipherSuite::Chacha20Poly1305Sha256, (1 << 48) - (1 << 16)),
    ] {
        let mut victim = Victim::server_with(config().with_suites(&[suite]));
        let mut rogue = Rogue::client(credentials());
        greet(&mut victim, &mut rogue);
        finish(&mut victim, &mut rogue);
        let id = victim.events[0].0;
        victim.endpoint.preset_sequence(id, last - 20);
        let mut sent = 0;
        let refused = loop {
            match victim.endpoint.send(id, b"x") {
                Ok(number) => assert_eq!(number, last - 20 + sent),
                Err(error) => break error,
            }
            sent += 1;
        };
        // Some are kept for what has to be said at the end.
        assert_eq!((refused, sent), (SendError::KeysExhausted, 4));
        let answers = victim.answers();
        let heard = hear(&mut rogue, &answers);
        assert_eq!(alert(&heard), Some(0), "close_notify");
        assert_eq!(heard.len(), 5);
        assert_eq!(victim.closed(), Some(&CloseReason::KeysExhausted));
        assert_eq!(victim.endpoint.send(id, b"x"), Err(SendError::Closed));
        assert_eq!(victim.endpoint.associations(), 0);
    }
}

#[test]
fn attack_22_the_highest_number_and_epoch_of_a_peer_do_no_harm() {
    let (mut victim, mut rogue, id) = open_server();
    let top = (1 << 48) - 1;
    for (number, cause) in [
        (top, None),
        (top, Some(DropCause::Replayed)),
        (top - 63, None),
        (top - 64, Some(DropCause::Replayed)),
        (0, Some(DropCause::Replayed)),
    ] {
        victim.events.clear();
        let before = cause.map(|cause| victim.drops(cause));
        victim.hit(&rogue.seal_as(DATA, 1, number, b"x"));
        assert_eq!(victim.messages().len(), usize::from(cause.is_none()), "{number}");
        assert_eq!(cause.map(|cause| victim.drops(cause)), before.map(|n| n + 1));
    }
    victim.hit(&rogue.seal_as(DATA, u16::MAX, top, b"x"));
    assert_eq!(victim.drops(DropCause::WrongEpoch), 1);
    // There are a few numbers left within the window.
    rogue.sealed_sequence = top - 40;
    carries(&mut victim, &mut rogue, id);
    // Handshakes whose numbers are at the end do not begin.
    let mut stranger = Rogue::client(credentials());
    stranger.record_sequence = top;
    let hello = stranger.hello().body();
    let hello = stranger.say_plain(CLIENT_HELLO, &hello);
    let from = ([203, 0, 113, 8], 1_000).into();
    assert!(victim.hit_from(from, &hello).is_empty());
    assert_eq!(victim.drops(DropCause::Malformed), 1);
}

#[test]
fn attack_26_renegotiation_is_declined_once_and_the_association_lives_on() {
    let no_renegotiation = Some(100);
    // A client that begins anew inside the association, as OpenSSL's `R` does, with and without
    // signature_algorithms (CVE-2021-3449).
    let (mut victim, mut rogue, id) = open_server();
    for (n, fields) in [rogue.hello(), rogue.hello().without(13)].iter().enumerate() {
        let hello = Piece::whole(CLIENT_HELLO, n as u16, &fields.body()).bytes();
        let sealed = rogue.seal(HANDSHAKE, &hello);
        let answers = victim.hit(&sealed);
        assert_eq!(answers.len(), usize::from(n == 0), "said once");
        let heard = hear(&mut rogue, &answers);
        assert!(heard.iter().all(|h| h.sealed && h.body[0] == 1), "a warning");
        assert_eq!(alert(&heard), no_renegotiation.filter(|_| n == 0));
    }
    carries(&mut victim, &mut rogue, id);
    // In clear it is a stranger's hello: a cookie, and nothing of it reaches the association.
    let hello = rogue.hello().body();
    let clear = Piece::whole(CLIENT_HELLO, 0, &hello).datagram(3);
    assert!(victim.hit(&clear).len() <= 1);
    carries(&mut victim, &mut rogue, id);
    // A server that asks for it.
    let (mut victim, mut rogue, id) = open_client();
    let request = rogue.seal(HANDSHAKE, &Piece::whole(HELLO_REQUEST, 0, &[]).bytes());
    let answers = victim.hit(&request);
    assert_eq!(alert(&hear(&mut rogue, &answers)), no_renegotiation);
    carries(&mut victim, &mut rogue, id);
    // Messages of a handshake that nobody began.
    let (mut victim, mut rogue, id) = open_server();
    for kind in [SERVER_HELLO, CERTIFICATE, CLIENT_KEY_EXCHANGE, CERTIFICATE_VERIFY, 4] {
        let sealed = rogue.seal(HANDSHAKE, &Piece::whole(kind, 9, b"x").bytes());
        assert!(victim.hit(&sealed).is_empty());
    }
    assert_eq!(victim.drops(DropCause::StaleMessage), 5);
    carries(&mut victim, &mut rogue, id);
}
