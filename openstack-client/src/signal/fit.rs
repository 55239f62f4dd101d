//! Results within what the other side takes.

use std::borrow::Cow;

use serde_json::{Value, json};

use crate::json_text::json_text;

/// Largest body for Heat, whose APIs take 1 MiB.
pub const HEAT_BYTES_MAX: usize = 950_000;
/// Largest message body for Zaqar, which takes 256 KiB with what is around it.
pub const ZAQAR_BYTES_MAX: usize = 260_000;
/// A text is not shortened below this; if that is not enough it is not the texts.
const TEXT_BYTES_MIN: usize = 4 << 10;

/// `data` as it fits into `bytes_max` bytes of JSON text: the largest texts keep their beginning and their
/// end. If the outputs are too large even so the result is a failure that says it. What is no object is
/// left as it is.
pub(super) fn fit(data: &Value, bytes_max: usize) -> Cow<'_, Value> {
    if json_text(data).len() <= bytes_max || !data.is_object() {
        return Cow::Borrowed(data);
    }
    let mut fitting = data.clone();
    loop {
        let bytes = json_text(&fitting).len();
        if bytes <= bytes_max {
            return Cow::Owned(fitting);
        }
        let members = fitting.as_object_mut().into_iter().flat_map(|object| object.values_mut());
        let texts = members.filter_map(|value| match value {
            Value::String(text) => Some(text),
            _ => None,
        });
        match texts.max_by_key(|text| text.len()) {
            Some(text) if text.len() > TEXT_BYTES_MIN => *text = shorten(text, text.len() / 2),
            _ => return Cow::Owned(without_outputs(&fitting, bytes)),
        }
    }
}

fn without_outputs(data: &Value, bytes: usize) -> Value {
    let text = |key: &str| {
        let text = data.get(key).and_then(Value::as_str).unwrap_or_default();
        shorten(text, TEXT_BYTES_MIN)
    };
    let why = format!("the result has {bytes} bytes because of its outputs; they are left out");
    let code = match data.get("deploy_status_code") {
        Some(Value::Number(code)) if code.as_i64() != Some(0) => code.as_i64(),
        Some(Value::String(code)) => code.parse().ok().filter(|code| *code != 0),
        _ => None,
    };
    json!({
        "deploy_stdout": text("deploy_stdout"),
        "deploy_stderr": format!("{}\n{why}\n", text("deploy_stderr")),
        "deploy_status_code": code.unwrap_or(1),
    })
}

/// `text` cut to at most `bytes_max` bytes, beginning and end kept with a line between.
fn shorten(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let marker = |bytes: usize| format!("\n[{bytes} bytes left out]\n");
    let half = bytes_max.saturating_sub(marker(usize::MAX).len()) / 2;
    let end = (0..=half).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    let start = (text.len() - half..text.len()).find(|&at| text.is_char_boundary(at));
    let start = start.unwrap_or(text.len());
    format!("{}{}{}", &text[..end], marker(start - end), &text[start..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_fits_is_left_as_it_is() {
        let data = json!({"deploy_stdout": "x".repeat(900_000)});
        assert!(matches!(fit(&data, HEAT_BYTES_MAX), Cow::Borrowed(same) if *same == data));
    }

    #[test]
    fn long_texts_keep_both_ends() {
        let stdout = format!("first{}last", "ä".repeat(400_000));
        let data = json!({"deploy_stdout": stdout, "deploy_stderr": "short", "r": [1], "deploy_status_code": 0});
        let fitting = fit(&data, HEAT_BYTES_MAX);
        assert!(json_text(&fitting).len() <= HEAT_BYTES_MAX);
        let kept = fitting["deploy_stdout"].as_str().unwrap();
        assert!(kept.starts_with("first") && kept.ends_with("last") && kept.contains("left out"));
        assert_eq!(
            (&fitting["deploy_stderr"], &fitting["r"]),
            (&data["deploy_stderr"], &data["r"])
        );
    }

    #[test]
    fn outputs_that_are_too_large_make_it_a_failure_that_says_so() {
        for (code, kept) in
            [(json!(0), 1), (json!("0"), 1), (json!(null), 1), (json!("7"), 7), (json!(-9), -9)]
        {
            let data =
                json!({"deploy_stdout": "o", "r": vec![0; 600_000], "deploy_status_code": code});
            let fitting = fit(&data, HEAT_BYTES_MAX);
            assert_eq!(fitting["deploy_status_code"], kept);
            assert_eq!(fitting["deploy_stdout"], "o");
            assert!(fitting["deploy_stderr"].as_str().unwrap().contains("because of its outputs"));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn any_texts_fit(texts in prop::collection::vec("\\PC{0,200}", 0..4), times in 1usize..200) {
            let bytes_max = 3 * TEXT_BYTES_MIN;
            let members = texts.iter().enumerate().map(|(n, text)| (n.to_string(), text.repeat(times).into()));
            let data = Value::Object(members.collect());
            prop_assert!(json_text(&fit(&data, bytes_max)).len() <= bytes_max);
        }
    }
}
