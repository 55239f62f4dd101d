//! What running hooks print, for somebody who watches at the server: when it is sent, and what of it. Decisions only.
//!
//! ```text
//! Off ── asked ──▶ Waiting ── time, if there is news ──▶ UnderWay
//!  ▲                  ▲                                     │
//!  └─ asked to stop   └──────────── taken ──────────────────┘
//!     or cut off
//! ```
//!
//! One document is under way at a time. What is printed meanwhile goes with the next one, and of more than fits it
//! the end: however slow the path, there is no queue. The server's request says what it has, so nothing is
//! remembered here from one association to the next.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use metadata_delivery::message::{LOG_RUNS_MAX, Log, LogPiece, LogRequest, Message};
use tokio::time::Instant;

use crate::redact::Redactor;

/// Logs are at least this far apart.
pub(super) const LOG_INTERVAL_MS: u64 = 500;
/// Bytes of output in one log at most, over all runs.
pub(super) const LOG_TEXT_BYTES_MAX: usize = 32 << 10;
/// With a log that is too long for its message, no run's share becomes smaller; some wait for the next one.
const SHARE_BYTES_MIN: usize = 256;
/// Runs that have ended and of which the end is still to be sent; the oldest makes room.
const ENDED_MAX: usize = 8;
/// What may be the beginning of a secret waits for more up to this length.
const HELD_BACK_BYTES_MAX: usize = 16 << 10;

/// A run, by its config and number.
pub(super) type Key = (String, u64);

/// What one run has printed, as far as it is at hand.
#[derive(Debug)]
pub(super) struct Printed<'r> {
    pub(super) key: Key,
    pub(super) name: String,
    pub(super) started_unix_ms: u64,
    /// Position of the first of `bytes`.
    pub(super) from: u64,
    pub(super) bytes: Vec<u8>,
    pub(super) redactor: &'r Redactor,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Off,
    Waiting,
    UnderWay,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Follow {
    state: State,
    request: u64,
    /// What the server has, or will have once what is under way is taken.
    has: BTreeMap<Key, u64>,
    /// Ends of runs, not sent yet.
    ended: VecDeque<LogPiece>,
    /// There may be something to send.
    news: bool,
    /// The request was not answered yet.
    unanswered: bool,
    not_before: Option<Instant>,
}

impl Follow {
    pub(super) fn new() -> Self {
        Self {
            state: State::Off,
            request: 0,
            has: BTreeMap::new(),
            ended: VecDeque::new(),
            news: false,
            unanswered: false,
            not_before: None,
        }
    }

    /// The server says whether somebody watches.
    pub(super) fn asked(&mut self, request: &LogRequest) {
        self.cut_off();
        if request.wanted {
            let has = request.has.iter().map(|has| ((has.config_id.clone(), has.run), has.to));
            self.has = has.collect();
            self.request = request.request;
            self.state = State::Waiting;
            self.news = true;
            self.unanswered = true;
        }
    }

    /// The association is over, or the server takes no log.
    pub(super) fn cut_off(&mut self) {
        // Its pace outlives a request, so that asking often does not make it faster.
        *self = Self { not_before: self.not_before, ..Self::new() };
    }

    /// Whether anybody watches.
    pub(super) fn is_on(&self) -> bool {
        self.state != State::Off
    }

    /// A hook was started, or has printed something.
    pub(super) fn news(&mut self) {
        self.news = true;
    }

    /// A run has ended. `printed`: from what [`position`](Self::position) said on.
    pub(super) fn ended(&mut self, printed: Printed<'_>) {
        if !self.is_on() {
            return;
        }
        let before = self.position(&printed.key);
        let key = printed.key.clone();
        let piece = piece(printed, before, LOG_TEXT_BYTES_MAX, true);
        self.has.remove(&key);
        if self.ended.len() == ENDED_MAX {
            self.ended.pop_front();
        }
        self.ended.push_back(piece);
        self.news = true;
    }

    /// From where on the output of a run is of interest.
    pub(super) fn position(&self, key: &Key) -> u64 {
        self.has.get(key).copied().unwrap_or(0)
    }

    /// When [`make`](Self::make) may have something.
    pub(super) fn next_at(&self, now: Instant) -> Option<Instant> {
        let waits = self.state == State::Waiting && self.news;
        waits.then(|| self.not_before.map_or(now, |at| at.max(now)))
    }

