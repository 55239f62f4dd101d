//! Congestion marks over links that set them, and over links that do with them what they should not.

use std::time::Duration;

use dtls_channel::testing::{LinkConfig, Mangle};
use metadata_delivery::testing::End::{Agent, Server};
use metadata_delivery::testing::{Pair, bottleneck, document, name};
use metadata_delivery::{SessionConfig, Stats};

const LIMIT: Duration = Duration::from_secs(120);
const LARGE: usize = 16 << 20;
const RATE: f64 = 2_500_000.0;
/// Half of the bottleneck's queue, which holds a bandwidth-delay product.
const HALF: usize = 62_500;

fn config(ecn: bool) -> SessionConfig {
    SessionConfig { ecn, initial_rtt: Duration::from_millis(50), ..SessionConfig::default() }
}

struct Outcome {
    /// Document bytes per second, of what the bottleneck carries.
    goodput: f64,
    server: Stats,
    /// The longest the queue was, and its mean, in bytes.
    queue_max: usize,
    queue_mean: f64,
    /// The longest it was from the second second on.
    settled_max: usize,
    dropped: u64,
    congested: u64,
}

/// Pushes a document over this link, its server's side at least.
fn push(link: LinkConfig, ecn: [bool; 2], size: usize) -> Outcome {
    let mut pair = Pair::with(1, link, ecn.map(config));
    // Both have heard of each other when it begins.
    pair.offer(Agent, document("hello", 1, 100));
    pair.run_until(LIMIT, |pair| pair.is_stored(Agent, &name("hello"), 1));
    let began = pair.now;
    pair.offer(Server, document("metadata", 1, size));
    let (mut queue, mut looks, mut queue_max, mut settled_max) = (0, 0u32, 0, 0);
    while !pair.is_stored(Server, &name("metadata"), 1) {
        pair.run_for(Duration::from_millis(1));
        let waiting = pair.links[Server as usize].queued_bytes(pair.now);
        queue_max = queue_max.max(waiting);
        if pair.now - began > Duration::from_secs(1) {
            settled_max = settled_max.max(waiting);
        }
        (queue, looks) = (queue + waiting, looks + 1);
        assert!(pair.now - began < LIMIT, "{:?}", pair.sides[1].session.stats());
    }
    let took = (pair.now - began).as_secs_f64();
    let stats = pair.links[Server as usize].stats();
    let outcome = Outcome {
        goodput: size as f64 / took / RATE,
        server: pair.sides[1].session.stats(),
        queue_max,
        queue_mean: queue as f64 / f64::from(looks),
        settled_max,
        dropped: stats.overflowed,
        congested: stats.congested,
    };
    println!(
        "goodput {:.3}, queue mean {:.0}, most {}, later {}, dropped {}, marked {}; {:?}",
        outcome.goodput,
        outcome.queue_mean,
        outcome.queue_max,
        outcome.settled_max,
        outcome.dropped,
        outcome.congested,
        outcome.server
    );
    outcome
}

fn marking(above: usize) -> LinkConfig {
    LinkConfig { mark_above_bytes: Some(above), ..bottleneck(0.0) }
}

fn mangling(mangle: Mangle) -> LinkConfig {
    LinkConfig { mangle, ..bottleneck(0.0) }
}

#[test]
fn on_a_queue_that_marks_nothing_is_lost_where_without_marks_one_packet_in_ten_is() {
    const ABOVE: usize = HALF / 2;
    let marked = push(marking(ABOVE), [true, true], LARGE);
    let dropped = push(marking(ABOVE), [false, false], LARGE);
    assert!(dropped.server.packets_lost > 1_000 && dropped.server.packets_marked == 0);
    assert_eq!(marked.server.packets_lost, 0);
    assert!(marked.server.congestion_told > 0 && marked.congested > 0);
    assert!(marked.goodput > 0.9, "{}", marked.goodput);
    assert!(marked.queue_mean < ABOVE as f64, "{}", marked.queue_mean);
    assert!(marked.settled_max < ABOVE + ABOVE / 2, "{}", marked.settled_max);
}

#[test]
fn a_queue_that_marks_at_half_of_its_room_is_not_filled_after_slow_start() {
    let marked = push(marking(HALF), [true, true], LARGE);
    let dropped = push(marking(HALF), [false, false], LARGE);
    // What slow start sends in the round trip until it hears of the first mark.
    assert!(marked.server.packets_lost * 5 < dropped.server.packets_lost);
    assert!(marked.goodput > 0.9, "{}", marked.goodput);
    assert!(marked.queue_mean < HALF as f64 / 2.0, "{}", marked.queue_mean);
    assert!(marked.settled_max < HALF, "{}", marked.settled_max);
}

