//! The enrolment token: one line that carries an agent from "unknown" to "pinned", once.
//!
//! ```text
//! mdt1.BASE64URL( JSON ‖ first 4 bytes of SHA-256(JSON) )
//! JSON = {"s":[addresses],"f":server fingerprint,"a":agent id,"t":token id,"k":secret,"e":expiry}
//! ```
//!
//! The line is URL-safe, needs no quoting in a shell or in YAML, and tells a cut or mistyped copy
//! apart from a refused one by its checksum. `mdt1` is the format's version; within it, unknown
//! JSON fields are skipped.
//!
//! A token is a password. It is printed once, belongs in a 0600 file or in instance user data,
//! and is worthless after its first use or its expiry.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::proof::{self, EXPORTER_BYTES, PROOF_BYTES, ProofKey, SECRET_BYTES};
use crate::{AgentId, Fingerprint};

mod record;

pub use record::{Claim, TokenRecord, TokenRefused};

/// What every token of this version starts with.
pub const TOKEN_PREFIX: &str = "mdt1.";

/// Longest token that is read, in characters. A token with all limits used up stays below it.
pub const TOKEN_CHARS_MAX: usize = 4096;

/// Most server addresses in one token.
pub const TOKEN_SERVERS_MAX: usize = 8;

/// Longest server address in a token, in characters: a DNS name (253), a colon and a port.
pub const TOKEN_SERVER_CHARS_MAX: usize = 259;

/// Longest token id, in characters.
pub const TOKEN_ID_CHARS_MAX: usize = 64;

/// Longest zone of a link-local address, in characters: Linux has no longer interface names.
const ZONE_CHARS_MAX: usize = 15;

const CHECKSUM_BYTES: usize = 4;
const TOKEN_ID_RANDOM_BYTES: usize = 16;

/// The public name of a token: what the agent sends beside its proof and what logs may show.
///
/// 1 to 64 lower-case letters and digits; 32 hex digits (128 random bits) when made here.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenId(String);

impl TokenId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text is not a token id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("token id must be 1 to {TOKEN_ID_CHARS_MAX} lower-case letters and digits")]
pub struct TokenIdError;

impl TryFrom<String> for TokenId {
    type Error = TokenIdError;

    fn try_from(id: String) -> Result<Self, Self::Error> {
        let fits = (1..=TOKEN_ID_CHARS_MAX).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if fits { Ok(Self(id)) } else { Err(TokenIdError) }
    }
}

impl FromStr for TokenId {
    type Err = TokenIdError;

    fn from_str(id: &str) -> Result<Self, Self::Err> {
        Self::try_from(id.to_owned())
    }
}

impl From<TokenId> for String {
    fn from(id: TokenId) -> Self {
        id.0
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What an agent needs to enrol: where the server is, what key it must show, and the secret.
///
/// `Debug` hides the secret; [`Self::encode`] is the only way to get it out.
#[derive(Clone)]
pub struct EnrolmentToken {
    /// Where the server listens, `host:port`, to be tried in this order.
    pub servers: Vec<String>,
    /// The server's certificate: the agent pins it before it sends anything.
    pub server_fingerprint: Fingerprint,
    /// Who the agent becomes.
    pub agent_id: AgentId,
    /// The token's public name.
    pub token_id: TokenId,
    /// First second (Unix time) at which the server no longer accepts the token.
    pub expires_unix: u64,
    secret: Zeroizing<[u8; SECRET_BYTES]>,
}

/// The JSON inside a token. Short names keep the line short.
#[derive(Serialize, Deserialize)]
struct Payload {
    #[serde(rename = "s")]
    servers: Vec<String>,
    #[serde(rename = "f")]
    server_fingerprint: String,
    #[serde(rename = "a")]
    agent_id: String,
    #[serde(rename = "t")]
    token_id: String,
    #[serde(rename = "k")]
    secret: Zeroizing<String>,
    #[serde(rename = "e")]
    expires_unix: u64,
}

/// A token cannot be made from these values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IssueError {
    /// No address, or more than [`TOKEN_SERVERS_MAX`].
    #[error("a token carries 1 to {TOKEN_SERVERS_MAX} server addresses, {0} were given")]
    ServerCount(usize),
    /// An address that is not `host:port`.
    #[error("server address {0:?} is not HOST:PORT (IPv6 as [ADDRESS]:PORT, port 1 to 65535)")]
    BadServer(String),
    /// The system's random generator failed.
    #[error("the system's random generator failed")]
    Random,
}

impl EnrolmentToken {
    /// Makes a token with a fresh secret, and the record that the server keeps of it.
    ///
    /// # Errors
    ///
    /// [`IssueError`] names the address at fault.
    pub fn issue(
        servers: Vec<String>,
        server_fingerprint: Fingerprint,
        agent_id: AgentId,
        expires_unix: u64,
    ) -> Result<(Self, TokenRecord), IssueError> {
        check_servers(&servers)?;
        let random = SystemRandom::new();
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        random.fill(secret.as_mut_slice()).map_err(|_| IssueError::Random)?;
        let mut id = [0; TOKEN_ID_RANDOM_BYTES];
        random.fill(&mut id).map_err(|_| IssueError::Random)?;
        let token = Self {
            servers,
            server_fingerprint,
            agent_id,
            token_id: TokenId(HEXLOWER.encode(&id)),
            expires_unix,
            secret,
        };
        let record = TokenRecord::new(&token, ProofKey::derive(&token.secret));
        Ok((token, record))
    }

