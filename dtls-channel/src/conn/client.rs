//! The client's side of the handshake.
//!
//! ```text
//! ClientHello            ->            flight 1
//!                        <-  HelloVerifyRequest (optional)
//! ClientHello + cookie   ->            flight 3
//!                        <-  ServerHello, Certificate, ServerKeyExchange,
//!                            CertificateRequest, ServerHelloDone
//! Certificate, ClientKeyExchange, CertificateVerify, [CCS], Finished  ->   flight 5
//!                        <-  [NewSessionTicket], [CCS], Finished
//! ```
//!
//! Where a session is resumed it goes on behind ServerHello as [`resume`] shows.

use std::time::Instant;

use super::ending::{AwaitFinished, AwaitTicket, Ending};
use super::flight::Item;
use super::handshake::{Core, Next, TRANSCRIPT_BYTES_USUAL};
use super::resume;
use crate::config::ClientCertificate;
use crate::crypto::{
    CERTIFICATE_BYTES_MAX, CipherSuite, Group, KeyShare, NoRandom, random, verify,
};
use crate::error::{Fault, Mismatch, PeerFault};
use crate::handshake::messages::client_hello::ClientOffer;
use crate::handshake::messages::{
    Certificate, CertificateRequest, ClientKeyExchange, HelloVerifyRequest, ServerHello,
    ServerKeyExchange, Signed,
};
use crate::handshake::{Fragment, Message};
use crate::outbox::Sink;
use crate::resumption::Session;
use crate::wire::HandshakeType;
use crate::wire::ids::{VERSION_1_2, extension};

/// A server may change its cookie secret between our hellos, but not for ever.
const HELLOS_MAX: u16 = 16;
/// How long a hello may stay unanswered before a request that answers an earlier one counts, in
/// first resend intervals.
const STALE_REQUEST_WAIT: u32 = 3;

