//! Where a client may go: URL prefixes, compared part by part and not as text.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use ureq::http::Uri;

/// The beginning of URLs: scheme, host and port as a whole, and a path up to a `/` or its end.
///
/// `http://h/v1` begins `http://h:80/v1` and `http://H/v1/x?y`, and neither `http://h/v10` nor `http://h.x/v1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlPrefix {
    text: String,
    scheme: String,
    host: String,
    port: u16,
    path: String,
}

/// Why a text is no [`UrlPrefix`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is no URL like https://heat.example:8000/v1/, without user, query and fragment")]
pub struct UrlPrefixError(String);

impl UrlPrefix {
    /// Whether `url` begins so.
    #[must_use]
    pub fn admits(&self, url: &str) -> bool {
        let Some(place) = Place::of(url) else { return false };
        let rest = place.path.strip_prefix(self.path.as_str());
        let is_below = rest.is_some_and(|rest| {
            self.path.ends_with('/') || rest.is_empty() || rest.starts_with('/')
        });
        (place.scheme, place.host, place.port) == (self.scheme.clone(), self.host.clone(), self.port)
            && is_below
            // Whoever answers may take them away, and with them the prefix.
            && !has_dots(&place.path)
    }
}

impl FromStr for UrlPrefix {
    type Err = UrlPrefixError;

    fn from_str(text: &str) -> Result<Self, UrlPrefixError> {
        let bad = || UrlPrefixError(super::without_secrets(text));
        if text.contains(['?', '#', '@']) {
            return Err(bad());
        }
        let Place { scheme, host, port, path } = Place::of(text).ok_or_else(bad)?;
        if has_dots(&path) {
            return Err(bad());
        }
        Ok(Self { text: text.to_owned(), scheme, host, port, path })
    }
}

impl fmt::Display for UrlPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

struct Place {
    scheme: String,
    host: String,
    port: u16,
    path: String,
}

impl Place {
    /// By the parser that says where to connect to.
    fn of(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let default = match scheme.as_str() {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let host = uri.host().filter(|host| !host.is_empty())?.to_ascii_lowercase();
        Some(Self {
            port: uri.port_u16().unwrap_or(default),
            scheme,
            host,
            path: uri.path().into(),
        })
    }
}

/// Whether a segment of the path is `.` or `..`, encoded or not, or a `\` separates them.
fn has_dots(path: &str) -> bool {
    let path =
        path.to_ascii_lowercase().replace("%2e", ".").replace("%2f", "/").replace("%5c", "/");
    path.contains('\\') || path.split('/').any(|segment| matches!(segment, "." | ".."))
}

/// Whether both URLs have the same scheme, host and port.
pub(super) fn is_same_origin(a: &str, b: &str) -> bool {
    match (Place::of(a), Place::of(b)) {
        (Some(a), Some(b)) => (a.scheme, a.host, a.port) == (b.scheme, b.host, b.port),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_admits_what_lies_below_it_and_nothing_beside() {
        let prefix: UrlPrefix = "http://Heat.example:8000/v1/signal".parse().unwrap();
        for (url, admitted) in [
            ("http://heat.example:8000/v1/signal", true),
            ("http://heat.example:8000/v1/signal/arn%3Aa/x?Signature=y", true),
            ("http://heat.example:8000/v1/signal?x", true),
            ("http://heat.example:8000/v1/signals", false),
            ("http://heat.example:8000/v1", false),
            ("https://heat.example:8000/v1/signal", false),
            ("http://heat.example/v1/signal", false),
            ("http://heat.example.evil:8000/v1/signal", false),
            ("http://heat.example:8000@evil/v1/signal", false),
            ("http://evil?http://heat.example:8000/v1/signal", false),
            ("http://heat.example:8000/v1/signal/../admin", false),
            ("http://heat.example:8000/v1/signal/%2E%2e/admin", false),
            ("http://heat.example:8000/v1/signal/..%2fadmin", false),
            ("http://heat.example:8000/v1/signal/..%5Cadmin", false),
            ("file:///v1/signal", false),
            ("nonsense", false),
            ("", false),
        ] {
            assert_eq!(prefix.admits(url), admitted, "{url}");
        }
        let host: UrlPrefix = "https://heat.example".parse().unwrap();
        assert!(host.admits("https://heat.example:443/any") && host.admits("https://heat.example"));
        assert!(!host.admits("https://heat.example:8443/any"));
    }

    #[test]
    fn what_is_no_prefix_is_refused_without_its_secrets() {
        for text in
            ["", "heat", "ftp://h/", "http://u@h/", "http://h/?x", "http://h/#", "http://h/.."]
        {
            assert!(text.parse::<UrlPrefix>().is_err(), "{text}");
        }
        let error = "http://user:secret@h/?secret".parse::<UrlPrefix>().unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}
