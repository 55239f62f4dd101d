//! The connection to the server: one task, one socket per attempt, one session per connection.
//!
//! [`Link::next`] drives the socket, the DTLS association and the delivery session, and returns what the
//! daemon has to act upon. It owns no file: what must be durable is confirmed by the daemon.

pub mod core;
pub mod failure;
mod log;
pub(crate) mod opening;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use certs::{EnrolmentToken, Fingerprint, Identity, PinSet};
use dtls_channel::{
    AssociationId, CloseReason, Config, CredentialsError, Driver, Ecn, EndpointConfig, Established,
    Event, Session as DtlsSession,
};
use metadata_delivery::message::{
    DeploymentResult, Holds, LOG, LOG_REQUEST, LogRequest, METADATA, Message, Progress, WELCOME,
    WaitSignal, Welcome, metadata_name,
};
use metadata_delivery::{
    self as delivery, Base, CloseCode, Document, Event as SessionEvent, KnownPaths, Name,
    OfferError, Session, refusal,
};
use tokio::task::JoinHandle;

use self::core::{Core, Due, Patience};
use self::failure::Failure;
use self::opening::{DATAGRAM_BYTES_MAX, Pinned};
use crate::document::ConfigId;
use crate::pipeline::unix_ms;
use crate::status::{LinkState, LinkStatus};

/// Servers' addresses to which the path is remembered.
const PATHS_REMEMBERED_MAX: usize = 16;
/// Signals of wait conditions offered at a time.
const SIGNALS_OFFERED_MAX: usize = 8;
/// How long to go on saying goodbye.
const GOODBYE_MS_MAX: u64 = 1_000;

/// Who we are, whom we trust, and how we behave.
pub struct Setup {
    /// Who we are.
    pub agent_id: String,
    /// Our key.
    pub identity: Identity,
    /// Where servers are: `host:port`.
    pub servers: Vec<String>,
    /// What certificates they may show.
    pub pins: PinSet,
    /// A token to prove, until it is taken.
    pub token: Option<EnrolmentToken>,
    /// Kernel boot id.
    pub boot_id: String,
    /// Silence after which a sign of life is sent.
    pub keep_alive: Duration,
    /// How long something sent may go unanswered until the server counts as lost.
    pub peer_timeout: Duration,
    /// How patient to be when the server cannot be reached.
    pub patience: Patience,
    /// For jitter.
    pub seed: u64,
}

/// What the daemon has to know.
#[derive(Debug)]
pub enum Happened {
    /// The link changed state.
    Status(LinkStatus),
    /// The server knows us: the token, if there was one, is used up.
    Welcomed {
        /// The document that we should hold; the server sends it unless we do. None: there is no such
        /// document, or the server is of a release that does not say.
        newest: Option<Holds>,
    },
    /// A document came: make it durable, then call [`Link::document_stored`].
    Document {
        /// Its version.
        version: u64,
        /// Its bytes.
        body: Bytes,
    },
    /// The server has stored a result.
    ResultStored {
        /// Of which config.
        id: ConfigId,
        /// Of which of its runs.
        run: u64,
    },
    /// The server does not take a result.
    ResultRefused {
        /// Of which config.
        id: ConfigId,
        /// Of which of its runs.
        run: u64,
        /// It never will: the result is not sent again. Else it is, over the next connection.
        for_good: bool,
        /// The server's words.
        reason: String,
    },
    /// The server has stored a wait condition's signal.
    SignalStored {
        /// Which.
        id: String,
    },
    /// The server will never take a wait condition's signal.
    SignalRefused {
        /// Which.
        id: String,
        /// The server's words.
        reason: String,
    },
    /// The server says whether somebody watches what hooks print.
    LogRequested(LogRequest),
    /// The server has the newest log.
    LogTaken {
        /// The request that it answers.
        request: u64,
    },
    /// The server will get no further log: the connection has ended, or it refuses them.
    LogCutOff,
    /// An attempt failed or a connection ended; the next attempt is planned.
    Failed(Failure),
}

