//! How large packets may be: a search upwards with padded probes, and the way back when large
//! packets stop arriving (RFC 8899, whose names are in brackets).
//!
//! ```text
//!            a larger size may do       sent
//! settled ──────────────────────▶ searching ◀──────────────────▶ probing
//!    ▲  [SEARCH_COMPLETE]             │ [SEARCHING]   acked, lost
//!    └────────────────────────────────┘
//!              nothing left to try
//! ```
//!
//! Only packets that anyway get through count as current. Losing a probe says nothing about
//! congestion, and costs nobody data. Sizes are those of packets, in bytes; what the channel adds
//! is its affair.

use std::time::{Duration, Instant};

/// Losses of one size before it counts as too large [MAX_PROBES].
const PROBES_MAX: u8 = 3;

/// The search ends when no more than this could be gained, in bytes.
const STEP_BYTES: u16 = 16;

/// When a search is over, how long until the next, should the path have become wider
/// [PMTU_RAISE_TIMER].
const AGAIN_AFTER: Duration = Duration::from_secs(600);

/// How long after falling back the search begins anew.
const PAUSE_AFTER_FALL: Duration = Duration::from_secs(1);

/// This many large packets lost, and none arrived in between, make a black hole. At 30 % random loss
/// that happens by chance to one packet in some two thousand, and costs a round trip or two of
/// smaller packets.
const BLACK_HOLE_PACKETS: u8 = 6;

/// The largest packet of one path.
#[derive(Debug)]
pub(crate) struct PathMtu {
    /// What always fits [MIN_PLPMTU].
    floor: u16,
    /// What the session began with [BASE_PLPMTU].
    base: u16,
    /// The largest to try [MAX_PLPMTU].
    max: u16,
    /// What packets may have [PLPMTU].
    current: u16,
    /// The smallest that seems not to arrive.
    too_large: u16,
    /// Losses of the size that is tried.
    failures: u8,
    /// Large packets lost that were sent after the last one known to have arrived.
    losses: u8,
    /// When that one was sent.
    proven_at: Option<Instant>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Settled { again_at: Option<Instant> },
    Searching { not_before: Option<Instant> },
    Probing,
}

impl PathMtu {
    /// `base` is believed until it fails; nothing above `max` is tried.
    pub(crate) fn new(floor: usize, base: usize, max: usize) -> Self {
        let bytes = |n: usize| u16::try_from(n).unwrap_or(u16::MAX - 1);
        let (base, max) = (bytes(base), bytes(max.max(base)));
        let mut this = Self {
            floor: bytes(floor).min(base),
            base,
            max,
            current: base,
            too_large: max + 1,
            failures: 0,
            losses: 0,
            proven_at: None,
            state: State::Settled { again_at: None },
        };
        this.search(None);
        this
    }

    /// The longest packet to write, probes apart.
    pub(crate) fn payload_max(&self) -> usize {
        usize::from(self.current)
    }

    /// What fits in any case.
    pub(crate) fn floor(&self) -> usize {
        usize::from(self.floor)
    }

    /// The size of the probe to send now, if any; to be asked while there is more to send than fits
    /// a packet. Call [`probe_sent`](Self::probe_sent) if it is.
    pub(crate) fn probe_size(&mut self, now: Instant) -> Option<usize> {
        match self.state {
            State::Settled { again_at: None } if self.current < self.max => {
                self.state = State::Settled { again_at: Some(now + AGAIN_AFTER) };
            }
            State::Settled { again_at: Some(at) } if at <= now => {
                self.too_large = self.max + 1;
                self.search(None);
            }
            _ => {}
        }
        match self.state {
            State::Searching { not_before } if not_before.is_none_or(|at| at <= now) => {
                Some(usize::from(self.candidate()))
            }
            _ => None,
        }
    }

    pub(crate) fn probe_sent(&mut self) {
        self.state = State::Probing;
    }

    /// A probe of this size has arrived.
    pub(crate) fn probe_acked(&mut self, bytes: usize) {
        // A late one may be larger than what was called too large since.
        let bytes = u16::try_from(bytes).unwrap_or(0);
        if bytes > self.current {
            self.current = bytes;
            self.too_large = self.too_large.max(bytes + 1);
            self.failures = 0;
            self.losses = 0;
        }
        self.search(None);
    }

