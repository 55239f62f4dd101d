//! Rows 26 to 29: what the two sides agree on.

use dtls_channel::testing::Rogue;
use dtls_channel::testing::forge::{AnswerFields, HelloFields, Piece, record_of_version};
use dtls_channel::{
    AlertDescription, CipherSuite, CloseReason, DropCause, Event, Group, Mismatch, PeerFault,
};

use crate::common::config;
use crate::stage::*;

const EMS: u16 = 23;
const RENEGOTIATION_INFO: u16 = 0xff01;

/// What a server makes of a hello that comes with its cookie: the alert, and the reason.
fn hello_refused(bend: impl Fn(&mut HelloFields)) -> (Victim, u8) {
    let (mut victim, mut rogue) = (Victim::server(), Rogue::client(credentials()));
    let mut heard = Vec::new();
    for _ in 0..2 {
        let mut hello = rogue.hello();
        bend(&mut hello);
        let hello = rogue.say_plain(CLIENT_HELLO, &hello.body());
        heard = deliver(&mut victim, &mut rogue, &[hello]);
    }
    assert_eq!(heard.len(), 1, "an alert and nothing else: {heard:?}");
    assert_eq!((victim.endpoint.associations(), victim.endpoint.half_open()), (0, 0));
    (victim, alert(&heard).unwrap())
}

/// What a client makes of a server's bent hello.
fn answer_refused(bend: impl Fn(&mut AnswerFields)) -> (Victim, Option<u8>) {
    let (mut victim, mut rogue, _) = connecting();
    let mut answer = rogue.answer();
    bend(&mut answer);
    let mut flight = rogue.flight();
    flight[0].1 = answer.body();
    let datagrams = say_all(&mut rogue, &flight);
    let heard = deliver(&mut victim, &mut rogue, &datagrams);
    assert!(!victim.is_open() && victim.endpoint.associations() == 0);
    (victim, alert(&heard))
}

#[test]
fn attack_27_without_the_extended_master_secret_there_is_no_association_unless_a_setting_admits_it()
{
    let missing = CloseReason::Mismatch(Mismatch::ExtendedMasterSecret);
    let (victim, alert) = hello_refused(|hello| *hello = hello.clone().without(EMS));
    assert_eq!(victim.closed(), Some(&missing));
    assert_eq!(alert, AlertDescription::HANDSHAKE_FAILURE.0);
    let (victim, alert) = answer_refused(|answer| *answer = answer.clone().without(EMS));
    assert_eq!(victim.closed(), Some(&missing));
    assert_eq!(alert, Some(AlertDescription::HANDSHAKE_FAILURE.0));
    // Admitted by setting, it is named, and a peer that has it uses it all the same.
    let mut victim = Victim::server_with(config().admitting_peers_without_ems());
    let mut rogue = Rogue::client(credentials());
    greet(&mut victim, &mut rogue);
    finish(&mut victim, &mut rogue);
    let Event::Established(e) = &victim.events[0].1 else { panic!("{:?}", victim.events) };
    assert!(e.extended_master_secret);
}

/// Points that are none, each for its group.
fn bad_points(group: Group) -> Vec<Vec<u8>> {
    let size = match group {
        Group::P256 => 32,
        Group::P384 => 48,
        Group::X25519 => {
            // The encodings of small order (RFC 7748 §6.1), whose result is zero; and other lengths.
            let one = [&[1][..], &[0; 31]].concat();
            let p_minus_one = [&[0xec][..], &[0xff; 30], &[0x7f]].concat();
            let p = [&[0xed][..], &[0xff; 30], &[0x7f]].concat();
            return vec![vec![0; 32], one, p_minus_one, p, vec![9; 31], vec![9; 33], vec![9]];
        }
    };
    let off_curve = [&[4u8][..], &vec![1; 2 * size]].concat();
    let beyond_field = [&[4u8][..], &vec![0xff; 2 * size]].concat();
    let compressed = [&[2u8][..], &vec![1; size]].concat();
    let hybrid = [&[6u8][..], &vec![1; 2 * size]].concat();
    let zero = [&[4u8][..], &vec![0; 2 * size]].concat();
    vec![off_curve, beyond_field, compressed, hybrid, zero, vec![0], vec![4], vec![9; 2 * size]]
}

#[test]
fn attack_28_points_that_are_not_on_the_curve_compressed_or_of_small_order_are_refused() {
    let bad = CloseReason::PeerFault(PeerFault::BadPoint);
    for group in Group::ALL {
        for point in bad_points(group) {
            // From a client.
            let mut victim = Victim::server_with(config().with_groups(&[group]));
            let mut rogue = Rogue::client(credentials());
            greet(&mut victim, &mut rogue);
            let body = rogue.certificate();
            let certificate = rogue.say_plain(CERTIFICATE, &body);
            let exchange = [&[point.len() as u8][..], &point].concat();
            let exchange = rogue.say_plain(CLIENT_KEY_EXCHANGE, &exchange);
            let heard = deliver(&mut victim, &mut rogue, &[certificate, exchange]);
            assert_eq!(victim.closed(), Some(&bad), "{group:?} {point:02x?}");
            assert_eq!(alert(&heard), Some(AlertDescription::ILLEGAL_PARAMETER.0));
            assert_eq!((victim.is_open(), victim.endpoint.associations()), (false, 0));

            // From a server, which has signed it.
            let (mut victim, mut rogue, _) = connecting();
            rogue.group = group;
            let mut flight = rogue.flight();
            flight[2].1 = rogue.server_key_exchange(Some(&point));
            let datagrams = say_all(&mut rogue, &flight);
            let heard = deliver(&mut victim, &mut rogue, &datagrams);
            assert_eq!(victim.closed(), Some(&bad), "{group:?} {point:02x?}");
            assert_eq!(alert(&heard), Some(AlertDescription::ILLEGAL_PARAMETER.0));
            assert_eq!((victim.is_open(), victim.endpoint.associations()), (false, 0));
        }
    }
}

