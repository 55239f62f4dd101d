//! Tells Heat how deployments ended, so that no instance needs a way there.
//!
//! - A signal is queued in the transaction that stores its result, and tried until it is taken (2xx), refused
//!   (another 4xx), too late, or [`core::AGE_MAX_MS`] old. It is sent at least once: a server that is killed
//!   between Heat's answer and its own note of it sends once more, which Heat ignores.
//! - Where it goes is read anew for each attempt from the agent's document in force ([`plan`]): what has left
//!   the document is not signalled. Only a deployment of action DELETE is, since Heat withdraws it at once.
//! - The server asks nothing but what a document names, or less (`relay_signals_to`). No result and no agent
//!   chooses a URL; redirects to other hosts are not followed.
//!
//! [`plan`] and [`core`] decide, on bytes and the caller's clock. `shell` has a task for the timers and
//! [`THREADS`] threads that read the store and speak HTTP.

pub mod core;
pub mod plan;
pub mod reach;
mod shell;

use std::sync::Arc;
use std::time::Duration;

use certs::AgentId;
use openstack_client::http::UrlPrefix;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::metrics::Metrics;
use crate::notice::Stamped;
use crate::store::signals::{SignalOutcome, SignalWrite};
use crate::store::writer::{Observer, Writer};
use crate::store::{Outcome, Store, Write};

/// Signals on their way at the same time.
pub const THREADS: usize = 8;
/// Longest time for one attempt: all its requests, from the first name that is looked up to the last byte of the
/// last answer.
pub const ATTEMPT_TIME_MAX: Duration = Duration::from_secs(60);
/// How long a stop waits for them.
pub const STOP_WAIT: Duration = Duration::from_millis(500);

/// What the relay is made of.
pub struct Parts {
    /// For reading.
    pub store: Store,
    /// For writing.
    pub writer: Writer,
    /// What `/metrics` shows.
    pub metrics: Arc<Metrics>,
    /// Where it tells what happens.
    pub notices: broadcast::Sender<Arc<Stamped>>,
    /// Nothing else is asked, if there are some.
    pub only_to: Vec<UrlPrefix>,
    /// For jitter.
    pub seed: u64,
}

/// The way to the relay, before it runs.
pub struct RelayChannel {
    queue: mpsc::UnboundedSender<(u64, AgentId)>,
    inbox: mpsc::UnboundedReceiver<(u64, AgentId)>,
}

impl RelayChannel {
    /// A new one.
    #[expect(clippy::new_without_default, reason = "a channel is nothing to be had by default")]
    pub fn new() -> Self {
        let (queue, inbox) = mpsc::unbounded_channel();
        Self { queue, inbox }
    }

    /// What the store's writer calls after each commit; it does not block. What waits here is bounded by
    /// what is in the store, some fifty bytes for each signal.
    pub fn observer(&self) -> Observer {
        let queue = self.queue.clone();
        Box::new(move |write, outcome| {
            let (number, agent) = match (write, outcome) {
                (Write::SaveResult { signal: true, agent, .. }, Outcome::Result(kept))
                    if kept.is_new =>
                {
                    (kept.number, agent)
                }
                (
                    Write::Signal(SignalWrite::QueueWait { agent, .. }),
                    Outcome::Signal(SignalOutcome::Queued { number, is_new: true }),
                ) => (*number, agent),
                _ => return,
            };
            // An error means that the relay does not run: the next start reads the store.
            let _ = queue.send((number, agent.clone()));
        })
    }

    /// Starts the relay with what waits in the store.
    ///
    /// # Errors
    /// The store cannot be read, or the system has no thread left.
    pub fn start(self, parts: Parts) -> anyhow::Result<Relay> {
        let (stop, stopped) = oneshot::channel();
        let task = shell::start(parts, self.inbox, stopped)?;
        Ok(Relay { stop, task })
    }
}

/// A relay that runs.
pub struct Relay {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Relay {
    /// Begins no attempt any more, and waits for those under way, at most [`STOP_WAIT`]: one whose answer is
    /// not noted is made again by the next start.
    pub async fn stop(self) {
        let Self { stop, mut task } = self;
        // An error means that it has ended.
        let _ = stop.send(());
        if tokio::time::timeout(STOP_WAIT, &mut task).await.is_err() {
            task.abort();
        }
    }
}
