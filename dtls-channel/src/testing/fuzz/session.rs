use arbitrary::Unstructured;

use super::byte;
use crate::resumption::{Resumable, Session, TicketKeys};

/// Two keys in their stored form, for tickets that are genuine.
pub(super) const TICKET_KEYS: &[u8] = include_bytes!("ticket-keys");
/// What the genuine tickets are bound to.
pub(super) const CONTEXT: [u8; 32] = [6; 32];

pub(super) fn ticket_keys() -> TicketKeys {
    TicketKeys::from_bytes(TICKET_KEYS).expect("keys as they were stored")
}

/// What is stored between associations, and tickets as strangers may make them up: what is read is
/// written back byte for byte, and a ticket opens only as it was sealed.
///
/// Layout: kind 1; bytes.
///
/// # Panics
/// When a rule is broken.
pub fn session(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let kind = byte(&mut input) % 4;
    let bytes = input.take_rest();
    match kind {
        0 => {
            if let Ok(session) = Session::from_bytes(bytes) {
                assert_eq!(session.to_bytes()[..], *bytes);
            }
        }
        1 => {
            if let Ok(keys) = TicketKeys::from_bytes(bytes) {
                assert_eq!(keys.to_bytes()[..], *bytes);
            }
        }
        2 => {
            if let Ok(resumable) = Resumable::from_bytes(bytes) {
                assert_eq!(resumable.to_bytes()[..], *bytes);
            }
        }
        _ => ticket(bytes),
    }
}

fn ticket(bytes: &[u8]) {
    let keys = ticket_keys();
    let Some(content) = keys.open(&CONTEXT, bytes) else { return };
    assert!(content.len() < bytes.len());
    assert!(keys.open(&[7; 32], bytes).is_none(), "opened where it does not belong");
    for at in 0..bytes.len() {
        let mut bent = bytes.to_vec();
        bent[at] ^= 0x10;
        assert!(keys.open(&CONTEXT, &bent).is_none(), "opened though byte {at} is bent");
        assert!(keys.open(&CONTEXT, &bytes[..at]).is_none(), "opened though cut to {at}");
    }
}
