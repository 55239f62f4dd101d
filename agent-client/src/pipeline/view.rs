//! What the pipeline shows of itself: snapshots for the server and the status file.

use std::collections::BTreeMap;
use std::time::Duration;

use metadata_delivery::message::{DEPLOYMENTS_MAX, DeploymentProgress, DeploymentState, Progress};
use tokio::time::Instant;

use super::lanes::Wait;
use super::work::{Running, lane};
use super::{Pipeline, unix_ms};
use crate::document::{ConfigId, Entry};
use crate::journal::{Finished, State};
use crate::outcome::field;
use crate::status::{DeploymentStatus, DocumentStatus, SCHEMA, Status};
use crate::store::StoredDocument;

/// Snapshots are at least this far apart.
const SNAPSHOT_INTERVAL_MS: u64 = 100;

impl Pipeline {
    /// When a snapshot is due, if something changed since the last.
    pub(super) fn snapshot_timer(&self) -> Option<Instant> {
        let last = self.snapshot_at.filter(|_| self.snapshot_due)?;
        Some(last + Duration::from_millis(SNAPSHOT_INTERVAL_MS))
    }

    /// Publishes a snapshot if something changed and the last one is old enough.
    pub(super) fn publish(&mut self) {
        let now = Instant::now();
        if !self.snapshot_due || self.snapshot_timer().is_some_and(|at| now < at) {
            return;
        }
        self.snapshot_due = false;
        self.snapshot_at = Some(now);
        self.progress.send_replace(self.progress());
        if let Err(error) = self.status().write(&self.setup.status) {
            tracing::warn!(%error, file = %self.setup.status.display(), "status not written");
        }
    }

    /// Entries of the document in force and where they stand.
    pub(super) fn deployments(&self) -> Vec<(&Entry, DeploymentState)> {
        let entries = self.document.iter().flat_map(|document| &document.entries);
        entries.map(|entry| (entry, self.shown(entry).0)).collect()
    }

    fn shown(&self, entry: &Entry) -> (DeploymentState, u64) {
        match self.journal.states().get(&entry.id) {
            Some(state) => state.shown(),
            None => {
                let since = self.in_force().map_or(0, |stored| stored.received_unix_ms);
                (DeploymentState::Skipped, since)
            }
        }
    }

    /// The document in force, as it was stored.
    fn in_force(&self) -> Option<&StoredDocument> {
        let in_force = self.polled.as_ref().or(self.rolled_back_to.as_ref());
        let stored = in_force.or(self.stored.as_ref());
        stored.filter(|_| self.document.is_some())
    }

    fn progress(&self) -> Option<Progress> {
        let document = self.document.as_ref()?;
        let live = |entry: &Entry| {
            let running = self.running.iter().find(|running| running.entry().id == entry.id)?;
            let live = running.run.live();
            Some(running.redactor.redact_part(&live).into_owned()).filter(|live| !live.is_empty())
        };
        let deployments = document.entries.iter().take(DEPLOYMENTS_MAX).map(|entry| {
            let (state, since_unix_ms) = self.shown(entry);
            DeploymentProgress {
                id: entry.id.to_string(),
                name: field(&entry.name),
                group: field(&entry.group),
                state,
                since_unix_ms,
                output_tail: live(entry),
            }
        });
        Some(Progress { document_version: document.version, deployments: deployments.collect() })
    }

