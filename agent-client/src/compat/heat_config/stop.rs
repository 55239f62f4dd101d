//! Being asked to end while a hook runs.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals by which people and systemd end a program.
#[derive(Debug)]
pub struct Stop {
    signals: Option<[(SignalKind, Signal); 3]>,
}

impl Stop {
    /// From now on these signals are ours.
    ///
    /// # Errors
    /// The system refuses.
    pub fn listen() -> io::Result<Self> {
        let listen = |kind: SignalKind| Ok::<_, io::Error>((kind, signal(kind)?));
        let [interrupt, terminate, hangup] =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        Ok(Self { signals: Some([listen(interrupt)?, listen(terminate)?, listen(hangup)?]) })
    }

    /// They are somebody else's.
    #[must_use]
    pub fn never() -> Self {
        Self { signals: None }
    }

    /// Waits for one of them; which it was. May be dropped while waiting.
    pub async fn asked(&mut self) -> i32 {
        let Some([(a, on_a), (b, on_b), (c, on_c)]) = &mut self.signals else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = on_a.recv() => a.as_raw_value(),
            _ = on_b.recv() => b.as_raw_value(),
            _ = on_c.recv() => c.as_raw_value(),
        }
    }
}
