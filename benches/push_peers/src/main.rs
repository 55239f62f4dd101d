//! Pushes with `metadata-server` and `agent-client` beside os-collect-config, mosquitto and etcd; `run` in
//! this directory fetches, builds and starts it. Tables on stdout, progress on stderr.
//!
//! | module | holds |
//! |---|---|
//! | `latency` | one agent: from the accepted document to the hook's start |
//! | `fanout` | many agents: CPU of the servers, until the last agent has it durably |
//! | `growth`, `losses`, `plot` | how cost grows with agents and bytes, and time with loss: plots |
//! | `fleets`, `client`, `durable` | those agents: ours by `agent-client swarm`, the peers' here |
//! | `peers` | mosquitto and etcd as processes |
//! | `occ` | os-collect-config as processes, and what it polls |
//! | `mqtt`, `etcd`, `tls` | as much of their protocols as a push takes |
//! | `hook`, `figures`, `cpu` | what a push starts; samples; CPU time of processes |

mod client;
mod cpu;
mod durable;
mod etcd;
mod fanout;
mod figures;
mod fleets;
mod growth;
mod hook;
mod latency;
mod losses;
mod mqtt;
mod occ;
mod peers;
mod plot;
mod tls;

use std::process::ExitCode;

/// Where the peers' documents are.
const TOPIC: &str = "metadata/vm";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.split_first() {
        Some((what, rest)) if what == "latency" => latency::run(rest),
        Some((what, rest)) if what == "fanout" => fanout::run(rest),
        Some((what, [])) if what == "growth" => growth::run(),
        Some((what, [])) if what == "losses" => losses::run(),
        // What the peers' agents are.
        Some((what, rest)) if what == "client" => client::run(rest),
        _ => {
            eprintln!("push_peers: see benches/push_peers/run --help");
            return ExitCode::from(64);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("push_peers: {error:#}");
            ExitCode::FAILURE
        }
    }
}
