//! Asking Heat again and again, for servers whose Heat does not push (`POLL_SERVER_HEAT`).
//!
//! One stream of requests for all such agents in place of one poller in each instance. The agenda decides when
//! whom; it is sans-IO. What Heat says becomes a push only where it differs from what is in force.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use certs::AgentId;
use openstack_client::keystone::Session;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::questions::{Questions, Timetable, jitter, sleep_until};
use super::{AskError, Cloud, HeatSource, path_of};
use crate::clock;
use crate::document::ValidDocument;
use crate::metrics::Metrics;
use crate::store::writer::Writer;
use crate::store::{Store, StoreError, Write};

/// Questions under way at a time.
const QUESTIONS_MAX: usize = 4;
/// Longest wait after failures.
const BACK_OFF_MAX: Duration = Duration::from_secs(600);
/// Agents that may wait to be noted; the rest is found at the next start.
const NOTES_MAX: usize = 10_000;

/// When to ask for whom.
#[derive(Debug)]
struct Agenda {
    interval: Duration,
    due: Timetable<AgentId>,
    /// All agents that are asked for, with the questions since the last answer.
    failures: BTreeMap<AgentId, u32>,
}

impl Agenda {
    fn new(interval: Duration) -> Self {
        Self { interval, due: Timetable::default(), failures: BTreeMap::new() }
    }

    /// Asks for an agent from now on; `spread` from 0 to 1 says how much of an interval to wait at first.
    fn add(&mut self, agent: AgentId, now: Instant, spread: f64) {
        self.failures.insert(agent.clone(), 0);
        self.due.set(agent, now + self.interval.mul_f64(spread.clamp(0.0, 1.0)));
    }

    fn remove(&mut self, agent: &AgentId) {
        self.failures.remove(agent);
        self.due.remove(agent);
    }

    /// An agent that is due. Until its question has ended it is not due again.
    fn take_due(&mut self, now: Instant) -> Option<AgentId> {
        self.due.take(now)
    }

    /// Heat has answered, or not; `jitter` is from 0 to 1.
    fn ended(&mut self, agent: &AgentId, is_answered: bool, now: Instant, jitter: f64) {
        self.due.ended(agent);
        let Some(failures) = self.failures.get_mut(agent) else { return };
        *failures = if is_answered { 0 } else { (*failures + 1).min(16) };
        let wait = self.interval.saturating_mul(1 << *failures);
        let wait = wait.min(BACK_OFF_MAX.max(self.interval));
        // What was added anew meanwhile is due as it was added.
        if !self.due.has(agent) {
            // From 0.8 to 1.2 of it, so that agents that were enrolled together drift apart.
            self.due.set(agent.clone(), now + wait.mul_f64(0.8 + 0.4 * jitter.clamp(0.0, 1.0)));
        }
    }

    fn next(&self) -> Option<Instant> {
        self.due.next()
    }
}

/// The way to the task. Cheap to clone.
#[derive(Clone)]
pub struct PollHandle(mpsc::Sender<AgentId>);

impl PollHandle {
    /// An agent's source was stored, or removed.
    pub(crate) fn changed(&self, agent: AgentId) {
        // Full: the next start finds it.
        if self.0.try_send(agent).is_err() {
            tracing::warn!("too many agents wait to be polled for");
        }
    }
}

/// What the task works with.
#[derive(Clone)]
pub struct Poller {
    store: Store,
    writer: Writer,
    metrics: Arc<Metrics>,
    cloud: Option<Arc<Cloud>>,
    sessions: Arc<Mutex<HashMap<AgentId, Session>>>,
}

