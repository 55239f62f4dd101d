//! The same files for both sides, and the commands that are started.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use system_tests::agent_binary;

use crate::command::Measured;
use crate::cycle;

/// Whose program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Ours,
    Original,
}

impl Side {
    pub(crate) const BOTH: [Self; 2] = [Self::Ours, Self::Original];
}

/// What is measured.
pub(crate) struct Row {
    pub(crate) title: &'static str,
    /// Name of the program.
    pub(crate) program: &'static str,
    /// Arguments; `@/` stands for the side's directory.
    pub(crate) arguments: &'static [&'static str],
    /// File for standard input, below the side's directory.
    pub(crate) stdin: Option<&'static str>,
}

/// Single starts: the least that each program can be asked to do.
pub(crate) fn starts() -> Vec<Row> {
    let row = |title, program, arguments| Row { title, program, arguments, stdin: None };
    let hook = |title, program, stdin| Row { title, program, arguments: &[], stdin: Some(stdin) };
    vec![
        row(
            "`os-collect-config --print`",
            "os-collect-config",
            &["--config-file", "@/occ.conf", "--cachedir", "@/cache", "--print", "local"],
        ),
        row("`os-refresh-config --print-phases`", "os-refresh-config", &["--print-phases"]),
        row(
            "`os-apply-config --key`",
            "os-apply-config",
            &["-m", "@/metadata.json", "--key", "name"],
        ),
        row("`dib-run-parts --list`", "dib-run-parts", &["--list", "@/base/configure.d"]),
        row("`heat-config`, nothing new", "55-heat-config", &[]),
        Row {
            title: "`heat-config-notify`, no transport",
            program: "heat-config-notify",
            arguments: &["@/script.json"],
            stdin: Some("signal.json"),
        },
        hook("`hook-script`, `exit 0`", "hook-script", "script.json"),
        hook("`hook-ansible`, the tool is `true`", "hook-ansible", "text.json"),
        hook("`hook-puppet`, the tool is `true`", "hook-puppet", "text.json"),
        hook("`hook-salt`, one state, with Salt", "hook-salt", "salt.json"),
        hook("`hook-cfn-init`, the tool is `true`", "hook-cfn-init", "files.json"),
        hook("`hook-apply-config`, the tool is `true`", "hook-apply-config", "text.json"),
        hook("`hook-json-file`, one file", "hook-json-file", "files.json"),
        hook("`hook-docker-cmd`, no containers", "hook-docker-cmd", "empty.json"),
        hook("`hook-docker-compose`, the tool is `true`", "hook-docker-compose", "compose.json"),
        hook("`hook-hiera`, one file", "hook-hiera", "hiera.json"),
        row("`50-heat-config-docker-cmd`, nothing to do", "50-heat-config-docker-cmd", &[]),
        row("`50-heat-config-docker-compose`, nothing to do", "50-heat-config-docker-compose", &[]),
        row("`heat-config-rebuild-deployed`, 10 deployments", "heat-config-rebuild-deployed", &[]),
        row("`99-refresh-completed`, nothing to signal", "99-refresh-completed", &[]),
        row("`cfn-init --help`", "cfn-init", &["--help"]),
        row("`cfn-signal --help`", "cfn-signal", &["--help"]),
        row("`cfn-hup --help`", "cfn-hup", &["--help"]),
        row("`cfn-get-metadata --help`", "cfn-get-metadata", &["--help"]),
        row(
            "`cfn-create-aws-symlinks`, 5 links",
            "cfn-create-aws-symlinks",
            &["--source", "@/cfn", "--target", "@/out/aws"],
        ),
    ]
}

/// Originals that are shell scripts with their directories built in.
const SCRIPTS: [&str; 2] = ["heat-config-rebuild-deployed", "99-refresh-completed"];
const BUILT_IN: [&str; 2] =
    ["/var/lib/heat-config/deployed", "/var/lib/os-apply-config-deployments/deployed"];
const CFN_TOOLS: [&str; 5] =
    ["cfn-create-aws-symlinks", "cfn-get-metadata", "cfn-hup", "cfn-init", "cfn-signal"];

