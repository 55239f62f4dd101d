//! Heat's own API, by a Keystone token.

use std::time::Duration;

use serde_json::Value;

use super::tokens::Signed;
use super::{Collectors, Found, Missing, needed, object, success};
use openstack_client::http::{Client, Request};
use openstack_client::percent_encoded;

/// There is no setting for it.
const TIMEOUT: Duration = Duration::from_secs(30);

pub(super) fn collect(all: &mut Collectors<'_>) -> Found {
    let settings = &all.config.heat;
    let credentials = settings.user.credentials()?;
    let stack = needed(&settings.stack_id, "stack_id")?;
    let resource = needed(&settings.resource_name, "resource_name")?;
    let signed = Signed { client: &all.client, cache: all.config.token_cache.as_ref() };
    let region = settings.user.region.as_deref();
    let response =
        signed.send(&credentials, "orchestration", region, |client, endpoint, token| {
            let stack = identified(client, endpoint, token, stack)?;
            let resource = percent_encoded(resource);
            let url = format!("{endpoint}/stacks/{stack}/resources/{resource}/metadata");
            client.send(&asked(url, token)).map_err(|error| error.to_string())
        })?;
    let mut body = object(&success(response)?.body)?;
    match body.get_mut("metadata").map(Value::take) {
        Some(Value::Object(content)) => {
            Ok(all.exploded("heat", content, &all.config.deployment_keys))
        }
        _ => Err(Missing::Unavailable("Heat's answer holds no metadata".into())),
    }
}

fn asked(url: String, token: &str) -> Request {
    Request::get(url)
        .header("X-Auth-Token", token)
        .header("Accept", "application/json")
        .timeout(TIMEOUT)
}

/// `NAME/ID` of a stack, quoted. A name alone is looked up: Heat answers with a redirect.
fn identified(client: &Client, endpoint: &str, token: &str, stack: &str) -> Result<String, String> {
    let quoted = |text: &str| text.split('/').map(percent_encoded).collect::<Vec<_>>().join("/");
    if stack.find('/').is_some_and(|at| at > 0) {
        return Ok(quoted(stack));
    }
    let url = format!("{endpoint}/stacks/{}", quoted(stack));
    let answer = client.send(&asked(url, token).redirects_max(0)).map_err(|e| e.to_string())?;
    let location = answer.header("location").and_then(|location| location.split_once("/stacks/"));
    match location {
        Some((_, identity)) => Ok(identity.to_owned()),
        None => Err(format!("status {} in place of a redirect to stack {stack}", answer.status)),
    }
}
