//! The tool of a hook: run with its output copied to our standard error, or asked something.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

use crate::compat::tool;
use crate::hooks::NotRun;
use crate::hooks::proc::start_ticks;
use crate::hooks::process::{Activity, Exit, Launch, Printing, Process};
use crate::journal::ProcessMark;

/// What a shell reports for a program that is not there, and for one that cannot be run.
const NOT_FOUND: i64 = 127;
const CANNOT_EXECUTE: i64 = 126;

/// A tool and the environment variable by which another one may be named.
pub(super) struct Tool {
    variable: Option<&'static str>,
    program: OsString,
}

impl Tool {
    /// The one that the variable names, else `usual` as found on PATH.
    pub(super) fn new(variable: &'static str, usual: &str) -> Self {
        let program = super::variable(variable).unwrap_or_else(|| usual.into());
        Self { variable: Some(variable), program }
    }

    /// The one of this name or path.
    pub(super) fn fixed(program: impl Into<OsString>) -> Self {
        Self { variable: None, program: program.into() }
    }

    /// Its name or path.
    pub(super) fn name(&self) -> String {
        self.program.to_string_lossy().into_owned()
    }

    /// As it is given to the system.
    pub(super) fn program(&self) -> &OsString {
        &self.program
    }

    /// Runs it, copying what it prints to our standard error.
    pub(super) fn run(&self, call: Call) -> Result<Exit, NotRun> {
        self.start(call, Printing::Copied)
    }

    /// Runs it for what it prints.
    pub(super) fn ask(&self, call: Call) -> Result<Exit, NotRun> {
        self.start(call, Printing::Data)
    }

    fn start(&self, call: Call, printing: Printing) -> Result<Exit, NotRun> {
        let launch = Launch {
            program: self.program.clone().into(),
            arguments: call.arguments,
            directory: call.directory,
            environment: call.environment,
            input: None,
            printing,
        };
        wait(launch).map_err(|error| self.not_started(&error))
    }

    /// Why it does not run.
    pub(super) fn not_started(&self, error: &io::Error) -> NotRun {
        let name = self.name();
        if error.kind() == io::ErrorKind::NotFound {
            let other = self.variable.map(|v| format!(", or name another program in {v}"));
            let other = other.unwrap_or_default();
            let reason = format!("{name} is not installed ({error}): install it{other}");
            NotRun::new(NOT_FOUND, reason)
        } else {
            NotRun::new(CANNOT_EXECUTE, format!("{name} could not be started: {error}"))
        }
    }

    /// If it is neither named nor on PATH, our own program of that name takes its place.
    pub(super) fn or_own(self, mut call: Call) -> (Self, Call) {
        if self.variable.and_then(super::variable).is_some() {
            return (self, call);
        }
        let (program, arguments) = tool::find(&self.name());
        call.arguments.splice(0..0, arguments);
        (Self { program: program.into(), ..self }, call)
    }
}

/// How a tool is called.
#[derive(Default)]
pub(super) struct Call {
    /// Its arguments.
    pub(super) arguments: Vec<OsString>,
    /// Variables added to our environment.
    pub(super) environment: Vec<(String, OsString)>,
    /// Where; `None`: where we are.
    pub(super) directory: Option<PathBuf>,
}

impl Call {
    /// With these arguments.
    pub(super) fn new<A: Into<OsString>>(arguments: impl IntoIterator<Item = A>) -> Self {
        Self { arguments: arguments.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// In this directory.
    pub(super) fn at(mut self, directory: &Path) -> Self {
        self.directory = Some(directory.to_owned());
        self
    }
}

/// Whether somebody wants us to end: a timeout, or a person.
static IS_ASKED_TO_END: AtomicBool = AtomicBool::new(false);

/// Whether no other tool is to be started.
pub(super) fn is_asked_to_end() -> bool {
    IS_ASKED_TO_END.load(Ordering::Relaxed)
}

/// Starts a process and waits for its end.
pub(super) fn wait(launch: Launch) -> io::Result<Exit> {
    runtime()?.block_on(async {
        let mut process = Process::spawn(launch).await?;
        let mark = process.mark();
        let end = async {
            loop {
                if let Activity::Exited(exit) = process.next().await {
                    return exit;
                }
            }
        };
        until_end(mark, end).await
    })
}

/// What processes are waited for in.
pub(super) fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Waits for the end of a tool. Should we be asked to end meanwhile, so is the tool, and what it has
/// printed until its end still becomes a response.
pub(super) async fn until_end<T>(mark: ProcessMark, end: impl Future<Output = T>) -> io::Result<T> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::pin!(end);
    loop {
        let asked = tokio::select! {
            ended = &mut end => return Ok(ended),
            _ = terminate.recv() => Signal::TERM,
            _ = interrupt.recv() => Signal::INT,
        };
        IS_ASKED_TO_END.store(true, Ordering::Relaxed);
        let pid = i32::try_from(mark.pid).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid.filter(|_| start_ticks(mark.pid) == Some(mark.start_ticks)) {
            // If it has just ended there is nobody to ask.
            let _ = kill_process(pid, asked);
        }
    }
}
