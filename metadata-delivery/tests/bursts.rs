//! Losses in bursts, which take whole windows and the acknowledgements with them.

use std::time::Duration;

use dtls_channel::testing::LinkConfig;
use metadata_delivery::SessionConfig;
use metadata_delivery::testing::{
    End::{Agent, Server},
    Pair, bottleneck, document, name,
};

const LIMIT: Duration = Duration::from_secs(120);
const MS: Duration = Duration::from_millis(1);
const RUNS: u64 = 100;

/// How long a document takes to arrive on a connection that has carried `earlier` small ones.
fn push(seed: u64, loss: f64, earlier: u64, bytes: usize) -> Duration {
    let link = LinkConfig { loss_burst: Some(4.0), ..bottleneck(loss) };
    let config = SessionConfig { initial_rtt: 50 * MS, ..SessionConfig::default() };
    let mut pair = Pair::with(seed, link, [config.clone(), config]);
    pair.run_for(Duration::from_secs(1));
    let metadata = name("metadata");
    for version in 1..=earlier {
        pair.offer(Server, document("metadata", version, 1 << 10));
        pair.run_until(LIMIT, |pair| pair.is_stored(Server, &metadata, version));
        pair.run_for(Duration::from_secs(1));
    }
    let began = pair.now;
    pair.offer(Server, document("metadata", earlier + 1, bytes));
    pair.run_until(LIMIT, |pair| pair.received(Agent).contains(&(metadata.clone(), earlier + 1)));
    pair.now - began
}

/// How long all but three of a hundred take at most.
fn most(loss: f64, earlier: u64, bytes: usize) -> Duration {
    let mut times: Vec<Duration> = (0..RUNS).map(|seed| push(seed, loss, earlier, bytes)).collect();
    times.sort_unstable();
    println!("{loss}, {earlier} before: {:?}", &times[90..]);
    times[96]
}

#[test]
fn on_a_fresh_connection_a_document_does_not_wait_for_what_was_silent_before_it() {
    let lossless = push(0, 0.0, 0, 64 << 10);
    let took = most(0.3, 0, 64 << 10);
    assert!(took < lossless * 3, "{took:?}, {lossless:?} without loss");
}

#[test]
fn a_burst_costs_a_small_document_a_round_trip_and_not_much_more() {
    // Without knowing better, and on a path that is taken for clean.
    for earlier in [0, 20] {
        let lossless = push(0, 0.0, earlier, 4 << 10);
        let took = most(0.2, earlier, 4 << 10);
        assert!(took < lossless + 57 * MS, "{took:?}, {lossless:?} without loss");
    }
}
