//! What is polled while no server is reached, or none is known.

use std::time::Duration;

use anyhow::{Result, bail};
use bytes::Bytes;
use ring::digest::Digest;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::sources::Origin;
use super::{Poll, TRANSPORTS, Worker, read};
use crate::bootstrap;
use crate::compat::occ::cache::Cache;
use crate::compat::occ::collectors::{Collectors, Missing, QUEUE_EMPTY};
use crate::compat::occ::config::Config;
use crate::compat::occ::pace::Pace;
use crate::compat::occ::run::{hash_of, random_fraction};
use crate::pipeline::{Command, unix_ms};
use crate::status::PollStatus;

/// Between two attempts when the configuration cannot be used.
const PAUSE_WITHOUT_CONFIG: Duration = Duration::from_secs(30);

/// How polling stands.
pub(super) struct Polling {
    pub(super) poll: Poll,
    /// When it is time again.
    at: Instant,
    pace: Option<Pace>,
    /// Of the configuration that the pace is for.
    hash: Option<Digest>,
    /// What came last.
    pub(super) last: Option<Polled>,
    /// Whether the pipeline has it, and the command was not run with it yet.
    pub(super) is_on_its_way: bool,
    /// Whether what came last may have been left out, since a server was reached.
    comes_again: bool,
    /// What the operator was told of it.
    status: Option<PollStatus>,
    /// What was wrong with the last token, told once.
    no_token: Option<String>,
}

/// A document that was polled.
#[derive(Clone)]
pub(super) struct Polled {
    pub(super) origin: Origin,
    pub(super) content: Map<String, Value>,
    /// As the pipeline gets it.
    body: Bytes,
    /// Whether this is what there is to do: nothing that should have a document had no answer.
    pub(super) is_whole: bool,
}

impl Default for Polling {
    fn default() -> Self {
        Self {
            poll: Poll::Off,
            at: Instant::now(),
            pace: None,
            hash: None,
            last: None,
            is_on_its_way: false,
            comes_again: false,
            status: None,
            no_token: None,
        }
    }
}

impl Polling {
    /// Whether anybody was asked since polling began.
    pub(super) fn has_asked(&self) -> bool {
        self.status.is_some()
    }

    /// Where a document in force came from.
    pub(super) fn origin_of(&self, body: &Bytes) -> Origin {
        let polled = self.last.as_ref().filter(|last| last.body == *body);
        polled.map_or(Origin::Push, |last| last.origin)
    }

    /// Short pauses first, after a change of the configuration too: it may name another place to ask.
    fn pause(&mut self, config: &Config) -> Duration {
        let hash = hash_of(&config.sources);
        let known = self.hash.as_ref().is_some_and(|known| known.as_ref() == hash.as_ref());
        if !known {
            self.pace = None;
        }
        self.hash = Some(hash);
        let fresh = || Pace::new(config.pause_min, config.pause_max);
        self.pace.get_or_insert_with(fresh).next()
    }
}

impl Worker {
    /// When to poll, if at all.
    pub(super) fn polls_at(&self) -> Option<Instant> {
        (self.polling.poll != Poll::Off).then_some(self.polling.at)
    }

    /// Polls from now on, or no longer.
    pub(super) fn polls(&mut self, poll: Poll) {
        let was_off = self.polling.poll == Poll::Off;
        self.polling.poll = poll;
        if poll == Poll::Off {
            self.polling.status = None;
            let _ = self.commands.send(Command::Polling(None));
        } else if was_off {
            if matches!(self.in_force, Some((Origin::Push, _))) {
                // What came last may have come too late to count.
                self.polling.last = None;
            }
            self.polling.comes_again |= std::mem::take(&mut self.polling.is_on_its_way);
            // Many machines may begin at one moment.
            let splay = read(&self.config).map_or(Duration::ZERO, |config| config.splay);
            self.polling.at = Instant::now() + splay.mul_f64(random_fraction());
            self.polling.pace = None;
        }
    }

    /// Asks what the configuration polls; a document that is not in force goes to the pipeline. So does, if
    /// `all` counts, one that is, when something else has changed: the command is to run again.
    pub(super) fn poll(&mut self, all: bool) {
        self.polling.at = Instant::now() + PAUSE_WITHOUT_CONFIG;
        let asked = read(&self.config).and_then(|config| {
            self.polling.at = Instant::now() + self.polling.pause(&config);
            self.ask(&config, all)
        });
        let (source, error) = match asked {
            Ok((source, why)) => (source, why),
            Err(error) => (None, Some(format!("{error:#}"))),
        };
        self.show(source, error);
        self.send_results();
    }

