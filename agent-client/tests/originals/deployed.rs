//! `heat-config-rebuild-deployed` and `99-refresh-completed`: which files mark what as done, and what Heat is
//! sent. Both are shell scripts that have their directory built in; here it is the place's.

use std::collections::BTreeMap;
use std::fs;

use openstack_client::testing::{Answer, Asked, HttpServer};
use serde_json::{Value, json};

use crate::{Place, Side, original};

/// What a side did: exit code, what it said, the files that mark what is done, what it sent.
#[derive(Debug, PartialEq)]
struct Did {
    exit: Option<i32>,
    said: Vec<String>,
    marks: BTreeMap<String, String>,
    sent: Vec<(String, String, Option<String>, Value)>,
}

/// Runs the script with this metadata; `done` are files that are there before.
fn did(side: Side, script: &str, metadata: &Value, done: &[(&str, &str)], status: u16) -> Did {
    let heat = HttpServer::start(move |_: &Asked| Answer::new(status, "an answer"));
    let place = Place::new(side);
    let deployed = place.path("deployed").display().to_string();
    let metadata = metadata.to_string().replace("HEAT", &heat.url(""));
    place.write("metadata", metadata, 0o600);
    for (name, content) in done {
        place.write(&format!("deployed/{name}"), content, 0o600);
    }
    if side == Side::Original {
        let text = fs::read_to_string(original(script)).unwrap();
        let built_in =
            ["/var/lib/heat-config/deployed", "/var/lib/os-apply-config-deployments/deployed"];
        assert!(built_in.iter().any(|path| text.contains(path)), "another script than was read");
        let text = built_in.iter().fold(text, |text, path| text.replace(path, &deployed));
        let text = text.replace("/var/run/heat-config/deployed", &deployed);
        place.write(&format!("bin/{script}"), text, 0o755);
    }
    drop(place.command("os-apply-config"));
    let mut command = place.command(script);
    command.env("OS_CONFIG_FILES", place.path("metadata"));
    command.env("HEAT_CONFIG_DEPLOYED", &deployed).env("OS_APPLY_CONFIG_DEPLOYED", &deployed);
    command.env("HEAT_CONFIG_NOTIFY_TIMEOUT", "0");
    let output = command.output().unwrap();
    let files = fs::read_dir(place.path("deployed")).into_iter().flatten().map(|entry| {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, fs::read_to_string(path).unwrap())
    });
    let sent = heat.asked().into_iter().map(|asked| {
        let kind = asked.header("content-type").map(str::to_owned);
        let body = serde_json::from_slice(&asked.body).unwrap();
        (asked.method, asked.target, kind, body)
    });
    Did {
        exit: output.status.code(),
        said: said(&place.text(&output.stdout)),
        marks: files.collect(),
        sent: sent.collect(),
    }
}

/// What both say: without names of temporary files, URLs, and answers.
fn said(stdout: &str) -> Vec<String> {
    let lines = stdout.lines().map(|line| line.replace("an answer", ""));
    let lines = lines.map(|line| match line.split_once(" to /tmp/") {
        Some((before, _)) => before.to_owned(),
        None => line.replace("Found  deployments", "Found 0 deployments"),
    });
    let lines =
        lines.map(|line| match line.strip_prefix("Signalling os-apply-config deployment ") {
            Some(rest) => format!("Signalling {}", rest.split(' ').next().unwrap()),
            None => line,
        });
    lines.filter(|line| !line.is_empty()).collect()
}

fn alike(what: &str, script: &str, metadata: &Value, done: &[(&str, &str)], status: u16) -> Did {
    let [original, ours] =
        [Side::Original, Side::Ours].map(|side| did(side, script, metadata, done, status));
    assert_eq!(ours, original, "{what}");
    ours
}

fn deployment(id: &str, group: &str) -> Value {
    json!({"id": id, "group": group, "name": "n", "inputs": [], "config": ""})
}

#[test]
fn rebuilding_marks_the_same_deployments() {
    const SCRIPT: &str = "heat-config-rebuild-deployed";
    let all = [
        deployment("1-a", "script"),
        deployment("data", "os-apply-config"),
        deployment("none", "Heat::Ungrouped"),
        deployment("done", "puppet"),
        deployment("A_1.x", "no such hook"),
        json!({"id": "without-group", "inputs": []}),
    ];
    for many in [0, 2, 3, all.len()] {
        let metadata = json!({"deployments": all[..many], "other": 1});
        let done = [("done.json", "kept"), ("other", "stays")];
        let did = alike(&format!("{many} deployments"), SCRIPT, &metadata, &done, 200);
        assert_eq!(did.exit, Some(0));
        assert_eq!(did.marks.contains_key("1-a.json"), many > 0);
        assert_eq!(did.marks["done.json"], "kept");
    }
    let did = alike("no deployments", SCRIPT, &json!({"other": 1}), &[], 200);
    assert_eq!(did.exit, Some(0));
}

/// Data that are signalled by URL.
fn signalled(id: &str, group: &str) -> Value {
    json!({"id": id, "group": group, "name": "n", "config": {"k": 1}, "inputs": [
        {"name": "deploy_action", "value": "CREATE"},
        {"name": "deploy_signal_id", "value": format!("HEAT/signal/{id}?Timestamp=2026&Signature=a%2Fb")},
    ]})
}

#[test]
fn what_was_data_is_signalled_alike_when_all_is_configured() {
    const SCRIPT: &str = "99-refresh-completed";
    let deployments = json!([
        signalled("0f-1", "os-apply-config"),
        signalled("a", "script"),
        signalled("done", "os-apply-config"),
        deployment("nobody", "os-apply-config"),
        signalled("0f-2", "os-apply-config"),
    ]);
    let metadata = json!({
        "instance-id": "i-1", "completion-handle": "HEAT/handle?x=1", "completion-signal": "HEAT/signal",
        "deployments": deployments,
    });
    let done = [("done", "")];
    let did = alike("all that there may be", SCRIPT, &metadata, &done, 200);
    assert_eq!((did.exit, did.sent.len()), (Some(0), 4));
    assert_eq!(did.marks.len(), 3);
    let did = alike(
        "a server in trouble",
        SCRIPT,
        &json!({"instance-id": "i-1",
        "deployments": [signalled("0f-1", "os-apply-config"), signalled("a", "script")]}),
        &[],
        503,
    );
    assert_eq!(did.exit, Some(1));
    for metadata in [
        json!({"instance-id": "i-1"}),
        json!({"instance-id": "i-1", "completion-signal": "HEAT/signal"}),
        json!({"instance-id": "i-1", "deployments": []}),
        json!({"other": "metadata"}),
    ] {
        let did = alike(&metadata.to_string(), SCRIPT, &metadata, &[], 200);
        assert_eq!(did.exit, Some(0), "{metadata}");
    }
}
