//! The hooks of heat-agents with a fake tool that records how it was called.

use std::fs::File;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::generate::{Chance, object};
use crate::{Place, both};

/// Writes arguments, directory, standard input, environment and the files it is given into a file of its
/// own below `all/record`, then does what `FAKE` says.
const TOOL: &str = r#"#!/bin/sh
mkdir -p "$RECORD"
n=0; while [ -e "$RECORD/$n" ]; do n=$((n+1)); done
{
  for word in "$0" "$@"; do printf '<%s>\n' "$word"; done
  pwd; printf 'stdin <%s>\n' "$(cat)"
  env | grep -v -e '^PWD=' -e '^OLDPWD=' -e '^_=' -e '^SHLVL=' | sort
  for word in "$@"; do if [ -f "${word#@}" ]; then stat -c '%n %a' "${word#@}"; cat "${word#@}"; fi; done
} >"$RECORD/$n"
eval "$FAKE"
"#;

/// One hook, one entry; PLACE in the entry and in variables is where it runs.
struct Case<'c> {
    hook: &'c str,
    entry: String,
    variables: &'c [(&'c str, &'c str)],
    fake: &'c str,
    files: &'c [(&'c str, &'c str)],
}

impl Case<'_> {
    fn run(&self, what: &str) -> Output {
        let prepare = |place: &Place| {
            let own = place.path("").display().to_string();
            let own = own.trim_end_matches('/');
            place.write("entry.json", self.entry.replace("PLACE", own), 0o644);
            place.write("all/tool", TOOL, 0o755);
            for (name, content) in self.files {
                place.write(name, content.replace("PLACE", own), 0o600);
            }
        };
        let run = |place: &Place| {
            let own = place.path("").display().to_string();
            let own = own.trim_end_matches('/');
            let hook = place.command(self.hook);
            // Files that the originals leave to the umask are private here, which ours always are.
            let mut command = Command::new("/bin/sh");
            command.args(["-c", "umask 077; exec \"$0\""]).arg(hook.get_program()).env_clear();
            for (name, value) in hook.get_envs() {
                command.env(name, value.unwrap());
            }
            command.env("RECORD", place.path("all/record")).env("FAKE", self.fake);
            for (name, value) in self.variables {
                command.env(name, value.replace("PLACE", own));
            }
            command.current_dir(place.path(""));
            command.stdin(File::open(place.path("entry.json")).unwrap());
            command
        };
        both(&format!("{} {what}: {}", self.hook, self.entry), prepare, run, "all")
    }
}

fn run(hook: &str, variables: &[(&str, &str)], entry: Value, fake: &str) -> Output {
    Case { hook, entry: entry.to_string(), variables, fake, files: &[] }.run(fake)
}

/// What tools do: print, fail, die, write outputs.
const FAKES: [&str; 7] = [
    "echo out; echo err >&2",
    "printf 'no line end \u{fc}'; exit 3",
    "kill -9 $$",
    "printf one >PLACE/all/o/the-id.first; printf 'two\\r\\nlines\\r' >PLACE/all/o/the-id.second",
    "printf '\\377 \\303'; printf '\\360' >&2",
    "head -c 200000 /dev/zero | tr '\\0' x",
    "exit 2",
];

fn inputs() -> Value {
    json!([{"name": "foo", "value": "b a'r\"\n"}, {"name": "dict", "value": {"k": [1, "\u{fc}", null]}},
        {"name": "list", "type": "CommaDelimitedList", "value": ["a", 1.5, true]}, {"name": "none"},
        {"name": "foo", "value": "again"}])
}

fn outputs() -> Value {
    json!([{"name": "first"}, {"name": "second", "error_output": true}, {"name": "third"}])
}

