//! Metadata documents: those of a real Heat, and some of our own in its form.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// The captured documents of a real Heat, by file name.
///
/// # Panics
/// If they are not there.
#[must_use]
pub fn captured() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/heat");
    let entries = std::fs::read_dir(directory).expect("the captured documents");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    assert!(!files.is_empty(), "no captured documents");
    files
}

/// One captured document.
///
/// # Panics
/// If it is not there.
#[must_use]
pub fn heat(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/heat").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The ids of a document's deployments.
///
/// # Panics
/// If it is no document.
#[must_use]
pub fn config_ids(document: &[u8]) -> Vec<String> {
    let document: Value = serde_json::from_slice(document).expect("JSON");
    let deployments = document["deployments"].as_array().expect("deployments");
    deployments.iter().map(|d| d["id"].as_str().expect("an id").to_owned()).collect()
}

/// A document with these deployments.
#[must_use]
pub fn document(deployments: &[Value]) -> Value {
    json!({ "deployments": deployments })
}

/// A deployment that runs a script. Its one output is named `result`.
#[must_use]
pub fn script(id: &str, script: &str) -> Value {
    json!({
        "id": id,
        "name": format!("config {id}"),
        "group": "script",
        "creation_time": "2026-11-22T04:00:15Z",
        "config": script,
        "inputs": [
            { "name": "deploy_action", "type": "String", "value": "CREATE" },
            { "name": "deploy_signal_transport", "type": "String", "value": "NO_SIGNAL" },
        ],
        "outputs": [{ "name": "result", "type": "String", "error_output": false }],
        "options": {},
    })
}
