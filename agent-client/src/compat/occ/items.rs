//! Pieces of metadata, and the names of the files they become.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// Longest name of a file, without its suffixes, in bytes.
const KEY_BYTES_MAX: usize = 200;
/// The list of files; no piece of metadata may take its name.
pub(crate) const LIST_KEY: &str = "os_config_files";

/// A piece of metadata.
#[derive(Clone, PartialEq)]
pub(crate) struct Item {
    /// What its source calls it.
    pub(crate) name: String,
    /// Whether it is the source's own, which keeps the source's name whatever others are called.
    pub(crate) is_main: bool,
    pub(crate) content: Value,
}

/// Metadata holds passwords.
impl std::fmt::Debug for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Item").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Item {
    /// The whole of what a source has.
    pub(crate) fn main(source: &str, content: Value) -> Self {
        Self { name: source.to_owned(), is_main: true, content }
    }
}

/// A source's content, and after it, as items of their own, the configs of those deployments that are
/// data: in the lists under `keys`, of the group `os-apply-config` or of none. What is passed over is
/// said in `warnings`.
pub(crate) fn explode(
    source: &str,
    content: Map<String, Value>,
    keys: &[String],
    warnings: &mut Vec<String>,
) -> Vec<Item> {
    let mut items = Vec::new();
    for key in keys {
        let Some(deployments) = content.get(key) else { continue };
        let Some(deployments) = deployments.as_array() else {
            warnings.push(format!("Deployment-key {key} was found but does not contain a list."));
            continue;
        };
        for deployment in deployments {
            let field = |name| deployment.get(name);
            let name = match field("name") {
                Some(Value::String(name)) => name.clone(),
                Some(Value::Number(number)) => number.to_string(),
                _ => {
                    warnings.push(format!("No name found for a deployment under {key}."));
                    continue;
                }
            };
            let group = field("group").map_or(Some("Heat::Ungrouped"), Value::as_str);
            if !matches!(group, Some("os-apply-config" | "Heat::Ungrouped")) {
                continue;
            }
            match field("config") {
                Some(config) => {
                    items.push(Item { name, is_main: false, content: config.clone() });
                }
                None => {
                    warnings.push(format!("No config found for deployment {name:?} under {key}."));
                }
            }
        }
    }
    items.insert(0, Item::main(source, Value::Object(content)));
    items
}

/// The names of the items' files, in their order. A name that is fit for a file and not taken stays
/// as it is; no two are the same, and none leads out of the directory. `sources` keep their names.
pub(crate) fn file_keys(items: &[Item], sources: &[&str]) -> Vec<String> {
    let mut taken: BTreeSet<String> = sources.iter().map(|&source| source.to_owned()).collect();
    taken.insert(LIST_KEY.to_owned());
    let mut keys: Vec<Option<String>> = items
        .iter()
        .map(|item| {
            let stays =
                item.is_main || (fit(&item.name) == item.name && taken.insert(item.name.clone()));
            stays.then(|| item.name.clone())
        })
        .collect();
    for (item, key) in items.iter().zip(&mut keys).filter(|(_, key)| key.is_none()) {
        let base = fit(&item.name);
        let numbered = (2_u64..).map(|number| format!("{base}~{number}"));
        // Where a character had to go, the name without a number may still be free.
        *key = std::iter::once(base.clone()).chain(numbered).find(|key| taken.insert(key.clone()));
    }
    keys.into_iter().flatten().collect()
}

/// A name without what cannot be in a file's name or in a list with colons between.
fn fit(name: &str) -> String {
    let bad = |c: char| c == '/' || c == ':' || c.is_control();
    let mut fit: String = name.chars().map(|c| if bad(c) { '_' } else { c }).collect();
    while fit.len() > KEY_BYTES_MAX {
        fit.pop();
    }
    if fit.is_empty() { "_".into() } else { fit }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn names(content: Value) -> (Vec<String>, Vec<String>) {
        let Value::Object(content) = content else { panic!() };
        let mut warnings = Vec::new();
        let keys = ["deployments".to_owned(), "other".to_owned()];
        let items = explode("cfn", content, &keys, &mut warnings);
        (items.into_iter().map(|item| item.name).collect(), warnings)
    }

    #[test]
    fn deployments_that_are_data_become_items_of_their_own() {
        let content = json!({
            "deployments": [
                {"name": "a", "group": "os-apply-config", "config": {"x": 1}},
                {"name": "b", "config": "text"},
                {"name": "c", "group": "Heat::Ungrouped", "config": null},
                {"name": "d", "group": "script", "config": 1},
                {"name": "e", "group": null, "config": 1},
                {"name": 7, "config": 1},
            ],
            "other": [{"name": "f", "config": 1}],
            "third": [{"name": "g", "config": 1}],
        });
        let (names, warnings) = names(content);
        assert_eq!(names, ["cfn", "a", "b", "c", "7", "f"]);
        assert!(warnings.is_empty());
    }

    #[test]
    fn what_is_no_deployment_is_passed_over_and_said() {
        let content = json!({
            "deployments": [{"config": 1}, "text", {"name": "a"}, {"name": null, "config": 1}],
            "other": {"name": "b"},
        });
        let (names, warnings) = names(content);
        assert_eq!(names, ["cfn"]);
        assert_eq!(
            warnings,
            [
                "No name found for a deployment under deployments.",
                "No name found for a deployment under deployments.",
                "No config found for deployment \"a\" under deployments.",
                "No name found for a deployment under deployments.",
                "Deployment-key other was found but does not contain a list.",
            ]
        );
    }

    fn item(name: &str) -> Item {
        Item { name: name.into(), is_main: false, content: Value::Null }
    }

    #[test]
    fn good_names_stay_and_bad_ones_neither_collide_nor_leave() {
        let mut items = vec![Item::main("cfn", Value::Null)];
        let long = "ü".repeat(150);
        items.extend(
            ["a b.c", "../x", "cfn", "a b.c", "a b.c~2", "os_config_files", "", "..", "x:y", "x_y"]
                .map(item),
        );
        items.extend([item(&long), item("\n")]);
        let keys = file_keys(&items, &["cfn", "heat"]);
        assert_eq!(
            keys,
            [
                "cfn",
                "a b.c",
                ".._x",
                "cfn~2",
                "a b.c~3",
                "a b.c~2",
                "os_config_files~2",
                "_",
                "..",
                "x_y~2",
                "x_y",
                &"ü".repeat(100),
                "_~2",
            ]
        );
    }

    proptest! {
        #[test]
        fn file_names_stay_in_their_directory_and_never_collide(
            names in prop::collection::vec("[a-c/:.~2\\x00\n]{0,4}|cfn|os_config_files", 0..12),
        ) {
            let mut items = vec![Item::main("cfn", Value::Null)];
            items.extend(names.iter().map(|name| item(name)));
            let keys = file_keys(&items, &["cfn"]);
            prop_assert_eq!(keys.len(), items.len());
            let distinct: BTreeSet<&String> = keys.iter().collect();
            prop_assert_eq!(distinct.len(), keys.len());
            for (key, item) in keys.iter().zip(&items) {
                prop_assert!(!key.contains(['/', ':', '\0', '\n']) && !key.is_empty());
                prop_assert!(key.as_str() != LIST_KEY);
                let count = items.iter().filter(|other| other.name == item.name).count();
                if count == 1 && fit(&item.name) == item.name && item.name != LIST_KEY {
                    prop_assert_eq!(key, &item.name);
                }
            }
        }
    }
}
