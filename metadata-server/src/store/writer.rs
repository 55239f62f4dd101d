//! The one thread that writes. All writes that wait go into one transaction with one fsync; each
//! caller is answered after it. So a busy server pays one fsync for many writes, and an idle one
//! answers after exactly one.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{mem, thread};

use certs::AgentId;

use super::{Outcome, Store, StoreError, Write};
use crate::clock;
use crate::log::Limiter;

/// Bytes of writes that may wait; more are refused with [`StoreError::Busy`].
pub const QUEUED_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Bytes of writes in one transaction.
const BATCH_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Writes in one transaction.
const BATCH_WRITES_MAX: usize = 4096;
/// How long writes that nobody waits for wait for others. A fleet confirms a document within a second or two, and
/// each transaction writes most of the pages that all of them are on.
const LINGER_MAX: Duration = Duration::from_secs(1);

type Done = Box<dyn FnOnce(Result<Outcome, StoreError>) + Send>;
type Job = (Write, Done);
/// Told every write that was done, after it is durable and before its caller is.
pub type Observer = Box<dyn FnMut(&Write, &Outcome) + Send>;

/// Hands writes to the thread. Cheap to clone.
#[derive(Clone)]
pub struct Writer {
    queue: Arc<Entrance>,
}

/// The thread, to be stopped once.
pub struct WriterThread {
    queue: Arc<Entrance>,
    thread: thread::JoinHandle<()>,
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(store: Store, observer: Observer) -> std::io::Result<(Self, WriterThread)> {
        let queue = Arc::new(Queue::default());
        let failures = Limiter::default();
        let worker = Worker { store, observer, queue: queue.clone(), failures };
        let queue = Arc::new(Entrance(queue));
        let thread =
            thread::Builder::new().name("store-writer".into()).spawn(move || worker.run())?;
        Ok((Self { queue: queue.clone() }, WriterThread { queue, thread }))
    }

    /// Queues a write; `done` is called on the writer's thread once it is durable or has failed, and
    /// must not block.
    pub fn submit(
        &self,
        write: Write,
        done: impl FnOnce(Result<Outcome, StoreError>) + Send + 'static,
    ) {
        self.queue.0.push(write, Box::new(done));
    }

    /// Writes, and returns when it is durable.
    ///
    /// # Errors
    /// Nothing was written.
    pub async fn write(&self, write: Write) -> Result<Outcome, StoreError> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        // A caller that has gone away changes nothing: the write is done all the same.
        self.submit(write, move |outcome| drop(answer.send(outcome)));
        answered.await.unwrap_or(Err(StoreError::Closed))
    }
}

impl WriterThread {
    /// Lets the thread finish what is queued, and waits for it.
    pub fn stop(self) {
        self.queue.0.stop();
        if self.thread.join().is_err() {
            tracing::error!("the store's writer thread panicked");
        }
    }
}

/// Whether nobody waits for it.
fn is_patient(write: &Write) -> bool {
    patient_agent(write).is_some()
}

/// The agent of a write that nobody waits for.
fn patient_agent(write: &Write) -> Option<&AgentId> {
    match write {
        Write::SaveAgent(record) => Some(&record.agent_id),
        Write::SaveStanding(agent, _) => Some(agent),
        _ => None,
    }
}

/// The writes that wait. Not a channel, because a channel wakes its receiver for each: here those that nobody waits
/// for wake nobody, and a fleet's confirmations cost neither thread a system call.
#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    /// Of the writes that are not done yet.
    bytes: usize,
    /// Among `jobs` is one that somebody waits for.
    urgent: bool,
    rest: Rest,
    /// No more will come, or are wanted.
    stop: bool,
    /// The thread takes no more.
    closed: bool,
}

