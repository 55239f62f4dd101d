//! What is in force when pushes came out of order: after a burst Heat is asked once.
//!
//! The agenda decides when; it is sans-IO. The task asks, a few queues at a time, and the store takes the
//! answer only if no document has come meanwhile. Without an answer the document that came last is put in
//! force: in every run that was recorded, Heat's last push was the right one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::clock;
use crate::heat::questions::{Questions, Timetable, jitter, sleep_until};
use crate::heat::{self, AskError, Cloud};
use crate::metrics::Metrics;
use crate::store::queues::{QueueKey, QueueOutcome, QueueWrite};
use crate::store::writer::Writer;
use crate::store::{Outcome, Store, Write};

/// After so long without a push Heat is asked; up to as much again is added, so that many do not ask at
/// once.
const QUIET: Duration = Duration::from_millis(500);
/// Pushes that keep coming put the question off for so long at most.
const PUT_OFF_MAX: Duration = Duration::from_secs(5);
/// Questions under way at a time.
const QUESTIONS_MAX: usize = 4;
/// How often Heat is asked about one queue before the last push counts.
const TRIES_MAX: u32 = 4;
/// Queues that may wait to be noted; the rest is found by the next push or start.
const NOTES_MAX: usize = 10_000;

/// When to ask about which queue.
#[derive(Debug, Default)]
struct Agenda {
    due: Timetable<QueueKey>,
    doubts: BTreeMap<QueueKey, Doubt>,
}

#[derive(Debug, Clone, Copy)]
struct Doubt {
    first: Instant,
    tries: u32,
}

impl Agenda {
    /// A push has come; `jitter` is from 0 to 1.
    fn note(&mut self, queue: QueueKey, now: Instant, jitter: f64) {
        let doubt = self.doubts.entry(queue.clone()).or_insert(Doubt { first: now, tries: 0 });
        let quiet = now + QUIET + QUIET.mul_f64(jitter.clamp(0.0, 1.0));
        self.due.set(queue, quiet.min(doubt.first + PUT_OFF_MAX).max(now));
    }

    /// A queue that is due, with how often it was tried.
    fn take_due(&mut self, now: Instant) -> Option<(QueueKey, u32)> {
        let queue = self.due.take(now)?;
        let tries = self.doubts.remove(&queue).map_or(0, |doubt| doubt.tries);
        Some((queue, tries))
    }

    /// How the question about a queue that was due has ended.
    fn ended(&mut self, queue: QueueKey, end: End, now: Instant, jitter: f64) {
        self.due.ended(&queue);
        match end {
            End::Over => {}
            End::Outdated => self.note(queue, now, jitter),
            // A push that came meanwhile asks sooner, and anew.
            End::Failed { .. } if self.due.has(&queue) => {}
            End::Failed { tries } => {
                let wait = Duration::from_secs(1 << tries).mul_f64(1.0 + jitter.clamp(0.0, 1.0));
                self.doubts.insert(queue.clone(), Doubt { first: now, tries });
                self.due.set(queue, now + wait);
            }
        }
    }

    fn next(&self) -> Option<Instant> {
        self.due.next()
    }
}

/// How a question has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// There is nothing left to ask.
    Over,
    /// Documents have come meanwhile.
    Outdated,
    /// There was no answer; less than [`TRIES_MAX`] times.
    Failed {
        /// How often by now.
        tries: u32,
    },
}

/// The way to the task. Cheap to clone.
#[derive(Clone)]
pub struct SettleHandle(mpsc::Sender<QueueKey>);

impl SettleHandle {
    /// A document came into this queue and its order is doubtful.
    pub fn note(&self, queue: QueueKey) {
        // Full: it stays marked in the store, where the next start finds it.
        if self.0.try_send(queue).is_err() {
            tracing::warn!("too many queues wait for Heat to be asked");
        }
    }
}

/// What the task works with.
#[derive(Clone)]
pub struct Settler {
    store: Store,
    writer: Writer,
    metrics: Arc<Metrics>,
    /// Whom to ask; without, the last push counts.
    cloud: Option<Arc<Cloud>>,
}

