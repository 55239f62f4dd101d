//! Connection ids and the return routability check, as far as the hellos agree on them.

use crate::config::{Config, ConnectionIdMode};
use crate::crypto::random;
use crate::error::{Fault, PeerFault};
use crate::event::ConnectionIds;
use crate::handshake::messages::{ClientHello, ServerHello};
use crate::record::ConnectionId;
use crate::wire::ids::extension;

/// Length of an id that we make ourselves, in bytes.
pub(crate) const MADE_ID_BYTES: usize = 8;

/// What we say of connection ids in our hello; `None` is nothing. `make` is asked for an id where
/// the configuration leaves its bytes to us.
pub(crate) fn own_id(
    config: &Config,
    is_server: bool,
    make: impl FnOnce() -> ConnectionId,
) -> Option<ConnectionId> {
    match &config.connection_id {
        ConnectionIdMode::Off => None,
        ConnectionIdMode::ByRole if is_server => Some(make()),
        ConnectionIdMode::ByRole | ConnectionIdMode::Empty => Some(ConnectionId::EMPTY),
        ConnectionIdMode::Made => Some(make()),
        ConnectionIdMode::Given(id) => Some(id.clone()),
    }
}

/// An id for an association that nobody has to tell from others; an empty one will do as well.
pub(super) fn random_id() -> ConnectionId {
    random::<MADE_ID_BYTES>().map_or(ConnectionId::EMPTY, ConnectionId::from)
}

/// Both ids of an association, from the first hello on.
#[derive(Debug, Clone, Default)]
pub(super) struct Ids {
    /// What we offer, later what was agreed on; `None` if records carry none in either direction.
    own: Option<ConnectionId>,
    theirs: ConnectionId,
    return_routability: bool,
}

impl Ids {
    pub(super) fn new(own: Option<ConnectionId>) -> Self {
        Self { own, ..Self::default() }
    }

    /// What a client's hello says.
    pub(super) fn offer(&self) -> Option<ConnectionId> {
        self.own.clone()
    }

    /// As server, takes what the client offers, and puts our answer into our hello.
    pub(super) fn answer(&mut self, offer: &ClientHello<'_>, answer: &mut ServerHello) {
        match offer.connection_id.and_then(ConnectionId::new) {
            Some(theirs) if self.own.is_some() => {
                self.theirs = theirs;
                self.return_routability = offer.offers_return_routability;
            }
            _ => self.own = None,
        }
        answer.connection_id = self.own.clone();
        // RFC 9853 §3: never without a connection id.
        answer.return_routability = self.return_routability;
    }

    /// As client, takes the server's answer.
    pub(super) fn take_answer(&mut self, answer: &ServerHello) -> Result<(), Fault> {
        let unsolicited = |number| Err(PeerFault::UnsolicitedExtension(number).into());
        if self.own.is_none() {
            if answer.connection_id.is_some() {
                return unsolicited(extension::CONNECTION_ID);
            }
            if answer.return_routability {
                return unsolicited(extension::RETURN_ROUTABILITY_CHECK);
            }
        }
        match &answer.connection_id {
            Some(theirs) => {
                self.theirs = theirs.clone();
                self.return_routability = answer.return_routability;
            }
            None => self.own = None,
        }
        Ok(())
    }

    /// What the peer has to put on its protected records; empty for nothing.
    pub(super) fn own(&self) -> &ConnectionId {
        const NOBODY: &ConnectionId = &ConnectionId::EMPTY;
        self.own.as_ref().unwrap_or(NOBODY)
    }

    /// What we have to put on our protected records; empty for nothing.
    pub(super) fn theirs(&self) -> &ConnectionId {
        &self.theirs
    }

    /// True if either side may check whether the other is where its records come from.
    pub(super) fn return_routability(&self) -> bool {
        self.return_routability
    }

    /// For the application, once the handshake is over.
    pub(super) fn agreed(&self) -> Option<ConnectionIds> {
        let ours = self.own.clone()?;
        let (theirs, return_routability) = (self.theirs.clone(), self.return_routability);
        Some(ConnectionIds { ours, theirs, return_routability })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::CipherSuite;

    fn answer(id: Option<&[u8]>, return_routability: bool) -> ServerHello {
        ServerHello {
            connection_id: id.and_then(ConnectionId::new),
            return_routability,
            ..ServerHello::new([0; 32], CipherSuite::Aes128GcmSha256)
        }
    }

    #[test]
    fn an_answer_to_what_was_not_offered_is_a_fault() {
        let mut silent = Ids::new(None);
        let fault = |number| Err(Fault::Peer(PeerFault::UnsolicitedExtension(number)));
        assert_eq!(silent.take_answer(&answer(Some(&[]), false)), fault(54));
        assert_eq!(silent.take_answer(&answer(None, true)), fault(61));
        assert_eq!(silent.take_answer(&answer(None, false)), Ok(()));
        assert!(silent.agreed().is_none());
    }

    #[test]
    fn without_an_answer_there_are_no_ids_and_no_checks() {
        for return_routability in [false, true] {
            let mut ids = Ids::new(ConnectionId::new(b"mine"));
            assert_eq!(ids.take_answer(&answer(None, return_routability)), Ok(()));
            assert!(ids.agreed().is_none() && ids.own().is_empty());
            assert!(!ids.return_routability());
        }
    }

    #[test]
    fn empty_ids_on_both_sides_are_an_agreement() {
        let mut ids = Ids::new(Some(ConnectionId::EMPTY));
        assert_eq!(ids.take_answer(&answer(Some(&[]), true)), Ok(()));
        let agreed = ids.agreed().unwrap();
        assert!(agreed.ours.is_empty() && agreed.theirs.is_empty() && agreed.return_routability);
    }
}
