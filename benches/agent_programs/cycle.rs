//! One whole cycle: os-refresh-config, in it os-apply-config with 20 templates and heat-config with 10
//! deployments of the script hook.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::{Value, json};

use crate::fixture::{Fixture, Row, Side, write};

const TEMPLATES: usize = 20;
const DEPLOYMENTS: usize = 10;

pub(crate) fn row() -> Row {
    Row {
        title: "a cycle: 20 templates, 10 deployments",
        program: "os-refresh-config",
        arguments: &["--lockfile", "@/lock", "--log-level", "ERROR"],
        stdin: None,
    }
}

/// Lays out the files of a cycle that is made by these programs.
pub(crate) fn lay(home: &Path, programs: &Path) {
    let deployments: Vec<Value> = (0..DEPLOYMENTS).map(deployment).collect();
    let users: Vec<Value> = (0..20).map(|n| json!({"name": format!("u{n}"), "id": n})).collect();
    let metadata = json!({"name": "vm", "instance-id": "i-1", "users": users, "net": {"mtu": 1500}, "deployments": deployments});
    write(&home.join("metadata.json"), &metadata.to_string(), 0o600);
    for n in 0..TEMPLATES - 1 {
        let template = format!(
            "# {n}\nname = {{{{name}}}}\nmtu = {{{{net.mtu}}}}\n{{{{#users}}}}\n{{{{id}}}}: {{{{name}}}}\n{{{{/users}}}}\n"
        );
        write(&home.join(format!("templates/etc/app-{n}.conf")), &template, 0o644);
    }
    write(&home.join("templates/heat-config"), "{{deployments}}", 0o644);
    let apply = "#!/bin/sh\nexec os-apply-config --output \"$OUT\"\n";
    write(&home.join("base/configure.d/20-os-apply-config"), apply, 0o755);
    let link = home.join("base/configure.d/55-heat-config");
    symlink(programs.join("55-heat-config"), link).expect("a link");
    fs::create_dir_all(home.join("hooks")).expect("a directory");
    symlink(programs.join("hook-script"), home.join("hooks/script")).expect("a link");
}

fn deployment(n: usize) -> Value {
    json!({
        "id": format!("config-{n}"), "name": format!("deploy-{n}"), "group": "script",
        "creation_time": "2026-01-01T00:00:00Z", "options": {},
        "inputs": [{"name": "n", "type": "String", "value": n.to_string()},
            {"name": "deploy_action", "type": "String", "value": "CREATE"}],
        "outputs": [{"name": "result", "type": "String"}],
        "config": "#!/bin/sh\necho $n\nprintf %s $n > $heat_outputs_path.result\n",
    })
}

/// Whether both sides did the same work.
pub(crate) fn check(fixture: &Fixture, measured: &Row) {
    if measured.title != row().title {
        return;
    }
    let [ours, original] = Side::BOTH.map(|side| rendered(&fixture.of(side)));
    assert_eq!(ours.len() + 1, TEMPLATES, "the list of deployments is one of them");
    assert!(ours == original, "what was rendered differs");
    for side in Side::BOTH {
        let home = fixture.of(side);
        for n in 0..DEPLOYMENTS {
            let path = home.join(format!("deployed/config-{n}.notify.json"));
            let signal = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            let signal: Value = serde_json::from_slice(&signal).expect("JSON");
            assert_eq!(signal["result"], n.to_string(), "{side:?}");
            assert_eq!(signal["deploy_status_code"], 0, "{side:?}");
        }
    }
}

/// What the templates became, by name.
fn rendered(home: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let files = fs::read_dir(home.join("out/etc")).expect("rendered").flatten();
    files.map(|file| (file.file_name(), fs::read(file.path()).expect("a file"))).collect()
}
