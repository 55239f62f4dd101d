//! The abbreviated handshake: what a ticket decides, and the answers that differ from the full one.
//!
//! ```text
//! ClientHello + ticket            ->
//!                                 <-  ServerHello, [NewSessionTicket], [CCS], Finished
//! [CCS], Finished                 ->
//! ```
//!
//! There is no key exchange and no signature in it: nothing here can reach either. A client that is elsewhere than
//! when it got its ticket is asked for a cookie first, like one without.

use std::net::IpAddr;
use std::time::Instant;

use super::client;
use super::ending::Ending;
use super::flight::Item;
use super::handshake::{Core, RESUMED_TRANSCRIPT_BYTES, Summary};
use super::server;
use crate::config::{ClientCertificate, Config, Tickets};
use crate::crypto::{MasterSecret, NoRandom, TranscriptHash, VERIFY_DATA_LEN, random, same};
use crate::error::{Fault, Mismatch, PeerFault};
use crate::handshake::Message;
use crate::handshake::messages::client_hello::ClientOffer;
use crate::handshake::messages::{ClientHello, NewSessionTicket, ServerHello};
use crate::outbox::Sink;
use crate::resumption::{Resumable, Session};
use crate::wire::HandshakeType;

/// Puts the session into the offer if it can be used; what cannot is dropped here.
pub(super) fn offer(
    config: &Config,
    session: Option<Session>,
    offer: &mut ClientOffer,
) -> Result<Option<Box<Session>>, NoRandom> {
    offer.ticket = config.asks_for_tickets.then(Vec::new);
    let Some(session) = session.filter(|session| is_usable(config, session)) else {
        return Ok(None);
    };
    offer.session_id = random::<32>()?.to_vec();
    offer.ticket = Some(session.ticket.clone());
    Ok(Some(Box::new(session)))
}

/// A session is offered only if a full handshake with the same server would end in the same way: with
/// our present certificate shown or not shown, and the server's accepted by our verifier of today.
fn is_usable(config: &Config, session: &Session) -> bool {
    let as_we_are = match &session.own {
        Some(own) => {
            config.client_certificate != ClientCertificate::Never
                && own == config.credentials.fingerprint()
        }
        None => config.client_certificate != ClientCertificate::Required,
    };
    as_we_are
        && config.suites.contains(&session.suite())
        && config.verifier.verify(&session.server_certificate).is_ok()
}

/// Goes on with a server that has taken the session.
pub(super) fn go_on(
    core: &mut Core,
    session: Session,
    hello: &ServerHello,
) -> Result<client::State, Fault> {
    if hello.suite != session.suite().iana() {
        let text = format!("suite {:#06x} for a session with another", hello.suite);
        return Err(PeerFault::NotOffered(text).into());
    }
    // RFC 7627 §5.3: every session of ours has it.
    if !hello.ems {
        return Err(Mismatch::ExtendedMasterSecret.into());
    }
    let keys = core.traffic_keys(&session.master);
    core.write_under(keys.client);
    let ending = Ending {
        master: session.master,
        server_certificate: session.server_certificate,
        group: None,
        ems: true,
        own: session.own,
        session: None,
    };
    Ok(ending.begin(core, keys.server, hello.announces_ticket))
}

fn open(config: &Config, tickets: &Tickets, ticket: &[u8]) -> Option<Resumable> {
    let content = tickets.keys.open(config.credentials.fingerprint(), ticket)?;
    Resumable::from_bytes(&content).ok()
}

/// What the hello's ticket is worth if it is from where its client proved to be when it got it, so that it need not prove it
/// again (RFC 6347 §4.2.1 leaves the cookie of a resumption to the server). It is then answered with fewer bytes than it
/// has, as it does not lead to a full handshake.
pub(crate) fn resumable_from(
    config: &Config,
    hello: &ClientHello<'_>,
    address: IpAddr,
) -> Option<Resumable> {
    let (Some(tickets), Some(ticket @ [_, ..]), true) =
        (&config.tickets, hello.ticket, hello.offers_ems)
    else {
        return None;
    };
    let resumable = open(config, tickets, ticket)?;
    let is_spared = resumable.is_from(address) && is_welcome(config, hello, &resumable);
    is_spared.then_some(resumable)
}

