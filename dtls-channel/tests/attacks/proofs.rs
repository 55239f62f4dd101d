//! Rows 8 to 10: peers that do not prove that their certificate is theirs.

use dtls_channel::testing::Rogue;
use dtls_channel::{AlertDescription, CloseReason, DropCause, PeerFault};

use crate::common::config;
use crate::stage::*;

/// A victim server that has a rogue's certificate and key exchange.
fn awaiting_proof() -> (Victim, Rogue) {
    let (mut victim, mut rogue) = (Victim::server(), Rogue::client(credentials()));
    greet(&mut victim, &mut rogue);
    let body = rogue.certificate();
    let certificate = rogue.say_plain(CERTIFICATE, &body);
    let body = rogue.key_exchange();
    let exchange = rogue.say_plain(CLIENT_KEY_EXCHANGE, &body);
    deliver(&mut victim, &mut rogue, &[certificate, exchange]);
    assert!(victim.events.is_empty());
    (victim, rogue)
}

#[test]
fn attack_08_a_client_that_leaves_out_its_proof_never_opens() {
    // Finished in place of the proof, sealed with the right keys; then data.
    let (mut victim, mut rogue) = awaiting_proof();
    let last = finished(&mut rogue);
    let data = rogue.seal(DATA, b"let me in");
    let ccs = rogue.plain(CHANGE_CIPHER_SPEC, &[1]);
    assert!(deliver(&mut victim, &mut rogue, &[ccs, last, data]).is_empty());
    assert!(victim.events.is_empty() && victim.endpoint.half_open() == 1);
    victim.pass(MINUTE * 2);
    assert_eq!((victim.is_open(), victim.closed()), (false, Some(&CloseReason::TimedOut)));
    assert!(victim.messages().is_empty());
    assert_eq!((victim.endpoint.associations(), victim.endpoint.half_open()), (0, 0));

    // Finished in clear: put aside, and believed wrong when nothing better comes.
    let (mut victim, mut rogue) = awaiting_proof();
    let body = rogue.finished();
    let last = rogue.say_plain(FINISHED, &body);
    victim.hit(&last);
    assert_eq!(victim.drops(DropCause::UnexpectedMessage), 1);
    victim.pass(MINUTE * 2);
    let unexpected = |reason: Option<&CloseReason>| {
        matches!(reason, Some(CloseReason::PeerFault(PeerFault::UnexpectedMessage { .. })))
    };
    assert!(!victim.is_open() && unexpected(victim.closed()), "{:?}", victim.events);

    // Without certificate and proof at all.
    let (mut victim, mut rogue) = (Victim::server(), Rogue::client(credentials()));
    greet(&mut victim, &mut rogue);
    let body = rogue.key_exchange();
    let exchange = rogue.say_plain(CLIENT_KEY_EXCHANGE, &body);
    let last = finished(&mut rogue);
    assert!(deliver(&mut victim, &mut rogue, &[exchange, last]).is_empty());
    assert_eq!(victim.drops(DropCause::UnexpectedMessage), 1);
    victim.pass(MINUTE * 2);
    assert!(!victim.is_open() && unexpected(victim.closed()), "{:?}", victim.events);
}

#[test]
fn attack_08_a_proof_by_another_key_or_over_other_words_is_refused() {
    let other = Rogue::client(other_credentials());
    let bad_signature = CloseReason::PeerFault(PeerFault::BadSignature("CertificateVerify"));
    for n in 0..6 {
        let (mut victim, mut rogue) = awaiting_proof();
        let mut body = rogue.proof();
        let said = rogue.transcript.clone();
        match n {
            0 => {
                body.clear();
                other.sign_into(&said, &mut body);
            }
            // Over all but the last byte, over nothing, over what another handshake said.
            1 => {
                body.clear();
                rogue.sign_into(&said[..said.len() - 1], &mut body);
            }
            2 => {
                body.clear();
                rogue.sign_into(&[], &mut body);
            }
            3 => body = awaiting_proof().1.proof(),
            4 => *body.last_mut().unwrap() ^= 1,
            // A signature of no bytes.
            _ => body = vec![4, 3, 0, 0],
        }
        let proof = rogue.say_plain(CERTIFICATE_VERIFY, &body);
        let last = finished(&mut rogue);
        let heard = deliver(&mut victim, &mut rogue, &[proof, last]);
        assert_eq!((victim.is_open(), victim.closed()), (false, Some(&bad_signature)), "{n}");
        assert_eq!(alert(&heard), Some(AlertDescription::DECRYPT_ERROR.0), "{n}");
        assert_eq!(victim.endpoint.associations(), 0);
    }
    // Schemes that were not asked for, or that do not fit the key.
    for scheme in [0x0603u16, 0x0503, 0x0807, 0x0401, 0x0203, 0x0000, 0xffff] {
        let (mut victim, mut rogue) = awaiting_proof();
        let mut body = rogue.proof();
        body[..2].copy_from_slice(&scheme.to_be_bytes());
        let proof = rogue.say_plain(CERTIFICATE_VERIFY, &body);
        let last = finished(&mut rogue);
        deliver(&mut victim, &mut rogue, &[proof, last]);
        assert!(!victim.is_open(), "{scheme:#06x}");
        assert!(matches!(victim.closed(), Some(CloseReason::PeerFault(_))), "{scheme:#06x}");
    }
}

