//! The push hub: every association with an agent, and what is done about each.
//!
//! [`core`] decides. It is sans-IO: events and the time go in, actions come out, and it is tested on
//! a virtual clock. `shell` owns the DTLS driver, one delivery session per association and their
//! timers, in one task on a thread of its own, and does what the core says.

pub mod agent_log;
mod by_peer;
mod commands;
pub mod core;
mod follow;
mod gathering;
mod links;
mod lookups;
mod openings;
mod pins;
mod pushes;
mod reads;
mod shell;
mod timers;
mod turns;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use certs::{AgentId, Identity};
use dtls_channel::{
    Credentials, Driver, EndpointConfig, PeerRefused, PeerVerifier, Stats as DtlsStats, TicketKeys,
};
use metadata_delivery::Limits;
use tokio::sync::{broadcast, oneshot};

use self::commands::{Commands, Inbox};
use self::core::{Census, Core, Input, LiveAgent, NotFollowed, PeerId, Settings};
pub use self::follow::Follower;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::notice::Stamped;
use crate::store::queues::Pushed;
use crate::store::writer::{Observer, Writer};
use crate::store::{Outcome, Store, Write};
use crate::tickets::TICKET_LIFETIME;

/// Notices a slow watcher may lag behind before it misses some.
const NOTICES_BUFFERED_MAX: usize = 1024;
/// Threads that read the store for the hub; they are made as they are needed.
const READERS_MAX: usize = 8;
/// Room for packets and welcome beside the newest document.
const OUTBOUND_SPARE_BYTES: usize = 64 * 1024;

/// What the rest of the server asks of the hub's task.
pub(crate) enum Command {
    /// Something the core has to know.
    Input(Box<Input>),
    /// Who is connected?
    Live(oneshot::Sender<Vec<LiveAgent>>),
    /// Is this one connected?
    LiveAgent(AgentId, oneshot::Sender<Option<LiveAgent>>),
    /// Let somebody watch this one's log.
    Follow(AgentId, oneshot::Sender<Result<Follower, NotFollowed>>),
    /// Numbers for the metrics.
    Stats(oneshot::Sender<HubStats>),
    /// Stop, waiting so long for agents to leave.
    Drain(Duration),
}

/// Numbers for the metrics.
#[derive(Debug, Clone, Copy)]
pub struct HubStats {
    /// Peers by phase.
    pub census: Census,
    /// The engine's counters.
    pub dtls: DtlsStats,
    /// Handshakes under way.
    pub half_open: usize,
    /// Paths remembered of agents that have gone.
    pub paths: usize,
    /// Agents whose logs are watched.
    pub logs_followed: usize,
    /// Datagrams that the system refused to send.
    pub send_errors: u64,
}

/// The way to the hub's task. Cheap to clone.
#[derive(Clone)]
pub struct HubHandle {
    commands: Commands,
    notices: broadcast::Sender<Arc<Stamped>>,
}

/// The hub before it runs: its channels, so that the store can be told whom to tell.
pub struct HubChannels {
    handle: HubHandle,
    inbox: Inbox,
}

/// The server's side of DTLS accepts every certificate whose key was proven: who is welcome, the
/// core decides by the fingerprint, because a stranger may at least present a token.
struct AnyProvenKey;

impl PeerVerifier for AnyProvenKey {
    fn verify(&self, _certificate_der: &[u8]) -> Result<(), PeerRefused> {
        Ok(())
    }

    fn verify_resumed(&self, _fingerprint: &[u8; 32]) -> Result<(), PeerRefused> {
        Ok(())
    }
}

impl HubChannels {
    /// New channels.
    pub fn new() -> Self {
        let (commands, inbox) = commands::channel();
        let (notices, _) = broadcast::channel(NOTICES_BUFFERED_MAX);
        Self { handle: HubHandle { commands, notices }, inbox }
    }