/// The link; see the module's text.
pub struct Link {
    setup: Setup,
    fingerprint: Fingerprint,
    config: Arc<Config>,
    core: Core,
    since_unix_ms: u64,
    last_failure: Option<Failure>,
    holds: Option<Holds>,
    /// The document that `holds` names: what the server's deltas build on.
    base: Option<Base>,
    /// A document that came and is not durable yet.
    came: Option<(u64, Bytes)>,
    /// What connections have taught of the ways to the servers.
    paths: KnownPaths<IpAddr>,
    server: usize,
    attempts: usize,
    resolving: Option<JoinHandle<io::Result<Vec<SocketAddr>>>>,
    channel: Option<Channel>,
    /// What the next connection begins with, to save both sides the work of a full handshake.
    dtls_session: Option<DtlsSession>,
    results: BTreeMap<Name, (ConfigId, Document)>,
    /// Signals of wait conditions, by their documents' names.
    signals: BTreeMap<Name, (String, Document)>,
    progress: Option<Progress>,
    happened: VecDeque<Happened>,
}

/// One attempt: a socket, an association, and once that stands a session.
struct Channel {
    driver: Driver,
    id: AssociationId,
    session: Option<Session>,
    /// Where the server is.
    server: IpAddr,
    welcomed: bool,
    progress_version: u64,
    progress_due: bool,
    results_due: bool,
    log: log::Asked,
}

impl Link {
    /// A link that connects with the first call of [`next`](Self::next). `holds` is what the server need
    /// not send again, `body` the bytes of it.
    ///
    /// # Errors
    /// The identity is not one the channel can use.
    pub fn new(
        setup: Setup,
        holds: Option<Holds>,
        body: Option<Bytes>,
    ) -> Result<Self, CredentialsError> {
        let config = opening::channel(
            setup.identity.certificate_der().to_vec(),
            setup.identity.pkcs8(),
            Arc::new(Pinned(setup.pins.clone())),
        )?;
        Ok(Self {
            fingerprint: setup.identity.fingerprint(),
            config: Arc::new(config),
            core: Core::new(Instant::now(), setup.servers.len(), setup.patience, setup.seed),
            since_unix_ms: unix_ms(),
            last_failure: None,
            base: holds.zip(body).map(|(holds, body)| Base::with_digest(body, holds.sha256)),
            holds,
            came: None,
            paths: KnownPaths::new(PATHS_REMEMBERED_MAX),
            server: 0,
            attempts: 0,
            resolving: None,
            channel: None,
            dtls_session: None,
            results: BTreeMap::new(),
            signals: BTreeMap::new(),
            progress: None,
            happened: VecDeque::new(),
            setup,
        })
    }

    /// Sends a result until the server has stored it.
    pub fn send_result(&mut self, result: &DeploymentResult) {
        // Results are made to fit their message; one that does not is a fault of ours, and is logged.
        let id = ConfigId::new(&result.config_id);
        match (id, result.to_document(result.run())) {
            (Ok(id), Ok(document)) => {
                self.results.insert(document.name.clone(), (id, document));
                self.due(|channel| channel.results_due = true);
            }
            (Err(error), _) => tracing::error!(error, "a result without usable id is not sent"),
            (_, Err(error)) => tracing::error!(%error, id = result.config_id, "result not sent"),
        }
    }

    /// Sends a wait condition's signal until the server has stored it.
    pub fn send_signal(&mut self, signal: &WaitSignal) {
        match signal.to_document(1) {
            Ok(document) => {
                self.signals.insert(document.name.clone(), (signal.id.clone(), document));
                self.due(|channel| channel.results_due = true);
            }
            // It was checked when it was taken.
            Err(error) => tracing::error!(%error, id = signal.id, "signal not sent"),
        }
    }

    /// Whether the server has all results and signals.
    pub fn is_all_sent(&self) -> bool {
        self.results.is_empty() && self.signals.is_empty()
    }

    /// Results that the server does not have yet.
    pub fn results_waiting(&self) -> usize {
        self.results.len()
    }

    /// Tells the server where we stand; an older snapshot that is not sent yet is dropped.
    pub fn send_progress(&mut self, progress: Progress) {
        self.progress = Some(progress);
        self.due(|channel| channel.progress_due = true);
    }

    /// A document from [`Happened::Document`] is durable.
    pub fn document_stored(&mut self, holds: Holds) {
        self.holds = Some(holds);
        let came = self.came.take_if(|(version, _)| *version == holds.version);
        if let Some((_, body)) = came {
            self.base = Some(Base::with_digest(body, holds.sha256));
        }
        let base = self.base.clone();
        let Some(session) = self.session() else { return };
        if let Some(base) = base {
            session.hold(metadata_name(), base);
        }
        session.stored(Instant::now(), &metadata_name(), holds.version);
    }

