//! SHA-256 over a certificate's DER bytes: the name a key goes by in pins, logs and errors.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use ring::digest;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use subtle::ConstantTimeEq as _;

/// Bytes of a fingerprint: one SHA-256.
pub const FINGERPRINT_BYTES: usize = 32;

/// Longest text that is looked at when a fingerprint is read. The longest valid one, with prefix
/// and colons, has 103 characters.
pub const FINGERPRINT_CHARS_MAX: usize = 128;

/// The hash's name as RFC 8122 §5 spells it in front of the digits.
const HASH_NAME: &str = "sha-256";

/// SHA-256 over the DER encoding of a certificate.
///
/// Written `sha-256 AB:CD:…` (RFC 8122 §5, upper-case pairs with colons). Read in any case, with
/// or without colons, with or without the `sha-256 ` in front.
///
/// A fingerprint is public: DTLS 1.2 sends certificates in clear. Equality nevertheless runs in
/// constant time, so nobody has to argue about it.
#[derive(Clone, Copy, PartialOrd, Ord)]
pub struct Fingerprint([u8; FINGERPRINT_BYTES]);

impl Fingerprint {
    /// The fingerprint of a DER-encoded certificate.
    pub fn of_der(certificate: &[u8]) -> Self {
        let mut bytes = [0; FINGERPRINT_BYTES];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, certificate).as_ref());
        Self(bytes)
    }

    /// A fingerprint from its raw bytes, as a store keeps them.
    pub const fn from_bytes(bytes: [u8; FINGERPRINT_BYTES]) -> Self {
        Self(bytes)
    }

    /// The raw bytes.
    pub const fn as_bytes(&self) -> &[u8; FINGERPRINT_BYTES] {
        &self.0
    }
}

impl PartialEq for Fingerprint {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Fingerprint {}

impl Hash for Fingerprint {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HASH_NAME)?;
        for (index, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02X}", if index == 0 { ' ' } else { ':' })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// Why a text is not a fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FingerprintParseError {
    /// Another hash than SHA-256 is named in front.
    #[error(
        "fingerprint uses {0:?}, only sha-256 is read; print it with: openssl x509 -in CERT -noout -fingerprint -sha256"
    )]
    OtherHash(String),
    /// A character that is neither a hex digit nor a colon between two bytes.
    #[error(
        "fingerprint has {character:?} at position {position}, expected hex digits with or without colons"
    )]
    BadCharacter {
        /// The offending character.
        character: char,
        /// Its place in the text, counted from 1.
        position: usize,
    },
    /// Too few or too many hex digits.
    #[error("fingerprint has {0} hex digits, a sha-256 fingerprint has 64")]
    BadLength(usize),
    /// The text is longer than any fingerprint.
    #[error("fingerprint has {0} characters, at most {FINGERPRINT_CHARS_MAX} are read")]
    TooLong(usize),
}

impl FromStr for Fingerprint {
    type Err = FingerprintParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > FINGERPRINT_CHARS_MAX {
            return Err(FingerprintParseError::TooLong(text.chars().count()));
        }
        let trimmed = text.trim();
        let digits = match trimmed.split_once(char::is_whitespace) {
            Some((hash, rest)) if hash.eq_ignore_ascii_case(HASH_NAME) => rest.trim_start(),
            Some((hash, _)) => return Err(FingerprintParseError::OtherHash(hash.to_owned())),
            None => trimmed,
        };
        let offset = text.find(digits).unwrap_or(0);
        let bad = |index: usize, character| FingerprintParseError::BadCharacter {
            character,
            position: text[..offset + index].chars().count() + 1,
        };