impl Poller {
    /// Starts the task for all sources in the store. It ends when the last handle is dropped.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn start(
        store: Store,
        writer: Writer,
        metrics: Arc<Metrics>,
        cloud: Option<Arc<Cloud>>,
        interval: Duration,
    ) -> anyhow::Result<(PollHandle, JoinHandle<()>)> {
        let (notes, inbox) = mpsc::channel(NOTES_MAX);
        let mut agenda = Agenda::new(interval);
        for agent in store.heat_sources()? {
            agenda.add(agent, clock::now(), jitter());
        }
        let poller = Self { store, writer, metrics, cloud, sessions: Arc::default() };
        let task = tokio::spawn(poller.run(agenda, inbox));
        Ok((PollHandle(notes), task))
    }

    async fn run(self, mut agenda: Agenda, mut inbox: mpsc::Receiver<AgentId>) {
        let mut questions = Questions::new(QUESTIONS_MAX);
        loop {
            while questions.has_room()
                && let Some(agent) = agenda.take_due(clock::now())
            {
                let poller = self.clone();
                questions.begin(async move {
                    let is_answered = poller.poll(&agent).await;
                    (agent, is_answered)
                });
            }
            // Without room nothing begins before something has ended.
            let next = agenda.next().filter(|_| questions.has_room());
            tokio::select! {
                changed = inbox.recv() => match changed {
                    Some(agent) => match self.source(agent.clone()).await {
                        Some(_) => agenda.add(agent, clock::now(), 0.0),
                        None => agenda.remove(&agent),
                    },
                    None => return,
                },
                ended = questions.ended() => match ended {
                    Ok((agent, is_answered)) => {
                        agenda.ended(&agent, is_answered, clock::now(), jitter());
                    }
                    Err(error) => {
                        tracing::error!(%error, "a question to Heat failed");
                        return;
                    }
                },
                () = sleep_until(next) => {}
            }
        }
    }

    async fn source(&self, agent: AgentId) -> Option<HeatSource> {
        let store = self.store.clone();
        let read = tokio::task::spawn_blocking(move || store.heat_source(&agent)).await;
        read.ok()?.ok()?
    }

    /// Asks once; whether there was an answer.
    async fn poll(&self, agent: &AgentId) -> bool {
        let Some(source) = self.source(agent.clone()).await else { return true };
        let (poller, id) = (self.clone(), agent.clone());
        let asked = tokio::task::spawn_blocking(move || poller.ask(&id, &source)).await;
        let document = match asked {
            Ok(Ok(document)) => document,
            Ok(Err(error)) => {
                tracing::warn!(%agent, %error, "Heat cannot be polled; what is in force stays");
                self.metrics.count_poll(false);
                return false;
            }
            Err(_) => return false,
        };
        self.metrics.count_poll(true);
        let Some(document) = document else { return true };
        let accepted_unix_ms = clock::unix_ms();
        let write = Write::PutDocument { agent: agent.clone(), document, accepted_unix_ms };
        // What fails here was logged by the writer; the next poll brings it again.
        self.writer.write(write).await.is_ok()
    }

    /// What Heat has for an agent, if that is not in force. Blocks.
    fn ask(&self, agent: &AgentId, source: &HeatSource) -> Result<Option<ValidDocument>, AskError> {
        let cloud =
            self.cloud.as_ref().ok_or_else(|| AskError::Final("keystone_url is not set".into()))?;
        let known =
            self.sessions.lock().unwrap_or_else(PoisonError::into_inner).get(agent).cloned();
        let region = source.user.region.as_deref();
        let path = path_of(source);
        let response = match known.map(|session| cloud.get(&session, region, &path)) {
            Some(Ok(response)) => response,
            // The token may have ended.
            None | Some(Err(_)) => {
                let session = cloud.sign_in(&source.user, &source.project_id)?;
                let response = cloud.get(&session, region, &path)?;
                let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
                sessions.insert(agent.clone(), session);
                response
            }
        };
        let in_force = self
            .store
            .document(agent)
            .map_err(|error: StoreError| AskError::Transient(error.to_string()))?;
        changed(&response.body, in_force.as_ref().map(|d| &*d.body), cloud.document_bytes_max)
    }
}

