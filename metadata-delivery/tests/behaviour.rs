//! What an application may rely on, over links that lose, delay, repeat and reorder.

use std::time::Duration;

use dtls_channel::testing::LinkConfig;
use metadata_delivery::testing::{
    End::{Agent, Server},
    Habit, Pair, bottleneck, document, lossy, name,
};
use metadata_delivery::{CloseCode, Event, Limits, Name, NamePolicy, SessionConfig, refusal};

const LIMIT: Duration = Duration::from_secs(120);

fn metadata() -> Name {
    name("metadata")
}

#[test]
fn ten_versions_in_a_row_to_a_slow_peer_cost_about_one() {
    for loss in [0.0, 0.3] {
        let slow = LinkConfig { rate_bytes_per_s: Some(50_000), ..lossy(loss) };
        let cost = |versions: u64, seed| {
            let mut pair = Pair::new(seed, slow.clone());
            pair.run_for(Duration::from_secs(2));
            for version in 1..=versions {
                pair.offer(Server, document("metadata", version, 64 << 10));
                // One comes before the other is through.
                pair.run_for(Duration::from_millis(20));
            }
            pair.run_until(LIMIT, |pair| pair.is_stored(Server, &metadata(), versions));
            (pair.links[1].stats().pushed_bytes, pair.received(Agent).len())
        };
        let (one, _) = cost(1, 3);
        let (ten, delivered) = cost(10, 3);
        println!("loss {loss}: one version {one} bytes, ten versions {ten} bytes");
        assert_eq!(delivered, 1, "only the newest");
        assert!(ten < one * 3 / 2, "one version costs {one} bytes, ten cost {ten}");
    }
}

#[test]
fn both_directions_carry_documents_at_once() {
    let mut pair = Pair::new(5, lossy(0.3));
    pair.offer(Server, document("metadata", 9, 300_000));
    for n in 0..40 {
        pair.offer(Agent, document(&format!("result/{n}"), 1, 100 * n));
    }
    let results: Vec<Name> = (0..40).map(|n| name(&format!("result/{n}"))).collect();
    pair.run_until(LIMIT, |pair| {
        pair.is_stored(Server, &metadata(), 9)
            && results.iter().all(|result| pair.is_stored(Agent, result, 1))
    });
    assert_eq!(pair.received(Server).len(), 40);
    assert_eq!(pair.received(Agent).len(), 1);
}

#[test]
fn a_large_document_does_not_delay_a_small_one() {
    let alone = {
        let mut pair = Pair::new(6, bottleneck(0.0));
        pair.run_for(Duration::from_secs(1));
        let before = pair.now;
        pair.offer(Server, document("small", 1, 2_000));
        pair.run_until(LIMIT, |pair| pair.is_stored(Server, &name("small"), 1));
        pair.now - before
    };
    let mut pair = Pair::new(6, bottleneck(0.0));
    pair.offer(Server, document("metadata", 1, 16 << 20));
    pair.run_for(Duration::from_secs(2));
    let before = pair.now;
    pair.offer(Server, document("small", 1, 2_000));
    pair.run_until(LIMIT, |pair| pair.is_stored(Server, &name("small"), 1));
    let beside = pair.now - before;
    assert!(!pair.is_stored(Server, &metadata(), 1), "the large one is under way");
    println!("2 kB alone {alone:?}, beside 16 MiB {beside:?}");
    // The path's own queue is all that comes on top.
    assert!(beside < alone + Duration::from_millis(60), "{alone:?} alone, {beside:?} beside");
}

#[test]
fn a_result_of_one_mebibyte_arrives_at_thirty_percent_loss_and_small_ones_overtake_it() {
    let config = |limits| SessionConfig { limits, ..SessionConfig::default() };
    let configs = [config(Limits::agent()), config(Limits::server())];
    let mut pair = Pair::with(11, bottleneck(0.3), configs);
    let (large, small) = (name("result/large"), name("result/small"));
    pair.offer(Agent, document("result/large", 1, 1 << 20));
    pair.run_for(Duration::from_millis(500));
    let began = pair.now;
    pair.offer(Agent, document("result/small", 1, 2 << 10));
    pair.run_until(LIMIT, |pair| pair.is_stored(Agent, &small, 1));
    let overtook = pair.now - began;
    assert!(!pair.is_stored(Agent, &large, 1), "the large one is under way");
    pair.run_until(LIMIT, |pair| pair.is_stored(Agent, &large, 1));
    println!("1 MiB in {:?}, 2 KiB beside it in {overtook:?}", pair.elapsed());
    // 0.6 s is what the path needs for the bytes, with the share that is lost.
    assert!(pair.elapsed() < Duration::from_secs(3), "{:?}", pair.elapsed());
    assert!(overtook < Duration::from_millis(400), "{overtook:?}");
    let at_most = document("result/large", 2, (1 << 20) + 1);
    pair.offer(Agent, at_most);
    pair.run_for(Duration::from_secs(1));
    let refused = |event: &Event| matches!(event, Event::Refused { code: refusal::TOO_LARGE, .. });
    assert!(pair.side(Agent).events.iter().any(refused));
}

