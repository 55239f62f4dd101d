use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use super::Rng;
use crate::Ecn;

/// How a [`Link`] treats datagrams. Probabilities are 0.0 to 1.0.
#[derive(Debug, Clone)]
pub struct LinkConfig {
    /// One-way propagation delay.
    pub delay: Duration,
    /// Extra delay, uniform in `0..=jitter`; more than the gap between datagrams reorders them.
    pub jitter: Duration,
    /// Probability that a datagram is lost.
    pub loss: f64,
    /// Losses in bursts of this many datagrams in the mean, 1.0 or more, as in Gilbert's model
    /// (a Gilbert–Elliott channel whose good state loses nothing and whose bad state loses
    /// everything; each datagram moves it on). `loss` stays the share that is lost in the long run.
    /// `None`: the fate of one datagram says nothing about the next.
    pub loss_burst: Option<f64>,
    /// The same in time: outages of this length in the mean, in which everything is lost, however much or little is
    /// sent. `loss` stays the share of time. Goes before `loss_burst`.
    pub loss_outage: Option<Duration>,
    /// Probability that a datagram arrives twice.
    pub duplicate: f64,
    /// Probability that a datagram is held back by `reorder_by`.
    pub reorder: f64,
    /// How long a reordered datagram is held back.
    pub reorder_by: Duration,
    /// Largest datagram carried, in bytes of UDP payload; larger ones vanish, as on a path with a
    /// small MTU and no ICMP.
    pub mtu: usize,
    /// Bottleneck rate in bytes per second; `None` is infinitely fast.
    pub rate_bytes_per_s: Option<u64>,
    /// Bytes that may wait for the bottleneck before the tail is dropped.
    pub queue_bytes: usize,
    /// With more than so many bytes waiting, the bottleneck marks datagrams whose sender understands that, and drops
    /// others (RFC 3168 §5). `None`: it marks none.
    pub mark_above_bytes: Option<usize>,
    /// What a faulty path does to marks.
    pub mangle: Mangle,
}

/// What a faulty path does to congestion marks (RFC 3168).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mangle {
    /// Nothing: it is sound.
    #[default]
    Nothing,
    /// Takes them away.
    Bleach,
    /// Drops every datagram that has one.
    Drop,
    /// Says of every datagram that has one that it met congestion.
    Congest,
}

impl Default for LinkConfig {
    /// 20 ms, lossless, in order, 1,472 bytes, no bottleneck.
    fn default() -> Self {
        Self {
            delay: Duration::from_millis(20),
            jitter: Duration::ZERO,
            loss: 0.0,
            loss_burst: None,
            loss_outage: None,
            duplicate: 0.0,
            reorder: 0.0,
            reorder_by: Duration::from_millis(15),
            mtu: 1_472,
            rate_bytes_per_s: None,
            queue_bytes: 125_000,
            mark_above_bytes: None,
            mangle: Mangle::Nothing,
        }
    }
}

/// What happened to the datagrams pushed into a [`Link`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Datagrams pushed.
    pub pushed: u64,
    /// Bytes pushed.
    pub pushed_bytes: u64,
    /// Datagrams lost at random.
    pub lost: u64,
    /// Datagrams dropped because the bottleneck queue was full.
    pub overflowed: u64,
    /// Datagrams dropped because they exceeded the MTU.
    pub oversized: u64,
    /// Extra copies made.
    pub duplicated: u64,
    /// Datagrams held back.
    pub reordered: u64,
    /// Datagrams marked because of the bottleneck's queue.
    pub congested: u64,
}

/// One direction of a network path on a virtual clock: loss, delay, duplication, reordering, MTU
/// and a bottleneck, all decided by a seed.
#[derive(Debug)]
pub struct Link {
    config: LinkConfig,
    rng: Rng,
    in_flight: BinaryHeap<Flying>,
    order: u64,
    bottleneck_free_at: Option<Instant>,
    /// Whether the last datagram fell into a burst of losses; `None` before the first.
    in_burst: Option<bool>,
    /// Whether the last datagram fell into an outage, and when; `None` before the first.
    outage: Option<(bool, Instant)>,
    stats: LinkStats,
}

#[derive(Debug)]
struct Flying {
    due: Instant,
    order: u64,
    ecn: Ecn,
    datagram: Vec<u8>,
}

impl Link {
    /// A link whose whole behaviour follows from `seed`.
    #[must_use]
    pub fn new(seed: u64, config: LinkConfig) -> Self {
        Self {
            config,
            rng: Rng::new(seed),
            in_flight: BinaryHeap::new(),
            order: 0,
            bottleneck_free_at: None,
            in_burst: None,
            outage: None,
            stats: LinkStats::default(),
        }
    }

