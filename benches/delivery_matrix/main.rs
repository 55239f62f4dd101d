//! How long documents take on links that lose datagrams: ours beside quinn with its two congestion
//! controllers, a model of TCP and sctp-proto, on the same simulated links and a virtual clock; and what flows that share a
//! bottleneck leave to each other. Prints tables in Markdown, progress on standard error.
//!
//! ```text
//! cargo bench -p channel-benches --bench delivery_matrix -- [--runs N] [--large-runs N] [--only ENGINE] [--tables TEXT] [--sockets]
//! ```
//!
//! `N` documents in each cell (300 unless given), of 16 MiB 3; only engines whose name begins with
//! `ENGINE`, and tables with `TEXT` in their titles. Run `n` of a cell has its links seeded with 2n and 2n + 1, so every engine meets the
//! same randomness. With `--sockets` ours alone, its driver and DTLS included, once more on real sockets through a relay that is
//! such a link: that takes ten minutes for 200 documents a cell. Without `cargo bench` a few cells are run once, to see that they still work.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a measurement that cannot be made has failed"
)]

mod engine;
mod ours;
mod paths;
mod quinn_peer;
mod sctp_peer;
mod share;
mod sockets;
mod table;
mod tcp_peer;
mod tcp_sender;
mod world;

use std::process::ExitCode;
use std::time::Duration;

use dtls_channel::testing::LinkConfig;
use engine::{Engine, LIMIT, Past, measure};
use quinn_peer::Controller;
use table::Cell;

/// Bytes per second of the bottleneck: 20 Mbit/s.
const RATE: u64 = 2_500_000;
const ROUND_TRIP: Duration = Duration::from_millis(50);
/// One bandwidth-delay product.
const QUEUE_BYTES: usize = 125_000;
const LOSSES_PERCENT: [u32; 4] = [0, 10, 20, 30];
/// Datagrams in a burst of losses, in the mean.
const BURST: f64 = 4.0;
/// How long everything is lost, in the mean.
const OUTAGE: Duration = Duration::from_millis(20);
const SMALL: [(&str, usize); 2] = [("4 KiB", 4 << 10), ("64 KiB", 64 << 10)];
const LARGE: usize = 16 << 20;
const ENGINES: [Engine; 5] = [
    Engine::Ours,
    Engine::Quinn(Controller::Cubic),
    Engine::Quinn(Controller::Bbr),
    Engine::Tcp,
    Engine::Sctp,
];

struct Options {
    runs: u64,
    large_runs: u64,
    only: String,
    tables: String,
    /// Real sockets as well, ours alone.
    sockets: bool,
    /// Not measuring: the first cells, once.
    smoke: bool,
}

fn options(mut arguments: impl Iterator<Item = String>) -> Option<Options> {
    let (only, tables) = (String::new(), String::new());
    let mut options =
        Options { runs: 300, large_runs: 3, only, tables, sockets: false, smoke: true };
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            // What `cargo bench` says, and `cargo test` does not.
            "--bench" => options.smoke = false,
            "--runs" => options.runs = arguments.next()?.parse().ok()?,
            "--large-runs" => options.large_runs = arguments.next()?.parse().ok()?,
            "--only" => options.only = arguments.next()?,
            "--tables" => options.tables = arguments.next()?,
            "--sockets" => options.sockets = true,
            _ => return None,
        }
    }
    if options.smoke {
        (options.runs, options.large_runs) = (1, 0);
    }
    Some(options)
}

/// Which datagrams are lost.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Losses {
    Alone,
    Bursts,
    Outages,
}

impl Losses {
    const ALL: [Self; 3] = [Self::Alone, Self::Bursts, Self::Outages];

    fn told(self) -> &'static str {
        match self {
            Self::Alone => "each datagram on its own",
            Self::Bursts => "in bursts of 4",
            Self::Outages => "in outages of 20 ms",
        }
    }
}

fn link(loss_percent: u32, losses: Losses) -> LinkConfig {
    LinkConfig {
        delay: ROUND_TRIP / 2,
        loss: f64::from(loss_percent) / 100.0,
        loss_burst: (losses == Losses::Bursts).then_some(BURST),
        loss_outage: (losses == Losses::Outages).then_some(OUTAGE),
        // The world's own byte.
        mtu: 1_473,
        rate_bytes_per_s: Some(RATE),
        queue_bytes: QUEUE_BYTES,
        ..LinkConfig::default()
    }
}

