//! When to connect, when to give up, how long to wait: the link's decisions, on the caller's clock.
//!
//! ```text
//! Waiting ─ time ─▶ Connecting ─ established ─▶ Greeting ─ welcomed ─▶ Connected
//!    ▲                  │                          │ time                 │
//!    └─ failed, again ──┴──────────────────────────┴──────────────────────┘
//! ```

use std::time::{Duration, Instant};

use super::failure::{Failure, Kind};
use crate::status::LinkState;

/// How long a server may take to say welcome; it gives strangers 5 s.
const WELCOME_MS_MAX: u64 = 15_000;
/// Shortest pause before the next attempt.
const PAUSE_MS_MIN: u64 = 20;
/// First pause after a refusal, and the longest.
const REFUSED_PAUSE_MS_MIN: u64 = 5_000;
const REFUSED_PAUSE_MS_MAX: u64 = 300_000;
/// No server makes an agent stay away for longer when it stops.
const RETURN_MS_MAX: u32 = 60_000;

/// How patient the link is with a server that cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// The first pause is random up to this; it doubles with every failure.
    pub pause_min: Duration,
    /// No pause is longer.
    pub pause_max: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { pause_min: Duration::from_secs(1), pause_max: Duration::from_secs(60) }
    }
}

/// Where the link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waiting { until: Instant },
    Connecting,
    Greeting { until: Instant },
    Connected,
}

/// What the shell has to do after a timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Connect to this one of the servers.
    Connect(usize),
    /// The server does not say welcome: close, and report it as failed.
    GiveUp,
}

/// The link's decisions.
#[derive(Debug)]
pub struct Core {
    phase: Phase,
    patience: Patience,
    servers: usize,
    next_server: usize,
    failures: u32,
    /// Within what time to be back when the server stops, as it has said.
    return_within: Duration,
    random: u64,
}

impl Core {
    /// A link that connects at once. `seed` is for jitter only; `servers` is at least 1.
    pub fn new(now: Instant, servers: usize, patience: Patience, seed: u64) -> Self {
        Self {
            phase: Phase::Waiting { until: now },
            patience,
            servers: servers.max(1),
            next_server: 0,
            failures: 0,
            return_within: Duration::ZERO,
            random: seed,
        }
    }

    /// Where it is.
    pub fn state(&self) -> LinkState {
        match self.phase {
            Phase::Waiting { .. } => LinkState::Waiting,
            Phase::Connecting => LinkState::Connecting,
            Phase::Greeting { .. } => LinkState::Greeting,
            Phase::Connected => LinkState::Connected,
        }
    }

