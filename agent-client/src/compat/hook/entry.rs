//! One deployment, as a hook reads it.

use std::io::Read;

use serde_json::{Map, Value};

use crate::compat::truth::is_true;
use crate::document::{ConfigId, Input, Output, plain_text};
use crate::hooks::NotRun;

/// Longest entry in bytes. Heat's own limit for all of a server's metadata is below 2 MiB.
pub(super) const ENTRY_BYTES_MAX: u64 = 64 << 20;

/// A deployment; what is asked for is checked when it is asked for.
pub(super) struct Entry(Map<String, Value>);

impl Entry {
    /// Reads it.
    pub(super) fn read(from: &mut impl Read) -> Result<Self, String> {
        let mut text = Vec::new();
        from.take(ENTRY_BYTES_MAX + 1).read_to_end(&mut text).map_err(|e| e.to_string())?;
        if text.len() as u64 > ENTRY_BYTES_MAX {
            return Err(format!("it has more than {ENTRY_BYTES_MAX} bytes"));
        }
        match serde_json::from_slice(&text) {
            Ok(Value::Object(entry)) => Ok(Self(entry)),
            Ok(_) => Err("it is no object".into()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Its id.
    pub(super) fn id(&self) -> Result<ConfigId, NotRun> {
        let id = self.0.get("id").and_then(Value::as_str);
        let id = id.ok_or_else(|| bad("it has no id, or one that is no string"))?;
        ConfigId::new(id).map_err(bad)
    }

    /// A text, such as its name.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(Value::as_str)
    }

    /// Its config; null if it has none.
    pub(super) fn config(&self) -> &Value {
        self.0.get("config").unwrap_or(&Value::Null)
    }

    /// Its config where that must be text; empty if it has none.
    pub(super) fn config_text(&self, what: &str) -> Result<&str, NotRun> {
        match self.config() {
            Value::String(text) => Ok(text),
            Value::Null => Ok(""),
            _ => Err(bad(format!("its config is not text: {what} is expected"))),
        }
    }

    /// Its inputs. One without a value has an empty one.
    pub(super) fn inputs(&self) -> Result<Vec<Input>, NotRun> {
        let list = match self.0.get("inputs") {
            Some(Value::Array(list)) => list.as_slice(),
            // What iterates to nothing in Python.
            Some(Value::Object(map)) if map.is_empty() => &[],
            Some(_) => return Err(bad("its inputs are no list")),
            None => return Err(bad("it has no inputs")),
        };
        list.iter()
            .enumerate()
            .map(|(index, input)| {
                let name = input.get("name").and_then(Value::as_str);
                let name = name.ok_or_else(|| bad(format!("input {index} has no name")))?;
                let value = input.get("value").cloned().unwrap_or_else(|| "".into());
                Ok(Input { name: name.to_owned(), value })
            })
            .collect()
    }

    /// Its inputs where it need not have any.
    pub(super) fn any_inputs(&self) -> Result<Vec<Input>, NotRun> {
        if self.0.contains_key("inputs") { self.inputs() } else { Ok(Vec::new()) }
    }

    /// The outputs that it may set.
    pub(super) fn outputs(&self) -> Result<Vec<Output>, NotRun> {
        let list = match self.0.get("outputs") {
            Some(Value::Array(list)) => list.as_slice(),
            None | Some(Value::Null) => &[],
            Some(Value::Object(map)) if map.is_empty() => &[],
            Some(_) => return Err(bad("its outputs are no list")),
        };
        list.iter()
            .enumerate()
            .map(|(index, output)| {
                let name = output.get("name").and_then(Value::as_str);
                let name = name.ok_or_else(|| bad(format!("output {index} has no name")))?;
                Ok(Output { name: name.to_owned(), error_output: false })
            })
            .collect()
    }

    /// An option that is text; `None` if it is absent or empty.
    pub(super) fn option(&self, name: &str) -> Result<Option<String>, NotRun> {
        match self.raw_option(name) {
            Some(value @ (Value::Array(_) | Value::Object(_))) if is_true(value) => {
                Err(bad(format!("its option {name:?} must be text, as the tool takes it")))
            }
            Some(value) if is_true(value) => Ok(Some(plain_text(value))),
            _ => Ok(None),
        }
    }

    /// An option that is on or off.
    pub(super) fn flag(&self, name: &str, default: bool) -> bool {
        self.raw_option(name).map_or(default, is_true)
    }

    fn raw_option(&self, name: &str) -> Option<&Value> {
        self.0.get("options").and_then(|options| options.get(name))
    }
}

/// An entry that cannot be used, with why.
pub(super) fn bad(reason: impl std::fmt::Display) -> NotRun {
    NotRun::because(format!("the deployment cannot be used: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &str) -> Entry {
        Entry::read(&mut text.as_bytes()).unwrap()
    }

    #[test]
    fn what_is_no_object_is_no_entry() {
        for text in ["", "{::::", "[]", "5", "{}{}"] {
            assert!(Entry::read(&mut text.as_bytes()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_is_missing_or_of_another_kind_is_said() {
        let entry = entry(r#"{"id": 5, "inputs": [{"value": 1}], "outputs": "x", "config": {}}"#);
        assert!(entry.id().unwrap_err().reason.contains("no id"));
        assert!(entry.inputs().unwrap_err().reason.contains("input 0 has no name"));
        assert!(entry.outputs().unwrap_err().reason.contains("no list"));
        assert!(entry.config_text("a script").unwrap_err().reason.contains("a script is expected"));
        assert!(super::Entry(Map::new()).inputs().unwrap_err().reason.contains("no inputs"));
    }

    #[test]
    fn options_are_absent_when_empty_and_true_as_in_python() {
        let entry = entry(
            r#"{"options": {"tags": "", "n": 5, "no": false, "list": ["a"], "off": "", "on": "x"}}"#,
        );
        assert_eq!(entry.option("tags").unwrap(), None);
        assert_eq!(entry.option("missing").unwrap(), None);
        assert_eq!(entry.option("n").unwrap().as_deref(), Some("5"));
        assert!(entry.option("list").is_err());
        assert!(entry.flag("on", false) && !entry.flag("off", true) && !entry.flag("no", true));
        assert!(entry.flag("missing", true));
        for options in ["null", "[]"] {
            let entry = super::tests::entry(&format!("{{\"options\": {options}}}"));
            assert!(!entry.flag("x", false), "{options}");
        }
    }
}
