//! The little YAML that control files are made of: one flat map, read as YAML 1.1 does.
//!
//! Python's reader follows YAML 1.1, where `0600` is octal and `yes` is true. Files were written for
//! it, so plain scalars are resolved by those rules here, on the events of a parser that knows 1.2.

use std::borrow::Cow;

use saphyr_parser::{Event, Parser, ScalarStyle};
use thiserror::Error;

/// A scalar as YAML 1.1 understands it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scalar {
    /// Nothing, `~` or `null`.
    Null,
    /// `true`, `no`, `On` …
    Bool(bool),
    /// Decimal, `0x…`, `0b…`, or octal with a leading 0.
    Int(i64),
    /// Quoted, or anything else.
    Text(String),
    /// A list or a map.
    Collection,
}

/// Why a text is no flat map.
#[derive(Debug, Error)]
pub enum YamlError {
    /// It is no YAML.
    #[error("no YAML: {0}")]
    Syntax(String),
    /// It is something else than a map.
    #[error("not a map of keys and values")]
    NoMap,
    /// A key is no text.
    #[error("a key is no text")]
    BadKey,
}

/// The entries of the one map that the text holds, in order; none if it holds nothing.
///
/// # Errors
/// See [`YamlError`].
pub fn flat_map(text: &str) -> Result<Vec<(String, Scalar)>, YamlError> {
    let mut events = Parser::new_from_str(text)
        .map(|event| event.map(|(event, _)| event).map_err(|e| YamlError::Syntax(e.to_string())))
        .filter(|event| !matches!(event, Ok(Event::StreamStart | Event::DocumentStart(_))));
    let mut next = || events.next().unwrap_or(Ok(Event::StreamEnd));
    match next()? {
        Event::StreamEnd | Event::DocumentEnd => return Ok(Vec::new()),
        Event::MappingStart(..) => {}
        Event::Scalar(text, style, _, tag) => {
            let value = scalar(&text, style, tag.is_some());
            return if value == Scalar::Null { Ok(Vec::new()) } else { Err(YamlError::NoMap) };
        }
        _ => return Err(YamlError::NoMap),
    }
    let mut entries = Vec::new();
    loop {
        let key = match next()? {
            Event::MappingEnd => break,
            Event::Scalar(text, style, _, tag) => match scalar(&text, style, tag.is_some()) {
                Scalar::Text(key) => key,
                _ => return Err(YamlError::BadKey),
            },
            _ => return Err(YamlError::BadKey),
        };
        let value = match next()? {
            Event::Scalar(text, style, _, tag) => scalar(&text, style, tag.is_some()),
            Event::SequenceStart(..) | Event::MappingStart(..) => {
                let mut depth = 1;
                while depth > 0 {
                    match next()? {
                        Event::SequenceStart(..) | Event::MappingStart(..) => depth += 1,
                        Event::SequenceEnd | Event::MappingEnd => depth -= 1,
                        Event::StreamEnd => return Err(YamlError::NoMap),
                        _ => {}
                    }
                }
                Scalar::Collection
            }
            _ => Scalar::Collection,
        };
        entries.push((key, value));
    }
    // One document; more is an error, as Python says.
    loop {
        match next()? {
            Event::StreamEnd => return Ok(entries),
            Event::DocumentEnd => {}
            _ => return Err(YamlError::NoMap),
        }
    }
}

/// What a scalar without quotes is.
pub(super) fn plain(text: &str) -> Scalar {
    scalar(text, ScalarStyle::Plain, false)
}

/// Resolves a scalar. A tag says that it is what the author wrote, text for our purposes.
fn scalar(text: &str, style: ScalarStyle, tagged: bool) -> Scalar {
    if style != ScalarStyle::Plain || tagged {
        return Scalar::Text(text.into());
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Scalar::Null,
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Scalar::Bool(true),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            Scalar::Bool(false)
        }
        _ => integer(text).map_or_else(|| Scalar::Text(text.into()), Scalar::Int),
    }
}

/// YAML 1.1's integers, without the ones to the base of 60.
fn integer(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let plain: Cow<'_, str> =
        if digits.contains('_') { digits.replace('_', "").into() } else { digits.into() };
    let value = if let Some(hex) = plain.strip_prefix("0x") {
        i64::from_str_radix(hex, 16)
    } else if let Some(binary) = plain.strip_prefix("0b") {
        i64::from_str_radix(binary, 2)
    } else if plain.len() > 1 && plain.starts_with('0') {
        i64::from_str_radix(&plain, 8)
    } else {
        plain.parse()
    };
    value.ok().map(|value| sign * value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_are_what_yaml_1_1_says() {
        let text = "mode: 0600\nplain: 600\nquoted: \"0600\"\nnew: 0o600\nhex: 0x1F\nyes: No\n\
                    none:\ntilde: ~\nname: rabbit\ndate: 2026-01-01\nlist: [1, {a: b}]\nneg: -1_0\n\
                    eight: 089\n";
        let entries = flat_map(text);
        // `yes` as a key is a truth value, which is no name.
        assert!(matches!(entries, Err(YamlError::BadKey)));
        let entries = flat_map(&text.replace("yes:", "answer:")).unwrap();
        let expected = [
            ("mode", Scalar::Int(0o600)),
            ("plain", Scalar::Int(600)),
            ("quoted", Scalar::Text("0600".into())),
            ("new", Scalar::Text("0o600".into())),
            ("hex", Scalar::Int(31)),
            ("answer", Scalar::Bool(false)),
            ("none", Scalar::Null),
            ("tilde", Scalar::Null),
            ("name", Scalar::Text("rabbit".into())),
            ("date", Scalar::Text("2026-01-01".into())),
            ("list", Scalar::Collection),
            ("neg", Scalar::Int(-10)),
            ("eight", Scalar::Text("089".into())),
        ];
        let expected = expected.map(|(key, value)| (key.to_owned(), value));
        assert_eq!(entries, expected);
    }

    #[test]
    fn nothing_is_an_empty_map_and_anything_else_is_no_map() {
        for text in ["", "# a comment\n", "---\n", "~\n"] {
            assert_eq!(flat_map(text).unwrap(), [], "{text:?}");
        }
        for text in ["text", "- a", "a: b\n---\nc: d\n", "a: [", "{a: b", "? [x]\n: y", "1: a"] {
            assert!(flat_map(text).is_err(), "{text:?}");
        }
    }
}
