//! What an operator asks at 3 a.m.: why, logs, rerun, diff, rollback.
//!
//! The decisions are pure functions of [`Facts`]. The running agent calls them with what it has in memory
//! (through [`crate::control`]), the commands call them with what is on disk when no agent runs.

pub mod cli;
pub mod config_show;
pub mod diff;
pub mod doctor;
mod logs;
mod offline;
pub mod rerun;
pub mod resolve;
pub mod rollback;
pub mod why;
pub(crate) mod words;

use std::collections::BTreeMap;

use crate::document::{ConfigId, Document};
use crate::hooks::Hooks;
use crate::journal::States;
use crate::status::LinkStatus;

/// What is known at one moment.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The moment, in milliseconds since 1970.
    pub now_unix_ms: u64,
    /// The journal.
    pub states: &'a States,
    /// The document in force.
    pub document: Option<&'a Document>,
    /// The version that came last, if an operator has put an earlier one in force.
    pub rolled_back_from: Option<u64>,
    /// The hooks of this machine.
    pub hooks: &'a Hooks,
    /// What only a running agent knows; `None` if none runs.
    pub live: Option<Live<'a>>,
}

/// What only a running agent knows.
#[derive(Debug)]
pub struct Live<'a> {
    /// How it stands with its server.
    pub link: &'a LinkStatus,
    /// What keeps it from working, such as a full disk.
    pub fault: Option<&'a str>,
    /// Whether it was told to stop, and starts nothing more.
    pub stopping: bool,
    /// Hooks at work.
    pub running: BTreeMap<&'a ConfigId, RunningNow>,
    /// What waiting deployments wait for, in words.
    pub waits_for: BTreeMap<&'a ConfigId, String>,
}

/// A hook at work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningNow {
    /// Its process, which leads a process group of that number.
    pub pid: u32,
    /// When it will have taken too long, in milliseconds since 1970.
    pub timeout_unix_ms: Option<u64>,
}