    /// A document from [`Happened::Document`] is of no use.
    pub fn document_refused(&mut self, version: u64, reason: &str) {
        if let Some(session) = self.session() {
            let code = refusal::APPLICATION_FIRST;
            session.refuse(Instant::now(), &metadata_name(), version, code, reason);
        }
    }

    /// What the server is told that it need not send.
    pub fn holds(&self) -> Option<Holds> {
        self.holds
    }

    /// Connects again at once and tells the server of no document, so that it sends the newest whatever
    /// we hold.
    pub fn ask_anew(&mut self) {
        self.holds = None;
        self.hang_up();
        self.core.again(Instant::now());
        self.changed();
    }

    /// The token is used up.
    pub fn forget_token(&mut self) {
        self.setup.token = None;
    }

    /// Whether the server knows us right now.
    pub fn is_connected(&self) -> bool {
        self.core.state() == LinkState::Connected
    }

    /// Works until there is something to know. May be dropped while waiting without losing anything.
    pub async fn next(&mut self) -> Happened {
        loop {
            self.pump();
            if let Some(happened) = self.happened.pop_front() {
                return happened;
            }
            if let Some(resolving) = &mut self.resolving {
                let resolved = resolving.await.unwrap_or_else(|e| Err(io::Error::other(e)));
                self.resolving = None;
                self.connect(resolved);
                continue;
            }
            let core = self.core.next_timeout();
            match &mut self.channel {
                Some(channel) => {
                    let until = [core, channel.next_wake()].into_iter().flatten().min();
                    if let Err(error) = channel.driver.wait(until).await {
                        self.fail(|server| Failure::unreachable(server, &error));
                    }
                }
                None => match core {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                },
            }
        }
    }

    /// Tells the server that we go, and closes. Takes a second at most.
    pub async fn close(&mut self, reason: &str) {
        let Some(channel) = &mut self.channel else { return };
        let until = Instant::now() + Duration::from_millis(GOODBYE_MS_MAX);
        if let Some(session) = &mut channel.session {
            session.close(Instant::now(), CloseCode::Shutdown, reason);
        }
        while channel.session.as_ref().is_some_and(|s| !s.is_closed()) && Instant::now() < until {
            channel.exchange();
            let wake = channel.next_wake();
            if channel.driver.wait(Some(wake.map_or(until, |at| at.min(until)))).await.is_err() {
                break;
            }
            while let Some((_, event)) = channel.driver.poll_event() {
                match event {
                    Event::Message { sequence, data, ecn } => {
                        if let Some(session) = &mut channel.session {
                            let ecn = delivery::Ecn::from_bits(ecn.bits());
                            let _ =
                                session.handle_marked_packet(Instant::now(), sequence, ecn, &data);
                        }
                    }
                    Event::Closed(_) => channel.session = None,
                    _ => {}
                }
            }
        }
        self.hang_up();
    }

    fn pump(&mut self) {
        let now = Instant::now();
        match self.core.handle_timeout(now) {
            Some(Due::Connect(server)) => self.resolve(server),
            Some(Due::GiveUp) => {
                self.fail(|server| Failure::unreachable(server, "it does not say welcome"));
            }
            None => {}
        }
        while let Some((_, event)) = self.channel.as_mut().and_then(|c| c.driver.poll_event()) {
            match event {
                Event::Established(established) => self.established(now, &established),
                Event::Message { sequence, data, ecn } => self.message(now, sequence, ecn, &data),
                Event::Closed(reason) => {
                    if self.core.state() == LinkState::Connecting && reason != CloseReason::TimedOut
                    {
                        // Should the ticket be what was wrong: the next handshake is a full one.
                        self.dtls_session = None;
                    }
                    self.fail(|server| Failure::of_channel(server, &reason));
                }
                _ => {}
            }
        }
        if let Some(session) = self.session()
            && session.next_timeout().is_some_and(|at| at <= now)
        {
            session.handle_timeout(now);
        }
        while let Some(event) = self.session().and_then(Session::poll_event) {
            self.session_event(now, event);
        }
        self.offer(now);
        if let Some(channel) = &mut self.channel {
            channel.exchange();
        }
    }

    fn resolve(&mut self, server: usize) {
        self.server = server;
        let address = self.server_name().to_owned();
        self.changed();
        match address.parse::<SocketAddr>() {
            Ok(address) => self.connect(Ok(vec![address])),
            Err(_) => {
                self.resolving = Some(tokio::spawn(async move {
                    tokio::net::lookup_host(address).await.map(Iterator::collect)
                }));
            }
        }
    }

