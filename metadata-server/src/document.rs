//! What a metadata document must look like before it is accepted, and what is wrong with one that is not.
//!
//! The document is kept and pushed byte for byte as it came; only its shape is checked: one JSON object
//! with a `deployments` list whose entries are objects with a unique string `id`. Everything else belongs
//! to Heat and to the hooks. The check is one pass that keeps only an outline of the list, and it recurses no deeper than the agent's own parser will (128 levels).

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;

use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use thiserror::Error;

/// Largest document accepted unless the configuration says otherwise.
pub const DOCUMENT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most deployments in a document: as many as an agent can report on.
pub const DEPLOYMENTS_MAX: usize = metadata_delivery::message::DEPLOYMENTS_MAX;
/// Longest `id`, `name` and `group` of a deployment, in characters: what Heat's database holds.
pub const FIELD_CHARS_MAX: usize = 255;
/// Most JSON values in a document, keys aside. Parsed, each takes some 80 bytes, however short its text is:
/// a list of a million zeros is a document of 2 MB that must not become 80 in every place that reads it.
pub const VALUES_MAX: usize = 500_000;
/// Most problems listed for one document; the rest are only counted.
const PROBLEMS_LISTED_MAX: usize = 8;

/// A document whose shape was checked, with the digest under which it is compared and delivered.
#[derive(Clone, PartialEq, Eq)]
pub struct ValidDocument {
    body: Bytes,
    sha256: [u8; 32],
    deployments: usize,
}

impl ValidDocument {
    /// Checks `body`, at most `bytes_max` long.
    ///
    /// # Errors
    /// Too large, not JSON, or JSON of another shape; see [`DocumentError`].
    pub fn check(body: Bytes, bytes_max: usize) -> Result<Self, DocumentError> {
        if body.len() > bytes_max {
            return Err(DocumentError::TooLarge { bytes: body.len() as u64, bytes_max });
        }
        let mut json = serde_json::Deserializer::from_slice(&body);
        let left = Cell::new(VALUES_MAX);
        let outline = Value::document(&left)
            .deserialize(&mut json)
            .and_then(|outline| json.end().map(|()| outline))
            .map_err(|e| match e.is_data() && left.get() == 0 {
                true => DocumentError::TooManyValues,
                false => DocumentError::not_json(&e),
            })?;
        let deployments = outline.check()?;
        Ok(Self { sha256: sha256(&body), body, deployments })
    }

    /// The bytes as they came.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// SHA-256 over the bytes.
    pub fn sha256(&self) -> [u8; 32] {
        self.sha256
    }

    /// How many deployments it lists.
    pub fn deployments(&self) -> usize {
        self.deployments
    }
}

impl fmt::Debug for ValidDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Documents carry passwords in their inputs: never their content.
        f.debug_struct("ValidDocument")
            .field("bytes", &self.body.len())
            .field("deployments", &self.deployments)
            .finish_non_exhaustive()
    }
}

/// The ids of the deployments that an accepted document lists; none if it cannot be read.
pub fn config_ids(body: &[u8]) -> Vec<String> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let outline = Value::document(&Cell::new(usize::MAX)).deserialize(&mut json);
    let Ok(outline) = outline else { return Vec::new() };
    let Some(Node::List(entries, _)) = outline.get("deployments") else { return Vec::new() };
    let id = |entry: &Node| match entry.get("id") {
        Some(Node::Text(id)) => Some(id.clone()),
        _ => None,
    };
    entries.iter().filter_map(id).collect()
}

/// SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    let mut out = [0; 32];
    out.copy_from_slice(digest.as_ref());
    out
}

/// Why a document is not accepted. The one in force stays.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// More bytes than allowed.
    #[error("the document has {bytes} bytes, the limit is {bytes_max}")]
    TooLarge {
        /// Its size (as far as it was read).
        bytes: u64,
        /// The limit in force.
        bytes_max: usize,
    },
    /// More than [`VALUES_MAX`] values.
    #[error("the document has more than {VALUES_MAX} JSON values")]
    TooManyValues,
    /// A syntax error, or nested too deeply.
    #[error("not JSON: line {line}, column {column}: {what}")]
    NotJson {
        /// Line of the error, from 1.
        line: usize,
        /// Column of the error, from 1 (0 at the start of a line).
        column: usize,
        /// What the parser expected or met.
        what: String,
    },
    /// JSON, but not a metadata document.
    #[error("{}", list(.problems, *.more))]
    Shape {
        /// The first few problems, in the document's order.
        problems: Vec<Problem>,
        /// How many more there are.
        more: usize,
    },
}

