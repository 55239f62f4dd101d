//! Whom to tell of a result, and how: what the agent's document says at this moment.

use metadata_delivery::message::DeploymentResult;
use openstack_client::signal::{Account, Presigned, Transport, inputs, of_config};
use serde::Deserialize;
use serde_json::{Value, json};

use super::core::Verdict;
use crate::store::signals::Withdrawn;

/// A document has to be in force for so long, in seconds, before a config that it does not list is nobody's: it
/// may have come in the wrong order, and Heat be asked which one is right (`zaqar::settle`).
pub const DOUBTED_S: i64 = 60;

/// A document in force.
#[derive(Clone, Copy)]
pub struct InForce<'a> {
    /// As it was accepted.
    pub body: &'a [u8],
    /// When, in seconds since 1970.
    pub since_unix_s: i64,
}

/// What is to be done about a signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Try these, one after the other, as long as they are refused.
    Send {
        /// At least one.
        ways: Vec<Transport>,
        /// The deployment has left the document, so Heat may not wait any more.
        is_withdrawn: bool,
    },
    /// Nothing is to be sent, or not at this moment.
    Settled(Verdict),
}

/// The part of a document that counts here. What was accepted has this form.
#[derive(Deserialize)]
struct Body {
    deployments: Vec<Entry>,
    #[serde(default, rename = "os-collect-config")]
    collect: Value,
    /// Settings for this server, for one agent.
    #[serde(default, rename = "metadata-server")]
    own: Value,
}

#[derive(Deserialize)]
struct Entry {
    id: String,
    #[serde(default)]
    inputs: Value,
}

/// What to do about the result with this number, of which `newest` is the newest of its config. `document` is
/// the agent's in force; `withdrawn` is the config's entry if that was of action DELETE and has left it.
pub fn plan(
    config_id: &str,
    (number, newest): (u64, u64),
    document: Option<InForce<'_>>,
    withdrawn: Option<Withdrawn>,
    now_unix_s: i64,
) -> Plan {
    let nobody = |reason: &str| Plan::Settled(Verdict::Unwanted { reason: reason.into() });
    if newest > number {
        return nobody(&format!("result #{newest}, of a later run, is signalled"));
    }
    let body = document.and_then(|document| serde_json::from_slice::<Body>(document.body).ok());
    let Some(Body { deployments, collect, own }) = body else {
        return nobody("the agent has no document");
    };
    if own.get("signal").and_then(Value::as_str) == Some("off") {
        return nobody("the agent's document says so: \"metadata-server\": {\"signal\": \"off\"}");
    }
    let listed = deployments.into_iter().find(|entry| entry.id == config_id);
    let is_withdrawn = listed.is_none();
    let listed = listed.map(|entry| entry.inputs);
    let Some(inputs) = listed.or_else(|| withdrawn.map(|withdrawn| withdrawn.inputs)) else {
        let reason = "the document in force does not list the config any more";
        let age_s = document.map_or(DOUBTED_S, |document| now_unix_s - document.since_unix_s);
        return match (0..DOUBTED_S).contains(&age_s) {
            true => Plan::Settled(Verdict::Later { reason: reason.into() }),
            false => nobody(reason),
        };
    };
    match ways(inputs, &collect, now_unix_s) {
        Ok(ways) if ways.is_empty() => nobody("nobody wants a signal"),
        Ok(ways) => Plan::Send { ways, is_withdrawn },
        Err(reason) => {
            let reason = format!("its deployment's signal cannot be used: {reason}");
            Plan::Settled(Verdict::Refused { status: None, reason })
        }
    }
}

