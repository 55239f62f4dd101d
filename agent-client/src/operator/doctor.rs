//! `doctor`: looks for what keeps the agent from working, and says what to try about it.
//!
//! It changes nothing, starts nothing, and asks the server nothing: that a server can be reached is known
//! to the running agent, whose word counts.

use std::fmt::Write as _;
use std::net::{ToSocketAddrs, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use certs::file::check_private;
use rustix::fs::statvfs;
use serde::Serialize;
use serde_json::json;

use super::cli::{print, print_value};
use super::offline::Documents;
use super::words::{clock, line};
use crate::collect::read_config;
use crate::config::Settings;
use crate::control::client;
use crate::control::message::{Question, SCHEMA};
use crate::daemon::{files, remedy};
use crate::document::{Document, Work};
use crate::enrolment::{Enrolment, EnrolmentError};
use crate::exit::{Abort, Exit};
use crate::hooks::Hook;
use crate::journal::Journal;
use crate::lock;
use crate::machine::program::on_path;
use crate::pipeline::unix_ms;
use crate::status::{LinkState, Status};

/// Less room than this in the state directory is a warning: the largest document, its like in the history,
/// and a full store of output would not fit.
const FREE_BYTES_WARN: u64 = 512 << 20;
/// Less than this is a failure: the next document may not fit.
const FREE_BYTES_MIN: u64 = 32 << 20;
/// 2025-01-01: a clock before this was never set. Tokens expire by it.
const CLOCK_UNIX_MS_MIN: u64 = 1_735_689_600_000;
/// How far a time that was written down may be ahead of the clock.
const CLOCK_BACK_MS_MAX: u64 = 60_000;
/// How long a host may take to say that nobody listens at a port.
const SHORT_WAIT_MS: u64 = 300;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing to mend.
    Ok,
    /// Something that may become a failure, or is one for somebody.
    Warning,
    /// The agent cannot work.
    Failed,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What.
    pub name: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to try.
    pub hint: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Ok, found: found.into(), hint: None }
    }

    fn bad(
        name: &'static str,
        verdict: Verdict,
        found: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self { name, verdict, found: found.into(), hint: Some(hint.into()) }
    }
}

/// Looks at everything and shows it.
///
/// # Errors
/// Standard output.
pub fn doctor(settings: &Settings, json: bool) -> Result<Exit, Abort> {
    let checks = examine(settings);
    let worst = checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Ok);
    let exit = match worst {
        Verdict::Ok => Exit::Ok,
        Verdict::Warning => Exit::Degraded,
        Verdict::Failed => Exit::Failed,
    };
    if json {
        print_value(&json!({"schema": SCHEMA, "verdict": worst, "checks": checks}))?;
    } else {
        print(render(&checks).trim_end())?;
    }
    Ok(exit)
}

fn render(checks: &[Check]) -> String {
    let mut out = String::new();
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    for check in checks {
        let word = match check.verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Failed => "FAILED",
        };
        let _ = writeln!(out, "{word:<7}  {:<width$}  {}", check.name, line(&check.found));
        if let Some(hint) = &check.hint {
            let _ = writeln!(out, "  try: {}", line(hint));
        }
    }
    let count = |verdict| checks.iter().filter(|check| check.verdict == verdict).count();
    let _ = match (count(Verdict::Failed), count(Verdict::Warning)) {
        (0, 0) => writeln!(out, "\nnothing to mend"),
        (failed, warnings) => writeln!(out, "\nfailed: {failed}, warnings: {warnings}"),
    };
    out
}

fn examine(settings: &Settings) -> Vec<Check> {
    let directory = state_directory(&settings.state_dir);
    let there_is_one = directory.verdict != Verdict::Failed;
    let mut checks = vec![directory];
    if there_is_one {
        checks.push(disk(&settings.state_dir));
        checks.push(identity(settings));
    }
    let enrolment = Enrolment::load(&settings.state(files::ENROLMENT));
    checks.push(enrolled(&enrolment, settings));
    let status = Status::read(&settings.state(files::STATUS)).ok().flatten();
    checks.push(clock_check(unix_ms(), status.as_ref()));
    if there_is_one {
        checks.push(journal(settings));
        checks.push(agent(settings));
    }
    let servers = match &enrolment {
        Ok(enrolment) if settings.servers.is_empty() => enrolment.servers.clone(),
        _ => settings.servers.clone(),
    };
    checks.extend(servers.iter().map(|server| reachable(server)));
    let runs = lock::holder(&settings.state_dir).is_some();
    checks.extend(status.filter(|_| runs).map(|status| link(&status)));
    checks.extend(settings.collect_config.as_deref().map(collectors));
    checks.extend(hooks(settings));
    checks
}

