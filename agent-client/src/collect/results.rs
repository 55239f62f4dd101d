//! Results that go back the way the document in force asks for: by the transport in the deployment's inputs,
//! as `heat-config-notify` sends them. Those of a polled document have that way with them, and go there even when
//! a server is reached meanwhile: it may not have that document, and then does not know whom to tell.

use std::collections::BTreeMap;
use std::time::Duration;

use metadata_delivery::message::DeploymentResult;
use openstack_client::http::Client;
use openstack_client::signal::{Failed, Transport, attempt, of_config};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::{Poll, Worker, pause_after};
use crate::compat::heat_config::notify::is_over;
use crate::compat::heat_config::run::UNSENT_MS_MAX;
use crate::document::ConfigId;
use crate::pipeline::{self, Command, unix_ms};
use crate::signal_way::SignalWay;

/// Most results that wait to be sent so; a server gets all.
const RESULTS_MAX: usize = 1_000;
/// How long one pass may take until no further attempt is begun: documents wait for it.
const PASS_MS_MAX: u64 = 10_000;

/// Results that nobody has taken.
#[derive(Default)]
pub(super) struct Results {
    /// By config id.
    waiting: BTreeMap<String, Waiting>,
    /// Passes, one after the other, in which something was not taken.
    failures: u32,
    /// Not before then.
    at: Option<Instant>,
    /// The last that was tried: the next pass begins behind it.
    last: String,
}

struct Waiting {
    result: DeploymentResult,
    attempts: u32,
    /// What the polled document that asked for it says of the way it goes.
    way: Option<SignalWay>,
}

/// What became of a result.
enum Fate {
    /// Somebody has it.
    Taken,
    /// Nobody wants it.
    Unwanted,
    /// Nobody ever takes it.
    Lost(String),
    /// It waits.
    Later(String),
}

impl Results {
    /// A deployment has ended.
    pub(super) fn ended(&mut self, ended: pipeline::Waiting) {
        if self.waiting.len() < RESULTS_MAX {
            let pipeline::Waiting { result, way, .. } = ended;
            let id = result.config_id.clone();
            self.waiting.insert(id, Waiting { result, attempts: 0, way });
            self.due();
        }
    }

    /// Something is new. After a failure its pause is kept all the same.
    pub(super) fn due(&mut self) {
        if self.failures == 0 {
            self.at = None;
        }
    }

    /// Nobody waits for the result of this run any more.
    pub(super) fn over(&mut self, id: &ConfigId, run: u64) {
        if self.waiting.get(id.as_str()).is_some_and(|waiting| waiting.result.run() == run) {
            self.waiting.remove(id.as_str());
        }
    }

    /// The ids, beginning behind the one that was tried last.
    fn in_turn(&self) -> Vec<String> {
        let (before, after): (Vec<_>, Vec<_>) =
            self.waiting.keys().cloned().partition(|id| *id <= self.last);
        after.into_iter().chain(before).collect()
    }
}

impl Worker {
    /// When results are due, if there are any and somebody may take them.
    pub(super) fn sends_at(&self) -> Option<Instant> {
        let polls = self.polling.poll != Poll::Off && self.polling.last.is_some();
        // Heat is asked first whether it still wants the result: a late one would end a newer run.
        let has_asked = self.polling.poll == Poll::Off || self.polling.has_asked();
        let can_send = |waiting: &Waiting| polls || (has_asked && waiting.way.is_some());
        let is_any = self.results.waiting.values().any(can_send);
        is_any.then(|| self.results.at.unwrap_or_else(Instant::now))
    }

