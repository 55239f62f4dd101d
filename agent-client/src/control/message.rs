//! What goes over the control socket: one question as a line of JSON, and one answer.

use serde::{Deserialize, Serialize};

use crate::operator::rerun::Rerunning;
use crate::operator::resolve::Candidate;
use crate::operator::rollback::RollbackPlan;
use crate::operator::why::Why;

/// Version of questions, answers and of the JSON that the operator's commands print. Fields are only added.
pub const SCHEMA: u32 = 1;

/// A question with the version of its form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// [`SCHEMA`].
    pub schema: u32,
    /// What is asked.
    #[serde(flatten)]
    pub question: Question,
}

/// What an operator asks. `name` is a config id, the beginning of one, or a deployment's name.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Question {
    /// All that is known of a deployment.
    Why {
        /// Which.
        name: String,
    },
    /// One more run.
    Rerun {
        /// Which.
        name: String,
    },
    /// To have the server send a wait condition's signal, since this machine has no way there.
    Signal {
        /// Where it goes.
        url: String,
        /// What is sent.
        body: String,
    },
    /// Another of the kept documents in force.
    Rollback {
        /// Which version; none: the one before the one in force.
        to: Option<u64>,
        /// Whether what differs is run once more.
        rerun: bool,
        /// Whether only to tell what would happen.
        dry_run: bool,
    },
}

/// The URL of a signal opens its wait condition.
impl std::fmt::Debug for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Why { name } => f.debug_struct("Why").field("name", name).finish(),
            Self::Rerun { name } => f.debug_struct("Rerun").field("name", name).finish(),
            Self::Signal { .. } => f.debug_struct("Signal").finish_non_exhaustive(),
            Self::Rollback { to, rerun, dry_run } => f
                .debug_struct("Rollback")
                .field("to", to)
                .field("rerun", rerun)
                .field("dry_run", dry_run)
                .finish(),
        }
    }
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// To [`Question::Why`].
    Why(Box<Why>),
    /// To [`Question::Rerun`].
    Rerun(Rerunning),
    /// To [`Question::Rollback`].
    Rollback(RollbackPlan),
    /// To [`Question::Signal`].
    Signal(Signalled),
    /// It cannot be done.
    Refused(Refusal),
}

/// Who has a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "signal", rename_all = "snake_case")]
pub enum Signalled {
    /// The server has stored it and sends it.
    Stored,
    /// The server was not reached in time. The agent keeps it, and sends it when it reaches the server.
    Kept,
}

/// An answer with the version of its form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// [`SCHEMA`].
    pub schema: u32,
    /// What is answered.
    #[serde(flatten)]
    pub answer: Answer,
}

/// Why something cannot be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// A stable word for it.
    pub code: RefusalCode,
    /// What and why.
    pub text: String,
    /// What to try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// What may have been meant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<Candidate>,
}

/// Stable words for refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// Nothing of this name or id was ever heard of.
    NeverHeardOf,
    /// Several things are called so.
    Ambiguous,
    /// It is of a kind, or in a state, in which this cannot be done.
    NotNow,
    /// What is needed is no longer kept.
    NotKept,
    /// Too many ask at the same time, or the agent does not get around to it.
    Busy,
    /// The question was not understood.
    BadQuestion,
    /// The asker is neither root nor the agent's user.
    NotAllowed,
    /// It was tried and failed.
    Failed,
    /// A word of a newer release.
    #[serde(other)]
    Other,
}

impl Refusal {
    /// With what to try.
    pub fn new(code: RefusalCode, text: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code, text: text.into(), hint: Some(hint.into()), candidates: Vec::new() }
    }
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        Self { schema: SCHEMA, answer }
    }
}

impl Reply {
    /// As a line of JSON.
    pub fn line(&self) -> Vec<u8> {
        // These types have only string keys and no numbers that JSON lacks: writing them cannot fail.
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_and_answers_have_a_stable_form_and_readers_skip_what_they_do_not_know() {
        let question = Question::Rollback { to: Some(3), rerun: true, dry_run: false };
        let json = serde_json::to_string(&Request { schema: SCHEMA, question }).unwrap();
        assert_eq!(json, r#"{"schema":1,"ask":"rollback","to":3,"rerun":true,"dry_run":false}"#);
        let newer = r#"{"schema":1,"ask":"rerun","name":"a","colour":"blue"}"#;
        let request: Request = serde_json::from_str(newer).unwrap();
        assert_eq!(request.question, Question::Rerun { name: "a".into() });
        let refusal = Refusal::new(RefusalCode::NotNow, "it runs", "wait");
        let line = Reply::from(Answer::Refused(refusal.clone())).line();
        assert_eq!(
            String::from_utf8(line.clone()).unwrap(),
            "{\"schema\":1,\"answer\":\"refused\",\"code\":\"not_now\",\"text\":\"it runs\",\"hint\":\"wait\"}\n"
        );
        let reply: Reply = serde_json::from_slice(&line).unwrap();
        assert_eq!(reply.answer, Answer::Refused(refusal));
        let newer = r#"{"schema":1,"answer":"refused","code":"full_moon","text":"x"}"#;
        let reply: Reply = serde_json::from_str(newer).unwrap();
        assert!(matches!(reply.answer, Answer::Refused(Refusal { code: RefusalCode::Other, .. })));
    }
}
