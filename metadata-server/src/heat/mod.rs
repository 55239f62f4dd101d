//! Asking Heat what a server's metadata is.
//!
//! Asked as the server's own user, whose password Heat itself puts into the metadata: who could make us ask
//! about a server of somebody else's would have to be that server's user. Keystone is the one that is
//! configured and Heat the one in its catalogue; no address is taken from a document.

pub mod poll;
pub(crate) mod questions;
mod source;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openstack_client::http::{Request, Response};
use openstack_client::keystone::{Credentials, KeystoneError, sign_in};
use openstack_client::percent_encoded;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) use self::source::Source;
use crate::document::ValidDocument;
use crate::store::queues::is_keystone_id;
use crate::zaqar::keystone::Keystone;

/// How long each step of a request may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The cloud that is asked.
pub struct Cloud {
    keystone: Arc<Keystone>,
    document_bytes_max: usize,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// There may be one later.
    #[error("{0}")]
    Transient(String),
    /// There will be none.
    #[error("{0}")]
    Final(String),
    /// Keystone or Heat does not know who asks, or what is asked for: it may be gone.
    #[error("{0}")]
    Gone(String),
}

/// As whom a server may ask for its own metadata.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerUser {
    user_id: String,
    password: String,
    region: Option<String>,
}

/// The password is a secret.
impl fmt::Debug for ServerUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerUser").field("user_id", &self.user_id).finish_non_exhaustive()
    }
}

/// A server resource of which Heat is polled for the metadata.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeatSource {
    /// Who asks.
    user: ServerUser,
    /// In which project.
    project_id: String,
    /// The stack, as `NAME/ID`.
    stack_id: String,
    /// The server's name in it.
    resource_name: String,
}

/// A token, and where it is shown.
#[derive(Clone)]
struct Access {
    token: String,
    /// Heat's endpoint, without a slash at the end.
    base: String,
}

/// Where Heat has a server's metadata, below its endpoint.
fn path_of(source: &HeatSource) -> String {
    let stack: Vec<String> = source.stack_id.split('/').map(percent_encoded).collect();
    let resource = percent_encoded(&source.resource_name);
    format!("/stacks/{}/resources/{resource}/metadata", stack.join("/"))
}

impl Cloud {
    /// The cloud of this Keystone.
    pub fn new(keystone: Arc<Keystone>, document_bytes_max: usize) -> Self {
        Self { keystone, document_bytes_max }
    }

    fn enter(&self, user: &ServerUser, project: &str) -> Result<Access, AskError> {
        let credentials = Credentials {
            auth_url: self.keystone.url(),
            user_id: &user.user_id,
            password: &user.password,
            project_id: project,
        };
        let session =
            sign_in(self.keystone.client(), &credentials, TIMEOUT).map_err(
                |error| match error {
                    KeystoneError::Refused { status: 401, .. } => AskError::Gone(error.to_string()),
                    error if error.is_transient() => AskError::Transient(error.to_string()),
                    error => AskError::Final(error.to_string()),
                },
            )?;
        let base = session
            .endpoint("orchestration", user.region.as_deref())
            .map_err(|error| AskError::Final(error.to_string()))?
            .trim_end_matches('/')
            .to_owned();
        Ok(Access { token: session.token, base })
    }

    fn get(&self, access: &Access, path: &str) -> Result<Response, AskError> {
        let request = Request::get(format!("{}{path}", access.base))
            .header("Accept", "application/json")
            .header("X-Auth-Token", &access.token)
            .timeout(TIMEOUT)
            .redirects_max(0)
            .response_bytes_max(self.document_bytes_max as u64 * 2);
        let response = self
            .keystone
            .client()
            .send(&request)
            .map_err(|error| AskError::Transient(error.to_string()))?;
        match response.status {
            200 => Ok(response),
            status @ (429 | 500..) => Err(AskError::Transient(format!("Heat said {status}"))),
            status @ (401 | 404 | 410) => Err(AskError::Gone(format!("Heat said {status}"))),
            status => Err(AskError::Final(format!("Heat said {status}"))),
        }
    }
}

/// The document that Heat has in force for the server that `documents` are about, the newest of them first;
/// one of them, if it is that. Heat is asked as `owner`, the user who posts, and as nobody else. Blocks.
///
/// # Errors
/// Heat was not asked, or did not say.
pub(crate) fn in_force(
    cloud: &Cloud,
    project: &str,
    owner: Option<&str>,
    server_id: Option<&str>,
    documents: &[Bytes],
) -> Result<ValidDocument, AskError> {
    let parsed: Vec<Value> =
        documents.iter().filter_map(|body| serde_json::from_slice(body).ok()).collect();
    let server_id = server_id
        .ok_or_else(|| AskError::Final("no deployment has said the server's id yet".into()))?;
    let user =
        parsed.iter().find_map(|document| user_in(document, project, owner)).ok_or_else(|| {
            AskError::Final("the metadata does not name the user who posts it".into())
        })?;
    let access = cloud.enter(&user, project)?;
    let path = format!("/software_deployments/metadata/{}", percent_encoded(server_id));
    let response = cloud.get(&access, &path)?;
    let mut answer: Value = serde_json::from_slice(&response.body)
        .map_err(|_| AskError::Transient("Heat's answer is not JSON".into()))?;
    let deployments = answer
        .get_mut("metadata")
        .map(Value::take)
        .filter(Value::is_array)
        .ok_or_else(|| AskError::Final("Heat's answer has no list \"metadata\"".into()))?;
    let bytes_max = cloud.document_bytes_max;
    let checked = |body: Bytes| {
        ValidDocument::check(body, bytes_max).map_err(|error| AskError::Final(error.to_string()))
    };
    // The one that is in force already comes first, so that nothing is pushed for nothing.
    for (body, document) in documents.iter().zip(&parsed).rev() {
        if document.get("deployments") == Some(&deployments) {
            return checked(body.clone());
        }
    }
    let mut document = parsed.into_iter().next().unwrap_or_default();
    if let Some(members) = document.as_object_mut() {
        members.insert("deployments".into(), deployments);
    }
    checked(Bytes::from(document.to_string()))
}

/// The server's user, if it is the queue's owner, in the queue's project.
fn user_in(document: &Value, project: &str, owner: Option<&str>) -> Option<ServerUser> {
    let section = document.get("os-collect-config")?.get("zaqar")?;
    let text = |key: &str| section.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let user_id = text("user_id").filter(|user_id| Some(*user_id) == owner)?;
    if text("project_id")? != project || !is_keystone_id(user_id) {
        return None;
    }
    Some(ServerUser {
        user_id: user_id.into(),
        password: text("password")?.into(),
        region: text("region_name").map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn heat_is_asked_as_the_queues_own_user_and_as_no_other_that_a_document_names() {
        let section = json!({"user_id": "owner", "password": "x", "project_id": "p"});
        let document = json!({"deployments": [], "os-collect-config": {"zaqar": section}});
        let user = |project, owner| user_in(&document, project, owner).map(|user| user.user_id);
        assert_eq!(user("p", Some("owner")).as_deref(), Some("owner"));
        for (project, owner) in [("p", Some("other")), ("p", None), ("q", Some("owner"))] {
            assert_eq!(user(project, owner), None, "{project} {owner:?}");
        }
    }
}