impl Settler {
    /// Starts the task, with what an earlier run has left. It ends when the last handle is dropped.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn start(
        store: Store,
        writer: Writer,
        metrics: Arc<Metrics>,
        cloud: Option<Arc<Cloud>>,
    ) -> anyhow::Result<(SettleHandle, JoinHandle<()>)> {
        let (notes, inbox) = mpsc::channel(NOTES_MAX);
        let left = store.find_queues(|_, record| record.unsettled_since_unix_ms.is_some())?;
        let settler = Self { store, writer, metrics, cloud };
        let mut agenda = Agenda::default();
        for (queue, _) in left {
            agenda.note(queue, clock::now(), jitter());
        }
        let task = tokio::spawn(settler.run(agenda, inbox));
        Ok((SettleHandle(notes), task))
    }

    async fn run(self, mut agenda: Agenda, mut inbox: mpsc::Receiver<QueueKey>) {
        let mut questions = Questions::new(QUESTIONS_MAX);
        loop {
            while questions.has_room()
                && let Some((queue, tries)) = agenda.take_due(clock::now())
            {
                let settler = self.clone();
                questions.begin(async move {
                    let end = settler.settle(&queue, tries).await;
                    (queue, end)
                });
            }
            // Without room nothing begins before something has ended.
            let next = agenda.next().filter(|_| questions.has_room());
            tokio::select! {
                noted = inbox.recv() => match noted {
                    Some(queue) => agenda.note(queue, clock::now(), jitter()),
                    None => return,
                },
                ended = questions.ended() => match ended {
                    Ok((queue, end)) => agenda.ended(queue, end, clock::now(), jitter()),
                    Err(error) => {
                        tracing::error!(%error, "a question to Heat failed");
                        return;
                    }
                },
                () = sleep_until(next) => {}
            }
        }
    }

    async fn settle(&self, queue: &QueueKey, tries: u32) -> End {
        match self.ask_and_write(queue).await {
            Ok(end) => end,
            Err(Unknown::Later(why)) if tries + 1 < TRIES_MAX => {
                tracing::info!(%queue, why, "Heat could not be asked what is in force");
                End::Failed { tries: tries + 1 }
            }
            Err(Unknown::Later(why)) => {
                tracing::warn!(%queue, why, "Heat cannot be asked; its last push counts");
                self.settle_blindly(queue).await;
                End::Over
            }
            Err(Unknown::Never(why)) => {
                tracing::info!(%queue, why, "Heat is not asked what is in force; its last push counts");
                self.settle_blindly(queue).await;
                End::Over
            }
        }
    }

    async fn ask_and_write(&self, queue: &QueueKey) -> Result<End, Unknown> {
        let (settler, key) = (self.clone(), queue.clone());
        let asked = tokio::task::spawn_blocking(move || settler.ask(&key)).await;
        let asked = asked.map_err(|error| Unknown::Later(error.to_string()))?;
        // Otherwise it is settled already, or gone.
        let Some(write) = asked? else { return Ok(End::Over) };
        match self.writer.write(Write::Queue(write)).await {
            Ok(Outcome::Queue(QueueOutcome::Settled { pushed, is_done: true })) => {
                self.metrics.count_settled(pushed.is_some());
                if let Some(pushed) = pushed {
                    tracing::info!(%queue, agent = %pushed.agent, "an older document came last; put right");
                }
                Ok(End::Over)
            }
            Ok(Outcome::Queue(QueueOutcome::Settled { is_done: false, .. })) => Ok(End::Outdated),
            Ok(other) => Err(Unknown::Later(other.unexpected().to_string())),
            Err(error) => Err(Unknown::Later(error.to_string())),
        }
    }

    /// Puts in force what came last.
    async fn settle_blindly(&self, queue: &QueueKey) {
        let (store, key) = (self.store.clone(), queue.clone());
        let record = tokio::task::spawn_blocking(move || store.queue(&key)).await;
        let Ok(Ok(Some(record))) = record else { return };
        let write = QueueWrite::Settle {
            queue: queue.clone(),
            pushes: record.pushes,
            document: None,
            now_unix_ms: clock::unix_ms(),
        };
        // What fails here was logged by the writer, and stays marked.
        drop(self.writer.write(Write::Queue(write)).await);
    }

    /// Asks Heat about a queue. Blocks.
    fn ask(&self, queue: &QueueKey) -> Result<Option<QueueWrite>, Unknown> {
        let failed = |error: crate::store::StoreError| Unknown::Later(error.to_string());
        let Some(record) = self.store.queue(queue).map_err(failed)? else { return Ok(None) };
        let Some(agent) = record.agent.filter(|_| record.unsettled_since_unix_ms.is_some()) else {
            return Ok(None);
        };
        let cloud =
            self.cloud.as_ref().ok_or_else(|| Unknown::Never("no Keystone is set".into()))?;
        let in_force = self.store.document(&agent).map_err(failed)?.map(|document| document.body);
        let waiting =
            self.store.waiting_document(queue).map_err(failed)?.map(|message| message.body);
        let documents: Vec<_> = [waiting, in_force].into_iter().flatten().collect();
        let document = heat::in_force(
            cloud,
            queue.project(),
            record.owner.as_deref(),
            record.server_id.as_deref(),
            &documents,
        )
        .map_err(|error| match error {
            AskError::Transient(why) => Unknown::Later(why),
            AskError::Final(why) | AskError::Gone(why) => Unknown::Never(why),
        })?;
        Ok(Some(QueueWrite::Settle {
            queue: queue.clone(),
            pushes: record.pushes,
            document: Some(document),
            now_unix_ms: clock::unix_ms(),
        }))
    }
}

/// Why it is not known what is in force.
enum Unknown {
    /// Ask again.
    Later(String),
    /// It will not be known.
    Never(String),
}

#[cfg(test)]
mod tests;
