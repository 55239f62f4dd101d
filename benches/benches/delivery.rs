//! A document from server to agent over a simulated link: criterion shows what both sessions cost
//! in CPU time; a table before it shows how long delivery takes on the link's own clock.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use dtls_channel::testing::LinkConfig;
use metadata_delivery::testing::{End, Pair, document, name};

const SIZES: [(&str, usize); 3] = [("1KiB", 1 << 10), ("64KiB", 64 << 10), ("1MiB", 1 << 20)];
const LOSS_PERCENT: [u32; 3] = [0, 10, 30];
/// Runs, each with its own seed, that the table's medians are taken over.
const TABLE_RUNS: u64 = 15;
const LIMIT: Duration = Duration::from_secs(600);

/// 25 ms each way, 20 Mbit/s with a queue of one bandwidth-delay product, random loss each way.
fn link(loss_percent: u32) -> LinkConfig {
    LinkConfig {
        delay: Duration::from_millis(25),
        loss: f64::from(loss_percent) / 100.0,
        rate_bytes_per_s: Some(2_500_000),
        queue_bytes: 125_000,
        ..LinkConfig::default()
    }
}

/// Virtual time until the server knows that the agent has stored the document, and packets sent.
fn deliver(seed: u64, bytes: usize, loss_percent: u32) -> (Duration, u64) {
    let mut pair = Pair::new(seed, link(loss_percent));
    pair.offer(End::Server, document("metadata", 1, bytes));
    let name = name("metadata");
    pair.run_until(LIMIT, |pair| pair.is_stored(End::Server, &name, 1));
    (pair.elapsed(), pair.packets.iter().sum())
}

fn table() {
    println!("virtual time to delivery confirmed (round trip 50 ms, 20 Mbit/s), {TABLE_RUNS} runs");
    println!("{:>8} {:>6} {:>12} {:>12} {:>9}", "document", "loss", "median", "worst", "packets");
    for (label, bytes) in SIZES {
        for loss in LOSS_PERCENT {
            let mut runs: Vec<_> = (0..TABLE_RUNS).map(|seed| deliver(seed, bytes, loss)).collect();
            runs.sort_unstable();
            let (median, packets) = runs[runs.len() / 2];
            let worst = runs[runs.len() - 1].0;
            println!(
                "{label:>8} {loss:>4} % {:>9.3} s {:>9.3} s {packets:>9}",
                median.as_secs_f64(),
                worst.as_secs_f64()
            );
        }
    }
}

fn delivery(c: &mut Criterion) {
    // A smoke run has no use for it.
    if !std::env::args().any(|argument| argument == "--test") {
        table();
    }
    let mut group = c.benchmark_group("delivery");
    group.sample_size(20);
    for (label, bytes) in SIZES {
        group.throughput(Throughput::Bytes(bytes as u64));
        for loss in LOSS_PERCENT {
            let id = BenchmarkId::new(label, format!("{loss}%"));
            group.bench_function(id, |b| b.iter(|| deliver(1, bytes, loss)));
        }
    }
    group.finish();
}

criterion_group!(benches, delivery);
criterion_main!(benches);
