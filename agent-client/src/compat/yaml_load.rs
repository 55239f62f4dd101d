//! YAML as Python's `yaml.safe_load` reads it (YAML 1.1), as JSON.
//!
//! Differences that JSON makes: keys become text, dates stay text, infinities and what is not a number
//! too.

use std::collections::HashMap;
use std::sync::LazyLock;

use regex::Regex;
use saphyr_parser::{Event, Parser, ScalarStyle, Tag};
use serde_json::{Map, Value};
use thiserror::Error;

use super::yaml::{Scalar, plain};

/// Nodes of a text, aliases counted with what they stand for: a few lines could stand for billions.
pub const NODES_MAX: usize = 1_000_000;
/// How deep collections may be nested.
pub const DEPTH_MAX: usize = 100;

/// Why a text is not read.
#[derive(Debug, Error)]
pub enum LoadError {
    /// It is no YAML.
    #[error("no YAML: {0}")]
    Syntax(String),
    /// More than one document.
    #[error("it has more than one YAML document")]
    Documents,
    /// A list or a map is a key.
    #[error("a list or a map is used as a key")]
    Key,
    /// A bound was reached.
    #[error("it has more than {NODES_MAX} values, or is nested deeper than {DEPTH_MAX}")]
    TooLarge,
    /// An alias stands within what it stands for.
    #[error("an alias stands for what it is part of")]
    Recursive,
}

/// Reads the one document that the text holds; null if it holds nothing.
///
/// # Errors
/// See [`LoadError`].
pub fn load(text: &str) -> Result<Value, LoadError> {
    let mut loader =
        Loader { events: Parser::new_from_str(text), anchors: HashMap::new(), nodes: 0 };
    let mut value = Value::Null;
    let mut documents = 0;
    loop {
        match loader.next()? {
            Event::StreamEnd => return Ok(value),
            Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
            event => {
                documents += 1;
                if documents > 1 {
                    return Err(LoadError::Documents);
                }
                value = loader.node(event, 0)?;
            }
        }
    }
}

/// What a plain scalar is.
pub fn resolve(text: &str) -> Value {
    match plain(text) {
        Scalar::Null => Value::Null,
        Scalar::Bool(value) => value.into(),
        Scalar::Int(value) => value.into(),
        Scalar::Text(_) | Scalar::Collection => number(text).unwrap_or_else(|| text.into()),
    }
}

/// Numbers that control files do not have: with a fraction, or to the base of 60.
static FLOAT: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r"^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?)$",
    )
    .ok()
});
static BASE_60: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"^[-+]?(?:[1-9][0-9_]*(?::[0-5]?[0-9])+|[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*)$")
        .ok()
});

fn number(text: &str) -> Option<Value> {
    let is = |what: &Option<Regex>| what.as_ref().is_some_and(|regex| regex.is_match(text));
    let digits = || text.replace('_', "");
    if is(&FLOAT) {
        // Rust wants no digit before the point either, but one after an exponent's sign, as YAML does.
        return digits().parse::<f64>().ok().map(Value::from);
    }
    if !is(&BASE_60) {
        return None;
    }
    let digits = digits();
    let (sign, digits) = match digits.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, digits.strip_prefix('+').unwrap_or(&digits)),
    };
    let parts: Option<Vec<f64>> = digits.split(':').map(|part| part.parse().ok()).collect();
    let value = sign * parts?.into_iter().fold(0.0, |sum, part| sum * 60.0 + part);
    if digits.contains('.') {
        return Some(value.into());
    }
    // Whole numbers up to 2^53 are exact.
    let whole = format!("{value:.0}").parse::<i64>().ok()?;
    Some(whole.into())
}

struct Loader<'t> {
    events: Parser<'t, saphyr_parser::StrInput<'t>>,
    anchors: HashMap<usize, Option<Value>>,
    nodes: usize,
}