#[test]
fn a_path_that_bleaches_marks_drops_what_has_them_or_calls_it_all_congested_costs_ten_packets_at_most()
 {
    let sound = push(mangling(Mangle::Nothing), [true, true], LARGE);
    assert!(sound.server.ecn_capable && sound.server.packets_marked > 10_000);
    for mangle in [Mangle::Bleach, Mangle::Drop, Mangle::Congest] {
        for size in [4 << 10, LARGE] {
            let outcome = push(mangling(mangle), [true, true], size);
            let stats = outcome.server;
            assert!(!stats.ecn_capable && stats.packets_marked <= 10, "{mangle:?}: {stats:?}");
            assert_eq!(stats.congestion_told, 0, "{mangle:?}");
            let beyond = stats.packets_lost.saturating_sub(outcome.dropped);
            assert!(beyond <= 10, "{mangle:?}: {beyond} lost besides those that found no room");
            // A small document takes two round trips at most: what is repeated has no marks.
            let enough = if size == LARGE { 0.9 } else { size as f64 / RATE / 0.1 };
            assert!(outcome.goodput > enough, "{mangle:?}: {} of {size}", outcome.goodput);
        }
    }
}

#[test]
fn a_path_that_turns_bad_halfway_is_noticed_and_nothing_is_lost_for_good() {
    for mangle in [Mangle::Bleach, Mangle::Drop] {
        let mut pair = Pair::with(2, bottleneck(0.0), [config(true), config(true)]);
        pair.offer(Server, document("metadata", 1, 4 << 20));
        pair.run_for(Duration::from_secs(1));
        assert!(pair.side(Server).session.stats().ecn_capable);
        pair.links[Server as usize].reconfigure(mangling(mangle));
        pair.run_until(Duration::from_secs(4), |pair| pair.is_stored(Server, &name("metadata"), 1));
        let stats = pair.side(Server).session.stats();
        assert!(!stats.ecn_capable, "{mangle:?}: {stats:?}");
    }
}

#[test]
fn whoever_marks_all_packets_of_an_honest_path_slows_it_to_the_smallest_window_and_no_further() {
    let mut pair = Pair::with(3, bottleneck(0.0), [config(true), config(true)]);
    pair.offer(Server, document("metadata", 1, 4 << 20));
    pair.run_for(Duration::from_secs(1));
    pair.links[Server as usize].reconfigure(mangling(Mangle::Congest));
    pair.run_for(Duration::from_secs(3));
    let stats = pair.side(Server).session.stats();
    let lost = stats.packets_lost;
    assert!(stats.congestion_told > 0 && stats.window_bytes <= 9 * 1_150, "{stats:?}");
    // Eight packets in each round trip of 50 ms.
    pair.run_until(Duration::from_secs(20), |pair| pair.is_stored(Server, &name("metadata"), 1));
    assert_eq!(pair.side(Server).session.stats().packets_lost, lost);
}

#[test]
fn another_path_is_tested_anew() {
    let mut pair = Pair::with(4, mangling(Mangle::Bleach), [config(true), config(true)]);
    pair.offer(Server, document("metadata", 1, 1 << 20));
    pair.run_for(Duration::from_millis(500));
    assert!(!pair.side(Server).session.stats().ecn_capable);
    pair.links.iter_mut().for_each(|link| link.reconfigure(bottleneck(0.0)));
    let now = pair.now;
    pair.side(Server).session.path_changed(now);
    pair.run_until(LIMIT, |pair| pair.is_stored(Server, &name("metadata"), 1));
    let stats = pair.side(Server).session.stats();
    assert!(stats.ecn_capable && stats.packets_marked > 100, "{stats:?}");
}

#[test]
fn a_peer_that_knows_nothing_of_marks_is_served_as_ever_both_ways() {
    for ecn in [[true, false], [false, true]] {
        let outcome = push(bottleneck(0.0), ecn, 1 << 20);
        assert_eq!(outcome.server.packets_marked, 0);
        let mut pair = Pair::with(5, bottleneck(0.0), ecn.map(config));
        pair.offer(Agent, document("result", 1, 1 << 20));
        pair.run_until(LIMIT, |pair| pair.is_stored(Agent, &name("result"), 1));
        for side in &pair.sides {
            let stats = side.session.stats();
            assert_eq!((stats.packets_marked, stats.packets_congested), (0, 0));
        }
    }
}

#[test]
fn random_loss_is_no_reason_to_mark_no_more() {
    for loss in [0.1, 0.3] {
        let outcome = push(bottleneck(loss), [true, true], 4 << 20);
        assert!(outcome.server.ecn_capable, "{:?}", outcome.server);
    }
}
