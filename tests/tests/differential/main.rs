//! The same scripts with our engine, OpenSSL and dimpl in either role: what one pair of them does,
//! every pair must do, unless `docs/differential.md` says why not.
//!
//! `DIFFERENTIAL_SCRIPTS=5000 cargo test -p system-tests --test differential` runs more of them;
//! `DIFFERENTIAL_SEED=N` begins elsewhere, `DIFFERENTIAL_DIMPL_EVERY=1` runs all with dimpl,
//! `DIFFERENTIAL_TRACE=1` shows every datagram. Everything runs on a virtual clock.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod compare;
mod dimpl_peer;
mod model;
mod old_peers;
mod openssl;
mod ours;
mod peer;
mod run;
mod script;
mod wire;

use compare::{Report, not_applicable};
use peer::Kind;
use run::{World, run};
use script::Script;

/// Unless the environment says otherwise.
const SCRIPTS: u64 = 300;
/// Only every so many scripts run with dimpl too: its cryptography is slow where it is not
/// optimised.
const DIMPL_EVERY: u64 = 4;

const PAIRS: [[Kind; 2]; 8] = [
    [Kind::Ours, Kind::OpenSsl],
    [Kind::OpenSsl, Kind::Ours],
    [Kind::OpenSsl, Kind::OpenSsl],
    [Kind::Ours, Kind::Dimpl],
    [Kind::Dimpl, Kind::Ours],
    [Kind::Dimpl, Kind::Dimpl],
    [Kind::OpenSsl, Kind::Dimpl],
    [Kind::Dimpl, Kind::OpenSsl],
];

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

#[test]
fn every_pair_of_implementations_ends_every_script_alike() {
    let world = World::new();
    let first = setting("DIFFERENTIAL_SEED").unwrap_or(1);
    let count = setting("DIFFERENTIAL_SCRIPTS").unwrap_or(SCRIPTS);
    let mut report = Report::default();
    let dimpl_every = setting("DIFFERENTIAL_DIMPL_EVERY").unwrap_or(DIMPL_EVERY);
    eprintln!("scripts {first} to {}", first + count - 1);
    for seed in first..first + count {
        let script = Script::new(seed);
        let reference = run(&world, &script, [Kind::Ours; 2]);
        report.add_reference(&script, &reference);
        for kinds in PAIRS {
            if kinds.contains(&Kind::Dimpl) && seed % dimpl_every != 0 {
                continue;
            }
            if let Some(why) = not_applicable(&script, kinds) {
                *report.not_applicable.entry(why).or_default() += 1;
                continue;
            }
            report.add(&script, kinds, &reference, &run(&world, &script, kinds));
        }
    }
    eprintln!(
        "{} runs, {} opened, {} messages\nnot applicable: {:?}\nknown differences: {:?}",
        report.runs, report.opened, report.messages, report.not_applicable, report.known
    );
    assert!(report.unexplained.is_empty(), "unexplained:\n{}", report.unexplained.join("\n"));
    // That nothing opened, or nothing was said, would be no agreement.
    assert!(report.opened * 2 > report.runs && report.messages > report.runs, "{report:?}");
    let documented = include_str!("../../../docs/differential.md");
    for name in report.not_applicable.keys().chain(report.known.keys()) {
        assert!(documented.contains(&format!("| `{name}` |")), "{name} is not documented");
    }
}