#[test]
fn scripts_run_alike() {
    let variables =
        [("HEAT_SCRIPT_WORKING", "PLACE/all/w"), ("HEAT_SCRIPT_OUTPUTS", "PLACE/all/o")];
    for fake in FAKES {
        let fake = fake.replace("PLACE/all/o/the-id", "$heat_outputs_path");
        let entry = json!({"id": "the-id", "inputs": inputs(), "outputs": outputs(),
            "config": TOOL, "options": {}});
        run("hook-script", &variables, entry, &fake);
    }
    for entry in [
        json!({"id": "i", "inputs": [], "config": "#!/bin/sh\necho \u{fc}"}),
        json!({"id": "i", "inputs": [], "outputs": null, "config": "#!/bin/sh -e\nfalse\n"}),
        json!({"id": "i", "inputs": [{"name": "heat_outputs_path", "value": "mine"}],
            "config": "#!/bin/sh\necho $heat_outputs_path"}),
    ] {
        run("hook-script", &variables, entry, "");
    }
}

#[test]
fn playbooks_run_alike() {
    let variables = [
        ("HEAT_ANSIBLE_WORKING", "PLACE/all/w"),
        ("HEAT_ANSIBLE_OUTPUTS", "PLACE/all/o"),
        ("HEAT_ANSIBLE_CMD", "PLACE/all/tool"),
    ];
    let entry = |options: Value| {
        json!({"id": "the-id", "inputs": inputs(), "outputs": outputs(), "options": options,
            "config": "---\n- hosts: all # \u{fc}\n"})
    };
    for fake in FAKES {
        let fake = fake.replace("PLACE/all/o", "$HEAT_ANSIBLE_OUTPUTS");
        run("hook-ansible", &variables, entry(json!({})), &fake);
    }
    for options in [
        json!({"tags": "a,b", "skip_tags": "c", "modulepath": "/m:/n"}),
        json!({"tags": "", "skip_tags": "c", "modulepath": null}),
        json!({"inventory": "below/hosts", "callback_plugins": "/plugins"}),
        json!({"inventory": "/absolute", "tags": "x y"}),
    ] {
        run("hook-ansible", &variables, entry(options), "");
    }
    let all = [&variables[..], &[("HEAT_ANSIBLE_INVENTORY", "localhost x=1,")]].concat();
    run("hook-ansible", &all, entry(json!({})), "");
    let mut typed = entry(json!({}));
    typed["inputs"] = json!([{"name": "n", "type": "Number", "value": 5}, {"name": "b", "value": true},
        {"name": "s", "type": "String", "value": null}, {"name": "heat_config_id", "value": "mine"},
        {"name": "heat_outputs_path", "value": "mine"}, {"name": "f", "value": 1e16}]);
    run("hook-ansible", &variables, typed, "");
}

#[test]
fn manifests_run_alike() {
    let variables = [
        ("HEAT_PUPPET_WORKING", "PLACE/all/w"),
        ("HEAT_PUPPET_OUTPUTS", "PLACE/all/o"),
        ("HEAT_PUPPET_LOGDIR", "PLACE/all/log"),
        ("HEAT_PUPPET_HIERA_DATADIR", "PLACE/all/hiera"),
        ("HEAT_PUPPET_CMD", "PLACE/all/tool"),
    ];
    let entry = |options: Value| {
        json!({"id": "the-id", "name": "the name", "creation_time": "2026-11-22T10:20:30",
            "inputs": [{"name": "foo", "value": "b a'r"}, {"name": "fqdn", "value": "mine"}],
            "outputs": outputs(), "options": options, "config": "notice('\u{fc}')\n"})
    };
    // What is not UTF-8 breaks the original.
    for fake in FAKES.into_iter().filter(|fake| !fake.contains("\\377")) {
        let fake = fake.replace("PLACE/all/o", "$HEAT_PUPPET_OUTPUTS");
        run("hook-puppet", &variables, entry(json!({})), &fake);
    }
    for options in [
        json!({"enable_debug": true, "enable_verbose": "yes", "tags": "a,b", "modulepath": "/m"}),
        json!({"enable_hiera": true, "enable_facter": false}),
        json!({"enable_hiera": 1, "enable_facter": 0, "enable_debug": "", "tags": ""}),
    ] {
        run("hook-puppet", &variables, entry(options), "");
    }
    let mut typed = entry(json!({"enable_hiera": true, "enable_facter": false}));
    typed["inputs"] = inputs();
    run("hook-puppet", &variables, typed, "");
    let mut empty = entry(json!({}));
    empty["config"] = "".into();
    run("hook-puppet", &variables, empty, "");
}

