//! Asking Keystone whose a token is.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use openstack_client::http::{Client, Request, Trust};
use openstack_client::keystone::{Credentials, sign_in};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::token::{Identity, Verdict};
use crate::store::queues::is_keystone_id;

/// How long each step of a request may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer, without the catalogue, in bytes.
const ANSWER_BYTES_MAX: u64 = 256 * 1024;

/// A user who may validate tokens.
pub struct ServiceUser {
    /// Its id.
    pub user_id: String,
    /// Its password.
    pub password: Zeroizing<String>,
    /// A project it has a role in.
    pub project_id: String,
}

/// Why Keystone did not say whose a token is. The token may be good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// It may do better in a moment.
    #[error("Keystone cannot be asked: {0}")]
    Transient(String),
    /// It will not before somebody changes something.
    #[error("Keystone does not answer this service: {0}")]
    Denied(String),
}

/// Keystone at one URL, and with what this service asks it.
pub struct Keystone {
    client: Client,
    /// With `/v3`, without a slash at the end.
    url: String,
    own: Option<ServiceUser>,
    own_token: Mutex<Option<String>>,
}

impl Keystone {
    /// Asks as `own`; without, with the very token that is to be validated, which Keystone's own policy
    /// allows to its owner.
    pub fn new(url: &str, trust: Trust, own: Option<ServiceUser>) -> Self {
        let url = url.trim_end_matches('/');
        let url = if url.ends_with("/v3") { url.to_owned() } else { format!("{url}/v3") };
        Self { client: Client::new(trust), url, own, own_token: Mutex::new(None) }
    }

    /// For other requests to the same cloud.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// With the version in its path.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whose a token is, or `None` if it is not good. Blocks.
    ///
    /// # Errors
    /// Keystone could not be asked, or did not answer the question.
    pub fn validate(&self, token: &str) -> Result<Verdict, CheckError> {
        let Some(own) = &self.own else {
            return match self.ask(token, token)? {
                Answer::Known(verdict) => Ok(verdict),
                // Who asks with a bad token is told so in these words.
                Answer::Unauthorized => Ok(None),
            };
        };
        let known = self.own_token.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(mine) = known
            && let Answer::Known(verdict) = self.ask(&mine, token)?
        {
            return Ok(verdict);
        }
        let credentials = Credentials {
            auth_url: &self.url,
            user_id: &own.user_id,
            password: &own.password,
            project_id: &own.project_id,
        };
        let session = sign_in(&self.client, &credentials, TIMEOUT).map_err(|error| {
            let words = error.to_string();
            if error.is_transient() {
                CheckError::Transient(words)
            } else {
                CheckError::Denied(words)
            }
        })?;
        let mine = session.token.clone();
        *self.own_token.lock().unwrap_or_else(PoisonError::into_inner) = Some(session.token);
        match self.ask(&mine, token)? {
            Answer::Known(verdict) => Ok(verdict),
            Answer::Unauthorized => {
                Err(CheckError::Denied("its own new token is not accepted".into()))
            }
        }
    }

    fn ask(&self, mine: &str, token: &str) -> Result<Answer, CheckError> {
        let request = Request::get(format!("{}/auth/tokens?nocatalog", self.url))
            .header("Accept", "application/json")
            .header("X-Auth-Token", mine)
            .header("X-Subject-Token", token)
            .timeout(TIMEOUT)
            .redirects_max(0)
            .response_bytes_max(ANSWER_BYTES_MAX);
        let response =
            self.client.send(&request).map_err(|error| CheckError::Transient(error.to_string()))?;
        match response.status {
            200 => match parse(&response.body) {
                Some(identity) => Ok(Answer::Known(identity)),
                None => Err(CheckError::Denied("its answer is no token".into())),
            },
            401 => Ok(Answer::Unauthorized),
            404 => Ok(Answer::Known(None)),
            403 => Err(CheckError::Denied(
                "the policy does not let this user validate tokens (status 403)".into(),
            )),
            status => Err(CheckError::Transient(format!("status {status}"))),
        }
    }
}

enum Answer {
    Known(Verdict),
    /// The asker's own token is not good.
    Unauthorized,
}

/// Reads Keystone's answer: a token without a project is good for nothing here.
fn parse(body: &[u8]) -> Option<Verdict> {
    #[derive(Deserialize)]
    struct Body {
        token: Token,
    }
    #[derive(Deserialize)]
    struct Token {
        user: Named,
        #[serde(default)]
        project: Option<Named>,
        #[serde(default)]
        roles: Vec<Named>,
        expires_at: String,
    }
    #[derive(Deserialize)]
    struct Named {
        #[serde(default)]
        id: String,
        #[serde(default)]
        name: String,
    }
    let token = serde_json::from_slice::<Body>(body).ok()?.token;
    let expires: jiff::Timestamp = token.expires_at.parse().ok()?;
    let Some(project) = token.project.filter(|project| is_keystone_id(&project.id)) else {
        return Some(None);
    };
    if !is_keystone_id(&token.user.id) {
        return None;
    }
    Some(Some(Identity {
        user: token.user.id,
        project: project.id,
        roles: token.roles.into_iter().map(|role| role.name).collect(),
        expires_unix_ms: u64::try_from(expires.as_millisecond()).ok()?,
    }))
}
