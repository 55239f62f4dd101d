//! The real server, and real agents, while its port is flooded from 50,000 loopback addresses.
//! Memory is counted to the byte in `dtls-channel/tests/floods.rs`.

use std::time::{Duration, Instant};

use serde_json::Value;
use system_tests::documents::{document, script};
use system_tests::flood::{
    Captured, Flood, Hellos, Pace, Tally, Usage, anybody, leave_half_open, rogue, stray,
};
use system_tests::{Agent, Node, Server};

const SOURCES: u32 = 50_000;
/// In which a new agent has to be connected.
const CONNECTED_WITHIN: Duration = Duration::from_secs(2);
/// What a process that does other things too may grow by. One hundred bytes for each of the sources
/// would be more.
const GROWTH_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// How long everything took that real agents did during a flood.
#[derive(Debug, Default)]
struct Served {
    connects: Vec<Duration>,
    pushes: Vec<Duration>,
    newcomers: Vec<Agent>,
}

/// Pushes documents, connects, enrols, until the flood is over and all newcomers are in; at least once each. How many
/// turns a flood lasts depends on how fast the server answers it.
fn serve_during(flood: &Flood, server: &Server, agents: &[&str], newcomers: usize) -> Served {
    let mut served = Served::default();
    let mut turn = 0;
    while !flood.is_over() || turn < newcomers.max(1) {
        for agent in agents {
            let begun = Instant::now();
            let says = script(&format!("{agent}-{turn}"), "#!/bin/sh\n:\n");
            let version = server.accept(agent, &document(&[says]));
            server.wait_until_applied(agent, version);
            served.pushes.push(begun.elapsed());
        }
        let begun = Instant::now();
        let node = Node::connect(server.listen, anybody());
        let _ = node.established();
        served.connects.push(begun.elapsed());
        if served.newcomers.len() < newcomers {
            let id = format!("new-{turn}");
            served.newcomers.push(Agent::start(server, &id));
            assert_eq!(server.get(&format!("/v1/agents/{id}"))["state"], "connected");
        }
        turn += 1;
    }
    served
}

/// Nine of ten within the limit, since a flood may hit a flight, and a machine may be busy.
fn assert_quick(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let most = times[(times.len() - 1) * 9 / 10];
    assert!(most <= CONNECTED_WITHIN, "{what}: {times:?}");
}

fn start(agents: &[&str]) -> (Server, Vec<Agent>) {
    let server = Server::start();
    let connected = agents.iter().map(|id| Agent::start(&server, id)).collect();
    (server, connected)
}

fn drops(server: &Server, cause: &str) -> f64 {
    server.metric(&format!("mds_dropped_datagrams_total{{cause=\"{cause}\"}}"))
}

#[test]
fn agents_connect_and_are_served_while_fifty_thousand_addresses_send_hellos_strays_and_replays() {
    let (mut server, _agents) = start(&["a", "b"]);
    let target = server.listen;
    let captured = Captured::from(target);
    let mut hellos = Hellos::new(1);
    let act = move |number, source: &mut system_tests::flood::Source| {
        source.send(hellos.next_hello(), true);
        source.send(hellos.next_hello(), true);
        match number % 3 {
            0 => source.send(&captured.hello, true),
            1 => source.send(&captured.flight, false),
            _ => source.send(&stray(number / 3), false),
        }
        if number % 16 == 0 {
            captured.replay();
        }
    };
    let process = server.process().id();
    let before = Usage::of(process);
    let flood = Flood::start(target, SOURCES, Pace::Answered, act);
    let served = serve_during(&flood, &server, &["a", "b"], 2);
    let tally = flood.tally();

    assert_eq!((tally.sources, tally.amplified), (SOURCES.into(), 0), "{tally:?}");
    assert!(tally.sent >= 3 * u64::from(SOURCES) * 99 / 100, "{tally:?}");
    assert!(tally.received_bytes <= tally.sent_bytes, "{tally:?}");
    // The flood was heard: it is no lack of answers that kept them small.
    assert!(tally.received >= u64::from(SOURCES), "{tally:?}");
    assert!(drops(&server, "bad_cookie") >= f64::from(SOURCES / 6));
    assert!(drops(&server, "unknown") >= f64::from(SOURCES / 3));
    assert_eq!(server.metric("mds_peers{phase=\"handshake\"}"), 0.0);
    assert_eq!(server.metric("mds_peers{phase=\"accepted\"}"), 2.0 + served.newcomers.len() as f64);
    let after = Usage::of(process);
    let growth = after.resident_bytes.saturating_sub(before.resident_bytes);
    assert!(growth < GROWTH_BYTES_MAX, "{growth} bytes more; {tally:?}");
    assert_quick("connecting", served.connects);
    assert!(!served.pushes.is_empty() && served.newcomers.len() == 2);
    // Those that were connected all the time never had to come back.
    for id in ["a", "b"] {
        assert_eq!(server.get(&format!("/v1/agents/{id}"))["state"], Value::from("connected"));
    }
}

#[test]
fn agents_connect_though_a_flood_overflows_the_sockets_buffer() {
    let (server, _agents) = start(&["a"]);
    let mut hellos = Hellos::new(2);
    let flood = Flood::start(server.listen, SOURCES / 2, Pace::Full, move |_, source| {
        for _ in 0..4 {
            source.send(hellos.next_hello(), true);
        }
    });
    let served = serve_during(&flood, &server, &["a"], 0);
    let tally: Tally = flood.tally();
    assert!(tally.sent > 99_000 && tally.received_bytes <= tally.sent_bytes, "{tally:?}");
    // How soon depends on how much the kernel throws away, so on the machine: docs/benchmarks.md.
    assert!(!served.connects.is_empty() && !served.pushes.is_empty());
}

#[test]
fn agents_connect_while_thousands_of_addresses_leave_handshakes_half_open() {
    let (server, _agents) = start(&["a"]);
    let mut rogue = rogue();
    let flood = Flood::start(server.listen, 6_000, Pace::Answered, move |_, source| {
        leave_half_open(&mut rogue, source);
    });
    let served = serve_during(&flood, &server, &["a"], 1);
    let tally = flood.tally();
    assert!(tally.received > 10_000, "{tally:?}");
    assert!(server.metric("mds_peers{phase=\"handshake\"}") <= 4_096.0);
    assert!(server.metric("mds_half_open_evicted_total") > 0.0);
    assert_quick("connecting", served.connects);
    assert_eq!(served.newcomers.len(), 1);
}
