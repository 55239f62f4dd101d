//! One mutual handshake with cookie exchange, both ends on one thread.

use channel_benches::{floor, ours, webrtc};
use criterion::{Criterion, criterion_group, criterion_main};

fn handshake(c: &mut Criterion) {
    let mut group = c.benchmark_group("handshake");
    group.sample_size(30);
    let floor = floor::Floor::new();
    group.bench_function("ring-floor", |b| b.iter(|| floor.handshake()));
    let mut ours = ours::Pair::new();
    group.bench_function("dtls-channel", |b| {
        b.iter(|| {
            let open = ours.handshake();
            ours.close(open);
        });
    });
    let webrtc = webrtc::Pair::new();
    group.bench_function("webrtc-dtls", |b| b.iter(|| webrtc.close(webrtc.handshake())));
    group.finish();
}

criterion_group!(benches, handshake);
criterion_main!(benches);