    fn connect(&mut self, resolved: io::Result<Vec<SocketAddr>>) {
        let opened = resolved.and_then(|addresses| {
            // Of several addresses each attempt takes the next.
            let address = addresses.get(self.attempts % addresses.len().max(1));
            let address = *address.ok_or_else(|| io::Error::other("the name has no address"))?;
            self.attempts = self.attempts.wrapping_add(1);
            let any: SocketAddr = match address {
                SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
            };
            // A socket of its own for each attempt: what the server still remembers of the last one has
            // another address.
            let mut driver = Driver::bind(any, EndpointConfig::default())?;
            // Our hello goes with it: `exchange` flushes after each turn.
            driver.hold_last_flight(true);
            let now = Instant::now();
            let config = Arc::clone(&self.config);
            let id = match self.dtls_session.clone() {
                Some(session) => driver.resume(now, address, config, session),
                None => driver.connect(now, address, config),
            };
            let id = id.map_err(io::Error::other)?;
            Ok(Channel {
                driver,
                id,
                session: None,
                server: address.ip(),
                welcomed: false,
                progress_version: 0,
                progress_due: true,
                results_due: true,
                log: log::Asked::default(),
            })
        });
        match opened {
            Ok(channel) => self.channel = Some(channel),
            Err(error) => self.fail(|server| Failure::unreachable(server, &error)),
        }
    }

    fn established(&mut self, now: Instant, established: &Established) {
        let server = established.peer_fingerprint.map(|f| Fingerprint::from_bytes(f).to_string());
        let hello = opening::hello(
            self.setup.agent_id.clone(),
            self.setup.boot_id.clone(),
            self.holds,
            self.setup.token.as_ref().map(|token| (token, &self.fingerprint)),
            established,
        );
        let resumed = established.resumed;
        tracing::debug!(server, remote = %established.remote, resumed, "channel established");
        if let Some(session) = &established.session {
            self.dtls_session = Some(session.clone());
        }
        self.core.established(now);
        self.changed();
        let (keep_alive, peer_timeout) = (self.setup.keep_alive, self.setup.peer_timeout);
        let Some(channel) = &mut self.channel else { return };
        let sizes = (
            channel.driver.message_size_max(channel.id),
            channel.driver.message_size_for(channel.id, DATAGRAM_BYTES_MAX),
        );
        let mut session = opening::session(now, sizes, established, keep_alive, peer_timeout, true);
        if let Some(base) = &self.base {
            session.hold(metadata_name(), base.clone());
        }
        if let Some(known) = self.paths.take(&channel.server) {
            session.begin_on(now, &known, established.round_trip);
        }
        let offered = hello.to_document(1).map_err(|e| e.to_string());
        let offered = offered.and_then(|h| session.offer(now, h).map_err(|e| e.to_string()));
        channel.session = Some(session);
        if let Err(error) = offered {
            self.fail(|server| Failure::unreachable(server, &error));
        }
    }

    fn message(&mut self, now: Instant, sequence: u64, ecn: Ecn, data: &[u8]) {
        let Some(session) = self.session() else { return };
        let ecn = delivery::Ecn::from_bits(ecn.bits());
        if let Err(error) = session.handle_marked_packet(now, sequence, ecn, data) {
            session.close(now, error.close_code(), &error.to_string());
            if let Some(channel) = &mut self.channel {
                channel.exchange();
            }
            self.fail(|server| Failure::broken(server, &error));
        }
    }

