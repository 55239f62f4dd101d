use std::collections::HashMap;

use serde_json::{Value, json};

use super::*;

struct Map(HashMap<&'static str, &'static str>);

impl Partials for Map {
    fn load(&self, name: &str) -> Result<Option<String>, String> {
        Ok(self.0.get(name).map(|&text| text.to_owned()))
    }
}

fn filled(template: &str, data: &Value) -> String {
    with(template, data, &[]).unwrap()
}

fn with(
    template: &str,
    data: &Value,
    partials: &[(&'static str, &'static str)],
) -> Result<String, RenderError> {
    let partials = Map(partials.iter().copied().collect());
    render(&Template::parse(template).unwrap(), data, &partials)
}

#[test]
fn nothing_is_escaped_and_what_is_no_string_is_json() {
    let data = json!({"s": "<\"&", "n": 5, "f": 1.5, "b": true, "l": [1, "ü"], "o": {"k": null}});
    assert_eq!(filled("{{s}} {{{s}}} {{&s}}", &data), "<\"& <\"& <\"&");
    assert_eq!(filled("{{n}} {{f}} {{b}}", &data), "5 1.5 true");
    assert_eq!(filled("{{l}} {{o}}", &data), "[1, \"\\u00fc\"] {\"k\": null}");
    assert_eq!(filled("{{.}}", &json!({"a": 1})), "{\"a\": 1}");
}

#[test]
fn what_is_missing_or_null_is_empty() {
    let data = json!({"null": null, "o": {}, "l": [7], "t": "text"});
    for name in ["missing", "null", "o.missing", "o.missing.more", "l.0", "t.length", "null.x"] {
        assert_eq!(filled(&format!("[{{{{{name}}}}}]"), &data), "[]", "{name}");
        assert_eq!(filled(&format!("[{{{{#{name}}}}}x{{{{/{name}}}}}]"), &data), "[]", "{name}");
        assert_eq!(filled(&format!("[{{{{^{name}}}}}x{{{{/{name}}}}}]"), &data), "[x]", "{name}");
    }
}

#[test]
fn truth_is_pythons() {
    let cases = [
        (json!(0), ""),
        (json!(0.0), ""),
        (json!(""), ""),
        (json!([]), ""),
        (json!({}), ""),
        (json!(false), ""),
        (json!(null), ""),
        (json!(true), "true"),
        (json!("a"), "a"),
        (json!(2), "2"),
        (json!([0, "", null]), "0"),
        (json!({"k": 1}), "{\"k\": 1}"),
    ];
    for (value, expected) in cases {
        let data = json!({ "v": value });
        assert_eq!(filled("{{#v}}{{.}}{{/v}}", &data), expected, "{value}");
        assert_eq!(
            filled("{{^v}}no{{/v}}", &data),
            if expected.is_empty() { "no" } else { "" },
            "{value}"
        );
    }
}

#[test]
fn sections_see_outer_names_and_an_inner_null_hides_them() {
    let data = json!({"a": "A", "o": {"b": "B"}, "l": [{"a": "1"}, {"a": null}, {}]});
    assert_eq!(filled("{{#o}}{{a}}{{b}}{{/o}}", &data), "AB");
    assert_eq!(filled("{{#l}}<{{a}}>{{/l}}", &data), "<1><><A>");
}

#[test]
fn a_tag_alone_on_its_line_leaves_no_line() {
    let data = json!({"t": true, "v": "x"});
    assert_eq!(filled("a\n  {{#t}}\nb\n{{/t}}\nc\n", &data), "a\nb\nc\n");
    assert_eq!(filled("a\r\n{{! note }}\r\nb", &data), "a\r\nb");
    assert_eq!(filled("  {{v}}\n", &data), "  x\n");
    assert_eq!(filled("{{#t}} {{/t}} z", &data), "  z");
}

#[test]
fn delimiters_change_and_what_has_no_end_is_text() {
    let data = json!({"v": "x", "os-collect": {"command": "run"}});
    assert_eq!(filled("{{=<% %>=}}<% v %> {{v}}<%={{ }}=%>{{v}}", &data), "x {{v}}x");
    assert_eq!(filled("{{v", &data), "{{v");
    assert_eq!(filled("a {{}} b", &data), "a {{}} b");
    assert_eq!(filled("{{os-collect.command}}", &data), "run");
}

#[test]
fn partials_are_indented_see_the_data_and_are_empty_if_missing() {
    let data = json!({"v": "x"});
    assert_eq!(with("[{{>none}}]", &data, &[]).unwrap(), "[]");
    let partials = [("p", "a\n\n{{v}}\n"), ("self", "{{>self}}")];
    assert_eq!(with("  {{>p}}\n.", &data, &partials).unwrap(), "  a\n\n  x\n.");
    assert_eq!(with("- {{>p}}", &data, &partials).unwrap(), "- a\n\nx\n");
    assert_eq!(with("{{>self}}", &data, &partials), Err(RenderError::TooDeep("self".into())));
}

#[test]
fn wrong_tags_are_named_with_their_line() {
    let message = |text: &str| Template::parse(text).unwrap_err().to_string();
    assert_eq!(message("a\n{{/b}}"), "line 2: {{/b}} where nothing is open");
    assert_eq!(message("{{#a}}\n{{^b}}\n\n{{/a}}"), "line 4: {{/a}} where {{^b}} is open");
    assert_eq!(message("x\n\n{{#a}} y"), "line 3: section \"a\" is never closed; try {{/a}}");
    assert!(message("{{=<%=}}").contains("two delimiters"));
    let deep = "{{#a}}".repeat(SECTIONS_NESTED_MAX + 1);
    assert!(message(&deep).contains("inside each other"));
}
