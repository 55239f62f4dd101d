//! One document to many agents: the server's CPU time, and the time until the last agent has it durably.

use std::time::{Duration, Instant};

use anyhow::ensure;
use system_tests::documents::{document, script};

use crate::client::Kind;
use crate::figures::{Samples, ms};
use crate::fleets::{Fleet, Ours, Peer, used};

const AGENTS_DEFAULT: usize = 10_000;
const BYTES_DEFAULT: usize = 4_096;
/// Rounds, each of which pushes by all ways in turn.
const ROUNDS: usize = 5;
/// For what a server does after the last agent has the document, such as writing that down.
const SETTLE: Duration = Duration::from_millis(1_500);

/// What a way to push has cost so far.
#[derive(Debug, Default)]
pub(crate) struct Cost {
    /// The server's CPU time, of all pushes of a round together.
    pub(crate) server: Samples,
    /// The agents'.
    pub(crate) agents: Samples,
    /// From the request until the last agent has it durably, of one push.
    pub(crate) wall: Samples,
}

/// What was measured, and what was not, with the reason.
pub(crate) struct Measured {
    pub(crate) costs: Vec<(String, Cost)>,
    pub(crate) skipped: Vec<(String, anyhow::Error)>,
}

/// Measures and prints.
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<()> {
    let number = |index: usize, default| {
        arguments.get(index).map_or(Ok(default), |text: &String| text.parse::<usize>())
    };
    let (agents, bytes) = (number(0, AGENTS_DEFAULT)?, number(1, BYTES_DEFAULT)?);
    let measured = measure(agents, bytes, 1, ROUNDS)?;
    println!(
        "| one push of {bytes} bytes to {agents} agents, medians of {ROUNDS} | server, ms CPU | agents, ms CPU | last one durable, ms |"
    );
    println!("|---|---|---|---|");
    for (name, cost) in &measured.costs {
        let [server, agents, wall] =
            [&cost.server, &cost.agents, &cost.wall].map(|s| ms(s.median()));
        println!("| {name} | {server} | {agents} | {wall} |");
    }
    let best = measured.costs.iter().skip(1).map(|(_, cost)| cost.server.median()).min();
    if let (Some((_, ours)), Some(best)) = (measured.costs.first(), best) {
        let ratio = ours.server.median().as_secs_f64() / best.as_secs_f64();
        println!("\nserver CPU, ours to the best peer's: {ratio:.2} (to reach: 0.5)");
    }
    for (name, why) in &measured.skipped {
        println!("not measured: {name}: {why:#}");
    }
    println!("{} measured, {} not", measured.costs.len(), measured.skipped.len());
    Ok(())
}

/// Rounds of `pushes` by each way in turn, so that neighbours disturb all of them.
pub(crate) fn measure(
    agents: usize,
    bytes: usize,
    pushes: usize,
    rounds: usize,
) -> anyhow::Result<Measured> {
    ensure!(agents > 0 && pushes > 0 && rounds > 0, "at least one");
    let (mut fleets, mut skipped): (Vec<Box<dyn Fleet>>, _) = (Vec::new(), Vec::new());
    type Start = fn(usize) -> anyhow::Result<Box<dyn Fleet>>;
    let starts: [(&str, Start); 3] = [
        ("metadata-server", |agents| Ok(Box::new(Ours::start(agents)?))),
        ("mosquitto", |agents| Ok(Box::new(Peer::start(Kind::Mqtt, agents)?))),
        ("etcd", |agents| Ok(Box::new(Peer::start(Kind::Etcd, agents)?))),
    ];
    for (name, start) in starts {
        eprintln!("push_peers: connecting {agents} agents: {name}");
        match start(agents) {
            Ok(fleet) => fleets.push(fleet),
            Err(why) => skipped.push((name.to_owned(), why)),
        }
    }
    let mut costs: Vec<(String, Cost)> =
        fleets.iter().map(|fleet| (fleet.name(), Cost::default())).collect();
    let mut content = Content(bytes as u64);
    // The first is for caches and connections that have been idle.
    for round in 0..=rounds {
        eprintln!("push_peers: {bytes} bytes to {agents} agents, round {round} of {rounds}");
        for (fleet, (_, cost)) in fleets.iter_mut().zip(&mut costs) {
            let before = used(&**fleet)?;
            for _ in 0..pushes {
                let document = content.document(bytes);
                let begin = Instant::now();
                fleet.push(&document)?;
                if round > 0 {
                    cost.wall.push(begin.elapsed());
                }
            }
            std::thread::sleep(SETTLE);
            let after = used(&**fleet)?;
            if round > 0 {
                cost.server.push(after.0.saturating_sub(before.0));
                cost.agents.push(after.1.saturating_sub(before.1));
            }
        }
    }
    Ok(Measured { costs, skipped })
}

/// Text that has never been before, and cannot be made much shorter.
struct Content(u64);

impl Content {
    /// A document of so many bytes, or a few hundred if that is fewer.
    fn document(&mut self, bytes: usize) -> Vec<u8> {
        let id = format!("{:016x}", self.next());
        let around = document(&[script(&id, "#!/bin/sh\n# ")]).to_string().len();
        let digits = bytes.saturating_sub(around);
        let text: String = std::iter::from_fn(|| Some(self.digit())).take(digits).collect();
        document(&[script(&id, &format!("#!/bin/sh\n# {text}"))]).to_string().into_bytes()
    }

    fn digit(&mut self) -> char {
        const DIGITS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        char::from(DIGITS[(self.next() >> 58) as usize])
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_have_the_size_that_was_asked_for_and_differ() {
        let mut content = Content(1);
        let [one, two] = [4_096, 4_096].map(|bytes| content.document(bytes));
        assert_eq!((one.len(), two.len()), (4_096, 4_096));
        assert_ne!(one, two);
        assert!(serde_json::from_slice::<serde_json::Value>(&one).is_ok());
    }
}
