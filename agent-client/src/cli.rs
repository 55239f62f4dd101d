//! The command line. Without arguments it shows the status: a daemon is never started by accident.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use certs::EnrolmentToken;
use certs::file::{PRIVATE_FILE_BYTES_MAX, check_private, read_public};
use clap::{Args, Parser, Subcommand};
use serde_json::json;
use tracing_subscriber::EnvFilter;

use crate::bootstrap;
use crate::compat;
use crate::config::{LogFormat, Origin, Settings, parse_duration};
use crate::daemon::{self, Home, Mode, abort_of_enrolment, files};
use crate::enrolment::{Enrolment, EnrolmentError, Taken};
use crate::exit::{Abort, Exit};
use crate::lock;
use crate::machine::System;
use crate::operator;
use crate::pipeline::unix_ms;
use crate::status::{self, Status};
use crate::swarm;

const EXIT_CODES: &str = "\
Exit codes:
  0   all is well
  1   a deployment or the agent failed
  2   degraded: not running, still applying, or results not stored yet
  64  wrong usage, or an ID that nobody knows
  69  the server cannot be reached
  77  the server or this agent refused the other
  78  wrong configuration, no enrolment, unusable key";

const SETTINGS_HELP: &str = "\
Settings, strongest first: flag; environment variable (AGENT_CLIENT_ and the key in
capitals, such as AGENT_CLIENT_KEEP_ALIVE); conf.d/*.toml beside the file; the file; default.
Keys: state_dir, servers, token_file, keep_alive, peer_timeout, reconnect_max, stop_wait,
hook_timeout, kill_grace, lanes_max, cgroup, collect_config, poll_after, log_filter, log_format.
HEAT_CONFIG_HOOKS, HEAT_SCRIPT_WORKING and HEAT_SCRIPT_OUTPUTS name directories of hooks.";

/// The agent in the instance: takes documents from a metadata-server, runs their hooks, sends results back.
#[derive(Debug, Parser)]
#[command(name = "agent-client", version, after_help = EXIT_CODES, after_long_help = format!("{SETTINGS_HELP}\n\n{EXIT_CODES}"))]
struct Cli {
    #[command(flatten)]
    place: PlaceArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Args)]
struct PlaceArgs {
    /// Configuration file [default: /etc/agent-client/config.toml, if it exists]
    #[arg(long, global = true, value_name = "FILE", env = "AGENT_CLIENT_CONFIG")]
    config: Option<PathBuf>,
    /// Where everything that lasts is kept [default: /var/lib/agent-client]
    #[arg(long, global = true, value_name = "DIR")]
    state_dir: Option<String>,
    /// What is logged, such as "debug" or "agent_client=debug,info" [default: info]
    #[arg(long, global = true, value_name = "FILTER")]
    log_filter: Option<String>,
    /// Form of the log lines: text or json [default: text]
    #[arg(long, global = true, value_name = "FORM")]
    log_format: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show how the agent stands (the same as no command)
    Status {
        /// Wait until the document is applied and its results are stored, at most this long
        #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "60s", value_parser = time)]
        wait: Option<Duration>,
        /// As JSON, in a stable form ("schema": 1)
        #[arg(long)]
        json: bool,
    },
    #[command(flatten)]
    Operator(operator::cli::Command),
    /// Look into the configuration
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Look for what keeps the agent from working: directories, key, enrolment, server, hooks, tools, disk, clock
    Doctor {
        /// As JSON, in a stable form ("schema": 1)
        #[arg(long)]
        json: bool,
    },
    /// Run in the foreground until told to stop
    Run {
        #[command(flatten)]
        link: LinkArgs,
    },
    /// Apply the newest document, wait until the server has all results, end
    Once {
        #[command(flatten)]
        link: LinkArgs,
        /// How long the document may take to come
        #[arg(long, value_name = "TIME", default_value = "60s", value_parser = time)]
        wait: Duration,
    },
    /// Take an enrolment token: pin its server, become its agent
    Enroll {
        /// The token, from a file or from standard input (-); never as an argument
        #[arg(long, value_name = "FILE|-")]
        token_file: Option<String>,
        /// Take the token that the cloud has handed over: in Heat's or Nova's metadata, in user data
        #[arg(long, conflicts_with = "token_file")]
        from_metadata: bool,
        /// Become another agent, or trust another server, than before
        #[arg(long)]
        replace: bool,
        /// Prove the token to the server now, waiting at most this long
        #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "30s", value_parser = time)]
        now: Option<Duration>,
    },
    /// Link the names of the programs that this one replaces, such as os-apply-config, to it
    InstallLinks {
        /// Where the links are made, such as /usr/local/bin
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        /// Replace what others have put there
        #[arg(long)]
        force: bool,
    },
    /// Be many agents at once, to see what a deployment of that size takes; no hook runs
    ///
    /// Example: agent-client swarm --agents 10000 --dir /var/tmp/swarm (makes the keys; then, at the server,
    /// "metadata-server pins import /var/tmp/swarm/pins.txt"), and the same with --server HOST:PORT --pin
    /// FINGERPRINT. A document counts as delivered when it is in the log that all agents of the swarm share
    /// and that log is synced to the disk.
    Swarm(swarm::cli::SwarmArgs),
    /// Show the version
    Version {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Show each setting, its value and where that comes from; flags of a running agent are not known here
    Show {
        /// As JSON, in a stable form ("schema": 1)
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
struct LinkArgs {
    /// Enrol with the token in this file first (- for standard input); one that is used already is fine
    #[arg(long, value_name = "FILE|-")]
    token_file: Option<String>,
    /// Servers to use instead of the token's, HOST:PORT, with commas between
    #[arg(long, value_name = "LIST")]
    servers: Option<String>,
    /// Silence after which a sign of life is sent [default: 8s]
    #[arg(long, value_name = "TIME")]
    keep_alive: Option<String>,
    /// How long the server may leave something unanswered until it counts as lost [default: 12s]
    #[arg(long, value_name = "TIME")]
    peer_timeout: Option<String>,
    /// Longest pause between attempts to reach a server [default: 60s]
    #[arg(long, value_name = "TIME")]
    reconnect_max: Option<String>,
    /// How long a running hook may go on when the agent is told to stop [default: 20s]
    #[arg(long, value_name = "TIME")]
    stop_wait: Option<String>,
    /// How long a hook may run whose deployment has no options.timeout; 0: for ever [default: 4h]
    #[arg(long, value_name = "TIME")]
    hook_timeout: Option<String>,
    /// How long a hook that was asked to end (SIGTERM) has until it is killed [default: 5s]
    #[arg(long, value_name = "TIME")]
    kill_grace: Option<String>,
    /// How many lanes (options.lane) may be at work at a time; 1: all in order [default: 1]
    #[arg(long, value_name = "NUMBER")]
    lanes_max: Option<String>,
    /// Control group for runs: auto (what systemd delegated), none, or a path [default: auto]
    #[arg(long, value_name = "WHICH")]
    cgroup: Option<String>,
    /// Do as this configuration of os-collect-config says with each document, before its deployments
    #[arg(long, value_name = "FILE")]
    collect_config: Option<String>,
    /// How long no server may be reached until the collectors there are asked; 0: never [default: 10m]
    #[arg(long, value_name = "TIME")]
    poll_after: Option<String>,
}

fn time(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "must be a time like 500ms, 30s, 5m or 1h".into())
}

/// The program: reads the command line, does it, tells how it ended.
pub fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    if let Some(exit) = compat::dispatch(&arguments) {
        return exit;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Ok };
            let _ = error.print();
            return exit.into();
        }
    };
    match execute(cli) {
        Ok(exit) => exit.into(),
        Err(abort) => {
            let mut stderr = io::stderr().lock();
            let _ = writeln!(stderr, "error: {:#}", abort.error);
            if let Some(hint) = &abort.hint {
                let _ = writeln!(stderr, "  try: {hint}");
            }
            abort.exit.into()
        }
    }
}

fn execute(cli: Cli) -> Result<Exit, Abort> {
    let Cli { place, command } = cli;
    match command.unwrap_or(Command::Status { wait: None, json: false }) {
        Command::Version { json } => show_version(json),
        Command::Swarm(args) => swarm::cli::execute(&args),
        Command::Config { command: ConfigCommand::Show { json } } => {
            operator::config_show::show(&settings_and_origins(&place, None)?.1, json)
        }
        Command::Doctor { json } => operator::doctor::doctor(&settings(&place, None)?, json),
        Command::Operator(command) => operator::cli::execute(&settings(&place, None)?, command),
        Command::InstallLinks { directory, force } => install_links(&directory, force),
        Command::Status { wait, json } => show_status(&settings(&place, None)?, wait, json),
        Command::Run { link } => {
            let settings = settings(&place, Some(&link))?;
            log(&settings);
            let token = first_token(&settings, Mode::Run)?;
            daemon::run(&settings, token.as_ref(), Mode::Run)
        }
        Command::Once { link, wait } => {
            let settings = settings(&place, Some(&link))?;
            log(&settings);
            let mode = Mode::Once { wait };
            let token = first_token(&settings, mode)?;
            daemon::run(&settings, token.as_ref(), mode)
        }
        Command::Enroll { token_file, from_metadata, replace, now } => {
            let settings = settings(&place, None)?;
            log(&settings);
            let file = token_file.map(PathBuf::from).or_else(|| settings.token_file.clone());
            let token = match from_metadata {
                true => Some(token_of_cloud()?),
                false => token(file.as_deref())?,
            };
            enroll(&settings, token, replace, now)
        }
    }
}

fn settings(place: &PlaceArgs, link: Option<&LinkArgs>) -> Result<Settings, Abort> {
    settings_and_origins(place, link).map(|(settings, _)| settings)
}

fn settings_and_origins(
    place: &PlaceArgs,
    link: Option<&LinkArgs>,
) -> Result<(Settings, Vec<Origin>), Abort> {
    let mut flags = Vec::new();
    let mut add = |name: &'static str, value: &Option<String>| {
        flags.extend(value.clone().map(|value| (name, value)));
    };
    add("state_dir", &place.state_dir);
    add("log_filter", &place.log_filter);
    add("log_format", &place.log_format);
    if let Some(link) = link {
        add("token_file", &link.token_file);
        add("servers", &link.servers);
        add("keep_alive", &link.keep_alive);
        add("peer_timeout", &link.peer_timeout);
        add("reconnect_max", &link.reconnect_max);
        add("stop_wait", &link.stop_wait);
        add("hook_timeout", &link.hook_timeout);
        add("kill_grace", &link.kill_grace);
        add("lanes_max", &link.lanes_max);
        add("cgroup", &link.cgroup);
        add("collect_config", &link.collect_config);
        add("poll_after", &link.poll_after);
    }
    let environment = |name: &str| std::env::var(name).ok();
    Settings::load_with_origins(place.config.as_deref(), environment, &flags)
        .map_err(|errors| Abort::new(Exit::Config, errors))
}

fn log(settings: &Settings) {
    let filter = EnvFilter::try_new(&settings.log_filter).unwrap_or_default();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // The journal has the time already. Setting a logger fails only if there is one.
    let _ = match (settings.log_format, std::env::var_os("JOURNAL_STREAM").is_some()) {
        (LogFormat::Json, _) => builder.json().try_init(),
        (LogFormat::Text, true) => builder.without_time().with_ansi(false).try_init(),
        (LogFormat::Text, false) => {
            builder.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).try_init()
        }
    };
}

/// Reads a token, if a place for it is named.
fn token(place: Option<&Path>) -> Result<Option<EnrolmentToken>, Abort> {
    let Some(place) = place else { return Ok(None) };
    let shown = place.display();
    let bytes = if place == Path::new("-") {
        let mut bytes = Vec::new();
        let mut stdin = io::stdin().lock().take(PRIVATE_FILE_BYTES_MAX);
        stdin.read_to_end(&mut bytes).context("reading the token from standard input")?;
        bytes
    } else {
        let bytes = read_public(place, PRIVATE_FILE_BYTES_MAX).map_err(|e| {
            Abort::new(Exit::Config, anyhow::Error::from(e).context("reading the token"))
        })?;
        if let Err(error) = check_private(place) {
            tracing::warn!(%error, "the token is a secret and others can read it");
        }
        bytes
    };
    let line = String::from_utf8_lossy(&bytes);
    EnrolmentToken::from_str(line.trim()).map(Some).map_err(|error| {
        Abort::new(Exit::Config, anyhow!("no usable token in {shown}: {error}"))
            .hint("copy the whole line that \"metadata-server enroll ID\" prints")
    })
}

/// The token to start with: the one that a setting names; else, for an agent of the whole machine that was
/// never enrolled, the one that the cloud has handed over.
fn first_token(settings: &Settings, mode: Mode) -> Result<Option<EnrolmentToken>, Abort> {
    if let Some(token) = token(settings.token_file.as_deref())? {
        return Ok(Some(token));
    }
    let enrolment = Enrolment::load(&settings.state(files::ENROLMENT));
    let is_new = matches!(enrolment, Err(EnrolmentError::Missing(_)));
    if !is_new || !settings.is_of_system(rustix::process::geteuid().is_root()) {
        return Ok(None);
    }
    if mode == Mode::Run && settings.polls() {
        // It goes on without one, and looks again later.
        let patience = bootstrap::Patience { attempts_max: 1, ..bootstrap::Patience::default() };
        return Ok(look_in_cloud(patience).inspect_err(|e| tracing::info!("{e}")).ok());
    }
    token_of_cloud().map(Some)
}

fn look_in_cloud(patience: bootstrap::Patience) -> Result<EnrolmentToken, bootstrap::NotFound> {
    let found = bootstrap::find(&System::of_machine(), patience)?;
    tracing::info!(
        place = found.place,
        agent_id = %found.token.agent_id,
        token_id = %found.token.token_id,
        "the cloud has handed over a token"
    );
    Ok(found.token)
}

fn token_of_cloud() -> Result<EnrolmentToken, Abort> {
    match look_in_cloud(bootstrap::Patience::default()) {
        Ok(token) => Ok(token),
        Err(error) => {
            // What may come later is worth a restart.
            let exit = if error.may_come { Exit::Unreachable } else { Exit::Config };
            Err(Abort::new(exit, anyhow!("this agent is not enrolled, and {error}")).hint(
                "put the token that \"metadata-server enroll ID\" prints into the metadata or user data, or agent-client enroll --token-file FILE",
            ))
        }
    }
}

fn enroll(
    settings: &Settings,
    token: Option<EnrolmentToken>,
    replace: bool,
    now: Option<Duration>,
) -> Result<Exit, Abort> {
    let token = token.ok_or_else(|| {
        Abort::new(Exit::Usage, anyhow!("no token given")).hint(
            "agent-client enroll --token-file FILE (or - for standard input, or --from-metadata)",
        )
    })?;
    let home = Home::open(settings)?;
    let path = settings.state(files::ENROLMENT);
    let (enrolment, taken) = Enrolment::take(&path, &token, replace).map_err(abort_of_enrolment)?;
    let mut stdout = io::stdout().lock();
    let mut say = |line: String| {
        // Nobody reading is no reason not to enrol.
        let _ = writeln!(stdout, "{line}");
    };
    say(format!("agent     {}", enrolment.agent_id));
    say(format!("key       {}", home.identity.fingerprint()));
    say(format!("servers   {}", enrolment.servers.join(", ")));
    say(format!("pinned    {}", enrolment.pins_text()));
    drop(home);
    if taken == Taken::Known {
        say("this token was taken before; nothing has changed".into());
    }
    match now {
        Some(wait) if enrolment.token().is_some() => {
            daemon::run(settings, None, Mode::Enroll { wait })?;
            say("the server has pinned this agent's key".into());
        }
        _ => {}
    }
    let _ = writeln!(io::stderr(), "next: agent-client run");
    Ok(Exit::Ok)
}

fn show_version(json: bool) -> Result<Exit, Abort> {
    let version = env!("CARGO_PKG_VERSION");
    if json {
        print(&json!({"name": "agent-client", "version": version}).to_string())
    } else {
        print(&format!("agent-client {version}"))
    }
}

/// How often a waiting status command looks again.
const STATUS_POLL_MS: u64 = 50;

fn show_status(settings: &Settings, wait: Option<Duration>, json: bool) -> Result<Exit, Abort> {
    let until = Instant::now() + wait.unwrap_or_default();
    let (status, running) = loop {
        let path = settings.state(files::STATUS);
        let status = Status::read(&path).context("reading the status file")?;
        let holder = lock::holder(&settings.state_dir);
        let running = status.as_ref().is_some_and(|status| holder == Some(status.pid));
        let done =
            running && status.as_ref().is_some_and(|s| s.is_applied() && s.results_waiting == 0);
        if done || Instant::now() >= until {
            break (status, running);
        }
        thread::sleep(Duration::from_millis(STATUS_POLL_MS));
    };
    let exit = status::verdict(status.as_ref(), running);
    if json {
        let shown = json!({"running": running, "exit_code": exit as u8, "status": status});
        print(&serde_json::to_string_pretty(&shown).context("writing JSON")?)?;
        return Ok(exit);
    }
    match &status {
        Some(status) => print(status::render(status, running, unix_ms()).trim_end())?,
        None => {
            let place = settings.state_dir.display();
            print(&format!("agent-client has not run yet (no status in {place})"))?;
            let next = match Enrolment::load(&settings.state(files::ENROLMENT)) {
                Ok(_) => "agent-client run",
                Err(EnrolmentError::Missing(_)) if settings.polls() => "agent-client run",
                Err(_) => "agent-client enroll --token-file FILE",
            };
            let _ = writeln!(io::stderr(), "next: {next}");
            Exit::Degraded
        }
    };
    Ok(exit)
}

fn install_links(directory: &Path, force: bool) -> Result<Exit, Abort> {
    let program = std::env::current_exe().context("finding this program")?;
    let made = compat::links::install(directory, &program, compat::names(), force);
    let made = made.map_err(|error| {
        let taken = matches!(error, compat::links::LinkError::Taken { .. });
        let abort = Abort::new(Exit::Failed, error);
        if taken { abort.hint("another directory, or --force to replace it") } else { abort }
    })?;
    for path in made {
        print(&format!("{} -> {}", path.display(), program.display()))?;
    }
    Ok(Exit::Ok)
}

fn print(text: &str) -> Result<Exit, Abort> {
    // A reader that went away early, such as head, is no failure.
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(anyhow::Error::from(error).context("writing to standard output").into())
        }
        _ => Ok(Exit::Ok),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_is_as_reviewed() {
        let mut text = Cli::command().term_width(100).render_long_help().to_string();
        let operators = ["why", "logs", "rerun", "diff", "rollback", "config", "doctor"];
        for command in ["run", "once", "status", "enroll"].into_iter().chain(operators) {
            let mut cli = Cli::command().term_width(100);
            let command = cli.find_subcommand_mut(command).unwrap();
            let help = command.render_help();
            text.push_str(&format!("\n-------- {}\n{help}", command.get_name()));
        }
        let trimmed: Vec<&str> = text.lines().map(str::trim_end).collect();
        insta::assert_snapshot!(trimmed.join("\n"));
    }

    #[test]
    fn waiting_takes_an_optional_time() {
        let wait = |args: &[&str]| match Cli::try_parse_from(args).unwrap().command {
            Some(Command::Status { wait, .. }) => wait,
            other => panic!("{other:?}"),
        };
        assert_eq!(wait(&["a", "status"]), None);
        assert_eq!(wait(&["a", "status", "--wait"]), Some(Duration::from_secs(60)));
        assert_eq!(wait(&["a", "status", "--wait=2m"]), Some(Duration::from_secs(120)));
        assert!(Cli::try_parse_from(["a", "status", "--wait=soon"]).is_err());
        assert!(Cli::try_parse_from(["a"]).unwrap().command.is_none());
    }

    #[test]
    fn a_token_is_no_argument() {
        assert!(Cli::try_parse_from(["a", "enroll", "mdt1.secret"]).is_err());
    }
}
