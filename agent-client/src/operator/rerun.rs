//! `rerun`: one more run on purpose, and when that is refused.
//!
//! A config id is run once, whatever comes; a rerun is the one exception, and a person has to ask for it.
//! It is a transition of the journal, so that it is durable before it is promised, survives a crash, and
//! happens once for each time it was asked for. If the crash comes while it runs, it is reported as
//! interrupted like any run. Its result goes to the server as of the same config id, marked as a rerun's.

use metadata_delivery::message::Rerun;
use serde::{Deserialize, Serialize};

use super::Facts;
use crate::control::message::{Refusal, RefusalCode};
use crate::document::{ConfigId, Work};
use crate::journal::{Received, Record, State};
use crate::outcome::field;

/// A rerun that will happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rerunning {
    /// Id of the config.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Which run of the config it will be, 2 or more.
    pub run: u64,
    /// Whether the server did not have the result of the run before; it gets that of this one instead.
    pub replaces_unsent: bool,
    /// Whether an agent runs that will start it.
    pub agent_runs: bool,
}

/// The record of a rerun of `id`, and what to say about it.
///
/// # Errors
/// It cannot be run once more, or not now.
pub fn rerun(
    facts: &Facts<'_>,
    id: &ConfigId,
    asked_by: &str,
) -> Result<(Record, Rerunning), Refusal> {
    let refuse = |text: String, hint: String| Err(Refusal::new(RefusalCode::NotNow, text, hint));
    let Some(document) = facts.document else {
        return refuse("there is no document in force".into(), "agent-client status".into());
    };
    let version = document.version;
    let Some(entry) = document.entries.iter().find(|entry| entry.id == *id) else {
        return refuse(
            format!(
                "document {version}, which is in force, does not ask for {id}: its config is no longer here"
            ),
            "agent-client rollback --rerun --dry-run, or update the deployment in Heat".into(),
        );
    };
    let named = format!("{} ({id})", entry.name);
    match &entry.work {
        Work::Run(_) => {}
        Work::Data => {
            return refuse(
                format!("{named} is data for templates: there is nothing to run"),
                "os-refresh-config, to apply templates again".into(),
            );
        }
        Work::Bad(reason) => {
            return refuse(
                format!("{named} is a bad entry: {reason}; a rerun would end in the same way"),
                "mend it where it comes from, and push it again".into(),
            );
        }
    }
    if facts.live.as_ref().is_some_and(|live| live.stopping) {
        return refuse("the agent is about to stop".into(), "again once it has stopped".into());
    }
    let state = match facts.states.get(id) {
        Some(state @ (State::Finished(_) | State::Signalled(_))) => state,
        Some(State::Started { .. }) if facts.live.is_none() => {
            return refuse(
                format!(
                    "{named} was running when the agent ended; its next start brings that to an end"
                ),
                "systemctl start agent-client (or agent-client run), then again".into(),
            );
        }
        Some(State::Started { .. }) => {
            let hint = format!("agent-client logs {id} --follow, then again");
            return refuse(format!("{named} runs at the moment"), hint);
        }
        Some(State::Received(_)) | None => {
            let text = format!("{named} waits to be run already");
            return refuse(text, format!("agent-client why {id}"));
        }
    };
    let run = state.run() + 1;
    let received = Received {
        id: id.clone(),
        name: field(&entry.name),
        group: field(&entry.group),
        action: field(&entry.action),
        document_version: version,
        at_unix_ms: facts.now_unix_ms,
        rerun: Some(Rerun { run, asked_by: field(asked_by), asked_unix_ms: facts.now_unix_ms }),
        way: entry.way.clone(),
    };
    let rerunning = Rerunning {
        id: id.to_string(),
        name: entry.name.clone(),
        run,
        replaces_unsent: matches!(state, State::Finished(_)),
        agent_runs: facts.live.is_some(),
    };
    Ok((Record::Rerun(received), rerunning))
}

#[cfg(test)]
mod tests {
    use super::super::why::tests::Bench;
    use super::*;
    use crate::journal::tests_support::{finished, id, received, signalled, started};

    #[test]
    fn what_has_ended_is_run_once_more_and_its_number_and_who_asked_are_recorded() {
        let mut bench = Bench::new();
        bench.record([received("a"), started("a"), finished("a"), signalled("a")]);
        let (record, told) = rerun(&bench.facts(), &id("a"), "user root (uid 0)").unwrap();
        assert_eq!((told.run, told.replaces_unsent, told.agent_runs), (2, false, false));
        let Record::Rerun(asked) = &record else { panic!("{record:?}") };
        assert_eq!(asked.rerun.as_ref().unwrap().asked_by, "user root (uid 0)");
        assert_eq!((asked.document_version, asked.name.as_str()), (5, "name-of-a"));
        bench.record([record]);
        assert!(rerun(&bench.facts(), &id("a"), "x").is_err(), "asked for, and not run yet");
    }

    #[test]
    fn a_result_that_the_server_does_not_have_yet_is_said_to_be_replaced() {
        let mut bench = Bench::new();
        bench.record([received("a"), started("a"), finished("a")]);
        assert!(rerun(&bench.facts(), &id("a"), "x").unwrap().1.replaces_unsent);
    }

    #[test]
    fn what_runs_waits_is_data_bad_or_gone_is_refused_with_what_to_try() {
        let mut bench = Bench::new();
        bench.record([received("a"), started("a"), received("b"), received("gone")]);
        let mut shown = String::new();
        for name in ["a", "b", "data", "bad", "gone", "never-started"] {
            let refusal = rerun(&bench.facts(), &id(name), "x").unwrap_err();
            assert_eq!(refusal.code, RefusalCode::NotNow);
            shown += &format!("{}\n  try: {}\n", refusal.text, refusal.hint.unwrap());
        }
        insta::assert_snapshot!(shown);
    }
}
