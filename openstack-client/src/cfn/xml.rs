//! As much XML as an answer of the API has: elements, text, references, CDATA. No document types.

use std::collections::BTreeMap;

/// Deepest nesting that is read.
const DEPTH_MAX: usize = 64;

/// The text of each child element of the element at `path`, which begins with the root.
///
/// # Errors
/// Not such XML, or no such element.
pub(super) fn children(text: &str, path: &[&str]) -> Result<BTreeMap<String, String>, String> {
    let mut open: Vec<&str> = Vec::new();
    let mut found = BTreeMap::new();
    let mut reached = false;
    let mut rest = text.trim_start_matches('\u{feff}');
    while !rest.is_empty() {
        let inside = open.len() == path.len() + 1 && open.starts_with(path);
        let at = rest.find('<').unwrap_or(rest.len());
        let (characters, markup) = rest.split_at(at);
        if inside {
            add(&mut found, &open, &unescaped(characters)?);
        } else if open.is_empty() && !characters.trim().is_empty() {
            return Err("text outside of its elements".into());
        }
        if let Some(after) = markup.strip_prefix("<![CDATA[") {
            let (data, after) = after.split_once("]]>").ok_or("a CDATA without end")?;
            if inside {
                add(&mut found, &open, data);
            }
            rest = after;
        } else if let Some(after) = markup.strip_prefix("<!--") {
            rest = after.split_once("-->").ok_or("a comment without end")?.1;
        } else if let Some(after) = markup.strip_prefix("<?") {
            rest = after.split_once("?>").ok_or("an instruction without end")?.1;
        } else if markup.starts_with("<!") {
            return Err("it has a document type".into());
        } else if let Some(after) = markup.strip_prefix("</") {
            let (name, after) = after.split_once('>').ok_or("a tag without end")?;
            if open.pop() != Some(name.trim_end()) {
                return Err(format!("</{name}> closes nothing"));
            }
            rest = after;
        } else if let Some(after) = markup.strip_prefix('<') {
            let end = end_of_tag(after).ok_or("a tag without end")?;
            let (tag, after) = (&after[..end], &after[end + 1..]);
            let (tag, is_empty) = tag.strip_suffix('/').map_or((tag, false), |tag| (tag, true));
            open.push(tag.split_ascii_whitespace().next().ok_or("a tag without name")?);
            if open.len() > DEPTH_MAX {
                return Err(format!("nested more than {DEPTH_MAX} deep"));
            }
            reached |= open == path;
            if open.len() == path.len() + 1 && open.starts_with(path) {
                add(&mut found, &open, "");
            }
            if is_empty {
                open.pop();
            }
            rest = after;
        } else {
            rest = markup;
        }
    }
    match open.last() {
        Some(name) => Err(format!("<{name}> is not closed")),
        None if !reached => Err(format!("it has no {}", path.join("/"))),
        None => Ok(found),
    }
}

fn add(found: &mut BTreeMap<String, String>, open: &[&str], text: &str) {
    if let Some(name) = open.last() {
        found.entry((*name).to_owned()).or_default().push_str(text);
    }
}

/// Where the tag ends: a `>` that is in no attribute's value.
fn end_of_tag(tag: &str) -> Option<usize> {
    let mut quote = None;
    for (at, byte) in tag.bytes().enumerate() {
        match (quote, byte) {
            (None, b'>') => return Some(at),
            (None, b'"' | b'\'') => quote = Some(byte),
            (Some(open), _) if open == byte => quote = None,
            _ => {}
        }
    }
    None
}

/// Text with its references replaced.
fn unescaped(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        let (name, after) = after.split_once(';').ok_or("a reference without end")?;
        let number = match name.strip_prefix('#') {
            Some(hex) if hex.starts_with(['x', 'X']) => u32::from_str_radix(&hex[1..], 16).ok(),
            Some(decimal) => decimal.parse().ok(),
            None => None,
        };
        let character = match name {
            "amp" => Some('&'),
            "lt" => Some('<'),
            "gt" => Some('>'),
            "quot" => Some('"'),
            "apos" => Some('\''),
            _ => number.and_then(char::from_u32),
        };
        out.push(character.ok_or("an unknown reference")?);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(text: &str) -> Result<BTreeMap<String, String>, String> {
        children(text, &["r", "d"])
    }

    #[test]
    fn texts_of_children_are_found_in_all_their_forms() {
        let text = "\u{feff}<?xml version='1.0'?>\n<!-- > < --><r a='>'>\n<d>\n <a x=\"/>\">1&#x41;</a>\
                    <b/><c><![CDATA[<&]]>!</c><d>x<e>deeper</e></d></d><z>no</z></r>\n";
        let found = one(text).unwrap();
        let shown: Vec<String> =
            found.iter().map(|(name, text)| format!("{name}={text}")).collect();
        assert_eq!(shown, ["a=1A", "b=", "c=<&!", "d=x"]);
    }

    #[test]
    fn wrong_xml_is_refused_with_the_reason() {
        for (text, reason) in [
            ("<r><d></r></d>", "</r> closes nothing"),
            ("<r><d>", "<d> is not closed"),
            ("<r></r>", "it has no r/d"),
            ("<!DOCTYPE r><r><d/></r>", "it has a document type"),
            ("<r><d><a>&x;</a></d></r>", "an unknown reference"),
            ("<r><d><a>&x</a></d></r>", "a reference without end"),
            ("<r><d><a", "a tag without end"),
            ("text", "text outside of its elements"),
        ] {
            assert_eq!(one(text).unwrap_err(), reason, "{text}");
        }
        assert!(one(&"<r>".repeat(100)).unwrap_err().starts_with("nested more than"));
    }

    proptest! {
        #[test]
        fn any_text_survives_escaping(text in "[^\r\\x00]{0,60}") {
            let escaped = text.replace('&', "&amp;").replace('<', "&lt;");
            let found = one(&format!("<r><d><a>{escaped}</a></d></r>")).unwrap();
            prop_assert_eq!(&found["a"], &text);
        }

        #[test]
        fn no_input_panics(text in "[<>/&;!a'\"\\[\\]CDAT? -]{0,80}") {
            let _ = one(&text);
        }
    }
}
