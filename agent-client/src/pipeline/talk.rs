//! What the pipeline is told and what it tells.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use metadata_delivery::message::{DeploymentResult, Holds, Log, LogRequest, WaitSignal};

use crate::control::Ask;
use crate::document::ConfigId;
use crate::hooks::Hooks;
use crate::journal::LogError;
use crate::signal_way::SignalWay;
use crate::status::{LinkStatus, PollStatus};

/// Where things are and who we are.
#[derive(Debug)]
pub struct Setup {
    /// The journal's file.
    pub journal: PathBuf,
    /// The document's file.
    pub document: PathBuf,
    /// The directory of the documents before it.
    pub documents: PathBuf,
    /// The directory of signals that the server does not have yet.
    pub signals: PathBuf,
    /// The file that says that one of those is in force.
    pub rollback: PathBuf,
    /// The status file.
    pub status: PathBuf,
    /// Where `heat-config` keeps what it has done, if it works on the same deployments.
    pub deployed: Option<PathBuf>,
    /// The hooks of this machine.
    pub hooks: Hooks,
    /// Who we are; none before there is an enrolment.
    pub agent_id: Option<String>,
    /// How long a running hook may go on when the agent is told to stop.
    pub stop_wait: Duration,
    /// Bounds of runs.
    pub limits: RunLimits,
    /// Whether the entries of a document wait for [`Command::Release`] after [`Report::Held`].
    pub hold_documents: bool,
}

/// Bounds of runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunLimits {
    /// How long a run may take that does not say so itself; zero: for ever.
    pub timeout: Duration,
    /// How long a run that was asked to end (SIGTERM) has until it is killed.
    pub kill_grace: Duration,
    /// How many lanes may be at work at a time; 1: strictly one entry after the other, in document order.
    pub lanes_max: usize,
}

impl Default for RunLimits {
    fn default() -> Self {
        Self {
            // Heat waits an hour for a stack unless told otherwise, TripleO tells it four. After that nobody
            // waits for the result, but everything behind the run in its lane waits for the run.
            timeout: Duration::from_secs(4 * 3_600),
            kill_grace: Duration::from_secs(5),
            lanes_max: 1,
        }
    }
}

/// What the pipeline is told.
#[derive(Debug)]
pub enum Command {
    /// A document has come.
    Document {
        /// Its version.
        version: u64,
        /// Its bytes.
        body: Bytes,
    },
    /// The server has stored the result of a config.
    ResultStored {
        /// Which.
        id: ConfigId,
        /// Of which of its runs.
        run: u64,
    },
    /// Heat has taken the result of a config from the agent itself, or never will.
    HeatSaid {
        /// Which.
        id: ConfigId,
        /// Of which of its runs.
        run: u64,
        /// Why it never will.
        refused: Option<String>,
    },
    /// What an operator asks.
    Ask(Ask),
    /// The server will never take the result of a config.
    ResultRefused {
        /// Which.
        id: ConfigId,
        /// Of which of its runs.
        run: u64,
        /// The server's words.
        reason: String,
    },
    /// The server has stored a wait condition's signal.
    SignalStored {
        /// Which.
        id: String,
    },
    /// The server will never take a wait condition's signal.
    SignalRefused {
        /// Which.
        id: String,
        /// The server's words.
        reason: String,
    },
    /// The server says whether somebody watches what hooks print.
    LogRequest(LogRequest),
    /// The server has the log that was sent last.
    LogTaken {
        /// The request that it answers.
        request: u64,
    },
    /// Nobody watches any more: the connection has ended, or the server takes no log.
    LogCutOff,
    /// The data of this document are effective: its entries may run.
    Release {
        /// From [`Report::Held`].
        hold: u64,
    },
    /// A document was polled, since no server is reached.
    Polled {
        /// Its bytes.
        body: Bytes,
    },
    /// A server says that the document that we have stored is the newest.
    StoredIsNewest,
    /// How the connection stands, for the status file.
    Link(LinkStatus),
    /// How asking the collectors stands, for the status file.
    Polling(Option<PollStatus>),
    /// There is a server from now on: it wants the results that wait.
    Enrolled {
        /// Who it makes us.
        agent_id: String,
    },
    /// Start nothing more; end when what runs has ended, or after [`Setup::stop_wait`].
    Stop,
}

/// What the pipeline tells.
#[derive(Debug, PartialEq)]
pub enum Report {
    /// This version is durable: confirm it.
    DocumentStored(Holds),
    /// This version is of no use: refuse it.
    DocumentRefused {
        /// Which.
        version: u64,
        /// Why.
        reason: String,
    },
    /// This document is durable, and its entries wait until its data are effective.
    Held {
        /// Names this wait.
        hold: u64,
        /// Its bytes.
        body: Bytes,
    },
    /// A result is durable: send it until it is taken.
    Result(Box<Waiting>),
    /// Nobody waits for the result of a config any more.
    ResultOver {
        /// Which.
        id: ConfigId,
        /// Of which of its runs.
        run: u64,
    },
    /// A wait condition's signal is durable: send it until it is stored.
    Signal(WaitSignal),
    /// What hooks have printed, for somebody who watches: send it once, after everything else.
    Log(Log),
    /// The newest document is on disk and all deployments of the one in force have ended; they are the
    /// same, unless an operator has put an earlier one in force.
    Settled {
        /// Version of the newest.
        version: u64,
        /// Whether one of them did not end well.
        failed: bool,
    },
}

/// A result, and who waits for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Waiting {
    /// The result.
    pub result: DeploymentResult,
    /// The server does, if there is one.
    pub for_server: bool,
    /// Heat does, as far as the agent knows.
    pub for_heat: bool,
    /// How the agent has to tell Heat, whoever else does.
    pub way: Option<SignalWay>,
}

/// What was found at the start.
#[derive(Debug)]
pub struct Opened {
    /// The document on disk.
    pub holds: Option<Holds>,
    /// Its bytes.
    pub body: Option<Bytes>,
    /// Results that somebody still waits for.
    pub results: Vec<Waiting>,
    /// Signals of wait conditions that the server does not have yet.
    pub signals: Vec<WaitSignal>,
}

/// Why the pipeline cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] LogError),
    /// The stored document, or a directory, cannot be read.
    #[error(transparent)]
    Document(#[from] certs::file::FileError),
    /// Our own fault.
    #[error("internal error: {0}")]
    Internal(#[from] crate::journal::IllegalTransition),
}