    fn session_event(&mut self, now: Instant, event: SessionEvent) {
        match event {
            SessionEvent::Received(document) => match document.name.as_str() {
                WELCOME => self.welcome(now, &document),
                METADATA => {
                    let Document { version, body, .. } = document;
                    self.came = Some((version, body.clone()));
                    self.happened.push_back(Happened::Document { version, body });
                }
                LOG_REQUEST => self.log_requested(now, &document),
                // The limits of an agent's session admit no other name.
                _ => {}
            },
            SessionEvent::Stored { name, version } if name.as_str() == LOG => {
                self.log_stored(version);
            }
            SessionEvent::Stored { name, .. } if self.signals.contains_key(&name) => {
                if let Some((id, _)) = self.signals.remove(&name) {
                    self.happened.push_back(Happened::SignalStored { id });
                    self.due(|channel| channel.results_due = true);
                }
            }
            SessionEvent::Stored { name, version } => {
                // Not if it is of an earlier run, and the result of a later one waits.
                let stored = self.results.get(&name).is_some_and(|(_, d)| d.version == version);
                if stored && let Some((id, _)) = self.results.remove(&name) {
                    self.happened.push_back(Happened::ResultStored { id, run: version });
                    self.due(|channel| channel.results_due = true);
                }
            }
            SessionEvent::Refused { name, version, code, reason } => {
                self.refused(&name, version, code, reason);
            }
            SessionEvent::PeerClosed { code, reason } => {
                let agent = self.setup.agent_id.clone();
                self.fail(|server| Failure::of_close(server, &agent, code, &reason));
            }
            SessionEvent::PeerLost => self.fail(Failure::lost),
        }
    }

    fn refused(&mut self, name: &Name, version: u64, code: u16, reason: String) {
        if name.as_str() == LOG {
            tracing::warn!(code, reason, "the server does not take the log that it asked for");
            return self.cut_log_off();
        }
        if let Some((id, _)) = self.signals.get(name) {
            let (id, for_good) = (id.clone(), failure::is_for_good(code));
            tracing::warn!(id, code, reason, for_good, "the server does not take a signal");
            if for_good {
                self.signals.remove(name);
                let reason = if code == refusal::NAME {
                    "it is of a release that does not do so".into()
                } else {
                    reason
                };
                self.happened.push_back(Happened::SignalRefused { id, reason });
            }
            return;
        }
        let refused = self.results.get(name).filter(|(_, document)| document.version == version);
        let Some(id) = refused.map(|(id, _)| id.clone()) else {
            tracing::warn!(%name, code, reason, "the server refused a document");
            return;
        };
        let for_good = failure::is_for_good(code);
        tracing::error!(%id, code, reason, for_good, "the server does not take a result");
        if for_good {
            self.results.remove(name);
            self.due(|channel| channel.results_due = true);
        }
        self.happened.push_back(Happened::ResultRefused { id, run: version, for_good, reason });
    }

    fn welcome(&mut self, now: Instant, document: &Document) {
        let welcome = match Welcome::from_body(&document.body) {
            Ok(welcome) if welcome.agent_id == self.setup.agent_id => welcome,
            Ok(welcome) => {
                let what = format!("it takes us for agent {}", welcome.agent_id);
                return self.fail(|server| Failure::broken(server, what));
            }
            Err(error) => return self.fail(|server| Failure::broken(server, &error)),
        };
        tracing::info!(server = self.server_name(), software = welcome.software, "connected");
        if let Some(channel) = &mut self.channel {
            channel.welcomed = true;
            if let Some(session) = &mut channel.session {
                session.stored(now, &document.name, document.version);
            }
        }
        self.core.welcomed(welcome.return_within_ms);
        self.last_failure = None;
        self.changed();
        self.happened.push_back(Happened::Welcomed { newest: welcome.newest });
    }

    /// Offers what waits, as far as the session's limits admit it.
    fn offer(&mut self, now: Instant) {
        let Some(channel) = &mut self.channel else { return };
        let (true, Some(session)) = (channel.welcomed, &mut channel.session) else { return };
        if channel.results_due {
            channel.results_due = false;
            let results = self.results.values().map(|(_, document)| document);
            let signals = self.signals.values().map(|(_, document)| document);
            for document in in_turn(results, signals) {
                match session.offer(now, document.clone()) {
                    Ok(()) => {}
                    // There is room again when the server has stored some.
                    Err(OfferError::TooMany { .. } | OfferError::NoBytesLeft { .. }) => break,
                    Err(error) => {
                        tracing::warn!(%error, name = %document.name, "result not offered");
                    }
                }
            }
        }
        if channel.progress_due
            && let Some(progress) = &self.progress
        {
            channel.progress_due = false;
            channel.progress_version += 1;
            match to_document(progress, channel.progress_version) {
                Some(document) => {
                    if let Err(error) = session.offer(now, document) {
                        tracing::debug!(%error, "progress not offered");
                    }
                }
                None => tracing::warn!("progress is too large to be sent"),
            }
        }
    }

