//! Whether packets are marked as ones whose sender understands congestion marks, ECT(0): only as long as the path and the
//! peer give back what marks are for (RFC 9000 §13.4.2 and appendix A.4).
//!
//! ```text
//!          the peer counts        10 marked, or a timeout
//!     off ────────────────▶ testing ────────────────▶ waiting
//!                            ▲ ▲ │                       │ │
//!                            │ │ │ one arrived as ECT(0) │ │
//!                    timeout │ │ └──────▶ capable ◀──────┘ │ none did, and none can any more
//!                            │ └──────────┘  │             │
//!     another path, or after │               │ counts that │
//!     ten minutes            │               ▼ cannot be   ▼
//!                            └─────────────── failed ◀─────┘
//! ```

use std::time::{Duration, Instant};

use super::EcnCounts;
use crate::recovery::SentPacket;

/// Packets that are marked before anything is known of the path: so many are at stake if it drops them.
const TEST_PACKETS: u8 = 10;

/// How long a path that has failed is let alone. An outage looks like a path that drops what is marked.
const AGAIN_AFTER: Duration = Duration::from_secs(600);

/// The sender's side of ECN on one path after the other.
#[derive(Debug, Default)]
pub(crate) struct Marking {
    state: State,
    /// What the peer has told last.
    counted: EcnCounts,
    /// What it had told when the path began, and marked packets that have arrived since.
    base: EcnCounts,
    arrived: u64,
    /// Packets marked in all.
    sent: u64,
    /// Those of this path, of which is not known what has become of them.
    outstanding: u64,
    /// Packets sent before belong to another path.
    path_began_at: Option<Instant>,
    /// Marks of congestion that came while nothing else did.
    unheeded: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// The peer does not count, or our channel cannot mark.
    #[default]
    Off,
    /// So many packets were marked, to see what becomes of them.
    Testing { marked: u8 },
    /// No more are marked until there is word of those.
    Waiting,
    /// Packets are marked.
    Capable,
    /// None are.
    Failed { again_at: Instant },
}

impl Marking {
    /// Whether the peer counts what it receives, and our channel can mark.
    pub(crate) fn set_possible(&mut self, possible: bool) {
        match (possible, self.state) {
            (true, State::Off) => self.state = State::Testing { marked: 0 },
            (false, _) => self.state = State::Off,
            _ => {}
        }
    }

    /// The packets from here on take another path.
    pub(crate) fn begin_path(&mut self, now: Instant) {
        if self.state != State::Off {
            self.state = State::Testing { marked: 0 };
        }
        self.path_began_at = Some(now);
        (self.base, self.arrived) = (self.counted, 0);
        self.outstanding = 0;
        self.unheeded = 0;
    }

    /// Whether the next packet is to be marked, if it asks for an acknowledgement.
    pub(crate) fn marks(&mut self, now: Instant) -> bool {
        if matches!(self.state, State::Failed { again_at } if again_at <= now) {
            self.begin_path(now);
        }
        matches!(self.state, State::Testing { .. } | State::Capable)
    }

    /// Whether it was found that the path and the peer do what they should.
    pub(crate) fn is_capable(&self) -> bool {
        self.state == State::Capable
    }

    /// Packets marked in all.
    pub(crate) fn packets(&self) -> u64 {
        self.sent
    }

    /// Notes a marked packet, and whether it asks for an acknowledgement.
    pub(crate) fn sent(&mut self, asks: bool) {
        self.sent += 1;
        self.outstanding += u64::from(asks);
        if let State::Testing { marked } = &mut self.state {
            *marked += 1;
            if *marked == TEST_PACKETS {
                self.state = State::Waiting;
            }
        }
    }

    /// The last packet, which was marked, was not sent after all.
    pub(crate) fn retracted(&mut self) {
        self.sent = self.sent.saturating_sub(1);
        self.outstanding = self.outstanding.saturating_sub(1);
    }

    /// Nothing was acknowledged for a probe timeout: the path may have begun to drop what is marked.
    pub(crate) fn timed_out(&mut self, now: Instant) {
        match self.state {
            State::Testing { marked: 1.. } => self.state = State::Waiting,
            State::Capable => self.begin_path(now),
            _ => {}
        }
    }

    /// Takes in an acknowledgement: the packets that are known by it to have arrived, of which `late` were called lost
    /// before; whether it acknowledges a higher number than any before; and what the peer has counted. True if there was
    /// congestion.
    pub(crate) fn on_ack(
        &mut self,
        now: Instant,
        (acked, late): (&[SentPacket], &[SentPacket]),
        in_order: bool,
        counts: Option<EcnCounts>,
    ) -> bool {
        let of_path = |packets: &[SentPacket]| {
            let of_path = packets.iter().filter(|p| p.marked && self.is_of_path(p));
            of_path.count() as u64
        };
        let (settled, late_of_path) = (of_path(acked), of_path(late));
        let others = acked.iter().chain(late).any(|p| p.marked && !self.is_of_path(p));
        self.outstanding = self.outstanding.saturating_sub(settled);
        let arrived = settled + late_of_path;
        self.arrived += arrived;
        // An acknowledgement that was overtaken has counts that are older than the last (RFC 9000 §13.4.2.1).
        let congested = in_order && self.judge(now, arrived, counts);
        if others {
            // They have raised the counts without telling anything of this path.
            (self.base, self.arrived) = (self.counted, 0);
        }
        self.stop_waiting(now);
        congested
    }

    /// `arrived`: marked packets of this path newly known to have arrived.
    fn judge(&mut self, now: Instant, arrived: u64, counts: Option<EcnCounts>) -> bool {
        let is_judged = !matches!(self.state, State::Off | State::Failed { .. });
        let Some(counts) = counts else {
            if is_judged && arrived > 0 {
                self.fail(now);
            }
            return false;
        };
        let before = std::mem::replace(&mut self.counted, counts);
        if !is_judged {
            return false;
        }
        // RFC 9000 §13.4.2.1 compares with what each acknowledgement brings; ours may leave ranges out, and a later one tell
        // of packets whose marks were counted before. So the sums are compared.
        let told = counts.since(self.base).map(EcnCounts::of_ect0);
        let rise = counts.since(before).filter(|_| {
            told >= Some(self.arrived) && counts.ect1 == 0 && counts.of_ect0() <= self.sent
        });
        let Some(rise) = rise else {
            self.fail(now);
            return false;
        };
        self.unheeded = self.unheeded.saturating_add(rise.ce);
        if rise.ect0 > 0 {
            self.state = State::Capable;
        }
        // A path that marks whatever comes says nothing by it.
        self.state == State::Capable && std::mem::take(&mut self.unheeded) > 0
    }

    /// Takes in losses.
    pub(crate) fn on_lost<'a>(&mut self, now: Instant, lost: impl Iterator<Item = &'a SentPacket>) {
        let lost = lost.filter(|packet| packet.marked && self.is_of_path(packet)).count();
        self.outstanding = self.outstanding.saturating_sub(lost as u64);
        self.stop_waiting(now);
    }

    /// There is no word any more to be waited for: what was marked was lost, or marked for congestion without
    /// exception.
    fn stop_waiting(&mut self, now: Instant) {
        if self.state == State::Waiting && self.outstanding == 0 {
            self.fail(now);
        }
    }

    fn fail(&mut self, now: Instant) {
        self.state = State::Failed { again_at: now + AGAIN_AFTER };
    }

    fn is_of_path(&self, packet: &SentPacket) -> bool {
        self.path_began_at.is_none_or(|began_at| packet.sent_at >= began_at)
    }
}

#[cfg(test)]
mod tests;
