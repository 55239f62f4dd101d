//! Where a resource's metadata comes from, and the copy kept of it.
//!
//! With credentials: from Heat, and where Heat does not answer, from what was pushed. Without: what was
//! pushed, then the copy of what was read last, then what came with the instance (`cfn-init-data`). A call
//! that names no resource looks at the copy first: `hook-cfn-init` hands its config over in that file.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use certs::file::{PRIVATE_FILE_MODE, write_atomic};
use serde_json::Value;

use super::ini::Ini;
use super::system::make_private;
use crate::compat::pylog::Log;
use crate::json_text::json_text;
use crate::machine::System;
use crate::store::DocumentStore;
use openstack_client::cfn::{Credentials, describe_resource, resource_detail};
use openstack_client::http::{Client, Request, Trust};

const INIT_DATA: &str = "/var/lib/heat-cfntools/cfn-init-data";
/// The URL of Heat's CloudFormation API, put there by cloud-init.
const SERVER: &str = "/var/lib/heat-cfntools/cfn-metadata-server";
/// The same and whom to trust, in the form of the library that the Python tools use.
const BOTO: &str = "/var/lib/heat-cfntools/cfn-boto-cfg";
/// Port of Heat's CloudFormation API where none is named.
const PORT: u16 = 8000;
/// Largest file read: larger than any document that Heat delivers.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// A key pair for Heat.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Keys {
    access: String,
    secret: String,
}

impl Keys {
    /// The pair, if both halves are given.
    pub(super) fn new(access: Option<String>, secret: Option<String>) -> Option<Self> {
        let given = |half: Option<String>| half.filter(|half| !half.is_empty());
        Some(Self { access: given(access)?, secret: given(secret)? })
    }

    /// The pair in a file of lines `AWSAccessKeyId=…` and `AWSSecretKey=…`; `None` if a half is missing.
    pub(super) fn read(path: &Path) -> Result<Option<Self>> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("cannot read the credentials in {}", path.display()))?;
        let half = |name: &str| {
            let mut values = text.lines().filter_map(|line| {
                line.strip_prefix(name)?.trim_start_matches(' ').strip_prefix('=')
            });
            values.next_back().map(|value| value.trim_start_matches(' ').trim_end().to_owned())
        };
        Ok(Self::new(half("AWSAccessKeyId"), half("AWSSecretKey")))
    }
}

/// The secret is not shown.
impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("access", &self.access).finish_non_exhaustive()
    }
}

/// What is looked for.
#[derive(Debug, Default)]
pub(super) struct Wanted<'a> {
    /// The stack it is in, to ask Heat for.
    pub(super) stack: Option<&'a str>,
    /// Its name in the template.
    pub(super) resource: Option<&'a str>,
    /// To ask Heat with.
    pub(super) keys: Option<Keys>,
    /// Whether what was pushed is good even where Heat could be asked.
    pub(super) is_pushed_enough: bool,
    /// A pushed document without this key is about something else.
    pub(super) needs: Option<&'static str>,
}

/// What was found.
#[derive(Debug)]
pub(super) struct Found {
    /// The metadata.
    pub(super) value: Value,
    /// Whether it differs from what was found last.
    pub(super) has_changed: bool,
}

/// Looks for metadata, and keeps a copy. `None` if there is none anywhere, which is then logged.
///
/// # Errors
/// What there is cannot be read.
pub(super) fn retrieve(
    system: &System,
    log: &mut Log,
    wanted: &Wanted<'_>,
) -> Result<Option<Found>> {
    if let Some(bad) = wanted.resource.filter(|name| name.is_empty() || name.contains(['/', '\0']))
    {
        bail!("{bad:?} is no name of a resource");
    }
    let Some(value) = look(system, log, wanted)? else {
        log.error("Unable to read any valid metadata!");
        return Ok(None);
    };
    let copies = [system.last_metadata(wanted.resource), system.last_metadata(None)];
    // Its own copy: another resource's would make each look changed at each call, or never.
    let last = read_json(&copies[0]).unwrap_or_else(|error| {
        log.warning(format!("the copy of the last metadata: {error:#}"));
        None
    });
    let has_changed = last.as_ref() != Some(&value);
    if let Err(error) = keep(&copies, &value) {
        log.warning(format!("could not keep a copy of the metadata: {error:#}"));
    }
    Ok(Some(Found { value, has_changed }))
}

fn look(system: &System, log: &mut Log, wanted: &Wanted<'_>) -> Result<Option<Value>> {
    if wanted.is_pushed_enough
        && let Some(value) = pushed(system, log, wanted)
    {
        return Ok(Some(value));
    }
    match &wanted.keys {
        Some(keys) => match remote(system, wanted, keys) {
            Ok(value) => return Ok(Some(value)),
            Err(error) => {
                let Some(value) = pushed(system, log, wanted) else { return Err(error) };
                log.warning(format!("{error:#}; what was pushed last is used"));
                return Ok(Some(value));
            }
        },
        None => log.warning("Unable to retrieve remote metadata : No credentials!"),
    }
    if wanted.resource.is_some()
        && let Some(value) = pushed(system, log, wanted)
    {
        return Ok(Some(value));
    }
    let mut copies = vec![system.last_metadata(wanted.resource), system.last_metadata(None)];
    copies.dedup();
    for path in copies {
        if let Some(value) = open(&path, log)? {
            return Ok(Some(value));
        }
    }
    match pushed(system, log, wanted) {
        Some(value) => Ok(Some(value)),
        None => open(&system.at(INIT_DATA), log),
    }
}

