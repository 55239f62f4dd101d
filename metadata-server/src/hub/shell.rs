//! The task around the core: one DTLS driver, one delivery session per association, their timers.
//!
//! One turn: take in what came (datagrams, commands, answers of the store), let sessions and core
//! work until neither has anything to say, then send. No association has a task or a timer of its
//! own, and nothing here blocks: the store is read on the blocking pool and written by its thread,
//! and both answer through a channel. The thread belongs to this task alone, so between turns it may
//! rest for a moment while much comes in (see [`Gathering`]).

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use certs::proof::{EXPORTER_BYTES, EXPORTER_LABEL};
use certs::{AgentId, Fingerprint};
use dtls_channel::{AssociationId, Driver, Ecn, Established, Event};
use metadata_delivery::message::{Hex32, METADATA, WaitSignal, metadata_name};
use metadata_delivery::{
    self as delivery, CloseCode, ENCODED_BYTES_MIN, Form, KnownPaths, Limits, Session,
    SessionConfig,
};
use openstack_client::http::UrlPrefix;
use tokio::sync::{broadcast, mpsc};

use super::commands::Inbox;
use super::core::{Action, Core, Input, Moment, NotQueued, PeerId};
use super::follow::Followers;
use super::gathering::{Gathering, REST_MAX, Rush};
use super::links::{Link, Links, PathKey};
use super::lookups::{Arrival, Made, at_hand, load_all, make, raised};
use super::openings::Openings;
use super::pushes::{Key, LOOK_INTERVAL, Order, PROGRESS_PARTS, Push, Pushes, STALLED_TIME_MAX};
use super::reads::Reads;
use super::timers::Timers;
use super::turns::Turns;
use super::{Command, HubStats};
use crate::clock;
use crate::document::sha256;
use crate::log;
use crate::metrics::Metrics;
use crate::notice::{Notice, Stamped};
use crate::relay::reach;
use crate::store::signals::{SignalOutcome, SignalWrite};
use crate::store::writer::Writer;
use crate::store::{Outcome, Store, StoreError, StoredDocument, Write};

/// Packets one session may send before the others get their turn.
const BURST_PACKETS_MAX: usize = 64;
/// Packets sent in one turn: what comes meanwhile, mostly answers to them, waits in the kernel, which drops what is
/// too much.
const TURN_PACKETS_MAX: usize = 1024;
/// Agents of which the path is remembered after they have gone; some 200 bytes each.
const PATHS_REMEMBERED_MAX: usize = 16_384;
/// Agents that one look into the store is for.
const ARRIVALS_PER_READ_MAX: usize = 64;
/// Agents that connect within so long of each other come together.
const ARRIVALS_APART: Duration = Duration::from_millis(100);
/// Commands and answers taken in one turn.
const INPUTS_PER_TURN_MAX: usize = 256;

/// What the task is made of.
pub(super) struct Parts {
    pub(super) driver: Driver,
    pub(super) core: Core,
    pub(super) store: Store,
    pub(super) writer: Writer,
    pub(super) metrics: Arc<Metrics>,
    pub(super) notices: broadcast::Sender<Arc<Stamped>>,
    pub(super) commands: Inbox,
    pub(super) limits: SessionLimits,
}

/// What the sessions are told.
#[derive(Debug, Clone)]
pub(super) struct SessionLimits {
    /// What signals may be sent to; see [`reach`].
    pub(super) relay_signals_to: Arc<[UrlPrefix]>,
    pub(super) keep_alive: Duration,
    pub(super) peer_timeout: Duration,
    pub(super) results_per_agent_max: u64,
    /// Whether Heat is told of results.
    pub(super) signal: bool,
    /// Largest datagram to try on a path.
    pub(super) datagram_bytes_max: usize,
    /// Whether documents are compressed on their way to agents.
    pub(super) compression: bool,
    /// For agents that are known.
    pub(super) agent: Limits,
}

