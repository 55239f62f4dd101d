//! One message from server to client, both ends on one thread: sealed, passed in memory, opened.

use std::time::{Duration, Instant};

use channel_benches::{MESSAGE_SIZES, ours, webrtc};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// Messages in a burst, as many as one segmented send carries.
const BURST: usize = 32;
/// Short enough for the messages of a run to stay below what one key may protect.
const MEASUREMENT: Duration = Duration::from_secs(3);

fn record(c: &mut Criterion) {
    let mut group = c.benchmark_group("record");
    group.sample_size(30).measurement_time(MEASUREMENT).warm_up_time(MEASUREMENT / 3);
    for size in MESSAGE_SIZES {
        let message = vec![7; size];
        group.throughput(Throughput::Bytes(size as u64));
        for (name, count) in [("dtls-channel", 1), ("dtls-channel-burst", BURST)] {
            let mut pair = ours::Pair::new();
            let open = pair.handshake();
            group.bench_function(BenchmarkId::new(name, size), |b| {
                b.iter_custom(|messages| {
                    let start = Instant::now();
                    let mut left = usize::try_from(messages).unwrap_or(usize::MAX);
                    while left > 0 {
                        let now = left.min(count);
                        assert_eq!(pair.push(open, &message, now), now * size);
                        left -= now;
                    }
                    start.elapsed()
                });
            });
        }
        let pair = webrtc::Pair::new();
        let open = pair.handshake();
        group.bench_function(BenchmarkId::new("webrtc-dtls", size), |b| {
            b.iter_custom(|messages| {
                let messages = usize::try_from(messages).unwrap_or(usize::MAX);
                let start = Instant::now();
                assert_eq!(pair.push(&open, &message, messages), messages * size);
                start.elapsed()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, record);
criterion_main!(benches);
