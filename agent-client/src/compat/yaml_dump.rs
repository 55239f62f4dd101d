//! YAML as Python's `yaml.safe_dump(…, default_flow_style=False)` writes it, to the byte.
//!
//! Blocks with sorted keys and an indent of 2, lists at the indent of their key; texts plain where that
//! reads back as text, else in single quotes, else in double quotes with all but ASCII escaped; lines are
//! folded at spaces once they are longer than 80 characters.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use super::yaml_load::resolve;
use crate::json_text::json_text;

const INDENT: usize = 2;
const WIDTH: usize = 80;
/// Longest key that stands on one line with its value. Python counts the hidden `!!str` in.
const SIMPLE_KEY_CHARS_MAX: usize = 122;

/// The document.
#[must_use]
pub fn dump(value: &Value) -> String {
    let mut emitter = Emitter {
        out: String::new(),
        column: 0,
        indent: None,
        after_space: true,
        is_indented: true,
    };
    emitter.node(value, false);
    let open_ended = match value {
        Value::String(text) => style(text) == Style::Plain,
        Value::Array(_) | Value::Object(_) => false,
        _ => true,
    };
    emitter.write_indent();
    if open_ended {
        emitter.out.push_str("...\n");
    }
    emitter.out
}

struct Emitter {
    out: String,
    column: usize,
    /// `None` outside of any collection.
    indent: Option<usize>,
    /// Whether the last character written was white space, or nothing was.
    after_space: bool,
    /// Whether the line holds nothing but white space and marks of blocks.
    is_indented: bool,
}

impl Emitter {
    fn node(&mut self, value: &Value, in_mapping: bool) {
        match value {
            Value::Null => self.scalar("null", Style::Plain, true),
            Value::Bool(value) => {
                self.scalar(if *value { "true" } else { "false" }, Style::Plain, true);
            }
            Value::Number(number) => {
                let mut text = json_text(value);
                if number.is_f64() && !text.contains('.') {
                    text = text.replacen('e', ".0e", 1);
                }
                self.scalar(&text, Style::Plain, true);
            }
            Value::String(text) => self.scalar(text, style(text), true),
            Value::Array(items) if items.is_empty() => self.mark("[]", true, false),
            Value::Object(map) if map.is_empty() => self.mark("{}", true, false),
            Value::Array(items) => {
                let within = self.indent;
                if !in_mapping || self.is_indented {
                    self.indent = Some(within.map_or(0, |indent| indent + INDENT));
                }
                for item in items {
                    self.write_indent();
                    self.mark("-", true, true);
                    self.node(item, false);
                }
                self.indent = within;
            }
            Value::Object(map) => {
                let within = self.indent;
                self.indent = Some(within.map_or(0, |indent| indent + INDENT));
                let mut entries: Vec<_> = map.iter().collect();
                entries.sort_by_key(|(key, _)| key.as_str());
                for (key, value) in entries {
                    self.entry(key, value);
                }
                self.indent = within;
            }
        }
    }

    fn entry(&mut self, key: &str, value: &Value) {
        self.write_indent();
        let is_simple = !key.is_empty()
            && key.chars().count() <= SIMPLE_KEY_CHARS_MAX
            && !key.contains(is_break);
        if is_simple {
            self.scalar(key, style(key), false);
            self.mark(":", false, false);
        } else {
            self.mark("?", true, true);
            self.scalar(key, style(key), true);
            self.write_indent();
            self.mark(":", true, true);
        }
        self.node(value, true);
    }

    fn scalar(&mut self, text: &str, style: Style, may_fold: bool) {
        let within = self.indent;
        self.indent = Some(within.unwrap_or(0) + INDENT);
        let text: Vec<char> = text.chars().collect();
        match style {
            Style::Plain => self.plain(&text, may_fold),
            Style::Single => self.single_quoted(&text, may_fold),
            Style::Double => self.double_quoted(&text, may_fold),
        }
        self.indent = within;
    }

    fn put(&mut self, text: &str) {
        self.column += text.chars().count();
        self.out.push_str(text);
    }

    fn put_chars(&mut self, text: &[char]) {
        self.column += text.len();
        self.out.extend(text);
    }

    fn mark(&mut self, mark: &str, needs_space: bool, of_block: bool) {
        if !self.after_space && needs_space {
            self.put(" ");
        }
        self.after_space = false;
        self.is_indented &= of_block;
        self.put(mark);
    }

