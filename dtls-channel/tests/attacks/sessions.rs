//! Rows 25 and 32: connection ids, addresses that change, sessions that are taken up again.

use std::sync::Arc;

use dtls_channel::testing::{LinkConfig, Net, Side};
use dtls_channel::{CloseReason, DropCause, Event, PeerRefused, PeerVerifier};

use crate::common::{config, config_with};
use crate::stage::*;

#[test]
fn attack_25_records_with_a_connection_id_that_was_not_agreed_on_are_dropped() {
    const TLS12_CID: u8 = 25;
    let (mut victim, mut rogue, id) = open_server();
    let sealed = rogue.seal(TLS12_CID, b"x\x17");
    assert!(victim.hit(&sealed).is_empty());
    assert_eq!(victim.drops(DropCause::UnexpectedRecord), 1);
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
