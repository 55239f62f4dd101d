//! What Python takes as true: templates and configs were written for it.

use serde_json::Value;

/// Whether a value is neither null, false, zero nor empty.
pub(crate) fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_zero_and_what_is_empty_are_false() {
        for no in
            [json!(null), json!(false), json!(0), json!(-0.0), json!(""), json!([]), json!({})]
        {
            assert!(!is_true(&no), "{no}");
        }
        for yes in [json!(true), json!(-1), json!(0.5), json!("0"), json!([0]), json!({"a": 0})] {
            assert!(is_true(&yes), "{yes}");
        }
    }
}
