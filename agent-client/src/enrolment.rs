//! Who this agent is and which server it trusts: what is left of a token.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use certs::file::{
    FileError, PRIVATE_FILE_BYTES_MAX, PRIVATE_FILE_MODE, read_private, write_atomic,
};
use certs::{AgentId, EnrolmentToken, PinSet, TokenId};
use serde::{Deserialize, Serialize};
use thiserror::Error;

const SCHEMA: u32 = 1;

/// Why there is no usable enrolment.
#[derive(Debug, Error)]
pub enum EnrolmentError {
    /// Never enrolled.
    #[error("this agent is not enrolled: {} does not exist", .0.display())]
    Missing(PathBuf),
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is not what we wrote.
    #[error("{} is no enrolment of this version: {reason}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A token of another server or for another agent.
    #[error(
        "already enrolled as {agent_id} at a server with {pinned}; the token is for {other_id} at one with {other}"
    )]
    Other {
        /// Who we are.
        agent_id: AgentId,
        /// Whom we trust.
        pinned: String,
        /// Whom the token makes us.
        other_id: AgentId,
        /// Whom it would have us trust.
        other: String,
    },
}

/// What is kept of a token, and the token itself until the server has taken it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolment {
    schema: u32,
    /// Who we are.
    pub agent_id: AgentId,
    /// Where the server is: `host:port`, tried in turn.
    pub servers: Vec<String>,
    /// The certificates that the server may show.
    pub pins: PinSet,
    /// The token this comes from.
    pub token_id: TokenId,
    /// The token, until the server has said welcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<Secret>,
}

/// A token in its one line.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(hidden)")
    }
}

/// What taking a token changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is new, and will be proved at the next connection.
    New,
    /// It is the one we are enrolled by.
    Known,
}

impl Enrolment {
    /// Reads the enrolment in `path`.
    ///
    /// # Errors
    /// None there, unreadable, or open to others.
    pub fn load(path: &Path) -> Result<Self, EnrolmentError> {
        let bytes = match read_private(path, PRIVATE_FILE_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.is_not_found() => {
                return Err(EnrolmentError::Missing(path.to_owned()));
            }
            Err(error) => return Err(error.into()),
        };
        let unreadable = |reason| EnrolmentError::Unreadable { path: path.to_owned(), reason };
        let enrolment: Self =
            serde_json::from_slice(&bytes).map_err(|e| unreadable(e.to_string()))?;
        if enrolment.schema == SCHEMA {
            Ok(enrolment)
        } else {
            Err(unreadable(format!("its schema is {}, not {SCHEMA}", enrolment.schema)))
        }
    }

    /// Takes a token and stores what it says in `path`. The token that we are enrolled by changes nothing,
    /// so a token file may stay in a unit or in user data.
    ///
    /// # Errors
    /// The token is for another agent or server and `replace` is not set; or I/O.
    pub fn take(
        path: &Path,
        token: &EnrolmentToken,
        replace: bool,
    ) -> Result<(Self, Taken), EnrolmentError> {
        match Self::load(path) {
            Ok(known) if known.token_id == token.token_id => return Ok((known, Taken::Known)),
            Ok(known) if !replace && !known.fits(token) => {
                return Err(EnrolmentError::Other {
                    pinned: known.pins_text(),
                    agent_id: known.agent_id,
                    other_id: token.agent_id.clone(),
                    other: token.server_fingerprint.to_string(),
                });
            }
            Ok(_) | Err(EnrolmentError::Missing(_)) => {}
            Err(error) if !replace => return Err(error),
            Err(_) => {}
        }
        let enrolment = Self {
            schema: SCHEMA,
            agent_id: token.agent_id.clone(),
            servers: token.servers.clone(),
            pins: PinSet::new(token.server_fingerprint),
            token_id: token.token_id.clone(),
            token: Some(Secret(token.encode())),
        };
        enrolment.save(path)?;
        Ok((enrolment, Taken::New))
    }