    /// Replaces the behaviour for datagrams pushed from now on.
    pub fn reconfigure(&mut self, config: LinkConfig) {
        self.config = config;
    }

    /// What happened so far.
    #[must_use]
    pub fn stats(&self) -> LinkStats {
        self.stats
    }

    /// Bytes that wait for the bottleneck, or are passing it.
    #[must_use]
    pub fn queued_bytes(&self, now: Instant) -> usize {
        let waits = self.bottleneck_free_at.map_or(Duration::ZERO, |free| free.duration_since(now));
        let rate = self.config.rate_bytes_per_s.unwrap_or(0);
        (waits.as_secs_f64() * rate as f64) as usize
    }

    /// Sends one datagram into the link.
    pub fn push(&mut self, now: Instant, datagram: Vec<u8>) {
        self.push_marked(now, Ecn::NotEct, datagram);
    }

    /// Sends one datagram into the link, with what its IP header says about congestion.
    pub fn push_marked(&mut self, now: Instant, ecn: Ecn, datagram: Vec<u8>) {
        self.stats.pushed += 1;
        self.stats.pushed_bytes += datagram.len() as u64;
        if datagram.len() > self.config.mtu {
            self.stats.oversized += 1;
            return;
        }
        let Some((leaves_at, ecn)) = self.pass_bottleneck(now, ecn, datagram.len()) else {
            self.stats.overflowed += 1;
            return;
        };
        let dropped = self.config.mangle == Mangle::Drop && ecn != Ecn::NotEct;
        if self.loses(leaves_at) || dropped {
            self.stats.lost += 1;
            return;
        }
        if self.rng.chance(self.config.duplicate) {
            self.stats.duplicated += 1;
            self.launch(leaves_at, ecn, datagram.clone());
        }
        self.launch(leaves_at, ecn, datagram);
    }

    /// Decides the fate of the next datagram.
    fn loses(&mut self, at: Instant) -> bool {
        let loss = self.config.loss;
        if let Some(outage) = self.config.loss_outage.filter(|_| loss < 1.0) {
            return self.is_out(at, outage);
        }
        let Some(burst) = self.config.loss_burst.filter(|_| loss < 1.0) else {
            return self.rng.chance(loss);
        };
        let ends = 1.0 / burst.max(1.0);
        // In the long run as many bursts begin as end.
        let begins = ends * loss / (1.0 - loss);
        let lost = match self.in_burst {
            None => self.rng.chance(loss),
            Some(true) => !self.rng.chance(ends),
            Some(false) => self.rng.chance(begins),
        };
        self.in_burst = Some(lost);
        lost
    }

    /// Whether there is an outage at this moment: a process with two states in time, looked at now and then.
    fn is_out(&mut self, at: Instant, outage: Duration) -> bool {
        let loss = self.config.loss;
        // How fast what was says less about what is: as outages end, and as others begin.
        let forgets = 1.0 / outage.as_secs_f64().max(1e-6) / (1.0 - loss);
        let likely = self.outage.map_or(loss, |(was_out, before)| {
            let since = at.saturating_duration_since(before).as_secs_f64();
            loss + (f64::from(u8::from(was_out)) - loss) * (-since * forgets).exp()
        });
        let out = self.rng.chance(likely);
        self.outage = Some((out, at));
        out
    }

    /// When a datagram leaves the bottleneck, and how it is marked then.
    fn pass_bottleneck(&mut self, now: Instant, ecn: Ecn, length: usize) -> Option<(Instant, Ecn)> {
        let Some(rate) = self.config.rate_bytes_per_s else { return Some((now, ecn)) };
        let starts_at = self.bottleneck_free_at.map_or(now, |free| free.max(now));
        let queued = (starts_at - now).as_secs_f64() * rate as f64;
        if queued as usize + length > self.config.queue_bytes {
            return None;
        }
        let long = self.config.mark_above_bytes.is_some_and(|above| queued as usize > above);
        let ecn = match ecn {
            Ecn::NotEct if long => return None,
            _ if long => Ecn::Ce,
            _ => ecn,
        };
        self.stats.congested += u64::from(long);
        let done = starts_at + Duration::from_secs_f64(length as f64 / rate as f64);
        self.bottleneck_free_at = Some(done);
        Some((done, ecn))
    }

