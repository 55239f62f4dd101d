//! The end of the client's handshake, full or resumed: the server's [NewSessionTicket] and Finished.

use super::client::State;
use super::flight::{Flight, Item};
use super::handshake::{Core, Summary};
use crate::crypto::{Group, MasterSecret, TrafficKey, VERIFY_DATA_LEN, fingerprint, same};
use crate::error::{Fault, PeerFault};
use crate::handshake::Message;
use crate::handshake::messages::NewSessionTicket;
use crate::outbox::Sink;
use crate::resumption::Session;
use crate::wire::HandshakeType;

/// What the client knows by then.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Ending {
    pub(super) master: MasterSecret,
    pub(super) server_certificate: Vec<u8>,
    /// `None` if a session is resumed; then the client speaks last.
    pub(super) group: Option<Group>,
    pub(super) ems: bool,
    /// SHA-256 of the certificate that we presented, if we did.
    pub(super) own: Option<[u8; 32]>,
    /// Once the server's ticket has come.
    pub(super) session: Option<Box<Session>>,
}

/// Waits for the ticket that ServerHello announced. It comes in clear, so the keys are not up yet.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct AwaitTicket {
    ending: Ending,
    read: TrafficKey,
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct AwaitFinished {
    ending: Ending,
    pub(super) expected: [u8; VERIFY_DATA_LEN],
}

impl Ending {
    /// `read` is the key under which the server's Finished will come.
    pub(super) fn begin(self, core: &mut Core, read: TrafficKey, announced: bool) -> State {
        if announced {
            return State::AwaitTicket(AwaitTicket { ending: self, read });
        }
        let expected = self.master.verify_data(false, &core.transcript);
        core.read_under(read);
        State::AwaitFinished(AwaitFinished { ending: self, expected })
    }
}

impl AwaitTicket {
    pub(super) fn ticket(self, core: &mut Core, message: &Message) -> Result<State, Fault> {
        let Self { mut ending, read } = self;
        let NewSessionTicket { lifetime_s, ticket } = NewSessionTicket::read(message.body())?;
        // An empty one means that the server has changed its mind. RFC 7627 §5.4: without the
        // extended master secret nothing is kept.
        if !ticket.is_empty() && ending.ems {
            ending.session = Some(Box::new(Session {
                master: ending.master.clone(),
                ticket: ticket.to_vec(),
                lifetime_s,
                server_certificate: ending.server_certificate.clone(),
                own: ending.own,
            }));
        }
        core.hear(message);
        Ok(ending.begin(core, read, false))
    }
}

impl AwaitFinished {
    pub(super) fn finished(
        self,
        core: &mut Core,
        message: &Message,
        sink: &mut Sink,
    ) -> Result<Summary, Fault> {
        if !same(message.body(), &self.expected) {
            return Err(PeerFault::BadFinished.into());
        }
        let Ending { master, server_certificate, group, ems, session, .. } = self.ending;
        let last_flight = group.is_none().then(|| {
            core.hear(message);
            let verify_data = master.verify_data(true, &core.transcript);
            let finished = core.say(HandshakeType::FINISHED, |w| w.extend_from_slice(&verify_data));
            let flight = Flight::new(vec![Item::ChangeCipherSpec, Item::Sealed(finished)]);
            core.send_last(&flight, sink);
            flight
        });
        Ok(Summary {
            master,
            peer_fingerprint: Some(fingerprint(&server_certificate)),
            peer_certificate: Some(server_certificate),
            group,
            ems,
            incoming: false,
            session,
            last_flight,
        })
    }
}
