//! One document for many agents.

use std::collections::BTreeSet;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use bytes::Bytes;
use certs::AgentId;
use metadata_delivery::message::Hex32;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{ApiError, body};
use crate::clock;
use crate::document::{DocumentError, ValidDocument};
use crate::store::{Outcome, Store, StoreError, Write};

/// Room for the agents' ids, beside the document.
const AGENTS_BYTES_MAX: usize = 32 * 1024 * 1024;

/// What is asked for: `agents` or `prefix`, and the document.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PushRequest<'a> {
    /// For these.
    #[serde(default)]
    agents: Option<BTreeSet<AgentId>>,
    /// For each agent with a pin whose id begins so.
    #[serde(default)]
    prefix: Option<String>,
    /// The document; its bytes are kept as they are.
    #[serde(borrow)]
    metadata: &'a RawValue,
}

/// The answer: it is durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PushAnswer {
    /// The document.
    pub(crate) sha256: Hex32,
    /// Its length.
    pub(crate) bytes: u64,
    /// How many agents it is for.
    pub(crate) agents: usize,
    /// For how many of them it is new.
    pub(crate) new: usize,
}

/// Who is meant, and the document.
enum To {
    Agents(BTreeSet<AgentId>),
    Prefix(String),
}

fn parse(request: &Bytes, bytes_max: usize) -> Result<(To, ValidDocument), ApiError> {
    let bad = |what: String| ApiError::bad_request("bad_request", what);
    let PushRequest { agents, prefix, metadata } =
        serde_json::from_slice(request).map_err(|e| bad(e.to_string()))?;
    let to = match (agents, prefix) {
        (Some(agents), None) => To::Agents(agents),
        (None, Some(prefix)) => To::Prefix(prefix),
        _ => return Err(bad("one of \"agents\" and \"prefix\" says for whom it is".into())),
    };
    let body = request.slice_ref(metadata.get().as_bytes());
    if body.len() > bytes_max {
        return Err(DocumentError::TooLarge { bytes: body.len() as u64, bytes_max }.into());
    }
    // A copy, so that the ids do not stay in memory with it.
    let document = ValidDocument::check(Bytes::copy_from_slice(&body), bytes_max)?;
    Ok((to, document))
}

fn recipients(store: &Store, to: To) -> Result<Vec<AgentId>, StoreError> {
    match to {
        To::Agents(agents) => Ok(agents.into_iter().collect()),
        To::Prefix(prefix) => store.pinned_agents(&prefix),
    }
}

pub(super) async fn push(
    State(state): State<super::State>,
    body: Body,
) -> Result<Json<PushAnswer>, ApiError> {
    let bytes_max = state.inner.config.document_bytes_max;
    let body = body::read(body, bytes_max + AGENTS_BYTES_MAX).await?;
    // Megabytes of JSON take a while: not on the event loop.
    let (to, document) = tokio::task::spawn_blocking(move || parse(&body, bytes_max))
        .await
        .map_err(|_| ApiError::from(StoreError::Closed))??;
    let agents = state.read(move |store| recipients(store, to)).await?;
    let answer = PushAnswer {
        sha256: Hex32(document.sha256()),
        bytes: document.body().len() as u64,
        agents: agents.len(),
        new: 0,
    };
    let write = Write::PutDocuments { agents, document, accepted_unix_ms: clock::unix_ms() };
    match state.write(write).await? {
        Outcome::Documents(documents) => Ok(Json(PushAnswer { new: documents.len(), ..answer })),
        other => Err(other.unexpected().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(request: &str) -> Result<(To, ValidDocument), ApiError> {
        parse(&Bytes::copy_from_slice(request.as_bytes()), 64)
    }

    #[test]
    fn the_document_is_taken_byte_for_byte_and_needs_a_recipient() {
        let (to, document) =
            parsed(r#"{"prefix":"web-", "metadata": { "deployments" : [ ] }}"#).unwrap();
        assert!(matches!(to, To::Prefix(prefix) if prefix == "web-"));
        assert_eq!(&document.body()[..], br#"{ "deployments" : [ ] }"#);
        let twice = r#"{"agents":["a","b","a"],"metadata":{"deployments":[]}}"#;
        let (to, _) = parsed(twice).unwrap();
        assert!(matches!(to, To::Agents(agents) if agents.len() == 2));
        let large = format!(r#"{{"prefix":"","metadata":{{"a":"{}"}}}}"#, "x".repeat(64));
        for bad in [
            r#"{"metadata":{}}"#,
            r#"{"agents":[],"prefix":"","metadata":{}}"#,
            r#"{"agents":["/"],"metadata":{}}"#,
            r#"{"agents":["a"]}"#,
            r#"{"agents":["a"],"metadata":[]}"#,
            r#"{"agents":["a"],"metadata":{},"more":1}"#,
            &large,
        ] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
    }
}