/// What the client waits for, with what it needs then.
#[expect(clippy::enum_variant_names, reason = "every state awaits a message")]
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) enum State {
    AwaitServerHello(AwaitServerHello),
    AwaitCertificate(AwaitCertificate),
    AwaitServerKeyExchange(AwaitServerKeyExchange),
    AwaitCertificateRequest(AwaitCertificateRequest),
    AwaitServerHelloDone(AwaitServerHelloDone),
    AwaitTicket(AwaitTicket),
    AwaitFinished(AwaitFinished),
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct AwaitServerHello {
    offer: ClientOffer,
    /// What the last hello carried; the first carries none.
    cookie: Option<Vec<u8>>,
    hellos: u16,
    /// What the offer's ticket belongs to.
    session: Option<Box<Session>>,
}

#[derive(Debug, Clone, Copy)]
struct Agreed {
    suite: CipherSuite,
    ems: bool,
    ticket_announced: bool,
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct AwaitCertificate {
    agreed: Agreed,
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct AwaitServerKeyExchange {
    agreed: Agreed,
    certificate: Vec<u8>,
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct AwaitCertificateRequest {
    agreed: Agreed,
    certificate: Vec<u8>,
    group: Group,
    point: Vec<u8>,
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct AwaitServerHelloDone(AwaitCertificateRequest);

/// Sends the first hello, with the ticket of a session if there is one to resume.
pub(super) fn start(
    now: Instant,
    core: &mut Core,
    session: Option<Session>,
    sink: &mut Sink,
) -> Result<State, NoRandom> {
    core.client_random = random()?;
    let mut offer = ClientOffer {
        random: core.client_random,
        suites: core.config.suites.clone(),
        groups: core.config.groups.clone(),
        record_size_limit: core.config.record_size_limit,
        session_id: Vec::new(),
        ticket: None,
        connection_id: core.ids.offer(),
    };
    let session = resume::offer(&core.config, session, &mut offer)?;
    send_hello(now, core, &offer, &[], sink);
    Ok(State::AwaitServerHello(AwaitServerHello { offer, cookie: None, hellos: 1, session }))
}

fn send_hello(now: Instant, core: &mut Core, offer: &ClientOffer, cookie: &[u8], sink: &mut Sink) {
    // Neither the first hello nor the request counts (RFC 6347 §4.2.1).
    core.transcript.clear();
    core.transcript.reserve(TRANSCRIPT_BYTES_USUAL);
    let hello = core.say(HandshakeType::CLIENT_HELLO, |w| offer.write(cookie, w));
    core.start_flight(now, vec![Item::Plain(hello)], sink);
}

impl State {
    /// Servers number their first messages differently after stateless exchanges: until there is a
    /// ServerHello, that message or a HelloVerifyRequest says where the numbers begin.
    pub(super) fn rebase_to(&self, fragment: &Fragment<'_>) -> Option<u16> {
        let Self::AwaitServerHello(waiting) = self else { return None };
        let opens = matches!(
            fragment.kind,
            HandshakeType::SERVER_HELLO | HandshakeType::HELLO_VERIFY_REQUEST
        );
        (opens && fragment.message_seq <= waiting.hellos).then_some(fragment.message_seq)
    }

    pub(super) fn step(
        self,
        now: Instant,
        core: &mut Core,
        message: &Message,
        sink: &mut Sink,
    ) -> Result<Next<Self>, Fault> {
        let (kind, expected) = (message.kind, self.expects());
        let next = match (self, kind) {
            // RFC 5246 §7.4.1.1: ignored while a handshake is going on, and not in the transcript.
            (state, HandshakeType::HELLO_REQUEST) => return Ok(Next::State(state)),
            (Self::AwaitServerHello(s), HandshakeType::HELLO_VERIFY_REQUEST) => {
                s.verify_request(now, core, message, sink)
            }
            (Self::AwaitServerHello(s), HandshakeType::SERVER_HELLO) => {
                s.hello(core, message, sink)
            }
            (Self::AwaitCertificate(s), HandshakeType::CERTIFICATE) => s.certificate(core, message),
            (Self::AwaitServerKeyExchange(s), HandshakeType::SERVER_KEY_EXCHANGE) => {
                s.key_exchange(core, message)
            }
            (Self::AwaitCertificateRequest(s), HandshakeType::CERTIFICATE_REQUEST) => {
                s.request(core, message)
            }
            (Self::AwaitCertificateRequest(s), HandshakeType::SERVER_HELLO_DONE) => {
                if core.config.client_certificate == ClientCertificate::Required {
                    Err(Mismatch::NoCertificateRequest.into())
                } else {
                    s.done(now, false, core, message, sink)
                }
            }
            (Self::AwaitServerHelloDone(s), HandshakeType::SERVER_HELLO_DONE) => {
                s.0.done(now, true, core, message, sink)
            }
            (Self::AwaitTicket(s), HandshakeType::NEW_SESSION_TICKET) => s.ticket(core, message),
            (Self::AwaitFinished(s), HandshakeType::FINISHED) => {
                return s.finished(core, message, sink).map(Next::Done);
            }
            _ => Err(Fault::unexpected(kind, expected)),
        };
        next.map(Next::State)
    }

    /// True if a message of this kind has a place here.
    pub(super) fn takes(&self, kind: HandshakeType) -> bool {
        // RFC 5246 §7.4.1.1: a HelloRequest may come at any time, and is ignored.
        kind == HandshakeType::HELLO_REQUEST
            || match self {
                Self::AwaitServerHello(_) => {
                    matches!(
                        kind,
                        HandshakeType::SERVER_HELLO | HandshakeType::HELLO_VERIFY_REQUEST
                    )
                }
                Self::AwaitCertificate(_) => kind == HandshakeType::CERTIFICATE,
                Self::AwaitServerKeyExchange(_) => kind == HandshakeType::SERVER_KEY_EXCHANGE,
                Self::AwaitCertificateRequest(_) => matches!(
                    kind,
                    HandshakeType::CERTIFICATE_REQUEST | HandshakeType::SERVER_HELLO_DONE
                ),
                Self::AwaitServerHelloDone(_) => kind == HandshakeType::SERVER_HELLO_DONE,
                Self::AwaitTicket(_) => kind == HandshakeType::NEW_SESSION_TICKET,
                Self::AwaitFinished(_) => kind == HandshakeType::FINISHED,
            }
    }

    /// What the server's Finished must hold.
    #[cfg(test)]
    pub(super) fn expected(&self) -> Option<&[u8]> {
        match self {
            Self::AwaitFinished(s) => Some(&s.expected),
            _ => None,
        }
    }

    pub(super) fn expects(&self) -> &'static str {
        match self {
            Self::AwaitServerHello(_) => "ServerHello",
            Self::AwaitCertificate(_) => "Certificate",
            Self::AwaitServerKeyExchange(_) => "ServerKeyExchange",
            Self::AwaitCertificateRequest(_) => "CertificateRequest",
            Self::AwaitServerHelloDone(_) => "ServerHelloDone",
            Self::AwaitTicket(_) => "NewSessionTicket",
            Self::AwaitFinished(_) => "Finished",
        }
    }
}

impl AwaitServerHello {
    fn verify_request(
        mut self,
        now: Instant,
        core: &mut Core,
        message: &Message,
        sink: &mut Sink,
    ) -> Result<State, Fault> {
        let request = HelloVerifyRequest::read(message.body())?;
        // A repeated request is no news, and one too many is nobody we should serve. One that
        // answers an earlier hello (its copy may have met a newer secret) matters only if the newest
        // hello stays without an answer.
        let news = self.cookie.as_deref() != Some(request.cookie);
        let answers_newest = message.message_seq + 1 >= self.hellos;
        let waited = now >= core.started_at + core.config.timers.first_resend * STALE_REQUEST_WAIT;
        if news && self.hellos < HELLOS_MAX && (answers_newest || waited) {
            self.hellos += 1;
            self.cookie = Some(request.cookie.to_vec());
            send_hello(now, core, &self.offer, request.cookie, sink);
        }
        Ok(State::AwaitServerHello(self))
    }

    fn hello(self, core: &mut Core, message: &Message, sink: &mut Sink) -> Result<State, Fault> {
        let hello = ServerHello::read(message.body())?;
        if hello.version != VERSION_1_2 {
            return Err(Mismatch::Version(hello.version).into());
        }
        if hello.limits_records_twice() {
            return Err(PeerFault::BadRecordSizeLimit.into());
        }
        if let Some(number) = hello.unsolicited {
            return Err(PeerFault::UnsolicitedExtension(number).into());
        }
        if hello.announces_ticket && self.offer.ticket.is_none() {
            return Err(PeerFault::UnsolicitedExtension(extension::SESSION_TICKET).into());
        }
        let suite = CipherSuite::from_iana(hello.suite)
            .filter(|suite| self.offer.suites.contains(suite))
            .ok_or_else(|| PeerFault::NotOffered(format!("suite {:#06x}", hello.suite)))?;
        if !hello.ems && core.config.require_ems {
            return Err(Mismatch::ExtendedMasterSecret.into());
        }
        if hello.renegotiates {
            return Err(PeerFault::Renegotiation.into());
        }
        if !hello.renegotiation_info && core.config.require_renegotiation_info {
            return Err(Mismatch::RenegotiationInfo.into());
        }
        core.record_limits.agree(&core.config, hello.record_size_limit)?;
        core.ids.take_answer(&hello)?;
        core.server_random = hello.random;
        core.hear(message);
        if let Some(session) = self.session {
            // RFC 5077 §3.4: the echo of our session id says that the ticket was taken.
            if hello.session_id == self.offer.session_id {
                return resume::go_on(core, *session, &hello);
            }
            sink.stats.resumptions_declined += 1;
        }
        let ticket_announced = hello.announces_ticket;
        let agreed = Agreed { suite, ems: hello.ems, ticket_announced };
        Ok(State::AwaitCertificate(AwaitCertificate { agreed }))
    }
}

impl AwaitCertificate {
    fn certificate(self, core: &mut Core, message: &Message) -> Result<State, Fault> {
        let certificate = peer_certificate(message)?;
        core.hear(message);
        Ok(State::AwaitServerKeyExchange(AwaitServerKeyExchange {
            agreed: self.agreed,
            certificate,
        }))
    }
}

/// The certificate of either side's peer.
pub(super) fn peer_certificate(message: &Message) -> Result<Vec<u8>, Fault> {
    let leaf = Certificate::read(message.body())?.leaf.ok_or(PeerFault::NoCertificate)?;
    if leaf.len() > CERTIFICATE_BYTES_MAX {
        let text = format!("{} bytes, more than {CERTIFICATE_BYTES_MAX}", leaf.len());
        return Err(PeerFault::BadCertificate(text).into());
    }
    Ok(leaf.to_vec())
}

/// Checks a signature of either side's peer.
pub(super) fn check_signature(
    certificate: &[u8],
    signed: &Signed<'_>,
    message: &[u8],
    what: &'static str,
) -> Result<(), Fault> {
    use crate::crypto::VerifyError;

    verify(certificate, signed.scheme, message, signed.signature).map_err(|error| {
        match error {
            VerifyError::Signature => PeerFault::BadSignature(what),
            VerifyError::Certificate | VerifyError::KeyMismatch => {
                PeerFault::BadCertificate(error.to_string())
            }
        }
        .into()
    })
}

impl AwaitServerKeyExchange {
    fn key_exchange(self, core: &mut Core, message: &Message) -> Result<State, Fault> {
        let exchange = ServerKeyExchange::read(message.body())?;
        let listed = |g: &Group| core.config.groups.contains(g) || Group::OF_SIGNATURES.contains(g);
        let group = Group::from_wire(exchange.group)
            .filter(listed)
            .ok_or_else(|| PeerFault::NotOffered(format!("group {}", exchange.group.0)))?;
        // RFC 8422 §5.4: signed over both randoms and the parameters.
        let content = [&core.client_random[..], &core.server_random, exchange.parameters].concat();
        check_signature(&self.certificate, &exchange.signed, &content, "ServerKeyExchange")?;
        core.check_peer(&self.certificate)?;
        core.hear(message);
        Ok(State::AwaitCertificateRequest(AwaitCertificateRequest {
            agreed: self.agreed,
            certificate: self.certificate,
            group,
            point: exchange.point.to_vec(),
        }))
    }
}

impl AwaitCertificateRequest {
    fn request(self, core: &mut Core, message: &Message) -> Result<State, Fault> {
        let request = CertificateRequest::read(message.body())?;
        let presents = core.config.client_certificate != ClientCertificate::Never;
        if presents && !request.verifies(core.config.credentials.signer().scheme()) {
            return Err(Mismatch::SignatureScheme.into());
        }
        core.hear(message);
        Ok(State::AwaitServerHelloDone(AwaitServerHelloDone(self)))
    }

    /// Answers the server's flight, with our certificate if it is `asked` for; having none, we say
    /// so (RFC 5246 §7.4.6).
    fn done(
        self,
        now: Instant,
        asked: bool,
        core: &mut Core,
        message: &Message,
        sink: &mut Sink,
    ) -> Result<State, Fault> {
        if !message.body().is_empty() {
            return Err(PeerFault::Malformed("ServerHelloDone").into());
        }
        core.hear(message);
        let Self { agreed: Agreed { suite, ems, ticket_announced }, certificate, group, point } =
            self;
        let share = KeyShare::generate(group)?;
        let credentials = core.config.credentials.clone();
        let presents = asked && core.config.client_certificate != ClientCertificate::Never;
        let mut items = Vec::with_capacity(5);
        if asked {
            items.push(Item::Plain(core.say(HandshakeType::CERTIFICATE, |w| {
                Certificate { leaf: presents.then_some(credentials.certificate()) }.write(w);
            })));
        }
        items.push(Item::Plain(core.say(HandshakeType::CLIENT_KEY_EXCHANGE, |w| {
            ClientKeyExchange { point: share.public() }.write(w);
        })));
        let premaster = share.agree(&point).ok_or(PeerFault::BadPoint)?;
        let (master, keys) = core.derive_keys(suite, &premaster, ems);
        if presents {
            let signature = credentials.signer().sign(&core.transcript)?;
            let scheme = credentials.signer().scheme();
            items.push(Item::Plain(core.say(HandshakeType::CERTIFICATE_VERIFY, |w| {
                Signed { scheme, signature: &signature }.write(w);
            })));
        }
        let verify_data = master.verify_data(true, &core.transcript);
        let finished = core.say(HandshakeType::FINISHED, |w| w.extend_from_slice(&verify_data));
        core.write_under(keys.client);
        items.extend([Item::ChangeCipherSpec, Item::Sealed(finished)]);
        core.start_flight(now, items, sink);
        let ending = Ending {
            master,
            server_certificate: certificate,
            group: Some(group),
            ems,
            own: presents.then(|| *credentials.fingerprint()),
            session: None,
        };
        Ok(ending.begin(core, keys.server, ticket_announced))
    }
}