/// The document in an answer of Heat, unless it says what is in force.
fn changed(
    answer: &[u8],
    in_force: Option<&[u8]>,
    bytes_max: usize,
) -> Result<Option<ValidDocument>, AskError> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow)]
        metadata: &'a RawValue,
    }
    let answer: Answer<'_> = serde_json::from_slice(answer)
        .map_err(|_| AskError::Transient("Heat's answer has no \"metadata\"".into()))?;
    let bytes = answer.metadata.get().as_bytes();
    let value = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).ok();
    if in_force.is_some_and(|held| held == bytes || value(held) == value(bytes)) {
        return Ok(None);
    }
    ValidDocument::check(bytes::Bytes::copy_from_slice(bytes), bytes_max)
        .map(Some)
        .map_err(|error| AskError::Final(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(id: &str) -> AgentId {
        id.parse().unwrap()
    }

    #[test]
    fn agents_are_asked_for_at_the_interval_spread_and_one_question_at_a_time_each() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut agenda = Agenda::new(Duration::from_secs(30));
        agenda.add(agent("a"), start, 0.0);
        agenda.add(agent("b"), start, 0.5);
        let due = |agenda: &mut Agenda, now| -> Vec<_> {
            std::iter::from_fn(|| agenda.take_due(now)).collect()
        };
        assert_eq!(due(&mut agenda, start), [agent("a")]);
        assert_eq!(due(&mut agenda, at(15)), [agent("b")]);
        assert_eq!(due(&mut agenda, at(10_000)), [], "both are being asked");
        agenda.ended(&agent("a"), true, at(100), 0.5);
        assert_eq!(agenda.next(), Some(at(130)));
        for jitter in [0.0, 1.0] {
            assert_eq!(due(&mut agenda, at(136)), [agent("a")]);
            agenda.ended(&agent("a"), true, at(100), jitter);
            assert_eq!(agenda.next(), Some(at(if jitter < 0.5 { 124 } else { 136 })));
        }
        agenda.remove(&agent("a"));
        agenda.remove(&agent("b"));
        assert_eq!(agenda.next(), None);
    }

    #[test]
    fn what_changes_during_a_question_is_asked_about_at_its_end() {
        let start = Instant::now();
        let mut agenda = Agenda::new(Duration::from_secs(30));
        agenda.add(agent("a"), start, 0.0);
        assert_eq!(agenda.take_due(start), Some(agent("a")));
        agenda.add(agent("a"), start, 0.0);
        assert_eq!(agenda.take_due(start), None, "one question at a time");
        agenda.ended(&agent("a"), false, start, 0.5);
        assert_eq!(agenda.take_due(start), Some(agent("a")));
        agenda.remove(&agent("a"));
        agenda.ended(&agent("a"), true, start, 0.5);
        assert_eq!(agenda.next(), None, "it is not to be asked about any more");
    }

    #[test]
    fn failures_back_off_to_ten_minutes_and_an_answer_ends_that() {
        let start = Instant::now();
        let mut agenda = Agenda::new(Duration::from_secs(30));
        agenda.add(agent("a"), start, 0.0);
        let mut waits = Vec::new();
        for _ in 0..7 {
            assert!(agenda.take_due(start + BACK_OFF_MAX).is_some());
            agenda.ended(&agent("a"), false, start, 0.5);
            waits.push((agenda.next().unwrap() - start).as_secs());
        }
        assert_eq!(waits, [60, 120, 240, 480, 600, 600, 600]);
        assert!(agenda.take_due(start + BACK_OFF_MAX).is_some());
        agenda.ended(&agent("a"), true, start, 0.5);
        assert_eq!((agenda.next().unwrap() - start).as_secs(), 30);
    }

    #[test]
    fn what_says_the_same_is_no_change_however_it_is_written() {
        let held = br#"{"deployments": [], "a": 1}"#;
        let say = |text: &str| changed(text.as_bytes(), Some(held), 1_000).unwrap();
        assert_eq!(say(r#"{"metadata": {"deployments": [], "a": 1}}"#), None);
        assert_eq!(say(r#"{"metadata": {"a":1,"deployments":[]}}"#), None);
        let new = say(r#"{"metadata": {"deployments": [],  "a": 2.50}}"#).unwrap();
        assert_eq!(&new.body()[..], br#"{"deployments": [],  "a": 2.50}"#, "byte for byte");
        assert!(changed(b"{}", None, 1_000).is_err());
        assert!(changed(br#"{"metadata": []}"#, None, 1_000).is_err());
    }
}
