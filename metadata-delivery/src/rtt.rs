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
    shortest: Duration,
}

impl Rtt {
    /// Starts from an assumption that the first sample replaces.
    pub(crate) fn new(initial: Duration) -> Self {
        let initial = initial.max(GRANULARITY);
        Self {
            latest: initial,
            smoothed: initial,
            variation: initial / 2,
            min: None,
            shortest: initial,
        }
    }

    /// Takes a sample, and returns what is left of it after the time that the acknowledgement
    /// waited at the peer. A wait of more than `wait_max` is that of a repeated acknowledgement,
    /// which says less.
    pub(crate) fn sample(
        &mut self,
        sample: Duration,
        wait: Duration,
        wait_max: Duration,
    ) -> Duration {
        self.shortest = self.shortest.min(sample.saturating_sub(wait));
        let Some(min) = self.min else {
            let waited = sample.saturating_sub(wait);
            // As far as it agrees with what was assumed, which the handshake may have measured.
            let first =
                if wait > wait_max { waited } else { waited.max(self.smoothed).min(sample) };
            let first = first.max(GRANULARITY);
            // Two that agree say more than one, of which RFC 9002 §5.3 takes half.
            let differs = first.abs_diff(self.smoothed);
            let agree = differs <= first / 8;
            self.variation = if agree { (differs * 2).max(first / 64) } else { first / 2 };
            self.min = Some(first);
            self.latest = first;
            self.smoothed = first;
            return first;
        };
        // The peer's word counts only as far as the result stays possible (RFC 9002 §5.3).
        let adjusted = sample.saturating_sub(wait).max(min.min(sample));
        if wait <= wait_max {
            self.min = Some(min.min(sample));
        }
        self.latest = adjusted;
        self.variation = (self.variation * 3 + self.smoothed.abs_diff(adjusted)) / 4;
        self.smoothed = (self.smoothed * 7 + adjusted) / 8;
        adjusted
    }

    /// The peer may be as near as this.
    pub(crate) fn may_be(&mut self, round_trip: Duration) {
        self.shortest = self.shortest.min(round_trip);
    }

    /// The smoothed estimate, once there was a sample.
    pub(crate) fn measured(&self) -> Option<Duration> {
        self.min.map(|_| self.smoothed)
    }

    /// The shortest that was assumed or seen, less what the peer says it waited: how far away it is.
    pub(crate) fn shortest(&self) -> Duration {
        self.shortest
    }

    /// How long after a later packet's acknowledgement an earlier one counts as lost
    /// (RFC 9002 §6.1.2): a round trip and some eighths of it, one by default.
    pub(crate) fn loss_delay(&self, eighths: u32) -> Duration {
        let round_trip = self.smoothed.max(self.latest);
        (round_trip + round_trip / 8 * eighths).max(GRANULARITY)
    }

    /// The smoothed estimate, or what is assumed until there is one.
    pub(crate) fn smoothed(&self) -> Duration {
        self.smoothed
    }

    /// After this long, what was not acknowledged is on the path no longer, if the path is as it was: a thirty-second
    /// part of a round trip more than one, twice that where round trips vary.
    pub(crate) fn overdue_after(&self) -> Duration {
        let round_trip = self.smoothed.max(self.latest);
        let varies = (self.variation * 2).clamp(round_trip / 32, round_trip / 16);
        round_trip + varies.max(GRANULARITY)
    }

    /// After this long a last packet may be lost (RFC 8985 §7.2), without the peer's delay.
    pub(crate) fn tail_loss_timeout(&self) -> Duration {
        self.smoothed * 2
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

    fn fed(samples: &[(Duration, Duration)]) -> Rtt {
        let mut rtt = Rtt::new(333 * MS);
        for (sample, wait) in samples {
            rtt.sample(*sample, *wait, 10 * MS);
        }
        rtt
    }

    #[test]
    fn the_first_sample_replaces_the_assumption() {
        let rtt = Rtt::new(333 * MS);
        assert_eq!((rtt.smoothed, rtt.measured()), (333 * MS, None));
        let rtt = fed(&[(40 * MS, 10 * MS)]);
        assert_eq!(rtt.measured(), Some(40 * MS), "the first is taken as it is");
        assert_eq!(rtt.probe_timeout(), 120 * MS);
    }

    #[test]
    fn a_first_sample_like_the_assumption_is_one_of_two() {
        let mut rtt = Rtt::new(50 * MS);
        assert_eq!(
            rtt.sample(61 * MS, 10 * MS, 10 * MS),
            51 * MS,
            "the peer's wait is none of the path's"
        );
        assert_eq!(rtt.probe_timeout(), 59 * MS);
        assert!(rtt.overdue_after() <= 55 * MS);
        let mut rtt = Rtt::new(50 * MS);
        assert_eq!(rtt.sample(54 * MS, 10 * MS, 10 * MS), 50 * MS, "not below what was assumed");
    }

    #[test]
    fn what_is_overdue_waits_longer_where_round_trips_vary() {
        let steady = fed(&[(64 * MS, Duration::ZERO); 20]);
        assert_eq!(steady.overdue_after(), 66 * MS);
        let varied = fed(&[(64 * MS, Duration::ZERO)]);
        assert_eq!(varied.overdue_after(), 68 * MS);
        let short = fed(&[(MS, Duration::ZERO); 20]);
        assert_eq!(short.overdue_after(), 2 * MS, "timers are no finer");
    }

    #[test]
    fn the_peers_wait_is_taken_off_unless_that_goes_below_the_minimum() {
        let rtt = fed(&[(40 * MS, Duration::ZERO), (56 * MS, 8 * MS)]);
        assert_eq!(rtt.smoothed, 41 * MS);
        let rtt = fed(&[(40 * MS, Duration::ZERO), (41 * MS, 30 * MS)]);
        assert_eq!(rtt.latest, 40 * MS, "a lie about the wait makes no miracles");
    }

    #[test]
    fn a_repeated_acknowledgement_says_little_but_more_than_nothing() {
        let rtt = fed(&[(540 * MS, 500 * MS)]);
        assert_eq!(rtt.measured(), Some(40 * MS));
        let rtt = fed(&[(40 * MS, Duration::ZERO), (535 * MS, 500 * MS)]);
        assert_eq!(rtt.smoothed, 40 * MS);
        assert_eq!(rtt.min, Some(40 * MS));
    }

    #[test]
    fn the_loss_delay_follows_the_larger_of_latest_and_smoothed() {
        let rtt = fed(&[(80 * MS, Duration::ZERO), (8 * MS, Duration::ZERO)]);
        assert_eq!(rtt.loss_delay(1), rtt.smoothed + rtt.smoothed / 8);
        let rtt = fed(&[(80 * MS, Duration::ZERO), (160 * MS, Duration::ZERO)]);
        assert_eq!(rtt.loss_delay(1), 180 * MS);
        assert_eq!(rtt.loss_delay(4), 240 * MS);
    }
}
