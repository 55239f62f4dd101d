//! The figures of docs/benchmarks.md that must not be lost: 20 Mbit/s, a round trip of 50 ms, a queue of one
//! bandwidth-delay product, packets lost each way. All on a virtual clock; each run follows from
//! its seed.

use std::time::Duration;

use dtls_channel::testing::LinkConfig;
use metadata_delivery::SessionConfig;
use metadata_delivery::testing::{End::Server, Pair, bottleneck, document, name};

const LIMIT: Duration = Duration::from_secs(120);

fn pair(seed: u64, link: LinkConfig) -> Pair {
    // The handshake below has measured the round trip.
    let config =
        SessionConfig { initial_rtt: Duration::from_millis(50), ..SessionConfig::default() };
    Pair::with(seed, link, [config.clone(), config])
}

/// Sends a document; answers with how long it took until the server knew that it is stored.
fn push(pair: &mut Pair, version: u64, bytes: usize) -> Duration {
    let began = pair.now;
    pair.offer(Server, document("metadata", version, bytes));
    pair.run_until(LIMIT, |pair| pair.is_stored(Server, &name("metadata"), version));
    pair.now - began
}

/// The first document on sessions that have just met, and one on sessions that have exchanged some.
fn fresh_and_in_use(seed: u64, link: &LinkConfig, bytes: usize) -> [Duration; 2] {
    let mut fresh = pair(seed, link.clone());
    fresh.run_for(Duration::from_secs(1));
    let mut in_use = pair(seed, link.clone());
    for version in 1..=20 {
        push(&mut in_use, version, 1 << 10);
        in_use.run_for(Duration::from_secs(1));
    }
    [push(&mut fresh, 1, bytes), push(&mut in_use, 21, bytes)]
}

/// How many times as long as without loss the slowest but one of sixty takes.
fn slow_over_lossless(bytes: usize, loss: f64, burst: Option<f64>) -> [f64; 2] {
    let base = fresh_and_in_use(0, &bottleneck(0.0), bytes);
    let link = LinkConfig { loss_burst: burst, ..bottleneck(loss) };
    let runs: Vec<[Duration; 2]> =
        (0..60).map(|seed| fresh_and_in_use(seed, &link, bytes)).collect();
    [0, 1].map(|past| {
        let mut times: Vec<Duration> = runs.iter().map(|run| run[past]).collect();
        times.sort_unstable();
        let ratio = times[58].as_secs_f64() / base[past].as_secs_f64();
        let what = ["first document", "in use"][past];
        println!("{bytes} bytes, {:.0} % lost, {what}: {ratio:.1}", loss * 100.0);
        ratio
    })
}

#[test]
fn the_end_of_a_small_document_does_not_wait_for_round_trips() {
    for (loss, most) in [(0.1, 3.0), (0.2, 4.0), (0.3, 6.0)] {
        let ratios = slow_over_lossless(4 << 10, loss, None);
        assert!(ratios.iter().all(|ratio| *ratio <= most), "{loss}: {ratios:?}");
    }
}

#[test]
fn nor_does_that_of_one_of_sixty_four_kibibytes() {
    for (loss, most) in [(0.1, 2.0), (0.2, 3.0), (0.3, 4.0)] {
        let ratios = slow_over_lossless(64 << 10, loss, None);
        assert!(ratios.iter().all(|ratio| *ratio <= most), "{loss}: {ratios:?}");
    }
}

#[test]
fn losses_in_bursts_hold_small_documents_up_for_seconds_at_most() {
    let ratios = slow_over_lossless(4 << 10, 0.3, Some(4.0));
    // With timeouts alone it took 16 s, which is 300 times as long as without loss.
    assert!(ratios.iter().all(|ratio| *ratio <= 40.0), "{ratios:?}");
}

#[test]
fn random_loss_costs_a_large_document_what_is_lost_and_little_more() {
    let bytes = 8 << 20;
    for (loss, least) in [(0.0, 0.85), (0.1, 0.8), (0.3, 0.75)] {
        let mut pair = pair(7, bottleneck(loss));
        let took = push(&mut pair, 1, bytes).as_secs_f64();
        let share = bytes as f64 / (2_500_000.0 * (1.0 - loss)) / took;
        let link = pair.links[1].stats();
        println!("loss {loss}: {share:.2} of what the path lets through, {link:?}");
        assert!(share >= least, "loss {loss}: {share:.2}");
        assert!(link.overflowed * 40 < link.pushed, "loss {loss}: {link:?}");
    }
}

#[test]
fn on_a_path_that_loses_nothing_the_repeating_ends() {
    let mut pair = pair(1, bottleneck(0.0));
    let resent = |pair: &mut Pair| pair.side(Server).session.stats().data_bytes_resent;
    for version in 1..=60 {
        push(&mut pair, version, 1 << 10);
    }
    let before = resent(&mut pair);
    assert!(before > 0, "a path is suspect at first");
    for version in 61..=160 {
        push(&mut pair, version, 4 << 10);
    }
    assert_eq!(resent(&mut pair), before);
}
