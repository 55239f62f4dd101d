//! One collection: what every source has, or had last, and what of it is news.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use serde_json::Value;

use super::cache::Cache;
use super::collectors::{Collectors, Missing};
use super::config::Config;
use super::items::{Item, explode, file_keys};

/// What each source had when it was last heard of. A source that is down keeps it in the list.
#[derive(Debug, Default)]
pub(crate) struct LastGood(BTreeMap<&'static str, Vec<Item>>);

/// Something to log about a source.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Note {
    /// Nobody wants it.
    NotConfigured { source: &'static str, why: String },
    /// It is down; whether something it had before takes its place.
    Unavailable { source: &'static str, why: String, kept: bool },
    /// Something was passed over.
    PassedOver(String),
}

/// Asks all sources, in order. Those that are down have what they had last.
pub(crate) fn gather(
    collectors: &mut Collectors<'_>,
    sources: &[&'static str],
    last_good: &mut LastGood,
    notes: &mut Vec<Note>,
) -> Vec<Item> {
    let mut all = Vec::new();
    for &source in sources {
        let found = collectors.collect(source);
        notes.extend(collectors.warnings().into_iter().map(Note::PassedOver));
        match found {
            Ok(items) => {
                all.extend(items.iter().cloned());
                last_good.0.insert(source, items);
            }
            Err(Missing::NotConfigured(why)) => {
                last_good.0.remove(source);
                notes.push(Note::NotConfigured { source, why });
            }
            Err(Missing::Unavailable(why)) => {
                let kept = last_good.0.get(source).filter(|items| !items.is_empty());
                notes.push(Note::Unavailable { source, why, kept: kept.is_some() });
                all.extend(kept.into_iter().flatten().cloned());
            }
        }
    }
    all
}

impl LastGood {
    /// What the cache holds of these sources. A source's own file names its deployments; what else is in
    /// the list came from files on this machine.
    pub(crate) fn of_cache(cache: &Cache, config: &Config, sources: &[&'static str]) -> Self {
        let mut all = BTreeMap::new();
        for &source in sources.iter().filter(|source| **source != "local") {
            let items = match cache.load(source) {
                None => continue,
                Some(Value::Object(content)) => {
                    explode(source, content, config.keys_of(source), &mut Vec::new())
                }
                Some(content) => vec![Item::main(source, content)],
            };
            all.insert(source, items);
        }
        if sources.contains(&"local") {
            let in_order = sources.iter().filter_map(|source| all.get(source)).flatten();
            let others: Vec<Item> = in_order.cloned().collect();
            let known = file_keys(&others, sources);
            let left = cache.listed().into_iter().filter(|key| !known.contains(key));
            let local = left.filter_map(|name| {
                let content = cache.load(&name)?;
                Some(Item { name, is_main: false, content })
            });
            all.insert("local", local.collect());
        }
        Self(all)
    }
}

impl Config {
    /// The keys of this source's lists of deployments.
    pub(crate) fn keys_of(&self, source: &str) -> &[String] {
        match source {
            "cfn" => &self.cfn.deployment_keys,
            "ec2" | "heat_local" => &[],
            _ => &self.deployment_keys,
        }
    }
}

/// What is in the cache after a collection.
#[derive(Debug)]
pub(crate) struct Stored {
    /// The keys of all items, in order.
    pub(crate) keys: Vec<String>,
    /// Those that are news to the command.
    pub(crate) changed: Vec<String>,
}

/// Puts the items into the cache. If there is news, the list is written too, and the copy made.
///
/// # Errors
/// The cache cannot be written. A copy that cannot be made is no error but said in `problem`.
pub(crate) fn store(
    cache: &Cache,
    items: &[Item],
    sources: &[&str],
    backup: &Path,
    mut problem: impl FnMut(String),
) -> Result<Stored> {
    let keys = file_keys(items, sources);
    let mut changed = Vec::new();
    for (key, item) in keys.iter().zip(items) {
        if cache.store(key, &item.content)? {
            changed.push(key.clone());
        }
    }
    if !changed.is_empty() {
        cache.store_list(&keys)?;
        if let Err(error) = cache.back_up(backup) {
            problem(format!("no copy of the cache: {error:#}"));
        }
    }
    Ok(Stored { keys, changed })
}
