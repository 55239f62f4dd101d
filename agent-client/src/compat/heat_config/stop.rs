//! Being asked to end while a hook runs.

use std::convert::Infallible;
use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// The signals by which people and systemd end a program, or what stands for them within one.
#[derive(Debug)]
pub struct Stop {
    signals: Option<[(SignalKind, Signal); 3]>,
    told: Option<mpsc::Receiver<Infallible>>,
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
        let signals = [listen(interrupt)?, listen(terminate)?, listen(hangup)?];
        Ok(Self { signals: Some(signals), told: None })
    }

    /// They are somebody else's.
    #[must_use]
    pub fn never() -> Self {
        Self { signals: None, told: None }
    }

    /// They are somebody else's, who drops this to pass one on.
    #[must_use]
    pub fn when_dropped() -> (mpsc::Sender<Infallible>, Self) {
        let (sender, told) = mpsc::channel(1);
        (sender, Self { signals: None, told: Some(told) })
    }

    /// Waits for one of them; which it was. May be dropped while waiting.
    pub async fn asked(&mut self) -> i32 {
        if let Some(told) = &mut self.told {
            // Nothing is ever sent: this is the end.
            let _ = told.recv().await;
            return SignalKind::terminate().as_raw_value();
        }
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
