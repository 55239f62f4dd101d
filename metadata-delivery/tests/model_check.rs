//! Both ends with their applications, through whatever a seed decides: nothing is lost, stale, duplicated or
//! corrupted. `cargo run --release -p metadata-delivery --features testing --example model_check` runs far more.

use metadata_delivery::testing::model::{self, Covered};

const SEEDS: u64 = 150;

#[test]
fn whatever_happens_every_document_ends_up_where_it_belongs() {
    let mut covered = Covered::default();
    for seed in 0..SEEDS {
        covered.add(&model::run(seed));
    }
    println!("{covered:#?}");
    // Runs in which nothing happens would show nothing.
    let Covered { pushes, applied, refused, results, recognised, sessions, restarts, .. } = covered;
    for (what, count) in [
        ("pushes", pushes / 5),
        ("applied", applied / 3),
        ("refused", refused),
        ("results", results / 5),
        ("recognised", recognised),
        ("sessions", sessions / 2),
        ("restarts", restarts),
        ("moves", covered.moves),
        ("outages", covered.outages),
        ("superseded", covered.superseded),
        ("encoded", covered.encoded / 5),
        ("repaired", covered.repaired),
    ] {
        assert!(count * 4 >= SEEDS, "{what}: {covered:?}");
    }
    assert!(covered.unread > 0);
}
