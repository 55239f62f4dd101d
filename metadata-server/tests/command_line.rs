//! The program as its users meet it: commands, errors, exit codes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on stops")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use certs::Identity;
use serde_json::Value;

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_metadata-server"));
    // Nothing of the machine's own configuration.
    command.env_clear().stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    program().args(arguments).output().unwrap()
}

fn exit(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn write_private(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A server on free ports, killed at the end if it still runs.
struct Dev {
    child: Child,
    info: Value,
}

impl Dev {
    fn start(state_dir: &Path) -> Self {
        let mut child = program()
            .args(["dev", "--json", "--agent", "a", "--listen", "127.0.0.1:0"])
            .args(["--admin-listen", "127.0.0.1:0", "--state-dir"])
            .arg(state_dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { info: serde_json::from_str(&line).expect("the line that says it runs"), child }
    }

    fn command(&self) -> Command {
        let mut command = program();
        command.env("METADATA_SERVER_ADMIN_LISTEN", self.info["admin"].as_str().unwrap());
        command.env("METADATA_SERVER_STATE_DIR", self.info["state_dir"].as_str().unwrap());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).output().unwrap()
    }

    fn put(&self, agent: &str, text: &str) -> Output {
        let mut child = self
            .command()
            .args(["put", agent, "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    fn terminate(mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const DOCUMENT: &str = r#"{"deployments": [{"id": "c1", "name": "n", "group": "script"}]}"#;

#[test]
fn a_document_goes_in_and_comes_out_and_survives_a_stop() {
    let folder = tempfile::tempdir().unwrap();
    let dev = Dev::start(folder.path());
    let put = dev.put("a", DOCUMENT);
    assert_eq!(
        (exit(&put), stdout(&put).as_str()),
        (0, "agent a: version 1 accepted (bytes: 63, deployments: 1)\n")
    );
    assert!(stderr(&put).starts_with("next: "), "{}", stderr(&put));
    assert_eq!(
        stdout(&dev.put("a", DOCUMENT)),
        "agent a: version 1 is in force already (bytes: 63, deployments: 1)\n"
    );
    assert_eq!(stdout(&dev.run(&["get", "a"])), DOCUMENT);
    let head = stdout(&dev.run(&["get", "a", "--head", "--json"]));
    assert_eq!(serde_json::from_str::<Value>(&head).unwrap()["version"], 1);
    let agents = stdout(&dev.run(&["agents"]));
    assert!(agents.starts_with("AGENT  STATE         DOCUMENT  DELIVERED"), "{agents}");
    assert!(agents.contains("\na      not enrolled  1         -"), "{agents}");
    let results: Value = serde_json::from_str(&stdout(&dev.run(&["results", "--json"]))).unwrap();
    assert_eq!(results["results"], serde_json::json!([]));
    assert_eq!(dev.terminate(), Some(0), "a stop is no failure");

    let dev = Dev::start(folder.path());
    assert_eq!(stdout(&dev.run(&["get", "a"])), DOCUMENT, "durable");
}

#[test]
fn a_killed_server_has_lost_nothing_it_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(folder.path());
    assert_eq!(exit(&dev.put("a", DOCUMENT)), 0);
    dev.child.kill().unwrap();
    dev.child.wait().unwrap();
    let dev = Dev::start(folder.path());
    assert_eq!(stdout(&dev.run(&["get", "a"])), DOCUMENT);
}

#[test]
fn a_token_is_one_line_on_stdout_and_is_accompanied_by_user_data() {
    let folder = tempfile::tempdir().unwrap();
    let dev = Dev::start(folder.path());
    let enroll = dev.run(&["enroll", "b", "--ttl", "5m", "--address", "metadata.example:7843"]);
    assert_eq!(exit(&enroll), 0);
    let token: certs::EnrolmentToken = stdout(&enroll).trim().parse().unwrap();
    assert_eq!(token.servers, ["metadata.example:7843"]);
    assert_eq!(stdout(&enroll).lines().count(), 1);
    assert!(stderr(&enroll).contains("#cloud-config\nwrite_files:\n"), "{}", stderr(&enroll));
    assert!(stderr(&enroll).contains("\nnext: "), "{}", stderr(&enroll));
    let snippet = dev.run(&["enroll", "b", "--cloud-init"]);
    assert!(stdout(&snippet).starts_with("#cloud-config\n"), "{}", stdout(&snippet));
    let bad = dev.run(&["enroll", "b", "--ttl", "soon"]);
    assert_eq!(
        (exit(&bad), stderr(&bad).lines().next()),
        (64, Some("error: --ttl is \"soon\", must be a time"))
    );
    // The token that dev made lies in a private file.
    let file = dev.info["agents"][0]["token_file"].as_str().unwrap();
    assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn pins_and_keys_are_shown_and_changed() {
    let folder = tempfile::tempdir().unwrap();
    let dev = Dev::start(folder.path());
    let key = format!("{}\n", dev.info["fingerprint"].as_str().unwrap());
    assert_eq!(stdout(&dev.run(&["keys", "list"])), key);
    let fingerprint = Identity::generate("x").unwrap().fingerprint().to_string();
    let add = dev.run(&["pins", "add", "b", &fingerprint]);
    assert_eq!((exit(&add), stdout(&add)), (0, format!("agent b may use {fingerprint}\n")));
    assert!(stdout(&dev.run(&["pins", "list"])).contains(&format!("b      {fingerprint}  admin")));
    let taken = dev.run(&["pins", "add", "c", &fingerprint]);
    assert_eq!(exit(&taken), 1);
    assert!(stderr(&taken).contains("is pinned for agent b already"), "{}", stderr(&taken));
    assert_eq!(exit(&dev.run(&["pins", "remove", "b", &fingerprint])), 0);
    assert_eq!(exit(&dev.run(&["pins", "remove", "b", &fingerprint])), 1);
    let version: Value = serde_json::from_str(&stdout(&dev.run(&["version", "--json"]))).unwrap();
    assert_eq!(version["program"], version["server"]);
}

#[test]
fn bad_documents_are_refused_with_the_place() {
    let folder = tempfile::tempdir().unwrap();
    let dev = Dev::start(folder.path());
    let bad = dev.put("a", "{\"deployments\": [\n  {\"id\": \"a\",}\n]}");
    assert_eq!(exit(&bad), 1);
    assert_eq!(
        stderr(&bad),
        "error: standard input: not JSON: line 2, column 14: trailing comma\n  \
         try: look at line 2; \"python3 -m json.tool FILE\" checks a file\n"
    );
    let bad = dev.put("a", "{\"deployments\": \"none\"}");
    assert!(
        stderr(&bad).starts_with(
            "error: standard input: /deployments: is a string, must be a list of objects\n  try: "
        ),
        "{}",
        stderr(&bad)
    );
    let file = folder.path().join("17m.json");
    fs::write(&file, vec![b' '; 17 << 20]).unwrap();
    let bad = dev.run(&["put", "a", file.to_str().unwrap()]);
    assert_eq!(exit(&bad), 1);
    assert!(
        stderr(&bad).contains("17m.json: the document has 17825792 bytes, the limit is 16777216"),
        "{}",
        stderr(&bad)
    );
    let missing = dev.run(&["put", "a", "/nonexistent.json"]);
    assert_eq!(
        stderr(&missing),
        "error: /nonexistent.json cannot be read: No such file or directory (os error 2)\n"
    );
}

#[test]
fn watch_shows_what_happens_until_the_event_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let dev = Dev::start(folder.path());
    let mut watch = dev
        .command()
        .args(["watch", "--json", "--until", "document_accepted"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("\"watching\""));
    assert_eq!(exit(&dev.put("a", DOCUMENT)), 0);
    let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(
        (line["event"].as_str(), line["version"].as_u64()),
        (Some("document_accepted"), Some(1))
    );
    assert_eq!(watch.wait().unwrap().code(), Some(0));
}

#[test]
fn exit_codes_tell_usage_unreachable_refused_and_configuration_apart() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    write_private(&token, &"x".repeat(40), 0o600);
    let token = token.to_str().unwrap();

    assert_eq!(exit(&run(&["--help"])), 0);
    assert_eq!(exit(&run(&[])), 64);
    assert_eq!(exit(&run(&["agents", "--colour"])), 64);
    assert_eq!(exit(&run(&["get", "../etc"])), 64);

    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let down = run(&["agents", "--admin", &port.to_string(), "--admin-token-file", token]);
    assert_eq!(exit(&down), 69);
    assert!(
        stderr(&down)
            .starts_with(&format!("error: the server's admin API at {port} cannot be reached: "))
    );
    assert!(stderr(&down).contains("\n  try: is it running"), "{}", stderr(&down));

    let dev = Dev::start(folder.path());
    let wrong = dev.run(&["agents", "--admin-token-file", token]);
    assert_eq!(exit(&wrong), 77);
    assert!(stderr(&wrong).contains("is not the right one"), "{}", stderr(&wrong));

    let none = dev.run(&["agents", "--admin-token-file", "/nonexistent"]);
    assert_eq!(exit(&none), 78);
    assert!(stderr(&none).contains("/nonexistent"), "{}", stderr(&none));
}

#[test]
fn an_unknown_key_in_the_configuration_is_named_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    fs::write(&path, "log_format = \"json\"\nlisen = \"127.0.0.1:0\"\n").unwrap();
    let path = path.to_str().unwrap();
    let expected = format!("error: {path}:2: unknown key \"lisen\"; did you mean \"listen\"?\n");
    for arguments in [vec!["check-config", path], vec!["run", "--config", path]] {
        let output = run(&arguments);
        assert_eq!(exit(&output), 78, "{arguments:?}");
        assert!(stderr(&output).starts_with(&expected), "{}", stderr(&output));
    }
}

#[test]
fn flags_and_variables_are_checked_like_the_file() {
    let output = run(&["run", "--keep-alive", "never"]);
    assert_eq!(exit(&output), 78);
    assert!(
        stderr(&output).starts_with(
            "error: --keep-alive: keep_alive is \"never\", must be a time from 1s to 1h"
        ),
        "{}",
        stderr(&output)
    );
    let output = program().arg("check-config").env("METADATA_SERVER_LISTEN", "x").output().unwrap();
    assert_eq!(exit(&output), 78);
    assert!(
        stderr(&output)
            .starts_with("error: environment variable METADATA_SERVER_LISTEN: listen is"),
        "{}",
        stderr(&output)
    );
}

/// Runs `run` and `check-config` with a configuration that they must refuse.
fn refused(folder: &Path, config: &str) -> String {
    let path = folder.join("config.toml");
    let state = folder.join("state");
    fs::write(
        &path,
        format!(
            "state_dir = {:?}\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n{config}",
            state.display().to_string()
        ),
    )
    .unwrap();
    let path = path.to_str().unwrap();
    let check = run(&["check-config", path]);
    let output = run(&["run", "--config", path]);
    assert_eq!((exit(&check), exit(&output)), (78, 78), "{}", stderr(&output));
    let first = |output: &Output| stderr(output).lines().next().unwrap().to_owned();
    assert_eq!(first(&check), first(&output), "both say the same");
    stderr(&output)
}

#[test]
fn a_key_file_that_others_can_read_or_nobody_is_refused_by_name_with_the_repair() {
    let folder = tempfile::tempdir().unwrap();
    let identity = Identity::generate("x").unwrap();
    let key = folder.path().join("key.pem");
    write_private(&key, &identity.to_pem(), 0o644);
    let shown = key.display().to_string();
    let config = format!("certificate_file = {shown:?}\nkey_file = {shown:?}\n");
    let said = refused(folder.path(), &config);
    assert!(
        said.starts_with(&format!("error: certificate_file and key_file: {shown} has mode 0644")),
        "{said}"
    );
    assert!(said.contains("chmod"), "{said}");

    write_private(&key, "-----BEGIN NONSENSE-----\n", 0o600);
    let said = refused(folder.path(), &config);
    assert!(said.contains(&shown), "{said}");

    fs::remove_file(&key).unwrap();
    let said = refused(folder.path(), &config);
    assert!(said.contains(&format!("{shown}: No such file or directory")), "{said}");

    fs::create_dir(&key).unwrap();
    let said = refused(folder.path(), &config);
    assert!(said.contains(&format!("{shown} is not a regular file")), "{said}");
}

#[test]
fn a_key_of_the_servers_own_is_refused_when_others_can_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    Identity::load_or_create(&state.join("identity")).unwrap();
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).unwrap();
    let key = state.join("identity/identity.pem");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    let said = refused(folder.path(), "");
    assert!(
        said.starts_with(&format!("error: identity: {} has mode 0640", key.display())),
        "{said}"
    );
}

#[test]
fn a_good_configuration_is_ok_and_nothing_is_made_by_checking_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    let state = folder.path().join("state");
    fs::write(&path, format!("state_dir = {:?}\n", state.display().to_string())).unwrap();
    let output = run(&["check-config", path.to_str().unwrap()]);
    assert_eq!((exit(&output), stdout(&output)), (0, format!("{}: ok\n", path.display())));
    assert!(!state.exists());
}

#[test]
fn a_port_in_use_is_named_with_the_way_to_find_its_owner() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state").display().to_string();
    let held_udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let held_tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let (udp, tcp) = (held_udp.local_addr().unwrap(), held_tcp.local_addr().unwrap());
    for (listen, admin, protocol, address, tool) in [
        (udp.to_string(), "127.0.0.1:0".to_owned(), "UDP", udp, "ss -lunp"),
        ("127.0.0.1:0".to_owned(), tcp.to_string(), "TCP", tcp, "ss -ltnp"),
    ] {
        let output =
            run(&["run", "--state-dir", &state, "--listen", &listen, "--admin-listen", &admin]);
        assert_eq!(exit(&output), 1);
        let port = address.port();
        let said = stderr(&output);
        let expected = format!(
            "error: cannot listen on {protocol} {address}: port {port} is in use by another program\n  \
             try: \"{tool} 'sport = :{port}'\" names it; "
        );
        assert!(said.contains(&expected), "{said}");
    }
}

