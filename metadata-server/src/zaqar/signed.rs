//! Signed URLs: who was given one may do what it says, without a token, until it ends, as the user who signed.

use anyhow::Context;
use data_encoding::HEXLOWER;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::store::writer::Writer;
use crate::store::{Store, Write};

/// Random bytes in the key.
const KEY_BYTES: usize = 32;

/// What a signed URL allows. Each field is as it is sent in the headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Grant {
    /// `X-Project-Id`.
    pub(super) project: String,
    /// `URL-Paths`, separated by commas.
    pub(super) paths: String,
    /// `URL-Methods`, separated by commas.
    pub(super) methods: String,
    /// `URL-Expires`, as `2026-11-22T03:59:30` in UTC.
    pub(super) expires: String,
    /// Who signed, where that is known. It goes with the signature, in which callers see nothing but a text.
    pub(super) user: Option<String>,
}

/// Between the MAC and the user in a signature.
const USER_AFTER: char = '.';

/// Who has signed, as the signature says.
pub(super) fn signer_of(signature: &str) -> Option<String> {
    signature.split_once(USER_AFTER).map(|(_, user)| user.to_owned())
}

impl Grant {
    /// Whether it allows a method at a path, now.
    pub(super) fn allows(&self, method: &str, path: &str, now: &str) -> bool {
        let has = |list: &str, wanted: &str| list.split(',').any(|entry| entry.trim() == wanted);
        // Times of this form order as text.
        has(&self.methods, method) && has(&self.paths, path) && now < self.expires.as_str()
    }

    fn bytes(&self) -> Vec<u8> {
        let fields = [&self.project, &self.paths, &self.methods, &self.expires];
        // Headers hold no line break.
        let fields: Vec<&str> = fields.into_iter().chain(&self.user).map(String::as_str).collect();
        fields.join("\n").into_bytes()
    }
}

/// Signs and checks.
pub(super) struct Signer(hmac::Key);

impl Signer {
    /// With the key from the store, or a new one that is put there.
    pub(super) async fn open(store: &Store, writer: &Writer) -> anyhow::Result<Self> {
        if let Some(key) = store.url_key().context("reading the key of signed URLs")? {
            return Ok(Self::new(&key));
        }
        let mut key = Zeroizing::new(vec![0; KEY_BYTES]);
        SystemRandom::new()
            .fill(&mut key)
            .map_err(|_| anyhow::anyhow!("the system's random generator failed"))?;
        let signer = Self::new(&key);
        writer.write(Write::SaveUrlKey(key)).await.context("storing the key of signed URLs")?;
        Ok(signer)
    }

    fn new(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// The signature: a MAC in hexadecimal, and the user.
    pub(super) fn sign(&self, grant: &Grant) -> String {
        let mac = HEXLOWER.encode(hmac::sign(&self.0, &grant.bytes()).as_ref());
        match &grant.user {
            Some(user) => format!("{mac}{USER_AFTER}{user}"),
            None => mac,
        }
    }

    /// The key of an account's temporary URLs: of each its own, none of them stored.
    pub(super) fn account_key(&self, project: &str) -> String {
        // A grant's bytes have three line breaks, these have one.
        let label = format!("key of temporary URLs\n{project}");
        HEXLOWER.encode(hmac::sign(&self.0, label.as_bytes()).as_ref())
    }

    /// Whether this is the grant's signature.
    pub(super) fn verify(&self, grant: &Grant, signature: &str) -> bool {
        let mac = signature.split_once(USER_AFTER).map_or(signature, |(mac, _)| mac);
        HEXLOWER
            .decode(mac.as_bytes())
            .is_ok_and(|tag| hmac::verify(&self.0, &grant.bytes(), &tag).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant() -> Grant {
        Grant {
            project: "p".into(),
            paths: "/v2/queues/q/messages".into(),
            methods: "DELETE,GET".into(),
            expires: "2026-11-22T03:59:30".into(),
            user: Some("u".into()),
        }
    }

    #[test]
    fn a_signature_is_good_for_exactly_its_grant_and_key() {
        let signer = Signer::new(&[1; 32]);
        let signature = signer.sign(&grant());
        assert!(signer.verify(&grant(), &signature));
        assert!(!Signer::new(&[2; 32]).verify(&grant(), &signature));
        assert_eq!(signer_of(&signature).as_deref(), Some("u"));
        let nobodys = signer.sign(&Grant { user: None, ..grant() });
        assert_eq!((signer_of(&nobodys), nobodys.len()), (None, 64));
        for bent in ["", "00", &signature[2..], &signature.to_uppercase(), &nobodys] {
            assert!(!signer.verify(&grant(), bent), "{bent}");
        }
        let changes: [fn(&mut Grant); 6] = [
            |g| g.user = Some("other".into()),
            |g| g.user = None,
            |g| g.project = "other".into(),
            |g| g.paths = "/v2/queues/other/messages".into(),
            |g| g.methods = "DELETE,GET,POST".into(),
            |g| g.expires = "2036-11-22T03:59:30".into(),
        ];
        for change in changes {
            let mut other = grant();
            change(&mut other);
            assert!(!signer.verify(&other, &signature), "{other:?}");
        }
    }

    #[test]
    fn a_grant_allows_its_paths_and_methods_until_its_end() {
        let now = "2026-11-22T03:59:29";
        assert!(grant().allows("DELETE", "/v2/queues/q/messages", now));
        assert!(!grant().allows("POST", "/v2/queues/q/messages", now));
        assert!(!grant().allows("DELETE", "/v2/queues/q", now));
        assert!(!grant().allows("DELETE", "/v2/queues/q/messages/1", now));
        assert!(!grant().allows("GET", "/v2/queues/q/messages", "2026-11-22T03:59:30"));
    }
}