#[test]
fn a_restart_of_either_side_mid_transfer_delivers_nothing_stale() {
    for seed in 0..20 {
        let mut pair = Pair::new(seed, lossy(0.3));
        for version in 1..=6 {
            pair.offer(Server, document("metadata", version, 80_000));
            pair.offer(Agent, document("result/1", version, 20_000));
            pair.run_for(Duration::from_millis(40 * seed));
            pair.reconnect();
            // The applications offer again what they still want.
            pair.offer(Server, document("metadata", version, 80_000));
            pair.offer(Agent, document("result/1", version, 20_000));
        }
        pair.run_until(LIMIT, |pair| {
            pair.is_stored(Server, &metadata(), 6) && pair.is_stored(Agent, &name("result/1"), 6)
        });
    }
}

#[test]
fn what_is_offered_again_is_confirmed_again_without_a_second_delivery() {
    let mut pair = Pair::new(8, lossy(0.1));
    for _ in 0..3 {
        pair.offer(Agent, document("result/1", 1, 5_000));
        pair.side(Agent).stored.clear();
        pair.run_until(LIMIT, |pair| pair.is_stored(Agent, &name("result/1"), 1));
    }
    assert_eq!(pair.received(Server), [(name("result/1"), 1)]);
}

#[test]
fn nothing_is_confirmed_before_the_application_says_so() {
    let mut pair = Pair::new(9, lossy(0.1));
    pair.side(Server).habit = Habit::Wait;
    pair.offer(Agent, document("result/1", 1, 5_000));
    pair.run_for(Duration::from_secs(30));
    assert_eq!(pair.received(Server).len(), 1);
    assert!(!pair.is_stored(Agent, &name("result/1"), 1));
    let now = pair.now;
    pair.side(Server).session.stored(now, &name("result/1"), 1);
    pair.run_until(LIMIT, |pair| pair.is_stored(Agent, &name("result/1"), 1));
}

#[test]
fn a_refusal_reaches_the_sender_with_its_reason_and_ends_the_sending() {
    let mut pair = Pair::new(10, lossy(0.3));
    pair.side(Agent).habit = Habit::Refuse;
    pair.offer(Server, document("metadata", 1, 5_000));
    pair.run_until(LIMIT, |pair| !pair.sides[1].events.is_empty());
    assert_eq!(
        pair.side(Server).events,
        [Event::Refused { name: metadata(), version: 1, code: 0x100, reason: "no".into() }]
    );
    assert_eq!(pair.side(Server).session.stats().outbound_bytes, 0);
}

#[test]
fn a_withdrawn_document_frees_what_the_peer_holds_of_it() {
    let mut pair = Pair::new(11, bottleneck(0.1));
    pair.offer(Server, document("metadata", 1, 4 << 20));
    pair.run_for(Duration::from_millis(800));
    assert!(pair.side(Agent).session.stats().inbound_bytes > 0);
    let now = pair.now;
    pair.side(Server).session.withdraw(now, &metadata());
    pair.run_for(Duration::from_secs(10));
    assert_eq!(pair.side(Agent).session.stats().inbound_bytes, 0);
    assert_eq!(pair.received(Agent), []);
    pair.offer(Server, document("metadata", 1, 1000));
    pair.run_until(LIMIT, |pair| pair.is_stored(Server, &metadata(), 1));
}

/// A pair of which the server does not know the agent yet.
fn stranger_at_server(seed: u64, loss: f64) -> Pair {
    let agent = SessionConfig { limits: Limits::agent(), ..SessionConfig::default() };
    let server = SessionConfig { limits: Limits::stranger(), ..SessionConfig::default() };
    Pair::with(seed, lossy(loss), [agent, server])
}