#[test]
fn cfn_init_and_apply_config_are_called_alike() {
    let variables = [
        ("HEAT_CFN_INIT_LAST_METADATA_DIR", "PLACE/all/cfn"),
        ("HEAT_CFN_INIT_CMD", "PLACE/all/tool"),
        ("HEAT_APPLY_CONFIG_CMD", "PLACE/all/tool"),
    ];
    for config in [
        json!({"config": {"files": {"/\u{fc}": {"content": 1.5}}}}),
        json!("{\"b\": [1, 2], \"a\": {}}"),
        json!({}),
    ] {
        run("hook-cfn-init", &variables, json!({"config": config}), "cat PLACE/all/cfn/* >&2");
    }
    run("hook-cfn-init", &variables, json!({}), "");
    for fake in &FAKES[..3] {
        run("hook-cfn-init", &variables, json!({"config": {"a": 1}}), fake);
        let (hook, variables) = ("hook-apply-config", &variables[..]);
        // The tool of the original gets the entry, of which it makes nothing.
        Case { hook, entry: String::new(), variables, fake, files: &[] }.run(fake);
    }
}

#[test]
fn data_by_chance_becomes_the_same_json_and_hiera_files() {
    for seed in 0..4 {
        let chance = &mut Chance(seed);
        let mut data = || Value::Object(object(chance, 3));
        let config =
            json!({"PLACE/all/one": data(), "PLACE/all/deep/two.json": [data(), 1, null, "x"]});
        run("hook-json-file", &[], json!({"config": config}), "");
        let config = json!({"hierarchy": ["b", "a/%{::fqdn}", 5],
            "datafiles": {"b": data(), "a": [data()], "empty": {}}});
        let variables = [
            ("HEAT_PUPPET_HIERA_DATADIR", "PLACE/all/hiera"),
            ("HEAT_HIERA_CONFIG", "PLACE/all/hiera.yaml"),
            ("HEAT_HIERA_ELEMENT_CHECK_CMD", "PLACE/all/tool some words"),
        ];
        run("hook-hiera", &variables, json!({"config": config}), "echo empty");
        run("hook-hiera", &variables, json!({"config": {"hierarchy": []}}), "echo 'empty '");
        let none = [&variables[..2], &[("HEAT_HIERA_ELEMENT_CHECK_CMD", "/no/such/tool")]].concat();
        run("hook-hiera", &none, json!({"config": {"datafiles": {"x": data()}}}), "");
    }
}

/// A docker that knows containers by name; it has nothing to say on standard output but answers.
const DOCKER: &str = "case $1 in inspect) exit 1;; ps) echo web-1; echo web-2;; \
    *) echo \"did $1\" >&2; case \"$*\" in *fails*) exit 7;; esac;; esac";

#[test]
fn containers_are_started_alike() {
    let variables = [("HEAT_DOCKER_CMD", "PLACE/all/tool")];
    let deployment = |config: Value| {
        json!({"id": "the-id", "name": "n", "config": config, "inputs": [
            {"name": "deploy_stack_id", "value": "s/1"}, {"name": "deploy_action", "value": "CREATE"}]})
    };
    let config = json!({
        "web": {"image": "i", "start_order": 2, "command": "run  it now", "net": "host", "pid": "host",
            "privileged": true, "restart": "on-failure:3", "user": "1000:1000", "detach": false,
            "volumes": ["/a:/b", "", "c:/d:ro"], "environment": ["A=b c", "", "D=\u{fc}"],
            "env_file": ["x", "", "y"]},
        "fails": {"image": "j", "start_order": 1, "privileged": false, "env_file": "one"},
        "expected-fails": {"image": "k", "exit_codes": [0, 7], "start_order": 3},
        "ls": {"action": "exec", "command": ["web", "ls", "-l /"], "user": "root", "privileged": "True",
            "start_order": 4},
        "first": {"command": null},
    });
    run("hook-docker-cmd", &variables, deployment(config), DOCKER);
    let yaml = "a:\n  image: x\n  command: [sleep, '5']\nb: {<<: {image: y}, start_order: -1}\n";
    run("hook-docker-cmd", &variables, deployment(yaml.into()), DOCKER);
    run("hook-docker-cmd", &variables, deployment("".into()), DOCKER);
    let mut deleted = deployment(json!({"a": {"image": "x"}}));
    deleted["inputs"][1]["value"] = "DELETE".into();
    run("hook-docker-cmd", &variables, deleted, DOCKER);
    let without = json!({"id": "i", "config": {"ls": {"action": "exec", "command": "web ls"}}});
    run("hook-docker-cmd", &variables, without, "case $1 in ps) exit 1;; esac");
}