    /// The way to the hub.
    pub fn handle(&self) -> HubHandle {
        self.handle.clone()
    }

    /// What the store's writer calls after each commit, so that nothing durable is ever unknown to
    /// the hub, even if whoever wrote it has gone away. It blocks while the hub is busy, which
    /// holds back the writers and nobody else.
    pub fn observer(&self) -> Observer {
        let commands = self.handle.commands.clone();
        Box::new(move |write, outcome| {
            let input = match (write, outcome) {
                (_, Outcome::Queue(outcome)) => match outcome.pushed() {
                    Some(Pushed { agent, document }) => {
                        Input::DocumentAccepted(agent.clone(), document.clone())
                    }
                    None => return,
                },
                (
                    Write::PutDocument { agent, .. },
                    Outcome::Document { document, is_new: true },
                ) => Input::DocumentAccepted(agent.clone(), document.clone()),
                (_, Outcome::Documents(documents)) => Input::DocumentsAccepted(documents.clone()),
                (Write::AddPin(pin), Outcome::Pin { taken_by: None }) => {
                    Input::PinsAdded(vec![pin.clone()])
                }
                (Write::AddPins(pins), Outcome::Pins { taken: None, .. }) => {
                    Input::PinsAdded(pins.clone())
                }
                (Write::RemovePin { fingerprint, .. }, Outcome::Unpin { removed: true }) => {
                    Input::PinRemoved(*fingerprint)
                }
                // This way, and not as the answer to whoever asked, because only here all changes of
                // pins come in the order of their commits.
                (Write::Enrol { fingerprint, asker, .. }, Outcome::Enrolment(enrolment)) => {
                    Input::Enrolled {
                        peer: PeerId(*asker),
                        fingerprint: *fingerprint,
                        enrolled: Ok(enrolment.clone()),
                    }
                }
                _ => return,
            };
            // An error means that the hub has stopped: the next start reads the store.
            let _ = commands.give_blocking(Command::Input(Box::new(input)));
        })
    }

    /// Binds the socket and starts the task. Returns where it listens.
    ///
    /// # Errors
    /// The address cannot be bound, the identity cannot be used, or the pins cannot be read.
    pub fn start(
        self,
        config: &Config,
        identity: &Identity,
        ticket_keys: Arc<TicketKeys>,
        store: Store,
        writer: Writer,
        metrics: Arc<Metrics>,
    ) -> anyhow::Result<(SocketAddr, tokio::task::JoinHandle<io::Result<()>>)> {
        let credentials =
            Credentials::from_der(identity.certificate_der().to_vec(), identity.pkcs8())
                .context("using the server's identity")?;
        let dtls = dtls_channel::Config::new(credentials, Arc::new(AnyProvenKey))
            .with_ticket_keys(ticket_keys, TICKET_LIFETIME);
        let endpoint = EndpointConfig { server: Some(Arc::new(dtls)), ..Default::default() };
        let socket = UdpSocket::bind(config.listen)
            .map_err(|e| crate::error::Failure::listen("UDP", "listen", config.listen, &e))?;
        let address = socket.local_addr().context("asking for the socket's address")?;
        let settings = Settings {
            server: identity.fingerprint(),
            software: crate::SOFTWARE.into(),
            keep_alive: config.keep_alive,
            agents_max: config.agents_max,
        };
        let pins = store.pins().context("reading the pins")?;
        let limits = shell::SessionLimits {
            keep_alive: config.keep_alive,
            peer_timeout: config.peer_timeout,
            results_per_agent_max: config.results_per_agent_max,
            signal: config.signal,
            relay_signals_to: config.relay_signals_to.clone().into(),
            datagram_bytes_max: config.datagram_bytes_max,
            compression: config.compression,
            agent: Limits {
                document_bytes_max: config.result_bytes_max,
                outbound_bytes_max: config.document_bytes_max + OUTBOUND_SPARE_BYTES,
                ..Limits::server()
            },
        };
        let core = Core::new(settings, pins);
        let (notices, commands) = (self.handle.notices, self.inbox);
        let task = on_its_own_thread(async move {
            let driver = Driver::from_socket(socket, endpoint)?;
            let parts =
                shell::Parts { driver, core, store, writer, metrics, notices, commands, limits };
            shell::run(parts).await
        })
        .context("starting the hub's thread")?;
        Ok((address, task))
    }
}

