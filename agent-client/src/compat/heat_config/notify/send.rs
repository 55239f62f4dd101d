//! Sending a result, again and again where that may help.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::fit::{HEAT_BYTES_MAX, ZAQAR_BYTES_MAX, fit};
use super::presigned::Presigned;
use super::transport::{Account, Transport};
use crate::compat::pylog::Log;
use crate::document::{hex, sha256};
use crate::json_text::json_text;
use crate::redact::percent_encoded;
use openstack_client::http::{Client, HttpError, Method, Request, Response, TIMEOUT_DEFAULT};
use openstack_client::keystone::{Credentials, KeystoneError, Session, sign_in};

/// How long to wait before the second attempt; before each later one twice as long as before the last.
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(8);
/// Bytes of an answer that are shown.
const ANSWER_BYTES_MAX: usize = 300;
/// Largest answer that is read: none of them matters.
const RESPONSE_BYTES_MAX: u64 = 1 << 20;
/// How often a signal may be sent elsewhere.
const REDIRECTS_MAX: u32 = 3;
/// Seconds for which a message stays in its queue.
const MESSAGE_TTL_S: u64 = 600;

/// Why a result was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failed {
    /// Another attempt may do better.
    Later(String),
    /// No attempt will.
    Refused(String),
}

/// Sends `data`, until it is taken or refused, or the next attempt would come after `deadline` (`None`: for
/// ever). There is one attempt at least. Comes back with the status of the answer.
///
/// # Errors
/// It was not taken.
pub fn deliver(
    client: &Client,
    transport: &Transport,
    data: &Value,
    deadline: Option<Instant>,
    log: &mut Log,
) -> Result<u16, Failed> {
    let mut wait = BACKOFF_FIRST;
    loop {
        let why = match attempt(client, transport, data) {
            Err(Failed::Later(why)) => why,
            ended => return ended,
        };
        if let Transport::Presigned { url, .. } = transport {
            let (presigned, now_unix) = (Presigned::of_url(url), Timestamp::now().as_second());
            if presigned.has_expired(now_unix) {
                return Err(Failed::Refused(format!("{why}{}", presigned.hint(now_unix))));
            }
        }
        if deadline.is_some_and(|deadline| Instant::now() + wait >= deadline) {
            return Err(Failed::Later(why));
        }
        log.warning(format!("{why}; again in {} s", wait.as_secs_f32()));
        std::thread::sleep(wait);
        wait = (wait * 2).min(BACKOFF_MAX);
    }
}

fn attempt(client: &Client, transport: &Transport, data: &Value) -> Result<u16, Failed> {
    match transport {
        Transport::Presigned { url, put } => {
            let method = if *put { Method::Put } else { Method::Post };
            let request = Request::new(method, url).body(json_text(&fit(data, HEAT_BYTES_MAX)));
            send(client, request).map_err(|failed| match failed {
                Failed::Refused(why) => {
                    let hint = Presigned::of_url(url).hint(Timestamp::now().as_second());
                    Failed::Refused(format!("{why}{hint}"))
                }
                later => later,
            })
        }
        Transport::Heat { account, stack, resource } => {
            let session = session(client, account)?;
            let heat = endpoint(&session, "orchestration", account)?;
            let stack = resolve(client, heat, stack, &session.token)?;
            let url =
                format!("{heat}/stacks/{stack}/resources/{}/signal", percent_encoded(resource, ""));
            let request = Request::new(Method::Post, url)
                .header("X-Auth-Token", &session.token)
                .header("Accept", "application/json")
                .body(json_text(&fit(data, HEAT_BYTES_MAX)));
            send(client, request)
        }
        Transport::Zaqar { account, queue } => {
            let session = session(client, account)?;
            let zaqar = unversioned(endpoint(&session, "messaging", account)?);
            let url = format!("{zaqar}/v2/queues/{}/messages", percent_encoded(queue, ""));
            let message = json!({"body": *fit(data, ZAQAR_BYTES_MAX), "ttl": MESSAGE_TTL_S});
            let request = Request::new(Method::Post, url)
                .header("X-Auth-Token", &session.token)
                .header("X-Project-Id", &account.project_id)
                .header("Client-ID", client_id(account, queue))
                .header("Accept", "application/json")
                .body(json_text(&json!({"messages": [message]})));
            send(client, request)
        }
    }
}