    /// Attempts that failed since the last welcome.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn next_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Waiting { until } | Phase::Greeting { until } => Some(until),
            Phase::Connecting | Phase::Connected => None,
        }
    }

    /// Does what time has made due.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Due> {
        match self.phase {
            Phase::Waiting { until } if until <= now => {
                self.phase = Phase::Connecting;
                Some(Due::Connect(self.next_server))
            }
            Phase::Greeting { until } if until <= now => Some(Due::GiveUp),
            _ => None,
        }
    }

    /// The channel stands.
    pub fn established(&mut self, now: Instant) {
        if self.phase == Phase::Connecting {
            self.phase = Phase::Greeting { until: now + Duration::from_millis(WELCOME_MS_MAX) };
        }
    }

    /// The server knows us, and says within how many milliseconds we should be back once it has stopped.
    pub fn welcomed(&mut self, return_within_ms: Option<u32>) {
        let ms = return_within_ms.unwrap_or(0).min(RETURN_MS_MAX);
        self.return_within = Duration::from_millis(ms.into());
        if matches!(self.phase, Phase::Greeting { .. }) {
            self.phase = Phase::Connected;
            self.failures = 0;
        }
    }

    /// The attempt or the connection is over; another one follows after a pause.
    ///
    /// Pauses are random so that many agents do not come back at one moment. The other servers are tried
    /// before the pause gets longer.
    pub fn failed(&mut self, now: Instant, failure: &Failure) {
        if matches!(self.phase, Phase::Waiting { .. }) {
            return;
        }
        if self.phase != Phase::Connected {
            self.next_server = (self.next_server + 1) % self.servers;
        }
        let rounds = self.failures / u32::try_from(self.servers).unwrap_or(u32::MAX);
        self.failures = self.failures.saturating_add(1);
        let pause = match failure.kind {
            Kind::Unreachable => {
                let longest = doubled(self.patience.pause_min, rounds).min(self.patience.pause_max);
                self.random_below(longest)
            }
            Kind::ServerStops => self.random_below(self.patience.pause_min.max(self.return_within)),
            Kind::Refused | Kind::Superseded => {
                let longest = doubled(Duration::from_millis(REFUSED_PAUSE_MS_MIN), rounds)
                    .min(Duration::from_millis(REFUSED_PAUSE_MS_MAX));
                longest / 2 + self.random_below(longest / 2)
            }
        };
        let pause = pause.max(Duration::from_millis(PAUSE_MS_MIN));
        self.phase = Phase::Waiting { until: now + pause };
    }

    /// The connection was given up for a new one, which is wanted at once.
    pub fn again(&mut self, now: Instant) {
        self.phase = Phase::Waiting { until: now };
    }

    fn random_below(&mut self, limit: Duration) -> Duration {
        // SplitMix64: plenty for jitter.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let fraction = (z >> 11) as f64 / (1u64 << 53) as f64;
        limit.mul_f64(fraction)
    }
}