struct Shell {
    driver: Driver,
    core: Core,
    store: Store,
    reads: Reads,
    writer: Writer,
    metrics: Arc<Metrics>,
    notices: broadcast::Sender<Arc<Stamped>>,
    limits: SessionLimits,
    answers: mpsc::UnboundedSender<Input>,
    links: Links,
    timers: Timers,
    gathering: Gathering,
    pushes: Pushes,
    openings: Openings,
    followers: Followers,
    /// When it is looked how far documents are.
    look_at: Instant,
    /// By certificate and address, for when an agent is back.
    paths: KnownPaths<PathKey>,
    made: mpsc::UnboundedSender<Made>,
    /// When the last agent connected.
    arrived_at: Instant,
    /// Those who said hello in this turn and are to be looked up.
    arrivals: Vec<Arrival>,
    /// Sessions that may have something to say, and then to send.
    stirred: Vec<PeerId>,
    /// Whose turn it is to send.
    turns: Turns,
    packet: Vec<u8>,
    log: log::Limits,
    /// When a stop no longer waits for anybody.
    stop_at: Option<Instant>,
}

/// Runs until a stop was asked for and everybody has left, or until the socket fails.
pub(super) async fn run(parts: Parts) -> io::Result<()> {
    let Parts { driver, core, store, writer, metrics, notices, mut commands, limits } = parts;
    let (answers, mut answered) = mpsc::unbounded_channel();
    let (made, mut makers) = mpsc::unbounded_channel();
    let mut shell = Shell {
        driver,
        core,
        store,
        reads: Reads::default(),
        writer,
        metrics,
        notices,
        limits,
        answers,
        links: Links::default(),
        timers: Timers::new(clock::now()),
        gathering: Gathering::new(clock::now()),
        pushes: Pushes::default(),
        openings: Openings::default(),
        followers: Followers::default(),
        look_at: clock::now(),
        paths: KnownPaths::new(PATHS_REMEMBERED_MAX),
        made,
        arrived_at: clock::now(),
        arrivals: Vec::new(),
        stirred: Vec::new(),
        turns: Turns::default(),
        packet: Vec::new(),
        log: log::Limits::default(),
        stop_at: None,
    };
    commands.belongs_here();
    loop {
        let mut until = shell.next_wake();
        let now = clock::now();
        if until.is_none_or(|at| at > now)
            && let Some(rest) = shell.rest(now)
        {
            commands.rest(rest);
            until = Some(clock::now());
        }
        shell.gathering.begin(clock::now(), shell.driver.heard_until());
        tokio::select! {
            waited = shell.driver.wait(until) => waited?,
            Some(command) = commands.queue.recv() => shell.on_command(command),
            Some(answer) = answered.recv() => shell.tell_core(answer),
            Some(made) = makers.recv() => shell.on_made(made),
        }
        for _ in 0..INPUTS_PER_TURN_MAX {
            match (commands.queue.try_recv(), answered.try_recv()) {
                (Err(_), Err(_)) => break,
                (command, answer) => {
                    if let Ok(command) = command {
                        shell.on_command(command);
                    }
                    if let Ok(answer) = answer {
                        shell.tell_core(answer);
                    }
                }
            }
        }
        shell.turn();
        if shell.is_over() {
            shell.driver.shutdown(clock::now());
            shell.driver.flush();
            return Ok(());
        }
    }
}

impl Shell {
    fn moment(&self) -> Moment {
        Moment { now: clock::now(), unix_ms: clock::unix_ms() }
    }

    fn tell_core(&mut self, input: Input) {
        let moment = self.moment();
        self.core.handle(moment, input);
    }

    fn next_wake(&self) -> Option<Instant> {
        // While the channel is full nobody can send; the driver returns once there is room.
        if !(self.turns.is_empty() && self.stirred.is_empty()) && self.driver.has_room() {
            return Some(clock::now());
        }
        let session = self.timers.next();
        let look = (!self.pushes.is_idle()).then_some(self.look_at);
        let log = self.log.agents.next_end();
        let room = self.openings.room_at();
        let next = [self.core.next_timeout(), session, look, room, log, self.stop_at];
        next.into_iter().flatten().min()
    }

    /// How long to rest after a turn.
    fn rest(&mut self, now: Instant) -> Option<Duration> {
        let rush = if !self.pushes.is_idle() {
            Rush::Documents
        } else if self.driver.endpoint().half_open() > 0 || now < self.arrived_at + ARRIVALS_APART {
            Rush::Arrivals
        } else {
            Rush::SignsOfLife
        };
        self.gathering.rest(now, self.driver.stats().datagrams_in, rush)
    }

