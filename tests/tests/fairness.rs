//! One agent's large document beside another one's small ones, over real sockets.

use std::time::Duration;

use serde_json::Value;
use system_tests::documents::{document, script};
use system_tests::{Agent, Disturbance, Relay, Server, wait_until};

const SLOW: &str = "slow";
const QUICK: &str = "quick";
const TOKEN_TTL: Duration = Duration::from_secs(600);
/// Bytes a second of the slow agent's path: for 16 MB more than a minute, which nobody waits for.
const RATE: u64 = 200_000;
/// One character of 64 is two in JSON: 16 MB in all.
const LARGE_BYTES: usize = 15_700_000;
const SMALL_BYTES: usize = 2 << 10;
const SMALL_PUSHES: u64 = 20;

/// A document that runs one script, of about so many bytes that do not become fewer on their way.
fn padded(id: &str, bytes: usize) -> Value {
    let mut document = document(&[script(id, "#!/bin/sh\necho done\n")]);
    let mut state = id.bytes().fold(1u64, |state, byte| state.wrapping_mul(256) + u64::from(byte));
    let padding = std::iter::repeat_with(|| {
        // Knuth's linear congruential generator.
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b' ' + (state >> 58) as u8 + 3)
    });
    document["padding"] = padding.take(bytes).collect::<String>().into();
    document
}

#[test]
fn twenty_small_documents_are_applied_while_a_large_one_to_a_slow_agent_is_under_way() {
    let server = Server::start();
    let mut path = Disturbance::none();
    path.link.rate_bytes_per_s = Some(RATE);
    path.link.delay = Duration::from_millis(20);
    path.link.loss = 0.05;
    let relay = Relay::start(server.listen, 1, path);
    let mut slow = Agent::prepare_patient(&["--servers", &relay.address().to_string()]);
    slow.save_token(&server.token(SLOW, TOKEN_TTL));
    slow.launch();
    server.wait_for_agent(SLOW, "connected");
    let _quick = Agent::start(&server, QUICK);

    let large = server.accept(SLOW, &padded("large", LARGE_BYTES));
    let sent = || server.metric("mds_sent_bytes_total");
    let before = sent();
    wait_until("the large one to be under way", || (sent() > before + 100_000.0).then_some(()));
    for n in 1..=SMALL_PUSHES {
        let version = server.accept(QUICK, &padded(&format!("small-{n}"), SMALL_BYTES));
        server.wait_until_applied(QUICK, version);
    }
    let view = server.get(&format!("/v1/agents/{SLOW}"));
    assert_eq!(view["sending_version"], large, "the large one was to be still under way: {view}");
    assert_eq!(view["delivered_version"], Value::Null);
    assert_eq!(server.results(QUICK).len() as u64, SMALL_PUSHES);
    let under_way = sent() - before;
    assert!(under_way < LARGE_BYTES as f64 / 2.0, "{under_way} bytes in all");

    // It was none the worse for them.
    relay.calm();
    server.wait_until_applied(SLOW, large);
}
