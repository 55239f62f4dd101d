//! The pins as the hub needs them: who owns a fingerprint, and what an agent may show.

use std::collections::{BTreeMap, BTreeSet};

use certs::{AgentId, Fingerprint};

/// Both directions of "this fingerprint belongs to this agent".
#[derive(Debug, Default)]
pub(super) struct Pins {
    owner: BTreeMap<Fingerprint, AgentId>,
    pinned: BTreeMap<AgentId, BTreeSet<Fingerprint>>,
}

impl Pins {
    pub(super) fn add(&mut self, fingerprint: Fingerprint, agent: &AgentId) {
        self.remove(&fingerprint);
        self.owner.insert(fingerprint, agent.clone());
        self.pinned.entry(agent.clone()).or_default().insert(fingerprint);
    }

    pub(super) fn remove(&mut self, fingerprint: &Fingerprint) {
        let Some(agent) = self.owner.remove(fingerprint) else { return };
        if let Some(pinned) = self.pinned.get_mut(&agent) {
            pinned.remove(fingerprint);
            if pinned.is_empty() {
                self.pinned.remove(&agent);
            }
        }
    }

    /// How many agents are known.
    pub(super) fn len(&self) -> usize {
        self.pinned.len()
    }

    pub(super) fn owner(&self, fingerprint: &Fingerprint) -> Option<&AgentId> {
        self.owner.get(fingerprint)
    }

    /// What is pinned for an agent id, which may be no id at all.
    pub(super) fn expected(&self, agent_id: &str) -> Vec<Fingerprint> {
        agent_id
            .parse()
            .ok()
            .and_then(|agent: AgentId| self.pinned.get(&agent))
            .map(|pinned| pinned.iter().copied().collect())
            .unwrap_or_default()
    }
}
