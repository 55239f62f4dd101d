//! The command `swarm`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow};
use certs::file::ensure_private_directory;
use certs::{AgentId, Fingerprint, PinSet};
use clap::Args;
use serde_json::{Value, json};

use super::fleet::Plan;
use super::{AGENTS_MAX, keys, shell};
use crate::config::parse_duration;
use crate::exit::{Abort, Exit};
use crate::hooks::proc::boot_id;
use crate::link::core::Patience;
use crate::lock::Lock;
use crate::pipeline::unix_ms;

/// Addresses that may be named.
const LOCALS_MAX: u32 = 1 << 16;

/// What the command takes.
#[derive(Debug, Args)]
pub struct SwarmArgs {
    /// How many agents
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(AGENTS_MAX)))]
    agents: u32,
    /// Where the agents' keys and documents are kept; a second run has the same agents
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The server; without it keys and pins are made, and nothing else
    #[arg(long, value_name = "HOST:PORT", requires = "pin")]
    server: Option<String>,
    /// The server's fingerprint: "metadata-server keys list" shows it
    #[arg(long, value_name = "FINGERPRINT")]
    pin: Option<Fingerprint>,
    /// What the agents' ids begin with; six digits follow
    #[arg(long, value_name = "PREFIX", default_value = "swarm-")]
    name: String,
    /// Agents that begin to connect per second
    #[arg(long, value_name = "NUMBER", default_value_t = 500.0, value_parser = rate)]
    rate: f64,
    /// Silence after which an agent sends a sign of life
    #[arg(long, value_name = "TIME", default_value = "8s", value_parser = time)]
    keep_alive: Duration,
    /// How long the server may leave something unanswered until it counts as lost
    #[arg(long, value_name = "TIME", default_value = "12s", value_parser = time)]
    peer_timeout: Duration,
    /// Longest pause between attempts to reach the server
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = time)]
    reconnect_max: Duration,
    /// Addresses that agents send from, in turn: A,B,… or, of IPv4, FIRST-LAST; one has some 28,000 ports
    #[arg(long, value_name = "LIST")]
    local: Option<String>,
    /// Answer each deployment that is new to an agent with a result
    #[arg(long)]
    results: bool,
    /// Confirm documents before they are on the disk
    #[arg(long)]
    no_sync: bool,
    /// End after this time; otherwise at SIGINT or SIGTERM
    #[arg(long = "for", value_name = "TIME", value_parser = time)]
    time: Option<Duration>,
    /// A line of JSON on standard output each second, and the summary as the last
    #[arg(long)]
    json: bool,
}

fn time(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text).filter(|time| !time.is_zero());
    time.ok_or_else(|| "must be a time like 500ms, 30s, 5m or 1h".into())
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (0.1..=1e6).contains(rate));
    rate.ok_or_else(|| "must be a number from 0.1 to 1000000".into())
}

