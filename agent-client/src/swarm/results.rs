//! What a simulated agent answers to a document's deployments.

use std::collections::BTreeSet;

use metadata_delivery::message::{DeploymentResult, ResultStatus};

use crate::document::{Document, Work};

/// A good result for each deployment that has something to run and was not in the document before. A
/// document that cannot be read has none.
pub(super) fn of(before: Option<&[u8]>, body: &[u8]) -> Vec<DeploymentResult> {
    let entries = |body| Document::parse(0, body).map(|document| document.entries);
    let before = before.and_then(|body| entries(body).ok()).unwrap_or_default();
    let known: BTreeSet<String> = before.iter().map(|entry| entry.id.to_string()).collect();
    entries(body)
        .unwrap_or_default()
        .into_iter()
        .filter(|entry| matches!(entry.work, Work::Run(_)))
        .filter(|entry| !known.contains(entry.id.as_str()))
        .map(|entry| DeploymentResult {
            config_id: entry.id.to_string(),
            name: entry.name,
            group: entry.group,
            action: entry.action,
            document_version: 0,
            status: ResultStatus::Complete,
            deploy_stdout: String::new(),
            deploy_stderr: String::new(),
            deploy_status_code: 0,
            outputs: serde_json::Map::new(),
            reason: None,
            started_unix_ms: 0,
            finished_unix_ms: 0,
            rerun: None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(ids: &[&str]) -> Vec<u8> {
        let entry = |id: &&str| serde_json::json!({ "id": id, "name": "n", "group": "script", "config": "true", "inputs": [] });
        let deployments: Vec<_> = ids.iter().map(entry).collect();
        serde_json::json!({ "deployments": deployments }).to_string().into_bytes()
    }

    #[test]
    fn a_deployment_is_answered_once_however_often_it_is_pushed() {
        let (first, second) = (document(&["a", "b"]), document(&["b", "c"]));
        let ids = |results: Vec<DeploymentResult>| -> Vec<String> {
            results.into_iter().map(|result| result.config_id).collect()
        };
        assert_eq!(ids(of(None, &first)), ["a", "b"]);
        assert_eq!(ids(of(Some(&first), &second)), ["c"]);
        assert!(of(None, b"no document").is_empty());
    }
}
