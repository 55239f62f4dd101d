//! How long handshakes take on links that lose datagrams, and how many come to an end at all: ours
//! beside `dimpl` and `webrtc-dtls`, on the same simulated links and a virtual clock. Prints tables
//! in Markdown, progress on standard error.
//!
//! ```text
//! cargo bench -p channel-benches --bench loss_matrix -- [--handshakes N] [--only ENGINE]
//! ```
//!
//! `N` handshakes in each cell (1,000 unless given); only engines whose name begins with `ENGINE`.
//! Handshake `n` of a cell has its links seeded with 2n and 2n + 1, so every engine and every cell
//! meets the same randomness, and a run can be repeated. Without `cargo bench` a cell or two of
//! each engine are run once, to see that they still work.

#![expect(clippy::expect_used, reason = "a measurement that cannot be made has failed")]

mod dimpl_pair;
mod engine;
mod table;
mod webrtc_pair;

use std::process::ExitCode;
use std::time::Duration;

use dtls_channel::testing::LinkConfig;
use engine::Engine;
use table::Cell;

const HANDSHAKES_DEFAULT: u64 = 1_000;
/// Both ends must be open by then.
const LIMIT: Duration = Duration::from_secs(60);
const RTT: Duration = Duration::from_millis(40);
const LOSSES_PERCENT: [u32; 5] = [0, 5, 10, 20, 30];

/// What one table shows: every loss with every engine of a selection.
struct Table {
    title: &'static str,
    round_trip: Duration,
    burst: Option<f64>,
    losses_percent: &'static [u32],
    engines: Vec<Engine>,
}

fn tables() -> Vec<Table> {
    let ours = || vec![Engine::Ours, Engine::OursResumed, Engine::OursWithRfc6347Timers];
    let all = || [ours(), vec![Engine::Dimpl, Engine::DimplForAMinute, Engine::Webrtc]].concat();
    let table = |title, burst, engines| Table {
        title,
        round_trip: RTT,
        burst,
        losses_percent: if burst.is_some() { &LOSSES_PERCENT[1..] } else { &LOSSES_PERCENT },
        engines,
    };
    let elsewhere = |title, ms| Table {
        round_trip: Duration::from_millis(ms),
        ..table(title, None, vec![Engine::Ours])
    };
    vec![
        table("RTT 40 ms, each datagram lost or not on its own", None, all()),
        table("RTT 40 ms, losses in bursts of 3 datagrams in the mean", Some(3.0), all()),
        table("RTT 40 ms, losses in bursts of 8 datagrams in the mean", Some(8.0), all()),
        elsewhere("RTT 5 ms, each datagram on its own", 5),
        elsewhere("RTT 150 ms, each datagram on its own", 150),
        elsewhere("RTT 300 ms, each datagram on its own", 300),
    ]
}

struct Options {
    handshakes: u64,
    only: String,
    /// Not measuring: one table, the first losses.
    smoke: bool,
}

fn options(mut arguments: impl Iterator<Item = String>) -> Option<Options> {
    let mut options = Options { handshakes: HANDSHAKES_DEFAULT, only: String::new(), smoke: true };
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            // What `cargo bench` says, and `cargo test` does not.
            "--bench" => options.smoke = false,
            "--handshakes" => {
                options.handshakes = arguments.next()?.parse().ok().filter(|n| *n > 0)?;
            }
            "--only" => options.only = arguments.next()?,
            _ => return None,
        }
    }
    if options.smoke {
        options.handshakes = 1;
    }
    Some(options)
}

fn main() -> ExitCode {
    let Some(options) = options(std::env::args().skip(1)) else {
        eprintln!("usage: loss_matrix [--handshakes N] [--only ENGINE], N at least 1");
        return ExitCode::from(64);
    };
    let last = options.handshakes - 1;
    println!("{} handshakes a cell, link seeds 0 to {}.", options.handshakes, 2 * last + 1);
    let tables = tables();
    for table in &tables[..if options.smoke { 1 } else { tables.len() }] {
        measure(table, &options);
    }
    ExitCode::SUCCESS
}

fn measure(table: &Table, options: &Options) {
    let chosen = |engine: &&Engine| engine.name().starts_with(&options.only);
    let engines: Vec<&Engine> = table.engines.iter().filter(chosen).collect();
    if engines.is_empty() {
        return;
    }
    table::head(table.title, LIMIT);
    let losses = if options.smoke { &table.losses_percent[..2] } else { table.losses_percent };
    for loss in losses {
        let link = LinkConfig {
            delay: table.round_trip / 2,
            loss: f64::from(*loss) / 100.0,
            loss_burst: table.burst,
            ..LinkConfig::default()
        };
        for (nth, engine) in engines.iter().enumerate() {
            eprintln!("{}: {loss} %, {} …", table.title, engine.name());
            let mut pair = engine.pair();
            let outcomes =
                (0..options.handshakes).map(|n| pair.handshake(n, &link, LIMIT)).collect();
            table::row((nth == 0).then_some(*loss), engine.name(), &Cell::new(outcomes, LIMIT));
        }
    }
}
