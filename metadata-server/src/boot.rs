//! From a configuration to a running server, and down again.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Context;
use certs::file::{ensure_private_directory, read_private};
use certs::{Fingerprint, Identity, IdentityError};
use openstack_client::http::Trust;
use tokio::net::TcpListener;
use tokio::sync::watch as signal;
use tokio::task::{AbortHandle, JoinHandle};
use zeroize::Zeroizing;

use crate::clock;
use crate::config::Config;
use crate::error::{Exit, Failure};
use crate::heat::Cloud;
use crate::heat::poll::Poller;
use crate::http::{self, AdminToken};
use crate::hub::{HubChannels, HubHandle};
use crate::metrics::Metrics;
use crate::relay::{self, Relay, RelayChannel};
use crate::store::writer::{Observer, Writer, WriterThread};
use crate::store::{Backend, RedbBackend, Store};
use crate::sweep::sweep;
use crate::tickets::Tickets;
use crate::zaqar::keystone::{Keystone, ServiceUser};
use crate::zaqar::settle::Settler;
use crate::zaqar::{self, Admission, Zaqar};

/// Longest password of the service user, in bytes.
const PASSWORD_BYTES_MAX: u64 = 4096;

/// A running server.
pub struct Server {
    /// Where agents connect, as bound.
    pub udp_address: SocketAddr,
    /// Where the admin API listens, as bound.
    pub admin_address: SocketAddr,
    /// Where the messaging service listens, as bound, if it is served.
    pub zaqar_address: Option<SocketAddr>,
    /// What agents pin.
    pub fingerprint: Fingerprint,
    hub: HubHandle,
    hub_task: JoinHandle<std::io::Result<()>>,
    tickets_task: JoinHandle<()>,
    relay: Option<Relay>,
    settling_task: JoinHandle<()>,
    polling_task: JoinHandle<()>,
    sweeping_task: JoinHandle<()>,
    messaging: Option<Messaging>,
    http_task: JoinHandle<std::io::Result<()>>,
    writer_thread: WriterThread,
    store: Store,
    state: http::State,
    stopping: signal::Sender<bool>,
    drain_timeout: Duration,
}

/// The messaging service, running.
struct Messaging {
    zaqar: Zaqar,
    serving: JoinHandle<std::io::Result<()>>,
}

/// What runs already while the rest is being started.
struct Begun {
    hub: Option<(HubHandle, JoinHandle<std::io::Result<()>>)>,
    relay: Option<Relay>,
    tasks: Vec<AbortHandle>,
    writer_thread: WriterThread,
}

impl Begun {
    fn new(writer_thread: WriterThread) -> Self {
        Self { hub: None, relay: None, tasks: Vec::new(), writer_thread }
    }

    /// A task that is stopped by its end.
    fn task<T>(&mut self, task: JoinHandle<T>) -> JoinHandle<T> {
        self.tasks.push(task.abort_handle());
        task
    }

    /// The rest could not be started: leaves nothing running.
    async fn undo(self, error: anyhow::Error) -> Failure {
        self.tasks.iter().for_each(AbortHandle::abort);
        if let Some((hub, task)) = self.hub {
            hub.drain(Duration::ZERO).await;
            drop(task.await);
        }
        if let Some(relay) = self.relay {
            relay.stop().await;
        }
        self.writer_thread.stop();
        error.into()
    }
}

impl Server {
    /// Starts with the store in the configured folder.
    ///
    /// # Errors
    /// What is wrong, and what to try; nothing is left running.
    pub async fn start(config: Config) -> Result<Self, Failure> {
        private_state_dir(&config)?;
        let backend = RedbBackend::open(&config.store_file())?;
        Self::start_with(config, Arc::new(backend)).await
    }

