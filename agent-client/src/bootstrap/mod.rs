//! The first token: found in what the cloud handed over to this instance, so that nothing but user data or
//! metadata is needed to enrol it.
//!
//! Looked at in the order of what it costs: files that cloud-init has left, a file of ours, the config drive,
//! Nova's metadata service. The first token that can be read wins. `docs/bootstrap.md` has the keys.

mod content;
pub(crate) mod drive;

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
#[derive(Debug, Clone)]
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

/// Looks for a token everywhere; the first that can be read is enough.
///
/// # Errors
/// There is none.
pub fn find(system: &System, patience: Patience) -> Result<Found, NotFound> {
    let mut search = Search { enough: 1, ..Search::default() };
    search.files(system);
    search.config_drive(system);
    search.service(system, patience);
    let Search { found, looked, may_come, .. } = search;
    found.into_iter().next().ok_or(NotFound { looked, may_come })
}

/// Looks again and again, everywhere: a token in one place may be refused, and another one be good.
#[derive(Debug, Default)]
pub struct Places {
    /// What the config drive had, which does not change.
    on_drive: Option<Vec<Found>>,
}

impl Places {
    /// All tokens that there are, in the order of the places.
    ///
    /// # Errors
    /// There is none.
    pub fn look(&mut self, system: &System) -> Result<Vec<Found>, NotFound> {
        let mut search = Search { enough: usize::MAX, ..Search::default() };
        search.files(system);
        match &self.on_drive {
            Some(on_drive) => search.found.extend(on_drive.iter().cloned()),
            None => {
                let before = search.found.len();
                search.config_drive(system);
                self.on_drive = Some(search.found[before..].to_vec());
            }
        }
        search.service(system, Patience { attempts_max: 1, ..Patience::default() });
        let Search { found, looked, may_come, .. } = search;
        if found.is_empty() { Err(NotFound { looked, may_come }) } else { Ok(found) }
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

#[derive(Default)]
struct Search {
    found: Vec<Found>,
    /// How many are: nowhere else is looked then.
    enough: usize,
    looked: Vec<String>,
    /// Whether the metadata service has not answered.
    may_come: bool,
}

impl Search {
    fn is_over(&self) -> bool {
        self.found.len() >= self.enough
    }

    fn files(&mut self, system: &System) {
        for (path, content) in FILES {
            self.file(&system.at(path), path, content);
        }
    }

    fn config_drive(&mut self, system: &System) {
        if self.is_over() {
            return;
        }
        match drive::with_mounted(system, |place| self.drive(place)) {
            Ok(Some(())) => {}
            Ok(None) => self.looked.push("there is no config drive".into()),
            Err(error) => self.looked.push(format!("the config drive: {error:#}")),
        }
    }

    fn drive(&mut self, place: &Path) {
        for (path, content) in DRIVE {
            self.file(&place.join(path), &format!("config drive {path}"), content);
        }
    }

    fn file(&mut self, path: &Path, name: &str, content: Content) {
        if self.is_over() {
            return;
        }
        match read_public(path, CONTENT_BYTES_MAX) {
            Ok(bytes) => self.piece(&bytes, name, content),
            Err(error) if error.is_not_found() => self.looked.push(format!("{name} is not there")),
            Err(error) => self.looked.push(error.to_string()),
        }
    }

    fn piece(&mut self, bytes: &[u8], name: &str, content: Content) {
        match content.token(bytes) {
            Ok(Some(token)) => self.found.push(Found { token, place: name.to_owned() }),
            Ok(None) => self.looked.push(format!("{name} has none")),
            Err(reason) => self.looked.push(format!("{name}: {reason}")),
        }
    }

    /// Comes last.
    fn service(&mut self, system: &System, patience: Patience) {
        if let Err(error) = self.ask_service(system, patience) {
            self.looked.push(format!("the metadata service: {error:#}"));
            self.may_come = true;
        }
    }

    fn ask_service(&mut self, system: &System, patience: Patience) -> anyhow::Result<()> {
        let client = Client::default();
        for (path, content) in SERVICE {
            if self.is_over() {
                break;
            }
            let url = format!("{}{path}", system.metadata_service());
            let request =
                Request::get(url).timeout(SERVICE_TIMEOUT).response_bytes_max(CONTENT_BYTES_MAX);
            let response = ask(&client, &request, patience)?;
            let name = format!("metadata service {path}");
            if response.is_success() {
                self.piece(&response.body, &name, content);
            } else {
                self.looked.push(format!("{name} answered with status {}", response.status));
            }
        }
        Ok(())
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
