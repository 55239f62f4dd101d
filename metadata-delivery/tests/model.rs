//! Random schedules against a naive reference, and the committed corpus.

#![allow(clippy::expect_used, reason = "a corpus that cannot be read fails the test")]

use std::path::Path;

use metadata_delivery::testing::fuzz;
use proptest::collection::vec;

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config {
        cases: 500,
        failure_persistence: None,
        ..proptest::test_runner::Config::default()
    })]

    #[test]
    fn any_schedule_delivers_each_newest_version_once(schedule in vec(0u8.., 0..600)) {
        fuzz::operations(&schedule);
    }

    #[test]
    fn any_bytes_are_survived(packets in vec(0u8.., 0..2000)) {
        fuzz::packets(&packets);
    }

    #[test]
    fn any_bytes_are_a_log_within_the_bounds_or_none(
        bytes in vec(0u8.., 0..200),
        text in "\\PC{0,40}",
        position in 0u64..,
    ) {
        fuzz::logs(&bytes);
        let text = serde_json::Value::from(text);
        let piece = format!(
            r#"{{"config_id":{text},"name":{text},"run":1,"started_unix_ms":2,"from":7,"to":{position},"text":{text}}}"#
        );
        fuzz::logs(format!(r#"{{"request":1,"runs":[{piece},{piece}]}}"#).as_bytes());
    }

    #[test]
    fn any_form_is_the_document_or_nothing(form in vec(0u8.., 0..2000)) {
        fuzz::forms(&form);
    }

    #[test]
    fn any_symbols_in_any_order_are_the_document_or_nothing(symbols in vec(0u8.., 0..400)) {
        fuzz::repairs(&symbols);
    }
}

#[test]
fn the_corpus_of_logs_is_within_the_bounds_and_reads_the_same_again() {
    assert!(replay("logs", fuzz::logs) > 0);
}

/// Runs every file of a corpus and returns how many there were.
fn replay(corpus: &str, body: fn(&[u8])) -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz-corpus").join(corpus);
    let files = std::fs::read_dir(&folder).expect("the corpus is there");
    let mut count = 0;
    for file in files {
        let path = file.expect("a readable folder").path();
        println!("{}", path.display());
        body(&std::fs::read(&path).expect("a readable file"));
        count += 1;
    }
    count
}

#[test]
fn the_corpus_of_packets_is_survived() {
    assert!(replay("packets", fuzz::packets) > 0);
}

#[test]
fn the_corpus_of_schedules_is_delivered() {
    assert!(replay("operations", fuzz::operations) > 0);
}

#[test]
fn the_corpus_of_forms_is_the_document_or_nothing() {
    assert!(replay("forms", fuzz::forms) > 0);
}

#[test]
fn the_corpus_of_symbols_is_the_document_or_nothing() {
    assert!(replay("repairs", fuzz::repairs) > 0);
}
