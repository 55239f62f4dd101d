//! What goes to and fro once an agent is accepted: documents out, progress and results in.

use metadata_delivery::Name;
use metadata_delivery::message::{
    DeploymentState, LOG, METADATA, Message, PROGRESS, PROTOCOL, RESULT_PREFIX, SIGNAL_PREFIX,
    Welcome, hello_name,
};

use super::follow::is_log_request;
use super::*;
use crate::store::{Dropped, Kept, StoreError, StoredDocument};

/// Agents that a server that was started again welcomes in a second with little trouble.
const RETURNS_PER_S: usize = 2000;
/// Agents spread over about a second by themselves.
const RETURN_MS_MIN: usize = 1000;

impl Core {
    pub(super) fn on_received(&mut self, moment: Moment, id: PeerId, document: Document) {
        if self.accepted(id).is_none() {
            return self.on_early(moment, id, document);
        }
        match document.name.as_str() {
            PROGRESS => self.on_progress(moment, id, &document),
            LOG => self.on_log(id, &document),
            name if name.starts_with(RESULT_PREFIX) => self.on_result(id, document),
            name if name.starts_with(SIGNAL_PREFIX) => self.on_signal(id, &document),
            // A repeated hello changes nothing.
            _ => self.actions.push_back(Action::Confirm(id, document.name, document.version)),
        }
    }

    pub(super) fn on_loaded(
        &mut self,
        moment: Moment,
        id: PeerId,
        loaded: Result<Loaded, StoreError>,
    ) {
        let Some(accepted) = self.accepted(id) else { return };
        let Loaded { applied_version, document } = match loaded {
            Ok(loaded) => loaded,
            Err(error) => {
                let reason = format!("the agent's document cannot be read: {error}");
                return self.close(moment, id, CloseCode::Internal, reason);
            }
        };
        let holds = accepted.holds;
        if let Some(holds) = holds {
            accepted.record.delivered_version.get_or_insert(holds.version);
            if applied_version == Some(holds.version) {
                accepted.record.applied_version.get_or_insert(holds.version);
            }
        }
        let save = accepted.record.clone();
        let agent = save.agent_id.clone();
        let overtook = accepted.overtook.take();
        self.actions.push_back(Action::SaveAgent(save));
        let mut held = None;
        let loaded = match (document, holds) {
            (LoadedDocument::Ahead, Some(holds)) => {
                self.keep_for_welcome(id, overtook);
                return self.actions.push_back(Action::RaiseVersion(id, agent, holds));
            }
            (LoadedDocument::Push(document), _) => Some(document),
            (LoadedDocument::Held, holds) => {
                held = holds;
                None
            }
            _ => None,
        };
        let newer = [loaded, overtook].into_iter().flatten().max_by_key(|d| d.head.version);
        let newer = newer.filter(|d| held.is_none_or(|held| d.head.version > held.version));
        let newest =
            newer.as_ref().map(|d| Holds { version: d.head.version, sha256: d.head.sha256 });
        if let Err(error) = self.welcome(id, newest.or(held)) {
            return self.close(moment, id, CloseCode::Internal, error.to_string());
        }
        if let Some(document) = newer {
            self.push(moment, id, document);
        }
        self.ask_for_log(&agent);
    }

    /// Says who we are and what the agent should hold.
    fn welcome(&mut self, id: PeerId, newest: Option<Holds>) -> Result<(), MessageError> {
        let keep_alive_s = self.settings.keep_alive.as_secs().max(1);
        let software = self.settings.software.clone();
        let return_within_ms = return_within_ms(self.pins.len());
        let Some(accepted) = self.accepted(id) else { return Ok(()) };
        let welcome = Welcome {
            protocol: PROTOCOL,
            software,
            agent_id: accepted.record.agent_id.to_string(),
            keep_alive_s: u32::try_from(keep_alive_s).unwrap_or(u32::MAX),
            newest,
            return_within_ms,
        };
        let document = welcome.to_document(HELLO_VERSION)?;
        accepted.welcomed = true;
        accepted.newest = newest.filter(|n| accepted.holds == Some(*n)).map_or(0, |n| n.version);
        self.actions.push_back(Action::Confirm(id, hello_name(), HELLO_VERSION));
        self.actions.push_back(Action::Offer(id, document));
        Ok(())
    }

    /// Keeps the newest document that was accepted before the welcome.
    fn keep_for_welcome(&mut self, id: PeerId, document: Option<StoredDocument>) {
        let (Some(accepted), Some(document)) = (self.accepted(id), document) else { return };
        let kept = accepted.overtook.as_ref().map(|kept| kept.head.version);
        if kept.is_none_or(|kept| kept < document.head.version) {
            accepted.overtook = Some(document);
        }
    }

