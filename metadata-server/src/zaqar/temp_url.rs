//! Temporary URLs as Swift has them: who was given one may do one thing with one object, without a token.

use data_encoding::HEXLOWER;
use ring::hmac;
use serde::Deserialize;

/// The parts of a temporary URL's query.
#[derive(Debug, Default, Deserialize)]
pub(super) struct TempUrl {
    #[serde(default)]
    temp_url_sig: Option<String>,
    #[serde(default)]
    temp_url_expires: Option<String>,
}

/// Why a temporary URL does not allow what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum TempUrlError {
    /// Its end is no number of seconds since 1970.
    #[error("temp_url_expires must be seconds since 1970")]
    NoEnd,
    /// It has ended.
    #[error("the temporary URL has expired")]
    Expired,
    /// The signature is none of SHA-1, SHA-256 and SHA-512 in hexadecimal.
    #[error("temp_url_sig must be 40, 64 or 128 hexadecimal digits")]
    Form,
    /// The signature is another's: of another key, path, method or end.
    #[error("the signature of the temporary URL does not fit the request")]
    Signature,
}

impl TempUrl {
    /// Whether a request has a temporary URL at all.
    pub(super) fn is_any(&self) -> bool {
        self.temp_url_sig.is_some()
    }

    /// Checks it; `key` is the account's.
    ///
    /// # Errors
    /// It does not allow this method at this path now.
    pub(super) fn check(
        &self,
        key: &str,
        method: &str,
        path: &str,
        now_unix_s: u64,
    ) -> Result<(), TempUrlError> {
        let ends = self.temp_url_expires.as_deref().unwrap_or_default();
        let end: u64 = ends.parse().map_err(|_| TempUrlError::NoEnd)?;
        if now_unix_s >= end {
            return Err(TempUrlError::Expired);
        }
        let signature = self.temp_url_sig.as_deref().unwrap_or_default();
        let algorithm = match signature.len() {
            40 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            64 => hmac::HMAC_SHA256,
            128 => hmac::HMAC_SHA512,
            _ => return Err(TempUrlError::Form),
        };
        let signature = HEXLOWER.decode(signature.as_bytes()).map_err(|_| TempUrlError::Form)?;
        let key = hmac::Key::new(algorithm, key.as_bytes());
        let fits = |method: &str| {
            let signed = format!("{method}\n{ends}\n{path}");
            hmac::verify(&key, signed.as_bytes(), &signature).is_ok()
        };
        // Who may read or write an object may also look whether it has changed.
        let is_good = match method {
            "HEAD" => ["HEAD", "GET", "PUT", "POST"].into_iter().any(fits),
            method => fits(method),
        };
        if is_good { Ok(()) } else { Err(TempUrlError::Signature) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "0123456789abcdef";
    const PATH: &str = "/v1/AUTH_p/container/object";
    const END: u64 = 2_147_483_586;

    /// As python-swiftclient signs.
    fn signed(algorithm: hmac::Algorithm, method: &str) -> TempUrl {
        let key = hmac::Key::new(algorithm, KEY.as_bytes());
        let tag = hmac::sign(&key, format!("{method}\n{END}\n{PATH}").as_bytes());
        TempUrl {
            temp_url_sig: Some(HEXLOWER.encode(tag.as_ref())),
            temp_url_expires: Some(END.to_string()),
        }
    }

    #[test]
    fn a_url_that_heat_signed_is_good_for_its_method_and_path_until_its_end() {
        for algorithm in [hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, hmac::HMAC_SHA256, hmac::HMAC_SHA512]
        {
            let put = signed(algorithm, "PUT");
            assert_eq!(put.check(KEY, "PUT", PATH, END - 1), Ok(()));
            assert_eq!(put.check(KEY, "HEAD", PATH, END - 1), Ok(()));
            assert_eq!(put.check(KEY, "GET", PATH, END - 1), Err(TempUrlError::Signature));
            assert_eq!(put.check(KEY, "DELETE", PATH, END - 1), Err(TempUrlError::Signature));
            assert_eq!(put.check(KEY, "PUT", PATH, END), Err(TempUrlError::Expired));
            let other = PATH.replace("object", "other");
            assert_eq!(put.check(KEY, "PUT", &other, 0), Err(TempUrlError::Signature));
            assert_eq!(put.check("another", "PUT", PATH, 0), Err(TempUrlError::Signature));
        }
    }

    #[test]
    fn a_url_that_was_bent_is_refused() {
        let mut later = signed(hmac::HMAC_SHA256, "GET");
        later.temp_url_expires = Some((END + 1).to_string());
        assert_eq!(later.check(KEY, "GET", PATH, 0), Err(TempUrlError::Signature));
        let mut endless = signed(hmac::HMAC_SHA256, "GET");
        endless.temp_url_expires = None;
        assert_eq!(endless.check(KEY, "GET", PATH, 0), Err(TempUrlError::NoEnd));
        for signature in ["", "00", &"z".repeat(64), &"A".repeat(40)] {
            let mut bent = signed(hmac::HMAC_SHA256, "GET");
            bent.temp_url_sig = Some((*signature).to_owned());
            assert_eq!(bent.check(KEY, "GET", PATH, 0), Err(TempUrlError::Form), "{signature:?}");
        }
    }
}
