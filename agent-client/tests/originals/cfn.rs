//! heat-cfntools: what the originals call, write, print and send, beside what ours do.
//!
//! Both work below a directory of their own, with fake tools that note how they are called.
//! `tests/originals/cfn.py` moves the original there.

use std::ffi::OsString;
use std::process::{Command, ExitCode, Stdio};

use agent_client::compat::cfn::{get_metadata, hup, init, signal, symlinks};
use agent_client::machine::System;
use agent_client::store::{DocumentStore, StoredDocument};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{Place, Side, original};
use openstack_client::testing::{Answer, HttpServer};

const SECTION: &str = "AWS::CloudFormation::Init";
/// Runs of both per property: an original takes a tenth of a second to start.
const CASES: u32 = 8;

/// What a caller sees of a run.
#[derive(Debug, PartialEq)]
struct Seen {
    is_success: bool,
    stdout: String,
    /// How tools were called, in order.
    calls: Vec<String>,
    /// Files but for logs: name, content, mode.
    files: Vec<(String, String, u32)>,
}

fn place(side: Side) -> Place {
    let place = Place::new(side);
    for directory in ["var/log", "tools", "files"] {
        std::fs::create_dir_all(place.path(directory)).unwrap();
    }
    place
}

/// A tool that notes its name and arguments and goes on with these lines.
fn tool(place: &Place, path: &str, lines: &str) {
    let calls = place.path("calls");
    let script = format!("#!/bin/sh\necho \"${{0##*/}} $*\" >> {}\n{lines}\n", calls.display());
    place.write(path, script, 0o755);
}

fn search_path(place: &Place) -> OsString {
    let mut path = place.path("tools").into_os_string();
    path.push(":/usr/bin:/bin");
    path
}

fn run(place: &Place, name: &str, arguments: &[&str]) -> Seen {
    let (is_success, stdout) = match place.side {
        Side::Original => {
            let driver = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/originals/cfn.py");
            let output = Command::new(original("python"))
                .arg(driver)
                .arg(place.path(""))
                .arg(name)
                .args(arguments)
                .env("PATH", search_path(place))
                .current_dir(place.path(""))
                .stdin(Stdio::null())
                .output()
                .unwrap();
            (output.status.success(), output.stdout)
        }
        Side::Ours => {
            let system = System::below(&place.path(""), &search_path(place), "http://127.0.0.1:1");
            let words: Vec<OsString> = [name].iter().chain(arguments).map(OsString::from).collect();
            let mut stdout = Vec::new();
            let exit = match name {
                "cfn-init" => init::run(&words, &system),
                "cfn-hup" => hup::run(&words, &system),
                "cfn-get-metadata" => get_metadata::run(&words, &system, &mut stdout),
                "cfn-signal" => signal::run(&words, &system, signal::Patience::default()),
                "cfn-create-aws-symlinks" => symlinks::run(&words, &mut stdout),
                other => panic!("{other}"),
            };
            (exit == ExitCode::SUCCESS, stdout)
        }
    };
    let own = place.path("").display().to_string();
    let plain = |bytes: &[u8]| {
        // The original puts another slash behind the name of its place.
        String::from_utf8_lossy(bytes).replace(&format!("{own}/"), "PLACE/").replace(&own, "PLACE/")
    };
    let calls = std::fs::read(place.path("calls")).unwrap_or_default();
    let _ = std::fs::remove_file(place.path("calls"));
    let mut files = Vec::new();
    for directory in ["files", "var/cache", "opt"] {
        for (path, (content, mode)) in place.tree(directory) {
            files.push((path.display().to_string(), plain(&content), mode));
        }
    }
    files.sort();
    let mut calls: Vec<String> = plain(&calls).lines().map(str::to_owned).collect();
    calls.retain(|call| !call.is_empty());
    Seen { is_success, stdout: plain(&stdout), calls, files }
}

