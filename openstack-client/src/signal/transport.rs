//! Whom to tell, and how: what a config's inputs say.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use crate::http::without_secrets;

/// A way to signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// CFN_SIGNAL and TEMP_URL_SIGNAL: a URL that anybody may use who has it.
    Presigned {
        /// The URL, a secret.
        url: String,
        /// Whether the data is PUT there; else it is posted.
        put: bool,
    },
    /// HEAT_SIGNAL: the orchestration service of the account's region.
    Heat {
        /// Who signals.
        account: Account,
        /// `name/uuid`, or something that leads there.
        stack: String,
        /// The deployment's resource in the stack.
        resource: String,
    },
    /// ZAQAR_SIGNAL: a queue of the messaging service of the account's region.
    Zaqar {
        /// Who signals.
        account: Account,
        /// The queue's name.
        queue: String,
    },
}

/// The user that Heat has made for the deployment.
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    /// Where Keystone is.
    pub auth_url: String,
    /// The user's id.
    pub user_id: String,
    /// The user's password.
    pub password: String,
    /// The project's id.
    pub project_id: String,
    /// The region whose services are meant; `None`: whichever is first.
    pub region: Option<String>,
}

/// The password is a secret.
impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (user, url) = (&self.user_id, &self.auth_url);
        write!(f, "user {user} of {}", without_secrets(url))
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Presigned { url, put } => {
                let verb = if *put { "PUT" } else { "POST" };
                write!(f, "{} via {verb}", without_secrets(url))
            }
            Self::Heat { stack, resource, .. } => {
                write!(f, "resource {resource} of stack {stack} via Heat")
            }
            Self::Zaqar { queue, .. } => write!(f, "queue {queue} via Zaqar"),
        }
    }
}

/// Every input that says whom to tell, and how.
pub const INPUTS: [&str; 10] = [
    "deploy_signal_id",
    "deploy_signal_verb",
    "deploy_auth_url",
    "deploy_user_id",
    "deploy_password",
    "deploy_project_id",
    "deploy_region_name",
    "deploy_stack_id",
    "deploy_resource_name",
    "deploy_queue_id",
];

/// The inputs of an entry by name; of several with one name the last counts, and what is no input is left
/// out.
pub fn inputs(entry: &Value) -> BTreeMap<&str, &Value> {
    let list = entry.get("inputs").and_then(Value::as_array).into_iter().flatten();
    list.filter_map(|input| Some((input.get("name")?.as_str()?, input.get("value")?))).collect()
}

