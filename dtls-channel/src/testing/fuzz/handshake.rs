use std::fmt::Debug;

use arbitrary::Unstructured;

use super::byte;
use crate::crypto::{CipherSuite, Group};
use crate::handshake::messages::{
    Certificate, CertificateRequest, ClientHello, ClientKeyExchange, HelloVerifyRequest,
    NewSessionTicket, ServerHello, ServerKeyExchange, Signed,
};
use crate::handshake::{Fragment, Message, fragments, write_fragment};
use crate::wire::{HandshakeType, Malformed, SignatureScheme, Write};

/// The messages with contents, in the order of the first byte of an input; any other stands for
/// handshake records.
pub(super) const KINDS: [HandshakeType; 9] = [
    HandshakeType::CLIENT_HELLO,
    HandshakeType::HELLO_VERIFY_REQUEST,
    HandshakeType::SERVER_HELLO,
    HandshakeType::CERTIFICATE,
    HandshakeType::SERVER_KEY_EXCHANGE,
    HandshakeType::CERTIFICATE_REQUEST,
    HandshakeType::CERTIFICATE_VERIFY,
    HandshakeType::CLIENT_KEY_EXCHANGE,
    HandshakeType::NEW_SESSION_TICKET,
];

/// Every parser of handshake messages: what is read and written again reads the same, and what is
/// cut short is no message.
///
/// Layout: kind 1 (see the corpus); body.
///
/// # Panics
/// When a rule is broken.
pub fn handshake(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let kind = usize::from(byte(&mut input)) % (KINDS.len() + 1);
    let body = input.take_rest();
    match KINDS.get(kind).copied() {
        Some(HandshakeType::CLIENT_HELLO) => client_hello(body),
        Some(HandshakeType::HELLO_VERIFY_REQUEST) => {
            exact(body, HelloVerifyRequest::read, |m, w| {
                // The version is not kept: it means nothing.
                w.bytes(&body[..2]);
                w.vec8(|w| w.bytes(m.cookie));
            });
            if let Ok(message) = HelloVerifyRequest::read(body) {
                let bytes = written(|w| message.write(w));
                assert_eq!(HelloVerifyRequest::read(&bytes), Ok(message));
            }
        }
        Some(HandshakeType::SERVER_HELLO) => server_hello(body),
        Some(HandshakeType::CERTIFICATE) => certificate(body),
        Some(HandshakeType::SERVER_KEY_EXCHANGE) => {
            exact(body, ServerKeyExchange::read, |m, w| {
                ServerKeyExchange::write_parameters(m.group, m.point, w);
                assert_eq!(w, m.parameters, "what is signed is what was read");
                m.signed.write(w);
            });
        }
        Some(HandshakeType::CERTIFICATE_REQUEST) => certificate_request(body),
        Some(HandshakeType::CERTIFICATE_VERIFY) => exact(body, Signed::read, Signed::write),
        Some(HandshakeType::CLIENT_KEY_EXCHANGE) => {
            exact(body, ClientKeyExchange::read, ClientKeyExchange::write);
        }
        Some(HandshakeType::NEW_SESSION_TICKET) => {
            exact(body, NewSessionTicket::read, NewSessionTicket::write);
        }
        _ => pieces(body),
    }
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

/// A message without freedom: it is written back byte for byte, and no part of it is one.
fn exact<'a, M: Debug>(
    body: &'a [u8],
    read: impl Fn(&'a [u8]) -> Result<M, Malformed>,
    write: impl FnOnce(&M, &mut Vec<u8>),
) {
    let Ok(message) = read(body) else { return };
    assert_eq!(written(|w| write(&message, w)), body, "{message:?}");
    for cut in 0..body.len().min(CUTS_MAX) {
        assert!(read(&body[..cut]).is_err(), "{message:?} cut to {cut} bytes");
    }
}

/// Cuts tried of one message; the lengths that matter come first.
const CUTS_MAX: usize = 200;

fn client_hello(body: &[u8]) {
    let prefix = ClientHello::read_prefix(body);
    let Ok(hello) = ClientHello::read(body) else { return };
    let prefix = prefix.expect("a whole hello has a beginning");
    assert_eq!((prefix.version, prefix.random), (hello.version, hello.random));
    // What a cookie covers is all that comes before the extensions.
    let covered = written(|w| {
        w.u16(prefix.version);
        w.bytes(&prefix.random);
        w.vec8(|w| w.bytes(prefix.session_id));
        w.vec8(|w| w.bytes(prefix.cookie));
        w.bytes(hello.offer);
    });
    assert!(body.starts_with(&covered));
    // A choice is one of ours whatever is offered.
    for ours in [&CipherSuite::ALL[..], &CipherSuite::ALL[1..2], &[]] {
        assert!(hello.choose_suite(ours).is_none_or(|suite| ours.contains(&suite)));
    }
    for ours in [&Group::ALL[..], &Group::ALL[1..2], &[]] {
        assert!(hello.choose_group(ours).is_none_or(|group| ours.contains(&group)));
    }
    let _ = hello.verifies(SignatureScheme::ECDSA_SHA256);
    assert!(hello.ticket.is_none_or(|ticket| ticket.len() < body.len()));
    // Cut short it is malformed, unless it is cut right before its extensions.
    for cut in 0..body.len().min(CUTS_MAX) {
        let read = ClientHello::read(&body[..cut]);
        assert_eq!(read.is_ok(), cut == covered.len(), "cut to {cut} of {}", body.len());
    }
}

fn server_hello(body: &[u8]) {
    let Ok(hello) = ServerHello::read(body) else { return };
    let _ = hello.limits_records_twice();
    // What we never write: an extension that was not offered, a renegotiation.
    let plain = ServerHello {
        unsolicited: None,
        has_max_fragment_length: false,
        renegotiates: false,
        ..hello
    };
    let bytes = written(|w| plain.write(w));
    assert!(bytes.len() <= body.len());
    assert_eq!(ServerHello::read(&bytes), Ok(plain));
}

fn certificate(body: &[u8]) {
    let Ok(message) = Certificate::read(body) else { return };
    let bytes = written(|w| message.write(w));
    assert_eq!(Certificate::read(&bytes), Ok(message.clone()));
    assert!(body.len() >= bytes.len());
    assert!(bytes.len() <= 3 || body[3..].starts_with(&bytes[3..]), "the leaf is the first");
    for cut in 0..body.len().min(CUTS_MAX) {
        assert!(Certificate::read(&body[..cut]).is_err(), "{message:?} cut to {cut} bytes");
    }
}

fn certificate_request(body: &[u8]) {
    let Ok(request) = CertificateRequest::read(body) else { return };
    let _ = request.verifies(SignatureScheme::ED25519);
    for cut in 0..body.len().min(CUTS_MAX) {
        assert!(CertificateRequest::read(&body[..cut]).is_err(), "cut to {cut} bytes");
    }
}

/// The fragments of a record are the record, and none reaches beyond its message.
fn pieces(body: &[u8]) {
    let mut again = Vec::new();
    for fragment in fragments(body) {
        let Ok(fragment) = fragment else {
            assert!(again.len() < body.len());
            break;
        };
        assert!(fragment.offset + fragment.body.len() <= fragment.length);
        assert_eq!(fragment.is_whole(), fragment.body.len() == fragment.length);
        if fragment.is_whole() {
            let Fragment { kind, message_seq, .. } = fragment;
            let message = Message::build(kind, message_seq, |w| w.bytes(fragment.body));
            assert_eq!(message.body(), fragment.body);
            write_fragment(&mut again, &message, 0, fragment.length);
        } else {
            again.u8(fragment.kind.0);
            again.u24(fragment.length as u32);
            again.u16(fragment.message_seq);
            again.u24(fragment.offset as u32);
            again.vec24(|w| w.bytes(fragment.body));
        }
        assert!(body.starts_with(&again), "{fragment:?}");
    }
}
