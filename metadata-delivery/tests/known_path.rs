//! A session that begins with what the one before it has learned of the path.

use std::time::Duration;

use dtls_channel::testing::{Link, LinkConfig};
use metadata_delivery::testing::{
    End::{Agent, Server},
    Pair, bottleneck, document, name,
};
use metadata_delivery::{KNOWN_PATH_LIFE, KnownPath, SessionConfig};

const LIMIT: Duration = Duration::from_secs(120);
const ROUND_TRIP: Duration = Duration::from_millis(50);
const BYTES: usize = 64 << 10;

fn connected(seed: u64, link: &LinkConfig) -> Pair {
    let config = SessionConfig { initial_rtt: ROUND_TRIP, ..SessionConfig::default() };
    let mut pair = Pair::with(seed, link.clone(), [config.clone(), config]);
    pair.run_for(Duration::from_secs(1));
    pair
}

/// How long a document takes until its sender knows that it is stored.
fn push(pair: &mut Pair, version: u64) -> Duration {
    let began = pair.now;
    pair.offer(Server, document("metadata", version, BYTES));
    pair.run_until(LIMIT, |pair| pair.is_stored(Server, &name("metadata"), version));
    let took = pair.now - began;
    pair.run_for(Duration::from_secs(1));
    took
}

/// A new connection a moment later; `link`: over another path.
fn reconnected(
    pair: &mut Pair,
    after: Duration,
    link: Option<(&LinkConfig, Duration)>,
    used: bool,
) {
    pair.run_for(Duration::from_secs(1));
    let known: [Option<KnownPath>; 2] =
        pair.sides.each_ref().map(|side| side.session.known_path(pair.now));
    pair.run_for(after);
    pair.reconnect();
    // What the handshake measures.
    let mut round_trip = ROUND_TRIP;
    if let Some((link, measured)) = link {
        round_trip = measured;
        pair.links = [Link::new(91, link.clone()), Link::new(92, link.clone())];
    }
    let now = pair.now;
    for (side, known) in pair.sides.iter_mut().zip(known) {
        let begin = |known: KnownPath| side.session.begin_on(now, &known, Some(round_trip));
        assert_eq!(known.map(begin), Some(used));
    }
    pair.run_for(Duration::from_secs(1));
}

#[test]
fn a_second_connection_takes_no_more_round_trips_than_the_first_took_in_the_end() {
    let mut pair = connected(3, &bottleneck(0.0));
    let first = push(&mut pair, 1);
    let warm = push(&mut pair, 2);
    reconnected(&mut pair, Duration::ZERO, None, true);
    let second = push(&mut pair, 3);
    let lost = pair.links[1].stats().overflowed;
    println!("first {first:?}, later {warm:?}, after a reconnect {second:?}, {lost} overflowed");
    let round_trips = |took: Duration| took.as_micros().div_ceil(ROUND_TRIP.as_micros());
    assert!(round_trips(second) <= round_trips(warm) && warm < first, "{second:?}, {warm:?}");
    assert_eq!(lost, 0);
}

#[test]
fn a_path_known_to_lose_nothing_is_not_sent_copies() {
    let mut pair = connected(4, &bottleneck(0.0));
    for version in 1..=3 {
        push(&mut pair, version);
    }
    reconnected(&mut pair, Duration::ZERO, None, true);
    push(&mut pair, 4);
    assert_eq!(pair.side(Server).session.stats().data_bytes_resent, 0);
}

#[test]
fn with_losses_a_second_connection_is_as_fast_as_the_first_became() {
    for loss in [0.1, 0.3] {
        let [mut first, mut warm, mut second] = [Duration::ZERO; 3];
        for seed in 0..60 {
            let mut pair = connected(seed, &bottleneck(loss));
            first += push(&mut pair, 1);
            warm += push(&mut pair, 2);
            let mut pair = connected(seed, &bottleneck(loss));
            push(&mut pair, 1);
            reconnected(&mut pair, Duration::ZERO, None, true);
            second += push(&mut pair, 2);
        }
        println!("{loss}: {:?} first, {:?} later, {:?} second", first / 60, warm / 60, second / 60);
        // Sixty runs tell a tenth from chance.
        assert!(second <= warm * 11 / 10, "{loss}: {warm:?}, {second:?}");
    }
}

#[test]
fn a_path_that_has_become_narrow_is_not_flooded() {
    // A tenth of the rate, a queue of a tenth: the round trip is the same.
    let narrow =
        LinkConfig { rate_bytes_per_s: Some(250_000), queue_bytes: 12_500, ..bottleneck(0.0) };
    let fresh = {
        let mut pair = connected(5, &narrow);
        (push(&mut pair, 1), pair.links[1].stats().overflowed)
    };
    let mut pair = connected(5, &bottleneck(0.0));
    push(&mut pair, 1);
    push(&mut pair, 2);
    reconnected(&mut pair, Duration::ZERO, Some((&narrow, ROUND_TRIP)), true);
    let (took, overflowed) = (push(&mut pair, 3), pair.links[1].stats().overflowed);
    println!("fresh {fresh:?}, known {took:?}, {overflowed} overflowed");
    // One window is what it may cost, once.
    assert!(overflowed <= 128, "{overflowed}");
    assert!(took <= fresh.0 * 2, "{took:?}");
    let later = push(&mut pair, 4);
    assert!(later <= fresh.0 * 3 / 2, "{later:?}");
}

#[test]
fn another_path_and_one_of_long_ago_are_begun_anew() {
    let mut pair = connected(6, &bottleneck(0.0));
    push(&mut pair, 1);
    let far = LinkConfig { delay: Duration::from_millis(100), ..bottleneck(0.0) };
    reconnected(&mut pair, Duration::ZERO, Some((&far, ROUND_TRIP * 4)), false);
    let mut pair = connected(6, &bottleneck(0.0));
    let first = push(&mut pair, 1);
    reconnected(&mut pair, KNOWN_PATH_LIFE, None, false);
    let second = push(&mut pair, 2);
    assert!(second.abs_diff(first) < Duration::from_millis(5), "{first:?}, {second:?}");
    let window = pair.side(Agent).session.stats().window_bytes;
    assert_eq!(window, 10 * 1150);
}