    fn line_break(&mut self, with: char) {
        self.after_space = true;
        self.is_indented = true;
        self.column = 0;
        self.out.push(with);
    }

    fn write_indent(&mut self) {
        let indent = self.indent.unwrap_or(0);
        let beyond = self.column > indent || (self.column == indent && !self.after_space);
        if !self.is_indented || beyond {
            self.line_break('\n');
        }
        if self.column < indent {
            self.after_space = true;
            self.put(&" ".repeat(indent - self.column));
        }
    }

    /// Never has line breaks.
    fn plain(&mut self, text: &[char], may_fold: bool) {
        if !self.after_space {
            self.put(" ");
        }
        self.after_space = false;
        self.is_indented = false;
        for (spaces, word) in words(text) {
            // Plain text neither begins nor ends with a space.
            if spaces.len() == 1 && self.column > WIDTH && may_fold {
                self.write_indent();
                self.after_space = false;
                self.is_indented = false;
            } else {
                self.put_chars(spaces);
            }
            self.put_chars(word);
        }
    }

    fn single_quoted(&mut self, text: &[char], may_fold: bool) {
        self.mark("'", true, false);
        let mut at = 0;
        while at < text.len() {
            let rest = &text[at..];
            let spaces = rest.iter().take_while(|c| **c == ' ').count();
            let breaks = rest.iter().take_while(|c| is_break(**c)).count();
            if spaces > 0 {
                let is_inside = at != 0 && at + spaces != text.len();
                if spaces == 1 && self.column > WIDTH && may_fold && is_inside {
                    self.write_indent();
                } else {
                    self.put_chars(&rest[..spaces]);
                }
                at += spaces;
            } else if breaks > 0 {
                // One break would be folded into a space.
                if rest[0] == '\n' {
                    self.line_break('\n');
                }
                for c in &rest[..breaks] {
                    self.line_break(*c);
                }
                self.write_indent();
                at += breaks;
            } else {
                if rest[0] == '\'' {
                    self.put("''");
                } else {
                    self.put_chars(&rest[..1]);
                }
                at += 1;
            }
        }
        self.mark("'", false, false);
    }

    fn double_quoted(&mut self, text: &[char], may_fold: bool) {
        self.mark("\"", true, false);
        // What is not written yet begins at `start`.
        let mut start = 0;
        for end in 0..=text.len() {
            let c = text.get(end).copied();
            if c.is_none_or(|c| matches!(c, '"' | '\\') || !(' '..='~').contains(&c)) {
                if start < end {
                    self.put_chars(&text[start..end]);
                    start = end;
                }
                if let Some(c) = c {
                    self.put(&escape(c));
                    start = end + 1;
                }
            }
            let can_fold = end > 0 && end + 1 < text.len() && (c == Some(' ') || start >= end);
            let pending = end.saturating_sub(start);
            // An escape just written counts from behind it, which makes the line one shorter.
            let column = (self.column + pending).saturating_sub(start.saturating_sub(end));
            if can_fold && may_fold && column > WIDTH {
                if start < end {
                    self.put_chars(&text[start..end]);
                    start = end;
                }
                self.put("\\");
                self.write_indent();
                self.after_space = false;
                self.is_indented = false;
                if text.get(start) == Some(&' ') {
                    self.put("\\");
                }
            }
        }
        self.mark("\"", false, false);
    }
}

/// Runs of spaces, each with the word that follows it.
fn words(text: &[char]) -> impl Iterator<Item = (&[char], &[char])> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let spaces = rest.iter().take_while(|c| **c == ' ').count();
        let word = rest[spaces..].iter().take_while(|c| **c != ' ').count();
        let (spaces, after) = rest.split_at(spaces);
        let (word, after) = after.split_at(word);
        rest = after;
        Some((spaces, word))
    })
}

fn escape(c: char) -> String {
    let short = match c {
        '\0' => '0',
        '\x07' => 'a',
        '\x08' => 'b',
        '\t' => 't',
        '\n' => 'n',
        '\x0b' => 'v',
        '\x0c' => 'f',
        '\r' => 'r',
        '\x1b' => 'e',
        '"' | '\\' => c,
        '\u{85}' => 'N',
        '\u{a0}' => '_',
        '\u{2028}' => 'L',
        '\u{2029}' => 'P',
        _ => {
            return match u32::from(c) {
                code @ 0..=0xff => format!("\\x{code:02X}"),
                code @ 0x100..=0xffff => format!("\\u{code:04X}"),
                code => format!("\\U{code:08X}"),
            };
        }
    };
    format!("\\{short}")
}

