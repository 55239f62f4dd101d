//! `why`: everything known of one deployment, what happens next, and what to try.

use std::fmt::Write as _;

use metadata_delivery::message::DeploymentState;
use serde::{Deserialize, Serialize};

use super::words::{about, clock, clock_and_age, line, span};
use super::{Facts, Live, RunningNow};
use crate::document::{ConfigId, Entry, Work};
use crate::exit::Exit;
use crate::hooks::Hook;
use crate::journal::{Finished, ProcessMark, State};
use crate::status::{LinkState, is_ended};

/// All that is known of a deployment. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// Id of its config.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its group.
    pub group: String,
    /// Heat's action.
    pub action: String,
    /// Where it stands.
    pub state: DeploymentState,
    /// Whether the document in force asks for it.
    pub in_force: bool,
    /// Its place in the document in force, from 1, and how many there are.
    pub place: Option<(usize, usize)>,
    /// The document that asked for its last run.
    pub document_version: Option<u64>,
    /// The document in force.
    pub document_in_force: Option<u64>,
    /// The document that came last, if an earlier one was put in force.
    pub rolled_back_from: Option<u64>,
    /// When it came, or its rerun was asked for.
    pub received_unix_ms: Option<u64>,
    /// When its hook was started.
    pub started_unix_ms: Option<u64>,
    /// When it ended.
    pub finished_unix_ms: Option<u64>,
    /// When the server was heard to have its result.
    pub signalled_unix_ms: Option<u64>,
    /// Which run of the config, from 1.
    pub run: u64,
    /// Who asked for this run, if it is not the first.
    pub rerun_by: Option<String>,
    /// The hook that its group names.
    pub hook: Option<HookFound>,
    /// Its process, while it runs.
    pub pid: Option<u32>,
    /// When it will have taken too long, while it runs.
    pub timeout_unix_ms: Option<u64>,
    /// Exit status of its hook, once ended.
    pub status_code: Option<i64>,
    /// Why the agent called it failed.
    pub reason: Option<String>,
    /// Whether all have its result to whom it is owed; none where there is none to send.
    pub result_stored: Option<bool>,
    /// Whether Heat has still to take it from the agent itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub result_for_heat: bool,
    /// Why the server will never take its result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result_refused: Option<String>,
    /// Why Heat was never told of it by the agent itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heat_refused: Option<String>,
    /// What it waits for.
    pub waits_for: Option<String>,
    /// What happens next.
    pub next: String,
    /// What to try.
    pub hints: Vec<String>,
}

/// A hook by its name, and what is found under it now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookFound {
    /// Its name.
    pub name: String,
    /// Where it is: `built in`, or a path; none if there is no such hook.
    pub place: Option<String>,
}

/// What the journal has of it.
#[derive(Default)]
struct Journalled {
    name: String,
    group: String,
    action: String,
    document_version: Option<u64>,
    received: Option<u64>,
    started: Option<u64>,
    finished: Option<u64>,
    signalled: Option<u64>,
    run: u64,
    rerun_by: Option<String>,
    process: Option<ProcessMark>,
    status_code: Option<i64>,
    reason: Option<String>,
    result_stored: Option<bool>,
    result_for_heat: bool,
    result_refused: Option<String>,
    heat_refused: Option<String>,
}

