//! What an agent's hooks have printed of late, in memory, while somebody watches.
//!
//! A watcher compares this with what it has shown ([`Seen`]) and gets the difference, so one that is slow misses the
//! middle and holds up nobody. Nothing of it is stored: what counts is the result.

use std::collections::BTreeMap;

use metadata_delivery::message::{Log, LogPiece, LogPosition};
use serde::Serialize;

/// Bytes of text kept for one agent, over all runs.
pub const LOG_HELD_BYTES_MAX: usize = 64 << 10;
/// Runs kept for one agent.
pub const LOG_RUNS_HELD_MAX: usize = 64;

/// Where the agent stands with the request for its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It is not connected.
    #[default]
    Away,
    /// It was asked.
    Asked,
    /// It has answered.
    Answered,
    /// It does not know such requests: it is of an older release.
    Unable,
}

/// See the module's text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentLog {
    /// Where the agent stands.
    pub standing: Standing,
    /// In the order of their first pieces.
    runs: Vec<RunLog>,
}

/// The end of what one run has printed.
#[derive(Clone, PartialEq, Eq)]
struct RunLog {
    config_id: String,
    name: String,
    run: u64,
    started_unix_ms: u64,
    /// The agent's position after the last byte.
    to: u64,
    text: String,
    /// Bytes of text that ever came, `text` included.
    came: u64,
    ended: bool,
}

/// Output of a hook may hold secrets: only its size is shown.
impl std::fmt::Debug for RunLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes = self.text.len();
        write!(f, "RunLog({} run {}, {bytes} of {} bytes)", self.config_id, self.run, self.came)
    }
}

/// What a watcher has shown, by config and run.
#[derive(Debug, Default)]
pub struct Seen(BTreeMap<(String, u64), (u64, bool)>);

/// What a watcher has not shown yet, of one run.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct News {
    /// Id of the config.
    pub config_id: String,
    /// Its name.
    pub name: String,
    /// Which of its runs, from 1.
    pub run: u64,
    /// When it was started, in milliseconds since 1970.
    pub started_unix_ms: u64,
    /// Bytes of text before this that the watcher was too slow, or came too late, for.
    pub left_out: u64,
    /// The text.
    pub text: String,
    /// The run has ended; its result says all of it.
    pub ended: bool,
}

/// Output of a hook may hold secrets: only its size is shown.
impl std::fmt::Debug for News {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "News({} run {}, {} bytes)", self.config_id, self.run, self.text.len())
    }
}

impl AgentLog {
    /// Takes in what the agent says. `is_first`: it answers a new request, and so names all that runs.
    pub fn take(&mut self, log: Log, is_first: bool) {
        if is_first {
            let is_named = |run: &RunLog| log.runs.iter().any(|piece| run.is_of(piece));
            self.runs.iter_mut().filter(|run| !is_named(run)).for_each(|run| run.ended = true);
        }
        for piece in log.runs {
            match self.runs.iter_mut().find(|run| run.is_of(&piece)) {
                Some(run) => run.append(piece),
                None => {
                    let mut run = RunLog::new(&piece);
                    run.append(piece);
                    self.runs.push(run);
                }
            }
            self.bound();
        }
    }

    /// How much of what goes on is here.
    pub fn has(&self) -> Vec<LogPosition> {
        let going_on = self.runs.iter().filter(|run| !run.ended);
        let position = |run: &RunLog| LogPosition {
            config_id: run.config_id.clone(),
            run: run.run,
            to: run.to,
        };
        going_on.map(position).collect()
    }