impl<'t> Loader<'t> {
    fn next(&mut self) -> Result<Event<'t>, LoadError> {
        match self.events.next() {
            Some(Ok((event, _))) => Ok(event),
            Some(Err(error)) => Err(LoadError::Syntax(error.to_string())),
            None => Ok(Event::StreamEnd),
        }
    }

    fn node(&mut self, event: Event<'t>, depth: usize) -> Result<Value, LoadError> {
        self.nodes += 1;
        if self.nodes > NODES_MAX || depth > DEPTH_MAX {
            return Err(LoadError::TooLarge);
        }
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                (scalar(&text, style, tag.as_deref()), anchor)
            }
            Event::SequenceStart(anchor, _) => {
                self.anchors.insert(anchor, None);
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        Event::SequenceEnd => break,
                        event => items.push(self.node(event, depth + 1)?),
                    }
                }
                (Value::Array(items), anchor)
            }
            Event::MappingStart(anchor, _) => {
                self.anchors.insert(anchor, None);
                (self.mapping(depth)?, anchor)
            }
            Event::Alias(anchor) => {
                let value = self.anchors.get(&anchor).and_then(Clone::clone);
                let value = value.ok_or(LoadError::Recursive)?;
                self.nodes += size(&value);
                return if self.nodes > NODES_MAX { Err(LoadError::TooLarge) } else { Ok(value) };
            }
            _ => return Err(LoadError::Syntax("the text ends too early".into())),
        };
        if anchor != 0 {
            self.anchors.insert(anchor, Some(value.clone()));
        }
        Ok(value)
    }

    fn mapping(&mut self, depth: usize) -> Result<Value, LoadError> {
        let mut merged = Map::new();
        let mut own = Vec::new();
        loop {
            let key = match self.next()? {
                Event::MappingEnd => break,
                Event::Scalar(text, ScalarStyle::Plain, 0, None) if text == "<<" => {
                    let event = self.next()?;
                    match self.node(event, depth + 1)? {
                        Value::Object(map) => merge(&mut merged, map),
                        Value::Array(maps) => {
                            for map in maps {
                                let Value::Object(map) = map else { return Err(LoadError::Key) };
                                merge(&mut merged, map);
                            }
                        }
                        _ => return Err(LoadError::Key),
                    }
                    continue;
                }
                Event::Scalar(text, _, anchor, _) => {
                    let text = text.into_owned();
                    if anchor != 0 {
                        self.anchors.insert(anchor, Some(text.clone().into()));
                    }
                    text
                }
                Event::Alias(anchor) => match self.anchors.get(&anchor) {
                    Some(Some(Value::String(key))) => key.clone(),
                    _ => return Err(LoadError::Key),
                },
                _ => return Err(LoadError::Key),
            };
            let event = self.next()?;
            own.push((key, self.node(event, depth + 1)?));
        }
        // What is merged comes first, and the map's own entries win.
        merged.extend(own);
        Ok(Value::Object(merged))
    }
}

/// The first to bring a key wins.
fn merge(into: &mut Map<String, Value>, from: Map<String, Value>) {
    for (key, value) in from {
        into.entry(key).or_insert(value);
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Value {
    match tag {
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => text.into(),
        Some(_) => resolve(text),
        None if style == ScalarStyle::Plain => resolve(text),
        None => text.into(),
    }
}

fn size(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(size).sum::<usize>(),
        Value::Object(map) => 1 + map.values().map(size).sum::<usize>(),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_text_becomes_what_python_makes_of_it() {
        // As json.dumps(yaml.safe_load(…)) prints them.
        for (text, value) in [
            ("", json!(null)),
            (
                "a: [1, 0o7, 017, 1.5, 1e3, 1.0e+3, .5, yes, ~, 0x1F, '5', \"x\\ny\"]",
                json!({"a": [1, "0o7", 15, 1.5, "1e3", 1000.0, 0.5, true, null, 31, "5", "x\ny"]}),
            ),
            ("t: 22:22\nf: 1:30.5\nn: -1:00", json!({"t": 1342, "f": 90.5, "n": -60})),
            ("d: 2026-01-01", json!({"d": "2026-01-01"})),
            (
                "x: &a {k: 1, l: 2}\ny:\n  <<: *a\n  l: 3\nz: *a",
                json!({"x": {"k": 1, "l": 2}, "y": {"k": 1, "l": 3}, "z": {"k": 1, "l": 2}}),
            ),
            ("y:\n  l: 3\n  <<: [{l: 4, m: 5}, {m: 6}]", json!({"y": {"l": 3, "m": 5}})),
            (
                "a: |\n  one\n  two\nb: >\n  three\n  four\n",
                json!({"a": "one\ntwo\n", "b": "three four\n"}),
            ),
            ("a: !!str 5\nb: !!int '6'", json!({"a": "5", "b": 6})),
        ] {
            assert_eq!(load(text).unwrap(), value, "{text}");
        }
        assert!(matches!(load("b: - 1"), Err(LoadError::Syntax(_))));
    }

    #[test]
    fn bombs_and_circles_and_other_documents_are_refused() {
        let mut bomb = "a0: &a0 [x]\n".to_owned();
        for n in 1..30 {
            bomb.push_str(&format!(
                "a{n}: &a{n} [{}]\n",
                vec![format!("*a{}", n - 1); 10].join(",")
            ));
        }
        assert!(matches!(load(&bomb), Err(LoadError::TooLarge)));
        assert!(matches!(load(&"[".repeat(500)), Err(LoadError::TooLarge | LoadError::Syntax(_))));
        assert!(matches!(load("a: &a [*a]"), Err(LoadError::Recursive)));
        assert!(matches!(load("a\n---\nb\n"), Err(LoadError::Documents)));
        assert!(matches!(load("[a]: b"), Err(LoadError::Key)));
    }
}
