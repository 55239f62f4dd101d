//! What the hub asks the store: what an agent should hold, and documents in the form that costs least.

use certs::AgentId;
use metadata_delivery::message::Holds;
use metadata_delivery::{Base, Form};

use super::core::{Input, Loaded, LoadedDocument, PeerId};
use super::pushes::Job;
use crate::store::{AtHand, Outcome, Store, StoreError, StoredDocument, View};

/// A form that was made; none if the document was replaced before it could be read.
pub(super) struct Made {
    pub(super) job: Job,
    pub(super) form: Result<Option<Form>, StoreError>,
}

/// Reads a document and what the agent holds, and encodes the one by means of the other.
pub(super) fn make(store: &Store, job: &Job, encode: bool) -> Result<Option<Form>, StoreError> {
    let Job { key, agent, .. } = job;
    let Some(StoredDocument { head, body }) = store.document(agent)? else { return Ok(None) };
    if head.sha256 != key.document {
        return Ok(None);
    }
    let form = Form::with_digest(body, head.sha256);
    if !encode {
        return Ok(Some(form));
    }
    let base = match key.base {
        Some(sha256) => store.base(agent, sha256)?.map(Base::new),
        None => None,
    };
    // What the store has kept may be another document than the agent says it holds.
    let base = base.filter(|base| Some(base.sha256()) == key.base);
    Ok(Some(form.encoded(base.as_ref())))
}

/// An agent that said hello: who, and what it holds.
pub(super) struct Arrival {
    pub(super) peer: PeerId,
    pub(super) agent: AgentId,
    pub(super) holds: Option<Holds>,
}

/// Compares what agents hold with what they should hold.
pub(super) fn load_all(store: &Store, arrivals: &[Arrival]) -> Vec<Input> {
    let one = |view: &View<'_>, arrival: &Arrival| load(view, &arrival.agent, arrival.holds);
    let at_once: Result<Vec<Loaded>, _> =
        store.view(|view| arrivals.iter().map(|arrival| one(view, arrival)).collect());
    match at_once {
        Ok(all) => arrivals.iter().zip(all).map(|(a, l)| Input::Loaded(a.peer, Ok(l))).collect(),
        // One whose record cannot be read must not fail the others: each on its own.
        Err(_) => {
            let alone = |a: &Arrival| Input::Loaded(a.peer, store.view(|view| one(view, a)));
            arrivals.iter().map(alone).collect()
        }
    }
}

fn load(view: &View<'_>, agent: &AgentId, holds: Option<Holds>) -> Result<Loaded, StoreError> {
    let applied_version = view.standing(agent)?.and_then(|standing| standing.applied_version);
    let head = view.document_head(agent)?;
    let document = head.as_ref().map(|h| Holds { version: h.version, sha256: h.sha256 });
    let document = match (compare(document, holds), head) {
        (Some(nothing_to_send), _) => nothing_to_send,
        (None, Some(head)) => LoadedDocument::Push(view.body(agent, head)?),
        (None, None) => LoadedDocument::None,
    };
    Ok(Loaded { applied_version, document })
}

/// What is to be done about an agent that holds this; none if it is to get the document, which has to be read.
fn compare(document: Option<Holds>, holds: Option<Holds>) -> Option<LoadedDocument> {
    match (document, holds) {
        (Some(document), Some(holds)) if document == holds => Some(LoadedDocument::Held),
        (document, Some(holds)) if holds.version >= document.map_or(0, |d| d.version) => {
            Some(LoadedDocument::Ahead)
        }
        (Some(_), _) => None,
        (None, _) => Some(LoadedDocument::None),
    }
}

/// The same as far as nothing needs to be read for it.
pub(super) fn at_hand(store: &Store, agent: &AgentId, holds: Option<Holds>) -> Option<Loaded> {
    let AtHand { document, applied_version } = store.at_hand(agent)?;
    compare(document, holds).map(|document| Loaded { applied_version, document })
}

/// What the agent gets after the store went on above what it holds.
pub(super) fn raised(
    outcome: Result<Outcome, StoreError>,
    holds: Holds,
) -> Result<Loaded, StoreError> {
    let document = match outcome? {
        Outcome::Document { document, .. } if document.head.sha256 == holds.sha256 => {
            LoadedDocument::Held
        }
        Outcome::Document { document, .. } => LoadedDocument::Push(document),
        Outcome::Done => LoadedDocument::None,
        other => return Err(other.unexpected()),
    };
    Ok(Loaded { applied_version: None, document })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use metadata_delivery::message::Hex32;

    use super::*;
    use crate::document::{DOCUMENT_BYTES_MAX, ValidDocument};
    use crate::store::MemoryBackend;
    use crate::store::{Write, writer::Writer};

    /// What an agent may hold of its second version, and what it then gets.
    #[tokio::test]
    async fn what_is_at_hand_says_the_same_as_the_store() {
        let store = Store::new(Arc::new(MemoryBackend::default())).unwrap();
        let (writer, thread) = Writer::start(store.clone(), Box::new(|_, _| {})).unwrap();
        let with: AgentId = "with".parse().unwrap();
        let mut sha256 = Hex32([0; 32]);
        for text in ["1", "2"] {
            let body = Bytes::from(format!(r#"{{"deployments": [], "x": {text}}}"#));
            let document = ValidDocument::check(body, DOCUMENT_BYTES_MAX).unwrap();
            sha256 = Hex32(document.sha256());
            let agent = with.clone();
            let put = Write::PutDocument { agent, document, accepted_unix_ms: 1 };
            writer.write(put).await.unwrap();
        }
        let without: AgentId = "without".parse().unwrap();
        let held = |version, sha256| Some(Holds { version, sha256 });
        let other = Hex32([7; 32]);
        for (agent, holds, expected) in [
            (&with, held(2, sha256), Some(LoadedDocument::Held)),
            (&with, held(2, other), Some(LoadedDocument::Ahead)),
            (&with, held(3, sha256), Some(LoadedDocument::Ahead)),
            (&with, held(1, sha256), None),
            (&with, None, None),
            (&without, held(1, other), Some(LoadedDocument::Ahead)),
            (&without, None, Some(LoadedDocument::None)),
        ] {
            let at_hand = at_hand(&store, agent, holds).map(|loaded| loaded.document);
            assert_eq!(at_hand, expected, "{agent} {holds:?}");
            let read = store.view(|view| load(view, agent, holds)).unwrap().document;
            match expected {
                Some(expected) => assert_eq!(read, expected, "{agent} {holds:?}"),
                None => assert!(
                    matches!(&read, LoadedDocument::Push(document) if document.head.sha256 == sha256),
                    "{agent} {holds:?}: {read:?}"
                ),
            }
        }
        drop(writer);
        thread.stop();
    }
}