#[test]
fn a_stranger_may_say_hello_and_nothing_else_until_it_is_known() {
    for seed in 0..20 {
        let mut pair = stranger_at_server(seed, 0.3);
        pair.offer(Agent, document("hello", 1, 900));
        pair.offer(Agent, document("result/1", 1, 300));
        pair.offer(Agent, document("result/2", 1, 9_000));
        pair.run_until(LIMIT, |pair| pair.sides[0].events.len() == 3);
        assert_eq!(pair.received(Server), [(name("hello"), 1)]);
        let mut codes: Vec<u16> = Vec::new();
        for event in &pair.side(Agent).events {
            match event {
                Event::Refused { code, .. } => codes.push(*code),
                Event::Stored { name, .. } => assert_eq!(name.as_str(), "hello"),
                other => panic!("{other:?}"),
            }
        }
        codes.sort_unstable();
        assert_eq!(codes, [refusal::TOO_LARGE, refusal::NAME]);

        // The server has found out who it is.
        let now = pair.now;
        pair.side(Server).session.set_limits(now, Limits::server());
        pair.offer(Server, document("welcome", 1, 200));
        pair.run_until(LIMIT, |pair| pair.received(Agent).contains(&(name("welcome"), 1)));
        // Having the welcome, the agent knows the new limits, however the packets went.
        pair.offer(Agent, document("result/1", 1, 300));
        pair.offer(Agent, document("result/2", 1, 9_000));
        pair.run_until(LIMIT, |pair| {
            pair.is_stored(Agent, &name("result/1"), 1)
                && pair.is_stored(Agent, &name("result/2"), 1)
        });
    }
}

#[test]
fn a_reason_to_close_reaches_the_peer_at_any_loss() {
    let mut heard = 0;
    for seed in 0..100 {
        let mut pair = stranger_at_server(seed, 0.3);
        pair.run_for(Duration::from_secs(1));
        let now = pair.now;
        pair.side(Server).session.close(now, CloseCode::UnknownAgent, "who are you?");
        pair.run_for(Duration::from_secs(1));
        assert!(pair.side(Server).session.is_closed());
        let closed =
            Event::PeerClosed { code: CloseCode::UnknownAgent, reason: "who are you?".into() };
        heard += usize::from(pair.side(Agent).events == [closed]);
    }
    // Five copies: 1 in 400 is lost.
    assert!(heard >= 97, "{heard} of 100");
}

#[test]
fn keep_alives_cost_one_packet_each_way_and_notice_a_dead_path() {
    let agent = SessionConfig {
        keep_alive: Some(Duration::from_secs(20)),
        peer_timeout: Duration::from_secs(15),
        ..SessionConfig::default()
    };
    // A little more patient, so that it has nothing to ask.
    let server =
        SessionConfig { keep_alive: Some(Duration::from_secs(25)), ..SessionConfig::default() };
    let mut pair = Pair::with(12, LinkConfig::default(), [agent, server]);
    pair.run_for(Duration::from_secs(3600));
    let [from_agent, from_server] = pair.packets;
    assert!((170..=190).contains(&from_agent), "{from_agent} packets from the agent");
    assert!((170..=190).contains(&from_server), "{from_server} packets from the server");

    pair.links[1].reconfigure(LinkConfig { loss: 1.0, ..LinkConfig::default() });
    pair.run_for(Duration::from_secs(40));
    assert_eq!(pair.side(Agent).events, [Event::PeerLost]);
    assert_eq!(pair.side(Server).events, [], "it hears the agent, and had nothing to say");
}

#[test]
fn a_path_that_was_dead_for_a_while_is_used_again() {
    let mut pair = Pair::new(13, bottleneck(0.0));
    pair.offer(Server, document("metadata", 1, 4 << 20));
    pair.run_for(Duration::from_secs(1));
    for link in &mut pair.links {
        link.reconfigure(LinkConfig { loss: 1.0, ..bottleneck(0.0) });
    }
    pair.run_for(Duration::from_secs(25));
    for link in &mut pair.links {
        link.reconfigure(bottleneck(0.0));
    }
    let before = pair.now;
    pair.run_until(LIMIT, |pair| pair.is_stored(Server, &metadata(), 1));
    println!("back and done after {:?}", pair.now - before);
    assert!(pair.now - before < Duration::from_secs(10));
}

#[test]
fn many_small_documents_keep_within_the_places_the_peer_grants() {
    let config = SessionConfig {
        limits: Limits { inbound_transfers_max: 2, names: NamePolicy::Any, ..Limits::default() },
        ..SessionConfig::default()
    };
    let mut pair = Pair::with(14, lossy(0.3), [config.clone(), config]);
    for n in 0..300 {
        pair.offer(Agent, document(&format!("result/{n}"), 1, 10));
    }
    pair.run_until(LIMIT, |pair| pair.sides[0].stored.len() == 300);
    assert_eq!(pair.side(Server).session.stats().packets_without_room, 0);
    assert_eq!(pair.side(Agent).session.stats().documents_refused, 0);
}
