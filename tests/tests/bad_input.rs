//! Bad input of every kind gives the error that a user needs, with the right exit code, and leaves
//! the last good state in force.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use system_tests::documents::{document, script};
use system_tests::{Agent, Process, Server, server_binary};

const EXIT_FAILED: i32 = 1;
const EXIT_USAGE: i32 = 64;
const EXIT_UNREACHABLE: i32 = 69;
const EXIT_CONFIG: i32 = 78;
const MIB: usize = 1 << 20;

/// Runs a command that must fail with this exit code; returns what it says on stderr.
fn fails(command: &mut Command, exit: i32) -> String {
    let mut process = Process::start(command);
    process.close_stdin();
    let status = process.wait();
    assert_eq!(status.code(), Some(exit), "{process}");
    let said = process.text();
    assert!(said.contains("error: "), "{said}");
    said
}

fn assert_says(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "{part:?} is not in:\n{said}");
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// What a bad document is answered with: HTTP status, code, and what the text must name.
struct Bad<'a> {
    body: &'a [u8],
    status: u16,
    code: &'a str,
    names: &'a [&'a str],
}

#[test]
fn a_bad_document_is_refused_with_its_place_and_the_last_good_one_stays() {
    let server = Server::start();
    let agent = Agent::start(&server, "vm");
    let good = document(&[script("good", "#!/bin/sh\necho good\n")]);
    let version = server.accept("vm", &good);
    server.wait_until_applied("vm", version);

    let too_large = vec![b' '; 17 * MIB];
    let bad = [
        Bad {
            body: b"these are words",
            status: 400,
            code: "document_not_json",
            names: &["not JSON", "line 1"],
        },
        Bad {
            body: b"{\n  \"deployments\": [\n    {\"id\": }\n  ]\n}",
            status: 400,
            code: "document_not_json",
            names: &["not JSON", "line 3"],
        },
        Bad {
            body: &too_large,
            status: 413,
            code: "document_too_large",
            names: &["17825792", "16777216"],
        },
        Bad {
            body: br#"{"deployments": {"id": "x"}}"#,
            status: 422,
            code: "document_invalid",
            names: &["/deployments", "is an object", "must be a list"],
        },
        Bad {
            body: br#"{"deployments": [{"id": "x"}, 5]}"#,
            status: 422,
            code: "document_invalid",
            names: &["/deployments/1", "is a number"],
        },
        Bad {
            body: br#"{"deployments": [{"id": "../../escape"}]}"#,
            status: 422,
            code: "document_invalid",
            names: &["/deployments/0/id", "../../escape"],
        },
        Bad {
            body: b"[]",
            status: 422,
            code: "document_invalid",
            names: &["is a list", "an object"],
        },
        Bad { body: b"", status: 400, code: "document_not_json", names: &["not JSON"] },
    ];
    for Bad { body, status, code, names } in bad {
        let reply = server.put("vm", body).unwrap();
        assert_eq!(reply.status, status, "{reply}");
        let error = &reply.json()["error"];
        assert_eq!(error["code"], code, "{reply}");
        assert_says(error["message"].as_str().unwrap(), names);
        assert!(!error["hint"].as_str().unwrap().is_empty(), "{reply}");

        let file = server.directory().join("bad.json");
        fs::write(&file, body).unwrap();
        let said = fails(&mut server.cli(&["put", "vm", file.to_str().unwrap()]), EXIT_FAILED);
        assert_says(&said, names);
        assert_says(&said, &["  try: "]);
    }

    let body = server.request("GET", "/v1/agents/vm/metadata", &[]).unwrap().body;
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), good);
    let view = server.get("/v1/agents/vm");
    assert_eq!((&view["state"], &view["applied_version"]), (&"connected".into(), &version.into()));
    agent.wait_for_status("that it is well", |status| (status["exit_code"] == 0).then_some(()));
    // And it goes on.
    let version = server.accept("vm", &document(&[script("next", "#!/bin/sh\n")]));
    server.wait_until_applied("vm", version);
}

