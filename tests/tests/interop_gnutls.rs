//! Our engine against the `gnutls-cli` and `gnutls-serv` programs, with certificates checked on
//! both ends.

use std::net::SocketAddr;
use std::process::Command;

use data_encoding::HEXLOWER;
use dtls_channel::{AlertDescription, CipherSuite, CloseReason};
use system_tests::{EXPORTER_LABEL, Node, PemIdentity, Process, lines, suites_and_mtus, udp_port};

fn priorities(suite: CipherSuite) -> String {
    let cipher = match suite {
        CipherSuite::Aes128GcmSha256 => "AES-128-GCM",
        CipherSuite::Aes256GcmSha384 => "AES-256-GCM",
        CipherSuite::Chacha20Poly1305Sha256 => "CHACHA20-POLY1305",
    };
    format!("NORMAL:-VERS-ALL:+VERS-DTLS1.2:-KX-ALL:+ECDHE-ECDSA:-CIPHER-ALL:+{cipher}")
}

fn client(own: &PemIdentity, trusted: &PemIdentity, server: &Node, suite: CipherSuite) -> Command {
    let mut command = Command::new("gnutls-cli");
    command.args(["--udp", "--priority", &priorities(suite), "--keymatexport", EXPORTER_LABEL]);
    command.arg("--x509certfile").arg(own.pem()).arg("--x509keyfile").arg(own.pem());
    command.arg("--x509cafile").arg(trusted.pem());
    command.args(["--verify-hostname", certs::identity::COMMON_NAME]);
    command.args(["--port", &server.address().port().to_string(), "127.0.0.1"]);
    command
}

/// `gnutls-serv` takes any port; our client repeats its hello until it is up.
fn server(own: &PemIdentity, trusted: &PemIdentity, suite: CipherSuite) -> (Process, SocketAddr) {
    let port = udp_port();
    let mut command = Command::new("gnutls-serv");
    command.args(["--udp", "--echo", "--priority", &priorities(suite)]);
    command.args(["--require-client-cert", "--verify-client-cert"]);
    command.arg("--x509certfile").arg(own.pem()).arg("--x509keyfile").arg(own.pem());
    command.arg("--x509cafile").arg(trusted.pem());
    command.args(["--port", &port.to_string()]);
    (Process::start(&mut command), ([127, 0, 0, 1], port).into())
}

#[test]
fn gnutls_clients_are_echoed_with_every_suite_and_datagram_size() {
    let (ours, theirs) = (PemIdentity::new(), PemIdentity::new());
    for (suite, mtu) in suites_and_mtus() {
        eprintln!("{suite:?}, MTU {mtu}");
        let node = Node::serve(ours.config(&theirs).with_mtu(mtu));
        let mut client = client(&theirs, &ours, &node, suite);
        let mut gnutls = Process::start(client.args(["--mtu", &mtu.to_string()]));
        let established = node.established();
        assert_eq!(established.suite, suite);
        assert_eq!(established.peer_certificate.as_deref(), Some(theirs.certificate()));
        assert!(established.extended_master_secret);
        gnutls.wait_for_line("that it trusts us", |line| {
            line.contains("certificate is trusted").then_some(())
        });
        let their_key = gnutls.wait_for_line("the exported key", |line| {
            line.strip_prefix("- Key material: ").map(str::to_owned)
        });
        let mut our_key = [0; 20];
        established.exporter.export_without_context(EXPORTER_LABEL, &mut our_key);
        assert_eq!(their_key, HEXLOWER.encode(&our_key));
        gnutls.wait_for_line("that it is ready", |line| {
            line.contains("Simple Client Mode").then_some(())
        });
        for line in lines(mtu) {
            gnutls.write_line(&line);
            let message = node.message();
            assert_eq!(String::from_utf8(message.clone()).unwrap(), format!("{line}\n"));
            node.send(&message);
            gnutls.wait_for_line("the echo", |echo| (echo == line).then_some(()));
        }
        gnutls.close_stdin();
        assert_eq!(node.closed(), CloseReason::CloseNotify);
        assert!(gnutls.wait().success(), "{gnutls}");
    }
}