/// Prepares and runs the same on both sides; what is seen must be equal.
fn both(name: &str, arguments: &[&str], prepare: impl Fn(&Place)) -> Seen {
    let [theirs, ours] = [Side::Original, Side::Ours].map(|side| {
        let place = place(side);
        prepare(&place);
        let seen = run(&place, name, arguments);
        let log = std::fs::read_to_string(place.path(&format!("var/log/{name}.log")));
        (seen, log.unwrap_or_default())
    });
    assert_eq!(ours.0, theirs.0, "{name} {arguments:?}\ntheirs: {}\nours: {}", theirs.1, ours.1);
    ours.0
}

/// Metadata with this section, as `hook-cfn-init` hands it over.
fn hand_over(place: &Place, section: &Value) {
    let metadata = json!({SECTION: section}).to_string();
    place.write("var/cache/heat-cfntools/last_metadata", metadata, 0o600);
}

fn config(config: &Value) -> impl Fn(&Place) + use<> {
    let section = json!({"config": config});
    move |place| hand_over(place, &section)
}

#[test]
fn packages_are_asked_for_and_installed_by_the_same_calls() {
    let packages = json!({"new": [], "there": [], "newer": []});
    // Not apt: the original forgets PATH, and would start the one of this machine.
    for manager in ["yum", "dnf", "zypper", "rpm"] {
        for which in ["exit 0", "exit 1"] {
            let seen = both("cfn-init", &[], |place| {
                tool(place, "tools/which", which);
                tool(place, "tools/rpm", "[ \"$2\" = there ]");
                for name in ["yum", "dnf", "zypper"] {
                    tool(place, &format!("tools/{name}"), "");
                }
                // Nothing to install is what both make of URLs that are not there.
                let packages = if manager == "rpm" { json!({}) } else { packages.clone() };
                config(&json!({"packages": {manager: packages}}))(place);
            });
            assert_eq!(seen.calls.is_empty(), manager == "rpm", "{manager}");
        }
    }
    let seen = both("cfn-init", &[], |place| {
        for name in ["gem", "easy_install", "dnf", "rpm"] {
            tool(place, &format!("tools/{name}"), if name == "rpm" { "exit 1" } else { "" });
        }
        let packages = json!({
            "rubygems": {"rake": [], "chef": ["1.2", "1.1"]},
            "python": {"flask": []},
            "dnf": {"b": []},
        });
        config(&json!({"packages": packages}))(place);
    });
    assert_eq!(seen.calls.len(), 6, "{:?}", seen.calls);
}

#[test]
fn services_are_managed_by_the_same_calls() {
    for tools in [
        &["bin/systemctl", "sbin/service", "sbin/chkconfig"][..],
        &["sbin/service", "sbin/chkconfig"],
        &["sbin/service", "usr/sbin/update-rc.d"],
        &["usr/sbin/service", "usr/sbin/update-rc.d"],
    ] {
        for running in ["exit 0", "exit 3"] {
            let seen = both("cfn-init", &[], |place| {
                for path in tools {
                    tool(place, path, &format!("case \"$*\" in *status*) {running};; esac"));
                }
                let services = json!({
                    "sysvinit": {"a": {"enabled": true, "ensureRunning": "yes"}, "b": {"enabled": "no"}},
                    "systemd": {"c": {"ensureRunning": 0}, "d": {"enabled": 1, "ensureRunning": "False"}, "e": {}},
                });
                config(&json!({"services": services}))(place);
            });
            assert!(seen.is_success && seen.calls.len() >= 6, "{seen:?}");
        }
    }
}

fn name() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9]{0,4}"
}