    fn is_over(&self) -> bool {
        self.core.is_drained() || self.stop_at.is_some_and(|at| at <= clock::now())
    }

    fn on_command(&mut self, command: Command) {
        // Whoever asked may have gone away; then there is nobody to answer.
        match command {
            Command::Input(input) => self.tell_core(*input),
            Command::Live(answer) => drop(answer.send(self.core.live())),
            Command::LiveAgent(agent, answer) => drop(answer.send(self.core.live_agent(&agent))),
            Command::Follow(agent, answer) => {
                let followed = self.core.may_follow(&agent).map(|()| {
                    let follower = self.followers.add(agent.clone(), self.answers.clone());
                    self.tell_core(Input::Followed(agent));
                    follower
                });
                drop(answer.send(followed));
            }
            Command::Stats(answer) => drop(answer.send(HubStats {
                census: self.core.census(),
                dtls: *self.driver.stats(),
                half_open: self.driver.endpoint().half_open(),
                paths: self.paths.len(),
                logs_followed: self.core.followed(),
                send_errors: self.driver.send_errors(),
            })),
            Command::Drain(timeout) => {
                self.stop_at = Some(clock::now() + timeout);
                // Agents that are told to leave come back within a second, and are the next server's.
                self.driver.stop_serving();
                self.tell_core(Input::Drain);
            }
        }
    }

    fn turn(&mut self) {
        while let Some((association, event)) = self.driver.poll_event() {
            self.on_event(association, event);
        }
        // What came later may be the answer that a timer waits for.
        let heard = self.driver.heard_until();
        while let Some((at, peers)) = self.timers.take(heard) {
            for peer in peers {
                // It may be gone, or have another timer since.
                let Some(link) = self.links.get_mut(peer).filter(|link| link.armed == Some(at))
                else {
                    continue;
                };
                link.armed = None;
                if link.session.next_timeout().is_some_and(|at| at <= heard) {
                    link.session.handle_timeout(heard);
                    stir(&mut self.stirred, link);
                } else {
                    arm(&mut self.timers, heard, link);
                }
            }
        }
        let now = clock::now();
        if self.core.next_timeout().is_some_and(|at| at <= now) {
            let moment = self.moment();
            self.core.handle_timeout(moment);
        }
        if self.log.agents.next_end().is_some_and(|at| at <= now) {
            self.log.agents.tell(now);
        }
        if self.look_at <= now && !self.pushes.is_idle() {
            self.look_at = now + LOOK_INTERVAL;
            let links = &self.links;
            self.pushes.look(now, |peer| links.get(peer).map_or(0, |link| parts(&link.session)));
            self.attend_pushes();
        }
        if self.openings.room_at().is_some_and(|at| at <= now) {
            self.attend_pushes();
        }
        self.settle();
        self.look_up();
        self.transmit();
    }

    fn on_event(&mut self, association: AssociationId, event: Event) {
        match event {
            Event::Established(established) => self.on_established(association, &established),
            Event::Message { sequence, data, ecn } => {
                let Some(link) = self.links.of(association) else { return };
                stir(&mut self.stirred, link);
                let (now, ecn) = (clock::now(), delivery::Ecn::from_bits(ecn.bits()));
                let taken = link.session.handle_marked_packet(now, sequence, ecn, &data);
                if let Err(error) = taken {
                    let (peer, code) = (link.peer, error.close_code());
                    self.tell_core(Input::Misbehaved(peer, code, error.to_string()));
                }
            }
            Event::PathChanged { old, new } => {
                let Some(link) = self.links.of(association) else { return };
                tracing::info!(%old, %new, "an agent's address has changed");
                if old.ip() != new.ip() {
                    link.session.path_changed(clock::now());
                    stir(&mut self.stirred, link);
                }
                link.path.1 = new.ip();
                let peer = link.peer;
                self.tell_core(Input::Moved(peer, new));
            }
            Event::Closed(reason) => {
                if let Some(peer) = self.links.of(association).map(|link| link.peer) {
                    self.forget(peer);
                    self.tell_core(Input::Gone(peer, reason.to_string()));
                }
            }
            _ => {}
        }
    }