/// How a text is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Plain,
    Single,
    Double,
}

fn style(text: &str) -> Style {
    let seen = Seen::in_text(text);
    let forbids_plain = seen.indicator || seen.breaks || seen.outer_space || text.is_empty();
    let forbids_quotes = seen.break_space || seen.space_break || seen.special;
    if !forbids_plain && !forbids_quotes && reads_as_text(text) {
        Style::Plain
    } else if !forbids_quotes {
        Style::Single
    } else {
        Style::Double
    }
}

/// What a text has in it.
#[derive(Default)]
struct Seen {
    /// Something that means something to a block.
    indicator: bool,
    breaks: bool,
    /// Not printable ASCII.
    special: bool,
    /// A space or a break at either end.
    outer_space: bool,
    break_space: bool,
    space_break: bool,
}

impl Seen {
    fn in_text(text: &str) -> Self {
        let mut seen = Self {
            indicator: text.starts_with("---") || text.starts_with("..."),
            ..Self::default()
        };
        let chars: Vec<char> = text.chars().collect();
        let is_blank = |c: Option<&char>| {
            c.is_none_or(|c| matches!(c, '\0' | ' ' | '\t' | '\r') || is_break(*c))
        };
        for (at, &c) in chars.iter().enumerate() {
            let before = at.checked_sub(1).and_then(|before| chars.get(before));
            let blank_after = is_blank(chars.get(at + 1));
            seen.indicator |= match c {
                '#' => at == 0 || is_blank(before),
                ':' => blank_after,
                '-' | '?' => at == 0 && blank_after,
                ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%'
                | '@' | '`' => at == 0,
                _ => false,
            };
            seen.breaks |= is_break(c);
            seen.special |= c != '\n' && !(' '..='~').contains(&c);
            let is_outer = at == 0 || at + 1 == chars.len();
            seen.outer_space |= is_outer && (c == ' ' || is_break(c));
            seen.break_space |= c == ' ' && before.is_some_and(|c| is_break(*c));
            seen.space_break |= is_break(c) && before == Some(&' ');
        }
        seen
    }
}

fn is_break(c: char) -> bool {
    matches!(c, '\n' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// What Python's resolver takes for something else than text, beyond what is read as such here.
static OTHER: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(concat!(
        r"^(?:=|<<|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        r"|[-+]?0b[01_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+",
        r"|[0-9]{4}-[0-9]{2}-[0-9]{2}",
        r"|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt]|[ \t]+)[0-9]{1,2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]*)?",
        r"(?:[ \t]*(?:Z|[-+][0-9]{1,2}(?::[0-9]{2})?))?)$"
    ))
    .ok()
});

fn reads_as_text(text: &str) -> bool {
    resolve(text).is_string() && !OTHER.as_ref().is_some_and(|other| other.is_match(text))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::yaml_load::load;
    use super::*;

    #[test]
    fn text_equals_what_python_writes() {
        // Right-hand sides are the output of yaml.safe_dump(…, default_flow_style=False); more of that
        // is in tests/originals.
        let value = json!({"web": {"image": "nginx", "links": ["db"], "ports": ["8000:8000", 22]},
            "e": [[], {}, [1, [2]], {"k": {"l": null}}], "s": ["yes", "1", "a: b", "- x", "\u{fc}", "it's", ""]});
        let expected = "e:\n- []\n- {}\n- - 1\n  - - 2\n- k:\n    l: null\ns:\n- 'yes'\n- '1'\n- 'a: b'\n\
                        - '- x'\n- \"\\xFC\"\n- it's\n- ''\nweb:\n  image: nginx\n  links:\n  - db\n  \
                        ports:\n  - 8000:8000\n  - 22\n";
        assert_eq!(dump(&value), expected);
        assert_eq!(dump(&json!("text")), "text\n...\n");
        assert_eq!(dump(&json!({})), "{}\n");
        assert_eq!(dump(&json!([1e17, 1.5])), "- 1.0e+17\n- 1.5\n");
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[ -~\n\u{e4}\u{85}\u{1f600}\t]{0,120}".prop_map(Value::from),
            "[-+.:0-9_xeETZ ]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::vec(("[ -~\n]{0,8}", inner), 0..5)
                    .prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(value in value()) {
            let text = dump(&value);
            prop_assert_eq!(load(&text).map_err(|e| format!("{e}: {text}")), Ok(value));
        }
    }
}