#[test]
fn gnutls_servers_echo_us_with_every_suite_and_datagram_size() {
    let (ours, theirs) = (PemIdentity::new(), PemIdentity::new());
    for (suite, mtu) in suites_and_mtus() {
        eprintln!("{suite:?}, MTU {mtu}");
        let (_gnutls, address) = server(&theirs, &ours, suite);
        let node = Node::connect(address, ours.config(&theirs).with_mtu(mtu));
        let established = node.established();
        assert_eq!(established.suite, suite);
        assert_eq!(established.peer_certificate.as_deref(), Some(theirs.certificate()));
        assert!(established.extended_master_secret);
        for line in lines(mtu) {
            let line = format!("{line}\n");
            node.send(line.as_bytes());
            // It reads and echoes long records piece by piece.
            let mut echo = Vec::new();
            while echo.len() < line.len() {
                echo.extend(node.message());
            }
            assert_eq!(String::from_utf8(echo).unwrap(), line);
        }
        node.close();
        assert_eq!(node.closed(), CloseReason::Local);
    }
}

#[test]
fn a_gnutls_client_with_another_certificate_is_refused_and_told_so() {
    let (ours, theirs, stranger) = (PemIdentity::new(), PemIdentity::new(), PemIdentity::new());
    let node = Node::serve(ours.config(&theirs));
    let suite = CipherSuite::Aes128GcmSha256;
    let mut gnutls = Process::start(&mut client(&stranger, &ours, &node, suite));
    assert!(matches!(node.closed(), CloseReason::PeerRefused(_)));
    gnutls.wait_for_line("the alert", |line| line.contains("Certificate is bad").then_some(()));
    assert!(!gnutls.wait().success());
}

#[test]
fn a_gnutls_client_that_does_not_trust_us_is_believed() {
    let (ours, theirs, stranger) = (PemIdentity::new(), PemIdentity::new(), PemIdentity::new());
    let node = Node::serve(ours.config(&theirs));
    let suite = CipherSuite::Aes128GcmSha256;
    let mut gnutls = Process::start(&mut client(&theirs, &stranger, &node, suite));
    let reason = node.closed();
    let alerts = [AlertDescription::UNKNOWN_CA, AlertDescription::BAD_CERTIFICATE];
    assert!(alerts.map(CloseReason::PeerAlert).contains(&reason), "{reason}\n{gnutls}");
    assert!(!gnutls.wait().success());
}

#[test]
fn a_gnutls_server_with_another_certificate_is_refused() {
    let (ours, theirs, stranger) = (PemIdentity::new(), PemIdentity::new(), PemIdentity::new());
    let (_gnutls, address) = server(&stranger, &ours, CipherSuite::Aes128GcmSha256);
    let node = Node::connect(address, ours.config(&theirs));
    assert!(matches!(node.closed(), CloseReason::PeerRefused(_)));
}

#[test]
fn a_gnutls_server_that_does_not_trust_us_is_believed() {
    let (ours, theirs, stranger) = (PemIdentity::new(), PemIdentity::new(), PemIdentity::new());
    let (gnutls, address) = server(&theirs, &stranger, CipherSuite::Aes128GcmSha256);
    let node = Node::connect(address, ours.config(&theirs));
    let reason = node.closed();
    assert!(matches!(reason, CloseReason::PeerAlert(_)), "{reason}\n{gnutls}");
}

#[test]
fn gnutls_reads_the_record_size_limit_that_we_set() {
    /// It takes no smaller one unless told to, and does not cut longer messages but refuses them.
    const LIMIT: u16 = 512;

    let (ours, theirs) = (PemIdentity::new(), PemIdentity::new());
    let suite = CipherSuite::Aes128GcmSha256;
    let serve = |limit| Node::serve(ours.config(&theirs).with_record_size_limit(limit));

    let node = serve(LIMIT - 1);
    let _gnutls = Process::start(&mut client(&theirs, &ours, &node, suite));
    assert_eq!(node.closed(), CloseReason::PeerAlert(AlertDescription::ILLEGAL_PARAMETER));

    let node = serve(LIMIT);
    let mut gnutls = Process::start(&mut client(&theirs, &ours, &node, suite));
    let _ = node.established();
    gnutls.wait_for_line("that it is ready", |line| {
        line.contains("Simple Client Mode").then_some(())
    });
    let line = "x".repeat(usize::from(LIMIT) - 1);
    gnutls.write_line(&line);
    assert_eq!(String::from_utf8(node.message()).unwrap(), format!("{line}\n"));
}
