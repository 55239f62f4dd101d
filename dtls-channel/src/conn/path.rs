//! Where the peer is (RFC 9146 §6), and the check that it really is there (RFC 9853).
//!
//! A newer record from elsewhere may be the peer behind a NAT that has forgotten it, or a copy that
//! somebody on the way has sent from an address of his own. So the old address is asked first
//! (RFC 9853 §5.2, the enhanced check): only if nobody answers there, or the peer says that it has
//! left, the new one is asked, and only its answer moves the association. Until then everything
//! goes on to the old address.

use std::time::{Duration, Instant};

use crate::config::AddressChange;
use crate::crypto::{random, same};
use crate::event::Path;
use crate::stats::{DropCause, Stats};

/// Challenges to one address in one check, each with a cookie of its own.
const CHALLENGES_MAX: usize = 3;
/// How long an answer may take where no round trip was measured (RFC 9853 §5.5).
const PATIENCE_UNKNOWN: Duration = Duration::from_secs(1);
/// And otherwise, in round trips.
const PATIENCE_ROUND_TRIPS: u32 = 3;
const PATIENCE_MIN: Duration = Duration::from_millis(100);
const PATIENCE_MAX: Duration = Duration::from_secs(10);
/// Bytes sent to an address that was not verified, for each byte that came from there.
const AMPLIFICATION_MAX: usize = 3;

const COOKIE_LEN: usize = 8;
const MESSAGE_LEN: usize = 1 + COOKIE_LEN;
/// RFC 9853 §4.
const PATH_CHALLENGE: u8 = 0;
const PATH_RESPONSE: u8 = 1;
const PATH_DROP: u8 = 2;

type Cookie = [u8; COOKIE_LEN];

/// A message of the check, type and cookie.
pub(super) type PathMessage = [u8; MESSAGE_LEN];

/// What the handshake settles about addresses.
#[derive(Debug, Clone, Copy)]
pub(super) struct PathRules {
    pub(super) address_change: AddressChange,
    /// The peer answers challenges.
    pub(super) return_routability: bool,
    pub(super) round_trip: Option<Duration>,
}

/// The answer to a challenge; `None` if `content` is none. The caller sends it where the challenge
/// came from, at once, and once (RFC 9853 §5.4).
pub(super) fn answer(content: &[u8]) -> Option<PathMessage> {
    let mut message = PathMessage::try_from(content).ok().filter(|m| m[0] == PATH_CHALLENGE)?;
    // We never leave a path by ourselves, so it is never a path_drop.
    message[0] = PATH_RESPONSE;
    Some(message)
}

/// True if an answer of `answer` bytes to a datagram of `question` bytes may go to an address that
/// nobody has verified.
pub(super) fn is_no_amplification(question: usize, answer: usize) -> bool {
    answer <= AMPLIFICATION_MAX * question
}

/// Follows the peer's address.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct PathWatch {
    address_change: AddressChange,
    return_routability: bool,
    patience_ms: u16,
    check: Option<Box<Check>>,
}

/// A check that goes on. There is one at a time.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
struct Check {
    candidate: Path,
    stage: Stage,
    next_at: Instant,
    interval: Duration,
    /// The cookies sent to the old address, then those to the new one.
    cookies: [Cookies; 2],
    /// Bytes from and to the candidate.
    received: usize,
    sent: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    AskOld,
    AskNew,
    /// Settled for the old address; the next check has to wait.
    Rest,
}

#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
struct Cookies {
    sent: usize,
    bytes: [Cookie; CHALLENGES_MAX],
}

impl Cookies {
    fn has(&self, cookie: &[u8]) -> bool {
        self.bytes[..self.sent].iter().any(|sent| same(sent, cookie))
    }

    fn add(&mut self, cookie: Cookie) {
        self.bytes[self.sent] = cookie;
        self.sent += 1;
    }

    fn is_full(&self) -> bool {
        self.sent == CHALLENGES_MAX
    }
}

impl PathWatch {
    pub(super) fn new(rules: PathRules) -> Self {
        let patience = rules.round_trip.map_or(PATIENCE_UNKNOWN, |trip| {
            trip.saturating_mul(PATIENCE_ROUND_TRIPS).clamp(PATIENCE_MIN, PATIENCE_MAX)
        });
        Self {
            address_change: rules.address_change,
            return_routability: rules.return_routability,
            patience_ms: patience.as_millis() as u16,
            check: None,
        }
    }

    /// True if the peer has agreed to checks.
    pub(super) fn checks(&self) -> bool {
        self.return_routability
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.check.as_ref().map(|check| check.next_at)
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(self.patience_ms.into())
    }

