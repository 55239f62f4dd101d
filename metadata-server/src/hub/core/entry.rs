//! Getting in: from a completed handshake to an accepted agent, or out again.

use certs::token::{Claim, TokenRecord, TokenRefused};
use metadata_delivery::message::{HELLO, Message, PROTOCOL};

use super::*;
use crate::store::{Enrolment, StoreError};

impl Core {
    pub(super) fn on_established(
        &mut self,
        moment: Moment,
        id: PeerId,
        fingerprint: Fingerprint,
        exporter: Option<[u8; 32]>,
        remote: SocketAddr,
    ) {
        let phase = Phase::Waiting { exporter, early: Vec::new() };
        self.peers.insert(id, Peer { remote, fingerprint, phase, timer: None });
        if self.draining {
            return self.close(moment, id, CloseCode::Shutdown, "the server stops".into());
        }
        let max = self.settings.agents_max;
        if self.peers.len() > max {
            let message = format!("{max} peers are connected, which is this server's limit");
            return self.refuse(moment, id, RefusalReason::Busy, None, message);
        }
        if self.pins.owner(&fingerprint).is_some() {
            self.actions.push_back(Action::Open(id));
            return self.arm(id, moment.now + HELLO_TIME_MAX);
        }
        self.arm(id, moment.now + STRANGER_TIME_MAX);
        self.strangers.insert(id);
        if self.strangers.len() > STRANGERS_MAX
            && let Some(oldest) = self.strangers.first().copied()
        {
            let message = format!("more than {STRANGERS_MAX} unknown peers at once; try again");
            self.refuse(moment, oldest, RefusalReason::Busy, None, message);
        }
    }

    /// The time to say hello is over.
    pub(super) fn on_silence(&mut self, moment: Moment, id: PeerId) {
        let Some(peer) = self.peers.get(&id) else { return };
        let seen = peer.fingerprint;
        let message = match self.pins.owner(&seen) {
            Some(agent) => format!(
                "{seen}, pinned for agent {agent}, said no hello within {} s",
                HELLO_TIME_MAX.as_secs()
            ),
            None => format!(
                "{seen} is not pinned for any agent, and no proof of an enrolment token came \
                 within {} s",
                STRANGER_TIME_MAX.as_secs()
            ),
        };
        self.refuse(moment, id, RefusalReason::Silent, None, message);
    }

