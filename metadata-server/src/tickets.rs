//! The keys of session tickets: a new one each day, kept in the store so that agents resume after a
//! restart (docs/adr/0008).

use std::sync::Arc;
use std::time::Duration;

use dtls_channel::TicketKeys;

use crate::clock;
use crate::store::writer::Writer;
use crate::store::{Store, StoreError, TicketKeyRecord, Write};

/// A key seals tickets for so long.
const KEY_SEALS_MS: u64 = 24 * 3600 * 1000;
/// Keys that seal no more and still open: with one, a ticket is good for one to two days.
const OLD_KEYS: usize = 1;
/// What agents are told: for how long any ticket is good at least.
pub const TICKET_LIFETIME: Duration = Duration::from_millis(KEY_SEALS_MS);
/// Waits are no longer than this, because they do not count the time that a machine sleeps.
const WAIT_MS_MAX: u64 = 3600 * 1000;

/// The keys in use and when the newest was made.
pub struct Tickets {
    keys: Arc<TicketKeys>,
    made_unix_ms: u64,
}

/// What the age of the newest key asks for.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    /// Nothing for so long.
    In { wait_ms: u64 },
    /// A new key, and so many old ones kept.
    Rotate { keep: usize },
}

fn due(made_unix_ms: u64, now_unix_ms: u64) -> Due {
    // A clock that was set back says nothing about the age.
    let Some(age) = now_unix_ms.checked_sub(made_unix_ms) else {
        return Due::Rotate { keep: OLD_KEYS };
    };
    match age / KEY_SEALS_MS {
        0 => Due::In { wait_ms: (KEY_SEALS_MS - age).min(WAIT_MS_MAX) },
        periods if periods <= OLD_KEYS as u64 => Due::Rotate { keep: OLD_KEYS },
        _ => Due::Rotate { keep: 0 },
    }
}

impl Tickets {
    /// Takes the keys from the store, or makes the first one. Keys that cannot be read are given up:
    /// that costs full handshakes, nothing else.
    ///
    /// # Errors
    /// The store cannot be read, or there is no randomness.
    pub async fn open(store: &Store, writer: &Writer) -> anyhow::Result<Self> {
        let stored = store.ticket_keys()?.and_then(|record| {
            TicketKeys::from_bytes(&record.keys)
                .inspect_err(|error| tracing::warn!(%error, "ticket keys given up for new ones"))
                .ok()
                .map(|keys| (keys, record.made_unix_ms))
        });
        let mut tickets = match stored {
            Some((keys, made_unix_ms)) => Self { keys: Arc::new(keys), made_unix_ms },
            None => {
                let new =
                    Self { keys: Arc::new(TicketKeys::random()?), made_unix_ms: clock::unix_ms() };
                new.save(writer).await;
                new
            }
        };
        tickets.rotate_if_due(writer).await;
        Ok(tickets)
    }

    /// The keys, which change while they are in use.
    pub fn keys(&self) -> Arc<TicketKeys> {
        self.keys.clone()
    }

    /// Rotates the keys for as long as it is polled.
    pub async fn keep_fresh(mut self, writer: Writer) {
        loop {
            let wait_ms = self.rotate_if_due(&writer).await;
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        }
    }

    /// Returns how long nothing more is to do, in milliseconds.
    async fn rotate_if_due(&mut self, writer: &Writer) -> u64 {
        match due(self.made_unix_ms, clock::unix_ms()) {
            Due::In { wait_ms } => wait_ms,
            Due::Rotate { keep } => {
                match self.keys.rotate(keep) {
                    Ok(()) => {
                        self.made_unix_ms = clock::unix_ms();
                        tracing::info!("new key for session tickets");
                        self.save(writer).await;
                    }
                    Err(error) => tracing::error!(%error, "no new key for session tickets"),
                }
                WAIT_MS_MAX
            }
        }
    }

    /// Keys that are not saved are lost with the process, which costs full handshakes: no reason not
    /// to serve.
    async fn save(&self, writer: &Writer) {
        let record =
            TicketKeyRecord { made_unix_ms: self.made_unix_ms, keys: self.keys.to_bytes() };
        let saved: Result<_, StoreError> = writer.write(Write::SaveTicketKeys(record)).await;
        if let Err(error) = saved {
            tracing::warn!(%error, "agents will not resume after a restart: ticket keys not stored");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryBackend;

    const DAY_MS: u64 = KEY_SEALS_MS;

    #[test]
    fn a_key_seals_for_a_day_and_opens_for_one_more() {
        assert_eq!(due(5, 5), Due::In { wait_ms: WAIT_MS_MAX });
        assert_eq!(due(5, 5 + DAY_MS - 1), Due::In { wait_ms: 1 });
        assert_eq!(due(5, 5 + DAY_MS), Due::Rotate { keep: 1 });
        assert_eq!(due(5, 5 + 2 * DAY_MS), Due::Rotate { keep: 0 });
        assert_eq!(due(DAY_MS, 7), Due::Rotate { keep: 1 }, "the clock was set back");
    }

    #[tokio::test]
    async fn keys_are_the_same_after_a_restart_and_others_once_they_are_old() {
        let store = Store::new(Arc::new(MemoryBackend::default())).unwrap();
        let (writer, thread) = Writer::start(store.clone(), Box::new(|_, _| {})).unwrap();
        let open = || Tickets::open(&store, &writer);
        let first = open().await.unwrap().keys.to_bytes();
        assert_eq!(open().await.unwrap().keys.to_bytes(), first);
        let aged = TicketKeyRecord { made_unix_ms: clock::unix_ms() - DAY_MS, keys: first.clone() };
        writer.write(Write::SaveTicketKeys(aged)).await.unwrap();
        let rotated = open().await.unwrap().keys.to_bytes();
        assert!(rotated.len() > first.len(), "the old one is kept for a while");
        assert_eq!(open().await.unwrap().keys.to_bytes(), rotated);
        let damaged = TicketKeyRecord { made_unix_ms: clock::unix_ms(), keys: vec![9; 7].into() };
        writer.write(Write::SaveTicketKeys(damaged)).await.unwrap();
        assert_eq!(open().await.unwrap().keys.to_bytes().len(), first.len(), "a new one");
        thread.stop();
    }
}