#[test]
fn an_entry_without_what_it_needs_fails_alone_and_says_why() {
    let server = Server::start();
    let _agent = Agent::start(&server, "vm");
    let mut bad = script("no-config", "");
    bad.as_object_mut().unwrap().remove("config");
    let good = script("good", "#!/bin/sh\necho good\n");
    server.accept("vm", &json!({ "deployments": [bad, good] }));
    assert_eq!(server.wait_for_result("vm", "good")["status"], "COMPLETE");
    let result = server.wait_for_result("vm", "no-config");
    assert_eq!(result["status"], "FAILED", "{result}");
    assert_says(result["reason"].as_str().unwrap(), &["config"]);
}

#[test]
fn an_unknown_key_in_a_configuration_file_is_named_with_its_line_and_the_nearest_one() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.toml");
    let path = file.to_str().unwrap();
    fs::write(&file, "# the server's\nlissten = \"127.0.0.1:1\"\nkeep_alive = 5\n").unwrap();
    for arguments in [&["run", "--config", path][..], &["check-config", path]] {
        let said = fails(Command::new(server_binary()).args(arguments), EXIT_CONFIG);
        assert_says(&said, &[&format!("{path}:2"), "\"lissten\"", "\"listen\""]);
        // All of it at once.
        assert_says(&said, &[&format!("{path}:3"), "keep_alive is 5", "\"30s\""]);
    }
    fs::write(&file, "# the agent's\nsate_dir = \"/x\"\n").unwrap();
    let agent = Agent::prepare(&[]);
    let said = fails(agent.cli(&["run"]).args(["--config", path]), EXIT_CONFIG);
    assert_says(&said, &[&format!("{path}:2"), "\"sate_dir\"", "\"state_dir\""]);
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    let agent = Agent::prepare(&[]);
    fails(&mut agent.cli(&["frobnicate"]), EXIT_USAGE);
    fails(Command::new(server_binary()).args(["put", "../x", "-"]), EXIT_USAGE);
}

#[test]
fn a_key_that_others_can_read_is_refused_with_the_command_that_repairs_it() {
    let mut server = Server::start();
    let mut agent = Agent::start(&server, "vm");
    agent.stop();
    server.stop();
    for (key, command) in [
        (server.state_dir().join("identity/identity.pem"), &mut server.command()),
        (agent.state_dir().join("identity/identity.pem"), &mut agent.command()),
    ] {
        set_mode(&key, 0o644);
        let said = fails(command, EXIT_CONFIG);
        assert_says(&said, &["0644", &format!("chmod 600 {}", key.display())]);
    }
    // Repaired as it says, both are who they were.
    set_mode(&server.state_dir().join("identity/identity.pem"), 0o600);
    set_mode(&agent.state_dir().join("identity/identity.pem"), 0o600);
    server.restart();
    agent.launch();
    server.wait_for_agent("vm", "connected");
}

#[test]
fn a_key_that_cannot_be_used_is_refused_and_never_replaced() {
    let mut server = Server::start();
    let mut agent = Agent::start(&server, "vm");
    agent.stop();
    server.stop();
    for (key, command) in [
        (server.state_dir().join("identity/identity.pem"), &mut server.command()),
        (agent.state_dir().join("identity/identity.pem"), &mut agent.command()),
    ] {
        fs::write(&key, "-----BEGIN NONSENSE-----\n").unwrap();
        let said = fails(command, EXIT_CONFIG);
        assert_says(&said, &[key.to_str().unwrap()]);
        assert_eq!(fs::read_to_string(&key).unwrap(), "-----BEGIN NONSENSE-----\n");

        // A key that cannot even be opened; permissions do not stop root, a directory does.
        fs::remove_file(&key).unwrap();
        fs::create_dir(&key).unwrap();
        let said = fails(command, EXIT_CONFIG);
        assert_says(&said, &[key.to_str().unwrap()]);
    }
    let missing = server.directory().join("missing.pem");
    let mut command = server.command();
    command.arg("--key-file").arg(&missing).arg("--certificate-file").arg(&missing);
    assert_says(&fails(&mut command, EXIT_CONFIG), &[missing.to_str().unwrap(), "No such file"]);
}