/// Everything known of `id`, which is in the journal or in the document in force.
pub fn why(facts: &Facts<'_>, id: &ConfigId) -> Why {
    let entries = facts.document.map(|document| &*document.entries).unwrap_or_default();
    let at = entries.iter().position(|entry| entry.id == *id);
    let entry = at.and_then(|at| entries.get(at));
    let state = facts.states.get(id);
    let known = state.map(journalled).unwrap_or_default();
    let shown = shown(state, entry);
    let running = facts.live.as_ref().and_then(|live| live.running.get(id)).cloned();
    let waits_for = facts.live.as_ref().and_then(|live| live.waits_for.get(id)).cloned();
    let text = |of_entry: Option<&String>, journalled: String| {
        of_entry.cloned().filter(|text| !text.is_empty()).unwrap_or(journalled)
    };
    let mut why = Why {
        id: id.to_string(),
        name: text(entry.map(|e| &e.name), known.name),
        group: text(entry.map(|e| &e.group), known.group),
        action: text(entry.map(|e| &e.action), known.action),
        state: shown,
        in_force: entry.is_some(),
        place: at.map(|at| (at + 1, entries.len())),
        document_version: known.document_version,
        document_in_force: facts.document.map(|document| document.version),
        rolled_back_from: facts.rolled_back_from,
        received_unix_ms: known.received,
        started_unix_ms: known.started,
        finished_unix_ms: known.finished,
        signalled_unix_ms: known.signalled,
        run: known.run.max(1),
        rerun_by: known.rerun_by,
        hook: entry.and_then(|entry| hook(facts, entry)),
        pid: running.as_ref().map(|r| r.pid).or_else(|| known.process.map(|mark| mark.pid)),
        timeout_unix_ms: running.and_then(|RunningNow { timeout_unix_ms, .. }| timeout_unix_ms),
        status_code: known.status_code,
        reason: known.reason,
        result_stored: known.result_stored,
        result_for_heat: known.result_for_heat,
        result_refused: known.result_refused,
        heat_refused: known.heat_refused,
        waits_for,
        next: String::new(),
        hints: Vec::new(),
    };
    let (next, hints) = next(facts, &why, entry);
    (why.next, why.hints) = (next, hints);
    why
}

fn shown(state: Option<&State>, entry: Option<&Entry>) -> DeploymentState {
    match (state, entry.map(|entry| &entry.work)) {
        (Some(state), _) => state.shown().0,
        (None, Some(Work::Run(_) | Work::Bad(_))) => DeploymentState::Received,
        (None, Some(Work::Data) | None) => DeploymentState::Skipped,
    }
}

fn journalled(state: &State) -> Journalled {
    // Journals of older releases have no such times.
    let time = |unix_ms: u64| Some(unix_ms).filter(|&ms| ms != 0);
    match state {
        State::Received(received) | State::Started { received, .. } => {
            let (started, process) = match state {
                State::Started { at_unix_ms, process, .. } => (time(*at_unix_ms), *process),
                _ => (None, None),
            };
            Journalled {
                name: received.name.clone(),
                group: received.group.clone(),
                action: received.action.clone(),
                document_version: Some(received.document_version),
                received: time(received.at_unix_ms),
                started,
                process,
                run: state.run(),
                rerun_by: received.rerun.as_ref().map(|rerun| rerun.asked_by.clone()),
                result_stored: Some(false),
                ..Journalled::default()
            }
        }
        State::Finished(finished @ Finished { result, received_unix_ms, .. }) => Journalled {
            name: result.name.clone(),
            group: result.group.clone(),
            action: result.action.clone(),
            document_version: Some(result.document_version),
            received: time(*received_unix_ms),
            started: time(result.started_unix_ms),
            finished: time(result.finished_unix_ms),
            run: state.run(),
            rerun_by: result.rerun.as_ref().map(|rerun| rerun.asked_by.clone()),
            status_code: Some(result.deploy_status_code),
            reason: result.reason.clone(),
            signalled: finished.server.as_ref().and_then(|server| time(server.at_unix_ms)),
            result_stored: Some(false),
            result_for_heat: finished.is_owed_to_heat(),
            heat_refused: finished.refused_by_heat().cloned(),
            ..Journalled::default()
        },
        State::Signalled(done) => Journalled {
            name: done.name.clone(),
            group: done.group.clone(),
            action: done.action.clone(),
            document_version: Some(done.document_version),
            received: time(done.received_unix_ms),
            started: time(done.started_unix_ms),
            finished: time(done.at_unix_ms),
            signalled: time(done.signalled_unix_ms),
            run: state.run(),
            rerun_by: done.rerun.as_ref().map(|rerun| rerun.asked_by.clone()),
            status_code: Some(done.status_code),
            reason: done.reason.clone(),
            result_stored: Some(!done.is_refused()),
            result_refused: done.refused.clone(),
            heat_refused: done.heat_refused.clone(),
            ..Journalled::default()
        },
    }
}

fn hook(facts: &Facts<'_>, entry: &Entry) -> Option<HookFound> {
    let Work::Run(config) = &entry.work else { return None };
    let place = facts.hooks.find(&config.hook).map(|hook| match hook {
        Hook::External(path) => path.display().to_string(),
        _ => "built in".into(),
    });
    Some(HookFound { name: config.hook.clone(), place })
}

