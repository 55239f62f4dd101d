//! What is polled while no server is reached, and the results that then go back the way the document asks
//! for: by the transport in the deployment's inputs, as `heat-config-notify` sends them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use metadata_delivery::message::DeploymentResult;
use serde_json::{Map, Value, json};

use super::{TRANSPORTS, Worker, read};
use crate::compat::heat_config::notify::deliver;
use crate::compat::occ::cache::Cache;
use crate::compat::occ::collectors::Collectors;
use crate::compat::pylog::{Level, Log, Style};
use crate::document::ConfigId;
use crate::pipeline::Command;
use openstack_client::http::Client;
use openstack_client::signal::{Failed, of_config};

/// Most results that wait to be sent so; the server gets all.
const RESULTS_MAX: usize = 1_000;

/// Where a document came from.
#[derive(Default)]
pub(super) struct Polling {
    pub(super) is_on: bool,
    /// Until the next time.
    pub(super) pause: Duration,
    /// What came last, and from which collector.
    pub(super) last: Option<(&'static str, Map<String, Value>)>,
    /// Results that no server has, by config id.
    results: BTreeMap<String, DeploymentResult>,
}

impl Polling {
    pub(super) fn ended(&mut self, result: DeploymentResult) {
        if self.results.len() < RESULTS_MAX {
            self.results.insert(result.config_id.clone(), result);
        }
    }

    pub(super) fn stored(&mut self, id: &str) {
        self.results.remove(id);
    }
}

impl Worker {
    /// Asks what the configuration polls; a document that is not in force goes to the pipeline.
    pub(super) fn poll(&mut self) {
        if let Err(error) = self.ask_transports() {
            tracing::error!("nothing could be polled: {error:#}");
        }
        self.send_results();
    }

    fn ask_transports(&mut self) -> Result<()> {
        self.polling.pause = Duration::from_secs(30);
        let config = read(&self.config)?;
        self.polling.pause = config.pause_max;
        let cache = Cache::new(config.cachedir.clone());
        let mut collectors = Collectors::new(&config, &cache);
        let sources = config.known_collectors().map_err(anyhow::Error::msg)?;
        for source in sources.into_iter().filter(|source| TRANSPORTS.contains(source)) {
            let items = match collectors.collect(source) {
                Ok(items) => items,
                Err(missing) => {
                    tracing::debug!(source, ?missing, "nothing polled");
                    continue;
                }
            };
            let main = items.into_iter().find(|item| item.is_main).map(|item| item.content);
            let Some(Value::Object(content)) = main else { continue };
            let is_known = self.in_force.as_ref() == Some(&content)
                || self.polling.last.as_ref().is_some_and(|(_, last)| *last == content);
            if !is_known {
                tracing::info!(source, "a document was polled");
                let body = serde_json::to_vec(&content)?.into();
                let _ = self.commands.send(Command::Polled { body });
            }
            self.polling.last = Some((source, content));
            break;
        }
        Ok(())
    }

    /// Sends what waits, if the document that was polled says how.
    pub(super) fn send_results(&mut self) {
        let Some((_, content)) = self.polling.last.as_ref().filter(|_| self.polling.is_on) else {
            return;
        };
        let entries = content.get("deployments").and_then(Value::as_array);
        let mut sent = Vec::new();
        for entry in entries.into_iter().flatten() {
            let id = entry.get("id").and_then(Value::as_str).unwrap_or_default();
            let Some(result) = self.polling.results.get(id) else { continue };
            match send(entry, result) {
                Ok(true) => {
                    if let Ok(id) = ConfigId::new(id) {
                        let run = result.run();
                        let _ = self.commands.send(Command::ResultStored { id, run });
                    }
                    sent.push(id.to_owned());
                }
                // Nobody wants it now; the server gets it.
                Ok(false) => sent.push(id.to_owned()),
                Err(Failed::Later(why)) => {
                    tracing::warn!(id, %why, "result not sent, tried again");
                }
                Err(Failed::Refused(why)) => {
                    tracing::error!(id, %why, "result refused; the server gets it");
                    sent.push(id.to_owned());
                }
            }
        }
        for id in sent {
            self.polling.stored(&id);
        }
    }
}

/// Whether somebody took it.
fn send(entry: &Value, result: &DeploymentResult) -> Result<bool, Failed> {
    let transports = of_config(entry).map_err(|why| Failed::Refused(why.into()))?;
    let mut data = Value::Object(result.outputs.clone());
    data["deploy_stdout"] = json!(result.deploy_stdout);
    data["deploy_stderr"] = json!(result.deploy_stderr);
    data["deploy_status_code"] = json!(result.deploy_status_code);
    let mut log = Log::new(Style::Named("agent-client"), Level::Error);
    for transport in &transports {
        deliver(&Client::default(), transport, &data, Some(Instant::now()), &mut log)?;
    }
    Ok(!transports.is_empty())
}