    /// Starts with another store.
    ///
    /// # Errors
    /// What is wrong, and what to try; nothing is left running.
    pub async fn start_with(config: Config, backend: Arc<dyn Backend>) -> Result<Self, Failure> {
        private_state_dir(&config)?;
        let identity = identity(&config)?;
        let fingerprint = identity.fingerprint();
        let token = AdminToken::load_or_create(&config.admin_token_file())?;
        let listener = TcpListener::bind(config.admin_listen)
            .await
            .map_err(|e| Failure::listen("TCP", "admin-listen", config.admin_listen, &e))?;
        let admin_address =
            listener.local_addr().context("asking for the admin listener's address")?;
        let (messaging_listener, zaqar_address) = match config.zaqar_listen {
            Some(listen) => {
                let listener = TcpListener::bind(listen)
                    .await
                    .map_err(|e| Failure::listen("TCP", "zaqar-listen", listen, &e))?;
                let address = listener.local_addr().context("asking for the listener's address")?;
                (Some(listener), Some(address))
            }
            None => (None, None),
        };
        let keystone = keystone(&config)?;
        let store = Store::new(backend)?;
        let kept_store = store.clone();
        let channels = HubChannels::new();
        let hub = channels.handle();
        let metrics = Arc::new(Metrics::default());
        let relay = RelayChannel::new();
        let observers = (channels.observer(), relay.observer());
        let (writer, writer_thread) =
            Writer::start(store.clone(), both(observers)).context("starting the store's writer")?;
        let mut begun = Begun::new(writer_thread);
        if config.signal {
            let parts = relay::Parts {
                store: store.clone(),
                writer: writer.clone(),
                metrics: metrics.clone(),
                notices: hub.notices(),
                only_to: config.relay_signals_to.clone(),
                seed: clock::unix_ms() ^ u64::from(std::process::id()),
            };
            match relay.start(parts) {
                Ok(relay) => begun.relay = Some(relay),
                Err(error) => return Err(begun.undo(error).await),
            }
        }
        let tickets = Tickets::open(&store, &writer).await.context("opening the ticket keys");
        let listening = tickets.and_then(|tickets| {
            let keys = tickets.keys();
            let (store, writer, metrics) = (store.clone(), writer.clone(), metrics.clone());
            let hub = channels.start(&config, &identity, keys, store, writer, metrics)?;
            Ok((hub, tickets))
        });
        let (udp_address, tickets) = match listening {
            Ok(((udp_address, hub_task), tickets)) => {
                begun.hub = Some((hub.clone(), hub_task));
                (udp_address, tickets)
            }
            Err(error) => return Err(begun.undo(error).await),
        };
        let tickets_task = begun.task(tokio::spawn(tickets.keep_fresh(writer.clone())));
        let sweeping_task = begun.task(tokio::spawn(sweep(writer.clone())));
        let (stopping, stopped) = signal::channel(false);
        let drain_timeout = config.drain_timeout;
        let cloud = keystone
            .clone()
            .map(|keystone| Arc::new(Cloud::new(keystone, config.document_bytes_max)));
        let polled = Poller::start(
            store.clone(),
            writer.clone(),
            metrics.clone(),
            cloud.clone(),
            config.heat_poll_interval,
        );
        let (poll, polling_task) = match polled {
            Ok((poll, task)) => (poll, begun.task(task)),
            Err(error) => return Err(begun.undo(error).await),
        };
        let settled = Settler::start(store.clone(), writer.clone(), metrics.clone(), cloud);
        let (settle, settling_task) = match settled {
            Ok((settle, task)) => (settle, begun.task(task)),
            Err(error) => return Err(begun.undo(error).await),
        };
        let parts = zaqar::Parts {
            store: store.clone(),
            writer: writer.clone(),
            metrics: metrics.clone(),
            admission: keystone.map_or(Admission::Anybody, Admission::Keystone),
            roles: config.zaqar_roles.clone(),
            object_roles: config.swift_roles.clone(),
            settle: settle.clone(),
            document_bytes_max: config.document_bytes_max,
        };
        let messaged = messaging_listener.map(|l| (l, stopped.clone(), drain_timeout));
        let messaging = match start_messaging(messaged, parts).await {
            Ok(messaging) => messaging,
            Err(error) => return Err(begun.undo(error).await),
        };
        let Begun { hub: Some((hub, hub_task)), relay, writer_thread, .. } = begun else {
            return Err(begun.undo(anyhow::anyhow!("the hub was not started")).await);
        };
        let state = http::State::new(http::Inner {
            config,
            store,
            writer,
            hub: hub.clone(),
            metrics,
            token,
            fingerprint,
            udp_address,
            started_unix_ms: clock::unix_ms(),
            settle,
            poll,
            ready: AtomicBool::new(true),
        });
        let http_task = tokio::spawn(http::serve(listener, state.clone(), stopped, drain_timeout));
        Ok(Self {
            udp_address,
            admin_address,
            zaqar_address,
            fingerprint,
            hub,
            hub_task,
            tickets_task,
            relay,
            settling_task,
            polling_task,
            sweeping_task,
            messaging,
            http_task,
            writer_thread,
            store: kept_store,
            state,
            stopping,
            drain_timeout,
        })
    }

