//! Our engine against the `openssl` program, in both roles, with certificates checked on both ends.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXUPPER;
use dtls_channel::{AlertDescription, CipherSuite, CloseReason, Established, TicketKeys};
use system_tests::{EXPORTER_LABEL, Node, PemIdentity, Process, lines, suites_and_mtus};

fn cipher(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::Aes128GcmSha256 => "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::Aes256GcmSha384 => "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::Chacha20Poly1305Sha256 => "ECDHE-ECDSA-CHACHA20-POLY1305",
    }
}

/// What both roles of the program are told: who they are and whom to trust.
fn openssl(role: &str, own: &PemIdentity, trusted: &PemIdentity) -> Command {
    let mut command = Command::new("openssl");
    command.args([role, "-dtls1_2", "-verify_return_error", "-keymatexport", EXPORTER_LABEL]);
    command.arg("-cert").arg(own.pem()).arg("-key").arg(own.pem());
    command.arg("-CAfile").arg(trusted.pem());
    command
}

fn client(own: &PemIdentity, trusted: &PemIdentity, server: &Node) -> Command {
    let mut command = openssl("s_client", own, trusted);
    command.args(["-connect", &server.address().to_string()]);
    command
}

fn server(own: &PemIdentity, trusted: &PemIdentity) -> Command {
    let mut command = openssl("s_server", own, trusted);
    command.args(["-accept", "127.0.0.1:0", "-Verify", "1"]);
    command
}

/// Where `s_server` says that it listens.
fn address(server: &mut Process) -> std::net::SocketAddr {
    server.wait_for_line("where it listens", |line| line.strip_prefix("ACCEPT ")?.parse().ok())
}

fn assert_same_keys(program: &mut Process, ours: &Established) {
    let theirs = program.wait_for_line("the exported key", |line| {
        line.trim().strip_prefix("Keying material: ").map(str::to_owned)
    });
    let mut exported = [0; 20];
    ours.exporter.export_without_context(EXPORTER_LABEL, &mut exported);
    assert_eq!(theirs, HEXUPPER.encode(&exported));
}

#[test]
fn openssl_clients_are_echoed_with_every_suite_and_datagram_size() {
    let (ours, theirs) = (PemIdentity::new(), PemIdentity::new());
    for (suite, mtu) in suites_and_mtus() {
        eprintln!("{suite:?}, MTU {mtu}");
        let node = Node::serve(ours.config(&theirs).with_mtu(mtu));
        let mut client = client(&theirs, &ours, &node);
        client.args(["-cipher", cipher(suite), "-mtu", &mtu.to_string()]);
        let mut openssl = Process::start(&mut client);
        let established = node.established();
        assert_eq!(established.suite, suite);
        assert_eq!(established.peer_certificate.as_deref(), Some(theirs.certificate()));
        assert!(established.extended_master_secret);
        openssl
            .wait_for_line("that it trusts us", |line| (line == "Verification: OK").then_some(()));
        assert_same_keys(&mut openssl, &established);
        for line in lines(mtu) {
            openssl.write_line(&line);
            let message = node.message();
            assert_eq!(String::from_utf8(message.clone()).unwrap(), format!("{line}\n"));
            node.send(&message);
            openssl.wait_for_line("the echo", |echo| (echo == line).then_some(()));
        }
        openssl.close_stdin();
        assert_eq!(node.closed(), CloseReason::CloseNotify);
        assert!(openssl.wait().success(), "{openssl}");
    }
}

#[test]
fn openssl_servers_talk_to_us_with_every_suite_and_datagram_size() {
    let (ours, theirs) = (PemIdentity::new(), PemIdentity::new());
    for (suite, mtu) in suites_and_mtus() {
        eprintln!("{suite:?}, MTU {mtu}");
        let mut server = server(&theirs, &ours);
        let mut openssl = Process::start(server.args(["-mtu", &mtu.to_string()]));
        let config = ours.config(&theirs).with_mtu(mtu).with_suites(&[suite]);
        let node = Node::connect(address(&mut openssl), config);
        let established = node.established();
        assert_eq!(established.suite, suite);
        assert_eq!(established.peer_certificate.as_deref(), Some(theirs.certificate()));
        assert!(established.extended_master_secret);
        assert_same_keys(&mut openssl, &established);
        for line in lines(mtu) {
            node.send(format!("{line}\n").as_bytes());
            openssl.wait_for_line("our line", |got| (got == line).then_some(()));
            openssl.write_line(&line);
            assert_eq!(String::from_utf8(node.message()).unwrap(), format!("{line}\n"));
        }
        node.close();
        openssl.wait_for_line("that we have gone", |line| (line == "DONE").then_some(()));
    }
}

