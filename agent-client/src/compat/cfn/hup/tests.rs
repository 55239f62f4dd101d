use std::os::unix::fs::PermissionsExt;

use bytes::Bytes;
use serde_json::{Value, json};

use super::*;
use crate::machine::testing::{recorder, root, taken};
use crate::store::{DocumentStore, StoredDocument};

struct Machine {
    root: tempfile::TempDir,
    calls: PathBuf,
    system: System,
}

impl Machine {
    fn new() -> Self {
        let (root, tools) = root();
        let mut path = tools.into_os_string();
        path.push(":/usr/bin:/bin");
        let system = System::below(root.path(), &path, "");
        let machine = Self { calls: root.path().join("calls"), root, system };
        machine.write("/etc/cfn/cfn-credentials", "AWSAccessKeyId=a\nAWSSecretKey=b\n");
        machine
            .write(CONFIG, "[main]\nstack=teststack\ncredential-file=/etc/cfn/cfn-credentials\n");
        machine
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.system.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn hook(&self, name: &str, triggers: &str, resource: &str, action: &str) -> String {
        let me = User::from_uid(Uid::effective()).unwrap().unwrap().name;
        let calls = self.calls.display();
        format!(
            "[{name}]\ntriggers={triggers}\npath=Resources.{resource}.Metadata\nrunas={me}\n\
             action=echo {name} >> {calls}; {action}\n"
        )
    }

    fn push(&self, value: &Value) {
        let path = self.system.document();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let document = StoredDocument::new(1, Bytes::from(value.to_string()), 1);
        DocumentStore::new(path.to_owned()).save(&document).unwrap();
    }

    fn hup(&self) -> bool {
        run(&["cfn-hup".into(), "-v".into()], &self.system) == ExitCode::SUCCESS
    }

    fn calls(&self) -> Vec<String> {
        taken(&self.calls)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.system.at("/var/log/cfn-hup.log")).unwrap()
    }
}

#[test]
fn a_push_fires_the_hooks_of_post_update_once() {
    let machine = Machine::new();
    machine.write(HOOKS, &machine.hook("one", "post.add,post.update", "r1", "true"));
    machine.write(
        "/etc/cfn/hooks.d/more",
        &(machine.hook("two", "post.update", "r2", "true")
            + &machine.hook("other", "post.delete", "r1", "true")),
    );
    machine.push(&json!({"version": 1}));
    assert!(machine.hup(), "{}", machine.log());
    assert_eq!(machine.calls(), ["one", "two"]);
    assert!(machine.hup());
    assert_eq!(machine.calls(), Vec::<String>::new(), "nothing has changed");
    machine.push(&json!({"version": 2}));
    assert!(machine.hup());
    assert_eq!(machine.calls(), ["one", "two"]);
}

#[test]
fn a_stopped_service_is_started_and_its_hooks_fired() {
    let machine = Machine::new();
    let systemctl = machine.system.at("/bin");
    recorder(&systemctl, "systemctl", &machine.calls, "[ $1 = start ]");
    machine.write(HOOKS, &machine.hook("restarted", "service.restarted", "r", "true"));
    let services = json!({"httpd": {"ensureRunning": "true"}, "off": {"ensureRunning": "false"}, "mysqld": {"ensureRunning": 1}});
    machine.push(&json!({SECTION: {"config": {"services": {"systemd": services}}}}));
    assert!(machine.hup(), "{}", machine.log());
    assert_eq!(
        machine.calls(),
        [
            "systemctl status httpd.service",
            "systemctl start httpd.service",
            "restarted",
            "systemctl status off.service",
            "systemctl status mysqld.service",
            "systemctl start mysqld.service",
            "restarted",
        ]
    );
    recorder(&systemctl, "systemctl", &machine.calls, "");
    assert!(machine.hup());
    assert_eq!(
        machine.calls(),
        ["httpd", "off", "mysqld"].map(|name| format!("systemctl status {name}.service"))
    );
}

#[test]
fn a_hook_that_fails_is_an_error_and_the_next_still_runs() {
    let machine = Machine::new();
    let stranger =
        machine.hook("stranger", "post.update", "r", "true").replace("runas=", "runas=no-such-");
    let hooks = machine.hook("bad", "post.update", "r", "echo why >&2; exit 9")
        + &stranger
        + &machine.hook("good", "post.update", "r", "true");
    machine.write(HOOKS, &hooks);
    machine.push(&json!({}));
    assert!(!machine.hup());
    assert_eq!(machine.calls(), ["bad", "good"]);
    let log = machine.log();
    assert!(log.contains("hook [bad]") && log.contains("exit status 9: why"), "{log}");
    assert!(log.contains("hook [stranger]: runas is \"no-such-"), "{log}");
}

#[test]
fn a_configuration_that_is_wrong_is_named() {
    let machine = Machine::new();
    let fails_with = |text: &str| {
        assert!(!machine.hup(), "{text}");
        let log = machine.log();
        assert!(log.contains(text), "{text} not in {log}");
    };
    fails_with("No hook files found at");
    machine.write(HOOKS, "");
    fails_with("No hooks were found");
    machine.write(HOOKS, &machine.hook("x", "post.update", "r", "true").replace("runas", "run-as"));
    fails_with("[x] has no option \"runas\"");
    machine
        .write(HOOKS, &machine.hook("x", "post.update", "r", "true").replace("Resources.r.", "r "));
    fails_with("must be like Resources.NAME.Metadata");
    machine.write(HOOKS, &machine.hook("x", "post.update", "r", "true"));
    fs::remove_file(machine.system.at("/etc/cfn/cfn-credentials")).unwrap();
    fails_with("invalid credentials file");
    machine.push(&json!({}));
    assert!(machine.hup(), "what was pushed needs no credentials: {}", machine.log());
    machine.write(CONFIG, "[main]\nstack=s\ncredential-file=/x\ninterval=often\n");
    fails_with("interval is \"often\"");
    fs::remove_file(machine.system.at(CONFIG)).unwrap();
    fails_with("Could not open main configuration at");
    drop(machine.root);
}

#[test]
fn passes_do_not_overlap() {
    let machine = Machine::new();
    machine.write(HOOKS, &machine.hook("slow", "post.update", "r", "sleep 0.3"));
    machine.push(&json!({"a": 1}));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| assert!(machine.hup()));
        }
    });
    assert_eq!(machine.calls(), ["slow"], "the others see that it is done");
    let mode = fs::metadata(machine.system.last_metadata(None)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
