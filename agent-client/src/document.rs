//! What a pushed document asks of this instance.
//!
//! A document that is not one JSON object with a list of deployments is refused as a whole and the last
//! good one stays in force. Everything below that is judged entry by entry: a bad entry becomes
//! [`Work::Bad`] with its reason and ends in a failed result, and its neighbours run.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::json_text::json_text;
use crate::run_options::RunOptions;
use crate::signal_way::SignalWay;

/// Longest config id in bytes. Heat's are UUIDs (36); the id goes into names on the wire and on disk.
pub const CONFIG_ID_BYTES_MAX: usize = 1024;
/// Longest config id that is used as a file name as it is; longer ones are named by their digest.
const PLAIN_FILE_NAME_BYTES_MAX: usize = 128;
/// Groups whose entries are data for templates and are not run.
pub(crate) const DATA_GROUPS: [&str; 2] = ["os-apply-config", "Heat::Ungrouped"];

/// The id of a derived config: new for each action and each change, so the key by which work is done once.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ConfigId(String);

impl ConfigId {
    /// Takes an id from a document.
    ///
    /// # Errors
    /// Empty, longer than [`CONFIG_ID_BYTES_MAX`], or with control characters.
    pub fn new(id: &str) -> Result<Self, String> {
        if id.is_empty() {
            Err("its id is empty".into())
        } else if id.len() > CONFIG_ID_BYTES_MAX {
            Err(format!("its id has {} bytes, the limit is {CONFIG_ID_BYTES_MAX}", id.len()))
        } else if id.chars().any(char::is_control) {
            Err(format!("its id {id:?} has control characters"))
        } else {
            Ok(Self(id.to_owned()))
        }
    }

    /// The id under which an entry is reported that brings none: derived from its content, so the same
    /// bad entry is reported once.
    fn of_bad_entry(entry: &Value) -> Self {
        Self(format!("bad-entry-{}", hex(&sha256(entry.to_string().as_bytes())[..16])))
    }

    /// As it stands in the document.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A file name for it: the id itself where that is harmless (UUIDs are), else `~` and its SHA-256.
    /// Two ids never share one, and none leaves its directory or hides.
    pub fn file_name(&self) -> Cow<'_, str> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if self.0.len() <= PLAIN_FILE_NAME_BYTES_MAX
            && self.0.chars().all(plain)
            && !self.0.starts_with('.')
        {
            Cow::Borrowed(&self.0)
        } else {
            Cow::Owned(format!("~{}", hex(&sha256(self.0.as_bytes()))))
        }
    }
}

impl fmt::Display for ConfigId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ConfigId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// A document that was understood.
#[derive(Debug)]
pub struct Document {
    /// Its version, per agent and monotonic.
    pub version: u64,
    /// Its deployments, in the order in which they are run.
    pub entries: Vec<Entry>,
}

/// One deployment.
#[derive(Debug)]
pub struct Entry {
    /// The key of its run and its result.
    pub id: ConfigId,
    /// Its name; empty where the document has none.
    pub name: String,
    /// Its group as it stands in the document (`component`, not the tool it resolved to).
    pub group: String,
    /// `deploy_action`: CREATE, UPDATE, DELETE, SUSPEND or RESUME; empty if not given.
    pub action: String,
    /// What to do about it.
    pub work: Work,
    /// Whom the agent itself tells of its end; none in a document that a server pushed, which tells Heat.
    pub way: Option<SignalWay>,
}

/// What an entry asks for.
#[derive(Debug)]
pub enum Work {
    /// Nothing to run: data for templates.
    Data,
    /// Run a hook.
    Run(Box<Config>),
    /// Nothing that can be run; the reason goes into its result.
    Bad(String),
}

/// What a hook gets to know.
pub struct Config {
    /// Name of the hook: the group (of a component: the tool), with all but letters, digits, `-` and `_` removed.
    pub hook: String,
    /// The config itself: text for scripts, anything for others.
    pub config: Value,
    /// Its inputs, in document order; those of type String are strings.
    pub inputs: Vec<Input>,
    /// The outputs it may set.
    pub outputs: Vec<Output>,
    /// How long it may take and what it may run beside.
    pub options: RunOptions,
    /// The whole entry as an external hook reads it.
    pub json: Map<String, Value>,
}