#[test]
fn a_port_or_a_state_directory_in_use_is_named_with_the_way_to_find_its_owner() {
    let server = Server::start();
    let other = Server::prepare(&[]);
    let with = |listen: &str, admin: &str, state: &Path| {
        let mut command = Command::new(server_binary());
        command.args(["run", "--listen", listen, "--admin-listen", admin, "--state-dir"]);
        command.arg(state);
        command
    };
    let [taken, taken_admin] = [server.listen, server.admin].map(|address| address.to_string());
    let [free, free_admin] = [other.listen, other.admin].map(|address| address.to_string());

    let said = fails(&mut with(&taken, &free_admin, &other.state_dir()), EXIT_FAILED);
    assert_says(&said, &[&taken, "in use", "ss -lunp", "--listen"]);
    let said = fails(&mut with(&free, &taken_admin, &other.state_dir()), EXIT_FAILED);
    assert_says(&said, &[&taken_admin, "in use", "ss -ltnp", "--admin-listen"]);
    let said = fails(&mut with(&free, &free_admin, &server.state_dir()), EXIT_FAILED);
    assert_says(&said, &["in use", "--state-dir"]);

    let agent = Agent::start(&server, "vm");
    // Not waiting for the one that runs.
    let said = fails(&mut agent.command(), EXIT_FAILED);
    assert_says(&said, &[agent.state_dir().to_str().unwrap()]);
}

#[test]
fn a_server_that_does_not_answer_is_named() {
    let server = Server::prepare(&[]);
    fs::create_dir_all(server.state_dir()).unwrap();
    fs::write(server.state_dir().join("admin-token"), "x".repeat(64)).unwrap();
    set_mode(&server.state_dir().join("admin-token"), 0o600);
    let said = fails(&mut server.cli(&["agents"]), EXIT_UNREACHABLE);
    assert_says(&said, &[&server.admin.to_string(), "  try: "]);
}

#[test]
fn an_agent_without_enrolment_and_one_with_half_a_token_say_how_to_get_one() {
    let server = Server::start();
    let agent = Agent::prepare(&[]);
    let said = fails(&mut agent.command(), EXIT_CONFIG);
    assert_says(&said, &["not enrolled", "metadata-server enroll"]);
    let token = server.token("vm", std::time::Duration::from_secs(60));
    agent.save_token(&token[..token.len() / 2]);
    let said = fails(&mut agent.enroll(), EXIT_CONFIG);
    assert_says(&said, &["token", "  try: "]);
    assert!(!said.contains(&token[6..token.len() / 2]), "the token's secret is shown:\n{said}");
}

/// Runs a daemon's command on a disk that soon is full: behind a shell that limits it first.
fn behind(shell: &str, command: &Command) -> Command {
    let mut limited = Command::new("sh");
    limited.args(["-c", &format!("{shell}; exec \"$@\""), "sh"]);
    limited.arg(command.get_program()).args(command.get_args());
    limited
}

/// Puts ever more until there is no room, then checks that what was accepted is still there.
fn fill_up(server: &Server, agent: &Agent) {
    let good = document(&[script("good", "#!/bin/sh\necho good\n")]);
    let version = server.accept("vm", &good);
    server.wait_until_applied("vm", version);
    let mut padded = good.clone();
    let filler = "x".repeat(MIB);
    let refused = (0..100).find_map(|number| {
        padded["padding"] = format!("{number} {filler}").into();
        let body = padded.to_string();
        let reply = server.put(&format!("filler-{number}"), body.as_bytes()).unwrap();
        (reply.status != 201).then_some((number, reply))
    });
    let Some((number, reply)) = refused else { panic!("100 MiB fit") };
    assert!(number > 0, "there was room for one: {reply}");
    assert_eq!(reply.status, 507, "{reply}");
    let error = &reply.json()["error"];
    assert_eq!(error["code"], "store_full", "{reply}");
    assert!(!error["hint"].as_str().unwrap().is_empty(), "{reply}");

    // The same to somebody who has a good one: that stays in force.
    let file = server.directory().join("large.json");
    fs::write(&file, padded.to_string()).unwrap();
    let mut put = server.cli(&["put", "vm", file.to_str().unwrap()]);
    assert_says(&fails(&mut put, EXIT_FAILED), &["full", "  try: "]);
    let body = server.request("GET", "/v1/agents/vm/metadata", &[]).unwrap().body;
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), good);
    for filler in 0..number {
        let path = format!("/v1/agents/filler-{filler}/metadata");
        assert_eq!(server.request("GET", &path, &[]).unwrap().status, 200);
    }
    assert_eq!(server.get("/v1/agents/vm")["state"], "connected");
    assert!(server.metric("mds_store_failures_total") >= 2.0);
    agent.wait_for_status("that it is well", |status| (status["exit_code"] == 0).then_some(()));
}

