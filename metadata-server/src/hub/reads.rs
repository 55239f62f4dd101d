//! Reads of the store for the hub: many jobs, few tasks.
//!
//! When thousands of agents come back at once, a blocking task for each look into the store is hundreds of
//! threads that get in each other's way, and in that of the hub.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// Blocking tasks at a time. More than one, so that a large document holds nobody up.
const READERS_MAX: usize = 2;

type Job = Box<dyn FnOnce() + Send>;

/// The jobs that wait. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Reads {
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    readers: usize,
}

impl Reads {
    /// Has a job done on the blocking pool, after those that wait. Must be called within a runtime.
    pub(super) fn submit(&self, job: impl FnOnce() + Send + 'static) {
        {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.jobs.push_back(Box::new(job));
            if waiting.readers == READERS_MAX {
                return;
            }
            waiting.readers += 1;
        }
        let reader = Reader { reads: self.clone(), over: false };
        tokio::task::spawn_blocking(move || reader.run());
    }

    /// The next job; without one the reader that asked is over.
    fn next(&self) -> Option<Job> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let job = waiting.jobs.pop_front();
        if job.is_none() {
            waiting.readers -= 1;
        }
        job
    }
}

/// One of the tasks; gives its place up also when a job panics.
struct Reader {
    reads: Reads,
    over: bool,
}

impl Reader {
    fn run(mut self) {
        while let Some(job) = self.reads.next() {
            job();
        }
        self.over = true;
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if !self.over {
            self.reads.waiting.lock().unwrap_or_else(PoisonError::into_inner).readers -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn ten_thousand_agents_that_come_back_at_once_take_two_tasks_and_all_are_answered() {
        let reads = Reads::default();
        let (answers, answered) = mpsc::channel();
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        for _ in 0..2 {
            for number in 0..10_000 {
                let (answers, now, most) = (answers.clone(), now.clone(), most.clone());
                reads.submit(move || {
                    most.fetch_max(1 + now.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
                    std::thread::yield_now();
                    now.fetch_sub(1, Ordering::SeqCst);
                    answers.send(number).unwrap();
                });
            }
            let mut numbers: Vec<usize> = answered.iter().take(10_000).collect();
            numbers.sort_unstable();
            assert!(numbers.into_iter().eq(0..10_000));
        }
        assert!(most.load(Ordering::SeqCst) <= READERS_MAX);
        while Arc::strong_count(&reads.waiting) > 1 {
            std::thread::yield_now();
        }
        assert_eq!(reads.waiting.lock().unwrap().readers, 0, "each place is given up once");
    }

    #[tokio::test]
    async fn a_job_that_panics_takes_no_readers_place() {
        let reads = Reads::default();
        let (answers, answered) = mpsc::channel();
        for _ in 0..2 * READERS_MAX {
            let before = Arc::strong_count(&reads.waiting);
            reads.submit(|| panic!("as a job should not"));
            while Arc::strong_count(&reads.waiting) > before {
                std::thread::yield_now();
            }
        }
        reads.submit(move || answers.send(()).unwrap());
        answered.recv().unwrap();
    }
}