#[test]
fn containers_are_removed_and_renamed_alike() {
    let docker = "case \"$*\" in *'{{.Label \"config_id\"}}') printf 'gone\\ngone\\nkept\\n';; \
        *config_id=gone) printf '11\\n22\\n';; 'rm -f 11') exit 1;; \
        *container_name*) printf 'a-1 a\\nb b\\nc-1 b\\nd\\n\\nz-1 z\\n';; esac";
    let list = json!([{"id": "kept", "group": "docker-cmd"}, {"id": "gone", "group": "script"}]);
    let variables =
        [("HEAT_DOCKER_CMD", "PLACE/all/tool"), ("HEAT_SHELL_CONFIG", "PLACE/all/list")];
    for (list, fake) in [
        (list.to_string(), docker),
        // Of several deployments the original removes any one first.
        ("[]".into(), &docker.replace("\\nkept", "")),
        ("".into(), docker),
        ("{".into(), docker),
        ("5".into(), docker),
        ("[{\"id\": \"x\"}]".into(), docker),
        (list.to_string(), "exit 1"),
    ] {
        let files = [("all/list", &*list)];
        let (hook, variables) = ("50-heat-config-docker-cmd", &variables[..]);
        Case { hook, entry: String::new(), variables, fake, files: &files }.run(&list);
    }
    let missing = [("HEAT_SHELL_CONFIG", "PLACE/none"), variables[0]];
    run("50-heat-config-docker-cmd", &missing, json!(null), docker);
}

#[test]
fn projects_are_started_alike() {
    let variables = [
        ("HEAT_DOCKER_COMPOSE_WORKING", "PLACE/all/w"),
        ("HEAT_DOCKER_COMPOSE_CMD", "PLACE/all/tool"),
    ];
    let config =
        "web:\n  image: x\n  env_file: [./a.env, ./deep/b.env]\ndb:\n  env_file: ./c.env\n";
    let files = "[{'file_name': './a.env', 'content': 'A=\"1\"\\n\\u00fc'}, \
                 {'file_name': './c.env', 'content': \"C='2'\"}]";
    for fake in &FAKES[..3] {
        for env_files in [files, "[{\"file_name\": \"./deep/b.env\", \"content\": \"x\\ny\"}]", ""]
        {
            let entry = json!({"name": "the name", "config": config,
                "inputs": [{"name": "env_files", "value": env_files}]})
            .to_string();
            // What 50-heat-config-docker-compose has written before.
            let project = [("all/w/the name/docker-compose.yml", config)];
            let (hook, variables) = ("hook-docker-compose", &variables[..]);
            Case { hook, entry, variables, fake, files: &project }.run(env_files);
        }
    }
}

