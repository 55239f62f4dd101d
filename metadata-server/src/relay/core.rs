//! When each signal is tried, and what becomes of it: on the caller's clock, in milliseconds since 1970.
//!
//! ```text
//! waiting ─ due ─▶ on its way ─ taken ───────▶ sent
//!    ▲                  ├─ refused ──────────▶ refused, too late, none
//!    └── back-off ──────┴─ may be better later
//! ```

use std::collections::{BTreeSet, HashMap};

use certs::AgentId;

use crate::store::signals::{Signal, SignalState};

/// Pause after the first failed attempt, about; it doubles with each.
pub const BACKOFF_FIRST_MS: u64 = 1_000;
/// Longest pause.
pub const BACKOFF_MAX_MS: u64 = 300_000;
/// A signal that was not taken for so long is given up: Heat has given up its stack before.
pub const AGE_MAX_MS: u64 = 24 * 3_600_000;
/// Signals of one agent on their way at the same time: a place that does not answer, to which one agent's
/// deployments are signalled, does not keep others' from theirs.
pub const PER_AGENT_MAX: usize = 2;

/// So often in a row it may not be found out what to do about a signal: more than an hour, at the pauses above.
pub const UNDECIDED_MAX: u32 = 20;

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It was taken.
    Taken {
        /// The answer.
        status: u16,
        /// Which way it went.
        by: String,
    },
    /// Another attempt may do better.
    Later {
        /// Why.
        reason: String,
    },
    /// No attempt will.
    Refused {
        /// The answer, if there was one.
        status: Option<u16>,
        /// Why.
        reason: String,
    },
    /// Nobody waits for it any more.
    TooLate {
        /// The answer, if there was one.
        status: Option<u16>,
        /// Why.
        reason: String,
    },
    /// Nobody wants it.
    Unwanted {
        /// Why.
        reason: String,
    },
    /// It could not be found out; this is no attempt. After [`UNDECIDED_MAX`] in a row the signal waits for the
    /// next start.
    Undecided,
    /// There is no such signal any more.
    Gone,
}

/// The relay's decisions.
#[derive(Debug)]
pub struct Core {
    due: BTreeSet<(u64, u64)>,
    signals: HashMap<u64, Known>,
    /// Agents of which some are on their way.
    agents: HashMap<AgentId, Busy>,
    on_their_way: usize,
    at_once_max: usize,
    random: u64,
}

/// A signal that waits or is on its way.
#[derive(Debug)]
struct Known {
    agent: AgentId,
    attempts: u32,
    /// How often in a row it could not be found out what to do.
    undecided: u32,
}

#[derive(Debug, Default)]
struct Busy {
    on_their_way: usize,
    /// Due, and kept back until one of those has ended.
    kept_back: BTreeSet<(u64, u64)>,
}

impl Core {
    /// Sends so many at once. `seed` is for jitter only.
    pub fn new(at_once_max: usize, seed: u64) -> Self {
        Self {
            due: BTreeSet::new(),
            signals: HashMap::new(),
            agents: HashMap::new(),
            on_their_way: 0,
            at_once_max,
            random: seed,
        }
    }

    /// Takes in an agent's signal that waits. A time further away than the longest pause is a clock's mistake.
    pub fn queued(&mut self, now_unix_ms: u64, number: u64, agent: AgentId, signal: &Signal) {
        let SignalState::Waiting { next_unix_ms, .. } = signal.state else { return };
        let known = Known { agent, attempts: signal.attempts, undecided: 0 };
        if self.signals.insert(number, known).is_none() {
            self.due.insert((next_unix_ms.min(now_unix_ms + BACKOFF_MAX_MS), number));
        }
    }

    /// When to ask [`Core::next`], in milliseconds since 1970; `None`: not before an attempt has ended
    /// or a signal comes.
    pub fn next_timeout(&self) -> Option<u64> {
        let has_room = self.on_their_way < self.at_once_max;
        self.due.first().map(|(at, _)| *at).filter(|_| has_room)
    }

