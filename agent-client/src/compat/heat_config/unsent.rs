//! Results that `heat-config` could not send, for whoever stays: its next run may be far away. The loop of
//! os-collect-config and the agent send them, as that run would: what left the list is not sent any more.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::OsString;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::sleep_until;

use super::deployed::{Deployed, stem};
use super::run::Runner;
use super::settings::Settings;
use super::stop::Stop;
use super::{List, read_list};
use crate::compat::pylog::{Level, Log, Style};
use crate::document::Entry;

/// Between two looks; after one in which something was not taken twice as long as before, each time.
const PAUSE_MIN: Duration = Duration::from_secs(15);
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// How long one look may take until nothing more is begun.
const LOOK_MAX: Duration = Duration::from_secs(20);

/// Looks for them from time to time.
#[derive(Debug)]
pub struct Unsent {
    /// None: there is no place that is looked at.
    settings: Option<Settings>,
    pause: Duration,
    at: Instant,
}

impl Unsent {
    /// In the place that HEAT_CONFIG_DEPLOYED names, else, if `usual` counts, in the usual one. The first
    /// look is due at once.
    pub fn of_environment(variable: impl Fn(&str) -> Option<OsString>, usual: bool) -> Self {
        let is_named = variable("HEAT_CONFIG_DEPLOYED").is_some_and(|path| !path.is_empty());
        // What is wrong heat-config itself tells.
        let settings = (is_named || usual).then(|| Settings::of_environment(variable).0);
        Self { settings, pause: PAUSE_MIN, at: Instant::now() }
    }

    /// When the next look is due; `None`: never.
    fn due_at(&self) -> Option<Instant> {
        self.settings.as_ref().map(|_| self.at)
    }

    /// Looks whenever it is due, until it is asked to stop: a program that sends is ended then.
    pub async fn keep_sending(mut self, mut stop: Stop) {
        let mut log = Log::new(Style::Named("heat-config"), Level::Info);
        while let Some(at) = self.due_at() {
            tokio::select! {
                _ = stop.asked() => return,
                () = sleep_until(at.into()) => self.send(&mut log, &mut stop).await,
            }
        }
    }

    /// Looks, and sends what is there.
    async fn send(&mut self, log: &mut Log, stop: &mut Stop) {
        let Some(settings) = &self.settings else { return };
        let all_taken = match send(settings, log, stop).await {
            Ok(all_taken) => all_taken,
            Err(error) => {
                log.error(format!("{error:#}"));
                false
            }
        };
        self.pause = if all_taken { PAUSE_MIN } else { (self.pause * 2).min(PAUSE_MAX) };
        self.at = Instant::now() + self.pause;
    }

    fn is_any(&self) -> bool {
        let deployed = self.settings.as_ref().and_then(|s| Deployed::open(&s.deployed).ok());
        deployed.is_some_and(|deployed| deployed.unsent().is_ok_and(|unsent| !unsent.is_empty()))
    }
}

/// Looks for a program without a runtime, on a thread of its own for as long as there is something to send:
/// somebody who does not answer holds up nobody else.
#[derive(Debug)]
pub struct Beside {
    /// None while the thread has it.
    unsent: Option<Unsent>,
    at_it: Option<(mpsc::Sender<Infallible>, JoinHandle<Unsent>)>,
}

impl Beside {
    /// Where `unsent` looks.
    pub fn new(unsent: Unsent) -> Self {
        Self { unsent: Some(unsent), at_it: None }
    }

    /// Begins a look if one is due, has something to send and the last one is over. Never waits.
    pub fn send_if_due(&mut self) {
        if self.at_it.as_ref().is_some_and(|(_, thread)| thread.is_finished()) {
            self.stop();
        }
        let is_due = |unsent: &Unsent| unsent.due_at().is_some_and(|at| at <= Instant::now());
        let Some(mut unsent) = self.unsent.take_if(|unsent| is_due(unsent) && unsent.is_any())
        else {
            return;
        };
        let (asked, mut stop) = Stop::when_dropped();
        let look = move || {
            let mut log = Log::new(Style::Named("heat-config"), Level::Info);
            match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime.block_on(unsent.send(&mut log, &mut stop)),
                Err(error) => log.error(format!("no runtime to send results: {error}")),
            }
            unsent
        };
        match thread::Builder::new().name("unsent".into()).spawn(look) {
            Ok(thread) => self.at_it = Some((asked, thread)),
            Err(error) => {
                // What it was given is gone with it.
                let mut log = Log::new(Style::Named("heat-config"), Level::Info);
                log.error(format!("no thread to send results, the next run sends them: {error}"));
            }
        }
    }

    /// Ends what is being sent, and waits for that end.
    pub fn stop(&mut self) {
        if let Some((asked, thread)) = self.at_it.take() {
            drop(asked);
            self.unsent = thread.join().ok();
        }
    }
}

/// Whether nothing is left.
async fn send(settings: &Settings, log: &mut Log, stop: &mut Stop) -> Result<bool> {
    if !settings.deployed.is_dir() {
        return Ok(true);
    }
    let deployed = Deployed::open(&settings.deployed)?;
    let unsent = deployed.unsent()?;
    if unsent.is_empty() || !settings.list.exists() {
        return Ok(true);
    }
    let List::Entries(entries) = read_list(&settings.list)? else { return Ok(true) };
    let stem_of = |entry: &Value| stem(&Entry::read_with(entry.clone(), &[]).id);
    let mut entries: BTreeMap<String, Value> =
        entries.into_iter().rev().map(|entry| (stem_of(&entry), entry)).collect();
    let until = Instant::now() + LOOK_MAX;
    let mut wanted = Vec::new();
    for stem in unsent {
        let Some(entry) = entries.remove(&stem) else { continue };
        wanted.push(stem);
        if Instant::now() >= until {
            continue;
        }
        let mut runner = Runner::new(settings, &deployed, None, log);
        if let Some(pending) = runner.unsent(entry)?
            && runner.send_again(pending, stop).await?.is_some()
        {
            return Ok(false);
        }
    }
    let left = deployed.unsent()?;
    Ok(!wanted.iter().any(|stem| left.contains(stem)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_looks_where_nobody_said_so() {
        let named = |name: &str| (name == "HEAT_CONFIG_DEPLOYED").then(|| OsString::from("/x"));
        assert!(Unsent::of_environment(|_| None, false).due_at().is_none());
        assert!(Unsent::of_environment(|_| None, true).due_at().is_some());
        assert!(Unsent::of_environment(named, false).due_at().is_some());
    }
}