/// What the thread waits for.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// Nothing: it works, or was woken.
    #[default]
    Awake,
    /// A write that somebody waits for, or many.
    Lingering,
    /// Any write.
    Idle,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, write: Write, done: Done) {
        let bytes = write.bytes();
        let mut state = self.state();
        if let Err(error) = state.admit(bytes) {
            drop(state);
            return done(Err(error));
        }
        state.urgent |= !is_patient(&write);
        state.jobs.push_back((write, done));
        let wake = match state.rest {
            Rest::Awake => false,
            Rest::Lingering => state.is_due(),
            Rest::Idle => true,
        };
        if wake {
            state.rest = Rest::Awake;
            drop(state);
            self.wake.notify_one();
        }
    }

    fn stop(&self) {
        self.state().stop = true;
        self.wake.notify_one();
    }

    /// Waits for writes and adds them to the backlog. False: it is time to stop, and nothing is left.
    fn take(&self, backlog: &mut VecDeque<Job>) -> bool {
        let mut state = self.state();
        if backlog.is_empty() {
            while state.jobs.is_empty() {
                if state.stop {
                    state.closed = true;
                    return false;
                }
                state.rest = Rest::Idle;
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            let until = clock::now() + LINGER_MAX;
            while let Some(left) = state.linger(until) {
                state.rest = Rest::Lingering;
                let woken = self.wake.wait_timeout(state, left);
                state = woken.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        state.rest = Rest::Awake;
        state.urgent = false;
        match backlog.is_empty() {
            true => mem::swap(backlog, &mut state.jobs),
            false => backlog.append(&mut state.jobs),
        }
        true
    }
}

impl State {
    fn admit(&mut self, bytes: usize) -> Result<(), StoreError> {
        if self.closed {
            return Err(StoreError::Closed);
        }
        let queued_bytes = self.bytes + bytes;
        if queued_bytes > QUEUED_BYTES_MAX {
            return Err(StoreError::Busy { queued_bytes, bytes_max: QUEUED_BYTES_MAX });
        }
        self.bytes = queued_bytes;
        Ok(())
    }

    fn is_due(&self) -> bool {
        self.urgent || self.stop || self.jobs.len() >= BATCH_WRITES_MAX
    }

    /// How long to wait for more of the writes that nobody waits for; none if there is somebody.
    fn linger(&self, until: Instant) -> Option<Duration> {
        let left = until.saturating_duration_since(clock::now());
        (!self.is_due() && !left.is_zero()).then_some(left)
    }
}

/// Of those who hand in writes. With the last of them the thread ends.
struct Entrance(Arc<Queue>);

impl Drop for Entrance {
    fn drop(&mut self) {
        self.0.stop();
    }
}

struct Worker {
    store: Store,
    observer: Observer,
    queue: Arc<Queue>,
    /// A full disk fails every write, and need not fill the log as well.
    failures: Limiter,
}

/// Also when it panics: nobody waits for a thread that is gone.
impl Drop for Worker {
    fn drop(&mut self) {
        let mut state = self.queue.state();
        state.closed = true;
        let left = mem::take(&mut state.jobs);
        drop(state);
        for (_, done) in left {
            done(Err(StoreError::Closed));
        }
    }
}

impl Worker {
    fn run(mut self) {
        let mut backlog = VecDeque::new();
        while self.queue.take(&mut backlog) {
            self.commit(&mut backlog);
        }
    }

    /// Commits as much of the backlog as fits one transaction, and answers.
    fn commit(&mut self, backlog: &mut VecDeque<Job>) {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some((write, _)) = backlog.front() {
            let more = write.bytes();
            let full = batch.len() >= BATCH_WRITES_MAX || bytes + more > BATCH_BYTES_MAX;
            if full && !batch.is_empty() {
                break;
            }
            bytes += more;
            batch.extend(backlog.pop_front());
        }
        let mut writes: Vec<&Write> = batch.iter().map(|(write, _)| write).collect();
        // Nobody sees in which order agents are done, all with the same answer; neighbours in the store cost half.
        if writes.iter().all(|write| is_patient(write)) {
            writes.sort_by_key(|write| patient_agent(write));
        }
        match self.store.commit(&writes) {
            Ok(outcomes) => {
                for ((write, done), outcome) in batch.into_iter().zip(outcomes) {
                    self.answer(&write, done, Ok(outcome));
                }
            }
            // One that does not fit must not fail the others: each on its own.
            Err(_) if batch.len() > 1 => {
                for (write, done) in batch {
                    let outcome = self
                        .store
                        .commit(&[&write])
                        .and_then(|mut outcomes| outcomes.pop().ok_or(StoreError::Closed));
                    self.answer(&write, done, outcome);
                }
            }
            Err(error) => {
                for (write, done) in batch {
                    self.answer(&write, done, Err(error.clone()));
                }
            }
        }
        let mut state = self.queue.state();
        state.bytes = state.bytes.saturating_sub(bytes);
    }

    fn answer(&mut self, write: &Write, done: Done, outcome: Result<Outcome, StoreError>) {
        match &outcome {
            Ok(outcome) => (self.observer)(write, outcome),
            Err(error) => {
                if let Some(suppressed) = self.failures.admit(clock::now(), error.code()) {
                    tracing::error!(%error, suppressed, "store write failed");
                }
            }
        }
        done(outcome);
    }
}

#[cfg(test)]
mod tests;
