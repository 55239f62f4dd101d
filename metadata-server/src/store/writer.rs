//! The one thread that writes. All writes that wait go into one transaction with one fsync; each
//! caller is answered after it. So a busy server pays one fsync for many writes, and an idle one
//! answers after exactly one.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use super::{Outcome, Store, StoreError, Write};
use crate::clock;
use crate::log::Limiter;

/// Bytes of writes that may wait; more are refused with [`StoreError::Busy`].
pub const QUEUED_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Bytes of writes in one transaction.
const BATCH_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Writes in one transaction.
const BATCH_WRITES_MAX: usize = 4096;
/// How long writes that nobody waits for wait for others.
const LINGER_MAX: Duration = Duration::from_millis(50);

type Done = Box<dyn FnOnce(Result<Outcome, StoreError>) + Send>;
/// Told every write that was done, after it is durable and before its caller is.
pub type Observer = Box<dyn FnMut(&Write, &Outcome) + Send>;

enum Job {
    Write(Box<Write>, Done),
    Stop,
}

/// Hands writes to the thread. Cheap to clone.
#[derive(Clone)]
pub struct Writer {
    queue: mpsc::Sender<Job>,
    queued_bytes: Arc<AtomicUsize>,
}

/// The thread, to be stopped once.
pub struct WriterThread {
    queue: mpsc::Sender<Job>,
    thread: thread::JoinHandle<()>,
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(store: Store, observer: Observer) -> std::io::Result<(Self, WriterThread)> {
        let (queue, jobs) = mpsc::channel();
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let failures = Limiter::default();
        let worker = Worker { store, observer, jobs, queued_bytes: queued_bytes.clone(), failures };
        let thread =
            thread::Builder::new().name("store-writer".into()).spawn(move || worker.run())?;
        Ok((Self { queue: queue.clone(), queued_bytes }, WriterThread { queue, thread }))
    }

    /// Queues a write; `done` is called on the writer's thread once it is durable or has failed, and
    /// must not block.
    pub fn submit(
        &self,
        write: Write,
        done: impl FnOnce(Result<Outcome, StoreError>) + Send + 'static,
    ) {
        let bytes = write.bytes();
        let queued_bytes = self.queued_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if queued_bytes > QUEUED_BYTES_MAX {
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return done(Err(StoreError::Busy { queued_bytes, bytes_max: QUEUED_BYTES_MAX }));
        }
        if let Err(mpsc::SendError(Job::Write(_, done))) =
            self.queue.send(Job::Write(Box::new(write), Box::new(done)))
        {
            done(Err(StoreError::Closed));
        }
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
        // An error means that the thread has ended already.
        drop(self.queue.send(Job::Stop));
        if self.thread.join().is_err() {
            tracing::error!("the store's writer thread panicked");
        }
    }
}

/// Whether nobody waits for it.
fn is_patient(write: &Write) -> bool {
    matches!(write, Write::SaveAgent(_))
}

struct Worker {
    store: Store,
    observer: Observer,
    jobs: mpsc::Receiver<Job>,
    queued_bytes: Arc<AtomicUsize>,
    /// A full disk fails every write, and need not fill the log as well.
    failures: Limiter,
}

impl Worker {
    fn run(mut self) {
        let mut backlog: VecDeque<(Write, Done)> = VecDeque::new();
        loop {
            let mut stop = false;
            if backlog.is_empty() {
                match self.jobs.recv() {
                    Ok(Job::Write(write, done)) => backlog.push_back((*write, done)),
                    Ok(Job::Stop) | Err(_) => stop = true,
                }
            }
            while let Ok(job) = self.jobs.try_recv() {
                match job {
                    Job::Write(write, done) => backlog.push_back((*write, done)),
                    Job::Stop => stop = true,
                }
            }
            if !stop && backlog.iter().all(|(write, _)| is_patient(write)) {
                stop |= self.linger(&mut backlog);
            }
            while !backlog.is_empty() {
                self.commit(&mut backlog);
                if !stop {
                    break;
                }
            }
            if stop {
                return;
            }
        }
    }

    /// Collects more of the writes that nobody waits for, until one comes that somebody does. True: it is time to stop.
    fn linger(&self, backlog: &mut VecDeque<(Write, Done)>) -> bool {
        let until = clock::now() + LINGER_MAX;
        while backlog.len() < BATCH_WRITES_MAX {
            let left = until.saturating_duration_since(clock::now());
            match self.jobs.recv_timeout(left) {
                Ok(Job::Write(write, done)) => {
                    let is_patient = is_patient(&write);
                    backlog.push_back((*write, done));
                    if !is_patient {
                        break;
                    }
                }
                Ok(Job::Stop) => return true,
                Err(mpsc::RecvTimeoutError::Timeout) => break,
                Err(mpsc::RecvTimeoutError::Disconnected) => return true,
            }
        }
        false
    }

    /// Commits as much of the backlog as fits one transaction, and answers.
    fn commit(&mut self, backlog: &mut VecDeque<(Write, Done)>) {
        let mut writes = Vec::new();
        let mut waiting = Vec::new();
        let mut bytes = 0;
        while let Some((write, _)) = backlog.front() {
            let more = write.bytes();
            let full = writes.len() >= BATCH_WRITES_MAX || bytes + more > BATCH_BYTES_MAX;
            if full && !writes.is_empty() {
                break;
            }
            bytes += more;
            if let Some((write, done)) = backlog.pop_front() {
                writes.push(write);
                waiting.push(done);
            }
        }
        match self.store.commit(&writes) {
            Ok(outcomes) => {
                for ((write, done), outcome) in writes.iter().zip(waiting).zip(outcomes) {
                    self.answer(write, done, Ok(outcome));
                }
            }
            // One that does not fit must not fail the others: each on its own.
            Err(_) if writes.len() > 1 => {
                for (write, done) in writes.iter().zip(waiting) {
                    let outcome = self
                        .store
                        .commit(std::slice::from_ref(write))
                        .and_then(|mut outcomes| outcomes.pop().ok_or(StoreError::Closed));
                    self.answer(write, done, outcome);
                }
            }
            Err(error) => {
                for (write, done) in writes.iter().zip(waiting) {
                    self.answer(write, done, Err(error.clone()));
                }
            }
        }
        self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
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