    /// The token to prove, as long as the server has not said welcome.
    pub fn token(&self) -> Option<EnrolmentToken> {
        self.token.as_ref().and_then(|Secret(line)| EnrolmentToken::from_str(line).ok())
    }

    /// The server has taken the token: it is worthless from here on and is forgotten.
    ///
    /// # Errors
    /// I/O.
    pub fn redeemed(&mut self, path: &Path) -> Result<(), EnrolmentError> {
        if self.token.take().is_some() {
            self.save(path)?;
        }
        Ok(())
    }

    /// The pinned fingerprints as text.
    pub fn pins_text(&self) -> String {
        let pins = self.pins.pins().iter().map(|pin| pin.fingerprint.to_string());
        pins.collect::<Vec<_>>().join(" or ")
    }

    fn fits(&self, token: &EnrolmentToken) -> bool {
        let pinned = self.pins.pins().iter().any(|p| p.fingerprint == token.server_fingerprint);
        self.agent_id == token.agent_id && pinned
    }

    fn save(&self, path: &Path) -> Result<(), EnrolmentError> {
        let json = serde_json::to_vec_pretty(self).map_err(|e| EnrolmentError::Unreadable {
            path: path.to_owned(),
            reason: e.to_string(),
        })?;
        Ok(write_atomic(path, &json, PRIVATE_FILE_MODE)?)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use certs::Fingerprint;

    use super::*;

    fn token(agent: &str, server: u8) -> EnrolmentToken {
        let servers = vec!["127.0.0.1:4242".into()];
        let fingerprint = Fingerprint::from_bytes([server; 32]);
        EnrolmentToken::issue(servers, fingerprint, agent.parse().unwrap(), 2_000_000_000)
            .unwrap()
            .0
    }

    #[test]
    fn a_token_becomes_a_private_file_and_is_forgotten_once_redeemed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("enrolment.json");
        let token = token("vm-1", 7);
        let (mut enrolment, taken) = Enrolment::take(&path, &token, false).unwrap();
        assert_eq!(taken, Taken::New);
        assert_eq!(Enrolment::load(&path).unwrap(), enrolment);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(enrolment.token().unwrap().encode(), token.encode());
        assert!(!format!("{enrolment:?}").contains(&token.encode()), "no secret in Debug");

        enrolment.redeemed(&path).unwrap();
        assert!(Enrolment::load(&path).unwrap().token().is_none());
        assert!(!std::fs::read_to_string(&path).unwrap().contains(&token.encode()));
        let (again, taken) = Enrolment::take(&path, &token, false).unwrap();
        assert_eq!(taken, Taken::Known);
        assert!(again.token().is_none(), "a used token is not tried again");
    }

    #[test]
    fn a_fresh_token_of_the_same_server_is_taken_and_one_of_another_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("enrolment.json");
        Enrolment::take(&path, &token("vm-1", 7), false).unwrap();
        assert_eq!(Enrolment::take(&path, &token("vm-1", 7), false).unwrap().1, Taken::New);
        for other in [token("vm-2", 7), token("vm-1", 8)] {
            let error = Enrolment::take(&path, &other, false).unwrap_err().to_string();
            assert!(
                error.starts_with("already enrolled as vm-1 at a server with sha-256 07:"),
                "{error}"
            );
            assert!(error.contains(&other.server_fingerprint.to_string()), "{error}");
            assert_eq!(Enrolment::load(&path).unwrap().agent_id.as_str(), "vm-1");
        }
        let (replaced, _) = Enrolment::take(&path, &token("vm-2", 8), true).unwrap();
        assert_eq!(replaced.agent_id.as_str(), "vm-2");
    }

    #[test]
    fn no_enrolment_and_a_broken_one_say_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("enrolment.json");
        assert!(matches!(Enrolment::load(&path), Err(EnrolmentError::Missing(_))));
        certs::file::write_atomic(&path, b"{}", 0o600).unwrap();
        let error = Enrolment::load(&path).unwrap_err().to_string();
        assert!(error.contains("is no enrolment of this version"), "{error}");
    }
}