fn send(client: &Client, request: Request) -> Result<u16, Failed> {
    let request = request
        .header("Content-Type", "application/json")
        .timeout(TIMEOUT_DEFAULT)
        .response_bytes_max(RESPONSE_BYTES_MAX)
        .redirects_max(REDIRECTS_MAX)
        .redirects_keep_method();
    let shown = format!("{request:?}");
    judge(&shown, &client.send(&request).map_err(of_http)?)
}

/// 2xx is success, and nothing else.
fn judge(request: &str, response: &Response) -> Result<u16, Failed> {
    if response.is_success() {
        return Ok(response.status);
    }
    let text = response.text();
    let mut answer = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = answer.char_indices().nth(ANSWER_BYTES_MAX) {
        answer.truncate(end);
    }
    let answer = if answer.is_empty() { answer } else { format!(": {answer}") };
    let why = format!("{request} was answered with {}{answer}", response.status);
    match response.status {
        // Too early or too much, and whatever is wrong at the other end.
        408 | 425 | 429 | 500..=599 => Err(Failed::Later(why)),
        _ => Err(Failed::Refused(why)),
    }
}

fn of_http(error: HttpError) -> Failed {
    let why = error.to_string();
    if error.is_transient() { Failed::Later(why) } else { Failed::Refused(why) }
}

fn of_keystone(error: KeystoneError) -> Failed {
    let why = error.to_string();
    if error.is_transient() { Failed::Later(why) } else { Failed::Refused(why) }
}

fn session(client: &Client, account: &Account) -> Result<Session, Failed> {
    let credentials = Credentials {
        auth_url: &account.auth_url,
        user_id: &account.user_id,
        password: &account.password,
        project_id: &account.project_id,
    };
    sign_in(client, &credentials, TIMEOUT_DEFAULT).map_err(of_keystone)
}

fn endpoint<'s>(session: &'s Session, kind: &str, account: &Account) -> Result<&'s str, Failed> {
    let endpoint = session.endpoint(kind, account.region.as_deref()).map_err(of_keystone)?;
    Ok(endpoint.trim_end_matches('/'))
}

/// The stack as `name/uuid`, quoted: what Heat's redirect says, unless it is that already.
fn resolve(client: &Client, heat: &str, stack: &str, token: &str) -> Result<String, Failed> {
    if stack.find('/').is_some_and(|at| at > 0) {
        return Ok(percent_encoded(stack, "/"));
    }
    let request = Request::get(format!("{heat}/stacks/{}", percent_encoded(stack, "")))
        .header("X-Auth-Token", token)
        .header("Accept", "application/json")
        .response_bytes_max(RESPONSE_BYTES_MAX)
        .redirects_max(0);
    let shown = format!("{request:?}");
    let response = client.send(&request).map_err(of_http)?;
    let location = response.header("location").filter(|_| (300..400).contains(&response.status));
    match location.and_then(|location| location.split_once("/stacks/")) {
        Some((_, path)) => Ok(path.split(['?', '#']).next().unwrap_or(path).to_owned()),
        None => Err(match judge(&shown, &response) {
            Err(failed) => failed,
            Ok(status) => Failed::Refused(format!(
                "{shown} was answered with {status}, not with the stack's place"
            )),
        }),
    }
}

/// Catalogues have the service's root, or one of its versions.
fn unversioned(endpoint: &str) -> &str {
    let versions = ["/v1", "/v1.1", "/v2"];
    versions.iter().find_map(|version| endpoint.strip_suffix(version)).unwrap_or(endpoint)
}

/// Zaqar wants a UUID that tells one client from another: here the same one for each queue and user.
fn client_id(account: &Account, queue: &str) -> String {
    let text = format!("heat-config-notify\n{}\n{queue}", account.user_id);
    let mut digest = sha256(text.as_bytes());
    // RFC 9562: version 8, of our own making.
    digest[6] = digest[6] & 0x0f | 0x80;
    digest[8] = digest[8] & 0x3f | 0x80;
    let text = hex(&digest[..16]);
    let parts = [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]];
    parts.join("-")
}

#[cfg(test)]
mod tests;
