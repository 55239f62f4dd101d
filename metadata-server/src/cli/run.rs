//! `run`: the server in the foreground.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::boot::Server;
use crate::config::{Config, SettingsArgs};
use crate::error::{Exit, Failure};
use crate::log;

/// Threads for the event loop: one is busy with the agents, the other with the admin API.
const WORKERS: usize = 2;
/// Threads that may read the store or ask other machines at once; they are made as they are needed.
const READERS_MAX: usize = 32;

pub(super) fn run(settings: &SettingsArgs) -> Result<(), Failure> {
    let config = settings.load()?;
    log::start(&config);
    serve(config, |_| async { Ok(()) })
}

/// Runs a server until a signal, or until a part of it fails. `started` is called once it runs.
pub(super) fn serve<F>(config: Config, started: impl FnOnce(&Server) -> F) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(READERS_MAX)
        .enable_all()
        .build()
        .map_err(|e| Failure::new(Exit::Failed, format!("cannot start: {e}")))?;
    let ended = runtime.block_on(until_signal(config, started));
    // After a second signal nothing is waited for; everything acknowledged is durable.
    runtime.shutdown_background();
    ended
}

async fn until_signal<F>(config: Config, started: impl FnOnce(&Server) -> F) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    let mut signals = Signals::new()?;
    let token_file = config.admin_token_file();
    let store_file = config.store_file();
    let mut server = Server::start(config).await?;
    tracing::info!("{} starts", crate::SOFTWARE);
    tracing::info!(fingerprint = %server.fingerprint, "identity");
    tracing::info!(path = %store_file.display(), "store");
    tracing::info!(udp = %server.udp_address, "agents connect here");
    tracing::info!(tcp = %server.admin_address, token_file = %token_file.display(), "admin API");
    if let Some(tcp) = server.zaqar_address {
        tracing::info!(%tcp, "messaging API: Heat pushes here");
    }
    started(&server).await?;
    let failed = tokio::select! {
        name = signals.next() => {
            tracing::info!(signal = name, "stopping; a second signal ends at once");
            None
        }
        failure = server.failed() => Some(failure),
    };
    if let Some(failure) = failed {
        // What is left cannot be drained in order; whatever was acknowledged is durable.
        return Err(failure);
    }
    tokio::select! {
        () = server.stop() => {
            tracing::info!("stopped");
            Ok(())
        }
        name = signals.next() => {
            Err(Failure::new(Exit::Failed, format!("ended at once by a second signal ({name})")))
        }
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind)
                .map_err(|e| Failure::new(Exit::Failed, format!("cannot take signals: {e}")))
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
