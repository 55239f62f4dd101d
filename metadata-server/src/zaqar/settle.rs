//! What is in force when pushes came out of order: after a burst Heat is asked once.
//!
//! The agenda decides when; it is sans-IO. The task asks, a few queues at a time, and the store takes the
//! answer only if no document has come meanwhile. Without an answer the document that came last is put in
//! force: in every run that was recorded, Heat's last push was the right one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use crate::clock;
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
    queues: BTreeMap<QueueKey, Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    first: Instant,
    due: Instant,
    tries: u32,
}

impl Agenda {
    /// A push has come; `jitter` is from 0 to 1.
    fn note(&mut self, queue: QueueKey, now: Instant, jitter: f64) {
        let entry = self.queues.entry(queue).or_insert(Entry { first: now, due: now, tries: 0 });
        let quiet = now + QUIET + QUIET.mul_f64(jitter.clamp(0.0, 1.0));
        entry.due = quiet.min(entry.first + PUT_OFF_MAX).max(now);
    }

    /// Heat could not be asked: later again. False if it was often enough.
    fn retry(&mut self, queue: QueueKey, tries: u32, now: Instant, jitter: f64) -> bool {
        if tries >= TRIES_MAX {
            return false;
        }
        let wait = Duration::from_secs(1 << tries).mul_f64(1.0 + jitter.clamp(0.0, 1.0));
        // A push that came meanwhile asks sooner, and anew.
        self.queues.entry(queue).or_insert(Entry { first: now, due: now + wait, tries });
        true
    }

    /// The queues that are due, with how often they were tried; they are gone from the agenda.
    fn take_due(&mut self, now: Instant) -> Vec<(QueueKey, u32)> {
        let due: Vec<_> = self
            .queues
            .iter()
            .filter(|(_, entry)| entry.due <= now)
            .map(|(queue, entry)| (queue.clone(), entry.tries))
            .collect();
        for (queue, _) in &due {
            self.queues.remove(queue);
        }
        due
    }

    fn next(&self) -> Option<Instant> {
        self.queues.values().map(|entry| entry.due).min()
    }
}

/// The way to the task. Cheap to clone.
#[derive(Clone)]
pub struct SettleHandle(mpsc::Sender<Note>);

enum Note {
    Pushed(QueueKey),
    Failed(QueueKey, u32),
}

impl SettleHandle {
    /// A document came into this queue and its order is doubtful.
    pub fn note(&self, queue: QueueKey) {
        // Full: it stays marked in the store, where the next start finds it.
        if self.0.try_send(Note::Pushed(queue)).is_err() {
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
    /// Starts the task, with what an earlier run has left.
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
        let handle = SettleHandle(notes.clone());
        let task = tokio::spawn(settler.run(agenda, inbox, notes));
        Ok((handle, task))
    }

    async fn run(
        self,
        mut agenda: Agenda,
        mut inbox: mpsc::Receiver<Note>,
        notes: mpsc::Sender<Note>,
    ) {
        let room = Arc::new(Semaphore::new(QUESTIONS_MAX));
        loop {
            let next = agenda.next();
            let due = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                note = inbox.recv() => match note {
                    Some(Note::Pushed(queue)) => agenda.note(queue, clock::now(), jitter()),
                    Some(Note::Failed(queue, tries)) => {
                        if !agenda.retry(queue.clone(), tries, clock::now(), jitter()) {
                            tracing::warn!(%queue, "Heat cannot be asked; its last push counts");
                            self.settle_blindly(queue).await;
                        }
                    }
                    None => return,
                },
                () = due => {
                    for (queue, tries) in agenda.take_due(clock::now()) {
                        let Ok(permit) = room.clone().acquire_owned().await else { return };
                        let (settler, notes) = (self.clone(), notes.clone());
                        tokio::spawn(async move {
                            settler.settle(queue, tries, notes).await;
                            drop(permit);
                        });
                    }
                }
            }
        }
    }