/// What the hello's ticket is worth here; `None` leads to a full handshake.
pub(super) fn resumable(
    config: &Config,
    hello: &ClientHello<'_>,
    sink: &mut Sink,
) -> Result<Option<Resumable>, Fault> {
    let (Some(tickets), Some(ticket @ [_, ..])) = (&config.tickets, hello.ticket) else {
        return Ok(None);
    };
    let resumable = open(config, tickets, ticket);
    // RFC 7627 §5.3: the session had it, so the client that goes without is not who it seems.
    if resumable.is_some() && !hello.offers_ems {
        return Err(Mismatch::ExtendedMasterSecret.into());
    }
    let resumable = resumable.filter(|resumable| is_welcome(config, hello, resumable));
    sink.stats.resumptions_declined += u64::from(resumable.is_none());
    Ok(resumable)
}

/// Resuming must not admit anybody whom a full handshake would not.
fn is_welcome(config: &Config, hello: &ClientHello<'_>, resumable: &Resumable) -> bool {
    let suite = resumable.master.suite();
    config.suites.contains(&suite)
        && hello.offers(suite)
        && match &resumable.client {
            Some(fingerprint) => config.verifier.verify_resumed(fingerprint).is_ok(),
            None => config.client_certificate != ClientCertificate::Required,
        }
}

/// Answers a hello whose ticket is good. No new ticket comes with it, so that no session outlives
/// the key of its ticket.
pub(super) fn answer(
    now: Instant,
    core: &mut Core,
    message: &Message,
    hello: &ClientHello<'_>,
    resumable: Resumable,
    sink: &mut Sink,
) -> server::State {
    let Resumable { master, client, .. } = resumable;
    core.transcript.reserve(message.bytes().len() + RESUMED_TRANSCRIPT_BYTES);
    core.hear(message);
    let mut answer = ServerHello {
        session_id: hello.session_id.to_vec(),
        ems: true,
        renegotiation_info: hello.offers_renegotiation_info,
        record_size_limit: hello.record_size_limit.map(|_| core.config.record_size_limit),
        ..ServerHello::new(core.server_random, master.suite())
    };
    core.ids.answer(hello, &mut answer);
    let server_hello = core.say(HandshakeType::SERVER_HELLO, |w| answer.write(w));
    let keys = core.traffic_keys(&master);
    core.take_up(keys.server, keys.client);
    let mut said = TranscriptHash::new(master.suite(), &core.transcript);
    let verify_data = master.verify_data_of(false, said.clone());
    let finished = core.say(HandshakeType::FINISHED, |w| w.extend_from_slice(&verify_data));
    // Nothing comes between the two, so the client's is known, and the transcript is hashed once.
    said.hear(finished.bytes());
    let expected = master.verify_data_of(true, said);
    let items = vec![Item::Plain(server_hello), Item::ChangeCipherSpec, Item::Sealed(finished)];
    core.start_flight(now, items, sink);
    server::State::AwaitResumedFinished(AwaitResumedFinished { master, client, expected })
}

/// The server has said everything: the client's Finished is the last message.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct AwaitResumedFinished {
    master: MasterSecret,
    client: Option<[u8; 32]>,
    /// What the client's Finished has to say.
    expected: [u8; VERIFY_DATA_LEN],
}

impl AwaitResumedFinished {
    pub(super) fn finished(self, message: &Message) -> Result<Summary, Fault> {
        if !same(message.body(), &self.expected) {
            return Err(PeerFault::BadFinished.into());
        }
        Ok(Summary {
            master: self.master,
            peer_certificate: None,
            peer_fingerprint: self.client,
            group: None,
            ems: true,
            incoming: true,
            session: None,
            last_flight: None,
        })
    }
}

/// True if the client of a full handshake gets a ticket at its end. Not without the extended master
/// secret: such a session could be moved to another peer (RFC 7627 §5.4).
pub(super) fn gives_ticket(config: &Config, hello: &ClientHello<'_>) -> bool {
    config.tickets.is_some() && hello.ticket.is_some() && hello.offers_ems
}

/// The message that was announced in ServerHello.
pub(super) fn new_ticket(
    core: &mut Core,
    master: &MasterSecret,
    client: Option<[u8; 32]>,
) -> Result<Message, Fault> {
    let config = core.config.clone();
    let (mut ticket, mut lifetime_s) = (Vec::new(), 0);
    if let Some(tickets) = &config.tickets {
        let address = core.path.remote.ip();
        let content = Resumable { master: master.clone(), client, address }.to_bytes();
        ticket = tickets.keys.seal(config.credentials.fingerprint(), &content)?;
        lifetime_s = tickets.lifetime_s;
    }
    let new = NewSessionTicket { lifetime_s, ticket: &ticket };
    Ok(core.say(HandshakeType::NEW_SESSION_TICKET, |w| new.write(w)))
}
