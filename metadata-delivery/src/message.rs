//! The application's documents: JSON with a type.
//!
//! | name | direction | version | type |
//! |---|---|---|---|
//! | `hello` | agent → server | 1 | [`Hello`] |
//! | `welcome` | server → agent | 1 | [`Welcome`] |
//! | `metadata` | server → agent | per agent, ascending | the accepted JSON, byte for byte |
//! | `progress` | agent → server | per association, ascending | [`Progress`] |
//! | `result/<config id>` | agent → server | [`DeploymentResult::run`] | [`DeploymentResult`] |
//! | `signal/<id>` | agent → server | 1 | [`WaitSignal`] |
//! | `log-request` | server → agent | per association, ascending | [`LogRequest`] |
//! | `log` | agent → server | per association, ascending | [`Log`] |
//!
//! Fields that a reader does not know are skipped, and optional fields may be absent, so that
//! neighbouring versions talk to each other.

mod log;

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

pub use self::log::{
    LOG, LOG_BYTES_MAX, LOG_REQUEST, LOG_REQUEST_BYTES_MAX, LOG_RUNS_MAX, Log, LogPiece,
    LogPosition, LogRequest,
};
use crate::{Document, Name};

/// Version of the documents in this module.
pub const PROTOCOL: u32 = 1;

/// Name of [`Hello`].
pub const HELLO: &str = "hello";
/// Name of [`Welcome`].
pub const WELCOME: &str = "welcome";
/// Name of the metadata document.
pub const METADATA: &str = "metadata";
/// Name of [`Progress`].
pub const PROGRESS: &str = "progress";
/// What the name of a [`DeploymentResult`] begins with; the config id follows.
pub const RESULT_PREFIX: &str = "result/";
/// What the name of a [`WaitSignal`] begins with; its id follows.
pub const SIGNAL_PREFIX: &str = "signal/";

/// Longest [`Hello`] as JSON, in bytes.
pub const HELLO_BYTES_MAX: usize = 4 << 10;
/// Longest [`Welcome`] as JSON, in bytes.
pub const WELCOME_BYTES_MAX: usize = 4 << 10;
/// Longest [`Progress`] as JSON, in bytes.
pub const PROGRESS_BYTES_MAX: usize = 1 << 20;
/// Longest [`DeploymentResult`] as JSON, in bytes: Heat's own limit for a request body.
pub const RESULT_BYTES_MAX: usize = 1 << 20;
/// Longest [`WaitSignal`] as JSON, in bytes.
pub const SIGNAL_BYTES_MAX: usize = 64 << 10;
/// Longest URL of a [`WaitSignal`], in bytes.
pub const SIGNAL_URL_BYTES_MAX: usize = 4 << 10;
/// Longest id of a [`WaitSignal`], in bytes.
pub const SIGNAL_ID_BYTES_MAX: usize = 64;
/// Longest identifier or name inside a message (agent, token, config, software …), in bytes.
pub const FIELD_BYTES_MAX: usize = 1024;
/// Most deployments in one [`Progress`].
pub const DEPLOYMENTS_MAX: usize = 4096;

/// Why a message was not read or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MessageError {
    /// More bytes than this kind of message may have.
    #[error("a {kind} has at most {max} bytes as JSON, this one has {bytes}")]
    TooLong {
        /// The kind of message.
        kind: &'static str,
        /// Its length.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// Not the JSON expected. The text names the line, column and field, never the content.
    #[error("this is no {kind}: {source}")]
    Json {
        /// The kind of message expected.
        kind: &'static str,
        /// Where and why parsing stopped.
        source: serde_json::Error,
    },
    /// A field has a value that is not allowed.
    #[error("{kind}: {field} {what}")]
    Field {
        /// The kind of message.
        kind: &'static str,
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        what: String,
    },
}

/// A typed document: knows its name, its size limit and what its fields may hold.
pub trait Message: Serialize + DeserializeOwned {
    /// What to call it in errors.
    const KIND: &'static str;
    /// Longest JSON form, in bytes.
    const BYTES_MAX: usize;

    /// The name of the document that carries this message.
    fn name(&self) -> Name;

    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// [`MessageError::Field`] names the field and the reason.
    fn validate(&self) -> Result<(), MessageError>;

    /// The message as a document of the given version, validated.
    ///
    /// # Errors
    /// [`MessageError`] when a field is not allowed or the JSON is too long.
    fn to_document(&self, version: u64) -> Result<Document, MessageError> {
        self.validate()?;
        let body = serde_json::to_vec(self)
            .map_err(|source| MessageError::Json { kind: Self::KIND, source })?;
        check_length::<Self>(body.len())?;
        Ok(Document { name: self.name(), version, body: Bytes::from(body) })
    }