fn id() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        (1000u32..2000).prop_map(|n| json!(n)),
        "[0-9]{4}".prop_map(Value::from)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn groups_and_users_are_made_by_the_same_calls(
        groups in prop::collection::vec((name(), id()), 0..4),
        users in prop::collection::vec((name(), id(), id(), prop::option::of(prop::collection::vec(name(), 0..3))), 0..4),
        taken in name(),
    ) {
        let groups: serde_json::Map<_, _> =
            groups.into_iter().map(|(name, gid)| (name, json!({"gid": gid}))).collect();
        let users: serde_json::Map<_, _> = users.into_iter().map(|(name, uid, home, groups)| {
            let mut user = json!({"uid": uid, "homeDir": home});
            if let Some(groups) = groups {
                user["groups"] = json!(groups);
            }
            (name, user)
        }).collect();
        let expected = groups.len() + users.len();
        let config = config(&json!({"groups": groups, "users": users}));
        let seen = both("cfn-init", &[], |place| {
            for name in ["groupadd", "useradd"] {
                tool(place, &format!("tools/{name}"), &format!("[ $1 != {taken} ] || exit 9"));
            }
            config(place);
        });
        prop_assert_eq!(seen.calls.len(), expected);
    }

    #[test]
    fn commands_run_in_the_same_order_with_the_same_results(
        commands in prop::collection::btree_map(
            name(),
            (0..5u8, prop::option::of(0..2u8), any::<bool>(), any::<bool>(), prop_oneof![Just(json!("true")), Just(json!(false)), Just(json!(1)), Just(Value::Null)]),
            1..5,
        ),
    ) {
        both("cfn-init", &[], |place| {
            let out = place.path("files/out").display().to_string();
            let mut all = serde_json::Map::new();
            for (name, (kind, test, has_cwd, has_env, ignore)) in &commands {
                let line = format!("echo {name} $A ${{HOME:+home}} >> {out}");
                // Without a directory of its own a command runs in that of the caller, which is not the same.
                let line = if *has_cwd { format!("{line}; pwd >> {out}") } else { line };
                let mut command = match kind {
                    0 => json!({"command": format!("{line}; exit 3")}),
                    1 => json!({"command": ["/bin/sh", "-c", line, "x"]}),
                    2 => json!({"command": ["/bin/sh", "-c", format!("{line}; exit $#"), "x", "a b", "$c"]}),
                    _ => json!({"command": line}),
                };
                if let Some(status) = test {
                    command["test"] = json!(format!("exit {status}"));
                }
                if *has_cwd {
                    command["cwd"] = json!(place.path("files"));
                }
                if *has_env {
                    command["env"] = json!({"A": "b c"});
                }
                if !ignore.is_null() {
                    command["ignoreErrors"] = ignore.clone();
                }
                all.insert(name.clone(), command);
            }
            config(&json!({"commands": all}))(place);
        });
    }

    #[test]
    fn files_come_out_byte_for_byte(
        files in prop::collection::btree_map(
            "[a-z]{1,3}(/[a-z]{1,3}){0,2}".prop_map(|name| format!("files/d{name}x")),
            ("[ -~üé\n]{0,30}", prop::option::of(prop::sample::select(vec!["000644", "0600", "755", "100640"])), any::<bool>()),
            1..5,
        ),
    ) {
        both("cfn-init", &[], |place| {
            let mut all = serde_json::Map::new();
            for (name, (content, mode, is_there)) in &files {
                // A name may not be file and directory at once.
                let name = name.replace('/', "-").replacen("files-", "files/new/", 1);
                if *is_there {
                    place.write(&name, "old and longer than what comes", 0o640);
                }
                let mut file = json!({"content": content});
                if let Some(mode) = mode {
                    file["mode"] = json!(mode);
                }
                all.insert(place.path(&name).display().to_string(), file);
            }
            config(&json!({"files": all}))(place);
        });
    }
}

#[test]
fn configsets_choose_the_same_configs() {
    for arguments in [
        &[][..],
        &["-c", "x"],
        &["--configsets", "x, default"],
        &["-c", "gone"],
        &["-c", "lost"],
        &["-c", "empty"],
    ] {
        for has_default in [true, false] {
            both("cfn-init", arguments, |place| {
                let out = place.path("files/out").display().to_string();
                let config = |name: &str| json!({"commands": {"c": {"command": format!("echo {name} >> {out}")}}});
                let mut sets = json!({"x": ["b"], "lost": ["b", "nothing"], "empty": []});
                if has_default {
                    sets["default"] = json!(["a", "b"]);
                }
                hand_over(place, &json!({"configSets": sets, "a": config("a"), "b": config("b")}));
            });
        }
    }
    for section in [json!({"config": {}}), json!({"other": {}}), json!({}), json!(null)] {
        both("cfn-init", &[], |place| hand_over(place, &section));
    }
    both("cfn-init", &["-s", "stack", "-r", "resource"], |_| {});
}