    /// The token as its one line, secret included.
    pub fn encode(&self) -> String {
        let payload = Payload {
            servers: self.servers.clone(),
            server_fingerprint: BASE64URL_NOPAD.encode(self.server_fingerprint.as_bytes()),
            agent_id: self.agent_id.to_string(),
            token_id: self.token_id.to_string(),
            secret: Zeroizing::new(BASE64URL_NOPAD.encode(self.secret.as_slice())),
            expires_unix: self.expires_unix,
        };
        #[expect(clippy::expect_used, reason = "strings and numbers always serialise")]
        let json = Zeroizing::new(serde_json::to_vec(&payload).expect("payload is plain"));
        line(json)
    }

    /// Proves the secret for the channel whose export under
    /// [`EXPORTER_LABEL`](proof::EXPORTER_LABEL) is `exporter`, to the server that this token
    /// pins, as the agent whose certificate has the fingerprint `agent`.
    pub fn prove(&self, exporter: &[u8; EXPORTER_BYTES], agent: &Fingerprint) -> [u8; PROOF_BYTES] {
        let key = ProofKey::derive(&self.secret);
        let (agent_id, token_id) = (self.agent_id.as_str(), self.token_id.as_str());
        proof::compute(&key, exporter, &self.server_fingerprint, agent, agent_id, token_id)
    }

    /// Whether the token has run out at `now_unix` (Unix time, seconds).
    pub fn is_expired(&self, now_unix: u64) -> bool {
        now_unix >= self.expires_unix
    }
}

impl fmt::Debug for EnrolmentToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnrolmentToken")
            .field("servers", &self.servers)
            .field("server_fingerprint", &self.server_fingerprint)
            .field("agent_id", &self.agent_id)
            .field("token_id", &self.token_id)
            .field("expires_unix", &self.expires_unix)
            .finish_non_exhaustive()
    }
}

/// Why a text is not a token. No variant repeats the text: it may hold a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenParseError {
    /// Nothing there.
    #[error("the enrolment token is empty")]
    Empty,
    /// More than [`TOKEN_CHARS_MAX`].
    #[error("the enrolment token has {0} characters, at most {TOKEN_CHARS_MAX} are read")]
    TooLong(usize),
    /// Does not start as a token does.
    #[error("not an enrolment token: it must start with {TOKEN_PREFIX:?}")]
    NotAToken,
    /// A token of another version.
    #[error("enrolment token has format version {0:?}, this program reads version 1; update it")]
    OtherVersion(String),
    /// A character that no token has.
    #[error("enrolment token has a wrong character at position {0}; copy it again, in one line")]
    BadCharacter(usize),
    /// Cut short, or a character changed.
    #[error("enrolment token is damaged or cut short ({0} characters); copy it again, in full")]
    Damaged(usize),
    /// Undamaged, but a field is missing or out of range: a fault of its maker.
    #[error("enrolment token has no valid {0}; make a new one")]
    BadField(&'static str),
}

