//! Rows 1 to 5 and 31: messages in pieces that lie.

use dtls_channel::testing::forge::Piece;
use dtls_channel::testing::{LinkConfig, Net, Rogue};
use dtls_channel::{CloseReason, DropCause, Event, MESSAGE_BYTES_MAX, PeerFault};

use crate::common::config;
use crate::stage::*;

/// A server that waits for a client's certificate, number 2.
fn half_open() -> (Victim, Rogue) {
    let (mut victim, mut rogue) = (Victim::server(), Rogue::client(credentials()));
    greet(&mut victim, &mut rogue);
    (victim, rogue)
}

#[test]
fn attack_01_a_fragment_that_contradicts_its_message_is_dropped_and_the_handshake_goes_on() {
    let (mut victim, mut rogue) = half_open();
    let body = rogue.certificate();
    let n = body.len();
    let piece = Piece::part(CERTIFICATE, 2, n, 0, &body[..10]);
    let lies = [
        // Beyond the message.
        Piece { offset: n - 9, ..piece },
        Piece { length: 9, ..piece },
        // Sums that wrap in 24 bits.
        Piece { length: 0xff_ffff, offset: 0xff_fff7, ..piece },
        Piece { length: 9, offset: 0xff_ffff, ..piece },
        // More, or less, than there is.
        Piece { piece_length: 11, ..piece },
        Piece { piece_length: 0xff_ffff, ..piece },
        Piece { piece_length: 9, ..piece },
    ];
    for lie in &lies {
        assert!(victim.hit(&lie.datagram(9)).is_empty());
    }
    assert_eq!(victim.drops(DropCause::BadFragment), 7);
    assert!(victim.hit(&Piece { length: MESSAGE_BYTES_MAX + 1, ..piece }.datagram(9)).is_empty());
    assert_eq!(victim.drops(DropCause::ReassemblyFull), 1);
    // Lengths that differ from piece to piece: neither is believed.
    for length in [n - 1, n + 1, MESSAGE_BYTES_MAX] {
        let before = victim.drops(DropCause::BadFragment);
        victim.hit(&piece.datagram(9));
        victim.hit(&Piece { length, offset: 10, ..piece }.datagram(9));
        assert_eq!(victim.drops(DropCause::BadFragment), before + 1);
    }
    assert_eq!((victim.all_drops(), victim.events.len()), (11, 0));
    finish(&mut victim, &mut rogue);
}

#[test]
fn attack_01_a_client_hello_whose_pieces_disagree_is_never_put_together() {
    let (mut victim, mut rogue) = (Victim::server(), Rogue::client(credentials()));
    let hello = rogue.hello().body();
    let first = rogue.say_plain(CLIENT_HELLO, &hello);
    let request = victim.hit(&first);
    hear(&mut rogue, &request);
    // The cookie is bound to the whole hello, so it is sent whole and in pieces with one text.
    let hello = rogue.hello().body();
    let n = hello.len();
    let head = Piece::part(CLIENT_HELLO, 1, n, 0, &hello[..80]);
    assert!(victim.hit(&head.datagram(1)).is_empty());
    assert_eq!((victim.endpoint.half_open(), victim.all_drops()), (1, 0));
    let tail = Piece::part(CLIENT_HELLO, 1, n, 80, &hello[80..]);
    for lie in [
        Piece { length: n + 1, ..tail },
        Piece { length: n - 1, offset: 79, ..tail },
        Piece { message_seq: 2, ..tail },
    ] {
        assert!(victim.hit(&lie.datagram(2)).is_empty());
    }
    assert_eq!(victim.drops(DropCause::Unknown), 3, "{:?}", victim.endpoint.stats());
    assert!(victim.hit(&Piece { offset: 81, ..tail }.datagram(2)).is_empty());
    assert_eq!(victim.endpoint.half_open(), 1);
    rogue.say(CLIENT_HELLO, &hello);
    let flight = victim.hit(&tail.datagram(3));
    assert_eq!(hear(&mut rogue, &flight).len(), 5, "{:?}", victim.endpoint.stats());
    finish(&mut victim, &mut rogue);
}