    /// Reads a document's body, validated.
    ///
    /// # Errors
    /// [`MessageError`] when it is too long, not the JSON expected, or a field is not allowed.
    fn from_body(body: &[u8]) -> Result<Self, MessageError> {
        check_length::<Self>(body.len())?;
        let message: Self = serde_json::from_slice(body)
            .map_err(|source| MessageError::Json { kind: Self::KIND, source })?;
        message.validate()?;
        Ok(message)
    }
}

/// First thing an agent says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL`] of the sender.
    pub protocol: u32,
    /// Who the agent is.
    pub agent_id: String,
    /// Name and version of the agent's program.
    pub software: String,
    /// Kernel boot id, so that the server sees a reboot.
    pub boot_id: String,
    /// Proof of an enrolment token, when the agent is not known to be pinned yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrol: Option<Enrol>,
    /// The metadata document that the agent already holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holds: Option<Holds>,
}

/// Proof that the agent has an enrolment token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrol {
    /// Which token.
    pub token_id: String,
    /// Keyed MAC over the DTLS exporter, both fingerprints and ids; worthless elsewhere.
    pub proof: Hex32,
}

/// A metadata document that an agent holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holds {
    /// Its version.
    pub version: u64,
    /// SHA-256 of its bytes.
    pub sha256: Hex32,
}

/// The server's answer to [`Hello`]: the agent is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// [`PROTOCOL`] of the sender.
    pub protocol: u32,
    /// Name and version of the server's program.
    pub software: String,
    /// Whom the server takes the agent for.
    pub agent_id: String,
    /// How often the agent should give a sign of life, in seconds, at least 1.
    pub keep_alive_s: u32,
    /// The newest metadata document in force for the agent, so that one that holds it knows at once
    /// that it is up to date. None: there is no document, or the server is of a release that does
    /// not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<Holds>,
    /// When the server stops, agents come back at random times within so many milliseconds: a fleet that is back at
    /// once is a storm. None: whenever the agent sees fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub return_within_ms: Option<u32>,
}

/// Where the agent stands with a document; the newest snapshot replaces earlier ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Version of the metadata document this is about.
    pub document_version: u64,
    /// Every deployment of that document, in its order.
    pub deployments: Vec<DeploymentProgress>,
}

/// One deployment in [`Progress`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentProgress {
    /// Id of the derived config.
    pub id: String,
    /// Name of the config.
    pub name: String,
    /// Its group, which chose the hook.
    pub group: String,
    /// Where it stands.
    pub state: DeploymentState,
    /// When that state began, in milliseconds since 1970.
    pub since_unix_ms: u64,
    /// The end of what the hook has printed so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_tail: Option<String>,
}

/// Output of a hook may hold secrets: only its size is shown.
impl fmt::Debug for DeploymentProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeploymentProgress")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("group", &self.group)
            .field("state", &self.state)
            .field("since_unix_ms", &self.since_unix_ms)
            .field("output_tail_bytes", &self.output_tail.as_ref().map(String::len))
            .finish()
    }
}

/// Where a deployment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeploymentState {
    /// Written to the journal, not started.
    Received,
    /// Its hook runs.
    Running,
    /// Ended well.
    Complete,
    /// Ended badly.
    Failed,
    /// The agent or the machine stopped while the hook ran.
    Interrupted,
    /// Nothing to do: it was run before, or is not for this agent.
    Skipped,
    /// A state of a newer version.
    #[serde(other)]
    Unknown,
}

impl fmt::Display for DeploymentState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Received => "received",
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
            Self::Skipped => "skipped",
            Self::Unknown => "unknown",
        })
    }
}

/// How one deployment ended. Sent until the server has made it durable.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct DeploymentResult {
    /// Id of the derived config: with it the server finds the deployment.
    pub config_id: String,
    /// Name of the config.
    pub name: String,
    /// Its group.
    pub group: String,
    /// Heat's action: CREATE, UPDATE, DELETE, SUSPEND or RESUME; empty when the document had none.
    #[serde(default)]
    pub action: String,
    /// Version of the metadata document that asked for it.
    pub document_version: u64,
    /// The verdict.
    pub status: ResultStatus,
    /// What the hook printed.
    #[serde(default)]
    pub deploy_stdout: String,
    /// What the hook printed as errors.
    #[serde(default)]
    pub deploy_stderr: String,
    /// The hook's exit status; negative when a signal ended it.
    pub deploy_status_code: i64,
    /// Named outputs of the deployment.
    #[serde(default)]
    pub outputs: Map<String, Value>,
    /// Why the agent called it failed: interrupted, no such hook, bad entry …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When the hook was started, in milliseconds since 1970.
    pub started_unix_ms: u64,
    /// When it ended, in milliseconds since 1970.
    pub finished_unix_ms: u64,
    /// That somebody at the instance had it run once more; none for a config's first run. Of several
    /// results of a config the newest counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerun: Option<Rerun>,
}

