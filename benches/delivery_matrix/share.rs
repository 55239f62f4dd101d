//! What two flows on one bottleneck leave to each other, and how long the queue becomes.

use std::time::Duration;

use dtls_channel::testing::LinkConfig;
use metadata_delivery::testing::{body, start};

use crate::engine::Engine;
use crate::quinn_peer::Controller;
use crate::world::{SERVER, World};
use crate::{LARGE, Losses, QUEUE_BYTES, RATE, ROUND_TRIP, link};

const OTHERS: [Option<Engine>; 5] = [
    None,
    Some(Engine::Quinn(Controller::Cubic)),
    Some(Engine::Quinn(Controller::Bbr)),
    Some(Engine::Tcp),
    Some(Engine::Ours),
];

/// When the second flow begins.
const LATER: Duration = Duration::from_secs(2);
/// From when on, and for how long, the flows are compared.
const SETTLED: Duration = Duration::from_secs(3);
const COMPARED: Duration = Duration::from_secs(20);
/// How often the queue is looked at.
const LOOK: Duration = Duration::from_millis(5);

struct Shared {
    /// Bytes per second of the first and the second flow.
    rates: [f64; 2],
    queue_mean: f64,
    queue_p95: usize,
    dropped: f64,
}

pub(crate) const TITLE: &str = "Two flows on one bottleneck, no random loss";

/// A queue of this length marks, or drops what it must not mark.
const MARK_ABOVE_BYTES: usize = QUEUE_BYTES / 4;

pub(crate) fn tables(only: &str, smoke: bool) {
    println!("\n{TITLE}:\n");
    table(&link(0, Losses::Alone), only, smoke);
    if !smoke {
        println!("\n{TITLE}, from a quarter of its queue on it marks:\n");
        let marks =
            LinkConfig { mark_above_bytes: Some(MARK_ABOVE_BYTES), ..link(0, Losses::Alone) };
        table(&marks, only, smoke);
    }
}

fn table(link: &LinkConfig, only: &str, smoke: bool) {
    println!(
        "| first | 2 s later | first, of the rate | second | ratio | queue, mean of its room | p95 | dropped |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let first = [Engine::Ours, Engine::Quinn(Controller::Cubic), Engine::Quinn(Controller::Bbr)];
    for first in first.into_iter().filter(|engine| engine.name().starts_with(only)) {
        for other in OTHERS {
            if smoke && other.is_none() {
                continue;
            }
            let shared = run(link, first, other);
            row(first, other, &shared);
            if let Some(other) = other.filter(|other| *other != first && !only.is_empty()) {
                row(other, Some(first), &run(link, other, Some(first)));
            }
            if smoke {
                return;
            }
        }
    }
}

fn row(first: Engine, other: Option<Engine>, shared: &Shared) {
    let part = |rate: f64| format!("{:.0} %", 100.0 * rate / RATE as f64);
    let [one, two] = shared.rates;
    let ratio = if other.is_some() { format!("{:.2}", one / two) } else { "–".to_owned() };
    println!(
        "| {} | {} | {} | {} | {ratio} | {:.0} % | {:.0} % | {:.1} % |",
        first.name(),
        other.map_or("–", Engine::name),
        part(one),
        if other.is_some() { part(two) } else { "–".to_owned() },
        100.0 * shared.queue_mean / QUEUE_BYTES as f64,
        100.0 * shared.queue_p95 as f64 / QUEUE_BYTES as f64,
        100.0 * shared.dropped,
    );
}

fn run(link: &LinkConfig, first: Engine, other: Option<Engine>) -> Shared {
    let mut world = World::new(start(), 1, link);
    first.join(&mut world, ROUND_TRIP, 1);
    begin(&mut world, 0);
    if let Some(other) = other {
        world.run_for(LATER);
        other.join(&mut world, ROUND_TRIP, 2);
        begin(&mut world, 1);
    }
    world.run_for(SETTLED);
    let arrived = |world: &World| -> Vec<u64> {
        world.flows.iter().map(|flow| flow.arrived[SERVER]).collect()
    };
    let before = arrived(&world);
    let stats_before = world.links[SERVER].stats();
    let mut queue = Vec::new();
    let until = world.now + COMPARED;
    while world.now < until {
        world.run_for(LOOK);
        queue.push(world.links[SERVER].queued_bytes(world.now));
    }
    let rates: Vec<f64> = arrived(&world)
        .iter()
        .zip(&before)
        .map(|(now, before)| (now - before) as f64 / COMPARED.as_secs_f64())
        .collect();
    let stats = world.links[SERVER].stats();
    queue.sort_unstable();
    Shared {
        rates: [rates[0], rates.get(1).copied().unwrap_or(0.0)],
        queue_mean: queue.iter().sum::<usize>() as f64 / queue.len() as f64,
        queue_p95: queue[queue.len() * 95 / 100],
        dropped: (stats.overflowed - stats_before.overflowed) as f64
            / (stats.pushed - stats_before.pushed) as f64,
    }
}

/// Enough for as long as anybody looks.
fn begin(world: &mut World, flow: usize) {
    let deadline = world.now + Duration::from_secs(60);
    let ready =
        world.run_until(deadline, |world| world.flows[flow].peers.iter().all(|p| p.is_ready()));
    assert!(ready, "no connection in a minute");
    for n in 0..4 {
        world.send(flow, SERVER, body(n, LARGE));
    }
}
