//! Documents in the background keep no other waiting, over links that are slow or lose much.

use std::time::Duration;

use dtls_channel::testing::LinkConfig;
use metadata_delivery::testing::{
    End::{Agent, Server},
    Pair, document, lossy, name,
};
use metadata_delivery::{BACKGROUND_PACKETS_MAX, SessionConfig};

const LIMIT: Duration = Duration::from_secs(120);
/// Bytes a second of a slow path.
const RATE: u64 = 125_000;
const LOG_BYTES: usize = 32 << 10;

/// 1 Mbit/s, with a queue that holds half a second of it.
fn slow() -> LinkConfig {
    LinkConfig {
        delay: Duration::from_millis(25),
        rate_bytes_per_s: Some(RATE),
        queue_bytes: 62_500,
        ..LinkConfig::default()
    }
}

/// How long a result and a push take, one after the other. `ahead`: how long before each a log began to be sent,
/// if one did; it ends when it may.
fn durations(bytes: usize, ahead: Option<Duration>) -> [Duration; 2] {
    let mut pair = Pair::new(7, slow());
    // The path is known by then.
    pair.offer(Agent, document("result/first", 1, 100_000));
    pair.offer(Server, document("metadata", 1, 100_000));
    pair.run_until(LIMIT, |pair| {
        pair.is_stored(Agent, &name("result/first"), 1)
            && pair.is_stored(Server, &name("metadata"), 1)
    });
    let mut log = 0;
    let mut timed = |end, offered: &str| {
        pair.run_for(Duration::from_secs(2));
        if let Some(ahead) = ahead {
            log += 1;
            pair.offer_background(Agent, document("log", log, LOG_BYTES));
            pair.run_for(ahead);
            assert!(!pair.is_stored(Agent, &name("log"), log), "it is under way");
        }
        let began = pair.now;
        pair.offer(end, document(offered, 2, bytes));
        pair.run_until(LIMIT, |pair| pair.is_stored(end, &name(offered), 2));
        let took = pair.now - began;
        if log > 0 {
            pair.run_until(LIMIT, |pair| pair.is_stored(Agent, &name("log"), log));
        }
        took
    };
    [timed(Agent, "result/second"), timed(Server, "metadata")]
}

#[test]
fn a_result_or_a_push_waits_for_four_packets_of_a_log_at_most() {
    let packet = SessionConfig::default().payload_max as u64;
    let packets = BACKGROUND_PACKETS_MAX as u64 * packet * 1_000_000 / RATE;
    // And for what rounding, timers of a millisecond and an acknowledgement beside them come to.
    let bound = Duration::from_micros(packets) + Duration::from_millis(5);
    for bytes in [500, 20_000, 300_000] {
        let alone = durations(bytes, None);
        for ahead_ms in [0, 1, 10, 30, 60, 100, 150] {
            let beside = durations(bytes, Some(Duration::from_millis(ahead_ms)));
            println!("{bytes} bytes, log {ahead_ms} ms ahead: {alone:?} alone, {beside:?} beside");
            for (alone, beside) in alone.into_iter().zip(beside) {
                assert!(beside <= alone + bound, "{alone:?} alone, {beside:?} beside");
            }
        }
    }
}

#[test]
fn a_log_gets_through_on_a_path_that_loses_every_third_packet() {
    for seed in 0..20 {
        let mut pair = Pair::new(seed, lossy(0.3));
        for version in 1..=5 {
            pair.offer_background(Agent, document("log", version, LOG_BYTES));
            pair.run_until(LIMIT, |pair| pair.is_stored(Agent, &name("log"), version));
        }
        println!("seed {seed}: {:?} each", pair.elapsed() / 5);
    }
}

#[test]
fn a_log_that_is_not_taken_in_time_is_replaced_and_costs_about_one() {
    let cost = |versions: u64| {
        let mut pair = Pair::new(3, slow());
        pair.run_for(Duration::from_secs(1));
        for version in 1..=versions {
            pair.offer_background(Agent, document("log", version, LOG_BYTES));
            pair.run_for(Duration::from_millis(5));
        }
        pair.run_until(LIMIT, |pair| pair.is_stored(Agent, &name("log"), versions));
        pair.links[0].stats().pushed_bytes
    };
    let (one, ten) = (cost(1), cost(10));
    assert!(ten < one * 3 / 2, "one costs {one} bytes, ten cost {ten}");
}
