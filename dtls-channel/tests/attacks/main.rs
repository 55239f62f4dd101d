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
use std::path::Path;

const PAGE: &str = include_str!("../../../docs/attacks.md");

/// The names of all such tests, here and in the files that some subjects have of their own.
fn tests() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let source = std::fs::read_to_string(path).unwrap();
                names.extend(source.lines().filter_map(name).map(str::to_owned));
            }
        }
    }
    names
}

/// The name of the test that begins in this line.
fn name(line: &str) -> Option<&str> {
    let line = line.trim_start_matches("async ");
    line.strip_prefix("fn attack_")?;
    line.strip_prefix("fn ")?.split('(').next()
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
            named.insert(test.to_owned());
        }
    }
    assert_eq!(named, tests());
}
