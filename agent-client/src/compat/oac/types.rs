//! What `--type` means: whether a value may be used where a shell script wants an integer, a host or
//! the like.

use regex::Regex;
use serde_json::Value;

use crate::json_text::json_text;

/// The types with their patterns. Unlike Python's `$`, the end allows no line feed.
const TYPES: [(&str, &str); 8] = [
    ("int", r"\A[0-9]+\z"),
    ("default", r"\A[A-Za-z0-9_]*\z"),
    ("netaddress", r"\A[A-Za-z0-9/.:-]*\z"),
    ("netdevice", r"\A[A-Za-z0-9/.:-]*\z"),
    (
        "dsn",
        concat!(
            r"\A[a-zA-Z0-9]+://([a-zA-Z0-9+_-]+(:[^@]+)?)?(@?[a-zA-Z0-9/_.-]+)?",
            r"(/[a-zA-Z0-9_-]+)?(\?[a-zA-Z0-9=_-]+)?\z"
        ),
    ),
    // `.-_` is a range, as it always was.
    ("swiftdevices", r"\A(r\d+z\d+-[A-Za-z0-9.-_]+:%PORT%/[^,]+,?)+\z"),
    ("username", r"\A[A-Za-z0-9_-]+\z"),
    ("raw", ""),
];

/// Whether `value` is of the type `name`.
///
/// # Errors
/// It is not, or there is no such type.
pub fn check(value: &Value, name: &str) -> Result<(), String> {
    let Some((_, pattern)) = TYPES.iter().find(|(known, _)| *known == name) else {
        let known: Vec<&str> = TYPES.iter().map(|(known, _)| *known).collect();
        return Err(format!("unknown type {name:?}; there are {}", known.join(", ")));
    };
    let shown = match value {
        Value::String(text) => text.clone(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        other => json_text(other),
    };
    // The patterns are constants that the tests go through.
    match Regex::new(pattern) {
        Ok(pattern) if pattern.is_match(&shown) => Ok(()),
        _ => Err(format!("cannot interpret value {shown:?} as type {name}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_of_their_types_and_no_other() {
        let good = [
            ("int", json!(42)),
            ("int", json!("007")),
            ("default", json!("")),
            ("default", json!(true)),
            ("netaddress", json!("fe80::1/64")),
            ("netdevice", json!("br-ex:0")),
            ("dsn", json!("mysql://user:p%w@host/db?charset=utf8")),
            ("dsn", json!("sqlite:///file.db")),
            ("swiftdevices", json!("r1z1-192.0.2.1:%PORT%/d1,r1z2-b:%PORT%/d2")),
            ("username", json!("nova-api")),
            ("raw", json!({"any": ["thing\n"]})),
        ];
        for (name, value) in good {
            assert_eq!(check(&value, name), Ok(()), "{name} {value}");
        }
        let bad = [
            ("int", json!(-1)),
            ("int", json!("1\n")),
            ("int", json!("")),
            ("default", json!("a b")),
            ("default", json!([])),
            ("netaddress", json!("host;reboot")),
            ("dsn", json!("mysql:/x")),
            ("swiftdevices", json!("sda")),
            ("username", json!("")),
            ("float", json!(1)),
        ];
        for (name, value) in bad {
            assert!(check(&value, name).is_err(), "{name} {value}");
        }
    }
}
