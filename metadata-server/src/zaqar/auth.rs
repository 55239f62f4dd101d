//! Who asks: by a token that Keystone knows, or by a signed URL.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};

use super::keystone::{CheckError, Keystone};
use super::signed::{Grant, signer_of};
use super::token::{TOKEN_BYTES_MAX, Verdict};
use super::{Admission, Zaqar, ZaqarError};
use crate::clock;

/// How often Keystone is asked about one token before the caller is refused.
const TRIES_MAX: u32 = 4;
/// The wait after the first try that failed; it doubles.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    /// In which project.
    pub(super) project: String,
    /// Which user; not known where anybody is let in.
    pub(super) user: Option<String>,
}

impl FromRequestParts<Zaqar> for Caller {
    type Rejection = ZaqarError;

    async fn from_request_parts(parts: &mut Parts, zaqar: &Zaqar) -> Result<Self, ZaqarError> {
        let caller = identify(parts, zaqar).await;
        if caller.is_err() {
            zaqar.inner.metrics.count_messaging_refusal();
        }
        caller
    }
}

async fn identify(parts: &Parts, zaqar: &Zaqar) -> Result<Caller, ZaqarError> {
    let header = |name| text(&parts.headers, name);
    if let Some(signature) = header("url-signature") {
        return by_signature(parts, zaqar, signature);
    }
    match &zaqar.inner.admission {
        Admission::Keystone(keystone) => by_token(parts, zaqar, keystone, &zaqar.inner.roles).await,
        Admission::Anybody => match header("x-project-id") {
            Some(project) => Ok(Caller { project: project.into(), user: None }),
            None => Err(ZaqarError::bad_request("the request has no X-Project-Id")),
        },
    }
}

fn by_signature(parts: &Parts, zaqar: &Zaqar, signature: &str) -> Result<Caller, ZaqarError> {
    let header = |name| text(&parts.headers, name).unwrap_or_default().to_owned();
    let grant = Grant {
        project: header("x-project-id"),
        paths: header("url-paths"),
        methods: header("url-methods"),
        expires: header("url-expires"),
        user: signer_of(signature),
    };
    let now = super::queues::time(clock::unix_ms() / 1000);
    if zaqar.inner.signer.verify(&grant, signature)
        && grant.allows(parts.method.as_str(), parts.uri.path(), &now)
    {
        // As who signed: the queue may have become another's since.
        return Ok(Caller { project: grant.project, user: grant.user });
    }
    Err(ZaqarError::new(
        StatusCode::FORBIDDEN,
        "Signed URL not accepted",
        "the signature does not fit the request, or its time is over",
    ))
}

/// Who asks with a token, which must have one of these roles.
pub(super) async fn by_token(
    parts: &Parts,
    zaqar: &Zaqar,
    keystone: &Arc<Keystone>,
    roles: &[String],
) -> Result<Caller, ZaqarError> {
    let Some(token) = text(&parts.headers, "x-auth-token") else {
        return Err(unauthorized("the request has no X-Auth-Token"));
    };
    if token.is_empty() || token.len() > TOKEN_BYTES_MAX {
        return Err(unauthorized("the X-Auth-Token is none of Keystone's"));
    }
    let now_unix_ms = clock::unix_ms();
    let verdict = match zaqar.inner.tokens.get(token, now_unix_ms) {
        Some(verdict) => verdict,
        None => {
            let verdict = ask(zaqar, keystone, token).await?;
            zaqar.inner.tokens.put(token, &verdict, now_unix_ms);
            verdict
        }
    };
    let Some(identity) = verdict.filter(|identity| now_unix_ms < identity.expires_unix_ms) else {
        return Err(unauthorized("Keystone does not know the X-Auth-Token, or it has no project"));
    };
    if !identity.roles.iter().any(|role| roles.contains(role)) {
        return Err(ZaqarError::new(
            StatusCode::FORBIDDEN,
            "Role missing",
            format!(
                "the user has none of the roles {} in project {}; this service is Heat's",
                roles.join(", "),
                identity.project
            ),
        ));
    }
    // Whatever X-Project-Id says: the project is the token's.
    Ok(Caller { project: identity.project, user: Some(identity.user) })
}

/// Asks Keystone, again if need be: Heat waits for us, and fails the stack if we give up.
async fn ask(zaqar: &Zaqar, keystone: &Arc<Keystone>, token: &str) -> Result<Verdict, ZaqarError> {
    let mut wait = RETRY_AFTER;
    for left in (0..TRIES_MAX).rev() {
        let (keystone, token) = (keystone.clone(), token.to_owned());
        // An error would mean that the semaphore was closed, which nobody does.
        let permit = zaqar.inner.token_questions.acquire().await;
        let asked = tokio::task::spawn_blocking(move || keystone.validate(&token)).await;
        drop(permit);
        let error = match asked {
            Ok(Ok(verdict)) => return Ok(verdict),
            Ok(Err(error)) => error,
            Err(_) => CheckError::Transient("the service is stopping".into()),
        };
        if left == 0 || matches!(error, CheckError::Denied(_)) {
            // The words name URLs, for the operator; the caller learns who is at fault.
            tracing::error!(%error, "a token could not be validated");
            return Err(ZaqarError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "Service temporarily unavailable",
                "metadata-server could not have the token validated by Keystone",
            ));
        }
        tokio::time::sleep(wait).await;
        wait *= 2;
    }
    Err(unauthorized("Keystone was not asked"))
}

fn unauthorized(what: &str) -> ZaqarError {
    ZaqarError::new(StatusCode::UNAUTHORIZED, "Authentication required", what)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