#[test]
fn a_store_that_cannot_grow_refuses_what_does_not_fit_and_keeps_what_it_has() {
    let mut server = Server::prepare(&[]);
    // In blocks of 512 bytes. Without the trap the signal would end the server.
    let limit = format!("trap '' XFSZ; ulimit -f {}", 16 * MIB / 512);
    let command = behind(&limit, &server.command());
    server.launch_as(command);
    server.wait_until_ready();
    let agent = Agent::start(&server, "vm");
    fill_up(&server, &agent);

    // With more room all goes on.
    server.stop();
    server.restart();
    server.wait_for_agent("vm", "connected");
    let version = server.accept("vm", &document(&[script("next", "#!/bin/sh\n")]));
    server.wait_until_applied("vm", version);
}

#[test]
fn a_full_disk_refuses_what_does_not_fit_and_keeps_what_it_has() {
    // A small file system of the server's own, seen by nobody else and gone with it.
    let unshare = ["--mount", "--map-root-user", "true"];
    let may = Command::new("unshare").args(unshare).stderr(Stdio::null()).status();
    if !may.is_ok_and(|status| status.success()) {
        eprintln!("mounting is not allowed here: only the limit on file sizes is tested");
        return a_store_that_cannot_grow_refuses_what_does_not_fit_and_keeps_what_it_has();
    }
    let outside = tempfile::tempdir().unwrap();
    let token_file = outside.path().join("admin-token");
    let mut server = Server::prepare(&["--admin-token-file", token_file.to_str().unwrap()]);
    fs::create_dir_all(server.state_dir()).unwrap();
    let mount = format!(
        "mount -t tmpfs -o size=16m,mode=0700 tmpfs {} || exit 1",
        server.state_dir().display()
    );
    let inner = behind(&mount, &server.command());
    let mut command = Command::new("unshare");
    command.args(["--mount", "--map-root-user"]).arg(inner.get_program()).args(inner.get_args());
    server.launch_as(command);
    server.take_token_from(&token_file);
    server.wait_until_ready();
    let agent = Agent::start(&server, "vm");
    fill_up(&server, &agent);
}

#[test]
fn an_agent_without_room_for_a_document_says_so_keeps_its_last_one_and_takes_the_next() {
    let server = Server::start();
    let mut agent = Agent::prepare(&[]);
    agent.save_token(&server.token("vm", std::time::Duration::from_secs(600)));
    let limit = format!("trap '' XFSZ; ulimit -f {}", MIB / 512);
    let command = behind(&limit, &agent.command());
    agent.launch_as(command);
    let log = agent.directory().join("log");
    let noting = |id: &str| script(id, &format!("#!/bin/sh\necho '{id} ' >> {}\n", log.display()));
    let first = document(&[noting("first")]);
    let version = server.accept("vm", &first);
    server.wait_until_applied("vm", version);

    let mut large = document(&[noting("large")]);
    large["padding"] = "x".repeat(2 * MIB).into();
    server.accept("vm", &large);
    agent.process().wait_for_line("that there is no room", |line| {
        (line.contains("ERROR") && line.contains("too large")).then_some(())
    });
    assert_eq!(server.get("/v1/agents/vm")["delivered_version"], version);
    let stored = fs::read(agent.state_dir().join("document")).unwrap();
    assert!(stored.ends_with(first.to_string().as_bytes()), "the last good one is gone");

    let version = server.accept("vm", &document(&[noting("next")]));
    server.wait_until_applied("vm", version);
    // The journal, which is what runs are counted by, had room: each ran once.
    let mut log = fs::read_to_string(&log).unwrap();
    log.retain(|c| c != '\n');
    assert_eq!(log, "first large next ");
}
