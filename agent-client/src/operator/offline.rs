//! What the commands know and do when no agent runs: from the files of the state directory.

use anyhow::Context;

use super::rollback::{self, Rollback, RollbackPlan, in_force, target, unusable};
use super::{Facts, rerun, resolve};
use crate::config::Settings;
use crate::control::message::{Answer, Question, Refusal, RefusalCode};
use crate::control::user;
use crate::daemon::files;
use crate::document::{ConfigId, Document};
use crate::exit::{Abort, Exit};
use crate::history::{History, Kept};
use crate::hooks::Hooks;
use crate::journal::{Journal, States};
use crate::lock::Lock;
use crate::pipeline::unix_ms;
use crate::store::{StoredDocument, read_stored};

/// The state directory's files, read at one moment.
#[derive(Debug)]
pub(super) struct Offline<'a> {
    settings: &'a Settings,
    states: States,
    newest: Option<StoredDocument>,
    document: Option<Document>,
    rolled_back: bool,
    hooks: Hooks,
}

/// The documents of a state directory.
#[derive(Debug)]
pub(super) struct Documents {
    pub(super) newest: Option<StoredDocument>,
    /// The one that an operator has put in force in its place.
    pub(super) rolled_back_to: Option<StoredDocument>,
    pub(super) history: History,
}

impl Documents {
    pub(super) fn read(settings: &Settings) -> Result<Self, Abort> {
        let newest = read_stored(&settings.state(files::DOCUMENT)).map_err(unreadable)?;
        let history = History::new(settings.state(files::DOCUMENTS));
        let rollback = settings.state(files::ROLLBACK);
        let rolled_back_to =
            newest.as_ref().and_then(|newest| in_force(&rollback, &history, newest));
        Ok(Self { newest, rolled_back_to, history })
    }

    /// Those before the newest, oldest first.
    pub(super) fn kept(&self) -> Vec<Kept> {
        let newest = self.newest.as_ref().map(|newest| newest.version);
        let mut kept = self.history.list();
        kept.retain(|kept| Some(kept.version) != newest);
        kept
    }

    pub(super) fn in_force(&self) -> Option<&StoredDocument> {
        self.rolled_back_to.as_ref().or(self.newest.as_ref())
    }
}

/// A file of the state directory that cannot be read: most often the wrong user.
pub(super) fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> Abort {
    Abort::new(Exit::Failed, anyhow::Error::new(error).context("reading the state directory"))
        .hint("as root, or as the user that runs the agent; or name its directory: --state-dir DIR")
}

impl<'a> Offline<'a> {
    pub(super) fn read(settings: &'a Settings) -> Result<Self, Abort> {
        let states = Journal::peek(&settings.state(files::JOURNAL)).map_err(unreadable)?;
        let documents = Documents::read(settings)?;
        let parsed = documents.in_force().map(|d| Document::parse(d.version, &d.body));
        let document = parsed.transpose().context("the stored document is unusable")?;
        let is_root = rustix::process::geteuid().is_root();
        Ok(Self {
            settings,
            states,
            document,
            rolled_back: documents.rolled_back_to.is_some(),
            newest: documents.newest,
            hooks: settings.hooks(|name| std::env::var(name).ok(), is_root),
        })
    }

    fn facts(&self) -> Facts<'_> {
        Facts {
            now_unix_ms: unix_ms(),
            states: &self.states,
            document: self.document.as_ref(),
            rolled_back_from: self
                .newest
                .as_ref()
                .filter(|_| self.rolled_back)
                .map(|newest| newest.version),
            hooks: &self.hooks,
            live: None,
        }
    }

    /// What a running agent would answer.
    pub(super) fn answer(&self, question: &Question) -> Result<Answer, Abort> {
        let facts = self.facts();
        let resolved =
            |name: &str| resolve::resolve(name, &resolve::candidates(facts.document, facts.states));
        let answer = match question {
            Question::Why { name } => {
                resolved(name).map(|id| Answer::Why(Box::new(super::why::why(&facts, &id))))
            }
            Question::Signal { .. } => Err(Refusal::new(
                RefusalCode::NotNow,
                "the agent does not run",
                "start it: agent-client run",
            )),
            Question::Rerun { name } => match resolved(name) {
                Ok(id) => self.rerun(&facts, &id)?,
                Err(refusal) => Err(refusal),
            },
            Question::Rollback { to, rerun, dry_run } => {
                self.rollback(&facts, *to, *rerun, *dry_run)?
            }
        };
        Ok(answer.unwrap_or_else(Answer::Refused))
    }

    fn rerun(&self, facts: &Facts<'_>, id: &ConfigId) -> Result<Result<Answer, Refusal>, Abort> {
        let (record, rerunning) = match rerun::rerun(facts, id, &asker()) {
            Ok(rerun) => rerun,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let mut journal = self.journal()?;
        journal.stage(record).context("the journal has changed meanwhile; try again")?;
        journal.commit().context("writing the journal")?;
        Ok(Ok(Answer::Rerun(rerunning)))
    }

    fn rollback(
        &self,
        facts: &Facts<'_>,
        to: Option<u64>,
        rerun: bool,
        dry_run: bool,
    ) -> Result<Result<Answer, Refusal>, Abort> {
        let history = History::new(self.settings.state(files::DOCUMENTS));
        let (Some(newest), Some(from)) = (&self.newest, facts.document) else {
            return Ok(Err(no_document()));
        };
        let target = match target(newest, from.version, to, &history) {
            Ok(target) => target,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let document = match Document::parse(target.version, &target.body) {
            Ok(document) => document,
            Err(error) => return Ok(Err(unusable(target.version, &error))),
        };
        let plan = rollback::plan(from, &document, newest.version, facts.states, rerun);
        let plan = RollbackPlan { dry_run, ..plan };
        if dry_run {
            return Ok(Ok(Answer::Rollback(plan)));
        }
        let mut journal = self.journal()?;
        let record = Rollback::new(newest.holds(), target.holds(), &asker(), facts.now_unix_ms);
        record.save(&self.settings.state(files::ROLLBACK)).context("writing the rollback")?;
        let facts = Facts { document: Some(&document), ..self.facts() };
        for named in &plan.run_again {
            let id = ConfigId::new(&named.id).map_err(anyhow::Error::msg)?;
            if let Ok((record, _)) = rerun::rerun(&facts, &id, &asker()) {
                journal.stage(record).context("the journal has changed meanwhile; try again")?;
            }
        }
        journal.commit().context("writing the journal")?;
        Ok(Ok(Answer::Rollback(plan)))
    }

    /// The journal to write to, which takes the state directory's lock.
    fn journal(&self) -> Result<LockedJournal, Abort> {
        let lock = Lock::take(&self.settings.state_dir).map_err(|e| {
            Abort::new(Exit::Failed, e)
                .hint("again: an agent has just started, and can do it itself")
        })?;
        let journal =
            Journal::open(&self.settings.state(files::JOURNAL)).context("opening the journal")?;
        Ok(LockedJournal { journal, _lock: lock })
    }
}

struct LockedJournal {
    journal: Journal,
    _lock: Lock,
}

impl std::ops::Deref for LockedJournal {
    type Target = Journal;

    fn deref(&self) -> &Journal {
        &self.journal
    }
}

impl std::ops::DerefMut for LockedJournal {
    fn deref_mut(&mut self) -> &mut Journal {
        &mut self.journal
    }
}

fn asker() -> String {
    user(rustix::process::getuid().as_raw())
}

fn no_document() -> Refusal {
    Refusal::new(RefusalCode::NotNow, "there is no document in force yet", "agent-client status")
}
