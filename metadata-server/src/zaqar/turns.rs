//! Whose body is read and parsed: so many at a time, and only a few of one project, so that no tenant can hold
//! all of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The turns there are.
pub(super) struct Turns {
    all: Arc<Semaphore>,
    of_project_max: usize,
    /// Of projects that have a turn or wait for one.
    projects: Mutex<HashMap<String, Arc<Semaphore>>>,
}

/// A turn, until it is dropped.
pub(super) struct Turn {
    _permits: [Option<OwnedSemaphorePermit>; 2],
}

impl Turns {
    /// So many, and so many of one project.
    pub(super) fn new(all_max: usize, of_project_max: usize) -> Self {
        let all = Arc::new(Semaphore::new(all_max));
        Self { all, of_project_max, projects: Mutex::default() }
    }

    /// Waits for a turn of a project.
    pub(super) async fn take(&self, project: &str) -> Turn {
        let own = self.of_project(project);
        // First the project's: who waits for that keeps nobody else waiting. An error would mean that a
        // semaphore was closed, which nobody does.
        let own = own.acquire_owned().await.ok();
        let all = self.all.clone().acquire_owned().await.ok();
        Turn { _permits: [own, all] }
    }

    fn of_project(&self, project: &str) -> Arc<Semaphore> {
        let mut projects = self.projects.lock().unwrap_or_else(PoisonError::into_inner);
        // Turns and those who wait for one hold it too.
        projects.retain(|_, turns| Arc::strong_count(turns) > 1);
        let new = || Arc::new(Semaphore::new(self.of_project_max));
        projects.entry(project.to_owned()).or_insert_with(new).clone()
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn poll(turn: Pin<&mut impl Future<Output = Turn>>) -> Option<Turn> {
        match turn.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(turn) => Some(turn),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_project_that_holds_its_turns_leaves_those_of_others() {
        let turns = Turns::new(4, 2);
        let now = |project: &'static str| poll(pin!(turns.take(project)));
        let (first, second) = (now("a").unwrap(), now("a").unwrap());
        let mut waiting = (pin!(turns.take("a")), pin!(turns.take("a")));
        assert!(poll(waiting.0.as_mut()).is_none() && poll(waiting.1.as_mut()).is_none());
        let others = (now("b").unwrap(), now("c").unwrap());
        assert!(now("d").is_none(), "four in all");
        drop(others);
        assert!(now("d").is_some());
        drop(first);
        assert!(poll(waiting.0.as_mut()).is_some());
        drop(second);
    }

    #[test]
    fn projects_without_a_turn_are_forgotten() {
        let turns = Turns::new(4, 2);
        for number in 0..100 {
            drop(poll(pin!(turns.take(&number.to_string()))));
        }
        assert!(turns.projects.lock().unwrap().len() <= 1);
    }
}