        // Colons stand after every byte or nowhere: "AB:CD" and "ABCD", never "A:BCD".
        let with_colons = digits.contains(':');
        let mut nibbles = Vec::with_capacity(2 * FINGERPRINT_BYTES);
        for (index, character) in digits.char_indices() {
            if with_colons && index % 3 == 2 {
                if character != ':' {
                    return Err(bad(index, character));
                }
                continue;
            }
            match character.to_digit(16) {
                Some(digit) => nibbles.push(digit as u8),
                None => return Err(bad(index, character)),
            }
        }
        if nibbles.len() != 2 * FINGERPRINT_BYTES {
            return Err(FingerprintParseError::BadLength(nibbles.len()));
        }
        if digits.ends_with(':') {
            return Err(bad(digits.len() - 1, ':'));
        }
        let mut bytes = [0; FINGERPRINT_BYTES];
        for (byte, pair) in bytes.iter_mut().zip(nibbles.chunks_exact(2)) {
            *byte = pair[0] << 4 | pair[1];
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_is_the_sha_256_of_the_der_written_as_rfc_8122_writes_it() {
        // SHA-256 of the empty string, FIPS 180-4.
        assert_eq!(
            Fingerprint::of_der(b"").to_string(),
            "sha-256 E3:B0:C4:42:98:FC:1C:14:9A:FB:F4:C8:99:6F:B9:24:\
             27:AE:41:E4:64:9B:93:4C:A4:95:99:1B:78:52:B8:55"
        );
    }

    #[test]
    fn every_usual_spelling_is_read() {
        let expected = Fingerprint::of_der(b"certificate");
        let canonical = expected.to_string();
        let bare = canonical.trim_start_matches("sha-256 ");
        for spelling in [
            canonical.clone(),
            canonical.to_lowercase(),
            canonical.to_uppercase(),
            bare.to_owned(),
            bare.replace(':', ""),
            bare.replace(':', "").to_lowercase(),
            format!("sha-256   {}\n", bare.replace(':', "")),
            format!("  {bare}  "),
        ] {
            assert_eq!(spelling.parse(), Ok(expected), "{spelling:?}");
        }
    }

    #[test]
    fn errors_name_what_is_wrong_and_where() {
        let bare = Fingerprint::of_der(b"x").to_string().replace("sha-256 ", "");
        let error = |text: &str| text.parse::<Fingerprint>().unwrap_err().to_string();
        assert_eq!(error(""), "fingerprint has 0 hex digits, a sha-256 fingerprint has 64");
        assert!(error(&format!("sha-1 {bare}")).starts_with("fingerprint uses \"sha-1\""));
        assert!(
            error(&format!("sha-256 {}", bare.replacen(':', ".", 1)))
                .contains("'.' at position 11")
        );
        assert!(error(&format!("{bare}:00")).contains("66 hex digits"));
        assert!(error(&format!("{bare}:")).contains("':' at position 96"));
        assert!(error(&bare[3..]).contains("62 hex digits"));
        assert!(error(&bare[1..]).contains("at position"));
        assert!(error(&"a".repeat(1000)).contains("1000 characters"));
        assert!(error("ключ").contains("'к' at position 1"));
    }

    #[test]
    fn one_flipped_bit_anywhere_makes_another_fingerprint() {
        let one = Fingerprint::of_der(b"one");
        for bit in 0..FINGERPRINT_BYTES * 8 {
            let mut bytes = *one.as_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(one, Fingerprint::from_bytes(bytes));
        }
    }

    proptest! {
        #[test]
        fn written_and_read_again_it_is_the_same(bytes: [u8; FINGERPRINT_BYTES]) {
            let fingerprint = Fingerprint::from_bytes(bytes);
            prop_assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
            let json = serde_json::to_string(&fingerprint).unwrap();
            prop_assert_eq!(serde_json::from_str::<Fingerprint>(&json).unwrap(), fingerprint);
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "\\PC{0,140}") {
            let _ = text.parse::<Fingerprint>();
        }

        #[test]
        fn what_is_read_is_written_canonically(text in "(sha-256 )?[0-9a-fA-F:]{60,100}") {
            if let Ok(fingerprint) = text.parse::<Fingerprint>() {
                let digits = |text: &str| text.to_lowercase().replace("sha-256 ", "").replace(':', "");
                prop_assert_eq!(digits(&fingerprint.to_string()), digits(&text));
            }
        }
    }
}