    pub(super) fn on_document(&mut self, moment: Moment, agent: AgentId, document: StoredDocument) {
        let head = &document.head;
        self.actions.push_back(Action::Tell(Notice::DocumentAccepted {
            agent_id: agent.clone(),
            version: head.version,
            sha256: head.sha256,
            bytes: head.bytes,
            deployments: head.deployments,
        }));
        let Some(id) = self.connected.get(&agent).copied() else { return };
        if self.accepted(id).is_some_and(|accepted| accepted.welcomed) {
            self.push(moment, id, document);
        } else {
            self.keep_for_welcome(id, Some(document));
        }
    }

    /// Offers a document unless a newer one was offered: notices of commits and reads of the store
    /// overtake each other.
    fn push(&mut self, moment: Moment, id: PeerId, document: StoredDocument) {
        let Some(accepted) = self.accepted(id) else { return };
        let version = document.head.version;
        if version <= accepted.newest {
            return;
        }
        accepted.newest = version;
        accepted.sending = Some((version, moment.now));
        accepted.offered.push_back(Holds { version, sha256: document.head.sha256 });
        if accepted.offered.len() > OFFERED_REMEMBERED_MAX {
            accepted.offered.pop_front();
        }
        let held = accepted.holds.map(|holds| holds.sha256);
        let agent = accepted.record.agent_id.clone();
        self.actions.push_back(Action::Push { peer: id, agent, document, held });
    }

    pub(super) fn on_peer_stored(&mut self, moment: Moment, id: PeerId, name: &Name, version: u64) {
        if name.as_str() != METADATA {
            return;
        }
        let Some(accepted) = self.accepted(id) else { return };
        accepted.record.delivered_version = Some(version);
        accepted.record.seen_unix_ms = moment.unix_ms;
        accepted.holds = accepted.offered.iter().find(|o| o.version == version).copied();
        accepted.offered.retain(|offered| offered.version > version);
        let since = match accepted.sending {
            Some((sending, since)) if sending == version => {
                accepted.sending = None;
                since
            }
            // An older version, stored while a newer one was already offered.
            _ => moment.now,
        };
        let after_us = moment.now.duration_since(since).as_micros();
        let (agent_id, standing) = (accepted.record.agent_id.clone(), accepted.record.standing());
        self.actions.push_back(Action::Tell(Notice::DocumentDelivered {
            agent_id: agent_id.clone(),
            version,
            after_ms: after_us as f64 / 1000.0,
        }));
        self.actions.push_back(Action::SaveStanding(agent_id, standing));
    }

    pub(super) fn on_peer_refused(
        &mut self,
        id: PeerId,
        name: &Name,
        version: u64,
        code: u16,
        reason: String,
    ) {
        if is_log_request(name) {
            return self.on_log_refused(id, version);
        }
        if name.as_str() != METADATA {
            return;
        }
        let Some(accepted) = self.accepted(id) else { return };
        if accepted.sending.is_some_and(|(sending, _)| sending == version) {
            accepted.sending = None;
        }
        let agent_id = accepted.record.agent_id.clone();
        let notice = Notice::DocumentRefused { agent_id, version, code, reason };
        self.actions.push_back(Action::Tell(notice));
    }

    // Progress and results in.

    fn on_progress(&mut self, moment: Moment, id: PeerId, document: &Document) {
        let progress = match Progress::from_body(&document.body) {
            Ok(progress) => progress,
            Err(error) => return self.refuse_document(id, document, error.to_string()),
        };
        self.actions.push_back(Action::Confirm(id, document.name.clone(), document.version));
        let Some(accepted) = self.accepted(id) else { return };
        let version = progress.document_version;
        let ended = progress.deployments.iter().all(|d| has_ended(d.state));
        let newly_applied = ended && accepted.record.applied_version != Some(version);
        if newly_applied {
            accepted.record.applied_version = Some(version);
            accepted.record.seen_unix_ms = moment.unix_ms;
        }
        accepted.progress = Some(progress.clone());
        let (agent_id, standing) = (accepted.record.agent_id.clone(), accepted.record.standing());
        self.actions.push_back(Action::Tell(Notice::Progress {
            agent_id: agent_id.clone(),
            document_version: version,
            deployments: progress.deployments,
        }));
        if newly_applied {
            let told = Notice::DocumentApplied { agent_id: agent_id.clone(), version };
            self.actions.push_back(Action::Tell(told));
            self.actions.push_back(Action::SaveStanding(agent_id, standing));
        }
    }

