//! How a command ends.

use std::process::ExitCode;

/// Exit codes, the same for all commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All is well.
    Ok = 0,
    /// Something failed: a deployment, a file, the agent itself.
    Failed = 1,
    /// It works, but not everything is as it should be.
    Degraded = 2,
    /// The command line is wrong.
    Usage = 64,
    /// The server cannot be reached.
    Unreachable = 69,
    /// The server or this agent refused the other.
    Refused = 77,
    /// The configuration, the enrolment or a key is wrong or missing.
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// The end of a command that did not do what it was asked for.
#[derive(Debug)]
pub struct Abort {
    /// The exit code.
    pub exit: Exit,
    /// What failed and why.
    pub error: anyhow::Error,
    /// What to try.
    pub hint: Option<String>,
}

impl Abort {
    /// With this exit code.
    pub fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self { exit, error: error.into(), hint: None }
    }

    /// Adds what to try.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<anyhow::Error> for Abort {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Exit::Failed, error)
    }
}
