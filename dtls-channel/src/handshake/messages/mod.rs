//! The contents of handshake messages; each reads borrowed bytes and writes itself.

mod certificate;
pub(crate) mod client_hello;
mod key_exchange;
mod new_session_ticket;
mod server_hello;

pub(crate) use certificate::{Certificate, CertificateRequest};
pub(crate) use client_hello::ClientHello;
pub(crate) use key_exchange::{ClientKeyExchange, ServerKeyExchange, Signed};
pub(crate) use new_session_ticket::NewSessionTicket;
pub(crate) use server_hello::{HelloVerifyRequest, ServerHello};

use crate::wire::{Malformed, Reader};

/// The extensions of a hello: (number, body), refusing one that comes twice (RFC 5246 §7.4.1.4).
fn extensions<'a>(
    r: &mut Reader<'a>,
    mut each: impl FnMut(u16, &'a [u8]) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    if r.is_empty() {
        return Ok(());
    }
    let mut list = Reader::new(r.vec16()?, "extensions");
    let (mut seen, mut count) = ([0; EXTENSIONS_MAX], 0);
    while !list.is_empty() {
        let (number, body) = (list.u16()?, list.vec16()?);
        if seen[..count].contains(&number) || count == seen.len() {
            return Err(list.fault());
        }
        seen[count] = number;
        count += 1;
        each(number, body)?;
    }
    Ok(())
}

/// No client is known to send more than about 25.
const EXTENSIONS_MAX: usize = 64;
