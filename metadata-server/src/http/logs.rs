//! What an agent's hooks print while they run, line by line.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use certs::AgentId;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch as signal};

use super::lines::{LineSource, line, response};
use super::{Agent, ApiError};
use crate::clock;
use crate::hub::Follower;
use crate::hub::agent_log::{News, Seen, Standing};
use crate::notice::{Notice, Stamped};

/// How long an agent may take to answer somebody who does not follow.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a result waits for the last that its run has printed, which comes after it as a rule.
const LAST_WORDS_TIME_MAX: Duration = Duration::from_secs(2);
/// Results that wait for that; beyond, the oldest is told at once.
const RESULTS_HELD_MAX: usize = 64;

/// What is wanted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogsQuery {
    /// Only of this one: a config's id or name.
    deployment: Option<String>,
    /// Until the caller has enough. Otherwise what there is, once.
    #[serde(default)]
    follow: bool,
}

/// One line.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Event<'a> {
    /// Where the agent stands.
    Standing { agent_id: &'a AgentId, standing: Standing },
    /// What a run has printed.
    Log {
        agent_id: &'a AgentId,
        #[serde(flatten)]
        news: News,
    },
    /// All that there is was told.
    End { agent_id: &'a AgentId },
}

pub(super) async fn logs(
    State(state): State<super::State>,
    Agent(agent): Agent,
    query: Result<Query<LogsQuery>, axum::extract::rejection::QueryRejection>,
    stopping: signal::Receiver<bool>,
) -> Result<Response, ApiError> {
    let LogsQuery { deployment, follow } = query?.0;
    super::agents::known(&state, &agent).await?;
    let notices = state.inner.hub.watch();
    let gone = || ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "the server stops");
    let follower = state.inner.hub.follow(&agent).await.ok_or_else(gone)?;
    let mut follower = follower.map_err(|refused| {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_followers", refused.to_string())
            .with_hint("end another \"metadata-server logs\", and try again")
    })?;
    // What is there already is news as well.
    follower.log.mark_changed();
    let first = line(&json!({"unix_ms": clock::unix_ms(), "event": "watching"}));
    let source = Source {
        notices,
        stopping,
        deployment,
        ends_at: (!follow).then(|| clock::now() + ANSWER_TIME_MAX),
        follower,
        seen: Seen::default(),
        standing: None,
        results: VecDeque::new(),
        lines: VecDeque::new(),
        is_over: false,
    };
    Ok(response(first, source))
}

struct Source {
    follower: Follower,
    notices: broadcast::Receiver<Arc<Stamped>>,
    stopping: signal::Receiver<bool>,
    deployment: Option<String>,
    /// Of one that does not follow.
    ends_at: Option<Instant>,
    seen: Seen,
    /// What was told of the agent last.
    standing: Option<Standing>,
    /// Each until then.
    results: VecDeque<(Instant, Arc<Stamped>)>,
    lines: VecDeque<Bytes>,
    is_over: bool,
}

/// What there is to look at.
enum Woken {
    Log,
    Notice(Arc<Stamped>),
    Time,
}

impl LineSource for Source {
    async fn next(mut self) -> Option<(Bytes, Self)> {
        loop {
            self.tell_results(clock::now());
            if let Some(line) = self.lines.pop_front() {
                return Some((line, self));
            }
            if self.is_over {
                return None;
            }
            let result_due = self.results.front().map(|(until, _)| *until);
            let until = [self.ends_at, result_due].into_iter().flatten().min();
            let sleep = tokio::time::sleep_until(until.unwrap_or_else(clock::now).into());
            let woken = tokio::select! {
                _ = self.stopping.wait_for(|stop| *stop) => return None,
                changed = self.follower.log.changed() => match changed {
                    Ok(()) => Woken::Log,
                    Err(_) => return None,
                },
                received = self.notices.recv() => match received {
                    Ok(stamped) => Woken::Notice(stamped),
                    // What was missed tells nothing of the log.
                    Err(RecvError::Lagged(_)) => continue,
                    Err(RecvError::Closed) => return None,
                },
                () = sleep, if until.is_some() => Woken::Time,
            };
            match woken {
                Woken::Log => self.look(),
                Woken::Notice(stamped) => self.notice(stamped),
                Woken::Time => self.on_time(),
            }
        }
    }
}

impl Source {
    fn push(&mut self, event: &Event<'_>) {
        #[derive(Serialize)]
        struct Timed<'a> {
            unix_ms: u64,
            #[serde(flatten)]
            event: &'a Event<'a>,
        }
        self.lines.push_back(line(&Timed { unix_ms: clock::unix_ms(), event }));
    }

    fn is_wanted(&self, config_id: &str, name: &str) -> bool {
        self.deployment.as_deref().is_none_or(|wanted| wanted == config_id || wanted == name)
    }

    /// Tells what is new in the log.
    fn look(&mut self) {
        let Some(log) = self.follower.log.borrow_and_update().clone() else { return };
        let agent = self.follower.agent().clone();
        if self.standing != Some(log.standing) {
            self.standing = Some(log.standing);
            self.push(&Event::Standing { agent_id: &agent, standing: log.standing });
        }
        for news in log.news(&mut self.seen) {
            if self.is_wanted(&news.config_id, &news.name) {
                if news.ended {
                    self.last_words_of(&news.config_id);
                }
                self.push(&Event::Log { agent_id: &agent, news });
            }
        }
        if self.ends_at.is_some() && log.standing != Standing::Asked {
            self.push(&Event::End { agent_id: &agent });
            self.is_over = true;
        }
    }

    /// The run's result may be told once these are.
    fn last_words_of(&mut self, config_id: &str) {
        for (until, stamped) in &mut self.results {
            if matches!(&stamped.notice, Notice::ResultStored { config_id: id, .. } if id == config_id)
            {
                *until = clock::now();
            }
        }
    }

    fn notice(&mut self, stamped: Arc<Stamped>) {
        let Notice::ResultStored { agent_id, config_id, name, .. } = &stamped.notice else {
            return;
        };
        if agent_id == self.follower.agent() && self.is_wanted(config_id, name) {
            self.results.push_back((clock::now() + LAST_WORDS_TIME_MAX, stamped));
        }
    }

    fn tell_results(&mut self, now: Instant) {
        while let Some((until, _)) = self.results.front()
            && (*until <= now || self.results.len() > RESULTS_HELD_MAX)
            && let Some((_, stamped)) = self.results.pop_front()
        {
            self.lines.push_back(line(&*stamped));
        }
    }

    fn on_time(&mut self) {
        if self.ends_at.is_some_and(|at| at <= clock::now()) {
            self.is_over = true;
        }
    }
}