/// Makes the keys, or runs the swarm.
///
/// # Errors
/// Nothing can be kept in the directory, no server has that name, or the system lacks files or ports.
pub fn execute(args: &SwarmArgs) -> Result<Exit, Abort> {
    let usage = |text: String| Abort::new(Exit::Usage, anyhow!(text));
    super::fleet::agent_id(&args.name, AGENTS_MAX as usize)
        .parse::<AgentId>()
        .map_err(|e| usage(format!("--name {:?}: {e}", args.name)))?;
    let locals = args.local.as_deref().map_or(Ok(Vec::new()), locals).map_err(usage)?;
    ensure_private_directory(&args.dir).map_err(|e| Abort::new(Exit::Config, e))?;
    let _lock = Lock::take(&args.dir).map_err(|e| Abort::new(Exit::Failed, e))?;
    let (keys, new) = keys::load_or_make(&args.dir, &args.name, args.agents)
        .map_err(|e| Abort::new(Exit::Config, e))?;
    let pins_file = args.dir.join(keys::PINS_FILE);
    let (Some(server), Some(pin)) = (&args.server, args.pin) else {
        let summary = json!({ "agents": keys.len(), "new_keys": new, "pins_file": pins_file });
        if args.json {
            println!("{summary}");
        } else {
            println!("{} agents, {new} of them new; pins: {}", keys.len(), pins_file.display());
            eprintln!("next: metadata-server pins import {}", pins_file.display());
        }
        return Ok(Exit::Ok);
    };
    let address = resolve(server, locals.first())
        .map_err(|e| Abort::new(Exit::Unreachable, e).hint("give --server as HOST:PORT"))?;
    let plan = Plan {
        name: args.name.clone(),
        server: server.clone(),
        pins: PinSet::new(pin),
        boot_id: boot_id(),
        rate: args.rate,
        keep_alive: args.keep_alive,
        peer_timeout: args.peer_timeout,
        patience: Patience { pause_max: args.reconnect_max, ..Patience::default() },
        results: args.results,
        seed: unix_ms() ^ u64::from(std::process::id()) << 40,
    };
    let run = shell::Run {
        directory: &args.dir,
        server: address,
        locals,
        sync: !args.no_sync,
        time: args.time,
        json: args.json,
    };
    let mut summary = shell::run(&run, plan, keys)?;
    if let Some(fields) = summary.as_object_mut() {
        fields.insert("cpu".into(), shell::cpu());
        fields.insert("event".into(), Value::from("summary"));
        fields.insert("schema".into(), Value::from(1));
    }
    shell::tell(&summary, args.json).context("writing the summary")?;
    let whole = summary["in_sync"] == summary["agents"];
    Ok(if whole { Exit::Ok } else { Exit::Degraded })
}

fn resolve(server: &str, local: Option<&IpAddr>) -> anyhow::Result<SocketAddr> {
    let mut all = server.to_socket_addrs().with_context(|| format!("the server {server:?}"))?;
    all.find(|address| local.is_none_or(|local| local.is_ipv4() == address.is_ipv4()))
        .with_context(|| format!("the server {server:?} has no address of the right family"))
}

/// Addresses in a list, `FIRST-LAST` being all between them.
fn locals(list: &str) -> Result<Vec<IpAddr>, String> {
    let one = |text: &str| {
        text.trim().parse::<IpAddr>().map_err(|e| format!("--local: {:?}: {e}", text.trim()))
    };
    let mut all = Vec::new();
    for part in list.split(',') {
        match part.split_once('-') {
            None => all.push(one(part)?),
            Some((first, last)) => match (one(first)?, one(last)?) {
                (IpAddr::V4(first), IpAddr::V4(last))
                    if first <= last && u32::from(last) - u32::from(first) < LOCALS_MAX =>
                {
                    let range = u32::from(first)..=u32::from(last);
                    all.extend(range.map(|address| IpAddr::V4(Ipv4Addr::from(address))));
                }
                _ => return Err(format!("--local: {part:?} is no range of IPv4 addresses")),
            },
        }
    }
    if all.iter().any(|address| address.is_ipv4() != all.first().is_some_and(IpAddr::is_ipv4)) {
        return Err("--local: addresses of both families; a server has one".into());
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_a_list_or_a_range() {
        let texts =
            |list| -> Vec<String> { locals(list).unwrap().iter().map(IpAddr::to_string).collect() };
        assert_eq!(texts("127.0.0.1"), ["127.0.0.1"]);
        assert_eq!(texts("127.0.0.255-127.0.1.1,10.0.0.1").len(), 4);
        assert_eq!(texts("::1, ::2"), ["::1", "::2"]);
        for bad in ["", "x", "127.0.0.2-127.0.0.1", "::1-::2", "127.0.0.1,::1", "0.0.0.0-9.0.0.0"] {
            assert!(locals(bad).is_err(), "{bad}");
        }
    }
}