    fn on_established(&mut self, association: AssociationId, established: &Established) {
        // Our configuration requires a certificate; without one there is nobody to look up.
        let Some(fingerprint) = established.peer_fingerprint else {
            return self.driver.close(clock::now(), association);
        };
        let default = SessionConfig::default();
        let now = clock::now();
        self.arrived_at = now;
        let mut session = Session::new(
            now,
            SessionConfig {
                payload_max: self.driver.message_size_max(association),
                payload_search_max: Some(
                    self.driver.message_size_for(association, self.limits.datagram_bytes_max),
                ),
                // Agents say that they live; only of one that does not is it asked.
                keep_alive: Some(self.limits.keep_alive / 4 * 5),
                peer_timeout: self.limits.peer_timeout,
                initial_rtt: established.round_trip.unwrap_or(default.initial_rtt),
                lag_max: REST_MAX,
                ecn: true,
                limits: Limits::stranger(),
            },
        );
        let path = (fingerprint, established.remote.ip());
        if let Some(known) = self.paths.take(&path) {
            session.begin_on(now, &known, established.round_trip);
        }
        if let Some(round_trip) = established.round_trip {
            session.may_be_as_near_as(now, round_trip.saturating_sub(self.gathering.lag()));
        }
        let link = self.links.add(association, |peer| Link {
            peer,
            association,
            path,
            session,
            armed: None,
            stirred: false,
            queued: false,
            known: false,
            closing: false,
        });
        let peer = link.peer;
        stir(&mut self.stirred, link);
        let fingerprint = Fingerprint::from_bytes(fingerprint);
        let exporter = (!self.core.is_pinned(&fingerprint)).then(|| {
            let mut exporter = [0; EXPORTER_BYTES];
            established.exporter.export(EXPORTER_LABEL, &[], &mut exporter);
            exporter
        });
        let remote = established.remote;
        self.tell_core(Input::Established { peer, fingerprint, exporter, remote });
    }

    /// Lets core and sessions talk until neither has anything to say.
    fn settle(&mut self) {
        let mut stirred = Vec::new();
        loop {
            while let Some(action) = self.core.poll_action() {
                self.act(action);
            }
            std::mem::swap(&mut stirred, &mut self.stirred);
            if stirred.is_empty() {
                return;
            }
            for peer in stirred.drain(..) {
                self.listen(peer);
            }
        }
    }

    /// Takes in what a session has to say, and sees to its turn to send.
    fn listen(&mut self, peer: PeerId) {
        loop {
            let Some(link) = self.links.get_mut(peer) else { return };
            link.stirred = false;
            let Some(event) = link.session.poll_event() else {
                if !std::mem::replace(&mut link.queued, true) {
                    self.turns.push(peer, link.session.unsent_bytes());
                }
                return;
            };
            let input = session_input(peer, event);
            self.settled(&input);
            self.tell_core(input);
        }
    }

