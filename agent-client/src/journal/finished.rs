//! What has ended and is still owed to somebody: to the server, or to Heat itself where the document was polled.

use metadata_delivery::message::DeploymentResult;

use super::states::{Done, Ending, Received, Record, State};
use crate::document::ConfigId;
use crate::signal_way::SignalWay;

/// What has ended, and whose word on its result is still to come.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// How it ended.
    pub ending: Ending,
    /// The result to be sent.
    pub result: Box<DeploymentResult>,
    /// When it came.
    pub received_unix_ms: u64,
    /// The agent's own way to Heat: the result is owed there too.
    pub way: Option<SignalWay>,
    /// The server's word.
    pub server: Option<Heard>,
    /// Heat's refusal. Its word may come where it is not owed: while the server is away the agent tells Heat.
    pub heat: Option<Heard>,
}

/// That a result was taken, or never will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// When.
    pub at_unix_ms: u64,
    /// Why it never will be.
    pub refused: Option<String>,
}

impl Finished {
    /// Whether Heat has still to be told by the agent itself.
    pub fn is_owed_to_heat(&self) -> bool {
        self.way.is_some() && self.heat.is_none()
    }

    /// Why Heat was never told by the agent itself.
    pub fn refused_by_heat(&self) -> Option<&String> {
        self.heat.as_ref().and_then(|heard| heard.refused.as_ref())
    }

    /// Where it stands once a word has come: what Heat has taken is over, whoever told it.
    pub(super) fn heard(self) -> State {
        let is_told = self.heat.as_ref().is_some_and(|heard| heard.refused.is_none());
        let is_over = is_told || (self.server.is_some() && !self.is_owed_to_heat());
        let Some(last) = self.server.as_ref().or(self.heat.as_ref()).filter(|_| is_over) else {
            return State::Finished(self);
        };
        let (signalled_unix_ms, at_server) = (last.at_unix_ms, self.server.clone());
        let refused = at_server.and_then(|heard| heard.refused).filter(|_| !is_told);
        let result = self.result;
        State::Signalled(Done {
            name: result.name,
            group: result.group,
            action: result.action,
            ending: self.ending,
            document_version: result.document_version,
            received_unix_ms: self.received_unix_ms,
            started_unix_ms: result.started_unix_ms,
            signalled_unix_ms,
            refused,
            heat_refused: self.heat.and_then(|heard| heard.refused),
            at_unix_ms: result.finished_unix_ms,
            status_code: result.deploy_status_code,
            reason: result.reason,
            rerun: result.rerun,
        })
    }

    /// The shortest records that lead here.
    pub(super) fn records(&self, id: ConfigId) -> Vec<Record> {
        let result = &self.result;
        let mut records = vec![
            Record::Received(Received {
                id: id.clone(),
                name: result.name.clone(),
                group: result.group.clone(),
                action: result.action.clone(),
                document_version: result.document_version,
                at_unix_ms: self.received_unix_ms,
                rerun: result.rerun.clone(),
                way: self.way.clone(),
            }),
            Record::Finished { id: id.clone(), ending: self.ending, result: result.clone() },
        ];
        records.extend(self.heat.clone().map(|Heard { at_unix_ms, refused }| Record::Heat {
            id: id.clone(),
            at_unix_ms,
            refused,
        }));
        records.extend(self.server.clone().map(|Heard { at_unix_ms, refused }| match refused {
            Some(reason) => Record::Refused { id, at_unix_ms, reason },
            None => Record::Signalled { id, at_unix_ms },
        }));
        records
    }
}
