//! Sending a result once.

use std::fmt;

use data_encoding::HEXLOWER;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::fit::{HEAT_BYTES_MAX, ZAQAR_BYTES_MAX, fit};
use super::presigned::Presigned;
use super::transport::{Account, Transport};
use crate::http::{Client, HttpError, Method, Request, Response, TIMEOUT_DEFAULT};
use crate::json_text::json_text;
use crate::keystone::{Credentials, KeystoneError, Session, sign_in};
use crate::percent_encoded;

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
    Later(Why),
    /// No attempt will.
    Refused(Why),
}

/// What was answered, or what happened instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// The status of the answer, if there was one.
    pub status: Option<u16>,
    /// For people; without secrets.
    pub text: String,
    /// This machine is at fault, and nobody was asked: somebody has to put it right.
    pub is_ours: bool,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<String> for Why {
    fn from(text: String) -> Self {
        Self { status: None, text, is_ours: false }
    }
}

/// Sends `data` once. Comes back with the status of the answer, 2xx.
///
/// # Errors
/// It was not taken.
pub fn attempt(client: &Client, transport: &Transport, data: &Value) -> Result<u16, Failed> {
    match transport {
        Transport::Presigned { url, put } => {
            let method = if *put { Method::Put } else { Method::Post };
            let request = Request::new(method, url).body(json_text(&fit(data, HEAT_BYTES_MAX)));
            send(client, request).map_err(|failed| {
                let (presigned, now_unix) = (Presigned::of_url(url), Timestamp::now().as_second());
                let hinted = |why: Why| Why {
                    text: format!("{}{}", why.text, presigned.hint(now_unix)),
                    ..why
                };
                match failed {
                    Failed::Refused(why) => Failed::Refused(hinted(why)),
                    Failed::Later(why) if presigned.has_expired(now_unix) => {
                        Failed::Refused(hinted(why))
                    }
                    later => later,
                }
            })
        }
        Transport::Heat { account, stack, resource } => {
            let session = session(client, account)?;
            let heat = endpoint(&session, "orchestration", account)?;
            let stack = resolve(client, heat, stack, &session.token)?;
            let url =
                format!("{heat}/stacks/{stack}/resources/{}/signal", percent_encoded(resource));
            let request = Request::new(Method::Post, url)
                .header("X-Auth-Token", &session.token)
                .header("Accept", "application/json")
                .body(json_text(&fit(data, HEAT_BYTES_MAX)));
            send(client, request)
        }
        Transport::Zaqar { account, queue } => {
            let session = session(client, account)?;
            let zaqar = unversioned(endpoint(&session, "messaging", account)?);
            let url = format!("{zaqar}/v2/queues/{}/messages", percent_encoded(queue));
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
    let text = format!("{request} was answered with {}{answer}", response.status);
    let why = Why { status: Some(response.status), text, is_ours: false };
    match response.status {
        // Too early or too much, and whatever is wrong at the other end.
        408 | 425 | 429 | 500..=599 => Err(Failed::Later(why)),
        _ => Err(Failed::Refused(why)),
    }
}

fn of_http(error: HttpError) -> Failed {
    let why = Why { is_ours: error.is_ours(), ..Why::from(error.to_string()) };
    if error.is_transient() { Failed::Later(why) } else { Failed::Refused(why) }
}

fn of_keystone(error: KeystoneError) -> Failed {
    let (status, is_ours) = match &error {
        KeystoneError::Refused { status, .. } => (Some(*status), false),
        KeystoneError::Http(error) => (None, error.is_ours()),
        _ => (None, false),
    };
    let why = Why { status, text: error.to_string(), is_ours };
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
        return Ok(stack.split('/').map(percent_encoded).collect::<Vec<_>>().join("/"));
    }
    let request = Request::get(format!("{heat}/stacks/{}", percent_encoded(stack)))
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
            Ok(status) => Failed::Refused(Why {
                status: Some(status),
                text: format!("{shown} was answered with {status}, not with the stack's place"),
                is_ours: false,
            }),
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
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let mut id = [0; 16];
    id.copy_from_slice(&digest.as_ref()[..16]);
    // RFC 9562: version 8, of our own making.
    id[6] = id[6] & 0x0f | 0x80;
    id[8] = id[8] & 0x3f | 0x80;
    let text = HEXLOWER.encode(&id);
    let parts = [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]];
    parts.join("-")
}

#[cfg(test)]
mod tests;