/// One input.
pub struct Input {
    /// Its name.
    pub name: String,
    /// Its value. Never printed: it may be a password.
    pub value: Value,
}

/// One declared output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its name.
    pub name: String,
    /// Whether its presence means that the deployment failed.
    pub error_output: bool,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("hook", &self.hook)
            .field("inputs", &self.inputs)
            .field("outputs", &self.outputs)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=(hidden)", self.name)
    }
}

/// Why a document is refused as a whole.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum DocumentError {
    /// Not JSON.
    #[error("the document is not JSON: {0}")]
    NotJson(String),
    /// JSON, but of another shape.
    #[error("{place} is {found}, it must be {expected}")]
    Shape {
        /// Where in the document.
        place: &'static str,
        /// What is there.
        found: &'static str,
        /// What should be there.
        expected: &'static str,
    },
}

impl Document {
    /// Reads a document. Entries that cannot be run are in the list with their reason.
    ///
    /// An absent (or null) `deployments` is an empty list: nothing to do. Of entries with one id only the
    /// first counts.
    ///
    /// # Errors
    /// Not a JSON object, or `deployments` is not a list.
    pub fn parse(version: u64, body: &[u8]) -> Result<Self, DocumentError> {
        Self::read(version, body, |_| None)
    }

    /// Reads one that no server pushed: its entries keep whom to tell of their ends.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn polled(version: u64, body: &[u8]) -> Result<Self, DocumentError> {
        Self::read(version, body, SignalWay::of_entry)
    }

    fn read(
        version: u64,
        body: &[u8],
        way: impl Fn(&Value) -> Option<SignalWay>,
    ) -> Result<Self, DocumentError> {
        let document: Value =
            serde_json::from_slice(body).map_err(|e| DocumentError::NotJson(e.to_string()))?;
        let Value::Object(mut document) = document else {
            return Err(DocumentError::Shape {
                place: "the document",
                found: kind(&document),
                expected: "an object",
            });
        };
        let deployments = match document.remove("deployments") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(list)) => list,
            Some(other) => {
                return Err(DocumentError::Shape {
                    place: "\"deployments\"",
                    found: kind(&other),
                    expected: "a list of objects",
                });
            }
        };
        let mut seen = BTreeSet::new();
        let mut entries = Vec::with_capacity(deployments.len());
        for (index, deployment) in deployments.into_iter().enumerate() {
            let way = way(&deployment);
            let entry = Entry { way, ..Entry::read_with(deployment, &DATA_GROUPS) };
            if let Work::Bad(reason) = &entry.work {
                tracing::error!(index, id = %entry.id, reason, "bad entry in the document");
            }
            if seen.insert(entry.id.clone()) {
                entries.push(entry);
            } else {
                tracing::warn!(index, id = %entry.id, "entry repeats the id of an earlier one: left out");
            }
        }
        Ok(Self { version, entries })
    }
}

impl Entry {
    /// Reads an entry; those of `data_groups` are [`Work::Data`].
    pub(crate) fn read_with(entry: Value, data_groups: &[&str]) -> Self {
        let text =
            |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let id = match entry.get("id") {
            Some(Value::String(id)) => ConfigId::new(id),
            Some(other) => Err(format!("its id is {}, it must be a string", kind(other))),
            None if entry.is_object() => Err("it has no id".into()),
            None => Err(format!("it is {}, it must be an object", kind(&entry))),
        };
        let (name, group, action) = (text("name"), text("group"), action(&entry));
        let (id, work) = match id {
            Ok(id) => {
                let work = match entry {
                    Value::Object(json) => {
                        work(json, &action, data_groups).unwrap_or_else(Work::Bad)
                    }
                    // Only an object has an id.
                    _ => Work::Bad("it must be an object".into()),
                };
                (id, work)
            }
            Err(reason) => (ConfigId::of_bad_entry(&entry), Work::Bad(reason)),
        };
        Self { id, name, group, action, work, way: None }
    }
}