#[test]
fn metadata_is_looked_for_kept_and_printed_alike() {
    let metadata = json!({"foo": {"bar": {"fred.1": "abcd", "n": null, "é": [1, 2.5, true]}}, "b": false, "e": {}});
    let sources = [
        "var/cache/heat-cfntools/last_metadata_r",
        "var/cache/heat-cfntools/last_metadata",
        "var/lib/heat-cfntools/cfn-init-data",
    ];
    for first in 0..=sources.len() {
        for key in [
            "",
            "foo",
            "foo.bar",
            "foo.bar.'fred.1'",
            "foo.bar.n",
            "foo.bar.é",
            "foo.x",
            "b",
            "e",
            "b.c",
            "'foo'.bar",
            "foo.bar.fred.1",
        ] {
            let mut arguments = vec!["-s", "st", "-r", "r"];
            if !key.is_empty() {
                arguments.extend(["-k", key]);
            }
            // All keys once; otherwise only the places matter.
            if first > 0 && key != "foo" {
                continue;
            }
            let seen = both("cfn-get-metadata", &arguments, |place| {
                for (number, path) in sources.iter().enumerate().skip(first) {
                    let mut metadata = metadata.clone();
                    metadata["foo"]["from"] = json!(number);
                    place.write(path, metadata.to_string(), 0o600);
                }
            });
            assert!(seen.is_success);
        }
    }
    for arguments in [&["-s", "", "-r", "r"][..], &["-s", "s", "-r", ""], &["-s", "s"], &[]] {
        both("cfn-get-metadata", arguments, |_| {});
    }
}

#[test]
fn hooks_fire_on_the_same_changes() {
    let me = nix::unistd::User::from_uid(nix::unistd::Uid::effective()).unwrap().unwrap().name;
    let services = |wanted: &str| json!({SECTION: {"config": {"services": {"systemd": {"s": {"ensureRunning": wanted}}}}}});
    // What came last time, what comes now, whether the service runs.
    for (last, now, running) in [
        (None, json!({"a": 1}), true),
        (Some(json!({"a": 1})), json!({"a": 1}), true),
        (Some(json!({"a": 1})), json!({"a": 2}), true),
        (None, services("true"), false),
        (Some(services("true")), services("true"), false),
        (Some(services("true")), services("true"), true),
        (Some(services("true")), services("false"), false),
    ] {
        both("cfn-hup", &["-v"], |place| {
            tool(place, "bin/systemctl", if running { "" } else { "[ $1 != status ]" });
            for name in ["updated", "restarted", "both", "never"] {
                tool(place, &format!("tools/{name}"), "");
            }
            let credentials = place.path("credentials");
            place.write("credentials", "AWSAccessKeyId=a\nAWSSecretKey=b\n", 0o600);
            let main = format!("[main]\nstack=st\ncredential-file={}\n", credentials.display());
            let main = match place.side {
                Side::Original => main,
                // A path of the machine, which is the place.
                Side::Ours => main.replace(&place.path("").display().to_string(), "/"),
            };
            place.write("etc/cfn/cfn-hup.conf", main, 0o600);
            let hook = |name: &str, triggers: &str| {
                format!(
                    "[{name}]\ntriggers={triggers}\npath=Resources.r.Metadata\nrunas={me}\naction={name} a 'b c'\n"
                )
            };
            place.write(
                "etc/cfn/hooks.conf",
                hook("updated", "post.update") + &hook("restarted", "service.restarted"),
                0o600,
            );
            place.write(
                "etc/cfn/hooks.d/more",
                hook("both", "post.add,post.update,service.restarted")
                    + &hook("never", "post.delete"),
                0o600,
            );
            if let Some(last) = &last {
                for name in ["last_metadata", "last_metadata_r"] {
                    place.write(
                        &format!("var/cache/heat-cfntools/{name}"),
                        last.to_string(),
                        0o600,
                    );
                }
            }
            place.write("remote", now.to_string(), 0o600);
            let document = place.path("var/lib/agent-client/document");
            std::fs::create_dir_all(document.parent().unwrap()).unwrap();
            let pushed = StoredDocument::new(1, now.to_string().into(), 1);
            DocumentStore::new(document).save(&pushed).unwrap();
        });
    }
    for main in [None, Some("[main]\nstack=s\n"), Some("[main]\nstack=s\ncredential-file=/none\n")]
    {
        for hooks in [
            None,
            Some(""),
            Some("[h]\ntriggers=post.update\npath=Resources.r.Metadata\naction=x\n"),
        ] {
            let seen = both("cfn-hup", &[], |place| {
                if let Some(main) = main {
                    place.write("etc/cfn/cfn-hup.conf", main, 0o600);
                }
                if let Some(hooks) = hooks {
                    place.write("etc/cfn/hooks.conf", hooks, 0o600);
                }
            });
            assert!(!seen.is_success);
        }
    }
}

