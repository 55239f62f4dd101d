//! A fleet of agents, each on a path of its own: all of them come to hold the newest version.

use std::time::Duration;

use dtls_channel::testing::{LinkConfig, Rng};
use metadata_delivery::testing::{
    End::{Agent, Server},
    Pair, document, lossy, name,
};

const AGENTS: u64 = 10_000;
const LIMIT: Duration = Duration::from_secs(300);

fn path(rng: &mut Rng) -> LinkConfig {
    let loss = [0.0, 0.01, 0.1, 0.2, 0.3][rng.below(5) as usize];
    LinkConfig {
        delay: Duration::from_millis(1 + rng.below(100)),
        loss_burst: rng.chance(0.3).then_some(4.0),
        rate_bytes_per_s: rng.chance(0.3).then_some(125_000),
        queue_bytes: 12_500,
        ..lossy(loss)
    }
}

/// Pushes some versions in a row, while associations end and begin. Nothing lost, stale, repeated or
/// corrupted: the pair sees to that. Returns how long the newest took.
fn converge(seed: u64) -> Duration {
    let mut rng = Rng::new(seed);
    let mut pair = Pair::new(seed, path(&mut rng));
    let newest = 1 + rng.below(3);
    for version in 1..=newest {
        let bytes = [0, 300, 2_000, 6_000][rng.below(4) as usize];
        pair.offer(Server, document("metadata", version, bytes));
        pair.run_for(Duration::from_millis(rng.below(300)));
        match rng.below(8) {
            // A restart of either side: the server offers what it has.
            0 => {
                pair.reconnect();
                pair.offer(Server, document("metadata", version, bytes));
            }
            // The agent's address changes, and with it the path.
            1 => {
                let link = path(&mut rng);
                pair.links.iter_mut().for_each(|half| half.reconfigure(link.clone()));
                let now = pair.now;
                pair.sides.iter_mut().for_each(|side| side.session.path_changed(now));
            }
            _ => {}
        }
    }
    let began = pair.now;
    let metadata = name("metadata");
    pair.run_until(LIMIT, |pair| pair.is_stored(Server, &metadata, newest));
    assert_eq!(pair.received(Agent).last(), Some(&(metadata, newest)), "seed {seed}");
    pair.now - began
}

#[test]
fn ten_thousand_agents_on_mixed_paths_come_to_hold_the_newest_version() {
    let mut times: Vec<Duration> = (0..AGENTS).map(converge).collect();
    times.sort_unstable();
    let at = |share: f64| times[(share * (times.len() - 1) as f64) as usize];
    println!("median {:?}, p99 {:?}, slowest {:?}", at(0.5), at(0.99), at(1.0));
}