    /// A probe was lost, or could not be sent.
    pub(crate) fn probe_failed(&mut self) {
        if self.state != State::Probing {
            return;
        }
        self.failures += 1;
        if self.failures == PROBES_MAX {
            self.too_large = self.candidate();
            self.failures = 0;
        }
        self.search(None);
    }

    /// A packet that was no probe has arrived.
    pub(crate) fn packet_acked(&mut self, sent_at: Instant, bytes: usize) {
        if bytes > usize::from(self.fallback()) {
            self.losses = 0;
            self.proven_at = self.proven_at.max(Some(sent_at));
        }
    }

    /// A packet that was no probe is lost.
    pub(crate) fn packet_lost(&mut self, now: Instant, sent_at: Instant, bytes: usize) {
        // What is larger than the present size was sent before the last fall.
        let small = bytes <= usize::from(self.fallback());
        if small || bytes > usize::from(self.current) || self.proven_at >= Some(sent_at) {
            return;
        }
        self.losses += 1;
        if self.losses == BLACK_HOLE_PACKETS {
            self.too_large = self.current;
            self.current = self.fallback();
            (self.losses, self.failures) = (0, 0);
            self.search(Some(now + PAUSE_AFTER_FALL));
        }
    }

    /// Where to fall when packets of the current size do not arrive.
    fn fallback(&self) -> u16 {
        if self.current > self.base { self.base } else { self.floor }
    }

    /// First the whole way, which is right on most paths; then halves.
    fn candidate(&self) -> u16 {
        if self.too_large > self.max {
            self.max
        } else {
            self.current + (self.too_large - self.current) / 2
        }
    }

