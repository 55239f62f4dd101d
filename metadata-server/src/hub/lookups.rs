//! What the hub looks up in the store: documents in the form that costs least, and what an agent should hold.

use certs::AgentId;
use metadata_delivery::message::Holds;
use metadata_delivery::{Base, Form};

use super::core::{Input, Loaded, LoadedDocument, PeerId};
use super::pushes::Job;
use crate::store::{Outcome, Store, StoreError, StoredDocument, View};

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
    let standing = view.standing(agent)?;
    let head = view.document_head(agent)?;
    let document = match (head, holds) {
        (Some(head), Some(holds))
            if head.version == holds.version && head.sha256 == holds.sha256 =>
        {
            LoadedDocument::Held
        }
        (head, Some(holds)) if holds.version >= head.as_ref().map_or(0, |h| h.version) => {
            LoadedDocument::Ahead
        }
        (Some(head), _) => LoadedDocument::Push(view.body(agent, head)?),
        (None, _) => LoadedDocument::None,
    };
    Ok(Loaded { standing, document })
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
    Ok(Loaded { standing: None, document })
}