    /// The transport that has the document, and what is wrong.
    fn ask(
        &mut self,
        config: &Config,
        all: bool,
    ) -> Result<(Option<&'static str>, Option<String>)> {
        let cache = Cache::new(config.cachedir.clone());
        let sources = config.known_collectors().map_err(anyhow::Error::msg)?;
        let mut collectors = Collectors::new(config, &cache);
        let (mut missing, mut problems) = (Vec::new(), Vec::new());
        let mut found = None;
        for &source in sources.iter().filter(|source| TRANSPORTS.contains(source)) {
            match collectors.collect(source) {
                Ok(items) => {
                    let main = items.into_iter().find(|item| item.is_main);
                    if let Some(Value::Object(content)) = main.map(|item| item.content) {
                        found = Some((source, content));
                        break;
                    }
                }
                Err(Missing::NotConfigured(_)) => {}
                Err(Missing::Unavailable(why)) => {
                    missing.push(source);
                    if why != QUEUE_EMPTY {
                        problems.push(format!("{source}: {why}"));
                    }
                }
            }
        }
        let problems = (!problems.is_empty()).then(|| problems.join("; "));
        let is_well = problems.is_none();
        let source = found.as_ref().map(|(source, _)| *source);
        let (origin, content, is_whole) = match found {
            Some((source, content)) => (Origin::Transport(source), content, true),
            None if self.has_document => {
                let Some(last) = self.polling.last.clone() else { return Ok((None, problems)) };
                let (origin, is_whole) = (last.origin, last.is_whole && is_well);
                self.polled(config, &cache, Polled { is_whole, ..last }, all)?;
                return Ok((origin.transport().filter(|_| is_well), problems));
            }
            None => {
                // What a transport had before a restart is more than what the machine has.
                let kept = missing.iter().find_map(|&source| match cache.load(source) {
                    Some(Value::Object(content)) => Some((Origin::Transport(source), content)),
                    _ => None,
                });
                let is_whole = missing.is_empty() || (kept.is_some() && is_well);
                let (origin, content) = kept.unwrap_or_else(|| {
                    (Origin::Machine, self.document_of_machine(config, &cache, &sources))
                });
                (origin, content, is_whole)
            }
        };
        self.look_for_token(origin, &content);
        self.polled(config, &cache, Polled::new(origin, content, is_whole)?, all)?;
        let source = source.or_else(|| origin.transport().filter(|_| is_well));
        Ok((source, problems.filter(|_| source.is_none())))
    }

    fn polled(&mut self, config: &Config, cache: &Cache, polled: Polled, all: bool) -> Result<()> {
        let (origin, content) = (polled.origin, polled.content.clone());
        let body = polled.body.clone();
        let is_last = |last: &Polled| last.body == body && last.origin == origin;
        let is_last = self.polling.last.as_ref().is_some_and(is_last);
        let comes_again = std::mem::take(&mut self.polling.comes_again);
        let goes_on = match &self.in_force {
            Some((Origin::Push, in_force)) if *in_force == content => false,
            Some((from, in_force)) if *from == origin && *in_force == content => {
                let may_be_news = all && !self.polling.is_on_its_way;
                may_be_news && self.is_news(config, cache, origin, content.clone())?
            }
            _ => !is_last || comes_again,
        };
        self.polling.last = Some(polled);
        if goes_on {
            tracing::info!(source = origin.name(), "metadata was polled that is news");
            if let Some(source) = origin.transport() {
                // A queue gives a message once.
                cache.store(source, &Value::Object(content))?;
            }
            self.results.due();
            self.polling.is_on_its_way = true;
            let _ = self.commands.send(Command::Polled { body });
        }
        Ok(())
    }

    fn look_for_token(&mut self, origin: Origin, content: &Map<String, Value>) {
        let problem = match bootstrap::in_document(origin.name(), content) {
            Ok(Some(found)) => {
                // Whether it is wanted is known elsewhere.
                let _ = self.tokens.send(found);
                None
            }
            Ok(None) => None,
            Err(problem) => Some(problem),
        };
        if problem != self.polling.no_token {
            if let Some(problem) = &problem {
                tracing::warn!(source = origin.name(), problem, "no usable token");
            }
            self.polling.no_token = problem;
        }
    }

    /// Tells people, once.
    fn show(&mut self, source: Option<&str>, error: Option<String>) {
        let source = source.map(str::to_owned);
        let known = self.polling.status.as_ref();
        if known.is_some_and(|known| known.source == source && known.error == error) {
            return;
        }
        match (&source, &error) {
            (_, Some(error)) => tracing::warn!(error, "nothing could be polled"),
            (Some(source), None) => tracing::info!(source, "polling"),
            (None, None) => tracing::info!("no transport is configured to be polled"),
        }
        let status = PollStatus { source, error, since_unix_ms: unix_ms() };
        self.polling.status = Some(status.clone());
        let _ = self.commands.send(Command::Polling(Some(status)));
    }
}

impl Polled {
    fn new(origin: Origin, content: Map<String, Value>, is_whole: bool) -> Result<Self> {
        let body: Bytes = serde_json::to_vec(&content)?.into();
        if body.len() > metadata_delivery::DOCUMENT_BYTES_MAX {
            bail!("the document of {} has {} bytes", origin.name(), body.len());
        }
        Ok(Self { origin, content, body, is_whole })
    }
}
