//! How many packets small documents cost, where round trips are short and nothing is lost.

use std::time::Duration;

use dtls_channel::testing::LinkConfig;
use metadata_delivery::testing::{
    End::{Agent, Server},
    Habit, Pair, document, name,
};
use metadata_delivery::{Limits, SessionConfig};

const MS: Duration = Duration::from_millis(1);
const LIMIT: Duration = Duration::from_secs(10);

/// Two sessions right after their handshake, over a path that loses nothing.
fn pair(round_trip: Duration) -> Pair {
    let config = SessionConfig { initial_rtt: round_trip, ..SessionConfig::default() };
    let link = LinkConfig { delay: round_trip / 2, ..LinkConfig::default() };
    Pair::with(1, link, [config.clone(), config])
}

/// Those sessions when they have said what they have to say at first.
fn idle(round_trip: Duration) -> Pair {
    let mut pair = pair(round_trip);
    for (end, text) in [(Agent, "hello"), (Server, "welcome")] {
        pair.offer(end, document(text, 1, 100));
        pair.run_until(LIMIT, |pair| pair.is_stored(end, &name(text), 1));
    }
    pair.run_for(100 * MS);
    pair
}

/// Pushes a document of 3 packets that is durable after so long; packets from agent and server.
fn push(pair: &mut Pair, version: u64, durable_after: Duration) -> [u64; 2] {
    let before = pair.packets;
    pair.side(Agent).habit = Habit::Wait;
    pair.offer(Server, document("metadata", version, 2_500));
    let metadata = name("metadata");
    pair.run_until(LIMIT, |pair| pair.received(Agent).contains(&(metadata.clone(), version)));
    pair.run_for(durable_after);
    let now = pair.now;
    pair.side(Agent).session.stored(now, &metadata, version);
    pair.run_until(LIMIT, |pair| pair.is_stored(Server, &metadata, version));
    pair.run_for(100 * MS);
    [Agent, Server].map(|end| pair.packets[end as usize] - before[end as usize])
}

#[test]
fn a_document_that_is_soon_durable_is_acknowledged_by_its_confirmation_alone() {
    let mut pair = idle(2 * MS);
    for version in 1..=9 {
        assert_eq!(push(&mut pair, version, 8 * MS), [1, 3], "{version}: and asks for none itself");
    }
    assert_eq!(pair.side(Server).session.stats().probe_timeouts, 0);
    assert_eq!(pair.side(Server).session.stats().packets_lost, 0);
}

#[test]
fn one_that_takes_longer_is_acknowledged_before() {
    for durable_after in [12 * MS, 500 * MS] {
        let mut pair = idle(2 * MS);
        assert_eq!(push(&mut pair, 1, durable_after), [2, 3 + 1], "{durable_after:?}");
        assert_eq!(pair.side(Server).session.stats().probe_timeouts, 0);
    }
}

#[test]
fn a_quiet_confirmation_that_was_lost_is_said_again_when_the_sender_asks() {
    let round_trip = 2 * MS;
    let mut pair = idle(round_trip);
    let link = LinkConfig { delay: round_trip / 2, ..LinkConfig::default() };
    let metadata = name("metadata");
    for version in 1..=3 {
        pair.offer(Server, document("metadata", version, 2_500));
        pair.links[Agent as usize].reconfigure(LinkConfig { loss: 1.0, ..link.clone() });
        pair.run_until(LIMIT, |pair| pair.received(Agent).contains(&(metadata.clone(), version)));
        pair.run_for(20 * MS);
        pair.links[Agent as usize].reconfigure(link.clone());
        let before = pair.now;
        pair.run_until(LIMIT, |pair| pair.is_stored(Server, &metadata, version));
        assert!(pair.now - before < Duration::from_secs(1), "{:?}", pair.now - before);
        pair.run_for(Duration::from_secs(1));
    }
}

#[test]
fn the_next_packet_tells_that_a_quiet_confirmation_came() {
    let mut pair = idle(2 * MS);
    assert_eq!(push(&mut pair, 1, 8 * MS), [1, 3]);
    // Under another name: nothing but the acknowledgement in it says what has become of the first.
    let before = pair.packets;
    pair.side(Agent).habit = Habit::Store;
    pair.offer(Server, document("other", 1, 300));
    pair.run_until(LIMIT, |pair| pair.is_stored(Server, &name("other"), 1));
    pair.run_for(100 * MS);
    assert_eq!(
        [Agent, Server].map(|end| pair.packets[end as usize] - before[end as usize]),
        [1, 1]
    );
}

#[test]
fn now_and_then_a_confirmation_asks_so_that_the_round_trip_stays_known() {
    let mut pair = idle(2 * MS);
    let from_server: u64 = (1..=40).map(|version| push(&mut pair, version, 8 * MS)[1]).sum();
    assert!((40 * 3 + 2..=40 * 3 + 6).contains(&from_server), "{from_server}");
}

#[test]
fn on_a_long_path_it_is_acknowledged_at_once() {
    let mut pair = idle(50 * MS);
    let [from_agent, _] = push(&mut pair, 1, 8 * MS);
    assert!(from_agent >= 2, "{from_agent}");
}

#[test]
fn a_connect_takes_two_packets_from_the_agent_and_one_from_the_server() {
    let mut pair = pair(2 * MS);
    pair.side(Server).habit = Habit::Wait;
    pair.offer(Agent, document("hello", 1, 200));
    let (hello, welcome) = (name("hello"), name("welcome"));
    pair.run_until(LIMIT, |pair| !pair.received(Server).is_empty());
    // What the server has to look up.
    pair.run_for(3 * MS);
    let now = pair.now;
    let session = &mut pair.side(Server).session;
    session.set_limits(now, Limits::server());
    session.stored(now, &hello, 1);
    pair.offer(Server, document("welcome", 1, 300));
    pair.run_until(LIMIT, |pair| {
        pair.is_stored(Agent, &hello, 1) && pair.is_stored(Server, &welcome, 1)
    });
    pair.run_for(Duration::from_secs(1));
    assert_eq!(pair.packets, [2, 1]);
}

#[test]
fn a_hello_that_nothing_goes_with_is_said_soon() {
    let mut pair = pair(2 * MS);
    pair.run_for(12 * MS);
    assert_eq!(pair.packets, [1, 1]);
}

#[test]
fn on_a_long_path_hello_does_not_wait() {
    let mut pair = pair(50 * MS);
    pair.settle();
    assert_eq!(pair.packets, [1, 1]);
}
