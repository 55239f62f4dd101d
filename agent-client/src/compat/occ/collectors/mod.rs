//! Where metadata is collected from.

mod cfn;
mod config_drive;
mod ec2;
mod heat;
mod heat_local;
mod local;
mod request;
mod tokens;
mod zaqar;

pub(crate) use self::zaqar::QUEUE_EMPTY;

use certs::file::read_public;
use serde_json::{Map, Value};

use super::cache::Cache;
use super::config::Config;
use super::items::Item;
use openstack_client::http::{Client, Request, Response, Trust, without_secrets};

/// Largest file that is taken in.
const FILE_BYTES_MAX: u64 = openstack_client::http::RESPONSE_BYTES_MAX;

/// Why a source has nothing.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// Nobody wants it: what is not set.
    NotConfigured(String),
    /// It should have something and has not: why.
    Unavailable(String),
}

impl From<String> for Missing {
    fn from(why: String) -> Self {
        Self::Unavailable(why)
    }
}

type Found = Result<Vec<Item>, Missing>;

/// All collectors, with the connections they keep.
pub(crate) struct Collectors<'c> {
    config: &'c Config,
    cache: &'c Cache,
    /// For whoever does without a trust of its own.
    client: Client,
    cfn: Client,
    zaqar: Client,
    /// What is passed over, for people.
    warnings: Vec<String>,
}

impl<'c> Collectors<'c> {
    pub(crate) fn new(config: &'c Config, cache: &'c Cache) -> Self {
        let of_file = |file: &Option<_>| file.clone().map_or(Trust::Machine, Trust::File);
        let zaqar = match config.zaqar.check_certificate {
            true => of_file(&config.zaqar.ca_file),
            false => Trust::Everybody,
        };
        Self {
            config,
            cache,
            client: Client::default(),
            cfn: Client::new(of_file(&config.cfn.ca_certificate)),
            zaqar: Client::new(zaqar),
            warnings: Vec::new(),
        }
    }

    /// Asks the collector of this name.
    ///
    /// # Errors
    /// It has nothing.
    pub(crate) fn collect(&mut self, name: &str) -> Found {
        match name {
            "heat_local" => heat_local::collect(self),
            "ec2" => ec2::collect(self),
            "cfn" => cfn::collect(self),
            "heat" => heat::collect(self),
            "request" => request::collect(self),
            "local" => local::collect(self),
            "zaqar" => zaqar::collect(self),
            _ => Err(Missing::NotConfigured(format!("there is no collector {name}"))),
        }
    }

    /// What was passed over since the last time.
    pub(crate) fn warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// A source's content with its deployments.
    fn exploded(
        &mut self,
        source: &str,
        content: Map<String, Value>,
        keys: &[String],
    ) -> Vec<Item> {
        super::items::explode(source, content, keys, &mut self.warnings)
    }
}

/// A setting that a source cannot do without.
fn needed<'s>(setting: &'s Option<String>, name: &str) -> Result<&'s str, Missing> {
    setting.as_deref().ok_or_else(|| Missing::NotConfigured(format!("No {name} configured.")))
}

/// A response of success.
fn fetch(client: &Client, request: &Request) -> Result<Response, String> {
    let response = client.send(request).map_err(|error| error.to_string())?;
    success(response)
}

/// The response, unless its status says that it failed.
fn success(response: Response) -> Result<Response, String> {
    match response.status {
        400.. => Err(format!("status {} from {}", response.status, without_secrets(&response.url))),
        _ => Ok(response),
    }
}

/// The object that JSON text holds.
fn object(json: &[u8]) -> Result<Map<String, Value>, String> {
    match serde_json::from_slice(json) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err("Failed to parse as json. (not an object)".into()),
        // The text of the error names a place, never content.
        Err(error) => Err(format!("Failed to parse as json. ({error})")),
    }
}

/// A file's JSON.
fn read_json(path: &std::path::Path) -> Result<Value, String> {
    let bytes = read_public(path, FILE_BYTES_MAX).map_err(|error| error.to_string())?;
    serde_json::from_slice(&bytes)
        .map_err(|error| format!("{} is not valid JSON ({error})", path.display()))
}

#[cfg(test)]
mod tests;
