//! What the programs of the old names cost, beside the Python originals: time and memory of a start of
//! each, and of one whole cycle (20 templates, 10 deployments).
//!
//! ```text
//! cargo build --release -p agent-client
//! tests/originals/setup && .cache/originals/bin/pip install boto==2.49.0 \
//!     salt==3007.9 tornado jmespath msgpack jinja2 looseversion psutil distro pyzmq pycryptodomex croniter
//! cargo run --release -p channel-benches --bin agent_programs [RUNS]
//! ```
//!
//! Both sides do the same work on the same files, in alternation, so that a busy neighbour troubles both
//! alike. Memory is the largest process of those that a command started. The cfn tools want boto, which runs
//! with no Python after 3.11, and `hook-salt` wants Salt, which is large, so they are not installed with the
//! other originals.

#![expect(clippy::expect_used, reason = "a measurement that cannot be made has failed")]

mod command;
mod cycle;
mod fixture;

use std::process::ExitCode;
use std::time::Duration;

use channel_benches::cpu::median;
use command::{Cost, MEASURE, measure};
use fixture::{Fixture, Side};

const RUNS_DEFAULT: usize = 21;

/// What a side's runs of one command cost.
#[derive(Default)]
struct Costs {
    wall: Vec<Duration>,
    cpu: Vec<Duration>,
    memory_kib: u64,
}

impl Costs {
    fn add(&mut self, cost: Cost) {
        self.wall.push(cost.wall);
        self.cpu.push(cost.cpu);
        self.memory_kib = self.memory_kib.max(cost.memory_kib);
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let first = arguments.next();
    if first.as_ref().is_some_and(|first| first == MEASURE) {
        return measure(arguments);
    }
    let runs = match first.map(|text| text.to_str().and_then(|text| text.parse().ok())) {
        None => RUNS_DEFAULT,
        Some(Some(runs @ 1..)) => runs,
        Some(_) => {
            eprintln!("usage: agent_programs [RUNS], at least 1; {RUNS_DEFAULT} unless given");
            return ExitCode::from(64);
        }
    };
    let fixture = Fixture::new();
    println!("{runs} runs of each side in alternation, medians; memory: the largest of all.\n");
    println!("| command | ms | | ms CPU | | MiB | |");
    println!("|---|---|---|---|---|---|---|");
    println!("| | agent-client | Python | agent-client | Python | agent-client | Python |");
    for row in fixture::starts().into_iter().chain([cycle::row()]) {
        let mut costs = [Costs::default(), Costs::default()];
        // One round beforehand fills the caches of both.
        for round in 0..=runs {
            for (side, costs) in Side::BOTH.into_iter().zip(&mut costs) {
                fixture.reset(side);
                let cost = fixture.command(side, &row).cost();
                if round > 0 {
                    costs.add(cost);
                }
            }
        }
        cycle::check(&fixture, &row);
        show(row.title, costs);
    }
    ExitCode::SUCCESS
}

fn show(title: &str, [ours, original]: [Costs; 2]) {
    let ms = |samples| format!("{:.1}", median(samples).as_secs_f64() * 1e3);
    let mib = |kib: u64| kib.div_ceil(1024);
    println!(
        "| {title} | {} | {} | {} | {} | {} | {} |",
        ms(ours.wall),
        ms(original.wall),
        ms(ours.cpu),
        ms(original.cpu),
        mib(ours.memory_kib),
        mib(original.memory_kib),
    );
}