fn action(entry: &Value) -> String {
    let inputs = entry.get("inputs").and_then(Value::as_array);
    inputs
        .into_iter()
        .flatten()
        .filter(|input| input.get("name").and_then(Value::as_str) == Some("deploy_action"))
        .filter_map(|input| input.get("value").and_then(Value::as_str))
        .next_back()
        .unwrap_or_default()
        .to_owned()
}

fn work(mut json: Map<String, Value>, action: &str, data_groups: &[&str]) -> Result<Work, String> {
    let mut group = match json.get("group") {
        Some(Value::String(group)) => group.clone(),
        Some(other) => return Err(format!("its group is {}, it must be a string", kind(other))),
        None => return Err("it has no group".into()),
    };
    if data_groups.contains(&group.as_str()) {
        return Ok(Work::Data);
    }
    let inputs = inputs(&mut json)?;
    let outputs = outputs(&json)?;
    let options = RunOptions::read(json.get("options"))?;
    if group == "component" {
        let (tool, config) = component(json.get("config"), action)?;
        json.insert("config".into(), config);
        json.insert("group".into(), Value::String(tool.clone()));
        group = tool;
    }
    Ok(Work::Run(Box::new(Config {
        hook: group.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect(),
        config: json.get("config").cloned().unwrap_or_default(),
        inputs,
        outputs,
        options,
        json,
    })))
}

/// Reads the inputs; those of type String are made strings in `json` too: JSON text, null is empty.
fn inputs(json: &mut Map<String, Value>) -> Result<Vec<Input>, String> {
    let list = match json.get_mut("inputs") {
        Some(Value::Array(list)) => list,
        Some(other) => return Err(format!("its inputs are {}, they must be a list", kind(other))),
        None => return Err("it has no inputs".into()),
    };
    let mut inputs = Vec::with_capacity(list.len());
    for (index, input) in list.iter_mut().enumerate() {
        let Some(name) = input.get("name").and_then(Value::as_str).map(str::to_owned) else {
            return Err(format!("input {index} has no name"));
        };
        let is_string = input.get("type").and_then(Value::as_str) == Some("String");
        let Some(value) = input.get_mut("value") else {
            return Err(format!("input {name:?} has no value"));
        };
        if is_string {
            *value = Value::String(plain_text(value));
        }
        inputs.push(Input { name, value: value.clone() });
    }
    Ok(inputs)
}

fn outputs(json: &Map<String, Value>) -> Result<Vec<Output>, String> {
    let list = match json.get("outputs") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(other) => return Err(format!("its outputs are {}, they must be a list", kind(other))),
    };
    list.iter()
        .enumerate()
        .map(|(index, output)| {
            let name = output.get("name").and_then(Value::as_str);
            let name = name.ok_or_else(|| format!("output {index} has no name"))?.to_owned();
            let error_output = output.get("error_output").is_some_and(is_true);
            Ok(Output { name, error_output })
        })
        .collect()
}

/// The tool and config of the first part of a component that is meant for `action`.
fn component(config: Option<&Value>, action: &str) -> Result<(String, Value), String> {
    let parts = config.and_then(|c| c.get("configs")).and_then(Value::as_array);
    let parts = parts.ok_or("the component has no list of configs")?;
    let part = parts.iter().find(|part| {
        let actions = part.get("actions").and_then(Value::as_array);
        actions.into_iter().flatten().any(|a| a.as_str() == Some(action))
    });
    let part = part.ok_or_else(|| format!("the component has no config for action {action:?}"))?;
    let tool = part.get("tool").and_then(Value::as_str);
    let tool = tool.ok_or_else(|| format!("the component's config for {action} names no tool"))?;
    Ok((tool.to_owned(), part.get("config").cloned().unwrap_or_default()))
}

/// A value as the text that a script sees: strings as they are, null empty, anything else as JSON.
pub fn plain_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => json_text(other),
    }
}

