use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::*;
use crate::machine::testing::{recorder, root, taken};
use openstack_client::testing::{Answer, HttpServer};

struct Machine {
    root: tempfile::TempDir,
    tools: PathBuf,
    calls: PathBuf,
    system: System,
}

impl Machine {
    fn new() -> Self {
        let (root, tools) = root();
        let mut path = tools.clone().into_os_string();
        path.push(":/usr/bin:/bin");
        let system = System::below(root.path(), &path, "");
        Self { calls: root.path().join("calls"), root, tools, system }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// A tool that is found by its name.
    fn tool(&self, name: &str, lines: &str) {
        recorder(&self.tools, name, &self.calls, lines);
    }

    /// A tool at a place of its own.
    fn tool_at(&self, path: &str, lines: &str) {
        let path = self.system.at(path);
        let name = path.file_name().unwrap().to_str().unwrap();
        recorder(path.parent().unwrap(), name, &self.calls, lines);
    }

    /// Applies what is under the section's name, and tells whether that went well.
    fn init_section(&self, section: &Value, arguments: &[&str]) -> bool {
        let last = self.system.last_metadata(None);
        fs::create_dir_all(last.parent().unwrap()).unwrap();
        fs::write(last, json!({SECTION: section}).to_string()).unwrap();
        self.init_by(arguments)
    }

    fn init_by(&self, arguments: &[&str]) -> bool {
        let arguments: Vec<OsString> =
            ["cfn-init"].iter().chain(arguments).map(OsString::from).collect();
        run(&arguments, &self.system) == ExitCode::SUCCESS
    }

    fn init(&self, config: &Value) -> bool {
        self.init_section(&json!({"config": config}), &[])
    }

    fn calls(&self) -> Vec<String> {
        taken(&self.calls)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.system.at("/var/log/cfn-init.log")).unwrap()
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn name(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }
}

/// Three packages that rpm does not know, for each manager with the words that upstream's tests expect.
#[test]
fn packages_of_yum_dnf_and_zypper_are_looked_up_and_installed_in_one_go() {
    let yum = "yum -y --showduplicates list available";
    let dnf = "dnf -y --showduplicates list available";
    for (manager, which, first, available, install) in [
        ("yum", "exit 0", Some("which yum"), yum, "yum -y install"),
        ("yum", "exit 1", Some("which yum"), dnf, "dnf -y --best install"),
        ("dnf", "exit 0", None, dnf, "dnf -y --best install"),
        ("zypper", "exit 0", None, "zypper -n --no-refresh search", "zypper -n install"),
    ] {
        let machine = Machine::new();
        machine.tool("which", which);
        machine.tool("rpm", "exit 1");
        for tool in ["yum", "dnf", "zypper"] {
            machine.tool(tool, "");
        }
        let packages = json!({"mysql-server": [], "httpd": [], "wordpress": []});
        assert!(machine.init(&json!({"packages": {manager: packages}})), "{}", machine.log());
        let mut expected: Vec<String> = first.map(str::to_owned).into_iter().collect();
        for package in ["mysql-server", "httpd", "wordpress"] {
            expected.extend([format!("rpm -q {package}"), format!("{available} {package}")]);
        }
        expected.push(format!("{install} mysql-server httpd wordpress"));
        assert_eq!(machine.calls(), expected);
    }
}

#[test]
fn a_version_decides_whether_to_leave_install_upgrade_or_downgrade() {
    let machine = Machine::new();
    // Installed: same-1.0-1, old-1.0-1, new-3.0-1.
    machine.tool(
        "rpm",
        "case \"$*\" in '-q same-1.0') exit 0;; \
         *queryformat*old) echo 1.0-1;; *queryformat*new) echo 3.0-1;; *) exit 1;; esac",
    );
    machine.tool("dnf", "");
    let packages = json!({"same": "1.0", "old": ["1.5", "1.10"], "new": ["2.0"], "none": ["1"]});
    assert!(machine.init(&json!({"packages": {"dnf": packages}})), "{}", machine.log());
    let installs: Vec<String> = machine
        .calls()
        .into_iter()
        .filter(|call| call.contains(" install ") || call.contains(" downgrade "))
        .collect();
    assert_eq!(installs, ["dnf -y --best install old-1.10 none-1", "dnf -y downgrade new-2.0"]);
}

#[test]
fn the_other_package_managers_come_in_their_order() {
    let machine = Machine::new();
    for tool in ["apt-get", "rpm", "gem", "easy_install", "dpkg"] {
        let lines = if tool == "apt-get" {
            "echo \"front $DEBIAN_FRONTEND\" >> \"${0%/*}/../calls\""
        } else {
            ""
        };
        machine.tool(tool, lines);
    }
    fs::write(machine.path("x.deb"), "deb").unwrap();
    let packages = json!({
        "python": {"flask": []},
        "rubygems": {"rake": [], "chef": ["1.2", "1.1"]},
        "apt": {"b": [], "a": []},
        "rpm": {"epel": "http://example.org/epel.rpm"},
        "dpkg": {"x": format!("file://{}", machine.name("x.deb"))},
    });
    assert!(machine.init(&json!({"packages": packages})), "{}", machine.log());
    let calls = machine.calls();
    assert!(calls[0].starts_with("dpkg -i /") && calls[0].ends_with(".deb"), "{calls:?}");
    assert_eq!(
        calls[1..],
        [
            "rpm -U --force http://example.org/epel.rpm",
            "apt-get -y install b a",
            "front noninteractive",
            "easy_install flask",
            "gem install -b -y rake",
            "gem install -b -y --version 1.2 chef",
        ]
    );
}

#[test]
fn a_package_that_cannot_be_had_fails_loudly_and_the_rest_is_still_done() {
    let machine = Machine::new();
    machine.tool("apt-get", "echo 'E: Unable to locate package nope' >&2; exit 100");
    machine.tool("rpm", "exit 1");
    machine.tool("dnf", "exit 1");
    let config = json!({
        "packages": {"apt": {"nope": []}, "dnf": {"gone": []}, "snap": {"x": []}, "zypper": {"-e": []}},
        "files": {machine.name("written"): {"content": "x"}},
    });
    assert!(!machine.init(&config));
    assert_eq!(machine.text("written"), "x");
    let log = machine.log();
    for failure in [
        "packages of apt: apt-get -y install nope: exit status 100: E: Unable to locate package nope",
        "package gone is not available by dnf",
        "packages: \"snap\" is not known",
        "\"-e\" is no name of a package",
        "4 steps have failed",
    ] {
        assert!(log.contains(failure), "{failure} not in {log}");
    }
    assert!(!machine.calls().iter().any(|call| call.contains("zypper")));
}

#[test]
fn groups_and_users_are_made_with_the_words_of_the_original() {
    let machine = Machine::new();
    machine.tool("groupadd", "case $1 in taken) exit 9;; bad) exit 4;; esac");
    machine.tool("useradd", "[ $1 != taken ] || exit 9");
    let config = json!({
        "groups": {"g1": {}, "g2": {"gid": "45"}, "g3": {"gid": 46}, "taken": {}},
        "users": {
            "u1": {},
            "u2": {"uid": "50", "groups": ["g1", "g2"], "homeDir": "/tmp"},
            "taken": {"uid": 51},
        },
    });
    assert!(machine.init(&config), "what is there already is no failure: {}", machine.log());
    assert_eq!(
        machine.calls(),
        [
            "groupadd g1",
            "groupadd g2 --gid 45",
            "groupadd g3 --gid 46",
            "groupadd taken",
            "useradd u1 --shell /sbin/nologin",
            "useradd u2 --uid 50 --home /tmp --groups g1,g2 --shell /sbin/nologin",
            "useradd taken --uid 51 --shell /sbin/nologin",
        ]
    );
    assert!(!machine.init(&json!({"groups": {"bad": {"gid": 1}, "-o": {}}})));
    assert_eq!(machine.calls(), ["groupadd bad --gid 1"]);
    assert!(
        machine.log().contains("group bad could not be created: its GID is taken; exit status 4")
    );
}

#[test]
fn files_have_content_owner_and_mode_and_are_replaced_as_a_whole() {
    let machine = Machine::new();
    let server = HttpServer::start(|asked| match asked.target.as_str() {
        "/there" => Answer::new(200, "fetched"),
        _ => Answer::new(404, "sorry"),
    });
    let old = machine.path("old");
    fs::write(&old, "old").unwrap();
    fs::set_permissions(&old, fs::Permissions::from_mode(0o640)).unwrap();
    let before = fs::metadata(&old).unwrap().ino();
    fs::write(machine.path("target"), "target").unwrap();
    std::os::unix::fs::symlink(machine.path("target"), machine.path("link")).unwrap();
    let me = nix::unistd::User::from_uid(nix::unistd::Uid::effective()).unwrap().unwrap();
    let config = json!({"files": {
        machine.name("new/dir/text"): {"content": "a\nü", "mode": "000600", "owner": me.name, "group": me.gid.as_raw().to_string()},
        machine.name("json"): {"content": {"b": [1, "ü"]}, "mode": "0755"},
        machine.name("old"): {"content": "new"},
        machine.name("fetched"): {"source": server.url("/there")},
        machine.name("link"): {"content": "no link"},
        machine.name("empty"): {"content": ""},
    }});
    assert!(machine.init(&config), "{}", machine.log());
    let mode = |name: &str| fs::metadata(machine.path(name)).unwrap().mode() & 0o7777;
    assert_eq!((machine.text("new/dir/text").as_str(), mode("new/dir/text")), ("a\nü", 0o600));
    assert_eq!(machine.text("json"), "{\n    \"b\": [\n        1,\n        \"\\u00fc\"\n    ]\n}");
    assert_eq!(mode("json"), 0o755);
    assert_eq!((machine.text("old").as_str(), mode("old")), ("new", 0o640));
    assert_ne!(fs::metadata(&old).unwrap().ino(), before, "replaced, not written into");
    assert_eq!(machine.text("fetched"), "fetched");
    assert_eq!(machine.text("target"), "target", "a link is replaced, not followed");
    assert_eq!(machine.text("empty"), "");
}

#[test]
fn a_file_that_cannot_be_written_keeps_the_old_one_and_fails() {
    let machine = Machine::new();
    let server = HttpServer::start(|_| Answer::new(404, "sorry"));
    let names = ["source", "owner", "mode", "nothing"];
    for name in names {
        fs::write(machine.path(name), "old").unwrap();
    }
    let config = json!({"files": {
        machine.name("source"): {"source": server.url("/gone?secret=1")},
        machine.name("owner"): {"content": "new", "owner": "no-such-user"},
        machine.name("mode"): {"content": "new", "mode": 420},
        machine.name("nothing"): {"mode": "000644"},
        "relative": {"content": "new"},
    }});
    assert!(!machine.init(&config));
    for name in names {
        assert_eq!(machine.text(name), "old");
    }
    let log = machine.log();
    for failure in [
        "/gone answered with status 404",
        "its owner \"no-such-user\" is no user here",
        "its mode is 420, must be octal digits in quotes",
        "it has neither \"content\" nor \"source\"",
        "file relative: it is no absolute path",
    ] {
        assert!(log.contains(failure), "{failure} not in {log}");
    }
    assert!(!log.contains("secret=1"));
    let left = fs::read_dir(machine.root.path()).unwrap().flatten();
    let left: Vec<_> = left.filter(|e| e.file_name().to_string_lossy().starts_with('.')).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn sources_are_unpacked_without_a_shell() {
    let machine = Machine::new();
    let server = HttpServer::start(|asked| match asked.target.as_str() {
        "/x/y'$(touch%20evil).gz" => {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            std::io::Write::write_all(&mut encoder, b"text").unwrap();
            Answer::new(200, encoder.finish().unwrap())
        }
        _ => Answer::new(404, ""),
    });
    let directory = machine.name("a 'quoted' $(dir)");
    let config = json!({"sources": {directory.clone(): server.url("/x/y'$(touch%20evil).gz")}});
    assert!(machine.init(&config), "{}", machine.log());
    let names: Vec<_> =
        fs::read_dir(&directory).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(names, ["y'$(touch%20evil)"]);
    let bad = json!({"sources": {
        machine.name("b"): server.url("/gone.tgz"),
        machine.name("c"): "http://example.org/x.sh",
        machine.name("d"): 5,
    }});
    assert!(!machine.init(&bad));
    let log = machine.log();
    for failure in ["/gone.tgz answered with status 404", "is of no known kind", "it must be a URL"]
    {
        assert!(log.contains(failure), "{failure} not in {log}");
    }
}

#[test]
fn commands_run_by_name_with_their_test_directory_and_environment() {
    let machine = Machine::new();
    fs::create_dir(machine.path("cwd")).unwrap();
    let out = machine.name("out");
    let config = json!({"commands": {
        "03_list": {"command": ["/bin/sh", "-c", "echo \"$0|$1\" >> \"$OUT\"", "a b", "$c"], "env": {"OUT": out}},
        "01_shell": {"command": format!("pwd >> {out}"), "cwd": machine.name("cwd")},
        "02_env": {"command": "echo \"${HOME-none} $N $B\" >> $OUT", "env": {"OUT": out, "N": 5, "B": true}},
        "04_no": {"command": format!("echo never >> {out}"), "test": "false"},
        "05_yes": {"command": format!("echo yes >> {out}"), "test": "[ \"$T\" = 1 ]", "env": {"T": "1"}},
        "06_ignored": {"command": "exit 3", "ignoreErrors": "true"},
    }});
    assert!(machine.init(&config), "{}", machine.log());
    let cwd = machine.path("cwd").canonicalize().unwrap();
    assert_eq!(machine.text("out"), format!("{}\nnone 5 true\na b|$c\nyes\n", cwd.display()));
}

#[test]
fn a_failing_command_stops_what_comes_after_it() {
    let machine = Machine::new();
    machine.tool_at("/bin/systemctl", "");
    let out = machine.name("out");
    let config = |ignore: &str| {
        json!({
            "commands": {
                "1": {"command": format!("echo 1 >> {out}; echo broken >&2; exit 7"), "ignoreErrors": ignore},
                "2": {"command": format!("echo 2 >> {out}")},
            },
            "services": {"systemd": {"s": {"enabled": true}}},
        })
    };
    assert!(!machine.init(&config("false")));
    assert_eq!(machine.text("out"), "1\n");
    assert_eq!(machine.calls(), Vec::<String>::new());
    assert!(
        machine
            .log()
            .contains("command 1 has failed, so nothing after it was done: exit status 7: broken")
    );
    assert!(machine.init(&config("yes")));
    assert_eq!(machine.text("out"), "1\n1\n2\n");
    for bad in [
        json!({"command": ["/no/such/program"]}),
        json!({"command": "true", "cwd": "/no/such/directory"}),
        json!({"command": ""}),
        json!({"test": "true"}),
        json!({}),
        json!({"command": "true", "env": ["a"]}),
    ] {
        assert!(!machine.init(&json!({"commands": {"x": bad}})), "{bad}");
    }
}

/// The words that upstream's tests expect, for each of the three ways to manage services.
#[test]
fn services_are_managed_by_what_the_machine_has() {
    type Words = fn(&str, &str) -> String;
    let systemd: Words = |verb, service| format!("systemctl {verb} {service}.service");
    let redhat: Words = |verb, service| match verb {
        "enable" => format!("chkconfig {service} on"),
        "disable" => format!("chkconfig {service} off"),
        _ => format!("service {service} {verb}"),
    };
    let debian: Words = |verb, service| match verb {
        "enable" | "disable" => format!("update-rc.d {service} {verb}"),
        _ => format!("service {service} {verb}"),
    };
    for (tools, words) in [
        (&["/bin/systemctl", "/sbin/service", "/sbin/chkconfig"][..], systemd),
        (&["/sbin/service", "/sbin/chkconfig"], redhat),
        (&["/usr/sbin/service", "/usr/sbin/update-rc.d"], debian),
    ] {
        for manager in ["sysvinit", "systemd"] {
            for (on, is_running) in
                [("true", false), ("true", true), ("false", true), ("false", false)]
            {
                let machine = Machine::new();
                let status = if is_running { 0 } else { 3 };
                for tool in tools {
                    machine
                        .tool_at(tool, &format!("case \"$*\" in *status*) exit {status};; esac"));
                }
                let services = json!({manager: {
                    "mysqld": {"enabled": on, "ensureRunning": on},
                    "httpd": {"enabled": on, "ensureRunning": on},
                }});
                assert!(machine.init(&json!({"services": services})), "{}", machine.log());
                let mut expected = Vec::new();
                for service in ["mysqld", "httpd"] {
                    expected.push(words(if on == "true" { "enable" } else { "disable" }, service));
                    expected.push(words("status", service));
                    match (on, is_running) {
                        ("true", false) => expected.push(words("start", service)),
                        ("false", true) => expected.push(words("stop", service)),
                        _ => {}
                    }
                }
                assert_eq!(machine.calls(), expected);
            }
        }
    }
}

#[test]
fn a_service_that_does_not_start_is_a_failure() {
    let machine = Machine::new();
    machine.tool_at(
        "/bin/systemctl",
        "case $1 in enable) exit 0;; esac; echo 'no such unit' >&2; exit 5",
    );
    let services = json!({"systemd": {"x.timer": {"enabled": true, "ensureRunning": true}}, "upstart": {"y": {}}});
    assert!(!machine.init(&json!({"services": services})));
    assert_eq!(
        machine.calls(),
        ["systemctl enable x.timer", "systemctl status x.timer", "systemctl start x.timer"]
    );
    let log = machine.log();
    assert!(log.contains("exit status 5: no such unit"), "{log}");
    assert!(log.contains("services: \"upstart\" is not known"), "{log}");
}

#[test]
fn configsets_choose_the_configs() {
    let machine = Machine::new();
    let out = machine.name("out");
    let config =
        |name: &str| json!({"commands": {"x": {"command": format!("echo {name} >> {out}")}}});
    let section = json!({
        "configSets": {"default": ["a", {"ConfigSet": "more"}], "more": ["b", "c"], "gone": ["nothing"]},
        "a": config("a"), "b": config("b"), "c": config("c"),
    });
    for (arguments, expected) in [
        (&[][..], "a\nb\nc\n"),
        (&["-c", "more"], "b\nc\n"),
        (&["--configsets=more, default"], "b\nc\na\nb\nc\n"),
    ] {
        let _ = fs::remove_file(&out);
        assert!(machine.init_section(&section, arguments), "{}", machine.log());
        assert_eq!(machine.text("out"), expected);
    }
    assert!(!machine.init_section(&section, &["-c", "unknown"]));
    assert!(!machine.init_section(&section, &["-c", "gone"]));
    assert!(machine.log().contains("the metadata has no config \"nothing\""));
}

#[test]
fn metadata_that_cannot_be_applied_is_an_error() {
    let machine = Machine::new();
    assert!(!machine.init_by(&["-s", "stack", "-r", "resource"]));
    assert!(machine.log().contains("Unable to read any valid metadata!"));
    for section in [json!(null), json!({}), json!("text"), json!({"other": {}})] {
        assert!(!machine.init_section(&section, &[]), "{section}");
    }
    assert!(!machine.init(&json!({"files": ["a"], "commands": "x", "packages": {"apt": 5}})));
    let log = machine.log();
    assert!(
        log.contains("files must be a map of names") && log.contains("commands must be a map"),
        "{log}"
    );
    assert!(machine.init(&json!({"files": null, "commands": {}, "packages": [], "users": ""})));
    let log_mode = fs::metadata(machine.system.at("/var/log/cfn-init.log")).unwrap().mode();
    assert_eq!(log_mode & 0o777, 0o600);
}

#[test]
fn metadata_is_asked_of_heat_when_there_are_credentials() {
    let machine = Machine::new();
    let out = machine.name("out");
    let metadata =
        json!({SECTION: {"config": {"files": {out: {"content": "remote"}}}}}).to_string();
    let server = HttpServer::start(move |asked| {
        let is_signed =
            asked.target.contains("LogicalResourceId=r&") && asked.target.contains("&Signature=");
        let escaped = metadata.replace('&', "&amp;").replace('<', "&lt;");
        let text = format!(
            "<DescribeStackResourceResponse><DescribeStackResourceResult><StackResourceDetail><Metadata>{escaped}\
             </Metadata></StackResourceDetail></DescribeStackResourceResult></DescribeStackResourceResponse>"
        );
        Answer::new(if is_signed { 200 } else { 403 }, text)
    });
    let hint = machine.system.at("/var/lib/heat-cfntools/cfn-metadata-server");
    fs::create_dir_all(hint.parent().unwrap()).unwrap();
    fs::write(&hint, server.url("")).unwrap();
    let arguments = ["-s", "st", "-r", "r", "--access-key", "a", "--secret-key", "the-secret"];
    assert!(machine.init_by(&arguments), "{}", machine.log());
    assert_eq!(machine.text("out"), "remote");
    assert!(
        server.asked()[0].target.starts_with("/v1/?AWSAccessKeyId=a&Action=DescribeStackResource&")
    );
    assert!(Path::new(&machine.system.last_metadata(Some("r"))).exists());
    fs::write(&hint, "http://127.0.0.1:1").unwrap();
    assert!(!machine.init_by(&arguments), "a copy is no answer where Heat was to be asked");
    assert!(!machine.log().contains("the-secret"));
}
