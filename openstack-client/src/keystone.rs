//! Keystone, API version 3: a token for a user id and a password within a project, and the catalogue that
//! comes with it.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::http::{Client, Failure, HttpError, Method, Request, Response};

/// Longest answer, in bytes: the catalogue of a large cloud is a tenth of it.
pub const ANSWER_BYTES_MAX: u64 = 2 * 1024 * 1024;

/// Who asks, and in which project.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Credentials<'a> {
    /// Where Keystone is, with a version in its path or without.
    pub auth_url: &'a str,
    /// The user's id, not its name.
    pub user_id: &'a str,
    /// The user's password.
    pub password: &'a str,
    /// The project's id, not its name.
    pub project_id: &'a str,
}

/// The password is a secret.
impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("auth_url", &self.auth_url)
            .field("user_id", &self.user_id)
            .field("project_id", &self.project_id)
            .finish_non_exhaustive()
    }
}

/// A token with its catalogue.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// For the header `X-Auth-Token`.
    pub token: String,
    /// When the token ends, ISO 8601 as Keystone wrote it; empty if it did not.
    pub expires_at: String,
    catalog: Vec<Service>,
}

/// The token is a secret.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Service {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    endpoints: Vec<Endpoint>,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Endpoint {
    #[serde(default)]
    interface: String,
    #[serde(default)]
    region_id: Option<String>,
    #[serde(default)]
    region: Option<String>,
    #[serde(default)]
    url: String,
}

impl Session {
    /// The public endpoint of a type of service, in this region; in whichever is first if none is named.
    ///
    /// # Errors
    /// The catalogue has none.
    pub fn endpoint(
        &self,
        service_type: &str,
        region: Option<&str>,
    ) -> Result<&str, KeystoneError> {
        let region = region.filter(|region| !region.is_empty());
        let services = self.catalog.iter().filter(|service| service.kind == service_type);
        let mut endpoints = services.flat_map(|service| &service.endpoints).filter(|endpoint| {
            let of_endpoint = endpoint.region_id.as_deref().or(endpoint.region.as_deref());
            matches!(endpoint.interface.as_str(), "public" | "publicURL")
                && region.is_none_or(|region| of_endpoint == Some(region))
        });
        endpoints.next().map(|endpoint| endpoint.url.as_str()).ok_or_else(|| {
            KeystoneError::NoEndpoint {
                service_type: service_type.into(),
                region: region.map_or_else(|| "any region".into(), |r| format!("region {r}")),
            }
        })
    }
}

/// Why there is no token, or no endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeystoneError {
    /// Keystone could not be asked.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// Keystone said no.
    #[error("{url} refused user {user_id} in project {project_id}: status {status}{message}")]
    Refused {
        /// What was asked.
        url: String,
        /// Who asked.
        user_id: String,
        /// In which project.
        project_id: String,
        /// The answer.
        status: u16,
        /// In Keystone's words; empty or with a colon before.
        message: String,
    },
    /// Keystone's answer is not as the API says.
    #[error("{url} answered what is no token: {reason}")]
    BadAnswer {
        /// What was asked.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// The catalogue lacks a service.
    #[error("the catalogue has no public endpoint of type {service_type} in {region}")]
    NoEndpoint {
        /// The type that was looked for.
        service_type: String,
        /// Where.
        region: String,
    },
}

impl KeystoneError {
    /// Whether the same request may do better later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Http(error) => error.is_transient(),
            Self::Refused { status, .. } => *status == 429 || *status >= 500,
            Self::BadAnswer { .. } | Self::NoEndpoint { .. } => false,
        }
    }
}