/// A run after a config's first: a person asked for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rerun {
    /// Which run of the config this is, 2 or more.
    pub run: u64,
    /// Who asked, such as `user root (uid 0)`.
    pub asked_by: String,
    /// When, in milliseconds since 1970.
    pub asked_unix_ms: u64,
}

impl DeploymentResult {
    /// Which run of its config it is of, from 1; also the version of the document that carries it, so
    /// that the result of a later run replaces one that is still on its way.
    pub fn run(&self) -> u64 {
        self.rerun.as_ref().map_or(1, |rerun| rerun.run)
    }
}

/// A signal for a wait condition that the instance has no way to send itself: the server PUTs the body
/// to the URL. Sent until the server has made it durable.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitSignal {
    /// Tells it from others of the agent: 1..=[`SIGNAL_ID_BYTES_MAX`] of `a`–`z`, `0`–`9` and `-`.
    pub id: String,
    /// Where it goes, by HTTP or HTTPS.
    pub url: String,
    /// What is sent, as it is.
    pub body: String,
}

/// The URL opens the wait condition, and the body may hold secrets.
impl fmt::Debug for WaitSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitSignal")
            .field("id", &self.id)
            .field("url_bytes", &self.url.len())
            .field("body_bytes", &self.body.len())
            .finish()
    }
}

/// The verdict of a [`DeploymentResult`], in Heat's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ResultStatus {
    /// It went well.
    Complete,
    /// It did not.
    Failed,
}

impl fmt::Display for ResultStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Complete => "COMPLETE",
            Self::Failed => "FAILED",
        })
    }
}

/// Output and values of a hook may hold secrets: only their sizes are shown.
impl fmt::Debug for DeploymentResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeploymentResult")
            .field("config_id", &self.config_id)
            .field("name", &self.name)
            .field("document_version", &self.document_version)
            .field("status", &self.status)
            .field("deploy_status_code", &self.deploy_status_code)
            .field("stdout_bytes", &self.deploy_stdout.len())
            .field("stderr_bytes", &self.deploy_stderr.len())
            .field("outputs", &self.outputs.len())
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}

/// The name of the result of a config: `result/<id>`, or `result/sha256-<hex>` of an id that fits
/// no name. Total, so that even a nonsensical id gets its failure reported; the id itself is in
/// the message.
pub fn result_name(config_id: &str) -> Name {
    let plain = format!("{RESULT_PREFIX}{config_id}");
    match Name::new(&plain) {
        Ok(name) if !config_id.is_empty() => name,
        _ => {
            let digest = ring::digest::digest(&ring::digest::SHA256, config_id.as_bytes());
            let mut text = format!("{RESULT_PREFIX}sha256-");
            push_hex(digest.as_ref(), &mut text);
            known_name(&text)
        }
    }
}

/// A name known to be valid.
#[expect(clippy::expect_used, reason = "only called with this module's constants and hex digits")]
fn known_name(text: &str) -> Name {
    Name::new(text).expect("a valid name")
}

impl Message for Hello {
    const KIND: &'static str = "hello";
    const BYTES_MAX: usize = HELLO_BYTES_MAX;

    fn name(&self) -> Name {
        hello_name()
    }

    fn validate(&self) -> Result<(), MessageError> {
        field::<Self>("agent_id", &self.agent_id, 1)?;
        field::<Self>("software", &self.software, 0)?;
        field::<Self>("boot_id", &self.boot_id, 0)?;
        if let Some(enrol) = &self.enrol {
            field::<Self>("enrol.token_id", &enrol.token_id, 1)?;
        }
        Ok(())
    }
}

impl Message for Welcome {
    const KIND: &'static str = "welcome";
    const BYTES_MAX: usize = WELCOME_BYTES_MAX;

    fn name(&self) -> Name {
        static NAME: LazyLock<Name> = LazyLock::new(|| known_name(WELCOME));
        NAME.clone()
    }

    fn validate(&self) -> Result<(), MessageError> {
        field::<Self>("agent_id", &self.agent_id, 1)?;
        field::<Self>("software", &self.software, 0)?;
        if self.keep_alive_s == 0 {
            return Err(bad::<Self>("keep_alive_s", "must be at least 1"));
        }
        Ok(())
    }
}

impl Message for Progress {
    const KIND: &'static str = "progress";
    const BYTES_MAX: usize = PROGRESS_BYTES_MAX;

    fn name(&self) -> Name {
        known_name(PROGRESS)
    }

