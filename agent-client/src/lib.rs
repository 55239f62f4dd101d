//! The daemon in the instance: takes metadata documents from a metadata-server, runs their deployments
//! through hooks, sends the results back.
//!
//! # Goals
//!
//! - A config id is run once, its result is delivered at least once, and every entry of a document ends
//!   in a result: also one that is malformed, has no hook, or was interrupted by a crash or a reboot.
//! - Nothing is confirmed, started or sent before what a restart needs to know of it is on disk.
//! - From the push to the hook's first instruction there is one disk sync and no other waiting.
//! - The last good document stays in force whatever happens: bad documents are refused whole.
//! - No secret in logs, arguments or `Debug`; files 0600, directories 0700.
//!
//! # Non-goals
//!
//! - Isolation of hooks: they do what their author says, as the user that runs the agent.
//! - Polling Heat and signalling it where a server does that.
//!
//! # Code map
//!
//! | module | what | pure |
//! |---|---|---|
//! | [`document`] | a document's entries, good and bad | yes |
//! | [`run_options`] | what an entry says about its run: timeout, lane | yes |
//! | [`signal_way`] | what an entry says about its signal | yes |
//! | [`plan`] | which entries to run, given the journal | yes |
//! | [`journal`] | state machine (pure) and append-only file | – |
//! | [`store`] | the newest document on disk | – |
//! | [`hooks`] | script and external hooks, processes, leftovers of a crash | – |
//! | [`sweep`] | removes files of configs that are over | – |
//! | [`outcome`] | from a hook's response to a result | yes |
//! | [`pipeline`] | the thread that owns all of the above | – |
//! | [`link`] | connection: decisions in `core` (pure), words in `failure` (pure), sockets in `mod` | – |
//! | [`enrolment`] | who we are, whom we trust | – |
//! | [`bootstrap`] | a token in what the cloud handed over | – |
//! | [`machine`] | files, tools and metadata service of this machine, or of a test's | – |
//! | [`operator`] | what an operator asks: why, logs, rerun, diff, rollback; decisions pure | – |
//! | [`control`] | the socket by which that reaches the running agent | – |
//! | [`history`] | the documents before the newest | – |
//! | [`status`] | the status file, its rendering and verdict | – |
//! | [`daemon`] | link and pipeline put together: `run`, `once`, `enroll --now` | – |
//! | [`swarm`] | many agents in one process, to size a deployment | – |
//! | [`compat`] | the programs of the old names, such as `os-apply-config` | – |
//! | [`redact`] | keeps secrets out of logs, status and live output | yes |
//! | [`collect`] | a pushed document as files for a command, before its deployments | – |
//! | [`config`], [`cli`], [`exit`], [`lock`] | settings, commands, exit codes, one agent per directory | – |

pub mod bootstrap;
pub mod cli;
pub mod collect;
pub mod compat;
pub mod config;
pub mod control;
pub mod daemon;
pub mod document;
pub mod enrolment;
pub mod exit;
pub mod history;
pub mod hooks;
pub mod journal;
mod json_text;
pub mod link;
pub mod lock;
pub mod machine;
pub mod operator;
pub mod outcome;
pub mod pipeline;
pub mod plan;
pub mod redact;
pub mod run_options;
pub mod signal_way;
pub mod status;
pub mod store;
pub mod swarm;
pub mod sweep;

/// Name and version of this program.
pub const SOFTWARE: &str = concat!("agent-client ", env!("CARGO_PKG_VERSION"));
