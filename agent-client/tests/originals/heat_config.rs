//! `heat-config`, `heat-config-notify` and `heat-config-rebuild-deployed`: files, modes, exit codes, what hooks
//! and the program that notifies are given, and what Heat is sent.

use std::fs::File;
use std::process::Command;

use serde_json::{Value, json};

use crate::generate::{Chance, object};
use crate::{Place, Side, both};
use openstack_client::testing::{Answer, Asked, HttpServer};

/// Keeps what it reads, its arguments and where it runs, and does what `DO` says.
const HOOK: &str = "#!/bin/sh\nname=$(basename \"$0\")\ncat > \"all/seen.$name.$$\"\n\
                    mv \"all/seen.$name.$$\" \"all/seen.$name.$(ls all | grep -c \"seen.$name\\.[0-9]*$\")\"\n\
                    echo \"$# $ENTRY_VARIABLE\" >> all/calls\necho 'in the log' >&2\n";
const NOTIFY: &str = "#!/bin/sh\n{ echo \"$# $1\"; cat; echo; } >> all/notified\n\
                      echo out; echo err >&2\nexit \"${NOTIFY_STATUS:-0}\"\n";
const HOOKS: [(&str, &str); 8] = [
    ("silent", ""),
    ("text", "echo 'plain ü text'\n"),
    (
        "answers",
        "printf '{\"z\": 1.0, \"deploy_stdout\": \"\\303\\274\\\\n\", \"a\": [{}, null, 1e-7]}'\n",
    ),
    ("fails", "echo half; exit 3\n"),
    ("answers-and-fails", "echo '{\"deploy_status_code\": 0}'; exit 9\n"),
    ("killed", "kill -9 $$\n"),
    ("no-utf8", "printf '\\377\\376'; printf '\\377' >&2; exit 1\n"),
    ("blank", "echo\n"),
];

fn prepare(place: &Place, list: Option<&str>) {
    for (name, more) in HOOKS {
        place.write(&format!("hooks/{name}"), format!("{HOOK}{more}"), 0o755);
    }
    place.write("notify", NOTIFY, 0o755);
    place.write("all/calls", "", 0o644);
    if let Some(list) = list {
        place.write("all/list", list, 0o644);
    }
}

fn heat_config(place: &Place) -> Command {
    let mut command = place.command("55-heat-config");
    command.env("HEAT_SHELL_CONFIG", "all/list").env("HEAT_CONFIG_HOOKS", "hooks");
    command.env("HEAT_CONFIG_DEPLOYED", "all/deployed").env("HEAT_CONFIG_DEPLOYED_OLD", "all/old");
    command.env("HEAT_CONFIG_NOTIFY", "./notify").env("ENTRY_VARIABLE", "inherited");
    command
}

/// Entries whose treatment is not changed on purpose.
fn entries(chance: &mut Chance) -> Value {
    let entry = |n: usize, chance: &mut Chance| {
        let hooks: Vec<&str> = HOOKS.iter().map(|(name, _)| *name).collect();
        let mut group = chance.pick(&hooks).to_owned();
        if chance.below(4) == 0 {
            // Everything but letters, digits, hyphen and underscore is left out.
            group = format!(".{}/!:", group.replacen('-', " -", 1));
        }
        let inputs: Vec<Value> = (0..chance.below(4))
            .map(|n| match chance.below(3) {
                0 => json!({"name": format!("i{n}"), "type": "Json", "value": object(chance, 3)}),
                1 => json!({"type": "Number", "value": n, "name": format!("i{n}")}),
                _ => json!({"name": "ü", "value": "a \"text\"\n", "type": "String"}),
            })
            .chain([json!({"name": "deploy_action", "value": "UPDATE"})])
            .collect();
        let config = object(chance, 3);
        let id = chance.pick(&["id", "0f5a-b", "A_1", "x.y"]);
        let mut entry =
            json!({"id": format!("{id}{n}"), "inputs": inputs, "group": group, "config": config});
        if chance.below(4) == 0 {
            entry["config"] = json!({"configs": [
                {"actions": ["CREATE"], "config": "no", "tool": "fails"},
                {"actions": ["DELETE", "UPDATE"], "config": entry["config"], "tool": entry["group"]},
                {"actions": ["UPDATE"], "config": "late", "tool": "fails"}]});
            entry["group"] = "component".into();
        }
        entry
    };
    (0..1 + chance.below(5)).map(|n| entry(n, chance)).collect()
}