/// What happens next, and what to try.
fn next(facts: &Facts<'_>, why: &Why, entry: Option<&Entry>) -> (String, Vec<String>) {
    let start = || vec!["systemctl start agent-client (or agent-client run)".to_owned()];
    let fault = facts.live.as_ref().and_then(|live| live.fault);
    match why.state {
        DeploymentState::Received => match (&facts.live, fault) {
            (None, _) => ("it is run once the agent runs".into(), start()),
            (_, Some(fault)) => (format!("it is run once this is over: {fault}"), Vec::new()),
            (Some(live), _) if live.stopping => {
                ("the agent stops; it is run after the next start".into(), start())
            }
            _ => match &why.waits_for {
                Some(what) => (what.clone(), vec!["agent-client status".into()]),
                None => ("it is the next to be run".into(), Vec::new()),
            },
        },
        DeploymentState::Running if facts.live.is_none() => {
            ("the agent ended while it ran: once it runs again what is left of the run is killed and reported as interrupted".into(), start())
        }
        DeploymentState::Running => (
            "its result is sent when it ends".into(),
            vec![format!("agent-client logs {} --follow", why.id)],
        ),
        DeploymentState::Skipped => {
            ("nothing: it is data for templates, there is nothing to run".into(), Vec::new())
        }
        DeploymentState::Complete | DeploymentState::Failed | DeploymentState::Interrupted => {
            let (delivery, mut hints) = delivery(facts.live.as_ref(), why);
            hints.extend(remedies(why, entry));
            (delivery, hints)
        }
        DeploymentState::Unknown => (String::new(), Vec::new()),
    }
}

/// What happens to the result of what has ended.
fn delivery(live: Option<&Live<'_>>, why: &Why) -> (String, Vec<String>) {
    let never = "it is not run again by itself";
    let is_alone = live.is_some_and(|live| live.link.state == LinkState::Unenrolled);
    if is_alone && why.result_stored == Some(true) {
        return (format!("nothing: its result was taken, and {never}"), Vec::new());
    }
    if why.result_stored == Some(true) {
        return (format!("nothing: the server has its result, and {never}"), Vec::new());
    }
    if why.result_refused.is_some() {
        let hint = "update the agent or the server to releases that understand each other";
        return (format!("nothing: the server refused its result, and {never}"), vec![hint.into()]);
    }
    if why.heat_refused.is_some() && (is_alone || why.signalled_unix_ms.is_some()) {
        return (format!("nothing: Heat was not told of its result, and {never}"), Vec::new());
    }
    let Some(live) = live else {
        let hint = "systemctl start agent-client (or agent-client run)";
        return (format!("its result is sent once the agent runs; {never}"), vec![hint.into()]);
    };
    if let Some(fault) = live.fault {
        return (format!("its result is sent once this is over: {fault}"), Vec::new());
    }
    if is_alone || (why.result_for_heat && why.signalled_unix_ms.is_some()) {
        let next =
            format!("its result is sent to Heat, as its inputs say, until it is taken; {never}");
        return (next, vec!["agent-client status".into()]);
    }
    if live.link.state == LinkState::Connected {
        return (format!("its result is on its way to the server; {never}"), Vec::new());
    }
    let error = live.link.error.as_ref();
    let why_not = error.map(|error| format!(" ({})", error.text)).unwrap_or_default();
    let hints = error.and_then(|error| error.hint.clone()).into_iter().collect();
    (format!("its result is sent once the server is reached{why_not}; {never}"), hints)
}

/// What may help with what did not end well.
fn remedies(why: &Why, entry: Option<&Entry>) -> Vec<String> {
    let mut hints = Vec::new();
    if why.state == DeploymentState::Complete {
        return hints;
    }
    let can_run = entry.is_some_and(|entry| matches!(entry.work, Work::Run(_)));
    match &why.hook {
        Some(HookFound { name, place: None }) => {
            hints.push(format!("put a program called {name} into a hooks directory"));
        }
        _ if can_run || !why.in_force => hints.push(format!("agent-client logs {}", why.id)),
        _ => {}
    }
    if can_run {
        hints.push(format!("agent-client rerun {}, once its cause is mended", why.id));
    } else if why.in_force {
        hints.push("mend the entry where it comes from: a rerun would end in the same way".into());
    } else {
        hints.push("update the deployment in Heat: the document in force no longer has it".into());
    }
    hints
}