/// A directory for each side.
pub(crate) struct Fixture {
    directory: tempfile::TempDir,
    originals: PathBuf,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
        let originals = root.join(".cache/originals");
        assert!(originals.exists(), "run tests/originals/setup first");
        let fixture = Self { directory: tempfile::tempdir().expect("a directory"), originals };
        for side in Side::BOTH {
            fixture.lay(side);
        }
        fixture
    }

    pub(crate) fn of(&self, side: Side) -> PathBuf {
        self.directory.path().join(match side {
            Side::Ours => "ours",
            Side::Original => "original",
        })
    }

    /// Where the side's programs are.
    fn programs(&self, side: Side) -> PathBuf {
        match side {
            Side::Ours => self.of(side).join("bin"),
            Side::Original => self.originals.join("bin"),
        }
    }

    fn lay(&self, side: Side) {
        let home = self.of(side);
        let conf = format!("[DEFAULT]\n[local]\npath = {}\n", home.join("local").display());
        write(&home.join("occ.conf"), &conf, 0o600);
        write(&home.join("local/data.json"), r#"{"local": true}"#, 0o600);
        write(&home.join("signal.json"), "{}", 0o600);
        let file = home.join("out/data.json");
        for (name, config) in [
            ("script", json!("#!/bin/sh\nexit 0\n")),
            ("text", json!("text")),
            ("empty", json!({})),
            ("compose", json!({"web": {"image": "web"}})),
            ("salt", json!({"done": {"test.nop": []}})),
            ("hiera", json!({"datafiles": {"common": {"a": [1, 2]}}})),
            ("files", json!({ file.to_string_lossy(): {"a": [1, 2]} })),
        ] {
            let entry = json!({"id": name, "name": name, "group": name, "inputs": [],
                "outputs": [], "options": {}, "creation_time": "2026-01-01T00:00:00Z",
                "config": config});
            write(&home.join(name).with_extension("json"), &entry.to_string(), 0o600);
        }
        if side == Side::Ours {
            fs::create_dir_all(self.programs(side)).expect("a directory");
            let done = Command::new(agent_binary())
                .args(["install-links".as_ref(), self.programs(side).as_os_str()])
                .output()
                .expect("agent-client");
            assert!(done.status.success(), "{done:?}");
        }
        if side == Side::Original {
            let deployed = home.join("deployed").display().to_string();
            for script in SCRIPTS {
                let text = fs::read_to_string(self.programs(side).join(script)).expect("a script");
                assert!(BUILT_IN.iter().any(|path| text.contains(path)), "another {script}");
                let text = BUILT_IN.iter().fold(text, |text, path| text.replace(path, &deployed));
                write(&home.join("scripts").join(script), &text, 0o755);
            }
        }
        for tool in CFN_TOOLS {
            write(&home.join("cfn").join(tool), "", 0o755);
        }
        let minion = format!(
            "root_dir: {}\nfile_client: local\nlog_level_logfile: quiet\n",
            home.join("salt-root").display()
        );
        write(&home.join("salt/minion"), &minion, 0o644);
        cycle::lay(&home, &self.programs(side));
    }

    /// As before the first run.
    pub(crate) fn reset(&self, side: Side) {
        for name in ["cache", "deployed", "out", "work", "outputs"] {
            let path = self.of(side).join(name);
            if path.exists() {
                fs::remove_dir_all(path).expect("removed");
            }
        }
        fs::create_dir(self.of(side).join("deployed")).expect("a directory");
    }

    pub(crate) fn command(&self, side: Side, row: &Row) -> Measured {
        let home = self.of(side);
        let place = |text: &str| match text.strip_prefix("@/") {
            Some(below) => home.join(below).into_os_string(),
            None => OsString::from(text),
        };
        let mut path = self.programs(side).into_os_string();
        path.push(":/usr/bin:/bin");
        let script = home.join("scripts").join(row.program);
        let program = if script.exists() { script } else { self.programs(side).join(row.program) };
        let mut environment: Vec<(OsString, OsString)> = [
            ("OS_REFRESH_CONFIG_BASE_DIR", "base"),
            ("OS_CONFIG_APPLIER_TEMPLATES", "templates"),
            ("OS_CONFIG_FILES", "metadata.json"),
            ("HEAT_SHELL_CONFIG", "out/heat-config"),
            ("HEAT_CONFIG_HOOKS", "hooks"),
            ("HEAT_CONFIG_DEPLOYED", "deployed"),
            ("HEAT_CONFIG_DEPLOYED_OLD", "deployed-old"),
            ("HEAT_SCRIPT_WORKING", "work"),
            ("HEAT_SCRIPT_OUTPUTS", "outputs"),
            ("HEAT_ANSIBLE_WORKING", "work"),
            ("HEAT_ANSIBLE_OUTPUTS", "outputs"),
            ("HEAT_PUPPET_WORKING", "work"),
            ("HEAT_PUPPET_OUTPUTS", "outputs"),
            ("HEAT_PUPPET_LOGDIR", "outputs"),
            ("HEAT_CFN_INIT_LAST_METADATA_DIR", "work"),
            ("HEAT_DOCKER_COMPOSE_WORKING", "work"),
            ("HEAT_PUPPET_HIERA_DATADIR", "out"),
            ("HEAT_HIERA_CONFIG", "out/hiera.yaml"),
            ("HEAT_SALT_WORKING", "work"),
            ("SALT_MINION_CONFIG", "salt/minion"),
            ("OS_APPLY_CONFIG_DEPLOYED", "deployed"),
            ("OUT", "out"),
        ]
        .map(|(name, below)| (name.into(), home.join(below).into_os_string()))
        .into();
        environment.push(("PATH".into(), path));
        for tool in ["ANSIBLE", "PUPPET", "CFN_INIT", "APPLY_CONFIG", "DOCKER", "DOCKER_COMPOSE"] {
            environment.push((format!("HEAT_{tool}_CMD").into(), "/bin/true".into()));
        }
        let salt = self.originals.join("bin/salt-call");
        environment.push(("HEAT_SALT_CMD".into(), salt.into_os_string()));
        // Without it hook-hiera asks os-apply-config, whose start has a row of its own.
        environment.push(("HEAT_HIERA_ELEMENT_CHECK_CMD".into(), "/bin/echo -n empty".into()));
        // os-collect-config ends with a traceback under C.UTF-8 before Python 3.12.
        environment.push(("LC_ALL".into(), "C".into()));
        // What a start of heat-config alone reads; the cycle makes its own.
        write(&home.join("out/heat-config"), "[]", 0o600);
        Measured {
            program,
            arguments: row.arguments.iter().map(|text| place(text)).collect(),
            environment,
            stdin: row.stdin.map(|name| home.join(name)),
        }
    }
}

/// Writes a file, with the directories above it.
pub(crate) fn write(path: &Path, content: &str, mode: u32) {
    fs::create_dir_all(path.parent().expect("a directory")).expect("made");
    fs::write(path, content).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("its mode");
}
