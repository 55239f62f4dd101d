//! Those who watch what an agent's hooks print: each has the newest state at hand, and is missed when it goes.

use std::collections::BTreeMap;
use std::sync::Arc;

use certs::AgentId;
use tokio::sync::{mpsc, watch};

use super::agent_log::AgentLog;
use super::core::Input;

/// Somebody who watches one agent's log, for as long as this lives.
#[derive(Debug)]
pub struct Follower {
    /// What there is, always the newest, once that is known; it ends when the hub does. Dropped before `left`: who has said that it has
    /// left counts no more.
    pub log: watch::Receiver<Option<Arc<AgentLog>>>,
    left: Left,
}

/// Says so when it is dropped.
struct Left {
    agent: AgentId,
    hub: mpsc::UnboundedSender<Input>,
}

impl std::fmt::Debug for Left {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Left").field(&self.agent).finish()
    }
}

impl Follower {
    /// Whose log it is.
    pub fn agent(&self) -> &AgentId {
        &self.left.agent
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        // An error means that the hub has stopped.
        drop(self.hub.send(Input::Unfollowed(self.agent.clone())));
    }
}

/// The newest state of each log that is watched.
#[derive(Debug, Default)]
pub(super) struct Followers(BTreeMap<AgentId, watch::Sender<Option<Arc<AgentLog>>>>);

impl Followers {
    /// One more, of whom the core knows already.
    pub(super) fn add(&mut self, agent: AgentId, hub: mpsc::UnboundedSender<Input>) -> Follower {
        let sender = self.0.entry(agent.clone()).or_default();
        Follower { log: sender.subscribe(), left: Left { agent, hub } }
    }

    pub(super) fn show(&mut self, agent: &AgentId, log: Arc<AgentLog>) {
        if let Some(sender) = self.0.get(agent) {
            sender.send_replace(Some(log));
        }
    }

    /// Nobody watched it any more when the core said so; somebody may again by now.
    pub(super) fn hide(&mut self, agent: &AgentId) {
        if self.0.get(agent).is_some_and(|sender| sender.receiver_count() == 0) {
            self.0.remove(agent);
        }
    }
}