    fn validate(&self) -> Result<(), MessageError> {
        let count = self.deployments.len();
        if count > DEPLOYMENTS_MAX {
            let what = format!("has {count} entries, at most {DEPLOYMENTS_MAX} are allowed");
            return Err(bad::<Self>("deployments", what));
        }
        for deployment in &self.deployments {
            field::<Self>("deployments[].id", &deployment.id, 0)?;
            field::<Self>("deployments[].name", &deployment.name, 0)?;
            field::<Self>("deployments[].group", &deployment.group, 0)?;
        }
        Ok(())
    }
}

impl Message for DeploymentResult {
    const KIND: &'static str = "result";
    const BYTES_MAX: usize = RESULT_BYTES_MAX;

    fn name(&self) -> Name {
        result_name(&self.config_id)
    }

    fn validate(&self) -> Result<(), MessageError> {
        field::<Self>("config_id", &self.config_id, 0)?;
        field::<Self>("name", &self.name, 0)?;
        field::<Self>("group", &self.group, 0)?;
        field::<Self>("action", &self.action, 0)?;
        if let Some(rerun) = &self.rerun {
            field::<Self>("rerun.asked_by", &rerun.asked_by, 0)?;
        }
        Ok(())
    }
}

impl Message for WaitSignal {
    const KIND: &'static str = "signal";
    const BYTES_MAX: usize = SIGNAL_BYTES_MAX;

    fn name(&self) -> Name {
        Name::new(&format!("{SIGNAL_PREFIX}{}", self.id))
            .unwrap_or_else(|_| known_name("signal/invalid"))
    }

    fn validate(&self) -> Result<(), MessageError> {
        let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if !(1..=SIGNAL_ID_BYTES_MAX).contains(&self.id.len()) || !self.id.bytes().all(is_plain) {
            let what = format!("must be 1 to {SIGNAL_ID_BYTES_MAX} of a-z, 0-9 and -");
            return Err(bad::<Self>("id", what));
        }
        if self.url.len() > SIGNAL_URL_BYTES_MAX {
            let bytes = self.url.len();
            let what = format!("has {bytes} bytes, at most {SIGNAL_URL_BYTES_MAX} are allowed");
            return Err(bad::<Self>("url", what));
        }
        let is_http = ["http://", "https://"].iter().any(|scheme| self.url.starts_with(scheme));
        if !is_http || !self.url.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(bad::<Self>("url", "must be a URL that begins with http:// or https://"));
        }
        Ok(())
    }
}

fn check_length<M: Message>(bytes: usize) -> Result<(), MessageError> {
    if bytes > M::BYTES_MAX {
        return Err(MessageError::TooLong { kind: M::KIND, bytes, max: M::BYTES_MAX });
    }
    Ok(())
}

fn field<M: Message>(field: &'static str, text: &str, min: usize) -> Result<(), MessageError> {
    if text.len() < min {
        return Err(bad::<M>(field, "must not be empty"));
    }
    if text.len() > FIELD_BYTES_MAX {
        let what = format!("has {} bytes, at most {FIELD_BYTES_MAX} are allowed", text.len());
        return Err(bad::<M>(field, what));
    }
    Ok(())
}

fn bad<M: Message>(field: &'static str, what: impl Into<String>) -> MessageError {
    MessageError::Field { kind: M::KIND, field, what: what.into() }
}

/// 32 bytes, written as 64 hexadecimal digits in lower case; either case is read.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hex32(pub [u8; 32]);

/// Why a text is no [`Hex32`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("expected 64 hexadecimal digits")]
pub struct Hex32Error;

impl Hex32 {
    /// The SHA-256 of some bytes.
    pub fn sha256_of(bytes: &[u8]) -> Self {
        let mut out = [0; 32];
        out.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref());
        Self(out)
    }
}

fn push_hex(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            out.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
        }
    }
}

impl fmt::Display for Hex32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(64);
        push_hex(&self.0, &mut text);
        f.write_str(&text)
    }
}

impl fmt::Debug for Hex32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Hex32 {
    type Err = Hex32Error;

    fn from_str(text: &str) -> Result<Self, Hex32Error> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(Hex32Error);
        }
        let nibble = |byte: u8| char::from(byte).to_digit(16).ok_or(Hex32Error);
        let mut out = [0; 32];
        for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
            // Two nibbles: at most 255.
            *byte = (nibble(pair[0])? << 4 | nibble(pair[1])?) as u8;
        }
        Ok(Self(out))
    }
}

impl Serialize for Hex32 {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hex32 {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The name of an agent's hello.
pub fn hello_name() -> Name {
    static NAME: LazyLock<Name> = LazyLock::new(|| known_name(HELLO));
    NAME.clone()
}

/// The name of the metadata document.
pub fn metadata_name() -> Name {
    static NAME: LazyLock<Name> = LazyLock::new(|| known_name(METADATA));
    NAME.clone()
}

#[cfg(test)]
mod tests;
