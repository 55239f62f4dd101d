//! The operator's commands.

use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Subcommand;
use serde_json::{Value, json};

use super::offline::{Documents, Offline, unreadable};
use super::rollback::{Named, RollbackPlan};
use super::why::Why;
use super::words::{clock_and_age, deployments, line};
use super::{diff, logs};
use crate::config::{Settings, parse_duration};
use crate::control::client;
use crate::control::message::{Answer, Question, Refusal, RefusalCode, Reply, SCHEMA};
use crate::daemon::files;
use crate::exit::{Abort, Exit};
use crate::hooks::kept::Stream;
use crate::lock;
use crate::pipeline::unix_ms;
use crate::status::is_ended;
use crate::store::StoredDocument;

/// How long an agent that starts or stops is waited for, and how often it is looked at.
const AGENT_MS_MAX: u64 = 5_000;
const AGENT_POLL_MS: u64 = 20;
/// How often a waiting rerun is asked after.
const WAIT_POLL_MS: u64 = 200;

/// What an operator asks.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Tell all that is known of a deployment, what happens next and what to try
    #[command(
        after_help = "Exit codes: 0 complete, 1 failed or interrupted, 2 not ended or result not stored yet,\n\
        64 nobody knows ID, or several are called so."
    )]
    Why {
        /// Config id, the beginning of one, or a name
        #[arg(value_name = "ID")]
        name: String,
        /// As JSON, in a stable form ("schema": 1)
        #[arg(long)]
        json: bool,
    },
    /// Show what a deployment has printed: live while it runs, afterwards what is kept of its last run
    #[command(
        after_help = "Standard output goes to standard output, standard error to standard error; secrets among the\n\
        inputs are hidden. 16 MiB of each stream are kept, 256 MiB of all."
    )]
    Logs {
        /// Config id, the beginning of one, or a name
        #[arg(value_name = "ID")]
        name: String,
        /// Go on until it ends
        #[arg(short, long)]
        follow: bool,
        /// Only its standard output
        #[arg(long, conflicts_with = "stderr")]
        stdout: bool,
        /// Only its standard error, on standard output
        #[arg(long)]
        stderr: bool,
        /// As JSON, in a stable form ("schema": 1)
        #[arg(long, conflicts_with = "follow")]
        json: bool,
    },
    /// Run a deployment once more
    #[command(
        after_help = "Otherwise a config id is run once, whatever comes. It must have ended, and the document in force\n\
        must ask for it. Its result is sent again, marked as a rerun's; the newest counts. Should the agent\n\
        or the machine stop meanwhile, it is reported as interrupted like any run.\n\
        Without a running agent it is noted, and run once one runs."
    )]
    Rerun {
        /// Config id, the beginning of one, or a name
        #[arg(value_name = "ID")]
        name: String,
        /// Wait until it has ended, at most this long; the exit code is then that of why
        #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "60s", value_parser = time)]
        wait: Option<Duration>,
        /// As JSON, in a stable form ("schema": 1)
        #[arg(long)]
        json: bool,
    },
    /// Show what changed from one document to another: deployments, inputs, configs; secrets are hidden
    #[command(
        after_help = "Without VERSION: from the document before the one in force. With one: from that to the one in\n\
        force. With two: from the first to the second. The last 10 documents are kept, 64 MiB together."
    )]
    Diff {
        /// Versions of documents
        #[arg(value_name = "VERSION", num_args = 0..=2)]
        versions: Vec<u64>,
        /// List the documents that are kept
        #[arg(long, conflicts_with = "versions")]
        list: bool,
        /// As JSON, in a stable form ("schema": 1)
        #[arg(long)]
        json: bool,
    },
    /// Put an earlier document in force, until the server pushes another
    #[command(
        after_help = "The effect is that of a push of that document: status, progress at the server and whatever reads\n\
        the document follow it. Configs that have run do not run again, as ids run once; with --rerun\n\
        those do that the earlier document asks for and the one in force does not. What only the one in\n\
        force asks for is not undone. The next document that the server pushes is in force as always;\n\
        --to the newest version ends the rollback before that."
    )]
    Rollback {
        /// Which version [default: the one before the one in force]
        #[arg(long, value_name = "VERSION")]
        to: Option<u64>,
        /// Run once more what differs
        #[arg(long)]
        rerun: bool,
        /// Only show what would happen
        #[arg(long)]
        dry_run: bool,
        /// As JSON, in a stable form ("schema": 1)
        #[arg(long)]
        json: bool,
    },
}

fn time(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "must be a time like 500ms, 30s, 5m or 1h".into())
}

