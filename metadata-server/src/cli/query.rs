//! The commands that put and get.

use std::fs;
use std::io::Read;
use std::path::Path;

use axum::http::Method;
use bytes::Bytes;
use certs::{AgentId, Fingerprint};
use metadata_delivery::message::DeploymentResult;
use serde_json::json;

use super::{ClientArgs, output};
use crate::error::{Exit, Failure};
use crate::http::{
    AgentList, AgentState, AgentView, PinList, PutAnswer, ResultList, ServerAnswer, VersionAnswer,
    WaitList, WaitView,
};
use crate::store::signals::{Signal, SignalState};
use crate::store::{PinOrigin, PinRecord, SavedResult};

pub(super) async fn put(args: &ClientArgs, agent: &AgentId, file: &Path) -> Result<(), Failure> {
    let body = read(file)?;
    let path = format!("/v1/agents/{agent}/metadata");
    let (_, answer): (_, PutAnswer) =
        args.client()?.json(Method::PUT, &path, body).await.map_err(|mut failure| {
            if failure.exit == Exit::Failed {
                failure.message = format!("{}: {}", shown(file), failure.message);
            }
            failure
        })?;
    if args.json {
        output::json(&answer)?;
    } else {
        let head = &answer.head;
        let what = if answer.is_new { "accepted" } else { "is in force already" };
        output::out(&format!(
            "agent {agent}: version {} {what} (bytes: {}, deployments: {})\n",
            head.version, head.bytes, head.deployments
        ))?;
    }
    if answer.connected {
        output::next(&format!("metadata-server watch --agent {agent}"));
    } else {
        output::next(&format!(
            "agent {agent} is not connected and gets it when it is; \"metadata-server agents {agent}\" shows why"
        ));
    }
    Ok(())
}

fn is_stdin(file: &Path) -> bool {
    file.as_os_str() == "-"
}

fn shown(file: &Path) -> String {
    if is_stdin(file) { "standard input".into() } else { file.display().to_string() }
}

pub(super) fn read(file: &Path) -> Result<Bytes, Failure> {
    let read = if is_stdin(file) {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes)
    } else {
        fs::read(file)
    };
    read.map(Bytes::from)
        .map_err(|e| Failure::new(Exit::Failed, format!("{} cannot be read: {e}", shown(file))))
}

pub(super) async fn get(args: &ClientArgs, agent: &AgentId, head: bool) -> Result<(), Failure> {
    let client = args.client()?;
    if !head {
        let body = client.get_bytes(&format!("/v1/agents/{agent}/metadata")).await?;
        return output::out_bytes(&body);
    }
    let view: AgentView = client.get(&format!("/v1/agents/{agent}")).await?;
    match view.document {
        None => Err(Failure::new(Exit::Failed, format!("agent {agent} has no document"))
            .with_hint(format!("metadata-server put {agent} FILE"))),
        Some(head) if args.json => output::json(&head),
        Some(head) => output::out(&format!(
            "version {}, bytes: {}, deployments: {}, accepted {} UTC, sha256 {}\n",
            head.version,
            head.bytes,
            head.deployments,
            output::time(head.accepted_unix_ms),
            head.sha256
        )),
    }
}

pub(super) async fn agents(args: &ClientArgs, agent: Option<&AgentId>) -> Result<(), Failure> {
    let client = args.client()?;
    match agent {
        Some(agent) => {
            let view: AgentView = client.get(&format!("/v1/agents/{agent}")).await?;
            if args.json { output::json(&view) } else { output::out(&describe(&view)) }
        }
        None => {
            let list: AgentList = client.get("/v1/agents").await?;
            if args.json {
                return output::json(&list);
            }
            if list.agents.is_empty() {
                output::next("no agents yet: metadata-server enroll AGENT_ID");
            }
            output::out(&overview(&list.agents))
        }
    }
}

fn overview(agents: &[AgentView]) -> String {
    let rows: Vec<Vec<String>> = agents
        .iter()
        .map(|view| {
            vec![
                view.agent_id.to_string(),
                view.state.as_str().into(),
                output::or_dash(view.document.as_ref().map(|d| d.version)),
                output::or_dash(view.delivered_version),
                output::or_dash(view.applied_version),
                output::or_dash(view.seen_unix_ms.map(output::time)),
                output::or_dash(view.remote.as_ref()),
                output::or_dash(view.software.as_ref()),
            ]
        })
        .collect();
    let headers =
        ["AGENT", "STATE", "DOCUMENT", "DELIVERED", "APPLIED", "SEEN (UTC)", "ADDRESS", "SOFTWARE"];
    output::table(&headers, &rows)
}

