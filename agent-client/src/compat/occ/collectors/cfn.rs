//! Heat's CloudFormation API.

use std::fs;

use serde_json::{Map, Value};

use super::{Collectors, Found, Missing, fetch, needed};
use openstack_client::cfn::{Credentials, describe_resource, resource_detail};
use openstack_client::http::Request;

/// All paths in one, later ones over earlier ones.
pub(super) fn collect(all: &mut Collectors<'_>) -> Found {
    let settings = &all.config.cfn;
    let hinted = || {
        let hint = fs::read_to_string(settings.hint.as_ref()?).ok()?;
        Some(format!("{}/v1/", hint.trim()))
    };
    let url = settings.metadata_url.clone().or_else(hinted);
    let url = needed(&url, "metadata_url")?;
    let credentials = Credentials {
        access_key: needed(&settings.access_key_id, "Access Key ID")?,
        secret_key: needed(&settings.secret_access_key, "Secret Access Key")?,
    };
    let stack = needed(&settings.stack_name, "stack_name")?;
    if settings.paths.is_empty() {
        return Err(Missing::NotConfigured("No path configured".into()));
    }
    let mut content = Map::new();
    for path in &settings.paths {
        let (resource, rest) = path.split_once('.').ok_or_else(|| {
            let why = format!("Path not in format resource.field[.x.y] ({path})");
            Missing::NotConfigured(why)
        })?;
        let (field, keys) = rest.split_once('.').unwrap_or((rest, ""));
        let signed = describe_resource(url, stack, resource, credentials)
            .map_err(|error| error.to_string())?;
        let request = Request::get(signed)
            .header("Content-Type", "application/json")
            .timeout(settings.timeout);
        let response = fetch(&all.cfn, &request)?;
        let detail = resource_detail(&response.body).map_err(|error| error.to_string())?;
        let text = detail.get(field).ok_or_else(|| format!("Path {path} does not exist."))?;
        let mut value: Value = serde_json::from_str(text)
            .map_err(|error| format!("Path {path} failed to parse as json. ({error})"))?;
        for key in keys.split('.').filter(|_| !keys.is_empty()) {
            let within = value.get_mut(key).map(Value::take);
            value = within.ok_or_else(|| format!("Sub-key {key} does not exist. ({path})"))?;
        }
        match value {
            Value::Object(object) => content.extend(object),
            _ => return Err(format!("Path {path} is no object").into()),
        }
    }
    Ok(all.exploded("cfn", content, &settings.deployment_keys))
}