impl FromStr for EnrolmentToken {
    type Err = TokenParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text.is_empty() {
            return Err(TokenParseError::Empty);
        }
        if text.len() > TOKEN_CHARS_MAX {
            return Err(TokenParseError::TooLong(text.chars().count()));
        }
        let body = text.strip_prefix(TOKEN_PREFIX).ok_or_else(|| other_format(text))?;
        if let Some(index) =
            body.find(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_'))
        {
            return Err(TokenParseError::BadCharacter(TOKEN_PREFIX.len() + index + 1));
        }
        let damaged = || TokenParseError::Damaged(text.len());
        let bytes = Zeroizing::new(BASE64URL_NOPAD.decode(body.as_bytes()).map_err(|_| damaged())?);
        let (json, sum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or_else(damaged)?;
        if checksum(json) != *sum {
            return Err(damaged());
        }
        Self::from_payload(
            serde_json::from_slice(json).map_err(|_| TokenParseError::BadField("set of fields"))?,
        )
    }
}

impl EnrolmentToken {
    fn from_payload(payload: Payload) -> Result<Self, TokenParseError> {
        use TokenParseError::BadField;
        check_servers(&payload.servers).map_err(|_| BadField("server address"))?;
        let fingerprint = decode_32(&payload.server_fingerprint);
        let secret = decode_32(&payload.secret);
        Ok(Self {
            servers: payload.servers,
            server_fingerprint: Fingerprint::from_bytes(
                *fingerprint.ok_or(BadField("server fingerprint"))?,
            ),
            agent_id: payload.agent_id.try_into().map_err(|_| BadField("agent id"))?,
            token_id: payload.token_id.try_into().map_err(|_| BadField("token id"))?,
            expires_unix: payload.expires_unix,
            secret: secret.ok_or(BadField("secret"))?,
        })
    }
}

/// Tells a token of another version from a text that is no token.
fn other_format(text: &str) -> TokenParseError {
    let version = text.strip_prefix("mdt").and_then(|rest| rest.split_once('.')).map(|(v, _)| v);
    match version {
        Some(version) if version.len() <= 3 && version.bytes().all(|b| b.is_ascii_digit()) => {
            TokenParseError::OtherVersion(version.to_owned())
        }
        _ => TokenParseError::NotAToken,
    }
}

fn decode_32(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let bytes = Zeroizing::new(BASE64URL_NOPAD.decode(text.as_bytes()).ok()?);
    bytes.as_slice().try_into().ok().map(Zeroizing::new)
}

/// The line that holds a payload.
pub(crate) fn line(mut json: Zeroizing<Vec<u8>>) -> String {
    let checksum = checksum(&json);
    json.extend_from_slice(&checksum);
    format!("{TOKEN_PREFIX}{}", BASE64URL_NOPAD.encode(&json))
}

fn checksum(json: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash = digest::digest(&digest::SHA256, json);
    let mut sum = [0; CHECKSUM_BYTES];
    sum.copy_from_slice(&hash.as_ref()[..CHECKSUM_BYTES]);
    sum
}

fn check_servers(servers: &[String]) -> Result<(), IssueError> {
    if !(1..=TOKEN_SERVERS_MAX).contains(&servers.len()) {
        return Err(IssueError::ServerCount(servers.len()));
    }
    match servers.iter().find(|server| !is_host_and_port(server)) {
        Some(bad) => Err(IssueError::BadServer(bad.clone())),
        None => Ok(()),
    }
}

/// `name:port`, `1.2.3.4:port` or `[v6]:port`. Whether the name resolves is the agent's business.
fn is_host_and_port(server: &str) -> bool {
    if server.len() > TOKEN_SERVER_CHARS_MAX {
        return false;
    }
    let Some((host, port)) = server.rsplit_once(':') else { return false };
    let port_fits =
        port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|p| p > 0);
    let host_fits = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        // A link-local address needs its zone: fe80::1%eth0.
        Some(v6) => {
            let (address, zone) = v6.split_once('%').unwrap_or((v6, "0"));
            address.parse::<std::net::Ipv6Addr>().is_ok()
                && (1..=ZONE_CHARS_MAX).contains(&zone.len())
                && zone.bytes().all(|b| b.is_ascii_graphic())
        }
        None => {
            !host.is_empty()
                && host
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        }
    };
    port_fits && host_fits
}

#[cfg(test)]
mod tests;