impl DocumentError {
    /// The stable name of the error in API answers.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "document_too_large",
            Self::TooManyValues => "document_too_large",
            Self::NotJson { .. } => "document_not_json",
            Self::Shape { .. } => "document_invalid",
        }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::TooLarge { .. } => {
                "make the document smaller, or raise document_bytes_max in the configuration".into()
            }
            Self::TooManyValues => "hand large data over as one text".into(),
            Self::NotJson { line, .. } => {
                format!("look at line {line}; \"python3 -m json.tool FILE\" checks a file")
            }
            Self::Shape { problems, .. } => match problems.first().map(|p| p.kind) {
                Some(ProblemKind::Missing) => {
                    "a document without work says so: {\"deployments\": []}".into()
                }
                _ => "a document is {\"deployments\": [{\"id\": \"…\", \"name\": \"…\", \"group\": \"script\", …}]}"
                    .into(),
            },
        }
    }

    fn not_json(error: &serde_json::Error) -> Self {
        let text = error.to_string();
        let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
        Self::NotJson { line: error.line(), column: error.column(), what: what.to_owned() }
    }
}

/// One thing wrong with a document, at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where: a JSON pointer (RFC 6901); empty for the whole document.
    pub pointer: String,
    /// What is there and what should be.
    pub message: String,
    kind: ProblemKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ProblemKind {
    Missing,
    Wrong,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pointer.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.pointer, self.message)
        }
    }
}

fn list(problems: &[Problem], more: usize) -> String {
    let mut text = problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("; ");
    if more > 0 {
        text.push_str(&format!("; and {more} more"));
    }
    text
}

/// Collects problems, keeping the first few.
#[derive(Default)]
struct Problems {
    listed: Vec<Problem>,
    more: usize,
}

impl Problems {
    fn add(&mut self, pointer: impl Into<String>, kind: ProblemKind, message: impl Into<String>) {
        if self.listed.len() < PROBLEMS_LISTED_MAX {
            self.listed.push(Problem { pointer: pointer.into(), message: message.into(), kind });
        } else {
            self.more += 1;
        }
    }

    fn wrong(&mut self, pointer: impl Into<String>, message: impl Into<String>) {
        self.add(pointer, ProblemKind::Wrong, message);
    }
}

/// The outline of a JSON value: its type, and the parts of it that are checked.
enum Node {
    /// null, a boolean or a number: only what it is called.
    Scalar(&'static str),
    Text(String),
    /// Of the deployments, [`DEPLOYMENTS_MAX`] are kept; the number is that of all.
    List(Vec<Self>, usize),
    Object(Vec<(&'static str, Self)>),
}

impl Node {
    fn kind(&self) -> &'static str {
        match self {
            Self::Scalar(kind) => kind,
            Self::Text(_) => "a string",
            Self::List(..) => "a list",
            Self::Object(_) => "an object",
        }
    }

    fn is_null(&self) -> bool {
        matches!(self, Self::Scalar("null"))
    }

    /// The member `key`; of several the last, as parsers do.
    fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => members.iter().rev().find(|(k, _)| *k == key).map(|(_, v)| v),
            _ => None,
        }
    }

    /// How many deployments the document lists.
    fn check(&self) -> Result<usize, DocumentError> {
        let mut problems = Problems::default();
        let mut count = 0;
        match (self, self.get("deployments")) {
            (Self::Object(_), Some(Self::List(entries, length))) => {
                count = *length;
                if count > DEPLOYMENTS_MAX {
                    let message = format!("has {count} entries, the limit is {DEPLOYMENTS_MAX}");
                    problems.wrong("/deployments", message);
                }
                check_entries(entries, &mut problems);
            }
            (Self::Object(_), Some(other)) => {
                let message = format!("is {}, must be a list of objects", other.kind());
                problems.wrong("/deployments", message);
            }
            (Self::Object(_), None) => {
                problems.add("", ProblemKind::Missing, "the document has no \"deployments\" list");
            }
            (other, _) => {
                problems.wrong("", format!("the document is {}, must be an object", other.kind()));
            }
        }
        if problems.listed.is_empty() {
            Ok(count)
        } else {
            Err(DocumentError::Shape { problems: problems.listed, more: problems.more })
        }
    }
}