    /// A signal to try now; its end is to be told to [`Core::ended`].
    pub fn next(&mut self, now_unix_ms: u64) -> Option<u64> {
        loop {
            self.next_timeout().filter(|at| *at <= now_unix_ms)?;
            let (at, number) = self.due.pop_first()?;
            let Some(known) = self.signals.get(&number) else { continue };
            let busy = self.agents.entry(known.agent.clone()).or_default();
            if busy.on_their_way >= PER_AGENT_MAX {
                busy.kept_back.insert((at, number));
                continue;
            }
            busy.on_their_way += 1;
            self.on_their_way += 1;
            return Some(number);
        }
    }

    /// Whether no attempt is under way.
    pub fn is_idle(&self) -> bool {
        self.on_their_way == 0
    }

    /// How many wait or are on their way.
    pub fn waiting(&self) -> usize {
        self.signals.len()
    }

    /// Where a signal that was stored at `stored_unix_ms` stands after an attempt; `None`: as before.
    pub fn ended(
        &mut self,
        now_unix_ms: u64,
        number: u64,
        stored_unix_ms: u64,
        verdict: Verdict,
    ) -> Option<Signal> {
        let Known { agent, attempts: before, undecided } = self.signals.remove(&number)?;
        self.on_their_way = self.on_their_way.saturating_sub(1);
        if let Some(busy) = self.agents.get_mut(&agent) {
            busy.on_their_way = busy.on_their_way.saturating_sub(1);
            self.due.extend(busy.kept_back.pop_first());
            if busy.on_their_way == 0 && busy.kept_back.is_empty() {
                self.agents.remove(&agent);
            }
        }
        let at_unix_ms = now_unix_ms;
        let (state, attempts) = match verdict {
            Verdict::Taken { status, by } => {
                (SignalState::Sent { at_unix_ms, status, by }, before + 1)
            }
            Verdict::Refused { status, reason } => {
                (SignalState::Refused { at_unix_ms, status, reason }, before + 1)
            }
            Verdict::TooLate { status, reason } => {
                (SignalState::TooLate { at_unix_ms, status, reason }, before + 1)
            }
            Verdict::Unwanted { reason } => (SignalState::None { reason }, before),
            Verdict::Later { reason }
                if now_unix_ms.saturating_sub(stored_unix_ms) >= AGE_MAX_MS =>
            {
                let hours = AGE_MAX_MS / 3_600_000;
                let reason =
                    format!("given up after {hours} h and {} attempts: {reason}", before + 1);
                (SignalState::Refused { at_unix_ms, status: None, reason }, before + 1)
            }
            Verdict::Later { reason } => {
                let known = Known { agent, attempts: before + 1, undecided: 0 };
                let next_unix_ms = self.later(now_unix_ms, number, known);
                (SignalState::Waiting { next_unix_ms, reason: Some(reason) }, before + 1)
            }
            Verdict::Undecided if undecided < UNDECIDED_MAX => {
                let known = Known { agent, attempts: before, undecided: undecided + 1 };
                self.later(now_unix_ms, number, known);
                return None;
            }
            Verdict::Undecided => {
                tracing::error!(
                    number,
                    "a signal cannot be read again and again: not before the next start"
                );
                return None;
            }
            Verdict::Gone => return None,
        };
        Some(Signal { state, attempts })
    }

    /// What [`Core::ended`] said could not be stored: the signal is tried once more.
    pub fn not_stored(&mut self, now_unix_ms: u64, number: u64, agent: AgentId, signal: &Signal) {
        if !signal.is_waiting() {
            let known = Known { agent, attempts: signal.attempts, undecided: 0 };
            self.later(now_unix_ms, number, known);
        }
    }

