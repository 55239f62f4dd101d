//! The bearer token: read from a private file, compared in constant time.

use std::path::Path;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use certs::file::{FileError, PRIVATE_FILE_MODE, create_atomic, read_private};
use data_encoding::BASE64URL_NOPAD;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

use super::ApiError;
use crate::error::{Exit, Failure};

/// Random bytes in a token made here.
const TOKEN_RANDOM_BYTES: usize = 32;
/// Shortest token accepted from a file, in characters.
const TOKEN_CHARS_MIN: usize = 16;
/// Longest, in bytes.
const TOKEN_BYTES_MAX: u64 = 4096;

/// The admin API's token. Only a keyed hash of it is kept.
pub struct AdminToken {
    key: hmac::Key,
    tag: hmac::Tag,
}

impl AdminToken {
    /// Reads the token from its file, or makes one at the first start.
    ///
    /// # Errors
    /// The file cannot be read or made, others may read it, or it holds no usable token.
    pub fn load_or_create(path: &Path) -> Result<Self, Failure> {
        match read(path) {
            Err(TokenFileError::File(error)) if error.is_not_found() => {
                let mut bytes = [0; TOKEN_RANDOM_BYTES];
                SystemRandom::new().fill(&mut bytes).map_err(|_| {
                    Failure::new(Exit::Failed, "the system's random generator failed")
                })?;
                let line = format!("{}\n", BASE64URL_NOPAD.encode(&bytes));
                create_atomic(path, line.as_bytes(), PRIVATE_FILE_MODE)
                    .map_err(|e| Failure::from(TokenFileError::File(e)))?;
                Self::new(&read(path)?)
            }
            token => Self::new(&token?),
        }
    }

    fn new(token: &str) -> Result<Self, Failure> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .map_err(|_| Failure::new(Exit::Failed, "the system's random generator failed"))?;
        let tag = hmac::sign(&key, token.as_bytes());
        Ok(Self { key, tag })
    }

    /// Whether this is the token. Takes the same time for every wrong one of a length.
    fn admits(&self, token: &str) -> bool {
        hmac::verify(&self.key, token.as_bytes(), self.tag.as_ref()).is_ok()
    }
}

/// Why a token's file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenFileError {
    /// It cannot be read, or others can.
    #[error("admin token: {}", chain(.0))]
    File(FileError),
    /// It holds no token.
    #[error(
        "admin token: {path} must hold one line of at least {TOKEN_CHARS_MIN} visible characters"
    )]
    Unusable {
        /// The file.
        path: String,
    },
}

impl TokenFileError {
    /// Whether the file just is not there.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::File(error) if error.is_not_found())
    }
}

fn chain(error: &FileError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

impl From<TokenFileError> for Failure {
    fn from(error: TokenFileError) -> Self {
        Self::new(Exit::Config, error.to_string()).with_hint(
            "the file belongs to the user that runs metadata-server, mode 0600; \
             --admin-token-file names another one",
        )
    }
}

/// Reads a token from its file.
pub(crate) fn read(path: &Path) -> Result<String, TokenFileError> {
    let bytes = read_private(path, TOKEN_BYTES_MAX).map_err(TokenFileError::File)?;
    let unusable = || TokenFileError::Unusable { path: path.display().to_string() };
    let text = std::str::from_utf8(&bytes).map_err(|_| unusable())?.trim();
    let is_fine = text.len() >= TOKEN_CHARS_MIN && text.bytes().all(|b| b.is_ascii_graphic());
    if is_fine { Ok(text.to_owned()) } else { Err(unusable()) }
}

/// Lets requests with the token through, before their body is looked at.
pub(super) async fn require(
    State(state): State<super::State>,
    request: Request,
    next: Next,
) -> Response {
    let given = request.headers().get(header::AUTHORIZATION).map(|value| {
        let value = value.to_str().unwrap_or_default();
        value.strip_prefix("Bearer ").unwrap_or_default().trim()
    });
    let what = match given {
        Some(token) if state.inner.token.admits(token) => return next.run(request).await,
        Some(_) => "the admin token in the Authorization header is not the right one",
        None => "the request has no admin token",
    };
    ApiError::new(StatusCode::UNAUTHORIZED, "unauthorized", what)
        .with_hint(format!(
            "send \"Authorization: Bearer TOKEN\" with the token in {}",
            state.inner.config.admin_token_file().display()
        ))
        .into_response()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_token_is_made_once_and_only_it_is_admitted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin-token");
        let made = AdminToken::load_or_create(&path).unwrap();
        let text = read(&path).unwrap();
        assert!(made.admits(&text));
        assert!(!made.admits("") && !made.admits(&text[1..]));
        assert!(AdminToken::load_or_create(&path).unwrap().admits(&text), "the same one again");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_token_that_others_can_read_is_refused_with_the_repair() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin-token");
        fs::write(&path, "x".repeat(40)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let failure = AdminToken::load_or_create(&path).err().unwrap();
        assert_eq!(failure.exit, Exit::Config);
        assert!(failure.message.contains("mode 0644"), "{failure}");
        assert!(failure.message.contains("chmod"), "{failure}");
    }

    #[test]
    fn a_short_token_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin-token");
        fs::write(&path, "secret\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let failure = AdminToken::load_or_create(&path).err().unwrap();
        assert!(failure.message.contains("at least 16"), "{failure}");
    }
}
