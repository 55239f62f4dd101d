//! The input `env_files` of docker-compose deployments: a list of `{file_name, content}`.
//!
//! It comes as a list, as JSON text, or as Python prints a list, which is what the original heat-config
//! makes of a list in an input of type String.

use serde_json::{Map, Value};

use super::entry::bad;
use crate::document::plain_text;
use crate::hooks::NotRun;

/// How deep a list may be nested.
const DEPTH_MAX: usize = 50;

/// File names and contents.
pub(super) fn files(input: &Value) -> Result<Vec<(String, String)>, NotRun> {
    let unusable = || bad("its input \"env_files\" must be a list of {file_name, content}");
    let list = match input {
        Value::Null => return Ok(Vec::new()),
        Value::String(text) if text.is_empty() => return Ok(Vec::new()),
        Value::String(text) => {
            serde_json::from_str(text).ok().or_else(|| literal(text)).ok_or_else(unusable)?
        }
        other => other.clone(),
    };
    let Value::Array(list) = list else { return Err(unusable()) };
    list.iter()
        .map(|file| {
            let name = file.get("file_name").and_then(Value::as_str).ok_or_else(unusable)?;
            let content = file.get("content").ok_or_else(unusable)?;
            Ok((name.to_owned(), plain_text(content)))
        })
        .collect()
}

/// A literal of Python: lists, maps, texts, numbers, `True`, `False`, `None`.
fn literal(text: &str) -> Option<Value> {
    let mut rest = text.trim_start();
    let value = item(&mut rest, 0)?;
    rest.trim().is_empty().then_some(value)
}

fn item(rest: &mut &str, depth: usize) -> Option<Value> {
    if depth > DEPTH_MAX {
        return None;
    }
    *rest = rest.trim_start();
    match rest.chars().next()? {
        '[' => {
            let mut items = Vec::new();
            while !closes(rest, ']', items.is_empty())? {
                items.push(item(rest, depth + 1)?);
            }
            Some(Value::Array(items))
        }
        '{' => {
            let mut map = Map::new();
            while !closes(rest, '}', map.is_empty())? {
                let Value::String(key) = item(rest, depth + 1)? else { return None };
                *rest = rest.trim_start().strip_prefix(':')?;
                map.insert(key, item(rest, depth + 1)?);
            }
            Some(Value::Object(map))
        }
        quote @ ('\'' | '"') => quoted(rest, quote),
        _ => {
            let end = rest.find([',', ']', '}', ':', ' ']).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            *rest = after;
            match word {
                "None" => Some(Value::Null),
                "True" => Some(true.into()),
                "False" => Some(false.into()),
                number => serde_json::from_str(number).ok().filter(Value::is_number),
            }
        }
    }
}

/// Whether a collection ends here; otherwise its next item does begin here.
fn closes(rest: &mut &str, end: char, is_first: bool) -> Option<bool> {
    if is_first && rest.starts_with(['[', '{']) {
        *rest = &rest[1..];
    }
    *rest = rest.trim_start();
    if !is_first && !rest.starts_with(end) {
        *rest = rest.strip_prefix(',')?.trim_start();
    }
    match rest.strip_prefix(end) {
        Some(after) => {
            *rest = after;
            Some(true)
        }
        None => Some(false),
    }
}

fn quoted(rest: &mut &str, quote: char) -> Option<Value> {
    let mut text = String::new();
    let mut chars = rest[1..].chars();
    loop {
        match chars.next()? {
            c if c == quote => break,
            '\\' => match chars.next()? {
                'n' => text.push('\n'),
                'r' => text.push('\r'),
                't' => text.push('\t'),
                'x' => text.push(code(&mut chars, 2)?),
                'u' => text.push(code(&mut chars, 4)?),
                'U' => text.push(code(&mut chars, 8)?),
                c @ ('\\' | '\'' | '"') => text.push(c),
                _ => return None,
            },
            c => text.push(c),
        }
    }
    *rest = chars.as_str();
    Some(text.into())
}

fn code(chars: &mut std::str::Chars<'_>, digits: usize) -> Option<char> {
    let text: String = chars.take(digits).collect();
    let is_whole = text.len() == digits && text.chars().all(|c| c.is_ascii_hexdigit());
    char::from_u32(u32::from_str_radix(&text, 16).ok().filter(|_| is_whole)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_may_come_as_itself_as_json_or_as_python_prints_it() {
        let expected =
            vec![("./a.env".to_owned(), "x='1'\n\u{fc}".to_owned()), ("b".into(), "5".into())];
        let list = json!([{"file_name": "./a.env", "content": "x='1'\n\u{fc}"},
            {"file_name": "b", "content": 5, "more": [true, null, {}, []]}]);
        let python = r#"[{'file_name': './a.env', 'content': "x='1'\n\xfc"}, {'file_name': 'b', 'content': 5, 'more': [True, None, {}, []]}]"#;
        for input in [list.clone(), list.to_string().into(), python.into()] {
            assert_eq!(files(&input).unwrap(), expected);
        }
        assert!(files(&json!("")).unwrap().is_empty());
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in ["x", "[", "['a'", "[1,,2]", "[{'a' 1}]", "{'a': 1}", "[5]", "[open('x')]"] {
            assert!(files(&bad.into()).is_err(), "{bad}");
        }
        assert!(literal(&"[".repeat(100_000)).is_none());
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_reader(text in "[\\[\\]{}:,'\"\\\\xuTrueNon 0-9a]{0,40}") {
            let _ = literal(&text);
        }
    }
}
