//! Queues of messages, as Heat's messaging service: what Heat posts for an agent, and signals that Heat
//! takes away.
//!
//! A queue belongs to a project and to the user who used it first. A message that is a metadata document
//! supersedes the one before it: what counts is the newest state. Once the queue is bound to an agent its
//! newest document is that agent's; before, it is kept here, so that the order of enrolment and push does
//! not matter.

pub(super) mod ops;
pub(crate) mod order;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use certs::AgentId;
use serde::{Deserialize, Serialize};

use self::order::Outline;
use super::types::StoredDocument;
use crate::document::ValidDocument;

/// Longest name of a queue, in characters: as Heat names its resources. (Zaqar stops at 64, which fails
/// the stacks of those who like long names.)
pub const QUEUE_NAME_CHARS_MAX: usize = 255;
/// Longest id of a project or user, in characters.
pub const KEYSTONE_ID_CHARS_MAX: usize = 64;
/// Queues of one project at a time.
pub const QUEUES_PER_PROJECT_MAX: u64 = 4_096;
/// Messages in a queue, other than documents.
pub const QUEUE_MESSAGES_MAX: u64 = 64;
/// Messages in one request.
pub const MESSAGES_PER_POST_MAX: usize = 20;
/// A page of messages ends after so many bytes of them.
pub const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Documents that no agent is bound to, and messages that nobody has taken, in all, in bytes.
pub const QUEUES_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// After so long without use a queue that no agent is bound to is forgotten, in milliseconds.
pub const UNUSED_MS_MAX: u64 = 14 * 24 * 3600 * 1000;
/// Pushes that follow one another within this time are a burst, in which order is doubtful, in milliseconds.
pub const BURST_MS: u64 = 10_000;
/// Queues looked at by one sweep.
pub const SWEPT_PER_WRITE_MAX: usize = 1_000;

/// A queue's full name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueKey {
    project: String,
    name: String,
}

/// Why something is no name of a queue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueueNameError {
    /// The queue's own name.
    #[error(
        "queue {0:?} must have 1 to {QUEUE_NAME_CHARS_MAX} letters, digits, dots, dashes and underscores"
    )]
    Name(String),
    /// The project's id.
    #[error("project {0:?} must have 1 to {KEYSTONE_ID_CHARS_MAX} letters, digits and dashes")]
    Project(String),
    /// A key without its project.
    #[error("{0:?} must be PROJECT_ID/QUEUE_ID, or PROJECT_ID/CONTAINER/OBJECT")]
    NoProject(String),
}

impl QueueKey {
    /// A queue of a project.
    ///
    /// # Errors
    /// One of the names is none.
    pub fn new(project: &str, name: &str) -> Result<Self, QueueNameError> {
        let shown = |text: &str| text.chars().take(QUEUE_NAME_CHARS_MAX + 1).collect();
        if !is_keystone_id(project) {
            return Err(QueueNameError::Project(shown(project)));
        }
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > QUEUE_NAME_CHARS_MAX || !name.chars().all(fits) {
            return Err(QueueNameError::Name(shown(name)));
        }
        Ok(Self { project: project.into(), name: name.into() })
    }

    /// An object of a project's account: a queue that keeps only its newest message, of which the order is
    /// never in doubt.
    ///
    /// # Errors
    /// One of the names is none.
    pub fn object(project: &str, container: &str, object: &str) -> Result<Self, QueueNameError> {
        let (container, object) = (Self::new(project, container)?, Self::new(project, object)?);
        let name = format!("{}/{}", container.name, object.name);
        Ok(Self { project: container.project, name })
    }

    fn read(project: &str, name: &str) -> Result<Self, QueueNameError> {
        match name.split_once('/') {
            Some((container, object)) => Self::object(project, container, object),
            None => Self::new(project, name),
        }
    }

    /// Whether it is an object of a container.
    pub fn is_object(&self) -> bool {
        self.name.contains('/')
    }

    /// Whose it is.
    pub fn project(&self) -> &str {
        &self.project
    }

    /// Its name in the project.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// As in the tables: neither part holds a zero byte.
    fn bytes(&self) -> Vec<u8> {
        [self.project.as_bytes(), &[0], self.name.as_bytes()].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let at = bytes.iter().position(|byte| *byte == 0)?;
        let (project, name) = bytes.split_at_checked(at)?;
        let text = |bytes| std::str::from_utf8(bytes).ok();
        Self::read(text(project)?, text(name.get(1..)?)?).ok()
    }
}

