//! What share of the packets a path loses, in the long run.

use crate::repair::Loss;

/// Past this many packets, what came before counts half.
const PACKETS_REMEMBERED: f32 = 256.0;

/// A path that loses this share is worth repeating on.
const SUSPECT_SHARE: f32 = 1.0 / 32.0;

/// What a path is imputed before anything was seen of it: so many packets lost of so many. Losses in
/// bursts are seldom, so that it takes some thirty packets to know that there are few.
const FEARED_LOST: f32 = 1.5;
const FEARED_SETTLED: f32 = 16.0;
const FEARED_BURSTS: f32 = 1.0;

/// A share of packets, the older ones of which count less and less.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LossShare {
    lost: f32,
    /// How often packets were lost, those in a row counted once.
    bursts: f32,
    settled: f32,
}

impl LossShare {
    /// Takes in packets, `lost` of the `settled` ones, in so many bursts.
    pub(crate) fn add(&mut self, lost: f32, bursts: f32, settled: f32) {
        self.lost += lost;
        self.bursts += bursts;
        self.settled += settled;
        while self.settled > PACKETS_REMEMBERED {
            self.lost /= 2.0;
            self.bursts /= 2.0;
            self.settled /= 2.0;
        }
    }

    /// The same share, known from so many packets at most.
    pub(crate) fn at_most(self, packets: f32) -> Self {
        let scale = (packets / self.settled.max(1.0)).min(1.0);
        Self { lost: self.lost * scale, bursts: self.bursts * scale, settled: self.settled * scale }
    }

    /// The share, as far as that is known: without packets, 0.
    pub(crate) fn share(&self) -> f64 {
        if self.settled > 0.0 { f64::from(self.lost / self.settled) } else { 0.0 }
    }

    /// Whether the path may be one that loses packets: it is, as long as too few have been seen to
    /// know better.
    pub(crate) fn is_suspect(&self) -> bool {
        self.feared_share() >= SUSPECT_SHARE
    }

    /// Whether anything was lost.
    pub(crate) fn has_lost(&self) -> bool {
        self.lost > 0.0
    }

    fn feared_share(&self) -> f32 {
        (self.lost + FEARED_LOST) / (self.settled + FEARED_SETTLED)
    }

    /// What a sender should reckon with, more being feared the less is known. `None` if the path loses next to
    /// nothing.
    pub(crate) fn feared(&self) -> Option<Loss> {
        self.is_suspect().then(|| self.with_fear(false))
    }

    /// The same, when so many packets in a row seem to be lost at this moment.
    pub(crate) fn feared_in_burst(mut self, overdue: usize) -> Loss {
        self.add(overdue as f32, 1.0, overdue as f32);
        self.with_fear(true)
    }

    fn with_fear(&self, in_burst: bool) -> Loss {
        let burst = (self.lost + FEARED_LOST) / (self.bursts + FEARED_BURSTS);
        Loss { share: self.feared_share(), burst: burst.max(1.0), in_burst }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_suspect_until_some_thirty_packets_have_arrived_and_again_after_losses() {
        let mut path = LossShare::default();
        let mut arrived = 0;
        while path.is_suspect() {
            path.add(0.0, 0.0, 1.0);
            arrived += 1;
        }
        assert_eq!(arrived, 33);
        path.add(0.0, 0.0, 2_000.0);
        assert!(!path.is_suspect());
        for _ in 0..600 {
            path.add(0.03, 0.03, 1.0);
        }
        assert!(path.is_suspect(), "3 %");
        for _ in 0..1_000 {
            path.add(0.01, 0.01, 1.0);
        }
        assert!(!path.is_suspect(), "1 %");
    }

    #[test]
    fn what_is_overdue_counts_as_a_burst_that_goes_on() {
        let mut path = LossShare::default();
        path.add(0.0, 0.0, 200.0);
        assert_eq!(path.feared(), None);
        let loss = path.feared_in_burst(6);
        assert!(loss.in_burst && loss.burst > 3.0 && loss.share > 0.03, "{loss:?}");
        assert_eq!(path.feared(), None, "it is not kept");
    }

    #[test]
    fn the_share_follows_what_was_seen_last() {
        let mut path = LossShare::default();
        assert_eq!(path.share(), 0.0);
        for _ in 0..100 {
            path.add(3.0, 1.0, 10.0);
        }
        assert!((path.share() - 0.3).abs() < 0.001, "{}", path.share());
        for _ in 0..200 {
            path.add(0.0, 0.0, 10.0);
        }
        assert!(path.share() < 0.01, "{}", path.share());
    }
}
