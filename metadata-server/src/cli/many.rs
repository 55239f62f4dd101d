//! The commands that are about many agents at once.

use std::path::Path;

use axum::http::Method;
use bytes::Bytes;
use certs::{AgentId, Fingerprint};
use serde_json::json;
use serde_json::value::RawValue;

use super::query::read;
use super::{ClientArgs, output};
use crate::error::{Exit, Failure};
use crate::http::{NewPin, PinImport, PinsAdded, PushAnswer};

/// Puts one document in force for many agents.
pub(super) async fn push(
    args: &ClientArgs,
    file: &Path,
    prefix: Option<String>,
    agents_file: Option<&Path>,
) -> Result<(), Failure> {
    let document = read(file)?;
    let bad = |what: String| Failure::new(Exit::Failed, format!("{}: {what}", file.display()));
    let metadata: &RawValue =
        serde_json::from_slice(&document).map_err(|e| bad(format!("it is no JSON: {e}")))?;
    let mut request = json!({});
    match agents_file {
        Some(agents_file) => request["agents"] = json!(agents(agents_file)?),
        None => request["prefix"] = json!(prefix.unwrap_or_default()),
    }
    // Put together as text, so that the document's bytes stay as they are.
    let mut body = request.to_string();
    body.pop();
    body.push_str(",\"metadata\":");
    body.push_str(metadata.get());
    body.push('}');
    let (_, answer): (_, PushAnswer) =
        args.client()?.json(Method::POST, "/v1/push", body.into()).await?;
    if args.json {
        output::json(&answer)?;
    } else {
        output::out(&format!(
            "{} agents: new for {}, in force already for {} (bytes: {})\n",
            answer.agents,
            answer.new,
            answer.agents - answer.new,
            answer.bytes
        ))?;
    }
    output::next("metadata-server agents");
    Ok(())
}

/// The ids in a file, one per line.
fn agents(file: &Path) -> Result<Vec<AgentId>, Failure> {
    lines(file, |line| line.parse().map_err(|e: certs::agent_id::AgentIdError| e.to_string()))
}

/// Adds the pins in a file.
pub(super) async fn import(args: &ClientArgs, file: &Path) -> Result<(), Failure> {
    let pins = lines(file, |line| {
        let (agent, fingerprint) = line
            .split_once(char::is_whitespace)
            .ok_or("a line has an agent's id, a space and the fingerprint")?;
        let fingerprint = fingerprint.trim().parse::<Fingerprint>().map_err(|e| e.to_string())?;
        let agent_id = agent.parse::<AgentId>().map_err(|e| e.to_string())?;
        Ok(NewPin { agent_id, fingerprint })
    })?;
    let body = serde_json::to_vec(&PinImport { pins })
        .map_err(|e| Failure::new(Exit::Failed, e.to_string()))?;
    let (_, answer): (_, PinsAdded) =
        args.client()?.json(Method::POST, "/v1/pins", Bytes::from(body)).await?;
    if args.json {
        output::json(&answer)
    } else {
        let PinsAdded { added, known } = answer;
        output::out(&format!("{added} pins added, {known} were there\n"))
    }
}

/// What is in the lines of a file; empty ones and comments (#) are passed over.
fn lines<T>(file: &Path, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, Failure> {
    let bytes = read(file)?;
    let text = String::from_utf8_lossy(&bytes);
    text.lines()
        .map(str::trim)
        .enumerate()
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, line)| {
            parse(line).map_err(|what| {
                let place = format!("{}, line {}: {what}", file.display(), number + 1);
                Failure::new(Exit::Failed, place)
            })
        })
        .collect()
}
