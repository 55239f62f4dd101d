//! One run of a command, and what it cost.
//!
//! The system tells the memory only of all children of a process together, so each run has a process of
//! its own that starts it: this program, called with [`MEASURE`].

use std::ffi::OsString;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};

/// First argument of the process that measures one run.
pub(crate) const MEASURE: &str = "--measure";

/// A command to be run.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) environment: Vec<(OsString, OsString)>,
    pub(crate) stdin: Option<PathBuf>,
}

/// What a run cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// From its start to its end.
    pub(crate) wall: Duration,
    /// User and system time of it and all that it waited for.
    pub(crate) cpu: Duration,
    /// The largest resident set of any of these processes.
    pub(crate) memory_kib: u64,
}

impl Measured {
    /// Runs it; it has to succeed.
    pub(crate) fn cost(&self) -> Cost {
        let stdin = match &self.stdin {
            Some(path) => File::open(path).expect("the input").into(),
            None => Stdio::null(),
        };
        let output = Command::new(std::env::current_exe().expect("this program"))
            .arg(MEASURE)
            .arg(&self.program)
            .args(&self.arguments)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(stdin)
            .output()
            .expect("the measuring process starts");
        let said = String::from_utf8_lossy(&output.stdout);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{self:?}:\n{complaint}");
        let figures: Vec<u64> =
            said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [wall_us, cpu_us, memory_kib] = figures[..] else { panic!("{self:?}: {said:?}") };
        Cost {
            wall: Duration::from_micros(wall_us),
            cpu: Duration::from_micros(cpu_us),
            memory_kib,
        }
    }
}

/// The measuring process: runs the command, prints microseconds, microseconds of CPU, and KiB.
pub(crate) fn measure(mut command: impl Iterator<Item = OsString>) -> ExitCode {
    let program = command.next().expect("a program");
    let began = Instant::now();
    let status = Command::new(&program).args(command).stdout(Stdio::null()).status();
    let wall = began.elapsed();
    let used = getrusage(UsageWho::RUSAGE_CHILDREN).expect("what it used");
    let micros = |time: nix::sys::time::TimeVal| time.tv_sec() * 1_000_000 + time.tv_usec();
    let cpu = micros(used.user_time()) + micros(used.system_time());
    println!("{} {cpu} {}", wall.as_micros(), used.max_rss());
    match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        other => {
            eprintln!("{} ended with {other:?}", program.display());
            ExitCode::FAILURE
        }
    }
}
