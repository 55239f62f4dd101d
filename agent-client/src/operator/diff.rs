//! `diff`: what changed from one document to another, with secrets hidden.
//!
//! Heat gives a deployment a new config id with each change, so entries are matched by id first, then by
//! name and group in their order.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use super::words::{about, clock, deployments, harmless, line};
use crate::control::message::SCHEMA;
use crate::document::plain_text;
use crate::hooks::capture::shorten;
use crate::redact::{HIDDEN, Redactor, is_secret_name};
use crate::store::StoredDocument;

/// Bytes shown of an input's value.
pub const VALUE_BYTES_MAX: usize = 200;
/// Bytes shown of a config's changes.
pub const TEXT_DIFF_BYTES_MAX: usize = 256 << 10;
/// How long a minimal difference of two texts is searched for; after that it is larger than need be.
const SEARCH_MS_MAX: u64 = 500;
/// Lines shown around a change.
const CONTEXT_LINES: usize = 3;

/// What changed from one document to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The earlier one.
    pub from: Outline,
    /// The later one.
    pub to: Outline,
    /// How many deployments both have, id and all.
    pub unchanged: usize,
    /// Deployments that differ, in the order of the later document; removed ones last.
    pub deployments: Vec<Changed>,
    /// Changes of all else in the document, as a unified diff of its JSON; empty if there are none.
    pub rest: String,
}

/// A document without its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outline {
    /// Its version.
    pub version: u64,
    /// When it came, in milliseconds since 1970.
    pub received_unix_ms: u64,
    /// Whether it is in force.
    pub in_force: bool,
}

/// What happened to something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It is there, and different.
    Changed,
}

/// A deployment that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// In which way.
    pub change: Change,
    /// Its name.
    pub name: String,
    /// Its group.
    pub group: String,
    /// Heat's action.
    pub action: String,
    /// Id of the earlier config.
    pub id_from: Option<String>,
    /// Id of the later config.
    pub id_to: Option<String>,
    /// Inputs that differ. Credentials for the signal are left out: Heat makes new ones for each change.
    pub inputs: Vec<ChangedInput>,
    /// Other fields that differ (`outputs`, `options` …), as `name: earlier -> later`.
    pub fields: Vec<String>,
    /// Changes of the config itself, as a unified diff; empty if there are none.
    pub config: String,
}

/// An input that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChangedInput {
    /// In which way.
    pub change: Change,
    /// Its name.
    pub name: String,
    /// The earlier value, shortened; hidden if it is a secret.
    pub from: Option<String>,
    /// The later one.
    pub to: Option<String>,
}

/// An entry of a document.
struct Entry<'a> {
    value: &'a Value,
    id: Option<&'a str>,
    /// By what it is known again after a change.
    key: (&'a str, &'a str),
}

/// What changed from `from` to `to`, both of them documents that were accepted.
pub fn diff(from: &StoredDocument, to: &StoredDocument, in_force: u64) -> Changes {
    let outline = |document: &StoredDocument| Outline {
        version: document.version,
        received_unix_ms: document.received_unix_ms,
        in_force: document.version == in_force,
    };
    let (from_all, to_all) = (object(from), object(to));
    let secrets = Redactor::new(
        from_all
            .iter()
            .chain(&to_all)
            .map(|(name, value)| (name.as_str(), value))
            .chain(listed(&from_all).iter().chain(listed(&to_all)).flat_map(inputs)),
    );
    let (from_list, to_list) = (entries(&from_all), entries(&to_all));
    let mut gone: Vec<&Entry<'_>> = from_list.iter().collect();
    let mut unchanged = 0;
    // Those that kept their ids first: they are not to be taken for the earlier form of others.
    let mut same: Vec<Option<&Entry<'_>>> = Vec::with_capacity(to_list.len());
    for entry in &to_list {
        let at = gone.iter().position(|old| old.id.is_some() && old.id == entry.id);
        same.push(at.map(|at| gone.remove(at)));
    }
    let mut changed = Vec::new();
    for (entry, same) in to_list.iter().zip(same) {
        let before = same.or_else(|| {
            let at = gone.iter().position(|old| old.key == entry.key)?;
            Some(gone.remove(at))
        });
        match before {
            Some(before) if before.value == entry.value => unchanged += 1,
            before => changed.push(compare(before, Some(entry), &secrets)),
        }
    }
    changed.extend(gone.into_iter().map(|entry| compare(Some(entry), None, &secrets)));
    let rest = |all: &Map<String, Value>| {
        let rest = all.iter().filter(|(key, _)| key.as_str() != "deployments");
        let rest: Map<String, Value> = rest.map(|(k, v)| (k.clone(), hidden(k, v))).collect();
        pretty(&Value::Object(rest))
    };
    Changes {
        schema: SCHEMA,
        from: outline(from),
        to: outline(to),
        unchanged,
        deployments: changed,
        rest: unified(&secrets.redact(&rest(&from_all)), &secrets.redact(&rest(&to_all))),
    }
}

