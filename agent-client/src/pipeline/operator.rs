//! What an operator asks of the running agent. Changes are answered once they are durable.

use std::sync::Arc;

use tokio::time::Instant;

use super::work::Effect;
use super::{Pipeline, PipelineError, unix_ms};
use crate::control::Ask;
use crate::control::message::{Answer, Question, Refusal, RefusalCode};
use crate::document::{ConfigId, Document};
use crate::operator::rollback::{self, Rollback, RollbackPlan};
use crate::operator::{Facts, Live, RunningNow, rerun, resolve, why};

impl Pipeline {
    /// Answers, or does what is asked and answers with the next commit.
    pub(super) fn ask(&mut self, ask: Ask) -> Result<(), PipelineError> {
        let Ask { question, asked_by, answer } = ask;
        let answered = match question {
            Question::Signal { url, body } => {
                self.signal(url, body, answer);
                return Ok(());
            }
            Question::Why { name } => self.resolve(&name).map(|id| {
                let why = why::why(&self.facts(), &id);
                Answer::Why(Box::new(why))
            }),
            Question::Rerun { name } => match self.resolve(&name) {
                Ok(id) => self.rerun(&id, &asked_by)?,
                Err(refusal) => Err(refusal),
            },
            Question::Rollback { to, rerun, dry_run } => {
                self.rollback(to, rerun, dry_run, &asked_by)?
            }
        };
        match answered {
            Ok(done @ (Answer::Rerun(_) | Answer::Rollback(_))) => {
                self.effects.push(Effect::Answer(answer, Box::new(done)));
            }
            // Who has gone meanwhile needs no answer.
            Ok(told) => drop(answer.send(told)),
            Err(refusal) => drop(answer.send(Answer::Refused(refusal))),
        }
        Ok(())
    }

    fn resolve(&self, name: &str) -> Result<ConfigId, Refusal> {
        let document = self.document.as_deref();
        resolve::resolve(name, &resolve::candidates(document, self.journal.states()))
    }

    pub(super) fn facts(&self) -> Facts<'_> {
        let (now, now_unix_ms) = (Instant::now(), unix_ms());
        let unix = |at: Instant| {
            let left = at.saturating_duration_since(now).as_millis();
            now_unix_ms.saturating_add(u64::try_from(left).unwrap_or(u64::MAX))
        };
        let running = self.running.iter().map(|running| {
            let timeout_unix_ms = running.timeout.map(|(at, _)| unix(at));
            (&running.entry().id, RunningNow { pid: running.run.mark().pid, timeout_unix_ms })
        });
        Facts {
            now_unix_ms,
            states: self.journal.states(),
            document: self.document.as_deref(),
            rolled_back_from: self.rolled_back_from(),
            hooks: &self.setup.hooks,
            live: Some(Live {
                link: &self.link,
                fault: self.fault.as_deref(),
                stopping: self.stop_at.is_some(),
                running: running.collect(),
                waits_for: self.waited_for(),
            }),
        }
    }

    /// The newest version, if another one is in force.
    pub(super) fn rolled_back_from(&self) -> Option<u64> {
        self.rolled_back_to.as_ref().and(self.stored.as_ref()).map(|newest| newest.version)
    }

    fn rerun(
        &mut self,
        id: &ConfigId,
        asked_by: &str,
    ) -> Result<Result<Answer, Refusal>, PipelineError> {
        let (record, rerunning) = match rerun::rerun(&self.facts(), id, asked_by) {
            Ok(rerun) => rerun,
            Err(refusal) => return Ok(Err(refusal)),
        };
        tracing::info!(%id, run = rerunning.run, asked_by, "rerun asked for");
        self.journal.stage(record)?;
        let entries = self.document.iter().flat_map(|document| &document.entries);
        let index = entries.enumerate().find_map(|(index, e)| (e.id == *id).then_some(index));
        if let Some(index) = index {
            // Document order is the order of runs.
            let place = self.steps.partition_point(|step| *step < index);
            self.steps.insert(place, index);
        }
        self.settled = None;
        Ok(Ok(Answer::Rerun(rerunning)))
    }

    fn rollback(
        &mut self,
        to: Option<u64>,
        again: bool,
        dry_run: bool,
        asked_by: &str,
    ) -> Result<Result<Answer, Refusal>, PipelineError> {
        let refuse = |code, text: String, hint: &str| Ok(Err(Refusal::new(code, text, hint)));
        if self.stored.is_none() && self.polled.is_some() {
            let text = "the document in force was polled: only those that were pushed are kept";
            return refuse(RefusalCode::NotNow, text.into(), "agent-client status");
        }
        let (Some(newest), Some(from)) = (&self.stored, &self.document) else {
            let text = "there is no document in force yet";
            return refuse(RefusalCode::NotNow, text.into(), "agent-client status");
        };
        if self.unsaved {
            let text = format!("document {} has just come and is being written", newest.version);
            return refuse(RefusalCode::NotNow, text, "again in a moment");
        }
        let target = match rollback::target(newest, from.version, to, &self.history) {
            Ok(target) => target,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let document = match Document::parse(target.version, &target.body) {
            Ok(document) => document,
            Err(error) => return Ok(Err(rollback::unusable(target.version, &error))),
        };
        let states = self.journal.states();
        let plan = rollback::plan(from, &document, newest.version, states, again);
        let plan = RollbackPlan { dry_run, agent_runs: true, ..plan };
        if dry_run {
            return Ok(Ok(Answer::Rollback(plan)));
        }
        let record = Rollback::new(newest.holds(), target.holds(), asked_by, unix_ms());
        if let Err(error) = record.save(&self.setup.rollback) {
            let text = format!("the rollback cannot be recorded: {error}");
            return refuse(RefusalCode::Failed, text, "agent-client status");
        }
        tracing::info!(
            from = plan.from_version,
            to = plan.to_version,
            newest = plan.newest_version,
            asked_by,
            "rollback"
        );
        self.polled = None;
        self.rolled_back_to = Some(target).filter(|target| target.holds() != record.from);
        self.withdraw(&document, |_| true)?;
        self.cancel(&document);
        let document = Arc::new(document);
        for named in &plan.run_again {
            let Ok(id) = ConfigId::new(&named.id) else { continue };
            let facts = Facts { document: Some(&document), ..self.facts() };
            match rerun::rerun(&facts, &id, asked_by) {
                Ok((record, _)) => self.journal.stage(record)?,
                Err(refusal) => tracing::warn!(%id, text = refusal.text, "not run again"),
            }
        }
        self.adopt(document)?;
        Ok(Ok(Answer::Rollback(plan)))
    }
}