    /// Plans the next attempt after so many.
    fn later(&mut self, now_unix_ms: u64, number: u64, known: Known) -> u64 {
        let doublings = known.attempts.max(known.undecided).saturating_sub(1).min(16);
        let longest = (BACKOFF_FIRST_MS << doublings).min(BACKOFF_MAX_MS);
        // Between half of it and all, so that many do not come back at one moment.
        let next = now_unix_ms + longest / 2 + self.random_below(longest / 2 + 1);
        self.signals.insert(number, known);
        self.due.insert((next, number));
        next
    }

    fn random_below(&mut self, limit: u64) -> u64 {
        // SplitMix64: plenty for jitter.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn later() -> Verdict {
        Verdict::Later { reason: "503".into() }
    }

    fn agent(id: &str) -> AgentId {
        id.parse().unwrap()
    }

    fn core() -> Core {
        let mut core = Core::new(2, 1);
        core.queued(1_000, 7, agent("a"), &Signal::new(1_000));
        core
    }

    #[test]
    fn every_end_of_an_attempt_has_its_state() {
        let status = Some(403);
        let verdicts = [
            Verdict::Taken { status: 200, by: "http://h/x via POST".into() },
            later(),
            Verdict::Refused { status, reason: "no".into() },
            Verdict::TooLate { status: Some(404), reason: "gone".into() },
            Verdict::Unwanted { reason: "NO_SIGNAL".into() },
            Verdict::Undecided,
            Verdict::Gone,
        ];
        let mut table = String::new();
        for verdict in verdicts {
            for stored_unix_ms in [1_000, 1_000 + AGE_MAX_MS] {
                let mut core = core();
                let now = 2_000 + AGE_MAX_MS;
                assert_eq!(core.next(now), Some(7));
                let signal = core.ended(now, 7, stored_unix_ms, verdict.clone());
                let mut shown = serde_json::to_string(&signal).unwrap();
                if let Some(next) = core.next_timeout() {
                    shown = shown.replace(&next.to_string(), "soon");
                }
                table += &format!(
                    "{verdict:?}\n  stored {stored_unix_ms}: {shown}, waiting: {}\n",
                    core.waiting()
                );
            }
        }
        insta::assert_snapshot!(table);
    }

    #[test]
    fn pauses_double_with_jitter_up_to_their_cap_until_it_is_given_up() {
        let mut core = core();
        let (mut now, mut pauses) = (1_000, Vec::new());
        loop {
            now = core.next_timeout().unwrap().max(now);
            assert_eq!(core.next(now), Some(7));
            let signal = core.ended(now, 7, 1_000, later()).unwrap();
            let SignalState::Waiting { next_unix_ms, .. } = signal.state else {
                assert!(
                    matches!(&signal.state, SignalState::Refused { reason, .. } if reason.contains("given up"))
                );
                break;
            };
            pauses.push(next_unix_ms - now);
        }
        for (n, pause) in pauses.iter().enumerate() {
            let longest = (BACKOFF_FIRST_MS << n.min(16)).min(BACKOFF_MAX_MS);
            assert!((longest / 2..=longest).contains(pause), "{n}: {pause}");
        }
        let given_up = 1_000 + AGE_MAX_MS;
        assert!((given_up..=given_up + BACKOFF_MAX_MS).contains(&now));
        assert!(pauses.len() < 700, "{} attempts in a day", pauses.len());
        assert_eq!((core.next_timeout(), core.waiting()), (None, 0));
        let of_seed = |seed| {
            let mut core = Core::new(1, seed);
            core.queued(0, 1, agent("a"), &Signal::new(0));
            core.next(0);
            core.ended(0, 1, 0, later());
            core.next_timeout().unwrap()
        };
        let spread: BTreeSet<u64> = (0..50).map(of_seed).collect();
        assert!(spread.len() > 25, "{spread:?}");
    }