/// Does what is asked.
///
/// # Errors
/// What kept it from being done.
pub fn execute(settings: &Settings, command: Command) -> Result<Exit, Abort> {
    match command {
        Command::Why { name, json } => why(settings, &name, json),
        Command::Logs { name, follow, stdout, stderr, json } => {
            let only = match (stdout, stderr) {
                (true, _) => Some(Stream::Stdout),
                (_, true) => Some(Stream::Stderr),
                _ => None,
            };
            logs::logs(settings, &name, follow, only, json)
        }
        Command::Rerun { name, wait, json } => rerun(settings, name, wait, json),
        Command::Diff { list: true, json, .. } => list(settings, json),
        Command::Diff { versions, json, .. } => diff(settings, &versions, json),
        Command::Rollback { to, rerun, dry_run, json } => {
            rollback(settings, to, rerun, dry_run, json)
        }
    }
}

/// The answer of the running agent, or of its files if none runs.
fn ask(settings: &Settings, question: &Question) -> Result<Answer, Abort> {
    let path = settings.state(files::CONTROL);
    let until = Instant::now() + Duration::from_millis(AGENT_MS_MAX);
    loop {
        let Some(holder) = lock::holder(&settings.state_dir) else {
            return Offline::read(settings)?.answer(question);
        };
        let error = match client::ask(&path, question) {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        // It has the lock before it listens, and still has it when it does so no longer.
        let nobody = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused];
        if nobody.contains(&error.kind()) && Instant::now() < until {
            thread::sleep(Duration::from_millis(AGENT_POLL_MS));
            continue;
        }
        let denied = error.kind() == io::ErrorKind::PermissionDenied;
        let doing = format!("asking agent-client (pid {holder}) at {}", path.display());
        let error = anyhow::Error::from(error).context(doing);
        return Err(Abort::new(Exit::Failed, error).hint(if denied {
            "as root, or as the user that runs the agent"
        } else {
            "again in a moment; if it goes on: systemctl restart agent-client"
        }));
    }
}

/// As [`ask`]. A refusal ends the command; with `json` it is printed too.
fn answered(settings: &Settings, question: Question, json: bool) -> Result<Answer, Abort> {
    let answer = ask(settings, &question)?;
    let Answer::Refused(refusal) = &answer else { return Ok(answer) };
    if json {
        print_json(&answer)?;
    }
    Err(abort(refusal))
}

/// What is known of a deployment; a refusal ends the command.
pub(super) fn known(settings: &Settings, name: &str, json: bool) -> Result<Box<Why>, Abort> {
    match answered(settings, Question::Why { name: name.to_owned() }, json)? {
        Answer::Why(why) => Ok(why),
        other => Err(unexpected(&other)),
    }
}

/// Anything but what was asked for: a fault of ours, or an agent of another release.
fn unexpected(answer: &Answer) -> Abort {
    let error = anyhow::anyhow!("the agent answered something else: {answer:?}");
    Abort::new(Exit::Failed, error).hint("restart the agent, if it is of another release")
}

fn abort(refusal: &Refusal) -> Abort {
    let exit = match refusal.code {
        RefusalCode::NeverHeardOf | RefusalCode::Ambiguous => Exit::Usage,
        RefusalCode::NotAllowed => Exit::Refused,
        _ => Exit::Failed,
    };
    // Names of deployments in it are text of others.
    let mut text = line(&refusal.text);
    for candidate in &refusal.candidates {
        let in_force = if candidate.in_force { "" } else { ", no longer asked for" };
        text += &format!("\n  {} ({}{in_force})", line(&candidate.id), line(&candidate.name));
    }
    let abort = Abort::new(exit, anyhow::anyhow!(text));
    match &refusal.hint {
        Some(hint) => abort.hint(hint),
        None => abort,
    }
}

fn why(settings: &Settings, name: &str, json: bool) -> Result<Exit, Abort> {
    let why = known(settings, name, json)?;
    let exit = why.verdict();
    show(why, json)?;
    Ok(exit)
}

fn show(why: Box<Why>, json: bool) -> Result<(), Abort> {
    if json { print_json(&Answer::Why(why)) } else { print(why.render(unix_ms()).trim_end()) }
}