/// The ways that a config asks for: none (NO_SIGNAL), one, or a pre-signed URL and another.
///
/// # Errors
/// Its inputs are not usable, or an input that a transport needs is missing.
pub fn of_config(config: &Value) -> Result<Vec<Transport>, String> {
    if !config.get("inputs").is_some_and(Value::is_array) {
        return Err("has no list of inputs".into());
    }
    let inputs = inputs(config);
    let mut transports = Vec::new();
    if let Some(url) = inputs.get("deploy_signal_id") {
        let url = url.as_str().filter(|url| !url.is_empty());
        let put = inputs.get("deploy_signal_verb").and_then(|verb| verb.as_str()) == Some("PUT");
        let url = url.ok_or("input deploy_signal_id is no URL")?.to_owned();
        transports.push(Transport::Presigned { url, put });
    }
    let text = |name: &str| match inputs.get(name).and_then(|value| value.as_str()) {
        Some(text) if !text.is_empty() => Ok(text.to_owned()),
        _ => Err(format!("input {name} is missing or empty")),
    };
    let account = || {
        Ok::<_, String>(Account {
            auth_url: text("deploy_auth_url")?,
            user_id: text("deploy_user_id")?,
            password: text("deploy_password")?,
            project_id: text("deploy_project_id")?,
            region: text("deploy_region_name").ok(),
        })
    };
    if inputs.contains_key("deploy_queue_id") {
        let queue = text("deploy_queue_id")?;
        transports.push(Transport::Zaqar { account: account()?, queue });
    } else if inputs.contains_key("deploy_auth_url") {
        let (stack, resource) = (text("deploy_stack_id")?, text("deploy_resource_name")?);
        transports.push(Transport::Heat { account: account()?, stack, resource });
    }
    Ok(transports)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(inputs: &[(&str, Value)]) -> Value {
        let inputs = inputs.iter().map(|(name, value)| json!({"name": name, "value": value}));
        json!({"inputs": inputs.collect::<Vec<_>>()})
    }

    fn account() -> Vec<(&'static str, Value)> {
        vec![
            ("deploy_auth_url", json!("http://k/v3")),
            ("deploy_user_id", json!("u")),
            ("deploy_password", json!("secret")),
            ("deploy_project_id", json!("p")),
            ("deploy_stack_id", json!("s/1")),
            ("deploy_resource_name", json!("r")),
        ]
    }

    #[test]
    fn nobody_is_told_where_no_transport_is_named() {
        assert_eq!(of_config(&config(&[])), Ok(Vec::new()));
        let no_signal = config(&[("deploy_signal_transport", json!("NO_SIGNAL"))]);
        assert_eq!(of_config(&no_signal), Ok(Vec::new()));
    }

    #[test]
    fn a_presigned_url_is_put_to_only_where_the_verb_is_put_exactly() {
        for (verb, put) in
            [(None, false), (Some("POST"), false), (Some("put"), false), (Some("PUT"), true)]
        {
            let mut inputs = vec![("deploy_signal_id", json!("http://h/x?s"))];
            inputs.extend(verb.map(|verb| ("deploy_signal_verb", json!(verb))));
            let expected = Transport::Presigned { url: "http://h/x?s".into(), put };
            assert_eq!(of_config(&config(&inputs)), Ok(vec![expected]), "{verb:?}");
        }
        let error = of_config(&config(&[("deploy_signal_id", json!(null))])).unwrap_err();
        assert_eq!(error, "input deploy_signal_id is no URL");
    }

    #[test]
    fn a_queue_goes_before_heat_and_a_url_beside_either() {
        let mut inputs = account();
        let heat = of_config(&config(&inputs)).unwrap();
        assert!(matches!(&heat[..], [Transport::Heat { account, .. }] if account.region.is_none()));
        inputs.push(("deploy_region_name", json!(null)));
        assert_eq!(of_config(&config(&inputs)).unwrap(), heat, "null is any region");
        inputs.extend([("deploy_queue_id", json!("q")), ("deploy_signal_id", json!("http://h"))]);
        let both = of_config(&config(&inputs)).unwrap();
        assert!(matches!(&both[..], [Transport::Presigned { .. }, Transport::Zaqar { .. }]));
    }

    #[test]
    fn what_is_missing_is_named() {
        for name in ["deploy_user_id", "deploy_password", "deploy_stack_id", "deploy_resource_name"]
        {
            let inputs: Vec<_> = account().into_iter().filter(|(n, _)| *n != name).collect();
            let error = of_config(&config(&inputs)).unwrap_err();
            assert_eq!(error, format!("input {name} is missing or empty"));
        }
        assert_eq!(of_config(&json!({})).unwrap_err(), "has no list of inputs");
        assert_eq!(of_config(&json!([])).unwrap_err(), "has no list of inputs");
    }

    #[test]
    fn no_secret_is_shown() {
        let mut inputs = account();
        inputs.push(("deploy_signal_id", json!("http://h/x?Signature=secret")));
        for transport in of_config(&config(&inputs)).unwrap() {
            let shown = format!("{transport}");
            assert!(!shown.contains("secret"), "{shown}");
            if let Transport::Heat { account, .. } = transport {
                assert!(!format!("{account:?}").contains("secret"));
            }
        }
    }
}
