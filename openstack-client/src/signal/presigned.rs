//! How long a pre-signed URL is good for, as far as it says so itself.

use jiff::Timestamp;

/// How old a signature may be unless Keystone's `[credential] auth_ttl` says otherwise, in seconds.
pub const KEYSTONE_TTL_S: i64 = 900;

/// When a URL was signed, and when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Presigned {
    signed_unix: Option<i64>,
    expires_unix: Option<i64>,
}

impl Presigned {
    /// Reads `Timestamp` (CFN), and `temp_url_expires` (Swift), seconds since 1970 or ISO 8601.
    #[must_use]
    pub fn of_url(url: &str) -> Self {
        let query = url.split_once('?').map_or("", |(_, query)| query);
        let query = query.split('#').next().unwrap_or_default();
        let value = |wanted: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(name, _)| *name == wanted).and_then(|(_, value)| time(value))
        };
        Self { signed_unix: value("Timestamp"), expires_unix: value("temp_url_expires") }
    }

    /// Whether it says that it is over.
    #[must_use]
    pub fn has_expired(self, now_unix: i64) -> bool {
        self.expires_unix.is_some_and(|expires| expires < now_unix)
    }

    /// Whether it is older than Keystone allows by default: `[credential] auth_ttl` may say otherwise.
    #[must_use]
    pub fn is_old(self, now_unix: i64) -> bool {
        self.signed_unix.is_some_and(|signed| now_unix - signed > KEYSTONE_TTL_S)
    }

    /// Why it may have been refused; empty if it does not say.
    #[must_use]
    pub fn hint(self, now_unix: i64) -> String {
        if let Some(expires) = self.expires_unix.filter(|expires| *expires < now_unix) {
            return format!("; the URL was good until {} s ago", now_unix - expires);
        }
        match self.signed_unix.map(|signed| now_unix - signed) {
            Some(age) if age > KEYSTONE_TTL_S => format!(
                "; the URL was signed {age} s ago, Keystone's [credential] auth_ttl is {KEYSTONE_TTL_S} s by default"
            ),
            _ => String::new(),
        }
    }
}

fn time(text: &str) -> Option<i64> {
    if let Ok(seconds) = text.parse() {
        return Some(seconds);
    }
    let text = text.replace("%3A", ":").replace("%3a", ":");
    text.parse().ok().map(Timestamp::as_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CFN: &str = "http://h/v1/signal/arn%3Ax?SignatureMethod=HmacSHA256&Timestamp=2026-11-22T03%3A58%3A39Z&Signature=A%3D";
    const SIGNED: i64 = 1_795_319_919;

    #[test]
    fn a_cfn_url_says_when_it_was_signed() {
        let url = Presigned::of_url(CFN);
        assert_eq!(url, Presigned { signed_unix: Some(SIGNED), expires_unix: None });
        assert_eq!(url.hint(SIGNED + 60), "");
        assert!(url.hint(SIGNED + 901).contains("signed 901 s ago"));
        assert!(!url.is_old(SIGNED + 900) && url.is_old(SIGNED + 901));
        assert!(!url.has_expired(SIGNED + 1_000_000), "only Keystone knows its auth_ttl");
    }

    #[test]
    fn a_temporary_url_says_when_it_ends() {
        for expires in ["1000", "1970-01-01T00:16:40Z", "1970-01-01T00%3A16%3A40Z"] {
            let url = Presigned::of_url(&format!(
                "http://h/v1/a/c/o?temp_url_sig=x&temp_url_expires={expires}"
            ));
            assert!(!url.has_expired(1000) && url.has_expired(1001), "{expires}");
            assert_eq!(url.hint(1005), "; the URL was good until 5 s ago");
        }
    }

    #[test]
    fn other_urls_say_nothing() {
        for url in ["", "http://h", "http://h?Timestamp=soon&temp_url_expires=", "?&&=&"] {
            let read = Presigned::of_url(url);
            assert_eq!(read, Presigned { signed_unix: None, expires_unix: None }, "{url}");
            assert_eq!(read.hint(i64::MAX), "");
        }
    }
}
