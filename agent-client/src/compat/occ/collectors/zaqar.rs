//! A queue of Zaqar: each message is the whole metadata.

use serde_json::Value;

use super::tokens::Signed;
use super::{Collectors, Found, Missing, needed, object, success};
use openstack_client::http::{Client, Method, Request, TIMEOUT_DEFAULT};
use openstack_client::percent_encoded;

/// What is said of a queue without news.
pub(crate) const QUEUE_EMPTY: &str = "the queue is empty";

/// Takes one message off the queue.
pub(super) fn collect(all: &mut Collectors<'_>) -> Found {
    let settings = &all.config.zaqar;
    let credentials = settings.user.credentials()?;
    let queue = needed(&settings.queue_id, "queue_id")?;
    if settings.check_certificate && settings.ca_file.is_none() {
        let why = "No CA file configured when flag ssl certificate validation is on.";
        return Err(Missing::NotConfigured(why.into()));
    }
    if settings.use_websockets {
        all.warnings.push("use_websockets is ignored: Zaqar is asked by HTTP".into());
    }
    // Keystone is checked by the machine's roots, Zaqar as configured.
    let signed = Signed { client: &all.client, cache: all.config.token_cache.as_ref() };
    let region = settings.user.region.as_deref();
    let (project, zaqar): (_, &Client) = (credentials.project_id, &all.zaqar);
    let response = signed.send(&credentials, "messaging", region, |_, endpoint, token| {
        let queue = percent_encoded(queue);
        let request =
            Request::new(Method::Delete, format!("{endpoint}/v2/queues/{queue}/messages?pop=1"))
                .header("Content-Type", "application/json")
                .header("Client-ID", client_id())
                .header("X-Auth-Token", token)
                .header("X-Project-Id", project)
                .timeout(TIMEOUT_DEFAULT);
        zaqar.send(&request).map_err(|error| error.to_string())
    })?;
    let mut body = object(&success(response)?.body)?;
    let message = body.get_mut("messages").and_then(|messages| messages.get_mut(0));
    match message.and_then(|message| message.get_mut("body")).map(Value::take) {
        Some(Value::Object(content)) => {
            Ok(all.exploded("zaqar", content, &all.config.deployment_keys))
        }
        Some(_) => Err(Missing::Unavailable("the message is no object".into())),
        None => Err(Missing::Unavailable(QUEUE_EMPTY.into())),
    }
}

/// Zaqar wants a UUID of each client; one for each process will do.
fn client_id() -> String {
    static ID: std::sync::OnceLock<String> = std::sync::OnceLock::new();

    let id = ID.get_or_init(|| {
        let random = std::fs::read_to_string("/proc/sys/kernel/random/uuid");
        random.map_or_else(|_| "00000000-0000-4000-8000-000000000000".into(), |id| id.trim().into())
    });
    id.clone()
}