fn rerun(
    settings: &Settings,
    name: String,
    wait: Option<Duration>,
    json: bool,
) -> Result<Exit, Abort> {
    let rerunning = match answered(settings, Question::Rerun { name }, json)? {
        Answer::Rerun(rerunning) => rerunning,
        other => return Err(unexpected(&other)),
    };
    let id = rerunning.id.clone();
    if let (Some(wait), true) = (wait, rerunning.agent_runs) {
        return waited(settings, &id, rerunning.run, wait, json);
    }
    if json {
        print_json(&Answer::Rerun(rerunning))?;
        return Ok(Exit::Ok);
    }
    let when = if rerunning.agent_runs {
        "is run once more"
    } else {
        "is run once more when the agent runs"
    };
    let unsent = if rerunning.replaces_unsent {
        "; the server gets its result instead of that of the run before, which it did not have yet"
    } else {
        ""
    };
    print(&format!(
        "{} ({}) {when}: run {}{unsent}",
        line(&rerunning.name),
        line(&id),
        rerunning.run
    ))?;
    let next = if rerunning.agent_runs {
        format!("agent-client logs {} --follow", line(&id))
    } else {
        "systemctl start agent-client (or agent-client run)".into()
    };
    let _ = writeln!(io::stderr(), "next: {next}");
    Ok(Exit::Ok)
}

/// Waits until this run of a config has ended.
fn waited(
    settings: &Settings,
    id: &str,
    run: u64,
    wait: Duration,
    json: bool,
) -> Result<Exit, Abort> {
    let until = Instant::now() + wait;
    loop {
        let why = known(settings, id, json)?;
        if (why.run >= run && is_ended(why.state)) || Instant::now() >= until {
            let exit = match why.verdict() {
                // The run is what was waited for, not the way of its result.
                Exit::Degraded if is_ended(why.state) => Exit::Ok,
                verdict => verdict,
            };
            show(why, json)?;
            return Ok(exit);
        }
        thread::sleep(Duration::from_millis(WAIT_POLL_MS));
    }
}

fn list(settings: &Settings, json: bool) -> Result<Exit, Abort> {
    let documents = Documents::read(settings)?;
    let in_force = documents.in_force().map(|document| document.version);
    let newest = documents.newest.iter().map(|d| (d.version, d.received_unix_ms));
    let kept = documents.kept();
    let all: Vec<(u64, u64)> =
        kept.iter().map(|kept| (kept.version, kept.received_unix_ms)).chain(newest).collect();
    if json {
        let entry = |(version, received_unix_ms): &(u64, u64)| {
            json!({"version": version, "received_unix_ms": received_unix_ms,
                "in_force": Some(*version) == in_force})
        };
        let entries: Vec<Value> = all.iter().map(entry).collect();
        print_value(&json!({"schema": SCHEMA, "documents": entries}))?;
        return Ok(Exit::Ok);
    }
    if all.is_empty() {
        print("no document has come yet")?;
    }
    let now = unix_ms();
    for (version, received_unix_ms) in all {
        let mark = if Some(version) == in_force { "  in force" } else { "" };
        print(&format!("{version:<8} {}{mark}", clock_and_age(received_unix_ms, now)))?;
    }
    Ok(Exit::Ok)
}

fn diff(settings: &Settings, versions: &[u64], json: bool) -> Result<Exit, Abort> {
    let documents = Documents::read(settings)?;
    let none = |text: String| {
        Abort::new(Exit::Failed, anyhow::anyhow!(text))
            .hint("agent-client diff --list shows what is kept")
    };
    let Some(in_force) = documents.in_force() else {
        return Err(none("no document has come yet".into()));
    };
    let load = |version: u64| -> Result<StoredDocument, Abort> {
        if let Some(newest) = documents.newest.as_ref().filter(|d| d.version == version) {
            return Ok(newest.clone());
        }
        let kept = documents.history.load(version).map_err(unreadable)?;
        kept.ok_or_else(|| none(format!("document {version} is not kept")))
    };
    let before = || {
        // Of a rollback, the one that it has put out of force; else the one that came before.
        let replaced = documents.rolled_back_to.as_ref().and(documents.newest.as_ref());
        let last = || documents.kept().last().map(|kept| kept.version);
        let version = replaced.map(|newest| newest.version).or_else(last);
        version.ok_or_else(|| {
            none(format!("no document from before version {} is kept", in_force.version))
        })
    };
    let (from, to) = match versions {
        [] => (load(before()?)?, in_force.clone()),
        [from] => (load(*from)?, in_force.clone()),
        [from, to, ..] => (load(*from)?, load(*to)?),
    };
    let changes = diff::diff(&from, &to, in_force.version);
    if json {
        print_value(&serde_json::to_value(&changes).context("writing JSON")?)?;
    } else {
        print(changes.render().trim_end())?;
    }
    Ok(Exit::Ok)
}