#[test]
fn entries_leave_the_same_files_and_hooks_and_heat_see_the_same() {
    for seed in 0..12 {
        let mut chance = Chance(seed);
        let list = entries(&mut chance).to_string();
        let notify_status = chance.pick(&["0", "0", "77"]);
        let run = |place: &Place| {
            let mut command = heat_config(place);
            command.env("NOTIFY_STATUS", notify_status);
            command
        };
        let _ = both(&format!("seed {seed}: {list}"), |p| prepare(p, Some(&list)), run, "all");
    }
}

#[test]
fn entries_are_skipped_and_done_again_alike() {
    let entry =
        |id: &str, group: &str| json!({"id": id, "group": group, "inputs": [], "config": ""});
    let list = json!([
        entry("done", "text"),
        entry("twice", "text"),
        entry("twice", "fails"),
        entry("data", "os-apply-config"),
        entry("empty-file", "text"),
        entry("again", "silent")
    ]);
    for with_new in [true, false] {
        let prepare = |place: &Place| {
            prepare(place, Some(&list.to_string()));
            let directory = if with_new { "all/deployed" } else { "all/old" };
            place.write(&format!("{directory}/done.json"), "{}", 0o600);
            place.write(&format!("{directory}/empty-file.json"), "", 0o644);
            place.write(&format!("{directory}/again.notify.json"), "{}", 0o600);
            place.write(&format!("{directory}/other"), "kept", 0o640);
        };
        let _ = both(&format!("new {with_new}"), prepare, heat_config, "all");
    }
}

#[test]
fn lists_that_are_none_end_alike() {
    let lists =
        ["", "{\"deploy", "\u{feff}[]", "[]", "{}", "{\"a\": 1}", "\"text\"", "null", "5", "true"];
    for list in lists.map(Some).into_iter().chain([None]) {
        let _ = both(&format!("{list:?}"), |place| prepare(place, list), heat_config, "all");
    }
}

/// Runs both against a server each, and compares what they have sent.
fn notify(what: &str, config: &str, data: Option<&str>) -> Vec<(String, String, String, String)> {
    let sent = [Side::Original, Side::Ours].map(|side| {
        let server = HttpServer::start(|_: &Asked| Answer::new(200, ""));
        let place = Place::new(side);
        place.write("config", config.replace("SERVER", &server.url("")), 0o600);
        place.write("data", data.unwrap_or_default(), 0o600);
        let mut command = place.command("heat-config-notify");
        command.arg("config").stdin(File::open(place.path("data")).unwrap());
        let output = command.output().unwrap();
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{side:?}, {what}: {log}");
        assert!(output.stdout.is_empty(), "{side:?}, {what}");
        let asked = server.asked().into_iter().map(|asked| {
            let kind = asked.header("content-type").unwrap_or_default().to_owned();
            (asked.method.clone(), asked.target.clone(), kind, asked.text())
        });
        asked.collect::<Vec<_>>()
    });
    let [original, ours] = sent;
    assert_eq!(ours, original, "{what}");
    ours
}

#[test]
fn signals_by_presigned_urls_are_the_same_requests() {
    let path = "/v1/signal/arn%3Aopenstack%3A%3Ax/a/b?Timestamp=2026-01-01T00%3A00%3A00Z&Signature=a%2Fb%3D";
    let config = |verb: Option<&str>| {
        let mut inputs =
            vec![json!({"name": "deploy_signal_id", "value": format!("SERVER{path}")})];
        inputs.extend(verb.map(|verb| json!({"name": "deploy_signal_verb", "value": verb})));
        json!({"id": "a", "inputs": inputs}).to_string()
    };
    let sent = notify("a first signal", &config(None), Some("{\"a\": 1}"));
    assert_eq!(sent.len(), 1);
    for verb in ["PUT", "POST", "put", "GET"] {
        let _ = notify(verb, &config(Some(verb)), Some("{\"a\": 1}"));
    }
    for data in
        ["", "{", "{}{", "{ \"b\": [1.0, null, \"ü😀\\u0000\"],\n\"a\": 1e-7}", "[1]", "5", "null"]
    {
        let _ = notify(data, &config(None), Some(data));
    }
    let no_signal = json!({"inputs": [{"name": "deploy_signal_transport", "value": "NO_SIGNAL"}]});
    assert!(notify("nobody", &no_signal.to_string(), Some("{}")).is_empty());
}

#[test]
fn wrong_usage_of_notify_ends_alike() {
    let nothing = |place: &Place| {
        place.write("no-inputs", "{}", 0o600);
        place.write("no-json", "{", 0o600);
    };
    for arguments in [&[][..], &["missing"], &["no-inputs"], &["no-json"], &["--help"]] {
        let run = |place: &Place| {
            let mut command = place.command("heat-config-notify");
            command.args(arguments);
            command
        };
        let output = both(&format!("{arguments:?}"), nothing, run, ".");
        assert_eq!(output.status.code(), Some(1));
    }
}
