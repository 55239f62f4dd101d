//! The server's side of the handshake, as a rule from a hello whose cookie was good. The picture is
//! in [`client`](super::client).

use std::time::Instant;

use super::client::{check_signature, peer_certificate};
use super::flight::{Flight, Item};
use super::handshake::{Core, Next, Summary, TRANSCRIPT_BYTES_USUAL};
use super::keys::KeyPair;
use super::resume::{self, AwaitResumedFinished};
use crate::config::ClientCertificate;
use crate::crypto::{CipherSuite, Group, KeyShare, MasterSecret, fingerprint, random, same};
use crate::error::{Fault, Mismatch, PeerFault};
use crate::handshake::Message;
use crate::handshake::messages::{
    Certificate, CertificateRequest, ClientHello, ClientKeyExchange, ServerHello,
    ServerKeyExchange, Signed,
};
use crate::outbox::Sink;
use crate::resumption::Resumable;
use crate::wire::HandshakeType;
use crate::wire::ids::VERSION_1_2;

/// What the server waits for, with what it needs then.
#[expect(clippy::enum_variant_names, reason = "every state awaits a message")]
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) enum State {
    /// Only without a cookie exchange.
    AwaitClientHello,
    AwaitCertificate(AwaitCertificate),
    AwaitClientKeyExchange(AwaitClientKeyExchange),
    AwaitCertificateVerify(AwaitCertificateVerify),
    AwaitFinished(AwaitFinished),
    AwaitResumedFinished(AwaitResumedFinished),
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct AwaitCertificate {
    agreed: Agreed,
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
struct Agreed {
    suite: CipherSuite,
    terms: Terms,
    share: KeyShare,
}

/// What is told, or done, at the end.
#[derive(Debug, Clone, Copy)]
struct Terms {
    ems: bool,
    group: Group,
    gives_ticket: bool,
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct AwaitClientKeyExchange {
    agreed: Agreed,
    certificate: Option<Vec<u8>>,
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct AwaitCertificateVerify {
    terms: Terms,
    certificate: Vec<u8>,
    master: MasterSecret,
    keys: KeyPair,
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct AwaitFinished {
    terms: Terms,
    certificate: Option<Vec<u8>>,
    master: MasterSecret,
}

/// Answers the hello with flight 4, or at once with everything if its ticket is good. `opened`: what that holds, if
/// somebody looked already.
pub(super) fn start(
    now: Instant,
    core: &mut Core,
    message: &Message,
    opened: Option<Resumable>,
    sink: &mut Sink,
) -> Result<State, Fault> {
    let hello = ClientHello::read(message.body())?;
    core.client_random = hello.random;
    // DTLS versions count downwards; a client of a later one takes 1.2 (RFC 5246 §E.1).
    if hello.version > VERSION_1_2 {
        return Err(Mismatch::Version(hello.version).into());
    }
    if hello.renegotiates {
        return Err(PeerFault::Renegotiation.into());
    }
    let config = core.config.clone();
    core.server_random = random()?;
    core.record_limits.agree(&config, hello.record_size_limit)?;
    let resumable = match opened {
        Some(resumable) => Some(resumable),
        None => resume::resumable(&config, &hello, sink)?,
    };
    if let Some(resumable) = resumable {
        return Ok(resume::answer(now, core, message, &hello, resumable, sink));
    }
    let suite = hello.choose_suite(&config.suites).ok_or(Mismatch::Suite)?;
    let group = hello.choose_group(&config.groups).ok_or(Mismatch::Group)?;
    let signer = config.credentials.signer();
    if signer.curve().is_some_and(|curve| !hello.supports_curve(curve)) {
        return Err(Mismatch::CertificateCurve.into());
    }
    let scheme = signer.scheme();
    if !hello.verifies(scheme) {
        return Err(Mismatch::SignatureScheme.into());
    }
    if !hello.offers_ems && config.require_ems {
        return Err(Mismatch::ExtendedMasterSecret.into());
    }
    core.transcript.reserve(TRANSCRIPT_BYTES_USUAL);
    core.hear(message);
    let gives_ticket = resume::gives_ticket(&config, &hello);
    let mut answer = ServerHello {
        ems: hello.offers_ems,
        renegotiation_info: hello.offers_renegotiation_info,
        point_formats: hello.offers_point_formats,
        record_size_limit: hello.record_size_limit.map(|_| config.record_size_limit),
        announces_ticket: gives_ticket,
        ..ServerHello::new(core.server_random, suite)
    };
    core.ids.answer(&hello, &mut answer);
    let share = KeyShare::generate(group)?;
    let mut parameters = Vec::new();
    ServerKeyExchange::write_parameters(group.wire(), share.public(), &mut parameters);
    let content = [&core.client_random[..], &core.server_random, &parameters].concat();
    let signature = config.credentials.signer().sign(&content)?;
    let mut items = vec![
        core.say(HandshakeType::SERVER_HELLO, |w| answer.write(w)),
        core.say(HandshakeType::CERTIFICATE, |w| {
            Certificate { leaf: Some(config.credentials.certificate()) }.write(w);
        }),
        core.say(HandshakeType::SERVER_KEY_EXCHANGE, |w| {
            w.extend_from_slice(&parameters);
            Signed { scheme, signature: &signature }.write(w);
        }),
    ];
    let asks = config.client_certificate != ClientCertificate::Never;
    if asks {
        items.push(core.say(HandshakeType::CERTIFICATE_REQUEST, CertificateRequest::write));
    }
    items.push(core.say(HandshakeType::SERVER_HELLO_DONE, |_| {}));
    core.start_flight(now, items.into_iter().map(Item::Plain).collect(), sink);
    let terms = Terms { ems: hello.offers_ems, group, gives_ticket };
    let agreed = Agreed { suite, terms, share };
    Ok(if asks {
        State::AwaitCertificate(AwaitCertificate { agreed })
    } else {
        State::AwaitClientKeyExchange(AwaitClientKeyExchange { agreed, certificate: None })
    })
}

impl State {
    pub(super) fn step(
        self,
        now: Instant,
        core: &mut Core,
        message: &Message,
        sink: &mut Sink,
    ) -> Result<Next<Self>, Fault> {
        let (kind, expected) = (message.kind, self.expects());
        let next = match (self, kind) {
            (Self::AwaitClientHello, HandshakeType::CLIENT_HELLO) => {
                start(now, core, message, None, sink)
            }
            (Self::AwaitCertificate(s), HandshakeType::CERTIFICATE) => s.certificate(core, message),
            (Self::AwaitClientKeyExchange(s), HandshakeType::CLIENT_KEY_EXCHANGE) => {
                s.key_exchange(core, message)
            }
            (Self::AwaitCertificateVerify(s), HandshakeType::CERTIFICATE_VERIFY) => {
                s.verify(core, message)
            }
            (Self::AwaitFinished(s), HandshakeType::FINISHED) => {
                return s.finished(core, message, sink).map(Next::Done);
            }
            (Self::AwaitResumedFinished(s), HandshakeType::FINISHED) => {
                return s.finished(message).map(Next::Done);
            }
            _ => Err(Fault::unexpected(kind, expected)),
        };
        next.map(Next::State)
    }

    /// True if a message of this kind has a place here.
    pub(super) fn takes(&self, kind: HandshakeType) -> bool {
        kind == match self {
            Self::AwaitClientHello => HandshakeType::CLIENT_HELLO,
            Self::AwaitCertificate(_) => HandshakeType::CERTIFICATE,
            Self::AwaitClientKeyExchange(_) => HandshakeType::CLIENT_KEY_EXCHANGE,
            Self::AwaitCertificateVerify(_) => HandshakeType::CERTIFICATE_VERIFY,
            Self::AwaitFinished(_) | Self::AwaitResumedFinished(_) => HandshakeType::FINISHED,
        }
    }

    /// True once the client, if it is honest, has changed to protected records for good. One that
    /// resumes has not before it has our flight, which it may also refuse in clear.
    pub(super) fn clients_keys_are_up(&self) -> bool {
        matches!(self, Self::AwaitFinished(_))
    }

    pub(super) fn expects(&self) -> &'static str {
        match self {
            Self::AwaitClientHello => "ClientHello",
            Self::AwaitCertificate(_) => "Certificate",
            Self::AwaitClientKeyExchange(_) => "ClientKeyExchange",
            Self::AwaitCertificateVerify(_) => "CertificateVerify",
            Self::AwaitFinished(_) | Self::AwaitResumedFinished(_) => "Finished",
        }
    }
}

impl AwaitCertificate {
    fn certificate(self, core: &mut Core, message: &Message) -> Result<State, Fault> {
        let certificate = match peer_certificate(message) {
            Err(Fault::Peer(PeerFault::NoCertificate))
                if core.config.client_certificate != ClientCertificate::Required =>
            {
                None
            }
            presented => Some(presented?),
        };
        core.hear(message);
        let agreed = self.agreed;
        Ok(State::AwaitClientKeyExchange(AwaitClientKeyExchange { agreed, certificate }))
    }
}

impl AwaitClientKeyExchange {
    fn key_exchange(self, core: &mut Core, message: &Message) -> Result<State, Fault> {
        let exchange = ClientKeyExchange::read(message.body())?;
        core.hear(message);
        let Agreed { suite, terms, share } = self.agreed;
        let premaster = share.agree(exchange.point).ok_or(PeerFault::BadPoint)?;
        let (master, keys) = core.derive_keys(suite, &premaster, terms.ems);
        match self.certificate {
            Some(certificate) => Ok(State::AwaitCertificateVerify(AwaitCertificateVerify {
                terms,
                certificate,
                master,
                keys,
            })),
            None => {
                core.take_up(keys.server, keys.client);
                let certificate = None;
                Ok(State::AwaitFinished(AwaitFinished { terms, certificate, master }))
            }
        }
    }
}

impl AwaitCertificateVerify {
    fn verify(self, core: &mut Core, message: &Message) -> Result<State, Fault> {
        let signed = Signed::read(message.body())?;
        check_signature(&self.certificate, &signed, &core.transcript, "CertificateVerify")?;
        core.check_peer(&self.certificate)?;
        core.hear(message);
        let Self { terms, certificate, master, keys } = self;
        core.take_up(keys.server, keys.client);
        let certificate = Some(certificate);
        Ok(State::AwaitFinished(AwaitFinished { terms, certificate, master }))
    }
}

impl AwaitFinished {
    fn finished(
        self,
        core: &mut Core,
        message: &Message,
        sink: &mut Sink,
    ) -> Result<Summary, Fault> {
        let expected = self.master.verify_data(true, &core.transcript);
        if !same(message.body(), &expected) {
            return Err(PeerFault::BadFinished.into());
        }
        core.hear(message);
        let client = self.certificate.as_deref().map(fingerprint);
        let mut items = Vec::with_capacity(3);
        if self.terms.gives_ticket {
            items.push(Item::Plain(resume::new_ticket(core, &self.master, client)?));
        }
        let verify_data = self.master.verify_data(false, &core.transcript);
        let finished = core.say(HandshakeType::FINISHED, |w| w.extend_from_slice(&verify_data));
        items.extend([Item::ChangeCipherSpec, Item::Sealed(finished)]);
        let flight = Flight::new(items);
        core.send_last(&flight, sink);
        Ok(Summary {
            master: self.master,
            peer_certificate: self.certificate,
            peer_fingerprint: client,
            group: Some(self.terms.group),
            ems: self.terms.ems,
            incoming: true,
            session: None,
            last_flight: Some(flight),
        })
    }
}