fn describe(view: &AgentView) -> String {
    let keys: Vec<String> = view.fingerprints.iter().map(Fingerprint::to_string).collect();
    let mut text = overview(std::slice::from_ref(view));
    text += &format!("\nkeys: {}\n", if keys.is_empty() { "none".into() } else { keys.join(", ") });
    if let Some(progress) = &view.progress {
        let rows: Vec<Vec<String>> = progress
            .deployments
            .iter()
            .map(|d| {
                vec![
                    d.name.clone(),
                    d.group.clone(),
                    d.state.to_string(),
                    output::time(d.since_unix_ms),
                    d.id.clone(),
                ]
            })
            .collect();
        let headers = ["DEPLOYMENT", "GROUP", "STATE", "SINCE (UTC)", "CONFIG"];
        text += &format!("\n{}", output::table(&headers, &rows));
    }
    match view.state {
        AgentState::NotEnrolled => {
            text += &format!("\nIt is not enrolled: metadata-server enroll {}\n", view.agent_id);
        }
        AgentState::NeverConnected | AgentState::Disconnected => {
            text += "\nIt is not connected: \"agent-client status\" in the instance says why.\n";
        }
        AgentState::Connected => {}
    }
    text
}

pub(super) async fn results(
    args: &ClientArgs,
    agent: Option<&AgentId>,
    after: u64,
    output: bool,
) -> Result<(), Failure> {
    let client = args.client()?;
    let path = match agent {
        Some(agent) => format!("/v1/agents/{agent}/results"),
        None => "/v1/results".to_owned(),
    };
    let mut all: Vec<SavedResult> = Vec::new();
    let mut next = Some(after);
    while let Some(after) = next {
        let page: ResultList = client.get(&format!("{path}?after={after}&limit=1000")).await?;
        all.extend(page.results);
        next = page.next_after;
    }
    if args.json {
        return output::json(&ResultList { results: all, next_after: None });
    }
    let waits = match agent {
        Some(agent) => {
            let path = format!("/v1/agents/{agent}/wait-signals");
            client.get::<WaitList>(&path).await?.signals
        }
        None => Vec::new(),
    };
    if output {
        let all = all.iter().map(full).chain(waits.iter().map(full_wait));
        return output::out(&all.collect::<Vec<_>>().join("\n"));
    }
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|saved| {
            let result = &saved.result;
            vec![
                saved.number.to_string(),
                saved.agent_id.to_string(),
                result.name.clone(),
                result.action.clone(),
                result.status.to_string(),
                result.deploy_status_code.to_string(),
                output::time(saved.stored_unix_ms),
                output::or_dash(saved.signal.as_ref().map(standing)),
                result.config_id.clone(),
                remark(result),
            ]
        })
        .collect();
    let headers = [
        "#",
        "AGENT",
        "NAME",
        "ACTION",
        "STATUS",
        "CODE",
        "STORED (UTC)",
        "SIGNAL",
        "CONFIG",
        "REASON",
    ];
    let mut text = output::table(&headers, &rows);
    if !waits.is_empty() {
        let rows: Vec<Vec<String>> = waits
            .iter()
            .map(|wait| {
                vec![
                    wait.number.to_string(),
                    output::time(wait.stored_unix_ms),
                    standing(&wait.signal),
                    wait.url.clone(),
                ]
            })
            .collect();
        let headers = ["#", "STORED (UTC)", "SIGNAL", "WAIT CONDITION"];
        text += &format!("\n{}", output::table(&headers, &rows));
    }
    output::out(&text)
}

/// Where a signal stands, in a few words.
fn standing(signal: &Signal) -> String {
    let with = |state: &str, status: &Option<u16>| match status {
        Some(status) => format!("{state} ({status})"),
        None => state.to_owned(),
    };
    match &signal.state {
        SignalState::Waiting { next_unix_ms, .. } if signal.attempts > 0 => {
            format!("waiting, attempt {} at {}", signal.attempts + 1, output::time(*next_unix_ms))
        }
        SignalState::Waiting { .. } => "waiting".into(),
        SignalState::Sent { at_unix_ms, status, .. } => {
            format!("sent {} ({status})", output::time(*at_unix_ms))
        }
        SignalState::Refused { status, .. } => with("refused", status),
        SignalState::TooLate { status, .. } => with("too late", status),
        SignalState::None { .. } => "none".into(),
    }
}

/// The same with the other side's words.
fn signal_line(signal: &Signal) -> String {
    let more = match &signal.state {
        SignalState::Waiting { reason, .. } => reason.as_deref(),
        SignalState::Sent { by, .. } => Some(by.as_str()),
        SignalState::Refused { reason, .. }
        | SignalState::TooLate { reason, .. }
        | SignalState::None { reason } => Some(reason.as_str()),
    };
    let more = more.map_or_else(String::new, |more| format!(": {more}"));
    format!("signal: {}{more}\n", standing(signal))
}

fn full_wait(wait: &WaitView) -> String {
    format!(
        "#{} {} wait condition {}\n{}",
        wait.number,
        wait.agent_id,
        wait.url,
        signal_line(&wait.signal)
    )
}