/// Runs the hub on a thread with an event loop of its own: there datagrams wake who takes them and nobody else.
fn on_its_own_thread(
    hub: impl Future<Output = io::Result<()>> + Send + 'static,
) -> io::Result<tokio::task::JoinHandle<io::Result<()>>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(READERS_MAX)
        .enable_all()
        .build()?;
    let (ends, ended) = oneshot::channel();
    // Whoever would be told may have gone.
    let run = move || drop(ends.send(runtime.block_on(hub)));
    std::thread::Builder::new().name("hub".into()).spawn(run)?;
    Ok(tokio::spawn(async { ended.await.unwrap_or_else(|_| Err(io::Error::other("it panicked"))) }))
}

impl Default for HubChannels {
    fn default() -> Self {
        Self::new()
    }
}

impl HubHandle {
    /// The agents that are connected; empty once the hub has stopped.
    pub async fn live(&self) -> Vec<LiveAgent> {
        self.ask(Command::Live).await.unwrap_or_default()
    }

    /// One agent, if it is connected.
    pub async fn live_agent(&self, agent: &AgentId) -> Option<LiveAgent> {
        self.ask(|answer| Command::LiveAgent(agent.clone(), answer)).await.flatten()
    }

    /// Watches what an agent's hooks print, connected or not; `None` once the hub has stopped.
    pub async fn follow(&self, agent: &AgentId) -> Option<Result<Follower, NotFollowed>> {
        self.ask(|answer| Command::Follow(agent.clone(), answer)).await
    }

    /// Numbers for the metrics; `None` once the hub has stopped.
    pub async fn stats(&self) -> Option<HubStats> {
        self.ask(Command::Stats).await
    }

    /// Everything that happens from here on.
    pub fn watch(&self) -> broadcast::Receiver<Arc<Stamped>> {
        self.notices.subscribe()
    }

    /// Where everything that happens is told.
    pub(crate) fn notices(&self) -> broadcast::Sender<Arc<Stamped>> {
        self.notices.clone()
    }

    /// Asks the hub to say goodbye to all agents and stop, after `timeout` at the latest.
    pub async fn drain(&self, timeout: Duration) {
        // An error means that it has stopped.
        let _ = self.commands.give(Command::Drain(timeout)).await;
    }

    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.commands.give(question(answer)).await?;
        answered.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use certs::Fingerprint;

    use super::*;
    use crate::store::Enrolment;

    #[test]
    fn changes_of_pins_reach_the_hub_in_the_order_of_their_commits() {
        let agent: AgentId = "a".parse().unwrap();
        let fingerprint = Fingerprint::from_bytes([1; 32]);
        let token_id = "t".to_owned();
        let enrol = Write::Enrol { token_id, fingerprint, asker: 7, now_unix_ms: 1 };
        let done = Enrolment::Done { agent: agent.clone(), replaced: vec![] };
        let mut channels = HubChannels::new();
        let mut observer = channels.observer();
        observer(&enrol, &Outcome::Enrolment(done));
        observer(&Write::RemovePin { agent, fingerprint }, &Outcome::Unpin { removed: true });
        let mut next = || match channels.inbox.queue.try_recv() {
            Ok(Command::Input(input)) => *input,
            _ => panic!("nothing came"),
        };
        assert!(matches!(next(), Input::Enrolled { peer: PeerId(7), enrolled: Ok(_), .. }));
        assert!(matches!(next(), Input::PinRemoved(removed) if removed == fingerprint));
    }
}