    fn act(&mut self, action: Action) {
        let now = clock::now();
        match action {
            Action::Open(peer) => {
                let limits = self.limits.agent;
                self.session(peer, |session| session.set_limits(now, limits));
                if let Some(link) = self.links.get_mut(peer) {
                    link.known = true;
                }
            }
            Action::Offer(peer, document) => self.session(peer, |session| {
                if let Err(error) = session.offer(now, document) {
                    // Versions and sizes were checked before: only a session that is over refuses.
                    tracing::warn!(peer = peer.0, %error, "document not offered");
                }
            }),
            Action::Push { peer, agent, document, held } => {
                self.push(peer, agent, document, held);
            }
            Action::Confirm(peer, name, version) => {
                self.session(peer, |session| session.stored(now, &name, version));
            }
            Action::Refuse { peer, name, version, code, reason } => {
                self.session(peer, |session| session.refuse(now, &name, version, code, &reason));
            }
            Action::Close(peer, code, reason) => {
                self.session(peer, |session| session.close(now, code, &reason));
                if let Some(link) = self.links.get_mut(peer) {
                    link.closing = true;
                }
            }
            Action::Hangup(peer) => {
                if let Some(link) = self.links.get(peer) {
                    self.driver.close(now, link.association);
                }
            }
            Action::LookUpToken(peer, token_id) => {
                self.read(move |store| Input::TokenFound(peer, store.token(&token_id)));
            }
            Action::Load(peer, agent, holds) => match at_hand(&self.store, &agent, holds) {
                Some(loaded) => self.tell_core(Input::Loaded(peer, Ok(loaded))),
                None => self.arrivals.push(Arrival { peer, agent, holds }),
            },
            Action::RaiseVersion(peer, agent, holds) => {
                let write =
                    Write::RaiseVersion { agent, held: holds.version, held_sha256: holds.sha256 };
                self.write(write, move |outcome| Input::Loaded(peer, raised(outcome, holds)));
            }
            Action::Enrol { peer, token_id, fingerprint } => {
                let now_unix_ms = clock::unix_ms();
                let asker = peer.0;
                let write = Write::Enrol { token_id, fingerprint, asker, now_unix_ms };
                let (answers, metrics) = (self.answers.clone(), self.metrics.clone());
                // What was decided comes from the observer of the commits, in their order.
                self.writer.submit(write, move |outcome| {
                    if let Err(error) = outcome {
                        metrics.count_store_failure();
                        let enrolled = Err(error);
                        drop(answers.send(Input::Enrolled { peer, fingerprint, enrolled }));
                    }
                });
            }
            Action::SaveResult { peer, agent, document, result } => {
                let write = Write::SaveResult {
                    agent: agent.clone(),
                    result: result.clone(),
                    bytes: document.body.len(),
                    sha256: sha256(&document.body),
                    stored_unix_ms: clock::unix_ms(),
                    per_agent_max: self.limits.results_per_agent_max,
                    signal: self.limits.signal,
                };
                self.write(write, move |outcome| {
                    let saved = outcome.and_then(|outcome| match outcome {
                        Outcome::Result(kept) => Ok(kept),
                        other => Err(other.unexpected()),
                    });
                    Input::ResultSaved { peer, agent, document, result, saved }
                });
            }
            Action::LookAtSignal { peer, agent, signal } => {
                self.look_at_signal(peer, agent, signal);
            }
            Action::QueueSignal { peer, agent, signal } => {
                let now_unix_ms = clock::unix_ms();
                let write = SignalWrite::QueueWait { agent, wait: signal, now_unix_ms };
                self.write(Write::Signal(write), move |outcome| {
                    let queued = match outcome {
                        Ok(Outcome::Signal(SignalOutcome::Queued { .. })) => Ok(()),
                        // Heat has to take some first.
                        Ok(_) | Err(_) => Err(NotQueued::Later),
                    };
                    Input::SignalQueued(peer, queued)
                });
            }
            Action::ShowLog(agent, log) => self.followers.show(&agent, log),
            Action::HideLog(agent) => self.followers.hide(&agent),
            // Nobody waits for it: the next one says it all again.
            Action::SaveAgent(record) => self.writer.submit(Write::SaveAgent(record), drop),
            Action::SaveStanding(agent, standing) => {
                self.writer.submit(Write::SaveStanding(agent, standing), drop);
            }
            Action::Tell(notice) => self.tell(notice),
        }
    }

    /// Looks on the blocking pool whether a signal may be sent.
    fn look_at_signal(&self, peer: PeerId, agent: AgentId, signal: WaitSignal) {
        if !self.limits.signal {
            let why = NotQueued::Refused("signals are off at this server".into());
            return drop(self.answers.send(Input::SignalLookedAt(peer, Err(why))));
        }
        let only_to = self.limits.relay_signals_to.clone();
        self.read(move |store| {
            let looked = match store.document(&agent) {
                Ok(document) => {
                    let document = document.as_ref().map(|document| &document.body[..]);
                    reach::admit(&signal.url, document, &only_to).map_err(NotQueued::Refused)
                }
                Err(_) => Err(NotQueued::Later),
            };
            Input::SignalLookedAt(peer, looked)
        });
    }

