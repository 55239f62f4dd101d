//! The pins as the hub needs them: who owns a fingerprint, and what an agent may show.

use std::collections::{BTreeMap, HashMap};

use certs::{AgentId, Fingerprint};

/// Both directions of "this fingerprint belongs to this agent".
#[derive(Debug, Default)]
pub(super) struct Pins {
    owner: HashMap<Fingerprint, AgentId>,
    /// In ascending order; one as a rule.
    pinned: BTreeMap<AgentId, Vec<Fingerprint>>,
}

impl Pins {
    pub(super) fn add(&mut self, fingerprint: Fingerprint, agent: &AgentId) {
        self.remove(&fingerprint);
        self.owner.insert(fingerprint, agent.clone());
        let pinned = self.pinned.entry(agent.clone()).or_insert_with(|| Vec::with_capacity(1));
        if let Err(place) = pinned.binary_search(&fingerprint) {
            pinned.insert(place, fingerprint);
        }
    }

    pub(super) fn remove(&mut self, fingerprint: &Fingerprint) {
        let Some(agent) = self.owner.remove(fingerprint) else { return };
        if let Some(pinned) = self.pinned.get_mut(&agent) {
            pinned.retain(|other| other != fingerprint);
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
            .cloned()
            .unwrap_or_default()
    }
}
