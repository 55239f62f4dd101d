//! The tool of a hook: run with its output copied to our standard error, or asked something.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use crate::hooks::NotRun;
use crate::hooks::built_in::OWN_PROGRAM;
use crate::hooks::process::{Activity, Exit, Launch, Printing, Process};

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
        let named = self.variable.and_then(super::variable).is_some();
        if named || on_path(&self.program) {
            return (self, call);
        }
        call.arguments.insert(0, self.program);
        (Self { variable: self.variable, program: OWN_PROGRAM.into() }, call)
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

/// Starts a process and waits for its end.
pub(super) fn wait(launch: Launch) -> io::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut process = Process::spawn(launch).await?;
        loop {
            if let Activity::Exited(exit) = process.next().await {
                return Ok(exit);
            }
        }
    })
}

fn on_path(program: &OsString) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|directory| directory.join(program).is_file())
}