/// The reason of a failure; of a run that somebody at the instance asked for also that.
fn remark(result: &DeploymentResult) -> String {
    let reason = result.reason.clone().unwrap_or_default();
    match &result.rerun {
        Some(rerun) if reason.is_empty() => format!("rerun by {}", rerun.asked_by),
        Some(rerun) => format!("rerun by {}: {reason}", rerun.asked_by),
        None => reason,
    }
}

fn full(saved: &SavedResult) -> String {
    let result = &saved.result;
    let mut text = format!(
        "#{} {} {} ({}): {}, exit status {}\n",
        saved.number,
        saved.agent_id,
        result.name,
        result.config_id,
        result.status,
        result.deploy_status_code
    );
    if let Some(rerun) = &result.rerun {
        text += &format!("run: {}, asked for by {}\n", rerun.run, rerun.asked_by);
    }
    if let Some(reason) = &result.reason {
        text += &format!("reason: {reason}\n");
    }
    if let Some(signal) = &saved.signal {
        text += &signal_line(signal);
    }
    for (name, printed) in [("stdout", &result.deploy_stdout), ("stderr", &result.deploy_stderr)] {
        if !printed.is_empty() {
            text += &format!("{name}:\n{}\n", printed.trim_end_matches('\n'));
        }
    }
    for (name, value) in &result.outputs {
        text += &format!("output {name}: {value}\n");
    }
    text
}

pub(super) async fn keys(args: &ClientArgs) -> Result<(), Failure> {
    let server: ServerAnswer = args.client()?.get("/v1/server").await?;
    if args.json {
        output::json(&json!({"keys": [{"fingerprint": server.fingerprint, "in_use": true}]}))
    } else {
        output::out(&format!("{}\n", server.fingerprint))
    }
}

pub(super) async fn pins(args: &ClientArgs) -> Result<(), Failure> {
    let mut list: PinList = args.client()?.get("/v1/pins").await?;
    if args.json {
        return output::json(&list);
    }
    list.pins.sort_by(|a, b| (&a.agent_id, a.added_unix_ms).cmp(&(&b.agent_id, b.added_unix_ms)));
    let rows: Vec<Vec<String>> = list
        .pins
        .iter()
        .map(|pin| {
            let origin = match pin.origin {
                PinOrigin::Token => "token",
                PinOrigin::Admin => "admin",
            };
            vec![
                pin.agent_id.to_string(),
                pin.fingerprint.to_string(),
                origin.into(),
                output::time(pin.added_unix_ms),
            ]
        })
        .collect();
    output::out(&output::table(&["AGENT", "FINGERPRINT", "BY", "ADDED (UTC)"], &rows))
}

pub(super) async fn add_pin(
    args: &ClientArgs,
    agent: &AgentId,
    fingerprint: Fingerprint,
) -> Result<(), Failure> {
    let path = pin_path(agent, fingerprint);
    let (_, pin): (_, PinRecord) = args.client()?.json(Method::PUT, &path, Bytes::new()).await?;
    if args.json {
        output::json(&pin)?;
    } else {
        output::out(&format!("agent {agent} may use {fingerprint}\n"))?;
    }
    output::next(&format!("metadata-server agents {agent}"));
    Ok(())
}

pub(super) async fn remove_pin(
    args: &ClientArgs,
    agent: &AgentId,
    fingerprint: Fingerprint,
) -> Result<(), Failure> {
    args.client()?.delete(&pin_path(agent, fingerprint)).await?;
    if args.json {
        output::json(&json!({"agent_id": agent, "fingerprint": fingerprint, "removed": true}))?;
    } else {
        output::out(&format!("agent {agent} may not use {fingerprint} any more\n"))?;
    }
    output::next(&format!("metadata-server enroll {agent}, if it is to come back with a new key"));
    Ok(())
}

/// A fingerprint in a path: its hex digits need no escaping.
fn pin_path(agent: &AgentId, fingerprint: Fingerprint) -> String {
    let hex = data_encoding::HEXLOWER.encode(fingerprint.as_bytes());
    format!("/v1/agents/{agent}/pins/{hex}")
}

pub(super) async fn version(args: &ClientArgs) -> Result<(), Failure> {
    let own = VersionAnswer::own();
    // A server that does not answer is no error here: what was asked for is this program's version.
    let server: Option<VersionAnswer> = match args.client() {
        Ok(client) => client.get("/v1/version").await.ok(),
        Err(_) => None,
    };
    if args.json {
        return output::json(&json!({"program": own, "server": server}));
    }
    let line = |what: &VersionAnswer| {
        format!("{} (protocol {}, store format {})", what.version, what.protocol, what.store_format)
    };
    let answers = server.as_ref().map_or_else(|| "does not answer".to_owned(), line);
    output::out(&format!("metadata-server {}\nserver {answers}\n", line(&own)))
}
