//! Where an agent's metadata comes from, read from what Heat says of its server.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{HeatSource, ServerUser};
use crate::store::queues::{QueueKey, is_keystone_id};

/// Where an agent's metadata comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// Heat posts it (`ZAQAR_MESSAGE`), or puts it into an object (`POLL_TEMP_URL`).
    Queue {
        /// The queue.
        queue: QueueKey,
        /// The user who posts.
        user: Option<String>,
    },
    /// Heat is polled for it (`POLL_SERVER_HEAT`).
    Poll(HeatSource),
}

/// Why nothing can be made of an `os_collect_config`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub(crate) enum SourceError {
    /// No known section.
    #[error(
        "os_collect_config has none of the sections \"zaqar\", \"heat\" and \"request\"; it has {0}"
    )]
    NoSection(String),
    /// A section lacks something, or has what cannot be.
    #[error("os_collect_config: {0}")]
    Bad(String),
}

impl Source {
    /// Reads the attribute `os_collect_config` of a server, bare or within what
    /// `openstack stack resource show -f json` prints.
    pub(crate) fn read(value: &Value) -> Result<Self, SourceError> {
        let attributes = value.get("attributes").unwrap_or(value);
        let config = attributes.get("os_collect_config").unwrap_or(attributes);
        if let (None, Some(heat)) = (config.get("zaqar"), config.get("heat")) {
            return poll(heat).map(Self::Poll);
        }
        if let (None, Some(request)) = (config.get("zaqar"), config.get("request")) {
            return object(request).map(|queue| Self::Queue { queue, user: None });
        }
        let Some(zaqar) = config.get("zaqar") else {
            let has: Vec<&str> = config
                .as_object()
                .map(|members| members.keys().map(String::as_str).take(8).collect())
                .unwrap_or_default();
            let has = if has.is_empty() { "none".to_owned() } else { has.join(", ") };
            return Err(SourceError::NoSection(has));
        };
        let text = |key: &str| {
            zaqar
                .get(key)
                .and_then(Value::as_str)
                .ok_or_else(|| SourceError::Bad(format!("zaqar has no \"{key}\"")))
        };
        let queue = QueueKey::new(text("project_id")?, text("queue_id")?)
            .map_err(|error| SourceError::Bad(error.to_string()))?;
        let user = text("user_id")?;
        if !is_keystone_id(user) {
            return Err(SourceError::Bad("user_id is no id of a user".into()));
        }
        Ok(Self::Queue { queue, user: Some(user.to_owned()) })
    }
}

/// The object of a temporary URL.
fn object(request: &Value) -> Result<QueueKey, SourceError> {
    let bad = |what: &str| SourceError::Bad(format!("request: {what}"));
    let url = request.get("metadata_url").and_then(Value::as_str);
    let url = url.ok_or_else(|| bad("there is no \"metadata_url\""))?;
    // The query is a secret, and the rest says all.
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let mut last = path.rsplit('/');
    let (Some(object), Some(container), Some(account), Some("v1")) =
        (last.next(), last.next(), last.next(), last.next())
    else {
        return Err(bad("metadata_url must end with /v1/AUTH_PROJECT/CONTAINER/OBJECT"));
    };
    let project = account.strip_prefix("AUTH_").ok_or_else(|| bad("its account is none"))?;
    QueueKey::object(project, container, object)
        .map_err(|error| SourceError::Bad(error.to_string()))
}

fn poll(heat: &Value) -> Result<HeatSource, SourceError> {
    let text = |key: &str| {
        let text = heat.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        text.map(str::to_owned).ok_or_else(|| SourceError::Bad(format!("heat has no \"{key}\"")))
    };
    let (user_id, project_id) = (text("user_id")?, text("project_id")?);
    if !is_keystone_id(&user_id) || !is_keystone_id(&project_id) {
        return Err(SourceError::Bad("user_id or project_id is no id".into()));
    }
    let user =
        ServerUser { user_id, password: text("password")?, region: text("region_name").ok() };
    let (stack_id, resource_name) = (text("stack_id")?, text("resource_name")?);
    Ok(HeatSource { user, project_id, stack_id, resource_name })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::path_of;
    use super::*;

    fn attribute() -> Value {
        json!({"collectors": ["zaqar", "local"], "zaqar": {
            "user_id": "5651924cee9d45f39d622ebe1fa7ca8d", "password": "secret",
            "auth_url": "http://127.0.0.1:5000/v3/",
            "project_id": "d1a0b261ce584e3ea3eae85b60b69030",
            "queue_id": "cap-server-p5ql2x37etgt", "region_name": "RegionOne",
        }})
    }

    #[test]
    fn the_attribute_is_read_bare_and_as_the_client_shows_it() {
        let queue = "d1a0b261ce584e3ea3eae85b60b69030/cap-server-p5ql2x37etgt".parse().unwrap();
        let user = Some("5651924cee9d45f39d622ebe1fa7ca8d".to_owned());
        let wanted = Ok(Source::Queue { queue, user });
        assert_eq!(Source::read(&attribute()), wanted);
        assert_eq!(Source::read(&json!({"os_collect_config": attribute()})), wanted);
        let shown = json!({"attributes": {"os_collect_config": attribute(), "name": "x"}});
        assert_eq!(Source::read(&shown), wanted);
    }

    #[test]
    fn a_server_to_be_polled_is_read_and_has_its_path() {
        let read = Source::read(&json!({"os_collect_config": {"collectors": ["heat"], "heat": {
            "user_id": "d41f5a18bea142558ae102d986dadd7d", "password": "secret",
            "auth_url": "http://127.0.0.1:5000/v3/", "project_id": "e79d611d5ce84cc9bf6f1d2a500e5e80",
            "stack_id": "cap/f877c8f7-56ff-44b7-b63a-4104cd30c548", "resource_name": "a server",
            "region_name": "RegionOne",
        }}}));
        let Ok(Source::Poll(source)) = read else { panic!("{read:?}") };
        assert!(!format!("{source:?}").contains("secret"));
        let path = "/stacks/cap/f877c8f7-56ff-44b7-b63a-4104cd30c548/resources/a%20server/metadata";
        assert_eq!(path_of(&source), path);
    }

    #[test]
    fn what_is_missing_is_named_without_the_password() {
        let cases = [
            (json!({"cfn": {}, "collectors": []}), "it has cfn, collectors"),
            (json!(3), "it has none"),
            (json!({"zaqar": {}}), "zaqar has no \"project_id\""),
            (
                json!({"zaqar": {"project_id": "p", "queue_id": "a b", "user_id": "u"}}),
                "queue \"a b\"",
            ),
        ];
        for (value, words) in cases {
            let error = Source::read(&value).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