fn object(document: &StoredDocument) -> Map<String, Value> {
    match serde_json::from_slice(&document.body) {
        Ok(Value::Object(object)) => object,
        // What is in force was an object when it was accepted.
        _ => Map::new(),
    }
}

fn listed(document: &Map<String, Value>) -> &[Value] {
    document.get("deployments").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn entries(document: &Map<String, Value>) -> Vec<Entry<'_>> {
    let entry = |value| Entry {
        value,
        id: value.get("id").and_then(Value::as_str),
        key: (text(value, "name"), text(value, "group")),
    };
    listed(document).iter().map(entry).collect()
}

fn inputs(deployment: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let list = deployment.get("inputs").and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(|input| Some((input.get("name")?.as_str()?, input.get("value")?)))
}

fn compare(from: Option<&Entry<'_>>, to: Option<&Entry<'_>>, secrets: &Redactor) -> Changed {
    let change = change(from.is_some(), to.is_some());
    let newest = to.or(from).map_or(&Value::Null, |entry| entry.value);
    let config = |entry: Option<&Entry<'_>>| {
        let config = entry.and_then(|entry| entry.value.get("config")).unwrap_or(&Value::Null);
        let text = match config {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            structure => pretty(&hidden("config", structure)),
        };
        secrets.redact(&text).into_owned()
    };
    let action = inputs(newest).filter(|(name, _)| *name == "deploy_action").last();
    Changed {
        change,
        name: text(newest, "name").to_owned(),
        group: text(newest, "group").to_owned(),
        action: action.map(|(_, value)| plain_text(value)).unwrap_or_default(),
        id_from: from.and_then(|entry| entry.id).map(str::to_owned),
        id_to: to.and_then(|entry| entry.id).map(str::to_owned),
        inputs: changed_inputs(from, to, secrets),
        fields: match (from, to) {
            (Some(from), Some(to)) => changed_fields(from.value, to.value, secrets),
            _ => Vec::new(),
        },
        config: unified(&config(from), &config(to)),
    }
}

fn change(before: bool, after: bool) -> Change {
    match (before, after) {
        (false, _) => Change::Added,
        (true, false) => Change::Removed,
        (true, true) => Change::Changed,
    }
}

fn changed_inputs(
    from: Option<&Entry<'_>>,
    to: Option<&Entry<'_>>,
    secrets: &Redactor,
) -> Vec<ChangedInput> {
    let all = |entry: Option<&'_ Entry<'_>>| -> Vec<(String, Value)> {
        let inputs = entry.into_iter().flat_map(|entry| inputs(entry.value));
        inputs.map(|(name, value)| (name.to_owned(), value.clone())).collect()
    };
    let (from, to) = (all(from), all(to));
    let find = |list: &[(String, Value)], name: &str| {
        list.iter().rfind(|(other, _)| other == name).map(|(_, value)| value.clone())
    };
    let mut seen = BTreeSet::new();
    let mut changed = Vec::new();
    for (name, _) in to.iter().chain(&from) {
        let (before, after) = (find(&from, name), find(&to, name));
        if before == after || is_of_signal(name) || !seen.insert(name) {
            continue;
        }
        let shown = |value: Option<Value>| value.map(|value| shown(name, &value, secrets));
        changed.push(ChangedInput {
            change: change(before.is_some(), after.is_some()),
            name: name.clone(),
            from: shown(before),
            to: shown(after),
        });
    }
    changed
}

/// Whether an input is new with every change anyway.
fn is_of_signal(name: &str) -> bool {
    name.starts_with("deploy_") && is_secret_name(name)
}

fn changed_fields(from: &Value, to: &Value, secrets: &Redactor) -> Vec<String> {
    let apart = ["id", "name", "group", "inputs", "config", "creation_time"];
    let mut fields: Vec<&String> = Vec::new();
    for object in [to, from].into_iter().filter_map(Value::as_object) {
        for key in object.keys() {
            if !apart.contains(&key.as_str()) && !fields.contains(&key) {
                fields.push(key);
            }
        }
    }
    let differs = |key: &&String| from.get(key.as_str()) != to.get(key.as_str());
    let shown = |object: &Value, key: &String| match object.get(key.as_str()) {
        Some(value) => shown(key, value, secrets),
        None => "(none)".into(),
    };
    let line = |key: &String| format!("{key}: {} -> {}", shown(from, key), shown(to, key));
    fields.into_iter().filter(differs).map(line).collect()
}

