//! `os-apply-config`.

use std::process::Command;

use serde_json::{Value, json};

use crate::generate::{Chance, object, template};
use crate::{Place, both};

/// Trees of templates that are compared, and templates in each.
const TREES: u64 = 12;
const TEMPLATES: usize = 60;

fn command(place: &Place, arguments: &[&str]) -> Command {
    let mut command = place.command("os-apply-config");
    command.args(["--templates", "templates", "--output", "out", "--fallback-metadata"]);
    command.args(arguments);
    command
}

#[test]
fn templates_by_chance_become_the_same_files() {
    for seed in 0..TREES {
        let run = |place: &Place| command(place, &["--metadata", "one.json", "two.json"]);
        let prepare = |place: &Place| {
            let chance = &mut Chance(seed);
            for name in ["one.json", "two.json"] {
                let data = Value::Object(object(chance, 3));
                place.write(name, data.to_string(), 0o644);
            }
            place.write("part.mustache", "[{{a}}]\n{{#b}}\n- {{.}}\n{{/b}}\n", 0o644);
            for n in 0..TEMPLATES {
                let name =
                    format!("templates/{}/t{n}", chance.pick(&["etc", "etc/deep/er", "var"]));
                place.write(&name, template(chance, 3), 0o644);
                if chance.below(3) == 0 {
                    let control = chance.pick(&[
                        "",
                        "mode: 0600",
                        "mode: 0750\nallow_empty: false",
                        "owner: root\ngroup: 0",
                        "allow_empty: no",
                        "# nothing\n",
                        "{mode: 0444, allow_empty: true}",
                    ]);
                    place.write(&format!("{name}.oac"), control, 0o644);
                }
                if chance.below(4) == 0 {
                    let old = name.replace("templates/", "out/");
                    place.write(&old, "old", [0o600, 0o755, 0o440][chance.below(3)]);
                }
            }
        };
        let output = both(&format!("tree of seed {seed}"), prepare, run, "out");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn keys_and_types_are_answered_alike() {
    let data = json!({
        "s": "text", "n": 5, "neg": -2, "f": 1.5, "big": 1e16, "t": true, "no": false, "null": null,
        "l": [1, {"k": "v"}, null, [true]], "o": {"p": {"q": "deep"}, "e": {}}, "host": "10.0.0.1:80",
        "dsn": "mysql://u:p@h/db?charset=utf8", "space": "a b", "": "empty", "uml": "ü", "two": "a\nb",
    });
    let keys = [
        "s", "n", "neg", "f", "big", "t", "no", "null", "l", "l.0", "l.-1", "l.1.k", "l.2", "l.9",
        "l.x", "o", "o.p", "o.p.q", "o.e", "host", "dsn", "space", "missing", "s.0", "n.a", "uml",
        "l.3.0", "two", "o.", ".",
    ];
    let kinds = ["default", "int", "netaddress", "raw", "dsn", "username", "nonsense"];
    for (n, key) in keys.into_iter().enumerate() {
        // Each key with some types, each type with many keys.
        for kind in [kinds[n % kinds.len()], "raw"] {
            let arguments = ["--metadata", "m.json", "--key", key, "--type", kind];
            ask(&data, &arguments);
        }
    }
    ask(&data, &["-m", "m.json", "--key", "missing", "--key-default", "a b\n"]);
    ask(&data, &["-m", "m.json", "--key", "missing", "--key-default", ""]);
    ask(&data, &["-m", "m.json", "--key", "null", "--key-default", "x"]);
    for key in ["t", "no", "s", "n", "null", "missing", "l.3.0"] {
        ask(&data, &["-m", "m.json", "--boolean-key", key]);
    }
    ask(&data, &["-m", "m.json", "--boolean-key", "t", "--key", "s"]);
    ask(&data, &["-m", "m.json", "--print-templates"]);
    ask(&data, &["-m", "m.json", "--no-such-option"]);
    // Long options may be abbreviated.
    ask(&data, &["--meta", "m.json", "--boolean", "t"]);
}

fn ask(data: &Value, arguments: &[&str]) {
    let prepare = |place: &Place| place.write("m.json", data.to_string(), 0o644);
    let _ = both(&format!("{arguments:?}"), prepare, |place| command(place, arguments), "out");
}

/// One template with its control file, and metadata.
fn one(template: &str, mode: u32, control: Option<&str>, data: &str, arguments: &[&str]) {
    let prepare = |place: &Place| {
        place.write("m.json", data, 0o644);
        place.write("templates/etc/file", template, mode);
        if let Some(control) = control {
            place.write("templates/etc/file.oac", control, 0o644);
        }
        place.write("out/etc/other", "other", 0o644);
    };
    let all = [&["--metadata", "m.json"], arguments].concat();
    let _ = both(&format!("{template:?} {control:?} {data}"), prepare, |p| command(p, &all), "out");
}

#[test]
fn what_is_wrong_is_refused_alike() {
    let data = "{\"a\": {\"b\": 1}, \"s\": \"x\"}";
    for template in ["{{/a}}", "{{#a}}{{/b}}", "{{#a}}{{#b}}{{/a}}{{/b}}", "{{=<%=}}", "{{", "{{}}"]
    {
        one(template, 0o644, None, data, &[]);
    }
    let controls = [
        "mode: 600",
        "mode: \"0600\"",
        "mode: 0",
        "mode: 0o600",
        "mode: 01777",
        "mode: true",
        "mode:",
        "owner: no-such-user",
        "owner: \"0\"",
        "owner: 0",
        "group: root",
        "owner: [root]",
        "allow_empty: 1",
        "allow_empty: off",
        "unknown: 1",
        "- mode",
        "text",
        "mode: [",
        "1: 2",
        "mode: 0600\nmode: 0640",
        "mode: 0x1a4",
        "mode: 0b110100100",
        "a: b\n---\nc: d",
        "~",
        "mode: 6_4",
    ];
    for control in controls {
        one("{{s}}\n", 0o644, Some(control), data, &[]);
    }
    for bad in ["", "[1]", "{", "null", "5", "{\"s\": }"] {
        one("<{{s}}>", 0o644, None, bad, &[]);
    }
    for subhash in ["a", "a.b", "s", "none", ""] {
        one("<{{b}}>", 0o644, None, data, &["--subhash", subhash]);
    }
    one("{{s}}", 0o644, None, data, &["--validate"]);
    one("{{s}}", 0o644, Some("mode: 600"), data, &["--validate"]);
}

#[test]
fn executable_templates_run_alike() {
    let data = "{\"a\": [1, \"\u{fc}\", null, true, 1e16], \"b\": {}}";
    for script in [
        "#!/bin/sh\ncat\n",
        "#!/bin/sh\necho \"$#\"\n",
        "#!/bin/sh\nexit 3\n",
        "#!/bin/sh\necho out; echo err >&2; exit 1\n",
        "#!/bin/sh\ntrue\n",
        "#!/bin/sh\nprintf '\\377'\n",
        "#!/no/such/interpreter\n",
    ] {
        one(script, 0o755, None, data, &[]);
        one(script, 0o755, Some("allow_empty: false"), data, &[]);
    }
}

#[test]
fn metadata_is_found_alike() {
    let prepare = |place: &Place| {
        place.write("a.json", "{\"who\": \"a\", \"o\": {\"x\": 1}}", 0o644);
        place.write("b.json", "{\"who\": \"b\", \"o\": {\"y\": 2}, \"n\": null}", 0o644);
        place.write("list.json", "[\"b.json\", \"a.json\", \"none.json\"]", 0o644);
        place.write("no-list.json", "{}", 0o644);
        place.write("templates/file", "{{.}}", 0o644);
    };
    type Change = fn(&mut Command);
    let cases: [(&str, &[&str], Change); 8] = [
        ("metadata", &["-m", "a.json", "b.json"], |_| {}),
        ("environment", &[], |command| {
            command.env("OS_CONFIG_FILES", "a.json:b.json:");
        }),
        ("empty environment", &[], |command| {
            command.env("OS_CONFIG_FILES", "");
        }),
        ("metadata wins", &["-m", "a.json"], |command| {
            command.env("OS_CONFIG_FILES", "b.json");
        }),
        ("list by option", &["--os-config-files", "list.json"], |_| {}),
        ("list by environment", &[], |command| {
            command.env("OS_CONFIG_FILES_PATH", "list.json");
        }),
        ("no list", &["--os-config-files", "no-list.json"], |_| {}),
        ("templates by environment", &["-m", "a.json"], |command| {
            command.env("OS_CONFIG_APPLIER_TEMPLATES", "elsewhere");
        }),
    ];
    for (what, arguments, change) in cases {
        let run = |place: &Place| {
            let mut command = command(place, arguments);
            change(&mut command);
            command
        };
        let _ = both(what, prepare, run, "out");
    }
    let fallback = |place: &Place| {
        let mut command = place.command("os-config-applier");
        command.args(["-t", "templates", "-o", "out", "-m", "a.json"]);
        command.args(["--fallback-metadata", "b.json"]);
        command
    };
    let _ = both("fallback is read first", prepare, fallback, "out");
}
