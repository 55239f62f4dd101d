//! What lands in the cache: the document, and beside it what the machine has of its own, in the order of the
//! configuration's collectors.

use std::time::Instant;

use anyhow::Result;
use serde_json::{Map, Value};

use super::{EC2_PAUSE, PUSH, TRANSPORTS, Worker};
use crate::compat::occ::cache::Cache;
use crate::compat::occ::collectors::Collectors;
use crate::compat::occ::config::Config;
use crate::compat::occ::gather::{LastGood, Note, gather};
use crate::compat::occ::items::{Item, explode, file_keys};

/// Where a document came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// A server.
    Push,
    /// This collector.
    Transport(&'static str),
    /// It is one of this machine's own pieces of metadata, or empty.
    Machine,
}

impl Origin {
    /// For people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Push => PUSH,
            Self::Transport(source) => source,
            Self::Machine => "machine",
        }
    }

    /// The collector that was asked.
    pub(super) fn transport(self) -> Option<&'static str> {
        match self {
            Self::Transport(source) => Some(source),
            Self::Push | Self::Machine => None,
        }
    }
}

impl Worker {
    /// Every piece of metadata, and the names that are taken by sources.
    pub(super) fn sources(
        &mut self,
        config: &Config,
        cache: &Cache,
        origin: Origin,
        content: Map<String, Value>,
    ) -> Result<(Vec<Item>, Vec<&'static str>)> {
        let configured = config.known_collectors().map_err(anyhow::Error::msg)?;
        let is_transport = |source: &&'static str| TRANSPORTS.contains(source);
        let place = configured.iter().position(&is_transport).unwrap_or(configured.len());
        let (before, after) = configured.split_at(place);
        let mut names = configured.clone();
        names.push(PUSH);
        let mut last_good = LastGood::of_cache(cache, config, &names);
        let mut items = self.of_machine(config, cache, before, &mut last_good);
        let mut passed_over = Vec::new();
        let source = match origin {
            Origin::Push => Some(PUSH),
            Origin::Transport(source) => Some(source),
            Origin::Machine => None,
        };
        if let Some(source) = source {
            let keys = config.keys_of(source);
            items.extend(explode(source, content, keys, &mut passed_over));
        }
        items.extend(self.of_machine(config, cache, after, &mut last_good));
        self.tell(passed_over.into_iter().map(Note::PassedOver).collect());
        Ok((items, names))
    }

    /// What these of the sources have that are the machine's own.
    fn of_machine(
        &mut self,
        config: &Config,
        cache: &Cache,
        sources: &[&'static str],
        last_good: &mut LastGood,
    ) -> Vec<Item> {
        let without_ec2 = self.ec2_failed.is_some_and(|at| at.elapsed() < EC2_PAUSE);
        let is_asked = |source: &&'static str| {
            !(TRANSPORTS.contains(source) || without_ec2 && *source == "ec2")
        };
        let sources: Vec<&'static str> = sources.iter().copied().filter(is_asked).collect();
        let mut notes = Vec::new();
        let mut collectors = Collectors::new(config, cache);
        let items = gather(&mut collectors, &sources, last_good, &mut notes);
        self.tell(notes);
        items
    }

    /// The machine's own metadata of this server, where nobody has sent any: what Heat has left here at boot,
    /// or a file. The last that names deployments counts, as it does for templates.
    pub(super) fn document_of_machine(
        &mut self,
        config: &Config,
        cache: &Cache,
        sources: &[&'static str],
    ) -> Map<String, Value> {
        // Nova's metadata has none.
        let sources: Vec<_> = sources.iter().copied().filter(|source| *source != "ec2").collect();
        let mut last_good = LastGood::of_cache(cache, config, &sources);
        let items = self.of_machine(config, cache, &sources, &mut last_good);
        let mut documents = items.into_iter().filter_map(|item| match item.content {
            Value::Object(content) if content.contains_key("deployments") => Some(content),
            _ => None,
        });
        documents.next_back().unwrap_or_default()
    }

    /// Whether anything is news to the command.
    pub(super) fn is_news(
        &mut self,
        config: &Config,
        cache: &Cache,
        origin: Origin,
        content: Map<String, Value>,
    ) -> Result<bool> {
        let (items, names) = self.sources(config, cache, origin, content)?;
        let keys = file_keys(&items, &names);
        Ok(keys.iter().zip(&items).any(|(key, item)| cache.is_news(key, &item.content)))
    }

    fn tell(&mut self, notes: Vec<Note>) {
        for note in notes {
            match note {
                Note::NotConfigured { .. } => {}
                Note::Unavailable { source, why, kept } => {
                    if source == "ec2" && !kept {
                        self.ec2_failed = Some(Instant::now());
                    }
                    tracing::debug!(source, why, kept, "source unavailable");
                }
                Note::PassedOver(what) => tracing::warn!("{what}"),
            }
        }
    }
}
