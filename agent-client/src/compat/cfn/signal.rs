//! `cfn-signal`: tells a wait condition how something has ended.
//!
//! Where the URL cannot be reached by HTTP, the running agent is asked to have its server send the signal.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use certs::file::{PRIVATE_FILE_MODE, write_atomic};
use clap::Parser;
use serde_json::{Value, json};

use super::system::make_private;
use crate::compat::arguments;
use crate::compat::pylog::{Level, Log};
use crate::control::client::ask;
use crate::control::message::{Answer, Question, Signalled};
use crate::json_text::json_text;
use crate::machine::System;
use crate::machine::run::Call;
use openstack_client::http::{Client, Method, Request, Trust, without_secrets};

/// Exit code: the agent keeps the signal and sends it when it reaches its server.
pub const EXIT_KEPT: u8 = 69;

/// A copy of what Nova says about this instance.
const NOVA_META: &str = "/var/lib/heat-cfntools/nova_meta.json";
const NOVA_META_URL: &str = "/openstack/2012-08-10/meta_data.json";
const NOVA_META_BYTES_MAX: u64 = 1 << 20;

/// How long to keep trying. A signal that is lost lets a stack wait for its timeout.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// How often to try at most.
    pub attempts_max: u32,
    /// Pause after the first attempt; it doubles from there.
    pub pause_first: Duration,
    /// Longest pause.
    pub pause_max: Duration,
}

impl Default for Patience {
    /// About three minutes beside the attempts themselves.
    fn default() -> Self {
        Self {
            attempts_max: 11,
            pause_first: Duration::from_millis(500),
            pause_max: Duration::from_secs(30),
        }
    }
}

/// Signals a wait condition.
#[derive(Debug, Parser)]
#[command(name = "cfn-signal", version, infer_long_args = true)]
struct Cli {
    /// Signal status to report: true, or anything else for a failure
    #[arg(short, long, default_value = "true", allow_hyphen_values = true)]
    success: String,
    /// The reason for the failure
    #[arg(short, long, default_value = "Configuration Complete")]
    reason: String,
    /// The data to send
    #[arg(short, long, default_value = "Application has completed configuration.")]
    data: String,
    /// The unique id to send back to the WaitCondition [default: this instance's id]
    #[arg(short = 'i', long = "id")]
    unique_id: Option<String>,
    /// The exit code from a process to interpret; it wins over --success
    #[arg(short, long, allow_negative_numbers = true)]
    exit_code: Option<String>,
    /// Deprecated: use --exit-code
    #[arg(long, allow_negative_numbers = true)]
    exit: Option<String>,
    /// Do not check the server's certificate
    #[arg(short = 'k', long)]
    insecure: bool,
    /// The URL to send to
    url: String,
}

/// Runs the command; `arguments` begin with its name.
pub fn main(arguments: &[OsString]) -> ExitCode {
    run(arguments, &System::of_machine(), Patience::default())
}

