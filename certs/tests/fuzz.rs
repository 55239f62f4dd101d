//! The committed corpus, and random inputs, through what the fuzzer runs (docs/fuzzing.md).

use std::path::Path;

use certs::testing::fuzz;

#[test]
fn the_corpus_of_enrolment_keeps_the_rules() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz-corpus/enrolment");
    let mut files: Vec<_> = folder.read_dir().unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "an empty corpus proves nothing");
    for path in files {
        println!("{}", path.display());
        fuzz::enrolment(&std::fs::read(&path).unwrap());
    }
}

proptest::proptest! {
    #[test]
    fn any_text_keeps_the_rules(kind in 0u8..6, text in "[ -~]{0,200}") {
        fuzz::enrolment(&[&[kind], text.as_bytes()].concat());
    }
}
