//! Sending again before anything is known to be lost, on paths that are known to lose.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::Session;
use crate::recovery::SentFrame;
use crate::repair::Loss;

/// Round trips without an answer after which nothing is repeated any more, but probed for.
const REPEAT_ROUND_TRIPS: u32 = 4;

/// A round trip counts for no less: on a fast path it is the peer that takes its time, which no copy
/// makes shorter.
const REPEAT_ROUND_TRIP_MIN: Duration = Duration::from_millis(30);

/// On a path that is shorter, losses are not feared before they are seen: a probe timeout is soon enough, and copies
/// would take more of a server's time, which others wait for, than they save of a document's.
const FEAR_ROUND_TRIP_MIN: Duration = Duration::from_millis(10);

impl Session {
    /// When something is to be done about what is in flight. On a path that may lose packets the
    /// end of a transfer does not wait to hear of a loss: with nothing else to send, what was not
    /// acknowledged within a third of a round trip is sent again, and again. Copies keep within the window,
    /// in which a packet counts no longer than it can be on its way.
    pub(super) fn repeat_at(&self) -> Option<Instant> {
        if !self.is_suspect() {
            return None;
        }
        let round_trip = self.repeat_round_trip();
        let silent_since = self.recovery.unanswered_since()?.max(self.news_at);
        let at = if !self.has_content() {
            let gone = self.recovery.gone_at(self.overdue_after());
            gone.into_iter().chain(self.recovery.repeat_at(self.patience())).min()
        } else if !self.has_room() && self.recovery.is_short() {
            let gone = self.recovery.gone_at(self.overdue_after());
            gone.into_iter().chain(self.recovery.repeat_at(self.overdue_after())).min()
        } else if !self.has_room() {
            let gone = self.recovery.gone_at(self.recovery.rtt().loss_delay(1));
            let silence = silent_since + round_trip;
            let repeat = self.recovery.repeat_at(round_trip * 3 / 2).map(|at| at.max(silence));
            gone.into_iter().chain(repeat).min()
        } else {
            None
        };
        at.filter(|at| *at <= silent_since + round_trip * REPEAT_ROUND_TRIPS)
    }

    /// Whether the path may lose packets by chance. A probe timeout says so before any loss does: who hears nothing
    /// hears of no loss either. On a short path it is rather the peer that is busy.
    fn is_suspect(&self) -> bool {
        self.may_lose() || self.recovery.timeouts() > 0 && self.is_far()
    }

    fn may_lose(&self) -> bool {
        self.congestion.is_suspect() && self.is_feared()
    }

    /// What to reckon with, more being feared the less is known; `None` where repair does not pay.
    pub(super) fn feared_loss(&self) -> Option<Loss> {
        self.congestion.feared_loss(self.recovery.overdue()).filter(|_| self.is_feared())
    }

    fn is_feared(&self) -> bool {
        self.congestion.has_lost() || self.is_far()
    }

    /// Tells loss recovery how the path is to be taken.
    pub(super) fn judge_losses(&mut self) {
        let suspect = self.may_lose();
        self.recovery.set_suspect(suspect, !suspect && !self.is_far());
    }

    /// Whether a round trip takes longer than a peer's work.
    pub(super) fn is_far(&self) -> bool {
        self.recovery.rtt().shortest() >= FEAR_ROUND_TRIP_MIN
    }

    /// What was not acknowledged for so long is sent again, with nothing else to send.
    fn patience(&self) -> Duration {
        let round_trip = self.repeat_round_trip();
        if self.outbound.is_slight() {
            round_trip * 5 / 4
        } else if self.outbound.is_provided_for() {
            self.overdue_after()
        } else {
            round_trip / 3
        }
    }

    /// When what was not acknowledged is on the path no longer.
    fn overdue_after(&self) -> Duration {
        let rtt = self.recovery.rtt();
        if self.recovery.is_short() {
            rtt.overdue_after().max(REPEAT_ROUND_TRIP_MIN)
        } else {
            rtt.loss_delay(1)
        }
    }

    fn repeat_round_trip(&self) -> Duration {
        self.recovery.rtt().smoothed().max(REPEAT_ROUND_TRIP_MIN)
    }

    pub(super) fn repeat(&mut self, now: Instant) {
        let round_trip = self.repeat_round_trip();
        // What will be due in a moment goes along: timers and packets are spared.
        let short = self.recovery.is_short();
        let age = match (self.has_content(), short) {
            (true, false) => round_trip * 11 / 8,
            (true, true) => self.overdue_after(),
            (false, _) => self.patience() * 3 / 4,
        };
        let mut repaired = BTreeSet::new();
        let silent = self.recovery.unanswered_since().is_some_and(|at| at + round_trip <= now);
        if (!self.has_content() || silent || short)
            && let Some(sent_by) = now.checked_sub(age)
        {
            let is_repaired = |frame: &SentFrame| self.outbound.is_repaired(frame);
            let frames = self.recovery.take_repeats(sent_by, is_repaired);
            for frame in frames {
                match frame {
                    SentFrame::Data { transfer, .. } | SentFrame::Repair { transfer, .. }
                        if self.outbound.is_repaired(&frame) =>
                    {
                        repaired.insert(transfer);
                    }
                    frame => self.frame_lost(frame),
                }
            }
        }
        if let Some(sent_by) = now.checked_sub(self.overdue_after()) {
            self.recovery.take_gone(sent_by);
        }
        if self.outbound.has_repairs() {
            self.reckon_with_loss();
            self.outbound.repeat(&repaired, &self.recovery.symbols_on_their_way());
        }
    }
}