fn open(path: &Path, log: &mut Log) -> Result<Option<Value>> {
    let value = read_json(path)?;
    match value {
        Some(_) => log.info(format!("Opened local metadata {}", path.display())),
        None => log.warning(format!("Unable to open local metadata : {}", path.display())),
    }
    Ok(value)
}

/// The agent's newest document, if it is about what is wanted.
fn pushed(system: &System, log: &mut Log, wanted: &Wanted<'_>) -> Option<Value> {
    let path = system.document();
    let document = match DocumentStore::new(path.to_owned()).peek() {
        Ok(document) => document?,
        Err(error) => {
            log.warning(format!("the pushed document cannot be used: {error}"));
            return None;
        }
    };
    let value: Value = match serde_json::from_slice(&document.body) {
        Ok(value @ Value::Object(_)) => value,
        _ => return None,
    };
    if let Some(key) = wanted.needs.filter(|key| value.get(key).is_none()) {
        log.info(format!("{document:?} that was pushed has no {key:?}"));
        return None;
    }
    log.info(format!("metadata is {document:?} that was pushed"));
    Some(value)
}

fn read_json(path: &Path) -> Result<Option<Value>> {
    let bytes = match certs::file::read_public(path, FILE_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(certs::file::FileError::Io { source, .. })
            if matches!(source.kind(), ErrorKind::PermissionDenied | ErrorKind::NotADirectory) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    let value =
        serde_json::from_slice(&bytes).with_context(|| format!("{} is no JSON", path.display()))?;
    Ok(Some(value))
}

fn keep(copies: &[std::path::PathBuf; 2], value: &Value) -> Result<()> {
    let text = json_text(value);
    let [of_resource, last] = copies;
    if let Some(directory) = last.parent() {
        make_private(directory).with_context(|| format!("making {}", directory.display()))?;
    }
    write_atomic(last, text.as_bytes(), PRIVATE_FILE_MODE)?;
    if of_resource != last {
        write_atomic(of_resource, text.as_bytes(), PRIVATE_FILE_MODE)?;
    }
    Ok(())
}

/// Asks Heat.
fn remote(system: &System, wanted: &Wanted<'_>, keys: &Keys) -> Result<Value> {
    let (Some(stack), Some(resource)) = (wanted.stack, wanted.resource) else {
        bail!("credentials are given, but not both --stack and --resource to ask Heat for");
    };
    let (endpoint, trust) = endpoint(system)?;
    let credentials = Credentials { access_key: &keys.access, secret_key: &keys.secret };
    let url = describe_resource(&endpoint, stack, resource, credentials)?;
    let response =
        Client::new(trust).send(&Request::get(url)).context("asking Heat for metadata")?;
    if !response.is_success() {
        bail!("asking Heat for metadata: {endpoint} answered with status {}", response.status);
    }
    let detail = resource_detail(&response.body)?;
    let text = detail.get("Metadata").ok_or_else(|| anyhow!("Heat's answer has no metadata"))?;
    serde_json::from_str(text).context("the metadata in Heat's answer is no JSON")
}

fn endpoint(system: &System) -> Result<(String, Trust)> {
    let mut boto = Ini::default();
    if let Ok(text) = fs::read_to_string(system.at(BOTO)) {
        boto.read(&text).with_context(|| format!("reading {BOTO}"))?;
    }
    let boto = |option: &str| boto.get("Boto", option).ok().filter(|value| !value.is_empty());
    let is_on = |value: &str| matches!(value.to_lowercase().as_str(), "1" | "yes" | "true" | "on");
    let trust = match (boto("https_validate_certificates"), boto("ca_certificates_file")) {
        (Some(validate), _) if !is_on(&validate) => Trust::Everybody,
        (_, Some(file)) if file != "system" => Trust::File(file.into()),
        _ => Trust::Machine,
    };
    let url = fs::read_to_string(system.at(SERVER)).unwrap_or_default().trim().to_owned();
    if !url.is_empty() {
        let versioned =
            if url.contains("/v1") { url } else { format!("{}/v1", url.trim_end_matches('/')) };
        return Ok((format!("{}/", versioned.trim_end_matches('/')), trust));
    }
    let host = boto("cfn_region_endpoint").ok_or_else(|| {
        anyhow!("where Heat is to be asked is not known: neither {SERVER} nor {BOTO} says it")
    })?;
    let is_secure = boto("is_secure").is_some_and(|value| is_on(&value));
    let scheme = if is_secure { "https" } else { "http" };
    Ok((format!("{scheme}://{host}:{PORT}/v1/"), trust))
}

#[cfg(test)]
mod tests;
