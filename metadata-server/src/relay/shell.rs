//! The relay's task and threads.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use certs::AgentId;
use openstack_client::http::{Client, Method, Request, Trust, without_secrets};
use openstack_client::signal::{Failed, Transport, attempt};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::core::{Core, Verdict};
use super::plan::{InForce, Plan, plan, refusal, signal_data};
use super::{ATTEMPT_TIME_MAX, Parts, THREADS};
use crate::clock;
use crate::log;
use crate::metrics::Metrics;
use crate::notice::{Notice, Stamped};
use crate::store::signals::{SavedWait, Signal, SignalJob, SignalOf, SignalWrite};
use crate::store::writer::Writer;
use crate::store::{SavedResult, Store, StoreError, Write};

/// Largest answer that is read: none of them matters.
const RESPONSE_BYTES_MAX: u64 = 1 << 20;
/// How long to sleep when nothing is due: whatever comes wakes it.
const IDLE_MS: u64 = 3_600_000;
/// Longest reason that is kept, in characters.
const REASON_CHARS_MAX: usize = 500;

/// An attempt that has ended.
struct Ended {
    number: u64,
    stored_unix_ms: u64,
    /// Whose signal, and of which config; empty for a wait condition's.
    about: Option<(AgentId, String)>,
    verdict: Verdict,
}

enum Event {
    Ended(Ended),
    NotStored(u64, AgentId, Signal),
}

struct Shell {
    core: Core,
    writer: Writer,
    metrics: Arc<Metrics>,
    notices: broadcast::Sender<Arc<Stamped>>,
    work: Sender<u64>,
    events: mpsc::UnboundedSender<Event>,
    log: log::Limits,
}

pub(super) fn start(
    parts: Parts,
    mut inbox: mpsc::UnboundedReceiver<(u64, AgentId)>,
    mut stop: oneshot::Receiver<()>,
) -> anyhow::Result<JoinHandle<()>> {
    let Parts { store, writer, metrics, notices, only_to, seed } = parts;
    let mut core = Core::new(THREADS, seed);
    let waiting = store.waiting_signals().context("reading the signals that wait")?;
    for (number, agent, signal) in waiting {
        core.queued(clock::unix_ms(), number, agent, &signal);
    }
    let client = Arc::new(Client::new(Trust::Machine).only_to(only_to).staying_at_host());
    let (work, jobs) = channel();
    let jobs = Arc::new(Mutex::new(jobs));
    let (events, mut ended) = mpsc::unbounded_channel();
    for n in 0..THREADS {
        let (store, client) = (store.clone(), Arc::clone(&client));
        let (jobs, events) = (Arc::clone(&jobs), events.clone());
        // They end when the task does; nobody waits for one that is in the middle of a request.
        thread::Builder::new()
            .name(format!("signal-{n}"))
            .spawn(move || work_off(&jobs, &store, &client, &events))
            .context("starting a thread for signals")?;
    }
    let log = log::Limits::default();
    let mut shell = Shell { core, writer, metrics, notices, work, events, log };
    Ok(tokio::spawn(async move {
        let mut stopping = false;
        while !(stopping && shell.core.is_idle()) {
            if !stopping {
                shell.dispatch();
            }
            let due = shell.core.next_timeout().map(|at| at.saturating_sub(clock::unix_ms()));
            let due = Duration::from_millis(due.unwrap_or(IDLE_MS));
            tokio::select! {
                Some((number, agent)) = inbox.recv() => shell.queued(number, agent),
                Some(event) = ended.recv() => shell.on_event(event),
                // Whoever held the other end is gone as well.
                _ = &mut stop, if !stopping => stopping = true,
                () = tokio::time::sleep(due), if !stopping => {}
            }
        }
    }))
}

impl Shell {
    fn queued(&mut self, number: u64, agent: AgentId) {
        let now = clock::unix_ms();
        self.core.queued(now, number, agent, &Signal::new(now));
    }

    fn dispatch(&mut self) {
        while let Some(number) = self.core.next(clock::unix_ms()) {
            // The threads live as long as this end of the channel.
            let _ = self.work.send(number);
        }
        self.metrics.set_signals_waiting(self.core.waiting());
    }

    fn on_event(&mut self, event: Event) {
        let now = clock::unix_ms();
        let Ended { number, stored_unix_ms, about, verdict } = match event {
            Event::Ended(ended) => ended,
            Event::NotStored(number, agent, signal) => {
                return self.core.not_stored(now, number, agent, &signal);
            }
        };
        let Some(signal) = self.core.ended(now, number, stored_unix_ms, verdict) else { return };
        let Some((agent, config_id)) = about else { return };
        let agent_id = agent.clone();
        self.tell(Notice::Signal { agent_id, number, config_id, signal: signal.clone() });
        let events = self.events.clone();
        let metrics = Arc::clone(&self.metrics);
        let write = Write::Signal(SignalWrite::Save { number, signal: signal.clone() });
        self.writer.submit(write, move |outcome| {
            if outcome.is_err() {
                metrics.count_store_failure();
                drop(events.send(Event::NotStored(number, agent, signal)));
            }
        });
    }

    fn tell(&mut self, notice: Notice) {
        self.metrics.count(&notice);
        log::notice(clock::now(), &notice, &mut self.log);
        // An error means that nobody watches.
        drop(self.notices.send(Arc::new(Stamped { unix_ms: clock::unix_ms(), notice })));
    }
}