    #[test]
    fn as_many_are_on_their_way_as_allowed_and_the_one_due_first_goes_first() {
        let mut core = Core::new(2, 1);
        for (number, at) in [(1, 30), (2, 10), (3, 20)] {
            core.queued(0, number, agent(&number.to_string()), &Signal::new(at));
        }
        assert_eq!((core.next_timeout(), core.next(9)), (Some(10), None));
        assert_eq!((core.next(30), core.next(30)), (Some(2), Some(3)));
        assert_eq!((core.next_timeout(), core.next(99)), (None, None), "two are on their way");
        core.ended(40, 2, 0, Verdict::Gone);
        assert_eq!((core.next(40), core.waiting()), (Some(1), 2));
    }

    #[test]
    fn one_agents_signals_take_two_places_and_all_of_them_get_their_turn() {
        let mut core = Core::new(8, 1);
        for number in 0..20 {
            core.queued(0, number, agent("a"), &Signal::new(number));
        }
        core.queued(0, 100, agent("b"), &Signal::new(50));
        let mut under_way: Vec<u64> = std::iter::from_fn(|| core.next(60)).collect();
        assert_eq!(under_way, [0, 1, 100], "the other agent's does not wait for them");
        assert_eq!(core.next_timeout(), None, "nothing to wake up for");
        core.ended(60, 100, 0, Verdict::Gone);
        under_way.pop();
        let mut ended = Vec::new();
        while let Some(number) = under_way.pop() {
            assert!(under_way.len() < PER_AGENT_MAX);
            core.ended(60, number, 0, Verdict::Gone);
            ended.push(number);
            under_way.extend(std::iter::from_fn(|| core.next(60)));
        }
        ended.sort_unstable();
        assert_eq!(ended, (0..20).collect::<Vec<_>>());
        assert!(core.is_idle() && core.agents.is_empty() && core.waiting() == 0);
    }

    #[test]
    fn a_signal_is_not_sent_twice_because_it_is_queued_twice() {
        let mut core = core();
        core.queued(1_000, 7, agent("a"), &Signal::new(1_000));
        assert_eq!((core.next(2_000), core.next(2_000)), (Some(7), None));
    }

    #[test]
    fn what_is_taken_and_cannot_be_stored_is_sent_again() {
        let mut core = core();
        core.next(1_000);
        let taken = Verdict::Taken { status: 200, by: "x".into() };
        let signal = core.ended(1_000, 7, 1_000, taken).unwrap();
        assert_eq!(core.next_timeout(), None);
        core.not_stored(1_000, 7, agent("a"), &signal);
        assert!(core.next_timeout().is_some());
    }

    #[test]
    fn attempts_go_on_counting_after_a_restart_and_a_wrong_clock_delays_nothing_for_long() {
        let mut core = Core::new(1, 1);
        let state = SignalState::Waiting { next_unix_ms: u64::MAX, reason: None };
        core.queued(1_000, 7, agent("a"), &Signal { state, attempts: 9 });
        let at = core.next_timeout().unwrap();
        assert_eq!(at, 1_000 + BACKOFF_MAX_MS);
        core.next(at);
        assert_eq!(core.ended(at, 7, 1_000, later()).unwrap().attempts, 10);
    }

    #[test]
    fn a_signal_that_cannot_be_read_is_tried_ever_less_often_and_not_for_ever() {
        let mut core = core();
        let (mut now, mut pauses) = (1_000, Vec::new());
        while let Some(number) = core.next(now) {
            assert_eq!(core.ended(now, number, now, Verdict::Undecided), None);
            let Some(next) = core.next_timeout() else { break };
            pauses.push(next - now);
            now = next;
        }
        assert_eq!((pauses.len(), core.waiting()), (UNDECIDED_MAX as usize, 0));
        assert!(pauses[0] <= BACKOFF_FIRST_MS && pauses[19] >= BACKOFF_MAX_MS / 2, "{pauses:?}");
        // What was read once begins anew.
        core.queued(now, 8, agent("a"), &Signal::new(now));
        for verdict in [Verdict::Undecided, later()] {
            assert_eq!(core.next(core.next_timeout().unwrap()), Some(8));
            core.ended(now, 8, now, verdict);
        }
        assert_eq!(core.signals[&8].undecided, 0);
    }
}