#[test]
fn attack_02_pieces_belong_together_by_number_and_must_agree_in_type() {
    let (mut victim, mut rogue) = half_open();
    let body = rogue.certificate();
    let n = body.len();
    let first = Piece::part(CERTIFICATE, 2, n, 0, &body[..50]);
    let rest = Piece::part(CERTIFICATE, 2, n, 50, &body[50..]);
    for kind in [CLIENT_KEY_EXCHANGE, CERTIFICATE_VERIFY, FINISHED, 99] {
        let before = victim.drops(DropCause::BadFragment);
        victim.hit(&first.datagram(9));
        victim.hit(&Piece { kind, ..rest }.datagram(9));
        assert_eq!(victim.drops(DropCause::BadFragment), before + 1);
    }
    // The same type under other numbers is another message: none of them completes number 2.
    for message_seq in [3, 4, 9] {
        victim.hit(&Piece { message_seq, ..rest }.datagram(9));
    }
    assert!(victim.events.is_empty() && victim.answers().is_empty());
    finish(&mut victim, &mut rogue);
    // A number that was processed may come again with another type: nothing comes of it.
    victim.events.clear();
    let again = rogue.seal(HANDSHAKE, &Piece::whole(CLIENT_KEY_EXCHANGE, 2, b"xx").bytes());
    assert!(victim.hit(&again).is_empty() && victim.events.is_empty());
    assert_eq!(victim.drops(DropCause::StaleMessage), 1);
}

#[test]
fn attack_03_announced_megabytes_and_distant_messages_are_not_kept() {
    let (mut victim, mut rogue) = half_open();
    let huge = Piece { length: 0xff_ffff, ..Piece::part(CERTIFICATE, 2, 9, 0, b"x") };
    for n in 0..100 {
        victim.hit(&huge.datagram(n));
    }
    assert_eq!(victim.drops(DropCause::ReassemblyFull), 100);
    for message_seq in 10..110 {
        victim.hit(&Piece::part(CERTIFICATE, message_seq, 9, 0, b"x").datagram(9));
    }
    victim.hit(&Piece::part(CERTIFICATE, u16::MAX, 9, 0, b"x").datagram(9));
    assert_eq!(victim.drops(DropCause::StaleMessage), 101);
    // Within both limits the sum is limited: two of 8 KiB do not fit 16 KiB with their headers.
    for message_seq in 3..10 {
        let whole = MESSAGE_BYTES_MAX;
        victim.hit(&Piece::part(CERTIFICATE, message_seq, whole, 0, b"x").datagram(9));
    }
    assert_eq!(victim.drops(DropCause::ReassemblyFull), 106);
    assert!(victim.events.is_empty());
    finish(&mut victim, &mut rogue);
}

#[test]
fn attack_03_spoofed_fragments_at_a_pending_handshake_neither_kill_nor_fill_it() {
    let mut net = Net::new(1, &LinkConfig::default(), std::sync::Arc::new(config()));
    net.connect(std::sync::Arc::new(config()));
    assert!(net.run_until(MINUTE, |n| n.server.half_open() == 1));
    let now = net.now();
    for n in 0..500u16 {
        let piece = Piece::part(CERTIFICATE, 9, 0xff_ffff, 0, &[0]);
        let lie = match n % 4 {
            0 => piece,
            1 => Piece { length: 0x1fff, message_seq: n % 9 + 3, ..piece },
            2 => Piece::part(CERTIFICATE, 5, 9, 0, &[]),
            _ => Piece::part(CLIENT_KEY_EXCHANGE, 5, 9, 8, &[0; 5]),
        };
        net.server.handle_datagram(now, clients_path(), &mut lie.datagram(n.into()));
    }
    assert!(net.server.stats().drops.total() > 300, "{:?}", net.server.stats());
    assert!(net.run_until(MINUTE, |n| n.both_open()), "{:?}", net.server.stats());
}

#[test]
fn attack_04_empty_fragments_make_neither_progress_nor_a_loop() {
    let (mut victim, mut rogue) = half_open();
    let n = rogue.certificate().len();
    let empty = Piece::part(CERTIFICATE, 2, n, 0, &[]);
    for offset in 0..500 {
        assert!(victim.hit(&Piece { offset: offset % n, ..empty }.datagram(9)).is_empty());
    }
    // A thousand of them in one record; its length field allows it.
    let many: Vec<u8> = (0..1_000).flat_map(|_| empty.bytes()).collect();
    assert!(victim.hit(&rogue.plain(HANDSHAKE, &many)).is_empty());
    assert!(victim.hit(&rogue.plain(HANDSHAKE, &[])).is_empty(), "a record without any");
    assert_eq!((victim.all_drops(), victim.events.len()), (0, 0));
    finish(&mut victim, &mut rogue);
}