    fn launch(&mut self, leaves_at: Instant, ecn: Ecn, datagram: Vec<u8>) {
        let ecn = match (self.config.mangle, ecn) {
            (_, Ecn::NotEct) | (Mangle::Bleach, _) => Ecn::NotEct,
            (Mangle::Congest, _) => Ecn::Ce,
            (Mangle::Nothing | Mangle::Drop, ecn) => ecn,
        };
        let jitter_us = self.rng.below(self.config.jitter.as_micros() as u64 + 1);
        let mut due = leaves_at + self.config.delay + Duration::from_micros(jitter_us);
        if self.rng.chance(self.config.reorder) {
            self.stats.reordered += 1;
            due += self.config.reorder_by;
        }
        self.order += 1;
        self.in_flight.push(Flying { due, order: self.order, ecn, datagram });
    }

    /// When the next datagram arrives.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.in_flight.peek().map(|f| f.due)
    }

    /// Takes the next datagram that has arrived by `now`.
    pub fn pop(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.pop_marked(now).map(|(_, datagram)| datagram)
    }

    /// The same with what its IP header says about congestion.
    pub fn pop_marked(&mut self, now: Instant) -> Option<(Ecn, Vec<u8>)> {
        if self.next_due()? > now {
            return None;
        }
        self.in_flight.pop().map(|f| (f.ecn, f.datagram))
    }

    /// Forgets everything in flight, as when a path changes.
    pub fn clear(&mut self) {
        self.in_flight.clear();
    }
}

// Reversed, so that the heap's maximum is what arrives first.
impl Ord for Flying {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.due, other.order).cmp(&(self.due, self.order))
    }
}
impl PartialOrd for Flying {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Flying {
    fn eq(&self, other: &Self) -> bool {
        (self.due, self.order) == (other.due, other.order)
    }
}
impl Eq for Flying {}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a virtual clock starts somewhere")]
mod tests {
    use super::*;

    fn drain(link: &mut Link) -> Vec<(Instant, Vec<u8>)> {
        let mut got = Vec::new();
        while let Some(due) = link.next_due() {
            while let Some(datagram) = link.pop(due) {
                got.push((due, datagram));
            }
        }
        got
    }