#[test]
fn a_store_in_use_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let dev = Dev::start(folder.path());
    let state = folder.path().display().to_string();
    let output = run(&[
        "run",
        "--state-dir",
        &state,
        "--listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
    ]);
    assert_eq!(exit(&output), 1);
    assert!(
        stderr(&output).contains("store.redb is in use by another process"),
        "{}",
        stderr(&output)
    );
    drop(dev);
}

#[test]
fn the_log_holds_no_secret_even_at_its_most_talkative() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = program()
        .args(["dev", "--json", "--agent", "a", "--listen", "127.0.0.1:0", "--admin-listen"])
        .args(["127.0.0.1:0", "--log-filter", "trace", "--log-format", "json", "--state-dir"])
        .arg(folder.path())
        .stdout(Stdio::piped())
        .stderr(fs::File::create(folder.path().join("log")).unwrap())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let dev = Dev { info: serde_json::from_str(&line).unwrap(), child };
    let token = stdout(&dev.run(&["enroll", "b"]));
    assert_eq!(exit(&dev.put("a", r#"{"deployments": [], "password": "correct horse"}"#)), 0);
    let admin_token = fs::read_to_string(folder.path().join("admin-token")).unwrap();
    assert_eq!(dev.terminate(), Some(0));
    let log = fs::read_to_string(folder.path().join("log")).unwrap();
    assert!(log.contains("document accepted"), "{log}");
    for secret in [token.trim(), admin_token.trim(), "correct horse"] {
        assert!(!log.contains(secret), "{log}");
    }
    for line in log.lines() {
        serde_json::from_str::<Value>(line).expect("one JSON object per line");
    }
}

#[test]
fn help_is_as_reviewed() {
    let mut text = String::new();
    for arguments in
        [vec!["-h"], vec!["put", "-h"], vec!["enroll", "--help"], vec!["run", "--help"]]
    {
        text +=
            &format!("$ metadata-server {}\n{}\n", arguments.join(" "), stdout(&run(&arguments)));
    }
    insta::assert_snapshot!(text);
}
