//! Watching what an agent's hooks print: the agent is asked while somebody does, and told once nobody does.
//!
//! ```text
//!              connected            answers
//!      Away ─────────────▶ Asked ─────────────▶ Answered
//!       ▲                    │ refuses
//!       │                    └──────▶ Unable
//!       └── gone, from any of these
//! ```

use std::collections::BTreeMap;

use metadata_delivery::Name;
use metadata_delivery::message::{LOG_REQUEST, Log, LogPosition, LogRequest, Message};

use super::*;
use crate::hub::agent_log::{AgentLog, Standing};

/// Agents whose logs are watched at a time.
pub const FOLLOWED_AGENTS_MAX: usize = 64;
/// Those who may watch one agent's at a time.
pub const FOLLOWERS_PER_AGENT_MAX: usize = 16;

/// Why a log cannot be watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotFollowed {
    /// Those of too many agents are.
    #[error("the logs of {FOLLOWED_AGENTS_MAX} agents are being watched, which is the limit")]
    TooManyAgents,
    /// Too many watch this agent's.
    #[error("{FOLLOWERS_PER_AGENT_MAX} are watching this agent's log, which is the limit")]
    TooManyFollowers,
}

/// Whose logs are watched.
#[derive(Debug, Default)]
pub(super) struct Follows {
    agents: BTreeMap<AgentId, Followed>,
    /// The newest request, over all agents and associations.
    last_request: u64,
}

#[derive(Debug, Default)]
struct Followed {
    followers: usize,
    request: u64,
    log: Arc<AgentLog>,
}

impl Core {
    /// Whether one more may watch an agent's log.
    ///
    /// # Errors
    /// A limit is reached.
    pub fn may_follow(&self, agent: &AgentId) -> Result<(), NotFollowed> {
        match self.follows.agents.get(agent) {
            Some(followed) if followed.followers >= FOLLOWERS_PER_AGENT_MAX => {
                Err(NotFollowed::TooManyFollowers)
            }
            None if self.follows.agents.len() >= FOLLOWED_AGENTS_MAX => {
                Err(NotFollowed::TooManyAgents)
            }
            _ => Ok(()),
        }
    }

    /// Agents whose logs are watched.
    pub fn followed(&self) -> usize {
        self.follows.agents.len()
    }

    pub(super) fn on_followed(&mut self, agent: AgentId) {
        let followed = self.follows.agents.entry(agent.clone()).or_default();
        followed.followers += 1;
        if followed.followers == 1 {
            self.ask_for_log(&agent);
        }
        self.show_log(&agent);
    }

    pub(super) fn on_unfollowed(&mut self, agent: &AgentId) {
        let Some(followed) = self.follows.agents.get_mut(agent) else { return };
        followed.followers = followed.followers.saturating_sub(1);
        if followed.followers > 0 {
            return;
        }
        let was_asked = matches!(followed.log.standing, Standing::Asked | Standing::Answered);
        self.follows.agents.remove(agent);
        self.actions.push_back(Action::HideLog(agent.clone()));
        if was_asked {
            self.request_log(agent, false, Vec::new());
        }
    }

    /// Asks a watched agent for what is not here, if it is connected.
    pub(super) fn ask_for_log(&mut self, agent: &AgentId) {
        let Some(followed) = self.follows.agents.get(agent) else { return };
        let has = followed.log.has();
        let request = self.request_log(agent, true, has);
        let Some(followed) = self.follows.agents.get_mut(agent) else { return };
        let log = Arc::make_mut(&mut followed.log);
        log.standing = match request {
            Some(request) => {
                followed.request = request;
                Standing::Asked
            }
            None => Standing::Away,
        };
        self.show_log(agent);
    }

    /// Returns the request's number; none if the agent cannot be asked now.
    fn request_log(&mut self, agent: &AgentId, wanted: bool, has: Vec<LogPosition>) -> Option<u64> {
        let id = self.connected.get(agent).copied()?;
        self.accepted(id).filter(|accepted| accepted.welcomed)?;
        let request = self.follows.last_request + 1;
        let message = LogRequest { request, wanted, has };
        let document = message.to_document(request).or_else(|_| {
            // Absurdly long ids: then it is told again what is here already.
            LogRequest { has: Vec::new(), ..message }.to_document(request)
        });
        let document = document.ok()?;
        self.follows.last_request = request;
        self.actions.push_back(Action::Offer(id, document));
        Some(request)
    }

    /// An agent's connection has ended.
    pub(super) fn log_cut_off(&mut self, agent: &AgentId) {
        if let Some(followed) = self.follows.agents.get_mut(agent) {
            Arc::make_mut(&mut followed.log).standing = Standing::Away;
            self.show_log(agent);
        }
    }

    pub(super) fn on_log_refused(&mut self, id: PeerId, version: u64) {
        let Some(accepted) = self.accepted(id) else { return };
        let agent = accepted.record.agent_id.clone();
        if let Some(followed) = self.follows.agents.get_mut(&agent)
            && followed.request == version
        {
            Arc::make_mut(&mut followed.log).standing = Standing::Unable;
            self.show_log(&agent);
        }
    }

    /// Nothing of it is durable, so it is confirmed at once; the next one comes no sooner.
    pub(super) fn on_log(&mut self, id: PeerId, document: &Document) {
        let Some(accepted) = self.accepted(id) else { return };
        let agent = accepted.record.agent_id.clone();
        if let Some(followed) = self.follows.agents.get_mut(&agent) {
            let log = match Log::from_body(&document.body) {
                Ok(log) => log,
                Err(error) => return self.refuse_document(id, document, error.to_string()),
            };
            if log.request == followed.request {
                let held = Arc::make_mut(&mut followed.log);
                held.take(log, held.standing == Standing::Asked);
                held.standing = Standing::Answered;
                self.show_log(&agent);
            }
        }
        self.actions.push_back(Action::Confirm(id, document.name.clone(), document.version));
    }

    fn show_log(&mut self, agent: &AgentId) {
        if let Some(followed) = self.follows.agents.get(agent) {
            self.actions.push_back(Action::ShowLog(agent.clone(), followed.log.clone()));
        }
    }
}

#[cfg(test)]
impl Core {
    pub(super) fn follows_request(&self, agent: &AgentId) -> u64 {
        self.follows.agents.get(agent).map_or(0, |followed| followed.request)
    }

    pub(super) fn follows_standing(&self, agent: &AgentId) -> Option<Standing> {
        self.follows.agents.get(agent).map(|followed| followed.log.standing)
    }
}

/// Whether this is the name of a request for a log.
pub(super) fn is_log_request(name: &Name) -> bool {
    name.as_str() == LOG_REQUEST
}