    fn on_result(&mut self, id: PeerId, document: Document) {
        let result = match DeploymentResult::from_body(&document.body) {
            Ok(result) if result.name() == document.name => Arc::new(result),
            Ok(result) => {
                let reason = format!("it is the result of config {:?}", result.config_id);
                return self.refuse_document(id, &document, reason);
            }
            Err(error) => return self.refuse_document(id, &document, error.to_string()),
        };
        let Some(accepted) = self.accepted(id) else { return };
        let agent = accepted.record.agent_id.clone();
        self.actions.push_back(Action::SaveResult { peer: id, agent, document, result });
    }

    pub(super) fn refuse_document(&mut self, id: PeerId, document: &Document, reason: String) {
        let Some(accepted) = self.accepted(id) else { return };
        let agent_id = accepted.record.agent_id.clone();
        self.actions.push_back(Action::Tell(Notice::ResultRefused {
            agent_id,
            name: document.name.to_string(),
            reason: reason.clone(),
        }));
        self.actions.push_back(Action::Refuse {
            peer: id,
            name: document.name.clone(),
            version: document.version,
            code: REFUSED_MALFORMED,
            reason,
        });
    }
    pub(super) fn on_result_saved(
        &mut self,
        moment: Moment,
        id: PeerId,
        agent: AgentId,
        document: Document,
        result: Arc<DeploymentResult>,
        saved: Result<Kept, StoreError>,
    ) {
        match saved {
            Ok(Kept { number, is_new, dropped }) => {
                let Document { name, version, .. } = document;
                if let Some(accepted) = self.accepted(id) {
                    accepted.retry = STORE_RETRY_MIN;
                    self.actions.push_back(Action::Confirm(id, name, version));
                }
                // Stored is stored, and worth telling, even if the agent has gone meanwhile.
                for Dropped { number, config_id } in dropped {
                    let agent_id = agent.clone();
                    let notice = Notice::ResultDropped { agent_id, number, config_id };
                    self.actions.push_back(Action::Tell(notice));
                }
                if is_new {
                    self.actions.push_back(Action::Tell(Notice::ResultStored {
                        agent_id: agent,
                        number,
                        config_id: result.config_id.clone(),
                        name: result.name.clone(),
                        status: result.status,
                        deploy_status_code: result.deploy_status_code,
                        document_version: result.document_version,
                    }));
                }
            }
            // Not confirmed, so the agent keeps it, too. Should the connection end first, it is
            // offered again on the next one.
            Err(_) => {
                let Some(accepted) = self.accepted(id) else { return };
                let due = moment.now + accepted.retry;
                accepted.retry = (accepted.retry * 2).min(STORE_RETRY_MAX);
                // Only the newest version of one name can still be confirmed.
                accepted.unsaved.retain(|unsaved| unsaved.document.name != document.name);
                accepted.unsaved.push(Unsaved { due, document, result });
                self.arm_retry(id);
            }
        }
    }

    /// Hands out what could not be written, and whose time to be tried again has come.
    pub(super) fn retry(&mut self, moment: Moment, id: PeerId) {
        self.retry_signal(moment, id);
        let Some(accepted) = self.accepted(id) else { return };
        let agent = accepted.record.agent_id.clone();
        let due: Vec<Unsaved> = accepted.unsaved.extract_if(.., |u| u.due <= moment.now).collect();
        for Unsaved { document, result, .. } in due {
            let agent = agent.clone();
            self.actions.push_back(Action::SaveResult { peer: id, agent, document, result });
        }
        self.arm_retry(id);
    }

    pub(super) fn arm_retry(&mut self, id: PeerId) {
        let first = self.accepted(id).and_then(|accepted| {
            accepted
                .unsaved
                .iter()
                .map(|unsaved| unsaved.due)
                .chain(accepted.signals.retry_at)
                .min()
        });
        match first {
            Some(at) => self.arm(id, at),
            None => self.disarm(id),
        }
    }
}

/// How a fleet of so many is to be spread when it comes back. `None` for one that may as well come at once.
pub(super) fn return_within_ms(agents: usize) -> Option<u32> {
    let ms = agents.saturating_mul(1000) / RETURNS_PER_S;
    (ms > RETURN_MS_MIN).then(|| u32::try_from(ms).unwrap_or(u32::MAX))
}

/// Whether nothing more will happen to a deployment in this state.
fn has_ended(state: DeploymentState) -> bool {
    match state {
        DeploymentState::Complete
        | DeploymentState::Failed
        | DeploymentState::Interrupted
        | DeploymentState::Skipped => true,
        DeploymentState::Received | DeploymentState::Running | DeploymentState::Unknown => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fleet_is_spread_over_half_a_second_for_each_thousand_of_its_agents() {
        assert_eq!(return_within_ms(0), None);
        assert_eq!(return_within_ms(2_000), None, "they are spread as far as that by themselves");
        assert_eq!(return_within_ms(10_000), Some(5_000));
        assert_eq!(return_within_ms(usize::MAX), Some(u32::MAX));
    }
}
