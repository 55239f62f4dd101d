//! The attacks and bugs that other DTLS implementations suffered from, row by row of
//! `docs/attacks.md`: hand-built datagrams against an endpoint, on sockets where the row needs them.
//! Each test is named for its row, and looks at the outcome and at what was counted.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

#[path = "../common/mod.rs"]
mod common;
mod stage;

mod agreement;
mod door;
mod forged;
mod fragments;
mod proofs;
mod records;
mod sessions;
mod sockets;
mod timers;
mod truncated;

use std::collections::BTreeSet;

/// Every file with such tests in it; some subjects have files of their own.
const SOURCES: [&str; 12] = [
    include_str!("../fairness.rs"),
    include_str!("../resumption.rs"),
    include_str!("agreement.rs"),
    include_str!("door.rs"),
    include_str!("forged.rs"),
    include_str!("fragments.rs"),
    include_str!("proofs.rs"),
    include_str!("records.rs"),
    include_str!("sessions.rs"),
    include_str!("sockets.rs"),
    include_str!("timers.rs"),
    include_str!("truncated.rs"),
];
const PAGE: &str = include_str!("../../../docs/attacks.md");

/// The names of all tests here.
fn tests() -> BTreeSet<&'static str> {
    let lines = SOURCES.iter().flat_map(|source| source.lines());
    lines
        .filter_map(|line| {
            let line = line.trim_start_matches("async ");
            line.strip_prefix("fn attack_")?;
            line.strip_prefix("fn ")?.split('(').next()
        })
        .collect()
}

/// The rows that a test's name begins with: `attack_11_and_12_…`.
fn rows(test: &str) -> Vec<u32> {
    let words = test.split('_').skip(1).filter(|word| *word != "and");
    words.map_while(|word| word.parse().ok()).collect()
}

#[test]
fn every_row_of_the_list_has_a_test() {
    let covered: BTreeSet<u32> = tests().iter().flat_map(|test| rows(test)).collect();
    assert_eq!(covered, (1..=32).collect());
}

#[test]
fn the_page_names_every_test_in_its_row_and_none_that_does_not_exist() {
    let mut named = BTreeSet::new();
    for line in PAGE.lines().filter(|line| line.starts_with("| ")) {
        let row: Option<u32> = line.split('|').nth(1).and_then(|n| n.trim().parse().ok());
        for test in line.split('`').filter(|word| word.starts_with("attack_")) {
            assert!(row.is_some_and(|row| rows(test).contains(&row)), "{test} in row {row:?}");
            named.insert(test);
        }
    }
    assert_eq!(named, tests());
}