/// Whether this may be the id of a project or a user.
pub fn is_keystone_id(id: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    !id.is_empty() && id.len() <= KEYSTONE_ID_CHARS_MAX && id.chars().all(fits)
}

impl fmt::Display for QueueKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.project, self.name)
    }
}

impl FromStr for QueueKey {
    type Err = QueueNameError;

    fn from_str(text: &str) -> Result<Self, QueueNameError> {
        let no_project =
            || QueueNameError::NoProject(text.chars().take(QUEUE_NAME_CHARS_MAX).collect());
        let (project, name) = text.split_once('/').ok_or_else(no_project)?;
        Self::read(project, name)
    }
}

/// What is known of a queue.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueRecord {
    /// The user who used it first; nobody else of the project may.
    #[serde(default)]
    pub owner: Option<String>,
    /// The agent whose document its newest one is.
    #[serde(default)]
    pub agent: Option<AgentId>,
    /// When it was made, in milliseconds since 1970.
    pub created_unix_ms: u64,
    /// When it was last written to or bound, in milliseconds since 1970.
    pub used_unix_ms: u64,
    /// Number of the newest message.
    pub last_message: u64,
    /// Messages kept, without the document.
    pub messages: u64,
    /// Bytes kept here: messages, and the document as long as it is not an agent's.
    pub bytes: u64,
    /// Documents that came.
    pub pushes: u64,
    /// When the newest document came, in milliseconds since 1970.
    #[serde(default)]
    pub pushed_unix_ms: u64,
    /// Since when Heat should be asked what is in force, in milliseconds since 1970.
    #[serde(default)]
    pub unsettled_since_unix_ms: Option<u64>,
    /// Id of the server in Heat, as a document said.
    #[serde(default)]
    pub server_id: Option<String>,
}

/// A metadata document to be posted.
#[derive(Clone)]
pub struct NewDocument {
    valid: ValidDocument,
    /// What of it tells its age: read here, so that the store's one writer need not read it.
    outline: Arc<Outline>,
}

impl From<ValidDocument> for NewDocument {
    fn from(valid: ValidDocument) -> Self {
        let outline = Arc::new(Outline::of(valid.body()));
        Self { valid, outline }
    }
}

/// A message to be posted.
#[derive(Clone)]
pub struct NewMessage {
    /// The bytes of its body: any JSON.
    pub body: Bytes,
    /// For how long, in seconds.
    pub ttl_s: u64,
    /// The same, checked, if it is a metadata document.
    pub document: Option<NewDocument>,
}

/// Messages carry secrets.
impl fmt::Debug for NewMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewMessage")
            .field("bytes", &self.body.len())
            .field("is_document", &self.document.is_some())
            .finish_non_exhaustive()
    }
}

/// A message as it is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredMessage {
    /// Ascending within the queue.
    pub number: u64,
    /// For how long, in seconds.
    pub ttl_s: u64,
    /// When it was posted, in milliseconds since 1970.
    pub posted_unix_ms: u64,
    /// Which client posted it, in its own words.
    pub client: String,
    /// The bytes of its body.
    pub body: Bytes,
}

/// Messages carry secrets.
impl fmt::Debug for StoredMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredMessage")
            .field("number", &self.number)
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// Which messages of a queue are wanted; never those that have expired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessagesQuery {
    /// With numbers above this one.
    pub after: u64,
    /// At most so many. The page may be shorter, as [`PAGE_BYTES_MAX`] says, but not empty for that.
    pub limit: usize,
    /// Not those that this client has posted.
    pub not_of_client: Option<String>,
    /// Now, in milliseconds since 1970.
    pub now_unix_ms: u64,
}

/// An object in the list of its container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredObject {
    /// Its name in the container.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// When it was last written, in milliseconds since 1970.
    pub modified_unix_ms: u64,
}