#[test]
fn projects_by_chance_are_written_and_ended_alike() {
    let variables = [
        ("HEAT_DOCKER_COMPOSE_WORKING", "PLACE/all/w"),
        ("HEAT_DOCKER_COMPOSE_CMD", "PLACE/all/tool"),
        ("HEAT_SHELL_CONFIG", "PLACE/all/list"),
    ];
    let project = |name: &str, config: Value| json!({"name": name, "group": "docker-compose", "config": config, "inputs": {}});
    let old =
        [("all/w/old/docker-compose.yml", "old"), ("all/w/p0/docker-compose.yml", "long old")];
    let run = |list: &str, fake: &str| {
        // Of several projects the original ends any one first.
        let old = if list == "[]" { &old[..1] } else { &old };
        let files = [old, &[("all/list", list)]].concat();
        let (hook, variables) = ("50-heat-config-docker-compose", &variables[..]);
        Case { hook, entry: String::new(), variables, fake, files: &files }.run(list);
    };
    for seed in 0..8 {
        let chance = &mut Chance(seed);
        let mut list: Vec<_> = (0..4)
            .map(|n| project(&format!("p{n}"), Value::Object(yaml_object(chance, 3))))
            .collect();
        list.push(project("text", "a: [b,\n c]\n".into()));
        list.push(json!({"name": "other", "group": "script"}));
        run(&Value::from(list).to_string(), "exit 3");
    }
    for list in ["", "{", "5", "[{\"group\": \"script\"}]"] {
        run(list, "");
    }
    run("[]", "echo noise");
}

/// As `object`, with texts at which writers of YAML stumble.
fn yaml_object(chance: &mut Chance, depth: usize) -> serde_json::Map<String, Value> {
    let mut object = object(chance, depth);
    let words = [
        "word",
        " ",
        "  ",
        ": ",
        " #",
        "\u{fc}",
        "'",
        "\"",
        "\n",
        "- ",
        "\\",
        "\t",
        "\u{2028}",
        "?",
        "\u{1f600}",
        "a-rather-long-word-without-spaces",
    ];
    let odd = [
        "yes",
        "No",
        "on",
        "~",
        "null",
        "1",
        "-1",
        "0x1f",
        "0b1",
        "017",
        "089",
        "1_000",
        "1.5",
        "1e5",
        "1.0e+5",
        ".5",
        ".inf",
        "-.INF",
        ".nan",
        "1:30",
        "1:30.5",
        "2026-01-01",
        "2026-1-1 1:02:03",
        "=",
        "<<",
        "---",
        "--- a",
        "...",
        "-",
        "- a",
        "-a",
        "?",
        "? a",
        ":",
        "a:",
        "a: b",
        ":a",
        "a #b",
        "a#b",
        "#",
        "&a",
        "*a",
        "!a",
        "%a",
        "@a",
        "`a",
        "[a",
        "{a",
        "a,b",
        ",a",
        "|",
        ">",
        "0",
        "+1",
        "+",
        "0o7",
        "1,000",
        "22:22",
        "8000:8000",
        "\u{85}",
        "\u{feff}",
        "\u{7f}",
        "",
        " a",
        "a ",
        "\n",
        "a\n",
        "a\n\nb",
        "\na",
        "a \nb",
        "a\n b",
    ];
    for n in 0..chance.below(12) {
        let text: String = (0..chance.below(40)).map(|_| chance.pick(&words)).collect();
        let key: String = (0..chance.below(4)).map(|_| chance.pick(&words)).collect();
        let text = if n % 2 == 0 { odd[chance.below(odd.len())].to_owned() } else { text };
        object.insert(key, text.into());
        object
            .insert(chance.pick(&odd).to_owned(), [text_of(chance, &words)].into_iter().collect());
    }
    object.insert("long ".repeat(5 * chance.below(8)), Value::Null);
    object
}

fn text_of(chance: &mut Chance, words: &[&str]) -> Value {
    (0..chance.below(30)).map(|_| chance.pick(words)).collect::<String>().into()
}

#[test]
fn what_is_no_json_ends_every_hook_alike() {
    for hook in [
        "hook-script",
        "hook-ansible",
        "hook-puppet",
        "hook-cfn-init",
        "hook-json-file",
        "hook-hiera",
        "hook-docker-cmd",
        "hook-docker-compose",
    ] {
        let name = hook.replace("hook-", "").replace('-', "_").to_uppercase();
        let [working, outputs] = ["WORKING", "OUTPUTS"].map(|what| format!("HEAT_{name}_{what}"));
        let variables = [(&*working, "PLACE/w"), (&*outputs, "PLACE/o")];
        for entry in ["", "{::::", "[1"] {
            let entry = entry.to_owned();
            let output = Case { hook, entry, variables: &variables, fake: "", files: &[] }.run("");
            assert_eq!(output.status.code(), Some(1));
        }
    }
}
