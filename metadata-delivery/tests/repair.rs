//! The end of a transfer on links that lose packets: nobody waits for a round trip.

use std::time::Duration;

use dtls_channel::testing::LinkConfig;
use metadata_delivery::SessionConfig;
use metadata_delivery::testing::{
    End::{Agent, Server},
    Pair, bottleneck, document, name,
};

const LIMIT: Duration = Duration::from_secs(60);
const MS: Duration = Duration::from_millis(1);

/// Bytes of documents, and of repair, that the server has sent.
fn sent(pair: &mut Pair) -> u64 {
    let stats = pair.side(Server).session.stats();
    stats.data_bytes_sent + stats.repair_bytes_sent
}

/// Sends a document on a connection that has carried twenty of 1 KiB; answers with how long it took to arrive, and
/// how many bytes.
fn in_use(seed: u64, link: &LinkConfig, bytes: usize) -> (Duration, u64, Pair) {
    let config = SessionConfig { initial_rtt: 50 * MS, ..SessionConfig::default() };
    let mut pair = Pair::with(seed, link.clone(), [config.clone(), config]);
    for version in 1..=20 {
        pair.offer(Server, document("metadata", version, 1 << 10));
        pair.run_until(LIMIT, |pair| pair.is_stored(Server, &name("metadata"), version));
        pair.run_for(Duration::from_secs(1));
    }
    let (began, before) = (pair.now, sent(&mut pair));
    pair.offer(Server, document("metadata", 21, bytes));
    pair.run_until(LIMIT, |pair| pair.received(Agent).contains(&(name("metadata"), 21)));
    let took = pair.now - began;
    pair.run_for(Duration::from_secs(1));
    (took, sent(&mut pair) - before, pair)
}

/// How long nine of ten take at most.
fn nine_of_ten(link: &LinkConfig, bytes: usize) -> Duration {
    let mut times: Vec<Duration> = (0..30).map(|seed| in_use(seed, link, bytes).0).collect();
    times.sort_unstable();
    println!("{bytes} bytes, {:.0} % lost: {:?}", link.loss * 100.0, times[26]);
    times[26]
}

#[test]
fn a_clean_path_costs_a_first_small_document_twice_its_packets_and_a_later_one_none() {
    let config = SessionConfig { initial_rtt: 50 * MS, ..SessionConfig::default() };
    let mut pair = Pair::with(1, bottleneck(0.0), [config.clone(), config]);
    pair.run_for(Duration::from_secs(1));
    let packets = |pair: &mut Pair, version| {
        let before = pair.data_packets[1];
        pair.offer(Server, document("metadata", version, 4 << 10));
        pair.run_for(Duration::from_secs(1));
        pair.data_packets[1] - before
    };
    let sent: Vec<u64> = (1..=11).map(|version| packets(&mut pair, version)).collect();
    assert!(sent[0] <= 8 && sent[10] == 4, "{sent:?}");
}

#[test]
fn a_small_document_arrives_with_its_first_flight_whatever_is_lost_of_it() {
    for burst in [None, Some(4.0)] {
        for loss in [0.1, 0.2, 0.3] {
            let link = LinkConfig { loss_burst: burst, ..bottleneck(loss) };
            // A flight takes half a round trip, the next one comes a whole one later at the earliest.
            assert!(nine_of_ten(&link, 4 << 10) < 50 * MS, "{loss}");
        }
    }
}

#[test]
fn one_of_sixty_four_kibibytes_takes_hardly_a_round_trip_more_than_without_loss() {
    let lossless = in_use(0, &bottleneck(0.0), 64 << 10).0;
    for loss in [0.1, 0.2] {
        let took = nine_of_ten(&bottleneck(loss), 64 << 10);
        assert!(took < lossless + 60 * MS, "{loss}: {took:?}, {lossless:?} without loss");
    }
}

#[test]
fn repair_takes_fewer_bytes_than_copies_did() {
    let bytes = 64 << 10;
    let sent: u64 = (0..10).map(|seed| in_use(seed, &bottleneck(0.1), bytes as usize).1).sum();
    println!("{:.2} times its size", sent as f64 / (10 * bytes) as f64);
    // Copies of all that the last flight carries made it 1.9.
    assert!(sent < 10 * bytes * 8 / 5, "{sent}");
}

#[test]
fn a_path_that_loses_nothing_costs_no_symbol() {
    let (_, sent, mut pair) = in_use(1, &bottleneck(0.0), 64 << 10);
    assert_eq!(sent, 64 << 10);
    let repairs = |pair: &mut Pair| pair.side(Server).session.stats().repair_bytes_sent;
    let before = repairs(&mut pair);
    for version in 22..=60 {
        pair.offer(Server, document("metadata", version, 4 << 10));
        pair.run_until(LIMIT, |pair| pair.is_stored(Server, &name("metadata"), version));
    }
    assert_eq!(repairs(&mut pair), before);
    assert_eq!(pair.side(Agent).session.stats().documents_repaired, 0);
}