/// A value as JSON, shortened, or that it is hidden.
fn shown(name: &str, value: &Value, secrets: &Redactor) -> String {
    let value = hidden(name, value);
    shorten(&secrets.redact(&value.to_string()), VALUE_BYTES_MAX)
}

/// The value without what the names in it make a secret.
fn hidden(name: &str, value: &Value) -> Value {
    match value {
        Value::Object(object) => {
            let hide = |(key, value): (&String, &Value)| {
                // What a secret holds is secret under any name.
                let name = if is_secret_name(name) { name } else { key };
                (key.clone(), hidden(name, value))
            };
            Value::Object(object.iter().map(hide).collect())
        }
        Value::Array(list) => Value::Array(list.iter().map(|v| hidden(name, v)).collect()),
        Value::Null | Value::Bool(_) => value.clone(),
        Value::String(_) | Value::Number(_) if is_secret_name(name) => HIDDEN.into(),
        Value::String(_) | Value::Number(_) => value.clone(),
    }
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).map(|text| text + "\n").unwrap_or_default()
}

fn unified(from: &str, to: &str) -> String {
    if from == to {
        return String::new();
    }
    let changes = similar::TextDiff::configure()
        .timeout(Duration::from_millis(SEARCH_MS_MAX))
        .diff_lines(from, to);
    let text = changes.unified_diff().context_radius(CONTEXT_LINES).to_string();
    shorten(&text, TEXT_DIFF_BYTES_MAX)
}

impl Changes {
    /// For people.
    pub fn render(&self) -> String {
        let mut out = String::new();
        for (sign, document) in [("---", &self.from), ("+++", &self.to)] {
            let in_force = if document.in_force { ", in force" } else { "" };
            let came = clock(document.received_unix_ms);
            let _ =
                writeln!(out, "{sign} document {} (received {came}{in_force})", document.version);
        }
        for deployment in &self.deployments {
            out.push('\n');
            deployment.render(&mut out);
        }
        if !self.rest.is_empty() {
            out.push_str("\nchanged   other metadata\n");
            indent(&mut out, &self.rest);
        }
        let unchanged = deployments(self.unchanged);
        if self.deployments.is_empty() && self.rest.is_empty() {
            let _ = writeln!(out, "\nno difference ({unchanged})");
        } else if self.unchanged > 0 {
            let _ = writeln!(out, "\nunchanged {unchanged}");
        }
        out
    }
}

impl Changed {
    fn render(&self, out: &mut String) {
        let ids = match (&self.id_from, &self.id_to) {
            (Some(from), Some(to)) if from != to => format!("{from} -> {to}"),
            (_, Some(id)) | (Some(id), None) => id.clone(),
            (None, None) => "no id".into(),
        };
        let _ = writeln!(
            out,
            "{:<8}  {} ({})  {}",
            word(self.change),
            line(&self.name),
            line(&ids),
            line(&about(&self.action, &self.group))
        );
        // Of what is new or gone the name is enough; the rest is in the document.
        if self.change != Change::Changed {
            return;
        }
        for input in &self.inputs {
            let value = |value: &Option<String>| line(value.as_deref().unwrap_or("(none)"));
            let (from, to) = (value(&input.from), value(&input.to));
            let _ = writeln!(out, "  input {}: {from} -> {to}", line(&input.name));
        }
        for field in &self.fields {
            let _ = writeln!(out, "  {}", line(field));
        }
        if !self.config.is_empty() {
            out.push_str("  config:\n");
            indent(out, &self.config);
        }
    }
}

fn word(change: Change) -> &'static str {
    match change {
        Change::Added => "added",
        Change::Removed => "removed",
        Change::Changed => "changed",
    }
}

