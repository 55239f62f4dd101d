//! The way to Heat that a document names for a deployment: kept in the journal with the config, so that a
//! result finds it whatever document is in force by then.

use std::fmt;

use openstack_client::signal::{INPUTS, of_config};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Largest way that is kept; longer inputs are nothing that Heat makes.
pub const WAY_BYTES_MAX: usize = 64 << 10;

/// The inputs of a deployment that say whom to tell of its end, and how. They are secrets.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SignalWay(Value);

impl SignalWay {
    /// What an entry of a document says; `None` if it wants no signal. Inputs that cannot be used are kept: why
    /// not is said when they are needed.
    pub(crate) fn of_entry(entry: &Value) -> Option<Self> {
        if of_config(entry).is_ok_and(|transports| transports.is_empty()) {
            return None;
        }
        let list = entry.get("inputs").and_then(Value::as_array);
        let is_of_way = |input: &&Value| {
            let name = input.get("name").and_then(Value::as_str);
            name.is_some_and(|name| INPUTS.contains(&name))
        };
        let pair = |input: &Value| json!({"name": input.get("name"), "value": input.get("value")});
        let inputs = list.map(|list| list.iter().filter(is_of_way).map(pair).collect());
        let way = json!({"inputs": inputs.unwrap_or(Value::Null)});
        let bytes = way.to_string().len();
        if bytes > WAY_BYTES_MAX {
            tracing::warn!(
                bytes,
                limit = WAY_BYTES_MAX,
                "the inputs of a signal are too long to be kept"
            );
            return None;
        }
        Some(Self(way))
    }

    /// As a config with these inputs.
    pub(crate) fn as_config(&self) -> &Value {
        &self.0
    }
}

impl fmt::Debug for SignalWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(inputs: &[(&str, Value)]) -> Value {
        let inputs = inputs
            .iter()
            .map(|(name, value)| json!({"name": name, "type": "String", "value": value}));
        json!({"id": "a", "config": "long", "inputs": inputs.collect::<Vec<_>>()})
    }

    #[test]
    fn only_what_a_signal_needs_is_kept_and_leads_to_the_same_transports() {
        let account: Vec<(&str, Value)> = [
            "deploy_auth_url",
            "deploy_user_id",
            "deploy_password",
            "deploy_project_id",
            "deploy_region_name",
            "deploy_stack_id",
            "deploy_resource_name",
            "deploy_queue_id",
            "deploy_signal_id",
            "deploy_signal_verb",
            "deploy_action",
            "password",
        ]
        .map(|name| (name, json!(format!("secret-{name}"))))
        .into();
        for left_out in ["deploy_queue_id", "deploy_signal_id", "none"] {
            let inputs: Vec<_> =
                account.iter().filter(|(name, _)| *name != left_out).cloned().collect();
            let entry = entry(&inputs);
            let way = SignalWay::of_entry(&entry).unwrap();
            assert_eq!(of_config(way.as_config()), of_config(&entry));
            let text = serde_json::to_string(&way).unwrap();
            assert!(!text.contains("\"password\"") && !text.contains("long"), "{text}");
            assert!(!format!("{way:?}").contains("secret"));
            assert_eq!(serde_json::from_str::<SignalWay>(&text).unwrap(), way);
        }
    }

    #[test]
    fn nobody_to_tell_is_no_way_and_what_cannot_be_used_is_one() {
        assert_eq!(SignalWay::of_entry(&entry(&[])), None);
        assert_eq!(SignalWay::of_entry(&entry(&[("x", json!("y"))])), None);
        for bad in [json!({}), json!({"inputs": 1}), entry(&[("deploy_signal_id", json!(null))])] {
            let way = SignalWay::of_entry(&bad).unwrap();
            assert_eq!(of_config(way.as_config()), of_config(&bad), "{bad}");
        }
        let long = json!("x".repeat(WAY_BYTES_MAX));
        assert_eq!(SignalWay::of_entry(&entry(&[("deploy_signal_id", long)])), None);
    }
}
