//! Forgets what has expired: right after a start, since a server may never run for an hour, and then every
//! hour.

use std::time::Duration;

use crate::clock;
use crate::store::queues::{QueueOutcome, QueueWrite};
use crate::store::signals::{SignalOutcome, SignalWrite};
use crate::store::writer::Writer;
use crate::store::{Outcome, Write};

/// Time between two sweeps.
const SWEEP_EVERY: Duration = Duration::from_secs(3600);

/// Sweeps for as long as it is polled.
pub async fn sweep(writer: Writer) {
    loop {
        sweep_once(&writer).await;
        tokio::time::sleep(SWEEP_EVERY).await;
    }
}

/// What fails was logged by the writer, and is tried again the next time.
async fn sweep_once(writer: &Writer) {
    let mut from = None;
    loop {
        let write = QueueWrite::Sweep { from, now_unix_ms: clock::unix_ms() };
        match writer.write(Write::Queue(write)).await {
            Ok(Outcome::Queue(QueueOutcome::Swept(Some(next)))) => from = Some(next),
            _ => break,
        }
    }
    let mut from = Vec::new();
    loop {
        let write = SignalWrite::Sweep { from, now_unix_ms: clock::unix_ms() };
        match writer.write(Write::Signal(write)).await {
            Ok(Outcome::Signal(SignalOutcome::Swept(Some(next)))) => from = next,
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use super::*;
    use crate::store::{MemoryBackend, Store};

    #[tokio::test]
    async fn what_has_expired_is_forgotten_at_the_start_and_not_an_hour_later() {
        let store = Store::new(Arc::new(MemoryBackend::default())).unwrap();
        let make = QueueWrite::Make { queue: "p/old".parse().unwrap(), user: None, now_unix_ms: 1 };
        let (writer, thread) = Writer::start(store.clone(), Box::new(|_, _| {})).unwrap();
        writer.write(Write::Queue(make)).await.unwrap();
        let sweeping = tokio::spawn(sweep(writer));
        let deadline = Instant::now() + Duration::from_secs(20);
        while !store.find_queues(|_, _| true).unwrap().is_empty() {
            assert!(Instant::now() < deadline, "it is still there");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        sweeping.abort();
        thread.stop();
    }
}