/// A change to a queue. `user` is who asks, where that is known.
#[derive(Debug, Clone)]
pub enum QueueWrite {
    /// Makes it, if it is not there. → [`QueueOutcome::Made`]
    Make {
        /// Which.
        queue: QueueKey,
        /// Who asks.
        user: Option<String>,
        /// Now, in milliseconds since 1970.
        now_unix_ms: u64,
    },
    /// Removes it with its messages; what an agent has stays in force. → [`QueueOutcome::Done`]
    Remove {
        /// Which.
        queue: QueueKey,
        /// Who asks.
        user: Option<String>,
    },
    /// Adds messages. → [`QueueOutcome::Posted`]
    Post {
        /// To which.
        queue: QueueKey,
        /// Who asks.
        user: Option<String>,
        /// The client's id, in its own words.
        client: String,
        /// What.
        messages: Vec<NewMessage>,
        /// Now, in milliseconds since 1970.
        now_unix_ms: u64,
    },
    /// Takes the oldest messages away and returns them. → [`QueueOutcome::Taken`]
    Take {
        /// From which.
        queue: QueueKey,
        /// Who asks.
        user: Option<String>,
        /// How many at most.
        count: usize,
        /// Now, in milliseconds since 1970.
        now_unix_ms: u64,
    },
    /// Removes messages by number. → [`QueueOutcome::Done`]
    Drop {
        /// From which.
        queue: QueueKey,
        /// Who asks.
        user: Option<String>,
        /// Which.
        numbers: Vec<u64>,
    },
    /// From here on the queue's newest document is this agent's, and no other queue's is; nor is Heat polled
    /// for it. → [`QueueOutcome::Bound`]
    Bind {
        /// Which.
        queue: QueueKey,
        /// Whose.
        agent: AgentId,
        /// Who may use it, if that is known; what others have put into it is dropped.
        owner: Option<String>,
        /// Now, in milliseconds since 1970.
        now_unix_ms: u64,
    },
    /// What Heat said is in force, if no document has come since. → [`QueueOutcome::Settled`]
    Settle {
        /// Of which.
        queue: QueueKey,
        /// [`QueueRecord::pushes`] when Heat was asked.
        pushes: u64,
        /// What is in force; `None`: what came last.
        document: Option<ValidDocument>,
        /// Now, in milliseconds since 1970.
        now_unix_ms: u64,
    },
    /// Forgets what has expired, from one queue on. → [`QueueOutcome::Swept`]
    Sweep {
        /// The first to look at.
        from: Option<QueueKey>,
        /// Now, in milliseconds since 1970.
        now_unix_ms: u64,
    },
}

impl QueueWrite {
    /// About how many bytes it adds to the store.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Post { messages, .. } => messages.iter().map(|message| message.body.len()).sum(),
            Self::Settle { document: Some(document), .. } => document.body().len(),
            _ => 0,
        }
    }
}

/// A new document in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// For whom.
    pub agent: AgentId,
    /// What.
    pub document: StoredDocument,
}

/// What a change did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueOutcome {
    /// Nothing to tell.
    Done,
    /// The queue is there.
    Made {
        /// False if it was there before.
        is_new: bool,
    },
    /// The messages are kept.
    Posted {
        /// Their numbers.
        numbers: Vec<u64>,
        /// The agent's new document, if one of them became that.
        pushed: Option<Pushed>,
        /// Whether Heat should be asked what is in force.
        is_unsettled: bool,
    },
    /// Messages that were there and are gone, the oldest first.
    Taken(Vec<StoredMessage>),
    /// The queue is the agent's.
    Bound {
        /// The agent's new document, if the queue had one.
        pushed: Option<Pushed>,
        /// Whose it was before.
        moved_from: Option<AgentId>,
    },
    /// The queue is settled.
    Settled {
        /// The agent's new document, if that was not in force.
        pushed: Option<Pushed>,
        /// False if documents came meanwhile: ask again.
        is_done: bool,
    },
    /// Where to go on; `None` at the end.
    Swept(Option<QueueKey>),
    /// Nothing was done: the queue is another user's.
    NotYours,
    /// Nothing was done: no room.
    Full {
        /// Of what there is too much.
        what: &'static str,
        /// The limit.
        max: u64,
    },
}

impl QueueOutcome {
    /// The document that came into force by it.
    pub(crate) fn pushed(&self) -> Option<&Pushed> {
        match self {
            Self::Posted { pushed, .. }
            | Self::Bound { pushed, .. }
            | Self::Settled { pushed, .. } => pushed.as_ref(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