/// The way that the inputs name, and for a URL that may have expired another one.
fn ways(list: Value, collect: &Value, now_unix_s: i64) -> Result<Vec<Transport>, String> {
    let mut entry = json!({ "inputs": list });
    if entry["inputs"].is_null() {
        return Ok(Vec::new());
    }
    let named = inputs(&entry).get("deploy_signal_transport").and_then(|value| value.as_str());
    let named = named.unwrap_or_default().to_owned();
    // Heat adds the inputs of the transport that it names, after those of the template's author. Whatever
    // belongs to another one is that author's, who is not to choose what the server asks.
    let foreign: &[&str] = match named.as_str() {
        "NO_SIGNAL" => return Ok(Vec::new()),
        "CFN_SIGNAL" | "TEMP_URL_SIGNAL" => &["deploy_auth_url", "deploy_queue_id"],
        "HEAT_SIGNAL" => &["deploy_signal_id", "deploy_queue_id"],
        "ZAQAR_SIGNAL" => &["deploy_signal_id"],
        _ => &[],
    };
    if let Some(list) = entry["inputs"].as_array_mut() {
        list.retain(|input| {
            !input.get("name").and_then(Value::as_str).is_some_and(|name| foreign.contains(&name))
        });
    }
    let mut ways = of_config(&entry)?;
    if ways.is_empty() && named.ends_with("_SIGNAL") {
        return Err(format!("it is of transport {named}, whose inputs are missing"));
    }
    ways.truncate(1);
    if let Some(Transport::Presigned { url, .. }) = ways.first()
        && let Some(other) = by_the_servers_user(&entry, collect)
    {
        let presigned = Presigned::of_url(url);
        let is_over = presigned.is_old(now_unix_s) || presigned.has_expired(now_unix_s);
        ways.insert(if is_over { 0 } else { 1 }, other);
    }
    Ok(ways)
}

/// Heat's API, by the user that Heat made for the server: it may signal the server's deployments too.
fn by_the_servers_user(entry: &Value, collect: &Value) -> Option<Transport> {
    // A section that is not in Heat's own list is not Heat's.
    let collectors = collect.get("collectors")?.as_array()?;
    let name = collectors
        .iter()
        .filter_map(Value::as_str)
        .find(|name| matches!(*name, "heat" | "zaqar"))?;
    let section = collect.get(name)?;
    let text = |key: &str| {
        let text = section.get(key)?.as_str()?;
        (!text.is_empty()).then(|| text.to_owned())
    };
    let inputs = inputs(entry);
    let input = |key: &str| inputs.get(key)?.as_str().map(str::to_owned);
    Some(Transport::Heat {
        account: Account {
            auth_url: text("auth_url")?,
            user_id: text("user_id")?,
            password: text("password")?,
            project_id: text("project_id")?,
            region: text("region_name"),
        },
        stack: input("deploy_stack_id")?,
        resource: input("deploy_resource_name")?,
    })
}

/// What Heat is told, as heat-config does.
pub fn signal_data(result: &DeploymentResult) -> Value {
    let mut data = Value::Object(result.outputs.clone());
    data["deploy_stdout"] = json!(result.deploy_stdout);
    data["deploy_stderr"] = json!(result.deploy_stderr);
    data["deploy_status_code"] = json!(result.deploy_status_code);
    data
}

/// What an answer that is no success means, of the status and the way it was asked.
pub fn refusal(
    way: &Transport,
    is_withdrawn: bool,
    attempts: u32,
    status: Option<u16>,
    reason: String,
    now_unix_s: i64,
) -> Verdict {
    let (is_old, has_expired) = match way {
        Transport::Presigned { url, .. } => {
            let presigned = Presigned::of_url(url);
            (presigned.is_old(now_unix_s), presigned.has_expired(now_unix_s))
        }
        _ => (false, false),
    };
    match status {
        // The deployment or its stack is gone.
        Some(404 | 410) => Verdict::TooLate { status, reason },
        Some(401 | 403) if is_withdrawn || is_old || has_expired => {
            Verdict::TooLate { status, reason }
        }
        // Signed in anew, it may be another matter; once.
        Some(401) if attempts == 0 && !matches!(way, Transport::Presigned { .. }) => {
            Verdict::Later { reason }
        }
        None if has_expired => Verdict::TooLate { status, reason },
        _ => Verdict::Refused { status, reason },
    }
}

#[cfg(test)]
mod tests;