fn indent(out: &mut String, text: &str) {
    for line in harmless(text).lines() {
        let _ = writeln!(out, "    {line}");
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::*;

    fn stored(version: u64, body: &Value) -> StoredDocument {
        let body = Bytes::from(body.to_string());
        StoredDocument::new(version, body, 1_700_000_000_000 + version * 60_000)
    }

    fn entry(id: &str, name: &str, config: Value, inputs: Value) -> Value {
        json!({"id": id, "name": name, "group": "script", "config": config, "inputs": inputs,
            "outputs": [], "creation_time": format!("time of {id}")})
    }

    fn documents() -> (StoredDocument, StoredDocument) {
        let from = json!({"deployments": [
            entry("a1", "web", json!("#!/bin/sh\necho one\necho hunter22 >&2\necho three\n"), json!([
                {"name": "deploy_action", "value": "CREATE"},
                {"name": "deploy_signal_id", "value": "http://heat/signal?sig=one"},
                {"name": "port", "value": 80},
                {"name": "gone", "value": "x"},
                {"name": "db_password", "value": "hunter22"}])),
            entry("same", "db", json!("#!/bin/sh\n"), json!([])),
            entry("b1", "old", json!("#!/bin/sh\n"), json!([])),
            json!({"id": "t1", "name": "data", "group": "os-apply-config",
                "config": {"db": {"password": "hunter22", "host": "a"}}})],
            "os-collect-config": {"polling_interval": 30, "secret_key": "sesame-open"}});
        let to = json!({"deployments": [
            entry("a2", "web", json!("#!/bin/sh\necho two\necho opensesame >&2\necho three\n"), json!([
                {"name": "deploy_action", "value": "UPDATE"},
                {"name": "deploy_signal_id", "value": "http://heat/signal?sig=two"},
                {"name": "port", "value": 8080},
                {"name": "came", "value": {"token": "abcdefgh"}},
                {"name": "db_password", "value": "opensesame"}])),
            entry("same", "db", json!("#!/bin/sh\n"), json!([])),
            json!({"id": "t2", "name": "data", "group": "os-apply-config",
                "config": {"db": {"password": "opensesame", "host": "b"}}, "options": {"a": 1}}),
            entry("c1", "new \u{1b}[2J", json!("#!/bin/sh\n"), json!([]))],
            "os-collect-config": {"polling_interval": 60, "secret_key": "sesame-shut"}});
        (stored(4, &from), stored(5, &to))
    }

    #[test]
    fn people_see_what_was_added_removed_and_changed_and_no_secret() {
        let (from, to) = documents();
        let changes = diff(&from, &to, 5);
        let shown = changes.render();
        let json = serde_json::to_string(&changes).unwrap();
        for secret in ["hunter22", "opensesame", "sesame-", "abcdefgh", "sig="] {
            assert!(!shown.contains(secret), "{secret}: {shown}");
            assert!(!json.contains(secret), "{secret}: {json}");
        }
        insta::assert_snapshot!(shown);
    }

    #[test]
    fn no_difference_is_said_so() {
        let (from, _) = documents();
        let same = StoredDocument { version: 5, ..from.clone() };
        let changes = diff(&from, &same, 5);
        assert!(changes.deployments.is_empty() && changes.rest.is_empty());
        assert!(changes.render().contains("no difference (4 deployments)"));
    }

    #[test]
    fn an_entry_that_kept_its_id_is_not_taken_for_another_of_its_name() {
        let one = |id: &str| entry(id, "twin", json!(id), json!([]));
        let from = stored(1, &json!({"deployments": [one("a"), one("b")]}));
        let to = stored(2, &json!({"deployments": [one("c"), one("a")]}));
        let changes = diff(&from, &to, 2);
        let [changed] = &changes.deployments[..] else { panic!("{changes:?}") };
        assert_eq!(changed.change, Change::Changed);
        assert_eq!((changed.id_from.as_deref(), changed.id_to.as_deref()), (Some("b"), Some("c")));
        assert_eq!(changes.unchanged, 1);
    }

    #[test]
    fn huge_values_and_configs_are_bounded() {
        let config = |c: &str| format!("{c}line\n").repeat(200_000);
        let value = |c: &str| json!([{"name": "n", "value": c.repeat(100_000)}]);
        let from =
            stored(1, &json!({"deployments": [entry("a", "x", json!(config("a")), value("a"))]}));
        let to =
            stored(2, &json!({"deployments": [entry("b", "x", json!(config("b")), value("b"))]}));
        let changes = diff(&from, &to, 2);
        let changed = &changes.deployments[0];
        assert!(changed.config.len() <= TEXT_DIFF_BYTES_MAX, "{}", changed.config.len());
        assert!(changed.inputs[0].to.as_ref().unwrap().len() <= VALUE_BYTES_MAX);
    }

    #[test]
    fn what_is_no_list_of_objects_does_no_harm() {
        let odd = stored(1, &json!({"deployments": ["x", 5, {"id": 7, "inputs": {}}, null]}));
        let none = stored(2, &json!({"deployments": null}));
        let changes = diff(&odd, &none, 2);
        assert_eq!(changes.deployments.len(), 4);
        assert!(changes.deployments.iter().all(|d| d.change == Change::Removed));
    }
}