fn state_directory(path: &Path) -> Check {
    const NAME: &str = "state directory";
    let shown = path.display();
    match std::fs::metadata(path) {
        Ok(metadata) if !metadata.is_dir() => Check::bad(
            NAME,
            Verdict::Failed,
            format!("{shown} is no directory"),
            "name another one: state_dir, or --state-dir DIR",
        ),
        Ok(metadata) if metadata.permissions().mode() & 0o022 != 0 => Check::bad(
            NAME,
            Verdict::Failed,
            format!("others can write to {shown}"),
            format!("chmod 700 {shown}"),
        ),
        Ok(_) => Check::ok(NAME, shown.to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Check::bad(
            NAME,
            Verdict::Failed,
            format!("{shown} does not exist: this agent was never enrolled here"),
            "agent-client enroll --token-file FILE; or name another one: --state-dir DIR",
        ),
        Err(error) => Check::bad(
            NAME,
            Verdict::Failed,
            format!("{shown}: {error}"),
            "as root, or as the user that runs the agent",
        ),
    }
}

fn disk(path: &Path) -> Check {
    match statvfs(path) {
        // f_frsize is what f_bavail counts in.
        Ok(room) => free_room(room.f_bavail.saturating_mul(room.f_frsize)),
        Err(error) => Check::bad("disk", Verdict::Warning, error.to_string(), "df"),
    }
}

fn free_room(bytes: u64) -> Check {
    let found = format!("{} MiB free", bytes >> 20);
    let is_full = bytes < FREE_BYTES_MIN;
    if is_full || bytes < FREE_BYTES_WARN {
        let verdict = if is_full { Verdict::Failed } else { Verdict::Warning };
        Check::bad("disk", verdict, found, "make room, or move the state directory")
    } else {
        Check::ok("disk", found)
    }
}

fn identity(settings: &Settings) -> Check {
    let path = settings.state(files::IDENTITY).join(certs::identity::IDENTITY_FILE);
    match check_private(&path) {
        Ok(()) => Check::ok("key", path.display().to_string()),
        Err(error) if error.is_not_found() => {
            Check::bad("key", Verdict::Warning, "none yet", "agent-client run makes it")
        }
        Err(error) => Check::bad("key", Verdict::Failed, error.to_string(), remedy(&error)),
    }
}

fn enrolled(enrolment: &Result<Enrolment, EnrolmentError>, settings: &Settings) -> Check {
    match enrolment {
        Err(EnrolmentError::Missing(_)) if settings.polls() => {
            Check::ok("enrolment", "none: polls as collect_config says until a token comes")
        }
        Ok(enrolment) => {
            let pins = enrolment.pins_text();
            Check::ok("enrolment", format!("{}, server {pins}", enrolment.agent_id))
        }
        Err(error) => {
            let hint = match error {
                EnrolmentError::File(error) => remedy(error),
                _ => "on the server: metadata-server enroll ID; here: agent-client enroll --token-file FILE".into(),
            };
            Check::bad("enrolment", Verdict::Failed, error.to_string(), hint)
        }
    }
}

fn clock_check(now: u64, status: Option<&Status>) -> Check {
    let hint = "set it: timedatectl, chronyc makestep; tokens expire by the clock";
    if now < CLOCK_UNIX_MS_MIN {
        let found = format!("{}: it was never set", clock(now));
        return Check::bad("clock", Verdict::Failed, found, hint);
    }
    match status.map(|status| status.updated_unix_ms) {
        Some(then) if then > now.saturating_add(CLOCK_BACK_MS_MAX) => {
            let found = format!("{}, but the status was written at {}", clock(now), clock(then));
            Check::bad("clock", Verdict::Warning, found, hint)
        }
        _ => Check::ok("clock", clock(now)),
    }
}

fn journal(settings: &Settings) -> Check {
    match Journal::peek(&settings.state(files::JOURNAL)) {
        Ok(states) => Check::ok("journal", format!("{} configs", states.iter().count())),
        Err(error) => {
            let hint = "as root; if it is damaged: put it back from a backup";
            Check::bad("journal", Verdict::Failed, error.to_string(), hint)
        }
    }
}

fn agent(settings: &Settings) -> Check {
    let Some(pid) = lock::holder(&settings.state_dir) else {
        let hint = "systemctl start agent-client (or agent-client run)";
        return Check::bad("agent", Verdict::Warning, "does not run", hint);
    };
    let socket = settings.state(files::CONTROL);
    // Nothing is called so: the answer is a refusal, and an answer is what is looked for.
    match client::ask(&socket, &Question::Why { name: String::new() }) {
        Ok(_) => Check::ok("agent", format!("runs (pid {pid}) and answers")),
        Err(error) => Check::bad(
            "agent",
            Verdict::Warning,
            format!("runs (pid {pid}) and does not answer at {}: {error}", socket.display()),
            "again in a moment; if it goes on: systemctl restart agent-client",
        ),
    }
}

/// Whether the name has an address and there is a way to it. Whether a server is there, only a handshake
/// could tell; but a host that says that nobody listens is heard.
fn reachable(server: &str) -> Check {
    const NAME: &str = "server";
    let addresses: Vec<_> = match server.to_socket_addrs() {
        Ok(addresses) => addresses.collect(),
        Err(error) => {
            let hint = "look at /etc/resolv.conf; or name the server by its address: servers";
            let found = format!("{server} has no address: {error}");
            return Check::bad(NAME, Verdict::Failed, found, hint);
        }
    };
    let tried: Vec<_> = addresses.iter().map(|address| (address, knock(*address))).collect();
    match tried.iter().find(|(_, knocked)| knocked.is_ok()) {
        Some((address, _)) => {
            Check::ok(NAME, format!("{server} is {address}, and there is a way to it"))
        }
        None => {
            let why: Vec<String> = tried
                .iter()
                .filter_map(|(address, knocked)| {
                    Some(format!("{address}: {}", knocked.as_ref().err()?))
                })
                .collect();
            let found = format!("{server}: {}", why.join("; "));
            let hint = "is metadata-server running there, and its UDP port open? see routes: ip route get ADDRESS";
            Check::bad(NAME, Verdict::Failed, found, hint)
        }
    }
}

fn knock(address: std::net::SocketAddr) -> std::io::Result<()> {
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.connect(address)?;
    // A datagram too short for a record: any server drops it without an answer.
    socket.send(&[0])?;
    socket.set_read_timeout(Some(std::time::Duration::from_millis(SHORT_WAIT_MS)))?;
    match socket.recv(&mut [0; 16]) {
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Err(error),
        _ => Ok(()),
    }
}

fn link(status: &Status) -> Check {
    let server = status.link.server.as_deref().unwrap_or("no server");
    match (&status.link.state, &status.link.error) {
        (LinkState::Connected, _) => Check::ok("connection", format!("to {server}")),
        (LinkState::Unenrolled, _) => polling(status),
        (_, Some(error)) => {
            let hint = error.hint.clone().unwrap_or_else(|| "agent-client status".into());
            Check::bad("connection", Verdict::Failed, error.text.clone(), hint)
        }
        (_, None) => {
            let found = format!("being made to {server}");
            Check::bad("connection", Verdict::Warning, found, "again in a moment")
        }
    }
}

/// What takes the place of a connection where there is no server.
fn polling(status: &Status) -> Check {
    const NAME: &str = "polling";
    let hint = "look at what the collectors are configured with, and at the agent's log";
    match status.polling.as_ref().map(|polling| (&polling.source, &polling.error)) {
        Some((_, Some(error))) => Check::bad(NAME, Verdict::Failed, error.clone(), hint),
        Some((Some(source), None)) => Check::ok(NAME, format!("{source} has the metadata")),
        Some((None, None)) => {
            let found = "no transport is configured: only this machine's own metadata counts";
            Check::bad(NAME, Verdict::Warning, found, hint)
        }
        None => Check::bad(NAME, Verdict::Warning, "has not begun yet", "again in a moment"),
    }
}

/// Whether the configuration of os-collect-config can be used.
fn collectors(path: &Path) -> Check {
    const NAME: &str = "collect_config";
    let names = read_config(path).and_then(|config| Ok(config.known_collectors()?.join(", ")));
    match names {
        Ok(names) => Check::ok(NAME, format!("{}: {names}", path.display())),
        Err(why) => {
            let hint = format!("os-collect-config --config-file {} --print", path.display());
            Check::bad(NAME, Verdict::Failed, why, hint)
        }
    }
}

/// Whether each deployment of the document in force has its hook, and that its tool.
fn hooks(settings: &Settings) -> Vec<Check> {
    const NAME: &str = "hooks";
    let hooks =
        settings.hooks(|name| std::env::var(name).ok(), rustix::process::geteuid().is_root());
    let documents = match Documents::read(settings) {
        Ok(documents) => documents,
        Err(abort) => {
            let hint = abort.hint.unwrap_or_else(|| "as root".into());
            return vec![Check::bad(NAME, Verdict::Failed, format!("{:#}", abort.error), hint)];
        }
    };
    let document =
        documents.in_force().and_then(|stored| Document::parse(stored.version, &stored.body).ok());
    let Some(document) = document else { return Vec::new() };
    let mut checks = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for entry in &document.entries {
        let Work::Run(config) = &entry.work else { continue };
        if !seen.insert(config.hook.clone()) {
            continue;
        }
        let missing = match hooks.find(&config.hook) {
            None => Some((
                hooks.no_such_hook(&config.hook).reason,
                format!("put a program called {} into one of them", config.hook),
            )),
            Some(Hook::External(path)) => not_executable(&path),
            Some(Hook::BuiltIn(name)) => no_tool(name),
            Some(Hook::Script) => None,
        };
        if let Some((found, hint)) = missing {
            let found = format!("{} ({}): {found}", entry.name, entry.id);
            checks.push(Check::bad(NAME, Verdict::Warning, found, hint));
        }
    }
    if checks.is_empty() {
        let found = format!("document {} needs {} and finds them", document.version, seen.len());
        checks.push(Check::ok(NAME, found));
    }
    checks
}

fn not_executable(path: &Path) -> Option<(String, String)> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode();
    let shown = path.display();
    (mode & 0o111 == 0).then(|| (format!("{shown} is not executable"), format!("chmod +x {shown}")))
}