    fn search(&mut self, not_before: Option<Instant>) {
        let worthwhile = if self.too_large > self.max {
            self.current < self.max
        } else {
            self.too_large - self.current > STEP_BYTES
        };
        self.state = if worthwhile {
            State::Searching { not_before }
        } else {
            State::Settled { again_at: None }
        };
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;
    use crate::testing::start;

    const FLOOR: usize = 768;
    const BASE: usize = 1_150;

    /// Searches on a path that carries packets of up to `path` bytes and nothing larger; answers
    /// with the sizes tried.
    fn search(mtu: &mut PathMtu, now: Instant, path: usize) -> Vec<usize> {
        let mut tried = Vec::new();
        while let Some(bytes) = mtu.probe_size(now) {
            tried.push(bytes);
            mtu.probe_sent();
            assert_eq!(mtu.probe_size(now), None, "one at a time");
            if bytes <= path { mtu.probe_acked(bytes) } else { mtu.probe_failed() }
        }
        tried
    }

    fn lose(mtu: &mut PathMtu, sent_at: Instant, packets: usize) {
        for _ in 0..packets {
            mtu.packet_lost(start(), sent_at, mtu.payload_max());
        }
    }

    #[test]
    fn the_widest_path_takes_one_probe_and_a_narrow_one_is_found_to_the_step() {
        let mut wide = PathMtu::new(FLOOR, BASE, 1_415);
        assert_eq!(search(&mut wide, start(), 1_435), [1_415]);
        assert_eq!(wide.payload_max(), 1_415);
        for path in (BASE..1_415).step_by(7) {
            let mut mtu = PathMtu::new(FLOOR, BASE, 1_415);
            let tried = search(&mut mtu, start(), path);
            assert!(tried.len() <= 3 * 6, "{tried:?}");
            let found = mtu.payload_max();
            assert!(found <= path && path - found <= usize::from(STEP_BYTES), "{found} of {path}");
        }
    }

    #[test]
    fn without_a_larger_size_to_try_nothing_is_probed() {
        for max in [0, BASE] {
            let mut mtu = PathMtu::new(FLOOR, BASE, max);
            assert_eq!(mtu.probe_size(start()), None);
            assert_eq!(mtu.probe_size(start() + AGAIN_AFTER * 2), None);
            assert_eq!(mtu.payload_max(), BASE);
        }
    }

    #[test]
    fn a_size_is_given_up_after_three_losses_in_a_row() {
        let mut mtu = PathMtu::new(FLOOR, BASE, 1_415);
        for _ in 0..PROBES_MAX - 1 {
            assert_eq!(mtu.probe_size(start()), Some(1_415));
            mtu.probe_sent();
            mtu.probe_failed();
            mtu.probe_failed();
        }
        assert_eq!(search(&mut mtu, start(), 2_000), [1_415], "the third got through");
    }

    #[test]
    fn a_finished_search_begins_anew_after_ten_minutes() {
        let mut mtu = PathMtu::new(FLOOR, BASE, 1_415);
        search(&mut mtu, start(), 1_300);
        let found = mtu.payload_max();
        let almost = start() + AGAIN_AFTER - Duration::from_secs(1);
        assert!(search(&mut mtu, almost, 1_435).is_empty());
        assert_eq!(search(&mut mtu, start() + AGAIN_AFTER, 1_435), [1_415]);
        assert!(mtu.payload_max() > found);
    }

    #[test]
    fn a_black_hole_leads_back_to_the_base_and_from_there_to_the_floor() {
        let mut mtu = PathMtu::new(FLOOR, BASE, 1_415);
        search(&mut mtu, start(), 1_435);
        let at = |ms| start() + Duration::from_millis(ms);
        lose(&mut mtu, at(1), usize::from(BLACK_HOLE_PACKETS) - 1);
        mtu.packet_acked(at(2), 1_400);
        lose(&mut mtu, at(2), 100);
        lose(&mut mtu, at(3), usize::from(BLACK_HOLE_PACKETS) - 1);
        mtu.packet_acked(at(4), BASE);
        assert_eq!(mtu.payload_max(), 1_415, "small packets prove nothing, later large ones do");
        lose(&mut mtu, at(5), 1);
        assert_eq!(mtu.payload_max(), BASE);
        // What was sent before does not count against the smaller size.
        for _ in 0..20 {
            mtu.packet_lost(start(), at(5), 1_415);
        }
        assert_eq!(mtu.payload_max(), BASE);
        assert_eq!(mtu.probe_size(start()), None, "a pause first");
        lose(&mut mtu, at(6), usize::from(BLACK_HOLE_PACKETS));
        assert_eq!(mtu.payload_max(), FLOOR);
        lose(&mut mtu, at(7), 100);
        assert_eq!(mtu.payload_max(), FLOOR, "there is nothing below");
        let found = search(&mut mtu, start() + PAUSE_AFTER_FALL, 863).last().copied();
        assert!(found.is_some() && (847..=863).contains(&mtu.payload_max()));
    }

    #[test]
    fn every_state_with_everything_that_may_happen() {
        let mut picture = String::new();
        let now = start();
        type Step = fn(&mut PathMtu, Instant);
        let probing: Step = |mtu, now| {
            mtu.probe_size(now);
            mtu.probe_sent();
        };
        let states: [(&str, Step); 4] = [
            ("searching", |_, _| {}),
            ("probing", probing),
            ("settled", |mtu, now| drop(search(mtu, now, 1_435))),
            ("fallen", |mtu, now| {
                search(mtu, now, 1_435);
                lose(mtu, now, usize::from(BLACK_HOLE_PACKETS));
            }),
        ];
        let inputs: [(&str, Step); 8] = [
            ("asked for a probe", |mtu, now| _ = mtu.probe_size(now)),
            ("asked a second later", |mtu, now| {
                _ = mtu.probe_size(now + Duration::from_secs(1));
            }),
            ("probe sent", |mtu, _| mtu.probe_sent()),
            ("probe acked", |mtu, _| mtu.probe_acked(1_300)),
            ("probe failed", |mtu, _| mtu.probe_failed()),
            ("large packet acked", |mtu, now| mtu.packet_acked(now, mtu.payload_max())),
            ("large packet lost", |mtu, now| lose(mtu, now, 1)),
            ("six of them", |mtu, now| lose(mtu, now, 6)),
        ];
        for (state, prepare) in states {
            for (input, step) in inputs {
                let mut mtu = PathMtu::new(FLOOR, BASE, 1_415);
                prepare(&mut mtu, now);
                step(&mut mtu, now);
                let PathMtu { current, too_large, failures, losses, state: after, .. } = mtu;
                let after = match after {
                    State::Settled { again_at: None } => "settled".to_owned(),
                    State::Settled { again_at: Some(at) } => format!("settled for {:?}", at - now),
                    State::Searching { not_before: None } => "searching".to_owned(),
                    State::Searching { not_before: Some(at) } => {
                        format!("searching after {:?}", at - now)
                    }
                    State::Probing => "probing".to_owned(),
                };
                let line =
                    format!("{current} below {too_large}, failures {failures}, losses {losses}");
                writeln!(picture, "{state}, {input} -> {after}: {line}").expect("a string");
            }
        }
        insta::assert_snapshot!(picture);
    }
}