    /// Sends what waits, if a document that was polled says how.
    pub(super) fn send_results(&mut self) {
        if self.sends_at().is_none_or(|at| at > Instant::now()) {
            return;
        }
        let polled = self.polling.last.clone().filter(|_| self.polling.poll != Poll::Off);
        let polled = polled.as_ref();
        let is_whole = polled.is_some_and(|polled| polled.is_whole);
        let until = Instant::now() + Duration::from_millis(PASS_MS_MAX);
        let is_alone = self.polling.poll == Poll::Alone;
        let (mut has_failed, mut is_cut) = (false, false);
        for id in self.results.in_turn() {
            if Instant::now() >= until {
                is_cut = true;
                break;
            }
            let Some(waiting) = self.results.waiting.get_mut(&id) else { continue };
            let listed = polled.and_then(|polled| entry_of(&polled.content, &id));
            let fate = match (listed, &waiting.way) {
                (Some(entry), _) => send(entry, waiting),
                (None, way) if is_whole && (is_alone || way.is_some()) => {
                    Fate::Lost("nobody asks for it any more".into())
                }
                (None, Some(way)) => send(way.as_config(), waiting),
                (None, None) => continue,
            };
            waiting.attempts += 1;
            let run = waiting.result.run();
            let nobody_else = is_alone || waiting.way.is_some();
            let fate = match fate {
                Fate::Later(why) if nobody_else && is_stale(&waiting.result) => Fate::Lost(
                    format!("nobody took it for {} hours: {why}", UNSENT_MS_MAX / 3_600_000),
                ),
                fate => fate,
            };
            self.results.last.clone_from(&id);
            let refused = match fate {
                Fate::Later(why) => {
                    tracing::warn!(id, why, "result not sent, tried again");
                    has_failed = true;
                    continue;
                }
                Fate::Taken => Some(None),
                Fate::Unwanted if nobody_else => Some(None),
                Fate::Lost(reason) if nobody_else => {
                    tracing::error!(
                        id,
                        reason,
                        "Heat does not take a result, and is not told again"
                    );
                    Some(Some(reason))
                }
                // The server gets it.
                Fate::Lost(why) => {
                    tracing::warn!(id, why, "result not taken; the server gets it");
                    None
                }
                Fate::Unwanted => None,
            };
            self.results.waiting.remove(&id);
            if let (Some(refused), Ok(id)) = (refused, ConfigId::new(&id)) {
                let _ = self.commands.send(Command::HeatSaid { id, run, refused });
            }
        }
        self.results.failures = match has_failed {
            true => self.results.failures.saturating_add(1),
            false => 0,
        };
        // What nobody could be asked for waits for something new.
        let pause = if is_cut || has_failed { self.results.failures.max(1) } else { u32::MAX };
        self.results.at = Some(Instant::now() + pause_after(pause));
    }
}

/// What a document has of this config.
fn entry_of<'a>(content: &'a Map<String, Value>, id: &str) -> Option<&'a Value> {
    let entries = content.get("deployments").and_then(Value::as_array)?;
    entries.iter().find(|entry| entry.get("id").and_then(Value::as_str) == Some(id))
}

fn is_stale(result: &DeploymentResult) -> bool {
    unix_ms().saturating_sub(result.finished_unix_ms) > UNSENT_MS_MAX
}

fn send(entry: &Value, waiting: &Waiting) -> Fate {
    let transports = match of_config(entry) {
        Ok(transports) => transports,
        Err(why) => return Fate::Lost(why),
    };
    if transports.is_empty() {
        return Fate::Unwanted;
    }
    let is_over = |transport: &Transport| is_over(transport, unix_ms() / 1_000);
    if waiting.attempts > 0 && transports.iter().all(is_over) {
        return Fate::Lost("the time of its URL is over".into());
    }
    let result = &waiting.result;
    let mut data = Value::Object(result.outputs.clone());
    data["deploy_stdout"] = json!(result.deploy_stdout);
    data["deploy_stderr"] = json!(result.deploy_stderr);
    data["deploy_status_code"] = json!(result.deploy_status_code);
    let client = Client::default();
    for transport in &transports {
        match attempt(&client, transport, &data) {
            Ok(_) => {}
            Err(Failed::Later(why)) => return Fate::Later(why.text),
            Err(Failed::Refused(why)) => return Fate::Lost(why.text),
        }
    }
    Fate::Taken
}
