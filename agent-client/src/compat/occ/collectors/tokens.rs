//! Requests with a Keystone token, which may be kept between them.

use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use certs::file::{PRIVATE_FILE_MODE, read_private, write_atomic};
use data_encoding::HEXLOWER;
use ring::digest;
use serde::{Deserialize, Serialize};

use super::{Missing, needed};
use crate::compat::occ::config::{TokenCache, User};
use openstack_client::http::{Client, Response};
use openstack_client::keystone::{Credentials, Session, sign_in};

const KEYSTONE_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest kept token with its catalogue.
const TOKEN_BYTES_MAX: u64 = 1024 * 1024;
const UNAUTHORIZED: u16 = 401;

impl User {
    /// Who signs in.
    pub(super) fn credentials(&self) -> Result<Credentials<'_>, Missing> {
        Ok(Credentials {
            auth_url: needed(&self.auth_url, "auth_url")?,
            password: needed(&self.password, "password")?,
            project_id: needed(&self.project_id, "project_id")?,
            user_id: needed(&self.user_id, "user_id")?,
        })
    }
}

/// Sends requests of those who have signed in.
pub(super) struct Signed<'s> {
    /// For Keystone, and handed on.
    pub(super) client: &'s Client,
    pub(super) cache: Option<&'s TokenCache>,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    unix_s: u64,
    session: Session,
}

impl Signed<'_> {
    /// Signs in, or takes the token that is kept, finds the endpoint, and sends. A kept token that is
    /// refused is thrown away, once.
    pub(super) fn send(
        &self,
        credentials: &Credentials<'_>,
        service_type: &str,
        region: Option<&str>,
        send: impl Fn(&Client, &str, &str) -> Result<Response, String>,
    ) -> Result<Response, Missing> {
        let file = self.cache.map(|cache| file_of(cache, credentials));
        if let Some(session) = file.as_ref().and_then(|file| self.kept(file))
            && let Ok(response) = used(self.client, &session, service_type, region, &send)
            && response.status != UNAUTHORIZED
        {
            return Ok(response);
        }
        let session = sign_in(self.client, credentials, KEYSTONE_TIMEOUT)
            .map_err(|error| error.to_string())?;
        if let Some(file) = file {
            keep(&file, &session)?;
        }
        Ok(used(self.client, &session, service_type, region, &send)?)
    }

    fn kept(&self, file: &std::path::Path) -> Option<Session> {
        let bytes = read_private(file, TOKEN_BYTES_MAX).ok()?;
        let kept: Kept = serde_json::from_slice(&bytes).ok()?;
        let now = now_unix_s();
        let expires: Option<jiff::Timestamp> = kept.session.expires_at.parse().ok();
        let lives = expires.is_none_or(|at| at > jiff::Timestamp::now());
        let ttl = self.cache?.ttl.as_secs();
        (lives && (kept.unix_s..kept.unix_s.saturating_add(ttl)).contains(&now))
            .then_some(kept.session)
    }
}

fn used(
    client: &Client,
    session: &Session,
    service_type: &str,
    region: Option<&str>,
    send: impl Fn(&Client, &str, &str) -> Result<Response, String>,
) -> Result<Response, String> {
    let endpoint = session.endpoint(service_type, region).map_err(|error| error.to_string())?;
    send(client, endpoint.trim_end_matches('/'), &session.token)
}

fn file_of(cache: &TokenCache, credentials: &Credentials<'_>) -> PathBuf {
    let parts = [credentials.auth_url, credentials.user_id, credentials.project_id];
    let digest = digest::digest(&digest::SHA256, parts.join("\n").as_bytes());
    cache.directory.join(format!("{}.json", HEXLOWER.encode(digest.as_ref())))
}

fn keep(file: &std::path::Path, session: &Session) -> Result<(), String> {
    let kept = Kept { unix_s: now_unix_s(), session: session.clone() };
    let bytes = serde_json::to_vec(&kept).map_err(|error| error.to_string())?;
    if let Some(directory) = file.parent() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|error| format!("could not make {}: {error}", directory.display()))?;
    }
    write_atomic(file, &bytes, PRIVATE_FILE_MODE).map_err(|error| error.to_string())
}

fn now_unix_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