fn doubled(first: Duration, times: u32) -> Duration {
    first.saturating_mul(1u32.checked_shl(times).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use metadata_delivery::CloseCode;

    use super::*;

    fn unreachable() -> Failure {
        Failure::unreachable("s:1", "nobody")
    }

    fn refused() -> Failure {
        Failure::of_close("s:1", "a", CloseCode::UnknownAgent, "who?")
    }

    fn core(servers: usize, seed: u64) -> (Core, Instant) {
        let now = Instant::now();
        (Core::new(now, servers, Patience::default(), seed), now)
    }

    /// Lets one attempt fail; returns the pause after it.
    fn fail(core: &mut Core, now: &mut Instant, failure: &Failure) -> Duration {
        *now = core.next_timeout().unwrap().max(*now);
        assert!(matches!(core.handle_timeout(*now), Some(Due::Connect(_))));
        core.failed(*now, failure);
        core.next_timeout().unwrap() - *now
    }

    #[test]
    fn every_transition_is_as_drawn() {
        type Input = (&'static str, fn(&mut Core, Instant));
        let inputs: [Input; 5] = [
            ("time", |core, now| {
                core.handle_timeout(now + Duration::from_secs(3600));
            }),
            ("established", |core, now| core.established(now)),
            ("welcomed", |core, _| core.welcomed(None)),
            ("failed", |core, now| core.failed(now, &unreachable())),
            ("again", |core, now| core.again(now)),
        ];
        let mut table = String::new();
        for reached in 0..4 {
            for (name, input) in inputs {
                let (mut core, now) = core(1, 1);
                for (_, step) in &inputs[..reached] {
                    step(&mut core, now);
                }
                let from = core.state();
                input(&mut core, now);
                table.push_str(&format!("{from:?} {name} {:?}\n", core.state()));
            }
        }
        insta::assert_snapshot!(table);
    }

    #[test]
    fn the_first_attempt_is_made_at_once() {
        let (mut core, now) = core(1, 1);
        assert_eq!(core.handle_timeout(now), Some(Due::Connect(0)));
        assert_eq!(core.handle_timeout(now), None, "one attempt at a time");
    }

    #[test]
    fn when_the_server_stops_a_fleet_is_back_within_the_time_that_the_server_has_named() {
        let stops = Failure::of_close("s:1", "a", CloseCode::Shutdown, "the server stops");
        for (named, least, most) in [(None, 800, 1_000), (Some(5_000), 4_500, 5_000)] {
            let pauses = (0..200).map(|seed| {
                let (mut core, now) = core(1, seed);
                core.handle_timeout(now);
                core.established(now);
                core.welcomed(named);
                core.failed(now, &stops);
                core.next_timeout().unwrap() - now
            });
            let longest = pauses.max().unwrap();
            let range = Duration::from_millis(least)..=Duration::from_millis(most);
            assert!(range.contains(&longest), "{longest:?} of {named:?}");
        }
        let (mut core, now) = core(1, 1);
        core.welcomed(Some(u32::MAX));
        assert_eq!(core.return_within, Duration::from_secs(60));
        // Another failure is no reason to stay away for longer.
        core.handle_timeout(now);
        core.failed(now, &unreachable());
        assert!(core.next_timeout().unwrap() - now <= Duration::from_secs(1));
    }

    #[test]
    fn pauses_grow_to_their_cap_are_random_and_start_anew_after_a_welcome() {
        let mut longest = Duration::ZERO;
        let mut first = Vec::new();
        for seed in 0..200 {
            let (mut core, mut now) = core(1, seed);
            first.push(fail(&mut core, &mut now, &unreachable()));
            for _ in 0..40 {
                longest = longest.max(fail(&mut core, &mut now, &unreachable()));
            }
            now = core.next_timeout().unwrap();
            core.handle_timeout(now);
            core.established(now);
            core.welcomed(None);
            core.failed(now, &unreachable());
            let pause = core.next_timeout().unwrap() - now;
            assert!(pause <= Duration::from_secs(1), "{pause:?} after a welcome");
        }
        assert!(longest <= Duration::from_secs(60) && longest > Duration::from_secs(50));
        assert!(first.iter().all(|p| *p <= Duration::from_secs(1)));
        let spread = first.iter().max().unwrap().saturating_sub(*first.iter().min().unwrap());
        assert!(spread > Duration::from_millis(800), "many agents are spread over {spread:?}");
    }

    #[test]
    fn a_refused_agent_tries_slowly_but_never_stops() {
        let (mut core, mut now) = core(1, 3);
        let mut pauses = Vec::new();
        for _ in 0..50 {
            pauses.push(fail(&mut core, &mut now, &refused()));
        }
        assert!(pauses[0] >= Duration::from_millis(2_500), "{:?}", pauses[0]);
        assert!(pauses.iter().all(|p| *p <= Duration::from_secs(300)));
        assert!(*pauses.last().unwrap() >= Duration::from_secs(150));
    }

    #[test]
    fn all_servers_are_tried_before_pauses_get_longer() {
        let (mut core, mut now) = core(3, 4);
        let mut tried = Vec::new();
        for _ in 0..6 {
            now = core.next_timeout().unwrap().max(now);
            let Some(Due::Connect(server)) = core.handle_timeout(now) else { panic!() };
            tried.push(server);
            core.failed(now, &unreachable());
            let limit = if tried.len() <= 3 { 1 } else { 2 };
            assert!(core.next_timeout().unwrap() - now <= Duration::from_secs(limit));
        }
        assert_eq!(tried, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn a_server_that_was_fine_is_the_first_to_be_tried_again() {
        let (mut core, mut now) = core(2, 4);
        fail(&mut core, &mut now, &unreachable());
        now = core.next_timeout().unwrap();
        assert_eq!(core.handle_timeout(now), Some(Due::Connect(1)));
        core.established(now);
        core.welcomed(None);
        core.failed(now, &unreachable());
        now = core.next_timeout().unwrap();
        assert_eq!(core.handle_timeout(now), Some(Due::Connect(1)));
    }

    #[test]
    fn a_server_that_never_says_welcome_is_given_up() {
        let (mut core, now) = core(1, 5);
        core.handle_timeout(now);
        core.established(now);
        let until = core.next_timeout().unwrap();
        assert_eq!(until - now, Duration::from_millis(WELCOME_MS_MAX));
        assert_eq!(core.handle_timeout(until), Some(Due::GiveUp));
    }
}