    /// The log to send now, if there is one. `running`: all that runs, from their [`position`](Self::position) on.
    pub(super) fn make(&mut self, now: Instant, running: Vec<Printed<'_>>) -> Option<Log> {
        if self.next_at(now).is_none_or(|at| at > now) {
            return None;
        }
        self.news = false;
        let share = LOG_TEXT_BYTES_MAX / (running.len() + self.ended.len()).max(1);
        let mut pieces: Vec<LogPiece> = self.ended.drain(..).map(|p| shortened(p, share)).collect();
        for printed in running {
            let key = printed.key.clone();
            let before = self.position(&key);
            let piece = piece(printed, before, share, false);
            if self.unanswered || piece.to != before || !self.has.contains_key(&key) {
                pieces.push(piece);
            }
        }
        if pieces.is_empty() && !self.unanswered {
            return None;
        }
        let (log, later) = fitting(self.request, pieces);
        for piece in &log.runs {
            if !piece.ended {
                self.has.insert((piece.config_id.clone(), piece.run), piece.to);
            }
        }
        // What goes on is found again; what has ended is not.
        self.news = !later.is_empty();
        self.ended = later.into_iter().filter(|piece| piece.ended).collect();
        self.unanswered = false;
        self.state = State::UnderWay;
        self.not_before = Some(now + Duration::from_millis(LOG_INTERVAL_MS));
        Some(log)
    }

    /// The server has what was under way for this request.
    pub(super) fn taken(&mut self, request: u64) {
        if self.state == State::UnderWay && request == self.request {
            self.state = State::Waiting;
        }
    }
}

/// The end of what was printed, `share` bytes at most, as text that shows no secret. What may be the beginning of one
/// is left for the next piece, unless the run has `ended`.
fn piece(printed: Printed<'_>, before: u64, share: usize, ended: bool) -> LogPiece {
    let Printed { key: (config_id, run), name, started_unix_ms, from, bytes, redactor } = printed;
    let cut = bytes.len().saturating_sub(share);
    let mut rest = &bytes[cut..];
    let follows_on = from == before && cut == 0;
    if !follows_on {
        let inside = rest.iter().take(3).take_while(|&&byte| byte & 0xc0 == 0x80).count();
        rest = &rest[inside..];
    }
    let from = from + (bytes.len() - rest.len()) as u64;
    let whole = String::from_utf8_lossy(rest);
    let closed = redactor.closed(&whole);
    let all = ended || whole.len() - closed > HELD_BACK_BYTES_MAX;
    let taken = bytes_of(rest, if all { whole.len() } else { closed }, ended);
    let text = String::from_utf8_lossy(&rest[..taken]);
    let text =
        if follows_on && !all { redactor.redact(&text) } else { redactor.redact_part(&text) };
    let (to, text) = (from + taken as u64, text.into_owned());
    LogPiece { config_id, name, run, started_unix_ms, from, to, text, ended }
}

/// How many bytes the first `shown` bytes of their text stand for; a character that is cut at the end is for the next
/// piece, unless there is none.
fn bytes_of(bytes: &[u8], shown: usize, ended: bool) -> usize {
    let (mut text, mut raw) = (0, 0);
    for chunk in bytes.utf8_chunks() {
        let valid = chunk.valid().len();
        if text + valid >= shown {
            return raw + (shown - text);
        }
        text += valid + char::REPLACEMENT_CHARACTER.len_utf8();
        raw += valid + chunk.invalid().len();
        let is_cut = raw == bytes.len()
            && std::str::from_utf8(chunk.invalid()).is_err_and(|e| e.error_len().is_none());
        if is_cut && !ended {
            return raw - chunk.invalid().len();
        }
        if text >= shown {
            return raw;
        }
    }
    raw
}

/// A piece whose text has at most so many bytes: its end. Where that begins among the bytes printed is not known, and
/// so it counts as if all before were hidden.
fn shortened(mut piece: LogPiece, share: usize) -> LogPiece {
    let surplus = piece.text.len().saturating_sub(share);
    let cut = (surplus..=piece.text.len()).find(|&at| piece.text.is_char_boundary(at));
    let cut = cut.unwrap_or(piece.text.len());
    piece.text.drain(..cut);
    piece.from = piece.to.min(piece.from + cut as u64);
    piece
}

/// As many pieces as one message takes, shortened as far as need be, and those that have to wait.
fn fitting(request: u64, mut pieces: Vec<LogPiece>) -> (Log, Vec<LogPiece>) {
    let mut later = pieces.split_off(pieces.len().min(LOG_RUNS_MAX));
    let mut share = LOG_TEXT_BYTES_MAX;
    let mut log = Log { request, runs: pieces };
    while log.to_document(1).is_err() && !log.runs.is_empty() {
        if share > SHARE_BYTES_MIN {
            share /= 2;
            log.runs = log.runs.into_iter().map(|piece| shortened(piece, share)).collect();
        } else {
            let half = log.runs.split_off(log.runs.len() / 2);
            later.splice(0..0, half);
        }
    }
    (log, later)
}

#[cfg(test)]
mod tests;