fn check_entries(entries: &[Node], problems: &mut Problems) {
    let mut seen: HashMap<&str, usize> = HashMap::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        let at = format!("/deployments/{index}");
        if !matches!(entry, Node::Object(_)) {
            problems.wrong(at, format!("is {}, must be an object", entry.kind()));
            continue;
        }
        match entry.get("id") {
            None => problems.wrong(at.as_str(), "has no \"id\""),
            Some(Node::Text(id)) => {
                if let Some(why) = bad_id(id) {
                    problems.wrong(format!("{at}/id"), why);
                } else if let Some(first) = seen.insert(id, index) {
                    let message = format!("{id:?} is also the id of /deployments/{first}");
                    problems.wrong(format!("{at}/id"), message);
                }
            }
            Some(other) => {
                problems
                    .wrong(format!("{at}/id"), format!("is {}, must be a string", other.kind()));
            }
        }
        for (key, wanted) in [
            ("name", "a string"),
            ("group", "a string"),
            ("inputs", "a list"),
            ("outputs", "a list"),
        ] {
            let Some(value) = entry.get(key).filter(|value| !value.is_null()) else { continue };
            let at = format!("{at}/{key}");
            match value {
                Node::Text(text) if wanted == "a string" => {
                    if let Some(why) = too_long(text) {
                        problems.wrong(at, why);
                    }
                }
                other if other.kind() == wanted => {}
                other => problems.wrong(at, format!("is {}, must be {wanted}", other.kind())),
            }
        }
    }
}

fn too_long(text: &str) -> Option<String> {
    let chars = text.chars().count();
    (chars > FIELD_CHARS_MAX)
        .then(|| format!("has {chars} characters, the limit is {FIELD_CHARS_MAX}"))
}

/// An id names journal entries and files at the agent, so it must be fit for both.
fn bad_id(id: &str) -> Option<String> {
    if id.is_empty() {
        Some("is empty".into())
    } else if let Some(why) = too_long(id) {
        Some(why)
    } else if id.starts_with('.') || id.chars().any(|c| c == '/' || c.is_control()) {
        Some(format!("{id:?} starts with a dot or has a slash or control character"))
    } else {
        None
    }
}

/// Where in the document a value stands, which decides what is kept of it.
#[derive(Clone, Copy)]
enum Place {
    Document,
    Deployments,
    Entry,
    /// A string or list whose type is checked.
    Field,
    /// Anywhere else: only walked. Not by `IgnoredAny`, which skips the depth limit and the check of
    /// strings for UTF-8; the agent would then refuse what was accepted here.
    Elsewhere,
}

impl Place {
    /// The member of an object here that is kept, and where that stands.
    fn member(self, key: &str) -> Option<(&'static str, Self)> {
        match self {
            Self::Document if key == "deployments" => Some(("deployments", Self::Deployments)),
            Self::Entry => ["id", "name", "group", "inputs", "outputs"]
                .into_iter()
                .find(|k| *k == key)
                .map(|k| (k, Self::Field)),
            _ => None,
        }
    }
}

/// A value to be walked.
#[derive(Clone, Copy)]
struct Value<'c> {
    place: Place,
    /// How many more values there may be.
    left: &'c Cell<usize>,
}

impl<'c> Value<'c> {
    fn document(left: &'c Cell<usize>) -> Self {
        Self { place: Place::Document, left }
    }

    fn at(self, place: Place) -> Self {
        Self { place, ..self }
    }
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        match self.left.get().checked_sub(1) {
            Some(left) => self.left.set(left),
            None => return Err(D::Error::custom("too many values")),
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar("null"))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Scalar("a boolean"))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Scalar("a number"))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
        Ok(Node::Scalar("a number"))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Scalar("a number"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(if matches!(self.place, Place::Field) {
            text.to_owned()
        } else {
            String::new()
        }))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut kept = Vec::new();
        let mut length = 0;
        loop {
            let keep = matches!(self.place, Place::Deployments) && length < DEPLOYMENTS_MAX;
            let place = if keep { Place::Entry } else { Place::Elsewhere };
            let Some(entry) = seq.next_element_seed(self.at(place))? else { break };
            length += 1;
            if keep {
                kept.push(entry);
            }
        }
        Ok(Node::List(kept, length))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut kept = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            match self.place.member(&key) {
                Some((name, place)) => kept.push((name, map.next_value_seed(self.at(place))?)),
                None => {
                    map.next_value_seed(self.at(Place::Elsewhere))?;
                }
            }
        }
        Ok(Node::Object(kept))
    }
}

#[cfg(test)]
mod tests;