    /// What waiting entries of the document in force wait for, in words.
    pub(super) fn waited_for(&self) -> BTreeMap<&ConfigId, String> {
        let Some(document) = &self.document else { return BTreeMap::new() };
        let lanes_max = self.setup.limits.lanes_max;
        let words = |entry: &Entry, wait| {
            let place = match lane(entry).filter(|_| lanes_max > 1) {
                Some(lane) => format!(" in lane {lane:?}"),
                None if lanes_max > 1 => " among those without a lane".into(),
                None => String::new(),
            };
            let ahead = |entry: &Entry| format!("waits for {} ({}){place}", entry.name, entry.id);
            match wait {
                Wait::Step(ahead_at) => Some(ahead(&document.entries[self.steps[ahead_at]])),
                Wait::Run => {
                    let same = |r: &&Running| lanes_max <= 1 || lane(r.entry()) == lane(entry);
                    self.running.iter().find(same).map(|running| ahead(running.entry()))
                }
                Wait::Slot => Some(format!("waits for a free lane, {lanes_max} are at work")),
                Wait::None => None,
            }
        };
        let steps = self.steps.iter().map(|index| &document.entries[*index]);
        if self.is_held() {
            let why = "waits for the command of collect_config";
            return steps.map(|entry| (&entry.id, why.to_owned())).collect();
        }
        let waiting = steps.zip(self.waits(document));
        waiting.filter_map(|(entry, wait)| Some((&entry.id, words(entry, wait)?))).collect()
    }

    fn status(&self) -> Status {
        let live = self.facts().live;
        let (running, waited_for) =
            live.map(|live| (live.running, live.waits_for)).unwrap_or_default();
        let deployment = |entry: &Entry| {
            let running = running.get(&entry.id);
            let (state, since_unix_ms) = self.shown(entry);
            let journalled = self.journal.states().get(&entry.id);
            let (status_code, reason) = match journalled {
                Some(State::Finished(Finished { result, .. })) => {
                    (Some(result.deploy_status_code), result.reason.clone())
                }
                Some(State::Signalled(done)) => (Some(done.status_code), done.reason.clone()),
                _ => (None, None),
            };
            DeploymentStatus {
                id: entry.id.to_string(),
                name: entry.name.clone(),
                group: entry.group.clone(),
                state,
                since_unix_ms,
                status_code,
                reason,
                waits_for: waited_for.get(&entry.id).cloned(),
                timeout_unix_ms: running.and_then(|running| running.timeout_unix_ms),
                pid: running.map(|running| running.pid),
                lane: lane(entry).map(str::to_owned),
                rerun: journalled.map(State::run).filter(|run| *run > 1),
                result_stored: match journalled {
                    None => true,
                    Some(State::Signalled(done)) => !done.is_refused(),
                    Some(_) => false,
                },
                result_for_heat: matches!(journalled, Some(State::Finished(f)) if f.is_owed_to_heat()),
                result_refused: match journalled {
                    Some(State::Signalled(done)) => done.refused.clone(),
                    _ => None,
                },
                heat_refused: match journalled {
                    Some(State::Signalled(done)) => done.heat_refused.clone(),
                    Some(State::Finished(finished)) => finished.refused_by_heat().cloned(),
                    _ => None,
                },
            }
        };
        let entries = self.document.iter().flat_map(|document| &document.entries);
        let unsent = self.journal.states().iter().filter_map(|(_, state)| match state {
            State::Finished(finished) => Some(finished.is_owed_to_heat()),
            _ => None,
        });
        let unsent: Vec<bool> = unsent.collect();
        Status {
            schema: SCHEMA,
            software: crate::SOFTWARE.into(),
            pid: std::process::id(),
            running_since_unix_ms: Some(self.since_unix_ms),
            updated_unix_ms: unix_ms(),
            agent_id: self.setup.agent_id.clone().unwrap_or_default(),
            link: self.link.clone(),
            polling: self.polling.clone(),
            document: self.in_force().map(|stored| DocumentStatus {
                version: stored.version,
                sha256: stored.sha256.to_string(),
                received_unix_ms: stored.received_unix_ms,
                rolled_back_from: self.rolled_back_from(),
                is_polled: self.polled.is_some(),
            }),
            deployments: entries.map(deployment).collect(),
            results_waiting: unsent.len(),
            results_for_heat: unsent.iter().filter(|is_owed_to_heat| **is_owed_to_heat).count(),
            fault: self.fault.clone(),
        }
    }
}