    /// Hangs up, and plans the next attempt.
    fn fail(&mut self, failure: impl FnOnce(&str) -> Failure) {
        let failure = failure(self.server_name());
        let known = self.last_failure.as_ref().map(|f| &f.text) == Some(&failure.text);
        if known {
            tracing::debug!(failure = failure.text, "no connection, as before");
        } else {
            let hint = failure.hint.as_deref().unwrap_or_default();
            tracing::warn!(failure = failure.text, try = hint, "no connection");
        }
        self.hang_up();
        self.core.failed(Instant::now(), &failure);
        self.last_failure = Some(failure.clone());
        self.changed();
        self.happened.push_back(Happened::Failed(failure));
    }

    fn hang_up(&mut self) {
        self.cut_log_off();
        if let Some(mut channel) = self.channel.take() {
            let known = channel.session.as_ref().and_then(|s| s.known_path(Instant::now()));
            if let Some(known) = known {
                self.paths.learn(channel.server, known);
            }
            channel.driver.shutdown(Instant::now());
            channel.driver.flush();
        }
        if let Some(resolving) = self.resolving.take() {
            resolving.abort();
        }
    }

    fn changed(&mut self) {
        self.since_unix_ms = unix_ms();
        let state = self.core.state();
        let pause = match state {
            LinkState::Waiting => self.core.next_timeout(),
            _ => None,
        };
        let pause = pause.map(|at| at.saturating_duration_since(Instant::now()).as_millis());
        self.happened.push_back(Happened::Status(LinkStatus {
            state,
            server: Some(self.server_name().to_owned()),
            since_unix_ms: self.since_unix_ms,
            next_attempt_unix_ms: pause
                .and_then(|ms| u64::try_from(ms).ok())
                .map(|ms| self.since_unix_ms.saturating_add(ms)),
            failures: self.core.failures(),
            error: self.last_failure.as_ref().map(Failure::shown),
        }));
    }

    fn server_name(&self) -> &str {
        self.setup.servers.get(self.server).map_or("(none)", String::as_str)
    }

    fn session(&mut self) -> Option<&mut Session> {
        self.channel.as_mut()?.session.as_mut()
    }

    fn due(&mut self, what: impl FnOnce(&mut Channel)) {
        if let Some(channel) = &mut self.channel {
            what(channel);
        }
    }
}

impl Channel {
    /// Moves packets from the session to the socket.
    fn exchange(&mut self) {
        let Some(session) = &mut self.session else { return };
        let mut packet = Vec::new();
        // Bounded by the session's pacing, and by the channel's room.
        while self.driver.has_room()
            && let Some(number) = self.driver.next_sequence(self.id)
        {
            let now = Instant::now();
            if !session.poll_transmit(now, number, &mut packet) {
                break;
            }
            self.driver.set_ecn(self.id, Ecn::from_bits(session.packet_ecn().bits()));
            let fits = session.payload_max();
            if let Err(error) = self.driver.send_on_path(now, self.id, &packet, fits) {
                tracing::debug!(%error, "packet not sent");
                break;
            }
        }
        self.driver.flush();
    }

    /// When the session has something to do. While the channel is full it cannot send what is due
    /// already; the driver returns once there is room.
    fn next_wake(&self) -> Option<Instant> {
        let at = self.session.as_ref().and_then(Session::next_timeout)?;
        (self.driver.has_room() || at > Instant::now()).then_some(at)
    }
}

/// What is offered now: all results, and of the signals, which the server may keep waiting as long as Heat
/// does not answer, so few that they never fill the session.
fn in_turn<T>(
    results: impl Iterator<Item = T>,
    signals: impl Iterator<Item = T>,
) -> impl Iterator<Item = T> {
    results.chain(signals.take(SIGNALS_OFFERED_MAX))
}

/// Progress as a document; if it is too large without its last deployments.
fn to_document(progress: &Progress, version: u64) -> Option<Document> {
    if let Ok(document) = progress.to_document(version) {
        return Some(document);
    }
    let mut progress = progress.clone();
    while !progress.deployments.is_empty() {
        progress.deployments.truncate(progress.deployments.len() / 2);
        if let Ok(document) = progress.to_document(version) {
            return Some(document);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_that_the_server_keeps_waiting_leave_room_for_results() {
        let offered: Vec<u32> = in_turn(0..100, 1_000..2_000).collect();
        assert_eq!(offered.len(), 100 + SIGNALS_OFFERED_MAX);
        assert_eq!(offered[..100], (0..100).collect::<Vec<_>>());
    }
}
