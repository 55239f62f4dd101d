//! The echo program and each of its settings, with itself at the other end. With other peers at the
//! other end the engine behind it is tried elsewhere.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use dtls_channel::CipherSuite;
use system_tests::{Disturbance, PemIdentity, Process, Relay, echo_binary};

type Variables<'a> = &'a [(&'a str, &'a str)];

fn server(own: &PemIdentity, variables: Variables<'_>) -> (Process, SocketAddr) {
    let mut command = Command::new(echo_binary());
    command.args(["server", "0"]).arg(own.certificate_pem()).arg(own.key_pem());
    let mut server = Process::start(command.envs(variables.iter().copied()));
    let address = server
        .wait_for_line("where it listens", |line| line.strip_prefix("listening on ")?.parse().ok());
    (server, address)
}

fn client(own: &PemIdentity, server: SocketAddr, variables: Variables<'_>) -> Process {
    let mut command = Command::new(echo_binary());
    command.args(["client", "127.0.0.1", &server.port().to_string()]);
    command.arg(own.certificate_pem()).arg(own.key_pem());
    Process::start(command.envs(variables.iter().copied()))
}

/// The client's lines come back, and both end well.
fn converse(client: &mut Process, server: &mut Process, lines: usize) {
    for n in 0..lines {
        let line = format!("line {n} {}", "x".repeat(100));
        client.write_line(&line);
        client.wait_for_line("the echo", |echo| (echo == line).then_some(()));
    }
    client.close_stdin();
    assert!(client.wait().success(), "{client}");
    assert!(server.wait().success(), "{server}");
}

/// Both with the same settings, and what both say in the end.
fn pair(variables: Variables<'_>) -> [String; 2] {
    let (one, other) = (PemIdentity::new(), PemIdentity::new());
    let (mut server, address) = server(&one, variables);
    let mut client = client(&other, address, variables);
    converse(&mut client, &mut server, 2);
    [client.text(), server.text()]
}

/// A client that fails at once, with its exit code.
fn failing(variables: Variables<'_>) -> (i32, String) {
    let own = PemIdentity::new();
    let mut client = client(&own, ([127, 0, 0, 1], 9).into(), variables);
    (client.wait().code().unwrap(), client.text())
}

#[test]
fn the_echo_program_wants_the_certificate_in_peer_cert_only() {
    let (one, other, stranger) = (PemIdentity::new(), PemIdentity::new(), PemIdentity::new());
    let pin = |who: &PemIdentity| who.certificate_pem().to_str().unwrap().to_owned();
    let (one_pin, other_pin, stranger_pin) = (pin(&one), pin(&other), pin(&stranger));

    let (mut server_process, address) = server(&one, &[("PEER_CERT", &other_pin)]);
    let mut client_process = client(&other, address, &[("PEER_CERT", &one_pin)]);
    converse(&mut client_process, &mut server_process, 1);

    let (mut server_process, address) = server(&one, &[("PEER_CERT", &stranger_pin)]);
    let _client = client(&other, address, &[]);
    assert_eq!(server_process.wait().code(), Some(1));
    assert!(server_process.text().contains("not the one in PEER_CERT"), "{server_process}");

    let (_server, address) = server(&one, &[]);
    let mut client_process = client(&other, address, &[("PEER_CERT", &stranger_pin)]);
    assert_eq!(client_process.wait().code(), Some(1));
    assert!(client_process.text().contains("not the one in PEER_CERT"), "{client_process}");
}

#[test]
fn the_echo_program_agrees_on_the_suite_in_suite() {
    for suite in CipherSuite::ALL {
        for said in pair(&[("SUITE", suite.name())]) {
            assert!(said.contains(&format!(" suite={} ", suite.name())), "{said}");
        }
    }
    let (code, said) = failing(&[("SUITE", "NULL_WITH_NULL_NULL")]);
    assert_eq!(code, 1);
    assert!(said.contains(CipherSuite::Aes128GcmSha256.name()), "{said}");
}

#[test]
fn the_echo_program_sends_no_datagram_longer_than_mtu() {
    let (one, other) = (PemIdentity::new(), PemIdentity::new());
    for (mtu, is_kept) in [("300", true), ("1200", false)] {
        let (mut server, address) = server(&one, &[("MTU", mtu)]);
        let relay = Relay::start(address, 1, Disturbance::none());
        let mut client = client(&other, relay.address(), &[("MTU", mtu)]);
        converse(&mut client, &mut server, 2);
        let stats = relay.stats();
        let longest = stats.from_clients_bytes_max.min(stats.from_server_bytes_max);
        assert_eq!(longest <= 300, is_kept, "{stats:?}");
    }
}

#[test]
fn the_echo_program_logs_its_keys_where_nobody_else_reads_them() {
    let directory = tempfile::tempdir().unwrap();
    let (one, other) = (PemIdentity::new(), PemIdentity::new());
    let [theirs, ours] = ["server.log", "client.log"].map(|name| directory.path().join(name));
    let (mut server, address) = server(&one, &[("KEYLOG", theirs.to_str().unwrap())]);
    let mut client = client(&other, address, &[("KEYLOG", ours.to_str().unwrap())]);
    converse(&mut client, &mut server, 1);
    let log = std::fs::read_to_string(&ours).unwrap();
    assert!(log.starts_with("CLIENT_RANDOM ") && log.lines().count() == 1, "{log}");
    assert_eq!(std::fs::read_to_string(&theirs).unwrap(), log);
    assert_eq!(std::fs::metadata(&ours).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn the_echo_programs_connection_id_lets_a_client_move() {
    let (one, other) = (PemIdentity::new(), PemIdentity::new());
    let (mut server, address) = server(&one, &[("CID", "c0ffee01")]);
    let relay = Relay::start(address, 1, Disturbance::rebinding(6));
    let mut client = client(&other, relay.address(), &[("CID", "-")]);
    converse(&mut client, &mut server, 20);
    assert!(relay.stats().rebound >= 2, "{:?}", relay.stats());
    for said in [client.text(), server.text()] {
        assert!(said.contains(" cid=yes "), "{said}");
    }
    let (code, said) = failing(&[("CID", "coffee")]);
    assert!(code == 1 && said.contains("CID coffee is no hexadecimal"), "{said}");
}

#[test]
fn the_echo_program_resumes_where_told_so() {
    for said in pair(&[("RESUME", "1")]) {
        let resumed: Vec<_> = said
            .lines()
            .filter(|line| line.starts_with("PEER "))
            .map(|line| line.ends_with(" resumed=yes"))
            .collect();
        assert_eq!(resumed, [false, true], "{said}");
    }
}

#[test]
fn the_echo_program_gives_up_after_timeout() {
    let own = PemIdentity::new();
    let (mut server, _) = server(&own, &[("TIMEOUT", "1")]);
    assert_eq!(server.wait().code(), Some(1));
    assert!(server.text().contains("waited for a client until TIMEOUT passed"), "{server}");
}

#[test]
fn the_echo_program_says_how_it_is_called() {
    let mut program = Process::start(Command::new(echo_binary()).arg("serve"));
    assert_eq!(program.wait().code(), Some(64));
    for variable in ["PEER_CERT", "SUITE", "MTU", "KEYLOG", "CID", "RESUME", "TIMEOUT"] {
        assert!(program.text().contains(variable), "{program}");
    }
}
