//! Many runs of the model check (`testing::model`), on all processors. A seed that fails is printed, and the program
//! goes on; `--from SEED --runs 1` replays it.
//!
//! ```text
//! cargo run --release -p metadata-delivery --features testing --example model_check -- [--runs N] [--from SEED]
//! ```

use std::panic::catch_unwind;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use metadata_delivery::testing::model::{self, Covered};

/// Runs between two lines that say how far it is.
const TOLD_EVERY: u64 = 5_000;

fn options(mut arguments: impl Iterator<Item = String>) -> Option<(u64, u64)> {
    let (mut from, mut runs) = (0, 100_000);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--from" => from = arguments.next()?.parse().ok()?,
            "--runs" => runs = arguments.next()?.parse().ok()?,
            _ => return None,
        }
    }
    Some((from, runs))
}

fn main() -> ExitCode {
    let Some((from, runs)) = options(std::env::args().skip(1)) else {
        eprintln!("usage: model_check [--runs N] [--from SEED]");
        return ExitCode::from(64);
    };
    let began = Instant::now();
    let next = AtomicU64::new(0);
    let failed = Mutex::new(Vec::new());
    let all = Mutex::new(Covered::default());
    let work = || {
        let mut covered = Covered::default();
        loop {
            let nth = next.fetch_add(1, Ordering::Relaxed);
            if nth >= runs {
                break;
            }
            match catch_unwind(|| model::run(from + nth)) {
                Ok(run) => covered.add(&run),
                Err(_) => failed.lock().unwrap_or_else(|e| e.into_inner()).push(from + nth),
            }
            if (nth + 1).is_multiple_of(TOLD_EVERY) {
                eprintln!("{} runs, {:.0} s", nth + 1, began.elapsed().as_secs_f64());
            }
        }
        all.lock().unwrap_or_else(|e| e.into_inner()).add(&covered);
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let failed = failed.into_inner().unwrap_or_else(|e| e.into_inner());
    let all = all.into_inner().unwrap_or_else(|e| e.into_inner());
    println!("{runs} runs from seed {from}, {} failed: {failed:?}\n{all:#?}", failed.len());
    println!("{:.0} s", began.elapsed().as_secs_f64());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
