//! Which entries of a document are to be run, given what the journal says.

use std::collections::{BTreeSet, VecDeque};

use crate::document::{ConfigId, Document, Entry, Work};
use crate::journal::{State, States};

/// What a document means for an agent that has done what the journal says.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    /// Entries never heard of, by index: to be recorded as received.
    pub new: Vec<usize>,
    /// Entries to be run (or failed, if they cannot be; or answered, if they are data), by index, in this order.
    pub steps: VecDeque<usize>,
    /// Configs that were received from an earlier document, were not started, and are not in this one.
    pub withdrawn: Vec<ConfigId>,
}

/// Compares a document with the journal. An entry is run if it was not started before, in document order.
/// Data for templates are steps only where `answers_data`: where something applies them.
pub fn plan(document: &Document, states: &States, answers_data: bool) -> Plan {
    let is_step = |entry: &Entry| answers_data || !matches!(entry.work, Work::Data);
    let mut plan = Plan { new: Vec::new(), steps: VecDeque::new(), withdrawn: Vec::new() };
    for (index, entry) in document.entries.iter().enumerate().filter(|(_, e)| is_step(e)) {
        match states.get(&entry.id) {
            None => {
                plan.new.push(index);
                plan.steps.push_back(index);
            }
            Some(State::Received(_)) => plan.steps.push_back(index),
            Some(State::Started { .. } | State::Finished(_) | State::Signalled(_)) => {}
        }
    }
    let named: BTreeSet<&ConfigId> = document.entries.iter().map(|entry| &entry.id).collect();
    plan.withdrawn = states
        .iter()
        .filter(|(id, state)| matches!(state, State::Received(_)) && !named.contains(id))
        .map(|(id, _)| id.clone())
        .collect();
    plan
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::journal::tests_support::{finished, id, received, signalled, started};

    fn document(ids: &[&str]) -> Document {
        let entry = |id: &&str| json!({"id": id, "group": "script", "inputs": []});
        let entries: Vec<_> = ids.iter().map(entry).collect();
        Document::parse(2, json!({"deployments": entries}).to_string().as_bytes()).unwrap()
    }

    #[test]
    fn only_what_was_never_started_is_run_in_document_order() {
        let mut states = States::default();
        for record in [
            received("finished"),
            finished("finished"),
            received("started"),
            started("started"),
            received("waiting"),
            received("done"),
            finished("done"),
            signalled("done"),
        ] {
            states.apply(&record).unwrap();
        }
        let document = document(&["z", "finished", "started", "waiting", "done", "a"]);
        let plan = plan(&document, &states, false);
        assert_eq!(plan.steps, [0, 3, 5]);
        assert_eq!(plan.new, [0, 5]);
        assert!(plan.withdrawn.is_empty());
    }

    #[test]
    fn what_waits_and_is_no_longer_asked_for_is_withdrawn_and_what_runs_is_not() {
        let mut states = States::default();
        for record in [received("waiting"), received("running"), started("running")] {
            states.apply(&record).unwrap();
        }
        assert_eq!(plan(&document(&["new"]), &states, false).withdrawn, [id("waiting")]);
    }

    #[test]
    fn data_is_a_step_only_where_it_is_answered() {
        let body = json!({"deployments": [{"id": "a", "group": "Heat::Ungrouped"}]}).to_string();
        let document = Document::parse(1, body.as_bytes()).unwrap();
        let without = plan(&document, &States::default(), false);
        assert!(without.new.is_empty() && without.steps.is_empty());
        let with = plan(&document, &States::default(), true);
        assert_eq!((with.new, with.steps), (vec![0], VecDeque::from([0])));
    }
}