/// Asks for a token. Where version 3 of the API is, the versions that Keystone lists say; if it lists none
/// the URL itself is taken, with `v3` in place of `v2.0`.
///
/// # Errors
/// There is no token.
pub fn sign_in(
    client: &Client,
    credentials: &Credentials<'_>,
    timeout: Duration,
) -> Result<Session, KeystoneError> {
    let base = discover(client, credentials.auth_url, timeout)?;
    let url = format!("{}/auth/tokens", base.trim_end_matches('/'));
    let request = Request::new(Method::Post, &url)
        .header("Accept", "application/json")
        .timeout(timeout)
        .response_bytes_max(ANSWER_BYTES_MAX)
        .json(&json!({"auth": {
            "identity": {
                "methods": ["password"],
                "password": {
                    "user": {"id": credentials.user_id, "password": credentials.password},
                },
            },
            "scope": {"project": {"id": credentials.project_id}},
        }}));
    let response = client.send(&request)?;
    if !response.is_success() {
        return Err(KeystoneError::Refused {
            url,
            user_id: credentials.user_id.into(),
            project_id: credentials.project_id.into(),
            status: response.status,
            message: message(&response).map_or_else(String::new, |message| format!(": {message}")),
        });
    }
    session(&response).map_err(|reason| KeystoneError::BadAnswer { url, reason })
}

/// The words of an error, if Keystone's.
fn message(response: &Response) -> Option<String> {
    let body: Value = serde_json::from_slice(&response.body).ok()?;
    Some(body.get("error")?.get("message")?.as_str()?.to_owned())
}

fn session(response: &Response) -> Result<Session, String> {
    #[derive(Deserialize)]
    struct Body {
        token: Token,
    }
    #[derive(Deserialize)]
    struct Token {
        #[serde(default)]
        expires_at: Option<String>,
        #[serde(default)]
        catalog: Option<Vec<Service>>,
    }

    let token = response.header("X-Subject-Token").ok_or("no header X-Subject-Token")?;
    // The text of such an error may quote the answer, and that is a secret.
    let body: Body = serde_json::from_slice(&response.body)
        .map_err(|error| format!("line {}, column {}", error.line(), error.column()))?;
    Ok(Session {
        token: token.into(),
        expires_at: body.token.expires_at.unwrap_or_default(),
        catalog: body.token.catalog.unwrap_or_default(),
    })
}

/// Where version 3 is. One that hangs is not asked a second time.
fn discover(client: &Client, auth_url: &str, timeout: Duration) -> Result<String, HttpError> {
    let unversioned = auth_url.replace("/v2.0", "/");
    let request = Request::get(&unversioned)
        .header("Accept", "application/json")
        .timeout(timeout)
        .response_bytes_max(ANSWER_BYTES_MAX);
    let listed = match client.send(&request) {
        Ok(response) => Some(response).filter(|response| response.status < 400),
        Err(error) if matches!(error.failure, Failure::Timeout | Failure::Trust) => {
            return Err(error);
        }
        Err(_) => None,
    };
    let versions = listed.and_then(|response| {
        let mut body: Value = serde_json::from_slice(&response.body).ok()?;
        versions(&mut body)
    });
    Ok(match versions {
        Some(versions) => newest_v3(&versions).unwrap_or_else(|| auth_url.into()),
        None => auth_url.replace("/v2.0", "/v3"),
    })
}

fn versions(body: &mut Value) -> Option<Vec<Value>> {
    if let Some(versions) = body.get_mut("versions") {
        let list = if versions.is_object() { versions.get_mut("values")? } else { versions };
        return list.as_array().cloned();
    }
    body.get("version").map(|version| vec![version.clone()])
}

