//! Results that go back the way the document in force asks for: by the transport in the deployment's inputs,
//! as `heat-config-notify` sends them. Those of a polled document go that way even when a server is reached
//! meanwhile: it may not have that document, and then does not know whom to tell.

use std::collections::BTreeMap;
use std::time::Duration;

use metadata_delivery::message::DeploymentResult;
use openstack_client::http::Client;
use openstack_client::signal::{Failed, Transport, attempt, of_config};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::sources::Origin;
use super::{Poll, Worker, pause_after};
use crate::compat::heat_config::notify::is_over;
use crate::compat::heat_config::run::UNSENT_MS_MAX;
use crate::document::ConfigId;
use crate::pipeline::{Command, unix_ms};

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
    /// What the polled document that it was run for says of the way it goes.
    own_way: Option<Value>,
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
    fn ended(&mut self, result: DeploymentResult, own_way: Option<Value>) {
        if self.waiting.len() < RESULTS_MAX {
            let before = self.waiting.remove(&result.config_id);
            let own_way = own_way.or_else(|| before.and_then(|before| before.own_way));
            let id = result.config_id.clone();
            self.waiting.insert(id, Waiting { result, attempts: 0, own_way });
            self.due();
        }
    }

    /// Something is new. After a failure its pause is kept all the same.
    pub(super) fn due(&mut self) {
        if self.failures == 0 {
            self.at = None;
        }
    }

    /// The server has this one. Whom it would tell of it, it knows of a document that it pushed.
    pub(super) fn stored(&mut self, id: &str) {
        if self.waiting.get(id).is_some_and(|waiting| waiting.own_way.is_none()) {
            self.waiting.remove(id);
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
    /// A deployment has ended.
    pub(super) fn ended(&mut self, result: DeploymentResult) {
        let polled = self.in_force.as_ref().filter(|(origin, _)| *origin != Origin::Push);
        let entry = polled.and_then(|(_, content)| entry_of(content, &result.config_id));
        let own_way = entry.map(|entry| json!({"inputs": entry.get("inputs")}));
        self.results.ended(result, own_way);
    }

    /// When results are due, if there are any and somebody may take them.
    pub(super) fn sends_at(&self) -> Option<Instant> {
        let polls = self.polling.poll != Poll::Off && self.polling.last.is_some();
        let can_send = |waiting: &Waiting| polls || waiting.own_way.is_some();
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
            let fate = match (listed, &waiting.own_way) {
                (Some(entry), _) => send(entry, waiting),
                (None, _) if is_whole && is_alone => {
                    Fate::Lost("nobody asks for it any more".into())
                }
                (None, Some(own_way)) => send(own_way, waiting),
                (None, None) => continue,
            };
            waiting.attempts += 1;
            let run = waiting.result.run();
            let nobody_else = is_alone || waiting.own_way.is_some();
            let fate = match fate {
                Fate::Later(why) if nobody_else && is_stale(&waiting.result) => Fate::Lost(
                    format!("nobody took it for {} hours: {why}", UNSENT_MS_MAX / 3_600_000),
                ),
                fate => fate,
            };
            self.results.last.clone_from(&id);
            let Ok(config) = ConfigId::new(&id) else { continue };
            let command = match fate {
                Fate::Later(why) => {
                    tracing::warn!(id, why, "result not sent, tried again");
                    has_failed = true;
                    continue;
                }
                Fate::Taken => Command::ResultStored { id: config, run },
                Fate::Unwanted if is_alone => Command::ResultStored { id: config, run },
                Fate::Lost(reason) if is_alone => {
                    tracing::error!(id, reason, "result not taken, and not sent again");
                    Command::ResultRefused { id: config, run, reason }
                }
                Fate::Lost(why) => {
                    tracing::warn!(id, why, "result not taken; the server gets it");
                    self.results.waiting.remove(&id);
                    continue;
                }
                // Nobody wants it now; the server gets it.
                Fate::Unwanted => {
                    self.results.waiting.remove(&id);
                    continue;
                }
            };
            let _ = self.commands.send(command);
            self.results.waiting.remove(&id);
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