fn main() -> ExitCode {
    let Some(options) = options(std::env::args().skip(1)) else {
        eprintln!(
            "usage: delivery_matrix [--runs N] [--large-runs N] [--only ENGINE] [--tables TEXT] [--sockets]"
        );
        return ExitCode::from(64);
    };
    let engines: Vec<Engine> =
        ENGINES.into_iter().filter(|engine| engine.name().starts_with(&options.only)).collect();
    if options.sockets {
        over_sockets(&options);
        return ExitCode::SUCCESS;
    }
    println!("{} small and {} large documents a cell.", options.runs, options.large_runs);
    for losses in Losses::ALL {
        for (past, told) in
            [(Past::InUse, "on a connection in use"), (Past::None, "first after the handshake")]
        {
            for (size, bytes) in SMALL {
                let title = format!("{size}, {told}, lost {}", losses.told());
                small(&title, past, losses, bytes, &engines, &options);
            }
        }
        if options.large_runs > 0 && losses != Losses::Outages {
            large(&format!("16 MiB, lost {}", losses.told()), losses, &engines, &options);
        }
        if options.smoke {
            break;
        }
    }
    if share::TITLE.contains(&options.tables) {
        share::tables(&options.only, options.smoke);
    }
    ExitCode::SUCCESS
}

/// Ours on the virtual link, and on real sockets through a relay that is such a link.
fn over_sockets(options: &Options) {
    println!(
        "{} small and {} large documents a cell, side by side.",
        options.runs, options.large_runs
    );
    for losses in [Losses::Alone, Losses::Bursts] {
        // Without loss both are the same.
        let percents = &LOSSES_PERCENT[usize::from(losses != Losses::Alone)..];
        for (past, told) in
            [(Past::InUse, "on a connection in use"), (Past::None, "first after the handshake")]
        {
            for (size, bytes) in SMALL {
                let title = format!("{size}, {told}, lost {}", losses.told());
                if options.runs == 0 || !title.contains(&options.tables) {
                    continue;
                }
                table::head(&title);
                let base = cell(Engine::Ours, past, &link(0, Losses::Alone), bytes, 1);
                for loss in percents {
                    eprintln!("{title}: {loss} % …");
                    let cells = sockets::pair(past, &link(*loss, losses), bytes, options.runs);
                    for (nth, (name, cell)) in sockets::NAMES.iter().zip(&cells).enumerate() {
                        table::row((nth == 0).then_some(*loss), name, cell, &base);
                    }
                }
            }
        }
        let title = format!("16 MiB, lost {}", losses.told());
        if options.large_runs == 0 || !title.contains(&options.tables) {
            continue;
        }
        table::goodput_head(&title);
        for loss in percents {
            eprintln!("{title}: {loss} % …");
            let cells = sockets::pair(Past::None, &link(*loss, losses), LARGE, options.large_runs);
            for (nth, (name, cell)) in sockets::NAMES.iter().zip(&cells).enumerate() {
                table::goodput_row((nth == 0).then_some(*loss), name, cell, fastest(*loss));
            }
        }
    }
}

/// How long a large document takes at the rate of what arrives.
fn fastest(loss_percent: u32) -> Duration {
    let arriving = RATE as f64 * (1.0 - f64::from(loss_percent) / 100.0);
    Duration::from_secs_f64(LARGE as f64 / arriving)
}

/// One cell of small documents.
fn cell(engine: Engine, past: Past, link: &LinkConfig, bytes: usize, runs: u64) -> Cell {
    let times: Vec<_> = (0..runs).map(|seed| measure(engine, past, link, seed, bytes)).collect();
    let slowest = (0..runs).max_by_key(|&n| times[n as usize].delivered.unwrap_or(LIMIT));
    eprintln!("  slowest: run {}", slowest.unwrap_or(0));
    Cell::new(&times)
}

fn small(
    title: &str,
    past: Past,
    losses: Losses,
    bytes: usize,
    engines: &[Engine],
    options: &Options,
) {
    if options.runs == 0 || !title.contains(&options.tables) {
        return;
    }
    table::head(title);
    let base = cell(Engine::Ours, past, &link(0, Losses::Alone), bytes, 1);
    for loss in if options.smoke { &LOSSES_PERCENT[1..2] } else { &LOSSES_PERCENT[..] } {
        for (nth, engine) in engines.iter().enumerate() {
            eprintln!("{title}: {loss} %, {} …", engine.name());
            // Without loss every run is the same.
            let runs = if *loss == 0 { 1 } else { options.runs };
            let cell = cell(*engine, past, &link(*loss, losses), bytes, runs);
            table::row((nth == 0).then_some(*loss), engine.name(), &cell, &base);
        }
    }
}

fn large(title: &str, losses: Losses, engines: &[Engine], options: &Options) {
    if !title.contains(&options.tables) {
        return;
    }
    table::goodput_head(title);
    for loss in LOSSES_PERCENT {
        for (nth, engine) in engines.iter().enumerate() {
            eprintln!("{title}: {loss} %, {} …", engine.name());
            let cell = cell(*engine, Past::None, &link(loss, losses), LARGE, options.large_runs);
            table::goodput_row((nth == 0).then_some(loss), engine.name(), &cell, fastest(loss));
        }
    }
}