    /// Has looked up, for some at a time, what those who said hello should hold.
    fn look_up(&mut self) {
        while !self.arrivals.is_empty() {
            let from = self.arrivals.len().saturating_sub(ARRIVALS_PER_READ_MAX);
            let some = self.arrivals.split_off(from);
            let (store, answers) = (self.store.clone(), self.answers.clone());
            self.reads.submit(move || {
                load_all(&store, &some).into_iter().for_each(|input| drop(answers.send(input)));
            });
        }
    }

    /// Reads the store on the blocking pool; the answer comes as an input.
    fn read(&self, job: impl FnOnce(&Store) -> Input + Send + 'static) {
        let (store, answers) = (self.store.clone(), self.answers.clone());
        // The receiver lives as long as the task that would use the answer.
        self.reads.submit(move || drop(answers.send(job(&store))));
    }

    /// Writes the store; the answer comes as an input.
    fn write(
        &self,
        write: Write,
        answer: impl FnOnce(Result<Outcome, StoreError>) -> Input + Send + 'static,
    ) {
        let (answers, metrics) = (self.answers.clone(), self.metrics.clone());
        self.writer.submit(write, move |outcome| {
            if outcome.is_err() {
                metrics.count_store_failure();
            }
            drop(answers.send(answer(outcome)));
        });
    }

    fn push(
        &mut self,
        peer: PeerId,
        agent: AgentId,
        document: StoredDocument,
        held: Option<Hex32>,
    ) {
        let StoredDocument { head, body } = document;
        let encode = self.limits.compression && body.len() >= ENCODED_BYTES_MIN;
        let key = Key { base: held.filter(|_| encode), document: head.sha256 };
        let push = Push { peer, agent, version: head.version, key, bytes: body.len() };
        let at_hand = (!encode).then(|| Form::with_digest(body, head.sha256));
        self.pushes.push(push, at_hand);
        self.attend_pushes();
    }

    fn on_made(&mut self, made: Made) {
        let Made { job, form } = made;
        match form {
            // Without a form, a newer document of that agent is on its way to the core.
            Ok(form) => self.pushes.made(&job, form),
            Err(error) => {
                self.pushes.made(&job, None);
                self.tell_core(Input::Unreadable(job.peer, error));
            }
        }
        self.attend_pushes();
    }

    /// Has forms made, and tells the sessions what follows.
    fn attend_pushes(&mut self) {
        while let Some(job) = self.pushes.next_job() {
            let (store, made) = (self.store.clone(), self.made.clone());
            let encode = self.limits.compression;
            tokio::task::spawn_blocking(move || {
                let form = make(&store, &job, encode);
                // The receiver lives as long as the task that would use the answer.
                drop(made.send(Made { job, form }));
            });
        }
        let now = clock::now();
        while let Some(order) = self.pushes.poll_order(self.openings.has_room(now)) {
            match order {
                Order::Offer { peer, version, form } => {
                    self.openings.begin(now, peer);
                    self.session(peer, |session| {
                        let offered = session.offer_form(now, metadata_name(), version, form);
                        if let Err(error) = offered {
                            // Versions and sizes were checked before: only a session that is over refuses.
                            tracing::warn!(peer = peer.0, %error, "document not offered");
                        }
                    });
                }
                Order::Withdraw(peer) => {
                    self.session(peer, |session| session.withdraw(now, &metadata_name()));
                }
                Order::HangUp(peer) => {
                    self.metrics.count_stalled();
                    let seconds = STALLED_TIME_MAX.as_secs();
                    let reason = format!(
                        "no progress with the document for {seconds} s, and others wait for its memory"
                    );
                    self.tell_core(Input::Misbehaved(peer, CloseCode::PeerFault, reason));
                }
            }
        }
    }

    /// A session has come to the end of a document.
    fn settled(&mut self, input: &Input) {
        let (Input::PeerStored(peer, name, version)
        | Input::PeerRefused { peer, name, version, .. }) = input
        else {
            return;
        };
        if name.as_str() == METADATA && self.pushes.version(*peer) == Some(*version) {
            self.pushes.forget(*peer);
            self.openings.end(*peer);
            self.attend_pushes();
        }
    }

    fn session(&mut self, peer: PeerId, job: impl FnOnce(&mut Session)) {
        if let Some(link) = self.links.get_mut(peer) {
            job(&mut link.session);
            stir(&mut self.stirred, link);
        }
    }

