//! Asking Heat again and again, for servers whose Heat does not push (`POLL_SERVER_HEAT`).
//!
//! One stream of requests for all such agents in place of one poller in each instance. The agenda decides when
//! whom; it is sans-IO. What Heat says becomes a push only where it differs from what is in force.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use certs::AgentId;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::questions::{Questions, Timetable, jitter, sleep_until};
use super::{Access, AskError, Cloud, HeatSource, path_of};
use crate::clock;
use crate::document::ValidDocument;
use crate::metrics::Metrics;
use crate::store::writer::Writer;
use crate::store::{Store, StoreError, Write};

/// Questions under way at a time.
const QUESTIONS_MAX: usize = 4;
/// Whom Heat or Keystone has not known for so long is not asked about any more, before the next start.
const GONE_MAX: Duration = Duration::from_secs(24 * 3_600);
/// Longest wait after failures.
const BACK_OFF_MAX: Duration = Duration::from_secs(600);
/// Agents that may wait to be noted; the rest is found at the next start.
const NOTES_MAX: usize = 10_000;

/// When to ask for whom.
#[derive(Debug)]
struct Agenda {
    interval: Duration,
    due: Timetable<AgentId>,
    /// All agents that are asked for.
    failures: BTreeMap<AgentId, Failures>,
}

/// Questions since the last answer.
#[derive(Debug, Clone, Copy, Default)]
struct Failures {
    count: u32,
    /// When the first of them ended because somebody is not known.
    gone_since: Option<Instant>,
}

/// How a question has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Answered,
    Failed,
    /// The server, or its user, is not known.
    Gone,
}

impl Agenda {
    fn new(interval: Duration) -> Self {
        Self { interval, due: Timetable::default(), failures: BTreeMap::new() }
    }

