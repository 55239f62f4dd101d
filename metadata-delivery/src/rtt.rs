//! Round-trip time (RFC 9002 §5).

use std::time::Duration;

/// Timers below this are not worth setting (RFC 9002 §6.1.2).
pub(crate) const GRANULARITY: Duration = Duration::from_millis(1);

/// Running estimate of the round-trip time.
#[derive(Debug, Clone)]
pub(crate) struct Rtt {
    latest: Duration,
    smoothed: Duration,
    variation: Duration,
    min: Option<Duration>,
}

impl Rtt {
    /// Starts from an assumption that the first sample replaces.
    pub(crate) fn new(initial: Duration) -> Self {
        let initial = initial.max(GRANULARITY);
        Self { latest: initial, smoothed: initial, variation: initial / 2, min: None }
    }

    /// Takes a sample; `ack_delay` is what the peer says it waited, already capped.
    pub(crate) fn sample(&mut self, sample: Duration, ack_delay: Duration) {
        let Some(min) = self.min else {
            self.min = Some(sample);
            self.latest = sample;
            self.smoothed = sample;
            self.variation = sample / 2;
            return;
        };
        let min = min.min(sample);
        self.min = Some(min);
        self.latest = sample;
        // The peer's word counts only as far as the result stays possible.
        let adjusted = if sample >= min + ack_delay { sample - ack_delay } else { sample };
        self.variation = (self.variation * 3 + self.smoothed.abs_diff(adjusted)) / 4;
        self.smoothed = (self.smoothed * 7 + adjusted) / 8;
    }

    /// The smoothed estimate, once there was a sample.
    pub(crate) fn measured(&self) -> Option<Duration> {
        self.min.map(|_| self.smoothed)
    }

    /// How long after a later packet's acknowledgement an earlier one counts as lost
    /// (RFC 9002 §6.1.2): a round trip and some eighths of it, one by default.
    pub(crate) fn loss_delay(&self, eighths: u32) -> Duration {
        let round_trip = self.smoothed.max(self.latest);
        (round_trip + round_trip / 8 * eighths).max(GRANULARITY)
    }

    /// The probe timeout before back-off, without the peer's delay (RFC 9002 §6.2.1).
    pub(crate) fn probe_timeout(&self) -> Duration {
        self.smoothed + (self.variation * 4).max(GRANULARITY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_first_sample_replaces_the_assumption() {
        let mut rtt = Rtt::new(333 * MS);
        assert_eq!((rtt.smoothed, rtt.measured()), (333 * MS, None));
        rtt.sample(40 * MS, 10 * MS);
        assert_eq!(rtt.measured(), Some(40 * MS));
        assert_eq!(rtt.probe_timeout(), 120 * MS);
    }

    #[test]
    fn the_peers_delay_is_taken_off_unless_that_goes_below_the_minimum() {
        let mut rtt = Rtt::new(333 * MS);
        rtt.sample(40 * MS, Duration::ZERO);
        rtt.sample(56 * MS, 8 * MS);
        assert_eq!(rtt.smoothed, 41 * MS);
        rtt.sample(41 * MS, 30 * MS);
        assert_eq!(rtt.smoothed, 41 * MS, "a lie about the delay changes nothing");
    }

    #[test]
    fn the_loss_delay_follows_the_larger_of_latest_and_smoothed() {
        let mut rtt = Rtt::new(333 * MS);
        rtt.sample(80 * MS, Duration::ZERO);
        rtt.sample(8 * MS, Duration::ZERO);
        assert_eq!(rtt.loss_delay(1), rtt.smoothed * 9 / 8);
        rtt.sample(160 * MS, Duration::ZERO);
        assert_eq!(rtt.loss_delay(1), 180 * MS);
    }
}