#[test]
fn openssl_clients_resume_by_our_tickets_with_every_suite() {
    let (ours, theirs) = (PemIdentity::new(), PemIdentity::new());
    let folder = tempfile::tempdir().unwrap();
    for suite in CipherSuite::ALL {
        let keys = Arc::new(TicketKeys::random().unwrap());
        let config = ours.config(&theirs).with_ticket_keys(keys, Duration::from_secs(3_600));
        let node = Node::serve(config);
        let file = folder.path().join(format!("{suite:?}"));
        for (flag, resumes) in [("-sess_out", false), ("-sess_in", true)] {
            eprintln!("{suite:?}, {flag}");
            let mut client = client(&theirs, &ours, &node);
            client.args(["-cipher", cipher(suite), flag]).arg(&file);
            let mut openssl = Process::start(&mut client);
            let established = node.established();
            assert_eq!((established.suite, established.resumed), (suite, resumes));
            let pin = *certs::Fingerprint::of_der(theirs.certificate()).as_bytes();
            assert_eq!(established.peer_fingerprint, Some(pin));
            let says = if resumes { "Reused, " } else { "New, " };
            openssl.wait_for_line(says, |line| line.starts_with(says).then_some(()));
            assert_same_keys(&mut openssl, &established);
            openssl.write_line("message 1");
            let message = node.message();
            assert_eq!(message, b"message 1\n");
            node.send(&message);
            openssl.wait_for_line("the echo", |echo| (echo == "message 1").then_some(()));
            openssl.close_stdin();
            assert_eq!(node.closed(), CloseReason::CloseNotify);
            assert!(openssl.wait().success(), "{openssl}");
        }
    }
}

#[test]
fn we_resume_by_the_tickets_of_openssl_servers_with_every_suite() {
    let (ours, theirs) = (PemIdentity::new(), PemIdentity::new());
    let mut openssl = Process::start(&mut server(&theirs, &ours));
    let address = address(&mut openssl);
    for suite in CipherSuite::ALL {
        eprintln!("{suite:?}");
        let config = || ours.config(&theirs).with_suites(&[suite]).asking_for_tickets();
        let first = Node::connect(address, config());
        let established = first.established();
        assert!(!established.resumed);
        let session = established.session.unwrap();
        first.close();
        openssl.wait_for_line("that we have gone", |line| (line == "DONE").then_some(()));

        let second = Node::resume(address, config(), session);
        let established = second.established();
        assert_eq!((established.suite, established.resumed), (suite, true));
        assert_eq!(established.peer_certificate.as_deref(), Some(theirs.certificate()));
        openssl.wait_for_line("that it resumed", |line| {
            line.starts_with("Reused session-id").then_some(())
        });
        assert_same_keys(&mut openssl, &established);
        second.send(b"message 1\n");
        openssl.wait_for_line("our line", |got| (got == "message 1").then_some(()));
        openssl.write_line("message 2");
        assert_eq!(second.message(), b"message 2\n");
        second.close();
        openssl.wait_for_line("that we have gone", |line| (line == "DONE").then_some(()));
    }
}

#[test]
fn an_openssl_client_with_another_certificate_is_refused_and_told_so() {
    let (ours, theirs, stranger) = (PemIdentity::new(), PemIdentity::new(), PemIdentity::new());
    let node = Node::serve(ours.config(&theirs));
    let mut openssl = Process::start(&mut client(&stranger, &ours, &node));
    assert!(matches!(node.closed(), CloseReason::PeerRefused(_)));
    openssl.wait_for_line("the alert", |line| line.contains("alert bad certificate").then_some(()));
    assert!(!openssl.wait().success());
}

#[test]
fn an_openssl_client_that_does_not_trust_us_is_believed() {
    let (ours, theirs, stranger) = (PemIdentity::new(), PemIdentity::new(), PemIdentity::new());
    let node = Node::serve(ours.config(&theirs));
    let mut openssl = Process::start(&mut client(&theirs, &stranger, &node));
    let reason = node.closed();
    let alerts = [AlertDescription::UNKNOWN_CA, AlertDescription::BAD_CERTIFICATE];
    assert!(alerts.map(CloseReason::PeerAlert).contains(&reason), "{reason}\n{openssl}");
    assert!(!openssl.wait().success());
}

#[test]
fn an_openssl_server_with_another_certificate_is_refused_and_told_so() {
    let (ours, theirs, stranger) = (PemIdentity::new(), PemIdentity::new(), PemIdentity::new());
    let mut openssl = Process::start(&mut server(&stranger, &ours));
    let node = Node::connect(address(&mut openssl), ours.config(&theirs));
    assert!(matches!(node.closed(), CloseReason::PeerRefused(_)));
    openssl.wait_for_line("the alert", |line| line.contains("alert bad certificate").then_some(()));
}

#[test]
fn an_openssl_server_that_does_not_trust_us_is_believed() {
    let (ours, theirs, stranger) = (PemIdentity::new(), PemIdentity::new(), PemIdentity::new());
    let mut openssl = Process::start(&mut server(&theirs, &stranger));
    let node = Node::connect(address(&mut openssl), ours.config(&theirs));
    let reason = node.closed();
    let alerts = [AlertDescription::UNKNOWN_CA, AlertDescription::BAD_CERTIFICATE];
    assert!(alerts.map(CloseReason::PeerAlert).contains(&reason), "{reason}\n{openssl}");
}

/// RFC 5246 §7.2.2: who asked for a renegotiation is told that there is none, and decides.
#[test]
fn an_openssl_client_that_wants_to_renegotiate_is_told_no_and_hangs_up() {
    let (ours, theirs) = (PemIdentity::new(), PemIdentity::new());
    let node = Node::serve(ours.config(&theirs));
    let mut openssl = Process::start(&mut client(&theirs, &ours, &node));
    let _ = node.established();
    openssl.wait_for_line("that it trusts us", |line| (line == "Verification: OK").then_some(()));
    openssl.write_line("R");
    assert_eq!(node.closed(), CloseReason::PeerAlert(AlertDescription::HANDSHAKE_FAILURE));
    openssl.wait_for_line("why", |line| line.contains("no renegotiation").then_some(()));
    assert!(!openssl.wait().success());
}