    /// Returns when a part of the server has failed, which none should.
    pub async fn failed(&mut self) -> Failure {
        let (part, ended) = tokio::select! {
            ended = &mut self.hub_task => ("serving agents", ended),
            ended = &mut self.http_task => ("serving the admin API", ended),
            ended = async {
                match &mut self.messaging {
                    Some(messaging) => (&mut messaging.serving).await,
                    None => std::future::pending().await,
                }
            } => ("serving the messaging API", ended),
            ended = &mut self.settling_task => ("settling the order of pushes", ended.map(Ok)),
            ended = &mut self.polling_task => ("polling Heat", ended.map(Ok)),
        };
        let why = match ended {
            Ok(Ok(())) => "it ended by itself".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        Failure::new(Exit::Failed, format!("{part} failed: {why}"))
    }

    /// Drains and stops: not ready, goodbye to agents, requests finished, store written.
    pub async fn stop(self) {
        self.state.not_ready();
        self.tickets_task.abort();
        if let Some(messaging) = &self.messaging {
            messaging.zaqar.not_ready();
        }
        self.sweeping_task.abort();
        self.settling_task.abort();
        self.polling_task.abort();
        self.hub.drain(self.drain_timeout).await;
        // A part that failed before has nothing to drain. Requests may go on meanwhile: what is
        // put now is stored, and pushed after the next start.
        if let Err(error) = self.hub_task.await {
            tracing::error!(%error, "the hub ended badly");
        }
        if let Some(relay) = self.relay {
            relay.stop().await;
        }
        self.stopping.send_replace(true);
        if let Err(error) = self.http_task.await {
            tracing::error!(%error, "the admin API ended badly");
        }
        if let Some(messaging) = self.messaging
            && let Err(error) = messaging.serving.await
        {
            tracing::error!(%error, "the messaging API ended badly");
        }
        // Aborted above: they hold the store until they are gone.
        drop(self.sweeping_task.await);
        drop(self.settling_task.await);
        drop(self.polling_task.await);
        let writer_thread = self.writer_thread;
        if tokio::task::spawn_blocking(move || writer_thread.stop()).await.is_err() {
            tracing::error!("the store's writer was not stopped");
        }
        drop(self.state);
        // A signal or a question to Heat may be under way on a thread of its own. Whoever starts a
        // server on the same store next finds it closed.
        let gone = async {
            while !self.store.is_last_user() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        if tokio::time::timeout(self.drain_timeout, gone).await.is_err() {
            tracing::warn!("the store is still in use by a request to another machine");
        }
    }
}

/// Tells two observers, in their order.
fn both((mut first, mut second): (Observer, Observer)) -> Observer {
    Box::new(move |write, outcome| {
        first(write, outcome);
        second(write, outcome);
    })
}

/// Starts the messaging service, if there is a listener for it.
async fn start_messaging(
    listener: Option<(TcpListener, signal::Receiver<bool>, Duration)>,
    parts: zaqar::Parts,
) -> anyhow::Result<Option<Messaging>> {
    let Some((listener, stopped, drain_timeout)) = listener else { return Ok(None) };
    let zaqar = Zaqar::new(parts).await?;
    let serving = tokio::spawn(zaqar::serve(listener, zaqar.clone(), stopped, drain_timeout));
    Ok(Some(Messaging { zaqar, serving }))
}

/// The Keystone that is configured.
fn keystone(config: &Config) -> Result<Option<Arc<Keystone>>, Failure> {
    let Some(url) = config.keystone_url.as_ref().filter(|_| !config.zaqar_any_token) else {
        return Ok(None);
    };
    let trust = config.keystone_ca_file.clone().map_or(Trust::Machine, Trust::File);
    let own = match (
        &config.keystone_user_id,
        &config.keystone_password_file,
        &config.keystone_project_id,
    ) {
        (Some(user_id), Some(file), Some(project_id)) => Some(ServiceUser {
            user_id: user_id.clone(),
            password: keystone_password(file)?,
            project_id: project_id.clone(),
        }),
        _ => None,
    };
    Ok(Some(Arc::new(Keystone::new(url, trust, own))))
}

/// The service user's password, from its file.
pub(crate) fn keystone_password(file: &Path) -> Result<Zeroizing<String>, Failure> {
    let failed = |why: String| {
        Failure::new(Exit::Config, format!("keystone_password_file: {why}")).with_hint(
            "one line, readable by the user that runs metadata-server and by nobody else (mode 0600)",
        )
    };
    let bytes = Zeroizing::new(
        read_private(file, PASSWORD_BYTES_MAX)
            .map_err(|e| failed(format!("{:#}", anyhow::Error::new(e))))?,
    );
    let text = std::str::from_utf8(&bytes).map(|text| text.trim_end_matches(['\r', '\n']));
    match text {
        Ok(text) if !text.is_empty() && !text.contains('\n') => Ok(Zeroizing::new(text.to_owned())),
        _ => Err(failed(format!("{} must hold one line of text", file.display()))),
    }
}

fn private_state_dir(config: &Config) -> Result<(), Failure> {
    ensure_private_directory(&config.state_dir).map_err(|e| {
        let failure = Failure::new(Exit::Config, format!("state_dir: {:#}", anyhow::Error::new(e)));
        failure.with_hint("give the folder to the user that runs metadata-server, mode 0700; --state-dir names another one")
    })
}

/// The configured identity, or the server's own, made at the first start.
///
/// # Errors
/// A file is missing, cannot be read, is open to others, or holds no usable key.
pub fn identity(config: &Config) -> Result<Identity, Failure> {
    let (loaded, setting) = match (&config.certificate_file, &config.key_file) {
        (Some(certificate), Some(key)) => {
            (Identity::load(certificate, key), "certificate_file and key_file")
        }
        _ => (Identity::load_or_create(&config.identity_dir()), "identity"),
    };
    loaded.map_err(|error| identity_failure(setting, error))
}

pub(crate) fn identity_failure(setting: &str, error: IdentityError) -> Failure {
    let message = format!("{setting}: {:#}", anyhow::Error::new(error));
    Failure::new(Exit::Config, message).with_hint(
        "the key must be readable by the user that runs metadata-server, and by nobody else (mode 0600)",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigFile, Origin, Override, Value};
    use crate::store::MemoryBackend;

    #[tokio::test]
    async fn the_end_of_each_task_that_asks_heat_is_a_failure_of_the_server() {
        for (part, task) in [
            ("settling the order", (|s| s.settling_task.abort()) as fn(&Server)),
            ("polling Heat", |s| s.polling_task.abort()),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let state = folder.path().join("state").display().to_string();
            let settings = [
                ("listen", "127.0.0.1:0"),
                ("admin_listen", "127.0.0.1:0"),
                ("state_dir", &*state),
            ];
            let overrides = settings.map(|(key, text)| Override {
                key,
                value: Value::Text(text.into()),
                origin: Origin::Together,
            });
            let config = Config::load(&ConfigFile::None, &overrides).unwrap();
            let backend = Arc::new(MemoryBackend::default());
            let mut server = Server::start_with(config, backend).await.unwrap();
            task(&server);
            let failure = tokio::time::timeout(Duration::from_secs(30), server.failed()).await;
            assert!(failure.unwrap().message.contains(part));
        }
    }
}