fn is_true(value: &Value) -> bool {
    // Heat sends a boolean; templates have been seen to carry the word.
    value
        .as_bool()
        .unwrap_or_else(|| value.as_str().is_some_and(|s| s.eq_ignore_ascii_case("true")))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref());
    out
}

/// Lower-case hex of `bytes`.
pub fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn one(entry: Value) -> Entry {
        let body = json!({ "deployments": [entry] }).to_string();
        let mut document = Document::parse(1, body.as_bytes()).unwrap();
        assert_eq!(document.entries.len(), 1);
        document.entries.remove(0)
    }

    fn reason(entry: Value) -> String {
        match one(entry).work {
            Work::Bad(reason) => reason,
            other => panic!("not bad: {other:?}"),
        }
    }

    #[test]
    fn a_real_heat_document_is_read_as_it_was_captured() {
        let body = include_bytes!("../tests/data/metadata.POLL_TEMP_URL.NO_SIGNAL.json");
        let document = Document::parse(7, body).unwrap();
        let [entry] = &document.entries[..] else { panic!("{:?}", document.entries) };
        assert_eq!(entry.id.as_str(), "dff45350-7522-4c13-ac2f-dec358c56161");
        assert_eq!((entry.group.as_str(), entry.action.as_str()), ("script", "CREATE"));
        let Work::Run(config) = &entry.work else { panic!("{:?}", entry.work) };
        assert_eq!(config.hook, "script");
        assert_eq!(config.outputs, [Output { name: "result".into(), error_output: false }]);
        let undeclared = config.inputs.iter().find(|i| i.name == "undeclared").unwrap();
        assert_eq!(undeclared.value, json!("42"), "type String makes a string of a number");
    }

    #[test]
    fn documents_of_another_shape_are_refused_whole_with_the_place_named() {
        let refused = |body: &str| Document::parse(1, body.as_bytes()).unwrap_err().to_string();
        assert!(refused("{").starts_with("the document is not JSON: EOF"));
        assert_eq!(refused("[]"), "the document is a list, it must be an object");
        assert_eq!(
            refused(r#"{"deployments":{}}"#),
            "\"deployments\" is an object, it must be a list of objects"
        );
    }

    #[test]
    fn no_deployments_means_nothing_to_do() {
        for body in ["{}", r#"{"deployments":null}"#, r#"{"deployments":[]}"#] {
            assert!(Document::parse(1, body.as_bytes()).unwrap().entries.is_empty(), "{body}");
        }
    }

    #[test]
    fn a_bad_entry_says_what_is_wrong_with_it() {
        let base = json!({"id": "a", "group": "script", "inputs": []});
        let with = |key: &str, value: Value| {
            let mut entry = base.clone();
            entry[key] = value;
            entry
        };
        let without = |key: &str| {
            let mut entry = base.clone();
            entry.as_object_mut().unwrap().remove(key);
            entry
        };
        assert_eq!(reason(json!("x")), "it is a string, it must be an object");
        assert_eq!(reason(without("id")), "it has no id");
        assert_eq!(reason(with("id", json!(5))), "its id is a number, it must be a string");
        assert_eq!(reason(with("id", json!(""))), "its id is empty");
        assert_eq!(reason(with("id", json!("a\nb"))), "its id \"a\\nb\" has control characters");
        assert_eq!(reason(without("group")), "it has no group");
        assert_eq!(reason(with("group", json!(null))), "its group is null, it must be a string");
        assert_eq!(reason(without("inputs")), "it has no inputs");
        assert_eq!(
            reason(with("inputs", json!({}))),
            "its inputs are an object, they must be a list"
        );
        assert_eq!(reason(with("inputs", json!([{"value": 1}]))), "input 0 has no name");
        assert_eq!(reason(with("inputs", json!([{"name": "n"}]))), "input \"n\" has no value");
        assert_eq!(
            reason(with("outputs", json!("x"))),
            "its outputs are a string, they must be a list"
        );
        assert_eq!(reason(with("outputs", json!([{}]))), "output 0 has no name");
    }

    #[test]
    fn an_entry_without_a_usable_id_is_reported_under_one_derived_from_its_content() {
        let (a, b) =
            (one(json!({"group": "script"})), one(json!({"group": "script", "name": "b"})));
        assert!(a.id.as_str().starts_with("bad-entry-"));
        assert_ne!(a.id, b.id);
        assert_eq!(a.id, one(json!({"group": "script"})).id);
    }

    #[test]
    fn a_repeated_id_counts_once_and_the_first_entry_wins() {
        let entry = |name: &str| json!({"id": "a", "name": name, "group": "script", "inputs": []});
        let body = json!({"deployments": [entry("first"), entry("second")]}).to_string();
        let document = Document::parse(1, body.as_bytes()).unwrap();
        assert_eq!(document.entries.len(), 1);
        assert_eq!(document.entries[0].name, "first");
    }

    #[test]
    fn inputs_of_type_string_become_json_text_and_null_becomes_empty() {
        let input = |kind: &str, value: Value| json!({"name": "n", "type": kind, "value": value});
        let value = |input: Value| {
            let entry = json!({"id": "a", "group": "x", "inputs": [input]});
            let Work::Run(config) = one(entry).work else { panic!() };
            assert_eq!(config.json["inputs"][0]["value"], config.inputs[0].value);
            config.inputs[0].value.clone()
        };
        assert_eq!(value(input("String", json!(5))), json!("5"));
        assert_eq!(value(input("String", json!(null))), json!(""));
        assert_eq!(value(input("String", json!(true))), json!("true"));
        assert_eq!(value(input("String", json!({"a": [1]}))), json!("{\"a\": [1]}"));
        assert_eq!(value(input("String", json!("as is"))), json!("as is"));
        assert_eq!(value(input("Number", json!(5))), json!(5));
        assert_eq!(value(input("Json", json!({"a": 1}))), json!({"a": 1}));
    }

    #[test]
    fn a_component_becomes_the_first_part_for_its_action() {
        let entry = |action: &str| {
            json!({"id": "a", "group": "component",
                "config": {"configs": [
                    {"actions": ["CREATE", "UPDATE"], "config": "one", "tool": "scr ipt"},
                    {"actions": ["UPDATE"], "config": "two", "tool": "ansible"},
                    {"actions": ["RESUME"]}]},
                "inputs": [{"name": "deploy_action", "value": action}]})
        };
        let Work::Run(config) = one(entry("UPDATE")).work else { panic!() };
        assert_eq!((config.hook.as_str(), &config.config), ("script", &json!("one")));
        assert_eq!(config.json["group"], "scr ipt");
        assert_eq!(one(entry("UPDATE")).group, "component");
        assert_eq!(reason(entry("DELETE")), "the component has no config for action \"DELETE\"");
        assert_eq!(reason(entry("RESUME")), "the component's config for RESUME names no tool");
    }

    #[test]
    fn entries_for_templates_are_data() {
        for group in DATA_GROUPS {
            assert!(matches!(one(json!({"id": "a", "group": group})).work, Work::Data), "{group}");
        }
    }

    #[test]
    fn file_names_of_ids_stay_in_their_directory_and_never_collide() {
        let name = |id: &str| ConfigId::new(id).unwrap().file_name().into_owned();
        assert_eq!(
            name("dff45350-7522-4c13-ac2f-dec358c56161"),
            "dff45350-7522-4c13-ac2f-dec358c56161"
        );
        let long = "x".repeat(PLAIN_FILE_NAME_BYTES_MAX + 1);
        for odd in ["../x", ".", "..", ".hidden", "a/b", "ä", "~x", "a b", long.as_str()] {
            let safe = name(odd);
            assert!(safe.starts_with('~') && safe.len() == 65, "{odd}: {safe}");
        }
        assert_ne!(name("a/b"), name("a b"));
    }

    #[test]
    fn no_input_value_is_printed() {
        let entry = json!({"id": "a", "group": "script", "config": "hunter2",
            "inputs": [{"name": "password", "value": "hunter2"}]});
        assert!(!format!("{:?}", one(entry)).contains("hunter2"));
    }
}
