//! What Keystone said of tokens, remembered for a while.
//!
//! A token is known by its SHA-256 and by nothing shorter: nothing that is said of one token can be taken
//! for another's.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::document::sha256;

/// Tokens remembered at a time.
pub(super) const TOKENS_MAX: usize = 10_000;
/// For how long a good token is not asked about again, in milliseconds: a revoked one is good for so long.
pub(super) const GOOD_MS_MAX: u64 = 5 * 60 * 1000;
/// For how long a bad one is not, in milliseconds.
pub(super) const BAD_MS_MAX: u64 = 10 * 1000;
/// Longest token, in bytes.
pub(super) const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// Whose token it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user's id.
    pub user: String,
    /// The id of the project it is scoped to.
    pub project: String,
    /// The names of the user's roles in it.
    pub roles: Vec<String>,
    /// Its end, in milliseconds since 1970.
    pub expires_unix_ms: u64,
}

/// What Keystone said: whose it is, or that it is no good.
pub(super) type Verdict = Option<Identity>;

struct Entry {
    verdict: Verdict,
    until_unix_ms: u64,
}

/// The memory. Cheap to ask, also by many at once.
#[derive(Default)]
pub(super) struct TokenCache {
    entries: Mutex<HashMap<[u8; 32], Entry>>,
}

impl TokenCache {
    /// What is remembered of a token.
    pub(super) fn get(&self, token: &str, now_unix_ms: u64) -> Option<Verdict> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get(&sha256(token.as_bytes()))?;
        (now_unix_ms < entry.until_unix_ms).then(|| entry.verdict.clone())
    }

    /// Remembers what was said of a token.
    pub(super) fn put(&self, token: &str, verdict: &Verdict, now_unix_ms: u64) {
        let until_unix_ms = match verdict {
            Some(identity) => identity.expires_unix_ms.min(now_unix_ms + GOOD_MS_MAX),
            None => now_unix_ms + BAD_MS_MAX,
        };
        if until_unix_ms <= now_unix_ms {
            return;
        }
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= TOKENS_MAX {
            entries.retain(|_, entry| now_unix_ms < entry.until_unix_ms);
        }
        if entries.len() >= TOKENS_MAX {
            // Whatever goes is asked about again, which costs a request and nothing else.
            let mut ends: Vec<u64> = entries.values().map(|entry| entry.until_unix_ms).collect();
            let (_, median, _) = ends.select_nth_unstable(TOKENS_MAX / 2);
            let median = *median;
            let mut surplus = TOKENS_MAX / 2;
            entries.retain(|_, entry| {
                let goes = entry.until_unix_ms <= median && surplus > 0;
                surplus -= usize::from(goes);
                !goes
            });
        }
        let entry = Entry { verdict: verdict.clone(), until_unix_ms };
        entries.insert(sha256(token.as_bytes()), entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(expires_unix_ms: u64) -> Verdict {
        let (user, project) = ("u".to_owned(), "p".to_owned());
        Some(Identity { user, project, roles: vec!["r".into()], expires_unix_ms })
    }

    #[test]
    fn a_verdict_is_remembered_until_the_token_ends_or_a_while_at_most() {
        let cache = TokenCache::default();
        cache.put("short", &identity(1_500), 1_000);
        cache.put("long", &identity(u64::MAX), 1_000);
        cache.put("bad", &None, 1_000);
        cache.put("over", &identity(900), 1_000);
        assert_eq!(cache.get("short", 1_499), Some(identity(1_500)));
        assert_eq!(cache.get("short", 1_500), None);
        assert_eq!(cache.get("long", 1_000 + GOOD_MS_MAX - 1), Some(identity(u64::MAX)));
        assert_eq!(cache.get("long", 1_000 + GOOD_MS_MAX), None);
        assert_eq!(cache.get("bad", 1_000 + BAD_MS_MAX - 1), Some(None));
        assert_eq!(cache.get("bad", 1_000 + BAD_MS_MAX), None);
        assert_eq!(cache.get("over", 1_000), None);
    }

    #[test]
    fn what_is_said_of_one_token_is_never_said_of_another() {
        let cache = TokenCache::default();
        cache.put("token", &identity(u64::MAX), 0);
        for other in ["", "toke", "token ", "Token", "tokentoken"] {
            assert_eq!(cache.get(other, 1), None, "{other:?}");
        }
        // A bad one does not displace a good one of another text.
        cache.put("token ", &None, 0);
        assert_eq!(cache.get("token", 1), Some(identity(u64::MAX)));
    }

    #[test]
    fn a_flood_of_tokens_is_bounded_and_good_ones_stay_longest() {
        let cache = TokenCache::default();
        cache.put("good", &identity(u64::MAX), 0);
        for number in 0..TOKENS_MAX * 3 {
            cache.put(&format!("bad {number}"), &None, 1);
        }
        assert!(cache.entries.lock().unwrap().len() <= TOKENS_MAX);
        assert_eq!(cache.get("good", 2), Some(identity(u64::MAX)));
    }
}
