//! Row 24: every message and every datagram, cut at every byte.

use std::collections::BTreeMap;

use dtls_channel::testing::forge::{Piece, records};
use dtls_channel::testing::{LinkConfig, Net, Rogue};
use dtls_channel::{CloseReason, DropCause, PeerFault};
use std::sync::Arc;

use crate::common::config;
use crate::stage::*;

/// How a handshake ended whose one message was cut.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Clone)]
enum End {
    Open,
    Waiting,
    Closed(&'static str),
}

fn end(victim: &Victim) -> End {
    match victim.closed() {
        None if victim.is_open() => End::Open,
        None => End::Waiting,
        Some(CloseReason::PeerFault(fault)) => End::Closed(match fault {
            PeerFault::Malformed(_) => "malformed",
            PeerFault::NoCertificate => "no certificate",
            PeerFault::BadCertificate(_) => "bad certificate",
            PeerFault::BadPoint => "bad point",
            PeerFault::BadSignature(_) => "bad signature",
            PeerFault::BadFinished => "bad finished",
            PeerFault::NotOffered(_) => "not offered",
            other => panic!("{other:?}"),
        }),
        Some(CloseReason::Mismatch(_)) => End::Closed("mismatch"),
        Some(other) => panic!("{other:?}"),
    }
}

/// How all truncations end, when only the whole message ends, or leaves, the handshake as it should.
fn truncations(cuts: impl Iterator<Item = (bool, End)>, whole: End) -> BTreeMap<End, usize> {
    let mut ends = BTreeMap::new();
    for (is_whole, end) in cuts {
        if is_whole {
            assert_eq!(end, whole);
        } else {
            *ends.entry(end).or_default() += 1;
        }
    }
    ends
}

/// A server's end after a client's handshake in which the message of this kind was cut to `cut`
/// bytes; with headers that fit, so that it reaches the parser. `None` beyond the message's end.
fn server_after(kind: u8, cut: usize) -> Option<(bool, End)> {
    let (mut victim, mut rogue) = (Victim::server(), Rogue::client(credentials()));
    let mut is_whole = false;
    if kind == CLIENT_HELLO {
        let hello = rogue.hello().body();
        let first = rogue.say_plain(CLIENT_HELLO, &hello);
        let request = victim.hit(&first);
        hear(&mut rogue, &request);
        let hello = rogue.hello().body();
        let is_whole = cut == hello.len();
        let datagram = rogue.say_plain(CLIENT_HELLO, hello.get(..cut)?);
        let answers = victim.hit(&datagram);
        if !is_whole {
            // An alert, or a cookie for what looks like a stranger's hello; nothing is kept.
            assert!(answers.iter().all(|a| a.len() <= datagram.len()));
            assert_eq!(victim.endpoint.associations(), 0);
        }
        return Some((is_whole, end(&victim)));
    }
    greet(&mut victim, &mut rogue);
    for due in [CERTIFICATE, CLIENT_KEY_EXCHANGE, CERTIFICATE_VERIFY, FINISHED] {
        let mut body = match due {
            CERTIFICATE => rogue.certificate(),
            CLIENT_KEY_EXCHANGE => rogue.key_exchange(),
            CERTIFICATE_VERIFY => rogue.proof(),
            _ => rogue.finished(),
        };
        if due == kind {
            is_whole = cut == body.len();
            body = body.get(..cut)?.to_vec();
        }
        let datagram = match due {
            FINISHED => rogue.say_sealed(due, &body),
            _ => rogue.say_plain(due, &body),
        };
        victim.hit(&datagram);
        if due == kind {
            break;
        }
    }
    Some((is_whole, end(&victim)))
}

/// The same for a client and the server's messages.
fn client_after(kind: u8, cut: usize) -> Option<(bool, End)> {
    let (mut victim, mut rogue, _) = connecting();
    for (due, body) in rogue.flight() {
        let is_whole = cut == body.len();
        let body = if due == kind { body.get(..cut)? } else { &body };
        let datagram = rogue.say_plain(due, body);
        let answers = victim.hit(&datagram);
        hear(&mut rogue, &answers);
        if due == kind {
            return Some((is_whole, end(&victim)));
        }
    }
    let body = rogue.finished();
    let datagram = rogue.say_sealed(FINISHED, body.get(..cut)?);
    victim.hit(&datagram);
    Some((cut == body.len(), end(&victim)))
}

#[test]
fn attack_24_every_truncation_of_every_message_of_a_client_is_refused_by_the_server() {
    let ends = |kind, whole| truncations((0..).map_while(|cut| server_after(kind, cut)), whole);
    // The address has proved itself, so it may be told what is wrong with the rest.
    let mut hello = ends(CLIENT_HELLO, End::Waiting);
    // Without any extension a hello is whole, but lacks what we require.
    assert_eq!(hello.remove(&End::Closed("mismatch")), Some(1));
    assert!(hello.keys().all(|end| [End::Waiting, End::Closed("malformed")].contains(end)));
    for kind in [CERTIFICATE, CLIENT_KEY_EXCHANGE, CERTIFICATE_VERIFY] {
        let ends = ends(kind, End::Waiting);
        assert_eq!(ends.keys().collect::<Vec<_>>(), [&End::Closed("malformed")], "{kind}");
    }
    assert_eq!(ends(FINISHED, End::Open), [(End::Closed("bad finished"), 12)].into());
}

#[test]
fn attack_24_every_truncation_of_every_message_of_a_server_is_refused_by_the_client() {
    let ends = |kind, whole| truncations((0..).map_while(|cut| client_after(kind, cut)), whole);
    // Cut right behind the compression method it is a hello without extensions, which lacks one.
    let hello = ends(SERVER_HELLO, End::Waiting);
    let (malformed, mismatch) = (End::Closed("malformed"), End::Closed("mismatch"));
    assert_eq!((hello.len(), hello[&mismatch]), (2, 1));
    assert!(hello[&malformed] > 40);
    for kind in [CERTIFICATE, SERVER_KEY_EXCHANGE, CERTIFICATE_REQUEST] {
        let ends = ends(kind, End::Waiting);
        assert_eq!(ends.keys().collect::<Vec<_>>(), [&malformed], "{kind}");
    }
    assert!(ends(SERVER_HELLO_DONE, End::Waiting).is_empty(), "it has no body to cut");
    assert_eq!(ends(FINISHED, End::Open), [(End::Closed("bad finished"), 12)].into());
}

#[test]
fn attack_24_bytes_behind_a_message_are_refused_as_well() {
    let (mut victim, mut rogue, _) = connecting();
    let mut flight = rogue.flight();
    flight[4].1 = vec![0];
    let datagrams = say_all(&mut rogue, &flight);
    deliver(&mut victim, &mut rogue, &datagrams);
    assert_eq!(end(&victim), End::Closed("malformed"));
    for n in 0..4 {
        let (mut victim, mut rogue, _) = connecting();
        let mut flight = rogue.flight();
        flight[n].1.push(0);
        let datagrams = say_all(&mut rogue, &flight);
        deliver(&mut victim, &mut rogue, &datagrams);
        assert_eq!(end(&victim), End::Closed("malformed"), "{n}");
    }
}

#[test]
fn attack_24_every_truncation_of_every_datagram_is_counted_and_harmless() {
    // Each datagram of a handshake is delivered cut at every byte before it is delivered whole.
    let mut net = Net::new(1, &LinkConfig::default(), Arc::new(config()));
    net.connect(Arc::new(config()));
    let mut cuts = 0;
    while !net.both_open() {
        net.collect();
        let at = net.next_due().unwrap();
        let mut arriving = Vec::new();
        while let Some(datagram) = net.up.pop(at) {
            arriving.push((true, datagram));
        }
        while let Some(datagram) = net.down.pop(at) {
            arriving.push((false, datagram));
        }
        net.advance_to(at);
        let server = net.server_address();
        for (up, datagram) in arriving {
            let endpoint = if up { &mut net.server } else { &mut net.client };
            let path = if up { clients_path() } else { server.into() };
            for cut in 0..datagram.len() {
                let before = endpoint.stats().drops.get(DropCause::Malformed);
                endpoint.handle_datagram(at, path, &mut datagram[..cut].to_vec());
                let torn = endpoint.stats().drops.get(DropCause::Malformed) - before;
                // Cut between two records it is whole as far as it goes.
                let seen = records(&datagram[..cut]);
                let whole: usize =
                    seen.iter().map(|record| 13 + record.id.len() + record.body.len()).sum();
                assert_eq!(torn, u64::from(cut == 0 || whole != cut), "{cut} of {datagram:02x?}");
                cuts += 1;
            }
            endpoint.handle_datagram(at, path, &mut datagram.clone());
        }
        net.run_until(std::time::Duration::ZERO, |_| true);
    }
    assert!(cuts > 1_500, "{cuts}");
    assert!(net.events.len() == 2, "{:?}", net.events);
}

#[test]
fn attack_24_every_truncation_of_a_request_to_verify_is_refused() {
    let request = [&[0xfe, 0xff, 20][..], &[7; 20]].concat();
    for cut in 0..=request.len() {
        let (mut victim, _, _) = Victim::client(config());
        let sent = victim.hit(&Piece::whole(HELLO_VERIFY_REQUEST, 0, &request[..cut]).datagram(0));
        if cut == request.len() {
            assert_eq!((end(&victim), sent.len()), (End::Waiting, 1));
            assert_eq!(sent[0][13], CLIENT_HELLO);
        } else {
            assert_eq!((end(&victim), sent[0][0]), (End::Closed("malformed"), ALERT), "{cut}");
        }
    }
}
