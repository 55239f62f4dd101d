//! Which of two documents of one server is older, from what they say themselves.
//!
//! Heat's engines push at the same time, each what it had read, so an older document can come after a
//! newer one. Every deployment has an id of its own for each action and update, and the second in which
//! it was made.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;
use serde_json::value::RawValue;

/// What of a document tells its age.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outline {
    entries: Vec<Entry>,
    /// Of the first deployment that says it.
    pub(crate) server_id: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    id: String,
    /// Name, resource and stack: a name alone may stand for several resources.
    what: [String; 3],
    made: String,
}

#[derive(Deserialize)]
struct RawDocument<'a> {
    #[serde(borrow)]
    deployments: Vec<RawEntry<'a>>,
}

#[derive(Deserialize)]
struct RawEntry<'a> {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    creation_time: Option<String>,
    #[serde(borrow, default)]
    inputs: Option<Vec<RawInput<'a>>>,
}

#[derive(Deserialize)]
struct RawInput<'a> {
    #[serde(default)]
    name: Option<String>,
    /// Large ones are skipped, not built.
    #[serde(borrow, default)]
    value: Option<&'a RawValue>,
}

/// How a document that came stands to the one in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// It brings something that the other has not.
    Newer,
    /// It lacks something and brings nothing: an older one, or something was removed.
    Fewer,
    /// Something in it was made before what the other has in its place.
    Older,
}

impl Outline {
    /// Reads a document; of what has another shape nothing.
    pub(crate) fn of(body: &[u8]) -> Self {
        let Ok(raw) = serde_json::from_slice::<RawDocument<'_>>(body) else {
            return Self::default();
        };
        let mut outline = Self::default();
        for entry in raw.deployments {
            let inputs = entry.inputs.unwrap_or_default();
            let input = |wanted: &str| {
                // Heat appends its own inputs to the author's.
                let found = inputs.iter().rfind(|input| input.name.as_deref() == Some(wanted));
                found.and_then(|input| serde_json::from_str::<String>(input.value?.get()).ok())
            };
            outline.server_id = outline.server_id.or_else(|| input("deploy_server_id"));
            outline.entries.push(Entry {
                what: [
                    input("deploy_resource_name").unwrap_or_default(),
                    input("deploy_stack_id").unwrap_or_default(),
                    entry.name.unwrap_or_default(),
                ],
                id: entry.id.unwrap_or_default(),
                made: entry.creation_time.unwrap_or_default(),
            });
        }
        outline
    }

    /// How this one stands to the one in force.
    pub(crate) fn compared_to(&self, in_force: &Self) -> Order {
        let ids: HashSet<&str> = in_force.entries.iter().map(|entry| entry.id.as_str()).collect();
        let mut newest: HashMap<&[String; 3], &str> = HashMap::new();
        for entry in &in_force.entries {
            let made = newest.entry(&entry.what).or_default();
            *made = entry.made.as_str().max(made);
        }
        let mut brings = false;
        for entry in self.entries.iter().filter(|entry| !ids.contains(entry.id.as_str())) {
            // Times as Heat writes them order as text.
            if newest.get(&entry.what).is_some_and(|made| entry.made.as_str() < *made) {
                return Order::Older;
            }
            brings = true;
        }
        if brings || self.entries.len() >= in_force.entries.len() {
            Order::Newer
        } else {
            Order::Fewer
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn outline(entries: &[(&str, &str, &str)]) -> Outline {
        let deployments: Vec<_> = entries
            .iter()
            .map(|(name, id, second)| {
                json!({"id": id, "name": name, "creation_time": format!("2026-11-22T03:58:{second}Z"),
                    "inputs": [{"name": "deploy_server_id", "value": "s"}, {"name": "n", "value": 42}]})
            })
            .collect();
        Outline::of(json!({"deployments": deployments}).to_string().as_bytes())
    }

    #[test]
    fn an_input_of_heats_counts_before_one_of_the_authors_with_its_name() {
        let inputs = [("deploy_server_id", "any"), ("deploy_server_id", "of-heat")];
        let inputs = inputs.map(|(name, value)| json!({"name": name, "value": value}));
        let text = json!({"deployments": [{"id": "a", "inputs": inputs}]}).to_string();
        assert_eq!(Outline::of(text.as_bytes()).server_id.as_deref(), Some("of-heat"));
    }

    #[test]
    fn what_brings_something_is_newer_unless_it_brings_back_what_was_replaced() {
        let in_force = outline(&[("a", "a2", "20"), ("b", "b1", "10")]);
        let order = |entries: &[_]| outline(entries).compared_to(&in_force);
        assert_eq!(order(&[("a", "a3", "30"), ("b", "b1", "10")]), Order::Newer);
        assert_eq!(order(&[("a", "a2", "20"), ("c", "c1", "21")]), Order::Newer);
        assert_eq!(order(&[("a", "a2", "20"), ("b", "b1", "10")]), Order::Newer, "the same");
        assert_eq!(order(&[("a", "a1", "10"), ("b", "b1", "10")]), Order::Older);
        assert_eq!(order(&[("a", "a1", "10"), ("c", "c1", "21")]), Order::Older);
        assert_eq!(order(&[("a", "a2", "20")]), Order::Fewer);
        assert_eq!(order(&[]), Order::Fewer);
        assert_eq!(outline(&[]).compared_to(&outline(&[])), Order::Newer);
        // Within one second nobody can tell.
        assert_eq!(order(&[("a", "a9", "20"), ("b", "b1", "10")]), Order::Newer);
    }

    #[test]
    fn the_server_is_read_and_other_shapes_are_survived() {
        assert_eq!(outline(&[("a", "a1", "10")]).server_id.as_deref(), Some("s"));
        for text in ["", "[]", "{\"deployments\": [1]}", "{\"deployments\": [{\"id\": 3}]}"] {
            assert_eq!(Outline::of(text.as_bytes()), Outline::default());
        }
    }
}
