//! Setting up the log, and keeping a flood out of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tracing_subscriber::EnvFilter;

use crate::config::{Config, LogFormat};
use crate::notice::Notice;
use crate::store::signals::SignalState;

/// Time in which one kind of line appears once.
const REPEAT_AFTER: Duration = Duration::from_secs(10);

/// Lines about agents of one kind in a second. When a fleet gets a document, or is back after an outage, the others are
/// counted in one line: a journal drops what comes faster, and then also what matters.
const AGENT_LINES_PER_S_MAX: u64 = 100;

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

/// Admits so many lines of a kind in a second, and says how many others there were.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    kinds: BTreeMap<&'static str, Second>,
}

#[derive(Debug)]
struct Second {
    ends: Instant,
    lines: u64,
}

impl Flow {
    /// Whether a line of this kind may appear now.
    fn admit(&mut self, now: Instant, kind: &'static str) -> bool {
        let ends = now + Duration::from_secs(1);
        let second = self.kinds.entry(kind).or_insert(Second { ends, lines: 0 });
        second.lines += 1;
        second.lines <= AGENT_LINES_PER_S_MAX
    }

    /// When [`Flow::end`] has something to do.
    pub(crate) fn next_end(&self) -> Option<Instant> {
        self.kinds.values().map(|second| second.ends).min()
    }

    /// Ends the seconds that are over; returns what kinds of lines were left out in them, and how many.
    fn end(&mut self, now: Instant) -> Vec<(&'static str, u64)> {
        let mut left_out = Vec::new();
        self.kinds.retain(|kind, second| {
            if second.ends <= now && second.lines > AGENT_LINES_PER_S_MAX {
                left_out.push((*kind, second.lines - AGENT_LINES_PER_S_MAX));
            }
            second.ends > now
        });
        left_out
    }

    /// Says what was left out in the seconds that are over.
    pub(crate) fn tell(&mut self, now: Instant) {
        for (kind, lines) in self.end(now) {
            tracing::info!(lines, "{kind}: more in one second than are shown");
        }
    }
}

/// What keeps a flood out of the log.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    /// Refusals can be caused by anybody who can send a datagram.
    refusals: Limiter,
    /// What happens to agents may happen to all of them at once.
    pub(crate) agents: Flow,
}

/// The step of an agent's life that there may be too many of for a line each.
fn agent_line(notice: &Notice) -> Option<&'static str> {
    Some(match notice {
        Notice::DocumentAccepted { .. } => "document accepted",
        Notice::AgentConnected { .. } => "agent connected",
        Notice::AgentDisconnected { .. } => "agent disconnected",
        Notice::DocumentDelivered { .. } => "document delivered",
        Notice::DocumentApplied { .. } => "document applied",
        Notice::ResultStored { .. } => "result stored",
        _ => return None,
    })
}

/// One line per step of an agent's life, as far as they do not come too fast.
pub(crate) fn notice(now: Instant, notice: &Notice, limits: &mut Limits) {
    if agent_line(notice).is_some_and(|kind| !limits.agents.admit(now, kind)) {
        return;
    }
    match notice {
        Notice::DocumentAccepted { agent_id, version, bytes, deployments, .. } => {
            tracing::info!(agent = %agent_id, version, bytes, deployments, "document accepted");
        }
        Notice::AgentConnected { agent_id, fingerprint, remote, software, enrolled } => {
            tracing::info!(agent = %agent_id, %fingerprint, remote, software, enrolled, "agent connected");
        }
        Notice::AgentRefused(refusal) => {
            let reason = refusal.reason.as_str();
            if let Some(suppressed) = limits.refusals.admit(now, reason) {
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

    #[test]
    fn when_a_fleet_gets_a_document_some_agents_have_a_line_and_the_others_are_counted() {
        let start = Instant::now();
        let mut flow = Flow::default();
        let lines = (0..10_000).filter(|_| flow.admit(start, "delivered")).count();
        assert_eq!(lines as u64, AGENT_LINES_PER_S_MAX);
        assert!(flow.admit(start, "accepted"), "another kind");
        let end = start + Duration::from_secs(1);
        assert_eq!(flow.next_end(), Some(end));
        assert!(flow.end(end - Duration::from_millis(1)).is_empty());
        assert_eq!(flow.end(end), [("delivered", 10_000 - AGENT_LINES_PER_S_MAX)]);
        assert_eq!(flow.next_end(), None);
        assert!(flow.admit(end, "delivered"));
    }
}