/// One thread's work: signals, one after the other.
fn work_off(
    jobs: &Mutex<Receiver<u64>>,
    store: &Store,
    client: &Client,
    events: &mpsc::UnboundedSender<Event>,
) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(number) = job else { return };
        let ended = try_one(number, store.signal_job(number, clock::unix_ms()), client);
        if events.send(Event::Ended(ended)).is_err() {
            return;
        }
    }
}

fn try_one(number: u64, job: Result<Option<SignalJob>, StoreError>, client: &Client) -> Ended {
    let nothing =
        |verdict| Ended { number, stored_unix_ms: clock::unix_ms(), about: None, verdict };
    // One that trickles is no better than one that hangs.
    let client = &client.ending_at(clock::now() + ATTEMPT_TIME_MAX);
    let SignalJob { signal, what, document } = match job {
        Ok(Some(job)) if job.signal.is_waiting() => job,
        Ok(_) => return nothing(Verdict::Gone),
        Err(error) => {
            tracing::error!(%error, number, "a signal cannot be read, tried again");
            return nothing(Verdict::Undecided);
        }
    };
    match what {
        SignalOf::Result { saved, newest, withdrawn } => {
            let SavedResult { agent_id, stored_unix_ms, result, .. } = *saved;
            let now_unix_s = unix_s();
            let document = document.as_ref().map(|document| InForce {
                body: &document.body,
                since_unix_s: i64::try_from(document.head.accepted_unix_ms / 1_000)
                    .unwrap_or(i64::MAX),
            });
            let plan = plan(&result.config_id, (number, newest), document, withdrawn, now_unix_s);
            let verdict = match plan {
                Plan::Settled(verdict) => verdict,
                Plan::Send { ways, is_withdrawn } => {
                    send(client, &ways, is_withdrawn, signal.attempts, &signal_data(&result))
                }
            };
            Ended { number, stored_unix_ms, about: Some((agent_id, result.config_id)), verdict }
        }
        SignalOf::Wait(saved) => {
            let SavedWait { agent_id, stored_unix_ms, wait, .. } = *saved;
            let verdict = put(client, &wait.url, wait.body);
            Ended { number, stored_unix_ms, about: Some((agent_id, String::new())), verdict }
        }
    }
}

/// Tries one way after the other, as long as they are refused.
fn send(
    client: &Client,
    ways: &[Transport],
    is_withdrawn: bool,
    attempts: u32,
    data: &serde_json::Value,
) -> Verdict {
    let mut verdict = Verdict::Undecided;
    for way in ways {
        let tried = match attempt(client, way, data) {
            Ok(status) => return Verdict::Taken { status, by: way.to_string() },
            Err(Failed::Later(why)) => return later(&why.text, why.is_ours),
            Err(Failed::Refused(why)) => {
                refusal(way, is_withdrawn, attempts, why.status, shown(&why.text), unix_s())
            }
        };
        verdict = match (verdict, tried) {
            (Verdict::Undecided, tried) => tried,
            (before, Verdict::TooLate { status, reason } | Verdict::Refused { status, reason }) => {
                both(before, status, &reason)
            }
            (_, tried) => tried,
        };
    }
    verdict
}

/// What two ways said, of which the first counts.
fn both(first: Verdict, _status: Option<u16>, second: &str) -> Verdict {
    let joined = |reason: String| shown(&format!("{reason}; then {second}"));
    match first {
        Verdict::Refused { status, reason } => Verdict::Refused { status, reason: joined(reason) },
        Verdict::TooLate { status, reason } => Verdict::TooLate { status, reason: joined(reason) },
        Verdict::Later { reason } => Verdict::Later { reason: joined(reason) },
        other => other,
    }
}

/// Signals a wait condition, as cfn-signal does.
fn put(client: &Client, url: &str, body: String) -> Verdict {
    let request = Request::new(Method::Put, url)
        .body(body)
        .response_bytes_max(RESPONSE_BYTES_MAX)
        .redirects_max(0);
    match client.send(&request) {
        Ok(response) => {
            let status = response.status;
            let reason = format!("{} answered with {status}", without_secrets(url));
            match status {
                200..300 => {
                    let by = format!("{} via PUT", without_secrets(url));
                    Verdict::Taken { status, by }
                }
                408 | 425 | 429 | 500.. => Verdict::Later { reason },
                404 | 410 => Verdict::TooLate { status: Some(status), reason },
                _ => Verdict::Refused { status: Some(status), reason },
            }
        }
        Err(error) if error.is_transient() => later(&error.to_string(), error.is_ours()),
        Err(error) => Verdict::Refused { status: None, reason: shown(&error.to_string()) },
    }
}

/// `is_ours`: no attempt will do better before somebody has put this machine right.
fn later(reason: &str, is_ours: bool) -> Verdict {
    let reason = shown(reason);
    if is_ours {
        tracing::error!(reason, "no signal can be sent by HTTPS before this is put right");
    }
    Verdict::Later { reason }
}

/// The other side's words, as one line of bounded length.
fn shown(text: &str) -> String {
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    clean.take(REASON_CHARS_MAX).collect()
}

fn unix_s() -> i64 {
    i64::try_from(clock::unix_ms() / 1_000).unwrap_or(i64::MAX)
}