    /// Notes an authentic record of `bytes` that carried our id. True if the peer is to be followed
    /// to `from` at once.
    pub(super) fn saw(
        &mut self,
        now: Instant,
        from: Path,
        path: Path,
        bytes: usize,
        is_newest: bool,
        stats: &mut Stats,
    ) -> bool {
        if from.has_same_remote(&path) {
            // The peer has not left: what came from elsewhere was a copy, or a detour.
            if is_newest {
                self.settle_for_old(now, stats);
            }
            return false;
        }
        if let Some(check) = &mut self.check
            && check.candidate.has_same_remote(&from)
        {
            check.received = check.received.saturating_add(bytes);
            return false;
        }
        let follows = match self.address_change {
            AddressChange::Never => false,
            AddressChange::AfterReturnRoutability => self.return_routability,
            AddressChange::AfterNewestRecord => true,
        };
        if is_newest && follows {
            if !self.return_routability {
                return true;
            }
            match &mut self.check {
                None => {
                    stats.path_checks += 1;
                    let check = Check::new(now, from, bytes, self.patience());
                    self.check = Some(Box::new(check));
                    return false;
                }
                // The old address is being asked, which does not depend on the new one.
                Some(check) if check.stage == Stage::AskOld => {
                    (check.candidate, check.received) = (from, bytes);
                    return false;
                }
                Some(_) => {}
            }
        }
        stats.path_changes_ignored += 1;
        false
    }

    fn settle_for_old(&mut self, now: Instant, stats: &mut Stats) {
        let patience = self.patience();
        if let Some(check) = &mut self.check
            && check.stage != Stage::Rest
        {
            stats.path_checks_failed += 1;
            check.stage = Stage::Rest;
            check.next_at = now + patience;
        }
    }

    /// The next challenge that is due, and where it goes; sealed it has `bytes`. To be asked again
    /// until there is none.
    pub(super) fn next_challenge(
        &mut self,
        now: Instant,
        path: Path,
        bytes: usize,
        stats: &mut Stats,
    ) -> Option<(Path, PathMessage)> {
        let patience = self.patience();
        loop {
            let check = self.check.as_mut().filter(|check| check.next_at <= now)?;
            let [old, new] = &mut check.cookies;
            let (to, cookies) = match check.stage {
                Stage::AskOld if old.is_full() => {
                    check.ask_new(now, patience);
                    continue;
                }
                Stage::AskOld => (path, old),
                Stage::AskNew if !new.is_full() => (check.candidate, new),
                stage => {
                    if stage != Stage::Rest {
                        stats.path_checks_failed += 1;
                    }
                    self.check = None;
                    return None;
                }
            };
            let Ok(cookie) = random() else {
                // Nothing can be asked without.
                self.check = None;
                return None;
            };
            cookies.add(cookie);
            check.next_at = now + check.interval;
            if check.stage == Stage::AskNew {
                // The new path may be a longer one.
                check.interval *= 2;
                if !is_no_amplification(check.received, check.sent + bytes) {
                    continue;
                }
                check.sent += bytes;
            }
            stats.path_challenges += 1;
            let mut message = [PATH_CHALLENGE; MESSAGE_LEN];
            message[1..].copy_from_slice(&cookie);
            return Some((to, message));
        }
    }

    /// Takes what is no challenge. True if the peer is to be followed to `from`.
    pub(super) fn handle_answer(
        &mut self,
        now: Instant,
        from: Path,
        content: &[u8],
        stats: &mut Stats,
    ) -> Result<bool, DropCause> {
        let (kind, cookie) = content.split_first().ok_or(DropCause::BadPathMessage)?;
        if *kind > PATH_DROP {
            // RFC 9853 §4: of a later version, and none of our business.
            return Ok(false);
        }
        let patience = self.patience();
        let check = self.check.as_mut().ok_or(DropCause::BadPathMessage)?;
        let (old, new) = (check.cookies[0].has(cookie), check.cookies[1].has(cookie));
        match (*kind, check.stage) {
            // A late one too: the peer still has the old address.
            (PATH_RESPONSE, _) if old => self.settle_for_old(now, stats),
            (PATH_DROP, Stage::AskOld) if old => check.ask_new(now, patience),
            (PATH_DROP, _) if old => {}
            (PATH_RESPONSE, Stage::AskNew) if new && check.candidate.has_same_remote(&from) => {
                self.check = None;
                return Ok(true);
            }
            _ => return Err(DropCause::BadPathMessage),
        }
        Ok(false)
    }
}

impl Check {
    fn new(now: Instant, candidate: Path, received: usize, patience: Duration) -> Self {
        Self {
            candidate,
            stage: Stage::AskOld,
            next_at: now,
            interval: patience / CHALLENGES_MAX as u32,
            cookies: Default::default(),
            received,
            sent: 0,
        }
    }

    fn ask_new(&mut self, now: Instant, patience: Duration) {
        self.stage = Stage::AskNew;
        self.next_at = now;
        self.interval = patience / CHALLENGES_MAX as u32;
    }
}

#[cfg(test)]
mod tests;