#[test]
fn signals_are_sent_alike() {
    let server = HttpServer::start(|_| Answer::new(200, ""));
    let url = server.url("/v1/wait?a=b%2Fc&Signature=x");
    for arguments in [
        &["-i", "x"][..],
        &["-s", "false", "-i", "x", "-r", "a \"b\" é", "-d", "{\"a\": [1]}"],
        &["-e", "0", "-s", "false", "-i", "x"],
        &["-e", "7", "--id", "x"],
        &["--exit-code=-1", "-i", "x"],
        &["-e", "", "-s", "no", "-i", "x"],
        &["--exit", "0", "-i", "x", "-s", "false", "-k"],
        &["--succ", "TRUE", "-i", "x"],
        &["-d", "", "-i", ""],
    ] {
        let arguments: Vec<&str> = arguments.iter().copied().chain([url.as_str()]).collect();
        let before = server.asked().len();
        both("cfn-signal", &arguments, |_| {});
        let asked = server.asked();
        let [theirs, ours] = &asked[before..] else { panic!("{asked:?}") };
        for asked in [theirs, ours] {
            assert_eq!(asked.header("content-type"), None);
        }
        assert_eq!(ours.text(), theirs.text(), "{arguments:?}");
        assert_eq!((&ours.method, &ours.target), (&theirs.method, &theirs.target));
    }
    both("cfn-signal", &[], |_| {});
}

#[test]
fn links_are_made_alike() {
    for arguments in [&[][..], &["--force"], &["-f"]] {
        for (source, target) in [
            ("source", "opt/aws/bin"),
            ("source", "source"),
            ("source", "source/file/x"),
            ("none", "opt"),
        ] {
            let mut seen = [Side::Original, Side::Ours].map(|side| {
                let place = place(side);
                place.write("source/cfn-a", "", 0o755);
                place.write("source/cfn-b", "", 0o755);
                place.write("source/other", "", 0o755);
                place.write("source/file", "", 0o644);
                place.write("opt/aws/bin/cfn-b", "theirs", 0o755);
                let (source, target) = (place.path(source), place.path(target));
                let mut all =
                    vec!["-s", source.to_str().unwrap(), "--target", target.to_str().unwrap()];
                all.extend(arguments);
                run(&place, "cfn-create-aws-symlinks", &all)
            });
            for seen in &mut seen {
                // In the order of the directory, and the system's reason for a failure.
                let mut lines: Vec<&str> =
                    seen.stdout.lines().map(|line| line.split(": ").next().unwrap()).collect();
                lines.sort_unstable();
                seen.stdout = lines.join("\n");
            }
            assert_eq!(seen[1], seen[0], "{source} {target} {arguments:?}");
        }
    }
}