#[test]
fn attack_05_overlapping_fragments_with_different_bytes_give_both_sides_one_view() {
    // The certificate's last byte belongs to its own signature, which nobody checks: only the
    // transcript tells the two forms apart.
    let open = |first_wins: bool| {
        let (mut victim, mut rogue) = half_open();
        let good = rogue.certificate();
        let n = good.len();
        let mut bent = good.clone();
        bent[n - 1] ^= 1;
        let heads = Piece::part(CERTIFICATE, 2, n, 0, &good[..n - 1]).datagram(2);
        let tail_first = Piece::part(CERTIFICATE, 2, n, n - 30, &good[n - 30..]).datagram(1);
        let tail_again = Piece::part(CERTIFICATE, 2, n, n - 20, &bent[n - 20..]).datagram(3);
        for datagram in [&tail_first, &tail_again, &heads] {
            assert!(victim.hit(datagram).is_empty());
        }
        assert_eq!(victim.all_drops(), 0);
        rogue.say(CERTIFICATE, if first_wins { &good } else { &bent });
        let mut rest = after_certificate(&mut rogue);
        rest.push(finished(&mut rogue));
        deliver(&mut victim, &mut rogue, &rest);
        victim
    };
    let victim = open(true);
    let Event::Established(e) = &victim.events[0].1 else { panic!("{:?}", victim.events) };
    assert!(e.peer_certificate.is_some());
    let victim = open(false);
    let wrong = CloseReason::PeerFault(PeerFault::BadSignature("CertificateVerify"));
    assert_eq!((victim.is_open(), victim.closed()), (false, Some(&wrong)));
}

/// The messages of a client's last flight, in pieces of `size` bytes, each in its own record.
fn in_pieces(rogue: &mut Rogue, flight: &[Vec<u8>], size: usize, backwards: bool) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    for datagram in flight {
        let (header, body) = datagram[13..].split_at_checked(12).unwrap_or((&[], &[]));
        let [kind, _, l1, l2, s0, s1, ..] = *header else {
            out.push(datagram.clone());
            continue;
        };
        let length = usize::from(l1) << 8 | usize::from(l2);
        let mut pieces: Vec<Vec<u8>> = body
            .chunks(size)
            .enumerate()
            .map(|(n, piece)| {
                let message_seq = u16::from_be_bytes([s0, s1]);
                let piece = Piece::part(kind, message_seq, length, n * size, piece);
                rogue.plain(HANDSHAKE, &piece.bytes())
            })
            .collect();
        if backwards {
            pieces.reverse();
        }
        out.extend(pieces);
    }
    out
}

#[test]
fn attack_31_the_transcript_is_the_same_however_the_messages_were_cut() {
    for (size, backwards) in [(1, false), (1, true), (7, false), (64, true)] {
        let (mut victim, mut rogue) = half_open();
        let flight = unfinished_flight(&mut rogue);
        let mut pieces = in_pieces(&mut rogue, &flight, size, backwards);
        pieces.push(finished(&mut rogue));
        deliver(&mut victim, &mut rogue, &pieces);
        assert!(victim.is_open(), "{size}: {:?} {:?}", victim.events, victim.endpoint.stats());
        assert_eq!(victim.all_drops(), 0);
    }
}

#[test]
fn attack_31_a_finished_that_differs_anywhere_is_refused_by_either_side() {
    let wrong = CloseReason::PeerFault(PeerFault::BadFinished);
    let bend = |good: &[u8], n: usize| {
        let mut bent = good.to_vec();
        match n {
            0..12 => bent[n] ^= 1 << (n % 8),
            12 => bent.truncate(11),
            13 => bent.push(0),
            _ => bent.clear(),
        }
        bent
    };
    for n in 0..15 {
        let (mut victim, mut rogue) = half_open();
        let flight = unfinished_flight(&mut rogue);
        deliver(&mut victim, &mut rogue, &flight);
        let body = bend(&rogue.finished(), n);
        let finished = rogue.say_sealed(FINISHED, &body);
        let heard = deliver(&mut victim, &mut rogue, &[finished]);
        assert_eq!((victim.is_open(), victim.closed()), (false, Some(&wrong)), "server, {n}");
        assert_eq!(alert(&heard), Some(51), "decrypt_error");
        assert_eq!((victim.endpoint.associations(), victim.endpoint.half_open()), (0, 0));

        let (mut victim, mut rogue, _) = connecting();
        answer(&mut victim, &mut rogue);
        let body = bend(&rogue.finished(), n);
        let finished = rogue.say_sealed(FINISHED, &body);
        victim.hit(&finished);
        assert_eq!((victim.is_open(), victim.closed()), (false, Some(&wrong)), "client, {n}");
    }
}

#[test]
fn attack_31_the_cookie_exchange_is_no_part_of_what_finished_covers() {
    let (mut victim, mut rogue) = half_open();
    let flight = unfinished_flight(&mut rogue);
    deliver(&mut victim, &mut rogue, &flight);
    // As if the first hello and its answer counted.
    let first = rogue.hello().body();
    let with_exchange = [Piece::whole(CLIENT_HELLO, 0, &first).bytes(), rogue.transcript.clone()];
    rogue.transcript = with_exchange.concat();
    let body = rogue.finished();
    let finished = rogue.say_sealed(FINISHED, &body);
    victim.hit(&finished);
    assert_eq!(victim.closed(), Some(&CloseReason::PeerFault(PeerFault::BadFinished)));
}