    #[test]
    fn a_plain_link_delivers_in_order_after_its_delay() {
        let t0 = Instant::now();
        let mut link = Link::new(1, LinkConfig::default());
        for i in 0..10u8 {
            link.push(t0, vec![i]);
        }
        let got = drain(&mut link);
        assert_eq!(got.iter().map(|(_, d)| d[0]).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
        assert!(got.iter().all(|(at, _)| *at == t0 + Duration::from_millis(20)));
    }

    #[test]
    fn loss_duplication_reordering_and_mtu_happen_and_are_counted() {
        let t0 = Instant::now();
        let config = LinkConfig {
            loss: 0.3,
            duplicate: 0.2,
            reorder: 0.2,
            mtu: 100,
            ..LinkConfig::default()
        };
        let mut link = Link::new(2, config);
        for i in 0..1_000u64 {
            link.push(t0 + Duration::from_millis(i), i.to_be_bytes().to_vec());
        }
        link.push(t0, vec![0; 101]);
        let stats = link.stats();
        let got = drain(&mut link);
        assert!((250..350).contains(&stats.lost), "{stats:?}");
        assert_eq!(stats.oversized, 1);
        assert_eq!(got.len() as u64, 1_000 - stats.lost + stats.duplicated);
        assert!(got.windows(2).any(|w| w[0].1 > w[1].1), "nothing was reordered");
    }

    #[test]
    fn losses_in_bursts_have_the_share_and_the_mean_length_that_were_asked_for() {
        const DATAGRAMS: u32 = 100_000;
        let t0 = Instant::now();
        for (loss, burst) in [(0.05, 3.0), (0.3, 3.0), (0.1, 8.0), (0.3, 8.0)] {
            let config = LinkConfig { loss, loss_burst: Some(burst), ..LinkConfig::default() };
            let mut link = Link::new(4, config);
            let (mut lost, mut bursts, mut was_lost) = (0, 0, false);
            for _ in 0..DATAGRAMS {
                let before = link.stats().lost;
                link.push(t0, vec![0]);
                let is_lost = link.stats().lost > before;
                lost += u32::from(is_lost);
                bursts += u32::from(is_lost && !was_lost);
                was_lost = is_lost;
            }
            let share = f64::from(lost) / f64::from(DATAGRAMS);
            assert!((share / loss - 1.0).abs() < 0.05, "{share} instead of {loss}");
            let mean = f64::from(lost) / f64::from(bursts);
            assert!((mean / burst - 1.0).abs() < 0.05, "{mean} instead of {burst}");
        }
    }

    #[test]
    fn a_path_that_loses_everything_does_so_in_bursts_too() {
        let t0 = Instant::now();
        let config = LinkConfig { loss: 1.0, loss_burst: Some(3.0), ..LinkConfig::default() };
        let mut link = Link::new(5, config);
        (0..100).for_each(|_| link.push(t0, vec![0]));
        assert_eq!(link.stats().lost, 100);
    }

    #[test]
    fn outages_last_their_time_and_take_their_share_whatever_is_sent() {
        for gap_ms in [1_u64, 5] {
            let (t0, outage) = (Instant::now(), Duration::from_millis(20));
            let config =
                LinkConfig { loss: 0.2, loss_outage: Some(outage), ..LinkConfig::default() };
            let mut link = Link::new(7, config);
            let mut lost = Vec::new();
            for n in 0..100_000 {
                let before = link.stats().lost;
                link.push(t0 + Duration::from_millis(gap_ms * n), vec![0]);
                lost.push(link.stats().lost > before);
            }
            let share = link.stats().lost as f64 / lost.len() as f64;
            assert!((0.19..0.21).contains(&share), "{share}");
            let ends = lost.windows(2).filter(|pair| pair[0] && !pair[1]).count();
            let lasts = link.stats().lost * gap_ms / ends as u64;
            assert!((18..=26).contains(&lasts), "{lasts} ms, seen every {gap_ms} ms");
        }
    }

    #[test]
    fn a_bottleneck_spaces_datagrams_and_drops_what_does_not_fit_its_queue() {
        let t0 = Instant::now();
        let config = LinkConfig {
            rate_bytes_per_s: Some(1_000_000),
            queue_bytes: 10_000,
            ..LinkConfig::default()
        };
        let mut link = Link::new(3, config);
        for _ in 0..20 {
            link.push(t0, vec![0; 1_000]);
        }
        assert_eq!(link.stats().overflowed, 10);
        assert_eq!(link.queued_bytes(t0), 10_000);
        assert_eq!(link.queued_bytes(t0 + Duration::from_millis(4)), 6_000);
        assert_eq!(link.queued_bytes(t0 + Duration::from_secs(1)), 0);
        let got = drain(&mut link);
        assert_eq!(got[9].0 - got[0].0, Duration::from_millis(9));
    }

    #[test]
    fn a_long_queue_marks_what_may_be_marked_and_drops_the_rest() {
        let t0 = Instant::now();
        let config = LinkConfig {
            rate_bytes_per_s: Some(1_000_000),
            queue_bytes: 10_000,
            mark_above_bytes: Some(4_000),
            ..LinkConfig::default()
        };
        let mut link = Link::new(6, config);
        for _ in 0..10 {
            link.push_marked(t0, Ecn::Ect0, vec![0; 1_000]);
            link.push(t0, vec![0; 1_000]);
        }
        let stats = link.stats();
        assert_eq!((stats.congested, stats.overflowed), (5, 10), "{stats:?}");
        let got: Vec<Ecn> = std::iter::from_fn(|| link.pop_marked(t0 + Duration::from_secs(1)))
            .map(|(ecn, _)| ecn)
            .collect();
        let early = [Ecn::Ect0, Ecn::NotEct, Ecn::Ect0, Ecn::NotEct, Ecn::Ect0];
        assert_eq!((&got[..5], &got[5..]), (&early[..], &[Ecn::Ce; 5][..]));
    }

    #[test]
    fn a_faulty_path_does_to_marks_what_it_was_told_to() {
        let t0 = Instant::now();
        for (mangle, arrives) in [
            (Mangle::Nothing, Some(Ecn::Ect0)),
            (Mangle::Bleach, Some(Ecn::NotEct)),
            (Mangle::Congest, Some(Ecn::Ce)),
            (Mangle::Drop, None),
        ] {
            let mut link = Link::new(7, LinkConfig { mangle, ..LinkConfig::default() });
            link.push_marked(t0, Ecn::Ect0, vec![1]);
            link.push(t0, vec![2]);
            let mut pop = || link.pop_marked(t0 + Duration::from_secs(1));
            if let Some(ecn) = arrives {
                assert_eq!(pop(), Some((ecn, vec![1])), "{mangle:?}");
            }
            assert_eq!(pop(), Some((Ecn::NotEct, vec![2])), "{mangle:?}");
        }
    }
}
