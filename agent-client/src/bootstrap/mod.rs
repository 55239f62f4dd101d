//! The first token: found in what the cloud handed over to this instance, so that nothing but user data or
//! metadata is needed to enrol it.
//!
//! Looked at in the order of what it costs: files that cloud-init has left, a file of ours, the config drive,
//! Nova's metadata service. The first token that can be read wins. `docs/bootstrap.md` has the keys.

mod content;
mod drive;

use std::path::Path;
use std::time::Duration;

use certs::EnrolmentToken;
use certs::file::read_public;
use serde_json::{Map, Value};

use crate::machine::System;
use content::Content;
use openstack_client::http::{Client, Request};

/// Largest piece that is read: more than Nova and Heat hand over.
const CONTENT_BYTES_MAX: u64 = 16 << 20;
const SERVICE_TIMEOUT: Duration = Duration::from_secs(5);

/// The files looked at, and how.
const FILES: [(&str, Content); 4] = [
    ("/var/lib/heat-cfntools/cfn-init-data", Content::HeatMetadata),
    ("/var/lib/cloud/data/cfn-init-data", Content::HeatMetadata),
    ("/var/lib/cloud/instance/user-data.txt", Content::UserData),
    ("/etc/agent-client/token", Content::UserData),
];
/// What a config drive has, by the path on it.
const DRIVE: [(&str, Content); 3] = [
    ("openstack/latest/meta_data.json", Content::NovaMetadata),
    ("openstack/latest/user_data", Content::UserData),
    ("ec2/latest/user-data", Content::UserData),
];
/// What the metadata service has.
const SERVICE: [(&str, Content); 3] = [
    ("/openstack/latest/meta_data.json", Content::NovaMetadata),
    ("/openstack/latest/user_data", Content::UserData),
    ("/latest/user-data", Content::UserData),
];

/// How long to wait for a metadata service that does not answer: at boot it may be later than we are.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// How often to ask at most.
    pub attempts_max: u32,
    /// Between two attempts.
    pub pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { attempts_max: 6, pause: Duration::from_secs(2) }
    }
}

/// A token, and where it was.
#[derive(Debug)]
pub struct Found {
    /// The token.
    pub token: EnrolmentToken,
    /// Where it was, for people.
    pub place: String,
}

/// There is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no enrolment token was found: {}", .looked.join("; "))]
pub struct NotFound {
    /// Where was looked, and what was there.
    pub looked: Vec<String>,
    /// Whether it may be there later: the metadata service has not answered.
    pub may_come: bool,
}

/// Looks for a token everywhere.
///
/// # Errors
/// There is none.
pub fn find(system: &System, patience: Patience) -> Result<Found, NotFound> {
    let mut search = Search { looked: Vec::new() };
    if let Some(found) = search.files(system) {
        return Ok(found);
    }
    match drive::with_mounted(system, |place| search.drive(place)) {
        Ok(Some(Some(found))) => return Ok(found),
        Ok(Some(None)) => {}
        Ok(None) => search.looked.push("there is no config drive".into()),
        Err(error) => search.looked.push(format!("the config drive: {error:#}")),
    }
    search.finish(system, patience)
}

/// Looks once more where a token may be that was not there before: a config drive does not change.
///
/// # Errors
/// There is none.
pub fn find_again(system: &System) -> Result<Found, NotFound> {
    let mut search = Search { looked: Vec::new() };
    match search.files(system) {
        Some(found) => Ok(found),
        None => search.finish(system, Patience { attempts_max: 1, ..Patience::default() }),
    }
}

/// The token in a document that `source` had, if there is one.
///
/// # Errors
/// What is there cannot be used; the text has no secret in it.
pub fn in_document(source: &str, document: &Map<String, Value>) -> Result<Option<Found>, String> {
    let token = content::of_heat(document)?;
    Ok(token.map(|token| Found { token, place: format!("the metadata of {source}") }))
}

struct Search {
    looked: Vec<String>,
}

impl Search {
    fn files(&mut self, system: &System) -> Option<Found> {
        FILES.iter().find_map(|(path, content)| self.file(&system.at(path), path, *content))
    }

    /// Asks the service, which comes last.
    fn finish(mut self, system: &System, patience: Patience) -> Result<Found, NotFound> {
        let may_come = match self.service(system, patience) {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => false,
            Err(error) => {
                self.looked.push(format!("the metadata service: {error:#}"));
                true
            }
        };
        Err(NotFound { looked: self.looked, may_come })
    }

    fn file(&mut self, path: &Path, name: &str, content: Content) -> Option<Found> {
        match read_public(path, CONTENT_BYTES_MAX) {
            Ok(bytes) => self.piece(&bytes, name, content),
            Err(error) if error.is_not_found() => {
                self.looked.push(format!("{name} is not there"));
                None
            }
            Err(error) => {
                self.looked.push(error.to_string());
                None
            }
        }
    }

    fn piece(&mut self, bytes: &[u8], name: &str, content: Content) -> Option<Found> {
        match content.token(bytes) {
            Ok(Some(token)) => return Some(Found { token, place: name.to_owned() }),
            Ok(None) => self.looked.push(format!("{name} has none")),
            Err(reason) => self.looked.push(format!("{name}: {reason}")),
        }
        None
    }

    fn drive(&mut self, place: &Path) -> Option<Found> {
        DRIVE.iter().find_map(|(path, content)| {
            self.file(&place.join(path), &format!("config drive {path}"), *content)
        })
    }

    fn service(&mut self, system: &System, patience: Patience) -> anyhow::Result<Option<Found>> {
        let client = Client::default();
        for (path, content) in SERVICE {
            let url = format!("{}{path}", system.metadata_service());
            let request =
                Request::get(url).timeout(SERVICE_TIMEOUT).response_bytes_max(CONTENT_BYTES_MAX);
            let response = ask(&client, &request, patience)?;
            let name = format!("metadata service {path}");
            if response.is_success() {
                if let Some(found) = self.piece(&response.body, &name, content) {
                    return Ok(Some(found));
                }
            } else {
                self.looked.push(format!("{name} answered with status {}", response.status));
            }
        }
        Ok(None)
    }
}

/// Asks until there is an answer that is none of a server in trouble.
fn ask(
    client: &Client,
    request: &Request,
    patience: Patience,
) -> anyhow::Result<openstack_client::http::Response> {
    let mut attempt = 1;
    loop {
        let error = match client.send(request) {
            Ok(response) if response.status < 500 => return Ok(response),
            Ok(response) => anyhow::anyhow!("it answered with status {}", response.status),
            Err(error) if error.is_transient() => anyhow::anyhow!(error),
            Err(error) => return Err(error.into()),
        };
        if attempt >= patience.attempts_max {
            return Err(error);
        }
        tracing::debug!(attempt, %error, "the metadata service has not answered");
        std::thread::sleep(patience.pause);
        attempt += 1;
    }
}

#[cfg(test)]
mod tests;
