//! The way of commands to the hub: whoever gives one wakes it, also from the rest it takes while much comes in.

use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::Duration;

use tokio::sync::mpsc;

use super::Command;

/// Commands that may wait for the hub.
const COMMANDS_QUEUED_MAX: usize = 1024;

/// Gives commands. Cheap to clone.
#[derive(Clone)]
pub(super) struct Commands {
    queue: mpsc::Sender<Command>,
    hub: Arc<OnceLock<Thread>>,
}

/// Takes commands.
pub(super) struct Inbox {
    pub(super) queue: mpsc::Receiver<Command>,
    hub: Arc<OnceLock<Thread>>,
}

pub(super) fn channel() -> (Commands, Inbox) {
    let (commands, queue) = mpsc::channel(COMMANDS_QUEUED_MAX);
    let hub = Arc::new(OnceLock::new());
    (Commands { queue: commands, hub: hub.clone() }, Inbox { queue, hub })
}

impl Commands {
    /// Waits for room. `None`: the hub has stopped.
    pub(super) async fn give(&self, command: Command) -> Option<()> {
        self.queue.send(command).await.ok()?;
        self.wake();
        Some(())
    }

    /// The same, outside of an event loop.
    pub(super) fn give_blocking(&self, command: Command) -> Option<()> {
        self.queue.blocking_send(command).ok()?;
        self.wake();
        Some(())
    }

    fn wake(&self) {
        if let Some(hub) = self.hub.get() {
            hub.unpark();
        }
    }
}

impl Inbox {
    /// From here on commands wake this thread.
    pub(super) fn belongs_here(&self) {
        // Set before means by this thread: there is one hub.
        drop(self.hub.set(thread::current()));
    }

    /// Rests, until a command comes at the latest.
    pub(super) fn rest(&self, time: Duration) {
        if self.queue.is_empty() {
            thread::park_timeout(time);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn a_command_wakes_the_hub_from_its_rest() {
        let (commands, inbox) = channel();
        inbox.belongs_here();
        let giver = thread::spawn(move || {
            let (answer, _) = oneshot::channel();
            commands.give_blocking(Command::Live(answer)).unwrap();
        });
        // Without it, the test never ends.
        while inbox.queue.is_empty() {
            inbox.rest(Duration::from_secs(3600));
        }
        giver.join().unwrap();
        inbox.rest(Duration::from_secs(3600));
    }
}