    /// What a watcher has not shown yet; from here on it has.
    pub fn news(&self, seen: &mut Seen) -> Vec<News> {
        let mut all = Vec::new();
        for run in &self.runs {
            let key = (run.config_id.clone(), run.run);
            let before = seen.0.insert(key, (run.came, run.ended));
            if before == Some((run.came, run.ended)) {
                continue;
            }
            let shown = before.map_or(0, |(shown, _)| shown);
            let begin = run.came - run.text.len() as u64;
            let at = usize::try_from(shown.saturating_sub(begin)).unwrap_or(usize::MAX);
            all.push(News {
                config_id: run.config_id.clone(),
                name: run.name.clone(),
                run: run.run,
                started_unix_ms: run.started_unix_ms,
                left_out: begin.saturating_sub(shown),
                text: run.text.get(at..).unwrap_or_default().to_owned(),
                ended: run.ended,
            });
        }
        let is_kept = |(config_id, number): &(String, u64)| {
            self.runs.iter().any(|run| run.config_id == *config_id && run.run == *number)
        };
        seen.0.retain(|key, _| is_kept(key));
        all
    }

    /// Bytes of text held.
    pub fn held_bytes(&self) -> usize {
        self.runs.iter().map(|run| run.text.len()).sum()
    }

    /// Forgets the oldest text and runs beyond the limits.
    fn bound(&mut self) {
        while self.runs.len() > LOG_RUNS_HELD_MAX {
            let oldest = self.runs.iter().position(|run| run.ended).unwrap_or(0);
            self.runs.remove(oldest);
        }
        let mut surplus = self.held_bytes().saturating_sub(LOG_HELD_BYTES_MAX);
        for run in &mut self.runs {
            let cut = (surplus.min(run.text.len())..=run.text.len())
                .find(|&at| run.text.is_char_boundary(at))
                .unwrap_or(run.text.len());
            run.text.drain(..cut);
            surplus = surplus.saturating_sub(cut);
        }
    }
}

impl RunLog {
    fn new(piece: &LogPiece) -> Self {
        Self {
            config_id: piece.config_id.clone(),
            name: piece.name.clone(),
            run: piece.run,
            started_unix_ms: piece.started_unix_ms,
            to: 0,
            text: String::new(),
            came: 0,
            ended: false,
        }
    }

    fn is_of(&self, piece: &LogPiece) -> bool {
        self.config_id == piece.config_id && self.run == piece.run
    }

    fn append(&mut self, piece: LogPiece) {
        let LogPiece { from, to, text, ended, .. } = piece;
        if from > self.to {
            let line = if self.text.is_empty() || self.text.ends_with('\n') { "" } else { "\n" };
            self.add(&format!("{line}[metadata-server: {} bytes left out]\n", from - self.to));
        }
        // From before what is here: an agent that has forgotten begins anew, and is believed.
        self.to = to;
        self.ended |= ended;
        self.add(&text);
    }

