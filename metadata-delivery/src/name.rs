//! Document names.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

/// Longest name, in bytes.
pub const NAME_BYTES_MAX: usize = 200;

/// The name of a document: 1..=[`NAME_BYTES_MAX`] visible ASCII characters (0x21..=0x7e).
///
/// Cheap to clone. What a name means is up to the application; the ones of this product are in
/// [`message`](crate::message).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

/// Why a text is no [`Name`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NameError {
    /// No characters at all.
    #[error("a document name must not be empty")]
    Empty,
    /// Longer than [`NAME_BYTES_MAX`].
    #[error("a document name has at most {NAME_BYTES_MAX} bytes, this one has {0}")]
    TooLong(usize),
    /// A byte outside 0x21..=0x7e.
    #[error("a document name consists of visible ASCII, found byte {byte:#04x} at offset {at}")]
    NotVisibleAscii {
        /// The offending byte.
        byte: u8,
        /// Its offset.
        at: usize,
    },
}

impl Name {
    /// Checks `text` and makes it a name.
    ///
    /// # Errors
    /// [`NameError`] when the text is empty, too long, or not visible ASCII.
    pub fn new(text: &str) -> Result<Self, NameError> {
        check(text.as_bytes())?;
        Ok(Self(Arc::from(text)))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Checks bytes from the wire; the text is returned so that it need not be checked twice.
pub(crate) fn check(bytes: &[u8]) -> Result<&str, NameError> {
    if bytes.is_empty() {
        return Err(NameError::Empty);
    }
    if bytes.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong(bytes.len()));
    }
    if let Some(at) = bytes.iter().position(|byte| !byte.is_ascii_graphic()) {
        return Err(NameError::NotVisibleAscii { byte: bytes[at], at });
    }
    // ASCII is UTF-8: the error arm cannot be reached, and needs no panic to say so.
    std::str::from_utf8(bytes).map_err(|_| NameError::Empty)
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl std::str::FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl TryFrom<&str> for Name {
    type Error = NameError;

    fn try_from(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_one_and_of_two_hundred_bytes_are_taken() {
        assert_eq!(Name::new("a").unwrap().as_str(), "a");
        assert!(Name::new(&"x".repeat(NAME_BYTES_MAX)).is_ok());
    }

    #[test]
    fn an_empty_a_long_and_an_invisible_name_are_refused_with_the_reason() {
        assert_eq!(Name::new(""), Err(NameError::Empty));
        assert_eq!(Name::new(&"x".repeat(201)), Err(NameError::TooLong(201)));
        assert_eq!(Name::new("a b"), Err(NameError::NotVisibleAscii { byte: 0x20, at: 1 }));
        assert_eq!(Name::new("ü"), Err(NameError::NotVisibleAscii { byte: 0xc3, at: 0 }));
        assert_eq!(Name::new("a\x7f"), Err(NameError::NotVisibleAscii { byte: 0x7f, at: 1 }));
    }
}