/// Runs the command on `system`.
pub fn run(arguments: &[OsString], system: &System, patience: Patience) -> ExitCode {
    let cli: Cli = match arguments::parse(arguments) {
        Ok(cli) => cli,
        Err(exit) => return exit,
    };
    let mut log = system.log("cfn-signal", Level::Debug, Level::Error);
    if cli.exit.is_some() {
        log.warning("--exit is deprecated, use -e or --exit-code");
    }
    let body = body(&cli, system, &mut log);
    let trust = if cli.insecure { Trust::Everybody } else { Trust::Machine };
    let agent = system.control_socket();
    match send(&Client::new(trust), &cli.url, &body, &agent, patience, &mut log) {
        Ok(Sent::Taken) => ExitCode::SUCCESS,
        Ok(Sent::Kept) => ExitCode::from(EXIT_KEPT),
        Err(error) => {
            log.error(format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn body(cli: &Cli, system: &System, log: &mut Log) -> String {
    let given = |code: &Option<String>| code.clone().filter(|code| !code.is_empty());
    let is_success = match given(&cli.exit_code).or_else(|| given(&cli.exit)) {
        Some(code) => code == "0",
        None => cli.success == "true",
    };
    let id = cli.unique_id.clone().unwrap_or_else(|| {
        log.debug("No id passed from the command line");
        instance_id(system).unwrap_or_else(|error| {
            log.warning(format!("this instance's id is not known: {error:#}"));
            host_name(system)
        })
    });
    log.debug(format!("id: {id}"));
    json_text(&json!({
        "Status": if is_success { "SUCCESS" } else { "FAILURE" },
        "Reason": cli.reason,
        "UniqueId": id,
        "Data": cli.data,
    }))
}

/// Who has the signal.
enum Sent {
    /// The other side, or the server.
    Taken,
    /// The agent.
    Kept,
}

fn send(
    client: &Client,
    url: &str,
    body: &str,
    agent: &Path,
    patience: Patience,
    log: &mut Log,
) -> Result<Sent> {
    let shown = without_secrets(url);
    // Followed, a redirect would turn the signal into a question.
    let request = Request::new(Method::Put, url).body(body).redirects_max(0);
    let mut pause = patience.pause_first;
    let mut attempt = 1;
    let mut refused = String::new();
    let mut is_kept = false;
    loop {
        let (failure, is_final) = match client.send(&request) {
            Ok(response) if response.is_success() => {
                log.info(format!("{shown} has taken the signal"));
                return Ok(Sent::Taken);
            }
            Ok(response) => {
                let status = response.status;
                let is_final = status < 500 && !matches!(status, 408 | 429);
                (anyhow!("{shown} answered with status {status}"), is_final)
            }
            Err(error) => {
                if error.is_transient() && refused.is_empty() && !is_kept {
                    match hand_over(agent, url, body, log) {
                        Some(Ok(Sent::Taken)) => return Ok(Sent::Taken),
                        // Its server may be away for long: our own way is tried on.
                        Some(Ok(Sent::Kept)) => is_kept = true,
                        Some(Err(why)) => {
                            log.error(&why);
                            refused = format!("; {why}");
                        }
                        None => {}
                    }
                }
                (anyhow!("{error}"), !error.is_transient())
            }
        };
        if is_final {
            bail!("the signal was not taken: {failure}{refused}");
        }
        if attempt >= patience.attempts_max {
            if is_kept {
                log.error(format!(
                    "{failure}; the agent sends the signal when it reaches its server"
                ));
                return Ok(Sent::Kept);
            }
            bail!("the signal was not taken after {attempt} attempts: {failure}{refused}");
        }
        log.warning(format!("attempt {attempt}: {failure}; the next one in {pause:?}"));
        std::thread::sleep(pause);
        pause = (pause * 2).min(patience.pause_max);
        attempt += 1;
    }
}

/// Asks the running agent to have its server send the signal; `None`: there is none to be asked now.
fn hand_over(agent: &Path, url: &str, body: &str, log: &mut Log) -> Option<Result<Sent, String>> {
    let question = Question::Signal { url: url.to_owned(), body: body.to_owned() };
    match ask(agent, &question) {
        Ok(Answer::Signal(Signalled::Stored)) => {
            log.info("the agent's server has taken the signal, and sends it");
            Some(Ok(Sent::Taken))
        }
        Ok(Answer::Signal(Signalled::Kept)) => {
            log.warning("the agent keeps the signal, and sends it when it reaches its server");
            Some(Ok(Sent::Kept))
        }
        Ok(Answer::Refused(refusal)) => Some(Err(format!("the agent: {}", refusal.text))),
        Ok(other) => Some(Err(format!("the agent answered another question: {other:?}"))),
        Err(error) => {
            log.debug(format!("no agent to be asked at {}: {error}", agent.display()));
            None
        }
    }
}

/// Nova's id of this instance, from the copy or from the metadata service.
fn instance_id(system: &System) -> Result<String> {
    let copy = system.at(NOVA_META);
    if let Ok(bytes) = certs::file::read_public(&copy, NOVA_META_BYTES_MAX)
        && let Ok(id) = uuid(&bytes)
    {
        return Ok(id);
    }
    let url = format!("{}{NOVA_META_URL}", system.metadata_service());
    let request = Request::get(url).response_bytes_max(NOVA_META_BYTES_MAX);
    let response = Client::default().send(&request)?;
    if !response.is_success() {
        bail!("the metadata service answered with status {}", response.status);
    }
    let id = uuid(&response.body)?;
    // Without the copy the next call asks again.
    let _ = keep(&copy, &response.body);
    Ok(id)
}

fn uuid(bytes: &[u8]) -> Result<String> {
    let value: Value = serde_json::from_slice(bytes).context("Nova's metadata is no JSON")?;
    let uuid = value.get("uuid").and_then(Value::as_str);
    uuid.map(str::to_owned).ok_or_else(|| anyhow!("Nova's metadata has no uuid"))
}

fn keep(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(directory) = path.parent() {
        make_private(directory)?;
    }
    Ok(write_atomic(path, bytes, PRIVATE_FILE_MODE)?)
}

/// The full name of this host, as far as it knows it.
fn host_name(system: &System) -> String {
    let full = Call::new(["hostname", "-f"]).run(system).ok().filter(|ran| ran.is_success());
    let full = full.map(|ran| ran.stdout.trim().to_owned()).filter(|name| !name.is_empty());
    full.unwrap_or_else(|| {
        std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
    })
}

#[cfg(test)]
mod tests;