    /// Sends what the sessions have to say, as far as the channel has room.
    fn transmit(&mut self) {
        let now = clock::now();
        let mut packets = TURN_PACKETS_MAX;
        self.turns.begin();
        while packets > 0
            && self.driver.has_room()
            && let Some(peer) = self.turns.next()
        {
            let Some(link) = self.links.get_mut(peer) else { continue };
            link.queued = send_burst(&mut self.driver, link, now, &mut self.packet, &mut packets);
            if link.queued {
                self.turns.push(peer, link.session.unsent_bytes());
            }
            if link.session.has_events() {
                stir(&mut self.stirred, link);
            }
            if link.closing && link.session.is_closed() {
                self.driver.close(now, link.association);
            }
            arm(&mut self.timers, now, link);
        }
        self.driver.flush();
    }

    fn forget(&mut self, peer: PeerId) {
        self.pushes.forget(peer);
        self.openings.end(peer);
        self.attend_pushes();
        let Some(link) = self.links.remove(peer) else { return };
        // Strangers come with as many certificates as they like: they would push the agents' paths out.
        if link.known
            && let Some(path) = link.session.known_path(clock::now())
        {
            self.paths.learn(link.path, path);
        }
    }

    fn tell(&mut self, notice: Notice) {
        self.metrics.count(&notice);
        log::notice(clock::now(), &notice, &mut self.log);
        if self.notices.receiver_count() > 0 {
            // An error means that nobody watches any more.
            drop(self.notices.send(Arc::new(Stamped { unix_ms: clock::unix_ms(), notice })));
        }
    }
}

/// Has a session heard in this turn.
fn stir(stirred: &mut Vec<PeerId>, link: &mut Link) {
    if !std::mem::replace(&mut link.stirred, true) {
        stirred.push(link.peer);
    }
}

/// Sees to it that a session's timer is heard in time. One that runs off too early is set again then: most are put off
/// again and again.
fn arm(timers: &mut Timers, now: Instant, link: &mut Link) {
    if let Some(at) = link.session.next_timeout() {
        link.armed = Some(timers.arm(now, at, link.armed, link.peer));
    }
}

/// Sends what one session has to say, in so many packets at most. True if there may be more than fitted its turn.
fn send_burst(
    driver: &mut Driver,
    link: &mut Link,
    now: Instant,
    packet: &mut Vec<u8>,
    packets: &mut usize,
) -> bool {
    for _ in 0..BURST_PACKETS_MAX {
        if *packets == 0 || !driver.has_room() {
            return true;
        }
        let Some(number) = driver.next_sequence(link.association) else { return false };
        if !link.session.poll_transmit(now, number, packet) {
            return false;
        }
        let fits = link.session.payload_max();
        driver.set_ecn(link.association, Ecn::from_bits(link.session.packet_ecn().bits()));
        match driver.send_on_path(now, link.association, packet, fits) {
            Ok(used) => {
                debug_assert_eq!(used, number, "packet and record numbers agree");
                *packets -= 1;
            }
            Err(error) => {
                tracing::debug!(peer = link.peer.0, %error, "packet not sent");
                return false;
            }
        }
    }
    true
}

/// How much of its document a peer has.
fn parts(session: &Session) -> u64 {
    match session.progress(&metadata_name()) {
        Some((acknowledged, length)) => acknowledged * PROGRESS_PARTS / length.max(1),
        None => 0,
    }
}

fn session_input(peer: PeerId, event: delivery::Event) -> Input {
    match event {
        delivery::Event::Received(document) => Input::Received(peer, document),
        delivery::Event::Stored { name, version } => Input::PeerStored(peer, name, version),
        delivery::Event::Refused { name, version, code, reason } => {
            Input::PeerRefused { peer, name, version, code, reason }
        }
        delivery::Event::PeerClosed { code: CloseCode::Shutdown, .. } => {
            Input::Ended(peer, "the agent stopped".into())
        }
        delivery::Event::PeerClosed { code, reason } => {
            Input::Ended(peer, format!("the agent closed: {code}: {reason}"))
        }
        delivery::Event::PeerLost => Input::Ended(peer, "the agent does not answer".into()),
    }
}
