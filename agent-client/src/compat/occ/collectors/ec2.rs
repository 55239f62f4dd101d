//! EC2 metadata: from the cache once it is there, from a config drive, or from the metadata service.

use std::time::Duration;

use serde_json::{Map, Value};

use super::heat_local::is_nothing;
use super::{Collectors, Found, config_drive, fetch};
use crate::compat::occ::items::Item;
use openstack_client::http::{Client, Request};

/// Deepest directory of the metadata service that is read.
const DEPTH_MAX: usize = 10;
/// Most requests for one collection.
const REQUESTS_MAX: usize = 1_000;

pub(super) fn collect(all: &mut Collectors<'_>) -> Found {
    let is_something = |value: &Value| !is_nothing(value);
    let cached = all.cache.load("ec2").filter(is_something);
    let content = match cached
        .or_else(|| config_drive::metadata(&mut all.warnings).filter(is_something))
    {
        Some(content) => content,
        None => {
            let settings = &all.config.ec2;
            let url = format!("{}/", settings.metadata_url);
            Walk { client: &all.client, timeout: settings.timeout, requests: 0 }.read(&url, 0)?
        }
    };
    Ok(vec![Item::main("ec2", content)])
}

struct Walk<'w> {
    client: &'w Client,
    timeout: Duration,
    requests: usize,
}

impl Walk<'_> {
    /// A value, or, for a URL that ends with a slash, the values it lists.
    fn read(&mut self, url: &str, depth: usize) -> Result<Value, String> {
        self.requests += 1;
        if depth > DEPTH_MAX || self.requests > REQUESTS_MAX {
            return Err(format!(
                "{url} has more than {REQUESTS_MAX} entries or is more than {DEPTH_MAX} deep"
            ));
        }
        let text = fetch(self.client, &Request::get(url).timeout(self.timeout))?.text();
        if !url.ends_with('/') {
            return Ok(Value::String(text));
        }
        let mut content = Map::new();
        for entry in text.split('\n').map(|entry| entry.trim_end_matches('\r')) {
            // `0=name` lists a key pair, which is a directory.
            let entry = match entry.split_once('=') {
                Some((number, _)) => format!("{number}/"),
                None => entry.to_owned(),
            };
            let name = entry.strip_suffix('/').unwrap_or(&entry);
            if !name.is_empty() {
                content.insert(name.to_owned(), self.read(&format!("{url}{entry}"), depth + 1)?);
            }
        }
        Ok(Value::Object(content))
    }
}
