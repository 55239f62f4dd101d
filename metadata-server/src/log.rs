//! Setting up the log, and keeping a flood out of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tracing_subscriber::EnvFilter;

use crate::clock;
use crate::config::{Config, LogFormat};
use crate::notice::Notice;
use crate::store::signals::SignalState;

/// Time in which one kind of line appears once.
const REPEAT_AFTER: Duration = Duration::from_secs(10);

/// Starts logging to stderr. A second call changes nothing.
pub fn start(config: &Config) {
    // The filter was checked when the configuration was read.
    let filter = EnvFilter::try_new(&config.log_filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let logger = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // An error means that there is a logger already, as in tests.
    drop(match config.log_format {
        LogFormat::Text => logger.with_ansi(false).with_target(false).try_init(),
        LogFormat::Json => logger.json().flatten_event(true).try_init(),
    });
}

/// Admits one line per kind in ten seconds, and counts the others.
#[derive(Debug, Default)]
pub(crate) struct Limiter {
    kinds: BTreeMap<&'static str, (Instant, u64)>,
}

impl Limiter {
    /// Whether a line of this kind may appear now; if so, how many were suppressed before it.
    pub(crate) fn admit(&mut self, now: Instant, kind: &'static str) -> Option<u64> {
        match self.kinds.get_mut(kind) {
            Some((last, suppressed)) if now.duration_since(*last) < REPEAT_AFTER => {
                *suppressed += 1;
                None
            }
            Some((last, suppressed)) => {
                *last = now;
                Some(std::mem::take(suppressed))
            }
            None => {
                self.kinds.insert(kind, (now, 0));
                Some(0)
            }
        }
    }
}

/// One line per step of an agent's life. Refusals can be caused by anybody who can send a datagram,
/// so they are limited.
pub(crate) fn notice(notice: &Notice, refusals: &mut Limiter) {
    match notice {
        Notice::DocumentAccepted { agent_id, version, bytes, deployments, .. } => {
            tracing::info!(agent = %agent_id, version, bytes, deployments, "document accepted");
        }
        Notice::AgentConnected { agent_id, fingerprint, remote, software, enrolled } => {
            tracing::info!(agent = %agent_id, %fingerprint, remote, software, enrolled, "agent connected");
        }
        Notice::AgentRefused(refusal) => {
            let reason = refusal.reason.as_str();
            if let Some(suppressed) = refusals.admit(clock::now(), reason) {
                tracing::warn!(
                    reason,
                    remote = refusal.remote,
                    seen = %refusal.fingerprint_seen,
                    message = refusal.message,
                    suppressed,
                    "agent refused"
                );
            }
        }
        Notice::AgentDisconnected { agent_id, remote, reason } => {
            tracing::info!(agent = %agent_id, remote, reason, "agent disconnected");
        }
        Notice::DocumentDelivered { agent_id, version, after_ms } => {
            tracing::info!(agent = %agent_id, version, after_ms, "document delivered");
        }
        Notice::DocumentRefused { agent_id, version, code, reason } => {
            tracing::warn!(agent = %agent_id, version, code, reason, "document refused by its agent");
        }
        Notice::Progress { agent_id, document_version, .. } => {
            tracing::debug!(agent = %agent_id, version = document_version, "progress");
        }
        Notice::DocumentApplied { agent_id, version } => {
            tracing::info!(agent = %agent_id, version, "document applied");
        }
        Notice::ResultStored {
            agent_id, number, config_id, status, deploy_status_code, ..
        } => {
            tracing::info!(
                agent = %agent_id, number, config_id, %status, deploy_status_code, "result stored"
            );
        }
        Notice::ResultDropped { agent_id, number, config_id } => {
            tracing::info!(agent = %agent_id, number, config_id, "result dropped to make room");
        }
        Notice::Signal { agent_id, number, config_id, signal } => {
            let attempts = signal.attempts;
            match &signal.state {
                SignalState::Sent { status, by, .. } => {
                    tracing::info!(agent = %agent_id, number, config_id, status, by, "signal sent");
                }
                SignalState::Waiting { next_unix_ms, reason } => {
                    let reason = reason.as_deref().unwrap_or_default();
                    tracing::warn!(agent = %agent_id, number, config_id, attempts, next_unix_ms, reason, "signal not taken, tried again");
                }
                SignalState::Refused { status, reason, .. } => {
                    tracing::error!(agent = %agent_id, number, config_id, attempts, status, reason, "signal refused");
                }
                SignalState::TooLate { status, reason, .. } => {
                    tracing::warn!(agent = %agent_id, number, config_id, attempts, status, reason, "signal came too late");
                }
                SignalState::None { reason } => {
                    tracing::debug!(agent = %agent_id, number, config_id, reason, "no signal");
                }
            }
        }
        Notice::ResultRefused { agent_id, name, reason } => {
            tracing::warn!(agent = %agent_id, name, reason, "result refused");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_line_appears_once_in_ten_seconds_with_the_count_of_the_others() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut limiter = Limiter::default();
        assert_eq!(limiter.admit(at(0), "a"), Some(0));
        assert_eq!(limiter.admit(at(1), "a"), None);
        assert_eq!(limiter.admit(at(1), "b"), Some(0), "another kind");
        assert_eq!(limiter.admit(at(9), "a"), None);
        assert_eq!(limiter.admit(at(10), "a"), Some(2));
        assert_eq!(limiter.admit(at(20), "a"), Some(0));
    }
}