    /// A document from a peer that is not accepted yet.
    pub(super) fn on_early(&mut self, moment: Moment, id: PeerId, document: Document) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let pinned = self.pins.owner(&peer.fingerprint).is_some();
        match &mut peer.phase {
            Phase::Waiting { exporter, .. } if document.name.as_str() == HELLO => {
                let exporter = *exporter;
                match Hello::from_body(&document.body) {
                    Ok(hello) => self.on_hello(moment, id, exporter, hello),
                    Err(e) => self.refuse(moment, id, RefusalReason::Protocol, None, e.to_string()),
                }
            }
            Phase::Waiting { early, .. } if pinned => {
                // A newer version replaces an older one, as in the session, whose limit of open
                // transfers thus bounds them.
                early.retain(|kept| kept.name != document.name);
                early.push(document);
            }
            Phase::Waiting { .. } | Phase::LookingUp { .. } | Phase::Enrolling { .. } => {
                let seen = peer.fingerprint;
                let message = format!("{seen} is not pinned for any agent, and may only enrol");
                self.refuse(moment, id, RefusalReason::UnknownAgent, None, message);
            }
            Phase::Accepted(_) | Phase::Closing => {}
        }
    }

    fn on_hello(&mut self, moment: Moment, id: PeerId, exporter: Option<[u8; 32]>, hello: Hello) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let claimed = hello.agent_id.as_str();
        if hello.protocol != PROTOCOL {
            let message = format!(
                "the agent speaks version {} of the messages, this server version {PROTOCOL}",
                hello.protocol
            );
            let reason = RefusalReason::ProtocolVersion;
            return self.refuse(moment, id, reason, Some(claimed), message);
        }
        let seen = peer.fingerprint;
        match (self.pins.owner(&seen).cloned(), &hello.enrol) {
            (Some(owner), _) if owner.as_str() == claimed => {
                self.accept(moment, id, owner, hello, false);
            }
            (Some(owner), _) => {
                let expected = self.expectation(claimed);
                let message =
                    format!("{seen} is pinned for agent {owner}, not {claimed}{expected}");
                self.refuse(moment, id, RefusalReason::PinMismatch, Some(claimed), message);
            }
            (None, Some(_)) if !self.proofs.admit(moment.now) => {
                let message =
                    format!("more than {PROOFS_PER_S_MAX} enrolments in a second; try again");
                self.refuse(moment, id, RefusalReason::Busy, Some(claimed), message);
            }
            (None, Some(enrol)) => {
                let Some(exporter) = exporter else {
                    let message = format!("{seen} has just lost its pin; try again");
                    let reason = RefusalReason::Busy;
                    return self.refuse(moment, id, reason, Some(claimed), message);
                };
                self.actions.push_back(Action::LookUpToken(id, enrol.token_id.clone()));
                peer.phase = Phase::LookingUp { exporter, hello: Box::new(hello) };
                self.disarm(id);
            }
            (None, None) => {
                let expected = self.expectation(claimed);
                let (reason, expected) = if expected.is_empty() {
                    let nothing = "; nothing is, and no enrolment token was shown".to_owned();
                    (RefusalReason::UnknownAgent, nothing)
                } else {
                    (RefusalReason::PinMismatch, expected)
                };
                let message = format!("{seen} is not pinned for agent {claimed}{expected}");
                self.refuse(moment, id, reason, Some(claimed), message);
            }
        }
    }

    /// "; expected …", or nothing if nothing is pinned for that id.
    fn expectation(&self, agent_id: &str) -> String {
        let expected = self.pins.expected(agent_id);
        if expected.is_empty() {
            return String::new();
        }
        let list: Vec<String> = expected.iter().map(Fingerprint::to_string).collect();
        format!("; expected {}", list.join(" or "))
    }

    pub(super) fn on_token(
        &mut self,
        moment: Moment,
        id: PeerId,
        found: Result<Option<TokenRecord>, StoreError>,
    ) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Phase::LookingUp { exporter, hello } = &peer.phase else { return };
        let Some(enrol) = &hello.enrol else { return };
        let seen = peer.fingerprint;
        let verdict = match found {
            Ok(Some(record)) => {
                let claim = Claim {
                    exporter,
                    server: &self.settings.server,
                    agent: &seen,
                    agent_id: &hello.agent_id,
                    proof: &enrol.proof.0,
                };
                match record.check(moment.unix_ms / 1000, &claim) {
                    // By this very key, for this very agent: cut off before it heard of its success.
                    // The store says whether the pin still stands.
                    Err(TokenRefused::Used { used_by, .. })
                        if used_by == seen && record.agent_id.as_str() == hello.agent_id =>
                    {
                        Ok(())
                    }
                    verdict => verdict.map_err(|refused| {
                        let reason = match refused {
                            TokenRefused::Used { .. } => RefusalReason::TokenUsed,
                            TokenRefused::Expired { .. } => RefusalReason::TokenExpired,
                            _ => RefusalReason::TokenForged,
                        };
                        (reason, refused.to_string())
                    }),
                }
            }
            Ok(None) => Err(unknown_token(&enrol.token_id, seen)),
            Err(error) => Err(store_failed(&error)),
        };
        let token_id = enrol.token_id.clone();
        let hello = hello.clone();
        match verdict {
            Ok(()) => {
                peer.phase = Phase::Enrolling { hello };
                self.actions.push_back(Action::Enrol { peer: id, token_id, fingerprint: seen });
            }
            Err((reason, message)) => {
                let message = format!("{message}{}", self.expectation(&hello.agent_id));
                self.refuse(moment, id, reason, Some(&hello.agent_id), message);
            }
        }
    }

    pub(super) fn on_enrolled(
        &mut self,
        moment: Moment,
        id: PeerId,
        fingerprint: Fingerprint,
        enrolled: Result<Enrolment, StoreError>,
    ) {
        // The pins are durable whether or not the peer is still there to hear of it.
        if let Ok(Enrolment::Done { agent, replaced }) = &enrolled {
            self.pins.add(fingerprint, agent);
            for old in replaced {
                self.on_pin_removed(moment, *old);
            }
        }
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if !matches!(peer.phase, Phase::Enrolling { .. }) {
            return;
        }
        let Phase::Enrolling { hello } = std::mem::replace(&mut peer.phase, Phase::Closing) else {
            return;
        };
        let token_id = hello.enrol.as_ref().map(|e| e.token_id.clone()).unwrap_or_default();
        let claimed = hello.agent_id.clone();
        let (reason, message) = match enrolled {
            Ok(Enrolment::Done { agent, .. }) => {
                return self.accept(moment, id, agent, *hello, true);
            }
            // Somebody was faster between the look and the use.
            Ok(Enrolment::Used) => (
                RefusalReason::TokenUsed,
                format!(
                    "enrolment token {token_id} was used already; this agent has key {fingerprint}"
                ),
            ),
            Ok(Enrolment::Expired) => (
                RefusalReason::TokenExpired,
                format!("enrolment token {token_id} has expired (key {fingerprint})"),
            ),
            Ok(Enrolment::Unknown) => unknown_token(&token_id, fingerprint),
            Ok(Enrolment::FingerprintTaken { by }) => (
                RefusalReason::PinMismatch,
                format!("{fingerprint} is pinned for agent {by}, not {claimed}"),
            ),
            Err(error) => store_failed(&error),
        };
        peer.phase = Phase::Enrolling { hello };
        self.refuse(moment, id, reason, Some(&claimed), message);
    }

    fn accept(&mut self, moment: Moment, id: PeerId, agent: AgentId, hello: Hello, enrolled: bool) {
        let Some(remote) = self.peers.get(&id).map(|peer| peer.remote.to_string()) else { return };
        if let Some(older) = self.connected.get(&agent).copied() {
            let reason = format!("agent {agent} connected again, from {remote}");
            self.close(moment, older, CloseCode::Superseded, reason);
        }
        // Enrolled, or pinned by somebody since the handshake.
        if self.strangers.remove(&id) {
            self.actions.push_back(Action::Open(id));
        }
        self.disarm(id);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let fingerprint = peer.fingerprint;
        let Hello { software, boot_id, holds, .. } = hello;
        let accepted = Phase::Accepted(Box::new(Accepted {
            record: AgentRecord {
                agent_id: agent.clone(),
                software: software.clone(),
                boot_id,
                remote: remote.clone(),
                connected_unix_ms: moment.unix_ms,
                seen_unix_ms: moment.unix_ms,
                delivered_version: None,
                applied_version: None,
            },
            sending: None,
            newest: 0,
            holds,
            offered: VecDeque::new(),
            welcomed: false,
            overtook: None,
            progress: None,
            unsaved: Vec::new(),
            retry: STORE_RETRY_MIN,
            signals: Signals::default(),
        }));
        let early = match std::mem::replace(&mut peer.phase, accepted) {
            Phase::Waiting { early, .. } => early,
            _ => Vec::new(),
        };
        self.connected.insert(agent.clone(), id);
        let agent_id = agent.clone();
        let notice = Notice::AgentConnected { agent_id, fingerprint, remote, software, enrolled };
        self.actions.push_back(Action::Tell(notice));
        // The welcome waits for the answer, as it names the document in force, and the hello's confirmation goes with it.
        self.actions.push_back(Action::Load(id, agent, holds));
        for document in early {
            self.on_received(moment, id, document);
        }
    }
}

fn unknown_token(token_id: &str, seen: Fingerprint) -> (RefusalReason, String) {
    let message = format!("there is no enrolment token {token_id:?} (key {seen})");
    (RefusalReason::TokenUnknown, message)
}

fn store_failed(error: &StoreError) -> (RefusalReason, String) {
    (
        RefusalReason::Store,
        format!("the server cannot look into its store ({}); try again", error.code()),
    )
}