#[test]
fn attack_29_the_version_is_chosen_by_the_server_hello_and_by_nothing_before_it() {
    // A request to verify that says 1.0, inside and on its record, decides nothing.
    let (mut victim, id, hello) = Victim::client(config());
    let mut rogue = Rogue::server(credentials());
    rogue.hear(&hello);
    let request = Piece::whole(HELLO_VERIFY_REQUEST, 0, &[0xfe, 0xff, 2, 9, 9]).bytes();
    let again = victim.hit(&record_of_version(0xfeff, HANDSHAKE, 0, 0, &request));
    assert_eq!(again[0][25..27], [0xfe, 0xfd], "the second hello offers 1.2 again");
    hear(&mut rogue, &again);
    (rogue.message_seq, rogue.record_sequence) = (1, 1);
    answer(&mut victim, &mut rogue);
    let last = finished(&mut rogue);
    victim.hit(&last);
    carries(&mut victim, &mut rogue, id);
    // Once chosen there is no other.
    for version in [0xfeffu16, 0xfefc, 0x0303, 0x0100, 0] {
        let (victim, alert) = answer_refused(|answer| answer.version = version);
        assert_eq!(victim.closed(), Some(&CloseReason::Mismatch(Mismatch::Version(version))));
        assert_eq!(alert, Some(AlertDescription::PROTOCOL_VERSION.0));
    }
    for version in [0xfeff, 0xffff] {
        let (victim, alert) = hello_refused(|hello| hello.version = version);
        assert_eq!(victim.closed(), Some(&CloseReason::Mismatch(Mismatch::Version(version))));
        assert_eq!(alert, AlertDescription::PROTOCOL_VERSION.0);
    }
    // Records of other versions are not read: neither in clear nor sealed.
    let (mut victim, mut rogue, id) = open_client();
    let mut sealed = rogue.seal(DATA, b"x");
    sealed[2] = 0xff;
    victim.hit(&sealed);
    assert_eq!(victim.drops(DropCause::WrongVersion), 1);
    carries(&mut victim, &mut rogue, id);
}

#[test]
fn attack_29_what_was_not_offered_cannot_be_chosen() {
    // Suites of other profiles, and one of ours that this client does not want.
    for suite in [0x002fu16, 0xc009, 0xc02f, 0x1301, 0x0000, 0x00ff, 0xffff] {
        let (victim, alert) = answer_refused(|answer| answer.suite = suite);
        let reason = format!("suite {suite:#06x}");
        assert_eq!(victim.closed(), Some(&CloseReason::PeerFault(PeerFault::NotOffered(reason))));
        assert_eq!(alert, Some(AlertDescription::ILLEGAL_PARAMETER.0));
    }
    let (mut victim, _, hello) =
        Victim::client(config().with_suites(&[CipherSuite::Aes128GcmSha256]));
    let mut rogue = Rogue::server(credentials());
    rogue.hear(&hello);
    rogue.suite = CipherSuite::Aes256GcmSha384;
    answer(&mut victim, &mut rogue);
    assert!(matches!(victim.closed(), Some(CloseReason::PeerFault(PeerFault::NotOffered(_)))));
    // A group, one we have and one nobody has.
    for wanted in [None, Some(25u16)] {
        let (mut victim, _, hello) = Victim::client(config().with_groups(&[Group::P256]));
        let mut rogue = Rogue::server(credentials());
        rogue.hear(&hello);
        rogue.group = Group::X25519;
        let mut flight = rogue.flight();
        if let Some(number) = wanted {
            flight[2].1[1..3].copy_from_slice(&number.to_be_bytes());
        }
        let datagrams = say_all(&mut rogue, &flight);
        let heard = deliver(&mut victim, &mut rogue, &datagrams);
        assert!(matches!(victim.closed(), Some(CloseReason::PeerFault(PeerFault::NotOffered(_)))));
        assert_eq!(alert(&heard), Some(AlertDescription::ILLEGAL_PARAMETER.0));
    }
    // Compression.
    let (victim, _) = answer_refused(|answer| answer.compression = 1);
    assert!(matches!(victim.closed(), Some(CloseReason::PeerFault(_))));
    // Extensions: OCSP, SRTP, ALPN, heartbeat, and one that nobody knows.
    for number in [5u16, 14, 16, 15, 0x4242] {
        let (victim, alert) = answer_refused(|answer| answer.extensions.push((number, vec![0])));
        let fault = PeerFault::UnsolicitedExtension(number);
        assert_eq!(victim.closed(), Some(&CloseReason::PeerFault(fault)));
        assert_eq!(alert, Some(AlertDescription::UNSUPPORTED_EXTENSION.0));
    }
    // One that comes twice; a renegotiation_info that is not empty.
    let (victim, alert) = answer_refused(|answer| answer.extensions.push((EMS, vec![])));
    assert_eq!(victim.closed(), Some(&CloseReason::PeerFault(PeerFault::Malformed("extensions"))));
    assert_eq!(alert, Some(AlertDescription::DECODE_ERROR.0));
    let (victim, _) = answer_refused(|answer| {
        *answer = answer.clone().without(RENEGOTIATION_INFO);
        answer.extensions.push((RENEGOTIATION_INFO, vec![1, 7]));
    });
    assert!(matches!(victim.closed(), Some(CloseReason::PeerFault(_))));
    // Nor does a server choose what it was not offered.
    for bend in 0..4 {
        let (victim, alert) = hello_refused(|hello| match bend {
            0 => hello.suites = vec![0x002f, 0x1301],
            1 => hello.extensions[2].1 = vec![0, 2, 0, 25],
            2 => hello.extensions[4].1 = vec![0, 2, 2, 3],
            _ => *hello = hello.clone().without(13),
        });
        assert!(matches!(victim.closed(), Some(CloseReason::Mismatch(_))), "{bend}");
        assert_eq!(alert, AlertDescription::HANDSHAKE_FAILURE.0);
    }
}