/// What a client makes of a server whose key exchange was bent.
fn refused(bend: impl FnOnce(&mut Rogue, &mut Vec<u8>)) -> (Victim, Option<u8>) {
    let (mut victim, mut rogue, _) = connecting();
    let mut flight = rogue.flight();
    bend(&mut rogue, &mut flight[2].1);
    let datagrams = say_all(&mut rogue, &flight);
    let heard = deliver(&mut victim, &mut rogue, &datagrams);
    let alert = alert(&heard);
    // It said nothing of itself: neither certificate nor key.
    assert!(heard.iter().all(|h| h.content_type == ALERT), "{heard:?}");
    assert!(!victim.is_open() && victim.endpoint.associations() == 0);
    (victim, alert)
}

#[test]
fn attack_09_a_servers_share_counts_only_with_its_signature_over_both_randoms() {
    let bad_signature = CloseReason::PeerFault(PeerFault::BadSignature("ServerKeyExchange"));
    let stranger = Rogue::server(other_credentials());
    // Signed are client random, server random, and the parameters: 4 bytes and the point.
    let parameters = |body: &[u8]| body[..4 + usize::from(body[3])].to_vec();
    let signed = |rogue: &Rogue, content: &[Vec<u8>], body: &mut Vec<u8>| {
        let bare = parameters(body);
        *body = bare;
        rogue.sign_into(&content.concat(), body);
    };
    for n in 0..6 {
        let (victim, alert) = refused(|rogue, body| {
            let ours = rogue.random.to_vec();
            let theirs = rogue.transcript[14..46].to_vec();
            let bare = parameters(body);
            match n {
                0 => signed(&stranger, &[theirs, ours, bare], body),
                // Randoms swapped, left out, or of another handshake.
                1 => signed(rogue, &[ours, theirs, bare], body),
                2 => signed(rogue, &[bare], body),
                3 => signed(rogue, &[vec![1; 32], ours, bare], body),
                // Another point than was signed.
                4 => body[10] ^= 1,
                _ => *body.last_mut().unwrap() ^= 1,
            }
        });
        assert_eq!(victim.closed(), Some(&bad_signature), "{n}");
        assert_eq!(alert, Some(AlertDescription::DECRYPT_ERROR.0), "{n}");
    }
    // No signature, or one of a scheme we did not offer.
    let (victim, _) = refused(|_, body| *body = parameters(body));
    assert_eq!(
        victim.closed(),
        Some(&CloseReason::PeerFault(PeerFault::Malformed("ServerKeyExchange")))
    );
    for scheme in [0x0603u16, 0x0401, 0x0203, 0x0807, 0] {
        let (victim, _) = refused(|_, body| {
            let at = parameters(body).len();
            body[at..at + 2].copy_from_slice(&scheme.to_be_bytes());
        });
        assert!(matches!(victim.closed(), Some(CloseReason::PeerFault(_))), "{scheme:#06x}");
    }
}

#[test]
fn attack_10_an_empty_certificate_where_one_is_required_is_a_handshake_failure() {
    let (mut victim, mut rogue) = (Victim::server_with(config()), Rogue::client(credentials()));
    greet(&mut victim, &mut rogue);
    let certificate = rogue.say_plain(CERTIFICATE, &[0, 0, 0]);
    let body = rogue.key_exchange();
    let exchange = rogue.say_plain(CLIENT_KEY_EXCHANGE, &body);
    let last = finished(&mut rogue);
    let heard = deliver(&mut victim, &mut rogue, &[certificate, exchange, last]);
    let none = CloseReason::PeerFault(PeerFault::NoCertificate);
    assert_eq!((victim.is_open(), victim.closed()), (false, Some(&none)));
    assert_eq!(alert(&heard), Some(AlertDescription::HANDSHAKE_FAILURE.0));
    assert_eq!((victim.endpoint.associations(), victim.drops(DropCause::Unknown)), (0, 2));
    // A list with an empty certificate in it, and something that is none.
    for (body, alert_due) in [
        (&[0u8, 0, 3, 0, 0, 0][..], AlertDescription::DECODE_ERROR),
        (&[0, 0, 7, 0, 0, 4, 1, 2, 3, 4], AlertDescription::BAD_CERTIFICATE),
    ] {
        let (mut victim, mut rogue) = (Victim::server(), Rogue::client(credentials()));
        greet(&mut victim, &mut rogue);
        let mut flight = vec![rogue.say_plain(CERTIFICATE, body)];
        flight.extend(after_certificate(&mut rogue));
        let heard = deliver(&mut victim, &mut rogue, &flight);
        assert_eq!((victim.is_open(), alert(&heard)), (false, Some(alert_due.0)));
        assert_eq!(victim.endpoint.associations(), 0);
    }
    // A server without one is no better.
    let (mut victim, mut rogue, _) = connecting();
    let mut flight = rogue.flight();
    flight[1].1 = vec![0, 0, 0];
    let datagrams = say_all(&mut rogue, &flight);
    deliver(&mut victim, &mut rogue, &datagrams);
    assert_eq!(victim.closed(), Some(&none));
}