    async fn settle(&self, queue: QueueKey, tries: u32, notes: mpsc::Sender<Note>) {
        let (settler, key) = (self.clone(), queue.clone());
        let asked = tokio::task::spawn_blocking(move || settler.ask(&key)).await;
        let write = match asked {
            Ok(Ok(Some(write))) => write,
            // Settled already, or gone.
            Ok(Ok(None)) | Err(_) => return,
            Ok(Err(Unknown::Later(why))) => {
                tracing::info!(%queue, why, "Heat could not be asked what is in force");
                drop(notes.send(Note::Failed(queue, tries + 1)).await);
                return;
            }
            Ok(Err(Unknown::Never(why))) => {
                tracing::info!(%queue, why, "Heat is not asked what is in force; its last push counts");
                self.settle_blindly(queue).await;
                return;
            }
        };
        match self.writer.write(Write::Queue(write)).await {
            Ok(Outcome::Queue(QueueOutcome::Settled { pushed, is_done: true })) => {
                self.metrics.count_settled(pushed.is_some());
                if let Some(pushed) = pushed {
                    tracing::info!(%queue, agent = %pushed.agent, "an older document came last; put right");
                }
            }
            Ok(Outcome::Queue(QueueOutcome::Settled { is_done: false, .. })) => {
                drop(notes.send(Note::Pushed(queue)).await);
            }
            Ok(other) => tracing::error!(error = %other.unexpected(), "settling a queue"),
            Err(_) => drop(notes.send(Note::Failed(queue, tries + 1)).await),
        }
    }

    /// Puts in force what came last.
    async fn settle_blindly(&self, queue: QueueKey) {
        let (store, key) = (self.store.clone(), queue.clone());
        let record = tokio::task::spawn_blocking(move || store.queue(&key)).await;
        let Ok(Ok(Some(record))) = record else { return };
        let now_unix_ms = clock::unix_ms();
        let write =
            QueueWrite::Settle { queue, pushes: record.pushes, document: None, now_unix_ms };
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
        let document =
            heat::in_force(cloud, queue.project(), record.server_id.as_deref(), &documents)
                .map_err(|error| match error {
                    AskError::Transient(why) => Unknown::Later(why),
                    AskError::Final(why) => Unknown::Never(why),
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

/// From 0 to 1.
pub(crate) fn jitter() -> f64 {
    let mut byte = [0];
    // Without randomness all ask at once, which is bad luck and no fault.
    let filled = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut byte);
    if filled.is_ok() { f64::from(byte[0]) / 255.0 } else { 0.5 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(name: &str) -> QueueKey {
        QueueKey::new("p", name).unwrap()
    }

    #[test]
    fn a_burst_is_asked_about_once_when_it_is_over() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut agenda = Agenda::default();
        for ms in [0, 200, 400] {
            agenda.note(queue("a"), at(ms), 0.0);
            assert_eq!(agenda.take_due(at(ms)), []);
        }
        assert_eq!(agenda.next(), Some(at(900)));
        assert_eq!(agenda.take_due(at(899)), []);
        assert_eq!(agenda.take_due(at(900)), [(queue("a"), 0)]);
        assert_eq!(agenda.next(), None);
    }

    #[test]
    fn pushes_without_end_put_the_question_off_for_a_while_only() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut agenda = Agenda::default();
        for step in 0..50 {
            agenda.note(queue("a"), at(step * 100), 1.0);
        }
        assert_eq!(agenda.next(), Some(at(5_000)));
    }

    #[test]
    fn questions_are_spread_and_repeated_with_back_off_and_given_up() {
        let start = Instant::now();
        let mut agenda = Agenda::default();
        agenda.note(queue("a"), start, 0.0);
        agenda.note(queue("b"), start, 1.0);
        assert_eq!(agenda.take_due(start + QUIET), [(queue("a"), 0)]);
        assert_eq!(agenda.take_due(start + QUIET * 2), [(queue("b"), 0)]);
        let mut waits = Vec::new();
        for tries in 1..TRIES_MAX {
            assert!(agenda.retry(queue("a"), tries, start, 0.0));
            waits.push((agenda.next().unwrap() - start).as_secs());
            assert_eq!(agenda.take_due(start + Duration::from_secs(60)), [(queue("a"), tries)]);
        }
        assert_eq!(waits, [2, 4, 8]);
        assert!(!agenda.retry(queue("a"), TRIES_MAX, start, 0.0));
        assert_eq!(agenda.next(), None);
    }
}