fn newest_v3(versions: &[Value]) -> Option<String> {
    let usable = ["stable", "current", "supported", "deprecated"];
    let found = versions.iter().filter_map(|version| {
        let status = version.get("status")?.as_str()?.to_lowercase();
        let number = version.get("id")?.as_str()?.trim_start_matches('v');
        let (major, minor) = number.split_once('.').unwrap_or((number, "0"));
        let fits = major == "3" && usable.contains(&status.as_str());
        let minor: u32 = minor.split('.').next()?.parse().ok()?;
        let links = version.get("links")?.as_array()?;
        let own = links.iter().find(|link| {
            let relation = link.get("rel").and_then(Value::as_str);
            relation.is_some_and(|relation| relation.eq_ignore_ascii_case("self"))
        })?;
        let url = own.get("href")?.as_str()?;
        fits.then(|| (minor, url.to_owned()))
    });
    found.max_by_key(|(minor, _)| *minor).map(|(_, url)| url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::TIMEOUT_DEFAULT;
    use crate::testing::{Answer, Asked, HttpServer};

    fn credentials(auth_url: &str) -> Credentials<'_> {
        Credentials { auth_url, user_id: "user", password: "secret", project_id: "project" }
    }

    fn token() -> Answer {
        let body = json!({"token": {
            "expires_at": "2026-11-22T13:00:00.000000Z",
            "catalog": [
                {"type": "identity", "endpoints": []},
                {"type": "orchestration", "name": "heat", "endpoints": [
                    {"interface": "internal", "region_id": "one", "url": "http://internal"},
                    {"interface": "public", "region_id": "one", "region": "x", "url": "http://one"},
                    {"interface": "public", "region": "two", "url": "http://two"},
                ]},
            ],
        }});
        Answer::new(201, body.to_string()).header("X-Subject-Token", "the-token")
    }

    fn keystone(versions: Value, status: u16) -> HttpServer {
        HttpServer::start(move |asked: &Asked| match asked.method.as_str() {
            "POST" if asked.target.ends_with("/auth/tokens") => token(),
            "GET" => {
                let here = format!("http://{}", asked.header("host").unwrap());
                Answer::new(status, versions.to_string().replace("HERE", &here))
            }
            _ => Answer::new(404, ""),
        })
    }

    fn v3(id: &str, status: &str, path: &str) -> Value {
        let links = json!([
            {"rel": "describedby", "href": "http://x"},
            {"rel": "self", "href": format!("HERE{path}")},
        ]);
        json!({"id": id, "status": status, "links": links})
    }

    /// Where the token was asked for.
    fn asked_at(versions: Value, status: u16, path: &str) -> String {
        let server = keystone(versions, status);
        let url = server.url(path);
        let session = sign_in(&Client::default(), &credentials(&url), TIMEOUT_DEFAULT).unwrap();
        assert_eq!(session.token, "the-token");
        server.asked().pop().unwrap().target
    }

    #[test]
    fn version_3_is_found_where_keystone_says() {
        let listed = json!({"versions": {"values": [
            v3("v3.14", "stable", "/identity/v3/"), v3("v2.0", "stable", "/v2.0"),
            v3("v3.2", "stable", "/old"), v3("v3.99", "experimental", "/new"),
        ]}});
        assert_eq!(asked_at(listed.clone(), 300, "/"), "/identity/v3/auth/tokens");
        assert_eq!(asked_at(listed, 200, "/v2.0"), "/identity/v3/auth/tokens");
        let single = json!({"version": v3("v3.14", "stable", "/v3/")});
        assert_eq!(asked_at(single, 200, "/v3"), "/v3/auth/tokens");
        let flat = json!({"versions": [v3("v3", "deprecated", "/flat")]});
        assert_eq!(asked_at(flat, 200, "/"), "/flat/auth/tokens");
        let none = json!({"versions": [v3("v2.0", "stable", "/v2.0")]});
        assert_eq!(asked_at(none, 200, "/any"), "/any/auth/tokens");
        for (body, status) in [(json!("x"), 200), (json!({}), 200), (json!({"versions": []}), 500)]
        {
            assert_eq!(asked_at(body.clone(), status, "/id/v2.0"), "/id/v3/auth/tokens");
            assert_eq!(asked_at(body, status, "/id/v3/"), "/id/v3/auth/tokens");
        }
    }

    #[test]
    fn the_password_goes_by_user_id_and_project_scope() {
        let server = keystone(json!({}), 404);
        let url = server.url("/v3");
        sign_in(&Client::default(), &credentials(&url), TIMEOUT_DEFAULT).unwrap();
        let asked = server.asked().pop().unwrap();
        assert_eq!(asked.header("content-type"), Some("application/json"));
        let body: Value = serde_json::from_slice(&asked.body).unwrap();
        assert_eq!(
            body,
            json!({"auth": {
                "identity": {"methods": ["password"],
                    "password": {"user": {"id": "user", "password": "secret"}}},
                "scope": {"project": {"id": "project"}},
            }})
        );
    }

    #[test]
    fn the_public_endpoint_of_the_region_or_the_first_is_found() {
        let server = keystone(json!({}), 404);
        let url = server.url("/v3");
        let session = sign_in(&Client::default(), &credentials(&url), TIMEOUT_DEFAULT).unwrap();
        let endpoint = |kind, region| session.endpoint(kind, region).ok();
        assert_eq!(endpoint("orchestration", None), Some("http://one"));
        assert_eq!(endpoint("orchestration", Some("")), Some("http://one"));
        assert_eq!(endpoint("orchestration", Some("one")), Some("http://one"));
        assert_eq!(endpoint("orchestration", Some("two")), Some("http://two"));
        assert_eq!(endpoint("orchestration", Some("x")), None);
        let error = session.endpoint("messaging", Some("two")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the catalogue has no public endpoint of type messaging in region two"
        );
        let kept = serde_json::to_string(&session).unwrap();
        assert_eq!(serde_json::from_str::<Session>(&kept).unwrap(), session);
    }

    #[test]
    fn a_keystone_that_hangs_is_waited_for_once() {
        let (release, hangs) = std::sync::mpsc::channel::<()>();
        let hangs = std::sync::Mutex::new(hangs);
        let server = HttpServer::start(move |asked: &Asked| {
            if asked.method == "GET" {
                let _ = hangs.lock().unwrap().recv();
            }
            token()
        });
        let url = server.url("/v3");
        let timeout = Duration::from_millis(50);
        let error = sign_in(&Client::default(), &credentials(&url), timeout).unwrap_err();
        let KeystoneError::Http(http) = &error else { panic!("{error:?}") };
        assert_eq!(http.failure, Failure::Timeout);
        assert!(error.is_transient() && server.asked().len() == 1, "{:?}", server.asked());
        drop(release);
    }

    #[test]
    fn an_answer_beyond_the_limit_is_not_read() {
        let padding = " ".repeat(ANSWER_BYTES_MAX as usize);
        let versions = format!("{}{padding}", json!({"versions": [v3("v3", "stable", "/else")]}));
        let token = {
            let mut answer = token();
            answer.body.extend(padding.bytes());
            answer
        };
        let server = HttpServer::start(move |asked| match asked.method.as_str() {
            "POST" => token.clone(),
            _ => Answer::new(200, &*versions),
        });
        let url = server.url("/v3");
        let error = sign_in(&Client::default(), &credentials(&url), TIMEOUT_DEFAULT).unwrap_err();
        let KeystoneError::Http(error) = error else { panic!("{error}") };
        assert_eq!(error.failure, Failure::BadResponse);
        assert_eq!(server.asked().pop().unwrap().target, "/v3/auth/tokens", "the list is too long");
    }

    #[test]
    fn refusals_and_bad_answers_are_said_without_secrets() {
        let cases = [
            (401, json!({"error": {"message": "no such user"}}).to_string(), false),
            (503, "<html>".into(), true),
            (201, "{\"token\": \"secret\"}".into(), false),
            (201, "{}".into(), false),
        ];
        for (status, body, transient) in cases {
            let server = HttpServer::start(move |asked| match asked.method.as_str() {
                "POST" => Answer::new(status, &*body).header("X-Subject-Token", "secret"),
                _ => Answer::new(404, ""),
            });
            let url = server.url("/v3");
            let error =
                sign_in(&Client::default(), &credentials(&url), TIMEOUT_DEFAULT).unwrap_err();
            assert_eq!(error.is_transient(), transient, "{error}");
            assert!(error.to_string().contains("/v3/auth/tokens"), "{error}");
            assert_eq!(error.to_string().contains("no such user"), status == 401, "{error}");
            assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
        }
        let credentials = credentials("x");
        let error = sign_in(&Client::default(), &credentials, TIMEOUT_DEFAULT).unwrap_err();
        let KeystoneError::Http(http) = &error else { panic!("{error:?}") };
        assert_eq!(http.failure, Failure::BadRequest);
        assert!(!format!("{credentials:?}").contains("secret"));
    }
}
