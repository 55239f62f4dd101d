//! Signals of wait conditions that agents hand over: each is looked at, then queued, then confirmed.
//!
//! A look reads the agent's document, which may be large, and costs an agent nothing to ask for: one at a
//! time for each agent, [`LOOKS_MAX`] for all, in the order of asking. What cannot be queued now stays here,
//! unconfirmed, and is tried again; an agent's session bounds how many that may be.

use metadata_delivery::message::{Message, WaitSignal};

use super::*;

/// Signals that are looked at at a time, for all agents together.
pub const LOOKS_MAX: usize = 2;

/// Those of one agent.
#[derive(Debug)]
pub(super) struct Signals {
    waiting: VecDeque<Handed>,
    /// The first of them waits for its turn, is looked at, or is being written.
    under_way: bool,
    /// When the first of them is tried again.
    pub(super) retry_at: Option<Instant>,
    pause: Duration,
}

#[derive(Debug)]
struct Handed {
    version: u64,
    signal: WaitSignal,
}

impl Default for Signals {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), under_way: false, retry_at: None, pause: STORE_RETRY_MIN }
    }
}

/// Whose signal is looked at next.
#[derive(Debug, Default)]
pub(super) struct Looks {
    pub(super) running: usize,
    waiting: VecDeque<PeerId>,
}

impl Core {
    pub(super) fn on_signal(&mut self, id: PeerId, document: &Document) {
        let signal = match WaitSignal::from_body(&document.body) {
            Ok(signal) if signal.name() == document.name => signal,
            Ok(_) => return self.refuse_document(id, document, "it has another id".into()),
            Err(error) => return self.refuse_document(id, document, error.to_string()),
        };
        let Some(accepted) = self.accepted(id) else { return };
        let signals = &mut accepted.signals;
        // Only the newest version of one name can still be confirmed.
        let begun = usize::from(signals.under_way);
        let older = signals.waiting.iter().skip(begun).position(|h| h.signal.id == signal.id);
        if let Some(at) = older {
            signals.waiting.remove(begun + at);
        }
        signals.waiting.push_back(Handed { version: document.version, signal });
        self.begin_signal(id);
    }

    /// The agent's next signal waits for its turn.
    fn begin_signal(&mut self, id: PeerId) {
        let Some(Accepted { signals, .. }) = self.accepted(id) else { return };
        if signals.under_way || signals.retry_at.is_some() || signals.waiting.is_empty() {
            return;
        }
        signals.under_way = true;
        self.looks.waiting.push_back(id);
        self.look();
    }

    fn look(&mut self) {
        while self.looks.running < LOOKS_MAX {
            let Some(id) = self.looks.waiting.pop_front() else { return };
            // It may have gone.
            let Some(accepted) = self.accepted(id) else { continue };
            let agent = accepted.record.agent_id.clone();
            let Some(first) = accepted.signals.waiting.front() else { continue };
            let signal = first.signal.clone();
            self.looks.running += 1;
            self.actions.push_back(Action::LookAtSignal { peer: id, agent, signal });
        }
    }

    pub(super) fn on_signal_looked_at(
        &mut self,
        moment: Moment,
        id: PeerId,
        looked: Result<(), NotQueued>,
    ) {
        self.looks.running = self.looks.running.saturating_sub(1);
        match looked {
            Ok(()) => {
                if let Some(accepted) = self.accepted(id)
                    && let Some(first) = accepted.signals.waiting.front()
                {
                    let (agent, signal) = (accepted.record.agent_id.clone(), first.signal.clone());
                    self.actions.push_back(Action::QueueSignal { peer: id, agent, signal });
                }
            }
            Err(why) => self.on_signal_queued(moment, id, Err(why)),
        }
        self.look();
    }

    pub(super) fn on_signal_queued(
        &mut self,
        moment: Moment,
        id: PeerId,
        queued: Result<(), NotQueued>,
    ) {
        let Some(Accepted { signals, record, .. }) = self.accepted(id) else { return };
        signals.under_way = false;
        if let Err(NotQueued::Later) = queued {
            signals.retry_at = Some(moment.now + signals.pause);
            signals.pause = (signals.pause * 2).min(STORE_RETRY_MAX);
            return self.arm_retry(id);
        }
        signals.pause = STORE_RETRY_MIN;
        let Some(Handed { version, signal }) = signals.waiting.pop_front() else { return };
        let name = signal.name();
        match queued {
            Err(NotQueued::Refused(reason)) => {
                let agent_id = record.agent_id.clone();
                let told = Notice::ResultRefused {
                    agent_id,
                    name: name.to_string(),
                    reason: reason.clone(),
                };
                self.actions.push_back(Action::Tell(told));
                let code = REFUSED_NOT_RELAYED;
                self.actions.push_back(Action::Refuse { peer: id, name, version, code, reason });
            }
            _ => self.actions.push_back(Action::Confirm(id, name, version)),
        }
        self.begin_signal(id);
    }

    /// Tries the agent's first signal again, if its time has come.
    pub(super) fn retry_signal(&mut self, moment: Moment, id: PeerId) {
        let Some(Accepted { signals, .. }) = self.accepted(id) else { return };
        if signals.retry_at.is_some_and(|at| at <= moment.now) {
            signals.retry_at = None;
            self.begin_signal(id);
        }
    }
}