#[test]
fn attack_29_a_server_that_drops_renegotiation_info_is_refused() {
    let (victim, alert) =
        answer_refused(|answer| *answer = answer.clone().without(RENEGOTIATION_INFO));
    let missing = CloseReason::Mismatch(Mismatch::RenegotiationInfo);
    assert_eq!(victim.closed(), Some(&missing));
    assert_eq!(alert, Some(AlertDescription::HANDSHAKE_FAILURE.0));
}

/// RFC 5746 §3.4 and §3.6: the bytes of an earlier Finished where there was none.
#[test]
fn attack_26_a_first_handshake_with_the_finished_of_another_is_refused_by_either_side() {
    let earlier = |extensions: &mut Vec<(u16, Vec<u8>)>| {
        let at = extensions.iter().position(|(number, _)| *number == RENEGOTIATION_INFO).unwrap();
        extensions[at].1 = [&[12][..], &[7; 12]].concat();
    };
    let refused = CloseReason::PeerFault(PeerFault::Renegotiation);
    let (victim, alert) = hello_refused(|hello| earlier(&mut hello.extensions));
    assert_eq!(victim.closed(), Some(&refused));
    assert_eq!(alert, AlertDescription::HANDSHAKE_FAILURE.0);
    let (victim, alert) = answer_refused(|answer| earlier(&mut answer.extensions));
    assert_eq!(victim.closed(), Some(&refused));
    assert_eq!(alert, Some(AlertDescription::HANDSHAKE_FAILURE.0));
}

/// RFC 5746 §3.6: wolfSSL 5.5 and MatrixSSL neither offer it nor take an answer that has it.
#[test]
fn attack_26_a_client_without_renegotiation_info_is_served_and_not_answered_with_it() {
    for offers in [true, false] {
        let (mut victim, mut rogue) = (Victim::server(), Rogue::client(credentials()));
        let mut heard = Vec::new();
        for _ in 0..2 {
            let mut hello = rogue.hello();
            if !offers {
                hello = hello.without(RENEGOTIATION_INFO);
            }
            let hello = rogue.say_plain(CLIENT_HELLO, &hello.body());
            heard = deliver(&mut victim, &mut rogue, &[hello]);
        }
        let answer = heard.iter().find(|h| h.message == SERVER_HELLO).unwrap();
        let empty_extension = [0xff, 1, 0, 1, 0];
        assert_eq!(answer.body.windows(5).any(|bytes| bytes == empty_extension), offers);
        finish(&mut victim, &mut rogue);
        assert!(victim.is_open());
    }
}

/// RFC 7627 §5.1.
#[test]
fn attack_27_the_extension_with_a_body_is_malformed_to_either_side() {
    let bend = |extensions: &mut Vec<(u16, Vec<u8>)>| {
        let at = extensions.iter().position(|(number, _)| *number == EMS).unwrap();
        extensions[at].1 = vec![0];
    };
    let (victim, alert) = hello_refused(|hello| bend(&mut hello.extensions));
    assert!(matches!(victim.closed(), Some(CloseReason::PeerFault(PeerFault::Malformed(_)))));
    assert_eq!(alert, AlertDescription::DECODE_ERROR.0);
    let (victim, alert) = answer_refused(|answer| bend(&mut answer.extensions));
    assert!(matches!(victim.closed(), Some(CloseReason::PeerFault(PeerFault::Malformed(_)))));
    assert_eq!(alert, Some(AlertDescription::DECODE_ERROR.0));
}