fn rollback(
    settings: &Settings,
    to: Option<u64>,
    rerun: bool,
    dry_run: bool,
    json: bool,
) -> Result<Exit, Abort> {
    let question = Question::Rollback { to, rerun, dry_run };
    match answered(settings, question, json)? {
        Answer::Rollback(plan) => {
            if json {
                print_json(&Answer::Rollback(plan))?;
                return Ok(Exit::Ok);
            }
            print(render_plan(&plan).trim_end())?;
            let next = match (plan.dry_run, plan.agent_runs) {
                (true, _) => format!(
                    "agent-client rollback --to {}{}",
                    plan.to_version,
                    if rerun { " --rerun" } else { "" }
                ),
                (false, true) => "agent-client status --wait".into(),
                (false, false) => "systemctl start agent-client (or agent-client run)".into(),
            };
            let _ = writeln!(io::stderr(), "next: {next}");
            Ok(Exit::Ok)
        }
        other => Err(unexpected(&other)),
    }
}

fn render_plan(plan: &RollbackPlan) -> String {
    let is = if plan.dry_run { "would be" } else { "is" };
    let mut out = format!(
        "document {} {is} in force, in the place of document {}\n",
        plan.to_version, plan.from_version
    );
    let names = |list: &[Named]| -> String {
        let one = |named: &Named| format!("    {} ({})\n", line(&named.name), line(&named.id));
        list.iter().map(one).collect()
    };
    let mut section = |list: &[Named], words: &str| {
        if !list.is_empty() {
            out += &format!("{words}:\n{}", names(list));
        }
    };
    section(&plan.run_first, "run for the first time");
    section(&plan.run_again, "run once more");
    section(
        &plan.not_run_again,
        "not run again, as ids run once (--rerun, or agent-client rerun ID, runs what has ended once more)",
    );
    section(&plan.not_undone, "what these have done is not undone");
    if plan.unchanged > 0 {
        out += &format!("unchanged: {}\n", deployments(plan.unchanged));
    }
    out += &if plan.to_version == plan.newest_version {
        "this is the newest document: the rollback is over\n".to_owned()
    } else {
        format!(
            "until the server pushes one newer than {}, or: agent-client rollback --to {}\n",
            plan.newest_version, plan.newest_version
        )
    };
    out
}

fn print_json(answer: &Answer) -> Result<(), Abort> {
    let reply = serde_json::to_value(Reply::from(answer.clone())).context("writing JSON")?;
    print_value(&reply)
}

pub(super) fn print_value(value: &Value) -> Result<(), Abort> {
    print(&serde_json::to_string_pretty(value).context("writing JSON")?)
}

pub(super) fn print(text: &str) -> Result<(), Abort> {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(anyhow::Error::from(error).context("writing to standard output").into()),
        Ok(()) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(list: &[&str]) -> Vec<Named> {
        let one = |id: &&str| Named { id: (*id).to_owned(), name: format!("name-of-{id}") };
        list.iter().map(one).collect()
    }

    #[test]
    fn the_plan_of_a_rollback_says_what_runs_what_does_not_and_how_long_it_holds() {
        let mut plan = RollbackPlan {
            dry_run: true,
            from_version: 5,
            to_version: 3,
            newest_version: 5,
            run_again: Vec::new(),
            not_run_again: named(&["old", "older"]),
            run_first: named(&["waits"]),
            unchanged: 2,
            not_undone: named(&["new"]),
            agent_runs: true,
        };
        let mut shown = render_plan(&plan);
        plan.dry_run = false;
        plan.run_again = std::mem::take(&mut plan.not_run_again);
        (plan.from_version, plan.to_version) = (3, 5);
        shown.push_str("--------\n");
        shown.push_str(&render_plan(&plan));
        insta::assert_snapshot!(shown);
    }

    #[test]
    fn a_refusal_has_an_exit_code_candidates_and_what_to_try() {
        let exit = |code| abort(&Refusal::new(code, "t", "h")).exit;
        assert_eq!(exit(RefusalCode::NeverHeardOf), Exit::Usage);
        assert_eq!(exit(RefusalCode::Ambiguous), Exit::Usage);
        assert_eq!(exit(RefusalCode::NotAllowed), Exit::Refused);
        assert_eq!(exit(RefusalCode::NotNow), Exit::Failed);
        let evil = abort(&Refusal::new(RefusalCode::NotNow, "web\u{1b}[2J runs", "h"));
        assert_eq!(evil.error.to_string(), "web\\u{1b}[2J runs");
        let refusal = Refusal {
            candidates: vec![super::super::resolve::Candidate {
                id: "a1".into(),
                name: "web".into(),
                in_force: false,
            }],
            ..Refusal::new(RefusalCode::Ambiguous, "\"a\" may be any of 2", "more of it")
        };
        let abort = abort(&refusal);
        let text = format!("{:#}", abort.error);
        assert_eq!(text, "\"a\" may be any of 2\n  a1 (web, no longer asked for)");
        assert_eq!(abort.hint.as_deref(), Some("more of it"));
    }
}
