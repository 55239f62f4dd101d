//! When the work is done, or cannot be, and what the agent then ends with.

use std::time::Instant;

use anyhow::anyhow;

use super::Mode;
use super::abort::abort_of_failure;
use super::conductor::Conductor;
use super::uplink::servers;
use crate::exit::{Abort, Exit};
use crate::link::failure::Failure;

impl Conductor<'_> {
    /// Until when what the mode waits for has to come; none once it has come.
    pub(super) fn patience_ends(&self) -> Option<Instant> {
        match self.parts.mode {
            Mode::Once { wait } if self.came.is_none() => Some(self.started + wait),
            Mode::Enroll { wait } if !self.welcomed => Some(self.started + wait),
            Mode::Run | Mode::Once { .. } | Mode::Enroll { .. } => None,
        }
    }

    /// Whether the work is done, or cannot be.
    pub(super) fn end(&self) -> Option<Result<Exit, Abort>> {
        let now = Instant::now();
        if let Some(until) = self.flush_until {
            let all_sent =
                self.parts.uplink.as_ref().is_none_or(|uplink| uplink.link.is_all_sent());
            let sent = all_sent || !self.is_connected();
            return (sent || until <= now).then(|| Ok(self.verdict()));
        }
        if self.parts.mode == Mode::Run {
            return None;
        }
        if let Some(failure) = self.failure.as_ref().filter(|_| self.is_refused()) {
            return Some(Err(abort_of_failure(Exit::Refused, failure)));
        }
        if self.is_done() {
            return Some(Ok(self.verdict()));
        }
        self.patience_ends().filter(|at| *at <= now).map(|_| Err(self.out_of_patience()))
    }

    fn is_done(&self) -> bool {
        match (self.parts.mode, self.came, self.settled) {
            (Mode::Enroll { .. }, _, _) => self.welcomed,
            (Mode::Once { .. }, Some(came), Some((settled, _))) => {
                came == settled && self.results_waiting() <= self.refused_results.len()
            }
            _ => false,
        }
    }

    fn verdict(&self) -> Exit {
        let well = match self.parts.mode {
            Mode::Run => true,
            Mode::Enroll { .. } => self.welcomed,
            Mode::Once { .. } => {
                self.is_done()
                    && self.refused_results.is_empty()
                    && !self.refused_for_good
                    && self.settled.is_some_and(|(_, f)| !f)
            }
        };
        if well { Exit::Ok } else { Exit::Failed }
    }

    fn out_of_patience(&self) -> Abort {
        let waited = self.started.elapsed().as_secs();
        let enrolment = self.parts.uplink.as_ref().map(|uplink| &uplink.enrolment);
        let (id, server) = match enrolment {
            Some(known) => {
                (known.agent_id.to_string(), servers(self.parts.settings, known).join(", "))
            }
            None => ("ID".into(), "no server".into()),
        };
        if self.is_connected() {
            let error = anyhow!("the server has sent no document within {waited} s");
            return Abort::new(Exit::Unreachable, error)
                .hint(format!("on the server run: metadata-server put {id} FILE"));
        }
        match &self.failure {
            Some(failure) => abort_of_failure(Exit::Unreachable, failure),
            None => {
                let why = format!("no answer within {waited} s");
                abort_of_failure(Exit::Unreachable, &Failure::unreachable(&server, why))
            }
        }
    }

    /// Results that the server does not have yet.
    fn results_waiting(&self) -> usize {
        self.parts.uplink.as_ref().map_or(0, |uplink| uplink.link.results_waiting())
    }
}
