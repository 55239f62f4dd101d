//! Paths that a seed comes up with.

use std::time::Duration;

use dtls_channel::testing::{LinkConfig, Mangle, Rng};

/// Any path, each way.
pub(super) fn random(rng: &mut Rng) -> [LinkConfig; 2] {
    let delay = Duration::from_millis([1, 10, 25, 100, 300][rng.below(5) as usize]);
    let mtu = [9_000, 1_472, 1_472, 1_300, 1_200, 900][rng.below(6) as usize];
    let mangles = [Mangle::Nothing, Mangle::Bleach, Mangle::Drop, Mangle::Congest];
    [(); 2].map(|()| LinkConfig {
        delay,
        jitter: Duration::from_millis([0, 0, 2, 20][rng.below(4) as usize]),
        loss: [0.0, 0.01, 0.1, 0.2, 0.3, 0.5][rng.below(6) as usize],
        loss_burst: rng.chance(0.4).then(|| [2.0, 4.0, 8.0][rng.below(3) as usize]),
        loss_outage: None,
        duplicate: [0.0, 0.05][rng.below(2) as usize],
        reorder: [0.0, 0.05, 0.3][rng.below(3) as usize],
        reorder_by: Duration::from_millis(15),
        mtu,
        rate_bytes_per_s: rng.chance(0.4).then(|| [50_000, 2_500_000][rng.below(2) as usize]),
        queue_bytes: [5_000, 50_000, 125_000][rng.below(3) as usize],
        mark_above_bytes: rng.chance(0.5).then_some(2_500),
        mangle: if rng.chance(0.4) { mangles[rng.below(4) as usize] } else { Mangle::Nothing },
    })
}

/// The same path when nothing passes.
pub(super) fn dead(of: &[LinkConfig; 2]) -> [LinkConfig; 2] {
    of.clone().map(|link| LinkConfig { loss: 1.0, ..link })
}

/// The same path when it has calmed down, as far as paths do.
pub(super) fn calm(of: &[LinkConfig; 2]) -> [LinkConfig; 2] {
    of.clone().map(|link| LinkConfig { loss: link.loss.min(0.1), ..link })
}
