//! The name of an agent, checked once where it enters and safe everywhere after.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

/// Longest agent id, in characters (all ASCII, so bytes too).
pub const AGENT_ID_CHARS_MAX: usize = 255;

/// The name of an agent: in practice a Nova server's UUID.
///
/// 1 to 255 characters out of `A-Z a-z 0-9 . _ -`, the first of them not a dot. So an id is safe
/// as a file name, a URL path segment, a store key and a word of a log line. A clone shares the text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct AgentId(Arc<str>);

impl AgentId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text is not an agent id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AgentIdError {
    /// Nothing there.
    #[error("agent id is empty")]
    Empty,
    /// Longer than [`AGENT_ID_CHARS_MAX`].
    #[error("agent id has {0} characters, at most {AGENT_ID_CHARS_MAX} are allowed")]
    TooLong(usize),
    /// Starts with a dot, which would make a hidden or special file name.
    #[error("agent id {0:?} starts with a dot")]
    LeadingDot(String),
    /// A character outside the alphabet.
    #[error("agent id {id:?} has {character:?}; allowed are letters, digits, '.', '_' and '-'")]
    BadCharacter {
        /// The id as given.
        id: String,
        /// The first offending character.
        character: char,
    },
}

impl TryFrom<String> for AgentId {
    type Error = AgentIdError;

    fn try_from(id: String) -> Result<Self, Self::Error> {
        if id.is_empty() {
            return Err(AgentIdError::Empty);
        }
        if id.len() > AGENT_ID_CHARS_MAX {
            return Err(AgentIdError::TooLong(id.chars().count()));
        }
        if let Some(character) =
            id.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')))
        {
            return Err(AgentIdError::BadCharacter { id, character });
        }
        if id.starts_with('.') {
            return Err(AgentIdError::LeadingDot(id));
        }
        Ok(Self(id.into()))
    }
}

impl FromStr for AgentId {
    type Err = AgentIdError;

    fn from_str(id: &str) -> Result<Self, Self::Err> {
        Self::try_from(id.to_owned())
    }
}

impl From<AgentId> for String {
    fn from(id: AgentId) -> Self {
        id.as_str().to_owned()
    }
}

impl Serialize for AgentId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl AsRef<str> for AgentId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_uuid_and_other_plain_names_are_ids() {
        for id in ["6d3c5d4e-5fb0-4d0a-8d5c-0d6f6c1f2a3b", "a", "web_1.example", &"x".repeat(255)] {
            assert_eq!(id.parse::<AgentId>().unwrap().as_str(), id);
        }
    }

    #[test]
    fn everything_else_is_refused_with_the_reason() {
        let error = |id: &str| id.parse::<AgentId>().unwrap_err().to_string();
        assert_eq!(error(""), "agent id is empty");
        assert_eq!(error(&"x".repeat(256)), "agent id has 256 characters, at most 255 are allowed");
        assert_eq!(error(".."), "agent id \"..\" starts with a dot");
        for bad in ["a/b", "a b", "a\0", "a\n", "é", "a%2f"] {
            assert!(error(bad).contains("allowed are letters"), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn an_accepted_id_survives_json_and_stays_inside_its_directory(id in "\\PC{0,300}") {
            if let Ok(agent_id) = id.parse::<AgentId>() {
                let json = serde_json::to_string(&agent_id).unwrap();
                prop_assert_eq!(serde_json::from_str::<AgentId>(&json).unwrap(), agent_id);
                let path = std::path::Path::new(&id);
                prop_assert_eq!(path.file_name().unwrap(), id.as_str());
                prop_assert_eq!(path.components().count(), 1);
            } else {
                let json = serde_json::to_string(&id).unwrap();
                prop_assert!(serde_json::from_str::<AgentId>(&json).is_err());
            }
        }

        #[test]
        fn every_text_of_the_alphabet_is_an_id(id in "[A-Za-z0-9_-][A-Za-z0-9._-]{0,254}") {
            prop_assert!(id.parse::<AgentId>().is_ok());
        }
    }
}
