//! Our engine against every other DTLS 1.2 implementation we can get hold of, in both roles: each
//! suite, three datagram sizes, with and without a bad network between; and the features that a
//! peer shares with us.
//!
//! ```text
//! cargo test -p system-tests --test interop                     everything; checks docs/interop.md
//! cargo test -p system-tests --test interop -- pion/server      cases whose names contain this
//! cargo test -p system-tests --test interop -- --list
//! INTEROP_DOC=write cargo test -p system-tests --test interop   writes the table in docs/interop.md
//! ```
//!
//! The peers are programs of ours around foreign libraries (`tests/interop`), and this program
//! itself around foreign crates (`rust_peers`). `INTEROP_JOBS` cases run at a time;
//! `INTEROP_SEED` makes other losses.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod cases;
mod exceptions;
mod meeting;
mod peers;
mod report;
mod rust_peers;

use std::collections::{BTreeMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use cases::Case;
use peers::Peer;

/// Cases at a time: nearly all they do is wait for timers.
const JOBS_DEFAULT: usize = 16;

/// What became of a case.
#[derive(Debug)]
enum Outcome {
    Passed,
    /// Passed though [`exceptions`] has it.
    PassedUnexpectedly(&'static str),
    /// Failed as [`exceptions`] has it.
    Excused(&'static str),
    Failed(String),
}

#[derive(Debug)]
struct Tried {
    case: Case,
    outcome: Outcome,
    took: Duration,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some((rust_peers::ARGUMENT, peer)) =
        arguments.split_first().map(|(first, rest)| (first.as_str(), rest))
    {
        return rust_peers::main(peer);
    }
    let filters: Vec<&String> = arguments.iter().filter(|a| !a.starts_with('-')).collect();
    let wanted =
        |case: &Case| filters.is_empty() || filters.iter().any(|f| case.name().contains(*f));
    if arguments.iter().any(|argument| argument == "--list") {
        cases::all(peers::ALL)
            .iter()
            .filter(|c| wanted(c))
            .for_each(|c| println!("{}: test", c.name()));
        return ExitCode::SUCCESS;
    }

    let start = Instant::now();
    let missing = peers::build();
    println!("peers built in {:.0} s", start.elapsed().as_secs_f64());
    let mut failed = 0;
    let mut skipped = 0;
    let mut versions = BTreeMap::new();
    let mut present: Vec<&'static Peer> = Vec::new();
    for peer in peers::ALL {
        match missing.get(peer.name) {
            None => {
                let version = peer.version();
                println!("  {:<12} {version}", peer.name);
                versions.insert(peer.name, version);
                present.push(peer);
            }
            Some(peers::Missing::Failed(why)) => {
                println!("FAIL  {}: could not be built, so nothing was tested\n{why}", peer.name);
                failed += 1;
            }
            Some(peers::Missing::Skipped(why)) => {
                println!("SKIP  {}: {why}", peer.name);
                skipped += 1;
            }
        }
    }

    let start = Instant::now();
    let mut queue: Vec<Case> = cases::all(present).into_iter().filter(wanted).collect();
    queue.sort_by_key(Case::is_quick);
    let results = run_all(queue.into());
    let took = start.elapsed();

    let (mut passed, mut excused) = (0, BTreeMap::<_, Vec<_>>::new());
    for result in &results {
        let name = result.case.name();
        match &result.outcome {
            Outcome::Passed => passed += 1,
            Outcome::PassedUnexpectedly(reason) => {
                println!("PASS  {name}, though it need not: {reason}");
                passed += 1;
            }
            Outcome::Excused(reason) => excused.entry(*reason).or_default().push(name),
            Outcome::Failed(why) => {
                println!("FAIL  {name} after {:.1} s: {why}\n", result.took.as_secs_f64());
                failed += 1;
            }
        }
    }
    for (reason, names) in &excused {
        println!("EXCUSED  {} cases: {reason}", names.len());
        names.iter().for_each(|name| println!("    {name}"));
        skipped += names.len();
    }
    println!("{}", report::slowest(&results));
    if filters.is_empty()
        && failed == 0
        && let Err(why) = report::check(&results, &versions)
    {
        println!("FAIL  {why}");
        failed += 1;
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "test result: {verdict}. {passed} passed; {failed} failed; {skipped} ignored; \
         finished in {:.1}s",
        took.as_secs_f64()
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_all(queue: VecDeque<Case>) -> Vec<Tried> {
    let jobs = std::env::var("INTEROP_JOBS").map_or(JOBS_DEFAULT, |n| n.parse().unwrap());
    let (queue, results) = (Mutex::new(queue), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let Some(case) = queue.lock().unwrap().pop_front() else { return };
                    let start = Instant::now();
                    let outcome = run(&case);
                    let took = start.elapsed();
                    results.lock().unwrap().push(Tried { case, outcome, took });
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap();
    results.sort_by_key(|result| result.case.name());
    results
}

fn run(case: &Case) -> Outcome {
    let run = std::panic::catch_unwind(AssertUnwindSafe(|| case.run()));
    let run = run.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(text.unwrap_or("it panicked").to_owned())
    });
    match (run, exceptions::reason(case)) {
        (Ok(()), None) => Outcome::Passed,
        (Ok(()), Some(reason)) => Outcome::PassedUnexpectedly(reason),
        (Err(_), Some(reason)) => Outcome::Excused(reason),
        (Err(why), None) => Outcome::Failed(why),
    }
}
