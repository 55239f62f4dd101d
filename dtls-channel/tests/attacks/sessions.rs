//! Rows 25 and 32: connection ids, addresses that change, sessions that are taken up again.

use std::sync::Arc;

use dtls_channel::testing::{LinkConfig, Net, Rogue, Side};
use dtls_channel::{CloseReason, DropCause, Event, PeerRefused, PeerVerifier};

use crate::common::{config, config_with};
use crate::stage::*;

#[test]
fn attack_25_records_with_a_connection_id_that_was_not_agreed_on_are_dropped() {
    const TLS12_CID: u8 = 25;
    let (mut victim, mut rogue, id) = open_server();
    let sealed = rogue.seal(TLS12_CID, b"x\x17");
    assert!(victim.hit(&sealed).is_empty());
    assert_eq!(victim.drops(DropCause::WrongConnectionId), 1);
    carries(&mut victim, &mut rogue, id);
    // Nor does an authentic record from elsewhere move the association there.
    let sealed = rogue.seal(DATA, b"from elsewhere");
    assert!(victim.hit_from(([203, 0, 113, 99], 7).into(), &sealed).is_empty());
    assert_eq!((victim.drops(DropCause::Unknown), victim.messages().len()), (1, 1));
    assert_eq!(victim.endpoint.remote(id), Some(victim.peer));
    carries(&mut victim, &mut rogue, id);
}

struct Only(Vec<u8>);
impl PeerVerifier for Only {
    fn verify(&self, certificate_der: &[u8]) -> Result<(), PeerRefused> {
        if certificate_der == self.0 { Ok(()) } else { Err(PeerRefused("not pinned".into())) }
    }
}

#[test]
fn attack_32_a_client_that_comes_back_checks_the_pin_again() {
    let server = config();
    let pinned = Arc::new(config_with(Arc::new(Only(server.certificate().to_vec()))));
    let mut net = Net::new(1, &LinkConfig::default(), Arc::new(server));
    net.connect(pinned);
    assert!(net.run_until(MINUTE, |n| n.both_open()), "{:?}", net.events);
    net.events.clear();
    let repinned = Arc::new(config_with(Arc::new(Only(config().certificate().to_vec()))));
    net.connect(repinned);
    assert!(!net.run_until(MINUTE, |n| n.both_open()));
    let refused = CloseReason::PeerRefused(PeerRefused("not pinned".into()));
    let closed = net.events.iter().find_map(|(_, side, _, event)| match event {
        Event::Closed(reason) if *side == Side::Client => Some(reason),
        _ => None,
    });
    assert_eq!(closed, Some(&refused));
    assert_eq!(net.established(Side::Client), 0);
}

/// RFC 5077 §3.3: by an empty ticket a server takes back what its hello has announced.
#[test]
fn an_empty_ticket_leaves_the_client_open_and_without_a_session() {
    const SESSION_TICKET: u16 = 35;
    const NEW_SESSION_TICKET: u8 = 4;
    for ticket in [&b""[..], b"opaque"] {
        let (mut victim, _, hello) = Victim::client(config().asking_for_tickets());
        let mut rogue = Rogue::server(credentials());
        rogue.hear(&hello);
        let mut announcing = rogue.answer();
        announcing.extensions.push((SESSION_TICKET, Vec::new()));
        let mut flight = rogue.flight();
        flight[0].1 = announcing.body();
        let datagrams = say_all(&mut rogue, &flight);
        deliver(&mut victim, &mut rogue, &datagrams);
        let lifetime_s = 60_u32.to_be_bytes();
        let length = (ticket.len() as u16).to_be_bytes();
        let body = [&lifetime_s[..], &length, ticket].concat();
        let new = rogue.say_plain(NEW_SESSION_TICKET, &body);
        victim.hit(&new);
        let finished = finished(&mut rogue);
        victim.hit(&finished);
        let Event::Established(established) = &victim.events[0].1 else {
            panic!("{:?}", victim.events)
        };
        assert_eq!(established.session.is_some(), !ticket.is_empty());
    }
}
