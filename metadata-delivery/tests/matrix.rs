//! Every size at every loss, both ways at once, with reordering and duplicates.

use std::time::Duration;

use metadata_delivery::SessionConfig;
use metadata_delivery::testing::{
    End::Agent, End::Server, Pair, bottleneck, document, lossy, name,
};

const LIMIT: Duration = Duration::from_secs(300);

/// Sends a document of `size` from the server at this loss each way. Returns the virtual time it
/// took until the server knew that it was stored.
fn push(size: usize, loss: f64, seed: u64) -> Duration {
    // The handshake below has taken about two round trips, so both ends have an idea.
    let config =
        SessionConfig { initial_rtt: Duration::from_millis(75), ..SessionConfig::default() };
    let mut pair = Pair::with(seed, lossy(loss), [config.clone(), config]);
    pair.offer(Server, document("metadata", 1, size));
    let metadata = name("metadata");
    pair.run_until(LIMIT, |pair| pair.is_stored(Server, &metadata, 1));
    assert_eq!(pair.received(Agent), [(metadata, 1)]);
    let stats = pair.side(Server).session.stats();
    if size >= 1 << 20 {
        println!(
            "{size} bytes, loss {:.0} %: {:.3} s of virtual time, {} packets, {} bytes resent",
            loss * 100.0,
            pair.elapsed().as_secs_f64(),
            pair.packets[1],
            stats.data_bytes_resent,
        );
    }
    pair.elapsed()
}

fn every_loss(size: usize, seeds: u64) {
    for loss in [0.0, 0.1, 0.3] {
        let mut times: Vec<Duration> = (0..seeds).map(|seed| push(size, loss, seed)).collect();
        times.sort();
        let last = times.len() - 1;
        println!(
            "{size} bytes, loss {:.0} %: median {} ms, slowest of {seeds} {} ms",
            loss * 100.0,
            times[last / 2].as_millis(),
            times[last].as_millis(),
        );
    }
}

#[test]
fn one_byte_arrives_at_any_loss() {
    every_loss(1, 100);
}

#[test]
fn one_kibibyte_arrives_at_any_loss() {
    every_loss(1 << 10, 100);
}

#[test]
fn sixty_four_kibibytes_arrive_at_any_loss() {
    every_loss(64 << 10, 20);
}

#[test]
fn one_mebibyte_arrives_at_any_loss() {
    every_loss(1 << 20, 3);
}

#[test]
fn sixteen_mebibytes_arrive_without_loss() {
    push(16 << 20, 0.0, 1);
}

#[test]
fn sixteen_mebibytes_arrive_at_ten_percent_loss() {
    push(16 << 20, 0.1, 1);
}

#[test]
fn sixteen_mebibytes_arrive_at_thirty_percent_loss() {
    push(16 << 20, 0.3, 1);
}

#[test]
fn an_empty_document_arrives() {
    push(0, 0.3, 1);
}

/// Loosely asserted: tests/figures.rs has the figures.
#[test]
fn a_bottleneck_is_neither_flooded_nor_left_idle() {
    for loss in [0.0, 0.1, 0.3] {
        let mut pair = Pair::new(7, bottleneck(loss));
        pair.offer(Server, document("metadata", 1, 4 << 20));
        let metadata = name("metadata");
        pair.run_until(LIMIT, |pair| pair.is_stored(Server, &metadata, 1));
        let share =
            (4u32 << 20) as f64 / (2_500_000.0 * (1.0 - loss)) / pair.elapsed().as_secs_f64();
        let link = pair.links[1].stats();
        println!(
            "4 MiB over 20 Mbit/s, 50 ms, loss {:.0} %: {:.2} s, {:.0} % of rate × (1 − loss), {} of {} overflowed",
            loss * 100.0,
            pair.elapsed().as_secs_f64(),
            share * 100.0,
            link.overflowed,
            link.pushed,
        );
        assert!(share > 0.3, "loss {loss}: only {share:.2} of the rate");
        assert!(link.overflowed * 5 < link.pushed, "loss {loss}: {link:?}");
    }
}
