//! JSON as Python's `json.dumps` writes it.
//!
//! Scripts were written against agents that put lists and objects into the environment with Python's
//! defaults: `", "` and `": "` between items, everything outside ASCII as `\uXXXX`, keys in document
//! order. A script may compare such a text, so it is kept to the letter. So are files, which Python
//! writes with an indent.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

/// `value` in Python's default JSON style.
#[must_use]
pub fn json_text(value: &Value) -> String {
    text(value, PythonStyle)
}

/// `value` as Python writes it with this `indent`, in spaces; no line feed at the end.
#[must_use]
pub fn json_text_indented(value: &Value, indent: usize) -> String {
    let indent = " ".repeat(indent);
    text(value, IndentedStyle(PrettyFormatter::with_indent(indent.as_bytes())))
}

fn text(value: &Value, style: impl Formatter) -> String {
    let mut out = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut out, style);
    // Writing a `Value` into memory has no way to fail: its keys are strings, its numbers finite.
    match value.serialize(&mut serializer) {
        Ok(()) => String::from_utf8_lossy(&out).into_owned(),
        Err(_) => value.to_string(),
    }
}

struct PythonStyle;

impl Formatter for PythonStyle {
    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }

    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        out: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        write_ascii(out, fragment)
    }

    fn write_f64<W: ?Sized + Write>(&mut self, out: &mut W, value: f64) -> io::Result<()> {
        write_float(out, value)
    }
}

/// Line feeds and indents as serde has them, the rest as above.
struct IndentedStyle<'i>(PrettyFormatter<'i>);

impl Formatter for IndentedStyle<'_> {
    fn begin_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_array(out)
    }

    fn end_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_array(out)
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(out, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_array_value(out)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_object(out)
    }

    fn end_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_object(out)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(out, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_object_value(out)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_object_value(out)
    }

    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        out: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        write_ascii(out, fragment)
    }

    fn write_f64<W: ?Sized + Write>(&mut self, out: &mut W, value: f64) -> io::Result<()> {
        write_float(out, value)
    }
}

fn write_ascii<W: ?Sized + Write>(out: &mut W, fragment: &str) -> io::Result<()> {
    let mut units = [0; 2];
    for c in fragment.chars() {
        if matches!(c, ' '..='~') {
            write!(out, "{c}")?;
        } else {
            for unit in c.encode_utf16(&mut units) {
                write!(out, "\\u{unit:04x}")?;
            }
        }
    }
    Ok(())
}

fn write_float<W: ?Sized + Write>(out: &mut W, value: f64) -> io::Result<()> {
    // Both use the shortest digits. Python takes the exponent form below 1e-4 and from 1e16 on, with a
    // sign and two digits at least.
    if value == 0.0 || (1e-4..1e16).contains(&value.abs()) {
        return write!(out, "{}", Value::from(value));
    }
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    write!(out, "{digits}e{sign}{exponent:0>2}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{json_text, json_text_indented};

    #[test]
    fn text_equals_what_python_prints() {
        // Right-hand sides are the output of python3 -c 'import json; print(json.dumps(…))'.
        assert_eq!(
            json_text(&json!({"b": [1, 2.5, true, null], "a": {}})),
            r#"{"b": [1, 2.5, true, null], "a": {}}"#
        );
        assert_eq!(
            json_text(&json!(["ü", "😀", "\"\n\u{1}\u{7f}"])),
            "[\"\\u00fc\", \"\\ud83d\\ude00\", \"\\\"\\n\\u0001\\u007f\"]"
        );
        assert_eq!(
            json_text(&json!([1e16, 1e-5, 5.0, 0.0001, 1.5e300])),
            "[1e+16, 1e-05, 5.0, 0.0001, 1.5e+300]"
        );
        assert_eq!(json_text(&json!([])), "[]");
    }

    #[test]
    fn indented_text_equals_what_python_writes() {
        // As json.dumps(…, indent=2) writes it.
        let value = json!({"a": [1, {"ü": 1e-5}], "b": [], "c": {}, "d": "\u{7f}"});
        let text = "{\n  \"a\": [\n    1,\n    {\n      \"\\u00fc\": 1e-05\n    }\n  ],\n  \"b\": [],\n  \
                    \"c\": {},\n  \"d\": \"\\u007f\"\n}";
        assert_eq!(json_text_indented(&value, 2), text);
        assert_eq!(json_text_indented(&json!([1]), 1), "[\n 1\n]");
    }
}
