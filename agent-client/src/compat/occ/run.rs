//! The program itself: collects, runs the command, sleeps, and starts anew when its configuration
//! changed.

use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use ring::digest::{self, Digest, SHA256};
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Map, Value};
use tokio::signal::unix::{SignalKind, signal};

use super::cache::Cache;
use super::collectors::Collectors;
use super::command_line::{self, Instead};
use super::config::{Config, NoConfig, Sources, load};
use super::gather::{LastGood, Note, Stored, gather, store};
use super::items::file_keys;
use super::log::{Log, die_if_broken};
use super::pace::{Failures, Pace};
use crate::compat::arguments::EXIT_USAGE;
use crate::compat::heat_config::unsent::{Beside, Unsent};
use crate::json_text::json_text_indented;

/// Runs the command; `arguments` begin with its name.
pub fn main(arguments: &[OsString]) -> ExitCode {
    let config = match load(&arguments[1..], |name| env::var(name).ok()) {
        Ok(config) => config,
        Err(NoConfig::Instead(Instead::Help)) => return print(&command_line::help()),
        Err(NoConfig::Instead(Instead::Version)) => {
            return print(concat!(env!("CARGO_PKG_VERSION"), "\n"));
        }
        Err(NoConfig::Instead(Instead::Wrong(what))) => {
            complain(&format!(
                "usage: os-collect-config [OPTIONS] [COLLECTORS]...\nos-collect-config: error: {what}; \
                 try os-collect-config --help"
            ));
            return ExitCode::from(EXIT_USAGE);
        }
        Err(NoConfig::Wrong(what)) => {
            complain(&what);
            return ExitCode::FAILURE;
        }
    };
    if config.print_cachedir {
        return print(&format!("{}\n", config.cachedir.display()));
    }
    let mut log = Log::new(&config.log);
    match execute(&config, &mut log) {
        Ok(exit) => exit,
        Err(error) => {
            log.error(format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn complain(what: &str) {
    die_if_broken(io::stderr().write_all(format!("{what}\n").as_bytes()));
}

fn print(text: &str) -> ExitCode {
    let mut out = io::stdout();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    let exit = if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    die_if_broken(written);
    exit
}

fn execute(config: &Config, log: &mut Log) -> Result<ExitCode> {
    let sources = config.known_collectors().map_err(anyhow::Error::msg)?;
    let hangups = hangups()?;
    if config.splay > Duration::ZERO && !config.one_time {
        let wait = config.splay.mul_f64(random_fraction());
        log.debug(format!(
            "Waiting {:.2} seconds before the first collection.",
            wait.as_secs_f64()
        ));
        if is_told(&hangups, wait) {
            log.info("Signal received. Re-executing");
            return Err(start_anew());
        }
    }
    let cache = Cache::new(config.cachedir.clone());
    let mut collectors = Collectors::new(config, &cache);
    match config.command.as_deref().filter(|_| !config.print_only) {
        Some(command) => {
            let last_good = LastGood::of_cache(&cache, config, &sources);
            let hash = hash_of(&config.sources);
            let program = Program {
                config,
                command,
                sources,
                cache: &cache,
                hangups,
                hash,
                failures: Failures::default(),
                unsent: Beside::new(Unsent::of_environment(|name| env::var_os(name), true)),
            };
            program.run(&mut collectors, last_good, log)
        }
        None => {
            let mut notes = Vec::new();
            let items = gather(&mut collectors, &sources, &mut LastGood::default(), &mut notes);
            tell(notes, log);
            let keys = file_keys(&items, &sources);
            let contents = items.into_iter().map(|item| item.content);
            let all: Map<String, Value> = keys.into_iter().zip(contents).collect();
            Ok(print(&format!("{}\n", json_text_indented(&Value::Object(all), 1))))
        }
    }
}

struct Program<'p> {
    config: &'p Config,
    command: &'p str,
    sources: Vec<&'static str>,
    cache: &'p Cache,
    hangups: Receiver<()>,
    /// Of the configuration in force.
    hash: Digest,
    failures: Failures,
    /// What heat-config could not send.
    unsent: Beside,
}

impl Program<'_> {
    /// Until it is killed; once if that is wanted.
    fn run(
        mut self,
        collectors: &mut Collectors<'_>,
        mut last_good: LastGood,
        log: &mut Log,
    ) -> Result<ExitCode> {
        let mut pace = Pace::new(self.config.pause_min, self.config.pause_max);
        loop {
            let exit = self.cycle(collectors, &mut last_good, log);
            if self.config.one_time {
                return exit;
            }
            if let Err(error) = exit {
                log.error(format!("nothing was collected: {error:#}"));
            }
            self.unsent.send_if_due();
            let pause = pace.next();
            log.info(format!("Sleeping {:.2} seconds.", pause.as_secs_f64()));
            if is_told(&self.hangups, pause) {
                log.info("Signal received. Re-executing");
                return Err(self.start_anew());
            }
        }
    }

    /// The new program must not send what is being sent at this moment.
    fn start_anew(&mut self) -> anyhow::Error {
        self.unsent.stop();
        start_anew()
    }

    fn cycle(
        &mut self,
        collectors: &mut Collectors<'_>,
        last_good: &mut LastGood,
        log: &mut Log,
    ) -> Result<ExitCode> {
        let mut notes = Vec::new();
        let items = gather(collectors, &self.sources, last_good, &mut notes);
        tell(notes, log);
        let backup = &self.config.backup_cachedir;
        let stored =
            store(self.cache, &items, &self.sources, backup, |problem| log.error(problem))?;
        if stored.changed.is_empty() && !self.config.force {
            log.debug("No changes detected.");
            return Ok(ExitCode::SUCCESS);
        }
        let exit = self.refresh(&stored, log)?;
        if !self.config.one_time {
            let changed = hash_of(&self.config.sources).as_ref() != self.hash.as_ref();
            if changed || self.hangups.try_recv().is_ok() {
                log.info("The configuration may have changed. Re-executing");
                return Err(self.start_anew());
            }
        }
        Ok(exit)
    }

    /// Runs the command with the news, and remembers them if it succeeds.
    fn refresh(&mut self, stored: &Stored, log: &mut Log) -> Result<ExitCode> {
        let paths: Vec<String> = stored
            .keys
            .iter()
            .map(|key| self.cache.path(key).to_string_lossy().into_owned())
            .collect();
        let files = paths.join(":");
        log.info(format!("Executing {} with OS_CONFIG_FILES={files}", self.command));
        let status = Command::new("/bin/sh")
            .args(["-c", self.command])
            .env("OS_CONFIG_FILES", files)
            .status()
            .context("could not run /bin/sh")?;
        if status.success() {
            self.failures.succeeded();
            for key in &stored.changed {
                self.cache.commit(key)?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        let (how, exit) = ending(status);
        let again = self.failures.failed(Instant::now());
        log.error(format!(
            "Command failed, will not cache new data. Command '{}' {how}.{again}",
            self.command
        ));
        Ok(exit)
    }
}

/// In the words of Python's `subprocess`, and what its `sys.exit` makes of it.
fn ending(status: ExitStatus) -> (String, ExitCode) {
    match (status.code(), status.signal()) {
        (Some(code), _) => (
            format!("returned non-zero exit status {code}"),
            ExitCode::from(u8::try_from(code).unwrap_or(1)),
        ),
        (None, signal) => {
            let signal = signal.unwrap_or_default();
            let code = u8::try_from(-signal & 0xff).unwrap_or(1);
            (format!("died with signal {signal}"), ExitCode::from(code))
        }
    }
}

fn tell(notes: Vec<Note>, log: &mut Log) {
    for note in notes {
        match note {
            Note::NotConfigured { source, why } => {
                log.debug(why);
                log.debug(format!("Source [{source}] Not configured."));
            }
            Note::Unavailable { source, why, kept } => {
                log.warning(why);
                let kept = if kept { " What it had last stays in use." } else { "" };
                log.warning(format!("Source [{source}] Unavailable.{kept}"));
            }
            Note::PassedOver(what) => log.warning(what),
        }
    }
}

/// Told at each SIGHUP from now on.
fn hangups() -> Result<Receiver<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .context("cannot wait for signals")?;
    let guard = runtime.enter();
    let mut hangup = signal(SignalKind::hangup()).context("cannot wait for SIGHUP")?;
    drop(guard);
    // One that came while this program took its predecessor's place is told too.
    SigSet::from(Signal::SIGHUP).thread_unblock().context("cannot receive SIGHUP")?;
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        runtime.block_on(async { while hangup.recv().await.is_some() && tell.send(()).is_ok() {} });
    });
    Ok(told)
}

/// Waits, at most until a SIGHUP; whether one came.
fn is_told(hangups: &Receiver<()>, wait: Duration) -> bool {
    match hangups.recv_timeout(wait) {
        Err(RecvTimeoutError::Timeout) => false,
        Ok(()) => true,
        Err(RecvTimeoutError::Disconnected) => {
            thread::sleep(wait);
            false
        }
    }
}

/// Puts the program that is at this one's place by now in place of this process. Returns only if there
/// is none.
fn start_anew() -> anyhow::Error {
    let mut arguments = env::args_os();
    let name = arguments.next().unwrap_or_default();
    let by_path = Path::new(&name).components().count() > 1;
    let program = if by_path { name.clone() } else { "/proc/self/exe".into() };
    let arguments: Vec<OsString> = arguments.collect();
    // Until the new program waits for it a SIGHUP would end it. A blocked one is kept.
    let hangup = SigSet::from(Signal::SIGHUP);
    let _ = hangup.thread_block();
    let error = Command::new(program).arg0(name).args(arguments).exec();
    let _ = hangup.thread_unblock();
    anyhow::Error::new(error).context("could not start anew")
}

pub(crate) fn hash_of(sources: &Sources) -> Digest {
    let mut context = digest::Context::new(&SHA256);
    for content in sources.contents() {
        context.update(&content);
    }
    context.finish()
}

/// From 0 to 1.
pub(crate) fn random_fraction() -> f64 {
    let mut bytes = [0; 4];
    // Without randomness all start at once, which is a pity and no more.
    let _ = SystemRandom::new().fill(&mut bytes);
    f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX)
}