    fn add(&mut self, text: &str) {
        self.text.push_str(text);
        self.came += text.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn piece(id: &str, from: u64, text: &str) -> LogPiece {
        LogPiece {
            config_id: id.into(),
            name: format!("name of {id}"),
            run: 1,
            started_unix_ms: 1,
            from,
            to: from + text.len() as u64,
            text: text.into(),
            ended: false,
        }
    }

    fn log(runs: &[LogPiece]) -> Log {
        Log { request: 1, runs: runs.to_vec() }
    }

    fn shown(log: &AgentLog, seen: &mut Seen) -> String {
        log.news(seen).into_iter().map(|news| news.text).collect()
    }

    #[test]
    fn watchers_get_what_they_have_not_shown_whenever_they_come() {
        let (mut held, mut first) = (AgentLog::default(), Seen::default());
        held.take(log(&[piece("a", 0, "one\n")]), true);
        assert_eq!(shown(&held, &mut first), "one\n");
        assert_eq!(held.news(&mut first), []);
        held.take(log(&[piece("a", 4, "two\n")]), false);
        let mut second = Seen::default();
        assert_eq!(shown(&held, &mut second), "one\ntwo\n");
        assert_eq!(shown(&held, &mut first), "two\n");
        let has = LogPosition { config_id: "a".into(), run: 1, to: 8 };
        assert_eq!(held.has(), [has]);
        let end = LogPiece { ended: true, ..piece("a", 8, "") };
        held.take(log(&[end]), false);
        let [news] = &held.news(&mut first)[..] else { panic!() };
        assert!(news.ended && news.text.is_empty());
        assert_eq!((held.news(&mut first), held.has()), (vec![], vec![]));
    }

    #[test]
    fn what_the_agent_left_out_is_said_in_a_line_of_its_own() {
        let (mut held, mut seen) = (AgentLog::default(), Seen::default());
        held.take(log(&[piece("a", 5, "x")]), true);
        held.take(log(&[piece("a", 16, "y\n")]), false);
        held.take(log(&[piece("a", 20, "z\n")]), false);
        let left_out = |bytes| format!("[metadata-server: {bytes} bytes left out]\n");
        let expected = format!("{}x\n{}y\n{}z\n", left_out(5), left_out(10), left_out(2));
        assert_eq!(shown(&held, &mut seen), expected);
    }

    #[test]
    fn what_an_agent_does_not_name_in_its_first_answer_has_ended() {
        let (mut held, mut seen) = (AgentLog::default(), Seen::default());
        held.take(log(&[piece("a", 0, "x"), piece("b", 0, "y")]), true);
        held.take(log(&[piece("b", 1, "z")]), false);
        assert_eq!(held.has().len(), 2, "nothing new is no end");
        held.news(&mut seen);
        held.take(log(&[piece("b", 2, "")]), true);
        let [news] = &held.news(&mut seen)[..] else { panic!() };
        assert!(news.config_id == "a" && news.ended);
    }

    #[test]
    fn an_agent_that_has_forgotten_what_it_sent_begins_anew() {
        let (mut held, mut seen) = (AgentLog::default(), Seen::default());
        held.take(log(&[piece("a", 0, "one\n")]), true);
        assert_eq!(shown(&held, &mut seen), "one\n");
        held.take(log(&[piece("a", 0, "uno\n")]), true);
        assert_eq!(shown(&held, &mut seen), "uno\n");
        assert_eq!(held.has()[0].to, 4);
    }

    #[test]
    fn a_watcher_that_is_too_slow_is_told_how_much_it_has_missed() {
        let (mut held, mut seen) = (AgentLog::default(), Seen::default());
        held.take(log(&[piece("a", 0, "x")]), true);
        held.news(&mut seen);
        for n in 0..3 {
            held.take(log(&[piece("a", 1 + n * 40_000, &"ä".repeat(20_000))]), false);
        }
        let [news] = &held.news(&mut seen)[..] else { panic!() };
        assert_eq!(news.left_out + news.text.len() as u64, 120_000);
        assert!(news.text.len() > LOG_HELD_BYTES_MAX - 4);
    }

    proptest! {
        #[test]
        fn whatever_agents_say_is_held_within_the_limits(
            pieces in prop::collection::vec(
                (0..90u32, 0..3u64, any::<u64>(), any::<u64>(), "\\PC{0,60}", 0..900usize, any::<bool>()),
                0..200,
            ),
            firsts in prop::collection::vec(any::<bool>(), 1..4),
        ) {
            let (mut held, mut seen) = (AgentLog::default(), Seen::default());
            for (n, (id, run, one, other, text, times, ended)) in pieces.into_iter().enumerate() {
                let (from, to) = (one.min(other), one.max(other));
                let text = text.repeat(times);
                let piece = LogPiece { run, from, to, text, ended, ..piece(&id.to_string(), 0, "") };
                held.take(log(&[piece]), firsts[n % firsts.len()]);
                prop_assert!(held.held_bytes() <= LOG_HELD_BYTES_MAX);
                prop_assert!(held.runs.len() <= LOG_RUNS_HELD_MAX);
                prop_assert!(held.has().len() <= LOG_RUNS_HELD_MAX);
                if n % 3 == 0 {
                    let bytes: usize = held.news(&mut seen).iter().map(|news| news.text.len()).sum();
                    prop_assert!(bytes <= LOG_HELD_BYTES_MAX && seen.0.len() <= LOG_RUNS_HELD_MAX);
                    prop_assert_eq!(held.news(&mut seen), vec![]);
                }
            }
        }
    }
}
