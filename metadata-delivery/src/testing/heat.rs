//! Documents as Heat writes them: deployments captured from a real one, many of them.

use bytes::Bytes;
use dtls_channel::testing::Rng;
use serde_json::{Value, json};

/// Captures with deployments of several kinds.
const CAPTURES: [&str; 3] = [
    include_str!("../../../tests/data/heat/metadata.component.after-update.json"),
    include_str!("../../../tests/data/heat/metadata.actions.after-update.json"),
    include_str!("../../../tests/data/heat/metadata.POLL_TEMP_URL.TEMP_URL_SIGNAL.json"),
];

/// A metadata document of at least so many bytes: captured deployments over and over, each with ids,
/// names and one value of its own.
#[must_use]
pub fn document(bytes: usize) -> Bytes {
    let captured: Vec<Value> = CAPTURES.iter().flat_map(|text| deployments(text)).collect();
    let mut rng = Rng::new(0xdeb7);
    let mut all = Vec::new();
    let mut length = 0;
    while length < bytes {
        let mut deployment = captured[all.len() % captured.len()].clone();
        deployment["id"] = id(&mut rng).into();
        deployment["name"] = format!("deployment-{}", all.len()).into();
        for input in deployment["inputs"].as_array_mut().into_iter().flatten() {
            if input["name"] == "deploy_stack_id" || input["name"] == "deploy_signal_id" {
                let value = input["value"].as_str().unwrap_or_default();
                input["value"] = format!("{value}/{}", id(&mut rng)).into();
            }
        }
        length += deployment.to_string().len() + 1;
        all.push(deployment);
    }
    json!({ "deployments": all }).to_string().into()
}

/// The same with another script, another id and another value in the deployment in the middle: what a
/// stack update does to one deployment.
///
/// # Panics
/// When it is not such a document.
#[must_use]
pub fn with_one_changed(document: &[u8]) -> Bytes {
    let mut value: Value = serde_json::from_slice(document).expect("a document of deployments");
    let all = value["deployments"].as_array_mut().expect("a list");
    let mut rng = Rng::new(all.len() as u64);
    let middle = all.len() / 2;
    let deployment = &mut all[middle];
    deployment["id"] = id(&mut rng).into();
    deployment["creation_time"] = "2026-11-22T09:59:59Z".into();
    match &mut deployment["config"] {
        Value::String(script) => script.push_str("\nsystemctl restart haproxy\n"),
        config => config["changed"] = "systemctl restart haproxy".into(),
    }
    if let Some(input) = deployment["inputs"].as_array_mut().and_then(|inputs| inputs.first_mut()) {
        input["value"] = "another value".into();
    }
    value.to_string().into()
}

fn deployments(text: &str) -> Vec<Value> {
    let capture: Value = serde_json::from_str(text).expect("a capture");
    capture["deployments"].as_array().expect("a list").clone()
}

fn id(rng: &mut Rng) -> String {
    let (high, low) = (rng.next_u64(), rng.next_u64());
    format!("{:08x}-{:04x}-{:04x}-{:016x}", high >> 32, high >> 16 & 0xffff, high & 0xffff, low)
}
