//! The committed corpus, and random inputs, through what the fuzzer runs (docs/fuzzing.md).

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::path::Path;

use dtls_channel::testing::fuzz;
use proptest::collection::vec;

/// Runs every file of a corpus, and every input that a fuzzer would begin with.
fn replay(target: &str, body: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz-corpus").join(target);
    let mut files: Vec<_> = folder.read_dir().unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "an empty corpus proves nothing");
    for path in files {
        println!("{}", path.display());
        body(&std::fs::read(&path).unwrap());
    }
    let seeds = fuzz::seeds::all().into_iter().find(|(name, _)| *name == target).unwrap().1;
    for (name, input) in seeds {
        println!("seed {name}");
        body(&input);
    }
}

macro_rules! targets {
    ($($target:ident, $random:ident, $cases:literal;)*) => {
        $(
            #[test]
            fn $target() {
                replay(stringify!($target), fuzz::$target);
            }
        )*

        $(
            proptest::proptest! {
                #![proptest_config(proptest::test_runner::Config {
                    cases: $cases,
                    failure_persistence: None,
                    ..proptest::test_runner::Config::default()
                })]

                #[test]
                fn $random(input in vec(0u8.., 0..400)) {
                    fuzz::$target(&input);
                }
            }
        )*
    };
}

targets! {
    association, any_script_of_an_association_keeps_the_rules, 60;
    certificate, any_certificate_keeps_the_rules, 300;
    endpoint, any_script_of_an_endpoint_keeps_the_rules, 60;
    handshake, any_handshake_message_keeps_the_rules, 2_000;
    reassembly, any_fragments_keep_the_rules, 500;
    record, any_records_keep_the_rules, 500;
    session, any_stored_session_keeps_the_rules, 2_000;
}