impl Why {
    /// What it amounts to, as for `status`.
    pub fn verdict(&self) -> Exit {
        match self.state {
            DeploymentState::Failed | DeploymentState::Interrupted => Exit::Failed,
            _ if self.result_refused.is_some() || self.heat_refused.is_some() => Exit::Failed,
            state if is_ended(state) && self.result_stored != Some(false) => Exit::Ok,
            _ => Exit::Degraded,
        }
    }

    /// For people.
    pub fn render(&self, now_unix_ms: u64) -> String {
        let mut out = String::new();
        let name = if self.name.is_empty() { "(no name)" } else { &self.name };
        let _ = writeln!(out, "{} ({})", line(name), line(&self.id));
        let mut row = |what: &str, text: String| {
            let _ = writeln!(out, "{what:<10}  {}", line(&text));
        };
        row("state", self.state_words());
        if let Some(reason) = &self.reason {
            row("reason", reason.clone());
        }
        row("asked for", self.origin_words());
        if self.run > 1 || self.rerun_by.is_some() {
            let by = self.rerun_by.as_deref().unwrap_or("an unknown user");
            row("run", format!("{}, asked for by {by}", self.run));
        }
        if let Some(hook) = &self.hook {
            let place = hook.place.as_deref().unwrap_or("not there");
            row("hook", format!("{} ({place})", hook.name));
        }
        let ago = |at: u64| clock_and_age(at, now_unix_ms);
        for (what, at) in [("received", self.received_unix_ms), ("started", self.started_unix_ms)] {
            if let Some(at) = at {
                row(what, ago(at));
            }
        }
        if let Some(at) = self.timeout_unix_ms {
            let left = span(at.saturating_sub(now_unix_ms));
            row("times out", format!("{}, in {left}", clock(at)));
        }
        if let Some(at) = self.finished_unix_ms {
            let took = self.started_unix_ms.map(|start| span(at.saturating_sub(start)));
            let took = took.map(|took| format!(", after {took}")).unwrap_or_default();
            row("finished", format!("{}{took}", ago(at)));
        }
        if is_ended(self.state)
            && let Some(stored) = self.result_stored
        {
            let at = self.signalled_unix_ms.map(|at| format!(", {}", clock(at)));
            let words = match (&self.result_refused, &self.heat_refused) {
                (Some(reason), _) => format!("refused by the server: {reason}"),
                (None, Some(reason)) => format!("Heat was not told: {reason}"),
                (None, None) if stored => "stored by the server".into(),
                (None, None) if self.result_for_heat && self.signalled_unix_ms.is_some() => {
                    "not taken by Heat yet; stored by the server".into()
                }
                (None, None) => "not stored by the server yet".into(),
            };
            row("result", format!("{words}{}", at.unwrap_or_default()));
        }
        row("next", self.next.clone());
        for hint in &self.hints {
            let _ = writeln!(out, "  try: {}", line(hint));
        }
        out
    }

    fn state_words(&self) -> String {
        let status = match self.status_code {
            Some(code) if code < 0 => format!(", ended by signal {}", -code),
            Some(code) => format!(", exit status {code}"),
            None => String::new(),
        };
        let pid = match (self.state, self.pid) {
            (DeploymentState::Running, Some(pid)) => format!(", pid {pid}"),
            _ => String::new(),
        };
        match self.state {
            DeploymentState::Received => "waiting".into(),
            DeploymentState::Skipped => "data".into(),
            state => format!("{state}{status}{pid}"),
        }
    }

    fn origin_words(&self) -> String {
        let mut words = match (self.document_version, self.place) {
            (Some(version), _) => format!("by document {version}"),
            (None, Some(_)) => "by the document in force".into(),
            (None, None) => "by an earlier document".into(),
        };
        let in_force = self.document_in_force;
        match (self.place, in_force) {
            (Some((at, of)), Some(in_force)) => {
                let _ = write!(words, "; entry {at} of {of} of document {in_force}, in force");
            }
            (_, Some(in_force)) => {
                let _ = write!(words, "; document {in_force}, in force, no longer asks for it");
            }
            _ => {}
        }
        if let Some(from) = self.rolled_back_from {
            let _ = write!(words, " (rolled back from {from})");
        }
        let about = about(&self.action, &self.group);
        if !about.is_empty() {
            let _ = write!(words, "; {about}");
        }
        words
    }
}

#[cfg(test)]
pub(crate) mod tests;