    /// Asks for an agent from now on; `spread` from 0 to 1 says how much of an interval to wait at first.
    fn add(&mut self, agent: AgentId, now: Instant, spread: f64) {
        self.failures.insert(agent.clone(), Failures::default());
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

    fn has(&self, agent: &AgentId) -> bool {
        self.failures.contains_key(agent)
    }

    /// A question has ended; true if it was the last one, because the server is gone. `jitter` is from 0 to 1.
    fn ended(&mut self, agent: &AgentId, end: End, now: Instant, jitter: f64) -> bool {
        self.due.ended(agent);
        let Some(failures) = self.failures.get_mut(agent) else { return false };
        match end {
            End::Answered => *failures = Failures::default(),
            End::Failed | End::Gone => failures.count = (failures.count + 1).min(16),
        }
        if end == End::Gone {
            let since = *failures.gone_since.get_or_insert(now);
            if now.saturating_duration_since(since) >= GONE_MAX {
                self.remove(agent);
                return true;
            }
        }
        let wait = self.interval.saturating_mul(1 << failures.count);
        let wait = wait.min(BACK_OFF_MAX.max(self.interval));
        // What was added anew meanwhile is due as it was added.
        if !self.due.has(agent) {
            // From 0.8 to 1.2 of it, so that agents that were enrolled together drift apart.
            self.due.set(agent.clone(), now + wait.mul_f64(0.8 + 0.4 * jitter.clamp(0.0, 1.0)));
        }
        false
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
    known: Arc<Mutex<HashMap<AgentId, Access>>>,
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
        let poller = Self { store, writer, metrics, cloud, known: Arc::default() };
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
                    let end = poller.poll(&agent).await;
                    (agent, end)
                });
            }
            // Without room nothing begins before something has ended.
            let next = agenda.next().filter(|_| questions.has_room());
            tokio::select! {
                changed = inbox.recv() => match changed {
                    Some(agent) => {
                        self.forget(&agent);
                        match self.source(agent.clone()).await {
                            Some(_) => agenda.add(agent, clock::now(), 0.0),
                            None => agenda.remove(&agent),
                        }
                    }
                    None => return,
                },
                ended = questions.ended() => match ended {
                    Ok((agent, end)) => {
                        if agenda.ended(&agent, end, clock::now(), jitter()) {
                            tracing::warn!(
                                %agent,
                                "Heat has not known its server for a day; not polled for before the next \
                                 start or enrolment"
                            );
                        }
                        if !agenda.has(&agent) {
                            self.forget(&agent);
                        }
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

    /// Its token is of no use any more.
    fn forget(&self, agent: &AgentId) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(agent);
    }

    /// Asks once.
    async fn poll(&self, agent: &AgentId) -> End {
        let Some(source) = self.source(agent.clone()).await else { return End::Answered };
        let (poller, id) = (self.clone(), agent.clone());
        let asked = tokio::task::spawn_blocking(move || poller.ask(&id, &source)).await;
        let document = match asked {
            Ok(Ok(document)) => document,
            Ok(Err(error)) => {
                tracing::warn!(%agent, %error, "Heat cannot be polled; what is in force stays");
                self.metrics.count_poll(false);
                return if matches!(error, AskError::Gone(_)) { End::Gone } else { End::Failed };
            }
            Err(_) => return End::Failed,
        };
        self.metrics.count_poll(true);
        let Some(document) = document else { return End::Answered };
        let accepted_unix_ms = clock::unix_ms();
        let write = Write::PutDocument { agent: agent.clone(), document, accepted_unix_ms };
        // What fails here was logged by the writer; the next poll brings it again.
        match self.writer.write(write).await {
            Ok(_) => End::Answered,
            Err(_) => End::Failed,
        }
    }

    /// What Heat has for an agent, if that is not in force. Blocks.
    fn ask(&self, agent: &AgentId, source: &HeatSource) -> Result<Option<ValidDocument>, AskError> {
        let cloud =
            self.cloud.as_ref().ok_or_else(|| AskError::Final("keystone_url is not set".into()))?;
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(agent).cloned();
        let path = path_of(source);
        let response = match known.map(|access| cloud.get(&access, &path)) {
            // The token may have ended.
            None | Some(Err(AskError::Gone(_))) => {
                let access = cloud.enter(&source.user, &source.project_id)?;
                let response = cloud.get(&access, &path)?;
                let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
                known.insert(agent.clone(), access);
                response
            }
            Some(answered) => answered?,
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
    use std::sync::atomic::{AtomicU16, Ordering};

    use openstack_client::http::Trust;
    use openstack_client::testing::{Answer, HttpServer};
    use serde_json::json;

    use super::*;
    use crate::heat::Source;
    use crate::store::MemoryBackend;
    use crate::zaqar::keystone::Keystone;

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
        agenda.ended(&agent("a"), End::Answered, at(100), 0.5);
        assert_eq!(agenda.next(), Some(at(130)));
        for jitter in [0.0, 1.0] {
            assert_eq!(due(&mut agenda, at(136)), [agent("a")]);
            agenda.ended(&agent("a"), End::Answered, at(100), jitter);
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
        agenda.ended(&agent("a"), End::Failed, start, 0.5);
        assert_eq!(agenda.take_due(start), Some(agent("a")));
        agenda.remove(&agent("a"));
        agenda.ended(&agent("a"), End::Answered, start, 0.5);
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
            agenda.ended(&agent("a"), End::Failed, start, 0.5);
            waits.push((agenda.next().unwrap() - start).as_secs());
        }
        assert_eq!(waits, [60, 120, 240, 480, 600, 600, 600]);
        assert!(agenda.take_due(start + BACK_OFF_MAX).is_some());
        agenda.ended(&agent("a"), End::Answered, start, 0.5);
        assert_eq!((agenda.next().unwrap() - start).as_secs(), 30);
    }

    #[test]
    fn whom_heat_has_not_known_for_a_day_is_not_asked_about_any_more() {
        let start = Instant::now();
        let hours = |h: u64| start + Duration::from_secs(h * 3_600);
        let mut agenda = Agenda::new(Duration::from_secs(30));
        agenda.add(agent("a"), start, 0.0);
        for (hour, end, is_last) in [
            (1, End::Gone, false),
            (24, End::Gone, false),
            (25, End::Failed, false),
            (25, End::Answered, false),
            (26, End::Gone, false),
            (50, End::Failed, false),
            (50, End::Gone, true),
        ] {
            assert!(agenda.take_due(hours(hour)).is_some(), "{hour}");
            assert_eq!(agenda.ended(&agent("a"), end, hours(hour), 0.0), is_last, "{hour} {end:?}");
            // Whatever the wait was.
            if !is_last {
                agenda.due.set(agent("a"), hours(hour));
            }
        }
        assert!(!agenda.has(&agent("a")) && agenda.next().is_none());
    }

    #[test]
    fn a_token_is_asked_for_anew_only_where_it_is_not_taken() {
        let status = Arc::new(AtomicU16::new(200));
        let heat = status.clone();
        let server = HttpServer::start(move |asked| {
            let host = asked.header("host").unwrap();
            match (asked.method.as_str(), asked.target.as_str()) {
                ("POST", "/v3/auth/tokens") => {
                    let url = format!("http://{host}/heat");
                    let endpoint = json!({"interface": "public", "region_id": "one", "url": url});
                    let catalog = json!([{"type": "orchestration", "endpoints": [endpoint]}]);
                    let body = json!({"token": {"catalog": catalog}}).to_string();
                    Answer::new(201, body).header("X-Subject-Token", "token")
                }
                ("GET", "/heat/stacks/s/1/resources/server/metadata") => {
                    Answer::new(heat.load(Ordering::SeqCst), r#"{"metadata": {"deployments": []}}"#)
                }
                _ => Answer::new(404, "{}"),
            }
        });
        let tokens = || server.asked().iter().filter(|a| a.method == "POST").count();
        let section = json!({"user_id": "u", "password": "x", "project_id": "p", "stack_id": "s/1",
            "resource_name": "server", "region_name": "one"});
        let Ok(Source::Poll(source)) = Source::read(&json!({"heat": section})) else { panic!() };
        let keystone = Arc::new(Keystone::new(&server.url("/v3"), Trust::Machine, None));
        let store = Store::new(Arc::new(MemoryBackend::default())).unwrap();
        let (writer, thread) = Writer::start(store.clone(), Box::new(|_, _| {})).unwrap();
        let cloud = Some(Arc::new(Cloud::new(keystone, 1_000)));
        let (metrics, known) = (Arc::default(), Arc::default());
        let poller = Poller { store, writer, metrics, cloud, known };
        for (said, wanted, tokens_asked) in
            [(200, Ok(()), 1), (200, Ok(()), 1), (503, Err("Transient"), 1), (404, Err("Gone"), 2)]
        {
            status.store(said, Ordering::SeqCst);
            let asked = poller.ask(&agent("a"), &source);
            let asked = asked.map(drop).map_err(|error| format!("{error:?}"));
            match wanted {
                Ok(()) => assert_eq!(asked, Ok(())),
                Err(kind) => assert!(asked.unwrap_err().starts_with(kind)),
            }
            assert_eq!(tokens(), tokens_asked, "{said}");
        }
        poller.forget(&agent("a"));
        assert!(poller.known.lock().unwrap().is_empty());
        thread.stop();
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
