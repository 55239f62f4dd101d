//! Which configs to apply, in which order.

use serde_json::Value;
use thiserror::Error;

/// Most configs that sets may name together.
const CONFIGS_MAX: usize = 10_000;

/// Why it is not known what to apply.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum SetError {
    /// Sets are asked for, and there are none.
    #[error("configSets {0:?} are asked for, but the metadata has no configSets")]
    NoSets(String),
    /// None is asked for, and there is no default.
    #[error("the metadata has no configSet \"default\"; name one by --configsets (there are: {0})")]
    NoDefault(String),
    /// A set that is not there.
    #[error("there is no configSet {name:?} (there are: {known})")]
    Unknown {
        /// Which.
        name: String,
        /// What there is.
        known: String,
    },
    /// A set that names itself, directly or through others.
    #[error("configSet {0:?} names itself")]
    Circle(String),
    /// An entry that is neither the name of a config nor `{"ConfigSet": NAME}`.
    #[error(
        "configSet {set:?} has the entry {entry}, which is no name of a config and no {{\"ConfigSet\": NAME}}"
    )]
    BadEntry {
        /// Where.
        set: String,
        /// What.
        entry: String,
    },
    /// Nothing to do.
    #[error("configSet {0:?} is empty")]
    Empty(String),
    /// Too much to do.
    #[error("the configSets name more than {CONFIGS_MAX} configs")]
    TooMany,
}

/// The names of the configs to apply. `sets` is the metadata's `configSets`, `selected` a list of names with
/// commas between.
///
/// # Errors
/// See [`SetError`].
pub(super) fn configs(
    sets: Option<&Value>,
    selected: Option<&str>,
) -> Result<Vec<String>, SetError> {
    let selected = selected.filter(|selected| !selected.is_empty());
    let sets = sets.and_then(Value::as_object).filter(|sets| !sets.is_empty());
    let Some(sets) = sets else {
        return match selected {
            Some(selected) => Err(SetError::NoSets(selected.to_owned())),
            None => Ok(vec!["config".to_owned()]),
        };
    };
    let known = || sets.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    if selected.is_none() && !sets.contains_key("default") {
        return Err(SetError::NoDefault(known()));
    }
    let selected = selected.unwrap_or("default");
    let mut configs = Vec::new();
    for name in selected.split(',') {
        expand(sets, name.trim(), &mut Vec::new(), &mut configs)?;
    }
    if configs.is_empty() { Err(SetError::Empty(selected.to_owned())) } else { Ok(configs) }
}

fn expand(
    sets: &serde_json::Map<String, Value>,
    name: &str,
    within: &mut Vec<String>,
    configs: &mut Vec<String>,
) -> Result<(), SetError> {
    let Some(set) = sets.get(name) else {
        let known = sets.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        return Err(SetError::Unknown { name: name.to_owned(), known });
    };
    if within.iter().any(|outer| outer == name) {
        return Err(SetError::Circle(name.to_owned()));
    }
    within.push(name.to_owned());
    let entries = match set {
        Value::Array(entries) => entries.as_slice(),
        single => std::slice::from_ref(single),
    };
    for entry in entries {
        match entry {
            Value::String(config) if configs.len() < CONFIGS_MAX => configs.push(config.clone()),
            Value::String(_) => return Err(SetError::TooMany),
            Value::Object(one) if one.len() == 1 => match one.get("ConfigSet") {
                Some(Value::String(inner)) => expand(sets, inner, within, configs)?,
                _ => {
                    return Err(SetError::BadEntry {
                        set: name.to_owned(),
                        entry: entry.to_string(),
                    });
                }
            },
            _ => return Err(SetError::BadEntry { set: name.to_owned(), entry: entry.to_string() }),
        }
    }
    within.pop();
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sets_are_expanded_in_order_also_those_that_name_sets() {
        let sets = json!({
            "default": ["a", {"ConfigSet": "inner"}, "b"],
            "inner": ["c", "d"],
            "single": "e",
        });
        for (selected, expected) in [
            (None, vec!["a", "c", "d", "b"]),
            (Some(""), vec!["a", "c", "d", "b"]),
            (Some("inner, single"), vec!["c", "d", "e"]),
            (Some("single,default"), vec!["e", "a", "c", "d", "b"]),
        ] {
            assert_eq!(configs(Some(&sets), selected).unwrap(), expected, "{selected:?}");
        }
        assert_eq!(configs(None, None).unwrap(), ["config"]);
        assert_eq!(configs(Some(&json!({})), None).unwrap(), ["config"]);
    }

    #[test]
    fn what_cannot_be_expanded_is_an_error_that_names_it() {
        let sets = json!({
            "x": ["a", {"ConfigSet": "gone"}],
            "y": [{"ConfigSet": "z"}],
            "z": [{"ConfigSet": "y"}],
            "bad": [{"ConfigSet": "x", "more": 1}],
            "number": [5],
            "empty": [],
        });
        for (selected, error) in [
            (
                None,
                "the metadata has no configSet \"default\"; name one by --configsets (there are: x, y, z, bad, number, empty)",
            ),
            (Some("x"), "there is no configSet \"gone\" (there are: x, y, z, bad, number, empty)"),
            (Some("y"), "configSet \"y\" names itself"),
            (
                Some("bad"),
                "configSet \"bad\" has the entry {\"ConfigSet\":\"x\",\"more\":1}, which is no name of a config and no {\"ConfigSet\": NAME}",
            ),
            (
                Some("number"),
                "configSet \"number\" has the entry 5, which is no name of a config and no {\"ConfigSet\": NAME}",
            ),
            (Some("empty"), "configSet \"empty\" is empty"),
        ] {
            assert_eq!(configs(Some(&sets), selected).unwrap_err().to_string(), error);
        }
        let error = configs(None, Some("a")).unwrap_err().to_string();
        assert_eq!(error, "configSets \"a\" are asked for, but the metadata has no configSets");
        // Each set doubles the one before.
        let mut sets = json!({"0": ["a"]});
        for i in 1..30 {
            let inner = json!({"ConfigSet": (i - 1).to_string()});
            sets[i.to_string()] = json!([inner, inner]);
        }
        assert_eq!(configs(Some(&sets), Some("29")).unwrap_err(), SetError::TooMany);
    }
}