/// The tool of a built-in hook that is not on PATH.
fn no_tool(hook: &str) -> Option<(String, String)> {
    let (variable, usual) = match hook {
        "ansible" => ("HEAT_ANSIBLE_CMD", "ansible-playbook"),
        "puppet" => ("HEAT_PUPPET_CMD", "puppet"),
        "docker-cmd" => ("HEAT_DOCKER_CMD", "docker"),
        "docker-compose" => ("HEAT_DOCKER_COMPOSE_CMD", "docker-compose"),
        _ => return None,
    };
    let tool = std::env::var_os(variable).filter(|tool| !tool.is_empty());
    let tool = tool.unwrap_or_else(|| usual.into());
    let is_here = match Path::new(&tool).components().count() {
        1 => on_path(&tool, std::env::var_os("PATH").as_deref()).is_some(),
        _ => Path::new(&tool).is_file(),
    };
    let shown = tool.to_string_lossy();
    (!is_here).then(|| {
        (
            format!("its hook needs {shown}, which is not here"),
            format!("install {shown}, or name it: {variable}"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::tests::status;

    #[test]
    fn each_failure_says_what_to_try_and_the_verdict_is_the_worst() {
        let checks = [
            Check::ok("state directory", "/x"),
            free_room(FREE_BYTES_WARN),
            free_room(FREE_BYTES_WARN - 1),
            free_room(FREE_BYTES_MIN - 1),
            clock_check(5, None),
        ];
        insta::assert_snapshot!(render(&checks));
    }

    #[test]
    fn a_clock_that_went_back_or_was_never_set_is_noticed() {
        let then = CLOCK_UNIX_MS_MIN + 1_000_000;
        let mut status = status(&[]);
        status.updated_unix_ms = then;
        let verdict = |now| clock_check(now, Some(&status)).verdict;
        assert_eq!(verdict(then), Verdict::Ok);
        assert_eq!(verdict(then - CLOCK_BACK_MS_MAX), Verdict::Ok);
        assert_eq!(verdict(then - CLOCK_BACK_MS_MAX - 1), Verdict::Warning);
        assert_eq!(verdict(CLOCK_UNIX_MS_MIN - 1), Verdict::Failed);
    }

    #[test]
    fn a_server_without_an_address_or_with_a_closed_port_is_told_from_one_that_may_be_there() {
        let there = UdpSocket::bind("127.0.0.1:0").unwrap();
        let open = there.local_addr().unwrap().to_string();
        assert_eq!(reachable(&open).verdict, Verdict::Ok);
        drop(there);
        let closed = reachable(&open);
        assert_eq!(closed.verdict, Verdict::Failed, "{closed:?}");
        assert!(closed.found.contains("refused"), "{closed:?}");
        let nowhere = reachable("no such host:1");
        assert_eq!(nowhere.verdict, Verdict::Failed);
        assert!(nowhere.hint.is_some());
    }
}
