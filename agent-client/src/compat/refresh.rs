//! `os-refresh-config`: runs the phases, each a directory of programs, and the error handlers if one
//! fails.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use jiff::Zoned;
use rustix::fs::{FlockOperation, flock};
use rustix::process::Pid;

use super::arguments;
use super::pylog::{Level, Log, Style};
use crate::hooks::proc::kill_tree;

const BASE: &str = "/usr/libexec/os-refresh-config";
/// Where it was; used only where the new place does not exist.
const BASE_OLD: &str = "/opt/stack/os-config-refresh";
const PHASES: [&str; 4] = ["pre-configure", "configure", "post-configure", "migration"];
const RUN_PARTS: &str = "dib-run-parts";

/// Runs through all phases to make the configuration effective.
///
/// OS_REFRESH_CONFIG_BASE_DIR names another base directory.
#[derive(Debug, Parser)]
#[command(name = "os-refresh-config", version, infer_long_args = true)]
struct Cli {
    /// Print the base directory and exit
    #[arg(long)]
    print_base: bool,
    /// Print the phases, with tabs between, and exit
    #[arg(long)]
    print_phases: bool,
    /// What is logged at least
    #[arg(long, value_name = "LEVEL", value_enum, default_value = "INFO")]
    log_level: LogLevel,
    /// Held while phases run, so that there is one run at a time
    #[arg(long, value_name = "FILE", default_value = "/var/run/os-refresh-config.lock")]
    lockfile: PathBuf,
    /// Seconds after which everything that runs is killed
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "UPPER")]
enum LogLevel {
    Error,
    Warn,
    Critical,
    Info,
    Debug,
}

impl From<LogLevel> for Level {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::Error,
            LogLevel::Warn => Self::Warning,
            LogLevel::Critical => Self::Critical,
            LogLevel::Info => Self::Info,
            LogLevel::Debug => Self::Debug,
        }
    }
}

/// Runs the command; `arguments` begin with its name.
pub fn main(arguments: &[OsString]) -> ExitCode {
    let cli: Cli = match arguments::parse(arguments) {
        Ok(cli) => cli,
        Err(exit) => return exit,
    };
    let mut log = Log::new(Style::Named("os-refresh-config"), cli.log_level.into());
    let base = base(&mut log);
    if cli.print_base {
        println!("{}", base.display());
        return ExitCode::SUCCESS;
    }
    if cli.print_phases {
        println!("{}", PHASES.join("\t"));
        return ExitCode::SUCCESS;
    }
    match execute(&cli, &base, &mut log) {
        Ok(exit) => exit,
        Err(error) => {
            log.error(format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn base(log: &mut Log) -> PathBuf {
    if let Some(base) = env::var_os("OS_REFRESH_CONFIG_BASE_DIR") {
        return base.into();
    }
    if Path::new(BASE_OLD).is_dir() && !Path::new(BASE).is_dir() {
        log.warning(format!("base directory {BASE_OLD} is deprecated; use {BASE}"));
        return BASE_OLD.into();
    }
    BASE.into()
}

fn execute(cli: &Cli, base: &Path, log: &mut Log) -> Result<ExitCode> {
    let lockfile = cli.lockfile.display();
    let mut lock = OpenOptions::new()
        .append(true)
        .create(true)
        .open(&cli.lockfile)
        .with_context(|| format!("could not open {lockfile}"))?;
    if let Err(error) = flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        let holder = fs::read_to_string(&cli.lockfile).unwrap_or_default();
        let error_text = io::Error::from(error);
        log.error(format!("Could not lock {lockfile}. {error_text} {}", holder.trim()));
        return Ok(ExitCode::from(u8::try_from(error.raw_os_error()).unwrap_or(1)));
    }
    lock.set_len(0)?;
    let now = Zoned::now().strftime("%Y-%m-%d %H:%M:%S %Z").to_string();
    writeln!(lock, "Locked by pid=={} at {now}", std::process::id())?;
    // 0 means no timeout, as it always did.
    let seconds = cli.timeout.filter(|&seconds| seconds > 0);
    let deadline =
        seconds.and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds)));
    let exit = phases(base, &Limit { deadline, seconds: seconds.unwrap_or(0) }, log);
    release(&lock);
    exit
}

fn release(lock: &File) {
    // The lock ends with the process; the line in it is for people.
    let _ = lock.set_len(0);
}

/// When everything has to be over.
struct Limit {
    deadline: Option<Instant>,
    seconds: u64,
}

fn phases(base: &Path, limit: &Limit, log: &mut Log) -> Result<ExitCode> {
    for phase in PHASES {
        let directory = base.join(format!("{phase}.d"));
        log.debug(format!("Checking {}", directory.display()));
        if !directory.exists() {
            log.debug(format!("No dir for phase {phase}"));
            continue;
        }
        log.info(format!("Starting phase {phase}"));
        let ended = run_parts(&directory, limit, log)?;
        if ended.status.success() && !ended.timed_out {
            log.info(format!("Completed phase {phase}"));
            continue;
        }
        log.error(format!("during {phase} phase. [{ended}]\n"));
        let handlers = base.join("error.d");
        if handlers.exists() {
            log.info("Calling error handlers.");
            let unlimited = Limit { deadline: None, seconds: 0 };
            if let Err(error) = run_parts(&handlers, &unlimited, log) {
                log.error(format!("error handlers: {error:#}"));
            }
        }
        log.error("Aborting...");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// How a phase ended.
struct Ended {
    status: ExitStatus,
    timed_out: bool,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{RUN_PARTS} ")?;
        match (self.status.code(), self.status.signal()) {
            _ if self.timed_out => write!(f, "was killed by the timeout"),
            (Some(code), _) => write!(f, "returned exit status {code}"),
            (_, Some(signal)) => write!(f, "died of signal {signal}"),
            _ => write!(f, "{}", self.status),
        }
    }
}

fn run_parts(directory: &Path, limit: &Limit, log: &mut Log) -> Result<Ended> {
    let child = start(directory)?;
    let pid = Pid::from_child(&child);
    let (tell, ended) = mpsc::channel();
    let waiter = std::thread::spawn(move || {
        let mut child = child;
        // The other end waits for this before anything else.
        let _ = tell.send(child.wait());
    });
    let mut timed_out = false;
    let status = loop {
        let received = match limit.deadline {
            Some(deadline) if !timed_out => {
                ended.recv_timeout(deadline.saturating_duration_since(Instant::now()))
            }
            _ => ended.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match received {
            Ok(status) => break status,
            Err(RecvTimeoutError::Timeout) => {
                timed_out = true;
                let seconds = limit.seconds;
                log.error(format!("Timeout reached: {seconds}s. Sending SIGKILL to all children"));
                kill_tree(pid);
            }
            Err(RecvTimeoutError::Disconnected) => break Err(io::Error::other("nobody waits")),
        }
    };
    let _ = waiter.join();
    Ok(Ended { status: status.context("could not wait for the phase")?, timed_out })
}

/// The one on PATH, so that an image may have its own; else ours.
fn start(directory: &Path) -> Result<Child> {
    match Command::new(RUN_PARTS).arg(directory).spawn() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let this = env::current_exe().context("cannot find this program")?;
            Command::new(this).arg(RUN_PARTS).arg(directory).spawn()
        }
        spawned => spawned,
    }
    .with_context(|| format!("could not run {RUN_PARTS}"))
}
